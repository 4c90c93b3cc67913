//! One try against one backend: connect, send, wait for a head.
//!
//! Whatever goes wrong here leaves the client untouched (interim answers apart), so `fetch` may
//! try again; a connection that did not finish its answer is closed, by being dropped.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{
    Answer, Exchange, Fetched,
    download::Pause,
    kept::Keeping,
    upload::{self, Recovered, Upload, beside},
};
use crate::base::{ids::BackendId, moment::Deadline};
use crate::conns;
use crate::http::{
    fault::{Cause, Fault},
    forward::{self, ToClient},
    framing::{self, BodyLength},
    head::Version,
    keep_alive,
    parse::HeadLimits,
    upgrade, write,
};
use crate::net::{
    buffer::Buffer,
    clock::Clock,
    deadlines::{Ended, Unmet},
    io::is_want,
    leaving::Leaves,
};
use crate::observe::told::Limit;
use crate::plan::HostHeader;
use crate::policy::blame::Body;
use crate::proto::h1::{Backend, Begun, Client, Incoming, Outgoing};
use crate::shared::counters::Counter;
use crate::worker::{Pick, Worker};

/// More interim answers than any honest backend sends before its answer.
const INTERIM_MAX: u32 = 32;

/// A body up to this long is copied behind its head, so that both leave by one send of the ring.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Asks one backend once: the one that was picked. The pick goes with its answer; where it gives
/// none it is left.
pub(super) async fn once(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    pick: &mut Option<Pick>,
) -> Result<Answer, Fault> {
    let Some(picked) = pick else { return Err(Cause::Internal.into()) };
    let id = picked.backend();
    let logged = exchange.scratch.record.logged;
    let timed = logged || exchange.needs().times || worker.events.tells_attempts();
    exchange.timed_from = timed.then(Clock::moment);
    exchange.request_sent = false;
    (exchange.asked_at, exchange.body) = (worker.clock.tick(), Body::Whole);
    let per_try = worker.clock.after(exchange.pool_plan().retry.per_try);
    exchange.try_deadline = exchange.deadline.earlier(per_try);
    let record = &mut exchange.scratch.record;
    record.backend = Some(id);
    record.attempts = record.attempts.saturating_add(1);
    record.reused = false;
    (record.times.connect, record.times.first_byte) = (None, None);
    let mut backend = connection(worker, client, exchange, picked).await?;
    backend.requests += 1;
    exchange.scratch.record.reused = backend.is_reused();
    if !backend.is_reused() && exchange.for_client(client, Leaves::End).has_left() {
        // It did not wait for the connection.
        return Err(Cause::ClientAbort.into());
    }
    let (upload, refused) = match send(worker, client, exchange, &backend, id).await? {
        Sent::All => (None, false),
        Sent::Begun(upload) => (Some(upload), false),
        Sent::Refused => (None, true),
    };
    exchange.asked_at = worker.clock.tick();
    if timed {
        exchange.timed_from = Some(Clock::moment());
    }
    let begun = Begun { timed, ..Begun::default() };
    let try_by = exchange.try_deadline;
    let mut waiting = Waiting { worker, backend: &backend, upload, buffer: None, begun, try_by };
    let read = waiting.final_head(client, exchange).await;
    let Waiting { upload, buffer, begun, .. } = waiting;
    let without = if refused { Body::Untaken } else { Body::Whole };
    exchange.body = upload.as_ref().map_or(without, Upload::with_backend);
    if let Some(from) = exchange.timed_from {
        let until = begun.at.unwrap_or_else(Clock::moment);
        let times = &mut exchange.scratch.record.times;
        times.waited += until.since(from);
        times.first_byte = begun.at.map(|at| at.since(exchange.began));
    }
    if let Some(fault) = upload.as_ref().and_then(Upload::fault_of_client) {
        restore(client, exchange, upload);
        return Err(fault);
    }
    let (Ok(()), Some(buffer)) = (read, buffer) else {
        Box::pin(recover(client, exchange, upload)).await;
        let fault = read.err().unwrap_or(Cause::Internal.into());
        if fault.cause == Cause::BackendStale {
            worker.count(Counter::BackendStale);
        }
        return Err(fault);
    };
    let limits = exchange.in_force.head_limits;
    fetched(limits, exchange, Fetching { id, backend, buffer, upload, refused }, pick)
}

/// A warm connection, or a new one.
async fn connection(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    pick: &Pick,
) -> Result<Backend, Fault> {
    let (id, conns) = (pick.backend(), pick.conns());
    let pool = exchange.in_force.pool(exchange.pool);
    // What cannot be sent again goes on a connection that was in use a moment ago.
    let repeatable =
        exchange.scratch.request.method.is_idempotent() && client.held_body().is_some();
    let careful = !repeatable;
    if !exchange.stale_before {
        let now = worker.clock.tick();
        if let Some(warm) = conns::warm(conns, now, careful).await {
            worker.count(Counter::BackendReuse);
            return Ok(warm);
        }
    }
    let mut time = exchange.pool_plan().timeouts.connect;
    if let Some(tick) = exchange.try_deadline.tick() {
        let left = tick.since(worker.clock.tick()).max(Duration::from_millis(1));
        time = if time.is_zero() { left } else { time.min(left) };
    }
    let since = exchange.scratch.record.logged.then(Clock::moment);
    let Worker { clock, deadlines, .. } = worker;
    let frees = || worker.frees_descriptors();
    let opened = Box::pin(conns::open(conns, time, clock, deadlines, frees)).await;
    let ended = clock.renew();
    if let Some(since) = since {
        exchange.scratch.record.times.connected(ended.since(since));
    }
    match opened {
        Ok(backend) => {
            backend.stream.outlasts(exchange.pool_plan().timeouts.write);
            worker.count(Counter::BackendOpened);
            pool.reached(&worker.events, id);
            Ok(backend)
        }
        Err(fault) => {
            let now = worker.clock.tick();
            let fault = late(worker, exchange, fault);
            // Whom there was no time left to connect to has not refused anything; nor has one for
            // whom we had no descriptor or port.
            if fault.cause == Cause::Overloaded {
                worker.events.limit(Limit::Outgoing, now);
            } else if fault.cause != Cause::Deadline {
                pool.not_reached(&worker.events, (id, fault.cause), now);
            }
            Err(fault)
        }
    }
}

/// What became of a request that was to be sent.
enum Sent {
    /// All of it was.
    All,
    /// The head was; the body is on its way.
    Begun(Upload),
    /// Not even the head was taken whole; of the body nothing was touched.
    Refused,
}

/// Sends the head, with all of a body that can be sent again or with the first of one that
/// cannot; the rest of that is an upload.
async fn send(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    backend: &Backend,
    id: BackendId,
) -> Result<Sent, Fault> {
    compose(client, exchange, id);
    let write = exchange.pool_plan().timeouts.write;
    let deadline = exchange.deadline;
    let by = || deadline.earlier(worker.clock.after(write));
    exchange.request_sent = true;
    if exchange.scratch.record.logged {
        backend.stream.time_stalls();
    }
    let held = client.held_body();
    let out = &mut exchange.scratch.out;
    let sent = match held {
        Some(body) if body.len() <= COPIED_BYTES_MAX => {
            out.extend_from_slice(body);
            let (sent, room) = backend.stream.send_vec(std::mem::take(out), by).await;
            *out = room;
            sent
        }
        Some(body) => Box::pin(backend.stream.send_parts(out, body, false, by)).await,
        None => {
            // With the first of the body, where that is sent at once: of chunks it may be too few
            // bytes to make one.
            let more = client
                .reader
                .as_ref()
                .is_some_and(|reader| !reader.buffer.is_empty() && reader.body.left().is_some());
            Box::pin(backend.stream.send_all(out, more, by)).await
        }
    };
    if exchange.scratch.record.logged {
        exchange.scratch.record.times.waited += backend.stream.take_stalled();
    }
    match sent {
        Ok(()) => {}
        Err(Unmet::Ended(Ended::Overdue)) => {
            return Err(late(worker, exchange, Cause::ResponseTimeout.into()));
        }
        Err(Unmet::Broken(error)) if is_want(&error) => return Err(Cause::Overloaded.into()),
        // A backend that does not take the request may have answered it all the same. Behind a
        // head that was cut its body would be read as a request.
        Err(Unmet::Ended(_) | Unmet::NotNow | Unmet::Broken(_)) => return Ok(Sent::Refused),
    }
    if held.is_some() {
        return Ok(Sent::All);
    }
    let Some(reader) = client.reader.take() else { return Ok(Sent::All) };
    exchange.body_gone = true;
    let keeping = Keeping::of(exchange);
    let outgoing = framing_of(exchange);
    let way = upload::Way {
        worker: Rc::clone(worker),
        client: Rc::clone(&client.stream),
        backend: Rc::clone(&backend.stream),
        in_force: Rc::clone(&exchange.in_force),
        listener: client.peer.listener,
        pool: exchange.pool,
        deadline: exchange.deadline,
        expects_continue: exchange.scratch.request.expects_continue,
    };
    Ok(Sent::Begun(Upload::begin(way, reader, outgoing, keeping)))
}

/// How the request's body is framed for backends.
fn framing_of(exchange: &Exchange) -> Outgoing {
    match exchange.length {
        BodyLength::Chunked => Outgoing::Chunked,
        BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose => Outgoing::Plain,
    }
}

/// Writes the request as this backend gets it, and what other backends got of its body before.
fn compose(client: &Client, exchange: &mut Exchange, id: BackendId) {
    let in_force = Rc::clone(&exchange.in_force);
    let pool = in_force.plan.pool(exchange.pool);
    let host = match &pool.host {
        // HTTP/1.0 clients may give no host; HTTP/1.1 backends must be given one.
        HostHeader::Client if exchange.scratch.request.authority.len == 0 => {
            Some(in_force.pool(exchange.pool).authority(id))
        }
        HostHeader::Client => None,
        HostHeader::Backend => Some(in_force.pool(exchange.pool).authority(id)),
        HostHeader::Literal(host) => Some(host.as_bytes()),
    };
    let scratch = &mut *exchange.scratch;
    scratch.out.clear();
    write::request(&scratch.request, host, exchange.length, &mut scratch.out);
    if let Some(kept) = &exchange.kept {
        let ended = client.reader.as_ref().is_none_or(|reader| reader.body.has_ended());
        kept.write(framing_of(exchange), ended, &mut exchange.scratch.out);
    }
}

/// A request that was sent, at least in part.
struct Waiting<'a> {
    worker: &'a Rc<Worker>,
    backend: &'a Backend,
    upload: Option<Upload>,
    buffer: Option<Buffer>,
    begun: Begun,
    /// When this try must have an answer that begins.
    try_by: Deadline,
}

impl Waiting<'_> {
    /// Reads heads until the final one, relaying the interim ones.
    async fn final_head(
        &mut self,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<(), Fault> {
        if !self.backend.stream.is_receiving() {
            let posted = self.backend.post_receive(&self.worker.buffers);
            posted.map_err(|_| Cause::Overloaded)?;
        }
        for _ in 0..INTERIM_MAX {
            self.begun.at = None;
            let used = self.head(client, exchange).await?;
            if let Some(buffer) = &mut self.buffer {
                buffer.consume(used);
            }
            match exchange.scratch.response.status {
                101 => return Ok(()),
                100..=199 => Box::pin(self.relay_interim(client, exchange)).await?,
                _ => return Ok(()),
            }
        }
        Err(Cause::ResponseRefused.into())
    }

    /// Reads the next head while the upload goes on. The time for an answer begins when the
    /// request has been sent, and is for all of its head: no backend is late because of a client.
    async fn head(&mut self, client: &Client, exchange: &mut Exchange) -> Result<usize, Fault> {
        let (worker, backend) = (self.worker, self.backend);
        let plan = exchange.pool_plan();
        let (limit, per_try) = (plan.timeouts.response, plan.retry.per_try);
        let deadline = exchange.deadline;
        let by = |try_by: Deadline| try_by.earlier(worker.clock.after(limit));
        let sending = self.upload.as_ref().is_some_and(Upload::is_going);
        let until = Cell::new(if sending { deadline } else { by(self.try_by) });
        let by_end = exchange.for_client(client, Leaves::End);
        let by_reset = exchange.for_client(client, Leaves::Reset);
        let has_more = self.upload.as_ref().is_some_and(Upload::has_more);
        let for_client = Cell::new(if has_more { by_reset } else { by_end });
        let scratch = &mut *exchange.scratch;
        let read = backend.read_head(
            &mut self.buffer,
            &mut scratch.response,
            &exchange.in_force.head_limits,
            &mut self.begun,
            (&until, &for_client),
        );
        let try_by = &mut self.try_by;
        let result = match &mut self.upload {
            None => read.await,
            Some(upload) => {
                beside(read, |cx| {
                    if upload.poll(cx) {
                        worker.clock.renew();
                        *try_by = deadline.earlier(worker.clock.after(per_try));
                        until.set(by(*try_by));
                        backend.stream.watched().read_by(until.get());
                        if upload.has_more() {
                            for_client.set(by_reset);
                            backend.stream.watched().waits_for(by_reset);
                        }
                    }
                })
                .await
            }
        };
        result.map_err(|fault| late(worker, exchange, fault))
    }

    /// Relays an interim answer (RFC 9110 §15.2): all of them, but never to HTTP/1.0.
    async fn relay_interim(
        &mut self,
        client: &Client,
        exchange: &mut Exchange,
    ) -> Result<(), Fault> {
        let plan = exchange.in_force.plan.listener(client.peer.listener);
        let wait = plan.timeouts.client_write;
        let scratch = &mut *exchange.scratch;
        let request = &scratch.request;
        if request.version == Version::Http10 {
            return Ok(());
        }
        let to = ToClient {
            method: request.method,
            version: request.version,
            keep_alive: exchange.keep_alive,
            date: b"",
        };
        forward::response(&mut scratch.response, BodyLength::None, &to)?;
        scratch.out.clear();
        write::response(&scratch.response, BodyLength::None, &mut scratch.out);
        exchange.interim_sent = true;
        let worker = self.worker;
        scratch.record.response_bytes += scratch.out.len() as u64;
        let by = || exchange.deadline.earlier(worker.clock.after(wait));
        let send = client.send(&scratch.out, false, by);
        match &mut self.upload {
            None => send.await,
            Some(upload) => beside(send, |cx| _ = upload.poll(cx)).await,
        }
    }
}

/// What is left of a try whose final head has come.
struct Fetching {
    id: BackendId,
    backend: Backend,
    buffer: Buffer,
    upload: Option<Upload>,
    refused: bool,
}

/// Makes the answer of a final head. A body that is held stays held: by its status the answer may
/// be one that is not taken, and the request asked again.
fn fetched(
    limits: HeadLimits,
    exchange: &mut Exchange,
    fetching: Fetching,
    pick: &mut Option<Pick>,
) -> Result<Answer, Fault> {
    let Fetching { id, mut backend, buffer, upload, refused } = fetching;
    let scratch = &mut *exchange.scratch;
    let head = &mut scratch.response;
    let switched = head.status == 101;
    if switched {
        upgrade::allowed(&scratch.request, head)?;
        if refused {
            // What it has not read it cannot have agreed to.
            return Err(Cause::BackendProtocol.into());
        }
    }
    let length = framing::response(scratch.request.method, head)?;
    backend.note(keep_alive::read(&head.headers));
    let body = Incoming::of_response(length, limits);
    let buffer = Some(buffer);
    let (began_well_at, pause) = (None, Pause::default());
    let Some(pick) = pick.take() else { return Err(Cause::Internal.into()) };
    let fetched = Box::new(Fetched {
        id,
        backend,
        buffer,
        body,
        length,
        upload,
        refused,
        began_well_at,
        pause,
        pick,
    });
    Ok(if switched { Answer::Switched(fetched) } else { Answer::Fetched(fetched) })
}

/// An answer that may not be taken gives its upload back, if all of that went over.
pub(super) async fn release(client: &mut Client, exchange: &mut Exchange, answer: &mut Answer) {
    let Answer::Fetched(fetched) = answer else { return };
    if fetched.upload.as_ref().is_some_and(Upload::is_whole) {
        recover(client, exchange, fetched.upload.take()).await;
    }
}

/// Takes an upload back for another try: the client's reader, and what was sent.
pub(super) async fn recover(client: &mut Client, exchange: &mut Exchange, upload: Option<Upload>) {
    let Some(upload) = upload else { return };
    let Recovered { reader, kept, bytes } = upload.recover().await;
    exchange.scratch.record.request_bytes += bytes;
    exchange.body_gone = kept.is_none();
    exchange.kept = kept.map(Box::new);
    client.reader = reader;
    // A read that was given up has left its deadline: nothing is awaited of the client now.
    client.stream.watched().read_by(Deadline::NEVER);
}

/// Gives the client its reader back, if the upload has ended.
pub(super) fn restore(client: &mut Client, exchange: &mut Exchange, upload: Option<Upload>) {
    if let Some(upload) = upload {
        let (reader, bytes) = upload.into_reader();
        exchange.scratch.record.request_bytes += bytes;
        client.reader = reader;
    }
}

/// A wait that ended because all of the exchange is late says so.
fn late(worker: &Worker, exchange: &Exchange, fault: Fault) -> Fault {
    let timed_out = matches!(fault.cause, Cause::ResponseTimeout | Cause::ConnectTimeout);
    if timed_out && worker.clock.is_over(exchange.deadline) {
        Cause::Deadline.into()
    } else {
        fault
    }
}
