//! A second of traffic: what lies between two snapshots of the statistics, as rates and times.
//!
//! Pure. The `summary` of all traffic is kept for those who look later; a `frame` has pools,
//! backends, routes and cores beside it, and is made only while somebody looks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::base::moment::millis;
use crate::observe::statistics::{Backend, Counter, Histogram, Pool, Statistics};
use crate::plan::Plan;

/// Upper bounds of the rows of the heat map, in microseconds; one more row has all longer times.
pub(super) const HEAT: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];

/// A pool and a backend.
pub(super) type Named = (Arc<str>, Arc<str>);

/// Two snapshots, and how many seconds lie between them.
pub(super) struct Span<'a> {
    before: &'a Statistics,
    now: &'a Statistics,
    seconds: f64,
}

impl<'a> Span<'a> {
    pub(super) fn between(before: &'a Statistics, now: &'a Statistics) -> Span<'a> {
        let time = now.at.duration_since(before.at).unwrap_or_default();
        Span { before, now, seconds: time.as_secs_f64().max(0.001) }
    }

    fn rate(&self, now: u64, before: u64) -> f64 {
        rounded(now.saturating_sub(before) as f64 / self.seconds)
    }

    fn rate_of(&self, counter: Counter) -> f64 {
        self.rate(self.now.total(counter), self.before.total(counter))
    }

    /// All traffic.
    pub(super) fn summary(&self) -> Value {
        let Span { now, before, .. } = self;
        let (ended, earlier) = (by_class(now), by_class(before));
        let classes = ended.iter().zip(earlier).map(|(now, before)| self.rate(*now, before));
        let times = all_times(now).since(&all_times(before));
        let of = |connections: fn(&crate::observe::statistics::Listener) -> u64| {
            now.listeners.iter().map(connections).sum::<u64>()
        };
        let at = now.at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "at": millis(at),
            "requests": self.rate(ended.iter().sum(), earlier.iter().sum()),
            "classes": classes.collect::<Vec<_>>(),
            "inFlight": now.total(Counter::InFlight),
            "queued": now.pools.iter().map(|pool| pool.queued).sum::<u64>(),
            "connections": of(|listener| listener.connections),
            "idle": of(|listener| listener.idle),
            "bytesIn": self.rate_of(Counter::RequestBytes),
            "bytesOut": self.rate_of(Counter::ResponseBytes),
            "times": quantiles(&times),
            "own": quantiles(&now.own_times.since(&before.own_times)),
            "heat": heat(&times),
        })
    }

    /// Requests and times of each backend, by pool and name.
    pub(super) fn backends(&self) -> HashMap<(&'a str, &'a str), Value> {
        let earlier = each_backend(self.before);
        let one = |(key, now): ((&'a str, &'a str), &Backend)| {
            let before = earlier.get(&key);
            let errors = |of: &Backend| of.errors().map(|(_, count)| count).sum::<u64>();
            let times =
                before.map_or_else(|| now.times.clone(), |before| now.times.since(&before.times));
            let row = json!({
                "rate": self.rate(tries(now), before.map_or(0, |it| tries(it))),
                "errors": self.rate(errors(now), before.map_or(0, |it| errors(it))),
                "times": quantiles(&times),
            });
            (key, row)
        };
        each_backend(self.now).into_iter().map(one).collect()
    }

    /// Requests a second of each backend, by pool and name.
    pub(super) fn rates(&self) -> Vec<(Named, f64)> {
        let earlier = each_backend(self.before);
        let of = |(pool, backend): (&'a Pool, &'a Backend)| {
            let before = earlier.get(&(&*pool.name, &*backend.name)).map_or(0, |it| tries(it));
            let key = (Arc::clone(&pool.name), Arc::clone(&backend.name));
            (key, self.rate(tries(backend), before))
        };
        let each = |pool: &'a Pool| pool.backends.iter().map(move |backend| (pool, backend));
        self.now.pools.iter().flat_map(each).map(of).collect()
    }

    /// Requests, errors and times of each route.
    pub(super) fn routes(&self) -> Vec<Value> {
        let (ended, earlier) = (by_route(self.now), by_route(self.before));
        let nothing = Histogram::default();
        let times = |of: &'a Statistics, name: &Option<&str>| {
            let mut routes = of.routes.iter();
            routes.find(|route| route.name.as_deref() == *name).map(|route| &route.times)
        };
        let mut rows: Vec<_> = ended.into_iter().collect();
        rows.sort_unstable_by_key(|(name, _)| *name);
        let row = |(name, (all, failed)): (Option<&str>, (u64, u64))| {
            let (all_before, failed_before) = earlier.get(&name).copied().unwrap_or_default();
            let now = times(self.now, &name).unwrap_or(&nothing);
            let took = now.since(times(self.before, &name).unwrap_or(&nothing));
            json!({
                "name": name,
                "rate": self.rate(all, all_before),
                "errors": self.rate(failed, failed_before),
                "requests": all,
                "times": quantiles(&took),
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// Requests of each core, its connections, and how busy it is.
    pub(super) fn cores(&self, busy: &[Option<f64>]) -> Vec<Value> {
        let cores = self.now.cores.iter().enumerate();
        let row = |(index, core): (usize, &crate::observe::statistics::Core)| {
            let before = self.before.cores.get(index).map_or(0, |core| core.requests);
            json!({
                "rate": self.rate(core.requests, before),
                "connections": core.connections,
                "busy": busy.get(index).copied().flatten().map(rounded),
            })
        };
        cores.map(row).collect()
    }

    /// Requests a second from listener over route to pool; a route that is none leads to the pool
    /// of the listener.
    pub(super) fn flows(&self, plan: &Plan) -> Vec<Value> {
        let mut flows = Vec::new();
        for listener in &self.now.listeners {
            let before = self.before.listeners.iter().find(|it| it.name == listener.name);
            let mut sums: HashMap<Option<&str>, (u64, u64)> = HashMap::new();
            for it in &listener.requests {
                sums.entry(it.route.as_deref()).or_default().0 += it.count;
            }
            for it in before.into_iter().flat_map(|before| &before.requests) {
                sums.entry(it.route.as_deref()).or_default().1 += it.count;
            }
            let mut sums: Vec<_> = sums.into_iter().collect();
            sums.sort_unstable_by_key(|(route, _)| *route);
            for (route, (now, before)) in sums {
                let pool = match route {
                    Some(name) => plan.routes.values().find(|it| it.name == name).map(|it| it.pool),
                    None => {
                        let mut listeners = plan.listeners.values();
                        listeners.find(|it| *it.name == *listener.name).and_then(|it| it.pool)
                    }
                };
                let pool = pool.and_then(|id| plan.pools.get(id)).map(|pool| pool.name.as_str());
                let rate = self.rate(now, before);
                let listener = &*listener.name;
                flows.push(json!({
                    "listener": listener, "route": route, "pool": pool, "rate": rate,
                }));
            }
        }
        flows
    }
}

/// Exchanges by the first digit of their status; those without one come first.
fn by_class(statistics: &Statistics) -> [u64; 6] {
    let mut classes = [0; 6];
    for it in statistics.listeners.iter().flat_map(|listener| &listener.requests) {
        let class = it.code.map_or(0, |code| usize::from(code / 100));
        if let Some(sum) = classes.get_mut(class) {
            *sum += it.count;
        }
    }
    classes
}

/// Exchanges of each route, and how many of them failed.
fn by_route(statistics: &Statistics) -> HashMap<Option<&str>, (u64, u64)> {
    let mut routes: HashMap<Option<&str>, (u64, u64)> = HashMap::new();
    for it in statistics.listeners.iter().flat_map(|listener| &listener.requests) {
        let sums = routes.entry(it.route.as_deref()).or_default();
        sums.0 += it.count;
        if it.code.is_some_and(|code| code >= 500) {
            sums.1 += it.count;
        }
    }
    routes
}

/// Its tries so far.
fn tries(backend: &Backend) -> u64 {
    backend.tries.iter().map(|(_, count)| count).sum()
}

fn each_backend(statistics: &Statistics) -> HashMap<(&str, &str), &Backend> {
    let pools = statistics.pools.iter();
    let each = pools.flat_map(|pool| pool.backends.iter().map(move |it| (&*pool.name, it)));
    each.map(|(pool, it)| ((pool, &*it.name), it)).collect()
}

fn all_times(statistics: &Statistics) -> Histogram {
    statistics.routes.iter().fold(Histogram::default(), |mut all, route| {
        all.merge(&route.times);
        all
    })
}

/// p50, p90, p99 and p99.9 in milliseconds; none = nothing was timed.
fn quantiles(times: &Histogram) -> Option<[f64; 4]> {
    let quantile = |share| Some(rounded(times.quantile(share)?.as_secs_f64() * 1_000.0));
    Some([quantile(0.5)?, quantile(0.9)?, quantile(0.99)?, quantile(0.999)?])
}

/// How many times are in each row.
fn heat(times: &Histogram) -> Vec<u64> {
    let bounds = HEAT.iter().map(|micros| times.below(Duration::from_micros(*micros)));
    let mut before = 0;
    let own = |up_to: u64| up_to.saturating_sub(std::mem::replace(&mut before, up_to));
    bounds.chain([times.count()]).map(own).collect()
}

/// With three decimals, which is more than anybody looks at.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
