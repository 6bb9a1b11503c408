#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the module's KUnit suites in a guest and shows their results.

Runs inside the build root: scripts/enter scripts/kunit.py --kernel debug
"""

import argparse
import contextlib
import io
import sys

import guest as guests
import kernel as kernels

MODULE = "virtiofs_test"


def parse(lines):
    """The results in a kernel log, by the kernel's own parser: (passed, failed, report)."""
    sys.path.insert(0, str(kernels.unpack_source() / "tools" / "testing" / "kunit"))
    import kunit_parser  # pylint: disable=import-outside-toplevel,import-error
    import kunit_printer  # pylint: disable=import-outside-toplevel,import-error

    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        result = kunit_parser.parse_run_tests(iter(lines), kunit_printer.Printer(print=True, output=report))
    counts = result.counts
    # A log that breaks off or says nothing is a failure, not an empty success.
    failed = counts.failed + counts.crashed + counts.errors + (counts.total() == 0)
    return counts.passed, failed, report.getvalue()


def run(kernel):
    """Boots a guest, loads the test module and returns (passed, failed, report)."""
    append = "kunit.enable=1 kunit.autorun=1 kunit.stats_enabled=2 log_buf_len=16M"
    with guests.Guest(kernel=kernel, append=append, name=f"kunit-{kernel}", expected=[]) as guest:
        guest.run("dmesg -c >/dev/null")
        guest.run(f"modprobe {MODULE}", timeout=300)
        lines = guest.dmesg().splitlines()
        guest.run(f"modprobe -r {MODULE}")
    return parse(lines)


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, default="kata", help="which guest kernel")
    parser.add_argument("--log", help="parse the results in this kernel log, boot nothing")
    args = parser.parse_args()
    if args.log:
        with open(args.log, encoding="utf-8", errors="replace") as log:
            passed, failed, report = parse(log.read().splitlines())
    else:
        try:
            passed, failed, report = run(args.kernel)
        except guests.GuestError as error:
            sys.exit(str(error))
    print(report, end="")
    print(f"KUnit: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
