//! Random plays of `max-in-flight`: whatever clients leave and backends fail, there are never more
//! requests in flight than slots, and no slot is lost.
//!
//! The kernel at the backend is what counts: a request is in flight from its head until the last of
//! its answer is sent or its connection has ended.

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    backend::{Cue, Script, Visit, plays},
    chance::{Chance, rounds},
    client::{Client, get},
    scripts::{SWITCHING, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    places_have_one_holder_each_whatever_happens,
    places_and_trials_have_one_holder_each_whatever_happens,
);

const PLACES: usize = 4;
const BACKENDS: usize = 2;
const CLIENTS: usize = 24;

/// What is in flight at one backend.
#[derive(Default)]
struct House {
    under_way: Mutex<Vec<TcpStream>>,
    most: AtomicUsize,
    served: AtomicUsize,
}

impl House {
    /// A request has come on this connection.
    fn comes(&self, visit: &mut Visit) {
        let mut under_way = self.under_way.lock().unwrap();
        under_way.push(visit.wire().stream().try_clone().unwrap());
        let mut now = living(&under_way);
        for _ in 0..100 {
            if now <= PLACES {
                break;
            }
            // An end that the proxy has sent may be on its way: it leaves at its connection's pace.
            thread::sleep(Duration::from_millis(1));
            now = living(&under_way);
        }
        self.most.fetch_max(now, SeqCst);
        self.served.fetch_add(1, SeqCst);
    }

    /// Its answer is about to be complete, or it gets none.
    fn goes(&self, visit: &mut Visit) {
        let peer = visit.wire().stream().peer_addr().ok();
        let is_other = |stream: &TcpStream| peer.is_some() && stream.peer_addr().ok() != peer;
        self.under_way.lock().unwrap().retain(is_other);
    }

    fn living(&self) -> usize {
        living(&self.under_way.lock().unwrap())
    }
}

/// How many of these have an end that the proxy has not closed.
fn living(streams: &[TcpStream]) -> usize {
    let is_open = |stream: &&TcpStream| {
        let mut look = [PollFd::new(*stream, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut look, Some(&at_once)).is_ok_and(|count| count == 0)
    };
    streams.iter().filter(is_open).count()
}

/// Does what the target says.
fn obeys(house: &Arc<House>, cue: &Cue) -> Script {
    let (house, cue) = (Arc::clone(house), cue.clone());
    plays(move |visit| {
        loop {
            let (head, framing) = visit.head()?;
            house.comes(visit);
            let target = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
            let early = target == "/early";
            let request = if early { None } else { Some(visit.rest_of(head, framing)) };
            if let Some(Err(broken)) = request {
                house.goes(visit);
                return Err(broken);
            }
            let goes_on = answers(visit, &house, &cue, &target);
            if target != "/reset" {
                house.goes(visit);
            }
            if !goes_on? {
                return Ok(());
            }
        }
    })
}

/// Answers, or not; returns whether the connection stays open.
fn answers(visit: &mut Visit, house: &House, cue: &Cue, target: &str) -> Result<bool, Broken> {
    let long = "x".repeat(200_000);
    // So that more clients ask than there are slots.
    visit.pause(Duration::from_millis(3))?;
    let answer = match target {
        "/slow" => {
            visit.pause(Duration::from_millis(5))?;
            ok("slow")
        }
        "/held" => {
            visit.wait_for(cue)?;
            ok("held")
        }
        "/silent" => {
            while !visit.wire().some()?.is_empty() {}
            return Ok(false);
        }
        "/reset" => {
            house.goes(visit);
            visit.reset();
            return Ok(false);
        }
        "/none" => return Ok(false),
        "/garbage" => "garbage\r\n\r\n".to_owned(),
        "/busy" => "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_owned(),
        "/cut" => {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")?;
            return Ok(false);
        }
        "/tunnel" => {
            visit.send(SWITCHING)?;
            while !visit.wire().some()?.is_empty() {}
            return Ok(false);
        }
        "/surplus" => [ok("surplus"), ok("poison")].concat(),
        "/long" => ok(&long),
        _ => ok("well"),
    };
    house.goes(visit);
    visit.send(answer)?;
    Ok(!matches!(target, "/early" | "/closes"))
}

const TARGETS: [&str; 14] = [
    "/", "/", "/slow", "/silent", "/reset", "/none", "/garbage", "/busy", "/cut", "/surplus",
    "/long", "/early", "/closes", "/tunnel",
];

/// One client, which asks a few times and leaves in some way.
fn visits(stage: &Stage, chance: &mut Chance) {
    let mut client = stage.connect();
    client.wire().wait_at_most(Duration::from_secs(10));
    for _ in 0..=chance.below(4) {
        let target = chance.of(&TARGETS);
        let upgrade =
            if target == "/tunnel" { "Connection: Upgrade\r\nUpgrade: x\r\n" } else { "" };
        let (method, fields, body) = match chance.below(3) {
            0 if upgrade.is_empty() => {
                let (fields, wire, _) = chance.body();
                ("PUT", fields, wire)
            }
            _ => ("GET", String::new(), Vec::new()),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{upgrade}{fields}\r\n");
        let mut bytes = [head.as_bytes(), &body].concat();
        let leaves = target == "/silent" || chance.once_in(4);
        if leaves && chance.once_in(3) {
            bytes.truncate(bytes.len() - body.len() / 2);
        }
        client.send_what_is_taken(&bytes);
        if leaves {
            thread::sleep(Duration::from_micros(chance.below(4_000) as u64));
            return if chance.once_in(2) { client.reset() } else { drop(client) };
        }
        match client.try_response() {
            Ok(response) if response.status == 101 || response.closes() => return,
            Ok(response) => assert!(!response.body.starts_with(b"poison"), "{target} was poisoned"),
            Err(_) => return,
        }
    }
}

fn places_have_one_holder_each_whatever_happens(driver: Driver) {
    chaos(driver, "passive = { max-failures = 0 }");
}

fn places_and_trials_have_one_holder_each_whatever_happens(driver: Driver) {
    chaos(driver, "passive = { max-failures = 2, eject = \"50ms\" }");
}

fn chaos(driver: Driver, pool: &str) {
    let mut chance = Chance::new();
    let cue = Cue::default();
    let houses: [Arc<House>; BACKENDS] = Default::default();
    let stage = Stage::on(driver)
        .cores(2)
        .each(&format!("max-in-flight = {PLACES}"))
        .pool("queue = { size = 100, timeout = \"20s\" }\ntimeouts = { response = \"2s\" }")
        .pool(pool);
    let setting = houses.iter().fold(stage, |stage, house| stage.backend(obeys(house, &cue)));
    let stage = setting.start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (stage, mut chance) = (&stage, chance.split());
            scope.spawn(move || (0..rounds(8)).for_each(|_| visits(stage, &mut chance)));
        }
    });
    for house in &houses {
        let most = house.most.load(SeqCst);
        assert!(most <= PLACES, "{most} at once where there are {PLACES} places");
    }
    every_place_can_be_taken(&stage, &houses, &cue);
    // And no connection is kept, or forgotten, that the other side knows nothing of.
    let idle = || stage.count("backend_connections{state=\"idle\"}") as usize;
    let open = || (0..BACKENDS).map(|number| stage.backend(number).open_visits()).sum::<usize>();
    eventually("kept is what is open", || (idle(), open()), |(idle, open)| idle == open);
}

/// All slots are free, each can be taken, and no others.
fn every_place_can_be_taken(stage: &Stage, houses: &[Arc<House>; BACKENDS], cue: &Cue) {
    for gauge in ["connections", "backend_in_flight", "requests_queued"] {
        stage.expect_count(gauge, 0);
    }
    eventually(
        "nobody is left",
        || houses.each_ref().map(|house| house.living()),
        |living| *living == [0; BACKENDS],
    );
    // A backend that was left out is back.
    let served = || houses.each_ref().map(|house| house.served.load(SeqCst));
    let before = served();
    let mut client = stage.connect();
    let ask = || {
        (0..4).for_each(|_| client.get("/").expect(200, "well"));
        served()
    };
    eventually("all are asked", ask, |now| now.iter().zip(before).all(|(now, then)| *now > then));
    let mut holding: Vec<Client> = (0..=PLACES * BACKENDS).map(|_| stage.connect()).collect();
    holding.iter_mut().for_each(|client| _ = client.send(get("/held")));
    stage.expect_count("requests_queued", 1);
    eventually(
        "each place is taken",
        || houses.each_ref().map(|house| house.living()),
        |living| *living == [PLACES; BACKENDS],
    );
    cue.give();
    holding.iter_mut().for_each(|client| client.response().expect(200, "held"));
    assert!(houses.iter().all(|house| house.most.load(SeqCst) == PLACES));
}
