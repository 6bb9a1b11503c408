// SPDX-License-Identifier: GPL-2.0

//! Operations on what is in a file: READ and its kind.

use crate::reply::{Impossible, ReplyError};
use crate::value::{Fh, LockOwner, NodeId};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};

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

/// Checks a count of bytes against what was asked for.
pub(crate) fn at_most<T: PartialOrd>(count: T, asked: T) -> Result<T, ReplyError> {
    if count > asked {
        return Err(Impossible::Count.into());
    }
    Ok(count)
}
