// SPDX-License-Identifier: GPL-2.0

//! Locks of files: those of `fcntl(2)`, which POSIX defines, and those of `flock(2)`.
//!
//! A filesystem may keep them elsewhere, or leave them to this kernel.
//!
//! C header: [`include/linux/filelock.h`](srctree/include/linux/filelock.h)

use super::File;
use crate::filesystem::FileSystem;
use core::{
    ffi::c_int,
    marker::PhantomData, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};
use kernel_ext::bindings;

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// To read: others can, too (`F_RDLCK`, `LOCK_SH`).
    Read,
    /// To write: nobody else can have one (`F_WRLCK`, `LOCK_EX`).
    Write,
    /// None: to unlock (`F_UNLCK`, `LOCK_UN`).
    Unlock,
}

/// A lock that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// What for.
    pub kind: LockKind,
    /// Its first byte.
    pub start: i64,
    /// Its last byte; `i64::MAX` for everything from `start` on.
    pub end: i64,
    /// The process that has it, as a number of the initial namespace.
    pub pid: u32,
}

/// Who the POSIX locks of the current process belong to: what [`LockRequest::owner`] is for them.
pub fn owner_of_process() -> usize {
    // SAFETY: The current task is valid, and has a table of files or null until it has ended.
    unsafe { (*kernel::current!().as_ptr()).files.addr() }
}

/// How it went with a POSIX lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// It is taken, or given back.
    Done,
    /// It is this kernel's, and somebody has it: the VFS waits until it is free.
    Deferred,
}

/// A lock that somebody wants, or wants to give back.
///
/// # Invariants
///
/// The pointers are those of a `lock` or `flock` call that has not returned.
pub struct LockRequest<'a, T: FileSystem> {
    file: *mut bindings::file,
    lock: *mut bindings::file_lock,
    _p: PhantomData<&'a mut File<T>>,
}

impl<'a, T: FileSystem> LockRequest<'a, T> {
    /// # Safety
    ///
    /// The pointers meet the type invariants during `'a`.
    pub(super) unsafe fn new(file: *mut bindings::file, lock: *mut bindings::file_lock) -> Self {
        // INVARIANT: As the caller says.
        Self {
            file,
            lock,
            _p: PhantomData,
        }
    }

    /// The file.
    pub fn file(&self) -> &'a File<T> {
        // SAFETY: Valid by the type invariant, and opened.
        unsafe { File::from_raw(self.file) }
    }

    fn core(&self) -> &bindings::file_lock_core {
        // SAFETY: Valid by the type invariant; nobody else has the request yet.
        unsafe { &(*self.lock).c }
    }

    /// What it is for.
    pub fn kind(&self) -> LockKind {
        match u32::from(self.core().flc_type) {
            bindings::F_RDLCK => LockKind::Read,
            bindings::F_WRLCK => LockKind::Write,
            _ => LockKind::Unlock,
        }
    }

    /// Its first byte; 0 for `flock(2)`.
    pub fn start(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.lock).fl_start }
    }

    /// Its last byte; `i64::MAX` for everything from the first one on, as `flock(2)` has it.
    pub fn end(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.lock).fl_end }
    }

    /// Who wants it: a kernel address, not to be shown. It is that of the open file for `flock(2)` and for
    /// [open file description locks](Self::is_of_open_file), and that of the process's table of files otherwise.
    pub fn owner(&self) -> usize {
        self.core().flc_owner.addr()
    }

    /// The process that wants it, as a number of the initial namespace; 0 if it would belong to the open file.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.core().flc_pid).unwrap_or(0)
    }

    /// Whether it belongs to the open file and not to a process (`F_OFD_SETLK`).
    pub fn is_of_open_file(&self) -> bool {
        self.core().flc_flags & bindings::FL_OFDLCK != 0
    }

    /// Whether to wait until it can be had.
    pub fn waits(&self) -> bool {
        self.core().flc_flags & bindings::FL_SLEEP != 0
    }

    /// Whether it is wanted by a server (NFS), which does not wait itself but wants to be called back.
    pub fn wants_callback(&self) -> bool {
        // SAFETY: Null, or the operations of whoever made the request.
        unsafe {
            let operations = (*self.lock).fl_lmops;
            !operations.is_null() && (*operations).lm_grant.is_some()
        }
    }

    /// Puts the answer to [`get_lock`](super::Operations::get_lock) in place of the request: what is in the way, or nothing.
    pub fn answer(&mut self, held: Option<HeldLock>) {
        // SAFETY: Valid by the type invariant, and ours to change.
        let lock = unsafe { &mut *self.lock };
        let Some(held) = held else {
            lock.c.flc_type = bindings::F_UNLCK as u8;
            return;
        };
        let kind = match held.kind {
            LockKind::Read => bindings::F_RDLCK,
            LockKind::Write => bindings::F_WRLCK,
            LockKind::Unlock => bindings::F_UNLCK,
        };
        lock.c.flc_type = kind as u8;
        lock.fl_start = held.start;
        lock.fl_end = held.end;
        // SAFETY: No requirements.
        lock.c.flc_pid = unsafe { bindings::virtiofs_helper_known_pid(held.pid as c_int) };
    }

    /// As [`get_lock`](super::Operations::get_lock), with locks of this kernel.
    ///
    /// C: `posix_test_lock()`.
    pub fn get_local(&mut self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::posix_test_lock(self.file, self.lock) };
    }

    /// As [`set_lock`](super::Operations::set_lock), with locks of this kernel.
    ///
    /// C: `posix_lock_file()`.
    pub fn set_local(&mut self) -> Result<LockOutcome> {
        // SAFETY: Valid by the type invariant.
        let done =
            unsafe { bindings::posix_lock_file(self.file, self.lock, core::ptr::null_mut()) };
        if done == bindings::FILE_LOCK_DEFERRED as c_int {
            return Ok(LockOutcome::Deferred);
        }
        to_result(done)?;
        Ok(LockOutcome::Done)
    }

    /// As [`flock`](super::Operations::flock), with locks of this kernel. Sleeps; any signal ends that with `ERESTARTSYS`.
    ///
    /// C: `locks_lock_inode_wait()`.
    pub fn flock_local(&mut self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::locks_lock_inode_wait((*self.file).f_inode, self.lock) })
    }
}
