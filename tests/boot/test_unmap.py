# SPDX-License-Identifier: GPL-2.0
"""Shared mappings that end while the file is open elsewhere: what was stored through them is on the host."""

import pytest
from conftest import blocked

RIG = {}
SIZE = 1 << 20
PAGE = 4096

# With libc's calls, as Python's own mapping has a descriptor of its own, whose close writes back, too.
PRELUDE = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
for name in ("mmap", "mremap"):
    getattr(libc, name).restype = ctypes.c_void_p
def show(fd, length=1 << 20, flags=mmap.MAP_SHARED, where=None):
    area = libc.mmap(ctypes.c_void_p(where), ctypes.c_long(length), 3, flags, fd, ctypes.c_long(0))
    assert area != ctypes.c_void_p(-1).value
    return area
def hide(area, length=1 << 20):
    assert libc.munmap(ctypes.c_void_p(area), ctypes.c_long(length)) == 0
def store(area, at=0):
    ctypes.memmove(area + at, b"new", 3)
def in_child(action):
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
fd, area = os.open("/mnt/file", os.O_RDWR), None
"""


def files(tree):
    """What is shared."""
    tree.file("file", b"old" + bytes(SIZE - 3))


@pytest.fixture(params=["-WRITEBACK_CACHE", "+WRITEBACK_CACHE"], ids=["through", "back"])
def mounted(request, rig):
    """The share on /mnt."""
    files(rig.tree)
    rig.daxd.configure(init_flags=request.param, open_flags="KEEP_CACHE", attr_timeout=3600, entry_timeout=3600)
    rig.guest.mount("daxd", "/mnt")
    assert rig.hand.do(PRELUDE) == "OK"
    yield rig
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert rig.hand.do("os.close(fd); area and hide(area)") == "OK"
    rig.guest.umount("/mnt")
    rig.unmounted()


def on_host(rig, at=0):
    """Three bytes as the host sees them."""
    return (rig.tree / "file").read_bytes()[at : at + 3]


# How a mapping ends, or a part of it.
ENDS = {
    "munmap": "area = show(fd); store(area); hide(area)",
    "part": "area = show(fd); store(area); hide(area, 4096)",
    "another": "area = show(fd); store(area); show(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_FIXED, area)",
    "shrunk": f"area = show(fd); store(area, {SIZE - PAGE}); libc.mremap(ctypes.c_void_p(area), ctypes.c_long({SIZE}), ctypes.c_long({PAGE}), 0)",
    "inherited": "area = show(fd); store(area); in_child(lambda: hide(area))",
}


@pytest.mark.parametrize("how", ENDS)
def test_ends(mounted, how):
    """When the call returns that ends a mapping, what was stored through it is on the host; nobody has closed the file."""
    assert mounted.hand.do(ENDS[how].replace("mmap.MAP_FIXED", "16")) == "OK"
    assert on_host(mounted, SIZE - PAGE if how == "shrunk" else 0) == b"new"
    assert mounted.daxd.count("WRITE") == 1


# What a process does that got the descriptor from its parent, which keeps the file open.
LEAVES = {
    "exit": "area = show(fd); os.close(fd); store(area)",
    "exec": "area = show(fd); os.close(fd); store(area); os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("how", LEAVES)
def test_mapper_leaves(mounted, how):
    """So it is when the process exits or executes another program."""
    assert mounted.hand.do("def leave():\n    global fd, area\n    " + LEAVES[how]) == "OK"
    assert mounted.hand.do("in_child(leave)") == "OK"
    assert on_host(mounted) == b"new"
    assert (mounted.daxd.count("WRITE"), mounted.daxd.count("RELEASE")) == (1, 0)


def test_nothing_stored(mounted):
    """The end of a mapping through which nothing was stored costs nothing, nor does that of a private one."""
    statement = (
        "area = show(fd); other = show(fd, flags=mmap.MAP_PRIVATE)\n"
        "assert ctypes.string_at(area, 3) == b'old'; store(other); hide(other); hide(area)"
    )
    assert mounted.hand.do(statement) == "OK"
    assert mounted.daxd.count("WRITE") == mounted.daxd.count("SETATTR") == 0


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_killed(mounted):
    """Who is killed while a silent daemon keeps munmap(2) from returning ends; what was stored arrives later."""
    mounted.daxd.hold("WRITE")
    task = mounted.guest.spawn_python(PRELUDE + "area = show(fd)\nstore(area)\nhide(area)")
    mounted.daxd.wait_for_held()
    blocked(mounted.guest, task)
    task.kill()
    task.wait()
    mounted.daxd.clear_faults()
    mounted.daxd.release()
    mounted.guest.wait_until(lambda: on_host(mounted) == b"new", "what was stored is on the host")
