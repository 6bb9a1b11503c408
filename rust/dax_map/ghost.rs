// SPDX-License-Identifier: GPL-2.0

//! What is remembered of parts of files that are not mapped: how often they were used.

use crate::heat::Heat;
use crate::storage::Storage;
use crate::{mix_part, Owner};

/// A part of a file that is not mapped but was used lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ghost {
    /// Which part, mixed; 0 if there is none.
    key: u64,
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

    /// A part of a file: the `chunk`-th one of the largest order.
    pub(crate) fn key(owner: Owner, chunk: u64) -> u64 {
        mix_part(owner, chunk).max(1)
    }

    fn set(&mut self, key: u64) -> &mut [Ghost] {
        let len = self.entries.len();
        let sets = len.div_ceil(WAYS);
        let which = u64::try_from(sets).ok().and_then(|n| key.checked_rem(n));
        let first = which
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0)
            .saturating_mul(WAYS);
        let end = first.saturating_add(WAYS).min(len);
        self.entries.get_mut(first..end).unwrap_or_default()
    }

    fn find(&mut self, key: u64) -> Option<&mut Ghost> {
        self.set(key).iter_mut().find(|ghost| ghost.key == key)
    }

    /// Counts one use, and gives the count.
    pub(crate) fn add(&mut self, key: u64, epoch: u16) -> u8 {
        match self.find(key) {
            Some(ghost) => ghost.heat.add(epoch),
            None => {
                self.put(key, Heat::new(1, epoch), epoch);
                1
            }
        }
    }

    /// Remembers a part.
    pub(crate) fn put(&mut self, key: u64, heat: Heat, epoch: u16) {
        let coldest = |ghost: &&mut Ghost| match ghost.key {
            k if k == key => (0, 0),
            0 => (1, 0),
            _ => (2, ghost.heat.at(epoch)),
        };
        if let Some(ghost) = self.set(key).iter_mut().min_by_key(coldest) {
            *ghost = Ghost { key, heat };
        }
    }

    /// Forgets a part, and gives its count.
    pub(crate) fn take(&mut self, key: u64, epoch: u16) -> u8 {
        let Some(ghost) = self.find(key) else {
            return 0;
        };
        let heat = ghost.heat.at(epoch);
        *ghost = Ghost::default();
        heat
    }
}
