//! Process-wide limits: exact counters, each on a cache line of its own.
//!
//! An exception to single writers: every worker takes and returns permits, but only if the limit is
//! set, once for each client connection, or for each try at a backend with `max-in-flight`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

#[repr(align(128))]
struct Taken(AtomicU32);

/// Permits of one limit, shared by all workers.
#[derive(Clone)]
pub(crate) struct Permits {
    taken: Arc<Taken>,
    max: u32,
}

/// A permit; returned when it is dropped.
pub(crate) struct Permit(Option<Arc<Taken>>);

impl Permits {
    /// `max` permits; 0 = no limit, and nothing shared is touched.
    pub(crate) fn new(max: u32) -> Permits {
        Permits { taken: Arc::new(Taken(AtomicU32::new(0))), max }
    }

    /// The same permits with a new limit: those already held count under it too. What was let in
    /// while there was no limit is not counted under a later one.
    pub(crate) fn with_max(&self, max: u32) -> Permits {
        Permits { taken: Arc::clone(&self.taken), max }
    }

    /// A permit, if one is left.
    pub(crate) fn take(&self) -> Option<Permit> {
        if self.max == 0 {
            return Some(Permit(None));
        }
        if self.taken.0.fetch_add(1, Relaxed) < self.max {
            return Some(Permit(Some(Arc::clone(&self.taken))));
        }
        self.taken.0.fetch_sub(1, Relaxed);
        None
    }

    /// Whether one is left at this moment.
    pub(crate) fn has_room(&self) -> bool {
        self.max == 0 || self.taken.0.load(Relaxed) < self.max
    }
}

impl Permits {
    /// The permit of a successor to a holder that will `hand_over` its own.
    pub(crate) fn take_over(&self) -> Permit {
        Permit((self.max != 0).then(|| Arc::clone(&self.taken)))
    }
}

impl Permit {
    /// A permit without a limit.
    pub(crate) const NONE: Permit = Permit(None);

    /// Whether returning it makes room.
    #[inline]
    pub(crate) fn is_of_a_limit(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves it to the successor that took it over.
    pub(crate) fn hand_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            taken.0.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_exactly_as_many_as_there_are() {
        let permits = Permits::new(2);
        let (first, _second) = (permits.take().unwrap(), permits.take().unwrap());
        assert!(permits.take().is_none() && !permits.has_room());
        drop(first);
        assert!(permits.has_room() && permits.take().is_some());
    }

    #[test]
    fn a_limit_that_moves_counts_those_who_hold_a_permit() {
        let permits = Permits::new(2);
        let held = [permits.take().unwrap(), permits.take().unwrap()];
        assert!(permits.with_max(3).take().is_some() && permits.with_max(2).take().is_none());
        let fewer = permits.with_max(1);
        drop(held);
        assert!(fewer.take().is_some() && permits.with_max(0).take().is_some());
    }

    #[test]
    fn many_threads_never_hold_more_than_the_limit() {
        let permits = Permits::new(3);
        let (held, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(_permit) = permits.take() {
                            most.fetch_max(held.fetch_add(1, Relaxed) + 1, Relaxed);
                            held.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Relaxed)));
        assert_eq!(permits.taken.0.load(Relaxed), 0);
    }
}
