// SPDX-License-Identifier: GPL-2.0

//! State under the window lock: the table of ranges, their files, and their requests under way.
//!
//! What to do is decided by `dax_map`. While a request is under way a range has a *duty*: the token that says how it ended.
//! Nothing that is done with the lock held sleeps or allocates.

use super::mapped_file::MappedFile;
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
    RemapToken,
    ReserveToken,
    Slot,
    SlotId,
    Stale,
    Stream,
    Wake, //
};
use fuse_proto::ReplyError;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        LockedBy,
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};
use kernel_ext::siphash::SipHash;
use vfs::time::jiffies_64;

/// Milliseconds between two ticks of the window's clock. With each, ranges are tried again that had to stay because somebody has
/// pinned pages of them: whoever lets go of a page wakes those who wait for this very page (`free_zone_device_folio()`), and a task
/// that needs a range waits for whichever of many comes first.
pub(crate) const TICK: u32 = 1000;
/// Parts of files that are remembered for each range.
const GHOSTS_PER_RANGE: usize = 8;
/// Fewest ranges that there are. An instruction that copies from one mapping to another needs as many at the same time, where it
/// lies across two ranges in both: with fewer, it would have one taken for the other for ever. So none is larger than such a part
/// of the window.
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
pub(crate) enum Ending {
    /// It was carried out.
    Done,
    /// It was not sent.
    NotSent,
    /// The daemon refused it.
    Refused,
    /// There is no telling.
    Unknown,
}

impl Ending {
    /// What the daemon's words mean.
    pub(crate) fn of(done: &Result<(), ReplyError>) -> Self {
        match done {
            Ok(()) => Self::Done,
            Err(e) if e.is_malformed() => Self::Unknown,
            Err(_) => Self::Refused,
        }
    }
}

/// The ranges of a window.
pub(crate) struct State {
    pub(crate) table: Table,
    /// For each range whose it is.
    pub(crate) files: KVVec<Option<Arc<MappedFile>>>,
    /// For each range what is under way.
    duties: KVVec<Option<Duty>>,
    /// No range is made, and none is used any more.
    pub(crate) closed: bool,
    /// The daemon cannot map.
    unable: bool,
    /// Wishes for ranges that are not granted.
    pause: u32,
    next_tick: u64,
    /// Nanoseconds that tasks have waited for others' ranges.
    pub(crate) waited: u64,
}

impl State {
    /// That of an empty window of `len` bytes, with ranges aligned to `alignment` bytes, of which there are `ranges` at most, or
    /// [`FEWEST_RANGES`] if that is more. Sleeps. Errors: `EINVAL` when there is no room for so many, `ENOMEM`.
    pub(crate) fn new(len: u64, alignment: u64, ranges: usize) -> Result<Self> {
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

    /// What an access means for its open file.
    #[inline]
    pub(crate) fn note(&mut self, run: &Run, access: &Access) -> Motion {
        let max = self.table.geometry().max();
        run.0.access_mut(self).note(access, max)
    }

    /// The range for an access that was [noted](Self::note), if it is ready and easy to find, and what is to be mapped ahead.
    #[inline]
    pub(crate) fn hit(
        &mut self,
        run: &Run,
        access: &Access,
        motion: Motion,
    ) -> Option<(Hit, Option<Plan>)> {
        let hit = self.table.hit(access, motion)?;
        let max = self.table.geometry().max();
        let next = run.0.access_mut(self).found(access, motion, &hit, max);
        let ahead = next.and_then(|offset| self.table.plan_ahead(access, offset));
        Some((hit, ahead))
    }

    /// What to do with an access that did not [hit](Self::hit). The lock guards the stream as well, so that it is copied.
    pub(crate) fn advise(&mut self, run: &Run, access: &Access, motion: Motion) -> Advice {
        let mut stream = *run.0.access(self);
        let advice = self.table.advise(&mut stream, access, motion);
        *run.0.access_mut(self) = stream;
        advice
    }

    /// Whether the daemon cannot map.
    pub(crate) fn is_unable(&self) -> bool {
        self.unable
    }

    pub(crate) fn file(&self, slot: SlotId) -> Option<&Arc<MappedFile>> {
        self.files.get(slot.get() as usize)?.as_ref()
    }

    /// A range is to be made for a file: SETUPMAPPING is about to be sent for it.
    pub(crate) fn undertake_map(&mut self, token: ReserveToken, file: &Arc<MappedFile>) -> Extent {
        let extent = *token.extent();
        if let Some(place) = self.files.get_mut(extent.slot.get() as usize) {
            *place = Some(file.clone());
        }
        self.undertake(extent.slot, Duty::Map(token));
        extent
    }

    /// A range is to be made writable, or longer: SETUPMAPPING is about to be sent for it.
    pub(crate) fn undertake_remap(&mut self, token: RemapToken) -> Extent {
        let extent = *token.extent();
        self.undertake(extent.slot, Duty::Remap(token));
        extent
    }

    /// A request is about to be sent for a range.
    fn undertake(&mut self, slot: SlotId, duty: Duty) {
        if let Some(place) = self.duties.get_mut(slot.get() as usize) {
            *place = Some(duty);
        }
    }

    /// REMOVEMAPPING is about to be sent for a range, and for those of the same file that `another` picks, so many at most: these,
    /// and their file. `extents` has room for them.
    pub(crate) fn undertake_removals(
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
    pub(crate) fn undertake_removal(&mut self, token: ReclaimToken) -> Extent {
        let extent = *token.extent();
        self.undertake(extent.slot, Duty::Remove(token));
        extent
    }

    /// Whether the daemon has refused to map lately, or cannot, so that it is not asked for this.
    pub(crate) fn grants_nothing(&mut self, access: &Access) -> bool {
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

    /// SETUPMAPPING has failed, for good if the daemon is `unable` to map.
    pub(crate) fn refused(&mut self, unable: bool) {
        self.unable |= unable;
        self.pause = PAUSE;
    }

    /// Whether it can be asked for what is to be mapped ahead.
    pub(crate) fn grants_ahead(&self) -> bool {
        !self.unable && self.pause == 0
    }

    /// The request that was under way for a range has ended.
    pub(crate) fn fulfil(&mut self, slot: SlotId, ending: Ending) -> Wake {
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

    /// Lets the window's clock move on, if it is time.
    #[inline]
    pub(crate) fn tick(&mut self) -> Wake {
        let now = jiffies_64();
        match now.checked_sub(self.next_tick) {
            Some(late) => self.tick_late(now, late),
            None => Wake::default(),
        }
    }

    /// It is `now`, and has been time for so long.
    #[inline(never)]
    fn tick_late(&mut self, now: u64, late: u64) -> Wake {
        let tick = msecs_to_jiffies(TICK) as u64;
        let missed = late.checked_div(tick).unwrap_or(0);
        self.next_tick = now.saturating_add(tick);
        let ticks = u32::try_from(missed).unwrap_or(u32::MAX);
        self.table.tick(ticks.saturating_add(1))
    }
}

/// How an open file has been read and written lately, for its window to know. Protected by the window lock.
///
/// It is only ever used with the window that made it, as [`LockedBy`] wants: a file's session stays the same, and so its window.
pub(crate) struct Run(LockedBy<Stream, State>);

impl Run {
    /// For a file that was opened just now, of the window that has this lock. Errors: `ENOMEM`.
    pub(crate) fn new(lock: &SpinLock<State>) -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self(LockedBy::new(lock, Stream::new())),
            GFP_KERNEL,
        )?)
    }
}
