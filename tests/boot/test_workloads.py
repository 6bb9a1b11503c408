# SPDX-License-Identifier: GPL-2.0
"""Large programs on a share: builds, a package manager, loads that check their data. Their results are those of a local ext4."""

import hashlib

import pytest
import tools
from guest import Share

# A Debian base system as a share holds /mnt/base, and the local disk /run/local/base.
PLACES = ("/run/local", "/mnt")


@pytest.fixture
def workshop(boot, tree, tmp_path):
    """A guest with the tools, a share on /mnt and an ext4 on /run/local: workshop(base=True) puts a Debian into both."""

    def start(*daemon_args, base=False):
        local = tmp_path / "local"
        local.mkdir()
        if base:
            for place in (tree.path, local):
                tools.unpack(tools.debian("guest-base", ["apt"]), place / "base")
        disk = tools.disk(tmp_path / "disk", local)
        drives = tools.drive(0, tools.tools_image(), readonly=True) + tools.drive(1, disk)
        share = Share(tree.path, "share", daemon_args=["--xattr", *daemon_args])
        # What was built on the share runs from there.
        guest = boot(share, programs=True, qemu_args=drives)
        guest.mount("share", "/mnt")
        guest.run("mkdir -p /run/local && mount /dev/vdd /run/local")
        tools.use_tools(guest)
        return guest

    return start


PROJECT = """
set -e
cd $1
mkdir project
cd project
for n in $(seq 30); do
	mkdir -p part$((n % 5))
	printf '#include "all.h"\\nint f%s(int x) { return x * %s + 1; }\\n' $n $n >part$((n % 5))/f$n.c
	echo "int f$n(int);" >>all.h
done
{
	printf '#include <stdio.h>\\n#include "all.h"\\nint main(void) { int x = 0;\\n'
	for n in $(seq 30); do echo "x = f$n(x) % 65521;"; done
	printf 'printf("%%d\\\\n", x); return 0; }\\n'
} >main.c
cat >Makefile <<'END'
SOURCES := $(wildcard part*/*.c)
OBJECTS := $(SOURCES:.c=.o)
CFLAGS := -O1 -I. -MMD
program: main.o libparts.a
	$(CC) -o $@ $^
libparts.a: $(OBJECTS)
	$(AR) rcsD $@ $^
-include $(OBJECTS:.o=.d)
END
make -s -j2
./program
# Nothing is to do, and then what a changed time tells.
make -q && echo nothing to do
touch all.h
make -q || echo something to do
make -s -j2
sha256sum main.c libparts.a program part*/*.d
make -n -W main.c | wc -l
"""

RUST = """
set -e
cd $1
cat >sum.rs <<'END'
use std::collections::BTreeMap;
fn main() {
    let mut seen = BTreeMap::new();
    for n in 0..1000u64 { *seen.entry(n * n % 97).or_insert(0u64) += n; }
    println!("{:?}", seen.iter().max_by_key(|(_, sum)| **sum));
}
END
rustc -O -C codegen-units=2 sum.rs
./sum
"""


@pytest.mark.parametrize("script", [PROJECT, RUST], ids=["c", "rust"])
def test_build(workshop, script):
    """A program is built on the share by make and gcc, or rustc, as it is on a local disk, and runs from there."""
    guest = workshop("--cache=auto")
    guest.put(script, "/run/build.sh")
    results = [tools.tool(guest, f"sh /run/build.sh {place}", timeout=300).stdout for place in PLACES]
    assert results[0] == results[1]
    assert results[0]


INSTALL = """
set -e
base=$1
mkdir -p $base/debs $base/dev
cp /mnt/debs/*.deb $base/debs
mount --rbind /dev $base/dev
mount -t proc proc $base/proc
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot $base sh -ec '
apt-get -qq -y -o Dpkg::Use-Pty=0 install /debs/*.deb
dpkg --audit
dpkg --verify
file --brief /bin/ls
apt-get -qq -y -o Dpkg::Use-Pty=0 purge ed
apt-get -qq -y -o Dpkg::Use-Pty=0 reinstall /debs/less*.deb
dpkg --verify
dpkg-query --show
'
umount $base/proc
umount -l $base/dev
"""

# Everything about a tree that two installations have in common: not what logs and caches say, nor times other than those that
# archives have.
MANIFEST = """
import hashlib, json, os, stat, sys
base = sys.argv[1]
found = {}
links = {}
for path, directories, files in os.walk(base):
    for name in directories + files:
        full = os.path.join(path, name)
        short = os.path.relpath(full, base)
        if short.startswith(("var/log", "var/cache", "debs", "var/lib/apt", "var/lib/dpkg/lock", "tmp")) or short.endswith("-old"):
            continue
        at = os.lstat(full)
        row = [oct(at.st_mode), at.st_uid, at.st_gid, sorted(os.listxattr(full, follow_symlinks=False))]
        if stat.S_ISREG(at.st_mode):
            row += [at.st_size, at.st_nlink, hashlib.sha1(open(full, "rb").read()).hexdigest()]
            if short.startswith("usr/share"):
                row.append(at.st_mtime_ns)
        elif stat.S_ISLNK(at.st_mode):
            row.append(os.readlink(full))
        found[short] = row
print(json.dumps(found))
"""


def test_package_manager(workshop, tree):
    """apt and dpkg install, verify, replace and purge packages in a Debian on the share: every file is as on a local disk."""
    (tree / "debs").mkdir()
    for deb in tools.debs().glob("*.deb"):
        (tree / "debs" / deb.name).write_bytes(deb.read_bytes())
    guest = workshop("--cache=auto", base=True)
    guest.put(INSTALL, "/run/install.sh")
    said = [guest.run(f"sh /run/install.sh {place}/base", timeout=500).stdout for place in PLACES]
    assert said[0] == said[1]
    assert "ELF 64-bit" in said[1]
    for path in ("var/lib/dpkg/status", "usr/share/zoneinfo/Europe/Berlin"):
        guest.run(f"cmp {PLACES[0]}/base/{path} {PLACES[1]}/base/{path}")
    # The answer is longer than the agent takes.
    for number, place in enumerate(PLACES):
        guest.python(f"import sys\nsys.stdout = open('/run/manifest{number}', 'w')\n{MANIFEST}", f"{place}/base", timeout=120)
    compare = """
import json
a, b = (json.load(open(f"/run/manifest{n}")) for n in range(2))
print(json.dumps([len(a), {name: [a.get(name), b.get(name)] for name in a.keys() | b.keys() if a.get(name) != b.get(name)}]))
"""
    count, different = guest.value(compare)
    assert count > 3000
    assert different == {}


FIO = """
[global]
directory=${PLACE}
size=6M
verify=crc32c
verify_fatal=1
verify_backlog=64
randseed=17
fallocate=none
group_reporting=0

[cached]
ioengine=psync
rw=randwrite
bsrange=512-64k
blockalign=512
numjobs=2

[appended]
ioengine=psync
rw=write
bs=3000
fsync=32

[direct]
ioengine=libaio
iodepth=8
direct=1
rw=randrw
bs=4k

[rings]
ioengine=io_uring
iodepth=8
rw=randwrite
bs=16k

[mapped]
filename=mapped
ioengine=mmap
rw=randwrite
bs=4k
size=4M

; With another offset, jobs of this engine write to the place of others, on any filesystem.
[together-mapped]
filename=together
ioengine=mmap
rw=randwrite
bs=4k
size=2M

[together-cached]
filename=together
ioengine=psync
rw=randwrite
bs=4k
offset=2M
size=2M

[together-direct]
filename=together
ioengine=libaio
iodepth=4
direct=1
rw=randwrite
bs=4k
offset=4M
size=2M
"""


@pytest.mark.parametrize(
    "daemon", ["--cache=auto", "--cache=always --allow-direct-io", "--cache=never --allow-mmap", "--cache=auto --writeback"]
)
def test_fio(workshop, tree, daemon):
    """Random and sequential writes, cached, direct, mapped and mixed, of several jobs, are read back as written, then and later."""
    # Files that are mapped have their size before.
    tree.file("fio/mapped", 4 << 20)
    tree.file("fio/together", 6 << 20)
    guest = workshop(*daemon.split())
    guest.put(FIO, "/run/jobs.fio")
    command = "cd /run && PLACE=/mnt/fio fio --thread --output-format=json --output=/run/fio.json /run/jobs.fio"
    result = tools.tool(guest, command, timeout=300, check=False)
    errors = guest.value("import json\njobs = json.load(open('/run/fio.json'))['jobs']\nprint(json.dumps([job['error'] for job in jobs]))")
    assert (result.rc, result.stderr, errors) == (0, "", [0] * 9)
    sums = "cd /mnt/fio && sha256sum *"
    cached = guest.out(sums)
    assert len(cached.splitlines()) == 7
    guest.run(f"umount {tools.TOOLS}/mnt && umount /mnt && mount -t virtiofs share /mnt")
    assert guest.out(sums) == cached
    on_host = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted((tree / "fio").iterdir())]
    assert on_host == cached.splitlines()


# Each stressor of the class, with a few operations that it checks itself, in an empty directory. What its count does not end, the time
# does; cleaning up afterwards may take longer.
STRESS = """
mkdir $1/stress
for name in $(stress-ng --class 'filesystem?' | sed 's/.*: //'); do
	timeout -s KILL 200 stress-ng --$name 2 --$name-ops 20 --timeout 3 --verify --temp-path $1/stress --oom-avoid --quiet >/run/said 2>&1
	status=$?
	echo $name $status
	[ $status -eq 0 ] || cat /run/said >&2
done
ls -A $1/stress
"""


def test_stress(workshop):
    """Stressors of filesystems find no fault, and end as on a local disk."""
    guest = workshop("--cache=auto")
    guest.put(STRESS, "/run/stress.sh")
    local, shared = (tools.tool(guest, f"sh /run/stress.sh {place}", timeout=1500) for place in PLACES)
    assert shared.stdout == local.stdout, shared.stderr
    assert len(local.stdout.splitlines()) > 50
