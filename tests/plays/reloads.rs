//! Plays of many reloads.
//!
//! Beside load and tunnels, faster than they can be done, from files that end in the middle, and
//! with a core that hangs.

use std::{
    fs,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    backend::{Backend, Cue},
    client::{Client, Response, get},
    instance::thread as thread_of,
    process::has_strace,
    run_time::{Running, list, path},
    scripts::{answers, answers_on, upgrades_and_echoes},
    stage::{Driver, eventually, long},
};

on_both_drivers!(
    fifty_reloads_disturb_neither_requests_nor_tunnels,
    of_a_flood_of_reloads_the_last_files_are_in_force,
    a_file_that_is_cut_stops_nothing,
    settings_of_the_process_follow,
    connections_of_a_listener_that_goes_are_counted,
    a_core_that_hangs_is_named_by_the_change,
    a_metric_says_whether_the_last_reload_was_taken,
    a_reload_while_a_reload_runs_comes_after_it,
);

fn reload(running: &Running) -> String {
    let output = running.command(&["reload"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A client that asks without a pause until it is over; how many answers it got.
fn asks(running: &Running, over: &AtomicBool) -> u32 {
    let (mut client, mut count) = (Client::connect(running.address), 0);
    while !over.load(SeqCst) {
        let response = client.send(get("/")).response();
        assert_eq!(response.status, 200, "{response:?}");
        assert!(!response.closes(), "{response:?}");
        count += 1;
    }
    count
}

fn fifty_reloads_disturb_neither_requests_nor_tunnels(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::open(answers(name)));
    let echoes = Backend::open(upgrades_and_echoes());
    let shape = |round: usize| {
        // Backends, weights, routes and pools come and go.
        let other = ["", "[pool.other]\nbackends = [\"127.0.0.1:9\"]\n"][round % 2];
        let route = format!("[[route]]\nname = \"r{round}\"\npath = \"/r\"\npool = \"app\"\n");
        let slow = format!("slow-start = \"{}ms\"", round % 3);
        format!(
            "{}\n{slow}\n{other}{route}[pool.ws]\nbackends = [\"{}\"]\n\
             [[route]]\nname = \"ws\"\npath = \"/ws\"\npool = \"ws\"\n",
            list(&backends[..1 + round % 3]),
            echoes.address()
        )
    };
    let running = Running::start(driver, &shape(0));
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
    let mut tunnels: Vec<Client> = (0..100).map(|_| Client::connect(running.address)).collect();
    for tunnel in &mut tunnels {
        let head = tunnel.send(upgrade).response_head("GET");
        assert_eq!(head.unwrap().status, 101);
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| asks(&running, &over))).collect();
        let reloads = scope.spawn(|| {
            let _ends = Ends(&over);
            for round in 1..=50 {
                running.write(&shape(round));
                let said = reload(&running);
                assert!(said.ends_with("(0 connections closed)\n"), "{said}");
                if round % 10 == 0 {
                    // Backends of a play do not wait for long.
                    speak(&mut tunnels);
                }
            }
        });
        reloads.join().unwrap();
        let answers: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
    speak(&mut tunnels);
}

/// Each is answered with its own words.
fn speak(tunnels: &mut [Client]) {
    for (number, tunnel) in tunnels.iter_mut().enumerate() {
        let text = format!("still here {number}");
        tunnel.send(&text);
        let heard = tunnel.wire().bytes(text.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }
}

fn of_a_flood_of_reloads_the_last_files_are_in_force(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends[..1]));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| asks(&running, &over))).collect();
        let _ends = Ends(&over);
        let time = Duration::from_secs(if long() { 10 } else { 3 });
        let (since, mut round) = (Instant::now(), 0);
        while since.elapsed() < time {
            round += 1;
            running.write(&list(&backends[round % 2..][..1]));
            kill_process(Pid::from_child(&running.child), Signal::HUP).unwrap();
            if round % 16 == 0 {
                // Orders go between them.
                let slot = format!("/backends/{}", backends[0].address());
                running.call("PATCH", &slot, &json!({ "weight": 2 }));
            }
            thread::sleep(Duration::from_millis(1_000 / 64));
        }
        running.write(&list(&backends));
        kill_process(Pid::from_child(&running.child), Signal::HUP).unwrap();
        let state = || running.state_of(&backends[0]).0 + running.state_of(&backends[1]).0;
        eventually("the last is in force", state, |sum| *sum == 400);
        drop(_ends);
        let answers: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
}

fn a_file_that_is_cut_stops_nothing(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends));
    let file = running.folder.join("r.toml");
    let whole = fs::read_to_string(&file).unwrap();
    for cut in (0..whole.len()).step_by(23) {
        fs::write(&file, &whole[..cut]).unwrap();
        kill_process(Pid::from_child(&running.child), Signal::HUP).unwrap();
        let answered = Client::connect(running.address).send(get("/")).response().status;
        assert!(answered == 200 || answered == 404, "{answered}");
    }
    eventually("they are refused", || running.log().contains("configuration refused"), |it| *it);
    fs::write(&file, &whole).unwrap();
    // A file that was cut between two keys may have been a configuration.
    reload(&running);
    assert_eq!(reload(&running), "nothing changes\n");
    let mut seen = running.ask(2);
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
}

fn settings_of_the_process_follow(driver: Driver) {
    let cue = Cue::default();
    let backends = [Backend::open(answers_on(&cue, "slow"))];
    let running = Running::start(driver, &list(&backends));
    let with = |keys: &str| running.write_with(keys, &list(&backends));
    let sets = || running.set(&backends[0], &json!({ "weight": 3 }));
    let said = || running.log().matches("backend set").count();
    sets();
    eventually("it is told", said, |count| *count == 1);
    with("log = { level = \"error\" }");
    assert_eq!(reload(&running), "~ global: log\n(0 connections closed)\n");
    sets();
    with("log = { level = \"info\" }\nshutdown = { drain = \"100ms\" }");
    assert_eq!(reload(&running), "~ global: shutdown, log\n(0 connections closed)\n");
    sets();
    eventually("it is told", said, |count| *count == 2);
    // A drain of half a minute would be the default.
    let mut client = Client::connect(running.address);
    client.send(get("/"));
    eventually("it is asked", || backends[0].heads().len(), |count| *count == 1);
    let since = Instant::now();
    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    eventually("it ends", || std::net::TcpStream::connect(running.admin).is_err(), |ended| *ended);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

fn connections_of_a_listener_that_goes_are_counted(driver: Driver) {
    let backends = [Backend::open(answers("a"))];
    let free = crate::addresses::free();
    let two = format!("{}\n[listener.two]\nbind = \"{free}\"\npool = \"app\"\n", list(&backends));
    let running = Running::start(driver, &two);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(free)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")).response().expect(200, "a"));
    running.write(&list(&backends));
    let dry = running.command(&["reload", "--dry-run"]).output().unwrap();
    let expected = "- listener \"two\"\n(3 connections closed)\n";
    assert_eq!(String::from_utf8_lossy(&dry.stdout), expected);
    assert_eq!(reload(&running), expected);
    clients.iter_mut().for_each(Client::expect_end);
    let view = running.call("GET", &path(&backends[0]), &Value::Null);
    assert_eq!(view.status, 200);
}

/// It hangs in its next system call; the other core has the change, and nobody waits for it twice.
fn a_core_that_hangs_is_named_by_the_change(driver: Driver) {
    if !has_strace() {
        return;
    }
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends));
    let core = thread_of(running.child.id(), "ringway-0");
    let mut strace = std::process::Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=all", "-e"])
        .args(["inject=all:delay_enter=120000000", "-p", &core.to_string()])
        .spawn()
        .unwrap();
    let silent = || running.command(&["ready"]).output().unwrap().status.code();
    eventually("it hangs", silent, |code| *code == Some(1));
    running.write(&list(&backends[..1]));
    let output = running.command(&["reload"]).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("1 backend removed"), "{out}");
    let warning = "warning: core 0 does not answer, and still serves by an earlier plan";
    assert!(err.contains(warning) && !err.contains("core 1"), "{err}");
    let since = Instant::now();
    let view = running.set(&backends[0], &json!({ "weight": 2 }));
    let said = "core 0 does not answer, and still serves by an earlier plan";
    assert_eq!(view["warnings"], json!([said]));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let view = running.calls("GET", &path(&backends[0]), &Value::Null, 200);
    assert_eq!((&view["weight"], &view["warnings"]), (&json!(2), &Value::Null));
    strace.kill().unwrap();
    strace.wait().unwrap();
    let is_ready = || running.command(&["ready"]).output().unwrap().status.code();
    eventually("it answers", is_ready, |code| *code == Some(0));
    let view = running.set(&backends[0], &json!({ "weight": 3 }));
    assert_eq!(view["warnings"], Value::Null);
    assert_eq!(running.ask(9), vec!["a"; 9]);
}

/// A call of the admin interface.
fn calls(running: &Running, method: &str, path: &str) -> Response {
    let host = running.admin;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    Client::connect(host).send(head).response_to(method)
}

fn a_metric_says_whether_the_last_reload_was_taken(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends[..1]));
    let taken = || {
        let metrics = calls(&running, "GET", "/metrics");
        let mut lines = metrics.text().lines();
        let value = lines.find_map(|it| it.strip_prefix("ringway_config_last_reload_successful "));
        value.expect("the metric").to_owned()
    };
    assert_eq!(taken(), "1", "none was refused yet");
    let signal = || kill_process(Pid::from_child(&running.child), Signal::HUP).unwrap();
    for refuses in [
        &(|| {
            assert_eq!(calls(&running, "POST", "/api/v1/reload").status, 422);
        }) as &dyn Fn(),
        &|| assert_eq!(running.command(&["reload"]).output().unwrap().status.code(), Some(1)),
        &signal,
    ] {
        running.write("backends = [\"nothing\"]");
        // Who only looks has reloaded nothing.
        let dry = running.command(&["reload", "--dry-run"]).output().unwrap();
        assert_eq!((dry.status.code(), taken().as_str()), (Some(1), "1"));
        refuses();
        eventually("it says so", taken, |value| value == "0");
        running.write(&list(&backends));
        reload(&running);
        assert_eq!(taken(), "1");
    }
}

/// The first waits for its file, which is a pipe. What comes meanwhile waits for it, reads the file
/// that is there then, and nothing else waits.
fn a_reload_while_a_reload_runs_comes_after_it(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let running = Running::start(driver, &list(&backends[..1]));
    let file = running.folder.join("r.toml");
    running.write(&list(&backends));
    let first = fs::read_to_string(&file).unwrap();
    let pipe = running.folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::remove_file(&file).unwrap();
    fs::hard_link(&pipe, &file).unwrap();
    let lines = |response: &Response| {
        assert_eq!(response.status, 200, "{response:?}");
        let said: Value = serde_json::from_str(response.text()).unwrap();
        (said["changes"].to_string(), said["generation"].as_u64().unwrap())
    };
    thread::scope(|scope| {
        let running = &running;
        let reloads = || scope.spawn(move || calls(running, "POST", "/api/v1/reload"));
        let one = reloads();
        // It is opened for writing when somebody reads it.
        let mut pipe = fs::File::options().write(true).open(&pipe).unwrap();
        fs::remove_file(&file).unwrap();
        running.write(&list(&backends[1..]));
        let two = reloads();
        assert_eq!(calls(running, "GET", "/api/v1/status").status, 200);
        assert_eq!(running.ask(4), vec!["a"; 4]);
        assert!(!one.is_finished() && !two.is_finished());
        pipe.write_all(first.as_bytes()).unwrap();
        drop(pipe);
        let [(one, first), (two, second)] = [one, two].map(|it| lines(&it.join().unwrap()));
        assert!(one.contains("1 backend added"), "{one}");
        assert!(two.contains("1 backend removed"), "{two}");
        assert!(first < second, "{first} {second}");
    });
    assert_eq!(running.ask(4), vec!["b"; 4]);
}
