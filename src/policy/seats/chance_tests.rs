//! Random sequences of plans, of threads that release them and of requests that outlive them.
//!
//! After each plan: no seat has two names, no name has moved, every reference leads to its target,
//! the reported changes are the real ones, and an equal plan changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    changes::{Change, Report},
    tests::{listener, route, seats},
    *,
};
use crate::base::rng::Rng;

/// The contents of a plan, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// The pool of each listener.
    listeners: BTreeMap<String, Option<String>>,
    /// The pool of each route, and its listener.
    routes: BTreeMap<String, (String, Option<String>)>,
    /// Port and weight of each backend of each pool.
    pools: BTreeMap<String, BTreeMap<String, (u16, u16)>>,
}

fn pick(rng: &mut Rng, of: &[String]) -> Option<String> {
    of.get(rng.below(of.len() as u32) as usize).cloned()
}

/// One of six names of this kind.
fn name(rng: &mut Rng, kind: &str) -> String {
    format!("{kind}{}", rng.below(6))
}

/// Names in any order, as a file may have them.
fn shuffled<'a>(names: impl Iterator<Item = &'a String>, rng: &mut Rng) -> Vec<String> {
    let mut names: Vec<_> = names.cloned().collect();
    for at in (1..names.len()).rev() {
        names.swap(at, rng.below(at as u32 + 1) as usize);
    }
    names
}

impl Wanted {
    /// A neighbour: a few names come, go, move or change weight.
    fn change(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(4) {
            match rng.below(8) {
                0 => drop(self.listeners.remove(&name(rng, "l"))),
                1 => drop(self.listeners.insert(name(rng, "l"), None)),
                2 => drop(self.routes.remove(&name(rng, "r"))),
                3 => drop(self.routes.insert(name(rng, "r"), Default::default())),
                4 if rng.below(3) == 0 => drop(self.pools.remove(&name(rng, "p"))),
                4 | 5 => drop(self.pools.entry(name(rng, "p")).or_default()),
                _ => self.change_backend(rng),
            }
        }
        let pools: Vec<_> = self.pools.keys().cloned().collect();
        let listeners: Vec<_> = self.listeners.keys().cloned().collect();
        self.listeners.values_mut().for_each(|to| *to = pick(rng, &pools));
        self.routes.retain(|_, (to, on)| {
            *on = pick(rng, &listeners).filter(|_| rng.below(2) == 0);
            pick(rng, &pools).map(|pool| *to = pool).is_some()
        });
    }

    fn change_backend(&mut self, rng: &mut Rng) {
        let pools: Vec<_> = self.pools.keys().cloned().collect();
        let Some(pool) = pick(rng, &pools) else { return };
        let (backend, what) = (name(rng, "b"), (rng.below(3) as u16, rng.below(3) as u16));
        let backends = self.pools.entry(pool).or_default();
        if rng.below(3) == 0 {
            backends.remove(&backend);
        } else {
            backends.insert(backend, what);
        }
    }

    /// As the configuration makes it: in any order, without holes.
    fn plan(&self, rng: &mut Rng) -> Plan {
        let listeners = shuffled(self.listeners.keys(), rng);
        let pools = shuffled(self.pools.keys(), rng);
        let place = |of: &[String], name: &String| {
            of.iter().position(|other| other == name).expect("it is there") as u16
        };
        let pool = |name: &String| PoolId(place(&pools, name));
        let on = |name: &String| ListenerId(place(&listeners, name));
        let backend = |name: String, (port, weight)| {
            let address = Address::Socket(([127, 0, 0, 1], port).into());
            Backend { weight, ..Backend::new(name, address) }
        };
        let routes = shuffled(self.routes.keys(), rng).into_iter().map(|name| {
            let (to, listener) = &self.routes[&name];
            route(&name, pool(to), listener.as_ref().map(on))
        });
        let mut plan = Plan { routes: routes.map(Arc::new).collect(), ..Plan::default() };
        let of_listener = |name: &String| listener(name, self.listeners[name].as_ref().map(pool));
        plan.listeners = listeners.iter().map(of_listener).collect();
        for (id, name) in (0..).map(PoolId).zip(&pools) {
            let backends = shuffled(self.pools[name].keys(), rng).into_iter();
            let backends = backends.map(|it| (self.pools[name][&it], it));
            let backends = backends.map(|(what, it)| backend(it, what)).collect();
            let pool = Pool { name: name.clone(), backends, ..Pool::default() };
            plan.pools.insert(id, Arc::new(pool));
        }
        plan
    }

    /// The contents of a plan, whatever its seats are.
    fn of(plan: &Plan) -> Wanted {
        let pool = |id| plan.pool(id).name.clone();
        let on = |id| plan.listener(id).name.clone();
        let backends = |pool: &Pool| {
            let each = pool.backends.values();
            each.map(|it| (it.name.clone(), (port(it), it.weight))).collect()
        };
        let listeners = plan.listeners.values().map(|it| (it.name.clone(), it.pool.map(pool)));
        let leads = |it: &Route| (it.name.clone(), (pool(it.pool), it.listener.map(on)));
        Wanted {
            listeners: listeners.collect(),
            routes: plan.routes.values().map(|it| leads(it)).collect(),
            pools: plan.pools.values().map(|it| (it.name.clone(), backends(it))).collect(),
        }
    }
}

fn port(backend: &Backend) -> u16 {
    match &backend.address {
        Address::Socket(address) => address.port(),
        Address::Name { port, .. } => *port,
        Address::Srv { .. } | Address::Unix(_) => 0,
    }
}

/// Each seat of a plan, and the name in it.
fn sitting(plan: &Plan) -> Vec<(String, String)> {
    let listeners = plan.listeners.iter().map(|(id, it)| (format!("l{}", id.0), it.name.clone()));
    let routes = plan.routes.iter().map(|(id, it)| (format!("r{}", id.0), it.name.clone()));
    let pools = plan.pools.iter().map(|(id, it)| (format!("p{}", id.0), it.name.clone()));
    let backends = plan.pools.iter().flat_map(|(id, pool)| {
        let who = |it: &Backend| format!("{} of {} at {}", it.name, pool.name, port(it));
        let each = pool.backends.iter();
        each.map(move |(seat, it)| (format!("p{}b{}", id.0, seat.0), who(it)))
    });
    listeners.chain(routes).chain(pools).chain(backends).collect()
}

/// The busy seats of a pool, and then its own.
fn busy_seats((id, busy): (PoolId, &BackendSet)) -> Vec<String> {
    let own = (!busy.is_empty()).then(|| format!("p{}", id.0));
    busy.iter().map(|seat| format!("p{}b{}", id.0, seat.0)).chain(own).collect()
}

/// What is known besides `Held`: each plan with its generation and the threads that hold it.
struct Model {
    held: Held,
    busy: Busy,
    plans: Vec<(u64, Arc<Plan>, BTreeSet<usize>)>,
}

impl Model {
    /// A plan is seated and published.
    fn next(&mut self, wanted: &Wanted, rng: &mut Rng) {
        let before = Wanted::of(self.held.in_force());
        let (plan, changes) =
            seat(wanted.plan(rng), &self.held, &self.busy).expect("there is room");
        assert_eq!(Wanted::of(&plan), *wanted);
        self.look_at_seats(&plan);
        look_at_changes(&before, wanted, &changes);
        let (plan, threads) = (Arc::new(plan), 1 + rng.below(4) as usize);
        let generation = self.held.publish(Arc::clone(&plan), 0..threads);
        let (again, nothing) = seat(wanted.plan(rng), &self.held, &self.busy).expect("as before");
        assert!(nothing.is_empty(), "{nothing}");
        assert_eq!(seats(&again), seats(&plan));
        self.plans.push((generation, plan, (0..threads).collect()));
    }

    /// No name sits in a seat that another holds, or elsewhere than before.
    fn look_at_seats(&self, plan: &Plan) {
        let in_force = self.held.generation();
        let held = self.plans.iter().filter(|(id, _, by)| *id == in_force || !by.is_empty());
        let held: Vec<_> = held.flat_map(|(_, plan, _)| sitting(plan)).collect();
        let who_sits_at: BTreeMap<_, _> = held.iter().map(|(seat, who)| (seat, who)).collect();
        let seat_of: BTreeMap<_, _> = held.iter().map(|(seat, who)| (who, seat)).collect();
        let busy: BTreeSet<_> = self.busy.iter().flat_map(busy_seats).collect();
        for (seat, who) in sitting(plan) {
            assert!(who_sits_at.get(&seat).is_none_or(|other| **other == who), "at {seat}: {who}");
            assert!(seat_of.get(&who).is_none_or(|before| **before == seat), "at {seat}: {who}");
            let may_sit = !busy.contains(&seat) || who_sits_at.contains_key(&seat);
            assert!(may_sit, "{who} came to {seat}");
        }
    }

    /// A thread releases a plan that is not in force; the owner of the plans drops those that are
    /// free.
    fn let_go(&mut self, rng: &mut Rng) {
        let in_force = self.held.generation();
        let at = rng.below(self.plans.len() as u32) as usize;
        let (generation, _, threads) = &mut self.plans[at];
        let thread = threads.iter().nth(rng.below(threads.len() as u32) as usize).copied();
        if let Some(thread) = thread.filter(|_| *generation != in_force) {
            threads.remove(&thread);
            self.held.retire(*generation, thread);
        }
        self.held.free();
        self.plans.retain(|(id, _, by)| *id == in_force || !by.is_empty());
        // One reference is here, one is held: nothing else keeps a plan, and none is lost.
        assert!(self.plans.iter().all(|(_, plan, _)| Arc::strong_count(plan) == 2));
        assert_eq!(self.held.plans().count(), self.plans.len());
    }

    /// Tunnels begin if the plan in force has backends.
    fn begin_tunnels(&mut self, rng: &mut Rng) {
        for (id, pool) in &Arc::clone(self.held.in_force()).pools {
            let some: BackendSet = pool.backends.ids().filter(|_| rng.below(4) == 0).collect();
            let busy = self.busy.remove(id).unwrap_or_default();
            self.busy.insert(id, busy | some);
        }
    }
}

/// The reported additions, removals and changes are the real ones, all of them.
fn look_at_changes(before: &Wanted, wanted: &Wanted, changes: &Changes) {
    let names = |said: &Wanted| -> [BTreeSet<String>; 3] {
        [
            said.listeners.keys().cloned().collect(),
            said.routes.keys().cloned().collect(),
            said.pools.keys().cloned().collect(),
        ]
    };
    let kinds = [&changes.listeners, &changes.routes, &changes.pools];
    for ((was, is), changes) in names(before).iter().zip(&names(wanted)).zip(kinds) {
        let of = |what: &Report| {
            let these = changes.iter().filter(move |it| it.what == *what);
            these.map(|it| it.name.clone()).collect::<BTreeSet<_>>()
        };
        assert_eq!(of(&Report::Added), is - was);
        assert_eq!(of(&Report::Removed), was - is);
    }
    fn changed(changes: &[Change]) -> BTreeSet<&str> {
        let changed = changes.iter().filter(|it| matches!(it.what, Report::Changed { .. }));
        changed.map(|it| &*it.name).collect()
    }
    let pools = before.pools.iter();
    let other = pools.filter(|(name, it)| wanted.pools.get(*name).is_some_and(|is| is != *it));
    assert_eq!(changed(&changes.pools), other.map(|(name, _)| &**name).collect());
}

/// Whatever plans come, and in whatever order threads release them, no seat ever has two names, no
/// name leaves its seat, every reference leads to its target, and an equal plan changes nothing.
#[test]
fn whatever_plans_come_each_name_has_its_seat() {
    for seed in 0..256 {
        let rng = &mut Rng::seeded(seed);
        let mut model = Model { held: Held::new(), busy: Busy::new(), plans: Vec::new() };
        let mut wanted = Wanted::default();
        model.next(&wanted, rng);
        for _ in 0..40 {
            match rng.below(5) {
                0 | 1 => {
                    wanted.change(rng);
                    model.next(&wanted, rng);
                }
                2 => model.begin_tunnels(rng),
                3 => drop(model.busy.remove(PoolId(rng.below(8) as u16))),
                _ => (0..rng.below(16)).for_each(|_| model.let_go(rng)),
            }
        }
    }
}
