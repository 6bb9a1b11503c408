// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The daemon decides which there are; all names go to it as they are. Without `--xattr` it answers `ENOSYS`, and user space
//! gets `EOPNOTSUPP`.

use crate::{
    contents::writeback,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        NodeInode, //
    },
};
use fuse_proto::{
    Getxattr,
    InitFlags,
    Listxattr,
    Opcode,
    Operation,
    Removexattr,
    Setxattr,
    XattrNames,
    XATTR_MAX, //
};
use kernel::prelude::*;
use kernel_ext::pages::PageBuffer;
use vfs::{
    xattr::{
        Buffer,
        SetMode, //
    },
    Inode, //
};
use virtio::Payload;

/// What any write to a file takes away.
const CAPABILITY: &[u8] = b"security.capability";

/// The handler of all extended attributes.
pub(crate) struct AnyXattr;

#[vtable]
impl vfs::xattr::Handler for AnyXattr {
    type FileSystem = VirtioFs;
    const PREFIX: &'static CStr = c"";

    fn may_exist(inode: &Inode<VirtioFs>) -> bool {
        !inode
            .session()
            .is_ok_and(|session| session.lacks(Opcode::Getxattr))
    }

    fn get(inode: &Inode<VirtioFs>, name: &CStr, value: &mut Buffer<'_>) -> Result {
        let op = Getxattr {
            node: inode.node_id()?,
            name: name.to_bytes(),
            size: room(value),
        };
        if op.size == 0 {
            return value.push_size(ask_size(inode, &op)?);
        }
        value.push(&fetch(inode, &op, op.size)?)
    }

    fn set(inode: &Inode<VirtioFs>, name: &CStr, value: &[u8], how: SetMode) -> Result {
        set(inode, name, value, how, false)
    }

    fn remove(inode: &Inode<VirtioFs>, name: &CStr) -> Result {
        remove(inode, name)
    }
}

/// Gives an extended attribute a value. If it is an ACL for access, the set-group-id bit can go with it: `acl_kill_sgid`.
pub(crate) fn set(
    inode: &Inode<VirtioFs>,
    name: &CStr,
    value: &[u8],
    how: SetMode,
    acl_kill_sgid: bool,
) -> Result {
    let session = inode.session()?;
    let op = Setxattr {
        node: inode.node_id()?,
        name: name.to_bytes(),
        size: u32::try_from(value.len())?,
        flags: how.bits(),
        acl_kill_sgid: session
            .has(InitFlags::SETXATTR_EXT)
            .then_some(acl_kill_sgid),
    };
    if name.to_bytes() == CAPABILITY && !inode.is_dax() && inode.has_dirty_pages() {
        // What is written to the file afterwards takes them away. Errors stay with the file.
        let _ = writeback::write_all(inode);
    }
    let caller = caller(inode.super_block());
    let done = session.with_room(|| {
        let payload = if value.is_empty() {
            Payload::None
        } else {
            let mut pages = PageBuffer::new(value.len())?;
            pages.write(0, value)?;
            Payload::Pages(pages)
        };
        session.exchange(&op, &caller, payload)
    });
    // The time of the last change, and with an ACL the mode.
    inode.data().changed_attributes();
    done.map_err(unsupported)?;
    Ok(())
}

/// Takes an extended attribute away.
pub(crate) fn remove(inode: &Inode<VirtioFs>, name: &CStr) -> Result {
    let op = Removexattr {
        node: inode.node_id()?,
        name: name.to_bytes(),
    };
    let done = inode.session()?.call(&op, &caller(inode.super_block()));
    inode.data().changed_attributes();
    done.map_err(unsupported)
}

/// What user space knows the lack of extended attributes as.
fn unsupported(e: Error) -> Error {
    if e == ENOSYS {
        EOPNOTSUPP
    } else {
        e
    }
}

/// listxattr(2).
pub(crate) fn list(inode: &Inode<VirtioFs>, names: &mut Buffer<'_>) -> Result {
    let op = Listxattr {
        node: inode.node_id()?,
        size: room(names),
    };
    if op.size == 0 {
        return names.push_size(ask_size(inode, &op)?);
    }
    let bytes = fetch(inode, &op, op.size)?;
    let list = XattrNames::new(&bytes).map_err(|e| {
        if let Ok(session) = inode.session() {
            session.complain(&op, e);
        }
        Error::from_errno(e.to_errno())
    })?;
    names.push(list.as_bytes())
}

/// Bytes that the caller has room for; 0 when it only wants to know the size.
fn room(buffer: &Buffer<'_>) -> u32 {
    let capacity = buffer.capacity().unwrap_or(0);
    u32::try_from(capacity).unwrap_or(u32::MAX).min(XATTR_MAX)
}

/// Sends `op`, which asks for a size alone.
fn ask_size<O: Operation<Reply = usize>>(inode: &Inode<VirtioFs>, op: &O) -> Result<usize> {
    inode
        .session()?
        .call(op, &caller(inode.super_block()))
        .map_err(unsupported)
}

/// Sends `op`, which asks for at most `size` bytes, and returns a copy of what came. Errors: `ENODATA`, `ERANGE`, `EOPNOTSUPP`.
pub(crate) fn fetch<O: Operation<Reply = usize>>(
    inode: &Inode<VirtioFs>,
    op: &O,
    size: u32,
) -> Result<KVVec<u8>> {
    let pages = PageBuffer::new(size as usize)?;
    let (len, transfer) = inode
        .session()?
        .call_into(op, &caller(inode.super_block()), pages)
        .map_err(unsupported)?;
    let Payload::Pages(pages) = transfer.payload() else {
        return Err(EIO);
    };
    let mut bytes = KVVec::from_elem(0, len, GFP_KERNEL)?;
    pages.read(0, &mut bytes)?;
    Ok(bytes)
}
