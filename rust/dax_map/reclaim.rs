// SPDX-License-Identifier: GPL-2.0

//! Victim selection: ranges that go for others, when idle, or when their file changes.

use crate::advice::{RangeInfo, Removal, Wait, Wake};
use crate::buddy::Block;
use crate::ghost::Ghost;
use crate::heat::Heat;
use crate::policy;
use crate::ranges::{Owner, Queue, ReclaimToken, Slot, SlotId, Stale, State};
use crate::storage::{index, Storage};
use crate::window::{bump, Window};

impl<B: Storage<Block>, S: Storage<Slot>, G: Storage<Ghost>> Window<B, S, G> {
    // --- lists -------------------------------------------------------------

    /// Puts a mapped range into the list it belongs to.
    pub(crate) fn enqueue(&mut self, i: u32) {
        let epoch = self.epoch;
        let Some(range) = self.ranges.get(i) else {
            return;
        };
        if range.heat.at(epoch) >= policy::PROTECT {
            self.protected.push_back(self.ranges.slots_mut(), i);
        } else {
            self.probation.push_back(self.ranges.slots_mut(), i);
        }
    }

    /// Takes a range out of its list.
    pub(crate) fn dequeue(&mut self, i: u32) {
        match self.ranges.get(i).map(|range| range.queue) {
            Some(Queue::Probation) => self.probation.remove(self.ranges.slots_mut(), i),
            Some(Queue::Protected) => self.protected.remove(self.ranges.slots_mut(), i),
            Some(Queue::None) | None => (),
        }
    }

    /// Whether ranges on probation have more than their share.
    fn probation_is_full(&self) -> bool {
        let share = self.capacity() / policy::PROBATION_SHARE;
        self.protected.len() == 0 || self.probation.bytes() > share
    }

    /// The next range to go, which is idle. Moves on those that were used.
    fn victim(&mut self) -> Option<u32> {
        if self.ranges.idle() == 0 {
            return None;
        }
        let epoch = self.epoch;
        let mut coldest: Option<(u8, u32)> = None;
        for _ in 0..policy::VICTIM_SCAN {
            let on_probation = self.probation_is_full();
            let list = if on_probation {
                &mut self.probation
            } else {
                &mut self.protected
            };
            let Some(i) = list.head() else {
                break;
            };
            let slots = self.ranges.slots_mut();
            let Some(range) = slots.get_mut(index(i)) else {
                break;
            };
            let heat = range.heat.at(epoch);
            match (range.is_idle(), on_probation) {
                (true, _) if heat == 0 => return Some(i),
                (true, true) => {
                    list.remove(slots, i);
                    self.protected.push_back(slots, i);
                }
                (true, false) => {
                    range.heat = Heat::new(heat >> 1, epoch);
                    list.rotate(slots, i);
                }
                (false, _) => {
                    list.rotate(slots, i);
                    continue;
                }
            }
            if coldest.is_none_or(|(least, _)| heat < least) {
                coldest = Some((heat, i));
            }
        }
        match coldest {
            Some((_, i)) => Some(i),
            // Most are in use: then look at all.
            None => {
                let i = self.ranges.slots().iter().position(Slot::is_idle)?;
                u32::try_from(i).ok()
            }
        }
    }

    /// Whether a part of a file that was used so often should take the place of a range: compared with one of each list, with
    /// others the next time. What is used so often comes again, so that a look at more would find little more.
    pub(crate) fn is_colder_than(&mut self, heat: u8) -> bool {
        if !policy::is_hotter(heat, 0) || self.ranges.idle() == 0 {
            return false;
        }
        let epoch = self.epoch;
        for list in [&mut self.probation, &mut self.protected] {
            let slots = self.ranges.slots();
            let Some(i) = list.turn(slots) else {
                continue;
            };
            let yields = slots.get(index(i)).is_some_and(|range| {
                range.is_idle() && policy::is_hotter(heat, range.heat.at(epoch))
            });
            if yields {
                self.outdone = Some(i);
                return true;
            }
        }
        false
    }

    // --- reclaiming --------------------------------------------------------

    /// The range that is best reclaimed now, of any inode; none if no range is idle.
    ///
    /// The caller takes care that nothing maps its pages, sends REMOVEMAPPING for it and others of
    /// the same inode ([`pick_another`](Self::pick_another)), and ends each with
    /// [`removed`](Self::removed), [`remove_cancelled`](Self::remove_cancelled) or
    /// [`remove_unknown`](Self::remove_unknown). Whoever accesses the range meanwhile waits, or
    /// bypasses it.
    pub fn pick_victim(&mut self) -> Option<ReclaimToken> {
        // A range that has to go for one that is used more is not looked for: that would take heat
        // from the others.
        let outdone = self.outdone.take();
        let idle = |i: &u32| self.ranges.get(*i).is_some_and(Slot::is_idle);
        let i = outdone.filter(idle).or_else(|| self.victim())?;
        self.begin_reclaim_for_others(i)
    }

    /// One more range of an inode that might as well go, to be removed in the same request; at
    /// most [`policy::RECLAIM_BATCH`] in all are worth it.
    pub fn pick_another(&mut self, owner: Owner) -> Option<ReclaimToken> {
        let epoch = self.epoch;
        let list = if self.probation_is_full() {
            &self.probation
        } else {
            &self.protected
        };
        let slots = self.ranges.slots();
        let mut at = list.head();
        for _ in 0..policy::BATCH_SCAN {
            let i = at?;
            let range = slots.get(index(i))?;
            if range.owner == owner && range.is_idle() && range.heat.at(epoch) == 0 {
                return self.begin_reclaim_for_others(i);
            }
            at = list.after(slots, i);
        }
        None
    }

    /// The next range that was not used for `age` ticks: [`policy::IDLE_TICKS`], or
    /// [`policy::PRESSURE_TICKS`]. What processes do through page tables is not seen here: the caller
    /// cancels for a range that may be in use so.
    ///
    /// None after [`policy::IDLE_SCAN`] were looked at in vain; the next call goes on from there.
    pub fn pick_idle(&mut self, age: u32) -> Option<ReclaimToken> {
        for _ in 0..policy::IDLE_SCAN.min(self.ranges.limit()) {
            let i = self.idle_hand;
            self.idle_hand = i.saturating_add(1);
            let Some(range) = self.ranges.get(i) else {
                self.idle_hand = 0;
                continue;
            };
            if self.is_aged(range, age) {
                bump(&mut self.counters.reclaimed);
                return self.begin_reclaim(i);
            }
        }
        None
    }

    /// One more range of an inode that was not used for `age` ticks, to be removed in the same
    /// request; none after [`policy::IDLE_SCAN`] were looked at.
    pub fn pick_another_idle(&mut self, owner: Owner, age: u32) -> Option<ReclaimToken> {
        for i in (self.idle_hand..).take(index(policy::IDLE_SCAN)) {
            let range = self.ranges.get(i)?;
            if range.owner == owner && self.is_aged(range, age) {
                bump(&mut self.counters.reclaimed);
                return self.begin_reclaim(i);
            }
        }
        None
    }

    fn is_aged(&self, range: &Slot, age: u32) -> bool {
        range.is_idle() && self.tick.wrapping_sub(range.used_at) >= age
    }

    /// The next range with anything from `start` to `end` of a file, to be removed whether it is hot
    /// or not: before a truncation, or when the inode goes. The caller sees to it that nothing is
    /// mapped anew there.
    pub fn begin_remove(&mut self, owner: Owner, start: u64, end: u64) -> Removal {
        // Those that are in use are waited for when the others are gone.
        let mut from = start;
        let mut busy = None;
        while let Some(i) = self.map.first_in(self.ranges.slots(), owner, from, end) {
            let Some(range) = self.ranges.get(i) else {
                break;
            };
            if range.is_unused() {
                return match self.begin_reclaim(i) {
                    Some(token) => Removal::Remove(token),
                    None => Removal::Done,
                };
            }
            busy = busy.or(Some(i));
            from = range.file_end();
        }
        self.wait_for(busy)
    }

    /// The first range of a file with anything from `start` to before `end`, whatever state it is in.
    pub fn first_range(&self, owner: Owner, start: u64, end: u64) -> Option<RangeInfo> {
        let first = self.map.first_in(self.ranges.slots(), owner, start, end)?;
        self.range(SlotId(first))
    }

    /// The next range of any file, to be removed whether it is hot or not: at unmount.
    ///
    /// O(ranges).
    pub fn begin_remove_any(&mut self) -> Removal {
        let find = |slots: &[Slot], f: fn(&Slot) -> bool| {
            let i = slots.iter().position(f)?;
            u32::try_from(i).ok()
        };
        let idle = find(self.ranges.slots(), Slot::is_unused);
        match idle.and_then(|i| self.begin_reclaim(i)) {
            Some(token) => Removal::Remove(token),
            None => {
                let busy = find(self.ranges.slots(), Slot::is_live);
                self.wait_for(busy)
            }
        }
    }

    fn wait_for(&mut self, busy: Option<u32>) -> Removal {
        let Some(i) = busy else {
            return Removal::Done;
        };
        if let Some(range) = self.ranges.get_mut(i) {
            range.wanted = true;
        }
        bump(&mut self.counters.waits);
        Removal::Wait(Wait::Range(SlotId(i)))
    }

    /// Begins to reclaim a range whose room is needed.
    fn begin_reclaim_for_others(&mut self, i: u32) -> Option<ReclaimToken> {
        bump(&mut self.counters.reclaimed);
        let bytes = self.ranges.get(i).map_or(0, |range| range.order.bytes());
        let token = self.begin_reclaim(i)?;
        self.promised = self.promised.saturating_add(bytes);
        Some(token)
    }

    fn begin_reclaim(&mut self, i: u32) -> Option<ReclaimToken> {
        let range = self.ranges.get(i).filter(|range| range.is_unused())?;
        let (len, writable) = (range.len, range.writable());
        let grant = self.ranges.grant(i, len, writable)?;
        self.dequeue(i);
        self.ranges.set_state(i, State::Reclaiming { writable });
        Some(ReclaimToken(grant))
    }

    /// REMOVEMAPPING succeeded: the range is free.
    pub fn removed(&mut self, token: ReclaimToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        let (epoch, extent) = (self.epoch, token.extent());
        let heat = self.ranges.get(i).map_or(0, |range| range.heat.at(epoch));
        let part = self.map.part(extent.owner, extent.file_offset);
        let heat = Heat::new(heat.max(policy::RECLAIMED_HEAT), epoch);
        self.ghosts.put(part, heat, epoch);
        bump(&mut self.counters.removed);
        Ok(self.release(i))
    }

    /// REMOVEMAPPING was not sent, because pages of the range are pinned, say: it is as it was,
    /// counts as used just now, and is not picked again before the next [`tick`](Self::tick). So
    /// nobody who needs room tries again and again.
    pub fn remove_cancelled(&mut self, token: ReclaimToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        let (epoch, tick) = (self.epoch, self.tick);
        bump(&mut self.counters.cancelled);
        let mut writable = false;
        if let Some(range) = self.ranges.get_mut(i) {
            writable = range.writable();
            range.used_at = tick;
            range.heat = Heat::new(range.heat.at(epoch).max(policy::PROTECT), epoch);
        }
        self.ranges.set_state(i, State::Mapped { writable });
        self.ranges.hold(i);
        self.enqueue(i);
        // Those who wait for any range are woken by the tick.
        Ok(self.wake(i, false))
    }

    /// REMOVEMAPPING failed, or it is not known how it ended. The range is retired.
    pub fn remove_unknown(&mut self, token: ReclaimToken) -> Result<Wake, Stale> {
        let i = self.check(&token.0)?;
        Ok(self.retire(i))
    }

    // --- time --------------------------------------------------------------

    /// Time goes on by so many ticks, of a second or so each. To be called with every tick as long as
    /// the window is used, and later for all of those in which it was not.
    pub fn tick(&mut self, ticks: u32) -> Wake {
        self.tick = self.tick.wrapping_add(ticks);
        self.promised = 0;
        let any = self.ranges.unhold();
        self.wake_any(any)
    }

    /// How many ranges should be reclaimed now, in the background, so that those who need room
    /// soon find some. 0 if nobody needed any lately.
    pub fn background_goal(&self) -> u32 {
        let recent = |at: u32| self.tick.wrapping_sub(at) <= policy::DEMAND_TICKS;
        if self.dead || !self.demand_at.is_some_and(recent) {
            return 0;
        }
        // Room is bytes and slots; the one that is scarcer counts.
        let short = |free: u64, all: u64| {
            if free >= all / policy::LOW_WATER {
                return 0;
            }
            (all / policy::HIGH_WATER).saturating_sub(free)
        };
        let usable = self.geometry().usable();
        let bytes = short(self.buddy.free_bytes(), usable);
        let mean = (usable.saturating_sub(self.buddy.free_bytes()))
            .checked_div(u64::from(self.ranges.in_use()))
            .unwrap_or(0)
            .max(1);
        let limit = u64::from(self.ranges.limit());
        let slots = short(limit.saturating_sub(u64::from(self.ranges.in_use())), limit);
        let ranges = bytes.div_ceil(mean).max(slots);
        u32::try_from(ranges)
            .unwrap_or(u32::MAX)
            .min(self.ranges.idle())
    }
}
