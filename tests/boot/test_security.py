# SPDX-License-Identifier: GPL-2.0
"""Security contexts of what is made (SECURITY_CTX). The guest's kernels have no security module that gives one."""

import os

import pytest
from guest import Share

MAKE = """
import os
os.chdir("/mnt")
with open("file", "w") as file: file.write("text")
os.mkdir("dir"); os.mkfifo("dir/fifo"); os.symlink("file", "link"); os.link("file", "other")
assert open("other").read() == "text" and os.readlink("link") == "file"
assert sorted(os.listdir(".")) == ["dir", "file", "link", "other"]
"""


def test_virtiofsd(boot, tree):
    """virtiofsd --security-label is content with requests that bring no context."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--security-label"]))
    guest.mount("tag")
    guest.python(MAKE)
    guest.umount()
    assert not [name for name in os.listxattr(tree / "file") if name.startswith("security.")]


RIG = {}


def files(tree):
    """An empty directory."""
    tree.path.chmod(0o777)


@pytest.mark.parametrize("agreed", [True, False])
def test_requests(rig, agreed):
    """Where it was agreed on, each request that makes something says how many contexts it brings: none. Others say nothing."""
    rig.daxd.configure(init_flags="+SECURITY_CTX" if agreed else "-SECURITY_CTX", trace=100)
    rig.guest.mount("daxd")
    steps = {
        "CREATE": "os.close(os.open('/mnt/file', os.O_CREAT | os.O_RDWR))",
        "MKDIR": "os.mkdir('/mnt/dir')",
        "MKNOD": "os.mkfifo('/mnt/fifo')",
        "SYMLINK": "os.symlink('x', '/mnt/link')",
        "TMPFILE": "os.close(os.open('/mnt', os.O_TMPFILE | os.O_RDWR))",
        "LINK": "os.link('/mnt/fifo', '/mnt/other')",
        "UNLINK": "os.unlink('/mnt/other')",
    }
    for opcode, step in steps.items():
        assert rig.hand.do(step) == "OK", opcode
        (request,) = [request for request in rig.daxd.trace() if request["opcode"] == opcode]
        brings = agreed and opcode not in ("LINK", "UNLINK")
        assert request["total_extlen"] == (1 if brings else 0), opcode
        if brings:
            # struct fuse_secctx_header: 8 bytes in all, no context.
            assert bytes.fromhex(request["args"])[-8:] == bytes([8, 0, 0, 0, 0, 0, 0, 0])
    assert rig.hand.do("[os.unlink('/mnt/' + name) for name in ('file', 'fifo', 'link')]; os.rmdir('/mnt/dir')") == "OK"
    rig.guest.umount()
    rig.unmounted()
