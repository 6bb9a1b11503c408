// SPDX-License-Identifier: GPL-2.0

//! Operations on names in a directory that find something: LOOKUP. Those that change names are
//! in [`create`](crate::create).

use crate::reply::{exact, ReplyError};
use crate::value::{Entry, NodeId, Ttl};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;

/// LOOKUP: what a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The directory; with the name `.` or `..`, any inode.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupReply {
    /// This inode.
    Found(Entry),
    /// Nothing, which may be cached. (A daemon can say ENOENT instead, which may not.)
    Negative(Ttl),
}

impl Lookup<'_> {
    /// Only `.` and `..`, as file handles are decoded, can lead to the root of the share.
    fn may_be_root(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

impl Operation for Lookup<'_> {
    type Reply = LookupReply;

    fn opcode(&self) -> Opcode {
        Opcode::Lookup
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.name(self.name)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<LookupReply, ReplyError> {
        let raw: wire::EntryOut = exact(body)?;
        if raw.nodeid == 0 {
            let ttl = Ttl::new(raw.entry_valid, raw.entry_valid_nsec);
            return Ok(LookupReply::Negative(ttl));
        }
        let entry = match self.may_be_root() {
            true => Entry::decode(&raw)?,
            false => Entry::decode_child(&raw)?,
        };
        Ok(LookupReply::Found(entry))
    }
}
