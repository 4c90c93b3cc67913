//! Plays of Unix sockets: in front and behind, with a file and with an abstract name.
//!
//! Their files lie in a folder of the play; clients and servers are sockets of the library.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use ringway::Stop;

use crate::{
    scripts::answers,
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    a_client_is_served_at_a_unix_socket_and_has_no_address,
    a_client_is_served_at_an_abstract_name,
    a_backend_is_asked_by_its_unix_socket,
    a_backend_is_asked_by_its_abstract_name,
    connections_of_tcp_pass_by_unix_sockets_on_both_sides,
    a_probe_goes_to_the_unix_socket_of_its_backend,
    a_backend_whose_socket_is_gone_is_like_one_that_refuses,
    many_connect_to_a_backend_whose_queue_is_short,
    the_file_has_its_mode_and_goes_with_its_listener,
    an_abandoned_file_is_replaced_and_no_other,
    a_path_that_goes_to_another_listener_stays,
    rights_that_change_are_those_of_the_file_that_stays,
    the_file_belongs_to_whom_its_listener_says,
);

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder =
            std::env::temp_dir().join(format!("ringway-unix-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An abstract name that nobody else has.
fn name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("ringway-play-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst))
}

fn named(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).unwrap()
}

fn setting(driver: Driver) -> Setting {
    Stage::on(driver)
}

/// A second listener at this place, written as TOML.
fn listener(at: &str) -> String {
    format!("[listener.sock]\nbind = {at}\npool = \"app\"\n")
}

fn unix(file: &Path) -> String {
    format!("\"unix:{}\"", file.display())
}

/// Answers each request with its head, on as many connections as come.
fn says_heads(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answers_heads(stream));
        }
    });
}

fn answers_heads(mut stream: UnixStream) {
    let (mut read, mut room) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = read.drain(..end + 4).collect();
            let status = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
            if stream.write_all(&[status.as_bytes(), &head[..]].concat()).is_err() {
                return;
            }
        }
        match stream.read(&mut room) {
            Ok(count) if count > 0 => read.extend_from_slice(&room[..count]),
            Ok(_) | Err(_) => return,
        }
    }
}

/// Says back what it hears, until that ends.
fn says_back(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut reading, mut writing) = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut reading, &mut writing);
                let _ = writing.shutdown(Shutdown::Write);
            });
        }
    });
}

/// The whole answer to a request that is the last on its connection.
fn get(mut client: UnixStream) -> String {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: play.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn a_client_is_served_at_a_unix_socket_and_has_no_address(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("x.sock");
    let stage = setting(driver).backend(answers("hello")).sections(&listener(&unix(&file))).start();
    for _ in 0..3 {
        let answer = get(UnixStream::connect(&file).unwrap());
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
    }
    let request = stage.last_request();
    assert_eq!(request.field("x-forwarded-for"), Some("unknown"));
    assert_eq!(request.field("x-forwarded-port"), Some("80"));
}

fn a_client_is_served_at_an_abstract_name(driver: Driver) {
    let name = name();
    let bind = listener(&format!("[\"unix:@{name}\"]"));
    let mut stage = setting(driver).backend(answers("hello")).sections(&bind).cores(2).start();
    for _ in 0..8 {
        assert!(get(UnixStream::connect_addr(&named(&name)).unwrap()).ends_with("hello"));
    }
    assert!(stage.stop_beside(Stop::Graceful).join().unwrap().1);
    let connects = || UnixStream::connect_addr(&named(&name)).is_ok();
    eventually("the name is free", connects, |connects| !connects);
}

fn a_backend_is_asked_by_its_unix_socket(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("app.sock");
    says_heads(UnixListener::bind(&file).unwrap());
    let stage = setting(driver)
        .written(format!("unix:{}", file.display()))
        .pool("host = \"backend\"")
        .start();
    let mut client = stage.connect();
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: play.test\r\n\r\n");
        let body = client.response().text().to_owned();
        assert!(body.to_ascii_lowercase().contains("host: localhost\r\n"), "{body}");
    }
    assert_eq!(stage.count("backend_connection_reuse_total"), 4);
}

fn a_backend_is_asked_by_its_abstract_name(driver: Driver) {
    let name = name();
    says_heads(UnixListener::bind_addr(&named(&name)).unwrap());
    let stage = setting(driver).written(format!("unix:@{name}")).start();
    let body = stage.get("/").text().to_owned();
    assert!(body.starts_with("GET / HTTP/1.1\r\n"), "{body}");
}

fn connections_of_tcp_pass_by_unix_sockets_on_both_sides(driver: Driver) {
    let folder = Folder::new();
    let (front, back) = (folder.file("front.sock"), folder.file("back.sock"));
    says_back(UnixListener::bind(&back).unwrap());
    let sections =
        format!("[listener.sock]\nmode = \"tcp\"\nbind = {}\npool = \"app\"\n", unix(&front));
    let stage = setting(driver)
        .listener("mode = \"tcp\"")
        .written(format!("unix:{}", back.display()))
        .sections(&sections)
        .start();
    let mut client = UnixStream::connect(&front).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for size in [1, 100, 70_000, 1 << 20] {
        let said = vec![b'x'; size];
        let mut writing = client.try_clone().unwrap();
        let (all, to_say) = (size, said.clone());
        let saying = thread::spawn(move || writing.write_all(&to_say).unwrap());
        let mut heard = vec![0; all];
        client.read_exact(&mut heard).unwrap();
        saying.join().unwrap();
        assert!(heard == said);
    }
    assert_eq!(stage.count("tunnels"), 1);
    client.write_all(b"the end").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the end");
    stage.expect_count("tunnels", 0);
}

fn a_probe_goes_to_the_unix_socket_of_its_backend(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("app.sock");
    for kind in ["http", "tcp"] {
        let stage = setting(driver)
            .written(format!("unix:{}", file.display()))
            .pool(&format!(
                "health = {{ type = \"{kind}\", interval = \"100ms\", timeout = \"100ms\", \
                 rise = 1, fall = 1 }}"
            ))
            .start();
        stage.expect_count("backend_up", 0);
        let server = UnixListener::bind(&file).unwrap();
        says_heads(server);
        stage.expect_count("backend_up", 1);
        assert_eq!(stage.get("/").status, 200);
        fs::remove_file(&file).unwrap();
        stage.expect_count("backend_up", 0);
    }
}

fn a_backend_whose_socket_is_gone_is_like_one_that_refuses(driver: Driver) {
    let folder = Folder::new();
    let stage = setting(driver)
        .written(format!("unix:{}", folder.file("none.sock").display()))
        .backend(answers("hello"))
        .start();
    for _ in 0..6 {
        assert_eq!(stage.get("/").text(), "hello");
    }
    assert!(stage.count("retries_total") > 0);
}

/// The kernel refuses a connect to a full queue instead of letting it wait.
fn many_connect_to_a_backend_whose_queue_is_short(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("app.sock");
    let listener = UnixListener::bind(&file).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let stage = setting(driver).written(format!("unix:{}", file.display())).start();
    let address = stage.address();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn(move || {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                client.write_all(request).unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                answer
            })
        })
        .collect();
    // They all wait for room at once; then there is some.
    stage.expect_count("requests_in_flight", 20);
    says_heads(listener);
    for client in clients {
        let answer = client.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

fn the_file_has_its_mode_and_goes_with_its_listener(driver: Driver) {
    let folder = Folder::new();
    let (file, other) = (folder.file("x.sock"), folder.file("y.sock"));
    let bind = |mode: &str, more: &str| {
        let at = unix(&file);
        listener(&format!("[{{ address = {at}, mode = \"{mode}\" }}{more}]"))
    };
    let mut stage = setting(driver)
        .backend(answers("hello"))
        .sections(&bind("0620", &format!(", {}", unix(&other))))
        .start();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o620);
    assert!(get(UnixStream::connect(&other).unwrap()).ends_with("hello"));
    // A reload without the other one removes it, and leaves this one as it is.
    let before = fs::metadata(&file).unwrap().ino();
    stage.reload_sections(&bind("0620", ""));
    eventually("the file is removed", || other.exists(), |exists| !exists);
    assert_eq!(fs::metadata(&file).unwrap().ino(), before);
    assert!(get(UnixStream::connect(&file).unwrap()).ends_with("hello"));
    let (_, finished) = stage.stop_beside(Stop::Graceful).join().unwrap();
    assert!(finished && !file.exists());
}

fn rights_that_change_are_those_of_the_file_that_stays(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("x.sock");
    let bind = |more: &str| listener(&format!("[{{ address = {}{more} }}]", unix(&file)));
    let mut stage =
        setting(driver).backend(answers("hello")).sections(&bind(", mode = \"0600\"")).start();
    let before = fs::metadata(&file).unwrap().ino();
    // Without a word about it, it stays as it is.
    for (more, expected) in
        [(", mode = \"0666\"", 0o666), (", mode = \"0620\"", 0o620), ("", 0o620)]
    {
        stage.reload_sections(&bind(more));
        let now = fs::metadata(&file).unwrap();
        assert_eq!((now.permissions().mode() & 0o777, now.ino()), (expected, before), "{more}");
        assert!(get(UnixStream::connect(&file).unwrap()).ends_with("hello"));
    }
    assert!(stage.stop_beside(Stop::Graceful).join().unwrap().1 && !file.exists());
}

/// Only root may give a file to another user.
fn the_file_belongs_to_whom_its_listener_says(driver: Driver) {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").is_err(), "not root");
        eprintln!("skipped: not root");
        return;
    }
    let folder = Folder::new();
    let file = folder.file("x.sock");
    let bind =
        |owner: &str| listener(&format!("[{{ address = {}, owner = \"{owner}\" }}]", unix(&file)));
    let mut stage =
        setting(driver).backend(answers("hello")).sections(&bind("nobody:nogroup")).start();
    let whose = || {
        let now = fs::metadata(&file).unwrap();
        (now.uid(), now.gid())
    };
    assert_eq!(whose(), (NOBODY, NOBODY));
    for (owner, expected) in [("root", (0, NOBODY)), (":root", (0, 0)), ("nobody", (NOBODY, 0))] {
        stage.reload_sections(&bind(owner));
        assert_eq!(whose(), expected, "{owner}");
    }
    assert!(get(UnixStream::connect(&file).unwrap()).ends_with("hello"));
}

fn an_abandoned_file_is_replaced_and_no_other(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("x.sock");
    let set = || setting(driver).backend(answers("hello")).sections(&listener(&unix(&file)));
    drop(UnixListener::bind(&file).unwrap());
    assert_eq!(UnixStream::connect(&file).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let stage = set().start();
    assert!(get(UnixStream::connect(&file).unwrap()).ends_with("hello"));
    // While it is served nobody else takes it.
    let refused = set().try_start().err().unwrap();
    assert!(refused.contains("cannot listen on unix:") && refused.contains("in use"), "{refused}");
    drop(stage);
    assert!(!file.exists());
    fs::write(&file, "precious").unwrap();
    let refused = set().try_start().err().unwrap();
    assert!(refused.contains("a file that is no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

fn a_path_that_goes_to_another_listener_stays(driver: Driver) {
    let folder = Folder::new();
    let file = folder.file("x.sock");
    let bind = listener(&unix(&file));
    let mut stage = setting(driver).backend(answers("hello")).sections(&bind).start();
    let before = fs::metadata(&file).unwrap().ino();
    stage.reload_sections(&bind.replace("listener.sock", "listener.next"));
    for _ in 0..3 {
        assert!(get(UnixStream::connect(&file).unwrap()).ends_with("hello"));
        assert_eq!(fs::metadata(&file).unwrap().ino(), before);
    }
}
