// SPDX-License-Identifier: GPL-2.0

//! The device, its queues, and requests on them.
//!
//! This floor knows requests and their ends, and nothing of what they are for.
//!
//! - [`binding`]: the virtio driver: devices are bound and removed.
//! - [`control`]: requests in debugfs, and their abort.
//! - [`device`]: a device: its tag and its queues.
//! - [`lane`]: data of a virtqueue.
//! - [`lease`]: which session has the window.
//! - [`outstanding`]: requests for the window that were not answered.
//! - [`patience`]: how long tasks that exit wait for the daemon.
//! - [`request`]: a request: encoded, sent, waited for, its reply checked.
//! - [`sysfs`]: directories in sysfs, and uevents.

pub(crate) mod binding;
pub(crate) mod control;
pub(crate) mod device;
pub(crate) mod lane;
pub(crate) mod lease;
pub(crate) mod outstanding;
pub(crate) mod patience;
pub(crate) mod request;
pub(crate) mod sysfs;
