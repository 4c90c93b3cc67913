//! Permits for trials: while a backend is on trial, half-open or back from an ejection, exactly so
//! many requests at once try it, from all cores together.
//!
//! One word for each backend, `epoch << 16 | permits left`. The health thread alone begins and ends
//! a period of trials, which moves the epoch; any core takes a permit and gives it back, and its
//! permit remembers the epoch, so one of an earlier period never counts in a later one. Touched
//! only while a backend is on trial: an exception to single writers.

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

    /// Begins a period with so many permits. Only the health thread may call it, and before it
    /// publishes that the backend is on trial.
    pub(crate) fn open(&self, pool: PoolId, backend: BackendId, permits: u16) {
        let Some(word) = self.of(pool, backend) else { return };
        let begin = |word: u64| {
            let epoch = u64::from(epoch(word).wrapping_add(1));
            Some(epoch << PERMITS_BITS | u64::from(permits))
        };
        // Whatever was taken or given back meanwhile is of the earlier period. Never refused.
        let _ = word.fetch_update(Relaxed, Relaxed, begin);
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

#[cfg(test)]
mod tests {
    use super::super::atomics::{every_order, spawn};
    use super::*;

    const POOL: PoolId = PoolId(0);
    const BACKEND: BackendId = BackendId(1);

    /// Trials of which `permits` may be under way.
    fn opened(permits: u16) -> Trials {
        let trials = Trials::new([2].into_iter());
        trials.open(POOL, BACKEND, permits);
        trials
    }

    /// Takes all permits that are left.
    fn left(trials: &Trials) -> usize {
        let all: Vec<Trial> = std::iter::from_fn(|| trials.take(POOL, BACKEND)).collect();
        all.len()
    }

    #[test]
    fn gives_out_exactly_as_many_as_were_opened() {
        every_order(|| {
            let trials = opened(2);
            let (first, second) = (trials.take(POOL, BACKEND), trials.take(POOL, BACKEND));
            assert!(first.is_some() && second.is_some());
            assert!(trials.take(POOL, BACKEND).is_none());
            drop(first);
            assert_eq!(left(&trials), 1);
            assert!(trials.take(POOL, BackendId(0)).is_none(), "it is not on trial");
            assert!(trials.take(POOL, BackendId(2)).is_none(), "there is none");
        });
    }

    #[test]
    fn a_success_lets_the_next_try_and_a_failure_nobody() {
        every_order(|| {
            let trials = opened(1);
            trials.take(POOL, BACKEND).unwrap().decide(true);
            assert_eq!(left(&trials), 1);
            trials.take(POOL, BACKEND).unwrap().decide(false);
            assert_eq!(left(&trials), 0);
            trials.close(POOL, BACKEND);
            assert_eq!(left(&trials), 0);
            trials.open(POOL, BACKEND, 1);
            assert_eq!(left(&trials), 1);
        });
    }

    #[test]
    fn two_cores_that_race_for_one_permit_get_one() {
        every_order(|| {
            let trials = opened(1);
            let other = trials.clone();
            let other = spawn(move || other.take(POOL, BACKEND));
            let own = trials.take(POOL, BACKEND);
            let other = other.join().unwrap();
            assert!(own.is_some() != other.is_some());
            drop((own, other));
            assert_eq!(left(&trials), 1);
        });
    }

    #[test]
    fn a_client_that_leaves_gives_back_what_it_took_and_no_more() {
        every_order(|| {
            let trials = opened(1);
            let other = trials.clone();
            let leaving = spawn(move || drop(other.take(POOL, BACKEND)));
            let own = trials.take(POOL, BACKEND);
            leaving.join().unwrap();
            assert_eq!(usize::from(own.is_some()) + left(&trials), 1);
        });
    }

    #[test]
    fn a_core_that_ends_gives_back_what_its_requests_held() {
        every_order(|| {
            let trials = opened(2);
            let core = trials.clone();
            let ending = spawn(move || {
                let _held = [core.take(POOL, BACKEND), core.take(POOL, BACKEND)];
                // The core's tasks are dropped with their requests.
            });
            let own = trials.take(POOL, BACKEND);
            ending.join().unwrap();
            assert_eq!(usize::from(own.is_some()) + left(&trials), 2);
        });
    }

    #[test]
    fn a_permit_of_an_earlier_period_does_not_leak_into_a_later_one() {
        every_order(|| {
            let trials = opened(1);
            let early = trials.take(POOL, BACKEND).unwrap();
            let of_early = early.epoch();
            let leaving = spawn(move || drop(early));
            trials.close(POOL, BACKEND);
            trials.open(POOL, BACKEND, 1);
            let own = trials.take(POOL, BACKEND).unwrap();
            leaving.join().unwrap();
            assert_ne!(own.epoch(), of_early);
            assert_eq!(own.epoch(), trials.epoch(POOL, BACKEND));
            assert_eq!(left(&trials), 0, "the early one was given back to the later period");
        });
    }

    #[test]
    fn a_permit_taken_while_its_period_ends_is_of_one_period() {
        every_order(|| {
            let trials = opened(1);
            let other = trials.clone();
            let taking = spawn(move || other.take(POOL, BACKEND));
            trials.close(POOL, BACKEND);
            trials.open(POOL, BACKEND, 1);
            let taken = taking.join().unwrap();
            let is_present =
                taken.as_ref().is_some_and(|taken| taken.epoch() == trials.epoch(POOL, BACKEND));
            assert_eq!(usize::from(is_present) + left(&trials), 1);
            drop(taken);
            assert_eq!(left(&trials), 1);
        });
    }
}
