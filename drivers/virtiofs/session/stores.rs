// SPDX-License-Identifier: GPL-2.0

//! Write-back requests under way in a session, for sync(2), syncfs(2) and unmounts.
//!
//! The kernel's own wait for the pages of a superblock (`sync_inodes_sb()`) is not killable. With a daemon that has stopped,
//! sync(2) would never return, nor would its callers: the end of a container, the update of a package. So superblocks have
//! `SB_I_NO_DATA_INTEGRITY`, by which that wait is left out, and `sync_fs` waits here, killably: when it returns 0, everything that
//! was dirty at the call is on the host.
//!
//! C: `struct fuse_sync_bucket`. The C client does not begin to write before it waits; a signal does not end its wait either.

use crate::transport::{
    lane::Lane,
    request::Request, //
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
};
use kernel_ext::completion::Completion;
use virtio::{
    End,
    Outcome,
    Transfer, //
};

/// Requests that began in the same while, to wait for the end of all.
#[pin_data]
pub(crate) struct Batch {
    /// Those that have not ended, and one as long as others may join.
    left: Atomic<i32>,
    #[pin]
    done: Completion,
}

impl Batch {
    /// One that others may join, until the maker has [left](Batch::leave) it.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                left: Atomic::new(1),
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// A request begins: it [leaves](Batch::leave) when it has ended. Callable from any context, as long as others may join.
    pub(crate) fn join(&self) {
        self.left.fetch_add(1, ordering::Relaxed);
    }

    /// A request [joins](Batch::join), and leaves when this is dropped or told of its end.
    pub(crate) fn member(self: &Arc<Self>) -> Member {
        self.join();
        Member {
            batch: self.clone(),
            has_left: Atomic::new(0),
        }
    }

    /// One of its requests has ended, with those that were sent for what it had left. Callable from any context.
    pub(crate) fn leave(&self) {
        if self.left.fetch_sub(1, ordering::Full) == 1 {
            self.done.complete_all();
        }
    }

    /// Whether all have ended, and nobody joins any more. Callable from any context.
    pub(crate) fn is_done(&self) -> bool {
        self.left.load(ordering::Acquire) == 0
    }

    /// Waits until it is done. Sleeps; a fatal signal ends that with `EINTR`.
    pub(crate) fn wait(&self) -> Result {
        self.done.wait_killable().map_err(|_| EINTR)
    }
}

/// A request of a [`Batch`].
pub(crate) struct Member {
    batch: Arc<Batch>,
    has_left: Atomic<i32>,
}

impl Member {
    /// Another request of the same batch.
    pub(crate) fn another(&self) -> Self {
        self.batch.member()
    }

    /// The request has ended, with those that were sent for what it had left. Callable from any context.
    pub(crate) fn leave(&self) {
        if self.has_left.xchg(1, ordering::Relaxed) == 0 {
            self.batch.leave();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

impl End<Request> for Member {
    fn ended(&self, _lane: &Lane, _transfer: &Arc<Transfer<Request>>, _outcome: Outcome) {
        self.leave();
    }
}

/// What is being written back.
#[pin_data]
pub(crate) struct Stores {
    /// What begins now. Innermost lock.
    #[pin]
    current: SpinLock<Arc<Batch>>,
    /// What somebody has waited for. Not held while anybody waits.
    #[pin]
    older: Mutex<KVec<Arc<Batch>>>,
}

impl Stores {
    /// Nothing.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let batch = Batch::new()?;
        Ok(pin_init!(Self {
            current <- new_spinlock!(batch, "Stores::current"),
            older <- new_mutex!(KVec::new(), "Stores::older"),
        }))
    }

    /// A request begins. In a task.
    pub(crate) fn begin(&self) -> Member {
        self.current.lock().member()
    }

    /// Waits until everything has ended that has begun before this. Sleeps; a fatal signal ends that with `EINTR`.
    pub(crate) fn wait(&self) -> Result {
        let mut awaited = KVec::new();
        {
            let mut older = self.older.lock();
            older.retain(|batch| !batch.is_done());
            // What can fail comes first: who waits later has to find all.
            older.reserve(1, GFP_KERNEL)?;
            awaited.reserve(older.len().saturating_add(1), GFP_KERNEL)?;
            let mut next = Batch::new()?;
            core::mem::swap(&mut *self.current.lock(), &mut next);
            next.leave();
            older.push(next, GFP_KERNEL)?;
            for batch in older.iter() {
                awaited.push(batch.clone(), GFP_KERNEL)?;
            }
        }
        awaited.iter().try_for_each(|batch| batch.wait())
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_stores)]
mod tests {
    use super::*;

    /// A batch is done when all that have begun in it have ended, and nobody joins it any more.
    #[test]
    fn batches() -> Result {
        let stores = KBox::pin_init(Stores::new()?, GFP_KERNEL)?;
        let (first, second) = (stores.begin(), stores.begin());
        let batch = first.batch.clone();
        assert!(Arc::ptr_eq(&batch, &second.batch));
        first.leave();
        first.leave();
        drop((first, second));
        assert!(!batch.is_done());
        stores.wait()?;
        assert!(batch.is_done());
        let third = stores.begin();
        assert!(!Arc::ptr_eq(&batch, &third.batch));
        drop(third);
        stores.wait()
    }
}
