//! Plays of the operational log on stderr, as text and as JSON.
//!
//! The binary runs as a process of its own, since the log belongs to the process and not to the
//! library. The first line is text for people, whatever the format of the rest.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;

use crate::{
    addresses::free,
    client::{Client, get},
    instance::{folder_of, keeps_to},
    pace::ms,
    stage::{Driver, eventually, settled},
};

on_both_drivers!(
    the_first_line_is_text_and_the_rest_as_asked,
    what_happens_is_told_after_the_first_line,
    a_backend_that_goes_and_returns_is_told_of_once_each,
    who_is_left_out_for_its_failures_is_told_of_once_each,
    a_limit_that_is_hit_is_told_of_once_a_second,
    a_process_without_descriptors_says_so_once_a_second,
    what_we_are_short_of_is_no_backends_fault,
    logs_are_reopened_on_usr1,
    who_cannot_say_anything_serves,
    a_log_that_may_grow_no_further_ends_in_a_whole_line,
    tries_that_fail_are_told_of_where_the_log_is_to_say_that_much,
    ; at a pace:
    what_probes_find_is_told_of_once_each,
    probes_that_begin_late_are_told_of,
);

/// A running binary, and its output so far.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    config: PathBuf,
    told: Arc<Mutex<Vec<String>>>,
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts with these lines of the listener, a backend at this address, and this format.
    #[track_caller]
    fn start(driver: Driver, listener: &str, backend: SocketAddr, format: &str) -> Process {
        Process::with_pool(driver, listener, &one(backend), format)
    }

    /// Like `start`, with these lines of the pool.
    #[track_caller]
    pub(crate) fn with_pool(driver: Driver, listener: &str, pool: &str, format: &str) -> Process {
        let mut process = Process::spawn(driver, listener, pool, format, Stdio::piped());
        let lines = BufReader::new(process.child.stderr.take().unwrap()).lines();
        let told = Arc::clone(&process.told);
        process.listening = Some(std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| told.lock().unwrap().push(line));
        }));
        process.expect("listener \\\"web\\\" on ", "listener \"web\" on ");
        process
    }

    /// Like `with_pool`, with this stderr; not waited for.
    fn spawn(driver: Driver, listener: &str, pool: &str, format: &str, stderr: Stdio) -> Process {
        let address = free();
        let config = own_file("toml");
        let text = format!(
            "[listener.web]\nbind = \"{address}\"\npool = \"app\"\n{listener}\n\
             [pool.app]\n{pool}\n"
        );
        std::fs::write(&config, text).unwrap();
        let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
        let child = keeps_to(&mut Command::new(env!("CARGO_BIN_EXE_ringway")), &folder_of(&config))
            .env("RINGWAY_ADMIN", "off")
            .args(["run", "--driver", driver, "--cores", "2", "--no-pin", "--log-format", format])
            .arg("-c")
            .arg(&config)
            .env_remove("JOURNAL_STREAM")
            .stderr(stderr)
            .spawn()
            .unwrap();
        Process { child, address, config, told: Arc::default(), listening: None }
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Waits for a line with one of these.
    #[track_caller]
    fn expect(&self, one: &str, other: &str) {
        let is_told = |lines: &Vec<String>| {
            lines.iter().any(|line| line.contains(one) || line.contains(other))
        };
        eventually(other, || self.told(), is_told);
    }

    /// The lowest free descriptor number.
    pub(crate) fn first_free(&self) -> u64 {
        let pid = self.child.id();
        let open =
            |number: &u64| std::path::Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
        (0..).find(|number| !open(number)).unwrap()
    }

    /// The numbers of its open descriptors.
    pub(crate) fn open(&self) -> Vec<u64> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let names = folder.flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).collect()
    }

    /// Its own memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let all = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()));
        let all = all.unwrap();
        let own = all.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        own.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// How many of its descriptors are ends of pipes.
    pub(crate) fn pipes(&self) -> usize {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let targets = folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|to| to.to_string_lossy().starts_with("pipe:")).count()
    }

    /// From now on its descriptors are below this number.
    pub(crate) fn may_open(&self, below: u64) {
        let pid = Some(Pid::from_child(&self.child));
        // The hard limit is the one that it inherited from us.
        let limit = Rlimit { current: Some(below), ..getrlimit(Resource::Nofile) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// It stands still while this is done.
    pub(crate) fn standing<T>(&self, act: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        let state = || std::fs::read_to_string(&stat).unwrap();
        eventually("it stands", state, |state| state.contains(") T "));
        let done = act();
        self.signal(Signal::CONT);
        done
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it and returns its whole output.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.signal(Signal::INT);
        eventually("the process ends", || self.child.try_wait().unwrap(), Option::is_some);
        self.listening.take().unwrap().join().unwrap();
        self.told()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
        let _ = std::fs::remove_dir_all(folder_of(&self.config));
    }
}

/// A file that no other play writes.
fn own_file(extension: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    std::env::temp_dir().join(format!("ringway-told-{}-{number}.{extension}", std::process::id()))
}

/// The lines of a pool with one backend.
fn one(backend: SocketAddr) -> String {
    format!("backends = [\"{backend}\"]")
}

/// Counts the lines that say this.
fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

fn the_first_line_is_text_and_the_rest_as_asked(driver: Driver) {
    for format in ["text", "json"] {
        let process = Process::start(driver, "", free(), format);
        let mut client = Client::connect(process.address);
        client.send(get("/")).response().expect_fault(502, "connect_failed");
        drop(client);
        let lines = process.end();
        assert!(lines[0].starts_with("ringway 0."), "{lines:#?}");
        assert!(lines[0].ends_with("1 listener, 0 routes, 1 pool (1/1 backends up), admin off"));
        let stopped = lines.last().unwrap();
        assert!(stopped.contains("stopped: all finished"), "{lines:#?}");
        if format == "text" {
            assert!(stopped.contains(" INFO ") && stopped.contains(" requests_total=1 "));
            assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:#?}");
            continue;
        }
        let objects: Vec<Value> =
            lines[1..].iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!((&objects[0]["message"], &objects[0]["cores"]), (&"started".into(), &2.into()));
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert!(objects.iter().all(|line| line["instance"] == machine.as_str()), "{lines:#?}");
        let last = objects.last().unwrap();
        assert_eq!((&last["requests_total"], &last["level"]), (&1.into(), &"INFO".into()));
    }
}

fn what_happens_is_told_after_the_first_line(driver: Driver) {
    // Of so many that are down some are found down before all cores serve.
    let backends: Vec<String> = (1..=200).map(|host| format!("\"127.9.9.{host}:9\"")).collect();
    let pool = format!(
        "backends = [{}]\nhealth = {{ interval = \"10ms\", timeout = \"10ms\" }}",
        backends.join(", ")
    );
    let process = Process::with_pool(driver, "", &pool, "text");
    process.expect("backend_down", "backend_down");
    let lines = process.end();
    assert!(lines[0].starts_with("ringway 0."), "{lines:#?}");
}

fn a_backend_that_goes_and_returns_is_told_of_once_each(driver: Driver) {
    for format in ["text", "json"] {
        let backend = free();
        let process = Process::start(driver, "", backend, format);
        let ask = || {
            let mut client = Client::connect(process.address);
            client.send(get("/"));
            client
        };
        for _ in 0..20 {
            ask().response().expect_fault(502, "connect_failed");
        }
        process.expect("backend_unreachable", "backend_unreachable");
        let returned = TcpListener::bind(backend).unwrap();
        // Whichever core makes the connection, each has its own; the backend does not answer.
        let waiting: Vec<Client> = (0..8).map(|_| ask()).collect();
        process.expect("backend_reachable", "backend_reachable");
        drop((waiting, returned));
        let lines = process.end();
        let who = match format {
            "text" => format!("pool=\"app\" backend=\"{backend}\""),
            _ => format!("\"pool\":\"app\",\"backend\":\"{backend}\""),
        };
        for event in ["backend unreachable", "backend reachable again"] {
            let told: Vec<_> = lines.iter().filter(|line| line.contains(event)).collect();
            assert!(told.len() == 1 && told[0].contains(&who), "{lines:#?}");
        }
        assert_eq!(count(&lines, "connect_failed"), 1, "{lines:#?}");
    }
}

/// A backend that answers every request, until this is dropped.
struct Answers(Option<(Arc<AtomicBool>, JoinHandle<()>)>, SocketAddr);

impl Answers {
    fn on(address: SocketAddr) -> Answers {
        let listener = TcpListener::bind(address).unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let serving = std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.read(&mut [0; 4096]);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Answers(Some((ending, serving)), address)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some((ending, serving)) = self.0.take() {
            ending.store(true, Ordering::SeqCst);
            let _ = TcpStream::connect(self.1);
            let _ = serving.join();
        }
    }
}

fn what_probes_find_is_told_of_once_each(driver: Driver, slower: u32) {
    for format in ["text", "json"] {
        let backend = free();
        let beat = ms(Duration::from_millis(50) * slower);
        let health = format!("{{ interval = {beat}, timeout = {beat} }}");
        let pool = format!("backends = [\"{backend}\"]\nhealth = {health}");
        let process = Process::with_pool(driver, "", &pool, format);
        process.expect("backend_down", "backend_down");
        for _ in 0..20 {
            let mut client = Client::connect(process.address);
            client.send(get("/")).response().expect_fault(503, "no_backend");
        }
        let answers = Answers::on(backend);
        process.expect("backend_up", "backend_up");
        drop(answers);
        let is_down = |lines: &Vec<String>| count(lines, "backend_down") == 2;
        eventually("it is down again", || process.told(), is_down);
        let lines = process.end();
        assert!(lines[0].contains("(1/1 backends up)"), "{lines:#?}");
        assert_eq!(count(&lines, "backend_up"), 1, "{lines:#?}");
        assert_eq!(count(&lines, "reachable"), 0, "nothing is said twice: {lines:#?}");
        let down = lines.iter().find(|line| line.contains("backend_down")).unwrap();
        if format == "text" {
            let expected = format!(
                " WARN backend down event=\"backend_down\" pool=\"app\" backend=\"{backend}\" \
                 cause=\"refused\" lasted_ms="
            );
            assert!(down.contains(&expected), "{down}");
            continue;
        }
        let down: Value = serde_json::from_str(down).unwrap();
        assert_eq!((&down["event"], &down["cause"]), (&"backend_down".into(), &"refused".into()));
        assert_eq!((&down["pool"], &down["level"]), (&"app".into(), &"WARN".into()));
        assert!(down["lasted_ms"].is_u64() && down["backend"] == backend.to_string(), "{down}");
    }
}

/// Two hundred backends that do not answer want three times the slots that their pool has.
fn probes_that_begin_late_are_told_of(driver: Driver, slower: u32) {
    let any = SocketAddr::from(([127, 2, 0, 1], 0));
    let silent: Vec<_> = (0..200).map(|_| TcpListener::bind(any).unwrap()).collect();
    let list: Vec<String> =
        silent.iter().map(|one| format!("\"{}\"", one.local_addr().unwrap())).collect();
    let beat = ms(Duration::from_secs(1) * slower);
    let pool = format!(
        "backends = [{}]\nhealth = {{ interval = {beat}, timeout = {beat} }}",
        list.join(", ")
    );
    let process = Process::with_pool(driver, "", &pool, "json");
    process.expect("\"event\":\"probes_late\"", "probes_late");
    let told = process.end();
    assert_eq!(count(&told, "probes_late"), 1, "once a minute");
}

fn who_is_left_out_for_its_failures_is_told_of_once_each(driver: Driver) {
    let (good, bad) = (free(), free());
    let _answers = Answers::on(good);
    let pool = format!(
        "backends = [\"{good}\", \"{bad}\"]\npassive = {{ max-failures = 3, eject = \"300ms\" }}"
    );
    let process = Process::with_pool(driver, "", &pool, "text");
    let ask_until = |word: &str| {
        let ask = || {
            let mut client = Client::connect(process.address);
            assert_eq!(client.send(get("/")).response().status, 200);
            process.told()
        };
        eventually(word, ask, |lines| count(lines, word) > 0);
    };
    ask_until("backend_ejected");
    let returned = Answers::on(bad);
    ask_until("backend_readmitted");
    let lines = process.end();
    drop(returned);
    assert_eq!(count(&lines, "reachable"), 0, "nothing is said twice: {lines:#?}");
    assert_eq!(count(&lines, "backend_readmitted"), 1, "{lines:#?}");
    let ejected = lines.iter().find(|line| line.contains("backend_ejected")).unwrap();
    assert!(ejected.contains(&format!(
        "backend=\"{bad}\" cause=\"3 failures in a row, the last: connect_failed\""
    )));
}

fn a_limit_that_is_hit_is_told_of_once_a_second(driver: Driver) {
    let since = Instant::now();
    let process = Process::start(driver, "max-connections = 1", free(), "json");
    let mut busy = Client::connect(process.address);
    // Its answer says that it was let in.
    busy.get("/");
    busy.send("GET / HTTP/1.1\r\nHo");
    let refused = |count: u64| {
        for _ in 0..count {
            Client::connect(process.address).response().expect_fault(503, "overloaded");
        }
    };
    let limit = "connection limit reached";
    refused(20);
    process.expect(limit, limit);
    let twice = |lines: &Vec<String>| count(lines, limit) > 1;
    let again = || {
        refused(1);
        process.told()
    };
    eventually("it is told of again", again, twice);
    drop(busy);
    let lines = process.end();
    let told: Vec<Value> = lines
        .iter()
        .filter(|line| line.contains(limit))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert!(told.len() as u64 <= most_in(since.elapsed()), "{lines:#?}");
    assert!(told[0]["refused_total"].as_u64() > Some(0), "{lines:#?}");
    assert!(told[1]["refused_total"].as_u64() > told[0]["refused_total"].as_u64());
}

fn a_process_without_descriptors_says_so_once_a_second(driver: Driver) {
    let since = Instant::now();
    let process = Process::start(driver, "", free(), "text");
    process.may_open(process.first_free());
    // More than are refused in the time that a process has to end.
    let turned_away: Vec<_> = (0..60).map(|_| TcpStream::connect(process.address)).collect();
    process.expect("descriptors used up", "descriptors used up");
    drop(turned_away);
    let lines = process.end();
    let told = count(&lines, "descriptors used up") as u64;
    assert!((1..=most_in(since.elapsed())).contains(&told), "{lines:#?}");
}

fn what_we_are_short_of_is_no_backends_fault(driver: Driver) {
    let backend = free();
    let _answers = Answers::on(backend);
    let process = Process::start(driver, "", backend, "text");
    let mut client = Client::connect(process.address);
    let mut ask = || client.send(get("/")).response();
    assert_eq!(ask().status, 200);
    // Once the connection to the backend is closed, which may come after the answer.
    let before = settled(|| process.first_free());
    process.may_open(before);
    for _ in 0..5 {
        ask().expect_fault(503, "overloaded");
    }
    process.expect("outgoing_limit", "outgoing_limit");
    process.may_open(before + 64);
    assert_eq!(ask().status, 200);
    let lines = process.end();
    assert_eq!(count(&lines, "unreachable") + count(&lines, "ejected"), 0, "{lines:#?}");
}

/// How often a message that is limited to once a second may come in this time.
fn most_in(time: Duration) -> u64 {
    time.as_secs() + 2
}

fn logs_are_reopened_on_usr1(driver: Driver) {
    let process = Process::start(driver, "", free(), "text");
    process.signal(Signal::USR1);
    process.expect("there is no access log to reopen", "there is no access log to reopen");
    drop(process);
    let log = own_file("log");
    let listener = format!("access-log = {{ path = \"{}\" }}", log.display());
    let process = Process::start(driver, &listener, free(), "text");
    std::fs::remove_file(&log).unwrap();
    process.signal(Signal::USR1);
    process.expect("reopening access logs", "reopening access logs");
    eventually("the file is there", || log.exists(), |exists| *exists);
    process.end();
    std::fs::remove_file(&log).unwrap();
}

/// The reader of stderr is gone, or its disk is full.
fn who_cannot_say_anything_serves(driver: Driver) {
    for format in ["text", "json"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut process = Process::spawn(driver, "", &one(free()), format, full.into());
        let connect = || TcpStream::connect(process.address).ok();
        let stream = eventually("the process listens", connect, Option::is_some).unwrap();
        let mut client = Client::over(stream);
        client.get("/").expect_fault(502, "connect_failed");
        process.signal(Signal::USR1);
        client.get("/").expect_fault(502, "connect_failed");
        process.signal(Signal::INT);
        let ended = || process.child.try_wait().unwrap();
        let status = eventually("the process ends", ended, Option::is_some).unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

/// As on a full disk, but for this process alone.
fn a_log_that_may_grow_no_further_ends_in_a_whole_line(driver: Driver) {
    const ROOM: u64 = 4_000;
    let log = own_file("log");
    let listener = format!("access-log = {{ path = \"{}\" }}", log.display());
    let process = Process::start(driver, &listener, free(), "text");
    let pid = Some(Pid::from_child(&process.child));
    let may_grow_to = |most| {
        let maximum = prlimit(pid, Resource::Fsize, Rlimit { current: most, maximum: None });
        maximum.unwrap();
    };
    may_grow_to(Some(ROOM));
    let mut client = Client::connect(process.address);
    for _ in 0..40 {
        client.send(get("/")).response().expect_fault(502, "connect_failed");
    }
    process.expect("counted and dropped", "counted and dropped");
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    assert!((1..40).contains(&lines().len()));

    may_grow_to(None);
    client.send(get("/")).response().expect_fault(502, "connect_failed");
    process.expect("can be written again", "can be written again");
    process.end();
    let lines = lines();
    let notes: Vec<u64> = lines.iter().filter_map(|line| line["dropped"].as_u64()).collect();
    let told = (lines.len() - notes.len()) as u64 + notes.iter().sum::<u64>();
    assert!(!notes.is_empty() && told == 41, "{lines:#?}");
    std::fs::remove_file(&log).unwrap();
}

fn tries_that_fail_are_told_of_where_the_log_is_to_say_that_much(driver: Driver) {
    for (level, expected) in [("debug", 1), ("info", 0)] {
        let global = format!("[global]\nlog = {{ level = \"{level}\" }}");
        let process = Process::start(driver, &global, free(), "json");
        Client::connect(process.address).get("/").expect_fault(502, "connect_failed");
        let lines = process.end();
        let tries: Vec<Value> = lines
            .iter()
            .filter(|line| line.contains("attempt failed"))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(tries.len(), expected, "{level}: {lines:#?}");
        for told in tries {
            let field = |name: &str| told[name].clone();
            assert_eq!(field("phase"), "connect");
            assert_eq!(field("code"), "connect_failed");
            assert_eq!(
                (field("asked_again"), field("refusal")),
                (false.into(), "none_left".into())
            );
            assert_eq!(field("request_id").as_str().unwrap().len(), 26);
        }
    }
}
