// SPDX-License-Identifier: GPL-2.0

//! Directories and names.
//!
//! - [`dir`]: operation tables of directories and dentries.
//! - [`lookup`]: LOOKUP, and how long a dentry is good.
//! - [`namespace`]: names that are made, moved and removed.
//! - [`readdir`]: READDIR and READDIRPLUS.
//! - [`symlink`]: symbolic links.

pub(crate) mod dir;
pub(crate) mod lookup;
pub(crate) mod namespace;
pub(crate) mod readdir;
pub(crate) mod symlink;
