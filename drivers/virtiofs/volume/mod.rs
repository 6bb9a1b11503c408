// SPDX-License-Identifier: GPL-2.0

//! A volume: the superblocks of one session, and what else they share.
//!
//! The mount of a tag has a superblock, and so has each submount. With the last of them the session ends.
//!
//! Files of this floor:
//!
//! - [`mount`]: data of a superblock.
//! - [`unused`]: unused inodes are given back to the daemon.

pub(crate) mod mount;
pub(crate) mod unused;

use crate::{
    dax::{
        mode::{
            Claim,
            Mode, //
        },
        window::Window, //
    },
    session::{
        freshness::KeepCache,
        Session, //
    },
    transport::device::Instance,
    volume::{
        mount::Mount,
        unused::Unused, //
    },
};
use fuse_proto::InitFlags;
use kernel::{
    new_delayed_work,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
    workqueue::{
        impl_has_delayed_work,
        DelayedWork, //
    },
};
use kernel_ext::workqueue::cancel_delayed;

/// The superblocks of a session, and what they share.
#[pin_data]
pub(crate) struct Volume {
    session: Arc<Session>,
    window: Option<Arc<Window>>,
    /// The last OPEN's word on cached contents, of any file.
    keep_cache: KeepCache,
    superblocks: Atomic<i32>,
    #[pin]
    unused: Unused,
    /// Runs when inodes are to be looked at that nobody may use.
    #[pin]
    age: DelayedWork<Volume, AGE>,
    /// Runs when the daemon has no room left.
    #[pin]
    room: DelayedWork<Volume, ROOM>,
}

/// The numbers of a volume's work items, which are those of `unused`.
pub(crate) const AGE: u64 = 0;
pub(crate) const ROOM: u64 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, AGE> for Volume { self.age }
    impl HasDelayedWork<Self, ROOM> for Volume { self.room }
}

impl Volume {
    /// Starts a session with the daemon behind `instance`, with the device's window if that is to be had. Sleeps.
    pub(crate) fn start(instance: &Arc<Instance>, mode: Option<Mode>) -> Result<Arc<Self>> {
        let claim = Claim::new(instance, mode);
        let offers = claim.as_ref().map_or(InitFlags::NONE, Claim::offers);
        let session = Session::start(instance.clone(), offers)?;
        let window = match claim {
            Some(claim) => claim.open(&session)?,
            None => None,
        };
        let volume = Arc::pin_init(
            pin_init!(Self {
                session,
                window,
                keep_cache: KeepCache::unknown(),
                superblocks: Atomic::new(0),
                unused <- Unused::new(),
                age <- new_delayed_work!("virtiofs::Volume::age"),
                room <- new_delayed_work!("virtiofs::Volume::room"),
            }),
            GFP_KERNEL,
        )?;
        volume.session.room().attach(volume.clone());
        Ok(volume)
    }

    /// The session.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The window that files are mapped from, if there is one.
    pub(crate) fn window(&self) -> Option<&Arc<Window>> {
        self.window.as_ref()
    }

    /// The last OPEN's word on cached contents, of any file.
    pub(crate) fn keep_cache(&self) -> &KeepCache {
        &self.keep_cache
    }

    /// Its inodes that nobody may use.
    pub(crate) fn unused(&self) -> &Unused {
        &self.unused
    }

    /// Whether it has no other superblock.
    pub(crate) fn has_one_superblock(&self) -> bool {
        self.superblocks.load(ordering::Relaxed) == 1
    }

    /// Another superblock belongs to it. Sleeps.
    pub(crate) fn join(&self, mount: Arc<Mount>) -> Result {
        self.unused.join(mount)?;
        self.superblocks.fetch_add(1, ordering::Relaxed);
        Ok(())
    }

    /// A superblock is gone; with the last one the session ends. Sleeps, and a fatal signal ends that.
    pub(crate) fn leave(self: &Arc<Self>, mount: &Mount) {
        self.unused.leave(mount);
        if self.superblocks.fetch_sub(1, ordering::Full) != 1 {
            return;
        }
        self.session.room().detach();
        // Late replies are undone while the daemon can still be told.
        self.session.instance().work().flush();
        // Nobody maps any more, and no inode is left.
        self.stop_clock();
        cancel_delayed::<_, AGE>(self);
        cancel_delayed::<_, ROOM>(self);
        self.session.end(|| self.stop_clock());
        if self.window.is_some() {
            self.session.instance().lease().release();
        }
    }

    fn stop_clock(&self) {
        if let Some(window) = &self.window {
            window.stop_clock();
        }
    }

    /// Ends the session at once: its requests, and waits for the window, end with `ENOTCONN`.
    pub(crate) fn abort(&self) {
        self.session.abort();
        if let Some(window) = &self.window {
            window.close();
        }
    }
}
