# SPDX-License-Identifier: GPL-2.0
"""One of several who use the same files: does what it is told, on the host or, as a script, in a guest.

In a guest it takes calls from the port "guest.wire", a line of JSON each, and answers there. Usage: writer.py DIRECTORY
"""

import base64
import ctypes
import errno
import glob
import json
import mmap
import os
import random
import struct
import sys
import time

PAGE = 4096
# No file becomes longer.
LIMIT = 96 * PAGE
# So long is what is saved again and again, in pages.
SAVED = 5
# What the concurrent writers put into files, and nothing else does.
CELL = struct.Struct("<BBHI")
PUNCH_HOLE, KEEP_SIZE, MS_SYNC = 2, 1, 4

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


def call(name, *arguments):
    """A function of the C library; raises OSError."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    done = getattr(libc, name)(*words)
    if done is None or done in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), name)
    return done


def random_bytes(seed, length):
    """The same for everybody."""
    return random.Random(seed).randbytes(length)


def cells(owner, page, version):
    """A page of cells: who wrote it, where, and as which of its versions."""
    return CELL.pack(owner, ord("C"), page, version) * (PAGE // CELL.size)


class Mapping:
    """A shared mapping of a file, by a call that keeps no descriptor of its own as Python's does."""

    def __init__(self, fd, length, at=0):
        self.length = length
        self.address = call("mmap", None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, at)
        self.bytes = memoryview((ctypes.c_char * length).from_address(self.address)).cast("B")

    def close(self):
        """munmap(2)"""
        call("munmap", self.address, self.length)


class Writer:
    """Files below a directory. A call is a method and its arguments, and the file `name` of the model is meant if no other is."""

    def __init__(self, base):
        self.top, self.base, self.name = base, base, "file"
        self.fd = self.area = None

    @property
    def path(self):
        """The file."""
        return os.path.join(self.base, self.name)

    def do(self, what, **arguments):
        """Makes a call: {"value": ...}, or {"error": NAME}."""
        try:
            return {"value": getattr(self, what)(**arguments)}
        except OSError as error:
            return {"error": errno.errorcode[error.errno]}
        except AssertionError as error:
            return {"error": str(error)}

    # What stays open.

    def use(self, name, below=""):
        """Another file from here on, or one in another directory, below the one that it began with."""
        self.let_go()
        self.name, self.base = name, os.path.join(self.top, below)

    def hold(self):
        """Opens the file, and maps it where that can be done: whether it can."""
        self.let_go()
        self.fd = os.open(self.path, os.O_RDWR)
        try:
            self.area = Mapping(self.fd, LIMIT)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return self.area is not None

    def let_go(self):
        """Unmaps and closes it."""
        if self.area:
            self.area.close()
        if self.fd is not None:
            os.close(self.fd)
        self.fd = self.area = None

    def opened(self, flags, how="fresh"):
        """A descriptor for one call, and what ends that."""
        if how == "held":
            return self.fd, lambda fd: None
        return os.open(self.path, flags | (os.O_DIRECT if how == "direct" else 0)), os.close

    # Writing.

    def write(self, at, seed, length, how):
        """write(2): fresh, held, direct; `append` and `create` open it so, and `sync` is followed by fsync(2)."""
        data = random_bytes(seed, length)
        flags = {"append": os.O_APPEND, "create": os.O_CREAT}.get(how, 0)
        fd, close = self.opened(os.O_WRONLY | flags, how)
        try:
            if how == "append":
                assert os.write(fd, data) == length
            elif how == "direct":
                with mmap.mmap(-1, length) as buffer:
                    buffer[:] = data
                    assert os.pwritev(fd, [buffer], at) == length
            else:
                assert os.pwrite(fd, data, at) == length
            if how == "held":
                os.fsync(fd)
        finally:
            close(fd)

    def store(self, at, seed, length, how):
        """Stores through a mapping of its own that ends with the call, or with a process; or through the one that stays, followed by
        a sync, or by none."""
        data = random_bytes(seed, length)
        first = at // PAGE * PAGE
        if how in ("own", "exit"):
            child = os.fork() if how == "exit" else 0
            if child:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status == 0, f"a process that stores ended with {status}"
                return
            try:
                fd = os.open(self.path, os.O_RDWR)
                area = Mapping(fd, at + length - first, first)
                area.bytes[at - first : at - first + length] = data
                if how == "exit":
                    os._exit(0)
                area.close()
                os.close(fd)
            finally:
                if how == "exit":
                    os._exit(1)
            return
        self.area.bytes[at : at + length] = data
        if how == "msync":
            call("msync", self.area.address + first, at + length - first, MS_SYNC)
        elif how == "fsync":
            os.fsync(self.fd)

    def sync(self, how):
        """What is stored is on the host after it."""
        if how == "msync":
            call("msync", self.area.address, LIMIT, MS_SYNC)
        elif how == "fsync":
            os.fsync(self.fd)
        else:
            call("syncfs", self.fd)

    def truncate(self, size, how):
        """By an open file, by a name, or by opening it."""
        if how == "held":
            os.ftruncate(self.fd, size)
        elif how == "open":
            os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        else:
            os.truncate(self.path, size)

    def punch(self, at, length):
        """A hole."""
        fd = os.open(self.path, os.O_WRONLY)
        try:
            call("fallocate", fd, PUNCH_HOLE | KEEP_SIZE, at, length)
        finally:
            os.close(fd)

    def replace(self, seed, length):
        """Another file takes its name, as editors save."""
        temporary = f"{self.path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(random_bytes(seed, length))
        os.rename(temporary, self.path)

    def unlink(self):
        """The name goes."""
        os.unlink(self.path)

    # Reading.

    def read(self, at, length, how):
        """read(2): fresh, held, direct; or by a mapping or sendfile(2) of a file that is opened for it."""
        fd, close = self.opened(os.O_RDONLY, how)
        try:
            if how == "direct":
                with mmap.mmap(-1, length) as buffer:
                    data = buffer[: os.preadv(fd, [buffer], at)]
            elif how == "mapped":
                end = min(at + length, os.fstat(fd).st_size)
                if end <= at:
                    return ""
                with mmap.mmap(fd, end - at, prot=mmap.PROT_READ, offset=at) as area:
                    data = area[:]
            else:
                data = os.pread(fd, length, at)
        finally:
            close(fd)
        return base64.b64encode(data).decode()

    def size(self, how):
        """fstat(2)."""
        fd, close = self.opened(os.O_RDONLY, how)
        try:
            return os.fstat(fd).st_size
        finally:
            close(fd)

    def forget(self, how):
        """Drops what is cached and clean."""
        if how == "file":
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write(how)

    # A volume: a directory whose contents are replaced as a whole, by a symbolic link, as a kubelet does.

    def publish(self, version):
        """Makes a version the one that is seen, and removes the one before."""
        top = os.path.join(self.base, "volume")
        os.makedirs(f"{top}/..{version}", exist_ok=True)
        with open(f"{top}/..{version}/value", "w", encoding="ascii") as file:
            file.write(f"{version}")
        os.symlink(f"..{version}", f"{top}/..new")
        os.rename(f"{top}/..new", f"{top}/..data")
        if os.path.exists(f"{top}/..{version - 1}"):
            os.unlink(f"{top}/..{version - 1}/value")
            os.rmdir(f"{top}/..{version - 1}")

    def published(self):
        """The version that is seen."""
        with open(os.path.join(self.base, "volume", "..data", "value"), encoding="ascii") as file:
            return int(file.read())

    # At the same time as others.

    def run(self, seed, seconds, owner, mine, common, foreign, tail, ways, pause=0.0):
        """Writes to pages of its own and to common ones, changes what is behind page `tail`, and reads all, as long as told: the
        version of each page of its own, and what was wrong."""
        rng = random.Random(f"{seed} {owner}")
        versions, wrong, newest, counts, saves = dict.fromkeys(mine, 0), [], {}, {}, 0
        sizes = [tail * PAGE, LIMIT]
        until = time.monotonic() + seconds
        while time.monotonic() < until and not wrong:
            time.sleep(pause)
            way = rng.choice(ways)
            counts[way] = counts.get(way, 0) + 1
            if way == "tail":
                # Whole cells.
                os.truncate(self.path, rng.randint(*sizes) // CELL.size * CELL.size)
                page = rng.randrange(tail, LIMIT // PAGE)
                self.put(page, cells(owner, page, 0), "fresh")
            elif way == "save":
                saves += 1
                self.save(owner, saves)
            elif way == "saved":
                self.judge_saved(newest, wrong)
            elif way.startswith("read"):
                page = rng.choice([*mine, *common, *foreign, *range(tail, LIMIT // PAGE)])
                count = rng.choice([1, 1, 4, 16])
                if way == "read-mapped":
                    # Somebody may make the file shorter meanwhile.
                    page, count = min(page, tail - 1), min(count, tail - min(page, tail - 1))
                self.judge(page, count, way.removeprefix("read-"), owner, mine, versions, tail, newest, wrong)
            else:
                page = rng.choice([*mine, *mine, *common])
                versions[page] = versions.get(page, 0) + 1
                self.put(page, cells(owner, page, versions[page]), way)
        return {"versions": {str(page): versions[page] for page in mine}, "wrong": wrong, "counts": counts}

    def put(self, page, data, way):
        """A page as a whole."""
        at = page * PAGE
        if way == "map":
            self.area.bytes[at : at + PAGE] = data
            call("msync", self.area.address + at, PAGE, MS_SYNC)
            return
        fd, close = self.opened(os.O_WRONLY, way)
        try:
            with mmap.mmap(-1, PAGE) as buffer:
                buffer[:] = data
                assert os.pwritev(fd, [buffer], at) == PAGE
        finally:
            close(fd)

    def save(self, owner, version):
        """Another file takes the name "saved"."""
        temporary = os.path.join(self.base, f"saved.{owner}")
        with open(temporary, "wb") as file:
            for page in range(SAVED):
                file.write(cells(owner, page, version))
        os.rename(temporary, os.path.join(self.base, "saved"))

    def judge_saved(self, newest, wrong):
        """The name is always there, and whole: one version, and none that is older than one seen before."""
        with open(os.path.join(self.base, "saved"), "rb") as file:
            data = file.read()
        if len(data) != SAVED * PAGE:
            wrong.append(f"saved: {len(data)} bytes, and all that was saved is longer or shorter")
            return
        owner, _, _, version = CELL.unpack_from(data)
        if data != b"".join(cells(owner, page, version) for page in range(SAVED)):
            wrong.append(f"saved: begins with version {version} of {owner}, and has something else, too")
        elif version < newest.get(("saved", owner), 0):
            wrong.append(f"saved: version {version} of {owner} after {newest['saved', owner]}")
        newest["saved", owner] = version

    def judge(self, first, count, way, owner, mine, versions, tail, newest, wrong):
        """Reads pages. All cells are ones that were written there, and a version is not seen any more after a later one; what is its
        own is always the last one."""
        data = base64.b64decode(self.read(first * PAGE, count * PAGE, way))
        if len(data) < (min(first + count, tail) - first) * PAGE:
            wrong.append(f"{way} {first * PAGE}: {len(data)} bytes, and the file never was so short")
        at = 0
        while at + CELL.size <= len(data) and not wrong:
            page = first + at // PAGE
            who, mark, where, version = CELL.unpack_from(data, at)
            seen = (who, chr(mark), where, version)
            place = f"{way} {first * PAGE + at} of {first * PAGE + len(data)}"
            if (who, mark, where, version) == (0, 0, 0, 0):
                if page < tail:
                    wrong.append(f"{place}: zeroes that nobody wrote")
            elif mark != ord("C") or where != page:
                wrong.append(f"{place}: {seen} does not belong there")
            elif page in mine and versions[page] and (who, version) != (owner, versions[page]):
                wrong.append(f"{place}: {seen}, and its own last version is {versions[page]}")
            # A read may come in the middle of a write, so that a page has cells of two versions.
            elif page < tail and version < newest.get((way, page, who), 0):
                wrong.append(f"{place}: {seen} after {newest[way, page, who]}")
            whole = at % PAGE == 0 and data[at : at + PAGE] == data[at : at + CELL.size] * (PAGE // CELL.size)
            if whole and mark == ord("C"):
                newest[way, page, who] = version
            at += PAGE if whole else CELL.size


def main():
    """Serves a port."""
    base = sys.argv[1]
    names = [os.path.dirname(path) for path in glob.glob("/sys/class/virtio-ports/*/name") if open(path, encoding="ascii").read().strip() == "guest.wire"]
    writer = Writer(base)
    with open(f"/dev/{os.path.basename(names[0])}", "r+b", buffering=0) as port:
        buffer = b""
        while True:
            while b"\n" not in buffer:
                buffer += os.read(port.fileno(), 1 << 16)
            line, _, buffer = buffer.partition(b"\n")
            asked = json.loads(line)
            if asked["what"] == "end":
                break
            answer = memoryview(json.dumps(writer.do(asked.pop("what"), **asked)).encode() + b"\n")
            while answer:
                answer = answer[os.write(port.fileno(), answer) :]
    writer.let_go()


if __name__ == "__main__" and len(sys.argv) == 2:
    main()
