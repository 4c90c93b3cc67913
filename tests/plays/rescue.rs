//! Plays of backends that freeze: what waits there is asked of others once they are taken out.

use crate::{
    backend::{Cue, Script, plays},
    client::Client,
    scripts::{answers, ok},
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    what_waits_at_a_backend_that_goes_down_is_asked_of_another,
    what_may_not_be_asked_again_waits_on,
    what_waits_at_a_backend_that_is_ejected_is_asked_of_another,
    connections_that_are_not_made_yet_move_on,
    an_upload_of_which_all_is_kept_moves_with_what_came,
    nothing_moves_if_the_pool_does_not_name_it,
    nothing_moves_from_the_last_backend,
);

/// No timeout of the data path ends a wait while a play lasts.
const PATIENT: &str = "timeouts = { connect = \"60s\", response = \"60s\" }";
const PROBED: &str = "health = { interval = \"100ms\", timeout = \"100ms\", fall = 2 }";

const GET: &str = "GET / HTTP/1.1\r\nHost: play.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: play.test\r\nContent-Length: 2\r\n\r\nhi";

/// Answers probes until it freezes, and nothing else before the thaw.
fn freezes(freeze: &Cue, thaw: &Cue) -> Script {
    let (freeze, thaw) = (freeze.clone(), thaw.clone());
    plays(move |visit| {
        loop {
            let request = visit.request()?;
            match request.target() {
                "/health" if !freeze.given() => visit.send(ok(""))?,
                "/bad" => visit.send("HTTP/1.1 503 Bad\r\nContent-Length: 0\r\n\r\n")?,
                _ => {
                    visit.wait_for(&thaw)?;
                    visit.send(ok("thawed"))?;
                }
            }
        }
    })
}

fn stage(driver: Driver, freeze: &Cue, thaw: &Cue) -> Setting {
    Stage::on(driver).backend(freezes(freeze, thaw)).backend(answers("other")).pool(PATIENT)
}

/// How many requests of clients a backend was sent.
fn asked(stage: &Stage, index: usize) -> usize {
    let heads = stage.backend(index).heads();
    heads.iter().filter(|head| !head.start.contains("/health")).count()
}

/// Clients that send this, one after the other, until so many requests wait at the first backend.
#[track_caller]
fn waiters(stage: &Stage, count: usize, request: &str) -> Vec<Client> {
    let mut waiting = Vec::new();
    while waiting.len() < count {
        let asked_now = || (asked(stage, 0), asked(stage, 1));
        let (before, mut client) = (asked_now(), stage.connect());
        client.send(request);
        let after = eventually("a backend is asked", asked_now, |now| *now != before);
        if after.0 > before.0 {
            waiting.push(client);
        } else {
            client.response().expect(200, "other");
        }
    }
    waiting
}

fn what_waits_at_a_backend_that_goes_down_is_asked_of_another(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let stage = stage(driver, &freeze, &thaw).pool(PROBED).start();
    let mut clients = waiters(&stage, 3, GET);
    freeze.give();
    for client in &mut clients {
        client.response().expect(200, "other");
        // The connection of the client is as good as ever.
        client.get("/").expect(200, "other");
    }
    assert_eq!(stage.count("retries_total{reason=\"backend_down\"}"), 3);
    assert_eq!(stage.count("requests_total{code=\"504\"}"), 0);
}

fn what_may_not_be_asked_again_waits_on(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let stage = stage(driver, &freeze, &thaw).pool(PROBED).start();
    let mut post = waiters(&stage, 1, POST).remove(0);
    let mut get = waiters(&stage, 1, GET).remove(0);
    freeze.give();
    get.response().expect(200, "other");
    thaw.give();
    post.response().expect(200, "thawed");
    assert_eq!(stage.count("retries_total"), 1);
}

fn what_waits_at_a_backend_that_is_ejected_is_asked_of_another(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let stage = stage(driver, &freeze, &thaw).start();
    let mut waits = waiters(&stage, 1, GET).remove(0);
    let mut fails = stage.connect();
    while asked(&stage, 0) < 4 {
        fails.get("/bad");
    }
    waits.response().expect(200, "other");
    assert_eq!(stage.count("retries_total{reason=\"backend_down\"}"), 1);
}

/// Nothing was sent: whatever the method is.
fn connections_that_are_not_made_yet_move_on(driver: Driver) {
    let setting = Stage::on(driver).backend(Script::Unreachable).backend(answers("other"));
    let probed = "health = { interval = \"1s\", timeout = \"800ms\", fall = 1 }";
    let stage = setting.pool(PATIENT).pool(probed).start();
    let mut clients: Vec<Client> = (0..6).map(|_| stage.connect()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(POST);
    });
    clients.iter_mut().for_each(|client| client.response().expect(200, "other"));
    assert_eq!(stage.count("retries_total{reason=\"backend_down\"}"), 3);
}

fn an_upload_of_which_all_is_kept_moves_with_what_came(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let stage = stage(driver, &freeze, &thaw).pool(PROBED).start();
    let put = "PUT / HTTP/1.1\r\nHost: play.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = stage.connect();
        client.send(put);
        waiting.push(client);
    }
    eventually("both are asked", || [0, 1].map(|index| asked(&stage, index)), |now| *now == [1, 1]);
    freeze.give();
    eventually("one is asked again", || asked(&stage, 1), |now| *now == 2);
    for client in &mut waiting {
        client.send("3\r\ndef\r\n0\r\n\r\n");
        client.response().expect(200, "other");
    }
    let bodies = stage.backend(1).requests().into_iter().filter(|it| it.method() == "PUT");
    assert!(bodies.map(|it| it.body).eq([b"abcdef", b"abcdef"]));
}

fn nothing_moves_if_the_pool_does_not_name_it(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let retry = "retry = { on = [\"connect-failure\", \"reset-before-response\"] }";
    let stage = stage(driver, &freeze, &thaw).pool(PROBED).pool(retry).start();
    let mut waits = waiters(&stage, 1, GET).remove(0);
    freeze.give();
    stage.expect_count("backend_state{state=\"down\"}", 1);
    thaw.give();
    waits.response().expect(200, "thawed");
    assert_eq!(stage.count("retries_total"), 0);
}

fn nothing_moves_from_the_last_backend(driver: Driver) {
    let (freeze, thaw) = (Cue::default(), Cue::default());
    let alone = Stage::on(driver).backend(freezes(&freeze, &thaw)).pool(PATIENT).pool(PROBED);
    let stage = alone.start();
    let mut client = stage.connect();
    client.send(GET);
    eventually("it is asked", || asked(&stage, 0), |now| *now == 1);
    freeze.give();
    stage.expect_count("backend_state{state=\"down\"}", 1);
    thaw.give();
    client.response().expect(200, "thawed");
}
