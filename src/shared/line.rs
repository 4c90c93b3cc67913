//! The line in front of a full pool: how many wait, for the whole process, and on which cores.
//!
//! Written by the workers, and only in pools that have a queue: places are permits; each worker
//! says for itself since when its first waits, so that whoever frees room elsewhere knows whom to
//! tell, and no core keeps what it frees for itself while others wait on another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst, fence},
};

use super::permits::{Permit, Permits};

/// So much longer, in milliseconds, must somebody have waited on another core than the first of
/// one's own to go before that one: telling the other core takes its time, and clocks are coarse.
const LONGER_MS: u64 = 10;

/// Nobody waits.
const NOBODY: u64 = u64::MAX;

/// Those who do are in nobody's way, and go before nobody either.
pub(crate) const IN_NO_WAY: u64 = u64::MAX - 1;

/// The line in front of one pool.
#[derive(Clone)]
pub(crate) struct Line {
    places: Permits,
    /// Since when the first waits on each worker; each writes its own.
    since: Arc<[AtomicU64]>,
}

impl Line {
    /// One of so many places, for so many workers.
    pub(crate) fn new(size: u32, workers: usize) -> Line {
        Line {
            places: Permits::new(size),
            since: (0..workers).map(|_| AtomicU64::new(NOBODY)).collect(),
        }
    }

    /// A place in it, if one is left.
    pub(crate) fn place(&self) -> Option<Permit> {
        self.places.take()
    }

    /// On this worker the first waits since then; none = nobody does. Who joins looks once more
    /// whether there is room after this: either it sees the room, or whoever made the room sees it
    /// wait.
    pub(crate) fn wait(&self, worker: usize, first: Option<u64>) {
        if let Some(since) = self.since.get(worker) {
            since.store(first.unwrap_or(NOBODY), SeqCst);
        }
        fence(SeqCst);
    }

    /// The other worker whose first waits longest, where that is long before the first of this one;
    /// asked after room was made.
    pub(crate) fn before(&self, worker: usize, first: Option<u64>) -> Option<usize> {
        fence(SeqCst);
        let others = self.since.iter().enumerate().filter(|(other, _)| *other != worker);
        let each = others.map(|(other, since)| (since.load(SeqCst), other));
        let (since, other) = each.min()?;
        let goes_before = match first {
            Some(own) => since.saturating_add(LONGER_MS) <= own,
            None => since != NOBODY,
        };
        goes_before.then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_those_who_wait_elsewhere_are_found() {
        let line = Line::new(1, 3);
        let place = line.place().unwrap();
        assert!(line.place().is_none());
        drop(place);
        assert!(line.place().is_some());
        assert_eq!(line.before(0, None), None);
        line.wait(0, Some(500));
        assert_eq!(line.before(0, None), None, "not by itself");
        line.wait(2, Some(700));
        assert_eq!(line.before(0, None), Some(2));
        assert_eq!(line.before(2, None), Some(0));
        assert_eq!(line.before(1, None), Some(0), "that waits longest");
        line.wait(2, None);
        assert_eq!(line.before(1, None), Some(0));
    }

    #[test]
    fn who_has_waited_much_longer_elsewhere_goes_first() {
        let line = Line::new(1, 2);
        line.wait(1, Some(500));
        assert_eq!(line.before(0, Some(500)), None);
        assert_eq!(line.before(0, Some(499 + LONGER_MS)), None);
        assert_eq!(line.before(0, Some(500 + LONGER_MS)), Some(1));
        assert_eq!(line.before(0, Some(IN_NO_WAY)), Some(1));
        line.wait(1, Some(IN_NO_WAY));
        assert_eq!(line.before(0, Some(500)), None);
        assert_eq!(line.before(0, None), Some(1));
    }
}
