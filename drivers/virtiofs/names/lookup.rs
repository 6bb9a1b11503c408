// SPDX-License-Identifier: GPL-2.0

//! LOOKUP, and the validity of dentries.
//!
//! Each dentry keeps a number: until when it is good, a [`Deadline`]. What the daemon grants a name is used in full: within it no
//! request is made, also not for names that do not exist.

use crate::{
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        iget,
        walks::{
            self,
            Before, //
        },
        NodeInode, //
    },
    session::{
        epoch::{
            is_doubted,
            Asked, //
        },
        forget::Known,
        freshness::Deadline, //
    },
};
use fuse_proto::{
    Entry,
    LookupReply,
    Ttl, //
    NAME_MAX,
};
use kernel::prelude::*;
use vfs::{
    dentry::LookupDentry,
    Dentry,
    Inode,
    InodeRef, //
};

/// Looks the name of `dentry` up in `dir`. The dentry learns for how long it is good. `opens`: it is about to be opened.
pub(crate) fn find(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    opens: bool,
) -> Result<Option<InodeRef<VirtioFs>>> {
    let asked = Asked::now();
    match lookup(dir, dentry.name())? {
        LookupReply::Found(entry) => {
            let inode = instantiate(dir, &entry, asked)?;
            grant(dentry, entry.entry_ttl, asked);
            dir.data().names_wanted();
            if opens {
                inode.data().walks_to_open(Some(asked));
            }
            Ok(Some(inode))
        }
        LookupReply::Negative(ttl) => {
            grant(dentry, ttl, asked);
            Ok(None)
        }
    }
}

/// Whether `name` may be missing in `dir` only because the walk came there by what the host has replaced since, see [`walks`].
///
/// Sleeps: right after a symbolic link the daemon is asked whether `dir` is still there. Otherwise, one LOOKUP is all that a
/// missing name costs.
pub(crate) fn is_doubtful(dir: &Inode<VirtioFs>, name: &[u8]) -> bool {
    if dir.nlink() == 0 {
        return true;
    }
    match walks::before(name) {
        Before::Nowhere => false,
        Before::LinkToName => true,
        Before::Link => match dir.refresh(None) {
            Ok(()) => dir.nlink() == 0,
            Err(e) => e == ENOENT || e == ESTALE,
        },
    }
}

/// The name is good for `ttl`, unless it has come into doubt since it was `asked` for. Without any it is looked up before each use,
/// so that to keep it while nobody uses it is of no use, and would keep an inode of the daemon with it.
pub(crate) fn grant(dentry: &Dentry<VirtioFs>, ttl: Ttl, asked: Asked) {
    let until = match Deadline::of(ttl) {
        _ if is_doubted(asked) => Deadline::NEVER,
        until => until,
    };
    dentry.set_time(until.word());
    dentry.set_delete(until == Deadline::NEVER);
}

/// A file or directory that was opened by this name is closed. If the name is good no more, it goes with its last user, and the
/// inode's place at the daemon, too: that may keep what the host has removed. (A name that is looked up is good afterwards, so that
/// only who has held one for longer comes here. C keeps it until memory is short.)
pub(crate) fn closed(dentry: &Dentry<VirtioFs>) {
    if !Deadline::from_word(dentry.time()).is_ahead() {
        dentry.set_delete(true);
    }
}

/// Asks the daemon what `name` in `dir` is. `ENOENT` is an answer: nothing, not to be remembered.
pub(crate) fn lookup(dir: &Inode<VirtioFs>, name: &[u8]) -> Result<LookupReply> {
    if name.len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    let op = fuse_proto::Lookup {
        parent: dir.node_id()?,
        name,
    };
    match dir.session()?.call(&op, &caller(dir.super_block())) {
        Err(e) if e == ENOENT => Ok(LookupReply::Negative(Default::default())),
        reply => reply,
    }
}

/// The inode of an entry that the daemon has just counted a lookup for.
pub(crate) fn instantiate(
    dir: &Inode<VirtioFs>,
    entry: &Entry,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    let sb = dir.super_block();
    let known = Known::counted(entry.node);
    sb.data().volume()?.keep_bound();
    iget::get(
        sb,
        known,
        entry.generation,
        &entry.attr,
        entry.attr_ttl,
        asked,
    )
}
