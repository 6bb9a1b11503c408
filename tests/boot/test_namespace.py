# SPDX-License-Identifier: GPL-2.0
"""Names: made, linked, moved, removed, opened and made at once; what the host sees of it, and what errors say."""

import os
import stat
from pathlib import Path

import pytest
from conftest import errno_of
from guest import Share

# At the head of scripts in the guest: the directory to work in, and an assertion about the error of a call.
PRELUDE = """
import ctypes, errno, os, socket, stat, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def fails(name, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except OSError as error:
        assert error.errno == getattr(errno, name), f"{errno.errorcode[error.errno]} instead of {name}"
    else:
        raise AssertionError(f"no error instead of {name}")
def renameat2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
def put(name, text="x"):
    with open(name, "w") as file:
        file.write(text)
def get(name):
    with open(name) as file:
        return file.read()
def as_user(uid, gid, groups, function, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
            function(*arguments)
            os._exit(0)
        except BaseException as error:
            print("as user:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


class Work:
    """A directory of its own for a test, and the guest that has it."""

    def __init__(self, guest, host, path):
        self.guest, self.host, self.path = guest, host, path

    def run(self, script, timeout=60.0):
        """Runs a script in the guest, in this directory."""
        return self.guest.python(PRELUDE + script, self.path, timeout=timeout).stdout


@pytest.fixture
def work(guest, host, mnt, tmp_path):
    """An empty directory, in each cache mode."""
    directory = Path(host.path) / f"work-{tmp_path.name}"
    directory.mkdir()
    directory.chmod(0o755)
    yield Work(guest, directory, f"{mnt}/{directory.name}")
    guest.run(f"rm -rf {mnt}/{directory.name}")
    assert not directory.exists()


def test_make_everything(work):
    """Files of every type are what the host then has, with mode and owner."""
    work.run(
        """
os.umask(0o022)
put("file", "contents"); assert get("file") == "contents"
os.mkdir("dir", 0o777); os.symlink("some/where", "symlink"); os.link("file", "hard")
os.mkfifo("fifo", 0o640)
os.mknod("char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.mknod("block", stat.S_IFBLK | 0o660, os.makedev(259, 65537))
os.mknod("plain", stat.S_IFREG | 0o4711)
with socket.socket(socket.AF_UNIX) as unix:
    unix.bind("socket")
assert sorted(os.listdir(".")) == sorted("file dir symlink hard fifo char block plain socket".split())
assert os.readlink("symlink") == "some/where"
assert os.stat("block").st_rdev == os.makedev(259, 65537)
assert os.stat("file").st_nlink == os.stat("hard").st_nlink == 2 and os.path.samefile("file", "hard")
assert os.stat("dir").st_nlink == 2 and os.stat(".").st_nlink == 3
with open("char", "wb") as null:
    null.write(b"into /dev/null")
"""
    )
    host = work.host
    assert (host / "file").read_text() == "contents"
    assert os.path.samefile(host / "file", host / "hard")
    assert os.readlink(host / "symlink") == "some/where"
    modes = {
        "file": stat.S_IFREG | 0o644,
        "dir": stat.S_IFDIR | 0o755,
        "fifo": stat.S_IFIFO | 0o640,
        "char": stat.S_IFCHR | 0o644,
        "block": stat.S_IFBLK | 0o640,
        "plain": stat.S_IFREG | 0o4711,
        "socket": stat.S_IFSOCK | 0o755,
    }
    assert {name: oct(os.lstat(host / name).st_mode) for name in modes} == {name: oct(mode) for name, mode in modes.items()}
    assert os.stat(host / "block").st_rdev == os.makedev(259, 65537)


def test_open_flags(work):
    """O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW and O_DIRECTORY, for names that exist or not, and by symbolic links."""
    work.run(
        """
os.close(os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
fails("EEXIST", os.open, "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
put("new", "12345")
with open("new", "r+") as file:
    file.write("ab")
assert get("new") == "ab345"
os.close(os.open("new", os.O_WRONLY | os.O_TRUNC)); assert os.stat("new").st_size == 0 and get("new") == ""
put("new", "12345")
os.close(os.open("new", os.O_RDONLY | os.O_TRUNC)); assert os.stat("new").st_size == 0 and get("new") == ""
fd = os.open("readonly", os.O_CREAT | os.O_RDWR, 0o000)
os.write(fd, b"by the maker"); os.lseek(fd, 0, 0); assert os.read(fd, 99) == b"by the maker"; os.close(fd)
os.symlink("through", "link")
put("link", "made by a link"); assert get("through") == "made by a link"
fails("EEXIST", os.open, "link", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
fails("ELOOP", os.open, "link", os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY)
os.mkdir("dir")
fails("EISDIR", os.open, "dir", os.O_CREAT | os.O_WRONLY)
fails("EISDIR", os.open, "dir", os.O_WRONLY)
fails("EEXIST", os.open, "dir", os.O_CREAT | os.O_EXCL)
fails("ENOTDIR", os.open, "new", os.O_DIRECTORY)
fails("ENOTDIR", os.open, "new/below", os.O_CREAT | os.O_WRONLY)
fails("ENOENT", os.open, "nowhere/file", os.O_CREAT | os.O_WRONLY)
fails("ENOENT", os.open, "missing", os.O_RDONLY)
fails("ENOENT", os.open, "", os.O_CREAT | os.O_WRONLY)
fails("ENAMETOOLONG", os.open, "n" * 256, os.O_CREAT | os.O_WRONLY)
fails("ENAMETOOLONG", os.mkdir, "n" * 256)
put("n" * 255)
for flag in (0, os.O_EXCL):
    fails("EISDIR", os.open, "slash/", os.O_CREAT | flag | os.O_WRONLY)
"""
    )


def test_existing_on_host(work):
    """What the host has made meanwhile is found by an open that would make it, and not made or cut."""
    (work.host / "seen").write_text("from the host")
    work.run("fails('ENOENT', os.stat, 'late')")
    (work.host / "late").write_text("from the host")
    work.run(
        """
for name in ("seen", "late"):
    fd = os.open(name, os.O_CREAT | os.O_RDWR)
    assert os.read(fd, 99) == b"from the host", name
    os.close(fd)
    fails("EEXIST", os.open, name, os.O_CREAT | os.O_EXCL)
"""
    )
    assert (work.host / "late").read_text() == "from the host"


def test_permissions_before_truncation(work):
    """A file that may not be written is not truncated by an open that would make it."""
    (work.host / "protected").write_text("precious")
    (work.host / "protected").chmod(0o644)
    work.host.chmod(0o777)
    work.run(
        """
def attempt():
    fails("EACCES", os.open, "protected", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    fails("EACCES", os.open, "protected", os.O_TRUNC | os.O_WRONLY)
    os.close(os.open("mine", os.O_CREAT | os.O_WRONLY))
as_user(1000, 1000, [], attempt)
assert os.stat("mine").st_uid == 1000
os.chmod(".", 0o755)
def denied():
    fails("EACCES", os.open, "new", os.O_CREAT | os.O_WRONLY)
    fails("EEXIST", os.open, "protected", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    for make in (os.mkdir, os.mkfifo, lambda name: os.symlink("x", name)):
        fails("EACCES", make, "other"); fails("EEXIST", make, "protected")
    fails("EACCES", os.unlink, "protected")
    fails("EACCES", os.rename, "protected", "moved")
as_user(1000, 1000, [], denied)
os.chmod(".", 0o1777)
as_user(1000, 1000, [], lambda: fails("EPERM", os.unlink, "protected"))
"""
    )
    assert (work.host / "protected").read_text() == "precious"
    assert os.stat(work.host / "mine").st_uid == 1000


def test_owners_and_groups(work):
    """New files belong to who made them; in a set-group-id directory to its group, which may be a supplementary one."""
    work.run(
        """
os.chmod(".", 0o777)
os.mkdir("team"); os.chown("team", 0, 4000); os.chmod("team", 0o2775)
def make(prefix):
    os.umask(0o002)
    put(prefix + "file"); os.mkdir(prefix + "dir"); os.symlink("x", prefix + "link"); os.mkfifo(prefix + "fifo")
as_user(1234, 2345, [], make, "plain-")
as_user(1234, 2345, [4000, 4001], make, "team/")
for name in ("file", "dir", "link", "fifo"):
    info = os.lstat("plain-" + name); assert (info.st_uid, info.st_gid) == (1234, 2345), name
    info = os.lstat("team/" + name); assert (info.st_uid, info.st_gid) == (1234, 4000), (name, info.st_gid)
assert os.stat("team/dir").st_mode & 0o7777 == 0o2775
assert os.stat("team/file").st_mode & 0o7777 == 0o664
"""
    )
    assert os.stat(work.host / "team/file").st_gid == 4000


def test_umask(work):
    """The umask of the task takes bits away, whatever it is."""
    work.run(
        """
for mask in (0, 0o027, 0o077, 0o777):
    os.umask(mask)
    for name, make in (("f", lambda n: os.close(os.open(n, os.O_CREAT | os.O_WRONLY, 0o777))), ("d", lambda n: os.mkdir(n, 0o777)),
                       ("n", lambda n: os.mknod(n, stat.S_IFIFO | 0o777))):
        name += oct(mask); make(name)
        assert os.stat(name).st_mode & 0o777 == 0o777 & ~mask, (name, oct(os.stat(name).st_mode))
"""
    )


def test_remove(work):
    """unlink(2) and rmdir(2): names go, links count down, what is open stays usable."""
    work.run(
        """
put("a", "still here"); os.link("a", "b")
fd = os.open("a", os.O_RDWR)
os.unlink("a"); assert os.fstat(fd).st_nlink == 1
os.unlink("b"); assert os.fstat(fd).st_nlink == 0
assert os.pread(fd, 99, 0) == b"still here"
os.pwrite(fd, b"S", 0); os.ftruncate(fd, 5); assert os.pread(fd, 99, 0) == b"Still"; os.fchmod(fd, 0o600)
assert os.fstat(fd).st_mode & 0o777 == 0o600
os.close(fd)
fails("ENOENT", os.stat, "a"); fails("ENOENT", os.unlink, "a")
put("a", "anew"); assert get("a") == "anew"
os.mkdir("dir"); put("dir/file")
fails("ENOTEMPTY", os.rmdir, "dir"); fails("EISDIR", os.unlink, "dir"); fails("ENOTDIR", os.rmdir, "a")
before = os.stat(".").st_nlink
os.unlink("dir/file"); os.rmdir("dir"); assert os.stat(".").st_nlink == before - 1
fails("ENOENT", os.rmdir, "dir"); os.mkdir("dir"); assert os.listdir("dir") == []
os.mkdir("cwd"); os.chdir("cwd"); os.rmdir("../cwd"); fails("ENOENT", os.open, "file", os.O_CREAT | os.O_WRONLY)
"""
    )
    assert sorted(os.listdir(work.host)) == ["a", "dir"]


def test_hard_links(work):
    """link(2): one inode, of which each name shows every change."""
    work.run(
        """
put("one", "1")
for number in range(20):
    os.link("one", f"link{number}")
assert os.stat("link7").st_nlink == 21
put("link3", "changed"); assert get("one") == "changed" and os.stat("link9").st_size == 7
fails("EEXIST", os.link, "one", "link3"); fails("ENOENT", os.link, "none", "x")
os.mkdir("dir"); fails("EPERM", os.link, "dir", "dir2")
os.symlink("one", "sym"); os.link("sym", "sym2", follow_symlinks=False); assert os.readlink("sym2") == "one"
before = os.stat("one").st_ctime_ns
os.unlink("link0"); info = os.stat("one"); assert info.st_nlink == 20 and info.st_ctime_ns >= before
"""
    )
    assert os.stat(work.host / "one").st_nlink == 20


def test_rename(work):
    """rename(2) of files and directories, over others, across directories, and what it must refuse."""
    work.run(
        """
put("a", "A"); put("b", "B"); os.mkdir("d"); os.mkdir("d/e"); put("d/e/f", "F"); os.mkdir("empty")
kept = os.open("b", os.O_RDONLY)
os.rename("a", "b"); assert get("b") == "A"; fails("ENOENT", os.stat, "a")
assert os.fstat(kept).st_nlink == 0 and os.read(kept, 9) == b"B"; os.close(kept)
os.rename("b", "d/b"); assert get("d/b") == "A" and os.listdir("d/e") == ["f"]
os.rename("d/e", "e"); assert get("e/f") == "F"; assert os.stat("d").st_nlink == 2
os.rename("e", "empty"); assert get("empty/f") == "F"
fails("ENOTEMPTY", os.rename, "d", "empty")
put("file"); fails("ENOTDIR", os.rename, "d", "file"); fails("EISDIR", os.rename, "file", "d")
fails("EINVAL", os.rename, "d", "d/below"); fails("ENOENT", os.rename, "missing", "x")
os.rename("file", "file"); os.link("file", "same"); os.rename("file", "same"); assert os.path.exists("file")
fails("EXDEV", os.rename, "file", "/run/file"); fails("EXDEV", os.link, "file", "/run/file")
fails("ENAMETOOLONG", os.rename, "file", "n" * 256)
"""
    )
    assert (work.host / "empty/f").read_text() == "F"
    assert (work.host / "d/b").read_text() == "A"


def test_renameat2(work):
    """RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT."""
    work.run(
        """
put("a", "A"); put("b", "B"); os.mkdir("d"); put("d/x", "X")
def refused(name, *arguments):
    fails(name, renameat2, *arguments)
refused("EEXIST", "a", "b", NOREPLACE); assert get("a") == "A" and get("b") == "B"
renameat2("a", "c", NOREPLACE); assert get("c") == "A"; fails("ENOENT", os.stat, "a")
renameat2("c", "b", EXCHANGE); assert get("c") == "B" and get("b") == "A"
renameat2("c", "d", EXCHANGE); assert get("d") == "B" and get("c/x") == "X"
refused("ENOENT", "c", "missing", EXCHANGE); refused("EINVAL", "c", "d", EXCHANGE | NOREPLACE); refused("EINVAL", "b", "y", 1 << 8)
renameat2("b", "w", WHITEOUT); assert get("w") == "A"
info = os.lstat("b"); assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
"""
    )
    info = os.lstat(work.host / "b")
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def test_names_of_the_host(work):
    """A request that fails because the host was faster leaves nothing wrong behind."""
    for name in ("gone", "moved", "linked"):
        (work.host / name).write_text(name)
    (work.host / "dir").mkdir()
    work.run("for name in ('gone', 'moved', 'linked', 'dir'): os.stat(name)")
    (work.host / "gone").unlink()
    (work.host / "moved").rename(work.host / "elsewhere")
    (work.host / "dir").rmdir()
    (work.host / "dir").write_text("a file now")
    work.run(
        """
for call in (lambda: os.unlink("gone"), lambda: os.rename("moved", "x")):
    try:
        call()
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("no error")
fails("ENOENT", os.stat, "gone"); fails("ENOENT", os.stat, "moved")
try:
    os.rmdir("dir")
except OSError as error:
    assert error.errno == errno.ENOTDIR
assert get("dir") == "a file now" and get("elsewhere") == "moved"
put("gone", "again"); assert get("gone") == "again"
"""
    )


def test_tree_and_parallel(work):
    """A few thousand names made by several processes at once are all there, and all go."""
    work.run(
        """
def make(number):
    os.mkdir(f"p{number}")
    for index in range(150):
        name = f"p{number}/f{index}"
        put(name + ".tmp", name); os.rename(name + ".tmp", name)
        put(f"shared-{index}", str(number))
        if index % 3 == 0:
            os.link(name, name + "-link"); os.symlink(name, name + "-sym")
pids = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            make(number); os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True); os._exit(1)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
for number in range(4):
    assert len(os.listdir(f"p{number}")) == 250
    assert all(get(f"p{number}/f{index}") == f"p{number}/f{index}" for index in range(150))
assert all(get(f"shared-{index}") in "0123" for index in range(150))
""",
        timeout=180.0,
    )
    names = [name for _, _, files in os.walk(work.host) for name in files]
    assert len(names) == 4 * 250 + 150


def test_tmpfile_without(work):
    """A daemon without TMPFILE gives EOPNOTSUPP, as filesystems without it do; who can do without goes on."""
    work.run(
        """
for _ in range(2):
    fails("EOPNOTSUPP", os.open, ".", os.O_TMPFILE | os.O_RDWR)
import tempfile
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x" * 10000); file.seek(0); assert file.read() == b"x" * 10000
assert os.listdir(".") == []
"""
    )


def test_tmpfile(boot_rig):
    """A file without a name is written to, read back, and given a name, unless O_EXCL says that it will have none; then it is gone."""
    rig = boot_rig(settings={"trace": 100})
    rig.guest.mount("daxd")
    rig.guest.python(
        PRELUDE
        + """
def given(fd, name):
    if libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, name.encode(), 0x400):
        raise OSError(ctypes.get_errno(), name)
data = bytes(range(256)) * 400
kept, alone, lost = (os.open(".", os.O_TMPFILE | flags, 0o640) for flags in (os.O_RDWR, os.O_RDWR | os.O_EXCL, os.O_WRONLY))
for fd in (kept, alone, lost):
    assert os.write(fd, data) == len(data)
    info = os.fstat(fd); assert (info.st_nlink, info.st_size, stat.S_IFMT(info.st_mode)) == (0, len(data), stat.S_IFREG)
for fd in (kept, alone):
    assert os.pread(fd, 1 << 20, 0) == data
fails("EBADF", os.pread, lost, 1, 0)
assert os.listdir(".") == []
fails("ENOENT", given, alone, "alone")
given(kept, "kept"); assert os.fstat(kept).st_nlink == os.stat("kept").st_nlink == 1
assert open("kept", "rb").read() == data
os.pwrite(kept, b"more", len(data)); os.close(kept)
assert os.stat("kept").st_size == len(data) + 4 and os.listdir(".") == ["kept"]
""",
        "/mnt",
    )
    assert [request["opcode"] for request in rig.daxd.trace()].count("TMPFILE") == 3
    assert os.listdir(rig.tree.path) == ["kept"]
    assert (rig.tree / "kept").read_bytes() == bytes(range(256)) * 400 + b"more"
    assert os.stat(rig.tree / "kept").st_mode & 0o7777 == 0o640
    rig.guest.umount()
    rig.unmounted()


def test_read_only_mount(boot, tree):
    """EROFS from a mount that is read-only, but EEXIST for what is there; nothing reaches the host."""
    tree.file("file", "x")
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    guest.run("mount -o remount,ro /mnt")
    assert errno_of(guest, "os.open('/mnt/new', os.O_CREAT | os.O_WRONLY)") == "EROFS"
    assert errno_of(guest, "os.open('/mnt/file', os.O_CREAT | os.O_EXCL | os.O_WRONLY)") == "EEXIST"
    assert errno_of(guest, "os.open('/mnt/file', os.O_CREAT | os.O_WRONLY)") == "EROFS"
    assert errno_of(guest, "os.close(os.open('/mnt/file', os.O_CREAT | os.O_RDONLY))") == "OK"
    for call in ("mkdir('/mnt/new')", "unlink('/mnt/file')", "rename('/mnt/file', '/mnt/b')", "chmod('/mnt/file', 0)", "truncate('/mnt/file', 0)"):
        assert errno_of(guest, f"os.{call}") == "EROFS", call
    guest.run("mount -o remount,rw /mnt && touch /mnt/new && umount /mnt")
    assert sorted(os.listdir(tree.path)) == ["file", "new"] and (tree / "file").read_text() == "x"


def test_idmapped_mount(boot, tree):
    """An idmapped mount shows other owners, and what is made through it belongs to the mapped ones."""
    tree.file("file", "x")
    os.chown(tree / "file", 1000, 1000)
    os.chown(tree.path, 1000, 1000)
    guest = boot(Share(tree.path, "tag"))
    guest.mount("tag")
    if guest.run("mount --help | grep -q map-users", check=False).rc:
        pytest.skip("the guest's mount(8) has no idmapped mounts")
    guest.run("mkdir -p /run/mapped && mount --bind -o X-mount.idmap='u:1000:2000:1 g:1000:2000:1' /mnt /run/mapped")
    assert guest.out("stat -c %u:%g /run/mapped/file") == "2000:2000"
    guest.python(
        "import os\nos.setgroups([]); os.setresgid(2000, 2000, 2000); os.setresuid(2000, 2000, 2000)\n"
        "os.mkdir('/run/mapped/dir'); open('/run/mapped/made', 'w').close(); os.chmod('/run/mapped/file', 0o600)\n"
    )
    assert guest.out("stat -c %u:%g /run/mapped/made /run/mapped/dir") == "2000:2000\n2000:2000"
    guest.run("umount /run/mapped")
    assert os.stat(tree / "made").st_uid == os.stat(tree / "dir").st_gid == 1000
    assert os.stat(tree / "file").st_mode & 0o777 == 0o600
    guest.umount()
