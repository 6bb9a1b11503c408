# SPDX-License-Identifier: GPL-2.0
"""Changes that fail: the caller gets the daemon's error, and whatever is cached says what the host has, done or not done."""

import hashlib
import itertools
import os
import stat

import pytest

# All that can be cached is, for an hour.
RIG = {"settings": {"entry_timeout": 3600, "attr_timeout": 3600, "opendir_flags": "CACHE_DIR,KEEP_CACHE"}}
ERRORS = ("EMLINK", "ENOSPC", "EDQUOT", "EIO")
# Every test has directories of its own.
FRESH = itertools.count()


def files(_tree):
    """What is shared: see `fresh`."""


def fresh(tree):
    """A new directory in the share with one of everything; its name."""
    name = f"fresh{next(FRESH)}"
    path = tree.file(f"{name}/file", 10_000)
    os.setxattr(path, "user.old", b"old")
    os.link(path, tree / name / "hard")
    tree.file(f"{name}/other", 5_000)
    tree.file(f"{name}/full/below", 3)
    (tree / name / "empty").mkdir()
    tree.link(f"{name}/link", "file")
    return name


# What can be seen of such a directory, here and in the guest: of names that are there, and of those that may be one day.
VIEW = """
def view(top):
    def attributes(path):
        at = os.lstat(path)
        return [at.st_mode, at.st_nlink, at.st_size, at.st_mtime_ns, at.st_ctime_ns]
    seen = {"": attributes(top)}
    for name in ["file", "hard", "other", "full", "empty", "link", "new", "moved"]:
        path = top + "/" + name
        try:
            row = attributes(path)
        except FileNotFoundError:
            seen[name] = None
            continue
        if stat.S_ISREG(row[0]):
            with open(path, "rb") as file:
                row.append(hashlib.sha256(file.read()).hexdigest())
            row += [[key, os.getxattr(path, key).hex()] for key in sorted(os.listxattr(path)) if key.startswith("user.")]
        elif stat.S_ISDIR(row[0]):
            row.append(sorted(os.listdir(path)))
        elif stat.S_ISLNK(row[0]):
            row.append(os.readlink(path))
        seen[name] = row
    # At last, as names that it brings are not looked up.
    seen[""].append(sorted(os.listdir(top)))
    return seen
"""
HERE = {"hashlib": hashlib, "os": os, "stat": stat}
exec(VIEW, HERE)  # pylint: disable=exec-used

# What it takes no more when all is cached.
CACHED = {"LOOKUP", "GETATTR", "READ", "READLINK", "READDIR", "READDIRPLUS"}
# The opcode of each change, and what makes it in the directory {d}.
CHANGES = {
    "CREATE": "os.open('{d}/new', os.O_CREAT | os.O_EXCL | os.O_RDWR)",
    "MKNOD": "os.mkfifo('{d}/new')",
    "MKDIR": "os.mkdir('{d}/new')",
    "SYMLINK": "os.symlink('file', '{d}/new')",
    "LINK": "os.link('{d}/other', '{d}/new')",
    "UNLINK": "os.unlink('{d}/hard')",
    "RMDIR": "os.rmdir('{d}/empty')",
    "RENAME": "os.rename('{d}/full', '{d}/moved')",
    "RENAME over": "os.rename('{d}/other', '{d}/file')",
    "RENAME2": "call('renameat2', -100, b'{d}/file', -100, b'{d}/full', 2)",
    "RENAME2 whiteout": "call('renameat2', -100, b'{d}/file', -100, b'{d}/moved', 4)",
    "TMPFILE": "os.open('{d}', os.O_TMPFILE | os.O_RDWR)",
    "SETXATTR": "os.setxattr('{d}/file', 'user.new', b'new')",
    "REMOVEXATTR": "os.removexattr('{d}/file', 'user.old')",
    "SETATTR": "os.chmod('{d}/file', 0o600)",
    "SETATTR size": "os.truncate('{d}/file', 77)",
    "FALLOCATE": "with opened('{d}/file', os.O_RDWR) as fd: call('fallocate', fd, 0, 0, 20_000)",
    "FALLOCATE hole": "with opened('{d}/file', os.O_RDWR) as fd: call('fallocate', fd, 3, 100, 9_000)",
    "COPY_FILE_RANGE_64": (
        "with opened('{d}/other') as other, opened('{d}/file', os.O_RDWR) as fd: os.copy_file_range(other, fd, 5_000, 0, 8_000)"
    ),
    "OPEN": "os.open('{d}/file', os.O_RDWR | os.O_TRUNC)",
    "WRITE direct": (
        "with opened('{d}/file', os.O_RDWR | os.O_DIRECT) as fd, mmap.mmap(-1, 4096) as new: os.pwritev(fd, [new], 8192)"
    ),
    "WRITE": "with opened('{d}/file', os.O_RDWR) as fd: os.pwrite(fd, b'new' * 1000, 9_000)",
}
# What a daemon that does these and says that it failed never gets back: lookups and handles.
LOST = {"OPEN": (0, 1), "CREATE": (1, 1), "TMPFILE": (1, 1), "MKNOD": (1, 0), "MKDIR": (1, 0), "SYMLINK": (1, 0), "LINK": (1, 0)}


@pytest.mark.parametrize(("execute", "errors"), [(False, ERRORS), (True, ERRORS[-1:])], ids=["not-done", "done"])
@pytest.mark.parametrize("change", CHANGES)
def test_failed_change(rig, change, execute, errors):
    """After a change that failed, names, attributes, contents and listings are the host's: also if the daemon has done it all the same."""
    opcode = change.split()[0]
    rig.daxd.configure(negative_timeout=3600, open_flags="KEEP_CACHE", init_flags="+CACHE_SYMLINKS")
    rig.guest.mount("daxd")
    assert rig.hand.do("import stat") == "OK"
    assert rig.hand.do(VIEW) == "OK"
    for error in errors:
        name = fresh(rig.tree)
        before = HERE["view"](str(rig.tree / name))
        for _ in range(3):
            rig.daxd.reset_counters()
            assert rig.hand.do(f"view('/mnt/{name}')") == "OK"
            assert rig.hand.value == before
        # The last time it was cached; after the first one, reading had changed the times of last access.
        requests = rig.daxd.counters()["requests"]
        assert not CACHED & {opcode for opcode, count in requests.items() if count}, requests
        fault = rig.daxd.set_fault("error", opcode, errno=error, execute=execute)
        assert rig.hand.do(CHANGES[change].format(d=f"/mnt/{name}")) == error
        assert rig.daxd.faults()[0]["hits"] == 1
        rig.daxd.clear_fault(fault)
        after = HERE["view"](str(rig.tree / name))
        assert (after != before) == (execute and opcode != "TMPFILE")
        assert rig.hand.do(f"view('/mnt/{name}')") == "OK"
        assert rig.hand.value == after, error
    rig.guest.umount()
    lookups, handles = LOST.get(opcode, (0, 0)) if execute else (0, 0)
    session = rig.daxd.counters()["session"]
    lost = [session[f"{what}_at_destroy"] for what in ("lookups", "handles")]
    assert lost == [len(errors) * lookups, len(errors) * handles], rig.daxd.live()
    assert rig.daxd.complaints() == []
