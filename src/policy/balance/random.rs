//! Two random choices: of two backends drawn by weight, the one with less in flight. Few requests
//! never meet at one backend, and no pick compares all of them.
//!
//! Two choices instead of one keep the fullest of n backends within ln ln n of the mean
//! (Mitzenmacher 2001). The better is the one with less in flight for its weight; if both are equal
//! the first drawn is picked, so that idle backends get their exact shares. Unlike with a search
//! for the least loaded, cores that see the same stale figures do not all run to the same backend.
//! One whose last answers failed counts as busier (`failing`).

use super::{Candidates, draw};
use crate::base::{ids::BackendId, rng::Rng};

/// Two choices, on one core.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    rng: Rng,
}

impl Random {
    pub(crate) fn new(rng: Rng) -> Random {
        Random { rng }
    }

    /// The better of two; every candidate has a weight above 0.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        let (first, second) = draw::two(candidates.usable, candidates.weights, &mut self.rng)?;
        let better = |second: &BackendId| candidates.load(*second) < candidates.load(first);
        Some(second.filter(better).unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::backend_set::BackendSet;
    use crate::base::moment::Tick;
    use crate::policy::balance::Weights;

    /// With these weights and requests in flight, the busiest for its weight is never picked, and
    /// all the others are.
    fn check(weights: &[u16], in_flight: &[u32], busiest: u16) {
        let weights = Weights::new(weights.iter().copied());
        let in_flight: Vec<_> = in_flight.iter().copied().map(Cell::new).collect();
        let usable = *weights.taking();
        let all = Candidates {
            extra: &[],
            usable: &usable,
            weights: &weights,
            in_flight: &in_flight,
            now: Tick::from_millis(1),
            key: None,
        };
        let mut random = Random::new(Rng::seeded(5));
        let mut picked = BackendSet::EMPTY;
        (0..200).filter_map(|_| random.pick(&all)).for_each(|id| picked.insert(id));
        let mut others = usable;
        others.remove(BackendId(busiest));
        assert_eq!(picked, others, "{weights:?} {in_flight:?}");
    }

    #[test]
    fn never_picks_the_busiest() {
        check(&[1, 1, 1], &[3, 4, 3], 1);
        check(&[1, 1], &[9, 8], 0);
        // 4 of 8 is more than 1 of 3 and no less than 2 of 4.
        check(&[8, 3, 4, 1], &[4, 1, 2, 1], 3);
        check(&[8, 3, 5], &[4, 1, 2], 0);
    }
}
