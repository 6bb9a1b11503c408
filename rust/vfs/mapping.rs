// SPDX-License-Identifier: GPL-2.0

//! The page cache of a file.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{
    attr::FileType,
    file::File,
    filesystem::FileSystem,
    inode::Inode, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    build_error,
    error::{
        from_err_ptr,
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_int,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*,
    types::NotThreadSafe, //
};
use kernel_ext::{
    bindings,
    data_page::DataPage,
    dirty,
    folio::LockedFolio,
    write::{
        DirtyFolio,
        WriteFolio, //
    },
};

/// Folios that are to be read ahead: locked, without contents, and contiguous in the file.
///
/// As an iterator it hands over one folio after the other. Folios that are not taken are unlocked
/// when the call returns, and are read later if they are needed.
///
/// # Invariants
///
/// The pointer is that of a `readahead` call that has not returned.
pub struct Readahead<'a, T: FileSystem> {
    control: *mut bindings::readahead_control,
    _p: PhantomData<&'a mut Inode<T>>,
}

impl<'a, T: FileSystem> Readahead<'a, T> {
    /// The inode.
    pub fn inode(&self) -> &'a Inode<T> {
        // SAFETY: Valid by the type invariant; a mapping with pages has an inode.
        unsafe { Inode::from_raw((*(*self.control).mapping).host) }
    }

    /// The file that is being read, if there is one.
    pub fn file(&self) -> Option<&'a File<T>> {
        // SAFETY: Valid by the type invariant; inodes with a page cache are regular files.
        unsafe { File::of_inode((*self.control).file, self.inode()) }
    }

    /// Where the folios that are left begin, in bytes.
    pub fn pos(&self) -> i64 {
        // SAFETY: Valid by the type invariant. The folios handed over last still count as left.
        unsafe {
            let index = (*self.control)._index + (*self.control)._batch_count as usize;
            (index << bindings::PAGE_SHIFT) as i64
        }
    }

    /// How many pages are left.
    pub fn pages(&self) -> usize {
        // SAFETY: Valid by the type invariant. The folios handed over last still count as left.
        unsafe {
            (*self.control)
                ._nr_pages
                .saturating_sub((*self.control)._batch_count) as usize
        }
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.pages() << bindings::PAGE_SHIFT
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.pages() == 0
    }
}

impl<T: FileSystem> Iterator for Readahead<'_, T> {
    type Item = LockedFolio;

    fn next(&mut self) -> Option<LockedFolio> {
        // SAFETY: Valid by the type invariant. The folio is locked, and it is on us to unlock it;
        // the reference that comes with it is put, as `LockedFolio` takes its own.
        unsafe {
            let folio = NonNull::new(bindings::__readahead_folio(self.control))?;
            let locked = LockedFolio::from_raw(folio);
            bindings::folio_put(folio.as_ptr());
            Some(locked)
        }
    }
}

/// What the VFS asks of the page cache of a regular file.
#[vtable]
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Reads one folio. May return before it has been read: whoever wants it waits for the lock.
    ///
    /// May sleep. The file is [`None`] when the kernel reads on its own behalf.
    fn read_folio(
        file: Option<&File<Self::FileSystem>>,
        inode: &Inode<Self::FileSystem>,
        folio: LockedFolio,
    ) -> Result;

    /// Reads folios that nobody has asked for yet, as many as it makes sense to read. May return
    /// before they have been read.
    ///
    /// May sleep; `invalidate_lock` is held shared. Errors show in the folios only. Without it,
    /// [`read_folio`](Operations::read_folio) is asked for each.
    fn readahead(_readahead: Readahead<'_, Self::FileSystem>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes folios back that are dirty. May return before they have been written.
    ///
    /// May sleep; part of memory reclaim can wait for it. Without it, folios cannot be dirtied.
    fn writepages(
        _inode: &Inode<Self::FileSystem>,
        _dirty: &mut Dirty<'_, Self::FileSystem>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The dirty folios of a file that are to be written back, in order, as an iterator.
///
/// # Invariants
///
/// The pointers are those of a `writepages` call that has not returned; `last` is what `writeback_iter()` returned last, if
/// that was a folio.
pub struct Dirty<'a, T: FileSystem> {
    mapping: *mut bindings::address_space,
    control: *mut bindings::writeback_control,
    last: *mut bindings::folio,
    error: c_int,
    _p: PhantomData<&'a mut Inode<T>>,
}

impl<'a, T: FileSystem> Iterator for Dirty<'a, T> {
    type Item = DirtyFolio<'a>;

    fn next(&mut self) -> Option<DirtyFolio<'a>> {
        // SAFETY: The arguments of the call by the type invariant. `last` is null at the start, and then what was returned.
        self.last = unsafe {
            bindings::writeback_iter(self.mapping, self.control, self.last, &mut self.error)
        };
        // SAFETY: It was returned locked and marked clean, and is for the caller of this to deal with.
        NonNull::new(self.last).map(|folio| unsafe { DirtyFolio::from_raw(folio, self.control) })
    }
}

impl<T: FileSystem> Drop for Dirty<'_, T> {
    fn drop(&mut self) {
        // The iteration holds folios until it has come to its end. What was not written stays dirty.
        while !self.last.is_null() {
            drop(self.next());
        }
    }
}

struct Callbacks<M>(PhantomData<M>);

impl<M: Operations> Callbacks<M> {
    /// # Safety
    ///
    /// Called by the VFS, with a folio of an inode of `M::FileSystem` that is locked and is to be
    /// unlocked by this, and an open file of the inode or null.
    unsafe extern "C" fn read_folio(
        file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> c_int {
        from_result(|| {
            let folio = NonNull::new(folio).ok_or(EIO)?;
            // SAFETY: As the caller says. A locked folio stays in its mapping, whose inode is in use.
            let (file, inode, folio) = unsafe {
                let mapping = mapping_of(folio);
                let inode = Inode::from_raw((*mapping).host);
                (
                    File::of_inode(file, inode),
                    inode,
                    LockedFolio::from_raw(folio),
                )
            };
            M::read_folio(file, inode, folio)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with the control of an inode of `M::FileSystem`.
    unsafe extern "C" fn readahead(control: *mut bindings::readahead_control) {
        // INVARIANT: As the caller says.
        M::readahead(Readahead {
            control,
            _p: PhantomData,
        });
    }

    /// # Safety
    ///
    /// Called by the VFS, with the mapping of an inode of `M::FileSystem` and a control that says what to write.
    unsafe extern "C" fn writepages(
        mapping: *mut bindings::address_space,
        control: *mut bindings::writeback_control,
    ) -> c_int {
        // SAFETY: As the caller says; the mapping of an inode that is written back has one.
        let inode = unsafe { Inode::from_raw((*mapping).host) };
        // INVARIANT: As the caller says; nothing was returned yet.
        let mut dirty = Dirty {
            mapping,
            control,
            last: core::ptr::null_mut(),
            error: 0,
            _p: PhantomData,
        };
        from_result(|| {
            M::writepages(inode, &mut dirty)?;
            Ok(0)
        })
    }

    const VTABLE: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(Self::read_folio),
        readahead: if M::HAS_READAHEAD {
            Some(Self::readahead)
        } else {
            None
        },
        writepages: if M::HAS_WRITEPAGES {
            Some(Self::writepages)
        } else {
            None
        },
        dirty_folio: if M::HAS_WRITEPAGES {
            Some(dirty::dirty_folio)
        } else {
            Some(bindings::noop_dirty_folio)
        },
        release_folio: Some(dirty::release_folio),
        invalidate_folio: Some(dirty::invalidate_folio),
        // What is attached to a folio moves along.
        migrate_folio: Some(bindings::filemap_migrate_folio),
        ..pin_init::zeroed()
    };
}

/// The mapping that a folio of the page cache is in.
///
/// # Safety
///
/// The folio is in the page cache, and locked.
unsafe fn mapping_of(folio: NonNull<bindings::folio>) -> *mut bindings::address_space {
    // SAFETY: As the caller says.
    unsafe { (*folio.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.mapping }
}

/// The table of regular files.
pub(crate) fn vtable<M: Operations>() -> *const bindings::address_space_operations {
    &Callbacks::<M>::VTABLE
}

/// What the memory management asks of mappings of the page cache into memory.
pub(crate) const MAPPED: bindings::vm_operations_struct = bindings::vm_operations_struct {
    fault: Some(bindings::virtiofs_helper_fault),
    map_pages: Some(bindings::filemap_map_pages),
    page_mkwrite: Some(page_mkwrite),
    ..pin_init::zeroed()
};

/// A page of a shared mapping is about to be stored to. It becomes dirty, and its folio is returned locked.
///
/// C: `filemap_page_mkwrite()`, which has no `invalidate_lock` to take, that comes after what keeps a filesystem from being frozen,
/// and makes the whole folio dirty.
///
/// # Safety
///
/// Called by the memory management, with a fault in a mapping of a regular file of a filesystem of this crate.
unsafe extern "C" fn page_mkwrite(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: As the caller says: mapped files are there until they are unmapped, and the page is held by who calls.
    unsafe {
        let file = (*(*fault).__bindgen_anon_1.vma).vm_file;
        let index = (*fault).__bindgen_anon_1.pgoff;
        let mapping = (*file).f_mapping;
        let sb = (*(*mapping).host).i_sb;
        let folio = bindings::virtiofs_helper_folio_of((*fault).page);
        bindings::sb_start_pagefault(sb);
        bindings::file_update_time(file);
        let invalidate_lock = &raw mut (*mapping).invalidate_lock;
        let dirtied = loop {
            // With nothing locked: for a folio's lock there are waits of the kernel that no signal ends.
            if bindings::folio_wait_writeback_killable(folio) != 0
                || bindings::down_read_killable(invalidate_lock) != 0
            {
                break Err(EINTR);
            }
            let dirtied = lock_and_dirty(folio, mapping, index);
            bindings::filemap_invalidate_unlock_shared(mapping);
            if dirtied != Err(EBUSY) {
                break dirtied;
            }
        };
        bindings::sb_end_pagefault(sb);
        match dirtied {
            Ok(true) => bindings::vm_fault_reason_VM_FAULT_LOCKED,
            Ok(false) => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
            // Not to be tried again: where the kernel stores for a task that is about to die, that would never end.
            Err(e) if e == EINTR => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
            // The store is tried again when there is memory.
            Err(_) => bindings::vm_fault_reason_VM_FAULT_OOM,
        }
    }
}

/// Locks a folio and marks its page with that index in the file dirty; neither, if it was dropped from `mapping` meanwhile. Sleeps; a
/// fatal signal ends that with `EINTR`, as who has the lock may wait for a host. Errors: `ENOMEM`, and `EBUSY` when the folio is being
/// written back, where its contents are not to change.
///
/// # Safety
///
/// Somebody holds a reference to the folio.
unsafe fn lock_and_dirty(
    folio: *mut bindings::folio,
    mapping: *mut bindings::address_space,
    index: usize,
) -> Result<bool> {
    let valid = NonNull::new(folio).ok_or(ENOMEM)?;
    // SAFETY: The folio is valid as the caller says; it is looked at and changed while it is locked.
    unsafe {
        to_result(bindings::folio_lock_killable(folio)).map_err(|_| EINTR)?;
        let is_there = (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping == mapping;
        if is_there && bindings::folio_test_writeback(folio) {
            bindings::folio_unlock(folio);
            return Err(EBUSY);
        }
        let first = usize::try_from(bindings::folio_pos(folio) / PAGE_SIZE as i64);
        let dirtied = match first {
            Ok(first) if is_there => dirty::make_writable(valid, index.saturating_sub(first)),
            _ => Ok(()),
        };
        if !is_there || dirtied.is_err() {
            bindings::folio_unlock(folio);
            return dirtied.map(|()| false);
        }
    }
    Ok(true)
}

/// The page cache of a file, which is locked against being filled, and against clean folios becoming dirty through mappings
/// (`invalidate_lock`).
pub struct InvalidateGuard<'a, T: FileSystem>(&'a Inode<T>, NotThreadSafe);

impl<'a, T: FileSystem> InvalidateGuard<'a, T> {
    /// The inode's mapping has just been locked.
    pub(crate) fn new(inode: &'a Inode<T>) -> Self {
        Self(inode, NotThreadSafe)
    }

    pub(crate) fn inode(&self) -> &'a Inode<T> {
        self.0
    }
}

impl<T: FileSystem> Drop for InvalidateGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Inode::lock_invalidate`.
        unsafe { bindings::filemap_invalidate_unlock(self.0.mapping()) };
    }
}

impl<T: FileSystem> Inode<T> {
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: Does not change while the inode is in use.
        unsafe { (*self.as_raw()).i_mapping }
    }

    /// Keeps pages from being brought into the page cache, and clean ones from becoming dirty through mappings. What is dirty
    /// can be stored to until it has been [written back](Inode::write_and_wait). May sleep.
    pub fn lock_invalidate(&self) -> InvalidateGuard<'_, T> {
        // SAFETY: The mapping is valid.
        unsafe { bindings::filemap_invalidate_lock(self.mapping()) };
        InvalidateGuard::new(self)
    }

    /// Drops all pages, also those that are mapped.
    ///
    /// May sleep: waits for pages that are locked or being written back, which no signal ends: [`wait_for_pages`](Inode::wait_for_pages)
    /// comes before it. Errors: `EBUSY` when some pages could not be dropped.
    ///
    /// C: `invalidate_inode_pages2()`.
    pub fn invalidate_pages(&self) -> Result {
        // SAFETY: The mapping is valid.
        to_result(unsafe { bindings::invalidate_inode_pages2(self.mapping()) })
    }

    /// Drops the pages from byte `start` to byte `end`, which is the last, also those that are
    /// mapped.
    ///
    /// As [`invalidate_pages`](Inode::invalidate_pages).
    pub fn invalidate_range(&self, start: i64, end: i64) -> Result {
        let index = |pos: i64| (pos.max(0) as usize) >> bindings::PAGE_SHIFT;
        // SAFETY: The mapping is valid.
        to_result(unsafe {
            bindings::invalidate_inode_pages2_range(self.mapping(), index(start), index(end))
        })
    }

    /// Sleeps until each page from byte `start` to byte `end`, which is the last, has been seen neither locked nor being written back; a
    /// fatal signal ends that with `EINTR`.
    ///
    /// For who takes pages out of the page cache, by functions of the kernel whose wait for a page no signal ends: a host may have to
    /// answer for these. They wait for what has begun since then alone.
    pub fn wait_for_pages(&self, start: i64, end: i64) -> Result {
        if !self.has_pages() {
            return Ok(());
        }
        let page = |pos: i64| c_ulong::try_from(pos.max(0) / PAGE_SIZE as i64);
        let (mut index, last) = (page(start)?, page(end)?);
        let mut batch = bindings::folio_batch::default();
        while index <= last {
            // SAFETY: The mapping is valid; the batch is empty, and gets references to folios.
            let found = unsafe {
                bindings::filemap_get_folios(self.mapping(), &mut index, last, &mut batch)
            };
            if found == 0 {
                break;
            }
            let folios = batch.folios.iter().take(found as usize);
            let waited = folios.copied().try_for_each(|folio| {
                // SAFETY: The batch has a reference to the folio.
                unsafe {
                    to_result(bindings::folio_wait_locked_killable(folio))?;
                    to_result(bindings::folio_wait_writeback_killable(folio))
                }
            });
            // SAFETY: The batch is one that was filled above; it is empty afterwards.
            unsafe { bindings::__folio_batch_release(&mut batch) };
            waited?;
        }
        Ok(())
    }

    /// Drops all pages that are easy to drop: clean, not mapped, not locked. Does not wait.
    ///
    /// C: `invalidate_mapping_pages()`.
    pub fn invalidate_unused_pages(&self) {
        // SAFETY: The mapping is valid.
        unsafe { bindings::invalidate_mapping_pages(self.mapping(), 0, usize::MAX) };
    }

    /// Drops pages beyond `size`, also those that are mapped, and zeroes the rest of the last one.
    ///
    /// Comes after [`AttrsMut::set_size`](crate::inode::AttrsMut::set_size). May sleep.
    pub fn truncate_pagecache(&self, size: i64) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::truncate_pagecache(self.as_raw(), size) };
    }

    /// Whether it has a page cache that is read from somewhere: a regular file that is no DAX file. `EINVAL` if not: its pages are the
    /// filesystem's own, or memory of a device, and there is no [`Operations`] to fill any.
    pub(crate) fn check_page_cache(&self) -> Result {
        match self.file_type() == FileType::Regular && !self.is_dax() {
            true => Ok(()),
            false => Err(EINVAL),
        }
    }

    /// Gets the folio at `pos` (bytes) to write to: locked, made when there is none, of about `len` bytes. Sleeps; a fatal signal ends
    /// that with `EINTR`. `EINVAL` for what has no page cache.
    pub fn write_folio(&self, pos: i64, len: usize) -> Result<WriteFolio> {
        self.check_page_cache()?;
        // SAFETY: The mapping of an inode in use.
        unsafe { WriteFolio::get(self.mapping(), pos, len) }
    }

    /// Has the folio at `pos` (bytes) read through `file`, if it is not up to date. Sleeps; a fatal signal ends it with `EINTR`. `EINVAL`
    /// for what has no page cache, or when `file` is another.
    ///
    /// C: `read_cache_folio()`, where no signal ends the wait for a folio that somebody else reads.
    pub fn read_in(&self, file: &File<T>, pos: i64) -> Result {
        self.check_page_cache()?;
        if file.inode().as_raw() != self.as_raw() {
            return Err(EINVAL);
        }
        let index = usize::try_from(pos)? >> bindings::PAGE_SHIFT;
        loop {
            // SAFETY: The mapping is valid; the folio is returned with a reference, which is given up.
            let read = unsafe {
                let folio =
                    from_err_ptr(bindings::virtiofs_helper_read_folio(self.mapping(), index))?;
                let read = self.read_folio(file, folio);
                bindings::folio_put(folio);
                read
            };
            if read? {
                return Ok(());
            }
        }
    }

    /// Reads a folio through `file` if it is not up to date; `false` if it was dropped from the page cache. As
    /// [`read_in`](Inode::read_in).
    ///
    /// # Safety
    ///
    /// Somebody holds a reference to the folio.
    unsafe fn read_folio(&self, file: &File<T>, folio: *mut bindings::folio) -> Result<bool> {
        // SAFETY: The folio is valid as the caller says, and locked by us when it is to be read: that unlocks it.
        unsafe {
            if bindings::folio_test_uptodate(folio) {
                return Ok(true);
            }
            to_result(bindings::folio_lock_killable(folio)).map_err(|_| EINTR)?;
            let is_there = (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping == self.mapping();
            if !is_there || bindings::folio_test_uptodate(folio) {
                bindings::folio_unlock(folio);
                return Ok(is_there);
            }
            let Some(read_folio) = (*(*self.mapping()).a_ops).read_folio else {
                bindings::folio_unlock(folio);
                return Err(EIO);
            };
            to_result(read_folio(file.as_raw(), folio))?;
            to_result(bindings::folio_wait_locked_killable(folio)).map_err(|_| EINTR)?;
            match bindings::folio_test_uptodate(folio) {
                true => Ok(true),
                false => Err(EIO),
            }
        }
    }

    /// Waits where there are too many dirty pages. To be called by who dirties some, with no folio locked. Sleeps.
    ///
    /// C: `balance_dirty_pages_ratelimited()`.
    pub fn balance_dirty_pages(&self) {
        // SAFETY: The mapping is valid.
        unsafe { bindings::balance_dirty_pages_ratelimited(self.mapping()) };
    }

    /// Whether pages are dirty or being written back. Callable from any context.
    pub fn has_dirty_pages(&self) -> bool {
        // SAFETY: The mapping is valid.
        unsafe {
            bindings::mapping_tagged(self.mapping(), bindings::PAGECACHE_TAG_DIRTY)
                || bindings::mapping_tagged(self.mapping(), bindings::PAGECACHE_TAG_WRITEBACK)
        }
    }

    /// Writes all dirty pages back, and waits for it. Errors since this was asked last.
    ///
    /// May sleep; a fatal signal ends the wait with `EINTR`.
    ///
    /// C: `filemap_write_and_wait_range()`, whose wait no signal ends.
    pub fn write_and_wait(&self) -> Result {
        self.write_and_wait_range(0, i64::MAX)
    }

    /// As [`write_and_wait`](Inode::write_and_wait), from byte `start` to byte `end`, which is the last.
    pub fn write_and_wait_range(&self, start: i64, end: i64) -> Result {
        let written = self.write_out(start, end);
        if written == Err(EINTR) {
            return written;
        }
        // SAFETY: The mapping is valid.
        written.and(to_result(unsafe {
            bindings::filemap_check_errors(self.mapping())
        }))
    }

    /// Writes dirty pages back and waits for it, as [`write_and_wait`](Inode::write_and_wait). Errors of the attempt alone.
    ///
    /// What others append meanwhile is left alone: who writes as fast as this would never let it end.
    pub fn write_out(&self, start: i64, end: i64) -> Result {
        // To the end of the last page, though: a mapping may have stored something there, behind the file's end.
        let end = end.min(self.size().saturating_sub(1) | (PAGE_SIZE as i64 - 1));
        if end < start || !self.has_pages() {
            return Ok(());
        }
        self.wait_for_tagged(bindings::PAGECACHE_TAG_DIRTY, start, end)?;
        // SAFETY: The mapping is valid.
        let begun = unsafe { bindings::filemap_flush_range(self.mapping(), start, end) };
        self.wait_for_writeback(start, end)?;
        // What was being written back has become dirty again meanwhile: it was passed over. Now it needs not be waited for first,
        // which no signal would end.
        // SAFETY: The mapping is valid.
        let written = unsafe { bindings::filemap_fdatawrite_range(self.mapping(), start, end) };
        self.wait_for_writeback(start, end)?;
        to_result(begun).and(to_result(written))
    }

    /// Sleeps until nothing from byte `start` to byte `end`, which is the last, is being written back; a fatal signal ends that
    /// with `EINTR`.
    fn wait_for_writeback(&self, start: i64, end: i64) -> Result {
        self.wait_for_tagged(bindings::PAGECACHE_TAG_WRITEBACK, start, end)
    }

    /// Sleeps until each folio with this tag from byte `start` to byte `end`, which is the last, has been seen unlocked, or not being
    /// written back if that is what the tag says; a fatal signal ends that with `EINTR`.
    ///
    /// What writes back waits for the lock of each dirty folio, and no signal ends that, while a writer may have it locked until a host
    /// answers.
    fn wait_for_tagged(&self, tag: u32, start: i64, end: i64) -> Result {
        let page = |pos: i64| c_ulong::try_from(pos / PAGE_SIZE as i64);
        let (mut index, last) = (page(start)?, page(end)?);
        let mut batch = bindings::folio_batch::default();
        while index <= last {
            // SAFETY: The mapping is valid; the batch is empty, and gets references to folios.
            let found = unsafe {
                bindings::filemap_get_folios_tag(self.mapping(), &mut index, last, tag, &mut batch)
            };
            if found == 0 {
                break;
            }
            let folios = batch.folios.iter().take(found as usize);
            let waited = folios.copied().try_for_each(|folio| {
                // SAFETY: The batch has a reference to the folio.
                to_result(unsafe {
                    match tag {
                        bindings::PAGECACHE_TAG_WRITEBACK => {
                            bindings::folio_wait_writeback_killable(folio)
                        }
                        _ => bindings::folio_wait_locked_killable(folio),
                    }
                })
            });
            // SAFETY: The batch is one that was filled above; it is empty afterwards.
            unsafe { bindings::__folio_batch_release(&mut batch) };
            waited?;
        }
        Ok(())
    }

    /// Drops the pages from byte `start` to byte `end`, which is the last, and zeroes parts of pages.
    ///
    /// May sleep; to be called with [`lock_invalidate`](Inode::lock_invalidate) held.
    pub fn truncate_range(&self, start: i64, end: i64) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::truncate_pagecache_range(self.as_raw(), start, end) };
    }

    /// Whether any page is in the page cache.
    pub fn has_pages(&self) -> bool {
        // SAFETY: A racing change gives the old or the new count.
        unsafe { (&raw const (*self.mapping()).nrpages).read_volatile() != 0 }
    }

    /// Whether any process has the file, or a part of it, mapped. Does not sleep; what happens at the same time may count or not.
    ///
    /// C: `mapping_mapped()`.
    pub fn is_memory_mapped(&self) -> bool {
        // SAFETY: The mapping is valid; only whether there is a root is looked at.
        unsafe { bindings::mapping_mapped(self.mapping()) != 0 }
    }

    /// Whether any page from byte `start` to byte `end`, which is the last, is in the page cache. Does not sleep.
    ///
    /// C: `filemap_range_has_page()`.
    pub fn has_pages_in(&self, start: i64, end: i64) -> bool {
        // SAFETY: The mapping is valid.
        unsafe { bindings::filemap_range_has_page(self.mapping(), start, end) }
    }
    /// The page with this index of a page cache that is not read from anywhere, if it is there. Sleeps.
    pub fn find_page(&self, index: usize) -> Option<DataPage> {
        if !self.keeps_pages() {
            return None;
        }
        // SAFETY: The mapping of an inode in use, which no operation fills.
        unsafe { DataPage::find(self.mapping(), index) }
    }

    /// As [`find_page`](Inode::find_page); the page is made when it is not there, and it is zero. `EINVAL` when the page cache is
    /// read from somewhere.
    pub fn new_page(&self, index: usize) -> Result<DataPage> {
        if !self.keeps_pages() {
            return Err(EINVAL);
        }
        // SAFETY: The mapping of an inode in use, which no operation fills.
        unsafe { DataPage::make(self.mapping(), index) }
    }

    /// Whether the filesystem alone puts pages into the page cache: that of a directory.
    fn keeps_pages(&self) -> bool {
        self.file_type() == FileType::Directory
    }
}
