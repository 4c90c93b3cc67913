//! One pick: a backend for a request, with what it may be asked with.
//!
//! Most picks need no permit, and those do no more than ask the algorithm. Whoever is picked has
//! one request more in flight at once, so that no two picks of a core see the same load.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{PoolCore, PoolView, core::BackendCore, queue::WaitsFor};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};
use crate::conns::BackendConns;
use crate::policy::balance::Candidates;
use crate::shared::{
    counters::Counter,
    permits::{Permit, Permits},
    trials::Trial,
};

/// For how long only requests that can be asked again and are answered soon are trials.
/// Where none of those comes, whoever is left out would stay so for ever.
const CAREFUL: Duration = Duration::from_secs(1);

/// What a request wants of a pool.
pub(crate) struct Wanted<'a> {
    /// Who was asked already.
    pub(crate) tried: &'a BackendSet,
    /// What the pool balances by, where it does.
    pub(crate) key: Option<u64>,
    /// Who has answered this client before, where that matters.
    pub(crate) pinned: Option<BackendId>,
    /// Whether a failure would cost it its answer, as it cannot be asked again, or its client may
    /// take its time with a body: then it is no trial, unless there is nobody else or nothing else
    /// comes that could be one.
    pub(crate) careful: bool,
    /// Since when it waits or has waited in line, where those who wait go before it no more; none =
    /// not at all.
    pub(crate) since: Option<Tick>,
    pub(crate) now: Tick,
}

/// A backend that was picked, and all that asking it takes: one request more in flight, counted
/// from the pick on; a permit, where the backend has a bound; another, where it is on trial. All of
/// it is given back when this is dropped, whichever way the request ended.
pub(crate) struct Pick {
    pool: Rc<PoolCore>,
    at: Rc<BackendCore>,
    backend: BackendId,
    /// One of the backend's `max-in-flight`.
    slot: Permit,
    /// It is on trial: what comes of this request decides.
    trial: Option<Trial>,
}

impl Pick {
    /// Which backend.
    #[inline]
    pub(crate) fn backend(&self) -> BackendId {
        self.backend
    }

    /// This core's connections to it.
    #[inline]
    pub(crate) fn conns(&self) -> &RefCell<BackendConns> {
        &self.at.conns
    }

    /// The permit of its trial, to be decided; none where it is not on trial, or that was done.
    #[inline]
    pub(crate) fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.pool.end(self.backend);
        self.pool.core.counters.sub(Counter::BackendInFlight, 1);
        self.trial = None;
        if self.slot.is_of_a_limit() {
            self.slot = Permit::NONE;
            self.pool.has_room_again(self.backend);
        }
    }
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Nobody may be asked.
    Usable,
    /// All who may be asked have as much in flight as they may have, or the one that the client
    /// stays with has: what to wait for.
    Free(WaitsFor),
}

impl PoolView {
    /// A backend to ask that is not among those tried; one that refuses connections only where
    /// there is no other. It has one request more in flight from here on.
    #[inline]
    pub(crate) fn pick(&self, wanted: &Wanted<'_>) -> Result<Pick, Nobody> {
        let core = &*self.core;
        if let Some(news) = core.state.published.after(core.eligible.epoch()) {
            core.learn(news, wanted.now);
        }
        if self.needs.in_flight && core.merge_due.get().is_none_or(|due| wanted.now >= due) {
            core.merge(wanted.now);
        }
        let usable = core.eligible.usable() & !*wanted.tried;
        if self.is_plain() && wanted.pinned.is_none() {
            let picked = self.balance(core.eligible.calm(usable, wanted.now), wanted);
            let Some(backend) = picked else { return self.pick_spare(wanted) };
            return self.begin(backend, Permit::NONE, None);
        }
        match self.pick_with_permits(wanted, usable) {
            Err(Nobody::Usable) => self.pick_spare(wanted),
            picked => picked,
        }
    }

    /// One request more is in flight there.
    #[inline]
    fn begin(&self, id: BackendId, slot: Permit, trial: Option<Trial>) -> Result<Pick, Nobody> {
        let at = Rc::clone(self.backends.get(id).ok_or(Nobody::Usable)?);
        self.core.begin(id);
        self.core.core.counters.add(Counter::BackendInFlight, 1);
        Ok(Pick { pool: Rc::clone(&self.core), at, backend: id, slot, trial })
    }

    /// One that is left out for its answers alone, as this request has no other left.
    #[cold]
    fn pick_spare(&self, wanted: &Wanted<'_>) -> Result<Pick, Nobody> {
        let eligible = &self.core.eligible;
        let spare = eligible.spare() & !*wanted.tried;
        let id = self.balance(eligible.calm(spare, wanted.now), wanted).ok_or(Nobody::Usable)?;
        let slot = self.slot(id).ok_or(Nobody::Usable)?;
        self.begin(id, slot, None)
    }

    /// Whether a pick needs no permit of any kind.
    #[inline]
    fn is_plain(&self) -> bool {
        !self.core.eligible.has_trials() && self.slots.is_empty()
    }

    /// As `pick`, where a backend is on trial, is bounded or has answered this client before.
    #[cold]
    fn pick_with_permits(&self, wanted: &Wanted<'_>, usable: BackendSet) -> Result<Pick, Nobody> {
        let eligible = &self.core.eligible;
        let is_long = |since| wanted.now >= since + CAREFUL;
        let long_awaited = eligible.trials_since().is_none_or(is_long);
        let trying = !wanted.careful || usable.is_empty() || long_awaited;
        let on_trial =
            if trying { eligible.on_trial() & !*wanted.tried } else { BackendSet::EMPTY };
        let mut candidates = eligible.calm(usable | on_trial, wanted.now);
        let mut nobody = Nobody::Usable;
        let mut pinned = wanted.pinned.filter(|id| candidates.contains(*id));
        // What the client has there is worth waiting for.
        let home = pinned.filter(|_| self.places.is_some());
        let any = if wanted.tried.is_empty() { WaitsFor::Anybody } else { WaitsFor::Untried };
        if wanted.since.is_none() && self.places.is_some() {
            let kept = self.core.queue.waited_for();
            let free = candidates & !kept;
            if !kept.is_empty() && (free & *self.weights.taking()).is_empty() {
                return Err(Nobody::Free(home.map_or(any, WaitsFor::Home)));
            }
            candidates = free;
            pinned = pinned.filter(|id| free.contains(*id));
        }
        loop {
            let is_pinned = pinned.is_some();
            let picked = pinned.take().or_else(|| self.balance(candidates, wanted));
            let Some(id) = picked else { return Err(nobody) };
            candidates.remove(id);
            let Some(slot) = self.slot_for(id, wanted) else {
                if let Some(home) = home.filter(|_| is_pinned) {
                    return Err(Nobody::Free(WaitsFor::Home(home)));
                }
                nobody = Nobody::Free(any);
                continue;
            };
            let Some(trial) = self.trial(id, wanted.now) else { continue };
            return self.begin(id, slot, trial);
        }
    }

    /// The same backend once more, in the place that was not given back.
    pub(crate) fn pick_again(&self, mut pick: Pick, now: Tick) -> Option<Pick> {
        pick.trial = self.trial(pick.backend, now)?;
        Some(pick)
    }

    /// The permit that a backend can be asked with only; none where it needs one and none is left.
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&self, id: BackendId, now: Tick) -> Option<Option<Trial>> {
        if self.core.eligible.on_trial().contains(id) {
            self.core.state.trials.take(id, now).map(Some)
        } else {
            Some(None)
        }
    }

    /// As `slot`; none where it is left to those who stay with the backend.
    fn slot_for(&self, id: BackendId, wanted: &Wanted<'_>) -> Option<Permit> {
        let is_kept = self.places.is_some() && self.core.queue.keeps(id, wanted.since);
        if is_kept { None } else { self.slot(id) }
    }

    /// One of what a backend may have in flight, by the newest plan that says so; none where it has
    /// that.
    fn slot(&self, id: BackendId) -> Option<Permit> {
        let of_own_plan = || self.slots.get(id).map_or(Some(Permit::NONE), Permits::take);
        self.core.slot(id).unwrap_or_else(of_own_plan)
    }

    /// The algorithm's choice.
    #[inline]
    fn balance(&self, usable: BackendSet, wanted: &Wanted<'_>) -> Option<BackendId> {
        let candidates = Candidates {
            extra: &[],
            usable: &usable,
            weights: &self.weights,
            in_flight: &self.core.in_flight.borrow(),
            now: wanted.now,
            key: wanted.key,
        };
        self.core.balancer.borrow_mut().pick(&candidates)
    }
}
