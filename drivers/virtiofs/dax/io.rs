// SPDX-License-Identifier: GPL-2.0

//! read(2) and write(2) of files that are shown by the window.
//!
//! Bytes are copied from and to the window where a range shows them, or where it pays to make one; the others are asked of the
//! daemon, or sent to it. All of them are the host's page cache in the end, so it does not matter which way they go.
//!
//! While bytes are copied the range is pinned, and no page fault is taken: the user's page may need a range, too, and all of them
//! may be pinned. It is brought in before, with nothing held. `i_rwsem` is held shared by a read, while it copies, so that no
//! truncation takes away what is read; a write holds it all the time.

use super::window::{
    MappedFile,
    Step,
    Window, //
};
use crate::{
    direct,
    inode::NodeInode,
    session::Session,
    superblock::VirtioFs,
    write::{
        self,
        grow, //
    },
};
use dax_map::{
    Access,
    Need,
    Plan,
    Stream, //
};
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
};
use kernel_ext::{
    dax::fault_in,
    pages::PageBuffer,
    write as kernel_write, //
};
use vfs::{
    file::Kiocb,
    Inode, //
};
use virtio::Payload;

/// How an open file has been read and written lately.
pub(crate) type Run = Pin<KBox<SpinLock<Stream>>>;

/// That of a file that was not read or written yet.
pub(crate) fn new_run() -> Result<Run> {
    KBox::pin_init(new_spinlock!(Stream::new(), "Run"), GFP_KERNEL)
}

/// What it takes to read or write a file.
struct Target<'a> {
    inode: &'a Inode<VirtioFs>,
    session: &'a Arc<Session>,
    window: &'a Arc<Window>,
    file: &'a Arc<MappedFile>,
}

impl<'a> Target<'a> {
    fn of(inode: &'a Inode<VirtioFs>) -> Result<Self> {
        let session = inode.session()?;
        Ok(Self {
            inode,
            session,
            window: session.window().ok_or(ENODEV)?,
            file: inode.data().mapped().ok_or(ENODEV)?,
        })
    }

    fn access(&self, offset: i64, len: u64, write: bool, size: i64) -> Result<Access> {
        Ok(Access {
            owner: self.file.owner(),
            offset: u64::try_from(offset)?,
            len,
            write,
            need: Need::Either,
            file_size: u64::try_from(size)?,
        })
    }

    /// Makes what is wished for: whether the access is to be tried again, as opposed to bypassed.
    fn provide(&self, step: Step<'_>) -> Result<bool> {
        let provided = match step {
            Step::Map(plan) => self.window.map(self.session, self.file, &plan, false),
            Step::Remap(plan) => {
                self.window
                    .remap(self.session, self.inode, self.file, &plan, false)
            }
            Step::Wait(seen) => self.window.wait(seen),
            Step::Use(_) | Step::Bypass(_) | Step::Nothing => return Ok(false),
        };
        match provided {
            Err(e) if e == EINTR => Err(e),
            done => Ok(done.is_ok()),
        }
    }

    /// Maps what will be needed soon.
    fn map_ahead(&self, plan: Option<Plan>) {
        let Some(plan) = plan else { return };
        let (window, session, file) =
            (self.window.clone(), self.session.clone(), self.file.clone());
        // It is a guess: nothing is lost without.
        let _ = self
            .session
            .instance()
            .work()
            .try_spawn(GFP_KERNEL, move || {
                let _ = window.map(&session, &file, &plan, false);
            });
    }
}

/// Reads from the position of `iocb` into `to`. Sleeps, unless `iocb` says not to. A fatal signal ends it with what was read so
/// far.
pub(crate) fn read(mut iocb: Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
    let (file, inode) = (iocb.file(), iocb.file().inode());
    let beyond = iocb.pos().saturating_add_unsigned(to.len() as u64) > inode.size();
    if beyond && !inode.is_fresh() {
        // Others may have made it longer.
        if iocb.is_nowait() {
            return Err(EAGAIN);
        }
        inode.refresh(Some(file.data().fh()))?;
    }
    let mut total: usize = 0;
    while !to.is_empty() {
        match read_some(&iocb, to) {
            Ok(0) => break,
            Ok(read) => {
                total = total.saturating_add(read);
                iocb.set_pos(iocb.pos().saturating_add_unsigned(read as u64));
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(total)
}

/// Reads some bytes from the position on; none at the end of the file.
fn read_some(iocb: &Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
    let inode = iocb.file().inode();
    let run = iocb.data().run().ok_or(EIO)?;
    let target = Target::of(inode)?;
    let pos = iocb.pos();
    loop {
        if kernel_write::is_killed() {
            return Err(EINTR);
        }
        let lock = match iocb.is_nowait() {
            true => inode.try_lock_shared().ok_or(EAGAIN)?,
            false => inode.lock_shared(),
        };
        let size = inode.size();
        let left = u64::try_from(size.saturating_sub(pos)).unwrap_or(0);
        let len = left.min(to.len() as u64);
        if len == 0 {
            return Ok(0);
        }
        let access = target.access(pos, len, false, size)?;
        let (step, ahead) = target.window.access(run, &access);
        let bypassed = match &step {
            Step::Use(range) => {
                let part = usize::try_from(len.min(range.hit.len))?;
                let offset = range.hit.window_offset;
                let read = target.window.memory().copy_to_iter(offset, part, to);
                drop((step, lock));
                target.map_ahead(ahead);
                if read > 0 {
                    return Ok(read);
                }
                target.window.alive()?;
                fault_in(to, part)?;
                continue;
            }
            Step::Bypass(bytes) => *bytes,
            _ => len,
        };
        drop(lock);
        if iocb.is_nowait() {
            return Err(EAGAIN);
        }
        target.map_ahead(ahead);
        if !target.provide(step)? {
            return direct::read_once(iocb, to, usize::try_from(bypassed)?);
        }
    }
}

/// Writes from `from` to the position of `iocb`. Sleeps. A fatal signal ends it with what was written so far.
pub(crate) fn write(mut iocb: Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    let locked = inode.lock_exclusive();
    if write::begin(&mut iocb, from)? == 0 {
        return Ok(0);
    }
    let mut total: usize = 0;
    while !from.is_empty() {
        match write_some(&iocb, from) {
            Ok(0) => break,
            Ok(written) => {
                total = total.saturating_add(written);
                let end = iocb.pos().saturating_add_unsigned(written as u64);
                iocb.set_pos(end);
                grow(inode, end);
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    drop(locked);
    iocb.write_sync(total)
}

/// Writes some bytes from the position on. The inode is locked.
fn write_some(iocb: &Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    let inode = iocb.file().inode();
    let run = iocb.data().run().ok_or(EIO)?;
    let target = Target::of(inode)?;
    let pos = iocb.pos();
    loop {
        if kernel_write::is_killed() {
            return Err(EINTR);
        }
        let size = inode.size();
        let access = target.access(pos, from.len() as u64, true, size)?;
        // What makes the file longer is sent to the daemon, with what comes before.
        let (step, ahead) = target.window.access(run, &access);
        let bypassed = match &step {
            Step::Use(range) => {
                let part = usize::try_from(access.len.min(range.hit.len))?;
                let offset = range.hit.window_offset;
                let written = target.window.memory().copy_from_iter(offset, part, from);
                drop(step);
                target.map_ahead(ahead);
                if written > 0 {
                    return Ok(written);
                }
                target.window.alive()?;
                kernel_write::fault_in(from, part)?;
                continue;
            }
            Step::Bypass(bytes) => *bytes,
            _ => access.len,
        };
        target.map_ahead(ahead);
        if !target.provide(step)? {
            let max = usize::try_from(bypassed)?.min(target.session.max_write());
            let payload = Payload::Pages(PageBuffer::from_iter(max, from)?);
            let (_, written, _) = write::send(iocb, payload)?;
            return Ok(written);
        }
    }
}
