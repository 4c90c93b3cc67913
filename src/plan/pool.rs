//! Backends that can stand in for each other, with one policy.

use std::{net::SocketAddr, time::Duration};

use super::{
    BackendId, Table,
    balance::Algorithm,
    health::{Breaker, Health, Passive},
    retry::Retry,
    share::Share,
    sticky::Sticky,
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
    /// Where the hashes begin: the same seed and the same pool give the same table everywhere.
    pub hash_seed: String,
    /// The Host that backends are sent.
    pub host: HostHeader,
    /// How backends are probed; none = they are not.
    pub health: Option<Health>,
    /// When a backend that fails requests is left out for a while.
    pub passive: Passive,
    /// The circuit breaker of each backend; none = it has none.
    pub breaker: Option<Breaker>,
    /// When a request is asked again.
    pub retry: Retry,
    /// Whose requests stay with one backend, and how; none = nobody's do.
    pub sticky: Option<Sticky>,
    /// How long a backend that returns takes to get its full share; zero = at once.
    pub slow_start: Duration,
    /// Below this share of usable backends all are used; 0 = never.
    pub panic: Share,
    /// Who waits where all backends have `in_flight_max`.
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
            host: HostHeader::default(),
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
    /// Its name, or its address as it was written.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Its share, 0..=256; 0 = no new traffic.
    pub weight: u16,
    /// Whether it serves only when no other can.
    pub backup: bool,
    /// Requests under way at once, exact for the process; 0 = no bound.
    pub in_flight_max: u32,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An address and a port.
    Socket(SocketAddr),
    /// A name and a port. What the name gives is no part of the plan: it changes by itself.
    Name {
        /// The name to look up.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Backend {
    /// One of weight 1, called by its address as it was written.
    #[must_use]
    pub fn new(name: String, address: Address) -> Backend {
        Backend { name, address, weight: 1, backup: false, in_flight_max: 0 }
    }

    /// Its address as a Host field has it (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Socket(address) => address.to_string(),
            Address::Name { host, port } => format!("{host}:{port}"),
        }
    }
}

/// The Host that backends are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostHeader {
    /// The client's.
    #[default]
    Client,
    /// The backend's address as it was written.
    Backend,
    /// This one.
    Literal(String),
}

/// Who waits in front of a full pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Requests that may wait, exact for the process; 0 = none does.
    pub size: u32,
    /// How long one waits at most: 503.
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
    /// How long one may be idle: below the keep-alive time of common servers, so that we close
    /// first.
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
    /// For a backend to take any of what it is sent: 504.
    pub write: Duration,
    /// From the request sent to the whole head of the answer: 504.
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
