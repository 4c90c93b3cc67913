//! Heads of answers as blocks of fields (RFC 9113 §8.3.2).

use super::hpack;
use crate::http::{
    framing::BodyLength,
    headers::Headers,
    names::{Name, NameSet},
};

/// Fields that belong to a connection of HTTP/1 and may still be in an answer.
pub(super) const OF_CONNECTION: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// Writes the head of an answer whose body has this length.
pub(super) fn head((status, headers): (u16, &Headers), length: BodyLength, block: &mut Vec<u8>) {
    block.clear();
    hpack::status(status, block);
    fields(headers, block);
    match length {
        BodyLength::Fixed(length) => hpack::length(length, block),
        BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
}

/// Appends fields, but for those of a connection.
pub(super) fn fields(headers: &Headers, block: &mut Vec<u8>) {
    for field in headers.iter().filter(|field| !OF_CONNECTION.contains(field.known)) {
        let name = headers.name(field);
        // Of the handshake of HTTP/1 (RFC 8441 §5).
        let is_spent =
            field.known == Name::Other && name.eq_ignore_ascii_case(b"sec-websocket-accept");
        if !is_spent {
            hpack::field(name, headers.value(field), block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_connection_of_http_1_is_in_a_block() {
        let mut answer = crate::http::head::ResponseHead::default();
        answer.headers.push(Name::Connection, b"Connection", b"close");
        answer.headers.push(Name::TransferEncoding, b"Transfer-Encoding", b"chunked");
        answer.headers.push(Name::Upgrade, b"Upgrade", b"x");
        answer.headers.push(Name::Other, b"X-Own", b"yes");
        let mut block = vec![1];
        head((200, &answer.headers), BodyLength::Fixed(12), &mut block);
        let mut read = Vec::new();
        hpack::Decoder::default()
            .read(&block, |name, value| read.push((name.to_vec(), value.to_vec())))
            .unwrap();
        let text = |text: &str| text.as_bytes().to_vec();
        let expected = [(":status", "200"), ("x-own", "yes"), ("content-length", "12")]
            .map(|(name, value)| (text(name), text(value)));
        assert_eq!(read, expected);
    }
}
