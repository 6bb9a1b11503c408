// SPDX-License-Identifier: GPL-2.0

//! A DAX window: what of which file it shows, what to map next, and what to give up for it.
//!
//! The device has a *window*, some memory of the host that the guest sees. FUSE_SETUPMAPPING makes
//! a part of it show a part of a file (a `fuse_dax_mapping` range), FUSE_REMOVEMAPPING ends that.
//! This crate decides; the driver sends the requests, sleeps and wakes. There are no types of the
//! kernel, no allocation and no `unsafe`, so the crate builds in the kernel as well as on the
//! host, where `cargo test` tries it out
//! (`cargo test --manifest-path rust/dax_map/Cargo.toml`).
//!
//! ```text
//!   file A  (5 MiB)               file B  (16 KiB)          file C  (huge)
//!  ┌────────┬────────┬────┐         ┌──┐         ┌─────────┬────────┬──────────────
//!  │ 0..2M  │ 2M..4M │4..5│         │  │         │         │ 6M..8M │
//!  └───┬────┴────┬───┴────┘         └┬─┘         └─────────┴───┬────┴──────────────
//!      │         │     not mapped:   │                         │  the rest is read and
//!      │         └───────┐ bypassed  └───────────┐             │  written by FUSE_READ
//!      │                 │                       │             │  and FUSE_WRITE
//!      ▼                 ▼                       ▼             ▼
//!  ┌────────┬────────┬────────┬────────┬──┬──┬────┬────────┬────────┬────────┬ ─ ─
//!  │ range  │ range  │ range  │retired │  │  │free│  range │ range  │  free  │
//!  │  2 MiB │ (file D)        │        │64K blocks │(file E)│        │        │
//!  └────────┴────────┴────────┴────────┴──┴──┴────┴────────┴────────┴────────┴ ─ ─
//!   window: every range lies at a multiple of its size, here and in its file
//! ```
//!
//! # Parts
//!
//! | | |
//! |---|---|
//! | [`Window`] | all of it together: what the driver calls |
//! | [`Stream`] | what is remembered of an open file, to recognise runs |
//! | [`buddy`] | which parts of the window are free |
//! | `ranges` | the table of ranges, their states, and the tokens of who changes them |
//! | `inode_map` | which range shows which part of which file |
//! | `reclaim`, `ghost` | which range goes next; what is remembered of those that are gone |
//! | [`policy`] | the rules, as functions, and all constants |
//!
//! # The life of a range
//!
//! 1. [`Window::access`] says what to do with a read, a write or a page fault: [use](Step::Use) a
//!    range, [map](Step::Map) one, [bypass](Step::Bypass) the window, or [wait](Step::Wait).
//! 2. [`Window::reserve`] takes a piece of the window and a slot of the table. The range is in the map
//!    of its file from now on, so that nobody else maps the same; it has one duty, the
//!    [`ReserveToken`].
//! 3. The driver sends SETUPMAPPING, without a lock, and says how it ended: [`Window::commit`],
//!    [`Window::setup_failed`], or [`Window::setup_unknown`], which *retires* the range: its place in the
//!    window may show anything, and is not used again.
//! 4. Whoever uses the range has it pinned, until [`Window::unpin`].
//! 5. When room is needed, [`Window::pick_victim`] finds what is worth least. The driver takes it out of
//!    all page tables, sends REMOVEMAPPING, and says how that ended.
//!
//! `ranges.rs` has a picture of the states.
//!
//! # Locks
//!
//! The caller serialises everything with one lock, the window lock. It is held for the time of a
//! search, never for a request: what is under way is a state of the range. Whoever is told to
//! wait becomes a waiter (of the range's wait queue, or that for any range) before releasing the
//! lock; whoever gets a [`Wake`] wakes those it names, and they try again. When nothing can
//! ever become free there is an error to return, [`Refused::Never`], and not a wait.
//!
//! A read or write need not wait: it may be bypassed at any time, whatever it was told.
//!
//! # Memory
//!
//! The caller hands in three arrays when the window is made: a [`buddy::Block`] per smallest range,
//! a [`Slot`] per range there may be, which is the bound that an operator sets, and some
//! [`Ghost`]s. Nothing ever grows, so nothing can fail for want of memory half way.
//!
//! # Example
//!
//! ```
//! use dax_map::{buddy::Block, policy, *};
//!
//! // 64 MiB, and 500 ranges at most.
//! # fn example() -> Option<()> {
//! let geometry = Geometry::new(64 << 20, 4096, policy::MAX_ORDER).ok()?;
//! let mut window = Window::new(
//!     Config { geometry, seed: 42 },
//!     vec![Block::default(); geometry.blocks() as usize],
//!     vec![Slot::default(); 500],
//!     vec![Ghost::default(); 4000],
//! )
//! .ok()?;
//!
//! // Somebody reads a small file.
//! let mut stream = Stream::new();
//! let access = Access {
//!     owner: Owner(7),
//!     offset: 4096,
//!     len: 100,
//!     write: false,
//!     need: Need::Either,
//!     file_size: 16384,
//! };
//! let Step::Map(plan) = window.access(&mut stream, &access).step else { return None };
//! let token = window.reserve(&plan).ok()?;
//! assert_eq!((token.extent().file_offset, token.extent().len), (0, 16384));
//! // ... the lock is released, SETUPMAPPING is sent and succeeds ...
//! let slot = token.slot();
//! let wake = window.commit(token, true).ok()?;
//! assert_eq!(wake, Wake::default()); // Nobody waits for it.
//! // ... the data is copied from the window ...
//! let _ = window.unpin(slot);
//!
//! // From now on no request is needed.
//! let Step::Use(hit) = window.access(&mut stream, &access).step else { return None };
//! let _ = window.unpin(hit.slot);
//!
//! // Later, room is needed.
//! let token = window.pick_victim()?;
//! // ... its pages are taken out of page tables, REMOVEMAPPING is sent and succeeds ...
//! let _ = window.removed(token).ok()?;
//! assert_eq!(window.usage().free_bytes, 64 << 20);
//! # Some(())
//! # }
//! # assert!(example().is_some());
//! ```

#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]
// Nothing here can panic, or wrap around unnoticed.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

use core::num::NonZeroU64;

pub mod buddy;
pub mod policy;

mod advice;
mod counters;
mod ghost;
mod heat;
mod inode_map;
mod list;
mod ranges;
mod reclaim;
mod size;
mod storage;
mod stream;
mod window;

pub use advice::{
    Access, Advice, Config, Hit, Need, NewError, Plan, RangeInfo, Refused, Removal, Step, Wait,
    Wake,
};
pub use counters::{Counters, Usage};
pub use ghost::Ghost;
pub use ranges::{
    Extent, Owner, ReclaimToken, RemapToken, ReserveToken, Slot, SlotId, Stale, State,
};
pub use size::{Geometry, GeometryError, Order, PAGE_SIZE};
pub use storage::Storage;
pub use stream::{Motion, Stream};
pub use window::Window;

/// Bits that look random, computed of others (the finalizer of MurmurHash3).
#[inline]
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// A part of a file, as bits that look random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part(NonZeroU64);

impl Part {
    /// The `chunk`-th piece of some size.
    #[inline]
    pub(crate) fn of(owner: Owner, chunk: u64) -> Self {
        let bits = mix(mix(owner.0) ^ chunk);
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// Which of `places`, of which there are fewer than 2^32, each as probable as others.
    #[inline]
    pub(crate) const fn place(self, places: usize) -> u32 {
        // That share of the places which the bits are of 2^32.
        ((self.0.get() >> 32).wrapping_mul(places as u64) >> 32) as u32
    }
}
