# SPDX-License-Identifier: GPL-2.0
"""Locks that the daemon keeps: they exclude, also other guests; closing drops them; signals end the wait for one."""

import errno

import pytest
from conftest import blocked
from rig import Pace

# Names are known for a while: another guest's locks are told by inodes that this one knows.
RIG = {"shares": 2, "settings": {"attr_timeout": 60, "entry_timeout": 60}}
PACE = Pace()

# What the programs below have at hand.
PROGRAM = """
import ctypes, errno, fcntl, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
READ, WRITE, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
OFD_GET, OFD_SET, OFD_WAIT = 36, 37, 38

def control(fd, command, kind=WRITE, start=0, length=0):
    # fcntl(2) itself: Python's makes interrupted calls again.
    lock = ctypes.create_string_buffer(struct.pack("hhqqi4x", kind, 0, start, length, 0), 32)
    if libc.fcntl(fd, command, lock) < 0:
        return errno.errorcode[ctypes.get_errno()]
    kind, _, start, length, pid = struct.unpack("hhqqi4x", lock.raw)
    return [kind, start, length, pid] if command in (fcntl.F_GETLK, OFD_GET) else "OK"

def flock(fd, operation):
    return errno.errorcode[ctypes.get_errno()] if libc.flock(fd, operation) < 0 else "OK"

def elsewhere(call, *arguments):
    # What another process gets.
    reader, writer = os.pipe()
    if os.fork() == 0:
        fd = os.open("/mnt/file", os.O_RDWR)
        os.write(writer, repr(call(fd, *arguments)).encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    with open(reader) as pipe:
        return eval(pipe.read())

TRY, WAIT, ASK = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK
SHARED, EXCLUSIVE, NONE = fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
fd = os.open("/mnt/file", os.O_RDWR)
"""
# Waits for a lock, with handlers for signals: with `again`, the call is made again after one.
WAITER = """
again = sys.argv[1] == "again"
for number in (signal.SIGUSR1, signal.SIGALRM):
    signal.signal(number, lambda *_: None)
    signal.siginterrupt(number, not again)
open("/run/ready", "w").close()
print({call})
"""
CALLS = {
    "posix": "control(fd, WAIT)",
    "ofd": "control(fd, OFD_WAIT)",
    "flock": "flock(fd, fcntl.LOCK_EX)",
}


def files(tree):
    """What is shared."""
    tree.file("file", 4096)


class Locks:
    """The share, mounted with locks of the daemon's."""

    def __init__(self, rig, flags="+POSIX_LOCKS,+FLOCK_LOCKS", **settings):
        self.rig, self.guest, self.daxd = rig, rig.guest, rig.daxd
        self.daxd.configure(init_flags=flags, **settings)

    def __enter__(self):
        self.guest.mount("daxd")
        self.guest.run("stat /mnt/file; rm -f /run/ready")
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.idle()
            self.guest.umount()
            self.rig.unmounted()

    def idle(self):
        """Nothing is locked, nobody waits, and no file is open: closing reaches the daemon late."""
        idle = {"locks": 0, "waiting": 0, "handles": 0}
        self.daxd.wait_until(lambda counters: all(counters["live"][key] == 0 for key in idle), "nothing is left of the locks")

    def run(self, script):
        """What a program prints."""
        return self.guest.value("import json\n" + PROGRAM + script)

    def wait(self, kind="posix", again=False):
        """A process that waits for a lock, and the daemon knows it."""
        waiter = self.guest.spawn_python(PROGRAM + WAITER.format(call=CALLS[kind]), "again" if again else "once")
        self.daxd.wait_until(lambda counters: counters["live"]["waiting"] == 1, "a request waits")
        return waiter


def print_of(*expressions):
    """A script that prints what expressions are."""
    return "print(json.dumps([" + ", ".join(expressions) + "]))"


def test_posix_locks_exclude(rig):
    """A write lock excludes other processes from its bytes and no others, GETLK tells of it, an unlock cuts a hole into it."""
    with Locks(rig) as locks:
        got = locks.run("""
mine = [control(fd, TRY, WRITE, 100, 100), control(fd, TRY, UNLOCK, 140, 20)]
theirs = [elsewhere(control, TRY, WRITE, *place) for place in [(0, 100), (0, 101), (199, 0), (200, 0), (140, 20)]]
asked = [elsewhere(control, ASK, READ, *place) for place in [(0, 0), (150, 5), (170, 1)]]
print(json.dumps([mine, theirs, asked, os.getpid()]))
""")
        mine, theirs, asked, pid = got
        assert mine == ["OK", "OK"]
        assert theirs == ["OK", "EAGAIN", "EAGAIN", "OK", "OK"]
        assert asked == [[1, 100, 40, pid], [2, 150, 5, 0], [1, 160, 40, pid]]
        assert rig.daxd.count("GETLK") == 3 and rig.daxd.count("SETLK") == 7


def test_shared_locks(rig):
    """Read locks go together, a write lock with none; an upgrade and a downgrade are the same owner's."""
    with Locks(rig) as locks:
        assert locks.run(print_of(
            "control(fd, TRY, READ)", "elsewhere(control, TRY, READ)", "elsewhere(control, TRY, WRITE)",
            "control(fd, TRY, WRITE)", "elsewhere(control, TRY, READ)", "control(fd, TRY, READ)", "elsewhere(control, TRY, READ)",
        )) == ["OK", "OK", "EAGAIN", "OK", "EAGAIN", "OK", "OK"]


def test_flock_excludes(rig):
    """flock(2) excludes other open files, and does not see POSIX locks."""
    with Locks(rig) as locks:
        assert locks.run(print_of(
            "flock(fd, EXCLUSIVE)", "elsewhere(flock, SHARED)", "elsewhere(control, TRY)", "flock(fd, SHARED)",
            "elsewhere(flock, SHARED)", "elsewhere(flock, EXCLUSIVE)", "flock(fd, NONE)", "elsewhere(flock, EXCLUSIVE)",
        )) == ["OK", "EAGAIN", "OK", "OK", "OK", "EAGAIN", "OK", "OK"]
        assert rig.daxd.count("SETLK") + rig.daxd.count("SETLKW") == 8


def test_another_guest(rig):
    """A lock that another guest has is in the way here, and a wait for it ends when it goes."""
    with Locks(rig) as locks:
        assert rig.daxd.lock("file", "write", start=10, end=19, pid=4194304)
        assert locks.run(print_of("control(fd, TRY, READ)", "control(fd, TRY, READ, 0, 10)", "control(fd, ASK, READ)")) == [
            "EAGAIN", "OK", [1, 10, 10, 0],
        ]
        waiter = locks.wait()
        assert rig.daxd.lock("file", "unlock")
        assert waiter.wait().stdout.strip() == "OK"


@pytest.mark.parametrize("how", ["O_RDWR", "O_RDONLY"])
def test_any_close_drops_posix_locks(rig, how):
    """POSIX locks go when the process closes the file, whichever descriptor of it that is."""
    with Locks(rig) as locks:
        assert locks.run(print_of(
            "control(fd, TRY)", "elsewhere(control, TRY)", f"os.close(os.open('/mnt/file', os.{how}))", "elsewhere(control, TRY)",
        )) == ["OK", "EAGAIN", None, "OK"]


def test_last_close_drops_flock(rig):
    """A lock of flock(2) goes with the last descriptor of its open file, in whatever process that is."""
    with Locks(rig) as locks:
        assert locks.run("""
def last(call):
    # A duplicate, and one in a child, keep it.
    go, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go[0], 1)
        os._exit(0)
    copy = os.dup(fd)
    got = [call()]
    os.close(fd)
    got.append(elsewhere(flock, EXCLUSIVE))
    os.close(copy)
    got.append(elsewhere(flock, EXCLUSIVE))
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    other = os.open("/mnt/file", os.O_RDWR)
    # The RELEASE is not waited for.
    return got + [flock(other, fcntl.LOCK_EX)]
print(json.dumps(last(lambda: flock(fd, EXCLUSIVE))))
""") == ["OK", "EAGAIN", "EAGAIN", "OK"]


@pytest.mark.beyond_c("it leaves them to the daemon, which is not told whose they were")
def test_last_close_drops_locks_of_open_files(rig):
    """An open file description lock outlives other closes of the process, and goes with the last one of its open file."""
    with Locks(rig) as locks:
        assert locks.run(print_of(
            "control(fd, OFD_SET)", "elsewhere(control, OFD_SET)", "os.close(os.open('/mnt/file', os.O_RDWR))",
            "elsewhere(control, TRY)", "os.close(fd)", "control(os.open('/mnt/file', os.O_RDWR), OFD_WAIT)",
        )) == ["OK", "EAGAIN", None, "EAGAIN", None, "OK"]


@pytest.mark.beyond_c("its close sends nothing then")
def test_daemon_without_flush(rig):
    """With a daemon that knows no FLUSH, closing drops POSIX locks all the same."""
    with Locks(rig, enosys="FLUSH") as locks:
        for _ in range(2):
            assert locks.run(print_of(
                "control(fd, TRY)", "os.close(os.open('/mnt/file', os.O_RDWR))", "elsewhere(control, TRY)",
            )) == ["OK", None, "OK"]
        assert rig.daxd.count("FLUSH") == 1


@pytest.mark.beyond_c("its close sends nothing then")
def test_daemon_without_open(rig):
    """With a daemon that has no handles, closing drops the locks of the open file all the same."""
    with Locks(rig, "+POSIX_LOCKS,+FLOCK_LOCKS,+NO_OPEN_SUPPORT", enosys="OPEN") as locks:
        assert locks.run(print_of(
            "flock(fd, EXCLUSIVE)", "control(fd, OFD_SET)", "elsewhere(flock, EXCLUSIVE)", "elsewhere(control, TRY)",
            "os.close(fd)", "elsewhere(flock, EXCLUSIVE)", "elsewhere(control, TRY)",
        )) == ["OK", "OK", "EAGAIN", "EAGAIN", None, "OK", "OK"]


@pytest.mark.parametrize("flags", ["", "+POSIX_LOCKS", "+FLOCK_LOCKS"])
def test_local_locks(rig, flags):
    """What the daemon does not keep this kernel does, without a request."""
    with Locks(rig, flags) as locks:
        assert locks.run(print_of(
            "control(fd, TRY)", "flock(fd, EXCLUSIVE)", "elsewhere(control, TRY)", "elsewhere(flock, EXCLUSIVE)",
            "elsewhere(control, ASK)[:3]", "os.close(fd)", "elsewhere(control, TRY)", "elsewhere(flock, fcntl.LOCK_EX)",
        )) == ["OK", "OK", "EAGAIN", "EAGAIN", [1, 0, 0], None, "OK", "OK"]
        assert rig.daxd.count("GETLK") == ("POSIX" in flags)
        assert (rig.daxd.count("SETLK") > 0) == bool(flags)


def test_owners_are_not_addresses(rig):
    """What the daemon is told of the owner of a lock is no address of the kernel's, and always the same."""
    with Locks(rig, trace=100) as locks:
        assert locks.run(print_of("control(fd, TRY, WRITE, 0, 1)", "control(fd, TRY, WRITE, 1, 1)", "flock(fd, EXCLUSIVE)")) == ["OK"] * 3
        sent = [entry for entry in rig.daxd.trace() if entry["opcode"] in ("SETLK", "SETLKW")]
        owners = [int.from_bytes(bytes.fromhex(entry["args"])[8:16], "little") for entry in sent]
        assert owners[0] == owners[1] != owners[2]
        assert all(owner >> 47 not in (0, 0x1FFFF) for owner in owners)


def test_two_devices(rig):
    """Two mounts of one directory, each by a device and a daemon of its own, exclude each other, as two guests do."""
    other = rig.daxds[1]
    other.configure(init_flags="+FLOCK_LOCKS")
    with Locks(rig) as locks:
        rig.guest.mount("daxd1", "/run/other")
        assert locks.run("other = os.open('/run/other/file', os.O_RDWR)\n" + print_of(
            "flock(fd, EXCLUSIVE)", "flock(other, SHARED)", "flock(fd, NONE)", "flock(other, SHARED)", "flock(fd, SHARED)",
            "flock(fd, NONE)", "flock(fd, EXCLUSIVE)", "flock(other, NONE)", "flock(fd, EXCLUSIVE)",
        )) == ["OK", "EAGAIN", "OK", "OK", "OK", "OK", "EAGAIN", "OK", "OK"]
        rig.guest.umount("/run/other")
        rig.unmounted(other)


def test_mandatory_locks(rig):
    """Whose read, write or truncation it is the daemon is told where it may be for its locks to decide: as with SETLK."""
    # Where it is said, and by which flag of which field.
    places = {"READ": (20, 1 << 1), "WRITE": (20, 1 << 1), "SETATTR": (0, 1 << 9)}

    def owners():
        for entry in rig.daxd.trace():
            args = bytes.fromhex(entry["args"])
            number = lambda at, size: int.from_bytes(args[at : at + size], "little")
            if entry["opcode"] == "SETLK":
                yield "SETLK", number(8, 8)
            elif entry["opcode"] in places:
                at, flag = places[entry["opcode"]]
                yield entry["opcode"], number(24, 8) if number(at, 4) & flag else None

    with Locks(rig, trace=100) as locks:
        assert locks.run(
            "import mmap\nb = mmap.mmap(-1, 4096)\ncontrol(fd, TRY)\nos.pread(fd, 4096, 0)\n"
            "d = os.open('/mnt/file', os.O_RDWR | os.O_DIRECT)\nos.preadv(d, [b], 0)\nos.pwritev(d, [b], 0)\n"
            "os.ftruncate(d, 4096)\nos.fchmod(d, 0o600)\nprint([])"
        ) == []
        (_, owner), *others = owners()
        assert others == [("READ", None), ("READ", owner), ("WRITE", owner), ("SETATTR", owner), ("SETATTR", None)]


@pytest.mark.beyond_c("it sends no INTERRUPT")
@pytest.mark.parametrize("kind", CALLS)
def test_signal_ends_wait(rig, kind):
    """A signal ends the wait for a lock with EINTR, by one INTERRUPT; the daemon has nobody waiting then."""
    with Locks(rig) as locks:
        assert rig.daxd.lock("file", "write", flock=kind == "flock")
        waiter = locks.wait(kind)
        waiter.kill(10)
        assert waiter.wait().stdout.strip() == "EINTR"
        assert rig.daxd.count("INTERRUPT") == 1
        rig.daxd.lock("file", "unlock", flock=kind == "flock")


@pytest.mark.beyond_c("it sends no INTERRUPT")
@pytest.mark.parametrize("kind", CALLS)
def test_wait_is_restarted(rig, kind):
    """A signal whose handler wants calls to be made again: the wait begins anew, and ends with the lock."""
    with Locks(rig) as locks:
        assert rig.daxd.lock("file", "write", flock=kind == "flock")
        waiter = locks.wait(kind, again=True)
        for number in range(2, 5):
            waiter.kill(10)
            rig.daxd.wait_for_count("SETLKW", number)
        rig.daxd.wait_until(lambda counters: counters["live"]["waiting"] == 1, "it waits again")
        rig.daxd.lock("file", "unlock", flock=kind == "flock")
        assert waiter.wait().stdout.strip() == "OK"


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize("kind", CALLS)
def test_waiter_is_killed(rig, kind):
    """A task that waits for a lock can be killed, and the daemon has nobody waiting then."""
    with Locks(rig) as locks:
        flock = kind == "flock"
        assert rig.daxd.lock("file", "write", flock=flock)
        waiter = locks.wait(kind)
        waiter.kill()
        assert waiter.wait().rc == 128 + 9
        rig.daxd.wait_until(lambda counters: counters["live"]["waiting"] == 0, "nobody waits")
        rig.daxd.lock("file", "unlock", flock=flock)


def ignore_interrupts(daxd):
    """From now on the daemon takes no notice of INTERRUPT, as virtiofsd does."""
    daxd.set_fault("error", "INTERRUPT", errno="EIO")
    daxd.set_fault("truncate", "INTERRUPT", len=0)


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize("kind", CALLS)
def test_late_grant_is_given_back(rig, kind):
    """A killed task whose daemon takes no notice: it goes, and the lock that it is granted later is given back, then the file."""
    with Locks(rig) as locks:
        ignore_interrupts(rig.daxd)
        flock = kind == "flock"
        assert rig.daxd.lock("file", "write", flock=flock)
        waiter = locks.wait(kind)
        waiter.kill()
        assert waiter.wait().rc == 128 + 9
        live = rig.daxd.counters()["live"]
        assert (live["waiting"], live["handles"]) == (1, 1)
        assert rig.daxd.lock("file", "unlock", flock=flock)
        locks.idle()
        assert rig.daxd.lock("file", "write", flock=flock)
        rig.daxd.lock("file", "unlock", flock=flock)


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
def test_late_grant_with_full_ring(boot_rig):
    """There is no room in the ring when the lock of a killed task is to be given back: that waits its turn, and is not forgotten."""
    rig = boot_rig(files=files, daxd={"queue_size": 4}, settings={"attr_timeout": 60, "entry_timeout": 60}, shares=2, cpus=1)
    guest, daxd = rig.guest, rig.daxd
    with Locks(rig) as locks:
        ignore_interrupts(daxd)
        assert daxd.lock("file", "write")
        waiter = locks.wait()
        waiter.kill()
        assert waiter.wait().rc == 128 + 9
        daxd.hold("LOOKUP")
        tasks = [guest.spawn(f"exec stat /mnt/missing{number}") for number in range(6)]
        daxd.wait_for_held(3)
        for task in tasks:
            blocked(guest, task)
        assert daxd.lock("file", "unlock")
        daxd.wait_for_held(4)
        # Whatever the driver puts off is done when another share has been unmounted.
        guest.mount("daxd1", "/run/other")
        guest.umount("/run/other")
        assert daxd.counters()["live"]["locks"] == 1 and daxd.count("SETLK") == 0
        daxd.clear_faults()
        daxd.release()
        for task in tasks:
            assert task.wait().rc == 1
        locks.idle()
        assert daxd.count("SETLK") == 1


@pytest.mark.ours("it sends no INTERRUPT")
def test_deaf_daemon(rig):
    """With a daemon that takes no notice of INTERRUPT, however slowly, a signal costs one message, and the wait goes on to the lock."""
    with Locks(rig) as locks:
        ignore_interrupts(rig.daxd)
        rig.daxd.hold("INTERRUPT")
        assert rig.daxd.lock("file", "write")
        waiter = locks.wait()
        waiter.kill(10)
        rig.daxd.wait_for_held()
        blocked(rig.guest, waiter)
        rig.daxd.release()
        blocked(rig.guest, waiter)
        waiter.kill(10)
        blocked(rig.guest, waiter)
        rig.daxd.lock("file", "unlock")
        assert waiter.wait().stdout.strip() == "OK"
        assert rig.daxd.count("INTERRUPT") == 1


@pytest.mark.ours("it sends no INTERRUPT")
def test_daemon_without_interrupt(rig):
    """A daemon that does not know INTERRUPT is told of signals once, and never again."""
    with Locks(rig, enosys="INTERRUPT") as locks:
        for _ in range(2):
            assert rig.daxd.lock("file", "write")
            waiter = locks.wait()
            waiter.kill(10)
            rig.daxd.wait_for_count("INTERRUPT", 1)
            blocked(rig.guest, waiter)
            rig.daxd.lock("file", "unlock")
            assert waiter.wait().stdout.strip() == "OK"
        assert rig.daxd.count("INTERRUPT") == 1


@pytest.mark.ours("it sends no INTERRUPT")
def test_interrupt_is_sent_again(rig):
    """A daemon that has not seen the request yet says EAGAIN, and is asked again."""
    with Locks(rig) as locks:
        rig.daxd.set_fault("error", "INTERRUPT", errno="EAGAIN", count=3)
        assert rig.daxd.lock("file", "write")
        waiter = locks.wait()
        waiter.kill(10)
        assert waiter.wait().stdout.strip() == "EINTR"
        assert rig.daxd.count("INTERRUPT") == 4
        rig.daxd.lock("file", "unlock")


@pytest.mark.ours("it sends no INTERRUPT")
@pytest.mark.parametrize("fault", ["lose", "bad"])
def test_bad_interrupt_reply(rig, fault):
    """An INTERRUPT that is never answered, or wrongly, keeps nobody from the answer to the request."""
    with Locks(rig) as locks:
        if fault == "bad":
            PACE.wait("daxd")
            rig.daxd.set_fault("error", "INTERRUPT", errno="EIO", execute=True)
            rig.daxd.set_fault("raw_error", "INTERRUPT", value=5)
        else:
            rig.daxd.hold("INTERRUPT")
        assert rig.daxd.lock("file", "write")
        waiter = locks.wait()
        waiter.kill(10)
        assert waiter.wait().stdout.strip() == "EINTR"
        rig.daxd.clear_faults()
        rig.daxd.release()
        rig.daxd.lock("file", "unlock")


@pytest.mark.beyond_c("its umount -f does nothing")
def test_forced_umount_ends_wait(rig):
    """umount -f ends the wait for a lock with ENOTCONN."""
    # Nothing of it is given back then.
    locks = Locks(rig).__enter__()
    assert rig.daxd.lock("file", "write")
    waiter = locks.wait()
    rig.guest.run("umount -f /mnt", check=False)
    assert waiter.wait().stdout.strip() == "ENOTCONN"
    rig.guest.wait_until(lambda: rig.guest.run("umount /mnt", check=False).rc == 0 or not_mounted(rig), "it is unmounted")
    rig.daxd.lock("file", "unlock")


def not_mounted(rig):
    """Whether the share is mounted nowhere."""
    return "virtiofs" not in rig.guest.out("cat /proc/mounts")


@pytest.mark.parametrize("kind", CALLS)
def test_signals_and_grants_race(rig, kind):
    """Many rounds of waits that end by a signal or a grant at about the same time: each is one of both, and nothing is left."""
    call = CALLS[kind].replace("fd", "mine")
    unlock = {"posix": "control(mine, TRY, UNLOCK)", "ofd": "control(mine, OFD_SET, UNLOCK)", "flock": "flock(mine, NONE)"}[kind]
    script = f"""
import random, time
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
def contend(seed, writer):
    random.seed(seed)
    mine = os.open("/mnt/file", os.O_RDWR)
    ends = {{"OK": 0, "EINTR": 0}}
    for _ in range(60):
        # Again and again, should it come before the wait.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02), 0.05)
        end = {call}
        signal.setitimer(signal.ITIMER_REAL, 0)
        ends[end] += 1
        if end == "OK":
            time.sleep(random.uniform(0, 0.01))
            assert {unlock} == "OK"
    os.write(writer, json.dumps(ends).encode() + b"\\n")
    os._exit(0)
reader, writer = os.pipe()
for seed in range(4):
    if os.fork() == 0:
        contend(seed, writer)
os.close(writer)
with open(reader) as pipe:
    print(json.dumps([json.loads(line) for line in pipe]))
"""
    with Locks(rig) as locks:
        ends = locks.run(script)
        assert len(ends) == 4 and all(sum(end.values()) == 60 for end in ends), ends
        if rig.guest.driver != "c":
            assert sum(end["EINTR"] for end in ends) > 0


def test_killed_waiters_race(rig):
    """Processes that are killed while they fight for locks leave nothing at the daemon."""
    script = """
import random, time
random.seed(1)
def fight():
    while True:
        mine = os.open("/mnt/file", os.O_RDWR)
        for call in (lambda: control(mine, WAIT, WRITE, 0, 10), lambda: control(mine, OFD_WAIT, WRITE, 10, 10),
                     lambda: flock(mine, fcntl.LOCK_EX)):
            assert call() == "OK"
        os.close(mine)
for _ in range(20):
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            fight()
        children.append(child)
    time.sleep(random.uniform(0.01, 0.1))
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
print(json.dumps("done"))
"""
    with Locks(rig) as locks:
        assert locks.run(script) == "done"


@pytest.mark.parametrize("opcode", ["GETLK", "SETLK", "SETLKW"])
def test_errors_arrive(rig, opcode):
    """Errors of the daemon reach the caller."""
    call = {"GETLK": "control(fd, ASK)", "SETLK": "control(fd, TRY)", "SETLKW": "control(fd, WAIT)"}[opcode]
    with Locks(rig) as locks:
        for error in ("EDEADLOCK", "ENOLCK", "EACCES", "EINTR", "EIO"):
            rig.daxd.set_fault("error", opcode, errno=getattr(errno, error))
            assert locks.run(print_of(call)) == [error]
            rig.daxd.clear_faults()


BAD = [
    ("patch", {"offset": 32, "hex": "07000000"}, "impossible lock"),
    ("patch", {"offset": 16, "hex": "ffffffffffffffff"}, "impossible lock"),
    ("patch", {"offset": 24, "hex": "ffffffffffffffff"}, "impossible lock"),
    ("truncate", {"len": 16}, "reply with 0 bytes of data instead of 24"),
    ("pad", {"bytes": 8}, " fit"),
    ("unique", {"add": 2}, "reply for request "),
]


def test_bad_replies(rig):
    """A reply about a lock that cannot be is EIO, and one line in the log; nothing stays locked."""
    with Locks(rig) as locks:
        assert rig.daxd.lock("file", "read", start=5, end=9)
        opened = "os.open('/mnt/file', os.O_RDWR)"
        asks = f"struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', 1, 0, 0, 0, 0)))[0]"
        for do, members, text in BAD:
            PACE.wait("daxd")
            rig.daxd.set_fault(do, "GETLK", **members)
            rig.hand.do(f"fd = {opened}")
            done, logged = rig.hand.lines(asks)
            assert done == "EIO" and len(logged) == 1 and '"daxd": GETLK: ' in logged[0] and text in logged[0], (done, logged)
            rig.daxd.clear_faults()
            assert rig.hand.do(asks) == "OK" and rig.hand.value == 0
            rig.hand.do("os.close(fd)")
        for do, members, text in BAD[4:]:
            PACE.wait("daxd")
            rig.daxd.set_fault(do, "SETLK", **members)
            rig.hand.do(f"fd = {opened}")
            done, logged = rig.hand.lines("fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)")
            assert done == "EIO" and len(logged) == 1 and '"daxd": SETLK: ' in logged[0] and text in logged[0], (done, logged)
            rig.daxd.clear_faults()
            rig.hand.do("os.close(fd)")
        rig.daxd.lock("file", "unlock")


def test_lease(rig):
    """A lease is broken by who opens the file for writing."""
    with Locks(rig) as locks:
        assert locks.run("""
SETLEASE, GETLEASE = 1024, 1025
signal.signal(signal.SIGIO, lambda *_: events.append("broken"))
events = []
reading = os.open("/mnt/file", os.O_RDONLY)
os.close(fd)
got = [fcntl.fcntl(reading, SETLEASE, READ), fcntl.fcntl(reading, GETLEASE)]
if os.fork() == 0:
    os.open("/mnt/file", os.O_RDWR)
    os._exit(0)
while not events:
    signal.pause()
fcntl.fcntl(reading, SETLEASE, UNLOCK)
os.wait()
print(json.dumps(got + events))
""") == [0, 0, "broken"]
