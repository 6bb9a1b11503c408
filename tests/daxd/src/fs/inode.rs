// SPDX-License-Identifier: GPL-2.0

//! Inodes, and how often the guest looked each up.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;

use crate::{lock, wire};

/// A file of the host that the guest knows.
pub struct Inode {
    id: u64,
    generation: u64,
    /// Opened for naming alone (O_PATH); keeps the host from using the inode number again.
    fd: OwnedFd,
    /// A file for maps and for requests without a handle, opened when first needed.
    file: Mutex<Option<Arc<File>>>,
}

impl Inode {
    /// The node id that the guest knows it by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which of the nodes that have or had this id it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The descriptor, good for the calls that accept O_PATH.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A path that leads to the file, also where it has no name any more or is a symbolic link.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The file's attributes.
    pub fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.fd, "", AtFlags::EMPTY_PATH)
    }

    /// Opens the file.
    pub fn open(&self, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        rustix::fs::open(self.path(), flags, Mode::empty()).map(File::from)
    }

    /// The file, opened for reading and writing where that is allowed, else for reading.
    pub fn file(&self) -> rustix::io::Result<Arc<File>> {
        let mut file = lock::mutex(&self.file);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = self
            .open(OFlags::RDWR)
            .or_else(|_| self.open(OFlags::RDONLY))?;
        Ok(file.insert(Arc::new(opened)).clone())
    }
}

/// Which file of the host it is: device and inode number.
type Key = (u64, u64);

/// An inode in the table.
struct Known {
    inode: Arc<Inode>,
    key: Key,
    /// Lookups that the guest did not give back.
    lookups: u64,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<u64, Known>,
    by_key: HashMap<Key, u64>,
    /// The highest id given out.
    last: u64,
    /// Forgotten ids, each with its last generation.
    free: Vec<(u64, u64)>,
}

/// What became of a FORGET.
#[derive(Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Lookups were given back, and some are left.
    Some,
    /// All were given back; the inode is gone.
    All,
    /// The guest does not know such a node.
    Unknown,
    /// More were given back than there were; the inode is gone.
    TooMany,
}

/// A live inode, for the control socket.
#[derive(Serialize)]
pub struct LiveInode {
    nodeid: u64,
    generation: u64,
    lookups: u64,
    path: PathBuf,
}

/// All inodes that the guest knows.
pub struct Inodes {
    root: Arc<Inode>,
    root_key: Key,
    table: Mutex<Table>,
}

impl Inodes {
    /// A table with nothing but the root directory `root` in it.
    pub fn new(root: OwnedFd) -> rustix::io::Result<Inodes> {
        let root = Inode {
            id: wire::ROOT,
            generation: 0,
            fd: root,
            file: Mutex::default(),
        };
        let stat = root.stat()?;
        let table = Table {
            last: wire::ROOT,
            ..Default::default()
        };
        Ok(Inodes {
            root: Arc::new(root),
            root_key: (stat.st_dev, stat.st_ino),
            table: Mutex::new(table),
        })
    }

    /// The root directory.
    pub fn root(&self) -> Arc<Inode> {
        self.root.clone()
    }

    /// The inode with id `nodeid`.
    pub fn get(&self, nodeid: u64) -> Option<Arc<Inode>> {
        if nodeid == wire::ROOT {
            return Some(self.root.clone());
        }
        lock::mutex(&self.table)
            .by_id
            .get(&nodeid)
            .map(|known| known.inode.clone())
    }

    /// Counts a lookup of the file behind `fd`, which becomes an inode if it is none yet. With `reuse`, a forgotten id is
    /// used again.
    pub fn look_up(&self, fd: OwnedFd, reuse: bool) -> rustix::io::Result<(Arc<Inode>, Stat)> {
        let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
        let key = (stat.st_dev, stat.st_ino);
        if key == self.root_key {
            return Ok((self.root.clone(), stat));
        }
        let mut table = lock::mutex(&self.table);
        let table = &mut *table;
        if let Some(known) = table
            .by_key
            .get(&key)
            .and_then(|id| table.by_id.get_mut(id))
        {
            known.lookups += 1;
            return Ok((known.inode.clone(), stat));
        }
        let (id, generation) = match table.free.pop() {
            Some((id, generation)) if reuse => (id, generation + 1),
            _ => {
                table.last += 1;
                (table.last, 0)
            }
        };
        let inode = Arc::new(Inode {
            id,
            generation,
            fd,
            file: Mutex::default(),
        });
        table.by_key.insert(key, id);
        table.by_id.insert(
            id,
            Known {
                inode: inode.clone(),
                key,
                lookups: 1,
            },
        );
        Ok((inode, stat))
    }

    /// Gives `lookups` of the node `nodeid` back. With `keep`, the node is found again afterwards.
    pub fn forget(&self, nodeid: u64, lookups: u64, keep: bool) -> Forgotten {
        if nodeid == wire::ROOT {
            return Forgotten::Some;
        }
        let mut table = lock::mutex(&self.table);
        let Some(known) = table.by_id.get_mut(&nodeid) else {
            return Forgotten::Unknown;
        };
        let too_many = lookups > known.lookups;
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups > 0 {
            return Forgotten::Some;
        }
        if keep && !too_many {
            return Forgotten::All;
        }
        let (key, generation) = (known.key, known.inode.generation);
        table.by_id.remove(&nodeid);
        table.by_key.remove(&key);
        table.free.push((nodeid, generation));
        if too_many {
            Forgotten::TooMany
        } else {
            Forgotten::All
        }
    }

    /// Takes back the lookup that [`Self::look_up`] counted, for an entry that did not reach the guest.
    pub fn undo(&self, inode: &Inode) {
        self.forget(inode.id, 1, false);
    }

    /// Forgets all inodes.
    pub fn clear(&self) {
        let mut table = lock::mutex(&self.table);
        let table = &mut *table;
        table.by_key.clear();
        let forgotten = table
            .by_id
            .drain()
            .map(|(id, known)| (id, known.inode.generation));
        table.free.extend(forgotten);
    }

    /// How many inodes there are, and how many lookups were not given back. The root directory does not count.
    pub fn live(&self) -> (u64, u64) {
        let table = lock::mutex(&self.table);
        (
            table
                .by_id
                .values()
                .filter(|known| known.lookups > 0)
                .count() as u64,
            table.by_id.values().map(|known| known.lookups).sum(),
        )
    }

    /// All inodes.
    pub fn list(&self) -> Vec<LiveInode> {
        let table = lock::mutex(&self.table);
        let live = |known: &Known| LiveInode {
            nodeid: known.inode.id,
            generation: known.inode.generation,
            lookups: known.lookups,
            path: std::fs::read_link(known.inode.path()).unwrap_or_default(),
        };
        let mut list: Vec<_> = table.by_id.values().map(live).collect();
        list.sort_by_key(|inode| inode.nodeid);
        list
    }
}

/// Opens `name` in the directory `parent` for naming alone.
pub fn open_path(parent: &Inode, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        parent.fd(),
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn lookups_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let inodes = Inodes::new(open(dir.path())).unwrap();
        let path = dir.path().join("a");
        let (a, _) = inodes.look_up(open(&path), false).unwrap();
        let (again, _) = inodes.look_up(open(&path), false).unwrap();
        assert_eq!(a.id(), again.id());
        assert_eq!(inodes.live(), (1, 2));
        assert_eq!(inodes.forget(a.id(), 1, false), Forgotten::Some);
        assert_eq!(inodes.forget(a.id(), 1, false), Forgotten::All);
        assert_eq!(inodes.forget(a.id(), 1, false), Forgotten::Unknown);
        assert_eq!(inodes.live(), (0, 0));
    }

    #[test]
    fn the_root_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let inodes = Inodes::new(open(dir.path())).unwrap();
        let (root, _) = inodes.look_up(open(dir.path()), false).unwrap();
        assert_eq!((root.id(), inodes.live()), (wire::ROOT, (0, 0)));
        assert_eq!(inodes.forget(wire::ROOT, 9, false), Forgotten::Some);
    }

    #[test]
    fn ids_are_used_again_with_another_generation() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let inodes = Inodes::new(open(dir.path())).unwrap();
        let (a, _) = inodes.look_up(open(&dir.path().join("a")), true).unwrap();
        assert_eq!(inodes.forget(a.id(), 5, false), Forgotten::TooMany);
        let (again, _) = inodes.look_up(open(&dir.path().join("a")), true).unwrap();
        assert_eq!(
            (again.id(), again.generation()),
            (a.id(), a.generation() + 1)
        );
        inodes.clear();
        let (new, _) = inodes.look_up(open(&dir.path().join("a")), false).unwrap();
        assert_ne!(new.id(), a.id());
    }
}
