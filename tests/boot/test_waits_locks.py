# SPDX-License-Identifier: GPL-2.0
"""Every wait ends, also that for a lock whose holder waits for the daemon: one task of each lock holds it, others want it."""

import pytest
from waits import MODES, Holding
from waits import files as files_of

RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"entry_timeout": 3600, "attr_timeout": 3600}}
DRIVER = "/sys/bus/virtio/drivers/virtiofs"

OPENED = "fd = os.open(f, os.O_RDWR); direct = os.open(f, os.O_RDWR | os.O_DIRECT); m = memory(fd); os.stat(d + '/other'); p = os.pipe()"
DIRTY = f"{OPENED}; m[0] = 1; os.pwrite(fd, b'x' * 100, 0)"

# What wants the contents of a file or its attributes.
FILE = {
    "write": "os.pwrite(fd, b'x' * 100, 0)",
    "write-direct": "os.pwritev(direct, [mmap.mmap(-1, 4096)], 0)",
    "read": "os.pread(fd, 4096, 4096 * 40)",
    "read-direct": "os.preadv(direct, [mmap.mmap(-1, 4096)], 0)",
    "load": "m[4096 * 41]",
    "load-again": "m[0]",
    "store": "m[4096 * 42] = 1",
    "store-again": "m[0] = 1",
    "splice": "os.splice(fd, p[1], 8192, offset_src=4096 * 43)",
    "fsync": "os.fsync(fd)",
    "seek": "os.lseek(fd, 0, os.SEEK_DATA)",
    "punch": "call('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(4096))",
    "empty": "os.open(f, os.O_WRONLY | os.O_TRUNC)",
    "truncate": "os.ftruncate(fd, 1000)",
    "chmod": "os.chmod(f, 0o600)",
    "utime": "os.utime(f, (1, 1))",
    "setxattr": "os.setxattr(f, 'user.x', b'1')",
}
NAMES = {
    "lookup": "os.stat(d + '/new')",
    "create": "os.open(d + '/new', os.O_CREAT | os.O_WRONLY)",
    "mkdir": "os.mkdir(d + '/newer')",
    "unlink": "os.unlink(d + '/other')",
    "rename": "os.rename(d + '/other', d + '/newest')",
    "readdir": "os.listdir(d)",
}
# By lock: what its holder does, and who wants it.
LOCKS = {
    "i_rwsem": (DIRTY, "os.pwrite(fd, b'x' * 100, 0)", FILE),
    "invalidate_lock": (DIRTY, "os.ftruncate(fd, 100)", FILE),
    "punch": (OPENED, "call('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(4096))", FILE),
    "folio": (OPENED, "os.pread(fd, 4096, 4096 * 40)", FILE),
    "writeback": (DIRTY, "os.fsync(fd)", FILE),
    "directory": (OPENED, "os.mkdir(d + '/new')", NAMES),
    "dentry": (OPENED, "os.stat(d + '/new')", NAMES),
}
WAITERS = {f"{lock}.{name}": (prepare, use) for lock, (prepare, _, wanted) in LOCKS.items() for name, use in wanted.items()}
# These wait for locks that the kernel takes around our part, or where it fills the page cache. No signal ends that before the holder lets go.
KERNELS = {f"{lock}.{name}" for lock in ("i_rwsem", "invalidate_lock", "punch", "writeback") for name in ("setxattr", "utime")}
KERNELS |= {f"{lock}.{name}" for lock in ("invalidate_lock", "punch") for name in ("load", "load-again", "store", "store-again", "read", "splice")}
KERNELS |= {f"{lock}.{name}" for lock in ("directory", "dentry") for name in NAMES if name != "readdir"}


def files(tree):
    """The file and the directory of each lock."""
    files_of(tree, LOCKS)


# What is held back before all is: not what comes before the lock.
HELD = ["WRITE", "READ", "SETATTR", "FALLOCATE", "MKDIR", "LOOKUP"]
CASES = [(mode, "killed") for mode in MODES]
CASES += [pytest.param(mode, "forced", marks=pytest.mark.long) for mode in MODES]
CASES += [pytest.param(mode, "unbound", marks=pytest.mark.long) for mode in ("write-through", "writeback")]


@pytest.fixture
def holding(rig, mode):
    """A share on /mnt in each mode, whose daemon can hold all replies."""
    mine = Holding(rig, mode, LOCKS)
    try:
        yield mine
    finally:
        mine.go_on()
    mine.unmount()


def hold_all(holding, waiters):
    """Has all locks held, and others wait for them."""
    cases = [[lock, prepare, use] for lock, (prepare, use, _) in LOCKS.items()]
    for name, case in waiters.items():
        lock = name.partition(".")[0]
        cases.append([name, *case, f"/mnt/f-{lock}", f"/mnt/d-{lock}"])
    assert holding.do(f"start_all({cases!r})") == {}
    holding.rig.daxd.hold(HELD)
    waits = holding.do(f"go({list(LOCKS)!r})")
    assert {*LOCKS} - set(waits) <= {"i_rwsem", "punch", "folio", "writeback"}, holding.do("ends")


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize(("mode", "end"), CASES)
def test_behind_locks(holding, end):
    """Who waits for a lock whose holder waits for the daemon ends by SIGKILL, or when the holder does, and with the session."""
    hold_all(holding, WAITERS)
    holding.stop()
    holding.do("go()")
    if end == "killed":
        others = sorted({*WAITERS} - KERNELS)
        holding.do(f"kill({list(WAITERS)!r})")
        assert holding.do(f"gone({others!r})") == {}
        holding.do("kill_all()")
    elif end == "forced":
        holding.rig.guest.run("umount -f /mnt", check=False, timeout=60)
    else:
        device = f"virtio{holding.rig.device()}"
        holding.rig.guest.run(f"echo {device} >{DRIVER}/unbind", timeout=60)
    assert holding.do("gone()") == {}
    holding.go_on()
    holding.unmount()
    if end == "unbound":
        holding.rig.guest.run(f"echo {device} >{DRIVER}/bind")


@pytest.mark.beyond_c("unbind waits for the requests in flight")
@pytest.mark.parametrize("mode", ["dax"])
def test_window_goes(holding):
    """A device that goes ends who has files locked before it takes these out of the window."""
    rig = holding.rig
    hold_all(holding, {})
    assert rig.daxd.maps()
    rig.guest.run(f"echo virtio{rig.device()} >{DRIVER}/unbind", timeout=30)
    assert holding.do("gone()") == {}
    assert holding.do("ends")["invalidate_lock"] in ("ENOTCONN", "ENODEV")
    assert rig.daxd.maps() == []
    holding.go_on()
    holding.unmount()
    # The last test: it is not asked of the emulator that a device comes back whose replies were held.
    rig.guest.unload()
