// SPDX-License-Identifier: GPL-2.0

//! Decaying use counts.

/// A count of uses that halves with every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Heat {
    count: u8,
    epoch: u16,
}

impl Heat {
    /// More is not counted.
    pub(crate) const MAX: u8 = 15;

    #[inline]
    pub(crate) fn new(count: u8, epoch: u16) -> Self {
        Self {
            count: count.min(Self::MAX),
            epoch,
        }
    }

    /// The count in this epoch.
    #[inline]
    pub(crate) fn at(self, epoch: u16) -> u8 {
        let halvings = u32::from(epoch.wrapping_sub(self.epoch));
        self.count.checked_shr(halvings).unwrap_or(0)
    }

    /// Counts one use, and gives the count.
    #[inline]
    pub(crate) fn add(&mut self, epoch: u16) -> u8 {
        *self = Self::new(self.at(epoch).saturating_add(1), epoch);
        self.count
    }
}
