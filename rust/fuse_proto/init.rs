// SPDX-License-Identifier: GPL-2.0

//! The start and the end of a session: INIT and DESTROY.

use crate::operation::Answer;
use crate::reply::{exact, Impossible, ReplyError};
use crate::value::NodeId;
use crate::wire;
use crate::{EncodeError, Encoder, InitFlags, Opcode, Operation};
use core::mem::size_of;
use zerocopy::FromBytes;

/// Major version of the protocol.
pub const MAJOR: u32 = 7;
/// Minor version of the protocol that is spoken here.
pub const MINOR: u32 = 46;
/// Oldest minor version of a daemon: the first with everything that virtiofs needs.
pub const MIN_MINOR: u32 = 31;

/// Pages of a request without [`MAX_PAGES`](InitFlags::MAX_PAGES).
const DEFAULT_MAX_PAGES: u16 = 32;
const DEFAULT_MAX_BACKGROUND: u16 = 12;
const DEFAULT_CONGESTION_THRESHOLD: u16 = 9;
/// Least that a daemon has to take per WRITE, in bytes.
const MIN_MAX_WRITE: u32 = 4096;
/// Pages are aligned to 4 KiB anyway.
const MIN_MAP_ALIGNMENT: u16 = 12;
const MAX_MAP_ALIGNMENT: u16 = 31;

/// INIT: version, abilities and limits of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Init {
    /// What this side can do. [`INIT_EXT`](InitFlags::INIT_EXT) is added where it is needed.
    pub flags: InitFlags,
    /// Most bytes that are read ahead.
    pub max_readahead: u32,
    /// Most pages that a request can have.
    pub max_pages: u16,
}

/// What was agreed on by INIT (`struct fuse_init_out`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor version in use, [`MIN_MINOR`] to [`MINOR`].
    pub minor: u32,
    /// What both sides can do.
    pub flags: InitFlags,
    /// What the daemon claimed without being offered it; not in `flags`.
    pub unoffered: InitFlags,
    /// Most bytes to read ahead, at most what was asked for.
    pub max_readahead: u32,
    /// Most bytes of a WRITE, at least 4096.
    pub max_write: u32,
    /// Most pages of a request, from 1 to what this side can have.
    pub max_pages: u16,
    /// Most background requests (readahead, writeback) in flight, at least 1.
    pub max_background: u16,
    /// Background requests from which on there are too many, 1 to `max_background`.
    pub congestion_threshold: u16,
    /// Granularity of times in nanoseconds: a power of ten, 1 to 1,000,000,000.
    pub time_gran: u32,
    /// Alignment of mappings of the window, as a base-2 logarithm: 12 to 31.
    pub map_alignment: u8,
    /// Seconds after which the daemon considers a request lost, 0 for never.
    pub request_timeout: u16,
}

impl Init {
    fn offered(&self) -> InitFlags {
        match self.flags.bits() >> 32 {
            0 => self.flags,
            _ => self.flags | InitFlags::INIT_EXT,
        }
    }

    /// The version is at the start of every reply, however long it is.
    fn check_version(body: &[u8]) -> Result<u32, ReplyError> {
        let Ok(([major, minor], _)) = <[u32; 2]>::read_from_prefix(body) else {
            return Err(ReplyError::BodyLength {
                len: body.len(),
                expected: size_of::<wire::InitOut>(),
            });
        };
        if major != MAJOR || minor < MIN_MINOR {
            return Err(ReplyError::Version { major, minor });
        }
        Ok(minor.min(MINOR))
    }
}

impl Operation for Init {
    type Reply = Negotiated;

    fn opcode(&self) -> Opcode {
        Opcode::Init
    }

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn args(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        let (flags, flags2) = split(self.offered());
        e.struct_(&wire::InitIn {
            major: MAJOR,
            minor: MINOR,
            max_readahead: self.max_readahead,
            flags,
            flags2,
            unused: [0; 11],
        })
    }

    fn reply_len(&self) -> usize {
        size_of::<wire::InitOut>()
    }

    fn decode(&self, body: &[u8], _payload: usize) -> Result<Negotiated, ReplyError> {
        let minor = Self::check_version(body)?;
        let raw: wire::InitOut = exact(body)?;
        let claimed = join(raw.flags, raw.flags2);
        let flags = claimed.and(self.offered());

        let max_pages = match flags.contains(InitFlags::MAX_PAGES) {
            true => raw.max_pages,
            false => DEFAULT_MAX_PAGES,
        };
        let max_background = or_default(raw.max_background, DEFAULT_MAX_BACKGROUND);
        let congestion_threshold =
            or_default(raw.congestion_threshold, DEFAULT_CONGESTION_THRESHOLD);
        let map_alignment = match flags.contains(InitFlags::MAP_ALIGNMENT) {
            true => raw.map_alignment.max(MIN_MAP_ALIGNMENT),
            false => MIN_MAP_ALIGNMENT,
        };
        if map_alignment > MAX_MAP_ALIGNMENT {
            return Err(Impossible::MapAlignment.into());
        }
        Ok(Negotiated {
            minor,
            flags,
            unoffered: claimed.without(flags),
            max_readahead: raw.max_readahead.min(self.max_readahead),
            max_write: raw.max_write.max(MIN_MAX_WRITE),
            max_pages: max_pages.min(self.max_pages).max(1),
            max_background,
            congestion_threshold: congestion_threshold.min(max_background),
            time_gran: match raw.time_gran {
                gran @ (1 | 10 | 100 | 1_000 | 10_000 | 100_000 | 1_000_000) => gran,
                gran @ (10_000_000 | 100_000_000 | 1_000_000_000) => gran,
                _ => 1,
            },
            map_alignment: map_alignment as u8,
            request_timeout: match flags.contains(InitFlags::REQUEST_TIMEOUT) {
                true => raw.request_timeout,
                false => 0,
            },
        })
    }
}

fn or_default(value: u16, default: u16) -> u16 {
    match value {
        0 => default,
        value => value,
    }
}

/// The halves of the flags that go on the wire.
fn split(flags: InitFlags) -> (u32, u32) {
    (flags.bits() as u32, (flags.bits() >> 32) as u32)
}

/// The flags of both halves; the high half counts only if the low one says so.
fn join(flags: u32, flags2: u32) -> InitFlags {
    let low = InitFlags::from_bits(u64::from(flags));
    match low.contains(InitFlags::INIT_EXT) {
        true => low | InitFlags::from_bits(u64::from(flags2) << 32),
        false => low,
    }
}

/// DESTROY: the end of a session. Some daemons answer with nothing at all.
#[derive(Clone, Copy, Debug)]
pub struct Destroy;

impl Operation for Destroy {
    type Reply = ();

    fn opcode(&self) -> Opcode {
        Opcode::Destroy
    }

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn args(&self, _e: &mut Encoder<'_>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn answer(&self) -> Answer {
        Answer::Optional
    }

    fn decode(&self, _body: &[u8], _payload: usize) -> Result<(), ReplyError> {
        Ok(())
    }
}
