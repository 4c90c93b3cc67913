//! A plan, and what one core made of it.

use std::{rc::Rc, sync::Arc};

use super::{Common, PoolView};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
};
use crate::conns::Means;
use crate::plan::Plan;
use crate::policy::route::Router;
use crate::shared::{bell::Rope, counters::Slab, rooms::Rooms};

/// A plan and what this worker made of it. Exchanges keep the one they began under.
pub(crate) struct InForce {
    pub(crate) plan: Arc<Plan>,
    pub(crate) router: Router,
    pub(crate) pools: Vec<PoolView>,
    /// The worker's.
    pub(super) counters: Arc<Slab>,
    rooms: Rooms,
    ropes: Arc<[Rope]>,
}

impl InForce {
    pub(super) fn new(common: &Common, core_index: usize, means: &Rc<Means>) -> InForce {
        let plan = Arc::clone(&common.plan);
        let of_core = (core_index, common.cores);
        let views = (0..).map(PoolId).zip(&plan.pools);
        let pools =
            views.map(|(id, pool)| PoolView::new(pool, id, of_core, common, means)).collect();
        // The start has compiled every expression once: none can fail here.
        let router = Router::compile(&plan.routes).unwrap_or_default();
        let counters = Arc::clone(&means.counters);
        let (rooms, ropes) = (common.rooms.clone(), Arc::clone(&common.ropes));
        InForce { plan, router, pools, counters, rooms, ropes }
    }

    /// This worker's view of a pool.
    #[inline]
    pub(crate) fn pool(&self, id: PoolId) -> &PoolView {
        &self.pools[id.index()]
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
        self.rooms.take(core_index)
    }
}
