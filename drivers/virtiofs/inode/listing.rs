// SPDX-License-Identifier: GPL-2.0

//! Cached directory listings, where the daemon allows them (`FOPEN_CACHE_DIR`).
//!
//! The records are in the page cache of the directory, in the order in which the daemon has listed them, so that the kernel takes
//! the memory back when it wants it. No record crosses a page. A reader that comes to the end of the cached records adds those that
//! follow; once the directory has ended they are complete, and later readers are served without a request.
//!
//! A listing is checked when a reader begins at the start of the directory: it has to be newer than the last change through this
//! kernel, and the directory's modification time has to be the same. Else it is begun anew. A reader in the middle that does not
//! find its position any more asks the daemon.

use crate::{
    filesystem::VirtioFs,
    inode::NodeInode,
    session::epoch::Asked, //
};
use fuse_proto::{
    Dirent,
    Dirents,
    InitFlags, //
};
use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Mutex, //
    },
};
use vfs::{
    time::Timespec,
    Inode, //
};

/// Where a record is: in which page, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    page: usize,
    offset: usize,
}

impl Place {
    const START: Self = Self { page: 0, offset: 0 };

    fn from_bytes(bytes: usize) -> Self {
        Self {
            page: bytes / PAGE_SIZE,
            offset: bytes % PAGE_SIZE,
        }
    }

    fn bytes(self) -> usize {
        self.page
            .saturating_mul(PAGE_SIZE)
            .saturating_add(self.offset)
    }
}

/// What is known of kept records.
struct State {
    /// Counts how often they were begun anew.
    version: u64,
    /// Since when they are gathered, and the modification time of the directory then.
    began: Option<(Asked, Timespec)>,
    /// How many bytes of each page are used.
    used: KVec<u16>,
    /// The position that the next record to be kept begins at.
    next: u64,
    /// Whether there is nothing behind them.
    complete: bool,
}

impl State {
    const fn new() -> Self {
        Self {
            version: 0,
            began: None,
            used: KVec::new(),
            next: 0,
            complete: false,
        }
    }

    /// Begins anew.
    fn reset(&mut self) {
        *self = Self {
            version: self.version.wrapping_add(1),
            ..Self::new()
        };
    }

    /// Where the next record goes that is `len` bytes long.
    fn place_for(&self, len: usize) -> Place {
        let Some(page) = self.used.len().checked_sub(1) else {
            return Place::START;
        };
        match self.used.last() {
            Some(&used) if usize::from(used) + len <= PAGE_SIZE => Place {
                page,
                offset: used.into(),
            },
            _ => Place {
                page: page + 1,
                offset: 0,
            },
        }
    }

    /// A record of `len` bytes was put there; `next` is the position behind it.
    fn put(&mut self, at: Place, len: usize, next: u64) -> Result {
        let end = u16::try_from(at.offset + len)?;
        match self.used.get_mut(at.page) {
            Some(used) => *used = end,
            None => self.used.push(end, GFP_KERNEL)?,
        }
        self.next = next;
        Ok(())
    }
}

/// The kept records of a directory.
#[pin_data]
pub(crate) struct Listing {
    /// Outside of the locks of pages; may sleep. No round trip is made under it.
    #[pin]
    state: Mutex<State>,
}

/// Where a reader stands in the kept records, so that the next call need not search. One call at a time uses it, as the VFS
/// serialises them.
pub(crate) struct Cursor {
    version: Atomic<u64>,
    pos: Atomic<u64>,
    place: Atomic<usize>,
}

impl Cursor {
    /// Nowhere yet.
    pub(crate) fn new() -> Self {
        Self {
            version: Atomic::new(0),
            pos: Atomic::new(0),
            place: Atomic::new(0),
        }
    }

    fn set(&self, version: u64, pos: u64, place: Place) {
        self.version.store(version, ordering::Relaxed);
        self.pos.store(pos, ordering::Relaxed);
        self.place.store(place.bytes(), ordering::Relaxed);
    }

    /// Where the record at `pos` is, if this is known.
    fn find(&self, version: u64, pos: u64) -> Option<Place> {
        if pos == 0 {
            return Some(Place::START);
        }
        let same = self.version.load(ordering::Relaxed) == version
            && self.pos.load(ordering::Relaxed) == pos;
        same.then(|| Place::from_bytes(self.place.load(ordering::Relaxed)))
    }
}

/// How far kept records have served a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// To the end of the directory, or as much as he takes.
    All,
    /// Not to the end: the daemon has to be asked for what follows.
    Part,
}

impl Listing {
    /// Of a directory of which nothing is kept.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(State::new(), "Listing::state"),
        })
    }

    /// Somebody begins at the start of the directory: what is out of date is not kept any longer. Sleeps.
    pub(crate) fn start(&self, dir: &Inode<VirtioFs>) -> Result {
        if dir.session()?.has(InitFlags::AUTO_INVAL_DATA) {
            dir.refresh_if_expired(None)?;
        }
        // Before the modification time is looked at.
        let now = Asked::now();
        let mtime = dir.mtime();
        let mut state = self.state.lock();
        let good = state
            .began
            .is_some_and(|(began, then)| !dir.data().is_out_of_date(began) && then == mtime);
        if !good {
            state.reset();
            state.began = Some((now, mtime));
        }
        Ok(())
    }

    /// Nothing is kept any longer. Sleeps.
    pub(crate) fn forget(&self, dir: &Inode<VirtioFs>) {
        self.state.lock().reset();
        dir.invalidate_unused_pages();
    }

    /// Keeps a record that begins at position `at`, if it is the one that is missing next. In `memory` it takes shape, so that one
    /// record after the other can do with the same. Sleeps.
    pub(crate) fn keep(
        &self,
        dir: &Inode<VirtioFs>,
        at: u64,
        dirent: &Dirent<'_>,
        memory: &mut KVec<u8>,
    ) {
        let encoded = encode(dirent, memory);
        let mut state = self.state.lock();
        if state.complete || state.began.is_none() || state.next != at {
            return;
        }
        let mut put = || -> Result {
            let record = encoded?;
            let place = state.place_for(record.len());
            let mut page = if place.offset == 0 {
                dir.new_page(place.page)?
            } else {
                dir.find_page(place.page).ok_or(ENOENT)?
            };
            page.write(place.offset, record)?;
            state.put(place, record.len(), dirent.offset)
        };
        if put().is_err() {
            // Memory is short: it was taken back, or there is no more.
            state.reset();
        }
    }

    /// The directory ends at position `at`. Sleeps.
    pub(crate) fn end(&self, at: u64) {
        let mut state = self.state.lock();
        if state.began.is_some() && state.next == at {
            state.complete = true;
        }
    }

    /// Gives `emit` the kept records from position `pos` on, until it takes no more, if they are complete. `emit` is called
    /// without a lock. Sleeps.
    pub(crate) fn serve(
        &self,
        dir: &Inode<VirtioFs>,
        cursor: &Cursor,
        pos: u64,
        mut emit: impl FnMut(&Dirent<'_>) -> bool,
    ) -> Result<Served> {
        let version = self.state.lock().version;
        let known = cursor.find(version, pos);
        let mut found = known.is_some();
        let mut place = known.unwrap_or(Place::START);
        let mut records = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        loop {
            let len = match self.read(dir, version, place, &mut records) {
                Found::Records(len) => len,
                Found::Nothing => return Ok(Served::Part),
                // A position that nobody has given to the reader is the daemon's to judge.
                Found::End => return Ok(if found { Served::All } else { Served::Part }),
            };
            for dirent in Dirents::new(records.get(..len).ok_or(EIO)?) {
                let dirent = dirent.map_err(|_| EIO)?;
                if found && !emit(&dirent) {
                    return Ok(Served::All);
                }
                found |= dirent.offset == pos;
                place.offset += dirent.record_len();
                if found {
                    cursor.set(version, dirent.offset, place);
                }
            }
            place = Place {
                page: place.page + 1,
                offset: 0,
            };
        }
    }

    /// Copies the records of a page from `place` on.
    fn read(&self, dir: &Inode<VirtioFs>, version: u64, place: Place, to: &mut [u8]) -> Found {
        let mut state = self.state.lock();
        if !state.complete || state.version != version {
            return Found::Nothing;
        }
        let Some(&used) = state.used.get(place.page) else {
            return Found::End;
        };
        let len = usize::from(used).saturating_sub(place.offset);
        let copied = dir.find_page(place.page).is_some_and(|page| {
            to.get_mut(..len)
                .is_some_and(|to| page.read(place.offset, to).is_ok())
        });
        if !copied {
            // Memory was short.
            state.reset();
            return Found::Nothing;
        }
        Found::Records(len)
    }
}

/// What is kept at a place.
enum Found {
    /// So many bytes of records.
    Records(usize),
    /// The end of the directory.
    End,
    /// Nothing that is known to be complete.
    Nothing,
}

/// The bytes of a record, in `memory`.
fn encode<'a>(dirent: &Dirent<'_>, memory: &'a mut KVec<u8>) -> Result<&'a [u8]> {
    memory.resize(dirent.record_len(), 0, GFP_KERNEL)?;
    let len = dirent.encode(memory).ok_or(EINVAL)?;
    memory.get(..len).ok_or(EINVAL)
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_listing)]
mod tests {
    use super::*;

    /// Records fill a page as far as they fit, and none crosses its end.
    #[test]
    fn places() -> Result {
        let mut state = State::new();
        assert_eq!(state.place_for(32), Place::START);
        let mut total = 0;
        for number in 1..1000 {
            let len = 24 + 8 * (1 + number % 30);
            let place = state.place_for(len);
            assert!(place.offset + len <= PAGE_SIZE);
            assert!(place.bytes() >= total && place.bytes() < total + PAGE_SIZE);
            assert_eq!(Place::from_bytes(place.bytes()), place);
            state.put(place, len, number as u64)?;
            total = place.bytes() + len;
        }
        assert_eq!(state.next, 999);
        assert!(state
            .used
            .iter()
            .all(|&used| usize::from(used) <= PAGE_SIZE));
        let version = state.version;
        state.reset();
        assert!(state.version != version && state.next == 0 && !state.complete);
        Ok(())
    }

    /// A cursor is good for the position and the version that it was set for; the start is always known.
    #[test]
    fn cursors() {
        let cursor = Cursor::new();
        let place = Place {
            page: 2,
            offset: 96,
        };
        assert_eq!(cursor.find(7, 0), Some(Place::START));
        assert_eq!(cursor.find(0, 5), None);
        cursor.set(7, 5, place);
        assert_eq!(cursor.find(7, 5), Some(place));
        assert_eq!(cursor.find(8, 5), None);
        assert_eq!(cursor.find(7, 6), None);
    }
}
