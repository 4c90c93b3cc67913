//! Durations on one core: the cells of a `base::histogram`, written by their core alone with plain
//! loads and stores, read by any thread.
//!
//! 512 bytes, and none of its lines belongs to two cores. A reading taken while the core counts may
//! miss what happens meanwhile, and may have the count of a time without the time itself.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::base::histogram::{CELLS, Reading, cell, micros};

/// The durations measured on one core.
#[repr(align(128))]
pub(crate) struct Durations {
    cells: [AtomicU32; CELLS],
    micros: AtomicU64,
}

impl Durations {
    pub(crate) fn new() -> Durations {
        Durations { cells: [const { AtomicU32::new(0) }; CELLS], micros: AtomicU64::new(0) }
    }

    /// Counts a time. Only their core may call it.
    #[inline]
    pub(crate) fn record(&self, time: Duration) {
        if let Some(count) = self.cells.get(cell(time)) {
            count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        }
        let sum = self.micros.load(Relaxed).wrapping_add(micros(time));
        self.micros.store(sum, Relaxed);
    }

    /// The values of the cells.
    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading { micros: self.micros.load(Relaxed), ..Reading::default() };
        for (to, from) in reading.cells.iter_mut().zip(&self.cells) {
            *to = from.load(Relaxed);
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::histogram::Histogram;

    #[test]
    fn they_fit_into_512_bytes_and_into_lines_of_their_own() {
        assert_eq!((size_of::<Durations>(), align_of::<Durations>()), (512, 128));
    }

    #[test]
    fn what_a_core_counts_others_read_while_it_counts() {
        let (durations, time) = (Durations::new(), Duration::from_micros(2_499));
        let mut seen = Histogram::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..10_000).for_each(|_| durations.record(time)));
            let mut before = Reading::default();
            while seen.count() < 10_000 {
                let now = durations.read();
                seen.add(&before, &now);
                before = now;
                std::thread::yield_now();
            }
        });
        assert_eq!((seen.count(), seen.below(Duration::from_micros(2_500))), (10_000, 10_000));
        assert_eq!(durations.read().micros, 10_000 * 2_499);
    }
}
