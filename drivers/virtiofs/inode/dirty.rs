// SPDX-License-Identifier: GPL-2.0

//! Dirty state of an inode: size, times and contents that are newer here than at the daemon.

use crate::filesystem::VirtioFs;
use fuse_proto::InitFlags;
use vfs::{
    attr::FileType,
    Inode, //
};

/// Whether writes to an inode are kept here first, and its times with them.
pub(crate) fn keeps(inode: &Inode<VirtioFs>) -> bool {
    inode.file_type() == FileType::Regular
        && !inode.is_dax()
        && inode
            .super_block()
            .data()
            .session()
            .is_ok_and(|session| session.has(InitFlags::WRITEBACK_CACHE))
}

/// Whether size and times are newer here than what the daemon knows. Callable from any context.
pub(crate) fn is_ahead(inode: &Inode<VirtioFs>) -> bool {
    keeps(inode) && (has_times(inode) || inode.has_dirty_pages())
}

/// Whether times are to be sent, or on their way.
fn has_times(inode: &Inode<VirtioFs>) -> bool {
    // Who sends them says so before they count as sent.
    inode.has_dirty_times() || inode.data().writers().sends_times()
}

/// Whether nothing of an inode is to be written, nor on its way. Callable from any context.
pub(crate) fn is_clean(inode: &Inode<VirtioFs>) -> bool {
    let keeps_times = keeps(inode) || inode.is_dax();
    !(inode.has_dirty_pages() || keeps_times && has_times(inode))
}
