// SPDX-License-Identifier: GPL-2.0

//! Security context of an inode that is to be made, from the kernel's security module.
//!
//! C header: [`include/linux/security.h`](srctree/include/linux/security.h)

use crate::{
    attr::FileType,
    dentry::LookupDentry,
    filesystem::FileSystem, //
};
use core::ptr;
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*, //
};
use kernel_ext::bindings;

/// The security context of a new inode: the value that an extended attribute of it is to have from the start.
///
/// # Invariants
///
/// `context` is what the security module gave, and not released yet; `name` is not null, and a static string.
pub struct NewContext {
    name: *const kernel::ffi::c_char,
    context: bindings::lsm_context,
}

impl NewContext {
    /// Asks for the context of what is to be made as `dentry`; [`None`] if there is no module that gives one.
    ///
    /// May sleep; `i_rwsem` of the directory is held, or the dentry is that of a file without a name. Errors: those of the
    /// module, which refuses to have the inode made.
    ///
    /// C: `security_dentry_init_security()`.
    pub fn of<T: FileSystem>(
        dentry: &LookupDentry<T>,
        file_type: FileType,
        permissions: u16,
    ) -> Result<Option<Self>> {
        let mode = c_int::from(file_type.mode() | permissions);
        let mut name = ptr::null();
        let mut context = bindings::lsm_context::default();
        // SAFETY: The dentry is valid, and its name does not change. The module fills in name and context.
        let asked = to_result(unsafe {
            bindings::security_dentry_init_security(
                dentry.as_raw(),
                mode,
                &raw const (*dentry.as_raw()).__bindgen_anon_1.d_name,
                &mut name,
                &mut context,
            )
        });
        match asked {
            // INVARIANT: The module gave it, with a name that it has in static memory.
            Ok(()) if context.len > 0 && !name.is_null() => Ok(Some(Self { name, context })),
            Ok(()) => Ok(None),
            Err(e) if e == EOPNOTSUPP => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The name of the extended attribute, with its namespace.
    pub fn name(&self) -> &'static CStr {
        // SAFETY: By the type invariant.
        unsafe { CStr::from_char_ptr(self.name) }
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        // SAFETY: The module gave so many bytes, which stay until they are released.
        unsafe {
            core::slice::from_raw_parts(self.context.context.cast(), self.context.len as usize)
        }
    }
}

impl Drop for NewContext {
    fn drop(&mut self) {
        // SAFETY: Given by the module and not released yet, by the type invariant.
        unsafe { bindings::security_release_secctx(&mut self.context) };
    }
}
