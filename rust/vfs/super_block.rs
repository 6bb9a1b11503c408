// SPDX-License-Identifier: GPL-2.0

//! Superblocks.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use crate::{
    dax,
    dentry::{
        self,
        Dentry, //
    },
    filesystem::FileSystem,
    inode::{
        Inode,
        InodeBox, //
    },
    xattr::Handlers, //
};
use core::{
    marker::PhantomData,
    ops::Deref, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_long,
        c_uint, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque,
};
use kernel_ext::{
    bindings,
    task::{
        is_killed,
        is_reclaiming, //
    },
    users::Users,
};

/// What a superblock of this crate has beside what the VFS knows.
#[pin_data]
pub(crate) struct SuperData<T: FileSystem> {
    /// Who keeps it from being shut down though the VFS knows of no user.
    #[pin]
    users: Users,
    /// The filesystem's data.
    pub(crate) data: Arc<T::Super>,
}

impl<T: FileSystem> SuperData<T> {
    pub(crate) fn new(data: Arc<T::Super>) -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            users <- Users::new(),
            data,
        });
        Arc::pin_init(init, GFP_KERNEL)
    }
}

/// A superblock of the filesystem `T`.
///
/// # Invariants
///
/// `s_fs_info` is a reference to a [`SuperData`], given by [`Arc::into_raw`]; `s_type` is
/// the type of a [`Registration<T>`](crate::Registration).
#[repr(transparent)]
pub struct SuperBlock<T: FileSystem>(Opaque<bindings::super_block>, PhantomData<T>);

// SAFETY: The C structure is made for concurrent use; `Super` is `Send + Sync`.
unsafe impl<T: FileSystem> Send for SuperBlock<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for SuperBlock<T> {}

impl<T: FileSystem> SuperBlock<T> {
    /// # Safety
    ///
    /// `ptr` meets the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    /// The filesystem's data.
    pub fn data(&self) -> &T::Super {
        &self.all_data().data
    }

    fn all_data(&self) -> &SuperData<T> {
        // SAFETY: A valid reference by the type invariant.
        unsafe { &*(*self.as_raw()).s_fs_info.cast_const().cast() }
    }

    /// Who keeps it from being shut down.
    pub(crate) fn users(&self) -> &Users {
        &self.all_data().users
    }

    /// The filesystem's data, as something that can be held on to.
    pub fn data_arc(&self) -> ArcBorrow<'_, T::Super> {
        self.all_data().data.as_arc_borrow()
    }

    /// The root; [`None`] before it has been filled.
    pub fn root(&self) -> Option<&Dentry<T>> {
        // SAFETY: A superblock holds a reference to its root as long as there can be users.
        unsafe {
            let root = (*self.as_raw()).s_root;
            (!root.is_null()).then(|| Dentry::from_raw(root))
        }
    }

    /// Has the kernel's flusher begin to write everything that is dirty, and waits until it has: not for the writeback to end. What is
    /// being written back and has become dirty again is passed over. Sleeps; to be called with `s_umount` held.
    ///
    /// C: `writeback_inodes_sb()`.
    pub fn begin_writeback(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::writeback_inodes_sb(self.as_raw(), bindings::wb_reason_WB_REASON_SYNC) };
    }

    /// The device number that `stat` shows.
    pub fn dev(&self) -> u32 {
        // SAFETY: Not changed after the superblock was made.
        unsafe { (*self.as_raw()).s_dev }
    }
}

/// A superblock that is being filled: properties can be set.
///
/// Without anything set, it has blocks of one page, no limit of a file's size but the kernel's, and
/// time stamps in nanoseconds.
#[repr(transparent)]
pub struct NewSuperBlock<T: FileSystem>(SuperBlock<T>);

impl<T: FileSystem> Deref for NewSuperBlock<T> {
    type Target = SuperBlock<T>;

    fn deref(&self) -> &SuperBlock<T> {
        &self.0
    }
}

impl<T: FileSystem> NewSuperBlock<T> {
    /// # Safety
    ///
    /// `sb` meets the invariants of [`SuperBlock`], is being filled by the caller, and is not used
    /// otherwise for the duration of `'a`.
    pub(crate) unsafe fn init<'a>(sb: *mut bindings::super_block) -> &'a mut Self {
        // SAFETY: As the caller says.
        let new = unsafe {
            (*sb).s_op = &Callbacks::<T>::VTABLE;
            // Inodes of this crate have no version of their own, which mount(8) may ask for.
            (*sb).s_flags &= !bindings::SB_I_VERSION;
            (*sb).s_xattr = T::Xattrs::table();
            bindings::set_default_d_op(sb, dentry::vtable::<T::Dentries>());
            &mut *sb.cast::<Self>()
        };
        new.set_block_size_bits(bindings::PAGE_SHIFT as u8);
        new.set_max_bytes(i64::MAX);
        new.set_time_granularity(1);
        new
    }

    fn set_flag(&mut self, flag: usize) {
        // SAFETY: Valid, and ours while it is being filled.
        unsafe { (*self.as_raw()).s_flags |= flag };
    }

    /// Sets the magic number that `statfs` shows.
    pub fn set_magic(&mut self, magic: u32) -> &mut Self {
        // SAFETY: Valid, and ours while it is being filled.
        unsafe { (*self.as_raw()).s_magic = magic as usize };
        self
    }

    /// Sets the size of a block to two to the power of `bits`, between 512 bytes and a page.
    pub fn set_block_size_bits(&mut self, bits: u8) -> &mut Self {
        let bits = bits.clamp(9, bindings::PAGE_SHIFT as u8);
        // SAFETY: Valid, and ours while it is being filled.
        unsafe {
            (*self.as_raw()).s_blocksize_bits = bits;
            (*self.as_raw()).s_blocksize = 1 << bits;
        }
        self
    }

    /// Sets the largest size of a file; the kernel's limit stays.
    pub fn set_max_bytes(&mut self, bytes: i64) -> &mut Self {
        let bytes = bytes.clamp(0, bindings::MAX_LFS_FILESIZE);
        // SAFETY: Valid, and ours while it is being filled.
        unsafe { (*self.as_raw()).s_maxbytes = bytes };
        self
    }

    /// Sets the granularity of time stamps in nanoseconds, from 1 to a second.
    pub fn set_time_granularity(&mut self, nsec: u32) -> &mut Self {
        let nsec = nsec.clamp(1, kernel::time::NSEC_PER_SEC as u32);
        // SAFETY: Valid, and ours while it is being filled.
        unsafe { (*self.as_raw()).s_time_gran = nsec };
        self
    }

    /// Files without set-id bits and capabilities need no look at their attributes on each write.
    pub fn set_nosec(&mut self) -> &mut Self {
        self.set_flag(bindings::SB_NOSEC);
        self
    }

    /// It has POSIX ACLs, which includes that the VFS leaves the umask to the filesystem. Kernels without ACLs ignore it.
    pub fn set_posix_acl(&mut self) -> &mut Self {
        self.set_flag(bindings::SB_POSIXACL);
        self
    }

    fn set_iflag(&mut self, flag: u32) {
        // SAFETY: Valid, and ours while it is being filled.
        unsafe { (*self.as_raw()).s_iflags |= flag as usize };
    }

    /// The VFS leaves the umask to the filesystem.
    pub fn set_no_umask(&mut self) -> &mut Self {
        self.set_iflag(bindings::SB_I_NOUMASK);
        self
    }

    /// Mounts may not map ids, though the filesystem type can do it.
    pub fn set_no_idmap(&mut self) -> &mut Self {
        self.set_iflag(bindings::SB_I_NOIDMAP);
        self
    }

    /// The kernel does not wait for what is written back of it (`SB_I_NO_DATA_INTEGRITY`), where no signal would end that: it begins with
    /// it, and [`FileSystem::sync_fs`] waits.
    pub fn set_waits_itself(&mut self) -> &mut Self {
        self.set_iflag(bindings::SB_I_NO_DATA_INTEGRITY);
        self
    }

    /// Data can change behind the kernel's back: integrity signatures cannot be relied on.
    pub fn set_unverifiable(&mut self) -> &mut Self {
        self.set_iflag(bindings::SB_I_IMA_UNVERIFIABLE_SIGNATURE);
        self
    }

    /// Gives it a backing device of its own, with a readahead window of `pages`, and with at most `dirty_percent` of the dirty
    /// pages that the kernel allows all filesystems together. Who writes more waits, also while the others have few. Root can
    /// change that (`/sys/class/bdi/MAJOR:MINOR/max_ratio`, with the superblock's [device number](SuperBlock::dev)).
    ///
    /// Errors: `EBUSY` when it has one, `EINVAL` for more than 100 percent, `ENOMEM`.
    ///
    /// C: `super_setup_bdi_name()`, `bdi_set_max_ratio()`, `BDI_CAP_STRICTLIMIT`.
    pub fn setup_bdi(&mut self, readahead_pages: usize, dirty_percent: u32) -> Result {
        let sb = self.as_raw();
        let dev = self.dev();
        let (major, minor): (c_uint, c_uint) = (
            dev >> bindings::MINORBITS,
            dev & ((1 << bindings::MINORBITS) - 1),
        );
        // SAFETY: Valid, and ours while it is being filled. The format takes two unsigned integers, and is only read.
        unsafe {
            if (*sb).s_iflags & bindings::SB_I_PERSB_BDI as usize != 0 {
                return Err(EBUSY);
            }
            // Not a number of its own: by this name programs find it for a path, as for other network filesystems.
            to_result(bindings::super_setup_bdi_name(
                sb,
                c"%u:%u".as_char_ptr().cast_mut(),
                major,
                minor,
            ))?;
            (*(*sb).s_bdi).ra_pages = readahead_pages;
            (*(*sb).s_bdi).io_pages = readahead_pages;
            (*(*sb).s_bdi).capabilities |= bindings::BDI_CAP_STRICTLIMIT;
            to_result(bindings::bdi_set_max_ratio((*sb).s_bdi, dirty_percent))
        }
    }
}

struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    /// # Safety
    ///
    /// Called by the VFS, with a superblock of `T`.
    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: As the caller says.
        unsafe { InodeBox::<T>::alloc(SuperBlock::from_raw(sb)) }
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode from `alloc_inode`, after a grace period; the inode is not
    /// used any more. Its superblock may be gone.
    unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
        // SAFETY: As the caller says.
        unsafe { InodeBox::<T>::free(inode) };
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode from `alloc_inode` whose last reference goes, and its `i_lock` held.
    unsafe extern "C" fn drop_inode(inode: *mut bindings::inode) -> c_int {
        // SAFETY: As the caller says. The mark is seen before the lock is released, and then the inode goes, after what is dirty
        // was written.
        unsafe {
            // Its pages may wait for a server: whoever frees memory, or is killed, leaves that to others.
            if !is_reclaiming() && !is_killed() {
                bindings::inode_state_set(inode, bindings::inode_state_flags_enum_I_DONTCACHE);
            }
            bindings::inode_generic_drop(inode)
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode from `alloc_inode` that nobody has a reference to.
    unsafe extern "C" fn evict_inode(inode: *mut bindings::inode) {
        // SAFETY: The inode is being evicted, which consists of these steps.
        unsafe {
            dax::leave(inode);
            InodeBox::<T>::forget_weak(inode);
            InodeBox::<T>::forget_aging(inode);
            bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
            bindings::clear_inode(inode);
        }
        if T::HAS_EVICT_INODE {
            // SAFETY: The data is dropped by `free_inode` only, and the superblock outlives its
            // inodes.
            let (data, sb, nlink) = unsafe {
                (
                    &*InodeBox::<T>::data_of(inode),
                    SuperBlock::from_raw((*inode).i_sb),
                    (*inode).__bindgen_anon_1.__i_nlink,
                )
            };
            T::evict_inode(data, sb, nlink);
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode of `T` that it keeps until this has returned.
    unsafe extern "C" fn write_inode(
        inode: *mut bindings::inode,
        control: *mut bindings::writeback_control,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says. What is waited for keeps the inode as a reference does.
            let (inode, mode) = unsafe { (Inode::from_raw(inode), (*control).sync_mode) };
            T::write_inode(inode, mode == bindings::writeback_sync_modes_WB_SYNC_ALL)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a superblock of `T`.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: As the caller says; the data is dropped after this.
        T::put_super(unsafe { SuperBlock::from_raw(sb) });
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of `T` and a buffer that is valid and zeroed.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        buf: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let stat = T::statfs(unsafe { Dentry::from_raw(dentry) })?;
            // SAFETY: As the caller says. CAST: `kernel` has the type without its fields.
            unsafe { stat.write((*(*dentry).d_sb).s_magic as u64, buf.cast()) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a superblock of `T`.
    unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: c_int) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            T::sync_fs(unsafe { SuperBlock::from_raw(sb) }, wait != 0)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a superblock of `T` that is active, and its lock held.
    unsafe extern "C" fn nr_cached_objects(
        sb: *mut bindings::super_block,
        _control: *mut bindings::shrink_control,
    ) -> c_long {
        // SAFETY: As the caller says.
        let count = T::cached_objects(unsafe { SuperBlock::from_raw(sb) });
        c_long::try_from(count).unwrap_or(c_long::MAX)
    }

    /// # Safety
    ///
    /// As [`nr_cached_objects`](Self::nr_cached_objects), with a control structure.
    unsafe extern "C" fn free_cached_objects(
        sb: *mut bindings::super_block,
        control: *mut bindings::shrink_control,
    ) -> c_long {
        // SAFETY: As the caller says.
        let (sb, count) = unsafe { (SuperBlock::from_raw(sb), (*control).nr_to_scan) };
        c_long::try_from(T::free_cached_objects(sb, count)).unwrap_or(c_long::MAX)
    }

    /// # Safety
    ///
    /// Called by the VFS, with a superblock of `T`.
    unsafe extern "C" fn umount_begin(sb: *mut bindings::super_block) {
        // SAFETY: As the caller says.
        T::umount_begin(unsafe { SuperBlock::from_raw(sb) });
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that is being written and a dentry of `T`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        dentry: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let (sb, seq) = unsafe {
                (
                    SuperBlock::from_raw((*dentry).d_sb),
                    SeqFile::from_raw(seq), //
                )
            };
            T::show_options(sb, seq)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a file that is being written and a dentry of `T`.
    unsafe extern "C" fn show_devname(
        seq: *mut bindings::seq_file,
        dentry: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: As the caller says.
        let source = T::source(unsafe { SuperBlock::from_raw((*dentry).d_sb) });
        // SAFETY: As the caller says; the strings end with NUL. What would part fields or lines is escaped.
        unsafe {
            bindings::seq_escape(seq, source.as_char_ptr(), c" \t\n\\#".as_char_ptr());
        }
        0
    }

    const VTABLE: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(Self::alloc_inode),
        free_inode: Some(Self::free_inode),
        evict_inode: Some(Self::evict_inode),
        drop_inode: Some(Self::drop_inode),
        write_inode: if T::HAS_WRITE_INODE {
            Some(Self::write_inode)
        } else {
            None
        },
        put_super: if T::HAS_PUT_SUPER {
            Some(Self::put_super)
        } else {
            None
        },
        statfs: if T::HAS_STATFS {
            Some(Self::statfs)
        } else {
            Some(bindings::simple_statfs)
        },
        sync_fs: if T::HAS_SYNC_FS {
            Some(Self::sync_fs)
        } else {
            None
        },
        nr_cached_objects: if T::HAS_CACHED_OBJECTS {
            Some(Self::nr_cached_objects)
        } else {
            None
        },
        free_cached_objects: if T::HAS_FREE_CACHED_OBJECTS {
            Some(Self::free_cached_objects)
        } else {
            None
        },
        umount_begin: if T::HAS_UMOUNT_BEGIN {
            Some(Self::umount_begin)
        } else {
            None
        },
        show_options: if T::HAS_SHOW_OPTIONS {
            Some(Self::show_options)
        } else {
            None
        },
        show_devname: if T::HAS_SOURCE {
            Some(Self::show_devname)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// # Safety
///
/// Called by the VFS once, for a superblock of `T` that it gives up.
pub(crate) unsafe extern "C" fn kill_sb_callback<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: Valid; not changed since the superblock was made.
    let data = unsafe { (*sb).s_fs_info };
    // SAFETY: Valid until it is killed below.
    if T::HAS_SHUTTING_DOWN && unsafe { !(*sb).s_root.is_null() } {
        // SAFETY: As above; it was filled, as it has a root.
        T::shutting_down(unsafe { SuperBlock::from_raw(sb) });
    }
    // SAFETY: From `into_raw`; the superblock's own reference.
    let data = unsafe { Arc::<SuperData<T>>::from_raw(data.cast_const().cast()) };
    // What the VFS does not know of: an inode with such a reference would outlive its superblock.
    data.users.close();
    // SAFETY: A superblock made with `set_anon_super_fc()`.
    unsafe { bindings::kill_anon_super(sb) };
    // There are no dentries and inodes, and the superblock is marked dead for `sget_fc()`. But a path walk that takes no references
    // may have come to one of these dentries before, and looks at the data yet. An unmount expedites a grace period anyway.
    // SAFETY: No read-side section is entered, and no lock is held.
    unsafe { bindings::synchronize_rcu_expedited() };
    drop(data);
}
