#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures this driver beside the kernel's own (C) with a DAX window, inside and beyond it, in one guest, in turn.

Both have the same daemon, of tests/daxd, mounted with dax=always; where a file is larger than the window, this driver is also
measured without one, with dax=never and O_DIRECT. Tells medians over the rounds, the requests per operation that the daemon counted
meanwhile, and for each case what is to be shown and whether it was.

Runs inside the build root: make bench-dax ARGS='--quick --case "8x-*"'. Documentation/benchmarks.md tells how to read the result.
"""

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path

import guest as guests
import kernel as kernels
import measure

# These three lie with the tests, where `measure` lets them be found.
import goals
import table
from daxd import Daxd

say = kernels.say

TAG = "bench-dax"
# The window of a guest, and the groups of cases that are run in it. A guest has one device: all maps of a guest share what the
# emulator has for them.
WINDOWS = {"64M": ("inside", "beyond", "faults", "run"), "32M": ("tiny",)}
# It takes the emulator long to show so many ranges, and what is to be shown is a count.
MOST_ROUNDS = {"32M": 1}
MOUNT = "mount -t virtiofs -o dax={} {{tag}} /mnt"
DRIVERS = {
    "ours": dataclasses.replace(measure.OURS, mount=MOUNT.format("always")),
    "C": dataclasses.replace(measure.C, mount=MOUNT.format("always")),
    # Past the page cache: what is to be compared is the way to the host.
    "no DAX": dataclasses.replace(measure.OURS, mount=MOUNT.format("never"), run="--direct"),
}
# What is beyond the window takes the C driver so long that it does a part of the operations; it goes on as it started. This driver
# starts with ranges for what does not fit, and has to show that they are worth it.
SHARES = {("C", "beyond"): 1 / 16, ("C", "faults"): 1 / 4, ("C", "tiny"): 1 / 4}
# The shared directory, with the files that are read and those that are written.
ROOM = 4 << 30


def groups_of(bench, window, drivers):
    """The groups of cases for a window, with the drivers that run them: those after the second only where they are to be compared."""
    found = []
    for group in WINDOWS[window]:
        by_drivers = {}
        for case in bench.groups.get(group, []):
            goal = goals.goal_of(case)
            if goal is None:
                raise measure.BenchError(f"case {case} has no goal")
            wanted = tuple(driver for driver in drivers if driver in ("ours", "C", *goal.speed))
            by_drivers.setdefault(wanted, []).append(case)
        found += [(group, cases, wanted) for wanted, cases in by_drivers.items() if wanted]
    return found


class Clock:
    """Measures a case: the host's processors, and what the daemon counts."""

    def __init__(self, processors, daxd):
        self.processors, self.daxd = processors, daxd

    def begin(self):
        """Starts to measure."""
        self.daxd.reset_counters()
        self.processors.begin()

    def end(self):
        """Processor time, and the daemon's counters."""
        cpu = self.processors.end()
        return cpu, measure.settled(self.daxd)


def rounds(bench, report, window, groups, clock):
    """Rounds of the cases for one window, in which the drivers take turns."""
    shares = {(driver, case): share for (driver, group), share in SHARES.items() for case in bench.groups.get(group, [])}

    def visit(driver, cases):
        share = shares.get((driver, cases[0]), 1.0)
        for line, (cpu, counters) in bench.visit(driver, TAG, cases, clock.begin, clock.end, share):
            report.times.add(line["case"], driver, line, cpu)
            report.counts.add(line["case"], driver, line, counters)

    wanted = min(bench.args.rounds, MOST_ROUNDS.get(window, bench.args.rounds))
    for number in range(wanted):
        for group, shown in bench.turns(number, groups, visit):
            say(f"window {window}, round {number + 1} of {wanted}, {group}: {shown}")


def run(args, directory, report):
    """Measures, and puts everything into the report as soon as it is known."""
    bench = measure.Bench(args, directory, DRIVERS, "bench-dax", mount_each=True)
    for window in WINDOWS:
        groups = groups_of(bench, window, list(report.times.drivers))
        if not groups:
            continue
        daxd = Daxd(directory, tag=TAG, window=window, queues=args.queues, queue_size=args.queue_size, **measure.LIKE_VIRTIOFSD)
        with contextlib.ExitStack() as stack:
            stack.enter_context(daxd)
            stack.enter_context(bench.booted([guests.Share(**daxd.share())]))
            if not report.conditions:
                report.conditions = {**bench.conditions(), "daemon": "tests/daxd", "rounds": args.rounds}
            rounds(bench, report, window, groups, Clock(bench.processors(), daxd))
    report.conditions["load at the end"] = f"{os.getloadavg()[0]:.1f}"


@dataclasses.dataclass
class Report:
    """Everything that was measured."""

    times: table.Times
    counts: table.Counts
    conditions: dict = dataclasses.field(default_factory=dict)

    def wrong(self, strict):
        """Whether this driver fails in something, or misses a goal where that is wrong."""
        failed = any(driver == "ours" for _, driver in [*self.times.errors, *self.counts.errors])
        missed = any(line.verdict == "missed" for line in goals.all_lines(self.times, self.counts))
        return failed or self.counts.complaints.get("ours", 0) > 0 or (strict and missed)

    def show(self):
        """Prints it."""
        print()
        for name, value in self.conditions.items():
            print(f"{name}: {value}")
        if self.times.values:
            print("\nper operation: microseconds (medians), and requests that the daemon counted\n")
            print(goals.grid(self.times, self.counts), end="\n\n")
        for driver, complaints in self.counts.complaints.items():
            if complaints:
                print(f"{driver}: {complaints} requests that break the protocol")
        print("\n".join([*goals.summary(self.times, self.counts), *table.failures(self.times)]), flush=True)

    def save(self, path):
        """Saves it as JSON: nanoseconds per operation of each round, counts over all rounds, and goals."""
        met = [dataclasses.asdict(line) for line in goals.all_lines(self.times, self.counts)]
        content = {"conditions": self.conditions, "ns": self.times.values, "counts": self.counts.values, "goals": met}
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def arguments():
    """Parses the arguments."""
    parser = measure.parser_for(__doc__, DRIVERS, "small and few rounds: under three minutes, for an impression")
    parser.add_argument("--rounds", type=int, help="rounds, at least 3 for a verdict without doubt (default: 5; --quick: 2)")
    parser.add_argument("--scale", type=float, help="multiplies operations, not sizes (default: 1, with KVM 4; --quick: half)")
    parser.add_argument("--queues", type=int, default=2, help="request queues (default: 2)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal was missed")
    return measure.parsed(parser, DRIVERS, rounds=(2, 5), small=1 / 2)


def main():
    """Measures, and saves the numbers."""
    args = arguments()
    if args.list:
        measure.show_cases("bench-dax")
        return
    timed = [driver for driver in DRIVERS if driver in args.driver]
    start = time.monotonic()
    report = Report(table.Times(timed), table.Counts(timed))
    try:
        measure.carry_out(args, ROOM, run, report)
    finally:
        say(f"took {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
