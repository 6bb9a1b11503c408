// SPDX-License-Identifier: GPL-2.0

//! Page faults in mappings of DAX files.
//!
//! A fault that stores, or that brings in code, cannot be bypassed: it waits for a range if need be. One that reads may be given a
//! [copy](crate::dax::copies) of the page. Nothing is held meanwhile but what the memory management holds around a fault. When
//! there is a range, it stays until the page is in the page table, and the inode's `invalidate_lock` is held shared, so that a
//! truncation or who reclaims ranges comes before or after.

use crate::{
    contents::{
        dax_times::stored,
        invalidate::ended_short, //
    },
    dax::{
        copies::PageCopy,
        mapped_file::MappedFile,
        window::{
            Pinned,
            Step,
            Window, //
        },
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        NodeInode, //
    },
    session::epoch::Asked,
    transport::request::Request, //
};
use dax_map::{
    Access,
    Need, //
};
use fuse_proto::Read;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    dax::Memory,
    pages::PageBuffer, //
};
use vfs::{
    dax::{
        Fault,
        Location,
        Operations,
        Outcome, //
    },
    File,
    Inode, //
};
use virtio::{
    Payload,
    Transfer, //
};

/// How often a copy is read at most that is old before it is shown, before there has to be a range.
const COPY_TRIES: usize = 4;

/// What the memory management asks of files that are shown by the window.
pub(crate) struct Faults;

impl Operations for Faults {
    type FileSystem = VirtioFs;

    fn memory(inode: &Inode<VirtioFs>) -> Option<&Memory> {
        Some(inode.super_block().data().window()?.memory())
    }

    fn fault(fault: &mut Fault<'_, Self>) -> Outcome {
        fault_in(fault).unwrap_or_else(|e| match e {
            e if e == ENOMEM => Outcome::NO_MEMORY,
            // Also for a task that is about to die (`EINTR`): where the kernel copies for it, trying again would never end.
            _ => Outcome::NOTHING,
        })
    }

    fn locate(inode: &Inode<VirtioFs>, pos: i64, write: bool) -> Option<Location<'_>> {
        let window = inode.super_block().data().window()?;
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
    let window = inode.super_block().data().window().ok_or(ENODEV)?;
    let mapped = inode.data().mapped().ok_or(ENODEV)?;
    let run = file.data().run().ok_or(ENODEV)?;
    let mut ahead = None;
    let mut copies_left = match write || fault.is_executable() {
        true => 0,
        false => COPY_TRIES,
    };
    loop {
        let asked = Asked::now();
        let mut locked = fault.lock()?;
        let file_size = u64::try_from(inode.size())?;
        if offset >= file_size {
            return Ok(Outcome::NOTHING);
        }
        let access = Access {
            owner: mapped.owner(),
            offset,
            len: 1,
            write,
            need: match copies_left {
                0 => Need::Mapping,
                _ => Need::Page,
            },
            file_size,
        };
        let (step, proposed) = window.access(run, &access);
        ahead = ahead.or(proposed);
        let step = match step {
            Step::Use(range) => {
                let start = offset.saturating_sub(offset.checked_rem(size).unwrap_or(0));
                let outcome = match shows(window, mapped, &range, start, size) {
                    true => locked.insert(),
                    false => Outcome::FALLBACK,
                };
                drop((range, locked));
                if write {
                    stored(inode);
                }
                // Not before: the daemon may not be able to, as it turns out with what is needed now.
                if let Some(plan) = ahead {
                    window.map_ahead(mapped, plan);
                }
                return Ok(outcome);
            }
            step => step,
        };
        drop(locked);
        if provide(window, inode, mapped, step, copies_left == 0)? {
            continue;
        }
        copies_left = copies_left.saturating_sub(1);
        if let Some(outcome) = show_copy(fault, window, mapped, asked)? {
            return Ok(outcome);
        }
    }
}

/// Makes what is wished for: whether there may be a range now. With `must` there is none only after an error. Sleeps.
fn provide(
    window: &Arc<Window>,
    inode: &Inode<VirtioFs>,
    file: &Arc<MappedFile>,
    step: Step<'_>,
    must: bool,
) -> Result<bool> {
    match step {
        Step::Map(plan) => match window.map(file, &plan, must) {
            // There is no room for it, or never will be.
            Err(e) if !must && (e == EAGAIN || e == ENOSPC) => return Ok(false),
            made => made?,
        },
        Step::Remap(plan) => window.remap(inode, file, &plan, true)?,
        Step::Wait(awaited) => window.wait(awaited)?,
        Step::Copy => return Ok(false),
        _ => return Err(ENODEV),
    }
    Ok(true)
}

/// Shows a copy of the page, as it is after the daemon was `asked`. [`None`] when it has changed meanwhile. Sleeps.
fn show_copy(
    fault: &mut Fault<'_, Faults>,
    window: &Window,
    mapped: &Arc<MappedFile>,
    asked: Asked,
) -> Result<Option<Outcome>> {
    let (file, pos) = (fault.file(), fault.pos());
    let read = read_page(file, pos)?;
    let Payload::Pages(pages) = read.payload() else {
        return Err(EIO);
    };
    let page = pages.page(0).ok_or(EIO)?;
    let mut locked = fault.lock()?;
    if pos >= file.inode().size() {
        return Ok(Some(Outcome::NOTHING));
    }
    let Some(copy) = PageCopy::new(mapped, pos, asked) else {
        return Ok(None);
    };
    let outcome = locked.insert_copy(page);
    drop(locked);
    if copy.is_outdated() {
        copy.take_out();
        return Ok(None);
    }
    if let Some(oldest) = window.copies().add(copy) {
        oldest.take_out();
    }
    // The window may have been closed, and have taken all out, in between.
    if window.alive().is_err() {
        window.copies().give_up(usize::MAX);
    }
    Ok(Some(outcome))
}

/// Reads the page at `pos` of an open file; what lies behind the end of the file is zero. Sleeps. `EFAULT` when the file ends
/// before.
fn read_page(file: &File<VirtioFs>, pos: i64) -> Result<Arc<Transfer<Request>>> {
    let inode = file.inode();
    let op = Read {
        node: inode.node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(pos)?,
        size: u32::try_from(PAGE_SIZE)?,
        flags: file.flags(),
        lock_owner: None,
    };
    let page = PageBuffer::new(PAGE_SIZE)?;
    let (read, transfer) = inode
        .session()?
        .call_into(&op, &caller(inode.super_block()), page)?;
    if read < PAGE_SIZE {
        ended_short(inode, pos.saturating_add_unsigned(read as u64));
    }
    match read {
        0 => Err(EFAULT),
        _ => Ok(transfer),
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
