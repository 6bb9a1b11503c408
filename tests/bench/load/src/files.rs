// SPDX-License-Identifier: GPL-2.0

//! Sets of files of one size that are only read.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{pattern, Failure, Named, Site};

/// On x86-64.
const O_DIRECT: i32 = 0o40000;
const MIB: usize = 1 << 20;

/// How large each file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// So many bytes for a scale of 1: more operations find more to read.
    Scaled(usize),
    /// So many bytes, since they are to be compared with the size of a window.
    Fixed(usize),
}

/// A set of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    name: &'static str,
    count: usize,
    size: Size,
}

/// Opens a file for reading or writing, with or without a cache.
pub fn open(path: &Path, write: bool, direct: bool) -> Result<File, Failure> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(if direct { O_DIRECT } else { 0 })
        .open(path)
        .named(path)
}

impl Files {
    /// One file, whose size follows the scale.
    pub const fn scaled(name: &'static str, bytes: usize) -> Self {
        Files {
            name,
            count: 1,
            size: Size::Scaled(bytes),
        }
    }

    /// So many files of so many bytes.
    pub const fn fixed(name: &'static str, count: usize, bytes: usize) -> Self {
        Files {
            name,
            count,
            size: Size::Fixed(bytes),
        }
    }

    /// Bytes of each file.
    fn bytes(&self, site: &Site) -> usize {
        match self.size {
            Size::Scaled(bytes) => site.ops(bytes / MIB) * MIB,
            Size::Fixed(bytes) => site.size(bytes),
        }
    }

    /// What the contents of a file are made of: no two are the same, so that a mix-up is seen.
    fn seed(&self, number: usize) -> u64 {
        pattern::seed(self.name).wrapping_add(number as u64)
    }

    fn path(&self, site: &Site, number: usize) -> PathBuf {
        site.assets.join(self.name).join(format!("{number:03}"))
    }

    /// Makes the files, unless another case has done so.
    pub fn make(&self, site: &Site) -> Result<(), Failure> {
        let directory = site.assets.join(self.name);
        if directory.exists() {
            return Ok(());
        }
        fs::create_dir_all(&directory).named(&directory)?;
        let len = self.bytes(site);
        let mut buffer = vec![0; len.min(MIB)];
        for number in 0..self.count {
            let path = self.path(site, number);
            let file = File::create(&path).named(&path)?;
            for offset in (0..len).step_by(buffer.len()) {
                let here = buffer.len().min(len - offset);
                pattern::fill(&mut buffer[..here], offset as u64, self.seed(number));
                file.write_all_at(&buffer[..here], offset as u64)
                    .named(&path)?;
            }
        }
        Ok(())
    }

    /// How many whole blocks there are in all files together.
    pub fn blocks(&self, site: &Site, block: usize) -> usize {
        self.bytes(site) / block * self.count
    }

    /// Opens all files.
    pub fn open(&self, site: &Site, direct: bool) -> Result<Opened, Failure> {
        let files: Result<_, _> = (0..self.count)
            .map(|number| open(&self.path(site, number), false, direct))
            .collect();
        Ok(Opened {
            set: *self,
            files: files?,
            bytes: self.bytes(site),
        })
    }
}

/// Files that are open.
#[derive(Debug)]
pub struct Opened {
    set: Files,
    files: Vec<File>,
    bytes: usize,
}

impl Opened {
    /// The files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Bytes of each file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In which file a block lies, and where.
    pub fn place(&self, number: usize, block: usize) -> (usize, u64) {
        let each = self.bytes / block;
        (number / each, (number % each * block) as u64)
    }

    /// What the contents of a file are made of.
    pub fn seed(&self, number: usize) -> u64 {
        self.set.seed(number)
    }
}
