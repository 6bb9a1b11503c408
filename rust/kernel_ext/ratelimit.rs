// SPDX-License-Identifier: GPL-2.0

//! A limit on how often something is done, most of all logged.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Ten times in five seconds, the kernel's default for log lines.
#[pin_data]
pub struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: A `struct ratelimit_state` locks itself, and may be used from any context.
unsafe impl Send for RateLimit {}
// SAFETY: As above.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// A limit of which nothing is used.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and stays where it is.
                unsafe { bindings::ratelimit_default_init(slot) }
            }),
        })
    }

    /// Whether it may be done once more. Callable from any context. What was left out is counted, and logged later.
    pub fn allow(&self) -> bool {
        // SAFETY: The state was initialised by `new`; the name is only printed.
        unsafe { bindings::___ratelimit(self.state.get(), c"virtiofs".as_char_ptr()) != 0 }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_ratelimit)]
mod tests {
    use super::*;

    /// Ten are allowed at once, and not many more.
    #[test]
    fn burst() -> Result {
        let limit = KBox::pin_init(RateLimit::new(), GFP_KERNEL)?;
        let allowed = (0..100).filter(|_| limit.allow()).count();
        assert!((10..100).contains(&allowed));
        Ok(())
    }
}
