// SPDX-License-Identifier: GPL-2.0

//! A mutex that can be a `static`, and needs no call before its first use.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    pin::Pin, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        lock::mutex::MutexGuard,
        LockClassKey,
        Mutex, //
    },
};

const UNTOUCHED: i32 = 0;
const BUSY: i32 = 1;
const READY: i32 = 2;

/// A mutex around a value that starts as its default.
///
/// A static is never dropped: whoever unloads a module must have emptied the value.
///
/// # Invariants
///
/// `mutex` is initialised once `state` is `READY`, and written only by who changed it from `UNTOUCHED` to `BUSY`.
pub struct StaticMutex<T> {
    state: Atomic<i32>,
    mutex: UnsafeCell<MaybeUninit<Mutex<T>>>,
    name: &'static CStr,
    key: Pin<&'static LockClassKey>,
}

// SAFETY: All access to the value goes through the mutex.
unsafe impl<T: Send> Sync for StaticMutex<T> {}

impl<T: Default> StaticMutex<T> {
    /// A mutex of the lock class `key` (`kernel::static_lock_class!()`).
    pub const fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> Self {
        Self {
            state: Atomic::new(UNTOUCHED),
            mutex: UnsafeCell::new(MaybeUninit::uninit()),
            name,
            key,
        }
    }

    /// Acquires the mutex. Sleeps.
    pub fn lock(&'static self) -> MutexGuard<'static, T> {
        while self.state.load(ordering::Acquire) != READY {
            if self
                .state
                .cmpxchg(UNTOUCHED, BUSY, ordering::Acquire)
                .is_ok()
            {
                let init = Mutex::new(T::default(), self.name, self.key);
                // SAFETY: This is the only task between `BUSY` and `READY`; the place is in a static, so it never moves.
                // The initialiser can't fail.
                let _ = unsafe { pin_init::raw_try_init((*self.mutex.get()).as_mut_ptr(), init) };
                // INVARIANT: It was initialised just now.
                self.state.store(READY, ordering::Release);
            } else {
                kernel::processor::cpu_relax();
            }
        }
        // SAFETY: Initialised, by the type invariant, and only used through shared references from here on.
        unsafe { (*self.mutex.get()).assume_init_ref() }.lock()
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_static_mutex)]
mod tests {
    use super::*;

    static COUNTER: StaticMutex<u32> =
        StaticMutex::new(c"kernel_ext::tests::COUNTER", kernel::static_lock_class!());

    /// It starts as the default, and keeps what is put in.
    #[test]
    fn keeps_its_value() {
        *COUNTER.lock() = 0;
        *COUNTER.lock() += 2;
        *COUNTER.lock() += 3;
        assert_eq!(*COUNTER.lock(), 5);
    }
}
