//! Sources of the statistics: the counts of all threads, which are kept by seats, and the names
//! that the plan in force has for these.
//!
//! The owner of the plan alone reads them. A seat that is given to another begins at nought.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use super::{
    Backend, Core, Counter, Histogram, Listener, Phase, Pool, Process, Requests, Retries, Route,
    Statistics,
};
use crate::base::histogram::Reading;
use crate::http::{fault::Failure, grpc};
use crate::plan::{BackendId, ListenerId, Plan, PoolId, RouteId};
use crate::policy::{health::ProbeFault, standing::Present};
use crate::shared::{
    counters::Slab,
    pool::PoolState,
    request_times::Timed,
    tally::{CUT, Key, Reason},
};

/// Whose seats are named by plans that some thread holds.
#[derive(Default)]
pub(crate) struct Named {
    listeners: HashSet<ListenerId>,
    routes: HashSet<RouteId>,
    pools: HashSet<PoolId>,
    backends: HashSet<(PoolId, BackendId)>,
}

impl Named {
    /// Adds those of a plan.
    pub(crate) fn add(&mut self, plan: &Plan) {
        self.listeners.extend(plan.listeners.ids());
        self.routes.extend(plan.routes.ids());
        self.pools.extend(plan.pools.ids());
        for (id, pool) in &plan.pools {
            self.backends.extend(pool.backends.ids().map(|backend| (id, backend)));
        }
    }
}

/// What snapshots are made of.
pub(crate) struct Sources {
    /// Those of the cores come first.
    slabs: Vec<Arc<Slab>>,
    cores: usize,
    /// How long answers of backends took: what was read last, and all of it so far.
    times: HashMap<(PoolId, BackendId), (Reading, Histogram)>,
    /// The same of requests.
    requests: HashMap<Timed, (Reading, Histogram)>,
}

impl Sources {
    /// The slabs of all threads that count: those of so many cores first, then those that cores get
    /// which are started later.
    pub(crate) fn new(slabs: Vec<Arc<Slab>>, cores: usize) -> Sources {
        Sources { slabs, cores, times: HashMap::new(), requests: HashMap::new() }
    }

    /// One more core counts, in the next of the slabs.
    pub(crate) fn join(&mut self) {
        self.cores += 1;
    }

    /// Forgets what was counted of all that is not named: its seats may be given to others, and
    /// nobody counts for it any more. Gauges are left: what they count ends by itself.
    pub(crate) fn forget<'a>(
        &mut self,
        named: &Named,
        state: impl Fn(PoolId) -> Option<&'a PoolState>,
    ) {
        self.times.retain(|(pool, backend), _| {
            let stays = named.backends.contains(&(*pool, *backend));
            if !stays && let Some(state) = state(*pool) {
                state.times.forget(*backend);
                state.load.forget_moved(*backend);
            }
            stays
        });
        self.requests.retain(|what, _| match what {
            Timed::Request(Some(route)) if !named.routes.contains(route) => {
                self.slabs.iter().for_each(|slab| slab.times().forget(*route));
                false
            }
            Timed::Request(_) | Timed::Own | Timed::Phase(_) => true,
        });
        let is_gone = |key| match key {
            Key::Connections(_) | Key::Idle(_) | Key::Queued(_) => false,
            Key::Requests(listener, route, _) => {
                let has_route = route.is_none_or(|route| named.routes.contains(&route));
                !(named.listeners.contains(&listener) && has_route)
            }
            Key::Retries(pool, _) => !named.pools.contains(&pool),
            Key::Tries(pool, backend, _)
            | Key::Moved(pool, backend, _)
            | Key::Failed(pool, backend, _) => !named.backends.contains(&(pool, backend)),
            // Those are the health thread's, which forgets them itself.
            Key::Present(..) | Key::Ejections(..) | Key::FailedProbes(..) => false,
        };
        self.slabs.iter().for_each(|slab| slab.tally().forget(is_gone));
    }

    /// What has been counted so far, at this time, with the names of the plan in force; `state` is
    /// what threads share of a pool.
    pub(crate) fn snapshot<'a>(
        &mut self,
        at: SystemTime,
        plan: &Plan,
        state: impl Fn(PoolId) -> Option<&'a PoolState>,
    ) -> Statistics {
        let sum = |counter| {
            self.slabs.iter().fold(0, |sum: u64, slab| sum.wrapping_add(slab.read(counter)))
        };
        let totals = Counter::ALL.iter().map(|counter| sum(*counter)).collect();
        let core = |slab: &Arc<Slab>| Core {
            requests: slab.read(Counter::Requests),
            connections: slab.read(Counter::Connections),
            load: slab.read(Counter::Load) as f64 / 1e3,
            moved_new: slab.read(Counter::MovedNew),
            moved_idle: slab.read(Counter::MovedIdle),
            cpu: None,
            busy: None,
            thread: slab.thread(),
        };
        let cores = self.slabs.iter().take(self.cores).map(core).collect();
        let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
        for (key, count) in self.slabs.iter().flat_map(|slab| slab.tally().all()) {
            let sum = counts.entry(key).or_default();
            *sum = sum.wrapping_add(count);
        }
        let listeners = listeners(plan, &counts);
        let pools = plan.pools.ids().filter_map(|id| Some((id, state(id)?)));
        let pools = pools.filter_map(|(id, state)| self.pool(plan, (id, state), &counts)).collect();
        let routes = plan.routes.iter().map(|(id, route)| (Some(id), Some(&route.name)));
        let routes = routes.chain([(None, None)]).filter_map(|(id, name)| {
            let times = self.read(Timed::Request(id)).filter(|times| times.count() > 0)?;
            Some(Route { name: name.map(|name| Arc::from(&**name)), times })
        });
        let routes = routes.collect();
        let own_times = self.read(Timed::Own).unwrap_or_default();
        let phase = |phase| (phase, self.read(Timed::Phase(phase)).unwrap_or_default());
        let phases = Phase::ALL.map(phase).into();
        let certificates = Vec::new();
        Statistics {
            at,
            cores,
            listeners,
            pools,
            routes,
            own_times,
            phases,
            certificates,
            process: Process::default(),
            // The owner of the plan knows both.
            config_generation: 0,
            config_last_reload_successful: false,
            totals,
        }
    }

    /// Client connections of these listeners.
    pub(crate) fn connections(&self, of: impl Fn(ListenerId) -> bool) -> u64 {
        let is_one = |(key, _): &(Key, u64)| matches!(key, Key::Connections(id) if of(*id));
        let all = self.slabs.iter().flat_map(|slab| slab.tally().all()).filter(is_one);
        all.fold(0, |sum, (_, count)| sum.wrapping_add(count))
    }

    /// All that was counted of it so far; none = nothing ever was.
    fn read(&mut self, what: Timed) -> Option<Histogram> {
        let readings = self.slabs.iter().filter_map(|slab| slab.times().read(what));
        let now = readings.reduce(|mut sum, one| {
            sum.merge(&one);
            sum
        })?;
        let (before, times) = self.requests.entry(what).or_default();
        times.add(before, &now);
        *before = now;
        Some(times.clone())
    }

    fn pool(
        &mut self,
        plan: &Plan,
        (id, state): (PoolId, &PoolState),
        counts: &BTreeMap<Key, u64>,
    ) -> Option<Pool> {
        let pool = plan.pools.get(id)?;
        let reasons = Reason::Status(0)..=Reason::Grpc(u8::MAX);
        let retries = Key::Retries(id, *reasons.start())..=Key::Retries(id, *reasons.end());
        let retries = counts.range(retries).filter_map(|(key, count)| match key {
            Key::Retries(_, why) => Some(Retries { reason: word(*why), count: *count }),
            _ => None,
        });
        let backend = |(backend, of): (BackendId, &crate::plan::Backend)| {
            let tries = Key::Tries(id, backend, 0)..=Key::Tries(id, backend, u16::MAX);
            let tries = counts.range(tries).filter_map(|(key, count)| match key {
                Key::Tries(_, _, code) => Some((code_of(*code), *count)),
                _ => None,
            });
            let (read, times) = self.times.entry((id, backend)).or_default();
            let now = state.times.read(backend);
            times.add(read, &now);
            *read = now;
            let failed =
                Key::FailedProbes(id, backend, 0)..=Key::FailedProbes(id, backend, u16::MAX);
            let failed = counts.range(failed).filter_map(|(key, count)| match key {
                Key::FailedProbes(_, _, kind) => {
                    Some((*ProbeFault::CODES.get(usize::from(*kind))?, *count))
                }
                _ => None,
            });
            let broken = Key::Failed(id, backend, 0)..=Key::Failed(id, backend, u16::MAX);
            let broken = counts.range(broken).filter_map(|(key, count)| match key {
                Key::Failed(_, _, how) => Some((failed_word(*how)?, *count)),
                _ => None,
            });
            let count = |key| counts.get(&key).copied().unwrap_or_default();
            let mut moved = state.load.moved(backend);
            for (what, sum) in moved.each() {
                *sum = sum.wrapping_add(count(Key::Moved(id, backend, what)));
            }
            let present = Present(count(Key::Present(id, backend)));
            Backend {
                name: Arc::from(&*of.name),
                in_flight: state.load.in_flight(backend).into(),
                tries: tries.collect(),
                opened: moved.opened,
                unopened: moved.unopened,
                bytes_in: moved.bytes_in,
                bytes_out: moved.bytes_out,
                times: times.clone(),
                state: present.with(of.duty),
                breaker: pool.breaker.is_some().then(|| present.breaker()),
                ejections: count(Key::Ejections(id, backend)),
                failed_probes: failed.collect(),
                failed: broken.collect(),
            }
        };
        Some(Pool {
            name: Arc::from(&*pool.name),
            queued: counts.get(&Key::Queued(id)).copied().unwrap_or_default(),
            retries: retries.collect(),
            backends: pool.backends.iter().map(backend).collect(),
        })
    }
}

fn listeners(plan: &Plan, counts: &BTreeMap<Key, u64>) -> Vec<Listener> {
    let count = |key| counts.get(&key).copied().unwrap_or_default();
    let all = plan.listeners.iter().map(|(id, listener)| {
        let last = Key::Requests(id, Some(RouteId(u16::MAX)), u16::MAX);
        let requests = counts.range(Key::Requests(id, None, 0)..=last);
        let requests = requests.filter_map(|(key, count)| match key {
            Key::Requests(_, route, code) => {
                let route = match route {
                    // One that no plan in force has any more has no name.
                    Some(route) => Some(Arc::from(&*plan.routes.get(*route)?.name)),
                    None => None,
                };
                Some(Requests { route, code: code_of(*code), count: *count })
            }
            _ => None,
        });
        Listener {
            name: Arc::from(&*listener.name),
            connections: count(Key::Connections(id)),
            idle: count(Key::Idle(id)).min(count(Key::Connections(id))),
            requests: requests.collect(),
        }
    });
    all.collect()
}

fn code_of(status: u16) -> Option<u16> {
    (status != 0).then_some(status)
}

/// The reason that is called this.
pub(in crate::observe) fn reason_of(word: &str) -> Option<Reason> {
    let failure = Failure::ALL.into_iter().find(|failure| failure.code() == word);
    let of_grpc = grpc::STATUSES.iter().find(|(known, _)| *known == word);
    failure
        .map(Reason::Failure)
        .or_else(|| of_grpc.map(|(_, status)| Reason::Grpc(*status)))
        .or_else(|| word.parse().ok().map(Reason::Status))
}

/// The word of a kind of `Key::Failed`.
fn failed_word(how: u16) -> Option<&'static str> {
    let cut = (how == CUT).then_some("response_incomplete");
    Failure::ALL.get(usize::from(how)).map(|failure| failure.code()).or(cut)
}

/// The kind that is called this.
pub(in crate::observe) fn failed_of(word: &str) -> Option<u16> {
    (0..=CUT).find(|how| failed_word(*how) == Some(word))
}

pub(in crate::observe) fn word(reason: Reason) -> Cow<'static, str> {
    match reason {
        Reason::Status(status) => status.to_string().into(),
        Reason::Failure(failure) => failure.code().into(),
        Reason::Grpc(status) => grpc::word(status).into(),
    }
}
