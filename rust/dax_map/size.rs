// SPDX-License-Identifier: GPL-2.0

//! Sizes: pages, orders, and what a window is divided into.

use crate::storage::MAX_ELEMENTS;

/// Bytes of a page, the unit of the protocol.
pub const PAGE_SIZE: u64 = 4096;

/// Size of a range: 4 KiB times a power of two.
///
/// A range lies at a multiple of its size, in the window as well as in the file, so that a page
/// table entry of its size can map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u8);

impl Order {
    /// Number of different orders.
    pub const COUNT: usize = 19;

    /// 4 KiB.
    pub const PAGE: Self = Self(0);

    /// 64 KiB, the smallest range of a window unless the device asks for larger ones.
    pub const KIB_64: Self = Self(4);

    /// 2 MiB, what a huge page maps.
    pub const MIB_2: Self = Self(9);

    /// 1 GiB, the largest order there is.
    pub const MAX: Self = Self(18);

    /// The order of `4096 << order` bytes, if there is one.
    pub const fn new(order: u8) -> Option<Self> {
        if order <= Self::MAX.0 {
            Some(Self(order))
        } else {
            None
        }
    }

    /// Its number: 0 is 4 KiB.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its size in bytes.
    pub const fn bytes(self) -> u64 {
        PAGE_SIZE.wrapping_shl(self.0 as u32)
    }

    /// The start of the range of this order that contains `offset`, in bytes.
    pub const fn align_down(self, offset: u64) -> u64 {
        offset & !self.mask()
    }

    /// Whether `offset` may be the start of a range of this order.
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset & self.mask() == 0
    }

    const fn mask(self) -> u64 {
        self.bytes().wrapping_sub(1)
    }

    /// The next smaller order.
    pub const fn smaller(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(order) => Some(Self(order)),
            None => None,
        }
    }

    /// The next larger order.
    pub const fn larger(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }

    /// The smallest order of at least so many bytes; the largest one if there is none.
    pub fn covering(bytes: u64) -> Self {
        let mut order = Self::PAGE;
        while order.bytes() < bytes {
            match order.larger() {
                Some(larger) => order = larger,
                None => break,
            }
        }
        order
    }

    /// The largest order of at most so many bytes.
    pub fn within(bytes: u64) -> Option<Self> {
        let mut order = Self::MAX;
        while order.bytes() > bytes {
            order = order.smaller()?;
        }
        Some(order)
    }
}

/// Why a window cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// It has not room for one range of the smallest size.
    TooSmall,
    /// It has more ranges of the smallest size than can be counted.
    TooLarge,
    /// The device's map alignment is larger than the largest range.
    Alignment,
}

/// How a window is divided into ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    usable: u64,
    min: Order,
    max: Order,
}

impl Geometry {
    /// A window of `len` bytes with ranges of [`Order::KIB_64`] (or `alignment` bytes, the device's
    /// map alignment, if that is more) to `max`.
    ///
    /// The length need not be a power of two, nor a multiple of a range: what is left at the end
    /// is not used. In a window smaller than `max`, ranges are as large as it permits.
    pub fn new(len: u64, alignment: u64, max: Order) -> Result<Self, GeometryError> {
        let min = Order::covering(alignment).max(Order::KIB_64);
        if min > max || min.bytes() < alignment {
            return Err(GeometryError::Alignment);
        }
        let usable = min.align_down(len);
        let max = max.min(Order::within(usable).unwrap_or(Order::PAGE));
        let geometry = Self { usable, min, max };
        if max < min {
            Err(GeometryError::TooSmall)
        } else if geometry.blocks() > MAX_ELEMENTS {
            Err(GeometryError::TooLarge)
        } else {
            Ok(geometry)
        }
    }

    /// Bytes of the window that are used.
    pub const fn usable(&self) -> u64 {
        self.usable
    }

    /// The smallest range.
    pub const fn min(&self) -> Order {
        self.min
    }

    /// The largest range.
    pub const fn max(&self) -> Order {
        self.max
    }

    /// Ranges of the smallest size: what [`Buddy`](crate::buddy::Buddy) needs a
    /// [`Block`](crate::buddy::Block) for, each.
    pub const fn blocks(&self) -> u64 {
        match self.usable.checked_div(self.min.bytes()) {
            Some(blocks) => blocks,
            None => 0,
        }
    }
}
