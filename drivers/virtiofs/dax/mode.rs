// SPDX-License-Identifier: GPL-2.0

//! DAX modes: the files that are mapped, and the session that has a window.
//!
//! | mount option | window | file |
//! |---|---|---|
//! | `dax=always`, `dax` | there has to be one | every regular file |
//! | `dax=inode`, none | if there is one | those that the daemon marks (`FUSE_ATTR_DAX`) |
//! | `dax=never` | | none |

use super::window::Window;
use crate::{
    session::Session,
    transport::{
        device::Instance,
        lease::Refused, //
    },
};
use fuse_proto::{
    AttrFlags,
    InitFlags, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::dax::Memory;

/// Which files are mapped from the device's window (DAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Those that the daemon marks, if there is a window.
    Inode,
    /// All; without a window there is no mount.
    Always,
    /// None.
    Never,
}

impl Mode {
    /// The words of the mount option.
    pub(crate) const WORDS: [&'static CStr; 3] = [c"inode", c"always", c"never"];
    /// What they stand for.
    pub(crate) const VALUES: [Self; 3] = [Self::Inode, Self::Always, Self::Never];

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What this driver can do with a window, besides what it always can.
const OFFERED: InitFlags = InitFlags::MAP_ALIGNMENT.with(InitFlags::HAS_INODE_DAX);

/// The window of a device, for a session that is starting. Dropped, it is others' again.
pub(crate) struct Claim {
    instance: Arc<Instance>,
    memory: Arc<Memory>,
    mode: Option<Mode>,
    kept: bool,
}

impl Claim {
    /// The window, if the mode is for it, there is one, and nobody else has it; a line in the log, if `dax=inode` has to do
    /// without. Sleeps.
    pub(crate) fn new(instance: &Arc<Instance>, mode: Option<Mode>) -> Option<Self> {
        let claim = Self::take(instance, mode);
        if claim.is_none() && mode == Some(Mode::Inode) {
            let tag = instance.tag();
            pr_info!("{tag:?}: dax=inode, and there is no window to be had: no DAX\n");
        }
        claim
    }

    fn take(instance: &Arc<Instance>, mode: Option<Mode>) -> Option<Self> {
        let memory = instance.memory()?;
        if mode == Some(Mode::Never) {
            return None;
        }
        if let Err(refused) = instance.lease().acquire() {
            if refused == Refused::Unanswered {
                let tag = instance.tag();
                pr_warn!("{tag:?}: the daemon has not answered all that it was asked for the window before the last unmount\n");
            }
            return None;
        }
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
            None | Some(Mode::Inode) => OFFERED,
            Some(Mode::Always | Mode::Never) => OFFERED.without(InitFlags::HAS_INODE_DAX),
        }
    }

    /// The window of the `session`, which has it from here on; [`None`], and a line in the log, if it cannot have one. Errors:
    /// `ENOMEM`.
    pub(crate) fn open(mut self, session: &Arc<Session>) -> Result<Option<Arc<Window>>> {
        let alignment = 1_u64
            .checked_shl(u32::from(session.agreed().map_alignment))
            .unwrap_or(u64::MAX);
        let (session, memory) = (session.clone(), self.memory.clone());
        match Window::new(session, memory, alignment, crate::max_ranges()) {
            Ok(window) => {
                self.kept = self.instance.lease().assign(window.clone());
                Ok(Some(window))
            }
            Err(e) if e == ENOMEM => Err(e),
            Err(_) => {
                let (tag, len) = (self.instance.tag(), self.memory.len());
                pr_warn!("{tag:?}: no DAX: a window of {len} bytes, maps aligned to {alignment}\n");
                Ok(None)
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.instance.lease().release();
        }
    }
}

/// Whether a regular file with these flags is mapped from the window that there is.
pub(crate) fn applies(session: &Session, mode: Option<Mode>, flags: AttrFlags) -> bool {
    match mode {
        Some(Mode::Always) => true,
        Some(Mode::Never) => false,
        None | Some(Mode::Inode) => {
            session.has(InitFlags::HAS_INODE_DAX) && flags.contains(AttrFlags::DAX)
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_dax_mode)]
mod tests {
    use super::*;

    /// The words of `dax=` stand for the modes of these names.
    #[test]
    fn words_and_modes() {
        assert_eq!(Mode::WORDS.len(), Mode::VALUES.len());
        for (word, value) in Mode::WORDS.iter().zip(Mode::VALUES) {
            assert_eq!(word.to_bytes(), value.as_str().as_bytes());
        }
    }
}
