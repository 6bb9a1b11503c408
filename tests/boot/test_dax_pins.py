# SPDX-License-Identifier: GPL-2.0
"""Pages of the window that somebody has pinned, as a pipe does with those it was given by vmsplice(2): who needs them gone waits."""

import signal

import pytest
from conftest import blocked, running
from test_dax_modes import PIN, maps, same

MEG = 1 << 20
RIG = {"daxd": {"window": "16M", "queues": 2}, "settings": {"attr_timeout": 60, "entry_timeout": 60}}


def files(tree):
    """What is shared."""
    tree.file("other", 3 * MEG, seed=1)
    tree.file("huge", 40 * MEG)


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with all files in the window; afterwards nothing is mapped."""
    files(rig.tree)
    rig.guest.mount("daxd", options="dax=always")
    yield rig
    rig.guest.umount()
    assert maps(rig) == 0
    rig.unmounted()


# Reads a page, has the pipe /run/pins hold it, and then has the kernel copy to the range that shows it, which is read-only so far.
COPIES = """
import signal
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
area = mmap.mmap(os.open("/mnt/other", os.O_RDWR), 0)
area[0]
pin(area, 0, 4096, os.open("/run/pins", os.O_RDWR))
reader, writer = os.pipe()
os.write(writer, b"copied")
assert os.readv(reader, [memoryview(area)[8192:8198]]) == 6
assert seen == ["alarm"]
"""


@pytest.fixture
def pins(mounted):
    """A pipe with a name, in which pages can be left; they go with it. Nobody else has it open."""
    mounted.guest.run("rm -f /run/pins; mkfifo /run/pins")
    # Somebody has to keep it open, or its pages would go with a task that is killed.
    keeper = mounted.guest.spawn("exec sleep 1000 <>/run/pins")
    yield "/run/pins"
    keeper.kill()
    keeper.wait()


@pytest.mark.parametrize("killed", [False, True], ids=["drained", "killed"])
def test_signal_while_a_page_is_pinned(mounted, pins, killed):
    """A range is made writable when its pages are not pinned any more: until then a page fault sleeps, and only what ends the task ends
    that, also where the kernel copies to the mapping."""
    guest = mounted.guest
    before = (mounted.tree / "other").read_bytes()
    task = guest.spawn_python(PIN + COPIES)
    blocked(guest, task)
    task.kill(signal.SIGALRM)
    blocked(guest, task)
    if killed:
        task.kill()
        assert task.wait().rc == 128 + signal.SIGKILL
    guest.run(f"head -c 4096 {pins} >/dev/null")
    if not killed:
        result = task.wait()
        assert result.rc == 0, result
    after = (mounted.tree / "other").read_bytes()
    assert after == (before if killed else before[:8192] + b"copied" + before[8198:])
    assert same(mounted, "other")
