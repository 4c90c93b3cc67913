//! Who counts as one client: an address of IPv4, or a network of IPv6 of 64 bits, which is what one
//! subscriber has.
//!
//! Behind one address may be many people (NAT): what is bounded by it says how that is borne.

use std::net::IpAddr;

/// One client, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subscriber(u64);

impl Subscriber {
    /// Who has this address.
    pub(crate) fn of(address: IpAddr) -> Subscriber {
        Subscriber(match address.to_canonical() {
            // As addresses of IPv4 are written in IPv6, where no network has this number.
            IpAddr::V4(address) => 0xffff_0000_0000 | u64::from(address.to_bits()),
            #[allow(clippy::cast_possible_truncation)] // its first half
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_and_so_is_an_address_of_ipv4_however_it_is_written() {
        for (address, same, other) in [
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.0"),
            ("::1", "::2", "0.0.0.1"),
        ] {
            let [one, same, other] =
                [address, same, other].map(|text| Subscriber::of(text.parse().unwrap()));
            assert!(one == same && one != other, "{address}");
        }
    }
}
