// SPDX-License-Identifier: GPL-2.0

//! Weak references to inodes.

use super::{
    Inode,
    InodeBox,
    InodeRef,
    NewInode, //
};
use crate::filesystem::FileSystem;
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
};
use kernel_ext::bindings;

/// A reference to an inode that does not keep it: after the inode has gone it leads nowhere.
///
/// Once the superblock is being shut down nobody gets hold of the inode by it, and who has done so before is waited for.
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
    /// The inode, if neither it nor its superblock is gone or about to go. Does not sleep.
    pub fn upgrade(&self) -> Option<InodeRef<T>> {
        let inode = self.inode.lock();
        let inode = (*inode)?;
        // SAFETY: Not freed by the type invariant, as the lock is held, so that its superblock is there. `igrab()` gives a reference, or
        // null for one that is being evicted.
        unsafe {
            let users = inode.as_ref().super_block().users();
            if !users.enter() {
                return None;
            }
            match NonNull::new(bindings::igrab(inode.cast().as_ptr())) {
                Some(inode) => Some(InodeRef::from_raw(inode)),
                None => {
                    users.leave();
                    None
                }
            }
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
