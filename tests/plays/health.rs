//! Plays of probes: a backend that fails them gets no traffic, and gets it back once it passes them
//! again.
//!
//! Every play waits for what it wants to see, as a probe comes when it comes; and plays at a pace
//! that the machine keeps, as a probe must end before the next. Tests of `health` check what probes
//! consist of; the tables of `policy` check what follows from them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    addresses::free,
    backend::{Backend, Script, plays},
    pace::{Watch, ms},
    scripts::{answers, answers_each, ok},
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    ; at a pace:
    a_backend_that_fails_its_probes_gets_no_traffic_until_it_has_passed_enough,
    a_body_without_the_text_is_a_failure,
    a_probe_that_hangs_is_a_failure_and_never_two_at_once,
    a_backend_that_accepts_passes_a_tcp_probe,
    another_port_may_be_probed,
    all_backends_down_is_no_backend,
    probes_are_counted_nowhere,
    three_hundred_backends_are_probed_by_one_thread,
    silent_backends_delay_nobodys_probes_but_their_own,
);

/// Probe settings, fast enough for a play, with these further keys.
fn quick(slower: u32, keys: &str) -> String {
    let beat = ms(Duration::from_millis(60) * slower);
    format!("health = {{ interval = {beat}, timeout = {beat}{keys} }}")
}

/// By HTTP.
fn http(slower: u32) -> String {
    quick(slower, ", rise = 3, fall = 2")
}

/// A switch that a play turns on and off.
#[derive(Clone)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn new(is_on: bool) -> Switch {
        Switch(Arc::new(AtomicBool::new(is_on)))
    }

    fn set(&self, is_on: bool) {
        self.0.store(is_on, SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// Answers traffic with this text, and probes with 200 and this body while the switch is on, with
/// `otherwise` while it is off.
fn probed(text: &'static str, switch: &Switch, otherwise: &'static str) -> Script {
    let switch = switch.clone();
    answers_each(move |request| match request.target() {
        "/health" if switch.is_on() => ok("all is well").into_bytes(),
        "/health" => otherwise.into(),
        _ => ok(text).into_bytes(),
    })
}

const DOWN: &str = "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n";

/// The backends that answer the next requests.
#[track_caller]
fn who(stage: &Stage) -> String {
    (0..8).map(|_| stage.get("/").text().to_owned()).collect()
}

/// Waits until exactly these answer.
#[track_caller]
fn expect_only(stage: &Stage, expected: &[&str]) {
    let is_so = |seen: &String| {
        let mut left = seen.clone();
        expected.iter().for_each(|text| left = left.replace(text, ""));
        left.is_empty() && expected.iter().all(|text| seen.contains(text))
    };
    eventually(&format!("only {expected:?} answer"), || who(stage), is_so);
}

/// The requests that a backend received from probes, and those from clients.
fn received(stage: &Stage, backend: usize) -> (usize, usize) {
    let requests = stage.backend(backend).requests();
    let probes = requests.iter().filter(|request| request.target() == "/health").count();
    (probes, requests.len() - probes)
}

fn a_backend_that_fails_its_probes_gets_no_traffic_until_it_has_passed_enough(
    driver: Driver,
    slower: u32,
) {
    let healthy = Switch::new(true);
    let stage = Stage::on(driver)
        .cores(2)
        .pool(&http(slower))
        .backend(answers("a"))
        .backend(probed("b", &healthy, DOWN))
        .start();
    expect_only(&stage, &["a", "b"]);
    healthy.set(false);
    expect_only(&stage, &["a"]);
    let (_, traffic) = received(&stage, 1);
    for _ in 0..20 {
        stage.get("/").expect(200, "a");
    }
    assert_eq!(received(&stage, 1).1, traffic, "it gets no traffic");
    let (before, _) = received(&stage, 1);
    healthy.set(true);
    expect_only(&stage, &["a", "b"]);
    // A probe in flight when the switch was set may have been the last bad one.
    let (after, _) = received(&stage, 1);
    assert!(after >= before + 3, "it came back after {} probes", after - before);
}

fn a_body_without_the_text_is_a_failure(driver: Driver, slower: u32) {
    let healthy = Switch::new(false);
    let other = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot ready";
    let stage = Stage::on(driver)
        .pool(&quick(slower, ", body = \"all is well\""))
        .backend(probed("a", &Switch::new(true), ""))
        .backend(probed("b", &healthy, other))
        .start();
    expect_only(&stage, &["a"]);
    healthy.set(true);
    expect_only(&stage, &["a", "b"]);
}

fn a_probe_that_hangs_is_a_failure_and_never_two_at_once(driver: Driver, slower: u32) {
    let most = Arc::new(AtomicUsize::new(0));
    let (at_once, seen) = (AtomicUsize::new(0), Arc::clone(&most));
    let hangs = plays(move |visit| {
        loop {
            let request = visit.request()?;
            if request.target() == "/health" {
                seen.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                let end = visit.drain();
                at_once.fetch_sub(1, SeqCst);
                return end;
            }
            visit.send(ok("b"))?;
        }
    });
    // The backend, too, must notice that the probe has left before the next one comes.
    let [interval, timeout] = [300, 50].map(|of| ms(Duration::from_millis(of) * slower));
    let health = format!("health = {{ interval = {interval}, timeout = {timeout} }}");
    let stage = Stage::on(driver).pool(&health).backend(answers("a")).backend(hangs).start();
    expect_only(&stage, &["a"]);
    eventually("more probes", || received(&stage, 1).0, |probes| *probes >= 4);
    assert_eq!(most.load(SeqCst), 1);
}

fn a_backend_that_accepts_passes_a_tcp_probe(driver: Driver, slower: u32) {
    // Two ports of one host, and a host where nothing else takes the other meanwhile.
    let probed = free();
    let listener = TcpListener::bind(probed).unwrap();
    let health = quick(slower, &format!(", type = \"tcp\", port = {}", probed.port()));
    let asked = Backend::open_on(probed.ip(), answers("a"));
    let stage = Stage::on(driver).pool(&health).written(asked.address().to_string()).start();
    stage.get("/").expect(200, "a");
    drop(listener);
    eventually("it is down", || stage.get("/").status, |status| *status == 503);
    let _again = TcpListener::bind(probed).unwrap();
    eventually("it is up", || stage.get("/").status, |status| *status == 200);
}

fn another_port_may_be_probed(driver: Driver, slower: u32) {
    let healthy = Switch::new(false);
    let elsewhere = Backend::open(probed("", &healthy, DOWN));
    let port = elsewhere.address().port();
    let health = quick(slower, &format!(", port = {port}, host = \"app.test\""));
    let stage = Stage::on(driver).pool(&health).backend(answers("a")).start();
    eventually("it is down", || stage.get("/").status, |status| *status == 503);
    healthy.set(true);
    eventually("it is up", || stage.get("/").status, |status| *status == 200);
    let probes = elsewhere.requests();
    assert!(probes.iter().all(|probe| probe.field("host") == Some("app.test")));
    assert_eq!(received(&stage, 0).0, 0, "its own port is not probed");
}

fn all_backends_down_is_no_backend(driver: Driver, slower: u32) {
    let healthy = Switch::new(true);
    let stage = Stage::on(driver)
        .pool(&http(slower))
        .backend(probed("a", &healthy, DOWN))
        .backend(probed("b", &healthy, DOWN))
        .start();
    expect_only(&stage, &["a", "b"]);
    healthy.set(false);
    let last = eventually("none is left", || stage.get("/"), |answer| answer.status == 503);
    last.expect_fault(503, "no_backend");
    healthy.set(true);
    eventually("they are back", || stage.get("/").status, |status| *status == 200);
}

fn probes_are_counted_nowhere(driver: Driver, slower: u32) {
    let stage = Stage::on(driver)
        .pool(&http(slower))
        .backend(probed("a", &Switch::new(true), DOWN))
        .backend(probed("b", &Switch::new(false), DOWN))
        .start();
    eventually("probes", || received(&stage, 1).0.min(received(&stage, 0).0), |count| *count >= 5);
    for name in [
        "requests_total",
        "connections_accepted_total",
        "backend_connections_opened_total",
        "backend_connect_failures_total",
        "backend_in_flight",
        "retries_total",
        "refused_total",
    ] {
        assert_eq!(stage.count(name), 0, "{name}");
    }
    // One may be in flight.
    let counts = || (stage.backend(0).visits(), stage.backend(0).requests().len());
    eventually("each has a connection of its own", counts, |(visits, probes)| visits == probes);
    let probes = stage.backend(0).requests();
    assert!(probes.iter().all(|probe| probe.head.lists("connection", "close")));
}

/// Many backends in one thread: each answers one request on each connection.
struct Crowd {
    addresses: Vec<SocketAddr>,
    probes: Arc<Vec<AtomicUsize>>,
    ending: Switch,
    serving: Option<JoinHandle<()>>,
}

impl Crowd {
    fn open(count: usize) -> Crowd {
        // Away from the ports of other plays.
        let any = SocketAddr::from(([127, 2, 0, 1], 0));
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind(any).unwrap()).collect();
        let addresses = listeners.iter().map(|one| one.local_addr().unwrap()).collect();
        let probes: Arc<Vec<_>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
        let ending = Switch::new(false);
        let (counted, end) = (Arc::clone(&probes), ending.clone());
        let serving = std::thread::spawn(move || {
            listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
            while !end.is_on() {
                for (listener, count) in listeners.iter().zip(&*counted) {
                    match listener.accept() {
                        Ok((mut stream, _)) => {
                            stream.set_nonblocking(false).unwrap();
                            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                            let mut request = [0; 1024];
                            let _ = stream.read(&mut request);
                            let _ = stream.write_all(ok("").as_bytes());
                            count.fetch_add(1, SeqCst);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Crowd { addresses, probes, ending, serving: Some(serving) }
    }

    /// The fewest and the most probes that a backend got.
    fn probes(&self) -> (usize, usize) {
        let counts = || self.probes.iter().map(|count| count.load(SeqCst));
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ending.set(true);
        self.serving.take().map(JoinHandle::join);
    }
}

fn three_hundred_backends_are_probed_by_one_thread(driver: Driver, slower: u32) {
    let crowd = Crowd::open(300);
    let beat = ms(Duration::from_secs(1) * slower);
    let health = format!("health = {{ interval = {beat}, timeout = {beat} }}");
    let mut setting = Stage::on(driver).pool(&health);
    for address in &crowd.addresses {
        setting = setting.written(address.to_string());
    }
    let stage = setting.start();
    let (least, most) = eventually("all are probed", || crowd.probes(), |probes| probes.0 >= 3);
    assert!(most <= least + 2, "some are probed {most} times while others are {least} times");
    assert_eq!(stage.get("/").status, 200, "and all are up");
}

/// Probes of all pools used to share one queue, behind three hundred that took a second each.
fn silent_backends_delay_nobodys_probes_but_their_own(driver: Driver, slower: u32) {
    // A socket that listens and accepts nothing is silent.
    let any = SocketAddr::from(([127, 2, 0, 1], 0));
    let silent: Vec<_> = (0..300).map(|_| TcpListener::bind(any).unwrap()).collect();
    let list: Vec<String> =
        silent.iter().map(|one| format!("\"{}\"", one.local_addr().unwrap())).collect();
    let beat = ms(Duration::from_secs(1) * slower);
    let healthy = Switch::new(true);
    let stage = Stage::on(driver)
        .pool(&http(slower))
        .backend(probed("a", &healthy, DOWN))
        .sections(&format!(
            "[pool.silent]\nbackends = [{}]\nhealth = {{ interval = {beat}, timeout = {beat} }}\n",
            list.join(", ")
        ))
        .start();
    let most = Duration::from_millis(1_200) * slower;
    // By now as many as allowed are in flight.
    std::thread::sleep(Duration::from_millis(1_200) * slower);
    for (is_on, status) in [(false, 503), (true, 200), (false, 503)] {
        let watch = Watch::start();
        healthy.set(is_on);
        eventually("it is noticed", || stage.get("/").status, |seen| *seen == status);
        watch.took().expect_at_most(most);
    }
}
