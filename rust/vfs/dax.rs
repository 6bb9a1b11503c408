// SPDX-License-Identifier: GPL-2.0

//! Regular files whose contents lie in memory of a device (DAX).
//!
//! There is no page cache: reads and writes copy from and to the memory, mappings of the file show it. What a file has in page
//! tables the kernel keeps as *entries* of its mapping, in place of folios.
//!
//! C headers: [`include/linux/dax.h`](srctree/include/linux/dax.h),
//! [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use crate::{
    attr::FileType,
    file::{
        self,
        File,
        Mapping, //
    },
    filesystem::FileSystem,
    inode::{
        self,
        Inode,
        InodeRef,
        NewInode, //
    },
    mapping::InvalidateGuard, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_uint, //
    },
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    types::NotThreadSafe, //
};
use kernel_ext::{
    bindings,
    dax::{
        BusyPage,
        Memory, //
    },
};

/// Where bytes of a file lie.
pub struct Location<'a> {
    /// The memory.
    pub memory: &'a Memory,
    /// The place in it, in bytes.
    pub offset: u64,
    /// So many bytes from there on belong to the file, whole pages.
    pub len: u64,
}

/// How a page fault ends: a `vm_fault_t`.
#[derive(Clone, Copy)]
pub struct Outcome(bindings::vm_fault_t);

impl Outcome {
    /// Cannot be done with a page as large as this: the kernel tries a smaller one. Where there is none it is [`NOTHING`](Self::NOTHING).
    pub const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);
    /// There is nothing: `SIGBUS`, or `EFAULT` for who goes by the kernel.
    pub const NOTHING: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);
    /// Memory is short.
    pub const NO_MEMORY: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// What the kernel is told of a page of that order: it has no answer to a fallback from the smallest.
    fn of_order(self, order: c_uint) -> Self {
        match self.0 & bindings::vm_fault_reason_VM_FAULT_FALLBACK {
            0 => self,
            _ if order > 0 => self,
            _ => Self::NOTHING,
        }
    }
}

/// What the memory management asks of files that lie in memory of a device.
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// The memory that the file lies in; [`None`] once it is gone.
    fn memory(inode: &Inode<Self::FileSystem>) -> Option<&Memory>;

    /// A page of a mapping is accessed that is not there, or not writable yet.
    ///
    /// May sleep; the address space of the task, or a part of it, is locked.
    fn fault(fault: &mut Fault<'_, Self>) -> Outcome;

    /// Where byte `pos` of the file lies, to be written to or not: asked by [`LockedFault::insert`] alone. Must not sleep, nor take a
    /// lock that anybody sleeps with.
    fn locate(inode: &Inode<Self::FileSystem>, pos: i64, write: bool) -> Option<Location<'_>>;
}

/// A page fault.
///
/// # Invariants
///
/// The pointer is that of a fault in a mapping of a file of `D::FileSystem` that has not been answered.
pub struct Fault<'a, D: Operations> {
    fault: *mut bindings::vm_fault,
    order: c_uint,
    _p: PhantomData<&'a mut D>,
}

impl<'a, D: Operations> Fault<'a, D> {
    /// The file.
    pub fn file(&self) -> &'a File<D::FileSystem> {
        // SAFETY: Valid by the type invariant: a mapping holds a reference to its file.
        unsafe { File::from_raw((*(*self.fault).__bindgen_anon_1.vma).vm_file) }
    }

    /// The place in the file, in bytes: of the page that is accessed.
    pub fn pos(&self) -> i64 {
        // SAFETY: Valid by the type invariant.
        let index = unsafe { (*self.fault).__bindgen_anon_1.pgoff };
        i64::try_from(index.saturating_mul(PAGE_SIZE)).unwrap_or(i64::MAX)
    }

    /// The size of the page to be mapped, in bytes.
    pub fn size(&self) -> u64 {
        (PAGE_SIZE as u64) << self.order
    }

    /// Whether the file is written to: not by a private mapping, which gets a copy.
    pub fn is_write(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { is_write(self.fault) }
    }

    /// Whether what is mapped can be executed.
    pub fn is_executable(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe {
            (*(*self.fault).__bindgen_anon_1.vma)
                .__bindgen_anon_2
                .vm_flags
                & bindings::VM_EXEC
                != 0
        }
    }

    /// Keeps what takes pages out of the file away, but not others who bring pages in. May sleep; a fatal signal ends that with
    /// `EINTR`.
    pub fn lock(&mut self) -> Result<LockedFault<'_, 'a, D>> {
        let mapping = self.file().inode().mapping();
        // SAFETY: The mapping is valid.
        to_result(unsafe { bindings::down_read_killable(&raw mut (*mapping).invalidate_lock) })?;
        // INVARIANT: It has just been locked.
        Ok(LockedFault(self, NotThreadSafe))
    }
}

/// A page fault whose file is locked against what takes pages out of it: a page that is mapped stays until this is dropped at least.
///
/// The lock of another file would not do, and none but that of the fault's own can be had here:
///
/// ```compile_fail,E0599
/// # use kernel::prelude::*;
/// # use vfs::{dax::{Fault, Operations}, Inode};
/// fn insert<D: Operations>(fault: &mut Fault<'_, D>, other: &Inode<D::FileSystem>) -> Result {
///     fault.lock()?.insert();
///     let lock = other.lock_invalidate_killable()?;
///     fault.insert(&lock); // refused
///     Ok(())
/// }
/// ```
///
/// # Invariants
///
/// `invalidate_lock` of the fault's file is held shared, by us.
pub struct LockedFault<'l, 'a, D: Operations>(&'l mut Fault<'a, D>, NotThreadSafe);

impl<D: Operations> Drop for LockedFault<'_, '_, D> {
    fn drop(&mut self) {
        // SAFETY: Held by the type invariant.
        unsafe { bindings::filemap_invalidate_unlock_shared(self.0.file().inode().mapping()) };
    }
}

impl<D: Operations> LockedFault<'_, '_, D> {
    /// Maps a page that is not of the memory that the file lies in, but has the same bytes as that. It can only be read, and stays
    /// until it is taken out of page tables; nobody else needs to hold it. [`NOTHING`](Outcome::NOTHING) when the file is written to.
    pub fn insert_copy(&mut self, page: &Page) -> Outcome {
        if self.0.is_write() {
            return Outcome::NOTHING;
        }
        // SAFETY: The fault is valid. The page is one that the kernel allocated for its own use; the page table takes a reference of
        // its own. A shared mapping can be stored to only after `page_mkwrite`, a private one gets another copy then.
        Outcome(unsafe { bindings::vmf_insert_page_mkwrite(self.0.fault, page.as_ptr(), false) })
    }

    /// Maps the page that [`Operations::locate`] finds.
    pub fn insert(&mut self) -> Outcome {
        let mut frame = 0;
        // SAFETY: The fault is valid; the operations are for its file. With the lock held, `Memory::shut_down` waits until the page
        // is where it can be seen.
        unsafe {
            let lock = bindings::dax_read_lock();
            let outcome = bindings::dax_iomap_fault(
                self.0.fault,
                self.0.order,
                &mut frame,
                core::ptr::null_mut(),
                &Callbacks::<D>::IOMAP,
            );
            bindings::dax_read_unlock(lock);
            Outcome(outcome)
        }
    }
}

/// # Safety
///
/// `fault` is a fault in a mapping of a file.
unsafe fn is_write(fault: *mut bindings::vm_fault) -> bool {
    // SAFETY: As the caller says.
    unsafe {
        let shared =
            (*(*fault).__bindgen_anon_1.vma).__bindgen_anon_2.vm_flags & bindings::VM_SHARED != 0;
        shared && (*fault).flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0
    }
}

struct Callbacks<D>(PhantomData<D>);

impl<D: Operations> Callbacks<D> {
    const MAPPED: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        huge_fault: Some(Self::huge_fault),
        page_mkwrite: Some(Self::fault),
        pfn_mkwrite: Some(Self::fault),
        ..pin_init::zeroed()
    };

    const IOMAP: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::begin),
        iomap_end: None,
        iomap_next: None,
    };

    const ADDRESS_SPACE: bindings::address_space_operations = bindings::address_space_operations {
        writepages: Some(Self::writepages),
        dirty_folio: Some(bindings::noop_dirty_folio),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the memory management, with a fault in a mapping of a file of `D::FileSystem`.
    unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: As the caller says.
        unsafe { Self::huge_fault(fault, 0) }
    }

    /// # Safety
    ///
    /// As [`fault`](Self::fault).
    unsafe extern "C" fn huge_fault(
        fault: *mut bindings::vm_fault,
        order: c_uint,
    ) -> bindings::vm_fault_t {
        // SAFETY: As the caller says; the superblock outlives its files.
        let (write, sb) = unsafe {
            let file = (*(*fault).__bindgen_anon_1.vma).vm_file;
            (is_write(fault), (*(*file).f_inode).i_sb)
        };
        if write {
            // SAFETY: As above. A frozen filesystem is not written to.
            unsafe { bindings::sb_start_pagefault(sb) };
        }
        // INVARIANT: As the caller says.
        let outcome = D::fault(&mut Fault {
            fault,
            order,
            _p: PhantomData,
        });
        if write {
            // SAFETY: Begun above.
            unsafe { bindings::sb_end_pagefault(sb) };
        }
        outcome.of_order(order).0
    }

    /// # Safety
    ///
    /// Called by `dax_iomap_fault()`, with an inode of `D::FileSystem` and a map to be filled in.
    unsafe extern "C" fn begin(
        inode: *mut bindings::inode,
        pos: bindings::loff_t,
        len: bindings::loff_t,
        flags: c_uint,
        map: *mut bindings::iomap,
        _source: *mut bindings::iomap,
    ) -> c_int {
        // SAFETY: As the caller says.
        let (inode, map) = unsafe { (Inode::<D::FileSystem>::from_raw(inode), &mut *map) };
        match D::locate(inode, pos, flags & bindings::IOMAP_WRITE != 0) {
            Some(found) if found.len > 0 => {
                map.addr = found.offset;
                map.offset = pos;
                map.length = found.len.min(len.unsigned_abs());
                map.type_ = bindings::IOMAP_MAPPED as u16;
                map.dax_dev = found.memory.as_raw();
                0
            }
            _ => EAGAIN.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with the mapping of an inode of `D::FileSystem`.
    unsafe extern "C" fn writepages(
        mapping: *mut bindings::address_space,
        control: *mut bindings::writeback_control,
    ) -> c_int {
        // SAFETY: As the caller says; the mapping of an inode that is written back has one.
        let inode = unsafe { Inode::from_raw((*mapping).host) };
        match D::memory(inode) {
            // SAFETY: As above; the device is that of the entries.
            Some(memory) => unsafe {
                bindings::dax_writeback_mapping_range(mapping, memory.as_raw(), control)
            },
            None => 0,
        }
    }
}

impl<T: FileSystem> NewInode<T> {
    /// Completes it as a regular file whose contents lie in memory of a device.
    pub fn into_dax<I, F, D>(mut self) -> InodeRef<T>
    where
        I: inode::Operations<FileSystem = T>,
        F: file::Operations<FileSystem = T>,
        D: Operations<FileSystem = T>,
    {
        self.set_flag(bindings::S_DAX);
        // SAFETY: The table is for inodes of `T` that are regular files with `S_DAX`.
        unsafe { self.into_file::<I, F>(&Callbacks::<D>::ADDRESS_SPACE) }
    }
}

impl<T: FileSystem> Mapping<'_, T> {
    /// Shows the memory that the file lies in, which has to be one of [`NewInode::into_dax`] with `D`.
    ///
    /// Errors: `EOPNOTSUPP` when that cannot be in the way that is asked for (`MAP_SYNC`), `EINVAL` for other files.
    pub fn map_dax<D: Operations<FileSystem = T>>(&mut self) -> Result {
        let inode = self.file().inode();
        if !inode.is_dax() {
            return Err(EINVAL);
        }
        let memory = D::memory(inode).ok_or(ENODEV)?;
        // SAFETY: Valid by the type invariant; the operations are for the file, and static.
        unsafe {
            if !bindings::virtiofs_helper_prepare_dax(self.as_raw(), memory.as_raw()) {
                return Err(EOPNOTSUPP);
            }
            (*self.as_raw()).vm_ops = &Callbacks::<D>::MAPPED;
        }
        Ok(())
    }
}

impl<T: FileSystem> Inode<T> {
    /// Whether its contents lie in memory of a device. Callable from any context.
    pub fn is_dax(&self) -> bool {
        // SAFETY: Set before the inode is in use, and not changed.
        unsafe { (*self.as_raw()).i_flags & bindings::S_DAX != 0 }
    }

    /// Takes all pages from `start` (bytes) on out of page tables. Whoever accesses them takes a fault. May sleep.
    ///
    /// C: `unmap_mapping_pages()`.
    pub fn unmap_from(&self, start: i64) {
        let first = usize::try_from(start).unwrap_or(0).div_ceil(PAGE_SIZE);
        // SAFETY: The mapping is valid.
        unsafe { bindings::unmap_mapping_pages(self.mapping(), first, 0, false) };
    }

    /// Takes the pages from byte `start` to byte `last` out of page tables. Whoever accesses them takes a fault. May sleep.
    ///
    /// C: `unmap_mapping_pages()`.
    pub fn unmap_range(&self, start: i64, last: i64) {
        let page = |pos| usize::try_from(pos).unwrap_or(0) / PAGE_SIZE;
        let count = page(last).saturating_sub(page(start)).saturating_add(1);
        // SAFETY: The mapping is valid.
        unsafe { bindings::unmap_mapping_pages(self.mapping(), page(start), count, false) };
    }

    /// The inode goes as soon as nobody uses it, so that the next one can be of another kind. May sleep.
    ///
    /// C: `d_mark_dontcache()`.
    pub fn mark_dont_cache(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::d_mark_dontcache(self.as_raw()) };
    }

    /// As [`lock_invalidate`](Inode::lock_invalidate); a fatal signal ends the wait with `EINTR`.
    pub fn lock_invalidate_killable(&self) -> Result<InvalidateGuard<'_, T>> {
        // SAFETY: The mapping is valid.
        to_result(unsafe {
            bindings::down_write_killable(&raw mut (*self.mapping()).invalidate_lock)
        })?;
        Ok(InvalidateGuard::new(self))
    }
}

impl<T: FileSystem> InvalidateGuard<'_, T> {
    /// Takes the pages from byte `start` to byte `last` out of page tables and out of the file, which is a DAX file in `memory`, when
    /// nobody has a reference to them any more: whoever has is waited for with `patience`, and the lock is not held meanwhile.
    ///
    /// `busy` looks for a page of these with a reference. The kernel looks, too, but takes one that has as many references as page
    /// tables show it for idle. So it misses a task that has taken it out of its own page table and is about to give up its reference:
    /// for that instant the page is not in the page table any more, and still counted as if it were.
    ///
    /// May sleep. Errors: `EINVAL` when it is no DAX file, or not in `memory`, `EBUSY` without patience, `ERESTARTSYS` or `EINTR` for a
    /// signal.
    ///
    /// C: `dax_break_layout()`.
    pub fn break_layouts<'m>(
        &mut self,
        memory: &'m Memory,
        start: i64,
        last: i64,
        patience: Patience,
        busy: impl Fn() -> Option<BusyPage<'m>>,
    ) -> Result {
        let inode = self.inode();
        if !inode.is_dax() {
            // What takes the place of folios there is something else.
            return Err(EINVAL);
        }
        loop {
            // SAFETY: The mapping is valid, and that of a DAX file.
            let pinned = NonNull::new(unsafe {
                bindings::dax_layout_busy_page_range(inode.mapping(), start, last)
            });
            let pinned = match pinned {
                Some(page) => Some(memory.page(page).ok_or(EINVAL)?),
                None => None,
            };
            let Some(page) = pinned.or_else(&busy) else {
                break;
            };
            let (state, interrupted) = match patience {
                Patience::None => return Err(EBUSY),
                Patience::UntilSignal => (bindings::TASK_INTERRUPTIBLE, ERESTARTSYS),
                Patience::UntilKilled => (bindings::TASK_KILLABLE, EINTR),
                Patience::Unlimited => (bindings::TASK_UNINTERRUPTIBLE, EINTR),
            };
            // SAFETY: The device is valid, and the page one of its memory, at which nobody looks once this is gone. The inode is valid,
            // and its lock held, as `wait_unlocked` expects.
            to_result(unsafe {
                bindings::virtiofs_helper_wait_page_idle(
                    page.memory().as_raw(),
                    page.as_raw(),
                    state,
                    Some(wait_unlocked),
                    inode.as_raw(),
                )
            })
            .map_err(|_| interrupted)?;
        }
        // SAFETY: The mapping is valid. No page is in a page table, and none can be brought in while the lock is held.
        unsafe { bindings::dax_delete_mapping_range(inode.mapping(), start, last) };
        Ok(())
    }
}

/// How long who takes pages out of a file waits for who has references to them.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Not at all.
    None,
    /// A signal ends it.
    UntilSignal,
    /// A fatal signal ends it.
    UntilKilled,
    /// Nothing ends it.
    Unlimited,
}

/// Sleeps without the lock of the mapping.
///
/// # Safety
///
/// Called for an inode whose lock the caller of [`break_layouts`](InvalidateGuard::break_layouts) holds.
unsafe extern "C" fn wait_unlocked(inode: *mut bindings::inode) {
    // SAFETY: As the caller says; it holds a reference to the inode.
    unsafe {
        bindings::filemap_invalidate_unlock((*inode).i_mapping);
        bindings::schedule();
        bindings::filemap_invalidate_lock((*inode).i_mapping);
    }
}

/// Before an inode is evicted: nothing of it is in page tables any more, and nobody has pinned any of it. Sleeps.
///
/// # Safety
///
/// `inode` is one of this crate that is being evicted.
pub(crate) unsafe fn leave(inode: *mut bindings::inode) {
    // SAFETY: As the caller says.
    unsafe {
        if u32::from((*inode).i_mode) & bindings::S_IFMT == u32::from(FileType::Regular.mode())
            && (*inode).i_flags & bindings::S_DAX != 0
        {
            bindings::dax_break_layout_final(inode);
        }
    }
}
