// SPDX-License-Identifier: GPL-2.0

//! The cases: one table, and the three things that can be done with each.

use std::fs;
use std::path::Path;

use crate::data::{self, Mode, Order, Read, Write};
use crate::gate::{Caches, Gate};
use crate::names::{self, Op};
use crate::{trees, Failure, Named, Site};

use Caches::{Cold, Warm};
use Order::{Random, Sequential};

const KIB4: usize = 4 << 10;
const MIB: usize = 1 << 20;

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

/// All cases.
#[rustfmt::skip]
pub const CASES: [Case; 31] = [
    read("read-seq-4k", "read of 4 KiB in order, cold", Read::of(Sequential, KIB4).ops(16384)),
    read("read-seq-1m", "read of 1 MiB in order, cold", Read::of(Sequential, MIB).ops(64)),
    read("read-rand-4k", "read of 4 KiB anywhere, cold", Read::of(Random, KIB4).ops(1024)),
    read("read-rand-1m", "read of 1 MiB anywhere, cold", Read::of(Random, MIB).ops(64)),
    read("read-seq-4k-direct", "O_DIRECT read of 4 KiB in order", Read::of(Sequential, KIB4).ops(1024).direct()),
    read("read-seq-1m-direct", "O_DIRECT read of 1 MiB in order", Read::of(Sequential, MIB).ops(64).direct()),
    read("read-rand-4k-direct", "O_DIRECT read of 4 KiB anywhere", Read::of(Random, KIB4).ops(1024).direct()),
    read("read-rand-1m-direct", "O_DIRECT read of 1 MiB anywhere", Read::of(Random, MIB).ops(64).direct()),
    read("read-rand-4k-direct-4", "the same by 4 threads", Read::of(Random, KIB4).ops(2048).direct().jobs(4)),
    read("reread-seq-4k", "read of 4 KiB in order, cached", Read::of(Sequential, KIB4).ops(16384).warm()),
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

/// Makes what cases only read.
pub fn make_assets(assets: &Path, scale: f64) -> Result<(), Failure> {
    let site = Site {
        assets: assets.into(),
        work: assets.into(),
        scale,
    };
    fs::create_dir_all(assets).named(assets)?;
    data::make_assets(&site)?;
    names::make_assets(&site)?;
    trees::make_assets(&site)
}

impl Case {
    /// What the contents of this case's files are made of.
    fn seed(&self) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325_u64;
        self.name.bytes().fold(start, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
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
