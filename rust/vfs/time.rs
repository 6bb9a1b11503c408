// SPDX-License-Identifier: GPL-2.0

//! Timestamps and clocks of filesystems.
//!
//! C headers: [`include/linux/time64.h`](srctree/include/linux/time64.h),
//! [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use kernel::time::NSEC_PER_SEC;
use kernel_ext::bindings;

/// A time stamp: seconds since the epoch, and nanoseconds within the second.
///
/// # Invariants
///
/// `nsec` is less than one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    sec: i64,
    nsec: u32,
}

impl Timespec {
    /// Makes a time stamp; `nsec` is limited to the last nanosecond of the second.
    pub const fn new(sec: i64, nsec: u32) -> Self {
        const LAST: u32 = NSEC_PER_SEC as u32 - 1;
        // INVARIANT: Limited here.
        Self {
            sec,
            nsec: if nsec > LAST { LAST } else { nsec },
        }
    }

    /// Seconds since the epoch.
    pub const fn sec(self) -> i64 {
        self.sec
    }

    /// Nanoseconds within the second.
    pub const fn nsec(self) -> u32 {
        self.nsec
    }

    pub(crate) const fn to_raw(self) -> bindings::timespec64 {
        bindings::timespec64 {
            tv_sec: self.sec,
            tv_nsec: self.nsec as isize,
        }
    }
}

pub use kernel_ext::jiffies::now as jiffies_64;

/// Nanoseconds on a clock that never goes back, the same for all CPUs. Callable from any context.
pub fn monotonic_ns() -> u64 {
    // SAFETY: No requirements.
    u64::try_from(unsafe { bindings::ktime_get() }).unwrap_or(0)
}

/// The tick at which a time of `sec` seconds and `nsec` nanoseconds, counted from now, has passed.
///
/// A time beyond the range of the counter gives [`u64::MAX`], and no time at all gives 0, which has
/// always passed.
pub fn deadline(sec: u64, nsec: u32) -> u64 {
    if sec == 0 && nsec == 0 {
        return 0;
    }
    let nanos = u64::from(nsec).checked_add(sec.saturating_mul(NSEC_PER_SEC as u64));
    match nanos {
        Some(nanos) if nanos < u64::MAX / 2 => {
            // SAFETY: No requirements.
            let ticks = unsafe { bindings::nsecs_to_jiffies64(nanos) };
            jiffies_64().saturating_add(ticks)
        }
        _ => u64::MAX,
    }
}
