// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Failure, Fs, Outcome, Request};
use crate::wire::{init, Writer};

/// The longest value and the longest list that the kernel has.
const MAX: usize = 1 << 16;

/// The reply with `data`, of which the guest wants at most `size` bytes, or with its length alone if `size` is 0.
fn answer(data: &[u8], size: usize) -> Outcome {
    match size {
        0 => {
            let mut w = Writer::default();
            w.u32(data.len() as u32).u32(0);
            Ok(w.take())
        }
        size if data.len() <= size => Ok(data.to_vec()),
        _ => Err(Errno::RANGE.into()),
    }
}

impl Fs {
    /// SETXATTR.
    pub fn setxattr(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (size, flags) = (args.u32()? as usize, args.u32()?);
        if self.agreed(init::SETXATTR_EXT) {
            let (_kill_sgid, _) = (args.u32()?, args.u32()?);
        }
        let name = args.string()?;
        let value = args.take(size)?;
        let inode = self.inode(request.header.nodeid)?;
        rustix::fs::setxattr(
            inode.path(),
            name,
            value,
            XattrFlags::from_bits_retain(flags),
        )?;
        Ok(Vec::new())
    }

    /// GETXATTR.
    pub fn getxattr(&self, request: &mut Request<'_>) -> Outcome {
        let (size, _) = (request.args.u32()? as usize, request.args.u32()?);
        let name = request.args.string()?;
        let inode = self.inode(request.header.nodeid)?;
        let mut value = vec![0; MAX];
        let length = rustix::fs::getxattr(inode.path(), name, &mut value)?;
        answer(&value[..length], self.room(request, size)?)
    }

    /// LISTXATTR.
    pub fn listxattr(&self, request: &mut Request<'_>) -> Outcome {
        let (size, _) = (request.args.u32()? as usize, request.args.u32()?);
        let inode = self.inode(request.header.nodeid)?;
        let mut list = vec![0; MAX];
        let length = rustix::fs::listxattr(inode.path(), &mut list)?;
        answer(&list[..length], self.room(request, size)?)
    }

    /// REMOVEXATTR.
    pub fn removexattr(&self, request: &mut Request<'_>) -> Outcome {
        let name = request.args.string()?;
        rustix::fs::removexattr(self.inode(request.header.nodeid)?.path(), name)?;
        Ok(Vec::new())
    }

    /// Checks that the reply has room for the `size` bytes that the guest asks for.
    fn room(&self, request: &Request<'_>, size: usize) -> Result<usize, Failure> {
        match size <= request.capacity {
            true => Ok(size),
            false => Err(Failure::Malformed(format!(
                "{size} bytes wanted with room for {}",
                request.capacity
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_asked_for_with_size_0() {
        assert_eq!(answer(b"abc", 0).unwrap(), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(b"abc", 3).unwrap(), b"abc");
        assert!(matches!(
            answer(b"abc", 2),
            Err(Failure::Errno(Errno::RANGE))
        ));
    }
}
