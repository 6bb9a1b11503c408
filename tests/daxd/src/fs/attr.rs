// SPDX-License-Identifier: GPL-2.0

//! Attributes: GETATTR, SETATTR, STATX, STATFS, ACCESS.

use rustix::fs::{
    Access, AtFlags, Mode, OFlags, Stat, StatxFlags, StatxTimestamp, Timespec, Timestamps, CWD,
    UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{Failure, Fs, Inode, Outcome, Request};
use crate::wire::{self, fattr, Writer};

/// A timeout as the protocol has it: seconds and nanoseconds.
pub fn timeout(seconds: f64) -> (u64, u32) {
    // The casts saturate, and turn what is no number into 0.
    let whole = seconds.max(0.0) as u64;
    (
        whole,
        ((seconds - whole as f64).clamp(0.0, 0.999_999_999) * 1e9) as u32,
    )
}

/// A device number as the protocol has it.
fn device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The device number that [`device`] encodes.
pub fn decode_device(rdev: u32) -> u64 {
    rustix::fs::makedev(
        (rdev >> 8) & 0xfff,
        (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
    )
}

/// Appends attributes.
pub fn append(w: &mut Writer, stat: &Stat, flags: u32) {
    w.u64(stat.st_ino)
        .u64(stat.st_size as u64)
        .u64(stat.st_blocks as u64);
    w.u64(stat.st_atime as u64)
        .u64(stat.st_mtime as u64)
        .u64(stat.st_ctime as u64);
    w.u32(stat.st_atime_nsec as u32)
        .u32(stat.st_mtime_nsec as u32)
        .u32(stat.st_ctime_nsec as u32);
    w.u32(stat.st_mode)
        .u32(stat.st_nlink as u32)
        .u32(stat.st_uid)
        .u32(stat.st_gid);
    w.u32(device(stat.st_rdev))
        .u32(stat.st_blksize as u32)
        .u32(flags);
}

impl Fs {
    /// The reply to GETATTR and SETATTR.
    fn attr_out(&self, inode: &Inode) -> Outcome {
        let settings = self.settings();
        let stat = inode.stat()?;
        let (seconds, nanoseconds) = timeout(settings.attr_timeout);
        let mut w = Writer::default();
        w.u64(seconds).u32(nanoseconds).u32(0);
        append(&mut w, &stat, self.attr_flags(&settings, &stat));
        Ok(w.take())
    }

    /// GETATTR.
    pub fn getattr(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (flags, _, fh) = (args.u32()?, args.u32()?, args.u64()?);
        if flags & wire::GETATTR_FH != 0 {
            self.file(request.header.nodeid, fh)?;
        }
        let _sizes = self.sizes();
        self.attr_out(&*self.inode(request.header.nodeid)?)
    }

    /// SETATTR.
    pub fn setattr(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (valid, _, fh, size, _owner) = (
            args.u32()?,
            args.u32()?,
            args.u64()?,
            args.u64()?,
            args.u64()?,
        );
        let seconds = [args.u64()?, args.u64()?, args.u64()?];
        let nanoseconds = [args.u32()?, args.u32()?, args.u32()?];
        let (mode, _, uid, gid, _) = (
            args.u32()?,
            args.u32()?,
            args.u32()?,
            args.u32()?,
            args.u32()?,
        );
        let inode = self.inode(request.header.nodeid)?;
        let _sizes = self.sizes();

        if valid & fattr::MODE != 0 {
            rustix::fs::chmodat(
                CWD,
                inode.path(),
                Mode::from_raw_mode(mode & 0o7777),
                AtFlags::empty(),
            )?;
        }
        if valid & (fattr::UID | fattr::GID) != 0 {
            let uid = (valid & fattr::UID != 0).then(|| Uid::from_raw(uid));
            let gid = (valid & fattr::GID != 0).then(|| Gid::from_raw(gid));
            rustix::fs::chownat(inode.fd(), "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if valid & fattr::SIZE != 0 {
            match valid & fattr::FH != 0 {
                true => rustix::fs::ftruncate(&self.file(request.header.nodeid, fh)?, size)?,
                false => rustix::fs::ftruncate(inode.open(OFlags::WRONLY)?, size)?,
            }
        }
        if valid & fattr::KILL_SUIDGID != 0 {
            self.kill_suidgid(&inode)?;
        }
        if valid & (fattr::ATIME | fattr::MTIME) != 0 {
            let time = |set, now, i: usize| {
                let nanoseconds = match valid & (set | now) {
                    0 => UTIME_OMIT,
                    bits if bits & now != 0 => UTIME_NOW,
                    _ => nanoseconds[i].into(),
                };
                Timespec {
                    tv_sec: seconds[i] as i64,
                    tv_nsec: nanoseconds,
                }
            };
            let times = Timestamps {
                last_access: time(fattr::ATIME, fattr::ATIME_NOW, 0),
                last_modification: time(fattr::MTIME, fattr::MTIME_NOW, 1),
            };
            rustix::fs::utimensat(CWD, inode.path(), &times, AtFlags::empty())?;
        }
        self.attr_out(&inode)
    }

    /// Takes set-user-id away, and set-group-id where the group may execute.
    pub(super) fn kill_suidgid(&self, inode: &Inode) -> rustix::io::Result<()> {
        let mode = inode.stat()?.st_mode;
        let mut kept = mode & !0o4000;
        if mode & 0o010 != 0 {
            kept &= !0o2000;
        }
        if kept != mode {
            rustix::fs::chmodat(
                CWD,
                inode.path(),
                Mode::from_raw_mode(kept & 0o7777),
                AtFlags::empty(),
            )?;
        }
        Ok(())
    }

    /// STATX.
    pub fn statx(&self, request: &mut Request<'_>) -> Outcome {
        let args = &mut request.args;
        let (flags, _, fh, sx_flags, mask) = (
            args.u32()?,
            args.u32()?,
            args.u64()?,
            args.u32()?,
            args.u32()?,
        );
        if flags & wire::GETATTR_FH != 0 {
            self.file(request.header.nodeid, fh)?;
        }
        let inode = self.inode(request.header.nodeid)?;
        let _sizes = self.sizes();
        let flags = AtFlags::EMPTY_PATH | AtFlags::from_bits_retain(sx_flags & (3 << 13));
        let x = rustix::fs::statx(inode.fd(), "", flags, StatxFlags::from_bits_retain(mask))?;

        let (seconds, nanoseconds) = timeout(self.settings().attr_timeout);
        let mut w = Writer::default();
        w.u64(seconds).u32(nanoseconds).u32(0).zeros(16);
        w.u32(x.stx_mask)
            .u32(x.stx_blksize)
            .u64(x.stx_attributes.bits());
        w.u32(x.stx_nlink)
            .u32(x.stx_uid)
            .u32(x.stx_gid)
            .u16(x.stx_mode)
            .u16(0);
        w.u64(x.stx_ino)
            .u64(x.stx_size)
            .u64(x.stx_blocks)
            .u64(x.stx_attributes_mask.bits());
        let mut time = |t: StatxTimestamp| w.u64(t.tv_sec as u64).u32(t.tv_nsec).u32(0).len();
        time(x.stx_atime);
        time(x.stx_btime);
        time(x.stx_ctime);
        time(x.stx_mtime);
        w.u32(x.stx_rdev_major)
            .u32(x.stx_rdev_minor)
            .u32(x.stx_dev_major)
            .u32(x.stx_dev_minor)
            .zeros(14 * 8);
        Ok(w.take())
    }

    /// STATFS.
    pub fn statfs(&self, request: &mut Request<'_>) -> Outcome {
        let s = rustix::fs::fstatvfs(self.inode(request.header.nodeid)?.fd())?;
        let mut w = Writer::default();
        w.u64(s.f_blocks)
            .u64(s.f_bfree)
            .u64(s.f_bavail)
            .u64(s.f_files)
            .u64(s.f_ffree);
        w.u32(s.f_bsize as u32)
            .u32(s.f_namemax as u32)
            .u32(s.f_frsize as u32)
            .zeros(4 + 6 * 4);
        Ok(w.take())
    }

    /// ACCESS.
    pub fn access(&self, request: &mut Request<'_>) -> Outcome {
        let (mask, _) = (request.args.u32()?, request.args.u32()?);
        let access = Access::from_bits(mask).ok_or(Failure::Errno(Errno::INVAL))?;
        let inode = self.inode(request.header.nodeid)?;
        let check = || rustix::fs::accessat(CWD, inode.path(), access, AtFlags::EACCESS);
        self.as_caller(&request.header, check)?;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_nanoseconds() {
        assert_eq!(timeout(1.5), (1, 500_000_000));
        assert_eq!(timeout(0.0), (0, 0));
        assert_eq!(timeout(-1.0), (0, 0));
        assert_eq!(timeout(f64::INFINITY).0, u64::MAX);
        assert_eq!(timeout(f64::NAN).0, 0);
    }

    #[test]
    fn devices_go_both_ways() {
        for (major, minor) in [(8, 1), (259, 70_000), (4095, 0xf_ffff)] {
            let rdev = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(device(rdev)), rdev);
        }
    }
}
