// SPDX-License-Identifier: GPL-2.0

//! Asynchronous direct I/O: io_submit(2) and io_uring.
//!
//! The parts of one are under way side by side and end in any order, each in the interrupt that brings its reply. The one that
//! ends last completes the whole, there and then unless that has to sleep: when a page of the user's has to be marked dirty
//! again, when the page cache may hold what was there before a write, or when what was written is to reach stable storage. That is
//! left to a work item.

use crate::{
    contents::invalidate::{
        drop_cached,
        ended_short, //
    },
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        killpriv,
        NodeInode, //
    },
    session::Session,
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
    Read,
    Write, //
};
use kernel::{
    new_work,
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    },
    workqueue::{
        impl_has_work,
        Work,
        WorkItem, //
    },
};
use kernel_ext::user_pages::UserPages;
use vfs::file::{
    Kiocb,
    QueuedKiocb, //
};
use virtio::{
    AtEnd,
    End,
    Outcome,
    Payload,
    Transfer, //
};

/// How far a transfer in parts has come, which end in any order: up to the first byte that is missing.
struct Progress {
    end: usize,
    error: Option<Error>,
}

impl Progress {
    /// A transfer of `len` bytes, which has come to its end unless a part says otherwise.
    fn new(len: usize) -> Self {
        Self {
            end: len,
            error: None,
        }
    }

    /// The part from byte `at` on of `asked` bytes has ended.
    fn part(&mut self, at: usize, asked: usize, outcome: Result<usize>) {
        let (end, error) = match outcome {
            Ok(done) if done >= asked => return,
            Ok(done) => (at.saturating_add(done), None),
            Err(e) => (at, Some(e)),
        };
        if end < self.end {
            *self = Self { end, error };
        }
    }

    /// How many bytes were transferred from the start on, or why none was.
    fn result(&self) -> Result<usize> {
        match self.error {
            Some(e) if self.end == 0 => Err(e),
            _ => Ok(self.end),
        }
    }
}

/// What changes while parts are under way.
struct State {
    /// Set before the first part is sent, until it is completed.
    iocb: Option<QueuedKiocb<VirtioFs>>,
    /// Parts that have not ended, and one as long as parts are being sent.
    left: usize,
    progress: Progress,
    /// Parts whose pages have to be marked dirty again.
    cleaned: KVec<Arc<Transfer<Request>>>,
}

/// A read or write that nobody waits for.
#[pin_data]
pub(crate) struct Aio {
    pos: i64,
    len: usize,
    writes: bool,
    /// Under it only the lock of the work queue is taken.
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    work: Work<Aio>,
}

impl_has_work! {
    impl HasWork<Self> for Aio { self.work }
}

impl WorkItem for Aio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.complete(true);
    }
}

/// Sends what `op` asks for at the position of `iocb`, in parts of the size of what is `pinned`, and lets it go on. Sleeps for
/// memory alone. Returns `EIOCBQUEUED` when it went on.
pub(crate) fn queue(
    iocb: Kiocb<'_, VirtioFs>,
    op: PartOp,
    pinned: KVec<UserPages>,
) -> Result<usize> {
    let (inode, pos) = (iocb.file().inode(), iocb.pos());
    let caller = caller(inode.super_block());
    let session = inode.session()?;
    let mut len: usize = 0;
    for pages in &pinned {
        len = len.saturating_add(pages.len());
        if op.reads() {
            // If nobody writes them back meanwhile, this need not be done when the reply is there.
            pages.mark_dirty();
        }
    }
    // What can fail comes before the promise to complete it.
    let aio = Aio::new(pos, len, &op, pinned.len())?;
    let queued = iocb.queue()?;
    aio.state.lock().iocb = Some(queued);
    let mut at = 0;
    for pages in pinned {
        let asked = pages.len();
        if let Err(e) = aio.send(session, &caller, op.part(at, asked), at, pages) {
            aio.end(at, asked, Err(e), None);
        }
        at += asked;
    }
    // From here on parts alone keep it from its end.
    aio.end(len, 0, Ok(0), None);
    Err(EIOCBQUEUED)
}

impl Aio {
    /// The transfer of `len` bytes at `pos`, in at most `parts` parts. It is completed when all have ended and the caller's own, an
    /// empty one. Sleeps for memory.
    fn new(pos: i64, len: usize, op: &PartOp, parts: usize) -> Result<Arc<Self>> {
        let state = State {
            iocb: None,
            left: 1,
            progress: Progress::new(len),
            cleaned: KVec::with_capacity(parts, GFP_KERNEL)?,
        };
        Arc::pin_init(
            pin_init!(Self {
                pos,
                len,
                writes: !op.reads(),
                state <- new_spinlock_irq!(state, "Aio::state"),
                work <- new_work!("virtiofs::Aio::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Sends a part. If that fails, it is on the caller to end it.
    fn send(
        self: &Arc<Self>,
        session: &Session,
        caller: &Caller,
        op: PartOp,
        at: usize,
        pages: UserPages,
    ) -> Result {
        self.state.lock().left += 1;
        let payload = Payload::User(pages);
        let part = Part {
            aio: self.clone(),
            at,
            op,
        };
        let end = Some(AtEnd::new(part));
        let _sent = match op {
            PartOp::Read(op) => session.begin_with(&op, caller, payload, end)?,
            PartOp::Write(op) => session.begin_with(&op, caller, payload, end)?,
        };
        Ok(())
    }

    /// A part has ended. Callable from any context.
    fn end(
        self: &Arc<Self>,
        at: usize,
        asked: usize,
        outcome: Result<usize>,
        cleaned: Option<&Arc<Transfer<Request>>>,
    ) {
        let mut state = self.state.lock();
        state.progress.part(at, asked, outcome);
        if let Some(transfer) = cleaned {
            // There is room for all parts.
            let _ = state.cleaned.push_within_capacity(transfer.clone());
        }
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        let sleeps = match &state.iocb {
            Some(iocb) if self.writes => {
                let wrote = state.progress.result().is_ok_and(|bytes| bytes > 0);
                wrote && (iocb.is_synchronous() || iocb.file().inode().has_pages())
            }
            _ => !state.cleaned.is_empty(),
        };
        let session = state
            .iocb
            .as_ref()
            .map(|iocb| iocb.file().inode().session());
        if let (true, Some(Ok(session))) = (sleeps, session) {
            // It is queued here alone, so that this cannot fail.
            let _ = session.instance().work().enqueue(self.clone());
            return;
        }
        drop(state);
        self.complete(false);
    }

    /// Completes it, all parts having ended. Callable from any context, unless it `may_sleep`.
    fn complete(&self, may_sleep: bool) {
        let mut state = self.state.lock();
        let result = state.progress.result();
        let cleaned = core::mem::take(&mut state.cleaned);
        let iocb = state.iocb.take();
        drop(state);
        let Some(mut iocb) = iocb else { return };
        if may_sleep {
            for transfer in &cleaned {
                if let Payload::User(pages) = transfer.payload() {
                    pages.mark_dirty();
                }
            }
        }
        let done = result.unwrap_or(0);
        iocb.advance(done);
        let inode = iocb.file().inode();
        if self.writes {
            inode.data().changed();
            killpriv::mode_may_have_changed(inode);
            if may_sleep {
                // Readers may have brought in again what was there before.
                let _ = drop_cached(inode, self.pos, done);
            }
        } else if result.is_ok() && done < self.len {
            ended_short(inode, self.pos.saturating_add_unsigned(done as u64));
        }
        let result = if self.writes && may_sleep && done > 0 {
            iocb.write_sync(done)
        } else {
            result
        };
        iocb.complete(result);
    }
}

/// What is asked for, as a whole or as a part.
#[derive(Clone, Copy)]
pub(crate) enum PartOp {
    /// Bytes to read.
    Read(Read),
    /// Bytes to write.
    Write(Write),
}

impl PartOp {
    fn reads(&self) -> bool {
        matches!(self, Self::Read(_))
    }

    /// The part of `asked` bytes, which a request can carry, from byte `at` on.
    fn part(mut self, at: usize, asked: usize) -> Self {
        let (Self::Read(Read { offset, size, .. }) | Self::Write(Write { offset, size, .. })) =
            &mut self;
        *offset = offset.saturating_add(at as u64);
        *size = asked as u32;
        self
    }
}

/// A part of a read or write that nobody waits for.
struct Part {
    aio: Arc<Aio>,
    at: usize,
    op: PartOp,
}

impl End<Request> for Part {
    fn ended(&self, lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let Outcome::Returned(used) = outcome else {
            self.aio
                .end(self.at, transfer.payload().len(), Err(ENOTCONN), None);
            return;
        };
        let outcome = match &self.op {
            PartOp::Read(op) => check(lane, transfer, op, used),
            PartOp::Write(op) => check(lane, transfer, op, used),
        };
        let cleaned = match transfer.payload() {
            Payload::User(pages) if self.op.reads() => !pages.are_dirty(),
            _ => false,
        };
        let cleaned = cleaned.then_some(transfer);
        self.aio
            .end(self.at, transfer.payload().len(), outcome, cleaned);
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_aio)]
mod tests {
    use super::*;

    fn progress(parts: &[(usize, usize, Result<usize>)]) -> Result<usize> {
        let mut progress = Progress::new(300);
        for (at, asked, outcome) in parts {
            progress.part(*at, *asked, *outcome);
        }
        progress.result()
    }

    #[test]
    fn whole() {
        assert_eq!(progress(&[]), Ok(300));
        assert_eq!(
            progress(&[(200, 100, Ok(100)), (0, 100, Ok(100)), (100, 100, Ok(100))]),
            Ok(300)
        );
    }

    /// What comes after a part that is short does not count, in whatever order they end.
    #[test]
    fn short() {
        assert_eq!(progress(&[(100, 100, Ok(7)), (200, 100, Ok(100))]), Ok(107));
        assert_eq!(progress(&[(200, 100, Ok(0)), (100, 100, Ok(7))]), Ok(107));
        assert_eq!(
            progress(&[(100, 100, Ok(7)), (200, 100, Err(EIO))]),
            Ok(107)
        );
        assert_eq!(progress(&[(0, 100, Ok(0))]), Ok(0));
    }

    /// An error shows only if nothing was transferred before it.
    #[test]
    fn errors() {
        assert_eq!(progress(&[(0, 100, Err(EIO))]), Err(EIO));
        assert_eq!(
            progress(&[(200, 100, Err(EIO)), (0, 100, Err(ENOSPC))]),
            Err(ENOSPC)
        );
        assert_eq!(progress(&[(100, 100, Err(EIO))]), Ok(100));
        assert_eq!(progress(&[(100, 100, Err(EIO)), (0, 100, Ok(0))]), Ok(0));
    }
}
