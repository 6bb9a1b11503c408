// SPDX-License-Identifier: GPL-2.0

//! Requests in flight in debugfs, and their abort, for operators.
//!
//! Other FUSE filesystems have `waiting` and `abort` in fusectl, which virtiofs has no entry in; here these are in the directory of
//! the device, with the same permissions and meaning. Debugfs lists the requests themselves:
//! `/sys/kernel/debug/virtiofs/<n>/requests`.
//!
//! C: `fs/fuse/control.c`

use crate::transport::{
    device::Instance,
    request::Label, //
};
use kernel::{
    debugfs::{
        Dir,
        File,
        Writer, //
    },
    fmt::{
        Error as FmtError,
        Formatter,
        Result as FmtResult, //
    },
    prelude::*,
    sync::Arc, //
};
use virtio::Entry;

/// Requests of a queue that are listed at most, as they are copied with its lock held: the oldest ones.
const LISTED: usize = 128;

impl Instance {
    /// The requests that have not ended: the daemon has them, or they wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.queues()
            .map(|queue| queue.waiting())
            .fold(0, usize::saturating_add)
    }

    /// Ends all sessions of the device at once, also one that is about to begin or to end: whoever waits gets `ENOTCONN`. A mount
    /// after that begins anew. Sleeps.
    pub(crate) fn abort_all(&self) {
        pr_warn!("{:?}: aborted by sysfs\n", self.tag());
        self.end_connections();
        self.lease().close();
    }
}

/// The directory of a device in debugfs.
pub(crate) struct Directory {
    _requests: Pin<KBox<File<RequestsFile>>>,
    _window: Option<Pin<KBox<File<WindowFile>>>>,
    _directory: Dir,
}

impl Directory {
    /// Makes `name` in `parent`. Sleeps. A kernel without debugfs has no directory, and no error.
    pub(crate) fn new(parent: &Dir, name: &CStr, instance: &Arc<Instance>) -> Result<Self> {
        let directory = parent.subdir(name);
        let requests = KBox::pin_init(
            directory.read_only_file(c"requests", RequestsFile(instance.clone())),
            GFP_KERNEL,
        )?;
        let window = match instance.memory() {
            Some(_) => Some(KBox::pin_init(
                directory.read_only_file(c"window", WindowFile(instance.clone())),
                GFP_KERNEL,
            )?),
            None => None,
        };
        Ok(Self {
            _requests: requests,
            _window: window,
            _directory: directory,
        })
    }
}

/// What the window tells of itself, see Documentation/dax.md.
struct WindowFile(Arc<Instance>);

impl Writer for WindowFile {
    fn write(&self, f: &mut Formatter<'_>) -> FmtResult {
        self.0.lease().describe(f)
    }
}

/// The list of requests.
struct RequestsFile(Arc<Instance>);

impl Writer for RequestsFile {
    fn write(&self, f: &mut Formatter<'_>) -> FmtResult {
        writeln!(f, "queue unique opcode nodeid age_ms state pid")?;
        let mut entries: KVec<Entry<Label>> =
            KVec::with_capacity(LISTED, GFP_KERNEL).map_err(|_| FmtError)?;
        for queue in self.0.queues() {
            entries.clear();
            let left_out = queue.list(&mut entries);
            let name = queue.name().to_str().map_err(|_| FmtError)?;
            for entry in &entries {
                let Label {
                    opcode,
                    unique,
                    node,
                } = entry.label;
                writeln!(
                    f,
                    "{name} {unique} {} {} {} {} {}",
                    opcode.name(),
                    node.map_or(0, |node| node.get()),
                    entry.age_ms,
                    entry.stage.as_str(),
                    entry.pid
                )?;
            }
            if left_out > 0 {
                writeln!(f, "{name} and {left_out} more")?;
            }
        }
        Ok(())
    }
}
