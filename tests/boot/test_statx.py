# SPDX-License-Identifier: GPL-2.0
"""statx(2) with a daemon that knows STATX: what getattr cannot tell, and how often it is asked."""

import ctypes
import os
import struct

import pytest

RIG = {"settings": {"attr_timeout": 60, "entry_timeout": 60}}
BTIME = 0x800
FORCE_SYNC, DONT_SYNC = 0x2000, 0x4000

ASK = """
def birth(path, mask, flags=0):
    buffer = ctypes.create_string_buffer(256)
    if libc.syscall(332, -100, path.encode(), flags, mask, buffer) < 0:
        raise OSError(ctypes.get_errno(), "statx")
    mask, attributes = struct.unpack_from("I4xQ", buffer.raw)
    return [mask & 0x800, *struct.unpack_from("qI", buffer.raw, 80), attributes]
"""


def files(tree):
    """What is shared."""
    tree.file("file", "content\n")


def of_host(path):
    """Whether the host's file has a time of birth, which, and its attributes."""
    buffer = ctypes.create_string_buffer(256)
    assert ctypes.CDLL(None).syscall(332, -100, str(path).encode(), 0, BTIME, buffer) == 0
    mask, attributes = struct.unpack_from("I4xQ", buffer.raw)
    return [mask & BTIME, *struct.unpack_from("qI", buffer.raw, 80), attributes]


@pytest.fixture
def asked(rig):
    """Mounts the share; asked(statement) is what it was and how many STATX and GETATTR that took."""
    assert rig.hand.do("import struct") == "OK" and rig.hand.do(ASK) == "OK"

    def ask(statement):
        rig.daxd.reset_counters()
        assert rig.hand.do(statement) == "OK", statement
        return rig.hand.value, rig.daxd.count("STATX"), rig.daxd.count("GETATTR")

    yield ask
    rig.guest.umount()
    if rig.options["driver"] == "rust":
        rig.unmounted()


def test_birth(rig, asked):
    """The time of birth and the attributes are the host's, asked for by whoever wants them, and by nobody else."""
    rig.guest.mount("daxd")
    host = of_host(rig.tree / "file")
    assert host[0], "the host's filesystem has no times of birth"
    asked("os.stat('/mnt/file')")
    assert asked("os.stat('/mnt/file').st_size") == (8, 0, 0)
    assert asked(f"birth('/mnt/file', {BTIME})") == (host, 1, 0)
    assert asked(f"birth('/mnt/file', 0x7ff, {DONT_SYNC})")[1:] == (0, 0)
    assert sum(asked(f"birth('/mnt/file', 0x7ff, {FORCE_SYNC})")[1:]) == 1


def test_daemon_without(rig, asked):
    """A daemon without STATX is asked once; there is no time of birth then."""
    rig.daxd.configure(enosys="STATX")
    rig.guest.mount("daxd")
    asked("os.stat('/mnt/file')")
    value, statx, _ = asked(f"birth('/mnt/file', {BTIME})")
    assert (value[0], statx) == (0, 1)
    value, statx, _ = asked(f"birth('/mnt/file', {BTIME})")
    assert (value[0], statx) == (0, 0)


def test_time_of_access(rig, asked):
    """Who reads contents sees in stat(2) what the host makes of it, asked for once; what the cache has the host does not learn of."""
    os.utime(rig.tree / "file", ns=(1, 10**18))
    rig.daxd.configure(open_flags="KEEP_CACHE")
    rig.guest.mount("daxd")
    asked("os.stat('/mnt/file')")
    assert asked("os.stat('/mnt/file').st_atime_ns") == (1, 0, 0)
    for how in ("read", "read_direct"):
        # What is read before it has been read is not written down there.
        os.utime(rig.tree / "file", ns=(1, 10**18))
        asked(f"{how}('/mnt/file')")
        seen, _, getattrs = asked("os.stat('/mnt/file').st_atime_ns")
        assert seen == os.stat(rig.tree / "file").st_atime_ns > 1 and getattrs == 1
        assert asked("os.stat('/mnt/file').st_atime_ns") == (seen, 0, 0)
    assert asked("read('/mnt/file')") == (8, 0, 0)
    assert asked("os.stat('/mnt/file').st_atime_ns") == (seen, 0, 0)
    # Who does not want to know it does not ask.
    asked("read_direct('/mnt/file')")
    assert asked("birth('/mnt/file', 0x200)")[1:] == (0, 0)


@pytest.mark.parametrize("told", [1 << 20, 0, 512, 4096, 5000])
def test_preferred_size(rig, asked, told):
    """The preferred size of an access is the daemon's, as the power of two below; without one it is a page."""
    rig.daxd.set_fault("set", ["LOOKUP", "GETATTR"], fields={"attr.blksize": told})
    rig.guest.mount("daxd")
    expected = 1 << told.bit_length() - 1 if told else 4096
    assert asked("os.stat('/mnt/file').st_blksize")[0] == expected
    assert asked("read('/mnt/file') and os.stat('/mnt/file').st_blksize")[0] == expected


def test_how_current(rig, asked):
    """AT_STATX_FORCE_SYNC asks however good the attributes are, and AT_STATX_DONT_SYNC does not however old they are."""
    rig.guest.mount("daxd")
    asked("os.stat('/mnt/file')")
    assert asked(f"birth('/mnt/file', 0x7df, {FORCE_SYNC})")[1:] == (0, 1)
    rig.daxd.configure(attr_timeout=0)
    asked(f"birth('/mnt/file', 0x7df, {FORCE_SYNC})")
    assert asked(f"birth('/mnt/file', 0x7df, {DONT_SYNC})")[1:] == (0, 0)
    assert asked("birth('/mnt/file', 0x7df)")[1:] == (0, 1)
