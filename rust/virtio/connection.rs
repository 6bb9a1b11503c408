// SPDX-License-Identifier: GPL-2.0

//! Connections: senders of transfers to a device, which can be ended one by one.
//!
//! Several may use its queues: at the same time, or one while transfers of another, which has ended, are still in flight. Each
//! sends by a [`Connection`] of its own, so that what is ended with it is its own, and all of that.

use kernel::sync::atomic::{
    ordering,
    Atomic, //
};

/// How many connections there were since boot.
static COUNT: Atomic<u64> = Atomic::new(0);

/// One that sends transfers. All methods are callable from any context.
pub struct Connection {
    /// No other one has it.
    number: u64,
    open: Atomic<i32>,
}

impl Connection {
    /// A new one.
    pub fn new() -> Self {
        Self {
            number: COUNT.fetch_add(1u64, ordering::Relaxed),
            open: Atomic::new(1),
        }
    }

    /// Whether it still sends.
    pub fn is_open(&self) -> bool {
        self.open.load(ordering::Relaxed) != 0
    }

    /// It sends nothing from here on; what it has sent goes on, see [`QueueSet::abort`](crate::QueueSet::abort). Whether it was
    /// open.
    pub fn close(&self) -> bool {
        self.open.xchg(0, ordering::Full) != 0
    }

    /// Whether it was there when the number was [`count`](Self::count).
    pub(crate) fn is_before(&self, count: u64) -> bool {
        self.number < count
    }

    /// The number of the next one.
    pub(crate) fn count() -> u64 {
        COUNT.load(ordering::Relaxed)
    }

    /// What its transfers are known by.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}
