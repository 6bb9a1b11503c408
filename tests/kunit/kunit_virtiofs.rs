// SPDX-License-Identifier: GPL-2.0

//! The modules of the driver with their KUnit suites, and the module that the suites of all crates are linked into.
//!
//! It registers nothing: neither driver nor filesystem. Suites run when it is loaded into a kernel that was booted with
//! `kunit.enable=1 kunit.autorun=1`.

// What the suites do not use is used by the driver.
#![allow(dead_code)]

#[path = "../../drivers/virtiofs/contents/mod.rs"]
mod contents;
#[path = "../../drivers/virtiofs/dax/mod.rs"]
mod dax;
#[path = "../../drivers/virtiofs/filesystem.rs"]
mod filesystem;
#[path = "../../drivers/virtiofs/gate.rs"]
mod gate;
#[path = "../../drivers/virtiofs/inode/mod.rs"]
mod inode;
#[path = "../../drivers/virtiofs/metadata/mod.rs"]
mod metadata;
#[path = "../../drivers/virtiofs/mount/mod.rs"]
mod mount;
#[path = "../../drivers/virtiofs/names/mod.rs"]
mod names;
#[path = "../../drivers/virtiofs/session/mod.rs"]
mod session;
#[path = "../../drivers/virtiofs/transport/mod.rs"]
mod transport;
#[path = "../../drivers/virtiofs/volume/mod.rs"]
mod volume;

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
