// SPDX-License-Identifier: GPL-2.0

//! Locks of files: GETLK, SETLK, SETLKW, and what FLUSH and RELEASE give back.
//!
//! The daemon keeps them itself, so that two guests' processes, or two mounts, see each other's only through it. INIT agrees on
//! them only when the settings say so.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Mutex;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::Deserialize;

use super::{Failure, Fs, Outcome, Request};
use crate::lock;
use crate::wire::{self, Opcode, Reader, Writer};

/// Kinds of locks, as the protocol has them; 0 is for reading.
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;

/// The owner of locks that are taken as if for another guest.
const ANOTHER: u64 = u64::MAX;

/// What a lock is for, as the control socket says it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    Read,
    Write,
    Unlock,
}

/// A lock on the bytes `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lock {
    start: u64,
    end: u64,
    kind: u32,
    pid: u32,
    owner: u64,
}

impl Lock {
    fn overlaps(&self, other: &Lock) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &Lock) -> bool {
        self.owner != other.owner
            && self.overlaps(other)
            && (self.kind == WRITE || other.kind == WRITE)
    }
}

/// The locks of one file; no two of one owner overlap.
#[derive(Default)]
struct Held(Vec<Lock>);

impl Held {
    /// A lock that keeps `wanted` from being taken.
    fn conflict(&self, wanted: &Lock) -> Option<&Lock> {
        self.0.iter().find(|held| held.conflicts(wanted))
    }

    /// Makes `new` the only lock of its owner on its bytes; an unlock leaves none.
    fn set(&mut self, new: Lock) {
        let mut kept = Vec::new();
        for held in self.0.drain(..) {
            if held.owner != new.owner || !held.overlaps(&new) {
                kept.push(held);
                continue;
            }
            if held.start < new.start {
                kept.push(Lock {
                    end: new.start - 1,
                    ..held
                });
            }
            if held.end > new.end {
                kept.push(Lock {
                    start: new.end + 1,
                    ..held
                });
            }
        }
        if new.kind != UNLOCK {
            kept.push(new);
        }
        self.0 = kept;
    }
}

#[derive(Default)]
struct Table {
    /// By node, and by whether they are those of flock(2); the two kinds do not see each other.
    held: HashMap<(u64, bool), Held>,
    /// Requests that wait for a lock, by their unique number.
    waiting: HashSet<u64>,
    /// Those of them that were interrupted.
    interrupted: HashSet<u64>,
}

/// All locks.
#[derive(Default)]
pub struct Locks(Mutex<Table>);

impl Locks {
    /// Drops all locks.
    pub fn clear(&self) {
        *lock::mutex(&self.0) = Table::default();
    }

    /// Ends the wait of the request `unique`; its sender is then told. `EAGAIN` if it does not wait: it may not have been seen yet.
    pub fn interrupt(&self, unique: u64) -> Result<(), Failure> {
        let mut table = lock::mutex(&self.0);
        if !table.waiting.contains(&unique) {
            return Err(Errno::AGAIN.into());
        }
        table.interrupted.insert(unique);
        Ok(())
    }

    /// Takes the lock `new`, for the request `unique` if it may wait.
    fn set(&self, file: (u64, bool), new: Lock, waiter: Option<u64>) -> Result<(), Failure> {
        let mut table = lock::mutex(&self.0);
        let held = table.held.entry(file).or_default();
        let free = new.kind == UNLOCK || held.conflict(&new).is_none();
        if free {
            held.set(new);
        }
        let Some(unique) = waiter.filter(|_| !free) else {
            waiter.inspect(|unique| {
                table.waiting.remove(unique);
                table.interrupted.remove(unique);
            });
            return if free {
                Ok(())
            } else {
                Err(Errno::AGAIN.into())
            };
        };
        if table.interrupted.remove(&unique) {
            table.waiting.remove(&unique);
            return Err(Errno::INTR.into());
        }
        table.waiting.insert(unique);
        Err(Failure::Wait)
    }

    /// Takes a lock on a node, by whether it is one of flock(2), as if for another guest; says whether it was free.
    pub fn lock_as_another(
        &self,
        file: (u64, bool),
        bytes: RangeInclusive<u64>,
        kind: LockKind,
        pid: u32,
    ) -> bool {
        let lock = Lock {
            start: *bytes.start(),
            end: *bytes.end(),
            kind: kind as u32,
            pid,
            owner: ANOTHER,
        };
        self.set(file, lock, None).is_ok()
    }

    /// How many locks are held, and how many requests wait for one.
    pub fn live(&self) -> (usize, usize) {
        let table = lock::mutex(&self.0);
        let held = table.held.values().map(|held| held.0.len()).sum();
        (held, table.waiting.len())
    }

    /// Gives back what `owner` has of a file.
    pub(super) fn release(&self, nodeid: u64, flock: bool, owner: u64) {
        let mut table = lock::mutex(&self.0);
        if let Some(held) = table.held.get_mut(&(nodeid, flock)) {
            held.0.retain(|held| held.owner != owner);
        }
    }
}

/// Reads the arguments of a request about a lock.
fn arguments(args: &mut Reader<'_>) -> Result<(u64, Lock, bool), Failure> {
    let (fh, owner) = (args.u64()?, args.u64()?);
    let (start, end, kind, pid) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
    let (flags, _) = (args.u32()?, args.u32()?);
    if kind > UNLOCK || start > end {
        return Err(Failure::Malformed(format!(
            "lock of kind {kind} on {start}..={end}"
        )));
    }
    let lock = Lock {
        start,
        end,
        kind,
        pid,
        owner,
    };
    Ok((fh, lock, flags & wire::LK_FLOCK != 0))
}

impl Fs {
    /// GETLK.
    pub fn getlk(&self, request: &mut Request<'_>) -> Outcome {
        let (fh, wanted, flock) = arguments(&mut request.args)?;
        self.file(request.header.nodeid, fh)?;
        let table = lock::mutex(&self.locks.0);
        let held = table.held.get(&(request.header.nodeid, flock));
        let conflict = held.and_then(|held| held.conflict(&wanted)).copied();
        let answer = conflict.unwrap_or(Lock {
            kind: UNLOCK,
            pid: 0,
            ..wanted
        });
        let mut w = Writer::default();
        w.u64(answer.start)
            .u64(answer.end)
            .u32(answer.kind)
            .u32(answer.pid);
        Ok(w.take())
    }

    /// SETLK and SETLKW.
    pub fn setlk(&self, request: &mut Request<'_>) -> Outcome {
        let (fh, new, flock) = arguments(&mut request.args)?;
        let header = &request.header;
        let file = self.file(header.nodeid, fh)?;
        let waiter = (header.opcode == Opcode::SETLKW).then_some(header.unique);
        let (place, kind) = ((header.nodeid, flock), new.kind);
        let none = Lock {
            kind: UNLOCK,
            ..new
        };
        self.locks.set(place, new, waiter)?;
        if flock {
            let on_host = match kind {
                UNLOCK => FlockOperation::NonBlockingUnlock,
                WRITE => FlockOperation::NonBlockingLockExclusive,
                _ => FlockOperation::NonBlockingLockShared,
            };
            if let Err(error) = rustix::fs::flock(&file, on_host) {
                self.locks.set(place, none, None)?;
                return Err(error.into());
            }
        }
        Ok(Vec::new())
    }

    /// INTERRUPT.
    pub fn interrupt(&self, request: &mut Request<'_>) -> Outcome {
        self.locks.interrupt(request.args.u64()?)?;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 0;

    fn lock(start: u64, end: u64, kind: u32, owner: u64) -> Lock {
        Lock {
            start,
            end,
            kind,
            pid: 1,
            owner,
        }
    }

    const FILE: (u64, bool) = (2, false);

    #[test]
    fn an_unlock_cuts_a_hole() {
        let mut held = Held::default();
        held.set(lock(0, 99, WRITE, 1));
        held.set(lock(10, 19, UNLOCK, 1));
        assert_eq!(held.0, [lock(0, 9, WRITE, 1), lock(20, 99, WRITE, 1)]);
        held.set(lock(0, u64::MAX, READ, 1));
        assert_eq!(held.0, [lock(0, u64::MAX, READ, 1)]);
    }

    #[test]
    fn writers_exclude_others() {
        let mut held = Held::default();
        held.set(lock(0, 9, READ, 1));
        assert_eq!(held.conflict(&lock(5, 20, READ, 2)), None);
        assert_eq!(
            held.conflict(&lock(5, 20, WRITE, 2)),
            Some(&lock(0, 9, READ, 1))
        );
        assert_eq!(held.conflict(&lock(5, 20, WRITE, 1)), None);
        assert_eq!(held.conflict(&lock(10, 20, WRITE, 2)), None);
    }

    #[test]
    fn waiters_get_the_lock_or_are_interrupted() {
        let locks = Locks::default();
        locks.set(FILE, lock(0, 9, WRITE, 1), None).unwrap();
        let again = locks.set(FILE, lock(0, 9, WRITE, 2), None);
        assert!(matches!(again, Err(Failure::Errno(Errno::AGAIN))));
        assert!(matches!(
            locks.set(FILE, lock(0, 9, WRITE, 2), Some(7)),
            Err(Failure::Wait)
        ));
        assert!(locks.interrupt(8).is_err());
        locks.interrupt(7).unwrap();
        let interrupted = locks.set(FILE, lock(0, 9, WRITE, 2), Some(7));
        assert!(matches!(interrupted, Err(Failure::Errno(Errno::INTR))));
        assert!(matches!(
            locks.set(FILE, lock(0, 9, WRITE, 2), Some(9)),
            Err(Failure::Wait)
        ));
        locks.release(2, false, 1);
        locks.set(FILE, lock(0, 9, WRITE, 2), Some(9)).unwrap();
        assert!(lock::mutex(&locks.0).waiting.is_empty());
    }
}
