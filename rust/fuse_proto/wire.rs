// SPDX-License-Identifier: GPL-2.0

//! The structures on the wire, as `include/uapi/linux/fuse.h` (version 7.46) lays them out.
//!
//! Names are those of the header without `fuse_`, and `kind` is its `type`. The number before a field is its offset and
//! the number after a structure's name is its size, both checked when this file is compiled.
//! All integers have the byte order of the guest. There is no hidden padding, so every structure
//! can be read from and written as plain bytes.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

macro_rules! wire {
    ($(#[$meta:meta])* $name:ident: $size:literal { $($offset:literal $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
        pub struct $name {
            $(#[allow(missing_docs)] pub $field: $type,)*
        }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}

wire! {
    /// `struct fuse_attr`: attributes of an inode; times in seconds and nanoseconds, `blocks` of
    /// 512 bytes.
    Attr: 88 {
        0 ino: u64,
        8 size: u64,
        16 blocks: u64,
        24 atime: u64,
        32 mtime: u64,
        40 ctime: u64,
        48 atimensec: u32,
        52 mtimensec: u32,
        56 ctimensec: u32,
        60 mode: u32,
        64 nlink: u32,
        68 uid: u32,
        72 gid: u32,
        76 rdev: u32,
        80 blksize: u32,
        84 flags: u32,
    }
}

wire! {
    /// `struct fuse_sx_time`: a time of STATX.
    SxTime: 16 {
        0 tv_sec: i64,
        8 tv_nsec: u32,
        12 reserved: i32,
    }
}

wire! {
    /// `struct fuse_statx`: the attributes of STATX, laid out as those of statx(2).
    Statx: 256 {
        0 mask: u32,
        4 blksize: u32,
        8 attributes: u64,
        16 nlink: u32,
        20 uid: u32,
        24 gid: u32,
        28 mode: u16,
        30 spare0: [u16; 1],
        32 ino: u64,
        40 size: u64,
        48 blocks: u64,
        56 attributes_mask: u64,
        64 atime: SxTime,
        80 btime: SxTime,
        96 ctime: SxTime,
        112 mtime: SxTime,
        128 rdev_major: u32,
        132 rdev_minor: u32,
        136 dev_major: u32,
        140 dev_minor: u32,
        144 spare2: [u64; 14],
    }
}

wire! {
    /// `struct fuse_kstatfs`: body of the STATFS reply; counts are in units of `frsize`.
    Kstatfs: 80 {
        0 blocks: u64,
        8 bfree: u64,
        16 bavail: u64,
        24 files: u64,
        32 ffree: u64,
        40 bsize: u32,
        44 namelen: u32,
        48 frsize: u32,
        52 padding: u32,
        56 spare: [u32; 6],
    }
}

wire! {
    /// `struct fuse_file_lock`: a byte range, both ends inclusive.
    FileLock: 24 {
        0 start: u64,
        8 end: u64,
        16 kind: u32,
        20 pid: u32,
    }
}

wire! {
    /// `struct fuse_entry_out`: reply that names an inode; cache times in seconds and nanoseconds.
    EntryOut: 128 {
        0 nodeid: u64,
        8 generation: u64,
        16 entry_valid: u64,
        24 attr_valid: u64,
        32 entry_valid_nsec: u32,
        36 attr_valid_nsec: u32,
        40 attr: Attr,
    }
}

wire! {
    /// `struct fuse_forget_in`: argument of FORGET.
    ForgetIn: 8 {
        0 nlookup: u64,
    }
}

wire! {
    /// `struct fuse_forget_one`: one element of BATCH_FORGET.
    ForgetOne: 16 {
        0 nodeid: u64,
        8 nlookup: u64,
    }
}

wire! {
    /// `struct fuse_batch_forget_in`: argument of BATCH_FORGET, before its elements.
    BatchForgetIn: 8 {
        0 count: u32,
        4 dummy: u32,
    }
}

wire! {
    /// `struct fuse_getattr_in`: argument of GETATTR.
    GetattrIn: 16 {
        0 getattr_flags: u32,
        4 dummy: u32,
        8 fh: u64,
    }
}

wire! {
    /// `struct fuse_attr_out`: reply of GETATTR and SETATTR.
    AttrOut: 104 {
        0 attr_valid: u64,
        8 attr_valid_nsec: u32,
        12 dummy: u32,
        16 attr: Attr,
    }
}

wire! {
    /// `struct fuse_statx_in`: argument of STATX.
    StatxIn: 24 {
        0 getattr_flags: u32,
        4 reserved: u32,
        8 fh: u64,
        16 sx_flags: u32,
        20 sx_mask: u32,
    }
}

wire! {
    /// `struct fuse_statx_out`: reply of STATX.
    StatxOut: 288 {
        0 attr_valid: u64,
        8 attr_valid_nsec: u32,
        12 flags: u32,
        16 spare: [u64; 2],
        32 stat: Statx,
    }
}

wire! {
    /// `struct fuse_mknod_in`: argument of MKNOD, before the name.
    MknodIn: 16 {
        0 mode: u32,
        4 rdev: u32,
        8 umask: u32,
        12 padding: u32,
    }
}

wire! {
    /// `struct fuse_mkdir_in`: argument of MKDIR, before the name.
    MkdirIn: 8 {
        0 mode: u32,
        4 umask: u32,
    }
}

wire! {
    /// `struct fuse_rename_in`: argument of RENAME, before both names.
    RenameIn: 8 {
        0 newdir: u64,
    }
}

wire! {
    /// `struct fuse_rename2_in`: argument of RENAME2, before both names.
    Rename2In: 16 {
        0 newdir: u64,
        8 flags: u32,
        12 padding: u32,
    }
}

wire! {
    /// `struct fuse_link_in`: argument of LINK, before the name.
    LinkIn: 8 {
        0 oldnodeid: u64,
    }
}

wire! {
    /// `struct fuse_setattr_in`: argument of SETATTR; `valid` says which fields count.
    SetattrIn: 88 {
        0 valid: u32,
        4 padding: u32,
        8 fh: u64,
        16 size: u64,
        24 lock_owner: u64,
        32 atime: u64,
        40 mtime: u64,
        48 ctime: u64,
        56 atimensec: u32,
        60 mtimensec: u32,
        64 ctimensec: u32,
        68 mode: u32,
        72 unused4: u32,
        76 uid: u32,
        80 gid: u32,
        84 unused5: u32,
    }
}

wire! {
    /// `struct fuse_open_in`: argument of OPEN and OPENDIR.
    OpenIn: 8 {
        0 flags: u32,
        4 open_flags: u32,
    }
}

wire! {
    /// `struct fuse_create_in`: argument of CREATE and TMPFILE, before the name.
    CreateIn: 16 {
        0 flags: u32,
        4 mode: u32,
        8 umask: u32,
        12 open_flags: u32,
    }
}

wire! {
    /// `struct fuse_open_out`: reply of OPEN and OPENDIR, and the second part of that of CREATE.
    OpenOut: 16 {
        0 fh: u64,
        8 open_flags: u32,
        12 backing_id: i32,
    }
}

wire! {
    /// `struct fuse_release_in`: argument of RELEASE and RELEASEDIR.
    ReleaseIn: 24 {
        0 fh: u64,
        8 flags: u32,
        12 release_flags: u32,
        16 lock_owner: u64,
    }
}

wire! {
    /// `struct fuse_flush_in`: argument of FLUSH.
    FlushIn: 24 {
        0 fh: u64,
        8 unused: u32,
        12 padding: u32,
        16 lock_owner: u64,
    }
}

wire! {
    /// `struct fuse_read_in`: argument of READ, READDIR and READDIRPLUS; `offset` and `size` in
    /// bytes.
    ReadIn: 40 {
        0 fh: u64,
        8 offset: u64,
        16 size: u32,
        20 read_flags: u32,
        24 lock_owner: u64,
        32 flags: u32,
        36 padding: u32,
    }
}

wire! {
    /// `struct fuse_write_in`: argument of WRITE, before the data; `offset` and `size` in bytes.
    WriteIn: 40 {
        0 fh: u64,
        8 offset: u64,
        16 size: u32,
        20 write_flags: u32,
        24 lock_owner: u64,
        32 flags: u32,
        36 padding: u32,
    }
}

wire! {
    /// `struct fuse_write_out`: reply of WRITE and COPY_FILE_RANGE: bytes written.
    WriteOut: 8 {
        0 size: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_fsync_in`: argument of FSYNC and FSYNCDIR.
    FsyncIn: 16 {
        0 fh: u64,
        8 fsync_flags: u32,
        12 padding: u32,
    }
}

wire! {
    /// `struct fuse_setxattr_in`: argument of SETXATTR; without SETXATTR_EXT only its first 8 bytes
    /// are sent.
    SetxattrIn: 16 {
        0 size: u32,
        4 flags: u32,
        8 setxattr_flags: u32,
        12 padding: u32,
    }
}

wire! {
    /// `struct fuse_getxattr_in`: argument of GETXATTR (before the name) and LISTXATTR; `size` in
    /// bytes, 0 asks for the size.
    GetxattrIn: 8 {
        0 size: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_getxattr_out`: reply of GETXATTR and LISTXATTR to the question for the size.
    GetxattrOut: 8 {
        0 size: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_lk_in`: argument of GETLK, SETLK and SETLKW.
    LkIn: 48 {
        0 fh: u64,
        8 owner: u64,
        16 lk: FileLock,
        40 lk_flags: u32,
        44 padding: u32,
    }
}

wire! {
    /// `struct fuse_lk_out`: reply of GETLK.
    LkOut: 24 {
        0 lk: FileLock,
    }
}

wire! {
    /// `struct fuse_access_in`: argument of ACCESS.
    AccessIn: 8 {
        0 mask: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_init_in`: argument of INIT.
    InitIn: 64 {
        0 major: u32,
        4 minor: u32,
        8 max_readahead: u32,
        12 flags: u32,
        16 flags2: u32,
        20 unused: [u32; 11],
    }
}

wire! {
    /// `struct fuse_init_out`: reply of INIT; sizes in bytes, `time_gran` in nanoseconds,
    /// `map_alignment` a base-2 logarithm, `request_timeout` in seconds.
    InitOut: 64 {
        0 major: u32,
        4 minor: u32,
        8 max_readahead: u32,
        12 flags: u32,
        16 max_background: u16,
        18 congestion_threshold: u16,
        20 max_write: u32,
        24 time_gran: u32,
        28 max_pages: u16,
        30 map_alignment: u16,
        32 flags2: u32,
        36 max_stack_depth: u32,
        40 request_timeout: u16,
        42 unused: [u16; 11],
    }
}

wire! {
    /// `struct fuse_interrupt_in`: argument of INTERRUPT.
    InterruptIn: 8 {
        0 unique: u64,
    }
}

wire! {
    /// `struct fuse_ioctl_in`: argument of IOCTL, before the data.
    IoctlIn: 32 {
        0 fh: u64,
        8 flags: u32,
        12 cmd: u32,
        16 arg: u64,
        24 in_size: u32,
        28 out_size: u32,
    }
}

wire! {
    /// `struct fuse_ioctl_out`: reply of IOCTL, before the data.
    IoctlOut: 16 {
        0 result: i32,
        4 flags: u32,
        8 in_iovs: u32,
        12 out_iovs: u32,
    }
}

wire! {
    /// `struct fuse_poll_in`: argument of POLL.
    PollIn: 24 {
        0 fh: u64,
        8 kh: u64,
        16 flags: u32,
        20 events: u32,
    }
}

wire! {
    /// `struct fuse_poll_out`: reply of POLL.
    PollOut: 8 {
        0 revents: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_fallocate_in`: argument of FALLOCATE; `offset` and `length` in bytes.
    FallocateIn: 32 {
        0 fh: u64,
        8 offset: u64,
        16 length: u64,
        24 mode: u32,
        28 padding: u32,
    }
}

wire! {
    /// `struct fuse_in_header`: start of every request. `total_extlen` counts 8-byte units.
    InHeader: 40 {
        0 len: u32,
        4 opcode: u32,
        8 unique: u64,
        16 nodeid: u64,
        24 uid: u32,
        28 gid: u32,
        32 pid: u32,
        36 total_extlen: u16,
        38 padding: u16,
    }
}

wire! {
    /// `struct fuse_out_header`: start of every reply; `error` is 0 or a negative errno.
    OutHeader: 16 {
        0 len: u32,
        4 error: i32,
        8 unique: u64,
    }
}

wire! {
    /// `struct fuse_dirent`: head of a READDIR record; the name follows.
    Dirent: 24 {
        0 ino: u64,
        8 off: u64,
        16 namelen: u32,
        20 kind: u32,
    }
}

wire! {
    /// `struct fuse_direntplus`: head of a READDIRPLUS record; the name follows.
    Direntplus: 152 {
        0 entry_out: EntryOut,
        128 dirent: Dirent,
    }
}

wire! {
    /// `struct fuse_lseek_in`: argument of LSEEK.
    LseekIn: 24 {
        0 fh: u64,
        8 offset: u64,
        16 whence: u32,
        20 padding: u32,
    }
}

wire! {
    /// `struct fuse_lseek_out`: reply of LSEEK.
    LseekOut: 8 {
        0 offset: u64,
    }
}

wire! {
    /// `struct fuse_copy_file_range_in`: argument of COPY_FILE_RANGE and COPY_FILE_RANGE_64;
    /// offsets and `len` in bytes.
    CopyFileRangeIn: 56 {
        0 fh_in: u64,
        8 off_in: u64,
        16 nodeid_out: u64,
        24 fh_out: u64,
        32 off_out: u64,
        40 len: u64,
        48 flags: u64,
    }
}

wire! {
    /// `struct fuse_copy_file_range_out`: reply of COPY_FILE_RANGE_64.
    CopyFileRangeOut: 8 {
        0 bytes_copied: u64,
    }
}

wire! {
    /// `struct fuse_setupmapping_in`: argument of SETUPMAPPING; offsets and `len` in bytes.
    SetupmappingIn: 40 {
        0 fh: u64,
        8 foffset: u64,
        16 len: u64,
        24 flags: u64,
        32 moffset: u64,
    }
}

wire! {
    /// `struct fuse_removemapping_in`: argument of REMOVEMAPPING, before its elements.
    RemovemappingIn: 4 {
        0 count: u32,
    }
}

wire! {
    /// `struct fuse_removemapping_one`: one element of REMOVEMAPPING; both in bytes.
    RemovemappingOne: 16 {
        0 moffset: u64,
        8 len: u64,
    }
}

wire! {
    /// `struct fuse_syncfs_in`: argument of SYNCFS.
    SyncfsIn: 8 {
        0 padding: u64,
    }
}

wire! {
    /// `struct fuse_secctx`: one security context; its name and value follow, `size` is that of the
    /// value in bytes.
    Secctx: 8 {
        0 size: u32,
        4 padding: u32,
    }
}

wire! {
    /// `struct fuse_secctx_header`: head of the security context extension; `size` in bytes, this
    /// header included.
    SecctxHeader: 8 {
        0 size: u32,
        4 nr_secctx: u32,
    }
}

wire! {
    /// `struct fuse_ext_header`: head of any other extension; `size` in bytes, this header
    /// included.
    ExtHeader: 8 {
        0 size: u32,
        4 kind: u32,
    }
}

wire! {
    /// `struct fuse_supp_groups`: supplementary group extension; the group ids follow.
    SuppGroups: 4 {
        0 nr_groups: u32,
    }
}

wire! {
    /// `struct posix_acl_xattr_entry`: an entry of an access control list, in the byte order of little endian. Of Linux, not
    /// of FUSE.
    AclEntry: 8 {
        0 tag: u16,
        2 perm: u16,
        4 id: u32,
    }
}
