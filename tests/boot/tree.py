# SPDX-License-Identifier: GPL-2.0
"""Builds directories to share."""

import os
import random
import socket
import stat
from pathlib import Path

BIG = 8 * 1024 * 1024 + 1234
MANY = 5000
DEPTH = 50


def content(size, seed=0):
    """Bytes that differ everywhere, the same for the same seed."""
    return random.Random(f"{size}/{seed}").randbytes(size)


class Tree:
    """A directory on the host, and short ways to put things into it."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name):
        return self.path / name

    def __str__(self):
        return str(self.path)

    def file(self, name, data=b"", seed=0):
        """Writes a file: bytes, text, or as many bytes as a number says."""
        if isinstance(data, int):
            data = content(data, seed)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def link(self, name, target):
        """Makes a symbolic link."""
        (self.path / name).symlink_to(target)

    def sparse(self, name, size, *pieces):
        """A file with holes: pieces are (offset, length) of data."""
        with open(self.path / name, "wb") as file:
            file.truncate(size)
            for offset, length in pieces:
                file.seek(offset)
                file.write(content(length, offset))


def standard(path):
    """The tree that most tests read: one of everything."""
    tree = Tree(path)
    tree.file("hello.txt", "hello, guest\n")
    tree.file("empty")
    tree.file("big", BIG)
    tree.file("page", 4096)
    tree.file("odd-size", 123457)
    tree.sparse("sparse", 8 << 20, (1 << 20, 65536), (4 << 20, 4096))
    tree.sparse("all-hole", 1 << 20)
    deep = "/".join(f"level{number}" for number in range(DEPTH))
    tree.file(f"deep/{deep}/leaf", "deep down\n")
    many = tree / "many"
    many.mkdir()
    for number in range(MANY):
        (many / f"entry-{number:05}").write_bytes(b"%d\n" % number)
    (tree / "empty-dir").mkdir()

    links = tree / "links"
    links.mkdir()
    tree.link("links/relative", "../hello.txt")
    tree.link("links/to-dir", "../deep")
    tree.link("links/dangling", "nowhere/at/all")
    tree.link("links/absolute", "/etc/hostname")
    tree.link("links/long", "x" * 250 + ("/" + "y" * 250) * 15)
    tree.link("links/loop", "loop")

    names = tree / "names"
    names.mkdir()
    odd = [b"with space", b"new\nline", b"back\\slash", "gr\u00fc\u00df".encode(), b"\xff\xfe not utf8", b"-dash", b"n" * 255, b"..."]
    for name in odd:
        with open(os.fsencode(names) + b"/" + name, "wb") as file:
            file.write(name)

    kinds = tree / "kinds"
    kinds.mkdir()
    os.mkfifo(kinds / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(kinds / "socket"))
    os.mknod(kinds / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(kinds / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 17))
    tree.file("kinds/setuid", "x").chmod(0o4755)
    tree.file("kinds/owned", "x")
    os.chown(kinds / "owned", 12345, 54321)
    tree.file("kinds/old", "x")
    os.utime(kinds / "old", ns=(1_000_000_001, 123_456_789))
    tree.file("kinds/future", "x")
    os.utime(kinds / "future", ns=(5_000_000_000_987_654_321, 5_000_000_000_123_456_789))
    tree.file("kinds/hard1", "same file\n")
    os.link(kinds / "hard1", kinds / "hard2")
    (kinds / "sticky").mkdir(mode=0o777)
    (kinds / "sticky").chmod(0o1777)
    return tree
