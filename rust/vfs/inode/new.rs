// SPDX-License-Identifier: GPL-2.0

//! The inode cache, and inodes that are being made.

use super::{
    directory,
    operations,
    AttrsMut,
    DirectoryOperations,
    InodeBox,
    InodeRef,
    Operations,
    SymlinkOperations, //
};
use crate::{
    attr::FileType,
    file,
    filesystem::FileSystem,
    mapping,
    super_block::SuperBlock, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};
use kernel_ext::{
    bindings,
    dirty,
    users::Users, //
};

/// What [`SuperBlock::get_inode`] came up with.
pub enum Lookup<T: FileSystem> {
    /// An inode in use.
    Cached(InodeRef<T>),
    /// An inode to be completed. Others who look for it wait until it is.
    New(NewInode<T>),
}

/// How an inode is told from others, in a form for C callbacks.
struct Search<T: FileSystem, Test, Set> {
    test: Test,
    set: Option<Set>,
    _p: PhantomData<T>,
}

impl<T, Test, Set> Search<T, Test, Set>
where
    T: FileSystem,
    Test: Fn(&T::InodeData) -> bool,
    Set: FnOnce(Pin<&mut T::InodeData>),
{
    /// # Safety
    ///
    /// `inode` is one of `T`, not freed during this; `search` is a `Self` that is valid for reads.
    unsafe extern "C" fn test(inode: *mut bindings::inode, search: *mut c_void) -> c_int {
        // SAFETY: As the caller says. The data of an inode is shared from when it can be found on.
        unsafe {
            let search = &*search.cast_const().cast::<Self>();
            (search.test)(&*InodeBox::<T>::data_of(inode)).into()
        }
    }

    /// # Safety
    ///
    /// `inode` is one of `T` that cannot be found yet; `search` is a `Self` used by nobody else.
    unsafe extern "C" fn set(inode: *mut bindings::inode, search: *mut c_void) -> c_int {
        // SAFETY: As the caller says. Inodes do not move.
        let (search, data) = unsafe {
            (
                &mut *search.cast::<Self>(),
                Pin::new_unchecked(&mut *InodeBox::<T>::data_of(inode)),
            )
        };
        if let Some(set) = search.set.take() {
            set(data);
        }
        0
    }
}

impl<T: FileSystem> SuperBlock<T> {
    /// Gets the inode for which `test` is true, made new with `set` if there is none.
    ///
    /// Inodes that match must have the same `hash`. `test` and `set` run under a spinlock of the
    /// VFS: must not sleep. `test` also sees inodes that are being evicted. May sleep itself, also
    /// to wait for an inode that another task completes or evicts. Errors: `ENOMEM`; `ENODEV` when the
    /// superblock is being shut down.
    ///
    /// C: `iget5_locked()`.
    pub fn get_inode<Test, Set>(&self, hash: u64, test: Test, set: Set) -> Result<Lookup<T>>
    where
        Test: Fn(&T::InodeData) -> bool,
        Set: FnOnce(Pin<&mut T::InodeData>),
    {
        let mut search = Search::<T, _, _> {
            test,
            set: Some(set),
            _p: PhantomData,
        };
        if !self.users().enter() {
            return Err(ENODEV);
        }
        // SAFETY: The superblock is valid; the callbacks get inodes of it, and `search`.
        let inode = unsafe {
            bindings::iget5_locked(
                self.as_raw(),
                hash,
                Some(Search::<T, Test, Set>::test),
                Some(Search::<T, Test, Set>::set),
                (&raw mut search).cast(),
            )
        };
        let Some(inode) = NonNull::new(inode) else {
            self.users().leave();
            return Err(ENOMEM);
        };
        // SAFETY: `iget5_locked()` returned an inode with a reference for us; the place among the users is ours. It waits for inodes
        // that others make, so that only the one we made is new.
        unsafe {
            if (*inode.as_ptr()).i_state.__state & bindings::inode_state_flags_enum_I_NEW != 0 {
                // INVARIANT: It is new, and ours to complete.
                Ok(Lookup::New(NewInode(inode, PhantomData)))
            } else {
                Ok(Lookup::Cached(InodeRef::from_raw(inode)))
            }
        }
    }

    /// Finds the inode in use for which `test` is true.
    ///
    /// As [`get_inode`](Self::get_inode), without making one.
    ///
    /// C: `ilookup5()`.
    pub fn find_inode<Test>(&self, hash: u64, test: Test) -> Option<InodeRef<T>>
    where
        Test: Fn(&T::InodeData) -> bool,
    {
        type NoSet<T> = fn(Pin<&mut <T as FileSystem>::InodeData>);
        let mut search = Search::<T, Test, NoSet<T>> {
            test,
            set: None,
            _p: PhantomData,
        };
        if !self.users().enter() {
            return None;
        }
        // SAFETY: The superblock is valid; the callback gets inodes of it, and `search`. A returned
        // inode comes with a reference, and the place among the users is ours.
        unsafe {
            let inode = bindings::ilookup5(
                self.as_raw(),
                hash,
                Some(Search::<T, Test, NoSet<T>>::test),
                (&raw mut search).cast(),
            );
            let Some(inode) = NonNull::new(inode) else {
                self.users().leave();
                return None;
            };
            Some(InodeRef::from_raw(inode))
        }
    }
}

/// An inode that is being made.
///
/// Attributes are set through [`attrs`](NewInode::attrs). One of the `into_` methods completes it; if
/// it is dropped, whoever waits for it finds that there is none, and tries anew.
///
/// # Invariants
///
/// The inode has the state `I_NEW`, which is ours to clear, and we hold a reference and a place among the users of its superblock.
pub struct NewInode<T: FileSystem>(NonNull<bindings::inode>, PhantomData<T>);

// SAFETY: Nothing in it is bound to a task.
unsafe impl<T: FileSystem> Send for NewInode<T> {}

impl<T: FileSystem> NewInode<T> {
    pub(super) fn as_raw(&self) -> *mut bindings::inode {
        self.0.as_ptr()
    }

    /// The attributes, to be set.
    pub fn attrs(&mut self) -> AttrsMut<'_, T> {
        // INVARIANT: It is new, and borrowed mutably.
        AttrsMut(self.as_raw(), PhantomData)
    }

    /// The filesystem's data of this inode.
    pub fn data(&self) -> &T::InodeData {
        // SAFETY: Initialised with the inode.
        unsafe { &*InodeBox::<T>::data_of(self.as_raw()) }
    }

    /// Its superblock.
    pub fn super_block(&self) -> &SuperBlock<T> {
        // SAFETY: Set when the inode was allocated, and outlives it.
        unsafe { SuperBlock::from_raw((*self.as_raw()).i_sb) }
    }

    /// Sets the number that `stat` shows.
    pub fn set_ino(&mut self, ino: u64) {
        // SAFETY: Ours while it is new.
        unsafe { (*self.as_raw()).i_ino = ino };
    }

    /// Sets the generation, which tells files apart that have had the same number.
    pub fn set_generation(&mut self, generation: u32) {
        // SAFETY: Ours while it is new.
        unsafe { (*self.as_raw()).i_generation = generation };
    }

    pub(crate) fn set_flag(&mut self, flag: u32) {
        // SAFETY: Ours while it is new.
        unsafe { (*self.as_raw()).i_flags |= flag };
    }

    /// The kernel does not maintain its times: the server does.
    pub fn set_times_remote(&mut self) {
        self.set_flag(bindings::S_NOATIME | bindings::S_NOCMTIME);
    }

    /// The kernel does not maintain the time of its last access, but those of modification and change.
    pub fn set_atime_remote(&mut self) {
        self.set_flag(bindings::S_NOATIME);
    }

    /// Walking onto it mounts something, see
    /// [`dentry::Operations::automount`](crate::dentry::Operations::automount).
    pub fn set_automount(&mut self) {
        self.set_flag(bindings::S_AUTOMOUNT);
    }

    /// Set-id bits and capabilities are the server's business: the VFS does not look for them before contents are changed, until
    /// this kernel gives the file some, or [`Inode::check_security`](super::Inode::check_security).
    ///
    /// Only on superblocks with [`set_nosec`](crate::NewSuperBlock::set_nosec).
    pub fn set_nosec(&mut self) {
        self.set_flag(bindings::S_NOSEC);
    }

    /// Its ACLs pass between user space and [`Operations::get_acl`] and [`Operations::set_acl`], but do not decide about access
    /// here: the server does. They are not cached.
    ///
    /// C: `ACL_DONT_CACHE`.
    pub fn set_acls_passive(&mut self) {
        // SAFETY: Ours while it is new.
        unsafe { bindings::virtiofs_helper_make_acls_passive(self.as_raw()) };
    }

    /// Its page cache may have folios of up to two to the power of `order` pages, as far as their pages can be
    /// [told apart](dirty::MAX_ORDER).
    pub fn set_max_folio_order(&mut self, order: u32) {
        let order = order.min(dirty::MAX_ORDER);
        // SAFETY: Ours while it is new: the mapping has no pages.
        unsafe {
            bindings::mapping_set_folio_order_range((*self.as_raw()).i_mapping, 0, order);
        }
    }

    /// Folios are not changed while they are being written back.
    pub fn set_stable_writes(&mut self) {
        // SAFETY: Ours while it is new.
        unsafe { bindings::mapping_set_stable_writes((*self.as_raw()).i_mapping) };
    }

    /// What is written back depends on others, who may take their time: who reclaims memory does not wait for it.
    pub fn set_writeback_may_stall(&mut self) {
        // SAFETY: Ours while it is new.
        unsafe {
            bindings::mapping_set_writeback_may_deadlock_on_reclaim((*self.as_raw()).i_mapping)
        };
    }

    /// Sets the type; the permission bits stay.
    fn set_type(&mut self, file_type: FileType) {
        // SAFETY: Ours while it is new.
        unsafe {
            let mode = &raw mut (*self.as_raw()).i_mode;
            mode.write_volatile((*mode & !(bindings::S_IFMT as u16)) | file_type.mode());
        }
    }

    /// Ends the making of it.
    fn unlock(self) -> InodeRef<T> {
        let inode = ManuallyDrop::new(self).as_raw();
        // SAFETY: New and ours to unlock by the type invariant; the reference moves on.
        unsafe {
            bindings::unlock_new_inode(inode);
            InodeRef::from_raw(NonNull::new_unchecked(inode))
        }
    }

    /// Completes it as a directory.
    pub fn into_directory<I, F>(mut self) -> InodeRef<T>
    where
        I: DirectoryOperations<FileSystem = T>,
        F: file::DirectoryOperations<FileSystem = T>,
    {
        self.set_type(FileType::Directory);
        // SAFETY: Ours while it is new; the tables are for inodes of `T` that are directories.
        unsafe {
            (*self.as_raw()).i_op = directory::vtable::<I>();
            (*self.as_raw()).__bindgen_anon_3.i_fop = file::directory_vtable::<F>();
        }
        self.unlock()
    }

    /// Completes it as a regular file.
    pub fn into_regular<I, F, M>(self) -> InodeRef<T>
    where
        I: Operations<FileSystem = T>,
        F: file::Operations<FileSystem = T>,
        M: mapping::Operations<FileSystem = T>,
    {
        // SAFETY: The table is for inodes of `T` that are regular files.
        unsafe { self.into_file::<I, F>(mapping::vtable::<M>()) }
    }

    /// Completes it as a regular file with the address space operations `pages`.
    ///
    /// # Safety
    ///
    /// `pages` is static, and for such inodes of `T`.
    pub(crate) unsafe fn into_file<I, F>(
        mut self,
        pages: *const bindings::address_space_operations,
    ) -> InodeRef<T>
    where
        I: Operations<FileSystem = T>,
        F: file::Operations<FileSystem = T>,
    {
        self.set_type(FileType::Regular);
        // SAFETY: Ours while it is new; the tables are for inodes of `T` that are regular files.
        unsafe {
            (*self.as_raw()).i_op = operations::vtable::<I>();
            (*self.as_raw()).__bindgen_anon_3.i_fop = file::vtable::<F>();
            (*(*self.as_raw()).i_mapping).a_ops = pages;
        }
        self.unlock()
    }

    /// Completes it as a symbolic link.
    pub fn into_symlink<I>(mut self) -> InodeRef<T>
    where
        I: SymlinkOperations<FileSystem = T>,
    {
        self.set_type(FileType::Symlink);
        // SAFETY: Ours while it is new; the table is for inodes of `T` that are symbolic links.
        unsafe { (*self.as_raw()).i_op = operations::symlink_vtable::<I>() };
        self.unlock()
    }

    /// Completes it as a device node, named pipe or socket. The kernel provides what is behind it.
    ///
    /// `rdev` is the number of the device, in the encoding that user space has. Errors: `EINVAL`
    /// for other types.
    pub fn into_special<I>(mut self, file_type: FileType, rdev: u32) -> Result<InodeRef<T>>
    where
        I: Operations<FileSystem = T>,
    {
        match file_type {
            FileType::Regular | FileType::Directory | FileType::Symlink => return Err(EINVAL),
            FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {}
        }
        self.set_type(file_type);
        // SAFETY: Ours while it is new; the table is for inodes of `T`.
        unsafe {
            let mode = (*self.as_raw()).i_mode;
            (*self.as_raw()).i_op = operations::vtable::<I>();
            bindings::init_special_inode(self.as_raw(), mode, bindings::new_decode_dev(rdev));
        }
        Ok(self.unlock())
    }
}

impl<T: FileSystem> Drop for NewInode<T> {
    fn drop(&mut self) {
        let users: *const Users = self.super_block().users();
        // SAFETY: New and ours to unlock by the type invariant; the reference is given up. The superblock stays until the place among
        // its users is.
        unsafe {
            bindings::iget_failed(self.as_raw());
            (*users).leave();
        }
    }
}
