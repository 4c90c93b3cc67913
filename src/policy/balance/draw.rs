//! Random draws among usable backends, each with the chance of its weight.
//!
//! Nearly always nearly all backends are usable. So a draw among all of them is repeated a few
//! times if it hits an unusable one; only then are the usable ones summed up. Both give the same
//! chances.

use super::Weights;
use crate::base::{backend_set::BackendSet, ids::BackendId, rng::Rng};

/// Draws among all backends before the usable ones are summed up.
const DRAWS: usize = 8;

/// One of these; none if all weights are 0.
#[inline]
fn one(
    from: &BackendSet,
    but: Option<BackendId>,
    weights: &Weights,
    rng: &mut Rng,
) -> Option<BackendId> {
    for _ in 0..DRAWS {
        let id = weights.any(rng);
        if from.contains(id) && Some(id) != but {
            return Some(id);
        }
    }
    counted(from, but, weights, rng)
}

/// One of these, and another if there are two.
#[inline]
pub(super) fn two(
    from: &BackendSet,
    weights: &Weights,
    rng: &mut Rng,
) -> Option<(BackendId, Option<BackendId>)> {
    let first = one(from, None, weights, rng)?;
    Some((first, one(from, Some(first), weights, rng)))
}

#[cold]
fn counted(
    from: &BackendSet,
    but: Option<BackendId>,
    weights: &Weights,
    rng: &mut Rng,
) -> Option<BackendId> {
    let each = || {
        let others = from.iter().filter(|id| Some(*id) != but);
        others.map(|id| (id, u32::from(weights.get(id))))
    };
    let mut ticket = rng.below(each().map(|(_, weight)| weight).sum());
    for (id, weight) in each() {
        if ticket < weight {
            return Some(id);
        }
        ticket -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws pairs among the usable of 64 backends; each of these, and no other, must come up first
    /// as often as its weight says.
    fn check(weight: fn(u16) -> u16, usable: &[u16]) {
        let weights = Weights::new((0..64).map(weight));
        let mut from = BackendSet::EMPTY;
        usable.iter().for_each(|id| from.insert(BackendId(*id)));
        let (mut rng, mut counts, draws) = (Rng::seeded(3), [0_u32; 64], 20_000);
        for _ in 0..draws {
            let (first, second) = two(&from, &weights, &mut rng).expect("one is usable");
            counts[first.index()] += 1;
            assert_eq!(second.is_none(), usable.len() == 1);
            assert!(second.is_none_or(|second| second != first && from.contains(second)));
        }
        let sum: u16 = usable.iter().map(|id| weight(*id)).sum();
        for (id, count) in (0..64).zip(counts) {
            let weight = if usable.contains(&id) { weight(id) } else { 0 };
            let share = f64::from(draws) * f64::from(weight) / f64::from(sum);
            assert!((f64::from(count) - share).abs() <= 4.0 * share.sqrt(), "{id}: {count}");
        }
    }

    #[test]
    fn draws_two_that_differ_by_weight_however_few_are_usable() {
        for weight in [|_| 3, |id| 1 + id % 7] {
            check(weight, &(0..64).collect::<Vec<_>>());
            check(weight, &(0..32).collect::<Vec<_>>());
            check(weight, &[5, 17, 60]);
            check(weight, &[5, 60]);
            check(weight, &[63]);
        }
    }

    #[test]
    fn draws_nobody_from_nobody() {
        let weights = Weights::new([0, 0, 1].into_iter());
        assert_eq!(two(&BackendSet::EMPTY, &weights, &mut Rng::seeded(1)), None);
        assert_eq!(two(&BackendSet::first(2), &weights, &mut Rng::seeded(1)), None);
    }
}
