# SPDX-License-Identifier: GPL-2.0
"""What the benches share: a guest in which the load's cases are run, with one driver after the other.

A visit is: the modules of one driver are loaded, its device is mounted, cases are run, and it is unmounted and unloaded. At the
start and at the end of each case the load waits at a gate, so that the host can read clocks and counters at these moments.
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

from daxd import DaxdError  # noqa: E402

IN_TREE = '"/lib/modules/$(uname -r)/kernel/fs/fuse/virtiofs.ko"'
# As much as virtio-9p can carry in one message; caches contents as virtiofs with cache=auto does, names less.
P9_OPTIONS = "msize=512000,cache=readahead"
P9_TAG = "bench-9p"
# What the daemon that counts is told so that it answers as virtiofsd does.
LIKE_VIRTIOFSD = {"minor": 38, "enosys": "GETXATTR,SETXATTR,LISTXATTR,REMOVEXATTR,STATX,TMPFILE,COPY_FILE_RANGE_64"}
# A case that takes longer than this in the guest hangs.
CASE_TIMEOUT = 60


@dataclasses.dataclass(frozen=True)
class Driver:
    """How a driver is loaded, told from the others, mounted and unloaded, and what the load is told when it runs with it."""

    load: str
    loaded: str
    mount: str
    unload: str
    run: str = ""


OURS = Driver("modprobe virtiofs", "! grep -q '^fuse ' /proc/modules", "mount -t virtiofs {tag} /mnt", "rmmod virtiofs")
C = Driver(
    f"modprobe fuse && insmod {IN_TREE}",
    "grep -q '^fuse ' /proc/modules",
    "mount -t virtiofs {tag} /mnt",
    "rmmod virtiofs fuse",
)


def p9(options=P9_OPTIONS):
    """The driver of virtio-9p with mount options."""
    return Driver(
        "modprobe -a 9pnet_virtio 9p",
        "grep -q '^9p ' /proc/modules",
        f"mount -t 9p -o trans=virtio,version=9p2000.L,{options} {P9_TAG} /mnt",
        "rmmod 9p 9pnet_virtio 9pnet netfs",
    )


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


def listed(suite):
    """The cases of a suite: name, group, number of threads, and what they are about."""
    result = subprocess.run([build_load(), "list", suite], check=True, capture_output=True, text=True)
    return [tuple(line.split("\t")) for line in result.stdout.splitlines()]


class Bench:
    """The directory that is shared, the cases of a suite, and the guest in which they run with `drivers`, by name.

    A visit has one mount, or, with `mount_each`, one for each case.
    """

    def __init__(self, args, directory, drivers, suite, mount_each=False):
        self.args, self.directory, self.drivers, self.mount_each = args, Path(directory), drivers, mount_each
        self.program = build_load()
        wanted = [case for case in listed(suite) if any(fnmatch.fnmatch(case[0], pattern) for pattern in args.case)]
        if not wanted:
            raise BenchError(f"no case is named {' or '.join(args.case)}; see --list")
        self.cases = {name: about for name, _, _, about in wanted}
        self.alone = {name for name, _, threads, _ in wanted if threads == "1"}
        self.processor = 0
        self.groups = {}
        for name, group, _, _ in wanted:
            self.groups.setdefault(group, []).append(name)
        self.guest = self.gate = None
        self.visits = 0
        self.load("assets", self.directory / "assets", args.scale, *self.cases)
        shutil.copy(self.program, self.directory / "load")

    def load(self, *words):
        """Runs a part of the load that belongs on this side."""
        result = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True, check=False)
        if result.returncode:
            raise BenchError(result.stderr.strip() or f"load {words[0]} ended with status {result.returncode}")
        return result.stdout

    @contextlib.contextmanager
    def booted(self, shares):
        """Runs a guest with these shares, and virtio-9p, through which it gets the load."""
        args = self.args
        machine = {"kernel": args.kernel, "cpus": args.cpus, "memory": args.memory, "append": args.append}
        machine["counting"] = args.instructions
        shared = ["-fsdev", f"local,id=p9,path={self.directory},security_model=passthrough,multidevs=remap"]
        shared += ["-device", f"virtio-9p-pci,fsdev=p9,mount_tag={P9_TAG}"]
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/run") as place:
            self.gate = Gate(place)
            with guests.Guest(shares, name="bench", qemu_args=[*shared, *self.gate.qemu_args], **machine) as guest:
                self.guest = guest
                how = p9()
                guest.run(f"{how.load} && {how.mount} && cp /mnt/load /run/ && umount /mnt && {how.unload}")
                self.gate.open(guest)
                yield guest

    def in_guest(self, driver, tag, work, scale, cases):
        """The script for one visit: load, mount, run, unmount, unload.

        A case of one thread stays on the round's processor: interrupts come to one of them, and whoever waits for them on another one waits
        longer, with any driver. Without that it would depend on the commands before it where it runs.
        """
        how = self.drivers[driver]
        run = f"/run/load run /mnt/assets /mnt/{work.name} {scale} --gate {self.gate.device} {how.run}"
        steps = [f"{how.load} || exit 90", f"{how.loaded} || exit 91", "status=0"]
        where = {case: f"taskset -c {self.processor}" if case in self.alone else "" for case in cases}
        runs = [f"{where[case]} {run} {case} || status=$?" for case in cases]
        for mounted in [[each] for each in runs] if self.mount_each else [runs]:
            steps += [f"{how.mount.format(tag=tag)} || exit 92", *mounted, "umount /mnt || exit 93"]
        return "\n".join([*steps, f"{how.unload} || exit 94", "exit $status"])

    def prepare(self, scale, cases):
        """A new directory for one visit, with what its cases start from."""
        self.visits += 1
        work = self.directory / f"work-{self.visits}"
        self.load("prepare", work, scale, *cases)
        return work

    def verify(self, driver, work, scale, lines):
        """Checks what the cases that did not fail left, and removes it."""
        good = [line["case"] for line in lines if "error" not in line]
        try:
            if good:
                self.load("verify", self.directory / "assets", work, scale, *good)
        except BenchError as error:
            raise BenchError(f"{driver} left something else than was written: {error}") from error
        shutil.rmtree(work)

    def visit(self, driver, tag, cases, begin, end, share=1.0):
        """Runs cases with one driver, a share of their operations, calling `begin()` and `end()` where each starts and ends.

        Returns, for each case, what it printed and what `end` returned.
        """
        scale = self.args.scale * share
        work = self.prepare(scale, cases)
        process = self.guest.spawn(self.in_guest(driver, tag, work, scale, cases))
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
        self.verify(driver, work, scale, lines)
        return zip(lines, measured)

    def turns(self, number, groups, visit):
        """Calls `visit(driver, cases)` for each of groups of (name, cases, drivers), in each round in another order and on another
        processor of the guest.

        Yields group by group how long it took.
        """
        self.processor = number % self.args.cpus
        for group, cases, drivers in groups:
            shown = []
            for turn in range(len(drivers)):
                driver = drivers[(turn + number) % len(drivers)]
                start = time.monotonic()
                visit(driver, cases)
                shown.append(f"{driver} {time.monotonic() - start:.1f} s")
            yield group, ", ".join(shown)

    def processors(self):
        """The clock of the emulator and the daemons."""
        return Processors([self.guest.qemu, *(share.process for share in self.guest.shares)])

    def conditions(self):
        """Under which conditions this is measured, as far as all benches have them."""
        args = self.args
        commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        emulator = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
        processor = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        return {
            "commit": commit.stdout.strip() or "unknown",
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "host": f"{processor.group(1) if processor else 'unknown processor'}, {os.cpu_count()} processors",
            "load at the start": f"{os.getloadavg()[0]:.1f}",
            "guest": f"{args.kernel} kernel {self.guest.out('uname -r')}, {args.cpus} processors, {args.memory}",
            "emulator": f"{emulator.stdout.splitlines()[0]}, {guests.accelerator(args.instructions)[1]}",
            "clock": "instructions, a nanosecond each" if args.instructions else "time",
            "queues": f"{args.queues} of {args.queue_size}",
            "directory": file_system(self.directory),
            "scale": args.scale,
        }


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


def file_system(directory):
    """The kind of filesystem that a directory is on."""
    result = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def place(args, room):
    """Where the shared directory is made: in memory where there is so much room, so that no disk is measured."""
    if args.directory:
        return args.directory
    memory = Path("/dev/shm")
    if file_system(memory) == "tmpfs" and shutil.disk_usage(memory).free > room:
        return memory
    return kernels.CACHE


def parser_for(document, drivers, quick):
    """A parser with the arguments that all benches have; `quick` says what --quick does."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only cases named so (with * and ?); may be repeated")
    parser.add_argument("--driver", action="append", choices=drivers, help="only this driver; may be repeated")
    parser.add_argument("--queue-size", type=int, default=1024, help="the size of a queue (default: 1024)")
    parser.add_argument("--directory", help="make the shared directory in this one (default: /dev/shm if there is room)")
    parser.add_argument("--json", metavar="FILE", help="also save all numbers here")
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, default="kata", help="which guest kernel")
    parser.add_argument("--cpus", type=int, default=2, help="virtual processors")
    parser.add_argument("--memory", default="1G", help="the guest's memory")
    parser.add_argument("--append", default="", help="more kernel arguments")
    what = "the guest's clock counts the instructions that it executes (emulated, one at a time), not what they take"
    parser.add_argument("--instructions", action="store_true", help=what)
    return parser


def parsed(parser, drivers, rounds, small):
    """The arguments, with defaults for what was not said: `rounds` with --quick and without, `small` the scale with --quick."""
    args = parser.parse_args()
    args.case, args.driver = args.case or ["*"], args.driver or list(drivers)
    if args.json:
        try:
            Path(args.json).touch()
        except OSError as error:
            # Rather than after all was measured. What is outside the checkout and /tmp, the build root does not have.
            parser.error(f"--json: {error}")
    args.rounds = args.rounds or rounds[not args.quick]
    # Real processors are quicker: as many operations as under the emulator would take too little time to be measured.
    scale = 4.0 if guests.accelerator(args.instructions)[1] == "kvm" else 1.0
    args.scale = args.scale or (scale * small if args.quick else scale)
    return args


def show_cases(suite):
    """Prints the cases of a suite."""
    for name, group, _, about in listed(suite):
        print(f"{group:8}{name:24}{about}")


def carry_out(args, room, run, report):
    """Measures by `run(args, directory, report)`, and shows and saves the report; ends with the exit code."""
    failure = None
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=place(args, room)) as directory:
            run(args, directory, report)
    except (guests.GuestError, BenchError, DaxdError, OSError, subprocess.SubprocessError) as error:
        failure = f"FAILED: {error}"
    except KeyboardInterrupt:
        sys.exit(130)
    # What was measured before a failure is worth to be seen, too.
    report.show()
    if args.json:
        report.save(args.json)
    sys.exit(failure or report.wrong(args.strict))
