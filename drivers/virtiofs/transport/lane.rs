// SPDX-License-Identifier: GPL-2.0

//! Per-queue data: request numbers and counters, so that requests of different queues share nothing.

use crate::transport::{
    lease::Lease,
    patience::Patience, //
};
use core::pin::Pin;
use fuse_proto::{
    Opcode,
    ReplyError, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
};
use kernel_ext::ratelimit::RateLimit;

/// The data of one virtqueue.
///
/// All methods are callable from any context.
pub(crate) struct Lane {
    tag: CString,
    /// The number of this queue among `step`.
    index: u64,
    step: u64,
    sequence: Atomic<u64>,
    background: Atomic<i32>,
    stored: Atomic<u32>,
    filling: Atomic<i32>,
    patience: Arc<Patience>,
    complaints: Pin<KBox<RateLimit>>,
    lease: Arc<Lease>,
}

impl Lane {
    /// The lane `index` of `lanes` of the device `tag`, with the `lease` of its window and this `patience`.
    pub(crate) fn new(
        tag: &CStr,
        index: u64,
        lanes: u64,
        lease: Arc<Lease>,
        patience: Arc<Patience>,
    ) -> Result<Self> {
        Ok(Self {
            tag: CString::try_from(tag)?,
            index,
            step: lanes,
            sequence: Atomic::new(1),
            background: Atomic::new(0),
            stored: Atomic::new(0),
            filling: Atomic::new(0),
            patience,
            complaints: KBox::pin_init(RateLimit::new(), GFP_KERNEL)?,
            lease,
        })
    }

    /// A number that no other request of the device has. It is even: the lowest bit marks an INTERRUPT
    /// (`FUSE_INT_REQ_BIT`), and never 0, which marks a notification.
    pub(crate) fn next_unique(&self) -> u64 {
        let sequence = self.sequence.fetch_add(1, ordering::Relaxed);
        sequence
            .wrapping_mul(self.step)
            .wrapping_add(self.index)
            .wrapping_mul(2)
    }

    /// Logs what is wrong with a reply.
    pub(crate) fn complain(&self, opcode: Opcode, what: ReplyError) {
        if self.complaints.allow() {
            // The crate without types of the kernel has the formatting traits of `core`.
            pr_warn!(
                "{:?}: {}: {}\n",
                self.tag,
                opcode.name(),
                core::format_args!("{what}")
            );
        }
    }

    /// The device returned what it never had: logs that, and has the window closed.
    pub(crate) fn broken(&self) {
        pr_err!(
            "{:?}: queue {}: the device returned a request that it does not have; unbind and bind it to use it again\n",
            self.tag,
            self.index
        );
        self.lease.close_later();
    }

    /// A request that nobody waits for begins; returns how many there are now.
    pub(crate) fn background_begins(&self) -> i32 {
        self.background.fetch_add(1, ordering::Relaxed) + 1
    }

    /// How many requests there are that nobody waits for.
    pub(crate) fn background(&self) -> i32 {
        self.background.load(ordering::Relaxed)
    }

    /// How long tasks that exit wait for the daemon.
    pub(crate) fn patience(&self) -> &Arc<Patience> {
        &self.patience
    }

    /// A request that fills folios begins.
    pub(crate) fn filling_begins(&self) {
        self.filling.fetch_add(1, ordering::Relaxed);
    }

    /// A request that fills folios has ended.
    pub(crate) fn filling_ends(&self) {
        self.filling.fetch_sub(1, ordering::Relaxed);
    }

    /// How many fill folios.
    pub(crate) fn filling(&self) -> i32 {
        self.filling.load(ordering::Relaxed)
    }

    /// The daemon has answered to a request of a writeback.
    pub(crate) fn has_stored(&self) {
        self.stored.fetch_add(1, ordering::Relaxed);
    }

    /// How often it has, with the 2^32nd time as the first.
    pub(crate) fn stored(&self) -> u32 {
        self.stored.load(ordering::Relaxed)
    }

    /// A request that nobody waits for has ended.
    pub(crate) fn background_ends(&self) {
        self.background.fetch_sub(1, ordering::Relaxed);
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_lane)]
mod tests {
    use super::*;
    use kernel_ext::workqueue::OwnedQueue;

    fn lease() -> Result<Arc<Lease>> {
        Lease::new(Arc::new(OwnedQueue::new(c"lane")?, GFP_KERNEL)?)
    }

    /// Requests of all queues have different numbers, all even and none 0.
    #[test]
    fn unique_numbers() -> Result {
        const LANES: usize = 5;
        const EACH: usize = 40;
        let mut seen = KVec::with_capacity(LANES * EACH, GFP_KERNEL)?;
        for index in 0..LANES {
            let lane = Lane::new(
                c"tag",
                index as u64,
                LANES as u64,
                lease()?,
                Patience::new()?,
            )?;
            for _ in 0..EACH {
                let unique = lane.next_unique();
                assert_eq!(unique % 2, 0);
                assert!(unique != 0);
                assert!(!seen.contains(&unique));
                seen.push(unique, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    #[test]
    fn background_counts() -> Result {
        let lane = Lane::new(c"tag", 0, 1, lease()?, Patience::new()?)?;
        assert_eq!(lane.background_begins(), 1);
        assert_eq!(lane.background_begins(), 2);
        lane.background_ends();
        assert_eq!(lane.background(), 1);
        assert_eq!(lane.background_begins(), 2);
        Ok(())
    }
}
