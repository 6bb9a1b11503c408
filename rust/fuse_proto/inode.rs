// SPDX-License-Identifier: GPL-2.0

//! Operations on one inode: its attributes, its link target, its filesystem.

use crate::reply::{empty, exact, Impossible, ReplyError};
use crate::value::{Attr, Fh, LockOwner, NodeId, Time, Ttl};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation, SetattrFlags};
use core::mem::size_of;

/// `FUSE_GETATTR_FH`: the file handle counts.
const GETATTR_FH: u32 = 1;

/// Attributes and how long they are good (`struct fuse_attr_out`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttrReply {
    /// The attributes.
    pub attr: Attr,
    /// How long they are good.
    pub ttl: Ttl,
}

impl AttrReply {
    fn decode(body: &[u8]) -> Result<Self, ReplyError> {
        let raw: wire::AttrOut = exact(body)?;
        Ok(Self {
            attr: Attr::decode(&raw.attr)?,
            ttl: Ttl::new(raw.attr_valid, raw.attr_valid_nsec),
        })
    }
}

/// GETATTR: attributes of an inode.
#[derive(Clone, Copy, Debug)]
pub struct Getattr {
    /// Whose attributes.
    pub node: NodeId,
    /// An open file of it, if there is one.
    pub fh: Option<Fh>,
}

impl Operation for Getattr {
    type Reply = AttrReply;

    fn opcode(&self) -> Opcode {
        Opcode::Getattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::GetattrIn {
            getattr_flags: if self.fh.is_some() { GETATTR_FH } else { 0 },
            dummy: 0,
            fh: self.fh.unwrap_or_default().0,
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::AttrOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<AttrReply, ReplyError> {
        AttrReply::decode(body)
    }
}

/// What SETATTR sets a time to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The daemon's time of day.
    Now,
    /// This time.
    To(Time),
}

/// SETATTR: changes those attributes that are given.
#[derive(Clone, Copy, Debug)]
pub struct Setattr {
    /// Whose attributes.
    pub node: NodeId,
    /// An open file of it, if the change is made through one.
    pub fh: Option<Fh>,
    /// New mode: type and permissions.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: Option<SetTime>,
    /// New time of last modification.
    pub mtime: Option<SetTime>,
    /// New time of last change; only where the guest keeps it (writeback cache).
    pub ctime: Option<Time>,
    /// Owner of the locks, for a change of size that mandatory locks could prevent.
    pub lock_owner: Option<LockOwner>,
    /// Drop the set-id bits ([`HANDLE_KILLPRIV_V2`](crate::InitFlags::HANDLE_KILLPRIV_V2)).
    pub kill_suidgid: bool,
}

impl Setattr {
    /// A request that changes nothing yet.
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            fh: None,
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: None,
            mtime: None,
            ctime: None,
            lock_owner: None,
            kill_suidgid: false,
        }
    }

    fn valid(&self) -> SetattrFlags {
        use SetattrFlags as F;
        let flags = [
            (self.fh.is_some(), F::FH),
            (self.mode.is_some(), F::MODE),
            (self.uid.is_some(), F::UID),
            (self.gid.is_some(), F::GID),
            (self.size.is_some(), F::SIZE),
            (self.atime.is_some(), F::ATIME),
            (self.atime == Some(SetTime::Now), F::ATIME_NOW),
            (self.mtime.is_some(), F::MTIME),
            (self.mtime == Some(SetTime::Now), F::MTIME_NOW),
            (self.ctime.is_some(), F::CTIME),
            (self.lock_owner.is_some(), F::LOCKOWNER),
            (self.kill_suidgid, F::KILL_SUIDGID),
        ];
        flags
            .iter()
            .filter(|(given, _)| *given)
            .fold(F::NONE, |all, (_, flag)| all.with(*flag))
    }
}

impl Operation for Setattr {
    type Reply = AttrReply;

    fn opcode(&self) -> Opcode {
        Opcode::Setattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let time = |time: Option<SetTime>| match time {
            Some(SetTime::To(time)) => time,
            Some(SetTime::Now) | None => Time::default(),
        };
        let (atime, mtime) = (time(self.atime), time(self.mtime));
        let ctime = self.ctime.unwrap_or_default();
        e.struct_(&wire::SetattrIn {
            valid: self.valid().bits(),
            fh: self.fh.unwrap_or_default().0,
            size: self.size.unwrap_or(0),
            lock_owner: self.lock_owner.unwrap_or_default().0,
            atime: atime.sec as u64,
            mtime: mtime.sec as u64,
            ctime: ctime.sec as u64,
            atimensec: atime.nsec,
            mtimensec: mtime.nsec,
            ctimensec: ctime.nsec,
            mode: self.mode.unwrap_or(0),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
            ..Default::default()
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::AttrOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<AttrReply, ReplyError> {
        AttrReply::decode(body)
    }
}

/// STATX: attributes of an inode, with its birth time.
#[derive(Clone, Copy, Debug)]
pub struct Statx {
    /// Whose attributes.
    pub node: NodeId,
    /// An open file of it, if there is one.
    pub fh: Option<Fh>,
    /// How fresh they have to be (`AT_STATX_*`).
    pub flags: u32,
    /// Which are wanted (`STATX_*`).
    pub mask: u32,
}

impl Statx {
    /// What [`Attr`] consists of (`STATX_BASIC_STATS`).
    pub const BASIC: u32 = 0x7ff;
    /// The birth time (`STATX_BTIME`).
    pub const BTIME: u32 = 0x800;
}

/// Attributes of STATX (`struct fuse_statx_out`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatxReply {
    /// The attributes, if the daemon sent all of them. Their `flags` are empty: STATX does not
    /// tell them.
    pub attr: Option<Attr>,
    /// When the inode was made, if the daemon knows.
    pub btime: Option<Time>,
    /// `STATX_ATTR_*` flags that are set.
    pub attributes: u64,
    /// `STATX_ATTR_*` flags that the daemon knows.
    pub attributes_mask: u64,
    /// How long all this is good.
    pub ttl: Ttl,
}

impl Operation for Statx {
    type Reply = StatxReply;

    fn opcode(&self) -> Opcode {
        Opcode::Statx
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::StatxIn {
            getattr_flags: if self.fh.is_some() { GETATTR_FH } else { 0 },
            reserved: 0,
            fh: self.fh.unwrap_or_default().0,
            sx_flags: self.flags,
            sx_mask: self.mask,
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::StatxOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<StatxReply, ReplyError> {
        let raw: wire::StatxOut = exact(body)?;
        let stat = &raw.stat;
        let has = |mask| stat.mask & mask == mask;
        Ok(StatxReply {
            attr: has(Self::BASIC)
                .then(|| Attr::decode_statx(stat))
                .transpose()?,
            btime: has(Self::BTIME)
                .then(|| Attr::decode_time(&stat.btime))
                .transpose()?,
            attributes: stat.attributes & stat.attributes_mask,
            attributes_mask: stat.attributes_mask,
            ttl: Ttl::new(raw.attr_valid, raw.attr_valid_nsec),
        })
    }
}

/// READLINK: the target of a symbolic link, which is the payload of the reply.
#[derive(Clone, Copy, Debug)]
pub struct Readlink {
    /// The link.
    pub node: NodeId,
}

impl Readlink {
    /// Most bytes that a target has (`PATH_MAX` without the NUL).
    pub const MAX_LEN: usize = 4095;
}

impl Operation for Readlink {
    /// Length of the target in bytes, 1 to [`MAX_LEN`](Readlink::MAX_LEN). The target itself
    /// goes through [`link_target`].
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        Opcode::Readlink
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, _e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn reply_payload_len(&self) -> usize {
        Self::MAX_LEN
    }

    fn decode(&self, _body: &[u8], payload: usize) -> Result<usize, ReplyError> {
        if payload == 0 || payload > Self::MAX_LEN {
            return Err(Impossible::LinkTarget.into());
        }
        Ok(payload)
    }
}

/// Checks the payload of READLINK: a path without a NUL.
pub fn link_target(payload: &[u8]) -> Result<&[u8], ReplyError> {
    if payload.is_empty() || payload.len() > Readlink::MAX_LEN || payload.contains(&0) {
        return Err(Impossible::LinkTarget.into());
    }
    Ok(payload)
}

/// ACCESS: whether the caller may.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Access to what.
    pub node: NodeId,
    /// `MAY_READ` 4, `MAY_WRITE` 2, `MAY_EXEC` 1, or 0 for its existence.
    pub mask: u32,
}

impl Operation for Access {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Access
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::AccessIn {
            mask: self.mask,
            padding: 0,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// STATFS: size and use of the filesystem that an inode is on.
#[derive(Clone, Copy, Debug)]
pub struct Statfs {
    /// The inode.
    pub node: NodeId,
}

/// What STATFS says (`struct fuse_kstatfs`). All of it is only shown to user space, so any
/// number will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatfsReply {
    /// Size in units of `frsize`.
    pub blocks: u64,
    /// Free, likewise.
    pub bfree: u64,
    /// Free for other users than root, likewise.
    pub bavail: u64,
    /// Number of inodes.
    pub files: u64,
    /// Inodes that are free.
    pub ffree: u64,
    /// Preferred size of I/O in bytes.
    pub bsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
    /// Unit of the sizes in bytes.
    pub frsize: u32,
}

impl Operation for Statfs {
    type Reply = StatfsReply;

    fn opcode(&self) -> Opcode {
        Opcode::Statfs
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, _e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::Kstatfs>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<StatfsReply, ReplyError> {
        let raw: wire::Kstatfs = exact(body)?;
        Ok(StatfsReply {
            blocks: raw.blocks,
            bfree: raw.bfree,
            bavail: raw.bavail,
            files: raw.files,
            ffree: raw.ffree,
            bsize: raw.bsize,
            namelen: raw.namelen,
            frsize: raw.frsize,
        })
    }
}
