// SPDX-License-Identifier: GPL-2.0

//! File types, permissions and attributes.
//!
//! C headers: [`include/linux/stat.h`](srctree/include/linux/stat.h),
//! [`include/linux/statfs.h`](srctree/include/linux/statfs.h)

use crate::{
    cred::Idmap,
    filesystem::FileSystem,
    inode::Inode,
    time::Timespec, //
};
use core::marker::PhantomData;
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

    /// Sets the preferred size of an access.
    pub fn set_blksize(&mut self, blksize: u32) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe { (*self.stat).blksize = blksize };
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

    /// Sets the change cookie, a number that differs whenever the file has changed.
    pub fn set_change_cookie(&mut self, cookie: u64) {
        // SAFETY: Valid and ours by the type invariant.
        unsafe {
            (*self.stat).change_cookie = cookie;
            (*self.stat).result_mask |= bindings::STATX_CHANGE_COOKIE;
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
