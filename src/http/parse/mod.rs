//! Parser of heads: httparse, followed by our limits and refusals.
//!
//! httparse finds the pieces and refuses what is not HTTP at all. It is lenient about line ends,
//! leading lines and the meaning of fields; the checks here are strict about them. The outcome is
//! the same whether the head came whole or byte by byte. A head is filled by one copy of its bytes
//! and ranges of that copy; bodies are not looked at (`framing` does that). `request` interprets
//! the fields of requests, `response` those of responses, `fields` what both share. Most heads are
//! `plain`, and httparse does not see them.

mod fields;
mod plain;
mod request;
mod response;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "bench"))]
pub(crate) mod ways;

pub(crate) use self::{
    request::{request, settle},
    response::response,
};

/// The limits of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// The whole head with its empty line; also the trailers of a body.
    pub(crate) head_bytes_max: usize,
    /// The request line with its line end.
    pub(crate) line_bytes_max: usize,
    /// At most `FIELDS_CAP` takes effect.
    pub(crate) fields_max: usize,
}

/// httparse fills an array on the stack: 256 fields of 32 bytes are 8 KiB, not written until used.
const FIELDS_CAP: usize = 256;

/// How much of a head has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parse {
    /// Valid so far, and incomplete.
    More,
    /// The head is filled; the message goes on at `used`.
    Done { used: usize },
}

/// Where the head in `input` ends, if it does. Looks for its last byte only from `from` on, so that
/// many small reads cost no more than one. An end with bare LFs counts too: such a head is refused,
/// and should be at once.
pub(crate) fn complete(input: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', input.get(from..)?)
        .map(|at| from + at)
        .find(|at| matches!(input.get(..*at), Some([.., b'\n'] | [.., b'\n', b'\r'])))
        .map(|at| at + 1)
}

/// Whether a whole head lies in `input`. Empty lines before it (RFC 9112 §2.2) are no part of one.
pub(crate) fn has_head(input: &[u8]) -> bool {
    let begin = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    begin.is_some_and(|begin| complete(input, begin).is_some())
}

/// What was found in place of HTTP/1.0 or HTTP/1.1.
enum OtherVersion {
    /// The beginning of a version.
    Unfinished,
    /// HTTP, but of another major version (the preface of HTTP/2 among them).
    Major,
    /// HTTP/1.2 or later, which is read as the highest version we know (RFC 9110 §2.5).
    Minor,
    /// No version.
    None,
}

fn other_version(bytes: &[u8]) -> OtherVersion {
    let matches = |byte: u8, wanted: u8| match wanted {
        b'd' => byte.is_ascii_digit(),
        _ => byte == wanted,
    };
    if !bytes.iter().zip(b"HTTP/d.d").all(|(byte, wanted)| matches(*byte, *wanted)) {
        return OtherVersion::None;
    }
    match bytes.get(5..8) {
        None => OtherVersion::Unfinished,
        // These two are supported: the error came after them.
        Some([b'1', b'.', b'0' | b'1']) => OtherVersion::None,
        Some([b'1', ..]) => OtherVersion::Minor,
        Some(_) => OtherVersion::Major,
    }
}

/// The same head as HTTP/1.1. A copy is fine, as real clients do not send such versions.
fn as_http11(seen: &[u8], version_at: usize) -> Vec<u8> {
    let mut copy = seen.to_vec();
    if let Some(version) = copy.get_mut(version_at..version_at + 8) {
        version.copy_from_slice(b"HTTP/1.1");
    }
    copy
}

/// The range of `part` in `whole`; it must be a piece of it.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}
