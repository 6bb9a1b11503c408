// SPDX-License-Identifier: GPL-2.0

//! The opcodes of FUSE 7.46 (`enum fuse_opcode`).

use core::fmt;

macro_rules! opcodes {
    ($($variant:ident = $number:literal, $name:literal;)*) => {
        /// What a request asks for.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Opcode {
            $(#[doc = concat!("`FUSE_", $name, "`.")] $variant = $number,)*
        }

        impl Opcode {
            /// Every opcode, in ascending order.
            pub const ALL: &'static [Opcode] = &[$(Self::$variant,)*];

            /// The name without `FUSE_`, for logs and statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        // `bit` and `SLOTS` hold for every opcode.
        const _: () = { $(assert!($number < Opcode::SLOTS);)* };
    };
}

opcodes! {
    Lookup = 1, "LOOKUP";
    Forget = 2, "FORGET";
    Getattr = 3, "GETATTR";
    Setattr = 4, "SETATTR";
    Readlink = 5, "READLINK";
    Symlink = 6, "SYMLINK";
    Mknod = 8, "MKNOD";
    Mkdir = 9, "MKDIR";
    Unlink = 10, "UNLINK";
    Rmdir = 11, "RMDIR";
    Rename = 12, "RENAME";
    Link = 13, "LINK";
    Open = 14, "OPEN";
    Read = 15, "READ";
    Write = 16, "WRITE";
    Statfs = 17, "STATFS";
    Release = 18, "RELEASE";
    Fsync = 20, "FSYNC";
    Setxattr = 21, "SETXATTR";
    Getxattr = 22, "GETXATTR";
    Listxattr = 23, "LISTXATTR";
    Removexattr = 24, "REMOVEXATTR";
    Flush = 25, "FLUSH";
    Init = 26, "INIT";
    Opendir = 27, "OPENDIR";
    Readdir = 28, "READDIR";
    Releasedir = 29, "RELEASEDIR";
    Fsyncdir = 30, "FSYNCDIR";
    Getlk = 31, "GETLK";
    Setlk = 32, "SETLK";
    Setlkw = 33, "SETLKW";
    Access = 34, "ACCESS";
    Create = 35, "CREATE";
    Interrupt = 36, "INTERRUPT";
    Bmap = 37, "BMAP";
    Destroy = 38, "DESTROY";
    Ioctl = 39, "IOCTL";
    Poll = 40, "POLL";
    NotifyReply = 41, "NOTIFY_REPLY";
    BatchForget = 42, "BATCH_FORGET";
    Fallocate = 43, "FALLOCATE";
    Readdirplus = 44, "READDIRPLUS";
    Rename2 = 45, "RENAME2";
    Lseek = 46, "LSEEK";
    CopyFileRange = 47, "COPY_FILE_RANGE";
    Setupmapping = 48, "SETUPMAPPING";
    Removemapping = 49, "REMOVEMAPPING";
    Syncfs = 50, "SYNCFS";
    Tmpfile = 51, "TMPFILE";
    Statx = 52, "STATX";
    CopyFileRange64 = 53, "COPY_FILE_RANGE_64";
}

impl Opcode {
    /// One more than the largest [`index`](Self::index): the length of a table by opcode.
    pub const SLOTS: usize = 64;

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Place in a table of [`SLOTS`](Self::SLOTS) elements.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Bit in a 64-bit set of opcodes, such as that of the ones which the daemon does not know.
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
