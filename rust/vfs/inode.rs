// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! [`Inode`] is an inode that is in use, [`NewInode`] one that is being made, and [`RcuInode`] one
//! that an RCU path walk looks at.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

mod counted;
mod directory;
mod flags;
mod new;
mod operations;
mod weak;

pub use counted::InodeRef;
pub(crate) use directory::splice;
pub use directory::{
    DirectoryOperations,
    OpenInode,
    OpenRequest,
    Opened,
    RenameFlags, //
};
pub use flags::{
    ExtendedFlags,
    InodeFlags, //
};
pub use new::{
    Lookup,
    NewInode, //
};
pub use operations::{
    AccessMask,
    Link,
    Operations,
    SymlinkOperations, //
};
pub use weak::WeakInode;

use crate::{
    aging::{
        Aging,
        Place, //
    },
    attr::FileType,
    cred::Idmap,
    filesystem::{
        FileSystem,
        Registration, //
    },
    super_block::SuperBlock,
    time::Timespec, //
};
use core::{
    marker::PhantomData,
    mem,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        SetOnce, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
};
use kernel_ext::bindings;

/// The allocation of an inode.
///
/// # Invariants
///
/// `data` is initialised from [`InodeBox::alloc`] to [`InodeBox::free`].
#[repr(C)]
pub(crate) struct InodeBox<T: FileSystem> {
    inode: Opaque<bindings::inode>,
    stale: Atomic<i32>,
    weak: Option<Arc<WeakInode<T>>>,
    /// What has it looked at from time to time.
    pub(crate) aging: SetOnce<Arc<Aging<T>>>,
    pub(crate) place: Place,
    data: T::InodeData,
}

impl<T: FileSystem> InodeBox<T> {
    /// Makes the cache that inodes come from. May sleep.
    pub(crate) fn new_cache(name: &'static CStr) -> Result<NonNull<bindings::kmem_cache>> {
        let mut args = bindings::kmem_cache_args {
            align: mem::align_of::<Self>() as u32,
            ctor: Some(Self::construct),
            ..pin_init::zeroed()
        };
        // SAFETY: The name is static, and `construct` suits objects of this size.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                name.as_char_ptr(),
                mem::size_of::<Self>() as u32,
                &mut args,
                bindings::SLAB_RECLAIM_ACCOUNT | bindings::SLAB_ACCOUNT,
            )
        };
        NonNull::new(cache).ok_or(ENOMEM)
    }

    /// Runs once for each object of the cache, not for each allocation.
    ///
    /// # Safety
    ///
    /// `object` is the memory of a `Self`.
    unsafe extern "C" fn construct(object: *mut c_void) {
        // SAFETY: The inode lies within the object.
        unsafe {
            bindings::inode_init_once(Opaque::cast_into(&raw mut (*object.cast::<Self>()).inode))
        };
    }

    /// Allocates an inode with its data; null when there is no memory.
    pub(crate) fn alloc(sb: &SuperBlock<T>) -> *mut bindings::inode {
        // SAFETY: A superblock of `T`; the cache is one of `Self`.
        let object: *mut Self = unsafe {
            let cache = Registration::<T>::of_super(sb.as_raw()).inode_cache();
            bindings::virtiofs_helper_alloc_inode(sb.as_raw(), cache).cast()
        };
        if object.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: The object is valid memory of this type, and does not move.
        // INVARIANT: The data is initialised.
        unsafe {
            (&raw mut (*object).stale).write(Atomic::new(0));
            (&raw mut (*object).weak).write(None);
            (&raw mut (*object).aging).write(SetOnce::new());
            (&raw mut (*object).place).write(Place::NONE);
            if pin_init::raw_try_init(&raw mut (*object).data, T::inode_data(sb)).is_err() {
                bindings::kfree(object.cast_const().cast());
                return ptr::null_mut();
            }
            Opaque::cast_into(&raw const (*object).inode)
        }
    }

    /// Drops the data and frees the inode. Runs in a softirq.
    ///
    /// # Safety
    ///
    /// `inode` is from [`alloc`](Self::alloc) and not used after this.
    pub(crate) unsafe fn free(inode: *mut bindings::inode) {
        let object = Self::of(inode);
        // SAFETY: The data is initialised by the type invariant, and dropped once. `kfree()` also
        // frees objects of caches; the superblock, which knows the cache, may be gone.
        unsafe {
            ptr::drop_in_place(&raw mut (*object).data);
            ptr::drop_in_place(&raw mut (*object).weak);
            ptr::drop_in_place(&raw mut (*object).aging);
            bindings::kfree(object.cast_const().cast());
        }
    }

    /// References that do not keep `inode` lead nowhere from here on.
    ///
    /// # Safety
    ///
    /// `inode` is from [`alloc`](Self::alloc), and being evicted.
    pub(crate) unsafe fn forget_weak(inode: *mut bindings::inode) {
        // SAFETY: As the caller says; nobody makes such a reference any more.
        if let Some(weak) = unsafe { &(*Self::of(inode)).weak } {
            weak.forget();
        }
    }

    /// Nobody looks at `inode` any more from here on.
    ///
    /// # Safety
    ///
    /// `inode` is from [`alloc`](Self::alloc), and being evicted.
    pub(crate) unsafe fn forget_aging(inode: *mut bindings::inode) {
        // SAFETY: As the caller says; nobody has it looked at later any more, for which a reference is needed.
        unsafe {
            let object = Self::of(inode);
            if let Some(aging) = (*object).aging.as_ref() {
                aging.forget(&raw mut (*object).place);
            }
        }
    }

    /// The inode that `place` belongs to.
    ///
    /// # Safety
    ///
    /// `place` is the field of a `Self`.
    pub(crate) unsafe fn with_place(place: *mut Place) -> *mut bindings::inode {
        // SAFETY: As the caller says. CAST: The inode is the first field.
        unsafe { container_of!(place, Self, place).cast() }
    }

    pub(crate) fn of(inode: *mut bindings::inode) -> *mut Self {
        // CAST: The inode is the first field.
        inode.cast()
    }

    /// Where the data of `inode` is.
    ///
    /// # Safety
    ///
    /// `inode` is from [`alloc`](Self::alloc).
    pub(crate) unsafe fn data_of(inode: *mut bindings::inode) -> *mut T::InodeData {
        // SAFETY: Within the allocation.
        unsafe { &raw mut (*Self::of(inode)).data }
    }
}

/// An inode of the filesystem `T` that is in use.
///
/// An `InodeRef<T>` holds a reference as `ihold()` takes it. Dropping the last one may sleep.
///
/// # Invariants
///
/// The inode is the one of an `InodeBox<T>`, its superblock one of `T`, and somebody holds a
/// reference to it.
#[repr(transparent)]
pub struct Inode<T: FileSystem>(Opaque<bindings::inode>, PhantomData<T>);

// SAFETY: The C structure is made for concurrent use; `InodeData` is `Send + Sync`.
unsafe impl<T: FileSystem> Send for Inode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for Inode<T> {}

impl<T: FileSystem> Inode<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::inode) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// The filesystem's data of this inode.
    pub fn data(&self) -> &T::InodeData {
        // SAFETY: Initialised as long as the inode is in use.
        unsafe { &*InodeBox::<T>::data_of(self.as_raw()) }
    }

    /// Its superblock.
    pub fn super_block(&self) -> &SuperBlock<T> {
        // SAFETY: Set when the inode was made, and outlives it.
        unsafe { SuperBlock::from_raw((*self.as_raw()).i_sb) }
    }

    /// Its number.
    pub fn ino(&self) -> u64 {
        // SAFETY: Not changed once the inode is in use.
        unsafe { (*self.as_raw()).i_ino }
    }

    /// Its generation.
    pub fn generation(&self) -> u32 {
        // SAFETY: Not changed once the inode is in use.
        unsafe { (*self.as_raw()).i_generation }
    }

    /// Its type and permissions.
    pub fn mode(&self) -> u16 {
        // SAFETY: A racing change gives the old or the new value.
        unsafe { ptr::read_volatile(&raw const (*self.as_raw()).i_mode) }
    }

    /// Its type, which does not change.
    pub fn file_type(&self) -> FileType {
        // An inode in use always has a type: `NewInode` sets it.
        FileType::from_mode(self.mode().into()).unwrap_or(FileType::Regular)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Its number of links.
    pub fn nlink(&self) -> u32 {
        // SAFETY: A racing change gives the old or the new value.
        unsafe { ptr::read_volatile(&raw const (*self.as_raw()).__bindgen_anon_1.__i_nlink) }
    }

    /// Its size.
    pub fn size(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::i_size_read(self.as_raw()) }
    }

    /// The time of its last modification, consistent only with the inode locked.
    pub fn mtime(&self) -> Timespec {
        // SAFETY: Racing changes give the parts of old and new values.
        unsafe {
            let inode = self.as_raw();
            Timespec::new(
                ptr::read_volatile(&raw const (*inode).i_mtime_sec),
                ptr::read_volatile(&raw const (*inode).i_mtime_nsec),
            )
        }
    }

    /// The time of its last change, consistent only with the inode locked.
    pub fn ctime(&self) -> Timespec {
        // SAFETY: The inode is valid.
        unsafe { ctime_of(self.as_raw()) }
    }

    const DIRTY_TIMES: bindings::inode_state_flags_enum =
        bindings::inode_state_flags_enum_I_DIRTY_SYNC
            | bindings::inode_state_flags_enum_I_DIRTY_DATASYNC
            | bindings::inode_state_flags_enum_I_DIRTY_TIME;

    /// Whether its times are newer here than what has been written, or are being [written](FileSystem::write_inode). Callable from any
    /// context.
    pub fn has_dirty_times(&self) -> bool {
        let dirty = Self::DIRTY_TIMES | bindings::inode_state_flags_enum_I_SYNC;
        // SAFETY: A racing change gives the old or the new value.
        unsafe { (&raw const (*self.as_raw()).i_state.__state).read_volatile() & dirty != 0 }
    }

    /// Its times are to be [written](FileSystem::write_inode). May sleep.
    ///
    /// C: `mark_inode_dirty_sync()`.
    pub fn mark_times_dirty(&self) {
        let state = bindings::inode_state_flags_enum_I_DIRTY_SYNC;
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::__mark_inode_dirty(self.as_raw(), state as i32) };
    }

    /// Whether its times are to be written, which is left to the caller. Takes a spinlock.
    ///
    /// C: `sync_inode_metadata()` has them written, and is not for what a host has to answer for: it waits for all pages under writeback,
    /// and others wait for it (`I_SYNC`), where no signal ends that.
    pub fn take_dirty_times(&self) -> bool {
        let _locked = self.lock();
        // SAFETY: Valid by the type invariant, and locked as that asks for. The inode stays in the list of dirty ones, whose reader
        // finds nothing to be written.
        unsafe {
            let state = (&raw const (*self.as_raw()).i_state.__state).read_volatile();
            bindings::inode_state_clear(self.as_raw(), state & Self::DIRTY_TIMES);
            state & Self::DIRTY_TIMES != 0
        }
    }

    /// Locks the attributes (`i_lock`), to change them.
    ///
    /// A spinlock: no sleep until the guard is dropped.
    pub fn lock(&self) -> InodeGuard<'_, T> {
        // SAFETY: Initialised with the inode.
        unsafe { bindings::spin_lock(&raw mut (*self.as_raw()).i_lock) };
        InodeGuard(self, NotThreadSafe)
    }

    /// Locks the contents (`i_rwsem`) against changes. May sleep; a fatal signal ends that with `EINTR`, as who has the lock may wait
    /// for a host.
    pub fn lock_shared(&self) -> Result<SharedGuard<'_, T>> {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::down_read_killable(&raw mut (*self.as_raw()).i_rwsem) })?;
        Ok(SharedGuard(self, NotThreadSafe))
    }

    /// Locks the contents (`i_rwsem`) to change them. May sleep, as [`lock_shared`](Inode::lock_shared).
    pub fn lock_exclusive(&self) -> Result<ExclusiveGuard<'_, T>> {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::down_write_killable(&raw mut (*self.as_raw()).i_rwsem) })?;
        Ok(ExclusiveGuard(self, NotThreadSafe))
    }

    /// Whether the caller may make the file `size` bytes long. To be called with the inode locked.
    ///
    /// Errors: `EFBIG` when the caller's limit or that of the filesystem is below, and `SIGXFSZ` is sent where it should.
    ///
    /// C: `inode_newsize_ok()`.
    pub fn check_new_size(&self, size: i64) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::inode_newsize_ok(self.as_raw(), size) })
    }

    /// As [`lock_exclusive`](Inode::lock_exclusive), if nobody holds it now. Does not sleep.
    pub fn try_lock_exclusive(&self) -> Option<ExclusiveGuard<'_, T>> {
        // SAFETY: Valid by the type invariant.
        (unsafe { bindings::inode_trylock(self.as_raw()) } != 0)
            .then(|| ExclusiveGuard(self, NotThreadSafe))
    }

    /// As [`lock_shared`](Inode::lock_shared), if nobody holds it exclusively now. Does not sleep.
    pub fn try_lock_shared(&self) -> Option<SharedGuard<'_, T>> {
        // SAFETY: Valid by the type invariant.
        (unsafe { bindings::inode_trylock_shared(self.as_raw()) } != 0)
            .then(|| SharedGuard(self, NotThreadSafe))
    }

    /// Takes the inode out of the inode cache, so that it is not found again, and marks it stale:
    /// the file it stood for is gone. Its users keep it until they are done. Never undone.
    ///
    /// Takes spinlocks; callable where the caller holds none of this inode.
    pub fn mark_stale(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe {
            (*InodeBox::<T>::of(self.as_raw())).stale.store(1, Release);
            bindings::remove_inode_hash(self.as_raw());
        }
    }

    /// Whether it has been marked stale.
    pub fn is_stale(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { (*InodeBox::<T>::of(self.as_raw())).stale.load(Acquire) != 0 }
    }

    /// Whether the inode's own attributes permit an access.
    ///
    /// C: `generic_permission()`. May sleep to get at an ACL.
    pub fn generic_permission(&self, idmap: &Idmap, mask: AccessMask) -> Result {
        // SAFETY: Valid references.
        to_result(unsafe {
            bindings::generic_permission(idmap.as_raw(), self.as_raw(), mask.raw())
        })
    }

    /// The next change of contents has the VFS look for set-id bits and capabilities once more. To be called with the inode
    /// locked (`i_rwsem`).
    ///
    /// C: clears `S_NOSEC`.
    pub fn check_security(&self) {
        // SAFETY: Valid by the type invariant; the flag is protected by `i_rwsem`.
        unsafe { bindings::inode_set_flags(self.as_raw(), 0, bindings::S_NOSEC) };
    }

    /// Whether the current task may keep the set-group-id bit of what it changes: it is in the group of the inode, or has
    /// `CAP_FSETID` over it.
    ///
    /// C: `in_group_or_capable()`.
    pub fn keeps_setgid(&self, idmap: &Idmap) -> bool {
        // SAFETY: Valid references.
        unsafe { bindings::virtiofs_helper_in_group_or_capable(idmap.as_raw(), self.as_raw()) }
    }
}

/// The time of an inode's last change, without a lock: a racing change gives the parts of the old and the new value.
///
/// # Safety
///
/// The inode is valid.
unsafe fn ctime_of(inode: *mut bindings::inode) -> Timespec {
    // SAFETY: As the caller says. The uppermost bit is the VFS's mark that the time has been queried.
    unsafe {
        Timespec::new(
            ptr::read_volatile(&raw const (*inode).i_ctime_sec),
            ptr::read_volatile(&raw const (*inode).i_ctime_nsec) & !(1 << 31),
        )
    }
}

/// An inode as an RCU path walk sees it: it may be on its way out, and no reference can be taken.
///
/// # Invariants
///
/// The inode is the one of an `InodeBox<T>` that is not freed during `'a`, in which the RCU read
/// lock is held.
pub struct RcuInode<'a, T: FileSystem>(NonNull<bindings::inode>, PhantomData<&'a T::InodeData>);

impl<T: FileSystem> Clone for RcuInode<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: FileSystem> Copy for RcuInode<'_, T> {}

impl<'a, T: FileSystem> RcuInode<'a, T> {
    /// # Safety
    ///
    /// `ptr` is null or meets the type invariants.
    pub(crate) unsafe fn from_raw(ptr: *mut bindings::inode) -> Option<Self> {
        // INVARIANT: As the caller says.
        NonNull::new(ptr).map(|inode| Self(inode, PhantomData))
    }

    /// The filesystem's data. Nothing that can sleep may be done with it.
    pub fn data(self) -> &'a T::InodeData {
        // SAFETY: Dropped after a grace period only.
        unsafe { &*InodeBox::<T>::data_of(self.0.as_ptr()) }
    }

    /// Whether it has been marked stale.
    pub fn is_stale(self) -> bool {
        // SAFETY: The allocation is valid by the type invariant.
        unsafe { (*InodeBox::<T>::of(self.0.as_ptr())).stale.load(Relaxed) != 0 }
    }

    /// Its number of links.
    pub fn nlink(self) -> u32 {
        // SAFETY: The inode is valid for RCU readers; a racing change gives the old or the new value.
        unsafe { ptr::read_volatile(&raw const (*self.0.as_ptr()).__bindgen_anon_1.__i_nlink) }
    }

    /// The time of its last change; a racing change gives the parts of the old and the new value.
    pub fn ctime(self) -> Timespec {
        // SAFETY: The inode is valid for RCU readers.
        unsafe { ctime_of(self.0.as_ptr()) }
    }

    /// Whether the inode's own attributes permit an access; `ECHILD` when that needs sleeping.
    ///
    /// C: `generic_permission()`.
    pub fn generic_permission(self, idmap: &Idmap, mask: AccessMask) -> Result {
        // SAFETY: The inode is valid for RCU readers, and the mask says that this is one.
        to_result(unsafe {
            bindings::generic_permission(
                idmap.as_raw(),
                self.0.as_ptr(),
                mask.raw() | bindings::MAY_NOT_BLOCK as i32,
            )
        })
    }
}

/// The attributes of an inode, to be changed.
///
/// # Invariants
///
/// The inode is valid during `'a`, and nobody else changes its attributes: its `i_lock` is held, or
/// it is new.
pub struct AttrsMut<'a, T: FileSystem>(*mut bindings::inode, PhantomData<&'a mut Inode<T>>);

impl<T: FileSystem> AttrsMut<'_, T> {
    /// The filesystem's data of the inode.
    pub fn data(&self) -> &T::InodeData {
        // SAFETY: The inode is valid by the type invariant, and its data are initialised before it has attributes.
        unsafe { &*InodeBox::<T>::data_of(self.0) }
    }

    /// Sets the permission bits; the type stays.
    pub fn set_permissions(&mut self, mode: u16) {
        let permissions = mode & !(bindings::S_IFMT as u16);
        // SAFETY: Ours to change by the type invariant; lockless readers see the old or new value.
        unsafe {
            let field = &raw mut (*self.0).i_mode;
            field.write_volatile((*field & bindings::S_IFMT as u16) | permissions);
        }
    }

    /// Sets the owner; ids are those of the superblock's user namespace.
    pub fn set_owner(&mut self, uid: u32, gid: u32) {
        // SAFETY: Ours to change by the type invariant.
        unsafe {
            bindings::i_uid_write(self.0, uid);
            bindings::i_gid_write(self.0, gid);
        }
    }

    /// Sets the number of links.
    pub fn set_nlink(&mut self, nlink: u32) {
        // SAFETY: Ours to change by the type invariant.
        unsafe { bindings::set_nlink(self.0, nlink) };
    }

    /// One of the links is gone, if there was one.
    pub fn drop_nlink(&mut self) {
        // SAFETY: Ours to change by the type invariant.
        unsafe {
            if (*self.0).__bindgen_anon_1.i_nlink > 0 {
                bindings::drop_nlink(self.0);
            }
        }
    }

    /// ACLs that are cached are read anew when they are wanted. An ACL that is being read meanwhile is not cached.
    ///
    /// C: `forget_all_cached_acls()`.
    pub fn forget_acls(&mut self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::forget_all_cached_acls(self.0) };
    }

    /// Sets the size. Pages beyond it stay in the page cache: see
    /// [`Inode::truncate_pagecache`].
    pub fn set_size(&mut self, size: i64) {
        // SAFETY: Ours to change by the type invariant, which includes writers of the size.
        unsafe { bindings::i_size_write(self.0, size) };
    }

    /// Sets the number of 512-byte blocks.
    pub fn set_blocks(&mut self, blocks: u64) {
        // SAFETY: Ours to change by the type invariant.
        unsafe { (*self.0).i_blocks = blocks };
    }

    /// Sets the time of the last access.
    pub fn set_atime(&mut self, time: Timespec) {
        // SAFETY: Ours to change by the type invariant.
        unsafe { bindings::inode_set_atime_to_ts(self.0, time.to_raw()) };
    }

    /// Sets the time of the last modification.
    pub fn set_mtime(&mut self, time: Timespec) {
        // SAFETY: Ours to change by the type invariant.
        unsafe { bindings::inode_set_mtime_to_ts(self.0, time.to_raw()) };
    }

    /// Sets the time of the last change.
    pub fn set_ctime(&mut self, time: Timespec) {
        // SAFETY: Ours to change by the type invariant.
        unsafe { bindings::inode_set_ctime_to_ts(self.0, time.to_raw()) };
    }
}

/// An inode whose attributes are locked (`i_lock`), see [`Inode::lock`].
pub struct InodeGuard<'a, T: FileSystem>(&'a Inode<T>, NotThreadSafe);

impl<T: FileSystem> InodeGuard<'_, T> {
    /// The attributes, to be changed.
    pub fn attrs(&mut self) -> AttrsMut<'_, T> {
        // INVARIANT: The lock is held as long as the guard is borrowed.
        AttrsMut(self.0.as_raw(), PhantomData)
    }
}

impl<T: FileSystem> Drop for InodeGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Inode::lock`.
        unsafe { bindings::spin_unlock(&raw mut (*self.0.as_raw()).i_lock) };
    }
}

/// An inode whose contents are locked against changes (`i_rwsem`), see [`Inode::lock_shared`].
pub struct SharedGuard<'a, T: FileSystem>(&'a Inode<T>, NotThreadSafe);

impl<T: FileSystem> Drop for SharedGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Inode::lock_shared` or `Inode::try_lock_shared`.
        unsafe { bindings::inode_unlock_shared(self.0.as_raw()) };
    }
}

/// An inode whose contents are locked to be changed (`i_rwsem`), see [`Inode::lock_exclusive`].
pub struct ExclusiveGuard<'a, T: FileSystem>(&'a Inode<T>, NotThreadSafe);

impl<T: FileSystem> Drop for ExclusiveGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Inode::lock_exclusive` or `Inode::try_lock_exclusive`.
        unsafe { bindings::inode_unlock(self.0.as_raw()) };
    }
}
