# SPDX-License-Identifier: GPL-2.0
"""Only pages that the guest has written to go to the host, whatever folio they are in and whatever happens to that."""

import hashlib
import os

import aio
import pytest
from conftest import blocked

RIG = {"daxd": {"queue_size": 1024}}
PAGE = 4096
PAGES = 1024
# One in a folio of its own, some in large ones, and several in the last, which is the largest.
STORED = [3, 500, 901, 950, 951, PAGES - 2]

GUEST = """
PAGE = 4096
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

def cache(fd):
    # As a program that reads a file from its start: into larger and larger folios.
    at = 0
    while got := len(os.pread(fd, 131072, at)):
        at += got
    return at

def address(area, page=0):
    return ctypes.addressof(ctypes.c_char.from_buffer(area)) + page * PAGE

def frame(area, page):
    # The page frame that shows a page.
    area[page * PAGE]
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        return struct.unpack("<Q", os.pread(pagemap.fileno(), 8, address(area, page) // PAGE * 8))[0] & (1 << 55) - 1

def is_one_folio(area, pages):
    # Whether these are pages of one after the first.
    with open("/proc/kpageflags", "rb", buffering=0) as flags:
        return all(struct.unpack("<Q", os.pread(flags.fileno(), 8, 8 * frame(area, page)))[0] & 1 << 16 for page in pages)

def store(pages, area):
    for page in pages:
        area[page * PAGE + 7] = ord("G")

def child(pages, area):
    # It stores, and its page tables go with it.
    pid = os.fork()
    if not pid:
        store(pages, area)
        os._exit(0)
    os.waitpid(pid, 0)

def debugger(pages, area):
    # As a debugger: through a reference to the page.
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        for page in pages:
            os.pwrite(memory.fileno(), b"G", address(area, page) + 7)

def direct(pages, area):
    # A device writes to the page.
    fd = os.open("/mnt/source", os.O_RDONLY | os.O_DIRECT)
    for page in pages:
        os.preadv(fd, [memoryview(area)[page * PAGE : (page + 1) * PAGE]], 0)
    os.close(fd)

def compact():
    with open("/proc/sys/vm/compact_memory", "w") as file:
        file.write("1")
"""

# How pages come to be stored to: what is done before, and the store.
WAYS = {
    "store": ("", "store({pages}, area)"),
    "read-before": ("[area[page * PAGE] for page in range({count})]", "store({pages}, area)"),
    "some-read-before": ("[area[page * PAGE] for page in range(0, {count}, 50)]", "store({pages}, area)"),
    "made-writable": (
        "call('mprotect', address(area), len(area), 1); [area[page * PAGE] for page in range({count})]",
        "call('mprotect', address(area), len(area), 3); store({pages}, area)",
    ),
    "unmapped": ("", "store({pages}, area); area.madvise(mmap.MADV_DONTNEED)"),
    "child": ("", "child({pages}, area)"),
    "after-child": ("child([905], area); area.flush()", "store({pages}, area)"),
    "debugger": ("", "debugger({pages}, area)"),
    "device": ("", "direct({pages}, area)"),
}


def files(tree):
    """What is shared."""
    tree.file("source", b"sssssssG" + b"s" * (PAGE - 8))


def set_up(rig, **settings):
    """A file with pages of its own, as the guest has it cached in large folios, and an area that maps it; what the host changes is not seen."""
    rig.tree.file("file", b"A" * (PAGES * PAGE))
    rig.daxd.configure(open_flags="KEEP_CACHE", attr_timeout=3600, entry_timeout=3600, **settings)
    rig.guest.mount("daxd", "/mnt")
    # Nothing is written back before it is asked for.
    rig.guest.run(f"cd /proc/sys/vm; echo {1 << 30} >dirty_bytes; echo {1 << 29} >dirty_background_bytes; echo 0 >dirty_writeback_centisecs")
    do(rig, GUEST)
    do(rig, "fd = os.open('/mnt/file', os.O_RDWR)")
    assert do(rig, "cache(fd)") == PAGES * PAGE
    do(rig, f"area = mmap.mmap(fd, {PAGES * PAGE})")
    # The C client has folios of one page.
    if rig.options["driver"] == "rust":
        assert do(rig, f"is_one_folio(area, range(900, {PAGES}))")
    # Nothing of it is mapped yet.
    do(rig, f"area.close(); area = mmap.mmap(fd, {PAGES * PAGE})")


def tear_down(rig):
    """Closes, and unmounts: no folio is left that the kernel cannot free."""
    rig.daxd.clear_faults()
    rig.daxd.release()
    do(rig, "area.close(); os.close(fd)")
    rig.guest.run("cd /proc/sys/vm; echo 20 >dirty_ratio; echo 10 >dirty_background_ratio; echo 500 >dirty_writeback_centisecs")
    rig.guest.umount("/mnt")
    if rig.options["driver"] == "rust":
        rig.unmounted()


@pytest.fixture
def mapped(rig):
    """What `set_up` does, with a daemon that is asked for each write."""
    set_up(rig, init_flags="-AUTO_INVAL_DATA")
    yield rig
    tear_down(rig)


@pytest.fixture
def cached(rig):
    """What `set_up` does, with a daemon that leaves writes to the guest's cache."""
    set_up(rig, init_flags="-AUTO_INVAL_DATA,+WRITEBACK_CACHE")
    yield rig
    tear_down(rig)


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def host_changes(rig, pages=range(PAGES), content=b"H"):
    """The host writes to pages."""
    with open(rig.tree / "file", "r+b") as file:
        for page in pages:
            file.seek(page * PAGE)
            file.write(content * PAGE)


def taken(rig):
    """The numbers of the pages that the host's file has from the guest."""
    data = (rig.tree / "file").read_bytes()
    return [page for page in range(len(data) // PAGE) if data[page * PAGE : (page + 1) * PAGE] != b"H" * PAGE]


def written(rig):
    """How many requests have written how many pages since this was asked last."""
    counted = rig.daxd.count("WRITE"), rig.daxd.counters()["bytes"]["written"] / PAGE
    rig.daxd.reset_counters()
    return counted


def is_stored(rig, page, byte=b"G"):
    """Whether a page on the host is as the guest has it: cached as it was, with a byte stored to it."""
    data = (rig.tree / "file").read_bytes()[page * PAGE : (page + 1) * PAGE]
    return data == b"A" * 7 + byte + b"A" * (PAGE - 8)


@pytest.mark.parametrize("way", WAYS)
def test_stores(mapped, way):
    """A store through a mapping sends the page that was stored to, and none beside it."""
    before, store = (step.format(pages=STORED, count=PAGES) for step in WAYS[way])
    if before:
        do(mapped, before)
    host_changes(mapped)
    written(mapped)
    for _ in range(2):
        do(mapped, store)
        do(mapped, "area.flush()")
        assert taken(mapped) == STORED
        assert written(mapped) == (5, 6)
        if way != "device":
            assert all(is_stored(mapped, page) for page in STORED)
        host_changes(mapped)
    # The guest has not read the host's.
    assert do(mapped, f"area[{PAGE}:{2 * PAGE}] == b'A' * PAGE")
    # What is clean is not written again because another page of the folio is dirty.
    do(mapped, "store([910], area)")
    do(mapped, "area.flush()")
    assert (taken(mapped), written(mapped)) == ([910], (1, 1))


def test_second_writer(cached):
    """write(2) that stays in the cache sends the pages that its bytes lie in: another writer's pages between them are as that left them."""
    mine, others = range(0, PAGES, 2), range(1, PAGES, 2)
    written(cached)
    do(cached, f"[os.pwrite(fd, b'G', page * PAGE + 7) for page in range(0, {PAGES}, 2)]")
    host_changes(cached, others)
    do(cached, "os.fsync(fd)")
    assert taken(cached) == list(mine)
    assert all(is_stored(cached, page) for page in (0, 500, 902))
    assert written(cached) == (PAGES // 2, PAGES // 2)
    # Whole pages, and those that follow each other, in one request.
    host_changes(cached)
    do(cached, "os.pwrite(fd, b'G' * (3 * PAGE), 907 * PAGE), os.pwrite(fd, b'G', 912 * PAGE - 1), os.pwrite(fd, b'GG', 920 * PAGE - 1)")
    do(cached, "os.fsync(fd)")
    assert taken(cached) == [907, 908, 909, 911, 919, 920]
    assert written(cached) == (3, 6)


@pytest.mark.parametrize("by", ["mapping", "write"])
def test_sparse(cached, by):
    """A sparse file stays sparse: what was not written to is no data on the host."""
    do(cached, "area.close(); os.close(fd)")
    (cached.tree / "file").unlink()
    cached.tree.sparse("sparse", 16 << 20)
    do(cached, "fd = os.open('/mnt/sparse', os.O_RDWR); cache(fd); area = mmap.mmap(fd, 16 << 20)")
    if by == "mapping":
        do(cached, "store(range(0, 4096, 200), area); area.flush()")
    else:
        do(cached, "[os.pwrite(fd, b'G' * 64, page * PAGE + 7) for page in range(0, 4096, 200)]; os.fsync(fd)")
    path = cached.tree / "sparse"
    assert path.read_bytes().count(b"G") == 21 * (1 if by == "mapping" else 64)
    # One block more for the host's list of them.
    assert path.stat().st_blocks * 512 <= 22 * PAGE
    path.unlink()


def test_migration(cached):
    """Memory that is compacted moves folios, and what is known of their pages along; they are freed afterwards."""
    stored = STORED
    host_changes(cached)
    written(cached)
    do(cached, f"os.pwrite(fd, b'G', 950 * PAGE + 7); store({stored}, area)")
    # Between folios that are gone there is room.
    for _ in range(20):
        do(cached, f"frames = [frame(area, page) for page in {stored}]")
        do(cached, "compact()")
        if do(cached, f"sum(frame(area, page) != old for page, old in zip({stored}, frames))"):
            break
        assert taken(cached) == []
        do(cached, "holes = [mmap.mmap(-1, 1 << 20) for _ in range(300)]; [hole.write(bytes(1 << 20)) for hole in holes]; holes = holes[::2]")
    else:
        raise AssertionError("nothing moves")
    do(cached, "holes = None")
    if cached.options["driver"] == "rust":
        assert do(cached, f"is_one_folio(area, range(900, {PAGES}))")
    do(cached, "area.flush()")
    assert (taken(cached), written(cached)) == (stored, (5, 6))
    assert all(is_stored(cached, page) for page in stored)
    host_changes(cached)
    # The clean ones move, too.
    do(cached, "compact()")
    do(cached, "store([910], area)")
    do(cached, "compact()")
    do(cached, "area.flush()")
    assert taken(cached) == [910]


def test_reclaim(mapped):
    """The kernel takes folios back that are clean again, and no dirty one."""
    host_changes(mapped)
    do(mapped, f"store({STORED}, area)")
    mapped.guest.run("echo 1 >/proc/sys/vm/drop_caches")
    assert taken(mapped) == []
    do(mapped, "area.close()")
    assert taken(mapped) == STORED
    mapped.guest.run("echo 1 >/proc/sys/vm/drop_caches")
    # All of it is read anew.
    do(mapped, f"area = mmap.mmap(fd, {PAGES * PAGE})")
    assert do(mapped, f"[page for page in range({PAGES}) if area[page * PAGE] == ord('A')]") == STORED


@pytest.mark.ours("there is nothing to split")
def test_split(mapped):
    """Of a folio with dirty pages the kernel makes no smaller ones, which would be dirty as a whole; of a clean one it does."""
    split = "open('/sys/kernel/debug/split_huge_pages', 'w').write('/mnt/file,0x0,0x400,0')"
    mapped.guest.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    do(mapped, "store([903], area)")
    host_changes(mapped)
    do(mapped, split)
    assert do(mapped, "is_one_folio(area, range(900, 920))")
    do(mapped, "area.flush()")
    assert taken(mapped) == [903]
    do(mapped, split)
    assert not do(mapped, "is_one_folio(area, range(900, 920))")
    do(mapped, "store([905], area); area.flush()")
    assert taken(mapped) == [903, 905]


def test_truncation(cached):
    """A folio that is cut keeps its dirty pages before the cut; behind it there are zeroes, and no data when the file grows again."""
    cut = 950 * PAGE + 7
    host_changes(cached)
    # The daemon takes nothing before the cut.
    cached.daxd.set_fault("error", "WRITE", errno="ENOSPC", count=3)
    do(cached, "store([903, 950, 1000], area)")
    assert cached.hand.do("os.fsync(fd)") == "ENOSPC"
    cached.daxd.clear_faults()
    do(cached, f"store([910, 940, 950, 960, 1000], area); os.ftruncate(fd, {cut}); os.ftruncate(fd, {PAGES * PAGE})")
    do(cached, "store([920], area); area.flush()")
    data = (cached.tree / "file").read_bytes()
    assert [page for page in taken(cached) if page < 950] == [910, 920, 940]
    assert data[950 * PAGE : cut] == b"A" * 7
    assert data[cut:] == bytes(PAGES * PAGE - cut)
    assert do(cached, f"area[{cut}:] == bytes({PAGES * PAGE - cut})")
    assert (cached.tree / "file").stat().st_blocks * 512 <= 951 * PAGE
    do(cached, "store([955], area); area.flush()")
    assert (cached.tree / "file").stat().st_blocks * 512 <= 952 * PAGE


# Where a mapping has stored when the host cuts the file within page 950.
CUT = 950 * PAGE + 100
BEFORE_THE_CUT = {
    "before": "store([903, 950], area)",
    "behind": f"area[{CUT + 100}] = ord('G')",
    "beyond": "store([951, 960, 1000], area)",
    "all": f"store([903, 950, 951, 960, 1000], area); area[{CUT + 100}] = ord('G')",
}


def size_on_host(rig):
    """The size that the daemon tells a task that asks for it in any case."""
    do(rig, "call('statx', -100, b'/mnt/file', 0x2000, 0xfff, ctypes.create_string_buffer(256))")
    return do(rig, "os.fstat(fd).st_size")


@pytest.mark.parametrize("stored", BEFORE_THE_CUT)
def test_host_cuts(mapped, stored):
    """A file that the host cuts while pages of it are dirty stays as long as the host has made it; what lies before the cut is kept."""
    path = mapped.tree / "file"
    expected = bytearray(b"A" * CUT)
    if stored in ("before", "all"):
        expected[903 * PAGE + 7] = expected[950 * PAGE + 7] = ord("G")
    do(mapped, BEFORE_THE_CUT[stored])
    os.truncate(path, CUT)
    assert size_on_host(mapped) == CUT
    assert path.stat().st_size == CUT
    do(mapped, "area.flush(); os.fsync(fd)")
    assert path.read_bytes() == expected
    assert do(mapped, f"hashlib.sha256(area[:{CUT}]).hexdigest()") == hashlib.sha256(expected).hexdigest()
    # Nothing of what was stored behind the cut comes back.
    os.truncate(path, PAGES * PAGE)
    assert size_on_host(mapped) == PAGES * PAGE
    assert do(mapped, f"area[{CUT}:] == bytes({PAGES * PAGE - CUT})")
    do(mapped, "store([940], area); area.flush()")
    assert path.read_bytes()[CUT:] == bytes(PAGES * PAGE - CUT)


def test_hole(cached):
    """A folio that a hole is punched into keeps its dirty pages around it, and the hole is one on the host."""
    start, end = 950 * PAGE + 100, 970 * PAGE + 100
    host_changes(cached)
    blocks = (cached.tree / "file").stat().st_blocks
    do(cached, "store([910, 950, 960, 970, 980], area)")
    do(cached, f"call('fallocate', fd, 3, {start}, {end - start})")
    do(cached, "store([911], area); area.flush()")
    data = (cached.tree / "file").read_bytes()
    assert data[start:end] == bytes(end - start)
    assert [page for page in range(PAGES) if data[page * PAGE] != ord("H")] == [910, 911, 950, *range(951, 971), 980]
    assert blocks - (cached.tree / "file").stat().st_blocks == 19 * PAGE // 512


@pytest.mark.parametrize("how", ["preadv", "Aio"])
def test_device_writes_while_clean(mapped, how):
    """What a device writes to a page that was written back meanwhile goes to the host, though another page of the folio is dirty then."""
    do(mapped, aio.SOURCE)
    do(mapped, GUEST)
    do(mapped, "store([903], area); area.flush()")
    host_changes(mapped)
    mapped.daxd.hold("READ")
    start = "into = memoryview(area)[910 * PAGE : 911 * PAGE]; source = os.open('/mnt/source', os.O_RDONLY | os.O_DIRECT)"
    do(mapped, start)
    if how == "Aio":
        # The address of a part of a mapping.
        do(mapped, "ring = Aio(); ring.submit(('read', source, into, PAGE, 0))")
    else:
        do(mapped, "import threading; reader = threading.Thread(target=lambda: os.preadv(source, [into], 0)); reader.start()")
    mapped.daxd.wait_for_held()
    do(mapped, "area.flush()")
    assert taken(mapped) == [910]
    # What it shares the folio with is dirty when the device is done.
    do(mapped, "store([911], area)")
    mapped.daxd.clear_faults()
    mapped.daxd.release()
    do(mapped, "ring.wait(1); ring.destroy()" if how == "Aio" else "reader.join()")
    do(mapped, "into.release(); os.close(source); area.flush()")
    assert taken(mapped) == [910, 911]
    assert (mapped.tree / "file").read_bytes()[910 * PAGE : 911 * PAGE] == (mapped.tree / "source").read_bytes()
    # It is not pinned any more: it is clean, and stays so.
    host_changes(mapped)
    do(mapped, "store([912], area); area.flush()")
    assert taken(mapped) == [912]


def test_parts_that_fail(mapped):
    """Of a folio that is written by several requests one may fail: its error is told, the others are written, and it goes on."""
    host_changes(mapped)
    mapped.daxd.set_fault("error", "WRITE", errno="ENOSPC", skip=1, count=1)
    do(mapped, "store([903, 920, 1000], area)")
    assert mapped.hand.do("area.flush()") == "ENOSPC"
    assert taken(mapped) == [903, 1000]
    assert mapped.hand.do("area.flush()") == "OK"
    do(mapped, "store([920], area); area.flush()")
    assert taken(mapped) == [903, 920, 1000]


@pytest.mark.beyond_c("what the daemon does not take is lost")
def test_parts_that_are_short(mapped):
    """What the daemon leaves of one of them is sent again."""
    host_changes(mapped)
    mapped.daxd.configure(short_write=5000)
    do(mapped, "store([903, 920, 921, 922, 1000], area); area.flush()")
    assert taken(mapped) == [903, 920, 921, 922, 1000]
    assert all(is_stored(mapped, page) for page in taken(mapped))


def test_folio_is_written_when_its_parts_are(mapped):
    """A folio that several requests write is under writeback until the last of them has ended: nobody stores to it before."""
    storer = """
import mmap, os
area = mmap.mmap(os.open("/mnt/file", os.O_RDWR), 0)
area[903 * 4096 + 7] = ord("S")
"""
    do(mapped, "store([903, 920, 1000], area)")
    mapped.daxd.hold("WRITE")
    syncer = mapped.guest.spawn_python("import os; os.fsync(os.open('/mnt/file', os.O_RDWR))")
    mapped.daxd.wait_for_held(3)
    task = mapped.guest.spawn_python(storer)
    for _ in range(2):
        mapped.daxd.release(count=1)
        blocked(mapped.guest, task)
        assert not task.poll()
    mapped.daxd.clear_faults()
    mapped.daxd.release()
    assert task.wait().rc == 0
    assert syncer.wait().rc == 0
    do(mapped, "area.flush()")
    assert [is_stored(mapped, 903, b"S"), is_stored(mapped, 920), is_stored(mapped, 1000)] == [True] * 3
