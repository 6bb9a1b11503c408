// SPDX-License-Identifier: GPL-2.0

//! Contents that are mapped from the device's window (DAX): the host's page cache, seen in the guest.
//!
//! - [`mode`]: which files.
//! - [`mapped_file`]: what it knows of a file.
//! - [`state`]: what the window lock guards: ranges, and what is under way for them.
//! - [`window`]: what the window shows, and the requests that change that.
//! - [`copies`]: pages that page faults get where a range does not pay.
//! - [`times`]: the time of modification of what is stored to.
//! - [`layout`]: what a range shows is taken out of page tables and files.
//! - [`reclaim`]: ranges that are given up.
//! - [`wait`]: tasks that wait for a range.
//! - [`counters`]: what the window tells of itself.

pub(crate) mod copies;
pub(crate) mod counters;
pub(crate) mod layout;
pub(crate) mod mapped_file;
pub(crate) mod mode;
pub(crate) mod reclaim;
pub(crate) mod state;
pub(crate) mod times;
pub(crate) mod wait;
pub(crate) mod window;
