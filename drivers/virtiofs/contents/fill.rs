// SPDX-License-Identifier: GPL-2.0

//! READs into the page cache, and the end of file that a short READ tells.

use crate::{
    session::{
        epoch::{
            is_doubted,
            Asked, //
        },
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
    Read, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::folio::{
    FolioFile,
    FolioRange, //
};
use virtio::{
    AtEnd,
    End,
    Outcome,
    Payload,
    Transfer, //
};

/// What is known of folios that are to be filled.
pub(crate) struct Fill {
    pub(crate) session: Arc<Session>,
    pub(crate) op: Read,
    /// Of the file that is read.
    pub(crate) freshness: Arc<Freshness>,
    /// When this is asked for.
    pub(crate) asked: Asked,
    /// How long the file was then, as far as this kernel knew.
    pub(crate) size: u64,
    /// Whether writes to the file are kept here first.
    pub(crate) keeps_writes: bool,
    /// The handle is needed until this has ended.
    pub(crate) pending: Member,
}

/// Reads into folios and goes on; they are unlocked when the reply is there. Sleeps, as [`Session::send_pages`].
pub(crate) fn read_pages(caller: &Caller, folios: FolioRange, fill: Fill) -> Result {
    let (session, op) = (fill.session.clone(), fill.op);
    session.send_pages(&op, caller, Payload::Folios(folios), AtEnd::new(fill))
}

impl End<Request> for Fill {
    fn ended(&self, lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let filled = match outcome {
            Outcome::Returned(used) => check(lane, transfer, &self.op, used),
            _ => Err(ENOTCONN),
        };
        match filled {
            Ok(bytes) if self.is_short(bytes) => self.end_short_later(transfer, bytes),
            Ok(bytes) => {
                self.is_whole(bytes);
                transfer.end_read(filled);
            }
            Err(_) => transfer.end_read(filled),
        }
        // Not with the memory of the request, which a device keeps from a session that was aborted.
        self.pending.leave();
    }
}

impl Fill {
    /// Whether so many bytes may be fewer than the file has there, by its size here. Callable from any context.
    fn is_short(&self, bytes: usize) -> bool {
        let end = self.op.offset.saturating_add(bytes as u64);
        (bytes as u64) < u64::from(self.op.size)
            && (end < self.size
                || self.freshness.is_overtaken(self.asked)
                || self.freshness.knows_later_size(self.asked)
                || is_doubted(self.asked))
    }

    /// So many bytes have come, and the file has no more there. If it ends where it did before, that is known as of now: of a READ
    /// that brings all it can, nobody knows how much the file has beyond. Callable from any context.
    fn is_whole(&self, bytes: usize) {
        let end = self.op.offset.saturating_add(bytes as u64);
        if (bytes as u64) < u64::from(self.op.size) && end == self.size {
            self.freshness.size_known(self.asked);
        }
    }

    /// Fewer bytes have come than the file had there: has that looked at by a work item, before anybody sees the folios. The size
    /// of a file is locked by what interrupts can't take. Callable from any context; for want of memory the read fails.
    fn end_short_later(&self, transfer: &Arc<Transfer<Request>>, bytes: usize) {
        let short = transfer.clone();
        let spawned = self
            .session
            .instance()
            .work()
            .try_spawn(GFP_ATOMIC, move || {
                if let Some(fill) = short.owner().end::<Self>() {
                    short.end_read_if(bytes, |file| fill.judge_short(bytes, file));
                }
            });
        if spawned.is_err() {
            self.freshness.is_to_be_read_again();
            transfer.end_read(Err(ENOMEM));
        }
    }

    /// So few bytes have come: the file ends there, unless its size here is newer than that, and then they are of no use.
    ///
    /// Who waits for the folios finds the size as it is now: it changes before they are up to date. With writes that are kept here
    /// first, it is a hole that the daemon does not know of yet.
    fn judge_short(&self, bytes: usize, file: &mut FolioFile<'_>) -> Result {
        let end = self.op.offset.saturating_add(bytes as u64);
        let (end, size) = (i64::try_from(end)?, file.size());
        if end >= size {
            return Ok(());
        }
        self.freshness.expire();
        if self.keeps_writes && file.is_dirty() {
            return Ok(());
        }
        let is_newer = self.freshness.is_overtaken(self.asked)
            || self.freshness.knows_later_size(self.asked)
            || is_doubted(self.asked);
        if is_newer {
            self.freshness.is_to_be_read_again();
            return Err(EAGAIN);
        }
        file.set_size(end);
        self.freshness.was_cut(size);
        self.freshness.size_known(self.asked);
        Ok(())
    }
}
