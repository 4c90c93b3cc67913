//! Statistics: what all threads have counted, as typed values with names
//! ([`Handle::statistics`](crate::Handle::statistics)).
//!
//! A snapshot gives the counts of all threads, which are kept by seats, the names of the plan in
//! force. It is the one source of whatever shows numbers: `Handle::statistics`, and what will be
//! served of metrics, of the API and of the dashboard. `samples` says every number by the name that
//! metrics have for it.

pub(crate) mod metrics;
mod samples;
mod sources;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::samples::{Sample, Value, families};
pub(crate) use self::sources::{Named, Sources};
pub(in crate::observe) use self::sources::{failed_of, reason_of, word};
pub use crate::base::histogram::Histogram;
use crate::http::fault::Failure;
pub use crate::policy::standing::{BackendState, BreakerState};
pub use crate::shared::{
    counters::{Counter, Kind},
    request_times::Phase,
};

/// What a balancer has counted since its start, and what goes on in it now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// When it was read.
    pub at: SystemTime,
    /// Each core.
    pub cores: Vec<Core>,
    /// Each listener of the plan in force.
    pub listeners: Vec<Listener>,
    /// Each pool of the plan in force.
    pub pools: Vec<Pool>,
    /// The process.
    pub process: Process,
    /// Each certificate in use.
    pub certificates: Vec<Certificate>,
    /// Routes of the plan in force by which requests were timed, and the time of these. Of the
    /// requests that begin on a core within a millisecond, the first is timed; tunnels are not.
    pub routes: Vec<Route>,
    /// What of that was spent in Ringway, and not waiting for either peer.
    pub own_times: Histogram,
    /// What was spent in each phase.
    pub phases: Vec<(Phase, Histogram)>,
    /// The number of the plan in force.
    pub config_generation: u64,
    /// Whether the last reload was taken; true before the first.
    pub config_last_reload_successful: bool,
    /// In the order of `Counter::ALL`.
    totals: Vec<u64>,
}

/// A core.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Core {
    /// Requests that began.
    pub requests: u64,
    /// Client connections open.
    pub connections: u64,
    /// The share of the last half second in which its thread was running or waiting for a
    /// processor, as the core tells the others.
    pub load: f64,
    /// New client connections that it has handed over to cores that were less busy.
    pub moved_new: u64,
    /// Idle ones.
    pub moved_idle: u64,
    /// How long its thread has been running on a processor so far, where the kernel says.
    pub cpu: Option<Duration>,
    /// The share of the last whole second in which it did; none = nobody has measured it.
    pub busy: Option<f64>,
    /// The id of its thread; 0 = it has not begun.
    pub(crate) thread: u32,
}

/// The process, as the kernel counts. What is not known is none.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Process {
    /// How long its threads have been running on processors so far.
    pub cpu: Option<Duration>,
    /// Bytes of memory in use.
    pub resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_descriptors: Option<u64>,
    /// When it began.
    pub started: Option<SystemTime>,
}

/// A listener.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Client connections open.
    pub connections: u64,
    /// Those of them without a request in flight, as of a quarter of a second ago.
    pub idle: u64,
    /// Exchanges that have ended.
    pub requests: Vec<Requests>,
}

/// Exchanges of a listener that have ended alike.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Requests {
    /// The route that took them; none = there was none.
    pub route: Option<Arc<str>>,
    /// The status that the client was sent; none = it was sent none.
    pub code: Option<u16>,
    /// How many.
    pub count: u64,
}

/// The times of a route.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Its name; none = no route took the requests.
    pub name: Option<Arc<str>>,
    /// From the whole head of a request to its end.
    pub times: Histogram,
}

/// A pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Requests that wait in line.
    pub queued: u64,
    /// Requests asked again.
    pub retries: Vec<Retries>,
    /// Its backends.
    pub backends: Vec<Backend>,
}

/// Requests asked again for one reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// What had happened: a status, or a word.
    pub reason: Cow<'static, str>,
    /// How many.
    pub count: u64,
}

/// A backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Tries that have ended, by the status of their answers; none = there was no answer.
    pub tries: Vec<(Option<u16>, u64)>,
    /// Connections that were opened to it.
    pub opened: u64,
    /// Those that could not be.
    pub unopened: u64,
    /// What clients sent in exchanges of which it had the last try, and what they were sent.
    pub bytes_in: u64,
    /// What they were sent.
    pub bytes_out: u64,
    /// How long its answers took to begin, from the request sent.
    pub times: Histogram,
    /// Its state.
    pub state: BackendState,
    /// The state of its circuit breaker; none = it has none.
    pub breaker: Option<BreakerState>,
    /// How often it was ejected.
    pub ejections: u64,
    /// Probes that failed, by the kind of failure.
    pub failed_probes: Vec<(&'static str, u64)>,
    /// Tries without an answer that was used, or with one that was cut, by the kind of failure.
    pub failed: Vec<(&'static str, u64)>,
}

impl Backend {
    /// Its errors by reason: a kind of failure, or a status from 500 on. A connection that was
    /// found closed is none, nor is a client that left.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
        let failed = self.failed.iter().filter(|(word, _)| *word != Failure::Stale.code());
        let answered = self.tries.iter().filter_map(|(code, count)| {
            code.filter(|code| *code >= 500).map(|code| (code.to_string().into(), *count))
        });
        failed.map(|(word, count)| ((*word).into(), *count)).chain(answered)
    }
}

/// A certificate in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certificate {
    /// Its file, as in the configuration.
    pub file: Arc<str>,
    /// When it ends, in seconds since 1970; none = it could never be used.
    pub not_after: Option<u64>,
    /// Whether what is in its file now cannot be used.
    pub is_refused: bool,
}

impl Statistics {
    /// A count of the whole process.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.totals.get(counter as usize).copied().unwrap_or_default()
    }
}
