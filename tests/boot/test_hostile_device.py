# SPDX-License-Identifier: GPL-2.0
"""Devices that cannot be, and mounts that nobody can mean: each is refused with an errno and one line that says why."""

import pytest
from conftest import mount_errno

DRIVER = "/sys/bus/virtio/drivers/virtiofs"


def files(tree):
    """What is shared."""
    tree.file("file", "content\n")


def own_lines(guest):
    """Lines of the driver and of its devices in the kernel's log, without that of the driver core that a probe failed."""
    lines = [line.partition("] ")[2].rstrip() for line in guest.dmesg().split("\n")]
    return [line for line in lines if line.startswith("virtiofs") and "taints kernel" not in line and "probe with driver" not in line]


def bound(guest):
    """Devices that are bound to the driver."""
    return guest.run(f"ls -d {DRIVER}/virtio*", check=False).stdout.split()


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0hidden", b"a\nb", b"\n", b"x" * 35 + b"\n"],
    ids=["empty", "nul-first", "newline", "only-newline", "newline-at-end"],
)
def test_bad_tag(boot_rig, raw):
    """A tag that is empty or has a newline: the device is refused with one line, and nothing of it is in sysfs."""
    rig = boot_rig(files=files, daxd={"raw_tag": raw.ljust(36, b"\0").hex()})
    guest = rig.guest
    assert bound(guest) == []
    lines = own_lines(guest)
    assert len(lines) == 1 and "a tag must have 1 to 36 bytes and no newline" in lines[0], lines
    assert guest.out("ls -A /sys/fs/virtiofs") == ""
    assert mount_errno(guest, "a") == "EINVAL"
    guest.unload()


def test_longest_tag(boot_rig):
    """A tag of 36 bytes, with no NUL after it, is a tag."""
    raw = b"0123456789" * 3 + b"\xff\xc3\xbc,=z"
    rig = boot_rig(files=files, daxd={"raw_tag": raw.hex()})
    guest = rig.guest
    number = guest.out("ls /sys/fs/virtiofs")
    assert guest.get(f"/sys/fs/virtiofs/{number}/tag") == raw + b"\n"
    script = "import ctypes; print(ctypes.CDLL(None).mount(bytes.fromhex('%s'), b'/mnt', b'virtiofs', 0, None))"
    assert guest.python(script % raw.hex()).stdout == "0\n"
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_duplicate_tag(boot_rig):
    """The second device with a tag is refused with EEXIST and a line; the first works; when it is gone, the second can be bound."""
    rig = boot_rig(files=files, shares=2, daxd={"tag": "twin"})
    guest = rig.guest
    mine = bound(guest)
    assert len(mine) == 1
    assert "failed with error -17" in guest.dmesg()
    assert [line for line in own_lines(guest) if '"twin": another device has this tag' in line]
    guest.mount("twin")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()
    first = mine[0].rsplit("/", 1)[1]
    ids = guest.out("grep -l 0x001a /sys/bus/virtio/devices/*/device | cut -d/ -f6").split()
    second = next(name for name in ids if name != first)
    assert guest.run(f"echo {second} >{DRIVER}/bind", check=False).rc != 0
    guest.run(f"echo {first} >{DRIVER}/unbind; echo {second} >{DRIVER}/bind")
    guest.mount("twin")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_no_request_queue(boot_rig):
    """A device without request queue is refused with a line that names the tag."""
    rig = boot_rig(files=files, daxd={"config_queues": 0})
    assert bound(rig.guest) == []
    lines = own_lines(rig.guest)
    assert len(lines) == 1 and '"daxd": the device has no request queue' in lines[0], lines
    assert mount_errno(rig.guest, "daxd") == "EINVAL"


@pytest.mark.parametrize("claimed", [1000, 0xFFFFFFFF])
def test_too_many_request_queues(boot_rig, claimed):
    """Of a device that claims many request queues no more are used than there are CPUs, and all work."""
    rig = boot_rig(files=files, daxd={"config_queues": claimed, "queues": 4}, cpus=3)
    guest = rig.guest
    number = rig.device()
    assert guest.out(f"cat /sys/fs/virtiofs/{number}/mqs/*/name").split() == [
        "hiprio", "requests.0", "requests.1", "requests.2"
    ]
    guest.mount("daxd")
    for cpu in range(3):
        assert guest.out(f"taskset -c {cpu} cat /mnt/file") == "content"
    used = [queue["requests"] > 0 for queue in rig.daxd.counters()["queues"]]
    assert used[1:4] == [True] * 3, used
    guest.umount()
    rig.unmounted()


def test_fewer_queues_than_claimed(boot_rig):
    """A device that claims a queue that it does not have is refused; nothing hangs, and the module unloads."""
    rig = boot_rig(files=files, daxd={"config_queues": 3, "queues": 1}, cpus=4)
    assert bound(rig.guest) == []
    lines = own_lines(rig.guest)
    assert len(lines) == 1 and '"daxd": its 4 queues cannot be set up' in lines[0], lines
    rig.guest.unload()


def test_bad_options(boot_rig):
    """Options that are unknown, or have a value that cannot be, are EINVAL; the mount after that works."""
    rig = boot_rig(files=files)
    guest = rig.guest
    bad = [
        "nonsense", "dax=sometimes", "dax=", "dax=ALWAYS", "dax=always", "dax", "tag", "tag=other", "rootmode=9", "rootmode=x",
        "user_id=-1", "user_id=4294967296", "group_id=x", "group_id", "cache=auto", "max_read=4096", "fd=3", "default_permissions=1",
    ]
    for data in bad:
        assert mount_errno(guest, "daxd", data=data) == "EINVAL", data
    assert mount_errno(guest, "daxd\nx") == "EINVAL"
    assert rig.daxd.count("INIT") == 0
    assert mount_errno(guest, "daxd", data="dax=never,rootmode=40000,user_id=4294967295") == "OK"
    assert guest.out("cat /run/try/file") == "content"
    guest.umount("/run/try")
    rig.unmounted()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_small_rings(boot_rig, size):
    """A ring with few entries: it works with requests of few pages, or is refused at the mount; nothing hangs."""
    rig = boot_rig(files=lambda tree: tree.file("file", 300000), daxd={"queue_size": size}, settings={"trace": 0})
    guest = rig.guest
    how = mount_errno(guest, "daxd", where="/mnt")
    if how == "OK":
        assert guest.out("cat /mnt/file | wc -c") == "300000"
        # No request has more segments than the ring has entries.
        assert rig.daxd.count("READ") >= 300_000 / (4096 * size)
        guest.umount()
        rig.unmounted()
    else:
        assert size == 2 and '"daxd"' in "".join(own_lines(guest))
