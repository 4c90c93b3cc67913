//! Access log lines: one exchange as one line.
//!
//! Three formats: a flat JSON object, and the two text formats that Apache gave their names. Text
//! from clients is escaped and bounded (`text.rs`), so that whatever they send, a line stays one
//! line and says what it says.

use super::dates::Dates;
use super::record::{Asked, Asker, Record, Told};
use super::request_id::IdText;
use super::text::{push_client, push_hex_escaped, push_json, push_millis, push_number, push_peer};
use super::tries::{self, Tried};
use crate::base::{moment::UnixMillis, spell};
use crate::http::{fault::Side, head::Version, headers::Span};
use crate::plan::{AccessLogFormat, Mode, Plan};

/// Path and query: more than most servers take as a whole request line.
const TARGET_BYTES_MAX: usize = 4 << 10;
/// User agent and referer: longer ones are attacks or mistakes.
const FIELD_BYTES_MAX: usize = 1 << 10;
/// Host: a DNS name has at most 253. Method: no registered one has more than 17. Our own names.
const SHORT_BYTES_MAX: usize = 256;

/// The keys of a JSON line, in their order, and what each means: lines and documents are checked
/// against it.
#[cfg(test)]
#[rustfmt::skip]
pub(crate) const KEYS: [(&str, &str); 30] = [
    ("time", "when it ended; RFC 3339 with milliseconds, UTC"),
    ("request_id", "as backends and our own error answers have it; a trusted proxy may give it"),
    ("listener", "the listener of the connection"),
    ("client", "the client: the peer, or the one that a trusted proxy names"),
    ("peer", "the other end of the connection, with its port"),
    ("method", "as received; null if no head could be read"),
    ("scheme", "http or https; of a connection of TCP tcp, or tls if that ends here"),
    ("host", "as received, with any port; of TCP, the name in TLS; null if there was none"),
    ("path", "as received; null if no head could be read"),
    ("query", "without its question mark"),
    ("protocol", "HTTP/1.0, HTTP/1.1 or HTTP/2.0; null if no head could be read"),
    ("status", "the status sent to the client; null if none was"),
    ("request_bytes", "read from the client, including head and framing"),
    ("response_bytes", "written to the client, including head and framing"),
    ("route", "the route; null if none matched"),
    ("pool", "the pool"),
    ("backend", "the backend that was asked last"),
    ("reused", "whether the connection to that backend had been used before"),
    ("attempts", "how often backends were asked"),
    ("t_queue", "ms spent waiting for a backend to become free; null if it did not wait"),
    ("t_connect", "ms until the connection to that backend was made; null if none was made"),
    ("t_first_byte", "ms from the whole request head to the first byte of the backend's final answer"),
    ("t_total", "ms from accept, or the first byte of a later request, to the end; in a pipeline from the end of the one before"),
    ("t_self", "ms of these spent here, waiting for neither peer; the rest of a long body counts as a wait"),
    ("term", "how it ended: ok or an error code"),
    ("sticky", "the outcome of the client's sticky cookie; null if the pool has none or did not answer"),
    (
        "tls",
        "version, suite, protocol, new or resumed, name: TLS with the client; null if there is none",
    ),
    ("user_agent", "as received; null if there was none"),
    ("referer", "as received; null if there was none"),
    ("trace_id", "of its trace (traceparent), which backends are told; null if it came to none"),
];

/// What is behind these keys where there is something to say: `Told`, in its order.
const TOLD: [&str; 6] = [
    "proxy_alpn",
    "proxy_authority",
    "proxy_unique_id",
    "proxy_tls_version",
    "proxy_tls_suite",
    "proxy_tls_name",
];

/// The contents of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLine<'a> {
    /// When the exchange ended.
    pub(crate) ended: UnixMillis,
    pub(crate) request_id: IdText,
    pub(crate) asker: Asker,
    /// What the client's handshake has agreed on, if there was one.
    pub(crate) tls: Option<&'a str>,
    /// What a proxy in front has told of it.
    pub(crate) told: Told<'a>,
    pub(crate) record: &'a Record,
    /// Its tries, if there was more than one.
    pub(crate) tries: &'a [Tried],
    /// The request, and the bytes of the head that it is in; empty if no head could be read.
    pub(crate) asked: Asked,
    pub(crate) bytes: &'a [u8],
    /// The plan that the exchange ran under, for the names.
    pub(crate) plan: &'a Plan,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format(pub(crate) AccessLogFormat);

impl Format {
    /// Appends one line, its newline included.
    pub(crate) fn write(self, line: &AccessLine<'_>, dates: &mut Dates, buffer: &mut Vec<u8>) {
        match self.0 {
            AccessLogFormat::Json => json(line, dates, buffer),
            AccessLogFormat::Common => common(line, dates, buffer),
            AccessLogFormat::Combined => {
                common(line, dates, buffer);
                for field in [line.asked.referer, line.asked.user_agent] {
                    buffer.extend_from_slice(b" \"");
                    let value = field.map_or(&b"-"[..], |span| span.of(line.bytes));
                    push_hex_escaped(value, FIELD_BYTES_MAX, buffer);
                    buffer.push(b'"');
                }
            }
        }
        buffer.push(b'\n');
    }
}

fn json(line: &AccessLine<'_>, dates: &mut Dates, to: &mut Vec<u8>) {
    let AccessLine { request_id, asker, record, asked, bytes, plan, .. } = *line;
    to.extend_from_slice(b"{\"time\":\"");
    to.extend_from_slice(dates.rfc3339(line.ended));
    to.extend_from_slice(b"\",\"request_id\":");
    push_json(request_id.bytes(), SHORT_BYTES_MAX, to);
    to.extend_from_slice(b",\"listener\":");
    let listener = plan.listeners.get(asker.listener);
    push_name(listener.map(|listener| &listener.name), to);
    to.extend_from_slice(b",\"client\":\"");
    push_client(asker.client, to);
    to.extend_from_slice(b"\",\"peer\":\"");
    push_peer(asker.peer, to);
    to.push(b'"');
    json_of_asked(line, to);
    to.extend_from_slice(b",\"status\":");
    push_known((record.status > 0).then_some(record.status), to, |status, to| {
        push_number(u64::from(status), to);
    });
    to.extend_from_slice(b",\"request_bytes\":");
    push_number(record.request_bytes, to);
    to.extend_from_slice(b",\"response_bytes\":");
    push_number(record.response_bytes, to);
    json_of_answerer(line, to);
    json_of_times(record, to);
    to.extend_from_slice(b",\"term\":\"");
    to.extend_from_slice(record.term.code().as_bytes());
    to.extend_from_slice(b"\",\"sticky\":");
    let sticky = record.sticky.map(|outcome| outcome.word().as_bytes());
    push_text(sticky, SHORT_BYTES_MAX, to);
    to.extend_from_slice(b",\"tls\":");
    push_text(line.tls.map(str::as_bytes), FIELD_BYTES_MAX, to);
    to.extend_from_slice(b",\"user_agent\":");
    push_text(field(asked.user_agent, bytes), FIELD_BYTES_MAX, to);
    to.extend_from_slice(b",\"referer\":");
    push_text(field(asked.referer, bytes), FIELD_BYTES_MAX, to);
    json_of_trace(line, to);
    json_of_reset(record, to);
    json_of_connection(line, to);
    if !line.tries.is_empty() {
        let pool = record.pool.and_then(|id| plan.pools.get(id));
        tries::push(line.tries, pool.map(|pool| &**pool), to);
    }
    to.push(b'}');
}

/// Who reset a stream of HTTP/2, and with which code; nothing if nobody did.
fn json_of_reset(record: &Record, to: &mut Vec<u8>) {
    let Some(reset) = record.reset else { return };
    let (by, name) = reset.words();
    to.extend_from_slice(b",\"stream_reset\":\"");
    to.extend_from_slice(by.as_bytes());
    to.push(b' ');
    match name {
        Some(name) => to.extend_from_slice(name.as_bytes()),
        None => push_number(reset.code.into(), to),
    }
    to.push(b'"');
}

/// Whether it is a connection of TCP, in which there are no requests.
fn is_tcp(line: &AccessLine<'_>) -> bool {
    let listener = line.plan.listeners.get(line.asker.listener);
    listener.is_some_and(|listener| listener.mode == Mode::Tcp)
}

/// What tunnels alone have to say, and clients behind a proxy.
fn json_of_connection(line: &AccessLine<'_>, to: &mut Vec<u8>) {
    if let Some(by) = line.record.ended_by {
        to.extend_from_slice(match by {
            Side::Client => b",\"ended_by\":\"client\"",
            Side::Backend => b",\"ended_by\":\"backend\"",
            Side::Proxy => b",\"ended_by\":\"ringway\"",
        });
    }
    for (key, told) in TOLD.into_iter().zip(line.told) {
        if let Some(told) = told {
            to.extend_from_slice(b",\"");
            to.extend_from_slice(key.as_bytes());
            to.extend_from_slice(b"\":");
            push_json(told, SHORT_BYTES_MAX, to);
        }
    }
}

/// The trace that it came with, or that began with it.
fn json_of_trace(line: &AccessLine<'_>, to: &mut Vec<u8>) {
    let AccessLine { record, asked, bytes, .. } = *line;
    let begins = record.backend.is_some() && !is_tcp(line);
    let begun = record.request_id.filter(|_| begins);
    let begun = begun.map(|id| spell::hex(id.bits().to_be_bytes()));
    to.extend_from_slice(b",\"trace_id\":");
    let begun = begun.as_ref().map(|digits| digits.as_flattened());
    push_text(field(asked.trace, bytes).or(begun), SHORT_BYTES_MAX, to);
}

fn json_of_asked(line: &AccessLine<'_>, to: &mut Vec<u8>) {
    let AccessLine { asker, asked, bytes, .. } = *line;
    let method = known(asked.method, bytes);
    to.extend_from_slice(b",\"method\":");
    push_text(method, SHORT_BYTES_MAX, to);
    to.extend_from_slice(b",\"scheme\":");
    to.extend_from_slice(match (is_tcp(line), asker.secure) {
        (false, false) => b"\"http\"",
        (false, true) => b"\"https\"",
        (true, false) => b"\"tcp\"",
        (true, true) => b"\"tls\"",
    });
    to.extend_from_slice(b",\"host\":");
    push_text(known(asked.host, bytes), SHORT_BYTES_MAX, to);
    to.extend_from_slice(b",\"path\":");
    push_text(known(asked.path, bytes), TARGET_BYTES_MAX, to);
    to.extend_from_slice(b",\"query\":");
    push_json(asked.query.of(bytes), TARGET_BYTES_MAX, to);
    to.extend_from_slice(b",\"protocol\":");
    push_text(method.map(|_| protocol(asked.version)), SHORT_BYTES_MAX, to);
}

fn json_of_answerer(line: &AccessLine<'_>, to: &mut Vec<u8>) {
    let AccessLine { record, plan, .. } = *line;
    let route = record.route.and_then(|id| plan.routes.get(id));
    to.extend_from_slice(b",\"route\":");
    push_name(route.map(|route| &route.name), to);
    let pool = record.pool.and_then(|id| plan.pools.get(id));
    to.extend_from_slice(b",\"pool\":");
    push_name(pool.map(|pool| &pool.name), to);
    let backend = record.backend.and_then(|id| pool?.backends.get(id));
    to.extend_from_slice(b",\"backend\":");
    push_name(backend.map(|backend| &backend.name), to);
    to.extend_from_slice(match (backend, record.reused) {
        (None, _) => b",\"reused\":null",
        (Some(_), true) => b",\"reused\":true",
        (Some(_), false) => b",\"reused\":false",
    });
    to.extend_from_slice(b",\"attempts\":");
    push_number(u64::from(record.attempts), to);
}

fn json_of_times(record: &Record, to: &mut Vec<u8>) {
    let times = record.times;
    for (key, micros) in [
        (&b",\"t_queue\":"[..], times.queue),
        (b",\"t_connect\":", times.connect),
        (b",\"t_first_byte\":", times.first_byte),
        (b",\"t_total\":", Some(times.total())),
        (b",\"t_self\":", Some(times.own())),
    ] {
        to.extend_from_slice(key);
        push_known(micros, to, push_millis);
    }
}

/// `client - - [date] "method target protocol" status bytes`, as Apache and nginx write it; bytes
/// are all that were sent.
fn common(line: &AccessLine<'_>, dates: &mut Dates, to: &mut Vec<u8>) {
    let AccessLine { asker, record, asked, bytes, .. } = *line;
    push_client(asker.client, to);
    to.extend_from_slice(b" - - [");
    to.extend_from_slice(dates.common(line.ended));
    to.extend_from_slice(b"] \"");
    match known(asked.method, bytes) {
        None => to.push(b'-'),
        Some(method) => {
            push_hex_escaped(method, SHORT_BYTES_MAX, to);
            to.push(b' ');
            push_hex_escaped(asked.target.of(bytes), TARGET_BYTES_MAX, to);
            to.push(b' ');
            to.extend_from_slice(protocol(asked.version));
        }
    }
    to.extend_from_slice(b"\" ");
    match record.status {
        0 => to.push(b'-'),
        status => push_number(u64::from(status), to),
    }
    to.push(b' ');
    push_number(record.response_bytes, to);
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
        Version::Http2 => b"HTTP/2.0",
    }
}

/// A part that is empty only if it is unknown.
fn known(span: Span, bytes: &[u8]) -> Option<&[u8]> {
    Some(span.of(bytes)).filter(|text| !text.is_empty())
}

/// A field's value, which may be empty.
fn field(span: Option<Span>, bytes: &[u8]) -> Option<&[u8]> {
    span.map(|span| span.of(bytes))
}

fn push_text(bytes: Option<&[u8]>, bytes_max: usize, to: &mut Vec<u8>) {
    push_known(bytes, to, |bytes, to| push_json(bytes, bytes_max, to));
}

/// A name of the configuration, which may contain what JSON escapes.
fn push_name(name: Option<&String>, to: &mut Vec<u8>) {
    push_text(name.map(String::as_bytes), SHORT_BYTES_MAX, to);
}

fn push_known<T>(value: Option<T>, to: &mut Vec<u8>, push: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => push(value, to),
        None => to.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use serde_json::{Map, Value, json};

    use super::*;
    use crate::base::moment::Micros;
    use crate::base::rng::Rng;
    use crate::http::{
        fault::Cause,
        head::{Method, RequestHead},
        headers::Headers,
        names::Name,
    };
    use crate::observe::{record::Term, request_id::RequestId};
    use crate::plan::{
        Address, Backend, BackendId, Listener, ListenerId, PathPattern, Pool, PoolId, Route,
        RouteId,
    };
    use crate::policy::sticky;

    fn plan() -> Plan {
        let listener = Listener { name: "web".into(), ..Listener::default() };
        let route = Route {
            name: "a \"route\"".into(),
            listener: None,
            hosts: Vec::new(),
            path: PathPattern::Any,
            methods: Vec::new(),
            alpn: Vec::new(),
            headers: Vec::new(),
            priority: 0,
            pool: PoolId(0),
        };
        let address: SocketAddr = ([10, 0, 0, 1], 3000).into();
        let backend = Backend::new(address.to_string(), Address::Socket(address));
        let pool = Pool { name: "app".into(), backends: vec![backend].into(), ..Pool::default() };
        Plan {
            listeners: vec![listener].into(),
            routes: vec![Arc::new(route)].into(),
            pools: vec![Arc::new(pool)].into(),
            ..Plan::default()
        }
    }

    /// A head whose parts contain these bytes, whatever a parser would say about them.
    fn head(parts: &[&[u8]; 4], user_agent: &[u8], referer: &[u8]) -> RequestHead {
        let mut headers = Headers::default();
        let mut add = |bytes: &[u8]| {
            let start = headers.bytes.len();
            headers.bytes.extend_from_slice(bytes);
            Span::new(start, headers.bytes.len())
        };
        let [method_span, authority, path, query] = parts.map(&mut add);
        let target = Span::new(path.start as usize, query.end());
        headers.push(Name::UserAgent, b"User-Agent", user_agent);
        headers.push(Name::Referer, b"Referer", referer);
        let method = Method::Get;
        RequestHead {
            headers,
            method,
            method_span,
            authority,
            path,
            query,
            target,
            ..Default::default()
        }
    }

    fn write(format: AccessLogFormat, record: &Record, head: &RequestHead) -> Vec<u8> {
        write_for("2001:db8::1", format, record, head)
    }

    fn write_for(
        client: &str,
        format: AccessLogFormat,
        record: &Record,
        head: &RequestHead,
    ) -> Vec<u8> {
        let asker = Asker {
            listener: ListenerId(0),
            client: client.parse().ok(),
            peer: "192.0.2.7:5123".parse().ok(),
            secure: false,
        };
        let line = AccessLine {
            told: [None; 6],
            tls: Some("TLSv1.3 suite - new a.example"),
            ended: UnixMillis(1_791_203_696_789),
            request_id: RequestId::default().into(),
            asker,
            record,
            tries: &[],
            asked: Asked::of(head),
            bytes: &head.headers.bytes,
            plan: &plan(),
        };
        let mut buffer = b"line before\n".to_vec();
        Format(format).write(&line, &mut Dates::default(), &mut buffer);
        buffer.split_off(12)
    }

    /// The one object in a line of JSON.
    #[track_caller]
    fn parse(line: &[u8]) -> Map<String, Value> {
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        serde_json::from_slice(line).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(line));
        })
    }

    /// The keys of a line in their order.
    fn keys(line: &[u8]) -> Vec<String> {
        let text = String::from_utf8(line.to_vec()).unwrap();
        let ends = text.match_indices("\":").map(|(end, _)| end);
        ends.map(|end| text[..end].rsplit('"').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_line_of_json_says_all_that_is_known_in_the_published_order() {
        let head = head(&[b"GET", b"a.example:80", b"/x y", b"q=1"], b"curl/8", b"http://b/");
        let mut record = Record {
            status: 200,
            request_bytes: 78,
            response_bytes: 1234,
            route: Some(RouteId(0)),
            pool: Some(PoolId(0)),
            backend: Some(BackendId(0)),
            attempts: 2,
            sticky: Some(sticky::CookieReading::Moved),
            ..Record::default()
        };
        record.times.connect = Some(Micros(250));
        record.times.first_byte = Some(Micros(1_050));
        record.times.rest = Micros(12_345_678);
        record.times.waited = Micros(12_345_636);
        let line = write(AccessLogFormat::Json, &record, &head);
        assert_eq!(keys(&line), KEYS.map(|(key, _)| key.to_owned()));
        let expected = json!({
            "time": "2026-10-05T12:34:56.789Z", "request_id": "00000000000000000000000000",
            "listener": "web", "client": "2001:db8::1", "peer": "192.0.2.7:5123",
            "method": "GET", "scheme": "http", "host": "a.example:80", "path": "/x y",
            "query": "q=1", "protocol": "HTTP/1.1", "status": 200, "request_bytes": 78,
            "response_bytes": 1234, "route": "a \"route\"", "pool": "app",
            "backend": "10.0.0.1:3000", "reused": false, "attempts": 2, "t_queue": null,
            "t_connect": 0.25, "t_first_byte": 1.05, "t_total": 12345.678, "t_self": 0.042,
            "term": "ok", "sticky": "moved", "tls": "TLSv1.3 suite - new a.example",
            "user_agent": "curl/8", "referer": "http://b/", "trace_id": null,
        });
        assert_eq!(Value::Object(parse(&line)), expected);
        assert!(String::from_utf8(line).unwrap().contains("\"t_connect\":0.250,"));
    }

    #[test]
    fn a_request_that_was_refused_before_it_was_known_has_its_line() {
        let term = Term::Fault(Cause::BadRequest);
        let mut record = Record { status: 400, term, ..Record::default() };
        let head = RequestHead::default();
        let line = write(AccessLogFormat::Json, &record, &head);
        assert_eq!(keys(&line), KEYS.map(|(key, _)| key.to_owned()));
        let object = parse(&line);
        for key in ["method", "host", "path", "protocol", "route", "pool", "backend", "reused"] {
            assert_eq!(object[key], Value::Null, "{key}");
        }
        assert_eq!(object["term"], "bad_request");
        record.status = 0;
        assert_eq!(parse(&write(AccessLogFormat::Json, &record, &head))["status"], Value::Null);
        let line = write(AccessLogFormat::Combined, &record, &head);
        let expected = "2001:db8::1 - - [05/Oct/2026:12:34:56 +0000] \"-\" - 0 \"-\" \"-\"\n";
        assert_eq!(str::from_utf8(&line), Ok(expected));
    }

    #[test]
    fn text_formats_are_those_of_apache_and_nginx() {
        let head = head(&[b"GET", b"a", b"/x", b"?q=\""], b"curl/8 \"\n", b"http://b/");
        let record = Record { status: 404, response_bytes: 5, ..Record::default() };
        let common = r#"192.0.2.1 - - [05/Oct/2026:12:34:56 +0000] "GET /x?q=\x22 HTTP/1.1" 404 5"#;
        let line = write_for("192.0.2.1", AccessLogFormat::Common, &record, &head);
        assert_eq!(String::from_utf8(line).unwrap(), format!("{common}\n"));
        let line = write_for("192.0.2.1", AccessLogFormat::Combined, &record, &head);
        let combined = format!("{common} \"http://b/\" \"curl/8 \\x22\\x0a\"\n");
        assert_eq!(String::from_utf8(line).unwrap(), combined);
    }

    #[test]
    fn every_way_to_end_has_a_code() {
        for (term, code) in [
            (Term::Ok, "ok"),
            (Term::Fault(Cause::ConnectTimeout), "connect_timeout"),
            (Term::Cut(Cause::ResponseRefused), "backend_protocol"),
            (Term::TunnelClosed, "tunnel_closed"),
            (Term::TunnelIdle, "tunnel_idle"),
            (Term::TunnelExpired, "tunnel_expired"),
            (Term::TunnelDrained, "tunnel_drained"),
        ] {
            let record = Record { term, ..Record::default() };
            let line = write(AccessLogFormat::Json, &record, &RequestHead::default());
            assert_eq!(parse(&line)["term"], code);
        }
    }

    /// Bytes that end strings, lines and fields somewhere, in any order.
    fn hostile(rng: &mut Rng, length_max: u32) -> Vec<u8> {
        const PIECES: [&[u8]; 14] = [
            b"\"",
            b"\\",
            b"\n",
            b"\r\n",
            b"\0",
            b"\x1b[2K",
            b"\xff",
            b"\xc3",
            b"\xe2\x80\xa8",
            b"\xc2\x85",
            b"\",\"status\":200,\"x\":\"",
            b"} {",
            b"\" 200 1 \"",
            b"a",
        ];
        let mut bytes = Vec::new();
        for _ in 0..rng.below(length_max) {
            match rng.below(4) {
                0 => bytes.push(rng.next() as u8),
                _ => bytes.extend(PIECES[rng.below(PIECES.len() as u32) as usize]),
            }
        }
        bytes
    }

    #[test]
    fn no_peer_can_forge_a_line() {
        for seed in 0..512 {
            let rng = &mut Rng::seeded(seed);
            let [method, host, path, query] = [(); 4].map(|()| hostile(rng, 12));
            let (agent, referer) = (hostile(rng, 12), hostile(rng, 12));
            let head = head(&[&method, &host, &path, &query], &agent, &referer);
            let record = Record { status: 403, ..Record::default() };
            let line = write(AccessLogFormat::Json, &record, &head);
            let object = parse(&line);
            assert_eq!(object.len(), KEYS.len(), "seed {seed}: {object:?}");
            assert_eq!(object["status"], 403, "seed {seed}");
            assert_eq!(object["path"].as_str().unwrap_or(""), String::from_utf8_lossy(&path));
            assert_eq!(object["user_agent"].as_str().unwrap(), String::from_utf8_lossy(&agent));
            let printable = |text: &str| !text.chars().any(char::is_control);
            assert!(printable(str::from_utf8(&line[..line.len() - 1]).unwrap()), "seed {seed}");

            let line = write(AccessLogFormat::Combined, &record, &head);
            let (text, end) = line.split_at(line.len() - 1);
            assert_eq!(end, b"\n");
            assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)), "seed {seed}");
            let quotes = text.iter().filter(|byte| **byte == b'"').count();
            assert_eq!(quotes, 6, "seed {seed}: {}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_line_has_a_bound_whatever_a_peer_sends() {
        let most = vec![b'\x01'; 100_000];
        let head = head(&[&most, &most, &most, &most], &most, &most);
        for format in [AccessLogFormat::Json, AccessLogFormat::Combined] {
            let line = write(format, &Record::default(), &head);
            assert!(line.len() < 64 << 10, "{} bytes", line.len());
        }
        parse(&write(AccessLogFormat::Json, &Record::default(), &head));
    }
}
