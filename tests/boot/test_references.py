# SPDX-License-Identifier: GPL-2.0
"""What the daemon counts for the guest: lookups and handles given back, nodeids reused, operations that it lacks."""

import os

import pytest
from conftest import blocked, errno_of

RIG = {}
MANY = 2000


def files(tree):
    """What is shared."""
    for number in range(MANY):
        tree.file(f"many/{number // 100}/{number}", "x")
    for number in range(60):
        path = tree.file(f"few/{number}", f"{number}\n")
        os.setxattr(path, "user.a", b"a")
        tree.link(f"few/link{number}", f"{number}")
    tree.sparse("sparse", 1 << 20, (65536, 4096))


def test_batched_forgets(rig):
    """Inodes that are dropped together are forgotten in batches; after umount the daemon has only its root."""
    guest, daxd = rig.guest, rig.daxd
    # Listings with attributes bring all inodes, in few requests.
    daxd.configure(entry_timeout=3600, attr_timeout=3600)
    guest.mount("daxd")
    guest.run("ls -lR /mnt/many >/dev/null", timeout=120)
    assert daxd.counters()["live"]["inodes"] >= MANY
    guest.run("echo 2 >/proc/sys/vm/drop_caches")
    counters = daxd.wait_until(lambda now: now["live"]["inodes"] < 50, "the daemon has few inodes", timeout=60 * guest.patience)
    forget = counters["forget"]
    assert forget["nodes"] >= MANY and forget["nodes"] / (forget["batch"] + forget["single"]) > 5, forget
    guest.run("ls -lR /mnt/many/3 >/dev/null")
    guest.umount()
    rig.unmounted()
    assert daxd.counters()["live"]["inodes"] <= 1


def test_unload_with_pending_forgets(rig):
    """umount and rmmod at once, with thousands of inodes to forget: every lookup is given back before DESTROY, in many rounds."""
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    for _ in range(10):
        rig.guest.run(
            "mount -t virtiofs daxd /mnt && ls -lR /mnt/many >/dev/null && umount /mnt && rmmod virtiofs && modprobe virtiofs",
            timeout=120,
        )
        rig.unmounted()


@pytest.mark.beyond_c("DESTROY goes by another queue, and overtakes them")
@pytest.mark.parametrize("last", ["BATCH_FORGET", "RELEASE"])
def test_destroy_comes_last(rig, last):
    """What was sent before DESTROY has been taken before it: the daemon is slow with it, and still counts nothing left."""
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    rig.guest.mount("daxd")
    rig.daxd.hold(last)
    rig.guest.run("cat /mnt/few/* >/dev/null")
    umount = rig.guest.spawn("umount /mnt")
    rig.daxd.wait_for_held()
    blocked(rig.guest, umount)
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert umount.wait().rc == 0
    rig.unmounted()


def test_drop_while_walking(rig):
    """Inodes dropped while others look them up again: counts agree at the end."""
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    rig.guest.mount("daxd")
    rig.guest.run(
        "for i in 1 2 3; do ls -lR /mnt/many >/dev/null & done;"
        " for i in $(seq 10); do echo 2 >/proc/sys/vm/drop_caches; done; wait",
        timeout=180,
    )
    rig.guest.umount()
    rig.unmounted()


# What the daemon lacks, a statement that needs it, how that ends, and what is sent instead each time.
COPY = (
    "with opened('/mnt/sparse') as a, opened('/mnt/copy{n}', os.O_CREAT | os.O_RDWR) as b:"
    " assert os.copy_file_range(a, b, 4096, 65536) == 4096 and os.pread(b, 9999, 0) == os.pread(a, 4096, 65536)"
)
LACKING = {
    "OPEN": ("read('/mnt/few/{n}')", "OK", ()),
    "OPENDIR": ("os.listdir('/mnt/many/{n}')", "OK", ()),
    "GETXATTR": ("os.getxattr('/mnt/few/{n}', 'user.a')", "EOPNOTSUPP", ()),
    "LISTXATTR": ("os.listxattr('/mnt/few/{n}')", "EOPNOTSUPP", ()),
    "SETXATTR": ("os.setxattr('/mnt/few/{n}', 'user.b', b'b')", "EOPNOTSUPP", ()),
    "REMOVEXATTR": ("os.removexattr('/mnt/few/{n}', 'user.a')", "EOPNOTSUPP", ()),
    "LSEEK": ("seek('/mnt/sparse', {n}, os.SEEK_DATA)", "OK", ()),
    "STATX": ("statx('/mnt/few/{n}')", "OK", ()),
    "CREATE": ("os.close(os.open('/mnt/made{n}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))", "OK", ("MKNOD", "OPEN")),
    "TMPFILE": ("os.open('/mnt/few', os.O_TMPFILE | os.O_RDWR)", "EOPNOTSUPP", ()),
    "LINK": ("os.link('/mnt/few/{n}', '/mnt/hard{n}')", "EPERM", ()),
    "RENAME2": ("call('renameat2', -100, b'/mnt/few/{n}', -100, b'/mnt/moved{n}', 1)", "EINVAL", ()),
    "FSYNC": ("with opened('/mnt/few/{n}', os.O_RDWR) as fd: os.fsync(fd); os.fdatasync(fd)", "OK", ()),
    "FSYNCDIR": ("with opened('/mnt/many/{n}') as fd: os.fsync(fd); os.fdatasync(fd)", "OK", ()),
    "SYNCFS": ("with opened('/mnt/many/{n}') as fd: call('syncfs', fd)", "OK", ()),
    "FALLOCATE": ("with opened('/mnt/few/{n}', os.O_RDWR) as fd: call('fallocate', fd, 0, 0, 9999)", "EOPNOTSUPP", ()),
    "COPY_FILE_RANGE_64": (COPY, "OK", ("COPY_FILE_RANGE",)),
    "COPY_FILE_RANGE_64,COPY_FILE_RANGE": (COPY, "OK", ("WRITE",)),
}


@pytest.mark.parametrize("opcodes", LACKING)
def test_lacking_operation(rig, opcodes):
    """An operation that the daemon answers with ENOSYS is asked for once, and then done without."""
    statement, how, instead = LACKING[opcodes]
    for path in rig.tree.path.glob("copy*"):
        path.unlink()
    rig.daxd.configure(enosys=opcodes, init_flags="+NO_OPEN_SUPPORT,+NO_OPENDIR_SUPPORT")
    rig.guest.mount("daxd")
    for number in range(5):
        assert rig.hand.do(statement.format(n=number)) in (how, "ENOTSUP" if how == "EOPNOTSUPP" else how)
    assert {opcode: rig.daxd.count(opcode) for opcode in opcodes.split(",")} == dict.fromkeys(opcodes.split(","), 1)
    assert {opcode: rig.daxd.count(opcode) for opcode in instead} == dict.fromkeys(instead, 5)
    rig.guest.umount()
    assert rig.daxd.complaints() == []
    rig.unmounted()


def test_lacking_flush(rig):
    """FLUSH that the daemon lacks is sent once, and close(2) of a file that was written to succeeds."""
    rig.daxd.configure(enosys="FLUSH")
    rig.guest.mount("daxd")
    for number in range(40, 45):
        assert rig.hand.do(f"os.close(os.open('/mnt/few/{number}', os.O_RDWR))") == "OK"
    assert rig.daxd.count("FLUSH") == 1
    rig.guest.umount()
    rig.unmounted()


def test_open_is_needed(rig):
    """Without NO_OPEN_SUPPORT a daemon that lacks OPEN has no files that can be opened: ENOSYS for the caller."""
    rig.daxd.configure(enosys="OPEN", init_flags="-NO_OPEN_SUPPORT")
    rig.guest.mount("daxd")
    assert rig.hand.do("read('/mnt/few/1')") == "ENOSYS"
    assert rig.hand.do("os.stat('/mnt/few/1')") == "OK"
    rig.guest.umount()


@pytest.mark.parametrize(
    "fields", [{"entry.generation": 77}, {"attr.mode": 0o040755}, {"attr.mode": 0o120777}], ids=["generation", "directory", "link"]
)
def test_other_file_of_the_same_node(rig, fields):
    """A nodeid that comes back with another generation or type is another file: users of the old one get ESTALE, the new is seen."""
    hand = rig.hand
    number = 20 + len(str(fields))
    # Attributes from a lookup are good, names are looked up each time.
    rig.daxd.configure(attr_timeout=3600)
    rig.guest.mount("daxd")
    assert hand.do(f"globals().update(old=os.open('/mnt/few/{number}', os.O_RDONLY))") == "OK"
    # The directory's own lookup is let through; the name is looked up to revalidate it, and anew.
    rig.daxd.set_fault("set", "LOOKUP", fields=fields, skip=1, count=2)
    assert hand.do(f"os.lstat('/mnt/few/{number}').st_mode & 0o170000") == "OK"
    assert hand.value == fields.get("attr.mode", 0o100644) & 0o170000
    assert hand.do("os.fstat(old)") == "ESTALE"
    assert hand.do("os.pread(old, 10, 0)") == "ESTALE"
    assert hand.do("os.close(old)") == "OK"
    rig.daxd.clear_faults()
    assert hand.do(f"read('/mnt/few/{number}')") == "OK"
    rig.guest.umount()
    assert rig.daxd.counters()["session"]["handles_at_destroy"] == 0


def nodes(rig):
    """The nodeids that the guest has."""
    return {inode["nodeid"] for inode in rig.daxd.live()["inodes"]}


def node_of(rig, name):
    """That of a file."""
    path = os.path.realpath(rig.tree / name)
    return next(inode["nodeid"] for inode in rig.daxd.live()["inodes"] if inode["path"] == path)


# How the guest learns that a name is gone from the host, or leads to another file; its dentries are good for an hour.
LEARN = {
    # Looked up again for a directory that is to be made, which may then be there.
    "mkdir": ("os.mkdir('/mnt/gone/{n}')", None),
    "exists": ("os.mkdir('/mnt/gone/{n}')", "EEXIST"),
    # Listed with another file.
    "list": ("os.listdir('/mnt/gone')", None),
}


@pytest.mark.parametrize("how", LEARN)
def test_removed_on_the_host(rig, how):
    """A file that the host has removed or replaced is forgotten as soon as its name is found gone, though its pages are cached."""
    statement, error = LEARN[how]
    name = list(LEARN).index(how)
    path = rig.tree.file(f"gone/{name}", 10_000)
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    rig.guest.mount("daxd")
    assert rig.hand.do(f"read('/mnt/gone/{name}')") == "OK"
    node = node_of(rig, f"gone/{name}")
    path.unlink()
    if how != "mkdir":
        rig.tree.file(f"gone/{name}", "another")
    assert rig.hand.do(statement.format(n=name)) == (error or "OK")
    rig.daxd.wait_until(lambda _: node not in nodes(rig), "the removed file is forgotten")
    rig.guest.umount()
    rig.unmounted()


def test_removed_while_open(rig):
    """A file that is open goes when it is closed."""
    path = rig.tree.file("gone/open", 10_000)
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    rig.guest.mount("daxd")
    assert rig.hand.do("fd = os.open('/mnt/gone/open', os.O_RDONLY); os.read(fd, 100)") == "OK"
    node = node_of(rig, "gone/open")
    path.unlink()
    assert rig.hand.do("os.mkdir('/mnt/gone/open')") == "OK"
    assert rig.hand.do("len(os.pread(fd, 20_000, 0))") == "OK" and rig.hand.value == 10_000
    assert node in nodes(rig)
    assert rig.hand.do("os.close(fd)") == "OK"
    rig.daxd.wait_until(lambda _: node not in nodes(rig), "the removed file is forgotten")
    rig.guest.umount()
    rig.unmounted()


def test_names_that_are_not_kept(rig):
    """What the daemon grants no time is forgotten when it is not used any more, so that nothing of the host is held."""
    rig.daxd.configure(entry_timeout=0, attr_timeout=0)
    rig.guest.mount("daxd")
    assert rig.hand.do("[read(f'/mnt/few/{number}') for number in range(10)]") == "OK"
    rig.daxd.wait_until(lambda now: now["live"]["inodes"] <= 1, "the daemon has its root alone")
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.beyond_c("nothing behind such a record is forgotten")
def test_records_behind_a_refused_one(rig):
    """What the daemon counts for a record of a listing that makes no sense, and for those behind it, is given back."""
    rig.daxd.configure(entry_timeout=3600, attr_timeout=3600)
    rig.guest.mount("daxd")
    for number in (2, 40):
        rig.daxd.set_fault("set", "READDIRPLUS", fields={"dirent.name": "/"}, record=number, count=1)
        # What comes before it is listed, and the rest asked for again.
        assert rig.hand.do("len(os.listdir('/mnt/few'))") in ("OK", "EIO")
        assert rig.daxd.faults()[0]["hits"] == 1
        rig.daxd.clear_faults()
        assert rig.hand.do("len(os.listdir('/mnt/few'))") == "OK" and rig.hand.value == 120
    rig.guest.umount()
    rig.unmounted()


def test_reused_nodeids(rig):
    """With a daemon that uses nodeids again for other files, every name shows its own file, also while old ones are open."""
    rig.daxd.configure(reuse_nodeids=True)
    rig.guest.mount("daxd")
    hand = rig.hand
    assert hand.do("globals().update(kept=[])") == "OK"
    for number in range(30):
        rig.tree.file(f"reuse{number}", f"content {number}\n")
        assert hand.do(f"open('/mnt/reuse{number}').read()") == "OK"
        assert hand.value == f"content {number}\n"
        if number % 5 == 0:
            assert hand.do(f"kept.append(open('/mnt/reuse{number}'))") == "OK"
        (rig.tree / f"reuse{number}").unlink()
        assert hand.do(f"os.stat('/mnt/reuse{number}')") == "ENOENT"
        rig.guest.run("echo 2 >/proc/sys/vm/drop_caches")
    for index in range(6):
        assert hand.do(f"kept[{index}].read()") == "OK"
        assert hand.value == f"content {5 * index}\n"
    assert hand.do("[file.close() for file in kept]; kept.clear()") == "OK"
    rig.guest.umount()
    rig.unmounted()


FAILING = """
import errno, json, os, sys
rounds = int(sys.argv[1])
switch = os.open("/proc/thread-self/make-it-fail", os.O_RDWR)
errors = {}
def attempt(name, function, *arguments):
    os.pwrite(switch, b"1", 0)
    try:
        value = function(*arguments)
        key = "OK"
    except OSError as error:
        value, key = None, errno.errorcode[error.errno]
    except MemoryError:
        value, key = None, "ENOMEM"
    finally:
        os.pwrite(switch, b"0", 0)
    counts = errors.setdefault(name, {})
    counts[key] = counts.get(key, 0) + 1
    return value
for round in range(rounds):
    for number in range(60):
        attempt("stat", os.stat, f"/mnt/few/{number}")
        attempt("statvfs", os.statvfs, "/mnt")
        attempt("readlink", os.readlink, f"/mnt/few/link{number}")
        attempt("getxattr", os.getxattr, f"/mnt/few/{number}", "user.a")
        attempt("listxattr", os.listxattr, f"/mnt/few/{number}")
        fd = attempt("open", os.open, f"/mnt/few/{number}", os.O_RDONLY)
        if fd is not None:
            data = attempt("read", os.pread, fd, 100, 0)
            assert data in (None, b"%d\\n" % number), data
            attempt("close", os.close, fd)
        if number % 10 == 0:
            attempt("listdir", os.listdir, f"/mnt/many/{number // 10}")
    open("/proc/sys/vm/drop_caches", "w").write("3")
print(json.dumps(errors))
"""

FAIL = """
cd /sys/kernel/debug/failslab
echo Y >task-filter; echo {probability} >probability; echo 1 >interval; echo -1 >times; echo 0 >verbose; echo N >ignore-gfp-wait
[ ! -e cache-filter ] || echo N >cache-filter
"""


@pytest.mark.parametrize("probability", [3, 15])
def test_memory_is_short(rig, kernel, probability):
    """Allocations that fail in a task that walks and reads: ENOMEM and nothing else, right data, everything given back."""
    if kernel != "debug":
        pytest.skip("the plain kernel has no fault injection")
    guest = rig.guest
    guest.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    guest.mount("daxd")
    guest.run(FAIL.format(probability=probability))
    errors = guest.value(FAILING, 4, timeout=300)
    assert all(set(counts) <= {"OK", "ENOMEM"} for counts in errors.values()), errors
    assert errors["stat"].get("ENOMEM") and errors["open"].get("ENOMEM"), errors
    # The unmounting task is hit as well.
    script = "import ctypes, os; fd = os.open('/proc/thread-self/make-it-fail', 1); os.write(fd, b'1'); "
    guest.run(f'python3 -c "{script}print(ctypes.CDLL(None).umount2(b\'/mnt\', 0))"', check=False)
    guest.run("echo 0 >/sys/kernel/debug/failslab/probability; mountpoint -q /mnt && umount /mnt", check=False)
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    rig.unmounted()
    guest.mount("daxd")
    assert errno_of(guest, "os.stat('/mnt/few/1')") == "OK"
    guest.umount()
