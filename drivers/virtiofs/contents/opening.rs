// SPDX-License-Identifier: GPL-2.0

//! open(2): the OPEN request, and the attributes that are asked for beside it.
//!
//! The name that has led to a file may be good still though the host has replaced the file since, and so may be attributes from
//! before that. OPEN tells of neither. So it has a GETATTR beside it, both in one round trip, unless
//!
//! - the path walk of the same call has asked for the attributes already, or
//! - the daemon says that what is cached is good (`FOPEN_KEEP_CACHE`). That comes with the reply to OPEN: what it said the last
//!   time is taken to be true still, and if it is not, or nothing is known yet, GETATTR follows.
//!
//! A file that has no link any more has lost its name, and the VFS looks the name up once more.

use crate::{
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        walks::{
            self,
            Before, //
        },
        NodeInode, //
    },
    session::{
        epoch::Asked,
        Session, //
    },
};
use fuse_proto::{
    Getattr,
    InitFlags,
    Open,
    OpenReply,
    OpenReplyFlags,
    Operation, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use vfs::{
    file::NewFile,
    Inode, //
};

/// Whether the reply to OPEN is expected to say `FOPEN_KEEP_CACHE`: by the last reply for this file, or else for any file. [`None`]
/// before the first OPEN.
pub(crate) fn expected_to_keep(inode: &Inode<VirtioFs>) -> Option<bool> {
    let volume = inode.super_block().data().volume().ok()?;
    let of_inode = inode.data().keep_cache().get();
    of_inode.or_else(|| volume.keep_cache().get())
}

/// The daemon has opened a file like this.
pub(crate) fn has_opened(inode: &Inode<VirtioFs>, flags: OpenReplyFlags) {
    let keeps = flags.contains(OpenReplyFlags::KEEP_CACHE);
    inode.data().keep_cache().set(keeps);
    if let Ok(volume) = inode.super_block().data().volume() {
        volume.keep_cache().set(keeps);
    }
}

/// Whether files or directories need not be opened at a daemon that does not know how to.
pub(crate) fn can_do_without(session: &Session, dir: bool) -> bool {
    session.has(if dir {
        InitFlags::NO_OPENDIR_SUPPORT
    } else {
        InitFlags::NO_OPEN_SUPPORT
    })
}

/// Opens an inode; nothing when the daemon does without. Sleeps.
pub(crate) fn call_open(
    session: &Arc<Session>,
    inode: &Inode<VirtioFs>,
    op: &Open,
) -> Result<Option<OpenReply>> {
    if_needed(session, op, session.call(op, &caller(inode.super_block())))
}

/// As [`call_open`]; in the same round trip the daemon is asked for the attributes, which the inode has afterwards. If that fails,
/// they are asked for when they are used.
pub(crate) fn call_open_and_ask(
    session: &Arc<Session>,
    inode: &Inode<VirtioFs>,
    op: &Open,
) -> Result<Option<OpenReply>> {
    // The attributes have come with the first attempt, also where the daemon had no descriptor left for OPEN.
    let mut asks = true;
    let opened = session.with_room(|| match core::mem::take(&mut asks) {
        true => open_and_ask(session, inode, op),
        false => session.call_now(op, &caller(inode.super_block())),
    });
    if_needed(session, op, opened)
}

fn if_needed(session: &Session, op: &Open, opened: Result<OpenReply>) -> Result<Option<OpenReply>> {
    match opened {
        Ok(reply) => Ok(Some(reply)),
        Err(e) if e == ENOSYS && can_do_without(session, op.dir) => Ok(None),
        Err(e) => Err(e),
    }
}

fn open_and_ask(session: &Arc<Session>, inode: &Inode<VirtioFs>, op: &Open) -> Result<OpenReply> {
    let ask = Getattr {
        node: op.node,
        fh: None,
    };
    session.attempt(op.opcode(), || {
        let asked = Asked::now();
        let [told, opened] = session.instance().begin_both(
            session.connection(),
            (&ask, op),
            &caller(inode.super_block()),
        )?;
        // The last one first: with most daemons both are there then.
        let opened = opened.and_then(|sent| sent.wait(op, || session.undo(op)));
        if let Ok(told) = told.and_then(|sent| sent.wait(&ask, || session.undo(&ask))) {
            let _ = inode.update(&told.attr, told.ttl, asked);
        }
        opened
    })
}

/// Whether the host has removed what is opened by a name that is known here: it is looked up once more. If that leads to the same
/// inode nevertheless, it is opened: some daemons count no links. Does not sleep.
pub(crate) fn has_lost_name(inode: &Inode<VirtioFs>, file: &NewFile<VirtioFs>) -> bool {
    inode.nlink() == 0 && file.dentry().is_hashed()
}

/// Whether a directory that a symbolic link has just led to is one that the host has removed, and maybe replaced. What it is asked
/// now would be answered with `ENOENT`. Sleeps.
pub(crate) fn is_removed(inode: &Inode<VirtioFs>) -> bool {
    match walks::before(b"") {
        Before::Nowhere => false,
        _ => inode.refresh(None).is_ok() && inode.nlink() == 0,
    }
}
