//! The line in front of a full pool: how many wait, for the whole process, and on which cores.
//!
//! Written by the workers, and only in pools that have a queue: places are permits; each worker
//! says for itself since when its first waits, so that whoever frees room elsewhere knows whom to
//! tell, and no core keeps what it frees for itself while others wait on another. Where clients
//! stay with a backend and may wait for it, it says so of each backend besides, and whoever has not
//! waited as long leaves them the room.

use std::sync::Arc;

use super::{
    atomics::{SeqCst, fence},
    firsts::Firsts,
    permits::{Permit, Permits},
};
use crate::base::ids::BackendId;

/// So much longer, in milliseconds, must somebody have waited on another core than the first of
/// one's own to go before that one: telling the other core takes its time, and clocks are coarse.
const LONGER_MS: u64 = 10;

/// The line in front of one pool.
#[derive(Clone)]
pub(crate) struct Line {
    places: Permits,
    /// Since when the first waits on each worker who takes any room.
    anybody: Firsts,
    /// The same of those who stay with one backend, of each; empty where nobody does.
    homes: Arc<[Firsts]>,
}

impl Line {
    /// One of so many places, for so many workers; `homes`: of how many backends clients wait for
    /// one.
    pub(crate) fn new(size: u32, workers: usize, homes: usize) -> Line {
        Line {
            places: Permits::new(size),
            anybody: Firsts::new(workers),
            homes: (0..homes).map(|_| Firsts::new(workers)).collect(),
        }
    }

    /// A place in it, if one is left.
    pub(crate) fn place(&self) -> Option<Permit> {
        self.places.take()
    }

    /// Whether somebody may wait for one backend.
    pub(crate) fn has_homes(&self) -> bool {
        !self.homes.is_empty()
    }

    /// On this worker the first who takes any room waits since then; none = nobody does.
    pub(crate) fn wait(&self, worker: usize, first: Option<u64>) {
        self.anybody.set(worker, first);
    }

    /// The same of those who stay with this backend.
    pub(crate) fn wait_at(&self, worker: usize, home: BackendId, first: Option<u64>) {
        if let Some(firsts) = self.homes.get(home.index()) {
            firsts.set(worker, first);
        }
    }

    /// Whether the room of this backend is left to those who stay with it, as one of them has
    /// waited longer than somebody of this worker who waits since then; 0 = who has just come.
    pub(crate) fn keeps(&self, worker: usize, home: BackendId, since: u64) -> bool {
        let Some(firsts) = self.homes.get(home.index()) else { return false };
        let own = firsts.of(worker);
        let other = firsts.longest(worker).map(|(first, _)| first);
        if since == 0 {
            return own.is_some() || other.is_some();
        }
        own.is_some_and(|own| own < since)
            || other.is_some_and(|other| goes_before(other, Some(since)))
    }

    /// The other worker whose first waits longest of those who want room at this backend, where
    /// that is long before the first of this one; asked after room was made.
    pub(crate) fn before(
        &self,
        worker: usize,
        at: Option<BackendId>,
        first: Option<u64>,
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
        first: Option<u64>,
    ) -> Option<usize> {
        fence(SeqCst);
        let longest = self.homes.get(home.index())?.longest(worker);
        let (_, other) = longest.filter(|(since, _)| goes_before(*since, first))?;
        Some(other)
    }
}

/// Whether the first of another worker goes before that of one's own.
fn goes_before(since: u64, first: Option<u64>) -> bool {
    first.is_none_or(|own| since.saturating_add(LONGER_MS) <= own)
}

#[cfg(test)]
mod tests {
    use super::super::firsts::IN_NO_WAY;
    use super::*;

    #[test]
    fn places_are_bounded_and_those_who_wait_elsewhere_are_found() {
        let line = Line::new(1, 3, 0);
        let place = line.place().unwrap();
        assert!(line.place().is_none());
        drop(place);
        assert!(line.place().is_some());
        assert_eq!(line.before(0, None, None), None);
        line.wait(0, Some(500));
        assert_eq!(line.before(0, None, None), None, "not by itself");
        line.wait(2, Some(700));
        assert_eq!(line.before(0, None, None), Some(2));
        assert_eq!(line.before(2, None, None), Some(0));
        assert_eq!(line.before(1, None, None), Some(0), "that waits longest");
        line.wait(2, None);
        assert_eq!(line.before(1, None, None), Some(0));
    }

    #[test]
    fn who_has_waited_much_longer_elsewhere_goes_first() {
        let line = Line::new(1, 2, 0);
        line.wait(1, Some(500));
        assert_eq!(line.before(0, None, Some(500)), None);
        assert_eq!(line.before(0, None, Some(499 + LONGER_MS)), None);
        assert_eq!(line.before(0, None, Some(500 + LONGER_MS)), Some(1));
        assert_eq!(line.before(0, None, Some(IN_NO_WAY)), Some(1));
        line.wait(1, Some(IN_NO_WAY));
        assert_eq!(line.before(0, None, Some(500)), None);
        assert_eq!(line.before(0, None, None), Some(1));
    }

    #[test]
    fn who_stays_with_a_backend_goes_before_those_alone_who_want_room_there() {
        let (line, a, b) = (Line::new(1, 2, 2), BackendId(0), BackendId(1));
        line.wait_at(1, a, Some(500));
        assert_eq!(line.before(0, Some(a), Some(500 + LONGER_MS)), Some(1));
        assert_eq!(line.before(0, Some(a), Some(499 + LONGER_MS)), None);
        assert!(line.keeps(0, a, 0) && line.keeps(1, a, 0), "from all who have just come");
        assert!(line.keeps(0, a, 500 + LONGER_MS) && !line.keeps(0, a, 499 + LONGER_MS));
        assert!(line.keeps(1, a, 501) && !line.keeps(1, a, 500), "it is the first itself");
        assert!(!line.keeps(0, b, 0));
        assert_eq!(line.before(0, Some(b), None), None);
        assert_eq!(line.before(0, None, None), None);
        line.wait(1, Some(400));
        assert_eq!(line.before(0, Some(b), Some(450)), Some(1));
        assert_eq!(line.before_at(0, a, Some(450)), None);
        assert_eq!(line.before_at(0, a, None), Some(1));
        line.wait_at(1, a, None);
        assert_eq!(line.before_at(0, a, None), None);
    }
}
