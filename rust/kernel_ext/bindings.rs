// SPDX-License-Identifier: GPL-2.0

//! `kernel::bindings` and what it lacks: the types and functions of virtio, of mounting, and of inline functions.

#[allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unknown_lints,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
mod raw {
    // The items included below take precedence over those of the glob.
    pub use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::MaybeZeroable;

    include!(concat!(
        env!("VIRTIOFS_OBJ"),
        "/rust/bindings/bindings_generated.rs"
    ));
}

pub use raw::*;
