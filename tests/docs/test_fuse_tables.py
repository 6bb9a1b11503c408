# SPDX-License-Identifier: GPL-2.0
"""Documentation/fuse.md and the code agree: every opcode and flag has a row, and the rows say what the driver does."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
PAGE = (TOP / "Documentation" / "fuse.md").read_text(encoding="utf-8")


def table(title):
    """The rows of a table of the page by their first cell, each as its other cells."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def code(pattern, path):
    """What a pattern finds in a file."""
    return re.findall(pattern, (TOP / path).read_text(encoding="utf-8"))


OPCODES = dict((name, variant) for variant, name in code(r'(\w+) = \d+, "(\w+)";', "rust/fuse_proto/opcode.rs"))
INIT_FLAGS = code(r"(?s)InitFlags: u64 \{(.*?)\n    \}", "rust/fuse_proto/flags.rs")[0]
INIT_FLAGS = re.findall(r"(\w+) = \d+;", INIT_FLAGS)
OFFERED = {
    flag
    for path in ("drivers/virtiofs/session/mod.rs", "drivers/virtiofs/dax/mode.rs")
    for flags in code(r"(?s)const OFFERED: InitFlags =(.*?);", path)
    for flag in re.findall(r"InitFlags::(\w+)", flags)
}
DRIVER = "\n".join(path.read_text(encoding="utf-8") for path in sorted((TOP / "drivers" / "virtiofs").rglob("*.rs")))
# Where an opcode is sent by a structure of another name.
SENT_AS = {
    "BatchForget": "BatchForget",
    "Opendir": "Open",
    "Releasedir": "Release",
    "Fsyncdir": "Fsync",
    "Readdirplus": "Readdir",
    "Rmdir": "Unlink",
    "Rename2": "Rename",
    "Setlkw": "Setlk",
    "Tmpfile": "Create",
    "CopyFileRange64": "CopyFileRange",
}


def test_every_opcode_has_a_row():
    """No opcode is missing, and none is made up."""
    assert list(table("Opcodes")) == list(OPCODES)


def test_every_flag_has_a_row():
    """No flag is missing, and none is made up."""
    assert list(table("INIT flags")) == INIT_FLAGS


def exists(test):
    """Whether a test, named by file and function, is among the boot tests."""
    file, _, function = test.partition("::")
    path = TOP / "tests" / "boot" / f"{file}.py"
    return path.exists() and re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


@pytest.mark.parametrize("flag", INIT_FLAGS)
def test_flag(flag):
    """A flag is offered in INIT as its row says, and one that is has a test that exists."""
    offered, _, test, *_ = table("INIT flags")[flag]
    assert offered == ("yes" if flag in OFFERED else "no")
    assert exists(test) if offered == "yes" else test == ""


@pytest.mark.parametrize("opcode", OPCODES)
def test_opcode(opcode):
    """An opcode that is sent has its structure in the driver and a test that exists; one that is not has neither."""
    sent, _, test, *_ = table("Opcodes")[opcode]
    variant = OPCODES[opcode]
    used = re.search(rf"\b{SENT_AS.get(variant, variant)}\b\s*(::new|\{{|$|\)|,)", DRIVER, re.MULTILINE) is not None
    if sent == "yes":
        assert used
        assert exists(test), test
    else:
        assert test == ""
