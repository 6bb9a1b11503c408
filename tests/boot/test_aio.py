# SPDX-License-Identifier: GPL-2.0
"""Direct reads and writes that nobody waits for (io_submit(2), io_uring), and those that are done in parts."""

import hashlib
import random

import aio
import pytest
from conftest import blocked, running

MIB = 1 << 20
BIG = random.Random(5).randbytes(4 * MIB + 1000)
RIG = {"daxd": {"queue_size": 1024}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}

each_kind = pytest.mark.parametrize("kind", ["Aio", "Uring"])


def sha256(data):
    """The checksum of bytes."""
    return hashlib.sha256(data).hexdigest()


def files(tree):
    """Fills the share."""
    tree.file("big", BIG)


def unmount(rig):
    """Unmounts; this driver has given back all it had then."""
    rig.guest.umount()
    if rig.options["driver"] == "rust":
        rig.unmounted()
    assert rig.daxd.complaints() == []


@pytest.fixture
def attributes_stay(rig):
    """A daemon whose attributes are good for long, and say nothing of what is cached: contents are dropped for other reasons alone."""
    rig.daxd.configure(init_flags="-AUTO_INVAL_DATA", attr_timeout=3600, entry_timeout=3600)


@pytest.fixture
def mounted(rig):
    """A rig with its share mounted, and what is needed for asynchronous reads and writes in the hand; judged at its end."""
    rig.guest.mount("daxd")
    (rig.tree.path / "big").write_bytes(BIG)
    assert rig.hand.do(aio.SOURCE) == "OK"
    assert rig.hand.do("fd = os.open('/mnt/big', os.O_RDWR | os.O_DIRECT)") == "OK"
    yield rig
    if rig.hand.do("os.close(fd)") == "OK":
        unmount(rig)


def value(rig, expression):
    """What an expression is in the guest."""
    assert rig.hand.do(expression) == "OK", expression
    return rig.hand.value


def content(rig, name="big"):
    """A file as the host sees it."""
    return (rig.tree.path / name).read_bytes()


@each_kind
def test_reads_under_way(mounted, kind):
    """Submitting reads does not wait for them: all are with the daemon at once, end in any order, and bring what is there."""
    rig = mounted
    rig.daxd.hold("READ")
    statement = (
        f"io = {kind}(); areas = [buffer(8192) for _ in range(8)]\n"
        "assert io.submit(*[('read', fd, area, 8192, 100000 * i) for i, area in enumerate(areas)]) == 8"
    )
    assert rig.hand.do(statement) == "OK"
    rig.daxd.wait_for_held(8)
    rig.daxd.clear_faults()
    rig.daxd.release(reverse=True)
    assert value(rig, "sorted(io.wait(8).items())") == [[i, 8192] for i in range(8)]
    for i in range(8):
        assert value(rig, f"hashlib.sha256(areas[{i}]).hexdigest()") == sha256(BIG[100000 * i :][:8192])


@each_kind
def test_writes_under_way(mounted, kind):
    """As reads: within the file, writes are with the daemon at once, and arrive where they should."""
    rig = mounted
    rig.daxd.hold("WRITE")
    statement = (
        f"io = {kind}(); areas = [buffer(4096, bytes([65 + i]) * 4096) for i in range(8)]\n"
        "assert io.submit(*[('write', fd, area, 4096, 4096 * 3 * i) for i, area in enumerate(areas)]) == 8"
    )
    assert rig.hand.do(statement) == "OK"
    rig.daxd.wait_for_held(8)
    rig.daxd.clear_faults()
    rig.daxd.release(reverse=True)
    assert value(rig, "sorted(io.wait(8).items())") == [[i, 4096] for i in range(8)]
    expected = bytearray(BIG)
    for i in range(8):
        expected[4096 * 3 * i : 4096 * (3 * i + 1)] = bytes([65 + i]) * 4096
    assert content(rig) == expected


@each_kind
def test_extending_writes(mounted, kind):
    """A write that makes the file longer does so, and the size is known when it is done."""
    rig = mounted
    size = len(BIG)
    statement = (
        f"io = {kind}(); area = buffer(2 << 20, b'z' * (2 << 20))\n"
        f"assert io.run(('write', fd, area, 2 << 20, {size - 500})) == [2 << 20]\n"
        f"assert os.fstat(fd).st_size == {size - 500 + 2 * MIB}\n"
        f"assert io.run(('write', fd, area, 512, {size + 5 * MIB})) == [512]\n"
        f"assert os.fstat(fd).st_size == {size + 5 * MIB + 512}"
    )
    assert rig.hand.do(statement) == "OK"
    assert content(rig)[size - 500 :] == b"z" * 2 * MIB + bytes(3 * MIB + 500) + b"z" * 512


@each_kind
def test_end_of_file(mounted, kind):
    """Reads across the end are short, and behind it 0, for whoever does not wait, too."""
    rig = mounted
    size = len(BIG)
    statement = (
        f"io = {kind}(); area = buffer(3 << 20)\n"
        f"assert io.run(('read', fd, area, 4096, {size - 1000})) == [1000]\n"
        f"assert io.run(('read', fd, area, 4096, {size}), ('read', fd, area, 8192, {size + 123456})) == [0, 0]\n"
        f"assert io.run(('read', fd, area, 3 << 20, {size - MIB - 1000})) == [{MIB + 1000}]\n"
        "assert io.run(('read', fd, area, 0, 0), ('write', fd, area, 0, 0)) == [0, 0]"
    )
    assert rig.hand.do(statement) == "OK"


@pytest.mark.parametrize(
    "flags", ["", pytest.param("DIRECT_IO", marks=pytest.mark.beyond_c("it sends the parts one after the other"))]
)
@pytest.mark.parametrize("what", ["read", "write"])
def test_parts_side_by_side(rig, what, flags):
    """The parts of one large read or write that is waited for are with the daemon at once."""
    rig.daxd.configure(open_flags=flags)
    (rig.tree.path / "big").write_bytes(BIG)
    rig.guest.mount("daxd")
    rig.daxd.hold(what.upper())
    task = rig.guest.spawn_python(
        aio.SOURCE
        + "fd = os.open('/mnt/big', os.O_RDWR | os.O_DIRECT)\narea = buffer(4 << 20, b'w' * (4 << 20))\n"
        + f"print(os.{'preadv' if what == 'read' else 'pwritev'}(fd, [area], 0))\n"
        + "import hashlib\nprint(hashlib.sha256(area).hexdigest())"
    )
    rig.daxd.wait_for_held(4)
    rig.daxd.clear_faults()
    rig.daxd.release(reverse=True)
    assert task.wait().stdout.split() == [str(4 * MIB), sha256(BIG[: 4 * MIB] if what == "read" else b"w" * 4 * MIB)]
    assert rig.daxd.count(what.upper()) == 4
    if what == "write":
        assert content(rig) == b"w" * 4 * MIB + BIG[4 * MIB :]
    unmount(rig)


WAITED = "[os.preadv(fd, [memoryview(area)[:{len}]], 0)]"
QUEUED = "{kind}().run(('read', fd, area, {len}, 0))"


def read_in_parts(rig, kind, length=3 * MIB):
    """Reads the start of the file: how many bytes there are, and whether they are right."""
    expression = (WAITED if kind == "waited" else QUEUED).format(kind=kind, len=length)
    assert rig.hand.do("area = buffer(4 << 20)") == "OK"
    done = value(rig, expression)[0]
    if isinstance(done, int):
        assert value(rig, f"hashlib.sha256(memoryview(area)[:{done}]).hexdigest()") == sha256(BIG[:done])
    return done


waited = pytest.param("waited", marks=pytest.mark.ours("it reads the rest through its page cache"))


@pytest.mark.parametrize("kind", [waited, "Aio", "Uring"])
def test_short_part(mounted, kind):
    """Where a part brings less than it should, the read ends, whatever comes with the parts behind it."""
    mounted.daxd.set_fault("truncate", "READ", len=16 + 1000, skip=1, count=1)
    assert read_in_parts(mounted, kind) == MIB + 1000


@pytest.mark.parametrize(
    "kind", [waited, *[pytest.param(kind, marks=pytest.mark.beyond_c("any error is the result")) for kind in ("Aio", "Uring")]]
)
def test_failed_part(mounted, kind):
    """A part that fails behind others ends the read before it."""
    mounted.daxd.set_fault("error", "READ", errno="EIO", skip=2, count=1)
    assert read_in_parts(mounted, kind) == 2 * MIB


@each_kind
def test_errors(mounted, kind):
    """The daemon's error is the result, also when it is nonsense; a buffer that is none is EFAULT at once or later."""
    rig = mounted
    for what in ("read", "write"):
        for do, members, expected in (
            ("error", {"errno": "ENOSPC"}, "ENOSPC"),
            ("used_len", {"value": 3}, "EIO"),
            ("unique", {"add": 2}, "EIO"),
        ):
            number = rig.daxd.set_fault(do, what.upper(), count=1, **members)
            assert value(rig, f"{kind}().run(('{what}', fd, buffer(4096), 4096, 0))") == [expected], (what, do)
            rig.daxd.clear_fault(number)
    assert content(rig) == BIG or content(rig)[4096:] == BIG[4096:]


def test_cached_pages(rig, attributes_stay, mounted):
    """What the page cache had of a file is not seen any more after a write past it; nor what a mapping had."""
    statement = (
        "plain = os.open('/mnt/big', os.O_RDONLY); shown = mmap.mmap(plain, 16384, prot=mmap.PROT_READ)\n"
        "os.pread(plain, 16384, 0); shown[:16384]; area = buffer(8192, b'n' * 8192)\n"
        "assert Aio().run(('write', fd, area, 8192, 4096)) == [8192]\n"
        "assert os.pread(plain, 16384, 0)[4096:12288] == b'n' * 8192\n"
        "assert shown[4096:12288] == b'n' * 8192\n"
        "shown.close(); os.close(plain)"
    )
    assert rig.hand.do(statement) == "OK"


@pytest.mark.beyond_c("it does so for writes alone that are waited for")
def test_synchronous(mounted):
    """O_DSYNC and RWF_DSYNC bring what was written to stable storage before it is done."""
    rig = mounted
    statement = (
        "area = buffer(4096, b's' * 4096); other = os.open('/mnt/big', os.O_RDWR | os.O_DIRECT | os.O_DSYNC)\n"
        "assert Aio().run(('write', other, area, 4096, 0)) == [4096]; os.close(other)"
    )
    assert rig.hand.do(statement) == "OK"
    assert rig.daxd.count("FSYNC") == 1
    assert value(rig, "Aio().run(('write', fd, area, 4096, 8192, 2))") == [4096]
    assert rig.daxd.count("FSYNC") == 2


def test_into_a_mapping(mounted):
    """What is read into a shared mapping of another file reaches that file."""
    rig = mounted
    rig.tree.file("target", bytes(MIB))
    statement = (
        "other = os.open('/mnt/target', os.O_RDWR); area = mmap.mmap(other, 1 << 20)\n"
        "area[5000] = 1\n"
        "assert Aio().run(('read', fd, area, 1 << 20, 4096)) == [1 << 20]\n"
        "os.fsync(other); os.close(other); area.close()"
    )
    assert rig.hand.do(statement) == "OK"
    assert content(rig, "target") == BIG[4096 : 4096 + MIB]


def test_killed_with_reads_under_way(mounted):
    """A process that is killed with reads under way leaves nothing behind; its memory stays until the daemon has answered."""
    rig = mounted
    rig.daxd.hold("READ")
    task = rig.guest.spawn_python(
        aio.SOURCE
        + "fd = os.open('/mnt/big', os.O_RDONLY | os.O_DIRECT)\nareas = [buffer(65536) for _ in range(8)]\n"
        + "a, u = Aio(), Uring()\nfor io in a, u:\n"
        + "    io.submit(*[('read', fd, area, 65536, 65536 * i) for i, area in enumerate(areas)])\na.wait(1)"
    )
    rig.daxd.wait_for_held(16)
    task.kill()
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.wait_until(lambda: not running(rig.guest, task), "the task is gone")


@pytest.mark.beyond_c("umount -f does nothing, and unbind waits for the answers")
@pytest.mark.parametrize("how", ["umount", "unbind"])
def test_connection_ends_with_reads_under_way(boot_rig, how):
    """When the connection ends, what is under way ends with ENOTCONN, and the device touches no memory afterwards."""
    rig = boot_rig(files, daxd=RIG["daxd"])
    rig.guest.mount("daxd")
    rig.daxd.hold(["READ", "WRITE"])
    task = rig.guest.spawn_python(
        aio.SOURCE
        + "fd = os.open('/mnt/big', os.O_RDWR | os.O_DIRECT)\nareas = [buffer(65536) for _ in range(8)]\n"
        + "io, kinds = [Aio(), Uring()], 'read write read'.split()\n"
        + "for one in io:\n    one.submit(*[(kind, fd, area, 65536, 65536 * i) for i, (kind, area) in enumerate(zip(kinds, areas))])\n"
        + "print([sorted(one.wait(3).items()) for one in io])"
    )
    rig.daxd.wait_for_held(6)
    if how == "umount":
        rig.guest.spawn("umount -f /mnt")
    else:
        rig.guest.spawn("cd /sys/bus/virtio/drivers/virtiofs; for d in virtio*; do echo $d >unbind; done")
    ended = [(number, "ENOTCONN") for number in range(3)]
    assert task.wait().stdout.strip() == repr([ended, ended])
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.run("umount /mnt", check=False)
    assert rig.guest.run("mountpoint -q /mnt", check=False).rc == 32


@pytest.mark.beyond_c("its files cannot be read without waiting")
def test_nowait(mounted):
    """RWF_NOWAIT gives what is in memory, else EAGAIN; direct reads and writes are submitted all the same."""
    rig = mounted
    nowait = 8
    statement = (
        "plain = os.open('/mnt/big', os.O_RDONLY)\nlibc.posix_fadvise(plain, ctypes.c_long(0), ctypes.c_long(0), 4)\n"
        "os.preadv(plain, [bytearray(10)], 3 << 20)"
    )
    assert rig.hand.do(statement) == "OK"
    assert value(rig, f"os.preadv(plain, [bytearray(10)], 3 << 20, {nowait})") == 10
    assert rig.hand.do(f"os.preadv(fd, [buffer(4096)], 0, {nowait})") == "EAGAIN"
    area = "buffer(4096, b'q' * 4096)"
    assert value(rig, f"Aio().run(('read', fd, buffer(4096), 4096, 0, {nowait}))") == [4096]
    assert value(rig, f"Aio().run(('write', fd, {area}, 4096, 0, {nowait}))") == [4096]
    # What would have to wait says so: a write that extends the file, and one over pages that are cached.
    assert value(rig, f"Aio().run(('write', fd, {area}, 4096, {8 * MIB}, {nowait}))") == ["EAGAIN"]
    assert value(rig, f"Aio().run(('write', fd, {area}, 4096, 3 << 20, {nowait}))") == ["EAGAIN"]
    assert rig.hand.do("os.close(plain)") == "OK"


def test_nowait_where_nothing_is_cached(rig):
    """Files of a daemon that wants nothing cached do not know RWF_NOWAIT."""
    rig.daxd.configure(open_flags="DIRECT_IO")
    rig.guest.mount("daxd")
    assert rig.hand.do("fd = os.open('/mnt/big', os.O_RDWR)") == "OK"
    assert rig.hand.do("os.preadv(fd, [bytearray(10)], 0, 8)") == "ENOTSUP"
    assert rig.hand.do("os.pwritev(fd, [b'x'], 0, 8)") == "ENOTSUP"
    assert rig.hand.do("os.close(fd)") == "OK"
    unmount(rig)


def test_cancel(mounted):
    """What is under way cannot be cancelled, as on local filesystems, and goes on."""
    rig = mounted
    rig.daxd.hold("READ")
    assert rig.hand.do("context = Aio(); context.submit(('read', fd, buffer(4096), 4096, 0))") == "OK"
    rig.daxd.wait_for_held()
    cancel = "syscall(210, context.context, ctypes.addressof(context.kept[0]), ctypes.addressof((ctypes.c_int64 * 4)()))"
    assert rig.hand.do(cancel) == "EINVAL"
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert value(rig, "context.wait(1)[0]") == 4096
    assert rig.hand.do("context.destroy()") == "OK"


PARALLEL = """
import threading
def write(i):
    os.pwritev(fd, [buffer(4096, bytes([97 + i]) * 4096)], 4096 * i)
fd = os.open('/mnt/big', os.O_RDWR | os.O_DIRECT)
threads = [threading.Thread(target=write, args=[i]) for i in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("flags", ["DIRECT_IO,PARALLEL_DIRECT_WRITES", "DIRECT_IO"])
def test_parallel_direct_writes(rig, flags):
    """Writes of several tasks go side by side where the daemon says that they may, and else one after the other."""
    rig.daxd.configure(open_flags=flags)
    rig.guest.mount("daxd")
    rig.daxd.hold("WRITE")
    task = rig.guest.spawn_python(aio.SOURCE + PARALLEL)
    if "PARALLEL" in flags:
        rig.daxd.wait_for_held(3)
    else:
        rig.daxd.wait_for_held(1)
        blocked(rig.guest, task)
        assert rig.daxd.count("WRITE") == 1
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert task.wait().rc == 0
    assert content(rig)[: 3 * 4096] == b"a" * 4096 + b"b" * 4096 + b"c" * 4096
    unmount(rig)
