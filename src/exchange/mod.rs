//! One request and its answer.
//!
//! Floor 8, the spine. `run.rs` shows every step by name; each other file is one step. Decisions
//! are made in `policy` and `http`, input and output is done in `proto` and `conns`; this folder is
//! the order in which it happens.
//!
//! ```text
//! head read ─▶ answer ─┬─▶ own answer (OPTIONS) ─────────────────────────┐
//!                      ├─▶ fault ────────────────────────────────────────┤
//!                      └─▶ fetch ─▶ choose ─▶ queue ─▶ attempt ─▶ tried  │
//!                                     ▲                           │      │
//!                                     └──── retry ◀── not taken ──┤      │
//!                                                          taken  ▼      ▼
//!              record ◀─ kept or closed ◀─ body passed ◀── reply: head and first piece
//!                                                     └──▶ tunnel (101)
//! ```
//!
//! A connection of a TCP listener has no heads: `tcp.rs` connects it and hands it to the tunnel.

mod attempt;
mod choose;
mod download;
#[cfg(test)]
mod duplex_wire_tests;
mod early;
pub(crate) mod explain;
mod finish;
mod flow;
mod hedge;
mod pace;
mod pass;
mod proof;
mod queue;
mod replay;
mod reply;
mod rescue;
mod retry;
pub(crate) mod run;
mod sticky;
pub(crate) mod tcp;
mod tunnel;
mod upload;
#[cfg(test)]
mod wire_tests;

use std::rc::Rc;

use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Deadline, Micros, Moment, Tick},
};
use crate::http::{
    fault::{Fault, Side},
    framing::BodyLength,
    head::ResponseHead,
};
use crate::net::{
    clock::Clock,
    leaving::{ForClient, Leaves},
};
use crate::observe::{
    record::Asked,
    request_id::IdText,
    tries::{Tried, Why},
};
use crate::plan::Pool;
use crate::policy::{
    balance::Needs,
    blame::Body,
    retry::{Attempt, TryOutcome},
};
use crate::proto::{Backend, Client, Source, peer::Peer};
use crate::shared::{counters::Counter, request_times::Phase};
use crate::worker::{Gauge, InForce, Pick, Scratch, Worker};

pub(crate) use self::finish::log_refused;
use self::{download::Pause, replay::Kept, upload::Upload};

/// One request and its answer.
pub(crate) struct Exchange {
    /// The plan it began under.
    pub(crate) in_force: Rc<InForce>,
    /// Its heads (the request's as it was rewritten) and its record.
    pub(crate) scratch: Box<Scratch>,
    pub(crate) pool: PoolId,
    /// When all of it must be over.
    pub(crate) deadline: Deadline,
    /// The length of the request's body.
    pub(crate) length: BodyLength,
    pub(crate) last: Try,
    pub(crate) tries: Tries,
    /// The answer of a backend, until it is sent.
    fetched: Option<Fetched>,
    /// Since when it waits or has waited in front of the pool, if it has.
    pub(crate) queued_since: Option<Tick>,
    /// When the head of the request was complete.
    pub(crate) began: Moment,
    _under_way: Gauge,
}

/// That an exchange is under way, and since when.
struct UnderWay {
    began: Moment,
    gauge: Gauge,
}

/// The try under way (between tries, the last one), apart from its result.
pub(crate) struct Try {
    /// When its answer must begin.
    pub(crate) deadline: Deadline,
    /// Whether any byte of the request was handed to the kernel.
    pub(crate) is_sent: bool,
    /// When the head was sent; until then, when the try began.
    pub(crate) asked_at: Tick,
    /// The same by the precise clock, as of its last reading on this core.
    pub(crate) sent_at: Moment,
    /// Start of its timing: when the request was sent; until then, when the try began. None if it
    /// is not timed.
    pub(crate) timed_from: Option<Moment>,
    /// How much of the body the backend has taken.
    pub(crate) body: Body,
    /// How often this core had learned of lost backends when it began.
    pub(crate) losses: u64,
}

/// What earlier tries leave to the next one.
#[derive(Default)]
pub(crate) struct Tries {
    /// How many count against `retry.attempts`: not those that met a stale connection.
    pub(crate) count: u8,
    /// Whether a connection from the pool turned out to be stale.
    pub(crate) stale_before: bool,
    /// Whether bytes of the body that another try would need are gone.
    pub(crate) body_gone: bool,
    /// Whether the client was sent an interim answer.
    pub(crate) interim_sent: bool,
    /// The part of the body that was sent and is still held.
    pub(crate) kept: Option<Box<Kept>>,
    /// An answer that was declined, in case no better one comes.
    pub(crate) declined: Option<Box<Declined>>,
    /// The backend that is asked instead of one that was taken out.
    pub(crate) instead: Option<Box<Pick>>,
}

/// What will be sent to the client.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// A backend's answer, which the exchange has. Its head is in the scratch.
    Fetched,
    /// An answer of our own, with a body of this length. Its head and body are in the scratch.
    Own(BodyLength),
    /// A backend's 101, which the exchange has: the backend agreed to another protocol.
    Switched,
}

/// A backend's answer: its head has been read, its body is on its way.
pub(crate) struct Fetched {
    pub(crate) id: BackendId,
    pub(crate) backend: Backend,
    /// Its body.
    pub(crate) source: Source,
    pub(crate) length: BodyLength,
    /// The request's body, if it is still on its way.
    pub(crate) upload: Option<Upload>,
    /// When it began, if its end is to be counted.
    pub(crate) began_well_at: Option<Tick>,
    /// How long the client keeps it waiting.
    pub(crate) pause: Pause,
    pub(crate) pick: Pick,
}

/// An answer that called for another try but is better than none.
pub(crate) struct Declined {
    answer: Answer,
    fetched: Option<Fetched>,
    head: ResponseHead,
    backend: Option<BackendId>,
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
    #[inline]
    fn begin(
        worker: &Worker,
        client: &mut Client,
        mut scratch: Box<Scratch>,
        length: BodyLength,
    ) -> Exchange {
        worker.count(Counter::Requests);
        client.begin(scratch.request.keep_alive && !worker.is_draining());
        let began = worker.clock.renew();
        let in_force = worker.in_force();
        scratch.record.sampled = worker.is_sample(began.tick());
        if worker.logs.is_on(client.peer().listener) {
            will_be_logged(&in_force, client, &mut scratch);
        }
        if scratch.record.is_timed() {
            let first = client.began();
            scratch.record.times.header = first.map_or(Micros(0), |first| began.since(first));
            client.time_stalls();
        }
        Exchange::new(worker, in_force, scratch, length, began)
    }

    /// Made where it stays: it is large.
    #[inline(always)]
    fn new(
        worker: &Worker,
        in_force: Rc<InForce>,
        scratch: Box<Scratch>,
        length: BodyLength,
        began: Moment,
    ) -> Exchange {
        let gauge = Gauge::up(&worker.core, Counter::InFlight);
        Exchange::made(in_force, scratch, length, UnderWay { began, gauge })
    }

    /// One that is under way.
    #[inline(always)]
    fn made(
        in_force: Rc<InForce>,
        scratch: Box<Scratch>,
        length: BodyLength,
        UnderWay { began, gauge }: UnderWay,
    ) -> Exchange {
        Exchange {
            _under_way: gauge,
            in_force,
            scratch,
            pool: PoolId(0),
            deadline: Deadline::NEVER,
            length,
            last: Try {
                deadline: Deadline::NEVER,
                is_sent: false,
                asked_at: began.tick(),
                sent_at: began,
                timed_from: None,
                body: Body::Whole,
                losses: 0,
            },
            tries: Tries::default(),
            fetched: None,
            queued_since: None,
            began,
        }
    }

    /// What the algorithm of the pool that answers needs to know.
    #[inline]
    fn needs(&self) -> Needs {
        self.in_force.pool(self.pool).needs()
    }

    /// The client on whose behalf a backend is waited for. `leaves` is the sign that it has left; a
    /// client that may close its half and wait, or that has pipelined requests, leaves by a reset
    /// only.
    #[inline]
    fn for_client(&self, client: &Client, leaves: Leaves) -> ForClient {
        let half_close = self.in_force.plan.listener(client.peer().listener).half_close;
        let may_wait = half_close || client.is_pipelined();
        client.waiting(if may_wait { Leaves::Reset } else { leaves })
    }

    /// The plan of the pool that answers.
    #[inline]
    fn pool_plan(&self) -> &Pool {
        self.in_force.plan.pool(self.pool)
    }
}

/// The id of a request as it is told: what a trusted peer has given, or else ours.
#[cold]
fn id_of(worker: &Worker, peer: &Peer, scratch: &mut Scratch) -> IdText {
    match peer.given_id(&scratch.request) {
        Some(given) => IdText::given(given),
        None => {
            let id = &mut scratch.record.request_id;
            (*id.get_or_insert_with(|| worker.request_id(worker.clock.renew()))).into()
        }
    }
}

/// The PROXY header with which a connection to a backend of the pool begins; empty if there is
/// none.
fn greeting(pool: &Pool, client: &Client) -> Vec<u8> {
    let Some(version) = pool.send_proxy else { return Vec::new() };
    client.peer().introduction(version, client.local_address())
}

/// Notes what the access log will need.
#[cold]
fn will_be_logged(in_force: &InForce, client: &Client, scratch: &mut Scratch) {
    let trusted = &in_force.plan.listener(client.peer().listener).trusted_proxies;
    let record = &mut scratch.record;
    record.logged = true;
    record.client = client.peer().client(&scratch.request, trusted);
    scratch.asked = Asked::of(&scratch.request);
}

impl Exchange {
    /// Keeps an answer while others are asked.
    fn decline(&mut self, answer: Answer) {
        let head = std::mem::take(&mut self.scratch.response);
        let backend = self.scratch.record.backend;
        let mut fetched = self.fetched.take();
        if let Some(fetched) = &mut fetched
            && fetched.began_well_at.take().is_some()
        {
            // Its end is not waited for any more.
            self.in_force.pool(self.pool).whole(fetched.id);
        }
        self.tries.declined = Some(Box::new(Declined { answer, fetched, head, backend }));
    }

    /// Notes that the present try was overtaken by a copy of the request.
    #[cold]
    fn note_hedged(&mut self) {
        let of = (self.scratch.record.backend, self.scratch.record.reused);
        self.note_try(of, (Phase::FirstByte, None), Clock::moment());
        if let Some(tried) = self.scratch.tries.last_mut() {
            (tried.why, tried.next_at) = (Some(Why::Hedged), self.last.sent_at);
        }
    }

    /// Notes how a try of this backend, on a connection that was in use before or not, ended.
    #[cold]
    fn note_try(
        &mut self,
        (backend, reused): (Option<BackendId>, bool),
        (phase, fault): (Phase, Option<TryOutcome>),
        ended: Moment,
    ) {
        let Scratch { record, tries, .. } = &mut *self.scratch;
        let Some(backend) = backend else { return };
        // The first began after a wait in the queue.
        let took = match tries.last() {
            Some(last) => ended.since(last.next_at),
            None => ended.since(self.began) - record.times.queue.unwrap_or_default(),
        };
        let (why, next_at) = (None, ended);
        tries.push(Tried { backend, reused, phase, fault, took, why, next_at });
    }

    /// What the client gets if no other backend is asked: an earlier try's answer if the last try
    /// gave none.
    #[inline]
    fn or_declined(&mut self, result: Result<Answer, Fault>) -> Result<Answer, Fault> {
        if self.tries.declined.is_none() {
            return result;
        }
        match (result, self.tries.declined.take()) {
            (Err(fault), Some(declined)) if fault.side != Side::Client => {
                let Declined { answer, fetched, head, backend } = *declined;
                self.fetched = fetched;
                self.scratch.response = head;
                self.scratch.record.backend = backend;
                Ok(answer)
            }
            (result, _) => result,
        }
    }

    /// The last try, as the retry rules see it.
    fn attempt(&self, outcome: TryOutcome) -> Attempt {
        Attempt {
            method: self.scratch.request.method,
            outcome,
            tries: self.tries.count,
            stale_before: self.tries.stale_before,
            request_sent: self.last.is_sent,
            body_gone: self.tries.body_gone,
            answered: self.tries.interim_sent,
        }
    }
}
