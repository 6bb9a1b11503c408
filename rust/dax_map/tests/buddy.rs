// SPDX-License-Identifier: GPL-2.0

//! The buddy allocator, against a list of what is in use.

mod common;

use common::*;
use dax_map::buddy::{Block, Buddy, NotUsed, TooFewBlocks};
use dax_map::*;
use proptest::prelude::*;

fn buddy(len: u64) -> Buddy<Vec<Block>> {
    let geometry = Geometry::new(len, 4096, Order::MIB_2).unwrap();
    Buddy::new(geometry, vec![Block::default(); geometry.blocks() as usize]).unwrap()
}

#[test]
fn geometry() {
    let of = |len, alignment| Geometry::new(len, alignment, Order::MIB_2);
    let g = of(64 * MIB, 4096).unwrap();
    assert_eq!(
        (g.min(), g.max(), g.usable(), g.blocks()),
        (Order::KIB_64, Order::MIB_2, 64 * MIB, 1024)
    );
    // The device asks for more.
    assert_eq!(of(64 * MIB, 256 * KIB).unwrap().min(), order(256 * KIB));
    assert_eq!(of(64 * MIB, 2 * MIB).unwrap().min(), Order::MIB_2);
    assert_eq!(of(64 * MIB, 4 * MIB), Err(GeometryError::Alignment));
    assert_eq!(of(64 * MIB, u64::MAX), Err(GeometryError::Alignment));
    assert_eq!(of(64 * MIB, 0).unwrap().min(), Order::KIB_64);
    // Smaller than the largest range, than the smallest, and empty.
    assert_eq!(of(MIB + 4096, 4096).unwrap().max(), order(MIB));
    assert_eq!(of(64 * KIB, 4096).unwrap().max(), Order::KIB_64);
    assert_eq!(of(64 * KIB - 4096, 4096), Err(GeometryError::TooSmall));
    assert_eq!(of(0, 4096), Err(GeometryError::TooSmall));
    assert_eq!(of(MIB, 2 * MIB), Err(GeometryError::TooSmall));
    assert_eq!(of(u64::MAX, 4096), Err(GeometryError::TooLarge));
}

#[test]
fn orders() {
    assert_eq!(Order::KIB_64.bytes(), 64 * KIB);
    assert_eq!(Order::MIB_2.bytes(), 2 * MIB);
    assert_eq!(Order::MAX.bytes(), 1 << 30);
    assert_eq!((Order::new(18), Order::new(19)), (Some(Order::MAX), None));
    assert_eq!((Order::PAGE.smaller(), Order::MAX.larger()), (None, None));
    assert_eq!(Order::covering(0), Order::PAGE);
    assert_eq!(Order::covering(64 * KIB + 1), order(128 * KIB));
    assert_eq!(Order::covering(u64::MAX), Order::MAX);
    assert_eq!(Order::within(4095), None);
    assert_eq!(Order::within(128 * KIB - 1), Some(Order::KIB_64));
    assert_eq!(Order::within(u64::MAX), Some(Order::MAX));
    assert_eq!(Order::KIB_64.align_down(200 * KIB), 192 * KIB);
}

#[test]
fn all_of_the_window_is_given_out() {
    for (len, two_mib, free) in [
        (64 * MIB, 32, 64 * MIB),
        (64 * MIB + 4096, 32, 64 * MIB),
        (7 * MIB - 4096, 3, 7 * MIB - 64 * KIB),
        (96 * KIB, 0, 64 * KIB),
    ] {
        let mut b = buddy(len);
        assert_eq!(b.free_bytes(), free);
        let mut count = 0;
        while b.alloc(Order::MIB_2).is_some() {
            count += 1;
        }
        assert_eq!(count, two_mib, "{len}");
        // The odd rest is given out in what pieces it has.
        let mut rest = 0;
        while let Some(order) = b.largest_free() {
            rest += order.bytes();
            b.alloc(order).unwrap();
        }
        assert_eq!(count * 2 * MIB + rest, free);
        assert_eq!((b.free_bytes(), b.largest_free()), (0, None));
        assert_eq!(b.alloc(Order::KIB_64), None);
    }
}

#[test]
fn only_what_is_used_is_freed() {
    let mut b = buddy(4 * MIB);
    let at = b.alloc(order(128 * KIB)).unwrap();
    assert_eq!(b.free(at, Order::KIB_64), Err(NotUsed));
    assert_eq!(b.free(at + 64 * KIB, Order::KIB_64), Err(NotUsed));
    assert_eq!(b.free(at + 4096, order(128 * KIB)), Err(NotUsed));
    assert_eq!(b.free(u64::MAX, order(128 * KIB)), Err(NotUsed));
    assert_eq!(b.free(1 << 60, order(128 * KIB)), Err(NotUsed));
    assert_eq!(b.free(at, order(128 * KIB)), Ok(()));
    assert_eq!(b.free(at, order(128 * KIB)), Err(NotUsed));
    assert_eq!(b.retire(at, order(128 * KIB)), Err(NotUsed));
    assert_eq!(b.largest_free(), Some(Order::MIB_2));
    // Orders that the window does not have.
    assert_eq!(b.alloc(Order::PAGE), None);
    assert_eq!(b.alloc(order(4 * MIB)), None);
    assert_eq!(b.alloc(Order::MAX), None);
}

#[test]
fn what_is_retired_is_never_given_out() {
    let mut b = buddy(2 * MIB);
    let at = b.alloc(Order::KIB_64).unwrap();
    b.retire(at, Order::KIB_64).unwrap();
    assert_eq!(b.free(at, Order::KIB_64), Err(NotUsed));
    assert_eq!(
        (b.retired_bytes(), b.free_bytes()),
        (64 * KIB, 2 * MIB - 64 * KIB)
    );
    let mut others = Vec::new();
    while let Some(other) = b.alloc(Order::KIB_64) {
        assert_ne!(other, at);
        others.push(other);
    }
    others
        .into_iter()
        .for_each(|other| b.free(other, Order::KIB_64).unwrap());
    // All that can be put together is, but not with it.
    assert_eq!(b.largest_free(), Some(order(MIB)));
}

#[test]
fn storage_too_small() {
    let geometry = Geometry::new(MIB, 4096, Order::MIB_2).unwrap();
    assert_eq!(
        Buddy::new(geometry, vec![Block::default(); 15]).err(),
        Some(TooFewBlocks)
    );
    // More does no harm, and is not used.
    let mut b = Buddy::new(geometry, vec![Block::default(); 100]).unwrap();
    assert_eq!(b.free_bytes(), MIB);
    assert_eq!(b.alloc(order(MIB)), Some(0));
    assert_eq!(b.alloc(Order::KIB_64), None);
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(u8),
    Free(usize),
    Retire(usize),
    /// At any place, used or not.
    FreeAnything(u64, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (3u8..11).prop_map(Op::Alloc),
        4 => any::<usize>().prop_map(Op::Free),
        1 => any::<usize>().prop_map(Op::Retire),
        1 => (0u64..300, 3u8..11).prop_map(|(block, order)| Op::FreeAnything(block * 32 * KIB, order)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// No two stretches overlap, each is aligned and inside, nothing is lost, and there is always room
    /// where the model has an aligned free stretch.
    #[test]
    fn as_a_list_of_blocks(pages in 16u64..2200, ops in prop::collection::vec(op(), 1..200)) {
        let mut b = buddy(pages * 4096);
        let usable = b.geometry().usable();
        let mut taken = vec![false; b.geometry().blocks() as usize];
        let mut used: Vec<(u64, Order)> = Vec::new();
        let mut retired = 0;
        let blocks = |at: u64, order: Order| {
            let first = (at / (64 * KIB)) as usize;
            first..first + (order.bytes() / (64 * KIB)) as usize
        };
        for op in ops {
            match op {
                Op::Alloc(order) => {
                    let order = Order::new(order).unwrap();
                    let possible = order >= Order::KIB_64 && order <= b.geometry().max()
                        && (0..usable / order.bytes()).any(|i| taken[blocks(i * order.bytes(), order)].iter().all(|t| !t));
                    match b.alloc(order) {
                        Some(at) => {
                            prop_assert!(order.is_aligned(at) && at + order.bytes() <= usable);
                            prop_assert!(taken[blocks(at, order)].iter().all(|t| !t));
                            taken[blocks(at, order)].fill(true);
                            used.push((at, order));
                        }
                        None => prop_assert!(!possible),
                    }
                }
                Op::Free(i) if !used.is_empty() => {
                    let (at, order) = used.swap_remove(i % used.len());
                    prop_assert_eq!(b.free(at, order), Ok(()));
                    taken[blocks(at, order)].fill(false);
                }
                Op::Retire(i) if !used.is_empty() => {
                    let (at, order) = used.swap_remove(i % used.len());
                    prop_assert_eq!(b.retire(at, order), Ok(()));
                    retired += order.bytes();
                }
                Op::FreeAnything(at, order) => {
                    let order = Order::new(order).unwrap();
                    match used.iter().position(|u| *u == (at, order)) {
                        Some(i) => {
                            used.swap_remove(i);
                            prop_assert_eq!(b.free(at, order), Ok(()));
                            taken[blocks(at, order)].fill(false);
                        }
                        None => prop_assert_eq!(b.free(at, order), Err(NotUsed)),
                    }
                }
                Op::Free(_) | Op::Retire(_) => (),
            }
            let free = taken.iter().filter(|t| !**t).count() as u64 * 64 * KIB;
            prop_assert_eq!(b.free_bytes(), free);
            prop_assert_eq!(b.retired_bytes(), retired);
        }
        // All freed: as much together as at the start.
        for (at, order) in used {
            b.free(at, order).unwrap();
        }
        if retired == 0 {
            prop_assert_eq!(b.largest_free(), Some(b.geometry().max()));
            prop_assert_eq!(b.free_bytes(), usable);
        }
    }
}
