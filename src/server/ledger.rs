//! The plan owner's ledger: the plans that are held, the owner of each seat, and what the threads
//! share of each pool and listener.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use super::{
    StartError, ends,
    secrets::{self, Made},
};
use crate::net::chance;
use crate::observe::{event::Event, statistics::Named};
use crate::plan::{BackendId, Plan, PoolId};
use crate::policy::seats::{self, Busy, Changes, Held};
use crate::shared::{certs::Certs, pool::PoolState};
use crate::worker::{Next, Process, Retired, States};

/// The plans that some thread holds.
pub(super) struct Ledger {
    held: Held,
    states: States,
    /// Where the state of the process may be, and the secret of pools that name none.
    directories: Vec<PathBuf>,
    secret: Option<Made>,
    /// The secret of session tickets of listeners that name none.
    ticket_secret: Option<Made>,
    /// The seed of randomness, the same for each plan.
    seed: u64,
}

impl Ledger {
    /// Before the first plan.
    pub(super) fn new(directories: Vec<PathBuf>) -> Ledger {
        let (held, states, seed) = (Held::new(), States::default(), chance::drawn());
        Ledger { held, states, directories, secret: None, ticket_secret: None, seed }
    }

    /// Goes on with the secrets of another process, of cookies and of tickets, that are in no file.
    pub(super) fn inherit(&mut self, [cookies, tickets]: [Option<String>; 2]) {
        self.secret = cookies.as_deref().and_then(Made::inherited);
        self.ticket_secret = tickets.as_deref().and_then(Made::inherited);
    }

    /// The secrets that are in no file: of cookies, and of tickets.
    pub(super) fn unkept(&self) -> [Option<String>; 2] {
        [&self.secret, &self.ticket_secret].map(|made| made.as_ref()?.text.clone())
    }

    /// The next plan with the seats of its names, and what that changes.
    ///
    /// # Errors
    /// If there is no seat for one.
    pub(super) fn seat(&mut self, plan: Plan) -> Result<(Plan, Changes), StartError> {
        self.forget_states();
        self.compare(plan)
    }

    /// The plan with the seats it would get, and what it would change; nothing is kept.
    ///
    /// # Errors
    /// If there is no seat for a name.
    pub(super) fn compare(&self, plan: Plan) -> Result<(Plan, Changes), StartError> {
        let busy = |(id, state): (PoolId, &Arc<PoolState>)| (id, state.load.busy());
        let busy: Busy = self.states.pools.iter().map(busy).collect();
        seats::seat(plan, &self.held, &busy)
            .map_err(|refused| StartError::Plan(refused.to_string()))
    }

    /// The next plan, already seated, for so many cores, with all that threads share for it; and
    /// warnings for the operator. No thread holds it yet.
    ///
    /// # Errors
    /// A sentence about a secret that cannot be read.
    pub(super) fn next(
        &mut self,
        plan: Plan,
        process: &Process,
        (before, certs, cores): (Option<&Next>, &Certs, usize),
    ) -> Result<(Arc<Next>, Vec<Event>), StartError> {
        let (pins, events) = secrets::pins(&plan, &self.directories, &mut self.secret)?;
        let keys = secrets::of_tickets(&plan, &self.directories, &mut self.ticket_secret)?;
        let tls = ends::ends(&plan, certs, &keys)?;
        self.states.grow(&plan, process.cores, &process.rooms);
        let numbered = (self.held.generation() + 1, cores, Arc::new(plan));
        Ok((Arc::new(self.states.next(numbered, (pins, tls), (self.seed, before))), events))
    }

    /// From now on this many cores hold this plan.
    pub(super) fn publish(&mut self, next: &Next, cores: usize) {
        let generation = self.held.publish(Arc::clone(&next.plan), 0..cores);
        debug_assert_eq!(generation, next.generation);
    }

    /// One more core holds the plan in force.
    pub(super) fn join(&mut self, core: usize) {
        self.held.join(core);
    }

    /// How many plans are held, including the one in force.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Cores have released these plans; returns the pools and backends that no plan names any more.
    pub(super) fn free(
        &mut self,
        retired: impl Iterator<Item = Retired>,
    ) -> Vec<(PoolId, Option<BackendId>)> {
        for Retired { core_index, generation, plan, router } in retired {
            if let Some(generation) = generation {
                self.held.retire(generation, core_index);
            }
            drop((plan, router));
        }
        let gone = self.held.free();
        if gone.is_empty() {
            return Vec::new();
        }
        self.forget_states();
        let held: HashSet<_> = self.held.plans().flat_map(named).collect();
        let gone: HashSet<_> = gone.iter().flat_map(|plan| named(plan)).collect();
        gone.difference(&held).copied().collect()
    }

    /// Whose seats plans that some thread holds have named.
    pub(super) fn named(&self) -> Named {
        let mut named = Named::default();
        self.held.plans().for_each(|plan| named.add(plan));
        named
    }

    /// What threads share of a pool.
    pub(super) fn state(&self, pool: PoolId) -> Option<&PoolState> {
        self.states.pools.get(pool).map(|state| &**state)
    }

    /// Drops what threads shared of pools and listeners that no plan names any more. A pool with
    /// requests in flight, tunnels for example, keeps its seat.
    fn forget_states(&mut self) {
        let (mut pools, mut listeners) = (HashSet::new(), HashSet::new());
        for plan in self.held.plans() {
            pools.extend(plan.pools.ids());
            listeners.extend(plan.listeners.ids());
        }
        let States { pools: of_pools, listeners: of_listeners } = &mut self.states;
        let is_over = |(id, state): &(PoolId, &Arc<PoolState>)| {
            !pools.contains(id) && state.load.busy().is_empty()
        };
        let over: Vec<_> = of_pools.iter().filter(is_over).map(|(id, _)| id).collect();
        over.into_iter().for_each(|id| drop(of_pools.remove(id)));
        let over: Vec<_> = of_listeners.ids().filter(|id| !listeners.contains(id)).collect();
        over.into_iter().for_each(|id| drop(of_listeners.remove(id)));
    }
}

/// The pools of a plan, and the backends of each.
fn named(plan: &Plan) -> impl Iterator<Item = (PoolId, Option<BackendId>)> + '_ {
    plan.pools.iter().flat_map(|(id, pool)| {
        let backends = pool.backends.ids().map(move |backend| (id, Some(backend)));
        std::iter::once((id, None)).chain(backends)
    })
}
