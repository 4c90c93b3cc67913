//! The lines of the operational log about who may be asked: one for each transition.
//!
//! `event` is a word for machines, the same that the stream of events will have; `lasted_ms` says
//! how long the backend was what it was before.

use tracing::{info, warn};

use crate::policy::{
    health::ProbeFault,
    standing::{Cause, Mode, State},
};

/// A backend became this.
#[rustfmt::skip] // a table
pub(super) fn say_of_backend((pool, backend): (&str, &str), to: State, cause: &str, lasted_ms: u64) {
    match to {
        State::Up => info!(event = "backend_up", pool, backend, cause, lasted_ms, "a backend is up"),
        State::Down => warn!(event = "backend_down", pool, backend, cause, lasted_ms, "a backend is down"),
        State::Ejected => warn!(event = "backend_ejected", pool, backend, cause, lasted_ms, "a backend is left out for its failures"),
        State::Returning => info!(event = "backend_returning", pool, backend, cause, lasted_ms, "a backend takes part again if a trial succeeds"),
        State::Admitted => info!(event = "backend_readmitted", pool, backend, cause, lasted_ms, "a backend takes part again"),
        State::Open => warn!(event = "breaker_open", pool, backend, cause, lasted_ms, "a circuit breaker stops the traffic to a backend"),
        State::HalfOpen => info!(event = "breaker_half_open", pool, backend, cause, lasted_ms, "a circuit breaker lets trials through"),
        State::Closed => info!(event = "breaker_closed", pool, backend, cause, lasted_ms, "a circuit breaker lets the traffic through"),
    }
}

/// It is decided in another way who of a pool is asked.
#[rustfmt::skip] // a table
pub(super) fn say_of_pool(pool: &str, (from, to): (Mode, Mode), sound: usize, of: usize) {
    match (from, to) {
        (_, Mode::Panic) => warn!(event = "panic_on", pool, sound, of, "too few backends are left: all are asked"),
        (_, Mode::Lenient) => warn!(event = "lenient_on", pool, sound, of, "no backend would be left: those left out for their failures are asked"),
        (Mode::Panic, Mode::Strict) => info!(event = "panic_off", pool, sound, of, "enough backends are left again"),
        (Mode::Lenient | Mode::Strict, Mode::Strict) => info!(event = "lenient_off", pool, sound, of, "backends are left out for their failures again"),
    }
}

/// Probes of a pool begin late.
#[rustfmt::skip] // as the tables
pub(super) fn say_of_late_probes(pool: &str, late_ms: u64) {
    warn!(event = "probes_late", pool, late_ms, "probes of a pool begin late: too many of its backends do not answer, or the machine is busy");
}

/// Why, in a few words.
pub(super) fn why(cause: Cause) -> String {
    match cause {
        Cause::Probe(ProbeFault::Refused) => "refused".into(),
        Cause::Probe(ProbeFault::Unreachable) => "unreachable".into(),
        Cause::Probe(ProbeFault::Timeout) => "timeout".into(),
        Cause::Probe(ProbeFault::Reset) => "reset".into(),
        Cause::Probe(ProbeFault::Protocol) => "protocol".into(),
        Cause::Probe(ProbeFault::Status(status)) => format!("status {status}"),
        Cause::Probe(ProbeFault::Body) => "body mismatch".into(),
        Cause::Probes => "probes succeed".into(),
        Cause::Failures(count) => format!("{count} failures in a row"),
        Cause::Ratio { failed, requests } => format!("{failed} of {requests} requests failed"),
        Cause::Elapsed => "its time is over".into(),
        Cause::NobodyElse => "all others fail".into(),
        Cause::TrialOk => "a trial succeeded".into(),
        Cause::TrialFailed => "a trial failed".into(),
    }
}
