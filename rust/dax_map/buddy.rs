// SPDX-License-Identifier: GPL-2.0

//! Buddy allocator for the window.
//!
//! The window is an array of blocks of the smallest order. A free or used stretch of 2^n blocks
//! is described by its first block; the others are `Inner`. Free stretches of one order
//! form a list.
//!
//! ```text
//!   blocks      0    1    2    3    4    5    6    7      (64 KiB each)
//!             ┌────┬────┬─────────┬───────────────────┐
//!             │used│free│  free   │       used        │
//!             └────┴────┴─────────┴───────────────────┘
//!   tags      Used Free Free Inner Used Inner Inner Inner
//!             64K  64K  128K       256K
//! ```
//!
//! When block 0 is freed, it becomes one with 1, then with 2 and 3; the buddy of that is used.

use crate::size::{Geometry, Order};
use crate::storage::{index, Storage, NIL};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Inner,
    Free(Order),
    Used(Order),
    Retired(Order),
}

/// What is known about a block of the smallest order.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    tag: Tag,
    next: u32,
    prev: u32,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            tag: Tag::Inner,
            next: NIL,
            prev: NIL,
        }
    }
}

/// There is no used stretch of that order at that offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUsed;

/// The storage has fewer blocks than the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewBlocks;

/// Free and used parts of a window.
///
/// Each operation takes time in proportion to the number of orders, at most.
#[derive(Debug)]
pub struct Buddy<B> {
    blocks: B,
    geometry: Geometry,
    heads: [u32; Order::COUNT],
    free: u64,
    retired: u64,
}

impl<B: Storage<Block>> Buddy<B> {
    /// A window, all of it free. `blocks` has at least [`Geometry::blocks`] elements.
    pub fn new(geometry: Geometry, blocks: B) -> Result<Self, TooFewBlocks> {
        let enough = u64::try_from(blocks.len()).is_ok_and(|len| len >= geometry.blocks());
        if !enough {
            return Err(TooFewBlocks);
        }
        let mut buddy = Self {
            blocks,
            geometry,
            heads: [NIL; Order::COUNT],
            free: 0,
            retired: 0,
        };
        buddy.blocks.fill(Block::default());
        buddy.release_all();
        Ok(buddy)
    }

    /// Puts the window into the lists: largest stretches first, the odd rest in smaller ones.
    fn release_all(&mut self) {
        let (min, max, end) = (
            self.geometry.min(),
            self.geometry.max(),
            self.geometry.usable(),
        );
        let mut at: u64 = 0;
        while let Some(mut order) = Order::within(end.saturating_sub(at)).map(|o| o.min(max)) {
            while order > min && !order.is_aligned(at) {
                order = order.smaller().unwrap_or(min);
            }
            if order < min {
                break;
            }
            if let Some(i) = self.block_at(at) {
                self.push(i, order);
            }
            self.free = self.free.saturating_add(order.bytes());
            at = at.saturating_add(order.bytes());
        }
    }

    /// The division of the window.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Free bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free
    }

    /// Bytes that were retired.
    pub fn retired_bytes(&self) -> u64 {
        self.retired
    }

    /// The largest order that [`alloc`](Self::alloc) has.
    pub fn largest_free(&self) -> Option<Order> {
        let mut order = self.geometry.max();
        while self.head(order) == NIL {
            order = order.smaller()?;
        }
        Some(order)
    }

    /// Takes a stretch, and gives its offset in the window in bytes. None if there is none of this
    /// order, or the order is not one of the window's.
    pub fn alloc(&mut self, order: Order) -> Option<u64> {
        if order < self.geometry.min() {
            return None;
        }
        let mut from = order;
        while self.head(from) == NIL {
            from = from.larger().filter(|o| *o <= self.geometry.max())?;
        }
        let i = self.head(from);
        self.unlink(i, from);
        // The upper halves of what is too large go back.
        while from > order {
            from = from.smaller().unwrap_or(order);
            self.push(i ^ self.buddy_bit(from), from);
        }
        self.set_tag(i, Tag::Used(order));
        self.free = self.free.saturating_sub(order.bytes());
        Some(self.offset_of(i))
    }

    /// Gives back what [`alloc`](Self::alloc) gave.
    pub fn free(&mut self, offset: u64, order: Order) -> Result<(), NotUsed> {
        let mut i = self.used(offset, order)?;
        self.free = self.free.saturating_add(order.bytes());
        let mut order = order;
        self.set_tag(i, Tag::Inner);
        while let Some(larger) = order.larger().filter(|o| *o <= self.geometry.max()) {
            let buddy = i ^ self.buddy_bit(order);
            if self.tag(buddy) != Some(Tag::Free(order)) {
                break;
            }
            self.unlink(buddy, order);
            i = i.min(buddy);
            order = larger;
        }
        self.push(i, order);
        Ok(())
    }

    /// Takes out of use for good what [`alloc`](Self::alloc) gave: nobody gets it again.
    pub fn retire(&mut self, offset: u64, order: Order) -> Result<(), NotUsed> {
        let i = self.used(offset, order)?;
        self.set_tag(i, Tag::Retired(order));
        self.retired = self.retired.saturating_add(order.bytes());
        Ok(())
    }

    fn used(&self, offset: u64, order: Order) -> Result<u32, NotUsed> {
        self.block_at(offset)
            .filter(|i| self.tag(*i) == Some(Tag::Used(order)))
            .ok_or(NotUsed)
    }

    fn block_at(&self, offset: u64) -> Option<u32> {
        if !self.geometry.min().is_aligned(offset) {
            return None;
        }
        let i = offset.checked_div(self.geometry.min().bytes())?;
        u32::try_from(i).ok()
    }

    fn offset_of(&self, i: u32) -> u64 {
        u64::from(i).saturating_mul(self.geometry.min().bytes())
    }

    /// In what bit the index of a stretch differs from its buddy's.
    fn buddy_bit(&self, order: Order) -> u32 {
        let above = order.get().saturating_sub(self.geometry.min().get());
        1u32.wrapping_shl(u32::from(above))
    }

    fn tag(&self, i: u32) -> Option<Tag> {
        self.blocks.get(index(i)).map(|block| block.tag)
    }

    fn set_tag(&mut self, i: u32, tag: Tag) {
        if let Some(block) = self.blocks.get_mut(index(i)) {
            block.tag = tag;
        }
    }

    fn head(&self, order: Order) -> u32 {
        let head = self.heads.get(usize::from(order.get()));
        head.copied().unwrap_or(NIL)
    }

    fn set_head(&mut self, order: Order, i: u32) {
        if let Some(head) = self.heads.get_mut(usize::from(order.get())) {
            *head = i;
        }
    }

    fn push(&mut self, i: u32, order: Order) {
        let next = self.head(order);
        if let Some(block) = self.blocks.get_mut(index(next)) {
            block.prev = i;
        }
        if let Some(block) = self.blocks.get_mut(index(i)) {
            *block = Block {
                tag: Tag::Free(order),
                next,
                prev: NIL,
            };
            self.set_head(order, i);
        }
    }

    /// Takes a free stretch out of its list.
    fn unlink(&mut self, i: u32, order: Order) {
        let Some(block) = self.blocks.get_mut(index(i)) else {
            return;
        };
        let (next, prev) = (block.next, block.prev);
        *block = Block::default();
        if let Some(block) = self.blocks.get_mut(index(next)) {
            block.prev = prev;
        }
        match self.blocks.get_mut(index(prev)) {
            Some(block) => block.next = next,
            None => self.set_head(order, next),
        }
    }
}
