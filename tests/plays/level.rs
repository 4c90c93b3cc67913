//! Plays of cores that are kept level: connections go from a busy core to one that is not, and
//! nobody who asks notices.
//!
//! How busy a core is depends on the machine: a play waits long for a move, and where none may be
//! it goes by what the cores say of themselves.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ringway::{Handle, Options, Stop};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    scripts::answers,
    secure::Identity,
    stage::{self, Driver},
};

on_both_drivers!(
    clients_of_a_busy_core_move_and_lose_nothing,
    new_clients_go_to_the_core_that_is_less_busy,
    cores_that_are_equally_busy_keep_their_clients,
);

/// A machine that is busy with other things takes a while to show that a core is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy on two cores.
struct Pair {
    handle: Handle,
    web: SocketAddr,
    driver: Driver,
    listener: String,
    app: Backend,
}

fn plan(driver: Driver, listener: &str, app: &Backend) -> ringway::plan::Checked {
    let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
    let text = format!(
        "[global]\ncores = 2\npin = false\ndriver = \"{driver}\"\n\
         [global.limits]\nconnections = 1000\n\
         [listener.web]\n{listener}\npool = \"app\"\n[pool.app]\nbackends = [\"{}\"]\n",
        app.address()
    );
    let loaded = ringway::config::parse("level.toml", &text);
    loaded.unwrap_or_else(|wrong| panic!("{wrong} in\n{text}")).plan
}

impl Pair {
    fn start(driver: Driver, more: &str) -> Pair {
        let app = Backend::open(answers("ok"));
        let mut options = Options::default();
        options.raise_descriptor_limit = true;
        let web = TcpListener::bind((addresses::host(), 0)).unwrap().local_addr().unwrap();
        let listener = format!("bind = \"{web}\"\n{more}");
        let handle = ringway::start_with(plan(driver, &listener, &app), options).unwrap();
        Pair { handle, web, driver, listener, app }
    }

    /// Puts a plan in force that differs from the one before.
    fn reload(&self, number: u32) {
        let listener = format!("{}\ntimeouts = {{ idle = \"{}s\" }}", self.listener, 60 + number);
        self.handle.reload(plan(self.driver, &listener, &self.app)).unwrap();
    }

    fn connections(&self) -> [u64; 2] {
        let cores = self.handle.statistics().unwrap().cores;
        [cores[0].connections, cores[1].connections]
    }

    fn requests(&self) -> [u64; 2] {
        let cores = self.handle.statistics().unwrap().cores;
        [cores[0].requests, cores[1].requests]
    }

    fn moved(&self, state: &str) -> u64 {
        stage::count(&self.handle, &format!("connections_moved_total{{state=\"{state}\"}}"))
    }

    /// Clients of which each core has as many as it is to have; the others have left.
    fn clients(&self, wanted: [usize; 2], connect: impl Fn() -> Client) -> [Vec<Client>; 2] {
        let (mut clients, mut others) = ([Vec::new(), Vec::new()], Vec::new());
        for _ in 0..500 {
            if (0..2).all(|core| clients[core].len() == wanted[core]) {
                break;
            }
            let before = self.requests();
            let mut client = connect();
            client.get("/").expect(200, "ok");
            let core = usize::from(self.requests()[1] > before[1]);
            match clients[core].len() < wanted[core] {
                true => clients[core].push(client),
                false => others.push(client),
            }
        }
        let count = clients.each_ref().map(Vec::len);
        assert_eq!(count, wanted, "500 connections, and not so many on each core");
        drop(others);
        stage::eventually(
            "the others have left",
            || self.connections(),
            |now| now.iter().sum::<u64>() == wanted.iter().sum::<usize>() as u64,
        );
        clients
    }
}

/// Waits for something that takes the machine a while.
#[track_caller]
fn becomes(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what} never came true");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Asks again and again until it is over, or the connection is; each answer is whole and good.
fn asks(mut client: Client, over: &AtomicBool, pause: Duration) -> u32 {
    let mut answers = 0;
    while !over.load(SeqCst) {
        let response = client.send(get("/")).response();
        response.expect(200, "ok");
        answers += 1;
        if response.closes() {
            client.expect_end();
            break;
        }
        thread::sleep(pause);
    }
    answers
}

/// Six clients of one core ask without a pause, and the other core has nothing to do. They go on
/// through reloads, and through the stop, at which each is told of the end.
fn clients_of_a_busy_core_move_and_lose_nothing(driver: Driver) {
    let pair = Pair::start(driver, "");
    let [clients, _] = pair.clients([6, 0], || Client::connect(pair.web));
    let (over, before) = (AtomicBool::new(false), pair.requests()[1]);
    let (ended, handle) = (AtomicU32::new(0), &pair.handle);
    thread::scope(|scope| {
        let _ends = Ends(&over);
        for client in clients {
            let (ended, over) = (&ended, &over);
            scope.spawn(move || {
                assert!(asks(client, over, Duration::ZERO) > 0);
                ended.fetch_add(1, SeqCst);
            });
        }
        becomes("some have moved", || pair.moved("idle") >= 2);
        becomes("the other core serves them", || pair.requests()[1] > before + 20);
        // One that is on its way is on neither.
        let all = |[busy, other]: &[u64; 2]| *busy > 0 && busy + other == 6;
        stage::eventually("all six are there", || pair.connections(), all);
        (0..20).for_each(|number| pair.reload(number));
        handle.drain();
        becomes("all were told of the end", || ended.load(SeqCst) == 6);
    });
    for nought in ["panics_total", "client_aborts_total", "responses_incomplete_total"] {
        assert_eq!(stage::count(handle, nought), 0, "{nought}");
    }
    assert_eq!(stage::count(handle, "connections_moved_total{core=\"1\",state=\"new\"}"), 0);
    assert!(pair.handle.stop(Stop::Graceful), "both cores end");
}

/// Clients with a session of TLS stay where they are; those that come go to the other core.
fn new_clients_go_to_the_core_that_is_less_busy(driver: Driver) {
    let identity = Identity::of(&["play.test"]);
    let pair = Pair::start(driver, &identity.line(""));
    let [clients, _] = pair.clients([4, 0], || identity.connect(pair.web));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = Ends(&over);
        for client in clients {
            scope.spawn(|| asks(client, &over, Duration::ZERO));
        }
        becomes("some were handed over", || {
            identity.connect(pair.web).get("/").expect(200, "ok");
            pair.moved("new") >= 2
        });
    });
    assert_eq!(pair.moved("idle"), 0, "a session of TLS cannot go along");
    assert_eq!(stage::count(&pair.handle, "tls_handshake_failures_total"), 0);
    assert_eq!(stage::count(&pair.handle, "panics_total"), 0);
    assert!(pair.handle.stop(Stop::Graceful), "both cores end");
}

/// How busy each core says that it is, in thousandths, at many moments of three seconds.
fn loads(pair: &Pair) -> Vec<[i32; 2]> {
    let look = |_| {
        thread::sleep(Duration::from_millis(50));
        let cores = pair.handle.statistics().unwrap().cores;
        [0, 1].map(|core| (cores[core].load * 1e3) as i32)
    };
    // At first neither has told anything.
    (0..60).map(look).filter(|[one, other]| *one > 0 && *other > 0).collect()
}

/// As many clients on each core, which ask as often. If the machine does not let the cores work
/// alike there is nothing to see, and the play is played again; at last it is left.
fn cores_that_are_equally_busy_keep_their_clients(driver: Driver) {
    for _ in 0..5 {
        let pair = Pair::start(driver, "");
        let clients = pair.clients([4, 4], || Client::connect(pair.web));
        let over = AtomicBool::new(false);
        let mut shown = Vec::new();
        thread::scope(|scope| {
            let _ends = Ends(&over);
            for client in clients.into_iter().flatten() {
                scope.spawn(|| asks(client, &over, Duration::from_millis(2)));
            }
            shown = loads(&pair);
        });
        let moved = pair.moved("idle") + pair.moved("new");
        assert!(pair.handle.stop(Stop::Graceful), "both cores end");
        assert!(!shown.is_empty(), "they tell nothing");
        // Each is shown before the other has told the next.
        if shown.iter().all(|[one, other]| one.abs_diff(*other) < 80) {
            assert_eq!(moved, 0, "{shown:?}");
            return;
        }
        eprintln!("the machine does not let both cores work alike: {shown:?}");
    }
}
