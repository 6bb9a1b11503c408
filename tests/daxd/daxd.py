# SPDX-License-Identifier: GPL-2.0
"""Builds and starts the test daemon, and talks to it.

For a guest that the boot harness starts:

    with Daxd(directory, window="64M") as daxd, Guest([Share(**daxd.share())], driver="rust") as guest:
        guest.mount("daxd")
        daxd.hold("READ")
        ...
        daxd.release()
        assert daxd.counters()["live"]["handles"] == 0

README.md beside this file explains options, faults and counters.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
# Where everything slow to make is kept; scripts/common.sh says the same.
CACHE = Path(
    os.environ.get("VIRTIOFS_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "virtiofs-rust"
)


class DaxdError(Exception):
    """The daemon does not start, does not answer, or refuses a command."""


def build():
    """Builds the daemon, if it is not built yet, and returns its path."""
    # Checkouts whose daemons differ do not disturb each other.
    target = CACHE / f"target-daxd-{hashlib.sha256(str(HERE).encode()).hexdigest()[:16]}"
    target.mkdir(parents=True, exist_ok=True)
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", HERE / "Cargo.toml"]
    if shutil.which("bwrap"):
        # Outside the build root, whose compiler and libraries are the ones to use.
        command = [TOP / "scripts" / "enter", "env", f"CARGO_TARGET_DIR={target}", *command]
    with open(target / "build.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = subprocess.run(
            command,
            env={**os.environ, "CARGO_TARGET_DIR": str(target)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if result.returncode:
        raise DaxdError(f"the daemon does not build:\n{result.stdout}")
    return target / "release" / "daxd"


class Client:
    """A connection to a daemon's control socket; it is made when first needed."""

    def __init__(self, control, patience=10.0):
        self.control, self.patience = str(control), patience
        self._stream = None

    def _connect(self):
        deadline = time.monotonic() + self.patience
        while True:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                stream.connect(self.control)
                return stream.makefile("rwb", buffering=0)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DaxdError(f"the daemon does not listen on {self.control}: {error}") from error
                time.sleep(0.01)
            finally:
                # The file object keeps the connection open.
                stream.close()

    def call(self, cmd, **arguments):
        """Sends a command and returns its reply, a dictionary. After the daemon was gone, the next call finds a new one."""
        if self._stream is None:
            self._stream = self._connect()
        try:
            self._stream.write(json.dumps({"cmd": cmd, **arguments}).encode() + b"\n")
            line = self._stream.readline()
        except OSError as error:
            self.close()
            raise DaxdError(f"the daemon is gone: {error}") from error
        if not line:
            self.close()
            raise DaxdError("the daemon is gone")
        reply = json.loads(line)
        if not reply.pop("ok"):
            raise DaxdError(reply["error"])
        return reply

    def close(self):
        """Hangs up."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # Counters.

    def counters(self):
        """All counters, and under "live" what is live at this moment."""
        return self.call("counters")["counters"]

    def count(self, opcode):
        """How many requests with this opcode were received since the last reset."""
        return self.counters()["requests"].get(opcode, 0)

    def reset_counters(self):
        """Sets all counters to zero."""
        self.call("reset_counters")

    def wait_for_count(self, opcode, count, timeout=10.0):
        """Waits until so many requests with this opcode were received since the last reset."""
        if not self.call("wait", opcode=opcode, count=count, timeout_ms=round(timeout * 1000))["reached"]:
            raise DaxdError(f"{self.count(opcode)} of {count} {opcode} requests after {timeout} s")

    def wait_until(self, condition, what, timeout=10.0):
        """Polls until `condition(counters)` is true, and returns the counters."""
        deadline = time.monotonic() + timeout
        while True:
            counters = self.counters()
            if condition(counters):
                return counters
            if time.monotonic() > deadline:
                raise DaxdError(f"never happened: {what}")
            time.sleep(0.01)

    def complaints(self):
        """What the guest did against the protocol, in words."""
        return self.counters()["complaint_texts"]

    # Faults.

    def set_fault(self, do, opcodes=(), **members):
        """Adds a fault rule and returns its number.

        `do` is the action's name, `opcodes` a name or a list of names; other members are those of the rule (nodeid, queue, skip,
        count, probability, seed) and of the action.
        """
        opcodes = [opcodes] if isinstance(opcodes, str) else list(opcodes)
        filters = ("nodeid", "queue", "skip", "count", "probability", "seed")
        rule = {key: members.pop(key) for key in filters if key in members}
        return self.call("fault", rule={"opcodes": opcodes, **rule, "action": {"do": do, **members}})["id"]

    def clear_fault(self, number):
        """Removes a fault rule."""
        self.call("clear_faults", id=number)

    def clear_faults(self):
        """Removes all fault rules; replies that are held stay held."""
        self.call("clear_faults")

    def faults(self):
        """All fault rules, each with how many requests it has seen and hit."""
        return self.call("faults")["faults"]

    def hold(self, opcodes=(), **members):
        """Keeps replies back until `release`."""
        return self.set_fault("hold", opcodes, **members)

    def held(self):
        """The replies that are held: id, opcode, unique, nodeid, queue."""
        return self.call("held")["held"]

    def wait_for_held(self, count=1, timeout=10.0):
        """Waits until so many replies are held, and returns them."""
        self.wait_until(lambda counters: counters["live"]["held"] >= count, f"{count} replies held", timeout)
        return self.held()

    def release(self, **selection):
        """Lets held replies go (members: ids, opcode, reverse, count, discard); returns how many."""
        return self.call("release", **selection)["released"]

    # The rest.

    def configure(self, **settings):
        """Changes settings: those of the command line, with underscores."""
        return self.call("configure", settings=settings)["settings"]

    def mark_dax(self, path, dax=True):
        """Marks a file, named by its path below the shared directory, for DAX (needs inode_dax="listed")."""
        self.call("dax", path=str(path), dax=dax)

    def lock(self, path, kind, **members):
        """Takes a lock as if for another guest: whether it was free. `kind`: read, write, unlock; members: flock, start, end, pid.

        The file is named by its path below the share; the guest must know it already.
        """
        whole = os.path.realpath(os.path.join(self.directory, path))
        node = next(inode["nodeid"] for inode in self.live()["inodes"] if inode["path"] == whole)
        return self.call("lock", nodeid=node, kind=kind, **members)["taken"]

    def live(self):
        """Inodes and handles that the guest has."""
        return self.call("live")

    def maps(self):
        """What is mapped in the window."""
        return self.call("maps")["maps"]

    def trace(self):
        """The last requests (needs the setting `trace`), which are then forgotten."""
        return self.call("trace")["trace"]

    def forge_used(self, queue, number, length=0):
        """Puts an entry into a used ring that answers nothing."""
        self.call("used", queue=queue, id=number, len=length)

    def interrupt(self, queue):
        """Interrupts the guest for a queue, for nothing."""
        self.call("interrupt", queue=queue)


class Daxd(Client):
    """A daemon, used as a context manager.

    Either the boot harness starts it, from what `share` returns; or `start` does. Options are those of the command line, with
    underscores: True for those without a value, a list for those that may be repeated.
    """

    def __init__(self, directory, tag="daxd", queues=1, window=None, queue_size=128, test_device=None, **options):
        self.place = Path(tempfile.mkdtemp(prefix="daxd-"))
        super().__init__(self.place / "control")
        self.directory, self.tag, self.queues, self.queue_size = str(directory), tag, queues, queue_size
        # Only the test device has a window, and shows the daemon's own configuration space.
        needs = window is not None or "raw_tag" in options or "config_queues" in options
        self.test_device = needs if test_device is None else test_device
        self.options = dict(options, queues=queues, tag=tag, control=self.control)
        if window is not None:
            self.options["window"] = window
        self.process = None
        self.log = self.place / "log"

    def command(self, vmm_socket, directory=None):
        """The daemon's command line."""
        command = [str(build()), f"--socket={vmm_socket}", f"--shared-dir={directory or self.directory}"]
        for name, values in self.options.items():
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if value is not None and value is not False:
                    text = json.dumps(value) if isinstance(value, dict) else value
                    command.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={text}"))
        return command

    def device(self, chardev):
        """The emulator's device option."""
        if self.test_device:
            return (
                f"vhost-user-test-device-pci,chardev={chardev},virtio-id=26,num_vqs={self.queues + 1},"
                f"vq_size={self.queue_size},config_size=40"
            )
        return (
            f"vhost-user-fs-pci,chardev={chardev},tag={self.tag.replace(',', ',,')},"
            f"num-request-queues={self.queues},queue-size={self.queue_size}"
        )

    def share(self):
        """Arguments for the boot harness's Share."""
        # The harness fills in the names in braces.
        command = [word.replace("{", "{{").replace("}", "}}") for word in self.command("SOCKET", "DIRECTORY")]
        command = [word.replace("=SOCKET", "={socket}").replace("=DIRECTORY", "={directory}") for word in command]
        return {
            "directory": self.directory,
            "tag": self.tag,
            "queues": self.queues,
            "daemon": command,
            "device": self.device("{chardev}"),
        }

    def start(self, vmm_socket):
        """Starts the daemon and waits until it listens."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command(vmm_socket), stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + self.patience
        while not Path(vmm_socket).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DaxdError(f"the daemon does not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.01)
        return self

    def stop(self):
        """Stops the daemon that `start` started."""
        self.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.stop()
        shutil.rmtree(self.place, ignore_errors=True)
