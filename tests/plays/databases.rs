//! Plays of databases behind a TCP listener, asked by their own clients: PostgreSQL with psql and
//! pgbench, Redis with redis-cli and redis-benchmark, and one of two Redis servers that is killed
//! under load.
//!
//! Their files lie in a folder of the play. A server that will not run as root runs as nobody.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    addresses,
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    postgresql_is_asked_by_psql_and_pgbench,
    redis_is_asked_by_its_own_clients,
    one_of_two_redis_servers_is_killed_under_load,
);

/// Longer than any program of these takes on a late machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// nobody and nogroup.
const NOBODY: u32 = 65534;

/// Where programs are that a path does not name.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// The path of a program, if it is there.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    let more = MORE_FOLDERS.into_iter().map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(more).chain(versions);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The paths of these programs. If one is missing this says so; in CI that is a failure.
fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let paths = names.map(program);
    for (name, path) in names.iter().zip(&paths) {
        if path.is_none() {
            assert!(std::env::var("CI").is_err(), "{name} is missing");
            eprintln!("skipped: {name} is missing");
            return None;
        }
    }
    Some(paths.map(Option::unwrap))
}

/// A folder that is removed with it, and belongs to those who run servers.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let name = format!("ringway-base-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        if geteuid().is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Folder(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program that keeps to the folder, and is not root.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(&self.0).env("HOME", &self.0).env("LC_ALL", "C");
        command
    }

    /// Starts a server, what it says goes to a file.
    fn serves(&self, mut command: Command, name: &str) -> Server {
        let log = File::create(self.file(name)).unwrap();
        let output = Stdio::from(log.try_clone().unwrap());
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap();
        Server { child, log: self.file(name) }
    }

    /// Runs a program to its end; returns what it said.
    #[track_caller]
    fn run(&self, mut command: Command, input: &str) -> String {
        let said = self.file("said");
        let output = File::create(&said).unwrap();
        let command = command.stdin(Stdio::piped()).stderr(output.try_clone().unwrap());
        let mut child = command.stdout(output).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writing = thread::spawn(move || stdin.write_all(input.as_bytes()));
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{command:?} hangs: {}", fs::read_to_string(&said).unwrap());
            }
            thread::sleep(Duration::from_millis(10));
        };
        let _ = writing.join().unwrap();
        let said = fs::read_to_string(&said).unwrap();
        assert!(status.success(), "{command:?}: {status}, {said}");
        said
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server of a database.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // PostgreSQL ends its children and itself; Redis takes no notice.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        if thread::panicking() {
            eprintln!("it said: {}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn tcp(driver: Driver) -> Setting {
    Stage::on(driver).listener("mode = \"tcp\"")
}

/// A running PostgreSQL, and the addresses at which it is asked.
fn postgresql(folder: &Folder, [initdb, postgres]: [&Path; 2]) -> (Server, [String; 2]) {
    let cluster = folder.file("cluster");
    let mut command = folder.command(initdb);
    command.args(["--auth=trust", "--username=play", "--encoding=UTF8", "--locale=C"]);
    command.args(["--no-sync", "-D"]).arg(&cluster);
    folder.run(command, "");
    let address = addresses::free();
    let mut command = folder.command(postgres);
    command.arg("-D").arg(&cluster).arg("-k").arg(&folder.0);
    command.arg("-p").arg(address.port().to_string());
    for setting in [
        format!("listen_addresses={}", address.ip()),
        "fsync=off".to_owned(),
        "shared_buffers=16MB".to_owned(),
        "max_connections=40".to_owned(),
    ] {
        command.args(["-c", &setting]);
    }
    let server = folder.serves(command, "postgres.log");
    let is_ready = || {
        fs::read_to_string(&server.log).is_ok_and(|log| log.contains("ready to accept connections"))
    };
    eventually("postgres is ready", is_ready, |ready| *ready);
    let socket = folder.file(&format!(".s.PGSQL.{}", address.port()));
    (server, [address.to_string(), format!("unix:{}", socket.display())])
}

fn postgresql_is_asked_by_psql_and_pgbench(driver: Driver) {
    let Some([initdb, postgres, psql, pgbench]) =
        programs(["initdb", "postgres", "psql", "pgbench"])
    else {
        return;
    };
    let folder = Folder::new();
    let (_server, addresses) = postgresql(&folder, [&initdb, &postgres]);
    for address in &addresses {
        let stage = tcp(driver).written(address).start();
        let at = stage.address();
        let client = |program: &Path| {
            let mut command = folder.command(program);
            command.env("PGHOST", at.ip().to_string()).env("PGPORT", at.port().to_string());
            command.env("PGUSER", "play").env("PGDATABASE", "postgres");
            command.env("PGCONNECT_TIMEOUT", "30");
            command
        };
        let ask = |script: &str| {
            let mut command = client(&psql);
            command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
            folder.run(command, script)
        };
        // Much goes in and comes out, in one connection.
        let lines: String = (0..200_000).map(|number| format!("{number}\n")).collect();
        let said = ask(&format!(
            "set client_min_messages = warning;\n\
             drop table if exists numbers; create table numbers (number int);\n\
             copy numbers from stdin;\n{lines}\\.\n\
             select count(*), sum(number) from numbers;\n\
             select length(repeat('x', 3000000)), repeat('y', 300000);\n"
        ));
        let mut said = said.lines();
        assert_eq!(said.next(), Some("200000|19999900000"));
        assert_eq!(said.next(), Some(&*format!("3000000|{}", "y".repeat(300_000))));
        let out = ask("copy (select number from numbers order by number) to stdout;");
        assert!(out == lines, "{} bytes of {}", out.len(), lines.len());
        // A notice of the server comes while the client waits for nothing.
        let said = ask("listen word; notify word, 'heard'; select 1;");
        assert!(said.contains("\"heard\""), "{said}");
        let mut command = client(&pgbench);
        command.args(["-q", "-i", "-s", "1"]);
        folder.run(command, "");
        for more in [&["-T", "2"][..], &["-t", "20", "-C"], &["-T", "1", "-M", "prepared", "-S"]] {
            let mut command = client(&pgbench);
            command.args(["-c", "8", "-j", "2"]).args(more);
            let said = folder.run(command, "");
            assert!(said.contains("number of failed transactions: 0 ("), "{said}");
        }
        stage.expect_count("tunnels", 0);
    }
}

/// A running Redis at this address, and at the socket `NAME.sock`.
fn redis(folder: &Folder, program: &Path, address: SocketAddr, name: &str) -> Server {
    let mut command = folder.command(program);
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    command.arg("--unixsocket").arg(folder.file(&format!("{name}.sock")));
    command.args(["--unixsocketperm", "777"]);
    let server = folder.serves(command, &format!("{name}.log"));
    let pings = || said_by(address, "PING").ok();
    eventually("redis answers", pings, |said| said.as_deref() == Some("+PONG"));
    server
}

/// The first line that is said to a command, on a connection of its own.
fn said_by(address: SocketAddr, command: &str) -> io::Result<String> {
    Conn::open(address)?.ask(command)
}

/// A connection to Redis.
struct Conn(BufReader<TcpStream>);

impl Conn {
    fn open(address: SocketAddr) -> io::Result<Conn> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Conn(BufReader::new(stream)))
    }

    /// The first line that is said to a command.
    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn redis_is_asked_by_its_own_clients(driver: Driver) {
    let Some([server, cli, benchmark]) = programs(["redis-server", "redis-cli", "redis-benchmark"])
    else {
        return;
    };
    let folder = Folder::new();
    let address = addresses::free();
    let _server = redis(&folder, &server, address, "redis");
    let socket = format!("unix:{}", folder.file("redis.sock").display());
    for backend in [address.to_string(), socket] {
        let stage = tcp(driver).written(backend).start();
        let (host, port) = (stage.address().ip().to_string(), stage.address().port().to_string());
        let client = |program: &Path, arguments: &[&str]| {
            let mut command = folder.command(program);
            command.args(["-h", &host, "-p", &port]).args(arguments);
            command
        };
        let ask = |arguments: &[&str], input: &str| folder.run(client(&cli, arguments), input);
        assert_eq!(ask(&["PING"], ""), "PONG\n");
        // A value of some size, in and out.
        let long = "0123456789".repeat(200_000);
        assert_eq!(ask(&["-x", "SET", "long"], &long), "OK\n");
        assert!(ask(&["GET", "long"], "") == format!("{long}\n"));
        // Many commands at once.
        let many: String =
            (0..20_000).map(|number| format!("SET key{number} {number}\r\n")).collect();
        let said = ask(&["--pipe"], &many);
        assert!(said.contains("errors: 0, replies: 20000"), "{said}");
        assert_eq!(ask(&["GET", "key19999"], ""), "19999\n");
        // One that is told something without a question.
        let mut subscriber = Conn::open(stage.address()).unwrap();
        assert_eq!(subscriber.ask("SUBSCRIBE news").unwrap(), "*3");
        assert_eq!(ask(&["PUBLISH", "news", "hello"], ""), "1\n");
        let mut heard = String::new();
        while !heard.contains("hello") {
            assert_ne!(subscriber.0.read_line(&mut heard).unwrap(), 0, "{heard}");
        }
        drop(subscriber);
        for pipeline in ["1", "16"] {
            let arguments =
                ["-q", "-n", "4000", "-c", "20", "-P", pipeline, "-t", "set,get,lrange"];
            let said = folder.run(client(&benchmark, &arguments), "");
            assert!(said.contains("GET:") && !said.contains("rror"), "{said}");
        }
        stage.expect_count("tunnels", 0);
    }
}

/// What the clients of a load have seen.
#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    broken: AtomicUsize,
    /// The most failures in a row that a client has had.
    in_a_row: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// Asks again and again, on a connection for as long as that lasts.
fn asks_on(address: SocketAddr, (name, ends): (usize, &AtomicBool), seen: &Seen) {
    let (mut conn, mut in_a_row) = (None, 0);
    let mut number = 0_u64;
    while !ends.load(SeqCst) {
        number += 1;
        let mut ask = || -> io::Result<()> {
            let conn = match &mut conn {
                Some(conn) => conn,
                None => conn.insert(Conn::open(address)?),
            };
            for (command, expected) in [
                (format!("SET of{name} {number}"), "+OK".to_owned()),
                // It is asked on the same connection, so of the same server.
                (format!("INCRBY of{name} 0"), format!(":{number}")),
            ] {
                let said = conn.ask(&command)?;
                if said != expected {
                    seen.wrong.lock().unwrap().push(format!("{command}: {said}"));
                }
            }
            Ok(())
        };
        if ask().is_ok() {
            seen.asked.fetch_add(1, SeqCst);
            in_a_row = 0;
        } else {
            conn = None;
            in_a_row += 1;
            seen.broken.fetch_add(1, SeqCst);
            seen.in_a_row.fetch_max(in_a_row, SeqCst);
        }
    }
}

const CLIENTS: usize = 16;

fn one_of_two_redis_servers_is_killed_under_load(driver: Driver) {
    let Some([server]) = programs(["redis-server"]) else { return };
    let folder = Folder::new();
    let addresses = [addresses::free(), addresses::free()];
    let mut killed = redis(&folder, &server, addresses[0], "one");
    let _other = redis(&folder, &server, addresses[1], "two");
    let stage = tcp(driver)
        .pool("balance = \"least-connections\"\npassive = { eject = \"1s\" }")
        .written(addresses[0].to_string())
        .written(addresses[1].to_string())
        .start();
    let (seen, ends) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|name| {
            let (seen, ends) = (Arc::clone(&seen), Arc::clone(&ends));
            let address = stage.address();
            thread::spawn(move || asks_on(address, (name, &ends), &seen))
        })
        .collect();
    let at_work = |what: &str| {
        let before = seen.asked.load(SeqCst);
        eventually(what, || seen.asked.load(SeqCst) - before, |more| *more >= 50 * CLIENTS);
    };
    at_work("both serve");
    let of =
        |server: SocketAddr| stage.count(&format!("backend_in_flight{{backend=\"{server}\"}}"));
    eventually("each has half", || of(addresses[0]), |count| *count == CLIENTS as u64 / 2);
    assert_eq!(seen.broken.load(SeqCst), 0);
    killed.kill();
    at_work("the other serves");
    eventually("it has all", || of(addresses[1]), |count| *count == CLIENTS as u64);
    let broken = seen.broken.load(SeqCst);
    // Those that it had. One may have connected once more to a server that was just ending.
    assert!((CLIENTS / 2..=CLIENTS).contains(&broken), "{broken} connections broke");
    let in_a_row = seen.in_a_row.load(SeqCst);
    assert!(in_a_row <= 2, "a client failed {in_a_row} times in a row");
    let _again = redis(&folder, &server, addresses[0], "again");
    // New connections find it.
    let returns = || {
        let more: Vec<_> = (0..2).map(|_| said_by(stage.address(), "PING")).collect();
        assert!(more.iter().all(Result::is_ok), "{more:?}");
        stage.count(&format!("backend_requests_total{{backend=\"{}\"}}", addresses[0]))
    };
    let before = returns();
    eventually("it is asked again", returns, |count| *count > before + 1);
    at_work("all goes on");
    ends.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(seen.broken.load(SeqCst), broken, "nobody else was cut");
    assert_eq!(*seen.wrong.lock().unwrap(), [""; 0]);
    stage.expect_count("tunnels", 0);
}
