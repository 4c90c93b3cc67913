//! Exponentially decaying averages and peaks: how much of an old value is left after some time.
//!
//! Pure functions of a value and an age. The caller keeps the values and chooses the time constant.
//! Decay goes on while there are no samples, so an old value never counts for ever.

use std::time::Duration;

/// The share of a value of this age that is left: all of a new one, 1/e of one as old as `tau`.
#[inline]
pub(crate) fn left(age: Duration, tau: Duration) -> f32 {
    (-age.as_secs_f32() / tau.as_secs_f32()).exp()
}

/// The average with a new sample, when this share of the old average is left.
#[inline]
pub(crate) fn mean(average: f32, left: f32, sample: f32) -> f32 {
    average * left + sample * (1.0 - left)
}

/// The peak with a new sample: it rises at once and decays.
///
/// This is Peak-EWMA (Finagle, tower) as it works out if it is read between any two samples: each
/// reading decays it, so no averaging is left to do. The peak of several rows is the highest of
/// their peaks, whichever row saw a sample.
#[inline]
pub(crate) fn peak(peak: f32, left: f32, sample: f32) -> f32 {
    sample.max(peak * left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_with_time() {
        let tau = Duration::from_secs(10);
        assert!((left(Duration::ZERO, tau) - 1.0).abs() < 1e-6);
        assert!((left(tau, tau) - 0.367_879).abs() < 1e-6);
        assert!(left(Duration::MAX, tau).abs() < 1e-6);
    }

    #[test]
    fn a_mean_moves_by_what_was_forgotten_and_a_peak_rises_at_once() {
        assert!((mean(8.0, 0.75, 4.0) - 7.0).abs() < 1e-6);
        assert!((peak(8.0, 0.75, 4.0) - 6.0).abs() < 1e-6);
        assert!((peak(8.0, 0.75, 9.0) - 9.0).abs() < 1e-6);
    }
}
