//! Head bytes → head: httparse, then our limits and refusals.
//!
//! httparse finds the pieces and refuses what is no HTTP at all; it is lenient about line ends,
//! leading lines and what fields mean, and that is made up for here. What is refused is refused
//! the same whether the head came whole or byte by byte. A head is filled by one copy of its bytes
//! and ranges into that copy; bodies are not looked at (`framing` does that).

use super::{
    fault::{Cause, Fault},
    grammar,
    head::{Method, RequestHead, ResponseHead, TargetForm, Version},
    headers::{Field, Headers, Span},
    names::{Name, NameSet},
    target::{self, Target},
};
use httparse::Status;
use std::mem::MaybeUninit;

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

/// Reads a request's head. On `More` and on a fault what stands in `head` means nothing, but for
/// its method and version, which are those of the request or the default.
pub(crate) fn request(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parse, Fault> {
    // What is not forgotten here is overwritten below; these two are asked for after a fault too.
    head.headers.clear();
    (head.method, head.version) = (Method::default(), Version::default());
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
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
    head.method = method_of(line.method.of(seen));
    head.method_span = line.method;
    head.version = line.version;
    let facts = fields(seen, used, line.end, found.headers, &mut head.headers, Cause::BadRequest)?;
    place_target(head, line.target)?;
    request_facts(head, &facts)?;
    Ok(Parse::Done { used })
}

/// The pieces of a request line that keeps its form (RFC 9112 §3).
struct RequestLine {
    method: Span,
    target: Span,
    version: Version,
    /// Behind its line end.
    end: usize,
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
    // RFC 9112 §2.2: a bare LF may be taken for a line end, or refused. It makes two readings of
    // one head possible, and so it is refused.
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

/// The length of the empty line before the request line: one is forgiven (RFC 9112 §2.2).
fn leading_line(seen: &[u8]) -> Result<usize, Fault> {
    match seen {
        [b'\r', b'\n', b'\r' | b'\n', ..] | [b'\n', ..] => Err(Cause::BadRequest.into()),
        [b'\r', b'\n', ..] => Ok(2),
        _ => Ok(0),
    }
}

/// A head whose end has not come: wait for more, unless it can only grow beyond its limits.
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

/// Why httparse stopped, in our words. `version_at` is known where the request line was read as
/// far as its version.
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
        // Had the bytes come one by one, the line's length would have been seen first, unless
        // the line breaks a rule before that.
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

/// Reads a response's head. On `More` and on a fault what stands in `head` means nothing.
pub(crate) fn response(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parse, Fault> {
    head.headers.clear();
    // httparse forgives empty lines before a response too; no rule does.
    if input.first().is_some_and(|first| *first != b'H') {
        return Err(Cause::BackendProtocol.into());
    }
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_CAP];
    let slots = storage.get_mut(..limits.fields_max.min(FIELDS_CAP)).unwrap_or_default();
    let mut found = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let used = match parser.parse_response_with_uninit_headers(&mut found, seen, slots) {
        Ok(Status::Complete(used)) => used,
        Ok(Status::Partial) => return response_unfinished(seen, limits),
        Err(error) => return response_refused(seen, error, limits, head),
    };
    head.status = found.code.filter(|code| *code < 600 && *code > 99).ok_or(BROKEN)?;
    head.version = if found.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let first = found.headers.first().map(|field| offset(seen, field.name.as_bytes()));
    let line_end = first.unwrap_or(used.wrapping_sub(2));
    // Of "HTTP/1.1 200 OK": the reason, if there is one, with bytes that httparse does not show.
    head.reason = Span::new("HTTP/1.1 200 ".len(), line_end.wrapping_sub(2));
    if seen.get(line_end.wrapping_sub(2)) != Some(&b'\r') {
        return Err(BROKEN.into());
    }
    head.headers.bytes.extend_from_slice(seen.get(..used).unwrap_or_default());
    let facts = fields(seen, used, line_end, found.headers, &mut head.headers, BROKEN)?;
    head.keep_alive = facts.keeps_alive(head.version);
    Ok(Parse::Done { used })
}

const BROKEN: Cause = Cause::BackendProtocol;

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
        return Err(BROKEN.into());
    }
    match other_version(seen) {
        OtherVersion::Unfinished => response_unfinished(seen, limits),
        OtherVersion::Minor => response(&as_http11(seen, 0), limits, head),
        OtherVersion::Major | OtherVersion::None => Err(BROKEN.into()),
    }
}

/// What the fields of a head say that is asked for right away.
#[derive(Default)]
struct Facts {
    hosts: u32,
    host: Span,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    /// An upgrade to something that would hide HTTP from us.
    upgrade_to_http: bool,
    expects_continue: bool,
    expects_other: bool,
    body: bool,
}

/// The fields that `Facts` is about.
const TELLING: NameSet = NameSet::of(&[
    Name::Connection,
    Name::ContentLength,
    Name::Expect,
    Name::Host,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// Fills the fields of a head of `used` bytes, whose lines begin at `line_end`.
fn fields(
    seen: &[u8],
    used: usize,
    line_end: usize,
    found: &[httparse::Header<'_>],
    headers: &mut Headers,
    broken: Cause,
) -> Result<Facts, Fault> {
    let mut facts = Facts::default();
    let mut all_end_well = true;
    headers.extend_fields(found.iter().map(|field| {
        let (name, value) = (field.name.as_bytes(), field.value);
        let name_start = offset(seen, name);
        let name_end = name_start + name.len();
        let value_start = offset(seen, value);
        let value_end = value_start + value.len();
        let ended = seen.get(value_end) == Some(&b'\r');
        all_end_well &= ended || ends_in_crlf_after_spaces(seen, value_end);
        let known = Name::of(name);
        let value_span = Span::new(value_start, value_end);
        if TELLING.contains(known) {
            facts.note(known, value, value_span);
        }
        let one_space = value_start == name_end + 2 && seen.get(name_end + 1) == Some(&b' ');
        Field {
            known,
            removed: false,
            canonical: ended && one_space,
            name: Span::new(name_start, name_end),
            value: value_span,
        }
    }));
    // The empty line at the end; httparse has seen its LF, and all fields lie between.
    debug_assert!(line_end < used);
    if !all_end_well || seen.get(used.wrapping_sub(2)) != Some(&b'\r') {
        return Err(broken.into());
    }
    Ok(facts)
}

/// Whether a line whose value has trailing whitespace ends as it should.
#[cold]
fn ends_in_crlf_after_spaces(seen: &[u8], value_end: usize) -> bool {
    let rest = seen.get(value_end..).unwrap_or_default();
    rest.iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'\r')
}

impl Facts {
    fn note(&mut self, known: Name, value: &[u8], span: Span) {
        if known == Name::Host {
            self.hosts += 1;
            self.host = span;
        } else if known == Name::Connection {
            for option in grammar::list(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            }
        } else if known == Name::Expect {
            for expectation in grammar::list(value) {
                let known = expectation.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_other |= !known;
            }
        } else if known == Name::Upgrade {
            for protocol in grammar::list(value) {
                self.upgrade = true;
                self.upgrade_to_http |= is_http_itself(protocol);
            }
        } else {
            // Whether the length makes sense is for `framing` to say.
            self.body |= known == Name::TransferEncoding || value != b"0";
        }
    }

    /// Whether the connection stays open after this message (RFC 9112 §9.3).
    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// Whether a protocol of Upgrade is HTTP or TLS: relaying these would carry requests past every
/// rule (`h2c` above all; RFC 9113 §3.1 has taken it back).
fn is_http_itself(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Sets what the fields of a request say about it as a whole.
fn request_facts(head: &mut RequestHead, facts: &Facts) -> Result<(), Fault> {
    let http11 = head.version == Version::Http11;
    // RFC 9112 §3.2: 400 to a request of HTTP/1.1 without Host, and to any with two or a bad one.
    let needed = u32::from(http11);
    if facts.hosts < needed || facts.hosts > 1 {
        return Err(Cause::BadRequest.into());
    }
    if facts.hosts == 1 {
        if !target::is_authority(head.bytes(facts.host)) {
            return Err(Cause::BadRequest.into());
        }
        // RFC 9112 §3.2.2: the authority of an absolute target wins over Host.
        if matches!(head.form, TargetForm::Origin | TargetForm::Asterisk) {
            head.authority = facts.host;
        }
    }
    // RFC 9110 §10.1.1: of HTTP/1.0 an expectation is ignored.
    if http11 && facts.expects_other {
        return Err(Cause::ExpectationFailed.into());
    }
    head.keep_alive = facts.keeps_alive(head.version);
    // RFC 9110 §10.1.1: a client has nothing to wait for where it sends no body.
    head.expects_continue = http11 && facts.expects_continue && facts.body;
    // RFC 9110 §7.8: of HTTP/1.0 an upgrade is ignored. With a body it would be unclear which
    // protocol the body belongs to, so such a request goes on without it.
    head.upgrade = http11
        && facts.connection_upgrade
        && facts.upgrade
        && !facts.upgrade_to_http
        && !facts.body;
    Ok(())
}

/// Reads the target, whose bytes stand in the head already, and sets its parts.
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

/// Gives an absolute target without a path the one that is sent on: `/`, or `*` for OPTIONS
/// without a query (RFC 9112 §3.2.1, §3.2.4). It is written behind the head's own bytes.
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

fn method_of(method: &[u8]) -> Method {
    match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"CONNECT" => Method::Connect,
        b"TRACE" => Method::Trace,
        _ => Method::Other, // methods are case-sensitive (RFC 9110 §9.1)
    }
}

/// Where `part` stands in `whole`, of which it is a piece.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 400, line_bytes_max: 100, fields_max: 8 };

    /// What `parse` makes of a head that comes whole, and, the same, byte by byte.
    #[track_caller]
    fn parsed<H>(
        input: &[u8],
        parse: impl Fn(&[u8], &mut H) -> Result<Parse, Fault>,
        mut head: H,
        show: impl Fn(&H) -> String,
    ) -> (Result<Parse, Fault>, H) {
        let mut outcome = Ok(Parse::More);
        for end in 0..=input.len() {
            outcome = parse(&input[..end], &mut head);
            if outcome != Ok(Parse::More) {
                break;
            }
        }
        let shown = show(&head);
        let whole = parse(input, &mut head);
        assert_eq!(outcome, whole, "byte by byte, and whole: {}", input.escape_ascii());
        if whole.is_ok() {
            assert_eq!(shown, show(&head), "{}", input.escape_ascii());
        }
        (whole, head)
    }

    #[track_caller]
    fn parsed_request(input: &[u8]) -> (Result<Parse, Fault>, RequestHead) {
        let parse = |input: &[u8], head: &mut RequestHead| request(input, &LIMITS, head);
        parsed(input, parse, RequestHead::default(), |head| format!("{head:?}"))
    }

    #[track_caller]
    fn parsed_response(input: &[u8]) -> (Result<Parse, Fault>, ResponseHead) {
        let parse = |input: &[u8], head: &mut ResponseHead| response(input, &LIMITS, head);
        parsed(input, parse, ResponseHead::default(), |head| format!("{head:?}"))
    }

    #[track_caller]
    fn accepts(input: &str) -> RequestHead {
        let (outcome, head) = parsed_request(input.as_bytes());
        assert_eq!(outcome, Ok(Parse::Done { used: input.len() }), "{}", input.escape_debug());
        head
    }

    #[track_caller]
    fn refuses(cause: Cause, input: impl AsRef<[u8]>) {
        let input = input.as_ref();
        let (outcome, _) = parsed_request(input);
        assert_eq!(outcome, Err(cause.into()), "{}", input.escape_ascii());
    }

    #[track_caller]
    fn accepts_response(input: impl AsRef<[u8]>) -> ResponseHead {
        let input = input.as_ref();
        let (outcome, head) = parsed_response(input);
        assert_eq!(outcome, Ok(Parse::Done { used: input.len() }), "{}", input.escape_ascii());
        head
    }

    #[track_caller]
    fn refuses_response(cause: Cause, input: impl AsRef<[u8]>) {
        let input = input.as_ref();
        let (outcome, _) = parsed_response(input);
        assert_eq!(outcome, Err(cause.into()), "{}", input.escape_ascii());
    }

    fn text(head: &RequestHead, span: Span) -> &str {
        std::str::from_utf8(head.bytes(span)).unwrap()
    }

    fn lines(headers: &Headers) -> Vec<(String, String, bool)> {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let line = |f: &Field| (text(headers.name(f)), text(headers.value(f)), f.canonical);
        headers.iter().map(line).collect()
    }

    #[test]
    fn a_request_is_its_method_its_target_and_its_fields_in_order() {
        let head = accepts("POST /a/b?c=d HTTP/1.1\r\nHost: h:80\r\nX: 1\r\nx: 2\r\n\r\n");
        assert_eq!(head.method, Method::Post);
        assert_eq!(text(&head, head.method_span), "POST");
        assert_eq!(text(&head, head.target), "/a/b?c=d");
        assert_eq!(text(&head, head.path), "/a/b");
        assert_eq!(text(&head, head.query), "c=d");
        assert_eq!(text(&head, head.authority), "h:80");
        assert_eq!((head.version, head.form), (Version::Http11, TargetForm::Origin));
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned(), true);
        assert_eq!(lines(&head.headers), [line("Host", "h:80"), line("X", "1"), line("x", "2")]);
        let known: Vec<Name> = head.headers.iter().map(|field| field.known).collect();
        assert_eq!(known, [Name::Host, Name::Other, Name::Other]);
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let mut head = RequestHead::default();
        let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET \0";
        assert_eq!(request(input, &LIMITS, &mut head), Ok(Parse::Done { used: 27 }));
        let mut head = ResponseHead::default();
        let input = b"HTTP/1.1 200 OK\r\n\r\n\n\n\0";
        assert_eq!(response(input, &LIMITS, &mut head), Ok(Parse::Done { used: 19 }));
    }

    #[test]
    fn one_leading_empty_line_is_forgiven_and_no_more() {
        let head = accepts("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(text(&head, head.method_span), "GET");
        assert_eq!(text(&head, head.target), "/");
        refuses(Cause::BadRequest, "\r\n\r\n");
        refuses(Cause::BadRequest, "\r\n\n");
        for start in ["\r\n\r\n", "\n", "\n\n", "\r\n\n", "\r\r\n", "\r", " ", "\r\n ", "\t"] {
            refuses(Cause::BadRequest, format!("{start}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }

    #[test]
    fn spaces_around_a_value_are_dropped_and_mark_its_line() {
        let head = accepts("GET / HTTP/1.1\r\nHost:a\r\nB:  b \t\r\nC: c\r\nD:\r\nE: \r\n\r\n");
        let line = |n: &str, v: &str, canonical| (n.to_owned(), v.to_owned(), canonical);
        let expected = [
            line("Host", "a", false),
            line("B", "b", false),
            line("C", "c", true),
            line("D", "", false),
            line("E", "", true),
        ];
        assert_eq!(lines(&head.headers), expected);
    }

    /// RFC 9112 §2.2, §3 and §5: everything that stands in the way of one reading of a head.
    #[test]
    fn a_request_that_can_be_read_in_two_ways_is_refused() {
        for input in [
            // §2.2: bare LF, bare CR, in every place.
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a \n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\rHost: a\r\r",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
            "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n",
            // §2.2: whitespace before the first field.
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
            // §3: one SP between the parts, none around them.
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET\r\n\r\n",
            "GET / \r\nHost: a\r\n\r\n",
            "GET HTTP/1.1\r\nHost: a\r\n\r\n",
            // §3.1: a method is a token.
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GÉT / HTTP/1.1\r\nHost: a\r\n\r\n",
            ": / HTTP/1.1\r\nHost: a\r\n\r\n",
            // §2.3: a version is a version.
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.\r\nHost: a\r\n\r\n",
            "GET / HTTP/11\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/x.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
            "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
            "GET / FTP/1.1\r\nHost: a\r\n\r\n",
            // §5.1: no whitespace before the colon, a name that is a token, and a colon.
            "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\x7f: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nXé: b\r\n\r\n",
            // §5.2: line folding.
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n c\r\n\r\n",
            // RFC 9110 §5.5: no NUL and no other control in a value.
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x0ba\r\n\r\n",
            // What is not HTTP at all.
            "\x16\x03\x01\x02\x00",
            "\0",
            "SSH-2.0-x\r\n",
        ] {
            refuses(Cause::BadRequest, input);
        }
    }

    /// RFC 9112 §3.2.
    #[test]
    fn host_is_there_once_and_valid() {
        for fields in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nX: b\r\nhost: c\r\n",
            "Host:\r\n",
            "Host: \r\n",
            "Host: a b\r\n",
            "Host: a, b\r\n",
            "Host: a/b\r\n",
            "Host: u@a\r\n",
            "Host: a:b\r\n",
            "Host: http://a\r\n",
            "Host: é\r\n",
            "Host: [::1\r\n",
        ] {
            refuses(Cause::BadRequest, format!("GET / HTTP/1.1\r\n{fields}\r\n"));
            // §3.2.2: an absolute target does not make up for it.
            refuses(Cause::BadRequest, format!("GET http://b/ HTTP/1.1\r\n{fields}\r\n"));
            if !fields.is_empty() {
                refuses(Cause::BadRequest, format!("GET / HTTP/1.0\r\n{fields}\r\n"));
            }
        }
        let head = accepts("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(text(&head, head.authority), "");
        let head = accepts("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert_eq!(text(&head, head.authority), "a");
    }

    /// RFC 9112 §3.2.1 to §3.2.4.
    #[test]
    fn a_target_is_taken_apart_by_its_form() {
        #[track_caller]
        fn check(line: &str, form: TargetForm, parts: [&str; 4]) {
            let head = accepts(&format!("{line} HTTP/1.1\r\nHost: host\r\n\r\n"));
            assert_eq!(head.form, form, "{line}");
            let spans = [head.authority, head.target, head.path, head.query];
            assert_eq!(spans.map(|span| text(&head, span)), parts, "{line}");
        }
        use TargetForm::{Absolute, Asterisk, Authority, Origin};
        check("GET /a?b", Origin, ["host", "/a?b", "/a", "b"]);
        check("GET /?", Origin, ["host", "/?", "/", ""]);
        check("OPTIONS *", Asterisk, ["host", "*", "*", ""]);
        check("GET http://a:1/b?c", Absolute, ["a:1", "/b?c", "/b", "c"]);
        check("GET hTTps://a", Absolute, ["a", "/", "/", ""]);
        check("GET http://a?b=c", Absolute, ["a", "/?b=c", "/", "b=c"]);
        check("OPTIONS http://a", Absolute, ["a", "*", "*", ""]);
        check("OPTIONS http://a/", Absolute, ["a", "/", "/", ""]);
        check("OPTIONS http://a?b", Absolute, ["a", "/?b", "/", "b"]);
        check("CONNECT a:443", Authority, ["a:443", "a:443", "", ""]);
        check("TRACE /", Origin, ["host", "/", "/", ""]);
        for line in ["GET *", "GET a:443", "CONNECT /", "GET http://u@a/", "GET /a#b", "GET /é"] {
            refuses(Cause::BadRequest, format!("{line} HTTP/1.1\r\nHost: host\r\n\r\n"));
        }
    }

    #[test]
    fn methods_are_told_apart_by_case() {
        #[track_caller]
        fn check(method: &str, expected: Method) {
            let head = accepts(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(head.method, expected);
            assert_eq!(text(&head, head.method_span), method);
        }
        check("GET", Method::Get);
        check("HEAD", Method::Head);
        check("POST", Method::Post);
        check("PUT", Method::Put);
        check("DELETE", Method::Delete);
        check("OPTIONS", Method::Options);
        check("PATCH", Method::Patch);
        check("TRACE", Method::Trace);
        check("get", Method::Other);
        check("PROPFIND", Method::Other);
        check("M-SEARCH", Method::Other);
    }

    /// RFC 9110 §2.5, §6.2.
    #[test]
    fn another_major_version_is_refused_and_a_later_minor_one_is_read_as_1_1() {
        for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
            refuses(Cause::VersionRefused, format!("GET / {version}\r\nHost: a\r\n\r\n"));
        }
        refuses(Cause::VersionRefused, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for minor in ["HTTP/1.2", "HTTP/1.9"] {
            let head = accepts(&format!("GET / {minor}\r\nHost: a\r\n\r\n"));
            assert_eq!(head.version, Version::Http11);
            let head = accepts_response(format!("{minor} 200 OK\r\n\r\n"));
            assert_eq!(head.version, Version::Http11);
        }
        refuses(Cause::BadRequest, "GET / HTTP/1.2\r\n\r\n");
        assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
    }

    fn request_line_of(bytes: usize) -> String {
        format!("GET /{} HTTP/1.1\r\n", "a".repeat(bytes - "GET / HTTP/1.1\r\n".len()))
    }

    #[test]
    fn a_request_line_up_to_its_limit_is_taken_and_one_beyond_is_414() {
        let max = LIMITS.line_bytes_max;
        accepts(&format!("{}Host: a\r\n\r\n", request_line_of(max)));
        accepts(&format!("\r\n{}Host: a\r\n\r\n", request_line_of(max)));
        refuses(Cause::UriTooLong, format!("{}Host: a\r\n\r\n", request_line_of(max + 1)));
        refuses(Cause::UriTooLong, format!("GET /{}", "a".repeat(max)));
        refuses(Cause::UriTooLong, "A".repeat(max));
        // What comes first is said first, however the bytes come.
        refuses(Cause::UriTooLong, format!("{}: bad\r\n\r\n", request_line_of(max + 1)));
        refuses(Cause::BadRequest, format!("G\0T /{}", "a".repeat(max)));
        refuses(Cause::UriTooLong, format!("GET /{} HTTP/2.0\r\n\r\n", "a".repeat(max)));
    }

    fn head_of(bytes: usize) -> String {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    }

    #[test]
    fn a_head_up_to_its_limit_is_taken_and_one_beyond_is_431() {
        let max = LIMITS.head_bytes_max;
        accepts(&head_of(max));
        refuses(Cause::HeadTooLarge, head_of(max + 1));
        refuses(Cause::HeadTooLarge, &head_of(max + 500)[..max]);
        let too_large =
            head_of(max + 1).replacen("GET / HTTP/1.1\r\nHost: a", "HTTP/1.1 200 OK", 1);
        let padding = max + 1 - too_large.len();
        let too_large = too_large.replacen('x', &"x".repeat(padding + 1), 1);
        refuses_response(Cause::ResponseHeadTooLarge, &too_large);
        accepts_response(too_large.replacen('x', "", 1));
    }

    #[test]
    fn as_many_fields_as_allowed_are_taken_and_one_more_is_431() {
        let fields = |count: usize| "X: y\r\n".repeat(count);
        let max = LIMITS.fields_max;
        accepts(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(max - 1)));
        let more = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(max));
        refuses(Cause::HeadTooLarge, &more);
        refuses(Cause::HeadTooLarge, &more[..more.len() - 2]);
        accepts_response(format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(max)));
        let more = format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(max + 1));
        refuses_response(Cause::ResponseHeadTooLarge, more);
        let limits = HeadLimits { fields_max: 1000, head_bytes_max: 1 << 20, ..LIMITS };
        let mut head = RequestHead::default();
        let head_of = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
        assert!(request(head_of(255).as_bytes(), &limits, &mut head).is_ok());
        let outcome = request(head_of(256).as_bytes(), &limits, &mut head);
        assert_eq!(outcome, Err(Cause::HeadTooLarge.into()));
    }

    /// RFC 9112 §9.3.
    #[test]
    fn a_connection_stays_open_unless_it_is_said_otherwise() {
        #[track_caller]
        fn check(version: &str, connection: &str, expected: bool) {
            let head = accepts(&format!("GET / {version}\r\nHost: a\r\n{connection}\r\n"));
            assert_eq!(head.keep_alive, expected, "{version} {connection}");
            let head = accepts_response(format!("{version} 200 OK\r\n{connection}\r\n"));
            assert_eq!(head.keep_alive, expected, "{version} {connection}");
        }
        check("HTTP/1.1", "", true);
        check("HTTP/1.1", "Connection: close\r\n", false);
        check("HTTP/1.1", "Connection: CLOSE\r\n", false);
        check("HTTP/1.1", "Connection: keep-alive, close\r\n", false);
        check("HTTP/1.1", "Connection: keep-alive\r\nConnection: x ,\tclose\r\n", false);
        check("HTTP/1.1", "Connection: closed\r\n", true);
        check("HTTP/1.0", "", false);
        check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
        check("HTTP/1.0", "Connection: keep-alive, close\r\n", false);
        check("HTTP/1.0", "Keep-Alive: timeout=5\r\n", false);
    }

    /// RFC 9110 §10.1.1.
    #[test]
    fn the_one_expectation_there_is_may_be_asked() {
        #[track_caller]
        fn check(version: &str, fields: &str, expected: bool) {
            let head = accepts(&format!("PUT / {version}\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(head.expects_continue, expected, "{version} {fields}");
        }
        check("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 1\r\n", true);
        check("HTTP/1.1", "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true);
        check("HTTP/1.1", "Expect: 100-continue\r\n", false);
        check("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false);
        check("HTTP/1.1", "Expect:\r\nContent-Length: 1\r\n", false);
        check("HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false);
        check("HTTP/1.0", "Expect: wonders\r\n", false);
        for other in ["wonders", "100-continue, wonders", "100", "100-continue;x=y"] {
            let input = format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: {other}\r\n\r\n");
            refuses(Cause::ExpectationFailed, input);
        }
    }

    /// RFC 9110 §7.8.
    #[test]
    fn an_upgrade_needs_both_fields_and_no_body_and_leads_out_of_http() {
        #[track_caller]
        fn check(version: &str, fields: &str, expected: bool) {
            let head = accepts(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(head.upgrade, expected, "{version} {fields}");
        }
        let both = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
        check("HTTP/1.1", both, true);
        check("HTTP/1.1", &format!("{both}Content-Length: 0\r\n"), true);
        check("HTTP/1.0", both, false);
        check("HTTP/1.1", "Connection: upgrade\r\n", false);
        check("HTTP/1.1", "Connection: upgrade\r\nUpgrade:\r\n", false);
        check("HTTP/1.1", "Upgrade: websocket\r\n", false);
        check("HTTP/1.1", &format!("{both}Content-Length: 1\r\n"), false);
        check("HTTP/1.1", &format!("{both}Transfer-Encoding: chunked\r\n"), false);
        for hidden in ["h2c", "H2C", "websocket, h2c", "TLS/1.0", "HTTP/2.0", "h2"] {
            check("HTTP/1.1", &format!("Connection: upgrade\r\nUpgrade: {hidden}\r\n"), false);
        }
    }

    #[test]
    fn a_response_is_its_status_its_reason_and_its_fields() {
        #[track_caller]
        fn check(line: &[u8], status: u16, version: Version, reason: &[u8]) {
            for fields in ["", "Server: x\r\n"] {
                let head = accepts_response([line, b"\r\n", fields.as_bytes(), b"\r\n"].concat());
                assert_eq!((head.status, head.version), (status, version));
                assert_eq!(head.reason.of(&head.headers.bytes), reason);
            }
        }
        check(b"HTTP/1.1 200 OK", 200, Version::Http11, b"OK");
        check(b"HTTP/1.0 404 Not Found", 404, Version::Http10, b"Not Found");
        check(b"HTTP/1.1 100 ", 100, Version::Http11, b"");
        check(b"HTTP/1.1 599", 599, Version::Http11, b"");
        check(b"HTTP/1.1 200 \xc3\xa9\tx ", 200, Version::Http11, b"\xc3\xa9\tx ");
        check(b"HTTP/1.1 200  OK", 200, Version::Http11, b" OK");
    }

    /// RFC 9112 §4 and §5: the same rules, but it is the backend's fault.
    #[test]
    fn a_response_that_breaks_the_protocol_is_refused() {
        for input in [
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\r\n",
            "HTTP/1.1 200 OK\r\n\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200\nA: b\r\n\r\n",
            "HTTP/1.1 200\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\n",
            "HTTP/1.1 200 OK\rA: b\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 O\x7fK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1\t200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 000 X\r\n\r\n",
            "HTTP/1.1 600 X\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/0.9 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/1 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "<html>",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        ] {
            refuses_response(Cause::BackendProtocol, input);
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_from_where_the_last_look_ended() {
        #[track_caller]
        fn check(input: &str, expected: Option<usize>) {
            let input = input.as_bytes();
            assert_eq!(complete(input, 0), expected);
            for end in 0..=input.len() {
                let first = complete(&input[..end], 0);
                let second = first.or_else(|| complete(input, end));
                assert_eq!(second, expected, "{} from {end}", input.escape_ascii());
            }
        }
        check("", None);
        check("\r\n", None);
        check("\r\n\r\n", Some(4));
        check("GET / HTTP/1.1\r\nA: b\r\n", None);
        check("GET / HTTP/1.1\r\nA: b\r\n\r", None);
        check("GET / HTTP/1.1\r\nA: b\r\n\r\n", Some(24));
        check("\r\nGET / HTTP/1.1\r\n\r\nbody\r\n\r\n", Some(20));
        check("GET / HTTP/1.1\n\nbody", Some(16));
        check("GET / HTTP/1.1\r\n\nbody", Some(17));
        check("GET / HTTP/1.1\n\r\nbody", Some(17));
        assert_eq!(complete(b"ab", 3), None);
    }

    #[test]
    fn a_head_used_again_keeps_its_room_and_nothing_else() {
        let mut head = RequestHead::default();
        let first = b"POST http://a/?b HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        request(first, &LIMITS, &mut head).unwrap();
        let room = (head.headers.bytes.capacity(), head.headers.fields.capacity());
        let second = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
        request(second, &LIMITS, &mut head).unwrap();
        assert_eq!(room, (head.headers.bytes.capacity(), head.headers.fields.capacity()));
        let mut fresh = RequestHead::default();
        request(second, &LIMITS, &mut fresh).unwrap();
        assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
    }
}
