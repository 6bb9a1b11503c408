// SPDX-License-Identifier: GPL-2.0

//! File locks kept by the daemon: they hold between guests, and between guests and the host.
//!
//! Which ones these are INIT agrees on: POSIX locks (`POSIX_LOCKS`), those of flock(2) (`FLOCK_LOCKS`). The others are locks of
//! this kernel. Of the daemon's this kernel keeps no account, as the C driver does not: what a process or an open file holds
//! goes with its last FLUSH or RELEASE, which tell the daemon whose locks to drop.
//!
//! # Signals
//!
//! A lock that somebody else has can be long in coming, so any signal ends the wait: the daemon is sent an INTERRUPT, and answers
//! the request with `EINTR`, or grants it at the same moment. A daemon that does not know INTERRUPT is waited for. Who is killed
//! does not wait at all. If the lock is then granted, it is given back (POSIX), or is held by the open file until that is closed.
//! The handle stays open at the daemon as long as it may still answer such a request: see [`Claims`].
//!
//! All other operations are those of a disk file system, in which POSIX has no place for `EINTR`: they wait on, unless the
//! signal is fatal. Programs rely on that, some of which are sent signals all the time (timers, the Go runtime).

use crate::{
    contents::claims::Claims,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        NodeInode, //
    },
    session::{
        stores::Batch,
        Session, //
    },
    transport::{
        lane::Lane,
        request::Request, //
    },
};
use fuse_proto::{
    Caller,
    Fh,
    FileLock,
    Getlk,
    InitFlags,
    Interrupt,
    LockOwner,
    Opcode,
    Setlk, //
    MAX_OFFSET,
};
use kernel::{
    current,
    prelude::*,
    sync::Arc,
    time::msecs_to_jiffies, //
};
use kernel_ext::task::{
    is_exiting,
    is_killed, //
};
use vfs::{
    file::{
        HeldLock,
        LockKind,
        LockOutcome,
        LockRequest, //
    },
    File,
    Inode, //
};
use virtio::{
    AtEnd,
    End,
    Outcome,
    Transfer, //
};

/// Milliseconds after which it is first looked whether an INTERRUPT has to be sent again; doubled each time.
const FIRST_LOOK: u32 = 10;
/// Milliseconds between two such looks at most.
const LAST_LOOK: u32 = 1000;

/// A request for a lock whose waiter was killed.
struct LostLock {
    session: Arc<Session>,
    op: Setlk,
    /// Whether the lock would belong to a process, which is gone, and not to the open file.
    of_process: bool,
    claims: Arc<Claims>,
}

impl End<Request> for LostLock {
    /// Leaves the rest to a work item. If memory is short the lock stays until DESTROY.
    fn ended(&self, _lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let transfer = transfer.clone();
        let _ = self
            .session
            .instance()
            .work()
            .try_spawn(GFP_ATOMIC, move || {
                let request = transfer.owner();
                let Some(lost) = request.abandoned::<Self>().or(request.end()) else {
                    return;
                };
                lost.settle(match outcome {
                    Outcome::Returned(used) | Outcome::Late(used) => {
                        lost.session.recheck(&transfer, &lost.op, used).is_ok()
                    }
                    Outcome::Aborted | Outcome::Unsent => false,
                });
            });
    }
}

impl LostLock {
    /// The daemon has answered: gives the lock back if it was `granted` to a process, and the handle. Sleeps for memory alone.
    fn settle(&self, granted: bool) {
        if granted && self.of_process && self.op.lock.kind != fuse_proto::LockKind::Unlock {
            let op = Setlk {
                lock: FileLock {
                    kind: fuse_proto::LockKind::Unlock,
                    ..self.op.lock
                },
                wait: false,
                ..self.op
            };
            // The handle is needed until that is answered, too.
            if self.session.set_lock_unwatched(&op, &self.claims).is_ok() {
                return;
            }
        }
        if let Some(release) = self.claims.leave() {
            self.session.give_back(&release);
        }
    }
}

fn wire_kind(kind: LockKind) -> fuse_proto::LockKind {
    match kind {
        LockKind::Read => fuse_proto::LockKind::Read,
        LockKind::Write => fuse_proto::LockKind::Write,
        LockKind::Unlock => fuse_proto::LockKind::Unlock,
    }
}

/// The lock of a request, and its owner.
fn wire_lock(
    request: &LockRequest<'_, VirtioFs>,
    session: &Session,
) -> Result<(FileLock, LockOwner)> {
    let lock = FileLock {
        start: u64::try_from(request.start())?,
        end: u64::try_from(request.end())?,
        kind: wire_kind(request.kind()),
        pid: request.pid(),
    };
    Ok((lock, session.lock_owner(request.owner())))
}

/// Who has a POSIX lock that is in the way. Sleeps.
pub(crate) fn get(request: &mut LockRequest<'_, VirtioFs>) -> Result {
    let file = request.file();
    let inode = file.inode();
    let session = inode.session()?;
    if !session.has(InitFlags::POSIX_LOCKS) {
        request.get_local();
        return Ok(());
    }
    let (lock, owner) = wire_lock(request, session)?;
    let op = Getlk {
        node: inode.node_id()?,
        fh: file.data().fh(),
        owner,
        lock,
    };
    let held = session.call(&op, &caller(inode.super_block()))?;
    let held = held.map(|held| -> Result<HeldLock> {
        Ok(HeldLock {
            kind: match held.kind {
                fuse_proto::LockKind::Read => LockKind::Read,
                fuse_proto::LockKind::Write => LockKind::Write,
                fuse_proto::LockKind::Unlock => LockKind::Unlock,
            },
            start: i64::try_from(held.start)?,
            end: i64::try_from(held.end)?,
            pid: held.pid,
        })
    });
    request.answer(held.transpose()?);
    Ok(())
}

/// Takes a POSIX lock, or gives it back. Sleeps.
pub(crate) fn set(request: &mut LockRequest<'_, VirtioFs>) -> Result<LockOutcome> {
    let file = request.file();
    if !file.inode().session()?.has(InitFlags::POSIX_LOCKS) {
        return request.set_local();
    }
    if request.is_of_open_file() {
        let claims = file.data().claims()?;
        claims.asks(false);
    } else {
        // Before a close looks for it.
        file.inode().data().locked();
    }
    set_remote(request, false)?;
    Ok(LockOutcome::Done)
}

/// Takes a lock of flock(2), or gives it back. Sleeps.
pub(crate) fn flock(request: &mut LockRequest<'_, VirtioFs>) -> Result {
    let file = request.file();
    if !file.inode().session()?.has(InitFlags::FLOCK_LOCKS) {
        return request.flock_local();
    }
    file.data().claims()?.asks(true);
    set_remote(request, true)
}

fn set_remote(request: &LockRequest<'_, VirtioFs>, flock: bool) -> Result {
    if request.wants_callback() {
        // There is no notification queue, by which the daemon could call.
        return Err(ENOLCK);
    }
    let file = request.file();
    let inode = file.inode();
    let session = inode.session()?;
    let (lock, owner) = wire_lock(request, session)?;
    let op = Setlk {
        node: inode.known()?.node(),
        fh: file.data().fh(),
        owner,
        lock,
        flock,
        wait: request.waits(),
    };
    let of_process = !flock && !request.is_of_open_file();
    let claims = file.data().claims()?;
    session
        .set_lock(&op, &caller(inode.super_block()), of_process, claims)
        .map_err(|e| {
            // The system call is made again, if the signal's handler says so; without a signal nobody would see to that.
            if e == EINTR && current!().signal_pending() {
                ERESTARTSYS
            } else {
                e
            }
        })
}

/// A process closes a file: its POSIX locks go, though the daemon knows no FLUSH. Sleeps.
pub(crate) fn drop_of_process(file: &File<VirtioFs>, owner: LockOwner) -> Result {
    let handle = file.data();
    drop_owned(file.inode(), handle.fh(), handle.pending()?, owner, false)
}

/// The daemon knows no handles, so that no RELEASE drops the locks of an open file. Sleeps.
pub(crate) fn drop_of_open_file(
    inode: &Inode<VirtioFs>,
    fh: Fh,
    claims: &Claims,
    pending: &Arc<Batch>,
    owner: LockOwner,
) {
    for flock in [true, false] {
        if claims.has_asked(flock) {
            // There is nobody to tell of an error.
            let _ = drop_owned(inode, fh, pending, owner, flock);
        }
    }
}

fn drop_owned(
    inode: &Inode<VirtioFs>,
    fh: Fh,
    pending: &Arc<Batch>,
    owner: LockOwner,
    flock: bool,
) -> Result {
    let op = Setlk {
        node: inode.known()?.node(),
        fh,
        owner,
        lock: FileLock {
            start: 0,
            end: MAX_OFFSET,
            kind: fuse_proto::LockKind::Unlock,
            pid: 0,
        },
        flock,
        wait: false,
    };
    let (session, caller) = (inode.session()?, caller(inode.super_block()));
    match is_exiting() || is_killed() {
        true => session
            .call_at_last(&op, &caller, pending)
            .unwrap_or(Ok(())),
        false => session.call(&op, &caller),
    }
}

impl Session {
    /// Sends SETLK or SETLKW and waits for its reply. Sleeps; a signal ends it as the [module](self) says, with `EINTR`.
    fn set_lock(
        self: &Arc<Self>,
        op: &Setlk,
        caller: &Caller,
        of_process: bool,
        claims: &Arc<Claims>,
    ) -> Result {
        let sent = self.begin(op, caller)?;
        if op.wait && sent.transfer().wait_for_signal().is_err() {
            self.interrupt(sent.transfer());
        }
        let mut given_up = false;
        let outcome = sent.wait_for_outcome(|| {
            claims.join();
            given_up = true;
            Some(AtEnd::new(LostLock {
                session: self.clone(),
                op: *op,
                of_process,
                claims: claims.clone(),
            }))
        })?;
        if given_up {
            // It ended at that moment. The file is open, so this was not the last one.
            let _ = claims.leave();
        }
        sent.check(op, outcome)
    }

    /// Sends a SETLK that nobody waits for, but that needs the handle, for which `claims` counts it already.
    fn set_lock_unwatched(self: &Arc<Self>, op: &Setlk, claims: &Arc<Claims>) -> Result {
        let lost = LostLock {
            session: self.clone(),
            op: *op,
            of_process: true,
            claims: claims.clone(),
        };
        self.send(op, &Caller::default(), Some(AtEnd::new(lost)))
    }

    /// Asks the daemon to give `request` up, and once more when it had not seen that yet (`EAGAIN`). Returns when the request
    /// has ended, the daemon has heard, or there is a fatal signal.
    fn interrupt(&self, request: &Transfer<Request>) {
        let op = Interrupt {
            target: request.owner().unique(),
        };
        let send = || {
            if self.lacks(Opcode::Interrupt) {
                return Err(ENOSYS);
            }
            self.instance().begin_interrupt(self.connection(), &op)
        };
        let Ok(mut sent) = send() else { return };
        let mut pause = FIRST_LOOK;
        while let Ok(false) = request.wait_at_most(msecs_to_jiffies(pause)) {
            pause = pause.saturating_mul(2).min(LAST_LOOK);
            let answer = match sent.transfer().outcome() {
                None => continue,
                Some(Outcome::Aborted) => return,
                Some(outcome) => sent.check(&op, outcome),
            };
            match answer {
                Err(e) if e == EAGAIN => match send() {
                    Ok(again) => sent = again,
                    Err(_) => return,
                },
                Err(e) if e == ENOSYS => return self.learn_lack(Opcode::Interrupt),
                _ => return,
            }
        }
    }
}
