# SPDX-License-Identifier: GPL-2.0
"""Attributes that are changed: mode, owner, size, times, and extended attributes."""

import errno
import os

import pytest
from conftest import errno_of
from guest import Share
from test_namespace import work  # noqa: F401, pylint: disable=unused-import


def test_mode_and_owner(work):  # noqa: F811
    """chmod(2) and chown(2) of everything, by path, link and descriptor."""
    work.run(
        """
put("file"); os.mkdir("dir"); os.symlink("file", "link"); os.mkfifo("fifo")
for mode in (0o000, 0o777, 0o4755, 0o2755, 0o1777, 0o640):
    for name in ("file", "dir", "fifo"):
        os.chmod(name, mode); assert os.stat(name).st_mode & 0o7777 == mode, (name, oct(mode))
os.chown("file", 4000000000, 4000000001); info = os.stat("file"); assert (info.st_uid, info.st_gid) == (4000000000, 4000000001)
os.chown("file", 7, -1); os.chown("file", -1, 8); info = os.stat("file"); assert (info.st_uid, info.st_gid) == (7, 8)
os.lchown("link", 5, 6); info = os.lstat("link"); assert (info.st_uid, info.st_gid) == (5, 6)
assert os.stat("link").st_uid == 7
fd = os.open("file", os.O_RDONLY); os.fchmod(fd, 0o611); os.fchown(fd, 9, 10); info = os.fstat(fd)
assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o611, 9, 10); os.close(fd)
before = os.stat("file").st_ctime_ns; os.chmod("file", 0o612); assert os.stat("file").st_ctime_ns > before
"""
    )
    info = os.stat(work.host / "file")
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o612, 9, 10)


def test_set_id_bits(work):  # noqa: F811
    """Set-id bits go when the owner changes, or when somebody writes or truncates who may not set them."""
    work.run(
        """
def reset():
    os.chown("file", 1000, 1000); os.chmod("file", 0o6777)
put("file", "12345")
reset(); os.chown("file", 1001, -1); assert os.stat("file").st_mode & 0o7777 == 0o777
os.mkdir("dir"); os.chmod("dir", 0o2777); os.chown("dir", 5, 5); assert os.stat("dir").st_mode & 0o7777 == 0o2777
reset(); as_user(1002, 1002, [], os.truncate, "file", 3); assert os.stat("file").st_mode & 0o7777 == 0o777
def write():
    fd = os.open("file", os.O_WRONLY); os.write(fd, b"x"); os.close(fd)
reset(); as_user(1002, 1002, [], write); assert os.stat("file").st_mode & 0o7777 == 0o777
reset(); as_user(1002, 1002, [], lambda: os.close(os.open("file", os.O_WRONLY | os.O_TRUNC)))
assert os.stat("file").st_mode & 0o7777 == 0o777, oct(os.stat("file").st_mode)
reset(); write(); assert os.stat("file").st_mode & 0o7777 == 0o6777
put("group"); os.chown("group", 1000, 3000); os.chmod("group", 0o755)
as_user(1000, 1000, [], os.chmod, "group", 0o2755); assert os.stat("group").st_mode & 0o7777 == 0o755
as_user(1000, 1000, [3000], os.chmod, "group", 0o2755); assert os.stat("group").st_mode & 0o7777 == 0o2755
"""
    )


def test_errors(work):  # noqa: F811
    """What others own is not theirs to change, and nothing of it is cached."""
    work.run(
        """
put("file", "12345"); os.chmod("file", 0o644); os.symlink("loop", "loop")
def denied():
    fails("EPERM", os.chmod, "file", 0o777); fails("EPERM", os.chown, "file", 1000, 1000)
    fails("EACCES", os.truncate, "file", 0); fails("EACCES", os.utime, "file"); fails("EPERM", os.utime, "file", (1, 1))
as_user(1000, 1000, [], denied)
info = os.stat("file"); assert (info.st_mode & 0o7777, info.st_uid, info.st_size) == (0o644, 0, 5) and get("file") == "12345"
fails("ENOENT", os.chmod, "missing", 0); fails("ELOOP", os.chmod, "loop", 0); fails("EISDIR", os.truncate, ".", 0)
fails("EINVAL", os.truncate, "file", -1); fd = os.open("file", os.O_RDONLY); fails("EINVAL", os.ftruncate, fd, 0); os.close(fd)
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
fails("EFBIG", os.truncate, "file", 101); os.truncate("file", 100); assert os.stat("file").st_size == 100
"""
    )


def test_truncate(work):  # noqa: F811
    """Sizes, by path and descriptor, up and down, are those of the contents; what is grown is zero."""
    work.run(
        """
put("file", "abcdefgh" * 2000)
assert len(get("file")) == 16000
for size in (15999, 8193, 8192, 8191, 4097, 1, 0):
    os.truncate("file", size); assert os.stat("file").st_size == size; assert get("file") == ("abcdefgh" * 2000)[:size], size
fd = os.open("file", os.O_RDWR)
os.pwrite(fd, b"x" * 5000, 0); os.ftruncate(fd, 100); os.ftruncate(fd, 10000)
assert os.pread(fd, 20000, 0) == b"x" * 100 + b"\\0" * 9900
os.ftruncate(fd, 1 << 40); assert os.fstat(fd).st_size == 1 << 40 and os.pread(fd, 10, (1 << 40) - 5) == b"\\0" * 5
os.ftruncate(fd, 0); assert os.read(fd, 1) == b""
os.lseek(fd, 3, 0); os.write(fd, b"y"); assert os.pread(fd, 9, 0) == b"\\0\\0\\0y"
with open("file", "w") as other:
    assert os.fstat(fd).st_size == 0 and os.pread(fd, 9, 0) == b""
    other.write("new")
assert os.pread(fd, 9, 0) == b"new" and os.fstat(fd).st_size == 3
"""
    )
    assert (work.host / "file").read_text() == "new"


@pytest.mark.parametrize("flags", ["shared", "private"])
def test_truncate_mapped(guest, host, flags):
    """A mapping of what is cut off gives SIGBUS; what is written behind the end does not come back."""
    name = f"mapped-{flags}"
    (host / name).write_bytes(b"m" * 8192)
    guest.python(
        f"""
import mmap, os, signal
fd = os.open("/run/auto/{name}", os.O_RDWR)
where = mmap.mmap(fd, 8192, flags=mmap.MAP_{flags.upper()})
assert where[5000] == ord("m")
os.ftruncate(fd, 100)
assert where[99] == ord("m") and where[100] == 0
pid = os.fork()
if pid == 0:
    where[5000]
    os._exit(0)
assert os.waitpid(pid, 0)[1] & 0x7f == signal.SIGBUS
where[200] = 7
os.ftruncate(fd, 8192)
if "{flags}" == "shared":
    assert where[200] == 0 and where[5000] == 0
assert os.pread(fd, 8192, 0) == b"m" * 100 + bytes(8092)
"""
    )
    assert (host / name).read_bytes() == b"m" * 100 + bytes(8092)
    (host / name).unlink()


@pytest.mark.beyond_c("what is written back later sets it anew")
def test_time_after_a_store(guest, host):
    """A time that is set after a store through a mapping stays when that is written back."""
    (host / "stored").write_bytes(b"m" * 4096)
    guest.python(
        """
import ctypes, mmap, os
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open("/run/auto/stored", os.O_RDWR)
area = libc.mmap(None, ctypes.c_long(4096), 3, 1, fd, ctypes.c_long(0))
ctypes.memset(area, ord("n"), 1)
os.utime(fd, ns=(123456789, 987654321))
libc.munmap(ctypes.c_void_p(area), ctypes.c_long(4096))
os.close(fd)
assert os.stat("/run/auto/stored").st_mtime_ns == 987654321
"""
    )
    assert os.stat(host / "stored").st_mtime_ns == 987654321
    assert (host / "stored").read_bytes() == b"n" + b"m" * 4095
    (host / "stored").unlink()


def test_times(work):  # noqa: F811
    """utimensat(2): given times to the nanosecond, before 1970 and after 2038, now, and one of both."""
    work.run(
        """
put("file"); os.symlink("file", "link"); os.mkdir("dir")
for atime, mtime in ((1, 2), (123456789012345678, 987654321098765432), (-1_500_000_000, -999_999_999), (5_000_000_000_123_456_789, 1)):
    for name in ("file", "dir"):
        os.utime(name, ns=(atime, mtime)); info = os.stat(name)
        assert (info.st_atime_ns, info.st_mtime_ns) == (atime, mtime), (name, info)
os.utime("link", ns=(3, 4), follow_symlinks=False); info = os.lstat("link"); assert (info.st_atime_ns, info.st_mtime_ns) == (3, 4)
class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
def utimens(name, atime, mtime):
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    assert libc.utimensat(-100, name.encode(), times, 0) == 0
os.utime("file", ns=(10, 20))
utimens("file", (0, OMIT), (77, 88)); info = os.stat("file"); assert (info.st_atime_ns, info.st_mtime_ns) == (10, 77_000_000_088)
utimens("file", (0, NOW), (0, OMIT)); info = os.stat("file"); assert info.st_atime > 1e9 and info.st_mtime_ns == 77_000_000_088
os.utime("file"); info = os.stat("file"); assert info.st_mtime > 1e9
before = info.st_mtime_ns
put("file", "changes"); assert os.stat("file").st_mtime_ns > before
before = os.stat("dir").st_mtime_ns; put("dir/new"); assert os.stat("dir").st_mtime_ns > before
"""
    )


def test_host_changes_after_ours(work):  # noqa: F811
    """What the host changes after the guest did is seen once the time to live has passed."""
    if "/always/" in work.path:
        pytest.skip("this mode promises that the host changes nothing")
    work.run("put('file', 'guest'); os.chmod('file', 0o600); os.truncate('file', 3)")
    (work.host / "file").write_text("by the host")
    (work.host / "file").chmod(0o644)
    work.run("import time\ntime.sleep(1.1)\nassert get('file') == 'by the host' and os.stat('file').st_mode & 0o777 == 0o644")


@pytest.fixture
def xattrs(boot, tree):
    """A guest with a daemon that has extended attributes."""
    tree.file("file", "x")
    # Attributes of the trusted and security namespaces are for who has this capability.
    guest = boot(Share(tree.path, "tag", daemon_args=["--xattr", "--modcaps=+sys_admin"]))
    guest.mount("tag")
    yield guest
    guest.umount()


def test_set_xattr(xattrs, tree):
    """Values of all sizes and namespaces are set, replaced, and removed; the host has them."""
    xattrs.python(
        """
import os
os.chdir("/mnt")
os.mkdir("dir"); os.symlink("file", "link")
for name in ("file", "dir"):
    for size in (0, 1, 100, 2000):
        value = bytes(index % 251 for index in range(size))
        os.setxattr(name, "user.value", value); assert os.getxattr(name, "user.value") == value, size
    os.setxattr(name, "trusted.value", b"t"); os.setxattr(name, "security.value", b"s")
    assert {"user.value", "trusted.value", "security.value"} <= set(os.listxattr(name))
    os.removexattr(name, "user.value")
    assert "user.value" not in os.listxattr(name)
before = os.stat("file").st_ctime_ns
os.setxattr("file", "user.kept", b"kept"); assert os.stat("file").st_ctime_ns > before
os.setxattr("link", "trusted.link", b"l", follow_symlinks=False); assert "trusted.link" not in os.listxattr("file")
"""
    )
    assert os.getxattr(tree / "file", "user.kept") == b"kept"
    assert errno_of(xattrs, "os.setxattr('/mnt/file', 'user.kept', b'', os.XATTR_CREATE)") == "EEXIST"
    assert errno_of(xattrs, "os.setxattr('/mnt/file', 'user.none', b'', os.XATTR_REPLACE)") == "ENODATA"
    assert errno_of(xattrs, "os.removexattr('/mnt/file', 'user.none')") == "ENODATA"
    assert errno_of(xattrs, "os.setxattr('/mnt/file', 'user.big', bytes(65537))") == "E2BIG"
    assert errno_of(xattrs, "os.setxattr('/mnt/file', 'nonsense.name', b'x')") == "ENOTSUP"
    # What the host's filesystem has room for is its business.
    try:
        os.setxattr(tree / "file", "user.large", b"L" * 65536)
        expected = "OK"
    except OSError as error:
        expected = errno.errorcode[error.errno]
    assert errno_of(xattrs, "os.setxattr('/mnt/file', 'user.large', b'G' * 65536)") == expected
    if expected == "OK":
        assert os.getxattr(tree / "file", "user.large") == b"G" * 65536


def test_set_xattr_without(boot, tree):
    """A daemon without extended attributes gives EOPNOTSUPP."""
    tree.file("file", "x")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    for _ in range(2):
        assert errno_of(guest, "os.setxattr('/mnt/file', 'user.x', b'x')") == "ENOTSUP"
        assert errno_of(guest, "os.removexattr('/mnt/file', 'user.x')") == "ENOTSUP"
    guest.umount()


def test_capabilities_go(xattrs, tree):
    """security.capability of a file goes when it is written to."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(tree / "file", "security.capability", capability)
    xattrs.run("echo more >> /mnt/file")
    assert "security.capability" not in os.listxattr(tree / "file")


@pytest.mark.parametrize("options", [["--killpriv-v2"], ["--no-readdirplus"], ["--thread-pool-size=4"]])
def test_daemon_options(boot, tree, options):
    """Making and changing works with what the daemon's options change of the protocol."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--xattr", *options]))
    guest.mount("tag")
    guest.python(
        """
import os
os.chdir("/mnt"); os.umask(0o027)
with open("file", "w") as file: file.write("12345")
os.mkdir("dir", 0o777); os.mkfifo("fifo")
assert os.stat("file").st_mode & 0o777 == 0o640 and os.stat("dir").st_mode & 0o777 == 0o750
os.chmod("file", 0o6755); os.chown("file", 1, 1); assert os.stat("file").st_mode & 0o7777 == 0o755
os.truncate("file", 2); assert open("file").read() == "12"
os.rename("file", "dir/file"); os.unlink("dir/file"); os.unlink("fifo"); os.rmdir("dir"); assert os.listdir(".") == []
"""
    )
    guest.umount()
    assert os.listdir(tree.path) == []
