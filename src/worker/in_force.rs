//! A plan, and what one core made of it.

use std::{rc::Rc, sync::Arc};

use super::{Common, PoolView};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
};
use crate::conns::Means;
use crate::plan::{Plan, Table};
use crate::policy::route::Router;
use crate::shared::{bell::Rope, counters::Slab, rooms::Rooms};

/// A plan and what this worker made of it. Exchanges keep the one they began under.
pub(crate) struct InForce {
    pub(crate) plan: Arc<Plan>,
    pub(crate) router: Router,
    pub(crate) pools: Table<PoolId, PoolView>,
    /// The worker's.
    pub(super) counters: Arc<Slab>,
    rooms: Rooms,
    ropes: Arc<[Rope]>,
}

impl InForce {
    pub(super) fn new(common: &Common, core_index: usize, means: &Rc<Means>) -> InForce {
        let plan = Arc::clone(&common.plan);
        let of_core = (core_index, common.cores);
        let view = |(id, pool)| Some((id, PoolView::new(pool, id, of_core, common, means)?));
        let pools = plan.pools.iter().filter_map(view).collect();
        // The start has compiled every expression once: none can fail here.
        let router = Router::compile(&plan.routes).unwrap_or_default();
        let counters = Arc::clone(&means.counters);
        let (rooms, ropes) = (common.rooms.clone(), Arc::clone(&common.ropes));
        InForce { plan, router, pools, counters, rooms, ropes }
    }

    /// This worker's view of a pool.
    #[inline]
    pub(crate) fn pool(&self, id: PoolId) -> &PoolView {
        match self.pools.get(id) {
            Some(view) => view,
            None => unreachable!("an id of another plan"),
        }
    }

    /// Somebody waits no more in front of a pool, or another core has made room there: what room
    /// there is goes to who waits next.
    pub(crate) fn left_the_queue(&self, pool: PoolId) {
        let view = self.pool(pool);
        if !view.has_news_for_the_queue() {
            return;
        }
        let rooms = if view.may_wait_at_home() { view.rooms() } else { BackendSet::EMPTY };
        if rooms.is_empty() {
            self.made_room(pool, None);
        }
        rooms.iter().for_each(|id| self.made_room(pool, Some(id)));
    }

    /// A backend of a pool has room again, or this one: whoever waits first is called, here or on
    /// another core.
    pub(crate) fn made_room(&self, pool: PoolId, at: Option<BackendId>) {
        let view = self.pool(pool);
        if let Some(core) = view.call_next(at) {
            self.tell(core, pool);
        }
    }

    /// Somebody was called who can do nothing with the room that there is: it is for those who stay
    /// with its backend, whoever else has waited longer.
    pub(crate) fn passes_on(&self, pool: PoolId) {
        let view = self.pool(pool);
        if view.may_wait_at_home() {
            for id in view.rooms().iter() {
                if let Some(core) = view.call_at_home(id) {
                    self.tell(core, pool);
                }
            }
        }
    }

    /// Somebody waits for this backend behind others: where it has room, they are called, in case
    /// that they do not want it.
    pub(crate) fn waits_behind(&self, pool: PoolId, home: BackendId) {
        if self.pool(pool).rooms().contains(home) {
            self.made_room(pool, Some(home));
        }
    }

    /// Tells another core that there may be room; it looks for itself where.
    fn tell(&self, core: usize, pool: PoolId) {
        if self.rooms.tell(core, pool)
            && let Some(rope) = self.ropes.get(core)
        {
            rope.pull();
        }
    }

    /// What other cores have told this one of room since it looked last.
    pub(super) fn rooms_told(&self, core_index: usize) -> impl Iterator<Item = PoolId> {
        self.rooms.take(core_index).filter(|pool| self.pools.get(*pool).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::base::moment::Tick;
    use crate::plan::{BackendId, ListenerId};
    use crate::shared::{counters::Slab, permits::Permit};
    use crate::worker::{Admitted, InFlight, Own, Wanted, Worker};

    /// A plan whose names have kept their seats while others went: each table has holes.
    #[test]
    fn names_are_served_from_the_seats_that_they_have() {
        let text = r#"
            [listener.web]
            bind = "127.0.0.1:0"
            pool = "app"

            [pool.app]
            backends = ["127.0.0.1:9", { address = "127.0.0.1:10", max-in-flight = 1 }]
            sticky = {}
            queue = { size = 9 }
        "#;
        let (web, app) = (ListenerId(3), PoolId(2));
        let seats = [BackendId(1), BackendId(66)];
        let mut plan = crate::config::parse("seats.toml", text).unwrap().plan;
        let mut listener = plan.listeners.remove(ListenerId(0)).unwrap();
        listener.pool = Some(app);
        plan.listeners.insert(web, listener);
        let mut pool = plan.pools.remove(PoolId(0)).unwrap();
        pool.backends = seats.into_iter().zip(pool.backends.values().cloned()).collect();
        plan.pools.insert(app, pool);
        let common = Common::of_plan(plan, 1);
        let own = Own { core_index: 0, counters: Slab::new(), outlets: Default::default() };
        let worker = Worker::new(common, own);
        assert!(Admitted::enter(&worker, web).is_some());
        assert!(Admitted::enter(&worker, ListenerId(0)).is_none(), "nobody has the seat");
        let core = worker.in_force();
        let (mut tried, mut picked) = (BackendSet::EMPTY, Vec::new());
        let pick = |core: &Rc<InForce>, tried: &BackendSet| {
            let wanted = Wanted {
                tried,
                key: None,
                pinned: None,
                careful: false,
                since: None,
                now: Tick::from_millis(1),
            };
            core.pool(app).pick(core, &wanted).ok()
        };
        while let Some(one) = pick(&core, &tried) {
            tried.insert(one.in_flight.backend());
            picked.push(one);
        }
        assert_eq!(tried.iter().collect::<Vec<_>>(), seats);
        assert_eq!(core.pool(app).rooms().iter().collect::<Vec<_>>(), seats[..1]);
        picked.clear();
        drop(InFlight::begin(&core, app, seats[1], Permit::NONE));
        assert_eq!(core.pool(app).rooms().iter().collect::<Vec<_>>(), seats);
        assert_eq!(core.pool(app).authority(seats[1]), b"127.0.0.1:10");
        worker.turn();
        worker.close_conns();
    }
}
