// SPDX-License-Identifier: GPL-2.0

//! Work that an exiting task leaves to a work item, and waits for as long as its [patience](crate::transport::patience) lasts.

use crate::{
    session::Session,
    transport::{
        device::Instance,
        patience::{
            InVain,
            Patience, //
        },
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::completion::Completion;

/// What a task that exits has left to a work item.
#[pin_data]
pub(crate) struct Errand {
    #[pin]
    done: Completion,
    in_vain: InVain,
    patience: Arc<Patience>,
}

impl Errand {
    /// One that is not done.
    pub(crate) fn new(instance: &Instance) -> Result<Arc<Self>> {
        let patience = instance.patience().clone();
        Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
                in_vain: InVain::new(),
                patience,
            }),
            GFP_KERNEL,
        )
    }

    /// It is done. Callable from any context.
    pub(crate) fn end(&self) {
        self.done.complete_all();
        self.patience.ended(&self.in_vain);
    }

    /// Waits for it, as long as the daemon goes on to take what is written. Sleeps.
    pub(crate) fn wait(&self, instance: &Instance) {
        let mut stored = instance.stored();
        loop {
            let left = self.patience.left();
            if left == 0 || self.done.wait_killable_timeout(left) != Ok(false) {
                return;
            }
            let now = instance.stored();
            if now == stored {
                return self.patience.give_up(&self.in_vain);
            }
            stored = now;
        }
    }
}

/// Has a work item write back what is dirty of a file, or do what else takes a task that may wait. Nothing if there is none. Sleeps
/// for memory alone.
pub(crate) fn leave_to_work(
    session: &Session,
    work: impl FnOnce() + Send + 'static,
) -> Option<Arc<Errand>> {
    let errand = Errand::new(session.instance()).ok()?;
    let done = errand.clone();
    let spawned = session
        .instance()
        .patient_work()
        .try_spawn(GFP_KERNEL, move || {
            work();
            done.end();
        });
    spawned.is_ok().then_some(errand)
}
