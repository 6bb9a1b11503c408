// SPDX-License-Identifier: GPL-2.0

//! WRITE requests of write-back, and their ends.
//!
//! C: `fuse_writepage_end()`

use crate::{
    session::{
        freshness::Freshness,
        stores::Member,
        Session, //
    },
    transport::{
        lane::Lane,
        request::{
            check,
            Request, //
        },
    },
};
use fuse_proto::{
    Caller,
    Write, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::write::WritebackRange;
use virtio::{
    AtEnd,
    End,
    Outcome,
    Payload,
    Transfer, //
};

/// A WRITE of folios under writeback.
struct PageWrite {
    session: Arc<Session>,
    op: Write,
    /// Of the file that is written.
    freshness: Arc<Freshness>,
    member: Member,
    /// How many more requests there may be, should the daemon take them in part.
    more: usize,
}

/// Writes folios back and goes on; their writeback ends when the daemon has taken them. Sleeps, as [`Session::send_pages`].
///
/// What the daemon leaves of them is sent again, as POSIX has programs do with write(2), until it takes it or says what is in
/// the way (`ENOSPC`). Not without end: a daemon that takes less than a page at a time gets the file an `EIO`.
pub(crate) fn write_pages(
    session: &Arc<Session>,
    op: &Write,
    range: WritebackRange,
    freshness: Arc<Freshness>,
) -> Result {
    let end = PageWrite {
        session: session.clone(),
        op: *op,
        freshness,
        member: session.stores().begin(),
        more: range.len().div_ceil(PAGE_SIZE),
    };
    let payload = Payload::Writeback(range);
    session.send_pages(op, &Caller::default(), payload, AtEnd::new(end))
}

impl End<Request> for PageWrite {
    fn ended(&self, lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let written = match outcome {
            Outcome::Returned(used) => {
                lane.has_stored();
                check(lane, transfer, &self.op, used)
            }
            _ => Err(ENOTCONN),
        };
        // While the folios are still marked: attributes that were asked for before this are older than they.
        self.freshness.changed();
        self.freshness.expire();
        match (written, transfer.payload()) {
            (Ok(bytes), Payload::Writeback(_)) if bytes < self.op.size as usize => {
                self.write_rest_later(transfer.clone(), bytes);
            }
            (written, Payload::Writeback(range)) => {
                range.end(written.map(|_| ()));
                self.member.leave();
            }
            _ => self.member.leave(),
        }
    }
}

impl PageWrite {
    /// The daemon took `written` bytes, and not all: has the rest sent. Callable from any context; for want of memory the range is
    /// dropped with the transfer, which ends its writeback with an error.
    fn write_rest_later(&self, transfer: Arc<Transfer<Request>>, written: usize) {
        let work = self.session.instance().work();
        let _ = work.try_spawn(GFP_ATOMIC, move || {
            let (Some(this), Payload::Writeback(range)) =
                (transfer.owner().end::<Self>(), transfer.payload())
            else {
                return;
            };
            if let Err(e) = this.write_rest(range, written) {
                range.end(Err(e));
            }
            this.member.leave();
        });
    }

    fn write_rest(&self, range: &WritebackRange, written: usize) -> Result {
        let rest = range.rest(written)?;
        let end = Self {
            session: self.session.clone(),
            op: Write {
                offset: self.op.offset.checked_add(written as u64).ok_or(EIO)?,
                size: u32::try_from(rest.len())?,
                ..self.op
            },
            freshness: self.freshness.clone(),
            member: self.member.another(),
            more: self.more.checked_sub(1).ok_or(EIO)?,
        };
        let (op, payload) = (end.op, Payload::Writeback(rest));
        self.session
            .send_with(&op, &Caller::default(), payload, Some(AtEnd::new(end)))?;
        Ok(())
    }
}
