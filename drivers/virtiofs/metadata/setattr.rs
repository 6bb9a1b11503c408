// SPDX-License-Identifier: GPL-2.0

//! chmod(2), chown(2), utimensat(2) and truncate(2).
//!
//! The VFS holds the inode's `i_rwsem`. What the daemon answers is what is true afterwards, also where it did something else
//! than it was asked to.

use crate::{
    contents::{
        dax_times,
        invalidate::resize,
        writeback, //
    },
    dax::{
        copies::outdate_locked,
        layout::break_layouts, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        dirty,
        killpriv::{
            self,
            SET_GID,
            SET_UID, //
        },
        set_attributes,
        set_size_and_times,
        time::{
            timespec,
            wire_time, //
        },
        NodeInode, //
    },
    session::{
        epoch::Asked,
        Session, //
    },
};
use fuse_proto::{
    Attr,
    SetTime,
    Setattr,
    Ttl, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use vfs::{
    attr::{
        NewAttributes,
        NewTime, //
    },
    Inode, //
};

/// chmod(2), chown(2), truncate(2), utimensat(2) and what else changes attributes.
pub(crate) fn setattr(inode: &Inode<VirtioFs>, attrs: &mut NewAttributes<'_, VirtioFs>) -> Result {
    attrs.prepare()?;
    // The OPEN before this may have done it, and what was written since then stays.
    let opened = attrs.file().is_some_and(|file| file.data().truncated());
    let truncated = attrs.is_open() && opened;
    let session = inode.session()?;
    let Some(op) = request(inode, attrs, session, truncated)? else {
        return Ok(());
    };
    let sets_times = op.mtime.is_some() || op.size.is_some();
    let was_behind = sets_times && dax_times::supersede(inode)?;
    change(inode, session, &op).inspect_err(|_| {
        if was_behind {
            dax_times::stored(inode);
        }
    })
}

/// Sends `op`, and takes over what has become of it. Sleeps.
fn change(inode: &Inode<VirtioFs>, session: &Arc<Session>, op: &Setattr) -> Result {
    if op.size.is_some() {
        return truncate(inode, session, op);
    }
    if is_changed_by_writes(op) && !inode.is_dax() && inode.has_dirty_pages() || dirty::keeps(inode)
    {
        // Afterwards it would undo this. Errors stay with the file.
        let _ = writeback::write_all(inode);
    }
    let asked = Asked::now();
    let reply = session
        .call(op, &caller(inode.super_block()))
        .inspect_err(|_| inode.data().changed_attributes())?;
    take_over(inode, &reply.attr, reply.ttl, asked, op.mtime.is_some())
}

/// Whether what is written to the file later would undo the change: it sets the time of modification, and takes set-id bits away.
///
/// The C driver leaves what mappings have stored for later all the same, so that a time set after a store does not stay.
fn is_changed_by_writes(op: &Setattr) -> bool {
    let set_id = u32::from(SET_UID | SET_GID);
    op.mtime.is_some() || op.mode.is_some_and(|mode| mode & set_id != 0)
}

/// Sends `op`, which gives the file another size. Inode and page cache follow. Sleeps.
///
/// When the file is cut, its size here is first: no folio beyond the new end may be written back afterwards, which would make
/// the file longer again. For the same reason none may be brought in or dirtied meanwhile: `invalidate_lock` is held across the
/// request. What is cached is cut when the daemon has done it: it may refuse.
fn truncate(inode: &Inode<VirtioFs>, session: &Arc<Session>, op: &Setattr) -> Result {
    let size = i64::try_from(op.size.ok_or(EINVAL)?)?;
    let mut filling = inode.lock_invalidate_killable()?;
    break_layouts(inode, &mut filling, 0, i64::MAX)?;
    outdate_locked(inode, &filling, 0, i64::MAX);
    // Should the request fail, nothing is lost. Errors stay with the file.
    let _ = writeback::write_all(inode);
    inode.wait_for_pages(0, i64::MAX)?;
    let old = inode.size();
    if size < old {
        inode.lock().attrs().set_size(size);
        inode.data().changed();
    }
    match session.call(op, &caller(inode.super_block())) {
        Ok(reply) => {
            if size < old {
                inode.truncate_pagecache(size);
            }
            resize(inode, i64::try_from(reply.attr.size)?);
            drop(filling);
            // The reply is newer than what was changed here.
            take_over(inode, &reply.attr, reply.ttl, Asked::now(), true)
        }
        Err(e) => {
            inode.lock().attrs().set_size(old);
            inode.data().changed_attributes();
            Err(e)
        }
    }
}

/// What to ask the daemon for; nothing if nothing changes. A file that has been `truncated` already may still have to lose
/// set-id bits.
fn request(
    inode: &Inode<VirtioFs>,
    attrs: &NewAttributes<'_, VirtioFs>,
    session: &Session,
    truncated: bool,
) -> Result<Option<Setattr>> {
    let mut op = Setattr::new(inode.node_id()?);
    op.uid = attrs.uid();
    op.gid = attrs.gid();
    op.size = attrs.size().map(u64::try_from).transpose()?;
    // Truncated or not: then the OPEN said it.
    let by_daemon =
        killpriv::by_daemon(session) && (op.size.is_some() || op.uid.is_some() || op.gid.is_some());
    op.mode = permissions(inode, attrs, by_daemon)?
        .map(|permissions| u32::from(permissions | inode.file_type().mode()));
    op.atime = attrs.atime().map(set_time);
    op.mtime = attrs.mtime().and_then(|mtime| match mtime {
        // A truncation sets it anyway.
        NewTime::Now(_) if op.size.is_some() && (attrs.is_open() || attrs.file().is_some()) => None,
        mtime => Some(set_time(mtime)),
    });
    if dirty::keeps(inode) {
        // This kernel keeps them.
        op.mtime = attrs.mtime().map(|mtime| match mtime {
            NewTime::Now(time) | NewTime::To(time) => SetTime::To(wire_time(time)),
        });
        op.ctime = attrs.ctime().map(wire_time);
    }
    if truncated {
        op.size = None;
        op.mtime = None;
        op.ctime = None;
    }
    let changes = op.uid.is_some()
        || op.gid.is_some()
        || op.size.is_some()
        || op.mode.is_some()
        || op.atime.is_some()
        || op.mtime.is_some()
        || op.ctime.is_some();
    if !changes {
        return Ok(None);
    }
    if !attrs.is_open() {
        op.fh = attrs.file().map(|file| file.data().fh());
    }
    if op.size.is_some() {
        op.lock_owner = Some(session.own_locks());
    }
    let owner = (op.uid.is_some() || op.gid.is_some()) && !inode.is_dir();
    op.kill_suidgid = (owner && killpriv::by_request(session))
        || (op.size.is_some() && killpriv::is_due(session));
    Ok(Some(op))
}

/// The permissions to set. Set-id bits that go because of another change are not among them if the daemon takes these away;
/// otherwise the mode that they are taken from must not be an old one.
fn permissions(
    inode: &Inode<VirtioFs>,
    attrs: &NewAttributes<'_, VirtioFs>,
    by_daemon: bool,
) -> Result<Option<u16>> {
    if !attrs.kills_suid() && !attrs.kills_sgid() {
        return Ok(attrs.permissions());
    }
    if by_daemon {
        return Ok(None);
    }
    inode.refresh_if_expired(None)?;
    let old = inode.mode() & 0o7777;
    let mut new = old;
    if attrs.kills_suid() {
        new &= !SET_UID;
    }
    if attrs.kills_sgid() {
        new &= !SET_GID;
    }
    Ok((new != old).then_some(new))
}

fn set_time(time: NewTime) -> SetTime {
    match time {
        NewTime::Now(_) => SetTime::Now,
        NewTime::To(time) => SetTime::To(wire_time(time)),
    }
}

/// Takes over attributes that the daemon sent with a change that was `asked` for. Unlike those that come without one, other times
/// do not mean that somebody else wrote to the file.
///
/// `sets_mtime`: the time of modification is part of the change. Else it stays what it is here as long as something is dirty, of
/// which the daemon does not know yet.
pub(crate) fn take_over(
    inode: &Inode<VirtioFs>,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
    sets_mtime: bool,
) -> Result {
    if u32::from(inode.file_type().mode()) != attr.kind.mode() {
        inode.mark_stale();
        return Err(ESTALE);
    }
    let size = i64::try_from(attr.size)?;
    if attr.kind == fuse_proto::FileType::Regular && size != inode.size() {
        // Somebody else did.
        inode.update(attr, ttl, asked)?;
        if inode.data().knows_later(asked) {
            // That may be from before the change.
            inode.data().changed_attributes();
        }
        return Ok(());
    }
    let mut locked = inode.lock();
    // What others asked for before the change must not undo it.
    inode.data().changed_attributes();
    let mut attrs = locked.attrs();
    set_attributes(&mut attrs, attr);
    inode.data().answered(asked);
    if inode.data().is_overtaken(asked) {
        return Ok(());
    }
    if sets_mtime || !dirty::is_ahead(inode) {
        set_size_and_times(&mut attrs, attr);
        inode.data().freshness().size_known(asked);
    } else {
        attrs.set_blocks(attr.blocks);
        attrs.set_ctime(inode.ctime().max(timespec(attr.ctime)));
    }
    inode.data().renew(ttl);
    drop(locked);
    Ok(())
}
