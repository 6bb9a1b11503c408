// SPDX-License-Identifier: GPL-2.0

//! The window of a session: its ranges, and the requests that map and unmap them.
//!
//! What to do is decided by `dax_map`, under one spinlock, the window lock; this module sends the requests, sleeps and wakes.
//! A task that is killed leaves its duty (see [`state`](super::state)) behind, and the late reply fulfils it.

use super::{
    copies::Copies,
    layout::bytes_of,
    mapped_file::MappedFile,
    state::{
        Ending,
        Run,
        State,
        TICK, //
    },
    wait::{
        Awaited,
        Changes, //
    },
};
use crate::{
    filesystem::VirtioFs,
    session::Session,
    transport::{
        device::Instance,
        lane::Lane,
        lease::Tenant,
        outstanding::{
            MapRequest,
            Outstanding, //
        },
        request::{
            judge,
            Request, //
        },
    },
};
use dax_map::{
    Access,
    Advice,
    Extent,
    Hit,
    Need,
    Plan,
    Refused,
    SlotId,
    Wait,
    Wake, //
};
use fuse_proto::{
    Caller,
    MapFlags,
    MapRange,
    NodeId,
    Operation,
    Removemapping,
    Setupmapping, //
};
use kernel::{
    fmt::{
        Formatter,
        Result as FmtResult, //
    },
    new_delayed_work, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        SpinLock, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        impl_has_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};
use kernel_ext::{
    dax::Memory,
    workqueue::cancel_delayed, //
};
use vfs::{
    dax::Patience,
    time::monotonic_ns,
    Inode, //
};
use virtio::{
    AtEnd,
    End,
    Outcome,
    Payload,
    Transfer, //
};

/// How often ranges that nobody uses are looked for, in milliseconds.
const IDLE_CHECK: u32 = 20 * TICK;

/// The window of a session.
#[pin_data]
pub(crate) struct Window {
    session: Arc<Session>,
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
    /// Runs now and then as long as the window shows something.
    #[pin]
    clock: DelayedWork<Window, CLOCK>,
}

/// The number of a window's work item.
const CLOCK: u64 = 0;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, CLOCK> for Window { self.clock }
}

impl WorkItem<CLOCK> for Window {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.look_for_idle() {
            this.keep_time();
        }
    }
}

/// A range that shows what was asked for, and goes on to do so as long as this lives. Whoever has one must not wait for
/// anything that somebody without a range may hold.
pub(crate) struct Pinned<'a> {
    window: &'a Window,
    pub(crate) hit: Hit,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let wake = self.window.state.lock().table.unpin(self.hit.slot);
        self.window.wake(wake);
    }
}

/// What to do with an access.
pub(crate) enum Step<'a> {
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
struct LostMapping {
    window: Arc<Window>,
    slots: KVec<SlotId>,
}

impl End<Request> for MapRequest {
    /// Runs before the waiter is woken, for which that may be the last thing that its session waits for.
    fn ended(&self, _lane: &Lane, _transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        if matches!(outcome, Outcome::Returned(_) | Outcome::Late(_)) {
            self.returned();
        }
    }
}

impl End<Request> for LostMapping {
    /// Leaves the rest to a work item: the window lock is not for interrupts.
    fn ended(&self, _lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let transfer = transfer.clone();
        let _ = self
            .window
            .session
            .instance()
            .work()
            .try_spawn(GFP_ATOMIC, move || {
                if let Some(lost) = transfer.owner().abandoned::<Self>() {
                    let _ = lost.settle(&transfer, outcome);
                }
            });
    }
}

impl LostMapping {
    fn settle(&self, transfer: &Transfer<Request>, outcome: Outcome) -> Result {
        let ending = match outcome {
            Outcome::Returned(used) | Outcome::Late(used) => {
                // SETUPMAPPING is answered alike.
                let op = Removemapping {
                    node: transfer.owner().node().unwrap_or(NodeId::ROOT),
                    ranges: &[],
                };
                let lane = self.window.session.instance().request_queue()?.data();
                Ending::of(&judge(lane, transfer, &op, used)?)
            }
            Outcome::Aborted | Outcome::Unsent => Ending::NotSent,
        };
        self.window.settle(&self.slots, ending);
        Ok(())
    }
}

impl Tenant for Window {
    fn close(&self) {
        Window::close(self);
    }

    fn shut_down(&self, instance: &Instance) {
        self.give_up_all(instance);
    }

    fn outstanding(&self) -> &Arc<Outstanding> {
        &self.outstanding
    }

    fn describe(&self, f: &mut Formatter<'_>) -> FmtResult {
        self.write_counters(f)
    }
}

impl Window {
    /// An empty one in `memory`, with ranges aligned to `alignment` bytes, of which there are `ranges` at most, see
    /// [`State::new`]. Sleeps.
    ///
    /// Errors: `EINVAL` when there is no room for so many, `ENOMEM`.
    pub(crate) fn new(
        session: Arc<Session>,
        memory: Arc<Memory>,
        alignment: u64,
        ranges: usize,
    ) -> Result<Arc<Self>> {
        let state = State::new(memory.len() as u64, alignment, ranges)?;
        let changes = Changes::new(state.files.len())?;
        let copies = Copies::new(memory.len())?;
        let outstanding = Outstanding::new()?;
        Arc::pin_init(
            pin_init!(Self {
                session,
                memory,
                state <- new_spinlock!(state, "Window::state"),
                changes,
                copies <- copies,
                outstanding,
                reclaiming: Atomic::new(0),
                complained: Atomic::new(0),
                clock <- new_delayed_work!("virtiofs::Window::clock"),
            }),
            GFP_KERNEL,
        )
    }

    /// The session that it belongs to.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// It shows something: from here on it is looked now and then whether that is used.
    fn keep_time(self: &Arc<Self>) {
        if !self.session.is_connected() {
            return;
        }
        let delay = msecs_to_jiffies(IDLE_CHECK);
        // It may run already.
        let _ = self
            .session
            .instance()
            .work()
            .enqueue_delayed::<_, CLOCK>(self.clone(), delay);
    }

    /// The session ends: the window is not looked after any more. To be called once more after the connection was closed and what
    /// is mapped ahead is done, since until then it may be again. Sleeps.
    pub(crate) fn stop_clock(self: &Arc<Self>) {
        cancel_delayed::<_, CLOCK>(self);
    }

    /// The memory that it is a view of.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The copies of pages of its files.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(crate) fn state(&self) -> &SpinLock<State> {
        &self.state
    }

    /// What happens from here on is not missed by [`wait`](Window::wait). To be called under the window lock.
    pub(crate) fn awaited(&self, wait: Wait) -> Awaited {
        let seen = self.changes.of(wait).seen();
        Awaited { wait, seen }
    }

    pub(crate) fn wake(&self, wake: Wake) {
        self.changes.wake(wake);
    }

    /// Wakes who waits for any change.
    pub(crate) fn wake_any(&self) {
        self.wake(Wake {
            range: None,
            any: true,
        });
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.changes.wake_all();
    }

    /// Sleeps until what is awaited has happened, or a fatal signal ends it with `EINTR`. What pins pages of a range does
    /// not tell when it lets go, so it may also be the clock that has moved on.
    pub(crate) fn wait(&self, awaited: Awaited) -> Result {
        let start = monotonic_ns();
        let event = self.changes.of(awaited.wait);
        let waited = event.wait_killable(awaited.seen, msecs_to_jiffies(TICK));
        let mut state = self.state.lock();
        state.waited = state
            .waited
            .saturating_add(monotonic_ns().saturating_sub(start));
        let wake = state.tick();
        drop(state);
        self.wake(wake);
        waited
    }

    /// Whether it shows anything still: `ENODEV` after the device was unbound.
    pub(crate) fn alive(&self) -> Result {
        match self.state.lock().closed {
            true => Err(ENODEV),
            false => Ok(()),
        }
    }

    /// Lets the window's clock move on, if it is time.
    pub(crate) fn tick(&self) {
        let mut state = self.state.lock();
        let wake = state.tick();
        drop(state);
        self.wake(wake);
    }

    /// For a file of this window that was opened just now. Errors: `ENOMEM`.
    pub(crate) fn new_run(&self) -> Result<KBox<Run>> {
        Run::new(&self.state)
    }

    /// What to do with an access, and what to map ahead of it. `run` is of this window.
    pub(crate) fn access(&self, run: &Run, access: &Access) -> (Step<'_>, Option<Plan>) {
        let bypass = |len| match access.need {
            Need::Either => Step::Bypass(len),
            Need::Page | Need::Mapping => Step::Nothing,
        };
        let mut state = self.state.lock();
        if state.closed {
            return (bypass(access.len), None);
        }
        let wake = state.tick();
        // Together they are as dax_map::Window::access(). Most are a hit, which goes no further.
        let motion = state.note(run, access);
        if let Some((hit, ahead)) = state.hit(run, access, motion) {
            let ahead = ahead.filter(|_| state.grants_ahead());
            drop(state);
            self.wake(wake);
            return (Step::Use(Pinned { window: self, hit }), ahead);
        }
        let Advice { step, ahead } = state.advise(run, access, motion);
        let step = match step {
            dax_map::Step::Use(hit) => Step::Use(Pinned { window: self, hit }),
            dax_map::Step::Map(_) if state.grants_nothing(access) => bypass(access.len),
            dax_map::Step::Map(plan) => Step::Map(plan),
            dax_map::Step::Remap(plan) => Step::Remap(plan),
            dax_map::Step::Wait(wait) => Step::Wait(self.awaited(wait)),
            dax_map::Step::Bypass { .. } if access.need == Need::Page && !state.is_unable() => {
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
    pub(crate) fn count_bypass(&self, write: bool) {
        self.state.lock().table.count_bypass(write);
    }

    /// Where a place of a file is in the window, for who has the range pinned.
    pub(crate) fn locate(&self, file: &Arc<MappedFile>, offset: u64) -> Option<Extent> {
        self.state.lock().table.locate(file.owner(), offset)
    }

    /// Makes a range, for which others are given up if need be: then the access is to be tried again. Sleeps.
    ///
    /// With `must` it waits for room; without it, `EAGAIN`. Other errors: `EINTR` for a fatal signal, `ENXIO` beyond the end of
    /// the file, `ENOSPC` when there can never be room, `EIO` when the daemon refuses.
    pub(crate) fn map(self: &Arc<Self>, file: &Arc<MappedFile>, plan: &Plan, must: bool) -> Result {
        let mut plan = *plan;
        let extent = loop {
            let mut state = self.state.lock();
            // Who maps ahead does not hold the inode: nobody would ever take the range from one that is gone.
            if state.closed || file.is_evicted(&state) {
                return Err(ENODEV);
            }
            let refused = match state.table.reserve(&plan) {
                Ok(token) => break state.undertake_map(token, file),
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
                    if self.make_room()? == 0 && !must {
                        return Err(EAGAIN);
                    }
                    plan = plan.relaxed();
                }
                Refused::Wait(_) => return Err(EAGAIN),
            }
        };
        self.take_copies(file, &extent)
            .inspect_err(|_| self.settle(&[extent.slot], Ending::NotSent))?;
        self.setup(file, &extent)?;
        self.reclaim_ahead();
        self.keep_time();
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
    pub(crate) fn map_ahead(self: &Arc<Self>, file: &Arc<MappedFile>, plan: Plan) {
        let (window, mapped) = (self.clone(), file.clone());
        // It is a guess: nothing is lost without.
        let _ = self
            .session
            .instance()
            .work()
            .try_spawn(GFP_KERNEL, move || {
                let _ = window.map(&mapped, &plan, false);
            });
    }

    /// Makes the range that is there writable, or longer; as [`map`](Window::map). The inode is not locked.
    pub(crate) fn remap(
        self: &Arc<Self>,
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
            Ok(token) => state.undertake_remap(token),
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
        self.setup(file, &extent)
    }

    fn setup(self: &Arc<Self>, file: &Arc<MappedFile>, extent: &Extent) -> Result {
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
        self.ask(&op, &[extent.slot])?.map_err(|e| {
            self.refused(e);
            // Whatever the daemon lacks: it is not this kernel that is short of memory.
            EIO
        })
    }

    /// SETUPMAPPING has failed.
    fn refused(&self, e: Error) {
        let unable = e == ENOSYS || e == EOPNOTSUPP;
        self.state.lock().refused(unable);
        if self.complained.xchg(1, ordering::Relaxed) == 0 {
            let tag = self.session.instance().tag();
            pr_warn!("{tag:?}: the daemon does not map files into the window: {e:?}\n");
        }
    }

    /// Sends REMOVEMAPPING for ranges of a file, which nothing shows any more, and for which there are duties. Sleeps.
    pub(crate) fn unmap(self: &Arc<Self>, file: &MappedFile, extents: &[Extent]) -> Result {
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
        self.ask(&op, &slots)?.map_err(|_| EIO)
    }

    /// Sends a request for ranges, for which there are duties, and waits for its reply. `EINTR` after a fatal signal: then the
    /// late reply fulfils them. The inner result is the daemon's.
    fn ask<O: Operation<Reply = ()>>(self: &Arc<Self>, op: &O, slots: &[SlotId]) -> Result<Result> {
        let begin = || {
            let mut lost = LostMapping {
                window: self.clone(),
                slots: KVec::with_capacity(slots.len(), GFP_KERNEL)?,
            };
            lost.slots.extend_from_slice(slots, GFP_KERNEL)?;
            let end = Some(AtEnd::new(self.outstanding.begin()));
            let sent = self
                .session
                .begin_with(op, &Caller::default(), Payload::None, end)?;
            Ok::<_, Error>((lost, sent))
        };
        let (lost, sent) = begin().inspect_err(|_| self.settle(slots, Ending::NotSent))?;
        let outcome = sent.wait_for_outcome(|| Some(AtEnd::new(lost)))?;
        match sent.judge(op, outcome) {
            Some(done) => {
                self.settle(slots, Ending::of(&done));
                Ok(done.map_err(|e| Error::from_errno(e.to_errno())))
            }
            None => {
                self.settle(slots, Ending::Unknown);
                Err(ENOTCONN)
            }
        }
    }

    /// The request that was under way for these ranges has ended.
    pub(crate) fn settle(&self, slots: &[SlotId], ending: Ending) {
        let mut state = self.state.lock();
        for slot in slots {
            let wake = state.fulfil(*slot, ending);
            self.wake(wake);
        }
    }

    /// Somebody begins to reclaim in the background; `false` when somebody does already.
    pub(crate) fn begin_background(&self) -> bool {
        self.reclaiming.xchg(1, ordering::Acquire) == 0
    }

    /// The counterpart.
    pub(crate) fn end_background(&self) {
        self.reclaiming.store(0, ordering::Release);
    }
}
