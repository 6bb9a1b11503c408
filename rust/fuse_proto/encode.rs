// SPDX-License-Identifier: GPL-2.0

//! Encoder of requests.

use crate::value::NodeId;
use crate::{wire, Opcode};
use core::mem::size_of;
use zerocopy::{Immutable, IntoBytes};

/// Bytes before the arguments of a request.
pub const HEADER_LEN: usize = size_of::<wire::InHeader>();

/// Type of the extension that lists groups (`FUSE_EXT_GROUPS`).
const EXT_GROUPS: u32 = 32;

/// Why a request could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// It does not fit into the buffer, or into the fields that say how long it is.
    TooLong,
    /// A name is empty or has a NUL in it.
    BadName,
}

/// On whose behalf a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User, as the daemon counts them; [`Caller::UNMAPPED`] if it has no such user.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Process; 0 if none, or in another namespace.
    pub pid: u32,
}

impl Caller {
    /// The id of users and groups that the daemon does not have (`FUSE_INVALID_UIDGID`).
    pub const UNMAPPED: u32 = u32::MAX;
}

/// What creating requests carry after their arguments. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a> {
    /// Security contexts of the new inode, if [`SECURITY_CTX`](crate::InitFlags::SECURITY_CTX)
    /// was agreed on; there can be none of them.
    pub security: Option<&'a [SecurityContext<'a>]>,
    /// Supplementary groups of the caller that count here, if
    /// [`CREATE_SUPP_GROUP`](crate::InitFlags::CREATE_SUPP_GROUP) was agreed on.
    pub groups: &'a [u32],
}

/// A security context: the name of an extended attribute and its value.
#[derive(Clone, Copy, Debug)]
pub struct SecurityContext<'a> {
    /// Name, such as `security.selinux`.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

/// A cursor that writes a request into a buffer, or only measures it.
///
/// The header is written last, by [`finish`](Self::finish), which knows all lengths.
#[derive(Debug)]
pub struct Encoder<'a> {
    buf: Option<&'a mut [u8]>,
    len: usize,
    extensions: usize,
}

impl<'a> Encoder<'a> {
    /// Writes into `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self {
            buf: Some(buf),
            len: HEADER_LEN,
            extensions: 0,
        }
    }

    /// Only counts.
    pub fn measure() -> Self {
        Self {
            buf: None,
            len: HEADER_LEN,
            extensions: 0,
        }
    }

    /// Bytes so far, header included.
    pub fn written(&self) -> usize {
        self.len
    }

    /// Adds bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self
            .len
            .checked_add(bytes.len())
            .ok_or(EncodeError::TooLong)?;
        if let Some(buf) = &mut self.buf {
            buf.get_mut(self.len..end)
                .ok_or(EncodeError::TooLong)?
                .copy_from_slice(bytes);
        }
        self.len = end;
        Ok(())
    }

    /// Adds a structure.
    pub fn struct_<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.bytes(value.as_bytes())
    }

    /// Adds a name, or the target of a link, and the NUL after it.
    pub fn name(&mut self, name: &[u8]) -> Result<(), EncodeError> {
        if name.is_empty() || name.contains(&0) {
            return Err(EncodeError::BadName);
        }
        self.bytes(name)?;
        self.bytes(&[0])
    }

    /// Adds what comes after the arguments of a creating request.
    pub fn extensions(&mut self, extensions: &Extensions<'_>) -> Result<(), EncodeError> {
        let start = self.len;
        if let Some(contexts) = extensions.security {
            self.sized(start, contexts.len(), |e| {
                for context in contexts {
                    let from = e.len;
                    e.struct_(&wire::Secctx {
                        size: len_u32(context.value.len())?,
                        padding: 0,
                    })?;
                    e.name(context.name)?;
                    e.bytes(context.value)?;
                    e.pad(from)?;
                }
                Ok(())
            })?;
        }
        if !extensions.groups.is_empty() {
            let from = self.len;
            self.sized(from, EXT_GROUPS as usize, |e| {
                e.struct_(&wire::SuppGroups {
                    nr_groups: len_u32(extensions.groups.len())?,
                })?;
                e.bytes(extensions.groups.as_bytes())?;
                e.pad(from)
            })?;
        }
        self.extensions = self.len.saturating_sub(start);
        Ok(())
    }

    /// Adds an extension: its header, with the size that is known afterwards, and its content.
    fn sized(
        &mut self,
        from: usize,
        kind: usize,
        content: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut header = wire::ExtHeader {
            size: 0,
            kind: len_u32(kind)?,
        };
        self.struct_(&header)?;
        content(self)?;
        header.size = len_u32(self.len.saturating_sub(from))?;
        self.patch(from, header.as_bytes())
    }

    /// Fills up to a multiple of 8 bytes since `from`.
    fn pad(&mut self, from: usize) -> Result<(), EncodeError> {
        while self.len.saturating_sub(from) % 8 != 0 {
            self.bytes(&[0])?;
        }
        Ok(())
    }

    /// Overwrites bytes that were added before.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) -> Result<(), EncodeError> {
        if let Some(buf) = &mut self.buf {
            buf.get_mut(at..)
                .and_then(|buf| buf.get_mut(..bytes.len()))
                .ok_or(EncodeError::TooLong)?
                .copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes the header, and gives the number of bytes in the buffer. `payload` more bytes of
    /// the request are elsewhere, and counted in the header.
    pub fn finish(
        mut self,
        opcode: Opcode,
        unique: u64,
        node: Option<NodeId>,
        caller: &Caller,
        payload: usize,
    ) -> Result<usize, EncodeError> {
        let total = self.len.checked_add(payload).ok_or(EncodeError::TooLong)?;
        let header = wire::InHeader {
            len: len_u32(total)?,
            opcode: opcode.number(),
            unique,
            nodeid: node.map_or(0, NodeId::get),
            uid: caller.uid,
            gid: caller.gid,
            pid: caller.pid,
            total_extlen: u16::try_from(self.extensions / 8).map_err(|_| EncodeError::TooLong)?,
            padding: 0,
        };
        self.patch(0, header.as_bytes())?;
        Ok(self.len)
    }
}

/// A length in the 32 bits that the format has for it.
pub(crate) fn len_u32(len: usize) -> Result<u32, EncodeError> {
    u32::try_from(len).map_err(|_| EncodeError::TooLong)
}
