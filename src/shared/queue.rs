//! The queue in front of a full pool, as all cores see it: how many requests wait in the process,
//! and on which cores.
//!
//! Written by the workers, and only in pools with a queue. Places are permits. Each worker
//! publishes since when its oldest request waits, so that a worker which frees room knows which
//! core to tell, and no core keeps room for itself while older requests wait on another. If clients
//! stay with a backend and may wait for it, that is published for each backend too, and requests
//! that have not waited as long leave them the room.

use std::time::Duration;

use super::{
    atomics::{SeqCst, fence},
    permits::Permits,
    waiting_since::{Oldest, WaitingSince},
};
use crate::base::{ids::BackendId, moment::Tick, segments::Segments};

/// How much longer a request on another core must have waited than the oldest of one's own to go
/// first: telling the other core takes time, and clocks are coarse.
const LONGER: Duration = Duration::from_millis(10);

/// The queue in front of one pool. It lives on from plan to plan; a plan says how many may wait,
/// and whether clients may wait for the backend that they stay with.
pub(crate) struct SharedQueue {
    workers: usize,
    places: Permits,
    /// Since when the oldest request that takes any room waits, per worker.
    anybody: WaitingSince,
    /// The same for requests that stay with one backend, per backend.
    homes: Segments<WaitingSince>,
}

impl SharedQueue {
    /// For this many workers, and no backends yet.
    pub(crate) fn new(workers: usize) -> SharedQueue {
        SharedQueue {
            workers,
            places: Permits::new(0),
            anybody: WaitingSince::new(workers),
            homes: Segments::new(),
        }
    }

    /// Makes room for this many backends.
    pub(crate) fn grow(&self, backends: usize) {
        self.homes.grow(backends, || WaitingSince::new(self.workers));
    }

    /// Its places, of which there are `size`.
    pub(crate) fn places(&self, size: u32) -> Permits {
        self.places.with_max(size)
    }

    /// Since when the oldest request of this worker that takes any room waits; none = there is
    /// none.
    pub(crate) fn wait(&self, worker: usize, first: Option<Oldest>) {
        self.anybody.set(worker, first);
    }

    /// The same for requests that stay with this backend.
    pub(crate) fn wait_at(&self, worker: usize, home: BackendId, first: Option<Oldest>) {
        if let Some(waiting) = self.homes.get(home.index()) {
            waiting.set(worker, first);
        }
    }

    /// Whether the room of this backend is left to requests that stay with it, as one of them has
    /// waited longer than a request of this worker that waits since then; none = one that has just
    /// come.
    pub(crate) fn keeps(&self, worker: usize, home: BackendId, since: Option<Tick>) -> bool {
        let Some(waiting) = self.homes.get(home.index()) else { return false };
        let own = waiting.of(worker);
        let other = waiting.longest(worker).map(|(first, _)| first);
        let Some(since) = since.map(Oldest::Since) else { return own.is_some() || other.is_some() };
        own.is_some_and(|own| own < since)
            || other.is_some_and(|other| goes_before(other, Some(since)))
    }

    /// The other worker whose oldest request waits longest for room at this backend, if that is
    /// much older than the oldest of this worker; called after room was made.
    pub(crate) fn before(
        &self,
        worker: usize,
        at: Option<BackendId>,
        first: Option<Oldest>,
    ) -> Option<usize> {
        fence(SeqCst);
        let home = at.and_then(|at| self.homes.get(at.index()));
        let home = home.and_then(|waiting| waiting.longest(worker));
        let longest = home.into_iter().chain(self.anybody.longest(worker)).min();
        let (_, other) = longest.filter(|(since, _)| goes_before(*since, first))?;
        Some(other)
    }

    /// The same for requests that stay with it only.
    pub(crate) fn before_at(
        &self,
        worker: usize,
        home: BackendId,
        first: Option<Oldest>,
    ) -> Option<usize> {
        fence(SeqCst);
        let longest = self.homes.get(home.index())?.longest(worker);
        let (_, other) = longest.filter(|(since, _)| goes_before(*since, first))?;
        Some(other)
    }
}

/// Whether the oldest request of another worker goes before one's own.
fn goes_before(other: Oldest, own: Option<Oldest>) -> bool {
    match (other, own) {
        (_, None) | (Oldest::Since(_), Some(Oldest::InNoWay)) => true,
        (Oldest::Since(other), Some(Oldest::Since(own))) => other + LONGER <= own,
        (Oldest::InNoWay, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::millis;

    fn tick(millis: u64) -> Option<Tick> {
        Some(Tick::from_millis(millis))
    }

    fn since(millis: u64) -> Option<Oldest> {
        tick(millis).map(Oldest::Since)
    }

    #[test]
    fn places_are_bounded_and_those_who_wait_elsewhere_are_found() {
        let line = SharedQueue::new(3);
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
        let line = SharedQueue::new(2);
        line.wait(1, since(500));
        assert_eq!(line.before(0, None, since(500)), None);
        assert_eq!(line.before(0, None, since(499 + millis(LONGER))), None);
        assert_eq!(line.before(0, None, since(500 + millis(LONGER))), Some(1));
        assert_eq!(line.before(0, None, Some(Oldest::InNoWay)), Some(1));
        line.wait(1, Some(Oldest::InNoWay));
        assert_eq!(line.before(0, None, since(500)), None);
        assert_eq!(line.before(0, None, None), Some(1));
    }

    #[test]
    fn who_stays_with_a_backend_goes_before_those_alone_who_want_room_there() {
        let (line, a, b) = (SharedQueue::new(2), BackendId(0), BackendId(1));
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
