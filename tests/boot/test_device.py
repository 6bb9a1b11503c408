# SPDX-License-Identifier: GPL-2.0
"""Devices: what sysfs and uevents show, and what happens when a device comes, goes, or is taken from the driver."""

import json

import pytest
from conftest import device_of, errno_of, mount_errno
from guest import Share

SYSFS = "/sys/fs/virtiofs"

# Prints the uevents of the next seconds that name virtiofs, until the file /run/enough exists.
LISTEN = """
import json, os, select, socket
listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
listener.bind((0, 1))
open("/run/listening", "w")
events = []
while not os.path.exists("/run/enough"):
    if select.select([listener], [], [], 0.1)[0]:
        fields = listener.recv(65536).decode().split("\\0")
        events.append(dict(field.split("=", 1) for field in fields if "=" in field))
print(json.dumps([event for event in events if "/fs/virtiofs/" in event["DEVPATH"]]))
"""


def uevents(guest, *commands):
    """Runs commands in the guest and returns the uevents under /fs/virtiofs that they caused."""
    guest.run("rm -f /run/listening /run/enough")
    listener = guest.spawn_python(LISTEN)
    guest.wait_until(lambda: guest.run("test -e /run/listening", check=False).rc == 0, "the listener listens")
    for command in commands:
        guest.run(command)
    # Events are sent before the command that causes them returns.
    guest.run("touch /run/enough")
    result = listener.wait()
    assert result.rc == 0, result
    return json.loads(result.stdout)


def test_sysfs(boot, tree):
    """/sys/fs/virtiofs/<n> has tag, device and mqs, as the C driver shows them; all of it goes with the module."""
    guest = boot(Share(tree.path, "one"), Share(tree.path, "two"), cpus=3)
    names = guest.out(f"ls {SYSFS}").split()
    assert len(names) == 2
    assert sorted(guest.out(f"cat {SYSFS}/*/tag").split("\n")) == ["one", "two"]
    for name in names:
        here = f"{SYSFS}/{name}"
        device = guest.out(f"readlink -f {here}/device")
        assert guest.out(f"cat {device}/device") == "0x001a"
        assert device.endswith(f"/virtio{name}")
        queues = guest.out(f"cd {here}/mqs; for q in *; do echo $q $(cat $q/name); done").split("\n")
        assert queues == ["0 hiprio", "1 requests.0"]
        assert guest.out(f"cat {here}/mqs/1/cpu_list") == "0, 1, 2"
        assert guest.out(f"stat -c %a {here}/tag {here}/mqs/1/name {here}/mqs/1/cpu_list").split() == ["444"] * 3
    guest.unload()
    assert guest.run(f"test -e {SYSFS}", check=False).rc == 1


def test_tag_file(boot, tree):
    """The tag file holds the tag and a newline, byte for byte."""
    guest = boot(Share(tree.path, "kata Shared"))
    assert guest.get(f"{SYSFS}/{guest.out(f'ls {SYSFS}')}/tag") == b"kata Shared\n"


def test_uevents(boot, tree):
    """A device that comes and goes is announced under /fs/virtiofs with its TAG=, which udev rules use."""
    guest = boot(Share(tree.path, "kataShared"), load=False)
    came = uevents(guest, "modprobe virtiofs")
    number = guest.out(f"ls {SYSFS}")
    assert [(event["ACTION"], event["DEVPATH"], event["TAG"]) for event in came if event["DEVPATH"].endswith(number)] == [
        ("add", f"/fs/virtiofs/{number}", "kataShared")
    ]
    assert all(event["SUBSYSTEM"] == "virtiofs" for event in came)
    again = uevents(guest, f"echo change >{SYSFS}/{number}/uevent") if guest.run(
        f"test -e {SYSFS}/{number}/uevent", check=False
    ).rc == 0 else []
    assert all(event["TAG"] == "kataShared" for event in again)
    went = uevents(guest, "modprobe -r virtiofs")
    assert ("remove", f"/fs/virtiofs/{number}", "kataShared") in [
        (event["ACTION"], event["DEVPATH"], event.get("TAG")) for event in went
    ]


def test_duplicate_tag(boot, tree):
    """Of two devices with one tag the second is refused with a line that names the tag; the first works."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "twin"), Share(tree.path, "twin"))
    assert guest.out(f"cat {SYSFS}/*/tag") == "twin"
    bound = guest.out("ls -d /sys/bus/virtio/drivers/virtiofs/virtio*").split()
    assert len(bound) == 1
    assert "twin" in guest.dmesg()
    guest.mount("twin")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_tag_with_newline(boot, tree, driver):
    """A tag with a newline cannot be shown in sysfs, so its device is refused with a line in the log."""
    guest = boot(Share(tree.path, "two\nlines"))
    assert guest.run("ls -d /sys/bus/virtio/drivers/virtiofs/virtio*", check=False).rc != 0
    # The driver core says that probing failed; why, the driver itself has to say.
    assert driver == "c" or "tag" in guest.out("dmesg | grep virtio | grep -v 'failed with error'")
    assert mount_errno(guest, "two\nlines") == "EINVAL"


def test_unbind_while_mounted(boot, tree):
    """Unbinding a mounted device gives errors to callers, no hang; umount works, and rebind and mount work again."""
    tree.file("file", "content\n")
    tree.file("other", "content\n")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    name = device_of(guest, "tag").rsplit("/", 1)[1]
    guest.run(f"echo {name} >/sys/bus/virtio/drivers/virtiofs/unbind")
    assert errno_of(guest, "os.stat('/mnt/other')") in ("ENODEV", "ENOTCONN")
    assert errno_of(guest, "os.statvfs('/mnt')") in ("ENODEV", "ENOTCONN")
    assert errno_of(guest, "os.listdir('/mnt')") in ("ENODEV", "ENOTCONN")
    assert guest.out(f"ls -A {SYSFS}") == ""
    assert mount_errno(guest, "tag") in ("EINVAL", "ENODEV")
    guest.umount()
    guest.run(f"echo {name} >/sys/bus/virtio/drivers/virtiofs/bind")
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_rebind_rounds(boot, tree):
    """Twenty rounds of bind, mount, read, umount and unbind leave a device that works."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"))
    name = device_of(guest, "tag").rsplit("/", 1)[1]
    guest.run(
        "set -e; cd /sys/bus/virtio/drivers/virtiofs; for i in $(seq 20); do mount -t virtiofs tag /mnt; cat /mnt/file; umount /mnt;"
        f" echo {name} >unbind; echo {name} >bind; done",
        timeout=120,
    )
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_hot_plug(boot, tmp_path, tree):
    """A device that is unplugged leaves sysfs, and a mount of it gives errors and unmounts."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "stays"), Share(tree.path, "goes", hotplug=True))
    guest.mount("stays", "/run/stays")
    guest.mount("goes", "/run/goes")
    assert guest.out("cat /run/goes/file") == "content"
    guest.monitor.call("device_del", id="fs1")
    # The file may go between its listing and its opening.
    left = f"cat {SYSFS}/*/tag"
    guest.wait_until(lambda: guest.run(left, check=False).stdout == "stays\n", "the device is gone")
    assert errno_of(guest, "os.statvfs('/run/goes')") in ("ENODEV", "ENOTCONN")
    guest.umount("/run/goes")
    assert guest.out("cat /run/stays/file") == "content"
    guest.umount("/run/stays")
    guest.unload()


@pytest.mark.parametrize("cpus", [1, 4])
def test_all_cpus_reach_the_device(boot, tree, cpus):
    """Requests from every CPU are answered, with one queue for all of them."""
    for cpu in range(cpus):
        tree.file(f"file{cpu}", f"{cpu}\n")
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=never"]), cpus=cpus)
    guest.mount("tag")
    for cpu in range(cpus):
        assert guest.out(f"taskset -c {cpu} cat /mnt/file{cpu}") == str(cpu)
    assert guest.out("cat /sys/fs/virtiofs/*/mqs/1/cpu_list") == ", ".join(map(str, range(cpus)))
    guest.umount()
