//! One core's view of a pool under one plan.
//!
//! Immutable: a new plan makes a new view, which takes over the pool's core and the backends that
//! stay. Connections of removed backends are closed at once if idle, otherwise when the last
//! request that uses them has ended.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{
    Core, NextPool, PoolCore,
    core::{BackendCore, is_bounded, may_wait},
};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::conns::BackendConns;
use crate::http::fault::Cause;
use crate::observe::reports::CoreReporter;
use crate::plan::{Backend, Pool, RetryBudget, Share, Table};
use crate::policy::{
    balance::{Needs, Weights},
    budget,
    sticky::Pins,
};
use crate::shared::{outcomes::Outcomes, permits::Permits};

/// Backends that are looked for with a connection, and looked at: each may take a system call.
const ALIVE_MAX: usize = 8;
const LOOKED_AT_MAX: usize = 128;

/// So many backends that one request has found gone are no accident of one of them.
const SEVERAL: usize = 2;

/// What one plan says of a pool.
pub(crate) struct PoolView {
    pub(crate) core: Rc<PoolCore>,
    pub(super) weights: Weights,
    pub(super) needs: Needs,
    /// What each backend may have in flight; empty if none has a bound.
    pub(super) slots: Rc<Table<BackendId, Permits>>,
    /// The places of waiting requests; none if none may wait.
    pub(in super::super) places: Option<Permits>,
    /// Whether failures of its backends have any effect.
    is_watched: bool,
    pins: Option<Arc<Pins>>,
    pub(super) backends: Table<BackendId, Rc<BackendCore>>,
}

impl PoolView {
    /// A view of a pool of the next plan. `before` are the earlier views of it, the newest first.
    pub(in super::super) fn new<'a>(
        pool: &Pool,
        next: &NextPool,
        (id, core): (PoolId, &Rc<Core>),
        before: impl Iterator<Item = &'a Rc<PoolView>> + Clone,
        now: Tick,
    ) -> Rc<PoolView> {
        let weights = Weights::of(&pool.backends);
        let newest = before.clone().next();
        let pool_core = match newest {
            Some(view) => {
                let is_same = view.weights.each() == weights.each();
                let of_core = (core.index, core.cores.get());
                let mut balancer = view.core.balancer.borrow_mut();
                balancer.replan(pool, &next.prepared, of_core, is_same);
                Rc::clone(&view.core)
            }
            None => PoolCore::new(pool, next, id, core),
        };
        let needs = Needs::of(pool);
        let slots = slots(pool, next);
        pool_core.arrange(pool, needs, &slots);
        let known = |id: BackendId| before.clone().find_map(|view| view.backends.get(id));
        let backends = pool.backends.iter().map(|(id, backend)| {
            let at = match known(id) {
                Some(at) => Rc::clone(at),
                None => arrived(&pool_core, (pool, id, backend), newest.is_some(), now),
            };
            let mut conns = at.conns.borrow_mut();
            conns.set_options(pool.connections);
            conns.speak(pool.protocol, pool.tls.as_ref(), pool.send_proxy.is_some());
            drop(conns);
            (id, at)
        });
        let backends: Table<_, _> = backends.collect();
        for (id, gone) in newest.into_iter().flat_map(|view| &view.backends) {
            if backends.get(id).is_none() {
                gone.conns.borrow_mut().keep_none();
            }
        }
        Rc::new(PoolView {
            weights,
            needs,
            slots,
            places: may_wait(pool).then(|| next.state.queue.places(pool.queue.size)),
            is_watched: pool.passive.failures_max > 0 || pool.breaker.is_some(),
            pins: next.pins.clone(),
            backends,
            core: pool_core,
        })
    }

    /// Whether this view fits an unchanged pool of the next plan: it has the same shared state, and
    /// its cookies are signed with the same secrets.
    pub(in super::super) fn is_of(&self, next: &NextPool) -> bool {
        let same_pins = match (&self.pins, &next.pins) {
            (None, None) => true,
            (Some(pins), Some(next)) => Arc::ptr_eq(pins, next),
            (None, Some(_)) | (Some(_), None) => false,
        };
        same_pins && Arc::ptr_eq(&self.core.state, &next.state)
    }

    /// The next plan does not have this pool.
    pub(in super::super) fn leaves(&self) {
        self.backends.values().for_each(|at| at.conns.borrow_mut().keep_none());
    }

    /// A backend has these addresses from now on; without any it cannot be asked.
    #[cfg(test)]
    pub(crate) fn move_to(&self, id: BackendId, addresses: &[crate::base::endpoint::Endpoint]) {
        if let Some(at) = self.backends.get(id) {
            self.core.move_to(id, at, addresses);
        }
    }

    /// Closes idle connections whose time is over.
    pub(crate) fn expire(&self, now: Tick) {
        self.all_conns().for_each(|conns| conns.borrow_mut().expire(now));
    }

    /// This core's connections to each backend.
    pub(crate) fn all_conns(&self) -> impl Iterator<Item = &RefCell<BackendConns>> {
        self.backends.values().map(|at| &at.conns)
    }

    /// This core's connections to one backend.
    #[cfg(test)]
    pub(crate) fn conns_of(&self, id: BackendId) -> &RefCell<BackendConns> {
        &self.backends.get(id).unwrap().conns
    }

    /// The backends, but for those tried, that are known to be there, as an idle connection to them
    /// is open, but no more than `ALIVE_MAX` of them. If there are none, or if two were found gone
    /// and others may be about to go, those of them that have answered this core last: of several
    /// that go at one moment none has since.
    #[cold]
    pub(crate) fn alive(&self, now: Tick, tried: BackendSet) -> BackendSet {
        let alive = |(id, at): (BackendId, &Rc<BackendCore>)| {
            (!tried.contains(id) && at.conns.borrow_mut().is_open(now)).then_some(id)
        };
        // Those of one core do not all begin with the same.
        let begin = usize::try_from(now.millis()).unwrap_or_default() % self.backends.len().max(1);
        let (first, rest) = (self.backends.iter().skip(begin), self.backends.iter().take(begin));
        let open: BackendSet =
            first.chain(rest).take(LOOKED_AT_MAX).filter_map(alive).take(ALIVE_MAX).collect();
        if !open.is_empty() && tried.len() < SEVERAL {
            return open;
        }
        let among = |id| if open.is_empty() { !tried.contains(id) } else { open.contains(id) };
        let others = || self.backends.iter().filter(|(id, _)| among(*id));
        let answered = |at: &BackendCore| at.conns.borrow().answered();
        let last = others().filter_map(|(_, at)| answered(at)).max();
        let is_last = |at: &BackendCore| last.is_some() && answered(at) == last;
        let latest: BackendSet = others().filter(|(_, at)| is_last(at)).map(|(id, _)| id).collect();
        if latest.is_empty() { open } else { latest }
    }

    /// Closes all idle connections.
    pub(crate) fn close_idle(&self) {
        self.all_conns().for_each(|conns| conns.borrow_mut().clear());
    }

    /// A connection to a backend was made.
    pub(crate) fn reached(&self, events: &CoreReporter, id: BackendId) {
        events.reachable((self.core.id, id), &self.core.state.unreachable);
    }

    /// A backend refused a connection.
    pub(crate) fn not_reached(
        &self,
        events: &CoreReporter,
        (id, cause): (BackendId, Cause),
        why: Option<String>,
        now: Tick,
    ) {
        self.core.eligible.refused(id, now);
        events.unreachable((self.core.id, id), (cause, why), &self.core.state.unreachable);
    }

    /// What this pool's algorithm needs to know.
    #[inline]
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// The backends that take new traffic.
    pub(in super::super) fn taking(&self) -> BackendSet {
        *self.weights.taking()
    }

    /// Where failures are posted; none if they have no effect.
    pub(super) fn outcomes(&self) -> Option<&Outcomes> {
        self.is_watched.then_some(&self.core.core.process.outcomes)
    }

    /// Whether the pool's budget allows one more retry, which is then taken from it.
    pub(crate) fn may_ask_again(&self, plan: &Pool, now: Tick) -> bool {
        let Some(plan) = &plan.retry.budget else { return true };
        let state = &self.core.state;
        let left = &state.budget;
        let fresh =
            if budget::is_due(left.left(), now) { left.fresh(state.load.requests()) } else { 0 };
        left.take(|left| budget::take(plan, left, fresh, now))
    }

    /// Whether there may be a second copy of a request: within its share, and the retry budget.
    pub(crate) fn may_hedge(&self, plan: &Pool, max: Share, now: Tick) -> bool {
        let state = &self.core.state;
        let left = &state.hedges;
        let fresh =
            if budget::is_due(left.left(), now) { left.fresh(state.load.requests()) } else { 0 };
        let share = RetryBudget { ratio: max, per_second: 0 };
        left.take(|left| budget::take(&share, left, fresh, now)) && self.may_ask_again(plan, now)
    }

    /// Writes and reads the cookies of its clients; none if it is not sticky.
    #[inline]
    pub(crate) fn pins(&self) -> Option<&Pins> {
        self.pins.as_deref()
    }

    /// A backend's address in the form of Host.
    pub(crate) fn authority(&self, id: BackendId) -> &[u8] {
        self.backends.get(id).map_or(b"", |at| at.authority.as_bytes())
    }
}

/// A backend that is new to this core joins a pool.
fn arrived(
    core: &PoolCore,
    (pool, id, backend): (&Pool, BackendId, &Backend),
    is_later: bool,
    now: Tick,
) -> Rc<BackendCore> {
    let at = BackendCore::new((core.id, id), (pool, backend), &core.core);
    core.move_to(id, &at, &backend.address.known());
    if is_later {
        // What was known of the earlier backend in its seat does not apply to this one.
        core.balancer.borrow_mut().returned(id, now);
    }
    at
}

fn slots(pool: &Pool, next: &NextPool) -> Rc<Table<BackendId, Permits>> {
    if !is_bounded(pool) {
        return Rc::default();
    }
    let each = pool.backends.iter();
    Rc::new(each.map(|(id, it)| (id, next.state.slots(id, it.in_flight_max))).collect())
}
