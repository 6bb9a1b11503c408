// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks, outside of virtio and the VFS.
//!
//! Nothing here knows of FUSE. Each module is a candidate for the `kernel` crate:
//!
//! - [`bindings`]: `kernel::bindings` and the C items it does not have.
//! - [`completion`]: a completion that a fatal signal can interrupt.
//! - [`cpu`]: the current CPU as a hint, spreading of CPUs.
//! - [`dax`]: memory of a device that files are mapped from.
//! - [`event`]: something to wait for that happens again and again.
//! - [`folio`]: page-cache folios that a filesystem fills.
//! - [`jiffies`]: the tick counter.
//! - [`kobject`]: directories of sysfs.
//! - [`pages`]: kernel pages as one buffer.
//! - [`ratelimit`]: a limit on log lines.
//! - [`scatterlist`]: building scatterlists.
//! - [`siphash`]: a hash with a secret key.
//! - [`static_mutex`]: a mutex that can be a static.
//! - [`task`]: what is up with the current task.
//! - [`user_pages`]: pinned memory of a user's buffer.
//! - [`users`]: who keeps an object from going, counted.
//! - [`workqueue`]: a work queue of one's own.
//! - [`mod@write`]: page-cache folios that a filesystem writes out.

#![crate_name = "kernel_ext"]

pub mod bindings;
pub mod completion;
pub mod cpu;
pub mod data_page;
pub mod dax;
pub mod dirty;
pub mod event;
mod filled;
pub mod folio;
pub mod jiffies;
pub mod kobject;
pub mod pages;
pub mod ratelimit;
pub mod scatterlist;
pub mod siphash;
pub mod source;
pub mod static_mutex;
pub mod task;
pub mod user_pages;
pub mod users;
pub mod workqueue;
pub mod write;

/// Prefix of this crate's log lines.
const __LOG_PREFIX: &[u8] = b"virtiofs\0";
