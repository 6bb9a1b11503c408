// SPDX-License-Identifier: GPL-2.0

//! Reclaim of ranges: for others, with their inode, and with the window.
//!
//! A range that is to go is first out of everybody's reach: its state says so, and its pages are taken out of page tables. That
//! needs the inode's `invalidate_lock`, which is not held any more when REMOVEMAPPING is sent. Pages that somebody has pinned
//! (direct I/O, RDMA) stay, and so does the range.

use super::{
    mapped_file::MappedFile,
    state::Ending,
    window::Window, //
};
use crate::{
    filesystem::VirtioFs,
    transport::device::Instance, //
};
use dax_map::{
    policy::{
        IDLE_TICKS,
        PRESSURE_TICKS,
        RECLAIM_BATCH, //
    },
    Extent,
    Removal,
    SlotId,
    Wait, //
};
use fuse_proto::{
    Caller,
    MapRange,
    NodeId,
    Removemapping, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    },
};
use vfs::{
    dax::Patience,
    Inode, //
};
use virtio::{
    Connection,
    Payload, //
};

/// How long the daemon may take to answer, in milliseconds, when the device goes.
const LAST_PATIENCE: u32 = 2000;
/// How often ranges that are in use are waited for then, a second each.
const LAST_WAITS: u32 = 3;

impl Window {
    /// Gives up the range that is worth least, and others of the same file that are worth nothing: how many, none if the daemon
    /// refuses. Sleeps.
    pub(crate) fn make_room(self: &Arc<Self>) -> Result<usize> {
        let mut extents: KVec<Extent> = KVec::with_capacity(RECLAIM_BATCH as usize, GFP_KERNEL)?;
        let mut state = self.state().lock();
        let Some(token) = state.table.pick_victim() else {
            return Ok(0);
        };
        // No more than will be needed soon: the next ones may be in use between two reads.
        let most = state.table.background_goal().min(RECLAIM_BATCH) as usize;
        let file = state.undertake_removals(token, most, &mut extents, |table, owner| {
            table.pick_another(owner)
        });
        drop(state);
        self.give_up(file, extents, |_| true)
    }

    /// Gives up ranges of a file, for which there are duties, as far as their pages can be taken out of page tables, and only if
    /// the inode is `willing`: how many. Sleeps.
    fn give_up(
        self: &Arc<Self>,
        file: Option<Arc<MappedFile>>,
        mut extents: KVec<Extent>,
        willing: impl FnOnce(&Inode<VirtioFs>) -> bool,
    ) -> Result<usize> {
        let Some(file) = file else {
            self.cancel(&extents);
            return Ok(0);
        };
        self.take_out(&file, &mut extents, willing)?;
        if extents.is_empty() {
            return Ok(0);
        }
        match self.unmap(&file, &extents) {
            Ok(()) => Ok(extents.len()),
            Err(e) if e == EINTR || !self.session().is_connected() => Err(e),
            // These are lost, or have to stay. Who needs room may have that of others.
            Err(_) => Ok(0),
        }
    }

    /// Gives up ranges that were not used for `age` ticks, `most` at most. What processes have mapped may be in use without the
    /// window knowing: it counts, and stays. Sleeps.
    fn give_up_idle(self: &Arc<Self>, age: u32, most: usize) -> Result {
        let mut left = most;
        while left > 0 {
            let mut extents = KVec::with_capacity(RECLAIM_BATCH as usize, GFP_KERNEL)?;
            let mut state = self.state().lock();
            let Some(token) = state.table.pick_idle(age) else {
                break;
            };
            let batch = left.min(RECLAIM_BATCH as usize);
            let file = state.undertake_removals(token, batch, &mut extents, |table, owner| {
                table.pick_another_idle(owner, age)
            });
            drop(state);
            left = left.saturating_sub(extents.len());
            self.give_up(file, extents, |inode| !inode.is_memory_mapped())?;
        }
        Ok(())
    }

    /// The clock of the session: gives up what nobody has used for long. Whether there are ranges left to look after. Sleeps.
    pub(crate) fn look_for_idle(self: &Arc<Self>) -> bool {
        self.tick();
        // All of them are looked at, also after those that stay.
        let ranges = self.state().lock().files.len();
        let _ = self.give_up_idle(IDLE_TICKS, ranges);
        let state = self.state().lock();
        !state.closed && state.table.usage().ranges > 0
    }

    /// How many ranges and copies might be given up when memory is short. Callable from any context.
    pub(crate) fn idle(&self) -> usize {
        let ranges = self.state().lock().table.usage().idle as usize;
        ranges.saturating_add(self.copies().len())
    }

    /// Memory is short: gives up to `count` copies, and as many ranges that are not used, soon. Part of memory reclaim: nothing is
    /// waited for.
    pub(crate) fn shrink(self: &Arc<Self>, count: usize) {
        self.tick();
        if !self.begin_background() {
            return;
        }
        let window = self.clone();
        let spawned =
            self.session()
                .instance()
                .work()
                .try_spawn(GFP_ATOMIC | __GFP_NOWARN, move || {
                    window.copies().give_up(count);
                    let _ = window.give_up_idle(PRESSURE_TICKS, count);
                    window.end_background();
                });
        if spawned.is_err() {
            self.end_background();
        }
    }

    /// Makes room in the background, if there will soon be none.
    pub(crate) fn reclaim_ahead(self: &Arc<Self>) {
        if self.state().lock().table.background_goal() == 0 || !self.begin_background() {
            return;
        }
        let window = self.clone();
        let spawned = self
            .session()
            .instance()
            .work()
            .try_spawn(GFP_KERNEL, move || {
                while window.state().lock().table.background_goal() > 0 {
                    if !matches!(window.make_room(), Ok(1..)) {
                        break;
                    }
                }
                window.end_background();
            });
        if spawned.is_err() {
            self.end_background();
        }
    }

    /// Takes what ranges show out of page tables. Those that have to stay are not among `extents` any more.
    fn take_out(
        &self,
        file: &MappedFile,
        extents: &mut KVec<Extent>,
        willing: impl FnOnce(&Inode<VirtioFs>) -> bool,
    ) -> Result {
        let Some(held) = file.hold().filter(|held| willing(&held.inode)) else {
            // If it is about to go, its ranges go with it.
            self.cancel(extents);
            extents.clear();
            return Ok(());
        };
        let mut lock = held
            .inode
            .lock_invalidate_killable()
            .inspect_err(|_| self.cancel(extents))?;
        extents.retain(|extent| {
            let broken = self.break_range(&mut lock, extent, Patience::None);
            if broken.is_err() {
                self.settle(&[extent.slot], Ending::NotSent);
            }
            broken.is_ok()
        });
        Ok(())
    }

    fn cancel(&self, extents: &[Extent]) {
        for extent in extents {
            self.settle(&[extent.slot], Ending::NotSent);
        }
    }

    /// Gives up all ranges of a file, of which nothing is in page tables any more. Sleeps.
    fn remove_all(self: &Arc<Self>, file: &Arc<MappedFile>) {
        loop {
            let mut extents = [Extent::default(); RECLAIM_BATCH as usize];
            let mut count: usize = 0;
            let mut busy = Wait::Any;
            let mut state = self.state().lock();
            for place in &mut extents {
                match state.table.begin_remove(file.owner(), 0, u64::MAX) {
                    Removal::Remove(token) => *place = state.undertake_removal(token),
                    // It may be one that was just taken.
                    Removal::Wait(wait) => {
                        busy = wait;
                        break;
                    }
                    Removal::Done => return,
                }
                count = count.saturating_add(1);
            }
            let awaited = self.awaited(busy);
            drop(state);
            let extents = extents.get(..count).unwrap_or(&[]);
            if extents.is_empty() {
                if self.session().is_connected() {
                    // Those who have it in use do not wait for anything that this one holds.
                    let _ = self.wait(awaited);
                } else {
                    // It may be an answer that is waited for, and none comes any more.
                    self.abandon();
                }
                continue;
            }
            match self.unmap(file, extents) {
                Err(e) if e == ENOMEM && self.session().is_connected() => {
                    fsleep(Delta::from_millis(10));
                }
                Err(_) if !self.session().is_connected() => self.abandon(),
                _ => {}
            }
        }
    }

    /// The inode of a file goes, and the lookups that the daemon counted for it are given back when its ranges are gone. May be
    /// part of memory reclaim: what has to wait for the daemon is done by a work item.
    pub(crate) fn evicted(self: &Arc<Self>, file: &Arc<MappedFile>) {
        // Who waits for it to go.
        self.wake_any();
        let mut state = self.state().lock();
        file.evict(&mut state);
        let range = state.table.first_range(file.owner(), 0, u64::MAX);
        drop(state);
        if range.is_none() {
            return self.session().forget(file.known().clone());
        }
        let (window, gone) = (self.clone(), file.clone());
        let spawned =
            self.session()
                .instance()
                .work()
                .try_spawn(GFP_ATOMIC | __GFP_NOWARN, move || {
                    window.remove_all(&gone);
                    window.session().forget(gone.known().clone());
                });
        if spawned.is_err() {
            self.remove_all(file);
            self.session().forget(file.known().clone());
        }
    }

    /// No range is made or used any more; whoever waits is told.
    pub(crate) fn close(&self) {
        self.state().lock().closed = true;
        self.wake_all();
    }

    /// The device goes: takes all that is shown out of page tables and files, also those that are still mounted, and gives the
    /// ranges back, as far as the daemon still answers. Sleeps.
    pub(crate) fn give_up_all(&self, instance: &Instance) {
        self.close();
        self.copies().give_up(usize::MAX);
        let ranges = self.state().lock().files.len();
        for index in (0..ranges).filter_map(|index| u32::try_from(index).ok()) {
            let state = self.state().lock();
            let slot = SlotId::new(index);
            let shown = (state.file(slot).cloned()).zip(state.table.range(slot));
            drop(state);
            if let Some((file, range)) = shown {
                self.take_out_last(&file, &range.extent);
            }
        }
        self.give_back(instance);
        self.abandon();
    }

    /// Takes what a range shows out of page tables and its file, however long that takes. Sleeps.
    fn take_out_last(&self, file: &MappedFile, extent: &Extent) {
        loop {
            let awaited = self.awaited(Wait::Any);
            if let Some(held) = file.hold() {
                let mut lock = held.inode.lock_invalidate();
                // Nothing ends the wait, and where a range is fits into a file.
                let _ = self.break_range(&mut lock, extent, Patience::Unlimited);
                return;
            }
            // Its superblock is being unmounted, or the inode is evicted: that does it.
            if file.is_gone() {
                return;
            }
            let _ = self.wait(awaited);
        }
    }

    /// Sends REMOVEMAPPING for all ranges, as long as these are answered soon.
    fn give_back(&self, instance: &Instance) {
        // That of the session may be closed.
        let connection = Connection::new();
        let mut waits = 0;
        loop {
            let mut state = self.state().lock();
            let token = match state.table.begin_remove_any() {
                Removal::Remove(token) => token,
                Removal::Wait(wait) if waits < LAST_WAITS => {
                    let awaited = self.awaited(wait);
                    drop(state);
                    waits += 1;
                    let _ = self.wait(awaited);
                    continue;
                }
                Removal::Wait(_) | Removal::Done => return,
            };
            let file = state.file(token.slot()).cloned();
            let extent = state.undertake_removal(token);
            drop(state);
            let range = MapRange {
                moffset: extent.window_offset,
                len: extent.len,
            };
            let op = Removemapping {
                node: file.map_or(NodeId::ROOT, |file| file.known().node()),
                ranges: &[range],
            };
            let removed = instance
                .begin(&connection, &op, &Caller::default(), Payload::None, None)
                .and_then(|sent| {
                    sent.transfer()
                        .wait_at_most(msecs_to_jiffies(LAST_PATIENCE))
                });
            if !matches!(removed, Ok(true)) {
                return;
            }
            self.settle(&[extent.slot], Ending::Done);
        }
    }

    /// All ranges are given up as they are: the connection is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.state().lock();
        state.closed = true;
        state.table.abandon();
        drop(state);
        self.wake_all();
    }
}
