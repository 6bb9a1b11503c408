# SPDX-License-Identifier: GPL-2.0
"""The choice of tests by what a change touches leaves out nothing that the change can break."""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import changed  # noqa: E402

MUTANTS = {
    "one": {"file": "drivers/virtiofs/metadata/xattr.rs", "tests": ["test_xattr.py::test_set", "test_acl.py::test_mode"]},
    "two": {"file": "drivers/virtiofs/contents/lock.rs", "tests": ["test_locks.py::test_wait[posix]"]},
}
CRATES = ["rust/fuse_proto", "tests/daxd"]


def choose(*paths):
    """The choice for a change of these files."""
    return changed.choose(paths, CRATES, MUTANTS)


def test_source_with_mutants():
    """The boot tests that notice breaks of these files, KUnit, and the build."""
    choice = choose("drivers/virtiofs/metadata/xattr.rs", "drivers/virtiofs/contents/lock.rs")
    assert choice.boot == {"test_xattr.py", "test_acl.py", "test_locks.py"}
    assert choice.module and choice.directories == {"tests/docs", "tests/build"} and not choice.crates


def test_source_without_mutants():
    """Nothing is known of it, so all boot tests; a file that is known adds nothing to that."""
    for paths in [("drivers/virtiofs/new.rs",), ("drivers/virtiofs/new.rs", "drivers/virtiofs/metadata/xattr.rs")]:
        assert choose(*paths).boot is None
        assert choose(*reversed(paths)).boot is None


def test_crate_of_the_module():
    """It is tested on the host, and in guests."""
    choice = choose("rust/fuse_proto/src/name.rs")
    assert choice.crates == {"rust/fuse_proto"} and choice.module and choice.boot is None


def test_documents():
    """No guest is booted for them."""
    choice = choose("Documentation/fuse.md", "README.md", "tests/docs/test_help.py")
    assert choice == changed.Choice()


def test_tests():
    """A file of boot tests is run alone; what they share needs them all, and so does the daemon."""
    assert choose("tests/boot/test_xattr.py").boot == {"test_xattr.py"}
    assert choose("tests/boot/rig.py").boot is None
    daemon = choose("tests/daxd/src/main.rs")
    assert daemon.boot is None and daemon.crates == {"tests/daxd"} and "tests/daxd" in daemon.directories
    assert not choose("tests/boot/mutants.toml").boot


def test_what_guests_are_made_of():
    """All boot tests."""
    for path in ["guest/kata.config", "scripts/guest.py", "Kbuild", "Makefile", ".ci/run", "something/new"]:
        assert choose(path).boot is None, path


def test_tables_of_this_project():
    """Every crate is found, and the difference to this commit can be asked for."""
    assert "rust/fuse_proto" in changed.crates()
    assert isinstance(changed.choice_since("HEAD"), changed.Choice)
