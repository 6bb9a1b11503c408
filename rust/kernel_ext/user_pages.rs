// SPDX-License-Identifier: GPL-2.0

//! Memory of a user's buffer, pinned so that a device reads or writes it.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h)

use crate::{
    bindings,
    scatterlist::Scatterlist, //
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// Pages that are pinned by one call: their addresses are on the stack.
const AT_ONCE: usize = 32;

/// Pinned pages of a user's buffer.
///
/// # Invariants
///
/// Each segment lies in one page, which we have pinned, to be written to if `writable`.
pub struct UserPages {
    sg: Scatterlist,
    writable: bool,
}

impl UserPages {
    /// Pins up to `max_bytes` of the buffer that `iter` stands at, to be written to by a device, in at most `max_pages` pages,
    /// and advances it. [`None`] when the buffer is not a user's, or shows memory of a device, which others need not reach.
    /// Sleeps.
    ///
    /// `EFAULT` when it cannot be written.
    pub fn of_destination(
        iter: &mut IovIterDest<'_>,
        max_bytes: usize,
        max_pages: usize,
    ) -> Result<Option<Self>> {
        // SAFETY: `as_raw` is a valid iterator, borrowed for this call.
        unsafe { Self::extract(iter.as_raw(), true, max_bytes, max_pages) }
    }

    /// As [`UserPages::of_destination`], to be read by a device. `EFAULT` when it cannot be read.
    pub fn of_source(
        iter: &mut IovIterSource<'_>,
        max_bytes: usize,
        max_pages: usize,
    ) -> Result<Option<Self>> {
        // SAFETY: `as_raw` is a valid iterator, borrowed for this call.
        unsafe { Self::extract(iter.as_raw(), false, max_bytes, max_pages) }
    }

    /// # Safety
    ///
    /// `iter` is a valid iterator that nobody else uses meanwhile, and of a destination if `writable`.
    unsafe fn extract(
        iter: *mut bindings::iov_iter,
        writable: bool,
        max_bytes: usize,
        max_pages: usize,
    ) -> Result<Option<Self>> {
        // SAFETY: The iterator is valid as the caller says.
        if !unsafe { bindings::user_backed_iter(iter) } {
            return Ok(None);
        }
        // One page more than the bytes fill, as the buffer may start in the middle of one.
        let max_pages = max_pages.min(max_bytes.div_ceil(PAGE_SIZE) + 1);
        let mut this = Self {
            sg: Scatterlist::new(max_pages, GFP_KERNEL)?,
            writable,
        };
        // Each extraction ends with a segment of the buffer, if not before.
        while this.len() < max_bytes && this.sg.segments() < max_pages {
            let mut pages = [const { MaybeUninit::<*mut bindings::page>::uninit() }; AT_ONCE];
            let room = AT_ONCE.min(max_pages - this.sg.segments());
            let mut array = pages.as_mut_ptr().cast();
            let mut offset = 0;
            // SAFETY: `iter` is valid; `array` has room for `room` pointers, and as it is not null it is used.
            let bytes = unsafe {
                bindings::iov_iter_extract_pages(
                    iter,
                    &mut array,
                    max_bytes - this.len(),
                    u32::try_from(room)?,
                    0,
                    &mut offset,
                )
            };
            let mut left = match usize::try_from(bytes) {
                Ok(0) => break,
                Ok(n) => n,
                // What there is before goes its way; the next call meets the error again.
                Err(_) if !this.is_empty() => break,
                Err(_) => return Err(Error::from_errno(i32::try_from(bytes)?)),
            };
            for page in pages.iter().take((offset + left).div_ceil(PAGE_SIZE)) {
                // SAFETY: The extraction has written as many as the bytes lie in, which begin `offset` bytes into the first.
                let page = NonNull::new(unsafe { page.assume_init() }).ok_or(EFAULT)?;
                let part = (PAGE_SIZE - offset).min(left);
                // INVARIANT: A user-backed iterator's pages were pinned by the extraction.
                // SAFETY: The page is pinned, so it stays; user pages lie in the linear map, `part` bytes are in this one.
                unsafe { this.sg.push(page, offset, part)? };
                left -= part;
                offset = 0;
            }
        }
        if this.is_empty() {
            return Err(EFAULT);
        }
        if this.is_of_device() {
            // SAFETY: The iterator was advanced by so many bytes above.
            unsafe { bindings::iov_iter_revert(iter, this.len()) };
            return Ok(None);
        }
        Ok(Some(this))
    }

    /// Whether some page is memory of a device.
    fn is_of_device(&self) -> bool {
        self.sg.pages().any(|page| {
            // SAFETY: The page is pinned by the type invariant, so it is alive.
            unsafe { bindings::is_zone_device_page(page.as_ptr()) }
        })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.sg.len_bytes()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.sg.is_empty()
    }

    /// The segments.
    pub fn scatterlist(&self) -> &Scatterlist {
        &self.sg
    }

    /// Whether they were pinned to be written to, and not to be read.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Marks the pages as written to, after a device has written. Sleeps. Those that were pinned to be read stay as they are.
    pub fn mark_dirty(&self) {
        if !self.writable {
            return;
        }
        for page in self.sg.pages() {
            // SAFETY: The page is pinned by the type invariant, so it is alive.
            unsafe { bindings::virtiofs_helper_set_page_dirty_lock(page.as_ptr()) };
        }
    }

    /// Whether all pages are marked as written to: true after [`mark_dirty`](UserPages::mark_dirty), unless somebody has written
    /// them back since. Callable from any context.
    pub fn are_dirty(&self) -> bool {
        self.sg.pages().all(|page| {
            // SAFETY: The page is pinned by the type invariant, so it is alive.
            unsafe { bindings::virtiofs_helper_page_is_dirty(page.as_ptr()) }
        })
    }
}

impl Drop for UserPages {
    fn drop(&mut self) {
        for page in self.sg.pages() {
            // SAFETY: Pinned by the type invariant, released here, once.
            unsafe { bindings::unpin_user_page(page.as_ptr()) };
        }
    }
}
