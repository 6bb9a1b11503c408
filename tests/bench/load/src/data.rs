// SPDX-License-Identifier: GPL-2.0

//! Reading and writing one large file.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use crate::cases::Done;
use crate::gate::{Caches, Gate};
use crate::pattern::{self, Aligned};
use crate::{Failure, Named, Site};

/// On x86-64.
const O_DIRECT: i32 = 0o40000;
const MIB: usize = 1 << 20;
/// The file that is read has so many MiB.
const DATA_MIB: usize = 64;
const DATA_SEED: u64 = 1;

/// In which order the blocks are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the start on.
    Sequential,
    /// Each block once, anywhere.
    Random,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Over what is there.
    Overwrite,
    /// An empty file grows.
    Grow,
    /// Over what is there, with an fsync after each write.
    Fsync,
}

/// A case that reads.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    order: Order,
    block: usize,
    ops: usize,
    direct: bool,
    caches: Caches,
    jobs: usize,
}

/// A case that writes.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    order: Order,
    block: usize,
    ops: usize,
    direct: bool,
    mode: Mode,
}

/// Makes the file that is read.
pub fn make_assets(site: &Site) -> Result<(), Failure> {
    let path = data_path(site);
    let file = File::create(&path).named(&path)?;
    let mut buffer = vec![0; MIB];
    for mib in 0..site.ops(DATA_MIB) {
        let offset = (mib * MIB) as u64;
        pattern::fill(&mut buffer, offset, DATA_SEED);
        file.write_all_at(&buffer, offset).named(&path)?;
    }
    Ok(())
}

fn data_path(site: &Site) -> PathBuf {
    site.assets.join("data")
}

/// The blocks that are visited: at most `ops` of the `count` that there are.
fn blocks(order: Order, count: usize, ops: usize) -> Vec<usize> {
    let mut blocks = match order {
        Order::Sequential => (0..count).collect(),
        Order::Random => pattern::shuffled(count),
    };
    blocks.truncate(ops);
    blocks
}

fn open(path: &Path, write: bool, direct: bool) -> Result<File, Failure> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(if direct { O_DIRECT } else { 0 })
        .open(path)
        .named(path)
}

impl Read {
    /// Reads of whole blocks.
    pub const fn of(order: Order, block: usize) -> Self {
        Read {
            order,
            block,
            ops: 0,
            direct: false,
            caches: Caches::Cold,
            jobs: 1,
        }
    }

    /// So many for a scale of 1.
    pub const fn ops(self, ops: usize) -> Self {
        Read { ops, ..self }
    }

    /// Past the page cache.
    pub const fn direct(self) -> Self {
        Read {
            direct: true,
            ..self
        }
    }

    /// From the page cache.
    pub const fn warm(self) -> Self {
        Read {
            caches: Caches::Warm,
            ..self
        }
    }

    /// By so many threads.
    pub const fn jobs(self, jobs: usize) -> Self {
        Read { jobs, ..self }
    }

    /// Reads the blocks, each thread its share of them.
    fn read_blocks(&self, file: &File, blocks: &[usize]) -> Result<(), Failure> {
        if self.jobs == 1 {
            return self.read_each(file, blocks);
        }
        thread::scope(|scope| {
            let share = blocks.len().div_ceil(self.jobs).max(1);
            let threads: Vec<_> = blocks
                .chunks(share)
                .map(|blocks| scope.spawn(|| self.read_each(file, blocks)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| "a thread panicked".to_string())?
            })
        })
    }

    fn read_each(&self, file: &File, blocks: &[usize]) -> Result<(), Failure> {
        let mut buffer = Aligned::new(self.block);
        for block in blocks {
            let offset = (block * self.block) as u64;
            file.read_exact_at(buffer.bytes(), offset)
                .map_err(|error| format!("read at {offset}: {error}"))?;
            pattern::check_ends(buffer.bytes(), offset, DATA_SEED)?;
        }
        Ok(())
    }

    /// Runs the case.
    pub fn run(&self, site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
        let path = data_path(site);
        let count = site.ops(DATA_MIB) * MIB / self.block;
        let blocks = blocks(self.order, count, site.ops(self.ops));
        let file = open(&path, false, self.direct)?;
        match self.caches {
            Caches::Cold => {
                self.read_blocks(&file, &blocks[..Site::warm_up(blocks.len())])?;
                drop(file);
                gate.begin(Caches::Cold)?;
                self.read_blocks(&open(&path, false, self.direct)?, &blocks)?;
            }
            Caches::Warm => {
                // Opening a file may end what is cached of it: the file stays open.
                self.read_blocks(&file, &blocks)?;
                gate.begin(Caches::Warm)?;
                self.read_blocks(&file, &blocks)?;
            }
        }
        gate.end()?;
        Ok(Done {
            ops: blocks.len(),
            bytes: blocks.len() * self.block,
        })
    }
}

impl Write {
    /// Writes of whole blocks.
    pub const fn of(order: Order, block: usize) -> Self {
        Write {
            order,
            block,
            ops: 0,
            direct: false,
            mode: Mode::Overwrite,
        }
    }

    /// So many for a scale of 1.
    pub const fn ops(self, ops: usize) -> Self {
        Write { ops, ..self }
    }

    /// Past the page cache.
    pub const fn direct(self) -> Self {
        Write {
            direct: true,
            ..self
        }
    }

    /// In another way than over what is there.
    pub const fn mode(self, mode: Mode) -> Self {
        Write { mode, ..self }
    }

    fn path(site: &Site) -> PathBuf {
        site.work.join("out")
    }

    /// The file for what is written before the timing starts.
    fn warm_up_path(site: &Site) -> PathBuf {
        site.work.join("warm")
    }

    /// Makes the files that are written, full of zeros that are really there, or empty.
    pub fn prepare(&self, site: &Site) -> Result<(), Failure> {
        let ops = site.ops(self.ops);
        for (path, ops) in [
            (Self::path(site), ops),
            (Self::warm_up_path(site), Site::warm_up(ops)),
        ] {
            let len = if self.mode == Mode::Grow {
                0
            } else {
                ops * self.block
            };
            fs::write(&path, vec![0; len]).named(path)?;
        }
        Ok(())
    }

    fn write_blocks(&self, path: &Path, blocks: &[usize], seed: u64) -> Result<(), Failure> {
        let file = open(path, true, self.direct)?;
        let mut buffer = Aligned::new(self.block);
        for block in blocks {
            let offset = (block * self.block) as u64;
            pattern::fill(buffer.bytes(), offset, seed);
            file.write_all_at(buffer.bytes(), offset)
                .map_err(|error| format!("write at {offset}: {error}"))?;
            if self.mode == Mode::Fsync {
                file.sync_all().named("fsync")?;
            }
        }
        Ok(())
    }

    /// Runs the case.
    pub fn run(&self, site: &Site, gate: &mut Gate<'_>, seed: u64) -> Result<Done, Failure> {
        let ops = site.ops(self.ops);
        let before = blocks(self.order, Site::warm_up(ops), ops);
        self.write_blocks(&Self::warm_up_path(site), &before, seed)?;
        let blocks = blocks(self.order, ops, ops);
        gate.begin(Caches::Cold)?;
        self.write_blocks(&Self::path(site), &blocks, seed)?;
        gate.end()?;
        Ok(Done {
            ops,
            bytes: ops * self.block,
        })
    }

    /// Checks that the file holds what was written, and nothing else.
    pub fn verify(&self, site: &Site, seed: u64) -> Result<(), Failure> {
        let path = Self::path(site);
        let file = File::open(&path).named(&path)?;
        let len = site.ops(self.ops) * self.block;
        let mut buffer = vec![0; MIB];
        let mut offset = 0;
        loop {
            let got = match file.read_at(&mut buffer, offset as u64) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.named(&path)?,
            };
            if got == 0 {
                break;
            }
            pattern::check(&buffer[..got], offset as u64, seed)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            offset += got;
        }
        if offset != len {
            return Err(format!(
                "{}: {offset} bytes instead of {len}",
                path.display()
            ));
        }
        Ok(())
    }
}
