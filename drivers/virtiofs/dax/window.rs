// SPDX-License-Identifier: GPL-2.0

//! The window of a session: what of which file it shows, and the requests that change that.
//!
//! What to do is decided by `dax_map`, under one spinlock, the window lock; this module sends the requests, sleeps and wakes.
//! While a request is under way the range has a *duty*: the token that says how it ended. A task that is killed leaves its
//! duty behind, and the late reply fulfils it.

use super::{
    copies::Copies,
    layout::bytes_of,
    mapped_file::MappedFile,
    outstanding::Outstanding,
    wait::{
        Awaited,
        Changes, //
    },
};
use crate::{
    request::Orphan,
    session::Session,
    superblock::VirtioFs, //
};
use dax_map::{
    buddy::Block,
    policy,
    Access,
    Advice,
    Config,
    Extent,
    Geometry,
    Ghost,
    Hit,
    Motion,
    Need,
    Order,
    Owner,
    Plan,
    ReclaimToken,
    Refused,
    RemapToken,
    ReserveToken,
    Slot,
    SlotId,
    Stale,
    Stream,
    Wait,
    Wake, //
};
use fuse_proto::{
    MapFlags,
    MapRange,
    Operation,
    Removemapping,
    Setupmapping, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        LockedBy,
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};
use kernel_ext::{
    dax::Memory,
    siphash::SipHash, //
};
use vfs::{
    dax::Patience,
    time::{
        jiffies_64,
        monotonic_ns, //
    },
    Inode, //
};

/// Milliseconds between two ticks of the window's clock. With each, ranges are tried again that had to stay because somebody has
/// pinned pages of them: whoever lets go of a page wakes those who wait for this very page (`free_zone_device_folio()`), and a task
/// that needs a range waits for whichever of many comes first.
const TICK: u32 = 1000;
/// How often ranges that nobody uses are looked for, in milliseconds.
pub(crate) const IDLE_CHECK: u32 = 20 * TICK;
/// Parts of files that are remembered for each range.
const GHOSTS_PER_RANGE: usize = 8;
/// Fewest ranges that there are. An instruction that copies from one mapping to another needs as many at the same time, where it lies
/// across two ranges in both: with fewer, it would have one taken for the other for ever. So none is larger than such a part of the
/// window.
const FEWEST_RANGES: usize = 4;
/// Wishes for a range that are not granted after the daemon has refused one.
const PAUSE: u32 = 32;

#[cfg(VIRTIOFS_KUNIT)]
#[path = "tests.rs"]
mod tests;

type Table = dax_map::Window<KVVec<Block>, KVVec<Slot>, KVVec<Ghost>>;

/// What the window has to be told about a request that is under way.
enum Duty {
    Map(ReserveToken),
    Remap(RemapToken),
    Remove(ReclaimToken),
}

/// How a request for ranges ended.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// It was carried out.
    Done,
    /// It was not sent.
    NotSent,
    /// The daemon refused it.
    Refused,
    /// There is no telling.
    Unknown,
}

pub(super) struct State {
    pub(super) table: Table,
    /// For each range whose it is.
    pub(super) files: KVVec<Option<Arc<MappedFile>>>,
    /// For each range what is under way.
    duties: KVVec<Option<Duty>>,
    /// No range is made, and none is used any more.
    pub(super) closed: bool,
    /// The daemon cannot map.
    unable: bool,
    /// Wishes for ranges that are not granted.
    pause: u32,
    next_tick: u64,
    /// Nanoseconds that tasks have waited for others' ranges.
    pub(super) waited: u64,
}

impl State {
    /// That of a window of `len` bytes, see [`Window::new`].
    fn new(len: u64, alignment: u64, ranges: usize) -> Result<Self> {
        let part = len
            .checked_div(FEWEST_RANGES as u64)
            .and_then(Order::within);
        let largest = part.ok_or(EINVAL)?.min(policy::MAX_ORDER);
        let geometry = Geometry::new(len, alignment, largest).map_err(|_| EINVAL)?;
        let blocks = usize::try_from(geometry.blocks())?;
        let ranges = ranges.max(FEWEST_RANGES).min(blocks);
        let table = Table::new(
            Config {
                geometry,
                seed: SipHash::random().of(0),
            },
            KVVec::from_elem(Block::default(), blocks, GFP_KERNEL)?,
            KVVec::from_elem(Slot::default(), ranges, GFP_KERNEL)?,
            KVVec::from_elem(
                Ghost::default(),
                ranges.saturating_mul(GHOSTS_PER_RANGE),
                GFP_KERNEL,
            )?,
        )
        .map_err(|_| EINVAL)?;
        let mut files = KVVec::with_capacity(ranges, GFP_KERNEL)?;
        let mut duties = KVVec::with_capacity(ranges, GFP_KERNEL)?;
        for _ in 0..ranges {
            files.push(None, GFP_KERNEL)?;
            duties.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            table,
            files,
            duties,
            closed: false,
            unable: false,
            pause: 0,
            next_tick: 0,
            waited: 0,
        })
    }

    /// The range for an access, if it is ready and easy to find, and what is to be mapped ahead; or what the access means.
    #[inline]
    fn hit(&mut self, run: &Run, access: &Access) -> Result<(Hit, Option<Plan>), Motion> {
        let max = self.table.geometry().max();
        let motion = run.0.access_mut(self).note(access, max);
        let hit = self.table.hit(access, motion).ok_or(motion)?;
        let next = run.0.access_mut(self).found(access, motion, &hit, max);
        let ahead = next.and_then(|offset| self.table.plan_ahead(access, offset));
        Ok((hit, ahead))
    }

    /// What else is to be done with it. The lock guards the stream as well, so that it is copied.
    fn advise(&mut self, run: &Run, access: &Access, motion: Motion) -> Advice {
        let mut stream = *run.0.access(self);
        let advice = self.table.advise(&mut stream, access, motion);
        *run.0.access_mut(self) = stream;
        advice
    }

    /// Whether the daemon cannot map.
    pub(super) fn is_unable(&self) -> bool {
        self.unable
    }

    pub(super) fn file(&self, slot: SlotId) -> Option<&Arc<MappedFile>> {
        self.files.get(slot.get() as usize)?.as_ref()
    }

    /// A request is about to be sent for a range.
    fn undertake(&mut self, slot: SlotId, duty: Duty) {
        if let Some(place) = self.duties.get_mut(slot.get() as usize) {
            *place = Some(duty);
        }
    }

    /// REMOVEMAPPING is about to be sent for a range, and for those of the same file that `another` picks, so many at most: these,
    /// and their file. `extents` has room for them.
    pub(super) fn undertake_removals(
        &mut self,
        token: ReclaimToken,
        most: usize,
        extents: &mut KVec<Extent>,
        another: impl Fn(&mut Table, Owner) -> Option<ReclaimToken>,
    ) -> Option<Arc<MappedFile>> {
        let first = self.undertake_removal(token);
        let _ = extents.push_within_capacity(first);
        while extents.len() < most {
            let Some(token) = another(&mut self.table, first.owner) else {
                break;
            };
            let _ = extents.push_within_capacity(self.undertake_removal(token));
        }
        self.file(first.slot).cloned()
    }

    /// REMOVEMAPPING is about to be sent for a range.
    pub(super) fn undertake_removal(&mut self, token: ReclaimToken) -> Extent {
        let extent = *token.extent();
        self.undertake(extent.slot, Duty::Remove(token));
        extent
    }

    /// Whether the daemon has refused to map lately, or cannot, so that it is not asked for this.
    fn grants_nothing(&mut self, access: &Access) -> bool {
        let either = access.need == Need::Either;
        if !self.unable && (self.pause == 0 || !either) {
            return false;
        }
        if either {
            self.pause = self.pause.saturating_sub(1);
            self.table.count_bypass(access.write);
        }
        true
    }

    /// Whether it can be asked for what is to be mapped ahead.
    fn grants_ahead(&self) -> bool {
        !self.unable && self.pause == 0
    }

    fn fulfil(&mut self, slot: SlotId, ending: Ending) -> Wake {
        let index = slot.get() as usize;
        let Some(duty) = self.duties.get_mut(index).and_then(Option::take) else {
            return Wake::default();
        };
        let table = &mut self.table;
        let (wake, shows) = match (duty, ending) {
            (Duty::Map(token), Ending::Done) => (table.commit(token, false), true),
            (Duty::Map(token), Ending::Unknown) => (table.setup_unknown(token), false),
            (Duty::Map(token), _) => (table.setup_failed(token), false),
            (Duty::Remap(token), Ending::Done) => (table.remap_done(token), true),
            (Duty::Remap(token), Ending::NotSent) => (table.remap_cancelled(token), true),
            (Duty::Remap(token), _) => (table.remap_unknown(token), false),
            (Duty::Remove(token), Ending::Done) => (table.removed(token), false),
            (Duty::Remove(token), Ending::NotSent) => (table.remove_cancelled(token), true),
            (Duty::Remove(token), _) => (table.remove_unknown(token), false),
        };
        // After the window was given up, ranges belong to their files until these have gone.
        let stale = matches!(wake, Err(Stale));
        if let Some(file) = self.files.get_mut(index).filter(|_| !shows && !stale) {
            *file = None;
        }
        wake.unwrap_or_default()
    }
}

/// How an open file has been read and written lately, for its window to know. Protected by the window lock.
///
/// It is only ever used with the window that made it, as [`LockedBy`] wants: a file's session stays the same, and so its window.
pub(crate) struct Run(LockedBy<Stream, State>);

/// The window of a session.
#[pin_data]
pub(crate) struct Window {
    memory: Arc<Memory>,
    #[pin]
    state: SpinLock<State>,
    changes: Changes,
    #[pin]
    copies: Copies,
    outstanding: Arc<Outstanding>,
    /// A task reclaims in the background.
    reclaiming: Atomic<i32>,
    complained: Atomic<i32>,
}

/// A range that shows what was asked for, and goes on to do so as long as this lives. Whoever has one must not wait for
/// anything that somebody without a range may hold.
pub(super) struct Pinned<'a> {
    window: &'a Window,
    pub(super) hit: Hit,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let wake = self.window.state.lock().table.unpin(self.hit.slot);
        self.window.wake(wake);
    }
}

/// What to do with an access.
pub(super) enum Step<'a> {
    /// Use this range.
    Use(Pinned<'a>),
    /// Make one.
    Map(Plan),
    /// Make the one that is there writable, or longer.
    Remap(Plan),
    /// Wait for a change.
    Wait(Awaited),
    /// Ask the daemon for so many bytes.
    Bypass(u64),
    /// Show a copy of the page.
    Copy,
    /// It cannot be had.
    Nothing,
}

/// A request for ranges whose waiter was killed.
pub(crate) struct LostMapping {
    window: Arc<Window>,
    slots: KVec<SlotId>,
}

impl LostMapping {
    /// The daemon has never had it.
    pub(crate) fn cancel(&self) {
        self.window.settle(&self.slots, Ending::NotSent);
    }

    /// The daemon has answered.
    pub(crate) fn settle(&self, done: Result<(), fuse_proto::ReplyError>) {
        self.window.settle(&self.slots, ending_of(&done));
    }
}

fn ending_of(done: &Result<(), fuse_proto::ReplyError>) -> Ending {
    match done {
        Ok(()) => Ending::Done,
        Err(e) if e.is_malformed() => Ending::Unknown,
        Err(_) => Ending::Refused,
    }
}

impl Window {
    /// An empty one in `memory`, with ranges aligned to `alignment` bytes, of which there are `ranges` at most, or
    /// [`FEWEST_RANGES`] if that is more. Sleeps.
    ///
    /// Errors: `EINVAL` when there is no room for so many, `ENOMEM`.
    pub(crate) fn new(memory: Arc<Memory>, alignment: u64, ranges: usize) -> Result<Arc<Self>> {
        let state = State::new(memory.len() as u64, alignment, ranges)?;
        let changes = Changes::new(state.files.len())?;
        let copies = Copies::new(memory.len())?;
        let outstanding = Outstanding::new()?;
        Arc::pin_init(
            pin_init!(Self {
                memory,
                state <- new_spinlock!(state, "Window::state"),
                changes,
                copies <- copies,
                outstanding,
                reclaiming: Atomic::new(0),
                complained: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The memory that it is a view of.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The requests for it that were not answered.
    pub(crate) fn outstanding(&self) -> &Arc<Outstanding> {
        &self.outstanding
    }

    /// The copies of pages of its files.
    pub(super) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(super) fn state(&self) -> &SpinLock<State> {
        &self.state
    }

    /// What happens from here on is not missed by [`wait`](Window::wait). To be called under the window lock.
    pub(super) fn awaited(&self, wait: Wait) -> Awaited {
        let seen = self.changes.of(wait).seen();
        Awaited { wait, seen }
    }

    pub(super) fn wake(&self, wake: Wake) {
        self.changes.wake(wake);
    }

    /// Wakes who waits for any change.
    pub(super) fn wake_any(&self) {
        self.wake(Wake {
            range: None,
            any: true,
        });
    }

    /// Wakes all.
    pub(super) fn wake_all(&self) {
        self.changes.wake_all();
    }

    /// Sleeps until what is awaited has happened, or a fatal signal ends it with `EINTR`. What pins pages of a range does
    /// not tell when it lets go, so it may also be the clock that has moved on.
    pub(super) fn wait(&self, awaited: Awaited) -> Result {
        let start = monotonic_ns();
        let event = self.changes.of(awaited.wait);
        let waited = event.wait_killable(awaited.seen, msecs_to_jiffies(TICK));
        let mut state = self.state.lock();
        state.waited = state
            .waited
            .saturating_add(monotonic_ns().saturating_sub(start));
        let wake = Self::tick_locked(&mut state);
        drop(state);
        self.wake(wake);
        waited
    }

    /// Whether it shows anything still: `ENODEV` after the device was unbound.
    pub(super) fn alive(&self) -> Result {
        match self.state.lock().closed {
            true => Err(ENODEV),
            false => Ok(()),
        }
    }

    /// Lets the window's clock move on, if it is time.
    pub(super) fn tick(&self) {
        let mut state = self.state.lock();
        let wake = Self::tick_locked(&mut state);
        drop(state);
        self.wake(wake);
    }

    #[inline]
    fn tick_locked(state: &mut State) -> Wake {
        let now = jiffies_64();
        match now.checked_sub(state.next_tick) {
            Some(late) => Self::tick_late(state, now, late),
            None => Wake::default(),
        }
    }

    /// It is `now`, and has been time for so long.
    #[inline(never)]
    fn tick_late(state: &mut State, now: u64, late: u64) -> Wake {
        let tick = msecs_to_jiffies(TICK) as u64;
        let missed = late.checked_div(tick).unwrap_or(0);
        state.next_tick = now.saturating_add(tick);
        let ticks = u32::try_from(missed).unwrap_or(u32::MAX);
        state.table.tick(ticks.saturating_add(1))
    }

    /// For a file of this window that was opened just now. Errors: `ENOMEM`.
    pub(crate) fn new_run(&self) -> Result<KBox<Run>> {
        let stream = LockedBy::new(&self.state, Stream::new());
        Ok(KBox::new(Run(stream), GFP_KERNEL)?)
    }

    /// What to do with an access, and what to map ahead of it. `run` is of this window.
    pub(super) fn access(&self, run: &Run, access: &Access) -> (Step<'_>, Option<Plan>) {
        let bypass = |len| match access.need {
            Need::Either => Step::Bypass(len),
            Need::Page | Need::Mapping => Step::Nothing,
        };
        let mut state = self.state.lock();
        if state.closed {
            return (bypass(access.len), None);
        }
        let wake = Self::tick_locked(&mut state);
        // Together they are as dax_map::Window::access(). Most are a hit, which goes no further.
        let motion = match state.hit(run, access) {
            Ok((hit, ahead)) => {
                let ahead = ahead.filter(|_| state.grants_ahead());
                drop(state);
                self.wake(wake);
                return (Step::Use(Pinned { window: self, hit }), ahead);
            }
            Err(motion) => motion,
        };
        let Advice { step, ahead } = state.advise(run, access, motion);
        let step = match step {
            dax_map::Step::Use(hit) => Step::Use(Pinned { window: self, hit }),
            dax_map::Step::Map(_) if state.grants_nothing(access) => bypass(access.len),
            dax_map::Step::Map(plan) => Step::Map(plan),
            dax_map::Step::Remap(plan) => Step::Remap(plan),
            dax_map::Step::Wait(wait) => Step::Wait(self.awaited(wait)),
            dax_map::Step::Bypass { .. } if access.need == Need::Page && !state.unable => {
                Step::Copy
            }
            dax_map::Step::Bypass { len } => bypass(len),
        };
        let ahead = ahead.filter(|_| state.grants_ahead());
        drop(state);
        self.wake(wake);
        (step, ahead)
    }

    /// A read or write goes to the daemon, as there is no range for it.
    pub(super) fn count_bypass(&self, write: bool) {
        self.state.lock().table.count_bypass(write);
    }

    /// Where a place of a file is in the window, for who has the range pinned.
    pub(super) fn locate(&self, file: &Arc<MappedFile>, offset: u64) -> Option<Extent> {
        self.state.lock().table.locate(file.owner(), offset)
    }

    /// Makes a range, for which others are given up if need be: then the access is to be tried again. Sleeps.
    ///
    /// With `must` it waits for room; without it, `EAGAIN`. Other errors: `EINTR` for a fatal signal, `ENXIO` beyond the end of
    /// the file, `ENOSPC` when there can never be room, `EIO` when the daemon refuses.
    pub(super) fn map(
        self: &Arc<Self>,
        session: &Arc<Session>,
        file: &Arc<MappedFile>,
        plan: &Plan,
        must: bool,
    ) -> Result {
        let mut plan = *plan;
        let extent = loop {
            let mut state = self.state.lock();
            // Who maps ahead does not hold the inode: nobody would ever take the range from one that is gone.
            if state.closed || file.is_evicted(&state) {
                return Err(ENODEV);
            }
            let refused = match state.table.reserve(&plan) {
                Ok(token) => {
                    let extent = *token.extent();
                    if let Some(place) = state.files.get_mut(extent.slot.get() as usize) {
                        *place = Some(file.clone());
                    }
                    state.undertake(extent.slot, Duty::Map(token));
                    break extent;
                }
                Err(refused) => refused,
            };
            if let (Refused::Wait(wait), true) = (refused, must) {
                let awaited = self.awaited(wait);
                drop(state);
                self.wait(awaited)?;
                continue;
            }
            drop(state);
            match refused {
                Refused::Changed => return Ok(()),
                Refused::PastEnd => return Err(ENXIO),
                Refused::Never => return Err(ENOSPC),
                Refused::Reclaim => {
                    if self.make_room(session)? == 0 && !must {
                        return Err(EAGAIN);
                    }
                    plan = plan.relaxed();
                }
                Refused::Wait(_) => return Err(EAGAIN),
            }
        };
        self.take_copies(file, &extent)
            .inspect_err(|_| self.settle(&[extent.slot], Ending::NotSent))?;
        self.setup(session, file, &extent)?;
        self.reclaim_ahead(session);
        session.keep_time();
        Ok(())
    }

    /// A range is about to show a part of a file: copies of it are shown no more. Sleeps; a fatal signal ends it with `EINTR`.
    fn take_copies(&self, file: &MappedFile, extent: &Extent) -> Result {
        if !file.copies().outdate() {
            return Ok(());
        }
        let (start, last) = bytes_of(extent)?;
        let held = file.hold().ok_or(ENODEV)?;
        let _lock = held.inode.lock_invalidate_killable()?;
        held.inode.unmap_range(start, last);
        Ok(())
    }

    /// Makes, in the background, a range that will be needed soon. Allocates, and so must not be called with a range pinned.
    pub(super) fn map_ahead(
        self: &Arc<Self>,
        session: &Arc<Session>,
        file: &Arc<MappedFile>,
        plan: Plan,
    ) {
        let (window, mapped, sender) = (self.clone(), file.clone(), session.clone());
        // It is a guess: nothing is lost without.
        let _ = session.instance().work().try_spawn(GFP_KERNEL, move || {
            let _ = window.map(&sender, &mapped, &plan, false);
        });
    }

    /// Makes the range that is there writable, or longer; as [`map`](Window::map). The inode is not locked.
    pub(super) fn remap(
        self: &Arc<Self>,
        session: &Arc<Session>,
        inode: &Inode<VirtioFs>,
        file: &Arc<MappedFile>,
        plan: &Plan,
        must: bool,
    ) -> Result {
        let mut state = self.state.lock();
        if state.closed {
            return Err(ENODEV);
        }
        let extent = match state.table.begin_remap(plan) {
            Ok(token) => {
                let extent = *token.extent();
                state.undertake(extent.slot, Duty::Remap(token));
                extent
            }
            Err(Refused::Wait(wait)) if must => {
                let awaited = self.awaited(wait);
                drop(state);
                return self.wait(awaited);
            }
            Err(refused) => {
                return match refused {
                    Refused::Changed | Refused::Reclaim => Ok(()),
                    Refused::PastEnd => Err(ENXIO),
                    Refused::Never => Err(ENOSPC),
                    Refused::Wait(_) => Err(EAGAIN),
                };
            }
        };
        drop(state);
        // The daemon takes away what is there before it shows the file anew.
        let patience = match must {
            true => Patience::UntilKilled,
            false => Patience::None,
        };
        let broken = inode
            .lock_invalidate_killable()
            .and_then(|mut lock| self.break_range(&mut lock, &extent, patience));
        if broken.is_err() {
            self.settle(&[extent.slot], Ending::NotSent);
            return Err(if must { EINTR } else { EAGAIN });
        }
        self.setup(session, file, &extent)
    }

    fn setup(
        self: &Arc<Self>,
        session: &Arc<Session>,
        file: &Arc<MappedFile>,
        extent: &Extent,
    ) -> Result {
        let flags = match extent.writable {
            true => MapFlags::READ.with(MapFlags::WRITE),
            false => MapFlags::READ,
        };
        let op = Setupmapping {
            node: file.known().node(),
            fh: None,
            foffset: extent.file_offset,
            len: extent.len,
            flags,
            moffset: extent.window_offset,
        };
        self.ask(session, &op, &[extent.slot])?.map_err(|e| {
            self.refused(session, e);
            // Whatever the daemon lacks: it is not this kernel that is short of memory.
            EIO
        })
    }

    /// SETUPMAPPING has failed.
    fn refused(&self, session: &Session, e: Error) {
        let unable = e == ENOSYS || e == EOPNOTSUPP;
        let mut state = self.state.lock();
        state.unable |= unable;
        state.pause = PAUSE;
        drop(state);
        if self.complained.xchg(1, ordering::Relaxed) == 0 {
            let tag = session.instance().tag();
            pr_warn!("{tag:?}: the daemon does not map files into the window: {e:?}\n");
        }
    }

    /// Sends REMOVEMAPPING for ranges of a file, which nothing shows any more, and for which there are duties. Sleeps.
    pub(super) fn unmap(
        self: &Arc<Self>,
        session: &Arc<Session>,
        file: &MappedFile,
        extents: &[Extent],
    ) -> Result {
        let prepare = || -> Result<(KVec<MapRange>, KVec<SlotId>)> {
            let mut ranges = KVec::with_capacity(extents.len(), GFP_KERNEL)?;
            let mut slots = KVec::with_capacity(extents.len(), GFP_KERNEL)?;
            for extent in extents {
                let range = MapRange {
                    moffset: extent.window_offset,
                    len: extent.len,
                };
                ranges.push(range, GFP_KERNEL)?;
                slots.push(extent.slot, GFP_KERNEL)?;
            }
            Ok((ranges, slots))
        };
        let (ranges, slots) = prepare().inspect_err(|_| {
            for extent in extents {
                self.settle(&[extent.slot], Ending::NotSent);
            }
        })?;
        let op = Removemapping {
            node: file.known().node(),
            ranges: &ranges,
        };
        // Whatever the daemon says: it is not this kernel that is short of memory, nor this task that is about to die.
        self.ask(session, &op, &slots)?.map_err(|_| EIO)
    }

    /// Sends a request for ranges, for which there are duties, and waits for its reply. `EINTR` after a fatal signal: then the
    /// late reply fulfils them. The inner result is the daemon's.
    fn ask<O: Operation<Reply = ()>>(
        self: &Arc<Self>,
        session: &Arc<Session>,
        op: &O,
        slots: &[SlotId],
    ) -> Result<Result> {
        let begin = || {
            let mut lost = LostMapping {
                window: self.clone(),
                slots: KVec::with_capacity(slots.len(), GFP_KERNEL)?,
            };
            lost.slots.extend_from_slice(slots, GFP_KERNEL)?;
            Ok::<_, Error>((lost, session.begin_mapping(op, self.outstanding.begin())?))
        };
        let (lost, sent) = begin().inspect_err(|_| self.settle(slots, Ending::NotSent))?;
        let outcome = sent.transfer().wait(|| {
            sent.transfer().owner().orphan(Orphan {
                session: session.clone(),
                lock: None,
                mapping: Some(lost),
            });
        })?;
        match sent.judge(op, outcome) {
            Some(done) => {
                self.settle(slots, ending_of(&done));
                Ok(done.map_err(|e| Error::from_errno(e.to_errno())))
            }
            None => {
                self.settle(slots, Ending::Unknown);
                Err(ENOTCONN)
            }
        }
    }

    /// The request that was under way for these ranges has ended.
    pub(super) fn settle(&self, slots: &[SlotId], ending: Ending) {
        let mut state = self.state.lock();
        for slot in slots {
            let wake = state.fulfil(*slot, ending);
            self.wake(wake);
        }
    }

    /// Somebody begins to reclaim in the background; `false` when somebody does already.
    pub(super) fn begin_background(&self) -> bool {
        self.reclaiming.xchg(1, ordering::Acquire) == 0
    }

    /// The counterpart.
    pub(super) fn end_background(&self) {
        self.reclaiming.store(0, ordering::Release);
    }
}
