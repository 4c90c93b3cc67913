//! The standing of a pool: which backends may be asked, from probes, ejection, breaker, panic and
//! addresses.
//!
//! Owned by the health thread, one per pool; its results are published to all cores
//! (`shared/standing.rs`, `shared/trials.rs`). It decides for the process, so all cores agree.
//! Pure: the health thread reports what happened and when, calls `turn` when something is due, and
//! then carries out the changes: first `periods`, then the sets, then `changes`.
//!
//! Neither ejection nor a breaker ever leaves a pool with no backend to ask.

mod carried;
mod change;
mod present;
mod seen;
mod slot;
#[cfg(test)]
mod tests;

use std::{mem, time::Duration, vec::Drain};

pub(in crate::policy) use self::carried::Pause;
use self::slot::{Plan, Slot};
pub(crate) use self::{
    carried::Carried,
    change::{Change, Mode, State},
    present::Present,
    seen::Seen,
};
pub use self::{
    change::{Cause, Failed},
    present::{BackendState, BreakerState},
};
use super::{
    health::{ProbeFault, Tracker},
    suspicion::Bounds,
};
use crate::base::{
    backend_set::BackendSet,
    ids::BackendId,
    moment::{Deadline, Tick},
    rng::Rng,
    totals::Totals,
};
use crate::plan::{Duty, Pool, Table};

/// If all backends fail, each ejected one is tried again at most this often.
const EJECTED_MIN: Duration = Duration::from_secs(1);

/// What the health thread does to `shared/trials.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// A period of trials begins, with so many permits; it ends an earlier one.
    Begins(BackendId, u16),
    Ends(BackendId),
}

/// Which backends of a pool may be asked.
pub(crate) struct Standing {
    plan: Plan,
    rng: Rng,
    slots: Table<BackendId, Slot>,
    /// Those that are up, admitted and not stopped.
    sound: BackendSet,
    mode: Mode,
    usable: BackendSet,
    on_trial: BackendSet,
    spare: BackendSet,
    out: BackendSet,
    /// When something is due.
    due: Deadline,
    /// Whether a backend has changed since the sets were made.
    is_stale: bool,
    changes: Vec<Change>,
    periods: Vec<Period>,
    /// How many were ejected when the plan changed: it may allow fewer.
    ejected_before: usize,
}

impl Standing {
    /// For a pool at the start of the process: every backend with an address is usable.
    pub(crate) fn new(pool: &Pool, seed: u64, now: Tick) -> Standing {
        let mut standing = Standing {
            plan: Plan::of(pool),
            rng: Rng::seeded(seed),
            slots: pool.backends.iter().map(|(id, it)| (id, Slot::new(it, now))).collect(),
            sound: BackendSet::EMPTY,
            mode: Mode::Strict,
            usable: BackendSet::EMPTY,
            on_trial: BackendSet::EMPTY,
            spare: BackendSet::EMPTY,
            out: BackendSet::EMPTY,
            due: Deadline::NEVER,
            is_stale: true,
            changes: Vec::new(),
            periods: Vec::new(),
            ejected_before: 0,
        };
        standing.refresh();
        standing.changes.clear();
        standing
    }

    /// Continues under a new plan of the pool. New backends, and those back from maintenance, are
    /// usable at once, unless others serve and there are probes to find out first. Removed ones
    /// stay known until they are forgotten: requests that began under an earlier plan may ask them.
    pub(crate) fn replan(&mut self, pool: &Pool, now: Tick) {
        self.plan = Plan::of(pool);
        for id in self.ids() {
            self.step(id, now, Cause::Plan, |plan, slot, _| slot.replan(plan, now));
        }
        let others_serve = self.takes(self.sound);
        for (id, backend) in &pool.backends {
            match self.slots.get_mut(id) {
                Some(slot) if !slot.returns(backend) => {
                    if backend.duty == Duty::Maintenance {
                        slot.leaves();
                    }
                }
                known => {
                    let mut slot = Slot::new(backend, now);
                    if let Some(known) = known {
                        slot.permits = known.permits;
                    }
                    if self.plan.health.is_some() && others_serve {
                        slot.tracker = Tracker::unseen();
                    }
                    self.slots.insert(id, slot);
                }
            }
            if let Some(slot) = self.slots.get_mut(id)
                && slot.duty.0 != backend.duty
            {
                slot.duty = (backend.duty, now);
            }
        }
        let ejected = self.slots.values().filter(|slot| !slot.is_admitted()).count();
        self.ejected_before = ejected;
        self.is_stale = true;
        self.due = self.next_due();
        self.refresh();
    }

    /// Forgets a backend that is gone.
    pub(crate) fn forget(&mut self, id: BackendId) {
        if let Some(slot) = self.slots.remove(id) {
            if slot.permits > 0 {
                self.periods.push(Period::Ends(id));
            }
            self.is_stale = true;
            self.due = self.next_due();
            self.refresh();
        }
    }

    /// A probe has ended.
    pub(crate) fn probed(&mut self, id: BackendId, result: Result<(), ProbeFault>, now: Tick) {
        if self.slots.get(id).is_some_and(Slot::is_away) {
            // It was sent before the backend went into maintenance.
            return;
        }
        let cause = result.err().map_or(Cause::Probes, Cause::Probe);
        let is_news = self.step(id, now, cause, |plan, slot, _| {
            if let Some(health) = &plan.health {
                slot.tracker.observe(health, result.is_ok());
            }
        });
        if is_news && result.is_ok() {
            // It was seen to fail and to work again, which is what any ejection waits for.
            self.step(id, now, Cause::Probes, |_, slot, _| {
                slot.outlier.end();
                slot.breaker.end();
            });
        }
        self.refresh();
    }

    /// A probe has failed of a backend that was suspected: it counts for as many as it takes.
    pub(crate) fn confirmed(&mut self, id: BackendId, fault: ProbeFault, now: Tick) {
        if self.slots.get(id).is_some_and(Slot::is_away) {
            return;
        }
        self.step(id, now, Cause::Probe(fault), |plan, slot, _| {
            if let Some(health) = &plan.health {
                slot.tracker.fail(health);
            }
        });
        self.refresh();
    }

    /// A backend is silent for one more span, which counts as a failure; these are its totals.
    pub(crate) fn unanswered(&mut self, id: BackendId, totals: Totals, now: Tick) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.unanswered += 1;
        }
        self.failed(id, (totals, Some(Failed::Fault("no_answer"))), now);
    }

    /// How silent backends are suspected; none if nothing would follow from it.
    pub(crate) fn suspicion(&self) -> Option<Bounds> {
        let probes = self.plan.health.is_some();
        let decides = probes || self.plan.passive.failures_max > 0;
        let suspects_max = self.plan.ejected_max;
        (decides && self.plan.taking.len() > 1).then_some(Bounds { probes, suspects_max })
    }

    /// The backends that take new traffic and nothing keeps out.
    pub(crate) fn serving(&self) -> BackendSet {
        self.sound & self.plan.taking
    }

    /// From the start of a backend's last probe to that of its next, before jitter: shorter while
    /// its state is about to change or not yet known. Without probes the longest possible.
    pub(crate) fn interval(&self, id: BackendId) -> Duration {
        let slot = self.slots.get(id).zip(self.plan.health.as_ref());
        slot.map_or(Duration::MAX, |(slot, health)| slot.tracker.interval(health))
    }

    /// Requests failed for which the backend is to blame, if these totals, read after that, have
    /// more failures than the last, which failed in this way, if that is known.
    pub(crate) fn failed(
        &mut self,
        id: BackendId,
        (totals, last): (Totals, Option<Failed>),
        now: Tick,
    ) {
        self.admit_the_resting(now);
        let Some(slot) = self.slots.get_mut(id) else { return };
        let (row, window) = slot.failed(&self.plan, totals, now);
        if let Some(length) = row
            && self.sound.contains(id)
        {
            if self.may_eject(id) {
                self.step(id, now, Cause::Failures(length, last), |plan, slot, rng| {
                    slot.outlier.eject(&plan.passive, now, rng);
                });
            } else if !self.can_spare(id) {
                self.try_the_ejected(now);
            }
        }
        if let Some(Totals { ok, failed, .. }) = window
            && self.may_open(id)
        {
            let cause = Cause::Ratio { failed, requests: ok + failed };
            self.step(id, now, cause, |plan, slot, rng| {
                if let Some(plan) = &plan.breaker {
                    slot.breaker.open(plan, now, rng);
                }
            });
        }
        self.refresh();
    }

    /// A trial of the present period is decided.
    pub(crate) fn tried(&mut self, id: BackendId, is_ok: bool, now: Tick) {
        if !self.on_trial.contains(id) {
            return;
        }
        let cause = if is_ok { Cause::TrialOk } else { Cause::TrialFailed };
        self.step(id, now, cause, |plan, slot, rng| {
            slot.outlier.tried(&plan.passive, is_ok, now, rng);
            if let Some(plan) = &plan.breaker {
                slot.breaker.tried(plan, is_ok, now, rng);
            }
        });
        self.refresh();
    }

    /// It gained an address, or lost its last one.
    #[cfg(test)]
    pub(crate) fn addressed(&mut self, id: BackendId, has_address: bool) {
        if let Some(slot) = self.slots.get_mut(id) {
            self.is_stale |= slot.has_address != has_address;
            slot.has_address = has_address;
        }
        self.refresh();
    }

    /// Does what is due; returns when something is due next, later than `now`.
    pub(crate) fn turn(&mut self, now: Tick) -> Deadline {
        if self.due.is_over(now) {
            for id in self.ids() {
                self.step(id, now, Cause::Elapsed, |_, slot, _| slot.turn(now));
            }
            self.admit_the_resting(now);
            self.due = self.next_due();
            self.refresh();
        }
        self.due
    }

    fn next_due(&self) -> Deadline {
        self.slots.values().map(Slot::due).fold(Deadline::NEVER, Deadline::earlier)
    }

    /// The backends that may be asked.
    pub(crate) fn usable(&self) -> BackendSet {
        self.usable
    }

    /// The backends that may be asked with a permit; none of them is usable.
    pub(crate) fn on_trial(&self) -> BackendSet {
        self.on_trial
    }

    /// The backends that are left out for their answers alone: the last resort of a request with no
    /// other backend left.
    pub(crate) fn spare(&self) -> BackendSet {
        self.spare
    }

    /// The backends that are left out because they fail; none of them may be asked.
    pub(crate) fn out(&self) -> BackendSet {
        self.out
    }

    /// Periods of trials that have begun or ended, in order: `Trials::open` and `close`.
    pub(crate) fn periods(&mut self) -> Drain<'_, Period> {
        self.periods.drain(..)
    }

    /// The changes to report to people and metrics.
    pub(crate) fn changes(&mut self) -> Drain<'_, Change> {
        self.changes.drain(..)
    }

    /// The state of one backend by its probes, its answers and its breaker.
    pub(crate) fn states(&self, id: BackendId) -> Option<[State; 3]> {
        self.slots.get(id).map(Slot::states)
    }

    /// Advances one backend, and notes what that changed; returns whether anything did.
    fn step(
        &mut self,
        id: BackendId,
        now: Tick,
        cause: Cause,
        go: impl FnOnce(&Plan, &mut Slot, &mut Rng),
    ) -> bool {
        let Some(slot) = self.slots.get_mut(id) else { return false };
        let before = slot.states();
        go(&self.plan, slot, &mut self.rng);
        let after = slot.states();
        let kept = slot.since.iter_mut().zip(&mut slot.causes);
        for ((from, to), (since, why)) in before.into_iter().zip(after).zip(kept) {
            if from != to {
                *why = Some(cause);
                let lasted = now.since(mem::replace(since, now));
                self.changes.push(Change::Backend { backend: id, from, to, cause, lasted });
            }
        }
        self.due = self.due.earlier(slot.due());
        self.is_stale |= before != after;
        before != after
    }

    /// A backend whose ejection is over but that no request reaches, as a backup while others
    /// serve, would wait for a trial for ever, and keep others from being ejected.
    fn admit_the_resting(&mut self, now: Tick) {
        let primaries = self.sound_primaries();
        let sound = self.sound;
        for id in self.ids().filter(|id| !sound.contains(*id)) {
            let is_backup = self.plan.backups.contains(id);
            let rests = !self.plan.taking.contains(id) || (is_backup && !primaries.is_empty());
            if rests {
                self.step(id, now, Cause::Elapsed, |_, slot, _| {
                    if slot.is_returning() {
                        slot.outlier.admit(now);
                    }
                });
            }
        }
    }

    /// The last one left fails like those that were ejected, and they may have recovered by now.
    fn try_the_ejected(&mut self, now: Tick) {
        for id in self.ids() {
            self.step(id, now, Cause::NobodyElse, |_, slot, _| {
                if now >= slot.ejected_at() + EJECTED_MIN {
                    slot.outlier.end();
                }
            });
        }
    }

    /// Whether a backend that takes part may be ejected: failures while it is out say nothing new.
    fn may_eject(&self, id: BackendId) -> bool {
        let ejected = self.slots.values().filter(|slot| !slot.is_admitted()).count();
        self.can_spare(id) && ejected < self.plan.ejected_max
    }

    fn may_open(&self, id: BackendId) -> bool {
        self.sound.contains(id) && (self.plan.allows_empty() || self.can_spare(id))
    }

    /// Whether others remain that take new traffic.
    fn can_spare(&self, id: BackendId) -> bool {
        let mut others = self.sound;
        others.remove(id);
        self.takes(others) || !self.plan.taking.contains(id)
    }

    /// The backends that serve when the pool is as it should be.
    fn sound_primaries(&self) -> BackendSet {
        self.sound & self.plan.taking & !self.plan.backups
    }

    /// Whether any of them takes new traffic.
    fn takes(&self, set: BackendSet) -> bool {
        !(set & self.plan.taking).is_empty()
    }

    /// Makes the sets anew, if anything has changed.
    fn refresh(&mut self) {
        if !mem::take(&mut self.is_stale) {
            return;
        }
        let unstopped = self.who(|slot| slot.is_available() && slot.is_closed());
        self.sound = unstopped & self.who(Slot::is_admitted);
        let mode;
        (mode, self.usable) = self.decide(unstopped);
        self.spare = unstopped & !self.usable;
        let from = mem::replace(&mut self.mode, mode);
        if from != mode {
            let sound = (self.sound & self.plan.taking).len();
            self.changes.push(Change::Pool { from, to: mode, sound, of: self.plan.taking.len() });
        }
        self.refresh_trials();
        self.out = self.who(Slot::fails) & !(self.usable | self.on_trial);
        self.check_invariants();
    }

    /// The usable backends, and the mode that gives them. `unstopped` are those that only ejection
    /// may keep from being sound.
    fn decide(&self, unstopped: BackendSet) -> (Mode, BackendSet) {
        let sound = (self.sound & self.plan.taking).len() as u64;
        // New backends are no sign of anything before they have been probed.
        let all = (self.plan.taking & !self.who(|slot| slot.tracker.is_unseen())).len() as u64;
        let is_panic = sound * 1_000_000 < u64::from(self.plan.panic.0) * all;
        // Backups that can answer come before primaries that count as down.
        let is_panic = is_panic && (sound == 0 || !self.sound_primaries().is_empty());
        let closed = self.who(|slot| slot.is_there() && slot.is_closed());
        let available = self.who(Slot::is_available);
        if is_panic && self.takes(closed) {
            (Mode::Panic, closed)
        } else if sound > 0 {
            (Mode::Strict, self.sound)
        } else if self.takes(unstopped) {
            (Mode::Lenient, unstopped)
        } else if self.takes(available) && !self.plan.allows_empty() {
            (Mode::Lenient, available)
        } else {
            (Mode::Strict, self.sound)
        }
    }

    /// Begins and ends periods of trials.
    fn refresh_trials(&mut self) {
        self.on_trial = BackendSet::EMPTY;
        for id in self.ids() {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            let is_usable = self.usable.contains(id);
            let permits = if is_usable { 0 } else { slot.trials(&self.plan, self.mode) };
            if permits > 0 {
                self.on_trial.insert(id);
            }
            if permits != mem::replace(&mut slot.permits, permits) {
                self.periods.push(match permits {
                    0 => Period::Ends(id),
                    permits => Period::Begins(id, permits),
                });
            }
        }
    }

    fn ids(&self) -> impl Iterator<Item = BackendId> + use<> {
        (0..).map(BackendId).take(self.slots.span())
    }

    fn who(&self, is: impl Fn(&Slot) -> bool) -> BackendSet {
        let mut set = BackendSet::EMPTY;
        for (id, slot) in &self.slots {
            if is(slot) {
                set.insert(id);
            }
        }
        set
    }

    /// Invariants whenever the sets have been made.
    fn check_invariants(&self) {
        let available = self.who(Slot::is_available);
        debug_assert!((self.usable & self.on_trial).is_empty(), "a trial needs no permit");
        debug_assert!((self.usable & !self.who(Slot::is_there)).is_empty());
        debug_assert!((self.sound & !self.usable).is_empty(), "who is sound is asked");
        debug_assert!(self.mode == Mode::Panic || (self.usable & !available).is_empty());
        debug_assert!(self.mode != Mode::Strict || self.usable == self.sound);
        debug_assert!(
            self.takes(self.usable) || !self.takes(available) || self.plan.allows_empty(),
            "somebody could be asked and nobody is"
        );
        let ejected = self.slots.values().filter(|slot| !slot.is_admitted()).count();
        debug_assert!(
            ejected <= self.plan.ejected_max.max(self.ejected_before),
            "{ejected} are ejected at once"
        );
        debug_assert!(self.due.earlier(self.next_due()) == self.due, "a time is forgotten");
    }
}
