//! One pick: a backend for a request, with what it may be asked with.
//!
//! Most picks need no permit, and those do no more than ask the algorithm. Whoever is picked has
//! one request more in flight at once, so that no two picks of a core see the same load.

use std::{rc::Rc, time::Duration};

use super::{InFlight, InForce, PoolView, Queue, WaitsFor};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};
use crate::policy::balance::Candidates;
use crate::shared::{permits::Permit, trials::Trial};

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

/// Who was picked.
pub(crate) struct Picked {
    pub(crate) in_flight: InFlight,
    /// It is on trial: what comes of this request decides.
    pub(crate) trial: Option<Trial>,
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
    pub(crate) fn pick(
        &self,
        in_force: &Rc<InForce>,
        wanted: &Wanted<'_>,
    ) -> Result<Picked, Nobody> {
        if let Some(news) = self.shared.published.after(self.standing.epoch()) {
            self.learn(news, wanted.now);
        }
        if self.needs.in_flight && self.merge_due.get().is_none_or(|due| wanted.now >= due) {
            self.merge(wanted.now);
        }
        let usable = self.standing.usable() & !*wanted.tried;
        if self.is_plain() && wanted.pinned.is_none() {
            let picked = self.balance(self.standing.calm(usable, wanted.now), wanted);
            let Some(backend) = picked else { return self.pick_spare(in_force, wanted) };
            let in_flight = InFlight::begin(in_force, self.id, backend, Permit::NONE);
            return Ok(Picked { in_flight, trial: None });
        }
        match self.pick_with_permits(in_force, wanted, usable) {
            Err(Nobody::Usable) => self.pick_spare(in_force, wanted),
            picked => picked,
        }
    }

    /// One who is left out for its answers alone, as this request has nobody else left.
    #[cold]
    fn pick_spare(&self, in_force: &Rc<InForce>, wanted: &Wanted<'_>) -> Result<Picked, Nobody> {
        let spare = self.standing.spare() & !*wanted.tried;
        let id =
            self.balance(self.standing.calm(spare, wanted.now), wanted).ok_or(Nobody::Usable)?;
        let slot = self.slot(id).ok_or(Nobody::Usable)?;
        let in_flight = InFlight::begin(in_force, self.id, id, slot);
        Ok(Picked { in_flight, trial: None })
    }

    /// Whether a pick needs no permit of any kind.
    #[inline]
    fn is_plain(&self) -> bool {
        !self.standing.has_trials() && self.shared.slots.is_empty()
    }

    /// As `pick`, where somebody is on trial, is bounded or has answered this client before.
    #[cold]
    fn pick_with_permits(
        &self,
        in_force: &Rc<InForce>,
        wanted: &Wanted<'_>,
        usable: BackendSet,
    ) -> Result<Picked, Nobody> {
        let is_long = |since| wanted.now >= since + CAREFUL;
        let long_awaited = self.standing.trials_since().is_none_or(is_long);
        let trying = !wanted.careful || usable.is_empty() || long_awaited;
        let on_trial =
            if trying { self.standing.on_trial() & !*wanted.tried } else { BackendSet::EMPTY };
        let mut candidates = self.standing.calm(usable | on_trial, wanted.now);
        let mut nobody = Nobody::Usable;
        let mut pinned = wanted.pinned.filter(|id| candidates.contains(*id));
        // What the client has there is worth waiting for.
        let home = pinned.filter(|_| self.queue.is_some());
        let any = if wanted.tried.is_empty() { WaitsFor::Anybody } else { WaitsFor::Untried };
        if wanted.since.is_none() && self.queue.as_ref().is_some_and(Queue::holds_up) {
            return Err(Nobody::Free(home.map_or(any, WaitsFor::Home)));
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
            let in_flight = InFlight::begin(in_force, self.id, id, slot);
            return Ok(Picked { in_flight, trial });
        }
    }

    /// The same backend once more, in the place that was not given back.
    pub(crate) fn pick_again(&self, in_flight: InFlight, now: Tick) -> Option<Picked> {
        let trial = self.trial(in_flight.backend(), now)?;
        Some(Picked { in_flight, trial })
    }

    /// The permit that a backend can be asked with only; none where it needs one and none is left.
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&self, id: BackendId, now: Tick) -> Option<Option<Trial>> {
        if self.standing.on_trial().contains(id) {
            self.backends.trials.take(self.id, id, now).map(Some)
        } else {
            Some(None)
        }
    }

    /// As `slot`; none where it is left to those who stay with the backend.
    fn slot_for(&self, id: BackendId, wanted: &Wanted<'_>) -> Option<Permit> {
        let keeps = |queue: &Queue| queue.keeps(id, wanted.since);
        if self.queue.as_ref().is_some_and(keeps) { None } else { self.slot(id) }
    }

    /// One of what a backend may have in flight; none where it has that.
    fn slot(&self, id: BackendId) -> Option<Permit> {
        self.shared.slots.get(id.index()).map_or(Some(Permit::NONE), |slots| slots.take())
    }

    /// The algorithm's choice.
    #[inline]
    fn balance(&self, usable: BackendSet, wanted: &Wanted<'_>) -> Option<BackendId> {
        let candidates = Candidates {
            extra: &[],
            usable: &usable,
            weights: &self.weights,
            in_flight: &self.in_flight,
            now: wanted.now,
            key: wanted.key,
        };
        self.balancer.borrow_mut().pick(&candidates)
    }
}
