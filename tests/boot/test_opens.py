# SPDX-License-Identifier: GPL-2.0
"""open(2) of what the host has changed: from there on it is the host's, whole, however good what the guest knew still was."""

import hashlib

import pytest

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}
PAGE = 4096

WAYS = """
import subprocess
def digest(data):
    return [len(data), hashlib.sha256(data).hexdigest()]
def mapped(fd, size):
    # Nobody asks for the size.
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(size), 1, 2, fd, ctypes.c_long(0))
    pipe, data = os.pipe(), b""
    while len(data) < size:
        count = libc.write(pipe[1], ctypes.c_void_p(at + len(data)), ctypes.c_size_t(min(4096, size - len(data))))
        if count <= 0:
            break
        data += os.read(pipe[0], count)
    os.close(pipe[0]), os.close(pipe[1]), libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return data
def whole(path):
    with opened(path) as fd:
        return digest(os.pread(fd, 1 << 20, 0))
def by_size(path):
    with opened(path) as fd:
        return digest(os.pread(fd, os.fstat(fd).st_size, 0))
def from_end(path):
    with opened(path) as fd:
        return digest(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))
def catted(path):
    return digest(subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout)
"""
READS = {
    **{name: name + "('/mnt/file')" for name in ("whole", "by_size", "from_end", "catted")},
    "mapped": "(lambda fd: [digest(mapped(fd, {size})), os.close(fd)][0])(os.open('/mnt/file', os.O_RDONLY))",
}


def files(tree):
    """What is shared."""
    tree.file("file", "x")


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def digest(data):
    """As the guest's."""
    return [len(data), hashlib.sha256(data).hexdigest()]


@pytest.fixture
def share(rig):
    """share(**settings) mounts it."""

    def mount(**settings):
        rig.daxd.configure(**settings)
        rig.guest.mount("daxd", "/mnt")
        do(rig, WAYS)
        return rig

    yield mount
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    if rig.options["driver"] == "rust":
        rig.unmounted()


def overwrite(path, data):
    """As an editor that writes in place."""
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate()


@pytest.mark.beyond_c("new bytes are cut at the old size")
@pytest.mark.parametrize("flags", ["", "+WRITEBACK_CACHE", "-AUTO_INVAL_DATA"], ids=["through", "later", "sizes-alone"])
@pytest.mark.parametrize("read", READS)
def test_overwritten_on_the_host(share, read, flags):
    """The new contents are read whole, longer or shorter, by whoever opens it after that."""
    rig = share(init_flags=flags)
    for number, size in enumerate([100, 5000, 200, PAGE, 3 * PAGE, 3 * PAGE + 1, 1]):
        data = bytes([ord("a") + number]) * size
        overwrite(rig.tree / "file", data)
        assert do(rig, READS[read].format(size=size)) == digest(data)
        assert do(rig, "os.stat('/mnt/file').st_size") == size


def test_kept_by_the_daemons_word(share):
    """Where the daemon says that what is cached is good (`FOPEN_KEEP_CACHE`), it is the old file, whole, and nothing is asked."""
    rig = share(open_flags="KEEP_CACHE")
    overwrite(rig.tree / "file", b"a" * 100)
    assert do(rig, "whole('/mnt/file')") == digest(b"a" * 100)
    overwrite(rig.tree / "file", b"b" * 5000)
    rig.daxd.reset_counters()
    assert do(rig, "whole('/mnt/file')") == digest(b"a" * 100)
    assert rig.daxd.count("GETATTR") == rig.daxd.count("READ") == 0


def asked(rig, statement):
    """The requests that a statement makes, but for what comes when it comes."""
    rig.daxd.trace()
    do(rig, statement)
    return [request["opcode"] for request in rig.daxd.trace() if request["opcode"] not in ("RELEASE", "FORGET", "BATCH_FORGET")]


@pytest.mark.beyond_c("it asks for the attributes when a name is looked up, and sends FLUSH for what was only read")
def test_requests(share):
    """One GETATTR with each OPEN, which serves whoever uses size or contents, and none where the walk has asked."""
    rig = share(trace=100)
    overwrite(rig.tree / "file", b"a" * 100)
    # The walk looks it up.
    assert asked(rig, "by_size('/mnt/file')") == ["LOOKUP", "OPEN", "READ"]
    # It does not, as the name is good.
    assert asked(rig, "by_size('/mnt/file')") == ["GETATTR", "OPEN", "READ"]
    assert asked(rig, "whole('/mnt/file')") == ["GETATTR", "OPEN", "READ"]
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["GETATTR", "OPEN"]
    do(rig, "fd = os.open('/mnt/file', os.O_RDONLY); os.pread(fd, 1000, 0); os.fstat(fd)")
    assert asked(rig, "os.pread(fd, 1000, 0); os.stat('/mnt/file'); mmap.mmap(fd, 0, prot=mmap.PROT_READ).close()") == []
    do(rig, "os.close(fd)")
    # The walk looks up whatever it comes to, again.
    rig.daxd.configure(entry_timeout=0)
    rig.guest.run("echo 2 >/proc/sys/vm/drop_caches")
    assert asked(rig, "by_size('/mnt/file')") == ["LOOKUP", "OPEN", "READ"]
    assert asked(rig, "by_size('/mnt/file')") == ["LOOKUP", "OPEN", "READ"]
    # It asks for who may open it.
    rig.daxd.configure(entry_timeout=3600, attr_timeout=0)
    do(rig, "os.stat('/mnt/file')")
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["GETATTR", "OPEN"]


@pytest.mark.beyond_c("it does not ask")
@pytest.mark.parametrize("held", ["GETATTR", "OPEN"])
def test_both_at_once(share, held):
    """The attributes that open(2) asks for cost no round trip: both requests are under way at the same time."""
    rig = share()
    do(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))")
    rig.daxd.reset_counters()
    rig.daxd.hold(held)
    task = rig.guest.spawn_python("open('/mnt/file').close()")
    rig.daxd.wait_for_held()
    rig.daxd.wait_for_count("GETATTR", 1)
    rig.daxd.wait_for_count("OPEN", 1)
    rig.daxd.release()
    assert task.wait().rc == 0


@pytest.mark.beyond_c("new bytes are cut at the old size")
@pytest.mark.parametrize("error", ["EIO", "ENOENT", "EMFILE"])
def test_attributes_that_fail(share, error):
    """A file whose attributes cannot be told is opened all the same; they are asked for once more when they are used."""
    rig = share()
    do(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))")
    overwrite(rig.tree / "file", b"a" * 5000)
    rig.daxd.set_fault("error", "GETATTR", errno=error, count=1)
    assert do(rig, "by_size('/mnt/file')") == digest(b"a" * 5000)


@pytest.mark.beyond_c("it does not ask")
def test_word_that_changes(share):
    """What the daemon said of cached contents at the last OPEN is only expected: what it says now counts."""
    rig = share(open_flags="KEEP_CACHE", trace=100)
    do(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))")
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["OPEN"]
    rig.daxd.configure(open_flags="")
    overwrite(rig.tree / "file", b"a" * 5000)
    assert asked(rig, "by_size('/mnt/file')") == ["OPEN", "GETATTR", "READ"]
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["GETATTR", "OPEN"]
    rig.daxd.configure(open_flags="KEEP_CACHE")
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["GETATTR", "OPEN"]
    assert asked(rig, "os.close(os.open('/mnt/file', os.O_RDONLY))") == ["OPEN"]
