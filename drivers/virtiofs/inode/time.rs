// SPDX-License-Identifier: GPL-2.0

//! Conversion between timestamps of the kernel and of the wire.

use fuse_proto::Time;
use vfs::time::Timespec;

/// A time that the daemon sent.
pub(crate) fn timespec(time: Time) -> Timespec {
    Timespec::new(time.sec, time.nsec)
}

/// A time for the daemon.
pub(crate) fn wire_time(time: Timespec) -> Time {
    Time {
        sec: time.sec(),
        nsec: time.nsec(),
    }
}
