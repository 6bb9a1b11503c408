# SPDX-License-Identifier: GPL-2.0
"""Set-id bits and capabilities that a file loses when somebody changes it, whoever takes them away, and what that costs."""

import os

import pytest
from aio import SOURCE
from conftest import kill_while_held
from guest import Share
from test_acl import as_1000
from test_namespace import PRELUDE

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

# Everything that changes contents or owner, by somebody without CAP_FSETID and by somebody who has it.
CHANGES = """
import fcntl, mmap
def pwrite(fd): assert os.pwrite(fd, b"new", 0) == 3
def append():
    fd = os.open("file", os.O_WRONLY | os.O_APPEND); os.write(fd, b"more"); os.close(fd)
def direct():
    fd = os.open("file", os.O_RDWR | os.O_DIRECT); area = mmap.mmap(-1, 4096); area[:] = b"d" * 4096
    assert os.pwritev(fd, [area], 0) == 4096; os.close(fd)
def opened(change):
    fd = os.open("file", os.O_RDWR)
    try:
        change(fd)
    finally:
        os.close(fd)
def copy(fd):
    source = os.open("source", os.O_RDONLY); assert os.copy_file_range(source, fd, 4096, 0, 0) == 4096; os.close(source)
changes = {
    "write": lambda: opened(pwrite), "append": append, "direct": direct,
    "truncate": lambda: os.truncate("file", 1), "longer": lambda: os.truncate("file", 9000),
    "ftruncate": lambda: opened(lambda fd: os.ftruncate(fd, 2)), "O_TRUNC": lambda: os.close(os.open("file", os.O_WRONLY | os.O_TRUNC)),
    "creat": lambda: os.close(os.open("file", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)),
    "fallocate": lambda: opened(lambda fd: os.posix_fallocate(fd, 0, 100)), "copy": lambda: opened(copy),
}
put("source", "s" * 8192)
def prepare(mode):
    if os.path.exists("file"): os.unlink("file")
    put("file", "text" * 2000); os.chown("file", 1000, 1000); os.chmod("file", mode)
    # What this kernel has set it need not have seen itself.
    put("/proc/sys/vm/drop_caches", "3")
    assert os.stat("file").st_mode & 0o7777 == mode
def mode(): return os.stat("file").st_mode & 0o7777
"""


@pytest.mark.beyond_c("set-id bits outlive an O_TRUNC, or what it does not see any more")
@pytest.mark.parametrize(
    "daemon, not_executed",
    [(["--xattr", "--no-killpriv-v2"], 0o2767), (["--xattr", "--killpriv-v2"], 0o767), (["--no-killpriv-v2"], 0o2767)],
    ids=["guest", "daemon", "no xattrs"],
)
def test_set_id(boot, tree, daemon, not_executed):
    """Whatever changes a file takes its set-id bits away, unless who does it may keep them; a chown(2) always does.

    Without group execution, set-group-id says nothing about executing, and who is in the group may keep it. virtiofsd is not.
    """
    tree.path.chmod(0o777)
    guest = boot(Share(tree.path, "tag", daemon_args=daemon))
    guest.mount("tag")
    guest.python(
        PRELUDE
        + CHANGES
        + f"not_executed = {not_executed}\n"
        + """
wrong = []
def check(what, by, before, after):
    # At once, and by whatever asks: an execution looks at the inode alone.
    if mode() != after:
        wrong.append((what, by, oct(before), oct(mode()), oct(after)))
for name, change in changes.items():
    for before, after in ((0o6777, 0o777), (0o4755, 0o755), (0o755, 0o755)):
        prepare(before)
        as_user(1000, 1000, [], change)
        check(name, "user", before, after)
    for before in (0o6777, 0o755):
        prepare(before)
        change()
        check(name, "root", before, before)
prepare(0o6767); as_user(1000, 1000, [], changes["write"]); check("write", "user", 0o6767, not_executed)
for uid, gid in ((7, -1), (-1, 8), (7, 8)):
    prepare(0o6755); os.chown("file", uid, gid); check("chown", "root", 0o6755, 0o755)
prepare(0o6755); os.chmod("file", 0o6711); assert mode() == 0o6711
assert not wrong, wrong
""",
        "/mnt",
        timeout=120,
    )
    guest.umount()


@pytest.mark.parametrize("daemon", [["--no-killpriv-v2"], ["--killpriv-v2"]], ids=["guest", "daemon"])
def test_capabilities(boot, tree, daemon):
    """security.capability goes with each change, also one by root, and can be set again in between."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--xattr", "--modcaps=+sys_admin:+setfcap", *daemon]))
    guest.mount("tag")
    guest.python(
        PRELUDE
        + CHANGES
        + f"""
capability = bytes.fromhex("{CAPABILITY.hex()}")
for name, change in {{**changes, "chown": lambda: os.chown("file", 3, 4)}}.items():
    prepare(0o755)
    for _ in range(2):
        os.setxattr("file", "security.capability", capability)
        assert os.getxattr("file", "security.capability") == capability
        change()
        assert "security.capability" not in os.listxattr("file"), name
        fails("ENODATA", os.getxattr, "file", "security.capability")
""",
        "/mnt",
    )
    guest.umount()
    assert "security.capability" not in os.listxattr(tree / "file")


RIG = {"daxd": {"window": "16M"}}
# Where struct fuse_write_in, fuse_open_in and fuse_setattr_in have their flags, and what these say.
FLAGS = {"WRITE": (20, 1 << 2), "OPEN": (4, 1 << 0), "SETATTR": (0, 1 << 11)}


def files(tree):
    """A file that anybody can write to."""
    tree.path.chmod(0o777)


def kills(daxd, opcode):
    """Of the requests of an opcode, whether each says that set-id bits go."""
    offset, flag = FLAGS[opcode]
    args = [bytes.fromhex(request["args"]) for request in daxd.trace() if request["opcode"] == opcode]
    return [bool(int.from_bytes(data[offset : offset + 4], "little") & flag) for data in args]


@pytest.mark.parametrize("agreed", ["", "-HANDLE_KILLPRIV_V2", "-HANDLE_KILLPRIV_V2,+HANDLE_KILLPRIV"], ids=["v2", "none", "v1"])
def test_requests(rig, agreed):
    """Requests say that set-id bits go where that was agreed on, and only for who may not keep them."""
    rig.daxd.configure(init_flags=agreed or "+HANDLE_KILLPRIV_V2", trace=100)
    second = not agreed
    rig.guest.mount("daxd")
    as_root = lambda statement: rig.hand.do(f"{statement}; None")
    as_user = lambda statement: rig.hand.do(as_1000(statement))
    assert as_root("open('/mnt/file', 'w').write('x' * 5000); os.chown('/mnt/file', 1000, 1000)") == "OK"
    rig.daxd.trace()
    for do, due in ((as_user, second), (as_root, False)):
        assert do("fd = os.open('/mnt/file', os.O_RDWR); os.pwrite(fd, b'x', 0); os.pwrite(fd, b'y', 1); os.close(fd)") == "OK"
        assert kills(rig.daxd, "WRITE") == [due] * 2
        assert do("open('/mnt/file').close()") == "OK" and kills(rig.daxd, "OPEN") == [False]
        assert do("os.close(os.open('/mnt/file', os.O_TRUNC | os.O_RDWR))") == "OK" and kills(rig.daxd, "OPEN") == [due]
        assert do("os.truncate('/mnt/file', 10)") == "OK" and kills(rig.daxd, "SETATTR") == [due]
    assert as_root("os.chown('/mnt/file', 1000, 1001)") == "OK" and kills(rig.daxd, "SETATTR") == [second]
    assert as_root("os.chmod('/mnt/file', 0o644)") == "OK" and kills(rig.daxd, "SETATTR") == [False]
    assert as_root("os.mkdir('/mnt/dir'); os.chown('/mnt/dir', 1, 1); os.rmdir('/mnt/dir')") == "OK" and kills(rig.daxd, "SETATTR") == [False]
    rig.guest.umount()
    rig.unmounted()


SET_AFTER = """
fd = os.open("/mnt/file", os.O_RDWR)
if sys.argv[1] == "stored":
    area = mmap.mmap(fd, 4096)
    area[0] = ord("z")
else:
    os.pwrite(fd, b"z", 0)
os.setxattr("/mnt/file", "security.capability", bytes.fromhex("%s"))
os.chmod("/mnt/file", 0o6755)
os.utime("/mnt/file", (1000000000, 1000000000))
os.fsync(fd)
"""


@pytest.mark.beyond_c("what is written back later takes them away")
@pytest.mark.parametrize("how, agreed", [("stored", "-WRITEBACK_CACHE"), ("stored", "+WRITEBACK_CACHE"), ("written", "+WRITEBACK_CACHE")])
def test_set_after_a_change(rig, how, agreed):
    """Capabilities, set-id bits and times that are set after a file was changed outlast what is written back later."""
    (rig.tree / "file").write_bytes(b"x" * 5000)
    rig.daxd.configure(init_flags=agreed, attr_timeout=3600)
    rig.guest.mount("daxd")
    rig.guest.python("import mmap, os, sys" + SET_AFTER % CAPABILITY.hex(), how)
    rig.guest.umount()
    rig.unmounted()
    assert (rig.tree / "file").read_bytes()[:2] == b"zx"
    assert "security.capability" in os.listxattr(rig.tree / "file")
    info = os.stat(rig.tree / "file")
    assert (info.st_mode & 0o7777, info.st_mtime) == (0o6755, 1000000000)


@pytest.mark.parametrize("flags", ["", "PARALLEL_DIRECT_WRITES"])
def test_direct_writes(rig, flags):
    """So do those of writes that bypass the cache, also when nobody waits for them; and the mode is asked for again."""
    rig.daxd.configure(init_flags="+HANDLE_KILLPRIV_V2", open_flags=flags, attr_timeout=3600, trace=100)
    rig.guest.mount("daxd")
    assert rig.hand.do(SOURCE) == "OK"
    assert rig.hand.do("open('/mnt/file', 'w').write('x' * 8192); os.chown('/mnt/file', 1000, 1000)") == "OK"
    for write in ("os.pwritev(fd, [b], 0)", "assert Aio().run(('write', fd, b, 4096, 0)) == [4096]"):
        assert rig.hand.do("os.chmod('/mnt/file', 0o6777)") == "OK"
        rig.daxd.trace()
        wrote = f"fd = os.open('/mnt/file', os.O_RDWR | os.O_DIRECT); b = mmap.mmap(-1, 4096); {write}; os.close(fd)"
        assert rig.hand.do(as_1000(wrote)) == "OK"
        assert kills(rig.daxd, "WRITE") == [True], write
        assert rig.hand.do("os.stat('/mnt/file').st_mode & 0o7777") == "OK" and rig.hand.value == 0o777
        assert rig.hand.do(f"{wrote}; None") == "OK"
        assert kills(rig.daxd, "WRITE") == [False], write
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.beyond_c("each time attributes were asked for again, a write asks for security.capability")
@pytest.mark.parametrize("agreed", ["+HANDLE_KILLPRIV_V2", "-HANDLE_KILLPRIV_V2,+HANDLE_KILLPRIV"], ids=["v2", "v1"])
def test_cost(rig, agreed):
    """Where the daemon takes them away, nothing is asked before a write."""
    rig.daxd.configure(init_flags=agreed)
    rig.guest.mount("daxd")
    assert rig.hand.do("fd = os.open('/mnt/cost', os.O_CREAT | os.O_RDWR | os.O_APPEND)") == "OK"
    assert rig.hand.do("for _ in range(10): os.write(fd, b'x'); os.stat('/mnt/cost')") == "OK"
    requests = rig.daxd.counters()["requests"]
    assert requests["WRITE"] == 10 and "GETXATTR" not in requests and "SETATTR" not in requests
    assert rig.hand.do("os.ftruncate(fd, 0); os.close(fd)") == "OK"
    assert "GETXATTR" not in rig.daxd.counters()["requests"]
    rig.guest.umount()
    rig.unmounted()


@pytest.fixture
def window(rig):
    """Mounts the share with its files in the window: window(settings of the daemon)."""

    def mount(**settings):
        rig.daxd.configure(**{"attr_timeout": 3600, "entry_timeout": 3600, **settings})
        rig.guest.mount("daxd", options="dax=always")
        assert rig.hand.do("open('/mnt/file', 'w').write('x' * 70000)") == "OK"

    yield mount
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount()
    rig.unmounted()


# A write into the window.
WROTE = "fd = os.open('/mnt/file', os.O_RDWR); os.pwrite(fd, b'y', 0); os.close(fd)"
AGREED = [
    pytest.param("+HANDLE_KILLPRIV_V2", id="agreed", marks=pytest.mark.beyond_c("the daemon is thought to learn of writes")),
    pytest.param("-HANDLE_KILLPRIV_V2", id="not agreed"),
]


@pytest.mark.parametrize("enosys", ["", "GETXATTR"], ids=["xattrs", "none"])
@pytest.mark.parametrize("agreed", AGREED)
def test_window(rig, window, agreed, enosys):
    """What is written into the window is no WRITE, so this kernel takes set-id bits away whatever was agreed on."""
    window(init_flags=agreed, enosys=enosys)
    assert rig.hand.do(f"os.chown('/mnt/file', 1000, 1000); {WROTE}") == "OK"
    before = rig.daxd.counters()["requests"]
    for mode, left in ((0o6777, 0o777), (0o4755, 0o755), (0o755, 0o755)):
        assert rig.hand.do(f"os.chmod('/mnt/file', {mode})") == "OK"
        for by, kept in ((WROTE, mode), (as_1000(WROTE), left)):
            assert rig.hand.do(by) == "OK"
            assert rig.hand.do("os.stat('/mnt/file').st_mode & 0o7777") == "OK" and rig.hand.value == kept
    after = rig.daxd.counters()["requests"]
    assert after.get("WRITE", 0) == before.get("WRITE", 0)
    assert not enosys or after.get("GETXATTR", 0) <= 1


@pytest.mark.parametrize("by", ["guest", "host"])
@pytest.mark.parametrize("agreed", ["+HANDLE_KILLPRIV_V2", "-HANDLE_KILLPRIV_V2"], ids=["agreed", "not agreed"])
def test_capabilities_in_window(rig, window, agreed, by):
    """So it does with capabilities, also those of others' that are seen with new attributes; nothing else makes a write ask for them."""
    window(init_flags=agreed, attr_timeout=3600 if by == "guest" else 0)
    for _ in range(2):
        if by == "guest":
            assert rig.hand.do(f"os.setxattr('/mnt/file', 'security.capability', {CAPABILITY})") == "OK"
        else:
            os.setxattr(rig.tree / "file", "security.capability", CAPABILITY)
            assert rig.hand.do("os.stat('/mnt/file')") == "OK"
        assert "security.capability" in os.listxattr(rig.tree / "file")
        assert rig.hand.do(WROTE) == "OK"
        assert "security.capability" not in os.listxattr(rig.tree / "file")
    before = rig.daxd.count("GETXATTR")
    assert rig.hand.do("fd = os.open('/mnt/file', os.O_RDWR); [os.pwrite(fd, b'y', 0) for _ in range(10)]; os.close(fd)") == "OK"
    assert agreed[0] == "-" or rig.daxd.count("GETXATTR") <= before + 1


@pytest.mark.beyond_c("a write is done that was killed before it knew of capabilities")
@pytest.mark.parametrize("agreed", ["+HANDLE_KILLPRIV_V2", "-HANDLE_KILLPRIV_V2"], ids=["agreed", "not agreed"])
def test_killed_while_capabilities_are_asked_for(rig, window, agreed):
    """Nobody writes to a file and leaves its capabilities by being killed."""
    window(init_flags=agreed)
    assert rig.hand.do(WROTE) == "OK"
    contents = (rig.tree / "file").read_bytes()
    assert rig.hand.do(f"os.setxattr('/mnt/file', 'security.capability', {CAPABILITY})") == "OK"
    rig.daxd.hold("GETXATTR")
    task = rig.guest.spawn_python("import os; os.pwrite(os.open('/mnt/file', os.O_RDWR), b'killed', 0)")
    kill_while_held(rig, task)
    assert (rig.tree / "file").read_bytes() == contents
    assert rig.hand.do(WROTE) == "OK"
    assert "security.capability" not in os.listxattr(rig.tree / "file")
