//! What people are told of all that cores and the health thread tell.
//!
//! Each thing once when it changes, and at most once a second; one event makes one line: what the
//! health thread says of a backend, cores do not say again.

use std::{collections::HashMap, time::Duration};

use super::events::{Event, LIMITS, PERIOD};
use crate::base::moment::Tick;
use crate::plan::{BackendId, PoolId};
use crate::policy::standing::{Change, State};

/// A backend out of reach is told of only after so long: three failures in a row, for
/// which the health thread leaves it out and says so, take two seconds where there is one core, as
/// it passes over who refused it for one.
const HELD: Duration = Duration::from_millis(2_500);

/// What people have been told, and what they are to be told.
#[derive(Default)]
pub(crate) struct Digest {
    backends: HashMap<(PoolId, BackendId), Told>,
    /// When each limit was told of last.
    limits: [Option<Tick>; LIMITS],
}

/// What was told of a backend, and what was not yet.
struct Told {
    /// What people believe.
    reachable: bool,
    /// From when on they may be told of it; none = at once.
    due: Option<Tick>,
    /// It could not be reached, and people do not know.
    lost: Option<Event>,
    /// It could be reached after that.
    found: Option<Event>,
    /// In which ways the health thread has said that it is out, a bit for each.
    out: u8,
}

impl Digest {
    /// Takes an event; what is to be told at once, if anything.
    pub(crate) fn observe(&mut self, event: Event, now: Tick) -> Option<Event> {
        let key = match event {
            Event::Limit(limit) => {
                let last = self.limits.get_mut(limit as usize)?;
                let due = last.is_none_or(|last| now >= last + PERIOD);
                return due.then(|| {
                    *last = Some(now);
                    event
                });
            }
            Event::Standing(pool, change) => {
                if let Change::Backend { backend, to, .. } = change {
                    self.backends.entry((pool, backend)).or_default().decided(to);
                }
                return Some(event);
            }
            Event::Tried(_) | Event::ProbesLate(..) => return Some(event),
            Event::End => return None,
            Event::Unreachable(pool, backend, _) | Event::Reachable(pool, backend) => {
                (pool, backend)
            }
        };
        let told = self.backends.entry(key).or_default();
        told.observe(event, now);
        told.due(now)
    }

    /// What has become due since.
    pub(crate) fn due(&mut self, now: Tick) -> impl Iterator<Item = Event> {
        self.backends.values_mut().filter_map(move |told| told.due(now))
    }

    /// How long until something becomes due, at most; none = nothing will.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.backends.values().any(Told::waits).then_some(PERIOD)
    }
}

impl Default for Told {
    fn default() -> Told {
        Told { reachable: true, due: None, lost: None, found: None, out: 0 }
    }
}

impl Told {
    /// A core could reach it, or could not. A loss is held back for a while, in which the health
    /// thread may say it better.
    fn observe(&mut self, event: Event, now: Tick) {
        if self.out != 0 {
            return;
        }
        let is_loss = matches!(event, Event::Unreachable(..));
        if is_loss && self.reachable && self.lost.is_none() {
            self.due = self.due.max(Some(now + HELD));
            self.lost = Some(event);
        }
        let is_news = !self.reachable || self.lost.is_some();
        self.found = (!is_loss && is_news).then_some(event);
    }

    /// The health thread has decided, and says so itself: what it is by what cores see is its
    /// business until it says that the backend is back.
    fn decided(&mut self, to: State) {
        let (way, is_out) = match to {
            State::Up => (1, false),
            State::Down => (1, true),
            State::Admitted => (2, false),
            State::Ejected | State::Returning => (2, true),
            State::Closed => (4, false),
            State::Open | State::HalfOpen => (4, true),
        };
        if is_out {
            *self = Told { due: self.due, out: self.out | way, ..Told::default() };
        } else {
            self.out &= !way;
        }
    }

    fn due(&mut self, now: Tick) -> Option<Event> {
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        let event = if self.reachable { self.lost.take() } else { self.found.take() }?;
        self.reachable = !self.reachable;
        self.due = Some(now + PERIOD);
        Some(event)
    }

    fn waits(&self) -> bool {
        self.lost.is_some() || self.found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Cause;
    use crate::observe::events::Limit;
    use crate::policy::standing::Cause as Why;

    const DOWN: Event = Event::Unreachable(PoolId(0), BackendId(1), Cause::ConnectFailed);
    const UP: Event = Event::Reachable(PoolId(0), BackendId(1));
    const OTHER: Event = Event::Unreachable(PoolId(1), BackendId(1), Cause::ConnectTimeout);
    const FULL: Event = Event::Limit(Limit::Connections);

    /// What is told of these events; none = only time passes.
    #[track_caller]
    fn check(events: &[(u64, Option<Event>)], expected: &[(u64, Event)]) {
        let mut digest = Digest::default();
        let mut told = Vec::new();
        for (now, event) in events {
            let at_once = event.and_then(|event| digest.observe(event, Tick::from_millis(*now)));
            told.extend(at_once.map(|event| (*now, event)));
            told.extend(digest.due(Tick::from_millis(*now)).map(|event| (*now, event)));
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
            assert_eq!(digest.observe(event, Tick::from_millis(now)), None);
        }
        assert_eq!(digest.due(Tick::from_millis(2_506)).count(), 2);
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
            Event::Standing(PoolId(0), change)
        };
        let ejected = decided(State::Admitted, State::Ejected);
        let down = decided(State::Up, State::Down);
        let (up, admitted) =
            (decided(State::Down, State::Up), decided(State::Returning, State::Admitted));
        check(
            &[
                (5, Some(DOWN)),
                (400, Some(ejected)),
                (410, Some(down)),
                (500, Some(DOWN)),
                (2_000, Some(up)),
                (2_100, Some(UP)),
                (2_200, Some(DOWN)),
                (9_000, Some(admitted)),
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
    fn a_limit_is_told_of_once_a_second() {
        check(
            &[(5, Some(FULL)), (9, Some(FULL)), (1_004, Some(FULL)), (1_005, Some(FULL))],
            &[(5, FULL), (1_005, FULL)],
        );
        let other = Event::Limit(Limit::Descriptors);
        check(&[(5, Some(FULL)), (6, Some(other))], &[(5, FULL), (6, other)]);
    }
}
