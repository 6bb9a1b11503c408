# SPDX-License-Identifier: GPL-2.0
"""Finds in a guest's console log what a kernel says when something is wrong."""

import re
from pathlib import Path

# Everything by which the kernel, its sanitizers and its lock checker report a fault. A guest that printed one has failed,
# whatever the test itself saw.
FAULTS = re.compile(
    "|".join(
        [
            r"WARNING: ",
            r"\bBUG: ",
            r"kernel BUG at",
            r"\bOops\b",
            r"Kernel panic",
            r"general protection fault",
            r"unable to handle (kernel|page fault)",
            r"Call Trace:",
            r"rust_kernel: panicked|panicked at ",
            r"\bKASAN\b.*(in |:)",
            r"\bUBSAN\b",
            r"\bODEBUG\b",
            r"kmemleak: \d+ new suspected",
            r"kmemleak: .*(disabled|[Ee]rror)",
            r"unreferenced object",
            r"possible (recursive|circular|irq lock inversion)",
            r"(recursive|circular) locking",
            r"inconsistent lock state",
            r"bad unlock balance",
            r"lock held when returning|locks? still held|held lock freed",
            r"suspicious RCU usage",
            r"DEBUG_LOCKS_WARN_ON",
            r"BUG: MAX_LOCK|turning off the locking correctness validator",
            r"sleeping function called from invalid context",
            r"scheduling while atomic",
            r"list_(add|del) corruption|(add|del).* corruption",
            r"refcount_t: ",
            r"INFO: task .* blocked",
            r"rcu.*(stall|detected stalls|self-detected)",
            r"soft lockup|hard LOCKUP|workqueue lockup",
            r"page allocation failure|invoked oom-killer|Out of memory:",
            r"Bad page (state|map)|still mapped when deleted",
            r"Busy inodes after unmount|Dentry .* still in use",
            r"segfault at|traps: ",
            r"kobject.*(tried to init|is not initialized|cannot be freed)",
            r"virtio.*(id \d+ is not a head|used ring|out of range)",
        ]
    )
)

# Lines that look like a fault and are none.
HARMLESS = re.compile(
    r"kmemleak: Kernel memory leak detector (initialized|disabled$)|kmemleak: Automatic memory scanning"
    r"|Spectre V2 : WARNING|KASAN: memory inaccessible|kasan: KernelAddressSanitizer initialized"
)

END_OF_REPORT = re.compile(r"---\[ end trace|={60,}")


def lines_of(log):
    """The log's lines, whatever bytes are in it."""
    path = Path(log)
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def faults(log, expected=()):
    """The lines of a log that report a fault, without those that match a pattern of `expected`.

    An expected line excuses the rest of its report, up to the line that ends it.
    """
    excuse = [re.compile(pattern) for pattern in expected]
    found = []
    excused = 0
    for line in lines_of(log):
        if any(pattern.search(line) for pattern in excuse):
            excused = 80
        elif excused and END_OF_REPORT.search(line):
            excused = 0
        elif FAULTS.search(line) and not HARMLESS.search(line):
            if not excused:
                found.append(line.strip())
        excused = max(0, excused - 1)
    return found
