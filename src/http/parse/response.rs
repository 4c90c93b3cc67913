//! Parser of a response's head. Bytes that do not begin as a response are `BackendProtocol`; a
//! response that breaks a rule further on is `ResponseRefused`.

use std::mem::MaybeUninit;

use httparse::Status;

use super::{
    FIELDS_CAP, HeadLimits, OtherVersion, Parse, as_http11,
    fields::{Facts, fields},
    offset, other_version, plain,
};
use crate::http::{
    fault::{Cause, Fault},
    head::{ResponseHead, Version},
    headers::Span,
};

/// Reads a response's head. On `More` and on a fault the contents of `head` mean nothing.
pub(crate) fn response(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parse, Fault> {
    head.headers.clear();
    // httparse accepts empty lines before a response too; the standard does not.
    match input.first() {
        None | Some(b'H') => {}
        // An alert of TLS (RFC 8446 §5.1).
        Some(21) => return Err(Cause::BackendSecure.into()),
        Some(_) => return Err(NO_ANSWER.into()),
    }
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
    if let Some(used) = plain_response(seen, limits, head) {
        return Ok(Parse::Done { used });
    }
    any_response(seen, limits, head)
}

/// Fills a head in its plain form; where it ends.
#[inline]
fn plain_response(seen: &[u8], limits: &HeadLimits, head: &mut ResponseHead) -> Option<usize> {
    let (status, reason, end) = plain::status_line(seen)?;
    let most = limits.fields_max.min(FIELDS_CAP);
    let mut facts = Facts::default();
    let used = plain::fields(seen, end, most, &mut head.headers, &mut facts)?;
    head.headers.bytes.extend_from_slice(seen.get(..used)?);
    (head.status, head.version, head.reason) = (status, Version::Http11, reason);
    head.keep_alive = facts.keeps_alive(head.version);
    head.headers.has_options = facts.other_options;
    Some(used)
}

/// Like `response`, for a head in any form, or for none.
#[cold]
pub(super) fn any_response(
    seen: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parse, Fault> {
    head.headers.clear();
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_CAP];
    let slots = storage.get_mut(..limits.fields_max.min(FIELDS_CAP)).unwrap_or_default();
    let mut found = httparse::Response::new(&mut []);
    // RFC 9112 §5.1: whitespace before the colon is removed from responses. `write` does that.
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    let used = match parser.parse_response_with_uninit_headers(&mut found, seen, slots) {
        Ok(Status::Complete(used)) => used,
        Ok(Status::Partial) => return response_unfinished(seen, limits),
        Err(error) => return response_refused(seen, error, limits, head),
    };
    // RFC 9110 §15: three digits, of which the first is the class. Those above 599 are no status of
    // the standard, occur all the same, and count as 5xx.
    head.status = found.code.filter(|code| *code > 99).ok_or(NO_ANSWER)?;
    head.version = if found.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let first = found.headers.first().map(|field| offset(seen, field.name.as_bytes()));
    let line_end = first.unwrap_or(used.wrapping_sub(2));
    // In "HTTP/1.1 200 OK": the reason, if there is one, with bytes that httparse does not return.
    head.reason = Span::new("HTTP/1.1 200 ".len(), line_end.wrapping_sub(2));
    if seen.get(line_end.wrapping_sub(2)) != Some(&b'\r') {
        return Err(REFUSED.into());
    }
    head.headers.bytes.extend_from_slice(seen.get(..used).unwrap_or_default());
    let facts = fields(seen, used, line_end, found.headers, &mut head.headers, REFUSED)?;
    head.keep_alive = facts.keeps_alive(head.version);
    head.headers.has_options = facts.other_options;
    Ok(Parse::Done { used })
}

const NO_ANSWER: Cause = Cause::BackendProtocol;
const REFUSED: Cause = Cause::ResponseRefused;

fn response_unfinished(seen: &[u8], limits: &HeadLimits) -> Result<Parse, Fault> {
    if seen.len() >= limits.head_bytes_max {
        return Err(Cause::ResponseHeadTooLarge.into());
    }
    Ok(Parse::More)
}

#[cold]
fn response_refused(
    seen: &[u8],
    error: httparse::Error,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parse, Fault> {
    if error == httparse::Error::TooManyHeaders {
        return Err(Cause::ResponseHeadTooLarge.into());
    }
    if error != httparse::Error::Version {
        return Err(if begins_as_answer(seen) { REFUSED } else { NO_ANSWER }.into());
    }
    match other_version(seen) {
        OtherVersion::Unfinished => response_unfinished(seen, limits),
        OtherVersion::Minor => response(&as_http11(seen, 0), limits, head),
        OtherVersion::Major | OtherVersion::None => Err(NO_ANSWER.into()),
    }
}

/// Whether version and status are there, which only an HTTP server writes. All that follows may
/// come from the client's request: a reason, a Location.
fn begins_as_answer(seen: &[u8]) -> bool {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', rest @ ..] = seen else {
        return false;
    };
    matches!(rest, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ' | b'\r' | b'\n', ..])
}
