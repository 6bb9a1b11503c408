# SPDX-License-Identifier: GPL-2.0
"""Ranges of the window that are given back: because nobody uses them, memory is short, or their file goes; and what it counts."""

import pytest
from test_dax_modes import WINDOW, maps, window

MEG = 1 << 20
RIG = {"daxd": {"window": "64M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}
FILE = 40 * MEG


def files(tree):
    """What is shared."""
    tree.file("huge", FILE)
    tree.file("other", MEG)


@pytest.fixture
def guest(rig):
    """The guest, where files are in the window; afterwards nothing is mapped."""
    files(rig.tree)
    rig.guest.mount("daxd", options="dax=always")
    yield rig.guest
    rig.daxd.clear_faults()
    rig.daxd.release()
    rig.guest.umount()
    assert rig.daxd.counters()["live"]["maps"] == 0
    rig.unmounted()


def ready(guest, program):
    """Starts a program that makes /tmp/ready when it has done its work, and waits for that."""
    guest.run("rm -f /tmp/ready")
    process = guest.spawn_python(program)
    guest.wait_until(lambda: guest.run("test -e /tmp/ready", check=False).rc == 0, "the program is ready")
    return process


def opened(guest, name):
    """A process that has a file open, so that its inode stays."""
    return ready(guest, f"import time\nfile = open('/mnt/{name}', 'rb')\nopen('/tmp/ready', 'w').close()\ntime.sleep(1000)")


def closed(holder):
    """Ends it."""
    holder.kill()
    holder.wait()


def test_counters(rig, guest):
    """What the window counts is what the daemon has seen; without a mount there is nothing to count."""
    guest.run("cat /mnt/huge >/dev/null; head -c 100 /mnt/other >/dev/null")
    ours, theirs = window(guest), rig.daxd.counters()["dax"]
    assert ours["mapped"] == theirs["setup"] == ours["ranges"] == maps(rig) > 10
    assert ours["usable_bytes"] == 64 * MEG
    assert ours["usable_bytes"] - ours["free_bytes"] == ours["ranges_of_2048k"] * 2 * MEG + ours["ranges_of_1024k"] * MEG
    assert ours["ranges_of_2048k"] * 2 * MEG == FILE and ours["ranges_of_1024k"] == 1
    assert ours["hits"] > ours["misses"] > 0 and ours["proposed_ahead"] > 0
    assert (ours["faults"], ours["failed"], ours["removed"], ours["ranges_retired"], ours["unable"]) == (0, 0, 0, 0, 0)
    guest.python(
        """
import mmap, os
with open("/mnt/huge", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
    sum(m[at] for at in range(0, 8 << 20, 2 << 20))
"""
    )
    assert window(guest)["faults"] >= 4
    assert window(guest)["remapped"] == 0
    guest.python("import mmap, os; mmap.mmap(os.open('/mnt/other', os.O_RDWR), 0)[5] = 1")
    assert window(guest)["remapped"] == 1
    assert window(guest)["bypassed_writes"] == 0
    guest.run("echo longer >>/mnt/other")
    assert window(guest)["bypassed_writes"] == 1
    guest.umount()
    assert guest.out(WINDOW) == "unused"
    guest.mount("daxd", options="dax=always")
    assert window(guest)["hits"] == 0


def test_run_of_faults(rig, guest):
    """Who touches one part of a mapping after the other finds the next one mapped; who goes back, or here and there, asks for no more."""
    touch = """
import mmap, time
file = open("/mnt/huge", "rb")
m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for part in {}:
    m[part << 21]
open("/tmp/ready", "w").close()
time.sleep(1000)
"""
    runner = ready(guest, touch.format([0, 1]))
    guest.wait_until(lambda: maps(rig) == 3, "the third part is mapped, too")
    assert window(guest)["proposed_ahead"] == 1
    others = ready(guest, touch.format([12, 11, 10, 15, 5]))
    assert window(guest)["proposed_ahead"] == 1 and maps(rig) == 8
    closed(runner)
    closed(others)


def test_refusals_are_counted(rig, guest):
    """A SETUPMAPPING that fails is counted, and so is what then goes by requests."""
    rig.daxd.set_fault("error", "SETUPMAPPING", errno="EIO", count=1)
    guest.run("dd if=/mnt/other of=/dev/null bs=4096 count=3 status=none")
    ours = window(guest)
    # The first read found out, and the others did not ask again.
    assert (ours["failed"], ours["bypassed_reads"]) == (1, 3)


def test_memory_is_short(rig, guest):
    """Ranges of a file that is open go, too, when memory is short and nobody has used them lately; those of a mapping stay."""
    holder = opened(guest, "huge")
    mapper = ready(
        guest,
        """
import mmap, time
file = open("/mnt/other", "rb")
m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
assert m[4096] >= 0
open("/tmp/ready", "w").close()
time.sleep(1000)
""",
    )
    guest.run("cat /mnt/huge >/dev/null")
    assert maps(rig) > 10
    rig.daxd.reset_counters()

    def shrunk():
        guest.run("echo 2 >/proc/sys/vm/drop_caches")
        return maps(rig) == 1

    guest.wait_until(shrunk, "all ranges but that of the mapping are gone")
    # Several went with each request.
    assert rig.daxd.count("REMOVEMAPPING") < 15
    assert window(guest)["reclaimed"] >= FILE // (2 * MEG)
    assert window(guest)["cancelled"] > 0
    closed(mapper)
    closed(holder)


def test_unused_for_long(rig, guest):
    """Without anybody asking, ranges go that were not used for a minute or so."""
    holder = opened(guest, "huge")
    guest.run("cat /mnt/huge >/dev/null")
    assert maps(rig) > 10
    rig.daxd.wait_until(lambda counters: counters["live"]["maps"] == 0, "nothing is mapped", timeout=300)
    guest.run("cat /mnt/huge >/dev/null")
    assert maps(rig) > 10
    closed(holder)


def test_ranges_go_together(rig, guest):
    """The ranges of a file that is removed go with a few requests."""
    guest.run("cat /mnt/huge >/dev/null")
    assert maps(rig) == FILE // (2 * MEG)
    rig.daxd.reset_counters()
    guest.run("rm /mnt/huge")
    rig.daxd.wait_until(lambda counters: counters["live"]["maps"] == 0, "nothing is mapped")
    assert rig.daxd.count("REMOVEMAPPING") == 2


def test_a_write_that_maps_holds_up_nobody(rig, guest):
    """While a write waits for its range, and so for the daemon, others read and write the same file."""
    byte = "printf {} | dd of=/mnt/huge bs=1 seek=50 conv=notrunc status=none"
    guest.run(byte.format("w"))
    before = maps(rig)
    rig.daxd.hold("SETUPMAPPING")
    writer = guest.spawn("printf written | dd of=/mnt/huge bs=7 seek=3000000 conv=notrunc status=none")
    rig.daxd.wait_for_held()
    guest.run("head -c 100 /mnt/huge >/dev/null", timeout=20)
    guest.run(byte.format("x"), timeout=20)
    assert not writer.poll()
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert writer.wait().rc == 0
    assert maps(rig) == before + 1
    with open(rig.tree / "huge", "rb") as file:
        assert file.read(51)[50:] == b"x"
        file.seek(21_000_000)
        assert file.read(7) == b"written"


def test_short_writes(rig, guest):
    """Of a write in parts, of which the daemon takes only some of one, the rest is not written to the wrong place."""
    rig.daxd.set_fault("set", "WRITE", fields={"write.size": 1000}, count=1)
    guest.python(
        """
import os
fd = os.open("/mnt/other", os.O_WRONLY | os.O_APPEND)
data = bytes(range(256)) * (3 << 12)
done = os.write(fd, data)
assert done == 1000, done
while done < len(data):
    done += os.write(fd, data[done:])
"""
    )
    # The daemon has taken all of the first part, however long that was, and whatever it said.
    data = bytes(range(256)) * (3 << 12)
    got = (rig.tree / "other").read_bytes()[MEG:]
    first = len(got) - len(data[1000:])
    assert 1000 < first <= MEG
    assert got == data[:first] + data[1000:]
