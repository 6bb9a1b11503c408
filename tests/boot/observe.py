# SPDX-License-Identifier: GPL-2.0
"""What programs can see of a filesystem, as a table: runs in a guest on an empty directory and prints JSON.

Each observation has a name, and the value that a call returned or the error that it raised. Nothing in it depends on time,
on inode numbers, or on what was there before, so tables of two filesystems or two drivers can be compared row by row.
Usage: observe.py DIRECTORY OTHER-FILESYSTEM
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import stat
import struct
import sys

HERE, ELSEWHERE = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
seen = {}
USER = 1000
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE, WRITE_ZEROES = 1, 2, 8, 16, 32, 64, 128
# Numbers of system calls that the C library does not wrap.
SYS = {"renameat2": 316, "copy_file_range": 326, "statx": 332, "fchmodat2": 452, "preadv2": 327, "pwritev2": 328}
SYS |= {"fanotify_init": 300, "fanotify_mark": 301, "name_to_handle_at": 303, "open_by_handle_at": 304, "quotactl": 179}


def call(name, *arguments):
    """A function of the C library, or a system call; raises OSError."""
    words = [word.encode() if isinstance(word, str) else word for word in arguments]
    # Integers as long as registers are.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    done = libc.syscall(SYS[name], *words) if name in SYS else getattr(libc, name)(*words)
    if done is None or done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def see(name, action):
    """Records what an action returns, or the name of its error."""
    assert name not in seen, name
    try:
        value = action()
    except OSError as error:
        value = errno.errorcode.get(error.errno, error.errno)
    seen[name] = value.hex() if isinstance(value, bytes) else "ok" if value is None else value


class Opened:
    """An open file, for `with`."""

    def __init__(self, path, flags=os.O_RDONLY, mode=0o644):
        self.fd = os.open(path, flags, mode)

    def __enter__(self):
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def opened(path, flags, use=None, mode=0o644):
    """Opens a file, and returns what `use` makes of it."""
    with Opened(path, flags, mode) as fd:
        return use(fd) if use else None


def make(name, data=b"", mode=0o644):
    """A file with some data."""
    opened(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, lambda fd: os.write(fd, data) if data else None)
    os.chmod(name, mode)
    return name


def load(name):
    """The content of a file."""
    return opened(name, os.O_RDONLY, lambda fd: os.read(fd, 1 << 20))


def as_user(action):
    """Does something in a process of an ordinary user; what it returned, or its error."""
    ends = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        try:
            value = action()
            answer = "ok" if value is None else value
        except OSError as error:
            answer = errno.errorcode[error.errno]
        os.write(ends[1], json.dumps(answer).encode())
        os._exit(0)
    os.wait()
    answer = json.loads(os.read(ends[0], 4096))
    os.close(ends[0])
    os.close(ends[1])
    return answer


def signal_of(action):
    """Minus the number of the signal that ends a process doing something, the number of its error, or 0."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def opening():
    """open(2) and its flags."""
    make("file", b"0123456789")
    os.mkdir("dir")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(200, 77))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(200, 77))
    os.mknod("socket", stat.S_IFSOCK | 0o600)
    for name, path, flags in (
        ("missing", "missing", os.O_RDONLY),
        ("missing with O_WRONLY", "missing", os.O_WRONLY),
        ("O_CREAT of missing directory", "missing/file", os.O_CREAT),
        ("O_EXCL of existing", "file", os.O_CREAT | os.O_EXCL),
        ("O_EXCL of dangling link", "dangling", os.O_CREAT | os.O_EXCL),
        ("directory for writing", "dir", os.O_WRONLY),
        ("O_CREAT of directory", "dir", os.O_CREAT),
        ("O_CREAT with a slash at the end", "new/", os.O_CREAT),
        ("O_DIRECTORY of file", "file", os.O_DIRECTORY),
        ("O_DIRECTORY|O_CREAT", "newdir", os.O_DIRECTORY | os.O_CREAT),
        ("O_NOFOLLOW of link", "link", os.O_NOFOLLOW),
        ("O_PATH|O_NOFOLLOW of link", "link", os.O_NOFOLLOW | os.O_PATH),
        ("link loop", "loop", os.O_RDONLY),
        ("dangling link", "dangling", os.O_RDONLY),
        ("file as directory", "file/x", os.O_RDONLY),
        ("file with a slash at the end", "file/", os.O_RDONLY),
        ("name of 255", "n" * 255, os.O_CREAT),
        ("name of 256", "n" * 256, os.O_CREAT),
        ("path of 4096", "./" * 2048 + "file", os.O_RDONLY),
        ("empty name", "", os.O_RDONLY),
        ("fifo O_WRONLY|O_NONBLOCK", "fifo", os.O_WRONLY | os.O_NONBLOCK),
        ("fifo O_RDONLY|O_NONBLOCK", "fifo", os.O_RDONLY | os.O_NONBLOCK),
        ("device without driver", "device", os.O_RDONLY),
        ("block device without driver", "block", os.O_RDONLY),
        ("socket", "socket", os.O_RDONLY),
        ("socket O_PATH", "socket", os.O_PATH),
        ("O_TMPFILE", "dir", os.O_TMPFILE | os.O_RDWR),
        ("O_TMPFILE read only", "dir", os.O_TMPFILE | os.O_RDONLY),
        ("O_DIRECT", "file", os.O_DIRECT),
        ("O_NOATIME", "file", os.O_NOATIME),
        ("O_SYNC", "file", os.O_WRONLY | os.O_SYNC),
        ("access mode 3", "file", 3),
    ):
        see(f"open: {name}", lambda path=path, flags=flags: opened(path, flags))
    see("open: O_TRUNC", lambda: opened(make("truncated", b"x"), os.O_WRONLY | os.O_TRUNC, lambda fd: os.fstat(fd).st_size))
    see("open: O_RDONLY|O_TRUNC", lambda: opened(make("truncated", b"x"), os.O_RDONLY | os.O_TRUNC, lambda fd: os.fstat(fd).st_size))
    see("open: flags seen", lambda: opened("file", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK, lambda fd: fcntl.fcntl(fd, fcntl.F_GETFL)))
    see("open: F_SETFL O_DIRECT", lambda: opened("file", os.O_RDWR, lambda fd: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)))
    see("open: umask", lambda: (os.umask(0o027), opened("masked", os.O_CREAT, mode=0o666), os.umask(0o022), oct(os.stat("masked").st_mode))[3])
    see("open: /proc/self/fd for writing", lambda: opened("file", os.O_PATH, lambda fd: opened(f"/proc/self/fd/{fd}", os.O_WRONLY)))
    see("open: unlinked through /proc/self/fd", lambda: opened(make("gone", b"abc"), os.O_RDWR, lambda fd: (os.unlink("gone"), load(f"/proc/self/fd/{fd}"))[1]))


def attributes():
    """stat(2), statx(2), statfs(2)."""
    fields = "st_mode st_nlink st_uid st_gid st_rdev st_size st_blksize".split()
    for name in ("file", "link", "fifo", "device", "block", "socket"):
        see(f"lstat: {name}", lambda name=name: [getattr(os.lstat(name), field) for field in fields])
    see("lstat: directory", lambda: [os.stat("dir").st_mode, os.stat("dir").st_nlink, os.stat("dir").st_blksize])
    see("stat: blocks of 10 bytes", lambda: os.stat("file").st_blocks)
    see("stat: blocks of a hole", lambda: (os.truncate(make("hole"), 1 << 20), os.stat("hole").st_blocks)[1])
    see("stat: blocks of a megabyte", lambda: os.stat(make("mega", b"x" * (1 << 20))).st_blocks)
    see("stat: device number is one", lambda: len({os.stat(name).st_dev for name in ("file", "dir", ".")}))

    def statx(flags, mask, path="file"):
        buffer = ctypes.create_string_buffer(256)
        call("statx", AT_FDCWD, path, flags, mask, buffer)
        return struct.unpack_from("IIQIIIHxxQQQQ", buffer)

    see("statx: basic mask", lambda: hex(statx(0, 0x7FF)[0]))
    see("statx: mask with birth time", lambda: hex(statx(0, 0xFFF)[0]))
    see("statx: everything", lambda: hex(statx(0, 0x7FFFFFFF)[0] & ~0x5000))
    see("statx: attributes", lambda: hex(statx(0, 0xFFF)[2]))
    see("statx: attributes of the mount point", lambda: hex(statx(0, 0xFFF, ".")[2] & ~0x2000))
    see("statx: attributes that can be", lambda: hex(statx(0, 0xFFF)[10]))
    see("statx: AT_STATX_FORCE_SYNC", lambda: statx(0x2000, 0x7FF)[8])
    see("statx: AT_STATX_DONT_SYNC", lambda: statx(0x4000, 0x7FF)[8])
    see("statx: both of them", lambda: statx(0x6000, 0x7FF)[8])
    see("statx: reserved mask", lambda: statx(0, 1 << 31)[8])
    see("statfs: name length", lambda: os.statvfs(".").f_namemax)
    see("statfs: flags", lambda: os.statvfs(".").f_flag)

    def statfs(path):
        buffer = ctypes.create_string_buffer(120)
        call("statfs", path, buffer)
        return hex(struct.unpack_from("q", buffer)[0])

    see("statfs: type", lambda: statfs("."))
    see("statfs: block size", lambda: [os.statvfs(".").f_bsize, os.statvfs(".").f_frsize])
    line = [line.split() for line in open("/proc/self/mountinfo", encoding="utf-8") if line.split()[4] == os.path.dirname(HERE)]
    see("mountinfo", lambda: [line[-1][5], line[-1][7:10], line[-1][10] if len(line[-1]) > 10 else ""])
    see("pathconf: links", lambda: os.pathconf(".", "PC_LINK_MAX"))


def times():
    """utimensat(2), and what changes times."""

    def stamps(path, follow=True):
        found = os.stat(path, follow_symlinks=follow)
        return [found.st_atime_ns, found.st_mtime_ns]

    make("timed", b"x")
    for name, value in (("nanoseconds", 1_234_567_890_123_456_789), ("before 1970", -1_500_000_000), ("after 2038", 2**33 * 10**9 + 7)):
        see(f"times: {name}", lambda value=value: (os.utime("timed", ns=(value, value + 1)), stamps("timed"))[1])
    see("times: of a link", lambda: (os.utime("link", ns=(5, 6), follow_symlinks=False), stamps("link", False))[1])

    def changes(action):
        os.utime("timed", ns=(10**18, 10**18))
        before = os.stat("timed")
        # The kernel's clock goes in steps.
        select.select([], [], [], 0.02)
        action()
        after = os.stat("timed")
        return [name for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns") if getattr(before, name) != getattr(after, name)]

    see("times: read changes", lambda: changes(lambda: load("timed")))
    see("times: write changes", lambda: changes(lambda: opened("timed", os.O_WRONLY, lambda fd: os.write(fd, b"y"))))
    see("times: chmod changes", lambda: changes(lambda: os.chmod("timed", 0o600)))
    see("times: truncate changes", lambda: changes(lambda: os.truncate("timed", 5)))
    see("times: truncate to the same size changes", lambda: changes(lambda: os.truncate("timed", 5)))
    see("times: O_TRUNC of an empty file changes", lambda: (os.truncate("timed", 0), changes(lambda: opened("timed", os.O_WRONLY | os.O_TRUNC)))[1])
    see("times: link changes", lambda: changes(lambda: os.link("timed", "timed2")))
    see("times: rename changes", lambda: changes(lambda: (os.rename("timed", "timed3"), os.rename("timed3", "timed"))))
    see("times: fallocate changes", lambda: changes(lambda: opened("timed", os.O_WRONLY, lambda fd: os.posix_fallocate(fd, 0, 10))))
    see("times: shared mapping changes", lambda: changes(lambda: opened("timed", os.O_RDWR, poke)))
    see("times: not one's own", lambda: as_user(lambda: os.utime("timed", ns=(1, 1))))
    see("times: not one's own, to now", lambda: as_user(lambda: os.utime("timed")))
    os.chmod("timed", 0o666)
    see("times: writable, to now", lambda: as_user(lambda: os.utime("timed")))
    see("times: writable, to a given time", lambda: as_user(lambda: os.utime("timed", ns=(1, 1))))


def poke(fd):
    """Writes through a shared mapping."""
    with mmap.mmap(fd, 1, flags=mmap.MAP_SHARED) as area:
        area[0:1] = b"m"
        area.flush()


def reading_and_writing():
    """read(2), write(2), seeks and sizes."""
    make("data", bytes(range(256)) * 64)
    most = (1 << 63) - 1
    see("read: directory", lambda: opened("dir", os.O_RDONLY, lambda fd: os.read(fd, 10)))
    see("read: written only", lambda: opened("data", os.O_WRONLY, lambda fd: os.read(fd, 10)))
    see("read: at the end", lambda: opened("data", os.O_RDONLY, lambda fd: os.pread(fd, 10, 1 << 20)))
    see("read: across the end", lambda: opened("data", os.O_RDONLY, lambda fd: len(os.pread(fd, 100, 16380))))
    see("read: at the largest offset", lambda: opened("data", os.O_RDONLY, lambda fd: os.pread(fd, 10, most - 10)))
    see("read: past the largest offset", lambda: opened("data", os.O_RDONLY, lambda fd: os.pread(fd, 100, most - 10)))
    see("read: of no byte", lambda: opened("data", os.O_RDONLY, lambda fd: os.read(fd, 0)))
    see("read: into a bad address", lambda: opened("data", os.O_RDONLY, lambda fd: call("read", fd, ctypes.c_void_p(8), 10)))
    see("write: from a bad address", lambda: opened("data", os.O_WRONLY, lambda fd: call("write", fd, ctypes.c_void_p(8), 10)))
    see("write: opened for reading", lambda: opened("data", os.O_RDONLY, lambda fd: os.write(fd, b"x")))
    see("write: of no byte", lambda: opened("data", os.O_WRONLY, lambda fd: os.write(fd, b"")))
    see("write: at the largest offset", lambda: opened(make("far"), os.O_WRONLY, lambda fd: os.pwrite(fd, b"x", most - 1)))
    see("write: with O_APPEND at an offset", lambda: opened(make("app", b"abc"), os.O_WRONLY | os.O_APPEND, lambda fd: (os.pwrite(fd, b"x", 0), load("app"))[1]))
    see("write: leaves a hole", lambda: opened(make("sparse"), os.O_RDWR, lambda fd: (os.pwrite(fd, b"x", 100000), os.pread(fd, 4, 99997))[1]))
    see("seek: end of directory", lambda: opened("dir", os.O_RDONLY, lambda fd: os.lseek(fd, 0, os.SEEK_END) >= 0))
    see("seek: before the start", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, -1, os.SEEK_SET)))
    see("seek: far beyond the end", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, most, os.SEEK_SET)))
    see("seek: bad whence", lambda: opened("data", os.O_RDONLY, lambda fd: call("lseek", fd, 0, 9)))
    see("seek: data", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, 100, os.SEEK_DATA)))
    see("seek: hole", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, 100, os.SEEK_HOLE)))
    see("seek: data beyond the end", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, 1 << 20, os.SEEK_DATA)))
    see("seek: hole beyond the end", lambda: opened("data", os.O_RDONLY, lambda fd: os.lseek(fd, 1 << 20, os.SEEK_HOLE)))
    see("seek: data in a hole", lambda: opened("hole", os.O_RDONLY, lambda fd: os.lseek(fd, 0, os.SEEK_DATA)))
    see("truncate: negative", lambda: os.truncate("data", -1))
    see("truncate: directory", lambda: os.truncate("dir", 0))
    see("truncate: fifo", lambda: os.truncate("fifo", 0))
    see("truncate: opened for reading", lambda: opened("data", os.O_RDONLY, lambda fd: os.ftruncate(fd, 0)))
    see("truncate: missing", lambda: os.truncate("missing", 0))
    see("truncate: grows with zeros", lambda: (os.truncate(make("grown", b"ab"), 5), load("grown"))[1])
    see("truncate: largest", lambda: os.truncate("grown", most))

    def limited(action):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        return action()

    def read_soon(fd, flags):
        # NOWAIT begins to read, and EAGAIN or not is a matter of how soon the daemon answers.
        try:
            return os.preadv(fd, [bytearray(10)], 0, flags)
        except BlockingIOError:
            return 10

    os.chmod(make("limited"), 0o666)
    see("limit: write across", lambda: as_user(lambda: limited(lambda: opened("limited", os.O_WRONLY, lambda fd: os.write(fd, b"x" * 20000)))))
    see("limit: write beyond", lambda: as_user(lambda: limited(lambda: opened("limited", os.O_WRONLY, lambda fd: os.pwrite(fd, b"x", 10000)))))
    see("limit: truncate beyond", lambda: as_user(lambda: limited(lambda: os.truncate("limited", 20000))))
    see("limit: fallocate beyond", lambda: as_user(lambda: limited(lambda: opened("limited", os.O_WRONLY, lambda fd: os.posix_fallocate(fd, 0, 20000)))))
    buffer = mmap.mmap(-1, 8192)
    see("direct: aligned", lambda: opened("data", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [buffer], 4096)))
    see("direct: odd offset", lambda: opened("data", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [buffer], 100)))
    see("direct: odd length", lambda: opened("data", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [memoryview(buffer)[:100]], 0)))
    see("direct: odd memory", lambda: opened("data", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [memoryview(buffer)[1:4097]], 0)))
    see("direct: at the end", lambda: opened("data", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [buffer], 16384)))
    see("direct: write at an odd offset", lambda: opened("data", os.O_WRONLY | os.O_DIRECT, lambda fd: os.pwritev(fd, [buffer], 100)))
    for name, flags in (("HIPRI", 1), ("DSYNC", 2), ("SYNC", 4), ("NOWAIT", 8), ("APPEND", 16), ("NOAPPEND", 32), ("ATOMIC", 64), ("DONTCACHE", 128), ("reserved", 1 << 30)):
        see(f"preadv2: {name}", lambda flags=flags: opened("data", os.O_RDONLY, lambda fd: read_soon(fd, flags)))
        see(f"pwritev2: {name}", lambda flags=flags: opened("data", os.O_WRONLY, lambda fd: os.pwritev(fd, [b"0123456789"], 0, flags)))
    see("readahead: file", lambda: opened("data", os.O_RDONLY, lambda fd: call("readahead", fd, 0, 4096)))
    see("readahead: directory", lambda: opened("dir", os.O_RDONLY, lambda fd: call("readahead", fd, 0, 4096)))
    see("fadvise", lambda: opened("data", os.O_RDONLY, lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)))
    see("sync_file_range", lambda: opened("data", os.O_WRONLY, lambda fd: call("sync_file_range", fd, 0, 0, 7)))
    see("sync_file_range: directory", lambda: opened("dir", os.O_RDONLY, lambda fd: call("sync_file_range", fd, 0, 0, 7)))
    see("fsync: opened for reading", lambda: opened("data", os.O_RDONLY, os.fsync))
    see("fsync: directory", lambda: opened("dir", os.O_RDONLY, os.fsync))
    see("fdatasync: directory", lambda: opened("dir", os.O_RDONLY, os.fdatasync))
    see("syncfs", lambda: opened("dir", os.O_RDONLY, lambda fd: call("syncfs", fd)))
    see("sendfile", lambda: opened("data", os.O_RDONLY, lambda source: opened("sent", os.O_WRONLY | os.O_CREAT, lambda to: os.sendfile(to, source, 0, 1000))))
    see("splice: to a pipe", lambda: opened("data", os.O_RDONLY, lambda fd: os.splice(fd, PIPE[1], 1000, offset_src=0)))
    see("splice: from a pipe", lambda: opened("spliced", os.O_WRONLY | os.O_CREAT, lambda fd: os.splice(PIPE[0], fd, 1000, offset_dst=0)))
    see("splice: append", lambda: (os.write(PIPE[1], b"abc"), opened("spliced", os.O_WRONLY | os.O_APPEND, lambda fd: os.splice(PIPE[0], fd, 3)))[1])
    os.read(PIPE[0], 10) if select.select([PIPE[0]], [], [], 0)[0] else None
    see("poll: file", lambda: opened("data", os.O_RDWR, poll_of))
    see("poll: directory", lambda: opened("dir", os.O_RDONLY, poll_of))
    see("epoll: file", lambda: opened("data", os.O_RDONLY, lambda fd: EPOLL.register(fd)))


PIPE = os.pipe()
EPOLL = select.epoll()


def poll_of(fd):
    """What poll(2) says about a file."""
    poll = select.poll()
    poll.register(fd, 0xFF)
    return [hex(events) for _, events in poll.poll(0)]


def space():
    """fallocate(2), copies, clones, and ioctl(2)."""

    def fallocate(mode, offset=0, length=8192, path="space", flags=os.O_RDWR):
        make("space", b"z" * 16384)
        return opened(path, flags, lambda fd: (call("fallocate", fd, mode, offset, length), os.fstat(fd).st_size)[1])

    for name, mode in (
        ("plain", 0),
        ("keep size", KEEP_SIZE),
        ("punch", PUNCH_HOLE | KEEP_SIZE),
        ("punch without keep size", PUNCH_HOLE),
        ("zero", ZERO),
        ("zero and keep size", ZERO | KEEP_SIZE),
        ("collapse", COLLAPSE),
        ("insert", INSERT),
        ("unshare", UNSHARE),
        ("write zeroes", WRITE_ZEROES),
        ("punch and zero", PUNCH_HOLE | ZERO | KEEP_SIZE),
        ("unknown mode", 0x400),
    ):
        see(f"fallocate: {name}", lambda mode=mode: fallocate(mode))
        see(f"fallocate: {name} beyond the end", lambda mode=mode: fallocate(mode, 16384, 16384))
    see("fallocate: no length", lambda: fallocate(0, 0, 0))
    see("fallocate: negative offset", lambda: fallocate(0, -1))
    see("fallocate: too far", lambda: fallocate(0, (1 << 63) - 4096, 8192))
    see("fallocate: opened for reading", lambda: fallocate(0, flags=os.O_RDONLY))
    see("fallocate: directory", lambda: fallocate(0, path="dir", flags=os.O_RDONLY))
    see("fallocate: O_APPEND", lambda: fallocate(0, flags=os.O_RDWR | os.O_APPEND))

    def copy(source, target, source_offset=0, target_offset=0, length=1000, flags=0, how=os.O_RDWR):
        offsets = (ctypes.c_longlong(source_offset), ctypes.c_longlong(target_offset))
        with Opened(source) as here, Opened(target, how | (0 if how == os.O_RDONLY else os.O_CREAT)) as there:
            return call("copy_file_range", here, ctypes.byref(offsets[0]), there, ctypes.byref(offsets[1]), length, flags)

    see("copy_file_range", lambda: copy("data", "copy"))
    see("copy_file_range: across the end", lambda: copy("data", "copy", 16000, 0, 1000))
    see("copy_file_range: beyond the end", lambda: copy("data", "copy", 20000))
    see("copy_file_range: within a file", lambda: copy("data", "data", 0, 8192))
    see("copy_file_range: overlapping", lambda: copy("data", "data", 0, 500))
    see("copy_file_range: flags", lambda: copy("data", "copy", flags=1))
    see("copy_file_range: to O_APPEND", lambda: copy("data", "copy", how=os.O_WRONLY | os.O_APPEND))
    see("copy_file_range: to opened for reading", lambda: copy("data", "copy", how=os.O_RDONLY))
    see("copy_file_range: from a directory", lambda: copy("dir", "copy"))
    see("copy_file_range: from elsewhere", lambda: copy(f"{ELSEWHERE}/there", "copy"))
    see("copy_file_range: to elsewhere", lambda: copy("data", f"{ELSEWHERE}/there2"))
    see("copy_file_range: no length", lambda: copy("data", "copy", length=0))

    def control(number, argument=None, path="data", flags=os.O_RDWR):
        def use(fd):
            done = fcntl.ioctl(fd, number, bytearray(64) if argument is None else argument)
            return done if isinstance(done, int) else "ok"

        return opened(path, flags, use)

    with Opened("data") as source:
        see("ioctl: FICLONE", lambda: control(0x40049409, source, "copy"))
    for name, number in (
        ("FS_IOC_GETFLAGS", 0x80086601),
        ("FS_IOC_SETFLAGS", 0x40086602),
        ("FS_IOC_FSGETXATTR", 0x801C581F),
        ("FS_IOC_GETVERSION", 0x80087601),
        ("FS_IOC_FIEMAP", 0xC020660B),
        ("FS_IOC_GETFSUUID", 0x80111500),
        ("FS_IOC_GETFSLABEL", 0x81009431),
        ("FIDEDUPERANGE", 0xC0189436),
        ("FIBMAP", 1),
        ("FIGETBSZ", 2),
        ("FIONREAD", 0x541B),
        ("FIOQSIZE", 0x5460),
        ("FITRIM", 0xC0185879),
        ("TCGETS", 0x5401),
        ("unknown", 0x12345678),
    ):
        see(f"ioctl: {name}", lambda number=number: control(number))
    see("ioctl: unknown, of a directory", lambda: control(0x12345678, path="dir", flags=os.O_RDONLY))
    see("swapon", lambda: call("swapon", make("swap", b"\0" * 65536, 0o600), 0))


def names():
    """Directories: making, renaming, linking, removing, listing."""
    os.mkdir("full")
    make("full/file")
    os.mkdir("empty")
    make("plain", b"plain")
    see("mkdir: existing", lambda: os.mkdir("dir"))
    see("mkdir: over a dangling link", lambda: os.mkdir("dangling"))
    see("mkdir: of missing directory", lambda: os.mkdir("missing/dir"))
    see("mkdir: mode", lambda: (os.mkdir("moded", 0o7777), oct(os.stat("moded").st_mode))[1])
    see("mkdir: links of the parent", lambda: (os.mkdir("parent"), os.stat("parent").st_nlink, os.mkdir("parent/a"), os.stat("parent").st_nlink)[1::2])
    see("rmdir: full", lambda: os.rmdir("full"))
    see("rmdir: file", lambda: os.rmdir("plain"))
    see("rmdir: missing", lambda: os.rmdir("missing"))
    see("rmdir: dot", lambda: os.rmdir("empty/."))
    see("rmdir: dot dot", lambda: os.rmdir("full/.."))
    see("rmdir: mount point", lambda: os.rmdir(os.path.dirname(HERE)))
    see("unlink: directory", lambda: os.unlink("empty"))
    see("unlink: missing", lambda: os.unlink("missing"))
    see("unlink: link", lambda: (os.symlink("plain", "away"), os.unlink("away"), os.path.exists("plain"))[2])
    see("link: directory", lambda: os.link("dir", "dir2"))
    see("link: existing", lambda: os.link("plain", "file"))
    see("link: to elsewhere", lambda: os.link("plain", f"{ELSEWHERE}/plain"))
    see("link: count", lambda: (os.link("plain", "plain2"), os.stat("plain").st_nlink, os.unlink("plain2"), os.stat("plain").st_nlink)[1::2])
    see("link: of a link", lambda: (os.link("link", "link2", follow_symlinks=False), os.lstat("link2").st_nlink)[1])
    see("link: unlinked file", lambda: opened(make("gone"), os.O_RDWR, lambda fd: (os.unlink("gone"), call("linkat", fd, "", AT_FDCWD, "back", AT_EMPTY_PATH))[1]))
    see("symlink: existing", lambda: os.symlink("x", "file"))
    see("symlink: empty", lambda: os.symlink("", "nothing"))
    see("symlink: of 4095", lambda: (os.symlink("x" * 4095, "long"), len(os.readlink("long")))[1])
    see("symlink: of 4096", lambda: os.symlink("x" * 4096, "longer"))
    see("symlink: size", lambda: os.lstat("link").st_size)
    see("readlink: file", lambda: os.readlink("file"))
    see("readlink: directory", lambda: os.readlink("dir"))
    see("mknod: directory", lambda: os.mknod("nod", stat.S_IFDIR | 0o700))
    see("mknod: device as user", lambda: as_user(lambda: os.mknod("nod", stat.S_IFCHR | 0o600, 5)))
    see("rename: missing", lambda: os.rename("missing", "x"))
    see("rename: file over directory", lambda: os.rename("plain", "empty"))
    see("rename: directory over file", lambda: os.rename("empty", "plain"))
    see("rename: directory over full", lambda: os.rename("empty", "full"))
    see("rename: directory into itself", lambda: os.rename("full", "full/x"))
    see("rename: over one's parent", lambda: os.rename("full/file", "full"))
    see("rename: to elsewhere", lambda: os.rename("plain", f"{ELSEWHERE}/plain"))
    see("rename: dot", lambda: os.rename("full/.", "x"))
    see("rename: between links of a file", lambda: (os.link("plain", "plain3"), os.rename("plain", "plain3"), os.path.exists("plain"))[2])

    def rename2(source, target, flags):
        return call("renameat2", AT_FDCWD, source, AT_FDCWD, target, flags)

    make("a", b"a")
    make("b", b"b")
    see("renameat2: NOREPLACE of existing", lambda: rename2("a", "b", RENAME_NOREPLACE))
    see("renameat2: NOREPLACE", lambda: rename2("a", "c", RENAME_NOREPLACE))
    see("renameat2: EXCHANGE", lambda: (rename2("b", "c", RENAME_EXCHANGE), load("b"))[1])
    see("renameat2: EXCHANGE with missing", lambda: rename2("b", "missing", RENAME_EXCHANGE))
    see("renameat2: EXCHANGE file and directory", lambda: rename2("b", "empty", RENAME_EXCHANGE))
    see("renameat2: WHITEOUT", lambda: (rename2("c", "d", RENAME_WHITEOUT), oct(os.lstat("c").st_mode))[1])
    see("renameat2: NOREPLACE|EXCHANGE", lambda: rename2("b", "d", 3))
    see("renameat2: unknown flag", lambda: rename2("b", "d", 8))

    def getdents(path, size):
        buffer = ctypes.create_string_buffer(size)
        return opened(path, os.O_RDONLY, lambda fd: call("getdents64", fd, buffer, size) > 0)

    see("getdents: small buffer", lambda: getdents("full", 8))
    see("getdents: of a file", lambda: getdents("file", 4096))
    see("getdents: types", lambda: sorted([entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()] for entry in os.scandir(".") if entry.name in ("file", "dir", "link", "fifo")))
    see("directory: removed, listing", lambda: removed(lambda fd: os.listdir(fd)))
    see("directory: removed, making", lambda: removed(lambda fd: os.open("x", os.O_CREAT, dir_fd=fd)))
    see("directory: removed, looking up", lambda: removed(lambda fd: os.stat("x", dir_fd=fd)))
    see("directory: removed, links", lambda: removed(lambda fd: os.fstat(fd).st_nlink))
    see("directory: removed, dot dot", lambda: removed(lambda fd: stat.S_ISDIR(os.stat("..", dir_fd=fd).st_mode)))
    see("directory: removed, getcwd", lambda: removed(lambda fd: (os.fchdir(fd), os.getcwd())[1]))
    os.chdir(HERE)
    see("file: unlinked, links", lambda: opened(make("gone", b"x"), os.O_RDWR, lambda fd: (os.unlink("gone"), os.fstat(fd).st_nlink)[1]))
    see("file: unlinked, written and read", lambda: opened(make("gone", b"x"), os.O_RDWR, lambda fd: (os.unlink("gone"), os.pwrite(fd, b"yz", 1), os.pread(fd, 9, 0))[2]))
    see("file: unlinked, chmod", lambda: opened(make("gone", b"x"), os.O_RDWR, lambda fd: (os.unlink("gone"), os.fchmod(fd, 0o600), oct(os.fstat(fd).st_mode))[2]))
    see("file: unlinked, truncate", lambda: opened(make("gone", b"x"), os.O_RDWR, lambda fd: (os.unlink("gone"), os.ftruncate(fd, 7), os.fstat(fd).st_size)[2]))
    see("file: replaced, old content", lambda: opened(make("old", b"old"), os.O_RDWR, lambda fd: (make("new", b"new"), os.rename("new", "old"), os.pread(fd, 9, 0))[2]))
    tmpfile = os.O_TMPFILE | os.O_RDWR
    see("tmpfile: linked", lambda: opened(".", tmpfile, lambda fd: (os.write(fd, b"t"), call("linkat", AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, "linked", 0x400), load("linked"))[2]))


def removed(use):
    """What is left of a directory that was removed while open."""
    os.mkdir("removed")
    with Opened("removed") as fd:
        os.rmdir("removed")
        return use(fd)


def rights():
    """Owners, modes, and who may do what."""
    os.chmod(".", 0o755)
    make("private", b"#!/bin/sh\n", 0o600)
    make("public", b"x", 0o666)
    os.mkdir("closed", 0o700)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    make("sticky/roots")
    os.mkdir("group")
    os.chown("group", 0, 4321)
    os.chmod("group", 0o2777)
    see("rights: open for reading", lambda: as_user(lambda: opened("private", os.O_RDONLY)))
    see("rights: open for writing", lambda: as_user(lambda: opened("file", os.O_WRONLY)))
    see("rights: O_TRUNC", lambda: as_user(lambda: opened("file", os.O_RDONLY | os.O_TRUNC)))
    see("rights: O_NOATIME of another's", lambda: as_user(lambda: opened("public", os.O_RDONLY | os.O_NOATIME)))
    see("rights: look into", lambda: as_user(lambda: os.stat("closed/x")))
    see("rights: list", lambda: as_user(lambda: os.listdir("closed")))
    see("rights: change to", lambda: as_user(lambda: os.chdir("closed")))
    see("rights: create", lambda: as_user(lambda: opened("new", os.O_CREAT)))
    see("rights: unlink", lambda: as_user(lambda: os.unlink("public")))
    see("rights: unlink in sticky", lambda: as_user(lambda: os.unlink("sticky/roots")))
    see("rights: rename in sticky", lambda: as_user(lambda: os.rename("sticky/roots", "sticky/x")))
    see("rights: chmod", lambda: as_user(lambda: os.chmod("public", 0o777)))
    see("rights: chown", lambda: as_user(lambda: os.chown("public", USER, USER)))
    see("rights: access", lambda: as_user(lambda: [os.access("private", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)]))
    see("rights: access of root", lambda: [os.access("private", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)])
    see("rights: execute", lambda: execute("private"))
    see("rights: execute a directory", lambda: execute("dir"))
    see("rights: execute while open for writing", lambda: opened(make("busy", b"#!/bin/true\n", 0o755), os.O_WRONLY, lambda _: execute("busy")))
    see("rights: execute a script", lambda: execute(make("script", b"#!/bin/true\n", 0o755)))
    see("rights: set-group-ID directory", lambda: (opened("group/file", os.O_CREAT), os.stat("group/file").st_gid, os.mkdir("group/dir"), oct(os.stat("group/dir").st_mode))[1::2])
    see("rights: owner of what a user makes", lambda: (as_user(lambda: opened("sticky/mine", os.O_CREAT)), os.stat("sticky/mine").st_uid, os.stat("sticky/mine").st_gid)[1:])
    see("rights: user sets set-group-ID of another group", lambda: (as_user(lambda: opened("group/theirs", os.O_CREAT, mode=0o2775)), oct(os.stat("group/theirs").st_mode))[1])

    def modes_after(action, mode, owner=USER):
        make("ids", b"x")
        os.chown("ids", owner, owner)
        os.chmod("ids", mode)
        action()
        return oct(os.stat("ids").st_mode & 0o7777)

    def write():
        opened("ids", os.O_WRONLY, lambda fd: os.write(fd, b"y"))

    def copy_to_ids():
        with Opened("public") as here, Opened("ids", os.O_WRONLY) as there:
            os.copy_file_range(here, there, 1)

    see("set-id: write by root", lambda: modes_after(write, 0o6777))
    see("set-id: write by user", lambda: modes_after(lambda: as_user(write), 0o6777))
    see("set-id: write by user, not executable", lambda: modes_after(lambda: as_user(write), 0o6666))
    see("set-id: truncate by user", lambda: modes_after(lambda: as_user(lambda: os.truncate("ids", 0)), 0o6777))
    see("set-id: O_TRUNC by user", lambda: modes_after(lambda: as_user(lambda: opened("ids", os.O_WRONLY | os.O_TRUNC)), 0o6777))
    see("set-id: fallocate by user", lambda: modes_after(lambda: as_user(lambda: opened("ids", os.O_WRONLY, lambda fd: os.posix_fallocate(fd, 0, 100))), 0o6777))
    see("set-id: copy_file_range by user", lambda: modes_after(lambda: as_user(copy_to_ids), 0o6777))
    see("set-id: mapping by user", lambda: modes_after(lambda: as_user(lambda: opened("ids", os.O_RDWR, poke)), 0o6777))
    see("set-id: chown by root", lambda: modes_after(lambda: os.chown("ids", 5, 5), 0o6777))
    see("set-id: chown by root, not executable", lambda: modes_after(lambda: os.chown("ids", 5, 5), 0o6666))
    see("set-id: chown of nothing", lambda: modes_after(lambda: os.chown("ids", -1, -1), 0o6777))
    see("set-id: chmod by user of another group", lambda: modes_after(lambda: as_user(lambda: (os.chmod("ids", 0o2755), None)[1]), 0o755))
    see("chmod: of a link", lambda: call("fchmodat2", AT_FDCWD, "link", 0o600, AT_SYMLINK_NOFOLLOW))
    see("chown: of a link", lambda: (os.lchown("link", 7, 8), os.lstat("link").st_uid, os.lstat("link").st_gid)[1:])
    see("chown: largest", lambda: (os.chown(make("owned"), 0xFFFFFFFE, 0xFFFFFFFE), os.stat("owned").st_uid)[1])


def execute(path):
    """Runs a file; its exit status, or the error."""
    ends = os.pipe()
    if os.fork() == 0:
        try:
            os.execv(f"./{path}", [path])
        except OSError as error:
            os.write(ends[1], errno.errorcode[error.errno].encode())
        os._exit(1)
    os.wait()
    os.close(ends[1])
    said = os.read(ends[0], 100).decode() or "ok"
    os.close(ends[0])
    return said


def extended_attributes():
    """Extended attributes."""
    make("marked")
    os.symlink("marked", "marked-link")

    def get(name, size, path="marked"):
        return call("getxattr", path, name, ctypes.create_string_buffer(size or 1), size)

    def set_xattr(name, value, flags=0, path="marked"):
        return call("setxattr", path, name, value, len(value), flags)

    see("xattr: missing", lambda: get("user.none", 100))
    see("xattr: set", lambda: set_xattr("user.one", b"12345"))
    see("xattr: length", lambda: get("user.one", 0))
    see("xattr: too little room", lambda: get("user.one", 3))
    see("xattr: create existing", lambda: set_xattr("user.one", b"x", 1))
    see("xattr: replace missing", lambda: set_xattr("user.two", b"x", 2))
    see("xattr: both flags", lambda: set_xattr("user.one", b"x", 3))
    see("xattr: unknown flag", lambda: set_xattr("user.one", b"x", 4))
    see("xattr: empty value", lambda: (set_xattr("user.empty", b""), get("user.empty", 10))[1])
    see("xattr: name of 255", lambda: set_xattr("user." + "n" * 250, b"x"))
    see("xattr: name of 256", lambda: set_xattr("user." + "n" * 251, b"x"))
    see("xattr: only the prefix", lambda: set_xattr("user.", b"x"))
    see("xattr: no prefix", lambda: set_xattr("plain", b"x"))
    see("xattr: unknown prefix", lambda: set_xattr("other.name", b"x"))
    see("xattr: value of 65537", lambda: set_xattr("user.big", b"x" * 65537))
    see("xattr: list", lambda: sorted(os.listxattr("marked")))
    see("xattr: list with too little room", lambda: call("listxattr", "marked", ctypes.create_string_buffer(3), 3))
    see("xattr: remove", lambda: os.removexattr("marked", "user.one"))
    see("xattr: remove missing", lambda: os.removexattr("marked", "user.one"))
    see("xattr: user of a link", lambda: os.setxattr("marked-link", "user.x", b"x", follow_symlinks=False))
    see("xattr: user of a fifo", lambda: os.setxattr("fifo", "user.x", b"x"))
    see("xattr: user of a sticky directory of another", lambda: as_user(lambda: os.setxattr("sticky", "user.x", b"x")))
    see("xattr: trusted", lambda: (os.setxattr("marked", "trusted.x", b"t"), os.getxattr("marked", "trusted.x"))[1])
    see("xattr: trusted as user", lambda: as_user(lambda: os.setxattr("public", "trusted.x", b"x")))
    see("xattr: trusted as user, reading", lambda: as_user(lambda: os.getxattr("marked", "trusted.x").hex()))
    see("xattr: security", lambda: os.setxattr("marked", "security.x", b"x"))
    see("xattr: system", lambda: os.setxattr("marked", "system.x", b"x"))
    see("xattr: access control list", lambda: os.getxattr("marked", "system.posix_acl_access"))
    see("xattr: write to another's", lambda: as_user(lambda: os.setxattr("marked", "user.x", b"x")))
    capability = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    see("xattr: capability", lambda: (os.setxattr("marked", "security.capability", capability), len(os.getxattr("marked", "security.capability")))[1])
    see("xattr: capability after a write", lambda: (opened("marked", os.O_WRONLY, lambda fd: os.write(fd, b"x")), os.getxattr("marked", "security.capability"))[1])


def locks_and_watches():
    """Locks, leases, handles, notifications."""
    make("locked", b"x" * 100)
    os.chmod("locked", 0o666)

    def other(action):
        ends = os.pipe()
        if os.fork() == 0:
            try:
                action()
                said = "ok"
            except OSError as error:
                said = errno.errorcode[error.errno]
            os.write(ends[1], said.encode())
            os._exit(0)
        os.wait()
        os.close(ends[1])
        said = os.read(ends[0], 100).decode()
        os.close(ends[0])
        return said

    def flock(how, path="locked"):
        return opened(path, os.O_RDWR, lambda fd: fcntl.flock(fd, how | fcntl.LOCK_NB))

    def posix(kind, path="locked"):
        return opened(path, os.O_RDWR, lambda fd: fcntl.lockf(fd, kind | fcntl.LOCK_NB, 10, 0))

    with Opened("locked", os.O_RDWR) as fd:
        see("flock: exclusive", lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        see("flock: against exclusive", lambda: other(lambda: flock(fcntl.LOCK_SH)))
        see("flock: same process, other file", lambda: flock(fcntl.LOCK_EX))
        see("flock: shared", lambda: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB))
        see("flock: against shared", lambda: other(lambda: flock(fcntl.LOCK_SH)))
        fcntl.flock(fd, fcntl.LOCK_UN)
        see("lockf: exclusive", lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0))
        see("lockf: against exclusive", lambda: other(lambda: posix(fcntl.LOCK_EX)))
        see("lockf: gone after any close", lambda: (opened("locked", os.O_RDWR), other(lambda: posix(fcntl.LOCK_EX)))[1])
        see("ofd lock", lambda: fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)) is not None)
        see("ofd lock: against", lambda: other(lambda: posix(fcntl.LOCK_EX)))
    see("flock: directory", lambda: opened("dir", os.O_RDONLY, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX)))
    see("lockf: opened for reading", lambda: opened("locked", os.O_RDONLY, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)))
    see("lease: write", lambda: opened("locked", os.O_RDWR, lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)))
    see("lease: read", lambda: opened("locked", os.O_RDONLY, lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)))
    see("lease: directory", lambda: opened("dir", os.O_RDONLY, lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)))
    see("dnotify", lambda: opened("dir", os.O_RDONLY, lambda fd: fcntl.fcntl(fd, fcntl.F_NOTIFY, 0x4)))
    see("seals", lambda: opened("locked", os.O_RDWR, lambda fd: fcntl.fcntl(fd, 1034)))
    see("write hint", lambda: opened("locked", os.O_RDWR, lambda fd: len(fcntl.fcntl(fd, 1036, struct.pack("Q", 2)))))

    def handle(path, flags=0):
        buffer = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
        call("name_to_handle_at", AT_FDCWD, path, buffer, ctypes.byref(ctypes.c_longlong()), flags)
        return buffer

    see("handle: length and type", lambda: list(struct.unpack_from("Ii", handle("file"))))
    see("handle: for identification", lambda: list(struct.unpack_from("Ii", handle("file", 0x200))))

    def by_handle(found):
        with Opened(".") as here:
            os.close(call("open_by_handle_at", here, found, os.O_RDONLY))

    see("handle: opened", lambda: by_handle(handle("file")))
    see("inotify", lambda: call("inotify_add_watch", call("inotify_init"), "file", 0xFFF) > 0)

    def fanotify(flags, mark, mask, path):
        group = call("fanotify_init", flags, os.O_RDONLY)
        try:
            call("fanotify_mark", group, 1 | mark, mask, AT_FDCWD, path)
        finally:
            os.close(group)

    see("fanotify: file", lambda: fanotify(0, 0, 0x2, "file"))
    see("fanotify: mount", lambda: fanotify(0, 0x10, 0x2, "file"))
    see("fanotify: filesystem", lambda: fanotify(0, 0x100, 0x2, "file"))
    see("fanotify: with identification", lambda: fanotify(0x200, 0x100, 0x2, "file"))
    see("fanotify: with directory and name", lambda: fanotify(0xC00, 0, 0x100 | 0x8000000, "dir"))
    see("quotactl", lambda: call("quotactl", 0x80000701, HERE, 0, ctypes.create_string_buffer(128)))


def mappings():
    """mmap(2)."""
    make("mapped", b"m" * 5000)

    def map_file(flags, protection, how=os.O_RDWR, path="mapped", length=8192):
        def use(fd):
            where = libc.mmap(None, ctypes.c_long(length), protection, flags, fd, ctypes.c_long(0))
            if where == ctypes.c_void_p(-1).value:
                raise OSError(ctypes.get_errno(), "mmap")
            libc.munmap(ctypes.c_void_p(where), ctypes.c_long(length))

        return opened(path, how, use)

    see("mmap: shared", lambda: map_file(1, 3))
    see("mmap: private", lambda: map_file(2, 3))
    see("mmap: shared for writing, opened for reading", lambda: map_file(1, 3, os.O_RDONLY))
    see("mmap: shared for reading, opened for reading", lambda: map_file(1, 1, os.O_RDONLY))
    see("mmap: private for writing, opened for reading", lambda: map_file(2, 3, os.O_RDONLY))
    see("mmap: opened for writing", lambda: map_file(1, 2, os.O_WRONLY))
    see("mmap: directory", lambda: map_file(1, 1, os.O_RDONLY, "dir"))
    see("mmap: MAP_SYNC", lambda: map_file(0x80003, 3))
    see("mmap: executable", lambda: map_file(2, 5))
    see("mmap: of O_DIRECT", lambda: map_file(1, 3, os.O_RDWR | os.O_DIRECT))

    def touch(offset, write=False):
        with Opened("mapped", os.O_RDWR) as fd:
            area = mmap.mmap(fd, 5000, flags=mmap.MAP_SHARED)
            os.ftruncate(fd, 10)
            return area[offset] if not write else area.__setitem__(offset, 1)

    see("mmap: truncated, first page", lambda: signal_of(lambda: touch(20)))
    make("mapped", b"m" * 5000)
    see("mmap: truncated, second page", lambda: signal_of(lambda: touch(4500)))
    make("mapped", b"m" * 5000)
    see("mmap: read sees the write", lambda: opened("mapped", os.O_RDWR, lambda fd: (poke(fd), os.pread(fd, 2, 0))[1]))
    see("mmap: sees write(2)", lambda: opened("mapped", os.O_RDWR, sees))


def sees(fd):
    """Whether a shared mapping shows what is written."""
    with mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED) as area:
        first = area[:2]
        os.pwrite(fd, b"ww", 0)
        return [first.decode(), area[:2].decode()]


os.umask(0o022)
os.mkdir(HERE)
os.chmod(HERE, 0o755)
os.chdir(HERE)
with open(f"{ELSEWHERE}/there", "wb") as there:
    there.write(b"e" * 5000)
for part in (opening, attributes, times, reading_and_writing, space, names, rights, extended_attributes, locks_and_watches, mappings):
    part()
print(json.dumps(seen, indent=0))
