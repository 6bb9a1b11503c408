# SPDX-License-Identifier: GPL-2.0
"""Allocations that fail in a task that mounts, creates, writes and unmounts: it gets an errno, and no byte is lost without one."""

import pytest

RIG = {}

# Changes files at random, each page of them by one known byte; how each call ended, and what each page may hold afterwards.
CHANGE = """
import errno, json, mmap, os, random, sys
top, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.mkdir(top)
PAGE, PAGES, FILES = 4096, 24, 4
chance = random.Random(seed)
switch = os.open("/proc/thread-self/make-it-fail", os.O_RDWR)
errors, FAILED = {}, object()
def attempt(name, function, *arguments):
    os.pwrite(switch, b"1", 0)
    try:
        value, key = function(*arguments), "OK"
    except OSError as error:
        value, key = FAILED, errno.errorcode[error.errno]
    except MemoryError:
        value, key = FAILED, "ENOMEM"
    finally:
        os.pwrite(switch, b"0", 0)
    counts = errors.setdefault(name, {})
    counts[key] = counts.get(key, 0) + 1
    return value
# A buffer that needs no allocation while these fail.
source = mmap.mmap(-1, 4 * PAGE)
source.write(bytes(4 * PAGE))
def becomes(fd, page, byte, certain=True):
    past[fd][page].append(byte)
    known[fd][page] = [byte] if certain else known[fd][page] + [byte]
def sync(fd):
    try:
        os.fsync(fd)
    except OSError:
        # A write-back has failed: these pages are not dirty any more.
        lost.add(fd)
fds, known, past, areas, lost = [], {}, {}, {}, set()
for number in range(FILES):
    fd = FAILED
    while fd is FAILED:
        fd = attempt("create", os.open, f"{top}/{number}", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, bytes(PAGE * PAGES), 0)
    os.fsync(fd)
    fds.append(fd)
    known[fd], past[fd] = [[0] for _ in range(PAGES)], [[0] for _ in range(PAGES)]
    areas[fd] = mmap.mmap(fd, PAGE * PAGES)
for number in range(rounds):
    fd = chance.choice(fds)
    count = chance.randrange(1, 5)
    page, byte = chance.randrange(PAGES - count + 1), chance.randrange(1, 256)
    what = chance.choice(["write", "write", "store", "sync", "truncate", "rename", "read"])
    if what == "write":
        source[: count * PAGE] = bytes([byte]) * (count * PAGE)
        done = attempt("write", os.pwritev, fd, [memoryview(source)[: count * PAGE]], page * PAGE)
        for at in range(count):
            becomes(fd, page + at, byte, done is not FAILED and done >= (at + 1) * PAGE)
    elif what == "store":
        # A page fault that finds no memory is taken again, so that a store comes to its end.
        attempt("store", areas[fd].__setitem__, slice(page * PAGE, (page + 1) * PAGE), bytes([byte]) * PAGE)
        becomes(fd, page, byte)
    elif what == "sync":
        if attempt("fsync", os.fsync, fd) is FAILED:
            lost.add(fd)
    elif what == "truncate":
        # The last page goes, and comes back as a hole.
        attempt("truncate", os.ftruncate, fd, PAGE * (PAGES - 1))
        os.ftruncate(fd, PAGE * (PAGES - 1))
        os.ftruncate(fd, PAGE * PAGES)
        becomes(fd, PAGES - 1, 0)
    elif what == "rename":
        name = f"{top}/x{number}"
        attempt("mkdir", os.mkdir, name)
        if os.path.isdir(name):
            attempt("rename", os.rename, name, name + "y")
            if os.path.isdir(name + "y"):
                attempt("rmdir", os.rmdir, name + "y")
    else:
        # Clean pages go, and come back by a READ.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = attempt("read", os.pread, fd, PAGE, page * PAGE)
        allowed = past if fd in lost else known
        assert data is FAILED or set(data) <= set(allowed[fd][page]), (page, sorted(set(data)), allowed[fd][page])
for fd in fds:
    areas[fd].close()
    sync(fd)
    os.close(fd)
print(json.dumps([errors, [(past if fd in lost else known)[fd] for fd in fds]]))
"""

FAIL = """
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
cd /sys/kernel/debug/{what}
echo Y >task-filter; echo {probability} >probability; echo 1 >interval; echo -1 >times; echo 0 >verbose; echo N >ignore-gfp-wait
[ ! -e cache-filter ] || echo N >cache-filter
[ ! -e min-order ] || echo 0 >min-order
[ ! -e ignore-gfp-highmem ] || echo N >ignore-gfp-highmem
"""


def files(tree):
    """What is shared."""
    tree.file("file", 10)


# What fails, and how often of a hundred times.
FAILURES = {"failslab": 5, "fail_page_alloc": 40}


@pytest.fixture
def failures(kernel, request):
    """A guest, and each kind of allocation, which fails now and then in tasks that ask for it while the test has it."""
    if kernel != "debug":
        pytest.skip("the plain kernel has no fault injection")
    rig = request.getfixturevalue("rig")

    def each(failures=None):
        for what, probability in (failures or FAILURES).items():
            rig.guest.run(FAIL.format(what=what, probability=probability))
            yield what
            rig.guest.run(f"echo 0 >/sys/kernel/debug/{what}/probability")

    yield rig, each
    for what in FAILURES:
        rig.guest.run(f"echo 0 >/sys/kernel/debug/{what}/probability")


def change(rig, name):
    """Changes files while allocations fail, and compares with what each page may hold on the host."""
    errors, contents = rig.guest.value(CHANGE, f"/mnt/{name}", 1, 150, timeout=300)
    # EIO: what fsync(2) tells of a write-back for which there was no memory.
    assert all(set(counts) <= {"OK", "ENOMEM", "EIO"} for counts in errors.values()), errors
    assert errors["write"].get("OK") and any("ENOMEM" in counts for counts in errors.values()), errors
    for number, pages in enumerate(contents):
        content = (rig.tree / name / str(number)).read_bytes()
        assert len(content) == 4096 * len(pages)
        for page, allowed in enumerate(pages):
            seen = set(content[page * 4096 : (page + 1) * 4096])
            assert seen <= set(allowed), (number, page, seen, allowed, errors)


def test_written_through(failures):
    """Calls end with ENOMEM or do what they are asked for; each page on the host is one that was written last, or that may have been."""
    rig, each = failures
    rig.daxd.configure(entry_timeout=1, attr_timeout=1)
    rig.guest.mount("daxd", "/mnt")
    for what in each():
        change(rig, f"through-{what}")
    rig.guest.umount("/mnt")
    rig.unmounted()


def test_written_back(failures):
    """As above, of pages that are written back later."""
    rig, each = failures
    rig.daxd.configure(entry_timeout=1, attr_timeout=1, init_flags="+WRITEBACK_CACHE")
    rig.guest.mount("daxd", "/mnt")
    for what in each():
        change(rig, f"back-{what}")
    rig.guest.umount("/mnt")
    rig.unmounted()


MOUNT = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
switch = os.open("/proc/thread-self/make-it-fail", os.O_RDWR)
counts = {}
def attempt(name, function, *arguments):
    os.pwrite(switch, b"1", 0)
    failed = function(*arguments)
    number = ctypes.get_errno()
    os.pwrite(switch, b"0", 0)
    key = f"{name}:{errno.errorcode[number] if failed else 'OK'}"
    counts[key] = counts.get(key, 0) + 1
    return not failed
for number in range(int(sys.argv[1])):
    if attempt("mount", libc.mount, b"daxd", b"/mnt", b"virtiofs", 0, None):
        assert os.path.ismount("/mnt") and os.listdir("/mnt")
        attempt("umount", libc.umount2, b"/mnt", 0) or libc.umount2(b"/mnt", 0)
        assert not os.path.ismount("/mnt")
print(json.dumps(counts))
"""


def test_mount(failures):
    """A mount that finds no memory ends with ENOMEM and leaves nothing, and an unmount ends in any case."""
    rig, each = failures
    # A mount takes so many allocations that some have to succeed.
    for _ in each({"failslab": 1, "fail_page_alloc": 10}):
        counts = rig.guest.value(MOUNT, 30, timeout=300)
        assert counts.get("mount:OK"), counts
        assert set(counts) <= {"mount:OK", "mount:ENOMEM", "umount:OK", "umount:ENOMEM"}, counts
    rig.guest.mount("daxd", "/mnt")
    rig.guest.umount("/mnt")
    rig.unmounted()


BIND = """
import json, os, sys
device, first, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fail = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
def tell(what, number=0):
    with open(f"/sys/bus/virtio/drivers/virtiofs/{what}", "wb", buffering=0) as file:
        os.pwrite(fail, b"%d" % number, 0)
        try:
            file.write(device.encode())
            return True
        except OSError:
            return False
        finally:
            left.append(int(os.pread(fail, 20, 0)))
            os.pwrite(fail, b"0", 0)
left, failed = [], 0
tell("unbind")
assert tell("bind", 1 << 30)
# So many allocations can fail. Those at the end come when others know of the device.
count = (1 << 30) - left[-1]
for number in sorted({*range(first, count, step), *range(max(count - 15, 1), count + 1)}):
    tell("unbind")
    if not tell("bind", number):
        failed += 1
        assert not os.listdir("/sys/fs/virtiofs"), number
        assert not os.listdir("/sys/kernel/debug/virtiofs"), number
        assert device not in open("/proc/interrupts").read(), number
        assert tell("bind"), number
    assert os.listdir("/sys/fs/virtiofs") == [device[len("virtio"):]]
print(json.dumps([count, failed]))
"""


@pytest.mark.ours("the directory in debugfs")
def test_bind(failures):
    """A device that cannot be bound because an allocation fails, whichever, leaves nothing, and can be bound then."""
    rig, each = failures
    # The kernel misses what it could not make of an interrupt's files.
    rig.guest.expected.append(r"WARNING: fs/proc/generic.c:\d+ at remove_proc_entry")
    for _ in each({"failslab": 0}):
        for _ in each({"fail_page_alloc": 0}):
            count, failed = rig.guest.value(BIND, f"virtio{rig.device()}", 1, 7, timeout=300)
    assert failed > 10, (count, failed)
    rig.guest.mount("daxd", "/mnt")
    assert rig.guest.out("stat -c %s /mnt/file") == "10"
    rig.guest.umount("/mnt")
    rig.unmounted()
