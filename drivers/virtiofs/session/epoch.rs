// SPDX-License-Identifier: GPL-2.0

//! Attribute epochs: the order of replies, and of replies and changes.
//!
//! Replies can overtake each other, and a reply that was asked for before a change through this kernel may arrive after it. When a
//! request abandoned by a killed task completes, everything that was cached before is in doubt. Nothing here sleeps or takes a
//! lock.

use fuse_proto::Opcode;
use kernel::sync::{
    atomic::{
        ordering,
        Atomic, //
    },
    barrier::{
        smp_mb,
        Full, //
    }, //
};

/// How often attributes were asked for since boot, of any inode. It orders questions and changes: a change remembers the last
/// question before it. One more, so that 0 is free.
static QUESTIONS: Atomic<u64> = Atomic::new(1);

/// When attributes were asked for. What they say is at least as new as this, and maybe no newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked(u64);

impl Asked {
    /// As a number, to be kept in a word with other things.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// As it was kept.
    pub(crate) fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// They are asked for now.
    pub(crate) fn now() -> Self {
        Self(QUESTIONS.fetch_add(1u64, ordering::Full).wrapping_add(1))
    }
}

/// An [`Asked`] that any CPU may set. Callable from any context.
pub(crate) struct LastAsked(Atomic<u64>);

impl LastAsked {
    /// Of what was never asked for.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// It is known as of then, unless it was known as of later.
    pub(crate) fn advance(&self, asked: Asked) {
        let mut last = self.0.load(ordering::Relaxed);
        while last < asked.0 {
            match self.0.cmpxchg(last, asked.0, ordering::Full) {
                Ok(_) => break,
                Err(other) => last = other,
            }
        }
    }

    /// It is known as of then.
    pub(crate) fn set(&self, asked: Asked) {
        self.0.store(asked.0, ordering::Relaxed);
    }

    /// As of when it is known.
    pub(crate) fn get(&self) -> Asked {
        Asked(self.0.load(ordering::Relaxed))
    }
}

/// When something was last changed: between which questions for attributes. Callable from any context.
///
/// C: `attr_version`, which counts the changes instead.
pub(crate) struct LastChange(Atomic<u64>);

impl LastChange {
    /// Of what was never changed.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// It has just been changed.
    pub(crate) fn is_now(&self) {
        // Pairs with the counting of a question that is not seen here: it is asked after the change.
        smp_mb(Full);
        let now = QUESTIONS.load(ordering::Relaxed);
        let mut last = self.0.load(ordering::Relaxed);
        // Who changes it at the same time may have seen more questions.
        while last < now {
            match self.0.cmpxchg(last, now, ordering::Release) {
                Ok(_) => break,
                Err(other) => last = other,
            }
        }
    }

    /// Whether what was asked for then may be older.
    pub(crate) fn is_after(&self, asked: Asked) -> bool {
        let change = self.0.load(ordering::Acquire);
        change != 0 && asked.0 <= change
    }
}

/// How often everything was doubted since boot, see [`doubts`].
static DOUBTS: Atomic<u64> = Atomic::new(0);

/// One of the [`doubts`]: these count in the upper 16 bits, so that the 65536th is like the first.
pub(crate) const DOUBT: u64 = 1 << 48;

/// How often everything was doubted since boot, in multiples of [`DOUBT`]. Callable from any context.
pub(crate) fn doubts() -> u64 {
    DOUBTS.load(ordering::Acquire)
}

/// When everything was last doubted.
static DOUBTED: LastChange = LastChange::new();

/// Whether a request may change names, attributes or contents. OPEN empties a file with O_TRUNC.
pub(crate) fn may_change(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Setattr
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Link
            | Opcode::Open
            | Opcode::Create
            | Opcode::Tmpfile
            | Opcode::Write
            | Opcode::Setxattr
            | Opcode::Removexattr
            | Opcode::Ioctl
            | Opcode::Fallocate
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64
    )
}

/// A request has ended that may have changed something, and whose waiter had been killed: what is known of any inode or name was
/// asked for before, and may be as it was. That of all mounts, as this is rare. Callable from any context.
pub(crate) fn doubt_everything() {
    DOUBTED.is_now();
    DOUBTS.fetch_add(DOUBT, ordering::Release);
}

/// Whether everything was doubted since it was `asked` for. Callable from any context.
pub(crate) fn is_doubted(asked: Asked) -> bool {
    DOUBTED.is_after(asked)
}
