//! Random plays of clients that leave at any moment, and of backends that do.
//!
//! The answers are not checked. What counts is what is left behind: every gauge is zero again, no
//! slot of a backend or of a queue is held for a client that is gone, and the next are served.

use std::time::Duration;

use crate::{
    backend::{Cue, Script, Visit, plays},
    chance::{Chance, rounds},
    client::{Client, get},
    scripts::{SWITCHING, chunk, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(clients_that_leave_leave_nothing_behind, backends_that_leave_leave_nothing_behind);

/// How many leave concurrently, and how many slots there are for them.
const CROWD: usize = 6;
const PLACES: usize = 4;

/// Answers in a random way and at a random pace; `/hold` on its cue. If `dies`, it is sometimes
/// gone in the middle of something.
fn answers_by_chance(chance: Chance, hold: &Cue, dies: bool) -> Script {
    let hold = hold.clone();
    plays(move |visit| {
        let mut chance = chance.clone();
        (0..visit.number()).for_each(|_| _ = chance.split());
        loop {
            let (head, framing) = visit.head()?;
            if head.start.contains("/hold") {
                visit.wait_for(&hold)?;
                visit.send(ok("held"))?;
                continue;
            }
            if dies && chance.once_in(4) {
                if chance.once_in(2) {
                    visit.reset();
                }
                return Ok(());
            }
            let upgrades = head.lists("connection", "upgrade");
            // Now and then it answers before it has read the body.
            let early = chance.once_in(4).then(|| head.clone());
            if early.is_none() {
                visit.rest_of(head, framing)?;
            }
            visit.pause(Duration::from_micros(chance.below(3_000) as u64))?;
            if upgrades {
                return tunnels(visit, &mut chance);
            }
            answers(visit, &mut chance, dies)?;
            if let Some(head) = early {
                visit.rest_of(head, framing)?;
            }
        }
    })
}

/// Agrees to an upgrade and sends back what comes.
fn tunnels(visit: &mut Visit, chance: &mut Chance) -> Result<(), Broken> {
    visit.send(SWITCHING)?;
    for _ in 0..chance.below(20) {
        let some = visit.wire().some()?;
        if some.is_empty() {
            break;
        }
        visit.send(some)?;
    }
    Ok(())
}

/// An answer of some length, in pieces; cut if a backend dies.
fn answers(visit: &mut Visit, chance: &mut Chance, dies: bool) -> Result<(), Broken> {
    let body = "x".repeat(chance.size());
    let mut bytes = match chance.below(3) {
        0 => ok(body),
        1 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"),
        _ if body.is_empty() => ok(""),
        _ => {
            let chunks = chunk(body);
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        }
    };
    let ends = bytes.contains("Connection: close");
    let cut = dies && chance.once_in(4);
    if cut {
        bytes.truncate(chance.below(bytes.len()));
    }
    for piece in chance.pieces(bytes.as_bytes()) {
        visit.send(piece)?;
    }
    if ends || cut { Err(Broken::Ended) } else { Ok(()) }
}

/// What a client asks, as far as it comes.
fn request(chance: &mut Chance) -> Vec<u8> {
    let (fields, wire, _) = chance.body();
    let expect = chance.of(&["", "", "Expect: 100-continue\r\n"]);
    let mut bytes = match chance.below(6) {
        0 => get("/some").into_bytes(),
        1 => [get("/one"), get("/two"), get("/three")].concat().into_bytes(),
        2 => "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
            .to_owned()
            .into_bytes(),
        3 => b"GET /old HTTP/1.0\r\n\r\n".to_vec(),
        _ => {
            let method = chance.of(&["POST", "PUT"]);
            let head = format!("{method} /body HTTP/1.1\r\nHost: a\r\n{expect}{fields}\r\n");
            [head.as_bytes(), &wire].concat()
        }
    };
    if chance.once_in(2) {
        bytes.truncate(chance.below(bytes.len()));
    }
    bytes
}

/// Asks something, takes something of the answer, waits a little, and leaves in some way.
fn comes_and_leaves(stage: &Stage, chance: &mut Chance) {
    let mut client = stage.connect();
    let bytes = request(chance);
    for piece in chance.pieces(&bytes) {
        client.send_what_is_taken(piece);
    }
    client.wire().wait_at_most(Duration::from_millis(1 + chance.below(5) as u64));
    for _ in 0..chance.below(4) {
        let _ = client.wire().some();
    }
    match chance.below(4) {
        0 => client.reset(),
        1 => drop(client),
        2 => {
            client.half_close();
            client.wire().wait_at_most(Duration::from_millis(chance.below(20) as u64 + 1));
            let _ = client.wire().some();
        }
        _ => {
            let _ = client.wire().some();
        }
    }
}

/// Gauges that must return to zero.
const NOUGHT: [&str; 5] =
    ["connections", "requests_in_flight", "requests_queued", "backend_in_flight", "tunnels"];

/// Lets a crowd come and leave, and checks what is left of it.
#[track_caller]
fn play(driver: Driver, dies: bool) {
    let mut chance = Chance::new();
    let hold = Cue::default();
    let stage = Stage::on(driver)
        .each(&format!("max-in-flight = {PLACES}"))
        .pool("queue = { size = 3, timeout = \"1s\" }\npassive = { max-failures = 0 }")
        .pool("timeouts = { response = \"2s\", body = \"2s\" }")
        .listener("timeouts = { client-header = \"2s\", client-body = \"2s\", idle = \"2s\" }")
        .backend(answers_by_chance(chance.split(), &hold, dies))
        .start();
    std::thread::scope(|scope| {
        for _ in 0..CROWD {
            let (mut chance, stage) = (chance.split(), &stage);
            scope.spawn(move || {
                for _ in 0..rounds(60) {
                    comes_and_leaves(stage, &mut chance);
                }
            });
        }
    });
    for name in NOUGHT {
        stage.expect_count(name, 0);
    }
    expect_places(&stage, &hold);
    assert_eq!(stage.count("panics_total"), 0);
}

/// Fails unless all slots are free: as many requests as there are slots are let in at once.
#[track_caller]
fn expect_places(stage: &Stage, hold: &Cue) {
    let mut clients: Vec<Client> = (0..PLACES).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(get("/hold"));
    }
    let held = || {
        let heads = stage.backend(0).heads();
        heads.iter().filter(|head| head.start.contains("/hold")).count()
    };
    eventually("all places are taken", held, |held| *held == PLACES);
    hold.give();
    for client in &mut clients {
        client.response().expect(200, "held");
    }
}

fn clients_that_leave_leave_nothing_behind(driver: Driver) {
    play(driver, false);
}

fn backends_that_leave_leave_nothing_behind(driver: Driver) {
    play(driver, true);
}
