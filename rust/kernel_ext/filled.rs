// SPDX-License-Identifier: GPL-2.0

//! Initialised prefixes of buffers.

use core::ops::Range;
#[cfg(VIRTIOFS_KUNIT)]
use kernel::prelude::*;

/// What is filled of a piece of memory: all but one range, and one range, which may lie within the other.
///
/// That is what a write needs to know, which copies bytes to one place and zeroes all around it, in either order. Where it does not
/// suffice, less counts as filled than is.
pub(crate) struct Filled {
    unfilled: Range<usize>,
    copied: Range<usize>,
}

impl Filled {
    /// Nothing of `len` bytes.
    pub(crate) fn nothing(len: usize) -> Self {
        Self {
            unfilled: 0..len,
            copied: 0..0,
        }
    }

    /// These bytes were filled.
    pub(crate) fn copied(&mut self, bytes: Range<usize>) {
        if bytes.is_empty() {
            return;
        }
        let touch = bytes.start <= self.copied.end && self.copied.start <= bytes.end;
        self.copied = match touch && !self.copied.is_empty() {
            true => self.copied.start.min(bytes.start)..self.copied.end.max(bytes.end),
            false => bytes,
        };
        self.cut();
    }

    /// All but these bytes were filled.
    pub(crate) fn all_but(&mut self, bytes: Range<usize>) {
        self.unfilled.start = self.unfilled.start.max(bytes.start);
        self.unfilled.end = self.unfilled.end.min(bytes.end);
        self.cut();
    }

    /// Whether all is.
    pub(crate) fn is_all(&self) -> bool {
        self.unfilled.is_empty()
    }

    /// Whether these bytes are.
    pub(crate) fn has(&self, bytes: &Range<usize>) -> bool {
        let in_copied = self.copied.start <= bytes.start && bytes.end <= self.copied.end;
        let outside = bytes.end <= self.unfilled.start || self.unfilled.end <= bytes.start;
        in_copied || outside || self.is_all()
    }

    /// What was copied at either end of the unfilled bytes is not one of them.
    fn cut(&mut self) {
        if self.copied.start <= self.unfilled.start && self.unfilled.start < self.copied.end {
            self.unfilled.start = self.copied.end;
        }
        if self.copied.start < self.unfilled.end && self.unfilled.end <= self.copied.end {
            self.unfilled.end = self.copied.start;
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_filled)]
mod tests {
    use super::*;

    /// A write of a part, and zeroes around it, fill all; in either order, and not one without the other.
    #[test]
    fn part_and_around() {
        for copy_first in [true, false] {
            let mut filled = Filled::nothing(4096);
            if copy_first {
                filled.copied(100..300);
                assert!(!filled.is_all());
                filled.all_but(100..300);
            } else {
                filled.all_but(100..300);
                assert!(!filled.is_all());
                assert!(!filled.has(&(100..101)));
                assert!(filled.has(&(0..100)) && filled.has(&(300..4096)));
                filled.copied(100..300);
            }
            assert!(filled.is_all());
        }
        let mut filled = Filled::nothing(4096);
        filled.copied(100..299);
        filled.all_but(100..300);
        assert!(!filled.is_all());
        assert!(!filled.has(&(299..300)));
    }

    /// Only what was copied is there of memory that nothing else was done to.
    #[test]
    fn parts() {
        let mut filled = Filled::nothing(4096);
        assert!(!filled.has(&(0..1)));
        filled.copied(100..200);
        assert!(filled.has(&(100..200)));
        assert!(!filled.has(&(99..200)) && !filled.has(&(100..201)));
        // What follows belongs to it; what does not takes its place.
        filled.copied(200..300);
        assert!(filled.has(&(100..300)));
        filled.copied(1000..1001);
        assert!(!filled.has(&(1000..1002)) && filled.has(&(1000..1001)));
        filled.copied(0..4096);
        assert!(filled.is_all() && filled.has(&(0..4096)));
    }
}
