// SPDX-License-Identifier: GPL-2.0

//! Directory listings.

mod common;

use common::*;
use fuse_proto::*;
use proptest::prelude::*;

const REG: u32 = 0o100644;

fn impossible<T>(what: Impossible) -> Result<T, ReplyError> {
    Err(ReplyError::Impossible(what))
}

/// A record of READDIRPLUS.
fn dirent_plus(entry: Bytes, dirent: Bytes) -> Bytes {
    entry.raw(&dirent.0)
}

/// The records of a listing, up to and with an error.
fn list(payload: &[u8]) -> Vec<Result<Dirent<'_>, ReplyError>> {
    Dirents::new(payload).collect()
}

fn plus(payload: &[u8]) -> Vec<Result<DirentPlus<'_>, ReplyError>> {
    DirentsPlus::new(payload).collect()
}

#[test]
fn records() {
    let payload = dirent(3, 1, 4, b".")
        .raw(&dirent(4, 2, 8, b"12345678").0)
        .raw(&dirent(5, i64::MAX as u64, 0, b"x").0);
    let expected = [
        Dirent {
            ino: 3,
            offset: 1,
            kind: Some(FileType::Directory),
            name: b".",
        },
        Dirent {
            ino: 4,
            offset: 2,
            kind: Some(FileType::Regular),
            name: b"12345678",
        },
        Dirent {
            ino: 5,
            offset: MAX_OFFSET,
            kind: None,
            name: b"x",
        },
    ];
    assert_eq!(list(&payload.0), expected.map(Ok));
    assert!(list(&[]).is_empty());
}

#[test]
fn types() {
    for kind in 0..40 {
        let payload = dirent(1, 1, kind, b"x");
        let known = [1, 2, 4, 6, 8, 10, 12].contains(&kind);
        let checked = list(&payload.0)[0].unwrap().kind;
        assert_eq!(checked.is_some(), known);
        assert!(checked.is_none_or(|checked| u32::from(checked.dirent()) == kind));
    }
    // Not a type that only looks like one when it is shifted.
    let payload = dirent(1, 1, (1 << 20) | 8, b"x");
    assert_eq!(list(&payload.0)[0].unwrap().kind, None);
}

#[test]
fn tails() {
    let first = dirent(3, 1, 8, b"first");
    let second = dirent(4, 2, 8, b"second");
    let whole = first.clone().raw(&second.0).0;
    for len in first.0.len()..whole.len() {
        assert_eq!(list(&whole[..len]).len(), 1, "{len}");
    }
    assert_eq!(list(&whole).len(), 2);
    // With not even one record, the listing would never end.
    for len in 1..first.0.len() {
        let cut = list(&whole[..len]);
        assert_eq!(cut, [impossible(Impossible::Record)], "{len}");
    }
    let first = dirent_plus(entry(5, REG), first);
    for len in 1..first.0.len() {
        let cut = plus(&first.0[..len]);
        assert_eq!(cut, [impossible(Impossible::Record)], "{len}");
    }
}

#[test]
fn names() {
    for bad in [&b""[..], b"a/b", b"/", b"a\0b", b"a\0", &[b'a'; 4096]] {
        let payload = dirent(1, 1, 8, b"good").raw(&dirent(1, 2, 8, bad).0);
        let payload = payload.raw(&dirent(1, 3, 8, b"never seen").0);
        let records = list(&payload.0);
        assert_eq!(records.len(), 2);
        assert_eq!(records[1], impossible(Impossible::Name));
        let record = dirent_plus(entry(5, REG), dirent(1, 2, 8, bad));
        assert_eq!(plus(&record.0), [impossible(Impossible::Name)]);
    }
    for len in [255, 256, 765, 4095] {
        let record = dirent(1, 1, 8, &vec![b'a'; len]).0;
        assert!(list(&record)[0].is_ok());
        assert!(plus(&dirent_plus(entry(5, REG), Bytes(record)).0)[0].is_ok());
    }
}

/// Nodes in a record that is refused, and behind it, have been counted all the same.
#[test]
fn refused_nodes() {
    let refused = |payload: &[u8]| {
        let mut records = DirentsPlus::new(payload);
        while records.next().is_some() {}
        records.refused().map(|node| node.get()).collect::<Vec<_>>()
    };
    let record = |node, name: &[u8]| dirent_plus(entry(node, REG), dirent(1, 1, 8, name));
    let first = || record(5, b"good").raw(&record(6, b"a/b").0);
    assert_eq!(refused(&record(5, b"good").0), [0; 0]);
    assert_eq!(refused(&first().0), [6]);
    let all = first()
        .raw(&record(7, b"one").0)
        .raw(&record(8, b"..").0)
        .raw(&record(1, b"root").0)
        .raw(&record(0, b"unknown").0)
        .raw(&record(9, b"a\0b").0)
        .raw(&record(10, b"last").0);
    assert_eq!(refused(&all.0), [6, 7, 9, 10]);
    // A part of a record that did not fit comes again.
    assert_eq!(refused(&all.0[..all.0.len() - 1]), [6, 7, 9]);
    // Where a name has no length that can be, there is no telling what follows.
    for bad in [&b""[..], &[b'a'; 4096]] {
        assert_eq!(refused(&record(6, bad).raw(&record(7, b"one").0).0), [6]);
    }
    // The root as a child.
    assert_eq!(refused(&record(1, b"a").raw(&record(7, b"b").0).0), [7]);
}

#[test]
fn positions() {
    let payload = dirent(1, 1 << 63, 8, b"x");
    assert_eq!(list(&payload.0), [impossible(Impossible::Position)]);
}

#[test]
fn lengths_that_lie() {
    for namelen in [4096, 1 << 31, u32::MAX] {
        let payload = dirent(1, 1, 8, b"x").set32(16, namelen);
        assert_eq!(list(&payload.0), [impossible(Impossible::Name)]);
    }
    let payload = dirent(1, 1, 8, b"x").set32(16, 9);
    assert_eq!(list(&payload.0), [impossible(Impossible::Record)]);
}

#[test]
fn entries() {
    let what = |id, mode, name: &[u8]| {
        let payload = dirent_plus(entry(id, mode), dirent(1, 1, 8, name));
        let records = plus(&payload.0);
        assert_eq!(records.len(), 1);
        records[0].map(|record| record.plus)
    };
    let good = checked_entry(5, FileType::Regular, 0o644);
    assert_eq!(what(5, REG, b"x"), Ok(Plus::Entry(good)));
    // Nothing was looked up: the attributes do not matter.
    assert_eq!(what(0, 0, b"x"), Ok(Plus::Nothing));
    for name in [&b"."[..], b".."] {
        assert_eq!(what(0, 0, name), Ok(Plus::Nothing));
        assert_eq!(what(1, 0, name), Ok(Plus::Nothing));
        assert_eq!(what(5, REG, name), Ok(Plus::Nothing));
    }
    assert_eq!(what(5, REG, b"..."), Ok(Plus::Entry(good)));
    // Looked up, but of no use: it has to be forgotten, and the others are fine.
    let why = ReplyError::Impossible(Impossible::FileType);
    assert_eq!(what(5, 0, b"x"), Ok(Plus::Bad(node(5), why)));
    // The root has no name, and is never forgotten.
    assert_eq!(what(1, 0o040755, b"x"), impossible(Impossible::Node));
    let root = dirent_plus(entry(1, 0o040755), dirent(1, 1, 4, b"x"));
    let payload = root.raw(&dirent_plus(entry(5, REG), dirent(1, 1, 8, b"y")).0);
    assert_eq!(plus(&payload.0).len(), 1);
}

/// Bytes that are often nearly a listing.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => Just(0u64),
        4 => 0..300u64,
        2 => any::<u64>(),
        // A length and a type.
        4 => (0..40u64, 0..16u64).prop_map(|(len, kind)| len | (kind << 32)),
        4 => Just(u64::from_ne_bytes(*b"abcdefgh")),
    ];
    let words = prop::collection::vec(word, 0..200)
        .prop_map(|words| words.iter().flat_map(|word| word.to_ne_bytes()).collect());
    prop_oneof![words, prop::collection::vec(any::<u8>(), 0..500)]
}

fn good_names() -> impl Strategy<Value = Vec<u8>> {
    // Any byte but NUL and `/`.
    let byte = (1..=u8::MAX).prop_map(|byte| if byte == b'/' { b'.' } else { byte });
    let len = prop_oneof![8 => 1..=16usize, 1 => 1..=4095usize];
    len.prop_flat_map(move |len| prop::collection::vec(byte.clone(), len))
}

proptest! {
    #![proptest_config(config())]

    /// Any bytes have an end, and give only what is allowed.
    #[test]
    fn any_payload(payload in payloads()) {
        let mut consumed = 0;
        let mut failed = false;
        for record in Dirents::new(&payload) {
            prop_assert!(!failed, "a record after an error");
            match record {
                Ok(dirent) => {
                    consumed += 24 + dirent.name.len().next_multiple_of(8);
                    prop_assert!(dirent.offset <= i64::MAX as u64);
                    prop_assert!((1..=4095).contains(&dirent.name.len()));
                    prop_assert!(!dirent.name.iter().any(|byte| matches!(byte, 0 | b'/')));
                }
                Err(_) => failed = true,
            }
        }
        prop_assert!(consumed <= payload.len());
    }

    #[test]
    fn any_payload_plus(payload in payloads()) {
        let mut consumed = 0;
        let mut failed = false;
        for record in DirentsPlus::new(&payload) {
            prop_assert!(!failed, "a record after an error");
            match record {
                Ok(record) => {
                    consumed += 152 + record.dirent.name.len().next_multiple_of(8);
                    match record.plus {
                        Plus::Nothing => (),
                        Plus::Entry(Entry { node, .. }) | Plus::Bad(node, _) => {
                            prop_assert_ne!(node, NodeId::ROOT);
                            prop_assert!(!record.dirent.is_dot());
                        }
                    }
                }
                Err(_) => failed = true,
            }
        }
        prop_assert!(consumed <= payload.len());
    }

    /// What a good daemon lists arrives as it is, wherever its buffer ends.
    #[test]
    fn round_trip(
        records in prop::collection::vec((any::<u64>(), 0..1u64 << 63, good_names()), 1..12),
        tail in 0..200usize,
    ) {
        let mut payload = Bytes::new();
        for (ino, off, name) in &records {
            payload = payload.raw(&dirent(*ino, *off, 8, name).0);
        }
        let rest = dirent(0, 0, 8, &[b'x'; 200]).0;
        payload = payload.raw(&rest[..tail]);
        let listed: Result<Vec<_>, _> = Dirents::new(&payload.0)
            .map(|record| record.map(|dirent| (dirent.ino, dirent.offset, dirent.name.to_vec())))
            .collect();
        prop_assert_eq!(listed, Ok(records));
    }

    /// What is kept of a listing reads as the listing, and takes as much room.
    #[test]
    fn kept(
        records in prop::collection::vec((any::<u64>(), 0..1u64 << 63, 0..17u32, good_names()), 1..12),
    ) {
        let mut payload = Bytes::new();
        for (ino, off, kind, name) in &records {
            payload = payload.raw(&dirent(*ino, *off, *kind, name).0);
        }
        let mut kept = vec![0xff; payload.0.len()];
        let mut len = 0;
        for record in Dirents::new(&payload.0) {
            let record = record.unwrap();
            prop_assert_eq!(record.encode(&mut kept[len..len + record.record_len() - 1]), None);
            prop_assert_eq!(record.encode(&mut kept[len..]), Some(record.record_len()));
            len += record.record_len();
        }
        prop_assert_eq!(len, payload.0.len());
        prop_assert_eq!(list(&kept), list(&payload.0));
    }

    #[test]
    fn round_trip_plus(
        records in prop::collection::vec((0..5u64, good_names()), 1..12),
        tail in 0..300usize,
    ) {
        let one = |id: &u64, name: &[u8]| {
            // No root here.
            let id = if *id == 1 { 7 } else { *id };
            dirent_plus(entry(id, REG), dirent(id, 1, 8, name)).0
        };
        let mut payload = Bytes::new();
        for (id, name) in &records {
            payload = payload.raw(&one(id, name));
        }
        let rest = one(&5, &[b'x'; 200]);
        payload = payload.raw(&rest[..tail]);
        let listed: Vec<_> = plus(&payload.0);
        prop_assert_eq!(listed.len(), records.len());
        for (listed, (id, name)) in listed.iter().zip(&records) {
            let listed = listed.unwrap();
            prop_assert_eq!(listed.dirent.name, name);
            match listed.plus {
                Plus::Entry(entry) => prop_assert_eq!(entry.node.get(), listed.dirent.ino),
                Plus::Nothing => prop_assert!(*id == 0 || listed.dirent.is_dot()),
                Plus::Bad(..) => prop_assert!(false, "{:?}", listed),
            }
        }
    }
}
