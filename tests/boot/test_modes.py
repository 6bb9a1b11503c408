# SPDX-License-Identifier: GPL-2.0
"""The daemon's options, in a selection in which each meets others: a small scenario for all of them."""

import pytest
from guest import Share

DAEMONS = {
    "plain": [],
    "never": ["--cache=never", "--no-readdirplus", "--thread-pool-size=1"],
    "never-mmap": ["--cache=never", "--allow-mmap", "--xattr"],
    "metadata": ["--cache=metadata", "--allow-mmap", "--no-announce-submounts"],
    "metadata-direct": ["--cache=metadata", "--xattr", "--allow-direct-io"],
    "always": ["--cache=always", "--xattr", "--allow-direct-io", "--no-readdirplus"],
    "writeback": ["--cache=auto", "--writeback", "--xattr", "--thread-pool-size=4"],
    "writeback-always": ["--cache=always", "--writeback", "--killpriv-v2", "--xattr"],
    "acl": ["--cache=auto", "--posix-acl", "--killpriv-v2"],
    "acl-never": ["--cache=never", "--posix-acl", "--announce-submounts"],
    "handles": ["--cache=auto", "--xattr", "--inode-file-handles=prefer", "--thread-pool-size=2"],
    "everything": [
        *("--cache=always", "--writeback", "--xattr", "--posix-acl", "--killpriv-v2", "--allow-mmap", "--allow-direct-io"),
        *("--announce-submounts", "--thread-pool-size=8", "--inode-file-handles=prefer"),
    ],
}


@pytest.fixture(params=DAEMONS)
def mode(request):
    """The name of a mode; the share is on /run/NAME."""
    return request.param


SCENARIO = """
import hashlib, mmap, os, random, subprocess, sys, threading
here = sys.argv[1]
os.chdir(here)
rng = random.Random(5)
model = bytearray()
with open("file", "w+b", buffering=0) as file:
    for _ in range(60):
        at, data = rng.randrange(300000), rng.randbytes(rng.randrange(1, 20000))
        model.extend(bytes(max(0, at + len(data) - len(model))))
        model[at : at + len(data)] = data
        assert os.pwrite(file.fileno(), data, at) == len(data)
        if rng.random() < 0.2:
            size = rng.randrange(300000)
            model = model[:size] + bytes(max(0, size - len(model)))
            os.ftruncate(file.fileno(), size)
        where = rng.randrange(len(model) + 1)
        assert os.pread(file.fileno(), 10000, where) == model[where : where + 10000], where
        assert os.fstat(file.fileno()).st_size == len(model)
    os.fsync(file.fileno())

# Names, by several threads.
def names(number):
    for n in range(30):
        path = f"{number}-{n}"
        os.mkdir(path)
        with open(f"{path}/a", "w") as file:
            file.write(path)
        os.rename(f"{path}/a", f"{path}/b")
        os.symlink("b", f"{path}/c")
        assert open(f"{path}/c").read() == path
        assert sorted(os.listdir(path)) == ["b", "c"]
        if n % 2:
            os.unlink(f"{path}/b")
            os.unlink(f"{path}/c")
            os.rmdir(path)

threads = [threading.Thread(target=names, args=[n]) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(os.listdir(".")) == 61, os.listdir(".")
# A program of this kind is what containers start first.
subprocess.run(["cp", "/bin/busybox", "busybox"], check=True)
assert subprocess.run(["cmp", "/bin/busybox", "busybox"]).returncode == 0
print(hashlib.sha256(model).hexdigest())
"""


def test_scenario(guest, host, mode):
    """Data and names, written at random and by several threads: as a model has them, after a new mount, and on the host."""
    directory = host / f"scenario-{mode}"
    directory.mkdir()
    expected = guest.python(SCENARIO, f"/run/{mode}/{directory.name}", timeout=120).stdout.split()[0]
    where = f"/run/{mode}"
    guest.umount(where)
    guest.mount(f"tag-{mode}", where)
    assert guest.out(f"sha256sum {where}/{directory.name}/file").split()[0] == expected
    assert guest.out(f"find {where}/{directory.name} | wc -l") == "183"
    assert len(list(directory.rglob("*"))) == 182
    guest.run(f"rm -r {where}/{directory.name}")
    assert not directory.exists()


def test_security_label(boot, tree):
    """A daemon that wants the security context of what is created can be mounted, and files be made."""
    guest = boot(Share(tree.path, "share", daemon_args=["--xattr", "--security-label"]))
    guest.mount("share")
    guest.run("echo made >/mnt/file; mkdir /mnt/dir; ln -s file /mnt/link; mkfifo /mnt/fifo")
    assert (tree / "file").read_text(encoding="utf-8") == "made\n"
    guest.umount()
