// SPDX-License-Identifier: GPL-2.0

//! Per-page dirty state of large folios.
//!
//! The kernel knows of a folio whether it is dirty, and of none of its pages. A large one that is written back as a whole carries
//! pages that nobody here has stored to over what others have in the file by now, and fills its holes. So a bit for each page is
//! attached to it:
//!
//! - A dirty folio with nothing attached is dirty as a whole. That of one page needs no bits, and neither does who fills a folio.
//! - Bits are set with the folio locked: by who copies a writer's bytes to it ([`add`]), and before a page becomes writable in a
//!   page table ([`make_writable`]). So whatever a page table says is dirty has its bit.
//! - Therefore [`dirty_folio`], which hears what was found in a page table or was written by a device, and of no page, has nothing
//!   to add. A device's page was writable when it was pinned: while a folio is pinned, bits stay when it is written back.
//! - Bits are given up with the folio, and when they tell nothing: the folio is clean, or dirty as a whole.
//!
//! The folio counts here, too, how many requests write it back: its pages that are dirty need not follow each other.

use crate::bindings;
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    bitmap::BitmapVec,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        barrier, //
    },
    types::NotThreadSafe, //
};

/// The largest order of a folio whose pages are told apart: two to the power of this many pages.
///
/// The memory management maps a folio that fills a page table (of 512 entries at least) with one entry, which is writable as a
/// whole once a page of it is stored to.
pub const MAX_ORDER: u32 = 8;

/// What is attached to a large folio.
pub(crate) struct DirtyPages {
    bits: BitmapVec,
    /// Requests that write the folio back, and one while they are being made. One as well when it was attached after that.
    under_way: Atomic<i32>,
}

impl DirtyPages {
    /// For a folio of `pages` pages, which are clean.
    fn new(pages: usize, flags: Flags) -> Result<Self> {
        Ok(Self {
            bits: BitmapVec::new(pages, flags)?,
            under_way: Atomic::new(1),
        })
    }

    /// Its pages.
    fn all(&self) -> Range<usize> {
        0..self.bits.len()
    }

    /// These pages are dirty; those that the folio has not got are left out. Callable from any context.
    fn set(&self, pages: Range<usize>) {
        for page in pages.start..pages.end.min(self.bits.len()) {
            self.bits.set_bit_atomic(page);
        }
    }

    /// These pages are clean. Callable from any context.
    fn clear(&self, pages: Range<usize>) {
        for page in pages.start..pages.end.min(self.bits.len()) {
            self.bits.clear_bit_atomic(page);
        }
    }

    /// The first dirty pages that follow each other, from page `from` on.
    fn run(&self, from: usize) -> Option<Range<usize>> {
        let len = self.bits.len();
        if from >= len {
            return None;
        }
        let start = self.bits.next_bit(from)?;
        Some(start..self.bits.next_zero_bit(start).unwrap_or(len))
    }

    fn is_clean(&self) -> bool {
        self.run(0).is_none()
    }

    fn is_whole(&self) -> bool {
        self.run(0) == Some(self.all())
    }

    /// A request has ended: whether it was the last.
    fn ended(&self) -> bool {
        self.under_way.fetch_sub(1, ordering::Full) == 1
    }
}

/// As long as this is there, reclaim that the task's allocations cause keeps out of filesystems: a folio is locked.
struct NoFs(u32, NotThreadSafe);

impl NoFs {
    fn begin() -> Self {
        // SAFETY: `drop` ends it, in the same task.
        Self(unsafe { bindings::memalloc_nofs_save() }, NotThreadSafe)
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {
        // SAFETY: What `memalloc_nofs_save()` has returned.
        unsafe { bindings::memalloc_nofs_restore(self.0) };
    }
}

/// What is attached to a folio.
///
/// # Safety
///
/// The folio is in the page cache of a mapping whose operations are those below. For as long as the result is used it is locked,
/// dirty, or under writeback: [`release_folio`] leaves those alone, and who truncates waits.
unsafe fn attached<'a>(folio: NonNull<bindings::folio>) -> Option<&'a DirtyPages> {
    // SAFETY: The folio is valid as the caller says. What is attached to it was made by `attach`, and is not freed before the end
    // of that lifetime. Who attaches makes it visible before the pointer to it.
    unsafe {
        let private = (&raw const (*folio.as_ptr())
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_3)
            .cast::<*const DirtyPages>()
            .read_volatile();
        private.as_ref()
    }
}

/// What is attached to a folio, which is done now if it has not been. Sleeps. [`None`] for a folio that needs no bits.
///
/// # Safety
///
/// As for [`attached`]; the folio is locked.
unsafe fn attach<'a>(folio: NonNull<bindings::folio>) -> Result<Option<&'a DirtyPages>> {
    // SAFETY: The folio is valid and locked as the caller says.
    unsafe {
        if let Some(pages) = attached(folio) {
            return Ok(Some(pages));
        }
        let count = pages_of(folio);
        if count == 1 || count > 1 << MAX_ORDER {
            return Ok(None);
        }
        let scope = NoFs::begin();
        let pages = DirtyPages::new(count, GFP_KERNEL)?;
        if bindings::folio_test_dirty(folio.as_ptr()) {
            pages.set(pages.all());
        }
        let pages = KBox::new(pages, GFP_KERNEL)?;
        drop(scope);
        // Requests that write it back may end meanwhile, and look.
        barrier::smp_mb(barrier::Write);
        bindings::folio_attach_private(folio.as_ptr(), KBox::into_raw(pages).cast());
        Ok(attached(folio))
    }
}

/// Frees what is attached to a folio.
///
/// # Safety
///
/// As for [`attached`]; the folio is locked and nobody uses what is attached.
unsafe fn detach(folio: NonNull<bindings::folio>) {
    // SAFETY: The folio is valid and locked as the caller says. What is attached to it was made by `attach`, and is freed once.
    unsafe {
        let private: *mut DirtyPages = bindings::folio_detach_private(folio.as_ptr()).cast();
        if !private.is_null() {
            drop(KBox::from_raw(private));
        }
    }
}

/// How many pages a folio has.
///
/// # Safety
///
/// It is valid.
unsafe fn pages_of(folio: NonNull<bindings::folio>) -> usize {
    // SAFETY: As the caller says.
    unsafe { bindings::folio_size(folio.as_ptr()) / PAGE_SIZE }
}

/// Whether devices may have pinned pages of a large folio, to write to them at any time.
///
/// # Safety
///
/// It is valid.
unsafe fn is_pinned(folio: NonNull<bindings::folio>) -> bool {
    // SAFETY: As the caller says.
    unsafe { bindings::folio_maybe_dma_pinned(folio.as_ptr()) }
}

/// Gets memory for [`add`], which has none to wait for: without this it takes the whole folio for dirty. Sleeps. Errors: `ENOMEM`.
///
/// # Safety
///
/// The folio is in the page cache of a mapping whose operations are those below, and locked.
pub(crate) unsafe fn prepare(folio: NonNull<bindings::folio>, pages: Range<usize>) -> Result {
    // SAFETY: As the caller says.
    unsafe {
        let is_whole = pages.start == 0 && pages.end >= pages_of(folio);
        if !is_whole && !bindings::folio_test_dirty(folio.as_ptr()) {
            attach(folio)?;
        }
    }
    Ok(())
}

/// Pages of a folio, and the folio, are dirty.
///
/// # Safety
///
/// As for [`prepare`], and the folio is up to date.
pub(crate) unsafe fn add(folio: NonNull<bindings::folio>, pages: Range<usize>) {
    // SAFETY: As the caller says. A folio that is locked stays in its mapping.
    unsafe {
        if let Some(attached) = attached(folio) {
            if !bindings::folio_test_dirty(folio.as_ptr()) && !is_pinned(folio) {
                // They have been written back, and were left as it was pinned then.
                attached.clear(attached.all());
            }
            attached.set(pages);
        }
        let mapping = (*folio.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping;
        bindings::filemap_dirty_folio(mapping, folio.as_ptr());
    }
}

/// A page of a folio is going to be writable in a page table: it is dirty from now on. Sleeps. Errors: `ENOMEM`.
///
/// # Safety
///
/// As for [`add`].
pub unsafe fn make_writable(folio: NonNull<bindings::folio>, page: usize) -> Result {
    // SAFETY: As the caller says.
    unsafe {
        // One that is dirty as a whole gets bits, too: a device that pins this page must find its bit after the writeback.
        attach(folio)?;
        add(folio, page..page.saturating_add(1));
    }
    Ok(())
}

/// The first dirty pages that follow each other, from page `from` on, of a folio that was dirty.
///
/// # Safety
///
/// As for [`prepare`].
pub(crate) unsafe fn run(folio: NonNull<bindings::folio>, from: usize) -> Option<Range<usize>> {
    // SAFETY: As the caller says.
    unsafe {
        match attached(folio) {
            Some(pages) => pages.run(from),
            None => (from == 0).then(|| 0..pages_of(folio)),
        }
    }
}

/// Pages of a folio are going to be written back, or need not be.
///
/// # Safety
///
/// As for [`prepare`]; it was marked clean, and what page tables say of it, too.
pub(crate) unsafe fn clean(folio: NonNull<bindings::folio>, pages: Range<usize>) {
    // SAFETY: As the caller says.
    unsafe {
        if let (Some(attached), false) = (attached(folio), is_pinned(folio)) {
            attached.clear(pages);
        }
    }
}

/// Begins writeback of a folio, which ends with [`end_writeback`]: called by who begins it, when it is about to unlock the folio if
/// [`is_counted`], and as often as [`another`] was called. If it is not counted, one call ends it.
///
/// # Safety
///
/// As for [`prepare`]; it is not under writeback.
pub(crate) unsafe fn start_writeback(folio: NonNull<bindings::folio>) {
    // SAFETY: As the caller says.
    unsafe {
        if let Some(pages) = attached(folio) {
            pages.under_way.store(1, ordering::Relaxed);
        }
        bindings::__folio_start_writeback(folio.as_ptr(), false);
    }
}

/// Whether requests that write a folio back are counted; else there is one. Does not change while the folio is locked, until a page
/// of it becomes dirty.
///
/// # Safety
///
/// As for [`prepare`].
pub(crate) unsafe fn is_counted(folio: NonNull<bindings::folio>) -> bool {
    // SAFETY: As the caller says.
    unsafe { attached(folio).is_some() }
}

/// Another request is going to write a part of a folio back.
///
/// # Safety
///
/// As for [`prepare`], between [`start_writeback`] and the call of [`end_writeback`] by who called that.
pub(crate) unsafe fn another(folio: NonNull<bindings::folio>) {
    // SAFETY: As the caller says.
    if let Some(pages) = unsafe { attached(folio) } {
        pages.under_way.fetch_add(1, ordering::Relaxed);
    }
}

/// Ends the writeback of a folio, or one's part of it. Callable from any context.
///
/// # Safety
///
/// See [`start_writeback`].
pub(crate) unsafe fn end_writeback(folio: NonNull<bindings::folio>) {
    // SAFETY: The folio is under writeback, as our part of it has not ended, so that it and what is attached stay. If that was
    // attached since it was begun, it counts one, which is us.
    unsafe {
        if attached(folio).is_none_or(DirtyPages::ended) {
            bindings::folio_end_writeback(folio.as_ptr());
        }
    }
}

/// For `address_space_operations::dirty_folio`: marks a folio as dirty, of which a page table or a device knows that a page is.
/// Callable with spinlocks held.
///
/// That page's bit is set, as said at the top. If none is, somebody has written to the folio in some other way: all are set.
///
/// # Safety
///
/// Called by the memory management, with a folio of the page cache of a mapping whose operations are those here. It cannot be
/// truncated meanwhile, and cannot be released: it is locked, or a page table says that it is dirty, so that it is.
pub unsafe extern "C" fn dirty_folio(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
) -> bindings::bool_ {
    // SAFETY: As the caller says.
    unsafe {
        if let Some(pages) = NonNull::new(folio).and_then(|folio| attached(folio)) {
            if pages.is_clean() {
                pages.set(pages.all());
            }
        }
        bindings::filemap_dirty_folio(mapping, folio)
    }
}

/// For `address_space_operations::release_folio`: frees what is attached, if nothing is lost by that. A folio is released before
/// it leaves the page cache, and before it is split.
///
/// # Safety
///
/// Called by the memory management, with a locked folio of the page cache of a mapping whose operations are those here, which is
/// not under writeback.
pub unsafe extern "C" fn release_folio(
    folio: *mut bindings::folio,
    _flags: bindings::gfp_t,
) -> bindings::bool_ {
    let Some(folio) = NonNull::new(folio) else {
        return true;
    };
    // SAFETY: As the caller says. Nobody else uses what is attached, as the folio is neither dirty nor pinned, or is locked.
    unsafe {
        if let Some(pages) = attached(folio) {
            let is_dirty = bindings::folio_test_dirty(folio.as_ptr());
            if is_dirty && !pages.is_whole() || is_pinned(folio) && !pages.is_clean() {
                return false;
            }
            detach(folio);
        }
    }
    true
}

/// For `address_space_operations::invalidate_folio`: a part of a folio, or all of it, is cut off the file.
///
/// # Safety
///
/// As for [`release_folio`]. What is invalidated is not mapped.
pub unsafe extern "C" fn invalidate_folio(folio: *mut bindings::folio, offset: usize, len: usize) {
    let Some(folio) = NonNull::new(folio) else {
        return;
    };
    // SAFETY: As the caller says.
    unsafe {
        if offset == 0 && len >= bindings::folio_size(folio.as_ptr()) {
            detach(folio);
        } else if let (Some(pages), false) = (attached(folio), is_pinned(folio)) {
            // Pages of which a part stays are written back.
            pages.clear(offset.div_ceil(PAGE_SIZE)..offset.saturating_add(len) / PAGE_SIZE);
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_dirty)]
mod tests {
    use super::*;

    fn runs(pages: &DirtyPages) -> Result<KVec<Range<usize>>> {
        let mut runs = KVec::new();
        let mut from = 0;
        while let Some(run) = pages.run(from) {
            from = run.end;
            runs.push(run, GFP_KERNEL)?;
        }
        Ok(runs)
    }

    /// Small bitmaps and those that need memory are the same.
    #[test]
    fn runs_of_pages() -> Result {
        for count in [2, 64, 256] {
            let pages = DirtyPages::new(count, GFP_KERNEL)?;
            assert!(pages.is_clean() && !pages.is_whole());
            pages.set(0..1);
            assert_eq!(&*runs(&pages)?, &[0..1]);
            pages.set(count - 1..count + 7);
            assert!(pages.run(count).is_none());
            let all = count == 2;
            assert_eq!(pages.is_whole(), all);
            if !all {
                assert_eq!(&*runs(&pages)?, &[0..1, count - 1..count]);
                pages.set(5..9);
                pages.clear(6..7);
                assert_eq!(&*runs(&pages)?, &[0..1, 5..6, 7..9, count - 1..count]);
                assert_eq!(pages.run(8), Some(8..9));
            }
            pages.clear(pages.all());
            assert!(pages.is_clean());
            pages.set(pages.all());
            assert!(pages.is_whole());
            pages.clear(count..count + 1);
            assert!(pages.is_whole());
        }
        Ok(())
    }

    /// Who attaches while one request is under way finds that counted.
    #[test]
    fn requests() -> Result {
        let pages = DirtyPages::new(4, GFP_KERNEL)?;
        assert!(pages.ended());
        let pages = DirtyPages::new(4, GFP_KERNEL)?;
        pages.under_way.fetch_add(2, ordering::Relaxed);
        assert!(!pages.ended() && !pages.ended() && pages.ended());
        Ok(())
    }
}
