// SPDX-License-Identifier: GPL-2.0

//! Detection of sequential access.

use crate::advice::{Access, Hit, Need};
use crate::policy;
use crate::size::{Order, PAGE_SIZE};
use crate::Part;

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
pub struct Motion {
    /// Where it is.
    pub(crate) part: Part,
    /// One of a run.
    pub(crate) sequential: bool,
    /// Not in the same part as the last one.
    pub(crate) entered: bool,
    /// A page fault right behind the last one.
    pub(crate) adjacent: bool,
}

impl Motion {
    /// Whether it is a use of its part by itself: of a run, the first one there.
    #[inline]
    pub(crate) fn counts(self) -> bool {
        !self.sequential || self.entered
    }
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

    /// Takes note of an access; `max` is the window's largest order, and the size of a chunk.
    #[inline]
    pub fn note(&mut self, access: &Access, max: Order) -> Motion {
        let chunk = chunk(access.offset, max);
        let part = Part::of(access.owner, chunk);
        match access.need {
            Need::Either => self.note_bytes(access.offset, access.len, chunk, part),
            Need::Page | Need::Mapping => self.note_fault(access.offset, chunk, part, max),
        }
    }

    /// What ends where the last one ended is the rest of that, or a second attempt.
    #[inline]
    fn note_bytes(&mut self, offset: u64, len: u64, chunk: u64, part: Part) -> Motion {
        let end = offset.saturating_add(len);
        let again = self.accesses > 0 && end == self.next;
        let continues =
            offset >= self.next && offset <= self.next.saturating_add(policy::SEQUENTIAL_GAP);
        if !continues && !again {
            self.restart();
        }
        if !again {
            self.bytes = self.bytes.saturating_add(len);
            self.accesses = self.accesses.saturating_add(1);
            self.next = end;
        }
        Motion {
            part,
            sequential: self.accesses >= policy::SEQUENTIAL_ACCESSES
                && self.bytes >= policy::SEQUENTIAL_BYTES,
            entered: self.enter(chunk),
            adjacent: false,
        }
    }

    /// A huge page makes all of a chunk accessible, so that what is then read there causes no fault: a run is one chunk after the
    /// other.
    fn note_fault(&mut self, offset: u64, chunk: u64, part: Part, max: Order) -> Motion {
        let before = self.chunk;
        let entered = self.enter(chunk);
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
            part,
            sequential: self.accesses >= policy::SEQUENTIAL_ACCESSES,
            entered,
            adjacent: touched == page && touched != 0,
        }
    }

    /// Notes the chunk of an access: whether it is another one than before.
    #[inline]
    fn enter(&mut self, chunk: u64) -> bool {
        let chunk = chunk.saturating_add(1);
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

    /// Notes that an access found its range, and what is to be there next, if that was not said before: a place for
    /// [`Window::plan_ahead`](crate::Window::plan_ahead).
    #[inline]
    pub fn found(&mut self, access: &Access, motion: Motion, hit: &Hit, max: Order) -> Option<u64> {
        if !motion.sequential {
            return None;
        }
        self.give(access.offset.saturating_add(hit.len));
        self.propose(access.offset, max)
    }

    /// Notes that the run was given a range up to there.
    #[inline]
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
    #[inline]
    pub(crate) fn pauses(&self, offset: u64) -> bool {
        offset < self.pause
    }

    /// The chunk after this one, if the run is in the second half of this one, and that was not
    /// said before.
    #[inline]
    pub(crate) fn propose(&mut self, offset: u64, max: Order) -> Option<u64> {
        if self.pauses(offset) {
            return None;
        }
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
