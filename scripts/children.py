# SPDX-License-Identifier: GPL-2.0
"""Child processes that never outlive their parent."""

import os
import signal
import subprocess

# Every child that is running, so that an exit on any path can stop them all.
_running = []


def start(command, log, **options):
    """Starts a child in a process group of its own, with its output in a file; it is killed when this process dies."""
    with open(log, "ab") as out:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT, **options},
        )
    _running.append(child)
    return child


def signal_group(child, number):
    """Sends a signal to a child and what it started."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass


def stop(child, grace=2.0):
    """Ends a child: asks first, then kills. Works on a stopped one, too."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if child.poll() is None:
            signal_group(child, number)
            signal_group(child, signal.SIGCONT)
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                pass
    if child in _running:
        _running.remove(child)


def stop_all():
    """Ends every child that is left."""
    for child in list(_running):
        stop(child, grace=0.5)
