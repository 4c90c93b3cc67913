//! The verdicts of all pools: takes what happened, and publishes what follows at once.
//!
//! `policy::standing` decides what follows. It is carried out here, in an order that no core can
//! misunderstand: permits of trials exist before a core may see that a backend is on trial. Then
//! the changes are reported. It has no I/O of its own, so it is tested without a runtime.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use super::{CarriedBackend, Probed, SeenBackend, watch::Watch};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::{Deadline, Micros, Tick},
    rng::Rng,
    totals::Totals,
};
use crate::observe::reports::{Report, Reporter};
use crate::plan::{self, Table};
use crate::policy::{
    health::ProbeFault,
    standing::{Change, Failed, Period, Present, Standing, State},
    suspicion::Suspicions,
};
use crate::shared::{
    bell::Rope,
    counters::Slab,
    outcomes::{How, Outcome, Posted},
    pool::PoolState,
    rooms::Rooms,
    tally::Key,
};
use crate::worker::Next;

/// Changes that may wait for the hub: every backend of four full pools at once. Any more are not
/// reported; all of them are published.
const UNTOLD_MAX: usize = 4096;

/// How soon changes that could not be reported are tried again.
const UNTOLD_AGAIN: Duration = Duration::from_millis(20);

/// The state of all pools.
pub(super) struct Verdicts {
    pub(super) pools: Table<PoolId, Pool>,
    reporter: Reporter,
    counters: Arc<Slab>,
    /// How cores are told of what is taken out.
    rooms: Rooms,
    ropes: Arc<[Rope]>,
    untold: VecDeque<Report>,
    pub(super) watch: Watch,
}

pub(super) struct Pool {
    /// Where it is published, and what cores count.
    pub(super) state: Arc<PoolState>,
    pub(super) standing: Standing,
    /// When something is due.
    due: Deadline,
    pub(super) heard: Table<BackendId, Heard>,
    /// The backends that fail, as published.
    out: BackendSet,
    pub(super) suspicions: Suspicions,
    /// The share of answers after whose time second copies are sent, if any are.
    pub(super) hedge: Option<f64>,
}

impl Pool {
    /// For a new pool: every backend with an address is usable.
    fn new(pool: &plan::Pool, state: &Arc<PoolState>, seed: u64, now: Tick) -> Pool {
        Pool {
            state: Arc::clone(state),
            standing: Standing::new(pool, seed, now),
            due: Deadline::at(now),
            heard: Table::new(),
            out: BackendSet::EMPTY,
            suspicions: Suspicions::default(),
            hedge: None,
        }
    }
}

/// The last totals of one backend.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    /// The failures as of the last check.
    failed: u64,
    /// What its seat had counted when it came: those belong to another backend.
    pub(super) before: Totals,
    /// Its state, as it was published for statistics.
    present: Present,
    /// When its last probe ended, how, and how long it took.
    probe: Option<(Tick, Result<(), ProbeFault>, Micros)>,
}

impl Verdicts {
    pub(super) fn new(
        next: &Next,
        (reporter, counters): (Reporter, Arc<Slab>),
        (rooms, ropes): (Rooms, Arc<[Rope]>),
        chance: &mut Rng,
        now: Tick,
    ) -> Verdicts {
        let (pools, untold) = (Table::new(), VecDeque::new());
        let watch = Watch::new(now);
        let mut verdicts = Verdicts { pools, reporter, counters, rooms, ropes, untold, watch };
        verdicts.take(next, chance, now);
        verdicts
    }

    /// What is known of each backend.
    pub(super) fn carried(&self, now: Tick) -> Vec<CarriedBackend> {
        let of_pool = |(id, pool): (PoolId, &Pool)| {
            let carried = pool.standing.carried(now).into_iter();
            carried.map(move |(backend, carried)| (id, backend, carried))
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    /// The same for people, with the last probe of each.
    pub(super) fn seen(&self, now: Tick) -> Vec<SeenBackend> {
        let of_pool = |(id, pool): (PoolId, &Pool)| {
            let seen = pool.standing.seen(now).map(|(backend, seen)| {
                let probe = pool.heard.get(backend).and_then(|heard| heard.probe);
                let probe = probe.map(|(at, result, took)| {
                    let ago = now.since(at);
                    Probed { ago, result, took }
                });
                SeenBackend { pool: id, backend, seen, probe }
            });
            seen.collect::<Vec<_>>()
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    /// Notes the last probe of a backend.
    pub(super) fn note_probe(
        &mut self,
        (pool, backend): (PoolId, BackendId),
        (result, took): (Result<(), ProbeFault>, Micros),
        now: Tick,
    ) {
        let known = self.pools.get_mut(pool).and_then(|known| known.heard.get_mut(backend));
        known.into_iter().for_each(|heard| heard.probe = Some((now, result, took)));
    }

    /// Goes on from what an earlier process knew, and publishes it.
    pub(super) fn resume(&mut self, carried: Vec<CarriedBackend>, now: Tick) {
        let mut pools = Vec::new();
        for (id, backend, carried) in carried {
            let Some(pool) = self.pools.get_mut(id) else { continue };
            let present = pool.standing.resume(backend, &carried, now);
            if let Some(heard) = pool.heard.get_mut(backend) {
                heard.present = present;
                self.counters.tally().set(Key::Present(id, backend), present.0);
            }
            pools.push(id);
        }
        pools.dedup();
        pools.into_iter().for_each(|id| self.carry_out(id, now));
    }

    /// Continues under the next plan, and publishes what follows. What was removed stays known
    /// until it is forgotten.
    pub(super) fn replan(&mut self, next: &Next, chance: &mut Rng, now: Tick) {
        self.take(next, chance, now);
        next.pools.ids().for_each(|id| self.carry_out(id, now));
    }

    fn take(&mut self, next: &Next, chance: &mut Rng, now: Tick) {
        for (id, pool) in &next.plan.pools {
            let Some(state) = next.pools.get(id).map(|next| &next.state) else { continue };
            match self.pools.get_mut(id) {
                Some(known) => known.standing.replan(pool, now),
                None => drop(self.pools.insert(id, Pool::new(pool, state, chance.next(), now))),
            }
            let Some(Pool { heard, standing, hedge, .. }) = self.pools.get_mut(id) else {
                continue;
            };
            *hedge = match pool.retry.hedge.map(|hedge| hedge.after) {
                Some(plan::HedgeAfter::Quantile(percent)) => Some(f64::from(percent) / 100.0),
                Some(plan::HedgeAfter::Time(time)) => {
                    state.set_hedge_after(time);
                    None
                }
                None => None,
            };
            for backend in pool.backends.ids() {
                if heard.get(backend).is_none() {
                    state.unreachable.forget(backend);
                    let before = state.load.ended(backend);
                    let failed = before.with_late().failed;
                    heard.insert(backend, Heard { failed, before, ..Heard::default() });
                }
                // One that is new, or back from maintenance, has a state that nothing has changed.
                let (Some(heard), Some(states)) =
                    (heard.get_mut(backend), standing.states(backend))
                else {
                    continue;
                };
                heard.present = states.into_iter().fold(Present::default(), Present::after);
                self.counters.tally().set(Key::Present(id, backend), heard.present.0);
            }
        }
    }

    /// No thread holds a plan any more that names these: a pool, or one of its backends.
    pub(super) fn forget(&mut self, gone: &[(PoolId, Option<BackendId>)], now: Tick) {
        // Their seats may be given to others, which begin at nought.
        self.counters.tally().forget(|key| match key {
            Key::Present(pool, backend)
            | Key::Ejections(pool, backend)
            | Key::FailedProbes(pool, backend, _) => gone.contains(&(pool, Some(backend))),
            // Those of the cores.
            Key::Connections(_)
            | Key::Idle(_)
            | Key::Requests(..)
            | Key::Queued(_)
            | Key::Retries(..)
            | Key::Tries(..)
            | Key::Moved(..)
            | Key::Failed(..) => false,
        });
        for (id, backend) in gone {
            self.watch.forget(*id, *backend);
            match (self.pools.get_mut(*id), backend) {
                (Some(known), Some(backend)) => {
                    known.heard.remove(*backend);
                    known.suspicions.forget(*backend);
                    known.standing.forget(*backend);
                    self.carry_out(*id, now);
                }
                (Some(_), None) => drop(self.pools.remove(*id)),
                (None, _) => {}
            }
        }
    }

    /// Takes what cores have posted.
    pub(super) fn hear(&mut self, posted: &Posted, now: Tick) {
        let missed = posted.missed();
        while let Some(outcome) = posted.next() {
            match outcome {
                Outcome::Failed { pool, backend, totals, how } => {
                    let last = match how {
                        How::Status(status) => Failed::Status(status),
                        How::Fault(code) => Failed::Fault(code),
                    };
                    self.failed((pool, backend), (totals, Some(last)), now);
                }
                Outcome::Tried { pool, backend, epoch, ok } => {
                    self.tried((pool, backend), epoch, ok, now);
                }
            }
        }
        if missed {
            for (pool, backend) in self.unheard() {
                let state = self.pools.get(pool).map(|known| Arc::clone(&known.state));
                if let Some(state) = state {
                    let totals = state.load.totals(backend, now);
                    self.failed((pool, backend), (totals, None), now);
                }
            }
        }
    }

    fn failed(
        &mut self,
        (pool, backend): (PoolId, BackendId),
        (totals, last): (Totals, Option<Failed>),
        now: Tick,
    ) {
        let Some(known) = self.pools.get_mut(pool) else { return };
        let Some(heard) = known.heard.get_mut(backend) else { return };
        heard.failed = totals.with_late().failed;
        known.standing.failed(backend, (totals.without(heard.before), last), now);
        self.carry_out(pool, now);
    }

    /// The backends that have failed since the last check, whether or not it was posted.
    fn unheard(&self) -> Vec<(PoolId, BackendId)> {
        let of_pool = |(id, pool): (PoolId, &Pool)| {
            let is_news = |(backend, heard): &(BackendId, &Heard)| {
                pool.state.load.ended(*backend).with_late().failed != heard.failed
            };
            let news = pool.heard.iter().filter(is_news);
            news.map(|(backend, _)| (id, backend)).collect::<Vec<_>>()
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    fn tried(&mut self, (pool, backend): (PoolId, BackendId), epoch: u16, ok: bool, now: Tick) {
        // A trial of an earlier period means nothing any more.
        if let Some(known) = self.pools.get_mut(pool)
            && epoch == known.state.trials.epoch(backend)
        {
            known.standing.tried(backend, ok, now);
            self.carry_out(pool, now);
        }
    }

    /// A probe has ended.
    pub(super) fn probed(
        &mut self,
        (pool, backend): (PoolId, BackendId),
        result: Result<(), ProbeFault>,
        now: Tick,
    ) {
        let Some(known) = self.pools.get_mut(pool) else { return };
        if let Err(fault) = result {
            self.counters.tally().add(Key::FailedProbes(pool, backend, fault.kind()), 1);
        }
        match result {
            Err(fault) if known.suspicions.is_suspected(backend) => {
                known.standing.confirmed(backend, fault, now);
            }
            result => known.standing.probed(backend, result, now),
        }
        known.suspicions.clear(backend, now);
        self.carry_out(pool, now);
    }

    /// From the start of one probe of a backend to that of the next.
    pub(super) fn interval(&self, pool: PoolId, backend: BackendId) -> Duration {
        self.pools.get(pool).map_or(Duration::MAX, |known| known.standing.interval(backend))
    }

    /// Does what is due; returns when something is due next.
    pub(super) fn turn(&mut self, now: Tick) -> Deadline {
        for id in (0..).map(PoolId).take(self.pools.span()) {
            if self.pools.get(id).is_some_and(|pool| pool.due.is_over(now)) {
                self.carry_out(id, now);
            }
        }
        let untold = if self.tell() { Deadline::NEVER } else { Deadline::at(now + UNTOLD_AGAIN) };
        self.pools.values().map(|pool| pool.due).fold(untold, Deadline::earlier)
    }

    /// Carries out what follows for a pool.
    pub(super) fn carry_out(&mut self, id: PoolId, now: Tick) {
        let Some(known) = self.pools.get_mut(id) else { return };
        let Pool { state, standing, due, heard, out, suspicions, .. } = known;
        *due = standing.turn(now);
        for period in standing.periods() {
            match period {
                Period::Begins(backend, permits) => state.trials.open(backend, permits),
                Period::Ends(backend) => state.trials.close(backend),
            }
        }
        let (usable, on_trial) = (standing.usable(), standing.on_trial());
        let others = (standing.spare(), standing.out(), suspicions.silent());
        state.published.publish((usable, on_trial), others);
        let before = mem::replace(out, standing.out());
        if !(*out & !before).is_empty() {
            // Requests may wait there, on any core.
            let told = |(core, _): &(usize, &Rope)| self.rooms.tell(*core, id);
            self.ropes.iter().enumerate().filter(told).for_each(|(_, rope)| rope.pull());
        }
        for change in standing.changes() {
            if let Change::Backend { backend, to, .. } = change
                && let Some(heard) = heard.get_mut(backend)
            {
                heard.present = heard.present.after(to);
                let tally = self.counters.tally();
                tally.set(Key::Present(id, backend), heard.present.0);
                tally.add(Key::Ejections(id, backend), u64::from(to == State::Ejected));
            }
            if self.untold.len() < UNTOLD_MAX {
                self.untold.push_back(Report::Standing(id, change));
            }
        }
    }

    /// Queues this for the report of the next `turn`.
    pub(super) fn say(&mut self, what: Report) {
        if self.untold.len() < UNTOLD_MAX {
            self.untold.push_back(what);
        }
    }

    /// Reports the queued changes; false if not all of them could be.
    fn tell(&mut self) -> bool {
        while let Some(what) = self.untold.pop_front() {
            if let Err(what) = self.reporter.try_tell(what) {
                self.untold.push_front(what);
                return false;
            }
        }
        true
    }
}
