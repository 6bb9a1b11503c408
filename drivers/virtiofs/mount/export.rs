// SPDX-License-Identifier: GPL-2.0

//! File handles, for `open_by_handle_at(2)` and NFS servers: nodeid and generation.
//!
//! As long as an inode is in the cache, its handle leads to it. After that the daemon is asked, if it can look up `.` in any
//! inode that it has ever told of (`EXPORT_SUPPORT`); otherwise the handle is stale. A daemon can also have handles not decoded
//! at all (`NO_EXPORT_SUPPORT`).

use crate::{
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        iget,
        NodeInode, //
    },
    session::{
        epoch::Asked,
        forget::Known, //
    },
};
use fuse_proto::{
    InitFlags,
    Lookup,
    LookupReply,
    NodeId, //
};
use kernel::prelude::*;
use vfs::{
    export::FileHandle,
    Inode,
    InodeRef,
    SuperBlock, //
};

/// What is asked of file handles.
pub(crate) struct Handles;

impl vfs::export::Operations for Handles {
    type FileSystem = VirtioFs;

    fn id(inode: &Inode<VirtioFs>) -> u64 {
        // No inode is in use without it.
        inode.known().map_or(0, |known| known.node().get())
    }

    fn find(sb: &SuperBlock<VirtioFs>, handle: FileHandle) -> Result<InodeRef<VirtioFs>> {
        let node = NodeId::new(handle.id).ok_or(ESTALE)?;
        let inode = match iget::find(sb, node) {
            Some(inode) => inode,
            None => look_up(sb, node, b".")?,
        };
        if inode.known()?.node() != node {
            return Err(EIO);
        }
        if inode.generation() != handle.generation {
            return Err(ESTALE);
        }
        Ok(inode)
    }

    fn parent(dir: &Inode<VirtioFs>) -> Result<InodeRef<VirtioFs>> {
        look_up(dir.super_block(), dir.node_id()?, b"..")
    }
}

/// Asks the daemon for `.` or `..` of an inode that it may have forgotten. Sleeps.
fn look_up(sb: &SuperBlock<VirtioFs>, node: NodeId, name: &[u8]) -> Result<InodeRef<VirtioFs>> {
    let session = sb.data().session()?;
    if !session.has(InitFlags::EXPORT_SUPPORT) {
        return Err(ESTALE);
    }
    let op = Lookup { parent: node, name };
    let asked = Asked::now();
    match session.call(&op, &caller(sb)) {
        Ok(LookupReply::Found(entry)) => iget::get(
            sb,
            Known::counted(entry.node),
            entry.generation,
            &entry.attr,
            entry.attr_ttl,
            asked,
        ),
        Ok(LookupReply::Negative(_)) => Err(ESTALE),
        Err(e) if e == ENOENT => Err(ESTALE),
        Err(e) => Err(e),
    }
}
