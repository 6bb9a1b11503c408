// SPDX-License-Identifier: GPL-2.0

//! Who has the window of a device, where an interrupt finds it.

use super::Holder;
use kernel::{
    new_work,
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

/// Knows who has the window.
#[pin_data]
pub(crate) struct Keeper {
    holder: Pin<KBox<Mutex<Holder>>>,
    queue: Arc<OwnedQueue>,
    #[pin]
    work: Work<Keeper>,
}

impl_has_work! {
    impl HasWork<Self> for Keeper { self.work }
}

impl WorkItem for Keeper {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.close();
    }
}

impl Keeper {
    /// Nobody has it, as yet. Sleeps.
    pub(crate) fn new(queue: Arc<OwnedQueue>) -> Result<Arc<Self>> {
        let holder = Holder::new()?;
        Arc::pin_init(
            pin_init!(Self {
                holder,
                queue,
                work <- new_work!("virtiofs::Keeper::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Who has it.
    pub(crate) fn holder(&self) -> &Mutex<Holder> {
        &self.holder
    }

    /// Closes it, whoever has it. Sleeps.
    pub(crate) fn close(&self) {
        if let Holder::Session(window) = &*self.holder.lock() {
            window.close();
        }
    }

    /// Closes it soon, whoever has it: no answer comes any more that a range waits for. Callable from any context.
    pub(crate) fn close_later(self: &Arc<Self>) {
        // It may be about to be closed already.
        let _ = self.queue.enqueue(self.clone());
    }
}
