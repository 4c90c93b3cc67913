//! A plan, and what one core made of it.

use std::sync::Arc;

use super::{Common, PoolView};
use crate::base::ids::PoolId;
use crate::plan::Plan;
use crate::policy::route::Router;
use crate::shared::{
    counters::Slab,
    inbox::{Message, Outbox},
};

/// A plan and what this worker made of it. Exchanges keep the one they began under.
pub(crate) struct InForce {
    pub(crate) plan: Arc<Plan>,
    pub(crate) router: Router,
    pub(crate) pools: Vec<PoolView>,
    /// The worker's.
    pub(super) counters: Arc<Slab>,
    outboxes: Arc<[Outbox]>,
}

impl InForce {
    pub(super) fn new(common: &Common, core_index: usize, counters: Arc<Slab>) -> InForce {
        let plan = Arc::clone(&common.plan);
        let of_core = (core_index, common.cores);
        let views = (0..).map(PoolId).zip(&plan.pools);
        let pools =
            views.map(|(id, pool)| PoolView::new(pool, id, of_core, common, &counters)).collect();
        // The start has compiled every expression once: none can fail here.
        let router = Router::compile(&plan.routes).unwrap_or_default();
        InForce { plan, router, pools, counters, outboxes: Arc::clone(&common.outboxes) }
    }

    /// This worker's view of a pool.
    #[inline]
    pub(crate) fn pool(&self, id: PoolId) -> &PoolView {
        &self.pools[id.index()]
    }

    /// Somebody waits no more in front of a pool: where that leaves room, it is the next one's.
    pub(crate) fn left_the_queue(&self, pool: PoolId) {
        if self.pool(pool).has_news_for_the_queue() {
            self.made_room(pool);
        }
    }

    /// A backend of a pool has room again: whoever waits first is called, here or on another core.
    pub(crate) fn made_room(&self, pool: PoolId) {
        let view = self.pool(pool);
        let Some(core) = view.call_next() else { return };
        // Where its box is full it looks by itself within a quarter of a second.
        if !self.outboxes.get(core).is_some_and(|outbox| outbox.send(Message::Room(pool))) {
            view.call_own();
        }
    }
}
