//! Plays of plan changes.
//!
//! Requests in flight end under the plan that they began under, what stays continues, and a refusal
//! changes nothing. `tests/plans.rs` does it under load, a thousand times.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use ringway::{
    ChangeError, Handle, Options, StartError, Stop,
    plan::{Address, Duty},
};

use crate::{
    addresses,
    backend::{Backend, Cue},
    client::{Client, get},
    scripts::{answers, answers_on, upgrades_and_echoes},
    stage::{self, Driver, eventually, expect_closed},
};

on_both_drivers!(
    what_is_under_way_is_answered_though_its_pool_is_gone,
    a_tunnel_outlives_its_plan_and_does_not_hold_it,
    those_who_wait_are_answered_and_use_the_room_that_the_next_plan_makes,
    a_listener_that_goes_closes_what_rests_and_ends_what_is_under_way,
    a_listener_that_comes_is_served_at_all_its_addresses,
    an_address_goes_from_one_listener_to_another,
    a_log_is_written_to_where_the_plan_says_now,
    cookies_are_good_under_the_next_plan,
    what_is_refused_changes_nothing,
    a_backend_that_comes_is_asked_when_its_first_probe_has_succeeded,
    a_program_that_embeds_it_changes_its_backends_by_the_handle,
);

/// A proxy whose plan changes.
struct Changing {
    handle: Handle,
    driver: Driver,
    web: SocketAddr,
}

/// The configuration of these sections, on this driver.
fn plan(driver: Driver, cores: u8, web: SocketAddr, sections: &str) -> ringway::plan::Checked {
    let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
    let text = format!(
        "[global]\ncores = {cores}\npin = false\ndriver = \"{driver}\"\n\
         [listener.web]\nbind = \"{web}\"\n{sections}\n"
    );
    let loaded = ringway::config::parse("changes.toml", &text);
    loaded.unwrap_or_else(|wrong| panic!("{wrong} in\n{text}")).plan
}

impl Changing {
    fn start(driver: Driver, sections: &str) -> Changing {
        let web = free();
        let mut options = Options::default();
        options.raise_descriptor_limit = true;
        let handle = ringway::start_with(plan(driver, 2, web, sections), options).unwrap();
        Changing { handle, driver, web }
    }

    #[track_caller]
    fn change(&self, sections: &str) -> String {
        self.try_change(sections).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_change(&self, sections: &str) -> Result<String, StartError> {
        self.handle.change(plan(self.driver, 2, self.web, sections)).map(|(changes, _)| changes)
    }

    fn connect(&self) -> Client {
        Client::connect(self.web)
    }

    #[track_caller]
    fn expect_held(&self, count: usize) {
        eventually("plans are held", || self.handle.plans_held(), |held| *held == count);
    }

    #[track_caller]
    fn expect_count(&self, name: &str, count: u64) {
        eventually(name, || stage::count(&self.handle, name), |seen| *seen == count);
    }

    #[track_caller]
    fn end(self) {
        self.expect_count("backend_in_flight", 0);
        self.expect_count("panics_total", 0);
        self.expect_held(1);
        self.handle.stop(Stop::Now);
    }
}

/// A free address.
fn free() -> SocketAddr {
    TcpListener::bind((addresses::host(), 0)).unwrap().local_addr().unwrap()
}

fn pool(name: &str, backends: &[&Backend], keys: &str) -> String {
    let list: Vec<String> =
        backends.iter().map(|backend| format!("\"{}\"", backend.address())).collect();
    format!("[pool.{name}]\nbackends = [{}]\n{keys}\n", list.join(", "))
}

fn what_is_under_way_is_answered_though_its_pool_is_gone(driver: Driver) {
    let (cue, other) = (Cue::default(), Backend::open(answers("other")));
    let slow = Backend::open(answers_on(&cue, "slow"));
    let first = format!("pool = \"slow\"\n{}", pool("slow", &[&slow], ""));
    let second = format!("pool = \"other\"\n{}", pool("other", &[&other], ""));
    let stage = Changing::start(driver, &first);
    let mut client = stage.connect();
    client.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    let changes = stage.change(&second);
    assert_eq!(changes, "~ listener \"web\": pool\n+ pool \"other\"\n- pool \"slow\"\n");
    stage.connect().get("/").expect(200, "other");
    stage.expect_held(2);
    cue.give();
    client.response().expect(200, "slow");
    stage.expect_held(1);
    client.get("/").expect(200, "other");
    eventually("nothing is kept to it", || slow.open_visits(), |open| *open == 0);
    stage.end();
}

fn a_tunnel_outlives_its_plan_and_does_not_hold_it(driver: Driver) {
    let (far, other) = (Backend::open(upgrades_and_echoes()), Backend::open(answers("other")));
    let first = format!("pool = \"far\"\n{}", pool("far", &[&far], ""));
    let stage = Changing::start(driver, &first);
    let mut tunnel = stage.connect();
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(tunnel.response().status, 101);
    for name in ["one", "two", "three"] {
        stage.change(&format!("pool = \"{name}\"\n{}", pool(name, &[&other], "")));
        stage.expect_held(1);
        stage.connect().get("/").expect(200, "other");
        tunnel.send("x");
        assert_eq!(tunnel.wire().bytes(1).unwrap(), b"x");
    }
    stage.expect_count("tunnels", 1);
    tunnel.half_close().expect_end();
    stage.end();
}

fn those_who_wait_are_answered_and_use_the_room_that_the_next_plan_makes(driver: Driver) {
    let cue = Cue::default();
    let [slow, fast] = [Backend::open(answers_on(&cue, "slow")), Backend::open(answers("fast"))];
    let each = |backends: &[(&Backend, u32)]| {
        let one = |(backend, max): &(&Backend, u32)| {
            format!("{{ address = \"{}\", max-in-flight = {max} }}", backend.address())
        };
        let list: Vec<String> = backends.iter().map(one).collect();
        let list = list.join(", ");
        let queue = "queue = { size = 9, timeout = \"20s\" }";
        format!("pool = \"app\"\n[pool.app]\nbackends = [{list}]\n{queue}\n")
    };
    let stage = Changing::start(driver, &each(&[(&slow, 1)]));
    let mut clients: Vec<Client> = (0..4).map(|_| stage.connect()).collect();
    for (place, client) in clients.iter_mut().enumerate() {
        client.send(get("/"));
        stage.expect_count("requests_queued", place as u64);
    }
    // A new backend is for new requests: they do not wait behind those that cannot use it.
    stage.change(&each(&[(&slow, 1), (&fast, 1)]));
    stage.connect().get("/").expect(200, "fast");
    assert_eq!(stage::count(&stage.handle, "requests_queued"), 3);
    // More room at the backend that they wait for is for them.
    stage.change(&each(&[(&slow, 3), (&fast, 1)]));
    stage.expect_count("requests_queued", 1);
    cue.give();
    clients.iter_mut().for_each(|client| client.response().expect(200, "slow"));
    stage.end();
}

fn a_listener_that_goes_closes_what_rests_and_ends_what_is_under_way(driver: Driver) {
    let cue = Cue::default();
    let app = Backend::open(answers_on(&cue, "a"));
    let app = pool("app", &[&app], "");
    let other = free();
    let both =
        format!("pool = \"app\"\n[listener.other]\nbind = \"{other}\"\npool = \"app\"\n{app}");
    let stage = Changing::start(driver, &both);
    let [mut idle, mut busy, mut stays] =
        [Client::connect(other), Client::connect(other), stage.connect()];
    busy.send(get("/"));
    stays.send(get("/"));
    stage.expect_count("backend_in_flight", 2);
    stage.expect_count("connections", 3);
    stage.change(&format!("pool = \"app\"\n{app}"));
    idle.expect_end();
    expect_closed(other);
    cue.give();
    busy.response().expect(200, "a");
    busy.expect_end();
    stays.response().expect(200, "a");
    stays.get("/").expect(200, "a");
    // It may come back, at the same address.
    eventually("the address is free", || stage.try_change(&both).is_ok(), |is_there| *is_there);
    Client::connect(other).get("/").expect(200, "a");
    stays.get("/").expect(200, "a");
    stage.end();
}

fn a_listener_that_comes_is_served_at_all_its_addresses(driver: Driver) {
    let app = Backend::open(answers("a"));
    let app = pool("app", &[&app], "");
    let stage = Changing::start(driver, &format!("pool = \"app\"\n{app}"));
    let [one, two] = [free(), free()];
    let with = |binds: &str| {
        format!("pool = \"app\"\n[listener.more]\nbind = [{binds}]\npool = \"app\"\n{app}")
    };
    stage.change(&with(&format!("\"{one}\"")));
    let mut kept = Client::connect(one);
    kept.get("/").expect(200, "a");
    // One more address, and the connection stays; then the first address goes.
    stage.change(&with(&format!("\"{one}\", \"{two}\"")));
    (0..8).for_each(|_| Client::connect(two).get("/").expect(200, "a"));
    kept.get("/").expect(200, "a");
    stage.change(&with(&format!("\"{two}\"")));
    expect_closed(one);
    kept.get("/").expect(200, "a");
    Client::connect(two).get("/").expect(200, "a");
    stage.end();
}

/// Clients that wait to be accepted do not notice that their listener has another name.
fn an_address_goes_from_one_listener_to_another(driver: Driver) {
    let all = ["a", "b"].map(|text| Backend::open(answers(text)));
    let [a, b] = [("a", &all[0]), ("b", &all[1])].map(|(name, at)| pool(name, &[at], ""));
    let stage = Changing::start(driver, &format!("pool = \"a\"\n{a}"));
    let [one, two] = [free(), free()];
    let with = |listener: &str, pool: &str, binds: &str| {
        let more = format!("[listener.{listener}]\nbind = [{binds}]\npool = \"{pool}\"\n");
        stage.change(&format!("pool = \"a\"\n{more}{a}{b}"))
    };
    let both = format!("\"{one}\", \"{two}\"");
    with("first", "a", &both);
    let mut kept = Client::connect(one);
    kept.get("/").expect(200, "a");
    with("second", "b", &both);
    kept.expect_end();
    for address in [one, two] {
        (0..8).for_each(|_| Client::connect(address).get("/").expect(200, "b"));
    }
    // Back to the first listener, which is new again, without one of the addresses.
    with("first", "a", &format!("\"{two}\""));
    expect_closed(one);
    (0..8).for_each(|_| Client::connect(two).get("/").expect(200, "a"));
    stage.end();
}

fn a_log_is_written_to_where_the_plan_says_now(driver: Driver) {
    let app = Backend::open(answers("a"));
    let app = pool("app", &[&app], "");
    let folder =
        std::env::temp_dir().join(format!("ringway-changes-{}-{driver:?}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    let with = |name: &str| {
        let path = at(name);
        format!("pool = \"app\"\naccess-log = {{ path = \"{}\" }}\n{app}", path.display())
    };
    let lines = |name: &str| {
        let text = std::fs::read_to_string(at(name)).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"status\":200")).count()
    };
    let expect = |name: &str, count: usize| {
        eventually(name, || lines(name), |seen| *seen == count);
    };
    let stage = Changing::start(driver, &format!("pool = \"app\"\n{app}"));
    let mut client = stage.connect();
    client.get("/").expect(200, "a");
    stage.change(&with("one"));
    client.get("/").expect(200, "a");
    expect("one", 1);
    stage.change(&with("two"));
    client.get("/").expect(200, "a");
    client.get("/").expect(200, "a");
    expect("two", 2);
    stage.change(&format!("pool = \"app\"\n{app}"));
    client.get("/").expect(200, "a");
    assert!(stage.handle.reopen_logs());
    expect("one", 1);
    expect("two", 2);
    stage.end();
    std::fs::remove_dir_all(folder).unwrap();
}

fn cookies_are_good_under_the_next_plan(driver: Driver) {
    let all = ["a", "b", "c"].map(|text| Backend::open(answers(text)));
    let [a, b, c] = &all;
    let of = |backends: &[&Backend], keys: &str| {
        format!("pool = \"app\"\n{}", pool("app", backends, &format!("sticky = {{}}\n{keys}")))
    };
    let stage = Changing::start(driver, &of(&[a, b], ""));
    let mut client = stage.connect();
    let first = client.get("/");
    let (stays, cookie) = (first.text().to_owned(), first.field("set-cookie").unwrap().to_owned());
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let ask = |client: &mut Client| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        client.send(request).response().text().to_owned()
    };
    for sections in [of(&[a, b], ""), of(&[c, b, a], ""), of(&[b, a], "slow-start = \"5s\"")] {
        stage.change(&sections);
        for _ in 0..6 {
            assert_eq!(ask(&mut client), stays, "{sections}");
        }
    }
    let without = if stays == "a" { [b, c] } else { [a, c] };
    stage.change(&of(&without, ""));
    assert_ne!(ask(&mut client), stays);
    stage.end();
}

fn what_is_refused_changes_nothing(driver: Driver) {
    let app = Backend::open(answers("a"));
    let app = pool("app", &[&app], "");
    let first = format!("pool = \"app\"\n{app}");
    let stage = Changing::start(driver, &first);
    let mut client = stage.connect();
    client.get("/").expect(200, "a");
    // Another socket has this address.
    let taken = TcpListener::bind((addresses::host(), 0)).unwrap();
    let other = taken.local_addr().unwrap();
    let second = format!("{first}[listener.other]\nbind = \"{other}\"\npool = \"app\"\n");
    let refused = stage.try_change(&second).unwrap_err();
    assert!(
        matches!(refused, StartError::Listen { address, .. } if address.tcp() == Some(other)),
        "{refused}"
    );
    let log = "/nonexistent/ringway.log";
    let second = format!("pool = \"app\"\naccess-log = {{ path = \"{log}\" }}\n{app}");
    let refused = stage.try_change(&second).unwrap_err();
    assert!(matches!(refused, StartError::AccessLog { .. }), "{refused}");
    assert_eq!(stage.handle.plans_held(), 1);
    // What only a restart can change keeps its value, and is no change.
    let other_driver = if driver == Driver::Epoll { Driver::IoUring } else { Driver::Epoll };
    let (changes, _) = stage.handle.change(plan(other_driver, 2, stage.web, &first)).unwrap();
    assert_eq!(changes, "");
    client.get("/").expect(200, "a");
    drop(taken);
    stage.change(&format!("{first}[listener.other]\nbind = \"{other}\"\npool = \"app\"\n"));
    Client::connect(other).get("/").expect(200, "a");
    stage.end();
}

fn a_backend_that_comes_is_asked_when_its_first_probe_has_succeeded(driver: Driver) {
    let (a, cue) = (Backend::open(answers("a")), Cue::default());
    let b = Backend::open(answers_on(&cue, "b"));
    let probed = "[pool.app.health]\ninterval = \"500ms\"\ntimeout = \"400ms\"\n";
    let of = |backends: &[&Backend]| format!("pool = \"app\"\n{}", pool("app", backends, probed));
    let stage = Changing::start(driver, &of(&[&a]));
    stage.connect().get("/").expect(200, "a");
    stage.change(&of(&[&a, &b]));
    let mut client = stage.connect();
    for _ in 0..20 {
        client.get("/").expect(200, "a");
    }
    cue.give();
    let text = || client.get("/").text().to_owned();
    eventually("it is asked", text, |text| text == "b");
    // All others go: the new one is asked at once.
    let c = Backend::open(answers("c"));
    stage.change(&of(&[&c]));
    stage.connect().get("/").expect(200, "c");
    stage.end();
}

/// How many of 12 requests each of these answers, on connections of their own.
fn shares<const COUNT: usize>(stage: &Changing, names: [&str; COUNT]) -> [usize; COUNT] {
    let seen: Vec<String> = (0..12).map(|_| stage.connect().get("/").text().to_owned()).collect();
    names.map(|name| seen.iter().filter(|it| *it == name).count())
}

fn a_program_that_embeds_it_changes_its_backends_by_the_handle(driver: Driver) {
    let cue = Cue::default();
    let [a, b] = ["a", "b"].map(|name| Backend::open(answers(name)));
    let slow = Backend::open(answers_on(&cue, "slow"));
    let sections = |keys: &str| format!("pool = \"app\"\n{}", pool("app", &[&a], keys));
    let stage = Changing::start(driver, &sections(""));
    let (handle, name_of_a) = (&stage.handle, a.address().to_string());
    let backend = |name: &str, at: &Backend| {
        ringway::plan::Backend::new(name.into(), Address::Socket(at.address()))
    };
    let refused = |result: Result<(), ChangeError>, words: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, ChangeError::Order(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    handle.add_backend("app", &backend("two", &b)).unwrap();
    // Each core shares out its own requests.
    let [from_a, from_b] = shares(&stage, ["a", "b"]);
    assert!(from_a >= 4 && from_b >= 4, "{from_a} {from_b}");
    refused(handle.add_backend("app", &backend("two", &b)), "already");
    refused(handle.add_backend("none", &backend("x", &b)), "there is no pool \"none\"");
    handle.set_weight("app", "two", 0).unwrap();
    assert_eq!(shares(&stage, ["a", "b"]), [12, 0]);
    refused(handle.set_weight("app", "two", 257), "256");
    handle.set_weight("app", "two", 256).unwrap();
    let [from_a, from_b] = shares(&stage, ["a", "b"]);
    assert!(from_b >= 10, "{from_a} {from_b}");
    handle.drain_backend("app", "two").unwrap();
    assert_eq!(shares(&stage, ["a", "b"]), [12, 0]);
    handle.set_duty("app", "two", Duty::Up).unwrap();
    handle.set_duty("app", &name_of_a, Duty::Maintenance).unwrap();
    assert_eq!(shares(&stage, ["a", "b"]), [0, 12]);
    handle.set_duty("app", &name_of_a, Duty::Up).unwrap();
    handle.remove_backend("app", "two", None).unwrap();
    assert_eq!(shares(&stage, ["a", "b"]), [12, 0]);
    refused(handle.remove_backend("app", "two", None), "no backend \"two\"");
    refused(handle.remove_backend("app", &name_of_a, None), "the last backend");
    // What it has in flight is finished first.
    handle.add_backend("app", &backend("slow", &slow)).unwrap();
    handle.set_duty("app", &name_of_a, Duty::Draining).unwrap();
    let mut client = stage.connect();
    client.send(get("/"));
    eventually("it is asked", || slow.requests().len(), |count| *count == 1);
    handle.set_duty("app", &name_of_a, Duty::Up).unwrap();
    handle.remove_backend("app", "slow", Some(Duration::from_secs(60))).unwrap();
    assert_eq!(shares(&stage, ["a", "slow"]), [12, 0]);
    refused(handle.add_backend("app", &backend("slow", &slow)), "already");
    cue.give();
    client.response().expect(200, "slow");
    let is_gone = || handle.set_weight("app", "slow", 1).is_err();
    eventually("it is removed", is_gone, |gone| *gone);
    // Run-time changes outlast another configuration that they fit.
    handle.add_backend("app", &backend("two", &b)).unwrap();
    let changes = handle.reload(plan(driver, 2, stage.web, &sections("slow-start = \"1ms\"")));
    assert_eq!(changes.unwrap(), "~ pool \"app\": slow-start\n");
    let [from_a, from_b] = shares(&stage, ["a", "b"]);
    assert!(from_a >= 4 && from_b >= 4, "{from_a} {from_b}");
    let taken = TcpListener::bind((addresses::host(), 0)).unwrap();
    let (other, text) = (taken.local_addr().unwrap(), sections(""));
    let two = format!("{text}[listener.two]\nbind = \"{other}\"\npool = \"app\"\n");
    let error = handle.reload(plan(driver, 2, stage.web, &two)).unwrap_err();
    assert!(matches!(error, ChangeError::Plan(StartError::Listen { .. })), "{error:?}");
    stage.end();
}
