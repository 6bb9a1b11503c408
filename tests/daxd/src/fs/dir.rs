// SPDX-License-Identifier: GPL-2.0

//! Directories: OPENDIR, READDIR, READDIRPLUS, FSYNCDIR.

use std::mem::MaybeUninit;
use std::sync::Mutex;

use rustix::fs::{OFlags, RawDir, SeekFrom};

use super::handle::Handle;
use super::{Failure, Fs, Outcome, Request};
use crate::lock;
use crate::wire::{self, Opcode, Writer};

/// Length of a directory record without its name.
const RECORD: usize = 24;
/// Length of the entry in front of each record in READDIRPLUS.
const ENTRY: usize = 128;

/// Appends a directory record.
fn append_record(w: &mut Writer, ino: u64, next: u64, kind: u32, name: &[u8]) {
    w.u64(ino)
        .u64(next)
        .u32(name.len() as u32)
        .u32(kind)
        .bytes(name);
    w.zeros(w.len().next_multiple_of(8) - w.len());
}

impl Fs {
    /// OPENDIR.
    pub fn opendir(&self, request: &mut Request<'_>) -> Outcome {
        let (_flags, _open_flags) = (request.args.u32()?, request.args.u32()?);
        let inode = self.inode(request.header.nodeid)?;
        let dir = inode.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let fh = self.handles.add(inode.id(), Handle::Dir(Mutex::new(dir)));
        let mut w = Writer::default();
        w.u64(fh).u32(self.settings().opendir_flags.bits).u32(0);
        Ok(w.take())
    }

    /// READDIR and READDIRPLUS. Positions are the host's own.
    pub fn readdir(&self, request: &mut Request<'_>) -> Outcome {
        let plus = request.header.opcode == Opcode::READDIRPLUS;
        let args = &mut request.args;
        let (fh, offset, size, _read_flags) =
            (args.u64()?, args.u64()?, args.u32()? as usize, args.u32()?);
        let (_owner, _flags, _) = (args.u64()?, args.u32()?, args.u32()?);
        if size > request.capacity {
            return Err(Failure::Malformed(format!(
                "READDIR of {size} bytes with room for {}",
                request.capacity
            )));
        }
        let handle = self.dir(request.header.nodeid, fh)?;
        let Handle::Dir(dir) = &*handle else {
            unreachable!("Fs::dir returns directories")
        };
        let dir = lock::mutex(dir);
        let parent = self.inode(request.header.nodeid)?;
        rustix::fs::seek(&*dir, SeekFrom::Start(offset))?;

        let mut buffer = vec![MaybeUninit::uninit(); size.clamp(4096, 1 << 16)];
        let mut records = RawDir::new(&*dir, &mut buffer);
        let mut w = Writer::default();
        while let Some(record) = records.next() {
            let record = record?;
            let name = record.file_name();
            let length =
                (RECORD + name.count_bytes()).next_multiple_of(8) + if plus { ENTRY } else { 0 };
            if w.len() + length > size {
                break;
            }
            if plus {
                let dots = matches!(name.to_bytes(), b"." | b"..");
                // A name that vanished meanwhile is listed, without an entry.
                if dots || self.entry_named(&mut w, &parent, name).is_err() {
                    w.zeros(ENTRY);
                }
            }
            let kind = record.file_type().as_raw_mode() >> 12;
            append_record(
                &mut w,
                record.ino(),
                record.next_entry_cookie(),
                kind,
                name.to_bytes(),
            );
        }
        Ok(w.take())
    }

    /// FSYNCDIR.
    pub fn fsyncdir(&self, request: &mut Request<'_>) -> Outcome {
        let (fh, flags, _) = (
            request.args.u64()?,
            request.args.u32()?,
            request.args.u32()?,
        );
        let handle = self.dir(request.header.nodeid, fh)?;
        if let Handle::Dir(dir) = &*handle {
            let dir = lock::mutex(dir);
            match flags & wire::FSYNC_DATASYNC != 0 {
                true => rustix::fs::fdatasync(&*dir)?,
                false => rustix::fs::fsync(&*dir)?,
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned() {
        let mut w = Writer::default();
        append_record(&mut w, 7, 8, 4, b"abc");
        let bytes = w.take();
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[16..27], [3, 0, 0, 0, 4, 0, 0, 0, b'a', b'b', b'c']);
    }
}
