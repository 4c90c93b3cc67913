//! Per-core counts for each backend of a pool: one row per worker and backend, read by all.
//!
//! Only its worker writes a row, with plain loads and stores, so a request never waits for another
//! core: it touches its row and nothing else. A row fits in one cache line, and no line belongs to
//! two workers. A sum taken while workers count may miss what happens meanwhile.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::base::{
    backend_set::BackendSet,
    ids::BackendId,
    moment::{Tick, millis},
    segments::Segments,
    totals::{Totals, Tries},
};

const ROWS_OF_LINE: usize = 2;

/// One worker's counts for one backend. Only that worker may change them.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct BackendCounts {
    ok: AtomicU64,
    failed: AtomicU64,
    times: AtomicU64,
    in_flight: AtomicU32,
    /// Tries so far; those whose answer has begun; and those that ended, or are not expected to be
    /// answered soon, without that. The rest waits for a first byte. They go round.
    asked: AtomicU32,
    answers: AtomicU32,
    left: AtomicU32,
    /// When an answer that is no failure last began: the millisecond of its `Tick`, truncated to
    /// the room in a row; 0 = never.
    answered_at: AtomicU32,
    /// Connections that were opened to it. Rare enough never to go round.
    opened: AtomicU32,
    /// Of the clients whose last try it was: what they sent, and what they were sent.
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// Connections to a backend and bytes, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Connections that were opened to it.
    pub(crate) opened: u64,
    /// Those that could not be.
    pub(crate) unopened: u64,
    /// Of the clients whose last try it was: what they sent.
    pub(crate) bytes_in: u64,
    /// What they were sent.
    pub(crate) bytes_out: u64,
}

impl Moved {
    /// The place of the only one that is never in a row, in `each`.
    pub(crate) const UNOPENED: u16 = 1;

    /// All of it, with the place of each, by which it is counted elsewhere.
    pub(crate) fn each(&mut self) -> [(u16, &mut u64); 4] {
        let Moved { opened, unopened, bytes_in, bytes_out } = self;
        [(0, opened), (Moved::UNOPENED, unopened), (2, bytes_in), (3, bytes_out)]
    }
}

impl BackendCounts {
    /// A request goes to the backend.
    #[inline]
    pub(crate) fn begin(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed).wrapping_add(1), Relaxed);
        self.asked.store(self.asked.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The first byte of the answer to one that waits for it has come.
    #[inline]
    pub(crate) fn begins_to_answer(&self) {
        self.answers.store(self.answers.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One that waits for a first byte does so no more.
    #[inline]
    pub(crate) fn leaves(&self) {
        self.left.store(self.left.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The request has ended, in whatever way.
    #[inline]
    pub(crate) fn end(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// A connection to it was opened.
    pub(crate) fn opened(&self) {
        self.opened.store(self.opened.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// An exchange of which it had the last try has moved so many bytes.
    #[inline]
    pub(crate) fn moved(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.store(self.bytes_in.load(Relaxed).wrapping_add(bytes_in), Relaxed);
        self.bytes_out.store(self.bytes_out.load(Relaxed).wrapping_add(bytes_out), Relaxed);
    }

    /// An answer that is no failure begins now, by the one clock of all cores.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // they go round
    pub(crate) fn answered(&self, now: Tick) {
        self.answered_at.store((now.millis() as u32).max(1), Relaxed);
    }

    /// Counts a request whose answer ended well; also one that its client left, as its backend did
    /// what it could.
    #[inline]
    pub(crate) fn succeeded(&self) {
        self.ok.store(self.ok.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts a request that failed.
    pub(crate) fn failed(&self) {
        self.failed.store(self.failed.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Publishes what this worker knows of the backend's times, packed as the algorithm needs.
    #[inline]
    pub(crate) fn publish_times(&self, times: u64) {
        self.times.store(times, Relaxed);
    }

    /// Its requests in flight.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How many milliseconds ago an answer last began, if any did within seven weeks.
    #[allow(clippy::cast_possible_truncation)] // they go round
    fn answered_ago(&self, now: Tick) -> Option<u32> {
        match self.answered_at.load(Relaxed) {
            0 => None,
            at => Some((now.millis() as u32).wrapping_sub(at)),
        }
    }
}

/// Two cache lines: processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct CountsLine([BackendCounts; ROWS_OF_LINE]);

/// The rows of all workers for one pool. They live on from plan to plan, and grow with it.
pub(crate) struct PoolCounts {
    workers: usize,
    /// Each line once per worker.
    lines: Segments<Box<[CountsLine]>>,
    /// Failures of each backend that say nothing about its present state. All workers write them,
    /// but rarely: a row has no room for them.
    late: Segments<AtomicU64>,
}

impl PoolCounts {
    /// For this many workers, without rows yet.
    pub(crate) const fn new(workers: usize) -> PoolCounts {
        PoolCounts { workers, lines: Segments::new(), late: Segments::new() }
    }

    /// Makes room for this many backends.
    pub(crate) fn grow(&self, backends: usize) {
        let line = || (0..self.workers).map(|_| CountsLine::default()).collect();
        self.lines.grow(backends.div_ceil(ROWS_OF_LINE), line);
        self.late.grow(backends, AtomicU64::default);
    }

    /// The row that a worker writes for a backend; none if the pool has no such seat.
    #[inline]
    pub(crate) fn row(&self, worker: usize, backend: BackendId) -> Option<&BackendCounts> {
        row(self.lines.get(backend.index() / ROWS_OF_LINE)?.get(worker)?, backend)
    }

    /// Requests in flight at a backend from all workers.
    pub(crate) fn in_flight(&self, backend: BackendId) -> u32 {
        let rows = self.rows(backend).map(|(_, row)| row.in_flight());
        rows.fold(0, u32::wrapping_add)
    }

    /// The tries of a backend.
    pub(crate) fn tries(&self, backend: BackendId) -> Tries {
        self.rows(backend).fold(Tries::default(), |sum, (_, row)| Tries {
            // Before those asked: none of them was not asked.
            answers: sum.answers.wrapping_add(row.answers.load(Relaxed)),
            left: sum.left.wrapping_add(row.left.load(Relaxed)),
            asked: sum.asked.wrapping_add(row.asked.load(Relaxed)),
        })
    }

    /// Bytes and connections of a backend.
    pub(crate) fn moved(&self, backend: BackendId) -> Moved {
        self.rows(backend).fold(Moved::default(), |sum, (_, row)| Moved {
            opened: sum.opened.wrapping_add(row.opened.load(Relaxed).into()),
            unopened: 0,
            bytes_in: sum.bytes_in.wrapping_add(row.bytes_in.load(Relaxed)),
            bytes_out: sum.bytes_out.wrapping_add(row.bytes_out.load(Relaxed)),
        })
    }

    /// Forgets these: the backend is gone, and its seat may be given to another. Nobody counts for
    /// it any more, so any thread may call it.
    pub(crate) fn forget_moved(&self, backend: BackendId) {
        for (_, row) in self.rows(backend) {
            row.opened.store(0, Relaxed);
            row.bytes_in.store(0, Relaxed);
            row.bytes_out.store(0, Relaxed);
        }
    }

    /// How many workers count.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// What all workers know of a backend's times.
    pub(crate) fn times(&self, backend: BackendId) -> impl Iterator<Item = u64> {
        self.rows(backend).map(|(_, row)| row.times.load(Relaxed))
    }

    /// What the other workers know of a backend's times.
    pub(crate) fn times_of_others(
        &self,
        worker: usize,
        backend: BackendId,
    ) -> impl Iterator<Item = u64> {
        let others = self.rows(backend).filter(move |(of, _)| *of != worker);
        others.map(|(_, row)| row.times.load(Relaxed))
    }

    /// How the requests of a backend ended, over all workers, as of now.
    pub(crate) fn totals(&self, backend: BackendId, now: Tick) -> Totals {
        let mut totals = self.ended(backend);
        let ago = self.rows(backend).filter_map(|(_, row)| row.answered_ago(now)).min();
        totals.answered_at = ago.map(|ago| now.before(Duration::from_millis(ago.into())));
        totals
    }

    /// The same without the time of the last answer.
    pub(crate) fn ended(&self, backend: BackendId) -> Totals {
        let late = self.late.get(backend.index()).map_or(0, |late| late.load(Relaxed));
        self.rows(backend).fold(Totals { late, ..Totals::default() }, |sum, (_, row)| Totals {
            ok: sum.ok.wrapping_add(row.ok.load(Relaxed)),
            failed: sum.failed.wrapping_add(row.failed.load(Relaxed)),
            ..sum
        })
    }

    /// Whether any worker saw an answer begin later than `since`.
    pub(crate) fn has_answered_since(&self, backend: BackendId, since: Tick, now: Tick) -> bool {
        let ago = u32::try_from(millis(now.since(since))).unwrap_or(u32::MAX);
        let is_later = |row: &BackendCounts| row.answered_ago(now).is_some_and(|its| its < ago);
        self.rows(backend).any(|(_, row)| is_later(row))
    }

    /// Counts a failure that says nothing about the backend's present state.
    pub(crate) fn failed_late(&self, backend: BackendId) {
        if let Some(late) = self.late.get(backend.index()) {
            late.fetch_add(1, Relaxed);
        }
    }

    /// The requests of the pool that have ended. It reads every row: call it rarely.
    pub(crate) fn requests(&self) -> u64 {
        let of = |backend| {
            let totals = self.ended(backend).with_late();
            totals.ok.wrapping_add(totals.failed)
        };
        let backends = (0..).map(BackendId).zip(self.late.iter());
        backends.fold(0, |sum, (backend, _)| sum.wrapping_add(of(backend)))
    }

    /// The backends with requests in flight, from any worker and under any plan.
    pub(crate) fn busy(&self) -> BackendSet {
        let backends = (0..).map(BackendId).zip(self.late.iter()).map(|(backend, _)| backend);
        backends.filter(|backend| self.rows(*backend).any(|(_, row)| row.in_flight() > 0)).collect()
    }

    /// The rows of a backend, each with its worker.
    fn rows(&self, backend: BackendId) -> impl Iterator<Item = (usize, &BackendCounts)> {
        let lines = self.lines.get(backend.index() / ROWS_OF_LINE).into_iter().flatten();
        lines.enumerate().filter_map(move |(worker, line)| Some((worker, row(line, backend)?)))
    }
}

#[inline]
fn row(line: &CountsLine, backend: BackendId) -> Option<&BackendCounts> {
    line.0.get(backend.index() % ROWS_OF_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: BackendId = BackendId(4);

    fn load(workers: usize) -> PoolCounts {
        let load = PoolCounts::new(workers);
        load.grow(5);
        load
    }

    #[test]
    fn bytes_and_connections_are_those_of_all_workers_until_the_seat_is_free() {
        let load = load(2);
        for worker in 0..2 {
            let row = load.row(worker, BACKEND).unwrap();
            row.opened();
            row.moved(10, 1_000);
        }
        let moved = Moved { opened: 2, unopened: 0, bytes_in: 20, bytes_out: 2_000 };
        assert_eq!(load.moved(BACKEND), moved);
        load.forget_moved(BACKEND);
        assert_eq!(load.moved(BACKEND), Moved::default());
        assert_eq!(size_of::<BackendCounts>(), 64, "a row is one line");
    }

    #[test]
    fn rows_are_counted_alone_and_read_together() {
        let load = load(3);
        for worker in 0..3 {
            let row = |id| load.row(worker, id).unwrap();
            for _ in 0..=worker {
                row(BACKEND).begin();
                row(BACKEND).succeeded();
            }
            row(BackendId(0)).failed();
            row(BACKEND).publish_times(worker as u64);
        }
        load.row(2, BACKEND).unwrap().end();
        assert_eq!(load.in_flight(BACKEND), 1 + 2 + 2);
        assert_eq!(load.busy().iter().collect::<Vec<_>>(), [BACKEND]);
        assert_eq!(load.row(2, BACKEND).unwrap().in_flight(), 2);
        assert_eq!(load.ended(BACKEND), Totals { ok: 6, ..Totals::default() });
        assert_eq!(load.ended(BackendId(0)), Totals { failed: 3, ..Totals::default() });
        assert_eq!(load.requests(), 9);
        assert_eq!(load.times_of_others(1, BACKEND).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn those_that_wait_for_a_first_byte_are_neither_answered_nor_gone() {
        let load = load(2);
        let rows = [0, 1].map(|worker| load.row(worker, BACKEND).unwrap());
        rows.iter().for_each(|row| (0..3).for_each(|_| row.begin()));
        rows[0].begins_to_answer();
        rows[1].leaves();
        rows[1].end();
        let tries = load.tries(BACKEND);
        assert_eq!(tries, Tries { asked: 6, answers: 1, left: 1 });
        assert_eq!((tries.waiting(), load.tries(BackendId(0)).waiting()), (4, 0));
        let round = Tries { asked: 1, answers: u32::MAX, left: 0 };
        assert_eq!(round.waiting(), 2);
    }

    #[test]
    fn any_worker_knows_of_an_answer_since_whatever_the_clock() {
        for begin in [1_u64, 1_000, (1 << 32) - 50, 1 << 40] {
            let load = load(3);
            let at = |ms| Tick::from_millis(begin + ms);
            let since = |since, now| load.has_answered_since(BACKEND, at(since), at(now));
            assert!(!since(0, 900), "nothing was ever answered");
            load.row(1, BACKEND).unwrap().answered(at(100));
            load.row(2, BackendId(1)).unwrap().answered(at(300));
            assert!(since(99, 100) && since(99, 900) && since(0, 900));
            assert!(!since(100, 900) && !since(101, 101) && !since(200, 900), "{begin}");
            assert_eq!(load.totals(BACKEND, at(900)).answered_at, Some(at(100)));
            load.row(2, BACKEND).unwrap().answered(at(201));
            assert!(since(200, 900));
            assert_eq!(load.totals(BACKEND, at(900)).answered_at, Some(at(201)));
            assert_eq!(load.totals(BackendId(2), at(900)).answered_at, None);
        }
    }

    #[test]
    fn what_is_late_is_counted_apart() {
        let load = load(2);
        load.row(0, BACKEND).unwrap().failed();
        load.failed_late(BACKEND);
        load.failed_late(BACKEND);
        assert_eq!(load.ended(BACKEND), Totals { failed: 1, late: 2, ..Totals::default() });
        assert_eq!(load.ended(BackendId(0)), Totals::default());
        assert_eq!(load.requests(), 3);
    }

    #[test]
    fn no_row_crosses_a_line_and_no_line_belongs_to_two_workers() {
        assert_eq!(size_of::<BackendCounts>(), 64);
        assert_eq!(size_of::<CountsLine>(), 128);
        let load = load(2);
        for worker in 0..2 {
            assert_eq!(
                std::ptr::from_ref(load.row(worker, BackendId(0)).unwrap()) as usize % 128,
                0
            );
        }
    }

    #[test]
    fn what_was_counted_stays_when_more_backends_come() {
        let load = load(2);
        load.row(1, BACKEND).unwrap().begin();
        assert!(load.row(0, BackendId(900)).is_none() && load.row(2, BACKEND).is_none());
        load.grow(901);
        assert!(load.row(0, BackendId(900)).is_some());
        assert_eq!((load.in_flight(BACKEND), load.in_flight(BackendId(900))), (1, 0));
    }
}
