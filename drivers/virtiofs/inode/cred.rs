// SPDX-License-Identifier: GPL-2.0

//! Credentials of a request: the user, group and process that the daemon is told.

use crate::filesystem::VirtioFs;
use fuse_proto::{
    Caller,
    InitFlags, //
};
use kernel::prelude::*;
use vfs::{
    cred::Idmap,
    SuperBlock, //
};

/// Who is calling, as the daemon is told it.
///
/// Where mounts can map ids, ids are told of those only who make something: see [`creator`].
pub(crate) fn caller(sb: &SuperBlock<VirtioFs>) -> Caller {
    let caller = vfs::cred::Caller::current(sb, None);
    let idmap = sb
        .data()
        .session()
        .is_ok_and(|session| session.has(InitFlags::ALLOW_IDMAP));
    let told = |id| if idmap { Caller::UNMAPPED } else { id };
    Caller {
        uid: told(caller.uid),
        gid: told(caller.gid),
        pid: caller.pid,
    }
}

/// Who is calling to make something, and so becomes its owner. Errors: `EOVERFLOW` when the daemon has no such user or group.
pub(crate) fn creator(sb: &SuperBlock<VirtioFs>, idmap: &Idmap) -> Result<Caller> {
    let caller = vfs::cred::Caller::creating(sb, idmap, None);
    if caller.uid == Caller::UNMAPPED || caller.gid == Caller::UNMAPPED {
        return Err(EOVERFLOW);
    }
    Ok(Caller {
        uid: caller.uid,
        gid: caller.gid,
        pid: caller.pid,
    })
}
