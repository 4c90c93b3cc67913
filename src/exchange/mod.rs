//! One request and its answer.
//!
//! Floor 8, the spine: `run.rs` shows every step by name, each other file is one of them. What is
//! decided is decided by `policy` and `http`; what happens on sockets happens in `proto` and
//! `conns`; here is the order in which it happens.

mod again;
mod attempt;
mod choose;
mod download;
mod early;
mod finish;
mod kept;
mod pace;
mod pass;
mod queue;
mod reply;
pub(crate) mod run;
mod sticky;
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
use crate::net::leaving::{ForClient, Leaves};
use crate::observe::record::Asked;
use crate::plan::Pool;
use crate::policy::{
    balance::Needs,
    blame::Body,
    retry::{Attempt, Outcome},
};
use crate::proto::{Backend, Client, Source};
use crate::shared::counters::Counter;
use crate::worker::{Gauge, InForce, Pick, Scratch, Worker};

pub(crate) use self::finish::log_refused;
use self::{download::Pause, kept::Kept, upload::Upload};

/// One request and its answer.
pub(crate) struct Exchange {
    /// The plan it began under.
    pub(crate) in_force: Rc<InForce>,
    /// Its heads, the request's as the rules have left it, and its record.
    pub(crate) scratch: Box<Scratch>,
    pub(crate) pool: PoolId,
    /// When all of it must be over.
    pub(crate) deadline: Deadline,
    /// How long the request's body is.
    pub(crate) length: BodyLength,
    pub(crate) last: Try,
    pub(crate) tries: Tries,
    /// Since when it waits or has waited in front of the pool, if it does.
    pub(crate) queued_since: Option<Tick>,
    /// When its head was whole.
    pub(crate) began: Moment,
    _under_way: Gauge,
}

/// The last try: what is known of it beside what it gave.
pub(crate) struct Try {
    /// When it must have an answer that begins.
    pub(crate) deadline: Deadline,
    /// Whether it handed any byte of the request to the kernel.
    pub(crate) is_sent: bool,
    /// When its backend was asked: when the head was sent, before that when the try began.
    pub(crate) asked_at: Tick,
    /// From when it is timed: once the request has been sent from then on, before that from its
    /// beginning; none = nobody wants to know.
    pub(crate) timed_from: Option<Moment>,
    /// What its backend has got of the body.
    pub(crate) body: Body,
}

/// What the tries so far leave to the next.
#[derive(Default)]
pub(crate) struct Tries {
    /// How many of them count.
    pub(crate) count: u8,
    /// Whether a connection from the pool turned out to be stale.
    pub(crate) stale_before: bool,
    /// Whether bytes of the body are gone that a further try would need.
    pub(crate) body_gone: bool,
    /// Whether the client has seen an interim answer.
    pub(crate) interim_sent: bool,
    /// What of the body was sent and is still held.
    pub(crate) kept: Option<Box<Kept>>,
    /// An answer that was not taken, in case no better one comes.
    pub(crate) declined: Option<Box<Declined>>,
}

/// What will be sent to the client, wherever it came from.
pub(crate) enum Answer {
    /// A backend's; its head stands in the exchange's scratch.
    Fetched(Box<Fetched>),
    /// Our own; its head and its body stand there. How long its body is.
    Own(BodyLength),
    /// The backend agreed to another protocol.
    Switched(Box<Fetched>),
}

/// A backend's answer: its head has been read, its body is on its way.
pub(crate) struct Fetched {
    pub(crate) id: BackendId,
    pub(crate) backend: Backend,
    /// Its body.
    pub(crate) source: Source,
    pub(crate) length: BodyLength,
    /// The request's body, where it is still on its way.
    pub(crate) upload: Option<Upload>,
    /// When it began, where its end is to be counted.
    pub(crate) began_well_at: Option<Tick>,
    /// How long its client keeps it waiting.
    pub(crate) pause: Pause,
    pub(crate) pick: Pick,
}

/// An answer that called for another try, and is better than none.
pub(crate) struct Declined {
    answer: Answer,
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
    fn begin(
        worker: &Worker,
        client: &mut Client,
        scratch: Box<Scratch>,
        length: BodyLength,
    ) -> Exchange {
        worker.count(Counter::Requests);
        client.begin(scratch.request.keep_alive && !worker.is_draining());
        let began = worker.clock.renew();
        let in_force = worker.in_force();
        let mut exchange = Exchange {
            _under_way: Gauge::up(&worker.core, Counter::InFlight),
            in_force,
            scratch,
            pool: PoolId(0),
            deadline: Deadline::NEVER,
            length,
            last: Try {
                deadline: Deadline::NEVER,
                is_sent: false,
                asked_at: began.tick(),
                timed_from: None,
                body: Body::Whole,
            },
            tries: Tries::default(),
            queued_since: None,
            began,
        };
        if worker.logs.is_on(client.peer().listener) {
            exchange.will_be_logged(client);
        }
        exchange
    }

    /// Notes what the log will want to know.
    #[cold]
    fn will_be_logged(&mut self, client: &Client) {
        let Exchange { in_force, scratch, began, .. } = self;
        let trusted = &in_force.plan.listener(client.peer().listener).trusted_proxies;
        let record = &mut scratch.record;
        record.logged = true;
        record.client = client.peer().client(&scratch.request, trusted);
        record.times.waited = client.began().map_or(Micros(0), |first| began.since(first));
        scratch.asked = Asked::of(&scratch.request);
        client.take_stalled();
    }

    /// What the algorithm of the pool that answers needs to know.
    #[inline]
    fn needs(&self) -> Needs {
        self.in_force.pool(self.pool).needs()
    }

    /// The client for whom somebody is waited for; it has left by this, or by less where it may
    /// close its half and wait. A request that was read together with others is answered, whatever
    /// comes behind them.
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

impl Exchange {
    /// Keeps an answer while others are asked.
    fn decline(&mut self, mut answer: Answer) {
        let head = std::mem::take(&mut self.scratch.response);
        let backend = self.scratch.record.backend;
        if let Answer::Fetched(fetched) = &mut answer
            && fetched.began_well_at.take().is_some()
        {
            // Nobody waits for its end any more.
            self.in_force.pool(self.pool).whole(fetched.id);
        }
        self.tries.declined = Some(Box::new(Declined { answer, head, backend }));
    }

    /// What the client gets when nobody else is asked: where the last try gave no answer, the one
    /// that an earlier try gave.
    fn or_declined(&mut self, result: Result<Answer, Fault>) -> Result<Answer, Fault> {
        match (result, self.tries.declined.take()) {
            (Err(fault), Some(declined)) if fault.side != Side::Client => {
                let Declined { answer, head, backend } = *declined;
                self.scratch.response = head;
                self.scratch.record.backend = backend;
                Ok(answer)
            }
            (result, _) => result,
        }
    }

    /// The last try, as the retry rules see it.
    fn attempt(&self, outcome: Outcome) -> Attempt {
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
