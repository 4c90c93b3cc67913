//! Plays of `explain`: what it says would be done is what is done, and asking changes nothing.
//!
//! Ten thousand requests are explained and decided in `exchange/explain.rs`; here is the whole way,
//! from the command line to a core and back, beside real requests.

use std::{collections::BTreeSet, process::Output};

use serde_json::Value;

use crate::{
    backend::{Backend, Script},
    client::Client,
    instance::{Instance, Stage},
    scripts::{answers, never_answers},
    stage::{Driver, eventually},
};

on_both_drivers!(
    what_is_explained_is_what_is_done,
    a_cookie_leads_where_it_is_said_to,
    each_backend_says_why_it_is_not_asked,
    a_mistake_in_the_question_is_named,
);

/// One core, so that it is the one that serves.
fn start(driver: Driver, more: &str) -> Instance {
    let stage = Stage::new(driver);
    stage.write_whole(&format!(
        "[global]\nadmin = \"off\"\n[listener.web]\nbind = \"{}\"\n\
         trusted-proxies = [\"127.0.0.1\"]\n{more}\n",
        stage.address
    ));
    let mut arguments = stage.arguments();
    arguments.iter_mut().filter(|it| *it == "2").for_each(|it| "1".clone_into(it));
    let command = stage.command(&arguments);
    stage.start_as(command)
}

/// What it says of a request, as JSON.
#[track_caller]
fn explained(instance: &Instance, arguments: &[&str]) -> Value {
    let output = instance.ask(&[&["explain"], arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn what_is_explained_is_what_is_done(driver: Driver) {
    let backends = ["a", "b", "c", "d", "e"].map(|name| Backend::open(answers(name)));
    let at = |index: usize| backends[index].address();
    let pool = |name: &str, keys: &str, which: &[usize]| {
        let each = which.iter().map(|index| {
            let name = ["a", "b", "c", "d", "e"][*index];
            format!("{{ name = \"{name}\", address = \"{}\", weight = {} }}", at(*index), index + 1)
        });
        let each = each.collect::<Vec<_>>().join(", ");
        format!("[pool.{name}]\n{keys}\nbackends = [{each}]\n")
    };
    let route = |name: &str, keys: &str| {
        format!("[[route]]\nname = \"{name}\"\n{keys}\npool = \"{name}\"\n")
    };
    let more = [
        route("turns", "path = \"/turns\""),
        route("least", "path = \"/least\"\nmethod = \"GET\""),
        route("random", "path = \"/random\"\nhost = \"*.example\""),
        route("hashed", "header = { x-canary = \"1\" }"),
        route("by-ip", "path-regex = \"/by-ip/.*\""),
        pool("turns", "balance = \"round-robin\"", &[0, 1, 2]),
        pool("least", "balance = \"least-connections\"", &[1, 2, 3]),
        pool("random", "balance = \"random\"", &[0, 2, 4]),
        pool("hashed", "balance = { hash = \"header:x-user\" }", &[0, 1, 2, 3, 4]),
        pool("by-ip", "balance = \"ip-hash\"", &[0, 1, 2, 3, 4]),
    ];
    let instance = start(driver, &more.concat());
    let mut client = Client::connect(instance.address);
    let (mut asked, mut refused) = (BTreeSet::new(), 0);
    for number in 0..60 {
        let path = ["/turns", "/least", "/random/x", "/", "/by-ip/1", "/none"][number % 6];
        let (host, method) = (["a.example", "b"][number / 6 % 2], ["GET", "PUT"][number / 12 % 2]);
        let user = format!("X-User: {number}");
        let canary = format!("X-Canary: {}", number % 12 / 6);
        let said_for = format!("X-Forwarded-For: 192.0.2.{number}");
        let url = format!("http://{host}{path}");
        let fields = ["-H", &user, "-H", &canary, "-H", &said_for];
        let said = explained(&instance, &[&[method, &*url][..], &fields].concat());
        let again = explained(&instance, &[&[method, &*url][..], &fields].concat());
        assert_eq!(said["picked"], again["picked"], "asking changes nothing");
        let length = if method == "PUT" { "Content-Length: 0\r\n" } else { "" };
        let response = client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{user}\r\n{canary}\r\n\
                 {said_for}\r\n\r\n"
            ))
            .response();
        match said["picked"].as_str() {
            Some(name) => {
                response.expect(200, name);
                asked.insert((said["pool"].to_string(), name.to_owned()));
                assert_eq!(said["outcome"], "picked");
                assert_eq!(said["client"], format!("192.0.2.{number}"));
            }
            None => {
                response.expect_fault(404, "no_route");
                assert_eq!(said["refused"]["code"], "no_route", "{said}");
                refused += 1;
            }
        }
        let taken: Vec<_> = said["routes"].as_array().unwrap().iter().collect();
        let taken = taken.iter().filter(|route| route["taken"] == true);
        assert_eq!(taken.count(), usize::from(!said["route"].is_null()), "{said}");
    }
    assert!(asked.len() > 8 && refused > 3, "{refused} {asked:?}");
}

fn a_cookie_leads_where_it_is_said_to(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::open(answers(name)));
    let each = backends.iter().zip(["a", "b", "c"]);
    let each =
        each.map(|(it, name)| format!("{{ name = \"{name}\", address = \"{}\" }}", it.address()));
    let each = each.collect::<Vec<_>>().join(", ");
    let more = format!(
        "[[route]]\nname = \"all\"\npath = \"/\"\npool = \"app\"\n\
         [pool.app]\nsticky = {{}}\nbackends = [{each}]\n"
    );
    let instance = start(driver, &more);
    let mut led = BTreeSet::new();
    for _ in 0..3 {
        let first = Client::connect(instance.address).get("/");
        let name = first.text().to_owned();
        let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap();
        let cookie = format!("Cookie: {cookie}");
        for _ in 0..3 {
            // By turns it would be another one.
            let said = explained(&instance, &["GET", "http://a/", "-H", &cookie]);
            assert_eq!(said["picked"], name, "{said}");
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n\r\n");
            Client::connect(instance.address).send(request).response().expect(200, &name);
        }
        led.insert(name);
    }
    assert_eq!(led.len(), 3, "{led:?}");
}

fn each_backend_says_why_it_is_not_asked(driver: Driver) {
    let [good, none, rest] = [(); 3].map(|()| Backend::open(answers("ok")));
    let (busy, last) = (Backend::open(never_answers()), Backend::open(answers("last")));
    let refusing = Backend::open(Script::Refuses);
    let more = format!(
        "pool = \"app\"\n[pool.app]\nbackends = [\
         {{ name = \"down\", address = \"{}\" }},\
         {{ name = \"full\", address = \"{}\", max-in-flight = 1 }},\
         {{ name = \"none\", address = \"{}\", weight = 0 }},\
         {{ name = \"rest\", address = \"{}\" }},\
         {{ name = \"last\", address = \"{}\", backup = true }},\
         {{ name = \"good\", address = \"{}\" }}]\n\
         health = {{ type = \"tcp\", interval = \"100ms\", fall = 2 }}\n\
         [[route]]\nname = \"admin\"\npath = \"/admin\"\nmethod = \"POST\"\npool = \"app\"\n",
        refusing.address(),
        busy.address(),
        none.address(),
        rest.address(),
        last.address(),
        good.address(),
    );
    let instance = start(driver, &more);
    let (mut client, mut waits) = (Client::connect(instance.address), Vec::new());
    let state = |name: &str, key: &str| {
        let said = explained(&instance, &["GET", "/x"]);
        let all = said["backends"].as_array().unwrap().clone();
        let it = all.into_iter().find(|backend| backend["name"] == name).unwrap();
        it[key].as_str().map_or(it[key].to_string(), str::to_owned)
    };
    let is_down = || state("down", "state");
    eventually("it is down", is_down, |state| state == "down");
    assert!(instance.ask(&["backend", "drain", "app/rest"]).status.success());
    // One of so many goes to the one that never answers.
    let is_full = || state("full", "why");
    while !is_full().contains("max-in-flight") {
        let mut one = Client::connect(instance.address);
        one.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waits.push(one);
        assert!(waits.len() < 20, "nobody asks the one that never answers");
    }
    for (name, why) in [
        ("down", "down: probes fail: refused"),
        ("full", "it has as many requests in flight as `max-in-flight` allows"),
        ("none", "weight 0: only clients that stay with it"),
        ("rest", "draining: set by an operator: no new traffic"),
        ("last", "a backup, and others can be asked"),
        ("good", "may be asked"),
    ] {
        assert_eq!(state(name, "why"), why, "{name}");
    }
    let output = instance.ask(&["explain", "GET", "/x"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("route    admin  its path is /admin\n"), "{text}");
    assert!(text.contains("no route: the listener's own pool\npool app, round-robin\n"), "{text}");
    assert!(text.contains("-> good   up           may be asked\n"), "{text}");
    assert!(text.ends_with("good is asked, by round-robin\n"), "{text}");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().expect(200, "ok");
}

fn a_mistake_in_the_question_is_named(driver: Driver) {
    let good = Backend::open(answers("ok"));
    let more = format!("pool = \"app\"\n[pool.app]\nbackends = [\"{}\"]\n", good.address());
    let instance = start(driver, &more);
    for (arguments, code, says) in [
        (&["GET", "ftp://a/"][..], 1, "`ftp` is neither http nor https"),
        (&["GET", "/", "--from", "me"], 1, "`from` must be an IP address"),
        (&["GET", "/", "-H", "none"], 2, "`none` is no field"),
        (&["GET"], 2, "URL"),
    ] {
        let output = instance.ask(&[&["explain"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(err(&output).contains(says), "{arguments:?}: {}", err(&output));
    }
    let said = explained(&instance, &["GET /x HTTP/1.1\u{b}", "/"]);
    assert_eq!(said["refused"]["code"], "bad_request", "{said}");
}
