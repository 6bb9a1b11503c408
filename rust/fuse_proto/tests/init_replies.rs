// SPDX-License-Identifier: GPL-2.0

//! What a reply to INIT may say.

mod common;

use common::*;
use fuse_proto::*;

/// `struct fuse_init_out` with this version and these flags.
fn init_out(major: u32, minor: u32, flags: u64) -> Bytes {
    Bytes::new()
        .u32(major) // 0
        .u32(minor) // 4
        .u32(1 << 20) // 8 max_readahead
        .u32(flags as u32) // 12
        .u16(100) // 16 max_background
        .u16(75) // 18 congestion_threshold
        .u32(1 << 20) // 20 max_write
        .u32(1) // 24 time_gran
        .u16(64) // 28 max_pages
        .u16(21) // 30 map_alignment
        .u32((flags >> 32) as u32) // 32 flags2
        .u32(0) // 36 max_stack_depth
        .u16(30) // 40 request_timeout
        .zeros(22)
}

fn init(flags: InitFlags) -> Init {
    Init {
        flags,
        max_readahead: 1 << 17,
        max_pages: 256,
    }
}

#[test]
fn versions() {
    let op = init(InitFlags::NONE);
    let minor = |minor| accept(&op, &init_out(7, minor, 0)).map(|agreed| agreed.minor);
    assert_eq!(minor(31), Ok(31));
    assert_eq!(minor(46), Ok(46));
    // A newer daemon speaks our version.
    assert_eq!(minor(47), Ok(46));
    for (major, minor) in [(7, 30), (7, 0), (6, 46), (8, 46), (8, 0), (0, 0)] {
        let version = ReplyError::Version { major, minor };
        assert_eq!(accept(&op, &init_out(major, minor, 0)), Err(version));
        // Whatever its length: other versions have other lengths.
        let short = &init_out(major, minor, 0).0[..8];
        assert_eq!(accept_with(&op, short, 0), Err(version));
        assert_eq!(version.to_errno(), -71);
    }
    for len in [0, 4, 8, 24, 63] {
        let body_len = ReplyError::BodyLength { len, expected: 64 };
        let short = &init_out(7, 31, 0).0[..len];
        assert_eq!(accept_with(&op, short, 0), Err(body_len));
    }
}

#[test]
fn flags() {
    use InitFlags as F;
    let check = |offered, claimed: u64| {
        let agreed = accept(&init(offered), &init_out(7, 46, claimed)).unwrap();
        (agreed.flags, agreed.unoffered)
    };
    let offered = F::ASYNC_READ | F::ALLOW_IDMAP;
    let (high, low) = (F::ALLOW_IDMAP.bits(), F::ASYNC_READ.bits());
    let ext = F::INIT_EXT.bits();
    // The upper half was offered with INIT_EXT, and counts only with it.
    assert_eq!(
        check(offered, low | high | ext),
        (offered | F::INIT_EXT, F::NONE)
    );
    assert_eq!(check(offered, low | high), (F::ASYNC_READ, F::NONE));
    let other = F::POSIX_LOCKS | F::INIT_RESERVED;
    assert_eq!(check(offered, low | other.bits()), (F::ASYNC_READ, other));
    let unnamed = (1 << 63) | high;
    let claimed = F::INIT_EXT.with(F::from_bits(unnamed));
    assert_eq!(check(F::ASYNC_READ, ext | unnamed), (F::NONE, claimed));
}

#[test]
fn limits() {
    use InitFlags as F;
    let offered = F::MAX_PAGES | F::MAP_ALIGNMENT | F::REQUEST_TIMEOUT;
    let all = init_out(7, 46, (offered | F::INIT_EXT).bits());
    let agreed = accept(&init(offered), &all).unwrap();
    let expected = Negotiated {
        minor: 46,
        flags: offered | F::INIT_EXT,
        unoffered: F::NONE,
        max_readahead: 1 << 17,
        max_write: 1 << 20,
        max_pages: 64,
        max_background: 100,
        congestion_threshold: 75,
        time_gran: 1,
        map_alignment: 21,
        request_timeout: 30,
    };
    assert_eq!(agreed, expected);
    // Fields that count only with their flag.
    let agreed = accept(&init(offered), &init_out(7, 46, 0)).unwrap();
    assert_eq!((agreed.max_pages, agreed.map_alignment), (32, 12));
    assert_eq!(agreed.request_timeout, 0);

    let with = |at: usize, bytes: &[u8]| {
        let mut raw = all.clone();
        raw.0[at..at + bytes.len()].copy_from_slice(bytes);
        accept(&init(offered), &raw)
    };
    let u16 = |at, value: u16| with(at, &value.to_ne_bytes());
    let u32 = |at, value: u32| with(at, &value.to_ne_bytes()).unwrap();

    assert_eq!(u32(8, 4096).max_readahead, 4096);
    assert_eq!(u32(20, 0).max_write, 4096);
    assert_eq!(u32(20, u32::MAX).max_write, u32::MAX);
    for (said, meant) in [(0, 1), (1, 1), (256, 256), (257, 256), (u16::MAX, 256)] {
        assert_eq!(u16(28, said).unwrap().max_pages, meant);
    }
    for gran in [1, 10, 1000, 1_000_000, 100_000_000, 1_000_000_000] {
        assert_eq!(u32(24, gran).time_gran, gran);
    }
    for gran in [0, 2, 11, 1001, 2_000_000_000, u32::MAX] {
        assert_eq!(u32(24, gran).time_gran, 1);
    }
    for (said, meant) in [(0, 12), (11, 12), (12, 12), (31, 31)] {
        assert_eq!(u16(30, said).unwrap().map_alignment, meant);
    }
    for said in [32, u16::MAX] {
        assert_eq!(
            u16(30, said),
            Err(ReplyError::Impossible(Impossible::MapAlignment))
        );
    }
    let background = |background: u16, congestion: u16| {
        let both = [background.to_ne_bytes(), congestion.to_ne_bytes()].concat();
        let agreed = with(16, &both).unwrap();
        (agreed.max_background, agreed.congestion_threshold)
    };
    assert_eq!(background(0, 0), (12, 9));
    assert_eq!(background(4, 0), (4, 4));
    assert_eq!(background(0, 50), (12, 12));
    assert_eq!(background(u16::MAX, u16::MAX), (u16::MAX, u16::MAX));
    // Not even this side can have no pages.
    let op = Init {
        max_pages: 0,
        ..init(offered)
    };
    assert_eq!(accept(&op, &all).unwrap().max_pages, 1);
}
