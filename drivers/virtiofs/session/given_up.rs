// SPDX-License-Identifier: GPL-2.0

//! Ordering of RELEASE and FORGET behind requests of killed tasks.
//!
//! Such a request goes on at the daemon. The RELEASE of its handle and the FORGET of its inode may go by other queues, and a daemon
//! that gives these numbers out again would take it for a request about another file. So they are sent when it has ended.

use crate::session::Session;
use fuse_proto::{
    NodeId,
    Release, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        Mutex, //
    },
};

/// Counters, each for the inodes whose nodeid has the same remainder. What is sent for another one of these waits, too.
const COUNTERS: usize = 64;

/// The requests of a session that were given up and have not ended.
#[pin_data]
pub(crate) struct GivenUp {
    counts: [Atomic<i32>; COUNTERS],
    /// RELEASEs that wait for them. Innermost lock.
    #[pin]
    releases: Mutex<KVec<Release>>,
}

impl GivenUp {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            counts: [const { Atomic::new(0) }; COUNTERS],
            releases <- new_mutex!(KVec::new(), "GivenUp::releases"),
        })
    }

    fn count(&self, node: NodeId) -> Option<&Atomic<i32>> {
        self.counts.get((node.get() % COUNTERS as u64) as usize)
    }

    /// Whether there is one about this inode. Callable from any context.
    pub(crate) fn is_about(&self, node: NodeId) -> bool {
        self.count(node)
            .is_some_and(|count| count.load(ordering::Acquire) != 0)
    }

    /// Whether there is any. Callable from any context.
    pub(crate) fn any(&self) -> bool {
        self.counts
            .iter()
            .any(|count| count.load(ordering::Acquire) != 0)
    }

    /// Keeps a RELEASE until [`take_due`](GivenUp::take_due), if it has to wait: whether it has. Sleeps. Errors: `ENOMEM`.
    pub(crate) fn keep(&self, release: &Release) -> Result<bool> {
        if !self.is_about(release.node) {
            return Ok(false);
        }
        let mut releases = self.releases.lock();
        releases.reserve(1, GFP_KERNEL)?;
        // With the lock: a request that ends after this has the list looked through.
        if !self.is_about(release.node) {
            return Ok(false);
        }
        releases.push(*release, GFP_KERNEL)?;
        Ok(true)
    }

    /// A RELEASE that has waited and need not any more. Sleeps.
    pub(crate) fn take_due(&self) -> Option<Release> {
        let mut releases = self.releases.lock();
        let due = releases
            .iter()
            .position(|release| !self.is_about(release.node))?;
        releases.remove(due).ok()
    }
}

/// A request that was given up, as long as it has not ended: it goes with the memory of the request.
pub(crate) struct Overdue {
    session: Arc<Session>,
    nodes: [Option<NodeId>; 2],
}

impl Overdue {
    /// The request is about these inodes. Callable from any context.
    pub(crate) fn new(session: Arc<Session>, nodes: [Option<NodeId>; 2]) -> Self {
        let given_up = session.given_up();
        for count in nodes
            .into_iter()
            .flatten()
            .filter_map(|node| given_up.count(node))
        {
            count.fetch_add(1, ordering::Full);
        }
        Self { session, nodes }
    }

    /// The session that has sent it.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Overdue {
    /// Runs in any context.
    fn drop(&mut self) {
        let given_up = self.session.given_up();
        let mut is_last = false;
        for count in self
            .nodes
            .into_iter()
            .flatten()
            .filter_map(|node| given_up.count(node))
        {
            is_last |= count.fetch_sub(1, ordering::Full) == 1;
        }
        if is_last {
            self.session.send_due();
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_given_up)]
mod tests {
    use super::*;
    use fuse_proto::{
        Fh,
        LockOwner,
        ReleaseFlags, //
    };

    fn release(node: u64) -> Result<Release> {
        Ok(Release {
            node: NodeId::new(node).ok_or(EINVAL)?,
            dir: false,
            fh: Fh(node),
            flags: 0,
            release_flags: ReleaseFlags::NONE,
            lock_owner: LockOwner::default(),
        })
    }

    /// A RELEASE waits for a request about its inode, and not for others.
    #[test]
    fn waits_for_its_own() -> Result {
        let given_up = KBox::pin_init(GivenUp::new(), GFP_KERNEL)?;
        let (one, other) = (release(5)?, release(6)?);
        assert_eq!(given_up.keep(&one), Ok(false));
        let count = given_up.count(one.node).ok_or(EINVAL)?;
        count.fetch_add(1, ordering::Full);
        assert!(given_up.any() && given_up.is_about(one.node));
        assert_eq!(given_up.keep(&one), Ok(true));
        assert_eq!(given_up.keep(&other), Ok(false));
        assert!(given_up.take_due().is_none());
        count.fetch_sub(1, ordering::Full);
        assert!(!given_up.any());
        assert_eq!(given_up.take_due().map(|due| due.fh.0), Some(5));
        assert!(given_up.take_due().is_none());
        Ok(())
    }
}
