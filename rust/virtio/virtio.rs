// SPDX-License-Identifier: GPL-2.0

//! Virtio drivers, and virtqueues that own what is in flight.
//!
//! - [`driver`]: the bus: registration, probe and removal.
//! - [`device`]: a device and its configuration space.
//! - [`transfer`]: the buffers of one request, reference-counted.
//! - [`end`]: behaviour at the end of one.
//! - [`connection`]: who sends them.
//! - [`in_flight`]: what is told of those that have not come back.
//! - [`queue`]: typed virtqueues.
//!
//! The rule that everything here serves: memory that a device may read or write belongs to the queue until the device
//! has returned it or was reset, whatever becomes of the task that waits for it.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

#![crate_name = "virtio"]

pub mod connection;
pub mod device;
pub mod driver;
pub mod end;
pub mod in_flight;
mod parked;
pub mod queue;
pub mod transfer;

pub use connection::Connection;
pub use device::{
    BoundDevice,
    Device,
    Probe, //
};
pub use driver::{
    Adapter,
    DeviceId,
    Driver, //
};
pub use end::{
    AtEnd,
    End, //
};
pub use in_flight::{
    Entry,
    Stage, //
};
pub use queue::{
    QueueSet,
    Virtqueue, //
};
pub use transfer::{
    NewTransfer,
    Outcome,
    Owner,
    Payload,
    Transfer, //
};

/// Prefix of this crate's log lines.
const __LOG_PREFIX: &[u8] = b"virtio_rust\0";
