# SPDX-License-Identifier: GPL-2.0
"""Tasks of a guest that wait for a daemon: system calls and page faults, all at the same time, each on files of its own."""

import shutil
import signal
from pathlib import Path

import aio

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
    "fdatasync": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.fdatasync(fd)"),
    "sync_file_range": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "call('sync_file_range', fd, ctypes.c_long(0), ctypes.c_long(0), 7)"),
    "stat": ("", "os.stat(f)"),
    "fstat": ("fd = os.open(f, os.O_RDONLY)", "os.fstat(fd)"),
    "statx": ("", "statx(f, 0x2000)"),
    "access": ("", "os.access(d + '/other', os.R_OK)"),
    "readdir": ("", "os.listdir(d)"),
    "chdir": ("", "os.chdir(d)"),
    "rename": ("", "os.rename(d + '/other', d + '/new')"),
    "link": ("", "os.link(f, d + '/new')"),
    "symlink": ("", "os.symlink('x', d + '/new')"),
    "readlink": ("os.symlink('x', d + '/link')", "os.readlink(d + '/link')"),
    "unnamed": ("", "os.open(d, os.O_TMPFILE | os.O_RDWR)"),
    "mknod": ("", "os.mknod(d + '/new')"),
    "mkdir": ("", "os.mkdir(d + '/new')"),
    "exchange": ("", "call('renameat2', -100, (d + '/other').encode(), -100, f.encode(), 2)"),
    "rmdir": ("os.mkdir(d + '/sub')", "os.rmdir(d + '/sub')"),
    "unlink": ("", "os.unlink(d + '/other')"),
    "truncate": ("", "os.truncate(f, 100)"),
    "truncate-cached": ("fd = os.open(f, os.O_RDWR); os.pread(fd, 4096, 0)", "os.ftruncate(fd, 100)"),
    "truncate-mapped": ("fd = os.open(f, os.O_RDWR); m = memory(fd); m[0]; m[1] = 1", "os.ftruncate(fd, 100)"),
    "fallocate": ("fd = os.open(f, os.O_RDWR)", "os.posix_fallocate(fd, 0, 1 << 20)"),
    "punch": ("fd = os.open(f, os.O_RDWR); os.pread(fd, 4096, 0)", "call('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(4096))"),
    "punch-mapped": ("fd = os.open(f, os.O_RDWR); m = memory(fd); m[0]; m[1] = 1", "call('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(8192))"),
    "copy": ("a = os.open(f, os.O_RDONLY); b = os.open(d + '/other', os.O_RDWR)", "os.copy_file_range(a, b, 100)"),
    "sendfile": ("a = os.open(f, os.O_RDONLY); b = os.open('/dev/null', os.O_WRONLY)", "os.sendfile(b, a, 0, 8192)"),
    "splice": ("a = os.open(f, os.O_RDONLY); p = os.pipe()", "os.splice(a, p[1], 8192)"),
    "splice-in": ("b = os.open(f, os.O_WRONLY); p = os.pipe(); os.write(p[1], b'x' * 100)", "os.splice(p[0], b, 100, offset_dst=0)"),
    "vmsplice": ("fd = os.open(f, os.O_RDWR); m = memory(fd); p = os.pipe()", "call('vmsplice', p[1], ctypes.byref(Part(m.at, 8192)), ctypes.c_long(1), 0)"),
    "seek": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0)", "os.lseek(fd, 0, os.SEEK_DATA)"),
    "chown": ("", "os.chown(f, 1, 1)"),
    "chmod": ("", "os.chmod(f, 0o600)"),
    "utime": ("", "os.utime(f, (1, 1))"),
    "getxattr": ("", "os.getxattr(f, 'user.x')"),
    "setxattr": ("", "os.setxattr(f, 'user.x', b'1')"),
    "removexattr": ("", "os.removexattr(f, 'user.x')"),
    "listxattr": ("", "os.listxattr(f)"),
    "lock": ("fd = os.open(f, os.O_RDWR)", "fcntl.lockf(fd, fcntl.LOCK_EX)"),
    "flock": ("fd = os.open(f, os.O_RDWR)", "fcntl.flock(fd, fcntl.LOCK_EX)"),
    "unlock": ("fd = os.open(f, os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX)", "fcntl.lockf(fd, fcntl.LOCK_UN)"),
    "getlock": ("fd = os.open(f, os.O_RDWR)", "fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))"),
    "ioctl": ("fd = os.open(f, os.O_RDWR)", "fcntl.ioctl(fd, 0x80086601, bytes(8))"),
    "statfs": ("", "os.statvfs(f)"),
    "syncfs": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x' * 100, 0)", "call('syncfs', fd)"),
    "sync": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x' * 100, 0)", "os.sync()"),
    "populate": ("fd = os.open(f, os.O_RDWR)", "libc.mmap(None, ctypes.c_long(1 << 18), 3, 0x8001, fd, ctypes.c_long(0))"),
    "madvise": ("fd = os.open(f, os.O_RDWR); m = memory(fd)", "call('madvise', ctypes.c_void_p(m.at), ctypes.c_long(1 << 18), 22)"),
    "socket": ("import socket; s = socket.socket(socket.AF_UNIX)", "s.connect(d + '/other')"),
    "uring-read": ("fd = os.open(f, os.O_RDONLY); u = Uring()", "u.run(('read', fd, buffer(4096), 4096, 0))"),
    "uring-write": ("fd = os.open(f, os.O_WRONLY); u = Uring()", "u.run(('write', fd, buffer(4096), 4096, 0))"),
    "uring-direct": ("fd = os.open(f, os.O_RDWR | os.O_DIRECT); u = Uring()", "u.run(('read', fd, buffer(4096), 4096, 0))"),
    "uring-fsync": ("fd = os.open(f, os.O_RDWR); os.pwrite(fd, b'x', 0); u = Uring()", "u.run(('fsync', fd, None, 0, 0))"),
    "aio-direct": ("fd = os.open(f, os.O_RDWR | os.O_DIRECT); u = Aio()", "u.run(('write', fd, buffer(4096), 4096, 0))"),
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

CALLERS = (
    aio.SOURCE
    + """
import signal, time

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def statx(path, flags):
    path, told = ctypes.create_string_buffer(path.encode()), ctypes.create_string_buffer(256)
    syscall(332, -100, ctypes.addressof(path), flags, 0xfff, ctypes.addressof(told))

pids, ends, begun = {}, {}, set()
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

def start(name, prepare, use, f=None, d=None):
    for path in (f"/run/waits/{name}.end", f"/run/waits/{name}.ready", f"/run/waits/{name}.go"):
        if os.path.exists(path):
            os.unlink(path)
    pids[name] = os.fork()
    if pids[name]:
        return
    outcome = "OK"
    mine = globals()
    mine.update(f=f or "/mnt/f-" + name, d=d or "/mnt/d-" + name)
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
    begun.clear()
    for case in cases:
        start(*case)
    deadline = time.monotonic() + 60
    while True:
        left = [name for name in pids if not os.path.exists(f"/run/waits/{name}.ready")]
        if not left or time.monotonic() > deadline:
            return {name: where(name) for name in left}
        time.sleep(0.05)

def where(name):
    return word(name, "stat").rpartition(")")[2][1:2] + word(name, "stack").replace("\\n", ";")[:1600]

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

# Until all that have begun sleep, and stay in the same call.
def go(names=None, patience=60):
    begun.update(names or pids)
    for name in begun:
        open(f"/run/waits/{name}.go", "w").close()
    deadline = time.monotonic() + patience
    seen = {}
    steady = 0
    while steady < 5 and time.monotonic() < deadline:
        reap()
        now = {name: (word(name, "stat").rpartition(")")[2][1:2], word(name, "syscall")) for name in pids if name in begun}
        steady = steady + 1 if now == seen and all(state in "SD" for state, _ in now.values()) else 0
        seen = now
        time.sleep(0.05)
    return sorted(pids)

def kill(names):
    for name in reap():
        if name in names:
            os.kill(pids[name], 9)

def kill_all():
    kill(list(pids))

# Those that are still there after a while, with what they wait in.
def gone(names=None, patience=20):
    deadline = time.monotonic() + patience
    def left():
        return [name for name in reap() if names is None or name in names]
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    return {name: where(name) for name in left()}
"""
)


def files(tree, names=frozenset({*CALLS, *EXITS})):
    """The files of all callers, and no others."""
    for left in tree.path.glob("d-*"):
        shutil.rmtree(left)
    for name in names:
        tree.file(f"f-{name}", SIZE).chmod(0o755)
        tree.file(f"d-{name}/other", SIZE, seed=1)


def all_stopped(pid):
    """Whether every thread of a process has stopped: the others go on until one has seen the signal."""
    states = [stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


class Stopping:
    """A mounted share whose daemon stops and goes on."""

    def __init__(self, rig, mode, names=frozenset({*CALLS, *EXITS})):
        self.rig, self.mode = rig, mode
        files(rig.tree, names)
        options, flags = MODES[mode]
        rig.daxd.configure(init_flags=flags)
        rig.guest.mount("daxd", "/mnt", options=options)
        teach(rig)

    def do(self, statement, timeout=130.0):
        """As `do`."""
        return do(self.rig, statement, timeout)

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

    def is_mounted(self):
        """Whether anything is on /mnt, in whatever state."""
        return self.rig.guest.run("grep -q ' /mnt ' /proc/mounts", check=False).rc == 0

    def unmount(self):
        """Unmounts. A file whose last use was asynchronous is closed a little later than that has ended."""
        guest = self.rig.guest
        guest.wait_until(lambda: not self.is_mounted() or guest.run("umount /mnt", check=False).rc == 0, "it is unmounted")


class Holding(Stopping):
    """As Stopping. The daemon does not answer requests, and goes on to serve the emulator, which waits for it when a device goes."""

    def stop(self):
        """Answers no more."""
        self.rig.daxd.hold()

    def go_on(self):
        """Answers again, those requests, too, that the device has still."""
        self.rig.daxd.clear_faults()
        self.rig.daxd.release()


def do(rig, statement, timeout=130.0):
    """Runs a statement in the guest, in a process that has nothing of the share open; what it was."""
    assert rig.hand.do(statement, timeout=timeout) == "OK"
    return rig.hand.value


def teach(rig):
    """The hand in the guest knows how to start callers."""
    if not do(rig, "int('start_all' in globals())"):
        assert rig.hand.do(CALLERS) == "OK"


def waiting(mine, cases=CALLS):
    """Those that have to wait do."""
    waits = mine.start([(name, *case) for name, case in cases.items()])
    passed = set(cases) - waits - MAY_PASS
    assert not passed, mine.do("ends")
    return waits
