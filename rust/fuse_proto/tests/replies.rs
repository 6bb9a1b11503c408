// SPDX-License-Identifier: GPL-2.0

//! What a reply may say, rule by rule.

mod common;

use common::*;
use fuse_proto::*;
use proptest::prelude::*;

const REG: u32 = 0o100644;
const DIR: u32 = 0o040755;
const LNK: u32 = 0o120777;

fn impossible<T>(what: Impossible) -> Result<T, ReplyError> {
    Err(ReplyError::Impossible(what))
}

fn lookup() -> Lookup<'static> {
    Lookup {
        parent: NodeId::ROOT,
        name: b"name",
    }
}

fn getattr() -> Getattr {
    Getattr {
        node: node(5),
        fh: None,
    }
}

#[test]
fn header() {
    let good = reply(7, 0, &[1, 2, 3]);
    assert_eq!(check_header(&good, 19, 7, 19), Ok(3));
    // The header is read from its bytes alone.
    assert_eq!(check_header(&good[..16], 19, 7, 19), Ok(3));
    for used in 0..16 {
        let short = Err(ReplyError::Short { used });
        assert_eq!(check_header(&good, used, 7, 19), short);
    }
    let short = Err(ReplyError::Short { used: 19 });
    assert_eq!(check_header(&good[..15], 19, 7, 19), short);
    for used in [16, 18, 20] {
        let length = Err(ReplyError::Length { said: 19, used });
        assert_eq!(check_header(&good, used, 7, 100), length);
    }
    let overlong = ReplyError::Overlong {
        used: 19,
        capacity: 18,
    };
    assert_eq!(check_header(&good, 19, 7, 18), Err(overlong));
    let foreign = ReplyError::ForeignUnique {
        said: 7,
        expected: 8,
    };
    assert_eq!(check_header(&good, 19, 8, 19), Err(foreign));
}

#[test]
fn refusals() {
    let check = |error, body: &[u8]| {
        let bytes = reply(7, error, body);
        check_header(&bytes, bytes.len(), 7, 100)
    };
    for error in [-1, -2, -38, -511] {
        assert_eq!(check(error, &[]), Err(ReplyError::Errno(error)));
        let with_body = ReplyError::ErrorWithBody { error, len: 4 };
        assert_eq!(check(error, &[0; 4]), Err(with_body));
    }
    // ENOTSUPP is no errno of user space, but EOPNOTSUPP is.
    assert_eq!(check(-524, &[]), Err(ReplyError::Errno(-95)));
    // ERESTARTSYS and the like, and what is no errno at all.
    for error in [1, 2, i32::MAX, -512, -516, -530, -4095, -4096, i32::MIN] {
        assert_eq!(check(error, &[]), Err(ReplyError::BadErrno(error)));
        assert_eq!(check(error, &[0]), Err(ReplyError::BadErrno(error)));
    }
    assert_eq!(ReplyError::Errno(-2).to_errno(), -2);
    assert!(!ReplyError::Errno(-2).is_malformed());
    assert_eq!(ReplyError::BadErrno(-512).to_errno(), -5);
    assert!(ReplyError::BadErrno(-512).is_malformed());
}

#[test]
fn errors_in_words() {
    let text = ReplyError::Impossible(Impossible::Size).to_string();
    assert_eq!(text, "reply with impossible file size");
    let text = ReplyError::Length { said: 3, used: 4 }.to_string();
    assert_eq!(text, "reply of 4 bytes says that it has 3");
}

#[test]
fn whole_replies() {
    let op = getattr();
    let good = reply(7, 0, &attr_out(REG).0);
    let checked = op.accept(7, &good, 120).unwrap();
    assert_eq!(checked.attr, checked_attr(FileType::Regular, 0o644));
    assert_eq!(checked.ttl, Ttl::new(3, 4));
    // Bytes in the buffer that the device did not write do not matter.
    let mut longer = good.clone();
    longer.extend([0xee; 100]);
    assert_eq!(op.accept(7, &longer, 120), Ok(checked));
    // A buffer that is shorter than what the device claims.
    let short = Err(ReplyError::Short { used: 120 });
    assert_eq!(op.accept(7, &good[..119], 120), short);
    // A body of any other length.
    for len in [0, 1, 96, 103] {
        let body_len = ReplyError::BodyLength { len, expected: 104 };
        let body = &attr_out(REG).0[..len];
        assert_eq!(accept_with(&op, body, 0), Err(body_len));
    }
    let overlong = ReplyError::Overlong {
        used: 128,
        capacity: 120,
    };
    assert_eq!(accept(&op, &attr_out(REG).zeros(8)), Err(overlong));
    let refused = reply(7, -13, &[]);
    assert_eq!(op.accept(7, &refused, 16), Err(ReplyError::Errno(-13)));
}

#[test]
fn no_reply_where_none_is_due() {
    assert_eq!(Destroy.accept(7, &[], 0), Ok(()));
    assert_eq!(Destroy.accept(7, &reply(7, 0, &[]), 16), Ok(()));
    assert_eq!(
        Destroy.accept(7, &reply(7, -5, &[]), 16),
        Err(ReplyError::Errno(-5))
    );
    assert_eq!(
        Destroy.accept(7, &[0; 16], 8),
        Err(ReplyError::Short { used: 8 })
    );
    assert_eq!(Interrupt { target: 1 }.accept(7, &[], 0), Ok(()));
    let access = Access {
        node: node(5),
        mask: 4,
    };
    let short = Err(ReplyError::Short { used: 0 });
    assert_eq!(access.accept(7, &reply(7, 0, &[]), 0), short);
    assert_eq!(access.accept(7, &reply(7, 0, &[]), 16), Ok(()));
}

#[test]
fn attributes() {
    let check = |raw: Bytes| accept(&getattr(), &raw).map(|reply| reply.attr);
    // `struct fuse_attr` starts at 16.
    let raw = attr_out(REG);
    let max = i64::MAX as u64;
    let size = |size| check(raw.clone().set64(16 + 8, size)).map(|attr| attr.size);
    assert_eq!(size(max), Ok(max));
    assert_eq!(size(max + 1), impossible(Impossible::Size));
    for nsec in [48, 52, 56] {
        let time = |value| check(raw.clone().set32(16 + nsec, value));
        assert!(time(999_999_999).is_ok());
        assert_eq!(time(1_000_000_000), impossible(Impossible::Nanoseconds));
    }
    for kind in 0..16 {
        let mode = (kind << 12) | 0o7777;
        let checked = check(attr_out(mode));
        if [1, 2, 4, 6, 8, 10, 12].contains(&kind) {
            assert_eq!(checked.unwrap().mode(), mode);
            assert_eq!(u32::from(checked.unwrap().kind.dirent()), kind);
        } else {
            assert_eq!(checked, impossible(Impossible::FileType));
        }
    }
    // Linux has no mode bits above 16.
    assert_eq!(check(attr_out(0x7fff_0000 | REG)).unwrap().mode(), REG);
    let flags = |flags| check(raw.clone().set32(16 + 84, flags)).unwrap().flags;
    assert_eq!(flags(1), AttrFlags::SUBMOUNT);
    assert_eq!(flags(2), AttrFlags::DAX);
    assert_eq!(flags(0xffff_fffc), AttrFlags::NONE);
}

#[test]
fn times_and_devices() {
    assert_eq!(Ttl::new(0, 0), Ttl::ZERO);
    assert_eq!(Ttl::new(2, 3).nanos(), 2_000_000_003);
    assert_eq!(Ttl::new(0, u32::MAX).nanos(), 1_000_000_000);
    assert_eq!(Ttl::new(u64::MAX, 0).nanos(), u64::MAX);
    assert_eq!(Ttl::new(18_446_744_073, 999_999_999).nanos(), u64::MAX);
    for wire in [0, 1, 0xff, 0x100, 0xf_ff00, 0xffff_ffff, 0x0123_4567] {
        let device = Device::from_wire(wire);
        assert!(device.major < 1 << 12 && device.minor < 1 << 20);
        assert_eq!(device.to_wire(), wire);
    }
    assert_eq!(NodeId::new(0), None);
    assert_eq!(NodeId::new(1), Some(NodeId::ROOT));
}

#[test]
fn lookups() {
    let found = |id| {
        Ok(LookupReply::Found(checked_entry(
            id,
            FileType::Directory,
            0o755,
        )))
    };
    assert_eq!(accept(&lookup(), &entry(5, DIR)), found(5));
    // Nothing there: the rest of the entry does not matter.
    let negative = Ok(LookupReply::Negative(Ttl::new(1, 5)));
    assert_eq!(accept(&lookup(), &entry(0, 0)), negative);
    // The root is below nothing, but above everything.
    let root = entry(1, DIR);
    assert_eq!(accept(&lookup(), &root), impossible(Impossible::Node));
    for name in [&b"."[..], b".."] {
        let op = Lookup { name, ..lookup() };
        assert_eq!(accept(&op, &root), found(1));
    }
    let op = Lookup {
        name: b"...",
        ..lookup()
    };
    assert_eq!(accept(&op, &root), impossible(Impossible::Node));
    let bad = entry(5, 0o644);
    assert_eq!(accept(&lookup(), &bad), impossible(Impossible::FileType));
}

#[test]
fn new_inodes_are_what_was_asked_for() {
    fn check<O: Operation<Reply = Entry>>(op: O, kind: FileType) {
        let mode = kind.mode() | 0o600;
        let made = Ok(checked_entry(5, kind, 0o600));
        assert_eq!(accept(&op, &entry(5, mode)), made);
        assert_eq!(accept(&op, &entry(0, mode)), impossible(Impossible::Node));
        assert_eq!(accept(&op, &entry(1, mode)), impossible(Impossible::Node));
        let directory = FileType::Directory;
        let other = if kind == directory { REG } else { DIR };
        let wrong = impossible(Impossible::OtherType);
        assert_eq!(accept(&op, &entry(5, other)), wrong);
    }
    let (parent, name, extensions) = (NodeId::ROOT, &b"n"[..], Extensions::default());
    for kind in [FileType::Regular, FileType::Fifo, FileType::BlockDevice] {
        let mknod = Mknod {
            parent,
            name,
            kind,
            permissions: 0o600,
            umask: 0,
            rdev: Device::default(),
            extensions,
        };
        check(mknod, kind);
        let link = Link {
            node: node(5),
            kind,
            new_parent: parent,
            new_name: name,
        };
        check(link, kind);
    }
    let mkdir = Mkdir {
        parent,
        name,
        permissions: 0o600,
        umask: 0,
        extensions,
    };
    check(mkdir, FileType::Directory);
    let symlink = Symlink {
        parent,
        name,
        target: b"t",
        extensions,
    };
    check(symlink, FileType::Symlink);
}

#[test]
fn creations() {
    let op = Create {
        parent: NodeId::ROOT,
        name: Some(b"n"),
        flags: 0,
        open_flags: OpenFlags::NONE,
        permissions: 0o644,
        umask: 0,
        extensions: Extensions::default(),
    };
    let open = Bytes::new().u64(77).u32(2).u32(0).0;
    let tmpfile = Create { name: None, ..op };
    for op in [op, tmpfile] {
        let made = CreateReply {
            entry: checked_entry(5, FileType::Regular, 0o644),
            open: OpenReply {
                fh: Fh(77),
                flags: OpenReplyFlags::KEEP_CACHE,
            },
        };
        assert_eq!(accept(&op, &entry(5, REG).raw(&open)), Ok(made));
        let wrong = impossible(Impossible::OtherType);
        assert_eq!(accept(&op, &entry(5, LNK).raw(&open)), wrong);
        let root = accept(&op, &entry(1, REG).raw(&open));
        assert_eq!(root, impossible(Impossible::Node));
        for len in [0, 128, 143] {
            let body = entry(5, REG).raw(&open).0;
            let expected = 144;
            let body_len = Err(ReplyError::BodyLength { len, expected });
            assert_eq!(accept_with(&op, &body[..len], 0), body_len);
        }
    }
}

#[test]
fn opens() {
    let op = Open {
        node: node(5),
        dir: false,
        flags: 0,
        open_flags: OpenFlags::NONE,
    };
    let open = |flags| accept(&op, &Bytes::new().u64(u64::MAX).u32(flags).i32(-1));
    let reply = open(u32::MAX).unwrap();
    assert_eq!(reply.fh, Fh(u64::MAX));
    // Only what has a name.
    assert_eq!(reply.flags.bits(), 0x1ff);
}

#[test]
fn statx() {
    let op = Statx {
        node: node(5),
        fh: None,
        flags: 0,
        mask: 0xfff,
    };
    let time = |raw: Bytes, sec: i64| raw.u64(sec as u64).u32(5).u32(0);
    let stat = |mask, mode: u16| {
        let raw = Bytes::new().u64(3).u32(4).u32(0).zeros(16); // to 32
        let raw = raw.u32(mask).u32(4096).u64(0b111); // mask, blksize, attributes: to 48
        let raw = raw.u32(1).u32(500).u32(600).u16(mode).u16(0); // to 64
        let raw = raw.u64(1000).u64(10).u64(8).u64(0b101); // ino, size, ..., mask: to 96
        let raw = time(time(time(time(raw, 1), 2), 3), -4); // a, b, c, m: to 160
        raw.u32(9).u32(8).u64(0).zeros(112)
    };
    let full = accept(&op, &stat(0xfff, 0o100644)).unwrap();
    let attr = full.attr.unwrap();
    let at = |sec| Time { sec, nsec: 5 };
    assert_eq!([attr.atime, attr.ctime, attr.mtime], [1, 3, -4].map(at));
    assert_eq!(full.btime, Some(at(2)));
    assert_eq!((attr.ino, attr.size, attr.blocks), (1000, 10, 8));
    assert_eq!((attr.nlink, attr.uid, attr.gid), (1, 500, 600));
    assert_eq!(attr.mode(), REG);
    assert_eq!((attr.rdev.major, attr.rdev.minor), (9, 8));
    assert_eq!((full.attributes, full.attributes_mask), (0b101, 0b101));
    assert_eq!(full.ttl, Ttl::new(3, 4));
    // What is not there is not looked at.
    let part = accept(&op, &stat(0x7fe, 0)).unwrap();
    assert_eq!((part.attr, part.btime), (None, None));
    let basic = accept(&op, &stat(0x7ff, 0o100644)).unwrap();
    assert_eq!((basic.attr, basic.btime), (Some(attr), None));
    // What is there is checked.
    let bad = accept(&op, &stat(0xfff, 0o644));
    assert_eq!(bad, impossible(Impossible::FileType));
    let good = stat(0xfff, 0o100644);
    let bad = accept(&op, &good.clone().set64(72, 1 << 63));
    assert_eq!(bad, impossible(Impossible::Size));
    for nsec in [104, 120, 136, 152] {
        let bad = accept(&op, &good.clone().set32(nsec, 1_000_000_000));
        assert_eq!(bad, impossible(Impossible::Nanoseconds));
    }
    for (at, limit) in [(160, 1 << 12), (164, 1 << 20)] {
        assert!(accept(&op, &good.clone().set32(at, limit - 1)).is_ok());
        let bad = accept(&op, &good.clone().set32(at, limit));
        assert_eq!(bad, impossible(Impossible::Device));
    }
}

#[test]
fn statfs() {
    let op = Statfs { node: node(5) };
    let raw = Bytes::new().u64(1).u64(2).u64(3).u64(4).u64(5);
    let raw = raw.u32(6).u32(7).u32(8).zeros(28);
    let expected = StatfsReply {
        blocks: 1,
        bfree: 2,
        bavail: 3,
        files: 4,
        ffree: 5,
        bsize: 6,
        namelen: 7,
        frsize: 8,
    };
    assert_eq!(accept(&op, &raw), Ok(expected));
}

#[test]
fn link_targets() {
    let op = Readlink { node: node(5) };
    assert_eq!(accept_with(&op, &[], 1), Ok(1));
    assert_eq!(accept_with(&op, &[], 4095), Ok(4095));
    let empty = accept_with(&op, &[], 0);
    assert_eq!(empty, impossible(Impossible::LinkTarget));
    let long = accept_with(&op, &[], 4096);
    assert!(matches!(long, Err(ReplyError::Overlong { .. })));

    assert_eq!(link_target(b"../a"), Ok(&b"../a"[..]));
    assert!(link_target(&[b'a'; 4095]).is_ok());
    for bad in [&b""[..], b"\0", b"a\0", b"a\0b", &[b'a'; 4096]] {
        assert_eq!(link_target(bad), impossible(Impossible::LinkTarget));
    }
}

#[test]
fn counts() {
    let read = Read {
        node: node(5),
        fh: Fh(0),
        offset: 0,
        size: 100,
        flags: 0,
        lock_owner: None,
    };
    for count in [0, 1, 100] {
        assert_eq!(accept_with(&read, &[], count), Ok(count));
    }
    let long = accept_with(&read, &[], 101);
    assert!(matches!(long, Err(ReplyError::Overlong { .. })));
    assert_eq!(read.decode(&[], 101), impossible(Impossible::Count));

    let write = Write {
        node: node(5),
        fh: Fh(0),
        offset: 0,
        size: 100,
        flags: 0,
        write_flags: WriteFlags::NONE,
        lock_owner: None,
    };
    let written = |op: Write, count| accept(&op, &Bytes::new().u32(count).u32(0));
    for count in [1, 100] {
        assert_eq!(written(write, count), Ok(count as usize));
    }
    for count in [0, 101, u32::MAX] {
        assert_eq!(written(write, count), impossible(Impossible::Count));
    }
    assert_eq!(written(Write { size: 0, ..write }, 0), Ok(0));

    let copy = CopyFileRange {
        node_in: node(5),
        fh_in: Fh(0),
        off_in: 0,
        node_out: node(6),
        fh_out: Fh(0),
        off_out: 0,
        len: 1 << 40,
        flags: 0,
        wide: true,
    };
    for count in [0, 1, 1 << 40] {
        assert_eq!(accept(&copy, &Bytes::new().u64(count)), Ok(count));
    }
    let over = accept(&copy, &Bytes::new().u64((1 << 40) + 1));
    assert_eq!(over, impossible(Impossible::Count));
    let narrow = CopyFileRange {
        wide: false,
        ..copy
    };
    let max = CopyFileRange::MAX_NARROW;
    let copied = |count| accept(&narrow, &Bytes::new().u32(count).u32(0));
    assert_eq!(copied(max as u32), Ok(max));
    assert_eq!(copied(u32::MAX), impossible(Impossible::Count));
}

#[test]
fn offsets() {
    let op = Lseek {
        node: node(5),
        fh: Fh(0),
        offset: 1000,
        whence: Whence::Data,
    };
    let max = i64::MAX as u64;
    for offset in [1000, 1001, max] {
        assert_eq!(accept(&op, &Bytes::new().u64(offset)), Ok(offset));
    }
    for offset in [0, 999, max + 1, u64::MAX] {
        let bad = accept(&op, &Bytes::new().u64(offset));
        assert_eq!(bad, impossible(Impossible::Offset));
    }
}

#[test]
fn xattrs() {
    let (node, name) = (node(5), &b"user.x"[..]);
    // The question for the size.
    let get = Getxattr {
        node,
        name,
        size: 0,
    };
    let list = Listxattr { node, size: 0 };
    for size in [0, 1, 65536] {
        let body = Bytes::new().u32(size).u32(0);
        assert_eq!(accept(&get, &body), Ok(size as usize));
        assert_eq!(accept(&list, &body), Ok(size as usize));
    }
    let body = Bytes::new().u32(65537).u32(0);
    assert_eq!(accept(&get, &body), impossible(Impossible::XattrSize));
    assert_eq!(accept(&list, &body), impossible(Impossible::XattrSize));
    assert!(accept_with(&get, &[], 0).is_err());
    // The data, which has no body.
    let get = Getxattr { size: 8, ..get };
    let list = Listxattr { size: 8, ..list };
    for len in [0, 1, 8] {
        assert_eq!(accept_with(&get, &[], len), Ok(len));
        assert_eq!(accept_with(&list, &[], len), Ok(len));
    }
    assert!(accept_with(&get, &[], 9).is_err());
    assert!(accept_with(&list, &[], 9).is_err());
    assert_eq!(get.decode(&[], 9), impossible(Impossible::Count));

    let names = XattrNames::new(b"user.a\0security.b\0").unwrap();
    assert!(names.iter().eq([&b"user.a"[..], b"security.b"]));
    assert_eq!(XattrNames::new(b"").unwrap().iter().count(), 0);
    for bad in [&b"\0"[..], b"a", b"a\0b", b"a\0\0", b"\0a\0", b"a\0\0b\0"] {
        let checked = XattrNames::new(bad).map(|_| ());
        assert_eq!(checked, impossible(Impossible::XattrList));
    }
}

#[test]
fn acls() {
    let value = |version: u32, entries: &[(u16, u16, u32)]| {
        let mut bytes = version.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    };
    const NONE: u32 = u32::MAX;
    let (owner, group, mask) = ((1, 7, NONE), (4, 5, NONE), (16, 7, NONE));
    let (other, user, named_group) = ((32, 0, NONE), (2, 6, 1000), (8, 1, 0));
    for good in [
        &[][..],
        &[owner, group, other],
        &[owner, group, mask, other],
        &[owner, user, user, group, named_group, mask, other],
        &[owner, user, group, mask, other],
        &[owner, group, named_group, named_group, mask, other],
    ] {
        let bytes = value(2, good);
        assert_eq!(PosixAcl::new(&bytes).unwrap().as_bytes(), bytes);
        // Nothing else fits behind, and no other version is known.
        for len in (0..bytes.len()).filter(|len| len % 8 != 4) {
            assert!(PosixAcl::new(&bytes[..len]).is_err());
        }
        for version in [0, 1, 3, 0x0200_0000] {
            assert!(PosixAcl::new(&value(version, good)).is_err());
        }
    }
    for bad in [
        &[owner][..],
        &[owner, group],
        &[group, other],
        &[owner, other],
        &[owner, group, mask],
        // Named users and groups without a mask.
        &[owner, user, group, other],
        &[owner, group, named_group, other],
        // Twice, or out of place.
        &[owner, owner, group, other],
        &[owner, group, group, other],
        &[owner, group, mask, mask, other],
        &[owner, group, other, other],
        &[group, owner, other],
        &[owner, named_group, group, mask, other],
        &[owner, group, user, mask, other],
        &[owner, group, mask, named_group, other],
        &[owner, group, other, mask],
        &[other, group, owner],
        // Ids, permissions and tags that there are not.
        &[owner, (2, 6, NONE), group, mask, other],
        &[owner, group, (8, 6, NONE), mask, other],
        &[owner, group, (32, 8, NONE)],
        &[(1, 0xfff7, NONE), group, other],
        &[owner, group, (64, 0, NONE), other],
        &[owner, group, (0, 0, NONE), other],
        &[owner, group, (3, 0, 1), other],
    ] {
        let checked = PosixAcl::new(&value(2, bad)).map(|_| ());
        assert_eq!(checked, impossible(Impossible::Acl), "{bad:?}");
    }
}

#[test]
fn locks() {
    let lock = FileLock {
        start: 0,
        end: MAX_OFFSET,
        kind: LockKind::Write,
        pid: 1,
    };
    let op = Getlk {
        node: node(5),
        fh: Fh(0),
        owner: LockOwner(1),
        lock,
    };
    let check = |start, end, kind| {
        let body = Bytes::new().u64(start).u64(end).u32(kind).u32(1);
        accept(&op, &body)
    };
    assert_eq!(check(0, MAX_OFFSET, 1), Ok(Some(lock)));
    let one = FileLock {
        start: 7,
        end: 7,
        kind: LockKind::Read,
        pid: 1,
    };
    assert_eq!(check(7, 7, 0), Ok(Some(one)));
    // No lock has no range.
    assert_eq!(check(9, 8, 2), Ok(None));
    for (start, end, kind) in [(0, 1, 3), (8, 7, 0), (0, MAX_OFFSET + 1, 1)] {
        let bad = check(start, end, kind);
        assert_eq!(bad, impossible(Impossible::Lock));
    }
}

#[test]
fn ioctls() {
    let op = Ioctl {
        node: node(5),
        fh: Fh(0),
        flags: IoctlFlags::NONE,
        cmd: 0,
        arg: 0,
        data: &[],
        out_size: 8,
    };
    let check = |result, flags, len| {
        let body = Bytes::new().i32(result).u32(flags).u64(0);
        accept_with(&op, &body.0, len)
    };
    assert_eq!(check(3, 0, 8), Ok(IoctlReply { result: 3, len: 8 }));
    let refused = IoctlReply {
        result: -25,
        len: 0,
    };
    assert_eq!(check(-25, 0, 0), Ok(refused));
    assert_eq!(check(-512, 0, 0), Err(ReplyError::BadErrno(-512)));
    assert_eq!(check(0, 4, 0), impossible(Impossible::IoctlRetry));
    assert!(check(0, 0, 9).is_err());

    let poll = Poll {
        node: node(5),
        fh: Fh(0),
        kh: 0,
        notify: false,
        events: 1,
    };
    assert_eq!(accept(&poll, &Bytes::new().u32(5).u32(0)), Ok(5));
}

proptest! {
    #![proptest_config(config())]

    /// A header is good if and only if all of these hold.
    #[test]
    fn headers(
        len in prop_oneof![0..64u32, any::<u32>()],
        error in prop_oneof![Just(0), -600..10i32, any::<i32>()],
        unique in 0..3u64,
        used in prop_oneof![0..64usize, any::<usize>()],
        capacity in 16..64usize,
        follow: bool,
    ) {
        // Half of the time, the device agrees with the header.
        let len = if follow { used as u32 } else { len };
        let header = Bytes::new().u32(len).i32(error).u64(unique).0;
        let good = used >= 16
            && used <= capacity
            && len as usize == used
            && unique == 1
            && error == 0;
        let checked = check_header(&header, used, 1, capacity);
        prop_assert_eq!(checked.is_ok(), good);
        match checked {
            Ok(body) => prop_assert_eq!(body, used - 16),
            Err(wrong) => {
                let errno = wrong.to_errno();
                prop_assert!((-511..0).contains(&errno), "{}", errno);
            }
        }
    }
}
