// SPDX-License-Identifier: GPL-2.0

//! ioctl(2), and the flags of inodes that `chattr(1)` sets.
//!
//! The number of a call says how much data goes which way, and no more than that is moved ("restricted" in the words of FUSE):
//! the daemon cannot ask for other memory of the caller. What it does not know is `ENOTTY`, as everywhere.

use crate::{
    contents::opening::call_open,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        NodeInode, //
    },
    session::Session, //
};
use fuse_proto::{
    Fh,
    InitFlags,
    Ioctl,
    IoctlFlags,
    Opcode,
    Open,
    OpenFlags, //
};
use kernel::{
    ioctl::{
        _IOR,
        _IOW, //
    },
    prelude::*,
    sync::Arc, //
};
use kernel_ext::pages::PageBuffer;
use vfs::{
    attr::FileType,
    file::IoctlRequest,
    inode::{
        ExtendedFlags,
        InodeFlags, //
    },
    File,
    Inode, //
};
use virtio::Payload;

/// `FS_IOC_GETFLAGS` and its siblings, which other systems have, too. Their number says `long`; what is moved is 32 bits.
const GETFLAGS: u32 = _IOR::<usize>(b'f' as u32, 1);
const SETFLAGS: u32 = _IOW::<usize>(b'f' as u32, 2);
const FLAGS_LEN: usize = 4;
/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`, of a `struct fsxattr`.
const FSGETXATTR: u32 = _IOR::<[u32; FSXATTR_LEN / 4]>(b'X' as u32, 31);
const FSSETXATTR: u32 = _IOW::<[u32; FSXATTR_LEN / 4]>(b'X' as u32, 32);
const FSXATTR_LEN: usize = 28;

/// Sends an ioctl; its result, and the data that came with it. Sleeps.
fn send(
    session: &Arc<Session>,
    inode: &Inode<VirtioFs>,
    op: &Ioctl<'_>,
) -> Result<(i32, KVec<u8>)> {
    let payload = match op.out_size {
        0 => Payload::None,
        size => Payload::Pages(PageBuffer::new(size as usize)?),
    };
    let caller = caller(inode.super_block());
    let (reply, transfer) = session.exchange(op, &caller, payload).map_err(unknown)?;
    let mut data = KVec::from_elem(0, reply.len, GFP_KERNEL)?;
    if let Payload::Pages(pages) = transfer.payload() {
        pages.read(0, &mut data)?;
    }
    Ok((reply.result, data))
}

/// What is not known is no ioctl of the file.
fn unknown(e: Error) -> Error {
    if e == ENOSYS {
        ENOTTY
    } else {
        e
    }
}

fn checked(result: i32) -> Result<i32> {
    if result < 0 {
        Err(unknown(Error::from_errno(result)))
    } else {
        Ok(result)
    }
}

/// ioctl(2) of an open file or directory. Sleeps.
pub(crate) fn ioctl(file: &File<VirtioFs>, request: &IoctlRequest) -> Result<i32> {
    let inode = file.inode();
    let session = inode.session()?;
    let mut flags = IoctlFlags::NONE;
    if inode.is_dir() {
        if !session.has(InitFlags::HAS_IOCTL_DIR) {
            return Err(ENOTTY);
        }
        flags = flags | IoctlFlags::DIR;
    }
    if request.is_compat() {
        flags = flags | IoctlFlags::COMPAT | IoctlFlags::IOCTL_32BIT;
    }
    if session.lacks(Opcode::Ioctl) {
        return Err(ENOTTY);
    }
    let data = request.data()?;
    let op = Ioctl {
        node: inode.node_id()?,
        fh: file.data().fh(),
        flags,
        cmd: request.cmd(),
        arg: request.arg(),
        data: &data,
        out_size: u32::try_from(request.len_out())?,
    };
    let (result, data) = send(session, inode, &op)?;
    request.answer(&data)?;
    checked(result)
}

/// Sends an ioctl of an inode that is not open, `size` bytes of data to come. Sleeps.
fn of_inode(inode: &Inode<VirtioFs>, cmd: u32, data: &[u8], size: usize) -> Result<KVec<u8>> {
    let session = inode.session()?;
    let dir = inode.is_dir();
    let mut flags = IoctlFlags::NONE;
    if dir {
        flags = flags | IoctlFlags::DIR;
    }
    if !matches!(inode.file_type(), FileType::Regular | FileType::Directory)
        || session.lacks(Opcode::Ioctl)
    {
        return Err(ENOTTY);
    }
    let node = inode.node_id()?;
    let open = Open {
        node,
        dir,
        flags: 0,
        open_flags: OpenFlags::NONE,
    };
    let opened = call_open(session, inode, &open)?.map(|reply| reply.fh);
    let op = Ioctl {
        node,
        fh: opened.unwrap_or(Fh(0)),
        flags,
        cmd,
        arg: 0,
        data,
        out_size: u32::try_from(size)?,
    };
    let sent = send(session, inode, &op);
    if let Some(fh) = opened {
        session.release(node, dir, fh, 0);
    }
    let (result, data) = sent?;
    checked(result)?;
    if data.len() != size {
        return Err(EIO);
    }
    Ok(data)
}

fn words<const N: usize>(data: &[u8]) -> Result<[u32; N]> {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(data.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().map_err(|_| EIO)?);
    }
    Ok(words)
}

/// Flags of an inode, in the form that is `wanted`. Sleeps.
pub(crate) fn flags(inode: &Inode<VirtioFs>, wanted: InodeFlags) -> Result<InodeFlags> {
    match wanted {
        InodeFlags::Flags(_) => {
            let [flags] = words(&of_inode(inode, GETFLAGS, &[], FLAGS_LEN)?)?;
            Ok(InodeFlags::Flags(flags))
        }
        InodeFlags::Extended(_) => {
            let [flags, extent_size, extents, project, cow_extent_size] =
                words(&of_inode(inode, FSGETXATTR, &[], FSXATTR_LEN)?)?;
            Ok(InodeFlags::Extended(ExtendedFlags {
                flags,
                extent_size,
                extents,
                project,
                cow_extent_size,
            }))
        }
    }
}

/// Sets flags of an inode; the VFS has checked that the caller may. Sleeps.
pub(crate) fn set_flags(inode: &Inode<VirtioFs>, flags: InodeFlags) -> Result {
    let done = match flags {
        InodeFlags::Flags(flags) => of_inode(inode, SETFLAGS, &flags.to_ne_bytes(), 0),
        InodeFlags::Extended(new) => {
            let mut data = [0; FSXATTR_LEN];
            let words = [
                new.flags,
                new.extent_size,
                new.extents,
                new.project,
                new.cow_extent_size,
            ];
            for (bytes, word) in data.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            of_inode(inode, FSSETXATTR, &data, 0)
        }
    };
    // The time of the change, at least.
    inode.data().changed_attributes();
    done.map(|_| ())
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_ioctl)]
mod tests {
    use super::*;

    /// The numbers are those of `linux/fs.h`, where flags are `long` and the extended ones 28 bytes.
    #[test]
    fn numbers() {
        assert_eq!(GETFLAGS, 0x8008_6601);
        assert_eq!(SETFLAGS, 0x4008_6602);
        assert_eq!(FSGETXATTR, 0x801c_581f);
        assert_eq!(FSSETXATTR, 0x401c_5820);
    }

    /// Words are taken as far as there are bytes; the others are zero.
    #[test]
    fn short_data() -> Result {
        assert_eq!(words::<2>(&[1, 0, 0, 0, 2, 0, 0, 0, 3])?, [1, 2]);
        assert_eq!(words::<2>(&[1, 0, 0, 0, 2])?, [1, 0]);
        Ok(())
    }

    /// A daemon, or what it asked, that does not know an ioctl: it is none of the file's.
    #[test]
    fn results() {
        assert_eq!(checked(3), Ok(3));
        assert_eq!(checked(-38), Err(ENOTTY));
        assert_eq!(checked(-13), Err(EACCES));
    }
}
