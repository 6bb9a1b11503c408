// SPDX-License-Identifier: GPL-2.0

//! The window: SETUPMAPPING and REMOVEMAPPING become maps and unmaps that the VMM carries out.
//!
//! Four things about the VMM (QEMU 11.1) shape this module:
//! - It refuses a map over a live one, so what is in the way is unmapped first.
//! - It refuses a map past the end of the file, so a file is grown for the moment of the map.
//! - It acknowledges a map before the guest can reach it, so the answer waits until the map's memory region is announced.
//! - Each map takes a memory slot of which it has about 510, and it aborts when they are used up; so their number is bounded.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Timespec, Timestamps};
use rustix::io::Errno;
use serde::Serialize;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use crate::counters::Counters;
use crate::fs::{Failure, Fs, Inode, Outcome, Request};
use crate::lock;
use crate::options::{PastEof, Settings};
use crate::wire;

/// How long to wait until a map takes effect.
const BARRIER: Duration = Duration::from_secs(1);

/// Part of a file in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Map {
    /// Place in the window.
    pub moffset: u64,
    pub len: u64,
    pub nodeid: u64,
    /// Place in the file.
    pub foffset: u64,
    pub writable: bool,
}

impl Map {
    fn end(&self) -> u64 {
        self.moffset + self.len
    }
}

/// The live maps by their place.
#[derive(Default)]
struct Maps(BTreeMap<u64, Map>);

impl Maps {
    /// The maps that lie in `start..end`, or the one that crosses its edge.
    fn within(&self, start: u64, end: u64) -> Result<Vec<Map>, Map> {
        let mut found = Vec::new();
        for map in self
            .0
            .range(..end)
            .rev()
            .map(|(_, map)| *map)
            .take_while(|map| map.end() > start)
        {
            if map.moffset < start || map.end() > end {
                return Err(map);
            }
            found.push(map);
        }
        Ok(found)
    }
}

/// The memory regions that the VMM announced, to see when a map takes effect.
#[derive(Default)]
struct Regions {
    /// Those that exist, by address, each with its length and when it appeared.
    known: HashMap<u64, (u64, u64)>,
    /// Counts the announcements.
    clock: u64,
}

impl Regions {
    /// Notes that now the regions of `present`, address and length, exist.
    fn update(&mut self, present: impl Iterator<Item = (u64, u64)>) {
        self.clock += 1;
        let before = std::mem::take(&mut self.known);
        for (start, len) in present {
            let since = match before.get(&start) {
                Some((old, since)) if *old == len => *since,
                _ => self.clock,
            };
            self.known.insert(start, (len, since));
        }
    }

    /// Whether a region of `len` bytes appeared after `clock`.
    fn appeared(&self, len: u64, clock: u64) -> bool {
        self.known
            .values()
            .any(|(known, since)| *known == len && *since > clock)
    }
}

/// The window and what is mapped in it.
pub struct Window {
    size: u64,
    counters: Arc<Counters>,
    /// Held while the VMM is talked to, so that this and the VMM's own table agree.
    maps: Mutex<Maps>,
    vmm: Mutex<Option<Backend>>,
    regions: Mutex<Regions>,
    announced: Condvar,
}

impl Window {
    /// A window of `size` bytes; 0 is none.
    pub fn new(size: u64, counters: Arc<Counters>) -> Window {
        Window {
            size,
            counters,
            maps: Mutex::default(),
            vmm: Mutex::default(),
            regions: Mutex::default(),
            announced: Condvar::new(),
        }
    }

    /// The window's size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// From now on maps are asked for on `vmm`.
    pub fn connect(&self, vmm: Backend) {
        *lock::mutex(&self.vmm) = Some(vmm);
    }

    /// The VMM is gone, and the maps with it.
    pub fn disconnect(&self) {
        *lock::mutex(&self.vmm) = None;
        lock::mutex(&self.maps).0.clear();
    }

    /// The VMM announced that these memory regions exist.
    pub fn regions_changed(&self, present: impl Iterator<Item = (u64, u64)>) {
        lock::mutex(&self.regions).update(present);
        self.announced.notify_all();
    }

    /// How many maps there are, and their bytes.
    pub fn live(&self) -> (u64, u64) {
        let maps = lock::mutex(&self.maps);
        (
            maps.0.len() as u64,
            maps.0.values().map(|map| map.len).sum(),
        )
    }

    /// All maps.
    pub fn list(&self) -> Vec<Map> {
        lock::mutex(&self.maps).0.values().copied().collect()
    }

    /// Removes all maps.
    pub fn clear(&self) {
        let mut maps = lock::mutex(&self.maps);
        for map in std::mem::take(&mut maps.0).into_values() {
            // A VMM that was reset has none of them any more.
            let _ = self.vmm_unmap(&map);
        }
    }

    /// SETUPMAPPING.
    pub fn setup(&self, fs: &Fs, request: &mut Request<'_>) -> Outcome {
        if self.size == 0 {
            request.args.take(request.args.left())?;
            return Err(Errno::NOSYS.into());
        }
        let args = &mut request.args;
        let (_fh, foffset, len, flags, moffset) = (
            args.u64()?,
            args.u64()?,
            args.u64()?,
            args.u64()?,
            args.u64()?,
        );
        let writable = flags & wire::SETUPMAPPING_WRITE != 0;
        let map = Map {
            moffset,
            len,
            nodeid: request.header.nodeid,
            foffset,
            writable,
        };
        let settings = fs.settings();
        self.check(&map, &settings)?;
        self.show(fs, &mut lock::mutex(&self.maps), map, &settings)?;
        Ok(Vec::new())
    }

    /// Maps, for what is in the way.
    fn show(&self, fs: &Fs, maps: &mut Maps, map: Map, settings: &Settings) -> Result<(), Failure> {
        let inode = fs.inode(map.nodeid)?;
        let file = inode.file()?;
        self.make_room(maps, &map, settings)?;
        if settings.max_maps > 0 && maps.0.len() >= settings.max_maps {
            return Err(Errno::NOMEM.into());
        }
        self.map_within_file(fs, &inode, &file, &map, settings)?;
        maps.0.insert(map.moffset, map);

        let mut numbers = self.counters.lock();
        numbers.dax.setup += 1;
        numbers.dax.setup_bytes += map.len;
        numbers.dax.live_maps_max = numbers.dax.live_maps_max.max(maps.0.len() as u64);
        Ok(())
    }

    /// Checks that a map lies in the window and on the boundaries that INIT promised.
    fn check(&self, map: &Map, settings: &Settings) -> Result<(), Failure> {
        let alignment = 1_u64
            .checked_shl(settings.map_alignment.into())
            .unwrap_or(u64::MAX)
            .max(4096);
        let aligned = |value: u64| value % alignment == 0;
        let end = map.moffset.checked_add(map.len);
        let inside =
            end.is_some_and(|end| end <= self.size) && map.foffset.checked_add(map.len).is_some();
        if map.len == 0
            || !inside
            || !aligned(map.moffset)
            || !aligned(map.foffset)
            || map.len % 4096 != 0
        {
            return Err(Failure::Malformed(format!(
                "{map:?} in a window of {:#x}",
                self.size
            )));
        }
        Ok(())
    }

    /// Unmaps what is where `map` shall be.
    fn make_room(&self, maps: &mut Maps, map: &Map, settings: &Settings) -> Result<(), Failure> {
        let crossed = |old| Failure::Malformed(format!("{map:?} overlaps a part of {old:?}"));
        let occupied = maps.within(map.moffset, map.end()).map_err(crossed)?;
        if occupied.is_empty() {
            return Ok(());
        }
        let mut numbers = self.counters.lock();
        numbers.dax.setup_occupied += 1;
        if occupied.iter().all(|old| {
            Map {
                writable: map.writable,
                ..*old
            } == *map
        }) {
            numbers.dax.setup_same += 1;
        }
        drop(numbers);
        if settings.no_unmap_before_map {
            return Ok(());
        }
        for old in occupied {
            maps.0.remove(&old.moffset);
            self.vmm_unmap(&old)?;
        }
        Ok(())
    }

    /// Maps, whatever it takes to have the map inside the file.
    fn map_within_file(
        &self,
        fs: &Fs,
        inode: &Inode,
        file: &File,
        map: &Map,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let end = map.foffset + map.len;
        if settings.past_eof == PastEof::Raw || inode.stat()?.st_size as u64 >= end {
            return self.vmm_map(file, map, settings);
        }
        self.counters.lock().dax.setup_past_eof += 1;
        if settings.past_eof == PastEof::Refuse {
            return Err(Errno::INVAL.into());
        }
        let _hidden = fs.hide_sizes();
        let stat = inode.stat()?;
        let size = stat.st_size as u64;
        if size >= end {
            return self.vmm_map(file, map, settings);
        }
        rustix::fs::ftruncate(file, end)?;
        let result = self.vmm_map(file, map, settings);
        rustix::fs::ftruncate(file, size)?;
        let time = |seconds, nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
            last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
        };
        rustix::fs::futimens(file, &times)?;
        result
    }

    /// REMOVEMAPPING.
    pub fn remove(&self, request: &mut Request<'_>) -> Outcome {
        if self.size == 0 {
            request.args.take(request.args.left())?;
            return Err(Errno::NOSYS.into());
        }
        let count = request.args.u32()?;
        for _ in 0..count {
            let (moffset, len) = (request.args.u64()?, request.args.u64()?);
            self.remove_range(moffset, len)?;
        }
        Ok(Vec::new())
    }

    fn remove_range(&self, moffset: u64, len: u64) -> Result<(), Failure> {
        let mut maps = lock::mutex(&self.maps);
        let crossed = |map| {
            Failure::Malformed(format!(
                "REMOVEMAPPING {moffset:#x}+{len:#x} of a part of {map:?}"
            ))
        };
        let removed = maps
            .within(moffset, moffset.saturating_add(len))
            .map_err(crossed)?;
        let mut numbers = self.counters.lock();
        numbers.dax.remove += 1;
        if removed.is_empty() {
            numbers.dax.remove_nothing += 1;
        }
        drop(numbers);
        for map in removed {
            maps.0.remove(&map.moffset);
            self.vmm_unmap(&map)?;
        }
        Ok(())
    }

    fn vmm(&self) -> Result<Backend, Errno> {
        lock::mutex(&self.vmm).clone().ok_or(Errno::NODEV)
    }

    fn vmm_map(&self, file: &File, map: &Map, settings: &Settings) -> Result<(), Failure> {
        let vmm = self.vmm()?;
        let started = Instant::now();
        let clock = lock::mutex(&self.regions).clock;
        // Always writable: the VMM's region is what the guest may do, and the guest keeps to what it asked for.
        let refused = vmm
            .shmem_map(&message(map, VhostUserMMapFlags::WRITABLE), file)
            .err();
        let late = refused.is_none() && !settings.no_barrier && !self.took_effect(map.len, clock);
        let mut numbers = self.counters.lock();
        numbers.dax.map_us += started.elapsed().as_micros() as u64;
        numbers.dax.barrier_timeouts += u64::from(late);
        let Some(error) = refused else { return Ok(()) };
        numbers.dax.map_refused += 1;
        log::warn!("the VMM refuses {map:?}: {error}");
        Err(Errno::IO.into())
    }

    /// Waits until a region of `len` bytes appears after `clock`.
    fn took_effect(&self, len: u64, clock: u64) -> bool {
        let regions = lock::mutex(&self.regions);
        let waited = self
            .announced
            .wait_timeout_while(regions, BARRIER, |regions| !regions.appeared(len, clock));
        !waited
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .1
            .timed_out()
    }

    fn vmm_unmap(&self, map: &Map) -> Result<(), Failure> {
        let vmm = self.vmm()?;
        let started = Instant::now();
        let refused = vmm
            .shmem_unmap(&message(map, VhostUserMMapFlags::empty()))
            .err();
        let mut numbers = self.counters.lock();
        numbers.dax.unmap_us += started.elapsed().as_micros() as u64;
        let Some(error) = refused else { return Ok(()) };
        numbers.dax.unmap_refused += 1;
        log::warn!("the VMM refuses to unmap {map:?}: {error}");
        Err(Errno::IO.into())
    }
}

fn message(map: &Map, flags: VhostUserMMapFlags) -> VhostUserMMap {
    VhostUserMMap {
        shmid: 0,
        padding: [0; 7],
        fd_offset: map.foffset,
        shm_offset: map.moffset,
        len: map.len,
        flags: flags.bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(moffset: u64, len: u64) -> Map {
        Map {
            moffset,
            len,
            nodeid: 2,
            foffset: 0,
            writable: false,
        }
    }

    #[test]
    fn maps_are_found_by_place() {
        let maps = Maps(
            [map(0, 10), map(10, 10), map(30, 10)]
                .map(|map| (map.moffset, map))
                .into(),
        );
        assert_eq!(maps.within(20, 30), Ok(vec![]));
        assert_eq!(maps.within(10, 30), Ok(vec![map(10, 10)]));
        assert_eq!(
            maps.within(0, u64::MAX),
            Ok(vec![map(30, 10), map(10, 10), map(0, 10)])
        );
        assert_eq!(maps.within(5, 30), Err(map(0, 10)));
        assert_eq!(maps.within(0, 15), Err(map(10, 10)));
        assert_eq!(maps.within(32, 34), Err(map(30, 10)));
    }

    #[test]
    fn new_regions_are_told_from_old_ones() {
        let mut regions = Regions::default();
        regions.update([(0, 100), (1000, 50)].into_iter());
        let clock = regions.clock;
        regions.update([(0, 100), (1000, 50)].into_iter());
        assert!(!regions.appeared(50, clock));
        regions.update([(0, 100), (2000, 50)].into_iter());
        assert!(regions.appeared(50, clock));
        assert!(!regions.appeared(100, clock));
    }
}
