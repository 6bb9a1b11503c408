// SPDX-License-Identifier: GPL-2.0

//! Counters of a window: `/sys/kernel/debug/virtiofs/<n>/window`, where n is the number of the virtio device.
//!
//! A name and a number in each line. All counts begin with the session, which is a mount; without one the file has a single
//! word, that says so. Documentation/dax.md explains the names.

use super::window::Window;
use dax_map::Order;
use kernel::fmt::{
    Formatter,
    Result as FmtResult, //
};

impl Window {
    /// Writes what it shows now and what has happened so far.
    pub(crate) fn write_counters(&self, f: &mut Formatter<'_>) -> FmtResult {
        // Nothing is written with the lock held: who reads may be slow.
        let state = self.state().lock();
        let (usage, counters) = (state.table.usage(), state.table.counters());
        let (waited, unable) = (state.waited, state.is_unable());
        let geometry = *state.table.geometry();
        drop(state);
        let lines = [
            ("usable_bytes", usage.usable_bytes),
            ("free_bytes", usage.free_bytes),
            ("retired_bytes", usage.retired_bytes),
            ("ranges_limit", usage.limit.into()),
            ("ranges", usage.ranges.into()),
            ("ranges_idle", usage.idle.into()),
            ("ranges_pinned", usage.pinned.into()),
            ("ranges_busy", usage.busy.into()),
            ("ranges_retired", usage.retired.into()),
            ("ranges_probation", usage.probation.into()),
            ("ranges_protected", usage.protected.into()),
            ("hits", counters.hits),
            ("misses", counters.misses),
            ("faults", counters.faults),
            ("bypassed_reads", counters.bypassed_reads),
            ("bypassed_writes", counters.bypassed_writes),
            ("mapped", counters.mapped),
            ("proposed_ahead", counters.ahead),
            ("remapped", counters.remapped),
            ("removed", counters.removed),
            ("reclaimed", counters.reclaimed),
            ("failed", counters.failed),
            ("cancelled", counters.cancelled),
            ("waits", counters.waits),
            ("waited_ns", waited),
            ("unable", unable.into()),
            ("copies", self.copies().len() as u64),
        ];
        for (name, value) in lines {
            writeln!(f, "{name} {value}")?;
        }
        for (order, count) in (0..).map_while(Order::new).zip(usage.by_order) {
            if order >= geometry.min() && order <= geometry.max() {
                writeln!(f, "ranges_of_{}k {count}", order.bytes() >> 10)?;
            }
        }
        Ok(())
    }
}
