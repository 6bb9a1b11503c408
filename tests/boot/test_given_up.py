# SPDX-License-Identifier: GPL-2.0
"""Requests that a killed task leaves at the daemon: the RELEASE of their handle and the FORGET of their inode come after them."""

import pytest
from conftest import blocked

SIZE = 1 << 20

RIG = {}


def files(tree):
    """What is shared."""
    tree.file("file", SIZE)
    tree.file("other", SIZE, seed=1)
    tree.file("dir/one", 1)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with names and attributes that stay good."""
    rig.daxd.configure(attr_timeout=3600, entry_timeout=3600)
    rig.guest.mount("daxd", "/mnt")
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount("/mnt")
    rig.unmounted()


# What is done with an open file: the request that is held, and how many handles are released afterwards.
USES = {
    "read": ("READ", "os.pread(opened('file'), 4096, 0)", 1),
    "read-ahead": ("READ", "os.posix_fadvise(opened('file'), 0, 1 << 20, os.POSIX_FADV_WILLNEED); signal.pause()", 1),
    "direct-read": ("READ", "os.preadv(opened('file', os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)", 1),
    "write": ("WRITE", "os.pwrite(opened('file'), b'x', 0)", 1),
    "direct-write": ("WRITE", "os.pwritev(opened('file', os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)", 1),
    "truncate": ("SETATTR", "os.ftruncate(opened('file'), 8192)", 1),
    "fsync": ("FSYNC", "os.fsync(opened('file'))", 1),
    "copy": ("COPY_FILE_RANGE_64", "os.copy_file_range(opened('file'), opened('other'), 4096, 0, 0)", 2),
    "list": ("READDIRPLUS", "os.listdir(os.open('/mnt/dir', os.O_RDONLY))", 1),
}

OPENED = """
import mmap, os, signal
def opened(name, flags=0):
    return os.open("/mnt/" + name, os.O_RDWR | flags)
"""


NOT_WITH_C = pytest.mark.beyond_c("a task that waits for that cannot be killed")


@pytest.mark.parametrize("use", [pytest.param(use, marks=[NOT_WITH_C] * (use not in ("read", "read-ahead"))) for use in USES])
def test_release_comes_later(mounted, use):
    """A handle is given back when the daemon has answered what was asked through it, though nobody waits for that any more."""
    rig = mounted
    opcode, statement, handles = USES[use]
    rig.daxd.hold(opcode)
    rig.daxd.reset_counters()
    task = rig.guest.spawn_python(OPENED + statement)
    rig.daxd.wait_for_held()
    blocked(rig.guest, task)
    task.kill()
    task.wait()
    released = "RELEASEDIR" if use == "list" else "RELEASE"
    assert rig.daxd.count(released) == 0
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.daxd.wait_for_count(released, handles)


def known(rig):
    """Names of files that the daemon keeps an inode for."""
    return {str(inode["path"]).rsplit("/", 1)[-1] for inode in rig.daxd.live()["inodes"]}


@pytest.mark.beyond_c("a task that waits for GETATTR cannot be killed")
def test_forget_comes_later(mounted):
    """An inode is forgotten when the daemon has answered what was asked of it; others are meanwhile."""
    rig = mounted
    rig.daxd.configure(attr_timeout=0)
    rig.guest.run("stat /mnt/file /mnt/other >/dev/null")
    rig.daxd.hold(["GETATTR", "STATX"])
    task = rig.guest.spawn("exec stat /mnt/file")
    rig.daxd.wait_for_held()
    blocked(rig.guest, task)
    task.kill()
    task.wait()
    rig.daxd.clear_faults()
    rig.guest.run("echo 2 >/proc/sys/vm/drop_caches")
    rig.daxd.wait_until(lambda _: "other" not in known(rig), "the other file is forgotten")
    assert "file" in known(rig)
    rig.daxd.release()
    rig.daxd.wait_until(lambda _: "file" not in known(rig), "the file is forgotten")
