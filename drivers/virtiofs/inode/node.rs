// SPDX-License-Identifier: GPL-2.0

//! Data of an inode: its nodeid, and the epochs of its attributes.
//!
//! Nothing here asks the daemon, and nothing sleeps but where an item says so.

use crate::{
    dax::mapped_file::MappedFile,
    filesystem::VirtioFs,
    inode::{
        link_target::Target,
        listing::Listing,
        writers::Writers, //
    },
    session::{
        epoch::{
            is_doubted,
            Asked,
            LastAsked,
            LastChange, //
        },
        forget::Known,
        freshness::{
            Freshness,
            KeepCache, //
        },
    },
};
use core::pin::Pin;
use fuse_proto::{
    NodeId,
    Ttl, //
};
use kernel::{
    current,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        SetOnce, //
    },
};
use vfs::Inode;

/// Bits of [`Node::walk`] for when attributes were asked for; the others are for the task.
const WALK_ASKED_BITS: u32 = 42;

/// What the driver keeps with an inode.
#[pin_data]
pub(crate) struct Node {
    /// Which inode of the daemon this is. Set before anybody can find it.
    known: SetOnce<Arc<Known>>,
    generation: Atomic<u64>,
    /// As the daemon said it: see [`Node::blksize`].
    blksize: Atomic<u32>,
    freshness: Arc<Freshness>,
    #[pin]
    writers: Writers,
    keep_cache: KeepCache,
    /// Who has looked it up to open it, and when: see [`Node::walks_to_open`].
    walk: Atomic<u64>,
    /// Of other attributes: see [`Node::changed_attributes`].
    changed_attributes: LastChange,
    /// When the daemon was last asked for contents: see [`Node::reads`].
    read: LastChange,
    /// When the attributes were asked for that are known.
    answered: LastAsked,
    /// The same when it was last looked for capabilities: see [`Node::may_have_capabilities`].
    checked: LastAsked,
    /// For a directory: whether a listing is to come with attributes, as its names are looked up anyway.
    want_plus: Atomic<i32>,
    /// Whether a process has ever asked the daemon for a lock on it.
    locked: Atomic<i32>,
    /// For a directory: what is kept of its listing.
    listing: SetOnce<Pin<KBox<Listing>>>,
    /// For a file that is mapped from the window: how the window knows it.
    mapped: SetOnce<Arc<MappedFile>>,
    /// For a symbolic link: its target, where that may be cached.
    pub(crate) target: SetOnce<Target>,
}

impl Node {
    /// The data of a new inode.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            known: SetOnce::new(),
            generation: Atomic::new(0),
            blksize: Atomic::new(0),
            freshness: Arc::new(
                Freshness::new(), GFP_KERNEL)?,
            writers <- Writers::new(),
            keep_cache: KeepCache::unknown(),
            walk: Atomic::new(0),
            changed_attributes: LastChange::new(),
            read: LastChange::new(),
            answered: LastAsked::new(),
            checked: LastAsked::new(),
            want_plus: Atomic::new(0),
            locked: Atomic::new(0),
            listing: SetOnce::new(),
            mapped: SetOnce::new(),
            target: SetOnce::new(),
        })
    }

    /// The inode of the daemon, once it is known.
    pub(crate) fn known(&self) -> Option<&Arc<Known>> {
        self.known.as_ref()
    }

    /// It is this inode of the daemon, at this generation: set once, before anybody can find it.
    pub(crate) fn identify(&self, known: Arc<Known>, generation: u64) {
        self.known.populate(known);
        self.generation.store(generation, ordering::Relaxed);
    }

    /// The generation of the inode of the daemon.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(ordering::Relaxed)
    }

    /// It is mapped from the window, which knows it like this: set once, before anybody can find it.
    pub(crate) fn is_mapped_as(&self, file: Arc<MappedFile>) {
        self.mapped.populate(file);
    }

    /// How the window knows it, if it is mapped from there.
    pub(crate) fn mapped(&self) -> Option<&Arc<MappedFile>> {
        self.mapped.as_ref()
    }

    /// The preferred size of an access in bytes, if the daemon has one. Not that of the kernel (`i_blkbits`), which is a page: DAX
    /// relies on it.
    pub(crate) fn blksize(&self) -> Option<u32> {
        let told = self.blksize.load(ordering::Relaxed);
        told.checked_ilog2().map(|bits| 1 << bits)
    }

    /// The daemon has told this preferred size.
    pub(crate) fn set_blksize(&self, bytes: u32) {
        self.blksize.store(bytes, ordering::Relaxed);
    }

    /// How long the attributes are good.
    pub(crate) fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// The last OPEN's word on its cached contents.
    pub(crate) fn keep_cache(&self) -> &KeepCache {
        &self.keep_cache
    }

    /// Its handles that can write.
    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Size or contents have been changed through this kernel: attributes that were asked for before may not show it, so their
    /// size and times are not taken over.
    pub(crate) fn changed(&self) {
        self.freshness.changed();
        self.freshness.expire();
    }

    /// The daemon knows size and times as they are here, as of what was `asked` for. It does away with the doubts that its own
    /// changes have raised, not with those about what others do: the attributes are good as long as they would have been.
    pub(crate) fn caught_up(&self, asked: Asked) {
        let overtaken = self.is_overtaken(asked);
        // What others asked for before does not undo it.
        self.freshness.changed();
        let since = Asked::now();
        self.freshness.restore();
        if overtaken || self.is_overtaken(since) {
            self.freshness.expire();
        }
    }

    /// Attributes other than the size have been changed through this kernel, or may have been: what was asked for before is
    /// not taken over.
    pub(crate) fn changed_attributes(&self) {
        self.changed_attributes.is_now();
        self.freshness.expire_all();
    }

    /// Names in the directory have been changed through this kernel, or may have been: its size, times and links, but not who
    /// may use it, so that the next use needs no GETATTR first.
    pub(crate) fn changed_names(&self) {
        self.changed_attributes.is_now();
        self.freshness.expire();
    }

    /// Whether what was asked for then may be older than a change of attributes.
    pub(crate) fn is_out_of_date(&self, asked: Asked) -> bool {
        self.changed_attributes.is_after(asked) || is_doubted(asked)
    }

    /// Attributes that have been taken over are good for `ttl`.
    pub(crate) fn renew(&self, ttl: Ttl) {
        self.freshness.renew(ttl);
    }

    /// The daemon is about to be asked for contents, which may change the time of last access. What is read of the page cache the
    /// daemon does not learn of.
    pub(crate) fn reads(&self) {
        self.read.is_now();
    }

    /// The current task has come to the inode to open it, with attributes that were `asked` for on the way, or with those that
    /// there were. Callable from any context.
    ///
    /// [`Node::take_walk_to_open`] makes use of that: a task opens what it comes to before it comes anywhere else. Of tasks that do
    /// so at the same time, the last one counts.
    pub(crate) fn walks_to_open(&self, asked: Option<Asked>) {
        let me = (current!().pid() as u64) << WALK_ASKED_BITS;
        let word = asked
            .map(Asked::number)
            .filter(|number| *number < 1 << WALK_ASKED_BITS);
        match word {
            Some(number) => self.walk.store(me | number, ordering::Relaxed),
            // Mostly it is not set, and then the memory need not move to this CPU.
            None if self.walk.load(ordering::Relaxed) != 0 => self.walk.store(0, ordering::Relaxed),
            None => {}
        }
    }

    /// When attributes were asked for by the walk of the current task that has led to this inode, if it has asked.
    pub(crate) fn take_walk_to_open(&self) -> Option<Asked> {
        let word = self.walk.load(ordering::Relaxed);
        if word == 0 || word >> WALK_ASKED_BITS != current!().pid() as u64 {
            return None;
        }
        self.walk.store(0, ordering::Relaxed);
        Some(Asked::of_number(word & ((1 << WALK_ASKED_BITS) - 1)))
    }

    /// Whether the attributes that are known were asked for before.
    pub(crate) fn is_older_than(&self, asked: Asked) -> bool {
        self.answered.get() < asked
    }

    /// Attributes are known as of then, the time of last access among them.
    pub(crate) fn answered(&self, asked: Asked) {
        self.answered.set(asked);
    }

    /// Whether attributes are known already that were asked for later. Replies can overtake each other.
    pub(crate) fn knows_later(&self, asked: Asked) -> bool {
        asked < self.answered.get()
    }

    /// Whether [everything was doubted](crate::session::epoch::doubt_everything) since the attributes were asked for that are
    /// known.
    pub(crate) fn is_doubted(&self) -> bool {
        is_doubted(self.answered.get())
    }

    /// Whether attributes have been asked for since this was asked last: somebody else may have given the file capabilities by
    /// then. To be called with the inode locked (`i_rwsem`).
    pub(crate) fn may_have_capabilities(&self) -> bool {
        let answered = self.answered.get();
        let may = self.checked.get() != answered;
        self.checked.set(answered);
        may
    }

    /// Whether contents were asked for since the time of last access was.
    pub(crate) fn was_read(&self) -> bool {
        self.read.is_after(self.answered.get())
    }

    /// Whether what was asked for then may be older than a change.
    pub(crate) fn is_overtaken(&self, asked: Asked) -> bool {
        self.freshness.is_overtaken(asked)
    }

    /// Names of the directory are looked up one by one: who does that is served better by listings with attributes.
    pub(crate) fn names_wanted(&self) {
        // Mostly it is set already, and then the memory need not move to this CPU.
        if self.want_plus.load(ordering::Relaxed) == 0 {
            self.want_plus.store(1, ordering::Relaxed);
        }
    }

    /// Whether names were wanted since this was asked last.
    pub(crate) fn take_names_wanted(&self) -> bool {
        self.want_plus.xchg(0, ordering::Relaxed) != 0
    }

    /// A process asks the daemon for a lock.
    pub(crate) fn locked(&self) {
        self.locked.store(1, ordering::Relaxed);
    }

    /// Whether a process may have a lock that the daemon keeps.
    pub(crate) fn may_be_locked(&self) -> bool {
        self.locked.load(ordering::Relaxed) != 0
    }

    /// Whether it is this inode of the daemon.
    pub(crate) fn stands_for(&self, node: NodeId) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.node() == node)
    }

    /// The kept records of a directory, none at first. Sleeps.
    pub(crate) fn listing(&self) -> Result<Pin<&Listing>> {
        if self.listing.as_ref().is_none() {
            let new = KBox::pin_init(Listing::new(), GFP_KERNEL)?;
            // Somebody else may have been faster.
            self.listing.populate(new);
        }
        self.listing
            .as_ref()
            .map(|listing| listing.as_ref())
            .ok_or(ENOMEM)
    }

    /// Nothing of a directory is kept any longer. Sleeps.
    pub(crate) fn forget_listing(&self, dir: &Inode<VirtioFs>) {
        if let Some(listing) = self.listing.as_ref() {
            listing.forget(dir);
        }
    }
}
