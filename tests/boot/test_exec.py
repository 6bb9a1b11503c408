# SPDX-License-Identifier: GPL-2.0
"""Programs that run from the share."""

import shutil

import pytest
import tree as trees
from conftest import CACHES
from guest import Share


@pytest.mark.parametrize("cache", CACHES)
def test_exec(boot, tree, cache):
    """Programs and scripts run from the share, cold and warm, and many at a time; what is no program does not."""
    shutil.copy("/bin/busybox", tree / "busybox")
    tree.file("script.sh", "#!/bin/sh\necho script ran with $1\n").chmod(0o755)
    tree.file("garbage", trees.content(5000)).chmod(0o755)
    tree.file("not-executable", "x")
    guest = boot(Share(tree.path, "tag", daemon_args=[f"--cache={cache}"]), programs=True)
    guest.mount("tag")
    for _ in range(5):
        assert guest.out("/mnt/busybox echo from the share") == "from the share"
        assert guest.out("/mnt/script.sh argument") == "script ran with argument"
        guest.run("echo 3 >/proc/sys/vm/drop_caches")
    assert guest.out("for i in 1 2 3 4 5 6 7 8; do /mnt/busybox echo $i & done | sort; wait").split() == list("12345678")
    assert guest.run("/mnt/garbage", check=False).rc in (126, 127, 2)
    assert guest.run("/mnt/not-executable", check=False).rc == 126
    guest.umount()
