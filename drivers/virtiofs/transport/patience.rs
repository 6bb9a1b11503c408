// SPDX-License-Identifier: GPL-2.0

//! Bounded waits of tasks that no signal reaches: exiting tasks, and the kernel's flusher.
//!
//! For a process in exit_group(2) the kernel drops even SIGKILL. A container that stops in good order would wait for a silent
//! daemon once for each file that it had open. So an exiting task waits for a bounded time. After one wait in vain neither this
//! task nor others wait again, until the daemon has answered that request. Requests are sent in any case, and contents are written
//! by a work item.
//!
//! The flusher writes back the pages of all files of a mount, and fsync(2), unmounts and writers wait for it unkillably. Requests
//! that it would have to wait for are left for its next round.
//!
//! In the C driver such tasks wait until the daemon answers.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
};

/// The longest that it waits for something that does not go on, in milliseconds: with what it does besides, less than a second.
const LONGEST: u32 = 700;

/// Of a device: whether tasks that exit wait for its daemon. All methods are callable from any context.
pub(crate) struct Patience {
    /// What was waited for in vain, and has not ended since.
    in_vain: Atomic<i32>,
}

/// Whether something was waited for in vain.
pub(crate) struct InVain(Atomic<i32>);

const UNKNOWN: i32 = 0;
const IN_VAIN: i32 = 1;
const ENDED: i32 = 2;

impl InVain {
    /// Of what has just begun.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(UNKNOWN))
    }
}

impl Patience {
    /// With a daemon that answers.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                in_vain: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// How long to wait.
    pub(crate) fn left(&self) -> Jiffies {
        match self.in_vain.load(ordering::Relaxed) > 0 {
            true => 0,
            false => msecs_to_jiffies(LONGEST),
        }
    }

    /// Something was waited for in vain, unless it has ended at this moment.
    pub(crate) fn give_up(&self, it: &InVain) {
        if it.0.cmpxchg(UNKNOWN, IN_VAIN, ordering::Full).is_ok() {
            self.in_vain.fetch_add(1, ordering::Relaxed);
        }
    }

    /// Something has ended.
    pub(crate) fn ended(&self, it: &InVain) {
        if it.0.xchg(ENDED, ordering::Full) == IN_VAIN {
            self.in_vain.fetch_sub(1, ordering::Relaxed);
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_patience)]
mod tests {
    use super::*;

    /// One wait in vain is enough, until that has ended.
    #[test]
    fn not_again() -> Result {
        let patience = Patience::new()?;
        let (first, second, third) = (InVain::new(), InVain::new(), InVain::new());
        assert!(patience.left() > 0);
        patience.give_up(&first);
        patience.give_up(&first);
        assert_eq!(patience.left(), 0);
        patience.give_up(&second);
        patience.ended(&first);
        assert_eq!(patience.left(), 0);
        patience.ended(&second);
        patience.ended(&second);
        assert!(patience.left() > 0);
        // What has ended was not waited for in vain.
        patience.ended(&third);
        patience.give_up(&third);
        assert!(patience.left() > 0);
        Ok(())
    }
}
