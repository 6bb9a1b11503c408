# SPDX-License-Identifier: GPL-2.0
"""Names that are good for a while in the guest, and that the host removes or replaces meanwhile."""

import os
import shutil

import pytest

HOUR = {"entry_timeout": 3600, "attr_timeout": 3600}
RIG = {"settings": HOUR}


def files(tree):
    """What is shared."""
    tree.file("plain/file", "x")


@pytest.fixture
def mounted(rig):
    """The share on /mnt, with names and attributes that are good for an hour, and an empty directory for the test."""
    shutil.rmtree(rig.tree / "t", ignore_errors=True)
    os.mkdir(rig.tree / "t")
    rig.guest.mount("daxd", "/mnt")
    yield rig
    rig.daxd.clear_faults()
    rig.guest.umount("/mnt")
    rig.unmounted()


def do(rig, statement):
    """Runs a statement in the guest that must succeed; what it was."""
    assert rig.hand.do(statement) == "OK", statement
    return rig.hand.value


def requests(rig, *opcodes):
    """How many requests of each kind there were since the last time this was asked."""
    seen = [rig.daxd.count(opcode) for opcode in opcodes]
    rig.daxd.reset_counters()
    return seen


@pytest.mark.parametrize(
    "error",
    [
        *[
            pytest.param(error, marks=pytest.mark.beyond_c("an error of LOOKUP undoes mounts below the name"))
            for error in ("EMFILE", "ENFILE", "EIO", "EACCES", "EPERM")
        ],
        "ENOMEM",
        "EINTR",
    ],
)
def test_error_of_lookup_is_no_answer(mounted, error):
    """A daemon that cannot look a name up has not said that it is gone: who asks gets the error, and what is mounted on it stays."""
    os.mkdir(mounted.tree / "t/dir")
    mounted.daxd.configure(entry_timeout=0)
    do(mounted, "os.stat('/mnt/t/dir')")
    mounted.guest.run("mount -t tmpfs below /mnt/t/dir && echo kept >/mnt/t/dir/file")
    mounted.daxd.set_fault("error", "LOOKUP", errno=error)
    assert mounted.hand.do("os.stat('/mnt/t/dir/file')") == error
    mounted.daxd.clear_faults()
    assert mounted.guest.out("cat /mnt/t/dir/file") == "kept"
    mounted.guest.run("umount /mnt/t/dir")


def test_removed_name_undoes_mounts(mounted):
    """What is mounted on a directory goes with it, when the host has removed or replaced it."""
    for number, again in enumerate([False, True]):
        path = mounted.tree / f"t/dir{number}"
        os.mkdir(path)
        mounted.daxd.configure(entry_timeout=0)
        do(mounted, f"os.stat('/mnt/t/dir{number}')")
        mounted.guest.run(f"mount -t tmpfs below /mnt/t/dir{number}")
        os.rename(path, mounted.tree / f"t/other{number}")
        if again:
            os.mkdir(path)
        assert mounted.hand.do(f"os.stat('/mnt/t/dir{number}')") == ("OK" if again else "ENOENT")
        assert mounted.guest.out("grep -c ' /mnt/t/' /proc/mounts || true") == "0"


# What the host does to a file that the guest knows, and what is found under its name before the guest opens it.
SAVED = {"removed": "ENOENT", "moved": "ENOENT", "replaced": "of another"}


@pytest.mark.beyond_c("writes to what had the name")
@pytest.mark.parametrize("flags", ["O_CREAT | os.O_TRUNC", "O_CREAT", "O_CREAT | os.O_APPEND"])
@pytest.mark.parametrize("how", SAVED)
def test_what_is_saved_has_the_name(mounted, how, flags):
    """What a program saves by open(2) with O_CREAT is found under that name, whatever the host has done to what had it, however long
    the name is good; and what had the name keeps its contents."""
    name, aside = mounted.tree / "t/doc", mounted.tree / "t/aside"
    name.write_text("first\n")
    os.link(name, mounted.tree / "t/link")
    do(mounted, "read('/mnt/t/doc')")
    if how == "moved":
        os.rename(name, aside)
    elif how == "removed":
        os.unlink(name)
    else:
        aside.write_text("")
        os.rename(aside, name)
    do(mounted, f"fd = os.open('/mnt/t/doc', os.{flags} | os.O_WRONLY)")
    do(mounted, "os.write(fd, b'second\\n')")
    do(mounted, "os.close(fd)")
    assert name.read_text() == "second\n"
    assert (mounted.tree / "t/link").read_text() == "first\n"


@pytest.mark.beyond_c("trusts the name")
def test_requests_of_creating_opens(mounted):
    """open(2) with O_CREAT of a name that is good has it looked up once; no other open has, and a new file is made by one request."""
    (mounted.tree / "t/doc").write_text("first\n")
    do(mounted, "os.stat('/mnt/t/doc')")
    asked = ("LOOKUP", "OPEN", "CREATE")
    requests(mounted)
    do(mounted, "os.close(os.open('/mnt/t/doc', os.O_CREAT | os.O_WRONLY))")
    assert requests(mounted, *asked) == [1, 1, 0]
    do(mounted, "os.close(os.open('/mnt/t/doc', os.O_WRONLY))")
    assert requests(mounted, *asked) == [0, 1, 0]
    do(mounted, "os.close(os.open('/mnt/t/new', os.O_CREAT | os.O_WRONLY))")
    assert requests(mounted, *asked) == [0, 0, 1]


@pytest.mark.beyond_c("trusts the name, and opens what had it")
def test_name_of_what_is_known_to_be_removed(mounted):
    """What is known to have no link any more, by an open file, has no name: the next open(2) or stat(2) finds what has it now, however
    long the name is good. Later ones ask for nothing."""
    (mounted.tree / "t/doc").write_text("first\n")
    do(mounted, "kept = os.open('/mnt/t/doc', os.O_RDONLY)")
    (mounted.tree / "t/aside").write_text("the second\n")
    os.rename(mounted.tree / "t/aside", mounted.tree / "t/doc")
    # Its reply tells.
    do(mounted, "os.fchmod(kept, 0o600)")
    assert do(mounted, "os.fstat(kept).st_nlink") == 0
    requests(mounted)
    assert do(mounted, "os.stat('/mnt/t/doc').st_size") == len("the second\n")
    assert do(mounted, "open('/mnt/t/doc').read()") == "the second\n"
    # Once to learn that it is another file, and once by the VFS, which then has no name any more.
    assert requests(mounted, "LOOKUP", "OPEN") == [2, 1]
    assert do(mounted, "os.pread(kept, 100, 0).decode()") == "first\n"
    do(mounted, "os.close(kept)")


def volume(mounted, version, keys=("key", "other")):
    """As a Kubernetes volume is updated: the new version in a directory of its own, one rename of the link, the old one removed."""
    top = mounted.tree / "t"
    old = os.readlink(top / "..data") if os.path.lexists(top / "..data") else None
    new = f"..2026_{version}"
    os.mkdir(top / new)
    for key in keys:
        (top / new / key).write_text(f"{version}\n")
        if not os.path.lexists(top / key):
            os.symlink(f"..data/{key}", top / key)
    os.symlink(new, top / "..tmp")
    os.rename(top / "..tmp", top / "..data")
    if old:
        shutil.rmtree(top / old)


READ = "open('/mnt/t/{key}').read()"


@pytest.mark.beyond_c("trusts each component of a path for itself")
@pytest.mark.parametrize(
    "before",
    [
        "open('/mnt/t/key').read()",
        "os.stat('/mnt/t/..data/.'), os.lstat('/mnt/t/other')",
        "os.lstat('/mnt/t/..data'), os.lstat('/mnt/t/other')",
        "os.lstat('/mnt/t/..data'), os.lstat('/mnt/t/other'), os.lstat('/mnt/t/..2026_1')",
        "os.listdir('/mnt/t')",
    ],
    ids=["key", "directory", "link", "link-and-directory", "listed"],
)
@pytest.mark.parametrize(
    ("use", "is_new"),
    [
        ("open('/mnt/t/other').read()", "2\n"),
        ("os.stat('/mnt/t/other').st_size", 2),
        ("sorted(os.listdir('/mnt/t/..data/'))", ["key", "other"]),
        ("open('/mnt/t/..data/more', 'w').close() or os.path.basename(os.path.realpath('/mnt/t/..data'))", "..2026_2"),
    ],
    ids=["open", "stat", "list", "create"],
)
def test_replaced_volume(mounted, before, use, is_new):
    """What a volume always has is found right after the host has replaced it, however much of the path to it is good still."""
    volume(mounted, 1)
    do(mounted, f"({before}) and None")
    volume(mounted, 2)
    assert do(mounted, use) == is_new


@pytest.mark.beyond_c("trusts each component of a path for itself")
def test_replaced_directory(mounted):
    """What was there, and is not any more in the directory that a good name leads to, is looked for in the one that has that name now."""
    os.mkdir(mounted.tree / "t/dir")
    (mounted.tree / "t/dir/file").write_text("first\n")
    do(mounted, "os.stat('/mnt/t/dir')")
    mounted.daxd.configure(entry_timeout=0)
    do(mounted, "kept = os.open('/mnt/t/dir/file', os.O_RDONLY)")
    shutil.rmtree(mounted.tree / "t/dir")
    os.mkdir(mounted.tree / "t/dir")
    (mounted.tree / "t/dir/file").write_text("the second\n")
    assert do(mounted, "os.stat('/mnt/t/dir/file').st_size") == len("the second\n")
    do(mounted, "os.close(kept)")


def test_missing_names_cost_one_request(mounted):
    """A name that is not there costs one LOOKUP, as shells and compilers look for many; after a symbolic link, one GETATTR more."""
    os.symlink("../plain", mounted.tree / "t/link")
    do(mounted, "os.stat('/mnt/plain'), os.stat('/mnt/t/link/.') and None")
    mounted.guest.run("true")
    assert mounted.hand.do("os.stat('/mnt/plain/nothing')") == "ENOENT"
    requests(mounted)
    for call in ("os.stat('{}')", "os.open('{}', os.O_RDONLY)", "os.open('{}', os.O_PATH)", "os.unlink('{}')"):
        assert mounted.hand.do(call.format("/mnt/plain/nothing")) == "ENOENT"
        assert requests(mounted, "LOOKUP", "GETATTR", "READLINK") == [1, 0, 0]
    assert mounted.hand.do("os.stat('/mnt/t/link/nothing')") == "ENOENT"
    ours = mounted.options["driver"] == "rust"
    assert requests(mounted, "LOOKUP", "GETATTR", "READLINK") == [1, ours, not ours]


def test_name_that_is_gone(mounted):
    """A name that was there and is gone is ENOENT, for each call, and so is everything in a directory that the host has removed."""
    for call in ("os.stat('{}')", "os.open('{}', os.O_RDONLY)", "os.unlink('{}')", "os.rename('{}', '/mnt/t/b')", "os.truncate('{}', 0)"):
        (mounted.tree / "t/a").write_text("a")
        mounted.daxd.configure(entry_timeout=0)
        do(mounted, "os.stat('/mnt/t/a')")
        os.unlink(mounted.tree / "t/a")
        assert mounted.hand.do(call.format("/mnt/t/a")) == "ENOENT", call
    os.mkdir(mounted.tree / "t/dir")
    do(mounted, "os.chdir('/mnt/t/dir')")
    os.rmdir(mounted.tree / "t/dir")
    for call in ("os.stat('a')", "os.open('a', os.O_RDONLY)", "os.open('a', os.O_RDWR | os.O_CREAT)", "os.mkdir('a')", "os.stat('a')"):
        assert mounted.hand.do(call) == "ENOENT", call
    do(mounted, "os.chdir('/')")


@pytest.mark.beyond_c("opens what is gone")
@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_open_of_what_is_gone(mounted, again):
    """When the attributes that open(2) asks for say that the file has no name any more, its name is looked up, however good it is."""
    (mounted.tree / "t/a").write_text("old")
    mounted.daxd.configure(attr_timeout=0)
    do(mounted, "kept = os.open('/mnt/t/a', os.O_RDONLY)")
    if again:
        (mounted.tree / "t/b").write_text("new")
        os.rename(mounted.tree / "t/b", mounted.tree / "t/a")
        assert do(mounted, "open('/mnt/t/a').read()") == "new"
    else:
        os.unlink(mounted.tree / "t/a")
        assert mounted.hand.do("open('/mnt/t/a').read()") == "ENOENT"
    # What is open can be opened once more.
    assert do(mounted, "open(f'/proc/self/fd/{kept}').read()") == "old"
    do(mounted, "os.close(kept)")


@pytest.mark.beyond_c("opens what had the name")
@pytest.mark.parametrize("flags", ["os.O_RDONLY", "os.O_RDWR", "os.O_RDWR | os.O_TRUNC", "os.O_RDONLY | os.O_NOFOLLOW"])
@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
@pytest.mark.parametrize("held", [False, True], ids=["", "open"])
def test_first_open_after_it(mounted, held, again, flags):
    """The first open(2) of a name whose file the host has removed or replaced does not open that file, nor empty it, however good
    name and attributes are; what is open here can be opened once more, and be emptied."""
    name = mounted.tree / "t/a"
    name.write_text("old")
    os.link(name, mounted.tree / "t/kept")
    do(mounted, "os.stat('/mnt/t/a') and None")
    if held:
        do(mounted, "kept = os.open('/mnt/t/a', os.O_RDWR)")
    kept = os.open(name, os.O_RDONLY)
    os.unlink(mounted.tree / "t/kept")
    if again:
        (mounted.tree / "t/b").write_text("new")
        os.rename(mounted.tree / "t/b", name)
        do(mounted, f"fd = os.open('/mnt/t/a', {flags})")
        assert do(mounted, "os.pread(fd, 100, 0).decode()") == ("" if "TRUNC" in flags else "new")
        do(mounted, "os.close(fd)")
    else:
        os.unlink(name)
        assert mounted.hand.do(f"os.open('/mnt/t/a', {flags})") == "ENOENT"
    assert os.pread(kept, 100, 0) == b"old"
    os.close(kept)
    if held:
        for _ in range(2):
            do(mounted, f"fd = os.open(f'/proc/self/fd/{{kept}}', ({flags}) & ~os.O_NOFOLLOW)")
            assert do(mounted, "os.pread(fd, 100, 0).decode()") == ("" if "TRUNC" in flags else "old")
            do(mounted, "os.close(fd)")
        do(mounted, "os.close(kept)")


@pytest.mark.beyond_c("opens what had the name")
def test_first_open_behind_links(mounted):
    """So it is by symbolic links, and for who executes it."""
    for number in (1, 2):
        (mounted.tree / "t/b").write_text(f"#!/bin/echo {number}\n")
        os.chmod(mounted.tree / "t/b", 0o755)
        os.rename(mounted.tree / "t/b", mounted.tree / "t/a")
        if number == 1:
            os.symlink("a", mounted.tree / "t/link")
        assert mounted.guest.out("/mnt/t/link").split()[0] == str(number)
        (mounted.tree / "t/b").write_text(f"text {number}\n")
        os.rename(mounted.tree / "t/b", mounted.tree / "t/a")
        assert do(mounted, "open('/mnt/t/link').read()") == f"text {number}\n"


def test_daemon_that_counts_no_links(mounted):
    """A daemon that says of all files that they have no links has them opened nevertheless."""
    mounted.daxd.set_fault("set", ["LOOKUP", "GETATTR", "READDIRPLUS"], fields={"attr.nlink": 0})
    mounted.guest.run("echo 3 >/proc/sys/vm/drop_caches")
    for _ in range(2):
        assert do(mounted, "open('/mnt/plain/file').read()") == "x"
        assert do(mounted, "os.listdir('/mnt/plain')") == ["file"]
        assert mounted.hand.do("os.open('/mnt/plain/nothing', os.O_RDONLY)") == "ENOENT"
        assert mounted.hand.do("os.stat('/mnt/plain/nothing')") == "ENOENT"


@pytest.mark.beyond_c("the error is taken as it is")
def test_daemon_that_cannot_open(mounted):
    """A file whose OPEN is answered with ENOENT is looked up once more; if it is there, that is the error."""
    (mounted.tree / "t/a").write_text("a")
    do(mounted, "os.stat('/mnt/t/a')")
    mounted.daxd.set_fault("error", "OPEN", errno="ENOENT")
    for _ in range(3):
        requests(mounted)
        assert mounted.hand.do("os.open('/mnt/t/a', os.O_RDONLY)") == "ENOENT"
        assert requests(mounted, "OPEN") == [2]
    mounted.daxd.clear_faults()
    mounted.daxd.set_fault("error", "OPEN", errno="ENOENT", count=1)
    assert do(mounted, "open('/mnt/t/a').read()") == "a"


@pytest.mark.beyond_c("keeps it until memory is short")
def test_closed_after_its_time(mounted):
    """A name that was held for longer than it was good for goes with its last user, and with it the inode's place at the daemon."""
    (mounted.tree / "t/a").write_text("a")
    mounted.daxd.configure(entry_timeout=0.05)
    do(mounted, "fd = os.open('/mnt/t/a', os.O_RDONLY)")
    (node,) = [number for number, path in known(mounted).items() if path.endswith("/t/a")]
    do(mounted, "__import__('time').sleep(0.2)")
    os.unlink(mounted.tree / "t/a")
    # Nobody has asked for the name since, and it is too early for those that nobody uses.
    do(mounted, "os.close(fd)")
    mounted.daxd.wait_until(lambda _: node not in known(mounted), "the file is forgotten")


def known(rig):
    """The inodes that the daemon keeps, and where they are."""
    return {inode["nodeid"]: inode["path"] for inode in rig.daxd.live()["inodes"]}
