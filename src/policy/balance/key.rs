//! What of a request decides who answers it: the same key, the same backend.
//!
//! The key is a hash (xxh3 with the pool's seed) of the client's address or of a part of the
//! request, so that every Ringway with the same pool finds the same one. A request without the
//! part has no key, and is balanced in turn. What the key means for a pick stands in `hash`.

use std::net::IpAddr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::http::{head::RequestHead, names::Name};
use crate::plan::{Algorithm, HashOf, Pool};

/// The key of a request of this client; none where the pool needs none, or the request lacks the
/// part that is hashed.
#[inline]
#[allow(dead_code, reason = "the worker begins to ask (issue 5)")]
pub(crate) fn of(pool: &Pool, head: &RequestHead, client: IpAddr) -> Option<u64> {
    let seed = || seed(pool);
    match &pool.algorithm {
        Algorithm::RoundRobin
        | Algorithm::Random
        | Algorithm::LeastConnections
        | Algorithm::LeastResponseTime => None,
        Algorithm::IpHash | Algorithm::Hash { of: HashOf::ClientIp, .. } => {
            Some(of_address(client, seed()))
        }
        Algorithm::Hash { of, .. } => part(head, of).map(|part| xxh3_64_with_seed(part, seed())),
    }
}

/// Where the hashes of a pool begin.
pub(super) fn seed(pool: &Pool) -> u64 {
    xxh3_64(pool.hash_seed.as_bytes())
}

/// An IPv6 client by its /64, since one client has all of that; an IPv4 one by its address,
/// however it is written (RFC 4291 §2.5.5.2).
fn of_address(client: IpAddr, seed: u64) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => xxh3_64_with_seed(&address.octets(), seed),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            xxh3_64_with_seed(&[a, b, c, d, e, f, g, h], seed)
        }
    }
}

/// The part of a request that is hashed; none where it is absent or empty.
fn part<'a>(head: &'a RequestHead, of: &HashOf) -> Option<&'a [u8]> {
    let part = match of {
        // Of the connection, not of the request: above.
        HashOf::ClientIp => None,
        HashOf::Header(name) => field(head, name.as_bytes()),
        HashOf::Cookie(name) => cookie(head, name.as_bytes()),
        HashOf::Query(name) => argument(head.bytes(head.query), name.as_bytes()),
        HashOf::Uri => Some(head.bytes(head.target)),
    };
    part.filter(|part| !part.is_empty())
}

/// The value of the first field of this name.
fn field<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let headers = &head.headers;
    let mut named = headers.iter().filter(|field| headers.name(field).eq_ignore_ascii_case(name));
    named.next().map(|field| headers.value(field))
}

/// The value of the first cookie of this name (RFC 6265 §5.4; names are compared as they are).
fn cookie<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = head.headers.all(Name::Cookie).flat_map(|value| value.split(|b| *b == b';'));
    pairs.find_map(|pair| value_of(pair.trim_ascii(), name))
}

/// The value of the first argument of this name, as it was sent: nothing is decoded.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| value_of(pair, name))
}

/// What follows `name=`.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}
