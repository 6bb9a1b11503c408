# SPDX-License-Identifier: GPL-2.0
"""Names and attributes: what stat, readlink and statfs tell, and how soon the guest sees what changes on the host."""

import json
import os
import stat

import pytest
from conftest import CACHES, errno_of
from guest import Share

# Walks a tree and prints every entry with its attributes; atime is left out, because reading changes it.
WALK = """
import json, os, sys
top = sys.argv[1]
found = {}
for directory, names, files in os.walk(os.fsencode(top)):
    for name in [b"."] * (directory == os.fsencode(top)) + names + files:
        path = os.path.join(directory, name)
        info = os.lstat(path)
        entry = [info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
        entry += [info.st_blocks, info.st_rdev, info.st_ino]
        entry.append(os.fsdecode(os.readlink(path)) if info.st_mode & 0o170000 == 0o120000 else None)
        found[os.fsdecode(os.path.relpath(path, os.fsencode(top)))] = entry
print(json.dumps(found))
"""


def walk(top):
    """The same as WALK, on the host."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in ["."] * (directory == str(top)) + names + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            entry = [info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
            entry += [info.st_blocks, info.st_rdev, info.st_ino]
            entry.append(os.readlink(path) if stat.S_ISLNK(info.st_mode) else None)
            found[os.path.relpath(path, top)] = entry
    return found


def test_attributes(guest, host, mnt):
    """Every attribute and link target of every entry is the host's: odd names, deep directories, all kinds and times."""
    here = walk(host.path)
    there = guest.value(WALK, mnt, timeout=240)
    different = {name: (here.get(name), there.get(name)) for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
    assert not different


def test_statfs(guest, host, mnt):
    """statfs gives the host filesystem's sizes and name length."""
    script = "import json, os, sys; v = os.statvfs(sys.argv[1]); print(json.dumps([v.f_bsize, v.f_frsize, v.f_blocks, v.f_files, v.f_namemax]))"
    values = os.statvfs(host.path)
    assert guest.value(script, mnt) == [values.f_bsize, values.f_frsize, values.f_blocks, values.f_files, values.f_namemax]
    assert guest.out(f"stat -f -c %t {mnt}") == "65735546"


def test_statx(guest, mnt):
    """statx answers with what it was asked for, also when asked for more than the daemon knows, and with every sync mode."""
    script = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
out = []
for flags in (0, 0x2000, 0x4000):
    for mask in (0x7ff, 0xfff, 0x1fff):
        buffer = (ctypes.c_uint32 * 64)()
        rc = libc.syscall(332, -100, sys.argv[1].encode(), flags, mask, buffer)
        # Type, mode, links, owner, times, number and size are there; the size is the file's.
        out.append([rc, buffer[0] & 0x7ff == 0x7ff, buffer[10]])
print(json.dumps(out))
"""
    assert guest.value(script, f"{mnt}/odd-size") == [[0, True, 123457]] * 9


def test_access(guest, mnt):
    """Permissions of the host's modes hold in the guest for a user who is not root."""
    guest.run(f"setpriv --reuid 12345 --regid 54321 --clear-groups cat {mnt}/kinds/owned")
    script = f"import os; os.setgid(7); os.setuid(7); print(os.access('{mnt}/kinds/disk', os.R_OK), os.access('{mnt}/hello.txt', os.R_OK))"
    assert guest.out(f'python3 -c "{script}"') == "False True"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nothing", "ENOENT"),
        ("hello.txt/below", "ENOTDIR"),
        ("links/loop", "ELOOP"),
        ("links/dangling", "ENOENT"),
        ("n" * 256, "ENAMETOOLONG"),
        ("many/nothing", "ENOENT"),
        ("deep/..", "OK"),
    ],
)
def test_lookup_errors(guest, mnt, path, error):
    """Each way in which a name cannot be found has its own error, the first time and the next."""
    for _ in range(2):
        assert errno_of(guest, "os.stat(a[0])", f"{mnt}/{path}") == error


def test_readlink(guest, host, mnt):
    """Link targets are the host's, of any length and never followed; reading a link that is none is EINVAL."""
    for name in os.listdir(host / "links"):
        script = "import json, os, sys; print(json.dumps(os.readlink(sys.argv[1])))"
        assert guest.value(script, f"{mnt}/links/{name}") == os.readlink(host / "links" / name)
    assert guest.out(f"cat {mnt}/links/relative") == "hello, guest"
    assert errno_of(guest, "os.readlink(a[0])", f"{mnt}/hello.txt") == "EINVAL"
    assert errno_of(guest, "os.open(a[0], os.O_RDONLY | os.O_NOFOLLOW)", f"{mnt}/links/relative") == "ELOOP"


def test_parallel_lookups(guest, host, mnt):
    """Many threads look up many names at a time, existing and not; each gets the right answer."""
    script = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
top = sys.argv[1]
open("/proc/sys/vm/drop_caches", "w").write("2")
def look(number):
    there = os.stat(f"{top}/entry-{number:05}").st_size == len(b"%d\\n" % number)
    gone = not os.path.lexists(f"{top}/absent-{number % 50:05}")
    return there and gone
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(sum(pool.map(look, [n % 1000 for n in range(3000)]))))
"""
    assert guest.value(script, f"{mnt}/many", timeout=180) == 3000


def fresh(boot, tree, *caches):
    """A guest with a tree that its test may change, mounted with each of the cache modes."""
    guest = boot(*(Share(tree.path, cache, daemon_args=[f"--cache={cache}"]) for cache in caches))
    for cache in caches:
        guest.mount(cache, f"/run/{cache}")
    return guest


def sees(guest, path):
    """What a name is in the guest right now: its content, its type, or its error."""
    script = """
import errno, json, os, stat, sys
path = sys.argv[1]
try:
    info = os.lstat(path)
    if stat.S_ISREG(info.st_mode):
        print(json.dumps(open(path).read()))
    elif stat.S_ISLNK(info.st_mode):
        print(json.dumps("-> " + os.readlink(path)))
    else:
        print(json.dumps(sorted(os.listdir(path))))
except OSError as error:
    print(json.dumps(errno.errorcode[error.errno]))
"""
    return guest.value(script, path)


def test_host_changes_appear(boot, tree):
    """What the host creates, changes, renames and removes is seen at once without a cache, and after the timeout with one."""
    guest = fresh(boot, tree, "never", "auto")

    def appears(name, expected):
        assert sees(guest, f"/run/never/{name}") == expected
        guest.wait_until(lambda: sees(guest, f"/run/auto/{name}") == expected, f"{name} is {expected!r}")

    appears("new", "ENOENT")
    tree.file("new", "one")
    appears("new", "one")
    tree.file("new", "two, longer")
    appears("new", "two, longer")
    (tree / "new").rename(tree / "renamed")
    appears("new", "ENOENT")
    appears("renamed", "two, longer")
    (tree / "renamed").chmod(0o4711)
    assert guest.out("stat -c %a /run/never/renamed") == "4711"
    guest.wait_until(lambda: guest.out("stat -c %a /run/auto/renamed") == "4711", "the mode changes")
    (tree / "renamed").unlink()
    appears("renamed", "ENOENT")
    (tree / "dir").mkdir()
    appears("dir", [])
    tree.file("dir/inside")
    appears("dir", ["inside"])


def test_host_changes_of_an_open_file(boot, tree):
    """fstat of an open file, which looks up no name, shows what the host changes: at once, or after the timeout."""
    tree.file("open", "one")
    guest = fresh(boot, tree, "never", "auto")
    for cache in ("never", "auto"):
        script = f"""
import os, time
fd = os.open("/run/{cache}/open", os.O_RDONLY)
def seen():
    return os.fstat(fd).st_size, os.fstat(fd).st_mode & 0o7777
print(seen(), flush=True)
open("/run/open-{cache}", "w").close()
while seen() != (11, 0o600):
    time.sleep(0.02)
"""
        tree.file("open", "one").chmod(0o644)
        process = guest.spawn_python(script)
        guest.wait_until(lambda: guest.run(f"test -e /run/open-{cache}", check=False).rc == 0, "the file is open")
        tree.file("open", "one and two").chmod(0o600)
        assert process.wait().stdout.strip() == "(3, 420)"


def test_always_keeps_what_it_knows(boot, tree):
    """With cache=always the attributes and names that the guest knows stay as they are; new names are found."""
    tree.file("known", "old")
    guest = fresh(boot, tree, "always")
    before = guest.out("stat -c '%s %Y %a' /run/always/known")
    tree.file("known", "new and longer").chmod(0o600)
    tree.file("unknown", "new")
    assert guest.out("stat -c '%s %Y %a' /run/always/known") == before
    assert sees(guest, "/run/always/unknown") == "new"


def test_replaced_and_reused(boot, tree):
    """A name that the host replaces again and again, also by another type, is never seen as a mixture of two."""
    guest = fresh(boot, tree, "never", "auto")
    path = tree / "name"
    for number in range(30):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            path.rmdir()
        expected = [f"file {number}", [], f"-> target{number}"][number % 3]
        if number % 3 == 0:
            path.write_text(expected)
        elif number % 3 == 1:
            path.mkdir()
        else:
            path.symlink_to(f"target{number}")
        assert sees(guest, "/run/never/name") == expected
        if number % 5 == 0:
            guest.wait_until(lambda expected=expected: sees(guest, "/run/auto/name") == expected, f"{expected!r}")
        # Between, the cached mount may know an older one, but never anything else than one of them whole. What it is and what it
        # holds are two calls: an open(2) of what has no link any more looks the name up, and then it may be another type.
        value = sees(guest, "/run/auto/name")
        assert value in ("ENOENT", "ESTALE", "EISDIR", "ENOTDIR", []) or value.startswith(("file ", "-> target")), value


def test_open_file_survives_replacement(boot, tree):
    """A file that is open in the guest still reads its content after the host removed or replaced it."""
    tree.file("file", "old content")
    guest = fresh(boot, tree, *CACHES)
    holders = {
        cache: guest.spawn(f"exec 3</run/{cache}/file; touch /run/open-{cache}; while [ ! -e /run/go ]; do sleep 0.05; done; cat <&3")
        for cache in CACHES
    }
    for cache in CACHES:
        guest.wait_until(lambda cache=cache: guest.run(f"test -e /run/open-{cache}", check=False).rc == 0, "the file is open")
    tree.file("replacement", "new content")
    (tree / "replacement").rename(tree / "file")
    guest.wait_until(lambda: sees(guest, "/run/auto/file") == "new content", "the new file appears")
    guest.run("touch /run/go")
    for cache in CACHES:
        assert holders[cache].wait().stdout == "old content"


def test_removed_directory(boot, tree):
    """A working directory that the host removes gives ENOENT or ESTALE, and the mount goes on."""
    tree.file("dir/file", "x")
    guest = fresh(boot, tree, "auto")
    script = """
import errno, json, os, sys, time
os.chdir("/run/auto/dir")
os.listdir(".")
open("/run/inside", "w")
while not os.path.exists("/run/go"):
    time.sleep(0.05)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    try:
        os.stat("file")
        time.sleep(0.05)
    except OSError as error:
        print(json.dumps(errno.errorcode[error.errno]))
        break
"""
    inside = guest.spawn_python(script)
    guest.wait_until(lambda: guest.run("test -e /run/inside", check=False).rc == 0, "the process is inside")
    (tree / "dir/file").unlink()
    (tree / "dir").rmdir()
    guest.run("touch /run/go")
    assert json.loads(inside.wait(90).stdout) in ("ENOENT", "ESTALE")
    tree.file("after", "works")
    assert sees(guest, "/run/auto/after") == "works"


def test_many_inodes_forgotten(boot, tree):
    """Inodes that the guest drops are forgotten by the daemon: its open files go back to where they were."""
    for number in range(3000):
        tree.file(f"d{number % 10}/f{number}", b"x")
    guest = boot(Share(tree.path, "tag", daemon_args=["--cache=always", "--inode-file-handles=never"]))
    guest.mount("tag")
    daemon = f"/proc/{guest.shares[0].process.pid}/fd"
    before = len(os.listdir(daemon))
    assert guest.out("find /mnt -type f | xargs stat -c %n | wc -l") == "3000"
    assert len(os.listdir(daemon)) > before + 2900
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    guest.wait_until(lambda: len(os.listdir(daemon)) < before + 100, "the daemon's open files are few again")
    assert guest.out("cat /mnt/d7/f7") == "x"
    guest.umount()
