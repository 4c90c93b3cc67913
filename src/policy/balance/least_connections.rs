//! The fewest requests under way, each for its weight.
//!
//! Among few backends on few cores all are looked at, and those that have equally few take turns
//! by weight. What the other cores have under way is known up to 10 ms late, so with many cores
//! all would run to the same least backend until they see each other there; and a search through
//! many backends costs more than it gains. From there on it is the better of two drawn by weight.
//!
//! The request that is being placed does not count: with it (HAProxy's key) the heaviest of idle
//! backends would get every request of a lone client and the others none.

use super::{Candidates, random::Random, round_robin::RoundRobin};
use crate::base::{backend_set::BackendSet, ids::BackendId};

/// From so many cores on two are drawn.
const CORES_MANY: usize = 3;

/// From so many backends on two are drawn.
const BACKENDS_MANY: usize = 32;

/// The search for the least, on one core.
#[derive(Clone, Debug)]
pub(crate) enum LeastConnections {
    /// Among all; those that have the same take turns.
    All(RoundRobin),
    /// Between two.
    Two(Random),
}

impl LeastConnections {
    pub(crate) fn new(turn: RoundRobin, random: Random, cores: usize, backends: usize) -> Self {
        if cores < CORES_MANY && backends < BACKENDS_MANY {
            LeastConnections::All(turn)
        } else {
            LeastConnections::Two(random)
        }
    }

    /// One that has the least; every candidate weighs more than 0.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        match self {
            LeastConnections::All(turn) => turn.pick(&least(candidates), candidates.weights),
            LeastConnections::Two(random) => random.pick(candidates),
        }
    }
}

/// All that have the least under way for their weight.
#[inline]
fn least(candidates: &Candidates<'_>) -> BackendSet {
    let (mut set, mut least) = (BackendSet::EMPTY, None);
    for id in candidates.usable.iter() {
        let load = candidates.load(id);
        if least.is_none_or(|least| load < least) {
            (set, least) = (BackendSet::EMPTY, Some(load));
        }
        if least == Some(load) {
            set.insert(id);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::rng::Rng;
    use crate::policy::balance::Weights;

    fn new(weights: &Weights, cores: usize) -> LeastConnections {
        let turn = RoundRobin::new(weights, 0, cores);
        let backends = weights.each().len();
        LeastConnections::new(turn, Random::new(Rng::seeded(1)), cores, backends)
    }

    /// Places one request after another, none of which ends: `expected` names who gets them.
    fn check(weights: &[u16], in_flight: &[u32], expected: &str) {
        let weights = Weights::new(weights.iter().copied());
        let in_flight: Vec<_> = in_flight.iter().copied().map(Cell::new).collect();
        let mut algorithm = new(&weights, 1);
        let mut pick = || {
            let usable = *weights.taking();
            let all =
                Candidates { usable, weights: &weights, in_flight: &in_flight, now: 1, key: None };
            let picked = algorithm.pick(&all).expect("one is usable");
            in_flight[picked.index()].update(|count| count + 1);
            char::from(b'a' + u8::try_from(picked.0).expect("few backends"))
        };
        let picked: String = expected.bytes().map(|_| pick()).collect();
        assert_eq!(picked, expected, "{weights:?}");
    }

    #[test]
    fn picks_the_least_by_weight_and_takes_turns_among_equals() {
        check(&[1, 1, 1], &[2, 0, 1], "bcbcab");
        check(&[1, 1, 1], &[0, 0, 0], "abcabc");
        check(&[2, 1], &[0, 0], "ababaa");
        check(&[4, 1], &[8, 1], "babaaa");
        check(&[0, 1, 1], &[0, 1, 0], "cbc");
    }

    #[test]
    fn backends_at_rest_get_their_shares() {
        let weights = Weights::new([5, 1, 1].into_iter());
        let idle: Vec<_> = (0..3).map(|_| Cell::new(0)).collect();
        let usable = *weights.taking();
        let all = Candidates { usable, weights: &weights, in_flight: &idle, now: 1, key: None };
        let mut algorithm = new(&weights, 1);
        let mut counts = [0; 3];
        (0..70).filter_map(|_| algorithm.pick(&all)).for_each(|id| counts[id.index()] += 1);
        assert_eq!(counts, [50, 10, 10]);
    }

    #[test]
    fn draws_two_where_cores_or_backends_are_many() {
        for (cores, backends, all) in [(1, 3, true), (2, 31, true), (3, 3, false), (1, 32, false)] {
            let algorithm = new(&Weights::new((0..backends).map(|_| 1)), cores);
            assert_eq!(matches!(algorithm, LeastConnections::All(_)), all, "{cores} {backends}");
        }
    }
}
