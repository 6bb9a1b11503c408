# SPDX-License-Identifier: GPL-2.0
"""Dirty pages: who may dirty them when, when they are written back, and who learns of it when they cannot be."""

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest
from conftest import blocked, device_of

RIG = {"shares": 2}
PAGE = 4096
MEG = 1 << 20

# Stores to a page that is mapped, as soon as it is told to.
STORE = """
import mmap, os, signal, sys, time
fd = os.open("/mnt/" + sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
at = int(sys.argv[2])
m[at]
open("/run/mapped", "w")
while not os.path.exists("/run/store"):
    time.sleep(0.01)
open("/run/storing", "w")
m[at] = ord("S")
if sys.argv[3:]:
    m.flush()
open("/run/stored", "w")
signal.pause()
"""


def files(tree):
    """What is shared."""
    tree.file("file", 2 * PAGE)
    tree.file("other", 2 * PAGE)


def wait_for(rig, path):
    """Waits until a file is there in the guest."""
    rig.guest.wait_until(lambda: rig.guest.run(f"test -e {path}", check=False).rc == 0, path)


def store_later(rig, name, at, *msync):
    """A process that has a page mapped, and stores to it when /run/store is there; with "msync" it writes it back then."""
    rig.guest.run("rm -f /run/mapped /run/store /run/storing /run/stored")
    task = rig.guest.spawn_python(STORE, name, at, *msync)
    wait_for(rig, "/run/mapped")
    return task


def store_now(rig, task):
    """Makes it store, and waits until it sleeps in that, or afterwards."""
    rig.guest.run("touch /run/store")
    wait_for(rig, "/run/storing")
    blocked(rig.guest, task)


def test_store_while_truncated_by_open(rig):
    """A store through a mapping during open(O_TRUNC) waits for it, and finds the page gone: the old bytes do not come back."""
    rig.tree.file("file", 2 * PAGE)
    rig.guest.mount("daxd", "/mnt")
    task = store_later(rig, "file", 0, "msync")
    rig.daxd.hold("OPEN")
    opener = rig.guest.spawn_python("import os; os.open('/mnt/file', os.O_WRONLY | os.O_TRUNC)")
    rig.daxd.wait_for_held()
    rig.daxd.clear_faults()
    store_now(rig, task)
    rig.daxd.release()
    assert opener.wait().rc == 0
    assert task.wait().rc == 128 + signal.SIGBUS
    assert (rig.tree / "file").read_bytes() == b""
    rig.guest.umount("/mnt")
    rig.unmounted()


def test_store_while_truncation_fails(rig):
    """A store through a mapping while a truncation waits for others' write-back is not lost when the truncation fails."""
    # In another folio than what is being written back.
    far = MEG
    rig.tree.file("file", 2 * far)
    # The page stays mapped when the file is opened again: to bring it in anew would wait for the truncation in any case.
    rig.daxd.configure(open_flags="KEEP_CACHE")
    rig.guest.mount("daxd", "/mnt")
    task = store_later(rig, "file", far)
    rig.daxd.hold("WRITE")
    rig.daxd.set_fault("error", "SETATTR", errno="EIO")
    cutter = rig.guest.spawn_python(
        """
import mmap, os
fd = os.open("/mnt/file", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0] = ord("D")
try:
    os.ftruncate(fd, 100)
except OSError as error:
    print(error.errno)
"""
    )
    rig.daxd.wait_for_held()
    store_now(rig, task)
    rig.daxd.clear_fault(rig.daxd.faults()[0]["id"])
    rig.daxd.release()
    assert cutter.wait().stdout == "5\n"
    wait_for(rig, "/run/stored")
    task.kill()
    task.wait()
    data = (rig.tree / "file").read_bytes()
    assert (len(data), data[0], data[far]) == (2 * far, ord("D"), ord("S"))
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()


@pytest.fixture
def cached(rig):
    """The share on /mnt, with a daemon that leaves writes to the guest's cache."""
    rig.tree.file("file", 0)
    rig.daxd.configure(init_flags="+WRITEBACK_CACHE", trace=200)
    rig.guest.mount("daxd", "/mnt")
    yield rig
    rig.hand.do("[os.close(fd) for fd in list(globals().get('fds', []))]; fds = []")
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()


@contextlib.contextmanager
def dirty_limits(guest, limit):
    """The guest has so many dirty bytes at most, and begins to write back at half of that."""
    guest.run(f"echo {limit} >/proc/sys/vm/dirty_bytes; echo {limit // 2} >/proc/sys/vm/dirty_background_bytes")
    yield
    guest.run("echo 20 >/proc/sys/vm/dirty_ratio; echo 10 >/proc/sys/vm/dirty_background_ratio")


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def opened(rig, path="/mnt/file", flags="os.O_RDWR"):
    """Opens a file in the guest: its descriptor. The test's end closes it."""
    do(rig, "fds = globals().get('fds', [])")
    do(rig, f"fds.append(os.open({path!r}, {flags}))")
    return do(rig, "fds[-1]")


def close(rig, fd):
    """Closes it."""
    do(rig, f"fds.remove({fd})")
    return rig.hand.do(f"os.close({fd})")


def opcodes(rig):
    """What the daemon was asked for since this was called last."""
    return [request["opcode"] for request in rig.daxd.trace()]


def test_many_small_writes_are_few_large_ones(cached):
    """What is written in small pieces stays here, and goes to the daemon in large requests; then the times, then FSYNC."""
    fd = opened(cached)
    do(cached, f"import random; data = random.Random(7).randbytes({MEG})")
    cached.daxd.trace()
    # Nothing is written back for there being too much of it.
    with dirty_limits(cached.guest, 1 << 30):
        do(cached, f"[os.pwrite({fd}, data[at : at + 1000], at) for at in range(0, {MEG}, 1000)]")
        assert "WRITE" not in opcodes(cached)
        assert (cached.tree / "file").read_bytes() == b""
        assert do(cached, f"os.fstat({fd}).st_size") == MEG
        assert do(cached, f"os.pread({fd}, {MEG}, 0) == data")
        cached.daxd.trace()
        do(cached, f"os.fsync({fd})")
    seen = [name for name in opcodes(cached) if name in ("WRITE", "SETATTR", "FSYNC")]
    # 126 pages go into a request, as the ring has 128 entries.
    assert seen == ["WRITE"] * 3 + ["SETATTR", "FSYNC"]
    assert (cached.tree / "file").read_bytes() == random.Random(7).randbytes(MEG)
    assert do(cached, f"os.fstat({fd}).st_mtime_ns") == os.stat(cached.tree / "file").st_mtime_ns


def test_size_and_times_are_kept(cached):
    """While something is dirty, size and times are those of this kernel, whatever the daemon says; afterwards they are the host's."""
    fd = opened(cached)
    do(cached, f"os.pwrite({fd}, b'x' * 10000, 0)")
    mtime = do(cached, f"os.fstat({fd}).st_mtime_ns")
    # The host's file is empty and gets another time.
    os.utime(cached.tree / "file", ns=(1, 1))
    assert do(cached, f"[os.fstat({fd}).st_size, os.stat('/mnt/file').st_mtime_ns]") == [10000, mtime]
    assert do(cached, f"os.fstat({fd}).st_blocks * 512 >= 10000")
    do(cached, f"os.fsync({fd})")
    host = os.stat(cached.tree / "file")
    assert (host.st_size, host.st_mtime_ns) == (10000, mtime)
    (cached.tree / "file").write_bytes(b"host")
    os.utime(cached.tree / "file", ns=(5, 5))
    assert do(cached, f"[os.fstat({fd}).st_size, os.fstat({fd}).st_mtime_ns, os.pread({fd}, 100, 0) == b'host']") == [4, 5, True]


def test_times_after_each_fsync(cached):
    """The host's time is what was told here after every fsync, however soon it follows the last one, and takes no GETATTR.

    The clock by which a write is stamped moves on in ticks, so that most of the second writes here change no time in the guest, but each
    WRITE does on the host. The C client leaves the host with that.
    """
    cached.daxd.configure(attr_timeout=60)
    fd = opened(cached)
    written = f"(os.pwrite({fd}, b'y', 0), os.fsync({fd}))"
    for _ in range(20):
        told = do(cached, f"[{written}, {written}, os.fstat({fd}).st_mtime_ns][2]")
        assert os.stat(cached.tree / "file").st_mtime_ns == told
    cached.daxd.trace()
    do(cached, f"[{written} for _ in range(20)]")
    # GETXATTR: for capabilities that a write takes away.
    assert opcodes(cached) == ["GETXATTR", "WRITE", "SETATTR", "FSYNC"] * 20
    cached.daxd.configure(attr_timeout=0)


def test_utimes_stay(cached):
    """A time that is set stays, though there was something to be written before."""
    fd = opened(cached)
    do(cached, f"os.pwrite({fd}, b'x' * 10000, 0)")
    do(cached, f"os.utime({fd}, ns=(10**18, 10**18))")
    assert do(cached, f"os.fstat({fd}).st_mtime_ns") == 10**18
    assert close(cached, fd) == "OK"
    host = os.stat(cached.tree / "file")
    assert (host.st_size, host.st_mtime_ns) == (10000, 10**18)


def test_link_of_a_dirty_file(cached):
    """Another name changes neither contents nor the time of modification of what is still to be written."""
    cached.tree.file("file", PAGE)
    os.utime(cached.tree / "file", ns=(1, 1))
    fd = opened(cached)
    do(cached, f"os.pwrite({fd}, b'x' * {PAGE}, 0)")
    mtime, ctime = do(cached, f"[os.fstat({fd}).st_mtime_ns, os.fstat({fd}).st_ctime_ns]")
    do(cached, "os.link('/mnt/file', '/mnt/linked')")
    told = do(cached, f"[os.fstat({fd}).st_mtime_ns, os.fstat({fd}).st_ctime_ns, os.fstat({fd}).st_nlink]")
    assert told[0] == mtime and told[1] >= ctime and told[2] == 2
    assert close(cached, fd) == "OK"
    host = os.stat(cached.tree / "linked")
    assert (host.st_size, host.st_mtime_ns) == (PAGE, mtime)
    os.unlink(cached.tree / "linked")


def test_parts_of_pages(cached):
    """Writes of a few bytes to a file opened for writing alone read the page around them, and write that page and no more."""
    content = bytes(range(256)) * 4096
    cached.tree.file("file", content)
    reader = opened(cached, flags="os.O_RDONLY")
    # Large folios, which are not written as a whole.
    assert do(cached, f"len(os.pread({reader}, {MEG}, 0))") == MEG
    fd = opened(cached, flags="os.O_WRONLY")
    for at in (5, 70_000, MEG - 3):
        do(cached, f"os.pwrite({fd}, b'new', {at})")
        content = content[:at] + b"new" + content[at + 3 :]
    cached.daxd.reset_counters()
    assert close(cached, fd) == "OK"
    assert (cached.tree / "file").read_bytes() == content
    assert cached.daxd.count("WRITE") == 3
    assert cached.daxd.counters()["bytes"]["written"] == 3 * PAGE


def test_holes_and_ends(cached):
    """Behind the end of a file there are zeroes: in pages that are written in part, in holes, and where mappings stored before."""
    cached.tree.file("file", b"a" * 100)
    fd = opened(cached)
    do(cached, f"m = mmap.mmap({fd}, 4096, access=mmap.ACCESS_WRITE) if os.ftruncate({fd}, 4096) is None else 0")
    do(cached, f"os.ftruncate({fd}, 100)")
    do(cached, "m[200:300] = b'Z' * 100")
    do(cached, f"os.pwrite({fd}, b'end', 9000)")
    do(cached, "m.close()")
    expected = b"a" * 100 + bytes(8900) + b"end"
    assert do(cached, f"os.pread({fd}, 20000, 0) == {expected!r}")
    assert do(cached, f"os.lseek({fd}, 5000, os.SEEK_DATA)") <= 9000
    assert close(cached, fd) == "OK"
    assert (cached.tree / "file").read_bytes() == expected


def test_copy_of_a_hole(cached):
    """copy_file_range(2) copies a hole that the host's file does not have yet."""
    cached.tree.file("other", b"x" * 10_000)
    fd, other = opened(cached), opened(cached, "/mnt/other")
    do(cached, f"os.pwrite({fd}, b'end', 20_000)")
    assert do(cached, f"os.copy_file_range({fd}, {other}, 5000, 5000, 0)") == 5000
    assert (cached.tree / "other").read_bytes() == bytes(5000) + b"x" * 5000


def test_append(cached):
    """O_APPEND appends to what the host's file has, and to what is here already."""
    cached.tree.file("file", b"first\n")
    fd = opened(cached, flags="os.O_WRONLY | os.O_APPEND")
    with open(cached.tree / "file", "ab") as file:
        file.write(b"host\n")
    do(cached, f"[os.write({fd}, b'%d\\n' % number) for number in range(100)]")
    assert close(cached, fd) == "OK"
    assert (cached.tree / "file").read_bytes() == b"first\nhost\n" + b"".join(b"%d\n" % number for number in range(100))


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
def test_errors(cached, error):
    """An error of the daemon's is that of fsync(2), once for each who has the file open, and of nobody else."""
    first, second, other = opened(cached), opened(cached), opened(cached, "/mnt/other")
    cached.daxd.set_fault("error", "WRITE", errno=error, count=1)
    do(cached, f"os.pwrite({first}, b'x' * 10000, 0)")
    assert cached.hand.do(f"os.fsync({first})") == error
    assert cached.hand.do(f"os.fsync({first})") == "OK"
    assert cached.hand.do(f"os.fdatasync({second})") == error
    assert cached.hand.do(f"os.fsync({second})") == "OK"
    assert cached.hand.do(f"os.fsync({other})") == "OK"


@pytest.mark.beyond_c("what the daemon does not take is lost")
@pytest.mark.parametrize("taken", [PAGE, 5000, 100_000])
def test_short_writes(cached, taken):
    """What the daemon leaves of a write-back is sent again, until it has everything."""
    fd = opened(cached)
    do(cached, f"import random; data = random.Random(7).randbytes({MEG} - 7)")
    cached.daxd.configure(short_write=taken)
    do(cached, f"os.pwrite({fd}, data, 0)")
    assert cached.hand.do(f"os.fsync({fd})") == "OK"
    assert (cached.tree / "file").read_bytes() == random.Random(7).randbytes(MEG - 7)


@pytest.mark.beyond_c("the error is not asked for")
def test_error_after_a_short_write(cached):
    """The error of the rest is that of fsync(2), and what was taken before is in the file."""
    fd = opened(cached)
    cached.daxd.configure(short_write=5000)
    cached.daxd.set_fault("error", "WRITE", errno="ENOSPC", skip=1)
    do(cached, f"os.pwrite({fd}, b'x' * 20000, 0)")
    assert cached.hand.do(f"os.fsync({fd})") == "ENOSPC"
    assert cached.hand.do(f"os.fsync({fd})") == "OK"
    assert (cached.tree / "file").read_bytes() == b"x" * 5000
    assert cached.daxd.count("WRITE") == 2


@pytest.mark.beyond_c("what the daemon does not take is lost")
def test_crumbs(cached):
    """A daemon that takes a byte at a time does not keep the guest at it for ever: EIO, once."""
    fd = opened(cached)
    cached.daxd.configure(short_write=1)
    do(cached, f"os.pwrite({fd}, b'x' * 20000, 0)")
    assert cached.hand.do(f"os.fsync({fd})") == "EIO"
    assert cached.hand.do(f"os.fsync({fd})") == "OK"
    # As many as there are pages, after the first.
    assert cached.daxd.count("WRITE") == 6


@pytest.mark.beyond_c("what the daemon does not take is lost")
def test_nothing_taken(cached):
    """A daemon that takes nothing and names no error breaks the protocol."""
    fd = opened(cached)
    cached.daxd.configure(short_write=0)
    do(cached, f"os.pwrite({fd}, b'x' * 20000, 0)")
    assert cached.hand.do(f"os.fsync({fd})") == "EIO"
    assert cached.hand.do(f"os.fsync({fd})") == "OK"
    assert cached.daxd.count("WRITE") == 1


@pytest.mark.parametrize("how", ["close", "msync"])
def test_errors_at_close_and_msync(cached, how):
    """So it is with close(2) of what was written, and with msync(2) of what was mapped."""
    cached.tree.file("file", 2 * PAGE)
    fd = opened(cached)
    cached.daxd.set_fault("error", "WRITE", errno="ENOSPC", count=1)
    if how == "close":
        do(cached, f"os.pwrite({fd}, b'x' * 100, 0)")
        assert close(cached, fd) == "ENOSPC"
    else:
        do(cached, f"m = mmap.mmap({fd}, 0)")
        do(cached, "m[0] = 1")
        assert cached.hand.do("m.flush()") == "ENOSPC"
        assert cached.hand.do("m.flush()") == "OK"
        do(cached, "m.close()")


def test_stalled_daemon(cached):
    """A daemon that does not take what is dirty keeps no more of it than is left for others: these go on."""
    guest = cached.guest
    cached.daxds[1].configure(init_flags="+WRITEBACK_CACHE")
    guest.mount("daxd1", "/run/other")
    cached.daxd.hold("WRITE")
    seen = []

    def stopped():
        found = guest.out("grep -E '^nr_(dirty|writeback|dirty_threshold) ' /proc/vmstat")
        counts = {name: int(count) for name, count in map(str.split, found.split("\n"))}
        seen.append((counts["nr_dirty"] + counts["nr_writeback"], counts["nr_dirty_threshold"]))
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    with dirty_limits(guest, 64 * MEG):
        writer = guest.spawn_python(
            """
with open("/mnt/file", "wb", buffering=0) as file:
    for _ in range(96):
        file.write(bytes(1 << 20))
"""
        )
        cached.daxd.wait_for_held()
        guest.wait_until(stopped, "the writer waits")
        pages, limit = seen[-1]
        assert 0 < pages < limit / 2
        assert do(cached, f"open('/run/other/other', 'wb').write(bytes({32 * MEG}))") == 32 * MEG
        cached.daxd.clear_faults()
        cached.daxd.release()
        assert writer.wait().rc == 0
    guest.umount("/run/other")


# Writes some pieces of a file, of so many bytes each, and has the daemon get them.
WRITE = """
import errno, os, sys
try:
    fd = os.open("/mnt/" + sys.argv[1], os.O_RDWR)
    for _ in range(int(sys.argv[2])):
        os.write(fd, bytes(int(sys.argv[3])))
    os.fsync(fd)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.beyond_c("unbind waits for the requests in flight")
def test_unbind_with_dirty_pages(boot_rig):
    """A device that goes takes what is dirty with it: who waits in write(2) or fsync(2) gets an error, and memory is free again."""
    gone = ("ENODEV", "ENOTCONN", "EIO")
    rig = boot_rig(files=files)
    guest = rig.guest
    rig.daxd.configure(init_flags="+WRITEBACK_CACHE")
    guest.mount("daxd", "/mnt")
    fd = opened(rig, "/mnt/other")
    rig.daxd.hold("WRITE")
    with dirty_limits(guest, 16 * MEG):
        syncer = guest.spawn_python(WRITE, "other", 1, PAGE)
        blocked(guest, syncer)
        writer = guest.spawn_python(WRITE, "file", 96, MEG)
        blocked(guest, writer)
        device = Path(device_of(guest, "daxd")).name
        guest.run(f"echo {device} >/sys/bus/virtio/drivers/virtiofs/unbind", timeout=60)
        assert writer.wait().stdout.strip() in gone
        assert syncer.wait().stdout.strip() in gone
    # What was lost is told once to each who has the file open.
    assert rig.hand.do(f"call('sync_file_range', {fd}, 0, 0, 1)") in gone
    assert rig.hand.do(f"call('sync_file_range', {fd}, 0, 0, 1)") == "OK"
    assert rig.hand.do(f"os.pwrite({fd}, b'more', 0)") in gone
    close(rig, fd)
    guest.umount("/mnt")
    assert guest.out("sed -nE 's/^nr_(dirty|writeback) //p' /proc/vmstat").split() == ["0", "0"]
    rig.daxd.clear_faults()
    rig.daxd.release()
    guest.run(f"echo {device} >/sys/bus/virtio/drivers/virtiofs/bind")
    guest.mount("daxd", "/mnt")
    guest.run("echo again >/mnt/again")
    guest.umount("/mnt")
    assert (rig.tree / "again").read_text() == "again\n"


def test_direct_write_beside_a_mapping(cached):
    """What a mapping stores to the page of a direct write is not lost, before it and meanwhile, and neither is what that writes."""
    cached.tree.file("file", bytes(PAGE))
    fd = opened(cached)
    do(cached, f"m = mmap.mmap({fd}, 0)")
    do(cached, "m[10] = 77")
    direct = opened(cached, flags="os.O_RDWR | os.O_DIRECT")
    assert do(cached, f"os.pwritev({direct}, [mmap.mmap(-1, 512)[:].replace(bytes(1), b'd')], 512)") == 512
    expected = bytearray(PAGE)
    expected[10], expected[512:1024] = 77, b"d" * 512
    assert do(cached, f"m[:] == {bytes(expected)!r}")
    assert (cached.tree / "file").read_bytes() == expected
    cached.daxd.hold("WRITE")
    writer = cached.guest.spawn_python(
        """
import mmap, os
buffer = mmap.mmap(-1, 512)
buffer[:] = b"e" * 512
os.pwritev(os.open("/mnt/file", os.O_RDWR | os.O_DIRECT), [buffer], 512)
"""
    )
    cached.daxd.wait_for_held()
    do(cached, "m[20] = 88")
    cached.daxd.clear_faults()
    cached.daxd.release()
    assert writer.wait().rc == 0
    expected[20], expected[512:1024] = 88, b"e" * 512
    assert do(cached, f"m[:] == {bytes(expected)!r}")
    assert do(cached, "m.flush() or m.close() or 1")
    assert (cached.tree / "file").read_bytes() == expected


@pytest.mark.parametrize("flag", ["O_SYNC", pytest.param("O_DSYNC", marks=pytest.mark.beyond_c("it sends the times, too"))])
def test_synchronous_writes(cached, flag):
    """With O_SYNC and O_DSYNC what is written is with the daemon, and on its disk, when write(2) returns; its error is that of write(2)."""
    fd = opened(cached, flags=f"os.O_RDWR | os.{flag}")
    cached.daxd.trace()
    do(cached, f"os.pwrite({fd}, b'x' * 10000, 0)")
    times = ["SETATTR"] if flag == "O_SYNC" else []
    assert [name for name in opcodes(cached) if name in ("WRITE", "SETATTR", "FSYNC")] == ["WRITE", *times, "FSYNC"]
    assert (cached.tree / "file").read_bytes() == b"x" * 10000
    cached.daxd.set_fault("error", "WRITE", errno="ENOSPC", count=1)
    assert cached.hand.do(f"os.pwrite({fd}, b'y' * 10000, 0)") == "ENOSPC"
    assert cached.hand.do(f"os.fsync({fd})") == "OK"


def test_syncfs(cached):
    """syncfs(2) writes all files of the share back, then has the daemon sync; an error is told to each who asks, once."""
    fd, other = opened(cached), opened(cached, "/mnt/other")
    do(cached, f"[os.pwrite(each, b'new', 0) for each in ({fd}, {other})]")
    cached.daxd.trace()
    do(cached, f"call('syncfs', {fd})")
    seen = [name for name in opcodes(cached) if name in ("WRITE", "SYNCFS")]
    assert seen == ["WRITE", "WRITE", "SYNCFS"]
    assert [(cached.tree / name).read_bytes()[:3] for name in ("file", "other")] == [b"new", b"new"]
    do(cached, f"os.pwrite({fd}, b'lost', 0)")
    cached.daxd.set_fault("error", "WRITE", errno="ENOSPC", count=1)
    assert [cached.hand.do(f"call('syncfs', {each})") for each in (other, other, fd, fd)] == ["ENOSPC", "OK", "ENOSPC", "OK"]
    # Whoever has the file open has not been told by that.
    assert close(cached, fd) == "ENOSPC"


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_daemon_dies_with_dirty_pages(boot_rig):
    """A daemon that dies leaves fsync(2) waiting; a forced unmount ends that with an error, and the file can be closed."""
    rig = boot_rig(files=files, wedged=True)
    rig.daxd.configure(init_flags="+WRITEBACK_CACHE")
    rig.guest.mount("daxd", "/mnt")
    rig.daxd.hold("WRITE")
    task = rig.guest.spawn_python(
        """
import errno, os
fd = os.open("/mnt/file", os.O_RDWR)
for number in range(100):
    os.pwrite(fd, b"x" * 10000, number * 10000)
def name(call):
    try:
        call(fd)
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]
print(name(os.fsync), name(os.close))
"""
    )
    rig.daxd.wait_for_held()
    rig.guest.shares[0].process.kill()
    rig.guest.run("umount -f /mnt", check=False)
    assert task.wait().stdout.split()[0] in ("ENOTCONN", "EIO")
    # Unless the file was closed before the first one looked.
    rig.guest.run("umount /mnt", check=False)
    assert rig.guest.run("mountpoint -q /mnt", check=False).rc == 32


# Writes to a file that it has open, as soon as it is told to.
WRITE_LATER = """
import os, time
fd = os.open("/mnt/file", os.O_WRONLY)
open("/run/opened", "w")
while not os.path.exists("/run/store"):
    time.sleep(0.01)
os.pwrite(fd, b"y", 10)
"""


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize("flags", ["", "+WRITEBACK_CACHE"], ids=["through", "later"])
def test_writer_behind_a_reader(rig, flags):
    """Who writes to a page that somebody else reads waits for that, and can be killed."""
    rig.tree.file("file", b"x" * 2 * PAGE)
    rig.daxd.configure(init_flags=flags)
    rig.guest.mount("daxd", "/mnt")
    rig.guest.run("rm -f /run/opened /run/store")
    writer = rig.guest.spawn_python(WRITE_LATER)
    wait_for(rig, "/run/opened")
    rig.daxd.hold("READ")
    reader = rig.guest.spawn_python("import os; print(os.pread(os.open('/mnt/file', os.O_RDONLY), 1, 0))")
    rig.daxd.wait_for_held()
    rig.guest.run("touch /run/store")
    blocked(rig.guest, writer)
    writer.kill()
    assert writer.wait().rc == 128 + signal.SIGKILL
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert reader.wait().rc == 0
    rig.guest.umount("/mnt")
    rig.unmounted()
    assert (rig.tree / "file").read_bytes() == b"x" * 2 * PAGE
