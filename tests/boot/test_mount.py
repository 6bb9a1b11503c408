# SPDX-License-Identifier: GPL-2.0
"""Mounting: tags, options, several mounts and devices, and what keeps the module in place."""

import pytest
from conftest import device_of, errno_of, mount_errno
from debugger import Debugger, spinning
from guest import Share

# Flags of mount(2), and where a `struct super_block` has its own, of which these are some.
REMOUNT, VERSION, ACTIVE = 1 << 5, 1 << 23, 1 << 30
FLAGS_OFFSET = 96


def test_mount_shows_the_share(boot, tree):
    """A mounted share appears in df, in mount and as a listing, and is gone after umount."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "kataShared"))
    guest.mount("kataShared")
    assert guest.out("df -h /mnt | tail -n 1").startswith("kataShared ")
    assert guest.out("findmnt -no SOURCE,FSTYPE /mnt").split() == ["kataShared", "virtiofs"]
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()
    assert guest.out("ls -A /mnt") == ""
    guest.unload()
    assert guest.run("grep virtiofs /proc/filesystems", check=False).stdout == ""


def test_tags(boot, tree):
    """Tags of any length and content mount; unknown ones are EINVAL and the log names them."""
    tree.file("file")
    longest = "t" * 36
    guest = boot(Share(tree.path, "with space"), Share(tree.path, longest), Share(tree.path, "gr\u00fc\u00df,=\""))
    for tag in ("with space", longest, "gr\u00fc\u00df,=\""):
        assert mount_errno(guest, tag) == "OK"
        assert guest.out("ls /run/try") == "file"
        guest.umount("/run/try")
    for tag in ("with", "with space ", "t" * 35, "t" * 37, "WITH SPACE", "none", "x" * 3000):
        assert mount_errno(guest, tag) == "EINVAL", tag
    assert mount_errno(guest, "no-such-tag") == "EINVAL"
    assert "no-such-tag" in guest.dmesg()


def test_mount_without_device(boot):
    """Without any device a mount fails at once with EINVAL."""
    guest = boot()
    assert mount_errno(guest, "kataShared") == "EINVAL"


def test_options(boot, tree):
    """Generic options work as everywhere; unknown ones and bad values are EINVAL."""
    tree.file("program", "#!/bin/sh\necho ran\n").chmod(0o755)
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag", "/mnt", "ro,nodev,nosuid,noexec,noatime")
    options = guest.out("findmnt -no OPTIONS /mnt").split(",")
    assert {"ro", "nodev", "nosuid", "noexec", "noatime"} <= set(options)
    assert guest.run("/mnt/program", check=False).rc == 126
    guest.umount()
    guest.mount("tag", "/mnt", "nodev")
    assert guest.out("/mnt/program") == "ran"
    guest.umount()
    for data in ("nonsense", "dax=perhaps", "dax=", "tag", "cache=none", "rootmode=abc"):
        assert mount_errno(guest, "tag", data=data) == "EINVAL", data
    for data in ("dax=never", "dax=inode"):
        assert mount_errno(guest, "tag", data=data) == "OK", data
        guest.umount("/run/try")


@pytest.mark.parametrize("data", ["dax", "dax=always"])
def test_dax_without_window(boot, tree, data):
    """DAX that must be there is refused while the device has no window."""
    guest = boot(Share(tree.path, "tag"))
    assert mount_errno(guest, "tag", data=data) == "EINVAL"
    assert "dax" in guest.dmesg().lower()
    assert mount_errno(guest, "tag") == "OK"
    # Nor is what is mounted already mounted once more as if there were one.
    assert mount_errno(guest, "tag", data=data) == "EINVAL"
    guest.umount("/run/try")


@pytest.mark.ours("the form of the first virtio-fs kernels")
def test_first_form(boot, tree):
    """The 4.19 form mounts: type virtio_fs, the tag and three obligatory options in the data."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "myfs"))
    guest.run("mount -t virtio_fs none /mnt -o tag=myfs,rootmode=040000,user_id=0,group_id=0")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()
    data = "rootmode=040000,user_id=0,group_id=0"
    assert mount_errno(guest, "none", data=data, fstype="virtio_fs") == "EINVAL"
    assert mount_errno(guest, "none", data=f"tag=other,{data}", fstype="virtio_fs") == "EINVAL"


@pytest.mark.ours("the form of the first virtio-fs kernels")
def test_types_share_a_superblock(boot, tree):
    """A tag mounted by both names of the type is one filesystem, of the type virtiofs, and one session: it goes on when either ends."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"))
    old = "tag=tag,rootmode=040000,user_id=0,group_id=0"
    for first, second in (("/run/new", "/run/old"), ("/run/old", "/run/new")):
        guest.run("mkdir -p /run/old /run/new")
        for where in (first, second):
            guest.run(f"mount -t virtio_fs none {where} -o {old}" if where == "/run/old" else f"mount -t virtiofs tag {where}")
            assert guest.out(f"findmnt -rno SOURCE,FSTYPE {where}").split() == ["tag", "virtiofs"]
        one, other = guest.out("stat -c %d:%i /run/old/file /run/new/file").split()
        assert one == other
        guest.umount(first)
        assert guest.out(f"cat {second}/file; ls {second}").split() == ["content", "file"]
        guest.umount(second)
    guest.unload()


def test_backing_device(boot, tree):
    """/sys/class/bdi has a mount by its device number, where administrators set readahead and the share of dirty pages; it goes with
    the mount."""
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    device = guest.out("mountpoint -d /mnt")
    assert int(guest.out(f"cat /sys/class/bdi/{device}/read_ahead_kb")) > 0
    guest.run(f"echo 64 >/sys/class/bdi/{device}/read_ahead_kb; echo 50 >/sys/class/bdi/{device}/max_ratio")
    assert guest.out(f"cd /sys/class/bdi/{device}; cat read_ahead_kb max_ratio").split() == ["64", "50"]
    guest.umount()
    assert guest.run(f"test -e /sys/class/bdi/{device}", check=False).rc == 1


def test_mounts_of_one_tag_share_a_superblock(boot, tree):
    """Two mounts of one tag are one filesystem: same device number, and the second unmount is the last."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag", "/run/one")
    guest.mount("tag", "/run/two")
    one, two = guest.out("stat -c %d:%i /run/one/file /run/two/file").split()
    assert one == two
    guest.umount("/run/one")
    assert guest.out("cat /run/two/file") == "content"
    guest.umount("/run/two")
    guest.mount("tag", "/run/one")
    assert guest.out("cat /run/one/file") == "content"
    guest.umount("/run/one")


def test_several_devices(boot, tmp_path, tree):
    """Each device is a filesystem of its own with its own files, mounted together and unmounted in any order."""
    shares = []
    for number in range(4):
        directory = tmp_path / f"share{number}"
        directory.mkdir()
        (directory / "which").write_text(f"{number}\n")
        shares.append(Share(directory, f"tag{number}"))
    guest = boot(*shares)
    for number in range(4):
        guest.mount(f"tag{number}", f"/run/{number}")
    assert guest.out("cat /run/[0-3]/which").split() == ["0", "1", "2", "3"]
    assert len(set(guest.out("stat -c %d /run/[0-3]").split())) == 4
    for number in (2, 0, 3, 1):
        guest.umount(f"/run/{number}")
    guest.unload()


def test_module_in_use(boot, tree):
    """rmmod while mounted is EBUSY and harms nothing; after umount the module unloads and loads again."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    assert "in use" in guest.run("rmmod virtiofs", check=False).stderr
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()
    guest.run("rmmod virtiofs")
    guest.load()
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_busy_umount(boot, tree):
    """umount of a busy mount is EBUSY; a lazy one detaches it and ends when the last file is closed."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    holder = guest.spawn("exec 3</mnt/file; touch /run/open; while [ -e /run/open ]; do sleep 0.05; done; cat <&3")
    guest.wait_until(lambda: guest.run("test -e /run/open", check=False).rc == 0, "the file is open")
    assert "busy" in guest.umount(check=False).stderr
    guest.umount(flags="-l")
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    guest.run("rm /run/open")
    assert holder.wait().stdout == "content\n"
    guest.wait_until(lambda: guest.run("modprobe -r virtiofs", check=False).rc == 0, "the module can go")


WRITES = [
    "os.open('/mnt/file', os.O_WRONLY)",
    "os.open('/mnt/file', os.O_RDWR | os.O_TRUNC)",
    "os.open('/mnt/new', os.O_WRONLY | os.O_CREAT)",
    "os.truncate('/mnt/file', 1)",
    "os.mkdir('/mnt/new')",
    "os.rmdir('/mnt/dir')",
    "os.unlink('/mnt/file')",
    "os.rename('/mnt/file', '/mnt/new')",
    "os.link('/mnt/file', '/mnt/new')",
    "os.symlink('x', '/mnt/new')",
    "os.mknod('/mnt/new')",
    "os.chmod('/mnt/file', 0o600)",
    "os.chown('/mnt/file', 1, 1)",
    "os.utime('/mnt/file')",
    "os.setxattr('/mnt/file', 'user.x', b'x')",
    "os.removexattr('/mnt/file', 'user.x')",
]


def test_read_only(boot, tree):
    """A mount with ro shows ro, reads, and refuses whatever would change something with EROFS; the host's tree stays as it is."""
    tree.file("file", "content\n")
    (tree / "dir").mkdir()
    guest = boot(Share(tree.path, "tag", daemon_args=["--xattr"]))
    guest.mount("tag", options="ro")
    assert "ro" in guest.out("findmnt -no FS-OPTIONS /mnt").split(",")
    assert {statement: errno_of(guest, statement) for statement in WRITES} == dict.fromkeys(WRITES, "EROFS")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()
    assert sorted(path.name for path in tree.path.iterdir()) == ["dir", "file"]


def test_autoload_by_mount(boot, tree):
    """mount -t virtiofs alone loads the module."""
    tree.file("file", "content\n")
    guest = boot(Share(tree.path, "tag"), load=False)
    assert guest.run("lsmod | grep virtiofs", check=False).stdout == ""
    guest.mount("tag")
    assert guest.out("cat /mnt/file") == "content"
    guest.umount()


def test_autoload_by_device(boot, tree, driver):
    """The device's modalias alone loads the module that depmod prefers, as udev does it."""
    guest = boot(Share(tree.path, "tag"), load=False)
    guest.run("cat /sys/bus/virtio/devices/*/modalias | grep d0000001A | xargs modprobe")
    assert device_of(guest, "tag")
    where = guest.out("modinfo -n virtiofs")
    assert ("/updates/" in where) == (driver == "rust")
    assert guest.out("modinfo -F license virtiofs").startswith("GPL")


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.beyond_c("sets it then"))], ids=["mount", "remount"])
def test_version(boot, tree, again):
    """Inodes have no version of their own: iversion, which mount(8) may ask for, makes the kernel count none."""
    guest = boot(Share(tree.path, "tag"))
    flags = [0, VERSION | REMOUNT] if again else [VERSION]
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
for flags in {flags}:
    assert libc.mount(b"tag", b"/mnt", b"virtiofs", ctypes.c_ulong(flags), None) == 0, ctypes.get_errno()
spin()
assert libc.umount2(b"/mnt", 0) == 0
"""
    umount, go = spinning(guest, script, 0)
    with Debugger(guest) as debugger:
        debugger.stop_at("generic_shutdown_super")
        debugger.store(go, b"\1")
        assert debugger.go() == (0, "generic_shutdown_super")
        found = debugger.load(debugger.argument(0) + FLAGS_OFFSET)
        debugger.stop_at()
    result = umount.wait()
    assert result.rc == 0, result
    assert found & ACTIVE and found < 1 << 32 and not found & VERSION, hex(found)
