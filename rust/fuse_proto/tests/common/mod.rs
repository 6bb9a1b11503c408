// SPDX-License-Identifier: GPL-2.0

//! What the tests share: bytes written and read by offset, without the crate's own structures.

// Each test is a crate of its own, and not each one uses all of it.
#![allow(dead_code, unreachable_pub)]

use fuse_proto::*;
use proptest::test_runner::Config;

/// How properties are tested: without files that remember failures in the source tree.
pub fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::default()
    }
}

/// Bytes under construction, in the byte order of the guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn i32(self, value: i32) -> Self {
        self.u32(value as u32)
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn zeros(mut self, count: usize) -> Self {
        self.0.extend(vec![0; count]);
        self
    }

    /// Overwrites a 32-bit field.
    pub fn set32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Overwrites a 64-bit field.
    pub fn set64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A whole reply: header and body.
pub fn reply(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let len = 16 + body.len() as u32;
    Bytes::new().u32(len).i32(error).u64(unique).raw(body).0
}

/// Has `op` check a reply with this body, and with this much payload after it.
pub fn accept_with<O: Operation>(
    op: &O,
    body: &[u8],
    payload: usize,
) -> Result<O::Reply, ReplyError> {
    let mut bytes = reply(7, 0, body);
    let used = bytes.len() + payload;
    bytes[0..4].copy_from_slice(&(used as u32).to_ne_bytes());
    op.accept(7, &bytes, used)
}

/// Has `op` check a reply with this body.
pub fn accept<O: Operation>(op: &O, body: &Bytes) -> Result<O::Reply, ReplyError> {
    accept_with(op, &body.0, 0)
}

/// `struct fuse_attr` of a file with this mode.
pub fn attr(mode: u32) -> Bytes {
    Bytes::new()
        .u64(1000) // 0 ino
        .u64(123_456) // 8 size
        .u64(248) // 16 blocks
        .u64(1_000_000_001) // 24 atime
        .u64(1_000_000_002) // 32 mtime
        .u64(-3i64 as u64) // 40 ctime
        .u32(11) // 48 atimensec
        .u32(22) // 52 mtimensec
        .u32(999_999_999) // 56 ctimensec
        .u32(mode) // 60
        .u32(2) // 64 nlink
        .u32(500) // 68 uid
        .u32(600) // 72 gid
        .u32(0x0123_4567) // 76 rdev
        .u32(4096) // 80 blksize
        .u32(0) // 84 flags
}

/// What [`attr`] means.
pub fn checked_attr(kind: FileType, permissions: u16) -> Attr {
    let time = |sec, nsec| Time { sec, nsec };
    Attr {
        ino: 1000,
        size: 123_456,
        blocks: 248,
        atime: time(1_000_000_001, 11),
        mtime: time(1_000_000_002, 22),
        ctime: time(-3, 999_999_999),
        kind,
        permissions,
        nlink: 2,
        uid: 500,
        gid: 600,
        rdev: Device {
            major: 0x345,
            minor: 0x1267,
        },
        blksize: 4096,
        flags: AttrFlags::NONE,
    }
}

/// `struct fuse_entry_out` of a file with this mode.
pub fn entry(nodeid: u64, mode: u32) -> Bytes {
    Bytes::new()
        .u64(nodeid) // 0
        .u64(9) // 8 generation
        .u64(1) // 16 entry_valid
        .u64(2) // 24 attr_valid
        .u32(5) // 32 entry_valid_nsec
        .u32(6) // 36 attr_valid_nsec
        .raw(&attr(mode).0) // 40
}

/// What [`entry`] means.
pub fn checked_entry(nodeid: u64, kind: FileType, permissions: u16) -> Entry {
    Entry {
        node: node(nodeid),
        generation: 9,
        attr: checked_attr(kind, permissions),
        entry_ttl: Ttl::new(1, 5),
        attr_ttl: Ttl::new(2, 6),
    }
}

/// `struct fuse_attr_out` of a file with this mode.
pub fn attr_out(mode: u32) -> Bytes {
    Bytes::new().u64(3).u32(4).u32(0).raw(&attr(mode).0)
}

/// `struct fuse_dirent`, name and padding.
pub fn dirent(ino: u64, off: u64, kind: u32, name: &[u8]) -> Bytes {
    let record = Bytes::new()
        .u64(ino)
        .u64(off)
        .u32(name.len() as u32)
        .u32(kind)
        .raw(name);
    let len = record.0.len();
    record.zeros(len.next_multiple_of(8) - len)
}

/// Something to do with every operation.
pub trait Visit {
    fn visit<O: Operation>(&mut self, op: O);
}

/// Numbers to make operations of.
#[derive(Clone, Debug)]
pub struct Seed {
    pub node: NodeId,
    pub number: u64,
    pub small: u32,
    pub flag: bool,
    pub kind: FileType,
    pub name: Vec<u8>,
    pub groups: Vec<u32>,
}

impl Default for Seed {
    fn default() -> Self {
        Self {
            node: node(42),
            number: 0x1122_3344_5566,
            small: 100,
            flag: true,
            kind: FileType::Regular,
            name: b"name".to_vec(),
            groups: vec![],
        }
    }
}

/// Shows one operation of each kind (with both forms, where `seed.flag` decides) to `v`.
/// Whoever adds an operation adds it here.
pub fn visit_all(seed: &Seed, v: &mut impl Visit) {
    let Seed {
        node,
        number,
        small,
        flag,
        kind,
        ..
    } = *seed;
    let name = &seed.name[..];
    let fh = Fh(number);
    let owner = LockOwner(number ^ 1);
    let lock_owner = flag.then_some(owner);
    let perms = (small & 0o7777) as u16;
    let context = [SecurityContext {
        name,
        value: b"label",
    }];
    let extensions = Extensions {
        security: flag.then_some(&context),
        groups: &seed.groups,
    };
    let lock = FileLock {
        start: 1,
        end: 2,
        kind: LockKind::Write,
        pid: small,
    };
    let (parent, new_parent) = (node, node);
    let range = MapRange {
        moffset: number,
        len: 4096,
    };

    v.visit(Lookup { parent, name });
    v.visit(Forget { node, nlookup: 3 });
    v.visit(Getattr {
        node,
        fh: flag.then_some(fh),
    });
    v.visit(Setattr {
        mode: Some(small),
        ..Setattr::new(node)
    });
    v.visit(Readlink { node });
    v.visit(Symlink {
        parent,
        name,
        target: name,
        extensions,
    });
    v.visit(Mknod {
        parent,
        name,
        kind,
        permissions: perms,
        umask: 0o22,
        rdev: Device::from_wire(small),
        extensions,
    });
    v.visit(Mkdir {
        parent,
        name,
        permissions: perms,
        umask: 0o22,
        extensions,
    });
    v.visit(Link {
        node,
        kind,
        new_parent,
        new_name: name,
    });
    for flag in [flag, !flag] {
        v.visit(Unlink {
            parent,
            name,
            dir: flag,
        });
        v.visit(Rename {
            parent,
            name,
            new_parent,
            new_name: name,
            flags: u32::from(flag),
        });
        v.visit(Open {
            node,
            dir: flag,
            flags: small,
            open_flags: OpenFlags::NONE,
        });
        v.visit(Release {
            node,
            dir: flag,
            fh,
            flags: small,
            release_flags: ReleaseFlags::FLUSH,
            lock_owner: owner,
        });
        v.visit(Fsync {
            node,
            dir: flag,
            fh,
            datasync: flag,
        });
        v.visit(Readdir {
            node,
            plus: flag,
            fh,
            offset: number,
            size: small,
            flags: 0,
        });
        v.visit(Setlk {
            node,
            fh,
            owner,
            lock,
            flock: flag,
            wait: flag,
        });
        v.visit(Create {
            parent,
            name: flag.then_some(name),
            flags: small,
            open_flags: OpenFlags::NONE,
            permissions: perms,
            umask: 0o22,
            extensions,
        });
        v.visit(CopyFileRange {
            node_in: node,
            fh_in: fh,
            off_in: 1,
            node_out: node,
            fh_out: fh,
            off_out: 2,
            len: number,
            flags: 0,
            wide: flag,
        });
        // Data, and the question for its size.
        let size = if flag { small } else { 0 };
        v.visit(Getxattr { node, name, size });
        v.visit(Listxattr { node, size });
    }
    v.visit(Read {
        node,
        fh,
        offset: number,
        size: small,
        flags: 0,
        lock_owner,
    });
    v.visit(Write {
        node,
        fh,
        offset: number,
        size: small,
        flags: 0,
        write_flags: WriteFlags::NONE,
        lock_owner,
    });
    v.visit(Statfs { node });
    v.visit(Setxattr {
        node,
        name,
        size: small,
        flags: 1,
        acl_kill_sgid: flag.then_some(true),
    });
    v.visit(Removexattr { node, name });
    v.visit(Flush {
        node,
        fh,
        lock_owner: owner,
    });
    v.visit(Init {
        flags: InitFlags::from_bits(number),
        max_readahead: small,
        max_pages: 256,
    });
    v.visit(Getlk {
        node,
        fh,
        owner,
        lock,
    });
    v.visit(Access { node, mask: small });
    v.visit(Interrupt { target: number });
    v.visit(Destroy);
    v.visit(Ioctl {
        node,
        fh,
        flags: IoctlFlags::DIR,
        cmd: small,
        arg: number,
        data: b"data",
        out_size: small,
    });
    v.visit(Poll {
        node,
        fh,
        kh: number,
        notify: flag,
        events: small,
    });
    v.visit(Fallocate {
        node,
        fh,
        offset: number,
        length: number,
        mode: 0,
    });
    v.visit(Lseek {
        node,
        fh,
        offset: number,
        whence: Whence::Data,
    });
    v.visit(Setupmapping {
        node,
        fh: flag.then_some(fh),
        foffset: number,
        len: 4096,
        flags: MapFlags::READ,
        moffset: 0,
    });
    v.visit(Removemapping {
        node,
        ranges: &[range, range],
    });
    v.visit(Syncfs { node });
    v.visit(Statx {
        node,
        fh: flag.then_some(fh),
        flags: 0,
        mask: Statx::BASIC | Statx::BTIME,
    });
}
