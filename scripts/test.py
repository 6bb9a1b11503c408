#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the tests: of the pure crates on the host, of the module's units in guests, of the whole in guests.

Each part shows its progress and its count; the last line is the sum. Exit code 1 when anything failed, or when a part has no
test. Runs inside the build root: make test ARGS='--part boot --kernel kata'
"""

import argparse
import concurrent.futures
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

import changed
import guest as guests
import images
import kernel as kernels
import kunit

TOP = kernels.TOP
# A part that takes longer than this hangs. Every case of every file on the debug kernel takes more than an hour under an emulator.
PART_TIMEOUT = 7200
# How long each part took, for the next run to say.
DURATIONS = kernels.CACHE / "test-seconds.json"
# What is tested with pytest beside the driver: what documents and tables say, the build, the daemon of the tests, the tables of the bench.
PYTEST_DIRECTORIES = ("tests/docs", "tests/build", "tests/daxd", "tests/bench")
# What a run leaves out unless it is told --every-file. Of the debug kernel: all but the rounds, the window, what fails, and the files
# whose tests share a guest. Of the others: those that take minutes, or have to keep pace with the limit on log lines.
DEBUG_FILES = [
    "test_dax.py",
    "test_failed_writes.py",
    "test_memory.py",
    "test_names.py",
    "test_namespace.py",
    "test_read.py",
    "test_readdir.py",
    "test_rounds.py",
]
LONG_FILES = ["test_hostile_replies.py", "test_many_files.py", "test_workloads.py"]


def boot_files(kernel, every_file, chosen=None):
    """The files of boot tests that a run takes; of those that a change needs, where `chosen` has them."""
    files = sorted((TOP / "tests" / "boot").glob("test_*.py"))
    if chosen is not None:
        files = [file for file in files if file.name in chosen]
    if every_file:
        return files
    if kernel == "debug":
        return [file for file in files if file.name in DEBUG_FILES]
    return [file for file in files if file.name not in LONG_FILES]


def cargo_part(crate):
    """Runs a crate's host tests; returns (passed, failed, report)."""
    command = ["cargo", "test", "--quiet", "--manifest-path", crate / "Cargo.toml", "--target-dir"]
    command.append(kernels.CACHE / "cargo-target" / crate.name)
    return counted(command, r"test result: \w+\. (\d+) passed", r"passed; (\d+) failed")


def pytest_part(directory):
    """Runs tests that need no guest of this driver; returns (passed, failed, report)."""
    return counted(["pytest", "-q", "-p", "no:cacheprovider", directory], r"(\d+) passed", r"(\d+) (?:failed|error)")


def counted(command, passed, failed):
    """Runs a command whose output counts what passed and failed; the report is empty when nothing failed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=PART_TIMEOUT)
    passed, failed = (sum(map(int, re.findall(pattern, result.stdout))) for pattern in (passed, failed))
    if result.returncode or not passed:
        return passed, max(failed, 1), result.stdout
    return passed, failed, ""


def kunit_part(kernel):
    """Runs the KUnit suites in a guest; returns (passed, failed, report)."""
    try:
        passed, failed, report = kunit.run(kernel)
    except guests.GuestError as error:
        return 0, 1, str(error)
    return passed, failed, report if failed else ""


def boot_part(kernel, driver, jobs, files, more):
    """Runs the boot tests, which show their progress; returns (passed, failed, report)."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results.xml"
        command = ["pytest", *files, f"--kernel={kernel}", f"--driver={driver}", f"--junit-xml={results}"]
        command += ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 else []
        code = subprocess.run([*command, *more], check=False, timeout=PART_TIMEOUT).returncode
        if not results.exists():
            return 0, 1, ""
        suite = xml.etree.ElementTree.parse(results).getroot().find("testsuite")
    total, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    # Nothing collected is no success.
    return total - failed - skipped, max(failed, int(code != 0), int(total == 0)), ""


def plan_of(args):
    """The parts of a run: (those that need no guest of this driver, the others), each of them (what, function, arguments)."""
    parts = args.part or ["host", "kunit", "boot"]
    choice = None
    if args.changed:
        choice = changed.choice_since(args.changed)
    apart, booted = [], []
    if "host" in parts:
        for crate in changed.crates():
            if choice is None or crate in choice.crates:
                apart.append((f"host tests of {Path(crate).name}", cargo_part, (TOP / crate,)))
        for directory in PYTEST_DIRECTORIES:
            if choice is None or directory in choice.directories:
                apart.append((f"tests of {directory}", pytest_part, (TOP / directory,)))
    for kernel in args.kernel or ["kata", "debug"]:
        if "kunit" in parts and (choice is None or choice.module):
            booted.append((f"KUnit on the {kernel} kernel", kunit_part, (kernel,)))
        files = boot_files(kernel, args.every_file, choice.boot if choice else None)
        if "boot" in parts and files:
            what = f"boot tests on the {kernel} kernel{' with the C client' * (args.driver == 'c')}"
            booted.append((what, boot_part, (kernel, args.driver, args.jobs, files, args.pytest)))
    return apart, booted


def timed(part):
    """Runs a part; returns (what, passed, failed, report, seconds)."""
    what, function, arguments = part
    start = time.monotonic()
    return what, *function(*arguments), time.monotonic() - start


def known_seconds():
    """How long each part took when it was last run whole on this machine, by what it is."""
    try:
        return json.loads(DURATIONS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def say_how_long(apart, booted, jobs):
    """Says how long the run will take, by the last one."""
    known = known_seconds()
    unknown = [what for what, *_ in apart + booted if what not in known]
    seconds = sum(known.get(what, 0) for what, *_ in booted) + sum(known.get(what, 0) for what, *_ in apart) / jobs
    text = f"about {max(round(seconds / 60), 1)} min by the last run of each part here"
    if unknown:
        text = "; ".join([text] * bool(seconds) + [f"never run here, so not known: {', '.join(unknown)}"])
    kernels.say(f"{len(apart + booted)} parts, {text}")


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=["host", "kunit", "boot"], help="only this part; may be repeated")
    parser.add_argument("--kernel", action="append", choices=kernels.FRAGMENTS, help="only this kernel; may be repeated")
    parser.add_argument("--driver", choices=["rust", "c"], default="rust", help="boot tests with the kernel's own driver (c)")
    parser.add_argument("--every-file", action="store_true", help="all files of boot tests, on both kernels")
    help_changed = "only what the difference to a commit (origin/main) needs; scripts/changed.py shows it"
    parser.add_argument("--changed", nargs="?", const="origin/main", metavar="BASE", help=help_changed)
    parser.add_argument("--jobs", type=int, default=2, help="guests at a time, and host tests")
    parser.add_argument("pytest", nargs="*", help="arguments for the boot tests, after --")
    args = parser.parse_args()
    apart, booted = plan_of(args)
    if not apart + booted:
        print("nothing to test")
        return
    say_how_long(apart, booted, args.jobs)
    if booted:
        images.root_image()
        for kernel in args.kernel or ["kata", "debug"]:
            images.modules_image(kernel, args.driver)
    known = known_seconds()
    total = [0, 0]
    summary = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for what, passed, failed, report, seconds in itertools.chain(pool.map(timed, apart), map(timed, said(booted))):
            if report:
                print(report)
            summary.append(f"-- {what:<44}{passed:5} passed, {failed:3} failed{seconds:8.1f} s")
            print(summary[-1], flush=True)
            total[0] += passed
            total[1] += failed
            if not (failed or args.changed or args.pytest or args.every_file):
                known[what] = round(seconds)
    new = DURATIONS.with_suffix(".new")
    new.write_text(json.dumps(known, indent=1), encoding="utf-8")
    new.rename(DURATIONS)
    print("\n".join(["", *summary]))
    print(f"{total[0]} passed, {total[1]} failed")
    sys.exit(total[1] > 0 or total[0] == 0)


def said(parts):
    """The parts, each announced when its turn comes."""
    for part in parts:
        kernels.say(part[0])
        yield part


if __name__ == "__main__":
    main()
