// SPDX-License-Identifier: GPL-2.0

//! READDIR and READDIRPLUS.
//!
//! One request is made for each call of getdents(2), for as many bytes as the reader has room for: a record of FUSE is never
//! smaller than the reader's, so what comes fits, and nothing is asked for twice.
//!
//! Where the daemon allows it, what is listed is kept ([`crate::inode::listing`]), and asked for only once.
//!
//! READDIRPLUS brings what LOOKUP would, and saves those requests where somebody looks up the names next. Adaptive use
//! (`READDIRPLUS_AUTO`): at the start of a directory, and again whenever names in it were looked up meanwhile.

use crate::{
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        listing::Served,
        NodeInode, //
    },
    names::lookup::{
        grant,
        instantiate, //
    },
    session::{
        epoch::Asked,
        forget::Known, //
    },
};
use fuse_proto::{
    Dirent,
    DirentPlus,
    Dirents,
    DirentsPlus,
    Entry,
    InitFlags,
    Plus,
    Readdir,
    ReplyError, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::pages::PageBuffer;
use vfs::{
    file::DirEmitter,
    Child,
    Dentry,
    File,
    Inode, //
};
use virtio::Payload;

/// Bytes to ask for when the reader does not say how many it has room for.
const DEFAULT_SIZE: usize = 8 * PAGE_SIZE;

/// Gives the reader the records after its position.
pub(crate) fn iterate(file: &File<VirtioFs>, emitter: &mut DirEmitter<'_, VirtioFs>) -> Result {
    let (dir, handle) = (file.inode(), file.data());
    let session = dir.session()?;
    let node = dir.node_id()?;
    let listing = match handle.cursor() {
        Some(cursor) => {
            let (listing, pos) = (dir.data().listing()?, emitter.pos());
            if pos == 0 {
                listing.start(dir)?;
            }
            let start = u64::try_from(pos)?;
            let served = listing.serve(dir, cursor, start, |dirent| emit(emitter, dirent))?;
            if served == Served::All || emitter.pos() != pos {
                return Ok(());
            }
            Some(listing)
        }
        None => None,
    };
    let size = emitter
        .room()
        .unwrap_or(DEFAULT_SIZE)
        .clamp(PAGE_SIZE, session.max_payload().max(PAGE_SIZE));
    let op = Readdir {
        node,
        plus: wants_plus(dir, emitter.pos())?,
        fh: handle.fh(),
        offset: u64::try_from(emitter.pos())?,
        size: u32::try_from(size)?,
        flags: file.flags(),
    };
    let pages = PageBuffer::new(size)?;
    dir.data().reads();
    let asked = Asked::now();
    let (len, transfer) = session.call_into(&op, &caller(dir.super_block()), pages)?;
    let Payload::Pages(pages) = transfer.payload() else {
        return Err(EIO);
    };
    // The host can change the pages until they were copied: what is checked is the copy.
    let mut records = KVVec::from_elem(0, len, GFP_KERNEL)?;
    pages.read(0, &mut records)?;

    // Where the next record begins.
    let mut at = op.offset;
    let mut memory = KVec::new();
    let mut keep = |dirent: &Dirent<'_>| {
        if let Some(listing) = listing {
            listing.keep(dir, at, dirent, &mut memory);
        }
        at = dirent.offset;
    };
    if let (Some(listing), 0) = (listing, len) {
        listing.end(op.offset);
    }
    let mut room = true;
    if op.plus {
        let mut records = DirentsPlus::new(&records);
        while let Some(record) = records.next() {
            let DirentPlus { dirent, plus } = record.map_err(|e| {
                session.forget_refused(&records);
                complain(dir, &op, e)
            })?;
            keep(&dirent);
            room = room && emit(emitter, &dirent);
            // The daemon has counted a lookup for this record, also if the reader takes no more.
            match plus {
                Plus::Nothing => {}
                Plus::Entry(entry) => link(emitter, dir, dirent.name, &entry, asked)?,
                Plus::Bad(node, e) => {
                    complain(dir, &op, e);
                    session.forget(Known::counted(node));
                }
            }
        }
    } else {
        for record in Dirents::new(&records) {
            let dirent = record.map_err(|e| complain(dir, &op, e))?;
            keep(&dirent);
            room = room && emit(emitter, &dirent);
        }
    }
    Ok(())
}

fn wants_plus(dir: &Inode<VirtioFs>, pos: i64) -> Result<bool> {
    let session = dir.session()?;
    if !session.has(InitFlags::DO_READDIRPLUS) {
        return Ok(false);
    }
    let looked_up = dir.data().take_names_wanted();
    Ok(!session.has(InitFlags::READDIRPLUS_AUTO) || pos == 0 || looked_up)
}

fn complain(dir: &Inode<VirtioFs>, op: &Readdir, e: ReplyError) -> Error {
    if let Ok(session) = dir.session() {
        session.complain(op, e);
    }
    Error::from_errno(e.to_errno())
}

fn emit(emitter: &mut DirEmitter<'_, VirtioFs>, dirent: &Dirent<'_>) -> bool {
    let kind = dirent
        .kind
        .and_then(|kind| vfs::attr::FileType::from_mode(kind.mode()));
    let next = i64::try_from(dirent.offset).unwrap_or(i64::MAX);
    emitter.emit(dirent.name, dirent.ino, kind, next)
}

/// Puts an entry of a listing into the dentry cache, as a lookup would have done.
fn link(
    emitter: &DirEmitter<'_, VirtioFs>,
    dir: &Inode<VirtioFs>,
    name: &[u8],
    entry: &Entry,
    asked: Asked,
) -> Result {
    let mut counted = true;
    let child = emitter.child(name, |new| {
        counted = false;
        let inode = instantiate(dir, entry, asked)?;
        grant(new, entry.entry_ttl, asked);
        Ok(Some(inode))
    });
    if counted {
        // There is a dentry of this name: it is good if it leads to the same inode, and forgotten otherwise.
        match &child {
            Ok(Child::Cached(dentry)) if refresh(dentry, entry, asked) => {
                return Ok(());
            }
            Ok(Child::Cached(dentry)) => dentry.invalidate(),
            _ => {}
        }
        dir.session()?.forget(Known::counted(entry.node));
    }
    // A listing is no worse for what could not be cached.
    Ok(())
}

/// Renews what a dentry leads to; whether it is the inode of `entry`.
fn refresh(dentry: &Dentry<VirtioFs>, entry: &Entry, asked: Asked) -> bool {
    let Some(inode) = dentry.inode().filter(|inode| inode.is_same(entry)) else {
        return false;
    };
    let Ok(known) = inode.known() else {
        return false;
    };
    if inode.update(&entry.attr, entry.attr_ttl, asked).is_err() {
        return false;
    }
    known.looked_up();
    grant(dentry, entry.entry_ttl, asked);
    true
}
