// SPDX-License-Identifier: GPL-2.0

//! Draft docs.

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

pub mod buddy;
pub mod policy;

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

pub use counters::{Counters, Usage};
pub use ghost::Ghost;
pub use ranges::{
    Extent, Owner, ReclaimToken, RemapToken, ReserveToken, Slot, SlotId, Stale, State,
};
pub use size::{Geometry, GeometryError, Order, PAGE_SIZE};
pub use storage::Storage;
pub use stream::Stream;
pub use window::{
    Access, Advice, Config, Hit, Need, NewError, Plan, RangeInfo, Refused, Removal, Step, Wait,
    Wake, Window,
};

/// Bits that look random, computed of others (the finalizer of MurmurHash3).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
