//! Plays of trials: who was left out comes back by whatever traffic there is; and who is left out
//! though no time of its own is over.
//!
//! What follows from a trial is held by the tables of `policy`; here it is that one is made at all.

use std::time::Duration;

use crate::{
    backend::{Script, plays},
    client::{Client, post},
    mortal::{Mood, Mortal},
    pace::ms,
    scripts::{answers, never_answers},
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    ; at a pace:
    a_backend_comes_back_though_nothing_can_be_repeated,
    a_tunnel_decides_a_trial,
    who_uses_up_all_the_time_is_left_out,
);

/// How long one is left out, or a request may take.
fn wait(slower: u32) -> String {
    ms(Duration::from_millis(200) * slower)
}

/// Who answers the next dozen of POSTs.
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

/// Answers with 503 so many times, and then agrees to every upgrade.
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
