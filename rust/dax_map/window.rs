// SPDX-License-Identifier: GPL-2.0

//! The window: everything put together.

use crate::advice::{
    Access, Advice, Config, Hit, Need, NewError, Plan, RangeInfo, Refused, Step, Wait, Wake,
};
use crate::buddy::{Block, Buddy};
use crate::counters::{Counters, Usage};
use crate::ghost::{Ghost, Ghosts};
use crate::heat::Heat;
use crate::inode_map::{InodeMap, Place};
use crate::list::List;
use crate::policy::{self, Budget, Situation, Verdict};
use crate::ranges::{
    Extent, Owner, Queue, Ranges, RemapToken, ReserveToken, Slot, SlotId, Stale, State,
};
use crate::size::{Geometry, Order};
use crate::storage::Storage;
use crate::stream::{Motion, Stream};
use crate::Part;

/// A DAX window and what it shows.
///
/// The caller serialises all methods with one lock, the window lock, which may be a spinlock: no
/// method allocates, sleeps, or takes longer than a search in a tree and a bounded scan.
#[derive(Debug)]
pub struct Window<B, S, G> {
    pub(crate) buddy: Buddy<B>,
    pub(crate) ranges: Ranges<S>,
    pub(crate) map: InodeMap,
    pub(crate) probation: List,
    pub(crate) protected: List,
    pub(crate) ghosts: Ghosts<G>,
    pub(crate) budget: Budget,
    pub(crate) counters: Counters,
    pub(crate) tick: u32,
    /// Bytes that are being reclaimed, or were, for plans that are [entitled](Plan::is_entitled) to
    /// them and have not reserved them yet. If none of these comes, the next tick lets others have them.
    pub(crate) promised: u64,
    /// A range that was found to be used less than what is to be mapped.
    pub(crate) outdone: Option<u32>,
    pub(crate) demand_at: Option<u32>,
    pub(crate) idle_hand: u32,
    pub(crate) epoch: u16,
    accesses: u64,
    /// Somebody was told to wait for any range.
    any_wanted: bool,
    pub(crate) dead: bool,
}

impl<B: Storage<Block>, S: Storage<Slot>, G: Storage<Ghost>> Window<B, S, G> {
    /// An empty window.
    ///
    /// `blocks` has at least [`Geometry::blocks`] elements. `slots` has as many as there may be
    /// ranges at once, which is the bound that an operator sets. `ghosts` has any number; eight
    /// per slot remember the parts of files eight times the window.
    pub fn new(config: Config, blocks: B, slots: S, ghosts: G) -> Result<Self, NewError> {
        let count = u64::try_from(slots.len()).unwrap_or(u64::MAX);
        if count == 0 || count > crate::storage::MAX_ELEMENTS {
            return Err(NewError::Slots);
        }
        Ok(Self {
            buddy: Buddy::new(config.geometry, blocks).map_err(|_| NewError::TooFewBlocks)?,
            ranges: Ranges::new(slots, config.seed),
            map: InodeMap::new(config.seed, config.geometry.max()),
            probation: List::new(Queue::Probation),
            protected: List::new(Queue::Protected),
            ghosts: Ghosts::new(ghosts),
            budget: Budget::new(),
            counters: Counters::default(),
            tick: 0,
            promised: 0,
            outdone: None,
            demand_at: None,
            idle_hand: 0,
            epoch: 0,
            accesses: 0,
            any_wanted: false,
            dead: false,
        })
    }

    /// How the window is divided.
    pub fn geometry(&self) -> &Geometry {
        self.buddy.geometry()
    }

    /// Sets the most ranges that there may be, at most the number of slots. Ranges beyond the
    /// limit stay until they are reclaimed.
    pub fn set_limit(&mut self, ranges: u32) -> Wake {
        self.ranges.set_limit(ranges);
        self.wake_any(true)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How the window is used now.
    pub fn usage(&self) -> Usage {
        let count = |state| self.ranges.count(state);
        let mapped = count(State::Mapped { writable: false });
        let busy = count(State::Reserved)
            .saturating_add(count(State::Remapping { writable: false }))
            .saturating_add(count(State::Reclaiming { writable: false }));
        Usage {
            usable_bytes: self.geometry().usable(),
            free_bytes: self.buddy.free_bytes(),
            retired_bytes: self.buddy.retired_bytes(),
            limit: self.ranges.limit(),
            ranges: self.ranges.in_use(),
            idle: self.ranges.idle(),
            pinned: mapped.saturating_sub(self.ranges.idle()),
            busy,
            retired: count(State::Retired),
            probation: self.probation.len(),
            protected: self.protected.len(),
            by_order: *self.ranges.by_order(),
        }
    }

    /// What a slot has. None beyond the last one.
    pub fn range(&self, slot: SlotId) -> Option<RangeInfo> {
        let range = self.ranges.get(slot.0)?;
        Some(RangeInfo {
            state: range.state,
            order: range.order,
            users: range.users,
            extent: Extent {
                slot,
                owner: range.owner,
                file_offset: range.file_offset,
                window_offset: range.window_offset,
                len: range.len,
                writable: range.writable(),
            },
        })
    }

    // --- use ---------------------------------------------------------------

    /// What to do with an access: the way in for every read, write and fault.
    ///
    /// O(1) for most of what is mapped, else O(log ranges). It is put together of what follows, for a caller that cannot have the window
    /// and the stream at the same time.
    pub fn access(&mut self, stream: &mut Stream, access: &Access) -> Advice {
        let max = self.geometry().max();
        let motion = stream.note(access, max);
        let Some(hit) = self.hit(access, motion) else {
            return self.advise(stream, access, motion);
        };
        let next = stream.found(access, motion, &hit, max);
        Advice {
            step: Step::Use(hit),
            ahead: next.and_then(|offset| self.plan_ahead(access, offset)),
        }
    }

    /// The range for a read or write, if it is ready and easy to find, as most are where a file fits: a short cut of
    /// [`advise`](Self::advise). [`None`], and nothing has happened, where that has more to do.
    #[inline]
    pub fn hit(&mut self, access: &Access, motion: Motion) -> Option<Hit> {
        if access.need != Need::Either {
            return None;
        }
        let slots = self.ranges.slots();
        let i = InodeMap::guess(slots, motion.part, access.owner, access.offset)?;
        let range = self.ranges.get(i)?;
        let State::Mapped { writable } = range.state else {
            return None;
        };
        let hit = range.hit(SlotId(i), access.offset, writable);
        let end = access.offset.saturating_add(access.len);
        if hit.len == 0 || access.write && (!writable || end > access.file_size) {
            return None;
        }
        self.ranges.pin(i)?;
        if motion.counts() {
            self.count_access();
        }
        let (epoch, tick) = (self.epoch, self.tick);
        if let Some(range) = self.ranges.get_mut(i) {
            range.touch(motion.counts(), epoch, tick);
        }
        if !motion.sequential {
            self.budget.hit();
        }
        bump(&mut self.counters.hits);
        Some(hit)
    }

    /// What to do with an access that was [noted](Stream::note), whatever there is to do.
    #[inline(never)]
    pub fn advise(&mut self, stream: &mut Stream, access: &Access, motion: Motion) -> Advice {
        let step = self.step(stream, access, motion);
        let max = self.geometry().max();
        let ahead = match &step {
            Step::Use(hit) => stream.found(access, motion, hit, max),
            Step::Bypass { .. } => None,
            _ if motion.sequential => stream.propose(access.offset, max),
            _ => None,
        };
        Advice {
            step,
            ahead: ahead.and_then(|offset| self.plan_ahead(access, offset)),
        }
    }

    fn step(&mut self, stream: &mut Stream, access: &Access, motion: Motion) -> Step {
        if motion.counts() {
            self.count_access();
        }
        let end = access.offset.saturating_add(access.len);
        let bypassable = access.need == Need::Either;
        if !bypassable {
            bump(&mut self.counters.faults);
        }
        let extends = access.write && end > access.file_size;
        let step = match self.find_up_to(motion.part, access.owner, access.offset, end) {
            _ if bypassable && (extends || self.dead) => Step::Bypass { len: access.len },
            Place::Range(i) => self.use_range(i, access, motion),
            Place::Gap { start, end } => self.use_gap(stream, access, motion, (start, end)),
        };
        match &step {
            Step::Use(_) => bump(&mut self.counters.hits),
            Step::Map(_) | Step::Remap(_) => bump(&mut self.counters.misses),
            Step::Wait(_) => bump(&mut self.counters.waits),
            Step::Bypass { .. } => self.count_bypass(access.write),
        }
        step
    }

    /// A read or write goes to the daemon: to be called when that is not what it was told.
    pub fn count_bypass(&mut self, write: bool) {
        if write {
            bump(&mut self.counters.bypassed_writes);
        } else {
            bump(&mut self.counters.bypassed_reads);
        }
    }

    /// The range that shows this place of a file now, if there is one. It is not used by that: the caller has it pinned.
    pub fn locate(&self, owner: Owner, offset: u64) -> Option<Extent> {
        let Place::Range(i) = self.find(owner, offset) else {
            return None;
        };
        let info = self.range(SlotId(i))?;
        matches!(info.state, State::Mapped { .. }).then_some(info.extent)
    }

    /// One user less of a range that an access, or a commit, has pinned.
    pub fn unpin(&mut self, slot: SlotId) -> Wake {
        match self.ranges.unpin(slot.0) {
            Some(true) => self.wake(slot.0, true),
            Some(false) | None => Wake::default(),
        }
    }

    pub(crate) fn find(&self, owner: Owner, offset: u64) -> Place {
        self.find_up_to(self.map.part(owner, offset), owner, offset, offset)
    }

    fn find_up_to(&self, part: Part, owner: Owner, offset: u64, end: u64) -> Place {
        (self.map).find(self.ranges.slots(), part, (owner, offset), end)
    }

    fn count_access(&mut self) {
        let ranges = self.ranges.in_use().max(policy::EPOCH_MIN_RANGES);
        self.accesses = self.accesses.saturating_add(1);
        if self.accesses >= u64::from(ranges).saturating_mul(policy::EPOCH_PER_RANGE) {
            self.accesses = 0;
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    fn use_range(&mut self, i: u32, access: &Access, motion: Motion) -> Step {
        let (epoch, tick) = (self.epoch, self.tick);
        let Some(range) = self.ranges.get_mut(i) else {
            return Step::Bypass { len: access.len };
        };
        let must = access.need != Need::Either;
        let keen = must || motion.sequential;
        let bypass = Step::Bypass {
            len: access
                .len
                .min(range.file_end().saturating_sub(access.offset)),
        };
        let heat = range.touch(motion.counts(), epoch, tick);
        let writable = match range.state {
            State::Mapped { writable } => writable,
            State::Reclaiming { .. } if !must => return bypass,
            _ if !keen => return bypass,
            _ => {
                range.wanted = true;
                return Step::Wait(Wait::Range(SlotId(i)));
            }
        };
        let hit = range.hit(SlotId(i), access.offset, writable);
        if hit.len == 0 || (access.write && !writable) {
            // Mapped, but not that way, or not as far.
            return if keen || heat >= policy::UPGRADE {
                Step::Remap(Self::plan(access, motion))
            } else {
                bypass
            };
        }
        if self.ranges.pin(i).is_none() {
            return bypass;
        }
        if !keen {
            self.budget.hit();
        }
        Step::Use(hit)
    }

    fn use_gap(
        &mut self,
        stream: &mut Stream,
        access: &Access,
        motion: Motion,
        gap: (u64, u64),
    ) -> Step {
        let heat = match motion.counts() {
            true => self.ghosts.add(motion.part, self.epoch),
            false => 0,
        };
        if access.need == Need::Mapping {
            return Step::Map(Self::plan(access, motion));
        }
        let max = self.geometry().max();
        let sequential = motion.sequential && stream.deserves(access.offset, max);
        if sequential {
            let order = self.wish(&Self::plan(access, motion), gap);
            let end = order
                .align_down(access.offset)
                .saturating_add(order.bytes());
            stream.give(end);
        }
        let verdict = policy::decide(&Situation {
            // A copy of one page is cheap; of all that come next a range is cheaper.
            sequential: sequential || motion.adjacent,
            fits: access.file_size <= self.capacity(),
            // Mostly the window is full: this is asked at each access that is bypassed.
            room: self.has_room() && self.has_room_for(&Self::plan(access, motion)),
            heat,
        });
        let map = match verdict {
            Verdict::Map => true,
            Verdict::MapIfAffordable => self.budget.pay(),
            Verdict::MapIfHotter => self.is_colder_than(heat) && self.budget.pay(),
            Verdict::Bypass => false,
        };
        if !map {
            self.budget.bypassed();
            return Step::Bypass {
                len: access.len.min(gap.1.saturating_sub(access.offset)),
            };
        }
        let outdoes = verdict == Verdict::MapIfHotter;
        if outdoes {
            // Others who come by while room is made for it need not make room for it as well.
            self.ghosts
                .put(motion.part, Heat::new(heat >> 1, self.epoch), self.epoch);
        }
        Step::Map(Plan {
            outdoes,
            ..Self::plan(access, motion)
        })
    }

    fn plan(access: &Access, motion: Motion) -> Plan {
        Plan {
            owner: access.owner,
            offset: access.offset,
            file_size: access.file_size,
            writable: access.write,
            sequential: motion.sequential,
            ahead: false,
            urgent: motion.sequential || motion.adjacent || access.need == Need::Mapping,
            outdoes: false,
            relaxed: false,
        }
    }

    /// A range for another place of the file that is accessed, which will be needed soon; none if there is one, or it lies beyond the end.
    pub fn plan_ahead(&mut self, access: &Access, offset: u64) -> Option<Plan> {
        if offset >= access.file_size || self.dead {
            return None;
        }
        match self.find(access.owner, offset) {
            Place::Range(_) => None,
            Place::Gap { .. } => {
                bump(&mut self.counters.ahead);
                Some(Plan {
                    owner: access.owner,
                    offset,
                    file_size: access.file_size,
                    writable: access.write,
                    sequential: true,
                    ahead: true,
                    urgent: true,
                    outdoes: false,
                    relaxed: false,
                })
            }
        }
    }

    /// Bytes that ranges can show at most: retired ones do not, and there may be fewer ranges than
    /// the window has room for.
    pub(crate) fn capacity(&self) -> u64 {
        let geometry = self.geometry();
        let bytes = geometry.usable().saturating_sub(self.buddy.retired_bytes());
        bytes.min(u64::from(self.ranges.limit()).saturating_mul(geometry.max().bytes()))
    }

    // --- mapping -----------------------------------------------------------

    fn wish(&self, plan: &Plan, gap: (u64, u64)) -> Order {
        let (part, whole) = policy::CROWDED;
        let crowded = u64::from(self.ranges.in_use()).saturating_mul(whole)
            > u64::from(self.ranges.limit()).saturating_mul(part);
        policy::order_for(self.geometry(), plan.file_size, plan.offset, gap, crowded)
    }

    /// The smallest order that will do for a plan that wishes for `order`.
    fn least(&self, plan: &Plan, order: Order) -> Order {
        let least = order.get().saturating_sub(policy::ORDERS_BELOW_WISH);
        let min = self.geometry().min();
        match Order::new(least) {
            Some(least) if !plan.relaxed => least.max(min),
            _ => min,
        }
    }

    fn has_room(&self) -> bool {
        self.ranges.has_room() && self.buddy.free_bytes() > 0
    }

    fn has_room_for(&self, plan: &Plan) -> bool {
        let order = self.wish(plan, (0, u64::MAX));
        let least = self.least(plan, order);
        self.buddy.largest_free().is_some_and(|free| free >= least) && self.is_left_for(plan, least)
    }

    /// Whether there is so much room beside what is promised to others.
    fn is_left_for(&self, plan: &Plan, order: Order) -> bool {
        plan.is_entitled() || self.buddy.free_bytes() >= self.promised.saturating_add(order.bytes())
    }

    /// Reserves a range for a plan: send SETUPMAPPING for its
    /// [`extent`](ReserveToken::extent), then end it with [`commit`](Self::commit),
    /// [`setup_failed`](Self::setup_failed) or [`setup_unknown`](Self::setup_unknown).
    ///
    /// Whoever accesses that part of the file meanwhile waits, or bypasses it.
    pub fn reserve(&mut self, plan: &Plan) -> Result<ReserveToken, Refused> {
        if self.dead {
            return Err(Refused::Never);
        }
        if plan.offset >= plan.file_size {
            return Err(Refused::PastEnd);
        }
        let gap = match self.find(plan.owner, plan.offset) {
            Place::Range(_) => return Err(Refused::Changed),
            Place::Gap { start, end } => (start, end),
        };
        let wish = self.wish(plan, gap);
        let least = self.least(plan, wish);
        let idle = self.ranges.idle();
        let free = self
            .buddy
            .largest_free()
            .filter(|_| self.ranges.has_room() && self.is_left_for(plan, least));
        // What is smaller than wished for is still better than waiting.
        if let Some(free) = free.filter(|free| *free >= least || idle == 0) {
            if let Some(token) = self.make(plan, wish.min(free)) {
                if plan.is_entitled() {
                    let bytes = wish.min(free).bytes();
                    self.promised = self.promised.saturating_sub(bytes);
                }
                return Ok(token);
            }
        }
        if !plan.is_entitled() {
            return Err(Refused::Changed);
        }
        if plan.urgent {
            self.demand_at = Some(self.tick);
        }
        if idle > 0 {
            Err(Refused::Reclaim)
        } else if self.ranges.is_anything_pending() {
            Err(Refused::Wait(self.wait_any()))
        } else {
            Err(Refused::Never)
        }
    }

    fn make(&mut self, plan: &Plan, order: Order) -> Option<ReserveToken> {
        let window_offset = self.buddy.alloc(order)?;
        let file_offset = order.align_down(plan.offset);
        let in_file = policy::whole_pages(plan.file_size).saturating_sub(file_offset);
        let extent = Extent {
            slot: SlotId(0),
            owner: plan.owner,
            file_offset,
            window_offset,
            len: in_file.min(order.bytes()),
            writable: plan.writable,
        };
        let Some(i) = self.ranges.take(&extent, order) else {
            let _ = self.buddy.free(window_offset, order);
            return None;
        };
        let grant = match self.map.insert(self.ranges.slots_mut(), i) {
            Ok(()) => self.ranges.grant(i, extent.len, plan.writable),
            Err(_) => None,
        };
        let Some(grant) = grant else {
            let _ = self.buddy.free(window_offset, order);
            self.ranges.put(i);
            return None;
        };
        let part = self.map.part(plan.owner, plan.offset);
        let heat = self.ghosts.take(part, self.epoch);
        let (epoch, tick) = (self.epoch, self.tick);
        if let Some(range) = self.ranges.get_mut(i) {
            range.fresh = plan.ahead;
            range.used_at = tick;
            // Uses before this one. However often a run comes by, it does not take from others.
            let before = heat.saturating_sub(1);
            range.heat = Heat::new(if plan.sequential { 0 } else { before }, epoch);
        }
        bump(&mut self.counters.reserved);
        Some(ReserveToken(grant))
    }

    /// SETUPMAPPING succeeded. The range is there for all; with `pin`, the caller uses it at once
    /// and has to [`unpin`](Self::unpin) it.
    pub fn commit(&mut self, token: ReserveToken, pin: bool) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        let writable = token.0.extent().writable;
        self.ranges.set_state(i, State::Mapped { writable });
        self.enqueue(i);
        bump(&mut self.counters.mapped);
        if pin {
            let _ = self.ranges.pin(i);
        }
        Ok(self.wake(i, !pin))
    }

    /// SETUPMAPPING was refused by the daemon, or never sent: nothing is mapped there. The range is
    /// free again.
    pub fn setup_failed(&mut self, token: ReserveToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        bump(&mut self.counters.failed);
        Ok(self.release(i))
    }

    /// It is not known how SETUPMAPPING ended: the reply was lost, or the waiter killed. The range is
    /// retired.
    pub fn setup_unknown(&mut self, token: ReserveToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        Ok(self.retire(i))
    }

    /// Begins to map a range anew at its place, because it has to be writable or longer: the file
    /// has grown. The caller removes all mappings of its pages first, sends SETUPMAPPING for the
    /// token's extent, and ends it with [`remap_done`](Self::remap_done),
    /// [`remap_cancelled`](Self::remap_cancelled) or [`remap_unknown`](Self::remap_unknown).
    ///
    /// As the device removes the old mapping first, nobody may use the range meanwhile.
    pub fn begin_remap(&mut self, plan: &Plan) -> Result<RemapToken, Refused> {
        if self.dead {
            return Err(Refused::Never);
        }
        if plan.offset >= plan.file_size {
            return Err(Refused::PastEnd);
        }
        let Place::Range(i) = self.find(plan.owner, plan.offset) else {
            return Err(Refused::Changed);
        };
        let Some(range) = self.ranges.get_mut(i) else {
            return Err(Refused::Changed);
        };
        let State::Mapped { writable } = range.state else {
            range.wanted = true;
            return Err(Refused::Wait(Wait::Range(SlotId(i))));
        };
        let in_file = policy::whole_pages(plan.file_size).saturating_sub(range.file_offset);
        let len = range.len.max(in_file.min(range.order.bytes()));
        let now = writable || plan.writable;
        if now == writable && len == range.len {
            return Err(Refused::Changed);
        }
        if range.users > 0 {
            range.wanted = true;
            return Err(Refused::Wait(Wait::Range(SlotId(i))));
        }
        let Some(grant) = self.ranges.grant(i, len, now) else {
            return Err(Refused::Changed);
        };
        self.dequeue(i);
        self.ranges.set_state(i, State::Remapping { writable });
        Ok(RemapToken(grant))
    }

    /// SETUPMAPPING succeeded: the range is as the token's extent says.
    pub fn remap_done(&mut self, token: RemapToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        let (len, writable) = (token.0.extent().len, token.0.extent().writable);
        if let Some(range) = self.ranges.get_mut(i) {
            range.len = len;
        }
        bump(&mut self.counters.remapped);
        Ok(self.back_to_mapped(i, writable))
    }

    /// SETUPMAPPING was not sent: the range is as it was.
    pub fn remap_cancelled(&mut self, token: RemapToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        let writable = self.ranges.get(i).is_some_and(Slot::writable);
        bump(&mut self.counters.cancelled);
        Ok(self.back_to_mapped(i, writable))
    }

    /// SETUPMAPPING failed, and may have removed the old mapping, or it is not known how it ended.
    /// The range is retired.
    pub fn remap_unknown(&mut self, token: RemapToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        Ok(self.retire(i))
    }

    // --- transitions -------------------------------------------------------

    pub(crate) fn check(&mut self, grant: &crate::ranges::Grant) -> Result<u32, Stale> {
        let checked = self.ranges.check(grant);
        if checked.is_err() {
            bump(&mut self.counters.stale);
        }
        checked
    }

    pub(crate) fn back_to_mapped(&mut self, i: u32, writable: bool) -> Wake {
        self.ranges.set_state(i, State::Mapped { writable });
        self.enqueue(i);
        self.wake(i, true)
    }

    /// A live range in no list becomes free.
    pub(crate) fn release(&mut self, i: u32) -> Wake {
        let wake = self.wake(i, true);
        self.map.remove(self.ranges.slots_mut(), i);
        if let Some(range) = self.ranges.get(i) {
            let _ = self.buddy.free(range.window_offset, range.order);
        }
        self.ranges.put(i);
        wake
    }

    /// A live range in no list is not used any more.
    pub(crate) fn retire(&mut self, i: u32) -> Wake {
        // Also those who wait for any range: now there may be none to wait for.
        let wake = self.wake(i, true);
        self.map.remove(self.ranges.slots_mut(), i);
        if let Some(range) = self.ranges.get(i) {
            let _ = self.buddy.retire(range.window_offset, range.order);
        }
        self.ranges.set_state(i, State::Retired);
        wake
    }

    /// Gives up the window: its device was reset or the daemon is gone. All ranges are retired,
    /// all tokens are stale, and nothing is mapped ever again; pinned ranges may be unpinned. The
    /// caller wakes all waiters.
    ///
    /// O(ranges).
    pub fn abandon(&mut self) {
        self.dead = true;
        self.ranges.void_tokens();
        let count = self.ranges.slots().len();
        for i in (0..count).filter_map(|i| u32::try_from(i).ok()) {
            if self.ranges.get(i).is_some_and(Slot::is_live) {
                self.dequeue(i);
                let _ = self.retire(i);
            }
        }
    }

    pub(crate) fn wait_any(&mut self) -> Wait {
        self.any_wanted = true;
        bump(&mut self.counters.waits);
        Wait::Any
    }

    pub(crate) fn wake(&mut self, i: u32, any: bool) -> Wake {
        let wanted = match self.ranges.get_mut(i) {
            Some(range) => core::mem::take(&mut range.wanted),
            None => false,
        };
        Wake {
            range: wanted.then_some(SlotId(i)),
            ..self.wake_any(any)
        }
    }

    pub(crate) fn wake_any(&mut self, any: bool) -> Wake {
        let wanted = self.any_wanted;
        self.any_wanted = wanted && !any;
        Wake {
            range: None,
            any: wanted && any,
        }
    }
}

pub(crate) fn bump(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
