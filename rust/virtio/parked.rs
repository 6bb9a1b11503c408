// SPDX-License-Identifier: GPL-2.0

//! Transfers that wait for room in a ring.

use crate::transfer::{
    Owner,
    Transfer, //
};
use kernel::list::{
    Iter,
    List,
    ListArc, //
};

/// A list of them, in order, that knows its length: it has no bound that would allow to count it with a lock held.
pub(crate) struct Parked<O: Owner> {
    list: List<Transfer<O>>,
    len: usize,
}

impl<O: Owner> Parked<O> {
    /// None.
    pub(crate) const fn new() -> Self {
        Self {
            list: List::new(),
            len: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One more, behind all others.
    pub(crate) fn push_back(&mut self, transfer: ListArc<Transfer<O>>) {
        self.list.push_back(transfer);
        self.len = self.len.saturating_add(1);
    }

    /// One that was taken too early is the first again.
    pub(crate) fn push_front(&mut self, transfer: ListArc<Transfer<O>>) {
        self.list.push_front(transfer);
        self.len = self.len.saturating_add(1);
    }

    /// The first one, whose turn it is.
    pub(crate) fn pop_front(&mut self) -> Option<ListArc<Transfer<O>>> {
        let transfer = self.list.pop_front()?;
        self.len = self.len.saturating_sub(1);
        Some(transfer)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> Iter<'_, Transfer<O>> {
        self.list.iter()
    }

    /// Takes those that are meant out. The order of the others stays.
    pub(crate) fn take(&mut self, is_meant: impl Fn(&Transfer<O>) -> bool) -> List<Transfer<O>> {
        let (mut taken, mut others) = (List::new(), Self::new());
        while let Some(transfer) = self.pop_front() {
            match is_meant(&transfer) {
                true => taken.push_back(transfer),
                false => others.push_back(transfer),
            }
        }
        *self = others;
        taken
    }
}
