#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds a guest kernel, once for each content of its configuration and each toolchain, and prints its build directory.

Runs inside the build root: scripts/enter scripts/kernel.py kata
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path



def cache():
    """Where all that takes long to make is kept: only the build root has it. Outside of it, a script tells what it does, and no more."""
    if not os.environ.get("VIRTIOFS_CACHE") and not {"-h", "--help"} & {*sys.argv[1:]}:
        sys.exit(f"this runs inside the build root: scripts/enter {shlex.join(sys.argv)}")
    return Path(os.environ.get("VIRTIOFS_CACHE", ""))


TOP = Path(__file__).resolve().parent.parent
CACHE = cache()
TARBALL = Path("/usr/src/linux-source-7.3.tar.xz")
FRAGMENTS = {"kata": ["kata.config"], "debug": ["kata.config", "debug.config"]}
# What the result depends on beside the fragments.
PACKAGES = ["linux-source-7.3", "clang-19", "lld-19", "rustc", "rust-src", "bindgen"]
MAKE = ["make", "ARCH=x86_64", "LLVM=1", "KBUILD_BUILD_USER=virtiofs", "KBUILD_BUILD_HOST=guest"]


def say(text):
    """Prints a line of progress."""
    print("==", text, file=sys.stderr, flush=True)


def prune(paths, keep):
    """Removes all but the newest of some files or directories; others may be doing the same, or have one of them open."""
    aged = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            aged.append((path.stat().st_mtime, path))
    for _, path in sorted(aged)[:-keep]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def version_of(*packages):
    """The versions of installed packages, as one text."""
    return subprocess.run(["dpkg-query", "-W", *packages], check=True, capture_output=True, text=True).stdout


def digest(*texts):
    """A short name for some content."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def unpack_source():
    """The kernel's source directory, unpacked when it is not there."""
    source = CACHE / f"linux-{digest(version_of('linux-source-7.3'))}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "linux.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not source.exists():
            say("unpacking the kernel source")
            new = source.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            subprocess.run(["tar", "-C", new, "--strip-components=1", "-xf", TARBALL], check=True)
            new.rename(source)
    return source


def configure(source, build, fragments):
    """Writes build/.config from allnoconfig and the fragments; an option that did not take is an error."""
    wanted = build / "fragments.config"
    wanted.write_text("".join((TOP / "guest" / f).read_text() for f in fragments))
    command = [*MAKE, "-C", source, f"O={build}", f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    have = set((build / ".config").read_text().splitlines())
    lost = [line for line in wanted.read_text().splitlines() if line.startswith("CONFIG_") and line not in have]
    if lost:
        sys.exit("options that did not take (a dependency is missing, or the name changed):\n  " + "\n  ".join(lost))


def run_with_progress(command, log, what, steps):
    """Runs a build; every few seconds a line says how far it is, of about `steps` steps."""
    start = shown = time.monotonic()
    done = 0
    with open(log, "w", encoding="utf-8") as out:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            for line in child.stdout:
                out.write(line)
                done += bool(re.match(r"  [A-Z]", line))
                if time.monotonic() - shown > 20:
                    shown = time.monotonic()
                    say(f"{what}: {done} of about {steps} steps, {shown - start:.0f} s")
    if child.returncode:
        tail = "".join(Path(log).read_text(encoding="utf-8").splitlines(keepends=True)[-30:])
        sys.exit(f"{tail}{what} failed; its log: {log}")


def build_kernel(name):
    """The build directory of the kernel `name`, made when it is not in the cache."""
    fragments = FRAGMENTS[name]
    key = digest(version_of(*PACKAGES), " ".join(MAKE), *((TOP / "guest" / f).read_text() for f in fragments))
    build = CACHE / f"kernel-{name}-{key}"
    ready = build / "ready"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"kernel-{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            start = time.monotonic()
            source = unpack_source()
            build.mkdir(exist_ok=True)
            configure(source, build, fragments)
            say(f"building the {name} kernel (a quarter of an hour on two cores, once)")
            command = [*MAKE, "-C", source, f"O={build}", f"-j{os.cpu_count()}", "bzImage", "modules"]
            run_with_progress(command, build / "build.log", f"{name} kernel", 3300)
            ready.touch()
            say(f"{name} kernel built in {time.monotonic() - start:.0f} s")
    return build


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FRAGMENTS, help="which configuration of guest/")
    parser.add_argument("--configure-only", action="store_true", help="make and check the configuration, build nothing")
    args = parser.parse_args()
    if args.configure_only:
        build = CACHE / f"configure-{args.name}"
        build.mkdir(parents=True, exist_ok=True)
        configure(unpack_source(), build, FRAGMENTS[args.name])
        print(build)
        return
    print(build_kernel(args.name))


if __name__ == "__main__":
    main()
