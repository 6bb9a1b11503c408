# SPDX-License-Identifier: GPL-2.0
"""Loading, mounting, reading, unmounting and unloading, over and over, under the kernel's own watch."""

import os
import subprocess
from pathlib import Path

import pytest
import tree as trees
from conftest import TOP
from guest import Share

ROUNDS = 100

ROUND = """
set -e
for round in $(seq {rounds}); do
    modprobe virtiofs
    mount -t virtiofs tag /mnt
    find /mnt -type f | sort | xargs cat | sha256sum
    ls -lR /mnt >/dev/null
    umount /mnt
    modprobe -r virtiofs
done
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
    # So many objects that the leak detector's own pool is not used up.
    guest = boot(Share(tree.path, "tag"), load=False, kmemleak=True, memory="2G")
    result = guest.run(ROUND.format(rounds=ROUNDS), timeout=900)
    sums = result.stdout.split("\n")[:ROUNDS]
    assert len(sums) == ROUNDS and len(set(sums)) == 1
    assert "not tainted" not in sums
    if kernel != "debug":
        return
    leaks = guest.run(SCAN, timeout=240).stdout
    mine = [block for block in leaks.split("unreferenced object") if "virtiofs" in block or "modprobe" in block]
    assert not mine, leaks
    # An empty report proves nothing by a detector that sees nothing: now it has to see a leak that is there.
    build = Path(os.path.realpath(guest_kernel_build(kernel)))
    guest.put(planted_leak(build, tmp_path).read_bytes(), "/run/leak.ko")
    guest.run("insmod /run/leak.ko; rmmod leak")
    guest.expected.append("kmemleak: .* new suspected")
    found = guest.run(SCAN, timeout=240).stdout
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
