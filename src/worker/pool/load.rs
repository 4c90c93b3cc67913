//! What this core counts of a pool's backends, and takes over from the other cores.
//!
//! Counts are of this core alone, in rows that all may read. What may change who is asked is posted
//! to the health thread besides.

use super::PoolView;
use crate::base::{ids::BackendId, moment::Tick};
use crate::policy::{balance::Sample, blame::Verdict};
use crate::shared::trials::Trial;

impl PoolView {
    /// Looks up what the other cores have in flight, and what they know.
    #[cold]
    pub(super) fn merge(&self, now: Tick) {
        self.merge_due.set(Some(now + self.merged_age_max));
        let load = &self.backends.load;
        let mut balancer = self.balancer.borrow_mut();
        for (id, merged) in (0..).map(BackendId).zip(&self.in_flight) {
            let own = self.rows.row(id);
            let others = load.in_flight_of_others(self.core_index, self.id, id);
            merged.set(own.in_flight().wrapping_add(others));
            if self.needs.outcomes {
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

    /// Counts how a try has ended of a backend that was asked at `asked_at`, and posts what may
    /// change who is asked. Whether it did well; none where the
    /// try says nothing of what the backend is now: then a trial is undecided. An answer that
    /// begins well counts as one that begins; it is `whole` or `cut` when it ends.
    #[inline]
    pub(crate) fn settle(
        &self,
        id: BackendId,
        verdict: Verdict,
        trial: Option<Trial>,
        (asked_at, now): (Tick, Tick),
    ) -> Option<bool> {
        let ok = match verdict {
            Verdict::Well => true,
            Verdict::Failed => false,
            Verdict::Late if !self.has_answered_since(id, asked_at, now) => false,
            Verdict::Late | Verdict::Nothing => return None,
        };
        if ok {
            self.rows.row(id).answered(now);
        } else {
            self.rows.row(id).failed();
        }
        if !ok || trial.is_some() {
            self.post(id, (ok, trial), now);
        }
        Some(ok)
    }

    /// An answer that began well has ended as it should, or its client ended it.
    #[inline]
    pub(crate) fn whole(&self, id: BackendId) {
        self.rows.row(id).succeeded();
    }

    /// An answer that began well at `began_at` has been cut. Whether that counts against the
    /// backend.
    #[cold]
    pub(crate) fn cut(
        &self,
        id: BackendId,
        verdict: Verdict,
        (began_at, now): (Tick, Tick),
    ) -> bool {
        let counts = match verdict {
            Verdict::Failed => true,
            Verdict::Late => !self.has_answered_since(id, began_at, now),
            Verdict::Well | Verdict::Nothing => false,
        };
        if counts {
            self.rows.row(id).failed();
            if let Some(outcomes) = &self.outcomes {
                // Those that began meanwhile, this one among them, may be cut as well.
                outcomes.failed(self.id, id, self.backends.load.ended(self.id, id));
            }
        }
        counts
    }

    /// Whether the backend has answered anybody since then; if so, the failure of one that was
    /// asked before counts as late, which only a breaker looks at.
    #[cold]
    fn has_answered_since(&self, id: BackendId, asked_at: Tick, now: Tick) -> bool {
        let load = &self.backends.load;
        let has = load.has_answered_since(self.id, id, asked_at, now);
        if has {
            load.failed_late(self.id, id);
            self.post(id, (false, None), now);
        }
        has
    }

    #[cold]
    fn post(&self, id: BackendId, (ok, trial): (bool, Option<Trial>), now: Tick) {
        let Some(outcomes) = &self.outcomes else { return };
        match trial {
            None => outcomes.failed(self.id, id, self.backends.load.totals(self.id, id, now)),
            Some(trial) => {
                if outcomes.tried(self.id, id, trial.epoch(), ok) {
                    trial.decide(ok);
                }
            }
        }
    }

    /// Notes how a backend did, where the algorithm wants to know.
    #[inline]
    pub(crate) fn observe(&self, id: BackendId, sample: Sample, now: Tick) {
        self.balancer.borrow_mut().observe(id, sample, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use crate::base::{backend_set::BackendSet, ids::PoolId, moment::Tick};
    use crate::shared::counters::Slab;
    use crate::worker::{Common, Own, Worker};

    const TEXT: &str = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        pool = "app"

        [pool.app]
        backends = ["127.0.0.1:7", "127.0.0.1:8", "127.0.0.1:9", "127.0.0.1:10"]
        balance = { hash = "uri", bound = 1.25 }
    "#;

    /// In one and the same millisecond, in which nothing is looked up where no bound asks for it.
    #[test]
    fn a_bound_holds_over_cores_that_place_in_turn() {
        let common = Common::of_text(TEXT, 3);
        let own =
            |core_index| Own { core_index, counters: Slab::new(), outlets: Default::default() };
        let cores = [0, 1, 2].map(|core| Worker::new(common.clone(), own(core)).in_force());
        let (none, now) = (BackendSet::EMPTY, Tick::from_millis(1_000));
        let wanted =
            Wanted { tried: &none, key: Some(7), pinned: None, careful: false, since: None, now };
        let (mut given, mut under_way) = ([0_usize; 4], Vec::new());
        for place in 0..120 {
            let core = &cores[place % 3];
            let picked = core.pool(PoolId(0)).pick(core, &wanted).ok().unwrap().in_flight;
            given[picked.backend().index()] += 1;
            under_way.push(picked);
            let fullest = given.into_iter().max().unwrap();
            assert!(fullest * 16 <= (place + 1) * 5 + 16, "{given:?} of {}", place + 1);
        }
    }
}
