// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.

use crate::{
    cred::caller,
    dax::{
        self,
        Faults,
        Run, //
    },
    dir::closed,
    direct,
    dirty,
    epoch::{
        Asked,
        LastAsked, //
    },
    errand::Errand,
    filesystem::VirtioFs,
    gate::Held,
    inode::NodeInode,
    ioctl,
    killpriv,
    listing::Cursor,
    lock::{
        self,
        Claims, //
    },
    opening::{
        call_open,
        call_open_and_ask,
        can_do_without,
        expected_to_keep,
        has_lost_name,
        has_opened,
        is_removed, //
    },
    page_cache::{
        ends_early,
        read_cached, //
    },
    readdir,
    session::Session,
    setattr::resize,
    stores::Batch,
    unmap::Unmapped,
    walks,
    write,
    writeback, //
};
use fuse_proto::{
    Fh,
    Flush,
    InitFlags,
    LockOwner,
    Lseek,
    Opcode, //
    Open,
    OpenFlags,
    OpenReply,
    OpenReplyFlags,
    Release,
    ReleaseFlags,
};
use kernel::{
    fs::file::flags,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
};
use kernel_ext::task::{
    is_exiting,
    is_kernel_thread,
    is_killed,
    is_worker, //
};
use vfs::{
    file::{
        DirEmitter,
        FallocateMode,
        IoctlRequest,
        Kiocb,
        LockOutcome,
        LockRequest,
        Mapping,
        NewFile,
        Released,
        Splice,
        Whence, //
    },
    File,
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
    /// FLUSHes that a task which exits or was killed may have left under way: the handle is given back after their answers, as the
    /// daemon drops the locks of the task by it.
    flushes: SetOnce<Arc<Batch>>,
    /// For a directory: where its reader is in what is kept of the listing.
    cursor: Cursor,
}

impl Handle {
    /// The daemon's name for it.
    pub(crate) fn fh(&self) -> Fh {
        self.fh
    }

    /// What it may have locked at the daemon. Sleeps.
    pub(crate) fn claims(&self) -> Result<&Arc<Claims>> {
        loop {
            if let Some(claims) = self.claims.as_ref() {
                return Ok(claims);
            }
            // Should another one be setting it, it is there the next time.
            self.claims.populate(Claims::new()?);
        }
    }

    /// FLUSHes, and what is sent for them, that may be left under way. Sleeps.
    pub(crate) fn flushes(&self) -> Result<&Arc<Batch>> {
        loop {
            if let Some(flushes) = self.flushes.as_ref() {
                return Ok(flushes);
            }
            self.flushes.populate(Batch::new()?);
        }
    }

    /// Nobody has the file open any more, and there is no other FLUSH: whether all have been answered. To be called once.
    fn end_flushes(&self) -> bool {
        self.flushes.as_ref().is_none_or(|flushes| {
            flushes.leave();
            flushes.is_done()
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
                flushes: SetOnce::new(),
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

    /// What the daemon said about the open file is made so.
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
    fn see_size(&self, inode: &Inode<VirtioFs>) -> Result {
        if inode.data().is_older_than(self.since.get()) && !dirty::is_ahead(inode) {
            inode.refresh(Some(self.fh))?;
        }
        Ok(())
    }

    /// What was read of the file before is not seen any more. Sleeps.
    fn drop_old(&self, inode: &Inode<VirtioFs>) {
        if inode.is_dax() {
            dax::outdate_by_host(inode);
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
    fn keeps(&self) -> bool {
        self.flags.contains(OpenReplyFlags::KEEP_CACHE)
    }

    fn is_direct(&self) -> bool {
        self.flags.contains(OpenReplyFlags::DIRECT_IO)
    }

    fn open(inode: &Inode<VirtioFs>, file: &NewFile<VirtioFs>, dir: bool) -> Result<KBox<Self>> {
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
            dax::break_layouts(inode, filling, 0, i64::MAX)?;
            dax::outdate_locked(inode, filling, 0, i64::MAX);
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
    fn leave_writers(&self, inode: &Inode<VirtioFs>, waits: bool) -> Result {
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
        if let Some(flushes) = self.flushes.as_ref().filter(|_| is_worker()) {
            let _ = flushes.wait();
        }
        self.release(inode, false, flags, owner);
    }

    /// Gives the handle back, and with it the locks of the open file, `owner`.
    fn release(&self, inode: &Inode<VirtioFs>, dir: bool, flags: u32, owner: usize) {
        // Also of a file whose inode is stale: the handle is as good as ever.
        let (Ok(session), Ok(known)) = (inode.session(), inode.known()) else {
            return;
        };
        let owner = session.lock_owner(owner);
        if !self.counted {
            if self.claims.as_ref().is_some() {
                lock::drop_of_open_file(inode, self, owner);
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
struct Parting {
    held: Held,
    flags: u32,
    owner: usize,
    handle: KBox<Handle>,
}

/// Has a work item write back what is dirty of a file, or do what else takes a task that may wait. Nothing if there is none. Sleeps for
/// memory alone.
pub(crate) fn leave_to_work(
    session: &Session,
    work: impl FnOnce() + Send + 'static,
) -> Option<Arc<Errand>> {
    let errand = Errand::new(session.instance()).ok()?;
    let done = errand.clone();
    let spawned = session
        .instance()
        .patient_work()
        .try_spawn(GFP_KERNEL, move || {
            work();
            done.end();
        });
    spawned.is_ok().then_some(errand)
}

/// A task exits: has everything written back that is dirty of a file, and waits for that as long as such a task does. Sleeps.
fn write_all_in_exit(file: &File<VirtioFs>) {
    let inode = file.inode();
    if dirty::is_clean(inode) {
        return;
    }
    let (Ok(session), Some(pass)) = (inode.session(), inode.super_block().data().gate().enter())
    else {
        return;
    };
    let held = Held::new(pass, file.hold_inode());
    let errand = leave_to_work(session, move || {
        // Errors stay with the file.
        let _ = writeback::write_all(&held.inode);
    });
    if let Some(errand) = errand {
        errand.wait(session.instance());
    }
}

impl Parting {
    /// Has it done by a work item. An unmount waits for that, and a task that exits for a while. Sleeps.
    fn later(inode: InodeRef<VirtioFs>, flags: u32, owner: usize, handle: KBox<Handle>) {
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

/// What the VFS asks of open regular files.
pub(crate) struct RegularFiles;

#[vtable]
impl vfs::file::Operations for RegularFiles {
    type FileSystem = VirtioFs;

    const LEASES: bool = true;

    fn open(inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>) -> Result<KBox<Handle>> {
        let mut handle = Handle::open(inode, file, false)?;
        if let Err(e) = handle.join(inode, file.flags()) {
            handle.release(inode, false, file.flags(), 0);
            return Err(e);
        }
        handle.finish_open(inode, file);
        Ok(handle)
    }

    /// What is dirty is written back first, while there is a handle for it. Who is killed does not wait for that, who exits not for ever,
    /// and a task of the kernel not at all: it closes files of others, too.
    fn release(inode: &Inode<VirtioFs>, file: &Released<'_, VirtioFs>, handle: KBox<Handle>) {
        let (flags, owner) = (file.flags(), file.lock_owner());
        closed(file.dentry());
        let waits = !is_exiting() && !is_kernel_thread();
        let flushed = handle.end_flushes();
        match handle.leave_writers(inode, waits) {
            Ok(()) if flushed => handle.release(inode, false, flags, owner),
            _ => Parting::later(file.hold_inode(), flags, owner, handle),
        }
    }

    /// A FLUSH reports the errors of writes and drops locks. A file that was opened for reading, of an inode that nobody has
    /// locked, has neither, so none is sent; the C driver asks the daemon all the same.
    ///
    /// Who is killed learns of no errors, and does not wait: neither for what is dirty nor for the daemon, which would keep the
    /// process from ending. In the C driver it does. Who exits learns of none either, and waits for a while (see `patience`): so long
    /// that others find on the host what it has stored, and its locks gone, if the daemon answers.
    fn flush(file: &File<VirtioFs>, owner: usize) -> Result {
        let handle = file.data();
        let inode = file.inode();
        let session = inode.session()?;
        let writes = file.flags() & flags::O_ACCMODE != flags::O_RDONLY;
        let locked = inode.data().may_be_locked();
        let (killed, exits) = (is_killed(), is_exiting());
        let written = if !writes || killed {
            Ok(())
        } else if exits {
            write_all_in_exit(file);
            Ok(())
        } else if inode.is_dax() {
            dax::catch_up(inode);
            Ok(())
        } else {
            file.write_and_wait_range(0, i64::MAX)
                .and_then(|()| writeback::sync_times(inode))
        };
        let reports = writes && !handle.flags.contains(OpenReplyFlags::NOFLUSH);
        if !locked && (written.is_err() || !reports) {
            return written;
        }
        let op = Flush {
            node: inode.known()?.node(),
            fh: handle.fh,
            lock_owner: session.lock_owner(owner),
        };
        let caller = caller(inode.super_block());
        let answer = match (killed || exits) && !session.lacks(Opcode::Flush) {
            true => session
                .call_at_last(&op, &caller, handle.flushes()?)
                .unwrap_or(Ok(())),
            false => session.call(&op, &caller),
        };
        let flushed = match answer {
            Err(e) if e == ENOSYS && locked => lock::drop_of_process(file, op.lock_owner),
            Err(e) if e == ENOSYS => Ok(()),
            done => done,
        };
        written.and(flushed)
    }

    fn ioctl(file: &File<VirtioFs>, request: &IoctlRequest) -> Result<i32> {
        ioctl::ioctl(file, request)
    }

    fn get_lock(request: &mut LockRequest<'_, VirtioFs>) -> Result {
        lock::get(request)
    }

    fn set_lock(request: &mut LockRequest<'_, VirtioFs>) -> Result<LockOutcome> {
        lock::set(request)
    }

    fn flock(request: &mut LockRequest<'_, VirtioFs>) -> Result {
        lock::flock(request)
    }

    fn llseek(file: &File<VirtioFs>, offset: i64, whence: Whence) -> Result<i64> {
        let inode = file.inode();
        let kind = match whence {
            Whence::Set | Whence::Current => return file.seek(offset, whence),
            Whence::End => {
                inode.refresh_if_expired(Some(file.data().fh))?;
                return file.seek(offset, whence);
            }
            Whence::Data => fuse_proto::Whence::Data,
            Whence::Hole => fuse_proto::Whence::Hole,
        };
        let op = Lseek {
            node: inode.node_id()?,
            fh: file.data().fh,
            offset: u64::try_from(offset).map_err(|_| ENXIO)?,
            whence: kind,
        };
        // The daemon finds what it has.
        if !inode.is_dax() {
            inode.write_and_wait()?;
        }
        match inode.session()?.call(&op, &caller(inode.super_block())) {
            Ok(found) => file.set_position(i64::try_from(found)?),
            Err(e) if e == ENOSYS => {
                inode.refresh_if_expired(Some(file.data().fh))?;
                file.seek(offset, whence)
            }
            Err(e) => Err(e),
        }
    }

    fn read_iter(mut iocb: Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let handle = iocb.data();
        if iocb.file().inode().is_dax() {
            return dax::read(iocb, to);
        }
        if handle.is_direct() || iocb.is_direct() {
            return direct::read(iocb, to);
        }
        let inode = iocb.file().inode();
        let beyond = iocb.pos().saturating_add_unsigned(to.len() as u64) > inode.size();
        let matters =
            beyond || inode.session()?.has(InitFlags::AUTO_INVAL_DATA) || inode.data().is_doubted();
        if matters && !dirty::is_ahead(inode) {
            if iocb.is_nowait() && !inode.is_fresh() {
                return Err(EAGAIN);
            }
            inode.refresh_if_expired(Some(handle.fh))?;
        }
        read_cached(&mut iocb, to)
    }

    fn write_iter(mut iocb: Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
        if iocb.file().inode().is_dax() {
            return dax::write(iocb, from);
        }
        if iocb.data().is_direct() || iocb.is_direct() {
            return direct::write(iocb, from);
        }
        if dirty::keeps(iocb.file().inode()) {
            return writeback::write(&mut iocb, from);
        }
        write::write(&mut iocb, from)
    }

    fn fsync(file: &File<VirtioFs>, start: i64, end: i64, datasync: bool) -> Result {
        write::fsync(file, start, end, datasync)
    }

    fn fallocate(file: &File<VirtioFs>, mode: FallocateMode, offset: i64, len: i64) -> Result {
        write::fallocate(file, mode, offset, len)
    }

    fn copy_file_range(
        from: &File<VirtioFs>,
        from_pos: i64,
        to: &File<VirtioFs>,
        to_pos: i64,
        len: usize,
    ) -> Result<usize> {
        write::copy_file_range(from, from_pos, to, to_pos, len)
    }

    fn splice_read(splice: Splice<'_, VirtioFs>) -> Result<usize> {
        let file = splice.file();
        let direct = file.data().is_direct() || file.flags() & flags::O_DIRECT != 0;
        if direct || file.inode().is_dax() {
            return splice.by_copy();
        }
        let inode = file.inode();
        let fh = Some(file.data().fh);
        let beyond = splice.range().end > inode.size();
        match beyond && ends_early(inode) {
            true => inode.refresh(fh)?,
            false => inode.refresh_if_expired(fh)?,
        }
        // Who comes to the end calls once more, which asks again if that is older than what is before it.
        splice.from_page_cache(inode.size())
    }

    /// What lies behind the end of the file, as it is known, cannot be touched: so that is no older than the open file.
    fn mmap(file: &File<VirtioFs>, mapping: &mut Mapping<'_, VirtioFs>) -> Result {
        file.data().see_size(file.inode())?;
        if file.inode().is_dax() {
            return mapping.map_dax::<Faults>();
        }
        if file.data().is_direct() {
            // A shared mapping promises to be coherent with what others read and write on the host, which pages of this kernel
            // are not: the daemon has to agree to that.
            let allowed = file.inode().session()?.has(InitFlags::DIRECT_IO_ALLOW_MMAP);
            if mapping.is_shared() && !allowed {
                return Err(ENODEV);
            }
            file.inode().wait_for_pages(0, i64::MAX)?;
            let _ = file.inode().invalidate_pages();
        }
        mapping.map::<Unmapped>()
    }
}

/// What the VFS asks of open directories.
pub(crate) struct DirectoryFiles;

#[vtable]
impl vfs::file::DirectoryOperations for DirectoryFiles {
    type FileSystem = VirtioFs;

    fn open(inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>) -> Result<KBox<Handle>> {
        let handle = Handle::open(inode, file, true)?;
        if !handle.keeps() {
            inode.data().forget_listing(inode);
        }
        Ok(handle)
    }

    fn release(inode: &Inode<VirtioFs>, file: &Released<'_, VirtioFs>, handle: KBox<Handle>) {
        closed(file.dentry());
        handle.release(inode, true, file.flags(), file.lock_owner());
    }

    fn iterate(file: &File<VirtioFs>, emitter: &mut DirEmitter<'_, VirtioFs>) -> Result {
        readdir::iterate(file, emitter)
    }

    fn fsync(file: &File<VirtioFs>, datasync: bool) -> Result {
        write::sync_handle(file, true, datasync)
    }

    fn ioctl(file: &File<VirtioFs>, request: &IoctlRequest) -> Result<i32> {
        ioctl::ioctl(file, request)
    }
}
