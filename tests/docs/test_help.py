# SPDX-License-Identifier: GPL-2.0
"""Every script tells what it is for, wherever it is run."""

import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
SCRIPTS = sorted(path for path in (TOP / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_help(script):
    """--help needs nothing, and does nothing else."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("VIRTIOFS_")}
    result = subprocess.run([script, "--help"], env=environ, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower(), result.stdout
