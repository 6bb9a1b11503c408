# SPDX-License-Identifier: GPL-2.0
"""Documentation/sharing.md names tests that exist, and has some for each rule."""

import re
from pathlib import Path

import pytest
from test_fuse_tables import exists

PAGE = (Path(__file__).resolve().parent.parent.parent / "Documentation" / "sharing.md").read_text(encoding="utf-8")
RULES = dict(re.findall(r"(?ms)^## (R\d)\. (.*?)(?=^## |\Z)", PAGE))


def test_every_rule_is_there():
    """The rules are numbered without a gap."""
    assert list(RULES) == [f"R{number}" for number in range(1, 9)]


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    """A rule has tests, and each of them exists."""
    tests = re.findall(r"`(test_\w+::test_\w+)`", RULES[rule])
    assert tests
    assert [test for test in tests if not exists(test)] == []
