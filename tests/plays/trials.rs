//! Plays of trials: an ejected backend comes back by whatever traffic there is; and a backend may
//! be ejected although none of its own timeouts has passed.
//!
//! The tables of `policy` test what follows from a trial; here it is tested that one is made at
//! all.

use std::time::Duration;

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, post},
    mortal::{Mood, Mortal},
    pace::{Watch, ms},
    scripts::{answers, never_answers, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    ; at a pace:
    a_backend_comes_back_though_nothing_can_be_repeated,
    a_tunnel_decides_a_trial,
    a_late_trial_of_a_breaker_keeps_nobody_out,
    a_late_trial_of_an_ejected_backend_keeps_nobody_out,
    who_uses_up_all_the_time_is_left_out,
);

/// How long an ejection lasts, or a request may take.
fn wait(slower: u32) -> String {
    ms(Duration::from_millis(200) * slower)
}

/// The backends that answer the next dozen of POSTs.
fn round_of_posts(client: &mut Client) -> String {
    (0..12).map(|_| client.send(post("/", "x")).response().text().to_owned()).collect()
}

fn a_backend_comes_back_though_nothing_can_be_repeated(driver: Driver, slower: u32) {
    let mortals = ["a", "b", "c"].map(Mortal::born);
    mortals[0].becomes(Mood::Says(503));
    let setting = Stage::on(driver).pool(&format!("passive = {{ eject = {} }}", wait(slower)));
    let setting = mortals.iter().fold(setting, |stage, mortal| stage.written(mortal.written()));
    let stage = setting.start();
    let mut client = stage.connect();
    eventually("it is ejected", || round_of_posts(&mut client), |names| !names.contains('a'));
    mortals[0].becomes(Mood::Well);
    eventually("it is back", || round_of_posts(&mut client), |names| names.contains('a'));
}

/// Answers this many times with 503, and then agrees to every upgrade.
fn ails_then_upgrades() -> Script {
    plays(|visit| {
        loop {
            let request = visit.request()?;
            if request.field("upgrade").is_some() {
                visit.send(crate::scripts::SWITCHING)?;
                return visit.drain();
            }
            if request.target() == "/ail" {
                visit.send("HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\na")?;
            } else {
                visit.send(crate::scripts::ok("a"))?;
            }
        }
    })
}

fn a_tunnel_decides_a_trial(driver: Driver, slower: u32) {
    let stage = Stage::on(driver)
        .pool(&format!("passive = {{ eject = {}, max-failures = 2 }}", wait(slower)))
        .backend(ails_then_upgrades())
        .backend(answers("b"))
        .start();
    let mut client = stage.connect();
    let round = |client: &mut Client, path: &str| -> String {
        (0..6).map(|_| client.get(path).text().to_owned()).collect()
    };
    eventually("it is ejected", || round(&mut client, "/ail"), |names| names == "bbbbbb");
    let mut tunnels = Vec::new();
    eventually(
        "a tunnel is the trial",
        || {
            let mut tunnel = stage.connect();
            tunnel.send(
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            );
            let status = tunnel.response_head("GET").unwrap().status;
            tunnels.push(tunnel);
            status
        },
        |status| *status == 101,
    );
    eventually("it is back", || round(&mut client, "/"), |names| names.contains('a'));
}

fn who_uses_up_all_the_time_is_left_out(driver: Driver, slower: u32) {
    let stage = Stage::on(driver)
        .pool(&format!("timeouts = {{ request = {} }}", wait(slower)))
        .pool("passive = { eject = \"60s\" }")
        .backend(never_answers())
        .backend(answers("b"))
        .start();
    let mut client = stage.connect();
    let mut round = || -> Vec<u16> { (0..4).map(|_| client.get("/").status).collect() };
    assert!(round().contains(&504));
    eventually("it is left out", round, |statuses| *statuses == [200; 4]);
}

/// Answers `/ail` with 500, `/late` once the cue is given, and all else at once.
fn ails_or_is_late(cue: &Cue) -> Script {
    let cue = cue.clone();
    plays(move |visit| {
        loop {
            let request = visit.request()?;
            match request.target() {
                "/ail" => visit.send("HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\na")?,
                "/late" => {
                    visit.wait_for(&cue)?;
                    visit.send(ok("a"))?;
                }
                _ => visit.send(ok("a"))?,
            }
        }
    })
}

/// Requests whose answers are late, by their path or by a client that takes its time, and what the
/// client sends at last.
const LATE: [(&str, &str); 3] = [
    ("GET /late HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    ("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "x"),
    ("PUT /late HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "0\r\n\r\n"),
];

/// A trial is decided within this time, whatever request was used for it.
const DECIDED: Duration = Duration::from_secs(3);

/// Sends a request until one gets no answer: it is with the backend on trial.
fn held(stage: &Stage, request: &str) -> Client {
    let mut held = None;
    let ask = || {
        let mut client = stage.connect();
        client.send(request).wire().wait_at_most(Duration::from_millis(150));
        if let Err((Broken::Silent, _)) = client.try_response() {
            held = Some(client);
        }
        let heads = stage.backend(0).heads();
        heads.iter().any(|head| head.start.contains("/late"))
    };
    eventually("it is the trial", ask, |is_held| *is_held);
    held.expect("it has no answer")
}

fn ends_well(mut held: Client, rest: &str, cue: &Cue) {
    cue.give();
    held.wire().wait_at_most(Duration::from_secs(10));
    held.send(rest).response().expect(200, "a");
}

fn a_late_trial_of_a_breaker_keeps_nobody_out(driver: Driver, slower: u32) {
    for (request, rest) in LATE {
        let (cue, open) = (Cue::default(), wait(slower));
        let breaker =
            format!("breaker = {{ min-requests = 4, open = {open}, allow-empty = true }}");
        let stage = Stage::on(driver)
            .pool("passive = { max-failures = 0, statuses = [500] }")
            .pool(&breaker)
            .backend(ails_or_is_late(&cue))
            .start();
        eventually("it opens", || stage.get("/ail").status, |status| *status == 503);
        let held = held(&stage, request);
        let watch = Watch::start();
        eventually("it is back", || stage.get("/").status, |status| *status == 200);
        watch.took().expect_at_most(DECIDED);
        ends_well(held, rest, &cue);
    }
}

fn a_late_trial_of_an_ejected_backend_keeps_nobody_out(driver: Driver, slower: u32) {
    for (request, rest) in LATE {
        let (cue, eject) = (Cue::default(), wait(slower));
        let stage = Stage::on(driver)
            .pool(&format!("passive = {{ eject = {eject}, max-failures = 2, statuses = [500] }}"))
            .backend(ails_or_is_late(&cue))
            .backend(answers("b"))
            .start();
        let round =
            |path: &str| -> String { (0..6).map(|_| stage.get(path).text().to_owned()).collect() };
        eventually("it is ejected", || round("/ail"), |names| names == "bbbbbb");
        let held = held(&stage, request);
        let watch = Watch::start();
        eventually("it is back", || round("/"), |names| names.contains('a'));
        watch.took().expect_at_most(DECIDED);
        ends_well(held, rest, &cue);
    }
}
