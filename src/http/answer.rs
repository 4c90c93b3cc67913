//! Our own answers to failed requests: status, code, sentence and body.
//!
//! One fault, one answer: status, code and sentence come from the table in `fault`, the format of
//! the body from Accept. No byte of a peer is in it but the request id, which is escaped; no
//! address of a backend ever is. The caller decides whether the connection may stay open.

use std::time::Duration;

use super::{
    fault::Fault,
    framing::BodyLength,
    grammar,
    head::{Method, RequestHead, ResponseHead, Version},
    headers::Span,
    names::Name,
    write::{self, Connection},
};

/// The format of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyKind {
    #[default]
    Json,
    Text,
    Html,
    /// None: the status of gRPC stands in the head ("trailers-only").
    Grpc,
}

/// What an answer needs besides its fault.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultAnswer<'a> {
    pub(crate) kind: BodyKind,
    /// Of the request, if it was read that far: HEAD gets no body.
    pub(crate) method: Method,
    /// The value of Date.
    pub(crate) date: &'a [u8],
    pub(crate) request_id: Option<&'a [u8]>,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
}

/// The format that a client prefers (RFC 9110 §12.5.1): JSON, unless text or HTML has a greater
/// weight, or the same weight and is named more exactly.
pub(crate) fn body_kind(accept: Option<&[u8]>) -> BodyKind {
    let Some(accept) = accept else { return BodyKind::Json };
    let weight = |types: [&[u8]; 2]| types.iter().map(|name| weight(accept, name)).max();
    [
        (BodyKind::Text, [&b"text/plain"[..], b"text/plain"]),
        (BodyKind::Html, [b"text/html", b"application/xhtml+xml"]),
    ]
    .into_iter()
    .fold(
        (BodyKind::Json, weight([b"application/json", b"application/problem+json"])),
        |best, (kind, types)| {
            let weight = weight(types);
            if weight > best.1 { (kind, weight) } else { best }
        },
    )
    .0
}

/// The weight of a media type in thousandths, and how exactly it was named: by itself, by `type/*`,
/// by `*/*`, or not at all.
fn weight(accept: &[u8], name: &[u8]) -> (u16, u8) {
    let kind = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    let mut best: (u8, u16) = (0, 0);
    for member in grammar::list(accept) {
        let mut parts = member.split(|byte| *byte == b';').map(grammar::trim);
        let range = parts.next().unwrap_or_default();
        let exact = match range.strip_suffix(b"/*") {
            _ if range.eq_ignore_ascii_case(name) => 3,
            Some(start) if start.eq_ignore_ascii_case(kind) => 2,
            Some(b"*") => 1,
            Some(_) | None => continue,
        };
        // The most exact range decides, not the one with the greatest weight.
        if exact > best.0 {
            best = (exact, parts.find_map(quality).unwrap_or(1000));
        }
    }
    match best {
        (_, 0) => (0, 0),
        (exact, quality) => (quality, exact),
    }
}

/// The weight of a parameter `q=0.123` in thousandths (RFC 9110 §12.4.2); one that cannot be read
/// counts as the least.
fn quality(parameter: &[u8]) -> Option<u16> {
    let (b'q' | b'Q', value) = parameter.split_first()? else { return None };
    Some(match value.strip_prefix(b"=")? {
        [b'0', b'.', places @ ..] if places.len() <= 3 => {
            let thousandths = [100, 10, 1].into_iter().zip(places);
            thousandths.map(|(unit, place)| unit * u16::from(place.wrapping_sub(b'0').min(9))).sum()
        }
        [b'1', ..] => 1000,
        _ => 0,
    })
}

/// Makes the answer to a fault: its head, its body in `body`, and the body's length, which HEAD is
/// only told. A fault without a status has no answer.
pub(crate) fn fault(
    fault: Fault,
    answer: &FaultAnswer<'_>,
    head: &mut ResponseHead,
    body: &mut Vec<u8>,
) -> BodyLength {
    let row = fault.cause.row();
    if row.status == 0 {
        return BodyLength::None;
    }
    body.clear();
    if answer.kind == BodyKind::Grpc {
        grpc(fault, answer, head);
        return BodyLength::None;
    }
    begin(row.status, head);
    let title = title(row.status);
    // The request id is the only part of the body whose length the table does not give.
    body.reserve(256 + answer.request_id.map_or(0, <[u8]>::len));
    match answer.kind {
        BodyKind::Json => json(fault, title, answer.request_id, body),
        BodyKind::Text => text(fault, title, answer.request_id, body),
        BodyKind::Html => html(fault, title, answer.request_id, body),
        BodyKind::Grpc => {}
    }
    let headers = &mut head.headers;
    headers.push(Name::ContentType, b"content-type", content_type(answer.kind));
    headers.push(Name::Date, b"date", answer.date);
    headers.push(Name::CacheControl, b"cache-control", b"no-store");
    headers.push_with(Name::Other, b"proxy-status", |out| {
        push(out, &[b"ringway; error=", row.proxy_status.as_bytes()]);
    });
    if row.status == 405 {
        headers.push(Name::Other, b"allow", ALLOW); // RFC 9110 §15.5.6
    }
    if let Some(seconds) = answer.retry_after {
        headers.push_with(Name::Other, b"retry-after", |out| {
            grammar::push_decimal(u64::from(seconds), out);
        });
    }
    if let Some(id) = answer.request_id.filter(|id| is_field_value(id)) {
        headers.push(Name::XRequestId, b"x-request-id", id);
    }
    let length = BodyLength::Fixed(body.len() as u64);
    if answer.method == Method::Head {
        body.clear();
    }
    length
}

/// Makes the answer to a fault for a client of gRPC: all of it is one head.
#[cold]
fn grpc(fault: Fault, answer: &FaultAnswer<'_>, head: &mut ResponseHead) {
    let row = fault.cause.row();
    begin(200, head);
    let headers = &mut head.headers;
    headers.push(Name::ContentType, b"content-type", content_type(BodyKind::Grpc));
    headers.push_with(Name::Other, b"grpc-status", |out| {
        grammar::push_decimal(grpc_status(row.status), out);
    });
    headers.push(Name::Other, b"grpc-message", row.sentence.as_bytes());
    headers.push(Name::Date, b"date", answer.date);
    headers.push_with(Name::Other, b"proxy-status", |out| {
        push(out, &[b"ringway; error=", row.proxy_status.as_bytes()]);
    });
    if let Some(id) = answer.request_id.filter(|id| is_field_value(id)) {
        headers.push(Name::XRequestId, b"x-request-id", id);
    }
}

/// The status of gRPC for one of HTTP: those of its own table (`http-grpc-status-mapping`), but
/// that what is late is DEADLINE_EXCEEDED, and what is too large RESOURCE_EXHAUSTED.
fn grpc_status(status: u16) -> u64 {
    match status {
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        413 | 414 | 431 => 8,
        429 | 502 | 503 => 14,
        400 | 500 => 13,
        _ => 2,
    }
}

/// Whether a request is one of gRPC.
pub(crate) fn is_grpc(head: &RequestHead) -> bool {
    if head.version != Version::Http2 {
        return false;
    }
    let media = head.headers.first(Name::ContentType).unwrap_or_default();
    let parts = media.split_at_checked(b"application/grpc".len());
    parts.is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(b"application/grpc")
            && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// The time that a client of gRPC gives (`grpc-timeout`); none if it gives none, or in another
/// form.
pub(crate) fn grpc_timeout(head: &RequestHead) -> Option<Duration> {
    let (unit, digits) = head.headers.named(b"grpc-timeout").next()?.split_last()?;
    let count = grammar::digits(digits).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The answer to a fault as bytes, head and body, on a connection that ends with it.
pub(crate) fn alone(of: Fault, answer: &FaultAnswer<'_>) -> Vec<u8> {
    let (mut head, mut body, mut out) = (ResponseHead::default(), Vec::new(), Vec::new());
    let length = fault(of, answer, &mut head, &mut body);
    write::response(&head, length, Connection::Close, &mut out);
    out.extend_from_slice(&body);
    out
}

/// For us, all methods but CONNECT and TRACE.
const ALLOW: &[u8] = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// Makes the answer to an OPTIONS whose Max-Forwards has run out (RFC 9110 §7.6.2, §9.3.7).
#[cold]
pub(crate) fn options(date: &[u8], head: &mut ResponseHead) -> BodyLength {
    begin(204, head);
    head.headers.push(Name::Other, b"allow", ALLOW);
    head.headers.push(Name::Date, b"date", date);
    BodyLength::None
}

/// Makes the head of an answer of this many bytes that are no text for people.
#[cold]
pub(crate) fn plain(bytes: usize, date: &[u8], head: &mut ResponseHead) -> BodyLength {
    begin(200, head);
    head.headers.push(Name::Other, b"content-type", b"application/octet-stream");
    head.headers.push(Name::Other, b"cache-control", b"no-store");
    head.headers.push(Name::Date, b"date", date);
    BodyLength::Fixed(bytes as u64)
}

/// Begins the head of an answer of our own.
fn begin(status: u16, head: &mut ResponseHead) {
    head.clear();
    head.status = status;
    head.headers.bytes.extend_from_slice(title(status).as_bytes());
    head.reason = Span::new(0, head.headers.bytes.len());
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| grammar::is_value_byte(*byte))
}

fn content_type(kind: BodyKind) -> &'static [u8] {
    match kind {
        BodyKind::Json => b"application/problem+json",
        BodyKind::Text => b"text/plain; charset=utf-8",
        BodyKind::Html => b"text/html; charset=utf-8",
        BodyKind::Grpc => b"application/grpc",
    }
}

fn json(fault: Fault, title: &str, request_id: Option<&[u8]>, body: &mut Vec<u8>) {
    let row = fault.cause.row();
    push(body, &[b"{\"error\":\"", row.sentence.as_bytes(), b"\",\"code\":\""]);
    push(body, &[row.code.as_bytes(), b"\",\"status\":"]);
    grammar::push_decimal(u64::from(row.status), body);
    push(body, &[b",\"title\":\"", title.as_bytes(), b"\""]);
    if let Some(id) = request_id {
        body.extend_from_slice(b",\"request_id\":\"");
        escape(id, json_escape, body);
        body.extend_from_slice(b"\"");
    }
    body.extend_from_slice(b"}\n");
}

fn text(fault: Fault, title: &str, request_id: Option<&[u8]>, body: &mut Vec<u8>) {
    let row = fault.cause.row();
    grammar::push_decimal(u64::from(row.status), body);
    push(body, &[b" ", title.as_bytes(), b"\n", row.sentence.as_bytes(), b" ("]);
    push(body, &[row.code.as_bytes(), b")\n"]);
    if let Some(id) = request_id {
        body.extend_from_slice(b"request id: ");
        escape(id, |_| None, body);
        body.extend_from_slice(b"\n");
    }
}

fn html(fault: Fault, title: &str, request_id: Option<&[u8]>, body: &mut Vec<u8>) {
    let row = fault.cause.row();
    let mut status = Vec::with_capacity(3);
    grammar::push_decimal(u64::from(row.status), &mut status);
    let title = [&status, &b" "[..], title.as_bytes()];
    push(body, &[b"<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>"]);
    push(body, &title);
    push(body, &[b"</title>\n<h1>"]);
    push(body, &title);
    push(body, &[b"</h1>\n<p>", row.sentence.as_bytes(), b" (<code>", row.code.as_bytes()]);
    push(body, &[b"</code>)</p>\n"]);
    if let Some(id) = request_id {
        body.extend_from_slice(b"<p>request id: <code>");
        escape(id, html_escape, body);
        body.extend_from_slice(b"</code></p>\n");
    }
    body.extend_from_slice(b"</html>\n");
}

/// Appends bytes from a peer: `special` replaces the bytes it knows, and a question mark what is
/// not visible ASCII.
fn escape(bytes: &[u8], special: fn(u8) -> Option<&'static [u8]>, out: &mut Vec<u8>) {
    for byte in bytes {
        match special(*byte) {
            Some(escaped) => out.extend_from_slice(escaped),
            None if matches!(byte, b' '..=0x7e) => out.push(*byte),
            None => out.push(b'?'),
        }
    }
}

fn json_escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'"' => Some(b"\\\""),
        b'\\' => Some(b"\\\\"),
        _ => None,
    }
}

fn html_escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        _ => None,
    }
}

/// The reason phrase of a status in the table of faults.
fn title(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        fault::Cause,
        framing,
        head::Version,
        parse::{self, HeadLimits, Parse},
    };

    #[test]
    fn json_it_is_unless_text_or_html_is_preferred() {
        #[track_caller]
        fn check(accept: &str, expected: BodyKind) {
            assert_eq!(body_kind(Some(accept.as_bytes())), expected, "{accept}");
        }
        use BodyKind::{Html, Json, Text};
        assert_eq!(body_kind(None), Json);
        check("", Json);
        check("*/*", Json);
        check("application/json", Json);
        check("application/problem+json, text/html;q=0.9", Json);
        check("application/*", Json);
        check("text/html", Html);
        check("TEXT/HTML", Html);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Html);
        check("text/html, */*", Html);
        check("text/plain", Text);
        check("text/*", Text);
        check("text/plain, text/html", Text);
        check("text/plain;q=0.5, text/html", Html);
        check("text/html;q=0.5, application/json", Json);
        check("text/html;q=0.5, application/json;q=0.25", Html);
        check("text/html;q=0.5;x=y, */*;q=0.1", Html);
        check("text/html;q=0, */*;q=0.1", Json);
        check("text/html;q=0", Json);
        check("text/html;level=1;q=0.123, text/plain;q=0.124", Text);
        check("text/html;q=0, text/html", Json);
        check("text/html;q=x", Json);
        check("text/html;q=0.1234", Json);
        check("image/png", Json);
        check("a/b/*, /, ;, text", Json);
    }

    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    /// The answer on a connection that ends with it.
    fn written(cause: Cause, answer: &FaultAnswer<'_>) -> String {
        written_as(cause, answer, Connection::Close)
    }

    fn written_as(cause: Cause, answer: &FaultAnswer<'_>, connection: Connection) -> String {
        let (mut head, mut body) = (ResponseHead::default(), Vec::new());
        let length = fault(cause.into(), answer, &mut head, &mut body);
        let mut out = Vec::new();
        if head.status != 0 {
            write::response(&head, length, connection, &mut out);
        }
        out.extend_from_slice(&body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_is_what_the_interface_shows() {
        let answer = FaultAnswer { date: DATE, request_id: Some(b"01J"), ..FaultAnswer::default() };
        let expected = "HTTP/1.1 503 Service Unavailable\r\n\
            content-type: application/problem+json\r\n\
            date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            cache-control: no-store\r\n\
            proxy-status: ringway; error=destination_unavailable\r\n\
            x-request-id: 01J\r\n\
            Connection: close\r\n\
            Content-Length: 124\r\n\
            \r\n\
            {\"error\":\"No healthy backends available\",\"code\":\"no_backend\",\"status\":503,\
            \"title\":\"Service Unavailable\",\"request_id\":\"01J\"}\n";
        assert_eq!(written(Cause::NoBackend, &answer), expected);
    }

    #[test]
    fn text_and_html_say_the_same() {
        let answer =
            FaultAnswer { kind: BodyKind::Text, request_id: Some(b"<&"), ..Default::default() };
        let body = written(Cause::NoRoute, &answer);
        let (_, body) = body.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "404 Not Found\nNo route for this request (no_route)\nrequest id: <&\n");
        let answer = FaultAnswer { kind: BodyKind::Html, ..answer };
        let body = written(Cause::NoRoute, &answer);
        assert!(body.contains(
            "<h1>404 Not Found</h1>\n<p>No route for this request (<code>no_route</code>)</p>"
        ));
        assert!(body.contains("request id: <code>&lt;&amp;</code>"));
    }

    #[test]
    fn a_request_id_cannot_break_out() {
        let id = b"\"\\\r\nset-cookie: a\0";
        let answer = FaultAnswer { request_id: Some(id), ..FaultAnswer::default() };
        let out = written(Cause::Internal, &answer);
        assert!(!out.contains("\r\nset-cookie") && !out.contains("\r\nx-request-id"), "{out}");
        assert!(out.ends_with("\"request_id\":\"\\\"\\\\??set-cookie: a?\"}\n"), "{out}");
    }

    #[test]
    fn the_lines_that_some_answers_have_are_on_those_only() {
        #[track_caller]
        fn check(cause: Cause, answer: FaultAnswer<'_>, line: &str, expected: bool) {
            check_as(cause, answer, Connection::Close, line, expected);
        }
        #[track_caller]
        fn check_as(
            cause: Cause,
            answer: FaultAnswer<'_>,
            connection: Connection,
            line: &str,
            expected: bool,
        ) {
            let out = written_as(cause, &answer, connection);
            assert_eq!(out.contains(&format!("\r\n{line}\r\n")), expected, "{line}: {out}");
        }
        let plain = FaultAnswer::default();
        let kept = Connection::of(Some((Version::Http11, true)));
        let kept_10 = Connection::of(Some((Version::Http10, true)));
        check(Cause::NoRoute, plain, "Connection: close", true);
        check_as(Cause::NoRoute, plain, kept, "Connection: close", false);
        check_as(Cause::NoRoute, plain, kept, "Connection: keep-alive", false);
        check_as(Cause::NoRoute, plain, kept_10, "Connection: keep-alive", true);
        let later = FaultAnswer { retry_after: Some(120), ..plain };
        check(Cause::QueueFull, later, "retry-after: 120", true);
        let allow = "allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
        check(Cause::MethodRefused, plain, allow, true);
        check(Cause::NoRoute, plain, allow, false);
    }

    /// Our own parser accepts the answer to every cause with a status, and HEAD's is the same
    /// without the body (RFC 9110 §9.3.2).
    #[test]
    fn every_answer_is_whole() {
        const CAUSES: [Cause; 34] = [
            Cause::BadRequest,
            Cause::Denied,
            Cause::NoRoute,
            Cause::MethodRefused,
            Cause::RequestTimeout,
            Cause::LengthRequired,
            Cause::BodyTooLarge,
            Cause::UriTooLong,
            Cause::ExpectationFailed,
            Cause::Misdirected,
            Cause::Limited,
            Cause::HeadTooLarge,
            Cause::Internal,
            Cause::NotImplemented,
            Cause::Loop,
            Cause::ConnectFailed,
            Cause::NameNotResolved,
            Cause::BackendTls,
            Cause::BackendReset,
            Cause::BackendStale,
            Cause::BackendUnprocessed,
            Cause::BackendOldHttp,
            Cause::BackendProtocol,
            Cause::ResponseRefused,
            Cause::ResponseHeadTooLarge,
            Cause::NoBackend,
            Cause::QueueFull,
            Cause::QueueTimeout,
            Cause::Overloaded,
            Cause::ShuttingDown,
            Cause::ConnectTimeout,
            Cause::ResponseTimeout,
            Cause::Deadline,
            Cause::VersionRefused,
        ];
        let limits = HeadLimits { head_bytes_max: 4096, line_bytes_max: 4096, fields_max: 20 };
        for cause in CAUSES {
            for kind in [BodyKind::Json, BodyKind::Text, BodyKind::Html] {
                let answer = FaultAnswer { kind, date: DATE, ..FaultAnswer::default() };
                let out = written(cause, &answer);
                let mut head = ResponseHead::default();
                let parsed = parse::response(out.as_bytes(), &limits, &mut head);
                let Ok(Parse::Done { used }) = parsed else { panic!("{cause:?}: {parsed:?}") };
                assert_eq!(head.status, Fault::new(cause).status());
                assert_ne!(title(head.status), "Error", "{cause:?}");
                let length = framing::response(Method::Get, &mut head);
                assert_eq!(length, Ok(BodyLength::Fixed((out.len() - used) as u64)), "{cause:?}");
                let line = head.headers.first(Name::ContentType).unwrap();
                assert_eq!(line, content_type(kind));
                let head_only = FaultAnswer { method: Method::Head, ..answer };
                assert_eq!(written(cause, &head_only), out[..used], "{cause:?}");
            }
        }
        for cause in [Cause::ClientAbort, Cause::ClientTimeout, Cause::ResponseIncomplete] {
            assert_eq!(written(cause, &FaultAnswer::default()), "");
        }
    }

    #[test]
    fn a_time_of_grpc_is_a_number_and_a_unit() {
        for (value, micros) in [
            ("1H", Some(3_600_000_000)),
            ("2M", Some(120_000_000)),
            ("3S", Some(3_000_000)),
            ("99999999m", Some(99_999_999_000)),
            ("7u", Some(7)),
            ("1000n", Some(1)),
            ("100000000m", None),
            ("m", None),
            ("1", None),
            ("1s", None),
            ("-1m", None),
            ("1.5S", None),
        ] {
            let mut head = RequestHead::default();
            head.headers.push(Name::Other, b"grpc-timeout", value.as_bytes());
            assert_eq!(grpc_timeout(&head).map(|time| time.as_micros()), micros, "{value}");
        }
    }

    #[test]
    fn a_client_of_grpc_gets_a_status_of_grpc_in_one_head() {
        for (media, is_it) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut head = RequestHead { version: Version::Http2, ..RequestHead::default() };
            head.headers.push(Name::ContentType, b"content-type", media.as_bytes());
            assert_eq!(is_grpc(&head), is_it, "{media}");
            head.version = Version::Http11;
            assert!(!is_grpc(&head));
        }
        let (mut head, mut body) = (ResponseHead::default(), b"old".to_vec());
        let about = FaultAnswer { kind: BodyKind::Grpc, ..FaultAnswer::default() };
        for (cause, status) in [
            (Cause::NoBackend, "14"),
            (Cause::BackendReset, "14"),
            (Cause::Deadline, "4"),
            (Cause::NoRoute, "12"),
            (Cause::BodyTooLarge, "8"),
            (Cause::Internal, "13"),
        ] {
            assert_eq!(fault(cause.into(), &about, &mut head, &mut body), BodyLength::None);
            assert_eq!((head.status, body.len()), (200, 0));
            let said = head.headers.named(b"grpc-status").next();
            assert_eq!(said, Some(status.as_bytes()), "{cause:?}");
        }
    }
}
