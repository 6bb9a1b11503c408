// SPDX-License-Identifier: GPL-2.0

//! State of the current task: killed, exiting, in reclaim, a kernel thread.

use crate::bindings;
use kernel::current;

/// Bits of an exit code that name the signal.
const SIGNAL: i32 = 0x7f;

/// Whether the current task was killed: a fatal signal waits for it, or it is [on its way out](is_dying) because of one. What it
/// does for itself need not go on.
pub fn is_killed() -> bool {
    // SAFETY: The current task is valid.
    unsafe { bindings::fatal_signal_pending(current!().as_ptr()) != 0 || is_dying() }
}

/// Whether the current task exits, by itself or [because of a signal](is_dying): it closes its files. No signal reaches it any more
/// (`prepare_signal()` drops even SIGKILL for a process in `exit_group(2)`), so that nothing but time ends a wait.
pub fn is_exiting() -> bool {
    // SAFETY: The current task is valid, and changes the flag itself.
    unsafe { (*current!().as_ptr()).flags & bindings::PF_EXITING != 0 }
}

/// Whether the current task is one of the kernel's own. No signal reaches it.
pub fn is_kernel_thread() -> bool {
    // SAFETY: The current task is valid, and changes the flag itself.
    unsafe { (*current!().as_ptr()).flags & bindings::PF_KTHREAD != 0 }
}

/// Whether the current task is freeing memory (`PF_MEMALLOC`). It must not wait for what may need some.
pub fn is_reclaiming() -> bool {
    // SAFETY: The current task is valid, and changes the flag itself.
    unsafe { (*current!().as_ptr()).flags & bindings::PF_MEMALLOC != 0 }
}

/// Whether the current task is a worker of a work queue (`PF_WQ_WORKER`). It must not wait for other work of the same queue.
pub fn is_worker() -> bool {
    // SAFETY: The current task is valid, and changes the flag itself.
    unsafe { (*current!().as_ptr()).flags & bindings::PF_WQ_WORKER != 0 }
}

/// Whether the current task is on its way out because of a signal: it closes its files. No other signal reaches it any more, so
/// that a wait which fatal signals end does not end for them.
pub fn is_dying() -> bool {
    let task = current!().as_ptr();
    // SAFETY: The current task is valid, and so is what it shares with its other threads, until it is reaped. The flag is set by
    // the task itself; the exit code is set before that, and then stays.
    unsafe {
        (*task).flags & bindings::PF_EXITING != 0
            && (&raw const (*(*task).signal).group_exit_code).read_volatile() & SIGNAL != 0
    }
}

/// The current task has `bytes` written to storage: `write_bytes` of `/proc/PID/io`. Nothing without
/// `CONFIG_TASK_IO_ACCOUNTING`. The memory management does it for pages that become dirty.
///
/// C: `task_io_account_write()`.
pub fn account_write(bytes: usize) {
    // SAFETY: It changes a counter of the current task, which nobody else does.
    unsafe { bindings::task_io_account_write(bytes) };
}
