// SPDX-License-Identifier: GPL-2.0

//! Contents of files: cached, past the page cache, or in the window; open files and their locks.
//!
//! - [`aio`]: asynchronous direct I/O: io_submit(2), io_uring.
//! - [`claims`]: locks that an open file may have at the daemon.
//! - [`dax_fault`]: page faults in mappings of files in the window.
//! - [`dax_io`]: read(2) and write(2) of files in the window.
//! - [`dax_times`]: the time of modification of files in the window.
//! - [`direct`]: I/O past the page cache.
//! - [`mod@file`]: handles: files and directories that the daemon has opened.
//! - [`fill`]: READs into the page cache, and short ones.
//! - [`invalidate`]: page cache and size after a truncation, and after I/O past the cache.
//! - [`mod@lock`]: locks that the daemon keeps, and signals.
//! - [`opening`]: OPEN, and what is asked beside it.
//! - [`page_cache`]: cached reads and readahead.
//! - [`unmap`]: write-back when a mapping ends.
//! - [`mod@write`]: write(2) through the page cache, fsync(2), fallocate(2), copy_file_range(2).
//! - [`write_checks`]: what every write does before its bytes go.
//! - [`writeback`]: write-back of dirty folios and times.
//! - [`writepages`]: WRITEs of write-back.

pub(crate) mod aio;
pub(crate) mod claims;
pub(crate) mod dax_fault;
pub(crate) mod dax_io;
pub(crate) mod dax_times;
pub(crate) mod direct;
pub(crate) mod file;
pub(crate) mod fill;
pub(crate) mod invalidate;
pub(crate) mod lock;
pub(crate) mod opening;
pub(crate) mod page_cache;
pub(crate) mod unmap;
pub(crate) mod write;
pub(crate) mod write_checks;
pub(crate) mod writeback;
pub(crate) mod writepages;
