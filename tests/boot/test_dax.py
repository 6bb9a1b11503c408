# SPDX-License-Identifier: GPL-2.0
"""Files that the window shows: read, written, mapped, cut and grown, by several processes, with far too few ranges.

Each test asks the daemon whether anything was mapped, so that none passes by doing without the window.
"""

import hashlib
import random

import pytest

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}
SIZES = {"empty": 0, "small": 100, "page": 4096, "odd": 123_457, "two": 2 * MEG, "big": 5 * MEG + 1234, "huge": 40 * MEG}

# Reads, writes, mappings, cuts and holes at random, against a copy in memory. Arguments: name, seed, steps.
MIXTURE = """
import ctypes, hashlib, mmap, os, random, sys
libc = ctypes.CDLL(None, use_errno=True)
name, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
LIMIT = 12 << 20
fd = os.open(name, os.O_RDWR | os.O_CREAT)
model = bytearray(os.pread(fd, LIMIT, 0))

def place(limit):
    start = rng.randrange(limit)
    return start, min(rng.choice((1, 100, 4096, 5000, 70000, 300000)), limit - start)

def check(got, start, length, what):
    want = bytes(model[start:start + length])
    if got != want:
        at = next(i for i in range(max(len(got), len(want))) if got[i:i+1] != want[i:i+1])
        sys.exit(f"{what}: step {step}: {len(got)} of {len(want)} bytes from {start}, of {len(model)}; differ at {start + at}")

for step in range(steps):
    what = rng.choice("read read write write write append map map store store cut grow punch zero direct sync close".split())
    if what == "read" and model:
        start, length = place(len(model))
        check(os.pread(fd, length, start), start, length, what)
    elif what == "write" and model:
        start, length = place(len(model))
        data = rng.randbytes(length)
        assert os.pwrite(fd, data, start) == length
        model[start:start + length] = data
    elif what == "append" and len(model) < LIMIT - 400000:
        data = rng.randbytes(rng.randrange(1, 400000))
        start = max(0, len(model) - rng.randrange(5000))
        assert os.pwrite(fd, data, start) == len(data)
        model[start:start + len(data)] = data
    elif what == "map" and model:
        start, length = place(len(model))
        kind = rng.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
        with mmap.mmap(fd, len(model), flags=kind, prot=mmap.PROT_READ) as m:
            check(m[start:start + length], start, length, what)
    elif what == "store" and model:
        start, length = place(len(model))
        data = rng.randbytes(length)
        with mmap.mmap(fd, len(model)) as m:
            check(m[start:start + 1], start, 1, what)
            m[start:start + length] = data
            if rng.random() < 0.2:
                m.flush()
        model[start:start + length] = data
    elif what == "cut" and model and rng.random() < 0.5:
        size = rng.randrange(len(model))
        os.ftruncate(fd, size)
        del model[size:]
    elif what == "grow":
        size = min(LIMIT, len(model) + rng.randrange(500000))
        if size > len(model):
            os.ftruncate(fd, size)
            model.extend(bytes(size - len(model)))
    elif what in ("punch", "zero") and model:
        start, length = place(len(model))
        mode = 0x3 if what == "punch" else 0x11
        done = libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length))
        assert done == 0, os.strerror(ctypes.get_errno())
        model[start:start + length] = bytes(length)
    elif what == "direct" and len(model) > 8192:
        start = rng.randrange(len(model) // 4096) * 4096
        direct = os.open(name, os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, 65536) as buffer:
            count = os.preadv(direct, [buffer], start)
            check(buffer[:count], start, min(65536, len(model) - start), what)
        os.close(direct)
    elif what == "sync":
        os.fsync(fd)
    elif what == "close" and rng.random() < 0.2:
        os.close(fd)
        fd = os.open(name, os.O_RDWR)
    assert os.fstat(fd).st_size == len(model), (what, step, os.fstat(fd).st_size, len(model))
print(hashlib.sha256(model).hexdigest())
"""


def files(tree):
    """What is shared."""
    for name, size in SIZES.items():
        tree.file(name, size)


def md5(data):
    """As md5sum prints it."""
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with all files in the window; afterwards nothing is left mapped."""
    files(rig.tree)
    rig.guest.mount("daxd", "/mnt", options="dax=always")
    yield rig
    rig.guest.umount("/mnt")
    assert rig.daxd.counters()["live"]["maps"] == 0
    dax = rig.daxd.counters()["dax"]
    assert (dax["map_refused"], dax["unmap_refused"], dax["remove_nothing"]) == (0, 0, 0), dax
    rig.unmounted()


def python(rig, program):
    """Runs a program in the guest; what it printed."""
    result = rig.guest.spawn_python(program).wait(120)
    assert result.rc == 0, result
    return result.stdout.strip()


def setups(rig):
    """Ranges that were mapped so far."""
    return rig.daxd.counters()["dax"]["setup"]


def test_read(mounted):
    """All of it is what the host has; a file is mapped once, by ranges that suit its size, and no READ is sent."""
    for name in SIZES:
        if name == "huge":
            continue
        data = (mounted.tree / name).read_bytes()
        assert mounted.guest.out(f"md5sum </mnt/{name}").split()[0] == md5(data), name
    first = setups(mounted)
    assert first > 0
    mounted.guest.run("cat /mnt/small /mnt/page /mnt/odd /mnt/two /mnt/big >/dev/null")
    assert setups(mounted) == first
    assert mounted.daxd.count("READ") == 0
    assert {entry["len"] for entry in mounted.daxd.maps()} > {4096}


def test_larger_than_the_window(mounted):
    """A file that does not fit is read all the same, and as many ranges are removed as are needed."""
    data = (mounted.tree / "huge").read_bytes()
    assert mounted.guest.out("md5sum </mnt/huge").split()[0] == md5(data)
    assert setups(mounted) >= 20, mounted.daxd.counters()
    assert mounted.daxd.counters()["dax"]["remove"] > 0


def test_write(mounted):
    """A write inside the file goes through the window, one that makes it longer is sent; readers see both at once."""
    python(
        mounted,
        """
import os
fd = os.open("/mnt/two", os.O_RDWR)
os.pread(fd, 4096, 0)
for i in range(64):
    assert os.pwrite(fd, b"W" * 10000, i * 16384) == 10000
assert os.pread(fd, 10, 16384) == b"W" * 10
assert os.pwrite(fd, b"E" * 5000, (2 << 20) - 1000) == 5000
assert os.fstat(fd).st_size == (2 << 20) + 4000
assert os.pread(fd, 6000, (2 << 20) - 1000) == b"E" * 5000
""",
    )
    data = (mounted.tree / "two").read_bytes()
    assert len(data) == 2 * MEG + 4000 and data[16384:26384] == b"W" * 10000 and data.endswith(b"E" * 5000)
    assert setups(mounted) > 0
    assert 0 < mounted.daxd.count("WRITE") < 10


def test_splice(mounted):
    """What splice(2) and sendfile(2) bring into a file is there, within what is mapped and behind it, and who has it mapped sees it."""
    want = bytearray((mounted.tree / "two").read_bytes())
    piped, sent = random.Random(1).randbytes(300_000), (mounted.tree / "big").read_bytes()[5000:905_000]
    want[100_001:400_001] = piped
    want[1_500_000:] = sent
    digests = python(
        mounted,
        f"""
import hashlib, mmap, os, random, threading
fd, big = os.open("/mnt/two", os.O_RDWR), os.open("/mnt/big", os.O_RDONLY)
area = mmap.mmap(fd, 0)
area[100_000]
reader, writer = os.pipe()
data = random.Random(1).randbytes(300_000)
def feed():
    os.write(writer, data)
    os.close(writer)
thread = threading.Thread(target=feed)
thread.start()
at = 100_001
while count := os.splice(reader, fd, 1 << 20, offset_dst=at):
    at += count
assert at == 400_001
thread.join()
os.lseek(fd, 1_500_000, os.SEEK_SET)
left = 900_000
while left:
    left -= os.sendfile(fd, big, 905_000 - left, left)
print(hashlib.md5(area).hexdigest(), hashlib.md5(os.pread(fd, 4 << 20, 0)).hexdigest())
""",
    ).split()
    assert digests == [md5(want[: 2 * MEG]), md5(want)]
    assert md5((mounted.tree / "two").read_bytes()) == md5(want)
    assert setups(mounted) > 0


def test_mapping(mounted):
    """Loads and stores through shared and private mappings; the second one reaches nobody else."""
    big = mounted.tree / "big"
    before = big.read_bytes()
    digest = python(
        mounted,
        """
import hashlib, mmap, os
fd = os.open("/mnt/big", os.O_RDWR)
with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE) as private, mmap.mmap(fd, 0) as shared:
    print(hashlib.md5(shared).hexdigest())
    private[0:5] = b"alone"
    shared[5 << 20:(5 << 20) + 6] = b"shared"
    assert os.pread(fd, 6, 5 << 20) == b"shared"
    assert private[5 << 20:(5 << 20) + 6] == b"shared"
    os.pwrite(fd, b"written", 3 << 20)
    assert shared[3 << 20:(3 << 20) + 7] == b"written"
    shared.flush()
""",
    )
    assert digest == md5(before)
    after = big.read_bytes()
    assert after[:5] == before[:5] and after[5 * MEG :][:6] == b"shared" and after[3 * MEG :][:7] == b"written"
    assert setups(mounted) > 0
    assert (mounted.daxd.count("READ"), mounted.daxd.count("FSYNC")) == (0, 1)


def test_huge_pages(mounted):
    """A large file is mapped by huge pages, wherever the kernel puts the mapping: it takes as many faults."""
    out = python(
        mounted,
        """
import mmap, os, resource
area = mmap.mmap(os.open("/mnt/two", os.O_RDWR), 0)
area[5]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for page in range(512):
    area[page * 4096]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
""",
    )
    assert int(out) < 50
    assert setups(mounted) > 0


def test_exec(mounted):
    """A program in the window runs."""
    program = mounted.guest.out("readlink -f /bin/sh || echo /bin/sh")
    mounted.guest.run(f"cp {program} /mnt/program; chmod 755 /mnt/program")
    mounted.daxd.reset_counters()
    assert mounted.guest.out("/mnt/program -c 'echo runs'") == "runs"
    assert setups(mounted) > 0


def test_truncation(mounted):
    """A mapping beyond the new end gets SIGBUS; what is grown again is zero."""
    out = python(
        mounted,
        """
import mmap, os, signal
fd = os.open("/mnt/two", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0], m[-1] = 1, 2
os.ftruncate(fd, 5000)
assert m[4999] is not None and m[5001] == 0
pid = os.fork()
if pid == 0:
    m[8192]
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.ftruncate(fd, 2 << 20)
assert m[6000] == 0 and m[(2 << 20) - 1] == 0 and os.pread(fd, 10, 1 << 20) == bytes(10)
m[1 << 20] = 7
assert os.pread(fd, 1, 1 << 20) == b"\\x07"
""",
    )
    assert int(out) == -7
    assert setups(mounted) > 0


@pytest.mark.parametrize("seeds", [(1,), (2, 3, 4)], ids=["one", "three"])
def test_mixture(mounted, seeds):
    """Reads, writes, mappings, cuts and holes at random; several processes share the window's few ranges."""
    tasks = [mounted.guest.spawn_python(MIXTURE, f"/mnt/mix{seed}", seed, 300) for seed in seeds]
    for seed, task in zip(seeds, tasks):
        result = task.wait(600)
        assert result.rc == 0, result
        assert result.stdout.strip() == hashlib.sha256((mounted.tree / f"mix{seed}").read_bytes()).hexdigest()
    assert setups(mounted) > 0
