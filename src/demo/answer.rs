//! The answers of a demo origin: a pure function of name and head.
//!
//! A path whose number is invalid or out of range is answered with 400 and a sentence; every path
//! that is not listed here gets a description of the request itself.

use std::time::Duration;

use crate::http::{
    head::{RequestHead, ResponseHead},
    headers::Span,
    names::Name,
};

/// The longest that `/delay/MS` waits.
const DELAY_MS_MAX: u64 = 60_000;

/// The answer of an origin to one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the client waits first.
    pub(super) wait: Duration,
    pub(super) body: Body,
}

/// The body of the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This text.
    Json(String),
    /// This many bytes.
    Bytes(u64),
    /// The request's body, as it comes.
    Echo,
}

/// The answer of the origin of this name.
pub(super) fn to(name: &str, head: &RequestHead) -> Answer {
    let path = std::str::from_utf8(head.bytes(head.path)).unwrap_or("/");
    let (first, rest) = path.get(1..).and_then(|path| path.split_once('/')).unwrap_or_default();
    let number = rest.parse::<u64>().ok();
    let answer =
        |status, wait_ms, body| Answer { status, wait: Duration::from_millis(wait_ms), body };
    let wrong = |what| answer(400, 0, Body::Json(object(name, &[("error", what)], "")));
    match (path, first, number) {
        ("/health", _, _) => answer(200, 0, Body::Json(object(name, &[("state", "up")], ""))),
        ("/echo", _, _) => answer(200, 0, Body::Echo),
        (_, "bytes", Some(count)) => answer(200, 0, Body::Bytes(count)),
        (_, "bytes", None) => wrong("/bytes/N: N is how many bytes you want"),
        (_, "delay", Some(ms @ ..=DELAY_MS_MAX)) => {
            answer(200, ms, Body::Json(description(name, head)))
        }
        (_, "delay", _) => wrong("/delay/MS: MS is milliseconds, at most a minute"),
        (_, "status", Some(status @ 200..=599)) => {
            let status = u16::try_from(status).unwrap_or(500);
            answer(status, 0, Body::Json(description(name, head)))
        }
        (_, "status", _) => wrong("/status/N: N is a final status, 200 to 599"),
        _ => answer(200, 0, Body::Json(description(name, head))),
    }
}

/// The head of an answer. The lines about the connection and the body's length are added when it is
/// written.
pub(super) fn head(name: &str, status: u16, content_type: &[u8]) -> ResponseHead {
    let mut head = begin(status);
    head.headers.push(Name::Other, b"x-origin", name.as_bytes());
    head.headers.push(Name::ContentType, b"content-type", content_type);
    head
}

/// The head that asks for the body of a request (RFC 9110 §15.2.1).
pub(super) fn interim() -> ResponseHead {
    begin(100)
}

fn begin(status: u16) -> ResponseHead {
    let mut head = ResponseHead { status, ..ResponseHead::default() };
    let reason = reason(status).as_bytes();
    head.headers.bytes.extend_from_slice(reason);
    head.reason = Span::new(0, reason.len());
    head
}

/// The request as JSON. Lines of one name are joined as RFC 9110 §5.3 allows.
fn description(name: &str, head: &RequestHead) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut fields: Vec<(String, String)> = Vec::new();
    for field in head.headers.iter() {
        let (key, value) =
            (text(head.headers.name(field)).to_ascii_lowercase(), text(head.headers.value(field)));
        match fields.iter_mut().find(|(seen, _)| *seen == key) {
            Some((_, joined)) => *joined = format!("{joined}, {value}"),
            None => fields.push((key, value)),
        }
    }
    let fields: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
    let fields = format!(",\"headers\":{{{}}}", fields.join(","));
    let (method, target) = (text(head.bytes(head.method_span)), text(head.bytes(head.target)));
    object(name, &[("method", &method), ("path", &target)], &fields)
}

/// An object that names the origin first; `rest` is appended as it is.
fn object(name: &str, members: &[(&str, &str)], rest: &str) -> String {
    let mut text = format!("{{\"origin\":{}", quoted(name));
    for (key, value) in members {
        text.push_str(&format!(",\"{key}\":{}", quoted(value)));
    }
    text + rest + "}\n"
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\0'..='\x1f' => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// The reason phrase of common statuses (RFC 9110 §15); empty for the others, which is allowed.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, HeadLimits, Parse};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 1 << 15, line_bytes_max: 1 << 14, fields_max: 100 };

    fn answer(text: &str) -> Answer {
        let mut head = RequestHead::default();
        let parsed = parse::request(text.as_bytes(), &LIMITS, &mut head).unwrap();
        assert_eq!(parsed, Parse::Done { used: text.len() });
        to("a", &head)
    }

    #[track_caller]
    fn check(path: &str, status: u16, wait_ms: u64, body: Option<Body>) {
        let answer = answer(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert_eq!(
            (answer.status, answer.wait),
            (status, Duration::from_millis(wait_ms)),
            "{path}"
        );
        match body {
            Some(body) => assert_eq!(answer.body, body, "{path}"),
            None => assert!(matches!(answer.body, Body::Json(_)), "{path}"),
        }
    }

    #[test]
    fn each_path_has_its_answer() {
        check("/", 200, 0, None);
        check("/health", 200, 0, Some(Body::Json("{\"origin\":\"a\",\"state\":\"up\"}\n".into())));
        check("/bytes/10000000000", 200, 0, Some(Body::Bytes(10_000_000_000)));
        check("/bytes/0?x", 200, 0, Some(Body::Bytes(0)));
        check("/bytes/-1", 400, 0, None);
        check("/bytes/", 400, 0, None);
        check("/delay/250", 200, 250, None);
        check("/delay/60001", 400, 0, None);
        check("/status/204", 204, 0, None);
        check("/status/599", 599, 0, None);
        check("/status/101", 400, 0, None);
        check("/status/600", 400, 0, None);
        check("/echo", 200, 0, Some(Body::Echo));
        check("/echo/more", 200, 0, None);
        check("/bytes", 200, 0, None);
    }

    #[test]
    fn a_request_is_described_as_it_came() {
        let text = "PUT /a?q=\"1\" HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: \\2\r\n\r\n";
        let expected = r#"{"origin":"a","method":"PUT","path":"/a?q=\"1\"","#.to_owned()
            + r#""headers":{"host":"x","x-one":"1, \\2"}}"#;
        assert_eq!(answer(text).body, Body::Json(expected + "\n"));
    }
}
