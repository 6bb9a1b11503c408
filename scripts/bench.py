#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures this driver beside the kernel's own (C) and virtio-9p, in one guest, in turn.

One guest has a device for each; the modules are loaded in turn, in each round in another order, and each time the same cases
are run on the same directory. Tells medians over the rounds, the ratios of each round with their spread, and, from another
pass with a daemon that counts, requests by opcode, kicks of the queues and bytes per operation.

Runs inside the build root: make bench ARGS='--quick --case "read-*"'. Documentation/benchmarks.md tells how to read the result.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path

import guest as guests
import kernel as kernels
import measure

# These two lie with the tests, where `measure` lets them be found.
import table
from daxd import Daxd

say = kernels.say

# What the counting daemon is told so that it behaves as virtiofsd does in each cache mode.
COUNTING = {
    "auto": {},
    "never": {"entry_timeout": 0, "attr_timeout": 0, "open_flags": "DIRECT_IO"},
    "always": {
        "entry_timeout": 86400,
        "attr_timeout": 86400,
        "open_flags": "KEEP_CACHE",
        "opendir_flags": "KEEP_CACHE,CACHE_DIR",
    },
}
DRIVERS = ("ours", "C", "9p")
LEAST_ROUNDS = 3


def time_all(bench, result, deadline):
    """Rounds of all cases, in which the drivers take turns, as many as are wanted and fit."""
    rounds, tag = bench.args.rounds, f"bench-{result.cache}"
    drivers = list(result.times.drivers)
    clock = bench.processors()

    def visit(driver, cases):
        for line, cpu in bench.visit(driver, tag, cases, clock.begin, clock.end):
            result.times.add(line["case"], driver, line, cpu)

    for number in range(rounds):
        begin = time.monotonic()
        for group, shown in bench.turns(number, [(*group, drivers) for group in bench.groups.items()], visit):
            say(f"cache={result.cache}, round {number + 1} of {rounds}, {group}: {shown}")
        result.rounds = number + 1
        now = time.monotonic()
        if LEAST_ROUNDS <= result.rounds < rounds and now + (now - begin) > deadline:
            say(f"no time for more than {result.rounds} rounds")
            return
        if "9p" in drivers[1:] and now + (now - begin) * (LEAST_ROUNDS - result.rounds) > deadline:
            say("no time for 9p in the rounds that follow")
            drivers.remove("9p")


def count_all(bench, result, daxd):
    """Counts all cases with each virtiofs driver."""

    def visit(driver, cases):
        for line, counters in bench.visit(driver, daxd.tag, cases, daxd.reset_counters, lambda: measure.settled(daxd)):
            result.counts.add(line["case"], driver, line, counters)

    for group, shown in bench.turns(0, [(*group, result.counts.drivers) for group in bench.groups.items()], visit):
        say(f"cache={result.cache}, counting, {group}: {shown}")


def conditions(bench, args):
    """Under which conditions this was measured."""
    version = subprocess.run([guests.VIRTIOFSD, "--version"], capture_output=True, text=True, check=True)
    return {
        **bench.conditions(),
        "daemon": f"{version.stdout.strip()} {' '.join(['--cache=' + '|'.join(args.cache), *args.daemon_arg])}",
        "9p": args.p9_options,
    }


def shares_of(args, directory, counted):
    """The devices for each cache mode: the shares, and of these the daemons that count, by cache mode."""
    shares, daxds = [], {}
    options = {"queues": args.queues, "queue_size": args.queue_size}
    for cache in args.cache:
        arguments = [f"--cache={cache}", *args.daemon_arg]
        shares.append(guests.Share(directory, f"bench-{cache}", daemon_args=arguments, **options))
        if counted:
            modes = {**measure.LIKE_VIRTIOFSD, **COUNTING[cache]}
            if "--writeback" in args.daemon_arg:
                modes["init_flags"] = "+WRITEBACK_CACHE"
            daxds[cache] = Daxd(directory, tag=f"count-{cache}", **options, **modes)
            shares.append(guests.Share(**daxds[cache].share()))
    return shares, daxds


def run(args, directory, report):
    """Measures, and puts everything into the report as soon as it is known."""
    end = time.monotonic() + args.minutes * 60
    drivers = {"ours": measure.OURS, "C": measure.C, "9p": measure.p9(args.p9_options)}
    bench = measure.Bench(args, directory, drivers, "bench")
    timed = [driver for driver in DRIVERS if driver in args.driver]
    counted = [driver for driver in timed if driver != "9p"] if args.count else []
    shares, daxds = shares_of(args, directory, counted)
    with contextlib.ExitStack() as stack:
        for daxd in daxds.values():
            stack.enter_context(daxd)
        stack.enter_context(bench.booted(shares))
        report.conditions = conditions(bench, args)
        for number, cache in enumerate(args.cache):
            result = Result(cache, table.Times(timed), table.Counts(counted))
            report.results.append(result)
            if counted:
                count_all(bench, result, daxds[cache])
            if args.time:
                now = time.monotonic()
                time_all(bench, result, now + (end - now) / (len(args.cache) - number))
    report.conditions["load at the end"] = f"{os.getloadavg()[0]:.1f}"


@dataclasses.dataclass
class Result:
    """What was measured in one cache mode."""

    cache: str
    times: table.Times
    counts: table.Counts
    rounds: int = 0

    def wrong(self, strict):
        """Whether this driver fails in something, or is slower where that is wrong."""
        failed = any(driver == "ours" for _, driver in [*self.times.errors, *self.counts.errors])
        slower = "slower" in self.times.verdicts().values()
        return failed or self.counts.complaints.get("ours", 0) > 0 or (strict and slower)

    def show(self):
        """Prints the tables."""
        if self.rounds:
            print(f"\ncache={self.cache}, {self.rounds} rounds: medians, and ratios (below 1: less)\n\n{self.times.table()}")
        if self.counts.values:
            print(f"\ncache={self.cache}, counted by the daemon\n\n{self.counts.table()}")
        print()
        for driver, complaints in self.counts.complaints.items():
            if complaints:
                print(f"{driver}: {complaints} requests that break the protocol")
        print("\n".join([*self.times.summary(), *self.counts.more(), *table.failures(self.times, self.counts)]), flush=True)


@dataclasses.dataclass
class Report:
    """Everything that was measured."""

    conditions: dict = dataclasses.field(default_factory=dict)
    results: list = dataclasses.field(default_factory=list)

    def show(self):
        """Prints it."""
        print()
        for name, value in self.conditions.items():
            print(f"{name}: {value}")
        for result in self.results:
            result.show()

    def save(self, path):
        """Saves it as JSON: nanoseconds per operation of each round, and counts."""
        results = [
            {"cache": result.cache, "rounds": result.rounds, "ns": result.times.values, "counts": result.counts.values}
            for result in self.results
        ]
        Path(path).write_text(json.dumps({"conditions": self.conditions, "results": results}, indent=1) + "\n", encoding="utf-8")

    def wrong(self, strict):
        """Whether something is wrong with a result."""
        return any(result.wrong(strict) for result in self.results)


def arguments():
    """Parses the arguments."""
    parser = measure.parser_for(__doc__, DRIVERS, "small and few rounds: under two minutes, for an impression")
    parser.add_argument("--cache", action="append", choices=COUNTING, help="the daemon's mode (default: auto); may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds, at least 3 for a verdict (default: 5; --quick: 3)")
    parser.add_argument("--scale", type=float, help="multiplies operations (default: 1, with KVM 4; --quick: a third)")
    parser.add_argument("--minutes", type=float, default=9, help="no more rounds than fit into this time (default: 9), but 3")
    parser.add_argument("--no-count", dest="count", action="store_false", help="do not count requests")
    parser.add_argument("--no-time", dest="time", action="store_false", help="only count requests")
    parser.add_argument("--queues", type=int, default=1, help="request queues (default: 1)")
    parser.add_argument("--daemon-arg", action="append", default=[], help="another argument for virtiofsd; may be repeated")
    parser.add_argument("--p9-options", default=measure.P9_OPTIONS, help=f"mount options of 9p (default: {measure.P9_OPTIONS})")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when this driver is slower than the C one in some case")
    args = measure.parsed(parser, DRIVERS, rounds=(3, 5), small=1 / 3)
    args.cache = args.cache or ["auto"]
    return args


def main():
    """Measures, and saves the numbers."""
    args = arguments()
    if args.list:
        measure.show_cases("bench")
        return
    measure.carry_out(args, args.scale * (2 << 30), run, Report())


if __name__ == "__main__":
    main()
