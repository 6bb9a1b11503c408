// SPDX-License-Identifier: GPL-2.0

//! stat(2), and permission checks.

use crate::{
    contents::dax_times,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        dirty,
        time::timespec,
        walks,
        NodeInode,
        Taken, //
    },
    session::epoch::Asked, //
};
use fuse_proto::{
    Attr,
    Opcode,
    Statx, //
};
use kernel::prelude::*;
use vfs::{
    attr::{
        Stat,
        StatSync, //
    },
    cred::Idmap,
    inode::{
        AccessMask,
        RcuInode, //
    },
    Inode, //
};

/// Whether an access is permitted: by mode and owner, which the daemon is asked for again if they are not good any more, or refuse
/// it. The daemon is not asked to decide (`ACCESS`): like every user of virtiofs, the C driver first of all, this one decides
/// itself (`default_permissions`).
pub(crate) fn permission(inode: &Inode<VirtioFs>, idmap: &Idmap, mask: AccessMask) -> Result {
    let ask = || -> Result {
        let asked = Asked::now();
        inode.refresh(None)?;
        if mask.open() {
            inode.data().walks_to_open(Some(asked));
        }
        Ok(())
    };
    let known = inode.data().freshness().is_access_fresh();
    if !known {
        ask()?;
    }
    let mut done = inode.generic_permission(idmap, mask);
    if done == Err(EACCES) && known {
        // It may have been granted on the host since.
        ask()?;
        done = inode.generic_permission(idmap, mask);
    }
    if done == Err(EACCES) && mask.open() && inode.nlink() == 0 && !walks::is_repeated_open() {
        // Of a file that has lost its name, maybe to one that may be opened: the VFS looks it up.
        walks::repeats_open();
        return Err(ESTALE);
    }
    done
}

/// As [`permission`], during an RCU path walk: only with attributes that are good, and permit it. Does not sleep.
pub(crate) fn permission_rcu(
    inode: RcuInode<'_, VirtioFs>,
    idmap: &Idmap,
    mask: AccessMask,
) -> Result {
    if !inode.data().freshness().is_access_fresh() {
        return Err(ECHILD);
    }
    match inode.generic_permission(idmap, mask) {
        Err(e) if e == EACCES => Err(ECHILD),
        done => done,
    }
}

/// stat(2) and statx(2).
pub(crate) fn getattr(inode: &Inode<VirtioFs>, stat: &mut Stat<'_>, sync: StatSync) -> Result {
    let session = inode.session()?;
    let caught_up = inode.is_dax() && sync != StatSync::DontSync && dax_times::catch_up(inode);
    if stat.request().birth_time() && sync != StatSync::DontSync && !session.lacks(Opcode::Statx) {
        match statx(inode, stat) {
            Err(e) if e == ENOSYS => {}
            done => return done,
        }
    }
    let asks = match sync {
        _ if caught_up => false,
        StatSync::Force => true,
        StatSync::Default => {
            !inode.is_fresh() || stat.request().access_time() && inode.data().was_read()
        }
        StatSync::DontSync => false,
    };
    let told = if asks { inode.ask(None)? } else { None };
    fill(inode, stat, told.as_ref());
    Ok(())
}

/// Fills in what is known of an inode. What the daemon has `told` just now, and was not to be kept, is the answer all the same:
/// else a file that is written, or a directory whose names change, all the time would show its old times all the time.
fn fill(inode: &Inode<VirtioFs>, stat: &mut Stat<'_>, told: Option<&Attr>) {
    stat.fill(inode);
    if let Some(blksize) = inode.data().blksize() {
        stat.set_blksize(blksize);
    }
    // Where writes are kept here, this kernel knows better.
    if let Some(attr) = told.filter(|_| !dirty::keeps(inode)) {
        stat.set_permissions(attr.permissions);
        stat.set_owner(inode.super_block(), attr.uid, attr.gid);
        stat.set_nlink(attr.nlink);
        stat.set_size(i64::try_from(attr.size).unwrap_or(i64::MAX));
        stat.set_blocks(attr.blocks);
        stat.set_times(
            timespec(attr.atime),
            timespec(attr.mtime),
            timespec(attr.ctime),
        );
    }
    if dirty::keeps(inode) && inode.has_dirty_pages() {
        // What is not written yet has no blocks yet. That must not look like a hole to who copies files.
        let all = (inode.size().unsigned_abs()).div_ceil(512);
        stat.set_blocks(stat.blocks().max(all));
    }
}

/// Attributes with the birth time, which is not cached.
fn statx(inode: &Inode<VirtioFs>, stat: &mut Stat<'_>) -> Result {
    let op = Statx {
        node: inode.node_id()?,
        fh: None,
        flags: 0,
        mask: Statx::BASIC | Statx::BTIME,
    };
    let asked = Asked::now();
    let reply = inode.session()?.call(&op, &caller(inode.super_block()))?;
    let told = match &reply.attr {
        Some(attr) => match inode.update(attr, reply.ttl, asked)? {
            Taken::Over => None,
            Taken::Overtaken => Some(*attr),
        },
        None if inode.is_fresh() => None,
        None => inode.ask(None)?,
    };
    fill(inode, stat, told.as_ref());
    if let Some(time) = reply.btime {
        stat.set_birth_time(timespec(time));
    }
    stat.add_attributes(reply.attributes, reply.attributes_mask);
    Ok(())
}
