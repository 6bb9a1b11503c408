// SPDX-License-Identifier: GPL-2.0

//! Listing a directory, walking a tree, and unpacking one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::cases::Done;
use crate::gate::{Caches, Gate};
use crate::{names, pattern, Failure, Named, Site};

/// Directories in the tree for a scale of 1, half of them inside the other half, and files in each.
const DIRECTORIES: usize = 32;
const FILES: usize = 16;
/// What `find` on it finds: directories, files, bytes in files.
type Counts = (usize, usize, u64);

/// The directories of the tree, parents first.
fn directories(site: &Site) -> impl Iterator<Item = PathBuf> {
    (0..site.ops(DIRECTORIES)).map(|number| {
        let parent = PathBuf::from(format!("dir-{:03}", number & !1));
        if number % 2 == 0 {
            parent
        } else {
            parent.join("inside")
        }
    })
}

/// The files of a directory of the tree, and their contents.
fn files(directory: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..FILES).map(move |number| {
        let seed = (directory * FILES + number) as u64;
        let mut bytes = vec![0; (seed * 397 % 6000) as usize];
        pattern::fill(&mut bytes, 0, seed);
        (format!("file-{number:02}.c"), bytes)
    })
}

/// Makes the tree and an archive of it, unless they are there.
pub fn make_assets(site: &Site) -> Result<(), Failure> {
    if site.assets.join("tree").exists() {
        return Ok(());
    }
    for (number, directory) in directories(site).enumerate() {
        let directory = site.assets.join("tree").join(directory);
        fs::create_dir_all(&directory).named(&directory)?;
        for (name, bytes) in files(number) {
            let path = directory.join(name);
            fs::write(&path, bytes).named(path)?;
        }
    }
    let tar = |command: &mut Command| command.arg("-cf").arg("tree.tar").arg("tree").status();
    match tar(Command::new("tar").current_dir(&site.assets)).named("tar")? {
        status if status.success() => Ok(()),
        status => Err(format!("tar: {status}")),
    }
}

/// What there is in the tree.
fn counts(site: &Site) -> Counts {
    let directories = site.ops(DIRECTORIES);
    let bytes = (0..directories)
        .flat_map(files)
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    (directories, directories * FILES, bytes)
}

/// Lists a directory and everything below, and asks for the attributes of each.
fn walk(directory: &Path) -> Result<Counts, Failure> {
    let (mut directories, mut files, mut bytes) = (0, 0, 0);
    for entry in fs::read_dir(directory).named(directory)? {
        let entry = entry.named(directory)?;
        let attributes = entry.metadata().named(entry.path())?;
        if attributes.is_dir() {
            let below = walk(&entry.path())?;
            directories += 1 + below.0;
            files += below.1;
            bytes += below.2;
        } else {
            files += 1;
            bytes += attributes.len();
        }
    }
    Ok((directories, files, bytes))
}

/// Runs the case that walks.
pub fn walk_tree(site: &Site, gate: &mut Gate<'_>, caches: Caches) -> Result<Done, Failure> {
    let tree = site.assets.join("tree");
    match caches {
        Caches::Cold => walk(&tree.join("dir-000"))?,
        Caches::Warm => walk(&tree)?,
    };
    gate.begin(caches)?;
    let found = walk(&tree)?;
    gate.end()?;
    let there = counts(site);
    if found != there {
        return Err(format!("found {found:?} instead of {there:?}"));
    }
    Ok(Done {
        ops: found.0 + found.1,
        bytes: 0,
    })
}

/// Runs the case that lists.
pub fn list(site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
    let directory = names::assets(site);
    let list = || -> Result<usize, Failure> {
        let mut found = 0;
        for entry in fs::read_dir(&directory).named(&directory)? {
            found += usize::from(!entry.named(&directory)?.file_name().is_empty());
        }
        Ok(found)
    };
    list()?;
    gate.begin(Caches::Cold)?;
    let found = list()?;
    gate.end()?;
    if found != names::count(site) {
        return Err(format!(
            "found {found} names instead of {}",
            names::count(site)
        ));
    }
    Ok(Done {
        ops: found,
        bytes: 0,
    })
}

/// Makes the directory to unpack into.
pub fn prepare_untar(site: &Site) -> Result<(), Failure> {
    let directory = site.work.join("timed");
    fs::create_dir_all(&directory).named(directory)
}

/// Runs the case that unpacks.
pub fn untar(site: &Site, gate: &mut Gate<'_>) -> Result<Done, Failure> {
    // Not read from the share: that is measured elsewhere.
    let archive = env::temp_dir().join(format!("load-{}.tar", process::id()));
    fs::copy(site.assets.join("tree.tar"), &archive).named(&archive)?;
    let unpack = |option: &str| -> Result<(), Failure> {
        let mut command = Command::new("tar");
        command
            .arg(option)
            .arg(&archive)
            .current_dir(site.work.join("timed"));
        let output = command.output().named("tar")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("tar: {}", said.lines().next().unwrap_or("failed")))
    };
    // Brings tar itself into memory, where it stays.
    unpack("-tf")?;
    gate.begin(Caches::Warm)?;
    let result = unpack("-xf");
    gate.end()?;
    fs::remove_file(&archive).named(&archive)?;
    result?;
    let (directories, files, bytes) = counts(site);
    Ok(Done {
        ops: directories + files,
        bytes: bytes as usize,
    })
}

/// Compares what was unpacked with what was packed.
pub fn verify_untar(site: &Site) -> Result<(), Failure> {
    let tree = site.work.join("timed/tree");
    let (found, there) = (walk(&tree)?, counts(site));
    if found != there {
        return Err(format!(
            "{}: {found:?} instead of {there:?}",
            tree.display()
        ));
    }
    for (number, directory) in directories(site).enumerate() {
        for (name, bytes) in files(number) {
            let path = tree.join(&directory).join(name);
            if fs::read(&path).named(&path)? != bytes {
                return Err(format!("{}: wrong contents", path.display()));
            }
        }
    }
    Ok(())
}
