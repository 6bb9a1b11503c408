// SPDX-License-Identifier: GPL-2.0

//! Whatever a device leaves in a buffer, and whatever it says about it, no operation panics, and
//! each refuses what its request does not allow.

mod common;

use common::*;
use fuse_proto::*;
use proptest::prelude::*;

/// Has every operation check the same bytes.
struct Arbitrary<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl Visit for Arbitrary<'_> {
    fn visit<O: Operation>(&mut self, op: O) {
        let _ = op.accept(7, self.bytes, self.used);
        let _ = op.decode(self.bytes, self.used);
    }
}

/// Has every operation check a good header with a body of about the right length.
struct NearlyGood<'a> {
    body: &'a [u8],
    change: isize,
    payload: usize,
    accepted: usize,
}

impl Visit for NearlyGood<'_> {
    fn visit<O: Operation>(&mut self, op: O) {
        let len = op.reply_len().saturating_add_signed(self.change);
        let body: Vec<u8> = self.body.iter().copied().cycle().take(len).collect();
        let payload = self.payload.min(op.reply_payload_len());
        let accepted = accept_with(&op, &body, payload).is_ok();
        self.accepted += usize::from(accepted);
        // Where there is no payload, only one length is right.
        if len != op.reply_len() && op.reply_payload_len() == 0 {
            assert!(!accepted, "{}: {} bytes", op.opcode(), len);
        }
        // More than there is room for is never good.
        let room = op.reply_len() + op.reply_payload_len();
        let over = room - body.len().min(room) + 1;
        if op.answer() == Answer::Reply {
            assert!(accept_with(&op, &body, over).is_err(), "{}", op.opcode());
        }
        // Nor is a refusal with data.
        let mut refused = reply(7, -5, &body);
        let used = refused.len();
        if used > 16 {
            assert!(op.accept(7, &refused, used).is_err(), "{}", op.opcode());
        }
        // Nor what is for somebody else.
        refused[8] ^= 1;
        assert!(op.accept(7, &refused, used).is_err(), "{}", op.opcode());
    }
}

/// Bodies with small numbers, which get further than arbitrary ones.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0u32),
        0..10u32,
        0..1_100_000_000u32,
        any::<u32>(),
        (0..16u32, 0..0o10000u32).prop_map(|(kind, bits)| (kind << 12) | bits),
    ];
    prop::collection::vec(word, 1..80)
        .prop_map(|words| words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

fn seeds() -> impl Strategy<Value = Seed> {
    (any::<u64>(), any::<u32>(), any::<bool>()).prop_map(|(number, small, flag)| Seed {
        number,
        small,
        flag,
        ..Seed::default()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes(
        seed in seeds(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        used in prop_oneof![0..400usize, any::<usize>()],
    ) {
        visit_all(&seed, &mut Arbitrary { bytes: &bytes, used });
        let _ = check_header(&bytes, used, 7, 400);
        let _ = link_target(&bytes);
        let _ = PosixAcl::new(&bytes);
        if let Ok(names) = XattrNames::new(&bytes) {
            prop_assert!(names.iter().all(|name| !name.is_empty() && !name.contains(&0)));
            let len: usize = names.iter().map(|name| name.len() + 1).sum();
            prop_assert_eq!(len, bytes.len());
        }
    }

    #[test]
    fn nearly_good_replies(
        seed in seeds(),
        body in bodies(),
        change in prop_oneof![3 => Just(0isize), 1 => -20..20isize],
        payload in 0..100usize,
    ) {
        let mut visitor = NearlyGood { body: &body, change, payload, accepted: 0 };
        visit_all(&seed, &mut visitor);
        // Those without a body and STATFS take anything, so the test does reach acceptance.
        prop_assert!(change != 0 || visitor.accepted >= 10);
    }

    /// Attributes that were accepted are ones that Linux can have.
    #[test]
    fn attributes(raw in prop::collection::vec(any::<u8>(), 104..=104), mode in 0..=0xffffu32) {
        let op = Getattr { node: node(5), fh: None };
        let mut raw = Bytes(raw).set32(16 + 60, mode);
        for nsec in [48, 52, 56] {
            let at = 16 + nsec;
            raw = raw.clone().set32(at, u32_at(&raw.0, at) % 1_500_000_000);
        }
        let size = u64_at(&raw.0, 24);
        let good = size <= i64::MAX as u64
            && [48, 52, 56].iter().all(|at| u32_at(&raw.0, 16 + at) < 1_000_000_000)
            && [1, 2, 4, 6, 8, 10, 12].contains(&(mode >> 12));
        let checked = accept(&op, &raw);
        prop_assert_eq!(checked.is_ok(), good);
        if let Ok(AttrReply { attr, .. }) = checked {
            prop_assert_eq!(attr.mode(), mode);
            prop_assert_eq!(attr.size, size);
            prop_assert_eq!(attr.rdev.to_wire(), u32_at(&raw.0, 16 + 76));
        }
    }
}
