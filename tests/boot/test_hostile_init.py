# SPDX-License-Identifier: GPL-2.0
"""INIT that cannot be agreed on is a refused mount with a reason; one that can be is used with limits that hold."""

import hashlib

import pytest
from conftest import mount_errno, running
from rig import Pace

RIG = {}
PACE = Pace()
CONTENT = 3 << 20


def files(tree):
    """What is shared."""
    tree.file("file", CONTENT)
    tree.file("dir/one", "1")


def refused(rig, error, *texts):
    """Mounts, which fails with an error and one line that has these texts; then a mount works."""
    PACE.wait("daxd")
    rig.hand.lines("None")
    script = "libc.mount(b'daxd', b'/mnt', b'virtiofs', 0, None) and exec('raise OSError(ctypes.get_errno(), str())')"
    done, logged = rig.hand.lines(script)
    assert done == error
    assert len(logged) == 1 and '"daxd": INIT: ' in logged[0], logged
    assert all(text in logged[0] for text in texts), logged
    rig.again()
    works(rig)


def works(rig):
    """Mounts, reads, writes, unmounts; every reference is given back."""
    rig.guest.mount("daxd")
    right = hashlib.sha256((rig.tree / "file").read_bytes()).hexdigest()
    assert rig.guest.out("sha256sum </mnt/file").split()[0] == right
    assert rig.guest.out("ls /mnt/dir") == "one"
    rig.guest.run("head -c 100000 /mnt/file >/mnt/written", timeout=60)
    assert (rig.tree / "written").read_bytes() == (rig.tree / "file").read_bytes()[:100000]
    rig.guest.umount()
    rig.unmounted()


@pytest.mark.parametrize(("major", "minor"), [(6, 46), (8, 0), (0, 0), (7, 30), (7, 0)])
def test_version(rig, major, minor):
    """A daemon whose version this driver does not speak: EPROTO, and a line with the version."""
    rig.daxd.configure(major=major, minor=minor)
    refused(rig, "EPROTO", f"unsupported protocol version {major}.{minor}")


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (("truncate", {"len": 0}), "EIO", "reply too short (0 bytes)"),
        (("truncate", {"len": 12}), "EIO", "reply too short (12 bytes)"),
        (("truncate", {"len": 20}), "EIO", "reply with 4 bytes of data"),
        (("truncate", {"len": 40}), "EIO", "reply with 24 bytes of data"),
        (("pad", {"bytes": 64}), "EIO", " fit"),
        (("unique", {"add": 2}), "EIO", "reply for request"),
        (("raw_error", {"value": 1}), "EIO", "impossible error 1"),
        (("error", {"errno": "EACCES"}), "EACCES", "error -13"),
        (("error", {"errno": "ENOMEM"}), "ENOMEM", "error -12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, [value[0], *value[1].values()])),
)
def test_bad_reply(rig, fault, error, text):
    """A reply to INIT that is none, or an error: the mount fails with it, and a line says why."""
    rig.daxd.set_fault(fault[0], "INIT", **fault[1])
    refused(rig, error, text)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_write": 0},
        {"max_write": 0xFFFFFFFF},
        {"max_pages": 0},
        {"max_pages": 65535},
        {"max_background": 0, "congestion_threshold": 0},
        {"max_background": 1, "congestion_threshold": 65535},
        {"max_readahead": 0},
        {"time_gran": 0},
        {"time_gran": 3},
        {"time_gran": 0xFFFFFFFF},
        {"minor": 31},
    ],
    ids=lambda settings: "-".join(f"{key}-{value}" for key, value in settings.items()),
)
def test_odd_limits(rig, settings):
    """Limits at the edge are brought into what works: contents are right, and the daemon has nothing to complain of."""
    rig.daxd.configure(**settings)
    works(rig)
    rig.daxd.configure(max_readahead=0xFFFFFFFF, congestion_threshold=49151)


def test_limits_hold(rig):
    """max_pages holds for every request: with one page a READ asks for 4096 bytes, with 256 for many more."""
    counts = []
    for pages in (1, 256):
        rig.daxd.configure(max_pages=pages)
        rig.daxd.reset_counters()
        works(rig)
        counts.append(rig.daxd.count("READ"))
    assert counts[0] >= CONTENT // 4096 and counts[1] < CONTENT // 65536, counts


def test_flags_not_offered(rig):
    """Flags that the daemon was not offered are not used, and one line says which it claims."""
    rig.daxd.configure(init_flags="!PASSTHROUGH,!HAS_RESEND,!REQUEST_TIMEOUT")
    rig.hand.lines("None")
    rig.guest.mount("daxd")
    _, logged = rig.hand.lines("os.stat('/mnt/file')")
    assert len(logged) == 1 and '"daxd": the daemon claims what it was not offered' in logged[0], logged
    rig.guest.umount()
    works(rig)


def test_root_that_is_none(rig):
    """A root that is no directory, or has no attributes: EIO, one line, nothing mounted, nothing left."""
    rig.hand.lines("None")
    for fields, text in [({"attr.mode": 0o100644}, "the root is not a directory"), ({"attr.mode": 0}, "impossible file type")]:
        rig.daxd.set_fault("set", "GETATTR", fields=fields)
        assert mount_errno(rig.guest, "daxd") == "EIO"
        _, logged = rig.hand.lines("None")
        assert len(logged) == 1 and '"daxd"' in logged[0] and text in logged[0], logged
        rig.daxd.clear_faults()
    works(rig)


def test_no_answer(rig):
    """A mount whose INIT is never answered can be killed; then the device can be unbound and bound, and mounts work."""
    guest, daxd = rig.guest, rig.daxd
    daxd.hold("INIT")
    mount = guest.spawn("exec mount -t virtiofs daxd /mnt")
    daxd.wait_for_held()
    mount.kill()
    guest.wait_until(lambda: not running(guest, mount), "mount is gone")
    assert guest.run("mountpoint -q /mnt", check=False).rc == 32
    daxd.clear_faults()
    number = rig.device()
    guest.run(f"cd /sys/bus/virtio/drivers/virtiofs; echo virtio{number} >unbind; echo virtio{number} >bind", timeout=30)
    works(rig)


def test_answer_after_the_mount_was_killed(rig):
    """An INIT that is answered when nobody waits any more harms nothing: the next mount works."""
    guest, daxd = rig.guest, rig.daxd
    daxd.hold("INIT", count=1)
    mount = guest.spawn("exec mount -t virtiofs daxd /mnt")
    daxd.wait_for_held()
    mount.kill()
    guest.wait_until(lambda: not running(guest, mount), "mount is gone")
    daxd.release()
    works(rig)
