// SPDX-License-Identifier: GPL-2.0

//! Requests have the layout of `fuse.h`, written here as offsets and numbers.

mod common;

use common::*;
use fuse_proto::*;
use proptest::prelude::*;
use std::collections::HashSet;

const CALLER: Caller = Caller {
    uid: 11,
    gid: 22,
    pid: 33,
};

/// A whole request with this payload elsewhere.
fn request<O: Operation>(op: &O) -> Vec<u8> {
    let mut buf = vec![0xee; 8192];
    let len = op.encode(0x77, &CALLER, &mut buf).unwrap();
    assert!(buf[len..].iter().all(|byte| *byte == 0xee));
    buf.truncate(len);
    buf
}

/// Checks opcode, node and arguments of a request.
#[track_caller]
fn check<O: Operation>(op: O, opcode: u32, nodeid: u64, args: Bytes) {
    let request = request(&op);
    assert_eq!(u32_at(&request, 4), opcode);
    assert_eq!(u64_at(&request, 16), nodeid);
    assert_eq!(&request[40..], &args.0);
}

#[test]
fn header() {
    let op = Write {
        node: node(5),
        fh: Fh(1),
        offset: 0,
        size: 1000,
        flags: 0,
        write_flags: WriteFlags::NONE,
        lock_owner: None,
    };
    let expected = Bytes::new()
        .u32(40 + 40 + 1000) // len, payload included
        .u32(16) // opcode
        .u64(0x77) // unique
        .u64(5) // nodeid
        .u32(11) // uid
        .u32(22) // gid
        .u32(33) // pid
        .u16(0) // total_extlen
        .u16(0);
    assert_eq!(&request(&op)[..40], &expected.0);
}

#[test]
fn names() {
    let (parent, name) = (node(5), &b"ab"[..]);
    let extensions = Extensions::default();
    check(Lookup { parent, name }, 1, 5, Bytes::new().raw(b"ab\0"));
    let symlink = Symlink {
        parent,
        name,
        target: b"../x/y",
        extensions,
    };
    check(symlink, 6, 5, Bytes::new().raw(b"ab\0../x/y\0"));
    let mknod = Mknod {
        parent,
        name,
        kind: FileType::CharDevice,
        permissions: 0o640,
        umask: 0o27,
        rdev: Device {
            major: 0x345,
            minor: 0x1267,
        },
        extensions,
    };
    let args = Bytes::new().u32(0o020640).u32(0x0123_4567).u32(0o27);
    check(mknod, 8, 5, args.u32(0).raw(b"ab\0"));
    let mkdir = Mkdir {
        parent,
        name,
        permissions: 0o1755,
        umask: 0o22,
        extensions,
    };
    let args = Bytes::new().u32(0o1755).u32(0o22).raw(b"ab\0");
    check(mkdir, 9, 5, args);
    for (dir, opcode) in [(false, 10), (true, 11)] {
        let op = Unlink { parent, name, dir };
        check(op, opcode, 5, Bytes::new().raw(b"ab\0"));
    }
    let link = Link {
        node: node(6),
        kind: FileType::Regular,
        new_parent: parent,
        new_name: name,
    };
    check(link, 13, 5, Bytes::new().u64(6).raw(b"ab\0"));
    let rename = Rename {
        parent,
        name,
        new_parent: node(8),
        new_name: b"cd",
        flags: 0,
    };
    check(rename, 12, 5, Bytes::new().u64(8).raw(b"ab\0cd\0"));
    let args = Bytes::new().u64(8).u32(2).u32(0).raw(b"ab\0cd\0");
    check(Rename { flags: 2, ..rename }, 45, 5, args);
    let create = Create {
        parent,
        name: Some(name),
        flags: 0o1101,
        open_flags: OpenFlags::KILL_SUIDGID,
        permissions: 0o600,
        umask: 0o22,
        extensions,
    };
    let args = Bytes::new().u32(0o1101).u32(0o100600).u32(0o22).u32(1);
    check(create, 35, 5, args.clone().raw(b"ab\0"));
    let tmpfile = Create {
        name: None,
        ..create
    };
    check(tmpfile, 51, 5, args.raw(b"/\0"));
}

#[test]
fn extensions() {
    let mkdir = |extensions| Mkdir {
        parent: node(5),
        name: b"d",
        permissions: 0o700,
        umask: 0,
        extensions,
    };
    let args = Bytes::new().u32(0o700).u32(0).raw(b"d\0");

    // Security context (header 8, record 8 + 3 + 5 = 16), then groups (8 + 4 + 4 = 16).
    let context = [SecurityContext {
        name: b"ab",
        value: b"label",
    }];
    let op = mkdir(Extensions {
        security: Some(&context),
        groups: &[77],
    });
    let expected = args.clone().u32(24).u32(1).u32(5).u32(0).raw(b"ab\0label");
    let expected = expected.u32(16).u32(32).u32(1).u32(77);
    assert_eq!(u16_at(&request(&op), 36), 5);
    assert_eq!(request(&op).len(), op.encoded_len().unwrap());
    check(op, 9, 5, expected);

    // Each record is padded to 8 bytes: 8 + 3 + 1 = 12.
    let contexts = [SecurityContext {
        name: b"ab",
        value: b"v",
    }; 2];
    let op = mkdir(Extensions {
        security: Some(&contexts),
        groups: &[],
    });
    let expected = args.clone().u32(40).u32(2);
    let expected = expected.u32(1).u32(0).raw(b"ab\0v\0\0\0\0");
    let expected = expected.u32(1).u32(0).raw(b"ab\0v\0\0\0\0");
    assert_eq!(u16_at(&request(&op), 36), 5);
    check(op, 9, 5, expected);

    // No context at all is still a header; two groups need padding: 8 + 4 + 8 = 20.
    let op = mkdir(Extensions {
        security: Some(&[]),
        groups: &[1, 2],
    });
    let expected = args.u32(8).u32(0);
    let expected = expected.u32(24).u32(32).u32(2).u32(1).u32(2).u32(0);
    assert_eq!(u16_at(&request(&op), 36), 4);
    check(op, 9, 5, expected);

    // 16 bits of units of 8 bytes.
    let groups = vec![0; 0x20000];
    let op = mkdir(Extensions {
        security: None,
        groups: &groups,
    });
    let mut buf = vec![0; 1 << 20];
    assert_eq!(op.encode(1, &CALLER, &mut buf), Err(EncodeError::TooLong));
}

#[test]
fn inodes() {
    let (node, fh) = (node(5), Fh(9));
    let args = Bytes::new().u32(0).u32(0).u64(0);
    check(Getattr { node, fh: None }, 3, 5, args);
    let args = Bytes::new().u32(1).u32(0).u64(9);
    check(Getattr { node, fh: Some(fh) }, 3, 5, args);
    let statx = Statx {
        node,
        fh: Some(fh),
        flags: 0x2000,
        mask: 0xfff,
    };
    let args = Bytes::new().u32(1).u32(0).u64(9).u32(0x2000).u32(0xfff);
    check(statx, 52, 5, args);
    check(Readlink { node }, 5, 5, Bytes::new());
    check(Statfs { node }, 17, 5, Bytes::new());
    check(Access { node, mask: 4 }, 34, 5, Bytes::new().u32(4).u32(0));
    check(Syncfs { node }, 50, 5, Bytes::new().u64(0));
}

#[test]
fn setattr() {
    let nothing = Setattr::new(node(5));
    check(nothing, 4, 5, Bytes::new().zeros(88));
    let all = Setattr {
        node: node(5),
        fh: Some(Fh(1)),
        mode: Some(2),
        uid: Some(3),
        gid: Some(4),
        size: Some(5),
        atime: Some(SetTime::To(Time { sec: -6, nsec: 7 })),
        mtime: Some(SetTime::To(Time { sec: 8, nsec: 9 })),
        ctime: Some(Time { sec: 10, nsec: 11 }),
        lock_owner: Some(LockOwner(12)),
        kill_suidgid: true,
    };
    let fields = |valid, atime, atimensec| {
        Bytes::new()
            .u32(valid)
            .u32(0)
            .u64(1) // fh
            .u64(5) // size
            .u64(12) // lock_owner
            .u64(atime)
            .u64(8) // mtime
            .u64(10) // ctime
            .u32(atimensec)
            .u32(9)
            .u32(11)
            .u32(2) // mode
            .u32(0)
            .u32(3) // uid
            .u32(4) // gid
            .u32(0)
    };
    check(all, 4, 5, fields(0b1110_0111_1111, -6i64 as u64, 7));
    let now = Setattr {
        atime: Some(SetTime::Now),
        ..all
    };
    check(now, 4, 5, fields(0b1110_1111_1111, 0, 0));
    // Each one by itself.
    let mtime_now = Setattr {
        mtime: Some(SetTime::Now),
        ..nothing
    };
    check(
        mtime_now,
        4,
        5,
        Bytes::new().u32((1 << 5) | (1 << 8)).zeros(84),
    );
    let kill = Setattr {
        kill_suidgid: true,
        ..nothing
    };
    check(kill, 4, 5, Bytes::new().u32(1 << 11).zeros(84));
}

#[test]
fn files() {
    let (node, fh) = (node(5), Fh(9));
    for (dir, opcodes) in [(false, [14, 18, 20]), (true, [27, 29, 30])] {
        let open = Open {
            node,
            dir,
            flags: 0o2000,
            open_flags: OpenFlags::KILL_SUIDGID,
        };
        check(open, opcodes[0], 5, Bytes::new().u32(0o2000).u32(1));
        let release = Release {
            node,
            dir,
            fh,
            flags: 3,
            release_flags: ReleaseFlags::FLOCK_UNLOCK,
            lock_owner: LockOwner(4),
        };
        let args = Bytes::new().u64(9).u32(3).u32(2).u64(4);
        check(release, opcodes[1], 5, args);
        let fsync = Fsync {
            node,
            dir,
            fh,
            datasync: dir,
        };
        let args = Bytes::new().u64(9).u32(u32::from(dir)).u32(0);
        check(fsync, opcodes[2], 5, args);
    }
    let flush = Flush {
        node,
        fh,
        lock_owner: LockOwner(4),
    };
    check(flush, 25, 5, Bytes::new().u64(9).u64(0).u64(4));
    let lseek = Lseek {
        node,
        fh,
        offset: 7,
        whence: Whence::Hole,
    };
    check(lseek, 46, 5, Bytes::new().u64(9).u64(7).u32(4).u32(0));
}

#[test]
fn data() {
    let (node, fh) = (node(5), Fh(9));
    let transfer = |size, flags: u32, owner, open_flags| {
        let args = Bytes::new().u64(9).u64(0x1_0000_0000).u32(size);
        args.u32(flags).u64(owner).u32(open_flags).u32(0)
    };
    let read = Read {
        node,
        fh,
        offset: 0x1_0000_0000,
        size: 4096,
        flags: 0o100000,
        lock_owner: None,
    };
    check(read, 15, 5, transfer(4096, 0, 0, 0o100000));
    let read = Read {
        lock_owner: Some(LockOwner(3)),
        ..read
    };
    check(read, 15, 5, transfer(4096, 2, 3, 0o100000));
    let write = Write {
        node,
        fh,
        offset: 0x1_0000_0000,
        size: 4096,
        flags: 1,
        write_flags: WriteFlags::CACHE,
        lock_owner: None,
    };
    check(write, 16, 5, transfer(4096, 1, 0, 1));
    let write = Write {
        write_flags: WriteFlags::KILL_SUIDGID,
        lock_owner: Some(LockOwner(3)),
        ..write
    };
    check(write, 16, 5, transfer(4096, 6, 3, 1));
    for (plus, opcode) in [(false, 28), (true, 44)] {
        let readdir = Readdir {
            node,
            plus,
            fh,
            offset: 0x1_0000_0000,
            size: 4096,
            flags: 0o200000,
        };
        check(readdir, opcode, 5, transfer(4096, 0, 0, 0o200000));
    }
    let fallocate = Fallocate {
        node,
        fh,
        offset: 1,
        length: 2,
        mode: 3,
    };
    let args = Bytes::new().u64(9).u64(1).u64(2).u32(3).u32(0);
    check(fallocate, 43, 5, args);
    let copy = CopyFileRange {
        node_in: node,
        fh_in: fh,
        off_in: 1,
        node_out: NodeId::ROOT,
        fh_out: Fh(3),
        off_out: 4,
        len: 1 << 33,
        flags: 6,
        wide: true,
    };
    let args = |len| {
        Bytes::new()
            .u64(9)
            .u64(1)
            .u64(1)
            .u64(3)
            .u64(4)
            .u64(len)
            .u64(6)
    };
    check(copy, 53, 5, args(1 << 33));
    let narrow = CopyFileRange {
        wide: false,
        ..copy
    };
    check(narrow, 47, 5, args(0xffff_f000));
    check(CopyFileRange { len: 5, ..narrow }, 47, 5, args(5));
}

#[test]
fn xattrs() {
    let (node, name) = (node(5), &b"user.x"[..]);
    let size = 10;
    let args = Bytes::new().u32(10).u32(0);
    let get = Getxattr { node, name, size };
    check(get, 22, 5, args.clone().raw(b"user.x\0"));
    check(Listxattr { node, size }, 23, 5, args);
    let set = Setxattr {
        node,
        name,
        size,
        flags: 2,
        acl_kill_sgid: None,
    };
    check(set, 21, 5, Bytes::new().u32(10).u32(2).raw(b"user.x\0"));
    for kill in [false, true] {
        let set = Setxattr {
            acl_kill_sgid: Some(kill),
            ..set
        };
        let args = Bytes::new().u32(10).u32(2).u32(u32::from(kill)).u32(0);
        check(set, 21, 5, args.raw(b"user.x\0"));
    }
    assert_eq!(u32_at(&request(&set), 0), 40 + 8 + 7 + 10);
    let remove = Removexattr { node, name };
    check(remove, 24, 5, Bytes::new().raw(b"user.x\0"));
}

#[test]
fn locks() {
    let (node, fh, owner) = (node(5), Fh(9), LockOwner(8));
    let lock = FileLock {
        start: 1,
        end: 2,
        kind: LockKind::Write,
        pid: 4,
    };
    let args = |kind, flags| {
        let args = Bytes::new().u64(9).u64(8).u64(1).u64(2);
        args.u32(kind).u32(4).u32(flags).u32(0)
    };
    let get = Getlk {
        node,
        fh,
        owner,
        lock,
    };
    check(get, 31, 5, args(1, 0));
    for (wait, opcode) in [(false, 32), (true, 33)] {
        for (kind, number) in [(LockKind::Read, 0), (LockKind::Unlock, 2)] {
            let set = Setlk {
                node,
                fh,
                owner,
                lock: FileLock { kind, ..lock },
                flock: wait,
                wait,
            };
            check(set, opcode, 5, args(number, u32::from(wait)));
        }
    }
}

#[test]
fn control() {
    let (node, fh) = (node(5), Fh(9));
    check(Interrupt { target: 3 }, 36, 0, Bytes::new().u64(3));
    check(Destroy, 38, 0, Bytes::new());
    let init = Init {
        flags: InitFlags::ASYNC_READ,
        max_readahead: 65536,
        max_pages: 256,
    };
    let args = Bytes::new().u32(7).u32(46).u32(65536);
    check(init, 26, 0, args.clone().u32(1).u32(0).zeros(44));
    // The upper half needs INIT_EXT (bit 30).
    let init = Init {
        flags: InitFlags::ALLOW_IDMAP,
        ..init
    };
    check(init, 26, 0, args.u32(1 << 30).u32(1 << 8).zeros(44));
    let ioctl = Ioctl {
        node,
        fh,
        flags: IoctlFlags::DIR,
        cmd: 1,
        arg: 2,
        data: b"abcdefgh",
        out_size: 4,
    };
    let args = Bytes::new().u64(9).u32(16).u32(1).u64(2).u32(8).u32(4);
    let data = u64::from_le_bytes(*b"abcdefgh");
    check(ioctl, 39, 5, args.u64(data));
    assert_eq!(u32_at(&request(&ioctl), 0), 40 + 32 + 8);
    for notify in [false, true] {
        let poll = Poll {
            node,
            fh,
            kh: 1,
            notify,
            events: 2,
        };
        let args = Bytes::new().u64(9).u64(1).u32(u32::from(notify)).u32(2);
        check(poll, 40, 5, args);
    }
}

#[test]
fn mappings() {
    let map = Setupmapping {
        node: node(5),
        fh: Some(Fh(9)),
        foffset: 1,
        len: 2,
        flags: MapFlags::READ | MapFlags::WRITE,
        moffset: 3,
    };
    let args = |fh| Bytes::new().u64(fh).u64(1).u64(2).u64(3).u64(3);
    check(map, 48, 5, args(9));
    check(Setupmapping { fh: None, ..map }, 48, 5, args(u64::MAX));
    let range = |moffset| MapRange { moffset, len: 2 };
    let ranges = [range(1), range(3)];
    let unmap = Removemapping {
        node: node(5),
        ranges: &ranges,
    };
    let args = Bytes::new().u32(2).u64(1).u64(2).u64(3).u64(2);
    check(unmap, 49, 5, args);
    let many = [range(1); Removemapping::MAX_RANGES + 1];
    let fits = Removemapping {
        node: node(5),
        ranges: &many[1..],
    };
    assert_eq!(request(&fits).len(), 40 + 4 + 4096);
    let unmap = Removemapping {
        ranges: &many,
        ..fits
    };
    assert_eq!(unmap.encoded_len(), Err(EncodeError::TooLong));
}

#[test]
fn forgets() {
    let forget = Forget {
        node: node(5),
        nlookup: 6,
    };
    assert_eq!(forget.answer(), Answer::Nothing);
    check(forget, 2, 5, Bytes::new().u64(6));

    assert_eq!(BatchForget::encoded_len(2), 48 + 32);
    for (len, capacity) in [(0, 0), (47, 0), (48, 0), (63, 0), (64, 1), (95, 2), (96, 3)] {
        assert_eq!(BatchForget::capacity(len), capacity);
    }
    assert!(BatchForget::new(&mut [0; 47]).is_err());
    let mut buf = [0xee; 95];
    let mut batch = BatchForget::new(&mut buf).unwrap();
    assert!(batch.is_empty());
    assert!(batch.push(forget));
    assert!(!batch.is_full());
    let last = Forget {
        node: node(7),
        nlookup: 8,
    };
    assert!(batch.push(last));
    assert!(batch.is_full() && !batch.push(forget));
    assert_eq!(batch.count(), 2);
    assert_eq!(batch.finish(0x77), Ok(80));
    let head = Bytes::new().u32(80).u32(42).u64(0x77).u64(0).zeros(16);
    let expected = head.u32(2).u32(0).u64(5).u64(6).u64(7).u64(8);
    assert_eq!(&buf[..80], &expected.0);
    assert_eq!(&buf[80..], &[0xee; 15]);
}

#[test]
fn names_are_checked() {
    let parent = node(5);
    for name in [&b""[..], b"\0", b"a\0b", b"a\0"] {
        let op = Lookup { parent, name };
        assert_eq!(op.encoded_len(), Err(EncodeError::BadName));
        let encoded = op.encode(1, &CALLER, &mut [0; 128]);
        assert_eq!(encoded, Err(EncodeError::BadName));
    }
}

#[test]
fn payload_too_long_for_the_header() {
    let op = Write {
        node: node(5),
        fh: Fh(1),
        offset: 0,
        size: u32::MAX,
        flags: 0,
        write_flags: WriteFlags::NONE,
        lock_owner: None,
    };
    let encoded = op.encode(1, &CALLER, &mut [0; 128]);
    assert_eq!(encoded, Err(EncodeError::TooLong));
}

#[derive(Default)]
struct Opcodes(HashSet<Opcode>);

impl Visit for Opcodes {
    fn visit<O: Operation>(&mut self, op: O) {
        self.0.insert(op.opcode());
    }
}

#[test]
fn every_opcode_is_tested() {
    let mut seen = Opcodes::default();
    visit_all(&Seed::default(), &mut seen);
    let missing: Vec<_> = Opcode::ALL
        .iter()
        .filter(|opcode| !seen.0.contains(opcode))
        .map(|opcode| opcode.name())
        .collect();
    // BATCH_FORGET is no `Operation`; virtiofs has neither block devices nor notifications.
    assert_eq!(missing, ["BMAP", "NOTIFY_REPLY", "BATCH_FORGET"]);
}

#[test]
fn opcodes() {
    let mut bits = 0;
    for opcode in Opcode::ALL {
        assert_eq!(opcode.number() as usize, opcode.index());
        assert!(opcode.index() < Opcode::SLOTS);
        assert_eq!(bits & opcode.bit(), 0);
        bits |= opcode.bit();
    }
    assert_eq!(Opcode::ALL.len(), 51);
    assert_eq!(Opcode::CopyFileRange64.to_string(), "COPY_FILE_RANGE_64");
}

#[test]
fn flags_in_words() {
    assert_eq!(InitFlags::NONE.to_string(), "0x0");
    // No two names for one bit, and no bit left out.
    assert_eq!(InitFlags::KNOWN.bits(), (1 << 44) - 1);
    assert_eq!(OpenReplyFlags::KNOWN.bits(), (1 << 9) - 1);
    assert_eq!(SetattrFlags::KNOWN.bits(), (1 << 12) - 1);
    assert_eq!(IoctlFlags::KNOWN.bits(), (1 << 6) - 1);
    assert_eq!(WriteFlags::KNOWN.bits(), (1 << 3) - 1);
    let flags = InitFlags::ASYNC_READ | InitFlags::ALLOW_IDMAP;
    assert_eq!(flags.to_string(), "ASYNC_READ|ALLOW_IDMAP");
    let flags = OpenReplyFlags::from_bits(1 | (1 << 31));
    assert_eq!(format!("{flags:?}"), "DIRECT_IO|0x80000000");
}

/// Checks what holds for every request.
struct Encoded {
    unique: u64,
}

impl Visit for Encoded {
    fn visit<O: Operation>(&mut self, op: O) {
        let mut buf = vec![0xee; 2048];
        let len = op.encode(self.unique, &CALLER, &mut buf).unwrap();
        assert_eq!(op.encoded_len(), Ok(len));
        assert!(buf[len..].iter().all(|byte| *byte == 0xee));
        assert_eq!(u32_at(&buf, 0) as usize, len + op.payload_len());
        assert_eq!(u32_at(&buf, 4), op.opcode().number());
        assert_eq!(u64_at(&buf, 8), self.unique);
        assert_eq!(u64_at(&buf, 16), op.node().map_or(0, NodeId::get));
        assert_eq!([11, 22, 33], [24, 28, 32].map(|at| u32_at(&buf, at)));
        // A buffer that is too short is no buffer.
        for short in [0, 39, len.saturating_sub(1)] {
            let encoded = op.encode(1, &CALLER, &mut buf[..short.min(len - 1)]);
            assert_eq!(encoded, Err(EncodeError::TooLong));
        }
    }
}

/// Any numbers, and names of one byte and more.
fn seeds() -> impl Strategy<Value = Seed> {
    let kinds = prop::sample::select(vec![FileType::Regular, FileType::Fifo, FileType::Socket]);
    let names = prop::collection::vec(1..=u8::MAX, 1..256);
    let groups = prop::collection::vec(any::<u32>(), 0..40);
    let numbers = (1..=u64::MAX, any::<u64>(), 0..0x10_0000u32, any::<bool>());
    (numbers, kinds, names, groups).prop_map(|((id, number, small, flag), kind, name, groups)| {
        Seed {
            node: node(id),
            number,
            small,
            flag,
            kind,
            name,
            groups,
        }
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_request_is_well_formed(seed in seeds(), unique: u64) {
        visit_all(&seed, &mut Encoded { unique });
    }

    /// Takes a request apart again, as a daemon would.
    #[test]
    fn create_round_trip(seed in seeds(), labels in prop::collection::vec("[a-z]{1,20}", 0..4)) {
        let contexts: Vec<_> = labels
            .iter()
            .map(|label| SecurityContext { name: &seed.name, value: label.as_bytes() })
            .collect();
        let op = Create {
            parent: seed.node,
            name: Some(&seed.name),
            flags: seed.small,
            open_flags: OpenFlags::NONE,
            permissions: 0o644,
            umask: 0o22,
            extensions: Extensions { security: Some(&contexts), groups: &seed.groups },
        };
        let request = request(&op);
        let extlen = usize::from(u16_at(&request, 36)) * 8;
        let (args, mut ext) = request.split_at(request.len() - extlen);
        prop_assert_eq!(u32_at(args, 40), seed.small);
        prop_assert_eq!(&args[56..args.len() - 1], &seed.name);

        // Security contexts: the size in the header covers all of them.
        prop_assert_eq!(u32_at(ext, 4) as usize, labels.len());
        let (mut security, rest) = ext.split_at(u32_at(ext, 0) as usize);
        security = &security[8..];
        for label in &labels {
            prop_assert_eq!(u32_at(security, 0) as usize, label.len());
            let end = 8 + seed.name.len() + 1 + label.len();
            prop_assert!(security[8..].starts_with(&seed.name));
            prop_assert_eq!(&security[end - label.len()..end], label.as_bytes());
            security = &security[end.next_multiple_of(8)..];
        }
        prop_assert!(security.is_empty());

        // Groups.
        ext = rest;
        if !seed.groups.is_empty() {
            prop_assert_eq!(u32_at(ext, 4), 32);
            prop_assert_eq!(u32_at(ext, 8) as usize, seed.groups.len());
            let groups = (0..seed.groups.len()).map(|i| u32_at(ext, 12 + 4 * i));
            prop_assert!(groups.eq(seed.groups.iter().copied()));
            ext = &ext[u32_at(ext, 0) as usize..];
        }
        prop_assert!(ext.is_empty());
    }

    #[test]
    fn batch_round_trip(
        forgets in prop::collection::vec((1..=u64::MAX, any::<u64>()), 0..50),
        room in 48..1000usize,
    ) {
        let mut buf = vec![0; room];
        let mut batch = BatchForget::new(&mut buf).unwrap();
        let fit = forgets
            .iter()
            .take_while(|(id, nlookup)| batch.push(Forget { node: node(*id), nlookup: *nlookup }))
            .count();
        prop_assert_eq!(fit, forgets.len().min(BatchForget::capacity(room)));
        let len = batch.finish(1).unwrap();
        prop_assert_eq!(len, BatchForget::encoded_len(fit));
        prop_assert_eq!(u32_at(&buf, 0) as usize, len);
        prop_assert_eq!(u32_at(&buf, 40) as usize, fit);
        for (i, (id, nlookup)) in forgets[..fit].iter().enumerate() {
            prop_assert_eq!(u64_at(&buf, 48 + 16 * i), *id);
            prop_assert_eq!(u64_at(&buf, 56 + 16 * i), *nlookup);
        }
    }
}
