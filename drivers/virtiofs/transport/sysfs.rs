// SPDX-License-Identifier: GPL-2.0

//! Directories in sysfs, and uevents.
//!
//! Names and formats are those of the C driver, which udev rules and agents rely on:
//!
//! ```text
//! /sys/fs/virtiofs/<n>/tag                  n is the number of the virtio device
//! /sys/fs/virtiofs/<n>/inodes               how many inodes of the host are known here (not in C)
//! /sys/fs/virtiofs/<n>/device               link to the virtio device
//! /sys/fs/virtiofs/<n>/waiting              requests that have not ended (not in the C driver, as fusectl)
//! /sys/fs/virtiofs/<n>/abort                written to, ends them (the same)
//! /sys/fs/virtiofs/<n>/mqs/<q>/name         hiprio or requests.<i>
//! /sys/fs/virtiofs/<n>/mqs/<q>/cpu_list     the CPUs that send requests through this queue
//! uevent: TAG=<tag>
//! ```

use crate::transport::device::Instance;
use core::fmt::Write;
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};
use kernel_ext::kobject::{
    numbered,
    Attribute,
    Directory,
    Kobject,
    Kset,
    Page,
    Plain, //
};

/// `/sys/fs/virtiofs/<n>`.
pub(crate) struct InstanceDirectory(Arc<Instance>);

impl Directory for InstanceDirectory {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[
        Attribute::new(c"tag", |this, page| write_line(page, this.0.tag())),
        Attribute::new(c"inodes", |this, page| {
            writeln!(page, "{}", this.0.inodes().count())
        }),
        Attribute::private(c"waiting", |this, page| {
            writeln!(page, "{}", this.0.waiting())
        }),
        // Any text does, as with fusectl.
        Attribute::action(c"abort", |this, _| {
            this.0.abort_all();
            Ok(())
        }),
    ];

    fn uevent_variable(&self) -> Option<(&'static CStr, &CStr)> {
        Some((c"TAG", self.0.tag()))
    }
}

/// `/sys/fs/virtiofs/<n>/mqs/<q>`.
struct QueueDirectory {
    name: CString,
    cpus: CString,
}

impl Directory for QueueDirectory {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[
        Attribute::new(c"name", |this, page| write_line(page, &this.name)),
        Attribute::new(c"cpu_list", |this, page| write_line(page, &this.cpus)),
    ];
}

fn write_line(page: &mut Page, text: &CStr) -> core::fmt::Result {
    page.write_bytes(text.to_bytes())?;
    page.write_str("\n")
}

/// The directories of one device, innermost first, as they are removed in this order.
pub(crate) struct Directories {
    _queues: KVec<Kobject<QueueDirectory>>,
    _mqs: Kobject<Plain>,
    _instance: Kobject<InstanceDirectory>,
}

impl Directories {
    /// Makes them. Sleeps.
    pub(crate) fn new(
        dev: &virtio::Device,
        instance: &Arc<Instance>,
        kset: &Kset<InstanceDirectory>,
    ) -> Result<Self> {
        let data = InstanceDirectory(instance.clone());
        let top = Kobject::in_kset(kset, &numbered(dev.index())?, data)?;
        let mqs = Kobject::in_directory(&top, c"mqs", Plain)?;
        top.link_device(dev.device(), c"device")?;
        let mut queues = KVec::new();
        for (index, queue) in instance.queues().enumerate() {
            let data = QueueDirectory {
                name: CString::try_from(queue.name())?,
                cpus: instance.cpu_list(index)?,
            };
            let directory = Kobject::in_directory(&mqs, &numbered(index)?, data)?;
            queues.push(directory, GFP_KERNEL)?;
        }
        Ok(Self {
            _queues: queues,
            _mqs: mqs,
            _instance: top,
        })
    }

    /// Tells user space of the device, by a uevent.
    pub(crate) fn announce(&self) {
        self._instance.announce();
    }
}
