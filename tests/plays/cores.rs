//! Plays of reloads that change how many cores serve.
//!
//! Nobody who asks, waits or has a tunnel may see that a core is started, or rests.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use ringway::{Handle, Options, Stop};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    scripts::{answers, upgrades_and_echoes},
    secure::Identity,
    stage::{self, Driver, eventually, settled},
};

on_both_drivers!(
    cores_come_and_go_and_nobody_notices,
    a_core_that_rests_gives_its_clients_to_the_others,
    an_address_comes_and_goes_with_a_core,
    a_new_core_knows_the_addresses_of_names,
    cores_that_are_not_ours_are_refused,
);

/// A proxy whose number of cores changes.
struct Growing {
    handle: Handle,
    driver: Driver,
    web: SocketAddr,
    more: String,
}

fn free() -> SocketAddr {
    TcpListener::bind((addresses::host(), 0)).unwrap().local_addr().unwrap()
}

impl Growing {
    /// On one core; `more` follows the keys of the listener.
    fn start(driver: Driver, more: String) -> Growing {
        let web = free();
        let mut options = Options::default();
        options.raise_descriptor_limit = true;
        let handle = ringway::start_with(plan(driver, 1, web, &more), options).unwrap();
        Growing { handle, driver, web, more }
    }

    /// Serves on so many cores; returns what that changes.
    #[track_caller]
    fn serves_on(&self, cores: u16) -> String {
        let changed = self.change(cores, &self.more).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(self.handle.core_count(), usize::from(cores));
        changed
    }

    fn change(&self, cores: u16, more: &str) -> Result<String, String> {
        let next = plan(self.driver, cores, self.web, more);
        self.handle.reload(next).map_err(|error| error.to_string())
    }

    /// How many requests each core has been sent so far.
    fn requests(&self) -> Vec<u64> {
        self.handle.statistics().unwrap().cores.iter().map(|core| core.requests).collect()
    }

    fn connections(&self) -> Vec<u64> {
        self.handle.statistics().unwrap().cores.iter().map(|core| core.connections).collect()
    }

    /// Asks on so many new connections, which are returned.
    fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(self.web)).collect();
        clients.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
        clients
    }
}

fn plan(driver: Driver, cores: u16, web: SocketAddr, more: &str) -> ringway::plan::Checked {
    let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
    let text = format!(
        "[global]\ncores = {cores}\npin = false\ndriver = \"{driver}\"\n\
         [global.limits]\nconnections = 1000\n\
         [listener.web]\nbind = \"{web}\"\npool = \"app\"\n{more}\n"
    );
    let loaded = ringway::config::parse("cores.toml", &text);
    loaded.unwrap_or_else(|wrong| panic!("{wrong} in\n{text}")).plan
}

fn pool(name: &str, backend: &Backend) -> String {
    format!("[pool.{name}]\nbackends = [\"{}\"]\n", backend.address())
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn cores_come_and_go_and_nobody_notices(driver: Driver) {
    let (app, ws) = (Backend::open(answers("ok")), Backend::open(upgrades_and_echoes()));
    let identity = Identity::of(&["a.test"]);
    let secure = free();
    let more = format!(
        "{}{}[[route]]\nname = \"ws\"\npath = \"/ws\"\npool = \"ws\"\n\
         [listener.secure]\nbind = \"{secure}\"\npool = \"app\"\n{}",
        pool("app", &app),
        pool("ws", &ws),
        identity.line("")
    );
    let stage = Growing::start(driver, more);
    stage.serves_on(2);
    let mut tunnels: Vec<Client> = (0..20).map(|_| Client::connect(stage.web)).collect();
    for tunnel in &mut tunnels {
        let upgrade =
            "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(tunnel.send(upgrade).response_head("GET").unwrap().status, 101);
    }
    let mut idle = stage.clients(20);
    let mut over_tls: Vec<Client> = (0..8).map(|_| identity.connect(secure)).collect();
    over_tls.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asks = || {
            let (mut client, mut answers) = (Client::connect(stage.web), 0);
            while !over.load(SeqCst) {
                let response = client.send(get("/")).response();
                response.expect(200, "ok");
                assert!(!response.closes(), "{response:?}");
                answers += 1;
            }
            answers
        };
        let connects = || {
            let mut answers = 0;
            while !over.load(SeqCst) {
                Client::connect(stage.web).send(get("/")).response().expect(200, "ok");
                answers += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(asks)).collect();
        let others: Vec<_> = (0..2).map(|_| scope.spawn(connects)).collect();
        let _ends = Ends(&over);
        for round in 0..20 {
            let changed = stage.serves_on(1 + round % 2);
            assert_eq!(changed, "~ global: cores\n");
            thread::sleep(Duration::from_millis(20));
        }
        drop(_ends);
        let answers: u32 = clients.into_iter().chain(others).map(|it| it.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
    idle.iter_mut().chain(&mut over_tls).for_each(|client| client.get("/").expect(200, "ok"));
    for (number, tunnel) in tunnels.iter_mut().enumerate() {
        let text = format!("still here {number}");
        let heard = tunnel.send(&text).wire().bytes(text.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }
    eventually("plans are freed", || stage.handle.plans_held(), |held| *held == 1);
    assert_eq!(stage::count(&stage.handle, "panics_total"), 0);
    drop((tunnels, idle, over_tls));
    assert!(stage.handle.stop(Stop::Graceful), "all cores end");
}

fn a_core_that_rests_gives_its_clients_to_the_others(driver: Driver) {
    let app = Backend::open(answers("ok"));
    let stage = Growing::start(driver, pool("app", &app));
    assert_eq!(stage.requests().len(), 1);
    stage.serves_on(2);
    let mut clients = stage.clients(64);
    let [one, other] = stage.connections()[..] else { panic!("two cores are known") };
    assert!(one > 0 && other > 0, "{one} and {other} connections");
    stage.serves_on(1);
    eventually("it has none left", || stage.connections(), |of| **of == [64, 0]);
    let before = settled(|| stage.requests()[1]);
    clients.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    clients.extend(stage.clients(16));
    assert_eq!(stage.requests()[1], before, "the core rests");
    stage.serves_on(2);
    let mut more = stage.clients(64);
    assert!(stage.requests()[1] > before, "the core serves again");
    clients.iter_mut().chain(&mut more).for_each(|client| client.get("/").expect(200, "ok"));
    drop((clients, more));
    assert!(stage.handle.stop(Stop::Graceful), "all cores end");
}

fn an_address_comes_and_goes_with_a_core(driver: Driver) {
    let app = Backend::open(answers("ok"));
    let more = pool("app", &app);
    let stage = Growing::start(driver, more.clone());
    let mut kept = stage.clients(8);
    for _ in 0..3 {
        let two = free();
        let both = format!("[listener.two]\nbind = \"{two}\"\npool = \"app\"\n{more}");
        stage.change(2, &both).unwrap();
        let mut clients: Vec<Client> = (0..32).map(|_| Client::connect(two)).collect();
        clients.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
        stage.change(1, &more).unwrap();
        clients.iter_mut().for_each(Client::expect_end);
        stage::expect_closed(two);
        kept.extend(stage.clients(8));
    }
    kept.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    // At once after it has gone, while a core still serves what waits there.
    let two = free();
    let both = format!("[listener.two]\nbind = \"{two}\"\npool = \"app\"\n{more}");
    for _ in 0..5 {
        stage.change(1, &both).unwrap_or_else(|why| panic!("{why}"));
        Client::connect(two).get("/").expect(200, "ok");
        stage.change(1, &more).unwrap_or_else(|why| panic!("{why}"));
    }
    stage.handle.stop(Stop::Now);
}

fn a_new_core_knows_the_addresses_of_names(driver: Driver) {
    let app = Backend::open_on(Ipv4Addr::LOCALHOST.into(), answers("ok"));
    // A name that the system looks up.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let resolves = |host: &str| {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, app.address().port()));
        found.is_ok_and(|mut all| all.any(|it| TcpStream::connect(it).is_ok()))
    };
    if !resolves(&host) {
        return;
    }
    let pool = format!("[pool.app]\nbackends = [\"{host}:{}\"]\n", app.address().port());
    let stage = Growing::start(driver, pool);
    for round in 0..4 {
        stage.serves_on(2 - round % 2);
        stage.clients(16);
    }
    stage.handle.stop(Stop::Now);
}

fn cores_that_are_not_ours_are_refused(driver: Driver) {
    let app = Backend::open(answers("ok"));
    let stage = Growing::start(driver, pool("app", &app));
    let why = stage.change(4_000, &stage.more).unwrap_err();
    assert!(why.contains("4000 cores requested"), "{why}");
    assert_eq!(stage.handle.core_count(), 1);
    stage.clients(3);
    stage.handle.stop(Stop::Now);
}
