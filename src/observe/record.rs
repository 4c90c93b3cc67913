//! What is known when an exchange ends.
//!
//! Numbers and ids only: names stand in the plan and text in the head, both of which the exchange
//! holds to its end. Filled on the way, read once. It never decides anything.

use std::net::{IpAddr, SocketAddr};

use super::request_id::RequestId;
use crate::http::fault::Cause;
use crate::plan::{BackendId, ListenerId, PoolId, RouteId};

/// What is known of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) request_id: RequestId,
    pub(crate) listener: ListenerId,
    /// Who asks: the peer, or whom a trusted one asks for.
    pub(crate) client: IpAddr,
    /// The other end of the connection.
    pub(crate) peer: SocketAddr,
    /// Whether the client's side is encrypted.
    pub(crate) secure: bool,
    /// What the client was answered; 0 = nothing.
    pub(crate) status: u16,
    /// Read from the client for this exchange, head and framing too.
    pub(crate) request_bytes: u64,
    /// Written to the client for it, head and framing too.
    pub(crate) response_bytes: u64,
    /// None where the request was refused before, or none took it.
    pub(crate) route: Option<RouteId>,
    pub(crate) pool: Option<PoolId>,
    /// Who was asked last.
    pub(crate) backend: Option<BackendId>,
    /// Whether the connection to that backend had been used before.
    pub(crate) reused: bool,
    /// How often backends were asked.
    pub(crate) attempts: u8,
    pub(crate) times: Times,
    pub(crate) term: Term,
}

/// How long what took, in microseconds; none = it did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Waiting for a backend to become free.
    pub(crate) queue: Option<u64>,
    /// Making the connection to the backend that was asked last.
    pub(crate) connect: Option<u64>,
    /// From the whole head of the request to the first byte of the backend's answer.
    pub(crate) first_byte: Option<u64>,
    /// From accept, or from the first byte of a later request, to the end.
    pub(crate) total: u64,
    /// What of the total was spent here, waiting for neither peer.
    pub(crate) own: u64,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    /// As asked.
    #[default]
    Ok,
    Fault(Cause),
    /// A tunnel that one of its ends closed.
    TunnelClosed,
    /// A tunnel in which nothing moved for too long.
    TunnelIdle,
}

impl Term {
    /// The stable token, of the closed list that users see.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        match self {
            Term::Ok => "ok",
            Term::Fault(cause) => cause.row().code,
            Term::TunnelClosed => "tunnel_closed",
            Term::TunnelIdle => "tunnel_idle",
        }
    }
}

impl Record {
    /// Of an exchange that begins on this connection.
    #[must_use]
    pub(crate) fn new(request_id: RequestId, listener: ListenerId, peer: SocketAddr) -> Record {
        Record {
            request_id,
            listener,
            client: peer.ip(),
            peer,
            secure: false,
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            route: None,
            pool: None,
            backend: None,
            reused: false,
            attempts: 0,
            times: Times::default(),
            term: Term::Ok,
        }
    }
}
