// SPDX-License-Identifier: GPL-2.0

//! Typed sets of flag bits, named as in `include/uapi/linux/fuse.h` without the prefix.

use core::fmt;

macro_rules! flags {
    ($(#[$meta:meta])* $name:ident: $repr:ty {
        $($(#[$flag_meta:meta])* $flag:ident = $bit:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name($repr);

        impl $name {
            $($(#[$flag_meta])* pub const $flag: Self = Self(1 << $bit);)*

            /// The empty set.
            pub const NONE: Self = Self(0);
            /// Every flag that has a name.
            pub const KNOWN: Self = Self(0 $(| 1 << $bit)*);

            /// The set with these bits, named or not.
            pub const fn from_bits(bits: $repr) -> Self {
                Self(bits)
            }

            /// The bits as they go on the wire.
            pub const fn bits(self) -> $repr {
                self.0
            }

            /// Whether nothing is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether all of `other` is in this set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both sets together.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// What is in both sets.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// This set without what is in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        /// The names, separated by `|`; bits without a name follow in hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: &[($repr, &str)] = &[$((1 << $bit, stringify!($flag)),)*];
                let mut separator = "";
                for (bit, name) in names {
                    if self.0 & bit != 0 {
                        write!(f, "{separator}{name}")?;
                        separator = "|";
                    }
                }
                let rest = self.without(Self::KNOWN).0;
                if rest != 0 || self.0 == 0 {
                    write!(f, "{separator}{rest:#x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

flags! {
    /// What both sides can do (`FUSE_*` flags of `struct fuse_init_in` and `fuse_init_out`): the
    /// low half is `flags`, the high half `flags2`.
    InitFlags: u64 {
        /// READs of one file may be in flight together.
        ASYNC_READ = 0;
        /// POSIX locks are kept by the daemon.
        POSIX_LOCKS = 1;
        /// Never used by Linux.
        FILE_OPS = 2;
        /// OPEN and CREATE truncate when told `O_TRUNC`.
        ATOMIC_O_TRUNC = 3;
        /// LOOKUP of `.` and `..` works.
        EXPORT_SUPPORT = 4;
        /// WRITE may carry more than 4 KiB.
        BIG_WRITES = 5;
        /// The daemon applies the umask.
        DONT_MASK = 6;
        /// Splice to the device; unused here.
        SPLICE_WRITE = 7;
        /// Splice with page moving; unused here.
        SPLICE_MOVE = 8;
        /// Splice from the device; unused here.
        SPLICE_READ = 9;
        /// `flock` locks are kept by the daemon.
        FLOCK_LOCKS = 10;
        /// IOCTL works on directories.
        HAS_IOCTL_DIR = 11;
        /// Cached pages go when mtime or size changed.
        AUTO_INVAL_DATA = 12;
        /// READDIRPLUS is known.
        DO_READDIRPLUS = 13;
        /// READDIRPLUS or READDIR as it seems useful.
        READDIRPLUS_AUTO = 14;
        /// Direct I/O may be split into concurrent requests.
        ASYNC_DIO = 15;
        /// Writes may stay in the page cache.
        WRITEBACK_CACHE = 16;
        /// OPEN may be answered with ENOSYS: it is not needed.
        NO_OPEN_SUPPORT = 17;
        /// Lookups and listings of one directory may run together.
        PARALLEL_DIROPS = 18;
        /// The daemon drops set-id bits and capabilities on write, chown and truncate.
        HANDLE_KILLPRIV = 19;
        /// The daemon stores POSIX ACLs.
        POSIX_ACL = 20;
        /// Reading an aborted `/dev/fuse`; unused here.
        ABORT_ERROR = 21;
        /// `max_pages` of the reply counts.
        MAX_PAGES = 22;
        /// Link targets may be cached.
        CACHE_SYMLINKS = 23;
        /// OPENDIR may be answered with ENOSYS: it is not needed.
        NO_OPENDIR_SUPPORT = 24;
        /// Cached pages go only when the daemon says so.
        EXPLICIT_INVAL_DATA = 25;
        /// `map_alignment` of the reply counts.
        MAP_ALIGNMENT = 26;
        /// Attributes may say that a directory is the root of another filesystem.
        SUBMOUNTS = 27;
        /// Like `HANDLE_KILLPRIV`, but only when the request says so.
        HANDLE_KILLPRIV_V2 = 28;
        /// SETXATTR has its longer form.
        SETXATTR_EXT = 29;
        /// `flags2` counts.
        INIT_EXT = 30;
        /// Reserved.
        INIT_RESERVED = 31;
        /// Creating requests carry a security context.
        SECURITY_CTX = 32;
        /// Attributes say which files to map.
        HAS_INODE_DAX = 33;
        /// Creating requests carry a supplementary group.
        CREATE_SUPP_GROUP = 34;
        /// Entries can be expired without being invalidated.
        HAS_EXPIRE_ONLY = 35;
        /// Files opened for direct I/O may be mapped shared.
        DIRECT_IO_ALLOW_MMAP = 36;
        /// Files backed by host files of the same kernel; unused here.
        PASSTHROUGH = 37;
        /// File handles cannot be decoded.
        NO_EXPORT_SUPPORT = 38;
        /// Pending requests can be sent again.
        HAS_RESEND = 39;
        /// Idmapped mounts are possible.
        ALLOW_IDMAP = 40;
        /// Requests over io_uring; unused here.
        OVER_IO_URING = 41;
        /// `request_timeout` of the reply counts.
        REQUEST_TIMEOUT = 42;
        /// Buffer pools of io_uring; unused here.
        HAS_IO_URING_BUFPOOL = 43;
    }
}

flags! {
    /// How an open file behaves (`FOPEN_*` of `struct fuse_open_out`).
    OpenReplyFlags: u32 {
        /// Bypass the page cache.
        DIRECT_IO = 0;
        /// Keep what is cached of the file.
        KEEP_CACHE = 1;
        /// The file has a position that only moves forward.
        NONSEEKABLE = 2;
        /// The listing of this directory may be cached.
        CACHE_DIR = 3;
        /// The file has no position.
        STREAM = 4;
        /// No FLUSH on close, unless writes are cached.
        NOFLUSH = 5;
        /// Direct writes to this file may run together.
        PARALLEL_DIRECT_WRITES = 6;
        /// Backed by a host file of the same kernel; unused here.
        PASSTHROUGH = 7;
        /// Zero copy over io_uring; unused here.
        IO_URING_ZERO_COPY = 8;
    }
}

flags! {
    /// `FUSE_OPEN_*` of `struct fuse_open_in` and `fuse_create_in`.
    OpenFlags: u32 {
        /// Drop the set-id bits if the file is executable.
        KILL_SUIDGID = 0;
    }
}

flags! {
    /// `FUSE_ATTR_*` of `struct fuse_attr`.
    AttrFlags: u32 {
        /// The inode is the root of another filesystem of the host.
        SUBMOUNT = 0;
        /// The file is to be mapped from the window.
        DAX = 1;
    }
}

flags! {
    /// `FUSE_RELEASE_*` of `struct fuse_release_in`.
    ReleaseFlags: u32 {
        /// This is also the FLUSH.
        FLUSH = 0;
        /// Drop the `flock` lock of the owner.
        FLOCK_UNLOCK = 1;
    }
}

flags! {
    /// `FUSE_WRITE_*` of `struct fuse_write_in`.
    WriteFlags: u32 {
        /// From the page cache: the file handle is any one that can write.
        CACHE = 0;
        /// `lock_owner` counts.
        LOCKOWNER = 1;
        /// Drop the set-id bits.
        KILL_SUIDGID = 2;
    }
}

flags! {
    /// `FATTR_*` of `struct fuse_setattr_in`.
    SetattrFlags: u32 {
        /// `mode` counts.
        MODE = 0;
        /// `uid` counts.
        UID = 1;
        /// `gid` counts.
        GID = 2;
        /// `size` counts.
        SIZE = 3;
        /// The access time is set.
        ATIME = 4;
        /// The modification time is set.
        MTIME = 5;
        /// `fh` counts.
        FH = 6;
        /// The access time is the daemon's time.
        ATIME_NOW = 7;
        /// The modification time is the daemon's time.
        MTIME_NOW = 8;
        /// `lock_owner` counts.
        LOCKOWNER = 9;
        /// The change time is set.
        CTIME = 10;
        /// Drop the set-id bits.
        KILL_SUIDGID = 11;
    }
}

flags! {
    /// `FUSE_IOCTL_*` of `struct fuse_ioctl_in` and `fuse_ioctl_out`.
    IoctlFlags: u32 {
        /// The caller is a 32-bit program.
        COMPAT = 0;
        /// The daemon may ask for other buffers; unused here.
        UNRESTRICTED = 1;
        /// The daemon asks for other buffers; unused here.
        RETRY = 2;
        /// The caller is a 32-bit program.
        IOCTL_32BIT = 3;
        /// The file is a directory.
        DIR = 4;
        /// The caller is an x32 program.
        COMPAT_X32 = 5;
    }
}

flags! {
    /// `FUSE_SETUPMAPPING_FLAG_*` of `struct fuse_setupmapping_in`.
    MapFlags: u64 {
        /// The mapping can be written.
        WRITE = 0;
        /// The mapping can be read.
        READ = 1;
    }
}
