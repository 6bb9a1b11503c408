// SPDX-License-Identifier: GPL-2.0

//! The virtio file system: files of the host, reached by FUSE messages over virtqueues.
//!
//! Folders are floors: a file uses its own floor and those below. From the bottom:
//!
//! - [`transport`]: the device, its queues, and requests on them.
//! - [`session`]: what was agreed on with the daemon, what it has counted, and as of when what it said is good.
//! - [`mod@filesystem`], [`gate`]: the filesystem type, and inodes in the hands of others than its users.
//! - [`dax`]: the device's window, which shows files.
//! - [`volume`]: superblocks of a session, and what they share.
//! - [`inode`]: data of inodes and their attributes.
//! - [`contents`]: contents of files: cached, past the page cache, or in the window.
//! - [`metadata`]: attributes that are shown and set.
//! - [`names`]: directories and names.
//! - [`mount`]: superblocks and operation tables, where everything comes together.
//!
//! There is no `unsafe` in this crate, and none is to be added: it belongs into the crates below rust/.

mod contents;
mod dax;
mod filesystem;
mod gate;
mod inode;
mod metadata;
mod mount;
mod names;
mod session;
mod transport;
mod volume;

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
    _driver: driver::Registration<virtio::Adapter<transport::binding::Driver>>,
    _presence: transport::binding::Presence,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _presence: transport::binding::Presence::new()?,
            _driver <- driver::Registration::new(<Self as kernel::ModuleMetadata>::NAME, module),
            _old_filesystem <- vfs::Alias::new(c"virtio_fs", module),
            _filesystem <- vfs::Registration::new(module),
        })
    }
}
