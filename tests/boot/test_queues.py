# SPDX-License-Identifier: GPL-2.0
"""Devices with several request queues: which CPU uses which, that all are used, and that one does not wait for another."""

import pytest

SETTINGS = {"entry_timeout": 3600, "attr_timeout": 0, "trace": 0}
FILES = 40

# Asks for attributes, which are never cached here, from one CPU.
STATS = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
for _ in range(int(sys.argv[2])):
    os.stat("/mnt/file0")
"""

# A process on each CPU, each reading and making files.
SPREAD = """
import hashlib, json, os, sys
cpus, files = int(sys.argv[1]), int(sys.argv[2])
for cpu in range(cpus):
    if os.fork() == 0:
        os.sched_setaffinity(0, {cpu})
        for number in range(files):
            data = open(f"/mnt/file{number}", "rb").read()
            with open(f"/mnt/copy{cpu}-{number}", "wb") as file:
                file.write(data)
        os._exit(0)
print(json.dumps([os.wait()[1] for _ in range(cpus)]))
"""


def files(tree):
    """Some files."""
    for number in range(FILES):
        tree.file(f"file{number}", 20000, seed=number)


def cpus_of_queues(rig):
    """The CPUs of each request queue, as sysfs shows them."""
    mqs = f"/sys/fs/virtiofs/{rig.device()}/mqs"
    assert rig.guest.out(f"cat {mqs}/0/name") == "hiprio"
    numbers = sorted(map(int, rig.guest.out(f"ls {mqs}").split()))
    assert numbers == list(range(len(numbers)))
    names = rig.guest.out(f"cd {mqs} && cat {' '.join(f'{number}/name' for number in numbers)}").split()
    assert names[1:] == [f"requests.{number}" for number in range(len(numbers) - 1)]
    lists = rig.guest.out(f"cd {mqs} && for n in {' '.join(map(str, numbers[1:]))}; do cat $n/cpu_list; echo; done")
    return [[int(cpu) for cpu in line.replace(",", " ").split()] for line in lists.split("\n") if line.strip()]


def requests(rig):
    """How many requests each request queue has had."""
    return [queue["requests"] for queue in rig.daxd.counters()["queues"]][1:]


@pytest.mark.parametrize(("queues", "cpus"), [(2, 4), (4, 4), (3, 4), (4, 2)])
def test_cpus_and_queues(boot_rig, queues, cpus):
    """Every CPU has one queue, no queue is idle, and requests go where sysfs says."""
    rig = boot_rig(files=files, daxd={"queues": queues}, settings=SETTINGS, cpus=cpus)
    lists = cpus_of_queues(rig)
    # More queues than CPUs are not set up.
    assert len(lists) == min(queues, cpus)
    assert sorted(cpu for cpus_of_queue in lists for cpu in cpus_of_queue) == list(range(cpus))
    rig.guest.mount("daxd")
    rig.guest.run("stat /mnt/file0")
    for queue, cpus_of_queue in enumerate(lists):
        for cpu in cpus_of_queue:
            before = requests(rig)
            rig.guest.python(STATS, cpu, 100)
            more = [after - first for after, first in zip(requests(rig), before)]
            assert more[queue] >= 100, (queue, cpu, more)
    rig.guest.umount()
    rig.unmounted()


def test_requests_spread(boot_rig):
    """A load on every CPU uses every queue, small ones as these are, also when a CPU goes away and comes back meanwhile."""
    rig = boot_rig(files=files, daxd={"queues": 3, "queue_size": 16}, settings=SETTINGS, cpus=3)
    rig.guest.mount("daxd")
    before = requests(rig)
    assert rig.guest.value(SPREAD, 3, FILES, timeout=120) == [0] * 3
    assert all(after - first >= FILES for after, first in zip(requests(rig), before)), (before, requests(rig))
    for number in range(FILES):
        data = (rig.tree / f"file{number}").read_bytes()
        assert all((rig.tree / f"copy{cpu}-{number}").read_bytes() == data for cpu in range(3))
    online = "/sys/devices/system/cpu/cpu2/online"
    load = rig.guest.spawn("while ! test -e /run/enough; do cat /mnt/copy* | sha256sum; done | uniq")
    rig.daxd.wait_for_count("OPEN", rig.daxd.count("OPEN") + 10, timeout=60)
    for _ in range(3):
        rig.guest.run(f"echo 0 >{online}; stat /mnt/file1; echo 1 >{online}; taskset -c 2 stat /mnt/file2")
    rig.guest.run("touch /run/enough")
    assert len(load.wait(120).stdout.splitlines()) == 1
    rig.guest.umount()
    rig.unmounted()


def test_queues_do_not_wait_for_each_other(boot_rig):
    """While a daemon does not answer on one queue, the tasks of the other CPUs go on."""
    rig = boot_rig(files=files, daxd={"queues": 2}, settings=SETTINGS, cpus=2)
    lists = cpus_of_queues(rig)
    assert [len(cpus) for cpus in lists] == [1, 1]
    rig.guest.mount("daxd")
    rig.guest.run("stat /mnt/file0")
    rig.daxd.set_fault("hold", "GETATTR", queue=1)
    stuck = rig.guest.spawn_python(STATS, lists[0][0], 1)
    rig.daxd.wait_for_held()
    rig.guest.python(STATS, lists[1][0], 50)
    assert not stuck.poll()
    rig.daxd.clear_faults()
    rig.daxd.release()
    assert stuck.wait().rc == 0
    rig.guest.umount()
    rig.unmounted()
