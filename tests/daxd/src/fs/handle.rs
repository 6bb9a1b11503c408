// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Failure, Fs};
use crate::lock;
use crate::wire::Opcode;

/// What the guest has open.
pub enum Handle {
    File(Arc<File>),
    /// A directory; the lock keeps a position and what is read from there together.
    Dir(Mutex<File>),
}

/// All that the guest has open.
#[derive(Default)]
pub struct Handles {
    /// The highest id given out; 0 is none.
    last: AtomicU64,
    table: Mutex<HashMap<u64, (u64, Arc<Handle>)>>,
}

impl Handles {
    /// Keeps `handle` of the node `nodeid` and returns its id.
    pub fn add(&self, nodeid: u64, handle: Handle) -> u64 {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock::mutex(&self.table).insert(id, (nodeid, Arc::new(handle)));
        id
    }

    /// Closes the handle `id`; says whether it was open.
    pub fn remove(&self, id: u64) -> bool {
        lock::mutex(&self.table).remove(&id).is_some()
    }

    fn get(&self, id: u64) -> Option<(u64, Arc<Handle>)> {
        lock::mutex(&self.table).get(&id).cloned()
    }

    /// Closes everything.
    pub fn clear(&self) {
        lock::mutex(&self.table).clear();
    }

    /// How many files and directories are open.
    pub fn live(&self) -> u64 {
        lock::mutex(&self.table).len() as u64
    }

    /// The ids of all handles, each with its node's.
    pub fn list(&self) -> Vec<(u64, u64)> {
        let table = lock::mutex(&self.table);
        let mut list: Vec<_> = table
            .iter()
            .map(|(id, (nodeid, _))| (*id, *nodeid))
            .collect();
        list.sort_unstable();
        list
    }
}

impl Fs {
    /// The handle `fh` of the node `nodeid`; complains where there is none, or it is another node's.
    fn handle(&self, nodeid: u64, fh: u64) -> Result<Arc<Handle>, Failure> {
        match self.handles.get(fh) {
            Some((owner, handle)) if owner == nodeid => Ok(handle),
            Some((owner, _)) => Err(Failure::Malformed(format!(
                "handle {fh} is node {owner}'s, not {nodeid}'s"
            ))),
            None => Err(Failure::Malformed(format!(
                "handle {fh} of node {nodeid} is not open"
            ))),
        }
    }

    /// The file behind the handle `fh`. Where OPEN is answered with ENOSYS there are no handles, and `fh` is 0.
    pub(super) fn file(&self, nodeid: u64, fh: u64) -> Result<Arc<File>, Failure> {
        if fh == 0 && self.settings().enosys.contain(Opcode::OPEN) {
            return Ok(self.inode(nodeid)?.file()?);
        }
        match &*self.handle(nodeid, fh)? {
            Handle::File(file) => Ok(file.clone()),
            Handle::Dir(_) => Err(Failure::Malformed(format!("handle {fh} is a directory"))),
        }
    }

    /// The directory behind the handle `fh`; see [`Self::file`] for 0.
    pub(super) fn dir(&self, nodeid: u64, fh: u64) -> Result<Arc<Handle>, Failure> {
        if fh == 0 && self.settings().enosys.contain(Opcode::OPENDIR) {
            let file = self
                .inode(nodeid)?
                .open(rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY)?;
            return Ok(Arc::new(Handle::Dir(Mutex::new(file))));
        }
        let handle = self.handle(nodeid, fh)?;
        match &*handle {
            Handle::Dir(_) => Ok(handle),
            Handle::File(_) => Err(Failure::Malformed(format!(
                "handle {fh} is not a directory"
            ))),
        }
    }
}
