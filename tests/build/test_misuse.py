# SPDX-License-Identifier: GPL-2.0
"""What the crates of rust/ have the compiler refuse: the examples of their documentation that must not compile.

An example is a block of ```compile_fail,E0000 with the error that it ends with; with ```compile_fail alone something lives too
short, which is an error without a number. rustdoc cannot run them: it links its tests with
std, which the kernel's target does not have. So each is compiled here as a crate of its own, against the metadata of the built
crates and by the command that compiled the driver. As an example is also refused for a name that has changed, its lines that end with
"// refused" are what is wrong with it: without them it has to compile.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import images  # noqa: E402
import kernel as kernels  # noqa: E402

TOO_SHORT = "lifetime may not live long enough"
# What an example need not say.
PRELUDE = "//! An example.\n#![allow(dead_code, unused, missing_docs)]\n"


def examples():
    """All examples that must not compile: (where, the errors expected, lines)."""
    found = []
    for path in sorted((TOP / "rust").rglob("*.rs")):
        block = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            comment = re.match(r"\s*//[/!] ?(.*)$", line)
            text = comment.group(1) if comment else ""
            begins = re.match(r"```compile_fail(.*)$", text)
            if begins:
                block = (f"{path.relative_to(TOP)}:{number}", set(re.findall(r"E\d{4}", begins.group(1))) or {TOO_SHORT}, [])
            elif block and text.startswith("```"):
                found.append(block)
                block = None
            elif block:
                # rustdoc does not show lines that begin like this.
                block[2].append(re.sub(r"^# ?", "", text))
        assert block is None, f"{block}: has no end"
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def compiler():
    """Compiles a text against the crates of the module; returns the error codes and what the compiler said."""
    build = kernels.build_kernel("kata")
    with images.locked("modules-kata"):
        output = images.build_module("kata", build)
    recorded = (output / "drivers/virtiofs/.virtiofs.o.cmd").read_text(encoding="utf-8").partition("\n")[0]
    command = re.search(r":= (.*?\brustc .*?\.rs)\s", recorded).group(1)
    words = [word for word in shlex.split(command) if not word.startswith(("--emit=", "-Zbinary_dep_depinfo"))]
    words = [word for word in words if not re.match(r"-[WA]clippy::", word)]
    place = words.index("rustc")
    variables = dict(word.split("=", 1) for word in words[:place])
    words = words[place + 1 : -1]
    at = words.index("--out-dir")
    del words[at : at + 2]

    def run(directory, text):
        source = directory / "example.rs"
        source.write_text(PRELUDE + text, encoding="utf-8")
        result = subprocess.run(
            ["rustc", *words, "--emit=metadata", "--out-dir", str(directory), str(source)],
            cwd=output,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, **variables, "RUSTC_BOOTSTRAP": "1"},
        )
        codes = set(re.findall(rf"^error(?:\[(?=E)|: (?=lifetime))(E\d{{4}}|{TOO_SHORT})", result.stdout, re.M))
        assert (result.returncode != 0) == bool(codes), result.stdout
        return codes, result.stdout

    return run


def test_there_are_examples():
    """The search finds them, and each says what is wrong with it."""
    assert len(EXAMPLES) > 0
    assert not [where for where, _, lines in EXAMPLES if not any(line.endswith("// refused") for line in lines)]


@pytest.mark.parametrize("where, expected, lines", EXAMPLES, ids=[where for where, _, _ in EXAMPLES])
def test_misuse_does_not_compile(compiler, tmp_path, where, expected, lines):
    """It is refused with the error that the documentation says, and without what is wrong with it it is fine."""
    codes, said = compiler(tmp_path, "\n".join(lines))
    assert codes == expected, f"{where}: {said}"
    codes, said = compiler(tmp_path, "\n".join(line for line in lines if not line.endswith("// refused")))
    assert not codes, f"{where}: without what is refused: {said}"
