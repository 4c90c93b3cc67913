//! Plays of what is counted, as scrapers and people see it from outside.
//!
//! `/metrics`, checked by Prometheus's own tool, and `/api/v1/stats`. A process of its own answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::Value;

use crate::{
    addresses,
    backend::Backend,
    client::{Client, Response, get},
    run_time::Running,
    scripts::{answers, answers_each, ok},
    stage::{Driver, eventually},
};

on_both_drivers!(
    a_scrape_has_every_name_and_is_good_in_both_formats,
    statistics_say_which_backend_is_out_since_when_and_why,
    statistics_count_bytes_errors_and_connections_of_each_backend,
);

/// A GET of the admin interface.
fn ask(running: &Running, path: &str, fields: &str) -> Response {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", running.admin);
    Client::connect(running.admin).send(head).response()
}

/// The metrics of a process.
pub(crate) fn text(running: &Running) -> String {
    ask(running, "/metrics", "").text().to_owned()
}

pub(crate) fn json(running: &Running, path: &str) -> Value {
    let answer = ask(running, path, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(answer.text()).unwrap()
}

/// Whether this tool is installed; in CI it must be.
pub(crate) fn has(tool: &str) -> bool {
    let mut asked = Command::new(tool);
    let is_there =
        asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(is_there || std::env::var("CI").is_err(), "{tool} is missing");
    is_there
}

/// The names of families with the labels that their samples have.
fn families(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = rest.split_once('}').map_or("", |(labels, _)| &labels[1..]);
        let names = labels.split("\",").filter_map(|label| label.split_once('='));
        families.entry(name.to_owned()).or_default().extend(names.map(|(name, _)| name.to_owned()));
    }
    families
}

/// The value of the sample that this line begins with.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}

/// Names and labels that other programs rely on.
const RELIED_ON: &[(&str, &str)] = &[
    ("ringway_requests_total", "code,listener,route"),
    ("ringway_request_duration_seconds_bucket", "le,route"),
    ("ringway_self_duration_seconds_bucket", "le"),
    ("ringway_phase_seconds_bucket", "le,phase"),
    ("ringway_requests_in_flight", ""),
    ("ringway_request_bytes_total", ""),
    ("ringway_response_bytes_total", ""),
    ("ringway_connections", "listener,state"),
    ("ringway_connections_accepted_total", ""),
    ("ringway_connections_rejected_total", "reason"),
    ("ringway_backend_up", "backend,pool"),
    ("ringway_backend_state", "backend,pool,state"),
    ("ringway_backend_requests_total", "backend,code,pool"),
    ("ringway_backend_response_seconds_bucket", "backend,le,pool"),
    ("ringway_backend_in_flight", "backend,pool"),
    ("ringway_backend_connections", "state"),
    ("ringway_backend_connection_reuse_total", ""),
    ("ringway_backend_check_failures_total", "backend,pool,reason"),
    ("ringway_backend_ejections_total", "backend,pool"),
    ("ringway_breaker_state", "backend,pool,state"),
    ("ringway_retries_refused_total", "reason"),
    ("ringway_tls_handshakes_total", "resumed,version"),
    ("ringway_core_connections", "core"),
    ("ringway_core_requests_total", "core"),
    ("ringway_access_log_dropped_total", ""),
    ("ringway_config_last_reload_successful", ""),
    ("ringway_config_generation", ""),
    ("ringway_build_info", "version"),
    ("process_cpu_seconds_total", ""),
    ("process_resident_memory_bytes", ""),
    ("process_open_fds", ""),
    ("process_start_time_seconds", ""),
];

fn a_scrape_has_every_name_and_is_good_in_both_formats(driver: Driver) {
    let good = Backend::open(answers("ok"));
    let (good_at, bad_at) = (good.address(), addresses::free());
    let pool = format!(
        "backends = [\"{good_at}\", \"{bad_at}\"]\nbreaker = {{}}\n\
         health = {{ interval = \"100ms\", fall = 1 }}"
    );
    let running = Running::start(driver, &pool);
    assert_eq!(running.ask(20).len(), 20);
    let failed = || ask(&running, "/metrics", "").text().contains("backend_check_failures_total{");
    eventually("a probe has failed", failed, |failed| *failed);
    // The last of them ends a little after its answer.
    let ended = "ringway_requests_total{listener=\"web\",route=\"-\",code=\"200\"}";
    let count = || value(&text(&running), ended);
    eventually("all have ended", count, |count| (*count - 20.0).abs() < 0.5);
    for (fields, media) in [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "Accept: application/openmetrics-text; version=1.0.0\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = ask(&running, "/metrics", fields);
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(media)));
        let text = answer.text();
        let families = families(text);
        for (name, labels) in RELIED_ON {
            let found = families.get(*name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
            let found: Vec<_> = found.iter().map(String::as_str).collect();
            assert_eq!(found.join(","), *labels, "{name}");
        }
        assert!((value(text, ended) - 20.0).abs() < 0.5);
        for phase in ["accept", "header", "connect", "first_byte", "body"] {
            let count = format!("ringway_phase_seconds_count{{phase=\"{phase}\"}}");
            assert!(value(text, &count) > 0.0, "{count} in\n{text}");
        }
        // One state each.
        let states = text.lines().filter(|line| line.starts_with("ringway_backend_state{"));
        assert_eq!(states.filter(|line| line.ends_with(" 1")).count(), 2);
        assert_eq!(text.ends_with("# EOF\n"), media.starts_with("application/openmetrics-text"));
    }
    if has("promtool") {
        let text = ask(&running, "/metrics", "").text().to_owned();
        let mut tool = Command::new("promtool");
        tool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut tool = tool.stdout(Stdio::piped()).spawn().unwrap();
        tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = tool.wait_with_output().unwrap();
        let complaints =
            String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && complaints.is_empty(), "{complaints}");
    }
}

fn statistics_say_which_backend_is_out_since_when_and_why(driver: Driver) {
    let good = Backend::open(answers_each(|_| ok("ok").into_bytes()));
    let (good_at, nobody) = (good.address(), addresses::free());
    let pool = format!(
        "backends = [{{ name = \"a\", address = \"{good_at}\" }}, \
         {{ name = \"b\", address = \"{nobody}\" }}]\n\
         health = {{ interval = \"100ms\", fall = 2, rise = 1 }}"
    );
    let running = Running::start(driver, &pool);
    let pool = || json(&running, "/api/v1/stats")["pools"][0].clone();
    let is_out = |pool: &Value| pool["backends"][1]["state"] == "down";
    let seen = eventually("b is down", pool, is_out);
    assert_eq!((&seen["totalBackends"], &seen["healthyBackends"]), (&2.into(), &1.into()));
    let b = &seen["backends"][1];
    assert_eq!((&b["isHealthy"], &b["reason"]), (&false.into(), &"probes fail: refused".into()));
    assert_eq!(b["lastProbe"]["result"], "refused");
    let now = json(&running, "/api/v1/stats")["at"].as_str().unwrap().to_owned();
    let since = b["since"].as_str().unwrap();
    assert!(since < now.as_str() && since > "2020", "{since} and {now}");
    // The number of requests is that of the backend; the average is none of the unasked.
    let mut client = Client::connect(running.address);
    (0..10).for_each(|_| client.send(get("/")).response().expect(200, "ok"));
    let is_quiet = |pool: &Value| {
        let a = &pool["backends"][0];
        a["activeConnections"] == 0 && a["lastProbe"]["result"] == "ok"
    };
    let a = &eventually("a is quiet", pool, is_quiet)["backends"][0];
    assert!(a["totalRequests"].as_u64() >= Some(10), "{a}");
    assert!(a["averageResponseTime"].as_f64() > Some(0.0), "{a}");
    assert!(a["responseTime"]["p999"].as_f64() >= a["responseTime"]["p50"].as_f64(), "{a}");
    let b = &pool()["backends"][1];
    assert_eq!(b["averageResponseTime"].as_f64(), Some(0.0), "{b}");
    // An operator's decision is the reason, from that moment on.
    running.calls("PATCH", "/backends/a", &serde_json::json!({ "state": "draining" }), 200);
    let a = &pool()["backends"][0];
    let (state, reason) = (&a["state"], &a["reason"]);
    assert_eq!((state, reason), (&"draining".into(), &"set by an operator: no new traffic".into()));
    assert!(a["since"].as_str() > Some(since), "{a}");
    let cores = json(&running, "/api/v1/stats")["cores"].clone();
    assert_eq!(cores.as_array().unwrap().len(), 2);
    assert!(cores[0]["cpuSeconds"].as_f64() > Some(0.0), "{cores}");
}

fn statistics_count_bytes_errors_and_connections_of_each_backend(driver: Driver) {
    // Each third is an error, and the connection stays.
    let (body, asked) = ("x".repeat(1_000), AtomicUsize::new(0));
    let good = Backend::open(answers_each(move |_| {
        let is_error = asked.fetch_add(1, SeqCst) % 3 == 2;
        let status = if is_error { "500 Broken" } else { "200 OK" };
        ok(&body).replacen("200 OK", status, 1).into_bytes()
    }));
    let (good_at, nobody) = (good.address(), addresses::free());
    let pool = format!(
        "backends = [{{ name = \"a\", address = \"{good_at}\" }}, \
         {{ name = \"b\", address = \"{nobody}\" }}]\npassive = {{ max-failures = 0 }}"
    );
    let running = Running::start(driver, &pool);
    let mut client = Client::connect(running.address);
    let answers: Vec<_> = (0..30).map(|_| client.send(get("/")).response()).collect();
    let failed = answers.iter().filter(|answer| answer.status == 500).count() as u64;
    let pool = || json(&running, "/api/v1/stats")["pools"][0].clone();
    let count = |backend: &Value, key: &str| backend[key].as_u64().unwrap();
    let seen = eventually("all are counted", pool, |pool| {
        count(&pool["backends"][0], "bytesOut") > 30 * 1_000
    });
    let (a, b) = (&seen["backends"][0], &seen["backends"][1]);
    assert_eq!((count(a, "totalRequests"), count(a, "errors")), (30, failed), "{a}");
    assert!(failed >= 9, "{failed}");
    assert_eq!(a["errorsByReason"], serde_json::json!({ "500": failed }));
    let sent = get("/").len() as u64;
    assert_eq!(count(a, "bytesIn"), 30 * sent, "{a}");
    // The heads of the answers are among them.
    assert!(count(a, "bytesOut") < 30 * 1_500, "{a}");
    let (opened, reused) = (count(a, "connectionsOpened"), count(a, "connectionsReused"));
    assert!((1..=4).contains(&opened), "{a}");
    assert_eq!(opened + reused, 30, "{a}");
    // Nobody is there: each try of it is an error, and moves nothing.
    assert_eq!((count(b, "bytesIn"), count(b, "bytesOut")), (0, 0), "{b}");
    assert_eq!((count(b, "connectionsOpened"), count(b, "connectionsReused")), (0, 0), "{b}");
    let tries = (count(b, "totalRequests"), count(b, "errors"), count(b, "unanswered"));
    assert!(tries.0 > 0 && tries.0 == tries.1 && tries.1 == tries.2, "{b}");
    let by_reason = serde_json::json!({ "connect_failure": tries.0 });
    assert_eq!((&b["errorsByReason"], count(b, "connectionsFailed")), (&by_reason, tries.0));
}
