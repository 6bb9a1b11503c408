// SPDX-License-Identifier: GPL-2.0

//! Checked values: what the rest of the driver sees of a reply.

use crate::flags::AttrFlags;
use crate::reply::{Impossible, ReplyError};
use crate::wire;
use core::num::NonZeroU64;

/// Largest file size and offset that Linux knows, in bytes (`MAX_LFS_FILESIZE` on 64 bits).
pub const MAX_OFFSET: u64 = i64::MAX as u64;

const NSEC_PER_SEC: u32 = 1_000_000_000;

/// The daemon's name for an inode (`nodeid`), which is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The root directory of the share (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(NonZeroU64::MIN);

    /// The node with this number; 0 is none.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The daemon's name for an open file; any number will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// The owner of a lock, as the daemon is told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockOwner(pub u64);

/// A point in time since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

impl Time {
    fn decode(sec: i64, nsec: u32) -> Result<Self, ReplyError> {
        if nsec >= NSEC_PER_SEC {
            return Err(Impossible::Nanoseconds.into());
        }
        Ok(Self { sec, nsec })
    }
}

/// How long a name or attributes may be cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u64);

impl Ttl {
    /// Not at all.
    pub const ZERO: Self = Self(0);

    /// From seconds and nanoseconds. A second is the most that the nanoseconds count for, and
    /// what does not fit (more than 584 years) is as good as forever.
    pub const fn new(sec: u64, nsec: u32) -> Self {
        let nsec = if nsec < NSEC_PER_SEC {
            nsec
        } else {
            NSEC_PER_SEC
        };
        Self(
            sec.saturating_mul(NSEC_PER_SEC as u64)
                .saturating_add(nsec as u64),
        )
    }

    /// In nanoseconds; [`u64::MAX`] means forever.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

/// What an inode is (`S_IFMT` of its mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum FileType {
    /// A named pipe.
    Fifo = 0o010000,
    /// A character device.
    CharDevice = 0o020000,
    /// A directory.
    Directory = 0o040000,
    /// A block device.
    BlockDevice = 0o060000,
    /// A regular file.
    Regular = 0o100000,
    /// A symbolic link.
    Symlink = 0o120000,
    /// A socket.
    Socket = 0o140000,
}

impl FileType {
    /// The type in a mode (`S_IFMT`), if it is one that Linux knows.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170000 {
            0o010000 => Self::Fifo,
            0o020000 => Self::CharDevice,
            0o040000 => Self::Directory,
            0o060000 => Self::BlockDevice,
            0o100000 => Self::Regular,
            0o120000 => Self::Symlink,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The type of a directory record (`DT_*`), if it is one that Linux knows.
    pub const fn from_dirent(kind: u32) -> Option<Self> {
        if kind > 15 {
            return None;
        }
        Self::from_mode(kind << 12)
    }

    /// The bits in a mode (`S_IF*`).
    pub const fn mode(self) -> u32 {
        self as u32
    }

    /// The number in a directory record (`DT_*`).
    pub const fn dirent(self) -> u8 {
        (self as u16 >> 12) as u8
    }
}

/// A device number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number, below 4096.
    pub major: u32,
    /// Minor number, below 1,048,576.
    pub minor: u32,
}

impl Device {
    /// From the 32-bit form of `struct fuse_attr`.
    pub const fn from_wire(dev: u32) -> Self {
        Self {
            major: (dev >> 8) & 0xfff,
            minor: (dev & 0xff) | ((dev >> 12) & 0xfff00),
        }
    }

    /// The 32-bit form of `struct fuse_mknod_in`.
    pub const fn to_wire(self) -> u32 {
        (self.minor & 0xff) | ((self.major & 0xfff) << 8) | ((self.minor & 0xfff00) << 12)
    }

    fn decode(major: u32, minor: u32) -> Result<Self, ReplyError> {
        if major > 0xfff || minor > 0xfffff {
            return Err(Impossible::Device.into());
        }
        Ok(Self { major, minor })
    }
}

/// Attributes of an inode (`struct fuse_attr`), checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Number shown to user space.
    pub ino: u64,
    /// In bytes, at most [`MAX_OFFSET`].
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last modification of the data.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
    /// What it is.
    pub kind: FileType,
    /// Permission, set-id and sticky bits: at most `0o7777`.
    pub permissions: u16,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Which device this is, if it is one.
    pub rdev: Device,
    /// Preferred size of I/O in bytes, 0 if the daemon has no opinion. Any number.
    pub blksize: u32,
    /// Submount, DAX.
    pub flags: AttrFlags,
}

impl Attr {
    /// Type and permissions in one (`st_mode`).
    pub const fn mode(&self) -> u32 {
        self.kind.mode() | self.permissions as u32
    }

    /// Checks what a daemon sent. Bits of the mode above the 16 that Linux has are ignored.
    pub(crate) fn decode(raw: &wire::Attr) -> Result<Self, ReplyError> {
        Ok(Self {
            ino: raw.ino,
            size: file_size(raw.size)?,
            blocks: raw.blocks,
            // Times before 1970 come as the two's complement.
            atime: Time::decode(raw.atime as i64, raw.atimensec)?,
            mtime: Time::decode(raw.mtime as i64, raw.mtimensec)?,
            ctime: Time::decode(raw.ctime as i64, raw.ctimensec)?,
            kind: FileType::from_mode(raw.mode).ok_or(Impossible::FileType)?,
            permissions: (raw.mode & 0o7777) as u16,
            nlink: raw.nlink,
            uid: raw.uid,
            gid: raw.gid,
            rdev: Device::from_wire(raw.rdev),
            blksize: raw.blksize,
            flags: AttrFlags::from_bits(raw.flags).and(AttrFlags::KNOWN),
        })
    }

    /// The same from the form of STATX, all fields of which have to be there.
    pub(crate) fn decode_statx(raw: &wire::Statx) -> Result<Self, ReplyError> {
        let mode = u32::from(raw.mode);
        Ok(Self {
            ino: raw.ino,
            size: file_size(raw.size)?,
            blocks: raw.blocks,
            atime: Self::decode_time(&raw.atime)?,
            mtime: Self::decode_time(&raw.mtime)?,
            ctime: Self::decode_time(&raw.ctime)?,
            kind: FileType::from_mode(mode).ok_or(Impossible::FileType)?,
            permissions: (mode & 0o7777) as u16,
            nlink: raw.nlink,
            uid: raw.uid,
            gid: raw.gid,
            rdev: Device::decode(raw.rdev_major, raw.rdev_minor)?,
            blksize: raw.blksize,
            flags: AttrFlags::NONE,
        })
    }

    pub(crate) fn decode_time(raw: &wire::SxTime) -> Result<Time, ReplyError> {
        Time::decode(raw.tv_sec, raw.tv_nsec)
    }
}

fn file_size(size: u64) -> Result<u64, ReplyError> {
    if size > MAX_OFFSET {
        return Err(Impossible::Size.into());
    }
    Ok(size)
}

/// An inode that the daemon named (`struct fuse_entry_out`), checked. Each one received counts
/// as one lookup that a FORGET has to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub node: NodeId,
    /// Tells apart inodes that had the same node one after the other.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long the name is good.
    pub entry_ttl: Ttl,
    /// How long the attributes are good.
    pub attr_ttl: Ttl,
}

impl Entry {
    /// Checks an entry that may be anything but none.
    pub(crate) fn decode(raw: &wire::EntryOut) -> Result<Self, ReplyError> {
        Ok(Self {
            node: NodeId::new(raw.nodeid).ok_or(Impossible::Node)?,
            generation: raw.generation,
            attr: Attr::decode(&raw.attr)?,
            entry_ttl: Ttl::new(raw.entry_valid, raw.entry_valid_nsec),
            attr_ttl: Ttl::new(raw.attr_valid, raw.attr_valid_nsec),
        })
    }

    /// Checks an entry that is below some directory, so cannot be the root.
    pub(crate) fn decode_child(raw: &wire::EntryOut) -> Result<Self, ReplyError> {
        let entry = Self::decode(raw)?;
        if entry.node == NodeId::ROOT {
            return Err(Impossible::Node.into());
        }
        Ok(entry)
    }

    /// Checks an entry that was just made, and so is of the type asked for.
    pub(crate) fn decode_new(raw: &wire::EntryOut, kind: FileType) -> Result<Self, ReplyError> {
        let entry = Self::decode_child(raw)?;
        if entry.attr.kind != kind {
            return Err(Impossible::OtherType.into());
        }
        Ok(entry)
    }
}
