// SPDX-License-Identifier: GPL-2.0

//! Symbolic links.
//!
//! The target of a link on a Linux filesystem cannot change: symlink(2) makes an inode that has it, and nothing sets another. So it is
//! cached with the inode, and one READLINK is enough for as long as the time of the last change stays. That goes for links whose
//! size is the length of their target. A link into the host's procfs has another target whenever what it stands for has moved: its
//! size tells nothing, and each walk asks for the target anew, unless the daemon vouches for it (`FUSE_CACHE_SYMLINKS`).

use crate::{
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        link_target::Target,
        walks::follows,
        NodeInode, //
    },
};
use fuse_proto::{
    link_target,
    InitFlags,
    Readlink, //
};
use kernel::prelude::*;
use kernel_ext::pages::PageBuffer;
use vfs::{
    inode::{
        Link,
        RcuInode, //
    },
    Inode, //
};
use virtio::Payload;

/// The size that procfs tells of links to open files and directories, whatever these are.
const PROCFS_SIZE: i64 = 64;

/// Whether a target of `len` bytes stays, by the size of the link.
fn is_constant(len: usize, size: i64) -> bool {
    i64::try_from(len) == Ok(size) && size != PROCFS_SIZE
}

/// What the VFS asks of symbolic links.
pub(crate) struct Symlink;

#[vtable]
impl vfs::inode::SymlinkOperations for Symlink {
    fn get_link(inode: &Inode<VirtioFs>) -> Result<Link<'_>> {
        // Before the request: if it changes meanwhile, the target is asked for again.
        let ctime = inode.ctime();
        if let Some(target) = inode
            .data()
            .target
            .as_ref()
            .and_then(|kept| kept.as_of(ctime))
        {
            return Ok(Link::Borrowed(target));
        }
        let session = inode.session()?;
        let op = Readlink {
            node: inode.node_id()?,
        };
        let pages = PageBuffer::new(Readlink::MAX_LEN)?;
        let (len, transfer) = session.call_into(&op, &caller(inode.super_block()), pages)?;
        let Payload::Pages(pages) = transfer.payload() else {
            return Err(EIO);
        };
        let mut target = KVec::from_elem(0, len + 1, GFP_KERNEL)?;
        pages.read(0, target.get_mut(..len).ok_or(EIO)?)?;
        // The host can change the pages until they were copied: what is checked is the copy.
        let checked = target.get(..len).ok_or(EIO)?;
        link_target(checked).map_err(|e| {
            session.complain(&op, e);
            Error::from_errno(e.to_errno())
        })?;
        if session.has(InitFlags::CACHE_SYMLINKS) || is_constant(len, inode.size()) {
            let text = CStr::from_bytes_with_nul(&target).map_err(|_| EIO)?;
            match inode.data().target.as_ref() {
                Some(kept) => kept.confirm(text, ctime),
                // A task that asks at the same time gets the same target.
                None => drop(inode.data().target.populate(Target::new(text, ctime)?)),
            }
        }
        Ok(Link::Owned(target))
    }

    fn get_link_rcu(inode: RcuInode<'_, VirtioFs>) -> Result<&CStr> {
        inode
            .data()
            .target
            .as_ref()
            .and_then(|kept| kept.as_of(inode.ctime()))
            .ok_or(ECHILD)
    }

    fn followed(target: &[u8]) {
        follows(target);
    }
}
