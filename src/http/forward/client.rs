//! The client's address and scheme, as far as trusted proxies vouch for them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{ForwardedFor, forwarded};
use crate::http::{grammar, head::RequestHead, headers::Headers, names::Name};

/// The longest chain of proxies that is followed; real ones are shorter.
const CHAIN_MAX: usize = 64;

/// The client's address: starting at the immediate peer, the first that is not a trusted proxy.
/// Each trusted proxy vouches for the entry before it in X-Forwarded-For, and for no more; an
/// unreadable entry ends the walk at the last good one. Forwarded counts only if there is no
/// X-Forwarded-For: a proxy that writes one of the two may pass the other on unchecked.
pub(crate) fn client_address(head: &RequestHead, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    if !head.headers.contains(Name::XForwardedFor) {
        return forwarded::client(&head.headers, is_trusted).unwrap_or(client);
    }
    let lines = head.headers.fields.iter().rev();
    let lines = lines.filter(|field| field.known == Name::XForwardedFor && !field.removed);
    let entries = lines.flat_map(|field| grammar::list(head.headers.value(field)).rev());
    for entry in entries.take(CHAIN_MAX) {
        let Some(address) = forwarded::address(entry) else { break };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// Whether the client's scheme is https: as a trusted peer says, otherwise as the connection is.
/// Must be called before the request is rewritten.
pub(crate) fn is_secure(head: &RequestHead, from: &ForwardedFor<'_>) -> bool {
    let told = if from.trusted { told_scheme(&head.headers) } else { None };
    let scheme = told.unwrap_or(from.scheme);
    [&b"https"[..], b"wss"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))
}

/// The scheme according to the proxies before us; the first entry is by the proxy that the client
/// connected to.
fn told_scheme(headers: &Headers) -> Option<&[u8]> {
    let mut told = headers.all(Name::XForwardedProto).flat_map(grammar::list);
    told.next().or_else(|| forwarded::scheme(headers))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        #[track_caller]
        fn check(peer: &str, fields: &str, expected: &str) {
            let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
            let head = parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            let client = client_address(&head, peer.parse().unwrap(), &trusted);
            assert_eq!(client.to_string(), expected, "{peer} {fields}");
        }
        let xff = |value: &str| format!("X-Forwarded-For: {value}\r\n");
        // An untrusted peer is the client, whatever it says.
        check("192.0.2.1", "", "192.0.2.1");
        check("192.0.2.1", &xff("10.0.0.1"), "192.0.2.1");
        // A trusted peer speaks for the one before it, and so on.
        check("10.0.0.1", "", "10.0.0.1");
        check("10.0.0.1", &xff("192.0.2.7"), "192.0.2.7");
        check("10.0.0.1", &xff("198.51.100.1, 192.0.2.7"), "192.0.2.7");
        check("10.0.0.1", &xff("198.51.100.1, 192.0.2.7, 10.0.0.2,10.0.0.3"), "192.0.2.7");
        check("10.0.0.1", &xff("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        // Several lines are one list.
        let lines = format!("{}{}", xff("198.51.100.1, 192.0.2.7"), xff("10.0.0.2"));
        check("10.0.0.1", &lines, "192.0.2.7");
        check("10.0.0.1", &format!("{}{}", xff("192.0.2.7"), xff("")), "192.0.2.7");
        // It stops at the first unreadable entry.
        check("10.0.0.1", &xff("192.0.2.7, unknown, 10.0.0.2"), "10.0.0.2");
        check("10.0.0.1", &xff("192.0.2.7, unknown"), "10.0.0.1");
        check("10.0.0.1", &xff("192.0.2.7, 192.0.2.0/24"), "10.0.0.1");
        check("10.0.0.1", &xff("192.0.2.7, 1.2.3.4:x"), "10.0.0.1");
        check("10.0.0.1", &xff("192.0.2.7, [1.2.3.4]"), "10.0.0.1");
        // With ports, with brackets, and IPv4-mapped addresses.
        check("10.0.0.1", &xff("192.0.2.7:1234"), "192.0.2.7");
        check("10.0.0.1", &xff("2001:db8::1"), "2001:db8::1");
        check("10.0.0.1", &xff("[2001:db8::1]"), "2001:db8::1");
        check("10.0.0.1", &xff("192.0.2.7, [fd00::1]:80"), "192.0.2.7");
        check("::ffff:10.0.0.1", &xff("::ffff:192.0.2.7"), "192.0.2.7");
        check("::ffff:192.0.2.1", "", "192.0.2.1");
        // Forwarded counts only without X-Forwarded-For.
        let forwarded = |value: &str| format!("Forwarded: {value}\r\n");
        check("192.0.2.1", &forwarded("for=10.0.0.1"), "192.0.2.1");
        check("10.0.0.1", &forwarded("for=198.51.100.1, for=192.0.2.7"), "192.0.2.7");
        check("10.0.0.1", &forwarded("for=192.0.2.7, for=10.0.0.3"), "192.0.2.7");
        check("10.0.0.1", &forwarded("for=unknown"), "10.0.0.1");
        let both = format!("{}{}", forwarded("for=192.0.2.7"), xff("192.0.2.8"));
        check("10.0.0.1", &both, "192.0.2.8");
        check("10.0.0.1", &format!("{}{}", forwarded("for=192.0.2.7"), xff("")), "10.0.0.1");
        // A chain that is too long is not walked to its end.
        let chain = format!("192.0.2.7{}", ", 10.0.0.9".repeat(CHAIN_MAX));
        check("10.0.0.1", &xff(&chain), "10.0.0.9");
    }

    #[test]
    fn the_scheme_of_the_client_is_ours_or_what_a_trusted_peer_says() {
        for (scheme, trusted, fields, expected) in [
            ("http", false, "", false),
            ("https", false, "", true),
            ("http", false, "X-Forwarded-Proto: https\r\n", false),
            ("http", false, "Forwarded: proto=https\r\n", false),
            ("http", true, "", false),
            ("https", true, "", true),
            ("http", true, "X-Forwarded-Proto: https\r\n", true),
            ("http", true, "X-Forwarded-Proto: HTTPS\r\n", true),
            ("http", true, "X-Forwarded-Proto: wss\r\n", true),
            ("https", true, "X-Forwarded-Proto: http\r\n", false),
            ("http", true, "X-Forwarded-Proto: https, http\r\n", true),
            ("http", true, "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n", false),
            ("http", true, "Forwarded: for=192.0.2.1;proto=https, for=10.0.0.1\r\n", true),
            ("http", true, "Forwarded: for=192.0.2.1;Proto=\"https\"\r\n", true),
            ("http", true, "Forwarded: for=10.0.0.1, proto=https\r\n", false),
            ("http", true, "X-Forwarded-Proto: http\r\nForwarded: proto=https\r\n", false),
            ("http", true, "X-Forwarded-Proto: httpsx\r\n", false),
        ] {
            let from = ForwardedFor {
                peer: b"192.0.2.1",
                trusted,
                scheme: scheme.as_bytes(),
                port: b"8080",
                pseudonym: b"ringway-test",
            };
            let head = parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(is_secure(&head, &from), expected, "{scheme} {trusted} {fields}");
        }
    }
}
