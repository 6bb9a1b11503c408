// SPDX-License-Identifier: GPL-2.0

//! Modification time of DAX files.
//!
//! The daemon does not learn of what write(2) copies into the window, or a mapping stores. The host's kernel does when it is the
//! first store to a page since that was written back, and only where its filesystem wants to know. So the daemon is asked to set
//! the time: a file that was stored to is *behind*, and catches up when somebody looks (stat(2)), at close(2) and fsync(2), and
//! whenever the kernel writes dirty inodes back. Mappings are made read-only by the last two, and by msync(2), so that the next
//! store is seen. It is the daemon's clock that counts, as with its WRITEs.
//!
//! C leaves it at what the host's kernel does: rsync(1), make(1) and other guests take a file for the same that is not.

use crate::{
    dax::times::{
        CatchingUp,
        Times, //
    },
    filesystem::VirtioFs,
    inode::NodeInode,
    session::epoch::Asked, //
};
use fuse_proto::{
    Caller,
    SetTime,
    Setattr, //
};
use kernel::prelude::*;
use vfs::Inode;

fn of(inode: &Inode<VirtioFs>) -> Option<&Times> {
    inode.data().mapped().map(|file| file.times())
}

/// Something was stored through the window. May sleep.
pub(crate) fn stored(inode: &Inode<VirtioFs>) {
    let Some(times) = of(inode) else {
        return;
    };
    // Mostly it is set already, and then the memory need not move to this CPU.
    if !times.is_behind() {
        times.falls_behind();
        inode.mark_times_dirty();
    }
}

/// Has the daemon set the time of modification, if it is behind: whether its attributes are known as of then. When it refuses, they
/// stay as they are. Sleeps; a fatal signal ends that, and leaves it to others.
pub(crate) fn catch_up(inode: &Inode<VirtioFs>) -> bool {
    let Some(times) = of(inode) else {
        return false;
    };
    while !times.is_right() {
        // Not for those who only wait, as its end wakes the others.
        if times.is_behind() {
            // First of all, for who wants to be the last to set it.
            let _catching_up = CatchingUp::new(times);
            if times.take() {
                let set = set_to_now(inode, false);
                if set == Err(EINTR) {
                    stored(inode);
                }
                return set.is_ok();
            }
        }
        // Another one sees to what was stored before this; should more be stored meanwhile, this one does.
        if times.wait().is_err() {
            break;
        }
    }
    false
}

/// As [`catch_up`], for the kernel's flusher: what would have to be waited for is left to those who do, or to the next time.
pub(crate) fn catch_up_briefly(inode: &Inode<VirtioFs>) {
    let Some(times) = of(inode) else {
        return;
    };
    if times.is_behind() {
        let _catching_up = CatchingUp::new(times);
        if times.take() && set_to_now(inode, true) == Err(EINTR) {
            stored(inode);
        }
    }
}

fn set_to_now(inode: &Inode<VirtioFs>, briefly: bool) -> Result {
    let mut op = Setattr::new(inode.known()?.node());
    let writer = inode.data().writers().borrow().ok();
    op.fh = writer.as_ref().map(|writer| writer.fh());
    op.mtime = Some(SetTime::Now);
    let asked = Asked::now();
    let session = inode.session()?;
    let reply = match briefly {
        true => session.call_briefly(&op, &Caller::default())?,
        false => session.call(&op, &Caller::default())?,
    };
    inode.update(&reply.attr, reply.ttl, asked)?;
    Ok(())
}

/// The time of modification is about to be set, whatever was stored before: whether it was behind. The inode is locked (`i_rwsem`).
/// Sleeps. Errors: `EINTR` for a fatal signal.
pub(crate) fn supersede(inode: &Inode<VirtioFs>) -> Result<bool> {
    let Some(times) = of(inode) else {
        return Ok(false);
    };
    let mut behind = times.take();
    // The daemon would be asked for both at the same time.
    while !times.wait().inspect_err(|_| {
        if behind {
            stored(inode);
        }
    })? {
        behind |= times.take();
    }
    Ok(behind)
}
