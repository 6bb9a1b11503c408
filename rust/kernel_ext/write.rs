// SPDX-License-Identifier: GPL-2.0

//! Page-cache folios that a filesystem writes out.
//!
//! Two ways lead out of the page cache. A *write-through* takes folios locked ([`WriteFolio`]), copies a writer's bytes into
//! them and sends these on ([`WriteRange`]); the folios are unlocked when they were taken or given up. A *writeback* takes folios that were
//! dirtied through a mapping or by a writer ([`DirtyFolio`]), and marks them as being written until they were
//! ([`WritebackRange`]).
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/writeback.h`](srctree/include/linux/writeback.h)

use crate::{
    bindings,
    dirty,
    filled::Filled,
    scatterlist::Scatterlist, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    iov::IovIterSource,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        ordering,
        Atomic, //
    },
};

/// A folio that is locked for a writer's bytes.
///
/// # Invariants
///
/// The pointer is a folio in the page cache, locked by us, to which we hold a reference.
pub struct WriteFolio {
    folio: NonNull<bindings::folio>,
    /// What is not memory as the allocator gave it, of a folio that is not up to date.
    filled: Filled,
}

impl WriteFolio {
    /// Gets the folio at `pos` (bytes), made when there is none, if possible as large as `len` bytes. Sleeps; a fatal signal ends
    /// the wait for one that is read or written back with `EINTR`.
    ///
    /// C: `__filemap_get_folio()` with `FGP_WRITEBEGIN`, whose waits no signal ends.
    ///
    /// # Safety
    ///
    /// `mapping` is the page cache of an inode in use.
    pub unsafe fn get(mapping: *mut bindings::address_space, pos: i64, len: usize) -> Result<Self> {
        let index = usize::try_from(pos)? >> bindings::PAGE_SHIFT;
        loop {
            // SAFETY: The mapping is valid as the caller says. The folio is returned with a reference, which is given up where it
            // is not kept.
            unsafe {
                let folio =
                    from_err_ptr(bindings::virtiofs_helper_write_folio(mapping, index, len))?;
                let folio = NonNull::new(folio).ok_or(ENOMEM)?;
                let is_stable = bindings::mapping_stable_writes(mapping);
                // What is being written back is waited for with nothing locked: for a folio's lock there are waits of the kernel that no
                // signal ends.
                if is_stable && bindings::folio_wait_writeback_killable(folio.as_ptr()) != 0
                    || bindings::folio_lock_killable(folio.as_ptr()) != 0
                {
                    bindings::folio_put(folio.as_ptr());
                    return Err(EINTR);
                }
                // INVARIANT: It was just locked, and comes with a reference.
                let locked = Self {
                    folio,
                    filled: Filled::nothing(bindings::folio_size(folio.as_ptr())),
                };
                // It may have been dropped or split before it was locked.
                let is_there = (*folio.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping
                    == mapping
                    && bindings::folio_contains(folio.as_ptr(), index);
                if is_there && !(is_stable && bindings::folio_test_writeback(folio.as_ptr())) {
                    return Ok(locked);
                }
            }
        }
    }

    /// Its position in the file in bytes.
    pub fn pos(&self) -> i64 {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_pos(self.folio.as_ptr()) }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_size(self.folio.as_ptr()) }
    }

    /// Copies up to `len` bytes from where `from` stands to `offset` in the folio, and returns how many. It is less where the
    /// source is not in memory; [`fault_in`] gets it there.
    pub fn copy_from(&mut self, offset: usize, len: usize, from: &mut IovIterSource<'_>) -> usize {
        let len = len.min(self.size().saturating_sub(offset));
        // SAFETY: The range lies in the folio, which is ours to change as it is locked; the iterator is valid.
        let copied = unsafe {
            bindings::copy_folio_from_iter_atomic(self.folio.as_ptr(), offset, len, from.as_raw())
        };
        self.filled.copied(offset..offset.saturating_add(copied));
        copied
    }

    /// Whether it holds what the file holds.
    pub fn is_uptodate(&self) -> bool {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_test_uptodate(self.folio.as_ptr()) }
    }

    /// Zeroes all but `len` bytes at `offset`.
    pub fn zero_around(&mut self, offset: usize, len: usize) {
        let size = self.size();
        let end = offset.saturating_add(len).min(size);
        // SAFETY: The ranges lie in the folio, which is ours to change as it is locked.
        unsafe {
            bindings::folio_zero_segment(self.folio.as_ptr(), 0, offset.min(size));
            bindings::folio_zero_segment(self.folio.as_ptr(), end, size);
        }
        self.filled.all_but(offset.min(size)..end);
    }

    /// As [`copy_from`](WriteFolio::copy_from), all or nothing.
    pub fn copy_all_from(
        &mut self,
        offset: usize,
        len: usize,
        from: &mut IovIterSource<'_>,
    ) -> core::result::Result<(), usize> {
        let copied = self.copy_from(offset, len, from);
        if copied == len {
            return Ok(());
        }
        // SAFETY: So many bytes have just been taken.
        unsafe { from.revert(copied) };
        Err(copied)
    }

    /// Gets memory to remember that `len` bytes at `offset` are [dirty](WriteFolio::mark_dirty), before they are changed. Sleeps.
    /// Errors: `ENOMEM`.
    pub fn prepare_dirty(&mut self, offset: usize, len: usize) -> Result {
        // SAFETY: The folio is valid, locked by us and in its mapping by the type invariant.
        unsafe { dirty::prepare(self.folio, pages_of(offset, len)) }
    }

    /// The folio holds what the file is to hold, and `len` bytes at `offset` are to be written back: the pages that they lie in, or
    /// all of the folio if that was not [prepared](WriteFolio::prepare_dirty).
    ///
    /// `EINVAL` when some of it was never filled: neither read, nor copied, nor zeroed.
    pub fn mark_dirty(&mut self, offset: usize, len: usize) -> Result {
        if !self.is_uptodate() && !self.filled.is_all() {
            return Err(EINVAL);
        }
        // SAFETY: The folio is valid, locked by us and in its mapping by the type invariant.
        unsafe {
            let folio = self.folio.as_ptr();
            if !bindings::folio_test_uptodate(folio) {
                bindings::folio_mark_uptodate(folio);
            }
            dirty::add(self.folio, pages_of(offset, len));
        }
        Ok(())
    }
}

impl Drop for WriteFolio {
    fn drop(&mut self) {
        // SAFETY: Locked and referenced by the type invariant; both end here.
        unsafe {
            bindings::folio_unlock(self.folio.as_ptr());
            bindings::folio_put(self.folio.as_ptr());
        }
    }
}

/// Gets the next `len` bytes of a source into memory, so that they can be copied without sleeping. Sleeps; no folio may be
/// locked. `EFAULT` when not even the first byte can be read.
pub fn fault_in(from: &mut IovIterSource<'_>, len: usize) -> Result {
    // SAFETY: The iterator is valid.
    let missing = unsafe { bindings::fault_in_iov_iter_readable(from.as_raw(), len) };
    if missing == len && len > 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// The pages of a folio that `len` bytes at `offset` lie in.
fn pages_of(offset: usize, len: usize) -> Range<usize> {
    offset / PAGE_SIZE..offset.saturating_add(len).div_ceil(PAGE_SIZE)
}

/// A part of a folio.
struct Part {
    folio: NonNull<bindings::folio>,
    offset: usize,
    len: usize,
}

/// Locked folios with a writer's bytes, contiguous in the file, that one request carries.
///
/// A device reads the folios until it has returned the request, however early the writer is gone: their memory stays allocated
/// until this is dropped. Their locks do not: whoever waits for them waits for the writer, and no longer ([`end`](Self::end)).
/// Nobody else changes that memory meanwhile: folios whose contents are not known to be in the file leave the page cache when
/// they are unlocked, so that they are read anew into others. Those that are dirty, being written back or pinned stay, as they have
/// what mappings and devices have stored.
///
/// # Invariants
///
/// Each part lies in a folio to which we hold a reference. The folios are locked, and ours to unlock, until `ended` is set.
pub struct WriteRange {
    parts: KVec<Part>,
    sg: Scatterlist,
    pos: i64,
    ended: Atomic<i32>,
}

// SAFETY: Folio locks may be released by any task and from interrupts.
unsafe impl Send for WriteRange {}
// SAFETY: Only `unlock` works through a shared reference, and an atomic makes it happen once.
unsafe impl Sync for WriteRange {}

impl WriteRange {
    /// An empty range at `pos` (bytes) with room for `capacity` folios. Sleeps.
    pub fn new(pos: i64, capacity: usize) -> Result<Self> {
        Ok(Self {
            parts: KVec::with_capacity(capacity, GFP_KERNEL)?,
            sg: Scatterlist::new(capacity, GFP_KERNEL)?,
            pos,
            ended: Atomic::new(0),
        })
    }

    /// Appends `len` bytes at `offset` of a folio; gives the folio back when there is no room, it does not follow, or they were never
    /// filled.
    pub fn push(
        &mut self,
        folio: WriteFolio,
        offset: usize,
        len: usize,
    ) -> core::result::Result<(), WriteFolio> {
        let follows = self.pos.checked_add_unsigned(self.len() as u64)
            == folio.pos().checked_add_unsigned(offset as u64);
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= folio.size());
        if !follows || !fits || self.parts.len() == self.parts.capacity() {
            return Err(folio);
        }
        if !folio.is_uptodate() && !folio.filled.has(&(offset..offset.saturating_add(len))) {
            return Err(folio);
        }
        let page: NonNull<bindings::page> = folio.folio.cast();
        // SAFETY: A folio's first page is the folio itself and its pages follow each other in the linear map; the range lies in
        // the folio.
        if unsafe { self.sg.push(page, offset, len) }.is_err() {
            return Err(folio);
        }
        let folio = ManuallyDrop::new(folio).folio;
        // INVARIANT: Lock and reference move from `folio` into `self`. There is room, checked above.
        let _ = self.parts.push_within_capacity(Part { folio, offset, len });
        Ok(())
    }

    /// Whether there is no room for another folio.
    pub fn is_full(&self) -> bool {
        self.parts.len() == self.parts.capacity()
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.sg.len_bytes()
    }

    /// Whether no byte is in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The segments.
    pub fn scatterlist(&self) -> &Scatterlist {
        &self.sg
    }

    /// The request is over for its writer, and the first `written` bytes are in the file: folios that they fill are up to date, others
    /// that are not in it leave the page cache. All are unlocked. Only the first call has an effect. Sleeps, but never for the device.
    pub fn end(&self, written: usize) {
        self.unlock(written, true);
    }

    fn unlock(&self, written: usize, may_sleep: bool) {
        if self.ended.xchg(1, ordering::Full) != 0 {
            return;
        }
        let mut left = written;
        for part in &self.parts {
            let folio = part.folio.as_ptr();
            // SAFETY: By the type invariant the folio is valid, and locked until here as `ended` was not set. So it is in its
            // mapping, whose inode is a regular file in use.
            unsafe {
                if left < part.len {
                    Self::disown(folio, may_sleep);
                } else if part.offset == 0 && part.len == bindings::folio_size(folio) {
                    bindings::folio_mark_uptodate(folio);
                }
                bindings::folio_unlock(folio);
            }
            left = left.saturating_sub(part.len);
        }
    }

    /// Nobody is to see what a folio has: it is not known to be in the file.
    ///
    /// # Safety
    ///
    /// The folio is valid, locked by us, and in the mapping of an inode in use.
    unsafe fn disown(folio: *mut bindings::folio, may_sleep: bool) {
        // SAFETY: As the caller says. Under the lock a clean folio does not become dirty through a mapping, and none gets to show
        // one that is not up to date.
        unsafe {
            // Read anew, what mappings or devices have stored would be lost.
            if bindings::folio_test_dirty(folio)
                || bindings::folio_test_writeback(folio)
                || bindings::folio_maybe_dma_pinned(folio)
            {
                return;
            }
            if may_sleep {
                let mapping = (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping;
                bindings::generic_error_remove_folio(mapping, folio);
            } else if !bindings::folio_mapped(folio) {
                bindings::folio_clear_uptodate(folio);
            }
        }
    }
}

impl Drop for WriteRange {
    /// In any context, but who has sent it has ended it before.
    fn drop(&mut self) {
        self.unlock(0, false);
        for part in &self.parts {
            // SAFETY: We hold a reference by the type invariant, given up here.
            unsafe { bindings::folio_put(part.folio.as_ptr()) };
        }
    }
}

/// A folio that was dirty and is to be written back, in parts. What is not when this is dropped is dirty again.
///
/// # Invariants
///
/// The folio is in the page cache, locked by us, and was marked clean for `control`. If `begun`, writeback of it was begun.
pub struct DirtyFolio<'a> {
    folio: NonNull<bindings::folio>,
    control: *mut bindings::writeback_control,
    /// The page up to which its dirty pages are in requests.
    next: usize,
    begun: bool,
    finished: bool,
    _p: PhantomData<&'a mut bindings::writeback_control>,
}

impl DirtyFolio<'_> {
    /// # Safety
    ///
    /// `folio` was returned by `writeback_iter()` for `control`, which is valid for the lifetime of the result, and the caller
    /// leaves it to this. Its mapping has the operations of [`dirty`].
    pub unsafe fn from_raw(
        folio: NonNull<bindings::folio>,
        control: *mut bindings::writeback_control,
    ) -> Self {
        // INVARIANT: As the caller says.
        Self {
            folio,
            control,
            next: 0,
            begun: false,
            finished: false,
            _p: PhantomData,
        }
    }

    /// Its position in the file in bytes.
    pub fn pos(&self) -> i64 {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_pos(self.folio.as_ptr()) }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: The folio is valid by the type invariant.
        unsafe { bindings::folio_size(self.folio.as_ptr()) }
    }

    /// Which of its bytes are to be written next: those of dirty pages that follow each other, as far as they come before `end`.
    pub fn dirty_bytes(&self, end: usize) -> Option<Range<usize>> {
        // SAFETY: Locked by us and was dirty by the type invariant.
        let pages = unsafe { dirty::run(self.folio, self.next) }?;
        let bytes = pages.start * PAGE_SIZE..(pages.end * PAGE_SIZE).min(end);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Zeroes the bytes from `end` on, where the file ends: what mappings have stored there must not show when it grows.
    pub fn zero_from(&mut self, end: usize) {
        let size = self.size();
        if end < size {
            // SAFETY: Valid, locked by us and marked clean by the type invariant, so that mappings can't store to it.
            unsafe { bindings::folio_zero_segment(self.folio.as_ptr(), end, size) };
        }
    }

    /// Nothing more of it is to be written: the rest lies beyond the end of the file.
    pub fn finish(mut self) {
        self.begin();
        let pages = self.size() / PAGE_SIZE;
        // SAFETY: Valid, locked by us and marked clean by the type invariant.
        unsafe { dirty::clean(self.folio, self.next..pages) };
        self.finished = true;
    }

    /// Begins its writeback, if that was not. It takes the folio off the list of those that are dirty, even if nothing is written.
    fn begin(&mut self) {
        if !self.begun {
            // SAFETY: Valid, locked by us and marked clean by the type invariant, so that it is not under writeback.
            unsafe { dirty::start_writeback(self.folio) };
            // INVARIANT: It was.
            self.begun = true;
        }
    }
}

impl Drop for DirtyFolio<'_> {
    fn drop(&mut self) {
        // SAFETY: Valid and locked by us by the type invariant. If writeback was begun, it ends with the requests that were made, or
        // here if that was none: a folio whose requests are not counted has none if `next` is where it began.
        unsafe {
            if !self.finished {
                bindings::folio_redirty_for_writepage(self.control, self.folio.as_ptr());
            }
            if self.begun && (self.next == 0 || dirty::is_counted(self.folio)) {
                dirty::end_writeback(self.folio);
            }
            bindings::folio_unlock(self.folio.as_ptr());
        }
    }
}

/// Folios that are being written back, contiguous in the file, by one request.
///
/// # Invariants
///
/// Each part lies in a folio to which we hold a reference. As long as `ended` is not set, writeback of it was begun, and our part of
/// that is for us to end.
pub struct WritebackRange {
    parts: KVec<Part>,
    sg: Scatterlist,
    pos: i64,
    ended: Atomic<i32>,
}

// SAFETY: Writeback may be ended by any task and from interrupts.
unsafe impl Send for WritebackRange {}
// SAFETY: Only `end` works through a shared reference, and an atomic makes it happen once.
unsafe impl Sync for WritebackRange {}

impl WritebackRange {
    /// An empty range at `pos` (bytes) with room for `capacity` folios. Sleeps, without entering filesystems when the caller
    /// is in such a scope.
    pub fn new(pos: i64, capacity: usize) -> Result<Self> {
        Ok(Self {
            parts: KVec::with_capacity(capacity, GFP_KERNEL)?,
            sg: Scatterlist::new(capacity, GFP_KERNEL)?,
            pos,
            ended: Atomic::new(0),
        })
    }

    /// Begins writeback of [bytes](DirtyFolio::dirty_bytes) of a folio. Whether it has: not if they do not follow, or there is no
    /// room. Dirty pages of the folio before them are not written any more.
    pub fn push(&mut self, folio: &mut DirtyFolio<'_>, bytes: &Range<usize>) -> bool {
        let follows = self.pos.checked_add_unsigned(self.len() as u64)
            == folio.pos().checked_add_unsigned(bytes.start as u64);
        let fits = bytes.start < bytes.end && bytes.end <= folio.size();
        let pages = pages_of(bytes.start, bytes.len());
        // SAFETY: Valid and locked by the type invariant of `DirtyFolio`.
        let counted = unsafe { dirty::is_counted(folio.folio) };
        // There is one request for a folio whose requests are not counted.
        if !follows || !fits || pages.start < folio.next || !counted && folio.next > 0 {
            return false;
        }
        let part = Part {
            folio: folio.folio,
            offset: bytes.start,
            len: bytes.len(),
        };
        // SAFETY: The part lies in the folio, which is valid, and of which writeback is begun before anybody else sees this.
        if unsafe { self.add(part) }.is_err() {
            return false;
        }
        folio.begin();
        folio.next = pages.end;
        // SAFETY: Valid, locked and marked clean by the type invariant of `DirtyFolio`, which has not ended its own part yet.
        unsafe {
            dirty::another(folio.folio);
            dirty::clean(folio.folio, pages);
        }
        true
    }

    /// Appends a part; `E2BIG` when there is no room.
    ///
    /// # Safety
    ///
    /// The part lies in a valid folio. Writeback of it is begun, or is going to be, and is left to `self` to end, unless `ended` is
    /// set.
    unsafe fn add(&mut self, part: Part) -> Result {
        if self.parts.len() == self.parts.capacity() {
            return Err(E2BIG);
        }
        let page: NonNull<bindings::page> = part.folio.cast();
        // SAFETY: A folio's first page is the folio itself, and its pages follow each other in the linear map; the part lies in
        // it, as the caller says.
        unsafe {
            self.sg.push(page, part.offset, part.len)?;
            bindings::folio_get(part.folio.as_ptr());
        }
        // INVARIANT: As the caller says. There is room, checked above.
        let _ = self.parts.push_within_capacity(part);
        Ok(())
    }

    /// What is left when the first `written` bytes are in the file, to be written by another request: it takes the duty to end the
    /// writeback of its folios over. That of the others ends. Sleeps for memory.
    ///
    /// Errors: `ENOMEM`, and then nothing has changed; `EALREADY` when writeback was ended before.
    pub fn rest(&self, written: usize) -> Result<Self> {
        let pos = self.pos.checked_add_unsigned(written as u64).ok_or(EFBIG)?;
        let mut rest = Self::new(pos, self.parts.len())?;
        // Not its duty yet.
        rest.ended.store(1, ordering::Relaxed);
        let mut left = written;
        let mut whole = 0;
        for part in &self.parts {
            let done = left.min(part.len);
            left -= done;
            if done == part.len {
                whole += 1;
                continue;
            }
            // SAFETY: The part lies in that folio, which is valid; `ended` is set.
            unsafe {
                rest.add(Part {
                    folio: part.folio,
                    offset: part.offset + done,
                    len: part.len - done,
                })?;
            }
        }
        if self.ended.xchg(1, ordering::Full) != 0 {
            return Err(EALREADY);
        }
        for part in self.parts.iter().take(whole) {
            // SAFETY: By the type invariant the folio is valid and our part of its writeback was for us to end.
            unsafe { dirty::end_writeback(part.folio) };
        }
        // INVARIANT: It was our duty, which we have given up above.
        rest.ended.store(0, ordering::Relaxed);
        Ok(rest)
    }

    /// Its position in the file in bytes.
    pub fn pos(&self) -> i64 {
        self.pos
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.sg.len_bytes()
    }

    /// Whether no folio is in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The segments.
    pub fn scatterlist(&self) -> &Scatterlist {
        &self.sg
    }

    /// Ends the writeback, once. An error is kept with the file, for who asks next (fsync(2), close(2)). Callable from any
    /// context; only the first call has an effect.
    pub fn end(&self, outcome: Result) {
        if self.ended.xchg(1, ordering::Full) != 0 {
            return;
        }
        for part in &self.parts {
            let folio = part.folio.as_ptr();
            // SAFETY: By the type invariant the folio is valid and under writeback, so that it is still in its mapping.
            unsafe {
                if let Err(e) = outcome {
                    let mapping = (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping;
                    bindings::mapping_set_error(mapping, e.to_errno());
                }
                dirty::end_writeback(part.folio);
            }
        }
    }
}

impl Drop for WritebackRange {
    fn drop(&mut self) {
        self.end(Err(EIO));
        for part in &self.parts {
            // SAFETY: We hold a reference by the type invariant, given up here.
            unsafe { bindings::folio_put(part.folio.as_ptr()) };
        }
    }
}
