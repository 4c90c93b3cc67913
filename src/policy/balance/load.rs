//! Requests in flight at a backend: how a core counts them, which of two backends has less for its
//! weight, and which are within a factor of their share.

use std::{cell::Cell, cmp::Ordering};

use super::Candidates;
use crate::base::ids::BackendId;
use crate::plan::Share;

/// More cores than this count as this many.
const CORES_MAX: usize = 8;

/// How a core counts the requests in flight in the whole process between two merges with the
/// others.
///
/// What it merged is up to 10 ms old. If it then added only its own requests, every core would go
/// on to the backend that had the least. So it assumes that the others do as it does, and counts
/// each of its own requests once for each core. With many cores each has too few requests in 10 ms
/// for that, so the factor is eight at most. Without it the fullest backend of the simulation has
/// 1.6 times the mean on 8 cores, with it 1.3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step(u32);

impl Step {
    /// For one of this many cores.
    #[allow(clippy::cast_possible_truncation)] // 8 at most
    pub(crate) fn new(cores: usize) -> Step {
        Step(cores.clamp(1, CORES_MAX) as u32)
    }

    /// One of this core's own requests begins.
    #[inline]
    pub(crate) fn begin(self, in_flight: &Cell<u32>) {
        in_flight.set(in_flight.get().saturating_add(self.0));
    }

    /// One of this core's own requests ends, which leaves it this many there.
    #[inline]
    pub(crate) fn end(self, in_flight: &Cell<u32>, own: u32) {
        in_flight.set(in_flight.get().saturating_sub(self.0).max(own));
    }
}

/// Requests in flight at a backend, relative to its weight, which is above 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) weight: u16,
}

impl PartialOrd for Load {
    #[inline]
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        let ours = u64::from(self.in_flight) * u64::from(other.weight);
        let theirs = u64::from(other.in_flight) * u64::from(self.weight);
        Some(ours.cmp(&theirs))
    }
}

impl PartialEq for Load {
    #[inline]
    fn eq(&self, other: &Load) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

/// How much each backend may have in flight: a factor times its share of what all candidates have
/// in flight, including the request being placed, rounded up. With a factor of 1 or more some
/// backend always has room for one more.
pub(super) struct Headroom {
    /// The factor, in millionths, times what is in flight.
    allowed: u128,
    /// The total weight, in the same millionths.
    weight: u128,
}

impl Headroom {
    pub(super) fn of(candidates: &Candidates<'_>, factor: Share) -> Headroom {
        let (mut under_way, mut weight) = (1, 0);
        for id in candidates.usable.iter() {
            under_way += u64::from(candidates.in_flight(id));
            weight += u64::from(candidates.weights.get(id));
        }
        Headroom {
            allowed: u128::from(factor.0) * u128::from(under_way),
            weight: u128::from(weight) * 1_000_000,
        }
    }

    /// Whether one more fits: a backend below its part has at most that, rounded up, afterwards.
    #[inline]
    pub(super) fn is_left_at(&self, id: BackendId, candidates: &Candidates<'_>) -> bool {
        let load = candidates.load(id);
        u128::from(load.in_flight) * self.weight < self.allowed * u128::from(load.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_its_own_for_those_of_all_and_never_less_than_its_own() {
        for (cores, begun) in [(1, 5), (4, 8), (8, 12), (64, 12)] {
            let (step, in_flight) = (Step::new(cores), Cell::new(4));
            step.begin(&in_flight);
            assert_eq!(in_flight.get(), begun, "{cores} cores");
            step.end(&in_flight, 2);
            assert_eq!(in_flight.get(), 4, "{cores} cores");
            step.end(&in_flight, 1);
            assert_eq!(in_flight.get(), 4_u32.saturating_sub(begun - 4).max(1), "{cores} cores");
        }
    }

    #[test]
    fn compares_for_the_weight() {
        let load = |in_flight, weight| Load { in_flight, weight };
        assert!(load(3, 2) < load(2, 1) && load(2, 1) > load(3, 2));
        assert!(load(4, 2) == load(2, 1) && load(0, 256) == load(0, 1));
        assert!(load(u32::MAX, 256) < load(u32::MAX, 255));
    }
}
