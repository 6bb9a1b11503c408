// SPDX-License-Identifier: GPL-2.0

//! File handles: names of inodes that last, for `name_to_handle_at(2)`, `open_by_handle_at(2)`, fanotify and NFS servers.
//!
//! A handle is a number of 64 bits and a generation, the form `FILEID_INO64_GEN`; with those of a directory that the file is
//! in, `FILEID_INO64_GEN_PARENT`.
//!
//! C header: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)

use crate::{
    dentry::Dentry,
    filesystem::FileSystem,
    inode::{
        Inode,
        InodeRef, //
    },
    super_block::{
        NewSuperBlock,
        SuperBlock, //
    },
};
use core::{
    marker::PhantomData,
    slice, //
};
use kernel::{
    ffi::c_int,
    prelude::*, //
};
use kernel_ext::bindings;

/// Words of a handle.
const WORDS: usize = 3;

/// A name of an inode that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHandle {
    /// Which inode it is.
    pub id: u64,
    /// Its generation, [`Inode::generation`]: another file that gets the number has another one.
    pub generation: u32,
}

impl FileHandle {
    fn to_words(self) -> [u32; WORDS] {
        [(self.id >> 32) as u32, self.id as u32, self.generation]
    }

    fn from_words(words: &[u32]) -> Option<Self> {
        let &[high, low, generation] = words else {
            return None;
        };
        Some(Self {
            id: u64::from(high) << 32 | u64::from(low),
            generation,
        })
    }
}

/// What is asked of file handles.
pub trait Operations: Sized + 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// The number of an inode in handles. Does not sleep.
    fn id(inode: &Inode<Self::FileSystem>) -> u64;

    /// The inode of a handle, which may have come from anywhere. `ESTALE` when there is none, or it has another generation.
    ///
    /// May sleep; no lock is held.
    fn find(
        sb: &SuperBlock<Self::FileSystem>,
        handle: FileHandle,
    ) -> Result<InodeRef<Self::FileSystem>>;

    /// The directory that `dir` is in. `ESTALE` when it can't be found.
    ///
    /// May sleep; no lock is held.
    fn parent(dir: &Inode<Self::FileSystem>) -> Result<InodeRef<Self::FileSystem>>;
}

impl<T: FileSystem> NewSuperBlock<T> {
    /// Gives file handles out. Without `decode` they only tell files apart, and none can be opened.
    pub fn set_export<E: Operations<FileSystem = T>>(&mut self, decode: bool) -> &mut Self {
        let table = if decode {
            &Callbacks::<E>::VTABLE
        } else {
            &Callbacks::<E>::ENCODE_ONLY
        };
        // SAFETY: Valid, and ours while it is being filled. CAST: `kernel` has the type without its fields.
        unsafe { (*self.as_raw()).s_export_op = core::ptr::from_ref(table).cast() };
        self
    }
}

struct Callbacks<E>(PhantomData<E>);

impl<E: Operations> Callbacks<E> {
    fn handle(inode: &Inode<E::FileSystem>) -> FileHandle {
        FileHandle {
            id: E::id(inode),
            generation: inode.generation(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with an inode in use, room for `*len` words, and a directory in use or null.
    unsafe extern "C" fn encode_fh(
        inode: *mut bindings::inode,
        words: *mut bindings::__u32,
        len: *mut c_int,
        parent: *mut bindings::inode,
    ) -> c_int {
        let (needed, kind) = if parent.is_null() {
            (WORDS, bindings::fid_type_FILEID_INO64_GEN)
        } else {
            (2 * WORDS, bindings::fid_type_FILEID_INO64_GEN_PARENT)
        };
        // SAFETY: As the caller says.
        let room = unsafe { core::mem::replace(&mut *len, needed as c_int) };
        if usize::try_from(room).unwrap_or(0) < needed {
            return bindings::fid_type_FILEID_INVALID as c_int;
        }
        // SAFETY: As the caller says, and there is room for them.
        let words = unsafe { slice::from_raw_parts_mut(words, needed) };
        for (to, from) in words.chunks_exact_mut(WORDS).zip([inode, parent]) {
            // SAFETY: As the caller says; the second one is there if its words are.
            let handle = Self::handle(unsafe { Inode::from_raw(from) });
            to.copy_from_slice(&handle.to_words());
        }
        kind as c_int
    }

    /// The dentry of the inode whose handle is at word `from`; null for a handle that is none of ours.
    ///
    /// # Safety
    ///
    /// A superblock of the filesystem in use, and `len` words.
    unsafe fn decode(
        sb: *mut bindings::super_block,
        words: *const bindings::fid,
        len: c_int,
        from: usize,
    ) -> *mut bindings::dentry {
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: As the caller says. CAST: A `fid` is words.
        let words = unsafe { slice::from_raw_parts(words.cast::<u32>(), len) };
        let words = words.get(from..).and_then(|words| words.get(..WORDS));
        let Some(handle) = words.and_then(FileHandle::from_words) else {
            return core::ptr::null_mut();
        };
        // SAFETY: As the caller says.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        Self::alias(E::find(sb, handle), sb)
    }

    /// A dentry of an inode: one that it has, or a new one without a name.
    fn alias(
        inode: Result<InodeRef<E::FileSystem>>,
        sb: &SuperBlock<E::FileSystem>,
    ) -> *mut bindings::dentry {
        match inode.and_then(|inode| inode.hand_over(sb)) {
            // SAFETY: The reference to the inode is handed over.
            Ok(inode) => unsafe { bindings::d_obtain_alias(inode) },
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a superblock of the filesystem in use, and `len` words.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut kernel::bindings::super_block,
        words: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut kernel::bindings::dentry {
        match kind as u32 {
            bindings::fid_type_FILEID_INO64_GEN | bindings::fid_type_FILEID_INO64_GEN_PARENT => {
                // SAFETY: As the caller says.
                unsafe { Self::decode(sb, words, len, 0) }
            }
            _ => core::ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// As [`fh_to_dentry`](Self::fh_to_dentry).
    unsafe extern "C" fn fh_to_parent(
        sb: *mut kernel::bindings::super_block,
        words: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut kernel::bindings::dentry {
        if kind as u32 != bindings::fid_type_FILEID_INO64_GEN_PARENT {
            return core::ptr::null_mut();
        }
        // SAFETY: As the caller says.
        unsafe { Self::decode(sb, words, len, WORDS) }
    }

    /// # Safety
    ///
    /// Called by the VFS, with a directory in use.
    unsafe extern "C" fn get_parent(
        child: *mut kernel::bindings::dentry,
    ) -> *mut kernel::bindings::dentry {
        // SAFETY: As the caller says.
        let child = unsafe { Dentry::<E::FileSystem>::from_raw(child) };
        Self::alias(
            child.inode().ok_or(ESTALE).and_then(E::parent),
            child.super_block(),
        )
    }

    const ENCODE_ONLY: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode_fh),
        ..pin_init::zeroed()
    };

    const VTABLE: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode_fh),
        fh_to_dentry: Some(Self::fh_to_dentry),
        fh_to_parent: Some(Self::fh_to_parent),
        get_parent: Some(Self::get_parent),
        ..pin_init::zeroed()
    };
}
