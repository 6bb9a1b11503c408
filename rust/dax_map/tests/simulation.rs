// SPDX-License-Identifier: GPL-2.0

//! What the policy makes of ways to use files. The numbers of requests are exact, as everything is deterministic; the
//! bounds say what matters.

mod common;

use common::*;
use dax_map::*;

const WINDOW: u64 = 64 * MIB;

fn driver() -> Driver {
    Driver::new(window(WINDOW, 500))
}

/// 400 files of 16 KiB fit into 32 MiB, where 2 MiB ranges would make 16 of them fit.
#[test]
fn small_files_are_mapped_once() {
    let mut d = Driver::new(window(32 * MIB, 500));
    for pass in 0..5 {
        for owner in 0..400 {
            for offset in [0, 4 * KIB, 12 * KIB] {
                d.access(&mut Stream::new(), read(owner, offset, 4096, 16 * KIB));
            }
        }
        println!("pass {pass}: {} setups", d.setups);
        assert_eq!((d.setups, d.removed, d.bypassed), (400, 0, 0));
    }
    let usage = d.window.usage();
    assert_eq!(usage.by_order[usize::from(Order::KIB_64.get())], 400);
    assert_eq!(usage.free_bytes, 32 * MIB - 400 * 64 * KIB);
}

/// Random reads of a file that fits: each part is mapped once, nothing is bypassed.
#[test]
fn a_file_that_fits_is_mapped() {
    for size in [32 * MIB, WINDOW] {
        let mut d = driver();
        d.random(&mut Random(1), 1, size, 10_000);
        assert_eq!((d.setups, d.removed), (size / (2 * MIB), 0));
        assert_eq!(d.bypassed, 0);
    }
}

/// Random reads over a file eight times the window: the window shows an eighth of it, and stays as it is.
#[test]
fn random_reads_beyond_the_window_are_bypassed() {
    for factor in [4, 8] {
        let mut d = driver();
        let mut random = Random(2);
        d.random(&mut random, 1, factor * WINDOW, 20_000);
        println!(
            "{factor}x cold: {} setups, {} requests of {}",
            d.setups,
            d.requests(),
            d.accesses
        );
        d.forget_counts();
        d.random(&mut random, 1, factor * WINDOW, 100_000);
        let missed = d.accesses - d.hits;
        println!(
            "{factor}x warm: {} hits, {} setups, {} removals, {} bypassed",
            d.hits, d.setups, d.remove_requests, d.bypassed
        );
        assert!(d.bypassed * 100 > missed * 95, "{} of {missed}", d.bypassed);
        // Never dearer than without a window, though mapping costs more than a read.
        let cost = d.bypassed + (d.setups + d.remove_requests) * u64::from(policy::MAP_COST);
        assert!(cost < d.accesses);
        // What is mapped is used.
        assert!(d.hits > d.accesses / (factor + 2));
    }
}

/// What a task of [`side_by_side`] is at: it is told of how many accesses of others pass meanwhile.
enum Task {
    Reads,
    Removes(ReclaimToken, Plan, u32),
    Wakes(Plan),
    Maps(ReserveToken, u32),
}

/// Random reads of several tasks, where mapping and removing take as long as so many reads: how many ranges were mapped, and how
/// many reads were not of mapped parts.
fn side_by_side(
    window: &mut VecWindow,
    tasks: usize,
    size: u64,
    reads: u32,
    slow: u32,
) -> (u32, u32) {
    let mut random = Random(6);
    let mut stream = Stream::new();
    let mut states: Vec<Task> = (0..tasks).map(|_| Task::Reads).collect();
    let (mut maps, mut missed, mut done) = (0, 0, 0);
    while done < reads {
        for state in &mut states {
            *state = match std::mem::replace(state, Task::Reads) {
                Task::Reads => {
                    done += 1;
                    let offset = random.below(size / 4096) * 4096;
                    let access = read(1, offset, 4096, size);
                    match window.access(&mut stream, &access).step {
                        Step::Use(hit) => {
                            let _ = window.unpin(hit.slot);
                            Task::Reads
                        }
                        Step::Map(plan) => {
                            missed += 1;
                            begin(window, plan, slow)
                        }
                        _ => {
                            missed += 1;
                            Task::Reads
                        }
                    }
                }
                Task::Removes(token, plan, 0) => {
                    let _ = window.removed(token).unwrap();
                    Task::Wakes(plan.relaxed())
                }
                Task::Wakes(plan) => begin(window, plan, slow),
                Task::Removes(token, plan, left) => Task::Removes(token, plan, left - 1),
                Task::Maps(token, 0) => {
                    maps += 1;
                    let _ = window.commit(token, false).unwrap();
                    Task::Reads
                }
                Task::Maps(token, left) => Task::Maps(token, left - 1),
            };
        }
    }
    (maps, missed)
}

fn begin(window: &mut VecWindow, plan: Plan, slow: u32) -> Task {
    match window.reserve(&plan) {
        Ok(token) => Task::Maps(token, slow),
        Err(Refused::Reclaim) => match window.pick_victim() {
            Some(token) => Task::Removes(token, plan, slow),
            None => Task::Reads,
        },
        Err(_) => Task::Reads,
    }
}

/// The room that one task makes is not taken by another one for a part that is used less: with four tasks as many ranges are
/// mapped as with one.
#[test]
fn room_is_not_stolen() {
    for tasks in [1, 2, 4, 16] {
        let mut window = window(WINDOW, 500);
        let (maps, missed) = side_by_side(&mut window, tasks, 8 * WINDOW, 50_000, 10);
        println!("{tasks} tasks: {maps} ranges mapped, {missed} misses");
        assert!(maps <= 32 + 16, "{tasks} tasks: {maps}");
    }
}

/// Other ways to use more than fits never cost much more requests than without a window.
#[test]
fn what_cannot_be_helped_is_not_made_worse() {
    // Bursts of n reads of a part, then never again.
    for burst in [1, 2, 3, 4, 6, 8, 12, 20] {
        let mut d = driver();
        let mut random = Random(3);
        let mut stream = Stream::new();
        for _ in 0..50_000 / burst {
            let part = random.below(100_000) * 2 * MIB;
            for _ in 0..burst {
                let offset = part + random.below(512) * 4096;
                d.access(&mut stream, read(1, offset, 4096, 1 << 40));
            }
        }
        // Mapping is dearer than a read.
        let cost = d.bypassed + (d.setups + d.remove_requests) * u64::from(policy::MAP_COST) / 2;
        println!(
            "bursts of {burst}: {} setups, cost {cost} of {}",
            d.setups, d.accesses
        );
        assert!(cost * 100 < d.accesses * 125, "bursts of {burst}: {cost}");
    }
    // Many files, each of which would fit.
    let mut d = driver();
    let mut random = Random(4);
    for _ in 0..50_000 {
        let (owner, offset) = (random.below(100), random.below(2560) * 4096);
        d.access(&mut Stream::new(), read(owner, offset, 4096, 10 * MIB));
    }
    println!(
        "100 files of 10 MiB: {} setups, {} requests of {}",
        d.setups,
        d.requests(),
        d.accesses
    );
    assert!(d.requests() < d.accesses);
    // None is replaced for what was used a little more by chance.
    assert!(d.setups < 32 + 10);
}

/// A skewed use of a file eight times the window: what is hot comes to be mapped.
#[test]
fn what_is_hot_is_mapped() {
    let mut d = driver();
    let mut random = Random(5);
    let mut stream = Stream::new();
    let mut go = |d: &mut Driver, hot: u64, count| {
        for _ in 0..count {
            // Nine of ten reads to 32 MiB, in 2 MiB pieces that lie apart.
            let part = if random.below(10) < 9 {
                (random.below(16) * 15 + hot) % 256
            } else {
                random.below(256)
            };
            let offset = part * 2 * MIB + random.below(512) * 4096;
            d.access(&mut stream, read(1, offset, 4096, 512 * MIB));
        }
    };
    go(&mut d, 0, 5_000);
    d.forget_counts();
    go(&mut d, 0, 20_000);
    println!(
        "hot: {} hits, {} setups, {} bypassed",
        d.hits, d.setups, d.bypassed
    );
    assert!(d.hits * 100 > d.accesses * 88);
    // Others become hot.
    go(&mut d, 7, 5_000);
    d.forget_counts();
    go(&mut d, 7, 20_000);
    println!(
        "others hot: {} hits, {} setups, {} bypassed",
        d.hits, d.setups, d.bypassed
    );
    assert!(d.hits * 100 > d.accesses * 88);
}

/// A run through a file maps each range once, whatever the size of the reads, and the next one before it is needed.
#[test]
fn a_run_maps_each_range_once() {
    for step in [4 * KIB, 64 * KIB, 128 * KIB, MIB, 3 * MIB / 2] {
        for size in [32 * MIB, 8 * WINDOW, 8 * WINDOW + 12345] {
            let mut d = driver();
            d.scan(1, size, step);
            let ranges = size.div_ceil(2 * MIB);
            // The odd end takes a small range.
            assert!(
                d.setups <= ranges,
                "{step} {size}: {} setups of {ranges}",
                d.setups
            );
            assert!(d.setups + 1 >= ranges);
            // All but the first range was there when the run came to it.
            let ahead = d.window.counters().ahead;
            assert!(
                ahead + 2 >= ranges,
                "{step} {size}: {ahead} of {ranges} ahead"
            );
            assert!(d.bypassed <= policy::SEQUENTIAL_BYTES / step + 1);
            println!(
                "{step} {size}: {} setups, {} removals of {}",
                d.setups, d.remove_requests, d.removed
            );
        }
    }
}

/// A hot set stays mapped while something eight times the window comes by, in whatever way.
#[test]
fn a_scan_leaves_the_hot_set_alone() {
    for step in [4 * KIB, 128 * KIB, MIB] {
        let mut d = driver();
        let mut random = Random(6);
        d.random(&mut random, 1, 32 * MIB, 5_000);
        d.forget_counts();
        let mut scan = Stream::new();
        let size = 8 * WINDOW;
        let mut hot = (0, 0);
        for offset in (0..size).step_by(step as usize) {
            d.access(&mut scan, read(2, offset, step, size));
            let before = d.hits;
            d.random(&mut random, 1, 32 * MIB, 4);
            hot = (hot.0 + d.hits - before, hot.1 + 4);
        }
        println!(
            "scan by {step}: {} of {} hot reads hit, {} setups",
            hot.0, hot.1, d.setups
        );
        assert!(hot.0 * 100 >= hot.1 * 98, "{hot:?}");
        assert!(d.setups <= size / (2 * MIB) + 16);
    }
    // The same with a scan by page faults.
    let mut d = driver();
    let mut random = Random(6);
    d.random(&mut random, 1, 32 * MIB, 5_000);
    d.forget_counts();
    let mut scan = Stream::new();
    for offset in (0..8 * WINDOW).step_by(2 << 20) {
        let access = Access {
            len: 2 * MIB,
            ..fault(2, offset, 8 * WINDOW)
        };
        d.access(&mut scan, access);
        d.random(&mut random, 1, 32 * MIB, 64);
    }
    println!("scan by faults: {} setups", d.setups);
    assert!(d.setups <= 256 + 16);
}

/// A run of page faults maps each range once, and all but the first two before they are needed; with huge pages as with small ones.
#[test]
fn a_run_of_faults_is_mapped_ahead() {
    for step in [4 * KIB, 2 * MIB] {
        for size in [32 * MIB, 8 * WINDOW] {
            let mut d = driver();
            let mut stream = Stream::new();
            for offset in (0..size).step_by(step as usize) {
                d.access(&mut stream, fault(1, offset, size));
            }
            let ranges = size / (2 * MIB);
            let (ahead, misses) = (d.window.counters().ahead, d.window.counters().misses);
            println!("{step} {size}: {} setups, {ahead} ahead", d.setups);
            assert_eq!((d.setups, ahead, misses), (ranges, ranges - 2, 2));
        }
    }
    // Backwards, and here and there, nothing is.
    let mut d = driver();
    let (mut backwards, mut anywhere) = (Stream::new(), Stream::new());
    for chunk in (0..64).rev() {
        d.access(&mut backwards, fault(1, chunk * 2 * MIB, 8 * WINDOW));
        d.access(
            &mut anywhere,
            fault(2, chunk * 7 % 64 * 2 * MIB, 8 * WINDOW),
        );
    }
    assert_eq!(d.window.counters().ahead, 0);
}

/// Random page faults beyond the window cannot be bypassed: one SETUP each, but few REMOVEs.
#[test]
fn removals_for_faults_are_batched() {
    let mut d = driver();
    let mut random = Random(8);
    let mut stream = Stream::new();
    for _ in 0..10_000 {
        let offset = random.below(8 * WINDOW / 4096) * 4096;
        d.access(&mut stream, fault(1, offset, 8 * WINDOW));
    }
    println!(
        "faults: {} hits, {} setups, {} REMOVEs",
        d.hits, d.setups, d.remove_requests
    );
    assert!(d.remove_requests * 2 < d.setups);
    assert!(d.setups < d.accesses);
}

/// Writes inside a file map it writable at once; a file read before is mapped anew when it is written to.
#[test]
fn writes() {
    let mut d = driver();
    let mut stream = Stream::new();
    for i in 0..100 {
        d.access(&mut stream, write(1, i % 16 * 64 * KIB, 4096, MIB));
    }
    assert_eq!((d.setups, d.bypassed), (1, 0));
    // Extending ones go to the daemon, whether or not there is a range.
    d.access(&mut stream, write(1, MIB - 100, 101, MIB));
    d.access(&mut stream, write(2, 0, 1, 0));
    assert_eq!((d.setups, d.bypassed), (1, 2));
    d.forget_counts();
    let mut stream = Stream::new();
    d.access(&mut stream, read(3, 0, 4096, MIB));
    for i in 0..100 {
        d.access(&mut stream, write(3, (i * 5 % 16) * 64 * KIB, 4096, MIB));
    }
    assert_eq!(d.setups, 2);
    assert!(d.bypassed <= u64::from(policy::UPGRADE));
}

/// More runs at once than the window has ranges for: no range is mapped again and again for one run.
#[test]
fn more_runs_than_ranges() {
    for step in [16 * KIB, 128 * KIB] {
        let mut d = driver();
        let mut runs = vec![Stream::new(); 64];
        let size = 32 * MIB;
        for offset in (0..size).step_by(step as usize) {
            for (owner, stream) in (0..).zip(&mut runs) {
                d.access(stream, read(owner, offset, step, size));
            }
        }
        let ranges = 64 * size / (2 * MIB);
        println!(
            "64 runs by {step}: {} setups of {ranges}, {} bypassed of {}",
            d.setups, d.bypassed, d.accesses
        );
        assert!(d.setups <= ranges / 2);
    }
}
