//! A pick: one backend for one request, with the permits that asking it takes.
//!
//! Most picks need no permit, and those only ask the algorithm. A picked backend has one more
//! request in flight at once, so that no two picks of a core see the same load. `explain` has the
//! same decided with nothing taken, and writes down why others were left out.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{PoolCore, PoolView, core::BackendCore, queue::WaitsFor};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};
use crate::conns::BackendConns;
use crate::policy::balance::{Balancer, Candidates};
use crate::shared::{
    permits::{Permit, Permits},
    trials::Trial,
};

/// How long only requests that can be retried and are answered soon become trials. If none of those
/// comes, a backend that is left out would stay out for ever.
const TRIALS_AVOIDED: Duration = Duration::from_secs(1);

/// What a request wants of a pool.
pub(crate) struct Wanted<'a> {
    /// The backends asked already.
    pub(crate) tried: &'a BackendSet,
    /// The hash key, if the pool balances by key.
    pub(crate) key: Option<u64>,
    /// The backend that has answered this client before, if that matters.
    pub(crate) pinned: Option<BackendId>,
    /// Whether the request cannot be retried, or its client may take its time with a body: then it
    /// is no trial, unless there is no other backend or no other request that could be one.
    pub(crate) avoids_trials: bool,
    /// Since when it waits or has waited in the queue, so that waiting requests no longer go before
    /// it; none = it has not.
    pub(crate) since: Option<Tick>,
    pub(crate) now: Tick,
}

/// A picked backend, and all that asking it takes: one more request in flight, counted from the
/// pick on; a permit, if the backend has a bound; another, if it is on trial. All of it is returned
/// when this is dropped, however the request ended.
pub(crate) struct Pick {
    pool: Rc<PoolCore>,
    at: Rc<BackendCore>,
    backend: BackendId,
    /// One of the backend's `max-in-flight`.
    slot: Permit,
    /// It is on trial: the result of this request decides.
    trial: Option<Trial>,
    /// Whether it waits for the first byte of an answer.
    waits: bool,
}

impl Pick {
    /// The backend.
    #[inline]
    pub(crate) fn backend(&self) -> BackendId {
        self.backend
    }

    /// This core's connections to it.
    #[inline]
    pub(crate) fn conns(&self) -> &RefCell<BackendConns> {
        &self.at.conns
    }

    /// The answer has begun.
    #[inline]
    pub(crate) fn begins_to_answer(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.pool.begins_to_answer(self.backend);
        }
    }

    /// What was asked through a tunnel, which may have outlived its plan, has moved so many bytes.
    pub(crate) fn moved(&self, bytes_in: u64, bytes_out: u64) {
        self.pool.moved(self.backend, bytes_in, bytes_out);
    }

    /// No answer is expected before the client has sent more.
    #[inline]
    pub(crate) fn waits_for_client(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.pool.leaves(self.backend);
        }
    }

    /// The permit of its trial, to be decided; none if it is not on trial, or that was done.
    #[inline]
    pub(crate) fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.waits_for_client();
        self.pool.end(self.backend);
        self.trial = None;
        if self.slot.is_of_a_limit() {
            self.slot = Permit::NONE;
            self.pool.has_room_again(self.backend);
        }
    }
}

/// Why no backend was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// No backend may be asked.
    NoneUsable,
    /// All that may be asked are at their bound, or the one that the client stays with is: what to
    /// wait for.
    AllFull(WaitsFor),
}

/// What a decision takes from a pool: all that a request needs, or nothing if it is only explained.
pub(super) trait Picking {
    type Taken;

    /// The algorithm's choice.
    fn balance(
        &mut self,
        view: &PoolView,
        usable: BackendSet,
        wanted: &Wanted<'_>,
    ) -> Option<BackendId>;

    /// One of the requests that a backend may have in flight; none if it is at its bound.
    fn slot(&mut self, view: &PoolView, id: BackendId) -> Option<Permit>;

    /// The trial permit that a backend requires; none if it requires one and none is left.
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&mut self, view: &PoolView, id: BackendId, now: Tick) -> Option<Option<Trial>>;

    /// Decided.
    fn take(
        &mut self,
        view: &PoolView,
        id: BackendId,
        permits: (Permit, Option<Trial>),
    ) -> Result<Self::Taken, NoPick>;

    /// Of these only those are left.
    #[inline(always)]
    fn narrows(&mut self, _from: BackendSet, _to: BackendSet, _why: LeftOut) {}

    /// What is decided here, is decided so.
    #[inline(always)]
    fn goes(&mut self, _how: Way) {}
}

/// Why a backend that may be asked is not considered for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// It refused a connection a moment ago.
    Refuses,
    /// It is on trial, and this request is better no trial.
    OnTrial,
    /// Requests wait for it.
    IsWaitedFor,
    /// It has as many requests in flight as it may.
    Full,
    /// As many requests try it as may.
    IsTried,
    /// Its weight is 0.
    NoWeight,
    /// It is a backup, and others can be asked.
    Backup,
}

/// How a decision comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the algorithm.
    Balanced,
    /// The client's cookie names it.
    Pinned,
    /// There is no other: it is left out for its answers alone.
    LastResort,
}

/// A decision for a request that is served.
struct Serving;

impl Picking for Serving {
    type Taken = Pick;

    #[inline(always)]
    fn balance(
        &mut self,
        view: &PoolView,
        usable: BackendSet,
        wanted: &Wanted<'_>,
    ) -> Option<BackendId> {
        view.balance(&mut view.core.balancer.borrow_mut(), usable, wanted)
    }

    #[inline(always)]
    fn slot(&mut self, view: &PoolView, id: BackendId) -> Option<Permit> {
        view.slot(id)
    }

    #[inline(always)]
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&mut self, view: &PoolView, id: BackendId, now: Tick) -> Option<Option<Trial>> {
        view.trial(id, now)
    }

    #[inline(always)]
    fn take(
        &mut self,
        view: &PoolView,
        id: BackendId,
        (slot, trial): (Permit, Option<Trial>),
    ) -> Result<Pick, NoPick> {
        view.begin(id, slot, trial)
    }
}

impl PoolView {
    /// A backend to ask that is not among those tried; one that refuses connections only if there
    /// is no other. It has one more request in flight from here on.
    #[inline]
    pub(crate) fn pick(&self, wanted: &Wanted<'_>) -> Result<Pick, NoPick> {
        self.decide(wanted, &mut Serving)
    }

    /// The decision, for whatever it is.
    #[inline(always)]
    pub(super) fn decide<P: Picking>(
        &self,
        wanted: &Wanted<'_>,
        picking: &mut P,
    ) -> Result<P::Taken, NoPick> {
        let core = &*self.core;
        if let Some(news) = core.state.published.after(core.eligible.epoch()) {
            core.learn(news, wanted.now);
        }
        if self.needs.in_flight && core.merge_due.get().is_none_or(|due| wanted.now >= due) {
            core.merge(wanted.now);
        }
        let usable = core.eligible.usable() & !*wanted.tried;
        if self.is_plain() && wanted.pinned.is_none() {
            let candidates = self.without_refusing(usable, wanted);
            picking.narrows(usable, candidates, LeftOut::Refuses);
            let picked = picking.balance(self, candidates, wanted);
            let Some(backend) = picked else { return self.pick_last_resort(wanted, picking) };
            return picking.take(self, backend, (Permit::NONE, None));
        }
        match self.pick_with_permits(wanted, usable, picking) {
            Err(NoPick::NoneUsable) => self.pick_last_resort(wanted, picking),
            picked => picked,
        }
    }

    /// Without those that refuse connections, if that leaves any.
    #[inline]
    fn without_refusing(&self, usable: BackendSet, wanted: &Wanted<'_>) -> BackendSet {
        self.core.eligible.without_refusing(usable, self.weights.taking(), wanted.now)
    }

    /// One more request is in flight there.
    #[inline]
    fn begin(&self, id: BackendId, slot: Permit, trial: Option<Trial>) -> Result<Pick, NoPick> {
        let at = Rc::clone(self.backends.get(id).ok_or(NoPick::NoneUsable)?);
        self.core.begin(id);
        Ok(Pick { pool: Rc::clone(&self.core), at, backend: id, slot, trial, waits: true })
    }

    /// One that is left out for its answers alone, as this request has no other left.
    #[cold]
    fn pick_last_resort<P: Picking>(
        &self,
        wanted: &Wanted<'_>,
        picking: &mut P,
    ) -> Result<P::Taken, NoPick> {
        let spare = self.core.eligible.spare() & !*wanted.tried;
        let candidates = self.without_refusing(spare, wanted);
        picking.narrows(spare, candidates, LeftOut::Refuses);
        let id = picking.balance(self, candidates, wanted).ok_or(NoPick::NoneUsable)?;
        let slot = picking.slot(self, id).ok_or(NoPick::NoneUsable)?;
        picking.goes(Way::LastResort);
        picking.take(self, id, (slot, None))
    }

    /// Whether a pick needs no permit of any kind.
    #[inline]
    fn is_plain(&self) -> bool {
        !self.core.eligible.has_trials() && self.slots.is_empty()
    }

    /// Like `pick`, if a backend is on trial, is bounded or has answered this client before.
    #[cold]
    fn pick_with_permits<P: Picking>(
        &self,
        wanted: &Wanted<'_>,
        usable: BackendSet,
        picking: &mut P,
    ) -> Result<P::Taken, NoPick> {
        let eligible = &self.core.eligible;
        let is_long = |since| wanted.now >= since + TRIALS_AVOIDED;
        let long_awaited = eligible.trials_since().is_none_or(is_long);
        let has_other = !(usable & *self.weights.taking()).is_empty();
        let trying = !wanted.avoids_trials || !has_other || long_awaited;
        let trials = eligible.on_trial() & !*wanted.tried;
        let on_trial = if trying { trials } else { BackendSet::EMPTY };
        picking.narrows(trials, on_trial, LeftOut::OnTrial);
        let mut candidates = self.without_refusing(usable | on_trial, wanted);
        picking.narrows(usable | on_trial, candidates, LeftOut::Refuses);
        let mut no_pick = NoPick::NoneUsable;
        let mut pinned = wanted.pinned.filter(|id| candidates.contains(*id));
        // What the client has there is worth waiting for.
        let sticky = pinned.filter(|_| self.places.is_some());
        let any = if wanted.tried.is_empty() { WaitsFor::Any } else { WaitsFor::Untried };
        if wanted.since.is_none() && self.places.is_some() {
            let kept = self.core.queue.waited_for();
            let free = candidates & !kept;
            picking.narrows(candidates, free, LeftOut::IsWaitedFor);
            if !kept.is_empty() && (free & *self.weights.taking()).is_empty() {
                return Err(NoPick::AllFull(sticky.map_or(any, WaitsFor::Sticky)));
            }
            candidates = free;
            pinned = pinned.filter(|id| free.contains(*id));
        }
        loop {
            let is_pinned = pinned.is_some();
            let picked = pinned.take().or_else(|| picking.balance(self, candidates, wanted));
            let Some(id) = picked else { return Err(no_pick) };
            let before = candidates;
            candidates.remove(id);
            let Some(slot) = self.slot_for(id, wanted, picking) else {
                picking.narrows(before, candidates, LeftOut::Full);
                if let Some(sticky) = sticky.filter(|_| is_pinned) {
                    return Err(NoPick::AllFull(WaitsFor::Sticky(sticky)));
                }
                no_pick = NoPick::AllFull(any);
                continue;
            };
            let Some(trial) = picking.trial(self, id, wanted.now) else {
                picking.narrows(before, candidates, LeftOut::IsTried);
                continue;
            };
            if is_pinned {
                picking.goes(Way::Pinned);
            }
            return picking.take(self, id, (slot, trial));
        }
    }

    /// The same backend once more, with the permits that were not returned.
    pub(crate) fn pick_again(&self, mut pick: Pick, now: Tick) -> Option<Pick> {
        pick.trial = self.trial(pick.backend, now)?;
        Some(pick)
    }

    /// The trial permit that a backend requires; none if it requires one and none is left.
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&self, id: BackendId, now: Tick) -> Option<Option<Trial>> {
        if self.core.eligible.on_trial().contains(id) {
            self.core.state.trials.take(id, now).map(Some)
        } else {
            Some(None)
        }
    }

    /// Like `slot`; none if it is left to the requests that stay with the backend.
    fn slot_for<P: Picking>(
        &self,
        id: BackendId,
        wanted: &Wanted<'_>,
        picking: &mut P,
    ) -> Option<Permit> {
        let is_kept = self.places.is_some() && self.core.queue.keeps(id, wanted.since);
        if is_kept { None } else { picking.slot(self, id) }
    }

    /// Whether a backend may have one more request in flight, by the newest plan that names it.
    pub(super) fn has_slot(&self, id: BackendId) -> bool {
        let of_own_plan = || self.slots.get(id).is_none_or(Permits::has_room);
        self.core.has_slot(id).unwrap_or_else(of_own_plan)
    }

    /// One of the requests that a backend may have in flight, by the newest plan that names it;
    /// none if it is at its bound.
    fn slot(&self, id: BackendId) -> Option<Permit> {
        let of_own_plan = || self.slots.get(id).map_or(Some(Permit::NONE), Permits::take);
        self.core.slot(id).unwrap_or_else(of_own_plan)
    }

    /// The algorithm's choice.
    #[inline]
    pub(super) fn balance(
        &self,
        balancer: &mut Balancer,
        usable: BackendSet,
        wanted: &Wanted<'_>,
    ) -> Option<BackendId> {
        let candidates = Candidates {
            extra: &[],
            usable: &usable,
            weights: &self.weights,
            in_flight: &self.core.in_flight.borrow(),
            now: wanted.now,
            key: wanted.key,
        };
        balancer.pick(&candidates)
    }
}
