# SPDX-License-Identifier: GPL-2.0
"""Proves the test daemon against the kernel's own C driver: what it serves is right, and each fault arrives.

scripts/enter pytest tests/daxd
"""

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "scripts"), str(TOP / "tests" / "daxd")]

from daxd import Daxd, DaxdError  # noqa: E402
from guest import Guest, Share  # noqa: E402

DIGEST = """
import hashlib, json, os, stat, sys
def entry(path):
    st = os.lstat(path)
    if stat.S_ISLNK(st.st_mode): what = os.readlink(path)
    elif stat.S_ISREG(st.st_mode): what = hashlib.sha256(open(path, 'rb').read()).hexdigest()
    else: what = str(st.st_rdev)
    return [os.path.relpath(path, sys.argv[1]), st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, what]
names = [os.path.join(at, name) for at, dirs, files in os.walk(sys.argv[1]) for name in dirs + files]
print(json.dumps([entry(name) for name in sorted(names)]))
"""

CHANGES = """
import os, stat
os.chdir('/mnt')
os.makedirs('w/a/b')
open('w/f', 'wb').write(b'x' * 300000)
os.link('w/f', 'w/g'), os.symlink('f', 'w/s'), os.rename('w/g', 'w/h')
os.chown('w/f', 5, 6), os.chmod('w/f', 0o4755), os.truncate('w/f', 100001), os.utime('w/f', ns=(1, 123456789))
fd = os.open('w/h', os.O_RDWR)
os.posix_fallocate(fd, 0, 200000), os.pwrite(fd, b'abc', 150000), os.fsync(fd)
assert os.pread(fd, 3, 150000) == b'abc' and os.lseek(fd, 9, os.SEEK_DATA) == 9
to = os.open('w/copy', os.O_WRONLY | os.O_CREAT, 0o640)
assert os.copy_file_range(fd, to, 1000) == 1000
os.mknod('w/fifo', 0o644 | stat.S_IFIFO), os.mknod('w/dev', 0o600 | stat.S_IFCHR, os.makedev(259, 70000))
os.setxattr('w/f', 'user.k', b'v')
assert os.getxattr('w/f', 'user.k') == b'v' and os.listxattr('w/f') == ['user.k']
os.removexattr('w/f', 'user.k')
os.write(os.open('w', os.O_TMPFILE | os.O_RDWR), b'temporary')
os.rmdir('w/a/b'), os.mkdir('w/gone'), os.rmdir('w/gone'), os.unlink('w/h')
os.chmod('w/a', 0o2777)
if os.fork() == 0:
    os.setgid(77), os.setuid(78), os.umask(0o027)
    open('w/a/mine', 'w').write('m'), os.mkdir('w/a/dir')
    os._exit(0)
assert os.wait()[1] == 0
os.sync()
"""

MIXTURE = """
import hashlib, mmap, os, random, sys
random.seed(int(sys.argv[1]))
size, path = 4 << 20, '/mnt/mix' + sys.argv[1]
model = bytearray(random.randbytes(size))
open(path, 'wb').write(model)
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, size)
for step in range(1000):
    at, n = random.randrange(size - 65536), random.randrange(1, 65536)
    data = random.randbytes(n) if step % 2 else None
    if data: model[at:at + n] = data
    if data and step % 3: os.pwrite(fd, data, at)
    elif data: m[at:at + n] = data
    else: assert (os.pread(fd, n, at) if step % 4 else m[at:at + n]) == model[at:at + n], step
m.flush(), os.fsync(fd)
print(hashlib.sha256(model).hexdigest())
"""

LOCKER = """
import fcntl, pathlib, sys, time
f = open('/mnt/f', 'r+')
fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
pathlib.Path(sys.argv[1]).touch()
while not pathlib.Path('/tmp/unlock').exists(): time.sleep(0.02)
"""


def md5(path):
    """The digest of a file of the host."""
    return hashlib.md5(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def running(directory, **options):
    """A daemon, and a guest with the C driver, whatever its kernel says."""
    directory.chmod(0o755)
    with Daxd(directory, tag="share", **options) as daxd:
        with Guest([Share(**daxd.share())], driver="c", name="daxd", expected=[".*"]) as guest:
            yield daxd, guest


@pytest.fixture(scope="module", name="plain")
def plain_fixture(tmp_path_factory):
    """A guest whose caches are off, on the device whose configuration space is the daemon's."""
    options = {"attr_timeout": 0, "entry_timeout": 0, "open_flags": "DIRECT_IO", "test_device": True}
    with running(tmp_path_factory.mktemp("share"), queues=2, **options) as (daxd, guest):
        yield daxd, guest


@pytest.fixture(scope="module", name="window")
def window_fixture(tmp_path_factory):
    """A guest with a window of eight ranges of the C driver."""
    with running(tmp_path_factory.mktemp("share"), queues=2, window="16M") as (daxd, guest):
        yield daxd, guest


@pytest.fixture(name="faulty")
def faulty_fixture(plain):
    """The plain guest, mounted afresh, with a file and a directory."""
    daxd, guest = plain
    share = Path(daxd.directory)
    (share / "f").write_bytes(os.urandom(1 << 20))
    (share / "dir").mkdir(exist_ok=True)
    for name in "abc":
        (share / "dir" / name).touch()
    guest.mount("share")
    guest.run("stat /mnt/dir")
    daxd.reset_counters()
    yield daxd, guest
    daxd.clear_faults()
    daxd.release()
    guest.umount()


def read_tree(guest, directory):
    """A tree as the guest and as the host sees it."""
    scope = {}
    host = DIGEST.replace("print(json.dumps(", "result = ((").replace("sys.argv[1]", repr(str(directory)))
    exec(compile(host, "digest", "exec"), scope)
    return guest.value(DIGEST, "/mnt", timeout=300), scope["result"]


def test_tree_and_changes(plain):
    """What the guest reads is what there is, and what it changes happens; all references come back."""
    daxd, guest = plain
    share = Path(daxd.directory)
    (share / "deep/er").mkdir(parents=True)
    for number in range(300):
        (share / f"deep/er/file{number}").write_bytes(os.urandom(number * 100))
    guest.mount("share")
    guest.python(CHANGES)
    in_guest, on_host = read_tree(guest, share)
    assert in_guest == on_host and len(on_host) > 300
    mine = (share / "w/a/mine").stat()
    assert (mine.st_uid, mine.st_mode & 0o7777) == (78, 0o640)
    assert not (share / "w/h").exists() and (share / "w/copy").stat().st_size == 1000
    guest.run("echo 2 > /proc/sys/vm/drop_caches")
    live = daxd.wait_until(lambda c: c["live"]["inodes"] < 20, "inodes are forgotten")["live"]
    assert live["handles"] == 0
    guest.umount()
    counters = daxd.counters()
    assert counters["session"]["handles_at_destroy"] == 0 and counters["requests"]["DESTROY"] == 1
    assert counters["complaint_texts"] == []


def test_usual_device(tmp_path):
    """The device that QEMU knows serves as well, without event indices and indirect descriptors, too."""
    (tmp_path / "f").write_bytes(os.urandom(3 << 20))
    with running(tmp_path, queues=2, no_event_idx=True, no_indirect=True) as (daxd, guest):
        guest.mount("share")
        assert guest.out("md5sum < /mnt/f").split()[0] == md5(tmp_path / "f")
        assert daxd.complaints() == []


EIO = "Input/output error"
STAT_FAULTS = {
    "error": ({"do": "error", "errno": "ENOMEM"}, "Cannot allocate memory"),
    "error-number": ({"do": "error", "errno": 28}, "No space left"),
    "positive": ({"do": "raw_error", "value": 5}, EIO),
    "out-of-range": ({"do": "raw_error", "value": -4096}, EIO),
    "error-with-body": ({"do": "raw_error", "value": -5}, EIO),
    "no-header": ({"do": "truncate", "len": 0}, EIO),
    "half-header": ({"do": "truncate", "len": 8}, EIO),
    "short": ({"do": "truncate", "len": 40}, EIO),
    "short-claims-long": ({"do": "truncate", "len": 40, "keep_len": True}, EIO),
    "header-disagrees": ({"do": "header_len", "add": 8}, EIO),
    "beyond-room": ({"do": "pad", "bytes": 4096}, EIO),
    "used-beyond-room": ({"do": "used_len", "value": 1 << 30}, EIO),
    "other-unique": ({"do": "unique", "add": 2}, EIO),
    "mode-0": ({"do": "set", "fields": {"attr.mode": 0}}, EIO),
    "negative-size": ({"do": "set", "fields": {"attr.size": -1}}, EIO),
    "other-type": ({"do": "set", "fields": {"attr.mode": 0o40755}}, EIO),
    "root-as-child": ({"do": "set", "fields": {"entry.nodeid": 1}}, EIO),
    "negative-entry": ({"do": "set", "fields": {"entry.nodeid": 0, "entry.entry_valid": 9}}, "No such file"),
    "patched": ({"do": "patch", "offset": 16, "hex": "00" * 8}, "No such file"),
}


@pytest.mark.parametrize("name", STAT_FAULTS)
def test_wrong_lookups(faulty, name):
    """Each wrong reply to LOOKUP reaches the driver."""
    daxd, guest = faulty
    action, message = STAT_FAULTS[name]
    # The type is wrong only for who knows another.
    holder = guest.out("sleep 60 3< /mnt/f > /dev/null 2>&1 & echo $!")
    daxd.set_fault(opcodes="LOOKUP", **action)
    result = guest.run("stat /mnt/f", check=False)
    guest.run(f"kill {holder}")
    assert result.rc and message in result.stderr


@pytest.mark.parametrize("fields", [{"dirent.namelen": 0}, {"dirent.namelen": 5000}, {"dirent.name": "/"}], ids=str)
def test_wrong_directories(faulty, fields):
    """Each wrong record of a directory reaches the driver."""
    daxd, guest = faulty
    daxd.set_fault("set", ["READDIR", "READDIRPLUS"], fields=fields)
    result = guest.run("ls /mnt/dir", check=False)
    assert result.rc and EIO in result.stderr


@pytest.mark.parametrize("fault", [("set", {"fields": {"init.major": 8}}), ("truncate", {"len": 16}), ("error", {"errno": "EPERM"})], ids=str)
def test_wrong_init(faulty, fault):
    """A version that is not supported, a short reply and an error to INIT reach the driver."""
    daxd, guest = faulty
    guest.umount()
    do, members = fault
    daxd.set_fault(do, "INIT", **members)
    result = guest.run("mount -t virtiofs share /mnt && ls /mnt", check=False)
    assert result.rc
    daxd.clear_faults()
    guest.run("umount /mnt", check=False)
    guest.mount("share")


def test_rules_choose(faulty):
    """Skipped requests pass, counted ones are hit, and the rest passes."""
    daxd, guest = faulty
    daxd.set_fault("error", "LOOKUP", errno="EIO", skip=1, count=2)
    script = "for i in 1 2 3 4; do stat /mnt/f > /dev/null 2>&1 && echo right || echo wrong; done"
    assert guest.out(script).split() == ["right", "wrong", "wrong", "right"]
    assert daxd.faults()[0]["hits"] == 2
    with pytest.raises(DaxdError, match="no such field"):
        daxd.set_fault("set", "LOOKUP", fields={"attr.colour": 1})


def test_hold_and_release(faulty):
    """A reply is kept back while other requests are served, and let go."""
    daxd, guest = faulty
    daxd.hold("LOOKUP", count=1)
    process = guest.spawn("stat -c %s /mnt/f")
    assert daxd.wait_for_held()[0]["opcode"] == "LOOKUP"
    guest.run("stat -f /mnt")
    assert process.poll() is None
    assert daxd.release(opcode="LOOKUP") == 1
    assert process.wait().stdout == f"{1 << 20}\n"


def test_late_and_reordered(faulty):
    """Replies and interrupts come late, and replies in another order; contents stay right."""
    daxd, guest = faulty
    for do in ("delay", "delay_interrupt"):
        daxd.set_fault(do, "LOOKUP", ms=600, count=1)
        start = time.monotonic()
        guest.run("stat /mnt/f")
        assert time.monotonic() - start > 0.5, do
    daxd.set_fault("reorder", "READ", window=3, flush_ms=100)
    data = (Path(daxd.directory) / "f").read_bytes()
    want = [hashlib.md5(data[at : at + (128 << 10)]).hexdigest() for at in range(0, 1 << 20, 128 << 10)]
    script = "for i in 0 1 2 3 4 5 6 7; do dd if=/mnt/f bs=128k skip=$i count=1 2>/dev/null | md5sum > /tmp/sum$i & done; wait"
    assert guest.out(f"{script}; cat /tmp/sum?").replace("-", "").split() == want
    assert daxd.counters()["faults"]["reorder"] >= 8


def test_settings_change(faulty):
    """ENOSYS for an opcode, absent names that may be cached, the record of requests."""
    daxd, guest = faulty
    daxd.configure(enosys="STATFS", negative_timeout=60.0, trace=100)
    assert "not implemented" in guest.run("stat -f /mnt", check=False).stderr
    guest.run("stat /mnt/none; stat /mnt/none", check=False)
    daxd.configure(enosys="", negative_timeout=0.0)
    traced = [(entry["opcode"], bytes.fromhex(entry["args"])) for entry in daxd.trace()]
    assert traced.count(("LOOKUP", b"none\0")) == 1
    daxd.configure(trace=0)


def test_locks(plain):
    """A lock is refused and waited for while another process has it."""
    daxd, guest = plain
    (Path(daxd.directory) / "f").touch()
    daxd.configure(init_flags="+POSIX_LOCKS")
    guest.mount("share")
    first = guest.spawn_python(LOCKER, "/tmp/first")
    guest.wait_until(lambda: guest.run("test -e /tmp/first", check=False).rc == 0, "the first lock")
    second = guest.spawn_python(LOCKER, "/tmp/second")
    daxd.wait_for_count("SETLKW", 2)
    time.sleep(0.3)
    assert guest.run("test -e /tmp/second", check=False).rc
    guest.run("touch /tmp/unlock")
    assert (first.wait().rc, second.wait().rc) == (0, 0)
    guest.umount()
    daxd.configure(init_flags="")


def test_reset_queue_is_left_alone(faulty):
    """Replies that are held for a device that was unbound are dropped."""
    daxd, guest = faulty
    device = guest.out("basename $(readlink /sys/fs/virtiofs/*/device)")
    driver = "/sys/bus/virtio/drivers/virtiofs"
    # The C driver waits for every reply before it gives the device up, so this one comes after the reset was begun.
    daxd.hold("LOOKUP")
    process = guest.spawn("stat /mnt/f")
    daxd.wait_for_held()
    unbind = guest.spawn(f"echo {device} > {driver}/unbind")
    time.sleep(0.3)
    daxd.clear_faults()
    assert daxd.release() == 1
    unbind.wait(), process.wait()
    guest.umount()
    guest.run(f"echo {device} > {driver}/bind")
    guest.mount("share")
    assert guest.run("ls /mnt/dir").stdout.split() == ["a", "b", "c"]
    assert daxd.held() == []


def test_configuration_space(tmp_path):
    """Tags and numbers of queues that no daemon should show."""
    (tmp_path / "f").touch()
    kinds = [{"raw_tag": ""}, {"raw_tag": b"a\nb".hex()}, {"raw_tag": (b"F" * 36).hex()}, {"config_queues": 0}]
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(Daxd(tmp_path, **kind)) for kind in kinds]
        shares = [Share(**daxd.share()) for daxd in daemons]
        guest = stack.enter_context(Guest(shares, driver="c", name="daxd", expected=[".*"]))
        guest.load()
        assert guest.out("cat /sys/fs/virtiofs/*/tag") == "F" * 36
        guest.mount("F" * 36)
        assert guest.out("ls /mnt") == "f"


def test_window(window):
    """Reads, writes and mappings through the window, several processes, ranges reclaimed all the time."""
    daxd, guest = window
    share = Path(daxd.directory)
    for number in range(20):
        (share / f"file{number}").write_bytes(os.urandom(number * 300_001))
    guest.mount("share", options="dax=always")
    in_guest, on_host = read_tree(guest, share)
    assert in_guest == on_host
    processes = [guest.spawn_python(MIXTURE, seed) for seed in (1, 2, 3)]
    for seed, process in enumerate(processes, 1):
        result = process.wait(300)
        assert result.rc == 0, result
        assert result.stdout.strip() == hashlib.sha256((share / f"mix{seed}").read_bytes()).hexdigest()
    dax = daxd.counters()["dax"]
    assert dax["setup"] > 30 and dax["remove"] > 10 and dax["setup_past_eof"] and daxd.maps()
    assert (dax["map_refused"], dax["unmap_refused"], dax["barrier_timeouts"]) == (0, 0, 0)
    guest.umount()
    assert daxd.counters()["live"]["maps"] == 0 and daxd.complaints() == []


def test_window_faults(window):
    """SETUPMAPPING fails at first and in the middle; the file is read without the window otherwise."""
    daxd, guest = window
    share = Path(daxd.directory)
    (share / "big").write_bytes(os.urandom(6 << 20))
    for errno, message in (("ENOMEM", "Cannot allocate memory"), ("EIO", EIO), ("ENOSYS", "not implemented")):
        guest.mount("share", options="dax=always")
        daxd.set_fault("error", "SETUPMAPPING", errno=errno, skip=1, count=1)
        assert message in guest.run("cat /mnt/big > /dev/null", check=False).stderr
        assert guest.out("md5sum < /mnt/big").split()[0] == md5(share / "big")
        daxd.clear_faults()
        guest.umount()


def test_files_marked_for_dax(window):
    """Only the marked file is mapped when the guest leaves the choice to the daemon."""
    daxd, guest = window
    share = Path(daxd.directory)
    for name in ("marked", "other"):
        (share / name).write_bytes(os.urandom(3 << 20))
    daxd.configure(inode_dax="listed")
    daxd.mark_dax("marked")
    daxd.reset_counters()
    guest.mount("share")
    for name in ("marked", "other"):
        assert guest.out(f"md5sum < /mnt/{name}").split()[0] == md5(share / name)
    inode = next(inode["nodeid"] for inode in daxd.live()["inodes"] if inode["path"].endswith("/marked"))
    assert {entry["nodeid"] for entry in daxd.maps()} == {inode}
    assert daxd.counters()["bytes"]["read"] == 3 << 20
    guest.umount()
    daxd.configure(inode_dax="off")


def test_window_of_a_reset_device(window):
    """A device that was reset works again. (QEMU 11.1 itself dies when that happens while something is mapped.)"""
    daxd, guest = window
    share = Path(daxd.directory)
    (share / "again").write_bytes(os.urandom(5 << 20))
    guest.mount("share", options="dax=always")
    guest.run("md5sum < /mnt/again")
    assert daxd.maps()
    guest.umount()
    device = guest.out("basename $(readlink /sys/fs/virtiofs/*/device)")
    for action in ("unbind", "bind"):
        guest.run(f"echo {device} > /sys/bus/virtio/drivers/virtiofs/{action}")
    daxd.reset_counters()
    guest.mount("share", options="dax=always")
    assert guest.out("md5sum < /mnt/again").split()[0] == md5(share / "again")
    assert daxd.counters()["dax"]["setup"] == 3
    guest.umount()
    assert daxd.complaints() == []


def test_handles_are_not_needed(plain):
    """Where OPEN and OPENDIR are not known, files and directories are read without."""
    daxd, guest = plain
    share = Path(daxd.directory)
    (share / "unopened").write_bytes(os.urandom(1 << 20))
    daxd.configure(enosys="OPEN,OPENDIR", init_flags="+NO_OPEN_SUPPORT,+NO_OPENDIR_SUPPORT")
    daxd.reset_counters()
    guest.mount("share")
    assert guest.out("md5sum < /mnt/unopened").split()[0] == md5(share / "unopened")
    assert "unopened" in guest.out("ls /mnt")
    guest.umount()
    daxd.configure(enosys="", init_flags="")
    assert daxd.complaints() == []


def test_no_window(plain):
    """Without a window the C driver refuses dax=always."""
    daxd, guest = plain
    assert guest.mount("share", options="dax=always", check=False).rc
    assert daxd.complaints() == []


def test_forged_entries(tmp_path):
    """Entries of the used ring that answer nothing reach the driver, whose queue is lost after that."""
    for forge in ("duplicate", "never", "out of the blue"):
        with Daxd(tmp_path, tag="share") as daxd:
            with Guest([Share(**daxd.share())], driver="c", name="daxd", expected=[".*"]) as guest:
                guest.mount("share")
                if forge == "duplicate":
                    daxd.set_fault("duplicate_used", "STATFS", count=1)
                elif forge == "never":
                    daxd.set_fault("forge_used", "STATFS", count=1, id=5000)
                else:
                    daxd.forge_used(1, 3)
                guest.run("timeout 5 stat -f /mnt", check=False)
                guest.wait_until(lambda: "is not a head" in guest.dmesg() or "out of range" in guest.dmesg(), forge)


def test_death(tmp_path):
    """The daemon dies at the request that it is told to die at, with the code that it is told."""
    with Daxd(tmp_path, tag="share") as daxd:
        with Guest([Share(**daxd.share())], driver="c", name="daxd", expected=[".*"]) as guest:
            guest.mount("share")
            daxd.set_fault("exit", "STATFS", skip=1, code=7)
            guest.run("stat -f /mnt")
            guest.spawn("stat -f /mnt")
            assert guest.shares[0].process.wait(20) == 7
            with pytest.raises(DaxdError, match="gone"):
                daxd.counters()
            guest.kill()
            # Nothing is left to power off.
            guest.qemu = guest.agent = None
