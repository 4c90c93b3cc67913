//! Since when the first waits on each worker: for one thing that they all wait for.
//!
//! Each worker writes its own word, and only when its own line has changed; whoever has made room
//! reads them all. Nothing is counted, so nothing can be left over: a word is what its worker's
//! line says.

use std::sync::Arc;

use super::atomics::{AtomicU64, SeqCst, fence};

/// Nobody waits.
const NOBODY: u64 = u64::MAX;

/// Those who do are in nobody's way, and go before nobody either.
pub(crate) const IN_NO_WAY: u64 = u64::MAX - 1;

/// Since when the first waits on each worker, in coarse milliseconds.
#[derive(Clone)]
pub(crate) struct Firsts(Arc<[AtomicU64]>);

impl Firsts {
    /// Of so many workers; nobody waits.
    pub(crate) fn new(workers: usize) -> Firsts {
        Firsts((0..workers).map(|_| AtomicU64::new(NOBODY)).collect())
    }

    /// On this worker the first waits since then; none = nobody does. Who joins looks once more
    /// whether there is room after this: either it sees the room, or whoever made the room sees it
    /// wait.
    pub(crate) fn set(&self, worker: usize, first: Option<u64>) {
        if let Some(since) = self.0.get(worker) {
            since.store(first.unwrap_or(NOBODY), SeqCst);
        }
        fence(SeqCst);
    }

    /// Since when the first waits on this worker.
    pub(crate) fn of(&self, worker: usize) -> Option<u64> {
        let since = self.0.get(worker)?.load(SeqCst);
        (since != NOBODY).then_some(since)
    }

    /// The other worker whose first waits longest, and since when. Whoever has just made room asks
    /// after a fence.
    pub(crate) fn longest(&self, worker: usize) -> Option<(u64, usize)> {
        let others = self.0.iter().enumerate().filter(|(other, _)| *other != worker);
        let each = others.map(|(other, since)| (since.load(SeqCst), other));
        each.filter(|(since, _)| *since != NOBODY).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::atomics::{every_order, spawn};
    use super::*;

    #[test]
    fn the_longest_is_found_among_the_others() {
        every_order(|| {
            let firsts = Firsts::new(3);
            assert_eq!(firsts.longest(0), None);
            firsts.set(0, Some(500));
            assert_eq!(firsts.longest(0), None, "not by itself");
            firsts.set(2, Some(700));
            assert_eq!(firsts.longest(0), Some((700, 2)));
            assert_eq!(firsts.longest(1), Some((500, 0)));
            assert_eq!((firsts.of(2), firsts.of(1)), (Some(700), None));
            firsts.set(0, None);
            assert_eq!(firsts.longest(1), Some((700, 2)));
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
                there.set(1, Some(500));
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
            kept.set(1, Some(500));
            let (those, theirs) = (kept.clone(), line.clone());
            // Who waited longest leaves, with room left over.
            let leaves = spawn(move || {
                those.set(1, None);
                theirs.longest(1).is_some()
            });
            line.set(0, Some(600));
            let is_free = kept.longest(0).is_none();
            assert!(leaves.join().unwrap() || is_free, "the call was lost");
        });
    }
}
