//! Slow start: a backend that returned gets its share gradually, so that cold caches and pools do
//! not take the full load at once.
//!
//! Its weight grows linearly with time, never below a tenth, and is computed again when a pick
//! finds that the clock has moved: there is no timer. If every candidate is in its slow start all
//! have their full weight, since no other backend could take the rest. A process begins without it.
//! Weights are in hundredths here, so that a tenth of 1 is not 0.

use std::num::NonZeroU64;

use super::Weights;
use crate::base::{
    backend_set::BackendSet,
    ids::BackendId,
    moment::{Tick, millis},
};
use crate::plan::{Backend, Pool};

/// The share at the beginning, in hundredths.
const FLOOR: u64 = 10;

/// The shares of a pool with slow start.
#[derive(Clone, Debug)]
pub(crate) struct SlowStart {
    /// How long it takes.
    time_ms: NonZeroU64,
    /// The backends in slow start.
    starting: BackendSet,
    /// Since when; none = never.
    since: Vec<Option<Tick>>,
    full: Weights,
    /// The weights as of `at`, if any backend has started since the beginning.
    growing: Weights,
    at: Option<Tick>,
}

impl SlowStart {
    /// For a pool; none if it has no slow start.
    pub(crate) fn of(pool: &Pool) -> Option<Box<SlowStart>> {
        let time_ms = NonZeroU64::new(millis(pool.slow_start))?;
        let weight = |backend: Option<&Backend>| backend.map_or(0, |backend| backend.share() * 100);
        let full = Weights::new(pool.backends.seats().map(weight));
        Some(Box::new(SlowStart {
            time_ms,
            starting: BackendSet::EMPTY,
            since: vec![None; pool.backends.span()],
            growing: full.clone(),
            full,
            at: None,
        }))
    }

    /// Backends that were in slow start before continue with it.
    pub(crate) fn take_over(&mut self, before: SlowStart) {
        self.since.iter_mut().zip(before.since).for_each(|(to, from)| *to = from);
        for id in before.starting.iter().filter(|id| id.index() < self.since.len()) {
            self.starting.insert(id);
        }
    }

    /// A backend returned.
    pub(crate) fn begin(&mut self, id: BackendId, now: Tick) {
        if let Some(since) = self.since.get_mut(id.index()) {
            *since = Some(now);
            self.starting.insert(id);
            self.grow(now);
        }
    }

    /// The shares of these backends at this time.
    #[inline]
    pub(crate) fn weights(&mut self, usable: &BackendSet, now: Tick) -> &Weights {
        if self.starting.is_empty() {
            return &self.full;
        }
        if self.at != Some(now) {
            self.grow(now);
        }
        let all_are_starting = (*usable & !self.starting).is_empty();
        if all_are_starting { &self.full } else { &self.growing }
    }

    fn grow(&mut self, now: Tick) {
        self.at = Some(now);
        let SlowStart { time_ms, starting, since, full, growing, .. } = self;
        let age_ms = |since: Option<Tick>| since.map_or(u64::MAX, |since| millis(now.since(since)));
        for (id, since) in (0..).map(BackendId).zip(&*since) {
            if age_ms(*since) >= time_ms.get() {
                starting.remove(id);
            }
        }
        let backends = (0..).map(BackendId).zip(full.each()).zip(&*since);
        growing.refill(backends.map(|((id, weight), since)| {
            if !starting.contains(id) {
                return *weight;
            }
            let percent = (age_ms(*since) * 100 / *time_ms).max(FLOOR);
            u16::try_from(u64::from(*weight) * percent / 100).unwrap_or(*weight)
        }));
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        for (id, (growing, full)) in self.growing.each().iter().zip(self.full.each()).enumerate() {
            let id = BackendId(u16::try_from(id).expect("few backends"));
            assert!(
                growing <= full && u32::from(*growing) * 10 >= u32::from(*full),
                "{id:?}: {growing} of {full}"
            );
            assert!(growing == full || self.starting.contains(id), "{id:?} is not starting");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::balance::tests::pool;

    /// After these backends returned, at these times, the shares of 3 backends at `now`.
    fn check(returned: &[(u16, u64)], usable: &[u16], now: u64, expected: &[u16]) {
        let pool = Pool { slow_start: Duration::from_secs(10), ..pool(&[1, 2, 256]) };
        let mut slow_start = SlowStart::of(&pool).expect("it has one");
        for (id, since) in returned {
            slow_start.begin(BackendId(*id), Tick::from_millis(*since));
            slow_start.check_invariants();
        }
        let mut set = BackendSet::EMPTY;
        usable.iter().for_each(|id| set.insert(BackendId(*id)));
        assert_eq!(
            slow_start.weights(&set, Tick::from_millis(now)).each(),
            expected,
            "{returned:?} at {now}"
        );
        slow_start.check_invariants();
    }

    #[test]
    fn grows_from_a_tenth_to_the_whole() {
        check(&[], &[0, 1, 2], 5, &[100, 200, 25_600]);
        check(&[(0, 5)], &[0, 1, 2], 5, &[10, 200, 25_600]);
        check(&[(0, 5)], &[0, 1, 2], 1_005, &[10, 200, 25_600]);
        check(&[(0, 5), (2, 1_005)], &[0, 1, 2], 5_005, &[50, 200, 10_240]);
        check(&[(0, 5)], &[0, 1, 2], 10_004, &[99, 200, 25_600]);
        check(&[(0, 5)], &[0, 1, 2], 10_005, &[100, 200, 25_600]);
        check(&[(0, 5), (0, 9_005)], &[0, 1, 2], 10_005, &[10, 200, 25_600]);
    }

    #[test]
    fn counts_for_nothing_where_all_that_are_usable_are_in_it() {
        check(&[(0, 5), (1, 5)], &[0, 1], 5, &[100, 200, 25_600]);
        check(&[(0, 5), (1, 5)], &[0, 1, 2], 5, &[10, 20, 25_600]);
        check(&[(1, 5)], &[1], 5, &[100, 200, 25_600]);
    }

    #[test]
    fn there_is_none_by_default() {
        assert!(SlowStart::of(&pool(&[1])).is_none());
    }
}
