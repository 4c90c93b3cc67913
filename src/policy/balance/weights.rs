//! The weights of a pool's backends, with sums and sets that every pick uses.
//!
//! Computed when a weight changes, so that no pick has to scan them all. Random draws start from
//! the sums here; `draw` restricts them to usable backends.

use crate::base::{backend_set::BackendSet, ids::BackendId, rng::Rng};
use crate::plan::{Backend, Table};

/// The weights of a pool's backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    each: Vec<u16>,
    /// For each backend the sum of all weights up to its own, inclusive.
    up_to: Vec<u32>,
    taking: BackendSet,
    equal: bool,
    /// How many there are, if all have the same weight and take traffic; otherwise 0.
    even: u32,
    mean: f32,
}

impl Weights {
    /// The weights of the plan; a seat without a backend has weight 0.
    pub(crate) fn of(backends: &Table<BackendId, Backend>) -> Weights {
        Weights::new(backends.seats().map(|backend| backend.map_or(0, Backend::share)))
    }

    /// In the order of the backends' ids.
    pub(crate) fn new(each: impl ExactSizeIterator<Item = u16>) -> Weights {
        let (each_room, up_to) = (Vec::with_capacity(each.len()), Vec::with_capacity(each.len()));
        let mut weights = Weights { each: each_room, up_to, ..Weights::default() };
        weights.refill(each);
        weights
    }

    /// Replaces the weights; allocates nothing if there were as many before.
    pub(crate) fn refill(&mut self, each: impl Iterator<Item = u16>) {
        self.each.clear();
        self.each.extend(each);
        self.up_to.clear();
        self.taking = BackendSet::EMPTY;
        let (mut sum, mut count, mut first) = (0, 0, None);
        self.equal = true;
        for (id, weight) in (0..).map(BackendId).zip(&self.each) {
            sum += u32::from(*weight);
            self.up_to.push(sum);
            if *weight > 0 {
                count += 1;
                self.taking.insert(id);
                self.equal &= first.is_none_or(|first| first == *weight);
                first = Some(*weight);
            }
        }
        let all = self.equal && usize::try_from(count) == Ok(self.each.len());
        self.even = if all { count } else { 0 };
        self.mean = sum as f32 / (count as f32).max(1.0);
    }

    /// The weight of each backend.
    #[inline]
    pub(crate) fn each(&self) -> &[u16] {
        &self.each
    }

    /// The weight of one backend; 0 if there is no such backend.
    #[inline]
    pub(crate) fn get(&self, id: BackendId) -> u16 {
        self.each.get(id.index()).copied().unwrap_or_default()
    }

    /// The mean of the weights above 0.
    #[inline]
    pub(crate) fn mean(&self) -> f32 {
        self.mean
    }

    /// The backends that take new traffic: their weight is above 0.
    #[inline]
    pub(crate) fn taking(&self) -> &BackendSet {
        &self.taking
    }

    /// Whether all that take new traffic have the same weight.
    #[inline]
    pub(crate) fn equal(&self) -> bool {
        self.equal
    }

    /// A backend drawn by weight; no valid id if all weights are 0.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // below `BACKENDS_MAX`
    pub(crate) fn any(&self, rng: &mut Rng) -> BackendId {
        if self.even > 0 {
            return BackendId(rng.below(self.even) as u16);
        }
        let ticket = rng.below(self.up_to.last().copied().unwrap_or_default());
        BackendId(self.up_to.partition_point(|up_to| *up_to <= ticket) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_takes_traffic_and_whether_all_weigh_the_same() {
        for (each, taking, equal) in [
            (vec![], vec![], true),
            (vec![0, 0], vec![], true),
            (vec![7], vec![0], true),
            (vec![2, 0, 2], vec![0, 2], true),
            (vec![2, 0, 3], vec![0, 2], false),
        ] {
            let weights = Weights::new(each.into_iter());
            assert_eq!(weights.taking().iter().map(|id| id.0).collect::<Vec<_>>(), taking);
            assert_eq!(weights.equal(), equal, "{weights:?}");
        }
    }

    #[test]
    fn draws_each_by_its_weight() {
        for each in [vec![1, 1, 1, 1], vec![0, 3, 0, 1], vec![256, 1, 5, 40]] {
            let weights = Weights::new(each.iter().copied());
            let (mut rng, mut counts) = (Rng::seeded(7), [0_u32; 4]);
            for _ in 0..40_000 {
                counts[weights.any(&mut rng).index()] += 1;
            }
            let sum: u16 = each.iter().sum();
            for (count, weight) in counts.iter().zip(&each) {
                let share = 40_000.0 * f64::from(*weight) / f64::from(sum);
                assert!((f64::from(*count) - share).abs() <= 4.0 * share.sqrt(), "{counts:?}");
            }
        }
        assert_eq!(Weights::new([0, 0].into_iter()).any(&mut Rng::seeded(7)), BackendId(2));
    }
}
