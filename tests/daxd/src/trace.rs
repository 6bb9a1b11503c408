// SPDX-License-Identifier: GPL-2.0

//! The last requests, for a closer look.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;

use crate::lock;
use crate::options::Hex;
use crate::wire::{InHeader, IN_HEADER, OUT_HEADER};

/// How many bytes of arguments and of reply are kept.
const BYTES: usize = 256;

/// A request and its reply.
#[derive(Clone, Serialize)]
pub struct Traced {
    queue: usize,
    opcode: String,
    unique: u64,
    nodeid: u64,
    uid: u32,
    gid: u32,
    pid: u32,
    total_extlen: u16,
    /// Arguments, without the header.
    args: String,
    /// Room for the reply.
    capacity: usize,
    /// The reply's length and body as the guest gets them, faults included.
    reply_len: usize,
    reply: String,
}

/// The last requests.
#[derive(Default)]
pub struct Trace(Mutex<VecDeque<Traced>>);

impl Trace {
    /// Keeps a request and its reply, of at most `keep`.
    pub fn add(
        &self,
        keep: usize,
        queue: usize,
        header: &InHeader,
        request: &[u8],
        capacity: usize,
        reply: &[u8],
    ) {
        let mut traced = lock::mutex(&self.0);
        while traced.len() >= keep.max(1) {
            traced.pop_front();
        }
        if keep == 0 {
            return;
        }
        let head = |bytes: &[u8], skip: usize| {
            let end = bytes.len().min(skip + BYTES);
            Hex::encode(bytes.get(skip..end).unwrap_or(&[]))
        };
        traced.push_back(Traced {
            queue,
            opcode: header.opcode.to_string(),
            unique: header.unique,
            nodeid: header.nodeid,
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            total_extlen: header.total_extlen,
            args: head(request, IN_HEADER),
            capacity,
            reply_len: reply.len(),
            reply: head(reply, OUT_HEADER),
        });
    }

    /// The requests that were kept, oldest first, and forgets them.
    pub fn take(&self) -> Vec<Traced> {
        lock::mutex(&self.0).drain(..).collect()
    }
}
