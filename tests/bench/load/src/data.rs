// SPDX-License-Identifier: GPL-2.0

//! Reading and writing one large file.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::cases::Done;
use crate::files::{self, Files, Opened};
use crate::gate::{Caches, Gate};
use crate::map::Mapped;
use crate::pattern::{self, Aligned};
use crate::{Failure, Named, Site};

const MIB: usize = 1 << 20;

/// In which order the blocks are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the start on.
    Sequential,
    /// Each block once, anywhere.
    Random,
}

/// How contents are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By read(2).
    Read,
    /// By read(2) with O_DIRECT.
    Direct,
    /// From a mapping of the file.
    Map,
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
    files: Files,
    order: Order,
    block: usize,
    ops: usize,
    way: Way,
    caches: Caches,
    jobs: usize,
}

/// A case that writes.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    order: Order,
    block: usize,
    ops: usize,
    /// The file has so many bytes, whatever the number of operations.
    len: Option<usize>,
    direct: bool,
    mode: Mode,
}

/// The first `ops` of the `count` blocks that there are; when all were visited, they are once more.
fn blocks(order: Order, count: usize, ops: usize) -> Vec<usize> {
    let blocks = match order {
        Order::Sequential => (0..count).collect(),
        Order::Random => pattern::shuffled(count),
    };
    blocks.into_iter().cycle().take(ops).collect()
}

impl Read {
    /// Reads of whole blocks.
    pub const fn of(files: Files, order: Order, block: usize) -> Self {
        Read {
            files,
            order,
            block,
            ops: 0,
            way: Way::Read,
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
            way: Way::Direct,
            ..self
        }
    }

    /// From a mapping.
    pub const fn mapped(self) -> Self {
        Read {
            way: Way::Map,
            ..self
        }
    }

    /// Of what was read before.
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

    /// How many threads read.
    pub fn threads(self) -> usize {
        self.jobs
    }

    /// Opens the files, and maps them if that is the way.
    fn source(&self, site: &Site) -> Result<Source, Failure> {
        let way = if site.direct { Way::Direct } else { self.way };
        let opened = self.files.open(site, way == Way::Direct)?;
        let map = |file| Mapped::new(file, opened.bytes()).named("mmap");
        let maps: Result<_, _> = match way {
            Way::Map => opened.files().iter().map(map).collect(),
            Way::Read | Way::Direct => Ok(Vec::new()),
        };
        Ok(Source {
            maps: maps?,
            opened,
        })
    }

    /// Reads the blocks, each thread its share of them.
    fn read_blocks(&self, source: &Source, blocks: &[usize]) -> Result<(), Failure> {
        if self.jobs == 1 {
            return source.read_each(blocks, self.block);
        }
        thread::scope(|scope| {
            let share = blocks.len().div_ceil(self.jobs).max(1);
            let threads: Vec<_> = blocks
                .chunks(share)
                .map(|blocks| scope.spawn(|| source.read_each(blocks, self.block)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| "a thread panicked".to_string())?
            })
        })
    }

    /// Makes what is read.
    pub fn make_assets(&self, site: &Site) -> Result<(), Failure> {
        self.files.make(site)
    }

    /// Runs the case.
    pub fn run(&self, site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
        let count = self.files.blocks(site, self.block);
        let blocks = blocks(self.order, count, site.ops(self.ops));
        let source = self.source(site)?;
        match self.caches {
            Caches::Cold => {
                self.read_blocks(&source, &blocks[..Site::warm_up(blocks.len())])?;
                drop(source);
                gate.begin(Caches::Cold)?;
                self.read_blocks(&self.source(site)?, &blocks)?;
            }
            Caches::Warm => {
                // Opening a file may end what is cached of it: the file stays open.
                self.read_blocks(&source, &blocks[..count.min(blocks.len())])?;
                gate.begin(Caches::Warm)?;
                self.read_blocks(&source, &blocks)?;
            }
        }
        gate.end()?;
        Ok(Done {
            ops: blocks.len(),
            bytes: blocks.len() * self.block,
        })
    }
}

/// Files that are open, or mapped as well.
struct Source {
    /// None, or one for each file.
    maps: Vec<Mapped>,
    opened: Opened,
}

impl Source {
    /// Reads blocks and checks them.
    fn read_each(&self, blocks: &[usize], block: usize) -> Result<(), Failure> {
        let mut buffer = Aligned::new(block);
        for number in blocks {
            let (file, offset) = self.opened.place(*number, block);
            match self.maps.get(file) {
                Some(map) => map.read(buffer.bytes(), offset),
                None => self.opened.files()[file].read_exact_at(buffer.bytes(), offset),
            }
            .map_err(|error| format!("read at {offset}: {error}"))?;
            pattern::check_ends(buffer.bytes(), offset, self.opened.seed(file))?;
        }
        Ok(())
    }
}

impl Write {
    /// Writes of whole blocks.
    pub const fn of(order: Order, block: usize) -> Self {
        Write {
            order,
            block,
            ops: 0,
            len: None,
            direct: false,
            mode: Mode::Overwrite,
        }
    }

    /// So many for a scale of 1.
    pub const fn ops(self, ops: usize) -> Self {
        Write { ops, ..self }
    }

    /// All of a file of so many bytes, as often as it takes for so many operations.
    pub const fn len(self, len: usize) -> Self {
        Write {
            len: Some(len),
            ..self
        }
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

    /// Blocks of the file, and how many of them are written.
    fn count(&self, site: &Site) -> (usize, usize) {
        match self.len {
            Some(len) => {
                let count = site.size(len) / self.block;
                (count, site.ops(self.ops).next_multiple_of(count))
            }
            None => (site.ops(self.ops), site.ops(self.ops)),
        }
    }

    /// Makes the files that are written, full of zeros that are really there, or empty.
    pub fn prepare(&self, site: &Site) -> Result<(), Failure> {
        let (count, _) = self.count(site);
        for (path, count) in [
            (Self::path(site), count),
            (Self::warm_up_path(site), Site::warm_up(count)),
        ] {
            let len = if self.mode == Mode::Grow {
                0
            } else {
                count * self.block
            };
            fs::write(&path, vec![0; len]).named(path)?;
        }
        Ok(())
    }

    fn write_blocks(&self, path: &Path, blocks: &[usize], seed: u64) -> Result<(), Failure> {
        let file = files::open(path, true, self.direct)?;
        let mut buffer = Aligned::new(self.block);
        pattern::fill(buffer.bytes(), 0, seed);
        for block in blocks {
            let offset = (block * self.block) as u64;
            pattern::stamp(buffer.bytes(), offset, seed);
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
        let (count, ops) = self.count(site);
        let few = Site::warm_up(count);
        let before = blocks(self.order, few, few);
        self.write_blocks(&Self::warm_up_path(site), &before, seed)?;
        let blocks = blocks(self.order, count, ops);
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
        let len = self.count(site).0 * self.block;
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
            pattern::check(&buffer[..got], offset as u64, self.block, seed)
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
