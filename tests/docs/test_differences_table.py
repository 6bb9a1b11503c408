# SPDX-License-Identifier: GPL-2.0
"""Documentation/differences.md is about observations that are made, and gives a reason for each difference."""

import re
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests" / "boot"))

import differences  # noqa: E402

OBSERVE = (TOP / "tests" / "boot" / "observe.py").read_text(encoding="utf-8")
# Names, in which {} stands for some word.
NAMES = [re.sub(r"\\{.*?\\}", ".*", re.escape(name)) for name in re.findall(r'see\(\s*f?"([^"]*)"', OBSERVE)]


@pytest.mark.parametrize("row", differences.rows(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_row(row):
    """A row names an observation, modes of test_differences, two values that differ, and why."""
    name, modes, ours, theirs, why = row
    assert any(re.fullmatch(pattern, name) for pattern in NAMES), name
    assert modes == "all" or set(modes.split()) <= {"auto", "never", "always", "acl"}
    assert differences.value(ours) != differences.value(theirs)
    assert len(why) > 5


def test_no_row_twice():
    """For one mode there is at most one row about an observation."""
    seen = [(row[0], mode) for row in differences.rows() for mode in row[1].replace("all", "auto never always acl").split()]
    assert len(seen) == len(set(seen))
