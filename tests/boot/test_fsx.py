# SPDX-License-Identifier: GPL-2.0
"""Random calls of several processes, in every cache mode: what they see is what a model has, and so is the host's file."""

import hashlib
from pathlib import Path

import pytest

PROGRAM = (Path(__file__).resolve().parent / "exerciser.py").read_text(encoding="utf-8")
DAEMONS = {
    "never": ["--cache=never"],
    "never-mmap": ["--cache=never", "--allow-mmap"],
    "auto": ["--cache=auto"],
    "metadata": ["--cache=metadata", "--allow-mmap"],
    "always": ["--cache=always", "--allow-direct-io"],
    "writeback": ["--cache=auto", "--writeback"],
    "writeback-always": ["--cache=always", "--writeback", "--allow-direct-io"],
}
CALLS = {"alone": 300, "turns": 300, "stripes": 300}


@pytest.fixture(params=DAEMONS)
def mode(request):
    """The name of a mode; the share is on /run/NAME."""
    return request.param


@pytest.mark.ours("its SEEK_DATA passes over what is not written back yet, which it may try with a handle of O_DIRECT")
@pytest.mark.parametrize("how", CALLS)
def test_model(request, guest, host, mode, how):
    """Processes with a file each, with one that they take turns with, and with one of whose bytes each has some."""
    seed, calls = (request.config.getoption(name) for name in ("--seed", "--calls"))
    if how == "stripes" and mode in ("never-mmap", "metadata"):
        # What goes past the cache and what mappings store can be told apart in pages alone.
        how = "pages"
    directory = host / f"model-{mode}-{how}"
    directory.mkdir()
    where = f"/run/{mode}"
    print(f"seed {seed}")
    sums = guest.value(PROGRAM, f"{where}/{directory.name}", seed, calls or CALLS.get(how, CALLS["stripes"]), how, timeout=600)
    guest.umount(where)
    assert [hashlib.sha256((directory / f"{how}{number}").read_bytes()).hexdigest() for number in range(len(sums))] == sums
    guest.mount(f"tag-{mode}", where)
