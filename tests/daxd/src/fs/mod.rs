// SPDX-License-Identifier: GPL-2.0

//! The file system: a directory of the host, passed through.
//!
//! Each operation reads its arguments from a [`Request`] and returns the body of its reply. Nodes are known by the id of an
//! [`inode::Inode`], which the guest got from a lookup and gives back with FORGET; open files by the id of a
//! [`handle::Handle`].

mod attr;
mod dir;
mod handle;
mod inode;
mod io;
mod ioctl;
mod locks;
mod namespace;
mod xattr;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::counters::Counters;
use crate::lock;
use crate::options::{InodeDax, Settings, SharedSettings};
use crate::wire::{self, InHeader, Malformed, Reader, Writer};

pub use handle::Handles;
pub use inode::{Inode, Inodes};
pub use locks::{LockKind, Locks};

/// A request: its header, its arguments, and the room for its reply.
pub struct Request<'a> {
    pub header: InHeader,
    pub args: Reader<'a>,
    /// How long a reply's body may be.
    pub capacity: usize,
}

/// Why an operation has no result.
#[derive(Debug)]
pub enum Failure {
    /// The guest is answered with this error.
    Errno(Errno),
    /// The request breaks the protocol, or names what it cannot know.
    Malformed(String),
    /// The request waits for another one, and is to be tried again.
    Wait,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::Errno(errno)
    }
}

impl From<Malformed> for Failure {
    fn from(Malformed(text): Malformed) -> Self {
        Failure::Malformed(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Errno(errno) => f.write_str(&crate::errno::name(*errno)),
            Failure::Malformed(text) => f.write_str(text),
            Failure::Wait => f.write_str("not yet"),
        }
    }
}

/// The body of a reply, or the error instead.
pub type Outcome = Result<Vec<u8>, Failure>;

/// What INIT agreed on.
#[derive(Clone, Copy, Default)]
pub struct Session {
    pub flags: u64,
    /// The most bytes in a READ and in a WRITE.
    pub max_read: usize,
    pub max_write: usize,
}

/// The file system.
pub struct Fs {
    settings: SharedSettings,
    counters: Arc<Counters>,
    /// Nodes that the guest knows.
    pub inodes: Inodes,
    /// Files and directories that the guest has open.
    pub handles: Handles,
    /// What the guest has set with ioctls.
    ioctls: ioctl::Ioctls,
    /// Locks that the guest holds.
    pub locks: Locks,
    /// What INIT agreed on.
    session: RwLock<Session>,
    /// Held for reading by whatever looks at or changes a file's size, and for writing while a file is grown for a map.
    size_lock: RwLock<()>,
    /// Files that are marked for DAX, by device and inode number.
    dax_files: RwLock<HashSet<(u64, u64)>>,
    /// The daemon's own user and group.
    own: (Uid, Gid),
}

impl Fs {
    /// Serves `dir`.
    pub fn new(
        dir: &Path,
        settings: SharedSettings,
        counters: Arc<Counters>,
    ) -> rustix::io::Result<Fs> {
        let root = rustix::fs::open(
            dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // The guest's umask is applied, not this process's.
        rustix::process::umask(Mode::empty());
        Ok(Fs {
            settings,
            counters,
            inodes: Inodes::new(root)?,
            handles: Handles::default(),
            ioctls: ioctl::Ioctls::default(),
            locks: Locks::default(),
            session: RwLock::default(),
            size_lock: RwLock::new(()),
            dax_files: RwLock::default(),
            own: (rustix::process::geteuid(), rustix::process::getegid()),
        })
    }

    /// The settings at this moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.get()
    }

    /// What INIT agreed on.
    fn session(&self) -> Session {
        *lock::read(&self.session)
    }

    /// Whether INIT agreed on `flag`.
    fn agreed(&self, flag: u64) -> bool {
        self.session().flags & flag != 0
    }

    /// Forgets everything that the guest knew, and starts over with `session`.
    pub fn restart(&self, session: Session) {
        *lock::write(&self.session) = session;
        self.locks.clear();
        self.handles.clear();
        self.inodes.clear();
    }

    /// The inode that a request is about.
    pub fn inode(&self, nodeid: u64) -> Result<Arc<Inode>, Failure> {
        let unknown =
            || Failure::Malformed(format!("node {nodeid} was never looked up or is forgotten"));
        self.inodes.get(nodeid).ok_or_else(unknown)
    }

    /// Keeps every file at its size until the guard is dropped, but for what the guest asks for.
    fn sizes(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        lock::read(&self.size_lock)
    }

    /// Keeps everyone else from looking at sizes until the guard is dropped.
    pub fn hide_sizes(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        lock::write(&self.size_lock)
    }

    /// Marks the file at `path` below the root for DAX, or takes the mark away.
    pub fn mark_dax(&self, path: &str, dax: bool) -> rustix::io::Result<()> {
        let root = self.inodes.root();
        let stat = rustix::fs::statat(root.fd(), path, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut files = lock::write(&self.dax_files);
        match dax {
            true => files.insert((stat.st_dev, stat.st_ino)),
            false => files.remove(&(stat.st_dev, stat.st_ino)),
        };
        Ok(())
    }

    /// The attribute flags of a node with `stat`.
    fn attr_flags(&self, settings: &Settings, stat: &Stat) -> u32 {
        let file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        let dax = match settings.inode_dax {
            InodeDax::Off => false,
            InodeDax::All => file,
            InodeDax::Listed => {
                file && lock::read(&self.dax_files).contains(&(stat.st_dev, stat.st_ino))
            }
        };
        if dax {
            wire::ATTR_DAX
        } else {
            0
        }
    }

    /// Appends an entry for `inode`, found in a directory on device `parent_dev`.
    fn entry(
        &self,
        w: &mut Writer,
        settings: &Settings,
        parent_dev: u64,
        inode: &Inode,
        stat: &Stat,
    ) {
        let mut flags = self.attr_flags(settings, stat);
        if settings.announce_submounts && stat.st_dev != parent_dev {
            flags |= wire::ATTR_SUBMOUNT;
        }
        let (entry, entry_nsec) = attr::timeout(settings.entry_timeout);
        let (attr, attr_nsec) = attr::timeout(settings.attr_timeout);
        w.u64(inode.id())
            .u64(inode.generation())
            .u64(entry)
            .u64(attr)
            .u32(entry_nsec)
            .u32(attr_nsec);
        attr::append(w, stat, flags);
    }

    /// Does `create` as the user and group of `header`, who will own what it creates.
    fn as_caller<T>(
        &self,
        header: &InHeader,
        create: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (own_uid, own_gid) = self.own;
        let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
        if !own_uid.is_root()
            || (uid, gid) == self.own
            || header.uid == u32::MAX
            || header.gid == u32::MAX
        {
            return create();
        }
        // Of this thread alone; the order matters, since the group can be changed only as root.
        rustix::thread::set_thread_res_gid(None, gid, None)?;
        let result = rustix::thread::set_thread_res_uid(None, uid, None).and_then(|()| {
            let result = create();
            rustix::thread::set_thread_res_uid(None, own_uid, None)
                .expect("the saved user id is root");
            result
        });
        rustix::thread::set_thread_res_gid(None, own_gid, None).expect("root may change its group");
        result
    }
}
