//! Pools: backends that can stand in for each other, with one policy.
//!
//! Data with its defaults. What a name of a backend resolves to is no part of it.

use std::{
    borrow::Cow,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    BackendId, Table,
    balance::Algorithm,
    health::{Breaker, Health, Passive},
    overlay::Duty,
    retry::Retry,
    share::Share,
    sticky::Sticky,
    tls::PoolTls,
};
use crate::base::endpoint::{Endpoint, UnixPath};

/// A named set of backends that can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// Its backends.
    pub backends: Table<BackendId, Backend>,
    /// How often names are looked up again.
    pub resolve: Duration,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// The seed of the hashes: the same seed and the same pool give the same table everywhere.
    pub hash_seed: String,
    /// Whether backends are told the certificate of the client: Client-Cert and
    /// Client-Cert-Chain (RFC 9440).
    pub client_cert: bool,
    /// What is spoken to backends.
    pub protocol: Protocol,
    /// The Host that backends receive.
    pub host: HostHeader,
    /// Which PROXY header begins each connection to a backend; none = there is none.
    pub send_proxy: Option<ProxyVersion>,
    /// TLS to the backends; none = plain HTTP.
    pub tls: Option<PoolTls>,
    /// How backends are probed; none = no probes.
    pub health: Option<Health>,
    /// Outlier ejection.
    pub passive: Passive,
    /// The circuit breaker of each backend; none = no breaker.
    pub breaker: Option<Breaker>,
    /// Which requests are retried.
    pub retry: Retry,
    /// Stickiness: which requests stay with one backend; none = no stickiness.
    pub sticky: Option<Sticky>,
    /// How long a returning backend takes to reach its full share; zero = no slow start.
    pub slow_start: Duration,
    /// Below this share of usable backends all are used; 0 = never.
    pub panic: Share,
    /// The queue for requests when all backends are at `in_flight_max`.
    pub queue: Queue,
    /// The connection pools of each core.
    pub connections: Connections,
    /// How long each wait for a backend may take.
    pub timeouts: PoolTimeouts,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            name: String::new(),
            backends: Table::new(),
            resolve: Duration::from_secs(10),
            algorithm: Algorithm::default(),
            hash_seed: "ringway".into(),
            client_cert: false,
            protocol: Protocol::default(),
            host: HostHeader::default(),
            send_proxy: None,
            tls: None,
            health: None,
            passive: Passive::default(),
            breaker: None,
            retry: Retry::default(),
            sticky: None,
            slow_start: Duration::ZERO,
            panic: Share::ZERO,
            queue: Queue::default(),
            connections: Connections::default(),
            timeouts: PoolTimeouts::default(),
        }
    }
}

/// What is spoken to the backends of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 over TLS; both sides agree on it.
    H2,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// A version of the header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyVersion {
    /// A line of text.
    One,
    /// Bytes, with additions: protocol, name, TLS.
    Two,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backend {
    /// Its name, or its address as written.
    pub name: String,
    /// Where to reach it.
    pub address: Address,
    /// Its share, 0..=256; 0 = no new traffic.
    pub weight: u16,
    /// Whether it serves only when no regular backend can.
    pub backup: bool,
    /// Requests in flight at once, exact for the process; 0 = no bound.
    pub in_flight_max: u32,
    /// What it is for at the moment: a configuration says nothing about it, an operator may.
    pub duty: Duty,
    /// What it is an address of; none = it stands in the configuration itself.
    pub member: Option<Member>,
}

/// Of one of the backends that a name stands for: where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The name of the backend that the configuration has.
    pub entry: String,
    /// The host and the port that were looked up, or that an SRV record names.
    pub host: Address,
}

/// Where to reach a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An address and a port.
    Socket(SocketAddr),
    /// A name and a port. What the name resolves to is no part of the plan: it changes on its own.
    Name {
        /// The name to look up.
        host: String,
        /// The port.
        port: u16,
    },
    /// A name whose SRV records say the hosts, their ports, weights and priorities (RFC 2782).
    Srv {
        /// The name to look up.
        name: String,
    },
    /// A Unix socket of this machine.
    Unix(UnixPath),
}

impl Address {
    /// The host, without the port.
    fn host(&self) -> Cow<'_, str> {
        match self {
            Address::Socket(address) => address.ip().to_string().into(),
            Address::Name { host, .. } | Address::Srv { name: host } => host.into(),
            Address::Unix(_) => LOCALHOST.into(),
        }
    }

    /// Whether name servers are asked for it. Loopback has no other addresses than its own (RFC
    /// 6761 §6.3).
    #[must_use]
    pub fn is_looked_up(&self) -> bool {
        match self {
            Address::Socket(_) | Address::Unix(_) => false,
            Address::Name { host, .. } => !is_localhost(host),
            Address::Srv { .. } => true,
        }
    }

    /// The addresses that are known without a lookup, in the order to try them: for `localhost` and
    /// names below it both of loopback, since a server on "localhost" may listen on either.
    pub(crate) fn known(&self) -> Vec<Endpoint> {
        match self {
            Address::Socket(address) => vec![Endpoint::Tcp(*address)],
            Address::Name { host, port } if is_localhost(host) => vec![
                Endpoint::Tcp((Ipv4Addr::LOCALHOST, *port).into()),
                Endpoint::Tcp((Ipv6Addr::LOCALHOST, *port).into()),
            ],
            Address::Unix(path) => vec![Endpoint::Unix(*path)],
            Address::Name { .. } | Address::Srv { .. } => Vec::new(),
        }
    }
}

/// The host of what is reached by a Unix socket.
const LOCALHOST: &str = "localhost";

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

impl Backend {
    /// A backend of weight 1, named after its address as written.
    #[must_use]
    pub fn new(name: String, address: Address) -> Backend {
        Backend {
            name,
            address,
            weight: 1,
            backup: false,
            in_flight_max: 0,
            duty: Duty::Up,
            member: None,
        }
    }

    /// The signs that its name may have beside letters and digits. One without a name is named
    /// after its address, so those of addresses are allowed.
    pub(crate) const SIGNS: &str = "-_.:[]";

    /// Whether a text can be its name: a label in metrics and a part of a URL.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let fits = |c: char| c.is_ascii_alphanumeric() || Backend::SIGNS.contains(c);
        (1..=64).contains(&text.len()) && text.chars().all(fits)
    }

    /// The share of new traffic that it takes: its weight, unless it is not to take any.
    #[must_use]
    pub fn share(&self) -> u16 {
        if self.duty == Duty::Up { self.weight } else { 0 }
    }

    /// Its address as written, in the form of a Host field (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        match self.written() {
            // Its path is no host; nginx and HAProxy say this, too.
            Address::Unix(_) => LOCALHOST.to_owned(),
            written => written.to_string(),
        }
    }

    /// Its host as written, without the port.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        self.written().host()
    }

    fn written(&self) -> &Address {
        self.member.as_ref().map_or(&self.address, |member| &member.host)
    }

    /// What places it in a hash table: its name, and if it has that from a lookup its address, so
    /// that all who know the server place it alike.
    pub(crate) fn identity(&self) -> Cow<'_, str> {
        match self.member {
            Some(_) => self.address.to_string().into(),
            None => self.name.as_str().into(),
        }
    }
}

/// As it is written, and, where it has a host, in the form of a Host field.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
            Address::Srv { name } => write!(f, "srv:{name}"),
            Address::Unix(path) => path.fmt(f),
        }
    }
}

/// The Host that backends receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostHeader {
    /// The client's.
    #[default]
    Client,
    /// The backend's address as written.
    Backend,
    /// This value.
    Literal(String),
}

/// The queue in front of a full pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Requests that may wait, exact for the process; 0 = no queue.
    pub size: u32,
    /// The longest wait: 503.
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { size: 0, timeout: Duration::from_secs(5) }
    }
}

/// The connection pools of each core, for each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Idle connections kept. 64: nginx keeps 32 per worker, HAProxy has no bound.
    pub idle_max: u16,
    /// How long a connection may stay idle: less than the keep-alive time of common servers, so
    /// that we close first.
    pub idle_timeout: Duration,
    /// Requests on one connection; 0 = no bound.
    pub requests_max: u32,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { idle_max: 64, idle_timeout: Duration::from_secs(15), requests_max: 0 }
    }
}

/// How long each wait for a backend may take; zero = no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolTimeouts {
    /// For a connection: 504.
    pub connect: Duration,
    /// For a backend to take any of the data sent to it: 504.
    pub write: Duration,
    /// From the end of the request to the whole head of the answer: 504.
    pub response: Duration,
    /// Between two pieces of the answer's body.
    pub body: Duration,
    /// For the whole exchange: 504.
    pub request: Duration,
}

impl Default for PoolTimeouts {
    fn default() -> PoolTimeouts {
        PoolTimeouts {
            connect: Duration::from_secs(3),
            write: Duration::from_secs(30),
            response: Duration::from_secs(30),
            body: Duration::from_secs(60),
            request: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_is_known_by_name() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost.", true),
            ("app.localhost", true),
            ("localhost.example.com", false),
            ("notlocalhost", false),
        ] {
            let both =
                ["127.0.0.1:3001", "[::1]:3001"].map(|text| text.parse::<Endpoint>().unwrap());
            let address = Address::Name { host: host.into(), port: 3001 };
            assert_eq!(address.known(), if expected { &both[..] } else { &[] }, "{host}");
            assert_eq!(address.is_looked_up(), !expected, "{host}");
        }
        assert!(Address::Srv { name: "localhost".into() }.is_looked_up());
    }
}
