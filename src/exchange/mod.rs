//! One request and its answer.
//!
//! Floor 8, the spine: `run.rs` shows every step by name, each other file is one of them. What is
//! decided is decided by `policy` and `http`; what happens on sockets happens in `proto` and
//! `conns`; here is the order in which it happens.

mod attempt;
mod body;
mod finish;
mod reply;
pub(crate) mod run;
mod tunnel;

use std::rc::Rc;

use crate::base::ids::{BackendId, PoolId};
use crate::http::framing::BodyLength;
use crate::net::buffer::Buffer;
use crate::plan::Pool;
use crate::policy::retry::{Attempt, Outcome};
use crate::proto::h1::{Backend, Client, Incoming};
use crate::shared::counters::Counter;
use crate::worker::{InFlight, InForce, Scratch, Worker};

use self::body::Upload;

/// One request and its answer.
pub(crate) struct Exchange {
    /// The plan it began under.
    pub(crate) in_force: Rc<InForce>,
    /// Its heads, the request's as the rules have left it, and its record.
    pub(crate) scratch: Box<Scratch>,
    pub(crate) pool: PoolId,
    /// When all of it must be over, in coarse milliseconds; 0 = never.
    pub(crate) deadline: u64,
    /// How long the request's body is.
    pub(crate) length: BodyLength,
    /// Tries so far that count.
    pub(crate) tries: u8,
    /// Whether a connection from the pool turned out to be stale.
    pub(crate) stale_before: bool,
    /// Whether the last try handed any byte of the request to the kernel.
    pub(crate) request_sent: bool,
    /// Whether bytes of the body are gone that a further try would need.
    pub(crate) body_gone: bool,
    /// Whether the client has seen an interim answer.
    pub(crate) interim_sent: bool,
    /// Whether the client's connection may be kept after this.
    pub(crate) keep_alive: bool,
    /// Whether the end of the connection is the end of the answer's body.
    pub(crate) ends_by_close: bool,
    /// When its head was whole, in microseconds of the precise clock.
    pub(crate) began: u64,
}

/// What will be sent to the client, wherever it came from.
pub(crate) enum Answer {
    /// A backend's; its head stands in the exchange's scratch.
    Fetched(Box<Fetched>),
    /// Our own, whole, in the exchange's scratch.
    Own { status: u16 },
    /// The backend agreed to another protocol.
    Switched(Box<Fetched>),
}

/// A backend's answer: its head has been read, its body is on its way.
pub(crate) struct Fetched {
    pub(crate) id: BackendId,
    pub(crate) backend: Backend,
    /// What came behind the head; not here while it is being sent.
    pub(crate) buffer: Option<Buffer>,
    pub(crate) body: Incoming,
    pub(crate) length: BodyLength,
    /// The request's body, where it is still on its way.
    pub(crate) upload: Option<Upload>,
    pub(crate) in_flight: InFlight,
}

/// Whether the client's connection serves another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    Keep,
    /// Closed at once.
    Close,
    /// Closed when the client has seen the answer: not all of its request was read.
    Linger,
    /// Closed by a reset, so that what it was sent cannot look complete.
    Reset,
}

impl Exchange {
    fn begin(
        worker: &Worker,
        client: &Client,
        scratch: Box<Scratch>,
        length: BodyLength,
    ) -> Exchange {
        worker.count(Counter::Requests);
        worker.counters.add(Counter::InFlight, 1);
        let began = worker.clock.renew();
        let mut exchange = Exchange {
            in_force: worker.in_force(),
            keep_alive: scratch.request.keep_alive && !worker.is_draining(),
            scratch,
            pool: PoolId(0),
            deadline: 0,
            length,
            tries: 0,
            stale_before: false,
            request_sent: false,
            body_gone: false,
            interim_sent: false,
            ends_by_close: false,
            began,
        };
        if worker.logs.is_on(client.peer.listener) {
            finish::expect(client, &mut exchange);
        }
        exchange
    }

    /// The plan of the pool that answers.
    #[inline]
    fn plan(&self) -> &Pool {
        self.in_force.plan.pool(self.pool)
    }
}

impl Exchange {
    /// The last try, as the retry rules see it.
    fn attempt(&self, outcome: Outcome) -> Attempt {
        Attempt {
            method: self.scratch.request.method,
            outcome,
            tries: self.tries,
            stale_before: self.stale_before,
            request_sent: self.request_sent,
            body_gone: self.body_gone,
            answered: self.interim_sent,
        }
    }
}
