#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks what can be checked without running the driver: formatting, lints, documentation, C, shell and Python style, spelling.

Each check says how it ended; exit code 1 when one failed. Runs inside the build root: make check ARGS='--only clippy'
"""

import argparse
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import floors
import images
import kernel as kernels

TOP = kernels.TOP
# Lines of one file; more is more than one subject.
LONGEST = 800


def files(*patterns):
    """The project's own files that match a pattern, as git knows them, new ones too."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in sorted(set(listed)) if (TOP / name).is_file()]


def run(*command, env=None):
    """Runs a program on the project; returns (succeeded, what it printed)."""
    words = list(map(str, command))
    result = subprocess.run(
        words, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, **(env or {})}
    )
    return result.returncode == 0, result.stdout


def crates():
    """The crates that build on the host."""
    return files("*Cargo.toml")


def rustfmt():
    """Every Rust file is as rustfmt leaves it, with the kernel's settings."""
    names = files("*.rs")
    config = kernels.unpack_source() / ".rustfmt.toml"
    command = ["rustfmt", "--edition", "2021", "--check", "--config-path", config, "--config", "skip_children=true"]
    good, output = run(*command, *names)
    if "skip_children" in output:
        good, output = run(*command[:-2], *names)
    # The kernel's file names settings that only a nightly rustfmt knows.
    kept = [line for line in output.splitlines() if "unstable features are only available" not in line]
    return good, "\n".join(kept)


def clippy():
    """The module passes clippy with the kernel's lints, without a warning."""
    build = kernels.build_kernel("kata")
    output = kernels.CACHE / "module-clippy"
    output.mkdir(exist_ok=True)
    where = ["-C", build, f"M={TOP}", f"MO={output}", "ARCH=x86_64", "LLVM=1"]
    # All of it anew: what is up to date is not looked at.
    run("make", *where, "clean")
    good, text = run("make", *where, f"-j{os.cpu_count()}", "CLIPPY=1", "modules")
    # Without the steps of the build that went well.
    text = "\n".join(line for line in text.splitlines() if not re.match(r"  [A-Z]+ |make\[", line))
    return good and not re.search(r"^(warning|error)", text, re.M), text


def host_clippy():
    """The crates that build on the host pass clippy without a warning."""
    results = [
        run("cargo", "clippy", "--quiet", "--all-targets", "--manifest-path", name, *target_of(name), "--", "-Dwarnings")
        for name in crates()
    ]
    return all(good for good, _ in results), "".join(text for _, text in results)


def target_of(manifest):
    """Where a host crate is built: in the cache."""
    return ["--target-dir", kernels.CACHE / "cargo-target" / Path(manifest).parent.name]


def host_rustdoc():
    """The documentation of the crates that build on the host has no warning."""
    flags = {"RUSTDOCFLAGS": "-Dwarnings"}
    results = [
        run("cargo", "doc", "--quiet", "--no-deps", "--manifest-path", name, *target_of(name), env=flags) for name in crates()
    ]
    return all(good for good, _ in results), "".join(text for _, text in results)


def rustdoc():
    """The documentation of the module's crates has no warning; rustdoc sees them as the compiler did."""
    build = kernels.build_kernel("kata")
    with images.locked("modules-kata"):
        output = images.build_module("kata", build)
    good, text = True, ""
    for recorded in sorted(output.rglob(".*.o.cmd")):
        line = recorded.read_text(encoding="utf-8").partition("\n")[0]
        found = re.search(r":= (.*?\brustc .*?\.rs)\s", line)
        if not found or "/tests/" in found.group(1):
            continue
        words = [word for word in shlex.split(found.group(1)) if not word.startswith(("--emit=", "-Zbinary_dep_depinfo"))]
        place = words.index("rustc")
        variables = dict(word.split("=", 1) for word in words[:place])
        words = words[place + 1 :]
        at = words.index("--out-dir")
        del words[at : at + 2]
        lints = [word for word in words if not re.match(r"-[WA]clippy::", word)]
        with tempfile.TemporaryDirectory() as scratch:
            command = ["rustdoc", *lints, "-Dwarnings", "-Arustdoc::private_intra_doc_links", "--document-private-items", "-o", scratch]
            result = subprocess.run(
                command,
                cwd=output,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                env={**os.environ, **variables, "RUSTC_BOOTSTRAP": "1", "VIRTIOFS_OBJ": str(output)},
            )
        good = good and result.returncode == 0
        text += result.stdout
    return good, text


def checkpatch():
    """C files are in the kernel's style."""
    names = files("*.c", "*.h")
    script = kernels.unpack_source() / "scripts" / "checkpatch.pl"
    # What a single file cannot tell: who maintains it, and where its type definitions stand.
    ignored = "FILE_PATH_CHANGES,CONST_STRUCT,LINUX_VERSION_CODE"
    return run(script, "--no-tree", "--terse", "--strict", "--no-summary", f"--ignore={ignored}", "-f", *names)


def shell_scripts():
    """The project's shell scripts."""
    found = []
    for name in files("scripts/*", "guest/rootfs/*", ".ci/*", "tests/*"):
        with open(TOP / name, "rb") as file:
            first = file.readline(80)
        if re.match(rb"#!.*\b(ba|da)?sh$", first.strip()) or name.endswith(".sh"):
            found.append(name)
    return found


def shellcheck():
    """Shell scripts have nothing that shellcheck objects to."""
    return run("shellcheck", "--external-sources", "--exclude=SC2016,SC2034", *shell_scripts())


def python():
    """Python files compile without a warning, and every function and file says what it is for."""
    missing = []
    import ast  # pylint: disable=import-outside-toplevel
    import warnings  # pylint: disable=import-outside-toplevel

    warnings.simplefilter("error")
    for name in files("*.py"):
        source = (TOP / name).read_text(encoding="utf-8")
        try:
            tree = ast.parse(source, name)
            compile(source, name, "exec")
        except (SyntaxError, Warning) as error:
            missing.append(f"{name}: {error}")
            continue
        if not ast.get_docstring(tree):
            missing.append(f"{name}: no docstring")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            nested = isinstance(node, ast.FunctionDef) and node.col_offset > 4
            if public and not nested and not ast.get_docstring(node) and not is_local(tree, node):
                missing.append(f"{name}:{node.lineno}: {node.name} has no docstring")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    if (alias.asname or alias.name).split(".")[0] not in used:
                        missing.append(f"{name}:{node.lineno}: {alias.name} is imported and not used")
    return not missing, "\n".join(missing)


def is_local(tree, node):
    """Whether a function stands inside another one."""
    import ast  # pylint: disable=import-outside-toplevel

    return any(
        isinstance(outer, ast.FunctionDef) and outer is not node and node in ast.walk(outer) for outer in ast.walk(tree)
    )


def codespell():
    """No misspelled word."""
    return run("codespell", "--ignore-words-list=statics,readin,openin,flushin,accessin,interruptin,iput,wronly,raed", *files("*", ":!*.lock", ":!*.json"))


def headers():
    """Every file names its licence and is short enough to be one subject."""
    wrong = []
    for name in files("*"):
        path = TOP / name
        text = path.read_bytes()
        if name.endswith((".lock", ".json", ".toml", "packages", "packages.build")) or not text or name.startswith("LICENSES/"):
            continue
        if b"SPDX-License-Identifier: GPL-2.0" not in text[:2000] and name not in ("COPYING", "LICENSE"):
            wrong.append(f"{name}: no SPDX line")
        if text.count(b"\n") > LONGEST:
            wrong.append(f"{name}: {text.count(10)} lines, more than {LONGEST}")
        if re.search(rb"[ \t]+$", text, re.M) and not name.endswith(".md"):
            wrong.append(f"{name}: space at the end of a line")
    return not wrong, "\n".join(wrong)


def floors_and_circles():
    """Files of the driver use their own floor and those below, and few files use each other in a circle."""
    wrong = floors.check()
    return not wrong, "\n".join(wrong)


CHECKS = {
    "headers": headers,
    "floors": floors_and_circles,
    "python": python,
    "shellcheck": shellcheck,
    "codespell": codespell,
    "checkpatch": checkpatch,
    "rustfmt": rustfmt,
    "host-clippy": host_clippy,
    "host-rustdoc": host_rustdoc,
    "clippy": clippy,
    "rustdoc": rustdoc,
}


def timed(name):
    """Runs a check; returns (name, passed, what it printed, seconds)."""
    start = time.monotonic()
    return name, *CHECKS[name](), time.monotonic() - start


def main():
    """Parses the arguments."""
    names = "\n".join(f"  {name:<14}{check.__doc__}" for name, check in CHECKS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nchecks:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=CHECKS, help="only this check; may be repeated")
    args = parser.parse_args()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, good, output, seconds in pool.map(timed, args.only or CHECKS):
            if not good:
                print(output.rstrip())
            print(f"-- {name:<44}{'ok' if good else 'FAILED':>8}{seconds:8.1f} s", flush=True)
            failed += not good
    print(f"{len(args.only or CHECKS) - failed} checks passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
