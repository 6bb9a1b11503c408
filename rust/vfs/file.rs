// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

mod directory;
mod ioctl;
mod kiocb;
mod lock;
mod operations;

pub(crate) use directory::vtable as directory_vtable;
pub use directory::{
    DirEmitter,
    DirectoryOperations, //
};
pub use ioctl::IoctlRequest;
pub use kiocb::{
    Kiocb,
    QueuedKiocb, //
};
pub use lock::{
    owner_of_process,
    HeldLock,
    LockKind,
    LockOutcome,
    LockRequest, //
};
pub(crate) use operations::vtable;
pub use operations::{
    FallocateMode,
    Mapping,
    Operations,
    Splice,
    Whence, //
};

use crate::{
    dentry::Dentry,
    filesystem::FileSystem,
    inode::{
        Inode,
        InodeRef, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_result,
        to_result,
        Error, //
    },
    ffi::c_int,
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::{
        ForeignOwnable,
        Opaque, //
    },
};
use kernel_ext::bindings;

/// What an open file holds of the filesystem's.
pub(crate) type Borrowed<'a, T> = <<T as FileSystem>::FileData as ForeignOwnable>::Borrowed<'a>;

/// An open file or directory of the filesystem `T`.
///
/// # Invariants
///
/// The file is opened and not released yet: `private_data` is a [`FileSystem::FileData`], given by
/// [`ForeignOwnable::into_foreign`]. Somebody holds a reference to it.
#[repr(transparent)]
pub struct File<T: FileSystem>(Opaque<bindings::file>, PhantomData<T>);

// SAFETY: Nothing that `fdget_pos()` protects can be reached; `FileData` is `Send + Sync`.
unsafe impl<T: FileSystem> Send for File<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for File<T> {}

// SAFETY: `get_file()` and `fput()` count the references.
unsafe impl<T: FileSystem> AlwaysRefCounted for File<T> {
    fn inc_ref(&self) {
        // SAFETY: There is a reference by the type invariant.
        unsafe { bindings::get_file(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::fput(obj.as_ptr().cast()) };
    }
}

impl<T: FileSystem> File<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::file) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    /// The file if it is one of `inode`; [`None`] otherwise, or without a file.
    ///
    /// # Safety
    ///
    /// `ptr` is null or a valid open file for the duration of `'a`; `inode` is a regular file.
    pub(crate) unsafe fn of_inode<'a>(
        ptr: *mut bindings::file,
        inode: &Inode<T>,
    ) -> Option<&'a Self> {
        // SAFETY: As the caller says. An open file of a regular file of `T` has the operations of
        // `T`, whose `open` meets the type invariants.
        unsafe { (!ptr.is_null() && (*ptr).f_inode == inode.as_raw()).then(|| Self::from_raw(ptr)) }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::file {
        self.0.get()
    }

    /// The filesystem's data of this open file.
    pub fn data(&self) -> Borrowed<'_, T> {
        // SAFETY: Valid by the type invariant, until the file is released.
        unsafe { T::FileData::borrow((*self.as_raw()).private_data) }
    }

    /// The inode.
    pub fn inode(&self) -> &Inode<T> {
        // SAFETY: Set when the file was opened; the file holds a reference.
        unsafe { Inode::from_raw((*self.as_raw()).f_inode) }
    }

    /// A reference to the inode.
    pub fn hold_inode(&self) -> InodeRef<T> {
        // SAFETY: The file holds a reference to the inode, and its mount one to the superblock.
        unsafe { InodeRef::new(self.inode()) }
    }

    /// The contents are about to be modified: drops set-id bits and capabilities where that is due, and updates times.
    ///
    /// May sleep; to be called with the inode locked.
    ///
    /// C: `file_modified()`.
    pub fn modified(&self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::file_modified(self.as_raw()) })
    }

    /// The contents are about to be modified, and there are no set-id bits or capabilities to drop: updates times. [`modified`]
    /// does both.
    ///
    /// May sleep; to be called with the inode locked.
    ///
    /// C: `file_update_time()`.
    ///
    /// [`modified`]: File::modified
    pub fn update_time(&self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::file_update_time(self.as_raw()) })
    }

    /// The name that it has been opened by.
    pub fn dentry(&self) -> &Dentry<T> {
        // SAFETY: Set when the file was opened; the file holds a reference.
        unsafe { Dentry::from_raw((*self.as_raw()).__bindgen_anon_1.f_path.dentry) }
    }

    /// The open flags (`O_*`), without those that act only when opening.
    ///
    /// `O_APPEND`, `O_DIRECT` and `O_NONBLOCK` can be changed by `fcntl(2)`.
    pub fn flags(&self) -> u32 {
        // SAFETY: A racing change gives the old or the new value.
        unsafe { (&raw const (*self.as_raw()).f_flags).read_volatile() }
    }
}

/// A file that is being opened.
///
/// # Invariants
///
/// The file is valid, is being opened by the current task, and nobody else uses it.
#[repr(transparent)]
pub struct NewFile<T: FileSystem>(Opaque<bindings::file>, PhantomData<T>);

impl<T: FileSystem> NewFile<T> {
    fn as_raw(&self) -> *mut bindings::file {
        self.0.get()
    }

    /// The open flags (`O_*`): all of them, also those that the VFS has dealt with, as `O_CREAT`.
    pub fn flags(&self) -> u32 {
        // SAFETY: Ours by the type invariant.
        unsafe { (*self.as_raw()).f_flags }
    }

    /// The inode.
    pub fn inode(&self) -> &Inode<T> {
        // SAFETY: Set before `open`; the file holds a reference.
        unsafe { Inode::from_raw((*self.as_raw()).f_inode) }
    }

    /// The name that it is opened by.
    pub fn dentry(&self) -> &Dentry<T> {
        // SAFETY: Set before `open`; the file holds a reference.
        unsafe { Dentry::from_raw((*self.as_raw()).__bindgen_anon_1.f_path.dentry) }
    }

    fn set_mode(&mut self, mode: u32) {
        // SAFETY: Ours by the type invariant.
        unsafe { (*self.as_raw()).f_mode |= mode };
    }

    /// `O_DIRECT` can be asked for. Without it, the VFS refuses it with `EINVAL`.
    pub fn set_can_direct(&mut self) {
        self.set_mode(bindings::FMODE_CAN_ODIRECT);
    }

    /// Accesses that must not block (`RWF_NOWAIT`, io_uring) can be asked for.
    pub fn set_nowait(&mut self) {
        self.set_mode(bindings::FMODE_NOWAIT);
    }

    /// It has a position, but cannot seek.
    pub fn set_nonseekable(&mut self) {
        // SAFETY: Ours by the type invariant; always succeeds.
        unsafe { bindings::nonseekable_open((*self.as_raw()).f_inode, self.as_raw()) };
    }

    /// It has no position at all.
    pub fn set_stream(&mut self) {
        // SAFETY: Ours by the type invariant; always succeeds.
        unsafe { bindings::stream_open((*self.as_raw()).f_inode, self.as_raw()) };
    }
}

/// Opens a file with `open`, and keeps what that returns.
///
/// # Safety
///
/// Inode and file are those of an `open` callback, of a filesystem `T`.
unsafe fn open<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
    open: fn(&Inode<T>, &mut NewFile<T>) -> Result<T::FileData>,
) -> c_int {
    from_result(|| {
        // SAFETY: As the caller says.
        let (inode, new) = unsafe {
            to_result(bindings::generic_file_open(inode, file))?;
            (Inode::from_raw(inode), &mut *file.cast::<NewFile<T>>())
        };
        let data = open(inode, new)?;
        // SAFETY: The field is left to the filesystem.
        // INVARIANT: `File` requires this.
        unsafe { (*file).private_data = data.into_foreign() };
        Ok(0)
    })
}

/// Closes a file with `release`, which gets what `open` kept.
///
/// # Safety
///
/// Inode and file are those of a `release` callback, of a filesystem `T`.
unsafe fn release<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
    release: fn(&Inode<T>, &Released<'_, T>, T::FileData),
) -> c_int {
    // SAFETY: As the caller says: set by `open`, used by nobody any more, and taken once.
    let (inode, data) = unsafe {
        let data = T::FileData::from_foreign((*file).private_data);
        (Inode::from_raw(inode), data)
    };
    release(inode, &Released(file, PhantomData), data);
    0
}

/// A file whose last reference is gone.
///
/// # Invariants
///
/// The file is valid for `'a`.
pub struct Released<'a, T: FileSystem>(*mut bindings::file, PhantomData<&'a File<T>>);

impl<T: FileSystem> Released<'_, T> {
    /// The name that it was opened by. The file's reference to it goes next.
    pub fn dentry(&self) -> &Dentry<T> {
        // SAFETY: Valid by the type invariant; the file holds a reference until it has been released.
        unsafe { Dentry::from_raw((*self.0).__bindgen_anon_1.f_path.dentry) }
    }

    /// A reference to the inode.
    pub fn hold_inode(&self) -> InodeRef<T> {
        // SAFETY: The file holds a reference to the inode, and its mount one to the superblock, until it has been released.
        unsafe { InodeRef::new(Inode::from_raw((*self.0).f_inode)) }
    }

    /// The open flags (`O_*`).
    pub fn flags(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.0).f_flags }
    }

    /// What [`LockRequest::owner`] was for locks that belong to this open file.
    pub fn lock_owner(&self) -> usize {
        self.0.addr()
    }
}

/// Errors that a seek reports.
fn position(result: i64) -> Result<i64> {
    match i32::try_from(result) {
        Ok(error) if error < 0 => Err(Error::from_errno(error)),
        _ => Ok(result),
    }
}
