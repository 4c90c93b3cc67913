//! The hash key of a request, for balancing by key.
//!
//! The key is a hash (xxh3 with the pool's seed) of the client's address or of a part of the
//! request, so every Ringway with the same pool computes the same one. A request without the part
//! has no key, and is balanced in turn. `hash` turns a key into a pick.

use std::net::IpAddr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::http::{cookies, head::RequestHead};
use crate::plan::{Algorithm, HashOf, Pool};

/// The key of a request of this client; none if the pool needs none, if the request lacks the
/// hashed part, or if the client has no address.
#[inline]
pub(crate) fn of(pool: &Pool, head: &RequestHead, client: Option<IpAddr>) -> Option<u64> {
    let seed = || seed(pool);
    match &pool.algorithm {
        Algorithm::RoundRobin
        | Algorithm::Random
        | Algorithm::LeastConnections
        | Algorithm::LeastResponseTime => None,
        Algorithm::IpHash | Algorithm::Hash { of: HashOf::ClientIp, .. } => {
            client.map(|client| of_address(client, seed()))
        }
        Algorithm::Hash { of, .. } => part(head, of).map(|part| xxh3_64_with_seed(part, seed())),
    }
}

/// The seed of a pool's hashes.
pub(super) fn seed(pool: &Pool) -> u64 {
    xxh3_64(pool.hash_seed.as_bytes())
}

/// An IPv6 client by its /64, since one client has all of that; an IPv4 one by its address, however
/// it is written (RFC 4291 §2.5.5.2).
fn of_address(client: IpAddr, seed: u64) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => xxh3_64_with_seed(&address.octets(), seed),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            xxh3_64_with_seed(&[a, b, c, d, e, f, g, h], seed)
        }
    }
}

/// The hashed part of a request; none if it is absent or empty.
fn part<'a>(head: &'a RequestHead, of: &HashOf) -> Option<&'a [u8]> {
    let part = match of {
        // A property of the connection, not of the request: see above.
        HashOf::ClientIp => None,
        HashOf::Header(name) => head.headers.named(name.as_bytes()).next(),
        HashOf::Cookie(name) => cookies::values(&head.headers, name.as_bytes()).next(),
        HashOf::Query(name) => argument(head.bytes(head.query), name.as_bytes()),
        HashOf::Uri => Some(head.bytes(head.target)),
    };
    part.filter(|part| !part.is_empty())
}

/// The value of the first query argument of this name, undecoded.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, HeadLimits};

    fn pool(algorithm: Algorithm) -> Pool {
        Pool { algorithm, ..Pool::default() }
    }

    /// The hashed part of this request, `-` if it has no key.
    fn check(of: HashOf, request: &str, expected: &str) {
        let limits = HeadLimits { head_bytes_max: 4096, line_bytes_max: 4096, fields_max: 20 };
        let mut head = RequestHead::default();
        parse::request(request.as_bytes(), &limits, &mut head).expect("well-formed");
        let pool = pool(Algorithm::Hash { of, bound: None });
        let key = super::of(&pool, &head, Some([192, 0, 2, 1].into()));
        let hash = |part: &str| xxh3_64_with_seed(part.as_bytes(), seed(&pool));
        assert_eq!(key, (expected != "-").then(|| hash(expected)), "{request:?}");
    }

    #[test]
    fn a_header_by_its_first_value_whatever_its_case() {
        let user = || HashOf::Header("x-user".into());
        check(user(), "GET / HTTP/1.1\r\nHost: a\r\nX-User:  ann \r\nx-user: bob\r\n\r\n", "ann");
        check(user(), "GET / HTTP/1.1\r\nHost: a\r\nX-Users: ann\r\n\r\n", "-");
        check(user(), "GET / HTTP/1.1\r\nHost: a\r\nX-User:\r\n\r\n", "-");
    }

    #[test]
    fn a_cookie_by_its_whole_name() {
        let id = || HashOf::Cookie("id".into());
        let with = |cookie: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        check(id(), &with("theme=dark; id=7; id=8"), "7");
        check(id(), &with("theme=dark\r\ncookie: id=7"), "7");
        check(id(), &with("id=a=b"), "a=b");
        // Cookies are read as for stickiness: a client that stays with a backend by its cookie is
        // hashed by the same value.
        check(id(), &with("theme=dark;id = 7 ; id=8"), "7");
        check(id(), &with("id=\t7"), "7");
        check(id(), &with("sid=7; ID=7; idx=7; id; id=; note=id=7"), "-");
        check(id(), &with("theme=dark"), "-");
    }

    #[test]
    fn an_argument_of_the_query_as_it_was_sent() {
        let user = || HashOf::Query("user".into());
        let with = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        check(user(), &with("/a?user=ann&user=bob"), "ann");
        check(user(), &with("/a?x=1&user=a%20b"), "a%20b");
        check(user(), &with("/a?superuser=1&user&user="), "-");
        check(user(), &with("/user=ann"), "-");
    }

    #[test]
    fn a_uri_by_its_path_and_query() {
        check(HashOf::Uri, "GET /a/b?c=d HTTP/1.1\r\nHost: a\r\n\r\n", "/a/b?c=d");
        check(HashOf::Uri, "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "/b?c");
    }

    #[test]
    fn a_client_by_its_address_or_its_prefix() {
        let key = |algorithm, client: &str| {
            let client = Some(client.parse().expect("an address"));
            super::of(&pool(algorithm), &RequestHead::default(), client)
        };
        let of = |client| key(Algorithm::IpHash, client);
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"), "the same, mapped");
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::1"), "one /64");
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"), "another /64");
        let hash = Algorithm::Hash { of: HashOf::ClientIp, bound: None };
        assert_eq!(of("192.0.2.1"), key(hash, "192.0.2.1"));
        for other in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastConnections] {
            assert_eq!(key(other, "192.0.2.1"), None);
        }
        assert_eq!(key(Algorithm::LeastResponseTime, "192.0.2.1"), None);
    }

    #[test]
    fn another_seed_makes_another_key() {
        let head = RequestHead::default();
        let of = |seed: &str| {
            let pool = Pool { hash_seed: seed.into(), ..pool(Algorithm::IpHash) };
            super::of(&pool, &head, Some([192, 0, 2, 1].into()))
        };
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
