// SPDX-License-Identifier: GPL-2.0

//! Buffered write(2), fsync(2), fallocate(2) and copy_file_range(2).
//!
//! write(2) goes through to the daemon, if that wants it so: its bytes are copied into folios of the page cache, as many as a
//! request carries, and are in the host's file when it returns; the folios stay for readers. What is written later is in
//! `writeback`.
//!
//! The inode is locked (`i_rwsem`) across the requests of a write, as its size and the order of what is written depend on it.

use crate::{
    contents::{
        invalidate::drop_cached,
        write_checks::{
            self,
            clear_tail, //
        },
        writeback, //
    },
    dax::{
        copies::outdate_locked,
        layout::break_layouts, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        dirty,
        killpriv,
        NodeInode, //
    },
    transport::request::Sent, //
};
use fuse_proto::{
    CopyFileRange,
    Fallocate,
    Fsync,
    Write, //
};
use kernel::{
    iov::IovIterSource,
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    source::Taken,
    task::account_write,
    write::{
        fault_in,
        WriteRange, //
    },
};
use vfs::{
    file::{
        FallocateMode,
        Kiocb, //
    },
    File,
    Inode, //
};
use virtio::Payload;

/// Writes from `from` to the position of `iocb`, through the page cache. Sleeps; a fatal signal ends it with what was written so
/// far.
pub(crate) fn write(iocb: &mut Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    let locked = inode.lock_exclusive()?;
    if write_checks::begin(iocb, from)? == 0 {
        return Ok(0);
    }
    account_write(from.len());
    let mut total: usize = 0;
    while !from.is_empty() {
        match write_through(iocb, from) {
            Ok((asked, written)) => {
                total = total.saturating_add(written);
                iocb.set_pos(iocb.pos().saturating_add_unsigned(written as u64));
                if written < asked {
                    break;
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    drop(locked);
    iocb.write_sync(total)
}

/// One request of a write through the page cache; returns how many bytes it had, and how many the daemon took, which `from`
/// stands behind then.
fn write_through(
    iocb: &Kiocb<'_, VirtioFs>,
    from: &mut IovIterSource<'_>,
) -> Result<(usize, usize)> {
    let inode = iocb.file().inode();
    let session = inode.session()?;
    let max = session.max_write().min(from.len());
    let first = (iocb.pos() % PAGE_SIZE as i64) as usize;
    let pages = (first + max).div_ceil(PAGE_SIZE);
    let mut range = WriteRange::new(iocb.pos(), pages.min(session.max_payload() / PAGE_SIZE))?;
    let mut from = Taken::new(from);
    while range.is_empty() {
        // The source may be a mapping of this very file: it is brought in while no folio is locked, and then copied without.
        // All of it, as the request ends where it is not in memory.
        fault_in(from.source(), max)?;
        collect(inode, iocb.pos(), max, from.source(), &mut range)?;
    }
    let asked = range.len();
    let (op, sent) = send(iocb, Payload::Write(range)).inspect_err(|_| {
        // Mapped folios still have what the file has not got.
        let last = iocb.pos().saturating_add_unsigned(asked as u64);
        let _ = inode.invalidate_range(iocb.pos(), last.saturating_sub(1));
        from.keep(0);
    })?;
    // A fatal signal ends the wait, and so does the end of the session. The device may have the folios still, but their locks and the
    // inode's end with this.
    let answer = sent.wait(&op, || session.undo(&op));
    let written = *answer.as_ref().unwrap_or(&0);
    from.keep(written);
    if written > 0 {
        // Before the folios are unlocked: what lies behind the end is not written back.
        let end = iocb.pos().saturating_add_unsigned(written as u64);
        write_checks::grow(inode, end);
    }
    if let Payload::Write(range) = sent.transfer().payload() {
        range.end(written);
    }
    killpriv::mode_may_have_changed(inode);
    if answer.is_err() {
        // Whoever is told of an error does not know what the daemon has written.
        inode.data().changed();
    }
    Ok((asked, answer?))
}

/// Fills folios with up to `max` bytes from `from`, as far as they are in memory.
fn collect(
    inode: &Inode<VirtioFs>,
    pos: i64,
    max: usize,
    from: &mut IovIterSource<'_>,
    range: &mut WriteRange,
) -> Result {
    while range.len() < max {
        let left = max - range.len();
        let at = pos.saturating_add_unsigned(range.len() as u64);
        let mut folio = match inode.write_folio(at, left) {
            Ok(folio) => folio,
            Err(_) if !range.is_empty() => return Ok(()),
            Err(e) => return Err(e),
        };
        let offset = usize::try_from(at.saturating_sub(folio.pos()))?;
        let wanted = left.min(folio.size().saturating_sub(offset));
        let copied = folio.copy_from(offset, wanted, from);
        if copied == 0 {
            return Ok(());
        }
        if range.push(folio, offset, copied).is_err() {
            // Its bytes have been taken from the source.
            return Err(EIO);
        }
        if copied < wanted || range.is_full() {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends a WRITE at the position of `iocb`.
fn send<'a>(iocb: &Kiocb<'a, VirtioFs>, payload: Payload) -> Result<(Write, Sent<'a>)> {
    let file = iocb.file();
    let inode = file.inode();
    let session = inode.session()?;
    let op = Write {
        node: inode.node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(iocb.pos())?,
        size: u32::try_from(payload.len())?,
        flags: file.flags(),
        write_flags: killpriv::write_flags(session),
        lock_owner: None,
    };
    let sent = session.begin_with(&op, &caller(inode.super_block()), payload, None)?;
    Ok((op, sent))
}

/// fsync(2) and fdatasync(2).
pub(crate) fn fsync(file: &File<VirtioFs>, start: i64, end: i64, datasync: bool) -> Result {
    file.write_and_wait_range(start, end)?;
    if !datasync {
        writeback::sync_times(file.inode())?;
    }
    sync_handle(file, false, datasync)
}

/// Has the daemon bring what is behind an open file or directory to stable storage.
pub(crate) fn sync_handle(file: &File<VirtioFs>, dir: bool, datasync: bool) -> Result {
    let inode = file.inode();
    let op = Fsync {
        node: inode.known()?.node(),
        dir,
        fh: file.data().fh(),
        datasync,
    };
    match inode.session()?.call(&op, &caller(inode.super_block())) {
        Err(e) if e == ENOSYS => Ok(()),
        done => done,
    }
}

/// fallocate(2): what allocates, punches holes and zeroes.
pub(crate) fn fallocate(
    file: &File<VirtioFs>,
    mode: FallocateMode,
    offset: i64,
    len: i64,
) -> Result {
    if !mode.is_in_place() {
        return Err(EOPNOTSUPP);
    }
    let inode = file.inode();
    let end = offset.checked_add(len).ok_or(EFBIG)?;
    let op = Fallocate {
        node: inode.node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(offset)?,
        length: u64::try_from(len)?,
        mode: mode.bits(),
    };
    let _locked = inode.lock_exclusive()?;
    if !mode.keep_size() {
        inode.check_new_size(end)?;
        clear_tail(inode, end)?;
    }
    killpriv::before_change(file)?;
    // What is read meanwhile must be neither what was there before nor half of it, and what mappings store comes before or after.
    let mut unread = match mode.zeroes() {
        true => Some(inode.lock_invalidate_killable()?),
        false => None,
    };
    if let Some(unread) = &mut unread {
        break_layouts(inode, unread, offset, end.saturating_sub(1))?;
        outdate_locked(inode, unread, offset, end.saturating_sub(1));
        inode.write_and_wait_range(offset, end.saturating_sub(1))?;
        inode.wait_for_pages(offset, end.saturating_sub(1))?;
    }
    if let Err(e) = inode.session()?.call(&op, &caller(inode.super_block())) {
        // Nobody knows whether the daemon has done it, or a part of it.
        if mode.zeroes() {
            let _ = inode.invalidate_range(offset, end.saturating_sub(1));
        }
        inode.data().changed();
        return Err(if e == ENOSYS { EOPNOTSUPP } else { e });
    }
    if mode.zeroes() {
        inode.truncate_range(offset, end.saturating_sub(1));
    }
    if mode.keep_size() {
        inode.data().changed();
    } else {
        write_checks::grow(inode, end);
    }
    Ok(())
}

/// copy_file_range(2): the daemon copies. `EOPNOTSUPP` when it can't, and the bytes have to come through here.
pub(crate) fn copy_file_range(
    from: &File<VirtioFs>,
    from_pos: i64,
    to: &File<VirtioFs>,
    to_pos: i64,
    len: usize,
) -> Result<usize> {
    let session = to.inode().session()?;
    let (source, target) = (from.inode(), to.inode());
    // The daemon sees what mappings have written only when it was written back.
    if dirty::is_ahead(source) {
        // All of it: the daemon copies no hole behind where its file ends.
        source.write_and_wait()?;
    } else {
        let from_end = from_pos.saturating_add_unsigned(len as u64);
        source.write_and_wait_range(from_pos, from_end)?;
    }
    let _locked = target.lock_exclusive()?;
    killpriv::before_change(to)?;
    clear_tail(target, to_pos)?;
    // As for a hole: see `fallocate`.
    let unread = target.lock_invalidate_killable()?;
    drop_cached(target, to_pos, len)?;
    let to_end = to_pos.saturating_add_unsigned(len as u64);
    outdate_locked(target, &unread, to_pos, to_end);
    let mut op = CopyFileRange {
        node_in: source.known()?.node(),
        fh_in: from.data().fh(),
        off_in: u64::try_from(from_pos)?,
        node_out: target.node_id()?,
        fh_out: to.data().fh(),
        off_out: u64::try_from(to_pos)?,
        len: len as u64,
        flags: 0,
        wide: true,
    };
    let caller = caller(target.super_block());
    let copied = match session.call(&op, &caller) {
        Err(e) if e == ENOSYS => {
            op.wide = false;
            session.call(&op, &caller)
        }
        done => done,
    };
    let copied = copied.map_err(|e| {
        // Nobody knows how much the daemon has copied.
        target.data().changed();
        if e == ENOSYS || e == EXDEV {
            EOPNOTSUPP
        } else {
            e
        }
    })?;
    let copied = usize::try_from(copied)?;
    if copied > 0 {
        write_checks::grow(target, to_pos.saturating_add_unsigned(copied as u64));
    }
    Ok(copied)
}
