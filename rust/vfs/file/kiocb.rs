// SPDX-License-Identifier: GPL-2.0

//! Reads and writes in progress.

use super::{
    Borrowed,
    File, //
};
use crate::filesystem::FileSystem;
use core::marker::PhantomData;
use kernel::{
    error::{
        to_result,
        Error, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};
use kernel_ext::bindings;

/// A read or write in progress.
///
/// # Invariants
///
/// The pointer is valid and used by nobody else for the duration of `'a`; the file is one of `T`.
pub struct Kiocb<'a, T: FileSystem> {
    iocb: *mut bindings::kiocb,
    _p: PhantomData<&'a mut File<T>>,
}

impl<'a, T: FileSystem> Kiocb<'a, T> {
    /// # Safety
    ///
    /// `iocb` meets the type invariants.
    pub(super) unsafe fn from_raw(iocb: *mut bindings::kiocb) -> Self {
        // INVARIANT: As the caller says.
        Self {
            iocb,
            _p: PhantomData,
        }
    }

    /// The file.
    pub fn file(&self) -> &'a File<T> {
        // SAFETY: Valid by the type invariant; the request holds a reference to the file.
        unsafe { File::from_raw((*self.iocb).ki_filp) }
    }

    /// The filesystem's data of the file.
    pub fn data(&self) -> Borrowed<'a, T> {
        self.file().data()
    }

    /// The position in the file.
    pub fn pos(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.iocb).ki_pos }
    }

    /// Moves the position; to be done by whoever transfers bytes.
    pub fn set_pos(&mut self, pos: i64) {
        // SAFETY: Valid by the type invariant, and ours.
        unsafe { (*self.iocb).ki_pos = pos };
    }

    fn has(&self, flag: u32) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.iocb).ki_flags as u32 & flag != 0 }
    }

    /// Whether the page cache is to be bypassed.
    pub fn is_direct(&self) -> bool {
        self.has(bindings::IOCB_DIRECT)
    }

    /// Whether `EAGAIN` is to be returned instead of blocking.
    pub fn is_nowait(&self) -> bool {
        self.has(bindings::IOCB_NOWAIT as u32)
    }

    /// Whether the task waits for it: if not, it may return `EIOCBQUEUED` and complete it later.
    pub fn is_sync(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.iocb).ki_complete.is_none() }
    }

    /// Reads through the page cache.
    ///
    /// Errors as the address space operations give them; a read that got some bytes returns these.
    ///
    /// C: `filemap_read()`.
    pub fn filemap_read(&mut self, to: &mut IovIterDest<'_>) -> Result<usize> {
        // SAFETY: Both are valid and ours.
        count(unsafe { bindings::filemap_read(self.iocb, to.as_raw(), 0) })
    }

    /// Checks a write before it begins, and moves the position to the end of the file when it appends: how many bytes may be
    /// written, to which `from` is cut.
    ///
    /// To be called with the inode locked. Errors: `EFBIG`, `EINVAL`, `ETXTBSY`, and `SIGXFSZ` is sent where it should.
    ///
    /// C: `generic_write_checks()`.
    pub fn write_checks(&mut self, from: &mut IovIterSource<'_>) -> Result<usize> {
        // SAFETY: Both are valid and ours.
        count(unsafe { bindings::generic_write_checks(self.iocb, from.as_raw()) })
    }

    /// The file is about to be modified: drops set-id bits and capabilities where that is due, and updates times.
    ///
    /// May sleep; to be called with the inode locked.
    ///
    /// C: `kiocb_modified()`.
    pub fn modified(&mut self) -> Result {
        // SAFETY: Valid and ours.
        to_result(unsafe { bindings::kiocb_modified(self.iocb) })
    }

    /// Ends a write of `bytes` up to the position: what was opened `O_SYNC` or `O_DSYNC` is made to reach stable storage.
    ///
    /// May sleep; to be called with the inode not locked.
    ///
    /// C: `generic_write_sync()`.
    pub fn write_sync(&mut self, bytes: usize) -> Result<usize> {
        // SAFETY: Valid and ours.
        count(unsafe { bindings::generic_write_sync(self.iocb, isize::try_from(bytes)?) })
    }

    /// Whether the write appends, wherever the position is.
    pub fn is_append(&self) -> bool {
        self.has(bindings::IOCB_APPEND as u32)
    }

    /// Notes that the file has been accessed.
    pub fn accessed(&self) {
        // SAFETY: The file is valid by the type invariant.
        unsafe {
            let file = (*self.iocb).ki_filp;
            if (*file).f_flags & bindings::O_NOATIME == 0 {
                bindings::touch_atime(&raw const (*file).__bindgen_anon_1.f_path);
            }
        }
    }
}

/// A C function's count of bytes, or its error.
pub(super) fn count(result: isize) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::from_errno(result as i32))
}
