// SPDX-License-Identifier: GPL-2.0

//! Killable completions.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::{
    bindings,
    task::is_dying, //
};
use kernel::{
    error::to_result,
    prelude::*,
    time::Jiffies,
    types::Opaque, //
};

/// A one-shot event.
///
/// `kernel::sync::Completion` with the wait that it lacks.
#[pin_data]
pub struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A `struct completion` may be used from any task.
unsafe impl Send for Completion {}
// SAFETY: A `struct completion` locks itself.
unsafe impl Sync for Completion {}

impl Completion {
    /// A completion that is not done.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes.
                unsafe { bindings::init_completion(slot) }
            }),
        })
    }

    /// Wakes everybody who waits or will wait. Callable from any context.
    pub fn complete_all(&self) {
        // SAFETY: `inner` was initialised by `new`.
        unsafe { bindings::complete_all(self.inner.get()) }
    }

    /// Sleeps until the event has happened; no signal ends it.
    pub fn wait(&self) {
        // SAFETY: `inner` was initialised by `new`.
        unsafe { bindings::wait_for_completion(self.inner.get()) }
    }

    /// Sleeps until the event has happened, or a fatal signal ends the wait with `ERESTARTSYS`: at once, for a task that such a
    /// signal has already [made exit](is_dying).
    pub fn wait_killable(&self) -> Result {
        if is_dying() {
            return Err(ERESTARTSYS);
        }
        // SAFETY: `inner` was initialised by `new`.
        to_result(unsafe { bindings::wait_for_completion_killable(self.inner.get()) })
    }

    /// Sleeps until the event has happened, or any signal ends the wait with `ERESTARTSYS`.
    pub fn wait_interruptible(&self) -> Result {
        // SAFETY: `inner` was initialised by `new`.
        to_result(unsafe { bindings::wait_for_completion_interruptible(self.inner.get()) })
    }

    /// As [`Completion::wait_killable`], for `timeout` at most: whether the event has happened.
    pub fn wait_killable_timeout(&self, timeout: Jiffies) -> Result<bool> {
        if is_dying() {
            return Err(ERESTARTSYS);
        }
        // SAFETY: `inner` was initialised by `new`.
        match unsafe { bindings::wait_for_completion_killable_timeout(self.inner.get(), timeout) } {
            0 => Ok(false),
            left if left > 0 => Ok(true),
            _ => Err(ERESTARTSYS),
        }
    }
}
