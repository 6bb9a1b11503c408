// SPDX-License-Identifier: GPL-2.0

//! The kernel's tick counter: a time that costs nothing to take, as exact as a tick is short.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use crate::bindings;

/// The ticks since boot, which never wrap. Callable from any context.
///
/// C: `get_jiffies_64()`.
#[inline]
pub fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::get_jiffies_64() }
}

/// Milliseconds since `then`, an earlier [`now`]. Callable from any context.
pub fn millis_since(then: u64) -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::jiffies64_to_msecs(now().saturating_sub(then)) }
}
