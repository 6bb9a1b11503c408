# SPDX-License-Identifier: GPL-2.0
"""Every wait ends: tasks in all system calls and page faults whose device is taken away, or whose daemon dies."""

import pytest
from waits import CALLS, MAY_PASS, MODES, Holding, do, teach, waiting
from waits import files as files_of

RIG = {"daxd": {"window": "16M", "queues": 2}}
DRIVER = "/sys/bus/virtio/drivers/virtiofs"
GONE = {"ENOTCONN", "ENODEV", "EIO"}


def files(tree):
    """The files of all callers."""
    files_of(tree)


def pci_function(rig, number=0):
    """The PCI function of a share, by its address."""
    return rig.guest.out(f"basename $(readlink -f /sys/bus/virtio/devices/virtio{rig.device(number)}/..)")


@pytest.fixture(params=MODES)
def holding(rig, request):
    """A share on /mnt in each mode, whose daemon can hold all replies."""
    mine = Holding(rig, request.param)
    try:
        yield mine
    finally:
        mine.go_on()
    mine.unmount()


@pytest.mark.beyond_c("unbind waits for the requests in flight")
def test_unbind(holding):
    """A device that is taken away ends all calls and faults at once; then the mount can go, the device can come back, and the module go."""
    rig = holding.rig
    waiting(holding)
    device = f"virtio{rig.device()}"
    rig.guest.run(f"echo {device} >{DRIVER}/unbind", timeout=60)
    assert holding.do("gone()") == {}
    ends = holding.do("ends")
    assert GONE & set(ends.values()), ends
    holding.unmount()
    assert holding.do("os.sync()") is None
    holding.go_on()
    if holding.mode == "dax":
        # The last one: the emulator does not survive that a device comes back whose maps were never answered for.
        return rig.guest.unload()
    rig.guest.run(f"echo {device} >{DRIVER}/bind")
    rig.guest.mount("daxd", "/mnt", options=MODES[holding.mode][0])
    assert rig.guest.out("stat -c %s /mnt/f-read") == str((rig.tree / "f-read").stat().st_size)
    rig.guest.umount("/mnt")


# How what waits for a daemon that has died is ended: in the guest, and with its device or without it.
ENDS = ("killed", "forced", "unbound")
DEAD = {"shares": 3, "daxd": {"window": "16M", "queues": 2}}


@pytest.mark.beyond_c("its tasks cannot be killed while they wait")
@pytest.mark.parametrize(("turn", "each"), [(0, 3), *[pytest.param(turn, 1, marks=pytest.mark.long) for turn in range(3)]])
def test_dead_daemon(boot_rig, turn, each):
    """SIGKILL, umount -f, and the removal of the device end what waits for a daemon that has died; then all mounts can go, and the module.

    Each mode has a daemon of its own, and an end, which are others with each turn. The short form makes one call in three.
    """
    names = [f"{mode}.{name}" for mode in MODES for name in CALLS]
    rig = boot_rig(files=lambda tree: files_of(tree, names), **DEAD)
    teach(rig)
    ends = {}
    for number, (mode, (options, flags)) in enumerate(MODES.items()):
        where = f"/run/{mode}"
        rig.daxds[number].configure(init_flags=flags)
        rig.guest.mount(rig.daxds[number].tag, where, options=options)
        ends[mode] = ENDS[(number + turn) % len(ENDS)]
    cases = []
    for number, (mode, end) in enumerate(ends.items()):
        for name, case in list(CALLS.items())[number % each :: each]:
            # sync(2) waits for others than its own, and some waits are the kernel's own, which no signal ends.
            if name == "sync" or (end, name) == ("killed", "sync_file_range"):
                continue
            cases.append([f"{mode}.{name}", *case, f"/run/{mode}/f-{mode}.{name}", f"/run/{mode}/d-{mode}.{name}"])
    assert do(rig, f"start_all({cases!r})") == {}
    functions = {mode: pci_function(rig, number) for number, mode in enumerate(MODES)}
    for share in rig.guest.shares:
        share.process.kill()
        share.process.wait(10)
    waits = set(do(rig, "go()"))
    passed = {name for name, *_ in cases} - waits
    assert {name.partition(".")[2] for name in passed} <= MAY_PASS, do(rig, "ends")
    for mode, end in ends.items():
        mine = [name for name in waits if name.startswith(f"{mode}.")]
        where = f"/run/{mode}"
        if end == "killed":
            do(rig, f"kill({mine!r})")
        elif end == "forced":
            rig.guest.run(f"umount -f {where}", check=False, timeout=60)
        else:
            rig.guest.run(f"echo {functions[mode]} >/sys/bus/pci/drivers/virtio-pci/unbind", timeout=60)
        assert do(rig, f"gone({mine!r})") == {}
        if end != "killed":
            assert GONE & set(do(rig, f"[ends[name] for name in {mine!r}]")), end
        # A plain umount(2) would wait for what is dirty, and for the answer to DESTROY. Files whose last use was asynchronous are closed
        # when that has ended.
        is_gone = f"umount {'-f' if end == 'killed' else ''} {where}; ! grep -q ' {where} ' /proc/mounts"
        rig.guest.wait_until(lambda command=is_gone: rig.guest.run(command, check=False).rc == 0, f"{where} is gone")
    assert do(rig, "os.sync()") is None
    rig.guest.unload()
