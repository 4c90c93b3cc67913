//! Message framing: how long a body is (RFC 9112 §6), decided only here.
//!
//! Strict: a length that two readers could read differently is refused, on both sides, and what is
//! sent on is framed anew from the answer given here. If no body can come, readers can only
//! disagree about the next message: then the fields are removed and the connection is closed
//! afterwards. The framing between chunks belongs to `chunks`.

use super::{
    fault::{Cause, Fault},
    grammar,
    head::{Method, RequestHead, ResponseHead, Version},
    headers::Headers,
    names::{Name, NameSet},
};

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// No body. For a request this also means that it states no length.
    None,
    Fixed(u64),
    Chunked,
    /// Until the backend closes its connection; never for a request.
    UntilClose,
}

/// The largest length accepted: every reader can hold it in a signed number of 64 bits.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// The length of a request's body.
pub(crate) fn request(head: &RequestHead) -> Result<BodyLength, Fault> {
    let refused = |wrong| match wrong {
        Wrong::Ambiguous => Fault::new(Cause::BadRequest),
        // RFC 9112 §6.1: 501 for a coding that we do not understand.
        Wrong::UnknownCoding => Fault::new(Cause::NotImplemented),
    };
    Ok(match stated(&head.headers, head.version, Repeats::Refused).map_err(refused)? {
        Stated::Nothing => BodyLength::None, // RFC 9112 §6.3, 7
        Stated::Length(length) => BodyLength::Fixed(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// The length of the body of the response to a request of this method. If there can be no body, it
/// also corrects the fields: a stated length becomes one number or is removed, and the connection
/// is not reused if the backend may disagree about the next byte.
pub(crate) fn response(method: Method, head: &mut ResponseHead) -> Result<BodyLength, Fault> {
    let stated = stated(&head.headers, head.version, Repeats::Merged);
    if has_no_body(method, head.status) {
        spoken_of(head, stated);
        return Ok(BodyLength::None);
    }
    Ok(match stated.map_err(|_| Cause::ResponseRefused)? {
        Stated::Nothing => BodyLength::UntilClose, // RFC 9112 §6.3, 8
        Stated::Length(length) => BodyLength::Fixed(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// Corrects the fields about a body that does not come. In answers to HEAD and in 304 they may
/// state the length that GET would bring (RFC 9110 §8.6, RFC 9112 §6.1), if it is one length. In
/// 1xx and 204 they must not, and a backend that states one may well send the body.
fn spoken_of(head: &mut ResponseHead, stated: Result<Stated, Wrong>) {
    let forbidden = matches!(head.status, 100..=199 | 204);
    let headers = &mut head.headers;
    match stated {
        Ok(Stated::Nothing) => {}
        Ok(Stated::Length(length)) if !forbidden || length == 0 => {
            headers.remove(Name::ContentLength);
            headers.push_with(Name::ContentLength, b"Content-Length", |out| {
                grammar::push_decimal(length, out);
            });
        }
        Ok(Stated::Chunked) if !forbidden => {}
        Ok(Stated::Length(_) | Stated::Chunked) | Err(_) => {
            headers.remove(Name::ContentLength);
            headers.remove(Name::TransferEncoding);
            head.keep_alive = false;
        }
    }
}

/// Whether such a response ends with its head, whatever its fields say (RFC 9112 §6.3, 1 and 2).
pub(crate) fn has_no_body(method: Method, status: u16) -> bool {
    method == Method::Head
        || matches!(status, 100..=199 | 204 | 304)
        || (method == Method::Connect && matches!(status, 200..=299))
}

/// The length that the fields state.
enum Stated {
    Nothing,
    Length(u64),
    Chunked,
}

/// Why the fields cannot be trusted.
enum Wrong {
    Ambiguous,
    UnknownCoding,
}

/// What to do with one length stated several times (RFC 9112 §6.3, 5 allows both).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// No honest client sends this.
    Refused,
    /// Some chains of servers each add the same line.
    Merged,
}

#[inline]
fn stated(headers: &Headers, version: Version, repeats: Repeats) -> Result<Stated, Wrong> {
    if !headers.may_have(NameSet::of(&[Name::ContentLength, Name::TransferEncoding])) {
        return Ok(Stated::Nothing);
    }
    let mut lengths = headers.all(Name::ContentLength);
    match (lengths.next(), headers.contains(Name::TransferEncoding)) {
        (None, false) => Ok(Stated::Nothing),
        (Some(first), false) => {
            let is_only = lengths.next().is_none();
            let length = length(headers, (first, is_only), repeats);
            length.map(Stated::Length).ok_or(Wrong::Ambiguous)
        }
        // RFC 9112 §6.1: a message with both ought to be handled as an error.
        (Some(_), true) => Err(Wrong::Ambiguous),
        (None, true) => coding(headers, version),
    }
}

/// The one number that all lines state, of which this is the first, and perhaps the only one.
fn length(headers: &Headers, (first, is_only): (&[u8], bool), repeats: Repeats) -> Option<u64> {
    let number = |text| grammar::digits(text).filter(|length| *length <= LENGTH_MAX);
    let length = number(first);
    if repeats == Repeats::Refused || (is_only && length.is_some()) {
        return length.filter(|_| is_only);
    }
    let lines = headers.all(Name::ContentLength);
    let mut members = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(grammar::trim);
    let first = number(members.next()?)?;
    members.all(|member| number(member) == Some(first)).then_some(first)
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
        // Other codings are unknown rather than wrong as long as `chunked` ends them.
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

/// A token, perhaps with parameters, which are not checked.
fn is_coding(member: &[u8]) -> bool {
    let name = member.split(|byte| *byte == b';').next().unwrap_or_default();
    grammar::is_token(grammar::trim(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        names::NameSet,
        parse::{self, HeadLimits},
        write,
    };

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, line_bytes_max: 4096, fields_max: 20 };

    fn of_request(version: &str, fields: &str) -> Result<BodyLength, Fault> {
        let input = format!("POST / {version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        // The parser refuses a few rows already; that is as good.
        parse::request(input.as_bytes(), &LIMITS, &mut head)?;
        request(&head)
    }

    fn of_response(method: Method, line: &str, fields: &str) -> Result<BodyLength, Fault> {
        of_kept_response(method, line, fields).map(|(length, ..)| length)
    }

    /// With the framing fields that are left, and whether the connection may be reused.
    fn of_kept_response(
        method: Method,
        line: &str,
        fields: &str,
    ) -> Result<(BodyLength, String, bool), Fault> {
        let input = format!("{line}\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        parse::response(input.as_bytes(), &LIMITS, &mut head)?;
        let length = response(method, &mut head)?;
        let mut left = Vec::new();
        write::fields(&head.headers, NameSet::default(), &mut left);
        Ok((length, String::from_utf8(left).unwrap(), head.keep_alive))
    }

    /// Fields that state one length.
    const CLEAR: &[(&str, BodyLength)] = &[
        ("Content-Length: 0\r\n", BodyLength::Fixed(0)),
        ("Content-Length: 5\r\n", BodyLength::Fixed(5)),
        ("content-length:\t5 \r\n", BodyLength::Fixed(5)),
        ("Content-Length: 005\r\n", BodyLength::Fixed(5)),
        ("Content-Length: 9223372036854775807\r\n", BodyLength::Fixed(i64::MAX as u64)),
        ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ("transfer-encoding: \tCHUNKED \r\n", BodyLength::Chunked),
    ];

    /// Fields that are refused, and whether only for an unknown coding.
    const UNCLEAR: &[(&str, bool)] = &[
        // RFC 9112 §6.3, 3: both.
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", false),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", false),
        ("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", false),
        ("Transfer-Encoding:\r\nContent-Length: 5\r\n", false),
        // §6.3, 5: more than one length, different or not.
        ("Content-Length: 5\r\nContent-Length: 6\r\n", false),
        ("Content-Length: 5, 6\r\n", false),
        ("Content-Length: 5,\r\n", false),
        ("Content-Length: ,5\r\n", false),
        ("Content-Length: 5,,5\r\n", false),
        ("Content-Length: 5, +5\r\n", false),
        ("Content-Length: 5\r\nContent-Length:\r\n", false),
        ("Content-Length: 5\r\nContent-Length: 5, 6\r\n", false),
        ("Content-Length: 5, 5\r\nTransfer-Encoding: chunked\r\n", false),
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

    /// One length stated several times: refused from clients, merged from backends.
    const REPEATED: &[&str] = &[
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,5\r\nX: y\r\nContent-length:\t005 \r\n",
        "Content-Length: 5 \t,\t 5, 5\r\n",
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
        for fields in REPEATED {
            let refused = Err(Cause::BadRequest.into());
            assert_eq!(of_request("HTTP/1.1", fields), refused, "{fields}");
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
        for fields in REPEATED {
            let merged = Ok(BodyLength::Fixed(5));
            assert_eq!(of_response(Method::Get, line, fields), merged, "{fields}");
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

    /// Requests and responses that end with the head, and whether a length may be stated there.
    const BODILESS: &[(Method, &str, bool)] = &[
        (Method::Head, "HTTP/1.1 200 OK", true),
        (Method::Head, "HTTP/1.1 404 Not Found", true),
        (Method::Get, "HTTP/1.1 304 Not Modified", true),
        (Method::Connect, "HTTP/1.1 200 OK", true),
        (Method::Get, "HTTP/1.1 204 No Content", false),
        (Method::Head, "HTTP/1.1 204 No Content", false),
        (Method::Get, "HTTP/1.1 100 Continue", false),
        (Method::Get, "HTTP/1.1 101 Switching Protocols", false),
        (Method::Get, "HTTP/1.1 103 Early Hints", false),
        (Method::Get, "HTTP/1.1 199 X", false),
    ];

    /// RFC 9112 §6.3, 1 and 2.
    #[test]
    fn some_responses_have_no_body_whatever_their_fields_say() {
        for (method, line, spoken_of) in BODILESS {
            let check = |fields: &str, left: &str, kept: bool| {
                let expected = Ok((BodyLength::None, left.to_owned(), kept));
                assert_eq!(of_kept_response(*method, line, fields), expected, "{line} {fields}");
            };
            check("", "", true);
            check("A: b\r\n", "A: b\r\n", true);
            // A length of zero announces nothing.
            check("content-length: 00\r\n", "Content-Length: 0\r\n", true);
            for (fields, length) in CLEAR {
                match length {
                    BodyLength::Fixed(0) => {}
                    BodyLength::Fixed(length) if *spoken_of => {
                        check(fields, &format!("Content-Length: {length}\r\n"), true);
                    }
                    _ => {
                        let left =
                            if *spoken_of { fields.replace(": \t", ": ") } else { "".into() };
                        check(fields, &left.replace(" \r", "\r"), *spoken_of);
                    }
                }
            }
            for fields in REPEATED.iter().map(|fields| fields.replace("X: y\r\n", "")) {
                let left = if *spoken_of { "Content-Length: 5\r\n" } else { "" };
                check(&fields, left, *spoken_of);
            }
            for (fields, _) in UNCLEAR.iter().filter(|(fields, _)| !fields.contains('\x0b')) {
                check(fields, "", false);
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
