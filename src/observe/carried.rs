//! Counts that outlive a process: by names, as they are handed to the process that takes over.
//!
//! They are made of statistics, and counted again in a slab of their own, which is one more among
//! those of the threads. Gauges are not among them: what they count ends with its process. Names
//! that the next configuration does not have are left out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::statistics::{Statistics, failed_of, reason_of};
use crate::plan::{BackendId, ListenerId, Plan, PoolId, RouteId};
use crate::policy::health::ProbeFault;
use crate::shared::{
    counters::{Counter, Kind, Slab},
    load::Moved,
    tally::Key,
};

/// What has been counted, by names; statuses of which there is none are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// By the name of the metric and its label.
    process: BTreeMap<String, u64>,
    /// By listener, route and status.
    requests: Vec<(String, Option<String>, u16, u64)>,
    /// By pool and reason.
    retries: Vec<(String, String, u64)>,
    /// By pool, backend and status.
    tries: Vec<(String, String, u16, u64)>,
    /// By pool and backend.
    ejections: Vec<(String, String, u64)>,
    /// By pool, backend and kind of failure.
    failed_probes: Vec<(String, String, String, u64)>,
    /// By pool, backend and what it is.
    moved: Vec<(String, String, u16, u64)>,
    /// By pool, backend and kind of failure.
    failed: Vec<(String, String, String, u64)>,
}

impl Counts {
    pub(crate) fn of(statistics: &Statistics) -> Counts {
        let mut counts = Counts::default();
        for counter in Counter::ALL.iter().filter(|counter| lasts(**counter)) {
            counts.process.insert(name(*counter), statistics.total(*counter));
        }
        for listener in &statistics.listeners {
            counts.requests.extend(listener.requests.iter().map(|it| {
                let route = it.route.as_deref().map(str::to_owned);
                (listener.name.to_string(), route, it.code.unwrap_or(0), it.count)
            }));
        }
        for pool in &statistics.pools {
            let own = || pool.name.to_string();
            let retries = pool.retries.iter();
            counts.retries.extend(retries.map(|it| (own(), it.reason.to_string(), it.count)));
            for backend in &pool.backends {
                let both = || (own(), backend.name.to_string());
                let ((pool, name), tries) = (both(), backend.tries.iter());
                counts.tries.extend(
                    tries.map(|(code, count)| {
                        (pool.clone(), name.clone(), code.unwrap_or(0), *count)
                    }),
                );
                counts.ejections.push((pool.clone(), name.clone(), backend.ejections));
                let failed = backend.failed_probes.iter();
                counts.failed_probes.extend(
                    failed.map(|(kind, count)| {
                        (pool.clone(), name.clone(), (*kind).to_owned(), *count)
                    }),
                );
                let failed = backend.failed.iter();
                counts.failed.extend(
                    failed.map(|(how, count)| {
                        (pool.clone(), name.clone(), (*how).to_owned(), *count)
                    }),
                );
                let mut moved = Moved {
                    opened: backend.opened,
                    unopened: backend.unopened,
                    bytes_in: backend.bytes_in,
                    bytes_out: backend.bytes_out,
                };
                counts.moved.extend(
                    moved.each().map(|(what, sum)| (pool.clone(), name.clone(), what, *sum)),
                );
            }
        }
        counts
    }

    /// Counts them in this slab, less what of them was counted there `before`.
    pub(crate) fn add_to(&self, slab: &Slab, plan: &Plan, before: &Counts) {
        for counter in Counter::ALL.iter().filter(|counter| lasts(**counter)) {
            let of = |counts: &Counts| counts.process.get(&name(*counter)).copied().unwrap_or(0);
            slab.add(*counter, of(self).saturating_sub(of(before)));
        }
        let ids = Ids::of(plan);
        let earlier: HashMap<Key, u64> = before.keys(&ids).collect();
        for (key, count) in self.keys(&ids) {
            let more = count.saturating_sub(earlier.get(&key).copied().unwrap_or(0));
            if more > 0 {
                slab.tally().add(key, more);
            }
        }
    }

    /// The counts that the plan has names for.
    fn keys<'a>(&'a self, ids: &'a Ids<'a>) -> impl Iterator<Item = (Key, u64)> + 'a {
        let requests = self.requests.iter().filter_map(|(listener, route, code, count)| {
            let listener = *ids.listeners.get(listener.as_str())?;
            let route = match route {
                Some(route) => Some(*ids.routes.get(route.as_str())?),
                None => None,
            };
            Some((Key::Requests(listener, route, *code), *count))
        });
        let retries = self.retries.iter().filter_map(|(pool, reason, count)| {
            Some((Key::Retries(ids.pool(pool)?, reason_of(reason)?), *count))
        });
        let tries = self.tries.iter().filter_map(|(pool, backend, code, count)| {
            let (pool, backend) = ids.backend(pool, backend)?;
            Some((Key::Tries(pool, backend, *code), *count))
        });
        let ejections = self.ejections.iter().filter_map(|(pool, backend, count)| {
            let (pool, backend) = ids.backend(pool, backend)?;
            Some((Key::Ejections(pool, backend), *count))
        });
        let failed = self.failed_probes.iter().filter_map(|(pool, backend, kind, count)| {
            let (pool, backend) = ids.backend(pool, backend)?;
            let kind = ProbeFault::CODES.iter().position(|code| code == kind)?;
            Some((Key::FailedProbes(pool, backend, u16::try_from(kind).ok()?), *count))
        });
        let moved = self.moved.iter().filter_map(|(pool, backend, what, count)| {
            let (pool, backend) = ids.backend(pool, backend)?;
            Some((Key::Moved(pool, backend, *what), *count))
        });
        let broken = self.failed.iter().filter_map(|(pool, backend, how, count)| {
            let (pool, backend) = ids.backend(pool, backend)?;
            Some((Key::Failed(pool, backend, failed_of(how)?), *count))
        });
        let of_backends = tries.chain(ejections).chain(failed).chain(moved).chain(broken);
        requests.chain(retries).chain(of_backends)
    }
}

/// Whether a count goes on in the next process.
fn lasts(counter: Counter) -> bool {
    counter.row().kind == Kind::Counter
}

/// A metric with its label: `connections_rejected_total{reason=overloaded}`.
fn name(counter: Counter) -> String {
    let row = counter.row();
    let labels = row.label.iter().map(|(name, value)| format!("{{{name}={value}}}"));
    row.family.to_owned() + &labels.collect::<String>()
}

/// The ids of a plan, by names.
struct Ids<'a> {
    listeners: HashMap<&'a str, ListenerId>,
    routes: HashMap<&'a str, RouteId>,
    pools: HashMap<&'a str, PoolId>,
    backends: HashMap<(PoolId, &'a str), BackendId>,
}

impl<'a> Ids<'a> {
    fn of(plan: &'a Plan) -> Ids<'a> {
        let of_pool = |(id, pool): (PoolId, &'a Arc<crate::plan::Pool>)| {
            pool.backends.iter().map(move |(backend, it)| ((id, it.name.as_str()), backend))
        };
        Ids {
            listeners: plan.listeners.iter().map(|(id, it)| (it.name.as_str(), id)).collect(),
            routes: plan.routes.iter().map(|(id, it)| (it.name.as_str(), id)).collect(),
            pools: plan.pools.iter().map(|(id, it)| (it.name.as_str(), id)).collect(),
            backends: plan.pools.iter().flat_map(of_pool).collect(),
        }
    }

    fn pool(&self, name: &str) -> Option<PoolId> {
        self.pools.get(name).copied()
    }

    fn backend(&self, pool: &str, name: &str) -> Option<(PoolId, BackendId)> {
        let pool = self.pool(pool)?;
        Some((pool, *self.backends.get(&(pool, name))?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::base::backend_set::BackendSet;
    use crate::observe::statistics::Sources;
    use crate::shared::{pool::PoolState, tally::CUT};

    fn plan(pools: &[&str]) -> Plan {
        let mut text = "[listener.web]\nbind = \"127.0.0.1:0\"\n\
                        [[route]]\nname = \"api\"\npath = \"/v1\"\npool = \"app\"\n"
            .to_owned();
        for pool in pools {
            text += &format!("[pool.{pool}]\nbackends = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n");
        }
        crate::config::parse("carried.toml", &text).unwrap().plan.into_plan()
    }

    /// The counts of a slab under a plan.
    fn counts(slab: &Arc<Slab>, plan: &Plan) -> Counts {
        let state = PoolState::new(1, &BackendSet::first(2), 0);
        state.grow(2);
        let mut sources = Sources::new(vec![Arc::clone(slab)], 1);
        Counts::of(&sources.snapshot(SystemTime::UNIX_EPOCH, plan, |_| Some(&state)))
    }

    #[test]
    fn counts_go_on_by_name_under_other_seats_and_are_counted_once() {
        let old = plan(&["app"]);
        let slab = Slab::new();
        slab.add(Counter::Accepted, 3);
        slab.add(Counter::Connections, 2);
        slab.add(Counter::RejectedOverloaded, 1);
        let (app, second) = (PoolId(0), BackendId(1));
        let reset = reason_of("reset").or(reason_of("502")).unwrap();
        for (key, count) in [
            (Key::Requests(ListenerId(0), Some(RouteId(0)), 200), 5),
            (Key::Requests(ListenerId(0), None, 404), 2),
            (Key::Retries(app, reset), 7),
            (Key::Tries(app, second, 0), 4),
            (Key::Ejections(app, second), 6),
            (Key::FailedProbes(app, second, 2), 8),
            (Key::Moved(app, second, 3), 9_000),
            (Key::Failed(app, second, CUT), 10),
        ] {
            slab.tally().add(key, count);
        }
        let first = counts(&slab, &old);
        let text = serde_json::to_string(&first).unwrap();
        let first: Counts = serde_json::from_str(&text).unwrap();
        // The pool has another seat there.
        let new = plan(&["aaa", "app"]);
        let own = Slab::new();
        first.add_to(&own, &new, &Counts::default());
        assert_eq!(own.read(Counter::Accepted), 3);
        assert_eq!(own.read(Counter::Connections), 0, "a gauge was carried");
        let pool = new.pools.iter().find(|(_, pool)| pool.name == "app").unwrap().0;
        assert_eq!(own.tally().read(Key::Tries(pool, second, 0)), 4);
        assert_eq!(own.tally().read(Key::FailedProbes(pool, second, 2)), 8);
        assert_eq!(own.tally().read(Key::Moved(pool, second, 3)), 9_000);
        assert_eq!(own.tally().read(Key::Failed(pool, second, CUT)), 10);
        // What the old process counts to its end is added.
        slab.add(Counter::Accepted, 1);
        slab.tally().add(Key::Tries(app, second, 0), 10);
        let last = counts(&slab, &old);
        last.add_to(&own, &new, &first);
        assert_eq!(own.read(Counter::Accepted), 4);
        assert_eq!(own.tally().read(Key::Tries(pool, second, 0)), 14);
        let mut seen = counts(&own, &new);
        seen.ejections.retain(|(pool, ..)| pool == "app");
        seen.tries.retain(|(pool, ..)| pool == "app");
        seen.moved.retain(|(pool, ..)| pool == "app");
        assert_eq!(seen, last);
        // What the next configuration does not name is left out.
        let none = Slab::new();
        let other = "[listener.x]\nbind = \"127.0.0.1:0\"\npool = \"x\"\n\
                     [pool.x]\nbackends = [\"10.0.0.1:80\"]\n";
        let other = crate::config::parse("other.toml", other).unwrap().plan.into_plan();
        last.add_to(&none, &other, &Counts::default());
        assert_eq!(none.tally().all().count(), 0);
    }
}
