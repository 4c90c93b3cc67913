//! Tunnels: bytes both ways until both sides have ended or both are silent.
//!
//! Two plain loops, each owning its half. Nothing of what passes is understood, and neither
//! connection is used again. A half that is shut down is shut down on the other side, and a reset
//! is passed on as a reset: a clean end would say that all had come. For the same reason one that
//! has lasted as long as it may, or that is open when the process ends, is reset on both sides.
//! A connection that was upgraded comes here from `reply` (whether a 101 was allowed is decided
//! before, in `http::upgrade`), one of a TCP listener from `tcp`.
//! A request that asks for an upgrade may have a body (`docker exec`): what comes from the client
//! belongs to that body up to its end, and to the tunnel behind it (RFC 9110 §7.8). What comes from
//! the backend belongs to the tunnel as soon as it has said 101.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    Exchange, Fetched, Reuse, finish,
    flow::{Broke, Flow},
    pass::{Bounds, Through, pass},
    proof::Proof,
    reply::{self, skip_body},
    upload::Upload,
};
use crate::base::moment::Deadline;
use crate::http::fault::{Cause, Fault, Side};
use crate::net::{clock::Clock, deadlines::Ended};
use crate::observe::{
    record::{Record, Term},
    tries::Tried,
};
use crate::proto::{Backend, Client, Cut, Sink, Sockets, Source, Waits};
use crate::shared::counters::Counter;
use crate::worker::{Gauge, InForce, Pick, Scratch, Worker};

/// The far side of a tunnel.
pub(super) struct Far {
    pub(super) backend: Backend,
    /// What comes from it.
    pub(super) source: Source,
    /// The body of the request, if it is still on its way.
    pub(super) upload: Option<Upload>,
    pub(super) pick: Pick,
    /// What it has yet to show, as a backend of TCP.
    pub(super) proof: Option<Proof>,
}

/// Tells the client that the protocol is switched and relays until the end.
pub(super) async fn run(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Reuse {
    exchange.scratch.record.status = 101;
    let _open = Gauge::up(&worker.core, Counter::Tunnels);
    match Box::pin(switch(worker, client, exchange)).await {
        Ok(far) => {
            let record = std::mem::take(&mut exchange.scratch.record);
            let in_force = Rc::clone(&exchange.in_force);
            let mut passing = Passing { in_force, record, told: None };
            // It may last for hours, and longer than many plans.
            exchange.in_force = exchange.in_force.remnant();
            let reuse = relay(worker, client, &mut passing, far).await;
            exchange.scratch.record = passing.record;
            reuse
        }
        Err(fault) => {
            exchange.scratch.record.fail(fault);
            Reuse::Close
        }
    }
}

/// Tells the client that the protocol is switched.
async fn switch(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<Far, Fault> {
    let Some(fetched) = exchange.fetched.take() else { return Err(Cause::Internal.into()) };
    let timeouts = exchange.in_force.plan.listener(client.peer().listener).timeouts;
    // A held body has been sent with its head.
    skip_body(client, exchange);
    reply::head(worker, exchange, (fetched.length, fetched.id))?;
    let Scratch { response, out, record, .. } = &mut *exchange.scratch;
    finish::count(worker, client, record);
    let by = || worker.clock.after(timeouts.client_write);
    record.response_bytes += client.switch(response, out, by).await?;
    let source = fetched.source.into_tunnel(&worker.buffers);
    let Fetched { backend, upload, pick, .. } = fetched;
    Ok(Far { backend, source, upload, pick, proof: None })
}

/// What is kept of an exchange while bytes pass.
pub(super) struct Passing {
    /// The plan it began under, which is released when bytes pass.
    pub(super) in_force: Rc<InForce>,
    pub(super) record: Record,
    /// For the line of a connection of TCP, if it has one.
    pub(super) told: Option<Box<Told>>,
}

/// What a line tells besides its record.
#[derive(Default)]
pub(super) struct Told {
    /// The host that the client has named.
    pub(super) host: Option<Box<[u8]>>,
    pub(super) tries: Vec<Tried>,
}

/// Relays until the end, and records how that came. The client's connection is of no other use; it
/// is reset if the end may not look clean.
pub(super) async fn relay(
    worker: &Rc<Worker>,
    client: &mut Client,
    passing: &mut Passing,
    far: Far,
) -> Reuse {
    let since = passing.record.is_timed().then(Clock::moment);
    let ended = both_ways(worker, client, passing, far).await;
    let record = &mut passing.record;
    if let Some(since) = since {
        // Whatever a tunnel does, it does at the pace of its ends.
        record.times.waited += Clock::moment().since(since);
        client.take_stalled();
    }
    (record.term, record.ended_by) = (ended.term, Some(ended.by));
    if ended.is_clean { Reuse::Close } else { Reuse::Reset }
}

async fn both_ways(
    worker: &Rc<Worker>,
    client: &mut Client,
    passing: &mut Passing,
    far: Far,
) -> Ending {
    let timeouts = passing.in_force.plan.listener(client.peer().listener).timeouts;
    // It may last for hours, and longer than many plans.
    passing.in_force = passing.in_force.remnant();
    let Far { backend, source: down, upload, pick, proof } = far;
    let near = End::of(Side::Client, client.waits());
    let far = End::of(Side::Backend, backend.waits());
    for end in [&near, &far] {
        end.waits.outlasts(timeouts.tunnel);
        end.waits.tunnels();
    }
    let silence = Silence {
        clock: &worker.clock,
        tunnel: timeouts.tunnel,
        half_closed: timeouts.half_closed,
        over_at: worker.clock.after(timeouts.tunnel_life),
        first: None.into(),
        broken_by: None.into(),
        ours: None.into(),
        proof,
    };
    let early = client.body();
    let up = async {
        match Box::pin(behind(upload, early)).await {
            Ok((early, bytes)) => {
                let early = early.into_tunnel(&worker.buffers);
                let ends = (&near, &far);
                (bytes + pump(worker, early, backend.tunnel(), ends, &silence).await, None)
            }
            Err(why) => {
                near.waits.cut();
                far.waits.cut();
                (0, Some(why))
            }
        }
    };
    let down = pump(worker, down, client.tunnel(), (&far, &near), &silence);
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut sent, mut received) = (None, None);
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(ended) = up.as_mut().poll(cx)
        {
            sent = Some(ended);
        }
        if received.is_none()
            && let Poll::Ready(bytes) = down.as_mut().poll(cx)
        {
            received = Some(bytes);
        }
        if sent.is_some() && received.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let (sent, why) = sent.unwrap_or_default();
    let record = &mut passing.record;
    record.request_bytes += sent;
    record.response_bytes += received.unwrap_or(0);
    record.reset = backend.stream_reset();
    drop(pick);
    let ended = match why.flatten() {
        Some(Fault { side: by, cause }) => Ending { term: Term::Fault(cause), by, is_clean: true },
        None => silence.ending(),
    };
    if let Some(proof) = &silence.proof {
        proof.ends(worker, &ended, received.unwrap_or(0));
    }
    if ended.is_clean {
        near.waits.tunnels_no_more();
    }
    ended
}

/// How a tunnel has ended.
pub(super) struct Ending {
    pub(super) term: Term,
    /// Who brought that about.
    pub(super) by: Side,
    /// Whether it may look to both ends as if all had been said.
    is_clean: bool,
}

/// The bytes that the client sent after its request, once that is whole; and how many bytes an
/// upload took of it. If there are none through the client's fault, why.
async fn behind(
    upload: Option<Upload>,
    source: Option<Source>,
) -> Result<(Source, u64), Option<Fault>> {
    let (source, bytes) = match upload {
        None => (source, 0),
        Some(mut upload) => {
            upload.end().await;
            if !upload.is_whole() {
                return Err(upload.fault_of_client());
            }
            upload.into_source()
        }
    };
    source.map(|source| (source, bytes)).ok_or(None)
}

/// One end of a tunnel.
struct End {
    side: Side,
    waits: Waits,
    /// Whether a write to it waits for room.
    is_full: Cell<bool>,
}

impl End {
    fn of(side: Side, waits: Waits) -> End {
        End { side, waits, is_full: false.into() }
    }
}

/// How long a tunnel may last, and be silent; and how it ends.
struct Silence<'a> {
    clock: &'a Clock,
    tunnel: Duration,
    /// From when one end has closed its half on.
    half_closed: Duration,
    /// When it has lasted as long as it may.
    over_at: Deadline,
    /// The end that was the first to close its half.
    first: Cell<Option<Side>>,
    /// The end that has broken its connection, and not closed it.
    broken_by: Cell<Option<Side>>,
    /// Why we ended it, if we did.
    ours: Cell<Option<Ours>>,
    proof: Option<Proof>,
}

/// Why we end a tunnel.
#[derive(Clone, Copy)]
enum Ours {
    /// Nothing has moved for too long.
    Idle,
    /// It has lasted as long as it may.
    Expired,
    /// The worker stops.
    Drained,
}

impl Silence<'_> {
    /// The next byte must move by then.
    fn by(&self) -> Deadline {
        let by = self.clock.after(self.tunnel).earlier(self.over_at);
        match self.first.get() {
            Some(_) => by.earlier(self.clock.after(self.half_closed)),
            None => by,
        }
    }

    /// One end has closed its half. The other direction, which is waited for already, has less time
    /// now.
    fn one_ends(&self, from: &End, to: &End) {
        self.first.set(self.first.get().or(Some(from.side)));
        self.clock.renew();
        to.waits.read_by(self.by());
        if from.is_full.get() {
            from.waits.write_by(self.by());
        }
    }

    /// A direction has failed: nothing can follow in either.
    fn fails(&self, (from, to): (&End, &End), broken: &End) {
        if self.ours.get().is_some() || self.broken_by.get().is_some() {
            // The other direction has said why.
            return;
        }
        self.ours.set(self.reason(from, to));
        match self.ours.get() {
            // Nothing is under way.
            Some(Ours::Idle) => [to, from].into_iter().for_each(|end| end.waits.cut()),
            Some(Ours::Expired | Ours::Drained) => [to, from].into_iter().for_each(|end| {
                end.waits.breaks();
                end.waits.end(Ended::Closed);
            }),
            // The other direction waits for `to` at most, or has yet to write what `to` has sent.
            None => {
                self.broken_by.set(Some(broken.side));
                from.waits.breaks();
                to.waits.breaks();
                to.waits.end_hearing();
            }
        }
    }

    /// Why we have ended a wait for one of these, if we have.
    fn reason(&self, from: &End, to: &End) -> Option<Ours> {
        if from.waits.is_closed() || to.waits.is_closed() {
            return Some(Ours::Drained);
        }
        let is_late = from.waits.is_overdue() || to.waits.is_overdue();
        let is_over = self.over_at.is_over(self.clock.tick());
        is_late.then_some(if is_over { Ours::Expired } else { Ours::Idle })
    }

    fn ending(&self) -> Ending {
        let (term, by) = match (self.ours.get(), self.broken_by.get()) {
            (Some(Ours::Idle), _) => (Term::TunnelIdle, Side::Proxy),
            (Some(Ours::Expired), _) => (Term::TunnelExpired, Side::Proxy),
            (Some(Ours::Drained), _) => (Term::TunnelDrained, Side::Proxy),
            (None, Some(Side::Client)) => (Term::Fault(Cause::ClientAbort), Side::Client),
            (None, Some(by)) => (Term::Cut(Cause::ResponseIncomplete), by),
            (None, None) => (Term::TunnelClosed, self.first.get().unwrap_or(Side::Proxy)),
        };
        let is_clean = matches!(term, Term::TunnelClosed | Term::TunnelIdle);
        Ending { term, by, is_clean }
    }
}

/// Relays one direction until its end, which is passed on as a half-close; returns how many bytes
/// came.
async fn pump(
    worker: &Worker,
    source: Source,
    sink: Sink,
    (from, to): (&End, &End),
    silence: &Silence<'_>,
) -> u64 {
    let bounds = Tunneling { from, to, silence };
    let (ended, received) = match source.between_sockets(&sink) {
        Ok(Sockets { from, to, first }) => {
            drop(sink);
            let (received, is_bulk) = (Cell::new(0), Cell::new(false));
            let flow = Flow { worker, from: &from, to: &to, bounds, received, is_bulk };
            (flow.run(first).await, flow.received.get())
        }
        Err(source) => Box::pin(by_pieces(source, sink, bounds)).await,
    };
    match ended {
        Ok(()) => {
            to.waits.end_saying();
            silence.one_ends(from, to);
        }
        Err(broke) => {
            let broken = if broke == Broke::From { from } else { to };
            silence.fails((from, to), broken);
        }
    }
    received
}

/// The same where an end is a stream of HTTP/2; also how many bytes came.
async fn by_pieces(
    mut source: Source,
    mut sink: Sink,
    bounds: Tunneling<'_>,
) -> (Result<(), Broke>, u64) {
    let bounds = Bounds::Tunnel(bounds);
    let passed = pass(&mut source, &mut sink, &mut Through::these(&[]), &bounds).await;
    let ended = passed.map_err(|cut| match cut {
        Cut::From(_) => Broke::From,
        Cut::To(_) => Broke::To,
    });
    (ended, source.received())
}

/// The bounds of one direction. Traffic in one keeps the other one open too.
pub(super) struct Tunneling<'a> {
    from: &'a End,
    to: &'a End,
    silence: &'a Silence<'a>,
}

impl Tunneling<'_> {
    pub(super) fn reads(&self) -> Deadline {
        self.silence.by()
    }

    pub(super) fn has_come(&self) {
        self.to.waits.read_by(self.silence.by());
        if let (Side::Backend, Some(proof)) = (self.from.side, &self.silence.proof) {
            proof.has_come(self.silence.clock.tick());
        }
    }

    /// Waiting for room is no silence, as each wait means that the one before moved something.
    pub(super) fn writes(&self) -> Deadline {
        self.to.is_full.set(true);
        self.from.waits.read_by(self.silence.by());
        self.silence.by()
    }

    pub(super) fn has_gone(&self) {
        self.to.is_full.set(false);
    }
}
