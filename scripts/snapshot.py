# SPDX-License-Identifier: GPL-2.0
"""States of guests just after their boot, from which others go on.

Under an emulator a boot takes long, above all that of the debug kernel; to load a saved state takes a fraction of that, as
scripts/guest.py with and without --cold shows. A state holds what all guests have: processors, memory, the root disk, the agent.
The devices of a test come on top: the guest finds them when it scans its bus again. States are kept in the cache under the digest of the emulator's version and command line.
"""

import functools
import subprocess
import time

import images
import kernel as kernels

# Seconds that the emulator may take to write or read a state.
TIMEOUT = 120



@functools.cache
def emulator_version():
    """What the emulator says of itself: states of one are not for another."""
    return subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout


def snapshot_of(command, make, logs):
    """The state of guests that `command` boots; `make(path)` makes it when there is none. `logs` is the place of the guest's own logs."""
    # All but what is one guest's own: its name and its logs.
    words = [word for word in command if logs not in word and not logs.endswith(f"/{word}")]
    path = images.CACHE / f"guest-state-{images.digest_of([], emulator_version(), *words)}"
    with images.locked("guest-state"):
        if not path.exists():
            kernels.say("booting a guest whose state others start from (once)")
            kernels.prune(images.CACHE.glob("guest-state-*[0-9a-f]"), keep=11)
            new = path.with_suffix(".new")
            make(new)
            new.rename(path)
    return path


def save(monitor, path):
    """Stops a guest and writes its state into a file."""
    monitor.call("stop")
    monitor.call("migrate", uri=f"file:{path}")
    wait(monitor, "write", path)


def restore(monitor, path):
    """Reads a state into an emulator that waits for it, and lets the guest run."""
    monitor.call("migrate-incoming", uri=f"file:{path}")
    wait(monitor, "read", path)
    monitor.call("cont")


def wait(monitor, what, path):
    """Waits until the state is written or read."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        answer = monitor.call("query-migrate")
        status = answer.get("status")
        if status == "completed":
            return
        if status == "failed" or time.monotonic() > deadline:
            raise TimeoutError(f"the emulator could not {what} {path}: {answer}")
        time.sleep(0.01)
