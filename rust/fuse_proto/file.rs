// SPDX-License-Identifier: GPL-2.0

//! Operations on open files and directories, except for what is in them.

use crate::reply::{empty, exact, Impossible, ReplyError};
use crate::value::{Fh, LockOwner, NodeId, MAX_OFFSET};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, OpenFlags, OpenReplyFlags, Operation, ReleaseFlags};
use core::mem::size_of;

/// OPEN and OPENDIR: a handle of an inode.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What to open.
    pub node: NodeId,
    /// Whether it is a directory.
    pub dir: bool,
    /// Flags of open(2), without `O_CREAT`, `O_EXCL` and `O_NOCTTY`.
    pub flags: u32,
    /// Flags of FUSE.
    pub open_flags: OpenFlags,
}

/// An open file (`struct fuse_open_out`). It has to be given back with [`Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    /// The handle.
    pub fh: Fh,
    /// How the open file behaves; flags without a name are dropped.
    pub flags: OpenReplyFlags,
}

impl OpenReply {
    pub(crate) fn decode(raw: &wire::OpenOut) -> Self {
        Self {
            fh: Fh(raw.fh),
            flags: OpenReplyFlags::from_bits(raw.open_flags).and(OpenReplyFlags::KNOWN),
        }
    }
}

impl Operation for Open {
    type Reply = OpenReply;

    fn opcode(&self) -> Opcode {
        match self.dir {
            true => Opcode::Opendir,
            false => Opcode::Open,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::OpenIn {
            flags: self.flags,
            open_flags: self.open_flags.bits(),
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::OpenOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<OpenReply, ReplyError> {
        Ok(OpenReply::decode(&exact(body)?))
    }
}

/// RELEASE and RELEASEDIR: the last user of a handle is gone.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// What was open.
    pub node: NodeId,
    /// Whether it is a directory.
    pub dir: bool,
    /// The handle.
    pub fh: Fh,
    /// Flags of open(2), as they were at the OPEN.
    pub flags: u32,
    /// Flags of FUSE.
    pub release_flags: ReleaseFlags,
    /// Whose `flock` lock to drop, if any.
    pub lock_owner: LockOwner,
}

impl Operation for Release {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        match self.dir {
            true => Opcode::Releasedir,
            false => Opcode::Release,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::ReleaseIn {
            fh: self.fh.0,
            flags: self.flags,
            release_flags: self.release_flags.bits(),
            lock_owner: self.lock_owner.0,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// FLUSH: a file descriptor was closed; the place to report errors of earlier writes.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Whose POSIX locks to drop.
    pub lock_owner: LockOwner,
}

impl Operation for Flush {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Flush
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::FlushIn {
            fh: self.fh.0,
            lock_owner: self.lock_owner.0,
            ..Default::default()
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// Where [`Lseek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Whence {
    /// The next byte of data (`SEEK_DATA`).
    Data = 3,
    /// The next hole (`SEEK_HOLE`).
    Hole = 4,
}

/// LSEEK: the next data or hole in a file. Other seeks need no daemon.
#[derive(Clone, Copy, Debug)]
pub struct Lseek {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Where to start, in bytes.
    pub offset: u64,
    /// What to look for.
    pub whence: Whence,
}

impl Operation for Lseek {
    /// Its offset in bytes, not before the one asked for.
    type Reply = u64;

    fn opcode(&self) -> Opcode {
        Opcode::Lseek
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::LseekIn {
            fh: self.fh.0,
            offset: self.offset,
            whence: self.whence as u32,
            padding: 0,
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::LseekOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<u64, ReplyError> {
        let raw: wire::LseekOut = exact(body)?;
        if raw.offset > MAX_OFFSET || raw.offset < self.offset {
            return Err(Impossible::Offset.into());
        }
        Ok(raw.offset)
    }
}
