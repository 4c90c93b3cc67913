//! Tests of the whole admin interface, over sockets, with doors that record what is asked of them.
//! `guard` has the table of access; here it is tested that the table is applied, and that a refused
//! request opens no door.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::{Value, json};

use super::{
    Admin, BackendWrite, BackendWritten, Bound, Doors, Feed, HistoryQuery, Pools, Reload, Reloaded,
    WriteDenied,
    api::{CALLS, OPENAPI},
};
use crate::observe::statistics::metrics::{Format, Text};
use crate::plan::{Duty, Settings};
use crate::policy::overlay::{Order, Refused};

/// Of each of them 102 or 103 bytes.
const METRICS_LINES: usize = 3_000;

#[derive(Default)]
struct Noted {
    not_ready: Mutex<Vec<String>>,
    reloads: Mutex<Vec<Reload>>,
    refuses: Mutex<Option<super::Refused>>,
    writes: Mutex<Vec<BackendWrite>>,
    denies: Mutex<Option<WriteDenied>>,
    streams: Mutex<Vec<Sender<Arc<str>>>>,
}

impl Doors for Noted {
    fn not_ready(&self) -> Vec<String> {
        self.not_ready.lock().unwrap().clone()
    }

    fn generation(&self) -> u64 {
        7
    }

    fn status(&self) -> Value {
        json!({ "version": "1" })
    }

    fn certificates(&self) -> Vec<Value> {
        vec![json!({ "file": "a.pem" })]
    }

    fn pools(&self) -> Pools {
        let backend = json!({ "name": "10.0.0.1:80", "weight": 3 });
        let member = |last: u8, state: &str| {
            let (name, count) = (format!("a:80#10.0.0.{last}"), u32::from(last));
            json!({ "name": name, "entry": "a:80", "state": state, "activeConnections": count })
        };
        let members = [member(7, "up"), member(8, "up")];
        let all: Vec<Value> = [backend].into_iter().chain(members).collect();
        let pool = json!({ "name": "app", "backends": all });
        Pools { generation: 7, pools: vec![pool] }
    }

    fn stats(&self) -> (u64, Value) {
        (7, json!({ "pools": [] }))
    }

    fn metrics(&self, format: Format) -> Option<Text> {
        // More than one chunk, in pieces that do not divide it.
        let line = format!("{format:?} {}\n", "x".repeat(90));
        Some(Box::new(move |out| (0..METRICS_LINES).try_for_each(|_| out.write_str(&line))))
    }

    fn follow(&self, feed: Feed, after: Option<String>) -> Receiver<Arc<str>> {
        let (to, from) = unbounded();
        to.send(format!("data: {feed:?} {after:?}\n\n").into()).unwrap();
        // A stream of frames goes on.
        if feed == Feed::Stream {
            self.streams.lock().unwrap().push(to);
        }
        from
    }

    fn frame(&self) -> Option<Arc<str>> {
        Some("{\"requests\":1}".into())
    }

    fn explain(&self, asked: &super::Explain) -> Result<Value, String> {
        if asked.url == "nowhere" { Err("no host".into()) } else { Ok(json!(format!("{asked:?}"))) }
    }

    fn history(&self, query: &HistoryQuery) -> Value {
        json!({ "events": [], "since": format!("{query:?}") })
    }

    fn write(&self, write: BackendWrite) -> Result<BackendWritten, WriteDenied> {
        if write.only_if.as_ref().is_some_and(|meant| !meant.contains(&7)) {
            return Err(WriteDenied::Moved(7));
        }
        let is_draining = write.drain.is_some();
        self.writes.lock().unwrap().push(write);
        match self.denies.lock().unwrap().clone() {
            Some(denied) => Err(denied),
            None => Ok(BackendWritten { generation: 8, is_draining, warnings: Vec::new() }),
        }
    }

    fn upgrade(&self, _: &str) -> Result<super::Upgraded, super::Refused> {
        match self.refuses.lock().unwrap().clone() {
            Some(refused) => Err(refused),
            None => Ok(super::Upgraded {
                pid: 7,
                version: "9.9.9".into(),
                connections: 3,
                drain: std::time::Duration::from_secs(30),
            }),
        }
    }

    fn reload(&self, how: Reload) -> Result<Reloaded, super::Refused> {
        if how.only_if.as_ref().is_some_and(|meant| !meant.contains(&7)) {
            let moved_to = Some(7);
            return Err(super::Refused { why: "moved".into(), problems: String::new(), moved_to });
        }
        self.reloads.lock().unwrap().push(how);
        match self.refuses.lock().unwrap().clone() {
            Some(refused) => Err(refused),
            None => Ok(Reloaded {
                generation: 8,
                lines: vec!["+ route \"canary\"".into()],
                kept: Vec::new(),
                warnings: Vec::new(),
                closed: 2,
            }),
        }
    }
}

struct Stage {
    address: SocketAddr,
    noted: Arc<Noted>,
    _admin: Admin,
}

fn stage(token: Option<&str>) -> Stage {
    let bound = Bound::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, noted) = (bound.address().unwrap(), Arc::new(Noted::default()));
    let admin = Admin::start(vec![bound], token.map(str::to_owned), Arc::clone(&noted)).unwrap();
    Stage { address, noted, _admin: admin }
}

/// The answer to these bytes, up to the end of the connection.
fn ask(stage: &Stage, text: &str) -> String {
    let mut stream = TcpStream::connect(stage.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.replace('\n', "\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(stage: &Stage, path: &str) -> String {
    ask(stage, &format!("GET {path} HTTP/1.1\nHost: localhost\nConnection: close\n\n"))
}

fn post(stage: &Stage, fields: &str, body: &str) -> String {
    let length = body.len();
    let head = "POST /api/v1/reload HTTP/1.1\nHost: localhost\nConnection: close\n";
    ask(stage, &format!("{head}{fields}Content-Length: {length}\n\n{body}"))
}

#[track_caller]
fn expect(answer: &str, status: u16, words: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(words), "{words} is not in {answer}");
}

#[test]
fn says_whether_it_is_ready_and_why_not() {
    let stage = stage(None);
    expect(&get(&stage, "/livez"), 200, "alive");
    expect(&get(&stage, "/readyz"), 200, "ready");
    stage.noted.not_ready.lock().unwrap().push("pool \"app\" has no usable backend".into());
    expect(&get(&stage, "/readyz"), 503, "pool \"app\" has no usable backend");
    expect(&get(&stage, "/api/v1/status"), 200, "etag: \"7\"");
}

#[test]
fn what_is_no_call_is_told_so() {
    let stage = stage(None);
    expect(&get(&stage, "/nothing"), 404, "\"code\":\"not_found\"");
    expect(&get(&stage, "/api/v1/reload"), 405, "allow: POST\r\n");
    let head = "HEAD /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n";
    let answer = ask(&stage, head);
    expect(&answer, 200, "content-length: 6");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    expect(&ask(&stage, "GET / HTTP/1.1\n\n"), 400, "\"code\":\"bad_request\"");
    expect(&ask(&stage, "POST /livez HTTP/1.1\nHost: a\nConnection: close\n\n"), 403, "Host");
}

#[test]
fn a_reload_says_what_it_did_or_why_not() {
    let stage = stage(None);
    expect(&post(&stage, "", ""), 200, "+ route \\\"canary\\\"");
    expect(&post(&stage, "", ""), 200, "\"connectionsClosed\":2");
    expect(&post(&stage, "", "{\"dryRun\": true}"), 200, "\"generation\":8");
    let reloads = std::mem::take(&mut *stage.noted.reloads.lock().unwrap());
    assert_eq!(reloads.iter().map(|it| it.dry_run).collect::<Vec<_>>(), [false, false, true]);
    assert!(reloads[0].from.starts_with("127.0.0.1:"), "{reloads:?}");
    let refused = super::Refused {
        why: "it is wrong".into(),
        problems: "error: here".into(),
        moved_to: None,
    };
    *stage.noted.refuses.lock().unwrap() = Some(refused);
    expect(&post(&stage, "", ""), 422, "\"problems\":\"error: here\"");
}

#[test]
fn what_does_not_make_sense_reloads_nothing() {
    let stage = stage(None);
    for (fields, body, status) in [
        ("", "{", 400),
        ("", "[]", 422),
        ("", "{\"dryRun\": 1}", 422),
        ("", "{\"dry\": true}", 422),
        ("", "{\"discard\": 0}", 422),
        ("If-Match: \"6\"\n", "", 412),
        ("Origin: http://evil.example\n", "", 403),
        ("Sec-Fetch-Site: cross-site\n", "", 403),
    ] {
        expect(&post(&stage, fields, body), status, "\"code\":");
    }
    assert_eq!(*stage.noted.reloads.lock().unwrap(), []);
    for fields in ["If-Match: \"7\"\n", "If-Match: \"1\", \"7\"\n", "If-Match: *\n"] {
        expect(&post(&stage, fields, ""), 200, "generation");
    }
}

#[test]
fn a_token_is_needed_where_there_is_one() {
    let stage = stage(Some("secret"));
    expect(&post(&stage, "", ""), 401, "www-authenticate: Bearer");
    expect(&post(&stage, "Authorization: Bearer secret\n", ""), 200, "generation");
    let answer = post(&stage, "Authorization: Bearer wrong\n", "");
    assert!(!answer.contains("secret") && !answer.contains("wrong"), "{answer}");
}

#[test]
fn a_long_body_is_refused_at_once_and_a_chunked_one_is_read() {
    let stage = stage(None);
    let head = "POST /api/v1/reload HTTP/1.1\nHost: localhost\n";
    let declared = format!("{head}Expect: 100-continue\nContent-Length: 70000\n\n");
    expect(&ask(&stage, &declared), 413, "\"code\":\"body_too_large\"");
    let body = "5\n{\"dry\nd\nRun\": true}  \n0\n\n";
    let chunked = format!("{head}Connection: close\nTransfer-Encoding: chunked\n\n{body}");
    expect(&ask(&stage, &chunked), 200, "generation");
    assert!(stage.noted.reloads.lock().unwrap()[0].dry_run);
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let stage = stage(None);
    let get = "GET /livez HTTP/1.1\nHost: localhost\n\n";
    let answer = ask(&stage, &format!("{get}{get}GET /readyz HTTP/1.0\nHost: localhost\n\n"));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let path = std::env::temp_dir().join(format!("ringway-admin-{}.sock", std::process::id()));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = Bound::socket(&path).expect("a stale one is no obstacle");
    assert!(Bound::socket(&path).is_err(), "somebody listens on it");
    let admin = Admin::start(vec![bound], Some("t".into()), Arc::new(Noted::default())).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"POST /api/v1/reload HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    expect(&answer, 200, "generation");
    drop(admin);
    std::fs::remove_file(&path).unwrap();
}

/// The address is full of those who say nothing; the Unix socket answers.
#[test]
fn whoever_fills_the_address_locks_nobody_out_who_has_the_socket() {
    let path = std::env::temp_dir().join(format!("ringway-seats-{}.sock", std::process::id()));
    let tcp = Bound::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = tcp.address().unwrap();
    let bounds = vec![tcp, Bound::socket(&path).expect("a socket")];
    let _admin = Admin::start(bounds, None, Arc::new(Noted::default())).unwrap();
    let silent: Vec<_> = (0..33).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut last = &silent[32];
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    expect(&answer, 503, "\"code\":\"overloaded\"");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    expect(&answer, 200, "alive");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_document_has_every_call_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(
            methods
                .as_object()
                .unwrap()
                .keys()
                .filter(|method| *method != "parameters")
                .map(|method| (method.to_uppercase(), path.clone())),
        );
    }
    let mut there: Vec<(String, String)> =
        CALLS.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect();
    described.sort();
    there.sort();
    assert_eq!(described, there);
}

/// A request without a body or with one, for a path below that of the pools.
fn call(stage: &Stage, method: &str, path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{method} /api/v1/pools{path} HTTP/1.1\nHost: localhost\n");
    ask(stage, &format!("{head}Connection: close\n{fields}Content-Length: {length}\n\n{body}"))
}

#[test]
fn pools_and_backends_are_found_by_their_names() {
    let stage = stage(None);
    let get = |path: &str| call(&stage, "GET", path, "", "");
    expect(&get(""), 200, "{\"pools\":[{\"name\":\"app\",\"backends\":[");
    expect(&get("/app"), 200, "{\"name\":\"app\",");
    expect(&get("/app/backends"), 200, "{\"backends\":[{\"name\":\"10.0.0.1:80\"");
    for name in ["10.0.0.1:80", "10.0.0.1%3A80", "10.0.0.1%3a80"] {
        expect(&get(&format!("/app/backends/{name}")), 200, "etag: \"7\"");
    }
    expect(&get("/app/backends/a:80%2310.0.0.8"), 200, "\"activeConnections\":8");
    let all = get("/app/backends/a:80");
    expect(&all, 200, "\"state\":\"up\",\"activeConnections\":15");
    for path in ["/none", "/none/backends", "/app/backends/b", "/app/backends/%2"] {
        expect(&get(path), 404, "\"code\":\"not_found\"");
    }
    for (method, path, allowed) in [
        ("POST", "", "GET, HEAD"),
        ("PUT", "/app/backends", "GET, POST, HEAD"),
        ("POST", "/app/backends/b", "GET, PATCH, DELETE, HEAD"),
    ] {
        expect(&call(&stage, method, path, "", ""), 405, &format!("allow: {allowed}\r\n"));
    }
}

#[test]
fn an_order_is_what_was_sent_and_says_what_it_did() {
    let stage = stage(None);
    let (all, one) = ("/app/backends", "/app/backends/10.0.0.1%3A80");
    let body = "{\"address\":\"10.0.0.1:80\",\"weight\":3}";
    let added = call(&stage, "POST", all, "", body);
    expect(&added, 201, "location: /api/v1/pools/app/backends/10.0.0.1%3A80\r\n");
    expect(&added, 201, "etag: \"8\"");
    let set = "{\"state\":\"draining\",\"weight\":0}";
    expect(&call(&stage, "PATCH", one, "If-Match: \"7\"\n", set), 200, "\"weight\":3");
    expect(&call(&stage, "DELETE", &format!("{one}?drain=30s"), "", ""), 202, "10.0.0.1:80");
    let gone = call(&stage, "DELETE", one, "", "");
    expect(&gone, 204, "etag: \"8\"");
    assert!(!gone.contains("content-length"), "{gone}");
    let (pool, backend) = (|| "app".to_owned(), || "10.0.0.1:80".to_owned());
    let address = crate::config::backend_address("10.0.0.1:80").unwrap();
    let settings = Settings { weight: Some(0), duty: Some(Duty::Draining) };
    let writes = std::mem::take(&mut *stage.noted.writes.lock().unwrap());
    assert!(writes.iter().all(|write| write.from.starts_with("127.0.0.1:")), "{writes:?}");
    let seen: Vec<_> =
        writes.into_iter().map(|write| (write.order, write.drain, write.only_if)).collect();
    let removal = || Order::Remove { pool: pool(), backend: backend() };
    let expected = [
        (Order::Add { pool: pool(), backend: backend(), address, weight: 3 }, None, None),
        (Order::Set { pool: pool(), backend: backend(), settings }, None, Some(vec![7])),
        (removal(), Some(Duration::from_secs(30)), None),
        (removal(), None, None),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn an_order_that_means_nothing_opens_no_door() {
    let stage = stage(None);
    let (all, one) = ("/app/backends", "/app/backends/b");
    for (method, path, body, status) in [
        ("POST", all, "{", 400),
        ("POST", all, "", 422),
        ("POST", all, "{\"address\":\"10.0.0.1\"}", 422),
        ("POST", all, "{\"address\":7}", 422),
        ("POST", all, "{\"address\":\"10.0.0.1:80\",\"weight\":-1}", 422),
        ("POST", all, "{\"address\":\"10.0.0.1:80\",\"weight\":\"3\"}", 422),
        ("POST", all, "{\"address\":\"10.0.0.1:80\",\"wieght\":3}", 422),
        ("PATCH", one, "{}", 422),
        ("PATCH", one, "[1]", 422),
        ("PATCH", one, "{\"state\":\"off\"}", 422),
        ("PATCH", one, "{\"state\":null}", 422),
        ("PATCH", one, "{\"address\":\"10.0.0.2:80\"}", 422),
        ("DELETE", "/app/backends/b?drain=30", "", 422),
        ("DELETE", "/app/backends/b?drian=30s", "", 422),
    ] {
        expect(&call(&stage, method, path, "", body), status, "\"code\":");
    }
    let set = "{\"weight\":1}";
    for fields in ["If-Match: \"6\"\n", "If-Match: W/\"7\"\n", "If-Match: 7\n"] {
        expect(&call(&stage, "PATCH", one, fields, set), 412, "etag: \"7\"");
    }
    let page = "Origin: http://evil.example\n";
    expect(&call(&stage, "DELETE", one, page, ""), 403, "\"code\":\"forbidden\"");
    assert_eq!(*stage.noted.writes.lock().unwrap(), []);
}

#[test]
fn a_denied_order_has_a_status_and_a_word() {
    let stage = stage(None);
    let (pool, backend) = (|| "app".to_owned(), || "b".to_owned());
    let address = crate::config::backend_address("10.0.0.1:80").unwrap();
    let order = WriteDenied::Order;
    for (denied, status, code) in [
        (order(Refused::NoPool { pool: pool() }), 404, "not_found"),
        (order(Refused::NoBackend { pool: pool(), backend: backend() }), 404, "not_found"),
        (order(Refused::NameTaken { pool: pool(), backend: backend() }), 409, "exists"),
        (order(Refused::AddressTaken { pool: pool(), address, backend: backend() }), 409, "exists"),
        (order(Refused::Last { pool: pool(), backend: backend() }), 409, "last_backend"),
        (order(Refused::Full { pool: pool() }), 409, "full"),
        (order(Refused::NotAName { backend: backend() }), 422, "unprocessable"),
        (order(Refused::Weight), 422, "unprocessable"),
        (WriteDenied::NotKept("disk full".into()), 507, "not_kept"),
        (WriteDenied::Failed("no descriptors".into()), 422, "refused"),
    ] {
        *stage.noted.denies.lock().unwrap() = Some(denied.clone());
        let answer = call(&stage, "DELETE", "/app/backends/b", "", "");
        expect(&answer, status, &format!("\"code\":\"{code}\""));
        expect(&answer, status, &denied.to_string().replace('"', "\\\""));
    }
}

#[test]
fn a_stream_goes_on_from_the_last_event_and_there_is_a_bound_for_them() {
    let stage = stage(None);
    let head = "GET /api/v1/events HTTP/1.1\nHost: localhost\nLast-Event-ID: 5-7\n\n";
    let answer = ask(&stage, head);
    expect(&answer, 200, "content-type: text/event-stream\r\n");
    expect(&answer, 200, "\r\n\r\nretry: 1000\n\ndata: Events Some(\"5-7\")\n\n");
    let open = || {
        let mut stream = TcpStream::connect(stage.address).unwrap();
        stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (stream, String::from_utf8_lossy(&first).into_owned())
    };
    let mut streams: Vec<_> = (0..17).map(|_| open()).collect();
    let statuses: Vec<_> = streams.iter().map(|(_, first)| &first[9..]).collect();
    assert_eq!((&statuses[15], statuses[16]), (&"200", "503"));
    // Calls are still answered, and whoever leaves makes room.
    expect(&get(&stage, "/api/v1/status"), 200, "version");
    streams.clear();
    stage.noted.streams.lock().unwrap().clear();
    let head = head.replace("Last", "Connection: close\nLast");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let mut answer = ask(&stage, &head);
    while answer.starts_with("HTTP/1.1 503") && std::time::Instant::now() < until {
        answer = ask(&stage, &head);
    }
    expect(&answer, 200, "data: Events");
}

#[test]
fn the_timeline_is_asked_for_by_name_and_time() {
    let stage = stage(None);
    expect(&get(&stage, "/api/v1/history?pool=app&since=1h"), 200, "Some(\\\"app\\\")");
    expect(&get(&stage, "/api/v1/history?since=1"), 422, "\"code\":\"unprocessable\"");
}

#[test]
fn the_page_is_served_whole_and_may_load_nothing_from_elsewhere() {
    let stage = stage(Some("secret"));
    let index = get(&stage, "/");
    expect(&index, 200, "content-type: text/html; charset=utf-8\r\n");
    expect(&index, 200, "content-security-policy: default-src 'none'; script-src 'self';");
    expect(&index, 200, "<title>Ringway</title>");
    expect(&get(&stage, "/page/page.js"), 200, "content-type: text/javascript");
    expect(&get(&stage, "/page/none.js"), 404, "\"code\":\"not_found\"");
    let foreign = "GET / HTTP/1.1\nHost: evil.example\nConnection: close\n\n";
    expect(&ask(&stage, foreign), 403, "\"code\":\"forbidden\"");
}

/// What chunks hold, and how many there are (RFC 9112 §7.1); they are all there is.
fn unchunked(mut body: &str) -> (String, usize) {
    let (mut text, mut chunks) = (String::new(), 0);
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("digits");
        assert_eq!(&rest[size..size + 2], "\r\n", "the end of a chunk");
        if size == 0 {
            assert_eq!(rest, "\r\n", "nothing comes after the last chunk");
            return (text, chunks);
        }
        text.push_str(&rest[..size]);
        (body, chunks) = (&rest[size + 2..], chunks + 1);
    }
}

#[test]
fn metrics_are_sent_in_chunks_and_are_whole() {
    let stage = stage(None);
    let line = format!("Prometheus {}\n", "x".repeat(90));
    let answer = get(&stage, "/metrics");
    expect(&answer, 200, "transfer-encoding: chunked\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("content-length"), "{head}");
    let (text, chunks) = unchunked(body);
    assert!(text == line.repeat(METRICS_LINES), "{} bytes", text.len());
    assert_eq!(chunks, METRICS_LINES.div_ceil((64 << 10) / line.len()));
    // The connection is good for more; of HEAD there is no chunk.
    let both = ["HEAD", "GET"].map(|method| format!("{method} /metrics HTTP/1.1\nHost: a.b\n\n"));
    let both = both.concat().replace("a.b", "localhost");
    let last = "GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n";
    let answer = ask(&stage, &format!("{both}{last}"));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{}", answer.len());
    assert!(answer.contains("nosniff\r\n\r\nHTTP/1.1 200 OK\r\n"), "a head without a body");
    // Who knows no chunks reads to the end.
    let answer = ask(&stage, "GET /metrics HTTP/1.0\nHost: localhost\nConnection: keep-alive\n\n");
    expect(&answer, 200, "connection: close\r\n");
    assert!(answer.split_once("\r\n\r\n").unwrap().1 == line.repeat(METRICS_LINES));
}
