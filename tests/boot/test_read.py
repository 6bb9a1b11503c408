# SPDX-License-Identifier: GPL-2.0
"""Reading files: through the page cache and past it, mapped, executed, spliced, with holes, and when the host changes them."""

import hashlib
import os
import signal

import pytest
import tree as trees
from conftest import errno_of
from guest import Share

DROP = "echo 3 >/proc/sys/vm/drop_caches"
BIG = trees.content(trees.BIG)


def sha256(data):
    """The checksum of bytes."""
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", ["1000", "4096", "65536", "1048576", "16777216"])
def test_sequential(guest, mnt, size):
    """A large file read from its start in pieces of any size is the host's, cold and warm."""
    guest.run(DROP)
    for _ in range(2):
        assert guest.out(f"dd if={mnt}/big bs={size} status=none | sha256sum").split()[0] == sha256(BIG)


def test_every_file(guest, host, mnt):
    """Small, empty, odd-sized and sparse files read whole."""
    for name in ("hello.txt", "empty", "page", "odd-size", "sparse", "all-hole", "kinds/hard2"):
        expected = sha256((host / name).read_bytes())
        assert guest.out(f"sha256sum <{mnt}/{name}").split()[0] == expected, name


def test_random_reads(guest, mnt):
    """Reads at arbitrary places and lengths, also across the end and far beyond it, return exactly what is there."""
    script = """
import hashlib, os, random, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
rng = random.Random(7)
total = hashlib.sha256()
for _ in range(300):
    offset = rng.choice([rng.randrange(size), size - rng.randrange(5000), size + rng.randrange(9000)])
    total.update(os.pread(fd, rng.choice([1, 100, 4096, 70000]), offset))
print(total.hexdigest())
"""
    total = hashlib.sha256()
    namespace = {}
    local = script.replace("os.open(sys.argv[1], os.O_RDONLY)", "None").replace("os.fstat(fd).st_size", str(len(BIG)))
    local = local.replace("os.pread(fd, ", "at(").replace("print(total.hexdigest())", "")
    namespace["at"] = lambda length, offset: BIG[offset : offset + length]
    exec(local, namespace)  # pylint: disable=exec-used
    total = namespace["total"]
    assert guest.python(script, f"{mnt}/big").stdout.strip() == total.hexdigest()


def test_parallel_readers(guest, mnt):
    """Many threads read one file at once, each from its own place; all get the right bytes."""
    guest.run(DROP)
    script = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor
fd = os.open(sys.argv[1], os.O_RDONLY)
piece = 300_000
count = -(-os.fstat(fd).st_size // piece)
def read(number):
    data = b""
    while len(data) < piece:
        more = os.pread(fd, piece - len(data), number * piece + len(data))
        if not more:
            break
        data += more
    return data
with ThreadPoolExecutor(8) as pool:
    print(hashlib.sha256(b"".join(pool.map(read, range(count)))).hexdigest())
"""
    assert guest.python(script, f"{mnt}/big").stdout.strip() == sha256(BIG)


DIRECT = """
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
piece = int(sys.argv[2])
buffer = mmap.mmap(-1, piece)
total = hashlib.sha256()
offset = 0
sizes = []
while True:
    count = os.preadv(fd, [buffer], offset)
    if count == 0:
        break
    total.update(buffer[:count])
    offset += count
print(total.hexdigest(), offset)
"""


@pytest.mark.parametrize("piece", [4096, 65536, 1 << 20, 4 << 20])
def test_direct(guest, mnt, piece):
    """O_DIRECT reads give the whole file and stop at an end that is no multiple of anything."""
    assert guest.python(DIRECT, f"{mnt}/big", piece).stdout.split() == [sha256(BIG), str(len(BIG))]


def test_direct_edges(guest, host, mnt):
    """O_DIRECT at the end, beyond it, in pieces of many buffers, in holes, and into a read-only buffer (EFAULT)."""
    script = """
import errno, json, mmap, os, sys
top = sys.argv[1]
fd = os.open(top + "/big", os.O_RDONLY | os.O_DIRECT)
size = os.fstat(fd).st_size
last = size // 4096 * 4096
one = mmap.mmap(-1, 65536)
out = [os.preadv(fd, [one], last), os.preadv(fd, [one], last + 4096), os.preadv(fd, [one], 1 << 40)]
parts = [mmap.mmap(-1, 4096 * (1 + n % 3)) for n in range(40)]
count = os.preadv(fd, parts, 8192)
flat = b"".join(bytes(part) for part in parts)
out += [count == len(flat), flat == os.pread(os.open(top + "/big", os.O_RDONLY), len(flat), 8192)]
hole = os.open(top + "/sparse", os.O_RDONLY | os.O_DIRECT)
out += [os.preadv(hole, [one], 0), not any(one[:65536])]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
rc = libc.pread(fd, ctypes.c_void_p(page), ctypes.c_size_t(4096), ctypes.c_long(0))
out += [rc, errno.errorcode[ctypes.get_errno()]]
print(json.dumps(out))
"""
    tail = len(BIG) % 4096
    assert guest.value(script, mnt) == [tail, 0, 0, True, True, 65536, True, -1, "EFAULT"]


def test_direct_beside_cached(guest, mnt):
    """Direct and cached readers of one file agree, in whatever order they come."""
    guest.run(DROP)
    for _ in range(2):
        assert guest.python(DIRECT, f"{mnt}/odd-size", 65536).stdout.split()[0] == guest.out(f"sha256sum <{mnt}/odd-size").split()[0]


MAPPED = """
import errno, hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
flags = {"private": mmap.MAP_PRIVATE, "shared": mmap.MAP_SHARED}[sys.argv[2]]
try:
    area = mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ)
except OSError as error:
    print(errno.errorcode[error.errno])
    sys.exit()
os.close(fd)
print(hashlib.sha256(area).hexdigest())
"""


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_mapped(guest, mnt, kind):
    """A mapped file holds the host's bytes, cold; shared mappings of what is not cached are ENODEV unless the daemon allows them."""
    guest.run(DROP)
    expected = "ENODEV" if kind == "shared" and mnt == "/run/never" else sha256(BIG)
    assert guest.python(MAPPED, f"{mnt}/big", kind).stdout.strip() == expected


def test_mapped_private_writes_stay(guest, host, mnt):
    """Writing to a private mapping changes the mapping alone, not the file and not the cache."""
    script = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
area = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
area[0:5] = b"HELLO"
print(area[0:5].decode(), os.pread(fd, 5, 0).decode())
"""
    assert guest.python(script, f"{mnt}/hello.txt").stdout.split() == ["HELLO", "hello"]
    assert (host / "hello.txt").read_text() == "hello, guest\n"


def test_mapped_end(guest, mnt):
    """A mapping is zero behind the file's end, and touching a page wholly behind it is SIGBUS."""
    script = """
import ctypes, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
start = libc.mmap(None, 1 << 20, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
tail = ctypes.string_at(start + size, 4096 - size % 4096)
child = os.fork()
if child == 0:
    ctypes.string_at(start + size + 4096, 1)
    os._exit(0)
print(any(tail), os.WTERMSIG(os.waitpid(child, 0)[1]))
"""
    assert guest.python(script, f"{mnt}/odd-size").stdout.split() == ["False", "7"]


def test_sendfile_and_splice(guest, mnt):
    """sendfile, splice, tee-ed pipes and copy_file_range out of the share move the right bytes."""
    guest.run(DROP)
    script = """
import hashlib, json, os, sys, threading
path = sys.argv[1]
out = []
def checksum(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()
def copy(function):
    source, target = os.open(path, os.O_RDONLY), os.open("/run/copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    function(source, target)
    os.close(source)
    os.close(target)
    out.append(checksum("/run/copy"))
def sendfile(source, target):
    offset = 0
    while count := os.sendfile(target, source, offset, 1 << 20):
        offset += count
def splice(source, target):
    reader, writer = os.pipe()
    while count := os.splice(source, writer, 65536):
        while count:
            count -= os.splice(reader, target, count)
def ranges(source, target):
    while os.copy_file_range(source, target, 1 << 20):
        pass
copy(sendfile)
copy(splice)
try:
    copy(ranges)
except OSError:
    # Between two filesystems it may be refused; never wrong.
    out.append(out[0])
os.unlink("/run/copy")
print(json.dumps(out))
"""
    assert guest.value(script, f"{mnt}/big", timeout=120) == [sha256(BIG)] * 3


def test_readahead_and_fadvise(guest, mnt):
    """readahead(2), fadvise and madvise are accepted, and what is read after them is right."""
    guest.run(DROP)
    script = """
import ctypes, hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
ctypes.CDLL(None).readahead(fd, ctypes.c_long(1 << 20), ctypes.c_size_t(2 << 20))
for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_RANDOM, os.POSIX_FADV_DONTNEED):
    os.posix_fadvise(fd, 0, 0, advice)
area = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
area.madvise(mmap.MADV_WILLNEED)
print(hashlib.sha256(area).hexdigest())
"""
    assert guest.python(script, f"{mnt}/big").stdout.strip() == sha256(BIG)


def test_seek_data_and_hole(guest, host, mnt):
    """SEEK_DATA and SEEK_HOLE find the host's holes; beyond the end they are ENXIO."""
    places = [0, 1, 4096, 1 << 20, (1 << 20) + 65536, (4 << 20) - 1, 4 << 20, (4 << 20) + 4096, (8 << 20) - 1]
    script = """
import errno, json, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
out = []
for place in json.loads(sys.argv[2]):
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        try:
            out.append(os.lseek(fd, place, whence))
        except OSError as error:
            out.append(errno.errorcode[error.errno])
out.append(os.lseek(fd, 0, os.SEEK_END))
print(json.dumps(out))
"""
    expected = []
    fd = os.open(host / "sparse", os.O_RDONLY)
    for place in places:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            try:
                expected.append(os.lseek(fd, place, whence))
            except OSError as error:
                expected.append({6: "ENXIO"}[error.errno])
    os.close(fd)
    assert guest.value(script, f"{mnt}/sparse", str(places)) == [*expected, 8 << 20]
    assert errno_of(guest, "os.lseek(os.open(a[0], 0), 9 << 20, os.SEEK_DATA)", f"{mnt}/sparse") == "ENXIO"


@pytest.mark.parametrize("path", ["kinds/fifo", "kinds/socket", "kinds/null"])
def test_special_files(guest, mnt, path):
    """Special files are the guest's own: a pipe works without the daemon, a socket nobody listens on, a device of the guest."""
    if path.endswith("fifo"):
        assert guest.out(f"echo through >{mnt}/kinds/fifo & cat {mnt}/kinds/fifo") == "through"
    elif path.endswith("socket"):
        assert errno_of(guest, "import socket; socket.socket(socket.AF_UNIX).connect(a[0])", f"{mnt}/{path}") == "ECONNREFUSED"
    else:
        assert guest.out(f"cat {mnt}/{path}") == ""


def test_open_flags(guest, mnt):
    """Directories cannot be read as files, files not as directories; O_NOATIME, O_NONBLOCK and O_PATH work."""
    assert errno_of(guest, "os.read(os.open(a[0], os.O_RDONLY), 1)", f"{mnt}/many") == "EISDIR"
    assert errno_of(guest, "os.open(a[0], os.O_RDONLY | os.O_DIRECTORY)", f"{mnt}/hello.txt") == "ENOTDIR"
    for flags in ("os.O_NOATIME", "os.O_NONBLOCK", "os.O_PATH", "os.O_CLOEXEC | os.O_NOFOLLOW", "os.O_LARGEFILE"):
        assert errno_of(guest, f"os.close(os.open(a[0], os.O_RDONLY | {flags}))", f"{mnt}/hello.txt") == "OK", flags
    assert errno_of(guest, "os.pread(os.open(a[0], os.O_RDONLY), 10, -1)", f"{mnt}/hello.txt") == "EINVAL"


READS = """
import hashlib, json, os, sys
print(json.dumps(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()))
"""


def test_close_to_open(boot, tree):
    """Who opens a file sees what the host has written before, though neither size nor time tell of it."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto"]))
    tree.file("file", trees.content(100_000, 0))
    guest.mount("tag")
    times = (tree / "file").stat()
    for number in range(1, 4):
        assert guest.value(READS, "/mnt/file") == sha256(trees.content(100_000, number - 1))
        (tree / "file").write_bytes(trees.content(100_000, number))
        os.utime(tree / "file", ns=(times.st_atime_ns, times.st_mtime_ns))
    guest.umount()


def test_invalidation(boot, tree):
    """What the guest cached of a file is dropped when the host changed it: other size, or the same size and a new time."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto"]))
    guest.mount("tag")
    for number, size in enumerate((300_000, 300_000, 1000, 500_000, 500_000)):
        data = trees.content(size, number)
        tree.file("file", data)
        guest.wait_until(lambda data=data: guest.value(READS, "/mnt/file") == sha256(data), f"version {number} is read")
    guest.umount()


def test_invalidation_of_an_open_file(boot, tree):
    """A file that stays open follows the host's changes, too: by read, and by a mapping made before."""
    tree.file("file", b"a" * 8192)
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto"]))
    guest.mount("tag")
    script = """
import mmap, os, sys, time
fd = os.open("/mnt/file", os.O_RDONLY)
area = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
assert os.pread(fd, 8192, 0) == b"a" * 8192 == area[:]
open("/run/read", "w")
deadline = time.monotonic() + 100
while os.pread(fd, 8192, 0) != b"b" * 8192 and time.monotonic() < deadline:
    time.sleep(0.1)
print(os.pread(fd, 8192, 0) == b"b" * 8192, area[:] == b"b" * 8192)
"""
    reader = guest.spawn_python(script)
    guest.wait_until(lambda: guest.run("test -e /run/read", check=False).rc == 0, "the file was read")
    # In place: the same inode.
    with open(tree / "file", "r+b") as file:
        file.write(b"b" * 8192)
    assert reader.wait(120).stdout.split() == ["True", "True"]
    guest.umount()


def test_truncated_on_the_host(boot, tree):
    """A file that the host cuts short while the guest reads it ends there; what was behind is never shown as data."""
    tree.file("file", b"x" * (2 << 20))
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto"]))
    guest.mount("tag")
    assert guest.out("cat /mnt/file | wc -c") == str(2 << 20)
    os.truncate(tree / "file", 10_000)
    guest.wait_until(lambda: guest.out("cat /mnt/file | wc -c") == "10000", "the file is short")
    guest.run(DROP)
    assert guest.get("/mnt/file") == b"x" * 10_000
    os.truncate(tree / "file", 20_000)
    guest.wait_until(lambda: guest.get("/mnt/file") == b"x" * 10_000 + bytes(10_000), "the file has a hole at its end")
    guest.umount()


def test_cache_is_kept(boot, tree):
    """With cache=always what was read once is read again without the daemon, by whoever opens the file."""
    tree.file("file", trees.content(300_000))
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=always"]), wedged=True)
    guest.mount("tag")
    script = """
import hashlib, os, sys, time
fd = os.open("/mnt/file", os.O_RDONLY)
first = os.pread(fd, 300_000, 0)
again = os.open("/mnt/file", os.O_RDONLY)
open("/run/read", "w")
while not os.path.exists("/run/go"):
    time.sleep(0.05)
same = os.pread(again, 300_000, 0) == first and len(first) == 300_000
# Before the end, where closing the file asks the daemon.
with open("/run/result.new", "w") as result:
    result.write(str(same))
os.rename("/run/result.new", "/run/result")
"""
    reader = guest.spawn_python(script)
    guest.wait_until(lambda: guest.run("test -e /run/read", check=False).rc == 0, "the file was read")
    guest.shares[0].process.send_signal(signal.SIGSTOP)
    guest.run("touch /run/go")
    result = "cat /run/result 2>/dev/null"
    guest.wait_until(lambda: guest.run(result, check=False).stdout, "the second read ends while the daemon sleeps")
    assert guest.out(result) == "True"
    guest.shares[0].process.send_signal(signal.SIGCONT)
    assert reader.wait().rc == 0
    guest.umount()


def test_queue_of_128(boot, tree):
    """With the emulator's default queue size, too, large reads of both kinds are right."""
    tree.file("big", BIG)
    guest = boot(Share(tree.path, "tag", queue_size=128))
    guest.mount("tag")
    assert guest.out("sha256sum </mnt/big").split()[0] == sha256(BIG)
    assert guest.python(DIRECT, "/mnt/big", 4 << 20).stdout.split()[0] == sha256(BIG)
    guest.umount()
