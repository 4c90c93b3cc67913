//! Notices to cores: pools in which there may be room again, or a backend was taken out.
//!
//! A bit for each core and pool, set by any core and cleared by its own. However often room is made
//! before the core reads it, one notice is enough, so nothing can overflow or get lost. The words
//! of one core are touched by others only while requests wait on that core.

use std::sync::Arc;

use super::atomics::{AtomicU64, SeqCst};
use crate::base::{ids::PoolId, segments::Segments};

/// Pools per word.
const BITS: usize = 64;

/// The bits of all cores.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<[Segments<AtomicU64>]>);

impl Rooms {
    /// For this many cores, and no pools yet.
    pub(crate) fn new(cores: usize) -> Rooms {
        Rooms((0..cores).map(|_| Segments::new()).collect())
    }

    /// Makes room for this many pools; no bit of a new one is set.
    pub(crate) fn grow(&self, pools: usize) {
        for words in &*self.0 {
            words.grow(pools.div_ceil(BITS), || AtomicU64::new(0));
        }
    }

    /// Tells a core that something about this pool is new; returns whether its bell must ring: not
    /// if a bit of the same word has rung it already.
    #[must_use]
    pub(crate) fn tell(&self, core: usize, pool: PoolId) -> bool {
        let (place, bit) = (pool.index() / BITS, 1 << (pool.index() % BITS));
        let word = self.0.get(core).and_then(|words| words.get(place));
        // Everything that made the room happens before this, for the core that clears the bit.
        word.is_some_and(|word| word.fetch_or(bit, SeqCst) == 0)
    }

    /// Takes the notices since the last call, after the bell has rung.
    pub(crate) fn take(&self, core: usize) -> impl Iterator<Item = PoolId> {
        let words = self.0.get(core).into_iter().flat_map(Segments::iter);
        words.enumerate().flat_map(|(place, word)| {
            let told = if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) };
            let bits = (0..BITS).filter(move |bit| told & (1 << bit) != 0);
            #[allow(clippy::cast_possible_truncation)] // as many pools as there are ids
            bits.map(move |bit| PoolId((place * BITS + bit) as u16))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::atomics::{every_order, spawn};
    use super::*;

    #[test]
    fn each_pool_is_told_once_however_often_room_is_made() {
        every_order(|| {
            let rooms = Rooms::new(2);
            rooms.grow(70);
            assert_eq!(rooms.take(1).count(), 0);
            let rings: Vec<bool> = [3, 3, 69, 0, 3].map(|id| rooms.tell(1, PoolId(id))).into();
            assert_eq!(rings, [true, false, true, false, false]);
            assert_eq!(rooms.take(0).count(), 0, "the other core was told nothing");
            assert_eq!(rooms.take(1).map(|id| id.0).collect::<Vec<_>>(), [0, 3, 69]);
            assert_eq!(rooms.take(1).count(), 0);
            assert!(rooms.tell(1, PoolId(3)));
            assert!(!rooms.tell(1, PoolId(700)) && !rooms.tell(7, PoolId(0)), "none such");
        });
    }

    #[test]
    fn who_looks_sees_what_was_told_or_is_rung_again() {
        every_order(|| {
            let rooms = Rooms::new(1);
            rooms.grow(2);
            assert!(rooms.tell(0, PoolId(0)));
            let there = rooms.clone();
            let tells = spawn(move || there.tell(0, PoolId(1)));
            let seen: Vec<u16> = rooms.take(0).map(|id| id.0).collect();
            let rings = tells.join().unwrap();
            assert!(seen.contains(&0));
            assert!(seen.contains(&1) != rings, "lost, or rung for nothing: {seen:?} {rings}");
        });
    }
}
