//! The next plan with the state that threads share for it: what its owner hands to every thread.
//!
//! The shared state of pools and listeners is in the tables of `States`, by seat, and lives on from
//! plan to plan. A plan takes what it names, and makes it grow before any thread serves by it.

use std::sync::Arc;

use crate::base::backend_set::BackendSet;
use crate::net::tls::Ends;
use crate::plan::{ListenerId, Plan, Pool, PoolId, Table};
use crate::policy::{balance::Prepared, budget, sticky::Pins};
use crate::shared::{listener::ListenerState, pool::PoolState, rooms::Rooms};

/// A plan and all that threads share for it.
pub(crate) struct Next {
    /// The number of the plan.
    pub(crate) generation: u64,
    /// How many cores serve by it.
    pub(crate) cores: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) pools: Table<PoolId, NextPool>,
    pub(crate) listeners: Table<ListenerId, Arc<ListenerState>>,
    /// What its TLS needs.
    pub(crate) tls: Arc<Ends>,
}

/// The shared state of one pool of a plan.
pub(crate) struct NextPool {
    pub(crate) state: Arc<PoolState>,
    pub(crate) prepared: Prepared,
    /// Writes and reads the cookies of its clients; none if it is not sticky.
    pub(crate) pins: Option<Arc<Pins>>,
}

/// The shared state of all pools and listeners that any thread may still know.
#[derive(Default)]
pub(crate) struct States {
    pub(crate) pools: Table<PoolId, Arc<PoolState>>,
    pub(crate) listeners: Table<ListenerId, Arc<ListenerState>>,
}

impl States {
    /// Makes room for everything that a plan names, on this many workers.
    pub(crate) fn grow(&mut self, plan: &Plan, workers: usize, rooms: &Rooms) {
        rooms.grow(plan.pools.span());
        for (id, pool) in &plan.pools {
            if self.pools.get(id).is_none() {
                self.pools.insert(id, Arc::new(state(pool, workers)));
            }
            if let Some(state) = self.pools.get(id) {
                state.grow(pool.backends.span());
            }
        }
        for id in plan.listeners.ids() {
            if self.listeners.get(id).is_none() {
                self.listeners.insert(id, Arc::new(ListenerState::new()));
            }
        }
    }

    /// A plan that they have grown for, for so many cores, with these pins; its randomness begins
    /// with `seed`. What was prepared for the same pool of the plan before is used again.
    pub(crate) fn next(
        &self,
        (generation, cores, plan): (u64, usize, Arc<Plan>),
        (mut pins, tls): (Table<PoolId, Pins>, Arc<Ends>),
        (seed, before): (u64, Option<&Next>),
    ) -> Next {
        let known = |id: PoolId, pool: &Arc<Pool>| {
            let before = before.filter(|before| before.plan.pools.get(id) == Some(pool))?;
            before.pools.get(id)
        };
        let pools = plan.pools.iter().filter_map(|(id, pool)| {
            let (state, known) = (Arc::clone(self.pools.get(id)?), known(id, pool));
            let prepared = known.map(|known| known.prepared.clone());
            let prepared = prepared.unwrap_or_else(|| Prepared::of(pool, seed));
            let same = |pins: &Pins| {
                let known = known.and_then(|known| known.pins.as_ref());
                known.filter(|known| known.is_same(pins)).map(Arc::clone)
            };
            let pins = pins.remove(id).map(|pins| same(&pins).unwrap_or_else(|| Arc::new(pins)));
            Some((id, NextPool { state, prepared, pins }))
        });
        let pools = pools.collect();
        let listeners =
            plan.listeners.ids().filter_map(|id| Some((id, Arc::clone(self.listeners.get(id)?))));
        let listeners = listeners.collect();
        Next { generation, cores, plan, pools, listeners, tls }
    }
}

fn state(pool: &Pool, workers: usize) -> PoolState {
    let usable: BackendSet = pool.backends.ids().collect();
    let retries = pool.retry.budget.as_ref().map_or(0, budget::full);
    PoolState::new(workers, &usable, retries)
}

#[cfg(test)]
impl States {
    /// A plan that this many workers serve, as the first of a process.
    pub(crate) fn first(plan: Plan, workers: usize) -> Arc<Next> {
        let mut states = States::default();
        states.grow(&plan, workers, &Rooms::new(workers));
        Arc::new(states.next((1, workers, Arc::new(plan)), Default::default(), (0, None)))
    }
}

#[cfg(test)]
impl super::Process {
    /// For this many workers; their events go nowhere.
    pub(crate) fn alone(cores: usize) -> super::Process {
        use crate::shared::{
            bell::Rope, levels::Levels, outcomes, passages::Passages, permits::Permits,
            spares::Spares,
        };
        let ropes = || (0..cores).map(|_| Rope::new().unwrap());
        super::Process {
            cores,
            pseudonym: "ringway-test".into(),
            trims_memory: false,
            connections: Permits::new(0),
            outcomes: outcomes::channel(Rope::new().unwrap()).0,
            rooms: Rooms::new(cores),
            ropes: ropes().collect(),
            spares: Spares::new([].into_iter(), [].into_iter()),
            levels: Levels::new(cores),
            passages: Passages::new(ropes()),
            reporter: crate::observe::reports::channel().0,
            retired: crossbeam_channel::unbounded().0,
        }
    }
}

#[cfg(test)]
impl super::Worker {
    /// This many workers that serve this text.
    pub(crate) fn crew(text: &str, cores: usize) -> Vec<std::rc::Rc<super::Worker>> {
        super::Worker::crew_of(
            crate::config::parse("worker.toml", text).unwrap().plan.into_plan(),
            cores,
        )
    }

    /// The same for a plan.
    pub(crate) fn crew_of(plan: Plan, cores: usize) -> Vec<std::rc::Rc<super::Worker>> {
        use crate::shared::counters::Slab;
        let process = super::Process::alone(cores);
        process.rooms.grow(plan.pools.span());
        let next = States::first(plan, cores);
        let own = |core_index| super::WorkerSeed {
            core_index,
            counters: Slab::new(),
            outlets: Table::default(),
        };
        let worker = |core| super::Worker::new(process.clone(), &next, own(core));
        (0..cores).map(worker).collect()
    }
}
