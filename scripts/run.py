#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mounts a directory of this machine in a guest through the driver, and proves that it reads the same there.

Boots a guest, mounts the directory, shows it, reads the whole tree, compares the SHA-256 of every file and the target of every
link with this machine's, unmounts, unloads the driver and powers off. Exit code 1 and the guest log's path when anything
differs, when the kernel reports a fault, or when a step takes too long. Runs inside the build root: make run SHARE=DIR TAG=NAME
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time

import guest as guests
import images
import kernel as kernels
import manifest

# A guest under an emulator reads a few hundred files a second; no tree may take more than this many seconds.
READ_TIMEOUT = 3600


class Phases:
    """Says how long each phase took."""

    def __init__(self):
        self.begin = time.monotonic()

    @contextlib.contextmanager
    def __call__(self, what):
        start = time.monotonic()
        yield
        self.line(what, time.monotonic() - start)

    def line(self, what, seconds):
        """One line for one phase."""
        print(f"-- {what:<44}{seconds:7.1f} s", flush=True)

    def total(self):
        """Seconds since the first phase."""
        return time.monotonic() - self.begin


def read_in_guest(guest, where, count):
    """The manifest of a directory of `count` entries in the guest; a line of progress now and then."""
    # The daemon holds a file open for each inode that the guest knows, and may not hold more than this.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2
    forget = ["--forget-every", limit // 2] if count > limit else []
    script = (kernels.TOP / "scripts" / "manifest.py").read_text(encoding="utf-8")
    process = guest.spawn_python(script, "--jobs", 4, *forget, where)
    deadline = shown = time.monotonic()
    deadline += READ_TIMEOUT
    while not process.poll():
        if time.monotonic() > deadline:
            raise guests.CommandTimeout(guest.tell(f"reading the tree took more than {READ_TIMEOUT} s"))
        time.sleep(0.1)
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            kernels.say(f"reading in the guest, {READ_TIMEOUT - (deadline - shown):.0f} s")
    result = process.result
    if result.rc:
        raise guests.CommandError(guest.tell(f"reading the tree failed:\n{result.stderr[-3000:]}"))
    return [json.loads(line) for line in result.stdout.splitlines()]


def differences(host, guest):
    """The names whose entries differ, with what each side has."""
    here = {entry[0]: entry[1:] for entry in host}
    there = {entry[0]: entry[1:] for entry in guest}
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return [f"{name!r}: host {here.get(name, 'nothing')}, guest {there.get(name, 'nothing')}" for name in names]


def default_share():
    """A tree of real files: the documentation that comes with the guest kernel's source."""
    return kernels.unpack_source() / "Documentation"


def shell(args, share):
    """An interactive guest with the share mounted; ends when its shell ends."""
    with guests.Guest([share], name="shell", shell=True, **args) as guest:
        size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
        # A console has no size of its own.
        guest.put(f"cols {size.columns} rows {size.lines}\n", "/run/size")
        guest.load()
        guest.mount(share.tag)
        guest.put(f"{os.environ.get('SHARE_NAME', share.directory)} is mounted here; `exit` powers the guest off.\n", "/run/ready")
        guest.qemu.wait()
    print(f"guest log: {guest.console_log}")


def run(args, share):
    """The main job; returns the closing line."""
    phase = Phases()
    with phase("guest kernel"):
        kernels.build_kernel(args["kernel"])
    with phase("module and guest disks"):
        images.root_image()
        images.modules_image(args["kernel"], args["driver"])
    with phase("read and hash on the host"):
        host = manifest.manifest(str(share.directory), os.cpu_count())
    with guests.Guest([share], name="run", **args) as guest:
        phase.line("boot", guest.seconds["boot"])
        with phase("load and mount"):
            guest.load()
            guest.mount(share.tag)
        print(guest.out("df -h /mnt | tail -n 1"))
        print(guest.out("mount -t virtiofs"))
        print(guest.out("ls -lAU /mnt | head -n 12"))
        with phase("read and hash in the guest"):
            there = read_in_guest(guest, "/mnt", len(host))
        wrong = differences(host, there)
        if wrong:
            shown = "\n  ".join(wrong[:20])
            raise guests.GuestError(guest.tell(f"{len(wrong)} entries differ:\n  {shown}"))
        with phase("unmount and unload"):
            guest.umount()
            guest.unload()
        start = time.monotonic()
    phase.line("power off", time.monotonic() - start)
    files = [entry for entry in host if entry[1] == "file"]
    links = sum(entry[1] == "link" for entry in host)
    return (
        f"{len(files)} files with {sum(entry[2] for entry in files)} bytes and {links} links compared, all equal,"
        f" in {phase.total():.0f} s; guest log: {guest.console_log}"
    )


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    guests.add_guest_arguments(parser)
    parser.add_argument("--share", default=os.environ.get("SHARE") or None, help="the directory (default: $SHARE, else a "
                        "tree of real files: the kernel's Documentation)")
    parser.add_argument("--tag", default=os.environ.get("TAG") or "kataShared", help="its tag (default: $TAG, else kataShared)")
    parser.add_argument("--shell", action="store_true", help="an interactive shell in the guest instead")
    args = parser.parse_args()
    share = guests.Share(args.share or default_share(), args.tag)
    options = {key: getattr(args, key) for key in ("kernel", "driver", "cpus", "memory", "append")}
    try:
        if args.shell:
            shell(options, share)
        else:
            print(run(options, share))
    except (guests.GuestError, subprocess.SubprocessError, OSError, RuntimeError) as error:
        sys.exit(f"FAILED: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
