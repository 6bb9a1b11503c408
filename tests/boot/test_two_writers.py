# SPDX-License-Identifier: GPL-2.0
"""The host and guests use the same files, by turns and at the same time: nobody loses what it wrote, and nobody sees what nobody wrote."""

import base64
import json
import random
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from daxd import Daxd
from guest import Share
from shared_model import PAGE, File, View, Wrong, pages_of
from writer import LIMIT, SAVED, Writer, cells, random_bytes

PROGRAM = (Path(__file__).resolve().parent / "writer.py").read_text(encoding="utf-8")
PORT = "virtio-serial-pci,id=wire"
# What a guest may have of a file, and how it is served.
MODES = {
    "auto": (["--cache=auto"], {}),
    "never": (["--cache=never"], {"direct": True}),
    "always": (["--cache=always", "--allow-direct-io"], {"reopens": False}),
    "writeback": (["--cache=auto", "--writeback"], {"whole_pages": True}),
    # In the window, the pages are the host's own; by the tests' daemon, as virtiofsd has none.
    "dax": (None, {"direct": True, "sized": True}),
    "writeback-always": (["--cache=always", "--writeback", "--allow-direct-io"], {"reopens": False, "whole_pages": True}),
}
LENGTHS = [1, 7, 100, 512, PAGE, 3 * PAGE, 10_000, 40_000]
# Compaction without end, so that folios migrate.
COMPACT = "while :; do echo 1 >/proc/sys/vm/compact_memory; sleep 0.1; done"
# Another process that reads the file: it brings in what others write at that moment.
READER = """
import os, random, sys
held = os.open(sys.argv[1], os.O_RDONLY)
while True:
    fd = random.choice([held, None]) or os.open(sys.argv[1], os.O_RDONLY)
    os.pread(fd, random.choice([1, 4096, 65536]), random.randrange(os.fstat(fd).st_size))
    if fd != held:
        os.close(fd)
"""
PAGES = LIMIT // PAGE
# Pages from here on come and go while several write.
TAIL = PAGES - 24


class Wire:
    """A writer in a guest, which takes calls from a port of its own."""

    def __init__(self):
        self.place = Path(tempfile.mkdtemp(prefix="wire-", dir="/run"))
        self.socket = self.process = None

    def arguments(self):
        """What the guest's emulator is told."""
        port = "virtserialport,bus=wire.0,chardev=wire,name=guest.wire"
        return ["-chardev", f"socket,id=wire,path={self.place}/socket,server=on,wait=off", "-device", PORT, "-device", port]

    def start(self, guest, where):
        """Starts the writer."""
        self.process = guest.spawn_python(PROGRAM, where)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(self.place / "socket"))
        self.socket.settimeout(2)

    def do(self, what, **arguments):
        """A call, as Writer.do."""
        self.socket.sendall(json.dumps({"what": what, **arguments}).encode() + b"\n")
        answer, deadline = b"", time.monotonic() + 120
        while not answer.endswith(b"\n"):
            try:
                part = self.socket.recv(1 << 20)
            except TimeoutError:
                part = None
            answer += part or b""
            if part == b"" or part is None and (self.process.poll() or time.monotonic() > deadline):
                raise Wrong(f"no answer from the guest to {what} {arguments}: {self.process.poll()}")
        return json.loads(answer)

    def end(self):
        """Stops the writer."""
        if self.socket and not self.process.poll():
            self.socket.sendall(b'{"what": "end"}\n')
            self.socket.close()
            assert self.process.wait().rc == 0, self.process.result
        shutil.rmtree(self.place)


class Turns:
    """Calls one after the other, by the host and by guests: wires and views. `left_out` are calls that nobody makes; `grows`: the host
    makes the file longer only."""

    HOST = {"write": 8, "append": 2, "truncate": 2, "punch": 2, "replace": 1, "publish": 1}
    GUEST = {
        **{"write": 6, "append": 1.5, "direct": 2, "store": 5, "pending": 3, "sync": 2, "truncate": 2, "punch": 1},
        **{"replace": 0.7, "create": 0.7, "read": 10, "mapped": 3, "size": 3, "forget": 1, "hold": 2, "published": 1},
    }

    def __init__(self, seed, directory, guests, left_out=(), grows=False):
        self.grows = grows
        self.rng = random.Random(seed)
        self.host = Writer(str(directory))
        (directory / "file").write_bytes(random_bytes("start", 20 * PAGE + 77))
        self.guests = guests
        self.file = File(directory / "file", [view for _, view in guests])
        self.left_out = set(left_out)
        self.version = 0
        self.seen = [0] * len(guests)
        self.log = []
        self.host.publish(0)
        for wire, view in guests:
            self.ask(wire, "use", name="file", below=directory.name)
            view.maps = self.ask(wire, "hold")

    def ask(self, wire, what, **arguments):
        """A call that must succeed."""
        answer = wire.do(what, **arguments)
        if "error" in answer:
            raise Wrong(f"{answer['error']}")
        return answer["value"]

    def run(self, count):
        """So many turns."""
        for _ in range(count):
            turn = self.rng.randrange(2 + 3 * len(self.guests))
            who = None if turn < 2 else (turn - 2) // 3
            weights = self.HOST if who is None else self.GUEST
            names = [name for name in weights if name not in self.left_out]
            name = self.rng.choices(names, [weights[name] for name in names])[0]
            self.log.append(f"{'host' if who is None else f'guest {who}'} {name}")
            try:
                if who is None:
                    self.host_turn(name)
                else:
                    self.guest_turn(name, who)
            except Wrong as wrong:
                raise Wrong(f"{wrong}\nlast calls:\n" + "\n".join(self.log[-30:])) from None
        for wire, view in self.guests:
            self.sync(wire, view)
            self.ask(wire, "let_go")

    def note(self, **arguments):
        """Remembers a call's arguments, and gives them."""
        self.log[-1] += f" {arguments}"
        return arguments

    def place(self, limit=LIMIT, unit=1):
        """Bytes to write or read: where, and how many."""
        end = limit // unit
        at = self.rng.randrange(max(end, 1))
        length = min(max(self.rng.choice(LENGTHS) // unit, 1), max(end - at, 1))
        return at * unit, length * unit

    def sync(self, wire, view):
        """What a guest stored goes to the host."""
        if view.pending:
            self.ask(wire, "sync", how="fsync")
            self.file.synced(view, "fsync")

    def sync_all(self, but=None, pages=None):
        """What others have stored, in any page or in some, goes first: both would be right."""
        for wire, view in self.guests:
            if view is not but and view.pending and (pages is None or set(pages) & set(view.pending)):
                self.sync(wire, view)

    def host_turn(self, name):
        """A call of the host."""
        size, file = len(self.file.content), self.file
        if name in ("write", "punch"):
            at, length = self.place(LIMIT if name == "write" else max(size, 1))
            self.sync_all(pages=None if at + length > size else pages_of(at, length))
            seed = len(self.log)
            if name == "punch":
                self.host.punch(**self.note(at=at, length=length))
                file.written(None, at, bytes(max(min(at + length, size) - at, 0)), "the host's hole")
            else:
                self.host.write(**self.note(at=at, seed=seed, length=length, how="fresh"))
                file.written(None, at, random_bytes(seed, length), "the host's write")
        elif name == "append":
            seed, length = len(self.log), self.rng.choice(LENGTHS)
            if size + length <= LIMIT:
                self.sync_all()
                self.host.write(**self.note(at=0, seed=seed, length=length, how="append"))
                file.written(None, size, random_bytes(seed, length), "the host's append")
        elif name == "truncate":
            # A guest that has not looked since writes back at the old size.
            self.sync_all()
            size = self.rng.randrange(min(size, LIMIT - 1) if self.grows else 0, LIMIT)
            self.host.truncate(**self.note(size=size, how="path"))
            file.resized(None, size, "the host's truncate")
        elif name == "replace":
            self.sync_all()
            seed, length = len(self.log), self.place()[1]
            self.host.replace(**self.note(seed=seed, length=length))
            file.replaced(None, random_bytes(seed, length), "the host's rename")
        else:
            self.version += 1
            self.host.publish(self.version)

    def guest_turn(self, name, who):
        """A call of a guest."""
        wire, view = self.guests[who]
        file, size, rng = self.file, len(self.file.content), self.rng
        self.log[-1] += f" (size {size}{f' or {view.sizes}' if view.sizes else ''})"
        exact = not view.sizes or view.looks()
        if name == "hold" or view.nameless:
            self.sync(wire, view)
            self.ask(wire, "hold")
            view.look()
            view.nameless = False
        seed = len(self.log)
        if name == "write":
            how = rng.choice(["fresh", "held"])
            at, length = self.place()
            self.sync_all(view, None if at + length > size else pages_of(at, length))
            if how == "fresh":
                view.look(size=False)
            self.ask(wire, "write", **self.note(at=at, seed=seed, length=length, how=how))
            file.written(view, at, random_bytes(seed, length), f"write {how}", view.whole_pages)
            if how == "held":
                file.synced(view, "fsync")
        elif name == "append" and exact:
            length = rng.choice(LENGTHS)
            if size + length <= LIMIT:
                self.sync_all(view)
                view.look()
                self.ask(wire, "write", **self.note(at=0, seed=seed, length=length, how="append"))
                file.written(view, size, random_bytes(seed, length), "append", view.whole_pages)
        elif name == "direct":
            at, length = self.place(unit=PAGE)
            self.sync_all(None, None if at + length > size else pages_of(at, length))
            view.look(size=False)
            self.ask(wire, "write", **self.note(at=at, seed=seed, length=length, how="direct"))
            file.written(view, at, random_bytes(seed, length), "direct write")
        elif name in ("store", "pending") and exact and view.maps:
            self.store(name, wire, view, seed)
        elif name == "sync" and view.maps:
            how = rng.choice(["msync", "fsync", "syncfs"])
            self.ask(wire, "sync", **self.note(how=how))
            file.synced(view, how)
        elif name == "truncate":
            self.sync_all()
            how = rng.choice(["path", "held", "held", "open"])
            size = 0 if how == "open" else rng.randrange(LIMIT)
            if how == "open":
                view.look()
            self.ask(wire, "truncate", **self.note(size=size, how=how))
            file.resized(view, size, f"truncate {how}")
        elif name == "punch":
            self.sync_all()
            view.look(size=False)
            at, length = self.place(max(size, 1))
            self.ask(wire, "punch", **self.note(at=at, length=length))
            known = set(view.sizes)
            file.written(view, at, bytes(max(min(at + length, size) - at, 0)), "hole")
            # It makes no file longer.
            view.sizes = known
        elif name in ("replace", "create"):
            self.sync_all()
            length = self.place()[1]
            if name == "create":
                self.host.unlink()
                self.ask(wire, "write", **self.note(at=0, seed=seed, length=length, how="create"))
            else:
                self.ask(wire, "replace", **self.note(seed=seed, length=length))
            file.replaced(view, random_bytes(seed, length), name)
        elif name in ("read", "mapped"):
            self.read(name, wire, view, exact)
        elif name == "size":
            how = rng.choice(["fresh", "held"])
            if how == "fresh":
                view.look()
            file.seen_size(view, self.ask(wire, "size", **self.note(how=how)), f"fstat {how}")
        elif name == "forget":
            self.ask(wire, "forget", **self.note(how=rng.choice(["file", "1", "2", "3"])))
        elif name == "published":
            version = self.ask(wire, "published")
            least = self.version if not view.sized else self.seen[who]
            if not least <= version <= self.version:
                raise Wrong(f"version {version}, after {self.seen[who]}, and it is {self.version}")
            self.seen[who] = version

    def store(self, name, wire, view, seed):
        """A guest stores through a mapping."""
        how = "pending" if name == "pending" else self.rng.choice(["own", "exit", "msync", "fsync"])
        if how in ("own", "exit"):
            view.look()
        # Nothing may be touched behind the end that it knows.
        limit = min({len(self.file.content), *view.sizes})
        if not limit:
            return
        at, length = self.place(limit)
        self.sync_all(view, pages_of(at, length))
        if view.pending and how in ("own", "exit", "fsync", "msync"):
            self.sync(wire, view)
        self.ask(wire, "store", **self.note(at=at, seed=seed, length=length, how=how))
        data = random_bytes(seed, length)
        if how == "pending" and not view.direct:
            self.file.stored(view, at, data, "store")
        else:
            self.file.written(view, at, data, f"store {how}", True)

    def read(self, name, wire, view, exact):
        """A guest reads."""
        how = "mapped" if name == "mapped" else self.rng.choice(["fresh", "fresh", "held", "held", "direct"])
        if how == "mapped" and not (exact and view.maps):
            return
        if how != "held":
            view.look(size=how != "direct")
        at, length = self.place(unit=PAGE if how in ("direct", "mapped") else 1)
        got = base64.b64decode(self.ask(wire, "read", **self.note(at=at, length=length, how=how)))
        self.file.seen(view, at, length, got, f"read {how}", how == "mapped")


def start_cells(directory):
    """The files that are written at the same time."""
    for name, pages in (("cells", PAGES), ("saved", SAVED)):
        (directory / name).write_bytes(b"".join(cells(255, page, 0) for page in range(pages)))


def at_once(seed, directory, guests, seconds, ways, host_ways):
    """The host and guests write at the same time, each to pages of its own and to some in common."""
    path = directory / "cells"
    owners = len(guests) + 2
    # The last one's pages are common.
    parts = [[page for page in range(TAIL) if page % owners == owner] for owner in range(owners)]
    host, results = Writer(str(directory)), {}
    host.name = "cells"
    for wire, _ in guests:
        for what in ({"what": "use", "name": "cells", "below": directory.name}, {"what": "hold"}):
            assert "error" not in wire.do(**what)

    def start(owner, do, its_ways):
        foreign = [page for other in range(owners - 1) if other != owner for page in parts[other]]
        what = {"seed": seed, "seconds": seconds, "owner": owner, "mine": parts[owner], "common": parts[-1], "foreign": foreign}
        results[owner] = do("run", **what, tail=TAIL, ways=its_ways)

    # Guests under an emulator are slower by far.
    jobs = [(0, lambda what, **arguments: host.do(what, pause=0.001, **arguments), host_ways)]
    jobs += [(number, wire.do, ways) for number, (wire, _) in enumerate(guests, 1)]
    threads = [threading.Thread(target=start, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wire, _ in guests:
        assert wire.do("sync", how="fsync") == {"value": None}
        assert wire.do("let_go") == {"value": None}
    print({owner: result.get("value", result).get("counts", result) for owner, result in results.items()})
    for owner, result in results.items():
        assert "error" not in result and not result["value"]["wrong"], (owner, result)
    content = path.read_bytes()
    for owner, result in results.items():
        for page, version in result["value"]["versions"].items():
            wanted = cells(owner if version else 255, int(page), version)
            got = content[int(page) * PAGE : (int(page) + 1) * PAGE]
            assert got == wanted, f"page {page}: {got[:8].hex()} and not {wanted[:8].hex()}, of {owner}"


@pytest.fixture
def writers(boot, tree):
    """Starts guests with a writer each: writers(how they are served, how many)."""
    wires, daemons = [], []

    def start(daemon_args, count):
        guests = []
        for _ in range(count):
            wires.append(Wire())
            if daemon_args is None:
                daemons.append(Daxd(tree.path, tag="tag", window="2M", attr_timeout=1, entry_timeout=1))
                share, options = Share(**daemons[-1].share()), "dax=always"
            else:
                share, options = Share(tree.path, "tag", daemon_args=daemon_args), ""
            guest = boot(share, qemu_args=wires[-1].arguments())
            if options:
                # A range has a part of the file alone, so that ranges come and go.
                guest.run("modprobe -r virtiofs; modprobe virtiofs dax_ranges=64")
            guest.mount("tag", options=options)
            wires[-1].start(guest, "/mnt")
            guests.append((guest, wires[-1]))
        return guests

    yield start
    for wire in wires:
        wire.end()
    for daemon in daemons:
        daemon.stop()
        shutil.rmtree(daemon.place)


def by_turns(mode, count):
    """What nobody does in a mode by turns, and whether the host makes files longer only."""
    # A page of the window that is behind the end of its file ends the emulator.
    alone = ["truncate"] if mode == "dax" and count > 1 else []
    # Where names are good for a day they stay what they were.
    names = ["replace", "create", "publish", "published"] if mode.endswith("always") else []
    return [*alone, *names], mode == "dax"


def ways_of(mode, count):
    """How a guest uses files in a mode while others do, and how the host does."""
    mapped = [] if mode == "never" else ["map", "read-mapped"]
    # As above.
    tail, host_tail = [[] if mode == "dax" and others else ["tail"] for others in (count > 1, True)]
    guest = ["fresh", "held", "direct", "read-fresh", "read-held", "read-direct", "save", "saved", *tail, *mapped]
    return guest, ["fresh", "read-fresh", "save", "saved", *host_tail]


SHORT = [("auto", 2), *[(mode, 1) for mode in MODES if mode != "auto"]]
LONG = [(mode, 2) for mode in MODES]


@pytest.mark.ours("it keeps the old size, and the old file, of what others change")
@pytest.mark.parametrize(
    ("mode", "count", "rounds"), [*[(*case, 1) for case in SHORT], *[pytest.param(*case, 10, marks=pytest.mark.long) for case in LONG]]
)
def test_two_writers(request, writers, tree, mode, count, rounds):
    """By turns: everybody sees what is true or, as long as it did not have to look, what was; and then at the same time."""
    first, turns = (request.config.getoption(name) for name in ("--seed", "--calls"))
    daemon_args, view = MODES[mode]
    running = writers(daemon_args, count)
    left_out, grows = by_turns(mode, count)
    for number in range(rounds):
        seed = f"{int(first) + number} {mode}"
        began = time.monotonic()
        directory = tree.path / f"round{number}"
        directory.mkdir()
        guests = [(wire, View(**view)) for _, wire in running]
        Turns(seed, directory, guests, left_out, grows).run(turns or 200)
        print(f"seed {seed}: {time.monotonic() - began:.1f} s")
        beside = [guest.spawn(COMPACT) for guest, _ in running]
        start_cells(directory)
        beside += [guest.spawn_python(READER, f"/mnt/{directory.name}/cells") for guest, _ in running]
        at_once(seed, directory, guests, 4 if turns is None else turns / 50, *ways_of(mode, count))
        for process in beside:
            assert not process.poll(), process.result
            process.kill()
            process.wait()
