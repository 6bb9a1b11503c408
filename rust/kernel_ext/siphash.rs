// SPDX-License-Identifier: GPL-2.0

//! Keyed hashes (SipHash) of numbers that must not be given away.
//!
//! C header: [`include/linux/siphash.h`](srctree/include/linux/siphash.h)

use crate::bindings;

/// SipHash with a key of its own.
pub struct SipHash(bindings::siphash_key_t);

impl SipHash {
    /// A hash with a random key.
    pub fn random() -> Self {
        let mut key = bindings::siphash_key_t { key: [0; 2] };
        let len = core::mem::size_of_val(&key.key);
        // SAFETY: The key is valid for writes of that length; any bytes make a key.
        unsafe { bindings::get_random_bytes((&raw mut key.key).cast(), len) };
        Self(key)
    }

    /// The hash of `value`. Callable from any context.
    pub fn of(&self, value: u64) -> u64 {
        // SAFETY: The key is valid for reads.
        unsafe { bindings::siphash_1u64(value, &self.0) }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kernel::prelude::kunit_tests(kernel_ext_siphash)]
mod tests {
    use super::*;

    /// The same value has the same hash, with the same key only.
    #[test]
    fn keyed() {
        let (one, two) = (SipHash::random(), SipHash::random());
        assert_eq!(one.of(1), one.of(1));
        assert!(one.of(1) != one.of(2));
        assert!(one.of(1) != two.of(1));
    }
}
