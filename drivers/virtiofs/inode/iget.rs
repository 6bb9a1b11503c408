// SPDX-License-Identifier: GPL-2.0

//! Inodes by nodeid: found in the cache, or made.
//!
//! C: `fuse_iget()`

use crate::{
    dax::mode::applies,
    filesystem::VirtioFs,
    inode::{
        set_attributes,
        set_size_and_times,
        NodeInode, //
    },
    session::{
        epoch::Asked,
        forget::Known, //
    },
};
use fuse_proto::{
    Attr,
    AttrFlags,
    FileType,
    InitFlags,
    NodeId,
    Ttl, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use vfs::{
    inode::{
        Lookup,
        NewInode, //
    },
    InodeRef,
    SuperBlock, //
};

/// What differs by the kind of inode. The operation tables name all features of the filesystem, which make inodes themselves: so they
/// are above this file, in [`tables`](crate::mount::tables).
pub(crate) trait Kinds {
    /// Gives a new inode the operations of its kind. A regular file is mapped from the window, or else cached.
    fn finish(inode: NewInode<VirtioFs>, attr: &Attr, dax: bool) -> Result<InodeRef<VirtioFs>>;
}

/// The inode for `known`, with attributes that the daemon sent. The lookup that was counted for it is kept, or
/// given back if it fails. Sleeps.
pub(crate) fn get(
    sb: &SuperBlock<VirtioFs>,
    known: Arc<Known>,
    generation: u64,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    let node = known.node();
    loop {
        let mine = known.clone();
        let inode = sb.get_inode(
            node.get(),
            |data| data.stands_for(node),
            |data| data.identify(mine, generation),
        );
        match inode {
            Ok(Lookup::New(inode)) => {
                let session = sb.data().session()?;
                session.instance().inodes().come();
                let inode = complete(inode, attr, ttl, asked)?;
                if node != NodeId::ROOT {
                    sb.data().volume()?.inode_made(sb.data(), &inode);
                }
                return Ok(inode);
            }
            Ok(Lookup::Cached(inode)) => {
                let same = inode.data().generation() == generation
                    && u32::from(inode.file_type().mode()) == attr.kind.mode();
                if !same {
                    inode.mark_stale();
                    continue;
                }
                inode.known()?.looked_up();
                inode.update(attr, ttl, asked)?;
                return Ok(inode);
            }
            Err(e) => {
                if known.unshare() {
                    sb.data().session()?.forget(known);
                }
                return Err(e);
            }
        }
    }
}

/// The inode for a nodeid, if it is in the cache. Sleeps.
pub(crate) fn find(sb: &SuperBlock<VirtioFs>, node: NodeId) -> Option<InodeRef<VirtioFs>> {
    sb.find_inode(node.get(), |data| data.stands_for(node))
}

/// The root of a superblock.
pub(crate) fn root(
    sb: &SuperBlock<VirtioFs>,
    known: Arc<Known>,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    if attr.kind != FileType::Directory {
        pr_err!(
            "{:?}: the root is not a directory\n",
            sb.data().session()?.instance().tag()
        );
        return Err(EIO);
    }
    let mut attr = *attr;
    // The mount that it marks has been made.
    attr.flags = attr.flags.without(AttrFlags::SUBMOUNT);
    get(sb, known, 0, &attr, ttl, asked)
}

fn complete(
    mut inode: NewInode<VirtioFs>,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    inode.set_ino(attr.ino);
    inode.set_generation(inode.data().generation() as u32);
    let mount = inode.super_block().data();
    let session = mount.session()?;
    let regular = attr.kind == FileType::Regular;
    let dax = regular && mount.window().is_some() && applies(session, mount.dax(), attr.flags);
    let keeps_times = regular && !dax && session.has(InitFlags::WRITEBACK_CACHE);
    let passive_acls = !session.has(InitFlags::POSIX_ACL) && attr.kind != FileType::Symlink;
    // What was asked for before the last inode went may be from before a change through it, if it was the same.
    let is_new = !mount.evicted_since(asked);
    if keeps_times {
        inode.set_atime_remote();
    } else {
        inode.set_times_remote();
    }
    set_attributes(&mut inode.attrs(), attr);
    set_size_and_times(&mut inode.attrs(), attr);
    inode.data().answered(asked);
    inode.data().freshness().size_known(asked);
    if is_new {
        inode.data().freshness().renew(ttl);
    }
    if passive_acls {
        inode.set_acls_passive();
    }
    <VirtioFs as Kinds>::finish(inode, attr, dax)
}
