//! Hedging: a second copy of a request whose answer is late, at another backend. The first answer
//! counts, and the other is not waited for.
//!
//! Only requests that may be asked twice: idempotent, with no body or one that is at hand, asked
//! for the first time, and of no client that stays with its backend. The copy is a task of its own,
//! because what it has in flight on the ring must end by itself; dropping its handle cancels it. An
//! answer of the copy that is an error is no answer: the first is waited for.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::rescue::Rescue;
use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Deadline, Moment, Tick},
};
use crate::conns;
use crate::http::{
    framing::BodyLength,
    head::{RequestHead, ResponseHead},
};
use crate::net::{
    deadlines::Ended,
    io::{Manner, sleep, spawn},
    leaving::ForClient,
    signal::Signal,
};
use crate::plan::{Hedge as Plan, HedgeAfter};
use crate::proto::{Arriving, Asking, Backend, Client, Waits};
use crate::shared::{counters::Counter, load::Moved, tally::Key};
use crate::worker::{InForce, Pick, Worker};

/// Interim answers that the copy may get, as in any try. None is passed on.
const INTERIM_MAX: u32 = 32;

/// The second copy of a request that is waited for.
pub(super) enum Hedge {
    /// There is none, and will be none.
    Off,
    /// It is sent when this is over.
    Due(Pin<Box<dyn Future<Output = ()>>>),
    Sent(Sent),
}

/// A copy on its way. Dropping it cancels it.
pub(super) struct Sent {
    state: Rc<State>,
    worker: Rc<Worker>,
    pool: PoolId,
    backend: BackendId,
    is_won: bool,
}

/// What the copy's task and its exchange share.
#[derive(Default)]
struct State {
    cancelled: Signal,
    /// The connection, once there is one.
    waits: RefCell<Option<Waits>>,
    won: RefCell<Option<Box<Won>>>,
    is_over: Cell<bool>,
    /// The task of the exchange.
    task: RefCell<Option<Waker>>,
}

/// The answer of the copy, which came first.
pub(super) struct Won {
    pub(super) backend: Backend,
    pub(super) arriving: Arriving,
    pub(super) head: ResponseHead,
    pub(super) pick: Pick,
    pub(super) asked_at: Tick,
    pub(super) sent_at: Moment,
}

/// What is copied of an exchange.
pub(super) struct Copied {
    pub(super) in_force: Rc<InForce>,
    pub(super) pool: PoolId,
    pub(super) head: RequestHead,
    pub(super) length: BodyLength,
    /// The value of Host, if it is not the client's.
    pub(super) host: Option<Vec<u8>>,
    /// With which a new connection begins.
    pub(super) greeting: Vec<u8>,
    pub(super) deadline: Deadline,
}

/// The copy, as its task has it.
struct Copy {
    worker: Rc<Worker>,
    of: Copied,
    pick: Pick,
    body: Vec<u8>,
    client: ForClient,
    state: Rc<State>,
}

impl Hedge {
    /// For a request that begins to wait for its answer.
    #[cold]
    pub(super) fn of(plan: Plan, rescue: &Rescue<'_>, client: &Client) -> Hedge {
        if !rescue.may_be_hedged() || client.held_body().is_none() {
            return Hedge::Off;
        }
        let after = match plan.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Quantile(_) => rescue.view().core.hedge_after(),
        };
        after.map_or(Hedge::Off, |after| {
            Hedge::Due(Box::pin(sleep(after.max(Duration::from_millis(1)))))
        })
    }

    /// Continues it, while the first answer has not begun; returns the copy's answer once it has
    /// come. `send` sends the copy.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce() -> Option<Sent>,
    ) -> Option<Box<Won>> {
        if let Hedge::Due(wait) = self {
            if wait.as_mut().poll(cx) == Poll::Pending {
                return None;
            }
            *self = send().map_or(Hedge::Off, Hedge::Sent);
        }
        let Hedge::Sent(sent) = self else { return None };
        let won = sent.state.won.take();
        if won.is_some() {
            sent.is_won = true;
            sent.worker.count(Counter::HedgesWon);
            *self = Hedge::Off;
        } else {
            sent.state.task.replace(Some(cx.waker().clone()));
        }
        won
    }
}

impl Sent {
    /// Sends a copy of this request there.
    pub(super) fn new(
        worker: &Rc<Worker>,
        of: Copied,
        (client, waiting): (&Client, ForClient),
        pick: Pick,
    ) -> Sent {
        let state = Rc::<State>::default();
        let (pool, backend) = (of.pool, pick.backend());
        let copy = Copy {
            worker: Rc::clone(worker),
            of,
            pick,
            body: client.held_body().unwrap_or_default().to_vec(),
            client: waiting,
            state: Rc::clone(&state),
        };
        spawn(copy.run());
        Sent { state, worker: Rc::clone(worker), pool, backend, is_won: false }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.is_won {
            return;
        }
        let Sent { state, worker, pool, backend, .. } = self;
        worker.count(Counter::HedgesLost);
        worker.counters.tally().add(Key::Tries(*pool, *backend, 0), 1);
        state.cancelled.raise();
        if let Some(waits) = state.waits.take().filter(|_| !state.is_over.get()) {
            waits.end(Ended::Moved);
        }
    }
}

impl Copy {
    async fn run(self) {
        let state = Rc::clone(&self.state);
        let won = Box::pin(self.ask()).await;
        state.is_over.set(true);
        if let Some(won) = won.filter(|_| !state.cancelled.is_raised()) {
            state.won.replace(Some(Box::new(won)));
            state.task.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Asks, and reads the head of the answer; none if that is an error.
    async fn ask(self) -> Option<Won> {
        let Copy { worker, client, of, .. } = &self;
        let Copied { in_force, deadline, .. } = of;
        let timeouts = in_force.plan.pool(of.pool).timeouts;
        let mut backend = self.connection(timeouts.connect).await?;
        self.state.waits.replace(Some(backend.waits()));
        if self.state.cancelled.is_raised() {
            return None;
        }
        backend.begin(false);
        let asking = Asking {
            head: &of.head,
            host: of.host.as_deref(),
            length: of.length,
            before: None,
            held: Some(&self.body),
            body_follows: false,
        };
        let by = || deadline.earlier(worker.clock.after(timeouts.write));
        let (mut room, mut head, mut arriving) =
            (Vec::new(), ResponseHead::default(), Arriving::new(false));
        if !backend.ask(&asking, &mut room, by).await.ok()? {
            return None;
        }
        let sent_at = worker.clock.renew();
        let until = Cell::new(deadline.earlier(worker.clock.after(timeouts.response)));
        let bounds = (&until, &Cell::new(*client));
        for _ in 0..INTERIM_MAX {
            let with = (&in_force.head_limits, &*worker.buffers);
            backend.head(&mut arriving, (&mut head, &mut room), with, bounds).await.ok()?;
            match head.status {
                101 | 500.. => return None,
                100..=199 => {}
                _ => {
                    let (asked_at, pick) = (sent_at.tick(), self.pick);
                    return Some(Won { backend, arriving, head, pick, asked_at, sent_at });
                }
            }
        }
        None
    }

    async fn connection(&self, time: Duration) -> Option<Backend> {
        let Worker { clock, deadlines, .. } = &*self.worker;
        let conns = self.pick.conns();
        if let Some(warm) = conns::warm(conns, clock.tick(), false).await {
            self.worker.count(Counter::BackendReuse);
            return Some(warm);
        }
        let frees = || self.worker.frees_descriptors();
        let patience = self.of.in_force.plan.pool(self.of.pool).timeouts.write;
        let manner = Manner { speaks: true, patience };
        let begins = (&self.of.greeting[..], frees);
        let opening = Box::pin(conns::open(conns, (time, manner), clock, deadlines, begins));
        let opened = self.state.cancelled.or(opening).await;
        let id = self.pick.backend();
        if let Some(Ok(opened)) = opened {
            self.worker.count(Counter::BackendOpened);
            self.of.in_force.pool(self.of.pool).opened(id);
            return Some(opened);
        }
        self.worker.counters.tally().add(Key::Moved(self.of.pool, id, Moved::UNOPENED), 1);
        None
    }
}
