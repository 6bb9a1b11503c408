// SPDX-License-Identifier: GPL-2.0

//! CPU numbers.

use crate::bindings;

/// The CPU this runs on, as a hint: the task may move right after.
pub fn current_hint() -> usize {
    // SAFETY: Has no preconditions; the result may be stale.
    unsafe { bindings::raw_smp_processor_id() as usize }
}

/// One more than the highest number that a CPU of this machine may have.
pub fn id_limit() -> usize {
    kernel::cpu::nr_cpu_ids() as usize
}
