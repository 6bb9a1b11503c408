// SPDX-License-Identifier: GPL-2.0

//! Whether the daemon has the modification time of a DAX file.
//!
//! A file that was stored to is *behind*, and catches up later: see [`dax_times`](crate::contents::dax_times).

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering,
        Atomic, //
    },
};
use kernel_ext::event::{
    Event,
    FOREVER, //
};

/// The state of a file.
#[pin_data]
pub(crate) struct Times {
    /// Something was stored since.
    behind: Atomic<i32>,
    /// Tasks that see to it.
    catching_up: Atomic<i32>,
    /// Such a task is done.
    #[pin]
    done: Event,
}

impl Times {
    /// Of a file that was not stored to.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            behind: Atomic::new(0),
            catching_up: Atomic::new(0),
            done <- Event::new(),
        })
    }

    /// Whether something was stored since, and nobody sees to it.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(ordering::Acquire) != 0
    }

    /// Whether nothing was stored since, and the daemon has said so.
    pub(crate) fn is_right(&self) -> bool {
        !self.is_behind() && self.catching_up.load(ordering::Relaxed) == 0
    }

    /// Something was stored.
    pub(crate) fn falls_behind(&self) {
        self.behind.store(1, ordering::Relaxed);
    }

    /// Whether it is behind, which it is no more.
    pub(crate) fn take(&self) -> bool {
        self.is_behind() && self.behind.xchg(0, ordering::Full) != 0
    }

    /// Waits for a task that sees to it, if there is one: whether there was none. Sleeps; a fatal signal ends that with `EINTR`.
    pub(crate) fn wait(&self) -> Result<bool> {
        let seen = self.done.seen();
        if self.catching_up.load(ordering::Acquire) == 0 {
            return Ok(true);
        }
        self.done.wait_killable(seen, FOREVER)?;
        Ok(false)
    }
}

/// A task that sees to it that the daemon's time is right.
pub(crate) struct CatchingUp<'a>(&'a Times);

impl<'a> CatchingUp<'a> {
    /// It begins.
    pub(crate) fn new(times: &'a Times) -> Self {
        times.catching_up.fetch_add(1, ordering::Full);
        Self(times)
    }
}

impl Drop for CatchingUp<'_> {
    fn drop(&mut self) {
        self.0.catching_up.fetch_sub(1, ordering::Full);
        self.0.done.happen();
    }
}
