//! What this core counts of a pool's backends, and takes over from the other cores.
//!
//! Counts are of this core alone, in rows that all may read. What may change who is asked is posted
//! to the health thread besides.

use super::PoolView;
use crate::base::ids::BackendId;
use crate::policy::balance::Sample;
use crate::shared::trials::Trial;

/// What other cores have in flight is looked up at most this often, in milliseconds, and only
/// while requests come: everything across cores costs something per while, never per request.
pub(super) const MERGED_MS: u64 = 10;

impl PoolView {
    /// Looks up what the other cores have in flight, and what they know.
    #[cold]
    pub(super) fn merge(&self, now: u64) {
        self.merged_at.set(now);
        let load = &self.backends.load;
        let mut balancer = self.balancer.borrow_mut();
        for (id, merged) in (0..).map(BackendId).zip(&self.in_flight) {
            let own = self.rows.row(id);
            let others = load.in_flight_of_others(self.core_index, self.id, id);
            merged.set(own.in_flight().wrapping_add(others));
            if self.needs.times {
                own.publish_times(balancer.published(id));
                balancer.merge(id, load.times_of_others(self.core_index, self.id, id), now);
            }
        }
    }

    /// One request more is under way at a backend.
    #[inline]
    pub(crate) fn begin(&self, id: BackendId) {
        self.rows.row(id).begin();
        if self.needs.in_flight {
            let cell = &self.in_flight[id.index()];
            self.step.begin(cell);
        }
    }

    /// One less.
    #[inline]
    pub(crate) fn end(&self, id: BackendId) {
        self.rows.row(id).end();
        if self.needs.in_flight {
            let cell = &self.in_flight[id.index()];
            self.step.end(cell, self.rows.row(id).in_flight());
        }
    }

    /// Counts how a backend has done, and posts what may change who is asked.
    #[inline]
    pub(crate) fn settle(&self, id: BackendId, ok: bool, trial: Option<Trial>) {
        self.rows.row(id).count(ok);
        if !ok || trial.is_some() {
            self.post(id, ok, trial);
        }
    }

    #[cold]
    fn post(&self, id: BackendId, ok: bool, trial: Option<Trial>) {
        let Some(outcomes) = &self.outcomes else { return };
        match trial {
            None => outcomes.failed(self.id, id, self.backends.load.totals(self.id, id)),
            Some(trial) => {
                if outcomes.tried(self.id, id, trial.epoch(), ok) {
                    trial.decide(ok);
                }
            }
        }
    }

    /// Notes how long a backend took, where the algorithm wants to know.
    pub(crate) fn timed(&self, id: BackendId, sample: Sample, now: u64) {
        self.balancer.borrow_mut().observe(id, sample, now);
    }
}
