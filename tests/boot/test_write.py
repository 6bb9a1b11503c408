# SPDX-License-Identifier: GPL-2.0
"""Writing files: through the page cache and past it, mapped, appended, with holes punched, all mixed, seen by both sides."""

import hashlib

import pytest
import tree as trees
from guest import Share

MODES = ("auto", "never", "always", "auto --writeback", "always --writeback")


def sha256(data):
    """The checksum of bytes."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=MODES)
def mounted(request, boot, tree):
    """A guest with an empty share, writable on /mnt, once for each cache mode."""
    tree.file("file")
    tree.file("other")
    tree.file("big", trees.BIG)
    guest = boot(Share(tree.path, "share", daemon_args=f"--cache={request.param}".split()))
    guest.mount("share", "/mnt")
    guest.mode = request.param
    return guest


def test_pieces(mounted, tree):
    """What is written in pieces of odd sizes is read back at once, and is in the host's file when write(2) returns."""
    script = """
import os, random
data = random.Random(1).randbytes(3_000_777)
fd = os.open("/mnt/file", os.O_RDWR)
done = 0
while done < len(data):
    done += os.write(fd, data[done : done + 100_001])
assert os.fstat(fd).st_size == len(data)
assert os.pread(fd, len(data) + 1, 0) == data
os.pwrite(fd, b"X" * 5000, 4090)
data = data[:4090] + b"X" * 5000 + data[9090:]
assert os.pread(fd, len(data), 0) == data
import hashlib
print(hashlib.sha256(data).hexdigest(), flush=True)
os.kill(os.getpid(), 9)
"""
    # Killed before it closes the file: nothing may depend on close(2).
    told = mounted.python(script, check=False).stdout.split()[0]
    assert sha256((tree / "file").read_bytes()) == told


def test_direct(mounted, tree):
    """O_DIRECT writes reach the host; cached reads of the same file see them, and direct reads see cached writes."""
    script = """
import mmap, os, random
fd = os.open("/mnt/big", os.O_RDWR)
direct = os.open("/mnt/big", os.O_RDWR | os.O_DIRECT)
rng = random.Random(2)
buffer = mmap.mmap(-1, 1 << 21)
os.pread(fd, 1 << 23, 0)
for length in (4096, 65536, 1 << 20, 1 << 21):
    data = rng.randbytes(length)
    buffer[:length] = data
    at = rng.randrange(512) * 4096
    assert os.pwritev(direct, [memoryview(buffer)[:length]], at) == length
    assert os.pread(fd, length, at) == data
    data = rng.randbytes(length)
    os.pwrite(fd, data, at)
    assert os.preadv(direct, [memoryview(buffer)[:length]], at) == length
    assert buffer[:length] == data
# Beyond the end: the file grows.
size = os.fstat(fd).st_size
end = -(-size // 4096) * 4096
buffer[:4096] = b"e" * 4096
os.pwritev(direct, [memoryview(buffer)[:4096]], end)
assert os.fstat(fd).st_size == end + 4096
assert os.pread(fd, 8192, size) == bytes(end - size) + b"e" * 4096
print("done")
"""
    assert mounted.python(script).stdout == "done\n"
    guest_sum = mounted.out("sha256sum </mnt/big").split()[0]
    assert sha256((tree / "big").read_bytes()) == guest_sum


def test_append(mounted, tree):
    """Several processes append lines to one file: none is lost or torn."""
    script = """
import os
from multiprocessing import Process
def work(number):
    fd = os.open("/mnt/file", os.O_WRONLY | os.O_APPEND)
    for line in range(50):
        os.write(fd, b"%d:%d\\n" % (number, line))
workers = [Process(target=work, args=(n,)) for n in range(4)]
[w.start() for w in workers]
[w.join() for w in workers]
"""
    mounted.python(script)
    lines = (tree / "file").read_text().split()
    assert sorted(lines) == sorted(f"{number}:{line}" for number in range(4) for line in range(50))


def test_mapped(boot, tree):
    """What is stored through a shared mapping is on the host after msync(2), and after close and exit without it."""
    tree.file("file", 5 << 20)
    guest = boot(Share(tree.path, "share"))
    guest.mount("share", "/mnt")
    script = """
import hashlib, mmap, os, sys
fd = os.open("/mnt/file", os.O_RDWR)
ref = bytearray(os.pread(fd, 5 << 20, 0))
m = mmap.mmap(fd, 5 << 20)
for i in range(0, 5 << 20, 70_001):
    m[i : i + 7] = b"MAPPED!"[: len(ref[i : i + 7])]
    ref[i : i + 7] = b"MAPPED!"[: len(ref[i : i + 7])]
if sys.argv[1] == "msync":
    m.flush()
assert os.pread(fd, 5 << 20, 0) == bytes(ref)
print(hashlib.sha256(ref).hexdigest(), flush=True)
if sys.argv[1] == "msync":
    os.kill(os.getpid(), 9)
"""
    for how in ("msync", "exit"):
        tree.file("file", 5 << 20, seed=how)
        told = guest.python(script, how, check=False).stdout.split()[0]
        assert sha256((tree / "file").read_bytes()) == told, how


def test_mapped_tail(boot, tree):
    """Stores into a mapping's page behind the end of the file do not reach the file, also when it grows afterwards."""
    tree.file("file", b"a" * 5000)
    guest = boot(Share(tree.path, "share"))
    guest.mount("share", "/mnt")
    script = """
import mmap, os
fd = os.open("/mnt/file", os.O_RDWR)
m = mmap.mmap(fd, 5000)
import ctypes
ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(m)) + 5000, ord("Z"), 3000)
m[0] = ord("b")
m.flush()
os.pwrite(fd, b"end", 9000)
print(os.pread(fd, 4000, 5000) == bytes(4000))
"""
    assert guest.python(script).stdout.strip() == "True"
    assert (tree / "file").read_bytes() == b"b" + b"a" * 4999 + bytes(4000) + b"end"


def test_fallocate(mounted, tree):
    """fallocate(2) allocates, punches and zeroes; readers see it at once, mapped ones too; other modes are EOPNOTSUPP."""
    script = """
import ctypes, errno, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(fd, mode, at, length):
    failed = libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length))
    return errno.errorcode[ctypes.get_errno()] if failed else "OK"
KEEP, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16
fd = os.open("/mnt/big", os.O_RDWR)
data = bytearray(os.pread(fd, 1 << 24, 0))
print(fallocate(fd, KEEP | PUNCH, 5000, 100_000))
data[5000:105_000] = bytes(100_000)
print(os.pread(fd, 1 << 24, 0) == data)
print(fallocate(fd, ZERO, 200_000, 50_000))
data[200_000:250_000] = bytes(50_000)
print(os.pread(fd, 1 << 24, 0) == data)
print(fallocate(fd, KEEP, 1 << 24, 4096), os.fstat(fd).st_size == len(data))
print(fallocate(fd, 0, 1 << 24, 4096), os.fstat(fd).st_size == (1 << 24) + 4096)
print(fallocate(fd, COLLAPSE, 0, 4096))
"""
    out = mounted.python(script).stdout.split("\n")
    assert out[:-1] == ["OK", "True", "OK", "True", "OK True", "OK True", "ENOTSUP"]


def test_limits(mounted):
    """Writes beyond RLIMIT_FSIZE are EFBIG with SIGXFSZ, to a file opened for reading EBADF, of a bad buffer EFAULT."""
    script = """
import ctypes, errno, os, resource, signal
def name(call):
    try:
        call()
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]
hits = []
signal.signal(signal.SIGXFSZ, lambda *_: hits.append(1))
fd = os.open("/mnt/file", os.O_RDWR)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
print(os.pwrite(fd, b"x" * 20_000, 0), os.fstat(fd).st_size)
result = name(lambda: os.pwrite(fd, b"x", 10_000))
while not hits:
    # Python runs handlers between its own instructions. A signal that does not come is a timeout.
    pass
print(result, len(hits))
print(name(lambda: os.write(os.open("/mnt/file", os.O_RDONLY), b"x")))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.write(fd, ctypes.c_void_p(4096), 10), errno.errorcode[ctypes.get_errno()])
"""
    assert mounted.python(script).stdout.split("\n")[:-1] == ["10000 10000", "EFBIG 1", "EBADF", "-1 EFAULT"]


def test_no_space(boot, tree):
    """A full host filesystem is ENOSPC at write(2), and for a mapping at msync(2) or close(2); what fitted is there."""
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tree.path], check=True)
    try:
        tree.file("file")
        tree.file("map")
        guest = boot(Share(tree.path, "share"))
        guest.mount("share", "/mnt")
        script = """
import errno, mmap, os
fd = os.open("/mnt/file", os.O_WRONLY)
total = 0
try:
    while True:
        total += os.write(fd, b"x" * 65536)
except OSError as error:
    print(errno.errorcode[error.errno], total <= 1 << 20, os.fstat(fd).st_size == total)
"""
        assert guest.python(script).stdout.split() == ["ENOSPC", "True", "True"]
        guest.umount("/mnt")
        guest.unload()
        guest.poweroff()
    finally:
        subprocess.run(["umount", "-l", tree.path], check=True)


FSX = """
import ctypes, hashlib, mmap, os, random, sys
path, seed, rounds, truncates = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "yes"
LIMIT = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)
rng = random.Random(seed)
fd = os.open(path, os.O_RDWR)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
aligned = mmap.mmap(-1, LIMIT)
model = bytearray(os.pread(fd, LIMIT, 0))
trail = []

def store(at, data):
    if len(model) < at:
        model.extend(bytes(at - len(model)))
    model[at : at + len(data)] = data

def place(unit=1):
    at = rng.randrange(LIMIT // unit) * unit
    length = min(rng.choice([1, 7, 512, 4096, 10_000, 65_536, 200_000]), LIMIT - at)
    return at, max(length // unit, 1) * unit

def write():
    at, length = place()
    data = rng.randbytes(length)
    assert os.pwrite(fd, data, at) == length
    store(at, data)

def write_direct():
    at, length = place(4096)
    aligned[:length] = rng.randbytes(length)
    assert os.pwritev(direct, [memoryview(aligned)[:length]], at) == length
    store(at, aligned[:length])

def write_mapped():
    if len(model) < 2:
        return
    m = mmap.mmap(fd, len(model))
    at = rng.randrange(len(model) - 1)
    data = rng.randbytes(min(rng.choice([1, 100, 5000, 70_000]), len(model) - at))
    m[at : at + len(data)] = data
    store(at, data)
    if rng.random() < 0.3:
        m.flush()
    m.close()

def read():
    at, length = place()
    assert os.pread(fd, length, at) == model[at : at + length]

def read_direct():
    at, length = place(4096)
    count = os.preadv(direct, [memoryview(aligned)[:length]], at)
    assert aligned[:count] == model[at : at + length]

def read_mapped():
    if len(model):
        with mmap.mmap(fd, len(model), prot=mmap.PROT_READ) as m:
            assert m[:] == model

def truncate():
    size = rng.randrange(LIMIT)
    os.ftruncate(fd, size)
    if size < len(model):
        del model[size:]
    else:
        model.extend(bytes(size - len(model)))

def punch():
    at, length = place()
    if len(model) and libc.fallocate(fd, 3, ctypes.c_long(at), ctypes.c_long(length)) == 0:
        end = min(at + length, len(model))
        if at < end:
            model[at:end] = bytes(end - at)

def sync():
    rng.choice([os.fsync, os.fdatasync])(fd)

def forget():
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

steps = [write, write, write_direct, read, read, read_direct, punch, sync, forget]
if sys.argv[5] == "mapped":
    steps += [write_mapped, write_mapped, read_mapped]
if truncates:
    steps.append(truncate)
for number in range(rounds):
    step = rng.choice(steps)
    trail.append(step.__name__)
    try:
        step()
        assert os.fstat(fd).st_size == len(model), (os.fstat(fd).st_size, len(model))
    except AssertionError:
        print("round", number, trail[-12:], file=sys.stderr)
        raise
assert os.pread(fd, LIMIT, 0) == model
os.close(fd)
print(hashlib.sha256(model).hexdigest())
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mixed(mounted, tree, seed):
    """Hundreds of random writes, reads, truncates, holes and syncs, cached, direct and mapped, agree with a model."""
    # With --cache=never files are not to be mapped shared.
    mapped = "plain" if mounted.mode == "never" else "mapped"
    told = mounted.python(FSX, "/mnt/file", seed, 400, "yes", mapped, timeout=600).stdout.strip()
    assert sha256((tree / "file").read_bytes()) == told


def test_mixed_together(boot, tree):
    """Several processes do so at once, each with a file of its own."""
    for number in range(4):
        tree.file(f"file{number}")
    guest = boot(Share(tree.path, "share"), cpus=2)
    guest.mount("share", "/mnt")
    processes = [
        guest.spawn_python(FSX, f"/mnt/file{number}", number + 10, 200, "yes", "mapped") for number in range(4)
    ]
    for number, process in enumerate(processes):
        result = process.wait(timeout=900)
        assert result.rc == 0, result.stderr
        assert sha256((tree / f"file{number}").read_bytes()) == result.stdout.strip()


def test_copy_file_range(mounted, tree):
    """copy_file_range(2) copies within the share, also what a mapping has just written; readers of the target see it."""
    script = """
import hashlib, mmap, os
source, target = os.open("/mnt/big", os.O_RDWR), os.open("/mnt/file", os.O_RDWR)
os.pwrite(target, b"old" * 100_000, 0)
assert os.pread(target, 10, 0) == b"oldoldoldo"
mapped = os.environ["MAPPED"] == "yes"
if mapped:
    m = mmap.mmap(source, 1 << 20)
    m[5000:5006] = b"fresh!"
size = os.fstat(source).st_size
done = 0
while done < size:
    count = os.copy_file_range(source, target, size - done, done, done)
    assert count > 0
    done += count
assert os.copy_file_range(source, target, 10, size, 0) == 0
data = os.pread(target, size + 1, 0)
assert data == os.pread(source, size, 0)
print(hashlib.sha256(data).hexdigest())
"""
    mapped = "no" if mounted.mode == "never" else "yes"
    told = mounted.python(f"import os\nos.environ['MAPPED'] = '{mapped}'\n{script}").stdout.strip()
    assert sha256((tree / "file").read_bytes()) == told


def test_direct_sees_mapping(boot, tree):
    """O_DIRECT reads give what a mapping has written and nobody has synced."""
    tree.file("file", 1 << 20)
    guest = boot(Share(tree.path, "share"))
    guest.mount("share", "/mnt")
    script = """
import mmap, os
fd = os.open("/mnt/file", os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
direct = os.open("/mnt/file", os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
for number in range(50):
    m[number * 8192 : number * 8192 + 4] = b"%04d" % number
    assert os.preadv(direct, [page], number * 8192) == 4096
    assert page[:4] == b"%04d" % number, number
print("done")
"""
    assert guest.python(script).stdout == "done\n"
