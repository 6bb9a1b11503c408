// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! `mount -t virtiofs TAG DIR -o dax|dax=always|dax=inode|dax=never`, and the form of the first virtio-fs kernels (4.19):
//! `mount -t virtio_fs none DIR -o tag=TAG,rootmode=040000,user_id=0,group_id=0`, whose last three mean nothing here.

use kernel::{
    prelude::*,
    str::CString, //
};
use vfs::parameter::{
    Parameter,
    Table, //
};

/// Which files are mapped from the device's window (DAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dax {
    /// Those that the daemon marks, if there is a window.
    Inode,
    /// All; without a window there is no mount.
    Always,
    /// None.
    Never,
}

impl Dax {
    const WORDS: [&'static CStr; 3] = [c"inode", c"always", c"never"];
    const VALUES: [Self; 3] = [Self::Inode, Self::Always, Self::Never];

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What the options of a mount say.
#[derive(Default)]
pub(crate) struct Options {
    /// The tag, where it is not the source.
    pub(crate) tag: Option<CString>,
    /// The DAX mode, if one is named.
    pub(crate) dax: Option<Dax>,
}

/// The options that are known.
pub(crate) static PARAMETERS: Table<Options, 6> = Table::new([
    Parameter::flag(c"dax", |options| {
        options.dax = Some(Dax::Always);
        Ok(())
    }),
    Parameter::word(c"dax", &Dax::WORDS, |options, word| {
        options.dax = Dax::VALUES.get(word).copied();
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

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_options)]
mod tests {
    use super::*;

    /// The words of `dax=` stand for the modes of these names.
    #[test]
    fn words_and_modes() {
        assert_eq!(Dax::WORDS.len(), Dax::VALUES.len());
        for (word, value) in Dax::WORDS.iter().zip(Dax::VALUES) {
            assert_eq!(word.to_bytes(), value.as_str().as_bytes());
        }
    }
}
