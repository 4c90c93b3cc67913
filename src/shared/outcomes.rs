//! How requests ended, as cores post it to the health thread.
//!
//! They post only what may change a decision: failures, and what came of trials. A failure that
//! finds the channel full is not lost, as its core has counted it in its row: the thread is told
//! that it `missed` some, and compares the rows of all backends with what it knows. A trial that
//! finds it full decides nothing: whoever made it gives its permit back and another will be made.
//! However much is posted before the thread looks, its bell is rung once.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::AcqRel},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bell::Rope;
use crate::base::{
    ids::{BackendId, PoolId},
    totals::Totals,
};

/// Outcomes that may wait: what many cores can fail in the time that the thread needs to wake. What
/// is more is caught up from the rows, all at once.
const OUTCOMES_MAX: usize = 1024;

/// The bell has been rung and nobody has looked since.
const RUNG: u8 = 1;
/// A failure found the channel full.
const MISSED: u8 = 2;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It failed. The totals are those that its core read right after it: many failures may be
    /// heard at once, and only so is it known whether they were in a row.
    Failed { pool: PoolId, backend: BackendId, totals: Totals },
    /// It was a trial; `epoch` is that of its permit.
    Tried { pool: PoolId, backend: BackendId, epoch: u16, ok: bool },
}

/// The end that cores hold.
#[derive(Clone)]
pub(crate) struct Outcomes {
    to: Sender<Outcome>,
    flags: Arc<AtomicU8>,
    rope: Rope,
}

/// The thread's end.
pub(crate) struct Posted {
    from: Receiver<Outcome>,
    /// Set by whoever posts, taken by the thread.
    flags: Arc<AtomicU8>,
}

/// Both ends; whoever posts pulls this rope.
pub(crate) fn channel(rope: Rope) -> (Outcomes, Posted) {
    let flags = Arc::new(AtomicU8::new(0));
    let (to, from) = bounded(OUTCOMES_MAX);
    (Outcomes { to, flags: Arc::clone(&flags), rope }, Posted { from, flags })
}

impl Outcomes {
    /// A request failed; these totals, of all cores, count it already.
    pub(crate) fn failed(&self, pool: PoolId, backend: BackendId, totals: Totals) {
        let posted = self.to.try_send(Outcome::Failed { pool, backend, totals }).is_ok();
        self.ring(if posted { 0 } else { MISSED });
    }

    /// A trial ended; false = it could not be told, and its permit is to be given back.
    #[must_use]
    pub(crate) fn tried(&self, pool: PoolId, backend: BackendId, epoch: u16, ok: bool) -> bool {
        let posted = self.to.try_send(Outcome::Tried { pool, backend, epoch, ok }).is_ok();
        self.ring(0);
        posted
    }

    fn ring(&self, flag: u8) {
        // The thread takes the flags before it looks: what was posted before they were taken it
        // sees, and whoever comes later finds them taken and rings again.
        if self.flags.fetch_or(RUNG | flag, AcqRel) & RUNG == 0 {
            self.rope.pull();
        }
    }
}

impl Posted {
    /// Whether failures were not posted that the rows know; to be asked before the first `next`
    /// of a turn, as whoever posts later rings again.
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

    fn both() -> (Rope, Outcomes, Posted) {
        let rope = Rope::new().unwrap();
        let (outcomes, posted) = channel(rope.clone());
        (rope, outcomes, posted)
    }

    /// How often the bell was rung since it was last asked.
    fn rings(rope: &Rope) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(rope.bell(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn much_that_is_posted_rings_once_until_somebody_looks() {
        let (rope, outcomes, posted) = both();
        assert_eq!(rings(&rope), 0);
        for place in 0..10 {
            outcomes.clone().failed(POOL, BackendId(place), Totals::default());
        }
        let tried = Outcome::Tried { pool: POOL, backend: BackendId(10), epoch: 7, ok: true };
        assert!(outcomes.tried(POOL, BackendId(10), 7, true));
        assert_eq!(rings(&rope), 1);
        assert!(!posted.missed());
        let seen: Vec<Outcome> = std::iter::from_fn(|| posted.next()).collect();
        let (backend, totals) = (BackendId(0), Totals::default());
        assert_eq!(seen[0], Outcome::Failed { pool: POOL, backend, totals });
        assert_eq!((seen[10], seen.len()), (tried, 11));
        outcomes.failed(POOL, BackendId(0), Totals::default());
        assert_eq!(rings(&rope), 1);
    }

    #[test]
    fn a_failure_that_finds_no_room_is_missed_and_a_trial_knows_it() {
        let (_, outcomes, posted) = both();
        for _ in 0..OUTCOMES_MAX {
            outcomes.failed(POOL, BackendId(0), Totals::default());
        }
        assert!(!posted.missed());
        outcomes.failed(POOL, BackendId(1), Totals::default());
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
                    (0..EACH)
                        .for_each(|_| outcomes.failed(POOL, BackendId(place), Totals::default()));
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
