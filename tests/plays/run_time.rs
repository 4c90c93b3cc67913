//! Plays of backends that are added, set and removed while the process runs, over its admin
//! interface.
//!
//! Clients send requests without a pause meanwhile, each on a connection that must last: none of
//! them may see that anything changes.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    addresses,
    backend::{Backend, Cue, Script},
    client::{Client, Response, get},
    instance::keeps_to,
    pace::Watch,
    scripts::{answers, answers_each, answers_on, ok},
    stage::{Driver, eventually},
};

on_both_drivers!(
    no_request_fails_while_backends_come_and_go,
    a_drain_ends_with_the_last_request,
    a_new_backend_is_asked_after_its_first_good_probe,
    maintenance_ends_like_a_start,
    one_backend_more_moves_few_keys,
    an_order_that_fits_no_plan_changes_nothing,
    a_change_is_in_force_on_every_core_within_100_ms,
);

/// A process with a pool `app`, its admin interface, and the folder of its files.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    driver: Driver,
}

impl Running {
    /// With these keys of the pool.
    pub(crate) fn start(driver: Driver, pool: &str) -> Running {
        Running::start_within(driver, pool, "")
    }

    /// The same after these commands of a shell, which may set limits; the program is started by
    /// `around`, if they set that.
    pub(crate) fn start_within(driver: Driver, pool: &str, first: &str) -> Running {
        let (address, admin) = (addresses::free(), addresses::free());
        let name = format!("ringway-run-time-{}-{}", std::process::id(), address.port());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        write(&folder, (address, admin), pool, "");
        let child = spawn(&folder, driver, first);
        let running = Running { child, folder, address, admin, driver };
        running.serves();
        running
    }

    fn serves(&self) {
        for address in [self.address, self.admin] {
            let is_there = || std::net::TcpStream::connect(address).is_ok();
            eventually("it serves", is_there, |serves| *serves);
        }
    }

    /// Kills the process and starts it again.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.folder, self.driver, "");
        self.serves();
    }

    /// Writes the file again, with other keys of the pool.
    pub(crate) fn write(&self, pool: &str) {
        self.write_with("", pool);
    }

    /// The same with these keys of the process.
    pub(crate) fn write_with(&self, global: &str, pool: &str) {
        write(&self.folder, (self.address, self.admin), pool, global);
    }

    /// A command for the process.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(arguments).arg("-c").arg(self.folder.join("r.toml"));
        keeps_to(&mut command, &self.folder);
        command
    }

    /// A call of the admin interface, for a path below that of the pool.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Response {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} /api/v1/pools/app{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.admin,
            body.len()
        );
        Client::connect(self.admin).send(head + &body).response_to(method)
    }

    #[track_caller]
    pub(crate) fn calls(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let response = self.call(method, path, body);
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        serde_json::from_str(response.text()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn add(&self, backend: &Backend) -> Value {
        self.calls("POST", "/backends", &json!({ "address": backend.address().to_string() }), 201)
    }

    #[track_caller]
    pub(crate) fn set(&self, backend: &Backend, what: &Value) -> Value {
        self.calls("PATCH", &path(backend), what, 200)
    }

    pub(crate) fn state_of(&self, backend: &Backend) -> (u16, String) {
        let response = self.call("GET", &path(backend), &Value::Null);
        let view: Value = serde_json::from_str(response.text()).unwrap_or_default();
        (response.status, view["state"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// The bodies of so many answers.
    pub(crate) fn ask(&self, count: usize) -> Vec<String> {
        let mut client = Client::connect(self.address);
        (0..count).map(|_| client.send(get("/")).response().text().to_owned()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write(folder: &Path, (address, admin): (SocketAddr, SocketAddr), pool: &str, global: &str) {
    let state = folder.join("state");
    let text = format!(
        "[global]\nadmin = \"{admin}\"\nstate-dir = \"{}\"\n{global}\n\
         [listener.web]\nbind = \"{address}\"\npool = \"app\"\n[pool.app]\n{pool}\n",
        state.display()
    );
    fs::write(folder.join("r.toml"), text).unwrap();
}

fn spawn(folder: &Path, driver: Driver, first: &str) -> Child {
    let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
    let mut command = Command::new("sh");
    command.env_remove("around");
    let run =
        format!("{first}\nexec $around \"$0\" run --driver {driver} --cores 2 --no-pin -c \"$1\"");
    command.args(["-c", &run, env!("CARGO_BIN_EXE_ringway")]).arg(folder.join("r.toml"));
    keeps_to(&mut command, folder).stdout(Stdio::null());
    if first.is_empty() {
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        command.stderr(log);
    } else {
        // A limit of files would be one of the log.
        command.stderr(Stdio::null());
    }
    command.spawn().unwrap()
}

pub(crate) fn path(backend: &Backend) -> String {
    format!("/backends/{}", backend.address().to_string().replace(':', "%3A"))
}

pub(crate) fn list(backends: &[Backend]) -> String {
    let each = backends.iter().map(|it| format!("\"{}\"", it.address()));
    format!("backends = [{}]", each.collect::<Vec<_>>().join(", "))
}

fn no_request_fails_while_backends_come_and_go(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends[..2]));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asks = || {
            let (mut client, mut count) = (Client::connect(running.address), 0);
            while !over.load(SeqCst) {
                let response = client.send(get("/")).response();
                assert_eq!(response.status, 200, "{response:?}");
                count += 1;
            }
            count
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(asks)).collect();
        let orders = scope.spawn(|| {
            let _ends = Ends(&over);
            let [a, b, c] = &backends;
            for round in 0..8 {
                let added = running.add(c);
                assert_eq!((&added["state"], &added["origin"]), (&json!("up"), &json!("run-time")));
                assert!(running.ask(60).contains(&"c".to_owned()), "every core knows it");
                running.set(c, &json!({ "weight": 5 }));
                running.set(a, &json!({ "state": "draining" }));
                assert!(!running.ask(20).contains(&"a".to_owned()), "it takes no new traffic");
                running.set(b, &json!({ "state": "maintenance" }));
                assert_eq!(running.ask(20), vec!["c"; 20]);
                running.set(b, &json!({ "state": "up" }));
                running.set(a, &json!({ "state": "up" }));
                let drain = format!("{}?drain=20s", path(c));
                let drain = if round % 2 == 0 { path(c) } else { drain };
                let gone = running.call("DELETE", &drain, &Value::Null).status;
                assert!(gone == 204 || gone == 202, "{gone}");
                eventually("it is gone", || running.state_of(c).0, |status| *status == 404);
                assert!(!running.ask(20).contains(&"c".to_owned()), "it is removed");
            }
        });
        orders.join().unwrap();
        let answers: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
    let log = running.log();
    for words in ["backend added", "backend set", "backend removed", "admin", "127.0.0.1:"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn a_drain_ends_with_the_last_request(driver: Driver) {
    let cue = Cue::default();
    let slow = Backend::open(answers_on(&cue, "slow"));
    let backends = [Backend::open(answers("a"))];
    let running = Running::start(driver, &list(&backends));
    running.add(&slow);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(running.address)).collect();
    // One of two goes there.
    clients.iter_mut().for_each(|client| _ = client.send(get("/")));
    eventually("it is asked", || slow.heads().len(), |count| *count == 1);
    let drain = format!("{}?drain=60s", path(&slow));
    let view = running.calls("DELETE", &drain, &Value::Null, 202);
    assert_eq!((&view["state"], &view["activeConnections"]), (&json!("draining"), &json!(1)));
    assert_eq!(running.ask(10), vec!["a"; 10]);
    assert_eq!(running.state_of(&slow), (200, "draining".to_owned()));
    cue.give();
    let mut texts: Vec<_> =
        clients.iter_mut().map(|client| client.response().text().to_owned()).collect();
    texts.sort();
    assert_eq!(texts, ["a", "slow"]);
    eventually("it is gone", || running.state_of(&slow).0, |status| *status == 404);
    // One that does not end goes when its time is over, and its request goes on.
    let endless = Cue::default();
    let slow = Backend::open(answers_on(&endless, "slow"));
    running.add(&slow);
    clients.iter_mut().for_each(|client| _ = client.send(get("/")));
    eventually("it is asked", || slow.heads().len(), |count| *count == 1);
    running.calls("DELETE", &format!("{}?drain=100ms", path(&slow)), &Value::Null, 202);
    eventually("it is gone", || running.state_of(&slow).0, |status| *status == 404);
    endless.give();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
}

/// Answers probes of `/health` with this status, and everything else with this text.
fn probed(status: &'static str, text: &'static str) -> Script {
    answers_each(move |request| match request.target() {
        "/health" => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
        _ => ok(text).into_bytes(),
    })
}

const PROBES: &str = "health = { path = \"/health\", interval = \"30s\", fall = 1, rise = 3 }";

fn a_new_backend_is_asked_after_its_first_good_probe(driver: Driver) {
    let backends = [Backend::open(probed("200 OK", "a"))];
    let running = Running::start(driver, &format!("{}\n{PROBES}", list(&backends)));
    let (ill, well) =
        (Backend::open(probed("500 No", "ill")), Backend::open(probed("200 OK", "b")));
    assert_eq!(running.add(&ill)["state"], "down");
    eventually("it is probed at once", || ill.heads().len(), |count| *count > 0);
    running.add(&well);
    eventually("it is asked", || running.ask(8).contains(&"b".to_owned()), |asked| *asked);
    assert_eq!(running.state_of(&well), (200, "up".to_owned()));
    assert!(!running.ask(20).contains(&"ill".to_owned()));
    assert_eq!(running.state_of(&ill), (200, "down".to_owned()));
}

fn maintenance_ends_like_a_start(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(probed("200 OK", name)));
    let running = Running::start(driver, &format!("{}\n{PROBES}", list(&backends)));
    let [a, b] = &backends;
    eventually("it is probed", || b.heads().len(), |count| *count > 0);
    assert_eq!(running.set(b, &json!({ "state": "maintenance" }))["state"], "maintenance");
    let before = b.heads().len();
    assert_eq!(running.ask(20), vec!["a"; 20]);
    running.set(b, &json!({ "state": "up" }));
    eventually("it is probed at once", || b.heads().len(), |count| *count > before);
    eventually("it is asked", || running.ask(8).contains(&"b".to_owned()), |asked| *asked);
    assert_eq!(running.state_of(a), (200, "up".to_owned()));
}

fn one_backend_more_moves_few_keys(driver: Driver) {
    let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "new"];
    let backends = names.map(|name| Backend::open(answers(name)));
    let keys = format!("{}\nbalance = {{ hash = \"uri\" }}", list(&backends[..10]));
    let running = Running::start(driver, &keys);
    let owners = || -> Vec<String> {
        let mut client = Client::connect(running.address);
        let mut owner = |key| client.send(get(&format!("/{key}"))).response().text().to_owned();
        (0..2_000).map(&mut owner).collect()
    };
    let before = owners();
    running.add(&backends[10]);
    let after = owners();
    let moved: Vec<_> =
        before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    let strays = moved.iter().filter(|(_, after)| *after != "new").count();
    // A share of one in eleven, and at most what a hash of 2,000 keys is off by.
    assert!((120..=220).contains(&moved.len()), "{} of 2,000 moved", moved.len());
    assert!(strays <= 40, "{strays} moved to others");
    running.calls("DELETE", &path(&backends[10]), &Value::Null, 204);
    assert_eq!(owners(), before);
}

fn an_order_that_fits_no_plan_changes_nothing(driver: Driver) {
    let backends = [Backend::open(answers("a"))];
    let running = Running::start(driver, &list(&backends));
    let generation = || {
        let response = running.call("GET", "", &Value::Null);
        response.field("etag").unwrap().to_owned()
    };
    let before = generation();
    let here = backends[0].address().to_string();
    for (method, path, body, status) in [
        ("POST", "/backends", json!({ "address": here }), 409),
        ("POST", "/backends", json!({ "address": "10.0.0.1:1", "name": here }), 409),
        ("POST", "/backends", json!({ "address": "10.0.0.1:1", "weight": 300 }), 422),
        ("DELETE", &*path(&backends[0]), Value::Null, 409),
        ("DELETE", "/backends/none", Value::Null, 404),
        ("PATCH", "/backends/none", json!({ "weight": 1 }), 404),
    ] {
        running.calls(method, path, &body, status);
    }
    assert_eq!(generation(), before);
    let set = running.call("PATCH", &path(&backends[0]), &json!({ "weight": 7 }));
    assert_eq!((set.status, set.field("etag").unwrap()), (200, &*generation()));
    assert_ne!(generation(), before);
    assert_eq!(running.ask(1), ["a"]);
}

fn a_change_is_in_force_on_every_core_within_100_ms(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends));
    // Connections to both cores.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(running.address)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    let mut took: Vec<Duration> = Vec::new();
    for round in 0..20 {
        let [on, off] = [round % 2, 1 - round % 2];
        running.set(&backends[on], &json!({ "weight": 1 }));
        let watch = Watch::start();
        running.set(&backends[off], &json!({ "weight": 0 }));
        let now = watch.took();
        took.push(now.time.saturating_sub(now.late));
        let expected = ["a", "b"][on];
        clients.iter_mut().for_each(|client| client.get("/").expect(200, expected));
    }
    // A disk that is busy at the moment of one of them says nothing of the rest.
    took.sort();
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
}
