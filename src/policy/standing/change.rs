//! What people and metrics are told of a pool: what a backend was, is, and why.

use std::{fmt, time::Duration};

use crate::base::ids::BackendId;
use crate::policy::health::ProbeFault;

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
    /// It takes part again if a trial succeeds.
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
#[non_exhaustive]
pub enum Cause {
    /// A probe failed, and as many before it as `fall` asks for.
    Probe(ProbeFault),
    /// As many probes succeeded as `rise` asks for.
    Probes,
    /// So many requests failed in a row.
    Failures(u64),
    /// So many of so many requests in the window failed.
    Ratio {
        /// Those that failed.
        failed: u64,
        /// All of them.
        requests: u64,
    },
    /// Its time is over.
    Elapsed,
    /// The last that is left fails, too.
    NobodyElse,
    /// A trial succeeded, or as many as `successes` asks for.
    TrialOk,
    /// A trial failed.
    TrialFailed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Probe(fault) => fault.fmt(f),
            Cause::Probes => f.write_str("probes succeed"),
            Cause::Failures(count) => write!(f, "{count} failures in a row"),
            Cause::Ratio { failed, requests } => {
                write!(f, "{failed} of {requests} requests failed")
            }
            Cause::Elapsed => f.write_str("its time is over"),
            Cause::NobodyElse => f.write_str("all others fail"),
            Cause::TrialOk => f.write_str("a trial succeeded"),
            Cause::TrialFailed => f.write_str("a trial failed"),
        }
    }
}

/// How it is decided who of a pool is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Who is up, admitted and not stopped by its breaker.
    Strict,
    /// Nobody would be left: so ejection does not count, nor, where that is not enough and the
    /// plan does not allow an empty pool, do breakers.
    Lenient,
    /// Fewer would be left than the pool's `panic`: so neither probes nor ejection count.
    Panic,
}

/// What people and metrics are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Backend {
        backend: BackendId,
        from: State,
        to: State,
        cause: Cause,
        /// How long it was what it was.
        lasted: Duration,
    },
    /// Of the pool itself; so many of so many are as they should be.
    Pool { from: Mode, to: Mode, sound: usize, of: usize },
}
