// SPDX-License-Identifier: GPL-2.0

//! File operations of regular files.

use super::{
    ioctl::{
        self,
        IoctlRequest, //
    },
    kiocb::{
        count,
        Call, //
    },
    lock::{
        LockOutcome,
        LockRequest, //
    },
    position,
    File,
    Kiocb,
    NewFile,
    Released, //
};
use crate::{
    filesystem::FileSystem,
    inode::Inode,
    mapping::MAPPED,
    unmap, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    build_error,
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_int,
        c_long,
        c_uint,
        c_void, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    module::this_module,
    prelude::*, //
};
use kernel_ext::bindings;

/// What a seek counts from, or looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// From the file's start.
    Set,
    /// From the present position.
    Current,
    /// From the file's end.
    End,
    /// For data, from a position on.
    Data,
    /// For a hole, from a position on.
    Hole,
}

impl Whence {
    pub(super) fn from_raw(whence: c_int) -> Option<Self> {
        Some(match u32::try_from(whence).ok()? {
            bindings::SEEK_SET => Self::Set,
            bindings::SEEK_CUR => Self::Current,
            bindings::SEEK_END => Self::End,
            bindings::SEEK_DATA => Self::Data,
            bindings::SEEK_HOLE => Self::Hole,
            _ => return None,
        })
    }

    /// As `lseek(2)` has it.
    pub const fn raw(self) -> u32 {
        match self {
            Self::Set => bindings::SEEK_SET,
            Self::Current => bindings::SEEK_CUR,
            Self::End => bindings::SEEK_END,
            Self::Data => bindings::SEEK_DATA,
            Self::Hole => bindings::SEEK_HOLE,
        }
    }
}

impl<T: FileSystem> File<T> {
    /// Seeks by the inode's size; everything before it is data.
    ///
    /// Errors: `EINVAL` for a position that no file can have, `ENXIO` for data beyond the end.
    ///
    /// C: `generic_file_llseek()`.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<i64> {
        // SAFETY: Valid by the type invariant; the VFS serialises seeks where it matters.
        position(unsafe {
            bindings::generic_file_llseek(self.as_raw(), offset, whence.raw() as c_int)
        })
    }

    /// Moves the position to one that has been found, by [`Whence::Data`] or [`Whence::Hole`].
    ///
    /// Errors: `EINVAL` for a position that no file can have.
    ///
    /// C: `vfs_setpos()`.
    pub fn set_position(&self, pos: i64) -> Result<i64> {
        // SAFETY: Valid by the type invariant; the VFS serialises seeks where it matters.
        position(unsafe {
            let max = (*self.inode().super_block().as_raw()).s_maxbytes;
            bindings::vfs_setpos(self.as_raw(), pos, max)
        })
    }
}

/// What `fallocate(2)` is to do (`FALLOC_FL_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallocateMode(u32);

impl FallocateMode {
    /// As the system call has it.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The file's size stays.
    pub const fn keep_size(self) -> bool {
        self.0 & bindings::FALLOC_FL_KEEP_SIZE != 0
    }

    /// What was there is zero afterwards: a hole, or written zeroes.
    pub const fn zeroes(self) -> bool {
        self.0 & (bindings::FALLOC_FL_PUNCH_HOLE | bindings::FALLOC_FL_ZERO_RANGE) != 0
    }

    /// Whether it is one of the modes that leave the positions of what follows as they are.
    pub const fn is_in_place(self) -> bool {
        let known = bindings::FALLOC_FL_KEEP_SIZE
            | bindings::FALLOC_FL_PUNCH_HOLE
            | bindings::FALLOC_FL_ZERO_RANGE;
        self.0 & !known == 0
    }
}

impl<T: FileSystem> File<T> {
    /// Writes dirty pages from byte `start` to byte `end` back, and waits for it. Errors that this open file has not reported yet,
    /// each once.
    ///
    /// May sleep; a fatal signal ends the wait with `EINTR`.
    ///
    /// C: `file_write_and_wait_range()`, whose wait no signal ends.
    pub fn write_and_wait_range(&self, start: i64, end: i64) -> Result {
        let written = self.inode().write_out(start, end);
        if written == Err(EINTR) {
            return written;
        }
        // SAFETY: Valid by the type invariant.
        written.and(to_result(unsafe {
            bindings::file_check_and_advance_wb_err(self.as_raw())
        }))
    }
}

/// A move of a file's contents into a pipe.
///
/// # Invariants
///
/// The pointers are those of a `splice_read` call that has not returned.
pub struct Splice<'a, T: FileSystem> {
    file: *mut bindings::file,
    pos: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
    _p: PhantomData<&'a mut File<T>>,
}

impl<'a, T: FileSystem> Splice<'a, T> {
    /// The file.
    pub fn file(&self) -> &'a File<T> {
        // SAFETY: Valid by the type invariant, and opened.
        unsafe { File::from_raw(self.file) }
    }

    /// Where it begins, and where it ends if it moves all that it is to, in bytes.
    pub fn range(&self) -> Range<i64> {
        // SAFETY: The position is valid, by the type invariant.
        let pos = unsafe { *self.pos };
        pos..pos.saturating_add_unsigned(self.len as u64)
    }

    /// Moves pages of the page cache into the pipe, up to `end` in the file: what lies behind it may be zeroes from before the file
    /// was longer. `EINVAL` for a DAX file.
    ///
    /// C: `filemap_splice_read()`; the VFS has DAX files copied.
    pub fn from_page_cache(self, end: i64) -> Result<usize> {
        self.file().inode().check_page_cache()?;
        let left = usize::try_from(end.saturating_sub(self.range().start)).unwrap_or(0);
        let len = self.len.min(left);
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: The arguments of the call, by the type invariant, of which the length is no more.
        count(unsafe {
            bindings::filemap_splice_read(self.file, self.pos, self.pipe, len, self.flags)
        })
    }

    /// Reads into new pages with [`Operations::read_iter`], and moves them into the pipe.
    ///
    /// C: `copy_splice_read()`.
    pub fn by_copy(self) -> Result<usize> {
        // SAFETY: The arguments of the call, by the type invariant.
        count(unsafe {
            bindings::copy_splice_read(self.file, self.pos, self.pipe, self.len, self.flags)
        })
    }
}

/// A mapping of a file into memory that is being made.
///
/// # Invariants
///
/// The pointer is that of a `mmap_prepare` call that has not returned.
pub struct Mapping<'a, T: FileSystem> {
    desc: *mut bindings::vm_area_desc,
    _p: PhantomData<&'a mut File<T>>,
}

impl<'a, T: FileSystem> Mapping<'a, T> {
    pub(crate) fn as_raw(&mut self) -> *mut bindings::vm_area_desc {
        self.desc
    }

    /// The file.
    pub fn file(&self) -> &'a File<T> {
        // SAFETY: Valid by the type invariant, and opened.
        unsafe { File::from_raw((*self.desc).file) }
    }

    /// Whether it shows the file to several processes, as opposed to a private copy.
    pub fn is_shared(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::virtiofs_helper_is_mayshare(self.desc) }
    }

    /// Maps the page cache. [`Inode::lock_invalidate`] keeps clean pages from being stored to. `M` learns of the end of mappings
    /// that can be stored through. `EINVAL` for a DAX file.
    ///
    /// C: `generic_file_mmap_prepare()`.
    pub fn map<M: unmap::Operations<FileSystem = T>>(&mut self) -> Result {
        self.file().inode().check_page_cache()?;
        let operations = match self.is_shared() {
            true => &unmap::Shared::<M>::VTABLE,
            false => &MAPPED,
        };
        // SAFETY: Valid by the type invariant; the operations are for files of this crate and of `T`, and static.
        unsafe {
            to_result(bindings::generic_file_mmap_prepare(self.desc))?;
            (*self.desc).vm_ops = operations;
        }
        Ok(())
    }
}

/// What the VFS asks of open regular files.
#[vtable]
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Whether leases (`F_SETLEASE`) can be had; without, `EINVAL`.
    const LEASES: bool = false;

    /// Opens a file. The data is kept until [`release`](Operations::release).
    ///
    /// May sleep; no lock is held.
    fn open(
        inode: &Inode<Self::FileSystem>,
        file: &mut NewFile<Self::FileSystem>,
    ) -> Result<<Self::FileSystem as FileSystem>::FileData>;

    /// The last reference to an open file is gone.
    ///
    /// May sleep; runs when the last user's task returns to user space, or later. Its errors have
    /// nowhere to go.
    fn release(
        _inode: &Inode<Self::FileSystem>,
        _file: &Released<'_, Self::FileSystem>,
        data: <Self::FileSystem as FileSystem>::FileData,
    ) {
        drop(data);
    }

    /// A file descriptor is closed; there may be others for the same open file.
    ///
    /// `owner` tells the closing process from others, as the owner of its POSIX locks; it is a kernel
    /// address. An error is that of `close(2)`. May sleep.
    fn flush(_file: &File<Self::FileSystem>, _owner: usize) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `ioctl(2)`, but for what the VFS does itself; the result is that of the system call.
    ///
    /// May sleep. `ENOTTY` when there is no such call, as without this.
    fn ioctl(_file: &File<Self::FileSystem>, _request: &IoctlRequest) -> Result<i32> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells by [`LockRequest::answer`] who has a POSIX lock that is in the way of this one (`F_GETLK`).
    ///
    /// May sleep. Without [`set_lock`](Operations::set_lock), locks are those of this kernel.
    fn get_lock(_request: &mut LockRequest<'_, Self::FileSystem>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Takes a POSIX lock, or gives it back (`F_SETLK`, `F_SETLKW`).
    ///
    /// May sleep. Errors: `EAGAIN` when somebody has it and the request does not [wait](LockRequest::waits); `ERESTARTSYS`
    /// when a signal ends the wait. Unless the lock is this kernel's, [`flush`](Operations::flush) and
    /// [`release`](Operations::release) give it back.
    fn set_lock(_request: &mut LockRequest<'_, Self::FileSystem>) -> Result<LockOutcome> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Takes a lock of `flock(2)`, or gives it back. As [`set_lock`](Operations::set_lock).
    fn flock(_request: &mut LockRequest<'_, Self::FileSystem>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Has the bytes from `start` to `end`, and the metadata, reach stable storage; with `datasync`
    /// only the metadata that is needed to read them.
    ///
    /// May sleep. Without it, `EINVAL`.
    fn fsync(_file: &File<Self::FileSystem>, _start: i64, _end: i64, _datasync: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Moves the position, by [`File::seek`] or [`File::set_position`], and returns the new one.
    ///
    /// May sleep; the position is locked when others can use it. Without it, as [`File::seek`].
    fn llseek(_file: &File<Self::FileSystem>, _offset: i64, _whence: Whence) -> Result<i64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads from the position on, which is moved, into `to`.
    ///
    /// May sleep unless [`Kiocb::is_nowait`]; no lock is held. 0 is the end of the file. May go on after it has returned, see
    /// [`Kiocb::queue`].
    fn read_iter(iocb: Kiocb<'_, Self::FileSystem>, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Writes from `from`, to the position, which is moved. May write less.
    ///
    /// May sleep unless [`Kiocb::is_nowait`]; no lock is held but that against freezing. May go on after it has returned, see
    /// [`Kiocb::queue`]. Without it, the file cannot be written.
    fn write_iter(
        _iocb: Kiocb<'_, Self::FileSystem>,
        _from: &mut IovIterSource<'_>,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Allocates, punches or zeroes `len` bytes from `offset` on; `mode` is that of `fallocate(2)`.
    ///
    /// May sleep; no lock is held but that against freezing. Without it, `EOPNOTSUPP`.
    fn fallocate(
        _file: &File<Self::FileSystem>,
        _mode: FallocateMode,
        _offset: i64,
        _len: i64,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Copies up to `len` bytes between two files of one superblock; may copy less.
    ///
    /// May sleep; no lock is held but that against freezing. With `EOPNOTSUPP`, and without it, the VFS copies through memory.
    fn copy_file_range(
        _from: &File<Self::FileSystem>,
        _from_pos: i64,
        _to: &File<Self::FileSystem>,
        _to_pos: i64,
        _len: usize,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Moves contents into a pipe.
    ///
    /// May sleep; the pipe is locked. Without it, [`Splice::by_copy`].
    fn splice_read(_splice: Splice<'_, Self::FileSystem>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Maps the file into memory.
    ///
    /// May sleep; the address space of the task is locked. Without it, `ENODEV`.
    fn mmap(
        _file: &File<Self::FileSystem>,
        _mapping: &mut Mapping<'_, Self::FileSystem>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

struct Callbacks<F>(PhantomData<F>);

impl<F: Operations> Callbacks<F> {
    /// # Safety
    ///
    /// Called by the VFS, with an inode of `F::FileSystem` and a file that is being opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: As the caller says.
        unsafe { super::open::<F::FileSystem>(inode, file, F::open) }
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode of `F::FileSystem` and a file that `open` opened.
    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: As the caller says.
        unsafe { super::release::<F::FileSystem>(inode, file, F::release) }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened.
    unsafe extern "C" fn flush(file: *mut bindings::file, owner: *mut c_void) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            F::flush(unsafe { File::from_raw(file) }, owner.addr())?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: usize) -> isize {
        // SAFETY: As the caller says.
        unsafe { ioctl::answer(file, IoctlRequest::new(cmd, arg, false), F::ioctl) }
    }

    /// # Safety
    ///
    /// As [`ioctl`](Self::ioctl), by a 32-bit program.
    unsafe extern "C" fn compat_ioctl(file: *mut bindings::file, cmd: c_uint, arg: usize) -> isize {
        // SAFETY: As the caller says.
        unsafe { ioctl::answer(file, IoctlRequest::new(cmd, arg, true), F::ioctl) }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened, and a POSIX lock that is the caller's alone.
    unsafe extern "C" fn lock(
        file: *mut bindings::file,
        cmd: c_int,
        lock: *mut kernel::bindings::file_lock,
    ) -> c_int {
        // SAFETY: As the caller says. CAST: `kernel` has the type without its fields.
        let mut request = unsafe { LockRequest::new(file, lock.cast()) };
        from_result(|| match cmd as u32 {
            bindings::F_GETLK => F::get_lock(&mut request).map(|()| 0),
            // Of what nobody waits for any more.
            bindings::F_CANCELLK => Ok(0),
            _ => Ok(match F::set_lock(&mut request)? {
                LockOutcome::Done => 0,
                LockOutcome::Deferred => bindings::FILE_LOCK_DEFERRED as c_int,
            }),
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened, and a lock of `flock(2)` that is the caller's alone.
    unsafe extern "C" fn flock(
        file: *mut bindings::file,
        _cmd: c_int,
        lock: *mut kernel::bindings::file_lock,
    ) -> c_int {
        // SAFETY: As the caller says. CAST: `kernel` has the type without its fields.
        let mut request = unsafe { LockRequest::new(file, lock.cast()) };
        from_result(|| F::flock(&mut request).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: bindings::loff_t,
        end: bindings::loff_t,
        datasync: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            F::fsync(unsafe { File::from_raw(file) }, start, end, datasync != 0)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        let Some(whence) = Whence::from_raw(whence) else {
            return EINVAL.to_errno().into();
        };
        // SAFETY: As the caller says.
        match F::llseek(unsafe { File::from_raw(file) }, offset, whence) {
            Ok(pos) => pos,
            Err(e) => e.to_errno().into(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a request for a file that `open` opened, and a destination.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says.
        unsafe {
            let to = IovIterDest::from_raw(to);
            Call::make(iocb, |iocb| F::read_iter(iocb, to))
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a request for a file that `open` opened, and a source.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        from: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says.
        unsafe {
            let from = IovIterSource::from_raw(from);
            Call::make(iocb, |iocb| F::write_iter(iocb, from))
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened for writing.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: c_int,
        offset: bindings::loff_t,
        len: bindings::loff_t,
    ) -> c_long {
        from_result(|| {
            // SAFETY: As the caller says.
            let file = unsafe { File::from_raw(file) };
            F::fallocate(file, FallocateMode(mode as u32), offset, len)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with two files that are opened and have this operation.
    unsafe extern "C" fn copy_file_range(
        from: *mut bindings::file,
        from_pos: bindings::loff_t,
        to: *mut bindings::file,
        to_pos: bindings::loff_t,
        len: usize,
        _flags: c_uint,
    ) -> isize {
        from_result(|| {
            // SAFETY: As the caller says: the files have operations of `T`, whose `open` has opened them.
            let (source, target) = unsafe {
                (
                    File::<F::FileSystem>::from_raw(from),
                    File::<F::FileSystem>::from_raw(to),
                )
            };
            let same = core::ptr::eq(
                source.inode().super_block(),
                target.inode().super_block(), //
            );
            let copied = if same {
                F::copy_file_range(source, from_pos, target, to_pos, len)
            } else {
                Err(EOPNOTSUPP)
            };
            match copied {
                Err(e) if e == EOPNOTSUPP => {
                    // SAFETY: The files are valid, as the caller says.
                    let count = unsafe {
                        bindings::splice_copy_file_range(from, from_pos, to, to_pos, len)
                    };
                    Ok(count)
                }
                other => other.map(|count| count as isize),
            }
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that `open` opened, and a pipe that is locked.
    unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        pos: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        len: usize,
        flags: c_uint,
    ) -> isize {
        // INVARIANT: As the caller says.
        let splice = Splice {
            file,
            pos,
            pipe,
            len,
            flags,
            _p: PhantomData,
        };
        from_result(|| F::splice_read(splice).map(|count| count as isize))
    }

    /// # Safety
    ///
    /// Called by the VFS, with a description whose file `open` opened.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // INVARIANT: As the caller says.
        let mut mapping = Mapping {
            desc,
            _p: PhantomData,
        };
        from_result(|| {
            // SAFETY: As the caller says.
            F::mmap(unsafe { File::from_raw((*desc).file) }, &mut mapping)?;
            Ok(0)
        })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<F::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        flush: if F::HAS_FLUSH {
            Some(Self::flush)
        } else {
            None
        },
        unlocked_ioctl: if F::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        compat_ioctl: if F::HAS_IOCTL {
            Some(Self::compat_ioctl)
        } else {
            None
        },
        lock: if F::HAS_SET_LOCK {
            Some(Self::lock)
        } else {
            None
        },
        flock: if F::HAS_FLOCK {
            Some(Self::flock)
        } else {
            None
        },
        fsync: if F::HAS_FSYNC {
            Some(Self::fsync)
        } else {
            None
        },
        llseek: if F::HAS_LLSEEK {
            Some(Self::llseek)
        } else {
            Some(bindings::generic_file_llseek)
        },
        read_iter: Some(Self::read_iter),
        write_iter: if F::HAS_WRITE_ITER {
            Some(Self::write_iter)
        } else {
            None
        },
        splice_write: if F::HAS_WRITE_ITER {
            Some(bindings::iter_file_splice_write)
        } else {
            None
        },
        copy_file_range: if F::HAS_COPY_FILE_RANGE {
            Some(Self::copy_file_range)
        } else {
            None
        },
        fallocate: if F::HAS_FALLOCATE {
            Some(Self::fallocate)
        } else {
            None
        },
        splice_read: if F::HAS_SPLICE_READ {
            Some(Self::splice_read)
        } else {
            Some(bindings::copy_splice_read)
        },
        mmap_prepare: if F::HAS_MMAP {
            Some(Self::mmap_prepare)
        } else {
            None
        },
        // At addresses at which huge pages of the file can be mapped.
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: if F::HAS_MMAP {
            Some(bindings::thp_get_unmapped_area)
        } else {
            None
        },
        setlease: if F::LEASES {
            Some(bindings::generic_setlease)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// The table of regular files.
pub(crate) fn vtable<F: Operations>() -> *const bindings::file_operations {
    &Callbacks::<F>::VTABLE
}
