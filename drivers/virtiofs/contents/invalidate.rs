// SPDX-License-Identifier: GPL-2.0

//! Page cache invalidation and size after a truncation, and after direct I/O.

use crate::filesystem::VirtioFs;
use kernel::prelude::*;
use vfs::Inode;

/// How often pages are dropped at most that mappings dirty all the while.
const DROP_TRIES: usize = 4;

/// A read has ended at `end` for want of bytes: if the file should have more there, it is shorter than it was. Callable from any
/// context.
pub(crate) fn ended_short(inode: &Inode<VirtioFs>, end: i64) {
    if end < inode.size() {
        inode.data().freshness().expire();
    }
}

/// Drops what is cached of a range, after it was written back.
///
/// Meanwhile mappings may store to it again. What they do all the time stays, and with it the page as they had it: it is written
/// back later, over what a direct write beside it has written. open(2) tells programs not to mix the two.
pub(crate) fn drop_cached(inode: &Inode<VirtioFs>, pos: i64, len: usize) -> Result {
    let Some(last) = (len as u64).checked_sub(1) else {
        return Ok(());
    };
    if !inode.has_pages() || inode.is_dax() {
        return Ok(());
    }
    let end = pos.saturating_add_unsigned(last);
    for _ in 0..DROP_TRIES {
        inode.write_and_wait_range(pos, end)?;
        inode.wait_for_pages(pos, end)?;
        // A page that is being read stays, and is read anew when it is read next.
        if inode.invalidate_range(pos, end) != Err(EBUSY) {
            break;
        }
    }
    Ok(())
}

/// The file has another size: inode and page cache follow. Attributes that were asked for before do not undo it.
///
/// To be called with `i_rwsem` and `invalidate_lock` held, after pages were [waited for](Inode::wait_for_pages). Sleeps.
pub(crate) fn resize(inode: &Inode<VirtioFs>, size: i64) {
    let old = inode.size();
    if size > old && inode.has_pages() && !inode.is_dax() {
        inode.truncate_pagecache(old);
    }
    inode.lock().attrs().set_size(size);
    inode.data().changed();
    if size < old {
        inode.truncate_pagecache(size);
    }
}
