// SPDX-License-Identifier: GPL-2.0

//! IOCTL: flags of inodes, which are kept in memory, and one call that answers what it was told, backwards.

use std::collections::HashMap;
use std::sync::Mutex;

use rustix::io::Errno;

use super::{Failure, Fs, Outcome, Request};
use crate::lock;
use crate::wire::Writer;

/// Type and number of the calls that are known.
const GETFLAGS: (u8, u8) = (b'f', 1);
const SETFLAGS: (u8, u8) = (b'f', 2);
const FSGETXATTR: (u8, u8) = (b'X', 31);
const FSSETXATTR: (u8, u8) = (b'X', 32);
const BACKWARDS: (u8, u8) = (b'D', 1);
/// The flag of IOCTL that the node is a directory.
const DIR: u32 = 1 << 4;

/// What was set, by node and by which of the two calls.
#[derive(Default)]
pub struct Ioctls(Mutex<HashMap<(u64, bool), Vec<u8>>>);

impl Fs {
    /// IOCTL.
    pub fn ioctl(&self, request: &mut Request<'_>) -> Outcome {
        let node = request.header.nodeid;
        let args = &mut request.args;
        let (fh, flags, cmd, _arg) = (args.u64()?, args.u32()?, args.u32()?, args.u64()?);
        let (in_size, out_size) = (args.u32()? as usize, args.u32()? as usize);
        let mut data = args.take(in_size)?.to_vec();
        match flags & DIR != 0 {
            true => drop(self.dir(node, fh)?),
            false => drop(self.file(node, fh)?),
        }
        if out_size + 16 > request.capacity {
            return Err(Failure::Malformed(format!("no room for {out_size} bytes")));
        }
        let mut set = lock::mutex(&self.ioctls.0);
        let mut result = 0;
        let reply = match ((cmd >> 8) as u8, cmd as u8) {
            call @ (GETFLAGS | FSGETXATTR) => {
                let known = set.get(&(node, call == GETFLAGS));
                known.cloned().unwrap_or_else(|| vec![0; out_size])
            }
            call @ (SETFLAGS | FSSETXATTR) => {
                set.insert((node, call == SETFLAGS), data);
                Vec::new()
            }
            BACKWARDS => {
                result = in_size as i32;
                data.reverse();
                data.truncate(out_size);
                data
            }
            _ => {
                result = -Errno::NOTTY.raw_os_error();
                Vec::new()
            }
        };
        let mut w = Writer::default();
        w.u32(result as u32).u32(0).u32(0).u32(0);
        let mut bytes = w.take();
        bytes.extend_from_slice(&reply);
        Ok(bytes)
    }
}
