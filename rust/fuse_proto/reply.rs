// SPDX-License-Identifier: GPL-2.0

//! The check of a reply as a whole, and what can be wrong with one.

use crate::wire;
use core::fmt;
use core::mem::size_of;
use zerocopy::FromBytes;

/// Bytes before the body of a reply.
pub const HEADER_LEN: usize = size_of::<wire::OutHeader>();

/// Largest errno that a daemon may use. The ones above are between parts of a kernel, such as
/// `ERESTARTSYS`, and would do harm here.
const MAX_ERRNO: i32 = 511;
/// The exception: some filesystems of Linux let it out, so a daemon may pass it on.
const ENOTSUPP: i32 = 524;
const EOPNOTSUPP: i32 = 95;
const EIO: i32 = 5;
const EPROTO: i32 = 71;

/// Why a request has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The daemon refused, which is no fault of the reply: a negative errno, -511..=-1.
    Errno(i32),
    /// The device wrote fewer bytes than a header has.
    Short {
        /// Bytes that the device says it wrote.
        used: usize,
    },
    /// The length in the header is not what the device wrote.
    Length {
        /// Bytes by the header.
        said: u32,
        /// Bytes by the device.
        used: usize,
    },
    /// The reply is longer than what the request has room for.
    Overlong {
        /// Bytes that the device says it wrote.
        used: usize,
        /// Room for the reply in bytes.
        capacity: usize,
    },
    /// The reply is for another request.
    ForeignUnique {
        /// The request that it names.
        said: u64,
        /// The request that was answered.
        expected: u64,
    },
    /// The error is none that a daemon can have.
    BadErrno(i32),
    /// A refusal that brings data.
    ErrorWithBody {
        /// The error in the header.
        error: i32,
        /// Bytes after the header.
        len: usize,
    },
    /// The body has not the size that this reply has.
    BodyLength {
        /// Bytes that it has.
        len: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// INIT: no common version of the protocol.
    Version {
        /// Major version of the daemon.
        major: u32,
        /// Minor version of the daemon.
        minor: u32,
    },
    /// The body says something that cannot be.
    Impossible(Impossible),
}

/// What a reply says that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impossible {
    /// A mode without a file type that Linux knows.
    FileType,
    /// A new inode of another type than was asked for.
    OtherType,
    /// A file larger than Linux has.
    Size,
    /// A time with a second or more of nanoseconds.
    Nanoseconds,
    /// A device number beyond 12 and 20 bits.
    Device,
    /// No node, or the root, where another node has to be.
    Node,
    /// A directory record without a proper name.
    Name,
    /// A directory position beyond what Linux has.
    Position,
    /// A directory listing without one whole record.
    Record,
    /// An empty link target, one with a NUL, or one that is too long.
    LinkTarget,
    /// A file offset that is negative or goes backwards.
    Offset,
    /// A count larger than what was asked for, or nothing done.
    Count,
    /// An extended attribute larger than Linux has.
    XattrSize,
    /// A list of extended attributes that is not names with a NUL each.
    XattrList,
    /// An access control list that is not complete and in order.
    Acl,
    /// An alignment of mappings of 2^32 bytes or more.
    MapAlignment,
    /// A lock of no known type, or with its end before its start.
    Lock,
    /// An ioctl that asks for other buffers.
    IoctlRetry,
}

impl ReplyError {
    /// The negative errno for the caller: the daemon's own, or what stands for a bad reply.
    pub const fn to_errno(self) -> i32 {
        match self {
            Self::Errno(errno) => errno,
            Self::Version { .. } => -EPROTO,
            _ => -EIO,
        }
    }

    /// Whether the daemon broke the protocol, which deserves a line in the log.
    pub const fn is_malformed(self) -> bool {
        !matches!(self, Self::Errno(_))
    }
}

impl From<Impossible> for ReplyError {
    fn from(what: Impossible) -> Self {
        Self::Impossible(what)
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "error {errno}"),
            Self::Short { used } => write!(f, "reply too short ({used} bytes)"),
            Self::Length { said, used } => {
                write!(f, "reply of {used} bytes says that it has {said}")
            }
            Self::Overlong { used, capacity } => {
                write!(f, "reply of {used} bytes where {capacity} fit")
            }
            Self::ForeignUnique { said, expected } => {
                write!(f, "reply for request {said} instead of {expected}")
            }
            Self::BadErrno(error) => write!(f, "reply with impossible error {error}"),
            Self::ErrorWithBody { error, len } => {
                write!(f, "reply with error {error} and {len} bytes of data")
            }
            Self::BodyLength { len, expected } => {
                write!(f, "reply with {len} bytes of data instead of {expected}")
            }
            Self::Version { major, minor } => {
                write!(f, "unsupported protocol version {major}.{minor}")
            }
            Self::Impossible(what) => write!(f, "reply with impossible {}", what.as_str()),
        }
    }
}

impl Impossible {
    /// In words, to be put after "impossible".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileType => "file type",
            Self::OtherType => "type of a new file",
            Self::Size => "file size",
            Self::Nanoseconds => "time",
            Self::Device => "device number",
            Self::Node => "node ID",
            Self::Name => "name in a directory",
            Self::Position => "position in a directory",
            Self::Record => "record in a directory",
            Self::LinkTarget => "link target",
            Self::Offset => "file offset",
            Self::Count => "byte count",
            Self::XattrSize => "size of an extended attribute",
            Self::XattrList => "list of extended attributes",
            Self::Acl => "access control list",
            Self::MapAlignment => "alignment of mappings",
            Self::Lock => "lock",
            Self::IoctlRetry => "ioctl retry",
        }
    }
}

/// Checks the header of a reply, and gives the length of the body after it in bytes.
///
/// `header` starts with the header, `used` is the number of bytes that the device says it wrote,
/// `unique` the request that these buffers belong to, and `capacity` how much fits into them,
/// header included. The body of a refused request is empty and its errno an error here.
pub fn check_header(
    header: &[u8],
    used: usize,
    unique: u64,
    capacity: usize,
) -> Result<usize, ReplyError> {
    let short = ReplyError::Short { used };
    let len = used.checked_sub(HEADER_LEN).ok_or(short)?;
    if used > capacity {
        return Err(ReplyError::Overlong { used, capacity });
    }
    let (header, _) = wire::OutHeader::read_from_prefix(header).map_err(|_| short)?;
    if usize::try_from(header.len) != Ok(used) {
        let said = header.len;
        return Err(ReplyError::Length { said, used });
    }
    if header.unique != unique {
        let (said, expected) = (header.unique, unique);
        return Err(ReplyError::ForeignUnique { said, expected });
    }
    match header.error {
        0 => Ok(len),
        error if !is_errno(error) => Err(ReplyError::BadErrno(error)),
        error if len != 0 => Err(ReplyError::ErrorWithBody { error, len }),
        error if error == -ENOTSUPP => Err(ReplyError::Errno(-EOPNOTSUPP)),
        error => Err(ReplyError::Errno(error)),
    }
}

/// Whether a daemon may answer with this number.
pub(crate) const fn is_errno(error: i32) -> bool {
    (error < 0 && error >= -MAX_ERRNO) || error == -ENOTSUPP
}

/// Reads a body that is one structure, no more and no less.
pub(crate) fn exact<T: FromBytes>(body: &[u8]) -> Result<T, ReplyError> {
    T::read_from_bytes(body).map_err(|_| ReplyError::BodyLength {
        len: body.len(),
        expected: size_of::<T>(),
    })
}

/// Checks a body that is empty.
pub(crate) fn empty(body: &[u8]) -> Result<(), ReplyError> {
    if !body.is_empty() {
        return Err(ReplyError::BodyLength {
            len: body.len(),
            expected: 0,
        });
    }
    Ok(())
}
