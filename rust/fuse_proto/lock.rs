// SPDX-License-Identifier: GPL-2.0

//! Locks that the daemon keeps: POSIX locks and those of flock(2).

use crate::reply::{empty, exact, Impossible, ReplyError};
use crate::value::{Fh, LockOwner, NodeId, MAX_OFFSET};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;

/// `FUSE_LK_FLOCK`: the lock is one of flock(2).
const LK_FLOCK: u32 = 1;

/// What a lock is for (`F_RDLCK`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LockKind {
    /// To read: others can, too.
    Read = 0,
    /// To write: nobody else can have one.
    Write = 1,
    /// None: to unlock.
    Unlock = 2,
}

/// A lock (`struct fuse_file_lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// First byte.
    pub start: u64,
    /// Last byte; [`MAX_OFFSET`] for everything from `start` on.
    pub end: u64,
    /// What for.
    pub kind: LockKind,
    /// The process that has it, or wants it.
    pub pid: u32,
}

impl FileLock {
    fn encode(&self) -> wire::FileLock {
        wire::FileLock {
            start: self.start,
            end: self.end,
            kind: self.kind as u32,
            pid: self.pid,
        }
    }

    /// Checks a lock; none at all has no range.
    fn decode(raw: &wire::FileLock) -> Result<Option<Self>, ReplyError> {
        let kind = match raw.kind {
            0 => LockKind::Read,
            1 => LockKind::Write,
            2 => return Ok(None),
            _ => return Err(Impossible::Lock.into()),
        };
        if raw.start > raw.end || raw.end > MAX_OFFSET {
            return Err(Impossible::Lock.into());
        }
        Ok(Some(Self {
            start: raw.start,
            end: raw.end,
            kind,
            pid: raw.pid,
        }))
    }
}

/// GETLK: who has a lock that is in the way of this one.
#[derive(Clone, Copy, Debug)]
pub struct Getlk {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Who asks.
    pub owner: LockOwner,
    /// The lock that is wanted.
    pub lock: FileLock,
}

impl Operation for Getlk {
    /// One of the locks in the way, if there are any.
    type Reply = Option<FileLock>;

    fn opcode(&self) -> Opcode {
        Opcode::Getlk
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::LkIn {
            fh: self.fh.0,
            owner: self.owner.0,
            lk: self.lock.encode(),
            lk_flags: 0,
            padding: 0,
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::LkOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Option<FileLock>, ReplyError> {
        FileLock::decode(&exact::<wire::LkOut>(body)?.lk)
    }
}

/// SETLK and SETLKW: takes a lock, or gives it back.
#[derive(Clone, Copy, Debug)]
pub struct Setlk {
    /// Which file.
    pub node: NodeId,
    /// The handle.
    pub fh: Fh,
    /// Who wants it.
    pub owner: LockOwner,
    /// The lock.
    pub lock: FileLock,
    /// Whether it is one of flock(2), which has no range.
    pub flock: bool,
    /// Whether to wait until it can be had.
    pub wait: bool,
}

impl Operation for Setlk {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        match self.wait {
            true => Opcode::Setlkw,
            false => Opcode::Setlk,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::LkIn {
            fh: self.fh.0,
            owner: self.owner.0,
            lk: self.lock.encode(),
            lk_flags: if self.flock { LK_FLOCK } else { 0 },
            padding: 0,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}
