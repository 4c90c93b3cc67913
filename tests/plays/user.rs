//! Plays of a process that root starts and that becomes another user.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt as _},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    instance::Stage,
    scripts::answers,
    stage::{Driver, eventually},
};

on_both_drivers!(
    a_process_that_root_starts_becomes_the_user_before_it_opens_anything,
    who_is_not_root_cannot_become_another_user,
);

const NOBODY: u32 = 65_534;

/// Whether the plays run as root; in CI they do.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    assert!(is_root || std::env::var("CI").is_err(), "not root");
    if !is_root {
        eprintln!("skipped: not root");
    }
    is_root
}

fn write(stage: &Stage, backend: &Backend, user: &str) {
    let (address, backend) = (stage.address, backend.address());
    let log = stage.folder.join("access.log");
    stage.write_whole(&format!(
        "[global]\nadmin = \"off\"\nuser = \"{user}\"\n[listener.web]\nbind = \"{address}\"\n\
         pool = \"app\"\naccess-log = {{ path = \"{}\" }}\n\
         [pool.app]\nbackends = [\"{backend}\"]\n",
        log.display()
    ));
}

/// A line of the status of each thread.
fn of_threads(pid: u32, name: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        let path = task.unwrap().path();
        // A thread of a call to the admin interface may end meanwhile.
        let status = fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let thread = fs::read_to_string(path.join("comm")).ok()?;
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        Some((thread.trim().to_owned(), words))
    };
    tasks.filter_map(of_task).collect()
}

/// The users of the sockets that listen on an address, by /proc/net/tcp.
fn users(address: SocketAddr) -> Vec<u32> {
    let SocketAddr::V4(v4) = address else { panic!("{address}") };
    let [a, b, c, d] = v4.ip().octets();
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes([a, b, c, d]), v4.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row[1] == local && row[3] == "0A");
    listening.map(|row| row[7].parse().unwrap()).collect()
}

fn a_process_that_root_starts_becomes_the_user_before_it_opens_anything(driver: Driver) {
    if !is_root() {
        return;
    }
    let backend = Backend::open(answers("ok"));
    // A port that only root may bind, and whoever has the capability.
    let address = SocketAddr::from((addresses::host(), 80));
    let stage = Stage { address, ..Stage::new(driver) };
    chown(&stage.folder, Some(NOBODY), Some(NOBODY)).unwrap();
    write(&stage, &backend, "nobody");
    let log = stage.folder.join("access.log");
    let mut process = stage.start(|_| {});
    expect_nobody(process.child.id());
    for name in ["CapInh:", "CapAmb:"] {
        let seen = of_threads(process.child.id(), name);
        assert!(seen.iter().all(|(_, line)| line == "0000000000000000"), "{name} {seen:?}");
    }
    assert_eq!(users(address), [NOBODY, NOBODY]);
    Client::connect(address).send(get("/")).response().expect(200, "ok");
    // The log can be opened again.
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    eventually("a line is written", || lines(&log), |lines| *lines == 1);
    fs::rename(&log, log.with_extension("1")).unwrap();
    process.signal(Signal::USR1);
    eventually("the log is there", || log.exists(), |there| *there);
    Client::connect(address).send(get("/")).response().expect(200, "ok");
    eventually("a line is written", || lines(&log), |lines| *lines == 1);
    // A reload cannot change it.
    let again = Stage { driver, folder: process.folder.clone(), address };
    write(&again, &backend, "www-data");
    let said = process.ask(&["reload"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let kept = "ringway: `user` of [global] keeps its value until a restart\n";
    assert_eq!(String::from_utf8_lossy(&said.stderr), kept);
    // The next process is that user, too, and may still bind such ports.
    write(&again, &backend, "nobody");
    let said = process.ask(&["upgrade"]);
    assert_eq!(said.status.code(), Some(0), "{said:?} {}", process.said());
    assert_eq!(process.ended().code(), Some(0), "{}", process.said());
    let status = process.ask(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let next = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    let ends = Ends(Pid::from_raw(next).unwrap());
    expect_nobody(next.unsigned_abs());
    Client::connect(address).send(get("/")).response().expect(200, "ok");
    let other = SocketAddr::from((addresses::host(), 81));
    let text = fs::read_to_string(again.folder.join("r.toml")).unwrap();
    again.write_whole(&format!("{text}[listener.two]\nbind = \"{other}\"\npool = \"app\"\n"));
    let said = process.ask(&["reload"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(users(other), [NOBODY, NOBODY]);
    Client::connect(other).send(get("/")).response().expect(200, "ok");
    drop(ends);
}

/// All threads of the process are that user's, and may bind low ports and nothing else.
fn expect_nobody(pid: u32) {
    for (name, expected) in [
        ("Uid:", "65534 65534 65534 65534"),
        ("Gid:", "65534 65534 65534 65534"),
        ("Groups:", "65534"),
    ] {
        let seen = of_threads(pid, name);
        assert!(seen.iter().all(|(_, line)| line == expected), "{name} {seen:?}");
    }
    for name in ["CapPrm:", "CapEff:"] {
        for (thread, line) in of_threads(pid, name) {
            // The writer of stderr may have none: it exists before the configuration is read.
            let (has, is_early) = (line.trim_start_matches('0'), thread == "ringway-stderr");
            assert!(has == "400" || (is_early && has.is_empty()), "{thread} {line}");
        }
    }
}

/// A process that is killed at last.
struct Ends(Pid);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

fn who_is_not_root_cannot_become_another_user(driver: Driver) {
    if !is_root() {
        return;
    }
    let backend = Backend::open(answers("ok"));
    let stage = Stage::new(driver);
    chown(&stage.folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for (user, words) in [
        ("www-data", "\"www-data\": only root can become another user, and this process is user"),
        ("no-such-user", "\"no-such-user\": this machine has no such user; make one: useradd"),
    ] {
        write(&stage, &backend, user);
        let mut command = stage.command(&stage.arguments());
        let said = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        let err = String::from_utf8(said.stderr).unwrap();
        assert!(err.starts_with("ringway: `user` in [global], ") && err.contains(words), "{err}");
    }
    let checked = stage.command(&["check"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    // Who is that user already has nothing to become.
    write(&stage, &backend, "nobody");
    let process = stage.start(|command| _ = command.uid(NOBODY).gid(NOBODY));
    Client::connect(process.address).send(get("/")).response().expect(200, "ok");
}
