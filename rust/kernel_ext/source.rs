// SPDX-License-Identifier: GPL-2.0

//! Position of the source iterator of a write.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h)

use crate::bindings;
use kernel::iov::IovIterSource;
#[cfg(VIRTIOFS_KUNIT)]
use kernel::prelude::*;

/// A source that bytes are taken of, maybe more than are written in the end: with a short WRITE, or an error. When this is dropped
/// it stands behind those that were [kept](Taken::keep), as if no others had been taken.
///
/// A caller of `write_iter` may go on from where its source stands, as io_uring does: what it stands behind counts as written.
pub struct Taken<'a, 'data> {
    source: &'a mut IovIterSource<'data>,
    start: bindings::iov_iter,
    len: usize,
    kept: usize,
}

impl<'a, 'data> Taken<'a, 'data> {
    /// Begins where `source` stands. The checks of a write, which may make it shorter, come before.
    pub fn new(source: &'a mut IovIterSource<'data>) -> Self {
        // SAFETY: The iterator is valid, and a plain structure. The copy is put back at the end, or not used.
        let start = unsafe { source.as_raw().read() };
        Self {
            len: source.len(),
            source,
            start,
            kept: 0,
        }
    }

    /// The source, to take bytes of.
    pub fn source(&mut self) -> &mut IovIterSource<'data> {
        self.source
    }

    /// The first `bytes` of what was taken were written. The last call counts.
    pub fn keep(&mut self, bytes: usize) {
        self.kept = bytes;
    }
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        if self.len.checked_sub(self.source.len()) == Some(self.kept) {
            return;
        }
        // SAFETY: The iterator is valid. The copy is an earlier state of one for `'data`, and its bytes can be read as long.
        unsafe { self.source.as_raw().write(core::ptr::read(&self.start)) };
        self.source.advance(self.kept);
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_source)]
mod tests {
    use super::*;

    /// Calls `each` with a source of the bytes 0 to 9 in two segments.
    fn with_source(each: impl FnOnce(&mut IovIterSource<'_>)) -> Result {
        let bytes: [u8; 10] = core::array::from_fn(|i| i as u8);
        let segment = |part: &[u8]| bindings::kvec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        };
        let (first, rest) = bytes.split_at(4);
        let segments = [segment(first), segment(rest)];
        let mut iter = KBox::<bindings::iov_iter>::new_uninit(GFP_KERNEL)?;
        // SAFETY: The segments and their bytes stay until the iterator is not used any more, and are only read.
        let source = unsafe {
            bindings::iov_iter_kvec(
                iter.as_mut_ptr(),
                bindings::ITER_SOURCE,
                segments.as_ptr(),
                segments.len(),
                bytes.len(),
            );
            IovIterSource::from_raw(iter.as_mut_ptr())
        };
        each(source);
        Ok(())
    }

    /// The source stands behind what was kept, across the border of its segments, too; behind nothing if nothing was.
    #[test]
    fn stands_behind_what_is_kept() -> Result {
        for (taken, kept) in [
            (10, 10),
            (10, 6),
            (10, 4),
            (10, 3),
            (5, 5),
            (5, 1),
            (5, 0),
            (0, 0),
        ] {
            with_source(|source| {
                let mut out = [0; 10];
                let mut taking = Taken::new(source);
                taking.source().advance(taken);
                taking.keep(kept);
                drop(taking);
                assert_eq!(source.len(), 10 - kept);
                assert_eq!(source.copy_from_iter(&mut out), 10 - kept);
                assert_eq!(usize::from(out[0]), kept % 10);
            })?;
        }
        // An error on the way.
        with_source(|source| {
            Taken::new(source).source().advance(7);
            assert_eq!(source.len(), 10);
        })
    }
}
