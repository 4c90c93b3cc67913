//! Which of the usable backends answers: the seam that every algorithm stands behind.
//!
//! What all algorithms have in common is decided here, once: weight 0 takes no new traffic, and
//! backups serve only when nobody else can. An algorithm is a struct with a `pick`; it sees what
//! is left and never learns why a backend is missing. One `Balancer` belongs to one pool on one
//! core, so a pick touches nothing that another core writes, and allocates nothing.

mod round_robin;
mod weights;

use self::round_robin::RoundRobin;
pub(crate) use self::weights::Weights;
use crate::base::{backend_set::BackendSet, ids::BackendId};
use crate::plan::{self, Pool};

/// What an algorithm may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates<'a> {
    /// Who can take this request: healthy, enabled, admitted, not tried yet.
    pub(crate) usable: BackendSet,
    /// The shares of the pool's backends.
    pub(crate) weights: &'a Weights,
}

/// The way one core picks among the backends of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Balancer {
    backups: BackendSet,
    algorithm: Algorithm,
}

#[derive(Clone, Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// For one pool on the core `core_index` of `cores`, so that cores need not begin alike.
    pub(crate) fn new(pool: &Pool, core_index: usize, cores: usize) -> Balancer {
        let weights = Weights::of(&pool.backends);
        let algorithm = match &pool.algorithm {
            // The others land one by one; until then the configuration refuses them.
            plan::Algorithm::RoundRobin
            | plan::Algorithm::Random
            | plan::Algorithm::LeastConnections
            | plan::Algorithm::IpHash
            | plan::Algorithm::LeastResponseTime
            | plan::Algorithm::Hash { .. } => {
                Algorithm::RoundRobin(RoundRobin::new(&weights, core_index, cores))
            }
        };
        Balancer { backups: backups(pool), algorithm }
    }

    /// The backend to ask; none where nobody may be asked.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        let taking = candidates.usable & *candidates.weights.taking();
        let first = taking & !self.backups;
        let usable = if first.is_empty() { taking } else { first };
        let candidates = Candidates { usable, ..*candidates };
        match &mut self.algorithm {
            Algorithm::RoundRobin(algorithm) => algorithm.pick(&candidates),
        }
    }
}

/// The backends that serve only when no other can.
fn backups(pool: &Pool) -> BackendSet {
    let mut set = BackendSet::EMPTY;
    for (id, backend) in (0..).map(BackendId).zip(&pool.backends) {
        if backend.backup {
            set.insert(id);
        }
    }
    set
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Address, Backend};

    /// A pool with backends of these weights; a weight below zero is a backup's.
    pub(crate) fn pool(weights: &[i32]) -> Pool {
        let backend = |(index, weight): (usize, &i32)| Backend {
            weight: u16::try_from(weight.abs()).unwrap(),
            backup: *weight < 0,
            ..Backend::new(format!("b{index}"), Address::Socket(([127, 0, 0, 1], 3000).into()))
        };
        Pool {
            name: "app".into(),
            backends: weights.iter().enumerate().map(backend).collect(),
            ..Pool::default()
        }
    }

    /// Picks once for each letter of `expected` (`a` is the first backend, `-` is nobody), with
    /// the backends named in `down` not usable.
    fn check(weights: &[i32], down: &str, expected: &str) {
        let pool = pool(weights);
        let mut balancer = Balancer::new(&pool, 0, 1);
        let mut usable = BackendSet::first(weights.len());
        for letter in down.bytes() {
            usable.remove(BackendId(u16::from(letter - b'a')));
        }
        let weights = Weights::of(&pool.backends);
        let picked: String = expected
            .chars()
            .map(|_| match balancer.pick(&Candidates { usable, weights: &weights }) {
                Some(BackendId(id)) => char::from(b'a' + u8::try_from(id).unwrap()),
                None => '-',
            })
            .collect();
        assert_eq!(picked, expected, "weights {:?}, down {down:?}", weights);
    }

    #[test]
    fn picks_nobody_where_nobody_is_usable() {
        check(&[], "", "--");
        check(&[1, 1], "ab", "--");
        check(&[0, 0], "", "--");
    }

    #[test]
    fn gives_weight_zero_no_new_traffic() {
        check(&[1, 0, 1], "", "acac");
        check(&[3, 0, 1], "", "aacaaaca");
        check(&[1, 0, 1], "ac", "--");
    }

    #[test]
    fn asks_backups_only_when_no_other_is_usable() {
        check(&[1, -1, 1, -1], "", "acac");
        check(&[1, -1, 1, -1], "a", "cccc");
        check(&[1, -1, 1, -1], "ac", "bdbd");
        check(&[0, -1], "", "bb");
    }
}
