// SPDX-License-Identifier: GPL-2.0

//! Handles that write-back can use.
//!
//! Dirty folios are written back through any handle that can write, long after the task that dirtied them has gone. A handle in use
//! by write-back is not released: the daemon would answer `EBADF` to a WRITE behind the RELEASE, and the contents would be lost.
//!
//! C: `write_files` of `struct fuse_inode`, whose members each request holds a reference to.

use fuse_proto::Fh;
use kernel::{
    fs::file::flags,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Mutex, //
    },
};
use kernel_ext::event::{
    Event,
    FOREVER, //
};

/// The handles of a file that can write. May sleep, with an innermost lock.
#[pin_data]
pub(crate) struct Writers {
    /// Those last that can best.
    #[pin]
    list: Mutex<KVec<Writer>>,
    /// Whether somebody sends the times of the file.
    times: Atomic<i32>,
    /// A handle that is to go is not used any more, or times have been sent.
    #[pin]
    unused: Event,
}

/// The right to send the times of a file, which one task has at a time.
pub(crate) struct Turn<'a>(&'a Writers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.times.store(0, ordering::Release);
        self.0.unused.happen();
    }
}

struct Writer {
    fh: Fh,
    uses: usize,
    leaves: bool,
}

/// A handle that stays with the daemon as long as this lives.
pub(crate) struct InUse<'a> {
    writers: &'a Writers,
    fh: Fh,
}

impl Writers {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "Writers::list"),
            times: Atomic::new(0),
            unused <- Event::new(),
        })
    }

    /// Whether somebody sends the times of the file. Callable from any context.
    pub(crate) fn sends_times(&self) -> bool {
        self.times.load(ordering::Acquire) != 0
    }

    /// The right to send the times, if nobody has it.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        match self.times.xchg(1, ordering::Full) {
            0 => Some(Turn(self)),
            _ => None,
        }
    }

    /// The right to send the times. Sleeps until nobody else has it; a fatal signal ends that with `EINTR`.
    pub(crate) fn turn(&self) -> Result<Turn<'_>> {
        loop {
            let seen = self.unused.seen();
            if let Some(turn) = self.try_turn() {
                return Ok(turn);
            }
            self.unused.wait_killable(seen, FOREVER)?;
        }
    }

    /// Adds a handle that was opened with `flags`. With `O_DIRECT` a host may write nothing but whole blocks through it, and with
    /// `O_APPEND` nothing but at the end: these are taken when there are no others.
    pub(crate) fn add(&self, fh: Fh, flags: u32) -> Result {
        let mut list = self.list.lock();
        list.push(
            Writer {
                fh,
                uses: 0,
                leaves: false,
            },
            GFP_KERNEL,
        )?;
        if flags & (flags::O_DIRECT | flags::O_APPEND) != 0 {
            list.rotate_right(1);
        }
        Ok(())
    }

    /// The handle that can best. `EIO` when there is none.
    pub(crate) fn borrow(&self) -> Result<InUse<'_>> {
        let mut list = self.list.lock();
        let stays = list.iter().rposition(|writer| !writer.leaves);
        let index = stays.or(list.len().checked_sub(1)).ok_or(EIO)?;
        let writer = list.get_mut(index).ok_or(EIO)?;
        writer.uses = writer.uses.saturating_add(1);
        Ok(InUse {
            writers: self,
            fh: writer.fh,
        })
    }

    /// Takes a handle away, and waits until nobody uses it. A fatal signal ends that with `EINTR`, and then it is still there.
    /// Without `waits` it ends so when somebody uses it.
    pub(crate) fn remove(&self, fh: Fh, waits: bool) -> Result {
        loop {
            let mut list = self.list.lock();
            let seen = self.unused.seen();
            let Some(index) = list.iter().position(|writer| writer.fh == fh) else {
                return Ok(());
            };
            match list.get_mut(index) {
                Some(writer) if writer.uses > 0 => writer.leaves = true,
                _ => {
                    let _ = list.remove(index);
                    return Ok(());
                }
            }
            drop(list);
            if !waits {
                return Err(EINTR);
            }
            self.unused.wait_killable(seen, FOREVER)?;
        }
    }
}

impl InUse<'_> {
    /// What the daemon calls it.
    pub(crate) fn fh(&self) -> Fh {
        self.fh
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut list = self.writers.list.lock();
        // A daemon may call all its handles the same.
        let used = |writer: &&mut Writer| writer.fh == self.fh && writer.uses > 0;
        if let Some(writer) = list.iter_mut().find(used) {
            writer.uses = writer.uses.saturating_sub(1);
            if writer.uses == 0 && writer.leaves {
                self.writers.unused.happen();
            }
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_writers)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn writers() -> Result<Arc<Writers>> {
        Arc::pin_init(Writers::new(), GFP_KERNEL)
    }

    fn best(writers: &Writers) -> Result<u64> {
        Ok(writers.borrow()?.fh().0)
    }

    /// What is written back goes where it can be written at any place.
    #[test]
    fn order() -> Result {
        let writers = writers()?;
        assert!(writers.borrow().is_err());
        writers.add(Fh(1), flags::O_APPEND)?;
        assert_eq!(best(&writers)?, 1);
        writers.add(Fh(2), 0)?;
        writers.add(Fh(3), flags::O_DIRECT)?;
        assert_eq!(best(&writers)?, 2);
        writers.remove(Fh(2), true)?;
        writers.remove(Fh(2), true)?;
        assert_ne!(best(&writers)?, 2);
        Ok(())
    }

    /// A handle that is to go is taken if there is no other, and nothing else is.
    #[test]
    fn leaving() -> Result {
        let writers = writers()?;
        writers.add(Fh(1), 0)?;
        if let Some(writer) = writers.list.lock().first_mut() {
            writer.leaves = true;
        }
        assert_eq!(best(&writers)?, 1);
        writers.add(Fh(2), flags::O_DIRECT)?;
        assert_eq!(best(&writers)?, 2);
        Ok(())
    }
}
