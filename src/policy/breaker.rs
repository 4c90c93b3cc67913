//! The circuit breaker of a backend: *closed* lets traffic through, *open* stops it, *half-open*
//! lets trials through.
//!
//! It looks back over a sliding window in ten buckets, fed from the totals of all cores each time
//! that a request has failed; it needs no word of a success. Whether it may open depends on the
//! other backends and is decided in `standing.rs`. A trial that its client left decides nothing.

use super::backoff;
use crate::base::{rng::Rng, totals::Totals};
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
        until: u64,
    },
    HalfOpen {
        /// Trials that succeeded.
        ok: u16,
    },
}

impl Breaker {
    /// A closed one.
    pub(crate) fn new(now: u64) -> Breaker {
        Breaker { state: State::Closed, window: Window::new(now), times: 0 }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When it lets trials through.
    pub(crate) fn due(&self) -> Option<u64> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Notes what the totals have more than the last time. What is in the window, where that is
    /// enough to open.
    pub(crate) fn failed(
        &mut self,
        plan: &plan::Breaker,
        totals: Totals,
        now: u64,
    ) -> Option<Totals> {
        if self.state != State::Closed {
            self.window.seen = totals;
            return None;
        }
        let width = u64::try_from(plan.window.as_millis()).unwrap_or(u64::MAX) / BUCKETS;
        let Totals { ok, failed } = self.window.observe(width.max(1), totals, now);
        let requests = ok + failed;
        let is_enough = requests >= u64::from(plan.requests_min)
            && u128::from(failed) * 1_000_000
                >= u128::from(plan.error_ratio.0) * u128::from(requests);
        (failed > 0 && is_enough).then_some(Totals { ok, failed })
    }

    /// Opens it: each time in a row twice as long.
    pub(crate) fn open(&mut self, plan: &plan::Breaker, now: u64, rng: &mut Rng) {
        let open_ms = backoff::grown(plan.open, plan.open_max, self.times, rng);
        self.times = self.times.saturating_add(1);
        self.state = State::Open { until: now.saturating_add(open_ms) };
    }

    /// Lets trials through, where it is open.
    pub(crate) fn end(&mut self) {
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen { ok: 0 };
        }
    }

    /// A trial ended: any failure opens it again, enough successes close it.
    pub(crate) fn tried(&mut self, plan: &plan::Breaker, is_ok: bool, now: u64, rng: &mut Rng) {
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

/// How requests ended of late, in buckets of equal width.
#[derive(Clone, Debug)]
struct Window {
    buckets: [Totals; BUCKETS as usize],
    /// The number of the newest bucket since the beginning of time.
    newest: u64,
    /// The totals that the buckets hold already, and when they were read.
    seen: Totals,
    seen_at: u64,
}

impl Window {
    fn new(now: u64) -> Window {
        Window {
            buckets: [Totals::default(); BUCKETS as usize],
            newest: 0,
            seen: Totals::default(),
            seen_at: now,
        }
    }

    /// Forgets what is in it. The totals seen last stay: nearly nothing succeeded while it was
    /// open, so what is more at the next failure succeeded since.
    fn clear(&mut self, now: u64) {
        *self = Window { seen: self.seen, ..Window::new(now) };
    }

    /// Notes totals and sums the window up. What failed did so just now; what succeeded since the
    /// last reading did so evenly.
    fn observe(&mut self, width: u64, totals: Totals, now: u64) -> Totals {
        let newest = now / width;
        for stale in (self.newest + 1..=newest).take(BUCKETS as usize) {
            *self.bucket(stale) = Totals::default();
        }
        self.newest = self.newest.max(newest);
        let ok = totals.ok.saturating_sub(self.seen.ok);
        let failed = totals.failed.saturating_sub(self.seen.failed);
        let over = newest.saturating_sub(self.seen_at / width) + 1;
        for back in 0..over.min(BUCKETS) {
            // What does not divide evenly falls into the newest.
            let rest = if back == 0 { ok % over } else { 0 };
            self.bucket(newest - back).ok += ok / over + rest;
        }
        self.bucket(newest).failed += failed;
        (self.seen, self.seen_at) = (totals, now);
        self.buckets.iter().fold(Totals::default(), |sum, bucket| Totals {
            ok: sum.ok + bucket.ok,
            failed: sum.failed + bucket.failed,
        })
    }

    #[allow(clippy::cast_possible_truncation)] // below `BUCKETS`
    fn bucket(&mut self, number: u64) -> &mut Totals {
        &mut self.buckets[(number % BUCKETS) as usize]
    }
}
