# SPDX-License-Identifier: GPL-2.0
"""A change of a file's contents that fails, or is given up: what is cached says what the host has, and nothing else is lost by it."""

import hashlib
import struct

import pytest
from conftest import blocked

RIG = {}
PAGE = 4096
SIZE = 3 * PAGE


def files(tree):
    """What is shared."""
    tree.file("file", SIZE)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, as the daemon's files were at first, with attributes and pages that stay good."""
    rig.tree.file("file", SIZE)
    rig.tree.file("other", SIZE, seed=1)
    rig.daxd.configure(open_flags="KEEP_CACHE", attr_timeout=3600, entry_timeout=3600, trace=100)
    rig.guest.mount("daxd", "/mnt")
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.hand.do("[os.close(fd) for fd in list(globals().get('fds', []))]; fds = []; area = None")
    rig.guest.umount("/mnt")
    rig.unmounted()


def on_host(rig, name="file"):
    """The contents on the host."""
    return (rig.tree / name).read_bytes()


def test_refused_truncation(mounted):
    """A file that the daemon refuses to cut is cached and mapped as before: the page at the cut, too."""
    rig, content = mounted, on_host(mounted)
    rig.hand.do("fds = [os.open('/mnt/file', os.O_RDWR)]; area = mmap.mmap(fds[0], 0); before = area[:]")
    rig.daxd.set_fault("error", "SETATTR", errno="EPERM")
    assert rig.hand.do("os.ftruncate(fds[0], 10)") == "EPERM"
    assert rig.hand.do("same = area[:] == before == os.pread(fds[0], 1 << 20, 0)") == "OK"
    assert rig.hand.do("int(same)") == "OK"
    assert rig.hand.value == 1
    # What is written back afterwards has no zeroes either.
    assert rig.hand.do("area[20] = 1; area.flush()") == "OK"
    assert on_host(rig) == content[:20] + b"\1" + content[21:]


@pytest.mark.parametrize("stores", ["before", "after"])
def test_write_fails_beside_a_mapping(mounted, stores):
    """What was stored in a page through a mapping outlives a write(2) to the page that fails."""
    rig, content = mounted, on_host(mounted)
    rig.hand.do("fds = [os.open('/mnt/file', os.O_RDWR)]; area = mmap.mmap(fds[0], 0); before = area[:]")
    if stores == "before":
        rig.hand.do("area[0] = before[0] ^ 1")
    rig.daxd.set_fault("error", "WRITE", errno="ENOSPC", count=1)
    assert rig.hand.do("os.pwrite(fds[0], b'x' * 100, 1000)") == "ENOSPC"
    if stores == "after":
        # Nothing else holds what was not written.
        assert rig.hand.do("int(os.pread(fds[0], 1 << 20, 0) == before == area[:])") == "OK"
        assert rig.hand.value == 1
        rig.hand.do("area[0] = before[0] ^ 1")
    assert rig.hand.do("os.pread(fds[0], 1, 0)[0] ^ before[0]") == "OK"
    assert rig.hand.value == 1
    assert rig.hand.do("area.flush()") == "OK"
    assert on_host(rig)[:1000] == bytes([content[0] ^ 1]) + content[1:1000]
    assert on_host(rig)[PAGE:] == content[PAGE:]


# What is given up after the daemon has done it, and before it has said so: what it asks for, and how it is done.
GIVEN_UP = {
    "append": ("WRITE", "os.pwrite(fd, b'x' * 100, %d)" % SIZE),
    "direct": ("WRITE", "os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)"),
    "punch": ("FALLOCATE", "libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096))"),
    "grow": ("FALLOCATE", "libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(%d))" % (2 * SIZE)),
    "copy": ("COPY_FILE_RANGE_64", "os.copy_file_range(os.open('/mnt/other', os.O_RDONLY), fd, 2 * 4096, 0, 2 * 4096)"),
}

CHANGE = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
fd = os.open("/mnt/file", os.O_RDWR | (os.O_DIRECT if sys.argv[1] == "direct" else 0))
%s
"""


@pytest.mark.parametrize("change", GIVEN_UP)
def test_given_up(mounted, change):
    """Who kills a task that changes a file sees what the daemon has done meanwhile, however good attributes and pages were."""
    rig = mounted
    opcode, how = GIVEN_UP[change]
    # With the attributes after the contents: to know the time of access they would be asked for again.
    rig.hand.do("fds = [os.open('/mnt/file', os.O_RDWR)]; os.pread(fds[0], 1 << 20, 0); os.fstat(fds[0])")
    rig.daxd.hold(opcode)
    task = rig.guest.spawn_python(CHANGE % how, change)
    rig.daxd.wait_for_held()
    blocked(rig.guest, task)
    task.kill()
    task.wait()
    assert len(rig.daxd.held()) == 1
    if change == "append":
        # The page that is being written is locked until the daemon says that it was.
        rig.daxd.release()
    content = on_host(rig)
    assert rig.hand.do("[os.fstat(fds[0]).st_size, hashlib.sha256(os.pread(fds[0], 1 << 20, 0)).hexdigest()]") == "OK"
    assert rig.hand.value == [len(content), hashlib.sha256(content).hexdigest()]


# The mapping is what has the file open last: Python's own would have it open by a descriptor, too.
CLOSE_LATE = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open("/mnt/file", os.O_RDWR)
area = libc.mmap(None, ctypes.c_long(4096), 3, 1, fd, ctypes.c_long(0))
os.close(fd)
first = ctypes.c_ubyte.from_address(area)
first.value ^= 1
libc.munmap(ctypes.c_void_p(area), ctypes.c_long(4096))
"""


def test_killed_while_closing(mounted):
    """A handle through which a killed task's stores are being written back is not given back before they were."""
    rig, content = mounted, on_host(mounted)
    rig.daxd.hold("WRITE")
    task = rig.guest.spawn_python(CLOSE_LATE)
    rig.daxd.wait_for_held()
    blocked(rig.guest, task)
    task.kill()
    task.wait()
    assert rig.daxd.count("RELEASE") == 0
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.daxd.wait_for_count("RELEASE", 1)
    assert on_host(rig) == bytes([content[0] ^ 1]) + content[1:]


def test_flush_comes_before_release(mounted):
    """A task that was killed does not wait for the answer to FLUSH, but its handle is given back after that: the locks go by it."""
    rig = mounted
    task = rig.guest.spawn_python("import os, signal; fd = os.open('/mnt/file', os.O_RDWR); os.pwrite(fd, b'x', 0); signal.pause()")
    rig.daxd.wait_for_count("WRITE", 1)
    blocked(rig.guest, task)
    rig.daxd.hold("FLUSH")
    task.kill()
    task.wait()
    rig.daxd.wait_for_held()
    assert rig.daxd.count("RELEASE") == 0
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.daxd.wait_for_count("RELEASE", 1)


def writes(rig):
    """The WRITEs that were sent, each with handle and offset."""
    return [struct.unpack_from("<QQ", bytes.fromhex(it["args"])) for it in rig.daxd.trace() if it["opcode"] == "WRITE"]


def test_appender_beside_a_mapping(mounted):
    """What a mapping has stored does not go by the handle of who appends, through which a host may write at the end alone."""
    rig = mounted
    rig.hand.do("fds = [os.open('/mnt/file', os.O_RDWR)]; area = mmap.mmap(fds[0], 0)")
    rig.daxd.trace()
    rig.hand.do("os.pwrite(fds[0], b'a', 0)")
    ((mine, _),) = writes(rig)
    rig.hand.do("fds.append(os.open('/mnt/file', os.O_WRONLY | os.O_APPEND)); area[1] = 1; area.flush()")
    assert writes(rig) == [(mine, 0)]


def test_fsync_beside_an_appender(mounted):
    """fsync(2) writes what was there when it was called: whoever appends meanwhile does not keep it from ending."""
    rig = mounted
    rig.guest.umount("/mnt")
    rig.daxd.configure(init_flags="+WRITEBACK_CACHE")
    rig.guest.mount("daxd", "/mnt")
    rig.hand.do("fds = [os.open('/mnt/file', os.O_RDWR)]; os.pwrite(fds[0], b'a' * 4096, 0)")
    rig.daxd.hold("WRITE", count=1)
    rig.daxd.trace()
    task = rig.guest.spawn_python("import os; os.fsync(os.open('/mnt/file', os.O_RDONLY)); print('done')")
    rig.daxd.wait_for_held()
    blocked(rig.guest, task)
    assert rig.hand.do(f"os.pwrite(fds[0], b'b' * 4096, {SIZE})") == "OK"
    rig.daxd.release()
    assert task.wait().stdout == "done\n"
    assert [offset for _, offset in writes(rig)] == [0]
    assert rig.hand.do("os.fsync(fds[0])") == "OK"
    assert len(on_host(rig)) == SIZE + PAGE
