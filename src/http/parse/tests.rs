//! Tests of the parser of heads: every head comes whole and byte by byte, with the same result.
//!
//! Tables of accepted heads with what they parse to, and of refused heads with the side at fault;
//! each limit on both sides.

use super::*;
use crate::base::rng::Rng;
use crate::http::{
    fault::{Cause, Fault},
    head::{Method, RequestHead, ResponseHead, TargetForm, Version},
    headers::{Field, Headers, Span},
    names::Name,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 400, line_bytes_max: 100, fields_max: 8 };

/// The result of `parse` for a head that comes whole, and, the same, byte by byte.
#[track_caller]
fn parsed<H>(
    input: &[u8],
    parse: impl Fn(&[u8], &mut H) -> Result<Parse, Fault>,
    mut head: H,
    show: impl Fn(&H) -> String,
) -> (Result<Parse, Fault>, H) {
    let mut outcome = Ok(Parse::More);
    for end in 0..=input.len() {
        outcome = parse(&input[..end], &mut head);
        if outcome != Ok(Parse::More) {
            break;
        }
    }
    let shown = show(&head);
    let whole = parse(input, &mut head);
    assert_eq!(outcome, whole, "byte by byte, and whole: {}", input.escape_ascii());
    if whole.is_ok() {
        assert_eq!(shown, show(&head), "{}", input.escape_ascii());
    }
    (whole, head)
}

#[track_caller]
fn parsed_request(input: &[u8]) -> (Result<Parse, Fault>, RequestHead) {
    let parse = |input: &[u8], head: &mut RequestHead| request(input, &LIMITS, head);
    parsed(input, parse, RequestHead::default(), |head| format!("{head:?}"))
}

#[track_caller]
fn parsed_response(input: &[u8]) -> (Result<Parse, Fault>, ResponseHead) {
    let parse = |input: &[u8], head: &mut ResponseHead| response(input, &LIMITS, head);
    parsed(input, parse, ResponseHead::default(), |head| format!("{head:?}"))
}

#[track_caller]
fn accepts(input: &str) -> RequestHead {
    let (outcome, head) = parsed_request(input.as_bytes());
    assert_eq!(outcome, Ok(Parse::Done { used: input.len() }), "{}", input.escape_debug());
    head
}

#[track_caller]
fn refuses(cause: Cause, input: impl AsRef<[u8]>) {
    let input = input.as_ref();
    let (outcome, _) = parsed_request(input);
    assert_eq!(outcome, Err(cause.into()), "{}", input.escape_ascii());
}

#[track_caller]
fn accepts_response(input: impl AsRef<[u8]>) -> ResponseHead {
    let input = input.as_ref();
    let (outcome, head) = parsed_response(input);
    assert_eq!(outcome, Ok(Parse::Done { used: input.len() }), "{}", input.escape_ascii());
    head
}

#[track_caller]
fn refuses_response(cause: Cause, input: impl AsRef<[u8]>) {
    let input = input.as_ref();
    let (outcome, _) = parsed_response(input);
    assert_eq!(outcome, Err(cause.into()), "{}", input.escape_ascii());
}

fn text(head: &RequestHead, span: Span) -> &str {
    std::str::from_utf8(head.bytes(span)).unwrap()
}

fn lines(headers: &Headers) -> Vec<(String, String, bool)> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let line = |f: &Field| (text(headers.name(f)), text(headers.value(f)), f.canonical);
    headers.iter().map(line).collect()
}

#[test]
fn a_request_is_its_method_its_target_and_its_fields_in_order() {
    let head = accepts("POST /a/b?c=d HTTP/1.1\r\nHost: h:80\r\nX: 1\r\nx: 2\r\n\r\n");
    assert_eq!(head.method, Method::Post);
    assert_eq!(text(&head, head.method_span), "POST");
    assert_eq!(text(&head, head.target), "/a/b?c=d");
    assert_eq!(text(&head, head.path), "/a/b");
    assert_eq!(text(&head, head.query), "c=d");
    assert_eq!(text(&head, head.authority), "h:80");
    assert_eq!((head.version, head.form), (Version::Http11, TargetForm::Origin));
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned(), true);
    assert_eq!(lines(&head.headers), [line("Host", "h:80"), line("X", "1"), line("x", "2")]);
    let known: Vec<Name> = head.headers.iter().map(|field| field.known).collect();
    assert_eq!(known, [Name::Host, Name::Other, Name::Other]);
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let mut head = RequestHead::default();
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET \0";
    assert_eq!(request(input, &LIMITS, &mut head), Ok(Parse::Done { used: 27 }));
    let mut head = ResponseHead::default();
    let input = b"HTTP/1.1 200 OK\r\n\r\n\n\n\0";
    assert_eq!(response(input, &LIMITS, &mut head), Ok(Parse::Done { used: 19 }));
}

#[test]
fn one_leading_empty_line_is_forgiven_and_no_more() {
    let head = accepts("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(text(&head, head.method_span), "GET");
    assert_eq!(text(&head, head.target), "/");
    refuses(Cause::BadRequest, "\r\n\r\n");
    refuses(Cause::BadRequest, "\r\n\n");
    for start in ["\r\n\r\n", "\n", "\n\n", "\r\n\n", "\r\r\n", "\r", " ", "\r\n ", "\t"] {
        refuses(Cause::BadRequest, format!("{start}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
}

#[test]
fn spaces_around_a_value_are_dropped_and_mark_its_line() {
    let head = accepts("GET / HTTP/1.1\r\nHost:a\r\nB:  b \t\r\nC: c\r\nD:\r\nE: \r\n\r\n");
    let line = |n: &str, v: &str, canonical| (n.to_owned(), v.to_owned(), canonical);
    let expected = [
        line("Host", "a", false),
        line("B", "b", false),
        line("C", "c", true),
        line("D", "", false),
        line("E", "", true),
    ];
    assert_eq!(lines(&head.headers), expected);
}

/// RFC 9112 §2.2, §3 and §5: everything that makes a head ambiguous.
#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused() {
    for input in [
        // §2.2: bare LF, bare CR, in every place.
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a \n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\rHost: a\r\r",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n",
        // §2.2: whitespace before the first field.
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        // §3: one SP between the parts, none around them.
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET\r\n\r\n",
        "GET / \r\nHost: a\r\n\r\n",
        "GET HTTP/1.1\r\nHost: a\r\n\r\n",
        // §3.1: a method is a token.
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GÉT / HTTP/1.1\r\nHost: a\r\n\r\n",
        ": / HTTP/1.1\r\nHost: a\r\n\r\n",
        // §2.3: a version is a version.
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.\r\nHost: a\r\n\r\n",
        "GET / HTTP/11\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/x.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
        "GET / FTP/1.1\r\nHost: a\r\n\r\n",
        // §5.1: no whitespace before the colon, a name that is a token, and a colon.
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\x7f: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nXé: b\r\n\r\n",
        // §5.2: line folding.
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n c\r\n\r\n",
        // RFC 9110 §5.5: no NUL and no other control in a value.
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x0ba\r\n\r\n",
        // What is not HTTP at all.
        "\x16\x03\x01\x02\x00",
        "\0",
        "SSH-2.0-x\r\n",
    ] {
        refuses(Cause::BadRequest, input);
    }
}

/// RFC 9112 §3.2.
#[test]
fn host_is_there_once_and_valid() {
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nX: b\r\nhost: c\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:b\r\n",
        "Host: http://a\r\n",
        "Host: é\r\n",
        "Host: [::1\r\n",
    ] {
        refuses(Cause::BadRequest, format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        // §3.2.2: an absolute target does not make up for it.
        refuses(Cause::BadRequest, format!("GET http://b/ HTTP/1.1\r\n{fields}\r\n"));
        if !fields.is_empty() {
            refuses(Cause::BadRequest, format!("GET / HTTP/1.0\r\n{fields}\r\n"));
        }
    }
    let head = accepts("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(text(&head, head.authority), "");
    let head = accepts("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(text(&head, head.authority), "a");
}

/// RFC 9112 §3.2.1 to §3.2.4.
#[test]
fn a_target_is_taken_apart_by_its_form() {
    #[track_caller]
    fn check(line: &str, form: TargetForm, parts: [&str; 4]) {
        let head = accepts(&format!("{line} HTTP/1.1\r\nHost: host\r\n\r\n"));
        assert_eq!(head.form, form, "{line}");
        let spans = [head.authority, head.target, head.path, head.query];
        assert_eq!(spans.map(|span| text(&head, span)), parts, "{line}");
    }
    use TargetForm::{Absolute, Asterisk, Authority, Origin};
    check("GET /a?b", Origin, ["host", "/a?b", "/a", "b"]);
    check("GET /?", Origin, ["host", "/?", "/", ""]);
    check("OPTIONS *", Asterisk, ["host", "*", "*", ""]);
    check("GET http://a:1/b?c", Absolute, ["a:1", "/b?c", "/b", "c"]);
    check("GET hTTps://a", Absolute, ["a", "/", "/", ""]);
    check("GET http://a?b=c", Absolute, ["a", "/?b=c", "/", "b=c"]);
    check("OPTIONS http://a", Absolute, ["a", "*", "*", ""]);
    check("OPTIONS http://a/", Absolute, ["a", "/", "/", ""]);
    check("OPTIONS http://a?b", Absolute, ["a", "/?b", "/", "b"]);
    check("CONNECT a:443", Authority, ["a:443", "a:443", "", ""]);
    check("TRACE /", Origin, ["host", "/", "/", ""]);
    for line in ["GET *", "GET a:443", "CONNECT /", "GET http://u@a/", "GET /a#b", "GET /é"] {
        refuses(Cause::BadRequest, format!("{line} HTTP/1.1\r\nHost: host\r\n\r\n"));
    }
}

#[test]
fn methods_are_told_apart_by_case() {
    #[track_caller]
    fn check(method: &str, expected: Method) {
        let head = accepts(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.method, expected);
        assert_eq!(text(&head, head.method_span), method);
    }
    check("GET", Method::Get);
    check("HEAD", Method::Head);
    check("POST", Method::Post);
    check("PUT", Method::Put);
    check("DELETE", Method::Delete);
    check("OPTIONS", Method::Options);
    check("PATCH", Method::Patch);
    check("TRACE", Method::Trace);
    check("get", Method::Other);
    check("PROPFIND", Method::OtherIdempotent);
    check("LOCK", Method::Other);
    check("M-SEARCH", Method::Other);
}

/// RFC 9110 §2.5, §6.2.
#[test]
fn another_major_version_is_refused_and_a_later_minor_one_is_read_as_1_1() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        refuses(Cause::VersionRefused, format!("GET / {version}\r\nHost: a\r\n\r\n"));
    }
    refuses(Cause::VersionRefused, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for minor in ["HTTP/1.2", "HTTP/1.9"] {
        let head = accepts(&format!("GET / {minor}\r\nHost: a\r\n\r\n"));
        assert_eq!(head.version, Version::Http11);
        let head = accepts_response(format!("{minor} 200 OK\r\n\r\n"));
        assert_eq!(head.version, Version::Http11);
    }
    refuses(Cause::BadRequest, "GET / HTTP/1.2\r\n\r\n");
    assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
}

fn request_line_of(bytes: usize) -> String {
    format!("GET /{} HTTP/1.1\r\n", "a".repeat(bytes - "GET / HTTP/1.1\r\n".len()))
}

#[test]
fn a_request_line_up_to_its_limit_is_taken_and_one_beyond_is_414() {
    let max = LIMITS.line_bytes_max;
    accepts(&format!("{}Host: a\r\n\r\n", request_line_of(max)));
    accepts(&format!("\r\n{}Host: a\r\n\r\n", request_line_of(max)));
    refuses(Cause::UriTooLong, format!("{}Host: a\r\n\r\n", request_line_of(max + 1)));
    refuses(Cause::UriTooLong, format!("GET /{}", "a".repeat(max)));
    refuses(Cause::UriTooLong, "A".repeat(max));
    // The first error in the bytes is reported, however they come.
    refuses(Cause::UriTooLong, format!("{}: bad\r\n\r\n", request_line_of(max + 1)));
    refuses(Cause::BadRequest, format!("G\0T /{}", "a".repeat(max)));
    refuses(Cause::UriTooLong, format!("GET /{} HTTP/2.0\r\n\r\n", "a".repeat(max)));
}

fn head_of(bytes: usize) -> String {
    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
}

#[test]
fn a_head_up_to_its_limit_is_taken_and_one_beyond_is_431() {
    let max = LIMITS.head_bytes_max;
    accepts(&head_of(max));
    refuses(Cause::HeadTooLarge, head_of(max + 1));
    refuses(Cause::HeadTooLarge, &head_of(max + 500)[..max]);
    let too_large = head_of(max + 1).replacen("GET / HTTP/1.1\r\nHost: a", "HTTP/1.1 200 OK", 1);
    let padding = max + 1 - too_large.len();
    let too_large = too_large.replacen('x', &"x".repeat(padding + 1), 1);
    refuses_response(Cause::ResponseHeadTooLarge, &too_large);
    accepts_response(too_large.replacen('x', "", 1));
}

#[test]
fn as_many_fields_as_allowed_are_taken_and_one_more_is_431() {
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let max = LIMITS.fields_max;
    accepts(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(max - 1)));
    let more = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(max));
    refuses(Cause::HeadTooLarge, &more);
    refuses(Cause::HeadTooLarge, &more[..more.len() - 2]);
    accepts_response(format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(max)));
    let more = format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(max + 1));
    refuses_response(Cause::ResponseHeadTooLarge, more);
    let limits = HeadLimits { fields_max: 1000, head_bytes_max: 1 << 20, ..LIMITS };
    let mut head = RequestHead::default();
    let head_of = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
    assert!(request(head_of(255).as_bytes(), &limits, &mut head).is_ok());
    let outcome = request(head_of(256).as_bytes(), &limits, &mut head);
    assert_eq!(outcome, Err(Cause::HeadTooLarge.into()));
}

/// RFC 9112 §9.3.
#[test]
fn a_connection_stays_open_unless_it_is_said_otherwise() {
    #[track_caller]
    fn check(version: &str, connection: &str, expected: bool) {
        let head = accepts(&format!("GET / {version}\r\nHost: a\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
        let head = accepts_response(format!("{version} 200 OK\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
    }
    check("HTTP/1.1", "", true);
    check("HTTP/1.1", "Connection: close\r\n", false);
    check("HTTP/1.1", "Connection: CLOSE\r\n", false);
    check("HTTP/1.1", "Connection: keep-alive, close\r\n", false);
    check("HTTP/1.1", "Connection: keep-alive\r\nConnection: x ,\tclose\r\n", false);
    check("HTTP/1.1", "Connection: closed\r\n", true);
    check("HTTP/1.0", "", false);
    check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
    check("HTTP/1.0", "Connection: keep-alive, close\r\n", false);
    check("HTTP/1.0", "Keep-Alive: timeout=5\r\n", false);
}

/// RFC 9110 §10.1.1.
#[test]
fn the_one_expectation_there_is_may_be_asked() {
    #[track_caller]
    fn check(version: &str, fields: &str, expected: bool) {
        let head = accepts(&format!("PUT / {version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.expects_continue, expected, "{version} {fields}");
    }
    check("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 1\r\n", true);
    check("HTTP/1.1", "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true);
    check("HTTP/1.1", "Expect: 100-continue\r\n", false);
    check("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false);
    check("HTTP/1.1", "Expect:\r\nContent-Length: 1\r\n", false);
    check("HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false);
    check("HTTP/1.0", "Expect: wonders\r\n", false);
    for other in ["wonders", "100-continue, wonders", "100", "100-continue;x=y"] {
        let input = format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: {other}\r\n\r\n");
        refuses(Cause::ExpectationFailed, input);
    }
}

/// RFC 9110 §7.8.
#[test]
fn an_upgrade_needs_both_fields_and_leads_out_of_http() {
    #[track_caller]
    fn check(version: &str, fields: &str, expected: bool) {
        let head = accepts(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.upgrade, expected, "{version} {fields}");
    }
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    check("HTTP/1.1", both, true);
    check("HTTP/1.1", &format!("{both}Content-Length: 0\r\n"), true);
    check("HTTP/1.0", both, false);
    check("HTTP/1.1", "Connection: upgrade\r\n", false);
    check("HTTP/1.1", "Connection: upgrade\r\nUpgrade:\r\n", false);
    check("HTTP/1.1", "Upgrade: websocket\r\n", false);
    check("HTTP/1.1", &format!("{both}Content-Length: 1\r\n"), true);
    check("HTTP/1.1", &format!("{both}Transfer-Encoding: chunked\r\n"), true);
    for hidden in ["h2c", "H2C", "websocket, h2c", "TLS/1.0", "HTTP/2.0", "h2"] {
        check("HTTP/1.1", &format!("Connection: upgrade\r\nUpgrade: {hidden}\r\n"), false);
    }
}

#[test]
fn a_response_is_its_status_its_reason_and_its_fields() {
    #[track_caller]
    fn check(line: &[u8], status: u16, version: Version, reason: &[u8]) {
        for fields in ["", "Server: x\r\n"] {
            let head = accepts_response([line, b"\r\n", fields.as_bytes(), b"\r\n"].concat());
            assert_eq!((head.status, head.version), (status, version));
            assert_eq!(head.reason.of(&head.headers.bytes), reason);
        }
    }
    check(b"HTTP/1.1 200 OK", 200, Version::Http11, b"OK");
    check(b"HTTP/1.0 404 Not Found", 404, Version::Http10, b"Not Found");
    check(b"HTTP/1.1 100 ", 100, Version::Http11, b"");
    check(b"HTTP/1.1 599", 599, Version::Http11, b"");
    check(b"HTTP/1.1 600 X", 600, Version::Http11, b"X");
    check(b"HTTP/1.0 999 Denied", 999, Version::Http10, b"Denied");
    check(b"HTTP/1.1 200 \xc3\xa9\tx ", 200, Version::Http11, b"\xc3\xa9\tx ");
    check(b"HTTP/1.1 200  OK", 200, Version::Http11, b" OK");
}

/// RFC 9112 §4: version or status missing or misplaced.
#[test]
fn what_does_not_begin_as_a_response_is_none() {
    for input in [
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 000 X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "HTTP/1.x 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html>",
    ] {
        refuses_response(Cause::BackendProtocol, input);
    }
}

/// RFC 9112 §2.2, §4 and §5: the same rules as for requests. Such bytes are still a response.
#[test]
fn a_response_that_breaks_a_rule_further_on_is_refused() {
    for input in [
        "HTTP/1.1 200 OK\n\r\n",
        "HTTP/1.1 200 OK\r\n\n",
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 200\nA: b\r\n\r\n",
        "HTTP/1.1 200\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\n",
        "HTTP/1.1 200 OK\rA: b\r\n\r\n",
        "HTTP/1.1 200\rA: b\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 O\x7fK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA \r\n\r\n",
        "HTTP/1.1 200 OK\r\nA \r\n : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\x0b: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        "HTTP/1.0 302 Found\r\nLocation: \x01\r\n\r\n",
        "HTTP/1.7 302 Found\r\nLocation: \x01\r\n\r\n",
    ] {
        refuses_response(Cause::ResponseRefused, input);
    }
}

#[test]
fn the_end_of_a_head_is_found_from_where_the_last_look_ended() {
    #[track_caller]
    fn check(input: &str, expected: Option<usize>) {
        let input = input.as_bytes();
        assert_eq!(complete(input, 0), expected);
        for end in 0..=input.len() {
            let first = complete(&input[..end], 0);
            let second = first.or_else(|| complete(input, end));
            assert_eq!(second, expected, "{} from {end}", input.escape_ascii());
        }
    }
    check("", None);
    check("\r\n", None);
    check("\r\n\r\n", Some(4));
    check("GET / HTTP/1.1\r\nA: b\r\n", None);
    check("GET / HTTP/1.1\r\nA: b\r\n\r", None);
    check("GET / HTTP/1.1\r\nA: b\r\n\r\n", Some(24));
    check("\r\nGET / HTTP/1.1\r\n\r\nbody\r\n\r\n", Some(20));
    check("GET / HTTP/1.1\n\nbody", Some(16));
    check("GET / HTTP/1.1\r\n\nbody", Some(17));
    check("GET / HTTP/1.1\n\r\nbody", Some(17));
    assert_eq!(complete(b"ab", 3), None);
}

#[test]
fn an_empty_line_or_a_part_of_a_head_is_no_head() {
    for (input, expected) in [
        ("", false),
        ("\r\n", false),
        ("\r\n\r\n\r\n", false),
        ("\n\n", false),
        ("G", false),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET", true),
        // Refused at once, so it is answered.
        ("x\n\n", true),
    ] {
        assert_eq!(has_head(input.as_bytes()), expected, "{input:?}");
    }
}

#[test]
fn a_head_used_again_keeps_its_room_and_nothing_else() {
    let mut head = RequestHead::default();
    let first = b"POST http://a/?b HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    request(first, &LIMITS, &mut head).unwrap();
    let room = (head.headers.bytes.capacity(), head.headers.fields.capacity());
    let second = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    request(second, &LIMITS, &mut head).unwrap();
    assert_eq!(room, (head.headers.bytes.capacity(), head.headers.fields.capacity()));
    let mut fresh = RequestHead::default();
    request(second, &LIMITS, &mut fresh).unwrap();
    assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
}

/// Heads as peers write them, and pieces that change what they are.
#[rustfmt::skip]
const HEADS: [&str; 7] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a?b=c HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 3\r\nX-1: b\r\n\r\nabc",
    "GET http://a/b HTTP/1.1\r\nConnection: keep-alive, x\r\nHost: a\r\nTE: trailers\r\n\r\n",
    "PUT /p HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    "HTTP/1.1 200 OK\r\nServer: b\r\nContent-Length: 128\r\nDate: Sun, 06 Nov 1994\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nConnection: close\r\nSet-Cookie: a=b; c\r\nx_y!: \u{e9}\r\n\r\nrest",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
];
const PIECES: [&str; 26] = [
    "",
    " ",
    "  ",
    "\t",
    "\r",
    "\n",
    "\r\n",
    ":",
    ": ",
    "\0",
    "\u{7f}",
    "\u{e9}",
    "-",
    "_",
    "0",
    "a",
    "Z",
    "#",
    "%",
    "?",
    "/",
    ",",
    "[",
    "@",
    "HTTP/1.0",
    "Host: b\r\n",
];

/// `plain` takes nothing that the other way refuses or reads otherwise.
#[test]
fn both_ways_through_a_head_have_one_result() {
    let mut rng = Rng::seeded(135);
    let mut taken = [0, 0];
    for _ in 0..60_000 {
        let mut input = HEADS[rng.below(7) as usize].as_bytes().to_vec();
        for _ in 0..rng.below(4) {
            let from = rng.below(input.len() as u32 + 1) as usize;
            let to = (from + rng.below(3) as usize).min(input.len());
            input.splice(from..to, PIECES[rng.below(26) as usize].bytes());
        }
        taken[0] += u32::from(ways::agree_on_request(&input, &LIMITS));
        taken[1] += u32::from(ways::agree_on_response(&input, &LIMITS));
    }
    assert!(taken.iter().all(|count| *count > 2_000), "{taken:?}");
}
