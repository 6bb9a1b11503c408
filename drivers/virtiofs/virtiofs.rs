// SPDX-License-Identifier: GPL-2.0

//! The virtio file system: files of the host, reached by FUSE messages over virtqueues.
//!
//! The way to the host, outermost last:
//!
//! - [`session`]: one FUSE session: what was agreed on, what the daemon does not know, who is forgotten.
//! - [`request`]: one request: encoded, sent, waited for, its reply checked.
//! - [`lane`]: a virtqueue and what belongs to it.
//! - [`room`]: a daemon without descriptors.
//! - [`epoch`]: which of two replies is newer.
//! - [`undo`]: late replies to tasks that were killed.
//! - [`forget`]: what the daemon knows of inodes, and giving it back.
//! - [`binding`]: the virtio driver: devices come and go.
//! - [`device`]: a device: its tag, its queues.
//! - [`sysfs`]: its place in sysfs.
//! - [`lease`]: which session has its window.
//! - [`outstanding`]: requests for the window that were not answered.
//! - [`patience`]: how long tasks that exit wait for its daemon.
//! - [`errand`]: work that they leave behind.
//! - [`control`]: what operators see of requests, and can end.
//!
//! What the VFS asks for:
//!
//! - [`filesystem`]: the filesystem type.
//! - [`superblock`]: its operations: mounting, statfs, unmounting.
//! - [`mount`]: data of a superblock.
//! - [`mod@cred`]: who is calling.
//! - [`volume`]: what superblocks of one session share.
//! - [`options`]: mount options.
//! - [`gate`]: inodes in the hands of others than the filesystem's users.
//! - [`node`]: data of an inode.
//! - [`inode`]: attributes of an inode.
//! - [`iget`]: inodes by nodeid.
//! - [`tables`]: operation tables of inodes.
//! - [`freshness`]: validity of what is cached.
//! - [`lookup`]: names that are looked up.
//! - [`dir`]: operation tables of directories and dentries.
//! - [`namespace`]: names that are made, moved and removed.
//! - [`readdir`]: the listing of a directory.
//! - [`listing`]: listings that are kept.
//! - [`setattr`]: changes of attributes.
//! - [`mod@file`]: handles of open files.
//! - [`file_operations`]: operation tables of open files.
//! - [`opening`]: what the daemon is asked when one is opened.
//! - [`mod@export`]: file handles.
//! - [`ioctl`]: ioctl(2), and flags of inodes.
//! - [`claims`]: locks that an open file may have at the daemon.
//! - [`mod@lock`]: locks that the daemon keeps, and signals.
//! - [`page_cache`]: contents that are cached.
//! - [`direct`]: contents that are not.
//! - [`dax`]: contents that are mapped from the device's window.
//! - [`aio`]: those of them that nobody waits for.
//! - [`symlink`]: targets of symbolic links.
//! - [`walks`]: path walks that are repeated.
//! - [`unused`]: inodes that nobody uses.
//! - [`write_checks`]: what every write does before its bytes go.
//! - [`invalidate`]: the page cache after I/O past it.
//! - [`dirty`]: what is not written back.
//! - [`mod@write`]: contents that are written.
//! - [`writeback`]: contents that are written later.
//! - [`writepages`]: the requests for that.
//! - [`unmap`]: what was stored through mappings that end.
//! - [`killpriv`]: set-id bits and capabilities that go.
//! - [`xattr`]: extended attributes.
//! - [`acl`]: access control lists.
//!
//! There is no `unsafe` in this crate, and none is to be added: it belongs into the crates below rust/.

mod acl;
mod aio;
mod attributes;
mod binding;
mod claims;
mod control;
mod cred;
mod dax;
mod dax_fault;
mod dax_io;
mod dax_times;
mod device;
mod dir;
mod direct;
mod dirty;
mod epoch;
mod errand;
mod export;
mod file;
mod file_operations;
mod filesystem;
mod fill;
mod forget;
mod freshness;
mod gate;
mod iget;
mod inode;
mod invalidate;
mod ioctl;
mod killpriv;
mod lane;
mod lease;
mod link_target;
mod listing;
mod lock;
mod lookup;
mod mount;
mod namespace;
mod node;
mod opening;
mod options;
mod outstanding;
mod page_cache;
mod patience;
mod readdir;
mod request;
mod room;
mod session;
mod setattr;
mod stores;
mod superblock;
mod symlink;
mod sysfs;
mod tables;
mod time;
mod undo;
mod unmap;
mod unused;
mod volume;
mod walks;
mod write;
mod write_checks;
mod writeback;
mod writepages;
mod writers;
mod xattr;

use filesystem::VirtioFs;
use kernel::{
    driver,
    prelude::*, //
};

module! {
    type: Module,
    name: "virtiofs",
    authors: ["The virtiofs-rust authors"],
    description: "Virtio file system",
    license: "GPL",
    alias: ["fs-virtiofs", "fs-virtio_fs"],
    params: {
        dax_ranges: u32 {
            default: 480,
            description: "Most ranges of a DAX window that show something at the same time; four at least",
        },
        max_inodes: u32 {
            default: 0,
            description: "Inodes that a device's daemon is to keep for this kernel at most, as far as they are not in use; 0 for any number",
        },
    },
}

/// Most ranges of a window that show something. Each takes the hypervisor a slot for memory: QEMU has 512 of these in all, and
/// ends when they are used up.
fn max_ranges() -> usize {
    module_parameters::dax_ranges.value() as usize
}

/// Inodes of a device that may be known here; 0 for any number.
fn max_inodes() -> usize {
    module_parameters::max_inodes.value() as usize
}

/// The module. Fields are dropped in this order: no new mounts, then no devices, then no directory for them.
#[pin_data]
struct Module {
    #[pin]
    _filesystem: vfs::Registration<VirtioFs>,
    /// The type's name in the first virtio-fs kernels.
    #[pin]
    _old_filesystem: vfs::Alias<VirtioFs>,
    #[pin]
    _driver: driver::Registration<virtio::Adapter<binding::Driver>>,
    _presence: binding::Presence,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _presence: binding::Presence::new()?,
            _driver <- driver::Registration::new(<Self as kernel::ModuleMetadata>::NAME, module),
            _old_filesystem <- vfs::Alias::new(c"virtio_fs", module),
            _filesystem <- vfs::Registration::new(module),
        })
    }
}
