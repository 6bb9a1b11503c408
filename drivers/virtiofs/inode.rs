// SPDX-License-Identifier: GPL-2.0

//! Inodes and their attributes.
//!
//! An inode of this kernel stands for one nodeid of the daemon, at one generation. A nodeid that comes back with another
//! generation, or as another type of file, is another file: the inode that stood for it is marked stale and left to its
//! users.
//!
//! Locks, outermost first: `i_rwsem` (VFS), `invalidate_lock` (page cache), `i_lock` around changes of attributes.

use crate::{
    cred::caller,
    dax::{
        self,
        Faults,
        MappedFile, //
    },
    dir::Directory,
    epoch::{
        is_doubted,
        Asked,
        LastAsked,
        LastChange, //
    },
    file::{
        DirectoryFiles,
        RegularFiles, //
    },
    filesystem::VirtioFs,
    forget::Known,
    freshness::{
        Freshness,
        KeepCache, //
    },
    killpriv,
    listing::Listing,
    page_cache::Pages,
    session::Session,
    symlink::{
        Symlink,
        Target, //
    },
    writeback,
    writers::Writers, //
};
use core::pin::Pin;
use fuse_proto::{
    Attr,
    AttrFlags,
    Entry,
    Fh,
    FileType,
    Getattr,
    InitFlags,
    NodeId,
    Ttl, //
};
use kernel::{
    current,
    page::PAGE_SIZE,
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
use vfs::{
    inode::{
        AttrsMut,
        Lookup,
        NewInode, //
    },
    time::Timespec,
    Inode,
    InodeRef,
    SuperBlock, //
};

/// Bits of [`Node::walk`] for when attributes were asked for; the others are for the task.
const WALK_ASKED_BITS: u32 = 42;

/// How often attributes are asked for at most that change all the while.
const MAX_REFRESHES: usize = 4;

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
    pub(crate) listing: SetOnce<Pin<KBox<Listing>>>,
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

    /// The daemon knows size and times as they are here, as of what was `asked` for. It does away with the doubts that its own changes
    /// have raised, not with those about what others do: the attributes are good as long as they would have been.
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

    /// The current task has come to the inode to open it, with attributes that were `asked` for on the way, or with those that there
    /// were. Callable from any context.
    ///
    /// [`Node::take_walk_to_open`] makes use of that: a task opens what it comes to before it comes anywhere else. Of tasks that do so
    /// at the same time, the last one counts.
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

    /// Whether [everything was doubted](crate::epoch::doubt_everything) since the attributes were asked for that are known.
    pub(crate) fn is_doubted(&self) -> bool {
        is_doubted(self.answered.get())
    }

    /// Whether attributes have been asked for since this was asked last: somebody else may have given the file capabilities by then.
    /// To be called with the inode locked (`i_rwsem`).
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

    fn stands_for(&self, node: NodeId) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.node() == node)
    }
}

/// What has become of attributes that the daemon sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The inode has them, or later ones.
    Over,
    /// They are older than a change through this kernel: the inode does not have all of them.
    Overtaken,
}

/// What the rest of the driver asks of an inode.
pub(crate) trait NodeInode {
    /// The session it belongs to.
    fn session(&self) -> Result<&Arc<Session>>;
    /// The inode of the daemon.
    fn known(&self) -> Result<&Arc<Known>>;
    /// Its nodeid; `ESTALE` when what it stood for is gone.
    fn node_id(&self) -> Result<NodeId>;
    /// Whether an entry that the daemon sent is this inode, at the same generation.
    fn is_same(&self, entry: &Entry) -> bool;
    /// Takes over attributes that the daemon sent, and says what has become of them. Sleeps.
    fn update(&self, attr: &Attr, ttl: Ttl, asked: Asked) -> Result<Taken>;
    /// Drops what is cached of the contents and not dirty, and the page with the `end` of the file when it is dirty, too. Sleeps;
    /// a fatal signal ends that with `EINTR`.
    fn drop_pages(&self, end: i64) -> Result;
    /// Asks the daemon for the attributes once, of the open file `fh` if there is one. They are returned if the inode does not have
    /// all of them. Sleeps.
    fn ask(&self, fh: Option<Fh>) -> Result<Option<Attr>>;
    /// Asks the daemon for the attributes, of the open file `fh` if there is one, until the inode has them. Sleeps.
    fn refresh(&self, fh: Option<Fh>) -> Result;
    /// Whether the attributes are good, so that `refresh_if_expired` does not ask.
    fn is_fresh(&self) -> bool;
    /// As `refresh`, if they are not good any more.
    fn refresh_if_expired(&self, fh: Option<Fh>) -> Result;
}

impl NodeInode for Inode<VirtioFs> {
    fn session(&self) -> Result<&Arc<Session>> {
        self.super_block().data().session()
    }

    fn known(&self) -> Result<&Arc<Known>> {
        self.data().known.as_ref().ok_or(ESTALE)
    }

    fn node_id(&self) -> Result<NodeId> {
        if self.is_stale() {
            return Err(ESTALE);
        }
        Ok(self.known()?.node())
    }

    fn is_same(&self, entry: &Entry) -> bool {
        !self.is_stale()
            && self.data().stands_for(entry.node)
            && self.data().generation.load(ordering::Relaxed) == entry.generation
            && u32::from(self.file_type().mode()) == entry.attr.kind.mode()
    }

    fn update(&self, attr: &Attr, ttl: Ttl, asked: Asked) -> Result<Taken> {
        if u32::from(self.file_type().mode()) != attr.kind.mode() {
            // Another file has taken its place.
            self.mark_stale();
            return Err(ESTALE);
        }
        let size = i64::try_from(attr.size)?;
        let is_cached = attr.kind == FileType::Regular && !self.is_dax();
        let auto_inval = self.session()?.has(InitFlags::AUTO_INVAL_DATA);
        let freshness = &self.data().freshness;
        let mut dropped = None;
        let mut locked = loop {
            let locked = self.lock();
            if self.data().knows_later(asked) {
                return Ok(Taken::Over);
            }
            if self.data().is_out_of_date(asked) {
                return Ok(Taken::Overtaken);
            }
            // Other times mean something where the daemon says so, or when they may be those of a change that was given up here.
            let times_matter = auto_inval || self.data().is_doubted();
            let seen = (self.size(), self.mtime());
            let changed = size != seen.0 || times_matter && timespec(attr.mtime) != seen.1;
            let drops = changed
                && is_cached
                && dropped != Some(seen)
                && self.has_pages()
                && !self.data().is_overtaken(asked)
                && !writeback::is_ahead(self);
            if !drops {
                break locked;
            }
            drop(locked);
            // Before the new size and times are there to be seen: a page has zeroes behind the end of the file as it was when it was
            // read, and old contents before it.
            self.drop_pages(size.min(seen.0))?;
            dropped = Some(seen);
        };
        let (old_size, old_mtime) = (self.size(), self.mtime());
        let old_size = old_size.max(freshness.take_cut());
        let doubted = self.data().is_doubted();
        let mut attrs = locked.attrs();
        set_attributes(&mut attrs, attr);
        self.data().answered(asked);
        if self.data().is_overtaken(asked) {
            freshness.was_cut(old_size);
            return Ok(Taken::Overtaken);
        }
        let ahead = writeback::is_ahead(self);
        if ahead {
            attrs.set_blocks(attr.blocks);
        } else if freshness.knows_later_size(asked) && size != self.size() {
            // A READ has come to the end of the file since.
            freshness.was_cut(old_size);
            freshness.expire();
            return Ok(Taken::Overtaken);
        } else {
            set_size_and_times(&mut attrs, attr);
            freshness.size_known(asked);
        }
        drop(locked);
        freshness.renew(ttl);
        if self.data().is_overtaken(asked) || self.data().is_out_of_date(asked) {
            // It was changed since this was looked at.
            freshness.expire_all();
        }

        if attr.kind == FileType::Regular && self.super_block().data().window().is_some() {
            let dax = dax::applies(self.session()?, self.super_block().data().dax(), attr.flags);
            if dax != self.is_dax() {
                // An inode is one or the other as long as it lives.
                self.mark_dont_cache();
            }
        }
        let times_matter = doubted || auto_inval;
        let changed = old_size != size || times_matter && old_mtime != timespec(attr.mtime);
        if self.is_dax() {
            // What is seen is what the host has, but not beyond the end.
            if size < old_size {
                self.unmap_from(size);
            }
            if changed {
                dax::outdate_by_host(self);
            }
            return Ok(Taken::Over);
        }
        if is_cached && !ahead && size < old_size && self.has_pages() {
            // What lies behind the end cannot be reached through mappings any more. Where writes are kept here, what has made the file
            // longer again since then is dirty, and stays.
            let done = match writeback::keeps(self) {
                true => self.drop_pages(size),
                false => self
                    .wait_for_pages(size, i64::MAX)
                    .map(|()| self.truncate_pagecache(size)),
            };
            if done.is_err() {
                // A task that was killed leaves that to others.
                freshness.was_cut(old_size);
                freshness.expire();
                return Err(EINTR);
            }
        }
        Ok(Taken::Over)
    }

    fn drop_pages(&self, end: i64) -> Result {
        self.wait_for_pages(0, i64::MAX)?;
        // Of what is dirty the page with the end goes, too: it was stored to through a mapping. Errors stay with the file.
        if self.invalidate_pages() == Err(EBUSY)
            && !writeback::keeps(self)
            && self.write_and_wait_range(end, end) != Err(EINTR)
        {
            let _ = self.invalidate_range(end, end);
        }
        Ok(())
    }

    fn ask(&self, fh: Option<Fh>) -> Result<Option<Attr>> {
        let op = Getattr {
            node: self.node_id()?,
            fh,
        };
        let asked = Asked::now();
        let reply = self.session()?.call(&op, &caller(self.super_block()))?;
        Ok(match self.update(&reply.attr, reply.ttl, asked)? {
            Taken::Over => None,
            Taken::Overtaken => Some(reply.attr),
        })
    }

    fn refresh(&self, fh: Option<Fh>) -> Result {
        for _ in 0..MAX_REFRESHES {
            let asked = Asked::now();
            self.ask(fh)?;
            if !self.data().is_out_of_date(asked) {
                break;
            }
        }
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        // Users of a stale inode are told so, however good its attributes were.
        self.data().freshness.is_fresh() && !self.is_stale()
    }

    fn refresh_if_expired(&self, fh: Option<Fh>) -> Result {
        if self.is_fresh() {
            return Ok(());
        }
        self.refresh(fh)
    }
}

pub(crate) fn timespec(time: fuse_proto::Time) -> Timespec {
    Timespec::new(time.sec, time.nsec)
}

pub(crate) fn set_size_and_times(attrs: &mut AttrsMut<'_, VirtioFs>, attr: &Attr) {
    attrs.set_size(i64::try_from(attr.size).unwrap_or(i64::MAX));
    attrs.set_blocks(attr.blocks);
    attrs.set_mtime(timespec(attr.mtime));
    attrs.set_ctime(timespec(attr.ctime));
}

/// Sets what the daemon said but for size and times. ACLs are as old as the attributes: they go.
pub(crate) fn set_attributes(attrs: &mut AttrsMut<'_, VirtioFs>, attr: &Attr) {
    attrs.forget_acls();
    attrs.set_permissions(attr.permissions);
    attrs.set_owner(attr.uid, attr.gid);
    attrs.set_nlink(attr.nlink);
    attrs.set_atime(timespec(attr.atime));
    attrs.data().blksize.store(attr.blksize, ordering::Relaxed);
}

/// The inode for `known`, with attributes that the daemon sent. The lookup that was counted for it is kept, or
/// given back if it fails. Sleeps.
pub(crate) fn get(
    sb: &SuperBlock<VirtioFs>,
    known: Arc<Known>,
    generation: u64,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    let node = known.node();
    loop {
        let mine = known.clone();
        let inode = sb.get_inode(
            node.get(),
            |data| data.stands_for(node),
            |data| {
                data.known.populate(mine);
                data.generation.store(generation, ordering::Relaxed);
            },
        );
        match inode {
            Ok(Lookup::New(inode)) => {
                let session = sb.data().session()?;
                session.instance().inodes().come();
                let inode = complete(inode, attr, ttl, asked)?;
                if node != NodeId::ROOT {
                    sb.data().volume()?.inode_made(sb.data(), &inode);
                }
                return Ok(inode);
            }
            Ok(Lookup::Cached(inode)) => {
                let same = inode.data().generation.load(ordering::Relaxed) == generation
                    && u32::from(inode.file_type().mode()) == attr.kind.mode();
                if !same {
                    inode.mark_stale();
                    continue;
                }
                inode.known()?.looked_up();
                inode.update(attr, ttl, asked)?;
                return Ok(inode);
            }
            Err(e) => {
                if known.unshare() {
                    sb.data().session()?.forget(known);
                }
                return Err(e);
            }
        }
    }
}

/// The inode for a nodeid, if it is in the cache. Sleeps.
pub(crate) fn find(sb: &SuperBlock<VirtioFs>, node: NodeId) -> Option<InodeRef<VirtioFs>> {
    sb.find_inode(node.get(), |data| data.stands_for(node))
}

/// The root of a superblock.
pub(crate) fn root(
    sb: &SuperBlock<VirtioFs>,
    known: Arc<Known>,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    if attr.kind != FileType::Directory {
        pr_err!(
            "{:?}: the root is not a directory\n",
            sb.data().session()?.instance().tag()
        );
        return Err(EIO);
    }
    let mut attr = *attr;
    // The mount that it marks has been made.
    attr.flags = attr.flags.without(AttrFlags::SUBMOUNT);
    get(sb, known, 0, &attr, ttl, asked)
}

fn complete(
    mut inode: NewInode<VirtioFs>,
    attr: &Attr,
    ttl: Ttl,
    asked: Asked,
) -> Result<InodeRef<VirtioFs>> {
    inode.set_ino(attr.ino);
    inode.set_generation(inode.data().generation.load(ordering::Relaxed) as u32);
    let mount = inode.super_block().data();
    let session = mount.session()?;
    let regular = attr.kind == FileType::Regular;
    let dax = regular && mount.window().is_some() && dax::applies(session, mount.dax(), attr.flags);
    let keeps_times = regular && !dax && session.has(InitFlags::WRITEBACK_CACHE);
    if keeps_times {
        inode.set_atime_remote();
    } else {
        inode.set_times_remote();
    }
    set_attributes(&mut inode.attrs(), attr);
    set_size_and_times(&mut inode.attrs(), attr);
    inode.data().answered(asked);
    inode.data().freshness.size_known(asked);
    // What was asked for before the last inode went may be from before a change through it, if it was the same.
    if !inode.super_block().data().evicted_since(asked) {
        inode.data().freshness.renew(ttl);
    }
    let session = inode.super_block().data().session()?;
    let by_daemon = killpriv::by_daemon(session);
    let submounts = session.has(InitFlags::SUBMOUNTS);
    // A folio is read by one request, and one is enough to write it.
    let pages = session.max_payload().min(session.max_write()) / PAGE_SIZE;
    let passive_acls = !session.has(InitFlags::POSIX_ACL);
    if passive_acls && attr.kind != FileType::Symlink {
        inode.set_acls_passive();
    }
    match attr.kind {
        FileType::Directory => {
            if submounts && attr.flags.contains(AttrFlags::SUBMOUNT) {
                inode.set_automount();
            }
            Ok(inode.into_directory::<Directory, DirectoryFiles>())
        }
        FileType::Regular if dax => {
            let known = inode.data().known.as_ref().ok_or(ESTALE)?.clone();
            let gate = inode.super_block().data().gate().clone();
            let file = MappedFile::new(known, inode.weak()?, gate)?;
            inode.data().mapped.populate(file);
            Ok(inode.into_dax::<Attributes, RegularFiles, Faults>())
        }
        FileType::Regular => {
            let order = pages.checked_ilog2().unwrap_or(0);
            inode.set_max_folio_order(order);
            if by_daemon {
                inode.set_nosec();
            }
            // The device reads folios while they are written back.
            inode.set_stable_writes();
            inode.set_writeback_may_stall();
            Ok(inode.into_regular::<Attributes, RegularFiles, Pages>())
        }
        FileType::Symlink => Ok(inode.into_symlink::<Symlink>()),
        FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {
            let kind = vfs::attr::FileType::from_mode(attr.kind.mode()).ok_or(EIO)?;
            inode.into_special::<Attributes>(kind, attr.rdev.to_wire())
        }
    }
}

/// Implements what the VFS asks of every inode for `$type`, which the operation tables of all kinds of inodes are made with.
macro_rules! impl_inode_operations {
    ($type:ty) => {
        #[vtable]
        impl ::vfs::inode::Operations for $type {
            type FileSystem = VirtioFs;

            fn getattr(
                inode: &Inode<VirtioFs>,
                stat: &mut ::vfs::attr::Stat<'_>,
                sync: ::vfs::attr::StatSync,
            ) -> Result {
                $crate::attributes::getattr(inode, stat, sync)
            }

            fn setattr(
                inode: &Inode<VirtioFs>,
                attrs: &mut ::vfs::attr::NewAttributes<'_, VirtioFs>,
            ) -> Result {
                $crate::setattr::setattr(inode, attrs)
            }

            fn permission(
                inode: &Inode<VirtioFs>,
                idmap: &::vfs::cred::Idmap,
                mask: ::vfs::inode::AccessMask,
            ) -> Result {
                $crate::attributes::permission(inode, idmap, mask)
            }

            fn permission_rcu(
                inode: ::vfs::inode::RcuInode<'_, VirtioFs>,
                idmap: &::vfs::cred::Idmap,
                mask: ::vfs::inode::AccessMask,
            ) -> Result {
                $crate::attributes::permission_rcu(inode, idmap, mask)
            }

            fn flags(
                inode: &Inode<VirtioFs>,
                wanted: ::vfs::inode::InodeFlags,
            ) -> Result<::vfs::inode::InodeFlags> {
                $crate::ioctl::flags(inode, wanted)
            }

            fn set_flags(inode: &Inode<VirtioFs>, flags: ::vfs::inode::InodeFlags) -> Result {
                $crate::ioctl::set_flags(inode, flags)
            }

            fn listxattr(inode: &Inode<VirtioFs>, names: &mut ::vfs::xattr::Buffer<'_>) -> Result {
                $crate::xattr::list(inode, names)
            }

            fn get_acl(
                inode: &Inode<VirtioFs>,
                kind: ::vfs::acl::AclType,
            ) -> Result<Option<::vfs::acl::Acl>> {
                $crate::acl::get(inode, kind)
            }

            fn set_acl(
                idmap: &::vfs::cred::Idmap,
                inode: &Inode<VirtioFs>,
                kind: ::vfs::acl::AclType,
                acl: Option<&::vfs::acl::Acl>,
            ) -> Result {
                $crate::acl::set(idmap, inode, kind, acl)
            }
        }
    };
}
pub(crate) use impl_inode_operations;

/// Inodes that are neither directories nor symbolic links.
pub(crate) struct Attributes;

impl_inode_operations!(Attributes);
