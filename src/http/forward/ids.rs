//! The id of a request and of its trace, as backends are told them.
//!
//! A trace that a client has begun is continued, with a parent id of ours (W3C Trace Context, level
//! 1): its sampled flag and its `tracestate` stay. Where there is none, or what came is not sound,
//! one begins here, and then no `tracestate` goes with it. The id of a new trace is the request's
//! own id in hexadecimal digits, and our place in it their second half, as B3 has it for the span
//! that begins a trace. `X-Request-Id` is ours too, unless a trusted proxy has given one.
//!
//! Both lines are kept as text. From one request to the next on a core only the last forty bits
//! differ, unless a millisecond has passed, so that only their digits are written.

use crate::base::{moment::UnixMillis, rng::Rng, spell};
use crate::http::{
    headers::{Field, Headers, Span},
    names::{Name, NameSet},
};

/// The longest id that is taken from a trusted proxy. Those in use have 20 to 64 characters.
pub(crate) const ID_BYTES_MAX: usize = 128;

/// What is made for a request, to be used where it brings nothing of the kind; one for all requests
/// of a core.
#[derive(Clone, Debug)]
pub(crate) struct MadeIds {
    /// The id of the last request: 48 bits of time, 40 that are drawn for each millisecond, and 40
    /// that differ among the requests of one.
    id: u128,
    /// The time in it; none = it is not ours to go on from.
    at: Option<UnixMillis>,
    lines: [u8; LINES_BYTES],
}

/// The bits that differ from one request to the next.
const OWN_BITS: u32 = 40;
const OWN: u128 = (1 << OWN_BITS) - 1;

/// From one to the next, modulo their number: odd, so that all come before one comes again, and far
/// from a round part of it, so that neighbours look different (the golden ratio, as Knuth has it).
const STEP: u128 = 0x9e_3779_b97f;

impl MadeIds {
    /// Those of this id.
    #[cfg(test)]
    pub(crate) fn of(id: u128) -> MadeIds {
        let mut made = MadeIds::default();
        made.spell(id);
        made
    }

    /// Makes the next id, at this time.
    #[inline]
    pub(crate) fn make(&mut self, at: UnixMillis, rng: &mut Rng) -> u128 {
        if self.at != Some(at) {
            return self.begin(at, rng);
        }
        let own = self.id.wrapping_add(STEP) & OWN;
        self.id = self.id & !OWN | own;
        put(&mut self.lines, REQUEST_AT + 18, &spell::base32_8(own as u64));
        let (high, low) = (spell::hex([(own >> 32) as u8]), spell::hex8(own as u32));
        for end in [TRACE_AT + ID_AT + 32, TRACE_AT + PARENT_AT + 16] {
            put(&mut self.lines, end - 10, high.as_flattened());
            put(&mut self.lines, end - 8, &low);
        }
        self.id
    }

    /// The first id of a millisecond.
    fn begin(&mut self, at: UnixMillis, rng: &mut Rng) -> u128 {
        // One of the upper bits is set, so that our place in a trace is never zero.
        let chance = u128::from(rng.next() & 0xffff) << 64 | u128::from(rng.next());
        self.spell(u128::from(at.0) << 80 | chance | 1 << OWN_BITS);
        self.at = Some(at);
        self.id
    }

    /// Takes this id, all of it.
    pub(crate) fn spell(&mut self, id: u128) {
        (self.id, self.at) = (id, None);
        put(&mut self.lines, REQUEST_AT, &spell::base32(id));
        let parent = (id as u64).max(1);
        let words = [(id >> 64) as u64, id as u64, parent];
        let places = [TRACE_AT + ID_AT, TRACE_AT + ID_AT + 16, TRACE_AT + PARENT_AT];
        for (word, at) in words.into_iter().zip(places) {
            put(&mut self.lines, at, &spell::hex8((word >> 32) as u32));
            put(&mut self.lines, at + 8, &spell::hex8(word as u32));
        }
    }
}

impl Default for MadeIds {
    /// None has been made.
    fn default() -> MadeIds {
        MadeIds { id: 0, at: None, lines: *LINES }
    }
}

/// A trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// Its id, 32 digits.
    id: Span,
    /// Its flags, two digits.
    flags: [u8; 2],
}

/// Which of the ids that came stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stay {
    pub(super) trace: Option<Trace>,
    pub(super) request: bool,
}

impl Stay {
    /// Of what this head brings, of a peer that is trusted or not.
    #[inline]
    pub(super) fn of(headers: &Headers, is_trusted: bool) -> Stay {
        const ANY: NameSet = NameSet::of(&[Name::Traceparent, Name::XRequestId]);
        if headers.may_have(ANY) {
            Stay { trace: trace(headers), request: is_trusted && given_id(headers).is_some() }
        } else {
            Stay::default()
        }
    }

    /// The fields that do not.
    #[inline]
    pub(super) fn dropped(self) -> NameSet {
        let mut dropped = NameSet::of(&[Name::Traceparent]);
        if self.trace.is_none() {
            dropped = dropped.with(Name::Tracestate);
        }
        if self.request { dropped } else { dropped.with(Name::XRequestId) }
    }
}

/// The id that a request brings, for those who believe it: one, of characters that stand for
/// themselves everywhere.
pub(crate) fn given_id(headers: &Headers) -> Option<&[u8]> {
    let mut ids = headers.all(Name::XRequestId);
    let (Some(id), None) = (ids.next(), ids.next()) else { return None };
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (!id.is_empty() && id.len() <= ID_BYTES_MAX && id.iter().all(is_plain)).then_some(id)
}

/// The id of the trace that a request brings, if that is sound.
pub(crate) fn trace_id(headers: &Headers) -> Option<Span> {
    trace(headers).map(|trace| trace.id)
}

/// The trace that a request brings: of one sound `traceparent`; of several none is believed.
fn trace(headers: &Headers) -> Option<Trace> {
    if !headers.may_have(NameSet::of(&[Name::Traceparent])) {
        return None;
    }
    let is_parent = |field: &&Field| field.known == Name::Traceparent;
    let mut lines = headers.iter().filter(is_parent);
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let flags = flags_of(headers.value(line))?;
    let start = line.value.start as usize + ID_AT;
    Some(Trace { id: Span::new(start, start + 32), flags })
}

/// `00-` and the ids of trace and parent, with a dash after each: where they begin.
const ID_AT: usize = 3;
const PARENT_AT: usize = 36;
const FLAGS_AT: usize = 53;
const PARENT_BYTES: usize = 55;

/// The flags of a sound `traceparent`: of version 00, or of a later one that begins as 00 does
/// (W3C Trace Context §3.2 and §4.3). Those that we do not know are zero from here on.
fn flags_of(value: &[u8]) -> Option<[u8; 2]> {
    let (known, rest) = value.split_at_checked(PARENT_BYTES)?;
    let digits = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| digits(part) && part.iter().any(|byte| *byte != b'0');
    let mut parts = known.split(|byte| *byte == b'-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
    let is_whole = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => digits(version) && matches!(rest, [] | [b'-', ..]),
    };
    if lengths != [2, 32, 16, 2] || !is_whole || !is_id(trace) || !is_id(parent) || !digits(flags) {
        return None;
    }
    // Sampled, and that the id is random (level 2): both are said of what we pass on.
    let value = flags.last().map(|digit| (digit & 15) + if digit.is_ascii_digit() { 0 } else { 9 });
    Some([b'0', b'0' + (value? & 3)])
}

/// Both fields, where nothing has come.
const LINES: &[u8; LINES_BYTES] = b"x-request-id: 01ARYZ6S410000000000000000\r\n\
    traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n";
const LINES_BYTES: usize = 112;
const REQUEST_AT: usize = 14;
const TRACE_AT: usize = 42 + 13;

/// Appends the lines for what does not stay, and for the trace.
#[inline]
pub(super) fn tell(bytes: &mut Vec<u8>, made: &MadeIds, stay: Stay) {
    if stay.request || stay.trace.is_some() {
        return tell_some(bytes, made, stay);
    }
    bytes.extend_from_slice(&made.lines);
}

#[inline]
fn put(lines: &mut [u8; LINES_BYTES], at: usize, text: &[u8]) {
    if let Some(place) = lines.get_mut(at..at + text.len()) {
        place.copy_from_slice(text);
    }
}

#[cold]
fn tell_some(bytes: &mut Vec<u8>, made: &MadeIds, stay: Stay) {
    let mut lines = made.lines;
    if let Some(Trace { id, flags }) = stay.trace {
        put(&mut lines, TRACE_AT + ID_AT, id.of(bytes));
        put(&mut lines, TRACE_AT + FLAGS_AT, &flags);
    }
    let from = if stay.request { REQUEST_AT + 28 } else { 0 };
    bytes.extend_from_slice(lines.get(from..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tests::parsed;
    use super::*;

    const ID: u128 = 0xabc << 116 | 7;
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    /// The values of these two fields as a backend gets them.
    fn told(fields: &str, is_trusted: bool) -> (String, String) {
        let mut head = parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let stay = Stay::of(&head.headers, is_trusted);
        let start = head.headers.bytes.len();
        tell(&mut head.headers.bytes, &MadeIds::of(ID), stay);
        let lines = str::from_utf8(&head.headers.bytes[start..]).unwrap();
        let kept = given_id(&head.headers).filter(|_| stay.request).unwrap_or_default();
        let value = |name: &str| {
            let line = lines.split("\r\n").find_map(|line| line.strip_prefix(name));
            line.map_or_else(|| String::from_utf8(kept.to_vec()).unwrap(), str::to_owned)
        };
        (value("x-request-id: "), value("traceparent: "))
    }

    fn traced(value: &str) -> String {
        told(&format!("traceparent: {value}\r\n"), false).1
    }

    const NEW: &str = "00-abc00000000000000000000000000007-0000000000000007-01";

    /// Whatever they are made from, both lines say the id that is told to the log.
    #[test]
    fn ids_differ_and_the_lines_say_them() {
        let (mut rng, mut made) = (Rng::seeded(1), MadeIds::of(ID));
        let (mut ids, mut places) = (HashSet::new(), HashSet::new());
        for request in 0..100_000 {
            if request % 10_000 == 5_000 {
                made.spell(u128::from(rng.next()));
            }
            let at = 1_700_000_000_000 + request / 1_000;
            let id = made.make(UnixMillis(at), &mut rng);
            assert_eq!(id >> 80, u128::from(at));
            assert!(ids.insert(id) && places.insert(id as u64) && id as u64 != 0);
            let text = spell::base32(id);
            let expected = format!(
                "x-request-id: {}\r\ntraceparent: 00-{id:032x}-{:016x}-01\r\n",
                str::from_utf8(&text).unwrap(),
                id as u64
            );
            assert_eq!(str::from_utf8(&made.lines).unwrap(), expected);
        }
    }

    #[test]
    fn ids_are_made_where_none_came() {
        let (id, trace) = told("", false);
        assert_eq!((&*id, &*trace), ("5BR00000000000000000000007", NEW));
        assert_eq!(told("", true), (id, trace));
    }

    /// W3C Trace Context §3.2 and §4.
    #[test]
    fn a_sound_trace_goes_on_with_our_parent_and_its_flag() {
        for (flags, expected) in
            [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("fa", "02"), ("0c", "00")]
        {
            let expected = format!("00-{TRACE}-0000000000000007-{expected}");
            assert_eq!(traced(&format!("00-{TRACE}-b7ad6b7169203331-{flags}")), expected);
            let later = format!("cc-{TRACE}-b7ad6b7169203331-{flags}");
            assert_eq!(traced(&later), expected);
            assert_eq!(traced(&format!("{later}-what-the-future-will-be-like")), expected);
        }
    }

    #[test]
    fn what_is_not_sound_is_replaced() {
        for value in [
            "",
            "00",
            &format!("00-{TRACE}-b7ad6b7169203331"),
            &format!("00-{TRACE}-b7ad6b7169203331-"),
            &format!("00-{TRACE}-b7ad6b7169203331-1"),
            &format!("00-{TRACE}-b7ad6b7169203331-01-"),
            &format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            &format!("cc-{TRACE}-b7ad6b7169203331-01more"),
            &format!("cc-{TRACE}-b7ad6b7169203331-01."),
            &format!("ff-{TRACE}-b7ad6b7169203331-01"),
            &format!("0-{TRACE}-b7ad6b7169203331-011"),
            &format!("0G-{TRACE}-b7ad6b7169203331-01"),
            &format!("00-{TRACE}-b7ad6b7169203331-0x"),
            &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            &format!("00-{}.-b7ad6b7169203331-01", &TRACE[1..]),
            &format!("00-{}-b7ad6b7169203331-001", &TRACE[1..]),
            &format!("00_{TRACE}_b7ad6b7169203331_01"),
            &format!("00-{TRACE}-b7ad6b716920333--01"),
        ] {
            assert_eq!(traced(value), NEW, "{value}");
        }
        let twice = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n").repeat(2);
        assert_eq!(told(&twice, true).1, NEW);
    }

    #[test]
    fn an_id_is_taken_of_trusted_peers_alone_and_only_if_it_is_plain() {
        let given = |id: &str, trusted| told(&format!("X-Request-Id: {id}\r\n"), trusted).0;
        for id in ["a", "7f1c-9", "Root=1-67891233-abcdef", &"x".repeat(ID_BYTES_MAX)] {
            assert_eq!(given(id, true), id);
            assert_eq!(given(id, false), "5BR00000000000000000000007");
        }
        for id in ["", "a b", "a\"", "\\", "ä", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(given(id, true), "5BR00000000000000000000007", "{id}");
        }
        let two = "X-Request-Id: a\r\nX-Request-Id: b\r\n";
        assert_eq!(told(two, true).0, "5BR00000000000000000000007");
    }

    #[test]
    fn places_in_the_lines_are_where_they_should_be() {
        let parsed =
            parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", str::from_utf8(LINES).unwrap()));
        let first = |name| str::from_utf8(parsed.headers.first(name).unwrap()).unwrap();
        assert_eq!(first(Name::XRequestId).len(), 26);
        assert_eq!(first(Name::Traceparent).len(), PARENT_BYTES);
        assert!(LINES[TRACE_AT..].starts_with(b"00-0"));
    }
}
