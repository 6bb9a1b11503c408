#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Proves that tests can fail: breaks the driver in one place after the other, and runs the tests that have to notice.

tests/boot/mutants.toml names the places. A mutant that a test survives, or that no longer fits the source, is a failure. Runs
inside the build root: scripts/enter scripts/mutants.py --only stale-attributes
"""

import argparse
import fcntl
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree
from pathlib import Path

import images
import kernel as kernels

TOP = kernels.TOP
TABLE = TOP / "tests" / "boot" / "mutants.toml"
# Where mutants are built, one after the other, so that each compiles only what it changes.
SCRATCH = images.CACHE / "mutants"
COPIED = ("Kbuild", "Makefile", "drivers", "guest", "rust", "scripts", "tests")


def mutants():
    """The mutants, by name."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def mutated(mutant):
    """The file of a mutant as it is to be; None when what it replaces is not there exactly once."""
    text = (TOP / mutant["file"]).read_text(encoding="utf-8")
    return text.replace(mutant["old"], mutant["new"]) if text.count(mutant["old"]) == 1 else None


def put(path, content):
    """Writes a file if it has another content: what is not touched is not built."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def copy_sources():
    """Makes the scratch directory a copy of this one."""
    sources = [path for name in COPIED for path in [TOP / name, *(TOP / name).rglob("*")] if path.is_file()]
    wanted = {path.relative_to(TOP) for path in sources if not {"target", "__pycache__"} & set(path.parts)}
    for path in [path for path in SCRATCH.rglob("*") if path.is_file()]:
        if path.relative_to(SCRATCH) not in wanted:
            path.unlink()
    for path in wanted:
        put(SCRATCH / path, (TOP / path).read_bytes())
        (SCRATCH / path).chmod((TOP / path).stat().st_mode)


def outcomes(mutant, kernel):
    """Runs the tests of a mutant; for each of them whether it failed. A mutant that is not built or booted has none."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        tests = [SCRATCH / "tests" / "boot" / test for test in mutant["tests"]]
        command = [SCRATCH / "scripts" / "mutants.py", "--pytest", *tests, f"--kernel={kernel}", f"--junit-xml={report}"]
        command += [] if any("[" in test for test in mutant["tests"]) else ["--one-case"]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if not report.exists():
            print(result.stdout[-3000:])
            return {}
        failed = {}
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            name = re.sub(r"\[.*", "", case.get("name"))
            # An error is one of the guest, not of what was tested; but what is found at the end of a test is.
            notes = [note.get("message", "") for note in case if note.tag in ("failure", "error")]
            bad = case.find("failure") is not None or any("on teardown" in note or "kernel reported" in note for note in notes)
            failed[name] = failed.get(name, False) or bad
        if not any(failed.values()):
            print(result.stdout[-3000:])
        return failed


def is_built(kernel):
    """Whether the sources in the scratch directory can be built."""
    command = [SCRATCH / "scripts" / "mutants.py", "--modules", kernel]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def try_mutant(name, mutant, kernel, build_only):
    """Tries one mutant; whether all its tests noticed. What cannot be built proves nothing."""
    start = time.monotonic()
    content = mutated(mutant)
    if content is None:
        print(f"-- {name:<32} STALE: {mutant['file']} does not have its text exactly once", flush=True)
        return False
    place = SCRATCH / mutant["file"]
    try:
        put(place, content.encode())
        if not is_built(kernel):
            verdict, good = "CANNOT BE BUILT", False
        elif build_only:
            verdict, good = "can be built", True
        else:
            failed = outcomes(mutant, kernel)
            names = [re.sub(r".*::|\[.*", "", test) for test in mutant["tests"]]
            survived = [test for test in names if not failed.get(test)]
            verdict, good = (f"SURVIVED {', '.join(survived)}", False) if survived else (f"noticed by {len(names)}", True)
    finally:
        put(place, (TOP / mutant["file"]).read_bytes())
    print(f"-- {name:<32} {verdict}{time.monotonic() - start:8.1f} s", flush=True)
    return good


def unproven():
    """Boot tests that no mutant has to break, and that do not fail with the kernel's own driver either."""
    named = {re.sub(r"\[.*", "", test) for mutant in mutants().values() for test in mutant["tests"]}
    for path in sorted((TOP / "tests" / "boot").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for marks, name in re.findall(r"((?:^@.*\n(?:^[ )\]].*\n)*)*)^def (test_\w+)\(", text, re.M):
            if f"{path.name}::{name}" not in named and "beyond_c" not in marks:
                yield f"{path.name}::{name}"


def run(chosen, kernel, build_only):
    """Tries mutants, one after the other; nobody else uses the scratch directory meanwhile."""
    copy_sources()
    good = [try_mutant(name, mutant, kernel or mutant.get("kernel", "kata"), build_only) for name, mutant in chosen.items()]
    print(f"{sum(good)} {'built' if build_only else 'noticed'}, {len(good) - sum(good)} failed")
    sys.exit(not all(good))


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="only this mutant; may be repeated")
    parser.add_argument("--after", help="only those that come after this mutant")
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, help="the guest's kernel, instead of what the table says, or kata")
    parser.add_argument("--check", action="store_true", help="only look whether each mutant fits the source")
    parser.add_argument("--build", action="store_true", help="only look whether each mutant can be built")
    parser.add_argument("--unproven", action="store_true", help="only list the boot tests that no mutant has to break")
    if sys.argv[1:2] == ["--pytest"]:
        # In the scratch directory, whose tests are to be run, with its modules.
        sys.exit(subprocess.run(["pytest", "-p", "no:cacheprovider", "-q", *sys.argv[2:]], check=False).returncode)
    if sys.argv[1:2] == ["--modules"]:
        images.build_module(sys.argv[2], kernels.build_kernel(sys.argv[2]))
        return
    args = parser.parse_args()
    if args.unproven:
        print("\n".join(unproven()))
        return
    chosen = {name: mutant for name, mutant in mutants().items() if not args.only or name in args.only}
    if args.after:
        names = list(chosen)
        chosen = {name: chosen[name] for name in names[names.index(args.after) + 1 :]}
    if not chosen:
        sys.exit("there is no such mutant")
    if args.check:
        stale = [name for name, mutant in chosen.items() if mutated(mutant) is None]
        sys.exit(f"these do not fit the source any more: {', '.join(stale)}" if stale else 0)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with open(SCRATCH.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(chosen, args.kernel, args.build)


if __name__ == "__main__":
    main()
