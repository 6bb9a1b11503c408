# SPDX-License-Identifier: GPL-2.0
"""What people type to build the module: make, make install, make clean."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import kernel as kernels  # noqa: E402

SOURCES = ("Kbuild", "Makefile", "drivers", "rust", "tests/kunit")


def make(directory, *arguments):
    """Runs make in a directory."""
    command = ["make", "-C", directory, f"KDIR={kernels.build_kernel('kata')}", *arguments]
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def everything(directory):
    """All files below a directory."""
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def checkout(tmp_path):
    """The sources, and nothing that a build has left."""
    directory = tmp_path / "checkout"
    for name in SOURCES:
        source, target = TOP / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.o", "*.cmd", "*.rmeta", "target", "*_generated.rs"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return directory


def test_make_install_and_clean(checkout, tmp_path):
    """The module is built in place, installed where depmod prefers it, and cleaned away without a trace."""
    before = everything(checkout)
    make(checkout, "-j2")
    assert (checkout / "virtiofs.ko").exists()
    make(checkout, "install", f"INSTALL_MOD_PATH={tmp_path}/root")
    installed = [path.relative_to(tmp_path / "root") for path in (tmp_path / "root").rglob("virtiofs.ko")]
    assert [path.parts[3] for path in installed] == ["updates"], installed
    make(checkout, "clean")
    assert everything(checkout) == before
