//! Seats: assigns each name of the next plan its id, in the plan and in all that threads keep.
//!
//! A name keeps its seat for as long as any thread holds a plan with that name; a new name gets the
//! lowest seat that is not held. So what is kept by id (counters, permits, connections, averages)
//! stays with its name from plan to plan, and is never mistaken for another's. A backend is
//! identified by its name and its address together: one that has moved is another server, and a
//! renamed one is another to everything that counts or remembers it (DECISIONS 72).
//!
//! Pure: nothing changes by it. The owner of the plan publishes the result, or does not.

#[cfg(test)]
mod chance_tests;
mod changes;
mod held;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::Arc,
};

pub(crate) use self::{changes::Changes, held::Held};
use crate::base::backend_set::{BACKENDS_MAX, BackendSet};
use crate::plan::{
    Address, Backend, BackendId, Id, Listener, ListenerId, Plan, Pool, PoolId, Route, RouteId,
    Table,
};

/// The backends of each pool with requests in flight, under whatever plan: a tunnel may outlive
/// every plan that names its backend, and is counted in its seat until it ends.
pub(crate) type Busy = Table<PoolId, BackendSet>;

/// Why a plan cannot be seated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Two listeners, routes, pools, or backends of one pool have the same name.
    Twice { what: &'static str, name: String },
    /// A listener or a route refers to what is not in the plan.
    Astray { what: &'static str, name: String },
    /// Not enough seats of this kind: earlier plans hold too many.
    Full { what: &'static str, lacking: usize },
    /// The same for a pool's backends.
    PoolFull { pool: String, lacking: usize },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, lacking, most) = match self {
            Refused::Twice { what, name } => {
                return write!(f, "two {what}s are called \"{name}\"");
            }
            Refused::Astray { what, name } => {
                return write!(f, "{what} \"{name}\" leads to what is not in the plan");
            }
            Refused::Full { what, lacking } => (format!("{what}s"), lacking, PoolId::COUNT),
            Refused::PoolFull { pool, lacking } => {
                (format!("backends of pool \"{pool}\""), lacking, BACKENDS_MAX)
            }
        };
        write!(
            f,
            "no seat is left for {lacking} {whose}: there are {most}, and requests of earlier \
             plans hold too many; try again when they have ended"
        )
    }
}

/// Gives every name of the next plan its seat, and returns what that changes.
///
/// # Errors
/// If it cannot be seated; nothing has changed then.
pub(crate) fn seat(next: Plan, held: &Held, busy: &Busy) -> Result<(Plan, Changes), Refused> {
    let is_busy = busy.iter().filter(|(_, backends)| !backends.is_empty());
    let pool_seats = seats_of(&next.pools, held, is_busy.map(|(id, _)| id))?;
    let listener_seats = seats_of(&next.listeners, held, [])?;
    let route_seats = seats_of(&next.routes, held, [])?;
    let mut plan = Plan {
        global: next.global,
        limits: next.limits,
        listeners: next.listeners.moved(&listener_seats),
        routes: next.routes.moved(&route_seats),
        pools: next.pools.moved(&pool_seats),
    };
    for (id, pool) in plan.pools.iter_mut() {
        let seats = backend_seats(pool, id, held, busy)?;
        if seats.iter().any(|(id, seat)| id != *seat) {
            let pool = Arc::make_mut(pool);
            pool.backends = mem::take(&mut pool.backends).moved(&seats);
        }
    }
    for listener in plan.listeners.values_mut() {
        let is_found = listener.pools_mut().all(|pool| lead(pool, &pool_seats));
        require(is_found, listener)?;
    }
    for row in plan.routes.values_mut() {
        let mut route = Route::clone(row);
        let is_found = route.pools_mut().all(|pool| lead(pool, &pool_seats))
            && route.listeners_mut().all(|listener| lead(listener, &listener_seats));
        require(is_found, row)?;
        if **row != route {
            *row = Arc::new(route);
        }
    }
    share(&mut plan.routes, &held.in_force().routes);
    share(&mut plan.pools, &held.in_force().pools);
    check_invariants(&plan, held, busy);
    let changes = Changes::between(held.in_force(), &plan);
    Ok((plan, changes))
}

/// Takes rows from the plan before that are the same there.
fn share<I: Id, T: Eq>(rows: &mut Table<I, Arc<T>>, before: &Table<I, Arc<T>>) {
    for (id, row) in rows.iter_mut() {
        if let Some(same) = before.get(id).filter(|before| **before == *row) {
            *row = Arc::clone(same);
        }
    }
}

/// An item of a plan with a name and a seat.
trait Named: Sized {
    type Id: Id;
    const WHAT: &'static str;

    fn name(&self) -> &str;
    fn all(plan: &Plan) -> &Table<Self::Id, Self>;
}

impl Named for Listener {
    type Id = ListenerId;
    const WHAT: &'static str = "listener";

    fn name(&self) -> &str {
        &self.name
    }

    fn all(plan: &Plan) -> &Table<ListenerId, Listener> {
        &plan.listeners
    }
}

impl Named for Arc<Route> {
    type Id = RouteId;
    const WHAT: &'static str = "route";

    fn name(&self) -> &str {
        &self.name
    }

    fn all(plan: &Plan) -> &Table<RouteId, Arc<Route>> {
        &plan.routes
    }
}

impl Named for Arc<Pool> {
    type Id = PoolId;
    const WHAT: &'static str = "pool";

    fn name(&self) -> &str {
        &self.name
    }

    fn all(plan: &Plan) -> &Table<PoolId, Arc<Pool>> {
        &plan.pools
    }
}

/// From the ids of the next plan to its seats; no new name gets a `busy` seat.
fn seats_of<T: Named>(
    next: &Table<T::Id, T>,
    held: &Held,
    busy: impl IntoIterator<Item = T::Id>,
) -> Result<Table<T::Id, T::Id>, Refused> {
    let mut chart = Chart::default();
    for (id, row) in held.plans().flat_map(|plan| T::all(plan)) {
        chart.hold((row.name(), None), id.index());
    }
    busy.into_iter().for_each(|id| chart.keep(id.index()));
    let names: Vec<Key<'_>> = next.values().map(|row| (row.name(), None)).collect();
    match chart.seat(&names, T::Id::COUNT) {
        Ok(seats) => Ok(next.ids().zip(seats.into_iter().filter_map(T::Id::at)).collect()),
        Err(Unseated::Twice(name)) => Err(Refused::Twice { what: T::WHAT, name }),
        Err(Unseated::Lacking(lacking)) => Err(Refused::Full { what: T::WHAT, lacking }),
    }
}

/// The same for a pool's backends, if the pool has this seat.
fn backend_seats(
    pool: &Pool,
    id: PoolId,
    held: &Held,
    busy: &Busy,
) -> Result<Table<BackendId, BackendId>, Refused> {
    let mut chart = Chart::default();
    for (seat, backend) in
        held.plans().filter_map(|plan| plan.pools.get(id)).flat_map(|it| &it.backends)
    {
        chart.hold(key(backend), seat.index());
    }
    busy.get(id).into_iter().flat_map(BackendSet::iter).for_each(|seat| chart.keep(seat.index()));
    let backends: Vec<Key<'_>> = pool.backends.values().map(key).collect();
    match chart.seat(&backends, BACKENDS_MAX) {
        Ok(seats) => {
            Ok(pool.backends.ids().zip(seats.into_iter().filter_map(BackendId::at)).collect())
        }
        Err(Unseated::Twice(name)) => Err(Refused::Twice { what: "backend", name }),
        Err(Unseated::Lacking(lacking)) => {
            Err(Refused::PoolFull { pool: pool.name.clone(), lacking })
        }
    }
}

/// The identity of an item from plan to plan: its name, and for a backend its address.
type Key<'a> = (&'a str, Option<&'a Address>);

fn key(backend: &Backend) -> Key<'_> {
    (&backend.name, Some(&backend.address))
}

/// The occupied seats of one table.
#[derive(Default)]
struct Chart<'a> {
    seats: HashMap<Key<'a>, usize>,
    /// By seat, whether it is taken.
    taken: Vec<bool>,
}

/// Why an item got no seat.
enum Unseated {
    Twice(String),
    Lacking(usize),
}

impl<'a> Chart<'a> {
    /// A held plan has this item in that seat.
    fn hold(&mut self, key: Key<'a>, seat: usize) {
        self.seats.insert(key, seat);
        self.keep(seat);
    }

    /// No new item may get this seat.
    fn keep(&mut self, seat: usize) {
        if seat >= self.taken.len() {
            self.taken.resize(seat + 1, false);
        }
        if let Some(taken) = self.taken.get_mut(seat) {
            *taken = true;
        }
    }

    /// A seat below `count` for each of these, in their order: its own, otherwise the lowest free
    /// one.
    fn seat(self, keys: &[Key<'a>], count: usize) -> Result<Vec<usize>, Unseated> {
        let mut seen = HashSet::new();
        if let Some((name, _)) = keys.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(Unseated::Twice((*name).to_owned()));
        }
        let is_free = |seat: &usize| !self.taken.get(*seat).copied().unwrap_or_default();
        let mut free = (0..count).filter(is_free);
        let own = keys.iter().map(|key| self.seats.get(key).copied());
        let seats: Vec<_> = own.filter_map(|own| own.or_else(|| free.next())).collect();
        match keys.len() - seats.len() {
            0 => Ok(seats),
            lacking => Err(Unseated::Lacking(lacking)),
        }
    }
}

/// Replaces an id of the next plan by its seat; false if the plan has no such row.
fn lead<I: Id>(id: &mut I, seats: &Table<I, I>) -> bool {
    seats.get(*id).map(|seat| *id = *seat).is_some()
}

fn require<T: Named>(is_found: bool, row: &T) -> Result<(), Refused> {
    let astray = || Refused::Astray { what: T::WHAT, name: row.name().to_owned() };
    is_found.then_some(()).ok_or_else(astray)
}

/// Invariants of every seated plan.
fn check_invariants(plan: &Plan, held: &Held, busy: &Busy) {
    if !cfg!(debug_assertions) {
        return;
    }
    for other in held.plans() {
        agree::<Listener>(plan, other);
        agree::<Arc<Route>>(plan, other);
        agree::<Arc<Pool>>(plan, other);
        for (id, pool) in &plan.pools {
            let known = |it: &Backend| (it.name.clone(), it.address.clone());
            let mut seats = HashMap::new();
            for (seat, backend) in other.pools.get(id).into_iter().flat_map(|it| &it.backends) {
                seats.insert(known(backend), seat);
                let now = pool.backends.get(seat).map(known);
                assert!(now.is_none_or(|now| now == known(backend)), "two backends at {seat:?}");
            }
            for (seat, backend) in &pool.backends {
                let before = seats.get(&known(backend));
                assert!(before.is_none_or(|before| *before == seat), "{backend:?} has moved");
            }
        }
    }
    for (id, pool) in &plan.pools {
        assert!(pool.backends.span() <= BACKENDS_MAX);
        let is_new = |seat: &BackendId| {
            held.plans()
                .all(|other| other.pools.get(id).is_none_or(|it| it.backends.get(*seat).is_none()))
        };
        let busy = busy.get(id).copied().unwrap_or_default();
        assert!(!pool.backends.ids().filter(is_new).any(|seat| busy.contains(seat)));
    }
}

/// No seat has two names, and no name two seats.
fn agree<T: Named>(plan: &Plan, other: &Plan) {
    let seats: HashMap<_, _> = T::all(other).iter().map(|(id, row)| (row.name(), id)).collect();
    for (id, row) in T::all(plan) {
        let before = T::all(other).get(id).map(Named::name);
        assert!(before.is_none_or(|name| name == row.name()), "{before:?} and {:?}", row.name());
        let seat = seats.get(row.name());
        assert!(seat.is_none_or(|seat| *seat == id), "{} {:?} has moved", T::WHAT, row.name());
    }
}
