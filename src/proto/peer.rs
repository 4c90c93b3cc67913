//! The peer of a client connection: its address, its scheme, and whether it is trusted.
//!
//! It is made when the connection has been greeted (`server/connection.rs`): a PROXY header gives
//! the address, a handshake the scheme. All code that needs one of them reads it here, so nothing
//! above assumes `http` or `not secure`.

use std::{
    cell::Cell,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnet::IpNet;

use crate::base::{spell::decimal_before, subscriber::Subscriber};
use crate::http::{
    forward::{self, ForwardedFor},
    head::RequestHead,
};
use crate::net::proxy_header::{self, Introduction, SecureIntroduction};
use crate::observe::record::{Asker, Told};
use crate::plan::{ListenerId, ProxyVersion};

/// The other end of a client connection.
pub(crate) struct Peer {
    pub(crate) listener: ListenerId,
    address: PeerAddress,
    /// Whether it is one of the listener's trusted proxies.
    is_trusted: bool,
    /// Known at the latest with its first bytes.
    pub(crate) speaks: Cell<Speaks>,
    /// What backends are told of it by a PROXY header, where a pool tells them.
    pub(crate) proxied: Option<Box<Proxied>>,
    /// What its handshake has agreed on; none if its side of the connection is not encrypted.
    secure: Option<Box<Secure>>,
    /// Its address as text, formatted once.
    text: [u8; TEXT_BYTES],
    text_len: u8,
    /// The port it connected to, as text.
    port: [u8; 5],
    port_len: u8,
}

/// Which version of HTTP the client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.
    #[default]
    One,
    /// HTTP/2.
    Two,
    /// Its first bytes will tell (RFC 9113 §3.3).
    Either,
}

/// What is known of an encrypted connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Secure {
    /// The name that the client asked for.
    pub(crate) name: Option<Box<str>>,
    /// Whether HTTP/2 was agreed on.
    pub(crate) is_h2: bool,
    /// For the log: version, suite, protocol, whether it was resumed, name. Empty if there is none.
    pub(crate) text: Box<str>,
    /// Whether the client has shown a certificate, which was verified.
    pub(crate) is_certified: bool,
    /// The client's certificate and the chain behind it as fields (RFC 9440), if it has shown one
    /// and a pool wants to know.
    pub(crate) certificate: Option<Box<(Vec<u8>, Vec<u8>)>>,
}

/// What a PROXY header says of a client besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The address that it connected to, here or at a proxy in front.
    pub(crate) to: Option<SocketAddr>,
    /// What a proxy in front has added.
    pub(crate) additions: Vec<u8>,
}

/// The address of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerAddress {
    /// An IPv4-mapped IPv6 address becomes an IPv4 one.
    Ip(SocketAddr),
    /// On this machine, at the other end of a unix socket.
    Unix,
}

/// The longest IPv6 address, with an embedded IPv4 one.
const TEXT_BYTES: usize = 45;

/// What backends are told if there is no address (RFC 7239 §6.2).
const UNKNOWN: &str = "unknown";

impl PeerAddress {
    /// As the kernel gives it with an accepted connection; none if that has no IP address.
    pub(crate) fn of(address: Option<SocketAddr>) -> PeerAddress {
        address.map_or(PeerAddress::Unix, |address| {
            PeerAddress::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
        })
    }

    fn socket(self) -> Option<SocketAddr> {
        match self {
            PeerAddress::Ip(address) => Some(address),
            PeerAddress::Unix => None,
        }
    }

    pub(crate) fn ip(self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }
}

impl Peer {
    /// A peer of this listener of which nothing is told.
    pub(crate) fn nobody(listener: ListenerId) -> Peer {
        Peer::new(listener, (PeerAddress::Unix, 0), &[], None)
    }

    /// A peer of this listener that connected to `port`; `secure` if the connection is encrypted.
    pub(crate) fn new(
        listener: ListenerId,
        (address, port): (PeerAddress, u16),
        trusted_proxies: &[IpNet],
        secure: Option<Box<Secure>>,
    ) -> Peer {
        let ip = address.ip();
        let is_trusted = ip.is_some_and(|ip| trusted_proxies.iter().any(|net| net.contains(&ip)));
        let (text, text_len) = match ip {
            Some(IpAddr::V4(ip)) => spelled_v4(ip),
            Some(ip) => spelled(format_args!("{ip}")),
            None => spelled(format_args!("{UNKNOWN}")),
        };
        // A Unix socket has none: what belongs to the scheme makes links that work.
        let port = match (port, secure.is_some()) {
            (0, false) => 80,
            (0, true) => 443,
            (port, _) => port,
        };
        let (port, port_len) = spelled_port(port);
        let speaks = Cell::default();
        let proxied = None;
        Peer {
            listener,
            address,
            is_trusted,
            speaks,
            proxied,
            secure,
            text,
            text_len,
            port,
            port_len,
        }
    }

    /// The address of the other end of its connection.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.address.ip()
    }

    /// Who answers for what it does: nobody if it is a proxy that is trusted, which speaks for
    /// many, or has no address.
    pub(crate) fn subscriber(&self) -> Option<Subscriber> {
        self.ip().filter(|_| !self.is_trusted).map(Subscriber::of)
    }

    /// The address of its connection.
    pub(crate) fn address(&self) -> PeerAddress {
        self.address
    }

    /// The id that a request brings, if it is believed.
    pub(crate) fn given_id<'h>(&self, head: &'h RequestHead) -> Option<&'h [u8]> {
        if self.is_trusted { forward::given_id(&head.headers) } else { None }
    }

    /// What backends are told about it.
    #[inline]
    pub(crate) fn forwarded_for<'a>(&'a self, pseudonym: &'a [u8]) -> ForwardedFor<'a> {
        ForwardedFor {
            peer: self.text.get(..usize::from(self.text_len)).unwrap_or_default(),
            trusted: self.is_trusted,
            scheme: if self.secure.is_some() { b"https" } else { b"http" },
            port: self.port.get(..usize::from(self.port_len)).unwrap_or_default(),
            pseudonym,
        }
    }

    /// The PROXY header of this version that says who it is, and that it has connected to `to` if
    /// it is not known better.
    pub(crate) fn introduction(&self, version: ProxyVersion, to: Option<SocketAddr>) -> Vec<u8> {
        let proxied = self.proxied.as_deref();
        let to = proxied.and_then(|it| it.to).or(to);
        let secure = self.secure.as_deref().map(|secure| {
            let mut words = secure.text.split(' ');
            let mut next = || words.next().filter(|word| *word != "-");
            let (version, suite, alpn) = (next(), next(), next());
            SecureIntroduction {
                alpn,
                name: secure.name.as_deref(),
                version: version.unwrap_or_default(),
                suite: suite.unwrap_or_default(),
                is_certified: secure.is_certified,
            }
        });
        let of = Introduction {
            addresses: self.address.socket().zip(to),
            additions: proxied.map_or(&[], |it| &it.additions),
            secure,
        };
        match version {
            ProxyVersion::One => proxy_header::write_line(&of),
            ProxyVersion::Two => proxy_header::write_block(&of),
        }
    }

    /// What is known of its connection, if that is encrypted.
    #[inline]
    pub(crate) fn secure(&self) -> Option<&Secure> {
        self.secure.as_deref()
    }

    /// The address of the client that it asks for: its own, unless it is a trusted proxy that names
    /// another; none if it has no address.
    pub(crate) fn client(&self, head: &RequestHead, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
        Some(forward::client_address(head, self.address.ip()?, trusted_proxies))
    }

    /// What the log says of it, when it asks for this client, if that is known.
    pub(crate) fn asker(&self, client: Option<IpAddr>) -> Asker {
        Asker {
            listener: self.listener,
            client: client.or(self.address.ip()),
            peer: self.address.socket(),
            secure: self.secure.is_some(),
        }
    }

    /// What a proxy in front has told of its connection, for the log.
    pub(crate) fn told(&self) -> Told<'_> {
        let Some(proxied) = self.proxied.as_deref() else { return [None; 6] };
        let told = proxy_header::told(&proxied.additions);
        [told.alpn, told.authority, told.unique_id, told.version, told.suite, told.name]
    }
}

/// Like `spelled`, in a tenth of its time: most connections have one.
fn spelled_v4(ip: Ipv4Addr) -> ([u8; TEXT_BYTES], u8) {
    let mut text = *b"255.255.255.255";
    let mut begin = text.len();
    for (place, octet) in ip.octets().into_iter().enumerate().rev() {
        begin = decimal_before(&mut text, begin, octet.into());
        if place > 0 {
            begin -= 1;
            text[begin] = b'.';
        }
    }
    in_front(&text[begin..])
}

fn spelled_port(port: u16) -> ([u8; 5], u8) {
    let mut text = *b"65535";
    let begin = decimal_before(&mut text, 5, port);
    in_front(&text[begin..])
}

fn in_front<const N: usize>(text: &[u8]) -> ([u8; N], u8) {
    let mut room = [0; N];
    room[..text.len()].copy_from_slice(text);
    (room, text.len() as u8)
}

/// A text in a buffer that is large enough, and its length; empty if it is not.
fn spelled<const N: usize>(text: std::fmt::Arguments<'_>) -> ([u8; N], u8) {
    let mut room = [0; N];
    let mut rest = &mut room[..];
    let written = rest.write_fmt(text).is_ok();
    let len = if written { N - rest.len() } else { 0 };
    (room, u8::try_from(len).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_spelled_as_the_library_does() {
        let mut rng = crate::base::rng::Rng::seeded(1);
        for _ in 0..10_000 {
            // Short numbers are as frequent as long ones.
            let random = (rng.next() as u32).to_be_bytes().map(|octet| octet >> (rng.next() % 8));
            let (ip, port) = (Ipv4Addr::from(random), rng.next() as u16 >> (rng.next() % 16));
            assert_eq!(spelled_v4(ip), spelled(format_args!("{ip}")));
            assert_eq!(spelled_port(port), spelled(format_args!("{port}")));
        }
        for (ip, port) in [(Ipv4Addr::BROADCAST, u16::MAX), (Ipv4Addr::UNSPECIFIED, 0)] {
            assert_eq!(spelled_v4(ip), spelled(format_args!("{ip}")));
            assert_eq!(spelled_port(port), spelled(format_args!("{port}")));
        }
    }

    /// A peer with this address; `10.0.0.0/8` is trusted.
    fn peer(address: Option<&str>, is_secure: bool) -> Peer {
        let address = PeerAddress::of(address.map(|address| address.parse().unwrap()));
        let secure = is_secure.then(Box::<Secure>::default);
        Peer::new(ListenerId(3), (address, 8443), &["10.0.0.0/8".parse().unwrap()], secure)
    }

    #[test]
    fn backends_are_told_of_it_as_text_and_an_embedded_address_is_the_one_embedded() {
        for (address, text, trusted) in [
            (Some("192.0.2.7:5"), "192.0.2.7", false),
            (Some("[::ffff:10.1.2.3]:5"), "10.1.2.3", true),
            (Some("[2001:db8::1]:5"), "2001:db8::1", false),
            (None, "unknown", false),
        ] {
            let peer = peer(address, false);
            let from = peer.forwarded_for(b"us");
            assert_eq!((from.peer, from.trusted), (text.as_bytes(), trusted), "{address:?}");
            assert_eq!((from.scheme, from.port), (&b"http"[..], &b"8443"[..]));
        }
        assert_eq!(peer(None, true).forwarded_for(b"us").scheme, b"https");
    }

    #[test]
    fn the_log_names_the_client_that_it_asks_for() {
        let (ip, other) = ("10.1.2.3".parse().unwrap(), "192.0.2.7".parse().unwrap());
        for (address, client, expected) in [
            (Some("10.1.2.3:5"), None, Some(ip)),
            (Some("10.1.2.3:5"), Some(other), Some(other)),
            (None, Some(other), Some(other)),
            (None, None, None),
        ] {
            let asker = peer(address, true).asker(client);
            assert_eq!(
                (asker.client, asker.listener, asker.secure),
                (expected, ListenerId(3), true)
            );
            assert_eq!(asker.peer, address.map(|address| address.parse().unwrap()));
        }
    }
}
