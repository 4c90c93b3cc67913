//! The present state of a backend in all respects, as one small value that the health thread
//! publishes for statistics.

use super::change::State;
use crate::plan::Duty;

/// The state of a backend, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendState {
    /// It takes part.
    Up,
    /// It takes no new traffic, by the decision of an operator.
    Draining,
    /// It takes no traffic, by the decision of an operator.
    Maintenance,
    /// Its probes fail.
    Down,
    /// It is left out for its failures, or awaits a trial after that.
    Ejected,
}

/// The state of a backend's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Traffic passes.
    Closed,
    /// Traffic is stopped.
    Open,
    /// Trial requests pass.
    HalfOpen,
}

impl BackendState {
    /// All of them.
    pub const ALL: [BackendState; 5] = [
        BackendState::Up,
        BackendState::Draining,
        BackendState::Maintenance,
        BackendState::Down,
        BackendState::Ejected,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            BackendState::Up => "up",
            BackendState::Draining => "draining",
            BackendState::Maintenance => "maintenance",
            BackendState::Down => "down",
            BackendState::Ejected => "ejected",
        }
    }
}

impl BreakerState {
    /// All of them.
    pub const ALL: [BreakerState; 3] =
        [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];

    /// The word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

const DOWN: u64 = 1;
const EJECTED: u64 = 2;
const OPEN: u64 = 4;
const HALF_OPEN: u64 = 8;

/// The present state of a backend in all respects: bits of a word. A new one is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(pub(crate) u64);

impl Present {
    /// The same after this change.
    #[must_use]
    pub(crate) fn after(self, to: State) -> Present {
        let (gone, come) = match to {
            State::Up => (DOWN, 0),
            State::Down => (DOWN, DOWN),
            State::Admitted => (EJECTED, 0),
            State::Ejected | State::Returning => (EJECTED, EJECTED),
            State::Closed => (OPEN | HALF_OPEN, 0),
            State::Open => (OPEN | HALF_OPEN, OPEN),
            State::HalfOpen => (OPEN | HALF_OPEN, HALF_OPEN),
        };
        Present(self.0 & !gone | come)
    }

    /// The state that people see, with what an operator decided: it goes before what happens.
    pub(crate) fn with(self, duty: Duty) -> BackendState {
        match (duty, self.backend()) {
            (Duty::Maintenance, _) => BackendState::Maintenance,
            (Duty::Draining, BackendState::Up) => BackendState::Draining,
            (Duty::Draining | Duty::Up, state) => state,
        }
    }

    fn backend(self) -> BackendState {
        match self.0 {
            bits if bits & DOWN != 0 => BackendState::Down,
            bits if bits & EJECTED != 0 => BackendState::Ejected,
            _ => BackendState::Up,
        }
    }

    pub(crate) fn breaker(self) -> BreakerState {
        match self.0 {
            bits if bits & OPEN != 0 => BreakerState::Open,
            bits if bits & HALF_OPEN != 0 => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_respect_changes_by_itself() {
        let mut present = Present::default();
        for (to, backend, breaker) in [
            (State::Ejected, BackendState::Ejected, BreakerState::Closed),
            (State::Down, BackendState::Down, BreakerState::Closed),
            (State::Open, BackendState::Down, BreakerState::Open),
            (State::HalfOpen, BackendState::Down, BreakerState::HalfOpen),
            (State::Up, BackendState::Ejected, BreakerState::HalfOpen),
            (State::Returning, BackendState::Ejected, BreakerState::HalfOpen),
            (State::Admitted, BackendState::Up, BreakerState::HalfOpen),
            (State::Closed, BackendState::Up, BreakerState::Closed),
        ] {
            present = present.after(to);
            assert_eq!((present.backend(), present.breaker()), (backend, breaker), "{to:?}");
        }
        assert_eq!(present, Present::default());
    }
}
