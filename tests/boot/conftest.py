# SPDX-License-Identifier: GPL-2.0
"""What the boot tests share: guests, directories to serve, and the choice of kernel and driver.

One test: scripts/enter pytest tests/boot/test_read.py -k sendfile --kernel debug --driver rust
"""

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "scripts"))
sys.path.insert(0, str(TOP / "tests" / "daxd"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import guest as guests  # noqa: E402
import rig as rigs  # noqa: E402
import tree as trees  # noqa: E402

# The cache modes of the daemon, each a share of its own with its tag.
CACHES = ("auto", "never", "always")

MOUNT_SCRIPT = """
import ctypes, errno, os, sys
source, target, fstype, data, flags = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs(target, exist_ok=True)
failed = libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(int(flags)), data.encode() or None)
print(errno.errorcode[ctypes.get_errno()] if failed else "OK")
"""


def pytest_addoption(parser):
    """The choices."""
    parser.addoption("--kernel", choices=["kata", "debug"], default="kata", help="the guest's kernel")
    parser.addoption("--driver", choices=["rust", "c"], default="rust", help="this driver, or the kernel's own")
    parser.addoption("--every-case", action="store_true", help="every case and cache mode on the debug kernel, too")
    parser.addoption("--one-case", action="store_true", help="as few cases on any kernel as by default on the debug kernel")
    parser.addoption("--seed", default="1", help="of the random calls of test_fsx")
    parser.addoption("--calls", type=int, help="how many of them each process makes")


def pytest_collection_modifyitems(config, items):
    """Leaves out what a run is not about.

    The debug kernel is slow, and looks for faults of the driver that hardly depend on the daemon's cache mode: there tests run in
    one mode, and those that boot a guest for each of their cases take the first case alone. With the kernel's own driver, tests
    of what only this one does are expected to fail, or make no sense.
    """
    if not config.getoption("--every-case"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    few = config.getoption("kernel") == "debug" and not config.getoption("--every-case")
    if few or config.getoption("--one-case"):
        seen = set()
        left_out = []
        for item in items:
            again = item.originalname in seen and "guest" not in item.fixturenames
            seen.add(item.originalname)
            if again or modes_of(item) & set(CACHES[1:]):
                left_out.append(item)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if config.getoption("driver") != "c":
        return
    for item in items:
        for marker in item.iter_markers("beyond_c"):
            item.add_marker(pytest.mark.xfail(reason=f"C driver: {marker.args[0]}", strict=True))
        for marker in item.iter_markers("ours"):
            item.add_marker(pytest.mark.skip(reason=f"not in the C driver: {marker.args[0]}"))


def modes_of(item):
    """The cache modes that a test is parametrized with."""
    callspec = getattr(item, "callspec", None)
    return {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()


@pytest.fixture(scope="session")
def kernel(request):
    """The name of the guest's kernel."""
    return request.config.getoption("kernel")


@pytest.fixture(scope="session")
def driver(request):
    """Which driver is tested."""
    return request.config.getoption("driver")


@pytest.fixture
def tree(tmp_path):
    """An empty directory to share."""
    return trees.Tree(tmp_path / "share")


@pytest.fixture
def boot(request, kernel, driver):
    """Boots guests for one test: boot(Share(...), ...). They are powered off and judged at its end.

    `load` tells whether to load the driver; `wedged=True` means that the test leaves tasks which keep a guest from powering off
    in order, so that it is stopped by force. Other arguments go to guest.Guest. Another daemon: Share(daemon=[...]).
    """
    running = []

    def start(*shares, load=True, wedged=False, **options):
        options = {"kernel": kernel, "driver": driver, "warm": True, "programs": False, "name": request.node.name.replace("/", "-")[:60], **options}
        guest = guests.Guest(shares, **options)
        running.append((guest, wedged))
        guest.__enter__()
        if load:
            guest.load()
        return guest

    yield start
    errors = []
    for guest, wedged in running:
        try:
            if wedged or guest.qemu is None:
                guest.kill()
                guest.check_console()
            elif guest.qemu.poll() is None:
                guest.poweroff()
        except guests.GuestError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture
def boot_rig(request, kernel, driver, tmp_path):
    """Boots a guest whose shares the misbehaving daemon serves: boot_rig(shares=1, daxd={...}, settings={...}, ...).

    `files` fills the directory before; `wedged` is as for `boot`. Other arguments go to guest.Guest.
    """
    running = []

    def start(files=None, wedged=False, **options):
        name = request.node.name.replace("/", "-")[:60]
        rig = rigs.Rig(name, **{"kernel": kernel, "driver": driver, **options})
        running.append((rig, wedged))
        directory = tmp_path / f"share{len(running)}"
        if files:
            files(trees.Tree(directory))
        return rig.start(directory)

    yield start
    errors = []
    for rig, wedged in running:
        try:
            rig.end(kill=wedged)
        except guests.GuestError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="module")
def shared_rig(request, kernel, driver, tmp_path_factory):
    """What `rig` gives to the tests of a file, and whether a test has broken it: a list of one or none."""
    holder = []
    yield holder
    for rig in holder:
        rig.end()


@pytest.fixture
def rig(request, kernel, driver, shared_rig, tmp_path_factory):
    """A guest with the misbehaving daemon for all tests of a file, booted anew after one that failed.

    The file says what it wants: RIG = {"shares": 3, ...}, and files(tree) to fill the directory. Tests unmount what they mount.
    """
    if not shared_rig:
        directory = tmp_path_factory.mktemp("rig") / "share"
        request.module.files(trees.Tree(directory))
        name = Path(request.node.fspath).stem
        options = {"kernel": kernel, "driver": driver, **request.module.RIG}
        new = rigs.Rig(name, **options)
        try:
            new.start(directory)
        except BaseException:
            new.end(kill=True)
            raise
        shared_rig.append(new)
    mine = shared_rig[0]
    mine.again()
    yield mine
    if getattr(request.node, "broke", False):
        # In what state it is, nobody knows.
        shared_rig.clear()
        mine.end(kill=True)
    else:
        mine.guest.check_console()


class SharedGuest:
    """One guest for all tests of a file, with the standard tree behind every daemon, by their names and arguments; booted anew when
    it died."""

    def __init__(self, name, options, directory, daemons):
        self.name, self.options, self.daemons = name, options, daemons
        self.tree = trees.standard(directory)
        self.guest = None

    def get(self):
        """The running guest."""
        if self.guest is None:
            shares = [guests.Share(self.tree.path, f"tag-{mode}", daemon_args=words) for mode, words in self.daemons.items()]
            self.guest = guests.Guest(shares, name=self.name, **self.options)
            self.guest.__enter__()
            self.guest.load()
            for mode in self.daemons:
                self.guest.mount(f"tag-{mode}", f"/run/{mode}")
        return self.guest

    def judge(self, failed):
        """After each test: what the kernel reported belongs to this test."""
        guest = self.guest
        if guest is None:
            return
        if failed:
            # In what state it is, nobody knows.
            self.guest = None
            guest.kill()
        guest.check_console()

    def close(self):
        """At the end: everything unmounts and unloads, and the guest powers off."""
        guest, self.guest = self.guest, None
        if guest is None:
            return
        try:
            for mode in self.daemons:
                guest.umount(f"/run/{mode}")
            guest.unload()
            guest.poweroff()
        finally:
            guest.kill()


@pytest.fixture(scope="module")
def shared_guest(request, kernel, driver, tmp_path_factory):
    """The guest that the tests of a file share. The file may name other daemons than those of the cache modes: DAEMONS."""
    options = {"kernel": kernel, "driver": driver, "warm": True, "programs": False}
    name = Path(request.node.name).stem
    daemons = getattr(request.module, "DAEMONS", {mode: [f"--cache={mode}"] for mode in CACHES})
    shared = SharedGuest(name, options, tmp_path_factory.mktemp("standard") / "share", daemons)
    yield shared
    shared.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Lets fixtures know how their test went."""
    report = (yield).get_result()
    if report.when == "call":
        # An expected failure leaves a guest in an unknown state, too.
        item.broke = call.excinfo is not None


@pytest.fixture
def guest(request, shared_guest):
    """A running guest with the standard tree on /run/auto, /run/never and /run/always; tests leave it as they found it."""
    yield shared_guest.get()
    shared_guest.judge(getattr(request.node, "broke", False))


@pytest.fixture
def host(shared_guest):
    """The standard tree, as the host sees it."""
    return shared_guest.tree


@pytest.fixture(params=CACHES)
def mnt(request):
    """Where the standard tree is mounted, once for each cache mode."""
    return f"/run/{request.param}"


def mount_errno(guest, tag, where="/run/try", data="", fstype="virtiofs", flags=0):
    """Calls mount(2) in the guest: "OK", or the error's name."""
    return guest.python(MOUNT_SCRIPT, tag, where, fstype, data, flags).stdout.strip()


def errno_of(guest, statement, *arguments):
    """Runs a Python statement in the guest (os, sys and a = arguments at hand): "OK", or the name of the error it raised."""
    script = (
        "import errno, json, os, sys\na = json.loads(sys.argv[1])\n"
        f"try:\n    {statement}\n    print('OK')\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    return guest.python(script, json.dumps(arguments)).stdout.strip()


def blocked(guest, process):
    """Waits until a process of the guest sleeps in a system call that it does not leave."""
    status = f"cat /proc/{process.pid}/syscall; grep -E '^State' /proc/{process.pid}/status"
    previous = []

    def same_twice():
        now = guest.run(status, check=False).stdout
        asleep = "State:\tS" in now or "State:\tD" in now
        previous.append(now)
        return asleep and len(previous) > 2 and previous[-1] == previous[-2] == previous[-3]

    guest.wait_until(same_twice, f"{process.command} sleeps")


def kill_while_held(rig, process):
    """Kills a process that waits for a reply which the daemon holds; afterwards none is held."""
    rig.daxd.wait_for_held()
    blocked(rig.guest, process)
    process.kill()
    assert process.wait().rc == 128 + signal.SIGKILL
    rig.daxd.clear_faults()
    rig.daxd.release()


def running(guest, process):
    """Whether a process of the guest is still there (a zombie is not)."""
    state = guest.run(f"sed -n 's/^State:.//p' /proc/{process.pid}/status", check=False).stdout
    return bool(state) and not state.startswith("Z")


def device_of(guest, tag):
    """The virtio device that bears a tag, as its directory in sysfs."""
    quoted = shlex.quote(tag)
    return guest.out(f"cd /sys/fs/virtiofs; for f in */tag; do [ \"$(cat $f)\" != {quoted} ] || readlink -f ${{f%tag}}device; done")
