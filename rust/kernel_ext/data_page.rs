// SPDX-License-Identifier: GPL-2.0

//! Pages of a page cache that hold what a filesystem likes to keep, and that are never read or written by a device.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/highmem.h`](srctree/include/linux/highmem.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A page of a page cache that is locked. The kernel may take it away whenever it is not.
///
/// # Invariants
///
/// The pointer is a folio in the page cache, up to date, locked by us, to which we hold a reference.
pub struct DataPage(NonNull<bindings::folio>);

impl DataPage {
    /// The page with this index, if it is there. Sleeps.
    ///
    /// # Safety
    ///
    /// `mapping` is the page cache of an inode in use, whose folios are filled by this type alone.
    pub unsafe fn find(mapping: *mut bindings::address_space, index: usize) -> Option<Self> {
        // SAFETY: The mapping is valid as the caller says.
        let folio = unsafe { bindings::virtiofs_helper_data_folio(mapping, index, false) };
        let folio = from_err_ptr(folio);
        let folio = NonNull::new(folio.ok()?)?;
        // SAFETY: It was returned valid.
        if unsafe { bindings::folio_test_uptodate(folio.as_ptr()) } {
            // INVARIANT: It was returned locked, with a reference, and is up to date.
            return Some(Self(folio));
        }
        // SAFETY: Lock and reference were given to us.
        unsafe {
            bindings::folio_unlock(folio.as_ptr());
            bindings::folio_put(folio.as_ptr());
        }
        None
    }

    /// The page with this index, made when it is not there; it is zero. Sleeps.
    ///
    /// # Safety
    ///
    /// As for [`DataPage::find`].
    pub unsafe fn make(mapping: *mut bindings::address_space, index: usize) -> Result<Self> {
        // SAFETY: The mapping is valid as the caller says.
        let folio = unsafe { bindings::virtiofs_helper_data_folio(mapping, index, true) };
        let folio = from_err_ptr(folio)?;
        let folio = NonNull::new(folio).ok_or(ENOMEM)?;
        // SAFETY: It was returned locked.
        unsafe {
            bindings::folio_zero_segment(folio.as_ptr(), 0, bindings::folio_size(folio.as_ptr()));
            bindings::folio_mark_uptodate(folio.as_ptr());
        }
        // INVARIANT: It was returned locked, with a reference, and is up to date.
        Ok(Self(folio))
    }

    /// `EFAULT` when the range does not lie in the page.
    fn check(&self, offset: usize, len: usize) -> Result {
        // SAFETY: The folio is valid by the type invariant.
        let size = unsafe { bindings::folio_size(self.0.as_ptr()) };
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(EFAULT),
        }
    }

    /// Copies `to.len()` bytes at `offset` out of the page; `EFAULT` when they do not lie in it.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        self.check(offset, to.len())?;
        // SAFETY: The range lies in the folio, which nobody changes as it is locked.
        unsafe {
            bindings::memcpy_from_folio(to.as_mut_ptr().cast(), self.0.as_ptr(), offset, to.len())
        };
        Ok(())
    }

    /// Copies `from` into the page at `offset`; `EFAULT` when it does not fit.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result {
        self.check(offset, from.len())?;
        // SAFETY: The range lies in the folio, which is ours to change as it is locked.
        unsafe {
            bindings::memcpy_to_folio(self.0.as_ptr(), offset, from.as_ptr().cast(), from.len())
        };
        Ok(())
    }
}

impl Drop for DataPage {
    fn drop(&mut self) {
        // SAFETY: Locked and referenced by the type invariant; both end here.
        unsafe {
            bindings::folio_unlock(self.0.as_ptr());
            bindings::folio_put(self.0.as_ptr());
        }
    }
}
