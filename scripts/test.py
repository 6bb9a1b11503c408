#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the tests: of the pure crates on the host, of the module's units in guests, of the whole in guests.

Each part shows its progress and its count; the last line is the sum. Exit code 1 when anything failed, or when a part has no
test. Runs inside the build root: make test ARGS='--part boot --kernel kata'
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

import guest as guests
import images
import kernel as kernels
import kunit

TOP = kernels.TOP
# A part that takes longer than this hangs. Every case of every file on the debug kernel takes more than an hour under an emulator.
PART_TIMEOUT = 7200
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


def boot_files(kernel, every_file):
    """The files of boot tests that a run takes."""
    files = sorted((TOP / "tests" / "boot").glob("test_*.py"))
    if every_file:
        return files
    if kernel == "debug":
        return [file for file in files if file.name in DEBUG_FILES]
    return [file for file in files if file.name not in LONG_FILES]


def crates():
    """The crates that build and are tested on the host: the pure ones of the module, and the tools of the tests."""
    manifests = [*(TOP / "rust").glob("*/Cargo.toml"), *(TOP / "tests").glob("**/Cargo.toml")]
    return sorted(path.parent for path in manifests)


def cargo_part(crate):
    """Runs a crate's host tests; returns (passed, failed)."""
    command = ["cargo", "test", "--quiet", "--manifest-path", crate / "Cargo.toml", "--target-dir"]
    command.append(kernels.CACHE / "cargo-target" / crate.name)
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=PART_TIMEOUT)
    counts = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed", result.stdout)
    passed, failed = (sum(int(count[index]) for count in counts) for index in (0, 1))
    if result.returncode or not passed:
        print(result.stdout)
        failed = max(failed, 1)
    return passed, failed


def pytest_part(directory):
    """Runs tests that need no guest of this driver; returns (passed, failed)."""
    command = ["pytest", "-q", "-p", "no:cacheprovider", directory]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=PART_TIMEOUT)
    passed, failed = (sum(map(int, re.findall(rf"(\d+) (?:{word})", result.stdout))) for word in ("passed", "failed|error"))
    if result.returncode or not passed:
        print(result.stdout)
        failed = max(failed, 1)
    return passed, failed


def kunit_part(kernel):
    """Runs the KUnit suites in a guest; returns (passed, failed)."""
    try:
        passed, failed, report = kunit.run(kernel)
    except guests.GuestError as error:
        print(error)
        return 0, 1
    if failed:
        print(report)
    return passed, failed


def boot_part(kernel, driver, jobs, files, more):
    """Runs the boot tests; returns (passed, failed)."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results.xml"
        command = ["pytest", *files, f"--kernel={kernel}", f"--driver={driver}", f"--junit-xml={results}"]
        command += ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 else []
        code = subprocess.run([*command, *more], check=False, timeout=PART_TIMEOUT).returncode
        if not results.exists():
            return 0, 1
        suite = xml.etree.ElementTree.parse(results).getroot().find("testsuite")
    total, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    # Nothing collected is no success.
    return total - failed - skipped, max(failed, int(code != 0), int(total == 0))


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=["host", "kunit", "boot"], help="only this part; may be repeated")
    parser.add_argument("--kernel", action="append", choices=kernels.FRAGMENTS, help="only this kernel; may be repeated")
    parser.add_argument("--driver", choices=["rust", "c"], default="rust", help="boot tests with the kernel's own driver (c)")
    parser.add_argument("--every-file", action="store_true", help="all files of boot tests, on both kernels")
    parser.add_argument("--jobs", type=int, default=2, help="guests at a time")
    parser.add_argument("pytest", nargs="*", help="arguments for the boot tests, after --")
    args = parser.parse_args()
    parts = args.part or ["host", "kunit", "boot"]
    plan = []
    if "host" in parts:
        plan += [(f"host tests of {crate.name}", cargo_part, (crate,)) for crate in crates()]
        plan += [(f"tests of {directory}", pytest_part, (TOP / directory,)) for directory in PYTEST_DIRECTORIES]
    for kernel in args.kernel or ["kata", "debug"]:
        if "kunit" in parts:
            plan.append((f"KUnit on the {kernel} kernel", kunit_part, (kernel,)))
        if "boot" in parts:
            files = boot_files(kernel, args.every_file)
            plan.append((f"boot tests on the {kernel} kernel", boot_part, (kernel, args.driver, args.jobs, files, args.pytest)))
    if {"kunit", "boot"} & set(parts):
        images.root_image()
        for kernel in args.kernel or ["kata", "debug"]:
            images.modules_image(kernel, args.driver)
    total = [0, 0]
    summary = []
    for what, part, arguments in plan:
        kernels.say(what)
        start = time.monotonic()
        passed, failed = part(*arguments)
        summary.append(f"-- {what:<44}{passed:5} passed, {failed:3} failed{time.monotonic() - start:8.1f} s")
        print(summary[-1], flush=True)
        total[0] += passed
        total[1] += failed
    print("\n".join(["", *summary]))
    print(f"{total[0]} passed, {total[1]} failed")
    sys.exit(total[1] > 0 or total[0] == 0)


if __name__ == "__main__":
    main()
