# SPDX-License-Identifier: GPL-2.0
"""Which files the window shows; and what becomes of it when the daemon refuses, when tasks are killed, and when the device goes."""

import hashlib
import os
import signal
import struct

import pytest
from conftest import blocked, kill_while_held

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}, "ports": True}
DRIVER = "/sys/bus/virtio/drivers/virtiofs"


def files(tree):
    """What is shared."""
    tree.file("marked", 3 * MEG)
    tree.file("other", 3 * MEG, seed=1)
    tree.file("huge", 40 * MEG)


@pytest.fixture
def guest(rig):
    """The guest, where nothing is mounted; afterwards nothing is, and the daemon marks no file."""
    rig.daxd.configure(inode_dax="off")
    yield rig.guest
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.run("umount -A /mnt", check=False)
    rig.daxd.configure(inode_dax="off")


# What the window tells of itself.
WINDOW = "mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug; cat /sys/kernel/debug/virtiofs/*/window"


def window(guest):
    """The same, by name."""
    lines = guest.out(WINDOW).splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def maps(rig):
    """Ranges that are mapped now."""
    return rig.daxd.counters()["live"]["maps"]


def setups(rig):
    """Ranges that were mapped so far."""
    return rig.daxd.counters()["dax"]["setup"]


def maps_of(rig, name):
    """The ranges of a file that are mapped now: by place in the file the place in the window."""
    path = os.path.realpath(rig.tree / name)
    nodes = {inode["nodeid"] for inode in rig.daxd.live()["inodes"] if inode["path"] == path}
    return {entry["foffset"]: entry["moffset"] for entry in rig.daxd.maps() if entry["nodeid"] in nodes}


# Takes ranges from all others: page faults that bring in code are always given some. Arguments: how often.
CHURN = """
import mmap, os, sys
fd = os.open("/mnt/huge", os.O_RDONLY)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC) as m:
    for _ in range(int(sys.argv[1])):
        for at in range(0, len(m), 1 << 20):
            m[at]
"""


def same(rig, name):
    """Whether the guest reads what the host has."""
    want = hashlib.md5((rig.tree / name).read_bytes()).hexdigest()
    return rig.guest.out(f"md5sum </mnt/{name}").split()[0] == want


@pytest.mark.parametrize("options", ["", "dax=inode"])
def test_marked_files(rig, guest, options):
    """Files that the daemon marks are mapped, the others are cached. A mark that changes counts for the next inode."""
    rig.daxd.configure(inode_dax="listed", attr_timeout=0, entry_timeout=0)
    rig.daxd.mark_dax("marked")
    guest.mount("daxd", options=options)
    assert same(rig, "other")
    assert setups(rig) == 0
    assert same(rig, "marked")
    assert setups(rig) > 0
    rig.daxd.mark_dax("other")
    guest.run("stat /mnt/other /mnt/marked")
    before = setups(rig)
    assert same(rig, "other")
    assert setups(rig) > before
    rig.daxd.mark_dax("other", False)
    rig.daxd.mark_dax("marked", False)
    guest.umount()
    rig.unmounted()


def test_unmarked_files_are_cached(rig, guest):
    """Beside a marked file, which is not read by requests at all, the other one is read once; both take writes and mappings."""
    rig.daxd.configure(inode_dax="listed")
    rig.daxd.mark_dax("marked")
    guest.mount("daxd", options="dax=inode")
    hand = rig.hand
    assert hand.do("fds = [os.open(f'/mnt/{name}', os.O_RDWR) for name in ('marked', 'other')]") == "OK"
    assert hand.do("areas = [mmap.mmap(fd, 0) for fd in fds]; first = [os.pread(fd, 3 << 20, 0) for fd in fds]") == "OK"
    for _ in range(3):
        assert hand.do("assert [os.pread(fd, 3 << 20, 0) for fd in fds] == first == [area[:] for area in areas]") == "OK"
    assert rig.daxd.counters()["bytes"]["read"] == 3 * MEG
    assert maps_of(rig, "marked") and not maps_of(rig, "other")
    assert hand.do("[os.pwrite(fd, b'written', 5000) for fd in fds]") == "OK"
    assert hand.do("assert [area[5000:5007] for area in areas] == [b'written'] * 2") == "OK"
    assert same(rig, "marked") and same(rig, "other")
    assert hand.do("[area.close() for area in areas]; [os.close(fd) for fd in fds]") == "OK"
    rig.daxd.mark_dax("marked", False)
    guest.umount()
    rig.unmounted()


STATX_ATTR_DAX = 0x200000
# MAP_SHARED_VALIDATE with MAP_SYNC.
MAP_SYNC = 0x80003


def test_told_apart(rig, guest):
    """statx(2) tells what is in the window. A mapping that promises that what was stored is on the disk is to be had of neither."""
    rig.daxd.configure(inode_dax="listed")
    rig.daxd.mark_dax("marked")
    guest.mount("daxd", options="dax=inode")
    for name, expected in (("marked", STATX_ATTR_DAX), ("other", 0)):
        assert rig.hand.do(f"[bits & {STATX_ATTR_DAX} for bits in statx('/mnt/{name}')]") == "OK"
        assert rig.hand.value[0] == expected, name
        assert rig.hand.do(f"fd = os.open('/mnt/{name}', os.O_RDWR); mmap.mmap(fd, 4096)[0]") == "OK"
        assert rig.hand.do(f"mmap.mmap(fd, 4096, flags={MAP_SYNC})") == "ENOTSUP"
        assert rig.hand.do("os.close(fd)") == "OK"
    assert setups(rig) > 0
    rig.daxd.mark_dax("marked", False)
    guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("options", ["dax=never", "dax=inode", ""])
def test_not_mapped(rig, guest, options):
    """Without a mark, or with dax=never, nothing is mapped, and the daemon is not told that it could be with the latter."""
    rig.daxd.configure(inode_dax="all" if options == "dax=never" else "off")
    guest.mount("daxd", options=options)
    assert same(rig, "marked")
    guest.umount()
    assert setups(rig) == 0
    rig.unmounted()


@pytest.mark.parametrize("error", ["ENOMEM", "EIO", "ENOSYS", "EOPNOTSUPP"])
@pytest.mark.parametrize("skip", [0, 1])
def test_setup_fails(rig, guest, error, skip):
    """Where the daemon cannot map, it is asked for the bytes, with one line in the log; a mapping gets SIGBUS."""
    guest.mount("daxd", options="dax=always")
    rig.daxd.set_fault("error", "SETUPMAPPING", errno=error, skip=skip)
    assert same(rig, "marked")
    assert rig.daxd.count("READ") > 0
    assert setups(rig) == skip
    out = guest.python(
        """
import mmap, os
fd = os.open("/mnt/other", os.O_RDWR)
assert os.pwrite(fd, b"bypassed", 2 << 20) == 8 and os.pread(fd, 8, 2 << 20) == b"bypassed"
m = mmap.mmap(fd, 0)
if os.fork() == 0:
    m[0]
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ).stdout
    assert int(out) == -signal.SIGBUS
    assert guest.dmesg().count("does not map files into the window") >= 1
    rig.daxd.clear_faults()
    guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


def test_killed_while_it_maps(rig, guest):
    """The reply to a SETUPMAPPING whose task was killed makes the range usable all the same; none is lost."""
    guest.mount("daxd", options="dax=always")
    for opcode in ("SETUPMAPPING", "REMOVEMAPPING"):
        rig.daxd.hold(opcode)
        kill_while_held(rig, guest.spawn("exec cat /mnt/huge >/dev/null"))
        assert same(rig, "huge")
    assert rig.daxd.counters()["dax"]["setup_occupied"] == 0
    guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


@pytest.mark.parametrize("copy", ["os.write(ends[1], part)", "os.readv(ends[0], [part])"], ids=["from", "to"])
def test_killed_while_the_kernel_copies(rig, guest, copy):
    """A system call that copies from or to a mapping, whose range does not come, can be killed."""
    guest.mount("daxd", options="dax=always")
    rig.daxd.hold("SETUPMAPPING")
    task = guest.spawn_python(
        f"""
import mmap, os
ends = os.pipe()
os.write(ends[1], bytes(100))
part = memoryview(mmap.mmap(os.open("/mnt/huge", os.O_RDWR), 0, prot=7))[:100]
{copy}
"""
    )
    kill_while_held(rig, task)
    assert same(rig, "huge")
    guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


def test_killed_before_a_forced_unmount(rig, guest):
    """An answer that nobody waits for, and that never comes, does not keep the share mounted."""
    guest.mount("daxd", options="dax=always")
    rig.daxd.hold("SETUPMAPPING")
    task = guest.spawn("exec cat /mnt/huge >/dev/null")
    rig.daxd.wait_for_held()
    blocked(guest, task)
    task.kill()
    assert task.wait().rc != 0
    guest.run("umount -f /mnt", check=False)
    guest.run("umount /mnt", check=False)
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    rig.daxd.clear_faults()
    rig.daxd.release()
    guest.mount("daxd", options="dax=always")
    before = setups(rig)
    assert same(rig, "huge") and setups(rig) > before
    guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("killed", [False, True], ids=["waiting", "killed"])
@pytest.mark.parametrize("opcode", ["SETUPMAPPING", "REMOVEMAPPING"])
def test_left_behind(rig, guest, opcode, killed):
    """The window is nobody's as long as the daemon may still carry out what an aborted session has asked for it."""
    hand = rig.hand
    guest.mount("daxd", options="dax=always")
    rig.daxd.hold(opcode)
    task = guest.spawn("exec cat /mnt/huge >/dev/null")
    rig.daxd.wait_for_held()
    blocked(guest, task)
    if killed:
        task.kill()
        assert task.wait().rc != 0
    guest.run("umount -f /mnt", check=False)
    task.wait()
    guest.run("umount /mnt", check=False)
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    assert guest.out(WINDOW) == "awaited"
    # With the held one still in the ring.
    rig.daxd.clear_faults()
    hand.lines("None")
    done, logged = hand.lines("call('mount', b'daxd', b'/mnt', b'virtiofs', 0, b'dax=always')")
    assert done == "EINVAL" and sum("has not answered" in line for line in logged) == 1, logged
    guest.mount("daxd", options="dax=inode")
    before = setups(rig)
    assert same(rig, "other") and setups(rig) == before
    guest.umount()
    assert guest.out(WINDOW) == "awaited"
    rig.daxd.release()
    guest.wait_until(lambda: guest.out(WINDOW) == "unused", "the window is free")
    guest.mount("daxd", options="dax=always")
    assert same(rig, "huge") and setups(rig) > before
    guest.umount()
    assert guest.out(WINDOW) == "unused"
    rig.unmounted()


def test_gone_before_it_is_mapped_ahead(rig, guest):
    """A file that is removed while room is made to map its next part ahead is not mapped any more."""
    guest.mount("daxd", options="dax=always")
    hand = rig.hand
    assert hand.do("fd = os.open('/mnt/huge', os.O_RDONLY); area = mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)") == "OK"
    assert hand.do("[area[part << 21] for part in range(18, 4, -2)]") == "OK"
    rig.daxd.hold("REMOVEMAPPING")
    guest.run("dd if=/mnt/other of=/dev/null bs=64k count=24 status=none")
    rig.daxd.wait_for_held()
    # There was room for its first part, and what goes for the second one is of the other file.
    assert setups(rig) == 8 and set(maps_of(rig, "other")) == {0}
    asked = rig.daxd.count("SETUPMAPPING")
    guest.run("rm /mnt/other")
    room, own = rig.daxd.wait_for_held(2)
    assert room["nodeid"] != own["nodeid"]
    rig.daxd.release(ids=[own["id"]])
    rig.daxd.wait_until(lambda _: own["nodeid"] not in {inode["nodeid"] for inode in rig.daxd.live()["inodes"]}, "it is forgotten")
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert hand.do("area.close(); os.close(fd)") == "OK"
    guest.umount()
    assert rig.daxd.count("SETUPMAPPING") == asked and maps(rig) == 0
    rig.unmounted()
    files(rig.tree)


def test_unused_inodes_give_their_ranges_back(rig, guest):
    """When memory is short, inodes go, and their ranges with them, before the daemon forgets them."""
    guest.mount("daxd", options="dax=always")
    assert same(rig, "marked") and same(rig, "other")
    assert maps(rig) > 1
    guest.run("sync; echo 2 >/proc/sys/vm/drop_caches")
    rig.daxd.wait_until(lambda counters: counters["live"]["maps"] == 0, "nothing is mapped")
    assert same(rig, "marked")
    guest.umount()
    rig.unmounted()


# Has a pipe hold pages of a mapping.
PIN = """
import ctypes, mmap, os
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
def pin(area, start, length, writer):
    place = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert ctypes.CDLL(None).vmsplice(writer, ctypes.byref(iovec(place + start, length)), 1, 0) == length
"""


def test_pinned_pages(rig, guest):
    """What a pipe holds of a mapping stays what and where it was, while ranges of others are taken; it can go afterwards."""
    guest.mount("daxd", options="dax=always")
    hand = rig.hand
    pin = """
fds = [os.open(f"/mnt/{name}", os.O_RDWR) for name in ("other", "marked")]
areas = [mmap.mmap(fd, 0) for fd in fds]
want = [bytes(area[8192:16384]) for area in areas]
reader, writer = os.pipe()
pin(areas[0], 8192, 8192, writer)
"""
    assert hand.do(PIN + pin) == "OK"
    pinned, free = maps_of(rig, "other")[0], maps_of(rig, "marked")[0]
    rig.daxd.configure(trace=2000)
    guest.python(CHURN, 12, timeout=120)
    gone = removed(rig)
    rig.daxd.configure(trace=0)
    assert free in gone and pinned not in gone
    assert window(guest)["cancelled"] > 0
    assert maps_of(rig, "other")[0] == pinned
    assert hand.do("got = os.read(reader, 8192); assert got == want[0]") == "OK"
    assert hand.do("areas[0][8192:8196] = b'more'; assert os.pread(fds[0], 4, 8192) == b'more'") == "OK"
    assert hand.do("assert areas[1][8192:16384] == want[1]") == "OK"
    assert (rig.tree / "other").read_bytes()[8192:8196] == b"more"
    assert hand.do("[area.close() for area in areas]; [os.close(fd) for fd in (*fds, reader, writer)]") == "OK"
    guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


def removed(rig):
    """Places in the window that REMOVEMAPPING was sent for, as far as the daemon kept a record."""
    places = set()
    for entry in rig.daxd.trace():
        if entry["opcode"] == "REMOVEMAPPING":
            args = bytes.fromhex(entry["args"])
            places |= {struct.unpack_from("<Q", args, at)[0] for at in range(4, len(args) - 15, 16)}
    return places


@pytest.mark.parametrize("opcode", ["READ", "WRITE"])
def test_buffers_leave_the_window(rig, guest, opcode):
    """Direct I/O of a file that is not in the window, with a mapping of one that is as its buffer: others take the range of that
    before the answer comes, and what is read is where it belongs all the same."""
    rig.daxd.configure(inode_dax="listed")
    for name in ("marked", "huge"):
        rig.daxd.mark_dax(name)
    guest.mount("daxd")
    call = "preadv" if opcode == "READ" else "pwritev"
    rig.daxd.hold(opcode, count=1)
    task = guest.spawn_python(
        f"""
import mmap, os
window, plain = os.open("/mnt/marked", os.O_RDWR), os.open("/mnt/other", os.O_RDWR | os.O_DIRECT)
m = mmap.mmap(window, 0)
assert os.{call}(plain, [memoryview(m)[0:1 << 20]], 0) == 1 << 20
"""
    )
    rig.daxd.wait_for_held()
    blocked(guest, task)
    before = maps_of(rig, "marked")
    rig.daxd.configure(trace=2000)
    guest.python(CHURN, 12, timeout=120)
    gone = removed(rig)
    rig.daxd.configure(trace=0)
    assert before[0] in gone and 0 not in maps_of(rig, "marked")
    assert rig.daxd.release() == 1
    result = task.wait()
    assert result.rc == 0, result
    one, two = ((rig.tree / name).read_bytes() for name in ("marked", "other"))
    assert one[:MEG] == two[:MEG] and one[MEG:] != two[MEG:]
    guest.umount()
    for name in ("marked", "huge"):
        rig.daxd.mark_dax(name, False)
    assert maps(rig) == 0
    rig.unmounted()


def test_direct_io_between_mapped_files(rig, guest):
    """The buffer of a read or write may itself be a mapping of a file in the window."""
    guest.mount("daxd", options="dax=always")
    guest.python(
        """
import mmap, os
one, two = (os.open(f"/mnt/{name}", os.O_RDWR | os.O_DIRECT) for name in ("marked", "other"))
m = mmap.mmap(two, 0)
assert os.preadv(one, [memoryview(m)[0:2 << 20]], 0) == 2 << 20
assert os.pread(two, 4096, 1 << 20) == os.pread(one, 4096, 1 << 20)
assert os.pwritev(one, [memoryview(m)[4096:8192]], 0) == 4096
# Beyond the end: it is sent.
assert os.pwritev(one, [memoryview(m)[4096:12288]], 3 << 20) == 8192
"""
    )
    one, two = ((rig.tree / name).read_bytes() for name in ("marked", "other"))
    assert one[4096 : 2 * MEG] == two[4096 : 2 * MEG] and one[:4096] == two[4096:8192] and one[3 * MEG :] == two[4096:12288]
    assert setups(rig) > 0
    guest.umount()
    rig.unmounted()


def test_buffers_in_the_window(rig, guest):
    """A file that is not in the window is read into, and written from, a mapping of one that is."""
    rig.daxd.configure(inode_dax="listed")
    rig.daxd.mark_dax("marked")
    guest.mount("daxd")
    guest.python(
        """
import mmap, os
window, plain = os.open("/mnt/marked", os.O_RDWR), os.open("/mnt/other", os.O_RDWR | os.O_DIRECT)
m = mmap.mmap(window, 0)
assert os.preadv(plain, [memoryview(m)[0:2 << 20]], 0) == 2 << 20
assert os.pwritev(plain, [memoryview(m)[4096:8192]], 2 << 20) == 4096
"""
    )
    one, two = ((rig.tree / name).read_bytes() for name in ("marked", "other"))
    assert one[: 2 * MEG] == two[: 2 * MEG] and two[2 * MEG : 2 * MEG + 4096] == one[4096:8192]
    assert setups(rig) > 0
    rig.daxd.mark_dax("marked", False)
    guest.umount()
    rig.unmounted()


def test_forced_unmount(rig, guest):
    """Who waits for the daemon in a page fault gets SIGBUS; the next mount has the window again."""
    guest.mount("daxd", options="dax=always")
    assert same(rig, "marked")
    rig.daxd.hold("SETUPMAPPING")
    task = guest.spawn_python("import mmap, os; mmap.mmap(os.open('/mnt/other', os.O_RDWR), 0)[0]")
    rig.daxd.wait_for_held()
    blocked(guest, task)
    guest.run("umount -f /mnt", check=False)
    assert task.wait().rc == 128 + signal.SIGBUS
    guest.run("umount -A /mnt", check=False)
    rig.daxd.clear_faults()
    rig.daxd.release()
    guest.mount("daxd", options="dax=always")
    before = setups(rig)
    assert same(rig, "other")
    assert setups(rig) > before
    guest.umount()
    assert maps(rig) == 0


def test_unbind_while_mounted(rig, guest):
    """The device goes while a process has pages of it: SIGBUS for that one, and after a new bind all is as before."""
    files(rig.tree)
    guest.mount("daxd", options="dax=always")
    task = guest.spawn_python(
        """
import mmap, os, time
fd = os.open("/mnt/other", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0], m[2 << 20]
open("/run/mapped", "w")
while os.path.exists("/run/mapped"):
    time.sleep(0.01)
m[0]
"""
    )
    guest.wait_until(lambda: guest.run("test -e /run/mapped", check=False).rc == 0, "it is mapped")
    assert maps(rig) > 0
    device = f"virtio{rig.device()}"
    guest.run(f"echo {device} >{DRIVER}/unbind")
    assert maps(rig) == 0
    guest.run("rm /run/mapped")
    assert task.wait().rc == 128 + signal.SIGBUS
    assert guest.run("cat /mnt/other", check=False).rc != 0
    guest.umount()
    guest.run(f"echo {device} >{DRIVER}/bind")
    guest.mount("daxd", options="dax=always")
    before = setups(rig)
    assert same(rig, "other")
    assert setups(rig) > before
    guest.umount()
    assert os.path.getsize(rig.tree / "other") == 3 * MEG


def test_stores_to_both_kinds(rig, guest):
    """Pages of files that the window shows and of those that it does not are stored to in the same mount: locks are taken in one order."""
    rig.daxd.configure(inode_dax="listed")
    rig.daxd.mark_dax("marked")
    guest.mount("daxd", options="dax=inode")
    for name in ("marked", "other", "marked"):
        rig.hand.do(f"fds = [os.open('/mnt/{name}', os.O_RDWR)]; area = mmap.mmap(fds[0], 0)")
        assert rig.hand.do("area[0] = 1; area[1 << 20] = 2; area.flush()") == "OK"
        rig.hand.do("area.close(); os.close(fds[0])")
        data = (rig.tree / name).read_bytes()
        assert (data[0], data[1 << 20]) == (1, 2)
    assert setups(rig) > 0
    rig.daxd.mark_dax("marked", False)
    guest.umount()
    rig.unmounted()
