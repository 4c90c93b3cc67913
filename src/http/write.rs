//! Writer of heads, in the one form that we send.
//!
//! `forward` has decided which lines there are; here they are only written. Unedited lines in
//! canonical form are copied in runs. The line with the body's length is always ours.
//!
//! Both heads say HTTP/1.1, whatever the peer's version: the version is that of the sender on this
//! connection, and a peer of HTTP/1.0 reads it as such (RFC 9110 §2.5, RFC 9112 §2.3). What a 1.0
//! peer must not get (chunks, interim responses) is withheld elsewhere.

use super::{
    framing::BodyLength,
    grammar,
    head::{RequestHead, ResponseHead, TargetForm, Version},
    headers::{Field, Headers},
    names::{Name, NameSet},
};
use std::ops::Range;

/// Appends a request for a backend. `host` replaces Host. Without it Host stays as it came, but is
/// rebuilt from an absolute target (RFC 9112 §3.2.2) and is empty if an HTTP/1.0 client gave none.
pub(crate) fn request(
    head: &RequestHead,
    host: Option<&[u8]>,
    body: BodyLength,
    out: &mut Vec<u8>,
) {
    // Room for the line and the length in addition to the head's bytes.
    out.reserve(head.headers.bytes.len() + 64 + host.map_or(0, <[u8]>::len));
    let mut run = request_line(head, out);
    let rebuilt = head.form == TargetForm::Absolute || head.authority.len == 0;
    let host = host.or(rebuilt.then(|| head.bytes(head.authority)));
    let mut skip = NameSet::default();
    if let Some(host) = host {
        out.extend_from_slice(head.headers.bytes.get(run).unwrap_or_default());
        run = 0..0;
        push_line(b"Host: ", host, out);
        skip = skip.with(Name::Host);
    }
    fields_after(run, &head.headers, skip, out);
    length(body, out);
    out.extend_from_slice(b"\r\n");
}

/// The range of the request line in the head if it can be sent as it is, so that it can begin a
/// run; otherwise writes it and returns an empty range.
fn request_line(head: &RequestHead, out: &mut Vec<u8>) -> Range<usize> {
    const VERSION: &[u8] = b" HTTP/1.1\r\n";
    let (method, target) = (head.method_span, head.target);
    let line = method.start as usize..target.end() + VERSION.len();
    let version = head.headers.bytes.get(target.end()..line.end);
    if method.end() + 1 == target.start as usize && version == Some(VERSION) {
        return line;
    }
    out.extend_from_slice(head.bytes(method));
    out.push(b' ');
    out.extend_from_slice(head.bytes(target));
    out.extend_from_slice(VERSION);
    0..0
}

/// The range of the status line in the head if it can be sent as it is, as for a request.
fn status_line(head: &ResponseHead, out: &mut Vec<u8>) -> Range<usize> {
    let digit = |place: u16| b'0' + (head.status / place % 10) as u8;
    let mut line = *b"HTTP/1.1 000 ";
    let [.., a, b, c, _] = &mut line;
    (*a, *b, *c) = (digit(100), digit(10), digit(1));
    let (bytes, end) = (&head.headers.bytes, head.reason.end() + 2);
    let is_own = head.reason.start as usize == line.len()
        && bytes.starts_with(&line)
        && bytes.get(head.reason.end()..end) == Some(b"\r\n");
    if is_own {
        return 0..end;
    }
    out.extend_from_slice(&line);
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
    0..0
}

/// What a response says about the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Nothing: it stays open by the rules of its version, or the response is an interim one.
    Unsaid,
    KeepAlive,
    Close,
}

impl Connection {
    /// What a final response says to a client of this version, whose connection stays open or not;
    /// also what an interim one says to any client.
    #[inline]
    pub(crate) fn of(last: Option<(Version, bool)>) -> Connection {
        match last {
            None | Some((Version::Http11 | Version::Http2, true)) => Connection::Unsaid,
            Some((Version::Http10, true)) => Connection::KeepAlive,
            Some((_, false)) => Connection::Close,
        }
    }
}

/// Appends a response for a client. The lines about the connection are ours: a named upgrade is one
/// of its options (RFC 9110 §7.8).
pub(crate) fn response(
    head: &ResponseHead,
    body: BodyLength,
    connection: Connection,
    out: &mut Vec<u8>,
) {
    out.reserve(head.headers.bytes.len() + 64);
    let run = status_line(head, out);
    fields_after(run, &head.headers, NameSet::default(), out);
    if head.headers.contains(Name::Upgrade) {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    match connection {
        Connection::Unsaid => {}
        Connection::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
    length(body, out);
    out.extend_from_slice(b"\r\n");
}

/// The line with the length of the body (RFC 9112 §6).
fn length(body: BodyLength, out: &mut Vec<u8>) {
    match body {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Fixed(length) => {
            out.extend_from_slice(b"Content-Length: ");
            grammar::push_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Appends all lines in order except the skipped names: adjacent canonical lines in one copy.
pub(crate) fn fields(headers: &Headers, skip: NameSet, out: &mut Vec<u8>) {
    fields_after(0..0, headers, skip, out);
}

/// Like `fields`, after a range of the bytes that is to be sent as it is.
fn fields_after(mut run: Range<usize>, headers: &Headers, skip: NameSet, out: &mut Vec<u8>) {
    for field in headers.iter().filter(|field| !skip.contains(field.known)) {
        let start = field.name.start as usize;
        if !field.canonical || start != run.end {
            out.extend_from_slice(headers.bytes.get(run).unwrap_or_default());
            run = start..start;
        }
        if field.canonical {
            run.end = field.value.end() + 2;
        } else {
            rebuilt(headers, field, out);
        }
    }
    out.extend_from_slice(headers.bytes.get(run).unwrap_or_default());
    if headers.own_lines.len > 0 {
        out.extend_from_slice(headers.own_lines.of(&headers.bytes));
    }
}

/// A line that came with other whitespace than ours.
fn rebuilt(headers: &Headers, field: &Field, out: &mut Vec<u8>) {
    out.extend_from_slice(headers.name(field));
    push_line(b": ", headers.value(field), out);
}

fn push_line(start: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(start);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        framing,
        parse::{self, HeadLimits, Parse},
    };
    use proptest::prelude::*;

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 32 << 10, line_bytes_max: 4096, fields_max: 100 };

    fn parsed(input: &[u8]) -> Option<(RequestHead, BodyLength)> {
        let mut head = RequestHead::default();
        match parse::request(input, &LIMITS, &mut head) {
            Ok(Parse::Done { .. }) => framing::request(&head).ok().map(|body| (head, body)),
            _ => None,
        }
    }

    fn written(head: &RequestHead, host: Option<&str>, body: BodyLength) -> String {
        let mut out = Vec::new();
        request(head, host.map(str::as_bytes), body, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(input: &str, host: Option<&str>, expected: &str) {
        let (head, _) = parsed(input.as_bytes()).unwrap();
        assert_eq!(written(&head, host, BodyLength::None), expected, "{input}");
    }

    #[test]
    fn a_canonical_head_is_written_as_it_came() {
        let input = "GET /a?b HTTP/1.1\r\nHost: a\r\nB: \r\nC: d\r\n\r\n";
        check(input, None, input);
        let input = "FOO /%2F//x;y HTTP/1.1\r\nB: \r\nHost: a\r\n\r\n";
        check(input, None, input);
    }

    #[test]
    fn other_spaces_become_ours_and_the_rest_keeps_its_order() {
        check(
            "\r\nGET / HTTP/1.1\r\nA:1\r\nHost: a\r\nB:  2 \r\nC: 3\r\nD:\r\nE: 5\r\n\r\n",
            None,
            "GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\nC: 3\r\nD: \r\nE: 5\r\n\r\n",
        );
    }

    #[test]
    fn host_comes_first_where_it_is_not_the_one_that_came() {
        let input = "GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\n\r\n";
        check(input, Some("b"), "GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\nB: 2\r\n\r\n");
        let input = "GET http://c:1?d HTTP/1.1\r\nA: 1\r\nHost: a\r\n\r\n";
        check(input, None, "GET /?d HTTP/1.1\r\nHost: c:1\r\nA: 1\r\n\r\n");
        check(input, Some("b"), "GET /?d HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n");
        let input = "GET / HTTP/1.0\r\nA: 1\r\n\r\n";
        check(input, None, "GET / HTTP/1.1\r\nHost: \r\nA: 1\r\n\r\n");
    }

    #[test]
    fn removed_lines_leave_no_trace_and_added_ones_stand_last() {
        let (mut head, _) =
            parsed(b"GET / HTTP/1.1\r\nVia: 1\r\nHost: a\r\nTE: x\r\nTE: y\r\nB: 2\r\n\r\n")
                .unwrap();
        head.headers.remove(Name::Via);
        head.headers.remove(Name::Te);
        head.headers.push(Name::Other, b"c", b"3");
        head.headers.push(Name::Other, b"d", b"4");
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nB: 2\r\nc: 3\r\nd: 4\r\n\
            Transfer-Encoding: chunked\r\n\r\n";
        assert_eq!(written(&head, None, BodyLength::Chunked), expected);
    }

    #[test]
    fn a_response_is_of_1_1_and_keeps_its_reason() {
        let mut head = ResponseHead::default();
        for (input, expected) in [
            (
                &b"HTTP/1.0 404 Nicht\xe9 da\r\nA:1\r\n\r\n"[..],
                &b"HTTP/1.1 404 Nicht\xe9 da\r\nA: 1\r\n"[..],
            ),
            (b"HTTP/1.1 200\r\n\r\n", b"HTTP/1.1 200 \r\n"),
        ] {
            parse::response(input, &LIMITS, &mut head).unwrap();
            let mut out = Vec::new();
            response(&head, BodyLength::Fixed(12), Connection::Unsaid, &mut out);
            assert_eq!(out, [expected, b"Content-Length: 12\r\n\r\n"].concat());
        }
    }

    proptest! {
        /// We read back what we write as the same request, and write it again byte for byte.
        #[test]
        fn what_is_written_reads_back_the_same(
            line in proptest::sample::select(vec![
                "GET / HTTP/1.1", "POST /a?b=c HTTP/1.0", "OPTIONS * HTTP/1.1",
                "GET http://b:80 HTTP/1.1", "X-Y /%zz//.. HTTP/1.2",
            ]),
            fields in proptest::collection::vec(
                ("[a-zA-Z!#$%&'*+.^_`|~-]{1,12}", "[ \t]{0,2}", "[ -~\u{e9}]{0,20}"), 0..12),
        ) {
            let mut input = format!("{line}\r\nHost: a\r\n");
            for (name, spaces, value) in &fields {
                input.push_str(&format!("{name}:{spaces}{value}\r\n"));
            }
            input.push_str("\r\n");
            if let Some((mut head, body)) = parsed(input.as_bytes()) {
                head.headers.remove(Name::ContentLength);
                head.headers.remove(Name::TransferEncoding);
                let once = written(&head, None, body);
                let (mut again, body_again) = parsed(once.as_bytes()).unwrap();
                prop_assert_eq!(body, body_again);
                prop_assert_eq!(head.method, again.method);
                prop_assert_eq!(head.bytes(head.path), again.bytes(again.path));
                prop_assert_eq!(head.bytes(head.authority), again.bytes(again.authority));
                again.headers.remove(Name::ContentLength);
                again.headers.remove(Name::TransferEncoding);
                prop_assert_eq!(&written(&again, None, body), &once);
            }
        }

        #[test]
        fn no_bytes_panic_the_parsers(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parsed(&input);
            let mut head = ResponseHead::default();
            let _ = parse::response(&input, &LIMITS, &mut head);
            let line = [b"HTTP/1.1 200 ", &input[..]].concat();
            let _ = parse::response(&line, &LIMITS, &mut head);
        }
    }
}
