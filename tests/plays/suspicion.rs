//! Plays of silent backends: they are found out long before their probes would tell, and those that
//! are merely slow are left alone.

use std::time::Duration;

use ringway::events::Event;

use crate::{
    backend::{Cue, Script, plays},
    client::Client,
    scripts::{answers, ok},
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_backend_that_freezes_is_probed_at_once_and_what_waits_is_rescued,
    a_slow_url_among_fast_ones_harms_nobody,
    a_pool_of_nothing_but_long_polls_harms_nobody,
    ; at a pace:
    without_probes_silence_counts_as_failures,
);

const PATIENT: &str = "timeouts = { response = \"60s\" }";
/// The first probes come at once, the next would come late.
const SELDOM: &str = "health = { interval = \"60s\", timeout = \"20s\" }";

/// Serves at once until it freezes; then neither requests nor probes.
fn freezes(freeze: &Cue) -> Script {
    let freeze = freeze.clone();
    plays(move |visit| {
        loop {
            visit.request()?;
            if freeze.given() {
                visit.wait_for(&Cue::default())?;
            }
            visit.send(ok("first"))?;
        }
    })
}

/// Asks so often, over this connection, that it is known what is usual, and that a busy machine
/// makes few of the answers late.
fn warm_up(client: &mut Client) {
    for _ in 0..400 {
        client.get("/");
        // Of the answers of one millisecond one is timed.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// New clients that ask, of which half are given to each of two backends.
fn ask_both(stage: &Stage, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..2 * count).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send("GET /on HTTP/1.1\r\nHost: play.test\r\n\r\n");
    }
    clients
}

fn suspected(stage: &Stage) -> Vec<String> {
    let cause = |event| match event {
        Event::BackendSuspected { cause, .. } => Some(cause.to_string()),
        _ => None,
    };
    stage.happened().into_iter().filter_map(cause).collect()
}

fn words(stage: &Stage) -> Vec<&'static str> {
    stage.happened().iter().map(Event::word).collect()
}

fn a_backend_that_freezes_is_probed_at_once_and_what_waits_is_rescued(driver: Driver) {
    let freeze = Cue::default();
    let setting = Stage::on(driver).backend(freezes(&freeze)).backend(answers("other"));
    let stage = setting.pool(PATIENT).pool(SELDOM).start();
    warm_up(&mut stage.connect());
    freeze.give();
    let mut clients = ask_both(&stage, 2);
    clients.iter_mut().for_each(|client| client.response().expect(200, "other"));
    assert_eq!(stage.count("backend_state{state=\"down\"}"), 1);
    let causes = suspected(&stage);
    assert!(matches!(&causes[..], [one] if one.starts_with("no answer for ")), "{causes:?}");
    let words = words(&stage);
    let place = |word| words.iter().position(|it| *it == word);
    assert!(place("backend_suspected") < place("backend_down"), "{words:?}");
}

fn without_probes_silence_counts_as_failures(driver: Driver, _slower: u32) {
    let freeze = Cue::default();
    let setting = Stage::on(driver).backend(freezes(&freeze)).backend(answers("other"));
    // One less than by default: each takes a span, which is long where the machine is slow.
    let two = "passive = { max-failures = 2 }";
    let stage = setting.pool(PATIENT).pool(two).start();
    warm_up(&mut stage.connect());
    freeze.give();
    let mut clients = ask_both(&stage, 3);
    clients.iter_mut().for_each(|client| client.response().expect(200, "other"));
    assert_eq!(stage.count("backend_ejections_total"), 1);
    assert_eq!(stage.count("retries_total{reason=\"backend_down\"}"), 3);
    assert_eq!(suspected(&stage).len(), 1);
}

/// Answers at once, but for one target that takes a second.
fn slow_in_part() -> Script {
    plays(|visit| {
        loop {
            let request = visit.request()?;
            if request.target() == "/slow" {
                visit.pause(Duration::from_secs(1))?;
            }
            visit.send(ok("done"))?;
        }
    })
}

fn a_slow_url_among_fast_ones_harms_nobody(driver: Driver) {
    for health in ["", SELDOM] {
        let setting = Stage::on(driver).backend(slow_in_part()).backend(slow_in_part());
        let stage = setting.pool(PATIENT).pool(health).start();
        warm_up(&mut stage.connect());
        // At both, and then nothing fast for more than a second.
        let mut clients: Vec<Client> = (0..2).map(|_| stage.connect()).collect();
        for client in &mut clients {
            client.send("GET /slow HTTP/1.1\r\nHost: play.test\r\n\r\n");
        }
        clients.iter_mut().for_each(|client| client.response().expect(200, "done"));
        let mut one = stage.connect();
        for _ in 0..2 {
            one.get("/slow").expect(200, "done");
        }
        assert_eq!(stage.count("backend_state{state=\"up\"}"), 2);
        assert_eq!(stage.count("backend_ejections_total") + stage.count("retries_total"), 0);
    }
}

fn a_pool_of_nothing_but_long_polls_harms_nobody(driver: Driver) {
    for health in ["", SELDOM] {
        let poll = || {
            plays(|visit| {
                loop {
                    let request = visit.request()?;
                    if request.target() != "/health" {
                        visit.pause(Duration::from_millis(400))?;
                    }
                    visit.send(ok("news"))?;
                }
            })
        };
        let stage = Stage::on(driver).backend(poll()).backend(poll());
        let stage = stage.pool(PATIENT).pool(health).start();
        let mut clients: Vec<Client> = (0..12).map(|_| stage.connect()).collect();
        for _ in 0..4 {
            for client in &mut clients {
                client.send("GET /poll HTTP/1.1\r\nHost: play.test\r\n\r\n");
            }
            clients.iter_mut().for_each(|client| client.response().expect(200, "news"));
        }
        // All but one leave.
        clients.truncate(1);
        for _ in 0..3 {
            clients[0].get("/poll").expect(200, "news");
        }
        assert_eq!(suspected(&stage), [""; 0]);
        assert_eq!(stage.count("backend_state{state=\"up\"}"), 2);
    }
}
