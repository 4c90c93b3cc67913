//! Heads of requests as blocks of fields (RFC 9113 §8.3.1).
//!
//! A head has been rewritten for backends by `http::forward`, as for HTTP/1: what only a connection
//! of HTTP/1 has is left out here. An upgrade to a WebSocket becomes a CONNECT (RFC 8441 §4).

use super::{hpack, response::OF_CONNECTION};
use crate::http::{
    framing::BodyLength,
    grammar,
    head::Method,
    headers::Headers,
    names::{Name, NameSet},
};
use crate::proto;

/// Fields that are pseudo-fields here, or are written from what is known.
const ELSEWHERE: NameSet = NameSet::of(&[Name::Host, Name::ContentLength, Name::Te]);

/// Whether a head asks for a WebSocket, and for nothing else (RFC 6455 §4.1).
pub(super) fn asks_for_websocket(asking: &proto::Asking<'_>) -> bool {
    let head = asking.head;
    let mut wanted = head.headers.all(Name::Upgrade).flat_map(grammar::list);
    head.upgrade
        && head.method == Method::Get
        && asking.length == BodyLength::None
        && wanted.next().is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
        && wanted.next().is_none()
}

/// Writes the head of a request; one that asks for a WebSocket as a CONNECT, if `connects`.
pub(super) fn request(
    asking: &proto::Asking<'_>,
    (scheme, connects): (&[u8], bool),
    block: &mut Vec<u8>,
) {
    let head = asking.head;
    let headers = &head.headers;
    block.clear();
    if connects {
        hpack::pseudo(hpack::Pseudo::Method, b"CONNECT", block);
        hpack::field(b":protocol", b"websocket", block);
    } else {
        hpack::pseudo(hpack::Pseudo::Method, head.bytes(head.method_span), block);
    }
    hpack::pseudo(hpack::Pseudo::Scheme, scheme, block);
    let authority = asking.host.unwrap_or_else(|| head.bytes(head.authority));
    hpack::pseudo(hpack::Pseudo::Authority, authority, block);
    hpack::pseudo(hpack::Pseudo::Path, head.bytes(head.target), block);
    for field in headers.iter() {
        if OF_CONNECTION.contains(field.known) || ELSEWHERE.contains(field.known) {
            continue;
        }
        let name = headers.name(field);
        // Of the handshake of HTTP/1 (RFC 8441 §5).
        let is_spent =
            field.known == Name::Other && name.eq_ignore_ascii_case(b"sec-websocket-key");
        if !is_spent {
            hpack::field(name, headers.value(field), block);
        }
    }
    if headers.contains(Name::Te) {
        // All that `forward` leaves of it (RFC 9113 §8.2.2).
        hpack::field(b"te", b"trailers", block);
    }
    own_lines(headers, block);
    if let BodyLength::Fixed(length) = asking.length {
        hpack::length(length, block);
    }
}

/// The lines of our own behind the fields.
fn own_lines(headers: &Headers, block: &mut Vec<u8>) {
    let mut lines = headers.own_lines.of(&headers.bytes);
    // Each is `name: value` and CRLF.
    while let Some(colon) = memchr::memchr(b':', lines)
        && let Some(value) = lines.get(colon + 2..)
        && let Some(end) = memchr::memchr(b'\r', value)
    {
        hpack::field(
            lines.get(..colon).unwrap_or_default(),
            value.get(..end).unwrap_or_default(),
            block,
        );
        lines = value.get(end + 2..).unwrap_or_default();
    }
}
