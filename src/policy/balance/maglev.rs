//! Maglev's lookup table: each key has a slot in it, each slot belongs to a backend (Eisenbud et
//! al., NSDI 2016, §3.4).
//!
//! Each backend takes free slots in an order of its own, which follows from its name and the pool's
//! seed, in turns by weight. So all get their shares to within a slot, and if one leaves the pool
//! nearly all slots keep their owner. Nothing depends on a backend's position in the list or on
//! whether it is usable: a key whose backend cannot take it walks on, and returns when it can.
//! Every Ringway with the same pool walks the same way.
//!
//! A backend whose share is less than a slot (1 of 65,537) may get none.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::{ids::BackendId, rng::Rng};

/// Slots: a prime, so that every order visits all of them, and more than 64 for each of 1,024
/// backends.
const PLACES: u32 = 65_537;

/// Steps of a walk before it falls back to lots. It gets there only if few can take the key: with
/// half of the weight usable once in 2^64 keys, with a tenth once in 850.
const STEPS: usize = 64;

/// A slot without an owner yet.
const FREE: u16 = u16::MAX;

/// The owner of each key.
#[derive(Debug, Default)]
pub(crate) struct Maglev {
    places: Vec<u16>,
    lots: Vec<Lots>,
}

/// The lots that one backend holds: as many as its weight.
#[derive(Debug)]
struct Lots {
    id: BackendId,
    /// The hash of its name.
    name: u64,
    weight: u16,
}

impl Maglev {
    /// The table for backends of these names and weights.
    pub(crate) fn new<'a>(
        backends: impl Iterator<Item = (BackendId, &'a str, u16)>,
        seed: u64,
    ) -> Maglev {
        let mut backends: Vec<_> = backends.filter(|(_, _, weight)| *weight > 0).collect();
        backends.sort_by_key(|(_, name, _)| *name);
        let lots = |(id, name, weight): &(_, &str, _)| Lots {
            id: *id,
            name: xxh3_64_with_seed(name.as_bytes(), seed),
            weight: *weight,
        };
        let lots: Vec<_> = backends.iter().map(lots).collect();
        Maglev { places: places(&lots), lots }
    }

    /// The first backend on the key's way that takes it.
    #[inline]
    pub(crate) fn find(&self, key: u64, takes: impl Fn(BackendId) -> bool) -> Option<BackendId> {
        let mut way = Rng::seeded(key);
        for _ in 0..STEPS {
            let owner = BackendId(*self.places.get(way.below(PLACES) as usize)?);
            if takes(owner) {
                return Some(owner);
            }
        }
        self.draw_lots(key, takes)
    }

    /// If few take keys: the one that holds the highest lot for this key (rendezvous hashing).
    #[cold]
    fn draw_lots(&self, key: u64, takes: impl Fn(BackendId) -> bool) -> Option<BackendId> {
        let highest = |lots: &Lots| {
            let mut own = Rng::seeded(lots.name ^ key);
            (0..lots.weight).map(|_| own.next()).max()
        };
        let taking = self.lots.iter().filter(|lots| takes(lots.id));
        taking.max_by_key(|lots| highest(lots)).map(|lots| lots.id)
    }
}

/// The owner of each slot; empty without backends.
fn places(lots: &[Lots]) -> Vec<u16> {
    let most = lots.iter().map(|lots| u32::from(lots.weight)).max();
    let Some(most) = most else { return Vec::new() };
    let mut places = vec![FREE; PLACES as usize];
    let mut turns: Vec<_> = lots.iter().map(Turns::new).collect();
    let mut left = PLACES;
    loop {
        for (lots, turns) in lots.iter().zip(&mut turns) {
            turns.credit += u32::from(lots.weight);
            if turns.credit < most {
                continue;
            }
            turns.credit -= most;
            turns.take(&mut places, lots.id);
            left -= 1;
            if left == 0 {
                return places;
            }
        }
    }
}

/// The order in which a backend visits the slots, and its credit.
struct Turns {
    next: u32,
    skip: u32,
    credit: u32,
}

impl Turns {
    #[allow(clippy::cast_possible_truncation)] // remainders of `PLACES`
    fn new(lots: &Lots) -> Turns {
        let skip = Rng::seeded(lots.name).next() % u64::from(PLACES - 1) + 1;
        let next = (lots.name % u64::from(PLACES)) as u32;
        Turns { next, skip: skip as u32, credit: 0 }
    }

    /// Takes the next free slot; there is one.
    fn take(&mut self, places: &mut [u16], id: BackendId) {
        loop {
            let place = places.get_mut(self.next as usize);
            self.next = (self.next + self.skip) % PLACES;
            if let Some(place) = place.filter(|place| **place == FREE) {
                *place = id.0;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], weights: &[u16]) -> Maglev {
        let ids = (0..).map(BackendId);
        let backends = ids.zip(names).zip(weights).map(|((id, name), weight)| (id, *name, *weight));
        Maglev::new(backends, 7)
    }

    fn counts(maglev: &Maglev, backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        maglev.places.iter().for_each(|owner| counts[usize::from(*owner)] += 1);
        counts
    }

    #[test]
    fn gives_each_its_share_of_the_places() {
        assert_eq!(counts(&of(&["a", "b", "c"], &[1, 0, 1]), 3), [32_769, 0, 32_768]);
        let counts = counts(&of(&["a", "b", "c", "d"], &[5, 1, 256, 40]), 4);
        for (count, weight) in counts.iter().zip([5.0, 1.0, 256.0, 40.0]) {
            let share = f64::from(PLACES) * weight / 302.0;
            assert!((f64::from(*count) - share).abs() <= 1.5, "{counts:?}");
        }
    }

    #[test]
    fn holds_nobody_where_there_is_nobody() {
        assert_eq!(of(&[], &[]).find(1, |_| true), None);
        assert_eq!(of(&["a"], &[0]).find(1, |_| true), None);
        assert_eq!(of(&["a"], &[1]).find(1, |_| false), None);
    }

    /// The table of a plan must be the same in every build and on every machine.
    #[test]
    fn the_table_is_the_one_it_has_always_been() {
        let maglev = of(&["10.0.0.1:80", "10.0.0.2:80", "blue"], &[1, 2, 3]);
        let owners: Vec<_> = (0..12).filter_map(|key| maglev.find(key, |_| true)).collect();
        let few: Vec<_> = (0..6).filter_map(|key| maglev.draw_lots(key, |_| true)).collect();
        assert_eq!(
            (owners.iter().map(|id| id.0).collect(), few.iter().map(|id| id.0).collect()),
            (vec![1, 1, 1, 2, 2, 0, 2, 1, 2, 1, 1, 2], vec![1, 2, 2, 2, 2, 0]),
        );
    }

    #[test]
    fn lots_go_by_weight() {
        let maglev = of(&["a", "b"], &[1, 3]);
        let b = (0..4_000).filter(|key| maglev.draw_lots(*key, |_| true) == Some(BackendId(1)));
        let b = b.count();
        assert!((2_900..=3_100).contains(&b), "3,000 of 4,000: {b}");
    }
}
