//! Edits to a backend's response before a client gets it: hop-by-hop fields are removed, a date is
//! added, and the body is framed for this client's version. It also decides whether the client's
//! connection stays open, as a body that ends with the connection leaves no choice.

use super::{HOP_BY_HOP, drop_listed};
use crate::http::{
    fault::{Cause, Fault},
    framing::BodyLength,
    head::{Method, ResponseHead, Version},
    headers::Headers,
    names::Name,
};

/// What the edits depend on: the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToClient {
    pub(crate) method: Method,
    pub(crate) version: Version,
}

/// How a response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// For `write`: how the body is framed for the client.
    pub(crate) body: BodyLength,
    /// Whether the client is told that its connection stays open.
    pub(crate) keep_alive: bool,
}

/// Removes from a backend's response, whose body has this length, what its client must not get.
/// `upgrade` has already checked that a 101 is allowed. `write` adds the lines about the connection
/// and the body's length. `date` is the value of Date if the backend sent none.
pub(crate) fn response(
    head: &mut ResponseHead,
    body: BodyLength,
    to: ToClient,
    date: impl FnOnce() -> [u8; 29],
) -> Result<(), Fault> {
    drop_listed(&mut head.headers, Cause::ResponseRefused)?;
    // A length without a body is allowed in answers to HEAD and in 304, and forbidden in 1xx and
    // 204 (RFC 9110 §8.6). `framing` has checked that it is one number.
    let spoken_of = body == BodyLength::None && (head.status == 304 || to.method == Method::Head);
    let headless = matches!(head.status, 100..=199 | 204);
    let switching = head.status == 101;
    // A 426 makes no sense without Upgrade (RFC 9110 §15.5.22), and we do relay upgrades. HTTP/1.0
    // cannot upgrade.
    let demanding =
        head.status == 426 && to.version == Version::Http11 && head.headers.contains(Name::Upgrade);
    let Headers { fields, .. } = &mut head.headers;
    for field in fields {
        let kept = match field.known {
            Name::ContentLength => spoken_of && !headless,
            Name::Upgrade => switching || demanding,
            known => !HOP_BY_HOP.contains(known),
        };
        field.removed |= !kept;
    }
    if head.status >= 200 && !head.headers.contains(Name::Date) {
        head.headers.push(Name::Date, b"date", &date()); // RFC 9110 §6.6.1
    }
    Ok(())
}

/// How the body of a final response is framed: if its length is unknown, in chunks, or for
/// HTTP/1.0, which has no chunks, until we close (RFC 9112 §6.1).
#[inline]
pub(crate) fn reply(body: BodyLength, version: Version, keep_alive: bool) -> Reply {
    match (body, version) {
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => {
            Reply { body: BodyLength::UntilClose, keep_alive: false }
        }
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11 | Version::Http2) => {
            Reply { body: BodyLength::Chunked, keep_alive }
        }
        (BodyLength::None | BodyLength::Fixed(_), _) => Reply { body, keep_alive },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::LIMITS;
    use super::*;
    use crate::http::{
        framing,
        parse::{self, Parse},
        write::{self, Connection},
    };

    /// An interim response says nothing about the connection.
    const INTERIM: Reply = Reply { body: BodyLength::None, keep_alive: true };

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    /// To a GET of HTTP/1.1 on a connection that stays open.
    const TO: To = To { method: Method::Get, version: Version::Http11, keep_alive: true };

    /// The client of a response, and whether its connection may stay open.
    #[derive(Clone, Copy)]
    struct To {
        method: Method,
        version: Version,
        keep_alive: bool,
    }

    /// What a client gets for a response with these lines, and whether its connection stays open.
    #[track_caller]
    fn answered(line: &str, fields: &str, to: &To) -> (String, Reply) {
        let input = format!("{line}\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        let parsed = parse::response(input.as_bytes(), &LIMITS, &mut head);
        assert_eq!(parsed, Ok(Parse::Done { used: input.len() }), "{input}");
        let body = framing::response(to.method, &mut head).unwrap();
        let To { method, version, keep_alive } = *to;
        response(&mut head, body, ToClient { method, version }, || *DATE).unwrap();
        let is_final = head.status >= 200;
        let reply = if is_final { reply(body, version, keep_alive) } else { INTERIM };
        let connection = Connection::of(is_final.then_some((version, reply.keep_alive)));
        let mut out = Vec::new();
        write::response(&head, reply.body, connection, &mut out);
        (String::from_utf8(out).unwrap(), reply)
    }

    #[track_caller]
    fn check_answer(line: &str, fields: &str, to: &To, expected: &str) {
        let (out, _) = answered(line, fields, to);
        assert_eq!(out, format!("{line}\r\n{expected}\r\n"), "{line} {fields}");
    }

    #[test]
    fn a_response_loses_what_was_said_to_us_alone() {
        check_answer(
            "HTTP/1.1 200 OK",
            "Date: x\r\nConnection: close, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nServer: s\r\n\
             Upgrade: h2\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\nSet-Cookie:b\r\n\
             Proxy-Connection: x\r\nTE: x\r\nProxy-Authenticate: x\r\nTrailer: t\r\n\
             Content_Length: 5\r\nTransfer_Encoding: chunked\r\n",
            &TO,
            "Date: x\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTrailer: t\r\n\
             Transfer-Encoding: chunked\r\n",
        );
        let fields = "Date: x\r\nConnection: set-cookie, content-length\r\nSet-Cookie: a\r\n\
            Content-Length: 5\r\n";
        let expected = "Date: x\r\nSet-Cookie: a\r\nContent-Length: 5\r\n";
        check_answer("HTTP/1.1 200 OK", fields, &TO, expected);
        let mut head = ResponseHead::default();
        let options = "x,".repeat(65);
        let input = format!("HTTP/1.1 200 OK\r\nConnection: {options}\r\n\r\n");
        parse::response(input.as_bytes(), &LIMITS, &mut head).unwrap();
        let to = ToClient { method: Method::Get, version: Version::Http11 };
        let refused = response(&mut head, BodyLength::None, to, || *DATE);
        assert_eq!(refused, Err(Cause::ResponseRefused.into()));
    }

    /// RFC 9110 §6.6.1.
    #[test]
    fn a_final_response_without_a_date_gets_one() {
        let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let length = "Content-Length: 5\r\n";
        check_answer("HTTP/1.1 404 No", length, &TO, &format!("{date}{length}"));
        check_answer("HTTP/1.1 103 Early Hints", "Link: x\r\n", &TO, "Link: x\r\n");
    }

    #[test]
    fn the_length_is_written_anew_for_whom_it_goes_to() {
        let to_10 = To { version: Version::Http10, ..TO };
        let check = |to: &To, fields: &str, expected: &str, reply: Reply| {
            let fields = format!("Date: x\r\n{fields}");
            let (out, sent) = answered("HTTP/1.1 200 OK", &fields, to);
            assert_eq!(out, format!("HTTP/1.1 200 OK\r\nDate: x\r\n{expected}\r\n"));
            assert_eq!(sent, reply);
        };
        let (chunked, close) = ("Transfer-Encoding: chunked\r\n", "Connection: close\r\n");
        let kept = |body| Reply { body, keep_alive: true };
        let closed = Reply { body: BodyLength::UntilClose, keep_alive: false };
        check(&TO, "Content-Length:07\r\n", "Content-Length: 7\r\n", kept(BodyLength::Fixed(7)));
        check(&TO, "", chunked, kept(BodyLength::Chunked));
        check(&TO, "Transfer-Encoding: Chunked\r\n", chunked, kept(BodyLength::Chunked));
        check(&to_10, "", close, closed);
        check(&to_10, "Transfer-Encoding: chunked\r\n", close, closed);
        let stays = "Connection: keep-alive\r\nContent-Length: 7\r\n";
        check(&to_10, "Content-Length: 7\r\n", stays, kept(BodyLength::Fixed(7)));
        let leaves = To { keep_alive: false, ..TO };
        let sent = Reply { body: BodyLength::Chunked, keep_alive: false };
        check(&leaves, "", "Connection: close\r\nTransfer-Encoding: chunked\r\n", sent);
    }

    /// RFC 9110 §8.6, RFC 9112 §6.1.
    #[test]
    fn a_length_is_spoken_of_where_it_may_be_and_dropped_where_it_must_not() {
        let length = "Date: x\r\nContent-Length: 5\r\n";
        let coding = "Date: x\r\nTransfer-Encoding: chunked\r\n";
        let to_head = To { method: Method::Head, ..TO };
        check_answer("HTTP/1.1 200 OK", length, &to_head, length);
        check_answer("HTTP/1.1 200 OK", coding, &to_head, "Date: x\r\n");
        check_answer("HTTP/1.1 304 Not Modified", length, &TO, length);
        check_answer("HTTP/1.1 304 Not Modified", coding, &TO, "Date: x\r\n");
        check_answer("HTTP/1.1 204 No Content", length, &TO, "Date: x\r\n");
        check_answer("HTTP/1.1 204 No Content", coding, &TO, "Date: x\r\n");
        check_answer("HTTP/1.1 204 No Content", length, &to_head, "Date: x\r\n");
        check_answer("HTTP/1.1 100 Continue", length, &to_head, "Date: x\r\n");
    }

    #[test]
    fn an_interim_response_says_nothing_about_the_connection() {
        let leaves = To { keep_alive: false, ..TO };
        check_answer("HTTP/1.1 100 Continue", "Connection: close\r\n", &leaves, "");
        let fields = "Upgrade: websocket\r\nConnection: upgrade\r\nA: 1\r\n";
        let expected = "Upgrade: websocket\r\nA: 1\r\nConnection: Upgrade\r\n";
        check_answer("HTTP/1.1 101 Switching Protocols", fields, &leaves, expected);
        check_answer(
            "HTTP/1.1 426 Upgrade Required",
            &format!("Date: x\r\n{fields}"),
            &leaves,
            "Date: x\r\nUpgrade: websocket\r\nA: 1\r\nConnection: Upgrade\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n",
        );
        let to_10 = To { version: Version::Http10, ..leaves };
        check_answer(
            "HTTP/1.1 426 Upgrade Required",
            &format!("Date: x\r\n{fields}"),
            &to_10,
            "Date: x\r\nA: 1\r\nConnection: close\r\n",
        );
    }
}
