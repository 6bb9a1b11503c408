// SPDX-License-Identifier: GPL-2.0

//! The tree, against a `BTreeMap`.

extern crate std;

use super::*;
use crate::policy;
use crate::size::Order;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;
use std::{format, vec};

const SLOTS: u32 = 64;
const MIN: u64 = 64 << 10;

/// The depth of the tree, and its slots in order; all links fit.
fn walk(map: &InodeMap, slots: &[Slot]) -> (usize, Vec<u32>) {
    let (mut depth, mut order) = (0, Vec::new());
    let mut stack = vec![(map.root, NIL, 1, false)];
    while let Some((i, parent, level, seen)) = stack.pop() {
        if i == NIL {
            continue;
        }
        let slot = &slots[index(i)];
        assert_eq!(slot.parent, parent);
        if seen {
            order.push(i);
            continue;
        }
        depth = depth.max(level);
        for child in [slot.left, slot.right] {
            assert!(child == NIL || map.priority(child) <= map.priority(i));
        }
        stack.push((slot.right, i, level + 1, false));
        stack.push((i, parent, level, true));
        stack.push((slot.left, i, level + 1, false));
    }
    (depth, order)
}

fn fill(slots: &mut [Slot], i: u32, owner: u64, offset: u64, order: Order) {
    let slot = &mut slots[index(i)];
    *slot = Slot {
        owner: Owner(owner),
        file_offset: order.align_down(offset),
        order,
        bucket: slot.bucket,
        ..Slot::default()
    };
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn as_a_btree_map(ops in prop::collection::vec(
        (any::<bool>(), 0..SLOTS, 0u64..3, 0u64..100, 4u8..10), 1..300,
    )) {
        let mut slots = vec![Slot::default(); SLOTS as usize];
        let mut map = InodeMap::new(99, Order::MIB_2);
        let mut model: BTreeMap<(Owner, u64), u32> = BTreeMap::new();
        for (insert, i, owner, block, order) in ops {
            let order = Order::new(order).unwrap();
            let live = model.values().any(|j| *j == i);
            if insert && !live {
                fill(&mut slots, i, owner, block * MIN, order);
                let new = slots[index(i)];
                let overlap = model.values().any(|j| {
                    let other = &slots[index(*j)];
                    other.owner == new.owner && other.file_offset < new.file_end() && new.file_offset < other.file_end()
                });
                match map.insert(&mut slots, i) {
                    Ok(()) => {
                        prop_assert!(!overlap);
                        model.insert(new.key(), i);
                    }
                    Err(Overlap(other)) => {
                        prop_assert!(overlap);
                        let other = &slots[index(other)];
                        prop_assert!(other.file_offset < new.file_end() && new.file_offset < other.file_end());
                    }
                }
            } else if !insert && live {
                map.remove(&mut slots, i);
                model.retain(|_, j| *j != i);
            }
            let buckets: Vec<Bucket> = slots.iter().map(|slot| slot.bucket).collect();
            prop_assert!(buckets.iter().all(|b| b.guess == NIL || model.values().any(|j| *j == b.guess)));
            prop_assert_eq!(buckets.iter().map(|b| b.ranges as usize).sum::<usize>(), model.len());
            let (_, order) = walk(&map, &slots);
            prop_assert_eq!(order, model.values().copied().collect::<Vec<_>>());
            // Every place, and what is around it.
            let owner = Owner(owner);
            for at in (0..140).step_by(3) {
                let offset = at * MIN + 5;
                let ranges: Vec<&Slot> = model.values().map(|j| &slots[index(*j)]).filter(|s| s.owner == owner).collect();
                let before = ranges.iter().map(|s| s.file_end()).filter(|e| *e <= offset).max().unwrap_or(0);
                let after = ranges.iter().map(|s| s.file_offset).filter(|s| *s > offset).min().unwrap_or(u64::MAX);
                for asked in [offset, offset + MIN, u64::MAX] {
                    match map.find(&slots, map.part(owner, offset), (owner, offset), asked) {
                        Place::Range(j) => prop_assert!(slots[index(j)].covers(owner, offset) && model.values().any(|k| *k == j)),
                        Place::Gap { start, end } => {
                            prop_assert!(!ranges.iter().any(|s| s.covers(owner, offset)));
                            // As long as it is, or a whole part of the largest order.
                            let part = policy::MAX_ORDER.align_down(offset);
                            let whole = (part, part + policy::MAX_ORDER.bytes());
                            prop_assert!((start, end) == (before, after) || (start, end) == whole);
                            prop_assert!(before <= start && start <= offset && offset < end && end <= after);
                            prop_assert!(end >= after.min(asked));
                        }
                    }
                }
                let end = offset + 3 * MIN;
                let first = ranges.iter().find(|s| s.file_offset < end && s.file_end() > offset).map(|s| s.file_offset);
                let found = map.first_in(&slots, owner, offset, end).map(|j| slots[index(j)].file_offset);
                prop_assert_eq!(found, first);
            }
        }
    }
}

/// Whatever the order of insertions, the tree is not deep.
#[test]
fn balanced() {
    let count: u32 = 1 << 14;
    let mut slots = vec![Slot::default(); count as usize];
    for multiplier in [1, 5, 4097, u64::from(count) - 1] {
        let mut map = InodeMap::new(multiplier, Order::MIB_2);
        for i in 0..count {
            let place = u64::from(i) * multiplier % u64::from(count);
            fill(&mut slots, i, 1, place * MIN, Order::KIB_64);
            map.insert(&mut slots, i).unwrap();
        }
        let (depth, order) = walk(&map, &slots);
        assert_eq!(order.len(), count as usize);
        assert!(depth < 4 * 14, "{depth}");
        for i in (0..count).filter(|i| i % 16 != 0) {
            map.remove(&mut slots, i);
        }
        let (depth, order) = walk(&map, &slots);
        assert_eq!(order.len(), count as usize / 16);
        assert!(depth < 4 * 10, "{depth}");
        (0..count)
            .filter(|i| i % 16 == 0)
            .for_each(|i| map.remove(&mut slots, i));
        assert_eq!(map.root, NIL);
    }
}
