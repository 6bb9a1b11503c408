// SPDX-License-Identifier: GPL-2.0

//! The filesystem type comes together: superblocks and operation tables.
//!
//! - [`mod@export`]: file handles for name_to_handle_at(2) and NFS.
//! - [`file_operations`]: operation tables of open files.
//! - [`options`]: mount options.
//! - [`superblock`]: mounting, statfs, unmounting.
//! - [`tables`]: operation tables of inodes.

pub(crate) mod export;
pub(crate) mod file_operations;
pub(crate) mod options;
pub(crate) mod superblock;
pub(crate) mod tables;
