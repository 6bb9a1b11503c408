// SPDX-License-Identifier: GPL-2.0

//! Inode operations.

use super::{
    flags::InodeFlags,
    Inode,
    RcuInode, //
};
use crate::{
    acl::{
        Acl,
        AclType, //
    },
    attr::{
        NewAttributes,
        Stat,
        StatSync, //
    },
    cred::Idmap,
    filesystem::FileSystem,
    xattr, //
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    build_error,
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::bindings;

/// An access that is to be permitted or not (`MAY_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessMask(i32);

impl AccessMask {
    pub(crate) fn raw(self) -> i32 {
        self.0
    }

    const fn has(self, flag: u32) -> bool {
        self.0 & flag as i32 != 0
    }

    /// To execute a file, or to walk through a directory.
    pub const fn exec(self) -> bool {
        self.has(bindings::MAY_EXEC)
    }

    /// To write.
    pub const fn write(self) -> bool {
        self.has(bindings::MAY_WRITE)
    }

    /// To read.
    pub const fn read(self) -> bool {
        self.has(bindings::MAY_READ)
    }

    /// Asked by `access(2)`.
    pub const fn access(self) -> bool {
        self.has(bindings::MAY_ACCESS)
    }

    /// Asked on behalf of `open(2)`.
    pub const fn open(self) -> bool {
        self.has(bindings::MAY_OPEN)
    }

    /// Asked on behalf of `chdir(2)` and its like.
    pub const fn chdir(self) -> bool {
        self.has(bindings::MAY_CHDIR)
    }

    /// The three bits that `access(2)` knows.
    pub const fn mode(self) -> u32 {
        self.0 as u32 & (bindings::MAY_EXEC | bindings::MAY_WRITE | bindings::MAY_READ)
    }
}

/// What the VFS asks of inodes of all types.
#[vtable]
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Fills in attributes for `stat`, beginning with [`Stat::fill`].
    ///
    /// May sleep; no lock is held. Without it, the inode's attributes are shown as they are.
    fn getattr(_inode: &Inode<Self::FileSystem>, _stat: &mut Stat<'_>, _sync: StatSync) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes attributes, as [`NewAttributes`] says; [`NewAttributes::prepare`] is where to begin.
    ///
    /// May sleep; `i_rwsem` of the inode is held. Without it, nothing can be changed but what is in memory.
    fn setattr(
        _inode: &Inode<Self::FileSystem>,
        _attrs: &mut NewAttributes<'_, Self::FileSystem>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Whether an access is permitted: `EACCES` when not.
    ///
    /// May sleep; no lock is held. Without it, the inode's own attributes decide, as with
    /// [`Inode::generic_permission`].
    fn permission(_inode: &Inode<Self::FileSystem>, _idmap: &Idmap, _mask: AccessMask) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// As [`permission`](Operations::permission), during an RCU path walk: must not sleep. `ECHILD`
    /// has it asked again outside of RCU.
    fn permission_rcu(
        _inode: RcuInode<'_, Self::FileSystem>,
        _idmap: &Idmap,
        _mask: AccessMask,
    ) -> Result {
        Err(ECHILD)
    }

    /// Lists the names of extended attributes, each with the NUL at its end.
    ///
    /// May sleep; `i_rwsem` is held or not. Without it, there are none.
    fn listxattr(_inode: &Inode<Self::FileSystem>, _names: &mut xattr::Buffer<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Flags of the inode, in the form that is `wanted` (what is in it does not matter).
    ///
    /// May sleep; no lock is held. `ENOTTY` when it has none. Without it, an ioctl of the open file is tried.
    fn flags(_inode: &Inode<Self::FileSystem>, _wanted: InodeFlags) -> Result<InodeFlags> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets flags of the inode. The VFS has checked that the caller may do it.
    ///
    /// May sleep; `i_rwsem` of the inode is held.
    fn set_flags(_inode: &Inode<Self::FileSystem>, _flags: InodeFlags) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads an ACL. Not asked of symbolic links.
    ///
    /// The VFS caches the answer, also that there is none, until
    /// [`forget_acls`](super::AttrsMut::forget_acls), unless the inode is one with
    /// [`set_acls_passive`](super::NewInode::set_acls_passive).
    ///
    /// May sleep; `i_rwsem` is held or not. Errors: `EOPNOTSUPP` where there are no ACLs, which is the same as none when access
    /// is decided about; any other error denies the access. Without it, there are none.
    fn get_acl(_inode: &Inode<Self::FileSystem>, _kind: AclType) -> Result<Option<Acl>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Stores an ACL, or with [`None`] removes it. The mode changes with an ACL for access: that is up to the filesystem.
    ///
    /// The VFS has checked that the caller may do it, that the ACL is complete and in order, and that only directories have
    /// one to be inherited. Not asked of symbolic links. May sleep; `i_rwsem` of the inode is held. Without it, `EOPNOTSUPP`.
    fn set_acl(
        _idmap: &Idmap,
        _inode: &Inode<Self::FileSystem>,
        _kind: AclType,
        _acl: Option<&Acl>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The target of a symbolic link.
pub enum Link<'a> {
    /// A string that stays as it is as long as the inode is.
    Borrowed(&'a CStr),
    /// A string that is freed when the path walk is done with it.
    Owned(KVec<u8>),
}

impl Link<'_> {
    /// Makes a link from `target`, which ends before the first NUL if there is one.
    ///
    /// Errors: `ENAMETOOLONG` for a target that no path can have, `ENOENT` for an empty one,
    /// `ENOMEM`.
    pub fn new(target: &[u8]) -> Result<Link<'static>> {
        let len = target.iter().position(|&b| b == 0).unwrap_or(target.len());
        let target = target.get(..len).unwrap_or(target);
        if target.is_empty() {
            return Err(ENOENT);
        }
        if target.len() >= bindings::PATH_MAX as usize {
            return Err(ENAMETOOLONG);
        }
        let mut text = KVec::with_capacity(target.len() + 1, GFP_KERNEL)?;
        text.extend_from_slice(target, GFP_KERNEL)?;
        text.push(0, GFP_KERNEL)?;
        Ok(Link::Owned(text))
    }
}

impl Link<'_> {
    /// The target, without the NUL at its end.
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(text) => text.to_bytes(),
            Self::Owned(text) => text.split_last().map_or(&[], |(_, text)| text),
        }
    }
}

/// What the VFS asks of symbolic links.
#[vtable]
pub trait SymlinkOperations: Operations {
    /// The target, for readlink(2) or a path walk.
    ///
    /// May sleep; no lock is held.
    fn get_link(inode: &Inode<Self::FileSystem>) -> Result<Link<'_>>;

    /// The target, during an RCU path walk: must not sleep. `ECHILD` has it asked again outside of
    /// RCU.
    ///
    /// The string must stay for a grace period after the inode is gone, which a field of
    /// [`FileSystem::InodeData`] does that is set once.
    fn get_link_rcu(_inode: RcuInode<'_, Self::FileSystem>) -> Result<&CStr> {
        Err(ECHILD)
    }

    /// A path walk of the current task goes on at `target`, which it has just got. Must not sleep.
    fn followed(_target: &[u8]) {}
}

pub(super) struct Callbacks<I>(PhantomData<I>);

impl<I: Operations> Callbacks<I> {
    /// # Safety
    ///
    /// Called by the VFS, with a path to an inode of `I::FileSystem`, and valid pointers.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        request: u32,
        flags: c_uint,
    ) -> c_int {
        // SAFETY: As the caller says. A path to an inode holds a reference to it.
        let (inode, mut stat) = unsafe {
            (
                Inode::from_raw((*(*path).dentry).d_inode),
                Stat::from_raw(stat, idmap, request),
            )
        };
        from_result(|| {
            I::getattr(inode, &mut stat, StatSync::from_raw(flags))?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of an inode of `I::FileSystem` that is locked, and valid pointers.
    unsafe extern "C" fn setattr(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> c_int {
        // SAFETY: As the caller says; a dentry in use holds a reference to its inode.
        let (inode, mut attrs) = unsafe {
            (
                Inode::from_raw((*dentry).d_inode),
                NewAttributes::from_raw(idmap, dentry, attr),
            )
        };
        from_result(|| {
            I::setattr(inode, &mut attrs)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode of `I::FileSystem`, to which there is a reference unless
    /// `mask` has `MAY_NOT_BLOCK`; the RCU read lock is held then.
    unsafe extern "C" fn permission(
        idmap: *mut bindings::mnt_idmap,
        inode: *mut bindings::inode,
        mask: c_int,
    ) -> c_int {
        const NOT_BLOCK: c_int = bindings::MAY_NOT_BLOCK as c_int;
        // SAFETY: As the caller says.
        let idmap = unsafe { Idmap::from_raw(idmap) };
        let access = AccessMask(mask & !NOT_BLOCK);
        from_result(|| {
            if mask & NOT_BLOCK == 0 {
                // SAFETY: As the caller says.
                I::permission(unsafe { Inode::from_raw(inode) }, idmap, access)?;
            } else {
                // SAFETY: As the caller says.
                let inode = unsafe { RcuInode::from_raw(inode) }.ok_or(ECHILD)?;
                I::permission_rcu(inode, idmap, access)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of an inode of `I::FileSystem`, and a buffer of `size` bytes
    /// or none.
    unsafe extern "C" fn listxattr(
        dentry: *mut bindings::dentry,
        buffer: *mut c_char,
        size: usize,
    ) -> isize {
        from_result(|| {
            // SAFETY: As the caller says; a dentry in use holds a reference to its inode.
            let (inode, mut names) = unsafe {
                (
                    Inode::from_raw((*dentry).d_inode),
                    xattr::Buffer::from_raw(buffer.cast(), size),
                )
            };
            I::listxattr(inode, &mut names)?;
            names.result()
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode of `I::FileSystem` that is no symbolic link, to which there is a reference unless `rcu`;
    /// the RCU read lock is held then.
    unsafe extern "C" fn get_inode_acl(
        inode: *mut bindings::inode,
        kind: c_int,
        rcu: bool,
    ) -> *mut bindings::posix_acl {
        // SAFETY: The inode is valid, and what this reads is set before it can be found.
        if unsafe { bindings::virtiofs_helper_acls_are_passive(inode) } {
            return ptr::null_mut();
        }
        if rcu {
            return ECHILD.to_ptr();
        }
        // SAFETY: As the caller says.
        let inode = unsafe { Inode::from_raw(inode) };
        match AclType::from_raw(kind).and_then(|kind| I::get_acl(inode, kind)) {
            Ok(acl) => Acl::into_raw(acl),
            Err(e) if e == EOPNOTSUPP => ptr::null_mut(),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of an inode of `I::FileSystem`.
    unsafe extern "C" fn get_acl(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        kind: c_int,
    ) -> *mut bindings::posix_acl {
        // SAFETY: As the caller says; a dentry in use holds a reference to its inode.
        let inode = unsafe { Inode::from_raw((*dentry).d_inode) };
        match AclType::from_raw(kind).and_then(|kind| I::get_acl(inode, kind)) {
            Ok(acl) => Acl::into_raw(acl),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of an inode of `I::FileSystem` that is locked, and an ACL or null.
    unsafe extern "C" fn set_acl(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        acl: *mut bindings::posix_acl,
        kind: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says; a dentry in use holds a reference to its inode. The VFS keeps the ACL for the call.
            let (idmap, inode, acl) = unsafe {
                (
                    Idmap::from_raw(idmap),
                    Inode::from_raw((*dentry).d_inode),
                    Acl::borrow(acl),
                )
            };
            I::set_acl(idmap, inode, AclType::from_raw(kind)?, (*acl).as_ref())?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry of an inode of `I::FileSystem`, and attributes that are the caller's alone.
    unsafe extern "C" fn fileattr_get(
        dentry: *mut bindings::dentry,
        attr: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says; a dentry in use holds a reference to its inode. CAST: `kernel` has the type
            // without its fields.
            let (inode, attr) = unsafe {
                (
                    Inode::from_raw((*dentry).d_inode),
                    &mut *attr.cast::<bindings::file_kattr>(),
                )
            };
            I::flags(inode, InodeFlags::from_raw(attr))?.to_raw(attr);
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`fileattr_get`](Self::fileattr_get), with an inode that is locked.
    unsafe extern "C" fn fileattr_set(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As above.
            let (inode, attr) = unsafe {
                (
                    Inode::from_raw((*dentry).d_inode),
                    &*attr.cast::<bindings::file_kattr>(),
                )
            };
            I::set_flags(inode, InodeFlags::from_raw(attr))?;
            Ok(0)
        })
    }

    pub(super) const VTABLE: bindings::inode_operations = bindings::inode_operations {
        setattr: if I::HAS_SETATTR {
            Some(Self::setattr)
        } else {
            None
        },
        getattr: if I::HAS_GETATTR {
            Some(Self::getattr)
        } else {
            None
        },
        permission: if I::HAS_PERMISSION {
            Some(Self::permission)
        } else {
            None
        },
        listxattr: if I::HAS_LISTXATTR {
            Some(Self::listxattr)
        } else {
            None
        },
        fileattr_get: if I::HAS_FLAGS {
            Some(Self::fileattr_get)
        } else {
            None
        },
        fileattr_set: if I::HAS_SET_FLAGS {
            Some(Self::fileattr_set)
        } else {
            None
        },
        get_inode_acl: if I::HAS_GET_ACL {
            Some(Self::get_inode_acl)
        } else {
            None
        },
        get_acl: if I::HAS_GET_ACL {
            Some(Self::get_acl)
        } else {
            None
        },
        set_acl: if I::HAS_SET_ACL {
            Some(Self::set_acl)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

impl<I: SymlinkOperations> Callbacks<I> {
    /// # Safety
    ///
    /// Called by the VFS, with an inode of `I::FileSystem`, to which there is a reference if there is
    /// a `dentry`; without, the RCU read lock is held.
    unsafe extern "C" fn get_link(
        dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        done: *mut bindings::delayed_call,
    ) -> *const c_char {
        let target = if dentry.is_null() {
            // SAFETY: As the caller says.
            unsafe { RcuInode::from_raw(inode) }
                .ok_or(ECHILD)
                .and_then(I::get_link_rcu)
                .map(Link::Borrowed)
        } else {
            // SAFETY: As the caller says.
            I::get_link(unsafe { Inode::from_raw(inode) })
        };
        if let Ok(target) = &target {
            I::followed(target.as_bytes());
        }
        match target {
            Ok(Link::Borrowed(text)) => text.as_char_ptr(),
            // A driver made it without `Link::new`.
            Ok(Link::Owned(text)) if text.last() != Some(&0) => EIO.to_ptr::<c_char>().cast_const(),
            Ok(Link::Owned(text)) => {
                let (text, _, _) = text.into_raw_parts();
                // SAFETY: `done` is valid. `kfree_link()` frees what `KVec` allocated.
                unsafe {
                    (*done).fn_ = Some(bindings::kfree_link);
                    (*done).arg = text.cast();
                }
                text.cast_const().cast()
            }
            Err(e) => e.to_ptr::<c_char>().cast_const(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a dentry in use of an inode of `I::FileSystem`.
    ///
    /// C: `vfs_readlink()`, which asks `get_link` where there is none of this: then a path walk cannot be told from readlink(2).
    unsafe extern "C" fn readlink(
        dentry: *mut bindings::dentry,
        buffer: *mut c_char,
        len: c_int,
    ) -> c_int {
        // SAFETY: As the caller says; a dentry in use holds a reference to its inode.
        let inode = unsafe { Inode::from_raw((*dentry).d_inode) };
        from_result(|| {
            let target = I::get_link(inode)?;
            let target = target.as_bytes();
            let len = target.len().min(usize::try_from(len)?);
            UserSlice::new(UserPtr::from_ptr(buffer.cast()), len)
                .writer()
                .write_slice(target.get(..len).ok_or(EIO)?)?;
            Ok(c_int::try_from(len)?)
        })
    }

    const SYMLINK: bindings::inode_operations = bindings::inode_operations {
        readlink: Some(Self::readlink),
        get_link: Some(Self::get_link),
        // Symbolic links have no ACLs.
        get_inode_acl: None,
        get_acl: None,
        set_acl: None,
        ..Self::VTABLE
    };
}

/// The table of inodes that are neither directories nor symbolic links.
pub(super) fn vtable<I: Operations>() -> *const bindings::inode_operations {
    &Callbacks::<I>::VTABLE
}

/// The table of symbolic links.
pub(super) fn symlink_vtable<I: SymlinkOperations>() -> *const bindings::inode_operations {
    &Callbacks::<I>::SYMLINK
}
