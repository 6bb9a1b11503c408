// SPDX-License-Identifier: GPL-2.0

//! What to map, how much of it, and what to give up for it: the constants, and the rules that
//! are functions of them. What carries the rules out is in `window.rs` and `reclaim.rs`.
//!
//! Mapping costs one round trip, and later another one to remove the range; a FUSE_READ or
//! FUSE_WRITE costs one and leaves nothing behind. With the device the project measures with,
//! mapping and removing takes about as long as [`MAP_COST`] single reads. So a range has to be
//! used about that often before it pays.
//!
//! # Bypass or map
//!
//! | | free room in the window | no room |
//! |---|---|---|
//! | page fault of a store, exec | map; of a run, the next range ahead | map, reclaim |
//! | page fault of a load, right behind the last one or one of a run | map, and the next range ahead | map, reclaim |
//! | page fault of a load else | as a read: bypassed, it gets a copy of its page | by heat |
//! | sequential, unless paused ([`PAUSE_CHUNKS`]) | map, and the next range ahead | map, reclaim |
//! | read or write, file smaller than the window | map | by heat |
//! | read or write, larger file | map at the [`REUSE`]th use of the part, if the budget suffices | by heat |
//!
//! *By heat*: parts of files that are not mapped have a count of uses, which halves with each
//! epoch, and so have ranges. A part takes the place of a range if it is used more than twice as
//! much as that, by a margin ([`is_hotter`]), and if mapping has been worth it so far ([`Budget`]).
//! Everything else is bypassed. Uniformly random accesses to a large file thus use what is mapped,
//! and leave it as it is. Room that is made for a part is promised to it: tasks that read so at the same
//! time would else take each other's for parts that are used less, and soon outdone themselves
//! (`tests/simulation.rs`).
//!
//! # Reclaim
//!
//! Ranges start in *probation*, a list, first in, first out. Whoever is first there and was used
//! again becomes *protected*; who was not is reclaimed. Probation has [`PROBATION_SHARE`] of the
//! window if there are protected ranges to make room for it; those go round in a list of their
//! own, and lose half of their heat whenever they come past, until none is left. A run through a
//! file counts as one use of each range, however many calls it takes, and so do the uses that
//! fill a range mapped ahead. So a scan, of whatever length, reclaims its own ranges.

use crate::size::{Geometry, Order, PAGE_SIZE};

/// Largest range. A huge page maps 2 MiB; more would not make faults cheaper.
pub const MAX_ORDER: Order = Order::MIB_2;

/// A range may be larger than what the file has for it by up to a quarter (1 / 2^2) of its size.
/// Halves would do with fewer ranges, but a file of 33 KiB per 64 KiB wastes half of the window.
pub const WASTE_SHIFT: u32 = 2;

/// The same when ranges are scarce: nearly half.
pub const WASTE_SHIFT_CROWDED: u32 = 1;

/// Ranges are scarce when more than 3/4 of what the operator allows are in use.
pub const CROWDED: (u64, u64) = (3, 4);

/// How many orders smaller than wished a range may be before others are reclaimed for it:
/// 512 KiB instead of 2 MiB. Less would cost four times the round trips.
pub const ORDERS_BELOW_WISH: u8 = 2;

/// Accesses in a row that make a run; one is never a run. Of page faults those count that go on to the next part of
/// [`MAX_ORDER`], as a huge page ends the faults in its own.
pub const SEQUENTIAL_ACCESSES: u32 = 2;

/// Bytes in a row that make a run: random reads of up to 16 KiB next to each other are not one.
pub const SEQUENTIAL_BYTES: u64 = 64 << 10;

/// A run may leave out up to so many bytes: as much as the kernel's read-ahead tolerates.
pub const SEQUENTIAL_GAP: u64 = 128 << 10;

/// A run whose range was reclaimed before it was read to its end is not given ranges for so many
/// of the largest size: there are more runs than ranges, and they would only take them from each
/// other. Without this rule, 64 runs over 32 ranges asked for one with every read.
pub const PAUSE_CHUNKS: u64 = 8;

/// Uses of a part of a file that cannot fit before it is mapped into free room. The first use
/// says nothing.
pub const REUSE: u8 = 2;

/// Uses lately, before the one that it is mapped for, for a part to start as protected: it was
/// reclaimed or bypassed not long ago.
pub const PROTECT: u8 = 1;

/// Writes lately to a range mapped read-only before it is mapped anew as writable: until then
/// they are bypassed. A remap excludes users, so it should not be wasted.
pub const UPGRADE: u8 = 2;

/// What a range that was reclaimed counts as when it is used again.
pub const RECLAIMED_HEAT: u8 = 1;

/// A part takes the place of a range that was used n times if it was used 2n + 8 times. With 2n + 4, uniformly random reads of 100
/// files replaced 42 ranges before there was enough to go by, with 2n + 6 eleven, with this six, and parts that are used four times
/// and never again were mapped 342, 160 and 84 times (`tests/simulation.rs`).
pub const MARGIN: u8 = 8;

/// Accesses per range in an epoch, after which counts halve. Counts have to be large enough to
/// be told from chance, and epochs short enough to forget a working set within seconds: with 32,
/// uniformly random reads over eight times the window replaced 116 ranges in 100,000 reads, with
/// 64 four, with 128 none, which saw other parts become hot as fast (`tests/simulation.rs`).
pub const EPOCH_PER_RANGE: u64 = 128;

/// The same in a window with few ranges: as if it had so many.
pub const EPOCH_MIN_RANGES: u32 = 16;

/// A mapping that takes the place of another one costs as much as so many bypassed accesses, as
/// `make bench-dax` shows: case 8x-rand-4k with C, which maps for nearly each, against no DAX.
pub const MAP_COST: u32 = 10;

/// Of each bypassed access, 1 / 2^3 may be invested in mappings: so these cannot slow down what
/// they never help by more than an eighth or so.
pub const INVEST_SHIFT: u32 = 3;

/// Mappings that may be saved up for, so that a new working set is mapped at once.
pub const BUDGET_MAPPINGS: u32 = 64;

/// Part of the window that ranges in probation have: 1 / 10, as in S3-FIFO, where it is
/// shown to be good for most caches.
pub const PROBATION_SHARE: u64 = 10;

/// Ranges looked at in the search for one to reclaim, before the coldest of them is taken:
/// bounds the time that the window lock is held.
pub const VICTIM_SCAN: u32 = 128;

/// Ranges looked at in the search for another one of the same inode, for one REMOVEMAPPING.
pub const BATCH_SCAN: u32 = 64;

/// Ranges to remove in one request. Its cost is amortised by then, and the others of the
/// inode do not lose more at once.
pub const RECLAIM_BATCH: u32 = 16;

/// Ticks without use until a range is given back; the caller ticks once a second or so.
pub const IDLE_TICKS: u32 = 60;

/// The same when the guest's memory is short: what is used right now would only be mapped again.
pub const PRESSURE_TICKS: u32 = 2;

/// Ranges looked at in the search for one without use.
pub const IDLE_SCAN: u32 = 256;

/// When less than 1/16 of the window is free and there is demand, ranges are reclaimed in the
/// background...
pub const LOW_WATER: u64 = 16;

/// ... until 1/8 is.
pub const HIGH_WATER: u64 = 8;

/// Ticks for which demand counts. Without demand nothing is reclaimed in the background: a
/// working set may fill the window to the last range.
pub const DEMAND_TICKS: u32 = 2;

/// Bytes of a file in whole pages.
pub(crate) fn whole_pages(file_size: u64) -> u64 {
    file_size
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX)
}

/// How large a range to make for `offset` in a file of `file_size` bytes, where nothing is mapped
/// from `gap.0` to `gap.1`: the largest one that the file fills well enough.
///
/// A range of the smallest order always fits into a gap, as ranges are aligned.
pub fn order_for(
    geometry: &Geometry,
    file_size: u64,
    offset: u64,
    gap: (u64, u64),
    crowded: bool,
) -> Order {
    let file_end = whole_pages(file_size);
    let shift = if crowded {
        WASTE_SHIFT_CROWDED
    } else {
        WASTE_SHIFT
    };
    let mut order = geometry.max();
    while order > geometry.min() {
        let start = order.align_down(offset);
        let end = start.saturating_add(order.bytes());
        let waste = end.saturating_sub(file_end.max(start));
        if start >= gap.0 && end <= gap.1 && waste <= order.bytes().wrapping_shr(shift) {
            break;
        }
        order = order.smaller().unwrap_or(geometry.min());
    }
    order
}

/// Whether a part of a file, used `candidate` times, should take the place of a range that was used
/// `range` times.
#[inline]
pub const fn is_hotter(candidate: u8, range: u8) -> bool {
    candidate >= range.saturating_mul(2).saturating_add(MARGIN)
}

/// What a read or write that need not be mapped is like.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// One of a run of accesses, which is not paused.
    pub sequential: bool,
    /// The whole file would fit into the window.
    pub fits: bool,
    /// There is free room.
    pub room: bool,
    /// Uses of this part of the file lately, with this one.
    pub heat: u8,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Map it.
    Map,
    /// Map it if the budget suffices, else bypass.
    MapIfAffordable,
    /// Map it if some range is colder and the budget suffices, else bypass.
    MapIfHotter,
    /// FUSE_READ or FUSE_WRITE.
    Bypass,
}

/// The table above.
pub const fn decide(s: &Situation) -> Verdict {
    match (s.sequential, s.room) {
        (true, _) => Verdict::Map,
        (false, true) if s.fits => Verdict::Map,
        (false, true) if s.heat >= REUSE => Verdict::MapIfAffordable,
        (false, true) => Verdict::Bypass,
        (false, false) => Verdict::MapIfHotter,
    }
}

/// What mapping may cost in proportion to what it saved.
///
/// Each random access to a mapped range saves a round trip, and earns as much; each bypassed one
/// earns a bit. A mapping that takes the place of another one costs [`MAP_COST`].
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    credit: u32,
}

impl Budget {
    const ACCESS: u32 = 1 << INVEST_SHIFT;
    const MAPPING: u32 = MAP_COST.saturating_mul(Self::ACCESS);
    const MOST: u32 = BUDGET_MAPPINGS.saturating_mul(Self::MAPPING);

    /// A full one.
    pub const fn new() -> Self {
        Self { credit: Self::MOST }
    }

    #[inline]
    fn earn(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(Self::MOST);
    }

    /// An access used a range.
    #[inline]
    pub fn hit(&mut self) {
        self.earn(Self::ACCESS);
    }

    /// An access was bypassed.
    pub fn bypassed(&mut self) {
        self.earn(1);
    }

    /// Pays for a mapping; `false` if there is not enough.
    #[must_use]
    pub fn pay(&mut self) -> bool {
        match self.credit.checked_sub(Self::MAPPING) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}
