// SPDX-License-Identifier: GPL-2.0

//! Checks before a write, and the size after it: common to buffered, direct, DAX and cached writes.

use crate::{
    filesystem::VirtioFs,
    inode::{
        dirty,
        killpriv,
        NodeInode, //
    },
};
use kernel::{
    iov::IovIterSource,
    prelude::*, //
};
use vfs::{
    file::Kiocb,
    Inode, //
};

/// What comes before a write: where it goes, and how many bytes it may have. The inode is locked.
pub(crate) fn begin(iocb: &mut Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    let inode = iocb.file().inode();
    if !dirty::is_ahead(inode) {
        let fh = Some(iocb.data().fh());
        if iocb.is_append() {
            // Others may have made it longer.
            inode.refresh(fh)?;
        } else if dirty::keeps(inode) {
            // What is beyond the end need not be read first.
            inode.refresh_if_expired(fh)?;
        }
    }
    let len = iocb.write_checks(from)?;
    if len > 0 {
        clear_tail(inode, iocb.pos())?;
        if inode.is_dax() {
            killpriv::before_copy(iocb.file())?;
        } else {
            killpriv::before_write(iocb)?;
        }
    }
    Ok(len)
}

/// The file has bytes up to `end` at least. Attributes that were asked for before do not undo it.
pub(crate) fn lengthen(inode: &Inode<VirtioFs>, end: i64) {
    let freshness = inode.data().freshness();
    if end <= inode.size() {
        freshness.changed();
        return;
    }
    // Both at once, for who takes over a size.
    let mut locked = inode.lock();
    if end > inode.size() {
        locked.attrs().set_size(end);
    }
    freshness.changed();
}

/// As [`lengthen`], when the daemon has done it: its other attributes have changed.
pub(crate) fn grow(inode: &Inode<VirtioFs>, end: i64) {
    lengthen(inode, end);
    inode.data().freshness().expire();
}

/// To be called before a file gets bytes behind `pos`: up to there are to be zeroes, and a mapping may have stored something else
/// behind the file's end.
///
/// To be called with `i_rwsem` held. Sleeps; a fatal signal ends that with `EINTR`.
pub(crate) fn clear_tail(inode: &Inode<VirtioFs>, pos: i64) -> Result {
    let end = inode.size();
    // What the window shows behind the end is the host's to clear.
    if pos > end && inode.has_pages() && !inode.is_dax() {
        inode.wait_for_pages(end, i64::MAX)?;
        inode.truncate_pagecache(end);
    }
    Ok(())
}
