//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`): a pure
//! function of bytes.
//!
//! A proxy in front says whom it has accepted. Only such a proxy may say it (`proxy-protocol.from`
//! of a listener), and it must: nobody guesses whether there is a header. The parser is strict to
//! the letter, because an address that two parties read otherwise is a way around access lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
const LINE_BYTES_MAX: usize = 107;

/// The signature of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2.
const FIXED_BYTES: usize = 16;

/// Bytes after that: more is refused. Real ones have some hundred, with a certificate's name.
const BLOCK_BYTES_MAX: usize = 4 << 10;

/// The longest header.
pub(crate) const BYTES_MAX: usize = FIXED_BYTES + BLOCK_BYTES_MAX;

/// The kinds of additions that have rules of their own.
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;

/// Those that are passed on besides.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;

/// Parts of the last, behind its five fixed bytes.
const SSL_FIXED_BYTES: usize = 5;
const SSL_VERSION: u8 = 0x21;
const SSL_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT: u8 = 0x02 | 0x04;

const UNIQUE_ID_BYTES_MAX: usize = 128;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// Who connected to the proxy, and to which of its addresses; none if it speaks for itself
    /// (LOCAL), or does not know (UNKNOWN).
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The additions that are passed on, as they came.
    pub(crate) additions: Vec<u8>,
}

/// What is said of a client to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Introduction<'a> {
    /// Where it comes from, and which address it connected to; none if it has none.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Additions of a proxy in front, which are passed on.
    pub(crate) additions: &'a [u8],
    /// What was agreed on in a handshake with us.
    pub(crate) secure: Option<SecureIntroduction<'a>>,
}

/// What is said of a client that speaks TLS with us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecureIntroduction<'a> {
    pub(crate) alpn: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) version: &'a str,
    pub(crate) suite: &'a str,
    /// Whether it has shown a certificate, which was verified.
    pub(crate) is_certified: bool,
}

/// What came of parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A beginning: all of the bytes belong to the header.
    More,
    /// The header; what follows begins at `used`.
    Done { used: usize, header: ProxyHeader },
}

/// Parses a header, of which at least the beginning is in `bytes`.
///
/// # Errors
/// What is wrong with it, for the log.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let signature = bytes.get(..SIGNATURE.len()).unwrap_or(bytes);
    if SIGNATURE.starts_with(signature) {
        return block(bytes);
    }
    let word = bytes.get(..6).unwrap_or(bytes);
    if b"PROXY ".starts_with(word) {
        return line(bytes);
    }
    Err("it does not begin with a PROXY header")
}

/// Version 1: a line.
fn line(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let seen = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() == LINE_BYTES_MAX {
            Err("the line of its PROXY header is longer than 107 bytes")
        } else {
            Ok(Parsed::More)
        };
    };
    let text = seen.get(..end).unwrap_or_default();
    let used = end + 2;
    let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
    let addresses = match words.as_slice() {
        // Whatever follows is not looked at.
        [b"PROXY", b"UNKNOWN", ..] => None,
        [b"PROXY", family @ (b"TCP4" | b"TCP6"), from, to, from_port, to_port] => {
            let is_v4 = *family == b"TCP4";
            let from = SocketAddr::new(address(from, is_v4)?, port(from_port)?);
            let to = SocketAddr::new(address(to, is_v4)?, port(to_port)?);
            Some((from, to))
        }
        [b"PROXY", b"TCP4" | b"TCP6", ..] => {
            return Err("its PROXY header has not two addresses and two ports");
        }
        _ => return Err("its PROXY header names no protocol that exists"),
    };
    let additions = Vec::new();
    Ok(Parsed::Done { used, header: ProxyHeader { addresses, additions } })
}

/// An address as version 1 writes it: no leading zeros, no other notation.
fn address(text: &[u8], is_v4: bool) -> Result<IpAddr, &'static str> {
    const REFUSED: &str = "an address in its PROXY header is none";
    let text = std::str::from_utf8(text).map_err(|_| REFUSED)?;
    let address = if is_v4 {
        text.parse::<Ipv4Addr>().map(IpAddr::V4)
    } else {
        text.parse::<Ipv6Addr>().map(IpAddr::V6)
    };
    address.map_err(|_| REFUSED)
}

fn port(text: &[u8]) -> Result<u16, &'static str> {
    const REFUSED: &str = "a port in its PROXY header is none";
    let is_plain =
        text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first() != Some(&b'0'));
    if !is_plain {
        return Err(REFUSED);
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(REFUSED)
}

/// Version 2: a block of bytes.
fn block(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else { return Ok(Parsed::More) };
    let (command, family) = (fixed[12], fixed[13]);
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > BLOCK_BYTES_MAX {
        return Err("its PROXY header is longer than 4 KiB");
    }
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err("its PROXY header has a version or a command that does not exist"),
    };
    let addresses_len = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err("its PROXY header names no protocol that exists"),
    };
    let Some(block) = rest.get(..len) else { return Ok(Parsed::More) };
    let used = FIXED_BYTES + len;
    if !is_proxied {
        // What it would say of the address is not looked at.
        let (addresses, additions) = (None, Vec::new());
        return Ok(Parsed::Done { used, header: ProxyHeader { addresses, additions } });
    }
    let Some((addresses, additions)) = block.split_at_checked(addresses_len) else {
        return Err("its PROXY header is too short for its addresses");
    };
    let addresses = match (family, addresses) {
        (0x11, [from @ .., _, _, _, _, _, _, _, _]) => v4(from, addresses),
        (0x21, _) => v6(addresses),
        // Datagrams and unix sockets have no address that a connection of TCP could have.
        _ => None,
    };
    let header = bytes.get(..used).unwrap_or_default();
    let additions = checked_additions(header, used - additions.len())?;
    Ok(Parsed::Done { used, header: ProxyHeader { addresses, additions } })
}

/// Two addresses and two ports.
fn v4(from: &[u8], all: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let from = <[u8; 4]>::try_from(from).ok()?;
    let to = <[u8; 4]>::try_from(all.get(4..8)?).ok()?;
    let (from_port, to_port) = ports(all.get(8..)?)?;
    Some((SocketAddr::new(from.into(), from_port), SocketAddr::new(to.into(), to_port)))
}

fn v6(all: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let from = <[u8; 16]>::try_from(all.get(..16)?).ok()?;
    let to = <[u8; 16]>::try_from(all.get(16..32)?).ok()?;
    let (from_port, to_port) = ports(all.get(32..)?)?;
    Some((SocketAddr::new(from.into(), from_port), SocketAddr::new(to.into(), to_port)))
}

fn ports(both: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *both else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Of the additions (TLVs) of a header those that are passed on; all of them must be whole, and its
/// checksum right if it has one.
fn checked_additions(header: &[u8], begin: usize) -> Result<Vec<u8>, &'static str> {
    let (mut at, mut passed_on) = (begin, Vec::new());
    while at < header.len() {
        const CUT: &str = "an addition (TLV) to its PROXY header is cut";
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(CUT) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let begin = at + 3;
        let Some(value) = header.get(begin..begin + len) else { return Err(CUT) };
        match kind {
            CRC32C => {
                let Ok(said) = <[u8; 4]>::try_from(value) else { return Err(CUT) };
                let zeroed = crc32c(header, begin..begin + len);
                if u32::from_be_bytes(said) != zeroed {
                    return Err("the checksum of its PROXY header is wrong");
                }
            }
            UNIQUE_ID if len > UNIQUE_ID_BYTES_MAX => {
                return Err("the unique id in its PROXY header is longer than 128 bytes");
            }
            ALPN | AUTHORITY | UNIQUE_ID | SSL => {
                passed_on.extend_from_slice(header.get(at..begin + len).unwrap_or_default());
            }
            _ => {}
        }
        at = begin + len;
    }
    Ok(passed_on)
}

/// The header of version 1 that says this of a client: no more than its addresses.
pub(crate) fn write_line(of: &Introduction<'_>) -> Vec<u8> {
    let Some((from, to)) = of.addresses.map(of_one_family) else { return UNKNOWN.to_vec() };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from_ip, to_ip, from_port, to_port) = (from.ip(), to.ip(), from.port(), to.port());
    format!("PROXY {family} {from_ip} {to_ip} {from_port} {to_port}\r\n").into_bytes()
}

/// The header of version 2 that says this of a client.
pub(crate) fn write_block(of: &Introduction<'_>) -> Vec<u8> {
    let mut bytes = [&SIGNATURE[..], &[0x21]].concat();
    let (family, addresses) = match of.addresses.map(of_one_family) {
        None => (0x00, Vec::new()),
        Some((from, to)) => {
            let octets = |at: SocketAddr| match at.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            let family = if from.is_ipv4() { 0x11 } else { 0x21 };
            (family, [octets(from), octets(to), ports].concat())
        }
    };
    let mut additions = Vec::new();
    if let Some(secure) = of.secure {
        add(ALPN, secure.alpn.unwrap_or_default().as_bytes(), &mut additions);
        add(AUTHORITY, secure.name.unwrap_or_default().as_bytes(), &mut additions);
        let (flags, verified) = match secure.is_certified {
            true => (CLIENT_SSL | CLIENT_CERT, 0_u32),
            false => (CLIENT_SSL, 1),
        };
        let mut ssl = [&[flags][..], &verified.to_be_bytes()].concat();
        add(SSL_VERSION, secure.version.as_bytes(), &mut ssl);
        add(SSL_CIPHER, secure.suite.as_bytes(), &mut ssl);
        add(SSL, &ssl, &mut additions);
    }
    let own: Vec<u8> = each(&additions).map(|(kind, _)| kind).collect();
    for (kind, value) in each(of.additions) {
        // Of the connection to us we know better.
        if !own.contains(&kind) {
            add(kind, value, &mut additions);
        }
    }
    bytes.push(family);
    let len = u16::try_from(addresses.len() + additions.len()).unwrap_or(0);
    bytes.extend(len.to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(additions);
    bytes
}

/// What is said where nobody is proxied: a probe speaks for itself.
pub(crate) const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
pub(crate) const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Two addresses of one family: a header has no other.
fn of_one_family((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let wide = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    let (from, to) = (plain(from), plain(to));
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (wide(from), wide(to)) }
}

/// Adds an addition, if there is anything to say.
fn add(kind: u8, value: &[u8], to: &mut Vec<u8>) {
    if let Ok(len) = u16::try_from(value.len())
        && len > 0
    {
        to.push(kind);
        to.extend(len.to_be_bytes());
        to.extend_from_slice(value);
    }
}

/// The additions of a whole list.
fn each(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, high, low], after) = rest.split_first_chunk()?;
        let (value, next) = after.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        rest = next;
        Some((kind, value))
    })
}

/// What additions say, of what the log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told<'a> {
    pub(crate) alpn: Option<&'a [u8]>,
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) unique_id: Option<&'a [u8]>,
    /// The version of TLS, the suite, and the name in the client's certificate.
    pub(crate) version: Option<&'a [u8]>,
    pub(crate) suite: Option<&'a [u8]>,
    pub(crate) name: Option<&'a [u8]>,
}

/// Reads additions that are passed on.
pub(crate) fn told(additions: &[u8]) -> Told<'_> {
    let mut told = Told::default();
    for (kind, value) in each(additions) {
        match kind {
            ALPN => told.alpn = Some(value),
            AUTHORITY => told.authority = Some(value),
            UNIQUE_ID => told.unique_id = Some(value),
            SSL => {
                for (kind, value) in each(value.get(SSL_FIXED_BYTES..).unwrap_or_default()) {
                    match kind {
                        SSL_VERSION => told.version = Some(value),
                        SSL_NAME => told.name = Some(value),
                        SSL_CIPHER => told.suite = Some(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    told
}

/// CRC-32C (RFC 3720 §12.1) of bytes of which those in `zeroed` count as zeros.
fn crc32c(bytes: &[u8], zeroed: std::ops::Range<usize>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for (place, byte) in bytes.iter().enumerate() {
        sum ^= if zeroed.contains(&place) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn what_is_written_is_read_alike() {
        let pair = |from: &str, to: &str| Some((from.parse().unwrap(), to.parse().unwrap()));
        let v4 = pair("192.0.2.1:56324", "203.0.113.9:443");
        for (addresses, expected) in [
            (None, None),
            (v4, v4),
            (pair("[2001:db8::1]:5", "[::1]:80"), pair("[2001:db8::1]:5", "[::1]:80")),
            // One family for both, however the socket says it.
            (pair("192.0.2.1:56324", "[::ffff:203.0.113.9]:443"), v4),
            (pair("192.0.2.1:5", "[::1]:80"), pair("[::ffff:192.0.2.1]:5", "[::1]:80")),
        ] {
            let of = Introduction { addresses, ..Introduction::default() };
            for header in [write_line(&of), write_block(&of)] {
                let Ok(Parsed::Done { used, header: said }) = parse(&header) else {
                    panic!("{}", header.escape_ascii())
                };
                assert_eq!((used, said.addresses), (header.len(), expected));
            }
        }
        assert_eq!(
            write_line(&Introduction { addresses: v4, ..Introduction::default() }),
            b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 443\r\n"
        );
        for header in [UNKNOWN, LOCAL] {
            assert!(matches!(parse(header), Ok(Parsed::Done { used, .. }) if used == header.len()));
        }
    }

    #[test]
    fn additions_are_passed_on_and_our_own_handshake_goes_before_them() {
        let came = [tlv(ALPN, b"h2"), tlv(0xee, b"x"), tlv(UNIQUE_ID, b"id"), tlv(SSL, b"s")];
        let bytes = v2(0x21, 0x11, &[&V4[..], &came.concat()].concat());
        let Ok(Parsed::Done { header, .. }) = parse(&bytes) else { panic!() };
        assert_eq!(header.additions, [&came[0][..], &came[2], &came[3]].concat());
        let mut of = Introduction { additions: &header.additions, ..Introduction::default() };
        let said = |of: &Introduction<'_>| {
            let Ok(Parsed::Done { header, .. }) = parse(&write_block(of)) else { panic!() };
            header.additions
        };
        assert_eq!(said(&of), header.additions);
        of.secure = Some(SecureIntroduction {
            alpn: Some("http/1.1"),
            name: Some("a.example"),
            version: "TLSv1.3",
            suite: "TLS_AES_128_GCM_SHA256",
            is_certified: true,
        });
        let all = said(&of);
        let kinds: Vec<(u8, &[u8])> = each(&all).filter(|(kind, _)| *kind != SSL).collect();
        let (alpn, name) = (&b"http/1.1"[..], &b"a.example"[..]);
        assert_eq!(kinds, [(ALPN, alpn), (AUTHORITY, name), (UNIQUE_ID, b"id")]);
        let (_, ssl) = each(&all).find(|(kind, _)| *kind == SSL).unwrap();
        assert_eq!(ssl[..5], [7, 0, 0, 0, 0]);
        let parts: Vec<(u8, &[u8])> = each(&ssl[5..]).collect();
        let suite = &b"TLS_AES_128_GCM_SHA256"[..];
        assert_eq!(parts, [(SSL_VERSION, &b"TLSv1.3"[..]), (SSL_CIPHER, suite)]);
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 203, 0, 113, 9, 0xdc, 0x04, 0x01, 0xbb];

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
        bytes
    }

    fn both(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    /// Each header, also with bytes behind it, in whatever pieces it comes.
    #[track_caller]
    fn expect(header: &[u8], addresses: Option<(SocketAddr, SocketAddr)>) {
        let done = parse(header);
        let Ok(Parsed::Done { used, header: said }) = &done else {
            panic!("{done:?} {}", header.escape_ascii())
        };
        assert_eq!((*used, said.addresses), (header.len(), addresses), "{}", header.escape_ascii());
        assert_eq!(parse(&[header, b"PROXY \r\n\0"].concat()), done);
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(Parsed::More), "{cut} {}", header.escape_ascii());
        }
    }

    #[test]
    fn headers_say_who_connected_to_whom() {
        let v4_text = b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 443\r\n";
        expect(v4_text, both("192.0.2.1:56324", "203.0.113.9:443"));
        let v6_text = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
        expect(v6_text, both("[2001:db8::1]:0", "[::1]:65535"));
        let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:".repeat(7) + "ffff");
        expect(
            longest.as_bytes(),
            both(
                &format!("[{0}]:65535", "ffff:".repeat(7) + "ffff"),
                &format!("[{0}]:65535", "ffff:".repeat(7) + "ffff"),
            ),
        );
        expect(&v2(0x21, 0x11, &V4), both("192.0.2.1:56324", "203.0.113.9:443"));
        let v6 = [&[0x20; 16][..], &[0x30; 16], &[0, 80, 1, 187]].concat();
        expect(
            &v2(0x21, 0x21, &v6),
            both(
                "[2020:2020:2020:2020:2020:2020:2020:2020]:80",
                "[3030:3030:3030:3030:3030:3030:3030:3030]:443",
            ),
        );
    }

    #[test]
    fn a_proxy_may_speak_for_itself_or_not_know() {
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 what ever 1 2\r\n"] {
            expect(text.as_bytes(), None);
        }
        expect(&v2(0x20, 0x00, b""), None);
        expect(&v2(0x20, 0x11, &V4), None);
        expect(&v2(0x20, 0x21, b"\xff\xff"), None);
        expect(&v2(0x21, 0x00, b""), None);
        expect(&v2(0x21, 0x12, &V4), None);
        expect(&v2(0x21, 0x31, &[7; 216]), None);
    }

    #[test]
    fn additions_are_skipped_and_their_checksum_is_checked() {
        let alpn = tlv(0x01, b"h2");
        let others = [tlv(0x04, b""), tlv(0xe0, b"x"), tlv(UNIQUE_ID, &[7; 128])].concat();
        let plain = [&V4[..], &alpn, &others].concat();
        expect(&v2(0x21, 0x11, &plain), both("192.0.2.1:56324", "203.0.113.9:443"));
        let mut summed = v2(0x21, 0x11, &[&V4[..], &tlv(CRC32C, &[0; 4]), &alpn].concat());
        let at = FIXED_BYTES + 12 + 3;
        let sum = crc32c(&summed, 0..0);
        summed[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        expect(&summed, both("192.0.2.1:56324", "203.0.113.9:443"));
        *summed.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&summed), Err("the checksum of its PROXY header is wrong"));
        assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "\x16\x03\x01",
            "proxy TCP4 192.0.2.1 203.0.113.9 1 2\r\n",
            "PROXY\tTCP4 192.0.2.1 203.0.113.9 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 203.0.113.9 1 2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 1\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 1 2 \r\n",
            "PROXY TCP4 999.1.1.1 203.0.113.9 1 2\r\n",
            "PROXY TCP4 192.0.2.01 203.0.113.9 1 2\r\n",
            "PROXY TCP4 1.2.3 203.0.113.9 1 2\r\n",
            "PROXY TCP4 ::1 203.0.113.9 1 2\r\n",
            "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 99999 2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 01 2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9  2\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.9 1 2\n\r\n",
            "PROXY UDP4 192.0.2.1 203.0.113.9 1 2\r\n",
            "PROXY \r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for bytes in [
            v2(0x11, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x10, &V4),
            v2(0x21, 0x41, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            v2(0x21, 0x11, &[&V4[..], b"\x01\0\x05abcd"].concat()),
            v2(0x21, 0x11, &[&V4[..], b"\x01"].concat()),
            v2(0x21, 0x11, &[&V4[..], &tlv(CRC32C, b"abc")].concat()),
            v2(0x21, 0x11, &[&V4[..], &tlv(UNIQUE_ID, &[7; 129])].concat()),
            v2(0x20, 0x11, &[0; BLOCK_BYTES_MAX + 1]),
        ] {
            assert!(parse(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
        // The longest line that is taken.
        expect(format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)).as_bytes(), None);
    }

    /// No bytes make it panic, and a result does not depend on what follows.
    #[test]
    fn any_bytes_have_a_result() {
        let mut rng = Rng::seeded(15);
        let seeds = [
            v2(0x21, 0x11, &[&V4[..], &tlv(0x01, b"h2")].concat()),
            v2(0x20, 0, b""),
            b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 443\r\n".to_vec(),
        ];
        for _ in 0..30_000 {
            let mut bytes = seeds[rng.below(3) as usize].clone();
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            if let Ok(Parsed::Done { used, .. }) = parse(&bytes) {
                assert!(used <= bytes.len() && used <= BYTES_MAX);
                assert_eq!(parse(&bytes[..used]), parse(&bytes));
            }
        }
    }
}
