//! Statistics: what all threads have counted, as typed values with names
//! ([`Handle::statistics`](crate::Handle::statistics)).
//!
//! A snapshot gives the counts of all threads, which are kept by seats, the names of the plan in
//! force. It is the one source of whatever shows numbers: `Handle::statistics`, and what will be
//! served of metrics, of the API and of the dashboard. `samples` says every number by the name that
//! metrics have for it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

pub use crate::base::histogram::Histogram;
use crate::base::histogram::Reading;
use crate::http::fault::Failure;
use crate::plan::{BackendId, ListenerId, Plan, PoolId, RouteId};
pub use crate::policy::standing::{BackendState, BreakerState};
use crate::policy::{health::ProbeFault, standing::Present};
pub use crate::shared::counters::{Counter, Kind};
use crate::shared::{
    counters::Slab,
    pool::PoolState,
    tally::{Key, Reason},
};

/// What a balancer has counted since its start, and what goes on in it now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// When it was read.
    pub at: SystemTime,
    /// Each core.
    pub cores: Vec<Core>,
    /// Each listener of the plan in force.
    pub listeners: Vec<Listener>,
    /// Each pool of the plan in force.
    pub pools: Vec<Pool>,
    /// Each certificate in use.
    pub certificates: Vec<Certificate>,
    /// In the order of `Counter::ALL`.
    totals: Vec<u64>,
}

/// A core.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Core {
    /// Requests that began.
    pub requests: u64,
    /// Client connections open.
    pub connections: u64,
}

/// A listener.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Client connections open.
    pub connections: u64,
    /// Exchanges that have ended.
    pub requests: Vec<Requests>,
}

/// Exchanges of a listener that have ended alike.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Requests {
    /// The route that took them; none = there was none.
    pub route: Option<Arc<str>>,
    /// The status that the client was sent; none = it was sent none.
    pub code: Option<u16>,
    /// How many.
    pub count: u64,
}

/// A pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Requests that wait in line.
    pub queued: u64,
    /// Requests asked again.
    pub retries: Vec<Retries>,
    /// Its backends.
    pub backends: Vec<Backend>,
}

/// Requests asked again for one reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// What had happened: a status, or a word.
    pub reason: Cow<'static, str>,
    /// How many.
    pub count: u64,
}

/// A backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Tries that have ended, by the status of their answers; none = there was no answer.
    pub tries: Vec<(Option<u16>, u64)>,
    /// How long its answers took to begin, from the request sent.
    pub times: Histogram,
    /// Its state.
    pub state: BackendState,
    /// The state of its circuit breaker; none = it has none.
    pub breaker: Option<BreakerState>,
    /// How often it was ejected.
    pub ejections: u64,
    /// Probes that failed, by the kind of failure.
    pub failed_probes: Vec<(&'static str, u64)>,
}

/// A certificate in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certificate {
    /// Its file, as in the configuration.
    pub file: Arc<str>,
    /// When it ends, in seconds since 1970; none = it could never be used.
    pub not_after: Option<u64>,
    /// Whether what is in its file now cannot be used.
    pub is_refused: bool,
}

/// A number by the name that metrics have for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample<'a> {
    /// The name of its family, without the prefix `ringway_`.
    pub family: &'static str,
    /// What the family is.
    pub help: &'static str,
    /// What the number does over time.
    pub kind: Kind,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    /// The number.
    pub value: Value<'a>,
}

/// What a sample says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A count.
    Count(u64),
    /// How long things took.
    Times(&'a Histogram),
}

impl Statistics {
    /// A count of the whole process.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.totals.get(counter as usize).copied().unwrap_or_default()
    }

    /// Every number, by the name that metrics have for it.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample<'_>> {
        let mut samples = Samples(Vec::new());
        for counter in Counter::ALL {
            samples.of_process(*counter, self.total(*counter));
        }
        for (core, index) in self.cores.iter().zip(0_usize..) {
            let core_label = || [("core", Cow::Owned(index.to_string()))];
            samples.add(&CORE_REQUESTS, core_label(), core.requests);
            samples.add(&CORE_CONNECTIONS, core_label(), core.connections);
        }
        self.listeners.iter().for_each(|listener| samples.of_listener(listener));
        self.pools.iter().for_each(|pool| samples.of_pool(pool));
        for Certificate { file, not_after, is_refused } in &self.certificates {
            let name = || [("name", Cow::Borrowed(&**file))];
            not_after.iter().for_each(|end| samples.add(&CERTIFICATE_END, name(), *end));
            samples.add(&CERTIFICATE_REFUSED, name(), u64::from(*is_refused));
        }
        samples.0
    }
}

/// A family of metrics: its name, what it does over time, and what it is.
type Family = (&'static str, Kind, &'static str);

#[rustfmt::skip] // tables
mod families {
    use super::{Family, Kind::{Counter, Gauge, Histogram}};

    pub(super) const CORE_REQUESTS: Family = ("core_requests_total", Counter, "Requests that began on each core");
    pub(super) const CORE_CONNECTIONS: Family = ("core_connections", Gauge, "Client connections open on each core");
    pub(super) const CONNECTIONS: Family = ("connections", Gauge, "Client connections open");
    pub(super) const REQUESTS: Family = ("requests_total", Counter, "Requests that have ended");
    pub(super) const QUEUED: Family = ("requests_queued", Gauge, "Requests that wait in front of a full pool");
    pub(super) const RETRIES: Family = ("retries_total", Counter, "Requests asked again");
    pub(super) const BACKEND_IN_FLIGHT: Family = ("backend_in_flight", Gauge, "Requests in flight at backends");
    pub(super) const BACKEND_REQUESTS: Family = ("backend_requests_total", Counter, "Tries at backends that have ended");
    pub(super) const BACKEND_UP: Family = ("backend_up", Gauge, "Whether the backend takes part: 1 or 0");
    pub(super) const BACKEND_STATE: Family = ("backend_state", Gauge, "1 for the state that the backend has");
    pub(super) const BREAKER_STATE: Family = ("breaker_state", Gauge, "1 for the state that the backend's circuit breaker has");
    pub(super) const EJECTIONS: Family = ("backend_ejections_total", Counter, "How often the backend was ejected");
    pub(super) const FAILED_PROBES: Family = ("backend_check_failures_total", Counter, "Probes of the backend that failed");
    pub(super) const CERTIFICATE_END: Family = ("tls_certificate_not_after_seconds", Gauge, "When the certificate ends, in seconds since 1970");
    pub(super) const CERTIFICATE_REFUSED: Family = ("tls_certificate_refused", Gauge, "1 where what is in its file now cannot be used, and the one before stays in use");
    pub(super) const BACKEND_RESPONSE: Family = ("backend_response_seconds", Histogram, "How long answers of backends took to begin");
}
use families::{
    BACKEND_IN_FLIGHT, BACKEND_REQUESTS, BACKEND_RESPONSE, BACKEND_STATE, BACKEND_UP,
    BREAKER_STATE, CERTIFICATE_END, CERTIFICATE_REFUSED, CONNECTIONS, CORE_CONNECTIONS,
    CORE_REQUESTS, EJECTIONS, FAILED_PROBES, QUEUED, REQUESTS, RETRIES,
};

/// Every family that a sample may be of, by its name without the prefix `ringway_`.
pub fn families() -> impl Iterator<Item = &'static str> {
    let named = [
        CORE_REQUESTS,
        CORE_CONNECTIONS,
        CONNECTIONS,
        REQUESTS,
        QUEUED,
        RETRIES,
        BACKEND_IN_FLIGHT,
        BACKEND_REQUESTS,
        BACKEND_RESPONSE,
        BACKEND_UP,
        BACKEND_STATE,
        BREAKER_STATE,
        EJECTIONS,
        FAILED_PROBES,
        CERTIFICATE_END,
        CERTIFICATE_REFUSED,
    ];
    let of_process = Counter::ALL.iter().map(|counter| counter.row().family);
    named.map(|(name, ..)| name).into_iter().chain(of_process)
}

/// Where there is no name or no code.
const NONE: &str = "-";

struct Samples<'a>(Vec<Sample<'a>>);

impl<'a> Samples<'a> {
    fn add<const LABELS: usize>(
        &mut self,
        (family, kind, help): &Family,
        labels: [(&'static str, Cow<'a, str>); LABELS],
        count: u64,
    ) {
        let value = Value::Count(count);
        self.0.push(Sample { family, kind: *kind, help, labels: labels.into(), value });
    }

    fn of_process(&mut self, counter: Counter, total: u64) {
        match counter {
            // Of each core.
            Counter::Requests | Counter::Connections => {}
            _ => {
                let row = counter.row();
                let labels = row.label.iter().map(|(name, value)| (*name, Cow::Borrowed(*value)));
                let (labels, value) = (labels.collect(), Value::Count(total));
                let (family, kind, help) = (row.family, row.kind, row.help);
                self.0.push(Sample { family, kind, help, labels, value });
            }
        }
    }

    fn of_listener(&mut self, listener: &'a Listener) {
        let name = || ("listener", Cow::Borrowed(&*listener.name));
        self.add(&CONNECTIONS, [name(), ("state", "open".into())], listener.connections);
        for Requests { route, code, count } in &listener.requests {
            let route = ("route", Cow::Borrowed(route.as_deref().unwrap_or(NONE)));
            self.add(&REQUESTS, [name(), route, ("code", said(*code))], *count);
        }
    }

    fn of_pool(&mut self, pool: &'a Pool) {
        let name = || ("pool", Cow::Borrowed(&*pool.name));
        self.add(&QUEUED, [name()], pool.queued);
        for Retries { reason, count } in &pool.retries {
            self.add(&RETRIES, [name(), ("reason", reason.clone())], *count);
        }
        pool.backends.iter().for_each(|backend| self.of_backend(&pool.name, backend));
    }

    fn of_backend(&mut self, pool: &'a str, backend: &'a Backend) {
        let both = || [("pool", pool.into()), ("backend", Cow::Borrowed(&*backend.name))];
        let with = |label: &'static str, value| {
            let [pool, backend] = both();
            [pool, backend, (label, value)]
        };
        self.add(&BACKEND_UP, both(), u64::from(backend.state == BackendState::Up));
        for state in BackendState::ALL {
            let labels = with("state", state.word().into());
            self.add(&BACKEND_STATE, labels, u64::from(backend.state == state));
        }
        for state in BreakerState::ALL.into_iter().filter(|_| backend.breaker.is_some()) {
            let labels = with("state", state.word().into());
            self.add(&BREAKER_STATE, labels, u64::from(backend.breaker == Some(state)));
        }
        self.add(&EJECTIONS, both(), backend.ejections);
        for (reason, count) in &backend.failed_probes {
            self.add(&FAILED_PROBES, with("reason", (*reason).into()), *count);
        }
        self.add(&BACKEND_IN_FLIGHT, both(), backend.in_flight);
        for (code, count) in &backend.tries {
            self.add(&BACKEND_REQUESTS, with("code", said(*code)), *count);
        }
        let (family, kind, help) = BACKEND_RESPONSE;
        let (labels, value) = (both().into(), Value::Times(&backend.times));
        self.0.push(Sample { family, kind, help, labels, value });
    }
}

fn said<'a>(code: Option<u16>) -> Cow<'a, str> {
    code.map_or(NONE.into(), |code| code.to_string().into())
}

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
}

impl Sources {
    /// The slabs of all threads that count, those of so many cores first.
    pub(crate) fn new(slabs: Vec<Arc<Slab>>, cores: usize) -> Sources {
        Sources { slabs, cores, times: HashMap::new() }
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
            }
            stays
        });
        let is_gone = |key| match key {
            Key::Connections(_) | Key::Queued(_) => false,
            Key::Requests(listener, route, _) => {
                let has_route = route.is_none_or(|route| named.routes.contains(&route));
                !(named.listeners.contains(&listener) && has_route)
            }
            Key::Retries(pool, _) => !named.pools.contains(&pool),
            Key::Tries(pool, backend, _) => !named.backends.contains(&(pool, backend)),
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
        Statistics { at, cores, listeners, pools, certificates: Vec::new(), totals }
    }

    fn pool(
        &mut self,
        plan: &Plan,
        (id, state): (PoolId, &PoolState),
        counts: &BTreeMap<Key, u64>,
    ) -> Option<Pool> {
        let pool = plan.pools.get(id)?;
        let reasons = Reason::Status(0)..=Reason::Failure(Failure::Ours);
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
            let count = |key| counts.get(&key).copied().unwrap_or_default();
            let present = Present(count(Key::Present(id, backend)));
            Backend {
                name: Arc::from(&*of.name),
                in_flight: state.load.in_flight(backend).into(),
                tries: tries.collect(),
                times: times.clone(),
                state: present.with(of.duty),
                breaker: pool.breaker.is_some().then(|| present.breaker()),
                ejections: count(Key::Ejections(id, backend)),
                failed_probes: failed.collect(),
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
            requests: requests.collect(),
        }
    });
    all.collect()
}

fn code_of(status: u16) -> Option<u16> {
    (status != 0).then_some(status)
}

fn word(reason: Reason) -> Cow<'static, str> {
    match reason {
        Reason::Status(status) => status.to_string().into(),
        Reason::Failure(failure) => failure.code().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{backend_set::BackendSet, moment::Micros};
    use crate::plan::{ListenerId, RouteId};
    use crate::policy::standing::State;

    const TEXT: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                        [[route]]\nname = \"api\"\npath = \"/v1\"\npool = \"app\"\n\
                        [pool.app]\nbackends = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
                        breaker = {}\n";

    const WEB: ListenerId = ListenerId(0);
    const APP: PoolId = PoolId(0);

    /// Two cores and one more thread, and a pool of two backends.
    struct Stage {
        plan: Plan,
        slabs: Vec<Arc<Slab>>,
        state: Arc<PoolState>,
        sources: Sources,
    }

    impl Stage {
        fn new() -> Stage {
            let plan = crate::config::parse("statistics.toml", TEXT).unwrap().plan.into_plan();
            let slabs: Vec<_> = (0..3).map(|_| Slab::new()).collect();
            let state = PoolState::new(2, &BackendSet::first(2), 0);
            state.grow(2);
            let sources = Sources::new(slabs.clone(), 2);
            Stage { plan, slabs, state: Arc::new(state), sources }
        }

        fn snapshot(&mut self) -> Statistics {
            let state = Arc::clone(&self.state);
            self.sources.snapshot(SystemTime::UNIX_EPOCH, &self.plan, |pool| {
                (pool == APP).then_some(&*state)
            })
        }

        fn count(&self, thread: usize, key: Key, count: u64) {
            self.slabs[thread].tally().add(key, count);
        }
    }

    /// Those that are not nought, as metrics have them.
    fn lines(statistics: &Statistics) -> Vec<String> {
        let line = |sample: Sample<'_>| {
            let count = match sample.value {
                Value::Count(0) => return None,
                Value::Count(count) => count,
                Value::Times(times) => Some(times.count()).filter(|count| *count > 0)?,
            };
            let labels = sample.labels.iter().map(|(name, value)| format!("{name}={value}"));
            let labels: Vec<_> = labels.collect();
            Some(format!("{}{{{}}} {count}", sample.family, labels.join(",")))
        };
        statistics.samples().into_iter().filter_map(line).collect()
    }

    #[test]
    fn every_count_is_said_by_its_name_and_labels() {
        let mut stage = Stage::new();
        stage.slabs[0].add(Counter::Accepted, 3);
        stage.slabs[1].add(Counter::RejectedDescriptors, 4);
        stage.slabs[2].add(Counter::AccessLogDropped, 5);
        stage.slabs[0].add(Counter::Requests, 6);
        stage.slabs[1].add(Counter::Connections, 7);
        let ejected_and_open = Present::default().after(State::Ejected).after(State::Open);
        for (thread, key, count) in [
            (0, Key::Connections(WEB), 5),
            (1, Key::Connections(WEB), 2),
            (0, Key::Requests(WEB, None, 404), 1),
            (0, Key::Requests(WEB, Some(RouteId(0)), 200), 20),
            (1, Key::Requests(WEB, Some(RouteId(0)), 200), 30),
            (1, Key::Requests(WEB, Some(RouteId(0)), 0), 2),
            (0, Key::Requests(WEB, Some(RouteId(9)), 200), 9),
            (0, Key::Queued(APP), 4),
            (0, Key::Retries(APP, Reason::Status(503)), 2),
            (1, Key::Retries(APP, Reason::Failure(Failure::Connect)), 3),
            (0, Key::Tries(APP, BackendId(1), 200), 50),
            (0, Key::Tries(APP, BackendId(1), 0), 6),
            (0, Key::Tries(PoolId(9), BackendId(1), 200), 50),
            (2, Key::Present(APP, BackendId(1)), ejected_and_open.0),
            (2, Key::Ejections(APP, BackendId(1)), 8),
            (2, Key::FailedProbes(APP, BackendId(0), ProbeFault::Status(500).kind()), 3),
        ] {
            stage.count(thread, key, count);
        }
        stage.state.load.row(1, BackendId(0)).unwrap().begin();
        stage.state.times.of(0, BackendId(1)).unwrap().record(Micros(1_500));
        let expected = [
            "connections_accepted_total{} 3",
            "connections_rejected_total{reason=descriptors} 4",
            "access_log_dropped_total{} 5",
            "core_requests_total{core=0} 6",
            "core_connections{core=1} 7",
            "connections{listener=web,state=open} 7",
            "requests_total{listener=web,route=-,code=404} 1",
            "requests_total{listener=web,route=api,code=-} 2",
            "requests_total{listener=web,route=api,code=200} 50",
            "requests_queued{pool=app} 4",
            "retries_total{pool=app,reason=503} 2",
            "retries_total{pool=app,reason=connect_failure} 3",
            "backend_up{pool=app,backend=10.0.0.1:80} 1",
            "backend_state{pool=app,backend=10.0.0.1:80,state=up} 1",
            "breaker_state{pool=app,backend=10.0.0.1:80,state=closed} 1",
            "backend_check_failures_total{pool=app,backend=10.0.0.1:80,reason=status} 3",
            "backend_in_flight{pool=app,backend=10.0.0.1:80} 1",
            "backend_state{pool=app,backend=10.0.0.2:80,state=ejected} 1",
            "breaker_state{pool=app,backend=10.0.0.2:80,state=open} 1",
            "backend_ejections_total{pool=app,backend=10.0.0.2:80} 8",
            "backend_requests_total{pool=app,backend=10.0.0.2:80,code=-} 6",
            "backend_requests_total{pool=app,backend=10.0.0.2:80,code=200} 50",
            "backend_response_seconds{pool=app,backend=10.0.0.2:80} 1",
        ];
        let statistics = stage.snapshot();
        assert_eq!(lines(&statistics), expected);
        assert_eq!(statistics.total(Counter::Accepted), 3);
        for sample in statistics.samples() {
            assert!(families().any(|family| family == sample.family), "{}", sample.family);
            assert_eq!(sample.kind == Kind::Counter, sample.family.ends_with("_total"));
        }
    }

    #[test]
    fn times_grow_from_snapshot_to_snapshot() {
        let mut stage = Stage::new();
        let record = |stage: &Stage, core, micros| {
            stage.state.times.of(core, BackendId(0)).unwrap().record(Micros(micros));
        };
        record(&stage, 0, 100);
        let first = stage.snapshot();
        record(&stage, 1, 300);
        let (second, third) = (stage.snapshot(), stage.snapshot());
        let count = |statistics: &Statistics| statistics.pools[0].backends[0].times.count();
        assert_eq!([&first, &second, &third].map(count), [1, 2, 2]);
        assert_eq!(third.pools[0].backends[0].times.sum().as_micros(), 400);
    }

    #[test]
    fn what_gets_the_seat_of_another_begins_at_nought() {
        let mut stage = Stage::new();
        let count = |stage: &Stage| {
            for backend in [BackendId(0), BackendId(1)] {
                stage.state.times.of(0, backend).unwrap().record(Micros(100));
                stage.count(0, Key::Tries(APP, backend, 200), 1);
            }
            stage.count(0, Key::Requests(WEB, Some(RouteId(0)), 200), 1);
            stage.count(0, Key::Requests(WEB, None, 200), 1);
            stage.count(0, Key::Connections(WEB), 1);
        };
        count(&stage);
        stage.snapshot();
        count(&stage);
        let mut named = Named::default();
        let mut plan = stage.plan.clone();
        plan.pools.get_mut(APP).unwrap().backends.remove(BackendId(0));
        plan.routes.remove(RouteId(0));
        named.add(&plan);
        let state = Arc::clone(&stage.state);
        stage.sources.forget(&named, |_| Some(&*state));
        let is_counted = |line: &String| {
            !line.starts_with("backend_up")
                && !line.contains("state=up")
                && !line.contains("state=closed")
        };
        let after: Vec<_> = lines(&stage.snapshot()).into_iter().filter(is_counted).collect();
        let expected = [
            "connections{listener=web,state=open} 2",
            "requests_total{listener=web,route=-,code=200} 2",
            "backend_requests_total{pool=app,backend=10.0.0.2:80,code=200} 2",
            "backend_response_seconds{pool=app,backend=10.0.0.2:80} 2",
        ];
        assert_eq!(after, expected);
        count(&stage);
        let after = lines(&stage.snapshot());
        assert!(after.contains(&"requests_total{listener=web,route=api,code=200} 1".to_owned()));
    }
}
