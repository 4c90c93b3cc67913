//! Plays of reloads of the real process: by command, by HUP, and refused ones.
//!
//! A configuration is rewritten while clients send requests without a pause: each request is
//! answered, on the connection it came on. A mistake in a file changes nothing and is reported as
//! by `check`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    instance::keeps_to,
    scripts::answers,
    stage::{Driver, eventually},
};

on_both_drivers!(
    a_reload_says_what_it_changed_and_serves_by_it,
    what_is_wrong_changes_nothing,
    no_request_is_lost_while_plans_change,
);

/// A process, and the folder with its file and its socket.
struct Running {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    backends: [Backend; 2],
}

impl Running {
    fn start(driver: Driver) -> Running {
        let backends = [Backend::open(answers("a")), Backend::open(answers("b"))];
        let address = addresses::free();
        let name = format!("ringway-reload-{}-{}", std::process::id(), address.port());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let name = folder.join("r.toml");
        write(&name, address, &backends, "pool = \"a\"", "");
        let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
        let arguments = ["run", "--driver", driver, "--cores", "2", "--no-pin"];
        let child = command(&folder, &arguments).stderr(Stdio::null()).spawn().unwrap();
        let running = Running { child, folder, address, backends };
        eventually("it serves", || running.ask("ready").status.code(), |code| *code == Some(0));
        running
    }

    /// Writes the file with these keys for the listener, and with more text at its end.
    fn write(&self, listener: &str, more: &str) {
        write(&self.folder.join("r.toml"), self.address, &self.backends, listener, more);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&self.folder, arguments)
    }

    fn ask(&self, what: &str) -> Output {
        self.command(&[what]).output().unwrap()
    }

    #[track_caller]
    fn reloads(&self, expected: &str) {
        let said = self.ask("reload");
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// The program with these arguments, in the environment of this folder.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    keeps_to(&mut command, folder).args(arguments).arg("-c").arg(folder.join("r.toml"));
    command
}

fn write(file: &Path, address: SocketAddr, backends: &[Backend; 2], listener: &str, more: &str) {
    let [a, b] = backends.each_ref().map(Backend::address);
    let text = format!(
        "[global]\nadmin = \"off\"\n[listener.web]\nbind = \"{address}\"\n{listener}\n\
         [pool.a]\nbackends = [\"{a}\"]\n[pool.b]\nbackends = [\"{b}\"]\n{more}\n"
    );
    // A reader sees the whole file at any moment.
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn a_reload_says_what_it_changed_and_serves_by_it(driver: Driver) {
    let running = Running::start(driver);
    let mut client = Client::connect(running.address);
    client.send(get("/")).response().expect(200, "a");
    running.reloads("nothing changes\n");
    let route = "[[route]]\nname = \"canary\"\npath = \"/b\"\npool = \"b\"";
    running.write("pool = \"a\"", route);
    let dry = running.command(&["reload", "--dry-run"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&dry.stdout),
        "+ route \"canary\"\n(0 connections closed)\n"
    );
    client.send(get("/b")).response().expect(200, "a");
    running.reloads("+ route \"canary\"\n(0 connections closed)\n");
    // The same connection under a new plan.
    client.send(get("/b")).response().expect(200, "b");
    running.write("pool = \"b\"", "");
    running.signal(Signal::HUP);
    let asks = || Client::connect(running.address).send(get("/")).response().text().to_owned();
    eventually("HUP reloads", asks, |body| body == "b");
    let status = running.command(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["generation"].as_u64().unwrap() >= 4, "{status}");
}

fn what_is_wrong_changes_nothing(driver: Driver) {
    let running = Running::start(driver);
    for (wrong, words) in [
        ("pool = \"c\"", "pool \"c\", which is not defined"),
        ("pool = \"a\"\nbacklog = \"many\"", "r.toml:"),
        ("pool = \"a\"\n[[", "error"),
    ] {
        running.write(wrong, "");
        let said = running.ask("reload");
        let err = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{err}");
        assert!(err.contains(words) && err.contains("nothing was changed"), "{err}");
        running.signal(Signal::HUP);
        Client::connect(running.address).send(get("/")).response().expect(200, "a");
    }
    // An address that is in use.
    let taken = std::net::TcpListener::bind(addresses::free()).unwrap();
    let taken = taken.local_addr().unwrap();
    running.write("pool = \"b\"", &format!("[listener.two]\nbind = \"{taken}\"\npool = \"a\""));
    let said = running.ask("reload");
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    Client::connect(running.address).send(get("/")).response().expect(200, "a");
    fs::remove_file(running.folder.join("r.toml")).unwrap();
    running.signal(Signal::HUP);
    Client::connect(running.address).send(get("/")).response().expect(200, "a");
}

fn no_request_is_lost_while_plans_change(driver: Driver) {
    let running = Running::start(driver);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asks = || {
            let (mut client, mut answers) = (Client::connect(running.address), 0);
            while !over.load(SeqCst) {
                let response = client.send(get("/")).response();
                assert_eq!(response.status, 200, "{response:?}");
                answers += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(asks)).collect();
        let ends = scope.spawn(|| {
            let _ends = Ends(&over);
            for round in 0..24 {
                let (pool, other) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
                let free = addresses::free();
                let two = format!("[listener.two]\nbind = \"{free}\"\npool = \"{other}\"");
                let more = if round % 3 == 0 { two } else { String::new() };
                running.write(&format!("pool = \"{pool}\""), &more);
                assert_eq!(running.ask("reload").status.code(), Some(0));
            }
        });
        ends.join().unwrap();
        let answers: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > 100, "{answers} answers");
    });
}

/// Says that the play is over, even if it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
