//! This core's view of a pool: who can be asked, the algorithm, the connection pools.
//!
//! Every concern about backends is a set of them, and a pick sees only what is left of all sets.
//! Nothing here decides; the algorithms stand in `policy`, connections are opened in `conns`, and
//! who is well is decided by the health thread: `learn` takes over what it has published. Here is
//! what a view is made of; `standing` holds the sets, `pick` asks for a backend, `load` counts.

mod load;
mod pick;
mod standing;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

pub(crate) use self::pick::{Nobody, Picked, Wanted};
use self::standing::Standing;
use super::{
    Common, InFlight, InForce, PoolShared,
    queue::{Queue, WaitsFor},
};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::conns::{BackendConns, Means};
use crate::plan::{self, Pool};
use crate::policy::{
    balance::{Balancer, Needs, Step, Weights},
    budget, resolve,
    sticky::Pins,
};
use crate::shared::{
    backends::Backends, load::Rows, outcomes::Outcomes, permits::Permits, standing::Publication,
    unreachable::Unreachable,
};

/// This core's view of a pool.
pub(crate) struct PoolView {
    id: PoolId,
    core_index: usize,
    /// Who this core can ask.
    standing: Standing,
    weights: Weights,
    balancer: RefCell<Balancer>,
    needs: Needs,
    conns: Vec<RefCell<BackendConns>>,
    /// Requests in flight in the whole process: as of the last merge, and from there on by `step`.
    /// Kept only where the algorithm needs it.
    in_flight: Vec<Cell<u32>>,
    step: Step,
    /// When they are merged again; none = at once.
    merge_due: Cell<Option<Tick>>,
    /// How old what a merge found may become.
    merged_age_max: Duration,
    /// What this core counts, for all to read.
    rows: Rows,
    /// What all cores count and know of all backends.
    backends: Backends,
    shared: PoolShared,
    /// Where failures are posted; none where nothing follows from them.
    outcomes: Option<Outcomes>,
    pub(super) queue: Option<Queue>,
    /// What Host is, where the pool sends the backend's own.
    authorities: Vec<String>,
}

impl PoolView {
    pub(crate) fn new(
        pool: &Pool,
        id: PoolId,
        (core_index, cores): (usize, usize),
        common: &Common,
        means: &Rc<Means>,
    ) -> Option<PoolView> {
        let shared = common.pools.get(id)?.clone();
        let each = || pool.backends.seats();
        let needs = Needs::of(pool);
        let view = PoolView {
            id,
            core_index,
            standing: Standing::new(pool.backends.span()),
            weights: Weights::of(&pool.backends),
            balancer: RefCell::new(Balancer::new(pool, &shared.prepared, core_index, cores)),
            needs,
            conns: each()
                .map(|_| BackendConns::new(pool.connections, core_index, Rc::clone(means)))
                .map(RefCell::new)
                .collect(),
            in_flight: each().map(|_| Cell::new(0)).collect(),
            step: Step::new(cores),
            merge_due: Cell::new(None),
            merged_age_max: needs.merged_age_max(cores, pool.backends.len()),
            rows: common.backends.load.rows(core_index, id),
            backends: common.backends.clone(),
            outcomes: is_watched(pool).then(|| common.outcomes.clone()),
            queue: shared.line.clone().map(|line| Queue::new(line, core_index)),
            shared,
            authorities: each()
                .map(|it| it.map(plan::Backend::authority).unwrap_or_default())
                .collect(),
        };
        for (id, backend) in &pool.backends {
            view.move_to(id, &resolve::known(&backend.address));
        }
        Some(view)
    }

    /// From now on a backend is at these addresses; without any it cannot be asked.
    pub(crate) fn move_to(&self, id: BackendId, addresses: &[SocketAddr]) {
        self.conns(id).borrow_mut().move_to(addresses);
        self.standing.move_to(id, !addresses.is_empty());
    }

    /// This core's connections to a backend.
    #[inline]
    pub(crate) fn conns(&self, id: BackendId) -> &RefCell<BackendConns> {
        &self.conns[id.index()]
    }

    /// Closes idle connections whose time is over.
    pub(crate) fn expire(&self, now: Tick) {
        self.conns.iter().for_each(|conns| conns.borrow_mut().expire(now));
    }

    /// This core's connections to each backend.
    pub(crate) fn all_conns(&self) -> impl Iterator<Item = &RefCell<BackendConns>> {
        self.conns.iter()
    }

    /// Closes all idle connections.
    pub(crate) fn close_idle(&self) {
        self.conns.iter().for_each(|conns| conns.borrow_mut().clear());
    }

    /// Which backends are known to be unreachable.
    pub(crate) fn unreachable(&self) -> &Unreachable {
        &self.shared.unreachable
    }

    /// Takes over what the health thread has published.
    #[cold]
    fn learn(&self, news: Publication, now: Tick) {
        let Some(returned) = self.standing.learn(news, now) else { return };
        for id in returned.iter() {
            self.balancer.borrow_mut().returned(id, now);
        }
        // Another core on which somebody waits finds it out by itself within a quarter of a second.
        let _ = self.call_next(None);
        self.call_the_lost();
    }

    /// What this pool's algorithm needs to know.
    #[inline]
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// Calls who waits first, now that there is room, or room at this backend; or says which other
    /// core to tell.
    pub(super) fn call_next(&self, at: Option<BackendId>) -> Option<usize> {
        self.queue.as_ref()?.call(at)
    }

    /// The same of those only who stay with this backend.
    pub(super) fn call_at_home(&self, id: BackendId) -> Option<usize> {
        self.queue.as_ref()?.call_at_home(id)
    }

    /// Calls those who wait for a backend that cannot be asked any more.
    fn call_the_lost(&self) {
        if let Some(queue) = self.queue.as_ref().filter(|queue| queue.has_homes()) {
            queue.call_all_but(self.standing.can_be_asked());
        }
    }

    /// Whether clients may wait for the backend that they stay with.
    pub(super) fn may_wait_at_home(&self) -> bool {
        self.queue.as_ref().is_some_and(Queue::has_homes)
    }

    /// Whether it is worth a look for whoever waits: there is room, or nobody to wait for.
    pub(super) fn has_news_for_the_queue(&self) -> bool {
        let who = self.standing.can_be_asked();
        who.is_empty() || who.iter().any(|id| self.has_room(id))
    }

    /// Who can be asked and has room, whoever it is left to.
    pub(super) fn rooms(&self) -> BackendSet {
        let mut rooms = self.standing.can_be_asked();
        for id in self.standing.can_be_asked().iter() {
            if !self.has_room(id) {
                rooms.remove(id);
            }
        }
        rooms
    }

    fn has_room(&self, id: BackendId) -> bool {
        self.shared.slots.get(id.index()).is_none_or(Permits::has_room)
    }

    /// Looks after who waits on this core.
    pub(super) fn look_after_queue(&self, now: Tick) {
        if let Some(queue) = self.queue.as_ref().filter(|queue| !queue.is_empty()) {
            queue.look_after(now);
            self.call_the_lost();
        }
    }

    /// Whether the pool's budget allows one more retry, which is then taken from it.
    pub(crate) fn may_ask_again(&self, plan: &Pool, now: Tick) -> bool {
        let (Some(left), Some(plan)) = (&self.shared.budget, &plan.retry.budget) else {
            return true;
        };
        let fresh = if budget::is_due(left.left(), now) {
            left.fresh(self.backends.load.requests(self.id))
        } else {
            0
        };
        left.take(|left| budget::take(plan, left, fresh, now))
    }

    /// Notes that a backend would not let us connect.
    pub(crate) fn refused(&self, id: BackendId, now: Tick) {
        self.standing.refused(id, now);
    }

    /// What writes and reads the cookies of its clients; none where it is not sticky.
    #[inline]
    pub(crate) fn pins(&self) -> Option<&Pins> {
        self.shared.pins.as_deref()
    }

    /// A backend's address as Host has it.
    pub(crate) fn authority(&self, id: BackendId) -> &[u8] {
        self.authorities[id.index()].as_bytes()
    }
}

/// Whether anything follows from failures of a pool's backends.
fn is_watched(pool: &Pool) -> bool {
    pool.passive.failures_max > 0 || pool.breaker.is_some()
}
