//! Plays of the access log: its lines, that no client can forge one, and that a disk never keeps a
//! client waiting.
//!
//! Each play has a directory of its own. Lines are checked once the proxy has stopped, which hands
//! over all there are.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ringway::Stop;
use serde_json::{Map, Value};

use crate::{
    backend::{Script, plays},
    client::{Client, get, post},
    pace::Watch,
    scripts::{answers, delays, never_answers, sends_and_closes, upgrades_and_echoes},
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    a_line_says_what_was_asked_and_answered,
    bytes_are_those_of_the_wire,
    times_say_who_was_slow,
    retries_are_counted_and_the_last_backend_named,
    a_route_and_whom_a_trusted_proxy_asks_for_are_named,
    what_was_refused_has_a_line_with_the_id_that_the_client_saw,
    a_full_process_has_a_line_for_whom_it_refuses,
    how_an_exchange_ended_has_a_code,
    what_strangers_send_cannot_forge_a_line,
    text_formats_are_those_that_tools_read,
    lines_come_by_themselves_within_two_seconds,
    a_moved_file_is_left_alone_once_logs_are_reopened,
    a_directory_that_is_gone_keeps_nobody_waiting,
    a_full_disk_keeps_nobody_waiting_and_its_lines_are_counted,
    a_file_that_cannot_be_opened_is_named_and_nothing_starts,
    ; at a pace:
    a_slow_reader_keeps_nobody_waiting_and_dropped_lines_are_told,
);

/// The keys of a line, in the order that is published.
const KEYS: [&str; 30] = [
    "time",
    "request_id",
    "listener",
    "client",
    "peer",
    "method",
    "scheme",
    "host",
    "path",
    "query",
    "protocol",
    "status",
    "request_bytes",
    "response_bytes",
    "route",
    "pool",
    "backend",
    "reused",
    "attempts",
    "t_queue",
    "t_connect",
    "t_first_byte",
    "t_total",
    "t_self",
    "term",
    "sticky",
    "tls",
    "user_agent",
    "referer",
    "trace_id",
];

/// A directory for the log of one play.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("ringway-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("access.log")
    }

    /// A stage whose listener logs here.
    pub(crate) fn stage(&self, driver: Driver, format: &str) -> Setting {
        Stage::on(driver).listener(&self.line(format))
    }

    /// What a listener needs to log here.
    pub(crate) fn line(&self, format: &str) -> String {
        let path = self.path();
        format!("access-log = {{ path = \"{}\", format = \"{format}\" }}", path.display())
    }

    /// The lines, after the stage has been struck.
    #[track_caller]
    pub(crate) fn lines(&self, mut stage: Stage) -> Vec<Map<String, Value>> {
        stop(&mut stage);
        lines(&self.path())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Stops the proxy; by then the log has what its exchanges wrote.
fn stop(stage: &mut Stage) {
    stage.expect_count("requests_in_flight", 0);
    stage.stop_beside(Stop::Now).join().unwrap();
}

/// The lines of a file: each an object with all the keys in order, or a note of dropped ones.
#[track_caller]
fn lines(path: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is cut: {text}");
    text.lines().map(object).collect()
}

#[track_caller]
fn object(line: &str) -> Map<String, Value> {
    let object: Map<String, Value> =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if !object.contains_key("dropped") {
        // The library sorts keys; their order is checked in the text.
        let places = KEYS.map(|key| line.find(&format!("\"{key}\":")).expect(key));
        let is_more = |key: &&String| {
            matches!(&***key, "tries" | "ended_by" | "stream_reset") || key.starts_with("proxy_")
        };
        let more = object.keys().filter(is_more).count();
        assert!(places.is_sorted() && object.len() == KEYS.len() + more, "{line}");
    }
    object
}

/// The strings under a key.
fn texts<'a>(lines: &'a [Map<String, Value>], key: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[key].as_str().unwrap_or("null")).collect()
}

fn a_line_says_what_was_asked_and_answered(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("hello")).start();
    let backend = stage.backend(0).address().to_string();
    let mut client = stage.connect();
    client.send(
        "GET /a/b?q=1&r HTTP/1.1\r\nHost: Play.Test:80\r\nConnection: User-Agent\r\n\
         User-Agent: player/1\r\nReferer: http://other/\r\n\r\n",
    );
    client.response().expect(200, "hello");
    client.send("POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n").response().expect(200, "hello");
    client.expect_end();
    let lines = folder.lines(stage);
    let [first, second] = &lines[..] else { panic!("{lines:?}") };
    for (key, expected) in [
        ("listener", "web"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "Play.Test:80"),
        ("path", "/a/b"),
        ("query", "q=1&r"),
        ("protocol", "HTTP/1.1"),
        ("pool", "app"),
        ("backend", &*backend),
        ("term", "ok"),
        // A client can have it kept from the backend, but not from the log.
        ("user_agent", "player/1"),
        ("referer", "http://other/"),
    ] {
        assert_eq!(first[key], expected, "{key}");
    }
    for key in ["route", "t_queue", "sticky", "tls"] {
        assert_eq!(first[key], Value::Null, "{key}");
    }
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!((&first["status"], &first["attempts"]), (&200.into(), &1.into()));
    assert_eq!((&first["reused"], &second["reused"]), (&false.into(), &true.into()));
    assert!(first["t_connect"].is_f64() && second["t_connect"].is_null());
    assert_eq!((&second["method"], &second["protocol"]), (&"POST".into(), &"HTTP/1.0".into()));
    for key in ["host", "user_agent", "referer"] {
        assert_eq!(second[key], Value::Null, "{key}");
    }
    let ids = texts(&lines, "request_id");
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 26), "{ids:?}");
}

fn bytes_are_those_of_the_wire(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("hello")).start();
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let small = post("/s", "small");
    let large = post("/l", &"a".repeat(300_000));
    let requests = [&get("/g"), &small, chunked, &large, &get("/h"), &small];
    let mut answers = Vec::new();
    for request in requests {
        // Each alone on its connection, so that the answer ends with it.
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let mut client = stage.connect();
        client.send(&request);
        answers.push((request.len(), client.wire().until_end().unwrap().len()));
    }
    // And in a pipeline, where the fields of one must not show in another.
    let mut client = stage.connect();
    client.send(requests.concat());
    for _ in requests {
        client.response().expect(200, "hello");
    }
    drop(client);
    let lines = folder.lines(stage);
    let number = |line: &Map<String, Value>, key| line[key].as_u64().unwrap() as usize;
    let said = |line| (number(line, "request_bytes"), number(line, "response_bytes"));
    assert_eq!(lines[..6].iter().map(said).collect::<Vec<_>>(), answers);
    let lengths = requests.map(str::len);
    assert_eq!(lines[6..].iter().map(|line| said(line).0).collect::<Vec<_>>(), lengths);
}

fn times_say_who_was_slow(driver: Driver) {
    let folder = Folder::new();
    let slow = Duration::from_millis(400);
    let stage = folder.stage(driver, "json").backend(delays(slow, "ok")).start();
    let mut client = stage.connect();
    let watch = Watch::start();
    client.send(get("/backend")).response().expect(200, "ok");
    // The first byte begins it, and the client takes its time.
    client.send_slowly("GET", slow / 2).send(&get("/client")[3..]).response().expect(200, "ok");
    drop(client);
    let lines = folder.lines(stage);
    let own_at_most = 200.0 + watch.took().late.as_secs_f64() * 1e3;
    let times = |line: &Map<String, Value>| {
        ["t_first_byte", "t_total", "t_self"].map(|key| line[key].as_f64().unwrap())
    };
    let [first_byte, total, own] = times(&lines[0]);
    assert!(first_byte >= 400.0 && total >= first_byte && own < own_at_most, "{:?}", lines[0]);
    let [first_byte, total, own] = times(&lines[1]);
    assert!(total >= first_byte + 300.0 && own < own_at_most, "{:?}", lines[1]);
}

fn retries_are_counted_and_the_last_backend_named(driver: Driver) {
    let folder = Folder::new();
    let setting = folder.stage(driver, "json").backend(Script::Refuses).backend(answers("ok"));
    let stage = setting.start();
    let good = stage.backend(1).address().to_string();
    for _ in 0..2 {
        stage.get("/").expect(200, "ok");
    }
    let lines = folder.lines(stage);
    assert_eq!(texts(&lines, "backend"), [&good, &good]);
    let mut attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [Some(1), Some(2)]);
}

fn a_route_and_whom_a_trusted_proxy_asks_for_are_named(driver: Driver) {
    let folder = Folder::new();
    let stage = folder
        .stage(driver, "json")
        .listener("trusted-proxies = [\"127.0.0.0/8\"]")
        .sections("[[route]]\nname = \"api\"\npath = \"/api\"\npool = \"app\"")
        .backend(answers("ok"))
        .start();
    let mut client = stage.connect();
    client.send("GET /api/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    client.response().expect(200, "ok");
    drop(client);
    let lines = folder.lines(stage);
    assert_eq!(texts(&lines, "route"), ["api"]);
    assert_eq!(texts(&lines, "client"), ["192.0.2.7"]);
    assert!(texts(&lines, "peer")[0].starts_with("127.0.0.1:"));
}

fn what_was_refused_has_a_line_with_the_id_that_the_client_saw(driver: Driver) {
    let folder = Folder::new();
    let route = "[[route]]\nname = \"r\"\npath = \"/only\"\npool = \"app\"";
    let stage = folder
        .stage(driver, "json")
        .listener("timeouts = { client-header = \"1s\" }")
        .without_default_pool()
        .sections(route)
        .backend(Script::Refuses)
        .start();
    #[rustfmt::skip]
    let cases = [
        ("nonsense\r\n\r\n", 400, "bad_request", "null", "null"),
        ("GET /known HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400, "bad_request", "null", "null"),
        ("GET /both HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request", "GET", "/both"),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 404, "no_route", "GET", "/none"),
        ("TRACE /only HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_refused", "TRACE", "/only"),
        ("GET /slow HTTP/1.1\r\nHo", 408, "request_timeout", "null", "null"),
        ("GET /only HTTP/1.1\r\nHost: a\r\n\r\n", 502, "connect_failed", "GET", "/only"),
    ];
    let mut ids = Vec::new();
    for (request, status, code, ..) in cases {
        let mut client = stage.connect();
        let response = client.send(request).response();
        response.expect_fault(status, code);
        let id = response.field("x-request-id").unwrap().to_owned();
        assert!(response.text().contains(&format!("\"request_id\":\"{id}\"")), "{response:?}");
        ids.push(id);
    }
    let lines = folder.lines(stage);
    assert_eq!(texts(&lines, "request_id"), ids);
    assert_eq!(texts(&lines, "term"), cases.map(|(_, _, code, ..)| code));
    assert_eq!(texts(&lines, "path"), cases.map(|(.., path)| path));
    for (line, (request, status, _, method, _)) in lines.iter().zip(cases) {
        assert_eq!(line["status"], status);
        assert_eq!(line["request_bytes"], request.len(), "{request}");
        if method != "null" {
            assert_eq!(line["method"], method);
        }
    }
}

fn a_full_process_has_a_line_for_whom_it_refuses(driver: Driver) {
    let folder = Folder::new();
    let stage = folder
        .stage(driver, "json")
        .listener("max-connections = 1")
        .backend(never_answers())
        .start();
    let mut busy = stage.connect();
    busy.send(get("/"));
    stage.expect_count("requests_in_flight", 1);
    let response = stage.connect().response();
    response.expect_fault(503, "overloaded");
    let id = response.field("x-request-id").unwrap().to_owned();
    busy.reset();
    let lines = folder.lines(stage);
    assert_eq!(texts(&lines, "request_id")[0], id);
    assert_eq!(texts(&lines, "term"), ["overloaded", "client_abort"]);
    assert_eq!((&lines[0]["status"], &lines[1]["status"]), (&503.into(), &Value::Null));
}

fn how_an_exchange_ended_has_a_code(driver: Driver) {
    const UPGRADE: &str =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let code = |tunnel: &str, script: Script, play: fn(&mut Client)| {
        let folder = Folder::new();
        let timeouts = &format!("timeouts = {{ tunnel = \"{tunnel}\" }}");
        let stage = folder.stage(driver, "json").listener(timeouts).backend(script).start();
        let mut client = stage.connect();
        play(&mut client);
        drop(client);
        let lines = folder.lines(stage);
        assert_eq!(lines.len(), 1);
        (lines[0]["status"].clone(), texts(&lines, "term")[0].to_owned())
    };
    let cut = sends_and_closes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let incomplete = code("1h", cut, |client| {
        client.send(get("/")).wire().until_end().unwrap();
    });
    assert_eq!(incomplete, (200.into(), "response_incomplete".to_owned()));
    let closed = code("1h", upgrades_and_echoes(), |client| {
        assert_eq!(client.send(UPGRADE).response().status, 101);
        client.send("word");
        assert_eq!(client.wire().bytes(4).unwrap(), b"word");
        client.half_close().expect_end();
    });
    assert_eq!(closed, (101.into(), "tunnel_closed".to_owned()));
    let idle = code("300ms", upgrades_and_echoes(), |client| {
        assert_eq!(client.send(UPGRADE).response().status, 101);
        client.expect_gone();
    });
    assert_eq!(idle, (101.into(), "tunnel_idle".to_owned()));
}

/// Pieces that end a string, a line or a field somewhere.
const HOSTILE: [&[u8]; 12] = [
    b"\"",
    b"\\",
    b"\",\"status\":200,\"x\":\"",
    b"\" 200 1 \"",
    b"\x80\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"}{",
    b"\\u0022",
    b"\\n",
    b"%0a%22",
];

/// Some of these, or none.
fn hostile(seed: &mut u64) -> Vec<u8> {
    let mut draw = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    };
    (0..draw() % 6).flat_map(|_| HOSTILE[draw() % HOSTILE.len()]).copied().collect()
}

fn what_strangers_send_cannot_forge_a_line(driver: Driver) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for format in ["json", "combined"] {
        let mut state = seed;
        let folder = Folder::new();
        // The bytes it gets are no text, which the other scripts would complain about.
        let deaf = plays(|visit| {
            visit.wire().some()?;
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        });
        let mut stage = folder.stage(driver, format).backend(deaf).start();
        let mut agents = Vec::new();
        for number in 0..100 {
            let [mut path, mut host, agent, referer] = [(); 4].map(|()| hostile(&mut state));
            // A host or a path like this is usually refused, and then the other fields are not
            // read.
            if number % 4 > 0 {
                host.clear();
            }
            if number % 8 > 1 {
                path.clear();
            }
            let mut request = b"GET /".to_vec();
            request.extend([&path[..], b"?", &path, b" HTTP/1.1\r\nHost: a"].concat());
            request.extend([&host[..], b"\r\nUser-Agent: a", &agent, b"z\tz\r\n"].concat());
            request
                .extend([&b"Referer: "[..], &referer, b"\r\nConnection: close\r\n\r\n"].concat());
            let mut client = stage.connect();
            client.send(request).wire().until_end().unwrap();
            agents
                .push(String::from_utf8_lossy(&[b"a", &agent[..], b"z\tz"].concat()).into_owned());
        }
        stop(&mut stage);
        if format == "json" {
            let lines = lines(&folder.path());
            assert_eq!(lines.len(), 100);
            for (line, agent) in lines.iter().zip(agents) {
                // If the head could be read it says what was sent; otherwise nothing.
                let said = line["user_agent"].as_str();
                assert!(said.is_none_or(|said| said == agent), "{said:?} is not {agent:?}");
            }
            assert!(lines.iter().any(|line| line["status"] == 200));
        } else {
            let text = fs::read(folder.path()).unwrap();
            assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 100);
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
                assert_eq!(line.iter().filter(|byte| **byte == b'"').count(), 6);
            }
        }
    }
}

fn text_formats_are_those_that_tools_read(driver: Driver) {
    for format in ["combined", "common"] {
        let folder = Folder::new();
        let mut stage = folder.stage(driver, format).backend(answers("ok")).start();
        let mut client = stage.connect();
        client.send("GET /x?y HTTP/1.1\r\nHost: a\r\nUser-Agent: p/1 \"q\"\r\n\r\n").response();
        drop(client);
        stop(&mut stage);
        let text = fs::read_to_string(folder.path()).unwrap();
        let (start, rest) = text.split_once(" [").unwrap();
        let (date, rest) = rest.split_once("] ").unwrap();
        assert_eq!(start, "127.0.0.1 - -");
        assert_eq!((date.len(), &date[2..3], &date[20..]), (26, "/", " +0000"));
        let (request, rest) = rest.split_once(" 200 ").unwrap();
        assert_eq!(request, "\"GET /x?y HTTP/1.1\"");
        let bytes: String = rest.chars().take_while(char::is_ascii_digit).collect();
        assert!(bytes.parse::<u32>().unwrap() > 30);
        let fields = if format == "combined" { " \"-\" \"p/1 \\x22q\\x22\"\n" } else { "\n" };
        assert_eq!(&rest[bytes.len()..], fields);
    }
}

fn lines_come_by_themselves_within_two_seconds(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("ok")).start();
    let mut client = stage.connect();
    let wait = client.waits(|client| {
        client.send(get("/")).response().expect(200, "ok");
        let count = || fs::read_to_string(folder.path()).unwrap().lines().count();
        eventually("the line is there", count, |count| *count == 1);
    });
    // A line is not worth a write of its own.
    wait.expect_at_least(Duration::from_millis(500));
    wait.expect_at_most(Duration::from_secs(2));
    // No client is left, and the core sleeps: before that it hands over.
    client.send(get("/")).response().expect(200, "ok");
    drop(client);
    let count = || fs::read_to_string(folder.path()).unwrap().lines().count();
    eventually("the line of a client that has left is there", count, |count| *count == 2);
}

fn a_moved_file_is_left_alone_once_logs_are_reopened(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").cores(2).backend(answers("ok")).start();
    stage.get("/before").expect(200, "ok");
    let moved = folder.0.join("access.log.1");
    let count = || fs::read_to_string(folder.path()).unwrap().lines().count();
    eventually("the line is there", count, |count| *count == 1);
    fs::rename(folder.path(), &moved).unwrap();
    assert!(stage.reopen_logs());
    eventually("the file is there", || folder.path().exists(), |exists| *exists);
    stage.get("/after").expect(200, "ok");
    assert_eq!(texts(&folder.lines(stage), "path"), ["/after"]);
    assert_eq!(texts(&lines(&moved), "path"), ["/before"]);
    assert!(!Stage::on(driver).start().reopen_logs(), "there is none to reopen");
}

fn a_directory_that_is_gone_keeps_nobody_waiting(driver: Driver) {
    let folder = Folder::new();
    let stage = folder.stage(driver, "json").backend(answers("ok")).start();
    fs::remove_dir_all(&folder.0).unwrap();
    assert!(stage.reopen_logs());
    stage.get("/").expect(200, "ok");
    fs::create_dir_all(&folder.0).unwrap();
    assert!(stage.reopen_logs());
    eventually("the file is there", || folder.path().exists(), |exists| *exists);
    stage.get("/again").expect(200, "ok");
    assert!(texts(&folder.lines(stage), "path").contains(&"/again"));
}

fn a_full_disk_keeps_nobody_waiting_and_its_lines_are_counted(driver: Driver) {
    let folder = Folder::new();
    symlink("/dev/full", folder.path()).unwrap();
    let stage = folder.stage(driver, "json").backend(answers("ok")).start();
    for _ in 0..3 {
        stage.get("/lost").expect(200, "ok");
    }
    stage.expect_count("access_log_dropped_total", 3);
    fs::remove_file(folder.path()).unwrap();
    assert!(stage.reopen_logs());
    stage.get("/kept").expect(200, "ok");
    let lines = folder.lines(stage);
    let [note, kept] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&note["dropped"], &kept["path"]), (&3.into(), &"/kept".into()));
    assert!(note["time"].is_string());
}

/// A stop waits five seconds for a reader, which must have read everything by then.
fn a_slow_reader_keeps_nobody_waiting_and_dropped_lines_are_told(driver: Driver, _: u32) {
    let folder = Folder::new();
    let made = std::process::Command::new("mkfifo").arg(folder.path()).status().unwrap();
    assert!(made.success());
    // Without a reader the open itself would block; this one does not read.
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut pipe =
        File::options().read(true).custom_flags(non_blocking).open(folder.path()).unwrap();
    let mut stage = folder.stage(driver, "json").without_default_pool().start();
    // Each line is some 5 KiB, and 8 MiB may wait.
    let path = format!("/{}", "a".repeat(4_000));
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nReferer: {path}\r\n\r\n");
    let mut asked = 0;
    while stage.count("access_log_dropped_total") == 0 {
        assert!(asked < 20_000, "nothing was dropped");
        let mut client = stage.connect();
        client.send(request.repeat(16));
        for _ in 0..16 {
            client.response().expect_fault(404, "no_route");
        }
        asked += 16;
    }
    stage.expect_count("requests_in_flight", 0);
    let dropped = stage.count("access_log_dropped_total");
    let stopping = stage.stop_beside(Stop::Graceful);
    let mut text = Vec::new();
    while !stopping.is_finished() {
        let mut room = [0; 64 << 10];
        match pipe.read(&mut room) {
            Ok(count) => text.extend(&room[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        std::thread::yield_now();
    }
    pipe.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<_> = text.lines().map(object).collect();
    let told: u64 = lines.iter().filter_map(|line| line.get("dropped")?.as_u64()).sum();
    let notes = lines.iter().filter(|line| line.contains_key("dropped")).count();
    assert_eq!(told, dropped);
    assert_eq!(lines.len() - notes + usize::try_from(told).unwrap(), asked);
}

fn a_file_that_cannot_be_opened_is_named_and_nothing_starts(driver: Driver) {
    let folder = Folder::new();
    fs::create_dir(folder.path()).unwrap();
    let refused = folder.stage(driver, "json").try_start().err().unwrap();
    assert!(refused.contains("access log") && refused.contains(folder.path().to_str().unwrap()));
}
