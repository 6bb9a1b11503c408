# SPDX-License-Identifier: GPL-2.0
"""ioctl(2): data goes the way that the call's number says; flags of inodes; what the daemon does not know is ENOTTY."""

import pytest
from rig import Pace

RIG = {}
PACE = Pace()

PROGRAM = """
import array, ctypes, errno, fcntl, json, os, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
NONE, W, R, RW = 0, 1, 2, 3

def number(direction, kind, nr, size):
    return direction << 30 | size << 16 | ord(kind) << 8 | nr

def ioctl(fd, call, data=b"", address=None):
    # The result, and what the buffer holds then.
    buffer = ctypes.create_string_buffer(data, max(len(data), 1))
    done = libc.ioctl(fd, call, ctypes.addressof(buffer) if address is None else address)
    if done < 0:
        return errno.errorcode[ctypes.get_errno()]
    return [done, buffer.raw[:len(data)].decode()]

fd, directory = os.open("/mnt/file", os.O_RDWR), os.open("/mnt/dir", os.O_RDONLY)
"""


def files(tree):
    """What is shared."""
    tree.file("file", "content\n")
    tree.file("dir/file", "x")


@pytest.fixture
def share(rig):
    """Mounts the share with some settings, and unmounts it at the end."""

    def mount(**settings):
        rig.daxd.configure(**{"init_flags": "+HAS_IOCTL_DIR", **settings})
        rig.guest.mount("daxd")
        return lambda script: rig.guest.value(PROGRAM + script)

    yield mount
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.parametrize("opened", ["fd", "directory"])
def test_data(share, opened):
    """As much data goes to the daemon and comes back as the number of the call says, of files and directories."""
    run = share()
    assert run(f"""
print(json.dumps([
    ioctl({opened}, number(RW, "D", 1, 6), b"abcdef"), ioctl({opened}, number(W, "D", 1, 6), b"abcdef"),
    ioctl({opened}, number(R, "D", 1, 6), b"abcdef"), ioctl({opened}, number(NONE, "D", 1, 0), b"abcdef"),
    ioctl({opened}, number(RW, "D", 1, 16383), b"x" + bytes(16382))[1][-1:], ioctl({opened}, number(RW, "D", 2, 6), b"abcdef"),
]))
""") == [[6, "fedcba"], [6, "abcdef"], [0, "abcdef"], [0, "abcdef"], "x", "ENOTTY"]


def test_bad_address(share):
    """Data where the caller has no memory is EFAULT."""
    run = share()
    assert run("""
print(json.dumps([ioctl(fd, number(W, "D", 1, 6), address=16), ioctl(fd, number(RW, "D", 1, 6), address=16)]))
""") == ["EFAULT", "EFAULT"]


def test_inode_flags(share):
    """Flags of inodes are set and shown in both forms, and only who owns the file may set them."""
    run = share()
    assert run("""
GETFLAGS, SETFLAGS = number(R, "f", 1, 8), number(W, "f", 2, 8)
FSGET, FSSET = number(R, "X", 31, 28), number(W, "X", 32, 28)
def flags(fd):
    got = bytearray(8)
    fcntl.ioctl(fd, GETFLAGS, got)
    return int.from_bytes(got[:4], "little")
def extended(fd):
    got = bytearray(28)
    fcntl.ioctl(fd, FSGET, got)
    return struct.unpack("5I", got[:20])
got = []
for opened in (fd, directory):
    got.append(flags(opened))
    fcntl.ioctl(opened, SETFLAGS, struct.pack("Q", 0xC0))
    got.append(flags(opened))
    fcntl.ioctl(opened, FSSET, struct.pack("5I8x", 0xC0, 0, 0, 77, 0))
    got.append(extended(opened))
os.chmod("/mnt/file", 0o666)
if os.fork() == 0:
    os.setuid(1000)
    try:
        fcntl.ioctl(os.open("/mnt/file", os.O_RDWR), SETFLAGS, struct.pack("Q", 0))
        os._exit(0)
    except OSError as error:
        os._exit(error.errno)
print(json.dumps(got + [os.waitstatus_to_exitcode(os.wait()[1])]))
""") == [0, 0xC0, [0xC0, 0, 0, 77, 0], 0, 0xC0, [0xC0, 0, 0, 77, 0], 1]


@pytest.mark.beyond_c("it asks each time")
def test_daemon_without_ioctl(rig, share):
    """With a daemon that knows no IOCTL everything is ENOTTY, and it is asked once."""
    run = share(enosys="IOCTL")
    assert run("""
print(json.dumps([ioctl(fd, number(RW, "D", 1, 6), b"abcdef"), ioctl(directory, number(RW, "D", 1, 6), b"abcdef"),
                  ioctl(fd, number(R, "f", 1, 8), bytes(8)), os.isatty(fd)]))
""") == ["ENOTTY", "ENOTTY", "ENOTTY", False]
    assert rig.daxd.count("IOCTL") == 1


def test_errors_arrive(rig, share):
    """Errors of the daemon, and of its ioctl, reach the caller."""
    run = share()
    for error in ("EPERM", "ENOSPC", "EINVAL"):
        rig.daxd.set_fault("error", "IOCTL", errno=error)
        assert run("""print(json.dumps(ioctl(fd, number(RW, "D", 1, 6), b"abcdef")))""") == error
        rig.daxd.clear_faults()
    # A result of -EACCES, in the body.
    rig.daxd.set_fault("patch", "IOCTL", offset=16, hex="f3ffffff")
    assert run("""print(json.dumps(ioctl(fd, number(RW, "D", 1, 6), b"abcdef")))""") == "EACCES"
    rig.daxd.clear_faults()


BAD = [
    ("patch", {"offset": 16, "hex": "00feffff"}, "impossible error -512"),
    ("patch", {"offset": 20, "hex": "04000000"}, "impossible ioctl retry"),
    ("truncate", {"len": 16}, "reply with 0 bytes of data instead of 16"),
    ("pad", {"bytes": 64}, " fit"),
    ("unique", {"add": 2}, "reply for request "),
]


def test_bad_replies(rig, share):
    """A reply that cannot be is EIO, and one line in the log."""
    share()
    for do, members, text in BAD:
        PACE.wait("daxd")
        rig.daxd.set_fault(do, "IOCTL", **members)
        # Not open(), which asks whether it is a terminal.
        rig.hand.do("fd = os.open('/mnt/file', os.O_RDONLY)")
        done, logged = rig.hand.lines("fcntl.ioctl(fd, 3 << 30 | 6 << 16 | ord('D') << 8 | 1, b'abcdef')")
        rig.hand.do("os.close(fd)")
        assert done == "EIO" and len(logged) == 1 and '"daxd": IOCTL: ' in logged[0] and text in logged[0], (done, logged)
        rig.daxd.clear_faults()
