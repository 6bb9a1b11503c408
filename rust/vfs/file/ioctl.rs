// SPDX-License-Identifier: GPL-2.0

//! `ioctl(2)` of an open file or directory.

use super::File;
use crate::filesystem::FileSystem;
use kernel::{
    error::from_result,
    ffi::c_uint,
    ioctl::{
        _IOC_DIR,
        _IOC_SIZE, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use kernel_ext::bindings;

/// One call of `ioctl(2)`.
///
/// Its number says how much data goes which way between the caller's memory and the filesystem.
pub struct IoctlRequest {
    cmd: u32,
    arg: usize,
    compat: bool,
}

/// Answers a call of a file with `ioctl`.
///
/// # Safety
///
/// The file is that of an `unlocked_ioctl` or `compat_ioctl` callback, of a filesystem `T`, and opened.
pub(super) unsafe fn answer<T: FileSystem>(
    file: *mut bindings::file,
    request: IoctlRequest,
    ioctl: fn(&File<T>, &IoctlRequest) -> Result<i32>,
) -> isize {
    // SAFETY: As the caller says.
    from_result(|| ioctl(unsafe { File::from_raw(file) }, &request).map(|result| result as isize))
}

impl IoctlRequest {
    pub(super) fn new(cmd: c_uint, arg: usize, compat: bool) -> Self {
        Self { cmd, arg, compat }
    }

    /// The number.
    pub fn cmd(&self) -> u32 {
        self.cmd
    }

    /// The argument: mostly the address of data.
    pub fn arg(&self) -> u64 {
        self.arg as u64
    }

    /// Whether the caller is a 32-bit program.
    pub fn is_compat(&self) -> bool {
        self.compat
    }

    fn len(&self, direction: u32) -> usize {
        if _IOC_DIR(self.cmd) & direction != 0 {
            _IOC_SIZE(self.cmd)
        } else {
            0
        }
    }

    /// Bytes of data for the caller, below 16 KiB.
    pub fn len_out(&self) -> usize {
        self.len(bindings::_IOC_READ)
    }

    /// The data of the caller. Sleeps. Errors: `EFAULT`, `ENOMEM`.
    pub fn data(&self) -> Result<KVec<u8>> {
        let len = self.len(bindings::_IOC_WRITE);
        let mut data = KVec::with_capacity(len, GFP_KERNEL)?;
        if len > 0 {
            UserSlice::new(UserPtr::from_addr(self.arg), len).read_all(&mut data, GFP_KERNEL)?;
        }
        Ok(data)
    }

    /// Gives data to the caller, at most [`len_out`](Self::len_out) bytes. Sleeps. Errors: `EFAULT`.
    pub fn answer(&self, data: &[u8]) -> Result {
        if data.is_empty() {
            return Ok(());
        }
        let room = UserSlice::new(UserPtr::from_addr(self.arg), self.len_out());
        room.writer().write_slice(data)
    }
}
