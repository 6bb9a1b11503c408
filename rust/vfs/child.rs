// SPDX-License-Identifier: GPL-2.0

//! Names that a filesystem puts into the dentry cache on its own, as a listing comes with what a lookup would say.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use crate::{
    dentry::{
        DentryRef,
        LookupDentry, //
    },
    file::DirEmitter,
    filesystem::FileSystem,
    inode::{
        splice,
        InodeRef, //
    },
};
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};
use kernel_ext::bindings;

/// What [`DirEmitter::child`] came up with.
pub enum Child<'a, T: FileSystem> {
    /// A dentry that was there already.
    Cached(DentryRef<'a, T>),
    /// A new one, which the filesystem has filled.
    Filled,
}

impl<T: FileSystem> DirEmitter<'_, T> {
    /// Finds the dentry of `name` in the directory that is read, or makes one that `fill` finds the inode for, as
    /// [`DirectoryOperations::lookup`](crate::inode::DirectoryOperations::lookup) does.
    ///
    /// May sleep, also while another task looks the name up. It belongs to the emitter because `i_rwsem` of the directory must
    /// be held, and the directory must exist. Errors: those of `fill`, `ENAMETOOLONG`, `ENOMEM`.
    ///
    /// C: `d_alloc_parallel()`, ended by `d_splice_alias()`.
    pub fn child(
        &self,
        name: &[u8],
        fill: impl FnOnce(&LookupDentry<T>) -> Result<Option<InodeRef<T>>>,
    ) -> Result<Child<'_, T>> {
        let parent = self.file().dentry().as_raw();
        let len = u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
        let mut qstr = bindings::qstr {
            name: name.as_ptr(),
            ..Default::default()
        };
        // SAFETY: The name has `len` bytes; the parent is only a salt.
        let hash = unsafe {
            bindings::full_name_hash(parent.cast_const().cast(), name.as_ptr().cast(), len)
        };
        qstr.__bindgen_anon_1.__bindgen_anon_1.hash = hash;
        qstr.__bindgen_anon_1.__bindgen_anon_1.len = len;
        // SAFETY: This is a dentry in use, and the name is hashed for it.
        let found = unsafe { bindings::d_lookup(parent, &qstr) };
        if let Some(found) = NonNull::new(found) {
            // SAFETY: It came with a reference, and is one of the same superblock.
            return Ok(Child::Cached(unsafe { DentryRef::from_raw(found) }));
        }
        // SAFETY: As above. `iterate_shared` holds `i_rwsem` of the directory, and is not called for a removed one.
        let dentry = from_err_ptr(unsafe { bindings::d_alloc_parallel(parent, &qstr) })?;
        let dentry = NonNull::new(dentry).ok_or(ENOMEM)?;
        // SAFETY: It came with a reference, and is one of the same superblock.
        let held: DentryRef<'_, T> = unsafe { DentryRef::from_raw(dentry) };
        // SAFETY: The dentry is valid.
        if unsafe { bindings::d_in_lookup(dentry.as_ptr()) } == 0 {
            return Ok(Child::Cached(held));
        }
        // SAFETY: A dentry that is being looked up by us has no inode, is not hashed, and keeps its name.
        let new = unsafe { LookupDentry::from_raw(dentry.as_ptr()) };
        let spliced = fill(new).and_then(|inode| splice(new, inode));
        // SAFETY: It is in lookup, by us, and this ends it.
        unsafe { bindings::d_lookup_done(dentry.as_ptr()) };
        // Another name that the directory had may have moved here instead of the new dentry.
        drop(spliced?);
        Ok(Child::Filled)
    }
}
