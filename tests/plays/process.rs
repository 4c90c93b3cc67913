//! Plays of the binary as a process of its own: its memory, its quiet, its signals, its exit code.
//!
//! The binary gets its address in a file, so it must be one that nothing else takes meanwhile.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    addresses::free,
    backend::{Backend, Cue, Script},
    client::{Client, get},
    frames::Http2,
    instance::{folder_of, keeps_to},
    pace::Watch,
    scripts::{answers, answers_each, answers_on, echoes, ok},
    stage::{Driver, eventually, expect_closed, long, settled},
    wire::Framing,
};

on_both_drivers!(
    a_large_body_passes_through_little_memory,
    a_hundred_streams_that_read_nothing_cost_8_mib,
    an_idle_process_makes_next_to_no_system_calls,
    a_process_that_is_told_to_stop_finishes_and_ends_well,
    a_process_that_is_told_twice_ends_at_once,
    a_second_process_on_one_port_ends_with_1,
    a_process_that_stood_still_reads_before_it_closes,
    a_core_that_hangs_does_not_keep_the_process,
    the_table_of_descriptors_has_room_for_all_connections_from_the_start,
    a_reload_that_allows_more_connections_makes_room_for_them,
);

const MEBIBYTE: u64 = 1 << 20;

/// A running binary between a client and one backend.
struct Process {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
    backend: Backend,
}

impl Process {
    fn start(driver: Driver, script: Script) -> Process {
        Process::start_with(driver, script, "")
    }

    /// Like `start`, with further keys of the listener.
    fn start_with(driver: Driver, script: Script, listener: &str) -> Process {
        let address = free();
        let process = Process::spawn_with(driver, script, address, listener);
        let connects = || TcpStream::connect(address).is_ok();
        eventually("the process listens", connects, |connected| *connected);
        process
    }

    fn spawn(driver: Driver, script: Script, address: SocketAddr) -> Process {
        Process::spawn_with(driver, script, address, "")
    }

    fn spawn_with(driver: Driver, script: Script, address: SocketAddr, listener: &str) -> Process {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let backend = Backend::open(script);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("ringway-play-{}-{number}.toml", std::process::id());
        let config = std::env::temp_dir().join(name);
        let origin = backend.address();
        let text = format!(
            "[global]\nshutdown = {{ drain = \"5s\" }}\n\
             [listener.web]\nbind = \"{address}\"\npool = \"app\"\n{listener}\n\
             [pool.app]\nbackends = [\"{origin}\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
        let child = keeps_to(&mut Command::new(env!("CARGO_BIN_EXE_ringway")), &folder_of(&config))
            .env("RINGWAY_ADMIN", "off")
            .args(["run", "--driver", driver, "--cores", "2", "--no-pin", "-c"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child, address, config, backend }
    }

    /// How many system calls it makes in so many seconds, and a table of them.
    fn system_calls(&self, seconds: u64) -> (u64, String) {
        let counts = self.config.with_extension("strace");
        let mut strace = Command::new("strace")
            .args(["-q", "-c", "-f", "-o"])
            .arg(&counts)
            .args(["-p", &self.child.id().to_string()])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
        strace.wait().unwrap();
        let table = std::fs::read_to_string(&counts).unwrap();
        let _ = std::fs::remove_file(&counts);
        // Of each line: share, seconds, microseconds a call, calls, errors if any, name.
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let calls = lines.filter(|words| words.last() != Some(&"total"));
        let calls = calls.filter_map(|words| words.get(3)?.parse::<u64>().ok()).sum();
        (calls, table)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end; returns how it ended and what it printed.
    #[track_caller]
    fn ended(&mut self) -> (ExitStatus, String) {
        let exited =
            eventually("the process ends", || self.child.try_wait().unwrap(), Option::is_some);
        (exited.unwrap(), self.said())
    }

    /// The output on stderr, to its end.
    fn said(&mut self) -> String {
        std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap()
    }

    /// The id of its thread of that name.
    fn thread(&self, name: &str) -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let is_it = |path: &PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let path = tasks.map(|task| task.unwrap().path()).find(is_it)?;
        path.file_name()?.to_str()?.parse().ok()
    }

    /// The most memory that it ever had.
    fn most_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// What the kernel says of its memory by that name.
    fn memory(&self, name: &str) -> u64 {
        self.number("status", name) * 1_024
    }

    /// The first number behind that name in a file of /proc.
    fn number(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It may be about to say why.
            std::thread::sleep(Duration::from_secs(2));
        }
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
        let _ = std::fs::remove_dir_all(folder_of(&self.config));
        if std::thread::panicking() {
            // For people who look into why the play failed.
            let said = self.child.stderr.take().map(std::io::read_to_string);
            eprintln!("the process: {ended:?}, {said:?}");
        }
    }
}

/// 1 GiB in both directions at once; 10 GB at full length.
fn a_large_body_passes_through_little_memory(driver: Driver) {
    let size = if long() { 10_000_000_000 } else { 1_024 * MEBIBYTE };
    let process = Process::start(driver, echoes());
    let mut client = Client::connect(process.address);
    let sending = {
        let mut stream = client.wire().stream().try_clone().unwrap();
        std::thread::spawn(move || {
            let piece = [b'a'; 64 << 10];
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut left = size;
            while left > 0 {
                let here = left.min(piece.len() as u64);
                stream.write_all(&piece[..usize::try_from(here).unwrap()]).unwrap();
                left -= here;
            }
        })
    };
    let head = client.response_head("POST").unwrap();
    assert_eq!(head.framing, Framing::Length(size));
    let mut came = 0;
    client.wire().body_into(head.framing, &mut |piece| came += piece.len() as u64).unwrap();
    assert_eq!(came, size);
    sending.join().unwrap();
    let most = process.most_memory();
    assert!(most < 64 * MEBIBYTE, "{} MiB", most / MEBIBYTE);
}

/// Each has a piece of its answer here and the rest in its backend. A second connection like it
/// costs as much; a hundred more on the same one cost nothing, as they are refused.
fn a_hundred_streams_that_read_nothing_cost_8_mib(driver: Driver) {
    let process = Process::start(driver, answers_each(|_| ok("x".repeat(8 << 20)).into_bytes()));
    let first = Http2::connect(process.address).get("/");
    assert_eq!(first.body.len(), 8 << 20);
    let before = process.memory("VmRSS:");
    let mut client = Http2::connect(process.address);
    client.gives_room = false;
    for _ in 0..100 {
        client.ask("GET /", "", true);
    }
    let asked = || process.backend.requests().len();
    eventually("all are asked", asked, |requests| *requests == 101);
    let after = settled(|| process.memory("VmRSS:"));
    let grown = after.saturating_sub(before);
    assert!(grown < 8 * MEBIBYTE, "{} KiB", grown >> 10);
    assert!(grown > MEBIBYTE, "{} KiB: nothing has come", grown >> 10);
}

/// Whether strace is installed; in CI it must be.
pub(crate) fn has_strace() -> bool {
    let is_there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    assert!(is_there || std::env::var("CI").is_err(), "strace is missing");
    if !is_there {
        eprintln!("skipped: strace is missing");
    }
    is_there
}

fn an_idle_process_makes_next_to_no_system_calls(driver: Driver) {
    const SECONDS: u64 = 3;
    if !has_strace() {
        return;
    }
    let process = Process::start(driver, answers("ok"));
    Client::connect(process.address).get("/").expect(200, "ok");
    // On a late machine it still starts threads when the first client has been served.
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (calls, table) = process.system_calls(SECONDS);
        if calls < 20 * SECONDS {
            return;
        }
        seen.push(table);
    }
    panic!("never fewer than {} system calls in {SECONDS} s:\n{}", 20 * SECONDS, seen.join("\n"));
}

fn a_process_that_is_told_to_stop_finishes_and_ends_well(driver: Driver) {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let cue = Cue::default();
        let mut process = Process::start(driver, answers_on(&cue, "finished"));
        let mut client = Client::connect(process.address);
        client.send(get("/"));
        let asked = || process.backend.requests().len();
        eventually("it is asked", asked, |requests| *requests == 1);
        process.signal(signal);
        expect_closed(process.address);
        cue.give();
        let response = client.response();
        response.expect(200, "finished");
        assert!(response.closes());
        client.expect_end();
        let (status, said) = process.ended();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.starts_with("ringway "), "{said}");
    }
}

fn a_process_that_is_told_twice_ends_at_once(driver: Driver) {
    let mut process = Process::start(driver, crate::scripts::never_answers());
    let mut client = Client::connect(process.address);
    client.send(get("/"));
    let asked = || process.backend.requests().len();
    eventually("it is asked", asked, |requests| *requests == 1);
    process.signal(Signal::TERM);
    expect_closed(process.address);
    // Two signals within 20 ms are one.
    std::thread::sleep(Duration::from_millis(50));
    let watch = Watch::start();
    process.signal(Signal::TERM);
    process.ended();
    watch.took().expect_at_most(Duration::from_secs(2));
}

/// One core hangs in its next system call; the process says so and ends with 1.
fn a_core_that_hangs_does_not_keep_the_process(driver: Driver) {
    if !has_strace() {
        return;
    }
    let mut process = Process::start(driver, answers("ok"));
    let stderr = BufReader::new(process.child.stderr.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let mut said = String::new();
    let until = |said: &mut String, words: &str| {
        while !said.contains(words) {
            let line = told.recv_timeout(Duration::from_secs(40));
            *said += &line.unwrap_or_else(|_| panic!("no {words:?} in {said}"));
        }
    };
    until(&mut said, "listener \"web\" on ");
    let core = process.thread("ringway-0").expect("no core");
    let mut strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=all", "-e"])
        .args(["inject=all:delay_enter=120000000", "-p", &core.to_string()])
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/task/{core}/status", process.child.id());
    let traced = || !std::fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n");
    eventually("it is traced", traced, |traced| *traced);
    let watch = Watch::start();
    process.signal(Signal::TERM);
    until(&mut said, "stopped: ");
    // The kernel keeps what is left of a process until its tracer has gone.
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert_eq!(process.child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("event=\"thread_hung\" thread=\"core 0\""), "{said}");
    // 5 s of drain, 10 s for the end of its cores.
    watch.took().expect_at_most(Duration::from_secs(20));
}

fn a_second_process_on_one_port_ends_with_1(driver: Driver) {
    let first = Process::start(driver, answers("first"));
    let mut second = Process::spawn(driver, answers("second"), first.address);
    let (status, said) = second.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&first.address.to_string()), "{said}");
    Client::connect(first.address).get("/").expect(200, "first");
}

/// A suspended machine, or a debugger: all deadlines have passed when it goes on, and the requests
/// of clients that were in time are in their sockets.
fn a_process_that_stood_still_reads_before_it_closes(driver: Driver) {
    let timeouts = "timeouts = { client-header = \"3s\", client-body = \"3s\", idle = \"3s\" }";
    let process = Process::start_with(driver, answers("ok"), timeouts);
    let connect = || Client::connect(process.address);
    let [mut silent, mut idle, mut half, mut posts] = [connect(), connect(), connect(), connect()];
    idle.get("/").expect(200, "ok");
    half.send("GET / HTTP/1.1\r\nHo");
    posts.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    eventually("it is asked", || process.backend.heads().len(), |heads| *heads == 2);
    process.signal(Signal::STOP);
    silent.send(get("/"));
    idle.send(get("/"));
    half.send("st: a\r\n\r\n");
    posts.send("cd");
    let mut new = connect();
    new.send(get("/"));
    std::thread::sleep(Duration::from_millis(4_500));
    process.signal(Signal::CONT);
    let mut all = [silent, idle, half, posts, new];
    all.iter_mut().for_each(|client| client.response().expect(200, "ok"));
    // They are still served, as if nothing had happened.
    all.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    // And late clients are told so.
    let mut late = connect();
    late.send("GET / HT").response().expect_fault(408, "request_timeout");
}

/// Linux doubles the table when it is full, and whoever opens the next descriptor then sleeps for
/// some 15 ms if the process has several threads: a core that serves others.
fn the_table_of_descriptors_has_room_for_all_connections_from_the_start(driver: Driver) {
    let process = Process::start(driver, answers("well"));
    // The default of 100,000 connections is lowered to what the limit allows.
    let needed = process.number("limits", "Max open files").min(200_000);
    let size = process.number("status", "FDSize:");
    assert!(size >= needed - 1, "{size} of {needed}");
}

fn a_reload_that_allows_more_connections_makes_room_for_them(driver: Driver) {
    let limits = |connections| format!("[global.limits]\nconnections = {connections}");
    let process = Process::start_with(driver, answers("well"), &limits(40));
    let size = || process.number("status", "FDSize:");
    let before = size();
    assert!((80..4_000).contains(&before), "{before}");
    let text = std::fs::read_to_string(&process.config).unwrap();
    std::fs::write(&process.config, text.replace(&limits(40), &limits(4_000))).unwrap();
    process.signal(Signal::HUP);
    eventually("there is room", size, |size| *size >= 8_000);
}
