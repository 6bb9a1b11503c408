// SPDX-License-Identifier: GPL-2.0

//! Hooks for the end of shared mappings of the page cache.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    file::File,
    filesystem::FileSystem,
    mapping::MAPPED, //
};
use core::marker::PhantomData;
use kernel::page::PAGE_SIZE;
use kernel_ext::bindings;

/// What a filesystem does when shared mappings end.
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// A mapping through which could be stored from byte `start` to byte `last` of the file is not there any more: by munmap(2),
    /// mremap(2), or because its process exits or executes another program. There may be others.
    ///
    /// May sleep; the address space is locked, so that other threads of the process wait when they take a page fault. In a task
    /// that [exits](kernel_ext::task::is_exiting) no signal ends a wait.
    ///
    /// C: `vm_ops->close()`.
    fn unmapped(file: &File<Self::FileSystem>, start: i64, last: i64);
}

/// The table of shared mappings. Private ones, to which nothing is stored, have [`MAPPED`]: the kernel merges them with their
/// neighbours, and has less to do when they end.
pub(crate) struct Shared<M>(PhantomData<M>);

impl<M: Operations> Shared<M> {
    pub(crate) const VTABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        close: Some(Self::close),
        ..MAPPED
    };

    /// # Safety
    ///
    /// Called by the memory management, with a mapping of a regular file of `M::FileSystem` whose pages are out of the page table.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: As the caller says; the mapping holds a reference to its file until this has returned.
        let (file, flags, first, bytes) = unsafe {
            let range = (*vma).__bindgen_anon_1.__bindgen_anon_1;
            (
                File::<M::FileSystem>::from_raw((*vma).vm_file),
                (*vma).__bindgen_anon_2.vm_flags,
                (*vma).vm_pgoff,
                range.vm_end.saturating_sub(range.vm_start),
            )
        };
        // Not through a descriptor that was opened for reading.
        if flags & bindings::VM_SHARED == 0 {
            return;
        }
        let start = i64::try_from(first.saturating_mul(PAGE_SIZE)).unwrap_or(i64::MAX);
        let last = start.saturating_add_unsigned(bytes as u64) - 1;
        M::unmapped(file, start, last);
    }
}
