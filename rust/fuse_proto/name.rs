// SPDX-License-Identifier: GPL-2.0

//! Operations on the names in a directory.

use crate::file::OpenReply;
use crate::reply::{empty, exact, ReplyError};
use crate::value::{Device, Entry, FileType, NodeId, Ttl};
use crate::wire;
use crate::{EncodeError, Encoder, Extensions, Opcode, OpenFlags, Operation};
use core::mem::size_of;
use zerocopy::FromBytes;

/// LOOKUP: what a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The directory; with the name `.` or `..`, any inode.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupReply {
    /// This inode.
    Found(Entry),
    /// Nothing, which may be cached. (A daemon can say ENOENT instead, which may not.)
    Negative(Ttl),
}

impl Lookup<'_> {
    /// Only `.` and `..`, as file handles are decoded, can lead to the root of the share.
    fn may_be_root(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

impl Operation for Lookup<'_> {
    type Reply = LookupReply;

    fn opcode(&self) -> Opcode {
        Opcode::Lookup
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.name(self.name)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<LookupReply, ReplyError> {
        let raw: wire::EntryOut = exact(body)?;
        if raw.nodeid == 0 {
            let ttl = Ttl::new(raw.entry_valid, raw.entry_valid_nsec);
            return Ok(LookupReply::Negative(ttl));
        }
        let entry = match self.may_be_root() {
            true => Entry::decode(&raw)?,
            false => Entry::decode_child(&raw)?,
        };
        Ok(LookupReply::Found(entry))
    }
}

/// MKNOD: a new inode of any type but directory and symbolic link.
#[derive(Clone, Copy, Debug)]
pub struct Mknod<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
    /// What it is.
    pub kind: FileType,
    /// Permission, set-id and sticky bits.
    pub permissions: u16,
    /// The umask of the caller; for the daemon only with
    /// [`DONT_MASK`](crate::InitFlags::DONT_MASK), else applied already.
    pub umask: u16,
    /// Which device, if it is one.
    pub rdev: Device,
    /// Security context and groups.
    pub extensions: Extensions<'a>,
}

impl Operation for Mknod<'_> {
    type Reply = Entry;

    fn opcode(&self) -> Opcode {
        Opcode::Mknod
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::MknodIn {
            mode: self.kind.mode() | u32::from(self.permissions),
            rdev: self.rdev.to_wire(),
            umask: u32::from(self.umask),
            padding: 0,
        })?;
        e.name(self.name)?;
        e.extensions(&self.extensions)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Entry, ReplyError> {
        Entry::decode_new(&exact(body)?, self.kind)
    }
}

/// MKDIR: a new directory.
#[derive(Clone, Copy, Debug)]
pub struct Mkdir<'a> {
    /// The directory that it is in.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
    /// Permission and sticky bits.
    pub permissions: u16,
    /// The umask of the caller, as in [`Mknod`].
    pub umask: u16,
    /// Security context and groups.
    pub extensions: Extensions<'a>,
}

impl Operation for Mkdir<'_> {
    type Reply = Entry;

    fn opcode(&self) -> Opcode {
        Opcode::Mkdir
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::MkdirIn {
            mode: u32::from(self.permissions),
            umask: u32::from(self.umask),
        })?;
        e.name(self.name)?;
        e.extensions(&self.extensions)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Entry, ReplyError> {
        Entry::decode_new(&exact(body)?, FileType::Directory)
    }
}

/// SYMLINK: a new symbolic link.
#[derive(Clone, Copy, Debug)]
pub struct Symlink<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
    /// Where it leads.
    pub target: &'a [u8],
    /// Security context and groups.
    pub extensions: Extensions<'a>,
}

impl Operation for Symlink<'_> {
    type Reply = Entry;

    fn opcode(&self) -> Opcode {
        Opcode::Symlink
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.name(self.name)?;
        e.name(self.target)?;
        e.extensions(&self.extensions)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Entry, ReplyError> {
        Entry::decode_new(&exact(body)?, FileType::Symlink)
    }
}

/// LINK: one more name for an inode.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The inode.
    pub node: NodeId,
    /// What it is, so that the reply can be checked.
    pub kind: FileType,
    /// The directory of the new name.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: &'a [u8],
}

impl Operation for Link<'_> {
    type Reply = Entry;

    fn opcode(&self) -> Opcode {
        Opcode::Link
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.new_parent)
    }

    fn other_node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::LinkIn {
            oldnodeid: self.node.get(),
        })?;
        e.name(self.new_name)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Entry, ReplyError> {
        Entry::decode_new(&exact(body)?, self.kind)
    }
}

/// UNLINK and RMDIR: a name goes away.
#[derive(Clone, Copy, Debug)]
pub struct Unlink<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: &'a [u8],
    /// Whether it is that of a directory.
    pub dir: bool,
}

impl Operation for Unlink<'_> {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        match self.dir {
            true => Opcode::Rmdir,
            false => Opcode::Unlink,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.name(self.name)
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// RENAME and RENAME2: a name moves.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// The directory of the old name.
    pub parent: NodeId,
    /// The old name.
    pub name: &'a [u8],
    /// The directory of the new name.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: &'a [u8],
    /// Flags of renameat2(2). With none, the older RENAME is used, which every daemon knows.
    pub flags: u32,
}

impl Operation for Rename<'_> {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        match self.flags {
            0 => Opcode::Rename,
            _ => Opcode::Rename2,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn other_node(&self) -> Option<NodeId> {
        Some(self.new_parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let newdir = self.new_parent.get();
        match self.flags {
            0 => e.struct_(&wire::RenameIn { newdir })?,
            flags => e.struct_(&wire::Rename2In {
                newdir,
                flags,
                padding: 0,
            })?,
        }
        e.name(self.name)?;
        e.name(self.new_name)
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// CREATE and TMPFILE: a new regular file, opened.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// The directory; without a name, one on the filesystem that the file is to be on.
    pub parent: NodeId,
    /// The name in it, which may exist; or none (TMPFILE).
    pub name: Option<&'a [u8]>,
    /// Flags of open(2), without `O_NOCTTY`.
    pub flags: u32,
    /// Flags of FUSE.
    pub open_flags: OpenFlags,
    /// Permission, set-id and sticky bits.
    pub permissions: u16,
    /// The umask of the caller, as in [`Mknod`].
    pub umask: u16,
    /// Security context and groups.
    pub extensions: Extensions<'a>,
}

/// A new file and its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateReply {
    /// The inode.
    pub entry: Entry,
    /// The open file.
    pub open: OpenReply,
}

impl Operation for Create<'_> {
    type Reply = CreateReply;

    fn opcode(&self) -> Opcode {
        match self.name {
            Some(_) => Opcode::Create,
            None => Opcode::Tmpfile,
        }
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::CreateIn {
            flags: self.flags,
            mode: FileType::Regular.mode() | u32::from(self.permissions),
            umask: u32::from(self.umask),
            open_flags: self.open_flags.bits(),
        })?;
        // Linux has this name for files without one.
        e.name(self.name.unwrap_or(b"/"))?;
        e.extensions(&self.extensions)
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::EntryOut>() + size_of::<wire::OpenOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<CreateReply, ReplyError> {
        let both = ReplyError::BodyLength {
            len: body.len(),
            expected: self.reply_len(),
        };
        let (entry, open) = wire::EntryOut::read_from_prefix(body).map_err(|_| both)?;
        let open = wire::OpenOut::read_from_bytes(open).map_err(|_| both)?;
        Ok(CreateReply {
            entry: Entry::decode_new(&entry, FileType::Regular)?,
            open: OpenReply::decode(&open),
        })
    }
}
