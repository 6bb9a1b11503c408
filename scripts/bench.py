#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures this driver beside the kernel's own (C) and virtio-9p, in one guest, in turn.

One guest has a device for each; the modules are loaded in turn, in each round in another order, and each time the same cases
are run on the same directory. Tells medians over the rounds, the ratios of each round with their spread, and, from another
pass with a daemon that counts, requests by opcode and kicks of the queues per operation.

Runs inside the build root: make bench ARGS='--quick --case "read-*"'. Documentation/benchmarks.md tells how to read the result.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import fnmatch
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guest as guests
import images
import kernel as kernels

TOP = kernels.TOP
BENCH = TOP / "tests" / "bench"
sys.path[:0] = [str(BENCH), str(TOP / "tests" / "daxd")]

import table  # noqa: E402
from daxd import Daxd, DaxdError  # noqa: E402

say = kernels.say

IN_TREE = '"/lib/modules/$(uname -r)/kernel/fs/fuse/virtiofs.ko"'
# As much as virtio-9p can carry in one message; caches contents as virtiofs with cache=auto does, names less.
P9_OPTIONS = "msize=512000,cache=readahead"
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
LIKE_VIRTIOFSD = {"minor": 38, "enosys": "GETXATTR,SETXATTR,LISTXATTR,REMOVEXATTR,STATX,TMPFILE,COPY_FILE_RANGE_64"}
# A case that takes longer than this in the guest hangs.
CASE_TIMEOUT = 60
LEAST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Driver:
    """How a driver is loaded, told from the others, mounted and unloaded."""

    load: str
    loaded: str
    mount: str
    unload: str


DRIVERS = {
    "ours": Driver("modprobe virtiofs", "! grep -q '^fuse ' /proc/modules", "mount -t virtiofs {tag} /mnt", "rmmod virtiofs"),
    "C": Driver(
        f"modprobe fuse && insmod {IN_TREE}",
        "grep -q '^fuse ' /proc/modules",
        "mount -t virtiofs {tag} /mnt",
        "rmmod virtiofs fuse",
    ),
    "9p": Driver(
        "modprobe -a 9pnet_virtio 9p",
        "grep -q '^9p ' /proc/modules",
        "mount -t 9p -o trans=virtio,version=9p2000.L,{p9_options} bench-9p /mnt",
        "rmmod 9p 9pnet_virtio 9pnet netfs",
    ),
}


class BenchError(Exception):
    """The bench itself, or a check of what a case left, failed."""


def build_load():
    """Builds the program that runs the cases, and returns its path."""
    target = kernels.CACHE / "target-bench-load"
    target.mkdir(parents=True, exist_ok=True)
    command = ["cargo", "build", "--release", "--locked", "--offline", "--quiet", "--manifest-path", BENCH / "load" / "Cargo.toml"]
    with open(target / "build.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        images.quiet([*command, "--target-dir", target])
    return target / "release" / "load"


class Bench:
    """The directory that is shared, the cases, and the guest in which they run."""

    def __init__(self, args, directory):
        self.args, self.directory = args, Path(directory)
        self.program = build_load()
        listed = (line.split("\t") for line in self.load("list").splitlines())
        known = [(name, group, about) for name, group, about in listed]
        wanted = [case for case in known if any(fnmatch.fnmatch(case[0], pattern) for pattern in args.case)]
        if not wanted:
            raise BenchError(f"no case is named {' or '.join(args.case)}; see --list")
        self.cases = {name: about for name, _, about in wanted}
        self.groups = {}
        for name, group, _ in wanted:
            self.groups.setdefault(group, []).append(name)
        self.guest = self.gate = None
        self.visits = 0
        self.load("assets", self.directory / "assets", args.scale)
        shutil.copy(self.program, self.directory / "load")

    def load(self, *words):
        """Runs a part of the load that belongs on this side."""
        result = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True, check=False)
        if result.returncode:
            raise BenchError(result.stderr.strip() or f"load {words[0]} ended with status {result.returncode}")
        return result.stdout

    def in_guest(self, driver, tag, work, cases):
        """The script for one visit: load, mount, run, unmount, unload."""
        how = DRIVERS[driver]
        mount = how.mount.format(tag=tag, p9_options=self.args.p9_options)
        run = f"/run/load run /mnt/assets /mnt/{work.name} {self.args.scale} --gate {self.gate.device} {' '.join(cases)}"
        steps = [f"{how.load} || exit 90", f"{how.loaded} || exit 91", f"{mount} || exit 92", f"{run}; status=$?"]
        return "\n".join([*steps, "umount /mnt || exit 93", f"{how.unload} || exit 94", "exit $status"])

    def prepare(self, cases):
        """A new directory for one visit, with what its cases start from."""
        self.visits += 1
        work = self.directory / f"work-{self.visits}"
        self.load("prepare", work, self.args.scale, *cases)
        return work

    def verify(self, driver, work, lines):
        """Checks what the cases that did not fail left, and removes it."""
        good = [line["case"] for line in lines if "error" not in line]
        try:
            if good:
                self.load("verify", self.directory / "assets", work, self.args.scale, *good)
        except BenchError as error:
            raise BenchError(f"{driver} left something else than was written: {error}") from error
        shutil.rmtree(work)

    def visit(self, driver, tag, cases, begin, end):
        """Runs cases with one driver, calling `begin()` and `end()` where each starts and ends.

        Returns, for each case, what it printed and what `end` returned.
        """
        work = self.prepare(cases)
        process = self.guest.spawn(self.in_guest(driver, tag, work, cases))
        measured = []
        for _ in cases:
            self.gate.wait(process)
            begin()
            self.gate.go()
            self.gate.wait(process)
            measured.append(end())
            self.gate.go()
        result = process.wait(CASE_TIMEOUT)
        if result.rc:
            raise guests.CommandError(self.guest.tell(f"{result}"))
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.verify(driver, work, lines)
        return zip(lines, measured)

    def time_all(self, result, deadline):
        """Rounds of all cases, in which the drivers take turns, as many as are wanted and fit."""
        drivers = list(result.times.drivers)
        clock = Processors([self.guest.qemu, *(share.process for share in self.guest.shares)])
        for number in range(self.args.rounds):
            begin = time.monotonic()
            for group, cases in self.groups.items():
                shown = []
                for turn in range(len(drivers)):
                    driver = drivers[(turn + number) % len(drivers)]
                    start = time.monotonic()
                    for line, cpu in self.visit(driver, f"bench-{result.cache}", cases, clock.begin, clock.end):
                        result.times.add(line["case"], driver, line, cpu)
                    shown.append(f"{driver} {time.monotonic() - start:.1f} s")
                say(f"cache={result.cache}, round {number + 1} of {self.args.rounds}, {group}: {', '.join(shown)}")
            result.rounds = number + 1
            now = time.monotonic()
            if LEAST_ROUNDS <= result.rounds < self.args.rounds and now + (now - begin) > deadline:
                say(f"no time for more than {result.rounds} rounds")
                return
            if "9p" in drivers[1:] and now + (now - begin) * (LEAST_ROUNDS - result.rounds) > deadline:
                say("no time for 9p in the rounds that follow")
                drivers.remove("9p")

    def count_all(self, result, daxd):
        """Counts all cases with each virtiofs driver."""
        for driver in result.counts.drivers:
            for group, cases in self.groups.items():
                start = time.monotonic()
                for line, counters in self.visit(driver, daxd.tag, cases, daxd.reset_counters, lambda: settled(daxd)):
                    result.counts.add(line["case"], driver, line, counters)
                say(f"cache={result.cache}, counting, {group}: {driver} {time.monotonic() - start:.1f} s")


class Gate:
    """A serial port of the guest through which the load says where a case starts and ends, and waits.

    Nothing else runs in the guest meanwhile: asking the guest's agent whether a command has ended would disturb it.
    """

    NAME = "bench.gate"

    def __init__(self, directory):
        self.path = Path(directory) / "gate"
        self.qemu_args = ["-chardev", f"socket,id=gate,path={self.path},server=on,wait=off"]
        self.qemu_args += ["-device", f"virtserialport,chardev=gate,name={self.NAME}"]
        self.socket = socket.socket(socket.AF_UNIX)
        self.device = None

    def open(self, guest):
        """Connects, and finds the port's name in the guest."""
        self.socket.connect(str(self.path))
        self.socket.settimeout(5)
        name = guest.out(f"grep -lx {self.NAME} /sys/class/virtio-ports/*/name")
        self.device = f"/dev/{Path(name).parent.name}"

    def wait(self, process):
        """Waits until the load has reached a start or an end; raises when it has ended instead."""
        deadline = time.monotonic() + CASE_TIMEOUT * process.guest.patience
        while True:
            try:
                if self.socket.recv(1):
                    return
                raise guests.GuestError(process.guest.tell("the guest's port was closed"))
            except TimeoutError:
                if process.poll():
                    raise guests.CommandError(process.guest.tell(f"{process.result}")) from None
                if time.monotonic() > deadline:
                    raise guests.CommandTimeout(process.guest.tell(f"takes too long: {process.command}")) from None

    def go(self):
        """Lets the load go on."""
        self.socket.sendall(b"g")


class Processors:
    """The time that processes and all their threads spend on this machine's processors."""

    def __init__(self, processes):
        # As clock_getcpuclockid(3) makes it.
        self.clocks = [(~process.pid << 3) | 2 for process in processes]
        self.begun = 0.0

    def now(self):
        """Seconds so far."""
        return sum(time.clock_gettime(clock) for clock in self.clocks)

    def begin(self):
        """Starts to measure."""
        self.begun = self.now()

    def end(self):
        """Seconds since `begin`."""
        return self.now() - self.begun


def settled(daxd):
    """The daemon's counters, when nothing is on its way any more."""
    before = None
    while True:
        now = daxd.counters()
        if before is not None and now["requests"] == before["requests"] and not now["in_flight"]:
            return now
        before = now
        time.sleep(0.03)


def conditions(bench, args):
    """Under which conditions this was measured."""
    commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    version = subprocess.run([guests.VIRTIOFSD, "--version"], capture_output=True, text=True, check=True)
    emulator = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    processor = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "host": f"{processor.group(1) if processor else 'unknown processor'}, {os.cpu_count()} processors",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "guest": f"{args.kernel} kernel {bench.guest.out('uname -r')}, {args.cpus} processors, {args.memory}",
        "emulator": f"{emulator.stdout.splitlines()[0]}, {guests.accelerator()[1]}",
        "daemon": f"{version.stdout.strip()} {' '.join(['--cache=' + '|'.join(args.cache), *args.daemon_arg])}",
        "queues": f"{args.queues} of {args.queue_size}",
        "9p": args.p9_options,
        "directory": file_system(bench.directory),
        "scale": args.scale,
    }


def file_system(directory):
    """The kind of filesystem that a directory is on."""
    result = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def shares_of(args, directory, counted):
    """The devices for each cache mode: the shares, and of these the daemons that count, by cache mode."""
    shares, daxds = [], {}
    options = {"queues": args.queues, "queue_size": args.queue_size}
    for cache in args.cache:
        arguments = [f"--cache={cache}", *args.daemon_arg]
        shares.append(guests.Share(directory, f"bench-{cache}", daemon_args=arguments, **options))
        if counted:
            daxds[cache] = Daxd(directory, tag=f"count-{cache}", **options, **LIKE_VIRTIOFSD, **COUNTING[cache])
            shares.append(guests.Share(**daxds[cache].share()))
    return shares, daxds


def run(args, directory, report):
    """Measures, and puts everything into the report as soon as it is known."""
    end = time.monotonic() + args.minutes * 60
    bench = Bench(args, directory)
    timed = [driver for driver in DRIVERS if driver in args.driver]
    counted = [driver for driver in timed if driver != "9p"] if args.count else []
    shares, daxds = shares_of(args, directory, counted)
    p9 = ["-fsdev", f"local,id=p9,path={directory},security_model=passthrough,multidevs=remap"]
    p9 += ["-device", "virtio-9p-pci,fsdev=p9,mount_tag=bench-9p"]
    machine = {"kernel": args.kernel, "cpus": args.cpus, "memory": args.memory, "append": args.append}
    with contextlib.ExitStack() as stack:
        for daxd in daxds.values():
            stack.enter_context(daxd)
        bench.gate = Gate(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/run")))
        guest = guests.Guest(shares, name="bench", qemu_args=[*p9, *bench.gate.qemu_args], **machine)
        bench.guest = stack.enter_context(guest)
        report.conditions = conditions(bench, args)
        how = DRIVERS["9p"]
        mount = how.mount.format(p9_options=args.p9_options)
        guest.run(f"{how.load} && {mount} && cp /mnt/load /run/ && umount /mnt && {how.unload}")
        bench.gate.open(guest)
        for number, cache in enumerate(args.cache):
            result = Result(cache, table.Times(timed), table.Counts(counted))
            report.results.append(result)
            if counted:
                bench.count_all(result, daxds[cache])
            if args.time:
                now = time.monotonic()
                bench.time_all(result, now + (end - now) / (len(args.cache) - number))
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


def place(args):
    """Where the shared directory is made: in memory where there is room, so that no disk is measured."""
    if args.directory:
        return args.directory
    memory = Path("/dev/shm")
    if file_system(memory) == "tmpfs" and shutil.disk_usage(memory).free > args.scale * (2 << 30):
        return memory
    return kernels.CACHE


def arguments():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and few rounds: under two minutes, for an impression")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only cases named so (with * and ?); may be repeated")
    parser.add_argument("--driver", action="append", choices=DRIVERS, help="only this driver; may be repeated")
    parser.add_argument("--cache", action="append", choices=COUNTING, help="the daemon's mode (default: auto); may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds, at least 3 for a verdict (default: 5; --quick: 3)")
    parser.add_argument("--scale", type=float, help="multiplies operations (default: 1, with KVM 4; --quick: a third)")
    parser.add_argument("--minutes", type=float, default=9, help="no more rounds than fit into this time (default: 9), but 3")
    parser.add_argument("--no-count", dest="count", action="store_false", help="do not count requests")
    parser.add_argument("--no-time", dest="time", action="store_false", help="only count requests")
    parser.add_argument("--queues", type=int, default=1, help="request queues (default: 1)")
    parser.add_argument("--queue-size", type=int, default=1024, help="their size (default: 1024)")
    parser.add_argument("--daemon-arg", action="append", default=[], help="another argument for virtiofsd; may be repeated")
    parser.add_argument("--p9-options", default=P9_OPTIONS, help=f"mount options of 9p (default: {P9_OPTIONS})")
    parser.add_argument("--directory", help="make the shared directory in this one (default: /dev/shm if there is room)")
    parser.add_argument("--json", metavar="FILE", help="also save all numbers here")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when this driver is slower than the C one in some case")
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, default="kata", help="which guest kernel")
    parser.add_argument("--cpus", type=int, default=2, help="virtual processors")
    parser.add_argument("--memory", default="1G", help="the guest's memory")
    parser.add_argument("--append", default="", help="more kernel arguments")
    args = parser.parse_args()
    args.case, args.driver, args.cache = args.case or ["*"], args.driver or list(DRIVERS), args.cache or ["auto"]
    args.rounds = args.rounds or (3 if args.quick else 5)
    # Real processors are quicker: as many operations as under the emulator would take too little time to be measured.
    scale = 4.0 if guests.accelerator()[1] == "kvm" else 1.0
    args.scale = args.scale or (scale / 3 if args.quick else scale)
    return args


def main():
    """Measures, and saves the numbers."""
    args = arguments()
    if args.list:
        for line in subprocess.run([build_load(), "list"], check=True, capture_output=True, text=True).stdout.splitlines():
            name, group, about = line.split("\t")
            print(f"{group:8}{name:24}{about}")
        return
    report, failure = Report(), None
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=place(args)) as directory:
            run(args, directory, report)
    except (guests.GuestError, BenchError, DaxdError, OSError, subprocess.SubprocessError) as error:
        failure = f"FAILED: {error}"
    except KeyboardInterrupt:
        sys.exit(130)
    # What was measured before a failure is worth to be seen, too.
    report.show()
    if args.json:
        report.save(args.json)
    sys.exit(failure or any(result.wrong(args.strict) for result in report.results))


if __name__ == "__main__":
    main()
