//! Who fails counts as busier: a backend that answers 500 at once has never anything under way, and
//! whoever looks for the least would ask it and no other.
//!
//! Its failures stand in for the load that it would have if it worked, and raise the cost of asking
//! it up to elevenfold. One failure in twenty costs nothing; where all fail alike it changes
//! nothing. Forgotten within tens of seconds, so a backend that works again is tried again.
//!
//! Where nobody fails, nothing is noted and a pick costs what it did: successes are of interest
//! only where there was a failure before.

use std::time::Duration;

use super::{Candidates, known::Known};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};

/// How many times more a backend costs that fails always: 1 and this.
const FAILING_COST: f32 = 10.0;

/// The share of failures that costs nothing: one now and then.
const FAILING_FREE: f32 = 0.05;

/// Below this share a backend is no longer thought of.
const FORGOTTEN: f32 = 0.005;

/// How old what is added may be.
const EXTRA: Duration = Duration::from_millis(10);

/// How busy a backend counts that has this much under way for the mean weight and of whose requests
/// this share fails, where the mean of all has so much: 1 = it is idle and fails in nothing.
#[inline]
pub(super) fn busyness(load: f32, failing: f32, mean_load: f32) -> f32 {
    let failing = (failing - FAILING_FREE).max(0.0);
    (1.0 + load + failing * mean_load) * (1.0 + FAILING_COST * failing)
}

/// What is under way at a backend, for the mean weight.
#[inline]
pub(super) fn relative_load(id: BackendId, candidates: &Candidates<'_>) -> f32 {
    let load = candidates.load(id);
    load.in_flight as f32 * candidates.weights.mean() / f32::from(load.weight.max(1))
}

/// What one core adds to the loads of those that fail.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    known: Known,
    /// Who failed of late.
    some: BackendSet,
    /// What is added to what each has under way.
    extra: Vec<u32>,
    /// When that is worked out again; none = at once.
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

    /// Goes on with what another knows.
    pub(super) fn take_over(&mut self, before: Failing) {
        self.known.take_over(before.known);
        for id in before.some.iter().filter(|id| id.index() < self.extra.len()) {
            self.some.insert(id);
        }
    }

    /// What is to be added to what each backend has under way; empty where none fails.
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
                // Any part of a request is one: it decides between two that are idle.
                *extra = (more * weight).ceil() as u32;
            }
        }
    }

    /// Notes how a request of this core ended.
    #[inline]
    pub(super) fn observe(&mut self, id: BackendId, failed: bool, now: Tick) {
        if failed || self.some.contains(id) {
            self.note(id, failed, now);
        }
    }

    #[cold]
    fn note(&mut self, id: BackendId, failed: bool, now: Tick) {
        if !self.some.contains(id) {
            // It did well as far as anybody has noted: one failure does not say that it fails.
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

    /// Takes over what the other cores have published about a backend.
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

    /// A backend came back: what was known of it is of no use.
    pub(super) fn forget(&mut self, id: BackendId, now: Tick) {
        self.known.forget(id, now);
        self.some.remove(id);
        if let Some(extra) = self.extra.get_mut(id.index()) {
            *extra = 0;
        }
    }

    /// What holds after every step.
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

    /// What is added to each of these with so much under way each, after requests of some backends
    /// failed (`a`) or succeeded (`A`), a millisecond each, and so many milliseconds have passed.
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
