# SPDX-License-Identifier: GPL-2.0
"""Attributes that are known already: what becomes of them when the host changes a file, and replies come in another order."""

import os
import shutil
import subprocess
import sys

import pytest

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}

# statx(2) that asks the daemon however good the attributes are; it tells the size.
FORCED = """
import ctypes, os, sys
def forced(path):
    buffer = (ctypes.c_uint64 * 32)()
    if ctypes.CDLL(None).syscall(332, -100, path.encode(), 0x2000, 0x7ff, buffer) < 0:
        raise OSError(0, "statx")
    return buffer[5]
"""


def files(tree):
    """What is shared."""
    tree.file("private/file", "x")


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with attributes that are good for an hour."""
    rig.guest.mount("daxd", "/mnt")
    do(rig, FORCED)
    yield rig
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def as_user(statement):
    """The statement, by a user who is not root."""
    return f"os.seteuid(12345)\ntry:\n    {statement}\nfinally:\n    os.seteuid(0)"


def test_access_granted_on_the_host(mounted):
    """Who was refused by mode and owner gets access as soon as the host grants it, and it is the daemon who is asked once more."""
    hand, private = mounted.hand, mounted.tree / "private"
    private.chmod(0o700)
    (private / "file").chmod(0o600)
    do(mounted, "os.stat('/mnt/private/file')")
    assert hand.do(as_user("os.stat('/mnt/private/file')")) == "EACCES"
    private.chmod(0o755)
    assert hand.do(as_user("os.stat('/mnt/private/file')")) == "OK"
    assert hand.do(as_user("read('/mnt/private/file')")) == "EACCES"
    (private / "file").chmod(0o644)
    assert hand.do(as_user("read('/mnt/private/file')")) == "OK"
    mounted.daxd.reset_counters()
    assert hand.do(as_user("os.close(os.open('/mnt/private/file', os.O_PATH))")) == "OK"
    assert mounted.daxd.count("GETATTR") == 0


def test_older_attributes_come_later(mounted):
    """Of two replies that overtake each other the one that was asked for later counts: a log on the host does not become shorter."""
    mounted.tree.file("log", b"a" * 100)
    do(mounted, "os.stat('/mnt/log')")
    mounted.daxd.hold("GETATTR")
    early = mounted.guest.spawn_python(FORCED + "print(forced('/mnt/log'))")
    mounted.daxd.wait_for_held()
    mounted.daxd.clear_faults()
    mounted.tree.file("log", b"a" * 150)
    assert do(mounted, "forced('/mnt/log')") == 150
    mounted.daxd.release()
    assert early.wait().rc == 0
    assert do(mounted, "os.stat('/mnt/log').st_size") == 150
    assert do(mounted, "read('/mnt/log')") == 150


@pytest.mark.parametrize("flags", ["", "-AUTO_INVAL_DATA"], ids=["times-matter", "sizes-alone"])
def test_growth_on_the_host(rig, flags):
    """What the host appends to a file of which the guest has the end in its page cache is read, whatever the daemon wants of times."""
    rig.tree.file("log", b"a" * 100)
    rig.daxd.configure(init_flags=flags, attr_timeout=0)
    rig.guest.mount("daxd", "/mnt")
    do(rig, "fd = os.open('/mnt/log', os.O_RDONLY)")
    assert do(rig, "len(os.pread(fd, 4096, 0))") == 100
    with open(rig.tree / "log", "ab") as log:
        log.write(b"b" * 50)
    assert do(rig, "os.fstat(fd).st_size") == 150
    assert do(rig, "os.pread(fd, 4096, 0).decode()") == "a" * 100 + "b" * 50
    do(rig, "os.close(fd)")
    rig.guest.umount("/mnt")
    rig.unmounted()


def test_attributes_from_before_an_eviction(mounted):
    """An inode that is new here once more does not take attributes from before what was written to it in its last life."""
    mounted.tree.file("changed/file", b"")
    os.chmod(mounted.tree / "changed", 0o755)
    mounted.daxd.hold("READDIRPLUS")
    lister = mounted.guest.spawn("ls /mnt/changed >/dev/null")
    mounted.daxd.wait_for_held()
    mounted.daxd.clear_faults()
    # Not to be created, which would wait for the listing.
    do(mounted, "fd = os.open('/mnt/changed/file', os.O_WRONLY); os.write(fd, bytes(1000000)); os.close(fd)")
    mounted.daxd.reset_counters()
    mounted.guest.run("echo 3 >/proc/sys/vm/drop_caches")
    mounted.daxd.wait_until(lambda now: now["forget"]["nodes"] > 0, "the file is forgotten")
    mounted.daxd.release()
    assert lister.wait().rc == 0
    assert do(mounted, "os.stat('/mnt/changed/file').st_size") == 1000000


# What a killed task leaves under way, how it is done on the host, and where others look for it.
LATE = {
    "UNLINK": ("os.unlink('{}/file')", "os.path.exists('/mnt/late/file')"),
    "RENAME": ("os.rename('{0}/file', '{0}/other')", "os.path.exists('/mnt/late/file')"),
    "MKDIR": ("os.mkdir('{}/new')", "os.path.exists('/mnt/late/new')"),
    "LINK": ("os.link('{0}/file', '{0}/new')", "os.stat('/mnt/late/file').st_nlink"),
    "SETATTR": ("os.chmod('{}/file', 0o600)", "os.stat('/mnt/late/file').st_mode"),
}


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize("request_", LATE)
def test_done_after_the_kill(mounted, request_):
    """What a killed task has left under way is seen when the daemon has done it, also by who has looked at it since, in vain."""
    change, look = LATE[request_]
    mounted.tree.file("late/file", "x")
    mounted.daxd.configure(negative_timeout=3600)
    before = do(mounted, look)
    # The daemon does it when it answers.
    mounted.daxd.set_fault("error", request_, errno="EIO")
    mounted.daxd.hold(request_)
    task = mounted.guest.spawn_python(f"import os; {change.format('/mnt/late')}")
    mounted.daxd.wait_for_held()
    task.kill()
    task.wait()
    mounted.daxd.clear_faults()
    assert do(mounted, look) == before
    subprocess.run([sys.executable, "-c", f"import os; {change.format(mounted.tree / 'late')}"], check=True)
    assert do(mounted, look) == before
    mounted.daxd.release()
    mounted.guest.wait_until(lambda: do(mounted, look) != before, "it is seen")
    shutil.rmtree(mounted.tree / "late")


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_written_after_the_kill(rig):
    """The same of what was written past the page cache, where pages of the file are kept whatever its times are."""
    rig.tree.file("late/file", "before" + 5000 * " ")
    rig.daxd.configure(init_flags="-AUTO_INVAL_DATA")
    rig.guest.mount("daxd", "/mnt")
    do(rig, "fd = os.open('/mnt/late/file', os.O_RDONLY)")
    look = "os.pread(fd, 6, 0).decode()"
    write = "import mmap, os; os.writev(os.open('/mnt/late/file', os.O_WRONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)])"
    rig.daxd.set_fault("error", "WRITE", errno="EIO")
    rig.daxd.hold("WRITE")
    task = rig.guest.spawn_python(write)
    rig.daxd.wait_for_held()
    task.kill()
    task.wait()
    rig.daxd.clear_faults()
    assert do(rig, look) == "before"
    with open(rig.tree / "late" / "file", "r+b") as file:
        file.write(b"later!")
    assert do(rig, look) == "before"
    rig.daxd.release()
    rig.guest.wait_until(lambda: do(rig, look) == "later!", "it is seen")
    do(rig, "os.close(fd)")
    rig.guest.umount("/mnt")
    rig.unmounted()
    shutil.rmtree(rig.tree / "late")


# A change through this kernel that overtakes an answer, of a file and of a directory, and where it is looked.
OVERTAKEN = {
    "written": ("/mnt/told/file", "os.write(fd, b'x' * 5000)"),
    "made": ("/mnt/told", "open('/mnt/told/new', 'x').close()"),
}


@pytest.mark.parametrize(
    "change", ["written", pytest.param("made", marks=pytest.mark.beyond_c("a directory has what was there before the reply"))]
)
def test_overtaken_answer(mounted, change):
    """stat(2) says what the daemon says, also where a change through this kernel overtakes the reply; the next one asks again."""
    path, overtakes = OVERTAKEN[change]
    mounted.tree.file("told/file", b"x")
    do(mounted, f"fd = os.open('/mnt/told/file', os.O_WRONLY); os.stat('{path}')")
    mounted.daxd.set_fault("set", "GETATTR", fields={"attr.mtime": 12345, "attr.nlink": 77, "attr.uid": 4711})
    mounted.daxd.hold("GETATTR")
    looker = mounted.guest.spawn_python(FORCED.replace("buffer[5]", "[buffer[14], buffer[2] & 0xffffffff, buffer[2] >> 32]") + f"print(*forced('{path}'))")
    mounted.daxd.wait_for_held()
    mounted.daxd.clear_faults()
    do(mounted, overtakes)
    mounted.daxd.release()
    assert looker.wait().stdout.split() == ["12345", "77", "4711"]
    on_host = os.stat(mounted.tree / path[5:])
    assert do(mounted, f"(lambda s: [s.st_mtime_ns, s.st_nlink, s.st_uid])(os.stat('{path}'))") == [on_host.st_mtime_ns, on_host.st_nlink, on_host.st_uid]
    do(mounted, "os.close(fd)")
    shutil.rmtree(mounted.tree / "told")


@pytest.mark.parametrize("path", ["/mnt/busy", "/mnt/busy/file"], ids=["directory", "file"])
def test_overtaken_all_the_while(mounted, path):
    """So it is of what changes all the while: each stat(2) asks once, and none shows times from before it."""
    mounted.tree.file("busy/file", b"x")
    writer = """
import os
fd, number = os.open("/mnt/busy/file", os.O_RDWR), 0
while True:
    number += 1
    os.pwrite(fd, b"%d" % number, 0)
    os.mkdir("/mnt/busy/new")
    os.rmdir("/mnt/busy/new")
"""
    do(mounted, "os.stat('/mnt/busy/file')")
    task = mounted.guest.spawn_python(writer)
    mounted.daxd.wait_for_count("RMDIR", 3)
    for _ in range(20):
        before = os.stat(mounted.tree / path[5:]).st_mtime_ns
        assert do(mounted, f"os.stat('{path}').st_mtime_ns") >= before
    task.kill()
    task.wait()
    shutil.rmtree(mounted.tree / "busy")
