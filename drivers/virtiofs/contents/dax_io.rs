// SPDX-License-Identifier: GPL-2.0

//! read(2) and write(2) of DAX files.
//!
//! Bytes are copied from and to the window where a range shows them, or where it pays to make one; the others are asked of the
//! daemon, or sent to it. All of them are the host's page cache in the end, so it does not matter which way they go.
//!
//! While bytes are copied the range is pinned, and no page fault is taken: the user's page may need a range, too, and all of them
//! may be pinned. It is brought in before, with nothing held. `i_rwsem` is held shared by a read, while it copies, so that no
//! truncation takes away what is read; a write holds it from its first byte to its last.

use crate::{
    contents::{
        dax_times::stored,
        direct,
        write_checks::{
            self,
            grow, //
        },
    },
    dax::{
        copies::outdate,
        mapped_file::MappedFile,
        window::{
            Step,
            Window, //
        },
    },
    filesystem::VirtioFs,
    inode::NodeInode, //
};
use dax_map::{
    Access,
    Need,
    Plan, //
};
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    dax::fault_in,
    task::is_killed,
    write as kernel_write, //
};
use vfs::{
    file::Kiocb,
    Inode, //
};

/// What it takes to read or write a file.
struct Target<'a> {
    inode: &'a Inode<VirtioFs>,
    window: &'a Arc<Window>,
    file: &'a Arc<MappedFile>,
}

impl<'a> Target<'a> {
    fn of(inode: &'a Inode<VirtioFs>) -> Result<Self> {
        Ok(Self {
            inode,
            window: inode.super_block().data().window().ok_or(ENODEV)?,
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
            Step::Map(plan) => self.window.map(self.file, &plan, false),
            Step::Remap(plan) => self.window.remap(self.inode, self.file, &plan, false),
            Step::Wait(awaited) => self.window.wait(awaited),
            Step::Use(_) | Step::Bypass(_) | Step::Copy | Step::Nothing => return Ok(false),
        };
        match provided {
            Err(e) if e == EINTR => Err(e),
            done => Ok(done.is_ok()),
        }
    }

    /// See [`Window::map_ahead`].
    #[inline]
    fn map_ahead(&self, plan: Option<Plan>) {
        if let Some(plan) = plan {
            self.window.map_ahead(self.file, plan);
        }
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
            Ok(piece) => {
                total = total.saturating_add(piece.bytes);
                iocb.set_pos(iocb.pos().saturating_add_unsigned(piece.bytes as u64));
                if piece.is_last || (!to.is_empty() && is_killed()) {
                    break;
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(total)
}

/// What was read or written at once.
struct Piece {
    bytes: usize,
    /// There is nothing more to be had, or no telling where the user's buffer stands.
    is_last: bool,
}

impl Piece {
    /// Copied from or to the window.
    fn copied(bytes: usize) -> Self {
        Self {
            bytes,
            is_last: false,
        }
    }

    /// Asked of the daemon, or sent to it; `all` that was to be.
    fn transferred((bytes, all): (usize, bool)) -> Self {
        Self {
            bytes,
            is_last: !all || bytes == 0,
        }
    }
}

/// Reads some bytes from the position on.
fn read_some(iocb: &Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<Piece> {
    let inode = iocb.file().inode();
    let run = iocb.data().run().ok_or(EIO)?;
    let target = Target::of(inode)?;
    let pos = iocb.pos();
    let mut tried = false;
    loop {
        if core::mem::replace(&mut tried, true) && is_killed() {
            return Err(EINTR);
        }
        let lock = match iocb.is_nowait() {
            true => inode.try_lock_shared().ok_or(EAGAIN)?,
            false => inode.lock_shared()?,
        };
        let size = inode.size();
        let left = u64::try_from(size.saturating_sub(pos)).unwrap_or(0);
        let len = left.min(to.len() as u64);
        if len == 0 {
            return Ok(Piece::transferred((0, false)));
        }
        let access = target.access(pos, len, false, size)?;
        let (range, ahead) = match target.window.access(run, &access) {
            (Step::Use(range), ahead) => (range, ahead),
            (step, ahead) => {
                drop(lock);
                if iocb.is_nowait() {
                    return Err(EAGAIN);
                }
                target.map_ahead(ahead);
                let bypassed = match &step {
                    Step::Bypass(bytes) => Some(*bytes),
                    _ => None,
                };
                if target.provide(step)? {
                    continue;
                }
                if bypassed.is_none() {
                    target.window.count_bypass(false);
                }
                let bytes = usize::try_from(bypassed.unwrap_or(len))?;
                return direct::read_part(iocb, to, bytes).map(Piece::transferred);
            }
        };
        let part = usize::try_from(len.min(range.hit.len))?;
        let offset = range.hit.window_offset;
        let read = target.window.memory().copy_to_iter(offset, part, to);
        drop(range);
        drop(lock);
        target.map_ahead(ahead);
        if read > 0 {
            return Ok(Piece::copied(read));
        }
        target.window.alive()?;
        fault_in(to, part)?;
    }
}

/// Writes from `from` to the position of `iocb`. Sleeps. A fatal signal ends it with what was written so far.
///
/// The window is changed while the inode is not locked, and then it all begins anew. When some bytes are written the lock stays, as
/// others' writes must not come in between: what is not mapped then is sent.
pub(crate) fn write(mut iocb: Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let inode = iocb.file().inode();
    let target = Target::of(inode)?;
    let (mut total, mut may_map): (usize, bool) = (0, true);
    let mut locked = inode.lock_exclusive()?;
    if write_checks::begin(&mut iocb, from)? == 0 {
        return Ok(0);
    }
    while !from.is_empty() {
        match write_some(&target, &iocb, from, may_map && total == 0) {
            Ok(Written::Piece(piece)) => {
                total = total.saturating_add(piece.bytes);
                let end = iocb.pos().saturating_add_unsigned(piece.bytes as u64);
                iocb.set_pos(end);
                grow(inode, end);
                if piece.is_last || (!from.is_empty() && is_killed()) {
                    break;
                }
            }
            Ok(Written::Needs(step)) => {
                drop(locked);
                may_map = target.provide(step)?;
                if is_killed() {
                    return Err(EINTR);
                }
                locked = inode.lock_exclusive()?;
                if write_checks::begin(&mut iocb, from)? == 0 {
                    return Ok(0);
                }
            }
            Err(e) if total == 0 => return Err(e),
            Err(_) => break,
        }
    }
    drop(locked);
    iocb.write_sync(total)
}

/// How far a write has come.
enum Written<'a> {
    Piece(Piece),
    /// Nothing was written: the window is to be changed first.
    Needs(Step<'a>),
}

/// Writes some bytes from the position on. The inode is locked.
fn write_some<'a>(
    target: &Target<'a>,
    iocb: &Kiocb<'_, VirtioFs>,
    from: &mut IovIterSource<'_>,
    may_map: bool,
) -> Result<Written<'a>> {
    let run = iocb.data().run().ok_or(EIO)?;
    loop {
        let size = target.inode.size();
        let access = target.access(iocb.pos(), from.len() as u64, true, size)?;
        // What makes the file longer is sent to the daemon, with what comes before.
        let (step, ahead) = target.window.access(run, &access);
        let step = match step {
            Step::Use(range) => {
                let part = usize::try_from(access.len.min(range.hit.len))?;
                let offset = range.hit.window_offset;
                let written = target.window.memory().copy_from_iter(offset, part, from);
                drop(range);
                target.map_ahead(ahead);
                if written > 0 {
                    stored(target.inode);
                    return Ok(Written::Piece(Piece::copied(written)));
                }
                target.window.alive()?;
                kernel_write::fault_in(from, part)?;
                if is_killed() {
                    return Err(EINTR);
                }
                continue;
            }
            step => step,
        };
        target.map_ahead(ahead);
        let bypassed = match step {
            Step::Bypass(bytes) => bytes,
            step if may_map => return Ok(Written::Needs(step)),
            _ => {
                target.window.count_bypass(true);
                access.len
            }
        };
        let written = direct::write_part(iocb, from, usize::try_from(bypassed)?);
        let last = iocb.pos().saturating_add_unsigned(bypassed);
        outdate(target.inode, iocb.pos(), last.saturating_sub(1));
        return Ok(Written::Piece(Piece::transferred(written?)));
    }
}
