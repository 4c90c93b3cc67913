//! Head bytes → head: httparse, then our limits and refusals.
//!
//! httparse finds the pieces and refuses what is no HTTP at all; it is lenient about line ends,
//! leading lines and what fields mean, and that is made up for here. What is refused is refused
//! the same whether the head came whole or byte by byte. A head is filled by one copy of its bytes
//! and ranges into that copy; bodies are not looked at (`framing` does that). What a request's
//! fields mean is in `request`, a response's in `response`; what all fields share is in `fields`.

mod fields;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use self::{request::request, response::response};

/// What a head may measure at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// Of the whole head with its empty line; also of the trailers of a body.
    pub(crate) head_bytes_max: usize,
    /// Of the request line with its line end.
    pub(crate) line_bytes_max: usize,
    /// At most `FIELDS_CAP` counts.
    pub(crate) fields_max: usize,
}

/// Fields are found into an array on the stack: 256 of 32 bytes are 8 KiB, not written until used.
const FIELDS_CAP: usize = 256;

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parse {
    /// All is well so far and the end has not come.
    More,
    /// The head is filled; the message goes on at `used`.
    Done { used: usize },
}

/// Where the head in `input` ends, if it does: looking only at bytes from `from` on for its last
/// byte, so that many small reads cost no more than one. Ends of bare LFs count too: such a head is
/// refused, and should be at once.
pub(crate) fn complete(input: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', input.get(from..)?)
        .map(|at| from + at)
        .find(|at| matches!(input.get(..*at), Some([.., b'\n'] | [.., b'\n', b'\r'])))
        .map(|at| at + 1)
}

/// What stands where HTTP/1.0 or HTTP/1.1 was wanted.
enum OtherVersion {
    /// The start of a version.
    Unfinished,
    /// HTTP, but not of the first major version (the preface of HTTP/2 among them).
    Major,
    /// HTTP/1.2 or later, which is to be read as the highest we know (RFC 9110 §2.5).
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
        // These two are ours: what was wrong came behind them.
        Some([b'1', b'.', b'0' | b'1']) => OtherVersion::None,
        Some([b'1', ..]) => OtherVersion::Minor,
        Some(_) => OtherVersion::Major,
    }
}

/// The same head as HTTP/1.1. A copy, which is fine for what nobody sends.
fn as_http11(seen: &[u8], version_at: usize) -> Vec<u8> {
    let mut copy = seen.to_vec();
    if let Some(version) = copy.get_mut(version_at..version_at + 8) {
        version.copy_from_slice(b"HTTP/1.1");
    }
    copy
}

/// Where `part` stands in `whole`, of which it is a piece.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}
