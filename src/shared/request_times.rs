//! How long requests took on one core: those of each route, their phases, and what of that was
//! spent here and not waiting for a peer.
//!
//! A thread's slab has one of these, which that thread alone writes; any thread reads it. The
//! histogram of a route comes into being with the first of its requests that is timed, so a route
//! that nobody asks takes no room. It never moves.

use std::sync::OnceLock;

use super::durations::Durations;
use crate::base::{histogram::Reading, ids::RouteId, moment::Micros};

/// What of requests is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timed {
    /// All of a request of this route; none = no route took it.
    Request(Option<RouteId>),
    /// What it spent here, and not waiting for either peer.
    Own,
    /// One of its phases.
    Phase(Phase),
}

/// The phases of a connection and of its requests, in order. All but the first are waits for a
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// For a core to accept a connection whose handshake is over, as the kernel counts it: in
    /// milliseconds.
    Accept,
    /// For the handshake of TLS with a client.
    Tls,
    /// For the whole head of a request: of the first one from accept on, of the next ones from
    /// their first byte.
    Header,
    /// For a backend to have room.
    Queue,
    /// For a connection to a backend that is kept: the kernel says whether it is still open.
    Pool,
    /// For a new connection to a backend.
    Connect,
    /// For the first byte of the answer, from when the request was sent.
    FirstByte,
    /// From the first byte of the answer to the end of the request.
    Body,
    /// For a client that takes its answer slowly: a part of the body.
    Client,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 9] = [
        Phase::Accept,
        Phase::Tls,
        Phase::Header,
        Phase::Queue,
        Phase::Pool,
        Phase::Connect,
        Phase::FirstByte,
        Phase::Body,
        Phase::Client,
    ];

    /// The word that metrics have for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Phase::Accept => "accept",
            Phase::Tls => "tls",
            Phase::Header => "header",
            Phase::Queue => "queue",
            Phase::Pool => "pool",
            Phase::Connect => "connect",
            Phase::FirstByte => "first_byte",
            Phase::Body => "body",
            Phase::Client => "client",
        }
    }
}

/// Routes are kept in so many blocks, each made when it is first used: together all that an id can
/// name.
const BLOCKS: usize = 256;
const BLOCK: usize = 256;

type Block = Box<[OnceLock<Box<Durations>>]>;

/// How long requests took on one core.
pub(crate) struct RequestTimes {
    own: Durations,
    phases: [Durations; Phase::ALL.len()],
    unrouted: Durations,
    routes: Box<[OnceLock<Block>]>,
}

impl RequestTimes {
    pub(crate) fn new() -> RequestTimes {
        RequestTimes {
            own: Durations::new(),
            phases: [const { Durations::new() }; Phase::ALL.len()],
            unrouted: Durations::new(),
            routes: (0..BLOCKS).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts a time. Only their thread may call it.
    pub(crate) fn record(&self, what: Timed, time: Micros) {
        if let Timed::Request(Some(route)) = what
            && let Some(block) = self.routes.get(route.index() / BLOCK)
        {
            let block = block.get_or_init(|| (0..BLOCK).map(|_| OnceLock::new()).collect());
            let times = block.get(route.index() % BLOCK);
            times.iter().for_each(|times| times.get_or_init(Box::default).record(time));
        } else if let Some(times) = self.of(what) {
            times.record(time);
        }
    }

    /// What has been counted; none = it was never counted.
    pub(crate) fn read(&self, what: Timed) -> Option<Reading> {
        self.of(what).map(Durations::read)
    }

    /// Forgets a route: it is gone, and its seat may be given to another. Any thread may call it.
    pub(crate) fn forget(&self, route: RouteId) {
        self.of(Timed::Request(Some(route))).into_iter().for_each(Durations::forget);
    }

    fn of(&self, what: Timed) -> Option<&Durations> {
        match what {
            Timed::Own => Some(&self.own),
            Timed::Phase(phase) => self.phases.get(phase as usize),
            Timed::Request(None) => Some(&self.unrouted),
            Timed::Request(Some(route)) => {
                let block = self.routes.get(route.index() / BLOCK)?.get()?;
                Some(block.get(route.index() % BLOCK)?.get()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_where_it_belongs_and_routes_take_no_room_before() {
        let times = RequestTimes::new();
        let all = [0, 1, 255, 256, u16::MAX].map(|id| Timed::Request(Some(RouteId(id))));
        let all = all.into_iter().chain([Timed::Request(None), Timed::Own]);
        let all: Vec<_> = all.chain(Phase::ALL.map(Timed::Phase)).collect();
        assert!(times.read(all[0]).is_none());
        for (what, micros) in all.iter().zip(1_u64..) {
            times.record(*what, Micros(micros));
        }
        for (what, micros) in all.iter().zip(1_u64..) {
            assert_eq!(times.read(*what).unwrap().micros, micros, "{what:?}");
        }
        assert!(times.read(Timed::Request(Some(RouteId(2)))).is_none());
        times.forget(RouteId(1));
        times.forget(RouteId(2));
        let left = |what| times.read(what).map(|reading| reading.micros);
        assert_eq!((left(all[0]), left(all[1])), (Some(1), Some(0)));
    }
}
