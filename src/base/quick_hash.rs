//! A fast hash for tables with trusted keys: eight bytes a step, one folded multiplication each.
//!
//! It has no secret, so chosen keys could make such a table slow. Use it only for keys that come
//! from the configuration, which peers look up and never add to.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A table with trusted keys.
pub(crate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// The state of one hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QuickHasher(u64);

impl QuickHasher {
    #[inline]
    fn add(&mut self, word: u64) {
        // Odd, with well-spread bits: the digits of pi.
        const PI: u64 = 0x243f_6a88_85a3_08d3;
        let product = u128::from(self.0 ^ word ^ PI) * 0x1319_8a2e_0370_7345_u128;
        #[allow(clippy::cast_possible_truncation)] // folding is the point
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.0 = low ^ high;
    }
}

impl Hasher for QuickHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            self.add(u64::from_le_bytes(last));
        }
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_keys_that_differ_little() {
        let mut buckets = [0_u32; 1024];
        for number in 0..64 * 1024 {
            let mut hasher = QuickHasher::default();
            hasher.write(format!("/service-{number}").as_bytes());
            buckets[hasher.finish() as usize % buckets.len()] += 1;
            buckets[(hasher.finish() >> 54) as usize] += 1;
        }
        let (least, most) = (buckets.iter().min(), buckets.iter().max());
        assert!(least > Some(&80) && most < Some(&176), "of 128: {least:?} to {most:?}");
    }
}
