//! Plays of an upgrade: a new process of the program takes over from a running one.
//!
//! The program is a copy in the folder of the play, so that it can be replaced.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::{
    backend::{Backend, Cue},
    client::{Client, get},
    instance::{Instance, Manager, Stage, children},
    scripts::{answers, answers_on, delays, upgrades_and_echoes},
    secure::Identity,
    stage::{Driver, eventually, long},
};

on_both_drivers!(
    the_next_process_serves_and_the_first_ends,
    what_is_in_flight_is_finished_and_what_rests_goes_on,
    no_request_fails_through_ten_upgrades,
    what_cannot_serve_changes_nothing,
    of_two_upgrades_at_once_one_is_refused,
    whichever_is_killed_one_serves,
    what_is_known_and_counted_goes_on,
    how_long_backends_take_is_known_to_the_next_process,
    tls_clients_that_rest_are_closed_without_a_reset,
    the_queue_of_an_address_that_goes_with_an_upgrade_is_served,
    a_unix_socket_goes_over_with_its_file_and_those_who_rest_there,
    a_client_of_a_proxy_is_not_handed_on_without_its_name,
    a_tunnel_that_outlasts_its_process_is_reset,
    the_service_manager_hears_of_the_new_main_process,
    a_stop_in_the_middle_of_an_upgrade_leaves_nobody,
    process_1_of_a_container_says_that_it_cannot,
);

/// A running process, and those that have taken over from it.
struct Play {
    first: Instance,
    driver: Driver,
    backend: Backend,
    stops: bool,
}

impl Play {
    fn start(driver: Driver, backend: Backend, global: &str, more: &str) -> Play {
        Play::start_with(driver, backend, global, more, |_| {})
    }

    fn start_with(
        driver: Driver,
        backend: Backend,
        global: &str,
        more: &str,
        with: impl FnOnce(&mut Command),
    ) -> Play {
        let stage = Stage::new(driver);
        stage.write(backend.address(), global, more);
        let program = stage.folder.join("ringway");
        // A hard link costs no room; a folder on another disk gets a copy.
        let built = env!("CARGO_BIN_EXE_ringway");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        let arguments = stage.arguments();
        let mut command = crate::instance::command(&stage.folder, &program, &arguments);
        with(&mut command);
        let first = stage.start_as(command);
        Play { first, driver, backend, stops: true }
    }

    fn address(&self) -> SocketAddr {
        self.first.address
    }

    fn program(&self) -> PathBuf {
        self.first.folder.join("ringway")
    }

    /// Writes the configuration anew.
    fn write(&self, global: &str, more: &str) {
        let (folder, address) = (self.first.folder.clone(), self.address());
        Stage { driver: self.driver, folder, address }.write(self.backend.address(), global, more);
    }

    fn upgrade(&self) -> Output {
        self.first.ask(&["upgrade"])
    }

    /// Upgrades; returns the id of the new process.
    #[track_caller]
    fn upgraded(&self) -> u32 {
        let said = self.upgrade();
        assert_eq!(said.status.code(), Some(0), "{said:?} {}", self.first.said());
        self.status()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    #[track_caller]
    fn status(&self) -> Value {
        let said = self.first.ask(&["status", "--json"]);
        serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
    }

    /// The id of the process that answers, if one does.
    fn pid(&self) -> Option<u32> {
        let said = self.first.ask(&["status", "--json"]);
        let said: Value = serde_json::from_slice(&said.stdout).ok()?;
        said["pid"].as_u64()?.try_into().ok()
    }

    /// A connection to the admin interface.
    fn asks_admin(&self) -> UnixStream {
        let mut files = fs::read_dir(&self.first.folder).unwrap().map(|file| file.unwrap().path());
        let is_socket = |path: &PathBuf| path.extension().is_some_and(|it| it == "sock");
        let stream = UnixStream::connect(files.find(is_socket).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// The answer of the admin interface to a GET.
    fn admin(&self, path: &str) -> String {
        let mut stream = self.asks_admin();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    }

    fn serves(&self, text: &str) {
        Client::connect(self.address()).send(get("/")).response().expect(200, text);
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        // The one that serves now is a child of one that may have ended.
        if self.stops
            && let Ok(said) =
                serde_json::from_slice::<Value>(&self.first.ask(&["status", "--json"]).stdout)
            && let Some(pid) = said["pid"].as_i64()
        {
            let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that has ended and that nobody waits for is no more.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn the_next_process_serves_and_the_first_ends(driver: Driver) {
    let mut play = Play::start(driver, Backend::open(answers("ok")), "", "");
    play.serves("ok");
    let first = play.first.child.id();
    // The file is replaced, as a package does it.
    let new = play.first.folder.join("ringway.new");
    fs::copy(env!("CARGO_BIN_EXE_ringway"), &new).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, play.program()).unwrap();
    let said = play.upgrade();
    assert_eq!(said.status.code(), Some(0), "{said:?} {}", play.first.said());
    let said = String::from_utf8(said.stdout).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let words = format!(" serves (ringway {version}); the one before finishes 0 connections, ");
    assert!(said.starts_with("process ") && said.contains(&words), "{said}");
    assert_eq!(play.first.ended().code(), Some(0), "{}", play.first.said());
    let second = play.status()["pid"].as_u64().unwrap();
    assert_ne!(second, u64::from(first));
    let program = fs::read_link(format!("/proc/{second}/exe")).unwrap();
    assert_eq!(program, play.program(), "it runs the file that is there now");
    play.serves("ok");
    // A second process on the same address is refused as ever.
    let again = Stage { driver, folder: play.first.folder.clone(), address: play.address() };
    let said = again.command(&again.arguments()).output().unwrap();
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    // The next is asked for by a signal.
    let pid = Pid::from_raw(second.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::USR2).unwrap();
    let is_third = |pid: &Value| pid.as_u64().is_some_and(|pid| pid != second);
    eventually("USR2 upgrades", || play.status()["pid"].clone(), is_third);
    play.serves("ok");
    // A stop removes what the first made.
    let third = play.status()["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(third.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    let running = || is_running(third.try_into().unwrap());
    eventually("it stops", running, |running| !running);
    let sockets = fs::read_dir(&play.first.folder).unwrap().map(|file| file.unwrap().path());
    let sockets: Vec<_> =
        sockets.filter(|path| path.extension().is_some_and(|it| it == "sock")).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    play.stops = false;
}

fn what_is_in_flight_is_finished_and_what_rests_goes_on(driver: Driver) {
    let cue = Cue::default();
    let backend = Backend::open(answers_on(&cue, "late"));
    let other = Backend::open(answers("ok"));
    let tunnels = Backend::open(upgrades_and_echoes());
    let (other, tunnel) = (other.address(), tunnels.address());
    let more = format!(
        "[[route]]\nname = \"now\"\npath = \"/now\"\npool = \"now\"\n\
         [[route]]\nname = \"ws\"\npath = \"/ws\"\npool = \"ws\"\n\
         [pool.now]\nbackends = [\"{other}\"]\n[pool.ws]\nbackends = [\"{tunnel}\"]"
    );
    let mut play = Play::start(driver, backend, "shutdown = { drain = \"20s\" }", &more);
    let address = play.address();
    let mut idle: Vec<Client> = (0..40).map(|_| Client::connect(address)).collect();
    idle.iter_mut().for_each(|client| client.get("/now").expect(200, "ok"));
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    let mut busy = Client::connect(address);
    busy.send(get("/"));
    let mut socket = Client::connect(address);
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: x\r\n\r\n",
    );
    assert_eq!(socket.response_head("GET").unwrap().status, 101);
    eventually("it is asked", || play.backend.requests().len(), |requests| *requests == 1);
    let first = play.first.child.id();
    play.upgraded();
    let draining = || play.status()["draining"].clone();
    let has_two = |said: &Value| said[0]["connections"] == 2 && said[0]["pid"] == first;
    eventually("the first finishes two", draining, has_two);
    let said = String::from_utf8(play.first.ask(&["status"]).stdout).unwrap();
    assert!(said.contains(&format!("process {first} (ringway ")), "{said}");
    assert!(said.contains(" finishes 2 connections\n"), "{said}");
    // The tunnel goes on in the first process.
    socket.send("hello");
    assert_eq!(socket.wire().bytes(5).unwrap(), b"hello");
    // What rested goes on in the second, on the same connections.
    idle.iter_mut().for_each(|client| client.get("/now").expect(200, "ok"));
    silent.iter_mut().for_each(|client| client.get("/now").expect(200, "ok"));
    cue.give();
    let response = busy.response();
    response.expect(200, "late");
    assert!(response.closes());
    drop(socket);
    assert_eq!(play.first.ended().code(), Some(0), "{}", play.first.said());
    let draining = || play.status()["draining"].as_array().unwrap().len();
    eventually("nobody drains", draining, |count| *count == 0);
    idle.iter_mut().for_each(|client| client.get("/now").expect(200, "ok"));
}

fn no_request_fails_through_ten_upgrades(driver: Driver) {
    let play = Play::start(driver, Backend::open(answers("ok")), "", "");
    let (address, over) = (play.address(), AtomicBool::new(false));
    let count = if long() { 5_000 } else { 1_000 };
    let mut idle: Vec<Client> = (0..count).map(|_| Client::connect(address)).collect();
    idle.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    thread::scope(|scope| {
        let asks = || {
            let (mut client, mut answers) = (Client::connect(address), 0);
            while !over.load(SeqCst) {
                let response = client.send(get("/")).response();
                assert_eq!(response.status, 200, "{response:?}");
                if response.closes() {
                    client = Client::connect(address);
                }
                answers += 1;
            }
            answers
        };
        let connects = || {
            let mut answers = 0;
            while !over.load(SeqCst) {
                Client::connect(address).send(get("/")).response().expect(200, "ok");
                answers += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(asks)).collect();
        let others: Vec<_> = (0..2).map(|_| scope.spawn(connects)).collect();
        let ends = scope.spawn(|| {
            let _ends = Ends(&over);
            let mut pids: Vec<u32> = (0..10).map(|_| play.upgraded()).collect();
            pids.dedup();
            assert_eq!(pids.len(), 10);
        });
        ends.join().unwrap();
        let answers: u32 = clients.into_iter().chain(others).map(|it| it.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
    idle.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn what_cannot_serve_changes_nothing(driver: Driver) {
    let play = Play::start(driver, Backend::open(answers("ok")), "", "");
    let mut client = Client::connect(play.address());
    client.get("/").expect(200, "ok");
    let refused = |words: &str| {
        let said = play.upgrade();
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        let err = String::from_utf8(said.stderr).unwrap();
        let begin = "ringway: upgrade refused, the running process serves on: ";
        assert!(err.starts_with(begin) && err.contains(words), "{words}: {err}");
        let logged = || play.first.said();
        eventually("it is logged", logged, |said| said.contains("event=\"upgrade_refused\""));
    };
    // A mistake in the configuration, an address in use, a program that is none, one that says
    // nothing and ends, and none at all.
    play.write("", "[pool.other]\nbackends = [\"nothing\"]");
    refused("r.toml:");
    let taken = std::net::TcpListener::bind(crate::addresses::free()).unwrap();
    let taken = taken.local_addr().unwrap();
    play.write("", &format!("[listener.two]\nbind = \"{taken}\"\npool = \"app\""));
    refused(&format!("cannot listen on {taken}"));
    play.write("", "");
    for (text, words) in [
        ("no program at all", "cannot start "),
        ("#!/bin/sh\nexit 7\n", "ended before it was ready (exit status: 7)"),
    ] {
        fs::remove_file(play.program()).unwrap();
        fs::write(play.program(), text).unwrap();
        fs::set_permissions(play.program(), fs::Permissions::from_mode(0o755)).unwrap();
        refused(words);
    }
    fs::remove_file(play.program()).unwrap();
    refused("cannot start ");
    assert_eq!(play.status()["pid"], play.first.child.id());
    client.get("/").expect(200, "ok");
    play.serves("ok");
    // And when all is well again, it upgrades.
    fs::copy(env!("CARGO_BIN_EXE_ringway"), play.program()).unwrap();
    assert_ne!(play.upgraded(), play.first.child.id());
    client.get("/").expect(200, "ok");
}

/// The second comes while the first waits for its new process.
fn of_two_upgrades_at_once_one_is_refused(driver: Driver) {
    let play = Play::start(driver, Backend::open(answers("ok")), "", "");
    let mut client = Client::connect(play.address());
    client.get("/").expect(200, "ok");
    let first = play.first.child.id();
    let (go, program) = (play.first.folder.join("go"), env!("CARGO_BIN_EXE_ringway"));
    fs::remove_file(play.program()).unwrap();
    let text = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.02; done\nexec {program} \"$@\"\n",
        go.display()
    );
    fs::write(play.program(), text).unwrap();
    fs::set_permissions(play.program(), fs::Permissions::from_mode(0o755)).unwrap();
    // Both speak to the first process from the beginning.
    let mut both = [play.asks_admin(), play.asks_admin()];
    let orders = both.each_mut().map(|stream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 200 "));
        stream
    });
    let child = || children(first).first().copied();
    let mut second = None;
    for stream in orders {
        stream.write_all(b"POST /api/v1/upgrade HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        second = eventually("there is a second process", child, Option::is_some);
    }
    play.first.signal(Signal::USR2);
    client.get("/").expect(200, "ok");
    fs::write(&go, "").unwrap();
    let [one, two] = both.each_mut().map(answer);
    assert!(one.starts_with("HTTP/1.1 200 "), "{one}");
    let pid = second.unwrap();
    assert!(one.contains(&format!("\"pid\":{pid}")), "{pid} {one}");
    assert!(two.starts_with("HTTP/1.1 422 "), "{two}");
    assert!(two.contains(&format!("process {pid} has taken over already")), "{two}");
    client.get("/").expect(200, "ok");
    assert_eq!(play.pid(), Some(pid), "{}", play.first.said());
    // The next upgrade is one of the process that serves now.
    assert_ne!(play.upgraded(), pid);
    client.get("/").expect(200, "ok");
}

/// One answer of the admin interface, on a connection that may go on.
fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let length = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let lines = head.to_ascii_lowercase();
        let length = lines.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() >= length.trim().parse().unwrap())
    };
    let is_whole = |text: &[u8]| length(&String::from_utf8_lossy(text)) == Some(true);
    let mut room = [0; 4096];
    while !is_whole(&text) {
        let count = stream.read(&mut room).unwrap();
        assert!(count > 0, "it ends after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&room[..count]);
    }
    String::from_utf8(text).unwrap()
}

/// Kills one of the two at many moments of an upgrade; at last when the second has taken over and
/// the first still has something to finish.
fn whichever_is_killed_one_serves(driver: Driver) {
    let moments = (0..12_u64).map(|step| (step % 2 == 0, Some(step / 2 * 16)));
    for (kills_first, wait) in moments.chain([(true, None), (false, None)]) {
        let cue = Cue::default();
        let backend = Backend::open(answers("ok"));
        let held = Backend::open(answers_on(&cue, "late"));
        let more = format!(
            "[[route]]\nname = \"held\"\npath = \"/held\"\npool = \"held\"\n\
             [pool.held]\nbackends = [\"{}\"]",
            held.address()
        );
        let mut play = Play::start(driver, backend, "shutdown = { drain = \"20s\" }", &more);
        // It keeps the first process draining.
        let mut busy = Client::connect(play.address());
        busy.send(get("/held"));
        eventually("it is asked", || held.requests().len(), |requests| *requests == 1);
        let first = play.first.child.id();
        play.first.signal(Signal::USR2);
        let child = || children(first).first().copied();
        let second = eventually("there is a second", child, Option::is_some).unwrap();
        match wait {
            // Not for luck: each moment is another step, whichever it is.
            Some(wait) => thread::sleep(Duration::from_millis(wait)),
            None => _ = eventually("it takes over", || play.pid(), |pid| *pid == Some(second)),
        }
        let victim = if kills_first { first } else { second };
        let _ = kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::KILL);
        let survivor = if kills_first { second } else { first };
        if kills_first {
            play.first.child.wait().unwrap();
        }
        let said = || format!("{kills_first} {wait:?} {}", play.first.said());
        eventually(
            "it is the one",
            || play.pid(),
            |pid| {
                *pid == Some(survivor) || {
                    assert!(is_running(survivor), "{}", said());
                    false
                }
            },
        );
        let ready = || play.first.ask(&["ready"]).status.code();
        eventually("it is ready", ready, |code| *code == Some(0));
        for _ in 0..8 {
            play.serves("ok");
        }
        if !kills_first {
            cue.give();
            busy.response().expect(200, "late");
            // It can be upgraded again.
            play.upgraded();
        }
        play.serves("ok");
    }
}

fn what_is_known_and_counted_goes_on(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let nobody = crate::addresses::free();
    let more = format!(
        "[[route]]\nname = \"down\"\npath = \"/down\"\npool = \"down\"\n\
         [pool.down]\nbackends = [\"{}\", \"{nobody}\"]\n\
         passive = {{ max-failures = 1, eject = \"600s\" }}",
        backend.address()
    );
    let play = Play::start(driver, backend, "", &more);
    let mut client = Client::connect(play.address());
    client.get("/").expect(200, "ok");
    let via = |play: &Play| play.backend.heads().last().unwrap().field("via").unwrap().to_owned();
    let first = via(&play);
    // Requests and tries, and what the pool has asked again.
    for _ in 0..4 {
        client.send(get("/down")).response().expect(200, "ok");
    }
    let pools = |play: &Play| play.admin("/api/v1/pools");
    let is_out = |said: &String| said.contains("\"state\":\"ejected\"");
    eventually("it is ejected", || pools(&play), is_out);
    let events = || play.first.said().matches("event=\"backend_ejected\"").count();
    eventually("it is told", events, |count| *count == 1);
    // Of the two backends one was asked four times, and the other once.
    let total = |play: &Play, count: u32| {
        let all = pools(play);
        assert!(all.contains(&format!("\"totalRequests\":{count}")), "{all}");
    };
    [4, 1].into_iter().for_each(|count| total(&play, count));
    play.upgraded();
    assert!(is_out(&pools(&play)), "{}", pools(&play));
    [4, 1].into_iter().for_each(|count| total(&play, count));
    client.send(get("/down")).response().expect(200, "ok");
    total(&play, 5);
    client.get("/").expect(200, "ok");
    assert_eq!(via(&play), first, "it has the same name in Via");
    assert_eq!(play.first.said().matches("event=\"backend_ejected\"").count(), 1, "no news");
}

fn how_long_backends_take_is_known_to_the_next_process(driver: Driver) {
    let slow = Backend::open(delays(Duration::from_millis(150), "slow"));
    let fast = Backend::open(answers("fast"));
    let more = format!(
        "[[route]]\nname = \"timed\"\npath = \"/timed\"\npool = \"timed\"\n\
         [pool.timed]\nbackends = [\"{}\", \"{}\"]\nbalance = \"least-response-time\"",
        slow.address(),
        fast.address()
    );
    let play = Play::start(driver, Backend::open(answers("ok")), "", &more);
    let mut client = Client::connect(play.address());
    let mut ask = |count: usize| {
        (0..count).for_each(|_| assert_eq!(client.get("/timed").status, 200));
    };
    let asked = || slow.heads().len();
    // Until each core knows both.
    for _ in 0..40 {
        ask(1);
        assert_eq!(Client::connect(play.address()).get("/timed").status, 200);
    }
    let before = asked();
    assert!(before > 0, "it is tried once");
    play.upgraded();
    ask(10);
    (0..10).for_each(|_| assert_eq!(Client::connect(play.address()).get("/timed").status, 200));
    assert!(asked() <= before + 1, "{} after {before}", asked());
}

fn tls_clients_that_rest_are_closed_without_a_reset(driver: Driver) {
    let (identity, secure) = (Identity::of(&["a.test"]), crate::addresses::free());
    let more =
        format!("[listener.secure]\nbind = \"{secure}\"\npool = \"app\"\n{}", identity.line(""));
    let play = Play::start(driver, Backend::open(answers("ok")), "", &more);
    let mut clients: Vec<Client> = (0..8).map(|_| identity.connect(secure)).collect();
    clients.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    play.upgraded();
    clients.iter_mut().for_each(Client::expect_end);
    let mut client = identity.connect(secure);
    client.get("/").expect(200, "ok");
}

fn a_unix_socket_goes_over_with_its_file_and_those_who_rest_there(driver: Driver) {
    let folder =
        std::env::temp_dir().join(format!("ringway-over-{}-{driver:?}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("x.sock");
    let more = format!(
        "[listener.sock]\nbind = [{{ address = \"unix:{}\", mode = \"0620\" }}]\npool = \"app\"",
        file.display()
    );
    let mut play = Play::start(driver, Backend::open(answers("ok")), "", &more);
    let asks = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"ok") {
            let mut room = [0; 1024];
            let count = stream.read(&mut room).unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&room[..count]);
        }
    };
    let connect = || UnixStream::connect(&file).unwrap();
    let mut resting: Vec<_> = (0..8).map(|_| connect()).collect();
    resting.iter_mut().for_each(asks);
    let mut silent = connect();
    let of = |file: &PathBuf| {
        let known = fs::metadata(file).unwrap();
        (known.ino(), known.permissions().mode() & 0o777)
    };
    let before = of(&file);
    let second = play.upgraded();
    assert_eq!(play.first.ended().code(), Some(0), "{}", play.first.said());
    // The first has left the file where it is.
    assert_eq!((of(&file), before.1), (before, 0o620));
    resting.iter_mut().for_each(asks);
    asks(&mut silent);
    asks(&mut connect());
    let second = Pid::from_raw(second.try_into().unwrap()).unwrap();
    kill_process(second, Signal::TERM).unwrap();
    eventually("the second removes it", || file.exists(), |there| !there);
    play.stops = false;
    fs::remove_dir_all(folder).unwrap();
}

/// Who it is was said once, to a process that ends.
fn a_client_of_a_proxy_is_not_handed_on_without_its_name(driver: Driver) {
    let proxied = crate::addresses::free();
    let more = format!(
        "[listener.proxied]\nbind = \"{proxied}\"\npool = \"app\"\n\
         proxy-protocol = {{ from = [\"127.0.0.0/8\"] }}"
    );
    let mut play = Play::start(driver, Backend::open(answers("ok")), "", &more);
    let connect = || {
        let mut client = Client::connect(proxied);
        client.send("PROXY TCP4 192.0.2.7 203.0.113.9 56324 4430\r\n");
        client
    };
    let mut resting: Vec<_> = (0..8).map(|_| connect()).collect();
    resting.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    // It has said who it is, and nothing else.
    let mut silent = connect();
    play.upgraded();
    resting.iter_mut().for_each(Client::expect_end);
    silent.expect_end();
    assert_eq!(play.first.ended().code(), Some(0), "{}", play.first.said());
    connect().get("/").expect(200, "ok");
    let requests = play.backend.requests();
    let from = |field: Option<&str>| field == Some("192.0.2.7");
    assert!(requests.iter().all(|request| from(request.field("x-forwarded-for"))));
}

/// It goes on in the first process, until the time to drain is over there.
fn a_tunnel_that_outlasts_its_process_is_reset(driver: Driver) {
    let listener = TcpListener::bind((crate::addresses::host(), 0)).unwrap();
    let (echo, at) = (listener.local_addr().unwrap(), crate::addresses::free());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reading = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut reading, &mut stream));
        }
    });
    let more = format!(
        "[listener.tcp]\nmode = \"tcp\"\nbind = \"{at}\"\npool = \"echo\"\n\
         [pool.echo]\nbackends = [\"{echo}\"]"
    );
    let global = "shutdown = { drain = \"1s\" }";
    let mut play = Play::start(driver, Backend::open(answers("ok")), global, &more);
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(b"here").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    play.upgraded();
    let ended = client.read(&mut [0]).unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    play.first.ended();
    play.serves("ok");
}

/// Connections that wait at an address while a process without it takes over: none is reset.
fn the_queue_of_an_address_that_goes_with_an_upgrade_is_served(driver: Driver) {
    let other = crate::addresses::free();
    let more = format!("[listener.other]\nbind = \"{other}\"\npool = \"app\"");
    let play = Play::start(driver, Backend::open(answers("ok")), "", &more);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let connects = || {
            let mut answers = 0;
            while !over.load(SeqCst) {
                // It is refused when the address is gone.
                let Ok(stream) = TcpStream::connect(other) else { return answers };
                let mut client = Client::over(stream);
                client.send_what_is_taken(get("/"));
                client.response().expect(200, "ok");
                answers += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(connects)).collect();
        let _ends = Ends(&over);
        eventually("it is asked", || play.backend.heads().len(), |count| *count > 100);
        play.write("", "");
        play.upgraded();
        crate::stage::eventually(
            "the address is gone",
            || TcpStream::connect(other).is_err(),
            |gone| *gone,
        );
        drop(_ends);
        let answers: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > 100, "{answers}");
    });
    play.serves("ok");
}

fn the_service_manager_hears_of_the_new_main_process(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let folder =
        std::env::temp_dir().join(format!("ringway-manager-{}-{driver:?}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let manager = Manager::new(&folder);
    let play = Play::start_with(driver, backend, "", "", |command| {
        command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "900000");
    });
    manager.hears("READY=1\n");
    let second = play.upgraded();
    let (main, _) = manager.hears("MAINPID=");
    assert_eq!(main, format!("MAINPID={second}\n"));
    manager.hears("READY=1\n");
    manager.hears("WATCHDOG=1\n");
    fs::remove_dir_all(folder).unwrap();
}

fn a_stop_in_the_middle_of_an_upgrade_leaves_nobody(driver: Driver) {
    let mut play = Play::start(driver, Backend::open(answers("ok")), "", "");
    fs::remove_file(play.program()).unwrap();
    fs::write(play.program(), "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(play.program(), fs::Permissions::from_mode(0o755)).unwrap();
    play.first.signal(Signal::USR2);
    let first = play.first.child.id();
    let child = || children(first).first().copied();
    let second = eventually("there is a second", child, Option::is_some).unwrap();
    play.first.signal(Signal::TERM);
    assert_eq!(play.first.ended().code(), Some(0), "{}", play.first.said());
    eventually("the second has ended", || is_running(second), |running| !running);
    play.stops = false;
}

fn process_1_of_a_container_says_that_it_cannot(driver: Driver) {
    if !geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let stage = Stage::new(driver);
    let backend = Backend::open(answers("ok"));
    stage.write(backend.address(), "", "");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_ringway")]);
    let with = stage.command(&stage.arguments());
    command.args(with.get_args());
    command.envs(with.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = stage.start_as(command);
    let said = process.ask(&["upgrade"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(err.contains("process 1 of its container"), "{err}");
    Client::connect(process.address).send(get("/")).response().expect(200, "ok");
}
