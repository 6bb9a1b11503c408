#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tells which tests a change needs: by the files that differ from a commit, and by the mutants of these files.

A boot test belongs to a source file if tests/boot/mutants.toml says that it notices a break of that file. A source file without
mutants, and all that every guest is made of, need all boot tests. Prints the choice: scripts/changed.py origin/main
"""

import argparse
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePath

TOP = Path(__file__).resolve().parent.parent
MUTANTS = TOP / "tests" / "boot" / "mutants.toml"
# Tests of what documents and tables say, which any change can make false.
ALWAYS = "tests/docs"
# What the tests of the build are about.
BUILDS = ("Kbuild", "Makefile", "drivers", "rust", "scripts")
# What no guest sees.
APART = ("Documentation", "README.md", "LICENSES", ".gitignore", "tests/docs", "tests/build", "tests/bench")


@dataclass
class Choice:
    """The tests of a change: crates and directories of host tests, files of boot tests (None: all)."""

    crates: set = field(default_factory=set)
    directories: set = field(default_factory=lambda: {ALWAYS})
    boot: set | None = field(default_factory=set)
    module: bool = False

    def boots(self, files):
        """These files of boot tests, too; none means that nothing is known of what belongs here, so all."""
        self.boot = self.boot | set(files) if files and self.boot is not None else None


def changed_files(base):
    """The files that differ from the last common commit with `base`, and those that git does not know yet."""

    def git(*arguments):
        command = ["git", "-c", "safe.directory=*", "-C", TOP, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    (common,) = git("merge-base", base, "HEAD")
    return sorted({*git("diff", "--name-only", common), *git("ls-files", "--others", "--exclude-standard")})


def within(path, *places):
    """Whether a path is one of the places, or below one."""
    return any(PurePath(path).is_relative_to(place) for place in places)


def noticed_by(mutants):
    """For each source file the files of boot tests that its mutants name."""
    files = {}
    for mutant in mutants.values():
        files.setdefault(mutant["file"], set()).update(test.partition("::")[0] for test in mutant["tests"])
    return files


def choose(paths, tested_crates, mutants):
    """The tests that a change of these paths needs."""
    choice = Choice()
    noticed = noticed_by(mutants)
    for path in paths:
        name = PurePath(path).name
        choice.crates |= {crate for crate in tested_crates if within(path, crate)}
        choice.directories |= {directory for directory in ("tests/build", "tests/daxd", "tests/bench") if within(path, directory)}
        if within(path, *BUILDS):
            choice.directories.add("tests/build")
        if within(path, *APART):
            continue
        if within(path, "tests/boot") and name.startswith("test_"):
            choice.boots([name])
        elif within(path, "drivers", "rust"):
            choice.module = True
            choice.boots(noticed.get(path, []))
        elif path == "tests/boot/mutants.toml":
            continue
        else:
            choice.module |= within(path, "tests/kunit", "Kbuild", "guest")
            choice.boots([])
    return choice


def crates():
    """The directories of the crates that build and are tested on the host: the pure ones of the module, and the tools of the tests."""
    manifests = [*(TOP / "rust").glob("*/Cargo.toml"), *(TOP / "tests").glob("**/Cargo.toml")]
    return sorted(str(path.parent.relative_to(TOP)) for path in manifests)


def choice_since(base):
    """The tests that the difference to a commit needs."""
    return choose(changed_files(base), crates(), tomllib.loads(MUTANTS.read_text(encoding="utf-8")))


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="origin/main", help="the commit to compare with (origin/main)")
    args = parser.parse_args()
    choice = choice_since(args.base)
    print("host tests of:", *sorted(choice.crates), *sorted(choice.directories))
    print("KUnit:", "yes" if choice.module else "no")
    print("boot tests:", *(["all"] if choice.boot is None else sorted(choice.boot) or ["none"]))


if __name__ == "__main__":
    main()
