// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)

use crate::{
    filesystem::FileSystem,
    inode::Inode, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
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
        c_void, //
    },
    prelude::*, //
};
use kernel_ext::bindings;

/// Where a value or a list of names goes.
///
/// The caller may have no buffer, to learn the size only.
pub struct Buffer<'a> {
    buffer: Option<&'a mut [MaybeUninit<u8>]>,
    len: usize,
}

impl<'a> Buffer<'a> {
    /// # Safety
    ///
    /// `buffer` is valid for writes of `size` bytes for the duration of `'a`, or `size` is 0.
    pub(crate) unsafe fn from_raw(buffer: *mut MaybeUninit<u8>, size: usize) -> Self {
        let buffer = if size == 0 || buffer.is_null() {
            None
        } else {
            // SAFETY: As the caller says.
            Some(unsafe { core::slice::from_raw_parts_mut(buffer, size) })
        };
        Self { buffer, len: 0 }
    }

    /// How many bytes the caller has room for; [`None`] when only the size is wanted.
    pub fn capacity(&self) -> Option<usize> {
        self.buffer.as_ref().map(|buffer| buffer.len())
    }

    /// Appends bytes. Errors: `ERANGE` when there is no room for them.
    pub fn push(&mut self, bytes: &[u8]) -> Result {
        let end = self.len.checked_add(bytes.len()).ok_or(ERANGE)?;
        if let Some(buffer) = self.buffer.as_mut() {
            let to = buffer.get_mut(self.len..end).ok_or(ERANGE)?;
            // SAFETY: Both have the same length; the buffer is borrowed mutably.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_mut_ptr().cast(), bytes.len());
            }
        }
        self.len = end;
        Ok(())
    }

    /// Appends `len` bytes that are not at hand, when only the size is wanted.
    ///
    /// Errors: `EINVAL` when there is a buffer.
    pub fn push_size(&mut self, len: usize) -> Result {
        if self.buffer.is_some() {
            return Err(EINVAL);
        }
        self.len = self.len.checked_add(len).ok_or(ERANGE)?;
        Ok(())
    }

    /// The number of bytes, as C has it.
    pub(crate) fn result(&self) -> Result<isize> {
        isize::try_from(self.len).map_err(|_| E2BIG)
    }
}

/// Whether there may be a value already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Or not.
    Any,
    /// There must be none (`XATTR_CREATE`).
    Create,
    /// There must be one (`XATTR_REPLACE`).
    Replace,
    /// Both, so that it fails either way, each with its error.
    CreateAndReplace,
}

impl SetMode {
    const BOTH: u32 = bindings::XATTR_CREATE | bindings::XATTR_REPLACE;

    fn from_raw(flags: c_int) -> Result<Self> {
        match u32::try_from(flags)? {
            0 => Ok(Self::Any),
            bindings::XATTR_CREATE => Ok(Self::Create),
            bindings::XATTR_REPLACE => Ok(Self::Replace),
            Self::BOTH => Ok(Self::CreateAndReplace),
            _ => Err(EINVAL),
        }
    }

    /// As `setxattr(2)` has it.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Create => bindings::XATTR_CREATE,
            Self::Replace => bindings::XATTR_REPLACE,
            Self::CreateAndReplace => Self::BOTH,
        }
    }
}

/// A handler of the extended attributes whose names begin with a prefix.
#[vtable]
pub trait Handler: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// The prefix, with its dot. An empty one is for all names that no handler before it is for.
    const PREFIX: &'static CStr;

    /// Whether there can be attributes. If not, getting one ends with `EOPNOTSUPP` before its name is looked at: write(2) and the
    /// like ask for `security.capability` each time.
    fn may_exist(_inode: &Inode<Self::FileSystem>) -> bool {
        true
    }

    /// Gets the value of the attribute `name`, the full one.
    ///
    /// May sleep; `i_rwsem` is held or not. Errors: `ENODATA` when there is none, `ERANGE`.
    fn get(inode: &Inode<Self::FileSystem>, name: &CStr, value: &mut Buffer<'_>) -> Result;

    /// Gives the attribute `name`, the full one, a value.
    ///
    /// May sleep; `i_rwsem` of the inode is held. Errors: `EEXIST` and `ENODATA`, as `how` has it. Without it, attributes can
    /// not be changed (`EOPNOTSUPP`).
    fn set(_inode: &Inode<Self::FileSystem>, _name: &CStr, _value: &[u8], _how: SetMode) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Takes the attribute `name`, the full one, away.
    ///
    /// May sleep; `i_rwsem` of the inode is held. Errors: `ENODATA` when there is none.
    fn remove(_inode: &Inode<Self::FileSystem>, _name: &CStr) -> Result {
        Err(EOPNOTSUPP)
    }
}

struct Callbacks<H>(PhantomData<H>);

impl<H: Handler> Callbacks<H> {
    /// # Safety
    ///
    /// Called by the VFS, with [`HANDLER`](Self::HANDLER), an inode of `H::FileSystem`, the part of
    /// the name behind the prefix, and a buffer of `size` bytes.
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let inode = unsafe { Inode::from_raw(inode) };
            if !H::may_exist(inode) {
                return Err(EOPNOTSUPP);
            }
            // SAFETY: As the caller says.
            let (name, mut value) = unsafe {
                (
                    CStr::from_char_ptr(bindings::xattr_full_name(handler, name)),
                    Buffer::from_raw(buffer.cast(), size),
                )
            };
            H::get(inode, name, &mut value)?;
            c_int::try_from(value.result()?).map_err(|_| E2BIG)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS, with [`HANDLER`](Self::HANDLER), an inode of `H::FileSystem`, the part of
    /// the name behind the prefix, and a value of `size` bytes, or null to remove it.
    unsafe extern "C" fn set(
        handler: *const bindings::xattr_handler,
        _idmap: *mut bindings::mnt_idmap,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        value: *const c_void,
        size: usize,
        flags: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says.
            let (inode, name) = unsafe {
                (
                    Inode::from_raw(inode),
                    CStr::from_char_ptr(bindings::xattr_full_name(handler, name)),
                )
            };
            if value.is_null() {
                H::remove(inode, name)?;
            } else {
                // SAFETY: As the caller says.
                let value = unsafe { core::slice::from_raw_parts(value.cast(), size) };
                H::set(inode, name, value, SetMode::from_raw(flags)?)?;
            }
            Ok(0)
        })
    }

    const HANDLER: bindings::xattr_handler = bindings::xattr_handler {
        prefix: H::PREFIX.to_bytes_with_nul().as_ptr().cast(),
        get: Some(Self::get),
        set: if H::HAS_SET { Some(Self::set) } else { None },
        ..pin_init::zeroed()
    };
}

/// A tuple of [`Handler`]s, asked in this order.
pub trait Handlers<T: FileSystem> {
    #[doc(hidden)]
    fn table() -> *const *const bindings::xattr_handler;
}

impl<T: FileSystem> Handlers<T> for () {
    fn table() -> *const *const bindings::xattr_handler {
        ptr::null()
    }
}

macro_rules! impl_handlers {
    ($len:literal, $($h:ident),*) => {
        impl<T: FileSystem, $($h: Handler<FileSystem = T>),*> Handlers<T> for ($($h,)*) {
            fn table() -> *const *const bindings::xattr_handler {
                struct Table<$($h),*>(PhantomData<($($h,)*)>);

                impl<$($h: Handler),*> Table<$($h),*> {
                    const TABLE: [*const bindings::xattr_handler; $len] =
                        [$(&Callbacks::<$h>::HANDLER,)* ptr::null()];
                }

                const { (&raw const *(&Table::<$($h),*>::TABLE)).cast() }
            }
        }
    };
}

impl_handlers!(2, A);
impl_handlers!(3, A, B);
impl_handlers!(4, A, B, C);
