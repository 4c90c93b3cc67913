//! Requests of HTTP/2 as the heads that HTTP/1 makes (RFC 9113 §8), strictly.
//!
//! Fields are written into the head as they are read, in the form in which they would be sent on.
//! A request that breaks a rule of §8 is malformed: nothing of it is answered or reaches a backend.
//! One that is only too large is a request, and refused like one.

use super::{
    hpack::{Decoder, Unreadable},
    stream::Priority,
};
use crate::base::base64url;
use crate::http::{
    chunks,
    fault::{Cause, Fault},
    grammar,
    head::{Method, RequestHead, Version},
    headers::{Headers, Span},
    names::{Name, NameSet},
    parse::{self, HeadLimits},
    words::{self, Word},
};
use crate::net::chance;

/// Room for what is read of a head, before it is in its place.
#[derive(Default)]
pub(super) struct Room {
    /// The values of the pseudo-fields, one after the other.
    pseudo: Vec<u8>,
    /// The crumbs of Cookie, joined.
    cookie: Vec<u8>,
}

/// Why a block gave no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The block cannot be read, nor anything behind it.
    Unreadable,
    /// It breaks a rule (RFC 9113 §8.1.1).
    Malformed,
    /// It is a request that is refused.
    Refused(Fault),
}

/// Fields that belong to a connection of HTTP/1 (RFC 9113 §8.2.2).
pub(super) const OF_CONNECTION: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// The pseudo-fields, as ranges of their room (RFC 9113 §8.3.1).
#[derive(Clone, Copy, Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
}

/// A head that is being read.
struct Reading<'a> {
    head: &'a mut RequestHead,
    room: &'a mut Room,
    limits: &'a HeadLimits,
    pseudo: Pseudo,
    /// Where the target lies in the head, once there are lines.
    target: Option<Span>,
    fields: usize,
    /// Bytes of the head, as HTTP/1 would count them.
    bytes: usize,
    wrong: Option<NoHead>,
    /// What it says of its priority, if anything.
    priority: Option<Priority>,
}

/// Reads the block of a request; returns the priority that it wants.
///
/// # Errors
/// If it gives none. The decoder has read it all the same.
pub(super) fn request(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
    (head, room): (&mut RequestHead, &mut Room),
) -> Result<Option<Priority>, NoHead> {
    head.clear();
    room.pseudo.clear();
    room.cookie.clear();
    head.version = Version::Http2;
    let mut reading = Reading {
        head,
        room,
        limits,
        pseudo: Pseudo::default(),
        target: None,
        fields: 0,
        bytes: 0,
        wrong: None,
        priority: None,
    };
    let read = decoder.read(block, |name, value| reading.field(name, value));
    read.map_err(|Unreadable| NoHead::Unreadable)?;
    reading.finish()
}

/// Reads the block of trailers. What is forbidden there is dropped, as everywhere (RFC 9110
/// §6.5.1).
///
/// # Errors
/// If they break a rule.
pub(super) fn trailers(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
) -> Result<Headers, NoHead> {
    let (mut trailers, mut bytes, mut fields, mut wrong) = (Headers::default(), 0, 0, None);
    let read = decoder.read(block, |name, value| {
        if wrong.is_some() {
            // What is behind is looked at no more, so that it costs nothing.
            return;
        }
        (bytes, fields) = (bytes + name.len() + value.len() + 4, fields + 1);
        if !is_field(name, value) || OF_CONNECTION.contains(Name::of(name)) {
            wrong = Some(NoHead::Malformed);
        } else if bytes > limits.head_bytes_max || fields > limits.fields_max {
            wrong = Some(NoHead::Refused(Cause::HeadTooLarge.into()));
        } else if chunks::may_trail(name) {
            trailers.push(Name::of(name), name, value);
        }
    });
    read.map_err(|Unreadable| NoHead::Unreadable)?;
    wrong.map_or(Ok(trailers), Err)
}

/// Whether name and value are those of a field (RFC 9113 §8.2.1).
pub(super) fn is_field(name: &[u8], value: &[u8]) -> bool {
    let is_outer = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_plain = words::first(name, Word::neither_small_nor_dash).is_none();
    let is_name = || grammar::is_token(name) && !name.iter().any(u8::is_ascii_uppercase);
    let is_text = words::first_far(value, Word::control).is_none();
    let is_value = || value.iter().all(|byte| grammar::is_value_byte(*byte));
    // Most are found plain, eight bytes at a time.
    ((is_plain && !name.is_empty()) || is_name())
        && (is_text || is_value())
        && !is_outer(value.first())
        && !is_outer(value.last())
}

impl Room {
    /// Whether it has not grown beyond so many bytes.
    pub(super) fn is_small(&self, bytes: usize) -> bool {
        self.pseudo.capacity() <= bytes && self.cookie.capacity() <= bytes
    }
}

impl Reading<'_> {
    fn malformed(&mut self) {
        self.wrong = Some(NoHead::Malformed);
    }

    fn refuse(&mut self, cause: Cause) {
        self.wrong.get_or_insert(NoHead::Refused(cause.into()));
    }

    /// Takes the next field.
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.bytes += name.len() + value.len() + 4;
        if self.bytes > self.limits.head_bytes_max {
            // What is beyond is looked at no more, so that it costs nothing.
            return self.refuse(Cause::HeadTooLarge);
        }
        if self.wrong.is_some() {
            return;
        }
        if name.first() == Some(&b':') {
            return self.pseudo_field(name, value);
        }
        if self.target.is_none() {
            self.begin_lines();
        }
        if !is_field(name, value) {
            return self.malformed();
        }
        let known = Name::of(name);
        match known {
            known if OF_CONNECTION.contains(known) => self.malformed(),
            // RFC 9113 §8.2.2.
            Name::Te if value != b"trailers" => self.malformed(),
            Name::Host => self.host(value),
            // RFC 9113 §8.2.3.
            Name::Cookie => {
                if !self.room.cookie.is_empty() {
                    self.room.cookie.extend_from_slice(b"; ");
                }
                self.room.cookie.extend_from_slice(value);
            }
            // Of HTTP/1's handshake (RFC 8441 §5): ours.
            Name::Other if name == b"sec-websocket-key" => {}
            _ => {
                self.fields += 1;
                if self.fields > self.limits.fields_max {
                    return self.refuse(Cause::HeadTooLarge);
                }
                if name == b"priority" {
                    self.priority.get_or_insert_with(|| Priority::of(value));
                }
                self.head.headers.push(known, name, value);
            }
        }
    }

    /// Takes a pseudo-field: before all fields, each at most once, and no other.
    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) {
        let start = self.room.pseudo.len();
        self.room.pseudo.extend_from_slice(value);
        let span = Span::new(start, self.room.pseudo.len());
        let Pseudo { method, scheme, authority, path, protocol } = &mut self.pseudo;
        let place = match name {
            b":method" => method,
            b":scheme" => scheme,
            b":authority" => authority,
            b":path" => path,
            // RFC 8441 §4.
            b":protocol" => protocol,
            _ => return self.malformed(),
        };
        if self.target.is_some() || place.replace(span).is_some() {
            self.malformed();
        }
    }

    /// All pseudo-fields have come: writes the first lines.
    fn begin_lines(&mut self) {
        let Pseudo { method, scheme, authority, path, protocol } = self.pseudo;
        let value = |of: Option<Span>| of.map(|span| span.of(&self.room.pseudo));
        let method = value(method).unwrap_or_default();
        let is_connect = method == b"CONNECT";
        if is_connect && protocol.is_none() {
            self.target = Some(Span::default());
            self.head.method = Method::Connect;
            return self.refuse(Cause::MethodRefused);
        }
        let is_websocket = value(protocol) == Some(b"websocket");
        // What asks for another protocol is to HTTP/1 an upgrade.
        let method = if is_connect { b"GET" } else { method };
        let (scheme, path) = (value(scheme), value(path).unwrap_or_default());
        let is_sound = grammar::is_token(method)
            && matches!(scheme, Some(b"http" | b"https"))
            && (path.first() == Some(&b'/') || (path == b"*" && method == b"OPTIONS"));
        let is_long = method.len() + path.len() + " HTTP/1.1\r\n".len() + 1;
        let is_long = is_long > self.limits.line_bytes_max;
        let bytes = &mut self.head.headers.bytes;
        let (method_at, path_at) = (Span::new(0, method.len()), method.len() + 1);
        self.head.method = Method::of(method);
        self.head.method_span = method_at;
        bytes.extend_from_slice(method);
        bytes.push(b' ');
        bytes.extend_from_slice(path);
        self.target = Some(Span::new(path_at, bytes.len()));
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            let authority = authority.of(&self.room.pseudo);
            self.head.headers.push(Name::Host, b"host", authority);
        }
        if is_websocket {
            self.head.headers.push(Name::Connection, b"connection", b"upgrade");
            self.head.headers.push(Name::Upgrade, b"upgrade", b"websocket");
            self.head.headers.push_with(Name::Other, b"sec-websocket-key", push_key);
        }
        if !is_sound || protocol.is_some() != is_connect {
            self.malformed();
        } else if protocol.is_some() && !is_websocket {
            self.refuse(Cause::NotImplemented);
        } else if is_long {
            self.refuse(Cause::UriTooLong);
        }
    }

    /// RFC 9113 §8.3.1: Host says the same as `:authority`, or stands for it.
    fn host(&mut self, value: &[u8]) {
        match self.head.headers.first(Name::Host) {
            None => self.head.headers.push(Name::Host, b"host", value),
            Some(host) if host.eq_ignore_ascii_case(value) => {}
            Some(_) => self.malformed(),
        }
    }

    fn finish(mut self) -> Result<Option<Priority>, NoHead> {
        if self.target.is_none() {
            self.begin_lines();
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if !self.room.cookie.is_empty() {
            self.head.headers.push(Name::Cookie, b"cookie", &self.room.cookie);
        }
        let target = self.target.unwrap_or_default();
        parse::settle(self.head, target).map_err(|fault| match fault.cause {
            Cause::BadRequest => NoHead::Malformed,
            _ => NoHead::Refused(fault),
        })?;
        Ok(self.priority)
    }
}

/// Appends the nonce of a handshake of HTTP/1 (RFC 6455 §4.1), which HTTP/2 has no use for.
fn push_key(out: &mut Vec<u8>) {
    let nonce = [chance::drawn().to_be_bytes(), chance::drawn().to_be_bytes()];
    let mut field = Vec::with_capacity(26);
    base64url::encode_for_field(nonce.as_flattened(), &mut field);
    out.extend(field.iter().filter(|letter| **letter != b':'));
}
