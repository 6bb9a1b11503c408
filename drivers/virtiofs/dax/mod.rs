// SPDX-License-Identifier: GPL-2.0

//! Contents that are mapped from the device's window (DAX): the host's page cache, seen in the guest.
//!
//! - [`mode`]: which files.
//! - [`mapped_file`]: what it knows of a file.
//! - [`state`]: what the window lock guards: ranges, and what is under way for them.
//! - [`window`]: what the window shows, and the requests that change that.
//! - [`io`]: read(2) and write(2).
//! - [`fault`]: mappings of files into memory.
//! - [`copies`]: pages that page faults get where a range does not pay.
//! - [`times`]: the time of modification of what is stored to.
//! - [`layout`]: what a range shows is taken out of page tables and files.
//! - [`reclaim`]: ranges that are given up.
//! - [`wait`]: tasks that wait for a range.
//! - [`counters`]: what the window tells of itself.

mod copies;
mod counters;
mod fault;
mod io;
mod layout;
mod mapped_file;
mod mode;
mod reclaim;
mod state;
mod times;
mod wait;
mod window;

pub(crate) use copies::{
    outdate_by_host,
    outdate_locked, //
};
pub(crate) use fault::Faults;
pub(crate) use io::{
    read,
    write, //
};
pub(crate) use layout::break_layouts;
pub(crate) use mapped_file::MappedFile;
pub(crate) use mode::{
    applies,
    Claim, //
};
pub(crate) use state::Run;
pub(crate) use times::{
    catch_up,
    catch_up_briefly,
    stored,
    supersede, //
};
pub(crate) use window::Window;
