//! The circuit breaker of a backend: *closed* lets traffic through, *open* stops it, *half-open*
//! lets trials through.
//!
//! It covers a sliding window in ten buckets, updated from the totals of all cores each time that a
//! request has failed; it needs no message for a success. Whether it may open depends on the other
//! backends and is decided in `standing`. A trial that its client left decides nothing.

use std::time::Duration;

use super::{
    backoff,
    standing::{Carried, Pause},
};
use crate::base::{
    moment::{Tick, millis},
    rng::Rng,
    totals::Totals,
};
use crate::plan;

const BUCKETS: u64 = 10;

/// One backend's breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    state: State,
    window: Window,
    /// How often in a row it has opened.
    times: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    Open {
        until: Tick,
    },
    HalfOpen {
        /// Trials that succeeded.
        ok: u16,
    },
}

impl Breaker {
    /// A closed breaker.
    pub(crate) fn new(now: Tick) -> Breaker {
        Breaker { state: State::Closed, window: Window::new(now), times: 0 }
    }

    /// Writes down what it knows, for the next process.
    pub(super) fn carry(&self, plan: Option<&plan::Breaker>, into: &mut Carried, now: Tick) {
        if let (Some(plan), State::Closed) = (plan, self.state) {
            let mut window = self.window.clone();
            let Totals { ok, failed, .. } = window.observe(plan.window, self.window.seen, now);
            into.window = [ok, failed];
        }
        into.openings = self.times;
        into.breaker = match self.state {
            State::Closed => Pause::No,
            State::Open { until } => Pause::until(until, now),
            State::HalfOpen { .. } => Pause::Trial,
        };
    }

    /// Goes on from what another process knew. What its window had counts as just now.
    pub(super) fn resume(&mut self, plan: Option<&plan::Breaker>, from: &Carried, now: Tick) {
        if let Some(plan) = plan {
            let [ok, failed] = from.window;
            // The totals of this process begin at nought.
            self.window.observe(plan.window, Totals { ok, failed, ..Totals::default() }, now);
            self.window.seen = Totals::default();
        }
        self.times = from.openings;
        self.state = match from.breaker {
            Pause::No => State::Closed,
            Pause::Ms(ms) => State::Open { until: now + Duration::from_millis(ms) },
            Pause::Trial => State::HalfOpen { ok: 0 },
        };
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When it lets trials through.
    pub(crate) fn due(&self) -> Option<Tick> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Records how much the totals have grown since the last call. Returns the window if it is
    /// enough to open. Late failures count here as well: the ratio says how many requests are not
    /// served, not how the backend is now.
    pub(crate) fn failed(
        &mut self,
        plan: &plan::Breaker,
        totals: Totals,
        now: Tick,
    ) -> Option<Totals> {
        let totals = totals.with_late();
        if self.state != State::Closed {
            self.window.see(totals);
            return None;
        }
        let Totals { ok, failed, .. } = self.window.observe(plan.window, totals, now);
        let requests = ok + failed;
        let is_enough = requests >= u64::from(plan.requests_min)
            && u128::from(failed) * 1_000_000
                >= u128::from(plan.error_ratio.0) * u128::from(requests);
        (failed > 0 && is_enough).then_some(Totals { ok, failed, ..Totals::default() })
    }

    /// Opens it: each time in a row twice as long.
    pub(crate) fn open(&mut self, plan: &plan::Breaker, now: Tick, rng: &mut Rng) {
        let span = backoff::grown(plan.open, plan.open_max, self.times, rng);
        self.times = self.times.saturating_add(1);
        self.state = State::Open { until: now + span };
    }

    /// Lets trials through, if it is open.
    pub(crate) fn end(&mut self) {
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen { ok: 0 };
        }
    }

    /// A trial ended: any failure opens it again, enough successes close it.
    pub(crate) fn tried(&mut self, plan: &plan::Breaker, is_ok: bool, now: Tick, rng: &mut Rng) {
        match self.state {
            State::HalfOpen { .. } if !is_ok => self.open(plan, now, rng),
            State::HalfOpen { ok } if ok + 1 < plan.successes => {
                self.state = State::HalfOpen { ok: ok + 1 };
            }
            State::HalfOpen { .. } => {
                self.state = State::Closed;
                self.times = 0;
                self.window.clear(now);
            }
            State::Closed | State::Open { .. } => {}
        }
    }
}

/// How recent requests ended, in buckets of equal width.
#[derive(Clone, Debug)]
struct Window {
    buckets: [Totals; BUCKETS as usize],
    /// The number of the newest bucket since the start of the process.
    newest: u64,
    /// The totals that the buckets include already, and when they were read.
    seen: Totals,
    seen_at: Tick,
    /// Whether the totals include failures that do not belong in the buckets.
    is_behind: bool,
}

impl Window {
    fn new(now: Tick) -> Window {
        Window {
            buckets: [Totals::default(); BUCKETS as usize],
            newest: 0,
            seen: Totals::default(),
            seen_at: now,
            is_behind: false,
        }
    }

    /// Empties the window. The totals seen last stay: nearly nothing succeeded while it was open,
    /// so the growth at the next failure is what succeeded since. The failures since may have been
    /// trials, which were not reported here: of those that come with the next one, only that one
    /// counts.
    fn clear(&mut self, now: Tick) {
        *self = Window { seen: self.seen, is_behind: true, ..Window::new(now) };
    }

    /// Records totals and sums up the window. The failures count as just now; the successes since
    /// the last reading as evenly spread.
    fn observe(&mut self, window: Duration, totals: Totals, now: Tick) -> Totals {
        let width_ms = (millis(window) / BUCKETS).max(1);
        let newest = now.millis() / width_ms;
        for stale in (self.newest + 1..=newest).take(BUCKETS as usize) {
            *self.bucket(stale) = Totals::default();
        }
        self.newest = self.newest.max(newest);
        let ok = totals.ok.saturating_sub(self.seen.ok);
        let failed = totals.failed.saturating_sub(self.seen.failed);
        let failed = if std::mem::take(&mut self.is_behind) { failed.min(1) } else { failed };
        let over = newest.saturating_sub(self.seen_at.millis() / width_ms) + 1;
        let within = over.min(BUCKETS);
        let ok =
            u64::try_from(u128::from(ok) * u128::from(within) / u128::from(over)).unwrap_or(ok);
        for back in 0..within {
            self.bucket(newest - back).ok += ok / within;
        }
        self.bucket(newest).ok += ok % within;
        self.bucket(newest).failed += failed;
        self.see(totals);
        self.seen_at = now;
        self.buckets.iter().fold(Totals::default(), |sum, bucket| Totals {
            ok: sum.ok + bucket.ok,
            failed: sum.failed + bucket.failed,
            ..sum
        })
    }

    /// Totals of several cores may arrive in another order than they were read.
    fn see(&mut self, totals: Totals) {
        self.seen.ok = self.seen.ok.max(totals.ok);
        self.seen.failed = self.seen.failed.max(totals.failed);
    }

    #[allow(clippy::cast_possible_truncation)] // below `BUCKETS`
    fn bucket(&mut self, number: u64) -> &mut Totals {
        &mut self.buckets[(number % BUCKETS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Share;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    fn plan(percent: u32, requests_min: u32) -> plan::Breaker {
        plan::Breaker {
            error_ratio: Share::percent(percent),
            requests_min,
            ..plan::Breaker::default()
        }
    }

    /// At each of these times so many requests succeed and then so many fail, of which the last is
    /// reported; the window at the last of them, if that is enough to open.
    #[track_caller]
    fn check(
        (percent, requests_min): (u32, u32),
        requests: &[(u64, u64, u64)],
        expected: Option<(u64, u64)>,
    ) {
        let plan = plan(percent, requests_min);
        let mut breaker = Breaker::new(at(0));
        let (mut totals, mut last) = (Totals::default(), None);
        for (now, ok, failed) in requests {
            assert_eq!(last, None, "it opens before {now}");
            totals.ok += ok;
            totals.failed += failed;
            last = breaker.failed(&plan, totals, at(*now));
        }
        let expected = expected.map(|(ok, failed)| Totals { ok, failed, ..Totals::default() });
        assert_eq!(last, expected, "{percent} % of {requests_min}: {requests:?}");
    }

    #[test]
    fn opens_exactly_at_its_ratio_and_not_with_fewer_requests() {
        check((50, 20), &[(10, 10, 9), (20, 0, 1)], Some((10, 10)));
        check((50, 20), &[(10, 11, 9), (20, 0, 1)], None);
        check((50, 20), &[(10, 0, 19)], None);
        check((50, 20), &[(10, 0, 19), (20, 0, 1)], Some((0, 20)));
        check((100, 1), &[(10, 0, 1)], Some((0, 1)));
        check((1, 100), &[(10, 99, 1)], Some((99, 1)));
        check((1, 100), &[(10, 199, 1)], None);
    }

    #[test]
    fn totals_that_come_late_count_nothing_twice() {
        let (plan, mut breaker) = (plan(50, 20), Breaker::new(at(0)));
        let mut failed =
            |failed| breaker.failed(&plan, Totals { failed, ..Totals::default() }, at(10));
        assert_eq!([failed(10), failed(1), failed(19)], [None; 3]);
        assert!(failed(20).is_some());
    }

    #[test]
    fn forgets_what_is_older_than_its_window() {
        // Ten buckets of a second.
        check((50, 20), &[(500, 0, 19), (9_999, 0, 1)], Some((0, 20)));
        check((50, 20), &[(500, 0, 19), (10_000, 0, 1)], None);
        check((50, 20), &[(500, 0, 19), (3_600_000, 0, 1)], None);
    }

    #[test]
    fn what_succeeded_before_a_failure_did_so_evenly() {
        // 1,000 a second for an hour; then everything fails: of the window 10,000 succeeded.
        let hour = 3_600_000;
        check((50, 20), &[(hour, 3_600_000, 5_000)], None);
        check((50, 20), &[(hour, 3_600_000, 11_000)], Some((9_997, 11_000)));
        // Later they leave the window.
        let late = [(hour, 3_600_000, 1_000), (hour + 5_000, 0, 4_100)];
        check((50, 20), &late, Some((5_002, 5_100)));
    }

    #[test]
    fn closes_after_enough_trials_and_opens_again_after_one() {
        let (plan, mut rng) = (plan(50, 20), Rng::seeded(9));
        let mut breaker = Breaker::new(at(0));
        let mut now = at(0);
        breaker.open(&plan, now, &mut rng);
        // 5 s, doubled up to 60 s, a tenth more or less.
        for ms in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
            let open_ms = millis(breaker.due().unwrap().since(now));
            assert!((ms * 9 / 10..=ms * 11 / 10).contains(&open_ms), "{ms}: {open_ms}");
            now = now + Duration::from_millis(open_ms);
            breaker.tried(&plan, true, now, &mut rng);
            assert_ne!(breaker.state(), State::Closed, "a trial that comes late says nothing");
            breaker.end();
            breaker.tried(&plan, true, now, &mut rng);
            assert_eq!(breaker.state(), State::HalfOpen { ok: 1 });
            breaker.tried(&plan, false, now, &mut rng);
        }
        breaker.end();
        breaker.tried(&plan, true, now, &mut rng);
        breaker.tried(&plan, true, now, &mut rng);
        assert_eq!(breaker.state(), State::Closed);
        breaker.open(&plan, now, &mut rng);
        assert!(
            millis(breaker.due().unwrap().since(now)) <= 5_500,
            "it begins with the shortest time"
        );
    }

    #[test]
    fn who_closes_begins_with_an_empty_window() {
        let plan = plan::Breaker { successes: 1, ..plan(50, 20) };
        let (mut breaker, mut rng) = (Breaker::new(at(0)), Rng::seeded(9));
        let totals = |ok, failed| Totals { ok, failed, ..Totals::default() };
        assert!(breaker.failed(&plan, totals(0, 20), at(1_000)).is_some());
        breaker.open(&plan, at(1_000), &mut rng);
        // Those in flight when it opened.
        assert_eq!(breaker.failed(&plan, totals(0, 40), at(1_001)), None);
        breaker.end();
        breaker.tried(&plan, true, at(6_000), &mut rng);
        // Failures that were not reported may have been trials.
        assert_eq!(breaker.failed(&plan, totals(1, 45), at(6_050)), None);
        assert_eq!(breaker.failed(&plan, totals(1, 63), at(6_100)), Some(totals(1, 19)));
        let narrow = plan::Breaker { window: Duration::ZERO, ..plan };
        assert_eq!(
            breaker.failed(&narrow, totals(1, 64), at(6_200)),
            None,
            "no window holds nothing"
        );
    }
}
