# SPDX-License-Identifier: GPL-2.0
"""Random calls of several processes on files in the window, which has far too little room, by several queues: what they see is what
a model has, and so is the host's file."""

import hashlib
from pathlib import Path

import pytest
from test_dax_modes import CHURN

PROGRAM = (Path(__file__).resolve().parent / "exerciser.py").read_text(encoding="utf-8")
RIG = {
    "daxd": [{"tag": "narrow", "window": "2M", "queues": 2}, {"tag": "wide", "window": "64M", "queues": 2}],
    "settings": {"attr_timeout": 60, "entry_timeout": 60},
}
CALLS = 300


def files(tree):
    """What takes ranges from the others."""
    tree.file("huge", 40 << 20)


@pytest.mark.parametrize(("tag", "ranges"), [("narrow", 480), ("wide", 4)])
@pytest.mark.parametrize("how", ["alone", "turns", "stripes"])
def test_model(request, rig, tag, ranges, how):
    """Processes with a file each, with one that they take turns with, and with one of whose bytes each has some."""
    seed, calls = (request.config.getoption(name) for name in ("--seed", "--calls"))
    number = [daxd.tag for daxd in rig.daxds].index(tag)
    daxd, guest = rig.daxds[number], rig.guest
    directory = rig.tree / f"model-{how}-{tag}-{ranges}"
    directory.mkdir()
    print(f"seed {seed}")
    guest.run(f"modprobe -r virtiofs; modprobe virtiofs dax_ranges={ranges}")
    guest.mount(tag, options="dax=always")
    others = guest.spawn_python(CHURN, 1_000_000)
    # What is stored behind the end of a file is the host's to clear.
    sums = guest.value(PROGRAM, f"/mnt/{directory.name}", seed, calls or CALLS, how, "fill_tail", timeout=600)
    counters = daxd.counters()
    assert not others.poll()
    others.kill()
    others.wait()
    guest.umount()
    assert [hashlib.sha256((directory / f"{how}{number}").read_bytes()).hexdigest() for number in range(len(sums))] == sums
    dax, requests = counters["dax"], counters["requests"]
    assert dax["setup"] > 100 and dax["remove"] > 100, dax
    assert dax["live_maps_max"] <= ranges
    assert (dax["map_refused"], dax["unmap_refused"], dax["remove_nothing"]) == (0, 0, 0), dax
    assert requests["READ"] > 0 and requests["WRITE"] > 0
    assert all(queue["requests"] > 0 for queue in counters["queues"][1:])
    assert daxd.counters()["live"]["maps"] == 0
    rig.unmounted(daxd)
