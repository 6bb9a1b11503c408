#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the disks that a guest boots from: its root, and the modules for one kernel.

Both are kept in the cache under names made of what they were made from. Runs inside the build root:
scripts/enter scripts/images.py --kernel kata --driver rust
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kernel as kernels

TOP = kernels.TOP
CACHE = kernels.CACHE
say = kernels.say

# What only a machine that people log in to needs.
UNNEEDED = ["dev/*", "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/zoneinfo/*", "var/lib/apt/*"]


@contextlib.contextmanager
def locked(name):
    """Holds a lock in the cache: two builds of one thing wait for each other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def quiet(command, **options):
    """Runs a command; what it prints is shown only when it fails."""
    result = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if result.returncode:
        sys.exit(f"{result.stdout}failed: {' '.join(map(str, command))}")
    return result.stdout


def digest_of(paths, *texts):
    """A short name for the content of files and some texts."""
    total = hashlib.sha256("\0".join(texts).encode())
    for path in sorted(paths):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def make_disk(directory, image):
    """Writes a directory into an ext4 image just big enough for it."""
    used = int(quiet(["du", "-sk", directory]).split()[0])
    files = sum(1 for _ in directory.rglob("*"))
    new = image.with_suffix(".new")
    new.unlink(missing_ok=True)
    # 1 KiB more for each file: its inode and its share of the directory.
    size = f"{int(used * 1.1) + files + 4096}K"
    features = "^has_journal,^resize_inode"
    command = ["mke2fs", "-q", "-t", "ext4", "-O", features, "-m", "0", "-i", "4096", "-E", "root_owner=0:0"]
    quiet([*command, "-d", directory, new, size])
    new.rename(image)


def packages():
    """The packages that guest/packages names."""
    lines = (TOP / "guest" / "packages").read_text(encoding="utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def root_archive():
    """The guest's Debian, as an archive."""
    archive = CACHE / f"guest-debian-{digest_of([], *packages())}.tar"
    if not archive.exists():
        say("making the guest's Debian (half a minute, once)")
        new = archive.with_suffix(".new.tar")
        excluded = [f"--dpkgopt=path-exclude=/{path}" for path in UNNEEDED if path.startswith("usr/share/")]
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            quiet(
                [
                    "mmdebstrap",
                    "--mode=root",
                    "--variant=essential",
                    "--format=tar",
                    '--aptopt=Acquire::Check-Valid-Until "false"',
                    '--aptopt=APT::Install-Recommends "false"',
                    *excluded,
                    f"--include={','.join(packages())}",
                    "trixie",
                    new,
                ],
                env={**os.environ, "TMPDIR": scratch},
            )
        new.rename(archive)
    return archive


def root_image():
    """The disk with the guest's root."""
    extra = TOP / "guest" / "rootfs"
    files = [path for path in extra.rglob("*") if path.is_file()]
    names = [str(path.relative_to(extra)) for path in sorted(files)]
    image = CACHE / f"guest-root-{digest_of([*files, Path(__file__)], *packages(), *names)}.img"
    with locked("guest-root"):
        if not image.exists():
            archive = root_archive()
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                root = Path(scratch) / "root"
                root.mkdir()
                excluded = [f"--exclude=./{path}" for path in UNNEEDED]
                quiet(["tar", "-C", root, "-xf", archive, *excluded])
                shutil.copytree(extra, root, dirs_exist_ok=True)
                (root / "usr/sbin/init").unlink(missing_ok=True)
                (root / "usr/sbin/init").symlink_to("/bin/busybox")
                for path in ("usr/lib/modules", "root", "mnt"):
                    (root / path).mkdir(exist_ok=True)
                make_disk(root, image)
    return image


def kbuild(build, *arguments, source=TOP, output=None):
    """Runs the kernel's build system on this module."""
    where = [f"MO={output}"] if output else []
    command = ["make", "-C", build, f"M={source}", *where, "ARCH=x86_64", "LLVM=1", f"-j{os.cpu_count()}", *arguments]
    return quiet(command)


def build_module(name, build, source=TOP):
    """Builds this module against a guest kernel, apart from other kernels and other checkouts; returns the directory."""
    output = CACHE / f"module-{name}-{digest_of([], str(source))}"
    output.mkdir(exist_ok=True)
    # Objects of another kernel in the same place would be taken for built.
    stamp = output / "kernel"
    key = f"{build}\n{source}\n"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
        shutil.rmtree(output)
        output.mkdir()
        stamp.write_text(key, encoding="utf-8")
    kbuild(build, "modules", source=source, output=output)
    return output


def kernel_modules(build):
    """A directory with the modules that come with the kernel, among them the C driver."""
    stage = CACHE / build.name.replace("kernel-", "modules-", 1)
    if not stage.exists():
        new = stage.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        quiet(["make", "-C", build, "ARCH=x86_64", "LLVM=1", f"INSTALL_MOD_PATH={new}", "modules_install"])
        for link in new.glob("lib/modules/*/build"):
            link.unlink()
        new.rename(stage)
    return stage


def modules_image(name, driver, source=TOP):
    """The disk with the modules for kernel `name`: the kernel's own, and this driver's when it is to be tested."""
    build = kernels.build_kernel(name)
    with locked(f"modules-{name}"):
        stage = kernel_modules(build)
        modules = []
        if driver == "rust":
            output = build_module(name, build, source)
            modules = list(output.glob("*.ko"))
            if not modules:
                sys.exit(f"the build in {output} made no module")
        image = CACHE / f"guest-modules-{name}-{digest_of(modules, build.name, driver)}.img"
        if not image.exists():
            kernels.prune(CACHE.glob(f"guest-modules-{name}-*.img"), keep=24)
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                root = Path(scratch) / "root"
                shutil.copytree(stage, root, symlinks=True)
                if modules:
                    arguments = [f"INSTALL_MOD_PATH={root}", "modules_install"]
                    kbuild(build, *arguments, source=source, output=output)
                make_disk(root / "lib" / "modules", image)
        return image


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, default="kata", help="the modules' kernel")
    parser.add_argument("--driver", choices=["rust", "c"], default="rust", help="with this driver, or only the kernel's")
    args = parser.parse_args()
    print(root_image())
    print(modules_image(args.kernel, args.driver))


if __name__ == "__main__":
    main()
