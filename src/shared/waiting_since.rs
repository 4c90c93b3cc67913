//! Per worker, when its oldest waiter began to wait: for one thing that all of them wait for.
//!
//! Each worker writes its own word, and only when its own queue has changed; a worker that has made
//! room reads them all. Nothing is counted, so nothing can be left over: a word reflects its
//! worker's queue.

use std::sync::Arc;

use super::atomics::{AtomicU64, SeqCst, fence};
use crate::base::moment::Tick;

/// The oldest waiter of a worker; one that has waited longer is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Oldest {
    /// It has waited since then.
    Since(Tick),
    /// All waiters let every other go first.
    InNoWay,
}

/// The oldest waiter of each worker. A word is the millisecond of its tick, or one of those below.
#[derive(Clone)]
pub(crate) struct WaitingSince(Arc<[AtomicU64]>);

const NOBODY: u64 = u64::MAX;
const IN_NO_WAY: u64 = u64::MAX - 1;

fn packed(first: Option<Oldest>) -> u64 {
    match first {
        None => NOBODY,
        Some(Oldest::InNoWay) => IN_NO_WAY,
        Some(Oldest::Since(tick)) => tick.millis(),
    }
}

fn unpacked(word: u64) -> Option<Oldest> {
    match word {
        NOBODY => None,
        IN_NO_WAY => Some(Oldest::InNoWay),
        millis => Some(Oldest::Since(Tick::from_millis(millis))),
    }
}

impl WaitingSince {
    /// For this many workers, without waiters.
    pub(crate) fn new(workers: usize) -> WaitingSince {
        WaitingSince((0..workers).map(|_| AtomicU64::new(NOBODY)).collect())
    }

    /// Sets the oldest waiter of this worker; none = no waiters. A request that joins checks once
    /// more for room after this: either it sees the room, or the worker that made the room sees it
    /// wait.
    pub(crate) fn set(&self, worker: usize, first: Option<Oldest>) {
        if let Some(word) = self.0.get(worker) {
            word.store(packed(first), SeqCst);
        }
        fence(SeqCst);
    }

    /// The oldest waiter of this worker.
    pub(crate) fn of(&self, worker: usize) -> Option<Oldest> {
        unpacked(self.0.get(worker)?.load(SeqCst))
    }

    /// The oldest waiter of all other workers, and its worker. Called after a fence by a worker
    /// that has just made room.
    pub(crate) fn longest(&self, worker: usize) -> Option<(Oldest, usize)> {
        let others = self.0.iter().enumerate().filter(|(other, _)| *other != worker);
        others.filter_map(|(other, word)| Some((unpacked(word.load(SeqCst))?, other))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::atomics::{every_order, spawn};
    use super::*;

    fn first(millis: u64) -> Oldest {
        Oldest::Since(Tick::from_millis(millis))
    }

    fn since(millis: u64) -> Option<Oldest> {
        Some(first(millis))
    }

    #[test]
    fn the_longest_is_found_among_the_others() {
        every_order(|| {
            let waiting = WaitingSince::new(3);
            assert_eq!(waiting.longest(0), None);
            waiting.set(0, since(500));
            assert_eq!(waiting.longest(0), None, "not by itself");
            waiting.set(2, since(700));
            assert_eq!(waiting.longest(0), Some((first(700), 2)));
            assert_eq!(waiting.longest(1), Some((first(500), 0)));
            assert_eq!((waiting.of(2), waiting.of(1)), (since(700), None));
            waiting.set(0, None);
            assert_eq!(waiting.longest(1), Some((first(700), 2)));
        });
    }

    /// The word that is up, 1, if there is room.
    fn room(up: u64) -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(up))
    }

    #[test]
    fn who_joins_sees_the_room_or_is_seen_by_whoever_makes_it() {
        every_order(|| {
            let (waiting, made) = (WaitingSince::new(2), room(0));
            let (there, seen) = (waiting.clone(), Arc::clone(&made));
            let joins = spawn(move || {
                there.set(1, since(500));
                seen.load(SeqCst) == 1
            });
            made.store(1, SeqCst);
            fence(SeqCst);
            let told = waiting.longest(0).is_some();
            assert!(joins.join().unwrap() || told, "the call was lost");
        });
    }

    #[test]
    fn who_comes_while_a_room_is_kept_sees_it_free_or_is_seen_by_whoever_kept_it() {
        every_order(|| {
            let (kept, line) = (WaitingSince::new(2), WaitingSince::new(2));
            kept.set(1, since(500));
            let (those, theirs) = (kept.clone(), line.clone());
            // The oldest waiter leaves, with room left over.
            let leaves = spawn(move || {
                those.set(1, None);
                theirs.longest(1).is_some()
            });
            line.set(0, since(600));
            let is_free = kept.longest(0).is_none();
            assert!(leaves.join().unwrap() || is_free, "the call was lost");
        });
    }
}
