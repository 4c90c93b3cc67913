//! Pools: backends that can stand in for each other, with one policy.
//!
//! Data with its defaults. What a name of a backend resolves to is no part of it.

use std::{borrow::Cow, fmt, net::SocketAddr, time::Duration};

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
    /// The Host that backends receive.
    pub host: HostHeader,
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
            host: HostHeader::default(),
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
}

impl Address {
    /// The host, without the port.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        match self {
            Address::Socket(address) => address.ip().to_string().into(),
            Address::Name { host, .. } => host.into(),
        }
    }
}

impl Backend {
    /// A backend of weight 1, named after its address as written.
    #[must_use]
    pub fn new(name: String, address: Address) -> Backend {
        Backend { name, address, weight: 1, backup: false, in_flight_max: 0, duty: Duty::Up }
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

    /// Its address in the form of a Host field (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        self.address.to_string()
    }
}

/// As it is written, and in the form of a Host field.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
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
