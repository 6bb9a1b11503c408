// SPDX-License-Identifier: GPL-2.0

//! Counted references to inodes.

use super::Inode;
use crate::{
    filesystem::FileSystem,
    super_block::SuperBlock, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::prelude::*;
use kernel_ext::{
    bindings,
    users::Users, //
};

/// A reference to an inode, as `ihold()` takes it. Dropping the last one may sleep.
///
/// As long as there is one its superblock is not shut down: an unmount waits for it, with `s_umount` held. So it is not for keeping
/// while nothing goes on.
///
/// A `&Inode` does not become one: it may be that of a callback with an inode that nobody has a reference to any more, such as
/// [`FileSystem::write_inode`].
///
/// ```compile_fail,E0277
/// # use vfs::{inode::InodeRef, FileSystem, File, Inode};
/// fn of_file<T: FileSystem>(file: &File<T>) -> InodeRef<T> {
///     file.hold_inode()
/// }
/// fn of_inode<T: FileSystem>(inode: &Inode<T>) {
///     let kept: InodeRef<T> = inode.into(); // refused
///     kernel::sync::aref::ARef::from(inode); // refused
/// }
/// ```
///
/// # Invariants
///
/// The inode is one of a superblock of `T`, and there are a reference to it and a place among the users of the superblock, both
/// for us.
pub struct InodeRef<T: FileSystem>(NonNull<bindings::inode>, PhantomData<T>);

// SAFETY: An inode may be used, and its references given up, by any task.
unsafe impl<T: FileSystem> Send for InodeRef<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for InodeRef<T> {}

impl<T: FileSystem> InodeRef<T> {
    /// Takes over a reference to an inode.
    ///
    /// # Safety
    ///
    /// The reference is the caller's, and so is a place among the users of the inode's superblock, which is one of `T`.
    pub(crate) unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        // INVARIANT: As the caller says.
        Self(inode, PhantomData)
    }

    /// Another reference to an inode.
    ///
    /// # Safety
    ///
    /// There is a reference to the inode, whose superblock is one of `T` that has not been shut down.
    pub(crate) unsafe fn new(inode: &Inode<T>) -> Self {
        let raw = inode.as_raw();
        // The superblock is open, so that this does not fail.
        inode.super_block().users().enter();
        // SAFETY: There is a reference, as the caller says.
        unsafe { bindings::ihold(raw) };
        // INVARIANT: Both have just been taken.
        Self(NonNull::from(inode).cast(), PhantomData)
    }

    /// Lends the reference that somebody else has.
    ///
    /// # Safety
    ///
    /// As for [`new`](InodeRef::new), for as long as the result is used.
    pub(crate) unsafe fn lend(inode: NonNull<bindings::inode>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(inode, PhantomData))
    }

    /// Gives the reference to the VFS, which keeps the superblock by other means: to what belongs to `sb`. `EXDEV` when the inode
    /// does not.
    pub(crate) fn hand_over(self, sb: &SuperBlock<T>) -> Result<*mut bindings::inode> {
        if self.super_block().as_raw() != sb.as_raw() {
            return Err(EXDEV);
        }
        let inode = ManuallyDrop::new(self).0.as_ptr();
        // `sb` is borrowed, so it stays.
        sb.users().leave();
        Ok(inode)
    }
}

impl<T: FileSystem> Deref for InodeRef<T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        // SAFETY: Valid by the type invariant.
        unsafe { Inode::from_raw(self.0.as_ptr()) }
    }
}

impl<T: FileSystem> Clone for InodeRef<T> {
    fn clone(&self) -> Self {
        // SAFETY: There is a reference, and the superblock is there, by the type invariant.
        unsafe { Self::new(self) }
    }
}

impl<T: FileSystem> Drop for InodeRef<T> {
    fn drop(&mut self) {
        let users: *const Users = self.super_block().users();
        // SAFETY: Both are ours by the type invariant, and given up here. The superblock stays until the second is.
        unsafe {
            bindings::iput(self.0.as_ptr());
            (*users).leave();
        }
    }
}
