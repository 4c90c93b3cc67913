//! Which backends are said to be out of reach, for all workers: so that one that reaches a backend
//! knows that another said it could not.
//!
//! Written by any worker, and only when one begins or ends to be out of reach; read when a
//! connection is made, which is rare. Nothing is decided by it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::base::ids::{BackendId, PoolId};

/// Which backends are said to be out of reach.
#[derive(Clone)]
pub(crate) struct Lost(Arc<[Box<[AtomicBool]>]>);

impl Lost {
    /// None of pools that have so many backends.
    pub(crate) fn new(backends: impl Iterator<Item = usize>) -> Lost {
        Lost(backends.map(|count| (0..count).map(|_| AtomicBool::new(false)).collect()).collect())
    }

    /// A worker could not reach it, and says so.
    pub(crate) fn note(&self, pool: PoolId, backend: BackendId) {
        if let Some(lost) = self.of(pool, backend) {
            lost.store(true, Relaxed);
        }
    }

    /// A worker has reached it; whether somebody said that it could not.
    pub(crate) fn found(&self, pool: PoolId, backend: BackendId) -> bool {
        self.of(pool, backend).is_some_and(|lost| lost.load(Relaxed) && lost.swap(false, Relaxed))
    }

    fn of(&self, pool: PoolId, backend: BackendId) -> Option<&AtomicBool> {
        self.0.get(pool.index())?.get(backend.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_found_once() {
        let lost = Lost::new([1, 2].into_iter());
        let other = lost.clone();
        lost.note(PoolId(1), BackendId(1));
        assert!(!other.found(PoolId(1), BackendId(0)));
        assert!(other.found(PoolId(1), BackendId(1)));
        assert!(!lost.found(PoolId(1), BackendId(1)));
        lost.note(PoolId(0), BackendId(1));
        assert!(!lost.found(PoolId(0), BackendId(1)), "there is none");
    }
}
