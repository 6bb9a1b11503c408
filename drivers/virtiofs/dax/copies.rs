// SPDX-License-Identifier: GPL-2.0

//! Copies of single pages, for page faults that a range would not pay for.
//!
//! A copy is a page of the guest's memory with what the daemon has read for it. Page tables alone refer to it, and it can only be
//! read: who stores to it takes another fault, and that is given a range. A place of a file is shown by a range or by copies, never
//! by both, and by no copy that is older than a write to the file here that was waited for:
//!
//! - who brings a copy in counts it first, looks then whether the file was [outdated](CopiesOf::outdate) since the daemon was asked,
//!   and holds the inode's `invalidate_lock` shared until it is in the page table;
//! - who maps a range, or changes contents by a request, outdates the file, and if any copies are counted takes them out with
//!   the lock held exclusively. So it finds the copy, or the other one finds the file outdated;
//! - who learns of a change on the host waits for no lock, as others hold it while the daemon works: who brings a copy in looks once
//!   more when it is in the page table, and takes it out again.
//!
//! There are only so many: each one more takes the oldest out of page tables.

use super::mapped_file::MappedFile;
use crate::{
    filesystem::VirtioFs,
    session::epoch::{
        Asked,
        LastChange, //
    },
};
use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        barrier::{
            smp_mb,
            Full, //
        },
        Arc,
        SpinLock, //
    },
};
use vfs::{
    mapping::InvalidateGuard,
    Inode, //
};

/// Copies take at most this part of the window's size: as much memory as the tables for the window's pages.
const SHARE: usize = 64;

/// The copies of a file.
pub(crate) struct CopiesOf {
    /// When those that were asked for before became old.
    outdated: LastChange,
    /// How many there are in page tables at most.
    count: Atomic<i32>,
}

impl CopiesOf {
    pub(crate) fn new() -> Self {
        Self {
            outdated: LastChange::new(),
            count: Atomic::new(0),
        }
    }

    /// What was asked for until now is not to be shown any more: whether some of it may be in page tables. Callable from any context.
    pub(crate) fn outdate(&self) -> bool {
        self.outdated.is_now();
        // Pairs with `begin`: this sees the count, or that the change.
        self.count.fetch_add(0, ordering::Full) > 0
    }

    /// Whether what was asked for then is not to be shown any more. Callable from any context.
    fn is_outdated(&self, asked: Asked) -> bool {
        self.outdated.is_after(asked)
    }

    /// Counts one more that is about to be shown: `false`, and it is not counted, if it is too old. Callable from any context.
    fn begin(&self, asked: Asked) -> bool {
        self.count.fetch_add(1, ordering::Full);
        let good = !self.is_outdated(asked);
        if !good {
            self.end();
        }
        good
    }

    /// Counts one less.
    fn end(&self) {
        self.count.fetch_sub(1, ordering::Full);
    }
}

/// A copy that is in page tables, or about to be.
pub(crate) struct PageCopy {
    file: Arc<MappedFile>,
    pos: i64,
    asked: Asked,
}

impl PageCopy {
    /// Of the page at `pos`, as it was when the daemon was `asked`. [`None`] if that is too old. The inode's `invalidate_lock` is
    /// held shared, and stays so until the page is in the page table.
    pub(crate) fn new(file: &Arc<MappedFile>, pos: i64, asked: Asked) -> Option<Self> {
        file.copies().begin(asked).then(|| Self {
            file: file.clone(),
            pos,
            asked,
        })
    }

    /// Whether it became old while it was brought in. Callable from any context, when it is in the page table.
    pub(crate) fn is_outdated(&self) -> bool {
        // Pairs with `CopiesOf::outdate`: who outdated the file and did not find the page in the page table is seen here.
        smp_mb(Full);
        self.file.copies().is_outdated(self.asked)
    }

    /// Takes it out of page tables. Sleeps.
    pub(crate) fn take_out(self) {
        // An inode that is about to go is in none.
        if let Some(held) = self.file.hold() {
            let last = self.pos.saturating_add_unsigned(PAGE_SIZE as u64 - 1);
            held.inode.unmap_range(self.pos, last);
        }
        self.file.copies().end();
    }
}

/// The copies of a window's files, in the order in which they came.
#[pin_data]
pub(crate) struct Copies {
    #[pin]
    ring: SpinLock<Ring<PageCopy>>,
}

/// Places in a circle, some of which may be empty.
struct Ring<T> {
    /// From `next` on the oldest first.
    places: KVVec<Option<T>>,
    next: usize,
    len: usize,
}

impl<T> Ring<T> {
    /// An empty one. Sleeps. Errors: `ENOMEM`.
    fn new(most: usize) -> Result<Self> {
        let mut places = KVVec::with_capacity(most, GFP_KERNEL)?;
        for _ in 0..most {
            places.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            places,
            next: 0,
            len: 0,
        })
    }

    /// Puts `new` in the next place, and gives what was there: of those in the ring the oldest, if any.
    fn turn(&mut self, new: Option<T>) -> Option<T> {
        let place = self.places.get_mut(self.next)?;
        self.len = self.len.saturating_add(usize::from(new.is_some()));
        let old = core::mem::replace(place, new);
        self.len = self.len.saturating_sub(usize::from(old.is_some()));
        self.next = match self.next.saturating_add(1) {
            next if next < self.places.len() => next,
            _ => 0,
        };
        old
    }
}

impl Copies {
    /// For a window of `len` bytes. Sleeps. Errors: `ENOMEM`.
    pub(crate) fn new(len: usize) -> Result<impl PinInit<Self>> {
        let ring = Ring::new((len / SHARE / PAGE_SIZE).max(1))?;
        Ok(pin_init!(Self {
            ring <- new_spinlock!(ring, "Copies::ring"),
        }))
    }

    /// How many there are. Callable from any context.
    pub(crate) fn len(&self) -> usize {
        self.ring.lock().len
    }

    /// A copy is in the page table: the one that has to go for it.
    pub(crate) fn add(&self, copy: PageCopy) -> Option<PageCopy> {
        self.ring.lock().turn(Some(copy))
    }

    /// Takes the `most` oldest ones out of page tables. Sleeps.
    pub(crate) fn give_up(&self, most: usize) {
        let places = self.ring.lock().places.len();
        let mut left = most;
        for _ in 0..places {
            if left == 0 {
                break;
            }
            let oldest = self.ring.lock().turn(None);
            if let Some(oldest) = oldest {
                oldest.take_out();
                left = left.saturating_sub(1);
            }
        }
    }
}

/// As [`CopiesOf::outdate`], of a file that may not be mapped from the window.
fn outdate_copies(inode: &Inode<VirtioFs>) -> bool {
    inode
        .data()
        .mapped()
        .is_some_and(|file| file.copies().outdate())
}

/// Contents from `start` to `last` may have become others, by a request of this kernel: no copy shows them any more as they were.
/// Nothing happens if the file is not mapped from the window. The inode is locked, at least shared, so that nobody who waits for the
/// daemon holds `invalidate_lock`. Sleeps.
pub(crate) fn outdate(inode: &Inode<VirtioFs>, start: i64, last: i64) {
    if outdate_copies(inode) {
        let _lock = inode.lock_invalidate();
        inode.unmap_range(start, last);
    }
}

/// As [`outdate`], for who has the lock already: before the request or after it.
pub(crate) fn outdate_locked(
    inode: &Inode<VirtioFs>,
    _lock: &InvalidateGuard<'_, VirtioFs>,
    start: i64,
    last: i64,
) {
    if outdate_copies(inode) {
        inode.unmap_range(start, last);
    }
}

/// Contents may have become others on the host: no copy stays that shows them as they were. One that is being brought in may be seen
/// for an instant by who has the file mapped already. Waits for nobody else; sleeps.
pub(crate) fn outdate_by_host(inode: &Inode<VirtioFs>) {
    if outdate_copies(inode) {
        inode.unmap_from(0);
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_dax_copies)]
mod tests {
    use super::*;

    /// What was asked for before the file was outdated is not shown, and who outdates it learns of what is.
    #[test]
    fn none_is_old() {
        let copies = CopiesOf::new();
        let before = Asked::now();
        assert!(!copies.outdate());
        assert!(!copies.begin(before));
        assert!(!copies.outdate());
        let after = Asked::now();
        assert!(copies.begin(after));
        assert!(!copies.is_outdated(after));
        assert!(copies.outdate());
        assert!(copies.is_outdated(after));
        assert!(!copies.begin(after));
        assert!(copies.outdate());
        copies.end();
        assert!(!copies.outdate());
    }

    /// The oldest one goes first, whether another one comes or not.
    #[test]
    fn first_in_first_out() -> Result {
        let mut ring = Ring::new(3)?;
        assert_eq!(ring.turn(None), None);
        for number in 1..=3 {
            assert_eq!(ring.turn(Some(number)), None);
        }
        assert_eq!((ring.turn(Some(4)), ring.len), (Some(1), 3));
        assert_eq!((ring.turn(None), ring.len), (Some(2), 2));
        assert_eq!((ring.turn(Some(5)), ring.len), (Some(3), 2));
        assert_eq!((ring.turn(None), ring.len), (Some(4), 1));
        assert_eq!((ring.turn(None), ring.len), (None, 1));
        assert_eq!((ring.turn(None), ring.len), (Some(5), 0));
        Ok(())
    }
}
