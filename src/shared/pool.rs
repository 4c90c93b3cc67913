//! The state of a pool that all threads share, whatever plan is in force.
//!
//! Made by the owner of the plan when a pool is added; it lives as long as any thread serves a plan
//! that names the pool. It grows before a plan with more backends is published, and never shrinks:
//! a seat (`policy/seats`) may go to another backend when no thread holds a plan that names the
//! first. What a plan says of a pool (limits, weights) is in the plan alone.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    budget::Budget, durations::BackendTimes, load::PoolCounts, permits::Permits,
    queue::SharedQueue, standing::Published, trials::Trials, unreachable::Unreachable,
};
use crate::base::{backend_set::BackendSet, ids::BackendId, segments::Segments};

/// The state of a pool that all threads share.
pub(crate) struct PoolState {
    /// The backends that may be asked; written by the health thread.
    pub(crate) published: Published,
    /// Each worker's counts for each backend.
    pub(crate) load: PoolCounts,
    /// How long answers of each backend took to begin.
    pub(crate) times: BackendTimes,
    /// The permits of backends on trial.
    pub(crate) trials: Trials,
    /// The backends reported as unreachable.
    pub(crate) unreachable: Unreachable,
    /// The retries it has left.
    pub(crate) budget: Budget,
    /// The second copies that it has left.
    pub(crate) hedges: Budget,
    /// After how long a second copy is sent, in microseconds; 0 = not known. Written by the health
    /// thread.
    hedge_after: AtomicU64,
    /// The requests that wait.
    pub(crate) queue: SharedQueue,
    /// What each backend has in flight, if that has a bound.
    slots: Segments<Permits>,
}

impl PoolState {
    /// For this many workers. At first these backends are usable, and this is the retry budget.
    pub(crate) fn new(workers: usize, usable: &BackendSet, retries: u64) -> PoolState {
        PoolState {
            published: Published::new(usable),
            load: PoolCounts::new(workers),
            times: BackendTimes::new(workers),
            trials: Trials::new(),
            unreachable: Unreachable::new(),
            budget: Budget::new(retries),
            hedges: Budget::new(0),
            hedge_after: AtomicU64::new(0),
            queue: SharedQueue::new(workers),
            slots: Segments::new(),
        }
    }

    /// Makes room for this many backends.
    pub(crate) fn grow(&self, backends: usize) {
        self.load.grow(backends);
        self.times.grow(backends);
        self.trials.grow(backends);
        self.unreachable.grow(backends);
        self.queue.grow(backends);
        self.slots.grow(backends, || Permits::new(0));
    }

    /// After how long a second copy of a request is sent at present, if that is known.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        let micros = self.hedge_after.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Only the health thread may call it.
    pub(crate) fn set_hedge_after(&self, after: Duration) {
        self.hedge_after.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What a backend may have in flight, up to `max`; 0 = no bound.
    pub(crate) fn slots(&self, backend: BackendId, max: u32) -> Permits {
        self.slots.get(backend.index()).map_or_else(|| Permits::new(0), |it| it.with_max(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::Tick;

    #[test]
    fn what_is_held_of_a_backend_is_held_when_the_pool_has_grown() {
        let now = Tick::from_millis(5);
        let pool = PoolState::new(1, &BackendSet::first(1), 0);
        pool.grow(1);
        let (first, late) = (BackendId(0), BackendId(1_000));
        let held = pool.slots(first, 1).take();
        pool.trials.open(first, 1);
        let trial = pool.trials.take(first, now);
        assert!(held.is_some() && trial.is_some());
        assert!(pool.slots(late, 1).take().is_some_and(|it| !it.is_of_a_limit()), "it has no seat");
        pool.grow(1_024);
        assert!(pool.slots(first, 1).take().is_none() && pool.slots(first, 2).take().is_some());
        assert!(pool.trials.take(first, now).is_none());
        assert!(pool.slots(late, 1).take().is_some_and(|permit| permit.is_of_a_limit()));
    }
}
