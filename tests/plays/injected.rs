//! Plays of injected faults: each is named as what it was, in the timeline, in metrics and on the
//! page.
//!
//! What probes find and what requests find are two plays. A pool stands for each fault, so that all
//! happen in one process.

use std::time::Duration;

use serde_json::Value;

use crate::{
    backend::{Backend, Script},
    client::{Client, get},
    history::Sse,
    metrics::{json, text},
    run_time::Running,
    scripts::{answers, delays, sends, sends_and_closes},
    stage::{Driver, eventually},
};

on_both_drivers!(
    what_probes_find_is_named_as_what_it_was,
    what_requests_find_is_named_as_what_it_was,
);

/// A fault, and its names.
struct Fault {
    pool: &'static str,
    script: Script,
    /// The cause of the event.
    cause: &'static str,
    /// The reason in metrics.
    reason: &'static str,
    /// The code of a request that meets it; empty = none does.
    code: &'static str,
}

fn fault(pool: &'static str, script: Script, [cause, reason, code]: [&'static str; 3]) -> Fault {
    Fault { pool, script, cause, reason, code }
}

/// A process with a pool and a route for each, of which `bad` has the fault and `good` has none.
fn start(driver: Driver, faults: &[Fault], keys: &str) -> (Running, Vec<Backend>) {
    let good = Backend::open(answers("ok"));
    let mut backends = Vec::new();
    let mut pools = format!("backends = [\"{}\"]\n", good.address());
    for Fault { pool, script, .. } in faults {
        let bad = Backend::open(script.clone());
        pools += &format!(
            "[[route]]\nname = \"{pool}\"\npath = \"/{pool}\"\npool = \"{pool}\"\n[pool.{pool}]\n\
             backends = [{{ name = \"bad\", address = \"{}\" }}, \
             {{ name = \"good\", address = \"{}\" }}]\nretry = {{ attempts = 1 }}\n{keys}\n",
            bad.address(),
            good.address()
        );
        backends.push(bad);
    }
    backends.push(good);
    (Running::start(driver, &pools), backends)
}

/// What the page is sent.
struct Page {
    stream: Sse,
    requests: Vec<Value>,
    trouble: Vec<String>,
}

impl Page {
    fn open(running: &Running) -> Page {
        let stream = Sse::open(running, "/api/v1/stream", "");
        Page { stream, requests: Vec::new(), trouble: Vec::new() }
    }

    /// Reads on until it says this.
    #[track_caller]
    fn says(&mut self, what: &str, is_said: impl Fn(&Page) -> bool) {
        for _ in 0..1_000 {
            if is_said(self) {
                return;
            }
            let (word, it) = self.stream.any();
            if word == "request" {
                self.requests.push(it);
            } else if word == "frame" {
                let said = it["trouble"].as_array().unwrap().iter();
                self.trouble = said.map(|it| it["text"].as_str().unwrap().to_owned()).collect();
            }
        }
        panic!("not said: {what}; {:?} {:?}", self.trouble, self.requests);
    }
}

/// The cause of the first event of this word about a backend `bad`.
fn cause_of(running: &Running, word: &str, pool: &str) -> Option<String> {
    let history = json(running, &format!("/api/v1/history?pool={pool}&backend=bad"));
    let events = history["events"].as_array().unwrap();
    let event = events.iter().find(|it| it["event"] == word)?;
    Some(event["cause"].as_str().unwrap().to_owned())
}

fn what_probes_find_is_named_as_what_it_was(driver: Driver) {
    let faults = [
        fault("killed", Script::Refuses, ["refused", "refused", ""]),
        fault("paused", delays(Duration::from_secs(5), "late"), ["timeout", "timeout", ""]),
        fault(
            "ill",
            sends("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            ["status 503", "status", ""],
        ),
        fault("garbled", sends_and_closes("who is there?\r\n\r\n"), ["protocol", "protocol", ""]),
        fault("resets", sends_and_closes(""), ["reset", "reset", ""]),
    ];
    let keys = "health = { interval = \"200ms\", timeout = \"150ms\", fall = 1, rise = 1 }";
    let (running, _backends) = start(driver, &faults, keys);
    let mut page = Page::open(&running);
    for Fault { pool, cause, reason, .. } in &faults {
        let told = || cause_of(&running, "backend_down", pool);
        let told = eventually(pool, told, Option::is_some);
        assert_eq!(told.as_deref(), Some(*cause), "{pool}");
        let metric = format!(
            "ringway_backend_check_failures_total{{pool=\"{pool}\",backend=\"bad\",\
             reason=\"{reason}\"}}"
        );
        assert!(text(&running).contains(&metric), "{metric}");
        let sentence = format!("{pool}/bad is down: probes fail: {cause}");
        page.says(&sentence, |page| page.trouble.contains(&sentence));
    }
}

fn what_requests_find_is_named_as_what_it_was(driver: Driver) {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let faults = [
        fault("killed", Script::Refuses, ["connect_failed", "connect_failure", "connect_failed"]),
        fault(
            "paused",
            delays(Duration::from_secs(5), "late"),
            ["response_timeout", "timeout", "response_timeout"],
        ),
        fault(
            "resets",
            sends_and_closes(""),
            ["backend_reset", "reset_before_response", "backend_reset"],
        ),
        fault(
            "garbled",
            sends_and_closes("who is there?\r\n\r\n"),
            ["backend_protocol", "no_answer", "backend_protocol"],
        ),
        fault(
            "cuts",
            sends_and_closes(half),
            ["response_incomplete", "response_incomplete", "response_incomplete"],
        ),
        fault("ill", sends("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), ["503", "503", "ok"]),
    ];
    let keys = "passive = { max-failures = 1, eject = \"60s\" }\n\
                timeouts = { response = \"500ms\" }";
    let (running, _backends) = start(driver, &faults, keys);
    let mut page = Page::open(&running);
    for Fault { pool, cause, reason, code, .. } in &faults {
        // Each core begins anywhere.
        let told = || {
            let _ = Client::connect(running.address).send(get(&format!("/{pool}"))).try_response();
            cause_of(&running, "backend_ejected", pool)
        };
        let told = eventually(pool, told, Option::is_some).unwrap();
        assert_eq!(told, format!("a failure: {cause}"), "{pool}");
        let sentence = format!("{pool}/bad is ejected: left out: {told}");
        page.says(&sentence, |page| page.trouble.contains(&sentence));
        let (family, label) = match *reason {
            "503" => ("backend_requests", "code"),
            _ => ("backend_failures", "reason"),
        };
        let metric = format!(
            "ringway_{family}_total{{pool=\"{pool}\",backend=\"bad\",{label}=\"{reason}\"}} "
        );
        let metrics = text(&running);
        assert!(metrics.contains(&metric), "{metric} in\n{metrics}");
        let requests = json(&running, "/api/v1/stats")["pools"].clone();
        let of_pool = requests.as_array().unwrap().iter().find(|it| it["name"] == *pool).unwrap();
        let by_reason = &of_pool["backends"][0]["errorsByReason"];
        let reasons: Vec<_> = by_reason.as_object().unwrap().keys().collect();
        assert_eq!(reasons, [reason], "{pool}");
        let is_it = |it: &&Value| it["pool"] == *pool;
        page.says(code, |page| page.requests.iter().any(|it| is_it(&it)));
        let noted = page.requests.iter().find(is_it).unwrap();
        let expected = (&(*code).into(), &"bad".into());
        assert_eq!((&noted["code"], &noted["backend"]), expected, "{noted}");
    }
}
