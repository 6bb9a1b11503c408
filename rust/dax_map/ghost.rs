// SPDX-License-Identifier: GPL-2.0

//! Ghost entries: use counts of parts of files that are not mapped.

use crate::heat::Heat;
use crate::storage::{index, Storage};
use crate::Part;

/// A part of a file that is not mapped but was used lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ghost {
    /// Which part; none if there is none.
    part: Option<Part>,
    heat: Heat,
}

/// A cache of ghosts in sets of [`WAYS`]: as many as the caller gave memory for, and the least
/// used one of a set makes room. Each operation looks at one set.
#[derive(Debug)]
pub(crate) struct Ghosts<G> {
    entries: G,
}

const WAYS: usize = 8;

impl<G: Storage<Ghost>> Ghosts<G> {
    pub(crate) fn new(mut entries: G) -> Self {
        entries.fill(Ghost::default());
        Self { entries }
    }

    fn set(&mut self, part: Part) -> &mut [Ghost] {
        let len = self.entries.len();
        let first = index(part.place(len.div_ceil(WAYS))).saturating_mul(WAYS);
        let end = first.saturating_add(WAYS).min(len);
        self.entries.get_mut(first..end).unwrap_or_default()
    }

    fn find(&mut self, part: Part) -> Option<&mut Ghost> {
        self.set(part)
            .iter_mut()
            .find(|ghost| ghost.part == Some(part))
    }

    /// Counts one use, and gives the count.
    pub(crate) fn add(&mut self, part: Part, epoch: u16) -> u8 {
        match self.find(part) {
            Some(ghost) => ghost.heat.add(epoch),
            None => {
                self.put(part, Heat::new(1, epoch), epoch);
                1
            }
        }
    }

    /// Remembers a part.
    pub(crate) fn put(&mut self, part: Part, heat: Heat, epoch: u16) {
        let coldest = |ghost: &&mut Ghost| match ghost.part {
            Some(p) if p == part => (0, 0),
            None => (1, 0),
            Some(_) => (2, ghost.heat.at(epoch)),
        };
        if let Some(ghost) = self.set(part).iter_mut().min_by_key(coldest) {
            *ghost = Ghost {
                part: Some(part),
                heat,
            };
        }
    }

    /// Forgets a part, and gives its count.
    pub(crate) fn take(&mut self, part: Part, epoch: u16) -> u8 {
        let Some(ghost) = self.find(part) else {
            return 0;
        };
        let heat = ghost.heat.at(epoch);
        *ghost = Ghost::default();
        heat
    }
}
