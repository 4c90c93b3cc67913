//! Moving averages that forget with time: what is left of an old value after a while.
//!
//! Pure functions of a value and an age; who keeps them, and how long a while is, is not known
//! here. Forgetting goes on while nothing is seen, so that what is old never counts for ever.

use std::time::Duration;

/// The share that is left of a value of this age: all of a new one, 1/e of one as old as `tau`.
#[inline]
pub(crate) fn left(age: Duration, tau: Duration) -> f32 {
    (-age.as_secs_f32() / tau.as_secs_f32()).exp()
}

/// The average with a new sample, where this share of the old one is left.
#[inline]
pub(crate) fn mean(average: f32, left: f32, sample: f32) -> f32 {
    average * left + sample * (1.0 - left)
}

/// The peak with a new sample: it rises at once and falls as it is forgotten.
///
/// Peak-EWMA (Finagle, tower) as it comes out when it is read between any two samples: each
/// reading forgets, so nothing is left for the mean to do. The peak of several rows of samples is
/// then the highest of their peaks, whichever of them saw a sample.
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
