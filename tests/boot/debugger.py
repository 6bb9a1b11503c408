# SPDX-License-Identifier: GPL-2.0
"""Stops a guest's processors where two of them would meet by chance only: a client of the emulator's GDB stub.

The protocol is that of "Remote Serial Protocol" in GDB's manual.
"""

import socket

# Where registers are among those that `g` tells, of 8 bytes each.
RIP = 16
# What a function of C is called with.
ARGUMENTS = {0: 5, 1: 4, 2: 3, 3: 2}

# Spins on the processor that is the first argument, and writes to the file that is the second one where it waits for the byte that
# ends it: its physical address.
SPIN = """
import ctypes, mmap, os, resource, struct, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
byte = mmap.mmap(-1, 4096)
byte[0] = 0
def spin():
    address = ctypes.addressof(ctypes.c_char.from_buffer(byte))
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(address // 4096 * 8)
        entry, = struct.unpack("<Q", pagemap.read(8))
    with open(sys.argv[2], "w") as told:
        print((entry & (1 << 55) - 1) * 4096, file=told, flush=True)
    while not byte[0]:
        pass
"""


def spinning(guest, script, processor):
    """A process that spins, and the place of the byte that ends it."""
    told = f"/run/told{processor}"
    guest.run(f"rm -f {told}")
    process = guest.spawn_python(SPIN + script, processor, told)
    guest.wait_until(lambda: process.poll() or guest.out(f"cat {told} 2>/dev/null || :"), "the process spins")
    assert process.poll() is None, process.poll()
    return process, int(guest.out(f"cat {told}"))


class Debugger:
    """The guest is stopped while nobody lets it go on: whatever waits for an answer of it would wait in vain. As a context manager;
    at its end the guest goes on."""

    def __init__(self, guest):
        self.guest = guest
        # Where code is, by name.
        self.addresses = {}
        for line in guest.out("cut -d' ' -f1,3 /proc/kallsyms", timeout=120).splitlines():
            # The name of a module may follow.
            address, name = line.split()[:2]
            self.addresses[name] = int(address, 16)

    def __enter__(self):
        path = self.guest.sockets / "gdb"
        self._monitor(f"unix:{path},server=on,wait=off")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60 * self.guest.patience)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")
        # Where processors stop: by address the name. And the last one that did: which, and the address.
        self.stops, self.last = {}, None
        return self

    def __exit__(self, *_):
        self._call("D")
        self.socket.close()
        self._monitor("none")

    def _monitor(self, device):
        """Where the stub listens."""
        self.guest.monitor.call("human-monitor-command", command_line=f"gdbserver {device}")

    def _send(self, packet):
        data = packet.encode()
        self.socket.sendall(b"$%s#%02x" % (data, sum(data) % 256))
        assert self.stream.read(1) == b"+", packet

    def _receive(self):
        """The next packet."""
        assert self.stream.read(1) == b"$"
        packet = b""
        while (byte := self.stream.read(1)) != b"#":
            assert byte, "the emulator is gone"
            packet += byte
        self.stream.read(2)
        self.socket.sendall(b"+")
        return packet.decode()

    def _call(self, packet):
        self._send(packet)
        answer = self._receive()
        assert not answer.startswith("E"), (packet, answer)
        return answer

    def stop_at(self, *names):
        """Processors stop where these functions begin, and nowhere else."""
        wanted = {self.addresses[name]: name for name in names}
        for address in self.stops.keys() - wanted.keys():
            assert self._call(f"z0,{address:x},1") == "OK"
        for address in wanted.keys() - self.stops.keys():
            assert self._call(f"Z0,{address:x},1") == "OK"
        self.stops = wanted

    def go(self):
        """Goes on until a processor comes to such a function: which one, and the function. One that stands at the beginning of such a
        function stays there, but for interrupts."""
        self._send("vCont;c")
        stop = dict(part.split(":") for part in self._receive()[3:].rstrip(";").split(";"))
        thread = stop["thread"]
        number = thread.rpartition(".")[2]
        assert self._call(f"Hg{number}") == "OK"
        rip = int.from_bytes(bytes.fromhex(self._call("g")[16 * RIP : 16 * RIP + 16]), "little")
        self.last = (thread, rip)
        return int(number, 16) - 1, self.stops.get(rip)

    def enter(self):
        """The processor that stopped last comes into the function, by one instruction; the others stay where they are."""
        thread, rip = self.last
        assert self._call(f"z0,{rip:x},1") == "OK"
        self._call(f"vCont;s:{thread}")
        assert self._call(f"Z0,{rip:x},1") == "OK"

    def store(self, address, data):
        """Writes to memory, at a physical address."""
        assert self._call("Qqemu.PhyMemMode:1") == "OK"
        assert self._call(f"M{address:x},{len(data):x}:{data.hex()}") == "OK"
        assert self._call("Qqemu.PhyMemMode:0") == "OK"

    def argument(self, number):
        """What the function is called with at which a processor has stopped last."""
        thread = self.last[0].rpartition(".")[2]
        assert self._call(f"Hg{thread}") == "OK"
        at = 16 * ARGUMENTS[number]
        return int.from_bytes(bytes.fromhex(self._call("g")[at : at + 16]), "little")

    def set_argument(self, number, value):
        """Has it called with something else."""
        thread = self.last[0].rpartition(".")[2]
        assert self._call(f"Hg{thread}") == "OK"
        assert self._call(f"P{ARGUMENTS[number]:x}={value.to_bytes(8, 'little').hex()}") == "OK"

    def load(self, address):
        """The eight bytes of the kernel's memory at an address, as a number."""
        return int.from_bytes(bytes.fromhex(self._call(f"m{address:x},8")), "little")
