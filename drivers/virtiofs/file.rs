// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.

use crate::{
    direct,
    inode::NodeInode,
    readdir,
    superblock::{
        caller,
        VirtioFs, //
    },
};
use fuse_proto::{
    Fh,
    Flush,
    InitFlags,
    Lseek,
    Opcode, //
    Open,
    OpenFlags,
    OpenReply,
    OpenReplyFlags,
};
use kernel::{
    fs::file::flags,
    iov::IovIterDest,
    prelude::*, //
};
use vfs::{
    file::{
        DirEmitter,
        Kiocb,
        Mapping,
        NewFile,
        Released,
        Splice,
        Whence, //
    },
    File,
    Inode, //
};

/// An open file or directory of the daemon.
pub(crate) struct Handle {
    fh: Fh,
    flags: OpenReplyFlags,
    /// Whether there is something to release: not when the daemon does without OPEN.
    counted: bool,
}

impl Handle {
    /// The daemon's name for it.
    pub(crate) fn fh(&self) -> Fh {
        self.fh
    }

    fn is_direct(&self) -> bool {
        self.flags.contains(OpenReplyFlags::DIRECT_IO)
    }

    fn open(inode: &Inode<VirtioFs>, file: &NewFile<VirtioFs>, dir: bool) -> Result<KBox<Self>> {
        let (opcode, without) = if dir {
            (Opcode::Opendir, InitFlags::NO_OPENDIR_SUPPORT)
        } else {
            (Opcode::Open, InitFlags::NO_OPEN_SUPPORT)
        };
        let session = inode.session()?;
        let node = inode.node_id()?;
        let can_do_without = session.has(without);
        // What must not fail later: without memory for the handle there is no OPEN.
        let mut handle = KBox::new(
            Self {
                fh: Fh(0),
                flags: OpenReplyFlags::KEEP_CACHE,
                counted: false,
            },
            GFP_KERNEL,
        )?;
        if can_do_without && session.lacks(opcode) {
            return Ok(handle);
        }
        let op = Open {
            node,
            dir,
            flags: file.flags()
                & !(flags::O_CREAT | flags::O_EXCL | flags::O_NOCTTY | flags::O_TRUNC),
            open_flags: OpenFlags::NONE,
        };
        match session.call(&op, &caller(inode.super_block())) {
            Ok(OpenReply { fh, flags }) => {
                handle.fh = fh;
                handle.flags = flags;
                handle.counted = true;
            }
            Err(e) if e == ENOSYS && can_do_without => {}
            Err(e) => return Err(e),
        }
        Ok(handle)
    }

    fn release(&self, inode: &Inode<VirtioFs>, dir: bool, flags: u32) {
        if !self.counted {
            return;
        }
        // Also of a file whose inode is stale: the handle is as good as ever.
        if let (Ok(session), Ok(known)) = (inode.session(), inode.known()) {
            session.release(known.node(), dir, self.fh, flags);
        }
    }
}

/// What the VFS asks of open regular files.
pub(crate) struct RegularFiles;

#[vtable]
impl vfs::file::Operations for RegularFiles {
    type FileSystem = VirtioFs;

    fn open(inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>) -> Result<KBox<Handle>> {
        let handle = Handle::open(inode, file, false)?;
        file.set_can_direct();
        if handle.flags.contains(OpenReplyFlags::STREAM) {
            file.set_stream();
        } else if handle.flags.contains(OpenReplyFlags::NONSEEKABLE) {
            file.set_nonseekable();
        }
        if !handle.is_direct() && !handle.flags.contains(OpenReplyFlags::KEEP_CACHE) {
            // Close-to-open: what others wrote before is seen from here on. Pages that can't be dropped are being read.
            let _ = inode.invalidate_pages();
        }
        Ok(handle)
    }

    fn release(inode: &Inode<VirtioFs>, file: &Released<'_, VirtioFs>, handle: KBox<Handle>) {
        handle.release(inode, false, file.flags());
    }

    /// A FLUSH reports the errors of writes and drops locks. A file that was opened for reading has neither, so none is
    /// sent; the C driver asks the daemon all the same.
    fn flush(file: &File<VirtioFs>, owner: usize) -> Result {
        let handle = file.data();
        let inode = file.inode();
        if file.flags() & flags::O_ACCMODE == flags::O_RDONLY
            || handle.flags.contains(OpenReplyFlags::NOFLUSH)
        {
            return Ok(());
        }
        let op = Flush {
            node: inode.known()?.node(),
            fh: handle.fh,
            lock_owner: fuse_proto::LockOwner(owner as u64),
        };
        match inode.session()?.call(&op, &caller(inode.super_block())) {
            Err(e) if e == ENOSYS => Ok(()),
            done => done,
        }
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
        match inode.session()?.call(&op, &caller(inode.super_block())) {
            Ok(found) => file.set_position(i64::try_from(found)?),
            Err(e) if e == ENOSYS => {
                inode.refresh_if_expired(Some(file.data().fh))?;
                file.seek(offset, whence)
            }
            Err(e) => Err(e),
        }
    }

    fn read_iter(iocb: &mut Kiocb<'_, VirtioFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let handle = iocb.data();
        if handle.is_direct() || iocb.is_direct() {
            return direct::read(iocb, to);
        }
        let inode = iocb.file().inode();
        let beyond = iocb.pos().saturating_add_unsigned(to.len() as u64) > inode.size();
        if beyond || inode.session()?.has(InitFlags::AUTO_INVAL_DATA) {
            inode.refresh_if_expired(Some(handle.fh))?;
        }
        iocb.filemap_read(to)
    }

    fn splice_read(splice: Splice<'_, VirtioFs>) -> Result<usize> {
        let file = splice.file();
        if file.data().is_direct() || file.flags() & flags::O_DIRECT != 0 {
            return splice.by_copy();
        }
        file.inode().refresh_if_expired(Some(file.data().fh))?;
        splice.from_page_cache()
    }

    fn mmap(file: &File<VirtioFs>, mapping: &mut Mapping<'_, VirtioFs>) -> Result {
        if file.data().is_direct() {
            // A shared mapping promises to be coherent with reads, which go past the page cache here.
            if mapping.is_shared() {
                return Err(ENODEV);
            }
            let _ = file.inode().invalidate_pages();
        }
        mapping.map_read_only()
    }
}

/// What the VFS asks of open directories.
pub(crate) struct DirectoryFiles;

#[vtable]
impl vfs::file::DirectoryOperations for DirectoryFiles {
    type FileSystem = VirtioFs;

    fn open(inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>) -> Result<KBox<Handle>> {
        Handle::open(inode, file, true)
    }

    fn release(inode: &Inode<VirtioFs>, file: &Released<'_, VirtioFs>, handle: KBox<Handle>) {
        handle.release(inode, true, file.flags());
    }

    fn iterate(file: &File<VirtioFs>, emitter: &mut DirEmitter<'_, VirtioFs>) -> Result {
        readdir::iterate(file, emitter)
    }

    /// Nothing that is written here is cached.
    fn fsync(_file: &File<VirtioFs>, _datasync: bool) -> Result {
        Ok(())
    }
}
