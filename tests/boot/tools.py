# SPDX-License-Identifier: GPL-2.0
"""Disks that some tests add to a guest: tools too big for its root, a Debian to install packages into, an empty filesystem."""

import os
import subprocess
import tempfile
from pathlib import Path

import images
import kernel as kernels

# Where guests see the tools, and run them with chroot(8).
TOOLS = "/run/tools"
# Packages that are installed on a share: many small files and links, a library, a program, maintainer scripts.
DEBS = ("tzdata", "libmagic-mgc", "libmagic1t64", "file", "less", "ed")
NO_DOCUMENTATION = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]


def debian(name, packages, variant="essential"):
    """An archive of a Debian with some packages, kept in the cache."""
    archive = kernels.CACHE / f"{name}-{images.digest_of([], variant, *NO_DOCUMENTATION, *packages)}.tar"
    with images.locked(name):
        if not archive.exists():
            kernels.say(f"making {name} (a minute or two, once)")
            new = archive.with_suffix(".new.tar")
            options = ['--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=APT::Install-Recommends "false"', *NO_DOCUMENTATION]
            include = [f"--include={','.join(packages)}"] if packages else []
            with tempfile.TemporaryDirectory(dir=kernels.CACHE) as scratch:
                command = ["mmdebstrap", "--mode=root", f"--variant={variant}", "--format=tar", *options, *include, "trixie", new]
                images.quiet(command, env={**os.environ, "TMPDIR": scratch})
            new.rename(archive)
    return archive


def unpack(archive, directory):
    """Unpacks an archive of a Debian; the guest brings devices of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    images.quiet(["tar", "-C", directory, "--exclude=./dev/*", "--numeric-owner", "-xpf", archive])
    return directory


def tools_image():
    """The read-only disk with the tools."""
    lines = (kernels.TOP / "guest" / "packages.tools").read_text(encoding="utf-8").splitlines()
    names = [name for name in (line.partition("#")[0].strip() for line in lines) if name]
    archive = debian("guest-tools", names)
    image = archive.with_suffix(".img")
    with images.locked("guest-tools-image"):
        if not image.exists():
            with tempfile.TemporaryDirectory(dir=kernels.CACHE) as scratch:
                images.make_disk(unpack(archive, Path(scratch) / "root"), image)
    return image


def debs():
    """A directory with the packages of DEBS."""
    directory = kernels.CACHE / f"guest-debs-{images.digest_of([], *DEBS)}"
    with images.locked("guest-debs"):
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=kernels.CACHE) as scratch:
                archive = debian("guest-base", ["apt"])
                root = unpack(archive, Path(scratch) / "root")
                (root / "debs").mkdir()
                (root / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
                apt = ["chroot", root, "env", "--chdir=/debs", "apt-get", "-qq", "-o", "Acquire::Check-Valid-Until=false"]
                images.quiet([*apt, "-o", "APT::Sandbox::User=root", "update"])
                images.quiet([*apt, "-o", "APT::Sandbox::User=root", "download", *DEBS])
                (root / "debs").rename(directory)
    return directory


def disk(path, directory, size="1G"):
    """Makes an ext4 filesystem with what is in a directory, in a sparse file."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", "-d", directory, path, size], check=True)
    return path


def drive(number, path, readonly=False):
    """The emulator's arguments for one more disk: 0 becomes /dev/vdc."""
    option = f"file={path},format=raw,if=none,id=more{number},file.locking=off,cache=unsafe"
    option += ",readonly=on" if readonly else ""
    return ["-drive", option, "-device", f"virtio-blk-pci,drive=more{number}"]


def use_tools(guest, device="/dev/vdc"):
    """Mounts the tools in a guest, with its devices, and all that is mounted on /mnt and /run/local."""
    binds = " ".join(f"mkdir -p {path}; mount --rbind {path} {TOOLS}{path};" for path in ("/dev", "/proc", "/sys", "/mnt", "/run"))
    guest.run(f"set -e; mkdir -p {TOOLS}; mount -o ro {device} {TOOLS}; {binds} mount -t tmpfs tmpfs {TOOLS}/tmp")


def tool(guest, command, timeout=60.0, check=True, stdin=None):
    """Runs a shell command among the tools."""
    guest.put(command, "/run/command")
    return guest.run(f"exec chroot {TOOLS} sh /run/command", timeout=timeout, check=check, stdin=stdin)
