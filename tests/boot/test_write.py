# SPDX-License-Identifier: GPL-2.0
"""Writing files: through the page cache and past it, mapped, appended, with holes punched, all mixed, seen by both sides."""

import hashlib
import subprocess

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
    if "writeback" in mounted.mode:
        # A work item of the kernel's writes it, for which the task that was killed does not wait.
        mounted.run("sync -f /mnt/file")
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


COUNTED = """
import mmap, os
def written():
    return int(dict(line.split(":") for line in open("/proc/self/io"))["write_bytes"])
def counted(flags, size):
    fd = os.open("/mnt/file", os.O_WRONLY | os.O_CREAT | flags)
    before = written()
    assert os.writev(fd, [mmap.mmap(-1, size)]) == size
    return written() - before
print(counted(0, 4 << 20), counted(os.O_APPEND, 4096), counted(os.O_DIRECT, 1 << 20))
"""


def test_accounting(mounted):
    """write_bytes of /proc/PID/io counts what is written, in the cache and past it, once."""
    counted = [int(word) for word in mounted.python(COUNTED).stdout.split()]
    # As in the C driver, which counts twice what is written later.
    assert counted == [4 << 20, 4096, 1 << 20]


GROWN = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
zero = mmap.mmap(-1, 4096)
def fallocate(fd, mode, at, length):
    assert libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)) == 0
def direct():
    assert os.pwritev(os.open("/mnt/direct", os.O_RDWR | os.O_DIRECT), [zero], 8192) == 4096
ways = {
    "write": lambda fd: os.pwrite(fd, b"end", 9000),
    "direct": lambda fd: direct(),
    "truncate": lambda fd: os.ftruncate(fd, 9003),
    "allocate": lambda fd: fallocate(fd, 0, 5500, 3503),
    "zero": lambda fd: fallocate(fd, 16, 9000, 3),
    "copy": lambda fd: os.copy_file_range(fd, fd, 3, 0, 9000),
}
for name, grow in ways.items():
    fd = os.open(f"/mnt/{name}", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"a" * 5000, 0)
    m = mmap.mmap(fd, 5000)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(m)) + 5000, ord("Z"), 3000)
    grow(fd)
    print(name, os.fstat(fd).st_size, os.pread(fd, 4000, 5000) == bytes(4000), m[:5000] == b"a" * 5000)
"""


@pytest.mark.ours("it clears them for some ways to grow, in some modes")
def test_mapped_tail(mounted, tree):
    """Stores into a mapping's page behind the end of the file do not reach the file, however it grows afterwards."""
    if mounted.mode == "never":
        pytest.skip("not to be mapped")
    ends = {"write": b"end", "direct": bytes(3288), "truncate": bytes(3), "allocate": bytes(3), "zero": bytes(3), "copy": b"aaa"}
    expected = {name: b"a" * 5000 + bytes(4000) + end for name, end in ends.items()}
    said = mounted.python(GROWN).stdout
    assert said.split("\n")[:-1] == [f"{name} {len(data)} True True" for name, data in expected.items()]
    mounted.umount()
    assert {name: (tree / name).read_bytes() for name in expected} == expected


def test_mapping_beside_direct(boot, tree):
    """What was stored through a mapping is written back by a handle for which the host does not ask for whole blocks."""
    tree.file("file", b"a" * 5000)
    guest = boot(Share(tree.path, "share", daemon_args=["--allow-direct-io"]))
    guest.mount("share", "/mnt")
    script = """
import mmap, os
fd = os.open("/mnt/file", os.O_RDWR)
os.open("/mnt/file", os.O_RDWR | os.O_DIRECT)
m = mmap.mmap(fd, 5000)
m[4999] = ord("b")
m.flush()
"""
    guest.python(script)
    assert (tree / "file").read_bytes() == b"a" * 4999 + b"b"


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
area = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
print(area[:] == data)
print(fallocate(fd, KEEP | PUNCH, 5000, 100_000))
data[5000:105_000] = bytes(100_000)
# Before anything asks for attributes, which may say that the file has changed.
print(area[:] == data)
print(os.pread(fd, 1 << 24, 0) == data)
print(fallocate(fd, ZERO, 200_000, 50_000))
data[200_000:250_000] = bytes(50_000)
print(area[:] == data)
print(os.pread(fd, 1 << 24, 0) == data)
print(fallocate(fd, KEEP, 1 << 24, 4096), os.fstat(fd).st_size == len(data))
print(fallocate(fd, 0, 1 << 24, 4096), os.fstat(fd).st_size == (1 << 24) + 4096)
print(fallocate(fd, COLLAPSE, 0, 4096))
"""
    out = mounted.python(script).stdout.split("\n")
    assert out[:-1] == ["True", *["OK", "True", "True"] * 2, "OK True", "OK True", "ENOTSUP"]


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


FILL = """
import errno, mmap, os
def name(call, *arguments):
    try:
        call(*arguments)
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]
fd = os.open("/mnt/file", os.O_WRONLY)
total = 0
def fill():
    global total
    while total < 4 << 20:
        total += os.write(fd, b"x" * 65536)
print(name(fill), os.fstat(fd).st_size == total, total, name(os.fsync, fd), name(os.fsync, fd))
area = mmap.mmap(os.open("/mnt/hole", os.O_RDWR), 0)
area[:] = b"y" * len(area)
print(name(area.flush), name(area.flush))
"""


@pytest.mark.parametrize("mode", ["auto", "auto --writeback"])
def test_no_space(boot, tree, mode):
    """A full host filesystem is ENOSPC, once: at write(2) or, where that stays in the cache, at fsync(2), and for a mapping at
    msync(2); what fitted is there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tree.path], check=True)
    try:
        tree.file("file")
        with open(tree.file("hole"), "wb") as hole:
            hole.truncate(65536)
        guest = boot(Share(tree.path, "share", daemon_args=f"--cache={mode}".split()))
        guest.mount("share", "/mnt")
        filled, sized, total, *synced = guest.python(FILL).stdout.split()
        written = (tree / "file").read_bytes()
        assert 0 < len(written) <= 1 << 20 and not written.strip(b"x")
        assert sized == "True"
        if "writeback" in mode:
            assert (filled, int(total), synced) == ("OK", 4 << 20, ["ENOSPC", "OK", "ENOSPC", "OK"])
        else:
            assert (filled, int(total), synced) == ("ENOSPC", len(written), ["OK", "OK", "ENOSPC", "OK"])
        guest.umount("/mnt")
        guest.unload()
        guest.poweroff()
    finally:
        subprocess.run(["umount", "-l", tree.path], check=True)


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
