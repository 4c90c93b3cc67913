//! Outcomes of requests, posted by cores to the health thread.
//!
//! Cores post only what may change a decision: failures, and the results of trials. A failure that
//! finds the channel full is not lost, as its core has counted it in its row: the thread learns
//! that it `missed` some, and compares the rows of all backends with what it knows. A trial that
//! finds it full decides nothing: its core returns the permit and another will be made. However
//! much is posted before the thread reads, its bell rings once.

use std::sync::{
    Arc,
    atomic::{
        AtomicU8,
        Ordering::{AcqRel, Relaxed},
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bell::Rope;
use crate::base::{
    ids::{BackendId, PoolId},
    totals::Totals,
};

/// Outcomes that may wait: as many as many cores can fail in the time that the thread needs to
/// wake. Any more are read from the rows, all at once.
const OUTCOMES_MAX: usize = 1024;

/// The bell has rung and the thread has not read since.
const RUNG: u8 = 1;
/// The thread watches nothing until something is asked of a backend.
const ASLEEP: u8 = 4;
/// A failure found the channel full.
const MISSED: u8 = 2;

/// How a request failed: the status of its answer, or the code of its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Status(u16),
    Fault(&'static str),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It failed. The totals are those that its core read right after it: many failures may be read
    /// at once, and only the totals show whether they were in a row.
    Failed { pool: PoolId, backend: BackendId, totals: Totals, how: How },
    /// It was a trial; `epoch` is that of its permit.
    Tried { pool: PoolId, backend: BackendId, epoch: u16, ok: bool },
}

/// The cores' end.
#[derive(Clone)]
pub(crate) struct Outcomes {
    to: Sender<Outcome>,
    flags: Arc<AtomicU8>,
    rope: Rope,
}

/// The thread's end.
pub(crate) struct Posted {
    from: Receiver<Outcome>,
    /// Set by the posting core, cleared by the thread.
    flags: Arc<AtomicU8>,
}

/// Both ends; posting pulls this rope.
pub(crate) fn channel(rope: Rope) -> (Outcomes, Posted) {
    let flags = Arc::new(AtomicU8::new(0));
    let (to, from) = bounded(OUTCOMES_MAX);
    (Outcomes { to, flags: Arc::clone(&flags), rope }, Posted { from, flags })
}

impl Outcomes {
    /// A request failed; these totals, of all cores, include it.
    pub(crate) fn failed(&self, pool: PoolId, backend: BackendId, totals: Totals, how: How) {
        let posted = self.to.try_send(Outcome::Failed { pool, backend, totals, how }).is_ok();
        self.ring(if posted { 0 } else { MISSED });
    }

    /// A trial ended; false = it could not be posted, and its permit must be returned.
    #[must_use]
    pub(crate) fn tried(&self, pool: PoolId, backend: BackendId, epoch: u16, ok: bool) -> bool {
        let posted = self.to.try_send(Outcome::Tried { pool, backend, epoch, ok }).is_ok();
        self.ring(0);
        posted
    }

    /// Requests were asked: wakes the thread if it watches nothing.
    #[inline]
    pub(crate) fn stir(&self) {
        if self.flags.load(Relaxed) & ASLEEP != 0 {
            self.ring(0);
        }
    }

    fn ring(&self, flag: u8) {
        // The thread clears the flags before it reads: it sees all that was posted before, and a
        // later post finds them cleared and rings again.
        if self.flags.fetch_or(RUNG | flag, AcqRel) & RUNG == 0 {
            self.rope.pull();
        }
    }
}

impl Posted {
    /// Nothing is watched from now on, until `stir` or anything posted wakes the thread.
    pub(crate) fn sleeps(&self) {
        self.flags.fetch_or(ASLEEP, AcqRel);
    }

    /// Whether failures were counted in rows but not posted; must be called before the first `next`
    /// of a turn, as a later post rings again.
    #[must_use]
    pub(crate) fn missed(&self) -> bool {
        self.flags.swap(0, AcqRel) & MISSED != 0
    }

    /// The next outcome, if there is one.
    pub(crate) fn next(&self) -> Option<Outcome> {
        self.from.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const POOL: PoolId = PoolId(3);
    const HOW: How = How::Status(503);

    fn both() -> (Rope, Outcomes, Posted) {
        let rope = Rope::new().unwrap();
        let (outcomes, posted) = channel(rope.clone());
        (rope, outcomes, posted)
    }

    /// How often the bell has rung since the last call.
    fn rings(rope: &Rope) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(rope.bell(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn much_that_is_posted_rings_once_until_somebody_looks() {
        let (rope, outcomes, posted) = both();
        assert_eq!(rings(&rope), 0);
        for place in 0..10 {
            outcomes.clone().failed(POOL, BackendId(place), Totals::default(), HOW);
        }
        let tried = Outcome::Tried { pool: POOL, backend: BackendId(10), epoch: 7, ok: true };
        assert!(outcomes.tried(POOL, BackendId(10), 7, true));
        assert_eq!(rings(&rope), 1);
        assert!(!posted.missed());
        let seen: Vec<Outcome> = std::iter::from_fn(|| posted.next()).collect();
        let (backend, totals) = (BackendId(0), Totals::default());
        assert_eq!(seen[0], Outcome::Failed { pool: POOL, backend, totals, how: HOW });
        assert_eq!((seen[10], seen.len()), (tried, 11));
        outcomes.failed(POOL, BackendId(0), Totals::default(), HOW);
        assert_eq!(rings(&rope), 1);
    }

    #[test]
    fn who_stirs_wakes_a_thread_that_sleeps_and_no_other() {
        let (rope, outcomes, posted) = both();
        outcomes.stir();
        assert_eq!(rings(&rope), 0);
        posted.sleeps();
        outcomes.stir();
        outcomes.stir();
        assert_eq!((rings(&rope), posted.missed()), (1, false));
        outcomes.stir();
        assert_eq!(rings(&rope), 0, "it is awake");
    }

    #[test]
    fn a_failure_that_finds_no_room_is_missed_and_a_trial_knows_it() {
        let (_, outcomes, posted) = both();
        for _ in 0..OUTCOMES_MAX {
            outcomes.failed(POOL, BackendId(0), Totals::default(), HOW);
        }
        assert!(!posted.missed());
        outcomes.failed(POOL, BackendId(1), Totals::default(), HOW);
        assert!(!outcomes.tried(POOL, BackendId(2), 1, false));
        assert!(posted.missed());
        assert!(!posted.missed(), "it was taken");
        assert_eq!(std::iter::from_fn(|| posted.next()).count(), OUTCOMES_MAX);
    }

    #[test]
    fn nothing_is_overlooked_that_many_threads_post() {
        const EACH: usize = 200;
        let (rope, outcomes, posted) = both();
        let mut seen = 0;
        std::thread::scope(|scope| {
            for place in 0..4 {
                let outcomes = outcomes.clone();
                scope.spawn(move || {
                    (0..EACH).for_each(|_| {
                        outcomes.failed(POOL, BackendId(place), Totals::default(), HOW)
                    });
                });
            }
            while seen < 4 * EACH {
                let mut bell = [PollFd::new(rope.bell(), PollFlags::IN)];
                let rung = poll(&mut bell, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
                assert_eq!(rung, Ok(1), "{seen} were seen, and nobody rings for the rest");
                rings(&rope);
                assert!(!posted.missed());
                seen += std::iter::from_fn(|| posted.next()).count();
            }
        });
        assert_eq!(posted.next(), None);
    }
}
