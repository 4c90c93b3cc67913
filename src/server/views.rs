//! Pools and backends as the admin interface shows them: configuration and state in one.

use serde_json::{Value, json};

use super::control::View;
use crate::admin::Pools;
use crate::config;
use crate::observe::statistics::{self, BackendState};
use crate::plan::{self, Amendment, Subject};

/// All pools of the plan in force.
pub(super) fn pools(view: &View) -> Pools {
    let of = |statistics: &statistics::Pool| {
        let plan = view.plan.pools.values().find(|pool| *pool.name == *statistics.name)?;
        Some(pool(view, plan, statistics))
    };
    let pools = view.statistics.pools.iter().filter_map(of).collect();
    Pools { generation: view.generation, pools }
}

fn pool(view: &View, pool: &plan::Pool, statistics: &statistics::Pool) -> Value {
    let backends = pool.backends.values().zip(&statistics.backends);
    let healthy = statistics.backends.iter().filter(|it| it.state == BackendState::Up);
    json!({
        "name": pool.name,
        "algorithm": config::algorithm_word(&pool.algorithm),
        "totalBackends": pool.backends.len(),
        "healthyBackends": healthy.count(),
        "queued": statistics.queued,
        "backends": backends.map(|(it, seen)| backend(view, pool, it, seen)).collect::<Vec<_>>(),
    })
}

fn backend(
    view: &View,
    pool: &plan::Pool,
    backend: &plan::Backend,
    seen: &statistics::Backend,
) -> Value {
    let address = backend.address.to_string();
    let subject = Subject {
        pool: pool.name.clone(),
        backend: backend.name.clone(),
        address: backend.address.clone(),
    };
    let is_added = matches!(view.overlay.changes.get(&subject), Some(Amendment::Added(_)));
    let total: u64 = seen.tries.iter().map(|(_, count)| count).sum();
    let times = &seen.times;
    let average = match times.count() {
        0 => 0.0,
        count => times.sum().as_secs_f64() * 1_000.0 / count as f64,
    };
    json!({
        "name": backend.name,
        "url": format!("http://{address}"),
        "address": address,
        "weight": backend.weight,
        "backup": backend.backup,
        "maxInFlight": backend.in_flight_max,
        "origin": if is_added { "run-time" } else { "configuration" },
        "state": seen.state.word(),
        "isHealthy": seen.state == BackendState::Up,
        "breaker": seen.breaker.map(statistics::BreakerState::word),
        "activeConnections": seen.in_flight,
        "totalRequests": total,
        "averageResponseTime": average,
        "ejections": seen.ejections,
    })
}
