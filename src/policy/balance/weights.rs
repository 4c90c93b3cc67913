//! The shares of a pool's backends, and what follows from them for every pick.
//!
//! Worked out when a weight changes, so that no pick has to look through them all.

use crate::base::{backend_set::BackendSet, ids::BackendId};
use crate::plan::Backend;

/// The shares of a pool's backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    each: Vec<u16>,
    taking: BackendSet,
    equal: bool,
}

impl Weights {
    /// As the plan has them.
    pub(crate) fn of(backends: &[Backend]) -> Weights {
        Weights::new(backends.iter().map(|backend| backend.weight).collect())
    }

    /// In the order of the backends' ids.
    pub(crate) fn new(each: Vec<u16>) -> Weights {
        let mut taking = BackendSet::EMPTY;
        for (id, weight) in (0..).map(BackendId).zip(&each) {
            if *weight > 0 {
                taking.insert(id);
            }
        }
        let mut positive = each.iter().filter(|weight| **weight > 0);
        let first = positive.next();
        let equal = positive.all(|weight| Some(weight) == first);
        Weights { each, taking, equal }
    }

    /// One for each backend.
    #[inline]
    pub(crate) fn each(&self) -> &[u16] {
        &self.each
    }

    /// Those that take new traffic: whose weight is above 0.
    #[inline]
    pub(crate) fn taking(&self) -> &BackendSet {
        &self.taking
    }

    /// Whether all that take new traffic weigh the same.
    #[inline]
    pub(crate) fn equal(&self) -> bool {
        self.equal
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
            let weights = Weights::new(each);
            assert_eq!(weights.taking().iter().map(|id| id.0).collect::<Vec<_>>(), taking);
            assert_eq!(weights.equal(), equal, "{weights:?}");
        }
    }
}
