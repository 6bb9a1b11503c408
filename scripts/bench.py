#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures this driver beside the kernel's own (C) and virtio-9p, in one guest, in turn.

One guest has a device for each; the modules are loaded in turn, in each round in another order, and each time the same cases
are run on the same directory. Tells medians over the rounds, the ratios of each round with their spread, and, from another
pass with a daemon that counts, requests by opcode and kicks of the queues per operation.

Runs inside the build root: make bench ARGS='--quick --case "read-*"'. Documentation/benchmarks.md tells how to read the result.
"""

import argparse
import dataclasses
import fcntl
import fnmatch
import json
import os
import re
import shutil
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
from daxd import Daxd  # noqa: E402

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
        f"modprobe fuse && insmod {IN_TREE}", "grep -q '^fuse ' /proc/modules", "mount -t virtiofs {tag} /mnt", "rmmod virtiofs fuse"
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
        self.guest = None
        self.visits = 0
        # How often names that the host has just made are looked up does not depend on the scale; assets are made once.
        self.load("assets", self.directory / "assets", args.scale)
        shutil.copy(self.program, self.directory / "load")

    def load(self, *words):
        """Runs a part of the load that belongs on this side."""
        result = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True, check=False)
        if result.returncode:
            raise BenchError(result.stderr.strip() or f"load {words[0]} ended with status {result.returncode}")
        return result.stdout

    def in_guest(self, driver, tag, work, cases, gate=""):
        """The script for one visit: load, mount, run, unmount, unload."""
        how = DRIVERS[driver]
        mount = how.mount.format(tag=tag, p9_options=self.args.p9_options)
        run = f"/run/load run /mnt/assets /mnt/{work.name} {self.args.scale} {gate} {' '.join(cases)}"
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

    def visit(self, driver, tag, cases):
        """Runs cases with one driver, times them, and returns a dictionary for each."""
        work = self.prepare(cases)
        result = self.guest.run(self.in_guest(driver, tag, work, cases), timeout=CASE_TIMEOUT * len(cases))
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.verify(driver, work, lines)
        return lines

    def count(self, driver, daxd, cases, counts):
        """Runs cases with one driver on the daemon that counts, stopping where each starts and ends."""
        work = self.prepare(cases)
        process = self.guest.spawn(self.in_guest(driver, daxd.tag, work, cases, "--gate /run/gate"))
        wait, go = f"timeout {CASE_TIMEOUT} cat /run/gate/reached", f"timeout {CASE_TIMEOUT} sh -c 'echo >/run/gate/go'"
        self.guest.run(wait, timeout=CASE_TIMEOUT)
        counters = {}
        for number, case in enumerate(cases, 1):
            daxd.reset_counters()
            self.guest.run(f"{go} && {wait}", timeout=2 * CASE_TIMEOUT)
            counters[case] = settled(daxd)
            self.guest.run(go if number == len(cases) else f"{go} && {wait}", timeout=2 * CASE_TIMEOUT)
        result = process.wait(CASE_TIMEOUT)
        if result.rc:
            raise guests.CommandError(self.guest.tell(f"{result}"))
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.verify(driver, work, lines)
        for line in lines:
            counts.add(line["case"], driver, line, counters[line["case"]])
            counts.complaints[driver] = counts.complaints.get(driver, 0) + counters[line["case"]]["complaints"]

    def time_all(self, times, deadline):
        """Rounds of all cases, in which the drivers take turns; returns how many there were."""
        drivers = times.drivers
        for number in range(self.args.rounds):
            begin = time.monotonic()
            for group, cases in self.groups.items():
                shown = []
                for turn in range(len(drivers)):
                    driver = drivers[(turn + number) % len(drivers)]
                    start = time.monotonic()
                    for line in self.visit(driver, f"bench-{times.cache}", cases):
                        times.add(line["case"], driver, line)
                    shown.append(f"{driver} {time.monotonic() - start:.1f} s")
                say(f"cache={times.cache}, round {number + 1} of {self.args.rounds}, {group}: {', '.join(shown)}")
            now = time.monotonic()
            if number + 1 >= LEAST_ROUNDS and number + 1 < self.args.rounds and now + (now - begin) > deadline:
                say(f"no time for more than {number + 1} rounds")
                return number + 1
        return self.args.rounds

    def count_all(self, counts, daxd):
        """Counts all cases with each virtiofs driver."""
        for driver in counts.drivers:
            for group, cases in self.groups.items():
                start = time.monotonic()
                self.count(driver, daxd, cases, counts)
                say(f"cache={counts.cache}, counting, {group}: {driver} {time.monotonic() - start:.1f} s")


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


def run(args, directory):
    """Measures, prints the tables; returns (all that is to be saved, whether something failed)."""
    end = time.monotonic() + args.minutes * 60
    bench = Bench(args, directory)
    timed = [driver for driver in DRIVERS if driver in args.driver]
    counted = [driver for driver in timed if driver != "9p"] if args.count else []
    shares, daxds = [], {}
    for cache in args.cache:
        options = {"queues": args.queues, "queue_size": args.queue_size}
        arguments = [f"--cache={cache}", *args.daemon_arg]
        shares.append(guests.Share(directory, f"bench-{cache}", daemon_args=arguments, **options))
        if counted:
            daxds[cache] = Daxd(directory, tag=f"count-{cache}", **options, **LIKE_VIRTIOFSD, **COUNTING[cache])
            shares.append(guests.Share(**daxds[cache].share()))
    p9 = ["-fsdev", f"local,id=p9,path={directory},security_model=passthrough,multidevs=remap"]
    p9 += ["-device", "virtio-9p-pci,fsdev=p9,mount_tag=bench-9p"]
    machine = {"kernel": args.kernel, "cpus": args.cpus, "memory": args.memory, "append": args.append}
    saved, wrong, tables = {"results": []}, False, []
    with guests.Guest(shares, name="bench", qemu_args=p9, **machine) as guest:
        bench.guest = guest
        saved["conditions"] = conditions(bench, args)
        get_load = DRIVERS["9p"].mount.format(p9_options=args.p9_options)
        guest.run(f"{DRIVERS['9p'].load} && {get_load} && cp /mnt/load /run/ && umount /mnt && {DRIVERS['9p'].unload}")
        guest.run("mkdir /run/gate && mkfifo /run/gate/reached /run/gate/go")
        for number, cache in enumerate(args.cache):
            times, counts = table.Times(timed), table.Counts(counted)
            times.cache = counts.cache = cache
            if counted:
                bench.count_all(counts, daxds[cache])
                daxds[cache].close()
            now = time.monotonic()
            rounds = bench.time_all(times, now + (end - now) / (len(args.cache) - number)) if args.time else 0
            tables.append((cache, rounds, times, counts))
            saved["results"].append(
                {"cache": cache, "rounds": rounds, "ns per operation": times.values, "counts": counts.values}
            )
    saved["conditions"]["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    for daxd in daxds.values():
        daxd.__exit__(None, None, None)
    print()
    for name, value in saved["conditions"].items():
        print(f"{name}: {value}")
    for cache, rounds, times, counts in tables:
        wrong |= show(cache, rounds, times, counts, args)
    return saved, wrong


def show(cache, rounds, times, counts, args):
    """Prints the tables of one cache mode; returns whether something is wrong."""
    if rounds:
        print(f"\ncache={cache}, times, {rounds} rounds: medians; ratios within rounds, below 1 is better\n\n{times.table()}\n")
    if counts.values:
        print(f"\ncache={cache}, counted by the daemon\n\n{counts.table()}\n")
        for driver, complaints in counts.complaints.items():
            if complaints:
                print(f"{driver}: {complaints} requests that break the protocol")
    print("\n".join([*times.summary(), *counts.more(), *times.failures()]), flush=True)
    ours_fails = any(driver == "ours" for _, driver in times.errors) or counts.complaints.get("ours", 0) > 0
    return ours_fails or (args.strict and "slower" in times.verdicts().values())


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
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only cases of this name (with * and ?); may be repeated")
    parser.add_argument("--driver", action="append", choices=DRIVERS, help="only this driver; may be repeated")
    parser.add_argument("--cache", action="append", choices=COUNTING, help="the daemon's cache mode (default: auto); may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds, at least 3 for a verdict (default: 5; --quick: 3)")
    parser.add_argument("--scale", type=float, help="multiplies the operations of each case (default: 1, with KVM 4; --quick: a third)")
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
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=place(args)) as directory:
            saved, wrong = run(args, directory)
    except (guests.GuestError, BenchError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"FAILED: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if args.json:
        Path(args.json).write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
