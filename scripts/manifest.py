#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Reads a whole tree and prints what it holds: one JSON list a line, sorted by name, for every entry under DIRECTORY.

A directory gives [name, "dir"], a symbolic link [name, "link", target], a file [name, "file", size, SHA-256], anything else
[name, "other", its file type]. Sockets and devices are not opened. Names that are no UTF-8 keep their bytes as JSON escapes.
The same program runs on both sides, so it uses Python's own library alone.
"""

import argparse
import hashlib
import itertools
import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

CHUNK = 1 << 20


def describe(entry):
    """What one entry is: entry is (path, name)."""
    path, name = entry
    info = os.lstat(path)
    if stat.S_ISDIR(info.st_mode):
        return [name, "dir"]
    if stat.S_ISLNK(info.st_mode):
        return [name, "link", os.readlink(path)]
    if not stat.S_ISREG(info.st_mode):
        return [name, "other", stat.S_IFMT(info.st_mode)]
    total = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
            size += len(chunk)
    return [name, "file", size, total.hexdigest()]


def entries(top):
    """The paths and names of everything under a directory, links not followed."""
    for directory, names, files in os.walk(top, onerror=fail):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            yield path, os.path.relpath(path, top)


def fail(error):
    """A directory that cannot be read is an error, not an empty directory."""
    raise error


def batches(items, size):
    """Lists of at most `size` items."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def manifest(top, jobs, forget_every=0):
    """The entries of a tree, described and sorted."""
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for batch in batches(entries(top), forget_every or 4096):
            found += pool.map(describe, batch)
            if forget_every:
                with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
                    drop.write("2")
    return sorted(found)


def main():
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="files read at a time")
    parser.add_argument("--forget-every", type=int, default=0, metavar="N", help="drop the kernel's inodes every N entries")
    parser.add_argument("directory")
    args = parser.parse_args()
    for entry in manifest(args.directory, args.jobs, args.forget_every):
        sys.stdout.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
