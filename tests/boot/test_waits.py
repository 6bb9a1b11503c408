# SPDX-License-Identifier: GPL-2.0
"""Every wait ends: tasks in all system calls and page faults that wait for a daemon which has stopped, and what ends them.

All callers of a test wait at the same time in one guest, each on files of its own.
"""

import pytest
from waits import CALLS, EXITS, MODES, Stopping, waiting
from waits import files as files_of

RIG = {"daxd": {"window": "16M", "queues": 2}}


def files(tree):
    """The files of all callers."""
    files_of(tree)


@pytest.fixture(params=MODES)
def stopping(rig, request):
    """A share on /mnt in each mode."""
    mine = Stopping(rig, request.param)
    try:
        yield mine
    finally:
        mine.go_on()
    mine.unmount()


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_killed(stopping):
    """SIGKILL ends a task in any call and fault; nothing is left, neither here nor at the daemon, when it goes on."""
    # The kernel waits by itself for what is being written back, and has no way for a signal to end that.
    waiting(stopping, {name: case for name, case in CALLS.items() if name != "sync_file_range"})
    stopping.do("kill_all()")
    assert stopping.do("gone()") == {}
    stopping.go_on()
    assert stopping.do("sum(len(os.listdir('/mnt/' + name)) > 0 for name in os.listdir('/mnt') if name[:2] == 'd-')") > 0
    stopping.unmount()
    stopping.rig.unmounted()


@pytest.mark.beyond_c("its umount -f does nothing")
def test_forced_unmount(stopping):
    """umount -f ends all calls and faults at once, with the daemon still stopped, and then the mount can go."""
    waiting(stopping)
    stopping.rig.guest.run("umount -f /mnt", check=False, timeout=60)
    assert stopping.do("gone()") == {}
    ends = stopping.do("ends")
    assert "ENOTCONN" in ends.values(), ends
    stopping.unmount()
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
    assert not stopping.is_mounted()
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
