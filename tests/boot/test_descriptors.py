# SPDX-License-Identifier: GPL-2.0
"""Inodes that nobody uses, for each of which a daemon may keep a file descriptor: they are given back in time, and when the daemon has
none left."""

import contextlib
import os

import pytest
from guest import Share

RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600}}
# What virtiofsd needs at least is a little less.
LIMIT = 1024


def files(tree):
    """What is shared."""
    for number in range(200):
        tree.file(f"many/{number}", f"{number}\n")
        tree.file(f"few/{number}", f"{number}\n")


def do(rig, statement, timeout=30.0):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement, timeout) == "OK", statement
    return rig.hand.value


@pytest.fixture
def mounted(rig, request):
    """The share on /mnt, with names that are good for an hour."""
    rig.guest.mount("daxd", "/mnt")
    yield rig
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    # What it has counted with an error as the answer, the guest knows nothing of.
    if "[" not in request.node.name or "not-done" in request.node.name:
        rig.unmounted()


def known(rig):
    """How many inodes the guest says that it knows."""
    return int(rig.guest.out(f"cat /sys/fs/virtiofs/{rig.device()}/inodes"))


WANTED = {
    "LOOKUP": "os.stat('/mnt/few/{n}')",
    "OPEN": "os.close(os.open('/mnt/many/{n}', os.O_RDONLY))",
    "OPENDIR": "os.listdir('/mnt/many') and None",
    "READDIR,READDIRPLUS": "os.listdir('/mnt/many') and None",
    "GETATTR": "os.stat('/mnt/many') and fstat('/mnt/many/{n}') and call('statx', -100, b'/mnt/many', 0x2000, 0x7ff, bytes(256))",
    "SETATTR": "os.truncate('/mnt/many/{n}', 3)",
    "SETXATTR": "os.setxattr('/mnt/many/{n}', 'user.a', b'a')",
    "GETXATTR": "try:\n    os.getxattr('/mnt/many/{n}', 'user.b')\nexcept OSError as e:\n    assert e.errno == errno.ENODATA, e",
    "UNLINK": "os.unlink('/mnt/many/{n}')",
    "RENAME,RENAME2": "os.rename('/mnt/many/{n}', '/mnt/many/moved{n}')",
    "CREATE": "os.close(os.open('/mnt/many/new{n}', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))",
    "MKDIR": "os.mkdir('/mnt/many/dir{n}')",
    "MKNOD": "os.mkfifo('/mnt/many/fifo{n}')",
    "SYMLINK": "os.symlink('target', '/mnt/many/symlink{n}')",
    "LINK": "os.link('/mnt/many/150', '/mnt/many/link{n}')",
}


@pytest.mark.beyond_c("passes the error on")
@pytest.mark.parametrize("execute", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("error", ["EMFILE", "ENFILE"])
def test_asked_again(mounted, error, execute):
    """A daemon that has no descriptors left is asked again, when unused inodes have been given back. What it has done though it says so
    is not done twice."""
    number = 100 * execute + 50 * (error == "ENFILE")
    for opcodes, statement in WANTED.items():
        if execute and opcodes not in ("MKDIR", "MKNOD", "SYMLINK", "LINK", "CREATE"):
            # These need no descriptor once they are done, or can be done twice.
            continue
        number += 1
        do(mounted, "[entry.stat(follow_symlinks=False).st_size for entry in os.scandir('/mnt/many')] and None")
        mounted.daxd.reset_counters()
        mounted.daxd.set_fault("error", opcodes.split(","), errno=error, execute=execute, count=1)
        do(mounted, statement.format(n=number))
        assert mounted.daxd.faults()[0]["hits"] == 1, opcodes
        assert mounted.daxd.counters()["forget"]["nodes"] > 50, opcodes
        mounted.daxd.clear_faults()


@pytest.mark.beyond_c("passes the error on")
def test_told_in_the_end(mounted):
    """A daemon that never has descriptors is asked a few times, and then programs get its error; a task that is killed does not wait."""
    for opcode, statement in (("LOOKUP", "os.stat('/mnt/few/{n}')"), ("MKDIR", WANTED["MKDIR"]), ("CREATE", WANTED["CREATE"])):
        mounted.daxd.set_fault("error", opcode, errno="ENFILE")
        mounted.daxd.reset_counters()
        assert mounted.hand.do(statement.format(n="none")) == "ENFILE"
        assert 2 <= mounted.daxd.count(opcode) <= 20
        mounted.daxd.clear_faults()


@pytest.mark.beyond_c("passes the error on")
def test_made_by_others(mounted):
    """What somebody else has made while the daemon had no descriptors left is there already, for those who want it new."""
    taken = {"MKDIR": "os.mkdir('/mnt/{}')", "CREATE": "os.open('/mnt/{}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)"}
    for opcode, statement in taken.items():
        name = opcode.lower()
        mounted.daxd.hold(opcode)
        mounted.daxd.set_fault("error", opcode, errno="EMFILE", count=1)
        process = mounted.guest.spawn_python(f"import os; {statement.format(name)}")
        mounted.daxd.wait_for_held()
        mounted.daxd.clear_faults()
        if opcode == "MKDIR":
            os.mkdir(mounted.tree / name)
        else:
            (mounted.tree / name).write_text("of others")
        os.chown(mounted.tree / name, 12345, 12345)
        mounted.daxd.release()
        assert "FileExistsError" in process.wait().stderr
        os.rename(mounted.tree / name, mounted.tree / f"{name}-of-others")


@pytest.mark.ours("no such parameter, nor file")
def test_bound(boot_rig):
    """The operator's bound holds for what is not in use, and what is known is told in sysfs."""
    rig = boot_rig(files=files, **RIG)
    rig.guest.run("rmmod virtiofs && modprobe virtiofs max_inodes=50")
    rig.guest.mount("daxd", "/mnt")
    do(rig, "kept = [os.open(f'/mnt/many/{n}', os.O_RDONLY) for n in range(60)]")
    for _ in range(3):
        rig.guest.run("ls -l /mnt/many >/dev/null")
        do(rig, "[os.stat(f'/mnt/many/{n}').st_size for n in range(200)] and None")
    assert 60 <= known(rig) <= 90
    rig.daxd.wait_until(lambda now: now["live"]["inodes"] <= 90, "the others are forgotten")
    do(rig, "[os.close(fd) for fd in kept] and None")
    rig.guest.umount("/mnt")
    assert known(rig) == 0
    rig.unmounted()


def descriptors(share):
    """How many descriptors its daemon has open, with those of its children."""
    def count(pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return len(os.listdir(f"/proc/{pid}/fd")) + sum(count(child) for child in children.read().split())

    return count(share.process.pid)


WALK = """
import os, sys
seen = 0
for where, names, files in os.walk(sys.argv[1], onerror=lambda error: sys.exit(str(error))):
    for name in files:
        seen += os.lstat(os.path.join(where, name)).st_mode != 0
print(seen)
"""

USER = """
import mmap, os, sys, time
top = sys.argv[1]
kept = [os.open(f"{top}/used/{n}", os.O_RDONLY) for n in range(50)]
area = mmap.mmap(kept[0], 0, prot=mmap.PROT_READ)
os.chdir(f"{top}/used/dir")
open("/run/ready", "w").close()
while not os.path.exists("/run/done"):
    time.sleep(0.05)
assert [os.pread(fd, 9, 0).decode() for fd in kept] == [str(n) for n in range(50)]
assert area[:1] == b"0" and os.listdir(".") == ["below"] and open("below").read() == "below"
assert os.path.ismount(f"{top}/used/mount") and os.path.exists(f"{top}/used/mount/file")
"""


def used(tree):
    """What a program uses while others walk."""
    for number in range(50):
        tree.file(f"used/{number}", str(number))
    tree.file("used/dir/below", "below")
    os.mkdir(tree / "used/mount")


@contextlib.contextmanager
def using(guest):
    """A program has files open, one mapped, and a directory to work in, and something is mounted: at the end all are as they were."""
    guest.run("mount -t tmpfs none /mnt/used/mount && touch /mnt/used/mount/file")
    user = guest.spawn_python(USER, "/mnt")
    guest.wait_until(lambda: guest.run("test -e /run/ready", check=False).rc == 0, "files are in use")
    yield
    guest.run("touch /run/done")
    assert user.wait().rc == 0, user.wait().stderr
    guest.run("umount /mnt/used/mount")


@pytest.mark.beyond_c("has ENFILE for programs, and gives nothing back")
@pytest.mark.parametrize("cache", ["auto", "always"])
def test_walk(boot, tree, cache):
    """A walk over more files than the daemon may have open has no error, and harms nobody. When names are good no more, and a minute
    has passed, the daemon has given back what it took."""
    for number in range(4 * LIMIT):
        tree.file(f"tree/{number // 128}/{number}", "x")
    used(tree)
    share = Share(tree.path, daemon_args=[f"--cache={cache}", "--inode-file-handles=never", f"--rlimit-nofile={LIMIT}"])
    guest = boot(share)
    guest.mount("kataShared", "/mnt")
    with using(guest):
        start = descriptors(share)
        for _ in range(2):
            assert guest.python(WALK, "/mnt/tree", timeout=300).stdout.strip() == str(4 * LIMIT)
        # Several at the same time, who take each other's room.
        guest.run("for i in 1 2 3; do find /mnt/tree -type f -size 1 >/run/out$i 2>&1 & done; wait; cat /run/out*", timeout=600)
        assert guest.out("cat /run/out* | wc -l") == str(3 * 4 * LIMIT)
        assert guest.out("grep -c . /run/out1") == str(4 * LIMIT)
        made = guest.python(
            "import os, sys\nfor n in range(3000):\n    os.close(os.open(f'/mnt/tree/0/new{n}', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400))\n"
            "    os.mkdir(f'/mnt/tree/1/new{n}')\n",
            timeout=600,
        )
        assert made.rc == 0, made.stderr
        if cache == "auto":
            # The names are good for a second. (Of each CREATE for which it had too few, virtiofsd keeps a descriptor.)
            guest.wait_until(lambda: descriptors(share) < start + 100, "the daemon has closed what it had open", timeout=90)
    guest.umount("/mnt")
