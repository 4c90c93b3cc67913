//! Plays of the list of tries in the access log: each try is an element where there was more than
//! one, and what they say agrees with the counters.

use std::collections::BTreeMap;

use ringway::statistics::Value as Number;
use serde_json::{Map, Value};

use crate::{
    backend::{Script, plays},
    client::{get, post},
    logs::Folder,
    scripts::{answers, sends, sends_and_closes},
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_request_that_is_answered_at_once_has_no_list,
    each_try_says_where_and_how_it_ended_and_why_there_was_another,
    a_refused_retry_says_why,
    a_stale_connection_is_a_try_that_is_listed_and_not_counted_as_a_retry,
    lists_agree_with_the_counters,
);

over_http_2!(
    a_request_that_is_answered_at_once_has_no_list,
    a_refused_retry_says_why,
    lists_agree_with_the_counters,
    ; in front:
    each_try_says_where_and_how_it_ended_and_why_there_was_another,
);

/// The texts under a key of the tries of a line.
fn texts<'a>(line: &'a Map<String, Value>, key: &str) -> Vec<&'a str> {
    let tries = line["tries"].as_array().unwrap();
    tries.iter().map(|one| one[key].as_str().unwrap_or("-")).collect()
}

/// What a counter says of each reason.
fn counted(stage: &Stage, family: &str) -> BTreeMap<String, u64> {
    let statistics = stage.handle().statistics().unwrap();
    let of_family = statistics.samples().into_iter().filter(|sample| sample.family == family);
    let by_reason = of_family.filter_map(|sample| {
        let reason = sample.labels.iter().find(|(name, _)| *name == "reason")?.1.to_string();
        match sample.value {
            Number::Count(count) if count > 0 => Some((reason, count)),
            _ => None,
        }
    });
    by_reason.collect()
}

fn a_request_that_is_answered_at_once_has_no_list(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("ok")).start();
    stage.get("/").expect(200, "ok");
    let lines = folder.lines(stage);
    assert_eq!((&lines[0]["attempts"], lines[0].get("tries")), (&1.into(), None));
}

fn each_try_says_where_and_how_it_ended_and_why_there_was_another(driver: Driver) {
    let folder = Folder::new();
    let stage = folder
        .stage(driver, "json")
        .pool("retry = { attempts = 3, on = [\"connect-failure\", \"503\"] }")
        .pool("passive = { max-failures = 0 }")
        .backend(Script::Refuses)
        .backend(sends("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
        .backend(answers("ok"))
        .start();
    let names = [0, 1, 2].map(|index| stage.backend(index).address().to_string());
    // Whoever begins, one of them asks the one that refuses before it is passed over.
    (0..4).for_each(|_| stage.get("/").expect(200, "ok"));
    let lines = folder.lines(stage);
    let line = lines.iter().find(|line| line["attempts"] == 3).expect("one with three tries");
    let (backends, phases) = (texts(line, "backend"), texts(line, "phase"));
    let (faults, whys) = (texts(line, "fault"), texts(line, "why"));
    let mut rows: Vec<_> =
        (0..3).map(|at| (backends[at], phases[at], faults[at], whys[at])).collect();
    assert_eq!(rows.pop(), Some((&*names[2], "body", "-", "-")));
    rows.sort_unstable_by_key(|row| row.2);
    let expected = [
        (&*names[1], "body", "503", "503"),
        (&*names[0], "connect", "connect_failed", "connect_failure"),
    ];
    assert_eq!(rows, expected);
    let tries = line["tries"].as_array().unwrap();
    let ms: f64 = tries.iter().map(|one| one["ms"].as_f64().unwrap()).sum();
    assert!(ms > 0.0 && ms <= line["t_total"].as_f64().unwrap(), "{line:?}");
}

fn a_refused_retry_says_why(driver: Driver) {
    for (pool, fault, why) in [
        ("retry = { attempts = 2 }", "connect_failed", "tries_used"),
        ("retry = { attempts = 9 }", "connect_failed", "none_left"),
    ] {
        let folder = Folder::new();
        let setting = folder.stage(driver, "json").pool(pool);
        let stage = setting.backend(Script::Refuses).backend(Script::Refuses).start();
        stage.get("/").expect_fault(502, "connect_failed");
        let lines = folder.lines(stage);
        assert_eq!(texts(&lines[0], "fault"), [fault; 2]);
        assert_eq!(texts(&lines[0], "why"), ["connect_failure", why]);
    }
}

fn a_stale_connection_is_a_try_that_is_listed_and_not_counted_as_a_retry(driver: Driver) {
    let folder = Folder::new();
    // Each connection answers once, and closes when it is asked again.
    let once = plays(|visit| {
        visit.request()?;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        visit.head().map(drop)
    });
    let stage = folder.stage(driver, "json").backend(once).start();
    let mut client = stage.connect();
    client.get("/").expect(200, "ok");
    client.get("/").expect(200, "ok");
    drop(client);
    assert_eq!(stage.count("backend_connections_stale_total"), 1);
    assert_eq!(counted(&stage, "retries_total"), BTreeMap::new());
    let lines = folder.lines(stage);
    assert_eq!(texts(&lines[1], "why"), ["stale", "-"]);
    assert_eq!(texts(&lines[1], "fault"), ["backend_reset", "-"]);
    let reused: Vec<_> = lines[1]["tries"].as_array().unwrap().iter().collect();
    assert_eq!((&reused[0]["reused"], &reused[1]["reused"]), (&true.into(), &false.into()));
}

fn lists_agree_with_the_counters(driver: Driver) {
    let folder = Folder::new();
    let retry = "retry = { attempts = 3, budget = { per-second = 5, ratio = 0.0 }, \
                 on = [\"connect-failure\", \"reset-before-response\", \"503\"] }";
    let stage = folder
        .stage(driver, "json")
        .pool(retry)
        .pool("passive = { max-failures = 0 }")
        .backend(Script::Refuses)
        .backend(sends_and_closes(""))
        .backend(sends("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
        .backend(answers("ok"))
        .start();
    for number in 0..40 {
        let mut client = stage.connect();
        client.send(if number % 3 == 0 { post("/", "x") } else { get("/") });
        client.response();
    }
    stage.expect_count("requests_in_flight", 0);
    let retries = counted(&stage, "retries_total");
    let refused = counted(&stage, "retries_refused_total");
    let lines = folder.lines(stage);
    let (mut listed, mut listed_refused) = (BTreeMap::new(), BTreeMap::<String, u64>::new());
    let mut alone = 0;
    for line in &lines {
        let Some(tries) = line.get("tries").and_then(Value::as_array) else {
            alone += u64::from(line["status"] != 200);
            continue;
        };
        assert_eq!(line["attempts"], tries.len(), "{line:?}");
        let (last, before) = tries.split_last().unwrap();
        for one in before {
            *listed.entry(one["why"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        if let Some(why) = last["why"].as_str() {
            *listed_refused.entry(why.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(listed, retries);
    assert!(listed.len() >= 2, "{listed:?}");
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    assert_eq!(sum(&listed_refused) + alone, sum(&refused), "{refused:?}");
    for (why, count) in &listed_refused {
        assert!(refused[why] >= *count, "{why}");
    }
}
