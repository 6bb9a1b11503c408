// SPDX-License-Identifier: GPL-2.0

//! The FUSE wire format: the one place where bytes from the host become checked values.
//!
//! Everything here is a pure function of bytes. There are no types of the kernel, no allocation
//! and no `unsafe`, so the crate builds in the kernel as well as on the host, where `cargo test`
//! tries it out (`cargo test --manifest-path rust/fuse_proto/Cargo.toml`).
//!
//! # How a request goes through here
//!
//! An operation is a plain structure that says what is asked, such as [`Getattr`] or [`Lookup`].
//! Its [`Operation`] implementation writes the request ([`Operation::encode`]), says how much
//! room the reply needs, and checks the reply *against the request* ([`Operation::accept`]).
//!
//! ```
//! use fuse_proto::{Caller, Getattr, NodeId, Operation, ReplyError};
//!
//! let getattr = Getattr { node: NodeId::ROOT, fh: None };
//! let mut request = [0; 128];
//! assert_eq!(getattr.encode(1, &Caller::default(), &mut request), Ok(56));
//!
//! // The device sees these 56 bytes, and writes a reply: here, a refusal with EACCES.
//! let mut reply = [0; 16 + 104];
//! assert_eq!(reply.len(), fuse_proto::REPLY_HEADER_LEN + getattr.reply_len());
//! reply[0..4].copy_from_slice(&16u32.to_ne_bytes());
//! reply[4..8].copy_from_slice(&(-13i32).to_ne_bytes());
//! reply[8..16].copy_from_slice(&1u64.to_ne_bytes());
//! assert_eq!(getattr.accept(1, &reply, 16), Err(ReplyError::Errno(-13)));
//! ```
//!
//! Data of files, listings of directories, targets of links and values of extended attributes
//! are the *payload* of a request or a reply. It is in pages of its own, and an operation knows
//! only its length. Where the payload has a structure, a type of its own checks it:
//! [`Dirents`], [`DirentsPlus`], [`XattrNames`], [`PosixAcl`], and the function [`link_target`].
//!
//! # How to add an opcode
//!
//! 1. [`opcode`]: its number and name.
//! 2. [`wire`]: its structures as in `fuse.h`, with offsets and sizes.
//! 3. The file of its kind (`inode.rs`, `file.rs`, ...): a structure for what is asked, and its
//!    [`Operation`]: `args` writes the arguments, `reply_len` and `reply_payload_len` make room,
//!    `decode` checks. Whatever the reply has that is a number, decide what it may be; what it
//!    may not be becomes an [`Impossible`]. Types such as [`Attr`] and [`Entry`] exist only
//!    checked.
//! 4. `tests/`: the layout of the request, a good reply, each bad one. The property that no
//!    reply whatsoever makes `accept` panic is tested for all operations in one list: add it.

#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]

pub mod opcode;
pub mod wire;

mod acl;
mod control;
mod data;
mod dirent;
mod encode;
mod file;
mod flags;
mod forget;
mod init;
mod inode;
mod lock;
mod mapping;
mod name;
mod operation;
mod reply;
mod value;
mod xattr;

pub use acl::PosixAcl;
pub use control::{Interrupt, Ioctl, IoctlReply, Poll, Syncfs};
pub use data::{CopyFileRange, Fallocate, Fsync, Read, Write};
pub use dirent::{Dirent, DirentPlus, Dirents, DirentsPlus, Plus, Readdir, NAME_MAX};
pub use encode::HEADER_LEN as REQUEST_HEADER_LEN;
pub use encode::{Caller, EncodeError, Encoder, Extensions, SecurityContext};
pub use file::{Flush, Lseek, Open, OpenReply, Release, Whence};
pub use flags::{
    AttrFlags, InitFlags, IoctlFlags, MapFlags, OpenFlags, OpenReplyFlags, ReleaseFlags,
    SetattrFlags, WriteFlags,
};
pub use forget::{BatchForget, Forget};
pub use init::{Destroy, Init, Negotiated, MAJOR, MINOR, MIN_MINOR};
pub use inode::{
    link_target, Access, AttrReply, Getattr, Readlink, SetTime, Setattr, Statfs, StatfsReply,
    Statx, StatxReply,
};
pub use lock::{FileLock, Getlk, LockKind, Setlk};
pub use mapping::{MapRange, Removemapping, Setupmapping};
pub use name::{
    Create, CreateReply, Link, Lookup, LookupReply, Mkdir, Mknod, Rename, Symlink, Unlink,
};
pub use opcode::Opcode;
pub use operation::{Answer, Operation};
pub use reply::HEADER_LEN as REPLY_HEADER_LEN;
pub use reply::{check_header, Impossible, ReplyError};
pub use value::{Attr, Device, Entry, Fh, FileType, LockOwner, NodeId, Time, Ttl, MAX_OFFSET};
pub use xattr::{Getxattr, Listxattr, Removexattr, Setxattr, XattrNames, XATTR_MAX};
