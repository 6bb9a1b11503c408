// SPDX-License-Identifier: GPL-2.0

//! Attributes that are shown and set: stat(2), chmod(2), extended attributes, access control lists, ioctl(2).
//!
//! - [`acl`]: access control lists.
//! - [`getattr`]: stat(2) and permission checks.
//! - [`ioctl`]: ioctl(2) and inode flags.
//! - [`setattr`]: chmod(2), chown(2), utimensat(2), truncate(2).
//! - [`xattr`]: extended attributes.

pub(crate) mod acl;
pub(crate) mod getattr;
pub(crate) mod ioctl;
pub(crate) mod setattr;
pub(crate) mod xattr;
