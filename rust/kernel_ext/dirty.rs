// SPDX-License-Identifier: GPL-2.0

//! Which pages of a dirty folio are dirty.
//!
//! Of a large folio in which a write has changed a page, only that is to be written back. The range from the first dirty page to
//! the last is kept in the folio's `private` field; as `PG_private` is not set, nobody else cares for it. Zero, as in a new folio
//! and in those that one is split into or migrated to, means all pages.

use crate::bindings;
use core::{
    ops::Range,
    ptr::NonNull, //
};

const END_BITS: u32 = 16;
const ALL: usize = 0;

fn field(folio: NonNull<bindings::folio>) -> *mut usize {
    // SAFETY: Computes an address only.
    unsafe {
        &raw mut (*folio.as_ptr())
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_3
    }
    .cast()
}

fn pack(pages: &Range<usize>) -> usize {
    // A folio has at most 2^9 pages; what would not fit means all, too.
    if pages.end >> END_BITS != 0 {
        return ALL;
    }
    pages.start << END_BITS | pages.end
}

/// [`None`] for all.
fn unpack(packed: usize) -> Option<Range<usize>> {
    (packed != ALL).then_some(packed >> END_BITS..packed & ((1 << END_BITS) - 1))
}

/// The dirty pages of a folio of `pages` pages.
///
/// # Safety
///
/// The folio is in the page cache of a mapping whose folios are dirtied by [`add`] and [`dirty_folio`], is locked and was dirty.
pub(crate) unsafe fn pages(folio: NonNull<bindings::folio>, pages: usize) -> Range<usize> {
    // SAFETY: The folio is valid as the caller says.
    match unpack(unsafe { field(folio).read_volatile() }) {
        Some(dirty) if dirty.start < pages => dirty.start..dirty.end.min(pages),
        _ => 0..pages,
    }
}

/// More pages of a folio are going to be dirty.
///
/// # Safety
///
/// As for [`pages`], but the folio may be clean.
pub(crate) unsafe fn add(folio: NonNull<bindings::folio>, more: Range<usize>) {
    // SAFETY: The folio is valid as the caller says. The lock keeps other writers away, and it from being cleaned. Who dirties all
    // of it without the lock, as it is unmapped, has done so before through the mapping; it is dirty as a whole since then.
    unsafe {
        let sum = if !bindings::folio_test_dirty(folio.as_ptr()) {
            more
        } else if let Some(dirty) = unpack(field(folio).read_volatile()) {
            dirty.start.min(more.start)..dirty.end.max(more.end)
        } else {
            return;
        };
        field(folio).write_volatile(pack(&sum));
    }
}

/// Marks all pages of a folio as dirty: for `address_space_operations::dirty_folio`.
///
/// # Safety
///
/// Called by the memory management, with a folio of the page cache.
pub unsafe extern "C" fn dirty_folio(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
) -> bindings::bool_ {
    if let Some(folio) = NonNull::new(folio) {
        // SAFETY: Valid as the caller says.
        unsafe { field(folio).write_volatile(ALL) };
    }
    // SAFETY: As the caller says.
    unsafe { bindings::filemap_dirty_folio(mapping, folio) }
}
