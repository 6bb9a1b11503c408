# SPDX-License-Identifier: GPL-2.0
"""Every wait ends: tasks in all system calls and page faults that wait for a daemon which has stopped, and what ends them.

All callers of a test wait at the same time in one guest, each on files of its own.
"""

import shutil
import signal
from pathlib import Path

import pytest

RIG = {"daxd": {"window": "16M", "queues": 2}}
PAGE = 4096
SIZE = 64 * PAGE

# How a share is used: options of the mount, and what the daemon offers.
MODES = {
    "write-through": ("dax=never", "+POSIX_LOCKS,+FLOCK_LOCKS"),
    "writeback": ("dax=never", "+POSIX_LOCKS,+FLOCK_LOCKS,+WRITEBACK_CACHE"),
    "dax": ("dax=always", "+POSIX_LOCKS,+FLOCK_LOCKS"),
}

# What each caller does before the daemon stops, and then: f is a file of its own, d a directory, which has a file `other`. Its memory is
# mapped by `memory(fd)`.
CALLS = {
    "open": ("", "os.open(d + '/other', os.O_RDONLY)"),
    "create": ("", "os.open(d + '/new', os.O_CREAT | os.O_WRONLY)"),
    "empty": ("", "os.open(f, os.O_WRONLY | os.O_TRUNC)"),
    "read": ("fd = os.open(f, os.O_RDONLY)", "os.pread(fd, 4096, 0)"),
    "read-direct": ("fd = os.open(f, os.O_RDONLY | os.O_DIRECT)", "os.preadv(fd, [mmap.mmap(-1, 4096)], 0)"),
    "write": ("fd = os.open(f, os.O_WRONLY)", "os.pwrite(fd, b'x' * 10000, 100)"),
    "write-cached": ("fd = os.open(f, os.O_RDWR); os.pread(fd, 4096, 0)", "os.pwrite(fd, b'x' * 100, 0)"),
    "write-mapped": ("fd = os.open(f, os.O_RDWR); m = memory(fd); m[1] = 1", "os.pwrite(fd, b'x' * 100, 0)"),
    "write-direct": ("fd = os.open(f, os.O_WRONLY | os.O_DIRECT)", "os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)"),
    "append": ("fd = os.open(f, os.O_WRONLY | os.O_APPEND)", "os.write(fd, b'x' * 100)"),
    "write-sync": ("fd = os.open(f, os.O_WRONLY | os.O_SYNC)", "os.pwrite(fd, b'x' * 100, 0)"),
    "load": ("fd = os.open(f, os.O_RDWR); m = memory(fd)", "m[4096 * 40]"),
    "store": ("fd = os.open(f, os.O_RDWR); m = memory(fd)", "m[4096 * 40] = 1"),
    "load-in-kernel": ("fd = os.open(f, os.O_RDWR); m = memory(fd); p = os.pipe()", "os.write(p[1], memoryview(m)[4096:4097])"),
    "store-in-kernel": ("fd = os.open(f, os.O_RDWR); m = memory(fd)", "os.preadv(os.open('/dev/zero', os.O_RDONLY), [m], 0)"),
    "msync": ("fd = os.open(f, os.O_RDWR); m = memory(fd); m[0] = 1", "m.flush()"),
    "munmap": ("fd = os.open(f, os.O_RDWR); m = memory(fd); os.close(fd); m[0] = 1", "m.close()"),
    "fsync": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.fsync(fd)"),
    "close": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.close(fd)"),
    "sync_file_range": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "call('sync_file_range', fd, ctypes.c_long(0), ctypes.c_long(0), 7)"),
    "stat": ("", "os.stat(f)"),
    "fstat": ("fd = os.open(f, os.O_RDONLY)", "os.fstat(fd)"),
    "access": ("", "os.access(d + '/other', os.R_OK)"),
    "readdir": ("", "os.listdir(d)"),
    "chdir": ("", "os.chdir(d)"),
    "rename": ("", "os.rename(d + '/other', d + '/new')"),
    "link": ("", "os.link(f, d + '/new')"),
    "symlink": ("", "os.symlink('x', d + '/new')"),
    "readlink": ("os.symlink('x', d + '/link')", "os.readlink(d + '/link')"),
    "mknod": ("", "os.mknod(d + '/new')"),
    "mkdir": ("", "os.mkdir(d + '/new')"),
    "rmdir": ("os.mkdir(d + '/sub')", "os.rmdir(d + '/sub')"),
    "unlink": ("", "os.unlink(d + '/other')"),
    "truncate": ("", "os.truncate(f, 100)"),
    "truncate-cached": ("fd = os.open(f, os.O_RDWR); os.pread(fd, 4096, 0)", "os.ftruncate(fd, 100)"),
    "fallocate": ("fd = os.open(f, os.O_RDWR)", "os.posix_fallocate(fd, 0, 1 << 20)"),
    "punch": ("fd = os.open(f, os.O_RDWR); os.pread(fd, 4096, 0)", "call('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(4096))"),
    "copy": ("a = os.open(f, os.O_RDONLY); b = os.open(d + '/other', os.O_RDWR)", "os.copy_file_range(a, b, 100)"),
    "sendfile": ("a = os.open(f, os.O_RDONLY); b = os.open('/dev/null', os.O_WRONLY)", "os.sendfile(b, a, 0, 8192)"),
    "splice": ("a = os.open(f, os.O_RDONLY); p = os.pipe()", "os.splice(a, p[1], 8192)"),
    "seek": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.lseek(fd, 0, os.SEEK_DATA)"),
    "chmod": ("", "os.chmod(f, 0o600)"),
    "utime": ("", "os.utime(f, (1, 1))"),
    "getxattr": ("", "os.getxattr(f, 'user.x')"),
    "setxattr": ("", "os.setxattr(f, 'user.x', b'1')"),
    "listxattr": ("", "os.listxattr(f)"),
    "lock": ("fd = os.open(f, os.O_RDWR)", "fcntl.lockf(fd, fcntl.LOCK_EX)"),
    "flock": ("fd = os.open(f, os.O_RDWR)", "fcntl.flock(fd, fcntl.LOCK_EX)"),
    "statfs": ("", "os.statvfs(f)"),
    "syncfs": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x' * 100, 0)", "call('syncfs', fd)"),
    "sync": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x' * 100, 0)", "os.sync()"),
    "execve": ("", "os.execv(f, [f])"),
    "readahead": ("fd = os.open(f, os.O_RDONLY)", "call('readahead', fd, ctypes.c_long(0), ctypes.c_long(1 << 18)); os.pread(fd, 1, 0)"),
    "fadvise": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.fsync(fd)"),
}
# These have nothing to wait for in some modes.
MAY_PASS = {"msync", "munmap", "close", "readahead", "store-in-kernel", "load-in-kernel", "syncfs", "sync", "write-cached", "write"}
MAY_PASS |= {"write-mapped", "append", "execve", "sync_file_range", "fadvise", "fsync", "seek"}

# How a task that exits has used the share, so that something is left to be done for it.
EXITS = {
    "reader": "fd = os.open(f, os.O_RDONLY); os.pread(fd, 4096, 0)",
    "writer": "fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'new', 0)",
    "writers": "fds = [os.open(f, os.O_RDWR) for _ in range(20)]; os.pwrite(fds[0], b'new', 0)",
    "mapped": "fd = os.open(f, os.O_RDWR); m = memory(fd); m[:3] = b'new'",
    "mapped-only": "fd = os.open(f, os.O_RDWR); m = memory(fd); os.close(fd); m[:3] = b'new'",
    "locked": "fd = os.open(f, os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX); os.pwrite(fd, b'new', 0)",
    "flocked": "fd = os.open(f, os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); os.pwrite(fd, b'new', 0)",
    "directory": "fd = os.open(d, os.O_RDONLY); os.listdir(fd)",
    "unlinked": "fd = os.open(d + '/other', os.O_RDWR); os.unlink(d + '/other'); os.pwrite(fd, b'new', 0)",
    "inside": "os.chdir(d)",
}

CALLERS = """
import ctypes, signal, time
pids, ends = {}, {}
libc.mmap.restype = ctypes.c_void_p

class Memory:
    # A mapping that does not keep the file open, as Python's own does.
    def __init__(self, fd):
        self.at = libc.mmap(None, ctypes.c_long(1 << 18), 3, 1, fd, ctypes.c_long(0))
        self.bytes = (ctypes.c_ubyte * (1 << 18)).from_address(self.at)
    def __getitem__(self, index):
        return self.bytes[index]
    def __setitem__(self, index, value):
        self.bytes[index] = value
    def __buffer__(self, flags):
        return memoryview(self.bytes)
    def flush(self):
        call("msync", ctypes.c_void_p(self.at), ctypes.c_long(1 << 18), 4)
    def close(self):
        call("munmap", ctypes.c_void_p(self.at), ctypes.c_long(1 << 18))

def memory(fd):
    return Memory(fd)

def start(name, prepare, use):
    for path in (f"/run/waits/{name}.end", f"/run/waits/{name}.ready", f"/run/waits/{name}.go"):
        if os.path.exists(path):
            os.unlink(path)
    pids[name] = os.fork()
    if pids[name]:
        return
    outcome = "OK"
    mine = globals()
    mine.update(f="/mnt/f-" + name.partition(".")[0], d="/mnt/d-" + name.partition(".")[0])
    try:
        exec(prepare, mine)
        open(f"/run/waits/{name}.ready", "w").close()
        while not os.path.exists(f"/run/waits/{name}.go"):
            time.sleep(0.05)
        if use is None:
            os._exit(0)
        exec(use, mine)
    except OSError as error:
        outcome = errno.errorcode[error.errno]
    except BaseException as error:
        outcome = repr(error)
    with open(f"/run/waits/{name}.end", "w") as file:
        file.write(outcome)
    os._exit(0)

def start_all(cases):
    os.makedirs("/run/waits", exist_ok=True)
    pids.clear()
    ends.clear()
    for name, prepare, use in cases:
        start(name, prepare, use)
    deadline = time.monotonic() + 60
    while True:
        left = [name for name in pids if not os.path.exists(f"/run/waits/{name}.ready")]
        if not left or time.monotonic() > deadline:
            return {name: where(name) for name in left}
        time.sleep(0.05)

def where(name):
    return word(name, "stat").rpartition(")")[2][1:2] + word(name, "stack").replace("\\n", ";")[:400]

def word(name, path):
    try:
        with open(f"/proc/{pids[name]}/{path}") as file:
            return file.read()
    except OSError:
        return ""

def reap():
    for name, pid in list(pids.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del pids[name]
            path = f"/run/waits/{name}.end"
            ends[name] = open(path).read() if os.path.exists(path) else f"status {status}"
    return sorted(pids)

# Until all sleep, and stay in the same call.
def go(names=None, patience=60):
    for name in names or list(pids):
        open(f"/run/waits/{name}.go", "w").close()
    deadline = time.monotonic() + patience
    seen = {}
    steady = 0
    while steady < 5 and time.monotonic() < deadline:
        reap()
        now = {name: (word(name, "stat").rpartition(")")[2][1:2], word(name, "syscall")) for name in pids}
        steady = steady + 1 if now == seen and all(state in "SD" for state, _ in now.values()) else 0
        seen = now
        time.sleep(0.05)
    return sorted(pids)

def kill_all():
    for pid in pids.values():
        os.kill(pid, 9)

# Those that are still there after a while, with what they wait in.
def gone(names=None, patience=20):
    deadline = time.monotonic() + patience
    def left():
        return [name for name in reap() if names is None or name in names]
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    return {name: where(name) for name in left()}
"""


def files(tree):
    """The files of all callers, and no others."""
    for left in tree.path.glob("d-*"):
        shutil.rmtree(left)
    for name in {*CALLS, *EXITS}:
        tree.file(f"f-{name}", SIZE).chmod(0o755)
        tree.file(f"d-{name}/other", SIZE, seed=1)


def all_stopped(pid):
    """Whether every thread of a process has stopped: the others go on until one has seen the signal."""
    states = [stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


class Stopping:
    """A mounted share whose daemon stops and goes on."""

    def __init__(self, rig, mode):
        self.rig, self.mode = rig, mode
        files(rig.tree)
        options, flags = MODES[mode]
        rig.daxd.configure(init_flags=flags)
        rig.guest.mount("daxd", "/mnt", options=options)
        if not self.do("int('start_all' in globals())"):
            assert rig.hand.do(CALLERS) == "OK"

    def do(self, statement, timeout=130.0):
        """Runs a statement in the guest, in a process that has nothing of the share open; what it was."""
        assert self.rig.hand.do(statement, timeout=timeout) == "OK"
        return self.rig.hand.value

    def start(self, cases):
        """Starts callers, and stops the daemon when they are prepared: those that wait then."""
        cases = [list(case) for case in cases]
        assert self.do(f"start_all({cases!r})") == {}
        self.stop()
        return set(self.do("go()"))

    def stop(self):
        """Stops the daemon."""
        process = self.rig.guest.shares[0].process
        process.send_signal(signal.SIGSTOP)
        self.rig.guest.wait_until(lambda: all_stopped(process.pid), "the daemon stops")

    def go_on(self):
        """Has the daemon go on."""
        self.rig.guest.shares[0].process.send_signal(signal.SIGCONT)


@pytest.fixture(params=MODES)
def stopping(rig, request):
    """A share on /mnt in each mode."""
    mine = Stopping(rig, request.param)
    try:
        yield mine
    finally:
        mine.go_on()
    if is_mounted(mine):
        rig.guest.umount("/mnt")


def is_mounted(mine):
    """Whether anything is on /mnt, in whatever state."""
    return mine.rig.guest.run("grep -q ' /mnt ' /proc/mounts", check=False).rc == 0


def waiting(mine, cases=CALLS):
    """Those that have to wait do."""
    waits = mine.start([(name, *case) for name, case in cases.items()])
    passed = set(cases) - waits - MAY_PASS
    assert not passed, mine.do("ends")
    return waits


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_killed(stopping):
    """SIGKILL ends a task in any call and fault; nothing is left, neither here nor at the daemon, when it goes on."""
    # The kernel waits by itself for what is being written back, and has no way for a signal to end that.
    waiting(stopping, {name: case for name, case in CALLS.items() if name != "sync_file_range"})
    stopping.do("kill_all()")
    assert stopping.do("gone()") == {}
    stopping.go_on()
    assert stopping.do("sum(len(os.listdir('/mnt/' + name)) > 0 for name in os.listdir('/mnt') if name[:2] == 'd-')") > 0
    stopping.rig.guest.umount("/mnt")
    stopping.rig.unmounted()


@pytest.mark.beyond_c("its umount -f does nothing")
def test_forced_unmount(stopping):
    """umount -f ends all calls and faults at once, with the daemon still stopped, and then the mount can go."""
    waiting(stopping)
    stopping.rig.guest.run("umount -f /mnt", check=False, timeout=60)
    assert stopping.do("gone()") == {}
    ends = stopping.do("ends")
    assert "ENOTCONN" in ends.values(), ends
    if is_mounted(stopping):
        stopping.rig.guest.umount("/mnt")
    assert stopping.do("os.sync()") is None


@pytest.mark.beyond_c("its tasks wait for the daemon when they exit")
def test_exits(stopping):
    """A task that exits ends though the daemon has stopped; what it has stored gets to the host, and its locks go, when it goes on."""
    cases = [(name, prepare, None) for name, prepare in EXITS.items()]
    assert stopping.do(f"start_all({cases!r})") == {}
    stopping.stop()
    stopping.do("[open(f'/run/waits/{name}.go', 'w').close() for name in pids]")
    assert stopping.do("gone()") == {}
    stopping.go_on()
    stopping.do("fds = [os.open('/mnt/f-' + name, os.O_RDWR) for name in ('locked', 'flocked')]")
    stopping.do("fcntl.lockf(fds[0], fcntl.LOCK_EX); fcntl.flock(fds[1], fcntl.LOCK_EX); [os.close(fd) for fd in fds]")
    stopping.rig.guest.umount("/mnt")
    stopping.rig.unmounted()
    for name in ("writer", "writers", "mapped", "mapped-only", "locked", "flocked"):
        assert (stopping.rig.tree / f"f-{name}").read_bytes()[:3] == b"new", name


@pytest.mark.beyond_c("its umount cannot be killed")
@pytest.mark.parametrize("ends", ["killed", "goes-on"])
def test_unmount(stopping, ends):
    """An unmount waits for what is dirty, as long as the daemon may go on; SIGKILL ends it, and the mount is gone."""
    cases = [[name, EXITS[name], None] for name in ("mapped", "writer", "reader")]
    assert stopping.do(f"start_all({cases!r})") == {}
    stopping.stop()
    stopping.do("[open(f'/run/waits/{name}.go', 'w').close() for name in pids]")
    assert stopping.do("gone()") == {}
    # Not umount(8), which asks the daemon before.
    assert stopping.do("""start_all([("umount", "", "call('umount2', b'/mnt', 0)")])""") == {}
    assert stopping.do("go()") == ["umount"]
    if ends == "killed":
        stopping.do("kill_all()")
        assert stopping.do("gone()") == {}
    stopping.go_on()
    assert stopping.do("gone()") == {}
    assert not is_mounted(stopping)
    if ends == "goes-on":
        stopping.rig.unmounted()
        for name in ("mapped", "writer"):
            assert (stopping.rig.tree / f"f-{name}").read_bytes()[:3] == b"new", name


def test_syncfs(stopping):
    """sync(2) and syncfs(2) wait until the host has what was written, also what is written again meanwhile."""
    stopping.do("fds = [os.open('/mnt/f-' + name, os.O_RDWR) for name in ('writer', 'mapped')]; m = memory(fds[1])")
    for number, how in enumerate(("call('syncfs', fds[0])", "os.sync()")):
        stopping.do(f"os.pwrite(fds[0], b'{number}' * 10000, 0); m[0] = {number + 65}")
        stopping.do(how)
        assert (stopping.rig.tree / "f-writer").read_bytes()[:10000] == b"%d" % number * 10000
        if stopping.mode != "dax":
            assert (stopping.rig.tree / "f-mapped").read_bytes()[0] == number + 65
    stopping.do("m.close(); [os.close(fd) for fd in fds]")
    stopping.rig.guest.umount("/mnt")
    stopping.rig.unmounted()
