// SPDX-License-Identifier: GPL-2.0

//! The life of a range, rule by rule.

mod common;

use common::*;
use dax_map::buddy::Block;
use dax_map::*;

fn mapped(w: &mut VecWindow, plan: &Plan) -> SlotId {
    let token = w.reserve(plan).unwrap();
    let slot = token.slot();
    let _ = w.commit(token, false).unwrap();
    slot
}

fn has_ranges(w: &VecWindow, owner: Owner) -> bool {
    w.first_range(owner, 0, u64::MAX).is_some()
}

fn step(w: &mut VecWindow, access: Access) -> Step {
    w.access(&mut Stream::new(), &access).step
}

fn hit(w: &mut VecWindow, access: Access) -> Hit {
    match step(w, access) {
        Step::Use(hit) => hit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mapped_and_used() {
    let mut w = window(8 * MIB, 4);
    let token = w.reserve(&plan(1, 100 * KIB, 300 * KIB)).unwrap();
    let extent = *token.extent();
    // As much as the file has and a range holds; aligned in both.
    assert_eq!(
        (extent.file_offset, extent.len, extent.writable),
        (0, 256 * KIB, false)
    );
    assert_eq!(w.range(token.slot()).unwrap().state, State::Reserved);
    // Others see that somebody is at it.
    assert!(
        matches!(step(&mut w, fault(1, 0, 300 * KIB)), Step::Wait(Wait::Range(s)) if s == extent.slot)
    );
    assert!(matches!(
        step(&mut w, read(1, 0, 4096, 300 * KIB)),
        Step::Bypass { len: 4096 }
    ));
    assert_eq!(
        w.reserve(&plan(1, 0, 300 * KIB)).unwrap_err(),
        Refused::Changed
    );
    // The fault that waits is woken.
    let wake = w.commit(token, true).unwrap();
    assert_eq!(
        wake,
        Wake {
            range: Some(extent.slot),
            any: false
        }
    );
    let found = hit(&mut w, fault(1, 100 * KIB, 300 * KIB));
    assert_eq!(found.window_offset, extent.window_offset + 100 * KIB);
    assert_eq!((found.len, found.writable), (156 * KIB, false));
    assert_eq!(w.range(extent.slot).unwrap().users, 2);
    assert_eq!((w.usage().pinned, w.usage().idle), (1, 0));
    assert_eq!(w.unpin(extent.slot), Wake::default());
    assert_eq!(w.unpin(extent.slot), Wake::default());
    assert_eq!((w.usage().pinned, w.usage().idle), (0, 1));
    // Once too often does no harm.
    assert_eq!(w.unpin(extent.slot), Wake::default());
    assert_eq!(w.unpin(SlotId::new(77)), Wake::default());
    // The rest of the file is another range.
    let rest = w.reserve(&plan(1, 256 * KIB, 300 * KIB)).unwrap();
    assert_eq!(
        (rest.extent().file_offset, rest.extent().len),
        (256 * KIB, 44 * KIB)
    );
    let _ = w.setup_failed(rest).unwrap();
}

#[test]
fn failed_is_free_and_unknown_is_retired() {
    let mut w = window(4 * MIB, 4);
    let big = plan(1, 0, 2 * MIB);
    let token = w.reserve(&big).unwrap();
    let _ = w.setup_failed(token).unwrap();
    assert_eq!((w.usage().free_bytes, w.usage().ranges), (4 * MIB, 0));
    let token = w.reserve(&big).unwrap();
    let at = token.extent().window_offset;
    let _ = w.setup_unknown(token).unwrap();
    assert_eq!(
        (
            w.usage().free_bytes,
            w.usage().retired_bytes,
            w.usage().retired
        ),
        (2 * MIB, 2 * MIB, 1)
    );
    // That part of the file can be mapped elsewhere.
    let token = w.reserve(&big).unwrap();
    assert_ne!(token.extent().window_offset, at);
    let _ = w.commit(token, false).unwrap();
    // Removed, with unknown outcome: then nothing is left.
    let token = w.pick_victim().unwrap();
    assert_eq!(
        w.reserve(&plan(2, 0, MIB)).unwrap_err(),
        Refused::Wait(Wait::Any)
    );
    let wake = w.remove_unknown(token).unwrap();
    assert!(wake.any);
    assert_eq!(w.reserve(&big).unwrap_err(), Refused::Never);
    assert!(w.pick_victim().is_none());
    // Reads go on.
    assert!(matches!(
        step(&mut w, read(1, 0, 4096, MIB)),
        Step::Bypass { .. } | Step::Map(_)
    ));
}

#[test]
fn bounds() {
    // Ranges, not bytes, are what is scarce.
    let mut w = window(64 * MIB, 3);
    let slots: Vec<_> = (0..3)
        .map(|owner| mapped(&mut w, &plan(owner, 0, 4096)))
        .collect();
    assert_eq!(w.reserve(&plan(9, 0, 4096)).unwrap_err(), Refused::Reclaim);
    let token = w.pick_victim().unwrap();
    assert_eq!(token.slot(), slots[0]);
    let _ = w.removed(token).unwrap();
    mapped(&mut w, &plan(9, 0, 4096));
    // The operator wants fewer.
    assert_eq!(w.set_limit(1), Wake::default());
    for _ in 0..3 {
        assert_eq!(w.reserve(&plan(8, 0, 4096)).unwrap_err(), Refused::Reclaim);
        let token = w.pick_victim().unwrap();
        let _ = w.removed(token).unwrap();
    }
    mapped(&mut w, &plan(8, 0, 4096));
    assert_eq!(w.reserve(&plan(7, 0, 4096)).unwrap_err(), Refused::Reclaim);
    // More than there are slots is as many.
    let _ = w.set_limit(100);
    assert_eq!(w.usage().limit, 3);
    let _ = w.set_limit(0);
    let token = w.pick_victim().unwrap();
    let _ = w.removed(token).unwrap();
    assert_eq!(w.reserve(&plan(7, 0, 4096)).unwrap_err(), Refused::Never);
}

#[test]
fn windows_that_cannot_be() {
    let geometry = Geometry::new(MIB, 4096, policy::MAX_ORDER).unwrap();
    let make = |blocks, slots| {
        let config = Config { geometry, seed: 0 };
        Window::new(
            config,
            vec![Block::default(); blocks],
            vec![Slot::default(); slots],
            Vec::<Ghost>::new(),
        )
        .err()
    };
    assert_eq!(make(15, 4), Some(NewError::TooFewBlocks));
    assert_eq!(make(16, 0), Some(NewError::Slots));
    assert_eq!(make(16, 1), None);
    // Without memory for ghosts it works, too.
    let config = Config { geometry, seed: 0 };
    let mut blocks = [Block::default(); 16];
    let mut slots = [Slot::default(); 2];
    let mut w = Window::new(
        config,
        &mut blocks[..],
        &mut slots[..],
        &mut [] as &mut [Ghost],
    )
    .unwrap();
    for i in 0..100 {
        let _ = w.access(&mut Stream::new(), &read(1, i * 100 * KIB, 4096, 1 << 30));
    }
}

#[test]
fn tokens_of_others_are_stale() {
    let geometry = Geometry::new(4 * MIB, 4096, policy::MAX_ORDER).unwrap();
    let with_seed = |seed| {
        let config = Config { geometry, seed };
        Window::new(
            config,
            vec![Block::default(); 64],
            vec![Slot::default(); 2],
            vec![Ghost::default(); 8],
        )
        .unwrap()
    };
    let (mut a, mut b) = (with_seed(1), with_seed(1 << 40));
    let token = a.reserve(&plan(1, 0, 4096)).unwrap();
    let other = b.reserve(&plan(1, 0, 4096)).unwrap();
    assert_eq!(b.commit(token, true), Err(Stale));
    assert_eq!(b.usage().busy, 1);
    let _ = b.commit(other, false).unwrap();
    assert_eq!(b.counters().stale, 1);
}

#[test]
fn everybody_is_in_use() {
    let mut w = window(2 * MIB, 4);
    let slot = mapped(&mut w, &plan(1, 0, 2 * MIB));
    let _ = hit(&mut w, read(1, 0, 4096, 2 * MIB));
    assert_eq!(
        w.reserve(&plan(2, 0, 4096)).unwrap_err(),
        Refused::Wait(Wait::Any)
    );
    assert!(w.pick_victim().is_none());
    assert_eq!(
        w.unpin(slot),
        Wake {
            range: None,
            any: true
        }
    );
    assert_eq!(w.reserve(&plan(2, 0, 4096)).unwrap_err(), Refused::Reclaim);
    // Pinned by others, as the attempt shows: not tried again and again.
    let token = w.pick_victim().unwrap();
    assert_eq!(
        w.reserve(&plan(2, 0, 4096)).unwrap_err(),
        Refused::Wait(Wait::Any)
    );
    assert_eq!(w.remove_cancelled(token).unwrap(), Wake::default());
    assert!(w.pick_victim().is_none());
    assert_eq!(
        w.reserve(&plan(2, 0, 4096)).unwrap_err(),
        Refused::Wait(Wait::Any)
    );
    // It can be used meanwhile.
    assert_eq!(hit(&mut w, read(1, 0, 4096, 2 * MIB)).slot, slot);
    assert_eq!(w.tick(1), Wake::default());
    assert_eq!(
        w.reserve(&plan(2, 0, 4096)).unwrap_err(),
        Refused::Wait(Wait::Any)
    );
    assert!(w.unpin(slot).any);
    let token = w.pick_victim().unwrap();
    let _ = w.removed(token).unwrap();
    mapped(&mut w, &plan(2, 0, 4096));
}

#[test]
fn to_be_written_to() {
    let mut w = window(8 * MIB, 4);
    let slot = mapped(&mut w, &plan(1, 0, 100 * KIB));
    assert!(!w.range(slot).unwrap().extent.writable);
    let Step::Remap(remap) = step(
        &mut w,
        Access {
            write: true,
            ..fault(1, 0, 100 * KIB)
        },
    ) else {
        panic!("read-only");
    };
    // Not while it is in use.
    let _ = hit(&mut w, read(1, 0, 4096, 100 * KIB));
    assert_eq!(
        w.begin_remap(&remap).unwrap_err(),
        Refused::Wait(Wait::Range(slot))
    );
    assert_eq!(
        w.unpin(slot),
        Wake {
            range: Some(slot),
            any: false
        }
    );
    let token = w.begin_remap(&remap).unwrap();
    assert!(token.extent().writable);
    assert!(matches!(
        step(&mut w, fault(1, 0, 100 * KIB)),
        Step::Wait(Wait::Range(_))
    ));
    assert!(matches!(
        step(&mut w, read(1, 0, 4096, 100 * KIB)),
        Step::Bypass { .. }
    ));
    assert!(w.pick_victim().is_none());
    // Called off, it is as it was.
    let _ = w.remap_cancelled(token).unwrap();
    assert!(!hit(&mut w, read(1, 0, 4096, 100 * KIB)).writable);
    let _ = w.unpin(slot);
    let token = w.begin_remap(&remap).unwrap();
    let _ = w.remap_done(token).unwrap();
    assert!(hit(&mut w, write(1, 0, 4096, 100 * KIB)).writable);
    let _ = w.unpin(slot);
    assert_eq!(w.begin_remap(&remap).unwrap_err(), Refused::Changed);
}

#[test]
fn the_file_grows() {
    let mut w = window(8 * MIB, 4);
    let slot = mapped(&mut w, &plan(1, 0, 50 * KIB));
    assert_eq!(hit(&mut w, read(1, 48 * KIB, 4096, 50 * KIB)).len, 4 * KIB);
    let _ = w.unpin(slot);
    // What the range does not show yet is mapped anew for who cannot do without.
    let Step::Remap(remap) = step(&mut w, fault(1, 56 * KIB, 10 * MIB)) else {
        panic!("not mapped that far");
    };
    let token = w.begin_remap(&remap).unwrap();
    assert_eq!(token.extent().len, 64 * KIB);
    let _ = w.remap_done(token).unwrap();
    // Beyond it there is room for other ranges, which do not overlap.
    let token = w.reserve(&plan(1, 100 * KIB, 10 * MIB)).unwrap();
    assert_eq!(
        (token.extent().file_offset, token.extent().len),
        (64 * KIB, 64 * KIB)
    );
    let _ = w.commit(token, false).unwrap();
    let token = w.reserve(&plan(1, 2 * MIB - 1, 10 * MIB)).unwrap();
    assert_eq!((token.extent().file_offset, token.extent().len), (MIB, MIB));
    let _ = w.commit(token, false).unwrap();
    // Past the end there is nothing to map.
    assert_eq!(
        w.reserve(&plan(1, 10 * MIB, 10 * MIB)).unwrap_err(),
        Refused::PastEnd
    );
    assert_eq!(w.reserve(&plan(2, 0, 0)).unwrap_err(), Refused::PastEnd);
}

#[test]
fn a_part_of_a_file_is_removed() {
    let mut w = window(16 * MIB, 8);
    for i in 0..4 {
        mapped(&mut w, &plan(1, i * 2 * MIB, 8 * MIB));
    }
    mapped(&mut w, &plan(2, 0, 8 * MIB));
    let used = hit(&mut w, read(1, 2 * MIB, 4096, 8 * MIB)).slot;
    // All that has anything in the part, those in use last.
    let mut removed = Vec::new();
    loop {
        match w.begin_remove(Owner(1), 4 * MIB - 1, 6 * MIB + 1) {
            Removal::Remove(token) => {
                removed.push(token.extent().file_offset);
                let _ = w.removed(token).unwrap();
            }
            Removal::Wait(wait) => {
                assert_eq!(wait, Wait::Range(used));
                assert_eq!(
                    w.unpin(used),
                    Wake {
                        range: Some(used),
                        any: false
                    }
                );
            }
            Removal::Done => break,
        }
    }
    assert_eq!(removed, [4 * MIB, 6 * MIB, 2 * MIB]);
    assert!(matches!(
        w.begin_remove(Owner(1), 2 * MIB, u64::MAX),
        Removal::Done
    ));
    assert!(matches!(
        w.begin_remove(Owner(3), 0, u64::MAX),
        Removal::Done
    ));
    assert_eq!(w.usage().ranges, 2);
}

#[test]
fn abandoned() {
    let mut w = window(8 * MIB, 8);
    let reserved = w.reserve(&plan(1, 0, MIB)).unwrap();
    let slot = mapped(&mut w, &plan(2, 0, MIB));
    let _ = hit(&mut w, read(2, 0, 4096, MIB));
    mapped(&mut w, &plan(3, 0, MIB));
    let reclaiming = w.pick_victim().unwrap();
    w.abandon();
    assert_eq!(w.commit(reserved, true), Err(Stale));
    assert_eq!(w.removed(reclaiming), Err(Stale));
    assert_eq!((w.usage().retired, w.usage().ranges), (3, 3));
    assert_eq!(w.reserve(&plan(1, 0, MIB)).unwrap_err(), Refused::Never);
    assert!(matches!(
        step(&mut w, read(2, 0, 4096, MIB)),
        Step::Bypass { .. }
    ));
    assert!(matches!(w.begin_remove_any(), Removal::Done));
    assert_eq!(w.range(slot).unwrap().users, 1);
    let _ = w.unpin(slot);
    assert_eq!(w.range(slot).unwrap().users, 0);
}

#[test]
fn idle_ranges_are_given_back() {
    let mut w = window(8 * MIB, 8);
    mapped(&mut w, &plan(1, 0, MIB));
    mapped(&mut w, &plan(2, 0, MIB));
    let used = mapped(&mut w, &plan(3, 0, MIB));
    for _ in 0..policy::IDLE_TICKS {
        assert!(w.pick_idle(policy::IDLE_TICKS).is_none());
        let _ = hit(&mut w, read(1, 0, 4096, MIB));
        let _ = w.unpin(SlotId::new(0));
        let _ = w.tick(1);
    }
    let _ = hit(&mut w, read(3, 0, 4096, MIB));
    let token = w.pick_idle(policy::IDLE_TICKS).unwrap();
    assert_eq!(token.extent().owner, Owner(2));
    let _ = w.removed(token).unwrap();
    assert!(w.pick_idle(policy::IDLE_TICKS).is_none());
    let _ = w.unpin(used);
}

#[test]
fn idle_ranges_of_one_inode_go_at_once() {
    let mut w = window(8 * MIB, 8);
    for (owner, offset) in [(1, 0), (2, 0), (1, 2 * MIB)] {
        mapped(&mut w, &plan(owner, offset, 4 * MIB));
    }
    assert!(w.pick_idle(2).is_none());
    let _ = w.tick(2);
    let first = w.pick_idle(2).unwrap();
    assert_eq!(first.extent().owner, Owner(1));
    let second = w.pick_another_idle(Owner(1), 2).unwrap();
    assert_eq!(second.extent().file_offset, 2 * MIB);
    assert!(w.pick_another_idle(Owner(1), 2).is_none());
    // The one in between was not passed over for good.
    let other = w.pick_idle(2).unwrap();
    assert_eq!(other.extent().owner, Owner(2));
    for token in [first, second, other] {
        let _ = w.removed(token).unwrap();
    }
    assert_eq!(w.usage().ranges, 0);
}

#[test]
fn room_is_made_in_the_background_when_somebody_needs_it() {
    let mut d = Driver::new(window(64 * MIB, 500));
    // A full window is good.
    d.random(&mut Random(1), 1, 64 * MIB, 1000);
    assert_eq!(
        (d.window.usage().free_bytes, d.window.background_goal()),
        (0, 0)
    );
    // Somebody needs room: to an eighth of the window.
    assert_eq!(
        d.window.reserve(&plan(2, 0, 2 * MIB)).unwrap_err(),
        Refused::Reclaim
    );
    assert_eq!(d.window.background_goal(), 4);
    let first = d.window.pick_victim().unwrap();
    let _ = d.window.removed(first).unwrap();
    assert_eq!(d.window.background_goal(), 3);
    // Half of that is enough not to begin again.
    let second = d.window.pick_victim().unwrap();
    let _ = d.window.removed(second).unwrap();
    assert_eq!(d.window.background_goal(), 0);
    // Demand is forgotten.
    mapped(&mut d.window, &plan(2, 0, 2 * MIB));
    assert_eq!(d.window.background_goal(), 3);
    for _ in 0..=policy::DEMAND_TICKS {
        let _ = d.window.tick(1);
    }
    assert_eq!(d.window.background_goal(), 0);
}

#[test]
fn several_of_one_inode_go_at_once() {
    let mut w = window(64 * MIB, 100);
    for i in 0..16 {
        mapped(&mut w, &plan(1, i * 2 * MIB, 32 * MIB));
        mapped(&mut w, &plan(2, i * 2 * MIB, 32 * MIB));
    }
    let mut batch = vec![w.pick_victim().unwrap()];
    while let Some(token) = w.pick_another(batch[0].extent().owner) {
        batch.push(token);
    }
    assert_eq!(batch.len(), 16);
    let offsets: Vec<_> = batch
        .iter()
        .map(|token| token.extent().file_offset / (2 * MIB))
        .collect();
    assert_eq!(offsets, (0..16).collect::<Vec<_>>());
    batch.into_iter().for_each(|token| {
        let _ = w.removed(token).unwrap();
    });
    assert_eq!(w.usage().free_bytes, 32 * MIB);
    assert_eq!((w.counters().reclaimed, w.counters().removed), (16, 16));
}

/// A range is found by what it shows, from the moment that it does to the one that it is about to go; a file has it longer.
#[test]
fn located_while_it_shows_something() {
    let mut w = window(8 * MIB, 4);
    assert!(!has_ranges(&w, Owner(1)));
    let token = w.reserve(&plan(1, 100 * KIB, 300 * KIB)).unwrap();
    let extent = *token.extent();
    assert!(has_ranges(&w, Owner(1)) && !has_ranges(&w, Owner(2)));
    assert_eq!(w.locate(Owner(1), 100 * KIB), None);
    let _ = w.commit(token, false).unwrap();
    assert_eq!(w.locate(Owner(1), 0), Some(extent));
    assert_eq!(w.locate(Owner(1), 256 * KIB - 1), Some(extent));
    assert_eq!(w.locate(Owner(1), 256 * KIB), None);
    assert_eq!(w.locate(Owner(2), 0), None);
    let first = |start, end| {
        w.first_range(Owner(1), start, end)
            .map(|range| range.extent)
    };
    assert_eq!(first(256 * KIB - 1, u64::MAX), Some(extent));
    assert_eq!(first(256 * KIB, u64::MAX), None);
    assert_eq!((first(0, 1), first(0, 0)), (Some(extent), None));
    // Nobody is counted as its user by that.
    assert_eq!((w.usage().pinned, w.usage().idle), (0, 1));
    let Removal::Remove(token) = w.begin_remove(Owner(1), 0, u64::MAX) else {
        panic!("it can go");
    };
    assert_eq!(w.locate(Owner(1), 0), None);
    assert!(has_ranges(&w, Owner(1)));
    let _ = w.removed(token).unwrap();
    assert!(!has_ranges(&w, Owner(1)));
}
