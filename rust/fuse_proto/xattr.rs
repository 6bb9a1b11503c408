// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use crate::data::at_most;
use crate::reply::{empty, exact, Impossible, ReplyError};
use crate::value::NodeId;
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;

/// `FUSE_SETXATTR_ACL_KILL_SGID`: the set-group-id bit goes when the access ACL is set.
const SETXATTR_ACL_KILL_SGID: u32 = 1;

/// Most bytes of a value, and of a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub const XATTR_MAX: u32 = 65536;

/// GETXATTR: the value of an extended attribute, which is the payload of the reply, or its size.
#[derive(Clone, Copy, Debug)]
pub struct Getxattr<'a> {
    /// Of which inode.
    pub node: NodeId,
    /// Its name, namespace included.
    pub name: &'a [u8],
    /// Room for the value in bytes, at most [`XATTR_MAX`]; 0 asks for its size.
    pub size: u32,
}

/// LISTXATTR: the names of all extended attributes, each with a NUL after it, which are the
/// payload of the reply, or their size.
#[derive(Clone, Copy, Debug)]
pub struct Listxattr {
    /// Of which inode.
    pub node: NodeId,
    /// Room for the names in bytes, at most [`XATTR_MAX`]; 0 asks for their size.
    pub size: u32,
}

impl Operation for Getxattr<'_> {
    /// Size of the value in bytes.
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        Opcode::Getxattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::GetxattrIn {
            size: self.size,
            padding: 0,
        })?;
        e.name(self.name)
    }

    fn reply_len(&self) -> usize {
        size_reply_len(self.size)
    }

    fn reply_payload_len(&self) -> usize {
        self.size as usize
    }

    fn decode(&self, body: &[u8], payload: usize) -> Result<usize, ReplyError> {
        decode_size(self.size, body, payload)
    }
}

impl Operation for Listxattr {
    /// Size of the list in bytes. The list itself goes through [`XattrNames::new`].
    type Reply = usize;

    fn opcode(&self) -> Opcode {
        Opcode::Listxattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::GetxattrIn {
            size: self.size,
            padding: 0,
        })
    }

    fn reply_len(&self) -> usize {
        size_reply_len(self.size)
    }

    fn reply_payload_len(&self) -> usize {
        self.size as usize
    }

    fn decode(&self, body: &[u8], payload: usize) -> Result<usize, ReplyError> {
        decode_size(self.size, body, payload)
    }
}

/// The question for the size has a body, the one for the data only a payload.
fn size_reply_len(asked: u32) -> usize {
    match asked {
        0 => size_of::<wire::GetxattrOut>(),
        _ => 0,
    }
}

fn decode_size(asked: u32, body: &[u8], payload: usize) -> Result<usize, ReplyError> {
    if asked != 0 {
        return at_most(payload, asked as usize);
    }
    let raw: wire::GetxattrOut = exact(body)?;
    if raw.size > XATTR_MAX {
        return Err(Impossible::XattrSize.into());
    }
    Ok(raw.size as usize)
}

/// SETXATTR: gives an extended attribute a value, which is the payload of the request.
#[derive(Clone, Copy, Debug)]
pub struct Setxattr<'a> {
    /// Of which inode.
    pub node: NodeId,
    /// Its name, namespace included.
    pub name: &'a [u8],
    /// Bytes of the value, at most [`XATTR_MAX`].
    pub size: u32,
    /// `XATTR_CREATE` 1, `XATTR_REPLACE` 2, or 0 for either.
    pub flags: u32,
    /// Whether an access ACL also drops the set-group-id bit; only where
    /// [`SETXATTR_EXT`](crate::InitFlags::SETXATTR_EXT) was agreed on.
    pub acl_kill_sgid: Option<bool>,
}

impl Operation for Setxattr<'_> {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Setxattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let [size, flags] = [self.size, self.flags];
        match self.acl_kill_sgid {
            Some(kill) => e.struct_(&wire::SetxattrIn {
                size,
                flags,
                setxattr_flags: if kill { SETXATTR_ACL_KILL_SGID } else { 0 },
                padding: 0,
            })?,
            None => e.struct_(&[size, flags])?,
        }
        e.name(self.name)
    }

    fn payload_len(&self) -> usize {
        self.size as usize
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// REMOVEXATTR: takes an extended attribute away.
#[derive(Clone, Copy, Debug)]
pub struct Removexattr<'a> {
    /// Of which inode.
    pub node: NodeId,
    /// Its name, namespace included.
    pub name: &'a [u8],
}

impl Operation for Removexattr<'_> {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Removexattr
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.name(self.name)
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// The payload of LISTXATTR, checked: names, each with one NUL after it.
#[derive(Clone, Copy, Debug)]
pub struct XattrNames<'a>(&'a [u8]);

impl<'a> XattrNames<'a> {
    /// Checks a list, which can be empty.
    pub fn new(list: &'a [u8]) -> Result<Self, ReplyError> {
        let starts_empty = list.first() == Some(&0);
        let has_empty = list.windows(2).any(|pair| pair == [0, 0]);
        let ends_open = list.last().is_some_and(|last| *last != 0);
        if starts_empty || has_empty || ends_open {
            return Err(Impossible::XattrList.into());
        }
        Ok(Self(list))
    }

    /// The whole list, as listxattr(2) gives it to user space.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The names, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| name.strip_suffix(&[0]))
    }
}
