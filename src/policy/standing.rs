//! Who of a pool may be asked: probes, ejection, breaker, panic and addresses, put together.
//!
//! Owned by the health thread, one for each pool; what it says is published for all cores
//! (`shared/standing.rs`, `shared/trials.rs`). It decides for the process, so all cores agree.
//! Pure: the health thread tells it what happened and when, calls `turn` when something is due,
//! and then carries out what has changed.

use std::{time::Duration, vec::Drain};

use super::health::ProbeFault;
use crate::base::{backend_set::BackendSet, ids::BackendId, totals::Totals};
use crate::plan::Pool;

/// What a backend is, in one of the ways to look at it; a change stays within one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// By its probes.
    Up,
    Down,
    /// By its answers: it takes part.
    Admitted,
    /// It is left out for a while.
    Ejected,
    /// It may return if a trial succeeds.
    Returning,
    /// Its circuit breaker lets traffic through.
    Closed,
    /// It stops it.
    Open,
    /// It lets trials through.
    HalfOpen,
}

/// Why a backend changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A probe failed, and as many before it as `fall` asks for.
    Probe(ProbeFault),
    /// As many probes succeeded as `rise` asks for.
    Probes,
    /// So many requests failed in a row.
    Failures(u64),
    /// So many of so many requests in the window failed.
    Ratio {
        failed: u64,
        requests: u64,
    },
    /// Its time out is over.
    Elapsed,
    /// A trial succeeded, or as many as `successes` asks for.
    TrialOk,
    TrialFailed,
    /// No other backend could be asked.
    Last,
}

/// What people and metrics are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Backend {
        backend: BackendId,
        from: State,
        to: State,
        cause: Cause,
        /// How long it was in the former state.
        lasted_ms: u64,
    },
    /// So few are usable that all are used; or no longer.
    Panic { is_on: bool, usable: usize, of: usize },
}

/// What the health thread does to `shared/trials.rs`, before it publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// A half-open period begins, with so many permits.
    Begins(BackendId, u16),
    Ends(BackendId),
}

/// Who of a pool may be asked.
pub(crate) struct Standing {
    usable: BackendSet,
    on_trial: BackendSet,
    changes: Vec<Change>,
    periods: Vec<Period>,
}

impl Standing {
    /// Of a pool at the start of the process: who has an address is usable.
    pub(crate) fn new(pool: &Pool, seed: u64, now: u64) -> Standing {
        Standing {
            usable: BackendSet::first(pool.backends.len()),
            on_trial: BackendSet::EMPTY,
            changes: Vec::new(),
            periods: Vec::new(),
        }
    }

    /// A probe has ended.
    pub(crate) fn probed(&mut self, id: BackendId, result: Result<(), ProbeFault>, now: u64) {}

    /// From the start of a backend's last probe to that of its next, before jitter: shorter while
    /// its state is about to change or not yet known.
    pub(crate) fn interval(&self, id: BackendId) -> Duration {
        Duration::from_secs(5)
    }

    /// A request failed for which the backend is to blame. `totals` were read after that.
    pub(crate) fn failed(&mut self, id: BackendId, totals: Totals, now: u64) {}

    /// A trial of the present period is decided.
    pub(crate) fn tried(&mut self, id: BackendId, is_ok: bool, now: u64) {}

    /// Its name gives an address, or gives none any more.
    pub(crate) fn addressed(&mut self, id: BackendId, has_address: bool, now: u64) {}

    /// Does what is due; when something is due next, later than `now`.
    pub(crate) fn turn(&mut self, now: u64) -> Option<u64> {
        None
    }

    /// Who may be asked.
    pub(crate) fn usable(&self) -> BackendSet {
        self.usable
    }

    /// Who may be asked with a permit.
    pub(crate) fn on_trial(&self) -> BackendSet {
        self.on_trial
    }

    /// Periods of trials that began or ended, in order: `Trials::open` and `close`.
    pub(crate) fn periods(&mut self) -> Drain<'_, Period> {
        self.periods.drain(..)
    }

    /// What people and metrics are told.
    pub(crate) fn changes(&mut self) -> Drain<'_, Change> {
        self.changes.drain(..)
    }
}
