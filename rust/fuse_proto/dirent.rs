// SPDX-License-Identifier: GPL-2.0

//! Listing a directory: READDIR, READDIRPLUS, and the records in their payload.
//!
//! A record is a head, a name without NUL, and padding to a multiple of 8 bytes. What may follow
//! the last whole record is part of one that did not fit: it is left out, and comes again in the
//! next request, which starts at the position of the last whole record.

use crate::data::at_most;
use crate::reply::{exact, Impossible, ReplyError};
use crate::value::{Entry, Fh, FileType, NodeId, MAX_OFFSET};
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

/// READDIR and READDIRPLUS: records of a directory, which are the payload of the reply.
#[derive(Clone, Copy, Debug)]
pub struct Readdir {
    /// Which directory.
    pub node: NodeId,
    /// Whether each record comes with what LOOKUP would say.
    pub plus: bool,
    /// The handle.
    pub fh: Fh,
    /// Where to start: 0, or the position of the record before.
    pub offset: u64,
    /// Room for records in bytes.
    pub size: u32,
    /// Flags of open(2).
    pub flags: u32,
}

impl Operation for Readdir {
    /// Bytes of records, 0 at the end of the directory. The records themselves are read with
    /// [`Dirents`] or [`DirentsPlus`].
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        match self.plus {
            true => Opcode::Readdirplus,
            false => Opcode::Readdir,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::ReadIn {
            fh: self.fh.0,
            offset: self.offset,
            size: self.size,
            flags: self.flags,
            ..Default::default()
        })
    }

    fn reply_payload_len(&self) -> usize {
        self.size as usize
    }

    fn decode(&self, _body: &[u8], payload: usize) -> Result<usize, ReplyError> {
        at_most(payload, self.reply_payload_len())
    }
}

/// A record of READDIR (`struct fuse_dirent`), checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Number of the inode, as shown to user space.
    pub ino: u64,
    /// Where to go on after this record, at most [`MAX_OFFSET`]. It means something only to the
    /// daemon.
    pub offset: u64,
    /// What it is, if the daemon knows.
    pub kind: Option<FileType>,
    /// The name: not empty, without `/` and NUL. It can be `.` or `..`.
    pub name: &'a [u8],
}

impl Dirent<'_> {
    /// The length of its record in bytes, as READDIR has it.
    pub fn record_len(&self) -> usize {
        size_of::<wire::Dirent>() + self.name.len().next_multiple_of(8)
    }

    /// Writes its record, with zeroes for padding, to the start of `to`, and returns its length; [`None`] when there is no room.
    pub fn encode(&self, to: &mut [u8]) -> Option<usize> {
        let record = to.get_mut(..self.record_len())?;
        record.fill(0);
        let raw = wire::Dirent {
            ino: self.ino,
            off: self.offset,
            namelen: u32::try_from(self.name.len()).ok()?,
            kind: self.kind.map_or(0, |kind| kind.dirent().into()),
        };
        let (head, name) = record.split_at_mut_checked(size_of::<wire::Dirent>())?;
        head.copy_from_slice(raw.as_bytes());
        name.get_mut(..self.name.len())?.copy_from_slice(self.name);
        Some(self.record_len())
    }

    /// Whether this is the directory itself or the one above it.
    pub fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// A record of READDIRPLUS (`struct fuse_direntplus`), checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirentPlus<'a> {
    /// What READDIR says.
    pub dirent: Dirent<'a>,
    /// What LOOKUP says. The daemon has counted a lookup for all but [`Plus::Nothing`].
    pub plus: Plus,
}

/// What READDIRPLUS says about the inode behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// Nothing: the name is `.` or `..`, or has to be looked up.
    Nothing,
    /// As much as LOOKUP.
    Entry(Entry),
    /// Something impossible about this node, which can only be forgotten.
    Bad(NodeId, ReplyError),
}

/// Longest name that is taken unless told otherwise, in bytes: `NAME_MAX` of Linux, which user
/// space relies on.
pub const NAME_MAX: usize = 255;

/// Longest name that is ever taken (`PATH_MAX` without the NUL), in bytes.
const MAX_NAME_MAX: usize = 4095;

/// The records of READDIR, in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Dirents<'a>(Records<'a>);

/// The records of READDIRPLUS, in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct DirentsPlus<'a>(Records<'a>);

impl<'a> Dirents<'a> {
    /// The records in a payload of READDIR.
    pub fn new(payload: &'a [u8]) -> Self {
        Self(Records::new(payload, 0))
    }

    /// Takes names of up to `bytes`, for a filesystem whose STATFS says that it has longer ones
    /// than [`NAME_MAX`]. What the daemon says is no reason to take less.
    #[must_use]
    pub fn name_max(self, bytes: u32) -> Self {
        Self(self.0.name_max(bytes))
    }
}

impl<'a> DirentsPlus<'a> {
    /// The records in a payload of READDIRPLUS.
    pub fn new(payload: &'a [u8]) -> Self {
        Self(Records::new(payload, size_of::<wire::EntryOut>()))
    }

    /// As [`Dirents::name_max`].
    #[must_use]
    pub fn name_max(self, bytes: u32) -> Self {
        Self(self.0.name_max(bytes))
    }
}

impl<'a> Iterator for Dirents<'a> {
    type Item = Result<Dirent<'a>, ReplyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.0.next()?;
        Some(record.map(|(_, dirent)| dirent))
    }
}

impl<'a> Iterator for DirentsPlus<'a> {
    type Item = Result<DirentPlus<'a>, ReplyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.0.next()?;
        let plus = record.and_then(|(entry, dirent)| {
            let plus = Plus::decode(entry, &dirent)?;
            Ok(DirentPlus { dirent, plus })
        });
        if plus.is_err() {
            self.0.rest = &[];
        }
        Some(plus)
    }
}

impl Plus {
    fn decode(entry: &[u8], dirent: &Dirent<'_>) -> Result<Self, ReplyError> {
        let raw: wire::EntryOut = exact(entry)?;
        let node = match NodeId::new(raw.nodeid) {
            Some(node) if !dirent.is_dot() => node,
            _ => return Ok(Self::Nothing),
        };
        if node == NodeId::ROOT {
            // Not even to be forgotten.
            return Err(Impossible::Node.into());
        }
        Ok(match Entry::decode(&raw) {
            Ok(entry) => Self::Entry(entry),
            Err(error) => Self::Bad(node, error),
        })
    }
}

/// Cuts a payload into records; each one is at least 24 bytes nearer to the end.
#[derive(Clone, Debug)]
struct Records<'a> {
    rest: &'a [u8],
    /// Bytes of a record before its `struct fuse_dirent`.
    entry_len: usize,
    name_max: usize,
    first: bool,
}

impl<'a> Records<'a> {
    fn new(payload: &'a [u8], entry_len: usize) -> Self {
        Self {
            rest: payload,
            entry_len,
            name_max: NAME_MAX,
            first: true,
        }
    }

    fn name_max(self, bytes: u32) -> Self {
        let name_max = (bytes as usize).clamp(NAME_MAX, MAX_NAME_MAX);
        Self { name_max, ..self }
    }

    /// What comes before the `struct fuse_dirent`, and what this says.
    fn next(&mut self) -> Option<Result<(&'a [u8], Dirent<'a>), ReplyError>> {
        let payload = core::mem::take(&mut self.rest);
        let first = core::mem::replace(&mut self.first, false);
        match self.cut(payload) {
            Ok(Some((entry, dirent, rest))) => {
                self.rest = rest;
                Some(Ok((entry, dirent)))
            }
            // A daemon that cannot fit in the first record would never get on.
            Ok(None) if first && !payload.is_empty() => Some(Err(Impossible::Record.into())),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes a record off the payload, if there is a whole one.
    #[allow(clippy::type_complexity)]
    fn cut(
        &self,
        payload: &'a [u8],
    ) -> Result<Option<(&'a [u8], Dirent<'a>, &'a [u8])>, ReplyError> {
        let Some((entry, tail)) = payload.split_at_checked(self.entry_len) else {
            return Ok(None);
        };
        let Ok((raw, tail)) = wire::Dirent::read_from_prefix(tail) else {
            return Ok(None);
        };
        let namelen = raw.namelen as usize;
        if namelen == 0 || namelen > self.name_max {
            return Err(Impossible::Name.into());
        }
        // The heads are multiples of 8 bytes, so only the name needs padding.
        let (Some(name), Some(rest)) =
            (tail.get(..namelen), tail.get(namelen.next_multiple_of(8)..))
        else {
            return Ok(None);
        };
        if name.contains(&b'/') || name.contains(&0) {
            return Err(Impossible::Name.into());
        }
        if raw.off > MAX_OFFSET {
            return Err(Impossible::Position.into());
        }
        let dirent = Dirent {
            ino: raw.ino,
            offset: raw.off,
            kind: FileType::from_dirent(raw.kind),
            name,
        };
        Ok(Some((entry, dirent, rest)))
    }
}
