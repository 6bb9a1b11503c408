// SPDX-License-Identifier: GPL-2.0

//! Inodes and their attributes.
//!
//! An inode of this kernel stands for one nodeid of the daemon, at one generation. A nodeid that comes back with another
//! generation, or as another type of file, is another file: the inode that stood for it is marked stale and left to its
//! users.
//!
//! Locks, outermost first: `i_rwsem` (VFS), `invalidate_lock` (page cache), `i_lock` around changes of attributes.
//!
//! Files of this floor:
//!
//! - [`mod@cred`]: credentials of requests.
//! - [`dirty`]: what is newer here than at the daemon.
//! - [`iget`]: inodes by nodeid.
//! - [`killpriv`]: set-id bits and capabilities that a change removes.
//! - [`link_target`]: cached targets of symbolic links.
//! - [`listing`]: cached directory listings.
//! - [`node`]: data of an inode.
//! - [`time`]: times of the kernel and of the wire.
//! - [`walks`]: path walks that are repeated.
//! - [`writers`]: handles that write-back uses.

pub(crate) mod cred;
pub(crate) mod dirty;
pub(crate) mod iget;
pub(crate) mod killpriv;
pub(crate) mod link_target;
pub(crate) mod listing;
pub(crate) mod node;
pub(crate) mod time;
pub(crate) mod walks;
pub(crate) mod writers;

use crate::{
    dax::{
        copies::outdate_by_host,
        mode::applies, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        time::timespec, //
    },
    session::{
        epoch::Asked,
        forget::Known,
        Session, //
    },
};
use fuse_proto::{
    Attr,
    Entry,
    Fh,
    FileType,
    Getattr,
    InitFlags,
    NodeId,
    Ttl, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use vfs::{
    inode::AttrsMut,
    Inode, //
};

/// How often attributes are asked for at most that change all the while.
const MAX_REFRESHES: usize = 4;

/// What has become of attributes that the daemon sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The inode has them, or later ones.
    Over,
    /// They are older than a change through this kernel: the inode does not have all of them.
    Overtaken,
}

/// What the rest of the driver asks of an inode.
pub(crate) trait NodeInode {
    /// The session it belongs to.
    fn session(&self) -> Result<&Arc<Session>>;
    /// The inode of the daemon.
    fn known(&self) -> Result<&Arc<Known>>;
    /// Its nodeid; `ESTALE` when what it stood for is gone.
    fn node_id(&self) -> Result<NodeId>;
    /// Whether an entry that the daemon sent is this inode, at the same generation.
    fn is_same(&self, entry: &Entry) -> bool;
    /// Takes over attributes that the daemon sent, and says what has become of them. Sleeps.
    fn update(&self, attr: &Attr, ttl: Ttl, asked: Asked) -> Result<Taken>;
    /// Drops what is cached of the contents and not dirty, and the page with the `end` of the file when it is dirty, too. Sleeps;
    /// a fatal signal ends that with `EINTR`.
    fn drop_pages(&self, end: i64) -> Result;
    /// Asks the daemon for the attributes once, of the open file `fh` if there is one. They are returned if the inode does not have
    /// all of them. Sleeps.
    fn ask(&self, fh: Option<Fh>) -> Result<Option<Attr>>;
    /// Asks the daemon for the attributes, of the open file `fh` if there is one, until the inode has them. Sleeps.
    fn refresh(&self, fh: Option<Fh>) -> Result;
    /// Whether the attributes are good, so that `refresh_if_expired` does not ask.
    fn is_fresh(&self) -> bool;
    /// As `refresh`, if they are not good any more.
    fn refresh_if_expired(&self, fh: Option<Fh>) -> Result;
}

impl NodeInode for Inode<VirtioFs> {
    fn session(&self) -> Result<&Arc<Session>> {
        self.super_block().data().session()
    }

    fn known(&self) -> Result<&Arc<Known>> {
        self.data().known().ok_or(ESTALE)
    }

    fn node_id(&self) -> Result<NodeId> {
        if self.is_stale() {
            return Err(ESTALE);
        }
        Ok(self.known()?.node())
    }

    fn is_same(&self, entry: &Entry) -> bool {
        !self.is_stale()
            && self.data().stands_for(entry.node)
            && self.data().generation() == entry.generation
            && u32::from(self.file_type().mode()) == entry.attr.kind.mode()
    }

    fn update(&self, attr: &Attr, ttl: Ttl, asked: Asked) -> Result<Taken> {
        if u32::from(self.file_type().mode()) != attr.kind.mode() {
            // Another file has taken its place.
            self.mark_stale();
            return Err(ESTALE);
        }
        let size = i64::try_from(attr.size)?;
        let is_cached = attr.kind == FileType::Regular && !self.is_dax();
        let auto_inval = self.session()?.has(InitFlags::AUTO_INVAL_DATA);
        let freshness = self.data().freshness();
        let mut dropped = None;
        let mut locked = loop {
            let mut locked = self.lock();
            if self.data().knows_later(asked) {
                return Ok(Taken::Over);
            }
            if self.data().is_out_of_date(asked) {
                return Ok(Taken::Overtaken);
            }
            // Other times mean something where the daemon says so, or when they may be those of a change that was given up here.
            let times_matter = auto_inval || self.data().is_doubted();
            let seen = (self.size(), self.mtime());
            let changed = size != seen.0 || times_matter && timespec(attr.mtime) != seen.1;
            let drops = changed
                && is_cached
                && dropped != Some(seen)
                && self.has_pages()
                && !self.data().is_overtaken(asked)
                && !dirty::is_ahead(self);
            if !drops {
                break locked;
            }
            // What a mapping has stored behind the new end is lost, as on the host, and must not make the file longer there again. So
            // that dirty pages are written up to the new end alone, they see it before the others are dropped.
            let cuts = size < seen.0 && !dirty::keeps(self) && self.has_dirty_pages();
            if cuts {
                locked.attrs().set_size(size);
                freshness.was_cut(seen.0);
            }
            drop(locked);
            if cuts {
                self.wait_for_pages(size, i64::MAX)?;
                self.truncate_pagecache(size);
            }
            // Before the new size and times are there to be seen: a page has zeroes behind the end of the file as it was when it was
            // read, and old contents before it.
            self.drop_pages(size.min(seen.0))?;
            dropped = Some(if cuts { (size, seen.1) } else { seen });
        };
        let (old_size, old_mtime) = (self.size(), self.mtime());
        let old_size = old_size.max(freshness.take_cut());
        let doubted = self.data().is_doubted();
        let mut attrs = locked.attrs();
        set_attributes(&mut attrs, attr);
        self.data().answered(asked);
        if self.data().is_overtaken(asked) {
            freshness.was_cut(old_size);
            return Ok(Taken::Overtaken);
        }
        let ahead = dirty::is_ahead(self);
        if ahead {
            attrs.set_blocks(attr.blocks);
        } else if freshness.knows_later_size(asked) && size != self.size() {
            // A READ has come to the end of the file since.
            freshness.was_cut(old_size);
            freshness.expire();
            return Ok(Taken::Overtaken);
        } else {
            set_size_and_times(&mut attrs, attr);
            freshness.size_known(asked);
        }
        drop(locked);
        freshness.renew(ttl);
        if self.data().is_overtaken(asked) || self.data().is_out_of_date(asked) {
            // It was changed since this was looked at.
            freshness.expire_all();
        }

        if attr.kind == FileType::Regular && self.super_block().data().window().is_some() {
            let dax = applies(self.session()?, self.super_block().data().dax(), attr.flags);
            if dax != self.is_dax() {
                // An inode is one or the other as long as it lives.
                self.mark_dont_cache();
            }
        }
        let times_matter = doubted || auto_inval;
        let changed = old_size != size || times_matter && old_mtime != timespec(attr.mtime);
        if self.is_dax() {
            // What is seen is what the host has, but not beyond the end.
            if size < old_size {
                self.unmap_from(size);
            }
            if changed {
                outdate_by_host(self);
            }
            return Ok(Taken::Over);
        }
        if is_cached && !ahead && size < old_size && self.has_pages() {
            // What lies behind the end cannot be reached through mappings any more. Where writes are kept here, what has made the file
            // longer again since then is dirty, and stays.
            let done = match dirty::keeps(self) {
                true => self.drop_pages(size),
                false => self
                    .wait_for_pages(size, i64::MAX)
                    .map(|()| self.truncate_pagecache(size)),
            };
            if done.is_err() {
                // A task that was killed leaves that to others.
                freshness.was_cut(old_size);
                freshness.expire();
                return Err(EINTR);
            }
        }
        Ok(Taken::Over)
    }

    fn drop_pages(&self, end: i64) -> Result {
        self.wait_for_pages(0, i64::MAX)?;
        // Of what is dirty the page with the end goes, too: it was stored to through a mapping. Errors stay with the file.
        if self.invalidate_pages() == Err(EBUSY)
            && !dirty::keeps(self)
            && self.write_and_wait_range(end, end) != Err(EINTR)
        {
            let _ = self.invalidate_range(end, end);
        }
        Ok(())
    }

    fn ask(&self, fh: Option<Fh>) -> Result<Option<Attr>> {
        let op = Getattr {
            node: self.node_id()?,
            fh,
        };
        let asked = Asked::now();
        let reply = self.session()?.call(&op, &caller(self.super_block()))?;
        Ok(match self.update(&reply.attr, reply.ttl, asked)? {
            Taken::Over => None,
            Taken::Overtaken => Some(reply.attr),
        })
    }

    fn refresh(&self, fh: Option<Fh>) -> Result {
        for _ in 0..MAX_REFRESHES {
            let asked = Asked::now();
            self.ask(fh)?;
            if !self.data().is_out_of_date(asked) {
                break;
            }
        }
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        // Users of a stale inode are told so, however good its attributes were.
        self.data().freshness().is_fresh() && !self.is_stale()
    }

    fn refresh_if_expired(&self, fh: Option<Fh>) -> Result {
        if self.is_fresh() {
            return Ok(());
        }
        self.refresh(fh)
    }
}

pub(crate) fn set_size_and_times(attrs: &mut AttrsMut<'_, VirtioFs>, attr: &Attr) {
    attrs.set_size(i64::try_from(attr.size).unwrap_or(i64::MAX));
    attrs.set_blocks(attr.blocks);
    attrs.set_mtime(timespec(attr.mtime));
    attrs.set_ctime(timespec(attr.ctime));
}

/// Sets what the daemon said but for size and times. ACLs are as old as the attributes: they go.
pub(crate) fn set_attributes(attrs: &mut AttrsMut<'_, VirtioFs>, attr: &Attr) {
    attrs.forget_acls();
    attrs.set_permissions(attr.permissions);
    attrs.set_owner(attr.uid, attr.gid);
    attrs.set_nlink(attr.nlink);
    attrs.set_atime(timespec(attr.atime));
    attrs.data().set_blksize(attr.blksize);
}
