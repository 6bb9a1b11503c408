# SPDX-License-Identifier: GPL-2.0
"""Real programs on a share: each does the same as on a local filesystem of the same guest."""

import subprocess

import pytest
from guest import Share

# Programs map files also where the daemon wants none to be cached.
MODES = {
    "auto": ["--cache=auto"],
    "always": ["--cache=always"],
    "never": ["--cache=never", "--allow-mmap"],
    "writeback": ["--cache=auto", "--writeback"],
}


@pytest.fixture(params=MODES)
def mounted(request, boot, tree):
    """A guest with an empty share on /mnt, and a local filesystem on /run/local."""
    guest = boot(Share(tree.path, "share", daemon_args=[*MODES[request.param], "--xattr"]), memory="1G")
    guest.mount("share", "/mnt")
    guest.run("mkdir -p /run/local && mount -t tmpfs tmpfs /run/local")
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
    script = "cat >/tmp/git.sh"
    mounted.run(script, stdin=GIT.encode())
    local = mounted.run("sh /tmp/git.sh /run/local", timeout=300).stdout
    shared = mounted.run("sh /tmp/git.sh /mnt", timeout=300).stdout
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

LISTING = (
    "cd $1/out && find tree -printf '%p %y %m %U:%G %s %T@ %l\\n' | grep -v '^tree/sub \\|^tree/sub/deep \\|^tree/sub/[lhfnr]\\|^tree ' | "
    "sort && getfattr -d tree/numbers && sha256sum tree/numbers tree/sparse"
)


def test_tar(mounted):
    """A tree with owners, modes, times, extended attributes, links, holes and special files goes into an archive and out."""
    mounted.run("cat >/tmp/tar.sh", stdin=TAR.encode())
    mounted.run("cat >/tmp/list.sh", stdin=LISTING.encode())
    listings = []
    for place in ("/run/local", "/mnt"):
        mounted.run(f"sh /tmp/tar.sh {place}", timeout=120)
        mounted.run(f"cmp {place}/tree/sub/random {place}/out/tree/sub/random; diff -r --no-dereference -q {place}/tree {place}/out/tree; true")
        listings.append([line for line in mounted.run(f"sh /tmp/list.sh {place}").stdout.splitlines() if " d " not in line])
    assert listings[0] == listings[1]
    stat = "cd {}/out/tree && stat -c '%n %F %a %u:%g %h %t:%T' sub/link sub/hard sub/fifo sub/null sub/random sub/deep empty"
    assert mounted.out(stat.format("/run/local")) == mounted.out(stat.format("/mnt"))


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
    results = []
    for place in ("/run/local", "/mnt"):
        result = mounted.run(f"cd {place} && sqlite3 base.db", stdin=SQL.encode(), timeout=120)
        results.append(result.stdout)
        # A second connection, with the log of a first one that is still open.
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
