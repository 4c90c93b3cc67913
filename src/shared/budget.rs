//! The retries that a pool has left, for all cores together.
//!
//! Two words on a cache line of their own, touched by any core, and only for a retry.
//! `policy/budget.rs` decides what they mean and how they grow.

use super::atomics::{AtomicU64, Relaxed};

/// The retries that a pool has left. It lives on from plan to plan.
#[repr(align(128))]
pub(crate) struct Budget {
    left: AtomicU64,
    /// The requests that have been counted towards retries.
    seen: AtomicU64,
}

impl Budget {
    /// With this much at first.
    pub(crate) fn new(left: u64) -> Budget {
        Budget { left: AtomicU64::new(left), seen: AtomicU64::new(0) }
    }

    /// The present value.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Those of the pool's `requests` so far that were not returned before: each is returned once.
    pub(crate) fn fresh(&self, requests: u64) -> u64 {
        requests.saturating_sub(self.seen.fetch_max(requests, Relaxed))
    }

    /// Replaces the value by the result of `step`, and returns its verdict: may this retry be made?
    pub(crate) fn take(&self, step: impl Fn(u64) -> (u64, bool)) -> bool {
        let mut left = self.left();
        loop {
            let (after, is_granted) = step(left);
            match self.left.compare_exchange_weak(left, after, Relaxed, Relaxed) {
                Ok(_) => return is_granted,
                Err(now) => left = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::atomics::{every_order, spawn};
    use super::*;

    fn one_less(left: u64) -> (u64, bool) {
        (left.saturating_sub(1), left > 0)
    }

    #[test]
    fn two_cores_get_no_more_than_there_is() {
        every_order(|| {
            let budget = Arc::new(Budget::new(1));
            let other = Arc::clone(&budget);
            let other = spawn(move || other.take(one_less));
            let own = budget.take(one_less);
            assert!(own != other.join().unwrap());
            assert_eq!(budget.left(), 0);
        });
    }

    #[test]
    fn each_request_earns_once_whoever_looks() {
        every_order(|| {
            let budget = Arc::new(Budget::new(0));
            let other = Arc::clone(&budget);
            let other = spawn(move || other.fresh(7));
            let own = budget.fresh(5);
            assert_eq!(own + other.join().unwrap(), 7);
            assert_eq!(budget.fresh(6), 0);
        });
    }
}
