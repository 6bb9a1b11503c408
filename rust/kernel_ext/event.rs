// SPDX-License-Identifier: GPL-2.0

//! Recurring events, and waits for the next one.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{
        ordering,
        Atomic, //
    },
    time::Jiffies,
    types::Opaque, //
};

/// Something that happens again and again.
///
/// Nothing is missed: who wants to wait asks [`seen`](Event::seen) under the lock that protects what the wait is about, and
/// waits for what happens after that.
#[pin_data]
pub struct Event {
    #[pin]
    waiters: Opaque<bindings::wait_queue_head>,
    count: Atomic<u64>,
}

// SAFETY: A wait queue may be used from any task.
unsafe impl Send for Event {}
// SAFETY: A wait queue locks itself.
unsafe impl Sync for Event {}

/// No time at which [`Event::wait_killable`] ends.
pub const FOREVER: Jiffies = c_long::MAX as Jiffies;

/// How often an event has happened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

impl Event {
    /// One that has not happened.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            waiters <- Opaque::ffi_init(|slot: *mut bindings::wait_queue_head| {
                // SAFETY: `slot` is valid for writes; name and class are static.
                unsafe {
                    bindings::__init_waitqueue_head(
                        slot,
                        c"Event".as_char_ptr(),
                        kernel::static_lock_class!().as_ptr(),
                    )
                }
            }),
            count: Atomic::new(0),
        })
    }

    /// How often it has happened.
    pub fn seen(&self) -> Seen {
        Seen(self.count.load(ordering::Acquire))
    }

    /// It happens: wakes all who wait. Callable from any context.
    pub fn happen(&self) {
        self.count.fetch_add(1, ordering::Full);
        // SAFETY: Initialised by `new`.
        unsafe {
            bindings::__wake_up(
                self.waiters.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }

    /// Sleeps until it has happened since `seen`, but for `timeout` at most; a fatal signal ends the wait with `EINTR`.
    pub fn wait_killable(&self, seen: Seen, timeout: Jiffies) -> Result {
        let mut left = i64::try_from(timeout)?;
        let mut entry = bindings::wait_queue_entry::default();
        // SAFETY: The entry is ours, and stays where it is until it is off the queue, which `finish_wait()` sees to.
        unsafe { bindings::init_wait_entry(&mut entry, 0) };
        let done = loop {
            // SAFETY: As above; the queue is initialised.
            let prepared = to_result(unsafe {
                bindings::prepare_to_wait_event(
                    self.waiters.get(),
                    &mut entry,
                    bindings::TASK_KILLABLE as i32,
                ) as i32
            });
            if self.seen() != seen || left <= 0 {
                break Ok(());
            }
            if prepared.is_err() {
                break Err(EINTR);
            }
            // SAFETY: In a task that may sleep, as the caller guarantees.
            left = unsafe { bindings::schedule_timeout(left as c_long) } as i64;
        };
        // SAFETY: As above.
        unsafe { bindings::finish_wait(self.waiters.get(), &mut entry) };
        done
    }
}
