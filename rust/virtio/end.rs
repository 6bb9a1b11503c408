// SPDX-License-Identifier: GPL-2.0

//! Completion of a transfer as a value with behaviour, kept in the transfer.
//!
//! An [`AtEnd`] is what a `KBox<dyn End>` is, without the allocation: each request to a device has one, and some are sent where memory
//! is short.

use crate::transfer::{
    Outcome,
    Owner,
    Transfer, //
};
use core::{
    any::TypeId,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::sync::Arc;

/// The largest value that an [`AtEnd`] holds, in words of 8 bytes.
const WORDS: usize = 15;

/// Behaviour at the end of a transfer.
pub trait End<O: Owner>: Send + Sync + 'static {
    /// The transfer has ended. The context is that of [`Owner::ended`].
    fn ended(&self, queue: &O::Queue, transfer: &Arc<Transfer<O>>, outcome: Outcome);
}

/// [`End::ended`] of a value whose type is forgotten.
type Ended<O> = unsafe fn(NonNull<()>, &<O as Owner>::Queue, &Arc<Transfer<O>>, Outcome);

/// The methods of the value in an [`AtEnd`].
struct Methods<O: Owner> {
    type_id: fn() -> TypeId,
    /// # Safety
    ///
    /// The pointer is to a value of that type.
    ended: Ended<O>,
    /// # Safety
    ///
    /// The pointer is to a value of that type, which is not used any more.
    drop: unsafe fn(NonNull<()>),
}

impl<O: Owner> Methods<O> {
    /// # Safety
    ///
    /// `value` points to an `E`.
    unsafe fn ended<E: End<O>>(
        value: NonNull<()>,
        queue: &O::Queue,
        transfer: &Arc<Transfer<O>>,
        outcome: Outcome,
    ) {
        // SAFETY: By the requirement of this function.
        unsafe { value.cast::<E>().as_ref() }.ended(queue, transfer, outcome);
    }

    /// # Safety
    ///
    /// `value` points to an `E`, which is not used any more.
    unsafe fn drop<E: End<O>>(value: NonNull<()>) {
        // SAFETY: By the requirement of this function.
        unsafe { value.cast::<E>().drop_in_place() };
    }
}

/// The methods of an `E`.
struct MethodsOf<E>(PhantomData<E>);

impl<E> MethodsOf<E> {
    const fn methods<O: Owner>() -> &'static Methods<O>
    where
        E: End<O>,
    {
        &Methods {
            type_id: TypeId::of::<E>,
            ended: Methods::<O>::ended::<E>,
            drop: Methods::<O>::drop::<E>,
        }
    }
}

/// A value with an [`End`], of up to 120 bytes.
pub struct AtEnd<O: Owner> {
    value: MaybeUninit<[u64; WORDS]>,
    methods: &'static Methods<O>,
}

// SAFETY: The value is an `End`, which may be sent.
unsafe impl<O: Owner> Send for AtEnd<O> {}
// SAFETY: The value is an `End`, which may be shared.
unsafe impl<O: Owner> Sync for AtEnd<O> {}

impl<O: Owner> AtEnd<O> {
    /// Holds `end`. Does not compile for a value that does not fit.
    pub fn new<E: End<O>>(end: E) -> Self {
        const {
            assert!(size_of::<E>() <= size_of::<[u64; WORDS]>());
            assert!(align_of::<E>() <= align_of::<u64>());
        }
        let mut value = MaybeUninit::<[u64; WORDS]>::uninit();
        // SAFETY: The storage is as large as an `E` or larger, and aligned for it.
        unsafe { value.as_mut_ptr().cast::<E>().write(end) };
        Self {
            value,
            methods: MethodsOf::<E>::methods(),
        }
    }

    /// The value, if it is an `E`.
    pub fn get<E: End<O>>(&self) -> Option<&E> {
        if (self.methods.type_id)() != TypeId::of::<E>() {
            return None;
        }
        // SAFETY: The value is an `E`, and borrowed as long as this is.
        Some(unsafe { self.as_ptr().cast::<E>().as_ref() })
    }

    /// Calls [`End::ended`] of the value.
    pub fn ended(&self, queue: &O::Queue, transfer: &Arc<Transfer<O>>, outcome: Outcome) {
        // SAFETY: The value is of the type that the methods are for.
        unsafe { (self.methods.ended)(self.as_ptr(), queue, transfer, outcome) };
    }

    fn as_ptr(&self) -> NonNull<()> {
        NonNull::from(&self.value).cast()
    }
}

impl<O: Owner> Drop for AtEnd<O> {
    fn drop(&mut self) {
        let value = NonNull::from(&mut self.value).cast();
        // SAFETY: The value is of the type that the methods are for, and it is dropped here alone.
        unsafe { (self.methods.drop)(value) };
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kernel::prelude::kunit_tests(virtio_end)]
mod tests {
    use super::*;
    use crate::{
        transfer::NewTransfer,
        Connection, //
    };
    use kernel::{
        prelude::*,
        sync::atomic::{
            ordering,
            Atomic, //
        },
    };

    struct Nobody;

    impl Owner for Nobody {
        type Queue = i32;
        type Label = ();

        fn label(&self) {}

        fn ended(_: &i32, _: &Arc<Transfer<Self>>, _: Outcome) {}

        fn broken(_: &i32) {}
    }

    /// Counts its ends, and adds a thousand when it is dropped.
    struct Counts(Arc<Atomic<i32>>);

    impl End<Nobody> for Counts {
        fn ended(&self, queue: &i32, _: &Arc<Transfer<Nobody>>, outcome: Outcome) {
            assert_eq!(outcome, Outcome::Returned(7));
            self.0.fetch_add(*queue, ordering::Relaxed);
        }
    }

    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1000, ordering::Relaxed);
        }
    }

    /// As large as may be.
    struct Large([u64; WORDS]);

    impl End<Nobody> for Large {
        fn ended(&self, _: &i32, _: &Arc<Transfer<Nobody>>, _: Outcome) {
            assert_eq!(self.0, [5; WORDS]);
        }
    }

    /// The value's own method is called, the value is found by its type alone, and dropped once.
    #[test]
    fn behaves_as_the_value() -> Result {
        let transfer = NewTransfer::new(40, 16, Nobody)?.into_pending(&Connection::new());
        let transfer = transfer.into_arc();
        let count = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let (counts, large) = (
            AtEnd::<Nobody>::new(Counts(count.clone())),
            AtEnd::<Nobody>::new(Large([5; WORDS])),
        );
        counts.ended(&3, &transfer, Outcome::Returned(7));
        counts.ended(&4, &transfer, Outcome::Returned(7));
        large.ended(&3, &transfer, Outcome::Aborted);
        assert!(counts.get::<Counts>().is_some() && counts.get::<Large>().is_none());
        assert!(large.get::<Large>().is_some() && large.get::<Counts>().is_none());
        assert_eq!(count.load(ordering::Relaxed), 7);
        drop(counts);
        assert_eq!(count.load(ordering::Relaxed), 1007);
        Ok(())
    }
}
