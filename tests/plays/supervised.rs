//! Plays of a process under a service manager: what it tells it, and the sockets that it is given.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    backend::Backend,
    client::{Client, get},
    instance::{Manager, Stage, keeps_to, thread},
    process::has_strace,
    scripts::answers,
    stage::{Driver, eventually},
};

on_both_drivers!(
    a_service_manager_hears_of_the_start_of_reloads_and_of_the_stop,
    the_watchdog_is_fed_while_every_core_answers,
    sockets_that_were_opened_before_are_served_and_outlive_the_process,
);

fn a_service_manager_hears_of_the_start_of_reloads_and_of_the_stop(driver: Driver) {
    let (stage, backend) = (Stage::new(driver), Backend::open(answers("ok")));
    let backend = backend.address();
    stage.write(backend, "", "");
    let manager = Manager::new(&stage.folder);
    let mut process = stage.start(|command| _ = command.env("NOTIFY_SOCKET", &manager.path));
    let status = "STATUS=plan 1, 1/1 backends up, 0 connections, 0 requests in flight\n";
    assert_eq!(manager.next(), format!("READY=1\n{status}"));
    for (more, verdict) in [
        ("[[route]]\nname = \"x\"\npath = \"/x\"\npool = \"app\"", "last reload: + route \"x\"\n"),
        ("[[route]]", "last reload refused: "),
        ("", "last reload: - route \"x\"\n"),
        ("", "last reload: nothing changed\n"),
    ] {
        let again = Stage { driver, folder: process.folder.clone(), address: process.address };
        again.write(backend, "", more);
        process.signal(Signal::HUP);
        let reloading = manager.hears("RELOADING=1\n").0;
        let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
        let (ready, between) = manager.hears("READY=1\n");
        assert!(ready.contains(verdict), "{ready}");
        assert!(!between.iter().any(|it| it.contains("RELOADING")), "{between:?}");
    }
    process.signal(Signal::TERM);
    let stopping = manager.hears("STOPPING=1\n").0;
    assert!(stopping.contains("STATUS=stopping: "), "{stopping}");
    assert_eq!(process.ended().code(), Some(0));
}

fn the_watchdog_is_fed_while_every_core_answers(driver: Driver) {
    if !has_strace() {
        return;
    }
    let (stage, backend) = (Stage::new(driver), Backend::open(answers("ok")));
    stage.write(backend.address(), "", "");
    let manager = Manager::new(&stage.folder);
    let process = stage.start(|command| {
        command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "900000");
    });
    for _ in 0..3 {
        manager.hears("WATCHDOG=1\n");
    }
    let core = thread(process.child.id(), "ringway-0");
    let mut strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=all", "-e"])
        .args(["inject=all:delay_enter=120000000", "-p", &core.to_string()])
        .spawn()
        .unwrap();
    let (silent, _) = manager.hears("core 0 does not answer");
    assert!(!silent.contains("WATCHDOG"), "{silent}");
    let until = Instant::now() + Duration::from_secs(3);
    let rest = std::iter::from_fn(|| manager.next_by(until)).collect::<Vec<_>>();
    assert!(!rest.iter().any(|it| it.contains("WATCHDOG")), "{rest:?}");
    strace.kill().unwrap();
    strace.wait().unwrap();
}

/// As systemd does it: the sockets are the descriptors from 3 on, for the process of this id.
const GIVE: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                    export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$0\" \"$@\"";

fn sockets_that_were_opened_before_are_served_and_outlive_the_process(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let stage = Stage::new(driver);
    let (folder, address) = (stage.folder.clone(), stage.address);
    let socket = TcpListener::bind(address).unwrap();
    let other = TcpListener::bind(crate::addresses::free()).unwrap();
    let unused = other.local_addr().unwrap();
    stage.write(backend.address(), "", "");
    let start = |stage: Stage| {
        let given = [&socket, &other].map(|it| Stdio::from(OwnedFd::from(it.try_clone().unwrap())));
        let [first, second] = given;
        let mut command = Command::new("sh");
        command.args(["-c", GIVE, env!("CARGO_BIN_EXE_ringway")]).args(stage.arguments());
        keeps_to(&mut command, &stage.folder).env("RINGWAY_ADMIN", "off");
        stage.start_as({
            command.stdin(first).stdout(second);
            command
        })
    };
    let mut process = start(stage);
    let mut client = Client::connect(address);
    client.send(get("/")).response().expect(200, "ok");
    // Both cores serve; the socket that no listener wants is named.
    for _ in 0..20 {
        Client::connect(address).send(get("/")).response().expect(200, "ok");
    }
    let words = format!("address=\"{unused}\"");
    eventually("it says so", || process.said(), |said| said.contains("socket_unused"));
    assert!(process.said().contains(&words), "{}", process.said());
    process.signal(Signal::TERM);
    assert_eq!(process.ended().code(), Some(0));
    // Nothing serves, and nothing is refused.
    let mut waits = Client::over(TcpStream::connect(address).unwrap());
    waits.send(get("/"));
    let again = start(Stage { driver, folder, address });
    waits.response().expect(200, "ok");
    std::mem::forget(process);
    drop(again);
}
