// SPDX-License-Identifier: GPL-2.0

//! Contents that are cached: reads into folios of the page cache.
//!
//! Nobody waits for a READ here: the folios are unlocked when its reply comes, in the interrupt, and whoever wants one waits
//! for its lock. A read ahead is cut into requests as large as the daemon takes.

use crate::{
    fill::Fill,
    freshness::Asked,
    inode::NodeInode,
    superblock::{
        caller,
        VirtioFs, //
    },
    writeback, //
};
use fuse_proto::{
    Fh,
    Read, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::folio::{
    FolioRange,
    LockedFolio, //
};
use vfs::{
    mapping::{
        Dirty,
        Readahead, //
    },
    File,
    Inode, //
};

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
        let fh = file.ok_or(EIO)?.data().fh();
        let mut range = FolioRange::new(folio.pos(), 1)?;
        range.push(folio).map_err(|_| EIO)?;
        fill(inode, fh, range)
    }

    fn readahead(readahead: Readahead<'_, VirtioFs>) {
        let inode = readahead.inode();
        let (Some(file), Ok(session)) = (readahead.file(), inode.session()) else {
            return;
        };
        let fh = file.data().fh();
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
            if fill(inode, fh, core::mem::replace(&mut range, next)).is_err() {
                return;
            }
            if range.push(folio).is_err() {
                return;
            }
        }
        // Errors show in the folios, which are read one by one then.
        let _ = fill(inode, fh, range);
    }

    fn writepages(inode: &Inode<VirtioFs>, dirty: &mut Dirty<'_, VirtioFs>) -> Result {
        writeback::writepages(inode, dirty)
    }
}

fn fill(inode: &Inode<VirtioFs>, fh: Fh, range: FolioRange) -> Result {
    if range.is_empty() {
        return Ok(());
    }
    let session = inode.session()?;
    let offset = u64::try_from(range.pos())?;
    let op = Read {
        node: inode.node_id()?,
        fh,
        offset,
        size: u32::try_from(range.len())?,
        flags: 0,
        lock_owner: None,
    };
    let freshness = inode.data().freshness();
    let asked = Asked::now();
    let size = u64::try_from(inode.size())?;
    if offset.saturating_add(range.len() as u64) >= size {
        freshness.end_asked(asked);
    }
    inode.data().reads();
    let fill = Fill {
        session: session.clone(),
        op,
        freshness: freshness.clone(),
        asked,
        size,
        keeps_writes: writeback::keeps(inode),
    };
    session.fill(&caller(inode.super_block()), range, fill)
}
