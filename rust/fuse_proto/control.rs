// SPDX-License-Identifier: GPL-2.0

//! Operations that are about other things than what a filesystem is: INTERRUPT, IOCTL, POLL,
//! SYNCFS.

use crate::data::at_most;
use crate::encode::len_u32;
use crate::operation::Answer;
use crate::reply::{empty, exact, is_errno, Impossible, ReplyError};
use crate::value::{Fh, NodeId};
use crate::wire;
use crate::{EncodeError, Encoder, IoctlFlags, Opcode, Operation};
use core::mem::size_of;

/// `FUSE_POLL_SCHEDULE_NOTIFY`: tell when something changes.
const POLL_SCHEDULE_NOTIFY: u32 = 1;

/// INTERRUPT: nobody waits for a request any more. The daemon may answer it early, with EINTR;
/// this request itself it need not answer.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    /// The `unique` of that request.
    pub target: u64,
}

impl Operation for Interrupt {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Interrupt
    }

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::InterruptIn {
            unique: self.target,
        })
    }

    fn answer(&self) -> Answer {
        Answer::Optional
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// IOCTL: whatever the daemon makes of it. Data from the daemon is the payload of the reply.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl<'a> {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Flags of FUSE.
    pub flags: IoctlFlags,
    /// Number of the ioctl.
    pub cmd: u32,
    /// Argument of ioctl(2).
    pub arg: u64,
    /// Data for the daemon.
    pub data: &'a [u8],
    /// Room for data from the daemon in bytes.
    pub out_size: u32,
}

/// What the daemon made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlReply {
    /// Result of ioctl(2); a negative errno (-511..=-1) is an error.
    pub result: i32,
    /// Bytes of data, at most `out_size`.
    pub len: usize,
}

impl Operation for Ioctl<'_> {
    type Reply = IoctlReply;

    fn opcode(&self) -> Opcode {
        Opcode::Ioctl
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::IoctlIn {
            fh: self.fh.0,
            flags: self.flags.bits(),
            cmd: self.cmd,
            arg: self.arg,
            in_size: len_u32(self.data.len())?,
            out_size: self.out_size,
        })?;
        e.bytes(self.data)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::IoctlOut>()
    }

    fn reply_payload_len(&self) -> usize {
        self.out_size as usize
    }

    fn decode(&self, body: &[u8], payload: usize) -> Result<IoctlReply, ReplyError> {
        let raw: wire::IoctlOut = exact(body)?;
        // Nobody was told that they could ask for other buffers.
        if IoctlFlags::from_bits(raw.flags).contains(IoctlFlags::RETRY) {
            return Err(Impossible::IoctlRetry.into());
        }
        if raw.result < 0 && !is_errno(raw.result) {
            return Err(ReplyError::BadErrno(raw.result));
        }
        Ok(IoctlReply {
            result: raw.result,
            len: at_most(payload, self.out_size as usize)?,
        })
    }
}

/// POLL: what can be done without waiting.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    /// With which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// A number that comes back when something changes.
    pub kh: u64,
    /// Whether to tell when something changes.
    pub notify: bool,
    /// What is of interest (`EPOLL*`).
    pub events: u32,
}

impl Operation for Poll {
    /// What can be done (`EPOLL*`): any bits.
    type Reply = u32;

    fn opcode(&self) -> Opcode {
        Opcode::Poll
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::PollIn {
            fh: self.fh.0,
            kh: self.kh,
            flags: if self.notify { POLL_SCHEDULE_NOTIFY } else { 0 },
            events: self.events,
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::PollOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<u32, ReplyError> {
        Ok(exact::<wire::PollOut>(body)?.revents)
    }
}

/// SYNCFS: all that was written to a filesystem becomes permanent.
#[derive(Clone, Copy, Debug)]
pub struct Syncfs {
    /// An inode on it: the root of the share, or of a submount.
    pub node: NodeId,
}

impl Operation for Syncfs {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Syncfs
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::SyncfsIn::default())
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}
