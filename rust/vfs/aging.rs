// SPDX-License-Identifier: GPL-2.0

//! Timer lists of inodes, for the eviction of unused ones.
//!
//! A server may have to keep something for each inode that the kernel knows, and the kernel keeps unused dentries, and their inodes
//! with them, until memory is short. Here a filesystem finds the inodes whose names are good no more, without a look at all of
//! them.
//!
//! An inode is in a list with those that wait for as long as it does, [`SHORTEST`] times a power of two, in the order in which they
//! were put there. So the first of each list is the next that is to be looked at, and putting one there takes the same time however
//! many there are. Who looks at it either gives its names up or puts it back for another wait.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use crate::{
    dentry::RcuDentry,
    filesystem::FileSystem,
    inode::{
        Inode,
        InodeBox,
        InodeRef, //
    },
    super_block::SuperBlock,
    time::jiffies_64, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    container_of,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};
use kernel_ext::bindings;

/// The shortest wait, in milliseconds.
pub const SHORTEST: u32 = 5000;

/// Lists. The longest wait is half a day.
const LISTS: usize = 14;

/// How long an inode waits: [`SHORTEST`] times two to the power of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(u8);

impl Wait {
    /// The longest.
    pub const LONGEST: Self = Self(LISTS as u8 - 1);

    /// The longest of not more than `ticks`, or the shortest.
    pub fn up_to(ticks: u64) -> Self {
        let times = ticks.checked_div(msecs_to_jiffies(SHORTEST) as u64);
        let power = times.and_then(u64::checked_ilog2).unwrap_or(0);
        Self(u8::try_from(power).unwrap_or(u8::MAX)).min(Self::LONGEST)
    }

    /// Twice as long.
    pub fn longer(self) -> Self {
        Self(self.0.saturating_add(1)).min(Self::LONGEST)
    }

    fn ticks(self) -> u64 {
        (msecs_to_jiffies(SHORTEST) as u64) << self.0
    }
}

/// The place of an inode in a list.
///
/// # Invariants
///
/// Accessed under the lock of the [`Aging`] that the inode belongs to, if it belongs to one.
pub(crate) struct Place {
    previous: *mut Place,
    next: *mut Place,
    /// When it is to be looked at.
    due: u64,
    wait: Wait,
    listed: bool,
}

impl Place {
    /// In no list.
    pub(crate) const NONE: Self = Self {
        previous: ptr::null_mut(),
        next: ptr::null_mut(),
        due: 0,
        wait: Wait(0),
        listed: false,
    };
}

#[derive(Clone, Copy)]
struct List {
    first: *mut Place,
    last: *mut Place,
    count: usize,
}

/// # Invariants
///
/// What the lists consist of are places of inodes that belong to this [`Aging`], and have not been
/// [forgotten](Aging::forget): these are not freed.
struct Lists {
    lists: [List; LISTS],
}

// SAFETY: What the pointers lead to is accessed under the lock alone.
unsafe impl Send for Lists {}

/// Inodes of a filesystem that are looked at from time to time.
#[pin_data]
pub struct Aging<T: FileSystem> {
    #[pin]
    lists: SpinLock<Lists>,
    _p: PhantomData<T>,
}

impl Lists {
    /// # Safety
    ///
    /// `place` is that of an inode that belongs here and has not been forgotten; it is in no list.
    unsafe fn push(&mut self, place: *mut Place, wait: Wait) {
        let Some(list) = self.lists.get_mut(usize::from(wait.0)) else {
            return;
        };
        // SAFETY: The place is valid, as the caller says, and so is the last one by the type invariant.
        unsafe {
            *place = Place {
                previous: list.last,
                next: ptr::null_mut(),
                due: jiffies_64().saturating_add(wait.ticks()),
                wait,
                listed: true,
            };
            match list.last.is_null() {
                true => list.first = place,
                false => (*list.last).next = place,
            }
        }
        list.last = place;
        list.count += 1;
    }

    /// # Safety
    ///
    /// `place` is that of an inode that belongs here and has not been forgotten.
    unsafe fn remove(&mut self, place: *mut Place) {
        // SAFETY: The place is valid, as the caller says, and so are its neighbours by the type invariant.
        unsafe {
            if !(*place).listed {
                return;
            }
            let (previous, next) = ((*place).previous, (*place).next);
            let Some(list) = self.lists.get_mut(usize::from((*place).wait.0)) else {
                return;
            };
            match previous.is_null() {
                true => list.first = next,
                false => (*previous).next = next,
            }
            match next.is_null() {
                true => list.last = previous,
                false => (*next).previous = previous,
            }
            list.count = list.count.saturating_sub(1);
            *place = Place::NONE;
        }
    }

    /// The one to be looked at next.
    fn earliest(&self) -> Option<(*mut Place, u64)> {
        self.lists
            .iter()
            .filter(|list| !list.first.is_null())
            // SAFETY: Valid by the type invariant.
            .map(|list| (list.first, unsafe { (*list.first).due }))
            .min_by_key(|(_, due)| *due)
    }
}

impl<T: FileSystem> Aging<T> {
    /// With no inodes.
    pub fn new() -> Result<Arc<Self>> {
        let none = List {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
            count: 0,
        };
        // INVARIANT: The lists are empty.
        let lists = Lists {
            lists: [none; LISTS],
        };
        Arc::pin_init(
            pin_init!(Self {
                lists <- new_spinlock!(lists, "Aging"),
                _p: PhantomData,
            }),
            GFP_KERNEL,
        )
    }

    /// In how many ticks the next one is to be looked at. Does not sleep.
    pub fn next(&self) -> Option<u64> {
        let due = self.lists.lock().earliest()?.1;
        Some(due.saturating_sub(jiffies_64()))
    }

    /// Takes out the next inode that is to be looked at by now, with how long it has waited. Does not sleep.
    pub fn take_due(&self) -> Option<(InodeRef<T>, Wait)> {
        let mut lists = self.lists.lock();
        loop {
            let (place, due) = lists.earliest()?;
            if due > jiffies_64() {
                return None;
            }
            // SAFETY: The place is one of these lists.
            if let Some(taken) = unsafe { Self::take(&mut lists, place) } {
                return Some(taken);
            }
        }
    }

    /// Takes out all inodes one after the other, whenever they are to be looked at, and calls `each`, as long as that returns true.
    /// It may put the inode back, and sleep.
    pub fn take_all(&self, mut each: impl FnMut(InodeRef<T>, Wait) -> bool) {
        for index in 0..LISTS {
            // Those that are put back come behind these.
            let count = self
                .lists
                .lock()
                .lists
                .get(index)
                .map_or(0, |list| list.count);
            for _ in 0..count {
                let taken = {
                    let mut lists = self.lists.lock();
                    let first = lists.lists.get(index).map(|list| list.first);
                    match first {
                        // SAFETY: The place is one of these lists.
                        Some(place) if !place.is_null() => unsafe { Self::take(&mut lists, place) },
                        _ => break,
                    }
                };
                if taken.is_some_and(|(inode, wait)| !each(inode, wait)) {
                    return;
                }
            }
        }
    }

    /// Takes out one inode. One that is being evicted is taken out, too, and need not be looked at.
    ///
    /// # Safety
    ///
    /// `place` is one of the lists, which are those of an `Aging<T>`.
    unsafe fn take(lists: &mut Lists, place: *mut Place) -> Option<(InodeRef<T>, Wait)> {
        // SAFETY: Valid by the type invariant of the lists; the inode is not freed before it is forgotten, for which the lock is
        // needed, so that its superblock is there. `igrab()` gives a reference, or null for one that is being evicted.
        unsafe {
            let wait = (*place).wait;
            lists.remove(place);
            let inode = InodeBox::<T>::with_place(place);
            let users = Inode::<T>::from_raw(inode).super_block().users();
            if !users.enter() {
                return None;
            }
            match NonNull::new(bindings::igrab(inode)) {
                Some(inode) => Some((InodeRef::from_raw(inode), wait)),
                None => {
                    users.leave();
                    None
                }
            }
        }
    }

    /// The inode that the place is of is being evicted.
    ///
    /// # Safety
    ///
    /// `place` is that of an inode that belongs here, and is not used after this.
    pub(crate) unsafe fn forget(&self, place: *mut Place) {
        // SAFETY: As the caller says.
        unsafe { self.lists.lock().remove(place) };
    }
}

impl<T: FileSystem> Inode<T> {
    /// Has it looked at after a while, if it does not wait for that already. The first time this is called decides by which
    /// `aging`; later calls with another do nothing. Whether it now waits. Does not sleep.
    ///
    /// Not for an inode that is being evicted, which nobody has a reference to.
    pub fn look_later(&self, aging: &Arc<Aging<T>>, wait: Wait) -> bool {
        // SAFETY: Valid by the type invariant; the fields are there as long as the inode.
        let (mine, place) = unsafe {
            let inode = InodeBox::<T>::of(self.as_raw());
            (&(*inode).aging, &raw mut (*inode).place)
        };
        mine.populate(aging.clone());
        if !mine.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, aging)) {
            return false;
        }
        let mut lists = aging.lists.lock();
        // SAFETY: The inode belongs to `aging`, as has just been looked at, and as there is a reference to it, it is not evicted.
        unsafe {
            if (*place).listed {
                return false;
            }
            lists.push(place, wait);
        }
        true
    }

    /// Calls `each` with each of its names, and whether that has a user beside the inode cache: an open file, a working directory,
    /// a mount, or a name below it. `i_lock` is held: must not sleep.
    ///
    /// C: walks `i_dentry`.
    pub fn for_each_name(&self, mut each: impl FnMut(RcuDentry<'_, T>, bool)) {
        let inode = self.as_raw();
        let _guard = self.lock();
        // SAFETY: The list does not change with `i_lock` held, and consists of dentries of this inode, which are not freed meanwhile.
        unsafe {
            let mut alias = (*inode).__bindgen_anon_2.i_dentry.first;
            while !alias.is_null() {
                let dentry: *mut bindings::dentry =
                    container_of!(alias, bindings::dentry, __bindgen_anon_2.d_alias);
                let used = (&raw const (*dentry).d_lockref.__bindgen_anon_1.__bindgen_anon_1.count)
                    .read_volatile()
                    != 0;
                if let Some(dentry) = RcuDentry::from_raw(dentry) {
                    each(dentry, used);
                }
                alias = (*alias).next;
            }
        }
    }

    /// Takes those of its names out of the dentry cache that nobody uses; if it has no others, and no other users, it goes with the
    /// caller's reference. May sleep.
    ///
    /// C: `d_prune_aliases()`.
    pub fn prune_names(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::d_prune_aliases(self.as_raw()) };
    }
}

impl<T: FileSystem> SuperBlock<T> {
    /// Takes all names out of the dentry cache that nobody uses. May sleep.
    ///
    /// C: `shrink_dcache_sb()`.
    pub fn prune_all(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::shrink_dcache_sb(self.as_raw()) };
    }
}
