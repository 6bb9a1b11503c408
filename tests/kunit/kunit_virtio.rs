// SPDX-License-Identifier: GPL-2.0

//! The modules of `virtio` with their KUnit suites.

// What the suites do not use is used by the crate's users.
#![allow(dead_code)]

#[path = "../../rust/virtio/connection.rs"]
pub mod connection;
#[path = "../../rust/virtio/device.rs"]
pub mod device;
#[path = "../../rust/virtio/driver.rs"]
pub mod driver;
#[path = "../../rust/virtio/end.rs"]
pub mod end;
#[path = "../../rust/virtio/in_flight.rs"]
pub mod in_flight;
#[path = "../../rust/virtio/parked.rs"]
mod parked;
#[path = "../../rust/virtio/queue.rs"]
pub mod queue;
#[path = "../../rust/virtio/transfer.rs"]
pub mod transfer;

pub use connection::Connection;
pub use device::{
    BoundDevice,
    Device,
    Probe, //
};
pub use driver::{
    DeviceId,
    Driver, //
};
pub use queue::QueueSet;
pub use transfer::Outcome;

/// Prefix of this crate's log lines.
const __LOG_PREFIX: &[u8] = b"virtiofs_test\0";
