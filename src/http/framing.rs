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
    let stated = stated(&head.headers, head.version).map_err(|_| Cause::BackendProtocol)?;
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
    let mut length = None;
    let mut coded = false;
    for field in headers.iter() {
        if field.known == Name::ContentLength {
            // RFC 9112 §6.3, 5 lets equal repeats be merged; nobody needs them.
            if length.is_some() {
                return Err(Wrong::Ambiguous);
            }
            let value = grammar::digits(headers.value(field));
            length = Some(value.filter(|v| *v <= LENGTH_MAX).ok_or(Wrong::Ambiguous)?);
        }
        coded |= field.known == Name::TransferEncoding;
    }
    match (length, coded) {
        (None, false) => Ok(Stated::Nothing),
        (Some(length), false) => Ok(Stated::Length(length)),
        // RFC 9112 §6.1: a message with both ought to be handled as an error.
        (Some(_), true) => Err(Wrong::Ambiguous),
        (None, true) => coding(headers, version),
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
