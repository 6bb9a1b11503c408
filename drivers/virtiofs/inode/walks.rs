// SPDX-License-Identifier: GPL-2.0

//! Path walks that are begun anew, as the host has replaced a directory or link on their way.
//!
//! The components of a path are good for a time each of its own. So a walk can go from a link or directory that is good still to
//! what the host has replaced and removed since: to what a Kubernetes volume's `..data` led to a moment ago. `ENOENT` would be no
//! answer then. `ESTALE` has the VFS walk once more, with each component asked for (`LOOKUP_REVAL`).
//!
//! Not every name that is not there is worth that, as shells and compilers look for many. It is
//!
//! - where a name is gone that was there, or its directory is known to be removed;
//! - where the task has just followed a symbolic link that leads by this name, or to a directory of which the daemon says, when it
//!   is asked now, that it has been removed.
//!
//! What a task did last is remembered here for some tasks. Nothing depends on it but whether a walk is repeated. Callable from any
//! context, without locks.

#[cfg(VIRTIOFS_KUNIT)]
use kernel::prelude::*;
use kernel::{
    current,
    sync::atomic::{
        ordering,
        Atomic, //
    },
    time::msecs_to_jiffies, //
};
use vfs::time::jiffies_64;

/// How long a walk takes at most, in milliseconds, that is still taken for the same one. A daemon can be slow; a mark that is left
/// from another walk costs one request.
const SAME_WALK: u32 = 10_000;

/// Tasks that are told apart: the kernel gives out process IDs in sequence, so that so many tasks that run side by side rarely
/// share a slot.
const SLOTS: usize = 512;

/// What a task did last.
struct Slot {
    /// It followed a link: who, and when.
    followed: Atomic<u64>,
    /// The names that the link leads by, as [`names_of`] has them.
    names: Atomic<u64>,
    /// It has got `ESTALE` from open(2): who, and when.
    repeats: Atomic<u64>,
}

static TASKS: [Slot; SLOTS] = [const {
    Slot {
        followed: Atomic::new(0),
        names: Atomic::new(0),
        repeats: Atomic::new(0),
    }
}; SLOTS];

/// Of the current task: its slot, and a mark of who and when.
fn mine() -> (&'static Slot, u64) {
    let pid = current!().pid() as u32;
    let slot = &TASKS[pid as usize % SLOTS];
    let now = jiffies_64() as u32;
    (slot, u64::from(pid) << 32 | u64::from(now))
}

/// Takes a mark away; whether the current task has set it a moment ago.
fn take(mark: &Atomic<u64>, now: u64) -> bool {
    let set = mark.load(ordering::Relaxed);
    if set >> 32 != now >> 32 {
        return false;
    }
    mark.store(0, ordering::Relaxed);
    (now as u32).wrapping_sub(set as u32) as usize <= msecs_to_jiffies(SAME_WALK)
}

/// A bit for each component of a path, which others may share.
fn names_of(path: &[u8]) -> u64 {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .fold(0, |bits, name| bits | bit_of(name))
}

fn bit_of(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    1 << (hash >> 58)
}

/// The current task follows a symbolic link to `target`.
pub(crate) fn follows(target: &[u8]) {
    let (slot, now) = mine();
    slot.names.store(names_of(target), ordering::Relaxed);
    slot.followed.store(now, ordering::Relaxed);
}

/// Where a walk was a moment ago.
pub(crate) enum Before {
    /// At no link, or nobody knows.
    Nowhere,
    /// At a link that leads elsewhere, but maybe to the directory that the name is missing in.
    Link,
    /// At a link that leads by a name like this.
    LinkToName,
}

/// The current task finds no `name`. The next time it is at no link.
pub(crate) fn before(name: &[u8]) -> Before {
    let (slot, now) = mine();
    let names = slot.names.load(ordering::Relaxed);
    match take(&slot.followed, now) {
        false => Before::Nowhere,
        true if names & bit_of(name) != 0 => Before::LinkToName,
        true => Before::Link,
    }
}

/// The current task gets `ESTALE` from open(2), which the VFS repeats once.
pub(crate) fn repeats_open() {
    let (slot, now) = mine();
    slot.repeats.store(now, ordering::Relaxed);
}

/// The current task opens something; whether that is what is repeated.
pub(crate) fn is_repeated_open() -> bool {
    let (slot, now) = mine();
    // Mostly it is not set, and then the memory need not move to this CPU.
    slot.repeats.load(ordering::Relaxed) != 0 && take(&slot.repeats, now)
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_walks)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        follows(b"../..2026/key");
        assert!(matches!(before(b"..2026"), Before::LinkToName));
        assert!(matches!(before(b"..2026"), Before::Nowhere));
        follows(b"a//a/");
        assert!(matches!(before(b"b"), Before::Link) || bit_of(b"a") == bit_of(b"b"));
        assert!(matches!(before(b"a"), Before::Nowhere));
    }

    #[test]
    fn opens() {
        assert!(!is_repeated_open());
        repeats_open();
        assert!(is_repeated_open());
        assert!(!is_repeated_open());
    }
}
