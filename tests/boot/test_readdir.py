# SPDX-License-Identifier: GPL-2.0
"""Directories: complete listings of any size, with types and numbers, seeking, rewinding, and changes in between."""

import json
import os
import signal

import pytest
import tree as trees
from conftest import errno_of
from guest import Share

# readdir and its positions, by the C library: what Python offers hides them.
LIBC = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16), ("type", ctypes.c_uint8),
                ("name", ctypes.c_char * 256)]
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = libc.rewinddir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
def entry(directory):
    found = libc.readdir(directory)
    return os.fsdecode(found.contents.name) if found else None
def rest(directory):
    names = []
    while (name := entry(directory)) is not None:
        names.append(name)
    return names
"""


def test_listing(guest, host, mnt):
    """A directory of 5000 entries lists each exactly once, with . and .., the first time and the next."""
    expected = sorted([".", "..", *os.listdir(host / "many")])
    for _ in range(3):
        assert guest.out(f"ls -aU {mnt}/many | sort").split("\n") == expected


def test_types_and_numbers(guest, host, mnt):
    """Every entry's type and inode number are those that stat gives; odd names come whole."""
    script = """
import json, os, sys
out = {}
for entry in os.scandir(os.fsencode(sys.argv[1])):
    info = os.lstat(entry.path)
    kind = [entry.is_dir(follow_symlinks=False), entry.is_symlink(), entry.is_file(follow_symlinks=False)]
    real = [info.st_mode & 0o170000 == 0o040000, info.st_mode & 0o170000 == 0o120000, info.st_mode & 0o170000 == 0o100000]
    out[os.fsdecode(entry.name)] = entry.inode() == info.st_ino and kind == real
print(json.dumps(out))
"""
    for name in ("kinds", "names", "links", ""):
        result = guest.value(script, f"{mnt}/{name}")
        assert all(result.values()), result
        assert sorted(result) == sorted(os.listdir(host / name))


def test_small_buffer(guest, host, mnt):
    """getdents with buffers of any size gives the same entries; one that holds no entry is EINVAL."""
    script = """
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def listing(path, size):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    buffer = ctypes.create_string_buffer(size)
    names = []
    while (count := libc.syscall(217, fd, buffer, size)) > 0:
        at = 0
        while at < count:
            length = struct.unpack_from("<H", buffer, at + 16)[0]
            names.append(buffer.raw[at + 19:at + length].split(b"\\0")[0].decode())
            at += length
    os.close(fd)
    return count, names
out = []
for size in (64, 300, 4096, 100_000):
    count, names = listing(sys.argv[1], size)
    out.append([count, len(names), len(set(names))])
count, names = listing(sys.argv[1], 20)
out.append([count, ctypes.get_errno()])
print(json.dumps(out))
"""
    assert guest.value(script, f"{mnt}/many", timeout=120) == [[0, 5002, 5002]] * 4 + [[-1, 22]]


def test_seek_and_rewind(guest, mnt):
    """telldir positions lead back to the same entries, in any order; rewinddir starts again."""
    script = LIBC + """
directory = libc.opendir(sys.argv[1].encode())
order, places = [], []
while True:
    place = libc.telldir(directory)
    name = entry(directory)
    if name is None:
        break
    order.append(name)
    places.append(place)
good = len(order) == 5002
for index in (4000, 17, 2500, 2501, 1, 5001, 3333, 0):
    libc.seekdir(directory, places[index])
    good = good and rest(directory) == order[index:]
libc.rewinddir(directory)
good = good and rest(directory) == order and entry(directory) is None
libc.seekdir(directory, places[100])
good = good and [entry(directory) for _ in range(10)] == order[100:110]
libc.rewinddir(directory)
good = good and entry(directory) == order[0]
print(json.dumps(good))
"""
    assert guest.value(script, f"{mnt}/many", timeout=180) is True


def test_parallel_listings(guest, host, mnt):
    """Several processes list and stat one directory at the same time; each sees all of it."""
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    command = f"for i in 1 2 3 4; do (ls -alU {mnt}/many | wc -l) & done; wait"
    assert guest.out(command, timeout=240).split() == ["5003"] * 4


def test_one_handle_many_threads(guest, mnt):
    """Threads that share one open directory get every entry once between them."""
    script = LIBC + """
from concurrent.futures import ThreadPoolExecutor
import struct
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
def read(_):
    names = []
    buffer = ctypes.create_string_buffer(2048)
    while (count := libc.syscall(217, fd, buffer, 2048)) > 0:
        at = 0
        while at < count:
            length = struct.unpack_from("<H", buffer, at + 16)[0]
            names.append(buffer.raw[at + 19:at + length].split(b"\\0")[0])
            at += length
    return names
with ThreadPoolExecutor(4) as pool:
    names = sum(pool.map(read, range(4)), [])
print(json.dumps([len(names), len(set(names))]))
"""
    assert guest.value(script, f"{mnt}/many", timeout=120) == [5002, 5002]


def test_empty_and_deep(guest, mnt):
    """An empty directory has . and .., and a path of fifty directories is walked and found."""
    assert guest.out(f"ls -a {mnt}/empty-dir").split() == [".", ".."]
    assert guest.out(f"find {mnt}/deep | wc -l") == str(trees.DEPTH + 2)
    deep = "/".join(f"level{number}" for number in range(trees.DEPTH))
    assert guest.out(f"cat {mnt}/deep/{deep}/leaf") == "deep down"
    assert guest.out(f"cd {mnt}/deep/{deep} && pwd -P") == f"{mnt}/deep/{deep}"
    assert guest.out(f"cd {mnt}/deep/{deep} && ls ../../../..") == f"level{trees.DEPTH - 4}"


def test_dot_dot_numbers(guest, host, mnt):
    """. and .. of a listing have the numbers of the directory and of its parent."""
    script = LIBC + """
directory = libc.opendir(sys.argv[1].encode())
out = {}
while found := libc.readdir(directory):
    out[os.fsdecode(found.contents.name)] = found.contents.ino
print(json.dumps([out["."], out[".."]]))
"""
    assert guest.value(script, f"{mnt}/deep/level0") == [os.stat(host / "deep/level0").st_ino, os.stat(host / "deep").st_ino]


def test_errors(guest, mnt):
    """A file is no directory, a missing one is missing, and reading a directory that may not be read is EACCES."""
    assert errno_of(guest, "os.listdir(a[0])", f"{mnt}/hello.txt") == "ENOTDIR"
    assert errno_of(guest, "os.listdir(a[0])", f"{mnt}/nothing") == "ENOENT"
    assert errno_of(guest, "os.lseek(os.open(a[0], os.O_RDONLY), -5, os.SEEK_SET)", f"{mnt}/many") == "EINVAL"


def test_private_directory(boot, tree):
    """A directory that only its owner may read is EACCES for others, also when its entries are cached."""
    tree.file("private/file", "x")
    (tree / "private").chmod(0o700)
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    assert guest.out("ls /mnt/private") == "file"
    assert errno_of(guest, "os.setuid(1000); os.listdir('/mnt/private')") == "EACCES"
    assert errno_of(guest, "os.setuid(1000); os.stat('/mnt/private/file')") == "EACCES"
    guest.umount()


@pytest.mark.parametrize("plus", ["--no-readdirplus", "--cache=auto"])
def test_host_changes_between_reads(boot, tree, plus):
    """Entries that the host adds and removes while a listing is open show up or not, but none twice and none else is lost."""
    for number in range(2000):
        tree.file(f"dir/stays{number:04}")
    for number in range(200):
        tree.file(f"dir/goes{number:04}")
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto", plus]))
    guest.mount("tag")
    script = LIBC + """
import time
directory = libc.opendir(b"/mnt/dir")
names = [entry(directory) for _ in range(100)]
open("/run/started", "w")
while not os.path.exists("/run/go"):
    time.sleep(0.05)
print(json.dumps(names + rest(directory)))
"""
    lister = guest.spawn_python(script)
    guest.wait_until(lambda: guest.run("test -e /run/started", check=False).rc == 0, "the listing has begun")
    for number in range(200):
        (tree / f"dir/goes{number:04}").unlink()
        tree.file(f"dir/comes{number:04}")
    guest.run("touch /run/go")
    result = lister.wait()
    assert result.rc == 0, result
    names = json.loads(result.stdout)
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("stays")} == {f"stays{number:04}" for number in range(2000)}
    guest.wait_until(
        lambda: sorted(guest.out("ls /mnt/dir").split()) == sorted(os.listdir(tree / "dir")), "the new listing is complete"
    )
    guest.umount()


def test_listing_with_readdirplus_fills_attributes(boot, tree):
    """After a listing with readdirplus the attributes are there without the daemon."""
    for number in range(50):
        tree.file(f"dir/file{number}", b"x" * number)
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=always"]), wedged=True)
    guest.mount("tag")
    # It looks at nothing but names; ls does not keep to that.
    assert guest.value("import os; print(len(os.listdir('/mnt/dir')))") == 50
    guest.shares[0].process.send_signal(signal.SIGSTOP)
    script = "import os; print(sum(os.stat(f'/mnt/dir/file{n}').st_size for n in range(50)))"
    process = guest.spawn_python(script)
    guest.wait_until(process.poll, "all attributes are known while the daemon sleeps")
    assert process.result.stdout.strip() == str(sum(range(50)))
    guest.shares[0].process.send_signal(signal.SIGCONT)
