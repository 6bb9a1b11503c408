# SPDX-License-Identifier: GPL-2.0
"""Access control lists: who may do what, how they are inherited and what becomes of the mode; daemons that leave them alone, or lie."""

import os
import struct
import tempfile

import pytest
from conftest import errno_of
from guest import Share
from test_namespace import PRELUDE

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NONE = 0xFFFFFFFF
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def acl(*entries, version=2):
    """An ACL as the kernel has it in extended attributes: entries are (tag, permissions, id)."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def usual(user=4, mask=7, other=0, who=1000):
    """One named user beside owner, group and others."""
    return acl((OWNER, 7, NONE), (USER, user, who), (GROUP, 0, NONE), (MASK, mask, NONE), (OTHER, other, NONE))


# For scripts in the guest, after PRELUDE: the error that somebody gets.
OUTCOME = """
def outcome(uid, gid, function, *arguments, groups=()):
    result = os.pipe()
    def task():
        try:
            function(*arguments); name = "OK"
        except OSError as error:
            name = errno.errorcode[error.errno]
        os.write(result[1], name.encode())
    as_user(uid, gid, list(groups), task)
    name = os.read(result[0], 100).decode()
    os.close(result[0]); os.close(result[1])
    return name
def read(path): open(path).close()
def write(path): open(path, "a").close()
def sh(command):
    import subprocess
    return subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE, text=True).stdout
def entries(path):
    return sorted(line for line in sh(f"getfacl -cnp -E {path}").split() if line)
"""


@pytest.fixture
def acls(boot, tree):
    """A guest whose daemon has ACLs, and whose host changes them behind its back at times."""
    guest = boot(Share(tree.path, "tag", daemon_args=["--posix-acl", "--modcaps=+sys_admin"]))

    def run(script):
        return guest.python(PRELUDE + OUTCOME + script, "/mnt").stdout

    guest.run_acl = run
    return guest


def test_access(acls, tree):
    """Named users and groups get what the mask leaves them, in walks as in opens; the owner does not need it."""
    tree.file("file", "text").chmod(0o600)
    os.setxattr(tree / "file", ACCESS, usual(user=6, mask=4))
    tree.file("dir/inner", "x").chmod(0o644)
    (tree / "dir").chmod(0o700)
    os.setxattr(tree / "dir", ACCESS, acl((OWNER, 7, NONE), (GROUP, 0, NONE), (NAMED_GROUP, 1, 77), (MASK, 7, NONE), (OTHER, 0, NONE)))
    acls.mount("tag")
    acls.run_acl(
        """
for _ in range(3):
    assert outcome(1000, 1000, read, "file") == "OK" and outcome(1000, 1000, write, "file") == "EACCES"
    assert outcome(1001, 1001, read, "file") == "EACCES"
    for groups in ([77], [5, 77]):
        assert outcome(1001, 1001, read, "dir/inner", groups=groups) == "OK"
        assert outcome(1001, 1001, os.stat, "dir/inner", groups=groups) == "OK"
        assert outcome(1001, 1001, os.listdir, "dir", groups=groups) == "EACCES"
    assert outcome(1001, 77, read, "dir/inner") == "OK"
    assert outcome(1001, 1001, read, "dir/inner") == outcome(1001, 1001, os.stat, "dir/inner") == "EACCES"
# From here on who asks sees what was changed.
sh("setfacl -m u:1001:r,u:1002:-,m:rw file; setfacl -x g:77 dir; setfacl -m u:1003:rx dir")
assert outcome(1001, 1001, read, "file") == outcome(1000, 1000, write, "file") == "OK"
assert outcome(1002, 1002, read, "file") == "EACCES"
assert outcome(1001, 1001, read, "dir/inner", groups=[77]) == "EACCES"
assert outcome(1003, 1003, os.listdir, "dir") == outcome(1003, 1003, read, "dir/inner") == "OK"
"""
    )
    assert b"\xe9\x03\x00\x00" in os.getxattr(tree / "file", ACCESS)
    os.setxattr(tree / "file", ACCESS, usual(user=0))
    (tree / "dir").chmod(0o700)
    # Attributes are good for a second.
    acls.run_acl(
        """
import time
time.sleep(1.1)
assert outcome(1000, 1000, read, "file") == outcome(1001, 1001, read, "file") == "EACCES"
assert outcome(1003, 1003, read, "dir/inner") == "EACCES"
assert "user:1000:---" in entries("file"), entries("file")
"""
    )
    acls.umount()


def test_mode(acls, tree):
    """ACL and mode say the same, whichever is changed; an ACL that is only a mode is none; errors are those of setfacl's page."""
    tree.file("file", "x").chmod(0o640)
    (tree / "dir").mkdir()
    acls.mount("tag")
    acls.run_acl(
        """
mode = lambda path: os.stat(path).st_mode & 0o7777
assert mode("file") == 0o640 and entries("file") == ["group::r--", "other::---", "user::rw-"]
sh("setfacl -m u:1000:rwx file"); assert mode("file") == 0o670 and "mask::rwx" in entries("file")
os.chmod("file", 0o600); assert mode("file") == 0o600
assert entries("file") == sorted("user::rw- user:1000:rwx group::r-- mask::--- other::---".split()), entries("file")
assert outcome(1000, 1000, read, "file") == "EACCES"
os.chmod("file", 0o640); assert outcome(1000, 1000, read, "file") == "OK" and outcome(1000, 1000, write, "file") == "EACCES"
sh("setfacl -n -m o:rw file"); assert mode("file") == 0o646
sh("setfacl -b file"); assert mode("file") == 0o646 and "system.posix_acl_access" not in os.listxattr("file")
assert outcome(1000, 1000, write, "file") == "OK"
sh("setfacl --set u::rw,g::r,o::- file")
assert mode("file") == 0o640 and "system.posix_acl_access" not in os.listxattr("file")
fails("ENODATA", os.getxattr, "file", "system.posix_acl_access")
sh("setfacl -m u:1000:r file"); os.removexattr("file", "system.posix_acl_access"); assert outcome(1000, 1000, read, "file") == "EACCES"
value = os.getxattr("dir", "system.posix_acl_default") if "system.posix_acl_default" in os.listxattr("dir") else None
assert value is None
sh("setfacl -d -m u:1000:r dir"); value = os.getxattr("dir", "system.posix_acl_default")
fails("EACCES", os.setxattr, "file", "system.posix_acl_default", value)
assert outcome(1000, 1000, os.setxattr, "file", "system.posix_acl_access", value) == "EPERM"
fails("EINVAL", os.setxattr, "file", "system.posix_acl_access", value[:-1])
fails("EINVAL", os.setxattr, "file", "system.posix_acl_access", value[:-8])
fails("EOPNOTSUPP", os.setxattr, "file", "system.posix_acl_access", b"\\3" + value[1:])
os.symlink("file", "link"); fails("EOPNOTSUPP", os.getxattr, "link", "system.posix_acl_access", follow_symlinks=False)
fails("EOPNOTSUPP", os.setxattr, "link", "system.posix_acl_access", value, follow_symlinks=False)
sh("setfacl -k dir"); assert "system.posix_acl_default" not in os.listxattr("dir")
assert outcome(1000, 1000, os.lstat, "link") == "OK"
# The set-group-id bit goes with an ACL by an owner who is not in the group.
os.mkdir("free"); os.chmod("free", 0o777)
for uid, gid, kept in ((1000, 1000, 0), (1000, 500, 0o2000), (0, 0, 0o2000)):
    put("free/sgid"); os.chown("free/sgid", uid, 500); os.chmod("free/sgid", 0o2755)
    as_user(uid, gid, [], sh, "setfacl -m u:1001:rx free/sgid")
    assert mode("free/sgid") == 0o755 | kept, (uid, gid, oct(mode("free/sgid"))); os.unlink("free/sgid")
"""
    )
    acls.umount()


def test_inheritance(acls, tree):
    """What is made in a directory with a default ACL gets that and not the umask; elsewhere the umask counts."""
    (tree / "with").mkdir()
    (tree / "without").mkdir()
    os.setxattr(tree / "with", DEFAULT, usual(user=7, mask=7, other=5))
    acls.mount("tag")
    acls.run_acl(
        """
mode = lambda path: oct(os.stat(path).st_mode & 0o7777)
os.umask(0o077)
for where, file_mode, dir_mode in (("with", 0o664, 0o775), ("without", 0o600, 0o700)):
    put(where + "/file"); os.mkdir(where + "/dir"); os.mknod(where + "/fifo", stat.S_IFIFO | 0o666); os.symlink("x", where + "/link")
    os.close(os.open(where + "/narrow", os.O_CREAT | os.O_RDWR, 0o640))
    for name in ("file", "fifo"):
        assert mode(f"{where}/{name}") == oct(file_mode), (where, name, mode(f"{where}/{name}"))
    assert mode(where + "/dir") == oct(dir_mode), mode(where + "/dir")
assert mode("with/narrow") == oct(0o640) and mode("without/narrow") == oct(0o600)
assert entries("with/file") == sorted("user::rw- user:1000:rwx group::--- mask::rw- other::r--".split()), entries("with/file")
assert "mask::r--" in entries("with/narrow")
assert outcome(1000, 1000, write, "with/file") == "OK" and outcome(1000, 1000, write, "with/narrow") == "EACCES"
assert os.getxattr("with/dir", "system.posix_acl_default") == os.getxattr("with", "system.posix_acl_default")
os.mkdir("with/dir/deeper"); assert outcome(1000, 1000, os.mkdir, "with/dir/deeper/made") == "OK"
for name in ("file", "dir", "fifo"):
    assert not [key for key in os.listxattr("without/" + name) if "acl" in key]
"""
    )
    assert b"\xe8\x03\x00\x00" in os.getxattr(tree / "with" / "dir", DEFAULT)
    acls.umount()


def test_idmapped(acls, tree):
    """Through an idmapped mount an ACL names the users that the mount shows."""
    tree.file("file", "x").chmod(0o600)
    os.setxattr(tree / "file", ACCESS, usual())
    acls.mount("tag")
    acls.run("mkdir -p /run/mapped && mount --bind -o X-mount.idmap='u:0:0:1 u:1000:2000:1 g:0:0:1 g:1000:2000:1' /mnt /run/mapped")
    acls.run_acl(
        """
os.chdir("/run/mapped")
assert "user:2000:r--" in entries("file")
assert outcome(2000, 2000, read, "file") == "OK" and outcome(1000, 1000, read, "file") == "EACCES"
sh("setfacl -m u:2000:rw file")
os.chdir("/mnt")
assert outcome(1000, 1000, write, "file") == "OK" and "user:1000:rw-" in entries("file")
"""
    )
    acls.run("umount /run/mapped")
    acls.umount()


RIG = {}


def files(tree):
    """A file that an ACL opens for user 1000."""
    tree.file("dir/file", "text").chmod(0o640)
    os.chown(tree / "dir" / "file", 0, 500)
    os.setxattr(tree / "dir" / "file", ACCESS, usual(user=4))
    tree.file("plain", "text").chmod(0o640)


def as_1000(what):
    """A statement for the hand: it is done by user 1000, and raises what that gets."""
    return f"""
def task():
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
            {what}
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    code = os.waitpid(pid, 0)[1] >> 8
    if code:
        raise OSError(code, "as user")
task()
"""


@pytest.mark.beyond_c("ACLs are read anew with every open")
def test_cached(rig):
    """An ACL is read once for as long as the attributes are good, also in walks; a change makes it be read again."""
    # Without KEEP_CACHE, attributes from before an open(2) are not good after it.
    rig.daxd.configure(init_flags="+POSIX_ACL", attr_timeout=3600, entry_timeout=3600, open_flags="KEEP_CACHE")
    rig.guest.mount("daxd")
    reads = lambda: rig.daxd.counters()["requests"].get("GETXATTR", 0)
    opened = as_1000("for _ in range(20): os.stat('/mnt/dir/file'); open('/mnt/dir/file').close()")
    assert rig.hand.do(opened) == "OK"
    # The root, the directory, the file.
    first = reads()
    assert 0 < first <= 3
    assert rig.hand.do(opened) == "OK" and reads() == first
    # Without attributes nothing is asked either.
    assert rig.hand.do("os.getxattr('/mnt/dir/file', 'system.posix_acl_access')") == "OK" and reads() == first
    assert rig.hand.do("os.chmod('/mnt/dir/file', 0o600)") == "OK"
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "EACCES"
    assert rig.hand.do("os.chmod('/mnt/dir/file', 0o640)") == "OK"
    assert rig.hand.do(opened) == "OK" and first < reads() <= first + 4
    rig.guest.umount()
    rig.unmounted()


def test_left_alone(rig):
    """A daemon that does not offer them keeps ACLs to itself: they are stored and shown, and decide about nothing here."""
    rig.daxd.configure(init_flags="-POSIX_ACL")
    rig.guest.mount("daxd")
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "EACCES"
    assert rig.hand.do("os.getxattr('/mnt/dir/file', 'system.posix_acl_access').hex()") == "OK"
    assert rig.hand.value == os.getxattr(rig.tree / "dir" / "file", ACCESS).hex()
    assert rig.hand.do(f"os.setxattr('/mnt/plain', 'system.posix_acl_access', bytes.fromhex('{usual(user=6).hex()}'))") == "OK"
    assert os.getxattr(rig.tree / "plain", ACCESS) == usual(user=6)
    assert rig.hand.do("os.getxattr('/mnt/plain', 'system.posix_acl_access').hex()") == "OK" and rig.hand.value == usual(user=6).hex()
    assert rig.hand.do(as_1000("open('/mnt/plain').close()")) == "EACCES"
    assert rig.hand.do("os.removexattr('/mnt/plain', 'system.posix_acl_access'); os.chmod('/mnt/plain', 0o640)") == "OK"
    assert ACCESS not in os.listxattr(rig.tree / "plain")
    rig.guest.umount()
    rig.unmounted()


def test_virtiofsd_without(boot, tree):
    """virtiofsd refuses them unless told otherwise, and so do its guests."""
    tree.file("file", "x").chmod(0o600)
    os.setxattr(tree / "file", ACCESS, usual())
    guest = boot(Share(tree.path, "tag", daemon_args=["--xattr"]))
    guest.mount("tag")
    assert errno_of(guest, f"os.getxattr('/mnt/file', '{ACCESS}')") == "ENOTSUP"
    assert errno_of(guest, f"os.setxattr('/mnt/file', '{ACCESS}', bytes.fromhex('{usual().hex()}'))") == "ENOTSUP"
    assert guest.out("ls -l /mnt/file").startswith("-rw")
    guest.umount()


BAD = {
    "version": acl((OWNER, 7, NONE), (GROUP, 0, NONE), (OTHER, 0, NONE), version=3),
    "length": usual()[:-3],
    "short": b"\2\0",
    "tag": acl((OWNER, 7, NONE), (64, 7, NONE), (GROUP, 0, NONE), (OTHER, 0, NONE)),
    "permissions": acl((OWNER, 7, NONE), (USER, 0xFFFF, 1000), (GROUP, 0, NONE), (MASK, 7, NONE), (OTHER, 0, NONE)),
    "id": usual(who=NONE),
    "incomplete": acl((OWNER, 7, NONE), (USER, 7, 1000), (GROUP, 0, NONE), (MASK, 7, NONE)),
    "order": acl((OTHER, 0, NONE), (MASK, 7, NONE), (GROUP, 0, NONE), (USER, 7, 1000), (OWNER, 7, NONE)),
    "mask": acl((OWNER, 7, NONE), (USER, 7, 1000), (GROUP, 0, NONE), (OTHER, 0, NONE)),
}


@pytest.mark.beyond_c("what is no proper ACL is taken as one, or called a mistake of the caller (EINVAL)")
def test_malformed(rig):
    """What is no ACL is EIO for whom it would decide about, and one line in the log; the owner does not care."""
    rig.daxd.configure(init_flags="+POSIX_ACL")
    rig.guest.mount("daxd")
    pace = 0
    for name, value in BAD.items():
        if pace and pace % 3 == 0:
            # Below the limit of lines.
            rig.guest.run("sleep 5")
        pace += 1
        rig.daxd.set_fault("truncate", "GETXATTR", len=16 + len(value))
        rig.daxd.set_fault("patch", "GETXATTR", offset=16, hex=value.hex())
        done, lines = rig.hand.lines(as_1000("open('/mnt/dir/file').close()"))
        assert done == "EIO", (name, done)
        assert len(lines) == 1 and "access control list" in lines[0], (name, lines)
        assert rig.hand.do("os.getxattr('/mnt/dir/file', 'system.posix_acl_access')") == "EIO", name
        assert rig.hand.do("open('/mnt/dir/file').close()") == "OK"
        rig.daxd.clear_faults()
        assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "OK"
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("error, expected", [("ENODATA", "EACCES"), ("EIO", "EIO"), ("ENOMEM", "ENOMEM"), ("ERANGE", "E2BIG")])
def test_errors(rig, error, expected):
    """Without an ACL mode and group decide; what keeps it from being read denies the access."""
    rig.daxd.configure(init_flags="+POSIX_ACL")
    rig.guest.mount("daxd")
    rig.daxd.set_fault("error", "GETXATTR", errno=error)
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == expected
    rig.daxd.clear_faults()
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "OK"
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.beyond_c("access to what is on a filesystem without ACLs is denied (EOPNOTSUPP)")
def test_filesystem_without(rig):
    """Where the host's filesystem has no ACLs, mode and group decide."""
    rig.daxd.configure(init_flags="+POSIX_ACL")
    rig.guest.mount("daxd")
    rig.daxd.set_fault("error", "GETXATTR", errno="EOPNOTSUPP")
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "EACCES"
    assert rig.hand.do("os.getxattr('/mnt/dir/file', 'system.posix_acl_access')") == "ENOTSUP"
    rig.daxd.clear_faults()
    assert rig.hand.do(as_1000("open('/mnt/dir/file').close()")) == "OK"
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.beyond_c("larger ones cannot be read (E2BIG)")
def test_large(boot):
    """An ACL of more than a page is stored, shown, and decides."""
    # Not every filesystem has room for it.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.chmod(directory, 0o755)
        users = [(USER, 4, 1000 + number) for number in range(1000)]
        value = acl((OWNER, 7, NONE), *users, (GROUP, 0, NONE), (MASK, 7, NONE), (OTHER, 0, NONE))
        guest = boot(Share(directory, "tag", daemon_args=["--posix-acl", "--modcaps=+sys_admin"]))
        guest.mount("tag")
        guest.python(
            PRELUDE
            + OUTCOME
            + f"""
put("file", "x"); os.chmod("file", 0o700)
value = bytes.fromhex("{value.hex()}")
os.setxattr("file", "system.posix_acl_access", value)
put("/proc/sys/vm/drop_caches", "3")
assert os.getxattr("file", "system.posix_acl_access") == value
assert [outcome(uid, uid, read, "file") for uid in (1000, 1999, 2000)] == ["OK", "OK", "EACCES"]
""",
            "/mnt",
        )
        assert os.getxattr(f"{directory}/file", ACCESS) == value
        guest.umount()
