//! Consistent hashing: the same key gets the same backend, on every core and every Ringway with the
//! same pool.
//!
//! `maglev` has the table, `key` makes the keys. A request without a key is placed in turn. With a
//! bound no backend gets more than that factor times its share of what is in flight (Mirrokni,
//! Thorup and Zadimoghaddam, arXiv 1608.01350): if the key's own backend is full the key walks on
//! as if that were down, by jumps that differ from key to key, so that the neighbour of a full one
//! does not get everything it turns away (arXiv 1908.08762).

use std::sync::Arc;

use super::{Candidates, key, load::Headroom, maglev::Maglev, round_robin::RoundRobin};
use crate::base::ids::BackendId;
use crate::plan::{Pool, Share};

/// The owners of the keys: one table for regular backends, one for backups.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    primaries: Maglev,
    backups: Maglev,
}

impl Tables {
    /// The tables of a pool.
    pub(crate) fn of(pool: &Pool) -> Tables {
        let seed = key::seed(pool);
        let table = |backup| {
            let these = pool.backends.iter().filter(|(_, backend)| backend.backup == backup);
            let these: Vec<_> =
                these.map(|(id, backend)| (id, backend.identity(), backend.share())).collect();
            Maglev::new(these.iter().map(|(id, name, share)| (*id, &**name, *share)), seed)
        };
        Tables { primaries: table(false), backups: table(true) }
    }
}

/// Picks by key, on one core.
#[derive(Clone, Debug)]
pub(crate) struct Hash {
    tables: Arc<Tables>,
    bound: Option<Share>,
    /// For requests without a key.
    turn: RoundRobin,
}

impl Hash {
    pub(crate) fn new(tables: Arc<Tables>, bound: Option<Share>, turn: RoundRobin) -> Hash {
        Hash { tables, bound, turn }
    }

    /// Continues where another instance left off; the tables are the new plan's.
    pub(crate) fn take_over(&mut self, before: Hash, same_weights: bool) {
        self.turn.take_over(before.turn, same_weights);
    }

    /// The key's own backend, or the next on its way. Either all candidates are backups, or none
    /// is.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>, backups: bool) -> Option<BackendId> {
        let Some(key) = candidates.key else {
            return self.turn.pick(candidates.usable, candidates.weights);
        };
        let table = if backups { &self.tables.backups } else { &self.tables.primaries };
        let Some(bound) = self.bound else {
            return table.find(key, |id| candidates.usable.contains(id));
        };
        let room = Headroom::of(candidates, bound);
        table.find(key, |id| candidates.usable.contains(id) && room.is_left_at(id, candidates))
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.turn.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::moment::Tick;
    use crate::base::{backend_set::BackendSet, rng::Rng};
    use crate::plan::{Algorithm, HashOf};
    use crate::policy::balance::{Balancer, Prepared, Weights, tests::pool};

    /// A balancer by key among backends of these weights (below 0: a backup's).
    struct Keys {
        balancer: Balancer,
        weights: Weights,
        in_flight: Vec<Cell<u32>>,
    }

    impl Keys {
        fn of(weights: &[i32], bound: Option<Share>) -> Keys {
            let algorithm = Algorithm::Hash { of: HashOf::Uri, bound };
            Keys::new(&Pool { algorithm, ..pool(weights) })
        }

        fn new(pool: &Pool) -> Keys {
            Keys {
                balancer: Balancer::new(pool, &Prepared::of(pool, 0), 0, 1),
                weights: Weights::of(&pool.backends),
                in_flight: pool.backends.iter().map(|_| Cell::new(0)).collect(),
            }
        }

        fn pick(&mut self, key: u64, usable: BackendSet) -> Option<u16> {
            let candidates = Candidates {
                extra: &[],
                usable: &usable,
                weights: &self.weights,
                in_flight: &self.in_flight,
                now: Tick::from_millis(1),
                key: Some(Rng::seeded(key).next()),
            };
            self.balancer.pick(&candidates).map(|id| id.0)
        }

        /// The backends of many keys.
        fn all(&mut self, usable: BackendSet) -> Vec<u16> {
            (0..20_000).filter_map(|key| self.pick(key, usable)).collect()
        }
    }

    fn without(count: usize, gone: &[u16]) -> BackendSet {
        let mut set = BackendSet::first(count);
        gone.iter().for_each(|id| set.remove(BackendId(*id)));
        set
    }

    #[test]
    fn only_the_keys_of_one_that_is_down_walk_on_and_they_return() {
        let mut keys = Keys::of(&[1; 10], None);
        let before = keys.all(without(10, &[]));
        let mut gained = [0_u32; 10];
        for (was, is) in before.iter().zip(keys.all(without(10, &[4]))) {
            assert!(is != 4 && (*was == 4 || *was == is), "{was} {is}");
            gained[usize::from(is)] += u32::from(*was == 4);
        }
        let others = gained.iter().enumerate().filter(|(id, _)| *id != 4);
        for (id, gained) in others {
            assert!((170..=280).contains(gained), "{id} got {gained} of 2,000");
        }
        assert_eq!(keys.all(without(10, &[])), before);
    }

    #[test]
    fn the_last_one_takes_all_keys() {
        let mut keys = Keys::of(&[1; 1000], None);
        let mut one = BackendSet::EMPTY;
        one.insert(BackendId(700));
        assert!((0..2_000).all(|key| keys.pick(key, one) == Some(700)));
        // With few left, the loss of one more moves no keys but its own.
        let few = |gone: &[u16]| without(8, gone);
        let with = (0..2_000).map(|key| keys.pick(key, few(&[]))).collect::<Vec<_>>();
        for (key, was) in (0..).zip(with) {
            let is = keys.pick(key, few(&[3]));
            assert!(is != Some(3) && (was == Some(3) || was == is), "{was:?} {is:?}");
        }
    }

    #[test]
    fn weights_count_and_weight_zero_owns_nothing() {
        let mut keys = Keys::of(&[3, 0, 1], None);
        let of_c = keys.all(without(3, &[])).iter().filter(|id| **id == 2).count();
        assert!((4_750..=5_250).contains(&of_c), "5,000 of 20,000: {of_c}");
        assert!(keys.all(without(3, &[])).iter().all(|id| *id != 1));
    }

    #[test]
    fn backups_own_keys_only_among_themselves() {
        let mut keys = Keys::of(&[1, -1, 1, -3], None);
        assert!(keys.all(without(4, &[0])).iter().all(|id| *id == 2));
        let on_backups = keys.all(without(4, &[0, 2]));
        let of_b = on_backups.iter().filter(|id| **id == 1).count();
        assert!((4_750..=5_250).contains(&of_b), "5,000 of 20,000: {of_b}");
        assert!(on_backups.iter().all(|id| *id == 1 || *id == 3));
    }

    #[test]
    fn requests_without_a_key_take_turns() {
        let mut keys = Keys::of(&[1, 1, 1], None);
        let usable = BackendSet::first(3);
        let weights = keys.weights.clone();
        let none = Candidates {
            extra: &[],
            usable: &usable,
            weights: &weights,
            in_flight: &[],
            now: Tick::from_millis(1),
            key: None,
        };
        let picked: Vec<_> =
            (0..6).filter_map(|_| keys.balancer.pick(&none)).map(|id| id.0).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    }

    /// One key fills its backend to the bound, and then moves on to the others.
    #[test]
    fn nobody_gets_more_than_the_bound_whatever_the_keys_are() {
        for weights in [&[1, 1, 1, 1][..], &[4, 2, 1, 1]] {
            let mut keys = Keys::of(weights, Some(Share(1_250_000)));
            let sum: i32 = weights.iter().sum();
            for under_way in 1..=400 {
                let picked = keys.pick(7, BackendSet::first(4)).expect("there is room");
                let cell = &keys.in_flight[usize::from(picked)];
                cell.set(cell.get() + 1);
                for (cell, weight) in keys.in_flight.iter().zip(weights) {
                    let room = 1.25 * f64::from(under_way) * f64::from(*weight) / f64::from(sum);
                    assert!(
                        f64::from(cell.get()) <= room.ceil(),
                        "{weights:?}: {:?}",
                        keys.in_flight
                    );
                }
            }
        }
    }

    #[test]
    fn an_idle_pool_gives_every_key_its_own() {
        let usable = BackendSet::first(10);
        let mut free = Keys::of(&[1; 10], None);
        let mut bounded = Keys::of(&[1; 10], Some(Share(1_250_000)));
        assert_eq!(free.all(usable), bounded.all(usable));
    }
}
