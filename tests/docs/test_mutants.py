# SPDX-License-Identifier: GPL-2.0
"""The breaks of tests/boot/mutants.toml fit the source, and the tests that have to notice them exist."""

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
MUTANTS = tomllib.loads((TOP / "tests" / "boot" / "mutants.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MUTANTS)
def test_fits(name):
    """What a mutant replaces is in its file exactly once, and it changes something."""
    mutant = MUTANTS[name]
    assert (TOP / mutant["file"]).read_text(encoding="utf-8").count(mutant["old"]) == 1
    assert mutant["old"] != mutant["new"]


@pytest.mark.parametrize("name", MUTANTS)
def test_is_noticed_by_tests_that_exist(name):
    """Each of its tests is there."""
    for test in MUTANTS[name]["tests"]:
        file, _, function = test.partition("::")
        text = (TOP / "tests" / "boot" / file).read_text(encoding="utf-8")
        assert f"def {re.sub(r'\[.*', '', function)}(" in text, test
