// SPDX-License-Identifier: GPL-2.0

//! Access control lists.
//!
//! On the wire they are extended attributes. With POSIX_ACL agreed on, they decide about access here, as mode and owner do, and
//! are cached by the VFS for as long as the attributes are good. The daemon keeps ACL and mode in line, and gives what is made in
//! a directory what it inherits.
//!
//! Without POSIX_ACL they pass between user space and the daemon, whose business they are: nothing is cached, and they decide
//! about nothing here.

use crate::{
    filesystem::VirtioFs,
    inode::NodeInode,
    metadata::xattr, //
};
use fuse_proto::{
    Getxattr,
    InitFlags,
    PosixAcl,
    XATTR_MAX, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};
use vfs::{
    acl::{
        Acl,
        AclType, //
    },
    cred::Idmap,
    xattr::SetMode,
    Inode, //
};

/// Room in bytes for ACLs of about 500 entries. What is larger takes another request.
const USUAL_SIZE: u32 = PAGE_SIZE as u32;

/// Reads an ACL. Errors: `EIO` for a value that is none, `E2BIG`, and as for every extended attribute.
pub(crate) fn get(inode: &Inode<VirtioFs>, kind: AclType) -> Result<Option<Acl>> {
    let mut op = Getxattr {
        node: inode.node_id()?,
        name: kind.xattr_name().to_bytes(),
        size: USUAL_SIZE,
    };
    let mut value = xattr::fetch(inode, &op, op.size);
    if value.as_ref().is_err_and(|e| *e == ERANGE) {
        op.size = XATTR_MAX;
        value = xattr::fetch(inode, &op, op.size);
    }
    let value = match value {
        Ok(value) => value,
        Err(e) if e == ENODATA => return Ok(None),
        // Larger than there can be.
        Err(e) if e == ERANGE => return Err(E2BIG),
        Err(e) => return Err(e),
    };
    if value.is_empty() {
        return Ok(None);
    }
    let checked = PosixAcl::new(&value).map_err(|e| {
        if let Ok(session) = inode.session() {
            session.complain(&op, e);
        }
        Error::from_errno(e.to_errno())
    })?;
    Acl::from_xattr(inode.super_block(), checked.as_bytes())
}

/// Stores an ACL, or takes it away. The mode that comes of it is the daemon's business; it is asked for when it is needed.
pub(crate) fn set(
    idmap: &Idmap,
    inode: &Inode<VirtioFs>,
    kind: AclType,
    acl: Option<&Acl>,
) -> Result {
    let name = kind.xattr_name();
    let done = match acl {
        None => xattr::remove(inode, name),
        Some(acl) => {
            let value = acl.to_xattr(inode.super_block())?;
            // Daemons that leave access to this kernel also leave it to it to know who is in the group.
            let kill_sgid =
                inode.session()?.has(InitFlags::POSIX_ACL) && !inode.keeps_setgid(idmap);
            xattr::set(inode, name, &value, SetMode::Any, kill_sgid)
        }
    };
    // Also if nobody knows.
    inode.lock().attrs().forget_acls();
    done
}
