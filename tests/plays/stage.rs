//! The stage: a running proxy between a play's clients and its scripted backends.
//!
//! A stage has one listener on a free port of loopback, one pool and one core unless the play says
//! otherwise. When it is struck (dropped) the proxy is stopped at once and every thread joined; a
//! play also fails there if a backend was sent something that is not canonical, or if the proxy
//! still counts a connection or a request after all clients have left.

use std::{
    cell::Cell,
    fmt::Write,
    net::{SocketAddr, TcpStream},
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use ringway::{
    Endpoint, Handle, Options, Stop,
    events::{Event, Events},
    statistics::{Sample, Value, families},
};

use crate::{
    addresses,
    backend::{Backend, Request, Script},
    client::{Client, Response},
    name_server::NameServer,
    pace::{Took, Watch},
    secure::{self, Identity},
    translated::{self, Sides},
};

/// What the serving threads wait on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The kernel's ring.
    IoUring,
    /// The older interface.
    Epoll,
}

/// Makes two tests of each play, one for each driver. Those `at a pace` get the factor by which
/// their times are longer than usual (`pace.rs`).
macro_rules! on_both_drivers {
    (over tls too: $($all:tt)*) => {
        on_both_drivers!($($all)*);
        over_tls!($($all)*);
    };
    ($($play:ident),* $(,)? $(; at a pace: $($paced:ident),+ $(,)?)?) => {
        mod io_uring {
            $(#[test] fn $play() { $crate::stage::on_io_uring(super::$play); })*
            $($(#[test] fn $paced() {
                $crate::stage::on_io_uring(|driver| {
                    $crate::pace::at_a_pace(|slower| super::$paced(driver, slower));
                });
            })+)?
        }
        mod epoll {
            $(#[test] fn $play() { $crate::stage::on_epoll(super::$play); })*
            $($(#[test] fn $paced() {
                $crate::stage::on_epoll(|driver| {
                    $crate::pace::at_a_pace(|slower| super::$paced(driver, slower));
                });
            })+)?
        }
    };
}

/// Makes one more test of each play but those at a pace, in which clients and backends speak TLS.
macro_rules! over_tls {
    ($($play:ident),* $(,)? $(; at a pace: $($paced:ident),+ $(,)?)?) => {
        mod tls {
            $(#[test] fn $play() { $crate::stage::over_tls(super::$play); })*
        }
    };
}

/// Makes one more test of each play for each pair of versions that has HTTP/2: from clients to
/// Ringway, from there to backends, and both. Those `in front` and `behind` only on that side.
macro_rules! over_http_2 {
    ($($play:ident),* $(,)?
        $(; in front: $($front:ident),+ $(,)?)?
        $(; behind: $($behind:ident),+ $(,)?)?) => {
        mod h2_h1 {
            $(#[test] fn $play() { $crate::stage::over_http_2((true, false), super::$play); })*
            $($(#[test] fn $front() {
                $crate::stage::over_http_2((true, false), super::$front);
            })+)?
        }
        mod h1_h2 {
            $(#[test] fn $play() { $crate::stage::over_http_2((false, true), super::$play); })*
            $($(#[test] fn $behind() {
                $crate::stage::over_http_2((false, true), super::$behind);
            })+)?
        }
        mod h2_h2 {
            $(#[test] fn $play() { $crate::stage::over_http_2((true, true), super::$play); })*
        }
    };
}

thread_local! {
    /// Whether the stages of this thread speak TLS on both sides.
    static OVER_TLS: Cell<bool> = const { Cell::new(false) };
    /// On which sides they speak HTTP/2.
    static OVER_HTTP_2: Cell<Sides> = const { Cell::new(Sides { front: false, behind: false }) };
}

/// Longer than any play takes on a late machine: one that takes this long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(240);

/// Runs a play on io_uring with TLS on both sides.
pub(crate) fn over_tls(play: fn(Driver)) {
    if is_ring_allowed() {
        bounded(move || {
            OVER_TLS.set(true);
            play(Driver::IoUring);
        });
    }
}

/// Runs a play on io_uring with HTTP/2 in front or behind.
pub(crate) fn over_http_2((front, behind): (bool, bool), play: fn(Driver)) {
    if is_ring_allowed() {
        bounded(move || {
            OVER_HTTP_2.set(Sides { front, behind });
            play(Driver::IoUring);
        });
    }
}

/// Whether HTTP/2 is spoken on either side, which has no chunks.
pub(crate) fn has_http_2() -> bool {
    let Sides { front, behind } = OVER_HTTP_2.get();
    front || behind
}

/// Runs a play on io_uring.
pub(crate) fn on_io_uring(play: fn(Driver)) {
    if is_ring_allowed() {
        bounded(move || play(Driver::IoUring));
    }
}

/// Runs a play on epoll.
pub(crate) fn on_epoll(play: fn(Driver)) {
    bounded(move || play(Driver::Epoll));
}

/// Whether the kernel allows io_uring. If it does not, this says so; in CI that is a failure.
fn is_ring_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let allowed = *ALLOWED.get_or_init(|| {
        let text = Text { driver: Some(Driver::IoUring), ..Text::default() }.toml(&[]);
        let plan = ringway::config::parse("play.toml", &text).expect("the smallest plan").plan;
        ringway::start(plan).map(|handle| handle.stop(Stop::Now)).is_ok()
    });
    if !allowed {
        assert!(std::env::var("CI").is_err(), "io_uring is forbidden here");
        eprintln!("skipped: io_uring is forbidden here");
    }
    allowed
}

/// Runs a play on a thread of its own, so that one that hangs is named and the others go on. The
/// process ends without that thread.
fn bounded(play: impl FnOnce() + Send + 'static) {
    if long() {
        return play();
    }
    let (ends, ended) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("play").to_owned();
    let playing = thread::Builder::new().name(name).spawn(move || {
        let _ends = ends;
        play();
    });
    let hangs = ended.recv_timeout(HANGS_AFTER) == Err(RecvTimeoutError::Timeout);
    assert!(!hangs, "it hangs: it has not ended after {HANGS_AFTER:?}");
    playing.unwrap().join().unwrap_or_else(|failure| resume_unwind(failure));
}

/// The configuration of a stage, section by section.
#[derive(Clone, Debug, Default)]
struct Text {
    driver: Option<Driver>,
    cores: Option<u16>,
    bind: Option<SocketAddr>,
    only_routes: bool,
    written: Vec<String>,
    each: String,
    global: String,
    limits: String,
    listener: String,
    pool: String,
    rest: String,
}

impl Text {
    fn toml(&self, backends: &[(SocketAddr, u16)]) -> String {
        let driver = match self.driver {
            Some(Driver::IoUring) => "io_uring",
            Some(Driver::Epoll) => "epoll",
            None => "auto",
        };
        let cores = self.cores.unwrap_or(1);
        // Where no other play's port can be: a play may connect when its proxy has left.
        let bind = self.bind.unwrap_or_else(|| SocketAddr::from((addresses::host(), 0)));
        let mut list = String::new();
        let each = &self.each;
        for (address, weight) in backends {
            write!(list, "{{ address = \"{address}\", weight = {weight}{each} }}, ").unwrap();
        }
        for address in &self.written {
            write!(list, "\"{address}\", ").unwrap();
        }
        if list.is_empty() {
            list.push_str("\"127.0.0.1:9\"");
        }
        let default = if self.only_routes { "" } else { "pool = \"app\"" };
        let Text { global, limits, listener, pool, rest, .. } = self;
        format!(
            "[global]\ncores = {cores}\npin = false\ndriver = \"{driver}\"\n{global}\n\
             [global.limits]\n{limits}\n\
             [listener.web]\nbind = \"{bind}\"\n{default}\n{listener}\n\
             [pool.app]\nbackends = [{list}]\n{pool}\n{rest}\n"
        )
    }
}

/// A stage that is being set.
pub(crate) struct Setting {
    text: Text,
    scripts: Vec<(Script, u16)>,
    name_servers: Vec<SocketAddr>,
}

impl Setting {
    /// A line of `[global]`.
    pub(crate) fn global(mut self, line: &str) -> Setting {
        append(&mut self.text.global, line);
        self
    }

    /// A line of `[global.limits]`.
    pub(crate) fn limits(mut self, line: &str) -> Setting {
        append(&mut self.text.limits, line);
        self
    }

    /// A line of the listener.
    pub(crate) fn listener(mut self, line: &str) -> Setting {
        append(&mut self.text.listener, line);
        self
    }

    /// A line of the pool.
    pub(crate) fn pool(mut self, line: &str) -> Setting {
        append(&mut self.text.pool, line);
        self
    }

    /// Takes the pool from the listener: only routes lead to it.
    pub(crate) fn without_default_pool(mut self) -> Setting {
        self.text.only_routes = true;
        self
    }

    /// Further sections.
    pub(crate) fn sections(mut self, lines: &str) -> Setting {
        append(&mut self.text.rest, lines);
        self
    }

    /// That many cores.
    pub(crate) fn cores(mut self, count: u16) -> Setting {
        self.text.cores = Some(count);
        self
    }

    /// Binds to this address.
    pub(crate) fn bind(mut self, address: SocketAddr) -> Setting {
        self.text.bind = Some(address);
        self
    }

    /// A backend with this script.
    pub(crate) fn backend(self, script: Script) -> Setting {
        self.weighted(script, 1)
    }

    /// A backend with this script and weight.
    pub(crate) fn weighted(mut self, script: Script, weight: u16) -> Setting {
        self.scripts.push((script, weight));
        self
    }

    /// A further key of each of the stage's backends.
    pub(crate) fn each(mut self, key: &str) -> Setting {
        write!(self.text.each, ", {key}").unwrap();
        self
    }

    /// Names are looked up there.
    pub(crate) fn named_by(mut self, server: &NameServer) -> Setting {
        self.name_servers.push(server.address());
        self
    }

    /// A backend that is not the stage's own, by its address as written.
    pub(crate) fn written(mut self, address: impl Into<String>) -> Setting {
        self.text.written.push(address.into());
        self
    }

    /// Opens the backends and starts the proxy.
    #[track_caller]
    pub(crate) fn start(self) -> Stage {
        self.try_start().unwrap_or_else(|error| panic!("the proxy does not start: {error}"))
    }

    /// Opens the backends and starts the proxy, or says why it does not start.
    pub(crate) fn try_start(mut self) -> Result<Stage, String> {
        // The same when its configuration is written again.
        self.text.bind.get_or_insert_with(|| SocketAddr::from((addresses::host(), 0)));
        let backends: Vec<(Backend, u16)> = self
            .scripts
            .into_iter()
            .map(|(script, weight)| (Backend::open(script), weight))
            .collect();
        let mut addresses: Vec<(SocketAddr, u16)> =
            backends.iter().map(|(backend, weight)| (backend.address(), *weight)).collect();
        let mut setting = self.text;
        let identity = OVER_TLS.get().then(|| Arc::new(Identity::of(&["play.test"])));
        if let Some(identity) = &identity {
            for (address, _) in &mut addresses {
                let server = identity.server(&secure::VERSIONS, None);
                *address = secure::behind(*address, server, false).address;
            }
            append(&mut setting.listener, &identity.line(""));
            append(&mut setting.pool, &identity.pool_line());
        }
        let sides = OVER_HTTP_2.get();
        if sides.behind {
            for (address, _) in &mut addresses {
                *address = translated::behind(*address);
            }
            append(&mut setting.pool, "protocol = \"h2c\"");
        }
        let text = setting.toml(&addresses);
        let loaded = ringway::config::parse("play.toml", &text)
            .unwrap_or_else(|problems| panic!("{problems} in\n{text}"));
        let mut options = Options::default();
        options.raise_descriptor_limit = true;
        options.trim_memory = true;
        options.name_servers = self.name_servers;
        let handle =
            ringway::start_with(loaded.plan, options).map_err(|error| format!("{error}"))?;
        let backends = backends.into_iter().map(|(backend, _)| backend).collect();
        let (addresses, text) = (handle.addresses().to_vec(), setting);
        let stage = Stage { addresses, handle: Some(handle), backends, text };
        if let Some(identity) = identity {
            secure::speaks_tls(stage.address(), identity);
        }
        if sides.front {
            translated::speaks_http_2(stage.address());
        }
        Ok(stage)
    }
}

fn append(section: &mut String, line: &str) {
    section.push_str(line);
    section.push('\n');
}

/// A running proxy between clients and scripted backends.
pub(crate) struct Stage {
    handle: Option<Handle>,
    addresses: Vec<(String, Endpoint)>,
    backends: Vec<Backend>,
    /// Its configuration.
    text: Text,
}

impl Stage {
    /// Begins a stage on this driver.
    pub(crate) fn on(driver: Driver) -> Setting {
        let text = Text { driver: Some(driver), ..Text::default() };
        Setting { text, scripts: Vec::new(), name_servers: Vec::new() }
    }

    /// Where the proxy listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of("web")
    }

    /// Where a listener of that name listens.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        let named = |(name, at): &(String, Endpoint)| at.tcp().filter(|_| name == listener);
        self.addresses.iter().find_map(named).expect("no listener of that name")
    }

    /// A client with a new connection.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Asks on a connection of its own and checks that it ends cleanly after the answer.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: play.test\r\nConnection: close\r\n\r\n"));
        let response = client.response();
        client.expect_end();
        response
    }

    /// One of the backends, in the order in which they were named.
    pub(crate) fn backend(&self, index: usize) -> &Backend {
        &self.backends[index]
    }

    /// The last whole request that the first backend received.
    #[track_caller]
    pub(crate) fn last_request(&self) -> Request {
        self.backends[0].requests().pop().expect("no request has arrived")
    }

    /// The events, from the start on.
    pub(crate) fn events(&self) -> Events {
        self.handle.as_ref().expect("the proxy was stopped").events()
    }

    /// The events since the start, as far as reported by now.
    pub(crate) fn happened(&self) -> Vec<Event> {
        let events = self.events();
        std::iter::from_fn(|| events.try_next()).map(|told| told.event.clone()).collect()
    }

    /// The balancer itself.
    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("the proxy was stopped")
    }

    /// Serves by the same configuration with this one backend from now on.
    pub(crate) fn reload_with(&self, backend: String) {
        let text = Text { written: vec![backend], ..self.text.clone() }.toml(&[]);
        let plan = ringway::config::parse("next.toml", &text).unwrap().plan;
        self.handle().reload(plan).unwrap();
    }

    /// Serves by the same configuration with these further sections from now on.
    pub(crate) fn reload_sections(&mut self, lines: &str) {
        let backends = self.backends.iter().map(|backend| (backend.address(), 1));
        let backends: Vec<_> = backends.collect();
        self.text.rest = lines.to_owned();
        let text = self.text.toml(&backends);
        let plan = ringway::config::parse("next.toml", &text).unwrap().plan;
        self.handle().reload(plan).unwrap();
    }

    /// A metric by its name and some of its labels, as `retries_total{reason="502"}`: the sum of
    /// all that have these.
    pub(crate) fn count(&self, name: &str) -> u64 {
        count(self.handle.as_ref().expect("the proxy was stopped"), name)
    }

    /// Reopens the access logs.
    pub(crate) fn reopen_logs(&self) -> bool {
        self.handle.as_ref().expect("the proxy was stopped").reopen_logs()
    }

    /// Waits until a counter or gauge has that value.
    #[track_caller]
    pub(crate) fn expect_count(&self, name: &str, expected: u64) {
        eventually(
            &format!("{name} = {expected}"),
            || self.count(name),
            |count| *count == expected,
        );
    }

    /// Stops the proxy from another thread, which returns how long that took and whether everything
    /// had finished by itself.
    pub(crate) fn stop_beside(&mut self, how: Stop) -> std::thread::JoinHandle<(Took, bool)> {
        let handle = self.handle.take().expect("the proxy was stopped");
        std::thread::spawn(move || {
            let watch = Watch::start();
            let finished = handle.stop(how);
            (watch.took(), finished)
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let playing = !std::thread::panicking();
        secure::forget(self.address());
        translated::forget(self.address());
        if playing && self.handle.is_some() {
            for name in NOUGHT_AT_THE_END {
                self.expect_count(name, 0);
            }
        }
        if let Some(handle) = self.handle.take() {
            handle.stop(Stop::Now);
        }
        if playing {
            for (number, backend) in self.backends.iter().enumerate() {
                let complaints = backend.complaints();
                assert!(complaints.is_empty(), "backend {number} was sent {complaints:#?}");
            }
        }
    }
}

/// What must be zero when every client has left: everything in flight, and panics.
const NOUGHT_AT_THE_END: [&str; 5] =
    ["connections", "requests_in_flight", "backend_in_flight", "tunnels", "panics_total"];

/// How much later than its time a timeout may come, not counting the lateness of the machine: the
/// sweep runs every quarter of a second, and tasks take turns.
const LATE_AT_MOST: Duration = Duration::from_millis(250 + 550);

/// How much earlier: the error of a coarse clock.
const EARLY_AT_MOST: Duration = Duration::from_millis(50);

/// Fails unless a timeout of `wanted` took about that long.
#[track_caller]
pub(crate) fn expect_about(took: Took, wanted: Duration) {
    took.expect_at_least(wanted - EARLY_AT_MOST);
    took.expect_at_most(wanted + LATE_AT_MOST);
}

/// How long, and how often, a check is repeated at least.
const LOOKING: (Duration, u32) = (Duration::from_secs(8), 800);

/// Checks until the value is as it should be; fails with the last value. Checks are counted too, as
/// a machine that is busy or stands still allows fewer.
#[track_caller]
pub(crate) fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    as_it_should: impl Fn(&T) -> bool,
) -> T {
    let (since, mut looks) = (Instant::now(), 0);
    loop {
        let seen = look();
        if as_it_should(&seen) {
            return seen;
        }
        looks += 1;
        let may_go_on = since.elapsed() < LOOKING.0 || looks < LOOKING.1;
        assert!(may_go_on, "{what} never came true; at last {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until this address accepts no connection any more.
#[track_caller]
pub(crate) fn expect_closed(address: SocketAddr) {
    // At first a new connection is not answered at all, and would try again in a second.
    let at_most = Duration::from_millis(100);
    let connect = || TcpStream::connect_timeout(&address, at_most).is_err();
    eventually("new connections are refused", connect, |refused| *refused);
}

/// Checks until the value has stayed the same for 30 checks, of 10 ms and more.
pub(crate) fn settled<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    let (mut last, mut same) = (look(), 0);
    while same < 30 {
        std::thread::sleep(Duration::from_millis(10));
        let seen = look();
        same = if seen == last { same + 1 } else { 0 };
        last = seen;
    }
    last
}

/// Whether to play at full length: `RINGWAY_PLAYS_LONG` is set.
pub(crate) fn long() -> bool {
    std::env::var_os("RINGWAY_PLAYS_LONG").is_some()
}

/// A metric of a running balancer by its name and some of its labels: the sum of all that have
/// these.
pub(crate) fn count(handle: &Handle, name: &str) -> u64 {
    let statistics = handle.statistics().expect("the control thread hangs");
    let (family, wanted) = name.split_once('{').unwrap_or((name, "}"));
    let wanted = wanted.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    let wanted: Vec<_> = wanted.collect();
    assert!(families().any(|known| known == family), "there is no metric {family}");
    let samples = statistics.samples();
    let of_family = samples.iter().filter(|sample| sample.family == family);
    let has_all = |sample: &&Sample<'_>| {
        let said = |(name, value): &(_, _)| format!("{name}=\"{value}\"");
        let labels: Vec<String> = sample.labels.iter().map(said).collect();
        wanted.iter().all(|label| labels.iter().any(|other| other == label))
    };
    let count = |sample: &Sample<'_>| match sample.value {
        Value::Count(count) => count,
        _ => panic!("{name} is no count"),
    };
    of_family.filter(has_all).map(count).sum()
}
