//! What each core counts of each backend: one row per worker and backend, read by everyone.
//!
//! Written by its worker alone with plain loads and stores, so a request never waits for another
//! core: it touches its row and nothing else. A row lies in one cache line, and no line belongs to
//! two workers. A sum taken while workers count may miss what happens meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Tick, millis},
    totals::Totals,
};

const ROWS_OF_LINE: usize = 4;

/// What one worker counts of one backend. Only that worker may change it.
#[derive(Default)]
#[repr(align(32))]
pub(crate) struct Row {
    ok: AtomicU64,
    failed: AtomicU64,
    times: AtomicU64,
    in_flight: AtomicU32,
    /// When an answer that is no failure last began: the millisecond of its `Tick` as far as it
    /// fits, as there is no room for more in a row; 0 = never.
    answered_at: AtomicU32,
}

impl Row {
    /// A request goes to the backend.
    #[inline]
    pub(crate) fn begin(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// It is over, whichever way.
    #[inline]
    pub(crate) fn end(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// An answer that is no failure begins now, by the one clock of all cores.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // they go round
    pub(crate) fn answered(&self, now: Tick) {
        self.answered_at.store((now.millis() as u32).max(1), Relaxed);
    }

    /// Counts a request whose answer has ended as it should; one that nobody waits for is counted
    /// here as well, as its backend did what it could.
    #[inline]
    pub(crate) fn succeeded(&self) {
        self.ok.store(self.ok.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts a request that failed.
    pub(crate) fn failed(&self) {
        self.failed.store(self.failed.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Publishes what this worker knows of the backend's times, packed as the algorithm likes.
    #[inline]
    pub(crate) fn publish_times(&self, times: u64) {
        self.times.store(times, Relaxed);
    }

    /// Its requests under way.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How many milliseconds ago an answer last began, where any did within seven weeks.
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
struct Line([Row; ROWS_OF_LINE]);

/// The rows of one worker and pool.
#[derive(Clone)]
pub(crate) struct Rows(Arc<[Line]>);

impl Rows {
    fn new(backends: usize) -> Rows {
        Rows((0..backends.div_ceil(ROWS_OF_LINE)).map(|_| Line::default()).collect())
    }

    /// The row of a backend of the pool.
    #[inline]
    pub(crate) fn row(&self, backend: BackendId) -> &Row {
        let index = backend.index();
        &self.0[index / ROWS_OF_LINE].0[index % ROWS_OF_LINE]
    }
}

/// The rows of all workers and pools.
#[derive(Clone)]
pub(crate) struct Load(Arc<[Pool]>);

struct Pool {
    backends: u16,
    workers: Box<[Rows]>,
    /// Failures of each backend that say nothing of what it is now. All workers write them, but
    /// seldom: there is no room in a row.
    late: Box<[AtomicU64]>,
}

impl Load {
    /// For so many workers, and pools that have so many backends.
    pub(crate) fn new(workers: usize, backends: impl Iterator<Item = usize>) -> Load {
        let pool = |count| Pool {
            backends: u16::try_from(count).unwrap_or(u16::MAX),
            workers: (0..workers).map(|_| Rows::new(count)).collect(),
            late: (0..count).map(|_| AtomicU64::new(0)).collect(),
        };
        Load(backends.map(pool).collect())
    }

    /// The rows that a worker writes for a pool, to keep.
    pub(crate) fn rows(&self, worker: usize, pool: PoolId) -> Rows {
        self.0[pool.index()].workers[worker].clone()
    }

    /// Requests under way at a backend from all workers but this one.
    pub(crate) fn in_flight_of_others(
        &self,
        worker: usize,
        pool: PoolId,
        backend: BackendId,
    ) -> u32 {
        let rows = self.others(worker, pool, backend);
        rows.fold(0, |sum, row| sum.wrapping_add(row.in_flight()))
    }

    /// What the other workers know of a backend's times.
    pub(crate) fn times_of_others(
        &self,
        worker: usize,
        pool: PoolId,
        backend: BackendId,
    ) -> impl Iterator<Item = u64> {
        self.others(worker, pool, backend).map(|row| row.times.load(Relaxed))
    }

    /// How the requests of a backend ended, over all workers, as it is now.
    pub(crate) fn totals(&self, pool: PoolId, backend: BackendId, now: Tick) -> Totals {
        let mut totals = self.ended(pool, backend);
        let workers = self.0[pool.index()].workers.iter();
        let ago = workers.filter_map(|rows| rows.row(backend).answered_ago(now)).min();
        totals.answered_at = ago.map(|ago| now.before(Duration::from_millis(ago.into())));
        totals
    }

    /// The same without when.
    pub(crate) fn ended(&self, pool: PoolId, backend: BackendId) -> Totals {
        let pool = &self.0[pool.index()];
        let late = pool.late[backend.index()].load(Relaxed);
        let rows = pool.workers.iter().map(|rows| rows.row(backend));
        rows.fold(Totals { late, ..Totals::default() }, |sum, row| Totals {
            ok: sum.ok.wrapping_add(row.ok.load(Relaxed)),
            failed: sum.failed.wrapping_add(row.failed.load(Relaxed)),
            ..sum
        })
    }

    /// Whether any worker saw an answer begin later than `since`.
    pub(crate) fn has_answered_since(
        &self,
        pool: PoolId,
        backend: BackendId,
        since: Tick,
        now: Tick,
    ) -> bool {
        let ago = u32::try_from(millis(now.since(since))).unwrap_or(u32::MAX);
        let mut workers = self.0[pool.index()].workers.iter();
        workers.any(|rows| rows.row(backend).answered_ago(now).is_some_and(|its| its < ago))
    }

    /// Counts a failure that says nothing of what the backend is now.
    pub(crate) fn failed_late(&self, pool: PoolId, backend: BackendId) {
        self.0[pool.index()].late[backend.index()].fetch_add(1, Relaxed);
    }

    /// The requests of a pool that have ended. It reads every row: ask rarely.
    pub(crate) fn requests(&self, pool: PoolId) -> u64 {
        let of = |backend| {
            let totals = self.ended(pool, backend).with_late();
            totals.ok.wrapping_add(totals.failed)
        };
        let backends = (0..self.0[pool.index()].backends).map(BackendId);
        backends.fold(0, |sum, backend| sum.wrapping_add(of(backend)))
    }

    fn others(
        &self,
        worker: usize,
        pool: PoolId,
        backend: BackendId,
    ) -> impl Iterator<Item = &Row> {
        let workers = self.0[pool.index()].workers.iter().enumerate();
        workers.filter(move |(of, _)| *of != worker).map(move |(_, rows)| rows.row(backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId(1);
    const BACKEND: BackendId = BackendId(4);

    #[test]
    fn rows_are_counted_alone_and_read_together() {
        let load = Load::new(3, [2, 5].into_iter());
        for worker in 0..3 {
            let rows = load.rows(worker, POOL);
            for _ in 0..=worker {
                rows.row(BACKEND).begin();
                rows.row(BACKEND).succeeded();
            }
            rows.row(BackendId(0)).failed();
            rows.row(BACKEND).publish_times(worker as u64);
        }
        load.rows(2, POOL).row(BACKEND).end();
        assert_eq!(load.in_flight_of_others(0, POOL, BACKEND), 2 + 2);
        assert_eq!(load.in_flight_of_others(2, POOL, BACKEND), 1 + 2);
        assert_eq!(load.rows(2, POOL).row(BACKEND).in_flight(), 2);
        assert_eq!(load.ended(POOL, BACKEND), Totals { ok: 6, ..Totals::default() });
        assert_eq!(load.ended(POOL, BackendId(0)), Totals { failed: 3, ..Totals::default() });
        assert_eq!(load.requests(POOL), 9);
        assert_eq!(load.requests(PoolId(0)), 0);
        assert_eq!(load.times_of_others(1, POOL, BACKEND).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn any_worker_knows_of_an_answer_since_whatever_the_clock() {
        for begin in [1_u64, 1_000, (1 << 32) - 50, 1 << 40] {
            let load = Load::new(3, [2, 5].into_iter());
            let at = |ms| Tick::from_millis(begin + ms);
            let since = |since, now| load.has_answered_since(POOL, BACKEND, at(since), at(now));
            assert!(!since(0, 900), "nothing was ever answered");
            load.rows(1, POOL).row(BACKEND).answered(at(100));
            load.rows(2, POOL).row(BackendId(1)).answered(at(300));
            assert!(since(99, 100) && since(99, 900) && since(0, 900));
            assert!(!since(100, 900) && !since(101, 101) && !since(200, 900), "{begin}");
            assert_eq!(load.totals(POOL, BACKEND, at(900)).answered_at, Some(at(100)));
            load.rows(2, POOL).row(BACKEND).answered(at(201));
            assert!(since(200, 900));
            assert_eq!(load.totals(POOL, BACKEND, at(900)).answered_at, Some(at(201)));
            assert_eq!(load.totals(POOL, BackendId(2), at(900)).answered_at, None);
        }
    }

    #[test]
    fn what_is_late_is_counted_apart() {
        let load = Load::new(2, [2, 5].into_iter());
        load.rows(0, POOL).row(BACKEND).failed();
        load.failed_late(POOL, BACKEND);
        load.failed_late(POOL, BACKEND);
        assert_eq!(load.ended(POOL, BACKEND), Totals { failed: 1, late: 2, ..Totals::default() });
        assert_eq!(load.ended(POOL, BackendId(0)), Totals::default());
        assert_eq!(load.requests(POOL), 3);
    }

    #[test]
    fn no_row_crosses_a_line_and_no_line_belongs_to_two_workers() {
        assert_eq!(size_of::<Row>(), 32);
        assert_eq!(size_of::<Line>(), 128);
        let load = Load::new(2, [1].into_iter());
        for worker in 0..2 {
            let rows = load.rows(worker, PoolId(0));
            assert_eq!(&raw const *rows.row(BackendId(0)) as usize % 128, 0);
        }
    }
}
