// SPDX-License-Identifier: GPL-2.0

//! Use counts that a teardown waits for.
//!
//! C counterparts: `refcount_t` with `wait_var_event()`, or `percpu_ref`, which pays off only where users come and go all the time.

use crate::completion::Completion;
use kernel::{
    prelude::*,
    sync::atomic::{
        ordering,
        Atomic, //
    },
};

/// A count of users, and a wait for the last one.
#[pin_data]
pub struct Users {
    /// The users, and one more as long as it is open.
    count: Atomic<i64>,
    #[pin]
    none: Completion,
}

impl Users {
    /// One that is open, without users.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            count: Atomic::new(1),
            none <- Completion::new(),
        })
    }

    /// One more, if it has not been closed or a user is there still. Callable from any context.
    pub fn enter(&self) -> bool {
        let mut count = self.count.load(ordering::Relaxed);
        while count > 0 {
            let Some(more) = count.checked_add(1) else {
                return false;
            };
            match self.count.cmpxchg(count, more, ordering::Full) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// One less: whoever has [entered](Users::enter) says so once, and does not use the object after that. Callable from any
    /// context.
    pub fn leave(&self) {
        if self.count.fetch_sub(1, ordering::Full) == 1 {
            self.none.complete_all();
        }
    }

    /// Closes it, and sleeps until the last user has left. To be called once.
    pub fn close(&self) {
        if self.count.fetch_sub(1, ordering::Full) != 1 {
            self.none.wait();
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_users)]
mod tests {
    use super::*;

    /// As long as a user is there others may come, also after it was closed; after the last one nobody does.
    #[test]
    fn none_after_the_last() -> Result {
        let users = KBox::pin_init(Users::new(), GFP_KERNEL)?;
        assert!(users.enter());
        // What `close()` does before it waits.
        users.count.fetch_sub(1, ordering::Full);
        assert!(users.enter());
        users.leave();
        users.leave();
        assert!(!users.enter());
        // The last one has woken whoever waits.
        users.none.wait();
        Ok(())
    }

    /// Without users it does not wait.
    #[test]
    fn closes_at_once() -> Result {
        let users = KBox::pin_init(Users::new(), GFP_KERNEL)?;
        assert!(users.enter());
        users.leave();
        users.close();
        assert!(!users.enter());
        Ok(())
    }
}
