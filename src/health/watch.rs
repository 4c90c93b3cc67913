//! The watch for silent backends: reads the counts of all cores many times a second while requests
//! are asked, and not at all while none is.
//!
//! `policy::suspicion` decides what follows from silence; here it is carried out: a probe at once,
//! or a failure. What is usual for a backend is known from the times of its answers, of the last
//! ten to twenty seconds if there were enough.

use std::{mem, time::Duration};

use super::verdicts::{Pool, Verdicts};
use crate::base::{
    histogram::{Histogram, Reading},
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::observe::reports::Report;
use crate::plan::Table;
use crate::policy::suspicion::Deed;

/// The time from one look to the next while anything changes. A silence is noticed that much late,
/// and so is the end of its span.
const PACE: Duration = Duration::from_millis(10);
/// The same when nothing has changed for a while. If nothing waits either, the watch ends until a
/// core stirs it.
const PACE_MAX: Duration = Duration::from_millis(200);
/// The least time between looks for each row of counts that is read: so with many backends and
/// cores looks take about a hundredth of the time.
const ROW: Duration = Duration::from_micros(5);

/// How often it is found out after how long second copies are sent.
const HEDGES: Duration = Duration::from_secs(1);

/// For how long the times of answers are of the present.
const PRESENT: Duration = Duration::from_secs(10);
/// Fewer answers do not say what is usual.
const ANSWERS_MIN: u64 = 16;
/// So many of them begin within the usual time.
const USUAL_SHARE: f64 = 0.95;
/// Readings of times that are taken in one look.
const READINGS_MAX: usize = 16;

/// When the next look is due, and what the last found.
pub(super) struct Watch {
    due: Deadline,
    pace: Duration,
    /// The times of each backend's answers.
    times: Table<PoolId, Table<BackendId, Box<Times>>>,
    suspects: Vec<(PoolId, BackendId)>,
    hedges_due: Deadline,
}

/// Readings of the times of a backend's answers.
struct Times {
    older: Reading,
    newer: Reading,
    /// When the newer was taken.
    at: Tick,
}

impl Watch {
    pub(super) fn new(now: Tick) -> Watch {
        let (times, suspects) = (Table::new(), Vec::new());
        let due = Deadline::at(now);
        Watch { due, pace: PACE, times, suspects, hedges_due: due }
    }

    /// A backend is gone, or all of a pool.
    pub(super) fn forget(&mut self, pool: PoolId, backend: Option<BackendId>) {
        match backend {
            Some(backend) => {
                self.times.get_mut(pool).into_iter().for_each(|it| drop(it.remove(backend)));
            }
            None => drop(self.times.remove(pool)),
        }
    }
}

impl Verdicts {
    /// Looks for silent backends, if that is due; returns when it is next. Never = nothing is asked
    /// of any backend.
    pub(super) fn watch(&mut self, now: Tick) -> Deadline {
        // Whatever woke the thread, it may be a core with requests.
        if self.watch.due != Deadline::NEVER && !self.watch.due.is_over(now) {
            return self.watch.due;
        }
        let (mut is_news, mut waits, mut rows) = (false, false, 0);
        let mut readings = READINGS_MAX;
        for id in (0..).map(PoolId).take(self.pools.span()) {
            let Some(pool) = self.pools.get_mut(id) else { continue };
            if pool.standing.suspicion().is_none() && pool.hedge.is_none() {
                continue;
            }
            rows += pool.heard.len() * pool.state.load.workers();
            for backend in pool.heard.ids() {
                is_news |= pool.suspicions.read(backend, pool.state.load.tries(backend), now);
            }
            waits |= pool.suspicions.waits();
            self.watch.read_times((id, &*pool), &mut readings, now);
            if self.watch.hedges_due.is_over(now)
                && let Some(share) = pool.hedge
                && let Some(after) = self.watch.quantile((id, &*pool), share)
            {
                pool.state.set_hedge_after(after);
            }
            self.decide(id, now);
        }
        if self.watch.hedges_due.is_over(now) {
            self.watch.hedges_due = Deadline::at(now + HEDGES);
        }
        let watch = &mut self.watch;
        watch.pace = if is_news { PACE } else { PACE_MAX.min(watch.pace * 2) };
        let goes_on = is_news || waits || watch.pace < PACE_MAX;
        let pace = watch.pace.max(ROW * u32::try_from(rows).unwrap_or(u32::MAX));
        watch.due = if goes_on { Deadline::at(now + pace) } else { Deadline::NEVER };
        watch.due
    }

    fn decide(&mut self, id: PoolId, now: Tick) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        let Some(bounds) = pool.standing.suspicion() else { return };
        let before = pool.suspicions.silent();
        let usual = |backend| self.watch.usual((id, backend), &pool.state.times.read(backend));
        let deeds = pool.suspicions.decide(&pool.standing.serving(), bounds, usual, now);
        if deeds.is_empty() && before == pool.suspicions.silent() {
            return;
        }
        let mut reports = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Suspect(backend, silence) => {
                    reports.push(Report::Suspected(id, backend, silence));
                    self.watch.suspects.push((id, backend));
                }
                Deed::Fail(backend) => {
                    let earlier = pool.heard.get(backend).map(|heard| heard.before);
                    let totals = pool.state.load.totals(backend, now);
                    let totals = totals.without(earlier.unwrap_or_default());
                    pool.standing.unanswered(backend, totals, now);
                }
            }
        }
        reports.into_iter().for_each(|report| self.say(report));
        self.carry_out(id, now);
    }

    /// The backends that were suspected since the last call.
    pub(super) fn suspects(&mut self) -> Vec<(PoolId, BackendId)> {
        mem::take(&mut self.watch.suspects)
    }
}

impl Watch {
    /// Reads the times of backends whose last reading is old, as many as are `left`.
    fn read_times(&mut self, (id, pool): (PoolId, &Pool), left: &mut usize, now: Tick) {
        if self.times.get(id).is_none() {
            self.times.insert(id, Table::new());
        }
        let Some(all) = self.times.get_mut(id) else { return };
        for backend in pool.heard.ids() {
            let is_due = all.get(backend).is_none_or(|times| now >= times.at + PRESENT);
            if !is_due || *left == 0 {
                continue;
            }
            *left -= 1;
            let newer = pool.state.times.read(backend);
            let older = match all.remove(backend) {
                Some(times) => times.newer,
                None => newer.clone(),
            };
            all.insert(backend, Box::new(Times { older, newer, at: now }));
        }
    }

    /// Within what time this share of a pool's answers begins; none if it has given too few.
    fn quantile(&self, (id, pool): (PoolId, &Pool), share: f64) -> Option<Duration> {
        let of = |backend| self.times.get(id).and_then(|all| all.get(backend));
        let nothing = Reading::default();
        let (mut lately, mut ever) = (Histogram::default(), Histogram::default());
        for backend in pool.heard.ids() {
            let now = pool.state.times.read(backend);
            lately.add(of(backend).map_or(&nothing, |times| &times.older), &now);
            ever.add(&nothing, &now);
        }
        let known = [lately, ever].into_iter().find(|times| times.count() >= ANSWERS_MIN)?;
        known.quantile(share)
    }

    /// Within what time answers of a backend usually begin; none if it has given too few.
    fn usual(&self, (pool, backend): (PoolId, BackendId), now: &Reading) -> Option<Duration> {
        let times = self.times.get(pool).and_then(|all| all.get(backend));
        let since = |before: &Reading| {
            let mut histogram = Histogram::default();
            histogram.add(before, now);
            (histogram.count() >= ANSWERS_MIN).then(|| histogram.quantile(USUAL_SHARE)).flatten()
        };
        times.and_then(|times| since(&times.older)).or_else(|| since(&Reading::default()))
    }
}
