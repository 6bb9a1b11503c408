// SPDX-License-Identifier: GPL-2.0

//! Page cache reads and readahead.
//!
//! READs are asynchronous: the completion interrupt unlocks the folios; readers sleep on the folio lock. Readahead is split into
//! requests of the largest size that the daemon takes.

use crate::{
    contents::{
        file::Handle,
        fill::{
            read_pages,
            Fill, //
        },
        writeback, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        dirty,
        NodeInode, //
    },
    session::epoch::Asked, //
};
use fuse_proto::Read;
use kernel::{
    iov::IovIterDest,
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::folio::{
    FolioRange,
    LockedFolio, //
};
use vfs::{
    file::Kiocb,
    mapping::{
        Dirty,
        Readahead, //
    },
    File,
    Inode, //
};

/// How often one read goes on at most where a file becomes longer or shorter all the while.
const MAX_READS: usize = 8;

/// What the VFS asks of the page cache of regular files.
pub(crate) struct Pages;

#[vtable]
impl vfs::mapping::Operations for Pages {
    type FileSystem = VirtioFs;

    fn read_folio(
        file: Option<&File<VirtioFs>>,
        inode: &Inode<VirtioFs>,
        folio: LockedFolio,
    ) -> Result {
        // The daemon reads from open files alone.
        let handle = file.ok_or(EIO)?.data();
        let mut range = FolioRange::new(folio.pos(), 1)?;
        range.push(folio).map_err(|_| EIO)?;
        fill(inode, handle, range)
    }

    fn readahead(readahead: Readahead<'_, VirtioFs>) {
        let inode = readahead.inode();
        let (Some(file), Ok(session)) = (readahead.file(), inode.session()) else {
            return;
        };
        let handle = file.data();
        let max = session.max_payload();
        let capacity = |pages: usize| pages.min(max / PAGE_SIZE);
        let Ok(mut range) = FolioRange::new(readahead.pos(), capacity(readahead.pages())) else {
            return;
        };
        let mut pages = readahead.pages();
        for folio in readahead {
            pages = pages.saturating_sub(folio.size() / PAGE_SIZE);
            let folio = if range.len() + folio.size() <= max {
                match range.push(folio) {
                    Ok(()) => continue,
                    Err(folio) => folio,
                }
            } else {
                folio
            };
            // It does not go into this request: send that, and begin another.
            let capacity = capacity(pages + folio.size() / PAGE_SIZE);
            let Ok(next) = FolioRange::new(folio.pos(), capacity) else {
                break;
            };
            if fill(inode, handle, core::mem::replace(&mut range, next)).is_err() {
                return;
            }
            if range.push(folio).is_err() {
                return;
            }
        }
        // Errors show in the folios, which are read one by one then.
        let _ = fill(inode, handle, range);
    }

    fn writepages(inode: &Inode<VirtioFs>, dirty: &mut Dirty<'_, VirtioFs>) -> Result {
        writeback::writepages(inode, dirty)
    }
}

/// Whether the file may have more than its size here says, as its contents are newer. Where writes are kept here, this kernel
/// knows.
pub(crate) fn ends_early(inode: &Inode<VirtioFs>) -> bool {
    inode.data().freshness().is_end_older() && !dirty::is_ahead(inode)
}

/// Reads through the page cache. Sleeps, unless `iocb` says not to.
///
/// Nothing is read beyond the size that the file has when this begins. The VFS looks at it once more when it has a page: should the
/// file have become longer by then, what the page has behind its old end would be shown, which are zeroes that nobody wrote. Pages
/// that have them are dropped before the new size is there to be seen.
///
/// Where it comes to the end of the file, that is no older than the contents before it: else these could be new, and cut where the
/// old ones ended. Mostly the READ has told so, by coming to the end itself.
pub(crate) fn read_cached(
    iocb: &mut Kiocb<'_, VirtioFs>,
    to: &mut IovIterDest<'_>,
) -> Result<usize> {
    let (file, inode) = (iocb.file(), iocb.file().inode());
    let freshness = inode.data().freshness();
    let mut total = 0;
    for _ in 0..MAX_READS {
        let again = freshness.read_again();
        match iocb.filemap_read(to, inode.size(), total) {
            Ok(read) => total = read,
            Err(e) if total > 0 || e != EIO || freshness.read_again() == again => {
                return match total {
                    0 => Err(e),
                    total => Ok(total),
                };
            }
            // It was read while its size changed.
            Err(_) => continue,
        }
        if to.is_empty() || iocb.is_nowait() || !ends_early(inode) {
            break;
        }
        match inode.refresh(Some(file.data().fh())) {
            Err(e) if total == 0 => return Err(e),
            Ok(()) if iocb.pos() < inode.size() => {}
            _ => break,
        }
    }
    Ok(total)
}

fn fill(inode: &Inode<VirtioFs>, handle: &Handle, mut range: FolioRange) -> Result {
    if range.is_empty() {
        return Ok(());
    }
    let session = inode.session()?;
    let offset = u64::try_from(range.pos())?;
    let asked = Asked::now();
    let size = u64::try_from(inode.size())?;
    let end = offset.saturating_add(range.len() as u64);
    if end >= size {
        inode.data().freshness().end_asked(asked);
    }
    // All that a file of whole pages has is no answer to whether it has more. If there is no room to ask for a page more, who comes to
    // the end asks for the attributes.
    if end == size && range.len() + PAGE_SIZE <= session.max_payload() {
        let _ = range.push_spare();
    }
    let op = Read {
        node: inode.node_id()?,
        fh: handle.fh(),
        offset,
        size: u32::try_from(range.len())?,
        flags: 0,
        lock_owner: None,
    };
    inode.data().reads();
    let fill = Fill {
        session: session.clone(),
        op,
        freshness: inode.data().freshness().clone(),
        asked,
        size,
        keeps_writes: dirty::keeps(inode),
        pending: handle.pending()?.member(),
    };
    read_pages(&caller(inode.super_block()), range, fill)
}
