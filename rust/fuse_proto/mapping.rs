// SPDX-License-Identifier: GPL-2.0

//! Mapping files into the window: SETUPMAPPING and REMOVEMAPPING.

use crate::encode::len_u32;
use crate::reply::{empty, ReplyError};
use crate::value::{Fh, NodeId};
use crate::wire;
use crate::{EncodeError, Encoder, MapFlags, Opcode, Operation};

/// SETUPMAPPING: a range of a file appears in the window.
#[derive(Clone, Copy, Debug)]
pub struct Setupmapping {
    /// Which file.
    pub node: NodeId,
    /// The handle, or none: then the daemon opens the file itself.
    pub fh: Option<Fh>,
    /// Start in the file, in bytes.
    pub foffset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Read, write.
    pub flags: MapFlags,
    /// Start in the window, in bytes.
    pub moffset: u64,
}

impl Operation for Setupmapping {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Setupmapping
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        e.struct_(&wire::SetupmappingIn {
            fh: self.fh.unwrap_or(Fh(u64::MAX)).0,
            foffset: self.foffset,
            len: self.len,
            flags: self.flags.bits(),
            moffset: self.moffset,
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}

/// A range of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRange {
    /// Start in the window, in bytes.
    pub moffset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// REMOVEMAPPING: ranges of the window become empty.
#[derive(Clone, Copy, Debug)]
pub struct Removemapping<'a> {
    /// The file that was there.
    pub node: NodeId,
    /// The ranges, at most [`MAX_RANGES`](Removemapping::MAX_RANGES).
    pub ranges: &'a [MapRange],
}

impl Removemapping<'_> {
    /// Most ranges of a request: what fits into 4 KiB (`FUSE_REMOVEMAPPING_MAX_ENTRY`).
    pub const MAX_RANGES: usize = 256;
}

impl Operation for Removemapping<'_> {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Removemapping
    }

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        if self.ranges.len() > Self::MAX_RANGES {
            return Err(EncodeError::TooLong);
        }
        e.struct_(&wire::RemovemappingIn {
            count: len_u32(self.ranges.len())?,
        })?;
        self.ranges.iter().try_for_each(|range| {
            e.struct_(&wire::RemovemappingOne {
                moffset: range.moffset,
                len: range.len,
            })
        })
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        empty(body)
    }
}
