# SPDX-License-Identifier: GPL-2.0
"""When a file was modified that is stored to through the window: the host's kernel need not notice."""

import os
import signal

import pytest
from conftest import blocked, kill_while_held

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 3600, "entry_timeout": 3600}}
LONG_AGO = 1000


def files(tree):
    """What is shared."""
    tree.file("file", 2 * MEG)


@pytest.fixture
def share(rig):
    """Mounts the share, where the file is open as `fd` and mapped as `area`, and has been stored to; then it was modified long ago, as
    far as the host knows. That writes nothing back, so that its kernel notices no store."""
    hand = rig.hand.do
    rig.daxd.configure(trace=100, enosys="FSYNC")
    rig.guest.mount("daxd", options="dax=always")
    assert hand("fd = os.open('/mnt/file', os.O_RDWR); area = mmap.mmap(fd, 0); None") == "OK"
    assert hand("os.pwrite(fd, b'before', 0); area[4096] = 1; os.stat('/mnt/file')") == "OK"
    os.utime(rig.tree / "file", (LONG_AGO, LONG_AGO))
    rig.daxd.trace()
    yield hand
    rig.daxd.clear_faults()
    rig.daxd.release()
    hand("del area; os.close(fd)")
    rig.guest.umount()
    rig.unmounted()


def modified(rig):
    """When the file was modified, on the host."""
    return os.stat(rig.tree / "file").st_mtime


WRITE = "os.pwrite(fd, b'after', 0)"
STORE = "area[4096] = 2"
# What makes the host know of what was written, and of what was stored.
LOOKS = {
    "stat": "assert os.stat('/mnt/file').st_mtime > 1000",
    "fstat": "assert os.fstat(fd).st_mtime > 1000",
    "close": "os.close(os.dup(fd))",
    "fsync": "os.fsync(fd)",
    "sync": "os.sync()",
}


@pytest.mark.beyond_c("the host's kernel has to notice")
@pytest.mark.parametrize("look", LOOKS)
def test_written(rig, share, look):
    """A write(2) shows in the time of modification, however often the page was written to before."""
    assert share(WRITE) == "OK"
    assert share(LOOKS[look]) == "OK"
    assert modified(rig) > LONG_AGO
    assert share("os.stat('/mnt/file').st_mtime") == "OK"


@pytest.mark.beyond_c("the host's kernel has to notice")
@pytest.mark.parametrize("look", ["msync", "fsync", "sync"])
def test_stored(rig, share, look):
    """So does what a mapping stores after it was last made read-only: by msync(2), fsync(2) or sync(2). As fdatasync(2), msync(2) does not
    tell the host: who looks does."""
    assert share("area.flush()") == "OK"
    os.utime(rig.tree / "file", (LONG_AGO, LONG_AGO))
    assert share(STORE) == "OK"
    assert share({**LOOKS, "msync": "area.flush(); " + LOOKS["stat"]}[look]) == "OK"
    assert modified(rig) > LONG_AGO


@pytest.mark.beyond_c("the host's kernel has to notice")
def test_stored_after_the_close(rig, share):
    """It shows when the file is released at the latest."""
    before = rig.daxd.count("RELEASE")
    rig.guest.python(
        """
import ctypes, os
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open("/mnt/file", os.O_RDWR)
area = libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 1, fd, ctypes.c_long(0))
os.close(fd)
ctypes.memset(area + 4096, 3, 1)
"""
    )
    rig.guest.wait_until(lambda: rig.daxd.count("RELEASE") > before, "the file is released")
    assert modified(rig) > LONG_AGO


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("change", ["None", "mmap.mmap(fd, 0)[8192]", "os.pread(fd, 10, 0)", "private()"], ids=["nothing", "load", "read", "private"])
def test_nothing_stored(rig, share, change, look):
    """What stores nothing does not modify it, and nothing is asked."""
    assert share("os.fsync(fd); area.flush()") == "OK"
    rig.daxd.trace()
    os.utime(rig.tree / "file", (LONG_AGO, LONG_AGO))
    assert share("def private(): mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)[4096] = 3") == "OK"
    assert share(f"{change}; None") == "OK"
    assert share(LOOKS[look].replace("assert ", "")) == "OK"
    assert modified(rig) == LONG_AGO
    assert "SETATTR" not in [request["opcode"] for request in rig.daxd.trace()]


@pytest.mark.parametrize("change", [WRITE, STORE], ids=["written", "stored"])
@pytest.mark.parametrize("how", ["os.utime(fd, (5, 5))", "os.utime('/mnt/file', (5, 5))"], ids=["fd", "path"])
def test_utimes_is_last(rig, share, change, how):
    """Who sets the time after a store, as rsync(1) and tar(1) do, has the last word."""
    assert share(f"{change}; {how}") == "OK"
    for look in ("os.close(os.dup(fd))", "os.fsync(fd)", "os.sync()", "assert os.stat('/mnt/file').st_mtime == 5"):
        assert share(look) == "OK"
    assert modified(rig) == 5


@pytest.mark.parametrize("killed", [False, True], ids=["waits", "killed"])
@pytest.mark.beyond_c("there is nothing to wait for")
def test_utimes_during_a_look(rig, share, killed):
    """It has it also while the daemon is being told of the store: then it waits, and can be killed."""
    assert share(WRITE) == "OK"
    rig.daxd.hold("SETATTR")
    look = rig.guest.spawn("exec stat /mnt/file")
    rig.daxd.wait_for_held()
    before = rig.daxd.count("SETATTR")
    setter = rig.guest.spawn_python("import os; os.utime('/mnt/file', (5, 5))")
    blocked(rig.guest, setter)
    assert rig.daxd.count("SETATTR") == before
    if killed:
        setter.kill()
        assert setter.wait().rc == 128 + signal.SIGKILL
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert look.wait().rc == 0
    if killed:
        assert modified(rig) > LONG_AGO
    else:
        assert setter.wait().rc == 0
        assert modified(rig) == 5


@pytest.mark.beyond_c("there is nothing to wait for")
def test_two_looks(rig, share):
    """Whoever looks while the daemon is being told of a store sees that it was, and sleeps until then."""
    assert share(WRITE) == "OK"
    rig.daxd.hold("SETATTR")
    looks = [rig.guest.spawn("exec stat -c %Y /mnt/file")]
    rig.daxd.wait_for_held()
    looks += [rig.guest.spawn("exec stat -c %Y /mnt/file") for _ in range(8)]
    for look in looks[1:]:
        blocked(rig.guest, look)
    # They do not wake each other: one that starts takes a few.
    slept = [int(rig.guest.out(f"sed -n 's/^voluntary.*://p' /proc/{look.pid}/status")) for look in looks[1:]]
    assert max(slept) < 100
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert all(int(look.wait().stdout) > LONG_AGO for look in looks)


@pytest.mark.beyond_c("there is nothing that could be killed")
def test_look_that_is_killed(rig, share):
    """If who tells the daemon is killed, the next one does it."""
    assert share(WRITE) == "OK"
    rig.daxd.hold("SETATTR")
    look = rig.guest.spawn("exec stat /mnt/file")
    kill_while_held(rig, look)
    os.utime(rig.tree / "file", (LONG_AGO, LONG_AGO))
    assert share(LOOKS["stat"]) == "OK"
    assert modified(rig) > LONG_AGO


@pytest.mark.beyond_c("it does not ask")
def test_cost(rig, share):
    """A stat(2) after writes is one request, as it was without them; further ones are none."""
    for _ in range(3):
        assert share("[os.pwrite(fd, b'x', 0) for _ in range(10)]; None") == "OK"
        rig.daxd.trace()
        assert share("[os.stat('/mnt/file') for _ in range(10)]; None") == "OK"
        assert len(rig.daxd.trace()) == 1


@pytest.mark.parametrize("look", LOOKS)
def test_refused(rig, share, look):
    """If the daemon refuses, it stays with what the host's kernel knows; nobody gets an error."""
    rig.daxd.set_fault("error", "SETATTR", errno="EPERM")
    done, lines = rig.hand.lines(f"{WRITE}; {LOOKS[look].replace('assert ', '')}")
    assert done == "OK" and not lines


@pytest.mark.beyond_c("the host's kernel has to notice")
def test_cut_that_fails(rig, share):
    """What sets the time, and fails, leaves it to others."""
    assert share(WRITE) == "OK"
    rig.daxd.set_fault("error", "SETATTR", errno="EIO")
    assert share("os.truncate('/mnt/file', 100)") == "EIO"
    rig.daxd.clear_faults()
    assert share(LOOKS["stat"]) == "OK"
    assert modified(rig) > LONG_AGO


@pytest.mark.parametrize("told", [512, 128 << 10])
def test_preferred_size(rig, told):
    """What is stored to a file is written back whatever size of an access the daemon prefers."""
    rig.daxd.set_fault("set", ["LOOKUP", "GETATTR", "SETATTR"], fields={"attr.blksize": told})
    rig.guest.mount("daxd", options="dax=always")
    hand = rig.hand.do
    assert hand("fd = os.open('/mnt/file', os.O_RDWR); area = mmap.mmap(fd, 0); area[4096] = 5; None") == "OK"
    assert hand("area.flush(); os.fsync(fd); os.sync()") == "OK"
    assert (rig.tree / "file").read_bytes()[4096] == 5
    assert hand("area.close(); os.close(fd)") == "OK"
    assert hand("os.stat('/mnt/file').st_blksize") == "OK" and rig.hand.value == told
    rig.daxd.clear_faults()
    rig.guest.umount()
    rig.unmounted()
