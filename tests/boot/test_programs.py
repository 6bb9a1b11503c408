# SPDX-License-Identifier: GPL-2.0
"""Real programs on a share: each does the same as on a local ext4 of the same guest."""

import subprocess

import pytest
import tools
from guest import Share

# Programs map files also where the daemon wants none to be cached.
MODES = {
    "auto": ["--cache=auto"],
    "always": ["--cache=always"],
    "never": ["--cache=never", "--allow-mmap"],
    "writeback": ["--cache=auto", "--writeback"],
}


# Where it runs: local, and shared.
PLACES = ("/run/local", "/mnt")


@pytest.fixture(params=MODES)
def mounted(request, boot, tree, tmp_path):
    """A guest with an empty share on /mnt, and an ext4 on /run/local."""
    empty = tmp_path / "local"
    empty.mkdir()
    drive = tools.drive(0, tools.disk(tmp_path / "disk", empty, "256M"))
    share = Share(tree.path, "share", daemon_args=[*MODES[request.param], "--xattr"])
    guest = boot(share, memory="1G", qemu_args=drive)
    guest.mount("share", "/mnt")
    guest.run("mkdir -p /run/local && mount /dev/vdc /run/local && rmdir /run/local/lost+found")
    return guest


GIT = """
set -e
cd $1
export HOME=$1 GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z
git config --global user.name tester
git config --global user.email tester@example.com
git config --global init.defaultBranch main
git init -q repo
cd repo
for n in $(seq 60); do mkdir -p dir$((n % 7)); seq $n $((n * 20)) >dir$((n % 7))/file$n; done
git add .
git commit -qm first
for n in $(seq 10); do echo change $n >>dir$((n % 7))/file$n; git rm -q dir$(((n + 20) % 7))/file$((n + 20)); done
git mv dir1 moved
git commit -qam second
git branch side HEAD~1
git gc -q
git clone -q . ../clone
cd ../clone
git fsck --strict 2>&1
git checkout -q HEAD~1
git checkout -q main
git status --short
git log --format=%H
git ls-tree -r HEAD | sha256sum
"""


def test_git(mounted):
    """A repository is made, changed, collected, cloned and checked, and has the same commits as a local one."""
    mounted.put(GIT, "/run/git.sh")
    local, shared = (mounted.run(f"sh /run/git.sh {place}", timeout=300).stdout for place in PLACES)
    assert local == shared
    assert len(shared.split()) >= 3


TAR = """
set -e
cd $1
mkdir -p tree/sub/deep tree/empty
seq 1 20000 >tree/numbers
head -c 300000 /dev/urandom >tree/sub/random
truncate -s 5M tree/sparse
printf end | dd of=tree/sparse bs=1 seek=3000000 conv=notrunc status=none
ln -s ../numbers tree/sub/link
ln tree/numbers tree/sub/hard
mkfifo tree/sub/fifo
mknod tree/sub/null c 1 3
chmod 4711 tree/sub/random
chmod 1777 tree/empty
chown -R 1234:4321 tree/sub/deep
setfattr -n user.colour -v blue tree/numbers
touch -d '2001-02-03 04:05:06.123456789' tree/numbers tree/empty tree/sparse
tar --xattrs --sparse --numeric-owner -cf archive.tar tree
mkdir out
tar --xattrs --numeric-owner -xpf archive.tar -C out
"""

# What goes through the archive as it was: types, modes, owners, sizes, times and targets. Sizes of directories are each filesystem's own.
PRINTF = {"d": "%p %y %m %U:%G %T@", "l": "%p %y %U:%G %T@ %l", "p,c": "%p %y %m %U:%G %T@", "f": "%p %y %m %n %U:%G %s %T@"}
LISTING = "\n".join(f"find tree -type {kind} -printf '{row}\\n' | sort" for kind, row in PRINTF.items())
# The same on any filesystem: without times, other than those that were set.
COMMON = """
set -e
find tree -printf '%p %y %m %U:%G %l\\n' | sort
find tree -type f -printf '%p %n %s\\n' | sort
stat -c '%n %t:%T' tree/sub/null
stat -c '%n %Y %y' tree/numbers tree/empty tree/sparse
getfattr -d tree/numbers
sha256sum tree/numbers tree/sparse
"""
# Of 5 MiB with three bytes of data.
SPARSE_BLOCKS = 512


def test_tar(mounted):
    """A tree with owners, modes, times, extended attributes, links, holes and special files goes into an archive and out."""
    for name, script in (("tar", TAR), ("listing", LISTING), ("common", COMMON)):
        mounted.put(script, f"/run/{name}.sh")
    common = []
    for place in PLACES:
        mounted.run(f"sh /run/tar.sh {place}", timeout=120)
        # diff(1) takes no two special files for the same: these are in the listings.
        mounted.run(f"diff -r --no-dereference -x fifo -x null {place}/tree {place}/out/tree")
        packed, unpacked = (mounted.out(f"cd {place}/{where} && sh /run/listing.sh") for where in (".", "out"))
        assert packed == unpacked
        assert len(packed.splitlines()) == 11
        common.append(mounted.out(f"cd {place}/out && sh /run/common.sh"))
        for where in ("tree", "out/tree"):
            assert int(mounted.out(f"stat -c %b {place}/{where}/sparse")) <= SPARSE_BLOCKS, (place, where)
    assert common[0] == common[1]


SQL = """
PRAGMA journal_mode=WAL;
CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO t SELECT i, 'row ' || i * 7919 % 1000 FROM n;
CREATE INDEX by_text ON t(text);
DELETE FROM t WHERE id % 3 = 0;
UPDATE t SET text = text || '!' WHERE id % 5 = 0;
PRAGMA wal_checkpoint(TRUNCATE);
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(length(text)), max(text) FROM t;
"""


def test_sqlite(mounted):
    """A database with a write-ahead log is filled, changed and vacuumed, passes its integrity check, and is the local one."""
    run = "cd {} && sqlite3 base.db"
    results = [mounted.run(run.format(place), stdin=SQL.encode(), timeout=120).stdout for place in PLACES]
    assert results[0] == results[1]
    assert "\nok\n" in results[1]


def test_overlay(mounted):
    """overlayfs with the share as lower layer: a container's root; changes go to the upper layer, the share stays as it is."""
    script = """
set -e
mkdir -p /mnt/lower/etc /run/local/upper /run/local/work /run/merged
echo original >/mnt/lower/etc/file
echo gone >/mnt/lower/etc/gone
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/run/local/upper,workdir=/run/local/work /run/merged
echo changed >>/run/merged/etc/file
rm /run/merged/etc/gone
echo new >/run/merged/etc/new
cat /run/merged/etc/file
ls /run/merged/etc
umount /run/merged
cat /mnt/lower/etc/file
ls /mnt/lower/etc
"""
    out = mounted.run(script).stdout.split()
    assert out == ["original", "changed", "file", "new", "original", "file", "gone"]


def test_bind_mounts(mounted):
    """Single files and directories of the share are bind-mounted, as Kata does for containers, and outlive the mount point."""
    script = """
set -e
mkdir -p /mnt/dir /run/c/dir
echo file >/mnt/file
echo inner >/mnt/dir/inner
touch /run/c/file
mount --bind /mnt/file /run/c/file
mount --bind /mnt/dir /run/c/dir
umount -l /mnt
cat /run/c/file /run/c/dir/inner
echo more >>/run/c/file
cat /run/c/file
umount /run/c/file /run/c/dir
"""
    assert mounted.run(script).stdout.split() == ["file", "inner", "file", "more"]


def test_loop_device(mounted, tree):
    """A filesystem in a file of the share, through a loop device."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", tree / "disk", "16M"], check=True)
    script = """
set -e
mkdir -p /run/loop
mount -o loop /mnt/disk /run/loop
seq 50000 >/run/loop/numbers
sha256sum </run/loop/numbers
umount /run/loop
mount -o loop,ro /mnt/disk /run/loop
sha256sum </run/loop/numbers
umount /run/loop
"""
    first, _, second, _ = mounted.run(script, timeout=120).stdout.split()
    assert first == second


def test_inotify(mounted):
    """Changes made in the guest are told to who watches."""
    script = """
import ctypes, os, struct
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(0)
os.mkdir("/mnt/watched")
libc.inotify_add_watch(watch, b"/mnt/watched", 0xfff)
open("/mnt/watched/a", "w").write("x")
os.rename("/mnt/watched/a", "/mnt/watched/b")
os.unlink("/mnt/watched/b")
seen = set()
data = os.read(watch, 4096)
while data:
    _, mask, _, length = struct.unpack_from("iIII", data)
    seen.add(mask)
    data = data[16 + length :]
CREATE, MODIFY, MOVED_FROM, MOVED_TO, DELETE = 0x100, 0x2, 0x40, 0x80, 0x200
print({CREATE, MODIFY, MOVED_FROM, MOVED_TO, DELETE} <= seen)
"""
    assert mounted.python(script).stdout.strip() == "True"
