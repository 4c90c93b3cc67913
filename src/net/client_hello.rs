//! The first message of a TLS client, read without decrypting: a pure function of bytes.
//!
//! It names the host that the client wants and the protocols that it speaks (RFC 6066 §3, RFC
//! 7301), which is enough to choose a pool; the bytes then go to the backend as they came. They may
//! come in any number of segments and of TLS records. What is no such message, or a malformed one,
//! is no fault here: the backend answers it. With Encrypted Client Hello the name is that of the
//! server in front of the one that is meant, and browsers send an extension of that kind in any
//! case.

use std::ops::Range;

/// The longest message that is read: with keys that resist quantum computers there are some 2 KiB.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// What is kept of a connection until the message is whole, with the heads of its records. A record
/// of one byte would be six.
pub(crate) const BYTES_MAX: usize = 24 << 10;

/// Of a record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
const RECORD_HEAD_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 16 << 10;

/// Of the message (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEAD_BYTES: usize = 4;

/// Of extensions.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The kind of name that is a host's.
const HOST_NAME: u8 = 0;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The host, as it was written; none if it names none.
    pub(crate) name: Option<Box<[u8]>>,
    /// The protocols, the one it likes most first.
    pub(crate) alpn: Vec<Box<[u8]>>,
}

/// What came of parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A beginning.
    More,
    Hello(ClientHello),
    /// Something else, or too long.
    Other,
}

/// Parses the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    match message(bytes) {
        Gathered::Whole(message) => hello(&message).map_or(Parsed::Other, Parsed::Hello),
        Gathered::More if bytes.len() < BYTES_MAX => Parsed::More,
        Gathered::More | Gathered::Other => Parsed::Other,
    }
}

enum Gathered {
    More,
    Whole(Vec<u8>),
    Other,
}

/// The body of the message, gathered from its records.
fn message(mut bytes: &[u8]) -> Gathered {
    let mut message = Vec::new();
    loop {
        // Whatever there is of a head says whether it can be one.
        if bytes.first().is_some_and(|kind| *kind != HANDSHAKE)
            || bytes.get(1).is_some_and(|major| *major != 3)
        {
            return Gathered::Other;
        }
        let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()
        else {
            return Gathered::More;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 || len > RECORD_BYTES_MAX {
            return Gathered::Other;
        }
        message.extend_from_slice(rest.get(..len).unwrap_or(rest));
        match whole(&message) {
            Err(()) => return Gathered::Other,
            Ok(Some(body)) => {
                message.truncate(body.end);
                message.drain(..body.start);
                return Gathered::Whole(message);
            }
            Ok(None) => {}
        }
        let Some(next) = rest.get(len..) else { return Gathered::More };
        bytes = next;
    }
}

/// Where the body of the message lies, once it is whole.
fn whole(message: &[u8]) -> Result<Option<Range<usize>>, ()> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(());
    }
    let Some(&[_, a, b, c]) = message.first_chunk::<MESSAGE_HEAD_BYTES>() else { return Ok(None) };
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(());
    }
    let end = MESSAGE_HEAD_BYTES + len;
    Ok((message.len() >= end).then_some(MESSAGE_HEAD_BYTES..end))
}

/// Reads the message (RFC 8446 §4.1.2); none if it is malformed.
fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut rest = Reading(body);
    rest.take(2 + 32)?; // version and random
    rest.list8()?; // session
    rest.list16()?; // suites
    rest.list8()?; // compression
    let mut found = ClientHello::default();
    if rest.0.is_empty() {
        return Some(found);
    }
    let mut extensions = rest.list16()?;
    if !rest.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.list16()?;
        match kind {
            SERVER_NAME if found.name.is_none() => found.name = Some(host(content)?),
            ALPN if found.alpn.is_empty() => found.alpn = protocols(content)?,
            // Twice: two readers would take two of them.
            SERVER_NAME | ALPN => return None,
            _ => {}
        }
    }
    Some(found)
}

/// The host of a list of names, of which there is one.
fn host(mut content: Reading<'_>) -> Option<Box<[u8]>> {
    let mut names = content.list16()?;
    let kind = names.take(1)?;
    let name = names.list16()?;
    let is_one = content.0.is_empty() && names.0.is_empty() && kind == [HOST_NAME];
    (is_one && !name.0.is_empty()).then(|| name.0.into())
}

fn protocols(mut content: Reading<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut list = content.list16()?;
    let mut all = Vec::new();
    while !list.0.is_empty() {
        let one = list.list8()?.0;
        (!one.is_empty()).then(|| all.push(one.into()))?;
    }
    (content.0.is_empty() && !all.is_empty()).then_some(all)
}

/// What is left of a message.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let two = self.take(2)?;
        Some(u16::from_be_bytes(two.try_into().ok()?))
    }

    /// What is behind its length in one byte.
    fn list8(&mut self) -> Option<Reading<'a>> {
        let len = *self.take(1)?.first()?;
        self.take(usize::from(len)).map(Reading)
    }

    /// The same, in two bytes.
    fn list16(&mut self) -> Option<Reading<'a>> {
        let len = self.number()?;
        self.take(usize::from(len)).map(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn list8(content: &[u8]) -> Vec<u8> {
        [&[content.len() as u8], content].concat()
    }

    fn list16(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &list16(content)].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &list16(&[&[HOST_NAME], &list16(name.as_bytes())[..]].concat()))
    }

    fn speaks(protocols: &[&str]) -> Vec<u8> {
        let all: Vec<u8> = protocols.iter().flat_map(|one| list8(one.as_bytes())).collect();
        extension(ALPN, &list16(&all))
    }

    /// A message with these extensions, in records of so many bytes.
    fn sent(extensions: &[u8], record_bytes: usize) -> Vec<u8> {
        let body = [&[3, 3][..], &[7; 32], &list8(&[1; 32]), &list16(&[0x13, 1]), &list8(&[0])];
        records(&message([&body.concat(), &list16(extensions)[..]].concat()), record_bytes)
    }

    fn message(body: Vec<u8>) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO], &len[1..], &body].concat()
    }

    fn records(message: &[u8], bytes: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1], &list16(part)[..]].concat();
        message.chunks(bytes).flat_map(record).collect()
    }

    fn hello(name: Option<&str>, alpn: &[&str]) -> Parsed {
        let bytes = |text: &str| text.as_bytes().into();
        let alpn = alpn.iter().map(|one| bytes(one)).collect();
        Parsed::Hello(ClientHello { name: name.map(bytes), alpn })
    }

    #[test]
    fn the_name_and_the_protocols_are_found_at_every_split() {
        // One before, one between and one behind: unknown ones are passed over.
        let unknown = extension(0xfe0d, &[9; 40]);
        let (name, alpn) = (named("a.example"), speaks(&["h2", "http/1.1"]));
        let all = [&unknown[..], &name, &unknown, &alpn, &unknown].concat();
        let expected = hello(Some("a.example"), &["h2", "http/1.1"]);
        for record_bytes in [1, 2, 3, 5, 64, 1 << 14] {
            let bytes = sent(&all, record_bytes);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Parsed::More, "{end} of {}", bytes.len());
            }
            assert_eq!(parse(&bytes), expected);
            assert_eq!(parse(&[&bytes[..], b"\x14\x03\x03\0\x01\x01"].concat()), expected);
        }
    }

    #[test]
    fn a_client_may_name_nothing() {
        assert_eq!(parse(&sent(&[], 100)), hello(None, &[]));
        assert_eq!(parse(&sent(&speaks(&["h2"]), 100)), hello(None, &["h2"]));
        // TLS 1.2 without extensions at all.
        let body = [&[3, 3][..], &[7; 32], &list8(&[]), &list16(&[0, 47]), &list8(&[0])].concat();
        assert_eq!(parse(&records(&message(body), 100)), hello(None, &[]));
    }

    #[test]
    fn what_is_something_else_is_known_by_its_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-x",
            b"\x16\x02",
            b"\x17\x03\x03",
            b"\0",
            b"\x80\x2e",
        ] {
            assert_eq!(parse(bytes), Parsed::Other, "{bytes:?}");
        }
        // An empty record, one that is too long, another message.
        for bytes in
            [&b"\x16\x03\x01\0\0"[..], b"\x16\x03\x01\x40\x01", b"\x16\x03\x01\0\x04\x02\0\0\0"]
        {
            assert_eq!(parse(bytes), Parsed::Other, "{bytes:?}");
        }
        assert_eq!(parse(b""), Parsed::More);
    }

    #[test]
    fn what_is_malformed_is_something_else() {
        for extensions in [
            [named("a"), named("b")].concat(),
            [speaks(&["a"]), speaks(&["b"])].concat(),
            named(""),
            extension(SERVER_NAME, &[]),
            extension(SERVER_NAME, &list16(&[1, 0, 1, b'a'])),
            extension(SERVER_NAME, &[&list16(&[0, 0, 1, b'a'])[..], &[0]].concat()),
            extension(ALPN, &list16(&[])),
            extension(ALPN, &list16(&list8(b""))),
            vec![0, 0, 0],
            vec![0, 0, 0, 9, 1],
        ] {
            assert_eq!(parse(&sent(&extensions, 1000)), Parsed::Other, "{extensions:?}");
        }
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        let long = extension(21, &vec![0; MESSAGE_BYTES_MAX]);
        assert_eq!(parse(&sent(&long, RECORD_BYTES_MAX)), Parsed::Other);
        // Records of one byte, for ever.
        let fits = extension(21, &vec![0; 10 << 10]);
        let bytes = sent(&fits, 1);
        assert_eq!(parse(&bytes[..BYTES_MAX - 1]), Parsed::More);
        assert_eq!(parse(&bytes[..BYTES_MAX]), Parsed::Other);
        assert_eq!(parse(&sent(&fits, RECORD_BYTES_MAX)), hello(None, &[]));
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut rng = Rng::seeded(15);
        let good = sent(&[named("a.example"), speaks(&["h2"])].concat(), 50);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u32 + 1) as usize);
            let _ = parse(&bytes);
        }
    }
}
