// SPDX-License-Identifier: GPL-2.0

//! Storage that the caller allocates.

use core::ops::DerefMut;

/// Memory that the caller allocated: anything that dereferences to a slice, such as the kernel's
/// `KVVec<T>`, a `Vec<T>`, a `Box<[T]>` or a `&mut [T]`.
///
/// Nothing of it is used but the slice; it is filled with `T::default()` when it is handed over,
/// and never grows.
pub trait Storage<T>: DerefMut<Target = [T]> {}

impl<T, S: DerefMut<Target = [T]>> Storage<T> for S {}

/// No element: the end of a list or tree made of indices.
pub(crate) const NIL: u32 = u32::MAX;

/// Most elements that indices of 32 bits, without [`NIL`], can tell apart.
pub(crate) const MAX_ELEMENTS: u64 = 0xffff_fffe;

/// Index of an element as it is stored. Lengths are checked against [`MAX_ELEMENTS`] before.
pub(crate) const fn index(i: u32) -> usize {
    // A `usize` has at least 32 bits wherever this is built.
    i as usize
}
