//! A plan in force on one core, with the core's pools and listeners for it.
//!
//! Requests keep the one that they began under. When the last of them has ended, the core reports
//! it and returns the plan to its owner.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    sync::Arc,
};

use super::{Core, Next, PoolView, Retired};
use crate::base::{
    ids::{ListenerId, PoolId},
    moment::Tick,
};
use crate::http::parse::HeadLimits;
use crate::plan::{ListenerTimeouts, Plan, Pool, Table};
use crate::shared::permits::Permits;

/// A plan and what this worker made of it.
pub(crate) struct InForce {
    /// None in the remnant of one that was dropped.
    generation: Option<u64>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) pools: Table<PoolId, Rc<PoolView>>,
    pub(crate) listeners: Table<ListenerId, Rc<ListenerView>>,
    /// Client connections of the process.
    pub(crate) connections: Permits,
    pub(crate) head_limits: HeadLimits,
    /// Whether any pool tells its backends who the client is by a PROXY header.
    pub(crate) introduces: bool,
    /// This worker's share of the sockets that the process may have.
    pub(super) share: usize,
    core: Rc<Core>,
    /// What tunnels keep of it, once there was one.
    remnant: OnceCell<Rc<InForce>>,
}

/// A listener of a plan, as one core lets connections in.
pub(crate) struct ListenerView {
    /// Its client connections.
    pub(super) connections: Permits,
    /// Permits of connections that were closed to make room: the next ones returned are already in
    /// use by the new connections. It lives on from plan to plan.
    pub(super) owed: Rc<Cell<u32>>,
}

impl InForce {
    /// For the next plan. `before` are the plans that something on this core still holds, the
    /// newest first: what stays continues unchanged.
    pub(super) fn new(next: &Next, before: &[Rc<InForce>], core: &Rc<Core>, now: Tick) -> InForce {
        let plan = Arc::clone(&next.plan);
        let newest = before.first();
        let as_many = core.cores.replace(next.cores) == next.cores;
        // Parts that are equal in both plans are reused: most changes concern little of a large
        // plan.
        let unchanged = |id: PoolId, pool: &Arc<Pool>| {
            let newest = newest.filter(|it| as_many && it.plan.pools.get(id) == Some(pool))?;
            let view = newest.pools.get(id)?;
            view.is_of(next.pools.get(id)?).then(|| Rc::clone(view))
        };
        let view = |(id, pool)| {
            if let Some(view) = unchanged(id, pool) {
                return Some((id, view));
            }
            let before = before.iter().filter_map(|before| before.pools.get(id));
            Some((id, PoolView::new(pool, next.pools.get(id)?, (id, core), before, now)))
        };
        let pools: Table<_, _> = plan.pools.iter().filter_map(view).collect();
        for (id, gone) in newest.into_iter().flat_map(|newest| &newest.pools) {
            if pools.get(id).is_none() {
                gone.leaves();
            }
        }
        let listeners = plan.listeners.iter().filter_map(|(id, listener)| {
            let owed = before.iter().find_map(|before| before.listeners.get(id));
            let owed = owed.map_or_else(Rc::default, |view| Rc::clone(&view.owed));
            let connections = next.listeners.get(id)?.connections(listener.connections_max);
            Some((id, Rc::new(ListenerView { connections, owed })))
        });
        let introduces = plan.pools.values().any(|pool| pool.send_proxy.is_some());
        let process = &core.process;
        let share = plan.limits.descriptors() / next.cores.max(1) as u64;
        InForce {
            generation: Some(next.generation),
            pools,
            listeners: listeners.collect(),
            connections: process.connections.with_max(plan.limits.connections),
            head_limits: plan.limits.heads(),
            introduces,
            share: usize::try_from(share).unwrap_or(usize::MAX),
            core: Rc::clone(core),
            remnant: OnceCell::new(),
            plan,
        }
    }

    /// The part that something may need long after the rest: the plan, for a line in a log.
    pub(crate) fn remnant(&self) -> Rc<InForce> {
        let made = || InForce {
            generation: None,
            plan: Arc::clone(&self.plan),
            pools: Table::new(),
            listeners: Table::new(),
            connections: self.connections.clone(),
            head_limits: self.head_limits,
            introduces: self.introduces,
            share: self.share,
            core: Rc::clone(&self.core),
            remnant: OnceCell::new(),
        };
        Rc::clone(self.remnant.get_or_init(|| Rc::new(made())))
    }

    /// How long each wait for a client of this listener may take; the defaults if it was removed.
    pub(crate) fn timeouts(&self, listener: ListenerId) -> ListenerTimeouts {
        self.plan.listeners.get(listener).map(|listener| listener.timeouts).unwrap_or_default()
    }

    /// This worker's view of a pool.
    #[inline]
    pub(crate) fn pool(&self, id: PoolId) -> &Rc<PoolView> {
        match self.pools.get(id) {
            Some(view) => view,
            None => unreachable!("an id of another plan"),
        }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let Core { index, process, .. } = &*self.core;
        let (generation, plan) = (self.generation, Some(Arc::clone(&self.plan)));
        // The owner may be gone when the process ends.
        let retired = Retired { core_index: *index, generation, plan, router: None };
        let _ = process.retired.send(retired);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::backend_set::BackendSet;
    use crate::plan::{BackendId, ListenerId};
    use crate::worker::{Admitted, Wanted, Worker};

    /// A plan whose names have kept their seats while others left: each table has holes.
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
        let mut plan = crate::config::parse("seats.toml", text).unwrap().plan.into_plan();
        let mut listener = plan.listeners.remove(ListenerId(0)).unwrap();
        listener.pool = Some(app);
        plan.listeners.insert(web, listener);
        let mut pool = Pool::clone(&plan.pools.remove(PoolId(0)).unwrap());
        pool.backends = seats.into_iter().zip(pool.backends.values().cloned()).collect();
        plan.pools.insert(app, Arc::new(pool));
        let worker = Worker::crew_of(plan, 1).remove(0);
        assert!(Admitted::enter(&worker, web).is_some());
        assert!(Admitted::enter(&worker, ListenerId(0)).is_none(), "nobody has the seat");
        let view = Rc::clone(worker.in_force().pool(app));
        let (mut tried, mut picked) = (BackendSet::EMPTY, Vec::new());
        let now = Tick::from_millis(1);
        let pick = |tried: &BackendSet| {
            let wanted =
                Wanted { tried, key: None, pinned: None, avoids_trials: false, since: None, now };
            view.pick(&wanted).ok()
        };
        let rooms = || view.core.rooms().iter().collect::<Vec<_>>();
        while let Some(one) = pick(&tried) {
            tried.insert(one.backend());
            picked.push(one);
        }
        assert_eq!(tried.iter().collect::<Vec<_>>(), seats);
        assert_eq!(rooms(), seats[..1]);
        picked.clear();
        assert_eq!(rooms(), seats);
        assert_eq!(view.authority(seats[1]), b"127.0.0.1:10");
        worker.turn();
        worker.close_conns();
    }
}
