// SPDX-License-Identifier: GPL-2.0

//! The filesystem type.
//!
//! It is apart from its operations ([`superblock`](crate::mount::superblock)), so that whatever handles inodes of it need not know these.

/// The filesystem type `virtiofs`.
pub(crate) struct VirtioFs;
