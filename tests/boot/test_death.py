# SPDX-License-Identifier: GPL-2.0
"""A daemon that sleeps or dies: tasks that wait can be killed, umount -f ends what waits, and nothing hangs or leaks."""

import signal
from pathlib import Path

import pytest
from conftest import blocked, errno_of, mount_errno, running
from guest import Share

# Each blocks in a different operation on a file that the guest does not know yet.
OPERATIONS = {
    "lookup": "os.stat('/mnt/dir/other')",
    "open": "os.open('/mnt/known', os.O_RDONLY)",
    "read": "os.read(3, 100000)",
    "direct read": "os.preadv(4, [mmap.mmap(-1, 1 << 20)], 0)",
    "fault": "mmap.mmap(3, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[200000]",
    "readdir": "os.listdir('/mnt/dir')",
    "readlink": "os.readlink('/mnt/link')",
    "statfs": "os.statvfs('/mnt')",
    "getxattr": "os.getxattr('/mnt/known', 'user.x')",
}

PREPARE = """
import mmap, os, sys, time
os.stat("/mnt/known")
os.lstat("/mnt/link")
os.stat("/mnt/dir")
assert os.dup2(os.open("/mnt/large", os.O_RDONLY), 3) == 3
assert os.dup2(os.open("/mnt/large", os.O_RDONLY | os.O_DIRECT), 4) == 4
open("/run/prepared", "w")
while not os.path.exists("/run/go"):
    time.sleep(0.05)
import errno
try:
    {operation}
    print("OK")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def all_stopped(pid):
    """Whether every thread of a process has stopped: the others go on until one has seen the signal."""
    states = [stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def waiting(boot, tree, operation, number):
    """A guest with a task that waits in an operation because its daemon got a signal: (guest, task)."""
    tree.file("known", "content\n")
    tree.file("large", 1 << 20)
    tree.file("dir/other", "x")
    tree.link("link", "target")
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=auto", "--xattr"]), wedged=True)
    guest.mount("tag")
    task = guest.spawn_python(PREPARE.format(operation=OPERATIONS[operation]))
    guest.wait_until(lambda: guest.run("test -e /run/prepared", check=False).rc == 0, "the task is prepared")
    # Names and attributes must have timed out, or nothing is asked.
    guest.run("sleep 1.1")
    guest.shares[0].process.send_signal(number)
    if number == signal.SIGKILL:
        guest.shares[0].process.wait(10)
    else:
        guest.wait_until(lambda: all_stopped(guest.shares[0].process.pid), "the daemon stops")
    guest.run("touch /run/go")
    blocked(guest, task)
    return guest, task


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_waiting_task_can_be_killed(boot, tree, operation):
    """A task that waits for a sleeping daemon is gone after SIGKILL; when the daemon wakes, the mount works as before."""
    guest, task = waiting(boot, tree, operation, signal.SIGSTOP)
    task.kill()
    guest.wait_until(lambda: not running(guest, task), "the task is gone", timeout=15)
    guest.shares[0].process.send_signal(signal.SIGCONT)
    assert guest.out("cat /mnt/known /mnt/dir/other") == "content\nx"
    assert guest.out("cat /mnt/large | wc -c") == str(1 << 20)
    guest.umount()
    guest.unload()


def test_sleeping_daemon_wakes(boot, tree):
    """A task that waits for a sleeping daemon gets its answer when the daemon goes on."""
    guest, task = waiting(boot, tree, "read", signal.SIGSTOP)
    guest.shares[0].process.send_signal(signal.SIGCONT)
    assert task.wait().stdout.strip() == "OK"
    guest.umount()


@pytest.mark.beyond_c("its umount -f does nothing")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["sleeping", "dead"])
@pytest.mark.parametrize("operation", ["lookup", "read", "readdir"])
def test_forced_umount_ends_requests(boot, tree, operation, number):
    """umount -f ends what waits with ENOTCONN, later calls too; then the mount can go, with a daemon that sleeps or is dead."""
    guest, task = waiting(boot, tree, operation, number)
    forced = guest.spawn("umount -f /mnt")
    guest.wait_until(task.poll, "the waiting task ends", timeout=15)
    assert task.result.stdout.strip() == "ENOTCONN"
    guest.wait_until(forced.poll, "umount -f returns", timeout=15)
    if forced.result.rc:
        assert errno_of(guest, "os.statvfs('/mnt')") == "ENOTCONN"
        last = guest.spawn("umount /mnt")
        guest.wait_until(last.poll, "umount returns", timeout=15)
        assert last.result.rc == 0, last.result
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32


@pytest.mark.beyond_c("it waits for the dead daemon's answer to DESTROY")
def test_umount_with_dead_daemon(boot, tree):
    """A plain umount after the daemon died can be killed, and umount -f ends it."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"), wedged=True)
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    guest.shares[0].process.kill()
    guest.shares[0].process.wait(10)
    umount = guest.spawn("umount -f /mnt")
    guest.wait_until(umount.poll, "umount -f returns", timeout=15)
    assert umount.result.rc == 0, umount.result
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32


@pytest.mark.beyond_c("it waits for the answer to INIT for ever")
def test_mount_with_dead_daemon(boot, tree):
    """mount(8) with a daemon that is dead waits, but can be killed, and leaves nothing mounted."""
    guest = boot(Share(tree.path, "tag"), wedged=True)
    guest.shares[0].process.kill()
    guest.shares[0].process.wait(10)
    mount = guest.spawn("exec mount -t virtiofs tag /mnt")
    blocked_or_ended(guest, mount)
    mount.kill()
    guest.wait_until(lambda: not running(guest, mount), "mount is gone", timeout=15)
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32


def blocked_or_ended(guest, process):
    """Waits until a process sleeps in a call, or ended."""
    if not process.poll():
        try:
            blocked(guest, process)
        except Exception:
            if not process.poll():
                raise


@pytest.mark.beyond_c("unbind waits for the requests in flight")
@pytest.mark.parametrize("operation", ["lookup", "read"])
def test_unbind_with_requests_in_flight(boot, tree, operation):
    """Unbinding a device whose daemon is dead ends what waits and returns; the mount can go, and the module."""
    # Not with a daemon that sleeps: the emulator itself waits for it when a device is reset, and the guest stands still.
    guest, task = waiting(boot, tree, operation, signal.SIGKILL)
    unbind = guest.spawn("cd /sys/bus/virtio/drivers/virtiofs; for d in virtio*; do echo $d >unbind; done")
    guest.wait_until(task.poll, "the waiting task ends", timeout=20)
    assert task.result.stdout.strip() in ("ENOTCONN", "ENODEV")
    guest.wait_until(unbind.poll, "unbind returns", timeout=20)
    guest.umount()
    guest.unload()


def test_other_share_goes_on(boot, tree, tmp_path):
    """A daemon that dies takes nothing but its own share with it."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "dies"), Share(tree.path, "lives"), wedged=True)
    guest.mount("dies", "/run/dies")
    guest.mount("lives", "/run/lives")
    guest.shares[0].process.kill()
    guest.shares[0].process.wait(10)
    hanging = guest.spawn("exec cat /run/dies/file")
    assert guest.out("cat /run/lives/file") == "content"
    assert mount_errno(guest, "lives", "/run/again") == "OK"
    assert guest.out("cat /run/again/file") == "content"
    assert not hanging.poll() or hanging.result.rc != 0
    guest.umount("/run/again")
    guest.umount("/run/lives")


def end_files(tree):
    """What the tasks of the next test have open."""
    tree.file("file", 8192)


# How a task that will be killed uses the file, and which requests it would wait for, in the call it is in or at its end.
ENDS = {
    "written": ("os.pwrite(fd, b'new', 0)", "", ["FLUSH", "RELEASE"]),
    "written-back": ("os.pwrite(fd, b'new', 0)", "+WRITEBACK_CACHE", ["WRITE", "SETATTR", "FLUSH"]),
    "mapped": ("m = mmap.mmap(fd, 0); m[:3] = b'new'", "", ["WRITE", "FLUSH"]),
    "fsync": ("os.pwrite(fd, b'new', 0); waits(); os.fsync(fd)", "+WRITEBACK_CACHE", ["WRITE", "FLUSH"]),
    "msync": ("m = mmap.mmap(fd, 0); m[:3] = b'new'; waits(); m.flush()", "", ["WRITE", "FLUSH"]),
    # Nothing but an unlock tells such a daemon that locks go.
    "locked-without-flush": ("fcntl.lockf(fd, fcntl.LOCK_EX); os.pwrite(fd, b'new', 0)", "+POSIX_LOCKS", ["SETLK"]),
    "locked": ("os.pwrite(fd, b'new', 0); fcntl.lockf(fd, fcntl.LOCK_EX)", "+POSIX_LOCKS", ["SETLK", "FLUSH"]),
}

END = """
import fcntl, mmap, os, signal
def waits():
    open("/run/waits", "w")
fd = os.open("/mnt/file", os.O_RDWR)
{use}
waits()
signal.pause()
"""


@pytest.mark.beyond_c("its tasks wait for the daemon when they exit")
@pytest.mark.parametrize("use", ENDS)
def test_killed_task_ends(boot_rig, use):
    """A task that is killed ends though the daemon does not answer: what it has written gets there later, and its locks go."""
    call, flags, requests = ENDS[use]
    rig = boot_rig(files=end_files)
    guest = rig.guest
    rig.daxd.configure(init_flags=flags)
    guest.mount("daxd", "/mnt")
    if "FLUSH" not in requests:
        rig.daxd.configure(enosys="FLUSH")
        guest.run("echo old >/mnt/file")
    for request in requests:
        if request != "SETLK":
            rig.daxd.hold(request)
    task = guest.spawn_python(END.format(use=call))
    guest.wait_until(lambda: guest.run("test -e /run/waits", check=False).rc == 0, "the task has the file")
    blocked(guest, task)
    if "SETLK" in requests:
        rig.daxd.hold("SETLK")
    task.kill()
    guest.wait_until(lambda: not running(guest, task), "the task is gone", timeout=15)
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert rig.hand.do("fd = os.open('/mnt/file', os.O_RDWR)") == "OK"
    assert rig.hand.do("fcntl.lockf(fd, fcntl.LOCK_EX)") == "OK"
    assert rig.hand.do("os.close(fd)") == "OK"
    guest.umount("/mnt")
    rig.unmounted()
    assert (rig.tree / "file").read_bytes()[:3] == b"new"


@pytest.mark.beyond_c("its tasks wait for the daemon when they exit")
@pytest.mark.parametrize("answers", [True, False], ids=["slow", "silent"])
def test_unmount_after_kill(boot_rig, answers):
    """What a killed task has left dirty is still written when the file is unmounted, if the daemon answers; umount -f does without."""
    rig = boot_rig(files=end_files)
    guest = rig.guest
    rig.daxd.configure(init_flags="+WRITEBACK_CACHE")
    guest.mount("daxd", "/mnt")
    rig.daxd.hold("WRITE")
    task = guest.spawn_python(END.format(use="os.pwrite(fd, b'new', 0)"))
    guest.wait_until(lambda: guest.run("test -e /run/waits", check=False).rc == 0, "the task has the file")
    task.kill()
    guest.wait_until(lambda: not running(guest, task), "the task is gone", timeout=15)
    rig.daxd.wait_for_held()
    if answers:
        umount = guest.spawn("umount /mnt")
        blocked(guest, umount)
        rig.daxd.clear_faults()
        rig.daxd.release()
        assert umount.wait().rc == 0
        rig.unmounted()
        assert (rig.tree / "file").read_bytes()[:3] == b"new"
    else:
        guest.run("umount -f /mnt", timeout=30)
        assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    guest.unload()
