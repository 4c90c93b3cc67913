//! Samples: every number of the statistics by the name and labels that metrics have for it.
//!
//! A family has its name, its kind and its sentence here; those of the whole process have them in
//! `shared/counters.rs`. Nothing is counted here.

use std::{borrow::Cow, time::SystemTime};

use super::{
    Backend, BackendState, BreakerState, Certificate, Counter, Histogram, Kind, Listener, Pool,
    Process, Requests, Retries, Route, Statistics,
};

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
    /// A share, or seconds.
    Number(f64),
}

impl Statistics {
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
            samples.number(&CORE_LOAD, core_label(), core.load);
            for (state, moved) in [("new", core.moved_new), ("idle", core.moved_idle)] {
                let [core] = core_label();
                samples.add(&CORE_MOVED, [core, ("state", state.into())], moved);
            }
            core.busy.iter().for_each(|busy| samples.number(&CORE_BUSY, core_label(), *busy));
        }
        self.listeners.iter().for_each(|listener| samples.of_listener(listener));
        let in_use = self.pools.iter().flat_map(|pool| &pool.backends).map(|it| it.in_flight).sum();
        samples.add(&BACKEND_CONNECTIONS, [("state", "active".into())], in_use);
        self.pools.iter().for_each(|pool| samples.of_pool(pool));
        for Certificate { file, not_after, is_refused } in &self.certificates {
            let name = || [("name", Cow::Borrowed(&**file))];
            not_after.iter().for_each(|end| samples.add(&CERTIFICATE_END, name(), *end));
            samples.add(&CERTIFICATE_REFUSED, name(), u64::from(*is_refused));
        }
        for Route { name, times } in &self.routes {
            let route = name.as_deref().unwrap_or(NONE).into();
            samples.times(&REQUEST_SECONDS, [("route", route)], times);
        }
        samples.add(&CONFIG_GENERATION, [], self.config_generation);
        let successful = u64::from(self.config_last_reload_successful);
        samples.add(&CONFIG_RELOADED, [], successful);
        samples.times(&SELF_SECONDS, [], &self.own_times);
        for (phase, times) in &self.phases {
            samples.times(&PHASE_SECONDS, [("phase", phase.word().into())], times);
        }
        let version = [("version", Cow::Borrowed(env!("CARGO_PKG_VERSION")))];
        samples.add(&BUILD, version, 1);
        samples.of_the_kernel(&self.process);
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
    pub(super) const CORE_MOVED: Family = ("connections_moved_total", Counter, "Client connections that each core has handed over to one that was less busy");
    pub(super) const CORE_LOAD: Family = ("core_load_ratio", Gauge, "The share of the last half second in which the core's thread was running or waiting for a processor");
    pub(super) const CORE_BUSY: Family = ("core_busy_ratio", Gauge, "The share of the last second in which the core's thread was running");
    pub(super) const BUILD: Family = ("build_info", Gauge, "1, with the version of the program");
    pub(super) const BACKEND_CONNECTIONS: Family = ("backend_connections", Gauge, "Connections to backends: in use by requests and tunnels, or idle");
    pub(super) const PROCESS_CPU: Family = ("process_cpu_seconds_total", Counter, "Total user and system CPU time spent in seconds");
    pub(super) const PROCESS_MEMORY: Family = ("process_resident_memory_bytes", Gauge, "Resident memory size in bytes");
    pub(super) const PROCESS_DESCRIPTORS: Family = ("process_open_fds", Gauge, "Number of open file descriptors");
    pub(super) const PROCESS_STARTED: Family = ("process_start_time_seconds", Gauge, "Start time of the process since unix epoch in seconds");
    pub(super) const CONFIG_GENERATION: Family = ("config_generation", Gauge, "The number of the plan in force");
    pub(super) const CONFIG_RELOADED: Family = ("config_last_reload_successful", Gauge, "Whether the last reload was taken: 1 or 0");
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
    pub(super) const FAILED: Family = ("backend_failures_total", Counter, "Tries at the backend without an answer that was used, or with one that was cut");
    pub(super) const FAILED_PROBES: Family = ("backend_check_failures_total", Counter, "Probes of the backend that failed");
    pub(super) const CERTIFICATE_END: Family = ("tls_certificate_not_after_seconds", Gauge, "When the certificate ends, in seconds since 1970");
    pub(super) const CERTIFICATE_REFUSED: Family = ("tls_certificate_refused", Gauge, "1 where what is in its file now cannot be used, and the one before stays in use");
    pub(super) const REQUEST_SECONDS: Family = ("request_duration_seconds", Histogram, "How long requests took, from their whole head to their end");
    pub(super) const SELF_SECONDS: Family = ("self_duration_seconds", Histogram, "What of that was spent in Ringway, not waiting for either peer");
    pub(super) const PHASE_SECONDS: Family = ("phase_seconds", Histogram, "What of that was spent in each phase");
    pub(super) const BACKEND_RESPONSE: Family = ("backend_response_seconds", Histogram, "How long answers of backends took to begin");
}
use families::{
    BACKEND_CONNECTIONS, BACKEND_IN_FLIGHT, BACKEND_REQUESTS, BACKEND_RESPONSE, BACKEND_STATE,
    BACKEND_UP, BREAKER_STATE, BUILD, CERTIFICATE_END, CERTIFICATE_REFUSED, CONFIG_GENERATION,
    CONFIG_RELOADED, CONNECTIONS, CORE_BUSY, CORE_CONNECTIONS, CORE_LOAD, CORE_MOVED,
    CORE_REQUESTS, EJECTIONS, FAILED, FAILED_PROBES, PHASE_SECONDS, PROCESS_CPU,
    PROCESS_DESCRIPTORS, PROCESS_MEMORY, PROCESS_STARTED, QUEUED, REQUEST_SECONDS, REQUESTS,
    RETRIES, SELF_SECONDS,
};

/// Every family that a sample may be of, by its name without the prefix `ringway_`.
pub fn families() -> impl Iterator<Item = &'static str> {
    let named = [
        CORE_REQUESTS,
        CORE_CONNECTIONS,
        CORE_MOVED,
        CORE_LOAD,
        CORE_BUSY,
        BUILD,
        BACKEND_CONNECTIONS,
        PROCESS_CPU,
        PROCESS_MEMORY,
        PROCESS_DESCRIPTORS,
        PROCESS_STARTED,
        CONFIG_GENERATION,
        CONFIG_RELOADED,
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
        FAILED,
        FAILED_PROBES,
        CERTIFICATE_END,
        CERTIFICATE_REFUSED,
        REQUEST_SECONDS,
        SELF_SECONDS,
        PHASE_SECONDS,
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

    fn times<const LABELS: usize>(
        &mut self,
        (family, kind, help): &Family,
        labels: [(&'static str, Cow<'a, str>); LABELS],
        times: &'a Histogram,
    ) {
        let value = Value::Times(times);
        self.0.push(Sample { family, kind: *kind, help, labels: labels.into(), value });
    }

    fn number<const LABELS: usize>(
        &mut self,
        (family, kind, help): &Family,
        labels: [(&'static str, Cow<'a, str>); LABELS],
        number: f64,
    ) {
        let value = Value::Number(number);
        self.0.push(Sample { family, kind: *kind, help, labels: labels.into(), value });
    }

    fn of_the_kernel(&mut self, process: &Process) {
        let Process { cpu, resident_bytes, open_descriptors, started } = process;
        cpu.iter().for_each(|cpu| self.number(&PROCESS_CPU, [], cpu.as_secs_f64()));
        resident_bytes.iter().for_each(|bytes| self.add(&PROCESS_MEMORY, [], *bytes));
        open_descriptors.iter().for_each(|open| self.add(&PROCESS_DESCRIPTORS, [], *open));
        let since = |at: &SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        let started = started.as_ref().and_then(since);
        started.iter().for_each(|at| self.number(&PROCESS_STARTED, [], at.as_secs_f64()));
    }

    fn of_process(&mut self, counter: Counter, total: u64) {
        match counter {
            // Of each core.
            Counter::Requests | Counter::Connections | Counter::MovedNew | Counter::MovedIdle => {}
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
        let active = listener.connections.saturating_sub(listener.idle);
        self.add(&CONNECTIONS, [name(), ("state", "active".into())], active);
        self.add(&CONNECTIONS, [name(), ("state", "idle".into())], listener.idle);
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
        for (reason, count) in &backend.failed {
            self.add(&FAILED, with("reason", (*reason).into()), *count);
        }
        self.add(&BACKEND_IN_FLIGHT, both(), backend.in_flight);
        for (code, count) in &backend.tries {
            self.add(&BACKEND_REQUESTS, with("code", said(*code)), *count);
        }
        self.times(&BACKEND_RESPONSE, both(), &backend.times);
    }
}

fn said<'a>(code: Option<u16>) -> Cow<'a, str> {
    code.map_or(NONE.into(), |code| code.to_string().into())
}
