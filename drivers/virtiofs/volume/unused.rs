// SPDX-License-Identifier: GPL-2.0

//! Eviction of unused inodes, for each of which the daemon may keep a file descriptor.
//!
//! An unused inode is of use while one of its dentries is valid, or while its page cache is likely to be read again. The dentry
//! cache keeps it until this kernel is short of memory. Meanwhile the host runs out of descriptors, and removed files keep their
//! blocks. So
//!
//! - a work item evicts an inode half a minute after its last dentry expired, one with cached pages after some minutes. Inodes are
//!   looked at one by one when their time has come (`vfs::aging`). An idle mount has only inodes in use, which are looked at ever
//!   less often.
//! - a daemon without descriptors (`EMFILE`, `ENFILE`) gets inodes back at once: first those with expired dentries, then others in
//!   the order of their age. Then it is asked again, a few times. One work item serves all waiting tasks, so that a signal ends
//!   their wait.
//! - `max_inodes` bounds the number of inodes, if the operator wants that.
//!
//! Inodes in use stay in any case: open files, working directories, mappings, mounts, and the directories that lead to them.
//!
//! C has a period for the first (`inval_wq`, off by default), and nothing for the others.

use crate::{
    filesystem::VirtioFs,
    session::{
        freshness::Deadline,
        room::MakeRoom, //
    },
    volume::{
        mount::Mount,
        Volume, //
        AGE,
        ROOM,
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    },
    workqueue::WorkItem, //
};
use kernel_ext::{
    task::is_reclaiming,
    workqueue::set_delayed, //
};
use vfs::{
    aging::Wait,
    time::jiffies_64,
    Inode,
    InodeRef, //
};

/// How long an unused inode is kept after its names were good, in milliseconds.
const GRACE: u32 = 30_000;
/// The same for one with pages.
const GRACE_OF_PAGES: u32 = 300_000;
/// How long after it was made an inode is looked at first: its names are good for a second mostly.
const FIRST: u32 = 20_000;
/// How long an inode in use waits at most, in milliseconds.
const LONGEST_OF_USED: u32 = 640_000;
/// Inodes that are looked at in one go, before the work queue's worker is left to others.
const BATCH: usize = 1000;
/// How often it is looked whether the daemon has taken what was given up, a millisecond apart.
const TAKEN_LOOKS: usize = 2000;
/// The same for handles, which go with others' requests.
const RELEASED_LOOKS: usize = 20;

/// What a session knows of inodes that may go.
#[pin_data]
pub(crate) struct Unused {
    /// Superblocks of the session.
    #[pin]
    mounts: Mutex<KVec<Arc<Mount>>>,
    /// When inodes will be looked at, in jiffies; 0 when there are none.
    next: Atomic<u64>,
    /// How many inodes stayed when room was made.
    stayed: Atomic<usize>,
}

impl Unused {
    /// Of a session that has no superblocks.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            mounts <- new_mutex!(KVec::new(), "virtiofs::Unused::mounts"),
            next: Atomic::new(0),
            stayed: Atomic::new(0),
        })
    }

    /// A superblock joins. Sleeps.
    pub(crate) fn join(&self, mount: Arc<Mount>) -> Result {
        Ok(self.mounts.lock().push(mount, GFP_KERNEL)?)
    }

    /// A superblock is gone. Sleeps.
    pub(crate) fn leave(&self, mount: &Mount) {
        self.mounts
            .lock()
            .retain(|other| !core::ptr::eq(&**other, mount));
    }

    /// Calls `each` with all superblocks that are not shut down meanwhile. Sleeps; without the lock, so that others may come and
    /// go.
    fn for_each(&self, mut each: impl FnMut(&Mount)) {
        for index in 0.. {
            let Some(mount) = self.mounts.lock().get(index).cloned() else {
                return;
            };
            if let Some(_pass) = mount.gate().enter() {
                each(&mount);
            }
        }
    }
}

/// What makes an inode go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is time.
    Age,
    /// The daemon needs its place, if its names are good no more.
    RoomByOld,
    /// The same, however good they are.
    RoomByAny,
}

/// Looks at an inode that has waited for `wait`: it goes, or waits once more. Sleeps.
fn look(mount: &Mount, inode: InodeRef<VirtioFs>, wait: Wait, why: Why) {
    let (mut used, mut until) = (false, 0);
    inode.for_each_name(|name, is_used| {
        used |= is_used;
        until = until.max(Deadline::from_word(name.time()).time());
    });
    let grace = match why {
        Why::Age if inode.has_pages() => GRACE_OF_PAGES,
        Why::Age => GRACE,
        Why::RoomByOld | Why::RoomByAny => 0,
    };
    let left = until
        .saturating_add(msecs_to_jiffies(grace) as u64)
        .saturating_sub(jiffies_64());
    let next = match why {
        Why::Age if used => wait.longer().min(longest_of_used()),
        _ if used => wait,
        Why::Age | Why::RoomByOld if left > 0 => Wait::up_to(left),
        _ => {
            // If somebody comes to use it right now it is looked at once more.
            inode.look_later(mount.aging(), first());
            inode.prune_names();
            return;
        }
    };
    inode.look_later(mount.aging(), next);
}

fn first() -> Wait {
    Wait::up_to(msecs_to_jiffies(FIRST) as u64)
}

fn longest_of_used() -> Wait {
    Wait::up_to(msecs_to_jiffies(LONGEST_OF_USED) as u64)
}

impl WorkItem<AGE> for Volume {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let unused = this.unused();
        // Inodes that are made from here on have it run again, if that is not done below.
        unused.next.store(0, ordering::Release);
        let (mut left, mut next) = (BATCH, None::<u64>);
        unused.for_each(|mount| {
            while left > 0 {
                let Some((inode, wait)) = mount.aging().take_due() else {
                    break;
                };
                look(mount, inode, wait, Why::Age);
                left -= 1;
            }
            next = match (next, mount.aging().next()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        });
        // Those that come at about the same time are looked at together.
        let Some(ticks) = next.map(|ticks| match left {
            0 => 1,
            _ => ticks.max(msecs_to_jiffies(1000) as u64),
        }) else {
            return;
        };
        // One that was made meanwhile may come before.
        let other = unused.next.load(ordering::Acquire);
        if other == 0 || jiffies_64().saturating_add(ticks) < other {
            this.look_in(ticks);
        }
    }
}

impl WorkItem<ROOM> for Volume {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let unused = this.unused();
        let before = this.session().instance().inodes().count();
        let freed = || before.saturating_sub(this.session().instance().inodes().count());
        unused.for_each(|mount| {
            mount.aging().take_all(|inode, wait| {
                look(mount, inode, wait, Why::RoomByOld);
                true
            });
        });
        if freed() < before / 4 {
            unused.for_each(|mount| {
                mount.aging().take_all(|inode, wait| {
                    look(mount, inode, wait, Why::RoomByAny);
                    freed() < before / 2
                });
            });
        }
        if freed() < before / 8 {
            // What names that lead to nothing keep.
            unused.for_each(|mount| {
                let mut all = true;
                mount.aging().take_all(|inode, wait| {
                    if all {
                        inode.super_block().prune_all();
                        all = false;
                    }
                    inode.look_later(mount.aging(), wait);
                    all
                });
            });
        }
        let count = freed();
        this.forget_now();
        unused.stayed.store(
            this.session().instance().inodes().count(),
            ordering::Relaxed,
        );
        this.session().room().made(count);
    }
}

impl MakeRoom for Volume {
    fn make_room_later(self: Arc<Self>) {
        // It is not queued: who makes room takes the mark away at the end.
        let session = self.session().clone();
        set_delayed::<_, ROOM>(session.instance().patient_work(), self, 0);
    }
}

impl Volume {
    /// An inode was made: it is looked at after a while. Does not sleep.
    pub(crate) fn inode_made(self: &Arc<Self>, mount: &Mount, inode: &Inode<VirtioFs>) {
        inode.look_later(mount.aging(), first());
        let ticks = msecs_to_jiffies(FIRST) as u64;
        let next = self.unused().next.load(ordering::Acquire);
        // With some play, so that what is made one after the other does not set the timer each time.
        if next == 0 || next > jiffies_64().saturating_add(ticks + ticks / 4) {
            self.look_in(ticks);
        }
    }

    /// Has inodes looked at in so many ticks. Does not sleep.
    fn look_in(self: &Arc<Self>, ticks: u64) {
        let at = jiffies_64().saturating_add(ticks).max(1);
        self.unused().next.store(at, ordering::Release);
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
        set_delayed::<_, AGE>(
            self.session().instance().patient_work(),
            self.clone(),
            ticks,
        );
    }

    /// Keeps what is held at the daemon below the operator's bound, as far as it is not in use. Sleeps; a fatal signal ends that.
    pub(crate) fn keep_bound(self: &Arc<Self>) {
        let (most, count) = (
            crate::max_inodes(),
            self.session().instance().inodes().count(),
        );
        if most == 0 || count < most || is_reclaiming() {
            return;
        }
        // If most of them are in use it is not tried for each.
        let stayed = self.unused().stayed.load(ordering::Relaxed);
        if count < stayed.saturating_add(stayed / 8).saturating_add(8) {
            return;
        }
        let _ = self.session().make_room(self.session().room().seen());
    }

    /// Sends what is to be forgotten, and waits until the daemon has taken it, but not for long. Sleeps.
    fn forget_now(&self) {
        self.session().flush_forgets();
        for look in 0..TAKEN_LOOKS {
            // First of all FORGET, on the first queue; of the others, where others may go on, RELEASE.
            let mut busy = self
                .session()
                .instance()
                .lanes()
                .map(|lane| lane.background() > 0);
            let forgetting = busy.next().unwrap_or(false);
            if !forgetting && (look >= RELEASED_LOOKS || !busy.any(|busy| busy)) {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
    }
}
