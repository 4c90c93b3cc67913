//! The Forwarded field (RFC 7239): the client it names, and the element we add.
//!
//! If trusted peers send it, it is believed and continued. We never begin it, as X-Forwarded-*
//! tells backends all of it. `client` and `request` decide which peers are trusted and when this
//! field counts.

use std::net::{IpAddr, SocketAddr};

use crate::http::{
    grammar,
    headers::{Headers, Span},
    names::Name,
};

/// The client according to the lines of Forwarded, which make one list: from the right, the first
/// address that is not trusted; each trusted one vouches for the element before it. None if the
/// last element names no address; if an earlier one does not, the last good address.
pub(super) fn client(headers: &Headers, is_trusted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let elements = headers.all(Name::Forwarded).flat_map(|line| parts(line, b','));
    let elements = elements.filter(|element| !element.is_empty());
    elements.map(asks_for).fold(None, |before, address| match address {
        Some(address) if is_trusted(&address) => before.or(Some(address)),
        address => address,
    })
}

/// The client's scheme, as in the first element.
pub(super) fn scheme(headers: &Headers) -> Option<&[u8]> {
    let elements = headers.all(Name::Forwarded).flat_map(|line| parts(line, b','));
    value({ elements }.find(|element| !element.is_empty())?, b"proto")
}

/// The address in an element's `for`, if it is one.
fn asks_for(element: &[u8]) -> Option<IpAddr> {
    address(value(element, b"for")?)
}

/// The value of this parameter of an element.
fn value<'a>(element: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let value = parts(element, b';').find_map(|pair| {
        let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        name.eq_ignore_ascii_case(wanted).then(|| value.get(1..).unwrap_or_default())
    })?;
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

/// An address with or without a port, IPv6 with or without brackets.
pub(super) fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// Whether an element may be appended to a line: an unclosed quoted string would swallow it.
pub(super) fn is_closed(line: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    line.iter().for_each(|byte| _ = quotes.are_around(*byte));
    !quotes.open
}

/// Appends our element: who asked us, for which host, over which scheme. `out` is the head's own
/// buffer, which contains the host.
pub(super) fn push_element(peer: &[u8], host: Span, scheme: &[u8], out: &mut Vec<u8>) {
    let of_ipv6 = peer.contains(&b':');
    let (start, end): (&[u8], &[u8]) = if of_ipv6 { (b"\"[", b"]\"") } else { (b"", b"") };
    for part in [b"for=", start, peer, end] {
        out.extend_from_slice(part);
    }
    // No byte of a valid host needs an escape (`target::is_authority`).
    if host.len > 0 && host.end() <= out.len() {
        out.extend_from_slice(b";host=\"");
        out.extend_from_within(host.start as usize..host.end());
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme);
}

/// Splits at a separator outside of quoted strings (RFC 9110 §5.6.4).
fn parts(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    let parts = value.split(move |byte| !quotes.are_around(*byte) && *byte == separator);
    parts.map(grammar::trim)
}

/// The state of quoted strings while scanning byte by byte.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Takes the next byte; returns whether it is inside a quoted string.
    fn are_around(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.open => self.escaped = true,
            b'"' => self.open = !self.open,
            _ => {}
        }
        self.open || byte == b'"'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> Headers {
        let mut headers = Headers::default();
        for line in lines {
            headers.push(Name::Forwarded, b"forwarded", line.as_bytes());
        }
        headers
    }

    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        let trusted: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
        let client = client(&headers(lines), |address| trusted.contains(address));
        assert_eq!(client, expected.map(|address| address.parse().unwrap()), "{lines:?}");
    }

    /// RFC 7239 §4 and §6, with their examples.
    #[test]
    fn an_element_asks_for_an_address() {
        check(&["for=192.0.2.43"], Some("192.0.2.43"));
        check(&["For=\"192.0.2.43:47011\""], Some("192.0.2.43"));
        check(&["For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17"));
        check(&["for=\"[::ffff:192.0.2.1]\""], Some("192.0.2.1"));
        check(&["for=192.0.2.60;proto=http;by=203.0.113.43"], Some("192.0.2.60"));
        check(&["proto=http ; by=\"a;for=10.0.0.1\\\";b\" ; for=192.0.2.60"], Some("192.0.2.60"));
        check(&["host=\"a,b\";for=192.0.2.60, "], Some("192.0.2.60"));
        for nobody in
            ["", "for", "for=", "for=unknown", "for=_hidden", "proto=http", "fo=1.2.3.4", ";", "="]
        {
            check(&[nobody], None);
        }
        check(&[], None);
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        check(&["for=192.0.2.43, for=198.51.100.17"], Some("198.51.100.17"));
        check(&["for=192.0.2.43, for=198.51.100.17, for=10.0.0.1"], Some("198.51.100.17"));
        check(&["for=192.0.2.43", "for=198.51.100.17,for=10.0.0.1", ""], Some("198.51.100.17"));
        check(&["for=10.0.0.2, for=10.0.0.1"], Some("10.0.0.2"));
        check(&["for=192.0.2.43, for=unknown, for=10.0.0.1"], Some("10.0.0.1"));
        check(&["for=192.0.2.43, for=unknown"], None);
        // An unclosed string hides what follows it, on its own line only.
        check(&["for=\"192.0.2.43, for=192.0.2.44"], None);
        check(&["for=\"192.0.2.43, for=192.0.2.44", "for=10.0.0.1"], Some("10.0.0.1"));
    }

    #[test]
    fn our_element_names_peer_host_and_scheme() {
        #[track_caller]
        fn check(peer: &str, host: &str, expected: &str) {
            let mut out = host.as_bytes().to_vec();
            push_element(peer.as_bytes(), Span::new(0, host.len()), b"http", &mut out);
            assert_eq!(out.get(host.len()..).unwrap(), expected.as_bytes());
            let said = headers(&[expected]);
            assert_eq!(client(&said, |_| false), Some(peer.parse().unwrap()), "{expected}");
        }
        check("192.0.2.1", "a.test:80", "for=192.0.2.1;host=\"a.test:80\";proto=http");
        check("192.0.2.1", "", "for=192.0.2.1;proto=http");
        check("2001:db8::1", "[::1]", "for=\"[2001:db8::1]\";host=\"[::1]\";proto=http");
    }

    #[test]
    fn a_line_is_closed_where_its_quotes_are() {
        for line in ["", "for=a", "a=\"b\"", "a=\"\\\"\"", "a=\"\\\\\""] {
            assert!(is_closed(line.as_bytes()), "{line}");
        }
        for line in ["\"", "a=\"b", "a=\"b\\\"", "a=\"b\", c=\""] {
            assert!(!is_closed(line.as_bytes()), "{line}");
        }
    }
}
