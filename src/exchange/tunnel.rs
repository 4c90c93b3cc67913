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

use std::{cell::Cell, future::Future, pin::Pin, rc::Rc, time::Duration};

use super::{
    Exchange, Fetched, Reuse, finish,
    flow::{Broke, Flow, Next},
    pass::{Bounds, Through, pass},
    proof::Proof,
    reply::{self, skip_body},
    upload::Upload,
};
use crate::base::moment::{Deadline, Moment};
use crate::http::fault::{Cause, Fault, Side};
use crate::net::{buffer::Buffer, clock::Clock, deadlines::Ended, fd::Both, stream::InVain};
use crate::observe::{
    record::{Record, Term},
    tries::Tried,
};
use crate::plan::ListenerTimeouts;
use crate::proto::{Backend, Client, Cut, Sink, Source, Waits};
use crate::shared::counters::Counter;
use crate::worker::{Gauge, Pick, Scratch, Worker};

/// The far side of a tunnel.
struct Far {
    backend: Backend,
    /// What comes from it.
    source: Source,
    /// The body of the request, if it is still on its way.
    upload: Option<Upload>,
    pick: Pick,
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
            let timeouts = exchange.in_force.plan.listener(client.peer().listener).timeouts;
            // It may last for hours, and longer than many plans.
            exchange.in_force = exchange.in_force.remnant();
            relay(worker, client, &mut exchange.scratch.record, (far, timeouts)).await
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
    Ok(Far { backend, source, upload, pick })
}

/// What a line tells besides its record.
#[derive(Default)]
pub(super) struct Told {
    /// The host that the client has named.
    pub(super) host: Option<Box<[u8]>>,
    pub(super) tries: Vec<Tried>,
}

/// Relays between a client and its backend, and records how that ended. The client's connection is
/// of no other use; it is reset if the end may not look clean.
async fn relay(
    worker: &Rc<Worker>,
    client: &mut Client,
    record: &mut Record,
    (far, timeouts): (Far, ListenerTimeouts),
) -> Reuse {
    let since = record.is_timed().then(Clock::moment);
    let Far { backend, source, upload, pick } = far;
    let tunnel = Tunnel::new(worker, (client.waits(), backend.waits()), (timeouts, None));
    let up = tunnel.begin_up((upload, client.body()), backend.tunnel());
    let down = tunnel.begin(Way::Down, source, client.tunnel());
    tunnel.relay(up, down).await;
    record.reset = backend.stream_reset();
    tunnel.counts_for(&pick, record);
    drop(pick);
    client.take_stalled();
    tunnel.ended(record, since)
}

/// One end of a tunnel, and the bytes that come from it.
struct End {
    waits: Waits,
    /// Whether a write to it waits for room.
    is_full: Cell<bool>,
    /// Whether much comes from it at a time.
    is_bulk: Cell<bool>,
    in_vain: Cell<InVain>,
    /// Bytes that have come from it.
    received: Cell<u64>,
}

impl End {
    fn new(waits: Waits) -> End {
        let [is_full, is_bulk] = Default::default();
        End { waits, is_full, is_bulk, in_vain: Cell::default(), received: Cell::new(0) }
    }
}

/// The way of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the backend.
    Up,
    Down,
}

/// A tunnel: its two ends, how long it may last and be silent, and how it ends.
pub(super) struct Tunnel {
    worker: Rc<Worker>,
    near: End,
    far: End,
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
    /// Why nothing went up.
    fault: Cell<Option<Fault>>,
    /// What its backend has yet to show, if it is one of TCP.
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

/// How a tunnel has ended.
pub(super) struct Ending {
    pub(super) term: Term,
    /// Who brought that about.
    pub(super) by: Side,
    /// Whether it may look to both ends as if all had been said.
    is_clean: bool,
}

/// What one way begins with, in a box: a silent tunnel would keep its room. None if nothing has
/// come and both ends are sockets.
pub(super) type Beginning<'a> = Option<Pin<Box<dyn Future<Output = Begun> + 'a>>>;

/// How one way goes on after that.
pub(super) enum Begun {
    /// From socket to socket.
    Goes,
    Ended(Result<(), Broke>),
    /// There is nothing that could go up, through the client's fault if there is one.
    Never(Option<Fault>),
}

impl Begun {
    /// What follows a write.
    pub(super) fn after(written: Result<(), Broke>) -> Begun {
        written.map_or_else(|broke| Begun::Ended(Err(broke)), |()| Begun::Goes)
    }
}

impl Tunnel {
    pub(super) fn new(
        worker: &Rc<Worker>,
        (near, far): (Waits, Waits),
        (timeouts, proof): (ListenerTimeouts, Option<Proof>),
    ) -> Tunnel {
        for end in [&near, &far] {
            if proof.is_none() {
                end.outlasts(timeouts.tunnel);
            }
            end.tunnels();
        }
        Tunnel {
            worker: Rc::clone(worker),
            near: End::new(near),
            far: End::new(far),
            tunnel: timeouts.tunnel,
            half_closed: timeouts.half_closed,
            over_at: worker.clock.after(timeouts.tunnel_life),
            first: None.into(),
            broken_by: None.into(),
            ours: None.into(),
            fault: None.into(),
            proof,
        }
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// The end that bytes come from, and the one that they go to.
    fn ends(&self, way: Way) -> (&End, &End) {
        match way {
            Way::Up => (&self.near, &self.far),
            Way::Down => (&self.far, &self.near),
        }
    }

    /// What the way up begins with: what the client has sent already, behind its body if that is
    /// still on its way.
    pub(super) fn begin_up<'a>(
        &'a self,
        (upload, early): (Option<Upload>, Option<Source>),
        sink: Sink,
    ) -> Beginning<'a> {
        match (upload, early) {
            (None, Some(early)) => {
                self.begin(Way::Up, early.into_tunnel(&self.worker.buffers), sink)
            }
            (upload, early) => Some(Box::pin(self.behind((upload, early), sink))),
        }
    }

    /// What a way begins with.
    pub(super) fn begin<'a>(&'a self, way: Way, source: Source, sink: Sink) -> Beginning<'a> {
        match source.between_sockets(&sink) {
            Ok(None) => None,
            Ok(Some(first)) => Some(Box::pin(self.passes_first(way, first))),
            Err(source) => Some(Box::pin(self.passes_by_pieces(way, source, sink))),
        }
    }

    /// Passes the bytes that the client sent after its request, once that is whole.
    async fn behind(
        &self,
        (upload, source): (Option<Upload>, Option<Source>),
        sink: Sink,
    ) -> Begun {
        let source = match upload {
            None => source,
            Some(mut upload) => {
                upload.end().await;
                if !upload.is_whole() {
                    return Begun::Never(upload.fault_of_client());
                }
                let (source, bytes) = upload.into_source();
                // Of a request, as far as they are its body.
                self.near.received.set(bytes);
                source
            }
        };
        let Some(source) = source else { return Begun::Never(None) };
        match self.begin(Way::Up, source.into_tunnel(&self.worker.buffers), sink) {
            None => Begun::Goes,
            Some(beginning) => beginning.await,
        }
    }

    async fn passes_first(&self, way: Way, first: Buffer) -> Begun {
        self.ends(way).0.came(first.len());
        match self.flow(way) {
            Some(flow) => Begun::after(flow.writes_rest(first, 0).await),
            None => Begun::Never(None),
        }
    }

    /// Relays one way where an end is a stream of HTTP/2.
    async fn passes_by_pieces(&self, way: Way, mut source: Source, mut sink: Sink) -> Begun {
        let bounds = Bounds::Tunnel(Tunneling { tunnel: self, way });
        let passed = pass(&mut source, &mut sink, &mut Through::these(&[]), &bounds).await;
        let received = &self.ends(way).0.received;
        received.set(received.get() + source.received());
        Begun::Ended(passed.map_err(|cut| match cut {
            Cut::From(_) => Broke::From,
            Cut::To(_) => Broke::To,
        }))
    }

    fn flow(&self, way: Way) -> Option<Flow<'_>> {
        let (from, to) = self.ends(way);
        match (&from.waits, &to.waits) {
            (Waits::H1(from), Waits::H1(to)) => {
                let bounds = Tunneling { tunnel: self, way };
                Some(Flow { worker: &self.worker, from, to, bounds })
            }
            (Waits::H1(_) | Waits::H2(_), _) => None,
        }
    }

    /// Relays both ways, until both have ended.
    pub(super) fn relay<'a>(
        &'a self,
        up: Beginning<'a>,
        down: Beginning<'a>,
    ) -> impl Future<Output = ()> + 'a {
        Both::new(self.pump(Way::Up, up), self.pump(Way::Down, down))
    }

    /// Relays one way until its end, which is passed on as a half-close. One block, as each more
    /// would keep its room while the tunnel is silent.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    fn pump<'a>(
        &'a self,
        way: Way,
        mut first: Beginning<'a>,
    ) -> impl Future<Output = ()> + use<'a> {
        async move {
            let ended = loop {
                if let Some(step) = first.take() {
                    match step.await {
                        Begun::Goes => {}
                        Begun::Ended(ended) => break ended,
                        Begun::Never(why) => return self.never(why),
                    }
                }
                let Waits::H1(from) = &self.ends(way).0.waits else { break Err(Broke::From) };
                from.watched().read_by(self.by());
                if from.readable().await.is_err() {
                    break Err(Broke::From);
                }
                match self.flow(way).map_or(Next::End(Err(Broke::To)), Flow::moves) {
                    Next::Move => {}
                    Next::Wait(wait) => first = Some(wait),
                    Next::End(ended) => break ended,
                }
            };
            self.one_way_ends(way, ended);
        }
    }

    /// Nothing can go up.
    #[cold]
    fn never(&self, why: Option<Fault>) {
        self.fault.set(why);
        self.near.waits.cut();
        self.far.waits.cut();
    }

    fn one_way_ends(&self, way: Way, ended: Result<(), Broke>) {
        match (ended, way) {
            (Ok(()), _) => {
                // Both have ended, and the close that comes at once says so, too.
                let is_last = self.first.get().is_some() && self.proof.is_some();
                self.ends(way).1.waits.end_saying(is_last);
                self.one_ends(way);
            }
            (Err(Broke::From), Way::Up) | (Err(Broke::To), Way::Down) => {
                self.fails(way, Side::Client);
            }
            (Err(Broke::From), Way::Down) | (Err(Broke::To), Way::Up) => {
                self.fails(way, Side::Backend);
            }
        }
    }

    /// One end has closed its half. The other direction, which is waited for already, has less time
    /// now.
    fn one_ends(&self, way: Way) {
        let (from, to) = self.ends(way);
        let side = if way == Way::Up { Side::Client } else { Side::Backend };
        self.first.set(self.first.get().or(Some(side)));
        self.worker.clock.renew();
        to.waits.read_by(self.by());
        if from.is_full.get() {
            from.waits.write_by(self.by());
        }
    }

    /// The next byte must move by then.
    fn by(&self) -> Deadline {
        let clock = &self.worker.clock;
        let by = clock.after(self.tunnel).earlier(self.over_at);
        match self.first.get() {
            Some(_) => by.earlier(clock.after(self.half_closed)),
            None => by,
        }
    }

    /// One way has failed, since that end is broken: nothing can follow in either.
    fn fails(&self, way: Way, broken: Side) {
        if self.ours.get().is_some() || self.broken_by.get().is_some() {
            // The other direction has said why.
            return;
        }
        let (from, to) = self.ends(way);
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
                self.broken_by.set(Some(broken));
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
        let is_over = self.over_at.is_over(self.worker.clock.tick());
        is_late.then_some(if is_over { Ours::Expired } else { Ours::Idle })
    }

    fn ending(&self) -> Ending {
        if let Some(Fault { side: by, cause }) = self.fault.get() {
            return Ending { term: Term::Fault(cause), by, is_clean: true };
        }
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

    /// Counts what has passed for its backend, besides what is recorded already.
    pub(super) fn counts_for(&self, pick: &Pick, record: &Record) {
        let [up, down] = [&self.near, &self.far].map(|end| end.received.get());
        pick.moved(record.request_bytes + up, record.response_bytes + down);
    }

    /// Records how it has ended, and what passed; `since` when, if it is timed.
    pub(super) fn ended(&self, record: &mut Record, since: Option<Moment>) -> Reuse {
        let received = self.far.received.get();
        record.request_bytes += self.near.received.get();
        record.response_bytes += received;
        if let Some(since) = since {
            // Whatever a tunnel does, it does at the pace of its ends.
            record.times.waited += Clock::moment().since(since);
        }
        let ending = self.ending();
        if let Some(proof) = &self.proof {
            proof.ends(&self.worker, &ending, received);
        }
        (record.term, record.ended_by) = (ending.term, Some(ending.by));
        if !ending.is_clean {
            return Reuse::Reset;
        }
        self.near.waits.tunnels_no_more();
        Reuse::Close
    }
}

impl End {
    fn came(&self, count: usize) {
        self.received.set(self.received.get() + count as u64);
    }
}

/// One way of a tunnel: its bounds, and what is noted of it. Traffic in one keeps the other one
/// open too.
#[derive(Clone, Copy)]
pub(super) struct Tunneling<'a> {
    tunnel: &'a Tunnel,
    way: Way,
}

impl<'a> Tunneling<'a> {
    pub(super) fn reads(&self) -> Deadline {
        self.tunnel.by()
    }

    pub(super) fn has_come(&self) {
        let (_, to) = self.tunnel.ends(self.way);
        to.waits.read_by(self.tunnel.by());
        if let (Way::Down, Some(proof)) = (self.way, &self.tunnel.proof) {
            proof.has_come(self.tunnel.worker.clock.tick());
        }
    }

    /// The same, of so many bytes; `is_bulk`: much is to be expected.
    pub(super) fn came(&self, count: usize, is_bulk: bool) {
        let (from, _) = self.tunnel.ends(self.way);
        from.came(count);
        from.is_bulk.set(is_bulk);
        from.in_vain.take();
        self.has_come();
    }

    /// Whether nothing has come yet.
    pub(super) fn is_first(&self) -> bool {
        self.tunnel.ends(self.way).0.received.get() == 0
    }

    pub(super) fn is_bulk(&self) -> bool {
        self.tunnel.ends(self.way).0.is_bulk.get()
    }

    /// The waits of its source in vain, since something came.
    pub(super) fn in_vain(&self) -> &'a Cell<InVain> {
        &self.tunnel.ends(self.way).0.in_vain
    }

    /// Waiting for room is no silence, as each wait means that the one before moved something.
    pub(super) fn writes(&self) -> Deadline {
        let (from, to) = self.tunnel.ends(self.way);
        to.is_full.set(true);
        from.waits.read_by(self.tunnel.by());
        self.tunnel.by()
    }

    pub(super) fn has_gone(&self) {
        self.tunnel.ends(self.way).1.is_full.set(false);
    }
}
