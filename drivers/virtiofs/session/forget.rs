// SPDX-License-Identifier: GPL-2.0

//! Lookup counts (nlookup), and deferred FORGETs.
//!
//! For each inode the daemon counts the lookups that it has answered (nlookup), and keeps the inode until they were given
//! back by FORGET. Inodes that go at about the same time are forgotten together, in one BATCH_FORGET on the hiprio queue.

use crate::transport::{
    device::Instance,
    request::insist, //
};
use fuse_proto::{
    Forget,
    NodeId, //
};
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        List,
        ListArc,
        ListLinks,
        TryNewListArc, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        SpinLock, //
    },
};
use virtio::Connection;

/// Inodes of one BATCH_FORGET at most: the message is 2.6 KiB then.
const BATCH: usize = 160;

/// An inode as the daemon knows it.
///
/// It is allocated with the inode, so that forgetting needs no memory.
#[pin_data]
pub(crate) struct Known {
    node: NodeId,
    nlookup: Atomic<u64>,
    /// Inodes of this kernel that stand for it: two where a submount begins.
    users: Atomic<i32>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Known { tracked_by tracker: AtomicTracker; }
}
impl_list_item! {
    impl ListItem<0> for Known { using ListLinks { self.links }; }
}

impl Known {
    /// An inode that was looked up once. Sleeps.
    pub(crate) fn new(node: NodeId) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                node,
                nlookup: Atomic::new(1),
                users: Atomic::new(1),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// As [`Known::new`], of an inode for which the daemon has counted a lookup already: it must not fail.
    pub(crate) fn counted(node: NodeId) -> Arc<Self> {
        loop {
            if let Ok(known) = insist(|| Self::new(node)) {
                return known;
            }
        }
    }

    /// Its nodeid.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// It was looked up once more.
    pub(crate) fn looked_up(&self) {
        self.nlookup.fetch_add(1, ordering::Relaxed);
    }

    /// Another inode stands for it.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<Self> {
        self.users.fetch_add(1, ordering::Relaxed);
        self.clone()
    }

    /// An inode that stood for it is gone; whether that was the last one.
    pub(crate) fn unshare(&self) -> bool {
        self.users.fetch_sub(1, ordering::Full) == 1
    }
}

/// Inodes to be forgotten.
///
/// One list for each request queue, so that CPUs do not meet here. The locks are innermost.
pub(crate) struct Forgets {
    lists: KVec<Pin<KBox<SpinLock<List<Known>>>>>,
    /// Those that wait for requests about them.
    waiting: Pin<KBox<SpinLock<List<Known>>>>,
}

impl Forgets {
    /// Lists for `queues` queues.
    pub(crate) fn new(queues: usize) -> Result<Self> {
        let mut lists = KVec::with_capacity(queues, GFP_KERNEL)?;
        for _ in 0..queues {
            let list = KBox::pin_init(new_spinlock!(List::new(), "Forgets"), GFP_KERNEL)?;
            lists.push(list, GFP_KERNEL)?;
        }
        let waiting = KBox::pin_init(new_spinlock!(List::new(), "Forgets::waiting"), GFP_KERNEL)?;
        Ok(Self { lists, waiting })
    }

    /// Adds an inode; whether the list was empty, so that somebody has to flush it. Does not sleep.
    pub(crate) fn add(&self, known: Arc<Known>) -> bool {
        let cpu = kernel_ext::cpu::current_hint();
        let index = cpu.checked_rem(self.lists.len()).unwrap_or(0);
        // An inode that is on a list already is forgotten with what it counted until it is sent.
        let (Some(list), Ok(known)) = (self.lists.get(index), ListArc::try_from_arc(known)) else {
            return false;
        };
        let mut list = list.lock();
        let first = list.is_empty();
        list.push_back(known);
        first
    }

    /// Sends all of them but those that have to [wait](super::given_up::GivenUp::is_about), which the next call looks at again.
    /// Sleeps.
    pub(crate) fn flush(
        &self,
        instance: &Instance,
        connection: &Connection,
        waits: impl Fn(NodeId) -> bool,
    ) {
        let mut again = core::mem::replace(&mut *self.waiting.lock(), List::new());
        while self.send_some(instance, connection, &waits, || again.pop_front()) {}
        for list in &self.lists {
            while self.send_some(instance, connection, &waits, || list.lock().pop_front()) {}
        }
    }

    /// Sends a batch of inodes from `next`: whether there may be more. Sleeps.
    fn send_some(
        &self,
        instance: &Instance,
        connection: &Connection,
        waits: impl Fn(NodeId) -> bool,
        mut next: impl FnMut() -> Option<ListArc<Known>>,
    ) -> bool {
        let mut batch = List::new();
        let mut count = 0;
        while count < BATCH {
            let Some(known) = next() else { break };
            if waits(known.node) {
                // With the lock: a request that ends after this has the list looked through.
                let mut waiting = self.waiting.lock();
                if waits(known.node) {
                    waiting.push_back(known);
                    continue;
                }
            }
            batch.push_back(known);
            count += 1;
        }
        if count > 0 {
            let _ = insist(|| instance.send_forgets(connection, &batch, count));
        }
        count == BATCH
    }
}

impl Instance {
    /// Sends one batch; `ENOTCONN` when the connection is gone, and the daemon's counts with it.
    fn send_forgets(&self, connection: &Connection, batch: &List<Known>, count: usize) -> Result {
        let each = batch.iter().map(|known| Forget {
            node: known.node,
            nlookup: known.nlookup.load(ordering::Relaxed),
        });
        self.send_batch_forget(connection, each, count)
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_forget)]
mod tests {
    use super::*;

    fn known(node: u64) -> Result<Arc<Known>> {
        Known::new(NodeId::new(node).ok_or(EINVAL)?)
    }

    /// The first inode on a list asks for a flush, the others come along.
    #[test]
    fn first_flushes() -> Result {
        let forgets = Forgets::new(1)?;
        assert!(forgets.add(known(2)?));
        assert!(!forgets.add(known(3)?));
        Ok(())
    }

    /// An inode that is on a list is not put on it twice.
    #[test]
    fn once() -> Result {
        let forgets = Forgets::new(1)?;
        let known = known(2)?;
        assert!(forgets.add(known.clone()));
        assert!(!forgets.add(known));
        let list = forgets.lists.first().ok_or(EINVAL)?;
        assert_eq!(list.lock().iter().count(), 1);
        Ok(())
    }

    /// Of two inodes that share what the daemon knows, the last one forgets it.
    #[test]
    fn shared() -> Result {
        let first = known(2)?;
        let second = first.share();
        assert!(!first.unshare());
        assert!(second.unshare());
        Ok(())
    }
}
