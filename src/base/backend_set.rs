//! A set of backends of one pool, as a bitmap of sixteen words.
//!
//! Combining two sets takes a handful of instructions. So every concern about backends (healthy,
//! enabled, admitted, not tried yet) is a set of its own, and a pick sees only their intersection.

use std::ops::{BitAnd, BitOr, Not};

use super::ids::BackendId;

/// The most backends in one pool (sixteen words of 64).
pub(crate) const BACKENDS_MAX: usize = 1024;

/// Words of a set.
pub(crate) const WORDS: usize = BACKENDS_MAX / 64;

/// A set of backends of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct BackendSet([u64; WORDS]);

impl BackendSet {
    /// No backend.
    pub(crate) const EMPTY: BackendSet = BackendSet([0; WORDS]);

    /// The first `count` backends.
    #[cfg(test)]
    pub(crate) fn first(count: usize) -> BackendSet {
        let mut set = BackendSet::EMPTY;
        for index in 0..count.min(BACKENDS_MAX) {
            set.0[index / 64] |= 1 << (index % 64);
        }
        set
    }

    pub(crate) fn remove(&mut self, backend: BackendId) {
        if let Some(word) = self.0.get_mut(backend.index() / 64) {
            *word &= !(1 << (backend.index() % 64));
        }
    }

    pub(crate) fn insert(&mut self, backend: BackendId) {
        if let Some(word) = self.0.get_mut(backend.index() / 64) {
            *word |= 1 << (backend.index() % 64);
        }
    }

    #[inline]
    pub(crate) fn contains(&self, backend: BackendId) -> bool {
        self.0
            .get(backend.index() / 64)
            .is_some_and(|word| word & (1 << (backend.index() % 64)) != 0)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first backend at or after `start`, or the first of all if there is none: the next in
    /// turn.
    #[inline]
    pub(crate) fn next_from(&self, start: usize) -> Option<BackendId> {
        let (first, bit) = ((start / 64) % WORDS, start % 64);
        let above = u64::MAX << bit;
        // The word of `start` is looked at twice: its upper bits first, its lower bits last.
        for step in 0..=WORDS {
            let place = (first + step) % WORDS;
            let word = match step {
                0 => self.0[place] & above,
                WORDS => self.0[place] & !above,
                _ => self.0[place],
            };
            if word != 0 {
                #[allow(clippy::cast_possible_truncation)] // below `BACKENDS_MAX`
                return Some(BackendId((place * 64) as u16 + word.trailing_zeros() as u16));
            }
        }
        None
    }

    /// The set as words, the lowest backends in the lowest bits of the first.
    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// The set with these words.
    pub(crate) fn from_words(words: [u64; WORDS]) -> BackendSet {
        BackendSet(words)
    }

    /// The backends of the set, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = BackendId> + '_ {
        let (mut place, mut rest) = (0, self.0[0]);
        std::iter::from_fn(move || {
            while rest == 0 {
                place += 1;
                rest = *self.0.get(place)?;
            }
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            #[allow(clippy::cast_possible_truncation)] // below `BACKENDS_MAX`
            Some(BackendId(place as u16 * 64 + bit as u16))
        })
    }
}

impl FromIterator<BackendId> for BackendSet {
    fn from_iter<I: IntoIterator<Item = BackendId>>(backends: I) -> BackendSet {
        let mut set = BackendSet::EMPTY;
        backends.into_iter().for_each(|backend| set.insert(backend));
        set
    }
}

impl BitAnd for BackendSet {
    type Output = BackendSet;

    #[inline]
    fn bitand(mut self, other: BackendSet) -> BackendSet {
        for (word, mask) in self.0.iter_mut().zip(other.0) {
            *word &= mask;
        }
        self
    }
}

impl BitOr for BackendSet {
    type Output = BackendSet;

    #[inline]
    fn bitor(mut self, other: BackendSet) -> BackendSet {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }
}

impl Not for BackendSet {
    type Output = BackendSet;

    #[inline]
    fn not(mut self) -> BackendSet {
        for word in &mut self.0 {
            *word = !*word;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_nothing_else() {
        let mut set = BackendSet::EMPTY;
        for id in [0, 63, 64, 1023] {
            set.insert(BackendId(id));
        }
        set.insert(BackendId(1024)); // out of range: ignored, never a panic
        assert_eq!(set.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 63, 64, 1023]);
        assert!(set.contains(BackendId(63)) && !set.contains(BackendId(62)));
        set.remove(BackendId(63));
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn goes_round_from_any_start() {
        let mut set = BackendSet::EMPTY;
        assert_eq!(set.next_from(5), None);
        for id in [3, 70, 1023] {
            set.insert(BackendId(id));
        }
        for (start, next) in [(0, 3), (3, 3), (4, 70), (70, 70), (71, 1023), (1024, 3)] {
            assert_eq!(set.next_from(start), Some(BackendId(next)), "from {start}");
        }
        set.remove(BackendId(3));
        assert_eq!(set.next_from(1024), Some(BackendId(70)));
    }

    #[test]
    fn intersects_and_complements() {
        let four = BackendSet::first(4);
        let mut tried = BackendSet::EMPTY;
        tried.insert(BackendId(2));
        let left = four & !tried;
        assert_eq!(left.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 1, 3]);
        assert!((left & tried).is_empty());
        assert_eq!((left | tried), four);
    }
}
