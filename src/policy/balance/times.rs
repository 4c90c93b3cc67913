//! One backend's response times and failures: a decaying peak and a decaying share.
//!
//! The values decay with time; the reader passes the time. They pack into one word, so a core can
//! tell the others with a plain store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{ewma, moment::Tick};

/// The time constant of the decay: all but 1/e is forgotten.
const TAU: Duration = Duration::from_secs(10);

/// Packed times count in units of this many milliseconds: the word lasts for two years.
const UNIT_MS: u64 = 16;

const MILLION: f64 = 1e6;

/// What all cores know of a backend's times and failures, as it is handed to the process that takes
/// over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CarriedTimes {
    micros: u64,
    /// The share that fails, in millionths.
    failing: u64,
}

impl CarriedTimes {
    /// From what cores have published; none if that is nothing.
    pub(crate) fn of(words: impl Iterator<Item = u64>, now: Tick) -> Option<CarriedTimes> {
        let each = words.filter_map(|word| Times::unpacked(word, now));
        let all = Some(Times::merged(each, now)).filter(Times::is_known)?;
        let (micros, failing) = (f64::from(all.micros), f64::from(all.failing));
        Some(CarriedTimes { micros: micros as u64, failing: (failing * MILLION) as u64 })
    }

    /// The word that a core would publish, as of now.
    pub(crate) fn word(self, now: Tick) -> u64 {
        let failing = (self.failing as f64 / MILLION).min(1.0) as f32;
        Times { micros: self.micros as f32, failing, at: Some(now), rows: 1 }.packed()
    }
}

/// One backend's times and failures; empty to begin with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// The peak at `at`, in microseconds.
    micros: f32,
    /// The share that failed at `at`, 0 to 1.
    failing: f32,
    /// None if nothing is known.
    at: Option<Tick>,
    /// How many rows of samples it covers.
    rows: u16,
}

impl Times {
    pub(super) fn is_known(&self) -> bool {
        self.at.is_some()
    }

    /// The peak and the failing share, as decayed by now.
    #[inline]
    pub(super) fn at(&self, now: Tick) -> (f32, f32) {
        let left = self.left(now);
        (self.micros * left, self.failing * left)
    }

    /// The share of it that is left by now.
    #[inline]
    fn left(&self, now: Tick) -> f32 {
        self.at.map_or(0.0, |at| ewma::left(now.since(at), TAU))
    }

    /// One more sample, which has at least the weight `part` in the failing share: with many
    /// requests a failure is noticed after some of them, not after seconds.
    pub(super) fn see(&mut self, micros: f32, failed: bool, part: f32, now: Tick) {
        let left = self.left(now);
        self.micros = ewma::peak(self.micros, left, micros);
        let failed = f32::from(u8::from(failed));
        self.failing = ewma::mean(self.failing, left.min(1.0 - part), failed);
        (self.at, self.rows) = (self.at.max(Some(now)), 1);
    }

    /// Several rows of samples combined: the highest peak, the mean of the failing shares.
    pub(super) fn merged(each: impl Iterator<Item = Times>, now: Tick) -> Times {
        let mut sum = Times::default();
        for times in each.filter(Times::is_known) {
            let (micros, failing) = times.at(now);
            sum.micros = sum.micros.max(micros);
            sum.failing += failing * f32::from(times.rows);
            sum.rows += times.rows;
            sum.at = Some(now);
        }
        sum.failing /= f32::from(sum.rows.max(1));
        sum
    }

    /// In one word: the upper 24 bits of the peak, 8 of the failing share, 32 of the time. 0 =
    /// nothing is known.
    pub(super) fn packed(&self) -> u64 {
        let Some(at) = self.at else { return 0 };
        let micros = u64::from(self.micros.to_bits() >> 8);
        let failing = (self.failing.clamp(0.0, 1.0) * 255.0).round() as u64;
        micros << 40 | failing << 32 | u64::from((at.millis() / UNIT_MS) as u32)
    }

    /// From the word of another core, whose clock may be a little ahead.
    pub(super) fn unpacked(word: u64, now: Tick) -> Option<Times> {
        if word == 0 {
            return None;
        }
        let [_, _, _, failing, ..] = word.to_be_bytes();
        let micros = f32::from_bits(((word >> 40) as u32) << 8);
        let age = ((now.millis() / UNIT_MS) as u32).wrapping_sub(word as u32);
        // More than half of all ages is the future.
        let age = if age > u32::MAX / 2 { 0 } else { u64::from(age) * UNIT_MS };
        let at = Some(now.before(Duration::from_millis(age)));
        Some(Times { micros, failing: f32::from(failing) / 255.0, at, rows: 1 })
    }

    /// Whether it is later than this, if there is such a time.
    pub(super) fn is_later_than(&self, time: Option<Tick>) -> bool {
        self.at > time
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert!(self.micros.is_finite() && self.micros >= 0.0, "{self:?}");
        assert!((0.0..=1.0).contains(&self.failing), "{self:?}");
        assert_eq!(self.is_known(), self.rows > 0, "{self:?}");
        assert!(self.is_known() || self.micros == 0.0 && self.failing == 0.0, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    fn of(samples: &[(u32, bool, u64)]) -> Times {
        let mut times = Times::default();
        for (micros, failed, at) in samples {
            times.see(*micros as f32, *failed, 0.03, ms(*at));
        }
        times
    }

    #[test]
    fn the_next_process_knows_what_all_cores_knew() {
        let cores = [of(&[(800, true, 100)]), of(&[(9_000, false, 50)]), Times::default()];
        let words = || cores.iter().map(Times::packed);
        let carried = CarriedTimes::of(words(), ms(100)).unwrap();
        let after = Times::unpacked(carried.word(ms(7)), ms(7)).unwrap();
        let (micros, failing) = after.at(ms(7));
        assert!((8_900.0..9_001.0).contains(&micros), "{micros}");
        assert!((failing - 0.5).abs() < 0.01, "{failing}");
        assert_eq!(CarriedTimes::of([0, 0].into_iter(), ms(100)), None);
    }

    /// After these samples the peak and the failing share are these, within a thousandth.
    fn check(samples: &[(u32, bool, u64)], now: u64, micros: f32, failing: f32) {
        let (peak, share) = of(samples).at(ms(now));
        assert!((peak - micros).abs() <= micros / 1e3, "{samples:?}: {peak} for {micros}");
        assert!((share - failing).abs() <= 1e-3, "{samples:?}: {share} for {failing}");
    }

    #[test]
    fn rises_at_once_and_forgets_with_time() {
        check(&[(500, false, 1_000)], 1_000, 500.0, 0.0);
        check(&[(500, false, 1_000), (90_000, false, 1_000)], 1_000, 90_000.0, 0.0);
        check(&[(90_000, false, 1_000), (500, false, 2_000)], 2_000, 81_435.0, 0.0);
        check(&[(90_000, false, 1_000)], 11_000, 33_109.0, 0.0);
        check(&[(500, true, 1_000)], 11_000, 183.94, 0.368);
        check(&[(500, true, 1_000), (500, false, 11_000)], 11_000, 500.0, 0.368);
        check(&[(500, false, 1_000), (500, true, 2_000)], 2_000, 500.0, 0.095);
        check(&[(500, false, 1_000), (500, true, 1_001)], 1_001, 500.0, 0.03);
    }

    #[test]
    fn peaks_of_two_cores_are_those_of_one_that_saw_all() {
        let (a, b) = ((90_000, false, 1_000), (40_000, false, 9_000));
        let both = Times::merged([of(&[a]), of(&[b])].into_iter(), ms(9_000)).at(ms(20_000)).0;
        let one = of(&[a, b]).at(ms(20_000)).0;
        assert!((both - one).abs() <= one / 1e3, "{both} {one}");
    }

    #[test]
    fn failures_are_shared_out_over_those_who_know_anything() {
        let cores = [of(&[(1, true, 5)]), of(&[(1, false, 5)]), Times::default()];
        assert!((Times::merged(cores.into_iter(), ms(5)).at(ms(5)).1 - 0.5).abs() < 1e-6);
        assert!(!Times::merged(std::iter::empty(), ms(5)).is_known());
    }

    #[test]
    fn a_word_says_the_same() {
        assert_eq!(Times::default().packed(), 0);
        assert!(Times::unpacked(0, ms(1)).is_none());
        for (micros, failed, at) in
            [(1, true, 1), (5_000, false, 123_456), (30_000_000, true, 1 << 37)]
        {
            let times = of(&[(micros, !failed, at), (micros, failed, at)]);
            for now in [ms(at), ms(at + 5_000)] {
                let again = Times::unpacked(times.packed(), now).expect("something is known");
                let ((micros, failing), (micros_again, failing_again)) =
                    (times.at(now), again.at(now));
                assert!((micros - micros_again).abs() <= micros / 300.0, "{micros} {micros_again}");
                assert!((failing - failing_again).abs() <= 0.005, "{failing} {failing_again}");
            }
        }
        // A core whose clock was read a little earlier treats it as new.
        let ahead = Times::unpacked(of(&[(800, false, 1_000)]).packed(), ms(960)).expect("known");
        assert_eq!(ahead.at, Some(ms(960)));
    }
}
