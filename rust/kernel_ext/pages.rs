// SPDX-License-Identifier: GPL-2.0

//! Kernel pages that serve as one buffer, without needing contiguous memory.

use crate::scatterlist::Scatterlist;
use core::ptr::NonNull;
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
};

/// A buffer of order-0 pages.
///
/// A device may write to the pages at any time while they are lent to it, and a hostile one later still. Bytes are
/// therefore copied in and out, and never borrowed.
pub struct PageBuffer {
    pages: KVec<Page>,
    sg: Scatterlist,
    len: usize,
}

impl PageBuffer {
    /// A zeroed buffer of `len` bytes. Sleeps.
    pub fn new(len: usize) -> Result<Self> {
        let count = len.div_ceil(PAGE_SIZE);
        let mut pages = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut sg = Scatterlist::new(count, GFP_KERNEL)?;
        let mut left = len;
        for _ in 0..count {
            let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
            let part = left.min(PAGE_SIZE);
            let raw = NonNull::new(page.as_ptr()).ok_or(ENOMEM)?;
            // SAFETY: `Page` is a page that the kernel allocated for its own use; `part` bytes lie in it.
            unsafe { sg.push(raw, 0, part)? };
            left -= part;
            pages.push(page, GFP_KERNEL)?;
        }
        Ok(Self { pages, sg, len })
    }

    /// The buffer's size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One of the buffer's pages, counted from 0.
    pub fn page(&self, index: usize) -> Option<&Page> {
        self.pages.get(index)
    }

    /// The buffer's segments.
    pub fn scatterlist(&self) -> &Scatterlist {
        &self.sg
    }

    /// Copies `to.len()` bytes at `offset` out of the buffer; `EFAULT` when they do not lie in it.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        self.for_each_part(offset, to.len(), |page, at, done, part| {
            let to = to.get_mut(done..done + part).ok_or(EFAULT)?;
            // SAFETY: `to` is valid for writes of `part` bytes. A device that still writes to the page makes the copied
            // values arbitrary, which every caller must expect of bytes of a device.
            unsafe { page.read_raw(to.as_mut_ptr(), at, part) }
        })
    }

    /// Copies the first `len` bytes to where `iter` stands, and advances it. Sleeps. `EFAULT` when they can't be written there.
    pub fn copy_to_iter(&self, len: usize, iter: &mut IovIterDest<'_>) -> Result {
        let mut chunk = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        let mut done = 0;
        while done < len {
            let part = chunk.get_mut(..PAGE_SIZE.min(len - done)).ok_or(EFAULT)?;
            self.read(done, part)?;
            if iter.copy_to_iter(part) != part.len() {
                return Err(EFAULT);
            }
            done += part.len();
        }
        Ok(())
    }

    /// A buffer of up to `max` bytes from where `iter` stands, which is advanced. Sleeps. `EFAULT` when they can't be read.
    pub fn from_iter(max: usize, iter: &mut IovIterSource<'_>) -> Result<Self> {
        let len = max.min(iter.len());
        let mut this = Self::new(len)?;
        let mut chunk = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        let mut done = 0;
        while done < len {
            let part = chunk.get_mut(..PAGE_SIZE.min(len - done)).ok_or(EFAULT)?;
            if iter.copy_from_iter(part) != part.len() {
                return Err(EFAULT);
            }
            this.write(done, part)?;
            done += part.len();
        }
        Ok(this)
    }

    /// Copies `from` into the buffer at `offset`; `EFAULT` when it does not fit.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result {
        self.for_each_part(offset, from.len(), |page, at, done, part| {
            let from = from.get(done..done + part).ok_or(EFAULT)?;
            // SAFETY: `from` is valid for reads of `part` bytes; `&mut self` keeps others of this kernel away from the page.
            unsafe { page.write_raw(from.as_ptr(), at, part) }
        })
    }

    /// Calls `each(page, offset in the page, bytes done before, bytes of this part)` over a range of the buffer.
    fn for_each_part(
        &self,
        offset: usize,
        len: usize,
        mut each: impl FnMut(&Page, usize, usize, usize) -> Result,
    ) -> Result {
        let end = offset.checked_add(len).ok_or(EFAULT)?;
        if end > self.len {
            return Err(EFAULT);
        }
        let mut done = 0;
        while done < len {
            let position = offset + done;
            let at = position % PAGE_SIZE;
            let part = (PAGE_SIZE - at).min(len - done);
            each(
                self.pages.get(position / PAGE_SIZE).ok_or(EFAULT)?,
                at,
                done,
                part,
            )?;
            done += part;
        }
        Ok(())
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_pages)]
mod tests {
    use super::*;

    /// What is written across a page's end is read again, and the rest stays zero.
    #[test]
    fn across_pages() -> Result {
        let mut buffer = PageBuffer::new(3 * PAGE_SIZE - 1)?;
        let text = b"across the end of a page";
        buffer.write(PAGE_SIZE - 5, text)?;
        let mut back = [0xff; 26];
        buffer.read(PAGE_SIZE - 6, &mut back)?;
        assert_eq!(back.first(), Some(&0));
        assert_eq!(back.get(1..=text.len()), Some(&text[..]));
        assert_eq!(back.last(), Some(&0));
        assert_eq!(buffer.scatterlist().segments(), 3);
        assert_eq!(buffer.scatterlist().len_bytes(), 3 * PAGE_SIZE - 1);
        Ok(())
    }

    /// Nothing is read or written beyond the length, though the last page is larger.
    #[test]
    fn bounds() -> Result {
        let mut buffer = PageBuffer::new(10)?;
        assert!(buffer.write(0, &[1; 10]).is_ok());
        assert!(buffer.write(1, &[1; 10]).is_err());
        assert!(buffer.read(10, &mut [0]).is_err());
        assert!(buffer.read(usize::MAX, &mut [0]).is_err());
        assert!(buffer.read(10, &mut []).is_ok());
        assert!(PageBuffer::new(0)?.is_empty());
        Ok(())
    }
}
