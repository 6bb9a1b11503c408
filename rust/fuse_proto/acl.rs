// SPDX-License-Identifier: GPL-2.0

//! Access control lists, which are values of extended attributes.

use crate::reply::{Impossible, ReplyError};
use crate::wire;
use core::mem::size_of;
use zerocopy::FromBytes;

/// The one version of the format (`POSIX_ACL_XATTR_VERSION`).
const VERSION: u32 = 2;

/// Bits of an entry: read, write, execute.
const PERMISSIONS: u16 = 7;

/// The value of an ACL as Linux has it in extended attributes (`linux/posix_acl_xattr.h`), checked.
///
/// It is complete and in order, as acl(5) asks for: one entry each for owner, owning group and others; named users and
/// groups in their places; a mask if there are any of these. Or it has no entries at all, which is no ACL.
#[derive(Clone, Copy, Debug)]
pub struct PosixAcl<'a>(&'a [u8]);

impl<'a> PosixAcl<'a> {
    /// Checks a value. Ids may be any but the one that is none.
    pub fn new(value: &'a [u8]) -> Result<Self, ReplyError> {
        let bad = Err(Impossible::Acl.into());
        let Ok((version, entries)) = u32::read_from_prefix(value) else {
            return bad;
        };
        if u32::from_le(version) != VERSION || entries.len() % size_of::<wire::AclEntry>() != 0 {
            return bad;
        }
        let mut order = Order::Start;
        for entry in entries.chunks_exact(size_of::<wire::AclEntry>()) {
            let Ok(entry) = wire::AclEntry::read_from_bytes(entry) else {
                return bad;
            };
            match order.next(&entry) {
                Some(next) => order = next,
                None => return bad,
            }
        }
        match order {
            Order::Start | Order::Complete => Ok(Self(value)),
            _ => bad,
        }
    }

    /// The value as it came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// How far the entries have come. Where named users or groups have been, `named` says so: there has to be a mask.
#[derive(Clone, Copy)]
enum Order {
    Start,
    Users { named: bool },
    Groups { named: bool },
    Masked,
    Complete,
}

impl Order {
    const USER_OBJ: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP_OBJ: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    /// The id that is none (`ACL_UNDEFINED_ID`).
    const NO_ID: u32 = u32::MAX;

    /// Where an entry leads, if it has its place here.
    fn next(self, entry: &wire::AclEntry) -> Option<Self> {
        if u16::from_le(entry.perm) & !PERMISSIONS != 0 {
            return None;
        }
        // The same in both byte orders.
        let has_id = entry.id != Self::NO_ID;
        match (self, u16::from_le(entry.tag)) {
            (Self::Start, Self::USER_OBJ) => Some(Self::Users { named: false }),
            (Self::Users { .. }, Self::USER) if has_id => Some(Self::Users { named: true }),
            (Self::Users { named }, Self::GROUP_OBJ) => Some(Self::Groups { named }),
            (Self::Groups { .. }, Self::GROUP) if has_id => Some(Self::Groups { named: true }),
            (Self::Groups { .. }, Self::MASK) => Some(Self::Masked),
            (Self::Groups { named: false } | Self::Masked, Self::OTHER) => Some(Self::Complete),
            _ => None,
        }
    }
}
