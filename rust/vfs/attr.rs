// SPDX-License-Identifier: GPL-2.0

//! File types, permissions and attributes.
//!
//! C headers: [`include/linux/stat.h`](srctree/include/linux/stat.h),
//! [`include/linux/statfs.h`](srctree/include/linux/statfs.h)

use crate::{
    cred::Idmap,
    file::File,
    filesystem::FileSystem,
    inode::Inode,
    super_block::SuperBlock,
    time::Timespec, //
};
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    prelude::*, //
};
use kernel_ext::bindings;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Socket,
}

impl FileType {
    /// The type in the `S_IFMT` bits of `mode`; [`None`] when they name no type.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & bindings::S_IFMT {
            bindings::S_IFIFO => Self::Fifo,
            bindings::S_IFCHR => Self::CharDevice,
            bindings::S_IFDIR => Self::Directory,
            bindings::S_IFBLK => Self::BlockDevice,
            bindings::S_IFREG => Self::Regular,
            bindings::S_IFLNK => Self::Symlink,
            bindings::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits of this type.
    pub const fn mode(self) -> u16 {
        (match self {
            Self::Fifo => bindings::S_IFIFO,
            Self::CharDevice => bindings::S_IFCHR,
            Self::Directory => bindings::S_IFDIR,
            Self::BlockDevice => bindings::S_IFBLK,
            Self::Regular => bindings::S_IFREG,
            Self::Symlink => bindings::S_IFLNK,
            Self::Socket => bindings::S_IFSOCK,
        }) as u16
    }

    /// The type as directory entries say it (`DT_*`).
    pub const fn dirent_type(self) -> u32 {
        // The two encodings are related: see `S_DT()`.
        (self.mode() >> 12) as u32
    }
}

/// Which attributes a caller of `statx` asks for (`STATX_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatxMask(pub(crate) u32);

impl StatxMask {
    /// The bits, as user space knows them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether any of `mask` (`STATX_*`) is asked for.
    pub const fn intersects(self, mask: u32) -> bool {
        self.0 & mask != 0
    }

    /// Whether the time of last access is asked for.
    pub const fn access_time(self) -> bool {
        self.intersects(bindings::STATX_ATIME)
    }

    /// Whether the birth time is asked for.
    pub const fn birth_time(self) -> bool {
        self.intersects(bindings::STATX_BTIME)
    }
}

/// How current attributes have to be (`AT_STATX_SYNC_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatSync {
    /// As `stat` would do it.
    Default,
    /// Ask the server.
    Force,
    /// What is cached will do.
    DontSync,
}

impl StatSync {
    pub(crate) fn from_raw(flags: u32) -> Self {
        if flags & bindings::AT_STATX_FORCE_SYNC != 0 {
            Self::Force
        } else if flags & bindings::AT_STATX_DONT_SYNC != 0 {
            Self::DontSync
        } else {
            Self::Default
        }
    }
}

/// The answer to a `stat`, being filled in.
///
/// # Invariants
///
/// The pointer is valid and used by nobody else for the duration of `'a`.
pub struct Stat<'a> {
    stat: *mut bindings::kstat,
    idmap: &'a Idmap,
    request: StatxMask,
    _p: PhantomData<&'a mut bindings::kstat>,
}

impl<'a> Stat<'a> {
    /// # Safety
    ///
    /// `stat` and `idmap` are valid for the duration of `'a`, `stat` exclusively.
    pub(crate) unsafe fn from_raw(
        stat: *mut bindings::kstat,
        idmap: *mut bindings::mnt_idmap,
        request: u32,
    ) -> Self {
        // INVARIANT: As the caller says.
        Self {
            stat,
            // SAFETY: As the caller says.
            idmap: unsafe { Idmap::from_raw(idmap) },
            request: StatxMask(request),
            _p: PhantomData,
        }
    }

    /// What is asked for.
    pub fn request(&self) -> StatxMask {
        self.request
    }

    /// Fills in what the inode holds, owners mapped as the mount says. To be called first.
    ///
    /// C: `generic_fillattr()`.
    pub fn fill<T: FileSystem>(&mut self, inode: &Inode<T>) {
        // SAFETY: `stat` is valid by the type invariant, the others as references.
        unsafe {
            bindings::generic_fillattr(
                self.idmap.as_raw(),
                self.request.0,
                inode.as_raw(),
                self.stat,
            )
        };
    }

    /// Sets the inode number that is shown.
    pub fn set_ino(&mut self, ino: u64) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).ino = ino };
    }

    /// Sets the size.
    pub fn set_size(&mut self, size: i64) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).size = size };
    }

    /// The number of 512-byte blocks.
    pub fn blocks(&self) -> u64 {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).blocks }
    }

    /// Sets the number of 512-byte blocks.
    pub fn set_blocks(&mut self, blocks: u64) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).blocks = blocks };
    }

    /// Sets the number of links.
    pub fn set_nlink(&mut self, nlink: u32) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).nlink = nlink };
    }

    /// Sets the preferred size of an access in bytes.
    pub fn set_blksize(&mut self, blksize: u32) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).blksize = blksize };
    }

    /// Sets the owner, whose ids are those of the user namespace of `sb`, mapped as the mount says.
    pub fn set_owner<T: FileSystem>(&mut self, sb: &SuperBlock<T>, uid: u32, gid: u32) {
        // SAFETY: `stat` is valid and ours by the type invariant; the user namespace of a superblock lives as long as it does.
        unsafe {
            let ns = (*sb.as_raw()).s_user_ns;
            bindings::virtiofs_helper_stat_owner(self.stat, self.idmap.as_raw(), ns, uid, gid);
        }
    }

    /// Sets the times of the last access, modification and change.
    pub fn set_times(&mut self, atime: Timespec, mtime: Timespec, ctime: Timespec) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe {
            (*self.stat).atime = atime.to_raw();
            (*self.stat).mtime = mtime.to_raw();
            (*self.stat).ctime = ctime.to_raw();
        }
    }

    /// Sets the permission bits; the type stays.
    pub fn set_permissions(&mut self, mode: u16) {
        let permissions = mode & !(bindings::S_IFMT as u16);
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).mode = ((*self.stat).mode & bindings::S_IFMT as u16) | permissions };
    }

    /// Sets the birth time.
    pub fn set_birth_time(&mut self, time: Timespec) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe {
            (*self.stat).btime = time.to_raw();
            (*self.stat).result_mask |= bindings::STATX_BTIME;
        }
    }

    /// Adds to the attribute flags (`STATX_ATTR_*`) that are set, and to those that are known.
    pub fn add_attributes(&mut self, set: u64, known: u64) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe {
            (*self.stat).attributes |= set;
            (*self.stat).attributes_mask |= known;
        }
    }
}

/// What a time stamp is to be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// The time of the change, which is about this.
    Now(Timespec),
    /// This time.
    To(Timespec),
}

/// Attributes that are to be changed.
///
/// C: `struct iattr`.
///
/// # Invariants
///
/// The pointers are those of a `setattr` call that has not returned; the dentry has an inode of `T`, whose `i_rwsem` is held.
pub struct NewAttributes<'a, T: FileSystem> {
    idmap: &'a Idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
    _p: PhantomData<&'a mut Inode<T>>,
}

impl<'a, T: FileSystem> NewAttributes<'a, T> {
    /// # Safety
    ///
    /// The pointers meet the type invariants for the duration of `'a`.
    pub(crate) unsafe fn from_raw(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> Self {
        // INVARIANT: As the caller says.
        Self {
            // SAFETY: As the caller says.
            idmap: unsafe { Idmap::from_raw(idmap) },
            dentry,
            attr,
            _p: PhantomData,
        }
    }

    /// Whether the caller may change what is to be changed. Drops the set-group-id bit of the new mode if it may not set that.
    ///
    /// May sleep. Errors: `EPERM`; `EFBIG`, with `SIGXFSZ` where that is due, and `ETXTBSY` for the size.
    ///
    /// C: `setattr_prepare()`.
    pub fn prepare(&mut self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::setattr_prepare(self.idmap.as_raw(), self.dentry, self.attr) })
    }

    fn has(&self, flag: u32) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.attr).ia_valid & flag != 0 }
    }

    fn inode(&self) -> &Inode<T> {
        // SAFETY: Valid by the type invariant, as is the reference that the dentry holds.
        unsafe { Inode::from_raw((*self.dentry).d_inode) }
    }

    /// Permission, set-id and sticky bits.
    pub fn permissions(&self) -> Option<u16> {
        // SAFETY: Valid by the type invariant.
        let mode = unsafe { (*self.attr).ia_mode };
        self.has(bindings::ATTR_MODE)
            .then_some(mode & !(bindings::S_IFMT as u16))
    }

    /// The owner, in the user namespace of the superblock.
    pub fn uid(&self) -> Option<u32> {
        // SAFETY: Valid by the type invariant; the user namespace of a superblock lives as long as it does.
        self.has(bindings::ATTR_UID).then(|| unsafe {
            let ns = (*(*self.dentry).d_sb).s_user_ns;
            bindings::virtiofs_helper_iattr_uid(self.idmap.as_raw(), ns, self.attr)
        })
    }

    /// The group, in the user namespace of the superblock.
    pub fn gid(&self) -> Option<u32> {
        // SAFETY: Valid by the type invariant; the user namespace of a superblock lives as long as it does.
        self.has(bindings::ATTR_GID).then(|| unsafe {
            let ns = (*(*self.dentry).d_sb).s_user_ns;
            bindings::virtiofs_helper_iattr_gid(self.idmap.as_raw(), ns, self.attr)
        })
    }

    /// The size in bytes. Only regular files have one that can be set.
    pub fn size(&self) -> Option<i64> {
        // SAFETY: Valid by the type invariant.
        let size = unsafe { (*self.attr).ia_size };
        self.has(bindings::ATTR_SIZE).then_some(size)
    }

    /// The time of the last access.
    pub fn atime(&self) -> Option<NewTime> {
        // SAFETY: Valid by the type invariant.
        let time = unsafe { (*self.attr).ia_atime };
        self.time(bindings::ATTR_ATIME, bindings::ATTR_ATIME_SET, time)
    }

    /// The time of the last modification.
    pub fn mtime(&self) -> Option<NewTime> {
        // SAFETY: Valid by the type invariant.
        let time = unsafe { (*self.attr).ia_mtime };
        self.time(bindings::ATTR_MTIME, bindings::ATTR_MTIME_SET, time)
    }

    /// The time of the last change, which this is.
    pub fn ctime(&self) -> Option<Timespec> {
        // SAFETY: Valid by the type invariant.
        let time = unsafe { (*self.attr).ia_ctime };
        self.has(bindings::ATTR_CTIME)
            .then(|| Timespec::new(time.tv_sec, time.tv_nsec as u32))
    }

    fn time(&self, given: u32, set: u32, time: bindings::timespec64) -> Option<NewTime> {
        let time = Timespec::new(time.tv_sec, time.tv_nsec as u32);
        match (self.has(given), self.has(set)) {
            (false, _) => None,
            (true, false) => Some(NewTime::Now(time)),
            (true, true) => Some(NewTime::To(time)),
        }
    }

    /// Whether the set-user-id bit goes, if there is one, as the owner or the contents change.
    pub fn kills_suid(&self) -> bool {
        self.has(bindings::ATTR_KILL_SUID)
    }

    /// Whether the set-group-id bit goes, likewise.
    pub fn kills_sgid(&self) -> bool {
        self.has(bindings::ATTR_KILL_SGID)
    }

    /// Whether this is the truncation by an `open(2)` that has been done already otherwise.
    pub fn is_open(&self) -> bool {
        self.has(bindings::ATTR_OPEN)
    }

    /// The open file that the change is made through, if it is made through one.
    pub fn file(&self) -> Option<&File<T>> {
        let inode = self.inode();
        if !self.has(bindings::ATTR_FILE) || inode.file_type() != FileType::Regular {
            return None;
        }
        // SAFETY: Valid by the type invariant, and the inode is a regular file.
        unsafe { File::of_inode((*self.attr).ia_file, inode) }
    }
}

/// The answer to `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Preferred size of an access.
    pub block_size: u32,
    /// Unit of the block counts; 0 for `block_size`.
    pub fragment_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Blocks that an ordinary user can get.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}

impl StatFs {
    /// # Safety
    ///
    /// `buf` is valid and zeroed.
    pub(crate) unsafe fn write(self, magic: u64, buf: *mut bindings::kstatfs) {
        // SAFETY: Valid as the caller says.
        let buf = unsafe { &mut *buf };
        buf.f_type = magic as isize;
        buf.f_bsize = self.block_size as isize;
        buf.f_frsize = self.fragment_size as isize;
        buf.f_blocks = self.blocks;
        buf.f_bfree = self.blocks_free;
        buf.f_bavail = self.blocks_available;
        buf.f_files = self.files;
        buf.f_ffree = self.files_free;
        buf.f_namelen = self.name_max as isize;
    }
}
