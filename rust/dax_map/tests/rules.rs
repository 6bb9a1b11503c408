// SPDX-License-Identifier: GPL-2.0

//! The rules of the policy that are plain functions.

mod common;

use common::*;
use dax_map::policy::*;
use dax_map::*;
use proptest::prelude::*;

const ALL: (u64, u64) = (0, u64::MAX);

fn of(file_size: u64, offset: u64, gap: (u64, u64), crowded: bool) -> u64 {
    let geometry = Geometry::new(64 * MIB, 4096, MAX_ORDER).unwrap();
    order_for(&geometry, file_size, offset, gap, crowded).bytes()
}

#[test]
fn a_file_takes_about_what_it_needs() {
    for (file_size, offset, order) in [
        (1, 0, 64 * KIB),
        (16 * KIB, 0, 64 * KIB),
        (64 * KIB, 0, 64 * KIB),
        (100 * KIB, 0, 128 * KIB),
        (80 * KIB, 0, 64 * KIB),
        (80 * KIB, 64 * KIB, 64 * KIB),
        (300 * KIB, 0, 256 * KIB),
        (300 * KIB, 256 * KIB, 64 * KIB),
        (400 * KIB, 300 * KIB, 512 * KIB),
        (3 * MIB / 2, 0, 2 * MIB),
        (10 * MIB, 5 * MIB, 2 * MIB),
        (10 * MIB + 1, 10 * MIB, 64 * KIB),
        (u64::MAX, u64::MAX - 1, 2 * MIB),
    ] {
        assert_eq!(
            of(file_size, offset, ALL, false),
            order,
            "{file_size} {offset}"
        );
    }
    // When ranges are scarce, they are larger.
    assert_eq!(of(300 * KIB, 0, ALL, true), 512 * KIB);
    assert_eq!(of(16 * KIB, 0, ALL, true), 64 * KIB);
    // What is mapped already is not mapped again.
    assert_eq!(
        of(10 * MIB, 100 * KIB, (64 * KIB, u64::MAX), false),
        64 * KIB
    );
    assert_eq!(
        of(10 * MIB, 200 * KIB, (64 * KIB, u64::MAX), false),
        128 * KIB
    );
    assert_eq!(of(10 * MIB, 2 * MIB, (64 * KIB, u64::MAX), false), 2 * MIB);
    assert_eq!(of(10 * MIB, 2 * MIB, (0, 4 * MIB - 64 * KIB), false), MIB);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    /// A range is in the gap, has the offset, and wastes no more than is allowed.
    #[test]
    fn any_order(size in 1u64..10_000_000, at in 0.0..1.0, before in 0u64..40, after in 1u64..40, crowded: bool) {
        let offset = (size as f64 * at) as u64;
        let block = offset / (64 * KIB);
        let gap = (block.saturating_sub(before) * 64 * KIB, (block + after) * 64 * KIB);
        let bytes = of(size, offset, gap, crowded);
        let start = offset / bytes * bytes;
        prop_assert!(start >= gap.0 && start + bytes <= gap.1);
        let waste = (start + bytes).saturating_sub(size.next_multiple_of(4096));
        let allowed = bytes >> if crowded { WASTE_SHIFT_CROWDED } else { WASTE_SHIFT };
        prop_assert!(bytes == 64 * KIB || waste <= allowed);
    }
}

#[test]
fn table() {
    use Verdict::*;
    for (sequential, fits, room, heat, verdict) in [
        (true, false, false, 0, Map),
        (true, true, true, 0, Map),
        (false, true, true, 0, Map),
        (false, false, true, 1, Bypass),
        (false, false, true, REUSE, MapIfAffordable),
        (false, true, false, 1, MapIfHotter),
        (false, false, false, 9, MapIfHotter),
    ] {
        assert_eq!(
            decide(&Situation {
                sequential,
                fits,
                room,
                heat
            }),
            verdict
        );
    }
    assert!(is_hotter(8, 0) && !is_hotter(7, 0) && is_hotter(12, 2) && !is_hotter(11, 2));
}

#[test]
fn budget() {
    let mut b = Budget::new();
    for _ in 0..BUDGET_MAPPINGS {
        assert!(b.pay());
    }
    assert!(!b.pay());
    // Ten hits, or eighty bypassed accesses, are worth a mapping.
    for _ in 0..MAP_COST {
        assert!(!b.pay());
        b.hit();
    }
    assert!(b.pay());
    for _ in 0..MAP_COST << INVEST_SHIFT {
        assert!(!b.pay());
        b.bypassed();
    }
    assert!(b.pay());
    // No more is saved than what is there at first.
    (0..1_000_000).for_each(|_| b.hit());
    assert_eq!(
        (0..1000).filter(|_| b.pay()).count(),
        BUDGET_MAPPINGS as usize
    );
}

/// What looks like a run, and what does not.
#[test]
fn runs() {
    let mapped = |accesses: &[(u64, u64)]| {
        let (mut w, mut s) = (window(64 * MIB, 100), Stream::new());
        let mut found = Vec::new();
        for (offset, len) in accesses {
            let advice = w.access(&mut s, &read(1, *offset, *len, 1 << 40));
            found.push(matches!(advice.step, Step::Map(_)));
        }
        found
    };
    assert_eq!(
        mapped(&[(0, 128 * KIB), (128 * KIB, 128 * KIB)]),
        [false, true]
    );
    // One access is none, however large.
    assert_eq!(mapped(&[(0, MIB)]), [false]);
    // A gap is allowed, going back is not.
    assert_eq!(
        mapped(&[(4 * MIB, 64 * KIB), (4 * MIB + 128 * KIB, 64 * KIB)]),
        [false, true]
    );
    assert_eq!(
        mapped(&[(40 * MIB, 64 * KIB), (8 * MIB, 64 * KIB)]),
        [false, false]
    );
    assert_eq!(
        mapped(&[(0, 64 * KIB), (4 * MIB, 64 * KIB), (8 * MIB, 64 * KIB)]),
        [false; 3]
    );
}

/// Which page faults are given a range in a file of this size, with an empty window of 64 MiB.
fn given(accesses: &[Access]) -> Vec<bool> {
    let (mut w, mut s) = (window(64 * MIB, 100), Stream::new());
    let maps = |access| matches!(w.access(&mut s, access).step, Step::Map(_));
    accesses.iter().map(maps).collect()
}

/// Page faults that only read are given a range where the file fits, where they follow each other, and where they come again and again.
#[test]
fn faults() {
    let looks = |size, places: &[u64]| {
        let faults: Vec<_> = places.iter().map(|place| look(1, *place, size)).collect();
        given(&faults)
    };
    assert_eq!(looks(MIB, &[0]), [true]);
    assert_eq!(looks(GIB, &[0, 10 * MIB, 4 * MIB]), [false; 3]);
    // The next page, and the next part after the one before.
    assert_eq!(looks(GIB, &[4 * MIB, 4 * MIB + 4096]), [false, true]);
    assert_eq!(looks(GIB, &[4 * MIB + 4096, 4 * MIB]), [false, true]);
    assert_eq!(
        looks(GIB, &[10 * MIB, 4 * MIB, 6 * MIB]),
        [false, false, true]
    );
    // What stores or brings in code needs one.
    assert_eq!(given(&[fault(1, 10 * MIB, GIB)]), [true]);
}

/// In a full window, a part is mapped for page faults when these are more than what a range there was used for.
#[test]
fn faults_in_a_full_window() {
    let (mut w, mut s) = (window(64 * MIB, 100), Stream::new());
    for part in 0..32 {
        let token = w.reserve(&plan(7, part * 2 * MIB, GIB)).unwrap();
        let _ = w.commit(token, false);
    }
    let mut random = Random(5);
    let steps: Vec<_> = (0..20)
        .map(|turn| {
            let place = 100 * MIB + (turn * 2 + random.below(2)) * 8192;
            matches!(w.access(&mut s, &look(1, place, GIB)).step, Step::Map(_))
        })
        .collect();
    let first = steps.iter().position(|maps| *maps);
    assert!(matches!(first, Some(3..=8)), "{steps:?}");
    // The page behind the last one is given a range at once.
    let mut maps = |place| matches!(w.access(&mut s, &look(1, place, GIB)).step, Step::Map(_));
    assert!(!maps(200 * MIB) && maps(200 * MIB + 4096));
    assert!(!maps(300 * MIB) && !maps(300 * MIB + 8192));
}
