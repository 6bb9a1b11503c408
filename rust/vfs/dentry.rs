// SPDX-License-Identifier: GPL-2.0

//! Directory entries.
//!
//! A filesystem can keep two numbers with each dentry: a [`time`](Dentry::time), which is meant to
//! be the one until which the entry is valid, and a [`cookie`](Dentry::cookie). Both are 0 in a new
//! dentry, and can be read during an RCU path walk.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use crate::{
    context,
    filesystem::FileSystem,
    inode::{
        Inode,
        RcuInode, //
    },
    super_block::SuperBlock, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
    slice, //
};
use kernel::{
    build_error,
    error::VTABLE_DEFAULT_ERROR,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
    },
    types::Opaque,
};
use kernel_ext::bindings;

// The two numbers lie in fields of the size of a pointer.
const _: () = assert!(usize::BITS == u64::BITS);

/// Where the two numbers of a dentry lie.
///
/// # Safety
///
/// `dentry` is valid for the duration of `'a`.
unsafe fn numbers<'a>(dentry: *mut bindings::dentry) -> (&'a Atomic<u64>, &'a Atomic<u64>) {
    // SAFETY: Valid as the caller says. Both fields are left to the filesystem, have the size and
    // alignment of a `u64`, and are accessed here only.
    unsafe {
        (
            Atomic::from_ptr((&raw mut (*dentry).d_time).cast()),
            Atomic::from_ptr((&raw mut (*dentry).d_fsdata).cast()),
        )
    }
}

/// A directory entry of the filesystem `T` that is in use.
///
/// # Invariants
///
/// The dentry is one of a superblock of `T`, and somebody holds a reference to it.
#[repr(transparent)]
pub struct Dentry<T: FileSystem>(Opaque<bindings::dentry>, PhantomData<T>);

// SAFETY: The C structure is made for concurrent use.
unsafe impl<T: FileSystem> Send for Dentry<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for Dentry<T> {}

/// A reference to a dentry, as `dget()` takes it. Dropping the last one may sleep.
///
/// It lasts no longer than what keeps the superblock, so that none is left when that is shut down.
///
/// # Invariants
///
/// The dentry is one of a superblock of `T` that stays for the duration of `'a`, and there is a reference to it for us.
pub struct DentryRef<'a, T: FileSystem>(NonNull<bindings::dentry>, PhantomData<&'a Dentry<T>>);

impl<T: FileSystem> DentryRef<'_, T> {
    /// Takes over a reference to a dentry.
    ///
    /// # Safety
    ///
    /// The reference is the caller's, and the superblock is one of `T` that stays as long as the result.
    pub(crate) unsafe fn from_raw(dentry: NonNull<bindings::dentry>) -> Self {
        // INVARIANT: As the caller says.
        Self(dentry, PhantomData)
    }

    /// The dentry with the reference to it.
    pub(crate) fn into_raw(self) -> *mut bindings::dentry {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl<T: FileSystem> Deref for DentryRef<'_, T> {
    type Target = Dentry<T>;

    fn deref(&self) -> &Dentry<T> {
        // SAFETY: Valid by the type invariant.
        unsafe { Dentry::from_raw(self.0.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for DentryRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant, given up here.
        unsafe { bindings::dput(self.0.as_ptr()) };
    }
}

impl<T: FileSystem> Dentry<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::dentry) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The inode; [`None`] for a name that does not exist.
    pub fn inode(&self) -> Option<&Inode<T>> {
        // SAFETY: A dentry in use keeps the inode that it has.
        unsafe {
            let inode = (&raw const (*self.as_raw()).d_inode).read_volatile();
            (!inode.is_null()).then(|| Inode::from_raw(inode))
        }
    }

    /// The superblock.
    pub fn super_block(&self) -> &SuperBlock<T> {
        // SAFETY: Does not change, and outlives the dentry.
        unsafe { SuperBlock::from_raw((*self.as_raw()).d_sb) }
    }

    /// The directory it is in, or itself for a root.
    pub fn parent(&self) -> DentryRef<'_, T> {
        // SAFETY: Valid by the type invariant; the parent comes with a reference, and is not null.
        unsafe {
            let parent = bindings::dget_parent(self.as_raw());
            DentryRef::from_raw(NonNull::new_unchecked(parent))
        }
    }

    /// The filesystem's first number.
    pub fn time(&self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.as_raw()) }.0.load(Relaxed)
    }

    /// Sets the filesystem's first number.
    pub fn set_time(&self, time: u64) {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.as_raw()) }.0.store(time, Relaxed);
    }

    /// The filesystem's second number.
    pub fn cookie(&self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.as_raw()) }.1.load(Relaxed)
    }

    /// Sets the filesystem's second number.
    pub fn set_cookie(&self, cookie: u64) {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.as_raw()) }.1.store(cookie, Relaxed);
    }

    /// Sets whether [`Operations::delete`] is asked when the last reference goes. Of a new dentry it is; of one that is kept anyway
    /// the last reference goes faster without. Takes `d_lock`; does not sleep.
    ///
    /// C: `DCACHE_OP_DELETE`.
    pub fn set_delete(&self, ask: bool) {
        const ASK: u32 = bindings::dentry_flags_DCACHE_OP_DELETE;

        if !<T::Dentries as Operations>::HAS_DELETE {
            return;
        }
        // SAFETY: Valid by the type invariant. Flags change with the lock held; without it, they are the old or the new ones.
        unsafe {
            let flags = &raw mut (*self.as_raw()).d_flags;
            if (flags.read_volatile() & ASK != 0) == ask {
                return;
            }
            let lockref = &raw mut (*self.as_raw()).d_lockref;
            let lock = &raw mut (*lockref).__bindgen_anon_1.__bindgen_anon_1.lock;
            bindings::spin_lock(lock);
            flags.write_volatile(if ask { *flags | ASK } else { *flags & !ASK });
            bindings::spin_unlock(lock);
        }
    }

    /// Whether a path walk can come to it: not when it was removed or replaced here, or never had a name. A racing change counts or not.
    ///
    /// C: `d_unhashed()`, the other way round.
    pub fn is_hashed(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe {
            !(&raw const (*self.as_raw()).d_hash.pprev)
                .read_volatile()
                .is_null()
        }
    }

    /// Takes it, and what is below it, out of the dentry cache; mounts on it are undone.
    ///
    /// May sleep.
    pub fn invalidate(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::d_invalidate(self.as_raw()) };
    }
}

/// A dentry that is being looked up: nobody else sees it, and it has no inode yet.
///
/// # Invariants
///
/// The dentry is not hashed and has no inode; its name does not change.
#[repr(transparent)]
pub struct LookupDentry<T: FileSystem>(Dentry<T>);

impl<T: FileSystem> LookupDentry<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::dentry) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        // SAFETY: Does not change by the type invariant.
        unsafe { name_of(&raw const (*self.as_raw()).__bindgen_anon_1.d_name) }
    }
}

impl<T: FileSystem> Deref for LookupDentry<T> {
    type Target = Dentry<T>;

    fn deref(&self) -> &Dentry<T> {
        &self.0
    }
}

/// A dentry whose name does not change, as the directory that it is in is locked.
///
/// # Invariants
///
/// `i_rwsem` of the directory that it is in is held exclusively.
#[repr(transparent)]
pub struct NamedDentry<T: FileSystem>(Dentry<T>);

impl<T: FileSystem> NamedDentry<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::dentry) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        // SAFETY: Does not change by the type invariant.
        unsafe { name_of(&raw const (*self.as_raw()).__bindgen_anon_1.d_name) }
    }
}

impl<T: FileSystem> Deref for NamedDentry<T> {
    type Target = Dentry<T>;

    fn deref(&self) -> &Dentry<T> {
        &self.0
    }
}

/// # Safety
///
/// `name` is valid, and does not change for the duration of `'a`.
unsafe fn name_of<'a>(name: *const bindings::qstr) -> &'a [u8] {
    // SAFETY: As the caller says; `len` bytes are there.
    unsafe {
        slice::from_raw_parts(
            (*name).name,
            (*name).__bindgen_anon_1.__bindgen_anon_1.len as usize,
        )
    }
}

/// A dentry as an RCU path walk sees it: no reference can be taken.
///
/// # Invariants
///
/// The dentry is one of a superblock of `T` that is not freed during `'a`.
pub struct RcuDentry<'a, T: FileSystem>(NonNull<bindings::dentry>, PhantomData<&'a Dentry<T>>);

impl<T: FileSystem> Clone for RcuDentry<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: FileSystem> Copy for RcuDentry<'_, T> {}

impl<'a, T: FileSystem> RcuDentry<'a, T> {
    /// # Safety
    ///
    /// `ptr` is null or meets the type invariants.
    pub(crate) unsafe fn from_raw(ptr: *mut bindings::dentry) -> Option<Self> {
        // INVARIANT: As the caller says.
        NonNull::new(ptr).map(|dentry| Self(dentry, PhantomData))
    }

    /// The inode, if there is one.
    pub fn inode(self) -> Option<RcuInode<'a, T>> {
        // SAFETY: Valid by the type invariant. The inode can have been taken away meanwhile, but is
        // not freed before the walk ends.
        unsafe {
            let inode = (&raw const (*self.0.as_ptr()).d_inode).read_volatile();
            RcuInode::from_raw(inode)
        }
    }

    /// The superblock.
    pub fn super_block(self) -> &'a SuperBlock<T> {
        // SAFETY: Does not change, and outlives the dentry.
        unsafe { SuperBlock::from_raw((*self.0.as_ptr()).d_sb) }
    }

    /// The filesystem's first number.
    pub fn time(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.0.as_ptr()) }.0.load(Relaxed)
    }

    /// The filesystem's second number.
    pub fn cookie(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { numbers(self.0.as_ptr()) }.1.load(Relaxed)
    }
}

/// What a lookup is for (`LOOKUP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupFlags(u32);

impl LookupFlags {
    pub(crate) fn from_raw(flags: u32) -> Self {
        Self(flags)
    }

    const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// The last component, of which a directory is wanted.
    pub const fn directory(self) -> bool {
        self.has(bindings::LOOKUP_DIRECTORY)
    }

    /// Caches are not to be trusted: an attempt that did trust them failed with `ESTALE`.
    pub const fn revalidate(self) -> bool {
        self.has(bindings::LOOKUP_REVAL)
    }

    /// The last component, to be opened.
    pub const fn open(self) -> bool {
        self.has(bindings::LOOKUP_OPEN)
    }

    /// The last component, to be created.
    pub const fn create(self) -> bool {
        self.has(bindings::LOOKUP_CREATE)
    }

    /// The last component, that must not exist.
    pub const fn exclusive(self) -> bool {
        self.has(bindings::LOOKUP_EXCL)
    }

    /// The last component, as the target of a rename.
    pub const fn rename_target(self) -> bool {
        self.has(bindings::LOOKUP_RENAME_TARGET)
    }
}

/// What the VFS asks of dentries.
#[vtable]
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Whether `dentry` still is what `name` in `dir` leads to. If not, the VFS forgets it and looks
    /// the name up again.
    ///
    /// `name` is the one to use: the dentry's own can change. May sleep; `i_rwsem` of `dir` is held
    /// or not. An error ends the path walk with it.
    ///
    /// Without it, dentries stay valid.
    fn revalidate(
        _dir: &Inode<Self::FileSystem>,
        _name: &[u8],
        _dentry: &Dentry<Self::FileSystem>,
        _flags: LookupFlags,
    ) -> Result<bool> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// As [`revalidate`](Operations::revalidate), during an RCU path walk: must not sleep. `ECHILD`
    /// has [`revalidate`](Operations::revalidate) asked.
    fn revalidate_rcu(
        _dir: RcuInode<'_, Self::FileSystem>,
        _name: &[u8],
        _dentry: RcuDentry<'_, Self::FileSystem>,
        _flags: LookupFlags,
    ) -> Result<bool> {
        Err(ECHILD)
    }

    /// The last reference goes: whether to forget the dentry instead of caching it.
    ///
    /// Called with `d_lock` held: must not sleep. Not asked where [`Dentry::set_delete`] says so.
    fn delete(_dentry: RcuDentry<'_, Self::FileSystem>) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A walk comes to `dentry`, whose inode is marked with
    /// [`NewInode::set_automount`](crate::inode::NewInode::set_automount): the data of a superblock
    /// to be mounted on it.
    ///
    /// [`FileSystem::fill_super`] gets to see it next. May sleep; no lock is held.
    fn automount(
        _dentry: &Dentry<Self::FileSystem>,
    ) -> Result<Arc<<Self::FileSystem as FileSystem>::Super>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

struct Callbacks<D>(PhantomData<D>);

impl<D: Operations> Callbacks<D> {
    /// # Safety
    ///
    /// Called by the VFS, with a directory and a dentry of `D::FileSystem`, to which there are
    /// references unless `flags` has `LOOKUP_RCU`; the RCU read lock is held then.
    unsafe extern "C" fn revalidate(
        dir: *mut bindings::inode,
        name: *const bindings::qstr,
        dentry: *mut bindings::dentry,
        flags: c_uint,
    ) -> c_int {
        // SAFETY: The name is the caller's own.
        let name = unsafe { name_of(name) };
        let lookup = LookupFlags(flags);
        let valid = if flags & bindings::LOOKUP_RCU == 0 {
            // SAFETY: As the caller says.
            let (dir, dentry) = unsafe { (Inode::from_raw(dir), Dentry::from_raw(dentry)) };
            D::revalidate(dir, name, dentry, lookup)
        } else {
            // SAFETY: As the caller says.
            match unsafe { (RcuInode::from_raw(dir), RcuDentry::from_raw(dentry)) } {
                (Some(dir), Some(dentry)) => D::revalidate_rcu(dir, name, dentry, lookup),
                _ => Err(ECHILD),
            }
        };
        match valid {
            Ok(valid) => valid.into(),
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of `D::FileSystem` whose `d_lock` is held.
    unsafe extern "C" fn delete(dentry: *const bindings::dentry) -> c_int {
        // SAFETY: As the caller says; the lock keeps the dentry and its inode.
        match unsafe { RcuDentry::from_raw(dentry.cast_mut()) } {
            Some(dentry) => D::delete(dentry).into(),
            None => 0,
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a path to a dentry of `D::FileSystem`.
    unsafe extern "C" fn automount(path: *mut bindings::path) -> *mut bindings::vfsmount {
        // SAFETY: As the caller says; the path holds a reference to the dentry.
        let dentry = unsafe { Dentry::from_raw((*path).dentry) };
        let mount = D::automount(dentry).and_then(|data| {
            // SAFETY: A valid dentry.
            unsafe { context::submount::<D::FileSystem>(dentry.as_raw(), data) }
        });
        mount.unwrap_or_else(|e| e.to_ptr())
    }

    const VTABLE: bindings::dentry_operations = bindings::dentry_operations {
        d_revalidate: if D::HAS_REVALIDATE {
            Some(Self::revalidate)
        } else {
            None
        },
        d_delete: if D::HAS_DELETE {
            Some(Self::delete)
        } else {
            None
        },
        d_automount: if D::HAS_AUTOMOUNT {
            Some(Self::automount)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// The table of dentries.
pub(crate) fn vtable<D: Operations>() -> *const bindings::dentry_operations {
    &Callbacks::<D>::VTABLE
}
