# SPDX-License-Identifier: GPL-2.0
"""Loading, mounting, reading, unmounting and unloading, over and over, under the kernel's own watch."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import tree as trees
from conftest import TOP
from guest import Share

ROUNDS = 100

# In one process and by system calls: on the debug kernel a new process costs more than all the rest of a round.
ROUND = """
import ctypes, hashlib, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
rounds, modules = int(sys.argv[1]), sys.argv[2:]
def must(rc):
    if rc:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
sums = []
for _ in range(rounds):
    for module in modules:
        fd = os.open(module, os.O_RDONLY)
        must(libc.syscall(313, fd, b"", 0))
        os.close(fd)
    must(libc.mount(b"tag", b"/mnt", b"virtiofs", ctypes.c_ulong(0), None))
    total = hashlib.sha256()
    for directory, names, files in sorted(os.walk("/mnt")):
        for name in sorted(files):
            with open(os.path.join(directory, name), "rb") as file:
                total.update(file.read())
    sums.append(total.hexdigest())
    must(libc.umount2(b"/mnt", 0))
    for module in reversed(modules):
        must(libc.syscall(176, os.path.basename(module).partition(".")[0].encode(), os.O_NONBLOCK))
print(json.dumps(sums))
"""

# Objects younger than five seconds are not reported, and one scan alone may see a stale pointer.
SCAN = "sleep 6; echo scan >/sys/kernel/debug/kmemleak; sleep 6; echo scan >/sys/kernel/debug/kmemleak; cat /sys/kernel/debug/kmemleak"


def planted_leak(kernel_build, directory):
    """Builds a module that leaks on purpose; returns it."""
    source = directory / "leak"
    source.mkdir()
    for name in ("Kbuild", "leak.c"):
        (source / name).write_bytes((TOP / "tests/boot/leak" / name).read_bytes())
    command = ["make", "-C", kernel_build, f"M={source}", "ARCH=x86_64", "LLVM=1", "modules"]
    subprocess.run(command, check=True, capture_output=True)
    return source / "leak.ko"


def test_rounds(boot, tree, kernel, tmp_path):
    """A hundred rounds of insmod, mount, read, umount and rmmod: same bytes each time, no report of KASAN, lockdep or kmemleak."""
    for number in range(20):
        tree.file(f"dir{number % 4}/file{number}", trees.content(1000 * number, number))
    # More memory than others: the leak detector has an object for each of the kernel's.
    guest = boot(Share(tree.path, "tag"), load=False, kmemleak=True, memory="2G")
    modules = [line.split()[1] for line in guest.out("modprobe --show-depends virtiofs").splitlines() if line.startswith("insmod")]
    sums = guest.value(ROUND, ROUNDS, *modules, timeout=900)
    expected = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(tree.path.rglob("file*")))).hexdigest()
    assert sums == [expected] * ROUNDS
    if kernel != "debug":
        return
    leaks = guest.run(SCAN, timeout=240).stdout
    assert "unreferenced" not in leaks, leaks
    # An empty report proves nothing by a detector that sees nothing: now it has to see a leak that is there.
    build = Path(os.path.realpath(guest_kernel_build(kernel)))
    guest.put(planted_leak(build, tmp_path).read_bytes(), "/run/leak.ko")
    guest.run("insmod /run/leak.ko")
    guest.expected.append("kmemleak: .* new suspected")
    found = guest.run(SCAN, timeout=240).stdout
    guest.run("rmmod leak")
    assert "leak_on_purpose" in found, f"the leak detector does not see a planted leak:\n{found}"


def guest_kernel_build(kernel):
    """The build directory of a guest kernel."""
    import kernel as kernels  # pylint: disable=import-outside-toplevel

    return kernels.build_kernel(kernel)


@pytest.mark.parametrize("share_count", [1, 3])
def test_loading_rounds(boot, tree, share_count):
    """Loading and unloading with devices that nobody mounts leaves nothing."""
    guest = boot(*(Share(tree.path, f"tag{number}") for number in range(share_count)), load=False)
    guest.run("for i in $(seq 30); do modprobe virtiofs && modprobe -r virtiofs || exit 1; done", timeout=240)
    assert guest.run("test -e /sys/fs/virtiofs", check=False).rc == 1
