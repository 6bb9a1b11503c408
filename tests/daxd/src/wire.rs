// SPDX-License-Identifier: GPL-2.0

//! The FUSE wire format as this daemon reads and writes it: opcodes, flags, a reader for requests and a writer for replies.
//!
//! Written from the protocol's description alone and shared with nothing else, so that a mistake in another implementation
//! of the format shows as a disagreement with this one.

use std::ffi::CStr;
use std::fmt;

/// Version of the protocol that is spoken unless an option says otherwise.
pub const MAJOR: u32 = 7;
/// Minor version, see [`MAJOR`].
pub const MINOR: u32 = 46;

/// The root directory's node id.
pub const ROOT: u64 = 1;

/// Length of the header in front of every request.
pub const IN_HEADER: usize = 40;
/// Length of the header in front of every reply.
pub const OUT_HEADER: usize = 16;

/// Declares the opcodes once, as constants and as a table of names.
macro_rules! opcodes {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Opcode {
            $(pub const $name: Opcode = Opcode($value);)*
            const NAMES: &'static [(&'static str, u32)] = &[$((stringify!($name), $value)),*];
        }
    };
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opcode(pub u32);

opcodes! {
    LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8, MKDIR = 9, UNLINK = 10,
    RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC = 20,
    SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23, REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28,
    RELEASEDIR = 29, FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35, INTERRUPT = 36,
    BMAP = 37, DESTROY = 38, IOCTL = 39, POLL = 40, NOTIFY_REPLY = 41, BATCH_FORGET = 42, FALLOCATE = 43,
    READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46, COPY_FILE_RANGE = 47, SETUPMAPPING = 48, REMOVEMAPPING = 49, SYNCFS = 50,
    TMPFILE = 51, STATX = 52, COPY_FILE_RANGE_64 = 53,
}

impl Opcode {
    /// The opcode that is called `name`.
    pub fn parse(name: &str) -> Option<Opcode> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| Opcode(*value))
    }

    /// Whether the sender gets a reply to a request that has `failed` or not: of an INTERRUPT only if it has.
    pub fn has_reply(self, failed: bool) -> bool {
        match self {
            Opcode::FORGET | Opcode::BATCH_FORGET => false,
            Opcode::INTERRUPT => failed,
            _ => true,
        }
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, value)| *value == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "OPCODE_{}", self.0),
        }
    }
}

/// Declares single-bit flags once, as constants and as a table of names.
macro_rules! flags {
    ($(#[$doc:meta])* $module:ident: $type:ty { $($name:ident = $bit:literal),* $(,)? }) => {
        $(#[$doc])*
        pub mod $module {
            #![allow(dead_code)]
            $(pub const $name: $type = 1 << $bit;)*
            /// Each flag's name and value.
            pub const NAMES: &[(&str, u64)] = &[$((stringify!($name), 1 << $bit)),*];
        }
    };
}

flags! {
    /// What both sides agree on in INIT.
    init: u64 {
        ASYNC_READ = 0, POSIX_LOCKS = 1, FILE_OPS = 2, ATOMIC_O_TRUNC = 3, EXPORT_SUPPORT = 4, BIG_WRITES = 5, DONT_MASK = 6,
        SPLICE_WRITE = 7, SPLICE_MOVE = 8, SPLICE_READ = 9, FLOCK_LOCKS = 10, HAS_IOCTL_DIR = 11, AUTO_INVAL_DATA = 12,
        DO_READDIRPLUS = 13, READDIRPLUS_AUTO = 14, ASYNC_DIO = 15, WRITEBACK_CACHE = 16, NO_OPEN_SUPPORT = 17,
        PARALLEL_DIROPS = 18, HANDLE_KILLPRIV = 19, POSIX_ACL = 20, ABORT_ERROR = 21, MAX_PAGES = 22, CACHE_SYMLINKS = 23,
        NO_OPENDIR_SUPPORT = 24, EXPLICIT_INVAL_DATA = 25, MAP_ALIGNMENT = 26, SUBMOUNTS = 27, HANDLE_KILLPRIV_V2 = 28,
        SETXATTR_EXT = 29, INIT_EXT = 30, SECURITY_CTX = 32, HAS_INODE_DAX = 33, CREATE_SUPP_GROUP = 34,
        HAS_EXPIRE_ONLY = 35, DIRECT_IO_ALLOW_MMAP = 36, PASSTHROUGH = 37, NO_EXPORT_SUPPORT = 38, HAS_RESEND = 39,
        ALLOW_IDMAP = 40, OVER_IO_URING = 41, REQUEST_TIMEOUT = 42, HAS_IO_URING_BUFPOOL = 43,
    }
}

flags! {
    /// What the answer to OPEN, OPENDIR or CREATE says about the file.
    fopen: u32 {
        DIRECT_IO = 0, KEEP_CACHE = 1, NONSEEKABLE = 2, CACHE_DIR = 3, STREAM = 4, NOFLUSH = 5,
        PARALLEL_DIRECT_WRITES = 6, PASSTHROUGH = 7,
    }
}

flags! {
    /// Which attributes SETATTR sets.
    fattr: u32 {
        MODE = 0, UID = 1, GID = 2, SIZE = 3, ATIME = 4, MTIME = 5, FH = 6, ATIME_NOW = 7, MTIME_NOW = 8, LOCKOWNER = 9,
        CTIME = 10, KILL_SUIDGID = 11,
    }
}

/// The attribute flag of a directory on which another file system is mounted.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;
/// The attribute flag of a file that may be mapped through the window.
pub const ATTR_DAX: u32 = 1 << 1;
/// WRITE: take set-user-id and set-group-id away.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// OPEN and CREATE: take set-user-id and set-group-id away when truncating.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// FSYNC and FSYNCDIR: data only.
pub const FSYNC_DATASYNC: u32 = 1 << 0;
/// GETATTR and STATX: the request names a file handle.
pub const GETATTR_FH: u32 = 1 << 0;
/// RELEASE: give the locks of flock(2) back.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// The RELEASE is also a FLUSH, in that it drops the owner's POSIX locks.
pub const RELEASE_FLUSH: u32 = 1 << 0;
/// GETLK, SETLK and SETLKW: a lock of flock(2).
pub const LK_FLOCK: u32 = 1 << 0;
/// SETUPMAPPING: the range will be written.
pub const SETUPMAPPING_WRITE: u64 = 1 << 0;

/// A request that breaks the protocol, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The header of a request.
#[derive(Clone, Copy, Debug)]
pub struct InHeader {
    pub len: u32,
    pub opcode: Opcode,
    pub unique: u64,
    pub nodeid: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Length of the extensions at the request's end, in units of eight bytes.
    pub total_extlen: u16,
}

impl InHeader {
    /// Reads the header at the start of `request`.
    pub fn parse(request: &[u8]) -> Result<InHeader, Malformed> {
        let mut r = Reader::new(request);
        let header = InHeader {
            len: r.u32()?,
            opcode: Opcode(r.u32()?),
            unique: r.u64()?,
            nodeid: r.u64()?,
            uid: r.u32()?,
            gid: r.u32()?,
            pid: r.u32()?,
            total_extlen: r.u16()?,
        };
        r.u16()?;
        Ok(header)
    }
}

/// Reads the fields of a request one after the other.
#[derive(Clone)]
pub struct Reader<'a> {
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data }
    }

    /// Takes the next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let short = || Malformed(format!("{len} bytes wanted, {} left", self.data.len()));
        let (head, tail) = self.data.split_at_checked(len).ok_or_else(short)?;
        self.data = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// Takes a 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a string that ends with NUL.
    pub fn string(&mut self) -> Result<&'a CStr, Malformed> {
        let string = CStr::from_bytes_until_nul(self.data)
            .map_err(|_| Malformed("string without NUL".into()))?;
        self.data = &self.data[string.count_bytes() + 1..];
        Ok(string)
    }

    /// Takes a name of a directory entry: a string that is not empty and has no slash.
    pub fn name(&mut self) -> Result<&'a CStr, Malformed> {
        let name = self.string()?;
        if name.is_empty() || name.to_bytes().contains(&b'/') {
            return Err(Malformed(format!("{name:?} is not a name")));
        }
        Ok(name)
    }

    /// How many bytes were not taken.
    pub fn left(&self) -> usize {
        self.data.len()
    }
}

/// Appends the fields of a reply one after the other.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Appends a 16-bit number.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a 32-bit number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a 64-bit number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends `count` zeros.
    pub fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes, leaving an empty writer.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// A whole reply: header, then `body`.
pub fn reply(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(OUT_HEADER + body.len()).unwrap_or(u32::MAX);
    let mut w = Writer(Vec::with_capacity(OUT_HEADER + body.len()));
    w.u32(len)
        .bytes(&error.to_le_bytes())
        .u64(unique)
        .bytes(body);
    w.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_have_names() {
        assert_eq!(Opcode::parse("READDIRPLUS"), Some(Opcode(44)));
        assert_eq!(Opcode(53).to_string(), "COPY_FILE_RANGE_64");
        assert_eq!(Opcode(7).to_string(), "OPCODE_7");
        assert_eq!(Opcode::parse("NONSENSE"), None);
    }

    #[test]
    fn reader_refuses_what_is_short() {
        let mut r = Reader::new(&[1, 0, 0, 0, 2]);
        assert_eq!(r.u32(), Ok(1));
        assert!(r.u32().is_err());
        assert_eq!(r.left(), 1);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(Reader::new(b"abc\0d").name(), Ok(c"abc"));
        for bad in [&b"abc"[..], b"\0", b"a/b\0", b""] {
            assert!(Reader::new(bad).name().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replies_start_with_their_length() {
        assert_eq!(
            reply(5, -2, b"xy"),
            [18, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0, 0, 0, 0, b'x', b'y']
        );
    }
}
