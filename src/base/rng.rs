//! A seeded random number generator: SplitMix64 (Steele, Lea and Flood 2014), 64 bits of state.
//!
//! Good enough for drawing backends and jitter, never for secrets. Below the worker it is always a
//! parameter, so a test can repeat a run from its seed.

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn seeded(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 if `bound` is 0 (Lemire's multiply-shift; the bias is below
    /// 2^-32 for the bounds used here).
    #[inline]
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_all_stay_below_the_bound() {
        let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
        for bound in [0_u32, 1, 2, 3, 1000] {
            let drawn = a.below(bound);
            assert_eq!(drawn, b.below(bound));
            assert!(drawn < bound.max(1));
        }
    }
}
