//! Permits for trials: while a backend is half-open, exactly so many requests at once try it, from
//! all cores together.
//!
//! One word for each backend, `epoch << 16 | permits left`. The health thread alone begins and ends
//! a half-open period, which moves the epoch; any core takes a permit and gives it back, and its
//! permit remembers the epoch, so one of an earlier period never counts in a later one. Touched
//! only while a backend is half-open: the named exception to single writers.

use std::sync::Arc;

use super::atomics::{AtomicU64, Relaxed};
use crate::base::ids::{BackendId, PoolId};

const PERMITS_BITS: u32 = 16;
const PERMITS: u64 = (1 << PERMITS_BITS) - 1;

/// The period that a word tells of.
#[allow(clippy::cast_possible_truncation)] // `open` keeps it to 32 bits
fn epoch(word: u64) -> u32 {
    (word >> PERMITS_BITS) as u32
}

/// The permits of all backends.
#[derive(Clone)]
pub(crate) struct Trials(Arc<[Box<[Arc<AtomicU64>]>]>);

/// A permit to try a backend. Given back when it is dropped: whoever leaves decides nothing.
pub(crate) struct Trial {
    /// None once it is decided.
    word: Option<Arc<AtomicU64>>,
    epoch: u32,
}

impl Trials {
    /// Of pools that have so many backends; nobody is on trial.
    pub(crate) fn new(backends: impl Iterator<Item = usize>) -> Trials {
        let word = |_| Arc::new(AtomicU64::new(0));
        Trials(backends.map(|count| (0..count).map(word).collect()).collect())
    }

    /// A permit to try a backend, if one is left.
    pub(crate) fn take(&self, pool: PoolId, backend: BackendId) -> Option<Trial> {
        let word = self.of(pool, backend)?;
        let one_less = |value: u64| (value & PERMITS != 0).then(|| value - 1);
        let former = word.fetch_update(Relaxed, Relaxed, one_less).ok()?;
        Some(Trial { word: Some(Arc::clone(word)), epoch: epoch(former) })
    }

    /// Begins a half-open period with so many permits. Only the health thread may call it, and
    /// before it publishes that the backend is on trial.
    pub(crate) fn open(&self, pool: PoolId, backend: BackendId, permits: u16) {
        if let Some(word) = self.of(pool, backend) {
            // A permit taken at this very moment is overwritten: it is of the earlier epoch.
            let epoch = u64::from(epoch(word.load(Relaxed)).wrapping_add(1));
            word.store(epoch << PERMITS_BITS | u64::from(permits), Relaxed);
        }
    }

    /// Ends it. Only the health thread may call it.
    pub(crate) fn close(&self, pool: PoolId, backend: BackendId) {
        self.open(pool, backend, 0);
    }

    /// The period a backend is in: what a trial of another period found out says nothing any more.
    pub(crate) fn epoch(&self, pool: PoolId, backend: BackendId) -> u32 {
        self.of(pool, backend).map_or(0, |word| epoch(word.load(Relaxed)))
    }

    fn of(&self, pool: PoolId, backend: BackendId) -> Option<&Arc<AtomicU64>> {
        self.0.get(pool.index())?.get(backend.index())
    }
}

impl Trial {
    /// The period it belongs to, for the message that tells its outcome.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its outcome was told to the health thread; where it could not be told, drop it instead.
    /// After a success the next may try; after a failure nobody may, until the health thread has
    /// ended the period.
    pub(crate) fn decide(mut self, is_ok: bool) {
        if !is_ok {
            self.word = None;
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let Some(word) = &self.word else { return };
        let one_more = |value: u64| (epoch(value) == self.epoch).then(|| value + 1);
        // Refused: the period is over, and its permits with it.
        let _ = word.fetch_update(Relaxed, Relaxed, one_more);
    }
}
