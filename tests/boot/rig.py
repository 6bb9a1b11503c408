# SPDX-License-Identifier: GPL-2.0
"""Guests whose shares the misbehaving daemon serves (tests/daxd), and a hand inside such a guest."""

import base64
import json
import time

import guest as guests
import tree as trees
from daxd import Daxd

# Runs Python statements that arrive in one pipe, and tells in another how each ended; then it marks the kernel's log.
HAND = """
import base64, ctypes, errno, fcntl, hashlib, json, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    done = getattr(libc, name)(*arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done

def opened(path, flags=os.O_RDONLY):
    class Opened:
        def __enter__(self):
            self.fd = os.open(path, flags)
            return self.fd
        def __exit__(self, *_):
            os.close(self.fd)
    return Opened()

def read(path, size=1 << 20, offset=0):
    with opened(path) as fd:
        return len(os.pread(fd, size, offset))

def read_direct(path, size=4096):
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd:
        with mmap.mmap(-1, size) as buffer:
            return os.preadv(fd, [buffer], 0)

def read_mapped(path):
    # By write(2), which tells of a page that cannot be read, where an access would end the task.
    with opened(path) as fd:
        with mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as area:
            pipe = os.pipe()
            try:
                return os.write(pipe[1], memoryview(area)[:16])
            finally:
                os.close(pipe[0])
                os.close(pipe[1])

def seek(path, offset, whence):
    with opened(path) as fd:
        return os.lseek(fd, offset, whence)

def statx(path):
    buffer = ctypes.create_string_buffer(256)
    if libc.syscall(332, -100, path.encode(), 0, 0xfff, buffer) < 0:
        raise OSError(ctypes.get_errno(), "statx")
    # The attributes, and which of these the filesystem knows.
    return struct.unpack_from("<8xQ40xQ", buffer)

def size_of_xattr(path, name):
    found = libc.getxattr(path.encode(), name.encode(), None, ctypes.c_size_t(0))
    if found < 0:
        raise OSError(ctypes.get_errno(), "getxattr")
    return found

def fstat(path):
    # What an open file is, by the daemon's newest word.
    with opened(path) as fd:
        return os.fstat(fd).st_size

number = 0
while True:
    with open("/run/ask") as pipe:
        line = pipe.read()
    if not line:
        continue
    number += 1
    value = None
    try:
        statement = base64.b64decode(line).decode()
        try:
            value = eval(statement)
        except SyntaxError:
            exec(statement, globals())
        done = "OK"
    except OSError as error:
        done = errno.errorcode[error.errno]
    if not isinstance(value, (int, str, list, dict)):
        value = None
    with open("/dev/kmsg", "w") as log:
        log.write(f"<6>hand: {number}\\n")
    with open("/run/answer", "w") as pipe:
        json.dump([done, value, number], pipe)
"""


class Hand:
    """A Python that runs in the guest and does one thing after the other, in milliseconds each."""

    def __init__(self, guest):
        self.guest = guest
        guest.run("mkfifo /run/ask /run/answer")
        guest.put(HAND, "/run/hand.py")
        self.process = guest.spawn("exec python3 /run/hand.py")
        self.seen = 0
        self.value = None
        self.do("None")

    def do(self, statement, timeout=30.0):
        """Runs a statement: "OK", or the name of the error. What an expression was is in `value` then."""
        return self.lines(statement, timeout)[0]

    def lines(self, statement, timeout=30.0):
        """Runs a statement; how it ended, and the lines of the driver in the kernel's log since the last one."""
        asked = base64.b64encode(statement.encode()).decode()
        answer = self.guest.out(f"echo {asked} >/run/ask; cat /run/answer", timeout=timeout)
        done, self.value, number = json.loads(answer)
        mark = f"hand: {number}"

        def marked():
            lines = self.guest.console().split("\n")
            at = next((index for index in range(len(lines) - 1, -1, -1) if lines[index].rstrip().endswith(mark)), None)
            return None if at is None else (lines[self.seen : at], at)

        lines, self.seen = self.guest.wait_until(marked, f"the log has {mark}")
        return done, [line.partition("] ")[2].rstrip() for line in lines if "virtiofs" in line]


class Rig:
    """A guest and its daemons, with all of them at hand. `daxd` is what all daemons are told, or a list with one for each."""

    def __init__(self, name, shares=1, daxd=None, share=None, settings=None, ports=False, **options):
        self.name, self.options, self.share_options = name, options, share or {}
        self.options.setdefault("warm", True)
        self.settings = {"entry_timeout": 0, "attr_timeout": 0, **(settings or {})}
        self.daxd_options = daxd if isinstance(daxd, list) else [daxd or {}] * shares
        self.daxds, self.guest, self._hand = [], None, None
        self.ports = ports

    def start(self, directory):
        """Boots."""
        self.tree = trees.Tree(directory)
        for number, mine in enumerate(self.daxd_options):
            options = {"tag": f"daxd{number}" if number else "daxd", **mine, **self.settings}
            self.daxds.append(Daxd(directory, **options))
        shares = []
        for number, daxd in enumerate(self.daxds):
            share = {**daxd.share(), **self.share_options}
            if self.ports:
                # Each device behind a port of its own, so that it can be reset and unplugged.
                share["hotplug"] = True
                share["device"] += f",id=fs{number},bus=port{number}"
            shares.append(guests.Share(**share))
        self.guest = guests.Guest(shares, name=self.name, **self.options)
        self.guest.__enter__()
        self.guest.load()
        return self

    @property
    def daxd(self):
        """The first daemon."""
        return self.daxds[0]

    @property
    def hand(self):
        """A Python in the guest."""
        if self._hand is None:
            self._hand = Hand(self.guest)
        return self._hand

    def device(self, number=0):
        """The virtio device of a share, by its number in the guest."""
        tag = self.daxds[number].tag
        return self.guest.out(f"cd /sys/fs/virtiofs; grep -lx {tag} */tag | cut -d/ -f1")

    def again(self):
        """Back to the beginning between two tests: nothing mounted, all faults gone, settings as they were, nothing counted."""
        for daxd in self.daxds:
            daxd.clear_faults()
            daxd.release()
            daxd.configure(
                **{**self.settings, "init_flags": "", "enosys": "", "open_flags": "", "major": 7, "minor": 46},
                max_write=1 << 20,
                short_write=(1 << 32) - 1,
                max_pages=256,
                max_background=65535,
                time_gran=1,
                negative_timeout=0,
                reuse_nodeids=False,
                trace=0,
            )
            daxd.reset_counters()

    def unmounted(self, daxd=None):
        """After the last umount: the guest has given back all it had, and kept to the protocol."""
        daxd = daxd or self.daxd
        session = daxd.counters()["session"]
        assert not session["open"], "no DESTROY"
        left = {key: session[f"{key}_at_destroy"] for key in ("inodes", "lookups", "handles")}
        assert left["handles"] == 0, left
        # The root was never looked up. C leaves it to DESTROY to give back what it has at an unmount.
        assert left["lookups"] == 0 or self.options["driver"] == "c", (left, daxd.live())
        complaints = daxd.complaints()
        assert complaints == [], complaints

    def end(self, kill=False):
        """Powers off, or stops by force, and judges the log."""
        guest, self.guest = self.guest, None
        try:
            if guest is None:
                return
            if kill or guest.qemu is None or guest.qemu.poll() is not None:
                guest.kill()
                guest.check_console()
            else:
                guest.poweroff()
        finally:
            for daxd in self.daxds:
                daxd.__exit__(None, None, None)
            self.daxds, self._hand = [], None


class Pace:
    """Keeps below what the driver's limit of log lines takes: ten in five seconds for each device."""

    def __init__(self, lines=8, seconds=6.0):
        self.lines, self.seconds, self.times = lines, seconds, {}

    def wait(self, device, lines=1):
        """Waits until so many more lines will be logged."""
        times = self.times.setdefault(device, [])
        for _ in range(lines):
            if len(times) >= self.lines:
                left = times.pop(0) + self.seconds - time.monotonic()
                if left > 0:
                    time.sleep(left)
            times.append(time.monotonic())
