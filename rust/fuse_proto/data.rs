// SPDX-License-Identifier: GPL-2.0

//! Operations on file contents.

use crate::reply::{empty, exact, Impossible, ReplyError};
use crate::value::{Fh, LockOwner, NodeId};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation, WriteFlags};
use core::mem::size_of;

/// `FUSE_FSYNC_FDATASYNC`: only what is needed to read the data again.
const FSYNC_FDATASYNC: u32 = 1;
/// `FUSE_READ_LOCKOWNER`: the lock owner counts.
const READ_LOCKOWNER: u32 = 2;

/// READ: bytes of a file, which are the payload of the reply.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Where to start, in bytes.
    pub offset: u64,
    /// How many bytes to read.
    pub size: u32,
    /// Flags of open(2).
    pub flags: u32,
    /// Owner of the locks, where mandatory locks could prevent it.
    pub lock_owner: Option<LockOwner>,
}

impl Operation for Read {
    /// Bytes that were read, at most `size`. Fewer mean the end of the file.
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        Opcode::Read
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let read_flags = match self.lock_owner {
            Some(_) => READ_LOCKOWNER,
            None => 0,
        };
        e.struct_(&wire::ReadIn {
            fh: self.fh.0,
            offset: self.offset,
            size: self.size,
            read_flags,
            lock_owner: self.lock_owner.unwrap_or_default().0,
            flags: self.flags,
            padding: 0,
        })
    }

    fn reply_payload_len(&self) -> usize {
        self.size as usize
    }

    fn decode(&self, _body: &[u8], payload: usize) -> Result<usize, ReplyError> {
        at_most(payload, self.reply_payload_len())
    }
}

/// WRITE: bytes of a file, which are the payload of the request.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Where to start, in bytes.
    pub offset: u64,
    /// How many bytes to write.
    pub size: u32,
    /// Flags of open(2).
    pub flags: u32,
    /// Flags of FUSE; `LOCKOWNER` is added where it belongs.
    pub write_flags: WriteFlags,
    /// Owner of the locks, where mandatory locks could prevent it.
    pub lock_owner: Option<LockOwner>,
}

impl Operation for Write {
    /// Bytes that were written, at most `size`. None is an error, unless none were to be.
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        Opcode::Write
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let lock_owner_flag = match self.lock_owner {
            Some(_) => WriteFlags::LOCKOWNER,
            None => WriteFlags::NONE,
        };
        e.struct_(&wire::WriteIn {
            fh: self.fh.0,
            offset: self.offset,
            size: self.size,
            write_flags: self.write_flags.with(lock_owner_flag).bits(),
            lock_owner: self.lock_owner.unwrap_or_default().0,
            flags: self.flags,
            padding: 0,
        })
    }

    fn payload_len(&self) -> usize {
        self.size as usize
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::WriteOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<usize, ReplyError> {
        let raw: wire::WriteOut = exact(body)?;
        if raw.size == 0 && self.size != 0 {
            return Err(Impossible::Count.into());
        }
        Ok(at_most(raw.size, self.size)? as usize)
    }
}

/// FSYNC and FSYNCDIR: what was written becomes permanent.
#[derive(Clone, Copy, Debug)]
pub struct Fsync {
    /// Of which file.
    pub node: NodeId,
    /// Whether it is a directory.
    pub dir: bool,
    /// The handle.
    pub fh: Fh,
    /// Whether attributes that are not needed to read the data can wait.
    pub datasync: bool,
}

impl Operation for Fsync {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        match self.dir {
            true => Opcode::Fsyncdir,
            false => Opcode::Fsync,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::FsyncIn {
            fh: self.fh.0,
            fsync_flags: if self.datasync { FSYNC_FDATASYNC } else { 0 },
            padding: 0,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// FALLOCATE: makes, or takes away, room in a file.
#[derive(Clone, Copy, Debug)]
pub struct Fallocate {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Start in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// `FALLOC_FL_*` of fallocate(2).
    pub mode: u32,
}

impl Operation for Fallocate {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Fallocate
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::FallocateIn {
            fh: self.fh.0,
            offset: self.offset,
            length: self.length,
            mode: self.mode,
            padding: 0,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// COPY_FILE_RANGE and COPY_FILE_RANGE_64: bytes from one file to another.
#[derive(Clone, Copy, Debug)]
pub struct CopyFileRange {
    /// From which file.
    pub node_in: NodeId,
    /// Its handle.
    pub fh_in: Fh,
    /// Where to start in it, in bytes.
    pub off_in: u64,
    /// To which file.
    pub node_out: NodeId,
    /// Its handle.
    pub fh_out: Fh,
    /// Where to start in it, in bytes.
    pub off_out: u64,
    /// How many bytes to copy.
    pub len: u64,
    /// Flags of copy_file_range(2).
    pub flags: u64,
    /// Whether to use the form whose reply can be 4 GiB and more. The other asks for
    /// [`MAX_NARROW`](Self::MAX_NARROW) bytes at most.
    pub wide: bool,
}

impl CopyFileRange {
    /// Most bytes of the older form: what its reply can say, in whole pages.
    pub const MAX_NARROW: u64 = 0xffff_f000;

    fn asked(&self) -> u64 {
        match self.wide {
            true => self.len,
            false => self.len.min(Self::MAX_NARROW),
        }
    }
}

impl Operation for CopyFileRange {
    /// Bytes that were copied, at most `len`; 0 at the end of the file.
    type Reply = u64;

    fn opcode(&self) -> Opcode {
        match self.wide {
            true => Opcode::CopyFileRange64,
            false => Opcode::CopyFileRange,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node_in)
    }

    fn other_node(&self) -> Option<NodeId> {
        Some(self.node_out)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::CopyFileRangeIn {
            fh_in: self.fh_in.0,
            off_in: self.off_in,
            nodeid_out: self.node_out.get(),
            fh_out: self.fh_out.0,
            off_out: self.off_out,
            len: self.asked(),
            flags: self.flags,
        })
    }

    fn reply_len(&self) -> usize {
        match self.wide {
            true => size_of::<wire::CopyFileRangeOut>(),
            false => size_of::<wire::WriteOut>(),
        }
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<u64, ReplyError> {
        let copied = match self.wide {
            true => exact::<wire::CopyFileRangeOut>(body)?.bytes_copied,
            false => u64::from(exact::<wire::WriteOut>(body)?.size),
        };
        at_most(copied, self.asked())
    }
}

/// Checks a count of bytes against what was asked for.
pub(crate) fn at_most<T: PartialOrd>(count: T, asked: T) -> Result<T, ReplyError> {
    if count > asked {
        return Err(Impossible::Count.into());
    }
    Ok(count)
}
