//! Backends that can stand in for each other, with one policy.

use std::{net::SocketAddr, time::Duration};

/// A named set of backends that can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// Its backends; a `BackendId` is a place in this list.
    pub backends: Vec<Backend>,
    /// How often names are looked up again.
    pub resolve: Duration,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// The Host that backends are sent.
    pub host: HostHeader,
    /// When a request is asked again.
    pub retry: Retry,
    /// The connection pools of each core.
    pub connections: Connections,
    /// How long each wait for a backend may take.
    pub timeouts: PoolTimeouts,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, or its address as it was written.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Its share, 0..=256; 0 = no new traffic.
    pub weight: u16,
    /// Whether it serves only when no other can.
    pub backup: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Its address as a Host field has it (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Socket(address) => address.to_string(),
            Address::Name { host, port } => format!("{host}:{port}"),
        }
    }
}

/// How a backend is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
}

/// The Host that backends are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Client,
    /// The backend's address as it was written.
    Backend,
    /// This one.
    Literal(String),
}

/// When a request is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// All tries, the first among them.
    pub attempts: u8,
    /// After what.
    pub on: RetryOn,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 2,
            on: RetryOn {
                connect_failure: true,
                reset_before_response: true,
                ..RetryOn::default()
            },
        }
    }
}

/// What a request may be asked again after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect_failure: bool,
    /// The connection ended before any byte of an answer.
    pub reset_before_response: bool,
    /// The answer was 502.
    pub status_502: bool,
    /// The answer was 503.
    pub status_503: bool,
    /// The answer was 504.
    pub status_504: bool,
    /// The answer did not begin in time.
    pub timeout: bool,
}

/// The connection pools of each core, for each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
