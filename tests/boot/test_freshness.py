# SPDX-License-Identifier: GPL-2.0
"""Attributes that are known already: what becomes of them when the host changes a file, and replies come in another order."""

import os

import pytest

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}

# statx(2) that asks the daemon however good the attributes are; it tells the size.
FORCED = """
import ctypes, os, sys
def forced(path):
    buffer = (ctypes.c_uint64 * 32)()
    if ctypes.CDLL(None).syscall(332, -100, path.encode(), 0x2000, 0x7ff, buffer) < 0:
        raise OSError(0, "statx")
    return buffer[5]
"""


def files(tree):
    """What is shared."""
    tree.file("private/file", "x")


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with attributes that are good for an hour."""
    rig.guest.mount("daxd", "/mnt")
    do(rig, FORCED)
    yield rig
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def as_user(statement):
    """The statement, by a user who is not root."""
    return f"os.seteuid(12345)\ntry:\n    {statement}\nfinally:\n    os.seteuid(0)"


def test_access_granted_on_the_host(mounted):
    """Who was refused by mode and owner gets access as soon as the host grants it, and it is the daemon who is asked once more."""
    hand, private = mounted.hand, mounted.tree / "private"
    private.chmod(0o700)
    (private / "file").chmod(0o600)
    do(mounted, "os.stat('/mnt/private/file')")
    assert hand.do(as_user("os.stat('/mnt/private/file')")) == "EACCES"
    private.chmod(0o755)
    assert hand.do(as_user("os.stat('/mnt/private/file')")) == "OK"
    assert hand.do(as_user("read('/mnt/private/file')")) == "EACCES"
    (private / "file").chmod(0o644)
    assert hand.do(as_user("read('/mnt/private/file')")) == "OK"
    mounted.daxd.reset_counters()
    assert hand.do(as_user("os.close(os.open('/mnt/private/file', os.O_PATH))")) == "OK"
    assert mounted.daxd.count("GETATTR") == 0


def test_older_attributes_come_later(mounted):
    """Of two replies that overtake each other the one that was asked for later counts: a log on the host does not become shorter."""
    mounted.tree.file("log", b"a" * 100)
    do(mounted, "os.stat('/mnt/log')")
    mounted.daxd.hold("GETATTR")
    early = mounted.guest.spawn_python(FORCED + "print(forced('/mnt/log'))")
    mounted.daxd.wait_for_held()
    mounted.daxd.clear_faults()
    mounted.tree.file("log", b"a" * 150)
    assert do(mounted, "forced('/mnt/log')") == 150
    mounted.daxd.release()
    assert early.wait().rc == 0
    assert do(mounted, "os.stat('/mnt/log').st_size") == 150
    assert do(mounted, "read('/mnt/log')") == 150


@pytest.mark.parametrize("flags", ["", "-AUTO_INVAL_DATA"], ids=["times-matter", "sizes-alone"])
def test_growth_on_the_host(rig, flags):
    """What the host appends to a file of which the guest has the end in its page cache is read, whatever the daemon wants of times."""
    rig.tree.file("log", b"a" * 100)
    rig.daxd.configure(init_flags=flags, attr_timeout=0)
    rig.guest.mount("daxd", "/mnt")
    do(rig, "fd = os.open('/mnt/log', os.O_RDONLY)")
    assert do(rig, "len(os.pread(fd, 4096, 0))") == 100
    with open(rig.tree / "log", "ab") as log:
        log.write(b"b" * 50)
    assert do(rig, "os.fstat(fd).st_size") == 150
    assert do(rig, "os.pread(fd, 4096, 0).decode()") == "a" * 100 + "b" * 50
    do(rig, "os.close(fd)")
    rig.guest.umount("/mnt")
    rig.unmounted()


def test_attributes_from_before_an_eviction(mounted):
    """An inode that is new here once more does not take attributes from before what was written to it in its last life."""
    mounted.tree.file("changed/file", b"")
    os.chmod(mounted.tree / "changed", 0o755)
    mounted.daxd.hold("READDIRPLUS")
    lister = mounted.guest.spawn("ls /mnt/changed >/dev/null")
    mounted.daxd.wait_for_held()
    mounted.daxd.clear_faults()
    # Not to be created, which would wait for the listing.
    do(mounted, "fd = os.open('/mnt/changed/file', os.O_WRONLY); os.write(fd, bytes(1000000)); os.close(fd)")
    mounted.daxd.reset_counters()
    mounted.guest.run("echo 3 >/proc/sys/vm/drop_caches")
    mounted.daxd.wait_until(lambda now: now["forget"]["nodes"] > 0, "the file is forgotten")
    mounted.daxd.release()
    assert lister.wait().rc == 0
    assert do(mounted, "os.stat('/mnt/changed/file').st_size") == 1000000
