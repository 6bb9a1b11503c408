# SPDX-License-Identifier: GPL-2.0
"""What container runtimes do with a share: layers of overlayfs, mounts of single files, mount namespaces, lazy unmounting."""

import pytest
from guest import Share

LOWER = """
set -e
cd $1
mkdir -p lower/etc/deep lower/bin lower/gone upper work merged
for n in $(seq 40); do echo lower $n >lower/etc/file$n; done
cp /bin/busybox lower/bin/busybox
echo deep >lower/etc/deep/file
echo inside >lower/gone/file
ln -s busybox lower/bin/sh
chown 1234:4321 lower/etc/file1
chmod 4755 lower/etc/file2
setfattr -n user.colour -v blue lower/etc/file3
"""

# Everything a container does to its root.
CHANGE = """
set -e
cd $1/merged
echo changed >>etc/file1
chmod 600 etc/file2
setfattr -n user.colour -v red etc/file3
rm etc/file4
mv etc/file5 etc/moved
ln etc/file6 etc/hard
rm -r gone
mkdir gone
echo new >gone/other
: >etc/file7
mkdir -p new/tree
for n in $(seq 30); do echo new $n >new/tree/$n; done
rm new/tree/30
ln -s ../etc new/link
mkfifo new/fifo
mv new renamed
cp bin/busybox bin/copy
cmp bin/busybox bin/copy
bin/busybox true
# Opened for reading before it is copied up.
exec 3<etc/file8
echo more >>etc/file8
cat <&3
exec 3<&-
sync -f .
"""

LIST = """
cd $1/merged
find . -printf '%p %y %m %U:%G %l\\n' | sort
find . -type f -exec sha256sum {} + | sort -k 2
getfattr -d etc/file3
"""

WHITEOUTS = "cd $1/upper; find . -type c -printf '%p %m\\n' | sort; find . -printf '%p %y\\n' | sort; getfattr -Rh -m overlay.opaque --only-values . | tr -d '\\0'"


@pytest.mark.parametrize(
    ("cache", "options"),
    [("auto", ",index=off"), ("always", ",index=off,userxattr"), ("always", ",index=off,redirect_dir=on")],
    ids=["trusted", "user", "redirect"],
)
def test_overlay_of_shares(boot, tree, tmp_path, cache, options):
    """overlayfs with all its layers on shares: a container works in it, and finds it as it was; as with layers on a local disk.

    Without an index, which takes file handles that last: those of virtiofsd (no EXPORT_SUPPORT) end with the guest's inodes.
    """
    # Attributes of the prefix "trusted." take the daemon a capability that it gives up otherwise.
    daemon_args = [f"--cache={cache}", "--xattr", "--modcaps=+sys_admin"]
    guest = boot(Share(tree.path, "share", daemon_args=daemon_args), programs=True)
    guest.mount("share", "/mnt")
    guest.run("mkdir -p /run/local && mount -t tmpfs tmpfs /run/local")
    for name, script in {"lower": LOWER, "change": CHANGE, "list": LIST, "whiteouts": WHITEOUTS}.items():
        guest.put(script, f"/run/{name}")
    seen = []
    for place in ("/run/local", "/mnt"):
        mount = f"mount -t overlay overlay -o lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work{options} {place}/merged"
        guest.run(f"sh /run/lower {place} && {mount} && sh /run/change {place}", timeout=120)
        first = guest.out(f"sh /run/list {place}")
        guest.run(f"umount {place}/merged")
        layers = guest.out(f"sh /run/whiteouts {place}; ls {place}/lower/gone {place}/lower/etc | wc -l; cat {place}/lower/etc/file1")
        guest.run(f"echo 3 >/proc/sys/vm/drop_caches; {mount}")
        assert guest.out(f"sh /run/list {place}") == first
        guest.run(f"umount {place}/merged")
        seen.append((first, layers))
    assert seen[0] == seen[1]
    assert "renamed/tree/29" in seen[1][0]
    guest.umount()


def test_many_bind_mounts(boot, tree):
    """Single files of a share are mounted over others, by the dozen, and show what is written on either side."""
    (tree / "files").mkdir()
    guest = boot(Share(tree.path, "share", daemon_args=["--cache=auto"]))
    guest.mount("share")
    script = """
set -e
mkdir /run/c
for n in $(seq 60); do
	echo $n >/mnt/files/$n
	: >/run/c/$n
	mount --bind /mnt/files/$n /run/c/$n
done
mount -o remount,bind,ro /run/c/60
for n in $(seq 59); do echo in $n >>/run/c/$n; done
! echo x 2>/dev/null >>/run/c/60
echo out >>/mnt/files/1
cat /run/c/1
rm /mnt/files/2
cat /run/c/2
echo other >/mnt/files/new
mv /mnt/files/new /mnt/files/3
cat /run/c/3
for n in $(seq 60); do umount /run/c/$n; done
"""
    assert guest.out(script).split() == ["1", "in", "1", "out", "2", "in", "2", "3", "in", "3"]
    assert (tree / "files/59").read_text(encoding="utf-8") == "59\nin 59\n"
    guest.umount()
    guest.unload()


def test_mount_namespaces(boot, tree):
    """A share mounted in nested mount namespaces: each has its mounts, the superblock is one, and it goes with the last of them."""
    tree.file("file", "content\n")
    (tree / "dir").mkdir()
    guest = boot(Share(tree.path, "share", daemon_args=["--cache=auto"]))
    script = """
set -e
mount --make-rprivate /
unshare -m sh -ec '
	mount -t virtiofs share /mnt
	mount -t tmpfs tmpfs /mnt/dir
	: >/mnt/dir/hidden
	unshare -m sh -ec "
		umount /mnt/dir
		ls -A /mnt/dir | wc -l
		mount --bind /mnt/dir /mnt
		echo below >/mnt/below
		ls /mnt
		exec 3>/mnt/open
		umount -l /mnt
		echo later >&3
		cat /mnt/file
	"
	ls /mnt/dir
	cat /mnt/file
'
grep -c virtiofs /proc/mounts || true
"""
    assert guest.out(script).split() == ["0", "below", "content", "hidden", "content", "0"]
    assert (tree / "dir/below").read_text(encoding="utf-8") == "below\n"
    assert (tree / "dir/open").read_text(encoding="utf-8") == "later\n"
    guest.unload()


LAZY = """
import errno, mmap, os, subprocess, sys
os.chdir("/mnt/dir")
file = os.open("/mnt/file", os.O_RDWR)
area = mmap.mmap(file, 4096)
at = os.open("/mnt", os.O_PATH)
print(subprocess.run(["umount", "/mnt"], stderr=subprocess.DEVNULL).returncode)
subprocess.run(["umount", "-l", "/mnt"], check=True)
print(os.path.exists("/mnt/file"))
# What was open goes on as before, new names below it too.
os.pwrite(file, b"written", 0)
area[4000:4006] = b"mapped"
area.flush()
open("new", "w").write("new")
os.rename("new", "renamed")
print(os.listdir("."), os.stat("file", dir_fd=at).st_size, os.stat("..").st_ino == os.fstat(at).st_ino)
print(subprocess.run(["rmmod", "virtiofs"], stderr=subprocess.DEVNULL).returncode)
# The same share, mounted anew beside it, is the same superblock.
subprocess.run(["mount", "-t", "virtiofs", "share", "/mnt"], check=True)
print(os.stat("/mnt/file").st_dev == os.fstat(file).st_dev, open("/mnt/file", "rb").read(7))
subprocess.run(["umount", "/mnt"], check=True)
"""


def test_lazy_umount(boot, tree):
    """A busy share is not unmounted; lazily it is, files and directories that are open go on, and the last of them ends it."""
    tree.file("file", 4096)
    (tree / "dir").mkdir()
    guest = boot(Share(tree.path, "share", daemon_args=["--cache=auto"]))
    guest.mount("share")
    assert guest.python(LAZY).stdout.split("\n")[:-1] == ["32", "False", "['renamed'] 4096 True", "1", "True b'written'"]
    data = (tree / "file").read_bytes()
    assert (data[:7], data[4000:4006]) == (b"written", b"mapped")
    assert (tree / "dir/renamed").read_text(encoding="utf-8") == "new"
    guest.unload()


FANOTIFY = """
import ctypes, json, os, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
OPEN, ACCESS, MODIFY, CLOSE_WRITE, CLOSE_NOWRITE = 0x20, 0x1, 0x2, 0x8, 0x10
group = libc.fanotify_init(0x2, os.O_RDONLY)
ADD, MOUNT = 0x1, 0x10
assert libc.fanotify_mark(group, ADD | MOUNT, ctypes.c_uint64(OPEN | ACCESS | MODIFY | CLOSE_WRITE | CLOSE_NOWRITE), -100, b"/mnt") == 0
subprocess.run("echo one >/mnt/watched; cat /mnt/watched >/dev/null; truncate -s 1 /mnt/watched", shell=True, check=True)
seen = {}
while True:
    try:
        data = os.read(group, 4096)
    except BlockingIOError:
        break
    while data:
        length, _, _, _, mask, fd, pid = struct.unpack_from("IBBHQii", data)
        # The event comes with the file, opened without another event.
        path = os.readlink(f"/proc/self/fd/{fd}")
        seen[path] = seen.get(path, 0) | mask
        os.close(fd)
        data = data[length:]
print(json.dumps(seen))
"""


def test_fanotify(boot, tree):
    """A mark on the mount tells of what any program does with its files."""
    guest = boot(Share(tree.path, "share", daemon_args=["--cache=auto"]))
    guest.mount("share")
    assert guest.value(FANOTIFY)["/mnt/watched"] == 0x3B
    guest.umount()
