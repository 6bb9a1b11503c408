# SPDX-License-Identifier: GPL-2.0
"""This driver and the kernel's own, one after the other in one guest: what programs see differs as is documented, and only so."""

from pathlib import Path

import differences
import pytest
from guest import Share

OBSERVE = (Path(__file__).resolve().parent / "observe.py").read_text(encoding="utf-8")
IN_TREE = '"/lib/modules/$(uname -r)/kernel/fs/fuse/virtiofs.ko"'
LOAD = {"this driver": "modprobe virtiofs", "C client": f"modprobe fuse && insmod {IN_TREE}"}
UNLOAD = {"this driver": "rmmod virtiofs", "C client": "rmmod virtiofs fuse"}
DAEMONS = {
    "auto": ["--cache=auto", "--xattr"],
    "never": ["--cache=never"],
    "always": ["--cache=always", "--xattr", "--allow-direct-io"],
    "acl": ["--cache=auto", "--posix-acl", "--killpriv-v2"],
}


@pytest.mark.ours("compares both")
@pytest.mark.parametrize("daemon", DAEMONS)
def test_differences(boot, tree, daemon):
    """Some four hundred observations are the same with both drivers, but for those that Documentation/differences.md lists."""
    guest = boot(Share(tree.path, "share", daemon_args=DAEMONS[daemon]), load=False)
    guest.put(OBSERVE, "/run/observe.py")
    tables = {}
    for driver, load in LOAD.items():
        guest.run(load)
        # Which of the two is there.
        assert (guest.run("grep -q '^fuse ' /proc/modules", check=False).rc == 0) == (driver == "C client")
        guest.mount("share")
        guest.run("mkdir /run/elsewhere && mount -t tmpfs tmpfs /run/elsewhere")
        tables[driver] = guest.value(OBSERVE, "/mnt/here", "/run/elsewhere", timeout=120)
        guest.run("umount /run/elsewhere && rmdir /run/elsewhere && rm -r /mnt/here")
        guest.umount()
        guest.run(UNLOAD[driver])
    ours, theirs = tables["this driver"], tables["C client"]
    assert list(ours) == list(theirs)
    found = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    wanted = differences.between_drivers(daemon)
    names = found.keys() | wanted.keys()
    wrong = {name: (found.get(name), wanted.get(name)) for name in names if found.get(name) != wanted.get(name)}
    assert not wrong, f"seen (this driver, C client), documented: {wrong}"
