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
        is_dot(self.name)
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

/// Longest name that is taken or sent, in bytes: `PATH_MAX` of Linux without the NUL. Filesystems
/// that count characters have names longer than `NAME_MAX`, and what the daemon says about it
/// (STATFS) is no reason to take less.
pub const NAME_MAX: usize = 4095;

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
}

impl<'a> DirentsPlus<'a> {
    /// The records in a payload of READDIRPLUS.
    pub fn new(payload: &'a [u8]) -> Self {
        Self(Records::new(payload, size_of::<wire::EntryOut>()))
    }

    /// After an error: the nodes in the record that was refused and in those behind it, as far as
    /// these can be told apart. The daemon has counted a lookup for each.
    pub fn refused(&self) -> impl Iterator<Item = NodeId> + 'a {
        let mut rest = self.0.refused;
        core::iter::from_fn(move || {
            let (node, behind) = counted(rest)?;
            rest = behind;
            Some(node)
        })
        .flatten()
    }
}

/// The node that a record of READDIRPLUS counts a lookup for, whatever else it says, and what is
/// behind it; [`None`] without a whole record.
fn counted(payload: &[u8]) -> Option<(Option<NodeId>, &[u8])> {
    let (entry, tail) = wire::EntryOut::read_from_prefix(payload).ok()?;
    let (raw, tail) = wire::Dirent::read_from_prefix(tail).ok()?;
    let node = NodeId::new(entry.nodeid).filter(|node| *node != NodeId::ROOT);
    let namelen = raw.namelen as usize;
    if namelen == 0 || namelen > NAME_MAX {
        // Nobody knows where the next one begins.
        return Some((node, &[]));
    }
    let name = tail.get(..namelen)?;
    let behind = tail.get(namelen.next_multiple_of(8)..)?;
    Some((node.filter(|_| !is_dot(name)), behind))
}

/// Whether a name is that of the directory itself or of the one above it.
fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
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
            self.0.refuse();
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
    first: bool,
    /// From the last record that was looked at on.
    last: &'a [u8],
    /// From the record on that was refused.
    refused: &'a [u8],
}

impl<'a> Records<'a> {
    fn new(payload: &'a [u8], entry_len: usize) -> Self {
        Self {
            rest: payload,
            entry_len,
            first: true,
            last: &[],
            refused: &[],
        }
    }

    /// The last record is refused: there are no more.
    fn refuse(&mut self) {
        self.rest = &[];
        self.refused = self.last;
    }

    /// What comes before the `struct fuse_dirent`, and what this says.
    fn next(&mut self) -> Option<Result<(&'a [u8], Dirent<'a>), ReplyError>> {
        let payload = core::mem::take(&mut self.rest);
        let first = core::mem::replace(&mut self.first, false);
        self.last = payload;
        match self.cut(payload) {
            Ok(Some((entry, dirent, rest))) => {
                self.rest = rest;
                Some(Ok((entry, dirent)))
            }
            // A daemon that cannot fit in the first record would never get on.
            Ok(None) if first && !payload.is_empty() => Some(Err(Impossible::Record.into())),
            Ok(None) => None,
            Err(error) => {
                self.refuse();
                Some(Err(error))
            }
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
        if namelen == 0 || namelen > NAME_MAX {
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
