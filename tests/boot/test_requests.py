# SPDX-License-Identifier: GPL-2.0
"""What is sent for what programs do: which requests, how many, and what they say."""

import hashlib
import struct

import pytest
from conftest import blocked

MEG = 1 << 20
# As many pages go into a request as this driver ever has in one.
RIG = {"daxd": {"queue_size": 1024}, "settings": {"entry_timeout": 3600, "attr_timeout": 3600}}


def files(tree):
    """What is shared."""
    tree.file("file", 10_000)
    tree.file("cut", 10_000)
    tree.link("link", "file")
    (tree / "dir").mkdir()


@pytest.fixture
def asked(rig):
    """Mounts the share, and asks for its root: asked(statement, *opcodes) tells what of these a statement in the guest makes, and
    asked.args the arguments of each."""

    def ask(statement, *opcodes):
        rig.daxd.trace()
        assert rig.hand.do(statement) == "OK", statement
        seen = [request for request in rig.daxd.trace() if not opcodes or request["opcode"] in opcodes]
        ask.args = [bytes.fromhex(request["args"]) for request in seen]
        return [request["opcode"] for request in seen]

    def mount(**settings):
        rig.daxd.configure(trace=500, **settings)
        rig.guest.mount("daxd", "/mnt")
        assert rig.hand.do("[os.lstat('/mnt/' + name) for name in ['file', 'cut', 'link', 'dir']]") == "OK"
        return ask

    yield mount
    rig.guest.umount("/mnt")
    rig.unmounted()


def with_open(path, flags, statement):
    """A statement with a file that is open as `fd`."""
    return f"with opened('/mnt/{path}', {flags}) as fd: {statement}"


@pytest.mark.beyond_c("the name is looked up first")
def test_create(asked):
    """open(2) that makes a file is one CREATE; of a file that is there it is CREATE, which fails, and then as without O_CREAT."""
    ask = asked()
    assert ask("globals().update(made=os.open('/mnt/new', os.O_CREAT | os.O_RDWR))") == ["CREATE"]
    ask("os.close(made)")
    assert ask("os.mkdir('/mnt/made')") == ["LOOKUP", "MKDIR"]


# The call, the opcode, and whether it asks for contents alone.
SYNCS = {
    "fsync": ("file", "os.fsync(fd)", "FSYNC", 0),
    "fdatasync": ("file", "os.fdatasync(fd)", "FSYNC", 1),
    "fsync directory": ("dir", "os.fsync(fd)", "FSYNCDIR", 0),
    "fdatasync directory": ("dir", "os.fdatasync(fd)", "FSYNCDIR", 1),
    "msync": ("file", "mmap.mmap(fd, 4096).flush()", "FSYNC", 1),
}


@pytest.mark.parametrize("call", SYNCS)
def test_sync(asked, call):
    """Each sync of a file or directory is one request, which says whether contents are enough."""
    path, statement, opcode, datasync = SYNCS[call]
    flags = "os.O_RDONLY" if path == "dir" else "os.O_RDWR"
    ask = asked()
    assert ask(with_open(path, flags, statement), "FSYNC", "FSYNCDIR", "SYNCFS") == [opcode]
    assert struct.unpack_from("<I", ask.args[0], 8) == (datasync,)


@pytest.mark.parametrize("statement", ["os.sync()", with_open("dir", "os.O_RDONLY", "call('syncfs', fd)")], ids=["sync", "syncfs"])
def test_syncfs(asked, statement):
    """sync(2) and syncfs(2) are one SYNCFS."""
    ask = asked()
    assert ask(statement, "FSYNC", "FSYNCDIR", "SYNCFS") == ["SYNCFS"]


@pytest.mark.parametrize("direct", [False, True], ids=["cached", "direct"])
@pytest.mark.parametrize(("flag", "datasync"), [("O_SYNC", 0), ("O_DSYNC", 1)])
def test_synchronous_writes(asked, direct, flag, datasync):
    """Each write to a file that is open with O_SYNC or O_DSYNC is followed by an FSYNC of what that means."""
    ask = asked()
    flags = f"os.O_WRONLY | os.{flag}" + (" | os.O_DIRECT" if direct else "")
    write = "[os.pwritev(fd, [mmap.mmap(-1, 4096)], at) for at in (0, 8192, 4096)]"
    assert ask(with_open("file", flags, write), "WRITE", "FSYNC") == ["WRITE", "FSYNC"] * 3
    assert [struct.unpack_from("<I", args, 8) for args in ask.args[1::2]] == [(datasync,)] * 3


def test_one_synchronous_write(asked):
    """So is a single write with RWF_DSYNC to one that is not."""
    ask = asked()
    write = "[os.pwritev(fd, [b'x'], 0, flags) for flags in (0, os.RWF_DSYNC)]"
    assert ask(with_open("file", "os.O_WRONLY", write), "WRITE", "FSYNC") == ["WRITE", "WRITE", "FSYNC"]


@pytest.mark.parametrize("source", ["bytes(range(256)) * 4096", "mmap.mmap(-1, 1 << 20)"], ids=["touched", "untouched"])
def test_large_write(rig, asked, source):
    """A large write through the page cache is one WRITE, also of what has to be brought into memory first."""
    rig.tree.file("file", 0)
    ask = asked()
    assert ask(with_open("file", "os.O_WRONLY", f"os.pwrite(fd, {source}, 0)"), "WRITE") == ["WRITE"]
    assert (rig.tree / "file").stat().st_size == MEG


# Places in the arguments of SETATTR.
SIZE, MTIME, CTIME = 16, (40, 60), (48, 64)
O_TRUNC = 0o1000


def time_in(args, place):
    """A time in the arguments of SETATTR, in nanoseconds."""
    (seconds,), (nanoseconds,) = struct.unpack_from("<q", args, place[0]), struct.unpack_from("<I", args, place[1])
    return seconds * 10**9 + nanoseconds


@pytest.mark.parametrize("agreed", [True, False])
def test_truncating_open(rig, asked, agreed):
    """Where the daemon takes O_TRUNC, OPEN says it; where it does not, a SETATTR of the size follows."""
    rig.tree.file("cut", 10_000)
    ask = asked(init_flags="" if agreed else "-ATOMIC_O_TRUNC")
    seen = ask(with_open("cut", "os.O_WRONLY | os.O_TRUNC", "cut = os.fstat(fd).st_size"), "OPEN", "SETATTR", "WRITE")
    assert seen == ["OPEN"] if agreed else ["OPEN", "SETATTR"]
    (flags,) = struct.unpack_from("<I", ask.args[0])
    assert bool(flags & O_TRUNC) == agreed
    if not agreed:
        valid, size = struct.unpack_from("<I", ask.args[1]) + struct.unpack_from("<Q", ask.args[1], SIZE)
        assert valid & 1 << 3 and size == 0
    assert rig.hand.do("cut") == "OK" and rig.hand.value == 0
    assert (rig.tree / "cut").read_bytes() == b""


ASKS = pytest.mark.beyond_c("asks each time, unless the daemon says that targets may be cached")


@pytest.mark.parametrize("agreed", [True, pytest.param(False, marks=ASKS)])
def test_symbolic_links(asked, agreed):
    """The target of a link is read once, whatever the daemon says of that."""
    ask = asked(init_flags="+CACHE_SYMLINKS" if agreed else "")
    assert ask("[os.readlink('/mnt/link') for _ in range(3)]") == ["READLINK"]


@ASKS
def test_symbolic_link_that_has_changed(asked):
    """When the time of its last change is another one, the target is read once more."""
    ask = asked()
    assert ask("[os.readlink('/mnt/link') for _ in range(3)]", "READLINK") == ["READLINK"]
    ask("os.utime('/mnt/link', ns=(1, 2), follow_symlinks=False)")
    assert ask("[os.readlink('/mnt/link') for _ in range(3)]", "READLINK") == ["READLINK"]


@pytest.mark.parametrize("size", [0, 64, 4096])
def test_symbolic_link_like_those_of_procfs(rig, asked, size):
    """Where the size of a link tells nothing of its target, the target may become another one at any time: it is read each time."""
    target = "x" * 64
    rig.tree.link(f"magic{size}", target)
    ask = asked()
    rig.daxd.set_fault("set", "LOOKUP", fields={"attr.size": size})
    assert ask(f"[os.readlink('/mnt/magic{size}') for _ in range(3)]", "READLINK") == ["READLINK"] * 3


READ_DIRECT = """
import hashlib, mmap, os
buffer = mmap.mmap(-1, 4 << 20)
assert os.preadv(os.open("/mnt/large", os.O_RDONLY | os.O_DIRECT), [buffer], 0) == 4 << 20
print(hashlib.sha256(buffer).hexdigest())
"""


@pytest.mark.parametrize("agreed", [True, False])
def test_parts_of_direct_reads(rig, asked, agreed):
    """Where READs of one direct read may run side by side, they do; where they may not, each waits for the one before."""
    rig.tree.file("large", 4 * MEG, seed=agreed)
    asked(init_flags="" if agreed else "-ASYNC_DIO")
    rig.daxd.hold("READ")
    reader = rig.guest.spawn_python(READ_DIRECT)
    rig.daxd.wait_for_held(2 if agreed else 1)
    if not agreed:
        blocked(rig.guest, reader)
        assert len(rig.daxd.held()) == 1
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert reader.wait().stdout.strip() == hashlib.sha256((rig.tree / "large").read_bytes()).hexdigest()
    assert rig.daxd.count("READ") == 4


def test_reads_ahead_side_by_side(rig, asked):
    """What is read ahead is asked for at once, not a part after the other."""
    rig.tree.file("ahead", 4 * MEG)
    asked(max_pages=16)
    rig.daxd.hold("READ")
    assert rig.hand.do("fd = os.open('/mnt/ahead', os.O_RDONLY); os.posix_fadvise(fd, 0, 4 << 20, os.POSIX_FADV_WILLNEED)") == "OK"
    rig.daxd.wait_for_held(2)
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert rig.hand.do("hashlib.sha256(os.pread(fd, 4 << 20, 0)).hexdigest()") == "OK"
    assert rig.hand.value == hashlib.sha256((rig.tree / "ahead").read_bytes()).hexdigest()
    assert rig.hand.do("os.close(fd)") == "OK"


def test_lookups_side_by_side(rig, asked):
    """Names of one directory are looked up, and it is listed, all at once."""
    for name in "ab":
        rig.tree.file(f"dir/{name}", 1)
    asked()
    rig.daxd.hold(["LOOKUP", "READDIRPLUS"])
    tasks = [rig.guest.spawn(f"exec {command}") for command in ("stat /mnt/dir/a", "stat /mnt/dir/b", "ls /mnt/dir")]
    rig.daxd.wait_for_held(3)
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert [task.wait().rc for task in tasks] == [0] * 3


@pytest.mark.parametrize("declined", ["", "-READDIRPLUS_AUTO", "-DO_READDIRPLUS"])
def test_kinds_of_listing(rig, asked, declined):
    """With READDIRPLUS as seems useful the start of a directory brings attributes, and the rest if somebody wanted them; else it is
    all or nothing."""
    for number in range(1000):
        (rig.tree / f"many{declined}-{number:0100}").touch()
    ask = asked(init_flags=declined)
    seen = ask("os.listdir('/mnt')", "READDIR", "READDIRPLUS")
    assert len(seen) > 3
    expected = {"": {"READDIR"}, "-READDIRPLUS_AUTO": {"READDIRPLUS"}, "-DO_READDIRPLUS": {"READDIR"}}
    assert seen[0] == ("READDIR" if declined == "-DO_READDIRPLUS" else "READDIRPLUS")
    assert set(seen[1:]) == expected[declined]


@pytest.mark.parametrize("time_gran", [1, 100, 1000, 10**9])
def test_granularity_of_times(asked, rig, time_gran):
    """Times that the daemon can't keep are not sent: they are cut to what it said, and that is what the guest sees."""
    ask = asked(time_gran=time_gran)
    told = 1_234_567_890_123_456_789
    cut = told - told % time_gran
    assert ask(f"os.utime('/mnt/file', ns=({told}, {told}))") == ["SETATTR"]
    assert time_in(ask.args[0], MTIME) == cut
    assert rig.hand.do("os.stat('/mnt/file').st_mtime_ns") == "OK" and rig.hand.value == cut
    assert (rig.tree / "file").stat().st_mtime_ns == cut


def test_times_of_writeback(asked, rig):
    """What is written back is followed by the times of this kernel: modification and change."""
    ask = asked(init_flags="+WRITEBACK_CACHE")
    seen = ask(with_open("file", "os.O_RDWR", "os.pwrite(fd, b'x', 0); told = os.fstat(fd); os.fsync(fd)"), "WRITE", "SETATTR", "FSYNC")
    assert seen == ["WRITE", "SETATTR", "FSYNC"]
    (valid,) = struct.unpack_from("<I", ask.args[1])
    assert valid & 1 << 5 and valid & 1 << 10
    assert rig.hand.do("[told.st_mtime_ns, told.st_ctime_ns]") == "OK"
    told = rig.hand.value
    assert [time_in(ask.args[1], MTIME), time_in(ask.args[1], CTIME)] == told
    assert ask("os.chmod('/mnt/file', 0o600)", "SETATTR") == ["SETATTR"]
    (valid,) = struct.unpack_from("<I", ask.args[0])
    assert valid & 1 << 10
    assert time_in(ask.args[0], CTIME) > told[1]
