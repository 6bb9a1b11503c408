#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows which files of a Rust crate use each other, and checks the floors of the driver.

A file uses another one by a path that begins with crate:: or super::; KUnit suites and tests are left out. A circle is a set of
files of which each uses every other one, directly or not. In all crates of the module no circle has more than four files, but for
those that --help lists at the end. In drivers/virtiofs, folders are floors, from the bottom as FLOORS lists them: a file uses its
own floor and those below. Exit code 1 when a rule is broken.
"""

import argparse
import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
DRIVER = "drivers/virtiofs"
# Crates of the module, with the largest circle that each may have.
LARGEST = {DRIVER: 4, "rust/dax_map": 4, "rust/fuse_proto": 4, "rust/kernel_ext": 4, "rust/vfs": 12, "rust/virtio": 4}
# Floors of the driver, from the bottom. "filesystem" and "gate" are files.
FLOORS = ["transport", "session", "filesystem", "gate", "dax", "volume", "inode", "contents", "metadata", "names", "mount"]


def modules(crate):
    """The files of a crate by the path of their module, without the crate's root and tests."""
    found = {}
    for file in sorted(crate.rglob("*.rs")):
        parts = list(file.relative_to(crate).with_suffix("").parts)
        if "tests" in parts or "benches" in parts or parts == [crate.name]:
            continue
        if parts[-1] == "mod":
            parts.pop()
        found["::".join(parts)] = file
    return found


def group(text, prefix=""):
    """The paths of a use declaration, nested groups taken apart."""
    depth, part = 0, ""
    for char in text + ",":
        depth += (char == "{") - (char == "}")
        if char != "," or depth:
            part += char
            continue
        head, brace, rest = part.strip().partition("{")
        if brace:
            yield from group(rest.rpartition("}")[0], prefix + head)
        elif head:
            yield prefix + head.split(" as ")[0].strip()
        part = ""


def paths(text):
    """The paths of a file that begin with crate:: or super::, outside of tests and comments."""
    text = re.split(r"#\[cfg\((?:VIRTIOFS_KUNIT|test)\)\]\s*(?:#\[[^\]]*\]\s*)*mod ", text)[0]
    text = re.sub(r"//.*", "", text)
    for body in re.findall(r"\buse\s+((?:crate|super)::[^;]*);", text):
        yield from group(body)
    yield from re.findall(r"\b(?:crate|super)(?:::\w+)+", re.sub(r"\buse\s[^;]*;", "", text))


def uses(crate):
    """For each module of a crate, the modules that it uses."""
    known = modules(crate)
    graph = {}
    for module, file in known.items():
        # Of a mod.rs, super:: is the folder above; of another file, its own.
        above = module.split("::")[:-1]
        graph[module] = set()
        for path in paths(file.read_text(encoding="utf-8")):
            first, *rest = [part for part in path.split("::") if part not in ("self", "*")]
            rest = rest if first == "crate" else above + rest
            while rest and "::".join(rest) not in known:
                rest.pop()
            if rest and "::".join(rest) != module:
                graph[module].add("::".join(rest))
    return graph


def circles(graph):
    """Sets of modules that use each other, the largest first."""

    def reached(start):
        seen, left = set(), [start]
        while left:
            for module in graph[left.pop()] - seen:
                seen.add(module)
                left.append(module)
        return seen

    reach = {module: reached(module) for module in graph}
    found = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph if module in reach[module]}
    return sorted((sorted(circle) for circle in found), key=lambda circle: (-len(circle), circle))


def upwards(graph):
    """Uses of a higher floor, as lines of text."""
    wrong = []
    for module, used in graph.items():
        floor = module.split("::")[0]
        if floor not in FLOORS:
            wrong.append(f"{module}: no floor; it belongs into a folder")
            continue
        wrong += [f"{module} uses {other}, which is above" for other in sorted(used) if FLOORS.index(other.split("::")[0]) > FLOORS.index(floor)]
    return wrong


def check(top=TOP):
    """The rules that are broken, as lines of text."""
    wrong = []
    for name, largest in LARGEST.items():
        graph = uses(top / name)
        wrong += [f"{name}: a circle of {len(found)}: {', '.join(found)}" for found in circles(graph) if len(found) > largest]
        if name == DRIVER:
            wrong += [f"{name}: {line}" for line in upwards(graph)]
    return wrong


def main():
    """Parses the arguments."""
    limits = ", ".join(f"{name}: {largest}" for name, largest in LARGEST.items() if largest > 4)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nlarger circles: {limits or 'none'}\nfloors: {' < '.join(FLOORS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("crate", nargs="?", help=f"show what each file of this crate uses, and its circles, e.g. {DRIVER}")
    args = parser.parse_args()
    if args.crate:
        graph = uses(TOP / args.crate)
        for module, used in graph.items():
            if used:
                print(f"{module} -> {', '.join(sorted(used))}")
        for found in circles(graph):
            print(f"circle of {len(found)}: {', '.join(found)}")
    wrong = check()
    print("\n".join(wrong) or "all floors and circles as they are to be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
