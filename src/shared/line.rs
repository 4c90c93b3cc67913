//! The line in front of a full pool: how many wait, for the whole process, and on which cores.
//!
//! Written by the workers, and only in pools that have a queue: places are permits; each worker
//! says for itself how many wait on it, so that whoever frees room elsewhere knows whom to tell.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst, fence},
};

use super::permits::{Permit, Permits};

/// The line in front of one pool.
#[derive(Clone)]
pub(crate) struct Line {
    places: Permits,
    /// How many wait on each worker; each writes its own.
    waiting: Arc<[AtomicU32]>,
}

impl Line {
    /// One of so many places, for so many workers.
    pub(crate) fn new(size: u32, workers: usize) -> Line {
        Line {
            places: Permits::new(size),
            waiting: (0..workers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// A place in it, if one is left.
    pub(crate) fn place(&self) -> Option<Permit> {
        self.places.take()
    }

    /// So many wait on this worker. Who joins looks once more whether there is room after this:
    /// either it sees the room, or whoever made the room sees it wait.
    pub(crate) fn wait(&self, worker: usize, count: usize) {
        if let Some(waiting) = self.waiting.get(worker) {
            waiting.store(u32::try_from(count).unwrap_or(u32::MAX), SeqCst);
        }
        fence(SeqCst);
    }

    /// Another worker on which somebody waits, the next after this one; asked after room was made.
    pub(crate) fn next(&self, worker: usize) -> Option<usize> {
        fence(SeqCst);
        let count = self.waiting.len();
        (1..count)
            .map(|step| (worker + step) % count)
            .find(|other| self.waiting.get(*other).is_some_and(|waiting| waiting.load(SeqCst) > 0))
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
        assert_eq!(line.next(0), None);
        line.wait(0, 1);
        assert_eq!(line.next(0), None, "not by itself");
        line.wait(2, 5);
        assert_eq!(line.next(0), Some(2));
        assert_eq!(line.next(2), Some(0));
        line.wait(2, 0);
        assert_eq!(line.next(1), Some(0));
    }
}
