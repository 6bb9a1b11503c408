# SPDX-License-Identifier: GPL-2.0
"""Files that are shorter or longer than the guest knows: what is read of them ends where they end, and has no byte that nobody wrote."""

import subprocess
import sys

import pytest
from conftest import blocked

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}
PAGE = 4096

# Ways to read a file that is open, with as much room as there is in `area`, which is one page longer than the file was.
WAYS = """
import select
def whole(fd):
    return os.pread(fd, 1 << 20, 0)
def pieces(fd):
    parts = []
    while True:
        part = os.pread(fd, 1000, sum(map(len, parts)))
        if not part:
            return b"".join(parts)
        parts.append(part)
def spliced(fd):
    parts, at = [], 0
    pipe = os.pipe()
    while True:
        moved = os.splice(fd, pipe[1], 50000, offset_src=at)
        if not moved:
            break
        at += moved
        while moved:
            parts.append(os.read(pipe[0], moved))
            moved -= len(parts[-1])
    os.close(pipe[0]), os.close(pipe[1])
    return b"".join(parts)
def can_touch(area, at):
    pipe = os.pipe()
    try:
        return os.write(pipe[1], memoryview(area)[at:at + 1]) == 1
    except OSError:
        return False
    finally:
        os.close(pipe[0]), os.close(pipe[1])
def digest(data):
    return [len(data), hashlib.sha256(data).hexdigest()]
"""


# statx(2) that asks the daemon, however good the attributes are; it tells the size.
FORCED = """
import ctypes
buffer = (ctypes.c_uint64 * 32)()
assert ctypes.CDLL(None).syscall(332, -100, b"/mnt/file", 0x2000, 0x7ff, buffer) == 0
print(buffer[5])
"""


def files(tree):
    """What is shared."""
    tree.file("file", 1)


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def digest(data):
    """As the guest's."""
    namespace = {}
    exec("import hashlib\n" + WAYS[WAYS.index("def digest") :], namespace)  # pylint: disable=exec-used
    return namespace["digest"](data)


def host(rig, statement):
    """Does something in another process, as whoever else uses the share."""
    subprocess.run([sys.executable, "-c", f"import os; name = {str(rig.tree / 'file')!r}; {statement}"], check=True)


@pytest.fixture
def opened(rig):
    """opened(size) mounts, with a file that is open as `fd`, and of which the guest knows the size and nothing else."""

    def mount(size, **settings):
        (rig.tree / "file").write_bytes(b"a" * size)
        rig.daxd.configure(**settings)
        rig.guest.mount("daxd", "/mnt")
        do(rig, WAYS)
        do(rig, "area, fd = None, os.open('/mnt/file', os.O_RDONLY); assert os.fstat(fd).st_size == " + str(size))
        rig.daxd.reset_counters()
        return rig

    yield mount
    rig.daxd.clear_faults()
    rig.daxd.release()
    do(rig, "area and area.close(); os.close(fd)")
    rig.guest.umount("/mnt")
    rig.unmounted()


@pytest.mark.parametrize("way", ["whole", "pieces", "spliced"])
@pytest.mark.parametrize("size", [100, PAGE, PAGE + 7, 0])
def test_shorter_on_the_host(opened, way, size):
    """A READ that is answered short is the end of the file for who reads, and needs no other request."""
    rig = opened(3 * PAGE)
    host(rig, f"os.truncate(name, {size})")
    assert do(rig, f"digest({way}(fd))") == digest(b"a" * size)
    assert rig.daxd.count("READ") <= 2
    # Who reads once more asks whether it has become longer since; and once more where what is read then ends with a page.
    assert rig.daxd.count("GETATTR") <= (way != "whole") * (1 + (size == PAGE))
    assert do(rig, "os.fstat(fd).st_size") == size


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param("", id="times-matter"),
        pytest.param(
            "-AUTO_INVAL_DATA", id="sizes-alone", marks=pytest.mark.beyond_c("mappings keep pages behind an end that a READ has told")
        ),
    ],
)
def test_mapped_and_shorter_on_the_host(opened, flags):
    """A mapping has zeroes up to the end of the page with the end, and nothing beyond: neither what is read for it, nor what was."""
    rig = opened(3 * PAGE, init_flags=flags)
    do(rig, "area = mmap.mmap(fd, 0, prot=mmap.PROT_READ); area.madvise(mmap.MADV_RANDOM)")
    assert do(rig, "area[2 * 4096]") == ord("a")
    host(rig, "os.truncate(name, 100)")
    assert do(rig, "digest(area[:4096])") == digest(b"a" * 100 + bytes(PAGE - 100))
    assert do(rig, "[int(can_touch(area, at)) for at in (0, 4095, 4096)]") == [1, 1, 0]
    do(rig, "os.fstat(fd)")
    assert do(rig, "[int(can_touch(area, at)) for at in (0, 4095, 4096, 2 * 4096)]") == [1, 1, 0, 0]


def test_shorter_for_all_who_wait(opened):
    """Whoever waits for the same pages sees the same end, by read(2), splice(2) or a mapping."""
    rig = opened(3 * PAGE, open_flags="KEEP_CACHE")
    host(rig, "os.truncate(name, 100)")
    rig.daxd.hold("READ")
    opens = "import hashlib, mmap, os\n" + WAYS + "fd = os.open('/mnt/file', os.O_RDONLY)\n"
    ways = ["len(whole(fd))", "len(pieces(fd))", "len(spliced(fd))", "int(can_touch(mmap.mmap(fd, 0, prot=mmap.PROT_READ), 4096))"]
    readers = [rig.guest.spawn_python(f"{opens}print({way})") for way in ways]
    rig.daxd.wait_for_held()
    for reader in readers:
        blocked(rig.guest, reader)
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert [reader.wait().stdout.strip() for reader in readers] == ["100", "100", "100", "0"]


@pytest.mark.parametrize("way", ["whole", "pieces", "spliced"])
@pytest.mark.parametrize(("size", "told"), [(20, 4096), (20, 20000), (5000, 20000), (4096, 8192)])
def test_size_that_is_a_guess(rig, way, size, told):
    """A file of which the daemon tells another size than it has, as the host's sysfs does, reads as on the host, each time."""
    (rig.tree / "file").write_bytes(b"g" * size)
    rig.daxd.set_fault("set", ["LOOKUP", "GETATTR"], fields={"attr.size": told})
    rig.daxd.configure(attr_timeout=0)
    rig.guest.mount("daxd", "/mnt")
    do(rig, WAYS)
    for _ in range(2):
        do(rig, "fd = os.open('/mnt/file', os.O_RDONLY)")
        assert do(rig, "os.fstat(fd).st_size") == told
        assert do(rig, f"digest({way}(fd))") == digest(b"g" * size)
        do(rig, "os.close(fd)")
    assert rig.guest.out("cat /mnt/file | wc -c") == str(size)
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")


@pytest.mark.beyond_c("new bytes are cut at the old size")
@pytest.mark.parametrize("flags", ["", "+WRITEBACK_CACHE"], ids=["through", "later"])
@pytest.mark.parametrize("way", ["whole", "pieces", "spliced"])
@pytest.mark.parametrize(("size", "grown"), [(100, 150), (PAGE, PAGE + 1), (PAGE - 1, PAGE), (5000, 20000)])
def test_longer_on_the_host(opened, flags, way, size, grown):
    """What was not read yet is not new and cut at the old size: who comes to the end asks whether it is still there."""
    rig = opened(size, init_flags=flags)
    host(rig, f"open(name, 'r+b').write(b'b' * {grown})")
    assert do(rig, f"digest({way}(fd))") == digest(b"b" * grown)
    assert rig.daxd.count("GETATTR") == 1
    assert do(rig, "os.stat('/mnt/file').st_size") == grown


@pytest.mark.parametrize(("size", "asks"), [(100, 0), (PAGE + 1, 0), (PAGE, 0), (3 * PAGE, 0)])
def test_end_that_is_known(opened, size, asks):
    """A READ that comes to the end tells it, also of a file of whole pages: it asks for one more."""
    rig = opened(size)
    for _ in range(2):
        assert do(rig, "digest(pieces(fd))") == digest(b"a" * size)
    assert rig.daxd.count("GETATTR") == asks
    assert rig.daxd.count("READ") == 1


@pytest.mark.beyond_c("zeroes are read between the old end and the new one")
def test_old_end_of_a_longer_file(opened):
    """A page with the old end is gone before anybody sees the new size, also where a page before it is still being read."""
    rig = opened(PAGE + 100, open_flags="KEEP_CACHE")
    do(rig, "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)")
    assert do(rig, "digest(os.pread(fd, 9999, 4096))") == digest(b"a" * 100)
    rig.daxd.hold("READ")
    reader = rig.guest.spawn_python("import os; print(len(os.pread(os.open('/mnt/file', os.O_RDONLY), 4096, 0)))")
    rig.daxd.wait_for_held()
    rig.daxd.clear_faults()
    host(rig, "open(name, 'ab').write(b'b' * 50)")
    looker = rig.guest.spawn_python(FORCED)
    blocked(rig.guest, looker)
    assert do(rig, "digest(os.pread(fd, 9999, 4096))") == digest(b"a" * 100)
    rig.daxd.release()
    assert looker.wait().stdout.split()[-1] == str(PAGE + 150) and reader.wait().stdout.strip() == str(PAGE)
    assert do(rig, "digest(os.pread(fd, 9999, 4096))") == digest(b"a" * 100 + b"b" * 50)


@pytest.mark.ours("zeroes are read between an old end and a new one, in most runs")
def test_log_that_grows(rig):
    """A log that somebody appends to all the while is read without a zero, whatever is read when."""
    (rig.tree / "file").write_bytes(b"x" * 10)
    rig.daxd.configure(attr_timeout=0)
    rig.guest.mount("daxd", "/mnt")
    script = """
import os, time
name, end = "/mnt/file", time.monotonic() + 4
pids = []
for kind in range(3):
    pids.append(os.fork())
    if pids[-1] == 0:
        fd, at, bad = os.open(name, os.O_RDONLY), 0, 0
        while time.monotonic() < end:
            if kind == 0:
                os.stat(name)
                continue
            data = os.pread(fd, 1 << 16, max(0, at - 5000))
            at = max(at, max(0, at - 5000) + len(data))
            bad += data.count(0)
        os._exit(bool(bad))
print(*[os.waitpid(pid, 0)[1] for pid in pids])
"""
    readers = rig.guest.spawn_python(script)
    with open(rig.tree / "file", "ab", buffering=0) as log:
        while readers.poll() is None:
            log.write(b"y" * 77)
    assert readers.wait().stdout.split() == ["0"] * 3
    rig.guest.umount("/mnt")
