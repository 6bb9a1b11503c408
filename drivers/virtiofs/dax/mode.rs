// SPDX-License-Identifier: GPL-2.0

//! Which files are mapped, and whose the window is.
//!
//! | mount option | window | file |
//! |---|---|---|
//! | `dax=always`, `dax` | there has to be one | every regular file |
//! | `dax=inode`, none | if there is one | those that the daemon marks (`FUSE_ATTR_DAX`) |
//! | `dax=never` | | none |
//!
//! A device has one window, and a session at a time has it: while one that was aborted is still mounted, or the daemon has not
//! answered all it was asked for the window, the next one does without.

use super::{
    outstanding::Outstanding,
    Window, //
};
use crate::{
    device::Instance,
    options::Dax,
    session::Session, //
};
use fuse_proto::{
    AttrFlags,
    InitFlags,
    Negotiated, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use kernel_ext::dax::Memory;

/// What this driver can do with a window, besides what it always can.
const OFFERED: InitFlags = InitFlags::MAP_ALIGNMENT.with(InitFlags::HAS_INODE_DAX);

/// Who has the window of a device.
#[derive(Default)]
pub(crate) enum Holder {
    /// Nobody.
    #[default]
    None,
    /// A session that is starting.
    Starting,
    /// A session.
    Session(Arc<Window>),
    /// Nobody, but the last session has left these requests behind.
    Left(Arc<Outstanding>),
    /// The device is gone.
    Gone,
}

impl Holder {
    /// Nobody, as yet.
    pub(crate) fn new() -> Result<Pin<KBox<Mutex<Self>>>> {
        KBox::pin_init(new_mutex!(Self::default(), "Holder"), GFP_KERNEL)
    }

    /// The session that had it, or was starting, is over.
    pub(crate) fn release(&mut self) {
        *self = match self {
            Self::Session(window) => Self::Left(window.outstanding().clone()),
            Self::Starting => Self::None,
            Self::None | Self::Left(_) | Self::Gone => return,
        };
    }

    /// Whether a session can have it.
    pub(super) fn is_free(&self) -> bool {
        match self {
            Self::None => true,
            Self::Left(outstanding) => !outstanding.any(),
            Self::Starting | Self::Session(_) | Self::Gone => false,
        }
    }
}

/// The window of a device, for a session that is starting. Dropped, it is others' again.
pub(crate) struct Claim {
    instance: Arc<Instance>,
    memory: Arc<Memory>,
    mode: Option<Dax>,
    kept: bool,
}

impl Claim {
    /// The window, if the mode is for it, there is one, and nobody else has it; a line in the log, if `dax=inode` has to do without.
    /// Sleeps.
    pub(crate) fn new(instance: &Arc<Instance>, mode: Option<Dax>) -> Option<Self> {
        let claim = Self::take(instance, mode);
        if claim.is_none() && mode == Some(Dax::Inode) {
            let tag = instance.tag();
            pr_info!("{tag:?}: dax=inode, and there is no window to be had: no DAX\n");
        }
        claim
    }

    fn take(instance: &Arc<Instance>, mode: Option<Dax>) -> Option<Self> {
        let memory = instance.memory()?;
        if mode == Some(Dax::Never) {
            return None;
        }
        let mut holder = instance.window_holder().lock();
        if !holder.is_free() {
            if let Holder::Left(_) = *holder {
                let tag = instance.tag();
                pr_warn!("{tag:?}: the daemon has not answered all that it was asked for the window before the last unmount\n");
            }
            return None;
        }
        *holder = Holder::Starting;
        Some(Self {
            instance: instance.clone(),
            memory: memory.clone(),
            mode,
            kept: false,
        })
    }

    /// What can be done with it.
    pub(crate) fn offers(&self) -> InitFlags {
        match self.mode {
            None | Some(Dax::Inode) => OFFERED,
            Some(Dax::Always | Dax::Never) => OFFERED.without(InitFlags::HAS_INODE_DAX),
        }
    }

    /// The window of the session; [`None`], and a line in the log, if it cannot have one. Errors: `ENOMEM`.
    pub(crate) fn window(&self, agreed: &Negotiated) -> Result<Option<Arc<Window>>> {
        let alignment = 1_u64
            .checked_shl(u32::from(agreed.map_alignment))
            .unwrap_or(u64::MAX);
        match Window::new(self.memory.clone(), alignment, crate::max_ranges()) {
            Ok(window) => Ok(Some(window)),
            Err(e) if e == ENOMEM => Err(e),
            Err(_) => {
                let (tag, len) = (self.instance.tag(), self.memory.len());
                pr_warn!("{tag:?}: no DAX: a window of {len} bytes, maps aligned to {alignment}\n");
                Ok(None)
            }
        }
    }

    /// It is the session's.
    pub(crate) fn keep(mut self, window: &Arc<Window>) {
        let mut holder = self.instance.window_holder().lock();
        if matches!(*holder, Holder::Starting) {
            *holder = Holder::Session(window.clone());
            self.kept = true;
        } else {
            window.close();
        }
        drop(holder);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.instance.release_window();
        }
    }
}

/// Whether a regular file with these flags is mapped, in a mount with this option.
pub(crate) fn applies(session: &Session, mode: Option<Dax>, flags: AttrFlags) -> bool {
    session.window().is_some()
        && match mode {
            Some(Dax::Always) => true,
            Some(Dax::Never) => false,
            None | Some(Dax::Inode) => {
                session.has(InitFlags::HAS_INODE_DAX) && flags.contains(AttrFlags::DAX)
            }
        }
}
