# SPDX-License-Identifier: GPL-2.0
"""Windows of all sizes, what the daemon aligns maps to, and the bound for the number of ranges."""

import hashlib
import struct
from pathlib import Path

import pytest
from test_dax import MIXTURE

MEG = 1 << 20
# A window for each device, by its tag. What is left of "odd" behind a multiple of 2 MiB cannot be used.
WINDOWS = {"none": "0", "page": "4K", "small": "64K", "mega": "1M", "two": "2M", "odd": "5132K", "plain": "16M"}
RIG = {
    "daxd": [{"tag": tag, "window": size, "queues": 2} for tag, size in WINDOWS.items()],
    "settings": {"attr_timeout": 60, "entry_timeout": 60},
}
SIZES = {"bytes": 100, "pages": 300_000, "two": 2 * MEG, "end": 5 * MEG + 1234, "beyond": 12 * MEG}
MANY = 560
# Of a file that is mostly a hole, what it has.
PIECES = [(number * 20 * MEG + number * 777, 100) for number in range(60)]


def files(tree):
    """What is shared."""
    for name, size in SIZES.items():
        tree.file(name, size)


@pytest.fixture
def daemon(rig):
    """The daemon of a tag: daemon("odd"). Afterwards nothing is mounted, and it aligns maps as usual."""
    yield lambda tag: next(daxd for daxd in rig.daxds if daxd.tag == tag)
    for daxd in rig.daxds:
        daxd.configure(map_alignment=12)
    rig.guest.run("umount -A /mnt", check=False)


def tell(rig, tag, options=""):
    """Mounts: "OK" or the error, and the lines of the log about it."""
    rig.hand.lines("None")
    call = f"libc.mount({tag.encode()}, b'/mnt', b'virtiofs', 0, {options.encode() or None})"
    return rig.hand.lines(f"{call} and exec('raise OSError(ctypes.get_errno(), str())')")


def digest(data):
    """As sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


def same(rig, name):
    """Whether the guest reads what the host has."""
    return rig.guest.out(f"sha256sum </mnt/{name}").split()[0] == digest((rig.tree / name).read_bytes())


def setups(daxd):
    """Ranges that were mapped so far."""
    return daxd.counters()["dax"]["setup"]


def asked(daxd):
    """What the guest has asked to map since `trace` was set: (node, place in the file, bytes, place in the window) each."""
    wanted = [entry for entry in daxd.trace() if entry["opcode"] == "SETUPMAPPING"]
    daxd.configure(trace=0)
    found = []
    for entry in wanted:
        _, foffset, length, _, moffset = struct.unpack_from("<QQQQQ", bytes.fromhex(entry["args"]))
        found.append((entry["nodeid"], foffset, length, moffset))
    return found


def unmounted(rig, daxd):
    """Unmounts: nothing is mapped any more, and everything was in order."""
    rig.guest.umount()
    counters = daxd.counters()
    assert counters["live"]["maps"] == 0
    dax = counters["dax"]
    assert (dax["map_refused"], dax["unmap_refused"], dax["remove_nothing"]) == (0, 0, 0), dax
    rig.unmounted(daxd)


def does_without(rig, daxd, why):
    """dax=always is refused, other mounts read and write by requests; a line of the log each says why."""
    done, logged = tell(rig, daxd.tag, "dax=always")
    assert done == "EINVAL"
    assert sum("dax=always, but" in line for line in logged) == 1, logged
    assert sum(why in line for line in logged) == 1, logged
    for options in ("", "dax=inode"):
        done, logged = tell(rig, daxd.tag, options)
        assert done == "OK"
        assert (options != "") <= sum("no DAX" in line for line in logged) <= 1, logged
        daxd.reset_counters()
        assert same(rig, "end")
        rig.guest.run("echo written >/mnt/bytes; grep -q written /mnt/bytes")
        assert (rig.tree / "bytes").read_text() == "written\n"
        assert daxd.count("READ") > 0 and daxd.count("WRITE") > 0
        assert daxd.count("SETUPMAPPING") == 0
        unmounted(rig, daxd)


@pytest.mark.parametrize("tag", ["none", "page", "small", "mega"])
def test_too_small(rig, daemon, tag):
    """What is less than the kernel can map, 2 MiB, is no window; a line says so when the device is bound."""
    rig.hand.lines("None")
    lines = rig.hand.lines("os.system('modprobe -r virtiofs && modprobe virtiofs')")[1]
    assert sum(f'"{tag}": no DAX: its window' in line for line in lines) == (tag != "none"), lines
    does_without(rig, daemon(tag), "the device has no window")


def test_odd_size(rig, daemon):
    """Of a window that is no multiple of 2 MiB, and no power of two, all whole 2 MiB are used, and nothing behind."""
    daxd = daemon("odd")
    daxd.configure(trace=1000)
    assert tell(rig, "odd", "dax=always")[0] == "OK"
    before = (rig.tree / "beyond").read_bytes()
    out = rig.guest.python(
        """
import hashlib, mmap, os
fd = os.open("/mnt/beyond", os.O_RDWR)
with mmap.mmap(fd, 0) as m:
    print(hashlib.sha256(m).hexdigest())
    m[3 << 20:(3 << 20) + 6] = b"stored"
    assert os.pread(fd, 6, 3 << 20) == b"stored"
    os.pwrite(fd, b"written", 9 << 20)
    assert m[9 << 20:(9 << 20) + 7] == b"written"
"""
    ).stdout
    assert out.strip() == digest(before)
    maps = asked(daxd)
    assert {moffset // (2 * MEG) for _, _, _, moffset in maps} == {0, 1}
    assert all(moffset + length <= 4 * MEG for _, _, length, moffset in maps)
    assert same(rig, "beyond") and same(rig, "end")
    after = (rig.tree / "beyond").read_bytes()
    assert after[3 * MEG :][:6] == b"stored" and after[9 * MEG :][:7] == b"written"
    assert setups(daxd) > 6 and daxd.counters()["dax"]["remove"] > 4
    unmounted(rig, daxd)


@pytest.mark.parametrize("alignment", [12, 16, 18, 21])
def test_alignment(rig, daemon, alignment):
    """Maps begin at multiples of what the daemon aligns them to, in the window and in files, and show no more than these have."""
    daxd = daemon("plain")
    daxd.configure(map_alignment=alignment, trace=1000)
    assert tell(rig, "plain", "dax=always") == ("OK", [])
    for name in SIZES:
        assert same(rig, name)
    rig.guest.python(
        """
import mmap, os
fd = os.open("/mnt/beyond", os.O_RDWR)
with mmap.mmap(fd, 0) as m:
    for at in range(5000, 12 << 20, 700_000):
        m[at:at + 5] = b"%05d" % (at >> 10)
        assert os.pread(fd, 5, at) == b"%05d" % (at >> 10)
        os.pwrite(fd, b"x", at + 5)
        assert m[at + 5] == ord("x")
os.pwrite(os.open("/mnt/pages", os.O_WRONLY), b"longer", 299_998)
"""
    )
    assert same(rig, "beyond") and same(rig, "pages")
    maps = asked(daxd)
    assert maps
    ends = {inode["nodeid"]: Path(inode["path"]).stat().st_size for inode in daxd.live()["inodes"]}
    for node, foffset, length, moffset in maps:
        assert foffset % (1 << alignment) == 0 and moffset % (1 << alignment) == 0, (foffset, moffset)
        assert 0 < length <= 2 * MEG and length % 4096 == 0 and foffset + length < ends[node] + 4096
    unmounted(rig, daxd)


@pytest.mark.parametrize(("tag", "alignment"), [("plain", 22), ("plain", 24), ("plain", 25), ("plain", 31), ("odd", 21)])
def test_alignment_beyond_ranges(rig, daemon, tag, alignment):
    """No range can be aligned to more than it has, and the window has to have room for four: else there is no DAX."""
    daxd = daemon(tag)
    daxd.configure(map_alignment=alignment)
    does_without(rig, daxd, f"maps aligned to {1 << alignment}")


@pytest.mark.parametrize("alignment", [32, 63, 64, 65535])
def test_impossible_alignment(rig, daemon, alignment):
    """What cannot be is not agreed on: the mount fails with a line, and the next one, with a sane daemon, has the window."""
    daxd = daemon("plain")
    daxd.configure(map_alignment=alignment)
    for options in ("", "dax=always"):
        done, logged = tell(rig, "plain", options)
        assert done == "EIO"
        assert len(logged) == 1 and "alignment" in logged[0], logged
    daxd.configure(map_alignment=12)
    assert tell(rig, "plain", "dax=always") == ("OK", [])
    assert same(rig, "two") and setups(daxd) > 0
    unmounted(rig, daxd)


TOUCH = """
import hashlib, json, mmap, os, sys
many, pieces = int(sys.argv[1]), json.loads(sys.argv[2])
digest = hashlib.sha256()
for turn in range(2):
    for number in range(many):
        with open(f"/mnt/many/{number}", "rb") as file:
            digest.update(file.read())
fd = os.open("/mnt/wide", os.O_RDONLY)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC) as m:
    for at, length in pieces:
        digest.update(m[at:at + length])
        digest.update(os.pread(fd, length, at))
print(digest.hexdigest())
"""


def many_files(tree):
    """More than there are ranges, and one with places far from each other."""
    for number in range(MANY):
        tree.file(f"many/{number}", 3000 + 97 * number, seed=number)
    tree.sparse("wide", 1200 * MEG, *PIECES)


def page_structures_mib(rig):
    """What the guest's page structures take, but for those that it has from its start on."""
    return int(rig.guest.out("awk '$1 == \"nr_memmap_pages\" { print $2 }' /proc/vmstat")) / 256


def test_many_ranges(boot_rig):
    """In a window that has room for more ranges than the emulator has slots there are never more than `dax_ranges`. It costs the
    guest a sixty-fourth of its size, as Documentation/dax.md says."""
    # Alone: whatever is mapped, the emulator tells the daemons of all devices all that is mapped.
    rig = boot_rig(files=many_files, daxd={"window": "2G", "queues": 2}, settings=RIG["settings"])
    daxd = rig.daxd
    assert tell(rig, "daxd", "dax=always") == ("OK", [])
    out = rig.guest.python(TOUCH, MANY, str([list(piece) for piece in PIECES]), timeout=300).stdout
    small = [(rig.tree / f"many/{number}").read_bytes() for number in range(MANY)]
    with open(rig.tree / "wide", "rb") as file:
        pieces = []
        for at, length in PIECES:
            file.seek(at)
            pieces.append(file.read(length))
    want = hashlib.sha256(b"".join(small * 2))
    want.update(b"".join(piece * 2 for piece in pieces))
    assert out.strip() == want.hexdigest()
    counters = daxd.counters()
    assert counters["dax"]["live_maps_max"] == 480
    assert counters["dax"]["setup"] > 530
    assert counters["errors"].get("SETUPMAPPING", {}) == {}
    unmounted(rig, daxd)
    with_window = page_structures_mib(rig)
    rig.guest.run("basename /sys/bus/virtio/drivers/virtiofs/virtio* >/sys/bus/virtio/drivers/virtiofs/unbind")
    assert with_window - page_structures_mib(rig) == 32


@pytest.mark.parametrize(("tag", "ranges"), [("plain", 1), ("plain", 5), ("plain", 8), ("two", 480)])
def test_few_ranges(rig, daemon, tag, ranges):
    """As few ranges as the operator says, but four, or as the window has room for; several processes with files that have far more,
    by all ways."""
    rig.guest.run(f"modprobe -r virtiofs; modprobe virtiofs dax_ranges={ranges}")
    daxd = daemon(tag)
    assert tell(rig, tag, "dax=always") == ("OK", [])
    names = [f"few-{tag}-{ranges}-{seed}" for seed in (1, 2)]
    tasks = [rig.guest.spawn_python(MIXTURE, f"/mnt/{name}", seed, 150) for seed, name in enumerate(names)]
    for name, task in zip(names, tasks):
        result = task.wait(200)
        assert result.rc == 0, result
        assert result.stdout.strip() == digest((rig.tree / name).read_bytes())
    dax = daxd.counters()["dax"]
    assert 0 < dax["live_maps_max"] <= max(ranges, 4)
    assert dax["setup"] > 10 and dax["remove"] > 0
    unmounted(rig, daxd)
    rig.guest.run("modprobe -r virtiofs; modprobe virtiofs")


@pytest.mark.parametrize(("tag", "ranges"), [("two", 480), ("plain", 1)])
def test_instruction_across_ranges(rig, daemon, tag, ranges):
    """One instruction may need two ranges at the same time: they are there, however small the window, and few the ranges."""
    rig.guest.run(f"modprobe -r virtiofs; modprobe virtiofs dax_ranges={ranges}")
    daxd = daemon(tag)
    assert tell(rig, tag, "dax=always") == ("OK", [])
    before = (rig.tree / "beyond").read_bytes()
    out = rig.guest.value(
        """
import ctypes, json, mmap, os
fd = os.open("/mnt/beyond", os.O_RDWR)
m = mmap.mmap(fd, 0)
places = range((2 << 20) - 3, 12 << 20, 2 << 20)
print(json.dumps([ctypes.c_uint64.from_buffer(m, at).value for at in places[:-1]]))
for at in places[:-1]:
    ctypes.c_uint64.from_buffer(m, at).value = at
"""
    )
    places = range(2 * MEG - 3, 10 * MEG, 2 * MEG)
    assert out == [int.from_bytes(before[at : at + 8], "little") for at in places]
    after = (rig.tree / "beyond").read_bytes()
    assert [int.from_bytes(after[at : at + 8], "little") for at in places] == list(places)
    assert setups(daxd) > 4
    unmounted(rig, daxd)
    rig.guest.run("modprobe -r virtiofs; modprobe virtiofs")
