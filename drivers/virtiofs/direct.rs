// SPDX-License-Identifier: GPL-2.0

//! Contents that are not cached: `O_DIRECT`, and files that the daemon wants read directly (`FOPEN_DIRECT_IO`).
//!
//! The device writes into the user's own pages, which stay pinned until it has returned them, whatever becomes of the task.
//! Buffers that are not a user's, as of sendfile(2), are read through pages of the kernel.

use crate::{
    inode::NodeInode,
    superblock::{
        caller,
        VirtioFs, //
    },
};
use fuse_proto::Read;
use kernel::{
    iov::IovIterDest,
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    pages::PageBuffer,
    user_pages::UserPages, //
};
use vfs::file::Kiocb;
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
