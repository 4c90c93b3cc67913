//! The effect of a lookup on a backend's addresses.
//!
//! Pure: lookups are done and scheduled elsewhere. A lookup that fails or finds nothing changes
//! nothing, as a name server that is down must not take backends down with it. An answer in another
//! order is the same answer: name servers rotate theirs with every question.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::plan::Address;

/// Addresses of one name that are used, however many it has: each is a connection pool on every
/// core.
const ADDRESSES_MAX: usize = 16;

/// The addresses that are known without a lookup: for `localhost` and names below it those of
/// loopback (RFC 6761 §6.3), both of them whatever the system says, since a server on "localhost"
/// may listen on either.
pub(crate) fn known(address: &Address) -> Vec<SocketAddr> {
    match address {
        Address::Socket(address) => vec![*address],
        Address::Name { host, port } if is_localhost(host) => {
            vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()]
        }
        Address::Name { .. } => Vec::new(),
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// What an answer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: the answer is the one known.
    Same,
    /// These are the addresses from now on, in the order to try them: those that stay first.
    Now {
        addresses: Vec<SocketAddr>,
        /// Addresses to which no new connection may be made.
        gone: Vec<SocketAddr>,
    },
    /// No answer: the known addresses stay in use.
    Kept,
    /// No answer, and none before: the backend is down.
    Unknown,
}

/// What an answer for a name changes whose addresses are `known`; none = the lookup failed.
pub(crate) fn change(known: &[SocketAddr], answer: Option<&[SocketAddr]>) -> Change {
    let Some(answer) = answer.filter(|answer| !answer.is_empty()) else {
        return if known.is_empty() { Change::Unknown } else { Change::Kept };
    };
    let (mut addresses, gone): (Vec<SocketAddr>, Vec<SocketAddr>) =
        known.iter().partition(|address| answer.contains(address));
    for address in answer {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    if gone.is_empty() && addresses.len() == known.len() {
        return Change::Same;
    }
    Change::Now { addresses, gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses by the last number of each.
    fn addresses(numbers: &[u8]) -> Vec<SocketAddr> {
        numbers.iter().map(|number| ([10, 0, 0, *number], 80).into()).collect()
    }

    #[track_caller]
    fn check(known: &[u8], answer: Option<&[u8]>, expected: Change) {
        let answer = answer.map(addresses);
        assert_eq!(change(&addresses(known), answer.as_deref()), expected);
    }

    fn now(numbers: &[u8], gone: &[u8]) -> Change {
        Change::Now { addresses: addresses(numbers), gone: addresses(gone) }
    }

    #[test]
    fn only_localhost_is_known_by_name() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost.", true),
            ("app.localhost", true),
            ("localhost.example.com", false),
            ("notlocalhost", false),
        ] {
            let both = ["127.0.0.1:3001", "[::1]:3001"].map(|text| text.parse().unwrap());
            let known = known(&Address::Name { host: host.into(), port: 3001 });
            assert_eq!(known, if expected { &both[..] } else { &[] }, "{host}");
        }
    }

    #[test]
    fn the_last_good_answer_is_kept_when_there_is_none() {
        check(&[1, 2], None, Change::Kept);
        check(&[1, 2], Some(&[]), Change::Kept);
        check(&[], None, Change::Unknown);
        check(&[], Some(&[]), Change::Unknown);
    }

    #[test]
    fn another_order_is_the_same_answer() {
        check(&[1, 2, 3], Some(&[3, 1, 2]), Change::Same);
        check(&[1], Some(&[1, 1]), Change::Same);
    }

    #[test]
    fn what_stays_stays_first_and_what_is_gone_is_told() {
        check(&[], Some(&[2, 1, 2]), now(&[2, 1], &[]));
        check(&[1, 2], Some(&[3, 2, 1]), now(&[1, 2, 3], &[]));
        check(&[1, 2], Some(&[2]), now(&[2], &[1]));
        check(&[1, 2], Some(&[4, 2, 3]), now(&[2, 4, 3], &[1]));
        check(&[1, 2], Some(&[3]), now(&[3], &[1, 2]));
    }

    #[test]
    fn an_answer_without_end_has_one() {
        let many: Vec<u8> = (0..200).collect();
        check(&[], Some(&many), now(&many[..ADDRESSES_MAX], &[]));
        let turned: Vec<u8> = many.iter().rev().copied().collect();
        check(&many[..ADDRESSES_MAX], Some(&turned), Change::Same);
    }
}
