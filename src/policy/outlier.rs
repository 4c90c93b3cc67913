//! Passive ejection: a backend that fails requests in a row is left out for a while.
//!
//! One `Outlier` for each backend, which counts, and knows how long it stays out; whether it may be
//! left out at all depends on the others and is decided in `standing.rs`. A row is over all cores:
//! it lasts while the merged count of successes has not moved. It returns by one trial.

use std::time::Duration;

use super::backoff;
use crate::base::{rng::Rng, totals::Totals};
use crate::plan::Passive;

/// The longest that a backend is left out, but for jitter, and unless the plan asks for more.
const EJECT_MAX: Duration = Duration::from_secs(300);

/// What is known of one backend by its answers.
#[derive(Clone, Debug)]
pub(crate) struct Outlier {
    state: State,
    /// The totals before the present row of failures.
    before: Option<Totals>,
    /// All failures that were seen.
    seen: u64,
    /// How often it was left out of late.
    times: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes part.
    Admitted { since: u64 },
    /// It is left out.
    Ejected { until: u64 },
    /// It takes part again if a trial succeeds.
    Returning,
}

/// How many of so many backends may be left out at once; one always may.
pub(crate) fn ejected_max(passive: &Passive, backends: usize) -> usize {
    let share = u64::from(passive.ejected_max.0) * backends as u64 / 1_000_000;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

impl Outlier {
    /// Of a backend that takes part.
    pub(crate) fn new(now: u64) -> Outlier {
        Outlier { state: State::Admitted { since: now }, before: None, seen: 0, times: 0 }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When its time out is over.
    pub(crate) fn due(&self) -> Option<u64> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::Admitted { .. } | State::Returning => None,
        }
    }

    /// Notes failures, if these totals have more than the last. How many have failed in a row
    /// where that is enough to leave it out, and is news.
    ///
    /// A success in the moment between a failure and the reading of its totals counts as before
    /// it: the row may then be taken for longer by one.
    pub(crate) fn failed(&mut self, passive: &Passive, totals: Totals) -> Option<u64> {
        if totals.failed == self.seen {
            return None;
        }
        self.seen = totals.failed;
        let begins = Totals { ok: totals.ok, failed: totals.failed.saturating_sub(1) };
        let before = self.before.filter(|before| before.ok == totals.ok).unwrap_or(begins);
        self.before = Some(before);
        let length = totals.failed.saturating_sub(before.failed);
        let max = u64::from(passive.failures_max);
        (max > 0 && length >= max).then_some(length)
    }

    /// Leaves it out: twice as long as the last time, unless it did well in between for long
    /// enough to make up for some of that.
    pub(crate) fn eject(&mut self, passive: &Passive, now: u64, rng: &mut Rng) {
        if let State::Admitted { since } = self.state {
            let interval = u64::try_from(passive.eject.as_millis()).unwrap_or(u64::MAX).max(1);
            let healthy = now.saturating_sub(since) / interval;
            self.times = self.times.saturating_sub(u8::try_from(healthy).unwrap_or(u8::MAX));
        }
        let out_ms = backoff::grown(passive.eject, EJECT_MAX, self.times, rng);
        self.times = self.times.saturating_add(1);
        self.state = State::Ejected { until: now.saturating_add(out_ms) };
    }

    /// Lets it try, where it is left out.
    pub(crate) fn end(&mut self) {
        if let State::Ejected { .. } = self.state {
            self.state = State::Returning;
        }
    }

    /// A trial decides whether it takes part again.
    pub(crate) fn tried(&mut self, passive: &Passive, is_ok: bool, now: u64, rng: &mut Rng) {
        match self.state {
            State::Returning if is_ok => {
                self.state = State::Admitted { since: now };
                // The next failure begins a row, whatever succeeded before.
                self.before = None;
            }
            State::Returning => self.eject(passive, now, rng),
            State::Admitted { .. } | State::Ejected { .. } => {}
        }
    }
}
