//! The state of a pool that a core keeps from plan to plan.
//!
//! It lives as long as anything on this core needs it: a plan that names the pool, a request in
//! flight, a tunnel. `arrange` takes over the limits and the algorithm of a new plan; everything
//! else continues unchanged.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{Core, NextPool, eligible::Eligible, queue::Queue};
use crate::base::{
    backend_set::BackendSet,
    endpoint::Endpoint,
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::conns::BackendConns;
use crate::plan::{Backend, Pool, Table};
use crate::policy::balance::{Balancer, Needs, Step};
use crate::shared::{
    permits::{Permit, Permits},
    pool::PoolState,
    standing::Publication,
};

/// The state of a pool that a core keeps.
pub(crate) struct PoolCore {
    pub(crate) id: PoolId,
    pub(super) core: Rc<Core>,
    pub(in super::super) state: Arc<PoolState>,
    /// The backends that this core can ask.
    pub(super) eligible: Eligible,
    pub(super) balancer: RefCell<Balancer>,
    /// Requests in flight in the whole process: as of the last merge, and since then by `step`.
    /// Kept only if the algorithm needs it.
    pub(super) in_flight: RefCell<Vec<Cell<u32>>>,
    pub(super) step: Cell<Step>,
    /// When they are merged again; none = at once.
    pub(super) merge_due: Cell<Option<Tick>>,
    pub(in super::super) queue: Queue,
    /// What the newest plan requires here.
    pub(super) needs: Cell<Needs>,
    /// When each backend was taken out last, as a count of `Core::losses`; 0 = never.
    lost_at: RefCell<Vec<u64>>,
    /// How old merged figures may become.
    pub(super) merged_age_max: Cell<Duration>,
    /// What each backend of the newest plan may have in flight, under whatever plan.
    slots: RefCell<Rc<Table<BackendId, Permits>>>,
}

/// The state of a backend that a core keeps. A plan's view holds those that the plan names.
pub(crate) struct BackendCore {
    pub(crate) conns: RefCell<BackendConns>,
    /// The value of Host, if the pool sends the backend's own.
    pub(super) authority: String,
    /// When an answer of it was timed last.
    pub(super) timed_at: Cell<Option<Tick>>,
}

impl BackendCore {
    pub(super) fn new(
        of: (PoolId, BackendId),
        (pool, backend): (&Pool, &Backend),
        core: &Core,
    ) -> Rc<BackendCore> {
        let conns = BackendConns::new(
            (of, &*backend.host()),
            pool.connections,
            core.index,
            Rc::clone(&core.means),
        );
        let (conns, authority) = (RefCell::new(conns), backend.authority());
        Rc::new(BackendCore { conns, authority, timed_at: Cell::new(None) })
    }
}

impl PoolCore {
    /// For a pool that is new to this core; no backend has an address yet.
    pub(super) fn new(pool: &Pool, next: &NextPool, id: PoolId, core: &Rc<Core>) -> Rc<PoolCore> {
        let cores = core.cores.get();
        let state = Arc::clone(&next.state);
        Rc::new(PoolCore {
            id,
            core: Rc::clone(core),
            eligible: Eligible::new(),
            balancer: RefCell::new(Balancer::new(pool, &next.prepared, core.index, cores)),
            in_flight: RefCell::default(),
            step: Cell::new(Step::new(cores)),
            merge_due: Cell::new(None),
            queue: Queue::new(id, Rc::clone(core), Arc::clone(&state)),
            state,
            needs: Cell::default(),
            lost_at: RefCell::default(),
            merged_age_max: Cell::default(),
            slots: RefCell::default(),
        })
    }

    /// Applies what this plan says of the pool from now on.
    pub(super) fn arrange(&self, pool: &Pool, needs: Needs, slots: &Rc<Table<BackendId, Permits>>) {
        let span = pool.backends.span();
        let mut in_flight = self.in_flight.borrow_mut();
        if in_flight.len() < span {
            in_flight.resize_with(span, Cell::default);
        }
        self.needs.set(needs);
        let cores = self.core.cores.get();
        self.step.set(Step::new(cores));
        self.merged_age_max.set(needs.merged_age_max(cores, pool.backends.len()));
        self.merge_due.set(None);
        self.slots.replace(Rc::clone(slots));
        let may_wait = may_wait(pool);
        self.queue.arrange(may_wait, may_wait && pool.sticky.is_some());
        // There may be more room now for waiting requests.
        self.queue.look_around(self.eligible.can_be_asked());
    }

    /// A backend has these addresses from now on; without any it cannot be asked.
    pub(super) fn move_to(&self, id: BackendId, at: &BackendCore, addresses: &[Endpoint]) {
        at.conns.borrow_mut().move_to(addresses);
        self.eligible.move_to(id, !addresses.is_empty());
    }

    /// A backend refused a connection a moment ago.
    #[cfg(test)]
    pub(in super::super) fn was_refused(&self, id: BackendId) {
        self.eligible.refused(id, Tick::from_millis(1));
    }

    /// Takes over what the health thread has published.
    #[cold]
    pub(super) fn learn(&self, news: Publication, now: Tick) {
        let Some((returned, lost)) = self.eligible.learn(news, now) else { return };
        for id in returned.iter() {
            self.balancer.borrow_mut().returned(id, now);
        }
        if !lost.is_empty() {
            self.lose(lost);
        }
        self.queue.look_around(self.eligible.can_be_asked());
    }

    /// Learns what the health thread has published since.
    pub(in super::super) fn hear(&self, now: Tick) {
        if let Some(news) = self.state.published.after(self.eligible.epoch()) {
            self.learn(news, now);
        }
    }

    fn lose(&self, lost: BackendSet) {
        let count = self.core.losses.get() + 1;
        self.core.losses.set(count);
        let mut lost_at = self.lost_at.borrow_mut();
        for id in lost.iter() {
            if lost_at.len() <= id.index() {
                lost_at.resize(id.index() + 1, 0);
            }
            if let Some(at) = lost_at.get_mut(id.index()) {
                *at = count;
            }
        }
    }

    /// The backends that were taken out, if there are any whose requests were not called yet.
    pub(in super::super) fn lost(&self) -> Option<(PoolId, BackendSet)> {
        let lost = self.eligible.take_lost();
        (!lost.is_empty()).then_some((self.id, lost))
    }

    /// Whether there are any such.
    pub(in super::super) fn has_lost(&self) -> bool {
        self.eligible.has_lost()
    }

    /// After how long a second copy of a request is sent at present, if that is known.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        self.state.hedge_after()
    }

    /// The backends that have answered nobody for suspiciously long.
    pub(crate) fn silent(&self) -> BackendSet {
        self.eligible.silent()
    }

    /// Whether a backend was taken out since this count of `Core::losses`.
    pub(crate) fn is_lost_since(&self, id: BackendId, count: u64) -> bool {
        self.lost_at.borrow().get(id.index()).is_some_and(|at| *at > count)
    }

    /// A waiting request has left the queue, or another core has made room: any room goes to the
    /// requests that wait.
    pub(crate) fn offers_room(&self) {
        let who = self.eligible.can_be_asked();
        if who.is_empty() || who.iter().any(|id| self.has_room(id)) {
            self.queue.offer(|| self.rooms());
        }
    }

    /// A backend has room again.
    pub(super) fn has_room_again(&self, id: BackendId) {
        self.queue.room(Some(id));
    }

    /// The backends that can be asked and have room, whichever requests it is left to.
    pub(in super::super) fn rooms(&self) -> BackendSet {
        let who = self.eligible.can_be_asked();
        who.iter().filter(|id| self.has_room(*id)).collect()
    }

    fn has_room(&self, id: BackendId) -> bool {
        self.slots.borrow().get(id).is_none_or(Permits::has_room)
    }

    /// One of the permits of a backend by the newest plan; no such permits if that does not name
    /// it.
    #[allow(clippy::option_option, reason = "it has no permits, or none is left")]
    pub(super) fn slot(&self, id: BackendId) -> Option<Option<Permit>> {
        self.slots.borrow().get(id).map(Permits::take)
    }

    /// Whether one of these permits is left.
    pub(super) fn has_slot(&self, id: BackendId) -> Option<bool> {
        self.slots.borrow().get(id).map(Permits::has_room)
    }

    /// Checks the requests that wait on this core.
    pub(in super::super) fn look_after_queue(&self, now: Tick) {
        self.queue.look_after(now, self.eligible.can_be_asked());
    }
}

/// Whether requests may wait in front of a pool: if nothing has a bound there is nothing to wait
/// for.
pub(super) fn may_wait(pool: &Pool) -> bool {
    pool.queue.size > 0 && is_bounded(pool)
}

/// Whether any backend has a bound on its requests in flight.
pub(super) fn is_bounded(pool: &Pool) -> bool {
    pool.backends.values().any(|backend| backend.in_flight_max > 0)
}
