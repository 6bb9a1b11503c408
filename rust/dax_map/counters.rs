// SPDX-License-Identifier: GPL-2.0

//! Counters.

use crate::size::Order;

/// What happened since the window was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accesses that found their range mapped.
    pub hits: u64,
    /// Accesses that were told to map a range.
    pub misses: u64,
    /// Accesses that need a mapping: page faults. They are among the hits, misses and waits.
    pub faults: u64,
    /// Reads that went to the daemon.
    pub bypassed_reads: u64,
    /// Writes that went to the daemon.
    pub bypassed_writes: u64,
    /// Times that somebody was told to wait for a range.
    pub waits: u64,
    /// Ranges reserved.
    pub reserved: u64,
    /// Ranges mapped.
    pub mapped: u64,
    /// Proposals to map ahead.
    pub ahead: u64,
    /// Ranges mapped anew at their place.
    pub remapped: u64,
    /// Ranges removed: to make room, when idle, and because their file needed it.
    pub removed: u64,
    /// Of these, to make room or when idle.
    pub reclaimed: u64,
    /// Requests known to have failed.
    pub failed: u64,
    /// Attempts to reclaim or remap that were called off.
    pub cancelled: u64,
    /// Tokens that were not valid any more.
    pub stale: u64,
}

/// How the window is used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the window that ranges can be made of.
    pub usable_bytes: u64,
    /// Of these, free.
    pub free_bytes: u64,
    /// Of these, never used again.
    pub retired_bytes: u64,
    /// Most ranges there may be.
    pub limit: u32,
    /// Ranges there are, in any state.
    pub ranges: u32,
    /// Of these, mapped and without users.
    pub idle: u32,
    /// Of these, mapped and with users.
    pub pinned: u32,
    /// Of these, with a request under way.
    pub busy: u32,
    /// Of these, in an unknown state until unmount.
    pub retired: u32,
    /// Mapped ranges that were not used again yet.
    pub probation: u32,
    /// Mapped ranges that were.
    pub protected: u32,
    /// Ranges, in any state, by order.
    pub by_order: [u32; Order::COUNT],
}
