// SPDX-License-Identifier: GPL-2.0

//! A mount, submount or remount in preparation.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use crate::{
    filesystem::{
        FileSystem,
        Registration, //
    },
    super_block::{
        NewSuperBlock,
        SuperBlock,
        SuperData, //
    },
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    error::{
        from_err_ptr,
        from_result, //
    },
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    fmt,
    prelude::*,
    sync::Arc,
    types::{
        ForeignOwnable,
        Opaque, //
    },
};
use kernel_ext::bindings;

/// What a [`Context`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A mount.
    Mount,
    /// The mount of a part of a filesystem on itself, see
    /// [`dentry::Operations::automount`](crate::dentry::Operations::automount).
    Submount,
    /// A change of a superblock.
    Reconfigure,
}

/// A mount, submount or remount in preparation.
///
/// # Invariants
///
/// The context is one of the filesystem `T`: `fs_private` holds its options, and `s_fs_info` is null
/// or a reference to a [`FileSystem::Super`], given by [`Arc::into_raw`].
#[repr(transparent)]
pub struct Context<T: FileSystem>(Opaque<bindings::fs_context>, PhantomData<T>);

impl<T: FileSystem> Context<T> {
    /// # Safety
    ///
    /// `fc` meets the type invariants, and nobody else uses it for the duration of `'a`.
    unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a mut Self {
        // SAFETY: The layout is that of the C type; the rest is as the caller says.
        unsafe { &mut *fc.cast() }
    }

    fn as_raw(&self) -> *mut bindings::fs_context {
        self.0.get()
    }

    /// The options given.
    pub fn options(&self) -> &T::Options {
        // SAFETY: Valid by the type invariant; `&self` excludes changes.
        unsafe { <KBox<T::Options> as ForeignOwnable>::borrow((*self.as_raw()).fs_private) }
    }

    /// The options given, to change or to take.
    pub fn options_mut(&mut self) -> &mut T::Options {
        // SAFETY: Valid by the type invariant; `&mut self` excludes other users.
        unsafe { <KBox<T::Options> as ForeignOwnable>::borrow_mut((*self.as_raw()).fs_private) }
    }

    /// The source that the mount names.
    pub fn source(&self) -> Option<&CStr> {
        // SAFETY: The string belongs to the context, and changes only through `parse_param`.
        unsafe {
            let source = (*self.as_raw()).source;
            (!source.is_null()).then(|| CStr::from_char_ptr(source))
        }
    }

    /// What this is for.
    pub fn purpose(&self) -> Purpose {
        // SAFETY: Valid by the type invariant.
        match unsafe { (*self.as_raw()).purpose() } {
            bindings::fs_context_purpose_FS_CONTEXT_FOR_SUBMOUNT => Purpose::Submount,
            bindings::fs_context_purpose_FS_CONTEXT_FOR_RECONFIGURE => Purpose::Reconfigure,
            _ => Purpose::Mount,
        }
    }

    /// Whether it comes from `mount(2)`, which repeats at a remount all options it knows.
    pub fn is_old_api(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { (*self.as_raw()).oldapi() }
    }

    /// Tells whoever mounts what is wrong: in the context's log, or the kernel's with `mount(2)`.
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.log(b'e', message);
    }

    /// Warns whoever mounts.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.log(b'w', message);
    }

    fn log(&self, level: u8, message: fmt::Arguments<'_>) {
        // SAFETY: The log is valid by the type invariant; `%pA` takes a pointer to `Arguments`.
        unsafe {
            let fc = self.as_raw();
            bindings::logfc(
                (*fc).log.log,
                (*fc).log.prefix,
                level,
                c"%pA".as_char_ptr(),
                ptr::from_ref(&message).cast::<c_void>(),
            );
        }
    }

    /// Takes the superblock data that the context holds.
    fn take_super(&mut self) -> Option<Arc<SuperData<T>>> {
        // SAFETY: Valid by the type invariant.
        let slot = unsafe { &mut (*self.as_raw()).s_fs_info };
        let data = core::mem::replace(slot, ptr::null_mut());
        // SAFETY: A reference from `into_raw` by the type invariant, and now nowhere else.
        (!data.is_null()).then(|| unsafe { Arc::from_raw(data.cast_const().cast()) })
    }

    fn set_super(&mut self, data: Arc<T::Super>) -> Result {
        let data = SuperData::<T>::new(data)?;
        drop(self.take_super());
        // SAFETY: Valid by the type invariant.
        // INVARIANT: It is from `into_raw`.
        unsafe { (*self.as_raw()).s_fs_info = Arc::into_raw(data).cast_mut().cast() };
        Ok(())
    }
}

struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    /// # Safety
    ///
    /// Called by the VFS, for a context that [`init_fs_context_callback`] initialised.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: Initialised, and nobody uses it any more.
        let context = unsafe { Context::<T>::from_raw(fc) };
        drop(context.take_super());
        // SAFETY: From `into_foreign`, and not used after this.
        drop(unsafe { <KBox<T::Options> as ForeignOwnable>::from_foreign((*fc).fs_private) });
    }

    /// # Safety
    ///
    /// Called by the VFS, for a context that [`init_fs_context_callback`] initialised.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: Initialised, and the VFS serialises its users.
        let context = unsafe { Context::<T>::from_raw(fc) };
        from_result(|| {
            // SAFETY: These are the arguments of a `parse_param` call.
            unsafe { T::PARAMETERS.parse(fc, param, context.options_mut()) }?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with superblocks of `T` and the context that is given to `sget_fc()`, with
    /// `sb_lock` held.
    unsafe extern "C" fn test(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        // SAFETY: The superblock's data is set together with its type, and is not dropped before the
        // VFS has stopped to call this for it. The context's data has been set by `get_tree`.
        let (existing, candidate) = unsafe {
            (
                &*(*sb).s_fs_info.cast_const().cast::<SuperData<T>>(),
                &*(*fc).s_fs_info.cast_const().cast::<SuperData<T>>(),
            )
        };
        T::same(&existing.data, &candidate.data).into()
    }

    /// # Safety
    ///
    /// Called by the VFS, for a context that [`init_fs_context_callback`] initialised.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: Initialised, and the VFS serialises its users.
        let context = unsafe { Context::<T>::from_raw(fc) };
        from_result(|| {
            let test: Option<unsafe extern "C" fn(_, _) -> _> =
                if context.purpose() == Purpose::Submount {
                    None
                } else {
                    let data = T::prepare(context)?;
                    context.set_super(data)?;
                    if T::HAS_SAME {
                        Some(Self::test)
                    } else {
                        None
                    }
                };
            // SAFETY: `fc` is valid and has superblock data: set above, or by `submount`, which is
            // the only way to get a submount context to here.
            let sb = from_err_ptr(unsafe {
                bindings::sget_fc(fc, test, Some(bindings::set_anon_super_fc))
            })?;
            // SAFETY: `sget_fc()` returns a valid superblock with `s_umount` held and a reference
            // for us. Without a root, it is new, and the context's data has moved to it.
            unsafe {
                if (*sb).s_root.is_null() {
                    if let Err(e) = Self::fill(sb, context) {
                        bindings::deactivate_locked_super(sb);
                        return Err(e);
                    }
                    (*sb).s_flags |= bindings::SB_ACTIVE;
                }
                (*fc).root = bindings::dget((*sb).s_root);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `sb` is a new superblock of `T`, which has its data; `s_umount` is held.
    unsafe fn fill(sb: *mut bindings::super_block, context: &mut Context<T>) -> Result {
        // SAFETY: As the caller says.
        let new = unsafe { NewSuperBlock::<T>::init(sb) };
        let root = T::fill_super(new, context)?;
        let root = root.hand_over(new)?;
        // SAFETY: `d_make_root()` takes over the reference; `sb` is valid.
        unsafe {
            (*sb).s_root = bindings::d_make_root(root);
            if (*sb).s_root.is_null() {
                // Without a root the VFS does not do it.
                if T::HAS_PUT_SUPER {
                    T::put_super(SuperBlock::from_raw(sb));
                }
                return Err(ENOMEM);
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// Called by the VFS, for a context that [`init_fs_context_callback`] initialised, whose root is
    /// one of `T`.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: Initialised, and the VFS serialises its users.
        let context = unsafe { Context::<T>::from_raw(fc) };
        // SAFETY: A reconfiguration has a root, whose superblock is one of `T` and filled.
        let sb = unsafe { SuperBlock::from_raw((*(*fc).root).d_sb) };
        // As for a mount: the VFS takes over what is left of the flags afterwards.
        // SAFETY: Initialised, and ours until this returns.
        unsafe { (*fc).sb_flags &= !(bindings::SB_I_VERSION as c_uint) };
        from_result(|| {
            T::reconfigure(sb, context)?;
            Ok(0)
        })
    }

    const VTABLE: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: if T::HAS_RECONFIGURE {
            Some(Self::reconfigure)
        } else {
            None
        },
    };
}

/// # Safety
///
/// Called by the VFS, for a new context of the filesystem type of a `Registration<T>`.
pub(crate) unsafe extern "C" fn init_fs_context_callback<T: FileSystem>(
    fc: *mut kernel::bindings::fs_context,
) -> c_int {
    // CAST: The `kernel` crate has the type without its fields.
    let fc = fc.cast::<bindings::fs_context>();
    from_result(|| {
        let options = KBox::new(T::Options::default(), GFP_KERNEL)?;
        // SAFETY: The context is valid and nobody else uses it yet.
        // INVARIANT: `fs_private` is set; `s_fs_info` of a new context is null.
        unsafe {
            (*fc).fs_private = options.into_foreign();
            (*fc).ops = &Callbacks::<T>::VTABLE;
        }
        Ok(0)
    })
}

/// Makes a mount of a new superblock with `data`, to be mounted on `reference`.
///
/// # Safety
///
/// `reference` is a valid dentry of a superblock of `T`.
pub(crate) unsafe fn submount<T: FileSystem>(
    reference: *mut bindings::dentry,
    data: Arc<T::Super>,
) -> Result<*mut bindings::vfsmount> {
    // SAFETY: The dentry, its superblock and the superblock's registration are valid.
    let fc = from_err_ptr(unsafe {
        let registration = Registration::<T>::of_super((*reference).d_sb);
        bindings::fs_context_for_submount(registration.as_raw(), reference)
    })?;
    // SAFETY: A new context of `T`, used by us only.
    let set = unsafe { Context::<T>::from_raw(fc) }.set_super(data);
    // SAFETY: The context is valid, and is mounted if it has its data; it is ours to put.
    unsafe {
        let mount = set.and_then(|()| from_err_ptr(bindings::fc_mount(fc.cast())));
        bindings::put_fs_context(fc.cast());
        mount
    }
}
