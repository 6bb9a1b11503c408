// SPDX-License-Identifier: GPL-2.0

//! The table of ranges, and the states that a range goes through.
//!
//! ```text
//!             reserve                 commit                 begin reclaim
//!     Free ────────────► Reserved ────────────► Mapped ───────────────────► Reclaiming
//!      ▲                 SETUP sent            │  ▲  ▲                      REMOVE sent
//!      │                  │     │   begin remap│  │  │ cancelled               │  │  │
//!      │      known to    │     │              ▼  │  └─────────────────────────┘  │  │
//!      │◄─────have failed─┘     │          Remapping                             │  │
//!      │                        │         SETUP sent again                       │  │
//!      │                        │ outcome      │ outcome                 outcome │  │ done
//!      │                        │ unknown      │ unknown                 unknown │  │
//!      │                        └──────────► Retired ◄───────────────────────────┘  │
//!      └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Whoever sends a request for a range holds a token for it: [`ReserveToken`], [`RemapToken`] or
//! [`ReclaimToken`]. Each is made with a number of its own, which the range remembers, and is used up by
//! saying how the request ended. A token from before [`Window::abandon`](crate::Window::abandon),
//! or of another window, is [`Stale`] and changes nothing.

use crate::advice::Hit;
use crate::heat::Heat;
use crate::inode_map::Bucket;
use crate::size::Order;
use crate::storage::{index, Storage, NIL};

/// Index of a range in the table: below the number of slots that the window was made with.
///
/// It names a place, not what is there: what a range maps may change whenever the window lock is
/// released, unless the range is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub(crate) u32);

impl SlotId {
    /// The slot of this index. Nothing is known about it.
    pub const fn new(i: u32) -> Self {
        Self(i)
    }

    /// Its index.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Whose contents a range shows: any number that tells the inodes of a mount apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

/// What a range is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Not in use.
    #[default]
    Free,
    /// A [`ReserveToken`] is out: SETUPMAPPING was sent, or will be.
    Reserved,
    /// The window shows the file.
    Mapped {
        /// Whether it may be written to.
        writable: bool,
    },
    /// A [`RemapToken`] is out: a SETUPMAPPING for the same place was sent, or will be.
    Remapping {
        /// Whether it could be written to before.
        writable: bool,
    },
    /// A [`ReclaimToken`] is out: REMOVEMAPPING was sent, or will be.
    Reclaiming {
        /// Whether it could be written to before.
        writable: bool,
    },
    /// The outcome of a request is unknown. Its place in the window is not used any more.
    Retired,
}

impl State {
    const KINDS: usize = 6;

    const fn kind(self) -> usize {
        match self {
            Self::Free => 0,
            Self::Reserved => 1,
            Self::Mapped { .. } => 2,
            Self::Remapping { .. } => 3,
            Self::Reclaiming { .. } => 4,
            Self::Retired => 5,
        }
    }
}

/// What a request for a range is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The range.
    pub slot: SlotId,
    /// Whose contents.
    pub owner: Owner,
    /// Start in the file, in bytes.
    pub file_offset: u64,
    /// Start in the window, in bytes.
    pub window_offset: u64,
    /// Bytes that are mapped, or will be: whole pages, no more than the range has.
    pub len: u64,
    /// Whether it may be written to, or will be.
    pub writable: bool,
}

/// A token that is not valid any more. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

#[derive(Debug)]
pub(crate) struct Grant {
    seqno: u64,
    extent: Extent,
}

impl Grant {
    pub(crate) fn extent(&self) -> &Extent {
        &self.extent
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[must_use = "the range is blocked until the window is told how the request ended"]
        pub struct $name(pub(crate) Grant);

        impl $name {
            /// What to ask the daemon for.
            pub fn extent(&self) -> &Extent {
                &self.0.extent
            }

            /// The range.
            pub fn slot(&self) -> SlotId {
                self.0.extent.slot
            }
        }
    };
}

token! {
    /// The right, and the duty, to map a new range: from
    /// [`Window::reserve`](crate::Window::reserve).
    ReserveToken
}
token! {
    /// The right, and the duty, to map a range anew at its place: from
    /// [`Window::begin_remap`](crate::Window::begin_remap).
    RemapToken
}
token! {
    /// The right, and the duty, to remove a range: from
    /// [`Window::pick_victim`](crate::Window::pick_victim) and the like.
    ReclaimToken
}

/// What list of ranges that can be reclaimed a range is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Queue {
    #[default]
    None,
    Probation,
    Protected,
}

/// All that is known about a range. Made by `default()`, and filled in by the window.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(crate) state: State,
    pub(crate) order: Order,
    pub(crate) seqno: u64,
    pub(crate) owner: Owner,
    pub(crate) file_offset: u64,
    pub(crate) window_offset: u64,
    pub(crate) len: u64,
    pub(crate) users: u32,
    /// Its pages are in use, as an attempt to remove it has shown: not idle until the next tick.
    pub(crate) held: bool,
    /// Somebody was told to wait for this range.
    pub(crate) wanted: bool,
    /// Mapped ahead of its first use.
    pub(crate) fresh: bool,
    pub(crate) heat: Heat,
    /// Tick of the last use.
    pub(crate) used_at: u32,
    pub(crate) queue: Queue,
    /// In the list of its queue, or of free slots.
    pub(crate) prev: u32,
    pub(crate) next: u32,
    /// In the tree of `inode_map`.
    pub(crate) parent: u32,
    pub(crate) left: u32,
    pub(crate) right: u32,
    /// Where `inode_map` looks first for some places of files: an element of a table of its own, which only lies beside the slots.
    pub(crate) bucket: Bucket,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: State::Free,
            order: Order::PAGE,
            seqno: 0,
            owner: Owner(0),
            file_offset: 0,
            window_offset: 0,
            len: 0,
            users: 0,
            held: false,
            wanted: false,
            fresh: false,
            heat: Heat::default(),
            used_at: 0,
            queue: Queue::None,
            prev: NIL,
            next: NIL,
            parent: NIL,
            left: NIL,
            right: NIL,
            bucket: Bucket::EMPTY,
        }
    }
}

impl Slot {
    pub(crate) fn key(&self) -> (Owner, u64) {
        (self.owner, self.file_offset)
    }

    /// Where an access to it at `offset` in the file is in the window; of no length where it is not mapped so far.
    #[inline]
    pub(crate) fn hit(&self, slot: SlotId, offset: u64, writable: bool) -> Hit {
        let within = offset.saturating_sub(self.file_offset);
        Hit {
            slot,
            window_offset: self.window_offset.saturating_add(within),
            len: self.len.saturating_sub(within),
            writable,
        }
    }

    /// Notes a use, which `counts` or not, and gives the count. The first use of what was mapped ahead does not count.
    #[inline]
    pub(crate) fn touch(&mut self, counts: bool, epoch: u16, tick: u32) -> u8 {
        self.used_at = tick;
        if core::mem::take(&mut self.fresh) || !counts {
            self.heat.at(epoch)
        } else {
            self.heat.add(epoch)
        }
    }

    /// End in the file, in bytes: of the range, not only of what is mapped.
    pub(crate) fn file_end(&self) -> u64 {
        self.file_offset.saturating_add(self.order.bytes())
    }

    /// Whether the range is there for this place of the file.
    pub(crate) fn covers(&self, owner: Owner, offset: u64) -> bool {
        self.owner == owner && self.file_offset <= offset && offset < self.file_end()
    }

    /// Whether the range belongs to a file: it is in the tree.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state, State::Free | State::Retired)
    }

    /// Whether it is mapped, and no access is under way.
    pub(crate) fn is_unused(&self) -> bool {
        self.users == 0 && matches!(self.state, State::Mapped { .. })
    }

    /// Whether it could be reclaimed now.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_unused() && !self.held
    }

    pub(crate) fn writable(&self) -> bool {
        match self.state {
            State::Mapped { writable }
            | State::Remapping { writable }
            | State::Reclaiming { writable } => writable,
            State::Free | State::Reserved | State::Retired => false,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Ranges<S> {
    slots: S,
    /// First of the free slots, which are linked by `next`.
    free: u32,
    /// Most slots that may be in use.
    limit: u32,
    seqno: u64,
    by_state: [u32; State::KINDS],
    by_order: [u32; Order::COUNT],
    idle: u32,
    /// Some are held.
    held: bool,
}

impl<S: Storage<Slot>> Ranges<S> {
    pub(crate) fn new(mut slots: S, seqno: u64) -> Self {
        slots.fill(Slot::default());
        let count = u32::try_from(slots.len()).unwrap_or(NIL.wrapping_sub(1));
        for (next, slot) in (1..count).zip(slots.iter_mut()) {
            slot.next = next;
        }
        Self {
            slots,
            free: if count == 0 { NIL } else { 0 },
            limit: count,
            seqno,
            by_state: [count, 0, 0, 0, 0, 0],
            by_order: [0; Order::COUNT],
            idle: 0,
            held: false,
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    pub(crate) fn get(&self, i: u32) -> Option<&Slot> {
        self.slots.get(index(i))
    }

    pub(crate) fn get_mut(&mut self, i: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index(i))
    }

    /// Slots that are not free: the host may have a mapping for each.
    pub(crate) fn in_use(&self) -> u32 {
        let slots = u32::try_from(self.slots.len()).unwrap_or(NIL);
        slots.saturating_sub(self.count(State::Free))
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(u32::try_from(self.slots.len()).unwrap_or(NIL));
    }

    /// Whether one more range may be made.
    pub(crate) fn has_room(&self) -> bool {
        self.free != NIL && self.in_use() < self.limit
    }

    /// Ranges in a state.
    pub(crate) fn count(&self, state: State) -> u32 {
        self.by_state.get(state.kind()).copied().unwrap_or(0)
    }

    pub(crate) fn by_order(&self) -> &[u32; Order::COUNT] {
        &self.by_order
    }

    /// Mapped ranges without users.
    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    /// Whether some range may become free or idle without anybody asking for it.
    pub(crate) fn is_anything_pending(&self) -> bool {
        let retired = self.count(State::Retired);
        self.in_use() > retired.saturating_add(self.idle)
    }

    /// Takes a free slot for a range, whose state becomes `Reserved`. All but the links of the
    /// tree is filled in.
    pub(crate) fn take(&mut self, extent: &Extent, order: Order) -> Option<u32> {
        if !self.has_room() {
            return None;
        }
        let i = self.free;
        let seqno = self.next_seqno();
        let slot = self.slots.get_mut(index(i))?;
        self.free = slot.next;
        *slot = Slot {
            order,
            seqno,
            owner: extent.owner,
            file_offset: extent.file_offset,
            window_offset: extent.window_offset,
            len: extent.len,
            bucket: slot.bucket,
            ..Slot::default()
        };
        self.set_state(i, State::Reserved);
        Some(i)
    }

    /// Gives back a slot that is in no tree and no list.
    pub(crate) fn put(&mut self, i: u32) {
        self.set_state(i, State::Free);
        let next = self.free;
        if let Some(slot) = self.slots.get_mut(index(i)) {
            *slot = Slot {
                seqno: slot.seqno,
                next,
                bucket: slot.bucket,
                ..Slot::default()
            };
            self.free = i;
        }
    }

    pub(crate) fn set_state(&mut self, i: u32, state: State) {
        let Some(slot) = self.slots.get_mut(index(i)) else {
            return;
        };
        let (old, was_idle) = (slot.state, slot.is_idle());
        slot.state = state;
        slot.held = false;
        let (is_idle, order) = (slot.is_idle(), slot.order);
        if let Some(n) = self.by_state.get_mut(old.kind()) {
            *n = n.saturating_sub(1);
        }
        if let Some(n) = self.by_state.get_mut(state.kind()) {
            *n = n.saturating_add(1);
        }
        if let Some(n) = self.by_order.get_mut(usize::from(order.get())) {
            match (old == State::Free, state == State::Free) {
                (true, false) => *n = n.saturating_add(1),
                (false, true) => *n = n.saturating_sub(1),
                _ => (),
            }
        }
        self.count_idle(was_idle, is_idle);
    }

    fn count_idle(&mut self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.idle = self.idle.saturating_add(1),
            (true, false) => self.idle = self.idle.saturating_sub(1),
            _ => (),
        }
    }

    /// One more user. None if there is no such slot, or too many users.
    pub(crate) fn pin(&mut self, i: u32) -> Option<()> {
        let slot = self.slots.get_mut(index(i))?;
        let was = slot.is_idle();
        slot.users = slot.users.checked_add(1)?;
        let is = slot.is_idle();
        self.count_idle(was, is);
        Some(())
    }

    /// One user less; gives whether it was the last. None if there was none.
    pub(crate) fn unpin(&mut self, i: u32) -> Option<bool> {
        let slot = self.slots.get_mut(index(i))?;
        let was = slot.is_idle();
        slot.users = slot.users.checked_sub(1)?;
        let (is, last) = (slot.is_idle(), slot.users == 0);
        self.count_idle(was, is);
        Some(last)
    }

    /// Marks a range as held.
    pub(crate) fn hold(&mut self, i: u32) {
        let Some(slot) = self.slots.get_mut(index(i)) else {
            return;
        };
        let was = slot.is_idle();
        slot.held = true;
        self.held = true;
        self.count_idle(was, false);
    }

    /// No range is held any more; gives whether some became idle. O(ranges) if some were held.
    pub(crate) fn unhold(&mut self) -> bool {
        if !core::mem::take(&mut self.held) {
            return false;
        }
        let mut idle: u32 = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.held) {
            slot.held = false;
            idle = idle.saturating_add(u32::from(slot.is_idle()));
        }
        self.idle = self.idle.saturating_add(idle);
        idle > 0
    }

    fn next_seqno(&mut self) -> u64 {
        self.seqno = self.seqno.wrapping_add(1);
        self.seqno
    }

    /// Makes a token for a slot, and older ones stale. `len` and `writable` are what is asked for.
    pub(crate) fn grant(&mut self, i: u32, len: u64, writable: bool) -> Option<Grant> {
        let seqno = self.next_seqno();
        let slot = self.slots.get_mut(index(i))?;
        slot.seqno = seqno;
        Some(Grant {
            seqno,
            extent: Extent {
                slot: SlotId(i),
                owner: slot.owner,
                file_offset: slot.file_offset,
                window_offset: slot.window_offset,
                len,
                writable,
            },
        })
    }

    /// The slot of a token that is still valid. Its number tells what the token is for, as each
    /// number is given once.
    pub(crate) fn check(&self, grant: &Grant) -> Result<u32, Stale> {
        let i = grant.extent.slot.0;
        match self.get(i) {
            Some(slot) if slot.seqno == grant.seqno => Ok(i),
            _ => Err(Stale),
        }
    }

    /// Makes every token stale.
    pub(crate) fn void_tokens(&mut self) {
        let seqno = self.next_seqno();
        self.slots.iter_mut().for_each(|slot| slot.seqno = seqno);
    }
}
