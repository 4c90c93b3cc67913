//! The short way through a whole head in its plain form: each byte is looked at once.
//!
//! Plain is what nearly all peers write: `name: value` with one space and CRLF, no tab, a request
//! line of HTTP/1.1. Anything else, a head that breaks a rule or is incomplete among it, is left to
//! httparse and the checks behind it; nothing is refused here. So there are two ways to one result,
//! and a test holds them against each other.

use super::{
    HeadLimits,
    fields::{Facts, TELLING},
    request::RequestLine,
};
use crate::http::{
    grammar,
    head::Version,
    headers::{Field, Headers, Span},
    names::Name,
    words::{Word, first, first_far},
};

/// Reads a plain request line.
#[inline]
pub(super) fn request_line(seen: &[u8], limits: &HeadLimits) -> Option<RequestLine> {
    let method_end = seen.iter().position(|byte| !byte.is_ascii_uppercase())?;
    if method_end == 0 || seen.get(method_end) != Some(&b' ') {
        return None;
    }
    let target = method_end + 1;
    let target_end = target + first(seen.get(target..)?, |word| word.below(0x21))?;
    let end = target_end + VERSION.len();
    let is_plain = target_end > target && seen.get(target_end..end) == Some(VERSION);
    (is_plain && end <= limits.line_bytes_max).then(|| RequestLine {
        method: Span::new(0, method_end),
        target: Span::new(target, target_end),
        version: Version::Http11,
        end,
    })
}

const VERSION: &[u8] = b" HTTP/1.1\r\n";

/// Reads a plain status line of HTTP/1.1: the status, the range of the reason, where the line ends.
#[inline]
pub(super) fn status_line(seen: &[u8]) -> Option<(u16, Span, usize)> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ', rest @ ..] = seen
    else {
        return None;
    };
    let (b'1'..=b'9', b'0'..=b'9', b'0'..=b'9') = (a, b, c) else { return None };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let reason = seen.len() - rest.len();
    let reason_end = reason + first(rest, Word::control)?;
    let end = reason_end + 2;
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    (seen.get(reason_end..end)? == b"\r\n").then(|| (status, Span::new(reason, reason_end), end))
}

/// Reads the fields from `at` on, at most so many, and what they state; where the head ends. If it
/// is none, `headers` may have some of them.
#[inline]
pub(super) fn fields(
    seen: &[u8],
    mut at: usize,
    most: usize,
    headers: &mut Headers,
    facts: &mut Facts,
) -> Option<usize> {
    loop {
        let line = seen.get(at..)?;
        if let [b'\r', b'\n', ..] = line {
            return Some(at + 2);
        }
        let (name, rest) = line.split_at_checked(name_len(line)?)?;
        let [b':', b' ', rest @ ..] = rest else { return None };
        let (value, [b'\r', b'\n', ..]) = rest.split_at_checked(first_far(rest, Word::control)?)?
        else {
            return None;
        };
        let edges = (value.first(), value.last());
        let (Some(b'!'..), Some(b'!'..)) = edges else { return None };
        if headers.fields.len() >= most {
            return None;
        }
        let known = Name::of(name);
        let value_at = at + name.len() + 2;
        let name = span(at, name.len());
        let value_span = span(value_at, value.len());
        if TELLING.contains(known) {
            facts.note(known, value, value_span);
        }
        let field = Field { known, removed: false, canonical: true, name, value: value_span };
        headers.push_field(field);
        at = value_at + value.len() + 2;
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // heads are bounded by `head_bytes_max`
fn span(start: usize, len: usize) -> Span {
    Span { start: start as u32, len: len as u32 }
}

/// The length of the token before a colon.
#[inline]
fn name_len(line: &[u8]) -> Option<usize> {
    let letters = first(line, Word::neither_letter_nor_dash)?;
    let rest = line.get(letters..)?;
    // Digits and the like are rare.
    let len = match rest.first()? {
        b':' => letters,
        _ => letters + rest.iter().position(|byte| !grammar::is_token_byte(*byte))?,
    };
    (len > 0).then_some(len)
}
