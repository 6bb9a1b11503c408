// SPDX-License-Identifier: GPL-2.0

//! Breaking layouts: the pages of a range leave page tables and the file before the daemon unmaps the range, and before a part of
//! the file is truncated.
//!
//! The inode's `invalidate_lock` keeps faults from bringing pages in. Page references of others are waited for, or the range stays:
//! direct I/O, RDMA and pipes hold some for long, a task that unmaps for an instant.

use super::{
    mapped_file::MappedFile,
    window::Window, //
};
use crate::filesystem::VirtioFs;
use dax_map::Extent;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::dax::BusyPage;
use vfs::{
    dax::Patience,
    mapping::InvalidateGuard,
    Inode, //
};

/// Nobody touches what the host is about to take away from byte `start` to byte `last` of a file, and nobody has it pinned. Nothing
/// happens if the file is not mapped from the window. Sleeps, and `lock` is not held meanwhile; a signal ends it with
/// `ERESTARTSYS`.
pub(crate) fn break_layouts(
    inode: &Inode<VirtioFs>,
    lock: &mut InvalidateGuard<'_, VirtioFs>,
    start: i64,
    last: i64,
) -> Result {
    let window = inode.super_block().data().window();
    let (Some(file), Some(window)) = (inode.data().mapped(), window) else {
        return Ok(());
    };
    lock.break_layouts(window.memory(), start, last, Patience::UntilSignal, || {
        window.busy_page(file, start, last)
    })
}

impl Window {
    /// Takes what a range shows, or may come to show, out of page tables and out of its file, whose inode `lock` is of. Sleeps.
    ///
    /// Errors: as [`InvalidateGuard::break_layouts`].
    pub(crate) fn break_range(
        &self,
        lock: &mut InvalidateGuard<'_, VirtioFs>,
        extent: &Extent,
        patience: Patience,
    ) -> Result {
        let (start, last) = bytes_of(extent)?;
        let len = usize::try_from(extent.len)?;
        lock.break_layouts(self.memory(), start, last, patience, || {
            self.memory().busy_page(extent.window_offset, len)
        })
    }

    /// A page with a reference that shows any byte from `start` to `last` of a file. Other pages of these ranges do not count:
    /// those stay in page tables, and with a reference, for as long as they are mapped.
    fn busy_page(&self, file: &Arc<MappedFile>, start: i64, last: i64) -> Option<BusyPage<'_>> {
        let page = PAGE_SIZE as u64;
        let mut from = u64::try_from(start).ok()?;
        let first = from.saturating_sub(from % page);
        let end = u64::try_from(last).ok()?.saturating_add(1);
        let end_page = end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        loop {
            let range = self
                .state()
                .lock()
                .table
                .first_range(file.owner(), from, end)?;
            let Extent {
                file_offset,
                window_offset,
                len,
                ..
            } = range.extent;
            let begin = first.max(file_offset);
            let stop = end_page.min(file_offset.saturating_add(len));
            let busy = self.memory().busy_page(
                window_offset.saturating_add(begin.saturating_sub(file_offset)),
                usize::try_from(stop.saturating_sub(begin)).ok()?,
            );
            if busy.is_some() {
                return busy;
            }
            from = file_offset.saturating_add(range.order.bytes());
        }
    }
}

/// The first and the last byte of the file that a range shows or may come to show.
pub(crate) fn bytes_of(extent: &Extent) -> Result<(i64, i64)> {
    let start = i64::try_from(extent.file_offset)?;
    let len = i64::try_from(extent.len)?;
    Ok((
        start,
        start.checked_add(len).ok_or(EOVERFLOW)?.saturating_sub(1),
    ))
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_dax_layout)]
mod tests {
    use super::*;

    /// The bytes of a file that a range stands for.
    #[test]
    fn bytes() -> Result {
        let extent = |file_offset, len| Extent {
            file_offset,
            len,
            ..Extent::default()
        };
        assert_eq!(bytes_of(&extent(0, 4096))?, (0, 4095));
        assert_eq!(
            bytes_of(&extent(2 << 20, 65536))?,
            (2 << 20, (2 << 20) + 65535)
        );
        let last = i64::MAX as u64 - 4095;
        assert!(bytes_of(&extent(last, 4096)).is_err());
        assert!(bytes_of(&extent(last, 4095)).is_ok());
        assert!(bytes_of(&extent(u64::MAX, 1)).is_err());
        Ok(())
    }
}
