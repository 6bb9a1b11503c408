// SPDX-License-Identifier: GPL-2.0

//! Queries to a window, and its answers.

use crate::ranges::{Extent, Owner, ReclaimToken, SlotId, State};
use crate::size::{Geometry, Order};
#[cfg(doc)]
use crate::Window;

/// What a window is like.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How it is divided.
    pub geometry: Geometry,
    /// A random number: makes the shape of trees, and the numbers of tokens, unpredictable.
    pub seed: u64,
}

/// Why a window could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewError {
    /// Fewer blocks than [`Geometry::blocks`].
    TooFewBlocks,
    /// No slot, or more than 32 bits can count.
    Slots,
}

/// Whether an access can do without a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A read or write: it can go to the daemon instead.
    Either,
    /// A page fault that only reads: a copy of the page will do.
    Page,
    /// A page fault that writes, or the like: it cannot.
    Mapping,
}

/// Somebody wants to use a file.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Which file.
    pub owner: Owner,
    /// Start in the file, in bytes.
    pub offset: u64,
    /// Length in bytes; what is beyond the end of the file only if `write`.
    pub len: u64,
    /// Whether it changes the file.
    pub write: bool,
    /// Whether it can be bypassed.
    pub need: Need,
    /// Size of the file in bytes.
    pub file_size: u64,
}

/// A range that may be used. It is pinned: [`Window::unpin`] it after use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the range is pinned"]
pub struct Hit {
    /// The range.
    pub slot: SlotId,
    /// Where the access starts in the window, in bytes.
    pub window_offset: u64,
    /// How many bytes there are from there, at least 1. It may be less than the access has, or more.
    pub len: u64,
    /// Whether it may be written to.
    pub writable: bool,
}

/// A range to be made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which file.
    pub owner: Owner,
    /// A place of the file that the range will show, in bytes.
    pub offset: u64,
    /// Size of the file in bytes.
    pub file_size: u64,
    /// Whether it will be written to.
    pub writable: bool,
    /// Whether it is mapped for a run, or ahead of one.
    pub sequential: bool,
    /// Whether it is mapped before anybody asked for it.
    pub ahead: bool,
    /// Whether others wait for the like of it: then room is made in the background, too.
    pub urgent: bool,
    /// Whether it takes the place of a range that is used less.
    pub outdoes: bool,
    /// Whether a smaller range than wished is good enough: for the second attempt.
    pub relaxed: bool,
}

impl Plan {
    /// Whether room is made for it. Others get what is left: if there is nothing they do without.
    pub const fn is_entitled(&self) -> bool {
        self.urgent || self.outdoes
    }

    /// The same, content with any size: after ranges were reclaimed in vain, because the
    /// free room is in pieces.
    pub const fn relaxed(self) -> Self {
        Self {
            relaxed: true,
            ..self
        }
    }
}

/// What to wait for. Whoever is told so is a waiter before the window lock is released, sleeps,
/// and tries again when woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For this range: woken by a [`Wake`] that names it.
    Range(SlotId),
    /// For any range to become free or idle: woken by a [`Wake`] that says `any`. Not for a
    /// particular one, as that may be in use by others again and again while others are free.
    Any,
}

/// What to do with an access.
#[derive(Debug)]
pub enum Step {
    /// Use this range, then unpin it.
    Use(Hit),
    /// [`Window::reserve`] a range, and map it.
    Map(Plan),
    /// [`Window::begin_remap`] the range that is there.
    Remap(Plan),
    /// Another one is at it: wait.
    Wait(Wait),
    /// Send FUSE_READ or FUSE_WRITE for so many bytes; for a page fault, FUSE_READ for a copy of the page.
    Bypass {
        /// Up to the next mapped range, or all that was asked for.
        len: u64,
    },
}

/// What to do with an access, and what to do besides.
#[derive(Debug)]
#[must_use = "a range may be pinned"]
pub struct Advice {
    /// What to do with the access.
    pub step: Step,
    /// A range that will be needed soon. It is proposed once, and may be ignored.
    pub ahead: Option<Plan>,
}

/// Why a range was not reserved, or not remapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Things are not as they were: [`Window::access`] again.
    Changed,
    /// No room, but some ranges are idle: reclaim, then try again.
    Reclaim,
    /// No room, and all ranges are in use.
    Wait(Wait),
    /// No room, and nothing can ever be freed: all of the window is retired, or it is abandoned.
    Never,
    /// The place is past the end of the file.
    PastEnd,
}

/// Who has to be woken. Nothing is lost if the lock is released before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "somebody may be waiting"]
pub struct Wake {
    /// Those who wait for this range, all of them.
    pub range: Option<SlotId>,
    /// Those who wait for any range, all of them.
    pub any: bool,
}

/// How far the removal of a part of a file is.
#[derive(Debug)]
#[must_use = "there may be a token in it"]
pub enum Removal {
    /// Remove this one, and ask again.
    Remove(ReclaimToken),
    /// In use: wait, and ask again.
    Wait(Wait),
    /// Nothing is mapped any more.
    Done,
}

/// What a slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeInfo {
    /// What it is doing.
    pub state: State,
    /// Its size.
    pub order: Order,
    /// How many use it.
    pub users: u32,
    /// Where, and for whom.
    pub extent: Extent,
}
