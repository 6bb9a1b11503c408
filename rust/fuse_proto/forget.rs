// SPDX-License-Identifier: GPL-2.0

//! FORGET and BATCH_FORGET: lookups that are given back. Neither has a reply.

use crate::encode::HEADER_LEN;
use crate::operation::Answer;
use crate::reply::ReplyError;
use crate::value::NodeId;
use crate::wire;
use crate::{Caller, EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;
use zerocopy::IntoBytes;

/// FORGET: gives back lookups of one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The inode, not the root.
    pub node: NodeId,
    /// How many lookups of it are given back.
    pub nlookup: u64,
}

impl Operation for Forget {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Forget
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::ForgetIn {
            nlookup: self.nlookup,
        })
    }

    fn answer(&self) -> Answer {
        Answer::Nothing
    }

    fn decode(&self, _body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        Ok(())
    }
}

/// BATCH_FORGET: gives back lookups of many inodes, written one by one into a buffer.
#[derive(Debug)]
pub struct BatchForget<'a> {
    e: Encoder<'a>,
    count: u32,
    capacity: usize,
}

impl<'a> BatchForget<'a> {
    const HEAD: usize = HEADER_LEN + size_of::<wire::BatchForgetIn>();

    /// How many inodes fit into a buffer of so many bytes.
    pub const fn capacity(buf_len: usize) -> usize {
        buf_len.saturating_sub(Self::HEAD) / size_of::<wire::ForgetOne>()
    }

    /// Bytes of the request with so many inodes.
    pub const fn encoded_len(count: usize) -> usize {
        count
            .saturating_mul(size_of::<wire::ForgetOne>())
            .saturating_add(Self::HEAD)
    }

    /// Starts an empty batch; fails if not even its head fits into `buf`.
    pub fn new(buf: &'a mut [u8]) -> Result<Self, EncodeError> {
        let capacity = Self::capacity(buf.len());
        let mut e = Encoder::new(buf);
        e.struct_(&wire::BatchForgetIn::default())?;
        Ok(Self {
            e,
            count: 0,
            capacity,
        })
    }

    /// Adds an inode; `false` if there is no room for it.
    #[must_use]
    pub fn push(&mut self, forget: Forget) -> bool {
        if self.is_full() {
            return false;
        }
        let one = wire::ForgetOne {
            nodeid: forget.node.get(),
            nlookup: forget.nlookup,
        };
        let added = self.e.struct_(&one).is_ok();
        self.count = self.count.saturating_add(u32::from(added));
        added
    }

    /// Number of inodes so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether no inode was added: nothing to send.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is no room for another inode.
    pub fn is_full(&self) -> bool {
        self.count as usize >= self.capacity
    }

    /// Writes what is known only now, and gives the length of the request in bytes.
    pub fn finish(mut self, unique: u64) -> Result<usize, EncodeError> {
        let head = wire::BatchForgetIn {
            count: self.count,
            dummy: 0,
        };
        self.e.patch(HEADER_LEN, head.as_bytes())?;
        let caller = Caller::default();
        self.e.finish(Opcode::BatchForget, unique, None, &caller, 0)
    }
}
