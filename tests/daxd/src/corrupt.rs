// SPDX-License-Identifier: GPL-2.0

//! Wrong replies made from right ones.
//!
//! Where each field lies is written once, in [`LAYOUTS`]; a fault names fields as `structure.field`.

use serde_json::{Map, Value};

use crate::faults::Action;
use crate::options::Hex;
use crate::wire::{Opcode, OUT_HEADER};

/// A reply, and the length to report for it if that is not its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub used: Option<u32>,
}

/// A structure of the protocol: its name, and its fields in order, each with its length.
type Layout = (&'static str, &'static [(&'static str, usize)]);

/// The structures that replies are made of.
const LAYOUTS: &[Layout] = &[
    ("out", &[("len", 4), ("error", 4), ("unique", 8)]),
    (
        "entry",
        &[
            ("nodeid", 8),
            ("generation", 8),
            ("entry_valid", 8),
            ("attr_valid", 8),
            ("entry_valid_nsec", 4),
            ("attr_valid_nsec", 4),
        ],
    ),
    (
        "attr_out",
        &[("attr_valid", 8), ("attr_valid_nsec", 4), ("dummy", 4)],
    ),
    (
        "attr",
        &[
            ("ino", 8),
            ("size", 8),
            ("blocks", 8),
            ("atime", 8),
            ("mtime", 8),
            ("ctime", 8),
            ("atimensec", 4),
            ("mtimensec", 4),
            ("ctimensec", 4),
            ("mode", 4),
            ("nlink", 4),
            ("uid", 4),
            ("gid", 4),
            ("rdev", 4),
            ("blksize", 4),
            ("flags", 4),
        ],
    ),
    (
        "statx",
        &[
            ("attr_valid", 8),
            ("attr_valid_nsec", 4),
            ("flags", 4),
            ("spare", 16),
            ("mask", 4),
            ("blksize", 4),
            ("attributes", 8),
            ("nlink", 4),
            ("uid", 4),
            ("gid", 4),
            ("mode", 2),
            ("spare0", 2),
            ("ino", 8),
            ("size", 8),
            ("blocks", 8),
            ("attributes_mask", 8),
            ("atime", 8),
            ("atimensec", 4),
            ("atime_reserved", 4),
            ("btime", 8),
            ("btimensec", 4),
            ("btime_reserved", 4),
            ("ctime", 8),
            ("ctimensec", 4),
            ("ctime_reserved", 4),
            ("mtime", 8),
            ("mtimensec", 4),
            ("mtime_reserved", 4),
        ],
    ),
    ("open", &[("fh", 8), ("open_flags", 4), ("backing_id", 4)]),
    (
        "init",
        &[
            ("major", 4),
            ("minor", 4),
            ("max_readahead", 4),
            ("flags", 4),
            ("max_background", 2),
            ("congestion_threshold", 2),
            ("max_write", 4),
            ("time_gran", 4),
            ("max_pages", 2),
            ("map_alignment", 2),
            ("flags2", 4),
            ("max_stack_depth", 4),
            ("request_timeout", 2),
        ],
    ),
    (
        "statfs",
        &[
            ("blocks", 8),
            ("bfree", 8),
            ("bavail", 8),
            ("files", 8),
            ("ffree", 8),
            ("bsize", 4),
            ("namelen", 4),
            ("frsize", 4),
        ],
    ),
    ("write", &[("size", 4)]),
    ("copy", &[("bytes", 8)]),
    ("lseek", &[("offset", 8)]),
    ("xattr", &[("size", 4)]),
    (
        "dirent",
        &[
            ("ino", 8),
            ("off", 8),
            ("namelen", 4),
            ("type", 4),
            ("name", 0),
        ],
    ),
];

/// Length of the entry structure, without the attributes that follow it.
const ENTRY: usize = 40;
/// Length of the attributes.
const ATTR: usize = 88;
/// Length of a directory record without its name.
const RECORD: usize = 24;

/// Offset and length of the field `name` in its structure, and the structure's name.
fn field(name: &str) -> Option<(&str, usize, usize)> {
    let (structure, member) = name.split_once('.')?;
    let (_, fields) = LAYOUTS.iter().find(|(known, _)| *known == structure)?;
    let mut offset = 0;
    for (known, length) in *fields {
        if *known == member {
            return Some((structure, offset, *length));
        }
        offset += length;
    }
    None
}

/// The bytes that `value` means for a field of `length` bytes; a name is any text.
fn encode(value: &Value, length: usize) -> Option<Vec<u8>> {
    if length == 0 {
        return value.as_str().map(|text| text.as_bytes().to_vec());
    }
    let number = value
        .as_u64()
        .or_else(|| value.as_i64().map(|number| number as u64))?;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length, 0);
    Some(bytes)
}

/// Checks that there is a field `name` that can have this `value`.
pub fn check(name: &str, value: &Value) -> Result<(), String> {
    let (_, _, length) = field(name).ok_or_else(|| format!("{name}: no such field"))?;
    encode(value, length)
        .map(|_| ())
        .ok_or_else(|| format!("{name} cannot be {value}"))
}

/// Where `structure` lies in a reply to `opcode`; in directories, that of record `record` or of all.
fn locate(opcode: Opcode, structure: &str, reply: &[u8], record: Option<usize>) -> Vec<usize> {
    let body = OUT_HEADER;
    let fixed = match (structure, opcode) {
        ("out", _) => Some(0),
        ("dirent" | "entry" | "attr", Opcode::READDIR | Opcode::READDIRPLUS) => None,
        (
            "entry" | "attr",
            Opcode::LOOKUP
            | Opcode::MKNOD
            | Opcode::MKDIR
            | Opcode::SYMLINK
            | Opcode::LINK
            | Opcode::CREATE
            | Opcode::TMPFILE,
        ) => Some(body + if structure == "attr" { ENTRY } else { 0 }),
        ("attr_out", Opcode::GETATTR | Opcode::SETATTR) => Some(body),
        ("attr", Opcode::GETATTR | Opcode::SETATTR) => Some(body + 16),
        ("statx", Opcode::STATX)
        | ("open", Opcode::OPEN | Opcode::OPENDIR)
        | ("init", Opcode::INIT)
        | ("statfs", Opcode::STATFS)
        | ("write", Opcode::WRITE | Opcode::COPY_FILE_RANGE)
        | ("copy", Opcode::COPY_FILE_RANGE_64)
        | ("lseek", Opcode::LSEEK)
        | ("xattr", Opcode::GETXATTR | Opcode::LISTXATTR) => Some(body),
        ("open", Opcode::CREATE | Opcode::TMPFILE) => Some(body + ENTRY + ATTR),
        _ => return Vec::new(),
    };
    if let Some(offset) = fixed {
        return vec![offset];
    }
    let plus = opcode == Opcode::READDIRPLUS;
    let shift = match structure {
        "dirent" => usize::from(plus) * (ENTRY + ATTR),
        _ if !plus => return Vec::new(),
        "attr" => ENTRY,
        _ => 0,
    };
    let starts = records(reply, plus).into_iter().enumerate();
    let wanted = starts.filter(|(i, _)| record.is_none_or(|record| record == *i));
    wanted.map(|(_, start)| start + shift).collect()
}

/// Where each record of a directory starts, its entry included.
fn records(reply: &[u8], plus: bool) -> Vec<usize> {
    let entry = usize::from(plus) * (ENTRY + ATTR);
    let mut starts = Vec::new();
    let mut at = OUT_HEADER;
    while let Some(length) = reply.get(at + entry + 16..at + entry + 20) {
        let name = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        starts.push(at);
        at += entry + (RECORD + name).next_multiple_of(8);
    }
    starts
}

/// Overwrites what of `bytes` lies inside the reply.
fn overwrite(reply: &mut [u8], offset: usize, bytes: &[u8]) {
    let places = reply.iter_mut().skip(offset);
    places.zip(bytes).for_each(|(place, byte)| *place = *byte);
}

fn set(opcode: Opcode, reply: &mut [u8], fields: &Map<String, Value>, record: Option<usize>) {
    // All places are looked up before any length is changed.
    let mut changes = Vec::new();
    for (name, value) in fields {
        let Some((structure, offset, length)) = field(name) else {
            continue;
        };
        let Some(bytes) = encode(value, length) else {
            continue;
        };
        for start in locate(opcode, structure, reply, record) {
            changes.push((start + offset, bytes.clone()));
        }
    }
    for (offset, bytes) in changes {
        overwrite(reply, offset, &bytes);
    }
}

fn header_u32(reply: &[u8], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes
        .iter_mut()
        .zip(reply.iter().skip(offset))
        .for_each(|(to, from)| *to = *from);
    u32::from_le_bytes(bytes)
}

/// Does to `reply`, the reply to `opcode`, what `action` says; actions that are not about contents do nothing.
pub fn apply(action: &Action, opcode: Opcode, reply: &mut Reply) {
    let bytes = &mut reply.bytes;
    match action {
        Action::Error {
            errno,
            execute: true,
        } => {
            bytes.truncate(OUT_HEADER);
            let error = -errno.number().unwrap_or(0);
            overwrite(bytes, 0, &(OUT_HEADER as u32).to_le_bytes());
            overwrite(bytes, 4, &error.to_le_bytes());
        }
        Action::RawError { value } => overwrite(bytes, 4, &value.to_le_bytes()),
        Action::Truncate { len, keep_len } => {
            bytes.truncate(*len);
            if !keep_len {
                let len = bytes.len() as u32;
                overwrite(bytes, 0, &len.to_le_bytes());
            }
        }
        Action::Pad { bytes: count } => {
            bytes.resize(bytes.len() + count, 0xa5);
            let len = bytes.len() as u32;
            overwrite(bytes, 0, &len.to_le_bytes());
        }
        Action::HeaderLen(change) => {
            let len = change.apply(header_u32(bytes, 0).into()) as u32;
            overwrite(bytes, 0, &len.to_le_bytes());
        }
        Action::UsedLen(change) => {
            let used = reply.used.unwrap_or(bytes.len() as u32);
            reply.used = Some(change.apply(used.into()) as u32);
        }
        Action::Unique(change) => {
            let (low, high) = (header_u32(bytes, 8), header_u32(bytes, 12));
            let unique = (u64::from(high) << 32) | u64::from(low);
            overwrite(bytes, 8, &change.apply(unique).to_le_bytes());
        }
        Action::Set { fields, record } => {
            let failed = header_u32(bytes, 4) != 0;
            if !failed || fields.keys().all(|name| name.starts_with("out.")) {
                set(opcode, bytes, fields, *record);
            }
        }
        Action::Patch { offset, hex } => {
            let Hex(patch) = hex.parse().unwrap_or_default();
            overwrite(bytes, *offset, &patch);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{reply, Writer};

    fn corrupted(opcode: Opcode, bytes: Vec<u8>, action: Value) -> Reply {
        let mut reply = Reply { bytes, used: None };
        apply(&serde_json::from_value(action).unwrap(), opcode, &mut reply);
        reply
    }

    fn u32_at(reply: &Reply, offset: usize) -> u32 {
        header_u32(&reply.bytes, offset)
    }

    #[test]
    fn structures_have_the_lengths_of_the_protocol() {
        for (structure, length) in [
            ("out", 16),
            ("entry", ENTRY),
            ("attr_out", 16),
            ("attr", ATTR),
            ("open", 16),
        ] {
            let (_, fields) = LAYOUTS.iter().find(|(name, _)| *name == structure).unwrap();
            assert_eq!(
                fields.iter().map(|(_, length)| length).sum::<usize>(),
                length,
                "{structure}"
            );
        }
        assert_eq!(field("attr.mode"), Some(("attr", 60, 4)));
        assert_eq!(field("statx.mtime"), Some(("statx", 144, 8)));
        assert_eq!(field("init.request_timeout"), Some(("init", 40, 2)));
        assert_eq!(field("statfs.frsize"), Some(("statfs", 48, 4)));
    }

    #[test]
    fn fields_are_set_by_name() {
        let fields =
            serde_json::json!({"do": "set", "fields": {"attr.size": -1, "entry.nodeid": 1}});
        let r = corrupted(Opcode::LOOKUP, reply(9, 0, &[0; 128]), fields);
        assert_eq!(r.bytes[16], 1);
        assert_eq!(r.bytes[64..72], [0xff; 8]);
        assert_eq!(r.bytes.iter().filter(|byte| **byte == 0xff).count(), 8);
    }

    #[test]
    fn fields_of_errors_are_left_alone() {
        let fields = serde_json::json!({"do": "set", "fields": {"attr.size": -1}});
        assert_eq!(
            corrupted(Opcode::GETATTR, reply(9, -5, &[]), fields).bytes,
            reply(9, -5, &[])
        );
    }

    #[test]
    fn records_are_found_by_number() {
        let mut w = Writer::default();
        for name in [&b"a"[..], b"long-name", b"c"] {
            w.u64(1).u64(2).u32(name.len() as u32).u32(8).bytes(name);
            w.zeros(w.len().next_multiple_of(8) - w.len());
        }
        let bytes = reply(9, 0, &w.take());
        let set = |fields, record| {
            corrupted(
                Opcode::READDIR,
                bytes.clone(),
                serde_json::json!({"do": "set", "fields": fields, "record": record}),
            )
        };
        let r = set(serde_json::json!({"dirent.namelen": 0}), Some(1));
        assert_eq!([u32_at(&r, 32), u32_at(&r, 64), u32_at(&r, 104)], [1, 0, 1]);
        let r = set(
            serde_json::json!({"dirent.name": "/", "dirent.namelen": 300}),
            None,
        );
        assert_eq!([u32_at(&r, 32), u32_at(&r, 64), u32_at(&r, 104)], [300; 3]);
        assert_eq!([r.bytes[40], r.bytes[72], r.bytes[112]], [b'/'; 3]);
        assert_eq!(
            set(serde_json::json!({"entry.nodeid": 1}), None).bytes,
            bytes
        );
    }

    #[test]
    fn lengths_are_changed_one_at_a_time() {
        let bytes = reply(9, 0, &[7; 8]);
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "truncate", "len": 20}),
        );
        assert_eq!((r.bytes.len(), u32_at(&r, 0), r.used), (20, 20, None));
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "truncate", "len": 20, "keep_len": true}),
        );
        assert_eq!((r.bytes.len(), u32_at(&r, 0)), (20, 24));
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "truncate", "len": 0}),
        );
        assert_eq!(r.bytes.len(), 0);
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "pad", "bytes": 4}),
        );
        assert_eq!((r.bytes.len(), u32_at(&r, 0)), (28, 28));
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "header_len", "add": 1}),
        );
        assert_eq!((r.bytes.len(), u32_at(&r, 0), r.used), (24, 25, None));
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "used_len", "value": 4096}),
        );
        assert_eq!((&r.bytes, r.used), (&bytes, Some(4096)));
    }

    #[test]
    fn headers_are_changed() {
        let bytes = reply(9, 0, &[7; 8]);
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "unique", "add": -1}),
        );
        assert_eq!(u32_at(&r, 8), 8);
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "raw_error", "value": 5}),
        );
        assert_eq!((u32_at(&r, 4), r.bytes.len()), (5, 24));
        let r = corrupted(
            Opcode::READ,
            bytes.clone(),
            serde_json::json!({"do": "error", "errno": "EIO", "execute": true}),
        );
        assert_eq!(r.bytes, reply(9, -5, &[]));
        let r = corrupted(
            Opcode::READ,
            bytes,
            serde_json::json!({"do": "patch", "offset": 23, "hex": "0102"}),
        );
        assert_eq!((r.bytes.len(), r.bytes[23]), (24, 1));
    }
}
