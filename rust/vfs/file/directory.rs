// SPDX-License-Identifier: GPL-2.0

//! File operations of directories.

use super::{
    ioctl::{
        self,
        IoctlRequest, //
    },
    position,
    File,
    NewFile,
    Released,
    Whence, //
};
use crate::{
    attr::FileType,
    filesystem::FileSystem,
    inode::Inode, //
};
use core::marker::PhantomData;
use kernel::{
    build_error,
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_int,
        c_uint, //
    },
    module::this_module,
    prelude::*, //
};
use kernel_ext::bindings;

/// Takes the entries of a directory, one after the other.
///
/// # Invariants
///
/// The pointers are those of an `iterate_shared` call that has not returned.
pub struct DirEmitter<'a, T: FileSystem> {
    file: *mut bindings::file,
    context: *mut bindings::dir_context,
    _p: PhantomData<&'a mut File<T>>,
}

impl<'a, T: FileSystem> DirEmitter<'a, T> {
    /// The open directory.
    pub fn file(&self) -> &'a File<T> {
        // SAFETY: Valid by the type invariant, and opened.
        unsafe { File::from_raw(self.file) }
    }

    /// The position of the entry that is wanted next. It starts at 0, and is then whatever the
    /// filesystem has given, or a seek.
    pub fn pos(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.context).pos }
    }

    /// Moves on to another position.
    pub fn set_pos(&mut self, pos: i64) {
        // SAFETY: Valid by the type invariant, and ours.
        unsafe { (*self.context).pos = pos };
    }

    /// How many bytes the reader has room for, if that is known.
    pub fn room(&self) -> Option<usize> {
        // SAFETY: Valid by the type invariant.
        let count = unsafe { (*self.context).count };
        usize::try_from(count).ok().filter(|&count| count != 0)
    }

    /// Gives an entry to the reader, and moves on to `next`. If the reader takes no more, this is
    /// `false`, and the position stays.
    ///
    /// `file_type` is [`None`] when it is not known.
    pub fn emit(&mut self, name: &[u8], ino: u64, file_type: Option<FileType>, next: i64) -> bool {
        let Ok(len) = c_int::try_from(name.len()) else {
            return false;
        };
        let dirent_type = file_type.map_or(bindings::DT_UNKNOWN, FileType::dirent_type);
        // SAFETY: The context is valid by the type invariant; the name has `len` bytes.
        let taken = unsafe {
            bindings::dir_emit(self.context, name.as_ptr().cast(), len, ino, dirent_type)
        };
        if taken {
            self.set_pos(next);
        }
        taken
    }
}

/// What the VFS asks of open directories.
#[vtable]
pub trait DirectoryOperations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Opens a directory. The data is kept until [`release`](DirectoryOperations::release).
    ///
    /// May sleep; no lock is held.
    fn open(
        inode: &Inode<Self::FileSystem>,
        file: &mut NewFile<Self::FileSystem>,
    ) -> Result<<Self::FileSystem as FileSystem>::FileData>;

    /// The last reference to an open directory is gone. May sleep.
    fn release(
        _inode: &Inode<Self::FileSystem>,
        _file: &Released<'_, Self::FileSystem>,
        data: <Self::FileSystem as FileSystem>::FileData,
    ) {
        drop(data);
    }

    /// Gives entries from [`DirEmitter::pos`] on, until there are no more or none is taken.
    ///
    /// May sleep; `i_rwsem` of the directory is held shared, and the position is locked: one call at
    /// a time for an open directory.
    fn iterate(
        file: &File<Self::FileSystem>,
        emitter: &mut DirEmitter<'_, Self::FileSystem>,
    ) -> Result;

    /// Moves the position. Without it, any position can be sought to, and is given to
    /// [`iterate`](DirectoryOperations::iterate) as it is.
    fn llseek(_file: &File<Self::FileSystem>, _offset: i64, _whence: Whence) -> Result<i64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `ioctl(2)`, but for what the VFS does itself; the result is that of the system call.
    ///
    /// May sleep. `ENOTTY` when there is no such call, as without this.
    fn ioctl(_file: &File<Self::FileSystem>, _request: &IoctlRequest) -> Result<i32> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Has changes of the directory reach stable storage.
    ///
    /// May sleep. Without it, `EINVAL`.
    fn fsync(_file: &File<Self::FileSystem>, _datasync: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

impl<T: FileSystem> File<T> {
    /// Moves the position of an open directory, up to `max`; `eof` is where its end is.
    ///
    /// C: `generic_file_llseek_size()`.
    pub fn seek_within(&self, offset: i64, whence: Whence, max: i64, eof: i64) -> Result<i64> {
        // SAFETY: Valid by the type invariant; the VFS serialises seeks where it matters.
        position(unsafe {
            bindings::generic_file_llseek_size(
                self.as_raw(),
                offset,
                whence.raw() as c_int,
                max,
                eof,
            )
        })
    }
}

struct Callbacks<F>(PhantomData<F>);

impl<F: DirectoryOperations> Callbacks<F> {
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
    /// Called by the VFS, with a file that `open` opened, and a context.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        context: *mut bindings::dir_context,
    ) -> c_int {
        // INVARIANT: As the caller says.
        let mut emitter = DirEmitter {
            file,
            context,
            _p: PhantomData,
        };
        from_result(|| {
            // SAFETY: As the caller says.
            F::iterate(unsafe { File::from_raw(file) }, &mut emitter)?;
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
        let file = unsafe { File::from_raw(file) };
        let result = if F::HAS_LLSEEK {
            F::llseek(file, offset, whence)
        } else {
            file.seek_within(offset, whence, i64::MAX, 0)
        };
        match result {
            Ok(pos) => pos,
            Err(e) => e.to_errno().into(),
        }
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
    /// Called by the VFS, with a file that `open` opened.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: bindings::loff_t,
        _end: bindings::loff_t,
        datasync: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            F::fsync(unsafe { File::from_raw(file) }, datasync != 0)?;
            Ok(0)
        })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<F::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        iterate_shared: Some(Self::iterate_shared),
        llseek: Some(Self::llseek),
        read: Some(bindings::generic_read_dir),
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
        fsync: if F::HAS_FSYNC {
            Some(Self::fsync)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// The table of directories.
pub(crate) fn vtable<F: DirectoryOperations>() -> *const bindings::file_operations {
    &Callbacks::<F>::VTABLE
}
