//! State changes of a pool and its backends, as reported to people and metrics: before, after, and
//! why.

use std::{fmt, time::Duration};

use crate::base::ids::BackendId;
use crate::policy::health::ProbeFault;

/// The state of a backend in one of three respects (probes, answers, breaker); a change stays
/// within one respect.
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
    /// It stops traffic.
    Open,
    /// It lets trials through.
    HalfOpen,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// With an answer of this status.
    Status(u16),
    /// With this code of the access log.
    Fault(&'static str),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Status(status) => status.fmt(f),
            Failed::Fault(code) => f.write_str(code),
        }
    }
}

/// Why a backend's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A probe failed, and as many before it as `fall` requires.
    Probe(ProbeFault),
    /// As many probes succeeded as `rise` requires.
    Probes,
    /// So many requests failed in a row, and how the last of them did, if that is known.
    Failures(u64, Option<Failed>),
    /// So many of so many requests in the window failed.
    Ratio {
        /// The failed ones.
        failed: u64,
        /// All of them.
        requests: u64,
    },
    /// Its time is over.
    Elapsed,
    /// The last backend that is left fails, too.
    NobodyElse,
    /// A trial succeeded, or as many as `successes` requires.
    TrialOk,
    /// A trial failed.
    TrialFailed,
    /// The plan no longer asks for it.
    Plan,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Probe(fault) => fault.fmt(f),
            Cause::Probes => f.write_str("probes succeed"),
            Cause::Failures(count, None) => write!(f, "{count} failures in a row"),
            Cause::Failures(1, Some(only)) => write!(f, "a failure: {only}"),
            Cause::Failures(count, Some(last)) => {
                write!(f, "{count} failures in a row, the last: {last}")
            }
            Cause::Ratio { failed, requests } => {
                write!(f, "{failed} of {requests} requests failed")
            }
            Cause::Elapsed => f.write_str("its time is over"),
            Cause::NobodyElse => f.write_str("all others fail"),
            Cause::TrialOk => f.write_str("a trial succeeded"),
            Cause::TrialFailed => f.write_str("a trial failed"),
            Cause::Plan => f.write_str("the configuration changed"),
        }
    }
}

/// How the usable backends of a pool are determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Those that are up, admitted and not stopped by their breaker.
    Strict,
    /// None would be left: so ejection does not count, nor, if that is not enough and the plan does
    /// not allow an empty pool, do breakers.
    Lenient,
    /// Fewer would be left than the pool's `panic`: so neither probes nor ejection count.
    Panic,
}

/// A change to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Backend {
        backend: BackendId,
        from: State,
        to: State,
        cause: Cause,
        /// How long the state before lasted.
        lasted: Duration,
    },
    /// The pool's mode changed; `sound` of its `of` backends are healthy.
    Pool { from: Mode, to: Mode, sound: usize, of: usize },
}
