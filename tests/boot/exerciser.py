# SPDX-License-Identifier: GPL-2.0
"""Random calls on files, each compared with a model: runs in a guest, and prints the checksum of each file's model as JSON.

What fsx(8) does, with more kinds of access, handles and mappings that stay open, and several processes. Every call is in the log
/run/exercise.NUMBER.log before it is made; the last ones of each process are shown when something is wrong.
Usage: exerciser.py DIRECTORY SEED CALLS HOW [CALL-THAT-IS-NOT-MADE...]
- alone: four processes with a file each
- turns: three processes with one file, which take turns
- stripes: three processes with one file at the same time, each writing to parts of its own, which are not pages
- pages: the same, and the parts are pages
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import struct
import sys
import traceback

PAGE = 4096
# No file becomes longer.
LIMIT = 150 * PAGE
LENGTHS = [1, 7, 100, 512, PAGE, 10_000, 65_536, 200_000]
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
MS_ASYNC, MS_SYNC = 1, 4

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


def call(name, *arguments):
    """A function of the C library; raises OSError."""
    # Integers as long as registers are.
    done = getattr(libc, name)(*[ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments])
    if done is None or done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def pages_up(size):
    """The size with the last page as a whole."""
    return -(-size // PAGE) * PAGE


class Model:
    """What a file has to contain, for all processes: its size, and bytes that are zeroes from there on."""

    HEAD = 8

    def __init__(self):
        self.memory = mmap.mmap(-1, self.HEAD + LIMIT)

    def size(self):
        """How long the file is."""
        return struct.unpack_from("<Q", self.memory)[0]

    def resize(self, size):
        """Makes it shorter or longer."""
        old = self.size()
        if size < old:
            self.memory[self.HEAD + size : self.HEAD + old] = bytes(old - size)
        # Who writes it again while others read it shows them parts of it: pack_into() clears it first.
        if size != old:
            struct.pack_into("<Q", self.memory, 0, size)

    def get(self, at, length):
        """Bytes, as far as the file has them."""
        end = min(at + length, self.size())
        return self.memory[self.HEAD + at : self.HEAD + max(end, at)]

    def put(self, at, data, keep_size=False):
        """Stores bytes: behind the end of the file they make it longer, or vanish."""
        end = min(at + len(data), self.size()) if keep_size else at + len(data)
        if end > at:
            self.memory[self.HEAD + at : self.HEAD + end] = data[: end - at]
            if end > self.size():
                struct.pack_into("<Q", self.memory, 0, end)


class Area:
    """A shared mapping of a file up to LIMIT, behind whose end nobody may look."""

    def __init__(self, fd):
        self.address = libc.mmap(None, ctypes.c_long(LIMIT), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, ctypes.c_long(0))
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        self.bytes = memoryview((ctypes.c_char * LIMIT).from_address(self.address)).cast("B")

    def sync(self, at, length, flags):
        """msync(2)"""
        first = at // PAGE * PAGE
        call("msync", self.address + first, at + length - first, flags)

    def close(self):
        """munmap(2)"""
        call("munmap", self.address, LIMIT)


class Exerciser:
    """One process's calls on one file. The calls are its methods of CALLS, by how often they come."""

    # Calls that leave the file's size alone, on bytes of this process.
    CALLS = {
        **{"write": 8, "write_vector": 2, "write_direct": 4, "write_mapped": 8, "write_own_mapping": 2},
        **{"read": 6, "read_vector": 2, "read_direct": 4, "read_mapped": 6, "send": 2, "seek": 2},
        **{"punch": 3, "zero": 3, "allocate": 1, "copy": 4, "sync": 3, "msync": 3, "forget": 3, "reopen": 3, "drop_caches": 0.3},
    }
    # Calls on a file that belongs to this process as long as the call takes.
    SIZING = {"append": 4, "truncate": 4, "truncate_by_path": 1, "empty": 0.5, "fill_tail": 2, "stat": 1}
    MAPPING = {"write_mapped", "write_own_mapping", "read_mapped", "msync", "fill_tail"}

    def __init__(self, path, model, rng, log, part=None):
        self.path, self.model, self.rng, self.log, self.part = path, model, rng, log, part
        self.fd = self.appending = self.direct = self.area = None
        self.buffer = mmap.mmap(-1, LIMIT)
        self.open()
        weights = self.CALLS if part else {**self.CALLS, **self.SIZING}
        left_out = set(sys.argv[5:]) | (set() if self.area else self.MAPPING)
        self.names, self.weights = zip(*[(name, weight) for name, weight in weights.items() if name not in left_out])

    def open(self, flags=0):
        """Opens the file, in each way that there is; the mapping belongs to one of them."""
        self.fd = os.open(self.path, os.O_RDWR | flags)
        self.appending = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        try:
            self.area = Area(self.fd)
        except OSError as error:
            # So it is with a daemon that wants files uncached, and not to be mapped.
            assert error.errno == errno.ENODEV, error
            self.area = None

    def close(self):
        """Closes all, in any order."""
        ends = [lambda: os.close(self.fd), lambda: os.close(self.appending), lambda: os.close(self.direct)]
        if self.area:
            ends.append(self.area.close)
        self.rng.shuffle(ends)
        for end in ends:
            end()

    def step(self):
        """One call."""
        name = self.rng.choices(self.names, self.weights)[0]
        self.note(f"{name}")
        getattr(self, name)()
        if not self.part:
            self.stat()

    def note(self, text):
        """Writes a line to the log."""
        os.write(self.log, f"{text}\n".encode())

    def place(self, unit=1, inside=False):
        """Bytes that belong to this process, in whole units: (offset, length). `inside`: they are in the file."""
        first, end = self.part(self.rng) if self.part else (0, self.model.size() if inside else LIMIT)
        first, end = -(-first // unit), end // unit
        if first >= end:
            return None
        at = self.rng.randrange(first, end)
        length = min(max(self.rng.choice(LENGTHS) // unit, 1), end - at)
        self.note(f"    {at * unit} {length * unit}")
        return at * unit, length * unit

    def expect(self, got, at, length, what):
        """Compares bytes with the model's."""
        wanted = self.model.get(at, length)
        if got != wanted:
            first = next((n for n, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
            wrong = sum(a != b for a, b in zip(got, wanted))
            raise AssertionError(
                f"{what} at {at}, size {self.model.size()}: {len(got)} bytes instead of {len(wanted)}, {wrong} differ, the first "
                f"at {at + first}: {got[first : first + 8].hex()} instead of {wanted[first : first + 8].hex()}"
            )

    def stat(self):
        """The size is the model's."""
        size = os.fstat(self.fd).st_size
        assert size == self.model.size(), f"size {size} instead of {self.model.size()}"

    # Calls.

    def write(self):
        """write(2), to the cache where there is one."""
        at, length = self.place()
        data = self.rng.randbytes(length)
        assert os.pwrite(self.fd, data, at) == length
        self.model.put(at, data)

    def write_vector(self):
        """The same from several buffers."""
        at, length = self.place()
        data = self.rng.randbytes(length)
        cut = self.rng.randrange(length)
        assert os.pwritev(self.fd, [data[:cut], b"", data[cut:]], at) == length
        self.model.put(at, data)

    def write_direct(self):
        """Whole pages with O_DIRECT."""
        if place := self.place(PAGE):
            at, length = place
            self.buffer[:length] = data = self.rng.randbytes(length)
            assert os.pwritev(self.direct, [memoryview(self.buffer)[:length]], at) == length
            self.model.put(at, data)

    def write_mapped(self):
        """Stores through the mapping that stays."""
        if place := self.place(inside=True):
            at, length = place
            self.area.bytes[at : at + length] = data = self.rng.randbytes(length)
            self.model.put(at, data)

    def write_own_mapping(self):
        """A mapping that is gone before the file is closed."""
        if place := self.place(inside=True):
            at, length = place
            first = at // PAGE * PAGE
            with mmap.mmap(self.fd, at + length - first, offset=first) as area:
                area[at - first : at - first + length] = data = self.rng.randbytes(length)
            self.model.put(at, data)

    def read(self):
        """read(2)."""
        at, length = self.place()
        self.expect(os.pread(self.fd, length, at), at, length, "read")

    def read_vector(self):
        """The same into several buffers."""
        at, length = self.place()
        cut = self.rng.randrange(length)
        parts = [bytearray(cut), bytearray(length - cut)]
        count = os.preadv(self.fd, parts, at)
        self.expect((parts[0] + parts[1])[:count], at, length, "preadv")

    def read_direct(self):
        """Whole pages with O_DIRECT."""
        if place := self.place(PAGE):
            at, length = place
            count = os.preadv(self.direct, [memoryview(self.buffer)[:length]], at)
            self.expect(self.buffer[:count], at, length, "direct read")

    def read_mapped(self):
        """Loads from the mapping that stays."""
        if place := self.place(inside=True):
            at, length = place
            self.expect(bytes(self.area.bytes[at : at + length]), at, length, "mapping")

    def send(self):
        """Pages of the cache go into a pipe."""
        if place := self.place(inside=True):
            at, length = place[0], min(place[1], 65_536)
            ends = os.pipe()
            try:
                count = os.sendfile(ends[1], self.fd, at, length)
                assert 0 < count <= length
                self.expect(os.read(ends[0], count), at, count, "sendfile")
            finally:
                os.close(ends[0])
                os.close(ends[1])

    def seek(self):
        """Nothing but zeroes is in holes."""
        at, length = self.place()
        size = self.model.size()
        try:
            data = os.lseek(self.fd, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            data = size
        end = min(at + length, data) if self.part else data
        assert not any(self.model.get(at, end - at)), f"SEEK_DATA from {at} is {data}, and there are data before"
        if at < size:
            hole = os.lseek(self.fd, at, os.SEEK_HOLE)
            assert at <= hole <= size, f"SEEK_HOLE from {at} is {hole}, size {size}"

    def fallocate(self, mode, place):
        """fallocate(2), which the host's filesystem has to know."""
        call("fallocate", self.fd, mode, *place)

    def punch(self):
        """A hole."""
        at, length = place = self.place()
        self.fallocate(PUNCH_HOLE | KEEP_SIZE, place)
        self.model.put(at, bytes(length), keep_size=True)

    def zero(self):
        """Zeroes, with or without a new size."""
        at, length = place = self.place()
        keep = bool(self.rng.randrange(2))
        self.note(f"    keep {keep}")
        self.fallocate(ZERO_RANGE | (KEEP_SIZE if keep else 0), place)
        self.model.put(at, bytes(length), keep_size=keep)

    def allocate(self):
        """Blocks, with or without a new size."""
        at, length = place = self.place()
        keep = bool(self.rng.randrange(2))
        self.note(f"    keep {keep}")
        self.fallocate(KEEP_SIZE if keep else 0, place)
        if not keep:
            self.model.resize(max(self.model.size(), at + length))

    def copy(self):
        """copy_file_range(2) from one place to another that it does not overlap."""
        source, target = self.place(inside=True), self.place()
        if not source:
            return
        length = min(source[1], target[1])
        if abs(source[0] - target[0]) < length:
            return
        data = self.model.get(source[0], length)
        done = 0
        while done < length:
            count = os.copy_file_range(self.fd, self.fd, length - done, source[0] + done, target[0] + done)
            assert 0 < count <= length - done
            done += count
        self.model.put(target[0], data)

    def sync(self):
        """What writes all of the file."""
        what = self.rng.choice(["fsync", "fdatasync", "syncfs"])
        self.note(f"    {what}")
        call(what, self.fd)

    def msync(self):
        """What writes a part of the mapping."""
        if place := self.place(inside=True):
            self.area.sync(*place, self.rng.choice([MS_SYNC, MS_ASYNC]))

    def forget(self):
        """Drops what is cached and clean."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self):
        """Closes all and opens it again."""
        self.close()
        self.open()

    def drop_caches(self):
        """The same for all files, and inodes and names."""
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write(self.rng.choice("123"))

    # Calls that change the size.

    def append(self):
        """O_APPEND."""
        size = self.model.size()
        length = min(self.rng.choice(LENGTHS), LIMIT - size)
        self.note(f"    {size} {length}")
        data = self.rng.randbytes(length)
        assert os.write(self.appending, data) == length
        self.model.put(size, data)

    def new_size(self):
        """A size for a file; many differ little from the old one."""
        size = self.rng.choice([self.rng.randrange(LIMIT), self.model.size() - self.rng.randrange(PAGE), self.model.size() + self.rng.randrange(PAGE)])
        size = min(max(size, 0), LIMIT)
        self.note(f"    {size}")
        return size

    def truncate(self):
        """By an open file."""
        size = self.new_size()
        os.ftruncate(self.fd, size)
        self.model.resize(size)

    def truncate_by_path(self):
        """And by a name."""
        size = self.new_size()
        os.truncate(self.path, size)
        self.model.resize(size)

    def empty(self):
        """open(2) with O_TRUNC."""
        self.close()
        self.open(os.O_TRUNC)
        self.model.resize(0)

    def fill_tail(self):
        """Stores behind the end of the file, in its last page: they are never seen when it grows."""
        size = self.model.size()
        self.area.bytes[size : pages_up(size)] = b"Z" * (pages_up(size) - size)


def stripe(number, count, unit):
    """Chooses one of the parts of a file that belong to one of several processes: (start, end)."""

    def choose(rng):
        index = rng.randrange(LIMIT // unit // count) * count + number
        return index * unit, (index + 1) * unit

    return choose


def work(number, path, model, seed, calls, how, turn):
    """One process."""
    rng = random.Random(f"{seed} {number}")
    log = os.open(f"/run/exercise.{number}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    part = {"stripes": stripe(number, 3, 5000), "pages": stripe(number, 3, 2 * PAGE)}.get(how)
    exerciser = Exerciser(path, model, rng, log, part)
    for count in range(calls):
        exerciser.note(f"{count}:")
        with turn():
            exerciser.step()
    with turn():
        if part:
            first, end = part(rng)
            exerciser.expect(os.pread(exerciser.fd, end - first, first), first, end - first, "last read")
        else:
            exerciser.expect(os.pread(exerciser.fd, LIMIT, 0), 0, LIMIT, "last read")
    exerciser.close()


def turns():
    """A lock for processes: turn() is held in a `with` block."""

    @contextlib.contextmanager
    def turn():
        with open("/run/exercise.turn", "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return turn


def main():
    """Starts the processes and tells how they ended."""
    directory, seed, calls, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    models = [Model() for _ in range(4 if how == "alone" else 1)]
    paths = [f"{directory}/{how}{number}" for number in range(len(models))]
    for path, model in zip(paths, models):
        data = random.Random(seed).randbytes(LIMIT if how in ("stripes", "pages") else 3 * PAGE + 77)
        with open(path, "wb") as file:
            file.write(data)
        model.put(0, data)
    turn = turns() if how == "turns" else contextlib.nullcontext
    children = []
    for number in range(4 if how == "alone" else 3):
        child = os.fork()
        if not child:
            status = 1
            try:
                work(number, paths[number % len(paths)], models[number % len(models)], seed, calls, how, turn)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    states = [os.waitpid(child, 0)[1] for child in children]
    if any(states):
        for number, state in enumerate(states):
            with open(f"/run/exercise.{number}.log", encoding="ascii") as file:
                last = " ".join(file.read().split("\n")[-60:])
            print(f"process {number}: {os.waitstatus_to_exitcode(state)}, last calls: {last}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps([hashlib.sha256(model.get(0, LIMIT)).hexdigest() for model in models]))


main()
