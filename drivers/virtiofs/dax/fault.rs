// SPDX-License-Identifier: GPL-2.0

//! Page faults in mappings of files that are shown by the window.
//!
//! A fault cannot be bypassed: it waits for a range if need be. Nothing is held meanwhile but what the memory management holds
//! around a fault. When there is a range, it stays until the page is in the page table, and the inode's `invalidate_lock` is held
//! shared, so that a truncation or who reclaims ranges comes before or after.

use super::window::{
    MappedFile,
    Pinned,
    Step,
    Window, //
};
use crate::{
    inode::NodeInode,
    superblock::VirtioFs, //
};
use dax_map::{
    Access,
    Need, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::dax::Memory;
use vfs::{
    dax::{
        Fault,
        Location,
        Operations,
        Outcome, //
    },
    Inode, //
};

/// What the memory management asks of files that are shown by the window.
pub(crate) struct Faults;

impl Operations for Faults {
    type FileSystem = VirtioFs;

    fn memory(inode: &Inode<VirtioFs>) -> Option<&Memory> {
        Some(inode.session().ok()?.window()?.memory())
    }

    fn fault(fault: &mut Fault<'_, Self>) -> Outcome {
        fault_in(fault).unwrap_or_else(|e| match e {
            e if e == ENOMEM => Outcome::NO_MEMORY,
            // Also for a task that is about to die (`EINTR`): where the kernel copies for it, trying again would never end.
            _ => Outcome::NOTHING,
        })
    }

    fn locate(inode: &Inode<VirtioFs>, pos: i64, write: bool) -> Option<Location<'_>> {
        let window = inode.session().ok()?.window()?;
        let offset = u64::try_from(pos).ok()?;
        let extent = window.locate(inode.data().mapped()?, offset)?;
        if write && !extent.writable {
            return None;
        }
        let within = offset.checked_sub(extent.file_offset)?;
        Some(Location {
            memory: window.memory(),
            offset: extent.window_offset.checked_add(within)?,
            len: extent.len.saturating_sub(within),
        })
    }
}

fn fault_in(fault: &mut Fault<'_, Faults>) -> Result<Outcome> {
    let pos = fault.pos();
    let offset = u64::try_from(pos)?;
    let (size, write) = (fault.size(), fault.is_write());
    let file = fault.file();
    let inode = file.inode();
    let session = inode.session()?;
    let window = session.window().ok_or(ENODEV)?;
    let mapped = inode.data().mapped().ok_or(ENODEV)?;
    let run = file.data().run().ok_or(ENODEV)?;
    let mut ahead = None;
    loop {
        let lock = inode.lock_invalidate_shared();
        let file_size = u64::try_from(inode.size())?;
        if offset >= file_size {
            return Ok(Outcome::NOTHING);
        }
        let access = Access {
            owner: mapped.owner(),
            offset,
            len: 1,
            write,
            need: Need::Mapping,
            file_size,
        };
        let (step, proposed) = window.access(run, &access);
        ahead = ahead.or(proposed);
        let step = match step {
            Step::Use(range) => {
                let start = offset.saturating_sub(offset.checked_rem(size).unwrap_or(0));
                let outcome = match shows(window, mapped, &range, start, size) {
                    true => fault.insert(&lock),
                    false => Outcome::FALLBACK,
                };
                drop((range, lock));
                // Not before: the daemon may not be able to, as it turns out with what is needed now.
                if let Some(plan) = ahead {
                    window.map_ahead(session, mapped, plan);
                }
                return Ok(outcome);
            }
            step => step,
        };
        drop(lock);
        match step {
            Step::Map(plan) => window.map(session, mapped, &plan, true)?,
            Step::Remap(plan) => window.remap(session, inode, mapped, &plan, true)?,
            Step::Wait(awaited) => window.wait(awaited)?,
            _ => return Err(ENODEV),
        }
    }
}

/// Whether a range shows all of `size` bytes of its file from `start` on.
fn shows(
    window: &Window,
    file: &Arc<MappedFile>,
    range: &Pinned<'_>,
    start: u64,
    size: u64,
) -> bool {
    window.locate(file, start).is_some_and(|extent| {
        let within = start.saturating_sub(extent.file_offset);
        extent.slot == range.hit.slot && extent.len.saturating_sub(within) >= size
    })
}
