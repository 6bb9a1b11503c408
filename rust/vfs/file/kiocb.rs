// SPDX-License-Identifier: GPL-2.0

//! Reads and writes in progress.
//!
//! A task waits for most of them. One that it does not wait for (io_submit(2), io_uring) can go on after its call has returned:
//! [`Kiocb::queue`] makes it a [`QueuedKiocb`], which whoever finishes the work completes.

use super::{
    Borrowed,
    File, //
};
use crate::filesystem::FileSystem;
use core::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_result,
        to_result,
        Error, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
};
use kernel_ext::bindings;

/// A read or write in progress.
///
/// # Invariants
///
/// The pointer is valid and used by nobody else for the duration of `'a`; the file is one of `T`.
pub struct Kiocb<'a, T: FileSystem> {
    iocb: *mut bindings::kiocb,
    call: &'a Call,
    _p: PhantomData<&'a mut File<T>>,
}

/// A call of the VFS, which learns here that its request goes on without it.
pub(super) struct Call(Cell<Option<Arc<Completion>>>);

impl Call {
    /// Carries a call out: `operate` gets what it is about.
    ///
    /// # Safety
    ///
    /// `iocb` is the request of a `read_iter` or `write_iter` call, for a file of `T` that is opened, and is not used by the caller
    /// afterwards. The value is to be returned from the call.
    pub(super) unsafe fn make<T: FileSystem>(
        iocb: *mut bindings::kiocb,
        operate: impl FnOnce(Kiocb<'_, T>) -> Result<usize>,
    ) -> isize {
        let call = Self(Cell::new(None));
        // INVARIANT: As the caller says.
        let result = operate(Kiocb {
            iocb,
            call: &call,
            _p: PhantomData,
        });
        match call.0.take() {
            // From here on the request is the queued one's alone. Where that is done already, this completes it.
            Some(queued) => {
                drop(queued);
                EIOCBQUEUED.to_errno() as isize
            }
            None => from_result(|| result.map(|count| count as isize)),
        }
    }
}

/// The duty to complete a request. It is shared by the call and by what was queued; whoever lets go last completes it, so that
/// neither finds it gone.
///
/// # Invariants
///
/// The request is valid and has a `ki_complete`, which nobody but the drop of this calls. Its call returns `EIOCBQUEUED`.
struct Completion {
    iocb: NonNull<bindings::kiocb>,
    result: Atomic<i64>,
}

// SAFETY: A request may be completed from any context.
unsafe impl Send for Completion {}
// SAFETY: Through a shared reference only the result is changed, which is atomic.
unsafe impl Sync for Completion {}

impl Drop for Completion {
    fn drop(&mut self) {
        let iocb = self.iocb.as_ptr();
        let result = self.result.load(ordering::Relaxed);
        // SAFETY: By the type invariants the request is valid until `ki_complete` was called, and that is here, once.
        unsafe {
            if let Some(complete) = (*iocb).ki_complete {
                complete(iocb, result as c_long);
            }
        }
    }
}

/// A read or write that goes on after its call has returned. Dropping it completes it with `EIO`.
///
/// # Invariants
///
/// The completion's request is one for a file of `T`, and used by nobody else as long as this lives.
pub struct QueuedKiocb<T: FileSystem>(Arc<Completion>, PhantomData<T>);

impl<T: FileSystem> QueuedKiocb<T> {
    /// The file.
    pub fn file(&self) -> &File<T> {
        // SAFETY: The request is valid, and holds a reference to the file, until it is completed: after `self` is gone.
        unsafe { File::from_raw((*self.0.iocb.as_ptr()).ki_filp) }
    }

    /// Whether what is written is to reach stable storage (`O_SYNC`, `O_DSYNC`, `RWF_DSYNC`), by [`write_sync`].
    ///
    /// [`write_sync`]: QueuedKiocb::write_sync
    pub fn is_synchronous(&self) -> bool {
        // SAFETY: Valid and ours by the type invariants.
        unsafe { (*self.0.iocb.as_ptr()).ki_flags & bindings::IOCB_DSYNC != 0 }
    }

    /// Moves the position past `bytes` that were transferred.
    pub fn advance(&mut self, bytes: usize) {
        // SAFETY: Valid and ours by the type invariants.
        unsafe {
            let pos = &raw mut (*self.0.iocb.as_ptr()).ki_pos;
            *pos = (*pos).saturating_add_unsigned(bytes as u64);
        }
    }

    /// As [`Kiocb::write_sync`]. May sleep.
    pub fn write_sync(&mut self, bytes: usize) -> Result<usize> {
        // SAFETY: Valid and ours by the type invariants.
        count(unsafe {
            bindings::generic_write_sync(self.0.iocb.as_ptr(), isize::try_from(bytes)?)
        })
    }

    /// Completes it, with how many bytes were transferred or an error. Callable from any context.
    pub fn complete(self, result: Result<usize>) {
        let result = match result {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(e) => e.to_errno().into(),
        };
        self.0.result.store(result, ordering::Relaxed);
    }
}

impl<'a, T: FileSystem> Kiocb<'a, T> {
    /// Lets it go on after its call has returned: from here on whatever the call's operation returns does not count. `EINVAL` when
    /// a task waits for it ([`is_sync`](Kiocb::is_sync)). Sleeps for memory.
    pub fn queue(self) -> Result<QueuedKiocb<T>> {
        if self.is_sync() {
            return Err(EINVAL);
        }
        // INVARIANT: A request that is not synchronous has a `ki_complete`, which is called only if `EIOCBQUEUED` is returned; and
        // that is what `Call::make` does from here on.
        let completion = Arc::new(
            Completion {
                iocb: NonNull::new(self.iocb).ok_or(EINVAL)?,
                result: Atomic::new(EIO.to_errno().into()),
            },
            GFP_KERNEL,
        )?;
        self.call.0.set(Some(completion.clone()));
        // INVARIANT: `self` had the request to itself, and ends here.
        Ok(QueuedKiocb(completion, PhantomData))
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
    /// Errors as the address space operations give them, and `EINVAL` for a DAX file; a read that got some bytes returns these.
    ///
    /// It ends at `end` in the file at the latest: what lies behind it may be zeroes from before the file was longer. `done` bytes
    /// have been read by this call before, and count as read by this one.
    ///
    /// C: `filemap_read()`.
    pub fn filemap_read(
        &mut self,
        to: &mut IovIterDest<'_>,
        end: i64,
        done: usize,
    ) -> Result<usize> {
        self.file().inode().check_page_cache()?;
        let Some(left) = u64::try_from(end.saturating_sub(self.pos()))
            .ok()
            .filter(|left| *left > 0)
        else {
            return Ok(done);
        };
        let (len, already) = (to.len(), isize::try_from(done)?);
        // SAFETY: Both are valid and ours. The iterator has as much left afterwards as if it had not been cut.
        unsafe {
            bindings::iov_iter_truncate(to.as_raw(), left);
            let cut = len - to.len();
            let read = bindings::filemap_read(self.iocb, to.as_raw(), already);
            bindings::iov_iter_reexpand(to.as_raw(), to.len() + cut);
            count(read)
        }
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

    /// As [`modified`](Kiocb::modified), but only if that changes nothing: else `EAGAIN`. The inode may be locked shared.
    pub fn modified_nothing(&mut self) -> Result {
        // SAFETY: Valid and ours; the flag is put back.
        to_result(unsafe {
            let flags = (*self.iocb).ki_flags;
            (*self.iocb).ki_flags |= bindings::IOCB_NOWAIT;
            let result = bindings::kiocb_modified(self.iocb);
            (*self.iocb).ki_flags = flags;
            result
        })
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
#[inline]
pub(super) fn count(result: isize) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::from_errno(result as i32))
}
