# SPDX-License-Identifier: GPL-2.0
"""What an operator sees of requests that hang, and how they are ended: `waiting` and `abort` of a device, and the list in debugfs."""

import pytest
from conftest import blocked

pytestmark = pytest.mark.ours("virtiofs has no entry in fusectl")
# A small ring, so that requests soon wait for room: two entries each, in a ring without indirect descriptors, or one.
RIG = {"shares": 2, "daxd": {"queue_size": 16}, "settings": {"entry_timeout": 0, "attr_timeout": 0}}


def files(tree):
    """What is shared."""
    tree.file("file", "content\n")
    tree.file("other", "content\n")


def directory(rig, number=0):
    """The directory of a device in sysfs."""
    return f"/sys/fs/virtiofs/{rig.device(number)}"


def waiting(rig, number=0):
    """How many requests have not ended."""
    return int(rig.guest.out(f"cat {directory(rig, number)}/waiting"))


def requests(rig, number=0):
    """The list, a dictionary each."""
    head, *lines = rig.guest.out(f"cat /sys/kernel/debug/virtiofs/{rig.device(number)}/requests").split("\n")
    names = head.split()
    assert names == ["queue", "unique", "opcode", "nodeid", "age_ms", "state", "pid"]
    found = [dict(zip(names, line.split(), strict=True)) for line in lines]
    return [{key: int(value) if value.isdigit() else value for key, value in one.items()} for one in found]


def stat(rig, path="/mnt/file"):
    """A process of the guest that asks for a file's attributes and tells the error."""
    script = "import errno, os, sys\ntry:\n    os.stat(sys.argv[1])\n    print('OK')\nexcept OSError as e:\n    print(errno.errorcode[e.errno])"
    return rig.guest.spawn_python(script, path)


@pytest.fixture
def mounted(rig):
    """The first share on /mnt, where nothing waits; in the end it can be unmounted."""
    rig.guest.mount("daxd")
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount()


def test_nothing_waits(mounted):
    """Nothing waits, and only root may look or end anything."""
    where = directory(mounted)
    assert (waiting(mounted), requests(mounted)) == (0, [])
    assert mounted.guest.out(f"stat -c '%a %n' {where}/waiting {where}/abort").split() == ["400", f"{where}/waiting", "200", f"{where}/abort"]
    assert mounted.guest.run(f"setpriv --reuid=1000 cat {where}/waiting", check=False).rc
    assert mounted.guest.run(f"setpriv --reuid=1000 sh -c 'echo 1 >{where}/abort'", check=False).rc
    assert mounted.guest.run("stat /mnt/file").rc == 0


def test_held_request(mounted):
    """A request that the daemon holds is listed with its opcode, its inode, its number and its task, and gets older; once it is
    answered it is gone."""
    guest, daxd = mounted.guest, mounted.daxd
    user = guest.spawn("exec sleep 1000 </mnt/file")
    nodes = guest.wait_until(lambda: [one["nodeid"] for one in daxd.live()["inodes"] if one["path"].endswith("/file")], "the file is open")
    daxd.hold("GETATTR", nodeid=nodes[0])
    task = stat(mounted)
    held = daxd.wait_for_held()[0]
    blocked(guest, task)
    (seen,) = requests(mounted)
    assert (seen["queue"], seen["opcode"], seen["state"]) == ("requests.0", "GETATTR", "sent")
    assert (seen["unique"], seen["nodeid"]) == (held["unique"], nodes[0])
    assert seen["pid"] == task.pid
    assert waiting(mounted) == 1
    assert waiting(mounted, 1) == 0 and requests(mounted, 1) == []
    # It gets older by what has passed in the guest, and ticks are short.
    age = "awk '$3 == \"GETATTR\" {print $5}' /sys/kernel/debug/virtiofs/*/requests; cut -d' ' -f1 /proc/uptime"
    before, after = (guest.out(f"{age}; sleep 0.5").split() for _ in range(2))
    assert int(after[0]) < 3_600_000
    passed = (float(after[1]) - float(before[1])) * 1000
    assert passed >= 500
    assert abs(int(after[0]) - int(before[0]) - passed) < 400, (before, after)
    daxd.clear_faults()
    daxd.release()
    assert task.wait().stdout.strip() == "OK"
    assert (waiting(mounted), requests(mounted)) == (0, [])
    user.kill()
    user.wait()


def test_killed_and_parked(mounted):
    """A request whose task was killed is told from others, and so is one that has no room in the ring; the oldest come first."""
    guest, daxd = mounted.guest, mounted.daxd
    daxd.hold("LOOKUP")
    first = stat(mounted)
    daxd.wait_for_held()
    blocked(guest, first)
    first.kill()
    first.wait()
    # By names of their own, as tasks wait for each other's lookup of the same one.
    tasks = [stat(mounted, f"/mnt/absent{number}") for number in range(30)]
    seen = guest.wait_until(lambda: (now := requests(mounted)) and len(now) == 31 and now, "31 requests are listed")
    assert waiting(mounted) == 31
    states = [one["state"] for one in seen]
    sent = states.count("sent")
    assert states == ["abandoned"] + ["sent"] * sent + ["parked"] * (30 - sent)
    assert sent in (7, 15)
    assert sorted(one["unique"] for one in daxd.held()) == [one["unique"] for one in seen[: sent + 1]]
    ages = [one["age_ms"] for one in seen]
    assert ages == sorted(ages, reverse=True)
    assert {one["pid"] for one in seen[1:]} == {task.pid for task in tasks}
    daxd.clear_faults()
    daxd.wait_until(lambda counters: not daxd.release() and counters["requests"]["LOOKUP"] >= 31, "all are answered")
    assert all(task.wait().stdout.strip() == "ENOENT" for task in tasks)
    guest.wait_until(lambda: waiting(mounted) == 0, "nothing waits")


def test_long_list(mounted):
    """A queue's list has an end, and says what it leaves out."""
    guest, daxd = mounted.guest, mounted.daxd
    daxd.hold("READ")
    script = "import mmap, os, threading\nfd = os.open('/mnt/file', os.O_RDONLY | os.O_DIRECT)\n"
    script += "all = [threading.Thread(target=os.preadv, args=(fd, [mmap.mmap(-1, 4096)], 0)) for _ in range(140)]\n"
    task = guest.spawn_python(f"{script}[one.start() for one in all]\n[one.join() for one in all]")
    guest.wait_until(lambda: waiting(mounted) == 140, "140 requests wait")
    lines = guest.out(f"cat /sys/kernel/debug/virtiofs/{mounted.device()}/requests").split("\n")
    assert len(lines) == 1 + 128 + 1
    assert lines[-1] == "requests.0 and 12 more"
    daxd.clear_faults()
    daxd.wait_until(lambda counters: not daxd.release() and counters["requests"]["READ"] >= 140, "all are answered")
    assert task.wait().rc == 0


@pytest.mark.parametrize("what", ["LOOKUP", "READ", "SETATTR", "WRITE", "write-back", "parked"])
def test_abort(mounted, what):
    """abort ends what waits with ENOTCONN, and later calls, as umount -f; other devices go on, and a new mount begins anew. The log
    says so once, with the tag."""
    guest, daxd = mounted.guest, mounted.daxd
    guest.mount("daxd1", "/run/other")
    if what == "write-back":
        guest.umount()
        daxd.configure(init_flags="+WRITEBACK_CACHE")
        guest.mount("daxd")
    mark = len(guest.dmesg())
    daxd.hold({"parked": "LOOKUP", "write-back": "WRITE"}.get(what, what))
    script = {
        "WRITE": "os.pwrite(os.open('/mnt/other', os.O_WRONLY), b'new', 0)",
        "write-back": "fd = os.open('/mnt/other', os.O_WRONLY); os.pwrite(fd, b'new', 0); os.fsync(fd)",
        "READ": "os.pread(os.open('/mnt/file', os.O_RDONLY), 8, 0)",
        "SETATTR": "os.chmod('/mnt/other', 0o600)",
    }.get(what, "os.stat(f'/mnt/absent{os.getpid()}')")
    script = f"import errno, os\ntry:\n    {script}\n    print('OK')\nexcept OSError as e:\n    print(errno.errorcode[e.errno])"
    tasks = [guest.spawn_python(script) for _ in range(30 if what == "parked" else 1)]
    guest.wait_until(lambda: waiting(mounted) == len(tasks), "all wait")
    daxd.wait_for_held()
    guest.run(f"echo 1 >{directory(mounted)}/abort")
    for task in tasks:
        assert task.wait(timeout=15).stdout.strip() == "ENOTCONN"
    assert waiting(mounted) == 0
    assert {one["state"] for one in requests(mounted)} == {"aborted"}
    assert guest.run("stat /mnt/file", check=False).rc
    assert guest.run("stat /run/other/file").rc == 0
    lines = [line for line in guest.dmesg()[mark:].split("\n") if "virtiofs" in line]
    assert len(lines) == 1 and '"daxd": aborted by sysfs' in lines[0], lines
    if what in ("WRITE", "write-back"):
        # Nothing that others need is left locked.
        assert guest.run("cat /mnt/other; echo more >/mnt/other; sync", check=False, timeout=30).rc == 0
        daxd.configure(init_flags="")
    daxd.clear_faults()
    if what == "parked":
        # What the device has not returned takes up the whole ring.
        daxd.release()
    guest.mount("daxd", "/run/again")
    assert guest.run("stat /run/again/file").rc == 0
    guest.umount("/run/again")
    daxd.release()
    guest.wait_until(lambda: requests(mounted) == [], "the device returns them")
    guest.umount("/run/other")


def test_abort_of_a_mount_and_an_unmount(rig):
    """A mount that waits for INIT ends, and so does an unmount that waits for DESTROY."""
    guest, daxd = rig.guest, rig.daxd
    daxd.hold("INIT")
    mount = guest.spawn("exec mount -t virtiofs daxd /mnt")
    daxd.wait_for_held()
    assert [one["opcode"] for one in requests(rig)] == ["INIT"]
    guest.run(f"echo 1 >{directory(rig)}/abort")
    assert mount.wait(timeout=15).rc
    daxd.clear_faults()
    daxd.release()
    guest.mount("daxd")
    daxd.hold("DESTROY")
    umount = guest.spawn("exec umount /mnt")
    daxd.wait_for_held()
    assert [one["opcode"] for one in requests(rig)] == ["DESTROY"]
    guest.run(f"echo 1 >{directory(rig)}/abort")
    assert umount.wait(timeout=15).rc == 0
    daxd.clear_faults()
    daxd.release()
    guest.mount("daxd")
    guest.umount()
    rig.unmounted()


def test_reading_while_requests_come_and_go(mounted):
    """Who reads the list, the count and aborts has no part in what others do."""
    guest = mounted.guest
    guest.mount("daxd1", "/run/other")
    busy = "import os, sys, time\nuntil = time.monotonic() + 4\nwhile time.monotonic() < until:\n    [os.stat(f'/mnt/{n}') for n in ('file', 'other')]\n    open('/mnt/file').read()"
    tasks = [guest.spawn_python(busy) for _ in range(4)]
    read = f"cat /sys/kernel/debug/virtiofs/*/requests {directory(mounted)}/waiting"
    other = f"echo 1 >{directory(mounted, 1)}/abort"
    readers = [guest.spawn(f"while :; do {command} >/dev/null || exit 1; done") for command in (read, read, f"stat /run/other; {other}")]
    for task in tasks:
        assert task.wait().rc == 0, task.result
    for reader in readers[:2]:
        assert not reader.poll(), reader.result
    for reader in readers:
        reader.kill()
        reader.wait()
    guest.umount("/run/other")
    assert (waiting(mounted), requests(mounted)) == (0, [])


def test_unbind_while_it_is_read(rig):
    """A device that goes while its list is read and its sessions are ended takes its files with it."""
    guest = rig.guest
    guest.mount("daxd1", "/run/other")
    number = rig.device(1)
    device = guest.out(f"readlink -f /sys/fs/virtiofs/{number}/device")
    loop = f"while :; do cat /sys/kernel/debug/virtiofs/{number}/requests /sys/fs/virtiofs/{number}/waiting; echo 1 >/sys/fs/virtiofs/{number}/abort; done >/dev/null 2>&1"
    reader = guest.spawn(loop)
    for _ in range(5):
        guest.run(f"echo {device.rsplit('/', 1)[1]} >/sys/bus/virtio/drivers/virtiofs/unbind")
        assert guest.run(f"test -e /sys/fs/virtiofs/{number}", check=False).rc
        assert guest.run(f"test -e /sys/kernel/debug/virtiofs/{number}", check=False).rc
        guest.run(f"echo {device.rsplit('/', 1)[1]} >/sys/bus/virtio/drivers/virtiofs/bind")
    reader.kill()
    reader.wait()
    guest.umount("/run/other")
    assert rig.daxd.complaints() == []
