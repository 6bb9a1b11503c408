// SPDX-License-Identifier: GPL-2.0

//! The target of a symbolic link, cached with the inode.

use kernel::{
    prelude::*,
    str::CString,
    sync::atomic::{
        ordering,
        Atomic, //
    },
};
use vfs::time::Timespec;

/// A cached target. It is never replaced, as path walks read it without a reference (RCU): when another one is found, there is none
/// from then on.
pub(crate) struct Target {
    text: CString,
    /// The inode's time of last change that it is good for, as [`stamp`] has it.
    ctime: Atomic<u64>,
}

impl Target {
    /// The target that the daemon has told of an inode that had changed at `ctime`.
    pub(crate) fn new(text: &CStr, ctime: Timespec) -> Result<Self> {
        Ok(Self {
            text: CString::try_from(text)?,
            ctime: Atomic::new(stamp(ctime)),
        })
    }

    /// The target, if the inode has not changed since. Callable from any context.
    pub(crate) fn as_of(&self, ctime: Timespec) -> Option<&CStr> {
        (self.ctime.load(ordering::Relaxed) == stamp(ctime)).then_some(&*self.text)
    }

    /// The daemon has told `text` after the inode had changed at `ctime`.
    pub(crate) fn confirm(&self, text: &CStr, ctime: Timespec) {
        if *self.text == *text {
            self.ctime.store(stamp(ctime), ordering::Relaxed);
        }
    }
}

/// A time in one word; times that differ by less than a few centuries have different ones.
fn stamp(time: Timespec) -> u64 {
    (time.sec() as u64) << 30 | u64::from(time.nsec())
}
