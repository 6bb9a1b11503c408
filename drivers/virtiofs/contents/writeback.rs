// SPDX-License-Identifier: GPL-2.0

//! Write-back of dirty folios and of times.
//!
//! Folios become dirty through mappings, and by write(2) where the daemon agrees to that (`WRITEBACK_CACHE`). They are written
//! back at msync(2), fsync(2) and close(2) at the latest, and whenever the kernel wants memory.
//!
//! With `WRITEBACK_CACHE` this kernel keeps the times of modification and change, too, and sends them after the contents, as the
//! daemon's own are those of its writes. As long as something is dirty or on its way, size and times here are right, and what
//! the daemon says of them is not.

use crate::{
    contents::{
        dax_times,
        write_checks,
        writepages::write_pages, //
    },
    filesystem::VirtioFs,
    inode::{
        dirty,
        time::{
            timespec,
            wire_time, //
        },
        NodeInode, //
    },
    session::epoch::Asked, //
};
use fuse_proto::{
    Caller,
    Fh,
    SetTime,
    Setattr,
    Write,
    WriteFlags, //
};
use kernel::{
    iov::IovIterSource,
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    task::is_killed,
    write::{
        fault_in,
        WritebackRange, //
    },
};
use vfs::{
    file::Kiocb,
    mapping::Dirty,
    Inode, //
};

/// Writes from `from` to the page cache, at the position of `iocb`. Sleeps; a fatal signal ends it with what was written so far.
pub(crate) fn write(iocb: &mut Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    let locked = inode.lock_exclusive()?;
    if write_checks::begin(iocb, from)? == 0 {
        return Ok(0);
    }
    let mut total: usize = 0;
    while !from.is_empty() {
        inode.balance_dirty_pages();
        match write_folio(iocb, from) {
            Ok(written) => {
                total = total.saturating_add(written);
                let end = iocb.pos().saturating_add_unsigned(written as u64);
                iocb.set_pos(end);
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    drop(locked);
    iocb.write_sync(total)
}

/// Writes to one folio; returns how many bytes. The file is as long as that needs.
fn write_folio(iocb: &Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    let file = iocb.file();
    let inode = file.inode();
    let pos = iocb.pos();
    let in_page = usize::try_from(pos % PAGE_SIZE as i64)?;
    // A page that is written in part may have to be read, so it gets a folio of its own.
    let mut wanted = match from.len() {
        len if in_page != 0 || len < PAGE_SIZE => len.min(PAGE_SIZE - in_page),
        len => (len - len % PAGE_SIZE).min(inode.session()?.max_payload()),
    };
    loop {
        if is_killed() {
            return Err(EINTR);
        }
        // The source may be a mapping of this very file: it is brought in while no folio is locked, and then copied without.
        fault_in(from, wanted)?;
        let mut folio = inode.write_folio(pos, wanted)?;
        let offset = usize::try_from(pos.saturating_sub(folio.pos()))?;
        let len = wanted.min(folio.size().saturating_sub(offset));
        if !folio.is_uptodate() && len < folio.size() {
            if folio.pos() < inode.size() {
                drop(folio);
                inode.read_in(file, pos)?;
                continue;
            }
            folio.zero_around(offset, len);
        }
        folio.prepare_dirty(offset, len)?;
        match folio.copy_all_from(offset, len, from) {
            Ok(()) => {
                folio.mark_dirty(offset, len)?;
                // Before the folio is unlocked: what lies behind the end is not written back.
                write_checks::lengthen(inode, pos.saturating_add_unsigned(len as u64));
                return Ok(len);
            }
            // It is not in memory again: less is more likely to be.
            Err(0) => wanted = wanted.min(PAGE_SIZE - in_page),
            Err(copied) => wanted = copied,
        }
    }
}

/// Writes dirty pages back, each request as many as follow each other. Nobody waits for a request here: the writeback of its
/// folios ends when the reply comes, in the interrupt.
pub(crate) fn writepages(inode: &Inode<VirtioFs>, dirty: &mut Dirty<'_, VirtioFs>) -> Result {
    let session = inode.session()?;
    let max = session.max_write();
    let capacity = session.max_payload() / PAGE_SIZE;
    // The daemon writes to open files alone. Whoever can dirty folios has one: it is released after they were written.
    let writer = inode.data().writers().borrow()?;
    let fh = writer.fh();
    let mut range: Option<WritebackRange> = None;
    for mut folio in dirty {
        let left = usize::try_from(inode.size().saturating_sub(folio.pos())).unwrap_or(0);
        folio.zero_from(left);
        while let Some(bytes) = folio.dirty_bytes(left) {
            if let Some(mut begun) = range.take() {
                if begun.len() + bytes.len() <= max && begun.push(&mut folio, &bytes) {
                    range = Some(begun);
                    continue;
                }
                store(inode, fh, begun);
            }
            let start = folio.pos().saturating_add_unsigned(bytes.start as u64);
            // Pages that are clean follow, or may another folio.
            let capacity = if bytes.end < folio.size() {
                1
            } else {
                capacity
            };
            let mut next = WritebackRange::new(start, capacity)?;
            if !next.push(&mut folio, &bytes) {
                return Err(EIO);
            }
            range = Some(next);
        }
        folio.finish();
    }
    if let Some(range) = range {
        store(inode, fh, range);
    }
    Ok(())
}

/// Sends one request of a writeback. If that fails the range is dropped, which ends its writeback with an error.
fn store(inode: &Inode<VirtioFs>, fh: Fh, range: WritebackRange) {
    if dirty::keeps(inode) {
        // The daemon's time of modification is going to be another.
        inode.mark_times_dirty();
    }
    let sent = || -> Result {
        let op = Write {
            node: inode.known()?.node(),
            fh,
            offset: u64::try_from(range.pos())?,
            size: u32::try_from(range.len())?,
            flags: 0,
            write_flags: WriteFlags::CACHE,
            lock_owner: None,
        };
        let freshness = inode.data().freshness().clone();
        write_pages(inode.session()?, &op, range, freshness)
    };
    let _ = sent();
    inode.data().changed();
}

/// Has the daemon's times of modification and change be those that are kept here. Sleeps; a fatal signal ends that with `EINTR`.
///
/// The inode is not in the state of being written meanwhile (`I_SYNC`), for which others wait where no signal ends that.
pub(crate) fn sync_times(inode: &Inode<VirtioFs>) -> Result {
    if inode.is_dax() {
        dax_times::catch_up(inode);
        return Ok(());
    }
    if !dirty::keeps(inode) {
        return Ok(());
    }
    let _turn = inode.data().writers().turn()?;
    match inode.take_dirty_times() {
        true => send_times(inode, false),
        false => Ok(()),
    }
}

/// The kernel has times written that are kept here, mostly by its flusher, for which others wait. What a daemon that is silent
/// would have to answer is left for later, and so are they while contents are to be written, as these change the daemon's times, or
/// while others send them.
pub(crate) fn write_times(inode: &Inode<VirtioFs>) -> Result {
    if inode.is_dax() {
        dax_times::catch_up_briefly(inode);
        return Ok(());
    }
    if !dirty::keeps(inode) {
        return Ok(());
    }
    match inode.data().writers().try_turn() {
        Some(_turn) if !inode.has_dirty_pages() => send_times(inode, true),
        _ => {
            inode.mark_times_dirty();
            Ok(())
        }
    }
}

/// Sends the times, of which nothing but this says any more that they are to be sent. If that is given up, they are again.
fn send_times(inode: &Inode<VirtioFs>, briefly: bool) -> Result {
    let mtime = inode.mtime();
    let mut op = Setattr::new(inode.known()?.node());
    let writer = inode.data().writers().borrow().ok();
    op.fh = writer.as_ref().map(|writer| writer.fh());
    op.mtime = Some(SetTime::To(wire_time(mtime)));
    op.ctime = Some(wire_time(inode.ctime()));
    let asked = Asked::now();
    let session = inode.session()?;
    let done = match briefly {
        true => session.call_briefly(&op, &Caller::default()),
        false => session.call(&op, &Caller::default()),
    };
    let mut locked = inode.lock();
    let knows_all = match &done {
        // What was written meanwhile the daemon does not know of.
        Ok(reply) if inode.mtime() == mtime && !inode.has_dirty_pages() => {
            // As the daemon has them: it may be less precise.
            let mut attrs = locked.attrs();
            attrs.set_mtime(timespec(reply.attr.mtime));
            attrs.set_ctime(timespec(reply.attr.ctime));
            attrs.set_blocks(reply.attr.blocks);
            u64::try_from(inode.size()) == Ok(reply.attr.size)
        }
        _ => false,
    };
    // What others asked for before does not undo it.
    match knows_all {
        true => inode.data().caught_up(asked),
        false => inode.data().changed(),
    }
    drop(locked);
    let done = done.map(|_| ());
    if done == Err(EINTR) {
        inode.mark_times_dirty();
    }
    match briefly {
        true => Ok(()),
        false => done,
    }
}

/// Writes contents and times back, and waits for it. Errors of contents stay with the file. Sleeps.
pub(crate) fn write_all(inode: &Inode<VirtioFs>) -> Result {
    let written = inode.write_and_wait();
    sync_times(inode)?;
    written
}
