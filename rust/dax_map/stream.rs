// SPDX-License-Identifier: GPL-2.0

//! Recognises who reads, writes or touches one thing after the other.

use crate::policy;
use crate::size::{Order, PAGE_SIZE};

/// What is remembered of an open file between two accesses. A copy of it may be kept anywhere;
/// a lost update costs a guess, nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Where the last access ended.
    next: u64,
    /// Bytes and accesses that followed each other; of page faults, those that went on to the next chunk.
    bytes: u64,
    accesses: u32,
    /// Chunk of the last access, plus one.
    chunk: u64,
    /// Where the page of the last page fault ended.
    touched: u64,
    /// Up to where mapping ahead was proposed, in bytes.
    ahead: u64,
    /// Up to where the run was given a range, in bytes.
    given: u64,
    /// From where on the run is given ranges again, in bytes.
    pause: u64,
}

/// What an access means, seen with those before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Motion {
    /// One of a run.
    pub(crate) sequential: bool,
    /// Not in the same chunk as the last one.
    pub(crate) entered: bool,
    /// A page fault right behind the last one.
    pub(crate) adjacent: bool,
}

impl Motion {
    /// Of what continues nothing.
    pub(crate) const SINGLE: Self = Self {
        sequential: false,
        entered: true,
        adjacent: false,
    };
}

impl Stream {
    /// A file that was not accessed yet.
    pub const fn new() -> Self {
        Self {
            next: 0,
            bytes: 0,
            accesses: 0,
            chunk: 0,
            touched: 0,
            ahead: 0,
            given: 0,
            pause: 0,
        }
    }

    /// Whether an access goes on from the last one, or is the rest of it, or a second attempt: which ends where that ended.
    #[inline]
    pub fn continues(&self, offset: u64, len: u64) -> bool {
        let follows =
            offset >= self.next && offset <= self.next.saturating_add(policy::SEQUENTIAL_GAP);
        follows || self.is_again(offset.saturating_add(len))
    }

    #[inline]
    fn is_again(&self, end: u64) -> bool {
        self.accesses > 0 && end == self.next
    }

    /// Takes note of an access that does not [continue](Self::continues) what was before; `max` is the window's largest order.
    #[inline]
    pub fn begin(&mut self, offset: u64, len: u64, max: Order) {
        *self = Self {
            next: offset.saturating_add(len),
            bytes: len,
            accesses: 1,
            chunk: chunk(offset, max).saturating_add(1),
            touched: self.touched,
            ..Self::new()
        };
    }

    /// Takes note of an access; `max` is the window's largest order, and the size of a chunk.
    pub(crate) fn note(&mut self, offset: u64, len: u64, max: Order) -> Motion {
        let end = offset.saturating_add(len);
        let again = self.is_again(end);
        if !self.continues(offset, len) {
            self.restart();
        }
        if !again {
            self.bytes = self.bytes.saturating_add(len);
            self.accesses = self.accesses.saturating_add(1);
            self.next = end;
        }
        Motion {
            sequential: self.accesses >= policy::SEQUENTIAL_ACCESSES
                && self.bytes >= policy::SEQUENTIAL_BYTES,
            entered: self.enter(offset, max),
            adjacent: false,
        }
    }

    /// Takes note of a page fault. A huge page makes all of a chunk accessible, so that what is then read there causes
    /// no fault: a run is one chunk after the other.
    pub(crate) fn note_fault(&mut self, offset: u64, max: Order) -> Motion {
        let before = self.chunk;
        let entered = self.enter(offset, max);
        if entered {
            if self.chunk != before.saturating_add(1) {
                self.restart();
            }
            self.accesses = self.accesses.saturating_add(1);
            self.next = max.align_down(offset).saturating_add(max.bytes());
        }
        let page = offset.saturating_sub(offset.checked_rem(PAGE_SIZE).unwrap_or(0));
        let touched = core::mem::replace(&mut self.touched, page.saturating_add(PAGE_SIZE));
        Motion {
            sequential: self.accesses >= policy::SEQUENTIAL_ACCESSES,
            entered,
            adjacent: touched == page && touched != 0,
        }
    }

    /// Notes the chunk of an access: whether it is another one than before.
    fn enter(&mut self, offset: u64, max: Order) -> bool {
        let chunk = chunk(offset, max).saturating_add(1);
        core::mem::replace(&mut self.chunk, chunk) != chunk
    }

    /// What comes now does not continue what was before.
    fn restart(&mut self) {
        self.bytes = 0;
        self.accesses = 0;
        self.ahead = 0;
        self.given = 0;
        self.pause = 0;
    }

    /// Notes that the run was given a range up to there.
    pub(crate) fn give(&mut self, end: u64) {
        self.given = self.given.max(end);
    }

    /// Whether a run that finds nothing mapped at `offset` should be given a range: not if it was, and
    /// that was reclaimed before it was read to its end. Then it pauses.
    pub(crate) fn deserves(&mut self, offset: u64, max: Order) -> bool {
        if offset < self.given {
            let pause = max.bytes().saturating_mul(policy::PAUSE_CHUNKS);
            self.pause = offset.saturating_add(pause);
            self.given = 0;
        }
        !self.pauses(offset)
    }

    /// Whether the run is not given ranges here.
    pub(crate) fn pauses(&self, offset: u64) -> bool {
        offset < self.pause
    }

    /// The chunk after this one, if the run is in the second half of this one, and that was not
    /// said before.
    pub(crate) fn propose(&mut self, offset: u64, max: Order) -> Option<u64> {
        let start = max.align_down(offset);
        let next = start.checked_add(max.bytes())?;
        let half = max.bytes() >> 1;
        if self.next.saturating_sub(start) < half || self.ahead > start {
            return None;
        }
        self.ahead = next;
        Some(next)
    }
}

/// Which piece of the largest order in a file an offset is in.
#[inline]
pub(crate) fn chunk(offset: u64, max: Order) -> u64 {
    offset.checked_div(max.bytes()).unwrap_or(0)
}
