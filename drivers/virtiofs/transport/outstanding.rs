// SPDX-License-Identifier: GPL-2.0

//! Count of SETUPMAPPING and REMOVEMAPPING requests that the daemon has not answered.
//!
//! A wait that is cut short does not end its request: the daemon may still carry it out. As long as one is outstanding, the
//! contents of the window at its place are unknown. So the next session does without the window.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
};

/// Counts them.
pub(crate) struct Outstanding(Atomic<usize>);

impl Outstanding {
    /// None as yet. Errors: `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.0.load(ordering::Acquire) != 0
    }

    /// One more, which is about to be sent.
    pub(crate) fn begin(self: &Arc<Self>) -> MapRequest {
        self.0.fetch_add(1, ordering::Relaxed);
        MapRequest {
            of: self.clone(),
            returned: Atomic::new(0),
        }
    }
}

/// A SETUPMAPPING or REMOVEMAPPING. It is kept with its buffers, which live until the device has returned them, or was reset.
pub(crate) struct MapRequest {
    of: Arc<Outstanding>,
    returned: Atomic<i32>,
}

impl MapRequest {
    /// The device has returned it. Callable from any context.
    pub(crate) fn returned(&self) {
        if self.returned.xchg(1, ordering::Relaxed) == 0 {
            self.of.0.fetch_sub(1, ordering::Release);
        }
    }
}

impl Drop for MapRequest {
    fn drop(&mut self) {
        self.returned();
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_dax_outstanding)]
mod tests {
    use super::*;

    /// Each counts until it was returned, or is gone, and once.
    #[test]
    fn counts_each_once() -> Result {
        let outstanding = Outstanding::new()?;
        assert!(!outstanding.any());
        let (one, other) = (outstanding.begin(), outstanding.begin());
        one.returned();
        one.returned();
        assert!(outstanding.any());
        drop(one);
        assert!(outstanding.any());
        drop(other);
        assert!(!outstanding.any());
        Ok(())
    }
}
