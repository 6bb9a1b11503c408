# SPDX-License-Identifier: GPL-2.0
"""A walk over far more files than the daemon may have open: the long form of test_descriptors.py."""

import pytest
from guest import Share
from test_descriptors import LIMIT, WALK, descriptors, used, using

FILES = 200_000


@pytest.mark.beyond_c("has ENFILE for programs, and gives nothing back")
def test_walk(boot, tree):
    """A walk over 200,000 files has no error and harms nobody, and a minute later the daemon has given back what it took."""
    for number in range(FILES):
        tree.file(f"tree/{number // 500}/{number}", "")
    used(tree)
    share = Share(tree.path, daemon_args=["--cache=auto", "--inode-file-handles=never", f"--rlimit-nofile={LIMIT}"])
    guest = boot(share)
    guest.mount("kataShared", "/mnt")
    with using(guest):
        start = descriptors(share)
        assert guest.python(WALK, "/mnt/tree", timeout=1800).stdout.strip() == str(FILES)
        guest.wait_until(lambda: descriptors(share) < start + 100, "the daemon has closed what it had open", timeout=60)
    guest.umount("/mnt")
