//! Plays of failure: a backend dies, hangs, lies or flaps and comes back; clients do not notice.
//!
//! A crowd of clients asks without pause while a play breaks one of three backends and repairs it.
//! No play knows how long detection takes: it waits, within bounds, until the proxy has noticed. A
//! backend that is late has failed, so all of them play at a pace that the machine keeps.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    client::{Client, get},
    mortal::{Mood, Mortal},
    pace::ms,
    stage::{Driver, Setting, Stage, eventually, settled},
};

on_both_drivers!(
    a_500_that_is_listed_ejects,
    passive_never_takes_the_last_usable_backend,
    an_ejected_backend_is_asked_where_nobody_else_is_left,
    ; at a pace:
    nobody_notices_a_kill,
    nobody_notices_a_pause,
    nobody_notices_a_closed_port,
    nobody_notices_a_backend_that_is_slow,
    nobody_notices_a_backend_that_ails,
    nobody_notices_a_backend_that_flaps,
    nobody_notices_a_rolling_restart,
    nobody_notices_a_kill_on_two_cores,
    a_500_passes_through_untouched_and_ejects_nobody,
    an_ejected_backend_returns_by_one_trial,
    probes_alone_take_a_backend_out_and_bring_it_back,
    a_breaker_opens_and_lets_exactly_its_probes_through,
    a_client_that_leaves_gives_its_trial_back,
);

/// The settings of the issue, five times as fast, or not so much.
fn watched(slower: u32) -> String {
    let [probe, interval, wait] = [80, 100, 200].map(|of| ms(Duration::from_millis(of) * slower));
    format!(
        "health = {{ interval = {interval}, timeout = {probe} }}\n\
         passive = {{ eject = {wait} }}\n\
         retry = {{ on = [\"connect-failure\", \"reset-before-response\", \"timeout\"] }}\n\
         timeouts = {{ response = {wait} }}\n"
    )
}

fn three() -> [Mortal; 3] {
    ["a", "b", "c"].map(Mortal::born)
}

fn before(driver: Driver, pool: &str, mortals: &[Mortal]) -> Setting {
    mortals
        .iter()
        .fold(Stage::on(driver).pool(pool), |setting, mortal| setting.written(mortal.written()))
}

/// Clients that ask without pause while `meanwhile` runs; fails unless each gets its 200 each time.
#[track_caller]
fn crowd_notices_nothing(stage: &Stage, meanwhile: impl FnOnce()) {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (over, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = stage.connect();
                while !over.load(Ordering::SeqCst) {
                    match client.send(get("/")).try_response() {
                        Ok(response) if response.status == 200 && !response.closes() => {}
                        other => {
                            failed.lock().unwrap().push(format!("{other:?}"));
                            client = stage.connect();
                        }
                    }
                    // A pace, so that four plays on two cores leave each other some time.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        meanwhile();
        drop(ends);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed, the first with {}", failed.len(), failed[0]);
}

/// Fails unless all of them are asked.
#[track_caller]
fn expect_all_asked(mortals: &[Mortal]) {
    for mortal in mortals {
        mortal.expect_more_requests(10);
    }
}

/// Fails unless the first gets no more requests, except single trials, while the others do.
#[track_caller]
fn expect_spared(mortals: &[Mortal]) {
    let asked = || {
        let before = mortals[0].requests();
        for other in &mortals[1..] {
            other.expect_more_requests(20);
        }
        mortals[0].requests() - before
    };
    eventually("the broken one is spared", asked, |asked| *asked <= 2);
}

/// Breaks the first of three under load, waits until it is avoided, repairs it and waits until it
/// serves again; no client may notice.
#[track_caller]
fn nobody_notices(setting: (Driver, u32), breaks: impl Fn(&mut Mortal), mends: fn(&mut Mortal)) {
    nobody_notices_on(1, setting, breaks, mends);
}

/// The same on so many cores.
#[track_caller]
fn nobody_notices_on(
    cores: u16,
    (driver, slower): (Driver, u32),
    breaks: impl Fn(&mut Mortal),
    mends: fn(&mut Mortal),
) {
    let mut mortals = three();
    let stage = before(driver, &watched(slower), &mortals).cores(cores).start();
    crowd_notices_nothing(&stage, || {
        expect_all_asked(&mortals);
        breaks(&mut mortals[0]);
        expect_spared(&mortals);
        mends(&mut mortals[0]);
        expect_all_asked(&mortals);
    });
}

fn nobody_notices_a_kill(driver: Driver, slower: u32) {
    nobody_notices((driver, slower), Mortal::is_killed, Mortal::open_port);
}

fn nobody_notices_a_kill_on_two_cores(driver: Driver, slower: u32) {
    nobody_notices_on(2, (driver, slower), Mortal::is_killed, Mortal::open_port);
}

fn nobody_notices_a_pause(driver: Driver, slower: u32) {
    let well: fn(&mut Mortal) = |mortal| mortal.becomes(Mood::Well);
    nobody_notices((driver, slower), |mortal| mortal.becomes(Mood::Silent), well);
}

fn nobody_notices_a_closed_port(driver: Driver, slower: u32) {
    nobody_notices((driver, slower), Mortal::close_port, Mortal::open_port);
}

fn nobody_notices_a_backend_that_is_slow(driver: Driver, slower: u32) {
    let slow = Mood::Slow(Duration::from_millis(500) * slower);
    nobody_notices(
        (driver, slower),
        |mortal| mortal.becomes(slow),
        |mortal| {
            mortal.becomes(Mood::Well);
        },
    );
}

fn nobody_notices_a_backend_that_ails(driver: Driver, slower: u32) {
    let mortals = three();
    let retry = watched(slower).replace("\"timeout\"", "\"timeout\", \"503\"");
    let stage = before(driver, &retry, &mortals).start();
    crowd_notices_nothing(&stage, || {
        expect_all_asked(&mortals);
        mortals[0].becomes(Mood::Ails(503));
        expect_spared(&mortals);
        mortals[0].becomes(Mood::Well);
        expect_all_asked(&mortals);
    });
}

fn nobody_notices_a_backend_that_flaps(driver: Driver, slower: u32) {
    let mut mortals = three();
    let stage = before(driver, &watched(slower), &mortals).start();
    crowd_notices_nothing(&stage, || {
        for _ in 0..5 {
            expect_all_asked(&mortals[1..]);
            mortals[0].is_killed();
            expect_all_asked(&mortals[1..]);
            mortals[0].open_port();
        }
        expect_all_asked(&mortals);
    });
}

fn nobody_notices_a_rolling_restart(driver: Driver, slower: u32) {
    let mut mortals = three();
    let stage = before(driver, &watched(slower), &mortals).start();
    crowd_notices_nothing(&stage, || {
        for index in 0..3 {
            expect_all_asked(&mortals);
            mortals[index].finishes();
            mortals[(index + 1) % 3].expect_more_requests(10);
            mortals[index].open_port();
        }
    });
}

fn a_500_passes_through_untouched_and_ejects_nobody(driver: Driver, slower: u32) {
    let mortals = three();
    mortals[0].becomes(Mood::Says(500));
    let stage = before(driver, &watched(slower), &mortals).start();
    let mut client = stage.connect();
    for _ in 0..60 {
        let response = client.get("/");
        let (status, name) = (response.status, response.text().to_owned());
        assert_eq!(status, if name == "a" { 500 } else { 200 }, "{response:#?}");
    }
    assert_eq!(mortals[0].requests(), 20, "nobody is ejected");
    assert_eq!(stage.count("retries_total"), 0);
}

fn a_500_that_is_listed_ejects(driver: Driver) {
    let mortals = three();
    mortals[0].becomes(Mood::Says(500));
    let pool = "passive = { max-failures = 3, statuses = [500], eject = \"60s\" }";
    let stage = before(driver, pool, &mortals).start();
    let mut client = stage.connect();
    let mut failed = 0;
    // The verdict comes from another thread: a few more requests may go there until then.
    eventually(
        "it is ejected",
        || {
            let statuses: Vec<u16> = (0..12).map(|_| client.get("/").status).collect();
            failed += statuses.iter().filter(|status| **status == 500).count();
            statuses
        },
        |statuses| statuses.iter().all(|status| *status == 200),
    );
    assert!(failed >= 3, "{failed} failures eject already");
    assert_eq!(mortals[0].requests(), failed);
    assert_eq!(stage.count("retries_total"), 0, "a 500 that ejects is still no reason to retry");
}

fn an_ejected_backend_returns_by_one_trial(driver: Driver, slower: u32) {
    let mortals = three();
    mortals[0].becomes(Mood::Says(503));
    let eject = ms(Duration::from_millis(300) * slower);
    let stage = before(driver, &format!("passive = {{ eject = {eject} }}"), &mortals).start();
    let mut client = stage.connect();
    eventually("it is ejected", || round_of(&mut client), |names| !names.contains('a'));
    mortals[0].becomes(Mood::Holds);
    crowd_notices_nothing(&stage, || {
        eventually("a trial is held", || mortals[0].under_way(), |count| *count >= 1);
        assert_eq!(settled(|| mortals[0].under_way()), 1, "one at a time");
        mortals[0].becomes(Mood::Well);
        expect_all_asked(&mortals);
    });
}

/// The backends that answer the next dozen of requests.
fn round_of(client: &mut Client) -> String {
    (0..12).map(|_| client.get("/").text().to_owned()).collect()
}

fn passive_never_takes_the_last_usable_backend(driver: Driver) {
    for count in 1..=3 {
        let mortals = three();
        let (some, pool) = (&mortals[..count], "passive = { max-ejected = 1.0, eject = \"60s\" }");
        for mortal in some {
            mortal.becomes(Mood::Ails(503));
        }
        let stage = before(driver, pool, some).start();
        let mut client = stage.connect();
        let who = || round_of(&mut client);
        let last = eventually("one is left", who, |names| names.matches(&names[..1]).count() == 12);
        assert!("abc".contains(&last[..1]), "a backend answers, not the proxy: {last}");
    }
}

fn an_ejected_backend_is_asked_where_nobody_else_is_left(driver: Driver) {
    let mut mortals = three();
    mortals[0].becomes(Mood::Says(503));
    let stage = before(driver, "passive = { eject = \"60s\" }", &mortals[..2]).start();
    let mut client = stage.connect();
    eventually("it is ejected", || round_of(&mut client), |names| !names.contains('a'));
    mortals[0].becomes(Mood::Well);
    mortals[1].is_killed();
    crowd_notices_nothing(&stage, || {
        let mut client = stage.connect();
        eventually(
            "it is well",
            || round_of(&mut client),
            |names| !names.contains(|name| name != 'a'),
        );
    });
}

fn probes_alone_take_a_backend_out_and_bring_it_back(driver: Driver, slower: u32) {
    let mortals = three();
    let interval = ms(Duration::from_millis(100) * slower);
    let pool = format!("health = {{ interval = {interval} }}\npassive = {{ max-failures = 0 }}");
    let stage = before(driver, &pool, &mortals).start();
    let mut client = stage.connect();
    // Its requests succeed: only its health page says that it is not well.
    let probed = |client: &mut Client, wanted: bool| {
        eventually("in or out", || round_of(client), |names| names.contains('a') == wanted);
    };
    probed(&mut client, true);
    mortals[0].becomes(Mood::Ails(503));
    probed(&mut client, false);
    let probes = mortals[0].probes();
    mortals[0].becomes(Mood::Well);
    probed(&mut client, true);
    assert!(mortals[0].probes() >= probes + 2, "two good probes bring it back");
}

/// A breaker that opens soon, before a pool whose first backend answers 500.
fn breaker(slower: u32) -> String {
    let open = ms(Duration::from_millis(300) * slower);
    format!(
        "passive = {{ max-failures = 0, statuses = [500] }}\n\
         breaker = {{ min-requests = 4, open = {open}, probes = 2, successes = 2 }}\n"
    )
}

/// Opens the breaker of the first of three, and then has it hold every request.
fn opened(driver: Driver, slower: u32, mortals: &[Mortal]) -> Stage {
    mortals[0].becomes(Mood::Says(500));
    let stage = before(driver, &breaker(slower), mortals).start();
    let mut client = stage.connect();
    eventually("it is open", || round_of(&mut client), |names| !names.contains('a'));
    mortals[0].becomes(Mood::Holds);
    drop(client);
    stage
}

fn a_breaker_opens_and_lets_exactly_its_probes_through(driver: Driver, slower: u32) {
    let mortals = three();
    let stage = opened(driver, slower, &mortals);
    crowd_notices_nothing(&stage, || {
        eventually("two trials are held", || mortals[0].under_way(), |count| *count >= 2);
        assert_eq!(settled(|| mortals[0].under_way()), 2, "two at a time");
        expect_all_asked(&mortals[1..]);
        mortals[0].becomes(Mood::Well);
        expect_all_asked(&mortals);
    });
}

fn a_client_that_leaves_gives_its_trial_back(driver: Driver, slower: u32) {
    let mortals = three();
    let stage = opened(driver, slower, &mortals);
    let mut clients = Vec::new();
    let ask = || {
        let mut client = stage.connect();
        client.send(get("/"));
        clients.push(client);
        mortals[0].under_way()
    };
    eventually("two trials are held", ask, |count| *count == 2);
    clients.into_iter().for_each(Client::reset);
    stage.expect_count("requests_in_flight", 0);
    let trials = mortals[0].requests() + 2;
    crowd_notices_nothing(&stage, || {
        eventually("two more", || mortals[0].requests(), |requests| *requests >= trials);
        assert_eq!(settled(|| mortals[0].under_way()), 4, "they decided nothing: again two");
        mortals[0].becomes(Mood::Well);
        expect_all_asked(&mortals);
    });
}
