// SPDX-License-Identifier: GPL-2.0

//! Files: OPEN to RELEASE, and everything that reads or changes contents.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::handle::Handle;
use super::{Failure, Fs, Inode, Outcome, Request};
use crate::wire::{self, init, Opcode, Writer};

/// The most bytes copied by one COPY_FILE_RANGE, so that it ends.
const MAX_COPY: u64 = 64 << 20;

impl Fs {
    /// The flags to open a file of the host with when the guest asks for `flags`.
    pub(super) fn host_flags(&self, flags: u32) -> OFlags {
        let mut flags = OFlags::from_bits_retain(flags);
        // The guest says where it writes and bypasses its own cache; neither is the host's business.
        flags -= OFlags::APPEND | OFlags::DIRECT | OFlags::NOFOLLOW;
        // With a cache that writes back, the guest reads what it writes to.
        if self.agreed(init::WRITEBACK_CACHE) && flags & OFlags::RWMODE == OFlags::WRONLY {
            flags = (flags - OFlags::RWMODE) | OFlags::RDWR;
        }
        flags
    }

    /// Takes set-user-id away from a file that was truncated while it was opened, where the guest leaves that to us.
    pub(super) fn truncated(
        &self,
        inode: &Inode,
        flags: OFlags,
        open_flags: u32,
    ) -> rustix::io::Result<()> {
        match flags.contains(OFlags::TRUNC) && open_flags & wire::OPEN_KILL_SUIDGID != 0 {
            true => self.kill_suidgid(inode),
            false => Ok(()),
        }
    }

    /// Keeps `file` of the node `nodeid` open and appends the answer.
    pub(super) fn append_open(&self, w: &mut Writer, nodeid: u64, file: File) {
        let fh = self.handles.add(nodeid, Handle::File(Arc::new(file)));
        w.u64(fh).u32(self.settings().open_flags.bits).u32(0);
    }

    /// OPEN.
    pub fn open(&self, request: &mut Request<'_>) -> Outcome {
        let (flags, open_flags) = (request.args.u32()?, request.args.u32()?);
        let inode = self.inode(request.header.nodeid)?;
        let flags = self.host_flags(flags) - (OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY);
        let _sizes = self.sizes();
        let file = inode.open(flags)?;
        self.truncated(&inode, flags, open_flags)?;
        let mut w = Writer::default();
        self.append_open(&mut w, inode.id(), file);
        Ok(w.take())
    }

    /// RELEASE and RELEASEDIR.
    pub fn release(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, _flags, release_flags, owner) =
            (args.u64()?, args.u32()?, args.u32()?, args.u64()?);
        if release_flags & wire::RELEASE_FLOCK_UNLOCK != 0 {
            self.locks.release(request.header.nodeid, true, owner);
        }
        if release_flags & wire::RELEASE_FLUSH != 0 {
            self.locks.release(request.header.nodeid, false, owner);
        }
        match self.handles.remove(fh) {
            true => Ok(Vec::new()),
            false => Err(Failure::Malformed(format!("handle {fh} is not open"))),
        }
    }

    /// FLUSH.
    pub fn flush(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, _, _, owner) = (args.u64()?, args.u32()?, args.u32()?, args.u64()?);
        self.file(request.header.nodeid, fh)?;
        self.locks.release(request.header.nodeid, false, owner);
        Ok(Vec::new())
    }

    /// READ.
    pub fn read(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, offset, size, _read_flags) =
            (args.u64()?, args.u64()?, args.u32()? as usize, args.u32()?);
        let (_owner, _flags, _) = (args.u64()?, args.u32()?, args.u32()?);
        let most = request.capacity.min(self.session().max_read);
        if size > most {
            return Err(Failure::Malformed(format!(
                "{size} bytes to read, {most} are the most"
            )));
        }
        let file = self.file(request.header.nodeid, fh)?;
        let _sizes = self.sizes();
        let mut data = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match rustix::io::pread(&file, &mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        data.truncate(filled);
        self.counters.lock().bytes.read += filled as u64;
        Ok(data)
    }

    /// WRITE.
    pub fn write(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, offset, size, write_flags) =
            (args.u64()?, args.u64()?, args.u32()? as usize, args.u32()?);
        let (_owner, _flags, _) = (args.u64()?, args.u32()?, args.u32()?);
        let data = args.take(size)?;
        let most = self.session().max_write;
        if size > most {
            return Err(Failure::Malformed(format!(
                "{size} bytes to write, {most} are the most"
            )));
        }
        let file = self.file(request.header.nodeid, fh)?;
        if write_flags & wire::WRITE_KILL_SUIDGID != 0 {
            self.kill_suidgid(&*self.inode(request.header.nodeid)?)?;
        }
        let _sizes = self.sizes();
        let data = &data[..size.min(self.settings().short_write as usize)];
        let mut written = 0;
        while written < data.len() {
            match rustix::io::pwrite(&file, &data[written..], offset + written as u64) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.counters.lock().bytes.written += written as u64;
        let mut w = Writer::default();
        w.u32(written as u32).u32(0);
        Ok(w.take())
    }

    /// FSYNC.
    pub fn fsync(&self, request: &mut Request<'_>) -> Outcome {
        let (fh, flags, _) = (
            request.args.u64()?,
            request.args.u32()?,
            request.args.u32()?,
        );
        let file = self.file(request.header.nodeid, fh)?;
        match flags & wire::FSYNC_DATASYNC != 0 {
            true => rustix::fs::fdatasync(&file)?,
            false => rustix::fs::fsync(&file)?,
        }
        Ok(Vec::new())
    }

    /// SYNCFS.
    pub fn syncfs(&self, request: &mut Request<'_>) -> Outcome {
        request.args.u64()?;
        let root = self.inode(request.header.nodeid)?.open(OFlags::RDONLY)?;
        rustix::fs::syncfs(&root)?;
        Ok(Vec::new())
    }

    /// FALLOCATE.
    pub fn fallocate(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, offset, length, mode, _) = (
            args.u64()?,
            args.u64()?,
            args.u64()?,
            args.u32()?,
            args.u32()?,
        );
        let file = self.file(request.header.nodeid, fh)?;
        let _sizes = self.sizes();
        rustix::fs::fallocate(
            &file,
            FallocateFlags::from_bits_retain(mode),
            offset,
            length,
        )?;
        Ok(Vec::new())
    }

    /// LSEEK.
    pub fn lseek(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh, offset, whence, _) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
        let position = match whence {
            0 => SeekFrom::Start(offset),
            2 => SeekFrom::End(offset as i64),
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        let file = self.file(request.header.nodeid, fh)?;
        let _sizes = self.sizes();
        let mut w = Writer::default();
        w.u64(rustix::fs::seek(&file, position)?);
        Ok(w.take())
    }

    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    pub fn copy_file_range(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (fh_in, mut off_in, nodeid_out, fh_out) =
            (args.u64()?, args.u64()?, args.u64()?, args.u64()?);
        let (mut off_out, len, flags) = (args.u64()?, args.u64()?, args.u64()?);
        if flags != 0 {
            return Err(Errno::INVAL.into());
        }
        let from = self.file(request.header.nodeid, fh_in)?;
        let to = self.file(nodeid_out, fh_out)?;
        let _sizes = self.sizes();
        let len = len.min(MAX_COPY) as usize;
        let copied =
            rustix::fs::copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), len)?;
        let mut w = Writer::default();
        match request.header.opcode {
            Opcode::COPY_FILE_RANGE_64 => w.u64(copied as u64),
            _ => w.u32(copied as u32).u32(0),
        };
        Ok(w.take())
    }
}
