// SPDX-License-Identifier: GPL-2.0

//! Handles: files and directories that the daemon has opened.

use crate::{
    contents::{
        claims::Claims,
        invalidate::resize,
        lock,
        opening::{
            call_open,
            call_open_and_ask,
            can_do_without,
            expected_to_keep,
            has_lost_name,
            has_opened,
            is_removed, //
        },
        writeback, //
    },
    dax::{
        copies::{
            outdate_by_host,
            outdate_locked, //
        },
        layout::break_layouts,
        state::Run, //
    },
    filesystem::VirtioFs,
    gate::Held,
    inode::{
        dirty,
        killpriv,
        listing::Cursor,
        walks,
        NodeInode, //
    },
    session::{
        epoch::{
            Asked,
            LastAsked, //
        },
        errand::leave_to_work,
        stores::Batch, //
    },
};
use fuse_proto::{
    Fh,
    InitFlags,
    LockOwner,
    Opcode,
    Open,
    OpenFlags,
    OpenReply,
    OpenReplyFlags,
    Release,
    ReleaseFlags, //
};
use kernel::{
    fs::file::flags,
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
};
use kernel_ext::task::{
    is_exiting,
    is_killed,
    is_worker, //
};
use vfs::{
    file::NewFile,
    Inode,
    InodeRef, //
};

/// An open file or directory of the daemon.
pub(crate) struct Handle {
    fh: Fh,
    flags: OpenReplyFlags,
    /// Whether there is something to release: not when the daemon does without OPEN.
    counted: bool,
    /// Whether it can write, and is among the inode's writers.
    writes: bool,
    /// Whether the daemon truncated the file when it was opened.
    truncated: bool,
    /// When it began to be opened: when the path walk asked for its attributes or later, but before the daemon was asked to open it.
    began: Asked,
    /// As of when its attributes are to be: see [`Handle::finish_open`].
    since: LastAsked,
    /// Of a file that is mapped from the window: how it is read and written.
    run: Option<KBox<Run>>,
    /// Set once it was asked for a lock that the daemon keeps.
    claims: SetOnce<Arc<Claims>>,
    /// Requests under way that nobody waits for: READs of readahead, and FLUSHes of a task which exits or was killed, as the daemon drops
    /// the locks of the task by them. The handle is given back after their answers.
    pending: SetOnce<Arc<Batch>>,
    /// For a directory: where its reader is in what is kept of the listing.
    cursor: Cursor,
}

impl Handle {
    /// The flags of the reply to OPEN.
    pub(crate) fn flags(&self) -> OpenReplyFlags {
        self.flags
    }

    /// The daemon's name for it.
    pub(crate) fn fh(&self) -> Fh {
        self.fh
    }

    /// Its locks at the daemon. Sleeps.
    pub(crate) fn claims(&self) -> Result<&Arc<Claims>> {
        loop {
            if let Some(claims) = self.claims.as_ref() {
                return Ok(claims);
            }
            // Should another one be setting it, it is there the next time.
            self.claims.populate(Claims::new()?);
        }
    }

    /// Requests that nobody waits for, and that need the handle. Sleeps.
    pub(crate) fn pending(&self) -> Result<&Arc<Batch>> {
        loop {
            if let Some(pending) = self.pending.as_ref() {
                return Ok(pending);
            }
            self.pending.populate(Batch::new()?);
        }
    }

    /// Nobody has the file open any more, so that no request joins: whether all have ended. To be called once.
    pub(crate) fn end_pending(&self) -> bool {
        self.pending.as_ref().is_none_or(|pending| {
            pending.leave();
            pending.is_done()
        })
    }

    /// Whether the daemon truncated the file when it was opened.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    /// A handle of a file that can do without OPEN, or is opened later.
    pub(crate) fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                fh: Fh(0),
                flags: OpenReplyFlags::KEEP_CACHE.with(OpenReplyFlags::CACHE_DIR),
                counted: false,
                writes: false,
                truncated: false,
                began: Asked::now(),
                since: LastAsked::new(),
                run: None,
                claims: SetOnce::new(),
                pending: SetOnce::new(),
                cursor: Cursor::new(),
            },
            GFP_KERNEL,
        )?)
    }

    /// The daemon has opened the file.
    pub(crate) fn opened(&mut self, reply: OpenReply) {
        self.fh = reply.fh;
        self.flags = reply.flags;
        self.counted = true;
    }

    /// Applies the flags of the reply to OPEN.
    pub(crate) fn finish_open(&self, inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>) {
        file.set_can_direct();
        if !self.is_direct() || file.flags() & flags::O_DIRECT != 0 {
            // Otherwise the VFS would allow it for reads and not for writes.
            file.set_nowait();
        }
        if self.flags.contains(OpenReplyFlags::STREAM) {
            file.set_stream();
        } else if self.flags.contains(OpenReplyFlags::NONSEEKABLE) {
            file.set_nonseekable();
        }
        if !self.keeps() {
            // Close-to-open: what others wrote before is seen from here on.
            self.drop_old(inode);
            // So is the size, without which that would be cut where it ended before: who uses attributes from before this call asks
            // first. Those that have come with the walk of this call, or with OPEN, are good.
            self.since.set(self.began);
            if inode.data().is_older_than(self.began) {
                inode.data().freshness().expire();
            }
        }
    }

    /// Has the daemon asked for the attributes if they are from before the file was opened. Sleeps.
    pub(crate) fn see_size(&self, inode: &Inode<VirtioFs>) -> Result {
        if inode.data().is_older_than(self.since.get()) && !dirty::is_ahead(inode) {
            inode.refresh(Some(self.fh))?;
        }
        Ok(())
    }

    /// Drops cached pages of the file. Sleeps.
    fn drop_old(&self, inode: &Inode<VirtioFs>) {
        if inode.is_dax() {
            outdate_by_host(inode);
        } else if !self.is_direct() && inode.wait_for_pages(0, i64::MAX).is_ok() {
            // Pages that can't be dropped are being read. A task that was killed reads none of them.
            let _ = inode.invalidate_pages();
        }
    }

    /// For a directory: where its reader is in what is kept of the listing, if that may be kept.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.flags
            .contains(OpenReplyFlags::CACHE_DIR)
            .then_some(&self.cursor)
    }

    /// How it is read and written, of a file that is mapped from the window.
    pub(crate) fn run(&self) -> Option<&Run> {
        self.run.as_deref()
    }

    /// Whether the daemon takes direct writes side by side.
    pub(crate) fn writes_in_parallel(&self) -> bool {
        self.flags.contains(OpenReplyFlags::PARALLEL_DIRECT_WRITES)
    }

    /// Whether the daemon says that what is cached is good.
    pub(crate) fn keeps(&self) -> bool {
        self.flags.contains(OpenReplyFlags::KEEP_CACHE)
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.flags.contains(OpenReplyFlags::DIRECT_IO)
    }

    pub(crate) fn open(
        inode: &Inode<VirtioFs>,
        file: &NewFile<VirtioFs>,
        dir: bool,
    ) -> Result<KBox<Self>> {
        let opcode = if dir { Opcode::Opendir } else { Opcode::Open };
        let session = inode.session()?;
        let node = inode.node_id()?;
        let repeated = walks::is_repeated_open();
        if !repeated && (has_lost_name(inode, file) || dir && is_removed(inode)) {
            walks::repeats_open();
            return Err(ESTALE);
        }
        // What must not fail later: without memory for the handle there is no OPEN.
        let mut handle = Self::new()?;
        if can_do_without(session, dir) && session.lacks(opcode) {
            return Ok(handle);
        }
        let mut op = Open {
            node,
            dir,
            flags: file.flags()
                & !(flags::O_CREAT | flags::O_EXCL | flags::O_NOCTTY | flags::O_TRUNC),
            open_flags: OpenFlags::NONE,
        };
        // A file that is executed cannot be opened for writing, so only then the VFS has looked whether it is.
        let truncate = session.has(InitFlags::ATOMIC_O_TRUNC)
            && file.flags() & flags::O_TRUNC != 0
            && file.flags() & flags::O_ACCMODE != flags::O_RDONLY;
        let walked = match dir {
            true => None,
            false => inode.data().take_walk_to_open(),
        };
        if let Some(asked) = walked {
            handle.began = asked.min(handle.began);
        }
        // O_TRUNC needs the attributes even before the first OPEN has told whether contents are kept.
        let asks = !dir && walked.is_none() && !expected_to_keep(inode).unwrap_or(!truncate);
        if truncate && asks {
            // Before it is emptied, as others may have it open. What has failed is asked for later.
            let _ = inode.ask(None);
            if !repeated && has_lost_name(inode, file) {
                walks::repeats_open();
                return Err(ESTALE);
            }
        }
        if truncate {
            op.flags |= flags::O_TRUNC;
            op.open_flags = killpriv::open_flags(session);
        }
        let mut locked = match truncate {
            true => Some((inode.lock_exclusive()?, inode.lock_invalidate_killable()?)),
            false => None,
        };
        if let Some((_, filling)) = &mut locked {
            break_layouts(inode, filling, 0, i64::MAX)?;
            outdate_locked(inode, filling, 0, i64::MAX);
            // What was written before comes before the truncation. Errors stay with the file.
            let _ = writeback::write_all(inode);
            inode.wait_for_pages(0, i64::MAX)?;
        }
        let opened = match asks && !truncate {
            true => call_open_and_ask(session, inode, &op),
            false => call_open(session, inode, &op),
        };
        if truncate {
            match &opened {
                // The page cache follows at once, as what others write from here on is the new contents.
                Ok(Some(_)) => resize(inode, 0),
                // Nobody knows whether it was truncated.
                _ => inode.data().changed(),
            }
            killpriv::mode_may_have_changed(inode);
        }
        drop(locked);
        let opened = opened.map_err(|e| match e == ENOENT && !repeated {
            // The inode is gone, and its name maybe another's: the VFS looks it up.
            true => {
                walks::repeats_open();
                ESTALE
            }
            false => e,
        });
        if let Some(reply) = opened? {
            handle.opened(reply);
            handle.truncated = truncate;
        }
        if handle.counted && !dir {
            if !asks && walked.is_none() && !handle.keeps() {
                // Nobody has expected that.
                let _ = inode.ask(Some(handle.fh));
            }
            if inode.is_stale() || !repeated && has_lost_name(inode, file) {
                handle.release(inode, false, file.flags(), 0);
                walks::repeats_open();
                return Err(ESTALE);
            }
        }
        Ok(handle)
    }

    /// It is a handle of this inode: from here on what mappings write is written back through it, if it can write.
    pub(crate) fn join(&mut self, inode: &Inode<VirtioFs>, flags: u32) -> Result {
        if self.counted {
            has_opened(inode, self.flags);
        }
        if inode.is_dax() {
            let window = inode.super_block().data().window();
            self.run = Some(window.ok_or(ENODEV)?.new_run()?);
        }
        if flags & flags::O_ACCMODE != flags::O_RDONLY {
            inode.data().writers().add(self.fh, flags)?;
            self.writes = true;
        }
        Ok(())
    }

    /// Nothing is written back through this handle any more. Sleeps; a fatal signal ends that with `EINTR`, and then there may be.
    ///
    /// Without `waits` it ends so where there is something to wait for.
    pub(crate) fn leave_writers(&self, inode: &Inode<VirtioFs>, waits: bool) -> Result {
        if !self.writes {
            return Ok(());
        }
        let write_all = || {
            if !waits {
                return match dirty::is_clean(inode) {
                    true => Ok(()),
                    false => Err(EINTR),
                };
            }
            if !is_killed() {
                // Errors stay with the file.
                let _ = writeback::write_all(inode);
            }
            match is_killed() {
                true => Err(EINTR),
                false => Ok(()),
            }
        };
        // With a handle for it while there is one.
        write_all()?;
        inode.data().writers().remove(self.fh, waits)?;
        // What others have begun to write back through it.
        write_all()
    }

    /// Nobody has the file open any more: gives the handle back when it is not needed. Sleeps.
    fn part(&self, inode: &Inode<VirtioFs>, flags: u32, owner: usize) {
        let _ = self.leave_writers(inode, true);
        if let Some(pending) = self.pending.as_ref().filter(|_| is_worker()) {
            let _ = pending.wait();
        }
        self.release(inode, false, flags, owner);
    }

    /// Gives the handle back, and with it the locks of the open file, `owner`.
    pub(crate) fn release(&self, inode: &Inode<VirtioFs>, dir: bool, flags: u32, owner: usize) {
        // Also of a file whose inode is stale: the handle is as good as ever.
        let (Ok(session), Ok(known)) = (inode.session(), inode.known()) else {
            return;
        };
        let owner = session.lock_owner(owner);
        if !self.counted {
            if let (Some(claims), Ok(pending)) = (self.claims.as_ref(), self.pending()) {
                lock::drop_of_open_file(inode, self.fh, claims, pending, owner);
            }
            return;
        }
        let op = Release {
            node: known.node(),
            dir,
            fh: self.fh,
            flags,
            release_flags: ReleaseFlags::NONE,
            lock_owner: LockOwner::default(),
        };
        let op = match self.claims.as_ref() {
            Some(claims) => claims.close(op, owner),
            None => Some(op),
        };
        if let Some(op) = op {
            session.give_back(&op);
        }
    }
}

/// A file that nobody has open any more, but whose handle is needed until everything is written back: that is done when this is
/// dropped, by a task that may wait for the daemon.
pub(crate) struct Parting {
    held: Held,
    flags: u32,
    owner: usize,
    handle: KBox<Handle>,
}

impl Parting {
    /// Has it done by a work item. An unmount waits for that, and a task that exits for a while. Sleeps.
    pub(crate) fn later(inode: InodeRef<VirtioFs>, flags: u32, owner: usize, handle: KBox<Handle>) {
        let (Ok(session), Some(pass)) = (
            inode.session().cloned(),
            inode.super_block().data().gate().enter(),
        ) else {
            return handle.part(&inode, flags, owner);
        };
        let parting = Self {
            held: Held::new(pass, inode),
            flags,
            owner,
            handle,
        };
        // If there is no work item, it is dropped here.
        let errand = leave_to_work(&session, move || drop(parting));
        if is_exiting() && !is_killed() {
            if let Some(errand) = errand {
                errand.wait(session.instance());
            }
        }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.handle.part(&self.held.inode, self.flags, self.owner);
    }
}
