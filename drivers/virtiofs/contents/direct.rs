// SPDX-License-Identifier: GPL-2.0

//! Direct I/O: `O_DIRECT`, and files that the daemon wants read directly (`FOPEN_DIRECT_IO`).
//!
//! The device reads and writes the user's own pages, which stay pinned until it has returned them, whatever becomes of the task.
//! Buffers that are not a user's, as of sendfile(2), go through pages of the kernel.
//!
//! What one request cannot carry is done in parts, several of them under way side by side where the daemon agreed to that
//! (`ASYNC_DIO`). What is transferred is what lies before the first byte that a part lacks.

use crate::{
    contents::{
        aio::{
            self,
            PartOp, //
        },
        invalidate::{
            drop_cached,
            ended_short, //
        },
        write_checks, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        dirty,
        killpriv,
        NodeInode, //
    },
    session::Session,
    transport::request::Sent, //
};
use fuse_proto::{
    InitFlags,
    Operation,
    Read,
    Write, //
};
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    pages::PageBuffer,
    source::Taken,
    task::account_write,
    user_pages::UserPages, //
};
use vfs::{
    file::Kiocb,
    inode::SharedGuard, //
};
use virtio::Payload;

/// Parts of one read or write that are under way at most: their pages are pinned.
const SIDE_BY_SIDE: usize = 32;

/// Reads from the position of `iocb` into `to`. Sleeps, unless `iocb` says not to, and then not for the daemon. A fatal signal
/// ends it with what was read so far.
pub(crate) fn read(mut iocb: Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
    let (inode, pos) = (iocb.file().inode(), iocb.pos());
    let Some(last) = to.len().checked_sub(1) else {
        return Ok(0);
    };
    let last = pos.saturating_add_unsigned(last as u64);
    if inode.has_pages() {
        if iocb.is_nowait() && inode.has_pages_in(pos, last) {
            return Err(EAGAIN);
        }
        if !dirty::is_ahead(inode) {
            // What mappings have written and nobody has written back yet.
            inode.write_and_wait_range(pos, last)?;
        } else if iocb.is_nowait() {
            return Err(EAGAIN);
        } else {
            // All of it: holes are read up to where the daemon's file ends.
            inode.write_and_wait()?;
        }
    }
    let session = inode.session()?;
    inode.data().reads();
    let max = session.max_payload();
    // A part beyond the end of the file is not asked for before it is known that the file has grown.
    if can_queue(&iocb, to.len(), max) && (to.len() <= max || last < inode.size()) {
        let pinned = pin_all(to.len(), || {
            UserPages::of_destination(to, max, max / PAGE_SIZE)
        })?;
        if !pinned.is_empty() {
            let op = PartOp::Read(read_op(&iocb)?);
            return aio::queue(iocb, op, pinned);
        }
    }
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    let (read, _) = read_part(&iocb, to, to.len())?;
    iocb.set_pos(pos.saturating_add_unsigned(read as u64));
    Ok(read)
}

/// Reads up to `max` bytes from the position of `iocb`, which stays, to `to`: how many, and whether these are all. If they are
/// not, the file ends there, as far as one can tell, and it is not said where `to` stands. Sleeps.
pub(crate) fn read_part(
    iocb: &Kiocb<'_, VirtioFs>,
    to: &mut IovIterDest<'_>,
    max: usize,
) -> Result<(usize, bool)> {
    let inode = iocb.file().inode();
    let mut reading = Reading {
        iocb,
        left: max.min(to.len()),
        to,
        through_kernel: false,
    };
    let (read, all) = in_parts(inode.session()?, &mut reading)?;
    if !all {
        ended_short(inode, iocb.pos().saturating_add_unsigned(read as u64));
    }
    Ok((read, all))
}

/// Writes from `from` to the position of `iocb`. Sleeps, unless `iocb` says not to, and then not for the daemon. A fatal signal
/// ends it with what was written so far.
pub(crate) fn write(mut iocb: Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    let inode = iocb.file().inode();
    if iocb.is_nowait() && iocb.is_append() {
        return Err(EAGAIN);
    }
    let shared = lock_shared(&mut iocb, from)?;
    let exclusive = match &shared {
        Some(_) => None,
        None if iocb.is_nowait() => Some(inode.try_lock_exclusive().ok_or(EAGAIN)?),
        None => Some(inode.lock_exclusive()?),
    };
    if exclusive.is_some() && write_checks::begin(&mut iocb, from)? == 0 {
        return Ok(0);
    }
    let (start, len) = (iocb.pos(), from.len());
    let last = start.saturating_add_unsigned((len as u64).saturating_sub(1));
    if iocb.is_nowait() && inode.has_pages_in(start, last) {
        return Err(EAGAIN);
    }
    drop_cached(inode, start, len)?;
    let session = inode.session()?;
    let (max, pages) = (session.max_write(), session.max_payload() / PAGE_SIZE);
    // A file grows in order.
    if can_queue(&iocb, len, max) && !extends(&iocb, from) {
        let pinned = pin_all(len, || UserPages::of_source(from, max, pages))?;
        if !pinned.is_empty() {
            let op = PartOp::Write(write_op(&iocb)?);
            account_write(len);
            return aio::queue(iocb, op, pinned);
        }
    }
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    account_write(len);
    let written = write_part(&iocb, from, len).map(|(written, _)| written);
    // Readers may have brought in again what was there before. Of what failed nobody knows how much was written.
    let dropped = drop_cached(inode, start, len);
    drop((shared, exclusive));
    let written = written?;
    dropped?;
    iocb.set_pos(start.saturating_add_unsigned(written as u64));
    iocb.write_sync(written)
}

/// Writes up to `max` bytes of `from` to the position of `iocb`, which stays: how many, and whether these are all. `from` stands
/// behind them. The inode is locked. Sleeps.
pub(crate) fn write_part(
    iocb: &Kiocb<'_, VirtioFs>,
    from: &mut IovIterSource<'_>,
    max: usize,
) -> Result<(usize, bool)> {
    let inode = iocb.file().inode();
    let mut from = Taken::new(from);
    let mut writing = Writing {
        extends: extends(iocb, from.source()),
        iocb,
        left: max.min(from.source().len()),
        from: from.source(),
    };
    let written = in_parts(inode.session()?, &mut writing);
    from.keep(written.as_ref().map_or(0, |(bytes, _)| *bytes));
    killpriv::mode_may_have_changed(inode);
    if !matches!(written, Ok((_, true))) {
        // Nobody knows what was written of the rest.
        inode.data().changed();
    }
    written
}

/// Whether a write goes beyond the end of the file.
fn extends(iocb: &Kiocb<'_, VirtioFs>, from: &IovIterSource<'_>) -> bool {
    let end = iocb.pos().saturating_add_unsigned(from.len() as u64);
    end > iocb.file().inode().size()
}

/// Locks the inode for a write that goes on beside others, and checks it: where the daemon allows that
/// (`FOPEN_PARALLEL_DIRECT_WRITES`), the file does not grow, and nothing but contents changes. With [`None`] it has to be
/// locked exclusively. `EAGAIN` when it must not wait for the lock.
fn lock_shared<'a>(
    iocb: &mut Kiocb<'a, VirtioFs>,
    from: &mut IovIterSource<'_>,
) -> Result<Option<SharedGuard<'a, VirtioFs>>> {
    if !iocb.data().writes_in_parallel() || iocb.is_append() || extends(iocb, from) {
        return Ok(None);
    }
    let inode = iocb.file().inode();
    let locked = match iocb.is_nowait() {
        true => inode.try_lock_shared().ok_or(EAGAIN)?,
        false => inode.lock_shared()?,
    };
    let checked = iocb.write_checks(from)? > 0 && !extends(iocb, from);
    Ok((checked && iocb.modified_nothing().is_ok()).then_some(locked))
}

/// Whether nobody needs to wait for a transfer of `len` bytes, with requests of `max` bytes.
fn can_queue(iocb: &Kiocb<'_, VirtioFs>, len: usize, max: usize) -> bool {
    let agreed = |session: &Arc<Session>| session.has(InitFlags::ASYNC_DIO);
    !iocb.is_sync()
        && len <= max.saturating_mul(SIDE_BY_SIDE)
        && iocb.file().inode().session().is_ok_and(agreed)
}

/// Pins a buffer of `len` bytes with what `next` pins each time; empty if it is not a user's. If not all of it can be pinned,
/// it is what comes before.
fn pin_all(
    len: usize,
    mut next: impl FnMut() -> Result<Option<UserPages>>,
) -> Result<KVec<UserPages>> {
    let mut pinned = KVec::new();
    let mut left = len;
    while left > 0 {
        match next() {
            Ok(Some(pages)) => {
                left = left.saturating_sub(pages.len());
                pinned.push(pages, GFP_KERNEL)?;
            }
            Ok(None) => break,
            Err(e) if pinned.is_empty() => return Err(e),
            Err(_) => break,
        }
    }
    Ok(pinned)
}

/// A READ at the position of `iocb`, of no bytes yet. Where locks are mandatory at the daemon, those of this process are not in
/// the way.
fn read_op(iocb: &Kiocb<'_, VirtioFs>) -> Result<Read> {
    let file = iocb.file();
    Ok(Read {
        node: file.inode().node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(iocb.pos())?,
        size: 0,
        flags: file.flags(),
        lock_owner: Some(file.inode().session()?.own_locks()),
    })
}

/// A WRITE at the position of `iocb`, of no bytes yet, as [`read_op`].
fn write_op(iocb: &Kiocb<'_, VirtioFs>) -> Result<Write> {
    let file = iocb.file();
    let session = file.inode().session()?;
    Ok(Write {
        node: file.inode().node_id()?,
        fh: file.data().fh(),
        offset: u64::try_from(iocb.pos())?,
        size: 0,
        flags: file.flags(),
        write_flags: killpriv::write_flags(session),
        lock_owner: Some(session.own_locks()),
    })
}

/// A part that was sent.
struct SentPart<'s, O> {
    op: O,
    asked: usize,
    sent: Sent<'s>,
}

/// Parts that were sent and not waited for yet. Most transfers are one part, for which nothing is allocated.
struct UnderWay<T> {
    first: Option<T>,
    others: KVec<T>,
}

impl<T> UnderWay<T> {
    fn new() -> Self {
        Self {
            first: None,
            others: KVec::new(),
        }
    }

    fn len(&self) -> usize {
        self.others
            .len()
            .saturating_add(usize::from(self.first.is_some()))
    }

    /// Adds what `send` sends. There is room for it before it is sent: then there is no way back.
    fn push(&mut self, send: impl FnOnce() -> Result<T>) -> Result {
        if self.len() == 0 {
            self.first = Some(send()?);
            return Ok(());
        }
        self.others.reserve(1, GFP_KERNEL)?;
        Ok(self.others.push(send()?, GFP_KERNEL)?)
    }

    /// Takes the oldest.
    fn pop(&mut self) -> Option<T> {
        self.first.take().or_else(|| self.others.remove(0).ok())
    }
}

/// A read or write in parts.
trait Parts {
    type Op: Operation<Reply = usize>;

    /// Whether there is more to send.
    fn is_left(&self) -> bool;

    /// How many parts may be under way when the next one begins `ahead` bytes after the position.
    fn side_by_side(&self, ahead: usize) -> usize;

    /// Sends the part that begins `ahead` bytes after the position.
    fn send<'s>(&mut self, session: &'s Session, ahead: usize) -> Result<SentPart<'s, Self::Op>>;

    /// `done` bytes of a part were transferred, which begins `before` bytes after the position.
    fn received(&mut self, part: &SentPart<'_, Self::Op>, before: usize, done: usize) -> Result;
}

/// Does all parts, and waits for them: how many bytes were transferred, and whether these are all that were asked for. Sleeps.
/// When it returns, the device has returned all parts, unless a fatal signal came.
fn in_parts<P: Parts>(session: &Arc<Session>, parts: &mut P) -> Result<(usize, bool)> {
    let mut under_way = UnderWay::new();
    let agreed = session.has(InitFlags::ASYNC_DIO);
    let (mut ahead, mut total): (usize, usize) = (0, 0);
    let (mut sending, mut counting) = (true, true);
    let mut error = None;
    loop {
        while sending && parts.is_left() {
            let limit = if agreed { parts.side_by_side(ahead) } else { 1 };
            if under_way.len() >= limit.min(SIDE_BY_SIDE) {
                break;
            }
            let sent = under_way.push(|| {
                let part = parts.send(session, ahead)?;
                ahead = ahead.saturating_add(part.asked);
                Ok(part)
            });
            if let Err(e) = sent {
                error = Some(e);
                sending = false;
            }
        }
        let Some(part) = under_way.pop() else {
            break;
        };
        let done = part
            .sent
            .wait(&part.op, || session.undo(&part.op))
            .and_then(|done| parts.received(&part, total, done).map(|()| done));
        if !counting {
            continue;
        }
        match done {
            Ok(done) => {
                total = total.saturating_add(done);
                counting = done == part.asked;
            }
            Err(e) => {
                error = Some(e);
                counting = false;
            }
        }
        sending &= counting;
    }
    match error {
        Some(e) if total == 0 => Err(e),
        _ => Ok((total, total == ahead)),
    }
}

/// A read in parts.
struct Reading<'a, 'k, 'b, 'd> {
    iocb: &'a Kiocb<'k, VirtioFs>,
    to: &'b mut IovIterDest<'d>,
    /// Bytes that were not asked for yet.
    left: usize,
    through_kernel: bool,
}

impl Parts for Reading<'_, '_, '_, '_> {
    type Op = Read;

    fn is_left(&self) -> bool {
        self.left > 0
    }

    fn side_by_side(&self, ahead: usize) -> usize {
        let start = self.iocb.pos().saturating_add_unsigned(ahead as u64);
        if self.through_kernel || start >= self.iocb.file().inode().size() {
            return 1;
        }
        SIDE_BY_SIDE
    }

    fn send<'s>(&mut self, session: &'s Session, ahead: usize) -> Result<SentPart<'s, Read>> {
        let max = session.max_payload().min(self.left);
        let pages = session.max_payload() / PAGE_SIZE;
        let payload = match UserPages::of_destination(self.to, max, pages)? {
            Some(pages) => Payload::User(pages),
            None => {
                self.through_kernel = true;
                Payload::Pages(PageBuffer::new(max)?)
            }
        };
        let template = read_op(self.iocb)?;
        let asked = payload.len();
        let op = Read {
            offset: template.offset.saturating_add(ahead as u64),
            size: u32::try_from(asked)?,
            ..template
        };
        let caller = caller(self.iocb.file().inode().super_block());
        let sent = session.begin_with(&op, &caller, payload, None)?;
        self.left = self.left.saturating_sub(asked);
        Ok(SentPart { op, asked, sent })
    }

    fn received(&mut self, part: &SentPart<'_, Read>, _before: usize, done: usize) -> Result {
        match part.sent.transfer().payload() {
            Payload::User(pages) => pages.mark_dirty(),
            Payload::Pages(pages) => pages.copy_to_iter(done, self.to)?,
            _ => return Err(EIO),
        }
        Ok(())
    }
}

/// A write in parts.
struct Writing<'a, 'k, 'b, 'd> {
    iocb: &'a Kiocb<'k, VirtioFs>,
    from: &'b mut IovIterSource<'d>,
    /// Bytes that were not sent yet.
    left: usize,
    extends: bool,
}

impl Parts for Writing<'_, '_, '_, '_> {
    type Op = Write;

    fn is_left(&self) -> bool {
        self.left > 0
    }

    fn side_by_side(&self, _ahead: usize) -> usize {
        if self.extends {
            return 1;
        }
        SIDE_BY_SIDE
    }

    fn send<'s>(&mut self, session: &'s Session, ahead: usize) -> Result<SentPart<'s, Write>> {
        let max = session.max_write().min(self.left);
        let pages = session.max_payload() / PAGE_SIZE;
        let payload = match UserPages::of_source(self.from, max, pages)? {
            Some(pages) => Payload::User(pages),
            None => Payload::Pages(PageBuffer::from_iter(max, self.from)?),
        };
        let template = write_op(self.iocb)?;
        let asked = payload.len();
        let op = Write {
            offset: template.offset.saturating_add(ahead as u64),
            size: u32::try_from(asked)?,
            ..template
        };
        let caller = caller(self.iocb.file().inode().super_block());
        let sent = session.begin_with(&op, &caller, payload, None)?;
        self.left = self.left.saturating_sub(asked);
        Ok(SentPart { op, asked, sent })
    }

    fn received(&mut self, _part: &SentPart<'_, Write>, before: usize, done: usize) -> Result {
        let end = self
            .iocb
            .pos()
            .saturating_add_unsigned(before.saturating_add(done) as u64);
        write_checks::grow(self.iocb.file().inode(), end);
        Ok(())
    }
}
