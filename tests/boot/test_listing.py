# SPDX-License-Identifier: GPL-2.0
"""Listings of directories that are kept where the daemon allows it (FOPEN_CACHE_DIR), with the requests counted."""

import os
import shutil
import struct

import pytest

MANY = 3000
RIG = {
    "daxd": {"queue_size": 1024},
    "settings": {"attr_timeout": 600, "entry_timeout": 600, "opendir_flags": "CACHE_DIR,KEEP_CACHE"},
}
NAMES = sorted(f"a-file-with-a-name-of-some-length-{number:05}" for number in range(MANY))


def files(tree):
    """Fills the share."""
    for name in NAMES:
        tree.file(f"many/{name}", "")
    files_of_few(tree)


def files_of_few(tree):
    """The directory that tests change."""
    for name in ("one", "two", "sub/three"):
        tree.file(f"few/{name}", "")


@pytest.fixture
def mounted(rig):
    """A rig with its share mounted; judged at its end."""
    rig.guest.mount("daxd")
    yield rig
    rig.guest.umount()
    if rig.options["driver"] == "rust":
        rig.unmounted()
    assert rig.daxd.complaints() == []


def value(rig, expression):
    """What an expression is in the guest."""
    assert rig.hand.do(expression) == "OK", expression
    return rig.hand.value


def asked(rig):
    """How many listings the daemon was asked for since this was called last."""
    counts = rig.daxd.count("READDIR") + rig.daxd.count("READDIRPLUS")
    rig.daxd.reset_counters()
    return counts


@pytest.mark.parametrize("flags", ["CACHE_DIR,KEEP_CACHE", "KEEP_CACHE", "CACHE_DIR", ""])
def test_second_walk(rig, flags):
    """What was listed to its end is not asked for again, by nobody, where the daemon allows to keep it; else it is."""
    rig.daxd.configure(opendir_flags=flags)
    rig.guest.mount("daxd")
    for _ in range(2):
        assert value(rig, "sorted(os.listdir('/mnt/many'))") == NAMES
    assert asked(rig) > 1
    assert value(rig, "sorted(os.listdir('/mnt/many'))") == NAMES
    assert (asked(rig) == 0) == (flags == "CACHE_DIR,KEEP_CACHE")
    # Other tasks see the same.
    assert rig.guest.out("ls -f /mnt/many | sort | tail -n +3").split() == NAMES
    assert (asked(rig) == 0) == (flags == "CACHE_DIR,KEEP_CACHE")
    rig.guest.umount()


def test_walk_of_a_tree(mounted):
    """A second walk of a tree asks for nothing: neither names nor attributes nor listings."""
    rig = mounted
    assert rig.guest.out("find /mnt/few | sort | md5sum") == rig.guest.out("find /mnt/few | sort | md5sum")
    rig.daxd.reset_counters()
    assert rig.guest.out("find /mnt/few | wc -l") == "5"
    requests = {name for name, count in rig.daxd.counters()["requests"].items() if count}
    assert requests <= {"OPENDIR", "RELEASEDIR", "STATFS"}


def few_anew(rig):
    """The small directory as it was at first."""
    shutil.rmtree(rig.tree.path / "few", ignore_errors=True)
    files_of_few(rig.tree)


@pytest.mark.parametrize(
    "change, there",
    [
        ("os.close(os.open('/mnt/few/new', os.O_CREAT | os.O_WRONLY))", {"one", "two", "sub", "new"}),
        ("os.mkdir('/mnt/few/new')", {"one", "two", "sub", "new"}),
        ("os.symlink('x', '/mnt/few/new')", {"one", "two", "sub", "new"}),
        ("os.link('/mnt/few/one', '/mnt/few/new')", {"one", "two", "sub", "new"}),
        ("os.unlink('/mnt/few/one')", {"two", "sub"}),
        ("os.rename('/mnt/few/one', '/mnt/few/new')", {"new", "two", "sub"}),
        ("os.rename('/mnt/few/one', '/mnt/few/sub/one')", {"two", "sub"}),
        ("os.rename('/mnt/few/sub/three', '/mnt/few/three')", {"one", "two", "three", "sub"}),
    ],
)
def test_changes_from_here(rig, change, there):
    """Whatever changes the names of a directory from here shows at once, in every directory that it touches."""
    few_anew(rig)
    rig.guest.mount("daxd")
    for _ in range(2):
        value(rig, "[os.listdir(path) for path in ('/mnt/few', '/mnt/few/sub')]")
    assert rig.hand.do(change) == "OK"
    for path in ("few", "few/sub"):
        assert set(value(rig, f"os.listdir('/mnt/{path}')")) == set(os.listdir(rig.tree.path / path))
    assert set(os.listdir(rig.tree.path / "few")) == there
    rig.guest.umount()


def test_changes_on_the_host(rig):
    """A change on the host shows when the attributes have timed out."""
    few_anew(rig)
    rig.daxd.configure(attr_timeout=0)
    rig.guest.mount("daxd")
    for _ in range(2):
        assert set(value(rig, "os.listdir('/mnt/few')")) == {"one", "two", "sub"}
    asked(rig)
    assert set(value(rig, "os.listdir('/mnt/few')")) == {"one", "two", "sub"}
    assert asked(rig) == 0
    rig.tree.file("few/host", "")
    try:
        assert set(value(rig, "os.listdir('/mnt/few')")) == {"one", "two", "sub", "host"}
    finally:
        (rig.tree.path / "few/host").unlink()
    rig.guest.umount()


SEEK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def records(fd, size):
    buffer = ctypes.create_string_buffer(size)
    length = libc.syscall(217, fd, buffer, ctypes.c_long(size))
    assert length >= 0, ctypes.get_errno()
    raw, found = buffer.raw[:length], []
    while raw:
        size = int.from_bytes(raw[16:18], "little")
        found.append((raw[19:size].split(b"\\0")[0].decode(), int.from_bytes(raw[8:16], "little")))
        raw = raw[size:]
    return found
def all_records(fd, size):
    found = []
    while more := records(fd, size):
        found += more
    return found
"""


def test_seeks(mounted):
    """From any position that a listing gave, a listing goes on as it did, kept or not; with buffers of any size."""
    rig = mounted
    script = (
        SEEK
        + "fd = os.open('/mnt/many', os.O_RDONLY)\nfirst = all_records(fd, 4096)\nassert len(first) == 3002\n"
        + "for size in (100, 1000, 40000):\n    os.lseek(fd, 0, os.SEEK_SET)\n    assert all_records(fd, size) == first\n"
        + "for at in (0, 1, 2, 77, 78, 1500, 2999, 3001):\n    os.lseek(fd, first[at][1], os.SEEK_SET)\n"
        + "    assert all_records(fd, 5000) == first[at + 1 :], at\n"
        + "os.lseek(fd, first[-1][1], os.SEEK_SET)\nassert records(fd, 4096) == []\nprint('OK')"
    )
    assert rig.guest.python(script).stdout.strip() == "OK"
    asked(rig)
    assert rig.guest.python(script).stdout.strip() == "OK"
    assert asked(rig) == 0


def test_memory_taken_back(mounted):
    """When the kernel takes the memory of a listing, in the middle of it too, it is asked for again and is whole."""
    rig = mounted
    script = (
        SEEK
        + "def drop():\n    with open('/proc/sys/vm/drop_caches', 'w') as file:\n        file.write('1')\n"
        + "for _ in range(2):\n    os.listdir('/mnt/many')\n"
        + "fd = os.open('/mnt/many', os.O_RDONLY)\nfound = records(fd, 20000)\ndrop()\nfound += all_records(fd, 20000)\n"
        + "assert len(found) == 3002 == len(set(found))\n"
        + "fd = os.open('/mnt/many', os.O_RDONLY)\nfound = []\n"
        + "while more := records(fd, 20000):\n    found += more\n    drop()\n"
        + "assert len(found) == 3002 == len(set(found))\nprint('OK')"
    )
    assert rig.guest.python(script).stdout.strip() == "OK"


PARALLEL = """
import os, sys, threading
expected, problems = sorted(os.listdir("/mnt/few")), []
def reader():
    for _ in range(20):
        names = os.listdir("/mnt/many")
        if len(names) - len([name for name in names if name.startswith("new")]) != 3000 or len(set(names)) != len(names):
            problems.append(len(names))
def writer():
    for number in range(15):
        os.close(os.open(f"/mnt/many/new{number}", os.O_CREAT | os.O_WRONLY))
        if f"new{number}" not in os.listdir("/mnt/many"):
            problems.append(f"new{number} is missing")
        os.unlink(f"/mnt/many/new{number}")
        if f"new{number}" in os.listdir("/mnt/many"):
            problems.append(f"new{number} is there")
threads = [threading.Thread(target=target) for target in (reader, reader, reader, writer)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(problems or "OK")
"""


def test_parallel_readers(mounted):
    """Readers side by side, with names that come and go, see every name that stays, once; who changes names sees that at once."""
    assert mounted.guest.python(PARALLEL, timeout=300).stdout.strip() == "OK"


def record(offset, name):
    """A record of READDIR."""
    return struct.pack("<QQII", offset, offset, len(name), 8) + name.ljust(-(-len(name) // 8) * 8, b"\0")


def test_names_of_many_bytes(rig):
    """Names that are longer than NAME_MAX are listed and looked up: filesystems that count characters have such."""
    # As many bytes of records, with those of the directory itself and the one above.
    rig.tree.file(f"long/{'a' * 255}", "")
    long, short = "\u5b57".encode() * 90, b"seventeen-letters"
    rig.daxd.configure(init_flags="-DO_READDIRPLUS", opendir_flags="")
    rig.daxd.set_fault("patch", "READDIR", offset=16, hex=(record(1, long) + record(2, short)).hex(), count=1)
    rig.daxd.set_fault("truncate", "READDIR", len=16, skip=1)
    rig.guest.mount("daxd")
    assert value(rig, "sorted(len(name) for name in os.listdir(b'/mnt/long'))") == [17, 270]
    assert rig.hand.do("os.stat('/mnt/long')") == "OK"
    # What the daemon's own filesystem would say is ENAMETOOLONG.
    rig.daxd.set_fault("error", "LOOKUP", errno="ENOENT")
    for length in (256, 270, 4000):
        assert rig.hand.do(f"os.stat('/mnt/long/' + 'n' * {length})") == "ENOENT"
    rig.daxd.clear_faults()
    rig.guest.umount()
    assert rig.daxd.complaints() == []
    shutil.rmtree(rig.tree / "long")
