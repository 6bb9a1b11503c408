// SPDX-License-Identifier: GPL-2.0

//! Page-cache folios that a filesystem reads into.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{
    bindings,
    scatterlist::Scatterlist, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        ordering,
        Atomic, //
    },
};

/// A folio of the page cache that is locked and not yet up to date.
///
/// Dropping it ends the read as failed.
///
/// # Invariants
///
/// The pointer is a folio in the page cache, its lock is ours to release, and we hold a reference.
pub struct LockedFolio(NonNull<bindings::folio>);

// SAFETY: The folio lock may be released by another task than took it, and from interrupts.
unsafe impl Send for LockedFolio {}
// SAFETY: A shared reference only reads fields that do not change while the folio is locked.
unsafe impl Sync for LockedFolio {}

impl LockedFolio {
    /// Takes over the lock of `folio`, and a reference of its own.
    ///
    /// # Safety
    ///
    /// `folio` is a locked folio of the page cache, and the caller hands over the duty to unlock it.
    pub unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // SAFETY: The folio is alive as it is locked in the page cache.
        unsafe { bindings::folio_get(folio.as_ptr()) };
        // INVARIANT: The caller hands over the lock; the reference was just taken.
        Self(folio)
    }

    /// Its position in the file in bytes.
    pub fn pos(&self) -> i64 {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_pos(self.0.as_ptr()) }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_size(self.0.as_ptr()) }
    }

    /// Zeroes the bytes from `from` to the folio's end. Callable from any context.
    pub fn zero_from(&mut self, from: usize) {
        let size = self.size();
        if from < size {
            // SAFETY: The folio is valid and locked; the range lies within it.
            unsafe { bindings::folio_zero_segment(self.0.as_ptr(), from, size) };
        }
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: Locked for reading and referenced by the type invariant; both end here.
        unsafe {
            bindings::folio_end_read(self.0.as_ptr(), false);
            bindings::folio_put(self.0.as_ptr());
        }
    }
}

/// Locked folios that are contiguous in a file and are read by one request.
///
/// A device writes into the folios until it has returned the request, however early their read is ended: they are ended
/// once, by whoever comes first, and their memory stays allocated until this is dropped.
///
/// # Invariants
///
/// Each pointer is a folio to which we hold a reference. The folios are locked, and ours to unlock, until `ended` is set.
pub struct FolioRange {
    folios: KVec<NonNull<bindings::folio>>,
    sg: Scatterlist,
    /// Memory for bytes behind the folios; they are not used.
    spare: Option<Page>,
    pos: i64,
    ended: Atomic<i32>,
}

// SAFETY: The folio locks may be released by any task and from interrupts.
unsafe impl Send for FolioRange {}
// SAFETY: Only `end_read` works through a shared reference, and an atomic makes it happen once.
unsafe impl Sync for FolioRange {}

impl FolioRange {
    /// An empty range at `pos` (bytes) with room for `capacity` folios. Sleeps; the page cache calls for reads in a scope that
    /// keeps reclaim out of filesystems (`memalloc_nofs_save()`).
    pub fn new(pos: i64, capacity: usize) -> Result<Self> {
        Ok(Self {
            folios: KVec::with_capacity(capacity, GFP_KERNEL)?,
            sg: Scatterlist::new(capacity.saturating_add(1), GFP_KERNEL)?,
            spare: None,
            pos,
            ended: Atomic::new(0),
        })
    }

    /// Appends a page that is none of the file's: a read of more than the file has tells where it ends. No folio can follow. Sleeps.
    pub fn push_spare(&mut self) -> Result {
        if self.spare.is_some() {
            return Err(EINVAL);
        }
        let page = Page::alloc_page(GFP_KERNEL)?;
        let raw = NonNull::new(page.as_ptr()).ok_or(ENOMEM)?;
        // SAFETY: The segment is this page, which is in the linear map, as `GFP_KERNEL` is not for high memory.
        unsafe { self.sg.push(raw.cast(), 0, PAGE_SIZE)? };
        self.spare = Some(page);
        Ok(())
    }

    /// Appends the folio that follows in the file; gives it back when it does not follow or there is no room.
    pub fn push(&mut self, folio: LockedFolio) -> core::result::Result<(), LockedFolio> {
        let follows = self.pos.checked_add_unsigned(self.len() as u64) == Some(folio.pos());
        let Some(page) = NonNull::new(folio.0.as_ptr().cast()) else {
            return Err(folio);
        };
        if !follows || self.spare.is_some() || self.folios.len() == self.folios.capacity() {
            return Err(folio);
        }
        // SAFETY: A folio's first page is the folio itself, and all its pages follow; page-cache folios of a mapping
        // without high memory lie in the linear map.
        if unsafe { self.sg.push(page, 0, folio.size()) }.is_err() {
            return Err(folio);
        }
        let folio = core::mem::ManuallyDrop::new(folio);
        // INVARIANT: The reference and the lock move from `folio` into `self`. There is room, checked above.
        let _ = self.folios.push_within_capacity(folio.0);
        Ok(())
    }

    /// Its position in the file in bytes.
    pub fn pos(&self) -> i64 {
        self.pos
    }

    /// Its size in bytes, with the spare page if there is one.
    pub fn len(&self) -> usize {
        self.sg.len_bytes()
    }

    /// Whether no folio is in it.
    pub fn is_empty(&self) -> bool {
        self.folios.is_empty()
    }

    /// The segments of all folios.
    pub fn scatterlist(&self) -> &Scatterlist {
        &self.sg
    }

    /// As [`end_read`](FolioRange::end_read) with `Ok(bytes)`, if the file agrees: `judge` gets it with its size locked (`i_lock`),
    /// before any folio is up to date, and must not sleep. Its error is the outcome.
    ///
    /// Not callable in interrupts, which `i_lock` is not made for.
    ///
    /// # Safety
    ///
    /// As for `end_read`.
    pub unsafe fn end_read_if(
        &self,
        bytes: usize,
        judge: impl FnOnce(&mut FolioFile<'_>) -> Result,
    ) {
        if self.ended.xchg(1, ordering::Full) != 0 {
            return;
        }
        let judged = self.folios.first().map_or(Err(EIO), |folio| {
            // SAFETY: By the type invariant the folio is valid, and locked until here as `ended` was not set. So it stays in its
            // mapping, whose inode is not freed before: that waits for its folios.
            unsafe {
                let mapping = (*folio.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping;
                let inode = (*mapping).host;
                bindings::spin_lock(&raw mut (*inode).i_lock);
                // INVARIANT: It has just been locked, and is unlocked after the last use.
                let judged = judge(&mut FolioFile(inode, PhantomData));
                bindings::spin_unlock(&raw mut (*inode).i_lock);
                judged
            }
        });
        // SAFETY: As the caller says; we have set `ended`.
        unsafe { self.unlock(judged.map(|()| bytes)) };
    }

    /// Ends the read of all folios, once: with `Ok(bytes)`, which may be more than they have, the rest is zeroed and they are up to
    /// date, with `Err` they are not. Callable from any context; only the first call has an effect.
    ///
    /// # Safety
    ///
    /// With `Ok(bytes)` a device has filled so many, and writes no more to any of them.
    ///
    /// ```compile_fail,E0133
    /// # use kernel_ext::folio::FolioRange;
    /// fn never_filled(range: FolioRange) {
    ///     range.end_read(Ok(1)); // refused
    /// }
    /// ```
    pub unsafe fn end_read(&self, outcome: Result<usize>) {
        if self.ended.xchg(1, ordering::Full) != 0 {
            return;
        }
        // SAFETY: As the caller says; we have set `ended`.
        unsafe { self.unlock(outcome) };
    }

    /// # Safety
    ///
    /// As for [`end_read`](FolioRange::end_read). The caller has set `ended`, and calls this once.
    unsafe fn unlock(&self, outcome: Result<usize>) {
        let mut start = 0;
        for folio in self.folios.iter().map(|f| f.as_ptr()) {
            // SAFETY: By the type invariant the folio is valid, and locked until here, as the caller says.
            unsafe {
                let size = bindings::folio_size(folio);
                if let Ok(bytes) = outcome {
                    let filled = bytes.saturating_sub(start).min(size);
                    if filled < size {
                        bindings::folio_zero_segment(folio, filled, size);
                    }
                }
                bindings::folio_end_read(folio, outcome.is_ok());
                start = start.saturating_add(size);
            }
        }
    }
}

/// The file whose folios are being read, with its size locked.
///
/// # Invariants
///
/// The inode is valid during `'a`, and we hold its `i_lock`.
pub struct FolioFile<'a>(*mut bindings::inode, PhantomData<&'a FolioRange>);

impl FolioFile<'_> {
    /// Its size in bytes.
    pub fn size(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::i_size_read(self.0) }
    }

    /// Sets the size. Pages beyond it stay in the page cache.
    pub fn set_size(&mut self, size: i64) {
        // SAFETY: Valid and locked by the type invariant.
        unsafe { bindings::i_size_write(self.0, size) };
    }

    /// Whether pages or times are dirty, or being written back.
    pub fn is_dirty(&self) -> bool {
        let dirty = bindings::inode_state_flags_enum_I_DIRTY_SYNC
            | bindings::inode_state_flags_enum_I_DIRTY_DATASYNC
            | bindings::inode_state_flags_enum_I_DIRTY_TIME
            | bindings::inode_state_flags_enum_I_SYNC;
        // SAFETY: Valid by the type invariant; racing changes give the old or the new value.
        unsafe {
            let mapping = (*self.0).i_mapping;
            bindings::mapping_tagged(mapping, bindings::PAGECACHE_TAG_DIRTY)
                || bindings::mapping_tagged(mapping, bindings::PAGECACHE_TAG_WRITEBACK)
                || (&raw const (*self.0).i_state.__state).read_volatile() & dirty != 0
        }
    }
}

impl Drop for FolioRange {
    fn drop(&mut self) {
        // SAFETY: Nothing is said of their contents.
        unsafe { self.end_read(Err(EIO)) };
        for folio in &self.folios {
            // SAFETY: We hold a reference by the type invariant, given up here.
            unsafe { bindings::folio_put(folio.as_ptr()) };
        }
    }
}
