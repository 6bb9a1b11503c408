// SPDX-License-Identifier: GPL-2.0

//! Locks of an open file at the daemon, and the reference that they hold on its handle.

use fuse_proto::{
    LockOwner,
    Release,
    ReleaseFlags, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        SetOnce, //
    },
};

/// Locks of an open file at the daemon, and the users of its handle: the open file itself, and requests for locks whose waiter was
/// killed. The last user sends the RELEASE.
pub(crate) struct Claims {
    users: Atomic<i32>,
    /// Set when the file is closed.
    release: SetOnce<Release>,
    /// Whether it was asked for a lock of flock(2).
    flock: Atomic<i32>,
    /// Whether it was asked for a POSIX lock that belongs to the open file.
    open_file: Atomic<i32>,
}

impl Claims {
    /// No locks, and the open file as the only user. Sleeps.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                users: Atomic::new(1),
                release: SetOnce::new(),
                flock: Atomic::new(0),
                open_file: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// The file is closed by `release`, which is to drop the locks of `owner`: what to send, if nobody needs the handle any more.
    pub(crate) fn close(&self, mut release: Release, owner: LockOwner) -> Option<Release> {
        if self.has_asked(true) {
            release.release_flags = release.release_flags.with(ReleaseFlags::FLOCK_UNLOCK);
        }
        if self.has_asked(false) {
            // Nothing else drops POSIX locks.
            release.release_flags = release.release_flags.with(ReleaseFlags::FLUSH);
        }
        if !release.release_flags.is_empty() {
            release.lock_owner = owner;
        }
        self.release.populate(release);
        self.leave()
    }

    /// It is asked for a lock: of flock(2), or else a POSIX lock that belongs to the open file.
    pub(crate) fn asks(&self, flock: bool) {
        self.asked(flock).store(1, ordering::Relaxed);
    }

    /// Whether it was asked for such a lock.
    pub(crate) fn has_asked(&self, flock: bool) -> bool {
        self.asked(flock).load(ordering::Relaxed) != 0
    }

    fn asked(&self, flock: bool) -> &Atomic<i32> {
        match flock {
            true => &self.flock,
            false => &self.open_file,
        }
    }

    /// A request needs the handle, too.
    pub(crate) fn join(&self) {
        self.users.fetch_add(1, ordering::Relaxed);
    }

    /// One less needs the handle: what to send, if nobody does.
    pub(crate) fn leave(&self) -> Option<Release> {
        if self.users.fetch_sub(1, ordering::Full) == 1 {
            self.release.copy()
        } else {
            None
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_claims)]
mod tests {
    use super::*;
    use fuse_proto::NodeId;

    const OWNER: LockOwner = LockOwner(7);

    fn release() -> Result<Release> {
        Ok(Release {
            node: NodeId::new(2).ok_or(EINVAL)?,
            dir: false,
            fh: fuse_proto::Fh(3),
            flags: 0,
            release_flags: ReleaseFlags::NONE,
            lock_owner: LockOwner::default(),
        })
    }

    /// A RELEASE names the owner of locks, and says which ones go, if there may be some.
    #[test]
    fn close_says_what_was_locked() -> Result {
        let closed = |flock, open_file| -> Result<(ReleaseFlags, LockOwner)> {
            let claims = Claims::new()?;
            claims.flock.store(flock, ordering::Relaxed);
            claims.open_file.store(open_file, ordering::Relaxed);
            let release = claims.close(release()?, OWNER).ok_or(EBUSY)?;
            Ok((release.release_flags, release.lock_owner))
        };
        assert_eq!(closed(0, 0)?, (ReleaseFlags::NONE, LockOwner::default()));
        assert_eq!(closed(1, 0)?, (ReleaseFlags::FLOCK_UNLOCK, OWNER));
        assert_eq!(closed(0, 1)?, (ReleaseFlags::FLUSH, OWNER));
        assert_eq!(
            closed(1, 1)?,
            (ReleaseFlags::FLOCK_UNLOCK.with(ReleaseFlags::FLUSH), OWNER)
        );
        Ok(())
    }

    /// As long as a request of a killed task may be answered, the handle stays; whoever is last sends the RELEASE, once.
    #[test]
    fn the_last_one_releases() -> Result {
        let claims = Claims::new()?;
        claims.join();
        claims.join();
        assert!(claims.leave().is_none());
        assert!(claims.close(release()?, OWNER).is_none());
        let released = claims.leave().ok_or(EBUSY)?;
        assert_eq!(released.fh.0, 3);
        Ok(())
    }
}
