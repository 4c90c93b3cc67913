//! Durations on one core: the cells of a `base::histogram`, written by their core alone with plain
//! loads and stores, read by any thread.
//!
//! 512 bytes, and none of its lines belongs to two cores. A reading taken while the core counts may
//! miss what happens meanwhile, and may have the count of a time without the time itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::base::{
    histogram::{CELLS, Reading, cell_of},
    ids::BackendId,
    moment::Micros,
    segments::Segments,
};

/// The durations measured on one core.
#[repr(align(128))]
pub(crate) struct Durations {
    cells: [AtomicU32; CELLS],
    micros: AtomicU64,
}

impl Default for Durations {
    fn default() -> Durations {
        Durations::new()
    }
}

impl Durations {
    pub(crate) const fn new() -> Durations {
        Durations { cells: [const { AtomicU32::new(0) }; CELLS], micros: AtomicU64::new(0) }
    }

    /// Counts a time. Only their core may call it.
    #[inline]
    pub(crate) fn record(&self, time: Micros) {
        if let Some(count) = self.cells.get(cell_of(time)) {
            count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        }
        let sum = self.micros.load(Relaxed).wrapping_add(time.0);
        self.micros.store(sum, Relaxed);
    }

    /// Begins at nought again: nothing counts here any more. Any thread may call it.
    pub(super) fn forget(&self) {
        self.cells.iter().for_each(|cell| cell.store(0, Relaxed));
        self.micros.store(0, Relaxed);
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

/// How long answers of each backend of a pool took to begin, on each core. They live on from plan
/// to plan, and grow with the pool.
pub(crate) struct BackendTimes {
    workers: usize,
    backends: Segments<Box<[Durations]>>,
}

impl BackendTimes {
    /// For so many workers; there is no backend yet.
    pub(crate) const fn new(workers: usize) -> BackendTimes {
        BackendTimes { workers, backends: Segments::new() }
    }

    /// Makes room for so many backends.
    pub(crate) fn grow(&self, backends: usize) {
        let each = || (0..self.workers).map(|_| Durations::new()).collect();
        self.backends.grow(backends, each);
    }

    /// Those that a worker counts of a backend; none where the pool has no such seat.
    #[inline]
    pub(crate) fn of(&self, worker: usize, backend: BackendId) -> Option<&Durations> {
        self.backends.get(backend.index())?.get(worker)
    }

    /// Forgets what was counted of a backend: it is gone, and its seat may be given to another.
    pub(crate) fn forget(&self, backend: BackendId) {
        let all = self.backends.get(backend.index()).into_iter().flatten();
        all.for_each(Durations::forget);
    }

    /// What all workers have counted of a backend.
    pub(crate) fn read(&self, backend: BackendId) -> Reading {
        let mut sum = Reading::default();
        let all = self.backends.get(backend.index()).into_iter().flatten();
        all.for_each(|one| sum.merge(&one.read()));
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::histogram::Histogram;

    #[test]
    fn they_fit_into_512_bytes_and_into_lines_of_their_own() {
        assert_eq!((size_of::<Durations>(), align_of::<Durations>()), (512, 128));
    }

    #[test]
    fn what_a_core_counts_others_read_while_it_counts() {
        let (durations, time) = (Durations::new(), Micros(2_499));
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
