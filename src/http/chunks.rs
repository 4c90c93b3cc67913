//! Chunked transfer coding, decoder and encoder (RFC 9112 §7.1).
//!
//! The decoder takes bytes as they come, in any pieces, keeps nothing but its state, and says which
//! of them are body. What it accepts has one reading: sizes of 1 to 16 hex digits, CRLF alone ends
//! a line, extensions are dropped. The encoder writes the plainest form there is. How long a body
//! may be, and whether it ended too early, is checked elsewhere.

use super::{
    fault::{Cause, Fault},
    grammar,
    headers::{Field, Headers, Span},
    names::{self, Name, NameSet},
    parse::HeadLimits,
    write,
};
use std::ops::Range;

/// Bytes of extensions that one chunk may carry. Those in use sign chunks with a hash of 64 digits
/// and a name.
const EXTENSION_MAX: u64 = 256;

/// Bytes of extensions that a message may carry regardless of its body, and the share of the body
/// that they may have beyond that: one byte in 16. A signature of 81 bytes on chunks of 8 KiB is
/// one in 100; chunks of one byte with 256 bytes of extensions each end after the sixteenth.
const EXTENSIONS_FREE: u64 = 4096;
const EXTENSIONS_SHARE: u64 = 16;

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All of the input was framing; go on with the next read.
    More,
    /// This many bytes are framing; ask again with the rest.
    Skip(usize),
    /// This many bytes are body; ask again with the rest.
    Body(usize),
    /// This many bytes are framing, and then the message is over: the rest belongs to the next.
    End(usize),
}

/// The result of `compact`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Where the body's bytes are now, in one piece. It begins where the first of them was.
    pub(crate) body: Range<usize>,
    /// How many bytes were decoded: all, or up to the end of the message.
    pub(crate) consumed: usize,
    pub(crate) ended: bool,
}

/// The decoder's position in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or within the digits of a size.
    Size {
        digits: u8,
    },
    /// After a size, in whitespace before an extension.
    Space,
    Extension,
    /// After the CR of a size's line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// In a line of the trailers, which begins at this offset of the trailers' bytes.
    Trailer {
        start: usize,
    },
    Done,
}

/// The decoder of one body.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    state: State,
    /// What is left of the current chunk; while its size is read, the size so far.
    left: u64,
    /// Body bytes announced so far.
    body: u64,
    /// Bytes of extensions, of this chunk and in total.
    extension: u64,
    extensions: u64,
    /// Bytes and lines of trailers, including dropped ones.
    trailer_bytes: usize,
    trailer_fields: usize,
    limits: HeadLimits,
    /// Whether misplaced whitespace is accepted and removed.
    is_lenient: bool,
    broken: Cause,
    too_large: Cause,
}

impl Chunks {
    /// A decoder of a request's body: its faults are the client's.
    pub(crate) fn of_request(limits: HeadLimits) -> Chunks {
        Chunks::new(limits, false, Cause::BadRequest, Cause::HeadTooLarge)
    }

    /// A decoder for the body of a response. A mistake is refused for its form, as in a head. Some
    /// servers pad a size with spaces, and their bytes are not passed on as they came. So
    /// whitespace at the end of a size line and before the colon of a trailer (RFC 9112 §5.1) is
    /// removed.
    pub(crate) fn of_response(limits: HeadLimits) -> Chunks {
        Chunks::new(limits, true, Cause::ResponseRefused, Cause::ResponseHeadTooLarge)
    }

    fn new(limits: HeadLimits, is_lenient: bool, broken: Cause, too_large: Cause) -> Chunks {
        Chunks {
            state: State::Size { digits: 0 },
            left: 0,
            body: 0,
            extension: 0,
            extensions: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            limits,
            is_lenient,
            broken,
            too_large,
        }
    }

    /// Whether the message is over.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Says what the next bytes are. Trailers are collected into `trailers`, which must be empty
    /// when the body begins. After a fault the message cannot be decoded any further.
    pub(crate) fn step(&mut self, input: &[u8], trailers: &mut Headers) -> Result<Step, Fault> {
        let mut used = 0;
        loop {
            if self.state == State::Done {
                return Ok(Step::End(used));
            }
            let rest = input.get(used..).unwrap_or_default();
            let Some(byte) = rest.first() else { return Ok(Step::More) };
            match self.state {
                State::Data if used > 0 => return Ok(Step::Skip(used)),
                State::Data => {
                    let here = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Body(here));
                }
                State::Trailer { start } => used += self.trailer(rest, start, trailers)?,
                State::Size { .. }
                | State::Space
                | State::Extension
                | State::SizeLf
                | State::DataCr
                | State::DataLf
                | State::Done => {
                    self.state = self.framing(*byte, trailers.bytes.len())?;
                    used += 1;
                }
            }
        }
    }

    /// The state after one byte of framing, up to the last chunk's line.
    fn framing(&mut self, byte: u8, trailers_start: usize) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => self.digit(digits, byte)?,
            (State::Size { digits: 1.. }, b'\r') => State::SizeLf,
            (State::Size { digits: 1.. }, b';') => self.extended(State::Extension)?,
            // RFC 9112 §7.1.1: bad whitespace, allowed before an extension only.
            (State::Size { digits: 1.. } | State::Space, b' ' | b'\t') => {
                self.extended(State::Space)?
            }
            (State::Space, b';') => self.extended(State::Extension)?,
            (State::Space, b'\r') if self.is_lenient => State::SizeLf,
            (State::Extension, b'\r') => State::SizeLf,
            // Names, values and quoted strings consist of these bytes, and none of them ends a
            // line: that is enough to drop them.
            (State::Extension, b'\t' | b' '..=0x7e) => self.extended(State::Extension)?,
            (State::SizeLf, b'\n') => self.sized(trailers_start)?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            _ => return Err(self.broken.into()),
        })
    }

    /// One more digit of a size: 16 at most, so that it cannot overflow.
    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, Fault> {
        if digits == 0 {
            (self.left, self.extension) = (0, 0);
        }
        let value = char::from(byte).to_digit(16).ok_or(self.broken)?;
        if digits == 16 {
            return Err(self.broken.into());
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(State::Size { digits: digits + 1 })
    }

    /// One more byte of extensions.
    fn extended(&mut self, state: State) -> Result<State, Fault> {
        self.extension += 1;
        self.extensions += 1;
        let free = EXTENSIONS_FREE.saturating_add(self.body / EXTENSIONS_SHARE);
        if self.extension > EXTENSION_MAX || self.extensions > free {
            return Err(self.broken.into());
        }
        Ok(state)
    }

    /// The size is complete: the chunk follows, or the trailers. The body so far must be a length
    /// that every reader can represent, like a Content-Length.
    fn sized(&mut self, trailers_start: usize) -> Result<State, Fault> {
        if self.left == 0 {
            return Ok(State::Trailer { start: trailers_start });
        }
        let body = self.body.checked_add(self.left).filter(|body| *body <= i64::MAX as u64);
        self.body = body.ok_or(self.broken)?;
        Ok(State::Data)
    }

    /// Takes the bytes of one line of trailers, as far as they have come.
    fn trailer(
        &mut self,
        rest: &[u8],
        start: usize,
        trailers: &mut Headers,
    ) -> Result<usize, Fault> {
        let line_end = memchr::memchr(b'\n', rest);
        let piece = rest.get(..line_end.map_or(rest.len(), |at| at + 1)).unwrap_or_default();
        self.trailer_bytes += piece.len();
        if self.trailer_bytes > self.limits.head_bytes_max {
            return Err(self.too_large.into());
        }
        trailers.bytes.extend_from_slice(piece);
        if line_end.is_none() {
            return Ok(piece.len());
        }
        let line = trailers.bytes.get(start..).unwrap_or_default();
        if line == b"\r\n" {
            trailers.bytes.truncate(start);
            self.state = State::Done;
            return Ok(piece.len());
        }
        self.trailer_fields += 1;
        if self.trailer_fields > self.limits.fields_max {
            return Err(self.too_large.into());
        }
        let field = trailer_field(line, start, self.is_lenient).ok_or(self.broken)?;
        if is_forbidden(field.known, field.name.of(&trailers.bytes)) {
            trailers.bytes.truncate(start);
        } else {
            trailers.push_field(field);
        }
        self.state = State::Trailer { start: trailers.bytes.len() };
        Ok(piece.len())
    }

    /// Decodes in place: moves the body's bytes together, so that they can be sent as one chunk. A
    /// read with one piece of body moves nothing.
    pub(crate) fn compact(
        &mut self,
        bytes: &mut [u8],
        trailers: &mut Headers,
    ) -> Result<Compacted, Fault> {
        let mut body = 0..0;
        let mut consumed = 0;
        loop {
            match self.step(bytes.get(consumed..).unwrap_or_default(), trailers)? {
                Step::More => {
                    return Ok(Compacted { body, consumed: bytes.len(), ended: false });
                }
                Step::Skip(framing) => consumed += framing,
                Step::End(framing) => {
                    return Ok(Compacted { body, consumed: consumed + framing, ended: true });
                }
                Step::Body(here) => {
                    if body.is_empty() {
                        body = consumed..consumed;
                    } else {
                        bytes.copy_within(consumed..consumed + here, body.end);
                    }
                    body.end += here;
                    consumed += here;
                }
            }
        }
    }
}

/// One line of trailers at offset `start`, including its CRLF: as strict as in a head.
fn trailer_field(line: &[u8], start: usize, is_lenient: bool) -> Option<Field> {
    let line = line.strip_suffix(b"\r\n")?;
    let colon = memchr::memchr(b':', line)?;
    let (mut name, rest) = (line.get(..colon)?, line.get(colon + 1..)?);
    if is_lenient {
        name = grammar::trim_end(name);
    }
    if !grammar::is_token(name) || !rest.iter().all(|byte| grammar::is_value_byte(*byte)) {
        return None;
    }
    let value = grammar::trim(rest);
    // An empty value begins after one space, if there is one.
    let leading = rest.len() - grammar::trim_start(rest).len();
    let value_start = colon + 1 + if value.is_empty() { leading.min(1) } else { leading };
    let value_end = value_start + value.len();
    Some(Field {
        known: Name::of(name),
        removed: false,
        canonical: name.len() == colon
            && leading == 1
            && rest.first() == Some(&b' ')
            && value_end == line.len(),
        name: Span::new(start, start + name.len()),
        value: Span::new(start + value_start, start + value_end),
    })
}

/// Whether a field may be passed on in trailers.
pub(crate) fn may_trail(name: &[u8]) -> bool {
    !is_forbidden(Name::of(name), name)
}

/// Whether a field is unsafe in trailers (RFC 9110 §6.5.1): framing, routing, connection options,
/// request modifiers, authentication, response control, content format, and claims about the
/// client.
fn is_forbidden(known: Name, name: &[u8]) -> bool {
    const KNOWN: NameSet = names::ABOUT_CLIENT.union(NameSet::of(&[
        Name::Authorization,
        Name::CacheControl,
        Name::Connection,
        Name::ContentLength,
        Name::ContentType,
        Name::Cookie,
        Name::Date,
        Name::Disguised,
        Name::Expect,
        Name::Host,
        Name::KeepAlive,
        Name::MaxForwards,
        Name::ProxyAuthenticate,
        Name::ProxyAuthorization,
        Name::ProxyConnection,
        Name::SetCookie,
        Name::Te,
        Name::Traceparent,
        Name::Tracestate,
        Name::Trailer,
        Name::TransferEncoding,
        Name::Upgrade,
        Name::Via,
        Name::XRequestId,
    ]));
    const OTHERS: [&[u8]; 22] = [
        b"accept-ranges",
        b"age",
        b"authentication-info",
        b"content-encoding",
        b"content-range",
        b"expires",
        b"http2-settings",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"pragma",
        b"proxy",
        b"proxy-authentication-info",
        b"range",
        b"retry-after",
        b"tracestate",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    KNOWN.contains(known)
        || (known == Name::Other
            && (OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
                || names::claims_client(name)))
}

/// Writes the line before a chunk of this many bytes, CRLF included; returns its length. Not for
/// zero bytes, which would make it the last chunk.
pub(crate) fn chunk_head(bytes: u64, out: &mut [u8; 18]) -> usize {
    debug_assert!(bytes > 0);
    let digits = (u64::BITS - bytes.leading_zeros()).div_ceil(4).max(1);
    for (place, slot) in out.iter_mut().take(digits as usize).enumerate() {
        let nibble = bytes >> (4 * (digits as usize - 1 - place)) & 15;
        *slot = if nibble < 10 { b'0' + nibble as u8 } else { b'a' + (nibble as u8 - 10) };
    }
    let ends = out.iter_mut().skip(digits as usize);
    ends.zip(b"\r\n").for_each(|(slot, byte)| *slot = *byte);
    digits as usize + 2
}

/// The end of each chunk's data.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk and the end of the message without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The last chunk, the trailers and the end of the message.
pub(crate) fn write_trailers(trailers: &Headers, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    write::fields(trailers, NameSet::default(), out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 60, line_bytes_max: 100, fields_max: 3 };

    /// The result of decoding a message.
    #[derive(Debug, PartialEq, Eq)]
    struct Decoded {
        body: Vec<u8>,
        trailers: Vec<u8>,
        used: usize,
    }

    /// Feeds one read, as the data path does.
    fn read(
        chunks: &mut Chunks,
        mut input: &[u8],
        decoded: &mut Decoded,
        trailers: &mut Headers,
    ) -> Result<(), Fault> {
        loop {
            let used = match chunks.step(input, trailers)? {
                Step::More => {
                    decoded.used += input.len();
                    return Ok(());
                }
                Step::Skip(framing) => framing,
                Step::Body(here) => {
                    decoded.body.extend_from_slice(&input[..here]);
                    here
                }
                Step::End(framing) => {
                    decoded.used += framing;
                    return Ok(());
                }
            };
            decoded.used += used;
            input = &input[used..];
        }
    }

    /// Decodes a message that comes in these pieces; `None` if its end has not come.
    fn decode(mut chunks: Chunks, pieces: &[&[u8]]) -> Result<Option<Decoded>, Fault> {
        let mut decoded = Decoded { body: Vec::new(), trailers: Vec::new(), used: 0 };
        let mut trailers = Headers::default();
        for piece in pieces {
            read(&mut chunks, piece, &mut decoded, &mut trailers)?;
        }
        write::fields(&trailers, NameSet::default(), &mut decoded.trailers);
        Ok(chunks.is_done().then_some(decoded))
    }

    /// Decodes a message whole, in two pieces cut anywhere, byte by byte and in place: all must
    /// agree.
    #[track_caller]
    fn decoded(input: &[u8]) -> Result<Option<Decoded>, Fault> {
        let new = || Chunks::of_request(LIMITS);
        let whole = decode(new(), &[input]);
        for cut in 0..=input.len() {
            let (first, second) = input.split_at(cut);
            let cut_here = decode(new(), &[first, second]);
            assert_eq!(cut_here, whole, "{} cut at {cut}", input.escape_ascii());
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode(new(), &bytes), whole, "{} byte by byte", input.escape_ascii());
        let mut copy = input.to_vec();
        let (mut chunks, mut trailers) = (new(), Headers::default());
        match (chunks.compact(&mut copy, &mut trailers), &whole) {
            (Err(fault), whole) => assert_eq!(whole.as_ref(), Err(&fault)),
            (Ok(compacted), Ok(Some(decoded))) => {
                assert_eq!(copy[compacted.body], decoded.body);
                assert_eq!((compacted.consumed, compacted.ended), (decoded.used, true));
            }
            (Ok(compacted), Ok(None)) => {
                assert_eq!((compacted.consumed, compacted.ended), (input.len(), false));
            }
            (Ok(_), Err(fault)) => panic!("{fault:?} is not seen in place"),
        }
        whole
    }

    #[track_caller]
    fn accepts(input: &str, body: &str) {
        accepts_with(input, body, "");
    }

    #[track_caller]
    fn accepts_with(input: &str, body: &str, trailers: &str) {
        for behind in ["", "GET / HTTP/1.1\r\n", "\r\n"] {
            let expected =
                Decoded { body: body.into(), trailers: trailers.into(), used: input.len() };
            let input = format!("{input}{behind}");
            assert_eq!(decoded(input.as_bytes()), Ok(Some(expected)), "{}", input.escape_debug());
        }
    }

    #[track_caller]
    fn refuses(cause: Cause, input: impl AsRef<[u8]>) {
        let input = input.as_ref();
        assert_eq!(decoded(input), Err(cause.into()), "{}", input.escape_ascii());
    }

    #[test]
    fn a_body_is_its_chunks() {
        accepts("0\r\n\r\n", "");
        accepts("5\r\nhello\r\n0\r\n\r\n", "hello");
        accepts("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world");
        accepts("a\r\n0123456789\r\n0\r\n\r\n", "0123456789");
        accepts("A\r\n0123456789\r\n00\r\n\r\n", "0123456789");
        accepts("0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", "hello");
        accepts("7\r\n0\r\n\r\n12\r\n0\r\n\r\n", "0\r\n\r\n12");
    }

    #[test]
    fn a_body_whose_end_has_not_come_is_not_over() {
        let whole = b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(decoded(&whole[..end]), Ok(None));
        }
    }

    /// RFC 9112 §7.1.1.
    #[test]
    fn extensions_are_dropped() {
        accepts("5;a\r\nhello\r\n0;b\r\n\r\n", "hello");
        accepts("5;a=b;c=\"d;\\\" e\"\r\nhello\r\n0\r\n\r\n", "hello");
        accepts("5 ;a = b\r\nhello\r\n0\t; c\r\n\r\n", "hello");
        accepts("5;a=\"0\"\r\nhello\r\n0\r\n\r\n", "hello");
        for extension in ["a\0", "a\x7f", "a\"\n\"", "a\rb", "a=\"\r\n\"", "é"] {
            refuses(Cause::BadRequest, format!("5;{extension}\r\nhello\r\n0\r\n\r\n"));
        }
    }

    /// RFC 9112 §7.1, and known desyncs of other decoders.
    #[test]
    fn what_is_no_chunk_is_refused() {
        for input in [
            // An empty size is not the last chunk.
            "\r\n\r\n",
            "\r\n",
            ";a\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n\r\n\r\n",
            // Hex digits and nothing else.
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-1\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5,5\r\nhello\r\n0\r\n\r\n",
            "5_\r\nhello\r\n0\r\n\r\n",
            "g\r\nhello\r\n0\r\n\r\n",
            "5\0\r\nhello\r\n0\r\n\r\n",
            "5h\r\nhello\r\n0\r\n\r\n",
            "\"5\"\r\nhello\r\n0\r\n\r\n",
            // Too long, or more than every reader can represent.
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffff\r\nhello",
            "8000000000000000\r\nhello",
            "1\r\na\r\n7fffffffffffffff\r\nhello",
            // CRLF and nothing else.
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\r\r\nhello\r\n0\r\n\r\n",
            "5;a\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "5\r\nhello\r\n\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "0\r\n\r\r\n",
            "0\n\n",
        ] {
            refuses(Cause::BadRequest, input);
        }
    }

    #[test]
    fn whose_fault_it_is_depends_on_the_side() {
        let outcome = decode(Chunks::of_response(LIMITS), &[b"g"]);
        assert_eq!(outcome, Err(Cause::ResponseRefused.into()));
        let trailers = format!("0\r\n{}", "x".repeat(100));
        let outcome = decode(Chunks::of_response(LIMITS), &[trailers.as_bytes()]);
        assert_eq!(outcome, Err(Cause::ResponseHeadTooLarge.into()));
    }

    /// RFC 9112 §5.1 and §7.1.1: accepted from backends, refused from clients.
    #[test]
    fn whitespace_where_none_belongs_is_taken_out_of_responses() {
        #[track_caller]
        fn check(input: &str, body: &str, trailers: &str) {
            let pieces: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
            for pieces in [&[input.as_bytes()][..], &pieces] {
                let decoded = decode(Chunks::of_response(LIMITS), pieces).unwrap().unwrap();
                assert_eq!(decoded.body, body.as_bytes(), "{input:?}");
                assert_eq!(decoded.trailers, trailers.as_bytes(), "{input:?}");
                assert_eq!(decoded.used, input.len(), "{input:?}");
            }
            refuses(Cause::BadRequest, input);
        }
        check("5 \r\nhello\r\n0\r\n\r\n", "hello", "");
        check("5\t\r\nhello\r\n0\r\n\r\n", "hello", "");
        check("5      \r\nhello\r\n00 \t \r\n\r\n", "hello", "");
        check("0\r\nX : y\r\nZ\t \t:\r\n\r\n", "", "X: y\r\nZ: \r\n");
        for input in [
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5 \nhello\r\n0\r\n\r\n",
            "5 \r\r\nhello\r\n0\r\n\r\n",
            "5 a\r\nhello\r\n0\r\n\r\n",
            "5\x0b\r\nhello\r\n0\r\n\r\n",
            " \r\n\r\n",
            "0\r\n : y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX y: z\r\n\r\n",
            "0\r\nX \r\n\r\n",
        ] {
            let outcome = decode(Chunks::of_response(LIMITS), &[input.as_bytes()]);
            assert_eq!(outcome, Err(Cause::ResponseRefused.into()), "{input:?}");
        }
        // Spaces count like an extension.
        let outcome = decode(Chunks::of_response(LIMITS), &[b"5", &[b' '; 257], b"\r\n"]);
        assert_eq!(outcome, Err(Cause::ResponseRefused.into()));
    }

    #[test]
    fn extensions_are_bounded_in_a_chunk_and_in_a_message() {
        let chunk = |extension: usize| format!("1;{}\r\na\r\n", "e".repeat(extension - 1));
        accepts(&format!("{}0\r\n\r\n", chunk(256)), "a");
        refuses(Cause::BadRequest, format!("{}0\r\n\r\n", chunk(257)));
        let sixteen = chunk(256).repeat(16);
        let outcome = decode(Chunks::of_request(LIMITS), &[sixteen.as_bytes(), b"0\r\n\r\n"]);
        assert_eq!(outcome.unwrap().unwrap().body, b"a".repeat(16));
        let outcome = decode(Chunks::of_request(LIMITS), &[sixteen.as_bytes(), b"1;"]);
        assert!(outcome.is_ok(), "a sixteenth of the body is free");
        let outcome = decode(Chunks::of_request(LIMITS), &[sixteen.as_bytes(), b"1;b"]);
        assert_eq!(outcome, Err(Cause::BadRequest.into()));
        // A body in signed chunks of 8 KiB has no limit of length.
        let chunk = format!("2000;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "b".repeat(8192));
        let pieces = vec![chunk.as_bytes(); 500];
        let outcome = decode(Chunks::of_request(LIMITS), &pieces);
        assert_eq!(outcome, Ok(None));
    }

    #[test]
    fn trailers_are_collected_in_canonical_form() {
        accepts_with("0\r\nX: y\r\n\r\n", "", "X: y\r\n");
        accepts_with("1\r\na\r\n0\r\nX:y\r\nZ: \t\r\nA:\r\n\r\n", "a", "X: y\r\nZ: \r\nA: \r\n");
        accepts_with("0\r\ngrpc-status:  0 \r\n\r\n", "", "grpc-status: 0\r\n");
    }

    /// RFC 9112 §7.1.2 with §5.
    #[test]
    fn trailers_are_read_as_strictly_as_a_head() {
        for line in [
            "X\r\n",
            ": y\r\n",
            "X : y\r\n",
            " X: y\r\n",
            "X: y\n",
            "\n",
            "X: y\r",
            "X: \0\r\n",
            "X: a\rb\r\n",
            "X: y\r\n z\r\n",
            "X(: y\r\n",
            "X: \x7f\r\n",
            "\r\r\n",
            "é: y\r\n",
        ] {
            refuses(Cause::BadRequest, format!("0\r\n{line}\r\n"));
        }
    }

    /// RFC 9110 §6.5.1.
    #[test]
    fn fields_that_mean_nothing_good_behind_a_body_are_dropped() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "Connection",
            "Upgrade",
            "TE",
            "Trailer",
            "Content-Type",
            "Content-Encoding",
            "Range",
            "If-Match",
            "Age",
            "Vary",
            "WWW-Authenticate",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Forwarded_Prefix",
            "X_REAL_ip",
            "Content_Length",
            "transfer_ENCODING",
            "Client-Cert",
            "Client_Cert",
            "X-Real-IP",
            "Forwarded",
            "Via",
            "Expect",
            "Proxy",
            "Cache-Control",
            "Date",
        ] {
            accepts_with(
                &format!("0\r\nA: 1\r\n{name}: x\r\nB: 2\r\n\r\n"),
                "",
                "A: 1\r\nB: 2\r\n",
            );
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let bytes = LIMITS.head_bytes_max - "X: \r\n\r\n".len();
        let trailers = |bytes: usize| format!("0\r\nX: {}\r\n\r\n", "y".repeat(bytes));
        assert!(decoded(trailers(bytes).as_bytes()).unwrap().is_some());
        refuses(Cause::HeadTooLarge, trailers(bytes + 1));
        refuses(Cause::HeadTooLarge, format!("0\r\n{}", "x".repeat(61)));
        accepts_with("0\r\nA: 1\r\nTE: 2\r\nC: 3\r\n\r\n", "", "A: 1\r\nC: 3\r\n");
        refuses(Cause::HeadTooLarge, "0\r\nA: 1\r\nTE: 2\r\nC: 3\r\nD: 4\r\n\r\n");
    }

    #[test]
    fn a_read_with_one_piece_of_body_moves_nothing() {
        let mut bytes = *b"5\r\nhello\r\n0\r\n";
        let mut chunks = Chunks::of_response(LIMITS);
        let compacted = chunks.compact(&mut bytes, &mut Headers::default()).unwrap();
        assert_eq!(compacted, Compacted { body: 3..8, consumed: 13, ended: false });
        assert_eq!(&bytes, b"5\r\nhello\r\n0\r\n");
        let compacted = chunks.compact(&mut [b'\r', b'\n', 7], &mut Headers::default()).unwrap();
        assert_eq!(compacted, Compacted { body: 0..0, consumed: 2, ended: true });
    }

    #[test]
    fn the_head_of_a_chunk_is_its_size_in_hex() {
        for bytes in [1, 9, 10, 15, 16, 255, 4096, 65_535, 1 << 20, u64::MAX] {
            let mut out = [0; 18];
            let used = chunk_head(bytes, &mut out);
            assert_eq!(out[..used], *format!("{bytes:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn trailers_are_written_behind_the_last_chunk() {
        let mut trailers = Headers::default();
        let mut out = Vec::new();
        write_trailers(&trailers, &mut out);
        assert_eq!(out, LAST_CHUNK);
        trailers.push(Name::Other, b"a", b"b");
        out.clear();
        write_trailers(&trailers, &mut out);
        assert_eq!(out, b"0\r\na: b\r\n\r\n");
    }

    /// A message of these pieces of body, as we would send it.
    fn encode(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let mut head = [0; 18];
            let used = chunk_head(piece.len() as u64, &mut head);
            out.extend_from_slice(&head[..used]);
            out.extend_from_slice(piece);
            out.extend_from_slice(CHUNK_END);
        }
        out.extend_from_slice(LAST_CHUNK);
        out
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)
        ) {
            let message = encode(&pieces);
            let decoded = decoded(&message).unwrap().unwrap();
            prop_assert_eq!(&decoded.body, &pieces.concat());
            prop_assert_eq!(decoded.used, message.len());
        }

        #[test]
        fn what_is_accepted_encodes_to_the_same_body(
            input in proptest::collection::vec(
                proptest::sample::select(&b"0123a;= \r\n\"X:"[..]), 0..60)
        ) {
            if let Ok(Some(first)) = decoded(&input) {
                let again = decoded(&encode(std::slice::from_ref(&first.body))).unwrap().unwrap();
                prop_assert_eq!(first.body, again.body);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&input);
        }
    }
}
