// SPDX-License-Identifier: GPL-2.0

//! Operation tables of open files and directories.

use crate::{
    contents::{
        dax_fault::Faults,
        dax_io,
        dax_times,
        direct,
        file::{
            Handle,
            Parting, //
        },
        lock,
        page_cache::{
            ends_early,
            read_cached, //
        },
        unmap::Unmapped,
        write,
        writeback, //
    },
    filesystem::VirtioFs,
    gate::Held,
    inode::{
        cred::caller,
        dirty,
        NodeInode, //
    },
    metadata::ioctl,
    names::{
        lookup::closed,
        readdir, //
    },
    session::errand::leave_to_work, //
};
use fuse_proto::{
    Flush,
    InitFlags,
    Lseek,
    Opcode,
    OpenReplyFlags, //
};
use kernel::{
    fs::file::flags,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};
use kernel_ext::task::{
    is_exiting,
    is_kernel_thread,
    is_killed, //
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
    Inode, //
};

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
        let flushed = handle.end_pending();
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
            dax_times::catch_up(inode);
            Ok(())
        } else {
            file.write_and_wait_range(0, i64::MAX)
                .and_then(|()| writeback::sync_times(inode))
        };
        let reports = writes && !handle.flags().contains(OpenReplyFlags::NOFLUSH);
        if !locked && (written.is_err() || !reports) {
            return written;
        }
        let op = Flush {
            node: inode.known()?.node(),
            fh: handle.fh(),
            lock_owner: session.lock_owner(owner),
        };
        let caller = caller(inode.super_block());
        let answer = match (killed || exits) && !session.lacks(Opcode::Flush) {
            true => session
                .call_at_last(&op, &caller, handle.pending()?)
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
                inode.refresh_if_expired(Some(file.data().fh()))?;
                return file.seek(offset, whence);
            }
            Whence::Data => fuse_proto::Whence::Data,
            Whence::Hole => fuse_proto::Whence::Hole,
        };
        let op = Lseek {
            node: inode.node_id()?,
            fh: file.data().fh(),
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
                inode.refresh_if_expired(Some(file.data().fh()))?;
                file.seek(offset, whence)
            }
            Err(e) => Err(e),
        }
    }

    fn read_iter(mut iocb: Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let handle = iocb.data();
        if iocb.file().inode().is_dax() {
            return dax_io::read(iocb, to);
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
            inode.refresh_if_expired(Some(handle.fh()))?;
        }
        read_cached(&mut iocb, to)
    }

    fn write_iter(mut iocb: Kiocb<'_, VirtioFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
        if iocb.file().inode().is_dax() {
            return dax_io::write(iocb, from);
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
        let fh = Some(file.data().fh());
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
