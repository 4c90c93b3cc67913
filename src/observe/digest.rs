//! De-duplication and rate limits of events before they reach people.
//!
//! Each thing is reported once when it changes, and at most once a second. What the health thread
//! reports of a backend is not repeated for the cores, which could not reach it.

use std::{collections::HashMap, time::Duration};

use super::reports::{Handshake, LIMITS, PERIOD, Report};
use crate::base::moment::Tick;
use crate::http::fault::Cause;
use crate::plan::{BackendId, ListenerId, PoolId};
use crate::policy::standing::{Change, State};

/// An unreachable backend is reported only after this long: three failures in a row, for which the
/// health thread ejects and reports it, take two seconds with one core, as that skips a backend
/// that refused it for one.
const HELD: Duration = Duration::from_millis(2_500);

/// How often failed handshakes of a listener are reported for one reason: the internet brings
/// scanners all day.
const HANDSHAKES_EVERY: Duration = Duration::from_secs(60);

/// What has been reported, and what is due.
#[derive(Default)]
pub(crate) struct Digest {
    backends: HashMap<(PoolId, BackendId), Said>,
    /// When failed handshakes were reported last, by listener and reason.
    handshakes: HashMap<(ListenerId, &'static str), Option<Tick>>,
    /// When each limit was reported last.
    limits: [Option<Tick>; LIMITS],
}

/// What was reported of a backend, and what not yet.
struct Said {
    /// The state that was reported last.
    reachable: bool,
    /// When it may be reported next; none = at once.
    due: Option<Tick>,
    /// It became unreachable, which was not reported.
    lost: Option<Cause>,
    /// It became reachable after that.
    found: bool,
    /// The present state according to the cores: why it cannot be reached.
    known: Option<Cause>,
    /// When the state according to the cores is reported again, as the health thread has reported
    /// that the backend is back.
    again: Option<Tick>,
    /// In which respects the health thread has reported that it is out, a bit for each.
    out: u8,
}

impl Digest {
    /// Forgets what was reported of all backends but these, and of handshakes.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(PoolId, BackendId) -> bool) {
        self.backends.retain(|(pool, backend), _| is_kept(*pool, *backend));
        self.handshakes.clear();
    }

    /// Takes a report; returns what to publish at once, if anything.
    pub(crate) fn observe(&mut self, what: Report, now: Tick) -> Option<Report> {
        let (key, cause) = match what {
            Report::Limit(limit) => {
                let last = self.limits.get_mut(limit as usize)?;
                let due = last.is_none_or(|last| now >= last + PERIOD);
                return due.then(|| {
                    *last = Some(now);
                    what
                });
            }
            Report::Handshake(it) => {
                return self.is_due(&it, now).then_some(Report::Handshake(it));
            }
            Report::Abuse(it) => {
                return self.is_due(&it, now).then_some(Report::Abuse(it));
            }
            Report::ProxyHeader(it) => {
                return self.is_due(&it, now).then_some(Report::ProxyHeader(it));
            }
            Report::Standing(pool, change) => {
                if let Change::Backend { backend, to, .. } = change {
                    self.backends.entry((pool, backend)).or_default().decided(to, now);
                }
                return Some(what);
            }
            Report::Attempt(_)
            | Report::Request(_)
            | Report::Suspected(..)
            | Report::ProbesLate(..)
            | Report::TlsFailed(..)
            | Report::Event(_) => {
                return Some(what);
            }
            Report::Unreachable(pool, backend, cause) => ((pool, backend), Some(cause)),
            Report::Reachable(pool, backend) => ((pool, backend), None),
        };
        let told = self.backends.entry(key).or_default();
        told.observe(cause, now);
        told.due(key, now)
    }

    /// Whether this reason is said at this listener again.
    fn is_due(&mut self, it: &Handshake, now: Tick) -> bool {
        let last = self.handshakes.entry((it.listener, it.why)).or_default();
        let due = last.is_none_or(|last| now >= last + HANDSHAKES_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }

    /// What has become due since.
    pub(crate) fn due(&mut self, now: Tick) -> impl Iterator<Item = Report> {
        self.backends.iter_mut().filter_map(move |(key, told)| told.due(*key, now))
    }

    /// How long until something becomes due, at most; none = nothing will.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.backends.values().any(Said::waits).then_some(PERIOD)
    }
}

impl Default for Said {
    fn default() -> Said {
        let (reachable, found) = (true, false);
        Said { reachable, due: None, lost: None, found, known: None, again: None, out: 0 }
    }
}

impl Said {
    /// A core could not reach it, and why; none = it could. A loss is held back for a while, in
    /// which the health thread may report it better.
    fn observe(&mut self, cause: Option<Cause>, now: Tick) {
        self.known = cause;
        if cause.is_none() {
            self.again = None;
        }
        if self.out != 0 {
            return;
        }
        if cause.is_some() && self.reachable && self.lost.is_none() {
            self.due = self.due.max(Some(now + HELD));
            self.lost = cause;
        }
        let is_news = !self.reachable || self.lost.is_some();
        self.found = cause.is_none() && is_news;
    }

    /// The health thread has decided, and reports that itself: what cores say of the backend is not
    /// reported until it reports that the backend is back.
    fn decided(&mut self, to: State, now: Tick) {
        let (way, is_out) = match to {
            State::Up => (1, false),
            State::Down => (1, true),
            State::Admitted => (2, false),
            State::Ejected | State::Returning => (2, true),
            State::Closed => (4, false),
            State::Open | State::HalfOpen => (4, true),
        };
        let was_out = self.out != 0;
        if is_out {
            let (due, known, out) = (self.due, self.known, self.out | way);
            *self = Said { due, known, out, ..Said::default() };
        } else {
            self.out &= !way;
        }
        if was_out && self.out == 0 && self.known.is_some() {
            self.again = Some(now + HELD);
        }
    }

    fn due(&mut self, (pool, backend): (PoolId, BackendId), now: Tick) -> Option<Report> {
        if self.again.is_some_and(|again| now >= again) {
            self.again = None;
            self.lost = self.lost.or(self.known).filter(|_| self.reachable);
        }
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        let what = if self.reachable {
            Report::Unreachable(pool, backend, self.lost.take()?)
        } else if std::mem::take(&mut self.found) {
            Report::Reachable(pool, backend)
        } else {
            return None;
        };
        self.reachable = !self.reachable;
        self.due = Some(now + PERIOD);
        Some(what)
    }

    fn waits(&self) -> bool {
        self.lost.is_some() || self.found || self.again.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::reports::Limit;
    use crate::policy::standing::Cause as Why;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    const DOWN: Report = Report::Unreachable(PoolId(0), BackendId(1), Cause::ConnectFailed);
    const UP: Report = Report::Reachable(PoolId(0), BackendId(1));
    const OTHER: Report = Report::Unreachable(PoolId(1), BackendId(1), Cause::ConnectTimeout);
    const FULL: Report = Report::Limit(Limit::Connections);

    /// What is published for these reports; none = only time passes.
    #[track_caller]
    fn check(events: &[(u64, Option<Report>)], expected: &[(u64, Report)]) {
        let mut digest = Digest::default();
        let mut told = Vec::new();
        for (now, what) in events {
            let at_once = what.clone().and_then(|what| digest.observe(what, at(*now)));
            told.extend(at_once.map(|what| (*now, what)));
            told.extend(digest.due(at(*now)).map(|what| (*now, what)));
        }
        assert_eq!(told, expected);
        assert_eq!(digest.waits(), None, "nothing is left to be told");
    }

    #[test]
    fn a_backend_is_told_of_when_it_goes_and_when_it_returns() {
        let gone = [(5, Some(DOWN)), (9, Some(DOWN)), (2_504, None), (2_505, None)];
        let back = [(3_000, Some(DOWN)), (4_000, Some(UP)), (4_001, Some(UP))];
        check(&[&gone[..], &back].concat(), &[(2_505, DOWN), (4_000, UP)]);
        let mut digest = Digest::default();
        for (now, event) in [(5, DOWN), (6, OTHER)] {
            assert_eq!(digest.observe(event, at(now)), None);
        }
        assert_eq!(digest.due(at(2_506)).count(), 2);
    }

    #[test]
    fn a_backend_that_flaps_is_told_of_once_a_second_and_at_last_rightly() {
        let flaps = [(5, Some(DOWN)), (6, Some(UP)), (7, Some(DOWN)), (8, Some(UP))];
        let later = [(2_505, None), (3_505, None)];
        check(&[&flaps[..], &later].concat(), &[(2_505, DOWN), (3_505, UP)]);
        check(&[&flaps[..3], &later].concat(), &[(2_505, DOWN)]);
    }

    #[test]
    fn what_the_health_thread_says_is_not_said_twice() {
        let decided = |from, to| {
            let (backend, cause) = (BackendId(1), Why::Elapsed);
            let change = Change::Backend { backend, from, to, cause, lasted: Duration::ZERO };
            Report::Standing(PoolId(0), change)
        };
        let ejected = decided(State::Admitted, State::Ejected);
        let down = decided(State::Up, State::Down);
        let (up, admitted) =
            (decided(State::Down, State::Up), decided(State::Returning, State::Admitted));
        check(
            &[
                (5, Some(DOWN)),
                (400, Some(ejected.clone())),
                (410, Some(down.clone())),
                (500, Some(DOWN)),
                (2_000, Some(up.clone())),
                (2_100, Some(UP)),
                (2_200, Some(DOWN)),
                (9_000, Some(admitted.clone())),
                (9_100, Some(UP)),
                (20_000, Some(DOWN)),
                (22_500, None),
                (24_000, Some(UP)),
            ],
            &[
                (400, ejected),
                (410, down),
                (2_000, up),
                (9_000, admitted),
                (22_500, DOWN),
                (24_000, UP),
            ],
        );
    }

    #[test]
    fn a_backend_that_is_back_and_unreachable_is_told_of() {
        let decided = |from, to| {
            let change = Change::Backend {
                backend: BackendId(1),
                from,
                to,
                cause: Why::Elapsed,
                lasted: Duration::ZERO,
            };
            Report::Standing(PoolId(0), change)
        };
        let (down, up) = (decided(State::Up, State::Down), decided(State::Down, State::Up));
        let out = [(5, Some(DOWN)), (10, Some(down.clone())), (50, Some(up.clone()))];
        let later = [(2_549, None), (2_550, None)];
        check(&[&out[..], &later].concat(), &[(10, down.clone()), (50, up.clone()), (2_550, DOWN)]);
        let reached = [(1_000, Some(UP)), (2_550, None)];
        check(&[&out[..], &reached].concat(), &[(10, down), (50, up)]);
    }

    #[test]
    fn failed_handshakes_are_told_of_once_a_minute_for_each_reason() {
        let failed = |listener, why| {
            let (client, detail) = (None, None);
            Report::Handshake(Box::new(Handshake {
                listener: ListenerId(listener),
                client,
                why,
                detail,
            }))
        };
        let (one, two, three) = (failed(0, "old"), failed(0, "garbage"), failed(1, "old"));
        let events: Vec<_> = [
            (5, &one),
            (6, &one),
            (7, &two),
            (8, &three),
            (60_004, &one),
            (60_005, &one),
            (60_006, &two),
        ]
        .map(|(now, what)| (now, Some(what.clone())))
        .into();
        check(&events, &[(5, one.clone()), (7, two), (8, three), (60_005, one)]);
    }

    #[test]
    fn a_limit_is_told_of_once_a_second() {
        check(
            &[(5, Some(FULL)), (9, Some(FULL)), (1_004, Some(FULL)), (1_005, Some(FULL))],
            &[(5, FULL), (1_005, FULL)],
        );
        let other = Report::Limit(Limit::Descriptors);
        check(&[(5, Some(FULL)), (6, Some(other.clone()))], &[(5, FULL), (6, other)]);
    }
}
