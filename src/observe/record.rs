//! The record of an exchange: what the log and the counters will say about it.
//!
//! Numbers, ids and ranges only: names are in the plan and text in the request's head, both of
//! which the exchange holds to its end. Filled on the way, read once. It never decides anything.

use std::net::{IpAddr, SocketAddr};

use super::request_id::RequestId;
use crate::base::moment::Micros;
use crate::http::{
    fault::{Cause, Fault, Side, StreamReset},
    forward,
    head::{RequestHead, Version},
    headers::{Headers, Span},
    names::Name,
};
use crate::plan::{BackendId, ListenerId, PoolId, RouteId};
use crate::policy::sticky;

/// The record of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    /// The status of the client's answer; 0 = none.
    pub(crate) status: u16,
    pub(crate) term: Term,
    /// Who ended a tunnel, or a connection of TCP; none for a request.
    pub(crate) ended_by: Option<Side>,
    /// Read from the client for this exchange, including head and framing.
    pub(crate) request_bytes: u64,
    /// Written to the client for it, including head and framing.
    pub(crate) response_bytes: u64,
    /// None if the request was refused before, or matched no route.
    pub(crate) route: Option<RouteId>,
    pub(crate) pool: Option<PoolId>,
    /// The backend asked last.
    pub(crate) backend: Option<BackendId>,
    /// Whether the connection to that backend had been used before.
    pub(crate) reused: bool,
    /// How often backends were asked.
    pub(crate) attempts: u8,
    /// The outcome of the client's cookie; none = the pool is not sticky, or none of it answered.
    pub(crate) sticky: Option<sticky::CookieReading>,
    /// How the stream of either side ended, if it was reset.
    pub(crate) reset: Option<StreamReset>,
    /// Made when something needs it, at the latest for a backend; also the id of a trace that
    /// begins with it.
    pub(crate) request_id: Option<RequestId>,
    /// Whether the exchange is logged.
    pub(crate) logged: bool,
    /// Whether its times are counted: the first exchange of each millisecond on a core is a sample.
    pub(crate) sampled: bool,
    /// The client: the peer, or the one that a trusted peer asks for. Known if it is logged.
    pub(crate) client: Option<IpAddr>,
    /// Measured if it is logged or sampled.
    pub(crate) times: Times,
}

/// Durations of the steps; none = the step did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Waiting for a backend to become free.
    pub(crate) queue: Option<Micros>,
    /// Finding a connection that is kept to the backend that was asked last.
    pub(crate) pool: Option<Micros>,
    /// Making the connection to the backend that was asked last.
    pub(crate) connect: Option<Micros>,
    /// From the whole head of the request to the first byte of the backend's final answer.
    pub(crate) first_byte: Option<Micros>,
    /// The wait for the first byte of that answer, after the request was sent.
    pub(crate) answer: Option<Micros>,
    /// From accept, or from the first byte of a later request, to the whole head of the request.
    /// Zero if it was there at once, and is not logged.
    pub(crate) header: Micros,
    /// From then on to the end.
    pub(crate) rest: Micros,
    /// The part of the rest that was spent waiting for either peer.
    pub(crate) waited: Micros,
}

impl Record {
    /// Whether the steps of the exchange are timed.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.logged || self.sampled
    }

    /// Records a fault.
    pub(crate) fn fail(&mut self, fault: Fault) {
        self.term = Term::Fault(fault.cause);
    }
}

impl Times {
    /// Records how long it took until a connection was made, or failed.
    pub(crate) fn connected(&mut self, took: Micros) {
        self.connect = Some(took);
        self.waited += took;
    }

    /// All of it.
    #[must_use]
    pub(crate) fn total(&self) -> Micros {
        self.header + self.rest
    }

    /// The part that was spent here.
    #[must_use]
    pub(crate) fn own(&self) -> Micros {
        self.rest - self.waited
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    /// As asked.
    #[default]
    Ok,
    Fault(Cause),
    /// The answer was cut after its head had gone out.
    Cut(Cause),
    /// A tunnel that one of its ends closed.
    TunnelClosed,
    /// A tunnel in which nothing moved for too long.
    TunnelIdle,
    /// A tunnel that had lasted as long as it may.
    TunnelExpired,
    /// A tunnel that was open when the process ended.
    TunnelDrained,
}

impl Term {
    /// The stable token, of the closed list that users see.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        self.row().0
    }

    /// The token, and what it means.
    pub(crate) fn row(self) -> (&'static str, &'static str) {
        match self {
            Term::Ok => ("ok", "The answer was passed on to its end, whatever its status"),
            Term::Fault(cause) | Term::Cut(cause) => (cause.row().code, cause.row().sentence),
            Term::TunnelClosed => ("tunnel_closed", "One end of the tunnel closed it"),
            Term::TunnelIdle => ("tunnel_idle", "No byte moved in the tunnel for too long"),
            Term::TunnelExpired => ("tunnel_expired", "The tunnel had lasted as long as it may"),
            Term::TunnelDrained => ("tunnel_drained", "The tunnel was open when Ringway ended"),
        }
    }
}

/// The client of an exchange and its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) listener: ListenerId,
    /// The address of the client: the peer's, or what a trusted peer says; none if the peer is on
    /// this machine and has none.
    pub(crate) client: Option<IpAddr>,
    /// The other end of the connection; none if that is a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether the client's side is encrypted.
    pub(crate) secure: bool,
}

/// What a proxy in front has told of a client's connection: the protocol, the host, an id, and of
/// TLS the version, the suite and the name in the client's certificate.
pub(crate) type Told<'a> = [Option<&'a [u8]>; 6];

/// The parts of a request in its head, as received: taken before the head is edited. Edits only
/// mark and append, so these ranges of the head's bytes stay valid.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: Span,
    pub(crate) version: Version,
    pub(crate) host: Span,
    pub(crate) target: Span,
    pub(crate) path: Span,
    pub(crate) query: Span,
    pub(crate) user_agent: Option<Span>,
    pub(crate) referer: Option<Span>,
    /// The id of the trace that it brings.
    pub(crate) trace: Option<Span>,
}

impl Asked {
    pub(crate) fn of(head: &RequestHead) -> Asked {
        Asked {
            method: head.method_span,
            version: head.version,
            host: head.authority,
            target: head.target,
            path: head.path,
            query: head.query,
            user_agent: value_of(&head.headers, Name::UserAgent),
            referer: value_of(&head.headers, Name::Referer),
            trace: forward::trace_id(&head.headers),
        }
    }
}

fn value_of(headers: &Headers, name: Name) -> Option<Span> {
    headers.iter().find(|field| field.known == name).map(|field| field.value)
}
