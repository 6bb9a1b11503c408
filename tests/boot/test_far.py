# SPDX-License-Identifier: GPL-2.0
"""Files of more than 4 GiB: what is read and written far behind their beginning is there, and nowhere else."""

import errno
import json
import os

import pytest
import tree as trees
from conftest import errno_of
from guest import Share

GIB = 1 << 30
# Places whose lower 32 bits are the same.
BASES = (0, 4 * GIB, 8 * GIB)
LENGTH = 8192
SIZE = 8 * GIB + (64 << 20)
DAEMONS = {
    "auto": ["--cache=auto"],
    "never": ["--cache=never"],
    "writeback": ["--cache=auto", "--writeback"],
    "window": None,
}
# How bytes get there, each at a place of its own.
WAYS = {name: (index + 1) * (4 << 20) + LENGTH for index, name in enumerate(["write", "direct", "mapped", "copy", "punch", "append"])}


def old(way, base):
    """What the host has written."""
    return trees.content(LENGTH, f"old {way} {base}")


def new(way, base):
    """What the guest writes."""
    return bytes(LENGTH) if way == "punch" else trees.content(LENGTH, f"new {way} {base}")


def make(tree):
    """A file with old bytes at all places."""
    with open(tree / "far", "wb") as file:
        file.truncate(SIZE)
        for way, at in WAYS.items():
            for base in BASES:
                file.seek(base + at)
                file.write(old(way, base))
    tree.file("source")


@pytest.fixture(params=DAEMONS)
def far(request, boot, boot_rig, tree):
    """A guest with such a file on /mnt, and the directory; once for each way to the host."""
    if DAEMONS[request.param] is None:
        rig = boot_rig(daxd={"window": "64M"}, files=make)
        rig.guest.mount("daxd", "/mnt", "dax=always")
        yield rig.guest, rig.tree
        rig.guest.umount("/mnt")
        rig.unmounted()
        return
    make(tree)
    guest = boot(Share(tree.path, "share", daemon_args=DAEMONS[request.param]))
    guest.mount("share", "/mnt")
    yield guest, tree
    guest.umount("/mnt")


SCRIPT = """
import ctypes, json, mmap, os, random, sys
WAYS, LENGTH, BASES = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
fd, direct = (os.open("/mnt/far", os.O_RDWR | flags) for flags in (0, os.O_DIRECT))
can_map = sys.argv[2] == "True"
def content(seed):
    return random.Random(f"{LENGTH}/{seed}").randbytes(LENGTH)
def read_direct(at):
    with mmap.mmap(-1, LENGTH) as buffer:
        assert os.preadv(direct, [buffer], at) == LENGTH
        return buffer[:]
def read_mapped(at):
    with mmap.mmap(fd, LENGTH, offset=at, prot=mmap.PROT_READ) as mapped:
        return mapped[:]
readers = [lambda at: os.pread(fd, LENGTH, at), read_direct] + [read_mapped] * can_map
def write(at, data):
    assert os.pwrite(fd, data, at) == LENGTH
def write_direct(at, data):
    with mmap.mmap(-1, LENGTH) as buffer:
        buffer[:] = data
        assert os.pwritev(direct, [buffer], at) == LENGTH
def write_mapped(at, data):
    if not can_map:
        return write(at, data)
    with mmap.mmap(fd, LENGTH, offset=at) as mapped:
        mapped[:] = data
        mapped.flush()
def copy(at, data):
    source = os.open("/mnt/source", os.O_RDWR)
    assert os.pwrite(source, data, at) == LENGTH
    assert os.copy_file_range(source, fd, LENGTH, at, at) == LENGTH
def punch(at, data):
    assert libc.fallocate(fd, 3, ctypes.c_long(at), ctypes.c_long(LENGTH)) == 0
def append(at, data):
    # In pieces, from where the position of the file is.
    assert os.lseek(fd, at, os.SEEK_SET) == at
    for piece in range(0, LENGTH, 1000):
        os.write(fd, data[piece : piece + 1000])
    assert os.lseek(fd, 0, os.SEEK_CUR) == at + LENGTH
writers = {"write": write, "direct": write_direct, "mapped": write_mapped, "copy": copy, "punch": punch, "append": append}
assert set(writers) == set(WAYS)
for way, at in WAYS.items():
    for base in BASES[1:]:
        for read in readers:
            assert read(base + at) == content(f"old {way} {base}"), (way, base, read)
        writers[way](base + at, bytes(LENGTH) if way == "punch" else content(f"new {way} {base}"))
    for read in readers:
        assert read(at) == content(f"old {way} 0"), (way, read)
os.fsync(fd)
"""


def test_far(far, request):
    """By each way bytes get behind 4 and 8 GiB, and what has the same lower half of its position stays as it was."""
    guest, tree = far
    can_map = "never" not in request.node.name


    guest.python(SCRIPT, json.dumps([WAYS, LENGTH, BASES]), can_map, timeout=120)
    with open(tree / "far", "rb") as file:
        for way, at in WAYS.items():
            for base in BASES:
                file.seek(base + at)
                assert file.read(LENGTH) == (new if base else old)(way, base), (way, base)
    assert os.stat(tree / "far").st_size == SIZE


GROW = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/mnt/grown", os.O_CREAT | os.O_RDWR)
GIB = 1 << 30
seen = []
os.pwrite(fd, b"first", 4 * GIB + 10)
seen.append(os.fstat(fd).st_size)
assert libc.fallocate(fd, 0, ctypes.c_long(8 * GIB), ctypes.c_long(4096)) == 0
seen.append(os.fstat(fd).st_size)
os.ftruncate(fd, 16 * GIB + 1)
seen.append(os.stat("/mnt/grown").st_size)
seen += [os.lseek(fd, GIB, os.SEEK_DATA) >> 20, os.lseek(fd, 0, os.SEEK_END), os.lseek(fd, 4 * GIB, os.SEEK_HOLE) >> 20]
os.ftruncate(fd, 4 * GIB + 12)
seen += [os.fstat(fd).st_size, os.pread(fd, 100, 4 * GIB).hex()]
os.close(fd)
print(json.dumps(seen))
"""


def test_sizes(far):
    """Files grow and shrink beyond 4 GiB in all ways, and data and holes are found there."""
    guest, tree = far
    expected = [4 * GIB + 15, 8 * GIB + 4096, 16 * GIB + 1, 4096, 16 * GIB + 1, 4096, 4 * GIB + 12, (bytes(10) + b"fi").hex()]
    assert guest.value(GROW) == expected
    with open(tree / "grown", "rb") as file:
        assert os.fstat(file.fileno()).st_size == 4 * GIB + 12
        file.seek(4 * GIB)
        assert file.read() == bytes(10) + b"fi"
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 4 * GIB


def errno_here(call, *arguments):
    """How a call ends on the host, as `errno_of` tells it of the guest."""
    try:
        call(*arguments)
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]


def test_limits(far):
    """Where the host's files end, its error is told, and nothing is written."""
    guest, tree = far
    assert errno_of(guest, "os.truncate('/mnt/source', 1 << 62)") == errno_here(os.truncate, tree / "source", 1 << 62)
    fd = os.open(tree / "source", os.O_RDWR)
    for at in ((1 << 63) - 2, (1 << 63) - 1):
        expected = errno_here(os.pwrite, fd, b"x", at)
        assert expected != "OK"
        statement = "fd = os.open('/mnt/source', os.O_RDWR); os.pwrite(fd, b'x', a[0]); os.fsync(fd)"
        assert errno_of(guest, statement, at) == expected
    os.close(fd)
    assert os.stat(tree / "source").st_size == 0
