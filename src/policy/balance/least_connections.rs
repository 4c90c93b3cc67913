//! Least connections: the fewest requests in flight, relative to weight.
//!
//! Among few backends on few cores all are compared. With equal weights, those with the fewest take
//! turns. With unequal weights, those below their share of what is in flight take turns by weight:
//! a slow backend fills up to its share and is passed over, and both a lone client and a hundred
//! see the shares that the weights say. A search for the fewest per weight would fail at that: a
//! light backend that is idle has none whatever its weight, and would get every second request of
//! two clients; and with the request being placed counted in (HAProxy's key) none at all.
//!
//! A backend whose last answers failed counts as busier (`failing`): one that fails at once never
//! has anything in flight.
//!
//! The counts of other cores are up to 10 ms old. So with many cores all would run to the same
//! least loaded backend until they see each other there; and a search through many backends costs
//! more than it gains. Beyond these limits it is the better of two drawn by weight.

use super::{Candidates, load::Headroom, random::Random, round_robin::RoundRobin};
use crate::base::{backend_set::BackendSet, ids::BackendId};
use crate::plan::Share;

/// From this many cores on two are drawn.
const CORES_MANY: usize = 3;

/// From this many backends on two are drawn.
const BACKENDS_MANY: usize = 32;

/// The search for the least loaded backend, on one core.
#[derive(Clone, Debug)]
pub(crate) enum LeastConnections {
    /// Among all; equally good ones take turns.
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

    /// Continues where another instance left off.
    pub(crate) fn take_over(&mut self, before: LeastConnections, same_weights: bool) {
        match (self, before) {
            (LeastConnections::All(next), LeastConnections::All(before)) => {
                next.take_over(before, same_weights);
            }
            (LeastConnections::Two(next), LeastConnections::Two(before)) => *next = before,
            (LeastConnections::All(_) | LeastConnections::Two(_), _) => {}
        }
    }

    /// A lightly loaded backend; every candidate has a weight above 0.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        match self {
            LeastConnections::All(turn) => {
                let equal = candidates.weights.equal();
                let good = if equal { fewest(candidates) } else { below_share(candidates) };
                turn.pick(&good, candidates.weights)
            }
            LeastConnections::Two(random) => random.pick(candidates),
        }
    }
}

/// All that have the fewest in flight.
#[inline]
fn fewest(candidates: &Candidates<'_>) -> BackendSet {
    let (mut set, mut fewest) = (BackendSet::EMPTY, u32::MAX);
    for id in candidates.usable.iter() {
        let in_flight = candidates.in_flight(id);
        if in_flight < fewest {
            (set, fewest) = (BackendSet::EMPTY, in_flight);
        }
        if in_flight == fewest {
            set.insert(id);
        }
    }
    set
}

/// All that are below their share of what is in flight.
#[inline]
fn below_share(candidates: &Candidates<'_>) -> BackendSet {
    let room = Headroom::of(candidates, Share::percent(100));
    let mut set = *candidates.usable;
    for id in candidates.usable.iter() {
        if !room.is_left_at(id, candidates) {
            set.remove(id);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::moment::Tick;
    use crate::base::rng::Rng;
    use crate::policy::balance::Weights;

    fn new(weights: &Weights, cores: usize) -> LeastConnections {
        let turn = RoundRobin::new(weights, 0, (0, cores));
        let backends = weights.each().len();
        LeastConnections::new(turn, Random::new(Rng::seeded(1)), cores, backends)
    }

    /// Places one request after another, none of which ends: `expected` names the backends that get
    /// them.
    fn check(weights: &[u16], in_flight: &[u32], expected: &str) {
        let weights = Weights::new(weights.iter().copied());
        let in_flight: Vec<_> = in_flight.iter().copied().map(Cell::new).collect();
        let mut algorithm = new(&weights, 1);
        let mut pick = || {
            let usable = *weights.taking();
            let all = Candidates {
                extra: &[],
                usable: &usable,
                weights: &weights,
                in_flight: &in_flight,
                now: Tick::from_millis(1),
                key: None,
            };
            let picked = algorithm.pick(&all).expect("one is usable");
            in_flight[picked.index()].update(|count| count + 1);
            char::from(b'a' + u8::try_from(picked.0).expect("few backends"))
        };
        let picked: String = expected.bytes().map(|_| pick()).collect();
        assert_eq!(picked, expected, "{weights:?}");
    }

    #[test]
    fn picks_the_fewest_by_weight_and_takes_turns_among_equals() {
        check(&[1, 1, 1], &[2, 0, 1], "bcbcab");
        check(&[1, 1, 1], &[0, 0, 0], "abcabc");
        check(&[2, 1], &[0, 0], "abaaab");
        check(&[4, 1], &[8, 1], "baabaa");
        check(&[9, 1], &[1, 0], "aaaaaba");
        check(&[0, 1, 1], &[0, 1, 0], "cbc");
    }

    #[test]
    fn backends_at_rest_get_their_shares() {
        let weights = Weights::new([5, 1, 1].into_iter());
        let idle: Vec<_> = (0..3).map(|_| Cell::new(0)).collect();
        let usable = *weights.taking();
        let all = Candidates {
            extra: &[],
            usable: &usable,
            weights: &weights,
            in_flight: &idle,
            now: Tick::from_millis(1),
            key: None,
        };
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
