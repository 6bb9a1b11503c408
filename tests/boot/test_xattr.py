# SPDX-License-Identifier: GPL-2.0
"""Extended attributes: reading and listing them, and a daemon that has none."""

import os
import tempfile

import pytest
from conftest import errno_of
from guest import Share


@pytest.fixture
def marked(tree):
    """A tree with files that bear extended attributes."""
    tree.file("file", "x")
    tree.file("plain", "x")
    os.setxattr(tree / "file", "user.short", b"value")
    os.setxattr(tree / "file", "user.empty", b"")
    os.setxattr(tree / "file", "user.binary", bytes(range(256)))
    os.setxattr(tree / "file", "user." + "n" * 200, b"x" * 2000)
    (tree / "dir").mkdir()
    os.setxattr(tree / "dir", "user.dir", b"on a directory")
    return tree


def test_read_and_list(boot, marked):
    """Values and names are the host's, for files and directories, with any size of buffer."""
    guest = boot(Share(marked.path, "tag", daemon_args=["--xattr"]))
    guest.mount("tag")
    script = """
import json, os, sys
out = {}
for name in ("file", "dir", "plain"):
    path = "/mnt/" + name
    out[name] = {key: list(os.getxattr(path, key)) for key in os.listxattr(path) if key.startswith("user.")}
print(json.dumps(out))
"""
    expected = {
        name: {key: list(os.getxattr(marked / name, key)) for key in os.listxattr(marked / name) if key.startswith("user.")}
        for name in ("file", "dir", "plain")
    }
    assert len(expected["file"]) == 4
    assert guest.value(script) == expected
    assert guest.out("getfattr --only-values -n user.dir /mnt/dir") == "on a directory"
    guest.umount()


def test_errors(boot, marked):
    """A missing attribute is ENODATA, a buffer too small ERANGE, a length of zero asks for the size."""
    guest = boot(Share(marked.path, "tag", daemon_args=["--xattr"]))
    guest.mount("tag")
    assert errno_of(guest, "os.getxattr('/mnt/file', 'user.missing')") == "ENODATA"
    assert errno_of(guest, "os.getxattr('/mnt/plain', 'user.short')") == "ENODATA"
    assert errno_of(guest, "os.getxattr('/mnt/file', 'nonsense.name')") == "ENOTSUP"
    script = """
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    rc = function(*arguments)
    return errno.errorcode[ctypes.get_errno()] if rc < 0 else rc
buffer = ctypes.create_string_buffer(300)
out = [call(libc.getxattr, b"/mnt/file", b"user.binary", buffer, size) for size in (0, 1, 255, 256, 300)]
names = call(libc.listxattr, b"/mnt/dir", None, 0)
out += [names > 0, call(libc.listxattr, b"/mnt/dir", buffer, 1), call(libc.listxattr, b"/mnt/dir", buffer, 300) == names]
print(json.dumps(out))
"""
    assert guest.value(script) == [256, "ERANGE", "ERANGE", 256, 256, True, "ERANGE", True]
    guest.umount()


def test_daemon_without(boot, marked):
    """A daemon without extended attributes gives EOPNOTSUPP, each time, and everything else works."""
    guest = boot(Share(marked.path, "tag"))
    guest.mount("tag")
    for _ in range(3):
        assert errno_of(guest, "os.getxattr('/mnt/file', 'user.short')") == "ENOTSUP"
        assert errno_of(guest, "print(os.listxattr('/mnt/file'))").split("\n")[-1] in ("OK", "ENOTSUP")
    assert guest.out("cat /mnt/file") == "x"
    guest.umount()


LARGEST = """
import os
path = "/mnt/file"
value = bytes(index % 251 for index in range(65536))
for size in (65536, 65535, 4097):
    os.setxattr(path, "user.large", value[:size])
    open("/proc/sys/vm/drop_caches", "w").write("3")
    assert os.getxattr(path, "user.large") == value[:size], size
os.setxattr(path, "user.large", value)
names = [f"user.{number:0200}" for number in range(300)]
for name in names:
    os.setxattr(path, name, b"x")
assert {*names, "user.large"} <= set(os.listxattr(path))
for name in names[1:]:
    os.removexattr(path, name)
assert [name for name in names if name in os.listxattr(path)] == names[:1]
"""


def test_largest(boot):
    """A value of 64 KiB and a list of names of nearly as much go to the host and come back."""
    # Not every filesystem has room for them.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.chmod(directory, 0o755)
        path = f"{directory}/file"
        with open(path, "w", encoding="utf-8"):
            pass
        guest = boot(Share(directory, "tag", daemon_args=["--xattr"]))
        guest.mount("tag")
        guest.python(LARGEST, timeout=120)
        assert os.getxattr(path, "user.large") == bytes(index % 251 for index in range(65536))
        assert f"user.{0:0200}" in os.listxattr(path)
        assert errno_of(guest, "os.setxattr('/mnt/file', 'user.larger', bytes(65537))") == "E2BIG"
        guest.umount()
