// SPDX-License-Identifier: GPL-2.0

//! Filesystems.
//!
//! A filesystem is a type that implements [`FileSystem`]; the trait carries the types of its
//! superblock, inode and open-file data. [`Registration`] makes it known to the kernel. What the
//! VFS asks of single objects is split into one trait for each C operation table:
//!
//! | Trait                                    | C operation table                 |
//! |------------------------------------------|-----------------------------------|
//! | [`FileSystem`]                           | `fs_context_operations`, `super_operations` |
//! | [`inode::Operations`], [`inode::DirectoryOperations`], [`inode::SymlinkOperations`] | `inode_operations` |
//! | [`file::Operations`], [`file::DirectoryOperations`] | `file_operations`      |
//! | [`mapping::Operations`]                  | `address_space_operations`        |
//! | [`dax::Operations`]                      | `vm_operations_struct`, `address_space_operations`, `iomap_ops` |
//! | [`dentry::Operations`]                   | `dentry_operations`               |
//! | [`xattr::Handler`]                       | `xattr_handler`                   |
//! | [`export::Operations`]                   | `export_operations`               |
//!
//! A driver implements them on types of its choice (empty structs) and names these types when it
//! makes an inode: [`NewInode::into_regular`](inode::NewInode::into_regular) and its siblings.
//!
//! # Contexts
//!
//! Unless a method says otherwise, the VFS calls it in process context and it may sleep. Objects
//! seen during an RCU path walk have types of their own, [`inode::RcuInode`] and
//! [`dentry::RcuDentry`], which give no way to take a reference; code that runs with them must not
//! sleep, and returns `ECHILD` when it would have to.
//!
//! # Not supported
//!
//! Block devices (`FS_REQUIRES_DEV`), quota, and mounts from inside a user namespace
//! (`FS_USERNS_MOUNT`).

#![crate_name = "vfs"]

pub mod acl;
pub mod aging;
pub mod attr;
pub mod child;
pub mod context;
pub mod cred;
pub mod dax;
pub mod dentry;
pub mod export;
pub mod file;
pub mod filesystem;
pub mod inode;
pub mod mapping;
pub mod parameter;
pub mod security;
pub mod super_block;
pub mod time;
pub mod unmap;
pub mod xattr;

pub use child::Child;
pub use context::Context;
pub use dentry::{
    Dentry,
    DentryRef, //
};
pub use file::File;
pub use filesystem::{
    Alias,
    FileSystem,
    Registration, //
};
pub use inode::{
    Inode,
    InodeRef, //
};
pub use super_block::{
    NewSuperBlock,
    SuperBlock, //
};

/// Prefix of this crate's log lines.
const __LOG_PREFIX: &[u8] = b"vfs\0";
