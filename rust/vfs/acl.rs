// SPDX-License-Identifier: GPL-2.0

//! POSIX access control lists.
//!
//! The VFS caches them with the inode, uses them to decide about access, and converts them from and to what user space has. The
//! filesystem reads and stores them, as [`inode::Operations`](crate::inode::Operations) says.
//!
//! C headers: [`include/linux/posix_acl.h`](srctree/include/linux/posix_acl.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use crate::{
    filesystem::FileSystem,
    super_block::SuperBlock, //
};
use core::{
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::from_err_ptr,
    ffi::c_int,
    prelude::*, //
};
use kernel_ext::bindings;

/// What an ACL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclType {
    /// It decides about access.
    Access,
    /// What is made in the directory inherits it.
    Default,
}

impl AclType {
    pub(crate) fn from_raw(kind: c_int) -> Result<Self> {
        match u32::try_from(kind)? {
            bindings::ACL_TYPE_ACCESS => Ok(Self::Access),
            bindings::ACL_TYPE_DEFAULT => Ok(Self::Default),
            _ => Err(EINVAL),
        }
    }

    /// The extended attribute that user space knows it as.
    pub const fn xattr_name(self) -> &'static CStr {
        match self {
            Self::Access => c"system.posix_acl_access",
            Self::Default => c"system.posix_acl_default",
        }
    }
}

/// An ACL.
///
/// # Invariants
///
/// We hold a reference.
pub struct Acl(NonNull<bindings::posix_acl>);

// SAFETY: An ACL that is shared does not change, and its references are counted.
unsafe impl Send for Acl {}
// SAFETY: As above.
unsafe impl Sync for Acl {}

impl Acl {
    /// Makes an ACL from the value of an extended attribute, with ids as `sb` counts them; [`None`] if it has no entries.
    ///
    /// The order and completeness of the entries are up to the caller. May sleep. Errors: `EINVAL` for what is no ACL,
    /// `EOPNOTSUPP` for another version of the format and for a kernel without ACLs, `ENOMEM`.
    ///
    /// C: `posix_acl_from_xattr()`.
    pub fn from_xattr<T: FileSystem>(sb: &SuperBlock<T>, value: &[u8]) -> Result<Option<Self>> {
        // SAFETY: The value has this length; the user namespace of a superblock lives as long as it does.
        let acl = from_err_ptr(unsafe {
            let ns = (*sb.as_raw()).s_user_ns;
            bindings::posix_acl_from_xattr(ns, value.as_ptr().cast(), value.len())
        })?;
        // INVARIANT: It was made for us.
        Ok(NonNull::new(acl).map(Self))
    }

    /// The value of the extended attribute, with ids as `sb` counts them. May sleep. Errors: `ENOMEM`, and `EOPNOTSUPP` for a
    /// kernel without ACLs.
    ///
    /// C: `posix_acl_to_xattr()`.
    pub fn to_xattr<T: FileSystem>(&self, sb: &SuperBlock<T>) -> Result<KVec<u8>> {
        if !cfg!(CONFIG_FS_POSIX_ACL) {
            return Err(EOPNOTSUPP);
        }
        let mut len = 0;
        // SAFETY: Valid by the type invariant; the user namespace of a superblock lives as long as it does.
        let value = unsafe {
            let ns = (*sb.as_raw()).s_user_ns;
            bindings::posix_acl_to_xattr(ns, self.0.as_ptr(), &mut len, bindings::GFP_KERNEL)
        };
        if value.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: Memory of `kmalloc()` with `len` bytes, all of them initialised, which is ours.
        Ok(unsafe { KVec::from_raw_parts(value.cast(), len, len) })
    }

    /// # Safety
    ///
    /// `acl` is null, or somebody holds a reference to it as long as what is returned is used.
    pub(crate) unsafe fn borrow(acl: *mut bindings::posix_acl) -> ManuallyDrop<Option<Self>> {
        // INVARIANT: The reference is the caller's; it is not given up here.
        ManuallyDrop::new(NonNull::new(acl).map(Self))
    }

    /// What the VFS gets: it takes over the reference.
    pub(crate) fn into_raw(acl: Option<Self>) -> *mut bindings::posix_acl {
        acl.map_or(ptr::null_mut(), |acl| ManuallyDrop::new(acl).0.as_ptr())
    }
}

impl Drop for Acl {
    fn drop(&mut self) {
        // SAFETY: A reference of ours, by the type invariant.
        unsafe { bindings::posix_acl_release(self.0.as_ptr()) };
    }
}
