// SPDX-License-Identifier: GPL-2.0

//! Names: LOOKUP and FORGET, and whatever makes, moves or removes a name.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, CWD};
use rustix::io::Errno;

use super::inode::{open_path, Forgotten};
use super::{attr, Failure, Fs, Inode, Outcome, Request};
use crate::wire::{self, Opcode, Writer};

impl Fs {
    /// Appends an entry for the file behind `fd`, found in `parent`, and counts the lookup.
    fn entry_of(&self, w: &mut Writer, parent: &Inode, fd: OwnedFd) -> Result<Arc<Inode>, Failure> {
        let settings = self.settings();
        let parent_dev = parent.stat()?.st_dev;
        let _sizes = self.sizes();
        let (inode, stat) = self.inodes.look_up(fd, settings.reuse_nodeids)?;
        self.entry(w, &settings, parent_dev, &inode, &stat);
        Ok(inode)
    }

    /// Appends an entry for `name` in `parent`, and counts the lookup.
    pub(super) fn entry_named(
        &self,
        w: &mut Writer,
        parent: &Inode,
        name: &CStr,
    ) -> Result<Arc<Inode>, Failure> {
        self.entry_of(w, parent, open_path(parent, name)?)
    }

    /// LOOKUP.
    pub fn lookup(&self, request: &mut Request<'_>) -> Outcome {
        let name = request.args.name()?;
        let parent = match name.to_bytes() {
            // Asked by who opens files by handle; the node may be any file, or made up.
            b"." => self.inodes.get(request.header.nodeid).ok_or(Errno::STALE)?,
            _ => self.inode(request.header.nodeid)?,
        };
        let mut w = Writer::default();
        let found = match name.to_bytes() {
            b"." if parent.stat()?.st_nlink == 0 => Err(Errno::STALE),
            // There is nothing above the root.
            b"." => parent.open(OFlags::PATH).map(OwnedFd::from),
            b".." if parent.id() == wire::ROOT => parent.open(OFlags::PATH).map(OwnedFd::from),
            _ => open_path(&parent, name),
        };
        match found {
            Ok(fd) => {
                self.entry_of(&mut w, &parent, fd)?;
            }
            Err(Errno::NOENT) if self.settings().negative_timeout > 0.0 => {
                let (seconds, nanoseconds) = attr::timeout(self.settings().negative_timeout);
                w.u64(0)
                    .u64(0)
                    .u64(seconds)
                    .u64(0)
                    .u32(nanoseconds)
                    .u32(0)
                    .zeros(88);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(w.take())
    }

    fn forget_node(&self, nodeid: u64, lookups: u64) {
        let mut numbers = self.counters.lock();
        numbers.forget.nodes += 1;
        numbers.forget.lookups += lookups;
        drop(numbers);
        // File handles lead to nodes that are forgotten.
        let keep = self.agreed(wire::init::EXPORT_SUPPORT);
        match self.inodes.forget(nodeid, lookups, keep) {
            Forgotten::Some | Forgotten::All => {}
            wrong => self.counters.complain(format!(
                "FORGET of node {nodeid}, {lookups} lookups: {wrong:?}"
            )),
        }
    }

    /// FORGET.
    pub fn forget(&self, request: &mut Request<'_>) -> Outcome {
        let lookups = request.args.u64()?;
        self.counters.lock().forget.single += 1;
        self.forget_node(request.header.nodeid, lookups);
        Ok(Vec::new())
    }

    /// BATCH_FORGET.
    pub fn batch_forget(&self, request: &mut Request<'_>) -> Outcome {
        let (count, _) = (request.args.u32()?, request.args.u32()?);
        self.counters.lock().forget.batch += 1;
        for _ in 0..count {
            let (nodeid, lookups) = (request.args.u64()?, request.args.u64()?);
            self.forget_node(nodeid, lookups);
        }
        Ok(Vec::new())
    }

    /// MKNOD.
    pub fn mknod(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (mode, rdev, umask, _) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        let name = args.name()?;
        let parent = self.inode(request.header.nodeid)?;
        let (kind, mode) = (
            FileType::from_raw_mode(mode),
            Mode::from_raw_mode(mode & 0o7777 & !umask),
        );
        let device = attr::decode_device(rdev);
        self.as_caller(&request.header, || {
            rustix::fs::mknodat(parent.fd(), name, kind, mode, device)
        })?;
        self.entry_reply(&parent, name)
    }

    /// MKDIR.
    pub fn mkdir(&self, request: &mut Request<'_>) -> Outcome {
        let (mode, umask) = (request.args.u32()?, request.args.u32()?);
        let name = request.args.name()?;
        let parent = self.inode(request.header.nodeid)?;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
        self.as_caller(&request.header, || {
            rustix::fs::mkdirat(parent.fd(), name, mode)
        })?;
        self.entry_reply(&parent, name)
    }

    /// SYMLINK.
    pub fn symlink(&self, request: &mut Request<'_>) -> Outcome {
        let name = request.args.name()?;
        let target = request.args.string()?;
        let parent = self.inode(request.header.nodeid)?;
        self.as_caller(&request.header, || {
            rustix::fs::symlinkat(target, parent.fd(), name)
        })?;
        self.entry_reply(&parent, name)
    }

    /// LINK.
    pub fn link(&self, request: &mut Request<'_>) -> Outcome {
        let old = self.inode(request.args.u64()?)?;
        let name = request.args.name()?;
        let parent = self.inode(request.header.nodeid)?;
        rustix::fs::linkat(CWD, old.path(), parent.fd(), name, AtFlags::SYMLINK_FOLLOW)?;
        self.entry_reply(&parent, name)
    }

    fn entry_reply(&self, parent: &Inode, name: &CStr) -> Outcome {
        let mut w = Writer::default();
        self.entry_named(&mut w, parent, name)?;
        Ok(w.take())
    }

    /// READLINK.
    pub fn readlink(&self, request: &mut Request<'_>) -> Outcome {
        let inode = self.inode(request.header.nodeid)?;
        let target = rustix::fs::readlinkat(inode.fd(), "", Vec::new())?;
        Ok(target.into_bytes())
    }

    /// UNLINK and RMDIR.
    pub fn unlink(&self, request: &mut Request<'_>) -> Outcome {
        let name = request.args.name()?;
        let flags = match request.header.opcode {
            Opcode::RMDIR => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        rustix::fs::unlinkat(self.inode(request.header.nodeid)?.fd(), name, flags)?;
        Ok(Vec::new())
    }

    /// RENAME and RENAME2.
    pub fn rename(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let new_parent = args.u64()?;
        let flags = match request.header.opcode {
            Opcode::RENAME2 => (args.u32()?, args.u32()?).0,
            _ => 0,
        };
        let (old, new) = (args.name()?, args.name()?);
        let (from, to) = (self.inode(request.header.nodeid)?, self.inode(new_parent)?);
        let flags = RenameFlags::from_bits_retain(flags);
        // A whiteout is a new node, made by the caller.
        self.as_caller(&request.header, || {
            rustix::fs::renameat_with(from.fd(), old, to.fd(), new, flags)
        })?;
        Ok(Vec::new())
    }

    /// CREATE and TMPFILE.
    pub fn create(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (flags, mode, umask, open_flags) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        let temporary = request.header.opcode == Opcode::TMPFILE;
        // The name of a temporary file is the guest's own business.
        let name = if temporary {
            args.string()?
        } else {
            args.name()?
        };
        let parent = self.inode(request.header.nodeid)?;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
        let mut flags = self.host_flags(flags) | OFlags::CLOEXEC;
        let file = self.as_caller(&request.header, || {
            if temporary {
                flags = flags.difference(OFlags::TRUNC) | OFlags::TMPFILE;
                return rustix::fs::openat(parent.fd(), ".", flags, mode);
            }
            rustix::fs::openat(
                parent.fd(),
                name,
                flags | OFlags::CREATE | OFlags::NOFOLLOW,
                mode,
            )
        })?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut w = Writer::default();
        let inode = self.entry_of(&mut w, &parent, fd)?;
        if let Err(error) = self.truncated(&inode, flags, open_flags) {
            self.inodes.undo(&inode);
            return Err(error.into());
        }
        self.append_open(&mut w, inode.id(), file.into());
        Ok(w.take())
    }
}
