//! Parser of a request's head: its line, its target, and what its fields say about it as a whole.
//!
//! A head that can be read in two ways is refused, with the status that the standard asks for if it
//! asks for one, and in the order in which the bytes come.

use std::mem::MaybeUninit;

use httparse::Status;

use super::{
    FIELDS_CAP, HeadLimits, OtherVersion, Parse, as_http11,
    fields::{Facts, TELLING, fields},
    offset, other_version, plain,
};
use crate::http::{
    fault::{Cause, Fault},
    head::{Method, RequestHead, TargetForm, Version},
    headers::Span,
    target::{self, Target},
};

/// Reads a request's head. On `More` and on a fault the contents of `head` mean nothing, except
/// method and version, which are those of the request or the defaults.
pub(crate) fn request(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parse, Fault> {
    // What is not cleared here is overwritten below; these two are also read after a fault.
    head.headers.clear();
    (head.method, head.version) = (Method::default(), Version::default());
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
    let mut facts = Facts::default();
    if let Some((line, used)) = plain_request(seen, limits, head, &mut facts) {
        place_target(head, line.target)?;
        request_facts(head, &facts)?;
        return Ok(Parse::Done { used });
    }
    any_request(seen, limits, head)
}

/// Fills a head in its plain form, but for what its target and its fields say; where it ends.
#[inline]
fn plain_request(
    seen: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
    facts: &mut Facts,
) -> Option<(RequestLine, usize)> {
    let line = plain::request_line(seen, limits)?;
    let most = limits.fields_max.min(FIELDS_CAP);
    let used = plain::fields(seen, line.end, most, &mut head.headers, facts)?;
    head.headers.bytes.extend_from_slice(seen.get(..used)?);
    head.method = Method::of(line.method.of(seen));
    (head.method_span, head.version) = (line.method, line.version);
    Some((line, used))
}

/// Like `request`, for a head in any form, or for none.
#[cold]
pub(super) fn any_request(
    seen: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parse, Fault> {
    head.headers.clear();
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_CAP];
    let slots = storage.get_mut(..limits.fields_max.min(FIELDS_CAP)).unwrap_or_default();
    let mut found = httparse::Request::new(&mut []);
    let outcome = found.parse_with_uninit_headers(seen, slots);
    let (line, used) = match outcome {
        Ok(Status::Complete(used)) => (request_line(seen, &found, limits)?, used),
        Ok(Status::Partial) => return request_unfinished(seen, limits),
        Err(error) => {
            let version_at = found.path.map(|path| offset(seen, path.as_bytes()) + path.len() + 1);
            return request_refused(seen, error, version_at, limits, head);
        }
    };
    head.headers.bytes.extend_from_slice(seen.get(..used).unwrap_or_default());
    head.method = Method::of(line.method.of(seen));
    head.method_span = line.method;
    head.version = line.version;
    let facts = fields(seen, used, line.end, found.headers, &mut head.headers, Cause::BadRequest)?;
    place_target(head, line.target)?;
    request_facts(head, &facts)?;
    Ok(Parse::Done { used })
}

/// The pieces of a valid request line (RFC 9112 §3).
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) version: Version,
    /// After its line end.
    pub(super) end: usize,
}

fn request_line(
    seen: &[u8],
    found: &httparse::Request<'_, '_>,
    limits: &HeadLimits,
) -> Result<RequestLine, Fault> {
    let (method, path) = (found.method.unwrap_or_default(), found.path.unwrap_or_default());
    let start = leading_line(seen)?;
    let method_end = start + method.len();
    let target_end = method_end + 1 + path.len();
    let end = target_end + " HTTP/1.1\r\n".len();
    if end - start > limits.line_bytes_max {
        return Err(Cause::UriTooLong.into());
    }
    // RFC 9112 §2.2: a bare LF may be accepted as a line end, or refused. It allows two readings of
    // one head, so it is refused.
    if seen.get(end - 2) != Some(&b'\r') {
        return Err(Cause::BadRequest.into());
    }
    let version = if found.version == Some(0) { Version::Http10 } else { Version::Http11 };
    Ok(RequestLine {
        method: Span::new(start, method_end),
        target: Span::new(method_end + 1, target_end),
        version,
        end,
    })
}

/// The length of the empty line before the request line: one is accepted (RFC 9112 §2.2).
fn leading_line(seen: &[u8]) -> Result<usize, Fault> {
    match seen {
        [b'\r', b'\n', b'\r' | b'\n', ..] | [b'\n', ..] => Err(Cause::BadRequest.into()),
        [b'\r', b'\n', ..] => Ok(2),
        _ => Ok(0),
    }
}

/// An incomplete head: wait for more, unless it can only grow beyond its limits.
fn request_unfinished(seen: &[u8], limits: &HeadLimits) -> Result<Parse, Fault> {
    let start = leading_line(seen)?;
    if line_is_too_long(seen, start, limits.line_bytes_max) {
        return Err(Cause::UriTooLong.into());
    }
    if seen.len() >= limits.head_bytes_max {
        return Err(Cause::HeadTooLarge.into());
    }
    Ok(Parse::More)
}

fn line_is_too_long(seen: &[u8], start: usize, line_bytes_max: usize) -> bool {
    seen.get(start..start + line_bytes_max)
        .is_some_and(|line| memchr::memchr(b'\n', line).is_none())
}

/// The fault for an error of httparse. `version_at` is known if the request line was read as far as
/// its version.
#[cold]
fn request_refused(
    seen: &[u8],
    error: httparse::Error,
    version_at: Option<usize>,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parse, Fault> {
    let start = leading_line(seen)?;
    let line_max = start + limits.line_bytes_max;
    if seen.len() > line_max && line_is_too_long(seen, start, limits.line_bytes_max) {
        // Had the bytes come one by one, the length of the line would have been noticed first,
        // unless the line breaks a rule before that.
        return request(seen.get(..line_max).unwrap_or(seen), limits, head);
    }
    if error == httparse::Error::TooManyHeaders {
        return Err(Cause::HeadTooLarge.into());
    }
    let version_at = version_at.filter(|_| error == httparse::Error::Version);
    match version_at.map(|at| (at, other_version(seen.get(at..).unwrap_or_default()))) {
        Some((_, OtherVersion::Unfinished)) => request_unfinished(seen, limits),
        Some((_, OtherVersion::Major)) => Err(Cause::VersionRefused.into()),
        Some((at, OtherVersion::Minor)) => request(&as_http11(seen, at), limits, head),
        Some((_, OtherVersion::None)) | None => Err(Cause::BadRequest.into()),
    }
}

/// Completes a head whose lines another protocol has given: its target lies there.
///
/// # Errors
/// As for a head of HTTP/1.
pub(crate) fn settle(head: &mut RequestHead, target: Span) -> Result<(), Fault> {
    let mut facts = Facts::default();
    for field in head.headers.iter().filter(|field| TELLING.contains(field.known)) {
        facts.note(field.known, head.headers.value(field), field.value);
    }
    place_target(head, target)?;
    request_facts(head, &facts)
}

/// Sets what the fields of a request say about it as a whole.
fn request_facts(head: &mut RequestHead, facts: &Facts) -> Result<(), Fault> {
    let http11 = head.version != Version::Http10;
    // RFC 9112 §3.2: 400 to a request of HTTP/1.1 without Host, and to any with two or a bad one.
    let needed = u32::from(http11);
    if facts.hosts < needed || facts.hosts > 1 {
        return Err(Cause::BadRequest.into());
    }
    if facts.hosts == 1 {
        if !target::is_authority(head.bytes(facts.host)) {
            return Err(Cause::BadRequest.into());
        }
        // RFC 9112 §3.2.2: the authority of an absolute target takes precedence over Host.
        if matches!(head.form, TargetForm::Origin | TargetForm::Asterisk) {
            head.authority = facts.host;
        }
    }
    // RFC 9110 §10.1.1: in HTTP/1.0 an expectation is ignored.
    if http11 && facts.expects_other {
        return Err(Cause::ExpectationFailed.into());
    }
    head.keep_alive = facts.keeps_alive(head.version);
    head.headers.has_options = facts.other_options;
    // RFC 9110 §10.1.1: a client that sends no body has nothing to wait for.
    head.expects_continue = http11 && facts.expects_continue && facts.body;
    // RFC 9110 §7.8: in HTTP/1.0 an upgrade is ignored. A body is no obstacle: the other protocol
    // begins after it.
    head.upgrade = http11 && facts.connection_upgrade && facts.upgrade && !facts.upgrade_to_http;
    Ok(())
}

/// Reads the target, whose bytes are in the head already, and sets its parts.
fn place_target(head: &mut RequestHead, span: Span) -> Result<(), Fault> {
    let Target { form, authority, path, query } = target::read(head.method, head.bytes(span))?;
    let start = span.start as usize;
    let place = |range: std::ops::Range<usize>| Span::new(start + range.start, start + range.end);
    head.form = form;
    head.authority = place(authority);
    head.path = place(path.clone());
    head.query = place(query);
    head.target = match form {
        TargetForm::Origin | TargetForm::Asterisk | TargetForm::Authority => span,
        TargetForm::Absolute => Span::new(start + path.start, span.end()),
    };
    if form == TargetForm::Absolute && path.is_empty() {
        give_path(head);
    }
    Ok(())
}

/// Gives an absolute target without a path the one that is sent on: `/`, or `*` for OPTIONS without
/// a query (RFC 9112 §3.2.1, §3.2.4). It is appended to the head's own bytes.
fn give_path(head: &mut RequestHead) {
    let bytes = &mut head.headers.bytes;
    let start = bytes.len();
    let whole = head.target.len == 0 && head.method == Method::Options;
    bytes.push(if whole { b'*' } else { b'/' });
    let rest = head.target.start as usize..head.target.end();
    if rest.end <= start {
        bytes.extend_from_within(rest);
    }
    head.path = Span::new(start, start + 1);
    head.target = Span::new(start, bytes.len());
}
