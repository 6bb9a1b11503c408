// SPDX-License-Identifier: GPL-2.0

//! A DAX file, as the window knows it.

use super::{
    copies::CopiesOf,
    state::State,
    times::Times, //
};
use crate::{
    filesystem::VirtioFs,
    gate::{
        Gate,
        Held, //
    },
    session::forget::Known, //
};
use dax_map::Owner;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
};
use vfs::inode::WeakInode;

/// A file that ranges of the window can show.
#[pin_data]
pub(crate) struct MappedFile {
    known: Arc<Known>,
    inode: Arc<WeakInode<VirtioFs>>,
    gate: Arc<Gate>,
    copies: CopiesOf,
    #[pin]
    times: Times,
    /// Its inode goes, and no range is made for it any more. Changed under the window lock.
    evicted: Atomic<i32>,
}

impl MappedFile {
    /// A file of a superblock with this gate.
    pub(crate) fn new(
        known: Arc<Known>,
        inode: Arc<WeakInode<VirtioFs>>,
        gate: Arc<Gate>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                known,
                inode,
                gate,
                copies: CopiesOf::new(),
                times <- Times::new(),
                evicted: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// What ranges know it by: as long as there are any, somebody holds it.
    pub(crate) fn owner(self: &Arc<Self>) -> Owner {
        Owner(Arc::as_ptr(self).addr() as u64)
    }

    /// What the daemon knows of it.
    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Copies of its pages.
    pub(crate) fn copies(&self) -> &CopiesOf {
        &self.copies
    }

    /// Whether its times are right.
    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    /// Its inode goes: from here on no range is made for it.
    pub(crate) fn evict(&self, _locked: &mut State) {
        self.evicted.store(1, ordering::Relaxed);
    }

    /// Whether it does.
    pub(crate) fn is_evicted(&self, _locked: &State) -> bool {
        self.evicted.load(ordering::Relaxed) != 0
    }

    /// Gets hold of the inode, if it is not about to go.
    pub(crate) fn hold(&self) -> Option<Held> {
        let pass = self.gate.enter()?;
        Some(Held::new(pass, self.inode.upgrade()?))
    }

    /// Whether the inode is gone, and nothing of it in page tables.
    pub(crate) fn is_gone(&self) -> bool {
        self.inode.is_gone()
    }
}
