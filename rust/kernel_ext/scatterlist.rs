// SPDX-License-Identifier: GPL-2.0

//! Scatterlists that are built once and handed to a virtqueue.
//!
//! C header: [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A list of memory segments, in order.
///
/// It does not keep the memory alive: whoever builds one owns the pages as well.
///
/// # Invariants
///
/// `entries` is empty, or a table initialised by `sg_init_table()` of which the first `used` entries are set. The end mark is on the
/// last of these, so that C code never gets to an entry that is not set.
pub struct Scatterlist {
    entries: KVec<bindings::scatterlist>,
    used: usize,
    bytes: usize,
}

// SAFETY: A scatterlist entry is plain data: a page pointer, an offset and a length.
unsafe impl Send for Scatterlist {}
// SAFETY: As above; nothing changes it through a shared reference.
unsafe impl Sync for Scatterlist {}

impl Scatterlist {
    /// An empty list with room for `capacity` segments.
    pub fn new(capacity: usize, flags: kernel::alloc::Flags) -> Result<Self> {
        let mut entries = KVec::with_capacity(capacity, flags)?;
        if capacity > 0 {
            // SAFETY: There is memory for `capacity` entries, all of which are initialised. It is at most `isize::MAX` bytes, and an
            // entry has more than two of them, so the number fits.
            unsafe {
                bindings::sg_init_table(entries.as_mut_ptr(), u32::try_from(capacity)?);
                entries.inc_len(capacity);
            }
        }
        // INVARIANT: A fresh table, no entry set.
        Ok(Self {
            entries,
            used: 0,
            bytes: 0,
        })
    }

    /// Appends `len` bytes at `offset` of `page`; contiguous pages may be one segment.
    ///
    /// `E2BIG` when there is no room, `EINVAL` when there are no bytes, which a device need not take.
    ///
    /// # Safety
    ///
    /// `page` is a page of the kernel's linear map, and the segment lies within the pages that follow it.
    pub unsafe fn push(
        &mut self,
        page: NonNull<bindings::page>,
        offset: usize,
        len: usize,
    ) -> Result {
        let (offset, bytes) = (u32::try_from(offset)?, u32::try_from(len)?);
        let total = self.bytes.checked_add(len).ok_or(E2BIG)?;
        if len == 0 {
            return Err(EINVAL);
        }
        let (before, rest) = self.entries.split_at_mut(self.used);
        let entry = rest.first_mut().ok_or(E2BIG)?;
        // SAFETY: By the type invariant these are initialised entries; the caller vouches for the page.
        unsafe {
            bindings::sg_set_page(entry, page.as_ptr(), bytes, offset);
            // INVARIANT: The mark moves on with the last entry.
            bindings::sg_mark_end(entry);
            if let Some(last) = before.last_mut() {
                bindings::sg_unmark_end(last);
            }
        }
        self.used += 1;
        self.bytes = total;
        Ok(())
    }

    /// Whether no segment was pushed.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The sum of the segments' lengths in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// The number of segments.
    pub fn segments(&self) -> usize {
        self.used
    }

    /// The page of each segment, in order; of contiguous pages that are one segment, the first.
    pub fn pages(&self) -> impl Iterator<Item = NonNull<bindings::page>> + '_ {
        self.entries.iter().take(self.used).filter_map(|entry| {
            // SAFETY: By the type invariant `entry` is set; it is only read.
            NonNull::new(unsafe { bindings::sg_page(core::ptr::from_ref(entry).cast_mut()) })
        })
    }

    /// The first entry, for C functions that read the list up to its end mark.
    pub fn as_ptr(&self) -> *const bindings::scatterlist {
        self.entries.as_ptr()
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_scatterlist)]
mod tests {
    use super::*;
    use kernel::page::Page;

    #[test]
    fn capacity() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let raw = NonNull::new(page.as_ptr()).ok_or(EINVAL)?;
        let mut list = Scatterlist::new(2, GFP_KERNEL)?;
        assert!(list.is_empty());
        // SAFETY: The segments lie in a page of the kernel's own, which outlives the list.
        unsafe {
            list.push(raw, 0, 100)?;
            list.push(raw, 100, 28)?;
            assert!(matches!(list.push(raw, 0, 1), Err(e) if e == E2BIG));
        }
        assert_eq!(list.segments(), 2);
        assert!(list.pages().eq([raw, raw]));
        assert_eq!(list.len_bytes(), 128);
        Ok(())
    }

    /// C code that walks the list meets the segments pushed so far and no entry behind them, whenever it does.
    #[test]
    fn always_ended() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let raw = NonNull::new(page.as_ptr()).ok_or(EINVAL)?;
        let mut list = Scatterlist::new(4, GFP_KERNEL)?;
        for count in 1..=3 {
            // SAFETY: As above.
            unsafe {
                list.push(raw, 0, 100)?;
                assert!(matches!(list.push(raw, 0, 0), Err(e) if e == EINVAL));
                assert_eq!(bindings::sg_nents(list.as_ptr().cast_mut()), count);
            }
        }
        Ok(())
    }

    #[test]
    fn empty() -> Result {
        let list = Scatterlist::new(0, GFP_KERNEL)?;
        assert!(list.is_empty());
        assert_eq!(list.len_bytes(), 0);
        Ok(())
    }
}
