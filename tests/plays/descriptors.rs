//! Plays of descriptors: unused connections to backends make room for new requests.

use std::{net::TcpStream, thread};

use crate::{
    backend::{Backend, Cue, Script, plays},
    client::{Client, get},
    scripts::{answers, answers_on, ok},
    stage::{Driver, Stage, eventually, settled},
    told::Process,
};

on_both_drivers!(
    idle_connections_are_bounded_by_what_a_core_may_have,
    who_comes_goes_before_what_is_idle,
    a_new_connection_to_a_backend_goes_before_what_is_idle,
);

const IDLE: &str = "backend_connections{state=\"idle\"}";
const EVICTED: &str = "backend_connections_closed_total{reason=\"evicted\"}";

/// This many clients ask at once, so this many connections are idle afterwards.
const IDLE_COUNT: usize = 60;

/// Holds its first requests until all have come, so that each has a connection of its own.
fn holds_until_all_ask(all_ask: &Cue) -> Script {
    let cue = all_ask.clone();
    plays(move |visit| {
        loop {
            visit.request()?;
            visit.wait_for(&cue)?;
            visit.send(ok("well"))?;
        }
    })
}

/// Makes this many connections to a backend idle.
fn make_idle(address: std::net::SocketAddr, path: &str, backend: &Backend, all_ask: &Cue) {
    let mut clients: Vec<_> = (0..IDLE_COUNT).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| _ = client.send(get(path)));
    eventually("all ask", || backend.requests().len(), |count| *count == IDLE_COUNT);
    all_ask.give();
    clients.iter_mut().for_each(|client| client.response().expect(200, "well"));
}

fn idle_connections_are_bounded_by_what_a_core_may_have(driver: Driver) {
    let cues = [Cue::default(), Cue::default(), Cue::default()];
    let backends: Vec<Backend> =
        cues.iter().map(|cue| Backend::open(answers_on(cue, "well"))).collect();
    let section = |number: usize| {
        let address = backends[number].address();
        format!(
            "[pool.p{number}]\nbackends = [\"{address}\"]\n\
             [[route]]\nname = \"r{number}\"\npath = \"/{number}\"\npool = \"p{number}\""
        )
    };
    let stage = (0..backends.len())
        .fold(Stage::on(driver).backend(answers("none")), |stage, number| {
            stage.sections(&section(number))
        })
        .limits("connections = 20")
        .start();
    let mut clients: Vec<_> = (0..16).map(|_| stage.connect()).collect();
    for (number, cue) in cues.iter().enumerate() {
        clients.iter_mut().for_each(|client| _ = client.send(get(&format!("/{number}"))));
        let asked = || backends[number].requests().len();
        eventually("all ask", asked, |count| *count == clients.len());
        cue.give();
        clients.iter_mut().for_each(|client| client.response().expect(200, "well"));
    }
    // Of 40 sockets the clients have 16.
    stage.expect_count(IDLE, 24);
    stage.expect_count(EVICTED, 24);
    // The youngest are kept.
    let open: Vec<_> = backends.iter().map(Backend::open_visits).collect();
    assert_eq!(settled(|| backends[2].open_visits()), 16, "{open:?}");
    clients.iter_mut().for_each(|client| client.get("/2").expect(200, "well"));
    drop(clients);
    assert_eq!(stage.count("connections_rejected_total{reason=\"descriptors\"}"), 0);
}

/// Two backends, one of which keeps idle connections for all the descriptors there are.
fn full_of_idle(driver: Driver) -> (Process, [Backend; 2]) {
    let all_ask = Cue::default();
    let backends = [Backend::open(holds_until_all_ask(&all_ask)), Backend::open(answers("other"))];
    let pool = format!(
        "backends = [\"{}\"]\nconnections = {{ max-idle = 1000 }}\n\
         [pool.other]\nbackends = [\"{}\"]\n\
         [[route]]\nname = \"other\"\npath = \"/other\"\npool = \"other\"",
        backends[0].address(),
        backends[1].address(),
    );
    let process = Process::with_pool(driver, "", &pool, "text");
    make_idle(process.address, "/", &backends[0], &all_ask);
    let open = settled(|| process.open());
    process.may_open(open.iter().max().unwrap() + 1);
    (process, backends)
}

/// Connects until no descriptor is left, without sending anything.
fn fill(process: &Process) -> Vec<TcpStream> {
    let connect = || TcpStream::connect(process.address).unwrap();
    let most = *process.open().iter().max().unwrap();
    let holes = most + 1 - process.open().len() as u64;
    (0..holes).map(|_| connect()).collect()
}

#[track_caller]
fn expect_nobody_was_refused(process: Process) {
    let told = process.end();
    // A port may have such digits.
    let is_refusal =
        |line: &String| line.contains("no descriptor is left") || line.contains(" 503");
    assert!(!told.iter().any(is_refusal), "{told:#?}");
}

fn who_comes_goes_before_what_is_idle(driver: Driver) {
    let (process, backends) = full_of_idle(driver);
    let filling = fill(&process);
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| Client::connect(process.address).get("/").expect(200, "well"));
        }
    });
    let mut clients: Vec<_> = (0..30).map(|_| Client::connect(process.address)).collect();
    clients.iter_mut().for_each(|client| client.get("/").expect(200, "well"));
    assert!(backends[0].open_visits() < IDLE_COUNT);
    drop((clients, filling));
    expect_nobody_was_refused(process);
}

fn a_new_connection_to_a_backend_goes_before_what_is_idle(driver: Driver) {
    let (process, backends) = full_of_idle(driver);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(process.address)).collect();
    let filling = fill(&process);
    for client in &mut clients {
        client.send(get("/other"));
    }
    clients.iter_mut().for_each(|client| client.response().expect(200, "other"));
    assert!(backends[0].open_visits() < IDLE_COUNT);
    drop((clients, filling));
    expect_nobody_was_refused(process);
}
