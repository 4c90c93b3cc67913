//! One try against one backend: connect, send, wait for a head.
//!
//! After a failure here the client has got nothing but interim answers, and what was sent of its
//! body is recovered if it was kept; so `fetch` may try again. A connection whose answer is not
//! finished is closed by being dropped.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    Answer, Exchange, Fetched, Try,
    download::Pause,
    greeting,
    hedge::{Hedge, Won},
    rescue::{self, Rescue},
    upload::{self, Upload, beside},
};
use crate::base::{
    ids::{BackendId, PoolId},
    moment::Deadline,
};
use crate::conns;
use crate::http::{
    fault::{Cause, Fault},
    forward::{self, ToClient},
    framing::{self, BodyLength},
    head::{RequestHead, Version},
    upgrade,
};
use crate::net::{clock::Clock, io::Manner, leaving::Leaves};
use crate::observe::reports::Limit;
use crate::plan::HostHeader;
use crate::policy::blame::Body;
use crate::proto::{Arriving, Asking, Backend, Client};
use crate::shared::{counters::Counter, load::Moved, tally::Key};
use crate::worker::{InForce, Pick, Scratch, Worker};

/// More interim answers than any honest backend sends before its final one.
const INTERIM_MAX: u32 = 32;

/// Asks the picked backend once. The answer takes the pick with it; without an answer it stays.
pub(super) async fn once(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    pick: &mut Option<Pick>,
) -> Result<Answer, Fault> {
    let Some(picked) = pick else { return Err(Cause::Internal.into()) };
    let is_timed = begin(worker, exchange, picked.backend());
    let patience = exchange.pool_plan().timeouts.write;
    let manner = Manner { speaks: true, patience };
    let mut backend = connection(worker, client, exchange, (picked, manner)).await?;
    backend.begin(exchange.scratch.record.is_timed());
    exchange.scratch.record.reused = backend.is_reused();
    if !backend.is_reused() && exchange.for_client(client, Leaves::End).has_left() {
        // Opening the connection took time, and the client left meanwhile.
        return Err(Cause::ClientAbort.into());
    }
    let upload = send(worker, client, exchange, &mut backend).await?;
    if upload.is_some() {
        picked.waits_for_client();
    }
    note_sent(worker, exchange, is_timed);
    let (arriving, try_by) = (Arriving::new(is_timed), exchange.last.deadline);
    let mut waiting = Waiting { worker, backend: &backend, upload, arriving, try_by, won: None };
    let read = waiting.final_head(client, exchange).await;
    let Waiting { upload, arriving, won, .. } = waiting;
    note_times(exchange, &arriving, read.is_ok());
    // Without an upload the backend has all of the body, unless it did not take the request.
    let without = if backend.has_refused() { Body::Untaken } else { Body::Whole };
    exchange.last.body = upload.as_ref().map_or(without, Upload::with_backend);
    if let Some(won) = won {
        // The copy answered first: the connection of this try is closed.
        drop(backend);
        return fetched_copy(worker, exchange, *won, pick);
    }
    if let Some(fault) = upload.as_ref().and_then(Upload::fault_of_client) {
        upload::put_back(client, exchange, upload);
        return Err(fault);
    }
    if let Err(fault) = read {
        exchange.scratch.record.reset = backend.stream_reset();
        Box::pin(upload::recover(client, exchange, upload)).await;
        if fault.cause == Cause::BackendStale {
            worker.count(Counter::BackendStale);
        }
        return Err(fault);
    }
    fetched(exchange, (backend, arriving, upload), pick)
}

/// Opens a connection to the picked backend for a client of which all bytes are passed on.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
    picked: &Pick,
) -> Result<Backend, Fault> {
    begin(worker, exchange, picked.backend());
    let pool = exchange.pool_plan();
    let has_said = client.has_said();
    let speaks = has_said || pool.tls.is_some() || pool.send_proxy.is_some();
    let mut manner = Manner { speaks, patience: pool.timeouts.write };
    manner.outlasts(exchange.in_force.plan.listener(client.peer().listener).timeouts.tunnel);
    let mut backend = connection(worker, client, exchange, (picked, manner)).await?;
    backend.begin(exchange.scratch.record.is_timed());
    // Of one that has said something the next read says the same.
    if !has_said && exchange.for_client(client, Leaves::Reset).has_left() {
        // It hears of a client that said nothing and has reset its connection.
        backend.waits().breaks();
        return Err(Cause::ClientAbort.into());
    }
    Ok(backend)
}

/// Puts the answer of a second copy, which came first, in the place of the first try's.
#[cold]
fn fetched_copy(
    worker: &Worker,
    exchange: &mut Exchange,
    won: Won,
    pick: &mut Option<Pick>,
) -> Result<Answer, Fault> {
    let Won { backend, arriving, pick: other, asked_at, sent_at, .. } = won;
    exchange.note_hedged();
    let Exchange { scratch, last, pool, began, .. } = &mut *exchange;
    let record = &mut scratch.record;
    if let Some(first) = record.backend.replace(other.backend()) {
        // The first try ended without an answer: status 0.
        worker.counters.tally().add(Key::Tries(*pool, first, 0), 1);
    }
    record.attempts = record.attempts.saturating_add(1);
    record.reused = backend.is_reused();
    record.times.first_byte = last.timed_from.map(|_| Clock::moment().since(*began));
    (last.asked_at, last.sent_at) = (asked_at, sent_at);
    last.timed_from = last.timed_from.map(|_| sent_at);
    *pick = Some(other);
    fetched(exchange, (backend, arriving, None), pick)
}

/// Begins the records of a try. Returns whether it is timed: for the record, for the algorithm of
/// the pool, or for the events.
#[inline]
fn begin(worker: &Worker, exchange: &mut Exchange, id: BackendId) -> bool {
    let is_timed = exchange.scratch.record.is_timed()
        || exchange.needs().times
        || worker.events.tells_attempts();
    let per_try = worker.clock.after(exchange.pool_plan().retry.per_try);
    exchange.last = Try {
        deadline: exchange.deadline.earlier(per_try),
        is_sent: false,
        asked_at: worker.clock.tick(),
        sent_at: worker.clock.last(),
        timed_from: is_timed.then(Clock::moment),
        body: Body::Whole,
        losses: worker.core.losses.get(),
    };
    let record = &mut exchange.scratch.record;
    record.backend = Some(id);
    record.attempts = record.attempts.saturating_add(1);
    record.reused = false;
    let times = &mut record.times;
    (times.pool, times.connect) = (None, None);
    (times.first_byte, times.answer) = (None, None);
    is_timed
}

/// Notes that the request was sent, apart from a body that follows: the wait for its answer begins.
#[inline]
fn note_sent(worker: &Worker, exchange: &mut Exchange, is_timed: bool) {
    let last = &mut exchange.last;
    // One instant on both clocks, as last read.
    (last.asked_at, last.sent_at) = (worker.clock.tick(), worker.clock.last());
    if is_timed {
        last.timed_from = Some(Clock::moment());
    }
}

/// Records how long the answer was waited for. `is_whole`: its head has come.
#[inline]
fn note_times(exchange: &mut Exchange, arriving: &Arriving, is_whole: bool) {
    let Some(from) = exchange.last.timed_from else { return };
    // The head may come in pieces.
    let until = arriving.last().filter(|_| is_whole).unwrap_or_else(Clock::moment);
    let times = &mut exchange.scratch.record.times;
    times.waited += until.since(from);
    times.first_byte = arriving.at().map(|at| at.since(exchange.began));
    times.answer = arriving.at().map(|at| at.since(from));
}

/// Takes a warm connection or opens a new one.
async fn connection(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    (pick, manner): (&Pick, Manner),
) -> Result<Backend, Fault> {
    let (id, conns) = (pick.backend(), pick.conns());
    // A request that cannot be sent again needs a connection that was in use a moment ago.
    let repeatable =
        exchange.scratch.request.method.is_idempotent() && client.held_body().is_some();
    if !exchange.tries.stale_before {
        let now = worker.clock.tick();
        if let Some(warm) = conns::warm(conns, now, !repeatable).await {
            worker.count(Counter::BackendReuse);
            if let Some(began) = exchange.last.timed_from
                && exchange.scratch.record.is_timed()
            {
                exchange.scratch.record.times.pool = Some(Clock::moment().since(began));
            }
            return Ok(warm);
        }
    }
    let mut time = exchange.pool_plan().timeouts.connect;
    if let Some(tick) = exchange.last.deadline.tick() {
        let left = tick.since(worker.clock.tick()).max(Duration::from_millis(1));
        time = if time.is_zero() { left } else { time.min(left) };
    }
    let since = exchange.scratch.record.is_timed().then(Clock::moment);
    let Worker { clock, deadlines, .. } = worker;
    let frees = || worker.frees_descriptors();
    let greeting = greeting(exchange.pool_plan(), client);
    let opening = conns::open(conns, (time, manner), clock, deadlines, (&greeting, frees));
    let of = (exchange.pool, id);
    let opened = Box::pin(rescue::connecting(worker, exchange, of, opening)).await;
    let ended = clock.renew();
    let pool = exchange.in_force.pool(exchange.pool);
    if let Some(since) = since {
        exchange.scratch.record.times.connected(ended.since(since));
    }
    match opened {
        Ok(backend) => {
            let is_shared = backend.is_reused();
            worker.count(if is_shared { Counter::BackendReuse } else { Counter::BackendOpened });
            if !is_shared {
                pool.opened(id);
            }
            pool.reached(&worker.events, id);
            Ok(backend)
        }
        Err(fault) => {
            worker.counters.tally().add(Key::Moved(exchange.pool, id, Moved::UNOPENED), 1);
            let now = worker.clock.tick();
            let fault = late(worker, exchange, fault);
            // No refusal by the backend: we gave the wait up for another backend, our deadline
            // expired, or we had no descriptor or port.
            if fault.cause == Cause::Overloaded {
                worker.events.limit(Limit::Outgoing, now);
            } else if !matches!(
                fault.cause,
                Cause::Deadline
                    | Cause::BackendDown
                    | Cause::BackendUnprocessed
                    | Cause::ShuttingDown
            ) {
                let why = conns.borrow_mut().take_why();
                pool.not_reached(&worker.events, (id, fault.cause), why, now);
            }
            Err(fault)
        }
    }
}

/// Sends the head. A body that is all at hand goes with it; any other follows as an upload.
async fn send(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    backend: &mut Backend,
) -> Result<Option<Upload>, Fault> {
    let in_force = Rc::clone(&exchange.in_force);
    exchange.last.is_sent = true;
    let deadline = exchange.deadline;
    let write = in_force.plan.pool(exchange.pool).timeouts.write;
    let by = || deadline.earlier(worker.clock.after(write));
    let Scratch { request, out, record, .. } = &mut *exchange.scratch;
    let held = client.held_body();
    let asking = Asking {
        host: host(&in_force, exchange.pool, record.backend, request),
        head: request,
        length: exchange.length,
        before: exchange.tries.kept.as_ref().map(|kept| (kept.bytes(), client.has_whole_body())),
        held,
        // Buffered bytes of a chunked body may be too few to make a chunk.
        body_follows: held.is_none() && client.has_some_body(),
    };
    let asked = backend.ask(&asking, out, by).await;
    if record.is_timed() {
        record.times.waited += backend.take_stalled();
    }
    let is_whole = held.is_some();
    let was_taken = asked.map_err(|fault| late(worker, exchange, fault))?;
    if !was_taken || is_whole {
        // A body after a head that was not taken would be read as a request. The backend may have
        // answered all the same, so a head is waited for.
        return Ok(None);
    }
    let Some(source) = client.body() else { return Ok(None) };
    // Until `upload::recover` finds that all that was sent was kept.
    exchange.tries.body_gone = true;
    let to = (source, backend.body(exchange.length), backend.waits());
    Ok(Some(Upload::begin(worker, exchange, client.peer().listener, to)))
}

/// The value of Host, if it is not the client's.
pub(super) fn host<'a>(
    in_force: &'a InForce,
    pool: PoolId,
    backend: Option<BackendId>,
    request: &RequestHead,
) -> Option<&'a [u8]> {
    let its_own = || in_force.pool(pool).authority(backend.unwrap_or(BackendId(0)));
    match &in_force.plan.pool(pool).host {
        // HTTP/1.0 clients may send no host; HTTP/1.1 backends must get one.
        HostHeader::Client if request.authority.len == 0 => Some(its_own()),
        HostHeader::Client => None,
        HostHeader::Backend => Some(its_own()),
        HostHeader::Literal(host) => Some(host.as_bytes()),
    }
}

/// A request that has been sent, at least in part.
struct Waiting<'a> {
    worker: &'a Rc<Worker>,
    backend: &'a Backend,
    upload: Option<Upload>,
    arriving: Arriving,
    /// When the final head of this try must be complete; set anew when an upload ends.
    try_by: Deadline,
    /// The answer of a second copy that came first.
    won: Option<Box<Won>>,
}

impl Waiting<'_> {
    /// Reads heads until the final one, relaying the interim ones.
    async fn final_head(
        &mut self,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<(), Fault> {
        for _ in 0..INTERIM_MAX {
            self.head(client, exchange).await?;
            match exchange.scratch.response.status {
                101 => return Ok(()),
                100..=199 => Box::pin(self.relay_interim(client, exchange)).await?,
                _ => return Ok(()),
            }
        }
        Err(Cause::ResponseRefused.into())
    }

    /// Reads the next head while the upload goes on. The time for an answer starts when the request
    /// has been sent and covers the whole head: a slow client does not make its backend late.
    async fn head(&mut self, client: &Client, exchange: &mut Exchange) -> Result<(), Fault> {
        let (worker, backend) = (self.worker, self.backend);
        let plan = exchange.pool_plan();
        let (limit, per_try) = (plan.timeouts.response, plan.retry.per_try);
        let (deadline, hedge) = (exchange.deadline, plan.retry.hedge);
        let by = |try_by: Deadline| try_by.earlier(worker.clock.after(limit));
        let sending = self.upload.as_ref().is_some_and(Upload::is_going);
        let until = Cell::new(if sending { deadline } else { by(self.try_by) });
        // Once another request has come after the body, the end of the client's stream does not
        // mean that it has left.
        let by_end = exchange.for_client(client, Leaves::End);
        let by_reset = client.waiting(Leaves::Reset);
        let has_more = self.upload.as_ref().is_some_and(Upload::has_more);
        let for_client = Cell::new(if has_more { by_reset } else { by_end });
        let result = {
            let (mut rescue, into) = Rescue::of(worker, exchange);
            let with = (&rescue.in_force.head_limits, &*worker.buffers);
            let read = backend.head(&mut self.arriving, into, with, (&until, &for_client));
            let (try_by, upload) = (&mut self.try_by, &mut self.upload);
            let mut read = pin!(read);
            let (mut losses, mut is_moved) = (rescue.losses(), false);
            let mut copy = match hedge.filter(|_| upload.is_none()) {
                Some(plan) => Hedge::of(plan, &rescue, client),
                None => Hedge::Off,
            };
            let won = &mut self.won;
            // In this order: the upload, the answer, a rescue, a hedged copy.
            let result = poll_fn(|cx| {
                if let Some(upload) = upload
                    && upload.poll(cx)
                {
                    worker.clock.renew();
                    *try_by = deadline.earlier(worker.clock.after(per_try));
                    until.set(by(*try_by));
                    upload.backend().read_by(until.get());
                    if upload.has_more() {
                        for_client.set(by_reset);
                        upload.backend().waits_for(by_reset);
                    }
                }
                let polled = read.as_mut().poll(cx);
                // This core has learned that backends were taken out: perhaps this one.
                if polled.is_pending() && losses != worker.core.losses.get() {
                    losses = worker.core.losses.get();
                    is_moved = is_moved || rescue.moves(backend, upload.as_ref());
                }
                if polled.is_pending()
                    && !is_moved
                    && let Some(plan) = hedge
                {
                    let send = || {
                        let client = (client, for_client.get());
                        if backend.has_begun() {
                            None
                        } else {
                            rescue.send_copy(worker, plan, client)
                        }
                    };
                    *won = copy.poll(cx, send);
                    if won.is_some() {
                        return Poll::Ready(Ok(()));
                    }
                }
                polled
            })
            .await;
            // We ended this read ourselves: whatever came at that moment is not used.
            if is_moved { Err(Cause::BackendDown.into()) } else { result }
        };
        if let Some(won) = &mut self.won {
            // `final_head` and `fetched` read it there.
            std::mem::swap(&mut exchange.scratch.response, &mut won.head);
        }
        result.map_err(|fault| late(worker, exchange, fault))
    }

    /// Relays an interim answer (RFC 9110 §15.2). HTTP/1.0 clients get none.
    async fn relay_interim(
        &mut self,
        client: &Client,
        exchange: &mut Exchange,
    ) -> Result<(), Fault> {
        let plan = exchange.in_force.plan.listener(client.peer().listener);
        let wait = plan.timeouts.client_write;
        let scratch = &mut *exchange.scratch;
        let request = &scratch.request;
        if request.version == Version::Http10 {
            return Ok(());
        }
        let to = ToClient { method: request.method, version: request.version };
        let date = || self.worker.http_date();
        forward::response(&mut scratch.response, BodyLength::None, to, date)?;
        exchange.tries.interim_sent = true;
        let (worker, deadline) = (self.worker, exchange.deadline);
        let by = || deadline.earlier(worker.clock.after(wait));
        let send = client.interim(&scratch.response, &mut scratch.out, by);
        let sent = match &mut self.upload {
            None => send.await,
            Some(upload) => beside(send, |cx| _ = upload.poll(cx)).await,
        };
        scratch.record.response_bytes += sent?;
        Ok(())
    }
}

/// Keeps the answer that begins with a final head. A held request body stays held, because the
/// answer may still be declined for its status and the request be asked again.
fn fetched(
    exchange: &mut Exchange,
    (mut backend, arriving, upload): (Backend, Arriving, Option<Upload>),
    pick: &mut Option<Pick>,
) -> Result<Answer, Fault> {
    let Scratch { request, response: head, .. } = &mut *exchange.scratch;
    let switched = head.status == 101;
    if switched {
        upgrade::allowed(request, head)?;
        if backend.has_refused() {
            // A backend cannot agree to a request that it has not read.
            return Err(Cause::BackendProtocol.into());
        }
    }
    let length = framing::response(request.method, head)?;
    let source = backend.source(arriving, (head, length), exchange.in_force.head_limits);
    let (Some(source), Some(pick)) = (source, pick.take()) else {
        return Err(Cause::Internal.into());
    };
    let (mut pick, began_well_at, pause) = (pick, None, Pause::default());
    pick.begins_to_answer();
    let id = pick.backend();
    exchange.fetched =
        Some(Fetched { id, backend, source, length, upload, began_well_at, pause, pick });
    Ok(if switched { Answer::Switched } else { Answer::Fetched })
}

/// Turns the timeout of one wait into that of the exchange if the exchange is late as a whole.
fn late(worker: &Worker, exchange: &Exchange, fault: Fault) -> Fault {
    let timed_out = matches!(fault.cause, Cause::ResponseTimeout | Cause::ConnectTimeout);
    if timed_out && worker.clock.is_over(exchange.deadline) {
        Cause::Deadline.into()
    } else {
        fault
    }
}
