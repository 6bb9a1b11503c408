// SPDX-License-Identifier: GPL-2.0

//! Flags of inodes, as `chattr(1)` shows and sets them.
//!
//! C header: [`include/linux/fileattr.h`](srctree/include/linux/fileattr.h)

use kernel_ext::bindings;

/// Which flags there are, in one of two forms; programs ask for either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InodeFlags {
    /// `FS_*_FL`, as `FS_IOC_GETFLAGS` has them.
    Flags(u32),
    /// `FS_XFLAG_*` and numbers, as `FS_IOC_FSGETXATTR` has them.
    Extended(ExtendedFlags),
}

/// Flags in the longer form (`struct fsxattr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedFlags {
    /// `FS_XFLAG_*`.
    pub flags: u32,
    /// Hint for the size of extents, in bytes.
    pub extent_size: u32,
    /// Number of extents; cannot be set.
    pub extents: u32,
    /// The project that the space is accounted to.
    pub project: u32,
    /// Hint for the size of extents that are copied on write, in bytes.
    pub cow_extent_size: u32,
}

impl InodeFlags {
    /// What is asked for, or to be set. The longer form is in it when the shorter is not.
    pub(super) fn from_raw(raw: &bindings::file_kattr) -> Self {
        if raw.flags_valid() {
            return Self::Flags(raw.flags);
        }
        Self::Extended(ExtendedFlags {
            flags: raw.fsx_xflags,
            extent_size: raw.fsx_extsize,
            extents: raw.fsx_nextents,
            project: raw.fsx_projid,
            cow_extent_size: raw.fsx_cowextsize,
        })
    }

    /// Puts them in place; the VFS makes the other form of it.
    pub(super) fn to_raw(self, raw: &mut bindings::file_kattr) {
        match self {
            // SAFETY: Valid for writes.
            Self::Flags(flags) => unsafe { bindings::fileattr_fill_flags(raw, flags) },
            Self::Extended(extended) => {
                // SAFETY: Valid for writes.
                unsafe { bindings::fileattr_fill_xflags(raw, extended.flags) };
                raw.fsx_extsize = extended.extent_size;
                raw.fsx_nextents = extended.extents;
                raw.fsx_projid = extended.project;
                raw.fsx_cowextsize = extended.cow_extent_size;
            }
        }
    }
}
