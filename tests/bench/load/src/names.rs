// SPDX-License-Identifier: GPL-2.0

//! Doing something with many small files in one directory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::cases::Done;
use crate::gate::{Caches, Gate};
use crate::{pattern, Failure, Named, Site};

/// Files in a directory for a scale of 1.
const FILES: usize = 320;
/// Bytes in a file that is read, and in one that is created.
const SMALL: usize = 4096;
const CREATED: usize = 1024;
/// How often the names in the cache are asked for: once is too quick to be measured.
const CACHED_ROUNDS: usize = 16;

/// What is done with each file.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Its attributes are asked for.
    Stat(Caches),
    /// It is opened and closed.
    Open,
    /// It is opened, read and closed.
    Read,
    /// It is created, written and closed.
    Create,
    /// It gets another name in the same directory.
    Rename,
    /// It is removed.
    Unlink,
}

/// Makes the files that are only read, unless they are there.
pub fn make_assets(site: &Site) -> Result<(), Failure> {
    if assets(site).exists() {
        return Ok(());
    }
    make_files(&assets(site), site.ops(FILES), SMALL)
}

/// Where they are; `list` lists them, too.
pub fn assets(site: &Site) -> PathBuf {
    site.assets.join("small")
}

/// How many they are.
pub fn count(site: &Site) -> usize {
    site.ops(FILES)
}

fn name(number: usize) -> String {
    format!("file-{number:05}")
}

fn contents(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pattern::fill(&mut bytes, 0, number as u64);
    bytes
}

fn make_files(dir: &Path, count: usize, len: usize) -> Result<(), Failure> {
    fs::create_dir_all(dir).named(dir)?;
    for number in 0..count {
        let path = dir.join(name(number));
        fs::write(&path, contents(number, len)).named(path)?;
    }
    Ok(())
}

impl Op {
    fn warm_up_dir(site: &Site) -> PathBuf {
        site.work.join("warm")
    }

    fn timed_dir(site: &Site) -> PathBuf {
        site.work.join("timed")
    }

    /// Makes the directories for what changes them.
    pub fn prepare(self, site: &Site) -> Result<(), Failure> {
        let before = match self {
            Op::Stat(_) | Op::Open | Op::Read => return Ok(()),
            Op::Create => 0,
            Op::Rename | Op::Unlink => count(site),
        };
        make_files(&Self::warm_up_dir(site), Site::warm_up(before), CREATED)?;
        make_files(&Self::timed_dir(site), before, CREATED)
    }

    /// Does it with one file.
    fn one(self, dir: &Path, number: usize, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let path = dir.join(name(number));
        match self {
            Op::Stat(_) => {
                let len = fs::symlink_metadata(&path).named(&path)?.len();
                if len != SMALL as u64 {
                    return Err(format!("{}: {len} bytes", path.display()));
                }
            }
            Op::Open => drop(File::open(&path).named(&path)?),
            Op::Read => {
                buffer.resize(SMALL, 0);
                let mut file = File::open(&path).named(&path)?;
                file.read_exact(buffer).named(&path)?;
                pattern::check_ends(buffer, 0, number as u64)?;
            }
            Op::Create => {
                let mut file = File::create_new(&path).named(&path)?;
                file.write_all(&contents(number, CREATED)).named(&path)?;
            }
            Op::Rename => {
                fs::rename(&path, dir.join(format!("new-{}", name(number)))).named(&path)?;
            }
            Op::Unlink => fs::remove_file(&path).named(&path)?,
        }
        Ok(())
    }

    /// Runs the case.
    pub fn run(self, site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
        let count = count(site);
        let (warm_up, timed) = match self {
            Op::Stat(_) | Op::Open | Op::Read => (assets(site), assets(site)),
            Op::Create | Op::Rename | Op::Unlink => {
                (Self::warm_up_dir(site), Self::timed_dir(site))
            }
        };
        let (before, rounds, caches) = match self {
            Op::Stat(Caches::Warm) => (count, CACHED_ROUNDS, Caches::Warm),
            _ => (Site::warm_up(count), 1, Caches::Cold),
        };
        let mut buffer = Vec::new();
        for number in 0..before {
            self.one(&warm_up, number, &mut buffer)?;
        }
        gate.begin(caches)?;
        for _ in 0..rounds {
            for number in 0..count {
                self.one(&timed, number, &mut buffer)?;
            }
        }
        gate.end()?;
        let each = match self {
            Op::Read => SMALL,
            Op::Create => CREATED,
            _ => 0,
        };
        Ok(Done {
            ops: count * rounds,
            bytes: count * each,
        })
    }

    /// Checks the directory that was changed.
    pub fn verify(self, site: &Site) -> Result<(), Failure> {
        let dir = Self::timed_dir(site);
        let wanted = |number| match self {
            Op::Create => Some(name(number)),
            Op::Rename => Some(format!("new-{}", name(number))),
            _ => None,
        };
        match self {
            Op::Stat(_) | Op::Open | Op::Read => return Ok(()),
            Op::Create | Op::Rename | Op::Unlink => (),
        }
        let names: Vec<String> = (0..count(site)).filter_map(wanted).collect();
        let found = fs::read_dir(&dir).named(&dir)?.count();
        if found != names.len() {
            return Err(format!(
                "{}: {found} files instead of {}",
                dir.display(),
                names.len()
            ));
        }
        for (number, name) in names.iter().enumerate() {
            let path = dir.join(name);
            if fs::read(&path).named(&path)? != contents(number, CREATED) {
                return Err(format!("{}: wrong contents", path.display()));
            }
        }
        Ok(())
    }
}
