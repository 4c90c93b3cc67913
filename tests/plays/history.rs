//! Plays of what is told to those who look: the streams of events and of frames, and the timeline,
//! which outlives its process.
//!
//! The binary runs as a process of its own, with an admin interface; a stream is read line by line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    metrics,
    run_time::Running,
    scripts::{answers, answers_each},
    stage::{Driver, eventually},
};

on_both_drivers!(
    a_reader_that_comes_back_has_missed_nothing,
    a_frame_says_what_is_wrong_and_what_traffic_is_like,
    a_request_that_fails_is_shown_by_its_id,
    a_request_that_was_tried_again_is_shown_with_its_tries,
    the_timeline_outlives_a_kill_and_says_how_long_each_was_out,
);

/// A stream of server-sent events.
pub(crate) struct Sse(BufReader<TcpStream>);

impl Sse {
    pub(crate) fn open(running: &Running, path: &str, fields: &str) -> Sse {
        let mut stream = TcpStream::connect(running.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", running.admin);
        stream.write_all(head.as_bytes()).unwrap();
        let mut sse = Sse(BufReader::new(stream));
        while sse.line() != "retry: 1000" {}
        sse
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("a line in time") > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next event, whatever it is: its word and its data.
    pub(crate) fn any(&mut self) -> (String, Value) {
        let mut event = String::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", it)) => it.clone_into(&mut event),
                Some(("data", it)) => return (event, serde_json::from_str(it).unwrap()),
                _ => {}
            }
        }
    }

    /// The next event of this word: its id and its data.
    #[track_caller]
    fn next(&mut self, word: &str) -> (String, Value) {
        let (mut id, mut event, mut data) = (String::new(), String::new(), String::new());
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", it)) => it.clone_into(&mut id),
                Some(("event", it)) => it.clone_into(&mut event),
                Some(("data", it)) => it.clone_into(&mut data),
                _ if event == word => return (id, serde_json::from_str(&data).unwrap()),
                _ => event.clear(),
            }
        }
    }
}

/// A probe has as long as there is between two of them: on a machine that is late a sound backend
/// must not be out for it.
const HEALTH: &str = "health = { interval = \"1s\", fall = 2, rise = 1 }";

/// Two backends, of which nobody is the second.
fn start(driver: Driver, backend: &Backend, global: &str) -> Running {
    let (good, nobody) = (backend.address(), addresses::free());
    let pool = format!(
        "backends = [{{ name = \"a\", address = \"{good}\" }}, \
         {{ name = \"b\", address = \"{nobody}\" }}]\n{HEALTH}{global}"
    );
    Running::start(driver, &pool)
}

fn a_reader_that_comes_back_has_missed_nothing(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let running = start(driver, &backend, "");
    let is_down = || running.calls("GET", "", &Value::Null, 200)["backends"][1]["state"].clone();
    eventually("b is down", is_down, |state| state == "down");
    let mut events = Sse::open(&running, "/api/v1/events", "");
    let set = |weight: u16| {
        running.calls("PATCH", "/backends/a", &json!({ "weight": weight }), 200);
    };
    set(3);
    let (id, set_to_3) = events.next("backend_set");
    assert_eq!((&set_to_3["pool"], &set_to_3["backend"]), (&"app".into(), &"a".into()));
    assert_eq!((&set_to_3["by"], &set_to_3["id"]), (&"admin".into(), &id.clone().into()));
    assert!(set_to_3["from"].as_str().unwrap().starts_with("127."), "{set_to_3}");
    drop(events);
    set(4);
    set(5);
    let again =
        |id: &str| Sse::open(&running, "/api/v1/events", &format!("Last-Event-ID: {id}\r\n"));
    let mut events = again(&id);
    assert_eq!(events.next("backend_set").1["changes"], "weight 4");
    let (last, set_to_5) = events.next("backend_set");
    assert_eq!(set_to_5["changes"], "weight 5");
    assert!(last > id, "{last} after {id}");
    // One that was elsewhere is told everything.
    let (_, down) = again("7-7").next("backend_down");
    assert_eq!((&down["backend"], &down["cause"]), (&"b".into(), &"refused".into()));
    assert!(down["lasted_ms"].is_number(), "{down}");
}

fn a_frame_says_what_is_wrong_and_what_traffic_is_like(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let running = start(driver, &backend, "");
    let mut stream = Sse::open(&running, "/api/v1/stream", "");
    let (_, history) = stream.next("history");
    assert!(history["seconds"].is_array() && history["events"].is_array(), "{history}");
    let mut client = Client::connect(running.address);
    let (mut seen, mut frames) = (false, 0);
    while !seen {
        // What is answered is in the frame: of each second that counts, 200 alone.
        (0..20).for_each(|_| drop(client.send(get("/")).response()));
        let (_, frame) = stream.next("frame");
        let a = &frame["pools"][0]["backends"][0]["live"];
        let says_so = || {
            let all = frame["trouble"].as_array().unwrap().iter();
            all.filter_map(|it| it["text"].as_str()).any(|it| it.starts_with("app/b is down: "))
        };
        seen = frame["requests"].as_f64() > Some(0.0)
            && frame["classes"][2] == frame["requests"]
            && a["rate"].as_f64() > Some(0.0)
            && a["times"][3].as_f64() >= a["times"][0].as_f64()
            && [0, 1].iter().any(|core| frame["cores"][*core]["busy"].as_f64() > Some(0.0))
            && frame["flows"][0]["pool"] == "app"
            && says_so();
        frames += 1;
        assert!(seen || frames < 30, "{frame}");
    }
    // Whoever comes now sees what was before.
    let (_, history) = Sse::open(&running, "/api/v1/stream", "").next("history");
    let rates = history["sparks"]["app/a"].as_array().unwrap();
    assert!(rates.iter().any(|rate| rate.as_f64() > Some(0.0)), "{history}");
    let said = |words: &[&str]| {
        let output = running.command(words).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let top = said(&["top", "--once"]);
    assert!(top.contains("\nwarn: app/b is down: probes fail: refused, since "), "{top}");
    assert!(top.contains("\napp/a ") && top.contains("\nCORE "), "{top}");
    let frame: Value = serde_json::from_str(&said(&["top", "--json"])).unwrap();
    assert!(frame["requests"].is_number() && frame["pools"][0]["name"] == "app", "{frame}");
    let history = said(&["history", "--pool", "app", "--backend", "b", "--since", "1h"]);
    assert!(history.contains("Z  backend down: app/b, refused, after "), "{history}");
    assert!(history.contains("\napp/b: available ") && history.contains("out now"), "{history}");
    let text = metrics::text(&running);
    assert!(text.contains("ringway_core_busy_ratio{core=\"1\"} "), "{text}");
}

fn a_request_that_fails_is_shown_by_its_id(driver: Driver) {
    let nobody = addresses::free();
    let running = Running::start(driver, &format!("backends = [\"{nobody}\"]"));
    let mut stream = Sse::open(&running, "/api/v1/stream", "");
    stream.next("history");
    let refused = Client::connect(running.address).send(get("/")).response();
    refused.expect_fault(502, "connect_failed");
    let (_, noted) = stream.next("request");
    assert_eq!(noted["request_id"].as_str(), refused.field("x-request-id"));
    assert_eq!((&noted["status"], &noted["code"]), (&502.into(), &"connect_failed".into()));
    assert_eq!((&noted["pool"], &noted["attempts"]), (&"app".into(), &1.into()));
    assert_eq!(noted["backend"], nobody.to_string());
    // Whoever comes later sees it as well.
    let (_, history) = Sse::open(&running, "/api/v1/stream", "").next("history");
    assert_eq!(history["requests"][0]["request_id"], noted["request_id"]);
    // It is no event of the process.
    let all = metrics::json(&running, "/api/v1/history");
    assert!(!all.to_string().contains("request_noted"), "{all}");
}

fn a_request_that_was_tried_again_is_shown_with_its_tries(driver: Driver) {
    let busy = answers_each(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec());
    let (nobody, busy) = (addresses::free(), Backend::open(busy));
    let pool = format!(
        "backends = [{{ name = \"gone\", address = \"{nobody}\" }}, \
         {{ name = \"busy\", address = \"{}\" }}]\npassive = {{ max-failures = 0 }}\n\
         retry = {{ attempts = 2, on = [\"connect-failure\", \"503\"] }}",
        busy.address()
    );
    let running = Running::start(driver, &pool);
    let mut stream = Sse::open(&running, "/api/v1/stream", "");
    stream.next("history");
    let answer = Client::connect(running.address).send(get("/")).response();
    assert!([502, 503].contains(&answer.status), "{}", answer.status);
    let (_, noted) = stream.next("request");
    let tries = noted["tries"].as_array().unwrap_or_else(|| panic!("{noted}"));
    let mut seen: Vec<_> = tries
        .iter()
        .map(|it| ["backend", "phase", "fault"].map(|key| it[key].as_str().unwrap().to_owned()))
        .collect();
    let is_timed = |it: &Value| it["ms"].as_f64() > Some(0.0) && it["reused"] == false;
    assert!(tries.iter().all(is_timed), "{noted}");
    assert_eq!(noted["attempts"], 2);
    // Why it was asked again, and why not a third time.
    let first = &tries[0];
    let again = if first["backend"] == "gone" { "connect_failure" } else { "503" };
    assert_eq!((&first["why"], &tries[1]["why"]), (&again.into(), &"tries_used".into()));
    seen.sort_unstable();
    assert_eq!(seen, [["busy", "body", "503"], ["gone", "connect", "connect_failed"]]);
}

fn the_timeline_outlives_a_kill_and_says_how_long_each_was_out(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let mut running = start(driver, &backend, "");
    let history = |running: &Running, query: &str| {
        metrics::json(running, &format!("/api/v1/history?{query}"))
    };
    let words = |history: &Value| -> Vec<String> {
        let events = history["events"].as_array().unwrap().iter();
        events.map(|it| it["event"].as_str().unwrap().to_owned()).collect()
    };
    let of_b = |running: &Running| words(&history(running, "pool=app&backend=b"));
    let is_down = |words: &Vec<String>| words.contains(&"backend_down".to_owned());
    eventually("b is down", || of_b(&running), is_down);
    running.restart();
    let twice = |words: &Vec<String>| words.iter().filter(|it| *it == "backend_down").count() == 2;
    eventually("b is down again", || of_b(&running), twice);
    let all = history(&running, "since=1h");
    assert_eq!(words(&all).iter().filter(|word| *word == "started").count(), 2);
    let b = all["availability"].as_array().unwrap().iter().find(|it| it["backend"] == "b");
    let b = b.expect("b was out");
    assert_eq!((&b["outages"], &b["isOut"]), (&2.into(), &true.into()), "{b}");
    assert!(b["percent"].as_f64() < Some(100.0) && b["outSeconds"].as_f64() > Some(0.0), "{b}");
    assert_eq!(words(&history(&running, "pool=none")), [""; 0]);
    // What was torn by a kill costs no more than itself.
    let folder = std::fs::read_dir(running.folder.join("state")).unwrap();
    let path =
        folder.map(|it| it.unwrap().path()).find(|it| it.extension() == Some("jsonl".as_ref()));
    let mut file = std::fs::File::options().append(true).open(path.unwrap()).unwrap();
    file.write_all(b"{\"event\":\"to").unwrap();
    running.restart();
    let all = words(&history(&running, ""));
    assert_eq!(all.iter().filter(|word| *word == "started").count(), 3);
    // Without a process there is what the last one has left.
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let left = running.command(&["history", "--backend", "b"]).output().unwrap();
    let left = String::from_utf8(left.stdout).unwrap();
    assert!(left.contains("Z  backend down: app/b, refused"), "{left}");
}
