//! Penalty for failing backends: one that answers 500 at once never has anything in flight, so an
//! algorithm that looks for the least load would ask it and no other.
//!
//! Its failures stand in for the load that it would have if it worked, and raise its cost up to
//! elevenfold. One failure in twenty costs nothing; if all fail alike nothing changes. Failures are
//! forgotten within tens of seconds, so a backend that works again is tried again.
//!
//! While no backend fails, nothing is noted and a pick costs nothing extra: successes matter only
//! after a failure.

use std::time::Duration;

use super::{Candidates, known::Known};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};

/// The extra cost of a backend that always fails, in multiples of its normal cost.
const FAILING_COST: f32 = 10.0;

/// The share of failures that costs nothing: one now and then.
const FAILING_FREE: f32 = 0.05;

/// Below this share a backend is dropped from the list.
const FORGOTTEN: f32 = 0.005;

/// How old the additions may be.
const EXTRA: Duration = Duration::from_millis(10);

/// How busy a backend counts that has this much in flight per mean weight and fails this share of
/// its requests, if the mean of all has `mean`: 1 = idle and without failures.
#[inline]
pub(super) fn busyness(load: f32, failing: f32, mean_load: f32) -> f32 {
    let failing = (failing - FAILING_FREE).max(0.0);
    (1.0 + load + failing * mean_load) * (1.0 + FAILING_COST * failing)
}

/// Requests in flight at a backend, per mean weight.
#[inline]
pub(super) fn relative_load(id: BackendId, candidates: &Candidates<'_>) -> f32 {
    let load = candidates.load(id);
    load.in_flight as f32 * candidates.weights.mean() / f32::from(load.weight.max(1))
}

/// The additions of one core to the loads of failing backends.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    known: Known,
    /// Backends that failed recently.
    some: BackendSet,
    /// What is added to the requests in flight at each.
    extra: Vec<u32>,
    /// When the additions are computed again; none = at once.
    due: Option<Tick>,
}

impl Failing {
    pub(super) fn new(cores: usize, backends: usize) -> Failing {
        Failing {
            known: Known::new(cores, backends),
            some: BackendSet::EMPTY,
            extra: vec![0; backends],
            due: None,
        }
    }

    /// Continues with what another instance knows.
    pub(super) fn take_over(&mut self, before: Failing) {
        self.known.take_over(before.known);
        for id in before.some.iter().filter(|id| id.index() < self.extra.len()) {
            self.some.insert(id);
        }
    }

    /// What to add to the requests in flight at each backend; empty if none fails.
    #[inline]
    pub(super) fn extra(&mut self, candidates: &Candidates<'_>) -> &[u32] {
        if self.some.is_empty() {
            return &[];
        }
        if self.due.is_none_or(|due| candidates.now >= due) {
            self.work_out(candidates);
        }
        &self.extra
    }

    #[cold]
    fn work_out(&mut self, candidates: &Candidates<'_>) {
        self.due = Some(candidates.now + EXTRA);
        let loads = candidates.usable.iter().map(|id| relative_load(id, candidates));
        let mean_load = loads.sum::<f32>() / (candidates.usable.len() as f32).max(1.0);
        let some = self.some;
        for id in some.iter() {
            let failing = self.known.of(id).map_or(0.0, |times| times.at(candidates.now).1);
            if failing < FORGOTTEN {
                self.some.remove(id);
                self.known.forget(id, candidates.now);
            }
            let more = busyness(0.0, failing, mean_load) - 1.0;
            let weight = f32::from(candidates.weights.get(id)) / candidates.weights.mean().max(1.0);
            if let Some(extra) = self.extra.get_mut(id.index()) {
                // Rounded up, so that any part of a request decides between two idle backends.
                *extra = (more * weight).ceil() as u32;
            }
        }
    }

    /// Records how a request of this core ended.
    #[inline]
    pub(super) fn observe(&mut self, id: BackendId, failed: bool, now: Tick) {
        if failed || self.some.contains(id) {
            self.note(id, failed, now);
        }
    }

    #[cold]
    fn note(&mut self, id: BackendId, failed: bool, now: Tick) {
        if !self.some.contains(id) {
            // It did well as far as recorded: one failure does not make it a failing backend.
            self.known.see(id, 0.0, false, now);
            self.some.insert(id);
        }
        self.known.see(id, 0.0, failed, now);
        self.due = None;
    }

    /// What this core itself knows of a backend, packed.
    pub(super) fn published(&self, id: BackendId) -> u64 {
        self.known.published(id)
    }

    /// Merges what the other cores have published about a backend.
    pub(super) fn merge(&mut self, id: BackendId, others: impl Iterator<Item = u64>, now: Tick) {
        let mut others = others.filter(|word| *word != 0).peekable();
        if others.peek().is_none() && !self.some.contains(id) {
            return;
        }
        self.known.merge(id, others, now);
        if self.known.of(id).is_some_and(|times| times.at(now).1 >= FORGOTTEN) {
            self.some.insert(id);
        }
    }

    /// A backend returned: what was known of it no longer counts.
    pub(super) fn forget(&mut self, id: BackendId, now: Tick) {
        self.known.forget(id, now);
        self.some.remove(id);
        if let Some(extra) = self.extra.get_mut(id.index()) {
            *extra = 0;
        }
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        self.known.check_invariants();
        for (id, extra) in (0..).map(BackendId).zip(&self.extra) {
            assert!(*extra == 0 || self.some.contains(id), "{id:?} counts as busier and is not");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::policy::balance::Weights;

    /// The additions for these backends with this much in flight each, after requests of some
    /// backends failed (`a`) or succeeded (`A`), a millisecond each, and this many milliseconds
    /// have passed.
    #[track_caller]
    fn check(weights: &[u16], in_flight: u32, requests: &str, ms: u64, expected: &[u32]) {
        let mut failing = Failing::new(1, weights.len());
        let mut now = 1_000;
        for request in requests.bytes() {
            let id = BackendId(u16::from(request.to_ascii_lowercase() - b'a'));
            failing.observe(id, request.is_ascii_lowercase(), Tick::from_millis(now));
            failing.check_invariants();
            now += 1;
        }
        let weights = Weights::new(weights.iter().copied());
        let in_flight: Vec<_> = weights.each().iter().map(|_| Cell::new(in_flight)).collect();
        let candidates = Candidates {
            usable: weights.taking(),
            weights: &weights,
            in_flight: &in_flight,
            extra: &[],
            now: Tick::from_millis(now + ms),
            key: None,
        };
        assert_eq!(failing.extra(&candidates), expected, "{requests}");
        failing.check_invariants();
    }

    #[test]
    fn who_fails_counts_as_busier_until_that_is_forgotten() {
        let often = &"b".repeat(100);
        check(&[1, 1], 0, "", 0, &[]);
        check(&[1, 1], 0, "AAB", 0, &[]);
        check(&[1, 1], 0, "b", 0, &[0, 0]);
        check(&[1, 1], 0, "bb", 0, &[0, 1]);
        check(&[1, 1], 0, "bBbBbBbBbBbBbBbBbBbB", 0, &[0, 2]);
        check(&[1, 1], 0, often, 0, &[0, 10]);
        check(&[1, 1], 4, often, 0, &[0, 46]);
        check(&[1, 1], 0, often, 10_000, &[0, 4]);
        check(&[1, 1], 0, often, 28_000, &[0, 1]);
        check(&[1, 1], 0, often, 60_000, &[0, 0]);
        check(&[3, 1], 0, &often.replace('b', "ab"), 0, &[14, 5]);
    }
}
