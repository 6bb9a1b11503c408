// SPDX-License-Identifier: GPL-2.0

//! The `Operation` trait: encoding of a request, and the check of its reply.

use crate::reply::{check_header, ReplyError, HEADER_LEN};
use crate::{Caller, EncodeError, Encoder, NodeId, Opcode};

/// Whether a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Always, with a reply that has a header.
    Reply,
    /// Maybe with a reply, maybe with none (the device writes nothing): both are success.
    Optional,
    /// Never: the device gets no buffer to write to.
    Nothing,
}

/// A request, with what it takes to write it and to check its reply.
///
/// A request is a header, arguments, and in some operations a *payload* that follows them: data
/// that is not copied through here but is in pages of its own. A reply likewise is a header, a
/// body of fixed size, and a payload of up to so many bytes.
pub trait Operation {
    /// What the reply says, checked.
    type Reply;

    /// What is asked for.
    fn opcode(&self) -> Opcode;

    /// The inode it is asked of.
    fn node(&self) -> Option<NodeId>;

    /// Another inode that the arguments name.
    fn other_node(&self) -> Option<NodeId> {
        None
    }

    /// Writes the arguments.
    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError>;

    /// Bytes of payload that follow the arguments.
    fn payload_len(&self) -> usize {
        0
    }

    /// Whether to expect a reply.
    fn answer(&self) -> Answer {
        Answer::Reply
    }

    /// Bytes of the body of the reply, after its header and without the payload.
    fn reply_len(&self) -> usize {
        0
    }

    /// Room for the payload of the reply in bytes.
    fn reply_payload_len(&self) -> usize {
        0
    }

    /// Checks the body of a reply that is no refusal. `body` is [`reply_len`](Self::reply_len)
    /// bytes, or fewer if the daemon sent fewer, `payload` the number of bytes after them, at
    /// most [`reply_payload_len`](Self::reply_payload_len).
    fn decode(&self, body: &[u8], payload: usize) -> Result<Self::Reply, ReplyError>;

    /// Bytes of the whole request without its payload: what [`encode`](Self::encode) writes.
    fn encoded_len(&self) -> Result<usize, EncodeError> {
        let mut e = Encoder::measure();
        self.args(&mut e)?;
        Ok(e.written())
    }

    /// Writes header and arguments to the start of `buf`, and gives their length in bytes.
    /// `unique` names the request, and its reply.
    fn encode(&self, unique: u64, caller: &Caller, buf: &mut [u8]) -> Result<usize, EncodeError> {
        let mut e = Encoder::new(buf);
        self.args(&mut e)?;
        e.finish(
            self.opcode(),
            unique,
            self.node(),
            caller,
            self.payload_len(),
        )
    }

    /// Checks a whole reply. `reply` is header and body as the device left them (what is in it
    /// after these does not matter), `used` the number of bytes that the device says it wrote,
    /// payload included.
    fn accept(&self, unique: u64, reply: &[u8], used: usize) -> Result<Self::Reply, ReplyError> {
        let room = HEADER_LEN.saturating_add(self.reply_len());
        if used == 0 && self.answer() != Answer::Reply {
            return self.decode(&[], 0);
        }
        let capacity = room.saturating_add(self.reply_payload_len());
        let len = check_header(reply, used, unique, capacity)?;
        let body_len = len.min(self.reply_len());
        let body = reply
            .get(HEADER_LEN..)
            .and_then(|body| body.get(..body_len))
            .ok_or(ReplyError::Short { used })?;
        self.decode(body, len.saturating_sub(body_len))
    }
}
