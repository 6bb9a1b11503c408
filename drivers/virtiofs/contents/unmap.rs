// SPDX-License-Identifier: GPL-2.0

//! Write-back when a shared mapping ends.
//!
//! Stores through the mapping are on the host when munmap(2) has returned, also while the file stays open elsewhere, as with C. The
//! C client writes all of the file, this one the part that was mapped.

use crate::{
    filesystem::VirtioFs,
    gate::Held,
    inode::NodeInode,
    session::errand::leave_to_work, //
};
use kernel_ext::task::{
    is_exiting,
    is_kernel_thread,
    is_killed, //
};
use vfs::File;

/// What is done when shared mappings end.
pub(crate) struct Unmapped;

impl vfs::unmap::Operations for Unmapped {
    type FileSystem = VirtioFs;

    fn unmapped(file: &File<VirtioFs>, start: i64, last: i64) {
        let inode = file.inode();
        if !inode.has_dirty_pages() {
            return;
        }
        if !is_killed() && !is_exiting() && !is_kernel_thread() {
            // Errors stay with the file. What a signal interrupts is written later.
            let _ = inode.write_out(start, last);
            return;
        }
        write_later(file, start, last);
    }
}

/// Has a work item write from byte `start` to byte `last`. An unmount waits for that, and so does a task that exits, for a while;
/// not one that was killed, nor one that ends an address space for others. Sleeps.
fn write_later(file: &File<VirtioFs>, start: i64, last: i64) {
    let inode = file.inode();
    let pass = inode.super_block().data().gate().enter();
    // Without any of these it is written when the file is closed, or the inode goes.
    let (Ok(session), Some(pass)) = (inode.session(), pass) else {
        return;
    };
    let held = Held::new(pass, file.hold_inode());
    let errand = leave_to_work(session, move || {
        let _ = held.inode.write_out(start, last);
    });
    if is_exiting() && !is_killed() {
        if let Some(errand) = errand {
            errand.wait(session.instance());
        }
    }
}
