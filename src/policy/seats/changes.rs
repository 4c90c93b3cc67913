//! The differences between two plans, as a reload prints them: what was added, what was removed,
//! and the keys of what changed.
//!
//! Names are compared, not seats: a backend that has moved to another address has changed its
//! address, although it gets another seat. Every field of a plan is named here, so that a new key
//! cannot be forgotten.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::Named;
use crate::plan::{Backend, Global, Limits, Listener, Plan, Pool, Route};

/// What is different in the next plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The changed keys of `[global]`, including those of `limits`.
    pub(crate) global: Vec<&'static str>,
    /// By name, like the following.
    pub(crate) listeners: Vec<Change>,
    pub(crate) routes: Vec<Change>,
    pub(crate) pools: Vec<Change>,
}

/// The change of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) what: Report,
}

/// The kind of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Added,
    Removed,
    Changed {
        /// Its changed keys, by their names in the configuration.
        keys: Vec<&'static str>,
        /// The changes of its backends, if it is a pool.
        backends: Vec<Change>,
    },
}

impl Changes {
    /// The differences in `next`, which is already seated.
    pub(crate) fn between(now: &Plan, next: &Plan) -> Changes {
        let mut global = global_keys(&now.global, &next.global);
        global.extend(limits_keys(&now.limits, &next.limits));
        let of_listener = |now: &Listener, next: &Listener| changed(listener_keys(now, next));
        let of_route = |now: &Arc<Route>, next: &Arc<Route>| changed(route_keys(now, next));
        Changes {
            global,
            listeners: compare(rows(now), rows(next), of_listener),
            routes: compare(rows(now), rows(next), of_route),
            pools: compare(rows(now), rows(next), of_pool),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        let Changes { global, listeners, routes, pools } = self;
        global.is_empty() && listeners.is_empty() && routes.is_empty() && pools.is_empty()
    }
}

/// The rows of one kind by their names.
fn rows<T: Named>(plan: &Plan) -> BTreeMap<&str, &T> {
    T::all(plan).values().map(|row| (row.name(), row)).collect()
}

/// The change of each, by name.
fn compare<T>(
    now: BTreeMap<&str, &T>,
    next: BTreeMap<&str, &T>,
    changed: impl Fn(&T, &T) -> Option<Report>,
) -> Vec<Change> {
    let gone = now.keys().filter(|name| !next.contains_key(**name));
    let mut all: Vec<(&str, Report)> = gone.map(|name| (*name, Report::Removed)).collect();
    all.extend(next.iter().filter_map(|(name, next)| {
        let what = now.get(name).map_or(Some(Report::Added), |now| changed(now, next))?;
        Some((*name, what))
    }));
    all.sort_by_key(|(name, _)| *name);
    all.into_iter().map(|(name, what)| Change { name: name.to_owned(), what }).collect()
}

fn changed(keys: Vec<&'static str>) -> Option<Report> {
    (!keys.is_empty()).then_some(Report::Changed { keys, backends: Vec::new() })
}

fn of_pool(now: &Arc<Pool>, next: &Arc<Pool>) -> Option<Report> {
    if Arc::ptr_eq(now, next) {
        return None;
    }
    fn backends(pool: &Pool) -> BTreeMap<&str, &Backend> {
        pool.backends.values().map(|backend| (&*backend.name, backend)).collect()
    }
    let of_backend = |now: &Backend, next: &Backend| changed(backend_keys(now, next));
    let backends = compare(backends(now), backends(next), of_backend);
    let keys = pool_keys(now, next);
    (!keys.is_empty() || !backends.is_empty()).then_some(Report::Changed { keys, backends })
}

/// The keys whose values differ.
fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

fn global_keys(now: &Global, next: &Global) -> Vec<&'static str> {
    let Global {
        cores,
        pin,
        driver,
        instance,
        shutdown,
        log_level,
        log_format,
        admin,
        user,
        state_dir,
        webhooks,
    } = next;
    differing([
        ("cores", *cores != now.cores),
        ("pin", *pin != now.pin),
        ("driver", *driver != now.driver),
        ("admin", *admin != now.admin),
        ("instance", *instance != now.instance),
        ("state-dir", *state_dir != now.state_dir),
        ("user", *user != now.user),
        ("shutdown", *shutdown != now.shutdown),
        ("webhook", *webhooks != now.webhooks),
        ("log", (log_level, log_format) != (&now.log_level, &now.log_format)),
    ])
}

fn limits_keys(now: &Limits, next: &Limits) -> Vec<&'static str> {
    let Limits {
        connections,
        // How the number came about is no key.
        connections_written: _,
        head_bytes_max,
        line_bytes_max,
        fields_max,
        body_rate_min,
        body_bytes_max,
    } = next;
    let head = (head_bytes_max, line_bytes_max);
    differing([
        ("limits.connections", *connections != now.connections),
        ("limits.header-size", head != (&now.head_bytes_max, &now.line_bytes_max)),
        ("limits.headers", *fields_max != now.fields_max),
        ("limits.body-rate", *body_rate_min != now.body_rate_min),
        ("limits.body-size", *body_bytes_max != now.body_bytes_max),
    ])
}

fn listener_keys(now: &Listener, next: &Listener) -> Vec<&'static str> {
    let Listener {
        name: _,
        bind,
        socket_files,
        mode,
        pool,
        tls,
        protocols,
        proxies,
        trusted_proxies,
        connections_max,
        access_log,
        timeouts,
        half_close,
        backlog,
    } = next;
    differing([
        ("bind", *bind != now.bind || *socket_files != now.socket_files),
        ("mode", *mode != now.mode),
        ("pool", *pool != now.pool),
        ("tls", *tls != now.tls),
        ("protocols", *protocols != now.protocols),
        ("proxy-protocol", *proxies != now.proxies),
        ("trusted-proxies", *trusted_proxies != now.trusted_proxies),
        ("max-connections", *connections_max != now.connections_max),
        ("access-log", *access_log != now.access_log),
        ("timeouts", *timeouts != now.timeouts),
        ("half-close", *half_close != now.half_close),
        ("backlog", *backlog != now.backlog),
    ])
}

fn route_keys(now: &Route, next: &Route) -> Vec<&'static str> {
    let Route { name: _, listener, hosts, path, methods, alpn, headers, priority, pool } = next;
    differing([
        ("listener", *listener != now.listener),
        ("host", *hosts != now.hosts),
        ("path", *path != now.path),
        ("method", *methods != now.methods),
        ("alpn", *alpn != now.alpn),
        ("header", *headers != now.headers),
        ("priority", *priority != now.priority),
        ("pool", *pool != now.pool),
    ])
}

fn pool_keys(now: &Pool, next: &Pool) -> Vec<&'static str> {
    let Pool {
        name: _,
        backends: _,
        resolve,
        algorithm,
        hash_seed,
        client_cert,
        protocol,
        host,
        send_proxy,
        tls,
        health,
        passive,
        breaker,
        retry,
        sticky,
        slow_start,
        panic,
        queue,
        connections,
        timeouts,
    } = next;
    differing([
        ("resolve", *resolve != now.resolve),
        ("balance", *algorithm != now.algorithm),
        ("hash-seed", *hash_seed != now.hash_seed),
        ("client-cert", *client_cert != now.client_cert),
        ("protocol", *protocol != now.protocol),
        ("host", *host != now.host),
        ("send-proxy-protocol", *send_proxy != now.send_proxy),
        ("tls", *tls != now.tls),
        ("health", *health != now.health),
        ("passive", *passive != now.passive),
        ("breaker", *breaker != now.breaker),
        ("retry", *retry != now.retry),
        ("sticky", *sticky != now.sticky),
        ("slow-start", *slow_start != now.slow_start),
        ("panic", *panic != now.panic),
        ("queue", *queue != now.queue),
        ("connections", *connections != now.connections),
        ("timeouts", *timeouts != now.timeouts),
    ])
}

fn backend_keys(now: &Backend, next: &Backend) -> Vec<&'static str> {
    // Where a member comes from is in its name.
    let Backend { name: _, address, weight, backup, in_flight_max, duty, member: _ } = next;
    differing([
        ("address", *address != now.address),
        ("weight", *weight != now.weight),
        ("backup", *backup != now.backup),
        ("max-in-flight", *in_flight_max != now.in_flight_max),
        ("state", *duty != now.duty),
    ])
}

/// A line for each name: `+ route "canary"`, `- listener "old"`,
/// `~ pool "web": 2 backends added, 1 weight, timeouts`, `~ global: cores`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.global.is_empty() {
            writeln!(f, "~ global: {}", self.global.join(", "))?;
        }
        let Changes { global: _, listeners, routes, pools } = self;
        for (what, changes) in [("listener", listeners), ("route", routes), ("pool", pools)] {
            for Change { name, what: became } in changes {
                match became {
                    Report::Added => writeln!(f, "+ {what} \"{name}\"")?,
                    Report::Removed => writeln!(f, "- {what} \"{name}\"")?,
                    Report::Changed { keys, backends } => {
                        let mut parts = of_backends(backends);
                        parts.extend(keys.iter().map(|key| (*key).to_owned()));
                        writeln!(f, "~ {what} \"{name}\": {}", parts.join(", "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// `2 backends added`, `1 backend removed`, `3 weights`.
fn of_backends(changes: &[Change]) -> Vec<String> {
    let (mut added, mut removed) = (0, 0);
    let mut keys: Vec<(&str, usize)> = Vec::new();
    for Change { what, .. } in changes {
        match what {
            Report::Added => added += 1,
            Report::Removed => removed += 1,
            Report::Changed { keys: changed, .. } => {
                for key in changed {
                    match keys.iter_mut().find(|(other, _)| other == key) {
                        Some((_, count)) => *count += 1,
                        None => keys.push((*key, 1)),
                    }
                }
            }
        }
    }
    let some = |count: usize, one: &str, many: &str| {
        (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
    };
    let came = some(added, "backend added", "backends added");
    let gone = some(removed, "backend removed", "backends removed");
    let plural = |key: &str| match key {
        "address" => "addresses".to_owned(),
        "max-in-flight" => key.to_owned(),
        key => format!("{key}s"),
    };
    let of_keys = keys.iter().filter_map(|(key, count)| some(*count, key, &plural(key)));
    came.into_iter().chain(gone).chain(of_keys).collect()
}
