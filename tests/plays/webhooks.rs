//! Plays of webhooks: events arrive whole and in order, and a receiver that is slow, dead or fails
//! holds up nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    addresses,
    backend::{Backend, Cue, Script},
    run_time::{Running, path},
    scripts::{answers, answers_each, answers_on, never_answers, sends},
    stage::{Driver, eventually},
};

on_both_drivers!(
    chosen_events_arrive_whole_and_in_order,
    what_is_not_taken_is_sent_again_and_said_once,
    a_dead_and_a_silent_receiver_hold_up_nobody,
    a_reload_changes_who_is_told,
);

fn hook(receiver: &Backend, keys: &str) -> String {
    format!("[[webhook]]\nurl = \"http://{}/hook?key=secret\"\n{keys}\n", receiver.address())
}

fn start(driver: Driver, backend: &Backend, hooks: &str) -> Running {
    Running::start(driver, &format!("backends = [\"{}\"]\n{hooks}", backend.address()))
}

/// The events that a receiver was sent, each time it was.
fn told(receiver: &Backend) -> Vec<Value> {
    let requests = receiver.requests();
    requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

fn set(running: &Running, backend: &Backend, weight: u16) {
    running.calls("PATCH", &path(backend), &json!({ "weight": weight }), 200);
}

/// The changes that a receiver was told of.
fn changes(receiver: &Backend) -> Vec<String> {
    let told = told(receiver);
    told.iter().map(|event| event["changes"].as_str().unwrap_or("-").to_owned()).collect()
}

fn chosen_events_arrive_whole_and_in_order(driver: Driver) {
    let (backend, receiver) = (Backend::open(answers("ok")), Backend::open(answers("")));
    let all = Backend::open(answers(""));
    let hooks = hook(&receiver, "events = [\"backend_set\"]") + &hook(&all, "");
    let running = start(driver, &backend, &hooks);
    (2..8).for_each(|weight| set(&running, &backend, weight));
    let expected: Vec<_> = (2..8).map(|weight| format!("weight {weight}")).collect();
    eventually("all have arrived", || changes(&receiver), |changes| *changes == expected);
    let request = receiver.requests().remove(0);
    assert_eq!((request.method(), request.target()), ("POST", "/hook?key=secret"));
    assert_eq!(request.field("content-type"), Some("application/json"));
    assert_eq!(request.field("x-ringway-event"), Some("backend_set"));
    let event = told(&receiver).remove(0);
    assert_eq!(request.field("x-ringway-event-id"), event["id"].as_str());
    assert!(event["instance"].is_string() && event["from"].is_string(), "{event}");
    assert_eq!((&event["pool"], &event["by"]), (&"app".into(), &"admin".into()));
    let words = || told(&all).iter().map(|event| event["event"].clone()).collect::<Vec<_>>();
    eventually("those of the other", words, |words| words.len() >= 7);
    assert_eq!(words()[0], "started");
}

fn what_is_not_taken_is_sent_again_and_said_once(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let (fails, refuses) = (Cue::default(), Backend::open(sends(NOT_FOUND)));
    let until = fails.clone();
    let receiver =
        Backend::open(answers_each(
            move |_| {
                if until.given() { TAKEN.into() } else { BUSY.into() }
            },
        ));
    let only = "events = \"backend_set\"";
    let hooks = hook(&receiver, only) + &hook(&refuses, only);
    let running = start(driver, &backend, &hooks);
    set(&running, &backend, 2);
    eventually("it is sent again", || receiver.requests().len(), |count| *count >= 2);
    fails.give();
    set(&running, &backend, 3);
    let last = || changes(&receiver).last().cloned();
    eventually("the next one arrives", last, |last| last.as_deref() == Some("weight 3"));
    let (changes, ids) = (changes(&receiver), told(&receiver));
    let (again, once) = changes.split_at(changes.len() - 1);
    assert!(again.iter().all(|change| change == "weight 2") && once == ["weight 3"]);
    assert!(ids.windows(2).take(again.len() - 1).all(|two| two[0]["id"] == two[1]["id"]));
    let said = |word: &str| running.log().matches(&format!("event=\"{word}\"")).count();
    eventually("it is said", || said("webhook_delivers"), |count| *count == 1);
    assert_eq!(said("webhook_failing"), 2, "once of each: {}", running.log());
    assert!(!running.log().contains("secret"), "{}", running.log());
    assert_eq!(self::changes(&refuses), ["weight 2", "weight 3"], "404 is not sent again");
}

const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BUSY: &str = "HTTP/1.1 500 Busy\r\nContent-Length: 4\r\n\r\nbusy";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

fn a_dead_and_a_silent_receiver_hold_up_nobody(driver: Driver) {
    let (backend, good) = (Backend::open(answers("ok")), Backend::open(answers("")));
    let (silent, dead) = (Backend::open(never_answers()), addresses::free());
    let slow_cue = Cue::default();
    let slow = Backend::open(answers_on(&slow_cue, ""));
    let refused = Backend::open(Script::Refuses);
    let hooks = [
        hook(&silent, "timeout = \"1s\"\nretries = 1"),
        format!("[[webhook]]\nurl = \"http://{dead}/\"\n"),
        hook(&refused, ""),
        hook(&slow, "timeout = \"60s\""),
        hook(&good, "events = \"backend_set\""),
    ];
    let running = start(driver, &backend, &hooks.concat());
    let since = Instant::now();
    for weight in 2..40 {
        set(&running, &backend, weight);
    }
    eventually("all have arrived", || told(&good).len(), |count| *count == 38);
    let took = since.elapsed();
    assert_eq!(running.ask(3), ["ok"; 3]);
    assert!(told(&slow).len() <= 1 && told(&silent).len() <= 40, "one after the other");
    slow_cue.give();
    eventually("the slow one gets the rest", || told(&slow).len(), |count| *count >= 38);
    eventually("it is given up", || told(&silent).len(), |count| *count >= 3);
    let failing = || running.log().matches("event=\"webhook_failing\"").count();
    eventually("three are said to fail", failing, |count| *count == 3);
    // 38 writes, each on the disk before it is answered.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

fn a_reload_changes_who_is_told(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let (before, after) = (Backend::open(answers("")), Backend::open(answers("")));
    let of = |hook: &str| format!("backends = [\"{}\"]\n{hook}", backend.address());
    let running = start(driver, &backend, &hook(&before, "events = \"backend_set\""));
    set(&running, &backend, 2);
    eventually("the first is told", || told(&before).len(), |count| *count == 1);
    running.write(&of(&hook(&after, "events = [\"backend_set\", \"reload\"]")));
    let output = running.command(&["reload"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("~ global: webhook"), "{said}");
    set(&running, &backend, 3);
    let changes = || changes(&after);
    eventually("the next is told", changes, |changes| changes.contains(&"weight 3".to_owned()));
    assert_eq!(told(&before).len(), 1, "the first is not told any more");
}
