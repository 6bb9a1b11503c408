# SPDX-License-Identifier: GPL-2.0
"""Pages of the window that somebody has pinned, as a pipe does with those it was given by vmsplice(2): who needs them gone waits."""

import contextlib
import hashlib
import signal

import pytest
from conftest import blocked
from debugger import Debugger, spinning
from test_dax_modes import DRIVER, PIN, maps, maps_of, same, window

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}


def files(tree):
    """What is shared."""
    tree.file("other", 3 * MEG, seed=1)
    tree.file("huge", 40 * MEG)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with all files in the window; afterwards nothing is mapped."""
    files(rig.tree)
    rig.guest.mount("daxd", options="dax=always")
    yield rig
    rig.guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


# Reads a page, has the pipe /run/pins hold it, and then has the kernel copy to the range that shows it, which is read-only so far.
COPIES = """
import signal
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
area = mmap.mmap(os.open("/mnt/other", os.O_RDWR), 0)
area[0]
pin(area, 0, 4096, os.open("/run/pins", os.O_RDWR))
reader, writer = os.pipe()
os.write(writer, b"copied")
assert os.readv(reader, [memoryview(area)[8192:8198]]) == 6
assert seen == ["alarm"]
"""


@pytest.fixture
def pins(mounted):
    """A pipe with a name, in which pages can be left; they go with it. Nobody else has it open."""
    mounted.guest.run("rm -f /run/pins; mkfifo /run/pins")
    # Somebody has to keep it open, or its pages would go with a task that is killed.
    keeper = mounted.guest.spawn("exec sleep 1000 <>/run/pins")
    yield "/run/pins"
    keeper.kill()
    keeper.wait()


@pytest.mark.parametrize("killed", [False, True], ids=["drained", "killed"])
def test_signal_while_a_page_is_pinned(mounted, pins, killed):
    """A range is made writable when its pages are not pinned any more: until then a page fault sleeps, and only what ends the task ends
    that, also where the kernel copies to the mapping."""
    guest = mounted.guest
    before = (mounted.tree / "other").read_bytes()
    task = guest.spawn_python(PIN + COPIES)
    blocked(guest, task)
    task.kill(signal.SIGALRM)
    blocked(guest, task)
    if killed:
        task.kill()
        assert task.wait().rc == 128 + signal.SIGKILL
    guest.run(f"head -c 4096 {pins} >/dev/null")
    if not killed:
        result = task.wait()
        assert result.rc == 0, result
    after = (mounted.tree / "other").read_bytes()
    assert after == (before if killed else before[:8192] + b"copied" + before[8198:])
    assert same(mounted, "other")


CUTS = {
    "truncate": "os.truncate('/mnt/other', 5000)",
    "punch": "assert ctypes.CDLL(None).fallocate(os.open('/mnt/other', os.O_RDWR), 3, ctypes.c_long(5000), ctypes.c_long(70000)) == 0",
    "open": "os.open('/mnt/other', os.O_WRONLY | os.O_TRUNC)",
}


def cut(how, data):
    """What is left of bytes."""
    return {"truncate": data[:5000], "punch": data[:5000] + bytes(70000) + data[75000:], "open": b""}[how]


# Has a pipe hold two pages.
PIPE = """
fd, ends = os.open("/mnt/other", os.O_RDWR), os.pipe()
area = mmap.mmap(fd, 0)
pin(area, 8192, 8192, ends[1])
"""


@pytest.mark.parametrize("how", CUTS)
def test_cut_while_a_page_is_pinned(mounted, how):
    """What takes bytes out of a file waits for who has pinned them. These see what was there, and all others what is there afterwards."""
    guest, hand = mounted.guest, mounted.hand
    path = mounted.tree / "other"
    before = path.read_bytes()
    assert hand.do(PIN + PIPE) == "OK"
    task = guest.spawn_python(f"import ctypes, os\n{CUTS[how]}")
    blocked(guest, task)
    assert path.read_bytes() == before
    assert hand.do("os.read(ends[0], 8192).hex()") == "OK" and hand.value == before[8192:16384].hex()
    result = task.wait()
    assert result.rc == 0, result
    after = cut(how, before)
    assert path.read_bytes() == after
    assert hand.do("hashlib.sha256(os.pread(fd, 4 << 20, 0)).hexdigest()") == "OK" and hand.value == hashlib.sha256(after).hexdigest()
    if how == "punch":
        assert hand.do("hashlib.sha256(area).hexdigest()") == "OK" and hand.value == hashlib.sha256(after).hexdigest()
    assert hand.do("area.close(); [os.close(number) for number in (fd, *ends)]") == "OK"


def test_hole_beside_a_page_in_use(mounted):
    """A hole waits for who has one of its pages, and not for who has another page of the same range mapped."""
    guest, hand = mounted.guest, mounted.hand
    before = (mounted.tree / "other").read_bytes()
    # Less than what a huge page has.
    assert hand.do("fd = os.open('/mnt/other', os.O_RDWR); area = mmap.mmap(fd, 3 << 19)") == "OK"
    for at in (100, 40000):
        assert hand.do(f"area[{at}]") == "OK" and hand.value == before[at]
    hole = "fallocate(os.open('/mnt/other', os.O_RDWR), 3, ctypes.c_long(20000), ctypes.c_long(100))"
    task = guest.spawn_python(f"import ctypes, os\nassert ctypes.CDLL(None).{hole} == 0")
    assert task.wait(timeout=30).rc == 0
    after = before[:20000] + bytes(100) + before[20100:]
    assert (mounted.tree / "other").read_bytes() == after
    assert hand.do("hashlib.sha256(area).hexdigest()") == "OK" and hand.value == hashlib.sha256(after[: 3 << 19]).hexdigest()
    assert hand.do("area.close(); os.close(fd)") == "OK"


@pytest.mark.parametrize("killed", [False, True], ids=["drained", "killed"])
def test_unbind_while_a_page_is_pinned(mounted, killed):
    """The device's memory stays until nobody has a page of it, and who waits for that page as well is let go by then or before."""
    guest, hand = mounted.guest, mounted.hand
    path = mounted.tree / "other"
    before = path.read_bytes()
    assert hand.do(PIN + PIPE) == "OK"
    cuts = guest.spawn_python("import os; os.truncate('/mnt/other', 5000)")
    blocked(guest, cuts)
    device = f"virtio{mounted.device()}"
    unbinds = guest.spawn(f"echo {device} >{DRIVER}/unbind")
    blocked(guest, unbinds)
    if killed:
        cuts.kill()
        assert cuts.wait().rc == 128 + signal.SIGKILL
        assert unbinds.poll() is None and path.read_bytes() == before
    assert hand.do("os.read(ends[0], 8192).hex()") == "OK" and hand.value == before[8192:16384].hex()
    cut_short = cuts.wait().rc == 0
    assert unbinds.wait().rc == 0
    # The device may go before the reply comes.
    left = path.read_bytes()
    assert left == before[:5000] if cut_short else left in (before, before[:5000])
    assert not killed or left == before
    assert hand.do("area.close(); [os.close(number) for number in ends]; os.close(fd)") == "ENODEV"
    guest.umount()
    guest.run(f"echo {device} >{DRIVER}/bind")
    guest.mount("daxd", options="dax=always")
    assert same(mounted, "other")


@pytest.mark.ours("the function at which it stops")
def test_memory_left_behind(boot_rig):
    """Memory of a device with pages in use stays reserved, by a name that can be read when the module is gone; the next time the device
    does without it."""
    rig = boot_rig(files=files, daxd={"window": "16M"})
    guest = rig.guest
    guest.mount("daxd", "/mnt", options="dax=always")
    assert guest.out("cksum </mnt/other")
    guest.umount("/mnt")
    device = f"virtio{rig.device()}"
    unbind, go = spinning(guest, f"spin()\nopen('{DRIVER}/unbind', 'w').write('{device}')", 0)
    with Debugger(guest) as debugger:
        looks = "virtiofs_helper_memory_is_unused"
        debugger.stop_at(looks)
        debugger.store(go, b"\1")
        assert debugger.go() == (0, looks)
        # It finds the first pages of the guest's memory, which the kernel keeps for itself.
        debugger.set_argument(0, 0)
        debugger.stop_at()
    result = unbind.wait()
    assert result.rc == 0, result
    assert "is still in use: it is left behind" in guest.console()
    guest.unload()
    assert guest.out("grep -c ' : virtiofs$' /proc/iomem") == "1"
    guest.load()
    assert '"daxd": no DAX: its window' in guest.console()
    guest.mount("daxd", "/mnt")
    assert guest.out("stat -c %s /mnt/other") == str(3 * MEG)
    guest.umount("/mnt")


# Has a huge page of the window in its page table, and takes it out.
UNMAPS = """
area = mmap.mmap(os.open("/mnt/other", os.O_RDONLY), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)
area[0]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for page in range(512):
    area[page * 4096]
assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 50
spin()
area.close()
"""
# What cannot be done while pages of the range are in use.
NEEDS_THEM_GONE = {**CUTS, "store": "mmap.mmap(os.open('/mnt/other', os.O_RDWR), 0)[100:106] = b'stored'"}


# Called when a huge page is not in the page table any more, and still counted.
UNMAPPED = "arch_check_zapped_pmd"


@contextlib.contextmanager
def while_a_page_is_unmapped(guest, script, *functions):
    """A task that unmaps a huge page does not come further than into that, while another one runs a script, on processor 1: which of
    these functions are called then, and where, with what the first one stands at. Afterwards both go on to their end."""
    unmaps, first = spinning(guest, UNMAPS, 0)
    runs, second = spinning(guest, f"spin()\n{script}", 1)
    with Debugger(guest) as debugger:
        unmapped = (0, UNMAPPED)
        debugger.stop_at(UNMAPPED)
        debugger.store(first, b"\1")
        assert debugger.go() == unmapped
        debugger.stop_at(UNMAPPED, *functions)
        debugger.store(second, b"\1")

        def called():
            # The first one stays where it is, and takes the interrupts that the other one waits for.
            for stop in (debugger.go() for _ in range(20000)):
                if stop != unmapped:
                    yield stop
                    debugger.enter()

        yield called()
        debugger.stop_at()
    for process in (unmaps, runs):
        result = process.wait()
        assert result.rc == 0, result


@pytest.mark.ours("the function at which it stops")
@pytest.mark.parametrize("how", NEEDS_THEM_GONE)
def test_cut_while_a_page_is_unmapped(mounted, how):
    """Who is just taking a page out of its own page table is waited for. The kernel takes such a page for idle as long as it is still
    counted as one that is in a page table, and warns of its reference when it is taken out of the file."""
    before = (mounted.tree / "other").read_bytes()
    waits, goes_on = "virtiofs_helper_wait_page_idle", "dax_delete_mapping_range"
    with while_a_page_is_unmapped(mounted.guest, NEEDS_THEM_GONE[how], waits, goes_on) as called:
        assert next(called) == (1, waits)
    after = before[:100] + b"stored" + before[106:] if how == "store" else cut(how, before)
    assert (mounted.tree / "other").read_bytes() == after
    assert same(mounted, "other")


# Has pipes hold a page each of some ranges.
PIPES = """
fd, pipes = os.open("/mnt/huge", os.O_RDWR), [os.pipe() for _ in range({count})]
area = mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
for part in reversed(range({count})):
    area[part << 21]
    pin(area, part << 21, 4096, pipes[part][1])
"""


@pytest.fixture
def four(rig):
    """The share on /mnt, with a window of four ranges; afterwards nothing is mapped."""
    reload = "modprobe -r virtiofs; modprobe virtiofs dax_ranges="
    rig.guest.run(f"{reload}4")
    rig.guest.mount("daxd", options="dax=always")
    yield rig
    rig.guest.umount()
    assert maps(rig) == 0
    rig.unmounted()
    rig.guest.run(f"{reload}480")


def test_all_ranges_are_pinned(four):
    """Reads and writes go by requests; a page fault sleeps, and looks now and then, until there is a range, or it is killed."""
    guest, hand, daxd = four.guest, four.hand, four.daxd
    assert hand.do(PIN + PIPES.format(count=4)) == "OK"
    pinned = maps_of(four, "huge")
    assert set(pinned) == {part << 21 for part in range(4)}
    data = (four.tree / "huge").read_bytes()
    assert hand.do("hashlib.sha256(b''.join(os.pread(fd, 65536, at) for at in range(16 << 20, 20 << 20, 65536))).hexdigest()") == "OK"
    assert hand.value == hashlib.sha256(data[16 * MEG : 20 * MEG]).hexdigest()
    assert hand.do("os.pwrite(fd, b'written', 30 << 20)") == "OK"
    assert daxd.count("READ") > 0 and daxd.count("WRITE") == 1
    fault = "import mmap, os; print(mmap.mmap(os.open('/mnt/huge', os.O_RDWR), 0, prot=7)[30 << 20])"
    for killed in (True, False):
        before = window(guest)
        task = guest.spawn_python(fault)

        def looks():
            return window(guest)["waits"] - before["waits"]

        guest.wait_until(lambda: looks() >= 3, "it has looked three times")
        blocked(guest, task)
        now = window(guest)
        # No page is looked at more than once each time.
        assert now["cancelled"] - before["cancelled"] <= 4 * (looks() + 1)
        assert now["waited_ns"] > before["waited_ns"]
        assert maps_of(four, "huge") == pinned
        if killed:
            task.kill()
            assert task.wait().rc == 128 + signal.SIGKILL
    assert hand.do("os.read(pipes[2][0], 4096).hex()") == "OK" and hand.value == data[4 * MEG : 4 * MEG + 4096].hex()
    result = task.wait()
    assert (result.rc, result.stdout.strip()) == (0, str(ord("w"))), result
    assert set(maps_of(four, "huge")) == {0, 2 * MEG, 6 * MEG, 30 * MEG}
    assert hand.do("area.close(); [os.close(number) for number in (fd, *sum(pipes, ()))]") == "OK"


@pytest.mark.ours("the function at which it stops")
def test_reclaim_while_a_page_is_unmapped(four):
    """Who needs a range does not take the one whose page a task is just taking out of its page table, nor one with a page in a pipe. It
    looks again, and gets it when the task has come further."""
    hand = four.hand
    assert hand.do(PIN + PIPES.format(count=3)) == "OK"
    before = window(four.guest)["cancelled"]
    looks, takes = "virtiofs_helper_busy_page", "dax_delete_mapping_range"
    store = "mmap.mmap(os.open('/mnt/huge', os.O_RDWR), 0)[30 << 20] = 1"
    with while_a_page_is_unmapped(four.guest, store, looks, takes) as called:
        # The kernel itself knows of those in pipes; their huge pages are unmapped for that.
        others = (stop for stop in called if stop[1] != UNMAPPED)
        assert [next(others) for _ in range(2)] == 2 * [(1, looks)]
    assert window(four.guest)["cancelled"] - before >= 4
    assert set(maps_of(four, "huge")) == {0, 2 * MEG, 4 * MEG, 30 * MEG} and not maps_of(four, "other")
    assert (four.tree / "huge").read_bytes()[30 * MEG] == 1
    assert hand.do("area.close(); [os.close(number) for number in (fd, *sum(pipes, ()))]") == "OK"
