# SPDX-License-Identifier: GPL-2.0
"""The check of the driver's floors finds what it is to find, in small crates made for it."""

import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import floors  # noqa: E402


def crate(top, **files):
    """A crate of files with these texts; in names, two underscores stand for a slash."""
    for name, text in files.items():
        path = top / "crate" / f"{name.replace('__', '/')}.rs"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return floors.uses(top / "crate")


def test_groups_and_paths(tmp_path):
    """Nested groups, renamed items, paths in code, and super:: count; comments, tests and other crates do not."""
    graph = crate(
        tmp_path,
        a="use crate::{\n    b::{self, X as Y}, //\n    c::d::Z,\n};\nuse kernel::e;\n// crate::f::X\n",
        b="fn x() { crate::c::d::z() }\n#[cfg(VIRTIOFS_KUNIT)]\n#[kunit_tests(b)]\nmod tests {\n    use crate::f::X;\n}\n",
        c__mod="",
        c__d="use super::g::X;\n",
        c__g="",
        f="",
    )
    assert graph["a"] == {"b", "c::d"}
    assert graph["b"] == {"c::d"}
    assert graph["c::d"] == {"c::g"}
    assert not graph["f"]


def test_circles(tmp_path):
    """A circle has those that use each other by any way, and nobody else."""
    graph = crate(tmp_path, a="use crate::b::X;", b="use crate::c::X;", c="use crate::a::X;\nuse crate::d::X;", d="", e="use crate::a::X;")
    assert floors.circles(graph) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "user, used, wrong",
    [("transport__a", "inode::b", 1), ("inode__b", "transport::a", 0), ("inode__b", "inode::c", 0), ("loose", "inode::c", 1)],
)
def test_floors(tmp_path, user, used, wrong):
    """A file uses no higher floor, and has one."""
    texts = {"transport__a": "", "inode__b": "", "inode__c": "", user: f"use crate::{used}::X;"}
    graph = crate(tmp_path, **texts)
    assert len(floors.upwards(graph)) == wrong


def test_the_driver():
    """The module's crates are as they are to be."""
    assert floors.check() == []
