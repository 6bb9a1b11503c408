// SPDX-License-Identifier: GPL-2.0

//! Contents that are not cached: `O_DIRECT`, and files that the daemon wants read directly (`FOPEN_DIRECT_IO`).
//!
//! The device reads and writes the user's own pages, which stay pinned until it has returned them, whatever becomes of the task.
//! Buffers that are not a user's, as of sendfile(2), go through pages of the kernel.

use crate::{
    inode::NodeInode,
    superblock::{
        caller,
        VirtioFs, //
    },
    write, //
};
use fuse_proto::Read;
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    pages::PageBuffer,
    user_pages::UserPages, //
};
use vfs::{
    file::Kiocb,
    Inode, //
};
use virtio::{
    transfer::Direction,
    Payload, //
};

/// Reads from the position of `iocb` into `to`. Sleeps. A fatal signal ends it with what was read so far.
pub(crate) fn read(iocb: &mut Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    if inode.has_pages() {
        // What mappings have written and nobody has written back yet.
        let end = iocb.pos().saturating_add_unsigned(to.len() as u64);
        inode.write_and_wait_range(iocb.pos(), end)?;
    }
    let mut total = 0;
    while !to.is_empty() {
        match read_once(iocb, to) {
            Ok((asked, got)) => {
                total += got;
                if got < asked {
                    break;
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(total)
}

/// One request; returns how many bytes were asked for, and how many came.
fn read_once(iocb: &mut Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<(usize, usize)> {
    let file = iocb.file();
    let inode = file.inode();
    let session = inode.session()?;
    let max = session.max_payload().min(to.len());
    let payload = match UserPages::of_destination(to, max, session.max_payload() / PAGE_SIZE)? {
        Some(pages) => Payload::User(pages),
        None => Payload::Pages(PageBuffer::new(max)?),
    };
    let op = Read {
        node: inode.node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(iocb.pos())?,
        size: u32::try_from(payload.len())?,
        flags: file.flags(),
        lock_owner: None,
    };
    let caller = caller(inode.super_block());
    let (got, transfer) = session.exchange(&op, &caller, payload, Direction::FromDevice)?;
    match transfer.payload() {
        Payload::User(pages) => pages.mark_dirty(),
        Payload::Pages(pages) => pages.copy_to_iter(got, to)?,
        _ => return Err(EIO),
    }
    let pos = iocb.pos().saturating_add_unsigned(got as u64);
    iocb.set_pos(pos);
    if got < op.size as usize && pos < inode.size() {
        // The file is shorter than it was.
        inode.data().freshness().expire();
    }
    Ok((op.size as usize, got))
}

/// Writes from `from` to the position of `iocb`. Sleeps. A fatal signal ends it with what was written so far.
pub(crate) fn write(iocb: &mut Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    let locked = inode.lock_exclusive();
    if write::begin(iocb, from)? == 0 {
        return Ok(0);
    }
    let start = iocb.pos();
    drop_cached(inode, start, from.len())?;
    let written = write::write_parts(iocb, from, write_once);
    // Readers may have brought in again what was there before.
    drop_cached(inode, start, written.unwrap_or(0))?;
    drop(locked);
    iocb.write_sync(written?)
}

/// One request; returns how many bytes it had, and how many the daemon took.
fn write_once(iocb: &Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<(usize, usize)> {
    let session = iocb.file().inode().session()?;
    let max = session.max_write().min(from.len());
    let payload = match UserPages::of_source(from, max, session.max_payload() / PAGE_SIZE)? {
        Some(pages) => Payload::User(pages),
        None => Payload::Pages(PageBuffer::from_iter(max, from)?),
    };
    write::send(iocb, payload).map(|(asked, written, _)| (asked, written))
}

/// Drops what is cached of a range, after it was written back.
pub(crate) fn drop_cached(inode: &Inode<VirtioFs>, pos: i64, len: usize) -> Result {
    let Some(last) = (len as u64).checked_sub(1) else {
        return Ok(());
    };
    if !inode.has_pages() {
        return Ok(());
    }
    let end = pos.saturating_add_unsigned(last);
    inode.write_and_wait_range(pos, end)?;
    // A page that is being read stays, and is read anew when it is read next.
    let _ = inode.invalidate_range(pos, end);
    Ok(())
}
