// SPDX-License-Identifier: GPL-2.0

//! A work queue of one's own.
//!
//! Work on the kernel's queues may run when the module that it belongs to is gone. Work on a queue that the module owns is
//! waited for before.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        HasDelayedWork,
        Queue,
        WorkItem, //
    }, //
};

/// Takes delayed work off its queue, and waits for it if it runs: after this it is neither queued nor running, unless somebody
/// queues it anew. Sleeps.
///
/// C: `cancel_delayed_work_sync()`.
pub fn cancel_delayed<T, const ID: u64>(item: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `item` is alive, and `HasDelayedWork` says that its work is the field of a `delayed_work`.
    let pending = unsafe {
        let work = T::raw_get_work(Arc::as_ptr(item).cast_mut());
        let work: *mut bindings::work_struct = work.cast();
        bindings::cancel_delayed_work_sync(container_of!(work, bindings::delayed_work, work))
    };
    if pending {
        // SAFETY: The queue had a reference, from `Arc::into_raw`, which nobody will take over any more.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(item)) });
    }
}

/// Has delayed work run after `delay`, also if it was to run later or earlier. If it runs now it will run once more. Does not sleep.
///
/// C: `mod_delayed_work()`.
pub fn set_delayed<T, const ID: u64>(queue: &OwnedQueue, item: Arc<T>, delay: Jiffies)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    let item = Arc::into_raw(item);
    // SAFETY: `item` is alive, and `HasDelayedWork` says that its work is the field of a `delayed_work`, which was initialised for
    // `T` and `ID` and gets a reference from `Arc::into_raw`, as `WorkItem` for an `Arc` wants.
    let pending = unsafe {
        let work = T::raw_get_work(item.cast_mut());
        let work: *mut bindings::work_struct = work.cast();
        let work = container_of!(work, bindings::delayed_work, work);
        bindings::mod_delayed_work_on(
            bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32,
            queue.0.as_ptr(),
            work,
            delay,
        )
    };
    if pending {
        // SAFETY: It had a reference already, so that ours stays with us.
        drop(unsafe { Arc::from_raw(item) });
    }
}

/// A work queue that is not bound to CPUs, and has a worker also when memory is short (`WQ_MEM_RECLAIM`).
///
/// It must be dropped outside of its own work.
///
/// # Invariants
///
/// The pointer is a work queue that we own.
pub struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A work queue may be used by any task.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Makes one. Sleeps.
    pub fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name, which needs no formatting, is copied.
        let queue = unsafe { bindings::virtiofs_helper_alloc_workqueue(name.as_char_ptr()) };
        // INVARIANT: It was made for us.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Waits until the work that is on the queue now is done. Sleeps.
    pub fn flush(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }

    /// Waits until all work is done, and that which it has put on the queue meanwhile. Sleeps.
    pub fn drain(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::drain_workqueue(self.0.as_ptr()) };
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: The queue is valid as long as `self` is.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: We own the queue. This waits for its work.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}
