//! What all workers of a process are given, and what they share of each pool.

use std::sync::Arc;

use crate::observe::told::Teller;
use crate::plan::{ListenerId, Plan, Pool, PoolId, Table};
use crate::policy::{balance::Prepared, budget, sticky::Pins};
use crate::shared::{
    backends::Backends, bell::Rope, budget::Budget, line::Line, outcomes::Outcomes,
    permits::Permits, rooms::Rooms, spares::Spares, standing::Published, unreachable::Unreachable,
};

/// What all workers of a process are given.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) plan: Arc<Plan>,
    pub(crate) cores: usize,
    pub(crate) pseudonym: Arc<str>,
    pub(crate) connections: Permits,
    pub(crate) listener_connections: Arc<Table<ListenerId, Permits>>,
    /// What is shared of each pool.
    pub(crate) pools: Arc<Table<PoolId, PoolShared>>,
    /// What threads share about the backends.
    pub(crate) backends: Backends,
    /// Where failures and trials are posted.
    pub(crate) outcomes: Outcomes,
    /// What cores tell each other of room, and what wakes each of them.
    pub(crate) rooms: Rooms,
    pub(crate) ropes: Arc<[Rope]>,
    /// What each core could do without.
    pub(crate) spares: Spares,
    /// Where what happens is told.
    pub(crate) teller: Teller,
}

/// What all workers share of one pool.
#[derive(Clone)]
pub(crate) struct PoolShared {
    pub(crate) prepared: Prepared,
    /// What writes and reads the cookies of its clients; none where it is not sticky.
    pub(crate) pins: Option<Arc<Pins>>,
    /// Who may be asked.
    pub(crate) published: Published,
    /// Which of its backends are known to be unreachable.
    pub(crate) unreachable: Unreachable,
    /// What is left of its retries; none where they have no bound.
    pub(crate) budget: Option<Budget>,
    /// Who waits; none where nobody may.
    pub(crate) line: Option<Line>,
    /// What each backend may have in flight; empty where none has a bound.
    pub(crate) slots: Arc<[Permits]>,
}

impl PoolShared {
    /// For a pool, and so many workers; what is left to chance begins with `seed`.
    pub(crate) fn of(pool: &Pool, published: &Published, workers: usize, seed: u64) -> PoolShared {
        let bounded = pool.backends.values().any(|backend| backend.in_flight_max > 0);
        let most = pool.backends.seats().map(|it| it.map_or(0, |backend| backend.in_flight_max));
        let homes = if pool.sticky.is_some() { pool.backends.span() } else { 0 };
        PoolShared {
            prepared: Prepared::of(pool, seed),
            pins: None,
            published: published.clone(),
            unreachable: Unreachable::new(pool.backends.span()),
            budget: pool.retry.budget.map(|plan| Budget::new(budget::full(&plan))),
            line: (bounded && pool.queue.size > 0)
                .then(|| Line::new(pool.queue.size, workers, homes)),
            slots: if bounded { most.map(Permits::new).collect() } else { Arc::default() },
        }
    }
}

#[cfg(test)]
impl Common {
    /// What so many workers are given that serve what this text says; what they tell is heard by
    /// nobody.
    pub(crate) fn of_text(text: &str, cores: usize) -> Common {
        Common::of_plan(crate::config::parse("worker.toml", text).unwrap().plan, cores)
    }

    /// The same of a plan.
    pub(super) fn of_plan(plan: Plan, cores: usize) -> Common {
        use crate::shared::outcomes;
        let backends = Backends::new(cores, plan.spans());
        let pools = plan.pools.iter().map(|(id, pool)| {
            (id, PoolShared::of(pool, &backends.published[id.index()], cores, 0))
        });
        let limits = plan.listeners.ids().map(|id| (id, Permits::new(0)));
        Common {
            cores,
            pseudonym: "ringway-test".into(),
            connections: Permits::new(0),
            listener_connections: Arc::new(limits.collect()),
            pools: Arc::new(pools.collect()),
            backends,
            rooms: Rooms::new(cores, plan.pools.span()),
            ropes: (0..cores).map(|_| Rope::new().unwrap()).collect(),
            spares: Spares::new([].into_iter(), [].into_iter()),
            outcomes: outcomes::channel(Rope::new().unwrap()).0,
            teller: crate::observe::told::channel().0,
            plan: Arc::new(plan),
        }
    }
}
