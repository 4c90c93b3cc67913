//! What runs, as the admin interface shows it: pools and backends with their configuration and
//! their state in one, and everything that is counted.
//!
//! Times are milliseconds, moments are dates. A state has its reason, and since when it is so.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

use super::control::{Client, View};
use crate::admin::Pools;
use crate::base::moment::{UnixMillis, millis};
use crate::config::{self, Lookup as _, Machine};
use crate::health::{Probed, SeenBackend};
use crate::observe::{
    dates::Dates,
    statistics::{self, BackendState, BreakerState, Counter, Histogram, Statistics},
};
use crate::plan::{self, Amendment, Subject};

/// All pools of the plan in force.
pub(super) fn pools(view: &View) -> Pools {
    let of = |statistics: &statistics::Pool| {
        let mut plan = view.plan.pools.iter();
        let (id, plan) = plan.find(|(_, pool)| *pool.name == *statistics.name)?;
        Some(pool(view, (id, plan), statistics))
    };
    let pools = view.statistics.pools.iter().filter_map(of).collect();
    Pools { generation: view.generation, pools }
}

/// Lets others have the processor now and then, in a loop over backends: it may be that of a core,
/// and a thousand of them are 10 ms and more.
pub(super) fn make_way(place: usize) {
    const BACKENDS: usize = 16;
    if place % BACKENDS == BACKENDS - 1 {
        thread::yield_now();
    }
}

/// The certificates in use.
pub(super) fn certificates(client: &Client) -> Vec<Value> {
    let now = Machine.now();
    client.certificates().iter().map(|held| held.json(now)).collect()
}

/// Everything that is counted.
pub(super) fn stats(view: &View) -> Value {
    let statistics = &view.statistics;
    let Pools { generation, pools } = pools(view);
    let cores = statistics.cores.iter().zip(0_usize..).map(|(core, index)| {
        let statistics::Core { requests, connections, busy, cpu, .. } = core;
        json!({
            "core": index, "requests": requests, "connections": connections, "busy": busy,
            "cpuSeconds": cpu.map(|cpu| cpu.as_secs_f64()),
        })
    });
    let listeners = statistics.listeners.iter().map(|listener| {
        json!({
            "name": &*listener.name,
            "connections": listener.connections,
            "idle": listener.idle,
            "requests": listener.requests.iter().map(|it| it.count).sum::<u64>(),
            "byCode": by_code(listener.requests.iter().map(|it| (it.code, it.count))),
        })
    });
    let phases =
        statistics.phases.iter().map(|(phase, times)| (phase.word().to_owned(), spread(times)));
    json!({
        "at": date(statistics.at),
        "generation": generation,
        "pools": pools,
        "routes": routes(statistics),
        "listeners": listeners.collect::<Vec<_>>(),
        "cores": cores.collect::<Vec<_>>(),
        "requests": totals(statistics),
        "ownTime": spread(&statistics.own_times),
        "phases": phases.collect::<Map<_, _>>(),
    })
}

/// Counts of the whole process.
fn totals(statistics: &Statistics) -> Value {
    let total = |counter| statistics.total(counter);
    json!({
        "inFlight": total(Counter::InFlight),
        "tunnels": total(Counter::Tunnels),
        "accepted": total(Counter::Accepted),
        "bytesIn": total(Counter::RequestBytes),
        "bytesOut": total(Counter::ResponseBytes),
        "refused": total(Counter::Refused),
        "clientsLeft": total(Counter::ClientAborts),
        "cut": total(Counter::Incomplete),
        "connectionsOpened": total(Counter::BackendOpened),
        "connectionsReused": total(Counter::BackendReuse),
        "connectionsIdle": total(Counter::BackendIdle),
        "accessLogDropped": total(Counter::AccessLogDropped),
    })
}

/// Requests and times of each route, those that no route took included.
fn routes(statistics: &Statistics) -> Vec<Value> {
    let listeners = statistics.listeners.iter();
    let requests: Vec<_> = listeners.flat_map(|listener| &listener.requests).collect();
    let mut names: Vec<_> = requests.iter().map(|it| it.route.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let route = |name: Option<&str>| {
        let own = requests.iter().filter(|it| it.route.as_deref() == name);
        let own: Vec<_> = own.map(|it| (it.code, it.count)).collect();
        let times = statistics.routes.iter().find(|route| route.name.as_deref() == name);
        json!({
            "name": name,
            "requests": own.iter().map(|(_, count)| count).sum::<u64>(),
            "byCode": by_code(own.into_iter()),
            "time": times.map_or(Value::Null, |route| spread(&route.times)),
        })
    };
    names.into_iter().map(route).collect()
}

fn pool(view: &View, (id, pool): (plan::PoolId, &plan::Pool), counted: &statistics::Pool) -> Value {
    let each = pool.backends.iter().zip(&counted.backends).enumerate();
    let backends: Vec<Value> = each
        .map(|(place, ((seat, it), counted))| {
            make_way(place);
            backend(view, pool, it, (counted, view.seen.get(&(id, seat))))
        })
        .collect();
    let healthy = backends.iter().filter(|it| it["isHealthy"] == true).count();
    let retries = counted.retries.iter().map(|it| (it.reason.to_string(), json!(it.count)));
    json!({
        "name": pool.name,
        "algorithm": config::algorithm_word(&pool.algorithm),
        "totalBackends": pool.backends.len(),
        "healthyBackends": healthy,
        "queued": counted.queued,
        "queueMax": pool.queue.size,
        "retries": retries.collect::<Map<_, _>>(),
        "backends": backends,
    })
}

fn backend(
    view: &View,
    pool: &plan::Pool,
    backend: &plan::Backend,
    (counted, seen): (&statistics::Backend, Option<&SeenBackend>),
) -> Value {
    let address = backend.address.to_string();
    let subject = Subject {
        pool: pool.name.clone(),
        backend: backend.name.clone(),
        address: backend.address.clone(),
    };
    let entry = backend.member.as_ref().map(|member| &member.entry);
    let is_added = match entry {
        None => matches!(view.overlay.changes.get(&subject), Some(Amendment::Added(_))),
        Some(entry) => view.overlay.changes.iter().any(|(subject, it)| {
            matches!(it, Amendment::Added(_))
                && (&subject.pool, &subject.backend) == (&pool.name, entry)
        }),
    };
    let total: u64 = counted.tries.iter().map(|(_, count)| count).sum();
    let by_reason = counted.errors().map(|(reason, count)| (reason.into_owned(), json!(count)));
    let unanswered = counted.tries.iter().find(|(code, _)| code.is_none());
    let scheme = if pool.tls.is_some() { "https" } else { "http" };
    let (state, reason, lasted) = state(counted, seen);
    let since = lasted.and_then(|lasted| view.statistics.at.checked_sub(lasted));
    json!({
        "name": backend.name,
        "entry": entry,
        "url": format!("{scheme}://{address}"),
        "address": address,
        "weight": backend.weight,
        "backup": backend.backup,
        "maxInFlight": backend.in_flight_max,
        "origin": if is_added { "run-time" } else { "configuration" },
        "state": state,
        "isHealthy": state == BackendState::Up.word(),
        "reason": reason,
        "since": since.map(date),
        "breaker": counted.breaker.map(BreakerState::word),
        "activeConnections": counted.in_flight,
        "totalRequests": total,
        "unanswered": unanswered.map_or(0, |(_, count)| *count),
        "errors": counted.errors().map(|(_, count)| count).sum::<u64>(),
        "errorsByReason": by_reason.collect::<Map<_, _>>(),
        "bytesIn": counted.bytes_in,
        "bytesOut": counted.bytes_out,
        "connectionsOpened": counted.opened,
        "connectionsFailed": counted.unopened,
        "connectionsReused": total.saturating_sub(counted.opened + counted.unopened),
        "byCode": by_code(counted.tries.iter().copied()),
        "averageResponseTime": average(&counted.times).unwrap_or(0.0),
        "responseTime": spread(&counted.times),
        "ejections": counted.ejections,
        "failedProbes": counted.failed_probes.iter()
            .map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect::<Map<_, _>>(),
        "lastProbe": seen.and_then(|seen| seen.probe).map(|it| probe(view.statistics.at, it)),
    })
}

/// The state of a backend, why, and for how long.
fn state(
    counted: &statistics::Backend,
    seen: Option<&SeenBackend>,
) -> (&'static str, String, Option<Duration>) {
    let word = counted.state.word();
    let Some(seen) = seen.map(|it| &it.seen) else { return (word, String::new(), None) };
    let why = |respect: usize, before: &str, otherwise: &str| {
        let (lasted, cause) = seen.respects[respect];
        let why = cause.map_or(otherwise.to_owned(), |cause| cause.to_string());
        (word, format!("{before}{why}"), Some(lasted))
    };
    let by_operator = |what: &str| (word, what.to_owned(), Some(seen.decided));
    match (counted.state, counted.breaker) {
        (BackendState::Maintenance, _) => by_operator("set by an operator"),
        (BackendState::Draining, _) => by_operator("set by an operator: no new traffic"),
        _ if !seen.has_address => ("down", "its name has no address".to_owned(), None),
        (BackendState::Down, _) => why(0, "probes fail: ", "not probed yet"),
        (BackendState::Ejected, _) => why(1, "left out: ", "its answers"),
        (BackendState::Up, Some(BreakerState::Open)) => {
            why(2, "circuit breaker open: ", "its answers")
        }
        (BackendState::Up, Some(BreakerState::HalfOpen)) => {
            why(2, "circuit breaker half-open: ", "trial requests")
        }
        (BackendState::Up, _) => {
            // The last thing that changed.
            let last = (0..2).min_by_key(|respect| seen.respects[*respect].0).unwrap_or(0);
            why(last, "", "nothing has failed")
        }
    }
}

fn probe(now: SystemTime, Probed { ago, result, took }: Probed) -> Value {
    let at = now.checked_sub(ago).map(date);
    let result = result.map_or_else(|fault| fault.to_string(), |()| "ok".to_owned());
    json!({ "at": at, "result": result, "ms": took.0 as f64 / 1_000.0 })
}

/// Counts by status; `-` = there was no answer.
fn by_code(counts: impl Iterator<Item = (Option<u16>, u64)>) -> Value {
    let mut sums = std::collections::BTreeMap::<String, u64>::new();
    for (code, count) in counts {
        *sums.entry(code.map_or("-".to_owned(), |code| code.to_string())).or_default() += count;
    }
    json!(sums)
}

/// Count, average and quantiles, in milliseconds.
pub(super) fn spread(times: &Histogram) -> Value {
    let quantile = |share| times.quantile(share).map(ms);
    json!({
        "count": times.count(),
        "average": average(times),
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
    })
}

fn average(times: &Histogram) -> Option<f64> {
    (times.count() > 0).then(|| ms(times.sum()) / times.count() as f64)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// As in logs (RFC 3339, in UTC).
pub(super) fn date(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut dates = Dates::default();
    String::from_utf8_lossy(dates.rfc3339(UnixMillis(millis(since)))).into_owned()
}
