//! Rise and fall: turns the results of probes into up or down.
//!
//! It counts results in a row; an opposite one resets the count. Every kind of failure counts
//! alike. It does not know what a probe is or when one is sent, but how soon the next should be:
//! sooner while the state is about to change, or not yet known.

use std::{fmt, time::Duration};

use super::standing::Carried;
use crate::plan::Health;

/// The interval while a state is about to change, if the pool's is longer.
const FAST: Duration = Duration::from_secs(1);

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeFault {
    /// Nothing listens there.
    Refused,
    /// No connection could be made for another reason: no route, a filter.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The connection ended early.
    Reset,
    /// TLS failed: the handshake, or the certificate.
    Tls,
    /// The answer broke the protocol, or its head was too long.
    Protocol,
    /// The answer had a status that is not expected.
    Status(u16),
    /// Its body did not contain the expected text.
    Body,
    /// A server of gRPC says that it does not serve.
    NotServing,
    /// A server of gRPC answered the question with this status.
    Grpc(u16),
}

impl ProbeFault {
    /// The stable tokens for metrics, in the order of the kinds.
    pub(crate) const CODES: [&str; 10] = [
        "refused",
        "unreachable",
        "timeout",
        "reset",
        "protocol",
        "status",
        "body",
        "tls",
        "not_serving",
        "grpc_status",
    ];

    /// Which of the kinds it is.
    pub(crate) fn kind(self) -> u16 {
        match self {
            ProbeFault::Refused => 0,
            ProbeFault::Unreachable => 1,
            ProbeFault::Timeout => 2,
            ProbeFault::Reset => 3,
            ProbeFault::Protocol => 4,
            ProbeFault::Status(_) => 5,
            ProbeFault::Body => 6,
            ProbeFault::Tls => 7,
            ProbeFault::NotServing => 8,
            ProbeFault::Grpc(_) => 9,
        }
    }
}

impl fmt::Display for ProbeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProbeFault::Refused => "refused",
            ProbeFault::Unreachable => "unreachable",
            ProbeFault::Timeout => "timeout",
            ProbeFault::Reset => "reset",
            ProbeFault::Protocol => "protocol",
            ProbeFault::Status(status) => return write!(f, "status {status}"),
            ProbeFault::Body => "body mismatch",
            ProbeFault::Tls => "TLS failed",
            ProbeFault::NotServing => "not serving",
            ProbeFault::Grpc(status) => return write!(f, "gRPC status {status}"),
        })
    }
}

/// What the probes say of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    is_up: bool,
    is_probed: bool,
    /// Whether it was added while others serve: then it comes up at its first good probe.
    is_new: bool,
    /// Results in a row against the present state.
    against: u16,
}

impl Tracker {
    /// For a backend that was never probed. One that begins `up` goes down at its first failed
    /// probe: it has never been seen to work.
    pub(crate) fn new(is_up: bool) -> Tracker {
        Tracker { is_up, is_probed: false, is_new: false, against: 0 }
    }

    /// For a backend that is added while others serve: its first good probe brings it up.
    pub(crate) fn unseen() -> Tracker {
        Tracker { is_up: false, is_probed: false, is_new: true, against: 0 }
    }

    /// Writes down what it knows, for the next process.
    pub(super) fn carry(&self, into: &mut Carried) {
        into.is_down = !self.is_up;
        into.is_probed = self.is_probed;
        into.against = self.against;
    }

    /// Goes on from what another process knew.
    pub(super) fn resume(&mut self, from: &Carried) {
        self.is_up = !from.is_down;
        self.is_probed = from.is_probed;
        self.against = from.against;
    }

    /// Records a result; returns whether it changed the state.
    pub(crate) fn observe(&mut self, health: &Health, is_good: bool) -> bool {
        let needed = match (self.is_up, self.is_probed) {
            (true, false) => 1,
            (false, false) if self.is_new => 1,
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

    /// Records a failure that counts as many as it takes; returns whether it changed the state.
    pub(crate) fn fail(&mut self, health: &Health) -> bool {
        if self.is_up {
            self.against = self.against.max(health.fall.saturating_sub(1));
        }
        self.observe(health, false)
    }

    /// Whether it was added while others serve and was not probed yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.is_new && !self.is_probed
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes that succeed (`+`) or not, and the backend's state after each: up (`U`, `u` about to
    /// change) or down (`D`, `d`); in lower case it is probed sooner.
    #[track_caller]
    fn check(is_up: bool, (rise, fall): (u16, u16), probes: &str, expected: &str) {
        let health = Health { rise, fall, ..Health::default() };
        let mut tracker = Tracker::new(is_up);
        assert_eq!(tracker.interval(&health), FAST, "nothing is known yet");
        let after = |probe| {
            let before = tracker.is_up();
            let is_news = tracker.observe(&health, probe == '+');
            assert_eq!(is_news, before != tracker.is_up());
            let letter = if tracker.is_up() { 'u' } else { 'd' };
            match tracker.interval(&health) {
                FAST => letter,
                interval => {
                    assert_eq!(interval, health.interval);
                    letter.to_ascii_uppercase()
                }
            }
        };
        let seen: String = probes.chars().map(after).collect();
        assert_eq!(seen, expected, "{probes}, rise {rise}, fall {fall}");
    }

    #[test]
    fn falls_and_rises_exactly_after_as_many_in_a_row() {
        check(true, (2, 3), "+---", "UuuD");
        check(true, (2, 3), "+---++", "UuuDdU");
        check(true, (1, 1), "+-+-", "UDUD");
        check(true, (4, 2), "+--++++", "UuDdddU");
    }

    #[test]
    fn a_result_the_other_way_begins_anew() {
        check(true, (2, 3), "+--+--+---", "UuuUuuUuuD");
        check(true, (2, 3), "+---+-+-++", "UuuDdDdDdU");
    }

    #[test]
    fn who_was_never_seen_to_work_falls_by_the_first_failure() {
        check(true, (2, 3), "-", "D");
        check(true, (2, 3), "+-", "Uu");
        check(false, (2, 3), "-+-++", "DdDdU");
        check(false, (1, 3), "+", "U");
    }

    #[test]
    fn a_failure_may_count_as_many_as_it_takes() {
        let health = Health { rise: 2, fall: 3, ..Health::default() };
        let mut tracker = Tracker::new(true);
        tracker.observe(&health, true);
        assert!(tracker.fail(&health) && !tracker.is_up());
        assert!(!tracker.fail(&health) && !tracker.observe(&health, true));
        assert!(tracker.observe(&health, true), "rise counts as ever");
    }

    #[test]
    fn a_short_interval_stays_as_it_is() {
        let health = Health { interval: Duration::from_millis(100), ..Health::default() };
        assert_eq!(Tracker::new(true).interval(&health), health.interval);
    }
}
