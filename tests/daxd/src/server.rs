// SPDX-License-Identifier: GPL-2.0

//! From a request's bytes to its reply's bytes.

use std::sync::Arc;

use rustix::io::Errno;

use crate::counters::Counters;
use crate::dax::Window;
use crate::fs::{Failure, Fs, Outcome, Request, Session};
use crate::options::{InodeDax, Settings};
use crate::wire::{self, init, InHeader, Opcode, Reader, Writer, IN_HEADER};

/// The guest's page.
const PAGE: usize = 4096;
/// The INIT flags that this daemon implements, whether or not it answers them by default.
const DEFAULT_FLAGS: u64 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::INIT_EXT;

/// Answers requests.
pub struct Server {
    pub fs: Fs,
    pub window: Window,
    counters: Arc<Counters>,
}

impl Server {
    /// Serves `fs`, with `window` for maps.
    pub fn new(fs: Fs, window: Window, counters: Arc<Counters>) -> Server {
        Server {
            fs,
            window,
            counters,
        }
    }

    /// Carries out the request of `header` in `bytes`, with room for `capacity` bytes of reply, and returns the reply:
    /// nothing for a request that has none, and `None` for one that is to be tried again.
    pub fn handle(&self, header: &InHeader, bytes: &[u8], capacity: usize) -> Option<Vec<u8>> {
        let outcome = self.arguments(header, bytes).and_then(|args| {
            let capacity = capacity.saturating_sub(wire::OUT_HEADER);
            self.carry_out(Request {
                header: *header,
                args,
                capacity,
            })
        });
        let error = match &outcome {
            Ok(_) => None,
            Err(Failure::Errno(errno)) => Some(*errno),
            Err(Failure::Malformed(text)) => {
                self.counters.complain(format!(
                    "{} for node {}: {text}",
                    header.opcode, header.nodeid
                ));
                Some(Errno::INVAL)
            }
            Err(Failure::Wait) => return None,
        };
        self.counters.served(header.opcode, error);
        Some(match outcome {
            _ if !header.opcode.has_reply(error.is_some()) => Vec::new(),
            Ok(body) => wire::reply(header.unique, 0, &body),
            Err(_) => wire::reply(
                header.unique,
                -error.unwrap_or(Errno::INVAL).raw_os_error(),
                &[],
            ),
        })
    }

    /// The arguments of a request, without the header in front and the extensions behind.
    fn arguments<'a>(&self, header: &InHeader, bytes: &'a [u8]) -> Result<Reader<'a>, Failure> {
        if header.len as usize != bytes.len() {
            let text = format!(
                "the header says {} bytes, the buffers have {}",
                header.len,
                bytes.len()
            );
            return Err(Failure::Malformed(text));
        }
        let end = bytes
            .len()
            .checked_sub(usize::from(header.total_extlen) * 8);
        let args = end.and_then(|end| bytes.get(IN_HEADER..end));
        let too_long = || Failure::Malformed("the extensions are longer than the request".into());
        args.map(Reader::new).ok_or_else(too_long)
    }

    /// Carries out a request and checks that nothing of it is left over, and that its reply fits.
    fn carry_out(&self, mut request: Request<'_>) -> Outcome {
        let opcode = request.header.opcode;
        if self.fs.settings().enosys.contain(opcode) {
            return Err(Errno::NOSYS.into());
        }
        let body = self.dispatch(&mut request)?;
        if request.args.left() > 0 {
            self.counters
                .complain(format!("{opcode}: {} bytes too many", request.args.left()));
        }
        if opcode.has_reply(false) && body.len() > request.capacity {
            let text = format!(
                "the reply is {} bytes with room for {}",
                body.len(),
                request.capacity
            );
            return Err(Failure::Malformed(text));
        }
        Ok(body)
    }

    fn dispatch(&self, request: &mut Request<'_>) -> Outcome {
        let fs = &self.fs;
        match request.header.opcode {
            Opcode::INIT => self.init(request),
            Opcode::DESTROY => self.destroy(),
            Opcode::LOOKUP => fs.lookup(request),
            Opcode::FORGET => fs.forget(request),
            Opcode::BATCH_FORGET => fs.batch_forget(request),
            Opcode::GETATTR => fs.getattr(request),
            Opcode::SETATTR => fs.setattr(request),
            Opcode::STATX => fs.statx(request),
            Opcode::STATFS => fs.statfs(request),
            Opcode::ACCESS => fs.access(request),
            Opcode::READLINK => fs.readlink(request),
            Opcode::MKNOD => fs.mknod(request),
            Opcode::MKDIR => fs.mkdir(request),
            Opcode::SYMLINK => fs.symlink(request),
            Opcode::LINK => fs.link(request),
            Opcode::UNLINK | Opcode::RMDIR => fs.unlink(request),
            Opcode::RENAME | Opcode::RENAME2 => fs.rename(request),
            Opcode::CREATE | Opcode::TMPFILE => fs.create(request),
            Opcode::OPEN => fs.open(request),
            Opcode::RELEASE | Opcode::RELEASEDIR => fs.release(request),
            Opcode::FLUSH => fs.flush(request),
            Opcode::READ => fs.read(request),
            Opcode::WRITE => fs.write(request),
            Opcode::FSYNC => fs.fsync(request),
            Opcode::SYNCFS => fs.syncfs(request),
            Opcode::FALLOCATE => fs.fallocate(request),
            Opcode::LSEEK => fs.lseek(request),
            Opcode::COPY_FILE_RANGE | Opcode::COPY_FILE_RANGE_64 => fs.copy_file_range(request),
            Opcode::OPENDIR => fs.opendir(request),
            Opcode::READDIR | Opcode::READDIRPLUS => fs.readdir(request),
            Opcode::FSYNCDIR => fs.fsyncdir(request),
            Opcode::SETXATTR => fs.setxattr(request),
            Opcode::GETXATTR => fs.getxattr(request),
            Opcode::LISTXATTR => fs.listxattr(request),
            Opcode::REMOVEXATTR => fs.removexattr(request),
            Opcode::SETUPMAPPING => self.window.setup(fs, request),
            Opcode::REMOVEMAPPING => self.window.remove(request),
            Opcode::GETLK => fs.getlk(request),
            Opcode::SETLK | Opcode::SETLKW => fs.setlk(request),
            Opcode::INTERRUPT => fs.interrupt(request),
            Opcode::IOCTL => fs.ioctl(request),
            _ => {
                // What is not known cannot be checked.
                request.args.take(request.args.left())?;
                Err(Errno::NOSYS.into())
            }
        }
    }

    /// INIT: a session begins; whatever an earlier one left is dropped.
    fn init(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (major, minor, max_readahead, low) =
            (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        let mut offered = u64::from(low);
        if offered & init::INIT_EXT != 0 {
            offered |= u64::from(args.u32()?) << 32;
            args.take(11 * 4)?;
        }
        if major != wire::MAJOR {
            self.counters
                .complain(format!("INIT of version {major}.{minor}"));
        }
        let settings = self.fs.settings();
        let flags = settings
            .init_flags
            .apply(self.default_flags(&settings), offered);
        log::info!("INIT {major}.{minor}, flags {offered:#x}, answered {flags:#x}");
        let mut numbers = self.counters.lock();
        numbers.session.open = true;
        numbers.session.guest_minor = minor;
        numbers.session.offered = offered;
        numbers.session.flags = flags;
        drop(numbers);
        let has = |flag, value| if flags & flag != 0 { value } else { 0 };
        self.window.clear();
        // A guest sends at least a page, whatever it is told.
        let pages = has(init::MAX_PAGES, settings.max_pages).max(1);
        self.fs.restart(Session {
            flags,
            max_read: if flags & init::MAX_PAGES == 0 {
                32 * PAGE
            } else {
                usize::from(pages) * PAGE
            },
            max_write: (settings.max_write as usize).max(PAGE),
        });

        let mut w = Writer::default();
        w.u32(settings.major)
            .u32(settings.minor.min(minor))
            .u32(settings.max_readahead.min(max_readahead));
        w.u32(flags as u32)
            .u16(settings.max_background)
            .u16(settings.congestion_threshold);
        w.u32(settings.max_write)
            .u32(settings.time_gran)
            .u16(has(init::MAX_PAGES, settings.max_pages));
        w.u16(has(init::MAP_ALIGNMENT, settings.map_alignment))
            .u32((flags >> 32) as u32)
            .u32(0);
        w.u16(has(init::REQUEST_TIMEOUT, settings.request_timeout))
            .zeros(22);
        Ok(w.take())
    }

    fn default_flags(&self, settings: &Settings) -> u64 {
        let mut flags = DEFAULT_FLAGS;
        if self.window.size() > 0 {
            flags |= init::MAP_ALIGNMENT;
        }
        if settings.inode_dax != InodeDax::Off {
            flags |= init::HAS_INODE_DAX;
        }
        if settings.announce_submounts {
            flags |= init::SUBMOUNTS;
        }
        flags
    }

    /// DESTROY: the session ends. What it left behind is counted, then dropped.
    fn destroy(&self) -> Outcome {
        let (inodes, lookups) = self.fs.inodes.live();
        let handles = self.fs.handles.live();
        let maps = self.window.live().0;
        log::info!("DESTROY with {inodes} inodes, {lookups} lookups, {handles} handles and {maps} maps left");
        let mut numbers = self.counters.lock();
        numbers.session.open = false;
        numbers.session.inodes_at_destroy = inodes;
        numbers.session.lookups_at_destroy = lookups;
        numbers.session.handles_at_destroy = handles;
        numbers.session.maps_at_destroy = maps;
        drop(numbers);
        self.window.clear();
        self.fs.restart(Session::default());
        Ok(Vec::new())
    }
}
