//! Rise and fall: the results of probes become up or down.
//!
//! Counters are of results in a row; one that is opposite to the trend begins anew. Every kind of
//! failure counts alike. It knows neither what a probe is nor when one is sent, but how soon the
//! next should be: sooner while the state is about to change, or not yet known.

use std::time::Duration;

use crate::plan::Health;

/// The interval while a state is about to change, where the pool's is longer.
const FAST: Duration = Duration::from_secs(1);

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeFault {
    /// Nobody listens there.
    Refused,
    /// No connection could be made for another reason: no route, a filter.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The connection ended early.
    Reset,
    /// The answer broke the protocol, or its head was too long.
    Protocol,
    /// The answer had a status that is not expected.
    Status(u16),
    /// Its body did not hold what is expected.
    Body,
}

/// What is known of one backend by its probes.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    is_up: bool,
    is_probed: bool,
    /// Results in a row that speak against the present state.
    against: u16,
}

impl Tracker {
    /// Of a backend that was never probed. One that begins `up` goes down by its first probe, if
    /// that fails: nobody has seen it work.
    pub(crate) fn new(is_up: bool) -> Tracker {
        Tracker { is_up, is_probed: false, against: 0 }
    }

    /// Notes a result; whether the state changed by it.
    pub(crate) fn observe(&mut self, health: &Health, is_good: bool) -> bool {
        let needed = match (self.is_up, self.is_probed) {
            (true, false) => 1,
            (true, true) => health.fall,
            (false, _) => health.rise,
        };
        self.is_probed = true;
        if is_good == self.is_up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < needed {
            return false;
        }
        self.is_up = is_good;
        self.against = 0;
        true
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// How soon the next probe begins after the last began.
    pub(crate) fn interval(&self, health: &Health) -> Duration {
        let is_settled = self.is_probed && self.against == 0;
        if is_settled { health.interval } else { health.interval.min(FAST) }
    }
}
