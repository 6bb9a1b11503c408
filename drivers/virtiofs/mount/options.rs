// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! `mount -t virtiofs TAG DIR -o dax|dax=always|dax=inode|dax=never`, and the form of the first virtio-fs kernels (4.19):
//! `mount -t virtio_fs none DIR -o tag=TAG,rootmode=040000,user_id=0,group_id=0`, whose last three mean nothing here.

use crate::dax::mode::Mode;
use kernel::str::CString;
use vfs::parameter::{
    Parameter,
    Table, //
};

/// What the options of a mount say.
#[derive(Default)]
pub(crate) struct Options {
    /// The tag, where it is not the source.
    pub(crate) tag: Option<CString>,
    /// The DAX mode, if one is named.
    pub(crate) dax: Option<Mode>,
}

/// The options that are known.
pub(crate) static PARAMETERS: Table<Options, 6> = Table::new([
    Parameter::flag(c"dax", |options| {
        options.dax = Some(Mode::Always);
        Ok(())
    }),
    Parameter::word(c"dax", &Mode::WORDS, |options, word| {
        options.dax = Mode::VALUES.get(word).copied();
        Ok(())
    }),
    Parameter::string(c"tag", |options, tag| {
        options.tag = Some(CString::try_from(tag)?);
        Ok(())
    }),
    Parameter::octal(c"rootmode", |_, _| Ok(())),
    Parameter::u32(c"user_id", |_, _| Ok(())),
    Parameter::u32(c"group_id", |_, _| Ok(())),
]);
