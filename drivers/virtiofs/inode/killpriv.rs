// SPDX-License-Identifier: GPL-2.0

//! Set-id bits and capabilities, which a file loses when its contents or its owner change.
//!
//! With HANDLE_KILLPRIV or HANDLE_KILLPRIV_V2 the daemon takes them away, in the same step as the change: nothing is asked
//! before a write. With the second, requests say whether set-id bits go; the first means that they always do. Otherwise the
//! VFS looks whether there is something to take away, which costs a GETXATTR for each write, and does it with SETATTR and
//! REMOVEXATTR. A daemon without extended attributes has no capabilities: then a file without set-id bits is not looked at.
//!
//! FALLOCATE and COPY_FILE_RANGE have no place to say it: there this kernel takes set-id bits away in any case. And of what is
//! copied into a DAX window the daemon does not learn at all: there the VFS takes away capabilities, too, for which it looks again
//! when attributes were asked for. (With HANDLE_KILLPRIV_V2, C leaves set-id bits there.)

use crate::{
    filesystem::VirtioFs,
    inode::NodeInode,
    session::Session, //
};
use fuse_proto::{
    InitFlags,
    Opcode,
    OpenFlags,
    WriteFlags, //
};
use kernel::prelude::*;
use kernel_ext::task::is_killed;
use vfs::{
    cred::keeps_setid,
    file::Kiocb,
    File,
    Inode, //
};

/// Permission bits that say on whose behalf a file is executed.
pub(crate) const SET_UID: u16 = 0o4000;
pub(crate) const SET_GID: u16 = 0o2000;

/// Whether the daemon takes them away when contents, size or owner change.
pub(crate) fn by_daemon(session: &Session) -> bool {
    by_request(session) || session.has(InitFlags::HANDLE_KILLPRIV)
}

/// Whether requests say if set-id bits go.
pub(crate) fn by_request(session: &Session) -> bool {
    session.has(InitFlags::HANDLE_KILLPRIV_V2)
}

/// Whether a request of the current task has to say that set-id bits go, as contents or size change.
pub(crate) fn is_due(session: &Session) -> bool {
    by_request(session) && !keeps_setid()
}

/// What an OPEN that truncates says.
pub(crate) fn open_flags(session: &Session) -> OpenFlags {
    if is_due(session) {
        OpenFlags::KILL_SUIDGID
    } else {
        OpenFlags::NONE
    }
}

/// What a WRITE by the current task says.
pub(crate) fn write_flags(session: &Session) -> WriteFlags {
    if is_due(session) {
        WriteFlags::KILL_SUIDGID
    } else {
        WriteFlags::NONE
    }
}

fn has_setid(inode: &Inode<VirtioFs>) -> bool {
    inode.mode() & (SET_UID | SET_GID) != 0
}

/// The daemon has changed contents or size, and maybe the mode with them. Callable from any context.
pub(crate) fn mode_may_have_changed(inode: &Inode<VirtioFs>) {
    if has_setid(inode) {
        inode.data().changed_attributes();
    }
}

/// Whether a file has nothing to take away: no set-id bits, and no capabilities, as those are extended attributes.
fn has_nothing(inode: &Inode<VirtioFs>, session: &Session) -> bool {
    !has_setid(inode) && session.lacks(Opcode::Getxattr)
}

/// Contents are about to be written. The inode is locked. Sleeps, unless `iocb` says not to.
pub(crate) fn before_write(iocb: &mut Kiocb<'_, VirtioFs>) -> Result {
    let inode = iocb.file().inode();
    let session = inode.session()?;
    if !iocb.is_nowait() && has_nothing(inode, session) {
        return iocb.file().update_time();
    }
    // What is written back later says nothing of who wrote it.
    if session.has(InitFlags::WRITEBACK_CACHE) && has_setid(inode) && by_daemon(session) {
        inode.check_security();
    }
    iocb.modified()
}

/// Contents are about to be changed by a request that can't say that set-id bits go. The inode is locked. Sleeps.
pub(crate) fn before_change(file: &File<VirtioFs>) -> Result {
    let inode = file.inode();
    if has_setid(inode) && by_daemon(inode.session()?) {
        inode.check_security();
    }
    file.modified()
}

/// Contents of a file that is shown by the window are about to be written. The inode is locked. Sleeps. Errors: `EINTR` for a fatal
/// signal.
pub(crate) fn before_copy(file: &File<VirtioFs>) -> Result {
    let inode = file.inode();
    let session = inode.session()?;
    if has_nothing(inode, session) {
        return file.update_time();
    }
    if by_daemon(session) && (inode.data().may_have_capabilities() || has_setid(inode)) {
        inode.check_security();
    }
    file.modified()?;
    if is_killed() {
        // The VFS takes it for a file without capabilities when there was no answer.
        inode.check_security();
        return Err(EINTR);
    }
    Ok(())
}
