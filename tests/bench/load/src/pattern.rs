// SPDX-License-Identifier: GPL-2.0

//! Contents that tell where they belong, orders to visit them in, and buffers for O_DIRECT.

use crate::Failure;

const WORD: usize = 8;
/// What is looked at while a case is timed: both ends of each page.
const PAGE: usize = 4096;

/// The eight bytes at `offset`, a multiple of eight, in a file of this seed.
fn word(offset: u64, seed: u64) -> [u8; WORD] {
    ((offset ^ seed.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).to_le_bytes()
}

/// A seed for what has this name.
pub fn seed(name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    name.bytes().fold(start, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Fills `bytes` with what belongs at `offset` of a file.
pub fn fill(bytes: &mut [u8], offset: u64, seed: u64) {
    for (index, chunk) in bytes.chunks_mut(WORD).enumerate() {
        let value = word(offset + (index * WORD) as u64, seed);
        chunk.copy_from_slice(&value[..chunk.len()]);
    }
}

/// Makes what belongs at the start of a file, whole pages, what is to be written at `offset`: both ends of each page
/// are as `fill` would make them, the rest stays. It takes next to no time.
pub fn stamp(bytes: &mut [u8], offset: u64, seed: u64) {
    for (index, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        let place = offset + (index * PAGE) as u64;
        page[..WORD].copy_from_slice(&word(place, seed));
        page[PAGE - WORD..].copy_from_slice(&word(place + (PAGE - WORD) as u64, seed));
    }
}

/// Compares the eight bytes at `at` in `bytes`, which start at `offset` of a file.
fn check_word(bytes: &[u8], at: usize, offset: u64, seed: u64) -> Result<(), Failure> {
    let here = &bytes[at..(at + WORD).min(bytes.len())];
    let place = offset + at as u64;
    if here != &word(place, seed)[..here.len()] {
        return Err(format!("wrong contents at {place}: {here:x?}"));
    }
    Ok(())
}

/// Checks the first and the last bytes of each page: quick enough to be done while timing.
pub fn check_ends(bytes: &[u8], offset: u64, seed: u64) -> Result<(), Failure> {
    for at in (0..bytes.len()).step_by(PAGE) {
        check_word(bytes, at, offset, seed)?;
        let last = (at + PAGE).min(bytes.len()) - 1;
        check_word(bytes, last - last % WORD, offset, seed)?;
    }
    Ok(())
}

/// Checks every byte of what was written in blocks that were stamped. It starts at `offset`, a multiple of eight.
pub fn check(bytes: &[u8], offset: u64, block: usize, seed: u64) -> Result<(), Failure> {
    let (page, last) = (PAGE as u64, (PAGE - WORD) as u64);
    for (index, here) in bytes.chunks(WORD).enumerate() {
        let place = offset + (index * WORD) as u64;
        let origin = match place % page {
            0 => place,
            end if end == last => place,
            _ => place % block as u64,
        };
        if here != &word(origin, seed)[..here.len()] {
            return Err(format!("wrong contents at {place}: {here:x?}"));
        }
    }
    Ok(())
}

/// The numbers below `count` in an order that looks random and is always the same.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for index in (1..count).rev() {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(index, (state % (index as u64 + 1)) as usize);
    }
    order
}

/// A buffer that O_DIRECT accepts.
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// A buffer of `len` bytes, zeroed.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        Aligned { bytes, start, len }
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_byte_of_what_was_written_is_found() {
        let block = 2 * PAGE;
        let mut buffer = vec![0; block];
        fill(&mut buffer, 0, 7);
        let mut bytes = Vec::new();
        for number in 0..3 {
            stamp(&mut buffer, number * block as u64, 7);
            bytes.extend(&buffer);
        }
        check(&bytes, 0, block, 7).unwrap();
        check(&bytes[PAGE..], PAGE as u64, block, 7).unwrap();
        assert!(check(&bytes, 0, block, 8).is_err());
        // As if the second block had been written in place of the first.
        assert!(check(&bytes[block..], 0, block, 7).is_err());
        for at in [0, 100, PAGE - 1, 2 * PAGE, 3 * PAGE + 50, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert!(check(&bytes, 0, block, 7).is_err(), "{at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn wrong_ends_of_what_was_read_are_found() {
        let mut bytes = vec![0; 3 * PAGE + 5];
        fill(&mut bytes, 8192, 7);
        check_ends(&bytes, 8192, 7).unwrap();
        assert!(check_ends(&bytes, 0, 7).is_err());
        for at in [0, PAGE - 1, 2 * PAGE, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert!(check_ends(&bytes, 8192, 7).is_err(), "{at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn an_order_has_every_number_once() {
        let mut order = shuffled(1000);
        assert_ne!(order[..10], (0..10).collect::<Vec<_>>()[..]);
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert!(shuffled(0).is_empty());
    }

    #[test]
    fn buffers_are_aligned() {
        let mut buffer = Aligned::new(100);
        assert_eq!(buffer.bytes().len(), 100);
        assert_eq!(buffer.bytes().as_ptr().align_offset(PAGE), 0);
    }
}
