//! Tests of statistics: what is counted is said by name and labels.
//!
//! One table has a count of each kind; the others are about seats that are given to another, and
//! about histograms that grow from snapshot to snapshot.

use std::{sync::Arc, time::SystemTime};

use super::*;
use crate::base::{backend_set::BackendSet, moment::Micros};
use crate::plan::{BackendId, ListenerId, Plan, PoolId, RouteId};
use crate::policy::{
    health::ProbeFault,
    standing::{Present, State},
};
use crate::shared::{
    counters::Slab,
    pool::PoolState,
    request_times::Timed,
    tally::{CUT, Key, Reason},
};

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
        self.sources
            .snapshot(SystemTime::UNIX_EPOCH, &self.plan, |pool| (pool == APP).then_some(&*state))
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
            Value::Number(_) => return None,
        };
        let labels = sample.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let labels: Vec<_> = labels.collect();
        Some(format!("{}{{{}}} {count}", sample.family, labels.join(",")))
    };
    statistics.samples().into_iter().filter_map(line).collect()
}

/// A count of each kind.
fn counted() -> Stage {
    let stage = Stage::new();
    stage.slabs[0].add(Counter::Accepted, 3);
    stage.slabs[1].add(Counter::RejectedDescriptors, 4);
    stage.slabs[2].add(Counter::AccessLogDropped, 5);
    stage.slabs[0].add(Counter::Requests, 6);
    stage.slabs[1].add(Counter::Connections, 7);
    stage.slabs[1].add(Counter::MovedIdle, 8);
    let ejected_and_open = Present::default().after(State::Ejected).after(State::Open);
    for (thread, key, count) in [
        (0, Key::Connections(WEB), 5),
        (1, Key::Connections(WEB), 2),
        (1, Key::Idle(WEB), 3),
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
        (0, Key::Failed(APP, BackendId(0), Failure::Reset as u16), 6),
        (1, Key::Failed(APP, BackendId(0), CUT), 1),
        (2, Key::FailedProbes(APP, BackendId(0), ProbeFault::Status(500).kind()), 3),
    ] {
        stage.count(thread, key, count);
    }
    stage.state.load.row(1, BackendId(0)).unwrap().begin();
    stage.state.times.of(0, BackendId(1)).unwrap().record(Micros(1_500));
    let (api, times) =
        (Timed::Request(Some(RouteId(0))), |thread: usize| stage.slabs[thread].times());
    times(0).record(api, Micros(700));
    times(1).record(api, Micros(900));
    times(1).record(Timed::Request(None), Micros(30));
    times(1).record(Timed::Request(Some(RouteId(9))), Micros(30));
    times(0).record(Timed::Own, Micros(20));
    times(0).record(Timed::Phase(Phase::Connect), Micros(90));
    stage
}

#[test]
fn every_count_is_said_by_its_name_and_labels() {
    let mut stage = counted();
    let expected = [
        "connections_accepted_total{} 3",
        "connections_rejected_total{reason=descriptors} 4",
        "access_log_dropped_total{} 5",
        "core_requests_total{core=0} 6",
        "core_connections{core=1} 7",
        "connections_moved_total{core=1,state=idle} 8",
        "connections{listener=web,state=active} 4",
        "connections{listener=web,state=idle} 3",
        "requests_total{listener=web,route=-,code=404} 1",
        "requests_total{listener=web,route=api,code=-} 2",
        "requests_total{listener=web,route=api,code=200} 50",
        "backend_connections{state=active} 1",
        "requests_queued{pool=app} 4",
        "retries_total{pool=app,reason=503} 2",
        "retries_total{pool=app,reason=connect_failure} 3",
        "backend_up{pool=app,backend=10.0.0.1:80} 1",
        "backend_state{pool=app,backend=10.0.0.1:80,state=up} 1",
        "breaker_state{pool=app,backend=10.0.0.1:80,state=closed} 1",
        "backend_check_failures_total{pool=app,backend=10.0.0.1:80,reason=status} 3",
        "backend_failures_total{pool=app,backend=10.0.0.1:80,reason=reset_before_response} 6",
        "backend_failures_total{pool=app,backend=10.0.0.1:80,reason=response_incomplete} 1",
        "backend_in_flight{pool=app,backend=10.0.0.1:80} 1",
        "backend_state{pool=app,backend=10.0.0.2:80,state=ejected} 1",
        "breaker_state{pool=app,backend=10.0.0.2:80,state=open} 1",
        "backend_ejections_total{pool=app,backend=10.0.0.2:80} 8",
        "backend_requests_total{pool=app,backend=10.0.0.2:80,code=-} 6",
        "backend_requests_total{pool=app,backend=10.0.0.2:80,code=200} 50",
        "backend_response_seconds{pool=app,backend=10.0.0.2:80} 1",
        "request_duration_seconds{route=api} 2",
        "request_duration_seconds{route=-} 1",
        "self_duration_seconds{} 1",
        "phase_seconds{phase=connect} 1",
        concat!("build_info{version=", env!("CARGO_PKG_VERSION"), "} 1"),
    ];
    let statistics = stage.snapshot();
    assert_eq!(lines(&statistics), expected);
    assert_eq!(statistics.total(Counter::Accepted), 3);
    for sample in statistics.samples() {
        assert!(families().any(|family| family == sample.family), "{}", sample.family);
        assert_eq!(sample.kind == Kind::Counter, sample.family.ends_with("_total"));
    }
}

const PAGE: &str = "\
# Metrics

What `GET /metrics` of the admin interface answers, by name: OpenMetrics 1.0 where it is asked for,
else Prometheus text 0.0.4. A test holds this page to the program. `docs/observing.md` says what to
look at, `config/prometheus` and `config/grafana` have alerts and a dashboard.

Labels are names of the configuration, the statuses of answers and closed lists of words, never a
path or a client. A label is `-` where there was none. Histograms have the buckets 10 µs, 25 µs,
50 µs and so on up to 10 s, and 30 s; their times are samples (the first request of each millisecond
on each core), all other counts are of everything.

| name | kind | labels | is |
|---|---|---|---|
";

/// `UPDATE=1` rewrites it.
#[test]
fn the_page_of_metrics_has_every_family_and_no_other() {
    let mut statistics = counted().snapshot();
    (statistics.cores[0].busy, statistics.process) = (
        Some(0.5),
        Process {
            cpu: Some(Duration::ZERO),
            resident_bytes: Some(1),
            open_descriptors: Some(1),
            started: Some(SystemTime::UNIX_EPOCH),
        },
    );
    let certificate = Certificate { file: "a.pem".into(), not_after: Some(1), is_refused: false };
    statistics.certificates = vec![certificate];
    let samples = statistics.samples();
    let mut page = PAGE.to_owned();
    let mut names: Vec<_> = families().collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let sample = samples.iter().find(|sample| sample.family == name);
        let sample = sample.unwrap_or_else(|| panic!("nothing says {name}"));
        let prefix = if name.starts_with("process_") { "" } else { "ringway_" };
        let labels = sample.labels.iter().map(|(label, _)| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let kind = format!("{:?}", sample.kind).to_lowercase();
        page += &format!("| `{prefix}{name}` | {kind} | {labels} | {} |\n", sample.help);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/metrics.md is not what is said: UPDATE=1 rewrites it");
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
        stage.slabs[0].times().record(Timed::Request(Some(RouteId(0))), Micros(100));
        stage.count(0, Key::Requests(WEB, None, 200), 1);
        stage.count(0, Key::Connections(WEB), 1);
    };
    count(&stage);
    stage.snapshot();
    count(&stage);
    let mut named = Named::default();
    let mut plan = stage.plan.clone();
    Arc::make_mut(plan.pools.get_mut(APP).unwrap()).backends.remove(BackendId(0));
    plan.routes.remove(RouteId(0));
    named.add(&plan);
    let state = Arc::clone(&stage.state);
    stage.sources.forget(&named, |_| Some(&*state));
    let is_counted = |line: &String| {
        !line.starts_with("backend_up")
            && !line.contains("state=up")
            && !line.contains("state=closed")
            && !line.starts_with("build_info")
    };
    let after: Vec<_> = lines(&stage.snapshot()).into_iter().filter(is_counted).collect();
    let expected = [
        "connections{listener=web,state=active} 2",
        "requests_total{listener=web,route=-,code=200} 2",
        "backend_requests_total{pool=app,backend=10.0.0.2:80,code=200} 2",
        "backend_response_seconds{pool=app,backend=10.0.0.2:80} 2",
    ];
    assert_eq!(after, expected);
    count(&stage);
    let after = lines(&stage.snapshot());
    assert!(after.contains(&"requests_total{listener=web,route=api,code=200} 1".to_owned()));
    assert!(after.contains(&"request_duration_seconds{route=api} 1".to_owned()));
}
