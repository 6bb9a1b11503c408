# SPDX-License-Identifier: GPL-2.0
"""Submounts: what the host mounts inside the share is a filesystem of its own in the guest (virtiofsd --announce-submounts)."""

import subprocess

import pytest
from guest import Share


@pytest.fixture
def sources(driver):
    """What /proc/mounts shows as the source of the mount and of two submounts: the tag, where the C driver has nothing."""
    return ["tag"] * 3 if driver == "rust" else ["tag", "none", "none"]


@pytest.fixture
def nested(tree):
    """A tree with two filesystems mounted inside it on the host, one within the other."""
    tree.file("file", "outer\n")
    sub = tree / "sub"
    sub.mkdir()
    mounted = []
    for where, text in ((sub, "middle\n"), (sub / "inner", "inner\n")):
        where.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", where], check=True)
        mounted.append(where)
        (where / "file").write_text(text)
    yield tree
    for where in reversed(mounted):
        subprocess.run(["umount", "-l", where], check=True)


def test_submounts_are_automounted(boot, nested, sources):
    """Each submount has a device number of its own, its files, its statfs, and a line in /proc/mounts once it was entered."""
    guest = boot(Share(nested.path, "tag", daemon_args=["--announce-submounts"]))
    guest.mount("tag")
    assert guest.out("cat /mnt/file /mnt/sub/file /mnt/sub/inner/file").split() == ["outer", "middle", "inner"]
    devices = guest.out("stat -c %d /mnt/file /mnt/sub/file /mnt/sub/inner/file").split()
    assert len(set(devices)) == 3
    assert guest.out("findmnt -rno TARGET -t virtiofs").split() == ["/mnt", "/mnt/sub", "/mnt/sub/inner"]
    assert guest.out("sed -n 's/ .*virtiofs.*//p' /proc/mounts").split() == sources
    assert guest.out("stat -c %d /mnt/sub /mnt/sub/inner").split() == devices[1:]
    sizes = guest.out("stat -f -c %b /mnt /mnt/sub").split()
    assert sizes[0] != sizes[1]
    guest.umount(flags="-R")
    guest.mount("tag")
    assert guest.out("cat /mnt/sub/inner/file") == "inner"
    guest.umount(flags="-R")
    guest.unload()


def test_submounts_not_announced(boot, nested):
    """Without the daemon's announcement the whole share is one filesystem."""
    guest = boot(Share(nested.path, "tag", daemon_args=["--no-announce-submounts"]))
    guest.mount("tag")
    assert guest.out("cat /mnt/sub/inner/file") == "inner"
    assert len(set(guest.out("stat -c %d /mnt/file /mnt/sub/file /mnt/sub/inner/file").split())) == 1
    guest.umount()


def test_umount_with_submount_in_use(boot, nested):
    """A lazy umount detaches submounts, too; the module can go when nothing uses them any more."""
    guest = boot(Share(nested.path, "tag", daemon_args=["--announce-submounts"]))
    guest.mount("tag")
    assert guest.out("cat /mnt/sub/file") == "middle"
    guest.umount(flags="-l")
    guest.wait_until(lambda: guest.run("modprobe -r virtiofs", check=False).rc == 0, "the module can go")
