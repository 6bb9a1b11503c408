// SPDX-License-Identifier: GPL-2.0

//! Inode operations of directories: names are looked up, made, moved and removed.

use super::{
    operations::Callbacks,
    Inode,
    InodeRef,
    Operations, //
};
use crate::{
    attr::FileType,
    cred::Idmap,
    dentry::{
        DentryRef,
        LookupDentry,
        LookupFlags,
        NamedDentry, //
    },
    file::{
        self,
        NewFile, //
    },
    filesystem::FileSystem, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    build_error,
    error::{
        from_err_ptr,
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    prelude::*,
    types::ForeignOwnable, //
};
use kernel_ext::bindings;

/// How a rename differs from the plain one (`RENAME_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenameFlags(u32);

impl RenameFlags {
    const KNOWN: u32 =
        bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE | bindings::RENAME_WHITEOUT;

    /// As `renameat2(2)` has them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether both names are there afterwards, and have changed places.
    pub const fn exchange(self) -> bool {
        self.0 & bindings::RENAME_EXCHANGE != 0
    }

    /// Whether a whiteout is left at the old name, which makes a new inode.
    pub const fn whiteout(self) -> bool {
        self.0 & bindings::RENAME_WHITEOUT != 0
    }
}

/// How a file is to be opened that may have to be made first.
pub struct OpenRequest<'a> {
    flags: u32,
    permissions: u16,
    idmap: &'a Idmap,
}

impl OpenRequest<'_> {
    /// The flags of `open(2)`.
    ///
    /// The VFS has taken `O_CREAT` away from who may not make files here, and `O_TRUNC` where it means nothing.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether the file is to be made if there is none.
    pub fn creates(&self) -> bool {
        self.flags & bindings::O_CREAT != 0
    }

    /// Whether there must be none.
    pub fn exclusive(&self) -> bool {
        self.flags & bindings::O_EXCL != 0
    }

    /// Permission, set-id and sticky bits of a new file.
    pub fn permissions(&self) -> u16 {
        self.permissions
    }

    /// How the mount maps ids.
    pub fn idmap(&self) -> &Idmap {
        self.idmap
    }
}

/// A new inode, and the data of an open file of it.
pub type OpenInode<T> = (InodeRef<T>, <T as FileSystem>::FileData);

/// What [`DirectoryOperations::atomic_open`] came up with.
pub enum Opened<T: FileSystem> {
    /// Nothing was made: this is what the name is. If it is something, the VFS checks permissions and opens it.
    Found(Option<InodeRef<T>>),
    /// It was made; the VFS opens it without checking permissions.
    Created(InodeRef<T>),
    /// It was made as a regular file, and is open.
    CreatedAndOpened(InodeRef<T>, T::FileData),
}

/// What the VFS asks of directories.
#[vtable]
pub trait DirectoryOperations: Operations {
    /// Finds what [`dentry.name()`](LookupDentry::name) is in `dir`: [`None`] when there is nothing.
    ///
    /// Both answers are cached in the dentry, for which
    /// [`dentry::Operations::revalidate`](crate::dentry::Operations::revalidate) is asked when it
    /// is used again. What the driver stores in `dentry` is kept with it. When the inode is a
    /// directory that has another name already, the dentry of that name moves here.
    ///
    /// May sleep; `i_rwsem` of `dir` is held at least shared: lookups of other names run in
    /// parallel, of the same name do not. Errors: `ENAMETOOLONG`, and what the filesystem says;
    /// `ELOOP` from the VFS when a directory turned up below itself.
    ///
    /// C: `lookup()`, ended by `d_splice_alias()`.
    fn lookup(
        dir: &Inode<Self::FileSystem>,
        dentry: &LookupDentry<Self::FileSystem>,
        flags: LookupFlags,
    ) -> Result<Option<InodeRef<Self::FileSystem>>>;

    /// Makes a file of any type but directory and symbolic link.
    ///
    /// `rdev` is the number of a device, in the encoding that user space has. The VFS has checked permissions, and applied the
    /// umask unless [`set_no_umask`](crate::NewSuperBlock::set_no_umask) or POSIX ACLs leave it to the filesystem. What the
    /// driver stores in `dentry` is kept with it.
    ///
    /// May sleep; `i_rwsem` of `dir` is held. On error the name is looked up anew when it is wanted. Without it, `EPERM`.
    ///
    /// C: `mknod()` and `create()`, ended by `d_splice_alias()`.
    fn mknod(
        _idmap: &Idmap,
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
        _file_type: FileType,
        _permissions: u16,
        _rdev: u32,
    ) -> Result<InodeRef<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a directory; otherwise as [`mknod`](DirectoryOperations::mknod).
    fn mkdir(
        _idmap: &Idmap,
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
        _permissions: u16,
    ) -> Result<InodeRef<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a symbolic link; otherwise as [`mknod`](DirectoryOperations::mknod).
    fn symlink(
        _idmap: &Idmap,
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
        _target: &CStr,
    ) -> Result<InodeRef<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Gives `inode` one more name, and returns what has the name now.
    ///
    /// May sleep; `i_rwsem` of `dir` and of `inode` are held. Otherwise as [`mknod`](DirectoryOperations::mknod).
    fn link(
        _inode: &InodeRef<Self::FileSystem>,
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
    ) -> Result<InodeRef<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes a name of something that is not a directory.
    ///
    /// May sleep; `i_rwsem` of `dir` and of the inode are held. The VFS turns the dentry negative or forgets it. Without it,
    /// `EPERM`.
    fn unlink(_dir: &Inode<Self::FileSystem>, _dentry: &NamedDentry<Self::FileSystem>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes an empty directory; otherwise as [`unlink`](DirectoryOperations::unlink).
    fn rmdir(_dir: &Inode<Self::FileSystem>, _dentry: &NamedDentry<Self::FileSystem>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Moves the name `old` to `new`, in place of what is there, or exchanges both.
    ///
    /// May sleep; `i_rwsem` of both directories is held, and of what `old` and `new` are unless these are directories that
    /// stay in their own. The VFS moves the dentries. Without it, `EPERM`.
    fn rename(
        _idmap: &Idmap,
        _old_dir: &Inode<Self::FileSystem>,
        _old: &NamedDentry<Self::FileSystem>,
        _new_dir: &Inode<Self::FileSystem>,
        _new: &NamedDentry<Self::FileSystem>,
        _flags: RenameFlags,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Looks a name up that is to be opened, and makes it at once if that is asked for and there is nothing.
    ///
    /// `dentry` is one that is being looked up, or one that was known to be nothing. What the driver stores in it is kept.
    ///
    /// May sleep; `i_rwsem` of `dir` is held, shared if nothing is to be made. Without it,
    /// [`lookup`](DirectoryOperations::lookup), [`mknod`](DirectoryOperations::mknod) and
    /// [`file::Operations::open`](crate::file::Operations::open) follow each other.
    fn atomic_open(
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
        _request: &OpenRequest<'_>,
    ) -> Result<Opened<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a regular file without a name, and opens it. What `dentry` has as its name is none.
    ///
    /// May sleep; no lock is held. Without it, `EOPNOTSUPP`.
    ///
    /// C: `tmpfile()`, ended by `d_instantiate()` and `finish_open()`.
    fn tmpfile(
        _dir: &Inode<Self::FileSystem>,
        _dentry: &LookupDentry<Self::FileSystem>,
        _request: &OpenRequest<'_>,
    ) -> Result<OpenInode<Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A regular file is being opened with data from [`atomic_open`](DirectoryOperations::atomic_open) or
    /// [`tmpfile`](DirectoryOperations::tmpfile): what [`file::Operations::open`](crate::file::Operations::open) would do to
    /// `file`.
    ///
    /// May sleep. Should the opening fail later, [`file::Operations::release`](crate::file::Operations::release) gets the data.
    fn finish_open(
        _inode: &Inode<Self::FileSystem>,
        _file: &mut NewFile<Self::FileSystem>,
        _data: file::Borrowed<'_, Self::FileSystem>,
    ) {
    }
}

/// Gives a dentry that is being looked up its inode, or none. If the inode is a directory that has another name already, the
/// dentry of that name moves here, and is returned: what the driver stored in `new` moves to it.
///
/// C: `d_splice_alias()`.
pub(crate) fn splice<'a, T: FileSystem>(
    new: &'a LookupDentry<T>,
    inode: Option<InodeRef<T>>,
) -> Result<Option<DentryRef<'a, T>>> {
    let inode = match inode {
        Some(inode) => inode.hand_over(new.super_block())?,
        None => ptr::null_mut(),
    };
    // SAFETY: The dentry is not hashed and has no inode by its type invariant. The reference to the inode is handed over.
    let alias = from_err_ptr(unsafe { bindings::d_splice_alias(inode, new.as_raw()) })?;
    let Some(alias) = NonNull::new(alias) else {
        return Ok(None);
    };
    // SAFETY: A dentry of the same superblock, to which we have got a reference.
    let alias: DentryRef<'a, T> = unsafe { DentryRef::from_raw(alias) };
    alias.set_time(new.time());
    alias.set_cookie(new.cookie());
    Ok(Some(alias))
}

/// Lets `make` make what `dentry` is to be the name of.
///
/// # Safety
///
/// `dentry` is one without an inode, in a directory whose `i_rwsem` is held exclusively, or in lookup, for the duration of `'a`.
unsafe fn make<'a, T: FileSystem>(
    dentry: *mut bindings::dentry,
    make: impl FnOnce(&LookupDentry<T>) -> Result<InodeRef<T>>,
) -> Result<Option<DentryRef<'a, T>>> {
    // SAFETY: A valid dentry. What was known of the name ends here, whatever comes of it; nobody can look it up meanwhile. It
    // has no inode, and is not hashed any more.
    let new = unsafe {
        bindings::d_drop(dentry);
        LookupDentry::from_raw(dentry)
    };
    let inode = make(new)?;
    splice(new, Some(inode))
}

/// The permission, set-id and sticky bits of `mode`.
const fn permissions(mode: bindings::umode_t) -> u16 {
    mode & !(bindings::S_IFMT as u16)
}

/// Flags of `open(2)` without those that the kernel has for itself.
const fn user_flags(flags: c_uint) -> u32 {
    flags & !bindings::__O_REGULAR
}

impl<I: DirectoryOperations> Callbacks<I> {
    /// # Safety
    ///
    /// Called by the VFS, with a directory of `I::FileSystem` whose `i_rwsem` is held, and a dentry
    /// in it that is not hashed and has no inode.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        flags: c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: As the caller says.
        let (inode, new) = unsafe { (Inode::from_raw(dir), LookupDentry::from_raw(dentry)) };
        let alias = I::lookup(inode, new, LookupFlags::from_raw(flags))
            .and_then(|found| splice(new, found));
        match alias {
            Ok(alias) => into_raw(alias),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a directory of `I::FileSystem` whose `i_rwsem` is held exclusively, and a dentry in it that has
    /// no inode.
    unsafe extern "C" fn mknod(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
        dev: bindings::dev_t,
    ) -> c_int {
        from_result(|| {
            let file_type = FileType::from_mode(mode.into()).unwrap_or(FileType::Regular);
            // SAFETY: As the caller says.
            unsafe {
                let (idmap, dir) = (Idmap::from_raw(idmap), Inode::from_raw(dir));
                let rdev = bindings::new_encode_dev(dev);
                make(dentry, |new| {
                    I::mknod(idmap, dir, new, file_type, permissions(mode), rdev)
                })?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`mknod`](Self::mknod).
    unsafe extern "C" fn create(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> c_int {
        let mode = permissions(mode) | FileType::Regular.mode();
        // SAFETY: As the caller says.
        unsafe { Self::mknod(idmap, dir, dentry, mode, 0) }
    }

    /// # Safety
    ///
    /// As for [`mknod`](Self::mknod).
    unsafe extern "C" fn mkdir(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> *mut bindings::dentry {
        // SAFETY: As the caller says.
        let alias = unsafe {
            let (idmap, dir) = (Idmap::from_raw(idmap), Inode::from_raw(dir));
            make(dentry, |new| I::mkdir(idmap, dir, new, permissions(mode)))
        };
        match alias {
            Ok(alias) => into_raw(alias),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// As for [`mknod`](Self::mknod), and with a string.
    unsafe extern "C" fn symlink(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        target: *const c_char,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            unsafe {
                let (idmap, dir) = (Idmap::from_raw(idmap), Inode::from_raw(dir));
                let target = CStr::from_char_ptr(target);
                make(dentry, |new| I::symlink(idmap, dir, new, target))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`mknod`](Self::mknod), and with a dentry of another inode of `I::FileSystem`.
    unsafe extern "C" fn link(
        old: *mut bindings::dentry,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says; a dentry in use keeps its inode.
            unsafe {
                let inode = NonNull::new((*old).d_inode).ok_or(ENOENT)?;
                let (inode, dir) = (InodeRef::lend(inode), Inode::from_raw(dir));
                make(dentry, |new| I::link(&inode, dir, new))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a directory of `I::FileSystem` whose `i_rwsem` is held exclusively, and a dentry in it that has
    /// an inode.
    unsafe extern "C" fn unlink(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let (dir, name) = unsafe { (Inode::from_raw(dir), NamedDentry::from_raw(dentry)) };
            I::unlink(dir, name)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`unlink`](Self::unlink).
    unsafe extern "C" fn rmdir(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let (dir, name) = unsafe { (Inode::from_raw(dir), NamedDentry::from_raw(dentry)) };
            I::rmdir(dir, name)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with two directories of `I::FileSystem` whose `i_rwsem` is held exclusively, and a dentry in each of
    /// them.
    unsafe extern "C" fn rename(
        idmap: *mut bindings::mnt_idmap,
        old_dir: *mut bindings::inode,
        old: *mut bindings::dentry,
        new_dir: *mut bindings::inode,
        new: *mut bindings::dentry,
        flags: c_uint,
    ) -> c_int {
        from_result(|| {
            if flags & !RenameFlags::KNOWN != 0 {
                return Err(EINVAL);
            }
            // SAFETY: As the caller says.
            let (idmap, old_dir, old, new_dir, new) = unsafe {
                (
                    Idmap::from_raw(idmap),
                    Inode::from_raw(old_dir),
                    NamedDentry::from_raw(old),
                    Inode::from_raw(new_dir),
                    NamedDentry::from_raw(new),
                )
            };
            I::rename(idmap, old_dir, old, new_dir, new, RenameFlags(flags))?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a directory of `I::FileSystem` whose `i_rwsem` is held, exclusively with `O_CREAT`, a dentry in
    /// it that has no inode, and a file that is not opened and has a mount.
    unsafe extern "C" fn atomic_open(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        file: *mut bindings::file,
        flags: c_uint,
        mode: bindings::umode_t,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let request = unsafe {
                OpenRequest {
                    flags: user_flags(flags),
                    permissions: permissions(mode),
                    idmap: Idmap::from_raw(bindings::file_mnt_idmap(file)),
                }
            };
            // SAFETY: The dentry is valid.
            if unsafe { bindings::d_in_lookup(dentry) } == 0 {
                if !request.creates() {
                    // SAFETY: The file is valid. The dentry stays what it is: nothing.
                    return Ok(unsafe { bindings::finish_no_open(file, ptr::null_mut()) });
                }
                // SAFETY: The dentry is valid, and nobody can look the name up meanwhile.
                unsafe { bindings::d_drop(dentry) };
            }
            // SAFETY: As the caller says. The dentry has no inode and is not hashed.
            let (dir, new) = unsafe { (Inode::from_raw(dir), LookupDentry::from_raw(dentry)) };
            let opened = I::atomic_open(dir, new, &request)?;
            let created = !matches!(opened, Opened::Found(_));
            let (inode, data) = match opened {
                Opened::Found(inode) => (inode, None),
                Opened::Created(inode) => (Some(inode), None),
                Opened::CreatedAndOpened(inode, data) => (Some(inode), Some(data)),
            };
            if let (Some(inode), Some(_)) = (&inode, &data) {
                if inode.file_type() != FileType::Regular {
                    // What is behind its files is something else; and of a directory the dentry may get none, as another has it.
                    return Err(EIO);
                }
            }
            let alias = splice(new, inode)?;
            if created {
                // SAFETY: The file is valid and ours.
                unsafe { (*file).f_mode |= bindings::FMODE_CREATED };
            }
            match data {
                // SAFETY: As the caller says. The dentry has an inode now, and none but a directory gets another.
                Some(data) => unsafe { Self::open_with(file, dentry, data) }?,
                // SAFETY: The file is valid. The reference to the alias is handed over.
                None => to_result(unsafe { bindings::finish_no_open(file, into_raw(alias)) })?,
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with a directory of `I::FileSystem`, and a file that is not opened and has a path, whose dentry is
    /// neither hashed nor has an inode.
    unsafe extern "C" fn tmpfile(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: bindings::umode_t,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let (dir, request, dentry) = unsafe {
                let request = OpenRequest {
                    flags: user_flags((*file).f_flags),
                    permissions: permissions(mode),
                    idmap: Idmap::from_raw(idmap),
                };
                let dentry = (*file).__bindgen_anon_1.f_path.dentry;
                (Inode::from_raw(dir), request, dentry)
            };
            // SAFETY: The dentry was made for this file: it is not hashed and has no inode.
            let new = unsafe { LookupDentry::from_raw(dentry) };
            let (inode, data) = I::tmpfile(dir, new, &request)?;
            if inode.file_type() != FileType::Regular {
                // A directory has one name at most, and what is behind files of others is something else.
                return Err(EIO);
            }
            let inode = inode.hand_over(new.super_block())?;
            // SAFETY: The dentry is valid, without an inode, and used by nobody else. The reference is handed over. The file is
            // valid and not opened.
            unsafe {
                bindings::d_instantiate(dentry, inode);
                Self::open_with(file, dentry, data)?;
            }
            Ok(0)
        })
    }

    /// Opens a file with the filesystem's data of it.
    ///
    /// # Safety
    ///
    /// `file` is valid and not opened, `dentry` one of `I::FileSystem` that has an inode.
    unsafe fn open_with(
        file: *mut bindings::file,
        dentry: *mut bindings::dentry,
        data: <I::FileSystem as FileSystem>::FileData,
    ) -> Result {
        // SAFETY: As the caller says; a dentry in use keeps its inode.
        let inode = unsafe { Inode::<I::FileSystem>::from_raw((*dentry).d_inode) };
        if inode.file_type() != FileType::Regular {
            // What is behind its files is something else.
            return Err(EIO);
        }
        // SAFETY: The file is valid, and the field is left to the filesystem.
        // INVARIANT: `File` requires this.
        unsafe { (*file).private_data = data.into_foreign() };
        // SAFETY: All are valid, and the file is not opened.
        let opened = unsafe {
            to_result(bindings::generic_file_open(inode.as_raw(), file))
                .and_then(|()| to_result(bindings::finish_open(file, dentry, Some(Self::opened))))
        };
        // SAFETY: The file is valid and ours. When it is not opened, nobody else releases it; the operations of a regular file
        // of this filesystem have a `release`, which takes the data.
        unsafe {
            if opened.is_err() && (*file).f_mode & bindings::FMODE_OPENED == 0 {
                if let Some(release) = (*(*inode.as_raw()).__bindgen_anon_3.i_fop).release {
                    release(inode.as_raw(), file);
                }
                (*file).private_data = ptr::null_mut();
            }
        }
        opened
    }

    /// # Safety
    ///
    /// Called by `finish_open()`, with a regular file of `I::FileSystem` that is being opened and has its data.
    unsafe extern "C" fn opened(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: As the caller says.
        unsafe {
            let data = <I::FileSystem as FileSystem>::FileData::borrow((*file).private_data);
            let new = &mut *file.cast::<NewFile<I::FileSystem>>();
            I::finish_open(Inode::from_raw(inode), new, data);
        }
        0
    }

    const DIRECTORY: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(Self::lookup),
        create: if I::HAS_MKNOD {
            Some(Self::create)
        } else {
            None
        },
        mknod: if I::HAS_MKNOD {
            Some(Self::mknod)
        } else {
            None
        },
        mkdir: if I::HAS_MKDIR {
            Some(Self::mkdir)
        } else {
            None
        },
        symlink: if I::HAS_SYMLINK {
            Some(Self::symlink)
        } else {
            None
        },
        link: if I::HAS_LINK { Some(Self::link) } else { None },
        unlink: if I::HAS_UNLINK {
            Some(Self::unlink)
        } else {
            None
        },
        rmdir: if I::HAS_RMDIR {
            Some(Self::rmdir)
        } else {
            None
        },
        rename: if I::HAS_RENAME {
            Some(Self::rename)
        } else {
            None
        },
        atomic_open: if I::HAS_ATOMIC_OPEN {
            Some(Self::atomic_open)
        } else {
            None
        },
        tmpfile: if I::HAS_TMPFILE {
            Some(Self::tmpfile)
        } else {
            None
        },
        ..Self::VTABLE
    };
}

/// A dentry to be handed over with its reference, or null.
fn into_raw<T: FileSystem>(dentry: Option<DentryRef<'_, T>>) -> *mut bindings::dentry {
    match dentry {
        Some(dentry) => dentry.into_raw(),
        None => ptr::null_mut(),
    }
}

/// The table of directories.
pub(super) fn vtable<I: DirectoryOperations>() -> *const bindings::inode_operations {
    &Callbacks::<I>::DIRECTORY
}
