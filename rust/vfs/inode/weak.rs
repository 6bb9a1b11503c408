// SPDX-License-Identifier: GPL-2.0

//! References to inodes that do not keep them.

use super::{
    Inode,
    InodeBox,
    NewInode, //
};
use crate::filesystem::FileSystem;
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        SpinLock, //
    },
};
use kernel_ext::bindings;

/// A reference to an inode that does not keep it: after the inode has gone it leads nowhere.
///
/// Who gets hold of the inode by it, and is no user of the filesystem otherwise, must not have it when the superblock is shut
/// down: see [`FileSystem::shutting_down`].
///
/// # Invariants
///
/// The pointer is that of an inode of `T` that is not freed: [`forget`](WeakInode::forget) comes before.
#[pin_data]
pub struct WeakInode<T: FileSystem> {
    #[pin]
    inode: SpinLock<Option<NonNull<Inode<T>>>>,
}

// SAFETY: An inode may be used by any task.
unsafe impl<T: FileSystem> Send for WeakInode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for WeakInode<T> {}

impl<T: FileSystem> WeakInode<T> {
    /// The inode, if it is not gone or about to go. Does not sleep.
    pub fn upgrade(&self) -> Option<ARef<Inode<T>>> {
        let inode = self.inode.lock();
        let inode = (*inode)?;
        // SAFETY: Not freed by the type invariant, as the lock is held. `igrab()` gives a reference, or null for one that is
        // being evicted.
        unsafe {
            let inode = bindings::igrab(inode.cast().as_ptr());
            NonNull::new(inode.cast()).map(|inode| ARef::from_raw(inode))
        }
    }

    /// Whether the inode is gone.
    pub fn is_gone(&self) -> bool {
        self.inode.lock().is_none()
    }

    /// The inode goes.
    pub(super) fn forget(&self) {
        *self.inode.lock() = None;
    }
}

impl<T: FileSystem> NewInode<T> {
    /// A reference that does not keep the inode: the same one each time. Sleeps.
    pub fn weak(&mut self) -> Result<Arc<WeakInode<T>>> {
        // SAFETY: Ours while it is new.
        let weak = unsafe { &mut (*InodeBox::<T>::of(self.as_raw())).weak };
        if let Some(weak) = weak {
            return Ok(weak.clone());
        }
        // INVARIANT: `InodeBox::forget_weak` runs before the inode is freed.
        let inode = NonNull::new(self.as_raw().cast());
        let new = Arc::pin_init(
            pin_init!(WeakInode {
                inode <- new_spinlock!(inode, "WeakInode"),
            }),
            GFP_KERNEL,
        )?;
        *weak = Some(new.clone());
        Ok(new)
    }
}
