//! Plays of backends that are configured by name: each address of a name is a backend.
//!
//! A name server of the play says what a name has at the moment, as that of a container platform
//! does when a service is scaled. Clients send requests without a pause meanwhile, and none of them
//! may see that anything changes. Servers of one name have one port, each on a host of its own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ringway::{Stop, events::Event};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    name_server::{NameServer, Record},
    pace::Watch,
    scripts::answers,
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    localhost_is_ipv4_and_ipv6_and_one_backend,
    a_name_that_does_not_resolve_is_passed_over,
    a_pool_of_names_that_do_not_resolve_says_so,
    a_stop_does_not_wait_for_names,
    each_address_of_a_name_has_its_share_and_its_counts,
    an_address_that_is_dead_is_left_out_and_the_others_are_asked,
    a_service_is_scaled_from_two_to_five_and_back_without_a_failure,
    in_a_probed_pool_a_new_address_has_its_share_as_soon,
    a_server_moves_to_another_address_without_a_failure,
    a_name_vanishes_for_a_minute_without_a_failure,
    a_name_that_is_unknown_at_the_start_serves_once_it_has_an_address,
    records_of_a_service_bring_ports_weights_and_backups,
    more_addresses_than_a_pool_has_backends_are_told_of_and_not_used,
    a_key_goes_to_the_same_server_by_its_name_and_by_its_address,
    a_configuration_that_brings_names_fails_no_request,
    one_address_of_a_name_is_taken_out_by_an_order,
    a_name_that_has_only_what_was_removed_serves_again_when_it_has_more,
    a_new_address_is_asked_by_every_core_within_100_ms_of_the_answer,
);

/// How often names are looked up here; by default it is twenty times as long.
const RESOLVE: Duration = Duration::from_millis(500);

/// Servers with one port, the first of them `a`, each on a host of its own.
struct Servers(Vec<Backend>);

impl Servers {
    /// So many, on hosts that nothing else uses.
    fn open(count: usize) -> Servers {
        let mut servers: Vec<Backend> = Vec::new();
        for text in ["a", "b", "c", "d", "e"].into_iter().take(count) {
            let port = servers.first().map_or(0, |first| first.address().port());
            let at = SocketAddr::new(addresses::host().into(), port);
            servers.push(Backend::open_at(at, answers(text)));
        }
        Servers(servers)
    }

    fn port(&self) -> u16 {
        self.0[0].address().port()
    }

    fn ip(&self, place: usize) -> IpAddr {
        self.0[place].address().ip()
    }

    /// The records of these.
    fn records(&self, places: impl IntoIterator<Item = usize>) -> Vec<Record> {
        places.into_iter().map(|place| Record::Host(self.ip(place))).collect()
    }

    /// A stage whose pool is the name `app.test`, of which these are the first addresses.
    fn stage(&self, driver: Driver, server: &NameServer, first: usize) -> Setting {
        server.says("app.test", 600, self.records(0..first));
        Stage::on(driver)
            .named_by(server)
            .written(format!("app.test:{}", self.port()))
            .pool("resolve = \"500ms\"\nretry = { attempts = 3 }")
    }
}

/// Sends requests without a pause while `change` changes names; each is answered with 200. The play
/// waits for what it has changed with the count of answers at hand.
fn under_load(stage: &Stage, change: impl FnOnce(&AtomicU64)) {
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let asks = || {
            let mut client = stage.connect();
            while !over.load(SeqCst) {
                let response = client.send(get("/")).response();
                let refused = || {
                    ["tries_used", "none_left", "budget_spent"].map(|why| {
                        stage.count(&format!("retries_refused_total{{reason=\"{why}\"}}"))
                    })
                };
                assert_eq!(response.status, 200, "refused {:?}: {response:?}", refused());
                answered.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(2));
            }
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(asks)).collect();
        let _ends = Ends(&over);
        change(&answered);
        over.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// How many of so many answers are from each server, in the order of the alphabet.
fn shares(stage: &Stage, count: usize) -> Vec<(String, usize)> {
    let mut client = stage.connect();
    let mut all: Vec<String> = (0..count).map(|_| client.get("/").text().to_owned()).collect();
    all.sort();
    let runs = all.chunk_by(|one, other| one == other);
    runs.map(|run| (run[0].clone(), run.len())).collect()
}

/// Waits until exactly these servers answer.
#[track_caller]
fn expect_servers(stage: &Stage, expected: &str) {
    let all = || shares(stage, 40).into_iter().map(|(text, _)| text).collect::<String>();
    eventually(&format!("{expected} answer"), all, |all| all == expected);
}

/// The words of the events about names, in order.
fn words(stage: &Stage) -> Vec<&'static str> {
    let happened = stage.happened();
    happened.iter().map(Event::word).filter(|word| word.starts_with("name")).collect()
}

fn named(setting: Setting, host: &str, backend: &Backend) -> Setting {
    setting.written(format!("{host}:{}", backend.address().port()))
}

/// Names that were not resolved when the proxy started, and why.
fn unknown(stage: &Stage) -> Vec<(String, String)> {
    let unknown = |event| match event {
        Event::NameUnknown { name, cause, .. } => {
            Some((name.address.to_string(), cause.to_string()))
        }
        _ => None,
    };
    stage.happened().into_iter().filter_map(unknown).collect()
}

fn localhost_is_ipv4_and_ipv6_and_one_backend(driver: Driver) {
    let four = Backend::open_on(Ipv4Addr::LOCALHOST.into(), answers("four"));
    let six = Backend::open_on(Ipv6Addr::LOCALHOST.into(), answers("six"));
    for (backend, expected) in [(&four, "four"), (&six, "six")] {
        for host in ["localhost", "LOCALHOST", "app.localhost"] {
            let stage = named(Stage::on(driver), host, backend).start();
            assert_eq!(unknown(&stage), []);
            let mut client = stage.connect();
            for _ in 0..5 {
                client.get("/").expect(200, expected);
            }
            assert_eq!(stage.count("retries_total"), 0);
            assert_eq!(stage.count("backend_connections_opened_total"), 1);
        }
        assert_eq!(backend.complaints(), [""; 0]);
    }
}

fn a_name_that_does_not_resolve_is_passed_over(driver: Driver) {
    let server = NameServer::open();
    let stage = Stage::on(driver).named_by(&server);
    let stage = stage.written("nowhere.test:80").backend(answers("here")).start();
    let [(name, cause)] = &unknown(&stage)[..] else { panic!("{:?}", stage.happened()) };
    assert_eq!((&**name, &**cause), ("nowhere.test:80", "there is no such name"));
    let mut client = stage.connect();
    for _ in 0..10 {
        client.get("/").expect(200, "here");
    }
    assert_eq!(stage.count("retries_total"), 0, "nobody tried the one without an address");
}

fn a_pool_of_names_that_do_not_resolve_says_so(driver: Driver) {
    let server = NameServer::open();
    server.fails("never.test");
    let stage = Stage::on(driver).named_by(&server);
    let stage = stage.written("nowhere.test:80").written("never.test:80").start();
    assert_eq!(unknown(&stage).len(), 2);
    let response = stage.get("/");
    response.expect_fault(503, "no_backend");
    assert!(response.text().contains("No healthy backends available"));
}

fn a_stop_does_not_wait_for_names(driver: Driver) {
    let server = NameServer::open();
    let servers = Servers::open(1);
    let mut stage = servers.stage(driver, &server, 1).start();
    server.is_silent_about("app.test");
    let before = server.asked().len();
    eventually("it is asked again", || server.asked().len(), |asked| *asked > before);
    let (took, _) = stage.stop_beside(Stop::Graceful).join().unwrap();
    took.expect_at_most(Duration::from_secs(2));
}

fn each_address_of_a_name_has_its_share_and_its_counts(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(3));
    let stage = servers.stage(driver, &server, 3).pool("host = \"backend\"").cores(1).start();
    let expected = ["a", "b", "c"].map(|text| (text.to_owned(), 20));
    assert_eq!(shares(&stage, 60), expected);
    for place in 0..3 {
        let name = format!("app.test:{}#{}", servers.port(), servers.ip(place));
        assert_eq!(stage.count(&format!("backend_requests_total{{backend=\"{name}\"}}")), 20);
        let host = servers.0[place].requests()[0].field("host").unwrap().to_owned();
        assert_eq!(host, format!("app.test:{}", servers.port()), "as it is written");
    }
    assert_eq!(words(&stage), [""; 0], "that a name resolves is no news");
}

fn an_address_that_is_dead_is_left_out_and_the_others_are_asked(driver: Driver) {
    let (server, mut servers) = (NameServer::open(), Servers::open(3));
    let stage = servers.stage(driver, &server, 3).start();
    expect_servers(&stage, "abc");
    let dead = format!("app.test:{}#{}", servers.port(), servers.ip(1));
    servers.0.remove(1);
    under_load(&stage, |answered| {
        let count = || answered.load(SeqCst);
        eventually("more answers", count, |count| *count > 200);
        let ejected = || {
            let is_it = |event: &Event| match event {
                Event::BackendEjected(it) => {
                    assert_eq!(*it.backend, *dead);
                    true
                }
                _ => false,
            };
            stage.happened().iter().any(is_it)
        };
        eventually("it is ejected, and it alone", ejected, |ejected| *ejected);
    });
    let all: String = shares(&stage, 40).into_iter().map(|(text, _)| text).collect();
    assert_eq!(all, "ac");
}

/// The best of three: on a crowded machine the clients themselves take their time.
fn a_new_address_is_asked_by_every_core_within_100_ms_of_the_answer(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(2));
    let stage = servers.stage(driver, &server, 1).cores(2).start();
    // Of these each core has some.
    let mut clients: Vec<Client> = (0..16).map(|_| stage.connect()).collect();
    let takes = || {
        clients.iter_mut().for_each(|client| client.get("/").expect(200, "a"));
        server.says("app.test", 600, servers.records(0..2));
        let before = server.asked().len();
        // A question for each family.
        eventually("the answer", || server.asked().len(), |asked| *asked >= before + 2);
        let since = Instant::now();
        for client in &mut clients {
            while client.get("/").text() != "b" {}
        }
        let took = since.elapsed();
        server.says("app.test", 600, servers.records(0..1));
        expect_servers(&stage, "a");
        took
    };
    let all: Vec<Duration> = std::iter::repeat_with(takes).take(3).collect();
    assert!(all.iter().any(|took| *took <= Duration::from_millis(100)), "{all:?}");
}

fn a_service_is_scaled_from_two_to_five_and_back_without_a_failure(driver: Driver) {
    let (server, mut servers) = (NameServer::open(), Servers::open(5));
    let stage = servers.stage(driver, &server, 2).cores(2).start();
    expect_servers(&stage, "ab");
    under_load(&stage, |_| {
        let watch = Watch::start();
        server.says("app.test", 600, servers.records(0..5));
        expect_servers(&stage, "abcde");
        watch.took().expect_at_most(RESOLVE + Duration::from_secs(1));
        let all = shares(&stage, 100);
        // Four other clients are in the round.
        assert!(all.iter().all(|(_, count)| *count >= 5), "{all:?}");
        // Three of five at once are not believed at once: the containers are gone all the same.
        server.says("app.test", 600, servers.records(0..2));
        servers.0.truncate(2);
        expect_servers(&stage, "ab");
        let held = || words(&stage);
        eventually("it is taken", held, |words| {
            words[..] == ["name_moved", "name_held", "name_moved"]
        });
        // What comes and goes again takes its place.
        server.says("app.test", 0, servers.records(0..1));
        expect_servers(&stage, "a");
    });
}

fn in_a_probed_pool_a_new_address_has_its_share_as_soon(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(4));
    // Its second probe comes too late to matter.
    let stage =
        servers.stage(driver, &server, 2).pool("health = { path = \"/\", interval = \"1m\" }");
    let stage = stage.start();
    expect_servers(&stage, "ab");
    under_load(&stage, |_| {
        let watch = Watch::start();
        server.says("app.test", 600, servers.records(0..4));
        expect_servers(&stage, "abcd");
        watch.took().expect_at_most(RESOLVE + Duration::from_secs(1));
    });
    // The first that it hears is its probe, by the name as written.
    let host = format!("app.test:{}", servers.port());
    for place in 2..4 {
        assert_eq!(servers.0[place].heads()[0].field("host").unwrap(), host, "{place}");
    }
}

fn a_server_moves_to_another_address_without_a_failure(driver: Driver) {
    let (server, mut servers) = (NameServer::open(), Servers::open(2));
    let stage = servers.stage(driver, &server, 1).start();
    under_load(&stage, |_| {
        expect_servers(&stage, "a");
        server.says("app.test", 600, servers.records(1..2));
        eventually("the new one is asked", || shares(&stage, 20).len(), |count| *count == 2);
        servers.0.remove(0);
        expect_servers(&stage, "b");
        let moved = || words(&stage);
        eventually("the old one is gone", moved, |words| {
            words[..] == ["name_moved", "name_held", "name_moved"]
        });
    });
}

/// Six times as long as names are looked up again, as a minute is six times ten seconds.
fn a_name_vanishes_for_a_minute_without_a_failure(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(2));
    let stage = servers.stage(driver, &server, 2).start();
    under_load(&stage, |_| {
        let asked = || server.asked().iter().filter(|name| *name == "app.test").count();
        // Two questions for each lookup, one for each family.
        let lookups = |count: usize| {
            let before = asked();
            eventually("lookups", asked, |asked| *asked >= before + 2 * count);
        };
        server.forgets("app.test");
        lookups(6);
        server.says("app.test", 600, Vec::new());
        lookups(2);
        server.fails("app.test");
        lookups(2);
        assert_eq!(shares(&stage, 40).len(), 2);
        server.says("app.test", 600, servers.records([1, 0]));
        eventually(
            "it is back",
            || words(&stage),
            |words| words[..] == ["name_stale", "name_resolved"],
        );
    });
}

fn a_name_that_is_unknown_at_the_start_serves_once_it_has_an_address(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(2));
    let stage = servers.stage(driver, &server, 2);
    server.forgets("app.test");
    let stage = stage.start();
    stage.get("/").expect_fault(503, "no_backend");
    server.says("app.test", 600, servers.records(0..2));
    eventually("it serves", || stage.get("/").status, |status| *status == 200);
    expect_servers(&stage, "ab");
    assert_eq!(words(&stage), ["name_unknown", "name_moved"]);
}

fn records_of_a_service_bring_ports_weights_and_backups(driver: Driver) {
    let server = NameServer::open();
    let mut backends: Vec<Backend> =
        ["a", "b", "c"].into_iter().map(|text| Backend::open(answers(text))).collect();
    let record = |place: usize, priority, weight| {
        Record::Service(priority, weight, backends[place].address().port(), "one.test")
    };
    let records = vec![record(0, 10, 20), record(1, 10, 10), record(2, 20, 10)];
    server.says("_http._tcp.app.test", 600, records);
    server.says("one.test", 600, vec![Record::Host(Ipv4Addr::LOCALHOST.into())]);
    let stage = Stage::on(driver).named_by(&server).written("srv:_http._tcp.app.test").cores(1);
    let stage = stage.pool("host = \"backend\"\nretry = { attempts = 3 }").start();
    let all = shares(&stage, 30);
    // The first turn begins anywhere.
    assert!(all.len() == 2 && all[0].1.abs_diff(20) <= 1, "{all:?}");
    let port = backends[0].address().port();
    let name = format!("srv:_http._tcp.app.test#127.0.0.1:{port}");
    let count = stage.count(&format!("backend_requests_total{{backend=\"{name}\"}}"));
    assert_eq!(count, all[0].1 as u64);
    let host = backends[0].requests()[0].field("host").unwrap().to_owned();
    assert_eq!(host, format!("one.test:{port}"));
    backends.drain(..2);
    under_load(&stage, |_| expect_servers(&stage, "c"));
}

fn more_addresses_than_a_pool_has_backends_are_told_of_and_not_used(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(2));
    // Behind those of the servers, which are on loopback; nobody is there.
    let many = |count: u32| {
        let of = |number: u32| {
            Record::Host(Ipv4Addr::from(u32::from(Ipv4Addr::new(224, 0, 0, 1)) + number).into())
        };
        let mut records = servers.records(0..2);
        records.extend((0..count).map(of));
        records
    };
    server.says("app.test", 600, many(1_030));
    let stage = Stage::on(driver)
        .named_by(&server)
        .written(format!("app.test:{}", servers.port()))
        .pool("resolve = \"500ms\"")
        .start();
    let told = || {
        let unused = |event: &Event| match event {
            Event::NamesSurplus { unused, .. } => Some(*unused),
            _ => None,
        };
        stage.happened().iter().filter_map(unused).collect::<Vec<_>>()
    };
    eventually("it is told", told, |told| told[..] == [8]);
    let statistics = stage.handle().statistics().unwrap();
    assert_eq!(statistics.pools[0].backends.len(), 1_024);
    // Half of them may go at once.
    server.says("app.test", 600, many(600));
    let count = || stage.handle().statistics().unwrap().pools[0].backends.len();
    eventually("they are gone", count, |count| *count == 602);
    assert_eq!(told(), [8]);
}

fn a_key_goes_to_the_same_server_by_its_name_and_by_its_address(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(4));
    let balance = "balance = { hash = \"uri\" }";
    let by_name = servers.stage(driver, &server, 4).pool(balance).start();
    let by_address = servers.0.iter().fold(Stage::on(driver).pool(balance), |stage, backend| {
        stage.written(backend.address().to_string())
    });
    let by_address = by_address.start();
    let mut clients = [by_name.connect(), by_address.connect()];
    let mut seen = [0; 4];
    for number in 0..100 {
        let ask = |client: &mut Client| client.get(&format!("/{number}")).text().to_owned();
        let [one, other] = clients.each_mut().map(ask);
        assert_eq!(one, other, "/{number}");
        seen[usize::from(one.as_bytes()[0] - b'a')] += 1;
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

fn a_configuration_that_brings_names_fails_no_request(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(2));
    server.says("app.test", 600, servers.records(0..2));
    let before = Backend::open(answers("before"));
    let setting = Stage::on(driver).named_by(&server);
    let stage = setting.written(before.address().to_string()).start();
    under_load(&stage, |answered| {
        for _ in 0..4 {
            stage.reload_with(format!("app.test:{}", servers.port()));
            expect_servers(&stage, "ab");
            stage.reload_with(before.address().to_string());
            expect_servers(&stage, "before");
        }
        assert!(answered.load(SeqCst) > 50);
    });
}

fn one_address_of_a_name_is_taken_out_by_an_order(driver: Driver) {
    let (server, servers) = (NameServer::open(), Servers::open(3));
    let stage = servers.stage(driver, &server, 3).start();
    under_load(&stage, |_| {
        let entry = format!("app.test:{}", servers.port());
        let one = format!("{entry}#{}", servers.ip(1));
        let handle = stage.handle();
        handle.drain_backend("app", &one).unwrap();
        expect_servers(&stage, "ac");
        // It is drained when it is back, too.
        server.says("app.test", 600, servers.records([0, 2]));
        eventually("it is gone", || words(&stage).len(), |count| *count == 1);
        server.says("app.test", 600, servers.records(0..3));
        eventually("it is back", || words(&stage).len(), |count| *count == 2);
        assert_eq!(shares(&stage, 40).len(), 2);
        handle.set_duty("app", &one, ringway::plan::Duty::Up).unwrap();
        expect_servers(&stage, "abc");
    });
    // Or all of them, and then one again.
    let handle = stage.handle();
    let entry = format!("app.test:{}", servers.port());
    handle.set_duty("app", &entry, ringway::plan::Duty::Draining).unwrap();
    stage.get("/").expect_fault(503, "no_backend");
    let one = format!("{entry}#{}", servers.ip(1));
    handle.set_duty("app", &one, ringway::plan::Duty::Up).unwrap();
    expect_servers(&stage, "b");
}

fn a_name_that_has_only_what_was_removed_serves_again_when_it_has_more(driver: Driver) {
    for balance in [
        "\"round-robin\"",
        "\"random\"",
        "\"least-connections\"",
        "\"ip-hash\"",
        "\"least-response-time\"",
        "{ hash = \"uri\", bound = 1.25 }",
    ] {
        let (server, servers) = (NameServer::open(), Servers::open(2));
        let health = "health = { path = \"/\", interval = \"1m\" }";
        let stage = servers.stage(driver, &server, 2);
        let stage = stage.pool(&format!("balance = {balance}\n{health}")).start();
        let one = format!("app.test:{}#{}", servers.port(), servers.ip(0));
        stage.handle().remove_backend("app", &one, None).unwrap();
        stage.get("/").expect(200, "b");
        server.says("app.test", 600, servers.records(0..1));
        let status = || stage.get("/").status;
        eventually("nobody is left", status, |status| *status == 503);
        server.says("app.test", 600, servers.records(0..2));
        eventually("it is back", status, |status| *status == 200);
        stage.get("/").expect(200, "b");
    }
}
