//! A core's counts for a pool's backends, and the merging of other cores' counts.
//!
//! Counts are of this core alone, in rows that all may read. What may change which backends are
//! usable is also posted to the health thread.

use super::{PoolCore, PoolView};
use crate::base::{
    ids::BackendId,
    moment::{Micros, Moment, Tick},
};
use crate::http::grpc;
use crate::net::clock::Clock;
use crate::policy::{balance::Sample, blame::Verdict, retry::TryOutcome};
use crate::shared::{load::BackendCounts, outcomes::How, trials::Trial};

impl PoolCore {
    /// Merges what the other cores have in flight, and what they know.
    #[cold]
    pub(super) fn merge(&self, now: Tick) {
        self.merge_due.set(Some(now + self.merged_age_max.get()));
        let (load, outcomes) = (&self.state.load, self.needs.get().outcomes);
        let mut balancer = self.balancer.borrow_mut();
        for (id, merged) in (0..).map(BackendId).zip(&*self.in_flight.borrow()) {
            merged.set(load.in_flight(id));
            if outcomes && let Some(own) = self.row(id) {
                own.publish_times(balancer.published(id));
                balancer.merge(id, load.times_of_others(self.core.index, id), now);
            }
        }
    }

    /// This core's row of a backend.
    #[inline]
    fn row(&self, id: BackendId) -> Option<&BackendCounts> {
        self.state.load.row(self.core.index, id)
    }

    /// An exchange of which it had the last try has moved so many bytes.
    #[inline]
    pub(super) fn moved(&self, id: BackendId, bytes_in: u64, bytes_out: u64) {
        if let Some(row) = self.row(id) {
            row.moved(bytes_in, bytes_out);
        }
    }

    /// One more request is in flight at a backend.
    #[inline]
    pub(super) fn begin(&self, id: BackendId) {
        let Some(row) = self.row(id) else { return };
        row.begin();
        if self.needs.get().in_flight
            && let Some(cell) = self.in_flight.borrow().get(id.index())
        {
            self.step.get().begin(cell);
        }
    }

    /// The answer of one that waits for it begins.
    #[inline]
    pub(super) fn begins_to_answer(&self, id: BackendId) {
        if let Some(row) = self.row(id) {
            row.begins_to_answer();
        }
    }

    /// One that waits for an answer does so no more.
    #[cold]
    pub(super) fn leaves(&self, id: BackendId) {
        if let Some(row) = self.row(id) {
            row.leaves();
        }
    }

    /// One less.
    #[inline]
    pub(super) fn end(&self, id: BackendId) {
        let Some(row) = self.row(id) else { return };
        row.end();
        if self.needs.get().in_flight
            && let Some(cell) = self.in_flight.borrow().get(id.index())
        {
            self.step.get().end(cell, row.in_flight());
        }
    }
}

#[cfg(test)]
impl PoolCore {
    /// Requests in flight at all backends, from all cores.
    pub(crate) fn all_in_flight(&self) -> u64 {
        (0..1024).map(|id| u64::from(self.state.load.in_flight(BackendId(id)))).sum()
    }
}

impl PoolView {
    /// A connection to a backend was opened.
    pub(crate) fn opened(&self, id: BackendId) {
        self.core.row(id).into_iter().for_each(BackendCounts::opened);
    }

    /// An exchange of which it had the last try has moved so many bytes.
    #[inline]
    pub(crate) fn moved(&self, id: BackendId, bytes_in: u64, bytes_out: u64) {
        self.core.moved(id, bytes_in, bytes_out);
    }

    /// An answer begins: records how long that took, for the first of each millisecond. Reading the
    /// clock for each would cost more than all other counts of a request.
    #[inline]
    pub(crate) fn began(&self, id: BackendId, sent_at: Moment, clock: &Clock) {
        let Some(at) = self.backends.get(id) else { return };
        let now = Some(clock.tick());
        if at.timed_at.replace(now) != now {
            self.time(id, clock.renew().since(sent_at));
        }
    }

    #[cold]
    fn time(&self, id: BackendId, time: Micros) {
        if let Some(times) = self.core.state.times.of(self.core.core.index, id) {
            times.record(time);
        }
    }

    /// Counts how a try ended of a backend that was asked at `asked_at`, and posts what may change
    /// which backends are usable. Returns whether it did well; none if the try says nothing about
    /// the backend's present state: then a trial is undecided. An answer that begins well counts as
    /// begun; it is `whole` or `cut` when it ends.
    #[inline]
    pub(crate) fn settle(
        &self,
        id: BackendId,
        (verdict, outcome): (Verdict, TryOutcome),
        trial: Option<Trial>,
        (asked_at, now): (Tick, Tick),
    ) -> Option<bool> {
        let ok = match verdict {
            Verdict::Well => true,
            Verdict::Failed => false,
            Verdict::Late if !self.has_answered_since((id, outcome), asked_at, now) => false,
            Verdict::Late | Verdict::Nothing => return None,
        };
        if let Some(row) = self.core.row(id) {
            if ok {
                row.answered(now);
            } else {
                row.failed();
            }
        }
        if !ok || trial.is_some() {
            self.post((id, outcome), (ok, trial), now);
        }
        Some(ok)
    }

    /// An answer that began well has ended well, or its client ended it.
    #[inline]
    pub(crate) fn whole(&self, id: BackendId) {
        if let Some(row) = self.core.row(id) {
            row.succeeded();
        }
    }

    /// An answer that began well at `began_at` was cut. Returns whether that counts against the
    /// backend.
    #[cold]
    pub(crate) fn cut(
        &self,
        id: BackendId,
        (verdict, outcome): (Verdict, TryOutcome),
        (began_at, now): (Tick, Tick),
    ) -> bool {
        let counts = match verdict {
            Verdict::Failed => true,
            Verdict::Late => !self.has_answered_since((id, outcome), began_at, now),
            Verdict::Well | Verdict::Nothing => false,
        };
        if counts {
            if let Some(row) = self.core.row(id) {
                row.failed();
            }
            if let Some(outcomes) = self.outcomes() {
                // Those that began meanwhile, including this one, may be cut as well.
                let totals = self.core.state.load.ended(id);
                outcomes.failed(self.core.id, id, totals, how(outcome));
            }
        }
        counts
    }

    /// Whether the backend has answered any request since then; if so, the failure of one that was
    /// asked before counts as late, which only a breaker looks at.
    #[cold]
    fn has_answered_since(
        &self,
        (id, outcome): (BackendId, TryOutcome),
        asked_at: Tick,
        now: Tick,
    ) -> bool {
        let load = &self.core.state.load;
        let has = load.has_answered_since(id, asked_at, now);
        if has {
            load.failed_late(id);
            self.post((id, outcome), (false, None), now);
        }
        has
    }

    #[cold]
    fn post(
        &self,
        (id, outcome): (BackendId, TryOutcome),
        (ok, trial): (bool, Option<Trial>),
        now: Tick,
    ) {
        let (Some(outcomes), pool) = (self.outcomes(), self.core.id) else { return };
        match trial {
            None => {
                let totals = self.core.state.load.totals(id, now);
                outcomes.failed(pool, id, totals, how(outcome));
            }
            Some(trial) => {
                if outcomes.tried(pool, id, trial.epoch(), ok) {
                    trial.decide(ok);
                }
            }
        }
    }

    /// Records how a backend did, if the algorithm wants to know.
    #[inline]
    pub(crate) fn observe(&self, id: BackendId, sample: Sample, now: Tick) {
        self.core.balancer.borrow_mut().observe(id, sample, now);
    }
}

/// How a request failed, as the health thread is told.
fn how(outcome: TryOutcome) -> How {
    match outcome {
        TryOutcome::Status(status) => How::Status(status),
        TryOutcome::Grpc(status) => How::Fault(grpc::word(status)),
        TryOutcome::Fault(fault) => How::Fault(fault.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use crate::base::{backend_set::BackendSet, ids::PoolId, moment::Tick};
    use crate::worker::Worker;

    const TEXT: &str = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        pool = "app"

        [pool.app]
        backends = ["127.0.0.1:7", "127.0.0.1:8", "127.0.0.1:9", "127.0.0.1:10"]
        balance = { hash = "uri", bound = 1.25 }
    "#;

    /// Within one millisecond, in which nothing is merged unless a bound asks for it.
    #[test]
    fn a_bound_holds_over_cores_that_place_in_turn() {
        let workers = Worker::crew(TEXT, 3);
        let cores: Vec<_> = workers.iter().map(|worker| worker.in_force()).collect();
        let (none, now) = (BackendSet::EMPTY, Tick::from_millis(1_000));
        let wanted = Wanted {
            tried: &none,
            key: Some(7),
            pinned: None,
            avoids_trials: false,
            since: None,
            now,
        };
        let (mut given, mut under_way) = ([0_usize; 4], Vec::new());
        for place in 0..120 {
            let core = &cores[place % 3];
            let picked = core.pool(PoolId(0)).pick(&wanted).ok().unwrap();
            given[picked.backend().index()] += 1;
            under_way.push(picked);
            let fullest = given.into_iter().max().unwrap();
            assert!(fullest * 16 <= (place + 1) * 5 + 16, "{given:?} of {}", place + 1);
        }
    }
}
