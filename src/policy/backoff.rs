//! Exponential backoff with jitter for a backend that keeps failing: twice as long each time.

use std::time::Duration;

use crate::base::{moment::millis, rng::Rng};

/// `first`, doubled `times` times up to `most`, with jitter of a tenth either way: backends that
/// failed together do not return together. Whole milliseconds, at least one.
pub(crate) fn grown(first: Duration, most: Duration, times: u8, rng: &mut Rng) -> Duration {
    let doubled =
        2_u32.checked_pow(times.into()).map_or(Duration::MAX, |by| first.saturating_mul(by));
    let jitter = u64::from(900 + rng.below(201));
    let grown = millis(doubled.min(most.max(first))).saturating_mul(jitter) / 1000;
    Duration::from_millis(grown.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least and the most of a thousand draws, in milliseconds.
    fn check(first_ms: u64, most_ms: u64, times: u8, expected: (u64, u64)) {
        let mut rng = Rng::seeded(5);
        let (first, most) = (Duration::from_millis(first_ms), Duration::from_millis(most_ms));
        let drawn = || millis(grown(first, most, times, &mut rng));
        let drawn: Vec<u64> = std::iter::repeat_with(drawn).take(1000).collect();
        let (least, longest) = (*drawn.iter().min().unwrap(), *drawn.iter().max().unwrap());
        assert!(expected.0 <= least && longest <= expected.1, "{times}: {least}..={longest}");
        // The draws use the whole width.
        let tenth = (expected.1 - expected.0) / 10;
        assert!(least <= expected.0 + tenth && longest + tenth >= expected.1);
    }

    #[test]
    fn doubles_up_to_the_most_with_a_tenth_of_jitter() {
        check(10_000, 300_000, 0, (9_000, 11_000));
        check(10_000, 300_000, 1, (18_000, 22_000));
        check(10_000, 300_000, 4, (144_000, 176_000));
        check(10_000, 300_000, 5, (270_000, 330_000));
        check(10_000, 300_000, 255, (270_000, 330_000));
        // A first time beyond the most is not cut.
        check(400_000, 300_000, 3, (360_000, 440_000));
        check(0, 0, 3, (1, 1));
    }
}
