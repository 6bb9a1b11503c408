#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Boots a guest with shared directories, runs commands in it, and judges what its kernel printed.

As a program: boots a guest, loads the driver, mounts a directory, runs one shell command and says how it ended. Runs inside the
build root: scripts/enter scripts/guest.py --share /usr/share 'ls /mnt'
"""

import argparse
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import children
import console
import images
import interpreter
import kernel as kernels
import snapshot
from jsonsocket import JsonSocket, RemoteError

VIRTIOFSD = "/usr/libexec/virtiofsd"
LOGS = kernels.CACHE / "logs"
# How much slower than the plain kernel under the emulator everything may be, before a wait counts as a hang.
PATIENCE = {"kata": 1.0, "debug": 4.0}
AGENT_PORT = "org.qemu.guest_agent.0"


class GuestError(Exception):
    """Something went wrong in or with a guest; the text names the logs."""


class CommandError(GuestError):
    """A command in the guest failed."""


class CommandTimeout(GuestError):
    """A command in the guest did not end in time."""


class Result:
    """What a command in the guest left."""

    def __init__(self, command, rc, stdout, stderr):
        self.command, self.rc, self.stdout, self.stderr = command, rc, stdout, stderr

    def __repr__(self):
        return f"rc {self.rc}: {self.command}\n{self.stdout}{self.stderr}"


class Share:
    """A directory that the guest can mount, and the daemon that serves it.

    `daemon` is a command for another daemon than virtiofsd: a list in which {socket} and {directory} are filled in.
    `device` is the emulator's device with its properties, {chardev} and {tag} filled in, for daemons that need another one.
    """

    def __init__(
        self,
        directory,
        tag="kataShared",
        queues=1,
        queue_size=1024,
        daemon_args=("--cache=auto",),
        daemon=None,
        device=None,
        hotplug=False,
        props="",
    ):
        self.directory, self.tag, self.queues, self.queue_size = directory, tag, queues, queue_size
        self.daemon_args, self.daemon, self.device = list(daemon_args), daemon, device
        self.hotplug, self.props = hotplug, props
        self.process = None
        self.log = None

    def command(self, socket):
        """The daemon's command line."""
        if self.daemon:
            return [str(word).format(socket=socket, directory=self.directory) for word in self.daemon]
        command = [VIRTIOFSD, f"--socket-path={socket}", f"--shared-dir={self.directory}", "--sandbox=none"]
        return [*command, *self.daemon_args]

    def device_option(self, number):
        """The emulator's device option."""
        if self.device:
            return self.device.format(chardev=f"share{number}", tag=self.tag)
        option = f"vhost-user-fs-pci,id=fs{number},chardev=share{number},tag={self.tag.replace(',', ',,')}"
        option += f",num-request-queues={self.queues},queue-size={self.queue_size}"
        option += f",bus=port{number}" if self.hotplug else ""
        return option + (f",{self.props}" if self.props else "")


class Process:
    """A command that runs in the guest."""

    def __init__(self, guest, command, pid):
        self.guest, self.command, self.pid = guest, command, pid
        self.result = None

    def poll(self):
        """The result when the command has ended, else None."""
        if self.result is None:
            self.result = self._poll()
        return self.result

    def _poll(self):
        """The result when the command has ended."""
        status = self.guest.ask(self.guest.agent.call, "guest-exec-status", pid=self.pid, timeout=30 * self.guest.patience)
        if not status["exited"]:
            return None
        text = [base64.b64decode(status.get(key, "")).decode(errors="surrogateescape") for key in ("out-data", "err-data")]
        return Result(self.command, status.get("exitcode", 128 + status.get("signal", 127)), *text)

    def wait(self, timeout=60.0):
        """Waits for the command's end."""
        deadline = time.monotonic() + timeout * self.guest.patience
        pause = 0.005
        while not self.poll():
            if time.monotonic() > deadline:
                raise CommandTimeout(self.guest.tell(f"not ended after {timeout * self.guest.patience:.0f} s: {self.command}"))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        return self.result

    def kill(self, number=9):
        """Sends a signal to the command's process in the guest."""
        self.guest.run(f"kill -{number} {self.pid}", check=False)


class Script(Process):
    """A Python script that runs in the guest."""

    def __init__(self, guest, command, number, pid):
        super().__init__(guest, command, pid)
        self.number = number

    def _poll(self):
        ended = self.guest.ask(self.guest.interpreter.poll, self.number)
        return ended and Result(self.command, *ended)


class Guest:
    """A virtual machine with this driver (driver="rust") or the kernel's own (driver="c"), used as a context manager.

    `programs` tells whether programs are to run from a share: the emulator keeps code that it translated until the guest writes
    to the page, and does not see that a daemon wrote to it; so the guest's kernel clears every page before it is used. Without
    it, what a driver forgets to clear is seen.

    `warm` lets it go on from the state of such a guest just after its boot (see snapshot.py), which takes a fraction of a boot.
    Guests with ports for hotplug, and those on real hardware, boot all the same.

    With `counting` its clocks count the instructions that it executes, a nanosecond for each, and what else it waits for.

    Leaving the context powers it off, stops all it started, and raises GuestError when the kernel reported a fault that
    `expected` (regular expressions on log lines) does not name.
    """

    def __init__(
        self,
        shares=(),
        kernel="kata",
        driver="rust",
        cpus=2,
        memory="1G",
        append="",
        qemu_args=(),
        name="guest",
        expected=(),
        kmemleak=False,
        programs=True,
        shell=False,
        source=None,
        warm=False,
        counting=False,
    ):
        self.shares, self.kernel, self.driver, self.cpus, self.memory = list(shares), kernel, driver, cpus, memory
        self.append, self.qemu_args, self.expected, self.shell = append, list(qemu_args), list(expected), shell
        self.kmemleak, self.programs, self.warm = kmemleak, programs, warm
        self.counting, self.accelerator = counting, accelerator(counting)
        self.judged = 0
        self.source = source or Path(os.environ.get("VIRTIOFS_SOURCE", kernels.TOP))
        self.patience = PATIENCE[kernel]
        self.qemu = self.agent = self.monitor = self.interpreter = None
        self.sockets = None
        self.logs = new_log_directory(name)
        self.console_log = self.logs / "console.log"
        self.seconds = {}

    # Life.

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.poweroff()
        else:
            self.kill()
            if issubclass(kind, Exception):
                # Whatever went wrong, the kernel's own words about it come first.
                self.check_console(value)

    def start(self):
        """Starts the daemons and the emulator, and waits for the guest's agent."""
        build = kernels.build_kernel(self.kernel)
        root = images.root_image()
        modules = images.modules_image(self.kernel, self.driver, self.source)
        state = None
        if self.goes_on():
            state = snapshot.snapshot_of(self.base_command(build, root), self.save_state, str(self.logs))
        self.sockets = Path(tempfile.mkdtemp(prefix="guest-", dir="/run"))
        begin = time.monotonic()
        for number in range(len(self.shares)):
            self.start_daemon(number)
        command = self.base_command(build, root) + self.more_arguments(modules)
        self.start_emulator([*command, "-incoming", "defer"] if state else command)
        self.meet_agent(state)
        if state:
            # Its clock stands at the time of the snapshot, and what is new on its bus has to be found.
            self.run(f"attach {time.time():.3f}")
        self.seconds["boot"] = time.monotonic() - begin
        return self

    def goes_on(self):
        """Whether it goes on from a saved state. The emulator takes none when a device on its command line cannot be saved."""
        cold = any(share.hotplug or "vhost-user-test-device" in (share.device or "") for share in self.shares)
        return self.warm and not self.shell and not cold and "tcg" in self.accelerator[1]

    def start_emulator(self, command):
        """Starts the emulator and meets its monitor."""
        (self.logs / "qemu.command").write_text(shlex.join(command) + "\n", encoding="utf-8")
        if self.shell:
            # The emulator talks to the terminal itself, so it stays in the terminal's process group.
            self.qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command])
        else:
            self.qemu = children.start(command, self.logs / "qemu.log")
        self.monitor = JsonSocket(self.sockets / "qmp", time.monotonic() + 90, self.must_run)
        self.monitor.greet_monitor(timeout=30)

    def meet_agent(self, state=None):
        """Waits until the guest's agent answers; it goes on from `state`, or boots."""
        deadline = time.monotonic() + 90 * self.patience
        try:
            if state:
                snapshot.restore(self.monitor, state)
            self.agent = JsonSocket(self.sockets / "agent", deadline, self.must_run)
            self.agent.greet_agent(deadline)
            self.interpreter = interpreter.Interpreter(self.sockets / "interpreter", deadline, self.must_run)
        except (TimeoutError, ConnectionError) as error:
            raise GuestError(self.tell(f"the guest did not come up: {error}")) from error

    def save_state(self, path):
        """Boots a guest like this one, with nothing of its own, and saves its state in a file."""
        like = ("kernel", "driver", "cpus", "memory", "append", "kmemleak", "programs", "counting")
        bare = Guest((), name="snapshot", **{key: getattr(self, key) for key in like})
        bare.sockets = Path(tempfile.mkdtemp(prefix="guest-", dir="/run"))
        try:
            bare.start_emulator(bare.base_command(kernels.build_kernel(self.kernel), images.root_image()))
            bare.meet_agent()
            bare.check_console()
            snapshot.save(bare.monitor, path)
        finally:
            bare.kill()

    def start_daemon(self, number):
        """Starts the daemon of a share and waits until it listens."""
        share = self.shares[number]
        socket = self.sockets / f"share{number}"
        socket.unlink(missing_ok=True)
        share.log = self.logs / f"daemon{number}.log"
        share.process = children.start(share.command(socket), share.log)
        deadline = time.monotonic() + 20
        while not socket.exists():
            if share.process.poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"the daemon did not start: {share.log.read_text(errors='replace')}")
            time.sleep(0.005)

    def base_command(self, build, root):
        """The emulator's command line, as far as guests without shares have it, too."""
        cmdline = "console=ttyS0 root=/dev/vda ro rootfstype=ext4 oops=panic panic=-1 printk.time=1 random.trust_cpu=on"
        cmdline += " guest.shell" if self.shell else ""
        if self.kernel == "debug":
            # The sanitizer reports every fault, not only the first. The leak detector doubles the time of a boot.
            cmdline += " kasan_multi_shot" + ("" if self.kmemleak else " kmemleak=off")
        if self.programs and "tcg" in self.accelerator[1]:
            cmdline += " init_on_alloc=1"
        machine = "q35,smm=off,vmport=off,usb=off,i8042=off"
        command = ["qemu-system-x86_64", "-machine", machine, *self.accelerator, "-smp", self.cpus, "-m", self.memory]
        if not any(share.hotplug for share in self.shares):
            # Less for the guest's ACPI interpreter to do, which is slow on the debug kernel.
            command += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", self.logs.name]
        # The daemons reach the guest's memory through this file.
        command += ["-object", f"memory-backend-memfd,id=mem,size={self.memory},share=on", "-numa", "node,memdev=mem"]
        command += ["-kernel", build / "arch/x86/boot/bzImage", "-append", f"{cmdline} {self.append}".strip()]
        command += self.disk(0, root)
        command += ["-chardev", f"file,id=console,path={self.console_log}", "-serial", "chardev:console"]
        command += ["-device", "virtio-serial-pci"]
        for port, name in (("agent", AGENT_PORT), ("interpreter", interpreter.PORT)):
            command += ["-chardev", f"socket,id={port},path={self.sockets}/{port},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev={port},name={name}"]
        command += ["-qmp", f"unix:{self.sockets}/qmp,server=on,wait=off"]
        return list(map(str, command))

    def more_arguments(self, modules):
        """The rest of the command line: what a guest can find on its bus later, too."""
        arguments = self.disk(1, modules)
        if self.shell:
            arguments += ["-chardev", "stdio,id=shell,signal=off", "-device", "virtconsole,chardev=shell"]
        for number, share in enumerate(self.shares):
            if share.hotplug:
                arguments += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1}"]
            arguments += ["-chardev", f"socket,id=share{number},path={self.sockets}/share{number}"]
            arguments += ["-device", share.device_option(number)]
        return list(map(str, [*arguments, *self.qemu_args]))

    @staticmethod
    def disk(number, image):
        """The arguments for a disk that cannot be written."""
        drive = f"file={image},format=raw,if=none,readonly=on,id=disk{number},file.locking=off"
        return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]

    def must_run(self):
        """Raises when the emulator has ended."""
        if self.qemu.poll() is not None:
            log = self.logs / "qemu.log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise GuestError(self.tell(f"the emulator ended with status {self.qemu.returncode}\n{said}"))

    def poweroff(self, check=True):
        """Powers the guest off, stops everything, and judges the console log."""
        try:
            if self.agent and self.qemu.poll() is None:
                try:
                    self.agent.call("guest-exec", path="/bin/busybox", arg=["poweroff", "-f"], timeout=30 * self.patience)
                except (ConnectionError, GuestError):
                    # The guest may be off before its agent has answered.
                    pass
                try:
                    self.qemu.wait(30 * self.patience)
                except subprocess.TimeoutExpired:
                    raise GuestError(self.tell("the guest did not power off")) from None
        except (RemoteError, TimeoutError) as error:
            raise GuestError(self.tell(f"the guest did not power off: {error}")) from error
        finally:
            self.kill()
        if check:
            self.check_console()

    def kill(self):
        """Stops the emulator and the daemons, however they are."""
        for connection in (self.agent, self.interpreter, self.monitor):
            if connection:
                connection.close()
        for child in [self.qemu, *(share.process for share in self.shares)]:
            if child:
                children.stop(child)
        if self.sockets:
            shutil.rmtree(self.sockets, ignore_errors=True)

    def check_console(self, cause=None):
        """Raises GuestError when the kernel reported a fault that no earlier check raised."""
        found = console.faults(self.console_log, self.expected)
        new, self.judged = found[self.judged :], len(found)
        if new:
            shown = "\n  ".join(new[:20])
            raise GuestError(f"the guest's kernel reported:\n  {shown}\nguest log: {self.console_log}") from cause

    def tell(self, text):
        """Adds the logs' place, and what the kernel reported, to a message."""
        found = console.faults(self.console_log, self.expected)
        shown = "".join(f"\n  {line}" for line in found[:20])
        return f"{text}{shown}\nguest log: {self.console_log}"

    # Commands.

    def spawn(self, command, stdin=None):
        """Starts a shell command in the guest."""
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        if stdin is not None:
            data = stdin if isinstance(stdin, bytes) else stdin.encode()
            arguments["input-data"] = base64.b64encode(data).decode()
        answer = self.ask(self.agent.call, "guest-exec", timeout=30 * self.patience, **arguments)
        return Process(self, command, answer["pid"])

    def ask(self, call, *arguments, **options):
        """Makes a call to the guest, which must answer."""
        self.must_run()
        try:
            return call(*arguments, **options)
        except (TimeoutError, ConnectionError) as error:
            raise GuestError(self.tell(f"the guest does not answer: {error}")) from error

    def run(self, command, check=True, timeout=60.0, stdin=None):
        """Runs a shell command in the guest to its end."""
        return self.ended(self.spawn(command, stdin), check, timeout)

    def ended(self, process, check, timeout):
        """The result of a process at its end, which must be a good one for a `check`."""
        result = process.wait(timeout)
        if check and result.rc:
            raise CommandError(self.tell(f"{result}"))
        return result

    def out(self, command, timeout=60.0):
        """What a shell command prints, without the newline at its end."""
        return self.run(command, timeout=timeout).stdout.rstrip("\n")

    def python(self, script, *arguments, check=True, timeout=60.0):
        """Runs a Python script in the guest."""
        return self.ended(self.spawn_python(script, *arguments), check, timeout)

    def spawn_python(self, script, *arguments):
        """Starts a Python script in the guest."""
        number, pid = self.ask(self.interpreter.start, script, arguments, self.patience)
        command = " ".join(["python3", *(shlex.quote(str(argument)) for argument in arguments), "\n" + script])
        return Script(self, command, number, pid)

    def value(self, script, *arguments, timeout=60.0):
        """What a Python script in the guest prints as JSON."""
        return json.loads(self.python(script, *arguments, timeout=timeout).stdout)

    def put(self, data, path):
        """Writes a file in the guest."""
        self.run(f"cat >{shlex.quote(path)}", stdin=data)

    def get(self, path, timeout=60.0):
        """Reads a file in the guest, as bytes."""
        return base64.b64decode(self.out(f"base64 {shlex.quote(path)}", timeout=timeout))

    def wait_until(self, condition, what, timeout=30.0):
        """Polls until `condition()` is true; returns what it returned."""
        deadline = time.monotonic() + timeout * self.patience
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise CommandTimeout(self.tell(f"never happened: {what}"))
            time.sleep(0.05)

    def dmesg(self):
        """The kernel's log since boot, as the guest shows it."""
        return self.run("dmesg").stdout

    def console(self):
        """The console log so far."""
        return "\n".join(console.lines_of(self.console_log))

    # The driver.

    def load(self):
        """Loads the driver."""
        self.run("modprobe virtiofs")

    def unload(self):
        """Unloads the driver; nothing may be mounted."""
        self.run("modprobe -r virtiofs")

    def mount(self, tag="kataShared", where="/mnt", options="", check=True):
        """Mounts a share."""
        with_options = f"-o {shlex.quote(options)} " if options else ""
        quoted = shlex.quote(where)
        return self.run(f"mkdir -p {quoted} && mount -t virtiofs {with_options}{shlex.quote(tag)} {quoted}", check=check)

    def umount(self, where="/mnt", flags="", check=True):
        """Unmounts a share."""
        return self.run(f"umount {flags} {shlex.quote(where)}", check=check)


def accelerator(counting=False):
    """KVM where the processor really offers it; elsewhere its device node may exist, and guests hang. Only an emulator is `counting`."""
    # Without five-level page tables: they are slow to emulate, and KASAN reports a false access in early boot with them, after
    # which the lock checker is off.
    emulated = ["-cpu", "max,la57=off"]
    if counting:
        return ["-accel", "tcg,thread=single", *emulated, "-icount", "shift=0,sleep=on"]
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if (" vmx" in flags or " svm" in flags) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", *emulated]


def new_log_directory(name):
    """A fresh directory for one guest's logs; of those of earlier guests, the newest are kept."""
    LOGS.mkdir(parents=True, exist_ok=True)
    kernels.prune(LOGS.iterdir(), keep=500)
    # The emulator takes the directory's name, which may not hold all that a test's name may.
    name = re.sub(r"[^\w.-]+", "-", name).strip("-")
    return Path(tempfile.mkdtemp(prefix=f"{name}-{time.strftime('%m%d-%H%M%S')}-", dir=LOGS))


def add_guest_arguments(parser):
    """The arguments that describe a guest."""
    parser.add_argument("--kernel", choices=kernels.FRAGMENTS, default="kata", help="which guest kernel")
    parser.add_argument("--driver", choices=["rust", "c"], default="rust", help="this driver or the kernel's own")
    parser.add_argument("--cpus", type=int, default=2, help="virtual processors")
    parser.add_argument("--memory", default="1G", help="the guest's memory")
    parser.add_argument("--append", default="", help="more kernel arguments")


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_guest_arguments(parser)
    parser.add_argument("--share", default="/usr/share", help="the directory to mount on the guest's /mnt")
    parser.add_argument("--tag", default="kataShared", help="its tag")
    parser.add_argument("--queues", type=int, default=1, help="request queues")
    parser.add_argument("--daemon-arg", action="append", default=[], help="an argument for virtiofsd; may be repeated")
    parser.add_argument("--cold", action="store_true", help="boot, instead of going on from the saved state of a guest that booted")
    parser.add_argument("--no-mount", action="store_true", help="load and mount nothing")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that the command may take")
    parser.add_argument("command", help="shell command to run in the guest")
    args = parser.parse_args()
    share = Share(args.share, args.tag, args.queues, daemon_args=args.daemon_arg or ["--cache=auto"])
    options = {key: getattr(args, key) for key in ("kernel", "driver", "cpus", "memory", "append")}
    options["warm"] = not args.cold
    try:
        with Guest([share], name="command", **options) as guest:
            if not args.no_mount:
                guest.load()
                guest.mount(args.tag)
            result = guest.run(args.command, check=False, timeout=args.timeout)
            sys.stdout.write(result.stdout)
            sys.stderr.write(result.stderr)
            kernels.say(f"booted in {guest.seconds['boot']:.1f} s, status {result.rc}, guest log: {guest.console_log}")
            if not args.no_mount:
                guest.umount()
    except GuestError as error:
        sys.exit(str(error))
    sys.exit(result.rc)


if __name__ == "__main__":
    main()
