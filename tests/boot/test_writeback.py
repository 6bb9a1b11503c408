# SPDX-License-Identifier: GPL-2.0
"""Dirty pages: who may dirty them when, when they are written back, and who learns of it when they cannot be."""

import signal

from conftest import blocked

RIG = {}
PAGE = 4096

# Stores to a page that is mapped, as soon as it is told to.
STORE = """
import mmap, os, signal, sys, time
fd = os.open("/mnt/" + sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
at = int(sys.argv[2])
m[at]
open("/run/mapped", "w")
while not os.path.exists("/run/store"):
    time.sleep(0.01)
open("/run/storing", "w")
m[at] = ord("S")
if sys.argv[3:]:
    m.flush()
open("/run/stored", "w")
signal.pause()
"""


def files(tree):
    """What is shared."""
    tree.file("file", 2 * PAGE)
    tree.file("other", 2 * PAGE)


def wait_for(rig, path):
    """Waits until a file is there in the guest."""
    rig.guest.wait_until(lambda: rig.guest.run(f"test -e {path}", check=False).rc == 0, path)


def store_later(rig, name, at, *msync):
    """A process that has a page mapped, and stores to it when /run/store is there; with "msync" it writes it back then."""
    rig.guest.run("rm -f /run/mapped /run/store /run/storing /run/stored")
    task = rig.guest.spawn_python(STORE, name, at, *msync)
    wait_for(rig, "/run/mapped")
    return task


def store_now(rig, task):
    """Makes it store, and waits until it sleeps in that, or afterwards."""
    rig.guest.run("touch /run/store")
    wait_for(rig, "/run/storing")
    blocked(rig.guest, task)


def test_store_while_truncated_by_open(rig):
    """A store through a mapping during open(O_TRUNC) waits for it, and finds the page gone: the old bytes do not come back."""
    rig.tree.file("file", 2 * PAGE)
    rig.guest.mount("daxd", "/mnt")
    task = store_later(rig, "file", 0, "msync")
    rig.daxd.hold("OPEN")
    opener = rig.guest.spawn_python("import os; os.open('/mnt/file', os.O_WRONLY | os.O_TRUNC)")
    rig.daxd.wait_for_held()
    rig.daxd.clear_faults()
    store_now(rig, task)
    rig.daxd.release()
    assert opener.wait().rc == 0
    assert task.wait().rc == 128 + signal.SIGBUS
    assert (rig.tree / "file").read_bytes() == b""
    rig.guest.umount("/mnt")
    rig.unmounted()


def test_store_while_truncation_fails(rig):
    """A store through a mapping while a truncation waits for others' write-back is not lost when the truncation fails."""
    # In another folio than what is being written back.
    far = 1 << 20
    rig.tree.file("file", 2 * far)
    rig.guest.mount("daxd", "/mnt")
    task = store_later(rig, "file", far)
    rig.daxd.hold("WRITE")
    rig.daxd.set_fault("error", "SETATTR", errno="EIO")
    cutter = rig.guest.spawn_python(
        """
import mmap, os
fd = os.open("/mnt/file", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0] = ord("D")
try:
    os.ftruncate(fd, 100)
except OSError as error:
    print(error.errno)
"""
    )
    rig.daxd.wait_for_held()
    store_now(rig, task)
    rig.daxd.clear_fault(rig.daxd.faults()[0]["id"])
    rig.daxd.release()
    assert cutter.wait().stdout == "5\n"
    wait_for(rig, "/run/stored")
    task.kill()
    task.wait()
    data = (rig.tree / "file").read_bytes()
    assert (len(data), data[0], data[far]) == (2 * far, ord("D"), ord("S"))
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()
