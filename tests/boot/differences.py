# SPDX-License-Identifier: GPL-2.0
"""The table of Documentation/differences.md."""

import json
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "Documentation" / "differences.md"


def rows():
    """Each row as a list of its cells."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return table[2:]


def value(cell):
    """What a cell says that programs see: JSON in backquotes."""
    return json.loads(cell.strip("`"))


def between_drivers(daemon):
    """The differences that are wanted with one of the daemons of test_differences: observation to (this driver, C client)."""
    return {name: (value(ours), value(theirs)) for name, modes, ours, theirs, _ in rows() if modes == "all" or daemon in modes.split()}
