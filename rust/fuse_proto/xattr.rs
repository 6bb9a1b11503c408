// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use crate::data::at_most;
use crate::reply::{exact, Impossible, ReplyError};
use crate::value::NodeId;
use crate::wire;
use crate::{EncodeError, Encoder, Opcode, Operation};
use core::mem::size_of;

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
