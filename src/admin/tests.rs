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

use serde_json::{Value, json};

use super::{
    Admin, Bound, Doors, Refused, Reload, Reloaded,
    api::{CALLS, OPENAPI},
};

#[derive(Default)]
struct Noted {
    not_ready: Mutex<Vec<String>>,
    reloads: Mutex<Vec<Reload>>,
    refuses: Mutex<Option<Refused>>,
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

    fn reload(&self, how: Reload) -> Result<Reloaded, Refused> {
        self.reloads.lock().unwrap().push(how);
        match self.refuses.lock().unwrap().clone() {
            Some(refused) => Err(refused),
            None => Ok(Reloaded {
                generation: 8,
                lines: vec!["+ route \"canary\"".into()],
                kept: Vec::new(),
                warnings: Vec::new(),
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
    expect(&post(&stage, "", "{\"dryRun\": true}"), 200, "\"generation\":8");
    let reloads = std::mem::take(&mut *stage.noted.reloads.lock().unwrap());
    assert_eq!(reloads.iter().map(|it| it.dry_run).collect::<Vec<_>>(), [false, true]);
    assert!(reloads[0].from.starts_with("127.0.0.1:"), "{reloads:?}");
    let refused = Refused { why: "it is wrong".into(), problems: "error: here".into() };
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
    assert!(!path.exists());
}

#[test]
fn the_document_has_every_call_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(
            methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())),
        );
    }
    let mut there: Vec<(String, String)> =
        CALLS.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect();
    described.sort();
    there.sort();
    assert_eq!(described, there);
}
