// SPDX-License-Identifier: GPL-2.0

//! The cases: one table, and the three things that can be done with each.

use std::fs;

use crate::data::{Mode, Order, Read, Write};
use crate::files::Files;
use crate::gate::{Caches, Gate};
use crate::names::{self, Op};
use crate::{pattern, trees, Failure, Named, Site};

use Caches::{Cold, Warm};
use Order::{Random, Sequential};

const KIB4: usize = 4 << 10;
const KIB16: usize = 16 << 10;
const MIB: usize = 1 << 20;

/// The large file of most cases.
const DATA: Files = Files::scaled("data", 64 * MIB);

/// Files of half, four times and eight times the window that `make bench-dax` has, of 64 MiB.
const INSIDE: Files = Files::fixed("inside", 1, 32 * MIB);
const FOURFOLD: Files = Files::fixed("4x", 1, 256 * MIB);
const EIGHTFOLD: Files = Files::fixed("8x", 1, 512 * MIB);
const HUNDRED: Files = Files::fixed("100", 100, 10 * MIB);
const TINY: Files = Files::fixed("400", 400, KIB16);

/// What a case does.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Reads one large file.
    Read(Read),
    /// Writes one large file.
    Write(Write),
    /// Does something with many small files.
    Names(Op),
    /// Visits a tree, and asks for the attributes of everything in it.
    Walk(Caches),
    /// Lists a directory.
    List,
    /// Unpacks an archive.
    Untar,
}

/// A case.
#[derive(Debug)]
pub struct Case {
    /// Its name, also that of its directory.
    pub name: &'static str,
    /// Cases of a group are run without unloading the driver in between.
    pub group: &'static str,
    /// What an operation is, in a few words.
    pub about: &'static str,
    kind: Kind,
}

/// What a case did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Operations, of the kind that `about` names.
    pub ops: usize,
    /// Bytes of contents read or written.
    pub bytes: usize,
}

const fn read(name: &'static str, about: &'static str, read: Read) -> Case {
    Case {
        name,
        group: "read",
        about,
        kind: Kind::Read(read),
    }
}

const fn write(name: &'static str, about: &'static str, write: Write) -> Case {
    Case {
        name,
        group: "write",
        about,
        kind: Kind::Write(write),
    }
}

const fn names(name: &'static str, about: &'static str, op: Op) -> Case {
    Case {
        name,
        group: "names",
        about,
        kind: Kind::Names(op),
    }
}

const fn tree(name: &'static str, about: &'static str, kind: Kind) -> Case {
    Case {
        name,
        group: "tree",
        about,
        kind,
    }
}

/// The cases of `make bench`.
#[rustfmt::skip]
const CASES: [Case; 31] = [
    read("read-seq-4k", "read of 4 KiB in order, cold", Read::of(DATA, Sequential, KIB4).ops(16384)),
    read("read-seq-1m", "read of 1 MiB in order, cold", Read::of(DATA, Sequential, MIB).ops(64)),
    read("read-rand-4k", "read of 4 KiB anywhere, cold", Read::of(DATA, Random, KIB4).ops(1024)),
    read("read-rand-1m", "read of 1 MiB anywhere, cold", Read::of(DATA, Random, MIB).ops(64)),
    read("read-seq-4k-direct", "O_DIRECT read of 4 KiB in order", Read::of(DATA, Sequential, KIB4).ops(1024).direct()),
    read("read-seq-1m-direct", "O_DIRECT read of 1 MiB in order", Read::of(DATA, Sequential, MIB).ops(64).direct()),
    read("read-rand-4k-direct", "O_DIRECT read of 4 KiB anywhere", Read::of(DATA, Random, KIB4).ops(1024).direct()),
    read("read-rand-1m-direct", "O_DIRECT read of 1 MiB anywhere", Read::of(DATA, Random, MIB).ops(64).direct()),
    read("read-rand-4k-direct-4", "the same by 4 threads", Read::of(DATA, Random, KIB4).ops(2048).direct().jobs(4)),
    read("reread-seq-4k", "read of 4 KiB in order, cached", Read::of(DATA, Sequential, KIB4).ops(16384).warm()),
    write("write-seq-4k", "write of 4 KiB in order", Write::of(Sequential, KIB4).ops(1024)),
    write("write-seq-1m", "write of 1 MiB in order", Write::of(Sequential, MIB).ops(48)),
    write("write-rand-4k", "write of 4 KiB anywhere", Write::of(Random, KIB4).ops(1024)),
    write("write-rand-1m", "write of 1 MiB anywhere", Write::of(Random, MIB).ops(48)),
    write("write-seq-4k-direct", "O_DIRECT write of 4 KiB in order", Write::of(Sequential, KIB4).ops(1024).direct()),
    write("write-seq-1m-direct", "O_DIRECT write of 1 MiB in order", Write::of(Sequential, MIB).ops(48).direct()),
    write("write-rand-4k-direct", "O_DIRECT write of 4 KiB anywhere", Write::of(Random, KIB4).ops(1024).direct()),
    write("write-rand-1m-direct", "O_DIRECT write of 1 MiB anywhere", Write::of(Random, MIB).ops(48).direct()),
    write("write-grow-4k", "write of 4 KiB at the end of the file", Write::of(Sequential, KIB4).ops(1024).mode(Mode::Grow)),
    write("write-fsync-4k", "write of 4 KiB and fsync", Write::of(Sequential, KIB4).ops(512).mode(Mode::Fsync)),
    names("stat", "lstat of a file, cold", Op::Stat(Cold)),
    names("stat-cached", "lstat of a file, cached", Op::Stat(Warm)),
    names("open-close", "open and close of a file, cold", Op::Open),
    names("read-small", "open, read and close of a file of 4 KiB, cold", Op::Read),
    names("create", "creation of a file with 1 KiB in it", Op::Create),
    names("rename", "renaming of a file, cold", Op::Rename),
    names("unlink", "removal of a file, cold", Op::Unlink),
    tree("list", "entry of a directory that is listed, cold", Kind::List),
    tree("walk", "entry of a tree that is listed and lstatted, cold", Kind::Walk(Cold)),
    tree("walk-again", "the same right after", Kind::Walk(Warm)),
    tree("untar", "entry of an archive that tar unpacks", Kind::Untar),
];

const fn window(name: &'static str, group: &'static str, about: &'static str, read: Read) -> Case {
    Case {
        name,
        group,
        about,
        kind: Kind::Read(read),
    }
}

const fn run(name: &'static str, about: &'static str, kind: Kind) -> Case {
    Case {
        name,
        group: "run",
        about,
        kind,
    }
}

/// The cases of `make bench-dax`. Those of the group "tiny" have half of the window.
#[rustfmt::skip]
const DAX_CASES: [Case; 21] = [
    window("in-rand-4k", "inside", "read of 4 KiB anywhere in half a window, mapped before", Read::of(INSIDE, Random, KIB4).ops(32768).warm()),
    window("in-rand-4k-4", "inside", "the same by 4 threads", Read::of(INSIDE, Random, KIB4).ops(32768).warm().jobs(4)),
    window("in-map-4k", "inside", "the same by one thread, from a mapping", Read::of(INSIDE, Random, KIB4).ops(262_144).warm().mapped()),
    window("4x-rand-4k", "beyond", "read of 4 KiB anywhere in four windows, cold", Read::of(FOURFOLD, Random, KIB4).ops(16384)),
    window("8x-rand-4k", "beyond", "read of 4 KiB anywhere in eight windows, cold", Read::of(EIGHTFOLD, Random, KIB4).ops(16384)),
    window("8x-rand-4k-4", "beyond", "the same by 4 threads", Read::of(EIGHTFOLD, Random, KIB4).ops(16384).jobs(4)),
    window("100-rand-4k", "beyond", "read of 4 KiB anywhere in 100 files of 10 MiB, cold", Read::of(HUNDRED, Random, KIB4).ops(16384)),
    window("4x-map-4k", "faults", "copy of 4 KiB from a mapping of four windows, cold", Read::of(FOURFOLD, Random, KIB4).ops(1024).mapped()),
    window("8x-map-4k", "faults", "copy of 4 KiB from a mapping of eight windows, cold", Read::of(EIGHTFOLD, Random, KIB4).ops(1024).mapped()),
    window("8x-map-4k-4", "faults", "the same by 4 threads", Read::of(EIGHTFOLD, Random, KIB4).ops(1024).mapped().jobs(4)),
    run("in-seq-4k", "read of 4 KiB in order, of half a window four times", Kind::Read(Read::of(INSIDE, Sequential, KIB4).ops(32768))),
    run("in-seq-1m", "read of 1 MiB in order, of half a window four times", Kind::Read(Read::of(INSIDE, Sequential, MIB).ops(128))),
    run("4x-seq-4k", "read of 4 KiB in order, of four windows once", Kind::Read(Read::of(FOURFOLD, Sequential, KIB4).ops(65536))),
    run("4x-seq-1m", "read of 1 MiB in order, of four windows once", Kind::Read(Read::of(FOURFOLD, Sequential, MIB).ops(256))),
    run("4x-seq-map-4k", "copy of 4 KiB in order from a mapping of four windows", Kind::Read(Read::of(FOURFOLD, Sequential, KIB4).ops(65536).mapped())),
    run("4x-seq-1m-4", "the same by 4 threads, a quarter each", Kind::Read(Read::of(FOURFOLD, Sequential, MIB).ops(256).jobs(4))),
    run("in-write-4k", "write of 4 KiB in order, of half a window four times", Kind::Write(Write::of(Sequential, KIB4).ops(32768).len(32 * MIB))),
    run("in-write-1m", "write of 1 MiB in order, of half a window four times", Kind::Write(Write::of(Sequential, MIB).ops(128).len(32 * MIB))),
    run("4x-write-4k", "write of 4 KiB in order, of four windows once", Kind::Write(Write::of(Sequential, KIB4).ops(65536).len(256 * MIB))),
    run("4x-write-1m", "write of 1 MiB in order, of four windows once", Kind::Write(Write::of(Sequential, MIB).ops(256).len(256 * MIB))),
    window("400-files", "tiny", "read of one of 400 files of 16 KiB, each in turn, mapped before", Read::of(TINY, Sequential, KIB16).ops(3200).warm()),
];

/// The tables of cases, by name.
pub const SUITES: [(&str, &[Case]); 2] = [("bench", &CASES), ("bench-dax", &DAX_CASES)];

/// The cases of all suites.
pub fn all() -> impl Iterator<Item = &'static Case> {
    SUITES.iter().flat_map(|(_, cases)| cases.iter())
}

impl Case {
    /// What the contents of this case's files are made of.
    fn seed(&self) -> u64 {
        pattern::seed(self.name)
    }

    /// How many threads it has.
    pub fn jobs(&self) -> usize {
        match self.kind {
            Kind::Read(read) => read.threads(),
            _ => 1,
        }
    }

    /// Makes what the case only reads, unless another case has done so.
    pub fn make_assets(&self, site: &Site) -> Result<(), Failure> {
        fs::create_dir_all(&site.assets).named(&site.assets)?;
        match self.kind {
            Kind::Read(read) => read.make_assets(site),
            Kind::Write(_) => Ok(()),
            Kind::Names(_) | Kind::List => names::make_assets(site),
            Kind::Walk(_) | Kind::Untar => trees::make_assets(site),
        }
    }

    /// Makes what the case starts from.
    pub fn prepare(&self, site: &Site) -> Result<(), Failure> {
        fs::create_dir_all(&site.work).named(&site.work)?;
        match self.kind {
            Kind::Read(_) | Kind::Walk(_) | Kind::List => Ok(()),
            Kind::Write(write) => write.prepare(site),
            Kind::Names(op) => op.prepare(site),
            Kind::Untar => trees::prepare_untar(site),
        }
    }

    /// Runs it, between two passages of the gate.
    pub fn run(&self, site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
        match self.kind {
            Kind::Read(read) => read.run(site, gate),
            Kind::Write(write) => write.run(site, gate, self.seed()),
            Kind::Names(op) => op.run(site, gate),
            Kind::Walk(caches) => trees::walk_tree(site, gate, caches),
            Kind::List => trees::list(site, gate),
            Kind::Untar => trees::untar(site, gate),
        }
    }

    /// Checks what it left.
    pub fn verify(&self, site: &Site) -> Result<(), Failure> {
        match self.kind {
            Kind::Read(_) | Kind::Walk(_) | Kind::List => Ok(()),
            Kind::Write(write) => write.verify(site, self.seed()),
            Kind::Names(op) => op.verify(site),
            Kind::Untar => trees::verify_untar(site),
        }
    }
}
