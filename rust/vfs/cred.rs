// SPDX-License-Identifier: GPL-2.0

//! Credentials of the calling task.
//!
//! C headers: [`include/linux/cred.h`](srctree/include/linux/cred.h),
//! [`include/linux/mnt_idmapping.h`](srctree/include/linux/mnt_idmapping.h)

use crate::{
    filesystem::FileSystem,
    inode::Inode,
    super_block::SuperBlock, //
};
use kernel::{
    pid_namespace::PidNamespace,
    prelude::*,
    types::Opaque, //
};
use kernel_ext::bindings;

/// The id mapping of a mount: opaque, passed on to the VFS functions that apply it.
#[repr(transparent)]
pub struct Idmap(Opaque<bindings::mnt_idmap>);

// SAFETY: An id mapping does not change.
unsafe impl Sync for Idmap {}

impl Idmap {
    /// # Safety
    ///
    /// `ptr` is valid for the duration of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::mnt_idmap) -> &'a Self {
        // SAFETY: The layout is that of the C type; valid as the caller says.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::mnt_idmap {
        self.0.get()
    }
}

/// Identity of the current task, in the terms of a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its user id for file accesses, in the user namespace of the superblock; `u32::MAX` when the
    /// id has no place there.
    pub uid: u32,
    /// Its group id, likewise.
    pub gid: u32,
    /// Its process id; 0 when the process is not in the namespace.
    pub pid: u32,
}

impl Caller {
    /// The identity of the current task: ids as seen by `sb`, the process as seen in `pid_ns`, or in
    /// the task's own namespace without one.
    pub fn current<T: FileSystem>(sb: &SuperBlock<T>, pid_ns: Option<&PidNamespace>) -> Self {
        // SAFETY: The user namespace of a superblock lives as long as it does.
        let (uid, gid) = unsafe {
            let ns = (*sb.as_raw()).s_user_ns;
            (
                bindings::virtiofs_helper_current_fsuid(ns),
                bindings::virtiofs_helper_current_fsgid(ns),
            )
        };
        Self {
            uid,
            gid,
            pid: u32::try_from(current!().tgid_nr_ns(pid_ns)).unwrap_or(0),
        }
    }

    /// As [`current`](Caller::current), ids mapped as the mount maps them: the owner of what the current task makes there.
    ///
    /// `u32::MAX` when the mount has no such id.
    pub fn creating<T: FileSystem>(
        sb: &SuperBlock<T>,
        idmap: &Idmap,
        pid_ns: Option<&PidNamespace>,
    ) -> Self {
        // SAFETY: The user namespace of a superblock lives as long as it does.
        let (uid, gid) = unsafe {
            let ns = (*sb.as_raw()).s_user_ns;
            (
                bindings::virtiofs_helper_mapped_fsuid(idmap.as_raw(), ns),
                bindings::virtiofs_helper_mapped_fsgid(idmap.as_raw(), ns),
            )
        };
        Self {
            uid,
            gid,
            ..Self::current(sb, pid_ns)
        }
    }
}

/// The umask of the current task.
pub fn umask() -> u16 {
    // SAFETY: A task that makes calls has a `fs_struct`.
    unsafe { bindings::current_umask() as u16 & 0o777 }
}

/// Whether the current task may keep set-id bits of what it changes (`CAP_FSETID`).
pub fn keeps_setid() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::capable(bindings::CAP_FSETID as i32) }
}

/// The group of `dir`, as the superblock counts groups, if it is a supplementary one of the current task.
///
/// What is made in a directory with the set-group-id bit gets this group.
pub fn supplementary_group<T: FileSystem>(dir: &Inode<T>, idmap: &Idmap) -> Option<u32> {
    // SAFETY: Valid references.
    let gid =
        unsafe { bindings::virtiofs_helper_supplementary_group(idmap.as_raw(), dir.as_raw()) };
    (gid != u32::MAX).then_some(gid)
}
