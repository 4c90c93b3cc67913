//! How long a body is: RFC 9112 §6, whole and only here.
//!
//! Strict: a length that two readers could read differently is refused, on both sides, and what
//! is sent on is written anew from the answer given here. What is between the chunks is
//! `chunks`' business.

use super::{
    fault::{Cause, Fault},
    grammar,
    head::{Method, RequestHead, ResponseHead, Version},
    headers::Headers,
    names::Name,
};

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is none. Of a request this also means that it names no length.
    None,
    Fixed(u64),
    Chunked,
    /// Until the backend closes its connection; never of a request.
    UntilClose,
}

/// The most that a length may say: what every reader holds in a signed number of 64 bits.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// The length of a request's body.
pub(crate) fn request(head: &RequestHead) -> Result<BodyLength, Fault> {
    let refused = |wrong| match wrong {
        Wrong::Ambiguous => Fault::new(Cause::BadRequest),
        // RFC 9112 §6.1: 501 for a coding we do not understand.
        Wrong::UnknownCoding => Fault::new(Cause::NotImplemented),
    };
    Ok(match stated(&head.headers, head.version).map_err(refused)? {
        Stated::Nothing => BodyLength::None, // RFC 9112 §6.3, 7
        Stated::Length(length) => BodyLength::Fixed(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// The length of the body of the response to a request of this method.
pub(crate) fn response(method: Method, head: &ResponseHead) -> Result<BodyLength, Fault> {
    // Looked at even where there cannot be a body: a backend that lies about its framing is not
    // believed about where its next response starts.
    let stated = stated(&head.headers, head.version).map_err(|_| Cause::ResponseRefused)?;
    if has_no_body(method, head.status) {
        return Ok(BodyLength::None);
    }
    Ok(match stated {
        Stated::Nothing => BodyLength::UntilClose, // RFC 9112 §6.3, 8
        Stated::Length(length) => BodyLength::Fixed(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// Whether such a response ends with its head, whatever its fields say (RFC 9112 §6.3, 1 and 2).
pub(crate) fn has_no_body(method: Method, status: u16) -> bool {
    method == Method::Head
        || matches!(status, 100..=199 | 204 | 304)
        || (method == Method::Connect && matches!(status, 200..=299))
}

/// What the fields say.
enum Stated {
    Nothing,
    Length(u64),
    Chunked,
}

/// Why it cannot be believed.
enum Wrong {
    Ambiguous,
    UnknownCoding,
}

fn stated(headers: &Headers, version: Version) -> Result<Stated, Wrong> {
    let mut lengths = headers.all(Name::ContentLength);
    let coded = headers.contains(Name::TransferEncoding);
    match (lengths.next(), lengths.next(), coded) {
        (None, _, false) => Ok(Stated::Nothing),
        (Some(length), None, false) => {
            let length = grammar::digits(length).filter(|length| *length <= LENGTH_MAX);
            length.map(Stated::Length).ok_or(Wrong::Ambiguous)
        }
        // RFC 9112 §6.3, 5 lets equal repeats be merged; nobody needs them.
        (Some(_), Some(_), false) => Err(Wrong::Ambiguous),
        // RFC 9112 §6.1: a message with both ought to be handled as an error.
        (Some(_), _, true) => Err(Wrong::Ambiguous),
        (None, _, true) => coding(headers, version),
    }
}

/// Transfer codings: `chunked`, once, alone (RFC 9112 §6.1, §7).
fn coding(headers: &Headers, version: Version) -> Result<Stated, Wrong> {
    // RFC 9112 §6.1: in HTTP/1.0 the framing is faulty.
    if version == Version::Http10 {
        return Err(Wrong::Ambiguous);
    }
    let members = || {
        let lines = headers.all(Name::TransferEncoding);
        lines.flat_map(|line| line.split(|byte| *byte == b',').map(grammar::trim))
    };
    let chunked = |member: &[u8]| member.eq_ignore_ascii_case(b"chunked");
    match (members().count(), members().last()) {
        (1, Some(only)) if chunked(only) => Ok(Stated::Chunked),
        // Other codings are only unknown, not wrong, where `chunked` still ends them.
        (count, Some(last))
            if chunked(last)
                && members()
                    .take(count - 1)
                    .all(|member| is_coding(member) && !chunked(member)) =>
        {
            Err(Wrong::UnknownCoding)
        }
        _ => Err(Wrong::Ambiguous),
    }
}

/// A token, perhaps with parameters, which are not looked into.
fn is_coding(member: &[u8]) -> bool {
    let name = member.split(|byte| *byte == b';').next().unwrap_or_default();
    grammar::is_token(grammar::trim(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, HeadLimits};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, line_bytes_max: 4096, fields_max: 20 };

    fn of_request(version: &str, fields: &str) -> Result<BodyLength, Fault> {
        let input = format!("POST / {version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        // A few rows are refused by the parser already; that is as good.
        parse::request(input.as_bytes(), &LIMITS, &mut head)?;
        request(&head)
    }

    fn of_response(method: Method, line: &str, fields: &str) -> Result<BodyLength, Fault> {
        let input = format!("{line}\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        parse::response(input.as_bytes(), &LIMITS, &mut head)?;
        response(method, &head)
    }

    /// Fields that say a length in one way only.
    const CLEAR: &[(&str, BodyLength)] = &[
        ("Content-Length: 0\r\n", BodyLength::Fixed(0)),
        ("Content-Length: 5\r\n", BodyLength::Fixed(5)),
        ("content-length:\t5 \r\n", BodyLength::Fixed(5)),
        ("Content-Length: 005\r\n", BodyLength::Fixed(5)),
        ("Content-Length: 9223372036854775807\r\n", BodyLength::Fixed(i64::MAX as u64)),
        ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ("transfer-encoding: \tCHUNKED \r\n", BodyLength::Chunked),
    ];

    /// Fields that are refused, and whether only because of a coding we do not know.
    const UNCLEAR: &[(&str, bool)] = &[
        // RFC 9112 §6.3, 3: both.
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", false),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", false),
        ("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", false),
        ("Transfer-Encoding:\r\nContent-Length: 5\r\n", false),
        // §6.3, 5: more than one length, different or not.
        ("Content-Length: 5\r\nContent-Length: 6\r\n", false),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", false),
        ("Content-Length: 5, 6\r\n", false),
        ("Content-Length: 5, 5\r\n", false),
        ("Content-Length: 5,\r\n", false),
        // RFC 9110 §8.6: digits only.
        ("Content-Length:\r\n", false),
        ("Content-Length: +5\r\n", false),
        ("Content-Length: -1\r\n", false),
        ("Content-Length: 0x5\r\n", false),
        ("Content-Length: 5 5\r\n", false),
        ("Content-Length: 5.0\r\n", false),
        ("Content-Length: 5e1\r\n", false),
        ("Content-Length: \"5\"\r\n", false),
        ("Content-Length: five\r\n", false),
        ("Content-Length: 5\x0b\r\n", false),
        ("Content-Length: 9223372036854775808\r\n", false),
        ("Content-Length: 18446744073709551621\r\n", false),
        ("Content-Length: 99999999999999999999999\r\n", false),
        // §6.1, §6.3, 4: chunked, once, last, alone.
        ("Transfer-Encoding: gzip\r\n", false),
        ("Transfer-Encoding: identity\r\n", false),
        ("Transfer-Encoding:\r\n", false),
        ("Transfer-Encoding: ,\r\n", false),
        ("Transfer-Encoding: xchunked\r\n", false),
        ("Transfer-Encoding: chunked1\r\n", false),
        ("Transfer-Encoding: chunk\r\n", false),
        ("Transfer-Encoding: chunked,\r\n", false),
        ("Transfer-Encoding: ,chunked\r\n", false),
        ("Transfer-Encoding: chunked, chunked\r\n", false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", false),
        ("Transfer-Encoding: chunked, gzip\r\n", false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", false),
        ("Transfer-Encoding: chunked, gzip, chunked\r\n", false),
        ("Transfer-Encoding: chunked;q=1\r\n", false),
        ("Transfer-Encoding: \"chunked\"\r\n", false),
        ("Transfer-Encoding: chun ked\r\n", false),
        ("Transfer-Encoding: \x0bchunked\r\n", false),
        ("Transfer-Encoding: g(zip, chunked\r\n", false),
        ("Transfer-Encoding: gzip, chunked\r\n", true),
        ("Transfer-Encoding: identity, chunked\r\n", true),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", true),
        ("Transfer-Encoding: a;b=c, d , CHUNKED\r\n", true),
    ];

    #[test]
    fn a_request_has_the_body_that_its_fields_say_in_one_way_only() {
        assert_eq!(of_request("HTTP/1.1", ""), Ok(BodyLength::None));
        for (fields, expected) in CLEAR {
            assert_eq!(of_request("HTTP/1.1", fields), Ok(*expected), "{fields}");
        }
        for (fields, unknown_coding) in UNCLEAR {
            let cause = if *unknown_coding { Cause::NotImplemented } else { Cause::BadRequest };
            assert_eq!(of_request("HTTP/1.1", fields), Err(cause.into()), "{fields}");
        }
    }

    #[test]
    fn a_response_has_the_body_that_its_fields_say_in_one_way_only() {
        let line = "HTTP/1.1 200 OK";
        assert_eq!(of_response(Method::Get, line, ""), Ok(BodyLength::UntilClose));
        assert_eq!(of_response(Method::Get, "HTTP/1.0 200 OK", ""), Ok(BodyLength::UntilClose));
        for (fields, expected) in CLEAR {
            assert_eq!(of_response(Method::Get, line, fields), Ok(*expected), "{fields}");
        }
        for (fields, _) in UNCLEAR {
            let expected = Err(Cause::ResponseRefused.into());
            assert_eq!(of_response(Method::Get, line, fields), expected, "{fields}");
        }
    }

    /// RFC 9112 §6.1.
    #[test]
    fn a_transfer_coding_in_http_1_0_is_faulty_framing() {
        let fields = "Transfer-Encoding: chunked\r\n";
        assert_eq!(of_request("HTTP/1.0", fields), Err(Cause::BadRequest.into()));
        let response = of_response(Method::Get, "HTTP/1.0 200 OK", fields);
        assert_eq!(response, Err(Cause::ResponseRefused.into()));
        let fields = "Content-Length: 5\r\n";
        assert_eq!(of_request("HTTP/1.0", fields), Ok(BodyLength::Fixed(5)));
    }

    /// RFC 9112 §6.3, 1 and 2.
    #[test]
    fn some_responses_have_no_body_whatever_their_fields_say() {
        for (method, line) in [
            (Method::Head, "HTTP/1.1 200 OK"),
            (Method::Get, "HTTP/1.1 204 No Content"),
            (Method::Get, "HTTP/1.1 304 Not Modified"),
            (Method::Get, "HTTP/1.1 100 Continue"),
            (Method::Get, "HTTP/1.1 101 Switching Protocols"),
            (Method::Get, "HTTP/1.1 103 Early Hints"),
            (Method::Connect, "HTTP/1.1 200 OK"),
        ] {
            assert_eq!(of_response(method, line, ""), Ok(BodyLength::None), "{line}");
            for (fields, _) in CLEAR {
                assert_eq!(of_response(method, line, fields), Ok(BodyLength::None), "{line}");
            }
            for (fields, _) in UNCLEAR {
                let expected = Err(Cause::ResponseRefused.into());
                assert_eq!(of_response(method, line, fields), expected, "{line} {fields}");
            }
        }
        for (method, line) in [
            (Method::Connect, "HTTP/1.1 407 X"),
            (Method::Get, "HTTP/1.1 205 Reset Content"),
            (Method::Get, "HTTP/1.1 303 See Other"),
            (Method::Get, "HTTP/1.1 999 Denied"),
        ] {
            let length = of_response(method, line, "Content-Length: 5\r\n");
            assert_eq!(length, Ok(BodyLength::Fixed(5)), "{line}");
        }
    }
}
