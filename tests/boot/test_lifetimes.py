# SPDX-License-Identifier: GPL-2.0
"""Requests and replies out of step: late, in another order, for tasks that are gone, of devices that are gone."""

import hashlib
import json
import os
import shlex
import subprocess

import aio
import pytest
from conftest import errno_of, running

RIG = {}
DRIVER = "/sys/bus/virtio/drivers/virtiofs"
FILES = 24


def files(tree):
    """What is shared."""
    for number in range(FILES):
        tree.file(f"many/{number}", 50000 + 1111 * number, seed=number)
    for number in range(40):
        tree.file(f"names/{number}", str(number))
        tree.file(f"late/dir{number}/one", "1")
        tree.link(f"late/link{number}", "target")
    for number in range(4):
        for name in ("gone", "old", "older", "file"):
            os.setxattr(tree.file(f"late/{name}{number}", 50_000), "user.a", b"a")
        (tree / f"late/empty{number}").mkdir()


def digests(tree):
    """What the guest should read."""
    return [hashlib.sha256((tree / f"many/{number}").read_bytes()).hexdigest() for number in range(FILES)]


def blocked_in_fuse(rig, commands, opcodes):
    """Starts commands, each of which waits for a reply that is held."""
    rig.daxd.hold(opcodes)
    tasks = [rig.guest.spawn(command) for command in commands]
    rig.daxd.wait_for_held(len(commands), timeout=30)
    rig.daxd.clear_faults()
    return tasks


PARALLEL = """
import hashlib, json, os, sys
from concurrent.futures import ThreadPoolExecutor
FILES = int(sys.argv[1])
def one(number):
    for name in range(number, number + 10):
        assert os.stat(f"/mnt/names/{name % 40}").st_size == len(str(name % 40)), name
    digest = hashlib.sha256()
    flags = os.O_RDONLY | (os.O_DIRECT if number % 3 == 2 else 0)
    fd = os.open(f"/mnt/many/{number % FILES}", flags)
    if flags == os.O_RDONLY:
        while piece := os.read(fd, 7777):
            digest.update(piece)
    else:
        import mmap
        with mmap.mmap(-1, 1 << 17) as buffer:
            digest.update(buffer[:os.preadv(fd, [buffer], 0)])
    os.close(fd)
    return digest.hexdigest()
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(one, range(3 * FILES)))))
"""


def test_permuted_replies(rig):
    """Replies in random order: each of many parallel readers and lookups gets its own, and all bytes are right."""
    rig.daxd.configure(entry_timeout=0, attr_timeout=0)
    rig.guest.mount("daxd")
    rig.daxd.set_fault("reorder", ["LOOKUP", "GETATTR", "OPEN", "READ"], window=6, flush_ms=20, seed=5)
    assert rig.guest.value(PARALLEL, FILES, timeout=180) == digests(rig.tree) * 3
    assert rig.daxd.faults()[0]["hits"] > 100
    rig.daxd.clear_faults()
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("what", ["delay", "delay_interrupt"])
def test_late_replies(rig, what):
    """Replies, or their interrupts, that come late in any order are waited for, and all bytes are right."""
    rig.guest.mount("daxd")
    rig.daxd.set_fault(what, ["LOOKUP", "READ"], ms=30, probability=0.2, seed=9)
    assert rig.guest.value(PARALLEL, FILES, timeout=180) == digests(rig.tree) * 3
    rig.daxd.clear_faults()
    rig.guest.umount()
    rig.unmounted()


# In what is late a number of the request is {n}, and one of the attempt is {r}.
PYTHON = 'python3 -c "import os; '
LATE = {
    "LOOKUP": "stat /mnt/late/dir{n}",
    "GETATTR": "test -d /mnt",
    "OPEN": "cat /mnt/many/{n}",
    "OPENDIR": "ls /mnt/late/dir{n}",
    "READ": "cat /mnt/many/{n}",
    "READ direct": "dd if=/mnt/many/{n} iflag=direct bs=8192 count=1 of=/dev/null",
    "READDIRPLUS": "ls /mnt/late/dir{n}",
    "READLINK": "readlink /mnt/late/link{n}",
    "STATFS": "stat -f /mnt",
    "CREATE": PYTHON + "os.open('/mnt/late/new{r}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)\"",
    "TMPFILE": PYTHON + "os.open('/mnt/late', os.O_TMPFILE | os.O_WRONLY)\"",
    "MKNOD": "mkfifo /mnt/late/fifo{r}",
    "MKDIR": "mkdir /mnt/late/made{r}",
    "SYMLINK": "ln -s target /mnt/late/symbolic{r}",
    "LINK": "ln /mnt/many/0 /mnt/late/hard{r}",
    "UNLINK": "rm /mnt/late/gone{r}",
    "RMDIR": "rmdir /mnt/late/empty{r}",
    "RENAME": PYTHON + "os.rename('/mnt/late/old{r}', '/mnt/late/moved{r}')\"",
    "RENAME over": PYTHON + "os.rename('/mnt/late/older{r}', '/mnt/late/dir{n}/one')\"",
    "SETATTR": "chmod 640 /mnt/late/file{r}",
    "SETXATTR": "setfattr -n user.late -v late /mnt/late/file{r}",
    "REMOVEXATTR": "setfattr -x user.a /mnt/late/file{r}",
    "FALLOCATE": PYTHON + "os.posix_fallocate(os.open('/mnt/late/file{r}', os.O_RDWR), 0, 100_000)\"",
    "COPY_FILE_RANGE_64": (
        PYTHON + "os.copy_file_range(os.open('/mnt/many/0', os.O_RDONLY), os.open('/mnt/late/file{r}', os.O_RDWR), 50_000)\""
    ),
    "WRITE": PYTHON + "os.write(os.open('/mnt/late/file{r}', os.O_RDWR), bytes(5000))\"",
}
# The guest's view of what these change, which the host has, too.
STATE = "cd {} && find late many -printf '%p %y %m %n %s %l\\n' | LC_ALL=C sort"


@pytest.mark.parametrize("request_", LATE)
def test_reply_after_the_kill(rig, request_):
    """A task killed while it waits is gone at once; what its late reply brings is given back: no inode, lookup or handle is left.

    And what it has changed all the same is seen.
    """
    number = list(LATE).index(request_)
    rig.daxd.configure(negative_timeout=3600)
    rig.guest.mount("daxd")
    rig.guest.run("stat /mnt/late /mnt/many >/dev/null")
    for attempt in range(3):
        command = LATE[request_].format(n=number, r=attempt)
        (task,) = blocked_in_fuse(rig, [f"exec {command}"], request_.split()[0])
        task.kill()
        rig.guest.wait_until(lambda task=task: not running(rig.guest, task), "the task is gone")
        assert rig.daxd.counters()["live"]["held"] == 1
        rig.daxd.release()
        rig.daxd.wait_until(lambda counters: counters["live"]["handles"] == 0, "all handles are released")
    assert rig.guest.run(LATE[request_].format(n=number, r=3)).rc == 0
    on_host = subprocess.run(["sh", "-c", STATE.format(shlex.quote(str(rig.tree)))], check=True, stdout=subprocess.PIPE, text=True)
    assert rig.guest.out(STATE.format("/mnt")).splitlines() == on_host.stdout.splitlines()
    rig.guest.umount()
    rig.unmounted()


IN_ORDER = """
import mmap, os, sys, threading, time
count = int(sys.argv[1])
fds = [os.open(f"/mnt/many/{number}", os.O_RDONLY | os.O_DIRECT) for number in range(count)]
failed = []
def read(number):
    with mmap.mmap(-1, 4096) as buffer:
        if os.preadv(fds[number], [buffer], 0) != 4096:
            failed.append(number)
threads = []
deadline = time.monotonic() + 300
for number in range(count):
    thread = threading.Thread(target=read, args=(number,))
    thread.start()
    threads.append(thread)
    # The next one begins when this one waits in preadv or preadv2.
    while not open(f"/proc/self/task/{thread.native_id}/syscall").read().startswith(("295 ", "327 ")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
open("/run/all-wait", "w")
for thread in threads:
    thread.join()
print(failed)
"""


@pytest.mark.parametrize("size", [8, 16])
def test_full_ring(boot_rig, size):
    """With more requests than the ring has room for, the rest waits its turn: all are answered, in the order in which they came."""
    rig = boot_rig(files=files, daxd={"queue_size": size}, settings={"trace": 1000, "attr_timeout": 3600, "entry_timeout": 3600})
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd")
    daxd.hold("READ")
    reader = guest.spawn_python(IN_ORDER, FILES)
    guest.wait_until(
        lambda: reader.poll() or guest.run("test -e /run/all-wait", check=False).rc == 0, "all readers wait", timeout=60
    )
    assert not reader.poll(), reader.result
    held = daxd.held()
    assert 1 <= len(held) < FILES, len(held)
    released = 0
    while released < FILES:
        daxd.wait_for_held()
        released += daxd.release(count=1)
    daxd.clear_faults()
    assert reader.wait().stdout.strip() == "[]"
    order = [request["nodeid"] for request in daxd.trace() if request["opcode"] == "READ"]
    names = {inode["nodeid"]: inode for inode in daxd.live()["inodes"]}
    assert len(order) == FILES
    assert [str(names[node]["path"]).rsplit("/", 1)[-1] for node in order] == [str(number) for number in range(FILES)]
    guest.umount()
    rig.unmounted()


def test_full_ring_many_processes(boot_rig):
    """A ring of eight entries serves many processes at once, and none is forgotten."""
    rig = boot_rig(files=files, daxd={"queue_size": 8}, cpus=2)
    rig.guest.mount("daxd")
    assert rig.guest.value(PARALLEL, FILES, timeout=240) == digests(rig.tree) * 3
    rig.guest.umount()
    rig.unmounted()


def test_killed_while_parked(boot_rig):
    """Tasks killed while their requests wait for room in the ring are gone; the others are served, and nothing is left."""
    # Names that are known, so that each task asks for one of its own.
    rig = boot_rig(files=files, daxd={"queue_size": 4}, settings={"attr_timeout": 3600, "entry_timeout": 3600})
    guest, daxd = rig.guest, rig.daxd
    guest.mount("daxd")
    guest.run("stat /mnt/many /mnt/names >/dev/null")
    daxd.hold("LOOKUP")
    tasks = [guest.spawn(f"exec stat /mnt/names/{number}") for number in range(10)]
    daxd.wait_for_held(4)
    guest.wait_until(lambda: all(not task.poll() for task in tasks), "all wait")
    for task in tasks[::2]:
        task.kill()
    guest.wait_until(lambda: not any(running(guest, task) for task in tasks[::2]), "half of them are gone")
    daxd.clear_faults()
    daxd.release()
    assert [task.wait().rc for task in tasks[1::2]] == [0] * 5
    guest.umount()
    rig.unmounted()


def killed_in_readahead(rig):
    """A mount, and replies to READs whose tasks, which waited for room in the background, have been killed."""
    rig.daxd.configure(max_background=1)
    rig.tree.file("big", 4 << 20)
    rig.guest.mount("daxd")
    rig.daxd.hold("READ")
    tasks = [rig.guest.spawn(f"exec cat {name} >/dev/null") for name in ("/mnt/big", "/mnt/many/1", "/mnt/many/2", "/mnt/many/3")]
    rig.daxd.wait_for_held(4)
    for task in tasks:
        task.kill()
    rig.guest.wait_until(lambda: not any(running(rig.guest, task) for task in tasks), "all are gone")
    rig.daxd.clear_faults()


def test_killed_reader_with_full_background(rig):
    """A reader killed while it waits for room in the background leaves what it began to others: they read the file, umount works."""
    killed_in_readahead(rig)
    rig.daxd.release()
    right = hashlib.sha256((rig.tree / "big").read_bytes()).hexdigest()
    assert rig.guest.out("sha256sum </mnt/big", timeout=30).split()[0] == right
    rig.guest.umount()
    rig.unmounted()


def test_killed_reader_and_forced_umount(rig):
    """What such a reader began ends with a forced unmount, though the daemon has not answered: no folio stays locked."""
    killed_in_readahead(rig)
    rig.guest.run("umount -f /mnt || umount /mnt", timeout=30)
    assert rig.guest.run("grep -q ' /mnt ' /proc/mounts", check=False).rc == 1
    assert rig.daxd.release() >= 4
    rig.guest.mount("daxd")
    assert rig.guest.out("sha256sum </mnt/many/5").split()[0] == digests(rig.tree)[5]
    rig.guest.umount()
    rig.unmounted()


WAITERS = {
    "exec python3 -c \"import os; os.stat('/mnt/names/5')\"": "LOOKUP",
    "exec python3 -c \"import os; os.statvfs('/mnt')\"": "STATFS",
    "exec cat /mnt/many/5": "READ",
    "exec ls /mnt/names": "READDIRPLUS",
    "exec dd if=/mnt/many/6 iflag=direct bs=8192 count=1": "READ",
}


def all_waiters(rig):
    """A mount, and a task in each kind of wait."""
    rig.guest.mount("daxd")
    rig.guest.run("stat /mnt/late /mnt/many /mnt/names >/dev/null; cat /mnt/many/6 >/dev/null")
    rig.daxd.configure(entry_timeout=3600)
    rig.guest.run("stat /mnt/late /mnt/many /mnt/names /mnt/many/5 /mnt/many/6 >/dev/null")
    return blocked_in_fuse(rig, list(WAITERS), list(set(WAITERS.values())))


def ended(tasks, *texts):
    """Waits for the end of tasks that must all have failed with one of these texts."""
    for task in tasks:
        result = task.wait(30)
        assert result.rc and any(text in result.stderr for text in texts), result


def test_forced_umount_with_held_replies(rig):
    """umount -f ends every wait with ENOTCONN; the mount can go; replies that come after that break nothing."""
    guest, daxd = rig.guest, rig.daxd
    tasks = all_waiters(rig)
    guest.run("umount -f /mnt", check=False)
    ended(tasks, "not connected")
    if guest.run("grep -q ' /mnt ' /proc/mounts", check=False).rc == 0:
        assert errno_of(guest, "os.statvfs('/mnt')") == "ENOTCONN"
        guest.umount()
    assert daxd.counters()["live"]["held"] == len(tasks)
    assert daxd.release(reverse=True) == len(tasks)
    guest.mount("daxd")
    assert guest.out("sha256sum </mnt/many/5").split()[0] == digests(rig.tree)[5]
    guest.umount()
    rig.unmounted()


def test_forced_umount_and_mount_before_the_replies(rig):
    """Old replies that arrive while a new mount of the device works are not taken for answers to its requests."""
    guest, daxd = rig.guest, rig.daxd
    tasks = all_waiters(rig)
    guest.run("umount -f /mnt", check=False)
    ended(tasks, "not connected")
    guest.run("umount /mnt", check=False)
    guest.mount("daxd")
    reader = guest.spawn_python(PARALLEL, FILES)
    daxd.release()
    assert json.loads(reader.wait(180).stdout) == digests(rig.tree) * 3
    guest.umount()
    rig.unmounted()


@pytest.mark.beyond_c("its umount -f does nothing")
def test_forced_umount_of_what_was_aborted(rig):
    """A mount that was aborted and is busy still is none of the next one's business: to abort it once more ends nothing there, and what
    was written there arrives."""
    guest, daxd = rig.guest, rig.daxd
    daxd.configure(init_flags="+WRITEBACK_CACHE")
    guest.mount("daxd")
    guest.run("stat /mnt/names >/dev/null")
    busy = guest.spawn("cd /mnt/names; exec sleep 1000")
    guest.wait_until(lambda: guest.out(f"readlink /proc/{busy.pid}/cwd") == "/mnt/names", "it is busy")
    assert guest.run("umount -f /mnt", check=False).rc != 0
    assert errno_of(guest, "os.statvfs('/mnt')") == "ENOTCONN"
    guest.mount("daxd", "/run/next")
    tasks = blocked_in_fuse(
        rig,
        [
            "exec dd if=/dev/zero of=/run/next/written bs=100000 count=1 conv=fsync",
            "exec stat -f /run/next",
            "exec dd if=/run/next/many/6 iflag=direct bs=8192 count=1 of=/dev/null",
        ],
        ["WRITE", "STATFS", "READ"],
    )
    assert guest.run("umount -f /mnt", check=False).rc != 0
    daxd.release()
    for task in tasks:
        result = task.wait()
        assert result.rc == 0, result
    assert (rig.tree / "written").read_bytes() == bytes(100000)
    assert guest.out("sha256sum </run/next/many/5").split()[0] == digests(rig.tree)[5]
    busy.kill()
    busy.wait()
    guest.umount()
    guest.umount("/run/next")
    rig.unmounted()


# What is asked for by who waits for it, and by who does not.
AFTER_THE_ABORT = {
    "os.stat('/mnt/names/1')": "ENOTCONN",
    "os.pread(fd, 100, 8192)": "ENOTCONN",
    "os.write(ends[1], memoryview(untouched)[:16])": "EFAULT",
    "os.preadv(direct, [mmap.mmap(-1, 4096)], 0)": "ENOTCONN",
    "os.pwritev(direct, [mmap.mmap(-1, 4096)], 0)": "ENOTCONN",
    "raise OSError(getattr(errno, Aio().run(('read', direct, buffer(4096), 4096, 0))[0]), '')": "ENOTCONN",
    "mapped[:3] = b'new'; mapped.flush()": "EIO",
}


@pytest.mark.beyond_c("its umount -f does nothing")
def test_nothing_is_sent_after_the_abort(rig):
    """An aborted session sends nothing any more, whatever is asked for and whoever asks."""
    guest, daxd, hand = rig.guest, rig.daxd, rig.hand
    guest.mount("daxd")
    assert hand.do(aio.SOURCE) == "OK"
    assert hand.do("fd = os.open('/mnt/many/9', os.O_RDWR); direct = os.open('/mnt/many/10', os.O_RDWR | os.O_DIRECT)") == "OK"
    # What is written to must be there.
    assert hand.do("mapped = mmap.mmap(fd, 0); mapped[0]; untouched = mmap.mmap(direct, 0); ends = os.pipe()") == "OK"
    assert guest.run("umount -f /mnt", check=False).rc != 0
    daxd.reset_counters()
    assert {statement: hand.do(statement) for statement in AFTER_THE_ABORT} == AFTER_THE_ABORT
    assert daxd.counters()["requests"] == {}
    for opened in ("mapped", "untouched"):
        assert hand.do(f"{opened}.close()") == "OK"
    for opened in ("fd", "direct", "ends[0]", "ends[1]"):
        hand.do(f"os.close({opened})")
    guest.umount()


def test_unbind_with_held_replies(rig):
    """Unbinding ends what waits with ENOTCONN, what comes later gets ENODEV; umount, bind and mount work again."""
    guest = rig.guest
    number = rig.device()
    tasks = all_waiters(rig)
    guest.run(f"echo virtio{number} >{DRIVER}/unbind", timeout=30)
    # What reads through the page cache asks once more.
    ended(tasks, "not connected", "No such device")
    assert errno_of(guest, "os.statvfs('/mnt')") == "ENODEV"
    assert errno_of(guest, "os.stat('/mnt/names/7')") == "ENODEV"
    assert errno_of(guest, "os.listdir('/mnt/names')") == "ENODEV"
    assert errno_of(guest, "open('/mnt/many/7')") == "ENODEV"
    guest.umount()
    guest.run(f"echo virtio{number} >{DRIVER}/bind")
    rig.again()
    guest.mount("daxd")
    assert guest.out("sha256sum </mnt/many/5").split()[0] == digests(rig.tree)[5]
    guest.umount()
    rig.unmounted()


def test_reset_with_held_replies(boot_rig):
    """A reset of the PCI function ends what waits with ENOTCONN, and a line tells; after umount and rebind the device works."""
    # Only behind a port of its own the emulated device has a reset.
    rig = boot_rig(files=files, ports=True)
    guest = rig.guest
    number = rig.device()
    pci = guest.out(f"readlink -f /sys/bus/virtio/devices/virtio{number}/..")
    tasks = all_waiters(rig)
    guest.run(f"echo 1 >{pci}/reset", timeout=30)
    ended(tasks, "not connected", "No such device")
    assert '"daxd": reset' in guest.console()
    assert errno_of(guest, "os.statvfs('/mnt')") == "ENODEV"
    guest.umount()
    guest.run(f"echo virtio{number} >{DRIVER}/unbind; echo virtio{number} >{DRIVER}/bind", timeout=30)
    rig.again()
    guest.mount("daxd")
    assert guest.out("sha256sum </mnt/many/5").split()[0] == digests(rig.tree)[5]
    guest.umount()
    rig.unmounted()


def test_daemon_killed_with_waiters(boot_rig):
    """When the daemon is killed, those who wait for it can be killed, whatever they wait for."""
    rig = boot_rig(files=files, wedged=True)
    tasks = all_waiters(rig)
    rig.guest.shares[0].process.kill()
    for task in tasks:
        task.kill()
    rig.guest.wait_until(lambda: not any(running(rig.guest, task) for task in tasks), "all are gone")
    rig.guest.run("umount -f /mnt", timeout=30)


def test_unplugged_while_busy(boot_rig):
    """A device that is unplugged under load: what runs on it ends with errors, the mount goes, the module unloads."""
    rig = boot_rig(files=files, ports=True)
    guest = rig.guest
    guest.mount("daxd")
    loops = [
        guest.spawn("while cat /mnt/many/* >/dev/null && ls -lR /mnt >/dev/null; do :; done 2>/run/why1"),
        guest.spawn("while find /mnt -type f -exec md5sum {} + >/dev/null; do :; done 2>/run/why2"),
    ]
    rig.daxd.wait_for_count("READ", 200, timeout=60)
    guest.monitor.call("device_del", id="fs0")
    guest.wait_until(lambda: not guest.out("ls -A /sys/fs/virtiofs"), "the device is gone")
    for loop in loops:
        loop.wait(60)
    assert "No such device" in guest.out("cat /run/why*")
    guest.umount()
    guest.unload()
