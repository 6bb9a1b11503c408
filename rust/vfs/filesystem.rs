// SPDX-License-Identifier: GPL-2.0

//! The filesystem as a whole, and its registration.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{
    attr::StatFs,
    context::{
        self,
        Context, //
    },
    dentry::{
        self,
        Dentry, //
    },
    inode::{
        Inode,
        InodeBox,
        InodeRef, //
    },
    parameter::Parameters,
    super_block::{
        self,
        NewSuperBlock,
        SuperBlock, //
    },
    xattr,
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    build_error,
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::c_int,
    prelude::*,
    seq_file::SeqFile,
    sync::Arc,
    types::{
        ForeignOwnable,
        Opaque, //
    },
};
use kernel_ext::bindings;

/// Properties of a filesystem type (`FS_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mounts may map ids: every method that takes an [`Idmap`](crate::cred::Idmap) applies it.
    pub const ALLOW_IDMAP: Self = Self(bindings::FS_ALLOW_IDMAP);
    /// A rename moves the dentry itself.
    pub const RENAME_DOES_D_MOVE: Self = Self(bindings::FS_RENAME_DOES_D_MOVE);

    /// These and `other`.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A filesystem.
///
/// Life of a superblock: [`prepare`] makes its data from the mount's options. When [`same`] finds a
/// superblock for it, that one is mounted once more and the candidate is dropped. Otherwise
/// [`fill_super`] brings the new one to life. After the last unmount come [`umount_begin`] (only when
/// forced), [`evict_inode`] for each inode, [`put_super`], and the superblock's reference to its data
/// is dropped. A superblock whose [`fill_super`] failed sees none of these but the drop.
///
/// An inode goes with its last user, dentries among them, so that whoever has it on the other side need not keep it for nobody.
/// But not where the kernel frees memory, or a task was killed: to take an inode away can mean to wait for folios that are being read,
/// these for memory or for the other side. Then it stays until its folios are gone, or its next user.
///
/// [`prepare`]: FileSystem::prepare
/// [`same`]: FileSystem::same
/// [`fill_super`]: FileSystem::fill_super
/// [`umount_begin`]: FileSystem::umount_begin
/// [`evict_inode`]: FileSystem::evict_inode
/// [`put_super`]: FileSystem::put_super
#[vtable]
pub trait FileSystem: Sized + Send + Sync + 'static {
    /// The name that `mount -t` takes.
    const NAME: &'static CStr;

    /// Properties of the type.
    const FLAGS: Flags = Flags::NONE;

    /// The options that a mount takes beside the generic ones.
    const PARAMETERS: Parameters<Self::Options> = Parameters::NONE;

    /// What the mount options say.
    type Options: Default + Send + 'static;

    /// Data of a superblock.
    type Super: Send + Sync + 'static;

    /// Data of an inode, in one allocation with the C inode.
    ///
    /// Readers of an RCU path walk may look at it until it is dropped, which happens after a grace
    /// period, in a softirq: its `Drop` must not sleep. What has to sleep goes into
    /// [`evict_inode`](FileSystem::evict_inode).
    type InodeData: Send + Sync;

    /// Data of an open file or directory.
    type FileData: ForeignOwnable + Send + Sync;

    /// The dentry operations.
    type Dentries: dentry::Operations<FileSystem = Self>;

    /// The handlers of extended attributes: a tuple, `()` when there are none.
    type Xattrs: xattr::Handlers<Self>;

    /// Makes the data of a superblock from the options and the source of a mount.
    ///
    /// Not called for submounts. May sleep; no lock is held. The reason of an error is told with
    /// [`Context::error`].
    fn prepare(context: &mut Context<Self>) -> Result<Arc<Self::Super>>;

    /// Whether a mount that asks for `candidate` gets the superblock of `existing`.
    ///
    /// Called with a spinlock of the VFS held: must not sleep. `existing` may be one that has not
    /// been filled yet, or is being unmounted; the VFS waits for the outcome.
    fn same(_existing: &Self::Super, _candidate: &Self::Super) -> bool {
        false
    }

    /// Brings a superblock to life and returns its root inode.
    ///
    /// May sleep; `s_umount` is held.
    fn fill_super(
        sb: &mut NewSuperBlock<Self>,
        context: &mut Context<Self>,
    ) -> Result<InodeRef<Self>>;

    /// A remount wants to change options. Errors refuse it.
    ///
    /// May sleep; `s_umount` is held.
    fn reconfigure(_sb: &SuperBlock<Self>, _context: &mut Context<Self>) -> Result {
        Ok(())
    }

    /// Initialises the data of an inode that has just been allocated, before anything is known of it.
    ///
    /// May sleep. Any error is reported as `ENOMEM`.
    fn inode_data(sb: &SuperBlock<Self>) -> impl PinInit<Self::InodeData, Error>;

    /// An inode goes that had `nlink` names: its pages are gone, nobody has a reference, and it will be freed.
    ///
    /// May sleep, but can be part of memory reclaim: must not wait for allocations that enter the
    /// filesystem, nor for other inodes. Also called for inodes whose initialisation failed.
    fn evict_inode(_data: &Self::InodeData, _sb: &SuperBlock<Self>, _nlink: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes the times of an inode that the kernel maintains. With `wait` it has happened when this returns; else it may be left
    /// for later, if the inode is [marked](Inode::mark_times_dirty) again.
    ///
    /// May sleep. The inode is kept by its state (`I_SYNC`), maybe by no reference.
    fn write_inode(_inode: &Inode<Self>, _wait: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sizes and counts of the filesystem. May sleep.
    fn statfs(_dentry: &Dentry<Self>) -> Result<StatFs> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `sync(2)`, `syncfs(2)` or an unmount: what is written here is in the page cache no more, and has to reach stable storage.
    ///
    /// May sleep; `s_umount` is held shared. Called once before without waiting, and then with `wait`.
    fn sync_fs(_sb: &SuperBlock<Self>, _wait: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// How many objects of its own, beside dentries and inodes, the superblock could free if memory were short. Must not sleep.
    fn cached_objects(_sb: &SuperBlock<Self>) -> usize {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Memory is short: frees up to `count` of these objects, or has it done; how many are freed already.
    ///
    /// Part of memory reclaim: must not wait for a server. `s_umount` is held shared.
    fn free_cached_objects(_sb: &SuperBlock<Self>, _count: usize) -> usize {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A forced unmount (`umount -f`) begins: end what others wait for.
    ///
    /// May sleep; `s_umount` is held shared. The unmount can still fail as busy.
    fn umount_begin(_sb: &SuperBlock<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The superblock is given up. After this, whoever has an [`InodeRef`] of it is waited for, and nobody gets another one.
    ///
    /// May sleep; `s_umount` is held.
    fn shutting_down(_sb: &SuperBlock<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The superblock has no dentries and no inodes left.
    ///
    /// May sleep; `s_umount` is held. A mount for which [`same`](FileSystem::same) finds this
    /// superblock waits until this returned, and then makes a new one: the place to say goodbye to
    /// a server.
    fn put_super(_sb: &SuperBlock<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Shows the options in `/proc/mounts`, each with a comma before it.
    fn show_options(_sb: &SuperBlock<Self>, _seq: &SeqFile) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The source that `/proc/mounts` shows, instead of what the mount said. Submounts have said nothing.
    fn source(_sb: &SuperBlock<Self>) -> &CStr {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A registered filesystem type.
///
/// It is a field of the module's own struct, as an [`InPlaceModule`](kernel::InPlaceModule), and the last one that is
/// initialised: from then on the filesystem can be mounted. Each superblock and each mount in
/// preparation holds a reference to the module, which is what keeps this from being dropped before
/// them.
///
/// # Invariants
///
/// `fs` is registered and `inodes` a valid cache of `InodeBox<T>` objects.
#[pin_data(PinnedDrop)]
pub struct Registration<T: FileSystem> {
    #[pin]
    fs: Opaque<bindings::file_system_type>,
    inodes: NonNull<bindings::kmem_cache>,
    _p: PhantomData<T>,
}

// SAFETY: May be dropped by any task; the cache is thread-safe.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: Nothing changes through a shared reference.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the filesystem `T`. May sleep. Errors: `EBUSY` when the name is taken, `ENOMEM`.
    pub fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inodes: InodeBox::<T>::new_cache(T::NAME)?,
            // On error the cache is destroyed below: this struct is not dropped then.
            fs <- {
                let cache = CacheGuard(*inodes);
                Opaque::try_ffi_init(move |fs: *mut bindings::file_system_type| {
                    // SAFETY: `fs` is valid for writes and pinned.
                    unsafe {
                        fs.write(pin_init::zeroed());
                        (*fs).owner = module.as_ptr();
                        (*fs).name = T::NAME.as_char_ptr();
                        (*fs).fs_flags = T::FLAGS.0 as i32;
                        (*fs).init_fs_context = Some(context::init_fs_context_callback::<T>);
                        (*fs).parameters = T::PARAMETERS.specs().cast();
                        (*fs).kill_sb = Some(super_block::kill_sb_callback::<T>);
                    }
                    // SAFETY: `fs` has been filled in, and stays until `drop`, which unregisters it.
                    to_result(unsafe { bindings::register_filesystem(fs) })?;
                    // INVARIANT: Registered; from here on the cache belongs to `Self`.
                    core::mem::forget(cache);
                    Ok::<(), Error>(())
                })
            },
            _p: PhantomData,
        })
    }

    /// The registration that `sb` is of.
    ///
    /// # Safety
    ///
    /// `sb` is a superblock of `T`, alive for `'a`.
    pub(crate) unsafe fn of_super<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The type of a superblock of `T` is the one embedded in a `Registration<T>`, which
        // outlives the superblock as that holds a reference to the module.
        unsafe {
            let fs = Opaque::cast_from((*sb).s_type.cast_const());
            &*kernel::container_of!(fs, Self, fs)
        }
    }

    pub(crate) fn inode_cache(&self) -> *mut bindings::kmem_cache {
        self.inodes.as_ptr()
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::file_system_type {
        self.fs.get()
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
        drop(CacheGuard(self.inodes));
    }
}

/// Another name that the filesystem `T` can be mounted by. What is mounted is of the type `T`, and shares its superblocks:
/// [`FileSystem::same`] finds those of mounts by either name.
///
/// # Invariants
///
/// `fs` is registered.
#[pin_data(PinnedDrop)]
pub struct Alias<T: FileSystem> {
    #[pin]
    fs: Opaque<bindings::file_system_type>,
    _p: PhantomData<T>,
}

// SAFETY: May be dropped by any task.
unsafe impl<T: FileSystem> Send for Alias<T> {}
// SAFETY: Nothing changes through a shared reference.
unsafe impl<T: FileSystem> Sync for Alias<T> {}

impl<T: FileSystem> Alias<T> {
    /// Registers `name`, by which nothing is mounted before `T` has been [registered](Registration::new). May sleep. Errors: `EBUSY`
    /// when the name is taken.
    pub fn new(name: &'static CStr, module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            fs <- Opaque::try_ffi_init(move |fs: *mut bindings::file_system_type| {
                // SAFETY: `fs` is valid for writes and pinned. It is filled in when it is registered, and stays until `drop`, which
                // unregisters it.
                unsafe {
                    fs.write(pin_init::zeroed());
                    (*fs).owner = module.as_ptr();
                    (*fs).name = name.as_char_ptr();
                    (*fs).init_fs_context = Some(Self::init_fs_context);
                    to_result(bindings::register_filesystem(fs))
                }
            }),
            _p: PhantomData,
        })
    }

    /// Makes it a context of `T`, as cpuset's does of cgroup's.
    ///
    /// # Safety
    ///
    /// Called by the VFS, for a new context of this type.
    unsafe extern "C" fn init_fs_context(context: *mut kernel::bindings::fs_context) -> c_int {
        // CAST: The `kernel` crate has the type without its fields.
        let fc = context.cast::<bindings::fs_context>();
        // SAFETY: The context is valid, and nobody else uses it yet. Its reference to the module of its type becomes one to that of
        // the type found, which comes with one.
        unsafe {
            let fs = bindings::get_fs_type(T::NAME.as_char_ptr());
            let Some(init) = fs.as_ref().and_then(|fs| fs.init_fs_context) else {
                return ENODEV.to_errno();
            };
            bindings::module_put((*(*fc).fs_type).owner);
            (*fc).fs_type = fs;
            (*fc).log.prefix = (*fs).name;
            init(context)
        }
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Alias<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
    }
}

/// Destroys an inode cache, when the inodes have been freed by RCU.
struct CacheGuard(NonNull<bindings::kmem_cache>);

impl Drop for CacheGuard {
    fn drop(&mut self) {
        kernel::sync::rcu::rcu_barrier();
        // SAFETY: The cache is valid, and has no objects: there is no superblock, and freed inodes
        // have been waited for.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}
