# SPDX-License-Identifier: GPL-2.0
"""A window that the daemon does not serve as it should: it refuses, it answers nonsense, it dies, and its files become shorter."""

import hashlib
import os
import signal

import pytest
from conftest import blocked
from test_dax_modes import maps, same, setups, window

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}
REFUSED = "does not map files into the window"


def files(tree):
    """What is shared."""
    tree.file("file", 6 * MEG)
    tree.file("other", 3 * MEG, seed=1)
    tree.file("huge", 40 * MEG)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with all files in the window; afterwards nothing is mapped, and the next mount has the window."""
    rig.guest.mount("daxd", options="dax=always")
    rig.hand.lines("None")
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount()
    assert maps(rig) == 0
    rig.unmounted()
    rig.guest.mount("daxd", options="dax=always")
    before = setups(rig)
    assert same(rig, "file")
    assert setups(rig) > before
    rig.guest.umount()


# Uses a file, a part of 2 MiB after the other: how many of them could be used. One that cannot be ends a process.
USE = """
import mmap, os, sys
how = sys.argv[1]
fd = os.open("/mnt/file", os.O_RDWR)
parts = range(0, os.fstat(fd).st_size, 2 << 20)
m = mmap.mmap(fd, 0) if how in ("load", "store") else None
def use(at):
    for place in range(at, at + (2 << 20), 64 << 10):
        if how == "read":
            assert len(os.pread(fd, 64 << 10, place)) == 64 << 10
        elif how == "write":
            assert os.pwrite(fd, b"%08d" % place * 8192, place) == 64 << 10
        elif how == "load":
            m[place + 5]
        else:
            m[place:place + 8] = b"%08d" % place
good = 0
for at in parts:
    child = os.fork()
    if child == 0:
        use(at)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -7), status
    good += status == 0
print(good)
"""


@pytest.mark.parametrize("skip", [0, 1], ids=["first", "middle"])
@pytest.mark.parametrize("error", ["ENOMEM", "EIO", "ENOSYS"])
@pytest.mark.parametrize("how", ["read", "write", "load", "store"])
def test_refused(mounted, how, error, skip):
    """Where the daemon does not map, bytes go by requests, and a page fault gets SIGBUS; whoever never could is not asked again."""
    daxd = mounted.daxd
    daxd.set_fault("error", "SETUPMAPPING", errno=error, skip=skip)
    good = int(mounted.guest.python(USE, how).stdout)
    assert setups(mounted) == skip
    refused = daxd.counters()["errors"]["SETUPMAPPING"]
    # A read or write does not ask each time.
    counted = window(mounted.guest)
    assert counted["failed"] == refused[error] and counted["unable"] == (error == "ENOSYS")
    assert counted["ranges_retired"] == 0
    if how in ("read", "write"):
        assert counted[f"bypassed_{how}s"] > 0
    assert set(refused) == {error} and 1 <= refused[error] <= (1 if error == "ENOSYS" else 4), refused
    logged = mounted.hand.lines("None")[1]
    assert len(logged) == 1 and REFUSED in logged[0], logged
    data = (mounted.tree / "file").read_bytes()
    if how in ("read", "write"):
        assert good == 3 and daxd.count(how.upper()) > 0
    else:
        assert good == skip
    if how == "write":
        assert all(data[at : at + (64 << 10)] == b"%08d" % at * 8192 for at in range(0, 6 * MEG, 64 << 10))
    if how == "store":
        assert all(data[at : at + 8] == b"%08d" % at for at in range(0, skip * 2 * MEG, 64 << 10))
    assert same(mounted, "file")
    # The daemon has come to its senses.
    daxd.clear_faults()
    asked = daxd.count("SETUPMAPPING")
    good = int(mounted.guest.python(USE, "load").stdout)
    if error == "ENOSYS":
        assert good == skip and daxd.count("SETUPMAPPING") == asked
    else:
        assert good == 3 and setups(mounted) > skip


UNCLEAR = [("error", {"errno": "EIO"}), ("truncate", {"len": 8}), ("unique", {"add": 2})]


@pytest.mark.parametrize("fault", UNCLEAR, ids=lambda fault: fault[0])
def test_removal_fails_once(mounted, fault):
    """A range that is not known to be removed is not used again; others go in its place, and nobody sees an error."""
    mounted.daxd.set_fault(fault[0], "REMOVEMAPPING", count=1, **fault[1])
    out = mounted.guest.python(
        """
import hashlib, mmap, os
fd = os.open("/mnt/huge", os.O_RDONLY)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
    print(hashlib.sha256(m).hexdigest())
"""
    ).stdout
    assert out.strip() == hashlib.sha256((mounted.tree / "huge").read_bytes()).hexdigest()
    assert mounted.daxd.counters()["faults"] == {fault[0]: 1}
    assert mounted.daxd.counters()["dax"]["setup_occupied"] == 0
    counted = window(mounted.guest)
    assert counted["ranges_retired"] > 0 and counted["retired_bytes"] == counted["ranges_retired"] * 2 * MEG
    assert same(mounted, "huge") and setups(mounted) >= 20


@pytest.mark.parametrize("opcode", ["SETUPMAPPING", "REMOVEMAPPING"])
def test_nothing_is_left(mounted, opcode):
    """When it is known of no range what it shows, files are read and written by requests; a page fault that needs a range gets SIGBUS at
    once, others get copies."""
    daxd = mounted.daxd
    daxd.set_fault("truncate", opcode, len=8)
    reads = """
import mmap, os
fd = os.open("/mnt/huge", os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)
for _ in range(4):
    for at in range(0, 40 << 20, 1 << 20):
        if os.fork() == 0:
            m[at]
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.wait()[1])
        assert status in (0, -7), status
print(status)
"""
    assert int(mounted.guest.python(reads, timeout=120).stdout) == -signal.SIGBUS
    counted = window(mounted.guest)
    assert counted["retired_bytes"] == counted["usable_bytes"] and counted["ranges_retired"] == counted["ranges"]
    daxd.clear_faults()
    asked = daxd.count("SETUPMAPPING")
    assert int(mounted.guest.python(reads, timeout=120).stdout) == -signal.SIGBUS
    assert daxd.count("SETUPMAPPING") == asked
    daxd.reset_counters()
    assert same(mounted, "other") and daxd.count("READ") > 0
    mapped = "import hashlib, mmap, os; print(hashlib.md5(mmap.mmap(os.open('/mnt/other', os.O_RDONLY), 0, prot=mmap.PROT_READ)).hexdigest())"
    assert mounted.guest.python(mapped).stdout.strip() == hashlib.md5((mounted.tree / "other").read_bytes()).hexdigest()
    mounted.guest.run("echo written >/mnt/new")
    assert (mounted.tree / "new").read_text() == "written\n"


def test_longer_on_the_host(mounted):
    """Who opens a file that the host has made longer sees all of it, however good what was known of it still was."""
    path, hand = mounted.tree / "other", mounted.hand
    assert same(mounted, "other")
    for number in (1, 2):
        with open(path, "ab") as file:
            file.write(bytes([number]) * 5000)
        size = path.stat().st_size
        if number == 1:
            assert same(mounted, "other")
        assert hand.do("fd = os.open('/mnt/other', os.O_RDONLY)") == "OK"
        assert hand.do("libc.mmap.restype = ctypes.c_void_p") == "OK"
        assert hand.do(f"at = libc.mmap(None, ctypes.c_size_t({size}), 1, 1, fd, ctypes.c_long(0))") == "OK"
        assert hand.do(f"ctypes.string_at(at + {size - 1}, 1)[0]") == "OK" and hand.value == number
        assert hand.do("os.fstat(fd).st_size") == "OK" and hand.value == size
        assert hand.do(f"libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t({size})); os.close(fd)") == "OK"


def test_shorter_on_the_host(mounted):
    """A file that was cut on the host: as soon as the guest knows, there is nothing behind the end, neither by read nor mapped."""
    path = mounted.tree / "other"
    hand = mounted.hand
    daxd = mounted.daxd
    daxd.configure(attr_timeout=0)
    assert hand.do("fd = os.open('/mnt/other', os.O_RDWR)") == "OK"
    assert hand.do("m = mmap.mmap(fd, 0); seen = [m[at] for at in range(0, len(m), 4096)]") == "OK"
    assert setups(mounted) > 0
    os.truncate(path, MEG + 100)
    assert hand.do("os.fstat(fd).st_size") == "OK" and hand.value == MEG + 100
    # By write(2), which tells of a page that is not there, where an access would end the task.
    assert hand.do("ends = os.pipe()") == "OK"
    for at, done in ((0, "OK"), (MEG, "OK"), (MEG + 4096, "EFAULT"), (3 * MEG - 16, "EFAULT")):
        assert hand.do(f"os.write(ends[1], memoryview(m)[{at}:{at + 16}])") == done, at
    assert hand.do("len(os.pread(fd, 8192, 1 << 20))") == "OK" and hand.value == 100
    # It has become longer again, and other bytes are there.
    with open(path, "r+b") as file:
        file.seek(2 * MEG)
        file.write(b"again" * 1000)
    assert hand.do("os.fstat(fd).st_size") == "OK" and hand.value == 2 * MEG + 5000
    assert hand.do("bytes(m[2 << 20:(2 << 20) + 10]).decode()") == "OK" and hand.value == "againagain"
    assert hand.do("m[(1 << 20) + 100]") == "OK" and hand.value == 0
    assert hand.do("m.close(); [os.close(number) for number in (fd, *ends)]") == "OK"
    assert same(mounted, "other")
    path.write_bytes(os.urandom(3 * MEG))


PARKED = """
import mmap, os, sys
fd = os.open("/mnt/file", os.O_RDWR)
m = mmap.mmap(fd, 0)
os.mkfifo("/run/go")
open("/run/go").close()
open("/run/goes", "w").close()
m[5] if sys.argv[1] == "fault" else os.pread(fd, 4096, 0)
"""


@pytest.mark.parametrize("how", ["fault", "read"])
def test_killed_while_parked(boot_rig, how):
    """A task killed while its SETUPMAPPING waits for room in the ring: the next one has the range, and the file goes as always."""
    rig = boot_rig(files=files, daxd={"window": "16M", "queue_size": 4}, settings=RIG["settings"])
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd", options="dax=always")
    user = guest.spawn_python(PARKED, how)
    guest.wait_until(lambda: guest.run("test -p /run/go", check=False).rc == 0, "it has the file")
    daxd.hold("LOOKUP")
    others = [guest.spawn(f"exec stat /mnt/missing{number}") for number in range(4)]
    daxd.wait_for_held(4)
    # It is opened, and nothing written: the other end may be closed at once.
    guest.run(": >/run/go")
    guest.wait_until(lambda: guest.run("test -e /run/goes", check=False).rc == 0, "it goes on")
    blocked(guest, user)
    user.kill()
    assert user.wait().rc == 128 + signal.SIGKILL
    assert daxd.count("SETUPMAPPING") == 0
    daxd.clear_faults()
    daxd.release()
    for other in others:
        other.wait()
    assert same(rig, "file") and setups(rig) == 3
    guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


def test_broken_device(boot_rig):
    """A device that is not believed any more: who waits for a range gets SIGBUS, though its request was given up and never comes
    back, and inodes that have ranges go, so that unmounting works."""
    lie = r"virtiofs virtio\d+: requests\.0:id \d+ is not a head"
    rig = boot_rig(files=files, wedged=True, daxd={"window": "16M"}, settings=RIG["settings"], expected=[lie])
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd", options="dax=always")
    guest.run("cat /mnt/other >/dev/null")
    assert maps(rig) == 2
    daxd.hold("SETUPMAPPING")
    killed = guest.spawn("exec cat /mnt/file >/dev/null")
    daxd.wait_for_held()
    killed.kill()
    killed.wait()
    waiter = guest.spawn_python("import mmap, os; mmap.mmap(os.open('/mnt/file', os.O_RDWR), 0)[0]")
    blocked(guest, waiter)
    assert daxd.counters()["live"]["held"] == 1
    daxd.forge_used(1, 60, 16)
    daxd.interrupt(1)
    assert waiter.wait().rc == 128 + signal.SIGBUS
    guest.run("umount /mnt", timeout=30)
    # To unbind it with ranges that it could not be asked to remove is more than the emulator survives.


DIES = """
import mmap, os, sys, time
fd = os.open("/mnt/other", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0] = m[2 << 20] = 1
open("/run/mapped", "w")
while not os.path.exists("/run/look"):
    time.sleep(0.01)
m[4096]
m[5] = 1
os.pread(fd, 4096, 1 << 20)
open("/run/looked", "w")
while not os.path.exists("/run/end"):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["fault", "read"])
def test_death(boot_rig, how):
    """The daemon dies when it is asked to map: who waits gets an error with the abort; what is mapped can be used, or is gone."""
    rig = boot_rig(files=files, wedged=True, daxd=RIG["daxd"], settings=RIG["settings"])
    guest = rig.guest
    guest.mount("daxd", options="dax=always")
    user = guest.spawn_python(DIES)
    guest.wait_until(lambda: guest.run("test -e /run/mapped", check=False).rc == 0, "it is mapped")
    assert maps(rig) > 0
    rig.daxd.set_fault("exit", "SETUPMAPPING", code=3)
    if how == "fault":
        task = guest.spawn_python("import mmap, os; mmap.mmap(os.open('/mnt/huge', os.O_RDWR), 0, prot=7)[0]")
    else:
        task = guest.spawn("exec cat /mnt/huge >/dev/null")
    assert guest.shares[0].process.wait(20) == 3
    blocked(guest, task)
    guest.run("touch /run/look")
    guest.wait_until(lambda: user.poll() or guest.run("test -e /run/looked", check=False).rc == 0, "it has looked")
    assert not user.poll() or user.result.rc == 128 + signal.SIGBUS, user.result
    # Both use it still; but nobody waits any more.
    guest.spawn("umount -f /mnt").wait()
    result = task.wait()
    assert result.rc == 128 + signal.SIGBUS if how == "fault" else "not connected" in result.stderr, result
    guest.run("touch /run/end")
    user.wait()
    guest.run("umount /mnt", check=False)
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    guest.unload()
