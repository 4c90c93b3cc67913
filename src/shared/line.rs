//! The line in front of a full pool: how many wait, for the whole process, and on which cores.
//!
//! Written by the workers, and only in pools that have a queue: places are permits; each worker
//! says for itself since when its first waits, so that whoever frees room elsewhere knows whom to
//! tell, and no core keeps what it frees for itself while others wait on another. Where clients
//! stay with a backend and may wait for it, it says so of each backend besides, and whoever has not
//! waited as long leaves them the room.

use std::time::Duration;

use super::{
    atomics::{SeqCst, fence},
    firsts::{First, Firsts},
    permits::Permits,
};
use crate::base::{ids::BackendId, moment::Tick, segments::Segments};

/// So much longer must somebody have waited on another core than the first of
/// one's own to go before that one: telling the other core takes its time, and clocks are coarse.
const LONGER: Duration = Duration::from_millis(10);

/// The line in front of one pool. It lives on from plan to plan; how many may wait, and whether
/// clients may wait for the backend that they stay with, is what a plan says.
pub(crate) struct Line {
    workers: usize,
    places: Permits,
    /// Since when the first waits on each worker who takes any room.
    anybody: Firsts,
    /// The same of those who stay with one backend, of each.
    homes: Segments<Firsts>,
}

impl Line {
    /// For so many workers, in front of no backends yet.
    pub(crate) fn new(workers: usize) -> Line {
        Line {
            workers,
            places: Permits::new(0),
            anybody: Firsts::new(workers),
            homes: Segments::new(),
        }
    }

    /// Makes room for so many backends.
    pub(crate) fn grow(&self, backends: usize) {
        self.homes.grow(backends, || Firsts::new(self.workers));
    }

    /// Its places, of which there are so many.
    pub(crate) fn places(&self, size: u32) -> Permits {
        self.places.with_max(size)
    }

    /// On this worker the first who takes any room waits since then; none = nobody does.
    pub(crate) fn wait(&self, worker: usize, first: Option<First>) {
        self.anybody.set(worker, first);
    }

    /// The same of those who stay with this backend.
    pub(crate) fn wait_at(&self, worker: usize, home: BackendId, first: Option<First>) {
        if let Some(firsts) = self.homes.get(home.index()) {
            firsts.set(worker, first);
        }
    }

    /// Whether the room of this backend is left to those who stay with it, as one of them has
    /// waited longer than somebody of this worker who waits since then; none = who has just come.
    pub(crate) fn keeps(&self, worker: usize, home: BackendId, since: Option<Tick>) -> bool {
        let Some(firsts) = self.homes.get(home.index()) else { return false };
        let own = firsts.of(worker);
        let other = firsts.longest(worker).map(|(first, _)| first);
        let Some(since) = since.map(First::Since) else { return own.is_some() || other.is_some() };
        own.is_some_and(|own| own < since)
            || other.is_some_and(|other| goes_before(other, Some(since)))
    }

    /// The other worker whose first waits longest of those who want room at this backend, where
    /// that is long before the first of this one; asked after room was made.
    pub(crate) fn before(
        &self,
        worker: usize,
        at: Option<BackendId>,
        first: Option<First>,
    ) -> Option<usize> {
        fence(SeqCst);
        let home = at.and_then(|at| self.homes.get(at.index()));
        let home = home.and_then(|firsts| firsts.longest(worker));
        let longest = home.into_iter().chain(self.anybody.longest(worker)).min();
        let (_, other) = longest.filter(|(since, _)| goes_before(*since, first))?;
        Some(other)
    }

    /// The same of those only who stay with it.
    pub(crate) fn before_at(
        &self,
        worker: usize,
        home: BackendId,
        first: Option<First>,
    ) -> Option<usize> {
        fence(SeqCst);
        let longest = self.homes.get(home.index())?.longest(worker);
        let (_, other) = longest.filter(|(since, _)| goes_before(*since, first))?;
        Some(other)
    }
}

/// Whether the first of another worker goes before that of one's own.
fn goes_before(other: First, own: Option<First>) -> bool {
    match (other, own) {
        (_, None) | (First::Since(_), Some(First::InNoWay)) => true,
        (First::Since(other), Some(First::Since(own))) => other + LONGER <= own,
        (First::InNoWay, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::millis;

    fn tick(millis: u64) -> Option<Tick> {
        Some(Tick::from_millis(millis))
    }

    fn since(millis: u64) -> Option<First> {
        tick(millis).map(First::Since)
    }

    #[test]
    fn places_are_bounded_and_those_who_wait_elsewhere_are_found() {
        let line = Line::new(3);
        let places = line.places(1);
        let place = places.take().unwrap();
        assert!(line.places(1).take().is_none() && line.places(2).take().is_some());
        drop(place);
        assert!(places.take().is_some());
        assert_eq!(line.before(0, None, None), None);
        line.wait(0, since(500));
        assert_eq!(line.before(0, None, None), None, "not by itself");
        line.wait(2, since(700));
        assert_eq!(line.before(0, None, None), Some(2));
        assert_eq!(line.before(2, None, None), Some(0));
        assert_eq!(line.before(1, None, None), Some(0), "that waits longest");
        line.wait(2, None);
        assert_eq!(line.before(1, None, None), Some(0));
    }

    #[test]
    fn who_has_waited_much_longer_elsewhere_goes_first() {
        let line = Line::new(2);
        line.wait(1, since(500));
        assert_eq!(line.before(0, None, since(500)), None);
        assert_eq!(line.before(0, None, since(499 + millis(LONGER))), None);
        assert_eq!(line.before(0, None, since(500 + millis(LONGER))), Some(1));
        assert_eq!(line.before(0, None, Some(First::InNoWay)), Some(1));
        line.wait(1, Some(First::InNoWay));
        assert_eq!(line.before(0, None, since(500)), None);
        assert_eq!(line.before(0, None, None), Some(1));
    }

    #[test]
    fn who_stays_with_a_backend_goes_before_those_alone_who_want_room_there() {
        let (line, a, b) = (Line::new(2), BackendId(0), BackendId(1));
        line.grow(2);
        line.wait_at(1, a, since(500));
        assert_eq!(line.before(0, Some(a), since(500 + millis(LONGER))), Some(1));
        assert_eq!(line.before(0, Some(a), since(499 + millis(LONGER))), None);
        assert!(line.keeps(0, a, None) && line.keeps(1, a, None), "from all who have just come");
        assert!(
            line.keeps(0, a, tick(500 + millis(LONGER)))
                && !line.keeps(0, a, tick(499 + millis(LONGER)))
        );
        assert!(
            line.keeps(1, a, tick(501)) && !line.keeps(1, a, tick(500)),
            "it is the first itself"
        );
        assert!(!line.keeps(0, b, None));
        assert_eq!(line.before(0, Some(b), None), None);
        assert_eq!(line.before(0, None, None), None);
        line.wait(1, since(400));
        assert_eq!(line.before(0, Some(b), since(450)), Some(1));
        assert_eq!(line.before_at(0, a, since(450)), None);
        assert_eq!(line.before_at(0, a, None), Some(1));
        line.wait_at(1, a, None);
        assert_eq!(line.before_at(0, a, None), None);
    }
}
