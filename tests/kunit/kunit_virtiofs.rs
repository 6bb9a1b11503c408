// SPDX-License-Identifier: GPL-2.0

//! The modules of the driver with their KUnit suites, and the module that the suites of all crates are linked into.
//!
//! It registers nothing: neither driver nor filesystem. Suites run when it is loaded into a kernel that was booted with
//! `kunit.enable=1 kunit.autorun=1`.

// What the suites do not use is used by the driver.
#![allow(dead_code)]

#[path = "../../drivers/virtiofs/acl.rs"]
mod acl;
#[path = "../../drivers/virtiofs/aio.rs"]
mod aio;
#[path = "../../drivers/virtiofs/attributes.rs"]
mod attributes;
#[path = "../../drivers/virtiofs/binding.rs"]
mod binding;
#[path = "../../drivers/virtiofs/claims.rs"]
mod claims;
#[path = "../../drivers/virtiofs/control.rs"]
mod control;
#[path = "../../drivers/virtiofs/cred.rs"]
mod cred;
#[path = "../../drivers/virtiofs/dax/mod.rs"]
mod dax;
#[path = "../../drivers/virtiofs/dax_fault.rs"]
mod dax_fault;
#[path = "../../drivers/virtiofs/dax_io.rs"]
mod dax_io;
#[path = "../../drivers/virtiofs/dax_times.rs"]
mod dax_times;
#[path = "../../drivers/virtiofs/device.rs"]
mod device;
#[path = "../../drivers/virtiofs/dir.rs"]
mod dir;
#[path = "../../drivers/virtiofs/direct.rs"]
mod direct;
#[path = "../../drivers/virtiofs/dirty.rs"]
mod dirty;
#[path = "../../drivers/virtiofs/epoch.rs"]
mod epoch;
#[path = "../../drivers/virtiofs/errand.rs"]
mod errand;
#[path = "../../drivers/virtiofs/export.rs"]
mod export;
#[path = "../../drivers/virtiofs/file.rs"]
mod file;
#[path = "../../drivers/virtiofs/file_operations.rs"]
mod file_operations;
#[path = "../../drivers/virtiofs/filesystem.rs"]
mod filesystem;
#[path = "../../drivers/virtiofs/fill.rs"]
mod fill;
#[path = "../../drivers/virtiofs/forget.rs"]
mod forget;
#[path = "../../drivers/virtiofs/freshness.rs"]
mod freshness;
#[path = "../../drivers/virtiofs/gate.rs"]
mod gate;
#[path = "../../drivers/virtiofs/iget.rs"]
mod iget;
#[path = "../../drivers/virtiofs/inode.rs"]
mod inode;
#[path = "../../drivers/virtiofs/invalidate.rs"]
mod invalidate;
#[path = "../../drivers/virtiofs/ioctl.rs"]
mod ioctl;
#[path = "../../drivers/virtiofs/killpriv.rs"]
mod killpriv;
#[path = "../../drivers/virtiofs/lane.rs"]
mod lane;
#[path = "../../drivers/virtiofs/lease.rs"]
mod lease;
#[path = "../../drivers/virtiofs/link_target.rs"]
mod link_target;
#[path = "../../drivers/virtiofs/listing.rs"]
mod listing;
#[path = "../../drivers/virtiofs/lock.rs"]
mod lock;
#[path = "../../drivers/virtiofs/lookup.rs"]
mod lookup;
#[path = "../../drivers/virtiofs/mount.rs"]
mod mount;
#[path = "../../drivers/virtiofs/namespace.rs"]
mod namespace;
#[path = "../../drivers/virtiofs/node.rs"]
mod node;
#[path = "../../drivers/virtiofs/opening.rs"]
mod opening;
#[path = "../../drivers/virtiofs/options.rs"]
mod options;
#[path = "../../drivers/virtiofs/outstanding.rs"]
mod outstanding;
#[path = "../../drivers/virtiofs/page_cache.rs"]
mod page_cache;
#[path = "../../drivers/virtiofs/patience.rs"]
mod patience;
#[path = "../../drivers/virtiofs/readdir.rs"]
mod readdir;
#[path = "../../drivers/virtiofs/request.rs"]
mod request;
#[path = "../../drivers/virtiofs/room.rs"]
mod room;
#[path = "../../drivers/virtiofs/session.rs"]
mod session;
#[path = "../../drivers/virtiofs/setattr.rs"]
mod setattr;
#[path = "../../drivers/virtiofs/stores.rs"]
mod stores;
#[path = "../../drivers/virtiofs/superblock.rs"]
mod superblock;
#[path = "../../drivers/virtiofs/symlink.rs"]
mod symlink;
#[path = "../../drivers/virtiofs/sysfs.rs"]
mod sysfs;
#[path = "../../drivers/virtiofs/tables.rs"]
mod tables;
#[path = "../../drivers/virtiofs/time.rs"]
mod time;
#[path = "../../drivers/virtiofs/undo.rs"]
mod undo;
#[path = "../../drivers/virtiofs/unmap.rs"]
mod unmap;
#[path = "../../drivers/virtiofs/unused.rs"]
mod unused;
#[path = "../../drivers/virtiofs/volume.rs"]
mod volume;
#[path = "../../drivers/virtiofs/walks.rs"]
mod walks;
#[path = "../../drivers/virtiofs/write.rs"]
mod write;
#[path = "../../drivers/virtiofs/write_checks.rs"]
mod write_checks;
#[path = "../../drivers/virtiofs/writeback.rs"]
mod writeback;
#[path = "../../drivers/virtiofs/writepages.rs"]
mod writepages;
#[path = "../../drivers/virtiofs/writers.rs"]
mod writers;
#[path = "../../drivers/virtiofs/xattr.rs"]
mod xattr;

use kernel::prelude::*;

/// A parameter of the driver.
fn max_ranges() -> usize {
    480
}

/// A parameter of the driver.
fn max_inodes() -> usize {
    0
}

module! {
    type: Tests,
    name: "virtiofs_test",
    authors: ["The virtiofs-rust authors"],
    description: "KUnit suites of the virtio file system",
    license: "GPL",
}

struct Tests;

impl kernel::Module for Tests {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Tests)
    }
}
