// SPDX-License-Identifier: GPL-2.0

//! Index of ranges by file and offset.
//!
//! The maps of all inodes are one ordered tree, by inode and offset in the file. Its nodes are the
//! slots themselves: whoever has a slot can insert it, so inserting cannot fail for want of
//! memory, and an inode without ranges costs nothing.
//!
//! The tree is a treap: a search tree by key, and a heap by a number that looks random but is
//! computed of the slot's index. So it is balanced whatever the order of insertions.
//!
//! Most searches need not descend: a hash table, which has a [`Bucket`] beside each slot, has the range
//! that was last inserted of a part of a file, as long as it is in the tree, and knows of most other
//! parts that they have none.

use crate::ranges::{Owner, Slot};
use crate::size::Order;
use crate::storage::{index, NIL};
use crate::stream::chunk;
use crate::{mix, Part};

/// The tree. Ranges do not overlap. Each operation takes time in proportion to the logarithm of
/// the number of ranges, and recursion is used nowhere.
#[derive(Debug)]
pub(crate) struct InodeMap {
    root: u32,
    seed: u64,
    /// No range is larger, and parts of files are that large.
    largest: Order,
}

/// What is known of some parts of files, of the largest order each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// A range in one of them: the last that was inserted, as long as it is in the tree.
    guess: u32,
    /// How many ranges they have, all together.
    ranges: u32,
}

impl Bucket {
    /// Of parts without ranges.
    pub(crate) const EMPTY: Self = Self {
        guess: NIL,
        ranges: 0,
    };
}

/// A place of a file is covered by another range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) u32);

/// Where a place of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this range.
    Range(u32),
    /// In none: from `start` to `end` there is none. It may be longer where nobody asked.
    Gap { start: u64, end: u64 },
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]
mod tests;

fn node(slots: &[Slot], i: u32) -> Option<&Slot> {
    slots.get(index(i))
}

fn edit(slots: &mut [Slot], i: u32, f: impl FnOnce(&mut Slot)) {
    if let Some(slot) = slots.get_mut(index(i)) {
        f(slot);
    }
}

impl InodeMap {
    /// An empty tree. The seed makes its shape unpredictable.
    pub(crate) const fn new(seed: u64, largest: Order) -> Self {
        Self {
            root: NIL,
            seed,
            largest,
        }
    }

    /// The part of a file that a place is in, of the largest order.
    #[inline]
    pub(crate) fn part(&self, owner: Owner, offset: u64) -> Part {
        Part::of(owner, chunk(offset, self.largest))
    }

    fn priority(&self, i: u32) -> u64 {
        mix(self.seed ^ u64::from(i))
    }

    /// Which slot has the bucket for a part of a file beside it.
    #[inline]
    fn bucket_at(slots: &[Slot], part: Part) -> u32 {
        part.place(slots.len())
    }

    /// The last range that starts at or before a place, and the first after it, of any inode. The second is not looked for when
    /// the first covers the place.
    fn around(&self, slots: &[Slot], key: (Owner, u64)) -> (u32, u32) {
        let (mut before, mut after) = (NIL, NIL);
        let mut at = self.root;
        while let Some(slot) = node(slots, at) {
            if slot.key() <= key {
                before = at;
                if slot.covers(key.0, key.1) {
                    break;
                }
                at = slot.right;
            } else {
                after = at;
                at = slot.left;
            }
        }
        (before, after)
    }

    /// The range that shows a place of a file, which is in `part`, if the bucket has it. O(1).
    #[inline]
    pub(crate) fn guess(slots: &[Slot], part: Part, owner: Owner, offset: u64) -> Option<u32> {
        let guess = node(slots, Self::bucket_at(slots, part))?.bucket.guess;
        let covers = node(slots, guess).is_some_and(|slot| slot.covers(owner, offset));
        covers.then_some(guess)
    }

    /// Where a place of a file is, which is in `part`: with what comes after it up to `end`, if there is no range.
    pub(crate) fn find(
        &self,
        slots: &[Slot],
        part: Part,
        (owner, offset): (Owner, u64),
        end: u64,
    ) -> Place {
        if let Some(beside) = node(slots, Self::bucket_at(slots, part)) {
            let Bucket { guess, ranges } = beside.bucket;
            if ranges == 0 {
                let start = self.largest.align_down(offset);
                let next = start.saturating_add(self.largest.bytes());
                if end <= next {
                    return Place::Gap { start, end: next };
                }
            } else if node(slots, guess).is_some_and(|slot| slot.covers(owner, offset)) {
                return Place::Range(guess);
            }
        }
        let (before, after) = self.around(slots, (owner, offset));
        let start = match node(slots, before) {
            Some(slot) if slot.covers(owner, offset) => return Place::Range(before),
            Some(slot) if slot.owner == owner => slot.file_end(),
            _ => 0,
        };
        let end = match node(slots, after) {
            Some(slot) if slot.owner == owner => slot.file_offset,
            _ => u64::MAX,
        };
        Place::Gap { start, end }
    }

    /// The first range of a file that has anything between two offsets.
    pub(crate) fn first_in(
        &self,
        slots: &[Slot],
        owner: Owner,
        start: u64,
        end: u64,
    ) -> Option<u32> {
        let (before, after) = self.around(slots, (owner, start));
        let reaches = |i: u32| {
            node(slots, i).is_some_and(|slot| {
                slot.owner == owner && slot.file_offset < end && slot.file_end() > start
            })
        };
        [before, after].into_iter().find(|i| reaches(*i))
    }

    /// Inserts a slot whose owner, offset and order are filled in.
    pub(crate) fn insert(&mut self, slots: &mut [Slot], i: u32) -> Result<(), Overlap> {
        let Some(new) = node(slots, i).copied() else {
            return Ok(());
        };
        if let Some(other) = self.first_in(slots, new.owner, new.file_offset, new.file_end()) {
            return Err(Overlap(other));
        }
        let (mut parent, mut at, mut is_left) = (NIL, self.root, false);
        while let Some(slot) = node(slots, at) {
            parent = at;
            is_left = new.key() < slot.key();
            at = if is_left { slot.left } else { slot.right };
        }
        edit(slots, i, |slot| {
            slot.parent = parent;
            slot.left = NIL;
            slot.right = NIL;
        });
        match slots.get_mut(index(parent)) {
            Some(slot) if is_left => slot.left = i,
            Some(slot) => slot.right = i,
            None => self.root = i,
        }
        let priority = self.priority(i);
        while let Some(parent) = self.parent(slots, i) {
            if self.priority(parent) >= priority {
                break;
            }
            self.rotate_up(slots, i, parent);
        }
        let beside = Self::bucket_at(slots, self.part(new.owner, new.file_offset));
        edit(slots, beside, |slot| {
            slot.bucket = Bucket {
                guess: i,
                ranges: slot.bucket.ranges.saturating_add(1),
            };
        });
        Ok(())
    }

    /// Takes out a slot that is in the tree.
    pub(crate) fn remove(&mut self, slots: &mut [Slot], i: u32) {
        if let Some((owner, offset)) = node(slots, i).map(Slot::key) {
            let beside = Self::bucket_at(slots, self.part(owner, offset));
            edit(slots, beside, |slot| {
                slot.bucket.ranges = slot.bucket.ranges.saturating_sub(1);
                if slot.bucket.guess == i {
                    slot.bucket.guess = NIL;
                }
            });
        }
        // Down, until it has no children.
        while let Some(slot) = node(slots, i).copied() {
            let child = match (slot.left, slot.right) {
                (NIL, NIL) => break,
                (NIL, child) | (child, NIL) => child,
                (left, right) if self.priority(left) > self.priority(right) => left,
                (_, right) => right,
            };
            self.rotate_up(slots, child, i);
        }
        let parent = self.parent(slots, i).unwrap_or(NIL);
        self.replace_child(slots, parent, i, NIL);
        edit(slots, i, |slot| slot.parent = NIL);
    }

    fn parent(&self, slots: &[Slot], i: u32) -> Option<u32> {
        let parent = node(slots, i)?.parent;
        (parent != NIL).then_some(parent)
    }

    fn replace_child(&mut self, slots: &mut [Slot], parent: u32, old: u32, new: u32) {
        match slots.get_mut(index(parent)) {
            Some(slot) if slot.left == old => slot.left = new,
            Some(slot) => slot.right = new,
            None => self.root = new,
        }
    }

    /// Makes a node the parent of its parent, and keeps the order.
    fn rotate_up(&mut self, slots: &mut [Slot], i: u32, parent: u32) {
        let (Some(x), Some(p)) = (node(slots, i).copied(), node(slots, parent).copied()) else {
            return;
        };
        self.replace_child(slots, p.parent, parent, i);
        // The subtree that lies between the two changes sides.
        let between = if p.left == i { x.right } else { x.left };
        edit(slots, i, |slot| {
            slot.parent = p.parent;
            *(if p.left == i {
                &mut slot.right
            } else {
                &mut slot.left
            }) = parent;
        });
        edit(slots, parent, |slot| {
            slot.parent = i;
            *(if p.left == i {
                &mut slot.left
            } else {
                &mut slot.right
            }) = between;
        });
        edit(slots, between, |slot| slot.parent = parent);
    }
}
