// SPDX-License-Identifier: GPL-2.0

//! Symbolic links.

use crate::{
    inode::{
        impl_inode_operations,
        NodeInode, //
    },
    superblock::{
        caller,
        VirtioFs, //
    },
    walks::follows, //
};
use fuse_proto::{
    link_target,
    InitFlags,
    Readlink, //
};
use kernel::{
    prelude::*,
    str::CString, //
};
use kernel_ext::pages::PageBuffer;
use vfs::{
    inode::{
        Link,
        RcuInode, //
    },
    Inode, //
};
use virtio::Payload;

/// What the VFS asks of symbolic links.
pub(crate) struct Symlink;

impl_inode_operations!(Symlink);

#[vtable]
impl vfs::inode::SymlinkOperations for Symlink {
    fn get_link(inode: &Inode<VirtioFs>) -> Result<Link<'_>> {
        if let Some(target) = inode.data().target.as_ref() {
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
        if session.has(InitFlags::CACHE_SYMLINKS) {
            let text = CStr::from_bytes_with_nul(&target).map_err(|_| EIO)?;
            inode.data().target.populate(CString::try_from(text)?);
        }
        Ok(Link::Owned(target))
    }

    fn get_link_rcu(inode: RcuInode<'_, VirtioFs>) -> Result<&CStr> {
        inode
            .data()
            .target
            .as_ref()
            .map(|target| &**target)
            .ok_or(ECHILD)
    }

    fn followed(target: &[u8]) {
        follows(target);
    }
}
