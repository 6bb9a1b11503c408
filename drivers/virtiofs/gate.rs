// SPDX-License-Identifier: GPL-2.0

//! Access to a superblock's inodes from work items and reclaim, until it is shut down.

use crate::filesystem::VirtioFs;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
};
use kernel_ext::completion::Completion;
use vfs::InodeRef;

/// Keeps tasks that are no users of a superblock away from it when it is being shut down.
#[pin_data]
pub(crate) struct Gate {
    #[pin]
    state: SpinLock<State>,
    #[pin]
    empty: Completion,
}

#[derive(Default)]
struct State {
    inside: u32,
    closed: bool,
}

impl Gate {
    /// One that is open.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(State::default(), "Gate::state"),
                empty <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Goes in, unless it is closed.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.inside = state.inside.checked_add(1)?;
        Some(Pass(self.clone()))
    }

    /// Closes it, for good, and waits until nobody is inside. Sleeps.
    pub(crate) fn close(&self) {
        if self.shut() {
            self.empty.wait();
        }
    }

    /// As [`close`](Gate::close); a fatal signal ends the wait with `EINTR`.
    pub(crate) fn close_killable(&self) -> Result {
        match self.shut() {
            true => self.empty.wait_killable().map_err(|_| EINTR),
            false => Ok(()),
        }
    }

    /// Closes it, and says whether somebody is inside.
    fn shut(&self) -> bool {
        let mut state = self.state.lock();
        state.closed = true;
        state.inside > 0
    }
}

/// An inode in the hands of somebody inside. Dropped in this order.
pub(crate) struct Held {
    /// The inode.
    pub(crate) inode: InodeRef<VirtioFs>,
    _pass: Pass,
}

impl Held {
    /// An inode of the superblock whose gate was passed.
    pub(crate) fn new(pass: Pass, inode: InodeRef<VirtioFs>) -> Self {
        Self { inode, _pass: pass }
    }
}

/// The right to be inside.
pub(crate) struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside = state.inside.saturating_sub(1);
        if state.closed && state.inside == 0 {
            self.0.empty.complete_all();
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_gate)]
mod tests {
    use super::*;

    /// Who is inside keeps it from being closed; whoever comes later stays outside.
    #[test]
    fn closes_behind_the_last() -> Result {
        let gate = Gate::new()?;
        let first = gate.enter().ok_or(EBUSY)?;
        let second = gate.enter().ok_or(EBUSY)?;
        assert_eq!(gate.state.lock().inside, 2);
        drop((first, second));
        assert_eq!(gate.state.lock().inside, 0);
        // Returns at once.
        gate.close();
        assert!(gate.enter().is_none());
        gate.close();
        Ok(())
    }
}
