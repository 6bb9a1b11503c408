# SPDX-License-Identifier: GPL-2.0
"""Page faults here and there in a file that is larger than the window: they are given copies of pages, which are never older than what
was written."""

import hashlib
import signal

import pytest
from test_dax_modes import PIN, maps, setups, window

MEG = 1 << 20
PAGE = 4096
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}
SIZE = 40 * MEG
# One place in each part of 2 MiB, and none in the part that follows.
PLACES = [(number * 7 % 20) * 2 * MEG + number * 5 * PAGE for number in range(20)]
# How a process ends that does something.
STATUS = """
def status(do):
    pid = os.fork()
    if pid == 0:
        do()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
# The window has as many bytes as 64 of them.
MOST = 16 * MEG // 64 // PAGE


def files(tree):
    """What is shared."""
    tree.file("large", SIZE, seed=5)
    tree.file("source", MEG, seed=6)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with all files in the window; afterwards nothing is mapped."""
    files(rig.tree)
    rig.guest.mount("daxd", options="dax=always")
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


@pytest.fixture
def area(mounted):
    """The same, where the hand has the file mapped: `area` of `fd`."""
    assert mounted.hand.do("fd = os.open('/mnt/large', os.O_RDWR); area = mmap.mmap(fd, 0)") == "OK"
    yield mounted
    assert mounted.hand.do("area.close(); os.close(fd)") == "OK"


def value(rig, expression):
    """What the hand sees."""
    assert rig.hand.do(expression) == "OK"
    return rig.hand.value


def seen(rig, at, length=16):
    """Bytes of the mapping."""
    return bytes.fromhex(value(rig, f"area[{at}:{at + length}].hex()"))


def test_here_and_there(area):
    """A page is read for each fault, and nothing is mapped; who touches it again asks for nothing."""
    data = (area.tree / "large").read_bytes()
    area.daxd.reset_counters()
    for _ in range(2):
        got = value(area, f"hashlib.sha256(b''.join(area[at:at + {PAGE}] for at in {PLACES})).hexdigest()")
        assert got == hashlib.sha256(b"".join(data[at : at + PAGE] for at in PLACES)).hexdigest()
    assert (setups(area), area.daxd.count("READ")) == (0, len(PLACES))
    now = window(area.guest)
    assert (now["copies"], now["faults"], now["bypassed_reads"], now["mapped"]) == (20, 20, 20, 0)


def test_one_after_the_other(area):
    """The page after the last one brings in a range."""
    area.daxd.reset_counters()
    assert seen(area, 9 * MEG) + seen(area, 9 * MEG + PAGE)
    assert (setups(area), area.daxd.count("READ")) == (1, 1)
    assert value(area, f"sum(area[at] for at in range({9 * MEG}, {10 * MEG}, {PAGE}))") > 0
    assert area.daxd.count("READ") == 1


def test_the_same_part(area):
    """Where one page after another is wanted, in whatever order, a range comes soon."""
    area.daxd.reset_counters()
    places = [20 * MEG + number * 37 % 101 * 2 * PAGE for number in range(101)]
    data = (area.tree / "large").read_bytes()
    assert bytes.fromhex(value(area, f"bytes(area[at] for at in {places}).hex()")) == bytes(data[at] for at in places)
    assert setups(area) == 1 and 0 < area.daxd.count("READ") < 8


def test_code(area):
    """What can be executed is the host's page cache."""
    area.daxd.reset_counters()
    assert area.hand.do("code = mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)") == "OK"
    assert value(area, f"[code[at] for at in {PLACES[:4]}]")
    assert (setups(area), area.daxd.count("READ")) == (4, 0)
    assert area.hand.do("code.close()") == "OK"


def test_there_are_only_so_many(area):
    """The oldest ones go; all of them when memory is short."""
    places = [number * 7 % 90 * 2 * MEG for number in range(90)]
    with open(area.tree / "sparse", "wb") as file:
        for at in places:
            file.seek(at)
            file.write(at.to_bytes(8, "little"))
    area.daxd.reset_counters()
    assert area.hand.do("other = os.open('/mnt/sparse', os.O_RDONLY); sparse = mmap.mmap(other, 0, prot=mmap.PROT_READ)") == "OK"
    look = "[int.from_bytes(sparse[at:at + 8], 'little') for at in {}]"
    assert value(area, look.format(places)) == places
    assert (setups(area), window(area.guest)["copies"], area.daxd.count("READ")) == (0, MOST, len(places))
    assert value(area, look.format(places[-MOST:])) == places[-MOST:]
    assert area.daxd.count("READ") == len(places)
    # The oldest one is not there; when it is wanted again, there is room for a range.
    assert value(area, look.format(places[:1])) == places[:1]
    assert (setups(area), area.daxd.count("READ")) == (1, len(places))
    area.guest.run("echo 2 >/proc/sys/vm/drop_caches")
    area.guest.wait_until(lambda: window(area.guest)["copies"] == 0, "no copies are left")
    assert value(area, look.format(places[-1:])) == places[-1:]
    assert (setups(area), area.daxd.count("READ")) == (2, len(places))
    assert area.hand.do("sparse.close(); os.close(other)") == "OK"


AT = 12 * MEG + 3 * PAGE
CHANGES = {
    "written": f"os.pwrite(other, b'by a write', {AT})",
    "longer": f"os.pwrite(other, b'by a write' + bytes(20000), {AT})",
    "stored": f"mmap.mmap(other, 0).__setitem__(slice({AT}, {AT + 10}), b'by a store')",
    "copied": f"os.copy_file_range(source, other, 10000, 0, {AT})",
    "punched": f"libc.fallocate(other, 3, ctypes.c_long({AT - 100}), ctypes.c_long(5000))",
    "zeroed": f"libc.fallocate(other, 16, ctypes.c_long({AT - 100}), ctypes.c_long(5000))",
    "cut": f"(os.ftruncate(other, {AT + 4}), os.ftruncate(other, {SIZE}))",
    "opened": f"(os.close(os.open('/mnt/large', os.O_RDWR | os.O_TRUNC)), os.ftruncate(other, {SIZE}))",
}


@pytest.mark.parametrize("how", CHANGES)
def test_changes_are_seen(area, how):
    """Whatever changes the file, a mapping shows it at once, also the page that it had a copy of."""
    before = (area.tree / "large").read_bytes()
    assert area.hand.do("other = os.open('/mnt/large', os.O_RDWR); source = os.open('/mnt/source', os.O_RDONLY)") == "OK"
    for at in (AT, PLACES[0]):
        assert seen(area, at) == before[at : at + 16]
    assert setups(area) == 0 and window(area.guest)["copies"] == 2
    assert area.hand.do(CHANGES[how]) == "OK"
    assert how != "copied" or area.daxd.count("COPY_FILE_RANGE_64") == 1
    after = (area.tree / "large").read_bytes()
    assert after[AT : AT + 16] != before[AT : AT + 16] and len(after) == SIZE
    for at in (AT, PLACES[0]):
        assert seen(area, at) == after[at : at + 16]
    assert value(area, "hashlib.sha256(area).hexdigest()") == hashlib.sha256(after).hexdigest()
    assert area.hand.do("os.close(other); os.close(source)") == "OK"


def test_changes_on_the_host_are_seen(area):
    """Who opens the file sees what the host has made of it, as with a page cache, and so does who has it mapped."""
    assert seen(area, AT) != bytes(16)
    with open(area.tree / "large", "r+b") as file:
        file.seek(AT)
        file.write(bytes(16))
    area.guest.run("head -c 1 /mnt/large >/dev/null")
    assert seen(area, AT) == bytes(16)


def test_no_open_waits_for_a_truncation(area):
    """Who opens the file has copies forgotten that others have of it, also while the daemon is busy with a truncation."""
    assert seen(area, AT) != bytes(16)
    area.daxd.hold("SETATTR")
    cutter = area.guest.spawn_python(f"import os; os.truncate('/mnt/large', {SIZE - MEG})")
    area.daxd.wait_for_held(timeout=60)
    assert area.hand.do("os.close(os.open('/mnt/large', os.O_RDONLY))") == "OK"
    area.daxd.clear_faults()
    area.daxd.release()
    assert cutter.wait().rc == 0


def test_cut_on_the_host(area):
    """Pages that the host's file has no more are not there: SIGBUS, and the guest lives."""
    with open(area.tree / "large", "r+b") as file:
        file.truncate(MEG)
    assert area.hand.do(STATUS) == "OK"
    for place in PLACES[1:3]:
        assert value(area, f"status(lambda: area[{place}])") == -signal.SIGBUS


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_stores(mounted, private):
    """Who stores to a page that was a copy stores to the file, or to a page of its own."""
    path = mounted.tree / "large"
    before = path.read_bytes()
    flags = "mmap.MAP_PRIVATE" if private else "mmap.MAP_SHARED"
    assert mounted.hand.do(f"fd = os.open('/mnt/large', os.O_RDWR); area = mmap.mmap(fd, 0, flags={flags})") == "OK"
    places = PLACES[:6]
    for at in places:
        assert seen(mounted, at) == before[at : at + 16]
        assert mounted.hand.do(f"area[{at + 3}] = 7") == "OK"
        assert seen(mounted, at) == before[at : at + 3] + b"\7" + before[at + 4 : at + 16]
    after = path.read_bytes()
    assert all(after[at + 3] == (before[at + 3] if private else 7) for at in places)
    assert setups(mounted) == (0 if private else len(places))
    assert mounted.hand.do("area.close(); os.close(fd)") == "OK"


def test_an_answer_from_before_a_write(area):
    """A page that was read before a write and arrives after it is not shown."""
    # So that it is a WRITE: for a while no range is asked for.
    area.daxd.set_fault("error", "SETUPMAPPING", errno="EIO", count=1)
    assert value(area, f"[len(os.pread(fd, 100, {30 * MEG})) for _ in range(2)]") == [100, 100]
    assert window(area.guest)["failed"] == 1
    area.daxd.hold("READ")
    reader = area.guest.spawn_python(
        f"import mmap, os; print(mmap.mmap(os.open('/mnt/large', os.O_RDONLY), 0, prot=mmap.PROT_READ)[{AT}:{AT + 5}])"
    )
    area.daxd.wait_for_held(timeout=60)
    assert area.hand.do(f"os.pwrite(fd, b'later', {AT})") == "OK"
    assert (area.daxd.count("WRITE"), setups(area)) == (1, 0)
    area.daxd.clear_faults()
    area.daxd.release()
    result = reader.wait()
    assert (result.rc, result.stdout.strip()) == (0, "b'later'"), result


def test_an_answer_from_before_a_store(area):
    """The same, when it was stored to through a range that is not there any more."""
    area.daxd.hold("READ")
    reader = area.guest.spawn_python(
        f"import mmap, os; print(mmap.mmap(os.open('/mnt/large', os.O_RDONLY), 0, prot=mmap.PROT_READ)[{AT}:{AT + 5}])"
    )
    area.daxd.wait_for_held(timeout=60)
    area.daxd.clear_faults()
    assert area.hand.do(f"area[{AT}:{AT + 5}] = b'later'") == "OK"
    assert setups(area) == 1
    area.guest.run("cat /mnt/large /mnt/source /mnt/large >/dev/null")
    area.daxd.release()
    result = reader.wait()
    assert (result.rc, result.stdout.strip()) == (0, "b'later'"), result


def test_pinned_copies(area):
    """Pages of a copy that somebody has pinned stay what they are, in nobody's way."""
    before = (area.tree / "large").read_bytes()
    assert area.hand.do(PIN + "ends = os.pipe()") == "OK"
    assert seen(area, AT)
    assert area.hand.do(f"pin(area, {AT}, 16, ends[1])") == "OK"
    assert setups(area) == 0
    assert area.hand.do(f"os.pwrite(fd, bytes(16), {AT})") == "OK"
    assert seen(area, AT) == bytes(16)
    assert bytes.fromhex(value(area, "os.read(ends[0], 16).hex()")) == before[AT : AT + 16]
    assert area.hand.do(f"os.ftruncate(fd, {AT}); os.ftruncate(fd, {SIZE}); [os.close(end) for end in ends]") == "OK"


# Processes that write and store numbers, each larger than the one before, and tell them when they have; and others that look whether
# a mapping is behind. Zero is none of the numbers: on a busy host it is what the emulator shows of a range that it has just said to
# show, for an instant, with the C driver as well. Arguments: how often.
RACE = """
import mmap, os, random, struct, sys
rounds, at = int(sys.argv[1]), {places}
told = mmap.mmap(-1, 4096)
fd = os.open("/mnt/large", os.O_RDWR)
for number, place in enumerate(at):
    os.pwrite(fd, struct.pack("<Q", 1), place)
    struct.pack_into("<Q", told, 8 * number, 1)
def get(area, place):
    return struct.unpack_from("<Q", area, place)[0]
def write(number):
    mine = at[number::2]
    area = mmap.mmap(fd, 0)
    for turn in range(2, rounds):
        which = random.randrange(len(mine))
        if random.random() < 0.2:
            struct.pack_into("<Q", area, mine[which], turn)
        else:
            os.pwrite(fd, struct.pack("<Q", turn), mine[which])
        struct.pack_into("<Q", told, 8 * (2 * which + number), turn)
        if turn % 50 == 0:
            area.close()
            area = mmap.mmap(fd, 0)
def read():
    area = mmap.mmap(os.open("/mnt/large", os.O_RDONLY), 0, prot=mmap.PROT_READ)
    for turn in range(rounds):
        which = random.randrange(len(at))
        least = get(told, 8 * which)
        got = get(area, at[which])
        if 0 < got < least:
            sys.exit(f"{{turn}}: {{at[which]}}: {{got}} and not {{least}} or more")
tasks = []
for work in (lambda: write(0), lambda: write(1), read, read):
    pid = os.fork()
    if pid == 0:
        random.seed(os.getpid())
        work()
        os._exit(0)
    tasks.append(pid)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in tasks]))
"""


def test_races(mounted):
    """No mapping is ever behind what somebody was told to be written, by write(2) or through another mapping."""
    places = PLACES + [at + 40 * PAGE for at in PLACES]
    task = mounted.guest.spawn_python(RACE.format(places=places), 3000)
    result = task.wait(300)
    assert result.rc == 0, result
    now = window(mounted.guest)
    assert now["copies"] > 0 and now["mapped"] > 0 and now["bypassed_writes"] > 0, now
    assert mounted.daxd.count("READ") > 100


def test_unbind(mounted):
    """When the device goes, so do the copies."""
    guest = mounted.guest
    task = guest.spawn_python(
        f"""
import mmap, os, time
area = mmap.mmap(os.open("/mnt/large", os.O_RDONLY), 0, prot=mmap.PROT_READ)
area[{AT}]
open("/run/seen", "w")
while os.path.exists("/run/seen"):
    time.sleep(0.01)
area[{AT}]
"""
    )
    guest.wait_until(lambda: guest.run("test -e /run/seen", check=False).rc == 0, "it has a copy")
    assert window(guest)["copies"] == 1
    device, driver = f"virtio{mounted.device()}", "/sys/bus/virtio/drivers/virtiofs"
    guest.run(f"echo {device} >{driver}/unbind")
    guest.run("rm /run/seen")
    assert task.wait().rc == 128 + signal.SIGBUS
    guest.umount()
    guest.run(f"echo {device} >{driver}/bind")
    guest.mount("daxd", options="dax=always")
