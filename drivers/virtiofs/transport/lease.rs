// SPDX-License-Identifier: GPL-2.0

//! Lease of a device's DAX window by a session.
//!
//! A device has one window, and a session at a time has it. As long as a session that was aborted is still mounted, or the daemon
//! has not answered all that it was asked for the window, the next session does without.

use crate::transport::{
    device::Instance,
    outstanding::Outstanding, //
};
use kernel::{
    fmt::{
        Formatter,
        Result as FmtResult, //
    },
    new_mutex, new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        Work,
        WorkItem, //
    },
};
use kernel_ext::workqueue::OwnedQueue;

/// The window of a session, as the device knows it.
pub(crate) trait Tenant: Send + Sync + 'static {
    /// No range is made or used any more; tasks that wait for one are told. Sleeps.
    fn close(&self);

    /// The device goes: nothing is shown any more, and ranges are given back as far as the daemon still answers. Sleeps.
    fn shut_down(&self, instance: &Instance);

    /// Its requests that were not answered.
    fn outstanding(&self) -> &Arc<Outstanding>;

    /// Writes what it shows, and what has happened so far. Sleeps.
    fn describe(&self, f: &mut Formatter<'_>) -> FmtResult;
}

/// Which session has the window.
enum State {
    /// None.
    Free,
    /// One that is starting.
    Starting,
    /// This one.
    Held(Arc<dyn Tenant>),
    /// None, but the last one has left these requests behind.
    Left(Arc<Outstanding>),
    /// None, for good: the device is gone.
    Revoked,
}

impl State {
    fn is_free(&self) -> bool {
        match self {
            Self::Free => true,
            Self::Left(outstanding) => !outstanding.any(),
            Self::Starting | Self::Held(_) | Self::Revoked => false,
        }
    }

    fn release(&mut self) {
        *self = match self {
            Self::Held(tenant) => Self::Left(tenant.outstanding().clone()),
            Self::Starting => Self::Free,
            Self::Free | Self::Left(_) | Self::Revoked => return,
        };
    }
}

/// Why a session cannot have the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another session has it, or the device is gone.
    Taken,
    /// The daemon has not answered all that the last session has asked for it.
    Unanswered,
}

/// The lease of a window.
///
/// Its lock is taken after that of all devices.
#[pin_data]
pub(crate) struct Lease {
    #[pin]
    state: Mutex<State>,
    queue: Arc<OwnedQueue>,
    #[pin]
    work: Work<Lease>,
}

impl_has_work! {
    impl HasWork<Self> for Lease { self.work }
}

impl WorkItem for Lease {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.close();
    }
}

impl Lease {
    /// One that no session has. Sleeps.
    pub(crate) fn new(queue: Arc<OwnedQueue>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State::Free, "Lease::state"),
                queue,
                work <- new_work!("virtiofs::Lease::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes it for a session that is starting, which then [assigns](Lease::assign) or [releases](Lease::release) it. Sleeps.
    pub(crate) fn acquire(&self) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if !state.is_free() {
            return Err(match *state {
                State::Left(_) => Refused::Unanswered,
                _ => Refused::Taken,
            });
        }
        *state = State::Starting;
        Ok(())
    }

    /// It is this session's. `false` when the device has gone meanwhile: then the tenant is closed. Sleeps.
    pub(crate) fn assign(&self, tenant: Arc<dyn Tenant>) -> bool {
        let mut state = self.state.lock();
        if !matches!(*state, State::Starting) {
            tenant.close();
            return false;
        }
        *state = State::Held(tenant);
        true
    }

    /// The session that had it, or was starting, is over. Sleeps.
    pub(crate) fn release(&self) {
        self.state.lock().release();
    }

    /// Closes the window, whichever session has it. Sleeps.
    pub(crate) fn close(&self) {
        if let State::Held(tenant) = &*self.state.lock() {
            tenant.close();
        }
    }

    /// As [`close`](Lease::close), soon: no answer comes any more that a range waits for. Callable from any context.
    pub(crate) fn close_later(self: &Arc<Self>) {
        // It may be about to be closed already.
        let _ = self.queue.enqueue(self.clone());
    }

    /// The device goes. Sleeps.
    pub(crate) fn revoke(&self, instance: &Instance) {
        let held = core::mem::replace(&mut *self.state.lock(), State::Revoked);
        if let State::Held(tenant) = held {
            tenant.shut_down(instance);
        }
    }

    /// Writes what the window shows, or why it shows nothing. Sleeps.
    pub(crate) fn describe(&self, f: &mut Formatter<'_>) -> FmtResult {
        match &*self.state.lock() {
            State::Held(tenant) => tenant.describe(f),
            State::Left(outstanding) if outstanding.any() => f.write_str("awaited\n"),
            State::Free | State::Starting | State::Left(_) | State::Revoked => {
                f.write_str("unused\n")
            }
        }
    }
}
