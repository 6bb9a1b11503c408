// SPDX-License-Identifier: GPL-2.0

//! Doubly linked lists of slots.

use crate::ranges::{Queue, Slot};
use crate::storage::{index, NIL};

/// A list, first in, first out. A slot is in one list at most.
#[derive(Debug)]
pub(crate) struct List {
    queue: Queue,
    head: u32,
    tail: u32,
    /// The slot whose turn it is, see [`List::turn`]; the first one if there is none.
    hand: u32,
    len: u32,
    bytes: u64,
}

impl List {
    pub(crate) const fn new(queue: Queue) -> Self {
        Self {
            queue,
            head: NIL,
            tail: NIL,
            hand: NIL,
            len: 0,
            bytes: 0,
        }
    }

    pub(crate) fn head(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Size of the ranges in the list together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The slot after another one of this list.
    pub(crate) fn after(&self, slots: &[Slot], i: u32) -> Option<u32> {
        let next = slots.get(index(i))?.next;
        (next != NIL).then_some(next)
    }

    /// Goes round the list: one slot after the other has its turn.
    #[inline]
    pub(crate) fn turn(&mut self, slots: &[Slot]) -> Option<u32> {
        let i = if self.hand == NIL {
            self.head
        } else {
            self.hand
        };
        self.hand = slots.get(index(i))?.next;
        Some(i)
    }

    /// Adds a slot that is in no list.
    pub(crate) fn push_back(&mut self, slots: &mut [Slot], i: u32) {
        let tail = self.tail;
        let Some(slot) = slots.get_mut(index(i)) else {
            return;
        };
        slot.queue = self.queue;
        slot.prev = tail;
        slot.next = NIL;
        self.len = self.len.saturating_add(1);
        self.bytes = self.bytes.saturating_add(slot.order.bytes());
        match slots.get_mut(index(tail)) {
            Some(slot) => slot.next = i,
            None => self.head = i,
        }
        self.tail = i;
    }

    /// Takes a slot of this list out.
    pub(crate) fn remove(&mut self, slots: &mut [Slot], i: u32) {
        let Some(slot) = slots.get_mut(index(i)) else {
            return;
        };
        let (prev, next) = (slot.prev, slot.next);
        slot.queue = Queue::None;
        slot.prev = NIL;
        slot.next = NIL;
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(slot.order.bytes());
        if self.hand == i {
            self.hand = next;
        }
        match slots.get_mut(index(prev)) {
            Some(slot) => slot.next = next,
            None => self.head = next,
        }
        match slots.get_mut(index(next)) {
            Some(slot) => slot.prev = prev,
            None => self.tail = prev,
        }
    }

    /// Moves a slot of this list to its end.
    pub(crate) fn rotate(&mut self, slots: &mut [Slot], i: u32) {
        self.remove(slots, i);
        self.push_back(slots, i);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn turns() {
        let mut slots = vec![Slot::default(); 5];
        let mut list = List::new(Queue::Probation);
        assert_eq!(list.turn(&slots), None);
        (0..4).for_each(|i| list.push_back(&mut slots, i));
        let turns = |list: &mut List, slots: &[Slot]| -> Vec<_> {
            (0..3).map(|_| list.turn(slots)).collect()
        };
        assert_eq!(turns(&mut list, &slots), [Some(0), Some(1), Some(2)]);
        // The one whose turn it is goes, and so do the first and all others; another one comes.
        list.remove(&mut slots, 3);
        assert_eq!(turns(&mut list, &slots), [Some(0), Some(1), Some(2)]);
        list.remove(&mut slots, 0);
        list.push_back(&mut slots, 4);
        assert_eq!(turns(&mut list, &slots), [Some(1), Some(2), Some(4)]);
        [1, 2, 4].map(|i| list.remove(&mut slots, i));
        assert_eq!(turns(&mut list, &slots), [None; 3]);
    }
}
