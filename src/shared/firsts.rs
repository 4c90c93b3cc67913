//! Since when the first waits on each worker: for one thing that they all wait for.
//!
//! Each worker writes its own word, and only when its own line has changed; whoever has made room
//! reads them all. Nothing is counted, so nothing can be left over: a word is what its worker's
//! line says.

use std::sync::Arc;

use super::atomics::{AtomicU64, SeqCst, fence};
use crate::base::moment::Tick;

/// The first that waits on a worker; what waited longer is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum First {
    /// It waits since then.
    Since(Tick),
    /// Those that wait let all others go first.
    InNoWay,
}

/// The first that waits on each worker. A word is the millisecond of its tick, or one of those
/// below.
#[derive(Clone)]
pub(crate) struct Firsts(Arc<[AtomicU64]>);

const NOBODY: u64 = u64::MAX;
const IN_NO_WAY: u64 = u64::MAX - 1;

fn packed(first: Option<First>) -> u64 {
    match first {
        None => NOBODY,
        Some(First::InNoWay) => IN_NO_WAY,
        Some(First::Since(tick)) => tick.millis(),
    }
}

fn unpacked(word: u64) -> Option<First> {
    match word {
        NOBODY => None,
        IN_NO_WAY => Some(First::InNoWay),
        millis => Some(First::Since(Tick::from_millis(millis))),
    }
}

impl Firsts {
    /// Of so many workers; nobody waits.
    pub(crate) fn new(workers: usize) -> Firsts {
        Firsts((0..workers).map(|_| AtomicU64::new(NOBODY)).collect())
    }

    /// This is the first on this worker; none = nobody waits. Who joins looks once more
    /// whether there is room after this: either it sees the room, or whoever made the room sees it
    /// wait.
    pub(crate) fn set(&self, worker: usize, first: Option<First>) {
        if let Some(word) = self.0.get(worker) {
            word.store(packed(first), SeqCst);
        }
        fence(SeqCst);
    }

    /// The first that waits on this worker.
    pub(crate) fn of(&self, worker: usize) -> Option<First> {
        unpacked(self.0.get(worker)?.load(SeqCst))
    }

    /// The first that waits longest on another worker, and on which. Asked behind a fence by a
    /// worker that has just made room.
    pub(crate) fn longest(&self, worker: usize) -> Option<(First, usize)> {
        let others = self.0.iter().enumerate().filter(|(other, _)| *other != worker);
        others.filter_map(|(other, word)| Some((unpacked(word.load(SeqCst))?, other))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::atomics::{every_order, spawn};
    use super::*;

    fn first(millis: u64) -> First {
        First::Since(Tick::from_millis(millis))
    }

    fn since(millis: u64) -> Option<First> {
        Some(first(millis))
    }

    #[test]
    fn the_longest_is_found_among_the_others() {
        every_order(|| {
            let firsts = Firsts::new(3);
            assert_eq!(firsts.longest(0), None);
            firsts.set(0, since(500));
            assert_eq!(firsts.longest(0), None, "not by itself");
            firsts.set(2, since(700));
            assert_eq!(firsts.longest(0), Some((first(700), 2)));
            assert_eq!(firsts.longest(1), Some((first(500), 0)));
            assert_eq!((firsts.of(2), firsts.of(1)), (since(700), None));
            firsts.set(0, None);
            assert_eq!(firsts.longest(1), Some((first(700), 2)));
        });
    }

    /// The word that is up, 1, where there is room.
    fn room(up: u64) -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(up))
    }

    #[test]
    fn who_joins_sees_the_room_or_is_seen_by_whoever_makes_it() {
        every_order(|| {
            let (firsts, made) = (Firsts::new(2), room(0));
            let (there, seen) = (firsts.clone(), Arc::clone(&made));
            let joins = spawn(move || {
                there.set(1, since(500));
                seen.load(SeqCst) == 1
            });
            made.store(1, SeqCst);
            fence(SeqCst);
            let told = firsts.longest(0).is_some();
            assert!(joins.join().unwrap() || told, "the call was lost");
        });
    }

    #[test]
    fn who_comes_while_a_room_is_kept_sees_it_free_or_is_seen_by_whoever_kept_it() {
        every_order(|| {
            let (kept, line) = (Firsts::new(2), Firsts::new(2));
            kept.set(1, since(500));
            let (those, theirs) = (kept.clone(), line.clone());
            // Who waited longest leaves, with room left over.
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
