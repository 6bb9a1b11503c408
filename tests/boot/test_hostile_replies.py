# SPDX-License-Identifier: GPL-2.0
"""Replies that cannot be: each is an errno of its own and one line in the log, and harms nothing that comes after it."""

import hashlib
import os

import pytest
from conftest import mount_errno
from rig import Pace

# Three shares, as the lines of each device are limited.
# Names stay known, so that only those are looked up that were not met before.
RIG = {"shares": 3, "settings": {"entry_timeout": 3600}}
# How many of each thing there are: each is met for the first time once.
FRESH = 120
PACE = Pace()


def files(tree):
    """What is shared."""
    for number in range(FRESH):
        path = tree.file(f"fresh/{number}", 70000, seed=number)
        os.setxattr(path, "user.a", b"value of a")
        tree.link(f"fresh/link{number}", "target")
        tree.file(f"fresh/dir{number}/one", "1")
        tree.file(f"fresh/dir{number}/two", "2")
    tree.sparse("fresh/sparse", 1 << 20, (65536, 4096))


# What makes the request, with {m} the mount, {n} a number that was not used before, and {k} one of the attempt.
REQUESTS = {
    "LOOKUP": "os.stat('{m}/fresh/{n}')",
    "GETATTR": "fstat('{m}/fresh/{n}')",
    "STATX": "statx('{m}/fresh/{n}')",
    "OPEN": "read('{m}/fresh/{n}')",
    "READ": "read('{m}/fresh/{n}')",
    "READ direct": "read_direct('{m}/fresh/{n}')",
    "READ mapped": "read_mapped('{m}/fresh/{n}')",
    "OPENDIR": "os.listdir('{m}/fresh/dir{n}')",
    "READDIR": "os.listdir('{m}/fresh/dir{n}')",
    "READDIRPLUS": "os.listdir('{m}/fresh/dir{n}')",
    "STATFS": "os.statvfs('{m}/fresh/{n}').f_bavail",
    "READLINK": "os.readlink('{m}/fresh/link{n}')",
    "GETXATTR": "len(os.getxattr('{m}/fresh/{n}', 'user.a'))",
    "LISTXATTR": "os.listxattr('{m}/fresh/{n}')",
    "LSEEK": "seek('{m}/fresh/sparse', 0, os.SEEK_DATA)",
    "SETATTR": "os.chmod('{m}/fresh/{n}', 0o600)",
    "CREATE": "os.close(os.open('{m}/fresh/new{n}{k}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))",
    "TMPFILE": "os.close(os.open('{m}/fresh', os.O_TMPFILE | os.O_WRONLY))",
    "MKNOD": "os.mkfifo('{m}/fresh/fifo{n}{k}')",
    "MKDIR": "os.mkdir('{m}/fresh/made{n}{k}')",
    "SYMLINK": "os.symlink('target', '{m}/fresh/symbolic{n}{k}')",
    "LINK": "os.link('{m}/fresh/{n}', '{m}/fresh/hard{n}{k}')",
    "WRITE": "with opened('{m}/fresh/{n}', os.O_WRONLY) as fd: os.pwrite(fd, b'written', 0)",
    "COPY_FILE_RANGE_64": "with opened('{m}/fresh/{n}', os.O_RDWR) as fd: os.copy_file_range(fd, fd, 1000, 0, 5000)",
}
# Their replies have an entry, which is of a certain type.
MADE = ("CREATE", "TMPFILE", "MKNOD", "MKDIR", "SYMLINK", "LINK")
# Their replies have a body of fixed length.
FIXED = ("LOOKUP", "GETATTR", "STATX", "OPEN", "OPENDIR", "STATFS", "LSEEK", "SETATTR", "WRITE", "COPY_FILE_RANGE_64", *MADE)
# The access to a mapping that cannot be read.
ERRORS = {"READ mapped": "EFAULT"}

# Name, action, members, and what the line in the log says.
WHOLE = [
    ("nothing", "truncate", {"len": 0}, "reply too short (0 bytes)"),
    ("half a header", "truncate", {"len": 8}, "reply too short (8 bytes)"),
    ("header says more", "header_len", {"add": 8}, " says that it has "),
    ("header says less", "header_len", {"value": 0}, " says that it has 0"),
    ("device says less", "used_len", {"add": -1}, " says that it has "),
    ("beyond the room", "pad", {"bytes": 3 << 20}, " fit"),
    ("device says 4 GiB", "used_len", {"value": 0xFFFFFFFF}, "reply of 4294967295 bytes where"),
    ("another request", "unique", {"add": 2}, "reply for request "),
    ("a notification", "unique", {"value": 0}, "reply for request 0 instead of "),
    ("positive error", "raw_error", {"value": 5}, "reply with impossible error 5"),
    ("ERESTARTSYS", "raw_error", {"value": -512}, "reply with impossible error -512"),
    ("smallest error", "raw_error", {"value": -(1 << 31)}, "reply with impossible error -2147483648"),
    ("error and data", "raw_error", {"value": -2}, "reply with error -2 and "),
]
BODY = [
    ("header alone", "truncate", {"len": 16}, "reply with 0 bytes of data instead of "),
    ("half a body", "truncate", {"len": 20}, "reply with 4 bytes of data instead of "),
]
ATTR = [
    ("no type", "set", {"fields": {"attr.mode": 0o644}}, "impossible file type"),
    ("unknown type", "set", {"fields": {"attr.mode": 0o170644}}, "impossible file type"),
    ("negative size", "set", {"fields": {"attr.size": -1}}, "impossible file size"),
    ("size over the limit", "set", {"fields": {"attr.size": 1 << 63}}, "impossible file size"),
    ("nanoseconds", "set", {"fields": {"attr.mtimensec": 1_000_000_000}}, "impossible time"),
]
DIRENT = [
    ("empty name", "set", {"fields": {"dirent.namelen": 0}, "record": 0}, "impossible name in a directory"),
    ("long name", "set", {"fields": {"dirent.namelen": 4096}, "record": 0}, "impossible name in a directory"),
    ("record past the end", "set", {"fields": {"dirent.namelen": 255}, "record": 0}, " in a directory"),
    ("slash", "set", {"fields": {"dirent.name": "/"}, "record": 0}, "impossible name in a directory"),
    ("NUL", "set", {"fields": {"dirent.name": "\0"}, "record": 0}, "impossible name in a directory"),
    ("negative position", "set", {"fields": {"dirent.off": -1}, "record": 0}, "impossible position in a directory"),
    ("half a record", "truncate", {"len": 16 + 20}, "impossible record in a directory"),
]
ENTRY = [*ATTR, ("root as a child", "set", {"fields": {"entry.nodeid": 1}}, "impossible node ID")]
OTHER = [
    ("no node", "set", {"fields": {"entry.nodeid": 0}}, "impossible node ID"),
    ("another type", "set", {"fields": {"attr.mode": 0o140644}}, "impossible type of a new file"),
]
SPECIAL = {
    "LOOKUP": ENTRY,
    "GETATTR": ATTR,
    "SETATTR": ATTR,
    **{opcode: ENTRY + OTHER for opcode in MADE},
    "WRITE": [("more than there was", "set", {"fields": {"write.size": 8}}, "impossible byte count")],
    "COPY_FILE_RANGE_64": [("more than was asked for", "set", {"fields": {"copy.bytes": 5001}}, "impossible byte count")],
    "STATX": [("no type", "set", {"fields": {"statx.mode": 0o644}}, "impossible file type")],
    "READDIR": DIRENT,
    "READDIRPLUS": DIRENT,
    "READLINK": [
        ("empty target", "truncate", {"len": 16}, "impossible link target"),
        ("NUL in the target", "patch", {"offset": 17, "hex": "00"}, "impossible link target"),
    ],
    "LISTXATTR": [
        ("no NUL at the end", "truncate", {"len": 16 + 6}, "impossible list of extended attributes"),
        ("empty name", "patch", {"offset": 16, "hex": "00"}, "impossible list of extended attributes"),
    ],
    "LSEEK": [("negative", "set", {"fields": {"lseek.offset": -1}}, "impossible file offset")],
}


class Mounts:
    """All shares of the rig, mounted, and used in turn."""

    def __init__(self, rig):
        self.rig, self.turn, self.number = rig, 0, 0

    def __enter__(self):
        for daxd in self.rig.daxds:
            self.rig.guest.mount(daxd.tag, f"/run/{daxd.tag}")
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            for daxd in self.rig.daxds:
                self.rig.guest.umount(f"/run/{daxd.tag}")

    def bad(self, opcode, statement, fault, lines=1):
        """Runs a statement whose request gets a bad reply, once: (how it ended, wrong lines in the log)."""
        name, do, members, text = fault
        daxd = self.rig.daxds[self.turn % len(self.rig.daxds)]
        self.turn += 1
        self.number += 1
        again, statement = (statement.format(m=f"/run/{daxd.tag}", n=self.number, k=k) for k in ("-again", ""))
        PACE.wait(daxd.tag, lines or 3)
        daxd.set_fault(do, opcode, **members)
        done, logged = self.rig.hand.lines(statement)
        hits = daxd.faults()[0]["hits"]
        daxd.clear_faults()
        assert hits, f"{name}: {statement} made no {opcode}"
        wanted = f'"{daxd.tag}": {opcode}: '
        right = [line for line in logged if wanted in line and text in line]
        # A request that is made again is told of again, as far as the limit goes.
        assert len(right) == len(logged), (name, hits, logged)
        assert len(right) == lines if lines else 1 <= len(right) <= hits, (name, hits, logged)
        # The same again, now without fault.
        assert self.rig.hand.do(again) == "OK", name
        return done


@pytest.mark.parametrize("request_", REQUESTS)
def test_bad_reply(rig, request_):
    """A reply that is wrong as a whole or in a value is EIO and one line that names tag, operation and fault; then all works."""
    opcode = request_.split()[0]
    faults = WHOLE + (BODY if opcode in FIXED else []) + SPECIAL.get(opcode, [])
    if request_ == "READDIR":
        for daxd in rig.daxds:
            daxd.configure(init_flags="-DO_READDIRPLUS")
    with Mounts(rig) as mounts:
        # A READ for readahead is made again for the one who wants to know.
        lines = None if request_ in ("READ", "READ mapped") else 1
        for fault in faults:
            done = mounts.bad(opcode, REQUESTS[request_], fault, lines)
            assert done == ERRORS.get(request_, "EIO"), fault


@pytest.mark.parametrize("error", ["EPERM", "EACCES", "ESTALE", "ENOSPC", "EDQUOT"])
def test_errors_arrive(rig, error):
    """An error that a daemon may have reaches the caller as it is, and is no matter for the log."""
    with Mounts(rig):
        daxd = rig.daxd
        for opcode, statement in REQUESTS.items():
            if opcode in ("READDIR", "READ", "READ mapped") or (error == "ESTALE" and opcode in ("LOOKUP", "GETATTR")):
                continue
            daxd.set_fault("error", opcode.split()[0], errno=error)
            statement = statement.format(m="/run/daxd", n=3, k=error)
            done, logged = rig.hand.lines(statement)
            daxd.clear_faults()
            assert (done, logged) == (error, []), opcode
            assert rig.hand.do(statement) == "OK", opcode


def test_bad_entry_in_listing(rig):
    """READDIRPLUS with impossible entries: the names are listed, the entries forgotten, a line for each tells of it."""
    with Mounts(rig):
        for number, (fields, text) in enumerate(
            [({"attr.mode": 0}, "impossible file type"), ({"attr.size": -1}, "impossible file size")]
        ):
            rig.daxd.set_fault("set", "READDIRPLUS", fields=fields, count=1)
            PACE.wait("daxd", 2)
            done, logged = rig.hand.lines(f"sorted(os.listdir('/run/daxd/fresh/dir{number}'))")
            rig.daxd.clear_faults()
            assert (done, rig.hand.value) == ("OK", ["one", "two"])
            assert len(logged) == 2 and all(f'"daxd": READDIRPLUS: reply with {text}' in line for line in logged)
            assert rig.hand.do(f"os.stat('/run/daxd/fresh/dir{number}/one')") == "OK"
    rig.unmounted()


def test_root_in_listing(rig):
    """READDIRPLUS that shows the root as a child is EIO, and the root is not forgotten."""
    with Mounts(rig):
        rig.daxd.set_fault("set", "READDIRPLUS", fields={"entry.nodeid": 1})
        PACE.wait("daxd", 3)
        statement = "sorted(os.listdir('/run/daxd/fresh/dir7'))"
        done, logged = rig.hand.lines(statement)
        rig.daxd.clear_faults()
        # Names before it may have been listed.
        assert done in ("EIO", "OK") and logged and all("impossible node ID" in line for line in logged)
        assert rig.hand.do(statement) == "OK" and rig.hand.value == ["one", "two"]
    assert rig.daxd.complaints() == []


def test_size_lies(rig):
    """Sizes that are not true harm nobody: of attributes, of a value that grew or shrank, of a file."""
    with Mounts(rig):
        hand = rig.hand
        rig.daxd.set_fault("set", "GETXATTR", fields={"xattr.size": 65537})
        PACE.wait("daxd")
        done, logged = hand.lines("size_of_xattr('/run/daxd/fresh/9', 'user.a')")
        assert done == "EIO" and len(logged) == 1 and "impossible size of an extended attribute" in logged[0]
        rig.daxd.clear_faults()
        for size in (1, 65536):
            rig.daxd.set_fault("set", "GETXATTR", fields={"xattr.size": size})
            assert hand.do("size_of_xattr('/run/daxd/fresh/9', 'user.a')") == "OK" and hand.value == size
            assert hand.do("len(os.getxattr('/run/daxd/fresh/9', 'user.a'))") == "OK" and hand.value == 10
            rig.daxd.clear_faults()
        # Longer than it is: zeros; the rest is not waited for. Shorter: no more than that.
        for size in (70000, 90000, 1 << 40):
            rig.daxd.set_fault("set", ["LOOKUP", "GETATTR", "STATX"], fields={"attr.size": size})
            read = "(lambda fd: (os.close(fd[0]), fd[1])[1])((lambda f: (f, os.pread(f, 200000, 0).rstrip(bytes(1)).__len__()))"
            assert hand.do(read + "(os.open('/run/daxd/fresh/10', 0)))") == "OK"
            assert 69900 < hand.value <= 70000
            rig.daxd.clear_faults()
        assert hand.do("fstat('/run/daxd/fresh/10')") == "OK" and hand.value == 70000
    rig.unmounted()


def test_seek_backwards(rig):
    """LSEEK that finds data before where it began is EIO, and the position stays."""
    with Mounts(rig):
        rig.daxd.set_fault("set", "LSEEK", fields={"lseek.offset": 0})
        PACE.wait("daxd")
        done, logged = rig.hand.lines("seek('/run/daxd/fresh/sparse', 4096, os.SEEK_DATA)")
        assert done == "EIO" and len(logged) == 1 and "LSEEK: reply with impossible file offset" in logged[0]
        rig.daxd.clear_faults()
        assert rig.hand.do("seek('/run/daxd/fresh/sparse', 4096, os.SEEK_DATA)") == "OK" and rig.hand.value == 65536


def test_refused_readahead_and_readers(rig):
    """Of many who read a file whose READs are all bad, each gets EIO and none hangs; then all get the right bytes."""
    script = """
import hashlib, json, os, sys
from concurrent.futures import ThreadPoolExecutor
def one(number):
    digest = hashlib.sha256()
    try:
        with open(f"/run/daxd/fresh/{20 + number % 4}", "rb", buffering=0) as file:
            while piece := file.read(10000):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        return error.errno
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(one, range(32)))))
"""
    with Mounts(rig):
        for do, members in [("truncate", {"len": 16, "keep_len": True}), ("error", {"errno": "EIO"}), ("unique", {"add": 2})]:
            rig.daxd.set_fault(do, "READ", **members)
            assert rig.guest.value(script) == [5] * 32
            rig.daxd.clear_faults()
        right = [hashlib.sha256((rig.tree / f"fresh/{20 + n % 4}").read_bytes()).hexdigest() for n in range(32)]
        assert rig.guest.value(script) == right
    rig.unmounted()


def test_used_ring_lies(boot_rig):
    """An entry of the used ring that answers nothing: the queue ends, requests with ENOTCONN, and unmounting still works."""
    rig = boot_rig(files=files, expected=[r"virtiofs virtio\d+: requests\.0:id \d+ is not a head"])
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd")
    assert rig.hand.do("os.stat('/mnt/fresh/1')") == "OK"
    daxd.hold("GETATTR")
    waiting = guest.spawn("exec stat /mnt/fresh/2")
    daxd.wait_for_held()
    daxd.clear_faults()
    daxd.forge_used(1, 60, 16)
    daxd.interrupt(1)
    result = waiting.wait(20)
    assert "not connected" in result.stderr, result
    assert rig.hand.do("os.stat('/mnt/fresh/3')") in ("ENOTCONN", "EIO")
    assert '"daxd"' in guest.console()
    guest.run("umount /mnt")
    name = rig.device()
    guest.run(f"cd /sys/bus/virtio/drivers/virtiofs; echo virtio{name} >unbind; echo virtio{name} >bind")
    guest.mount("daxd")
    assert rig.hand.do("os.stat('/mnt/fresh/1')") == "OK"
    guest.umount()


def test_used_ring_lies_on_another_queue(boot_rig):
    """What one queue says and cannot be is the end of all of them, and nobody mounts the device before it is bound anew."""
    rig = boot_rig(files=files, daxd={"queues": 2}, cpus=2, expected=[r"virtiofs virtio\d+: requests\.\d:id \d+ is not a head"])
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd")
    daxd.hold("STATFS")
    waiting = guest.spawn("exec stat -f /mnt")
    (held,) = daxd.wait_for_held()
    daxd.clear_faults()
    other = 3 - held["queue"]
    daxd.forge_used(other, 60, 16)
    daxd.interrupt(other)
    result = waiting.wait(20)
    assert "not connected" in result.stderr, result
    daxd.reset_counters()
    for cpu in range(2):
        result = guest.run(f"taskset -c {cpu} stat -f /mnt", check=False)
        assert "not connected" in result.stderr, result
    assert mount_errno(guest, "daxd", "/run/again") == "ENOTCONN"
    assert daxd.counters()["requests"] == {}
    daxd.release()
    guest.umount()
    name = rig.device()
    guest.run(f"cd /sys/bus/virtio/drivers/virtiofs; echo virtio{name} >unbind; echo virtio{name} >bind")
    guest.mount("daxd")
    assert rig.hand.do("os.stat('/mnt/fresh/1')") == "OK"
    guest.umount()
