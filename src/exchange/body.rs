//! Bodies on their way: two plain loops, one for each direction, each owning its half and ending
//! on its own.
//!
//! Memory is one buffer for each direction; who reads waits for who writes, so a slow peer slows
//! the other one. All waits here are readiness polls and may be dropped at will.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    Exchange, Fetched,
    kept::{Keeping, Kept},
};
use crate::base::ids::{ListenerId, PoolId};
use crate::http::{
    chunks,
    fault::{Cause, Fault},
    headers::Headers,
};
use crate::net::{
    buffer::Buffer, clock, deadlines::Ended, fd::Half, io::give_way, relay::Relayed, stream::Stream,
};
use crate::observe::record::Record;
use crate::proto::h1::{Client, Framed, Incoming, Outgoing, Reader};
use crate::worker::{InForce, Scratch, Worker};

/// From this many bytes on a body of known length is spliced: below, the pipe costs more than the
/// copy.
const SPLICE_BYTES_MIN: u64 = 96 << 10;

/// How long a body may be slower than `body-rate` at its beginning, in milliseconds.
const RATE_GRACE_MS: u64 = 5_000;

/// Where an upload goes, and what bounds it.
pub(crate) struct Route {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<Stream>,
    pub(crate) backend: Rc<Stream>,
    pub(crate) in_force: Rc<InForce>,
    pub(crate) listener: ListenerId,
    pub(crate) pool: PoolId,
    pub(crate) deadline: u64,
}

/// How an upload ended: the reader is given back either way.
struct Uploaded {
    reader: Reader,
    result: Result<(), Stopped>,
}

/// Why an upload stopped before the body's end.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    /// The client's doing, or its time is over: the exchange ends.
    Client(Fault),
    /// The backend takes no more: it may have answered, or it is gone; its answer will tell.
    Backend,
}

type Uploading = Pin<Box<dyn Future<Output = Uploaded>>>;

/// A request body on its way to a backend.
pub(crate) struct Upload {
    backend: Rc<Stream>,
    state: State,
    /// Bytes taken from the client so far, framing too.
    taken: Rc<Cell<u64>>,
    /// What of it could be sent again; none where it is of no use.
    keeping: Option<Rc<Keeping>>,
}

/// What is left of an upload that was ended for another try.
pub(crate) struct Recovered {
    /// The client's, where it is known what comes next from it.
    pub(crate) reader: Option<Reader>,
    /// What was sent, if it can be sent again.
    pub(crate) kept: Option<Kept>,
    /// Bytes taken from the client, framing too.
    pub(crate) bytes: u64,
}

enum State {
    Going(Uploading),
    Ended(Uploaded),
}

impl Upload {
    /// Sends what `reader` holds and then what comes from the client.
    pub(crate) fn begin(
        route: Route,
        reader: Reader,
        outgoing: Outgoing,
        keeping: Option<Keeping>,
    ) -> Upload {
        let backend = Rc::clone(&route.backend);
        let (taken, keeping) = (Rc::new(Cell::new(0)), keeping.map(Rc::new));
        let counted = Rc::clone(&taken);
        let uploading = Box::pin(upload(route, reader, outgoing, counted, keeping.clone()));
        Upload { backend, state: State::Going(uploading), taken, keeping }
    }

    /// Goes on with it; true when this ended it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Going(future) = &mut self.state else { return false };
        let Poll::Ready(ended) = future.as_mut().poll(cx) else { return false };
        if matches!(ended.result, Err(Stopped::Client(_))) {
            // Nobody needs the answer any more: whoever waits for it wakes up, and knows that
            // its end is not the backend's doing.
            self.backend.watched().end(Ended::ClientLeft);
        }
        self.state = State::Ended(ended);
        true
    }

    /// Whether it has not ended.
    pub(crate) fn is_going(&self) -> bool {
        matches!(self.state, State::Going(_))
    }

    /// The client's fault that stopped it.
    pub(crate) fn fault_of_client(&self) -> Option<Fault> {
        match &self.state {
            State::Ended(Uploaded { result: Err(Stopped::Client(fault)), .. }) => Some(*fault),
            State::Ended(_) | State::Going(_) => None,
        }
    }

    /// Whether all of the body went over.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.state, State::Ended(Uploaded { result: Ok(()), .. }))
    }

    /// Bytes taken from the client so far, framing too.
    pub(crate) fn bytes(&self) -> u64 {
        self.taken.get()
    }

    /// Ends it so that another try may follow.
    pub(crate) async fn recover(self) -> Recovered {
        let Upload { backend, state, taken, keeping } = self;
        let mut bytes = taken.get();
        let Some(keeping) = keeping else {
            let reader = match state {
                State::Ended(Uploaded { reader, result: Ok(()) }) => Some(reader),
                State::Ended(_) | State::Going(_) => None,
            };
            return Recovered { reader, kept: None, bytes };
        };
        let Uploaded { reader, result } = match state {
            State::Ended(uploaded) => uploaded,
            State::Going(uploading) => {
                keeping.stop.raise();
                backend.shut_down(Half::Both);
                uploading.await
            }
        };
        // The upload held the other end of it until it ended.
        let kept = Rc::into_inner(keeping).and_then(Keeping::into_kept);
        match result {
            Ok(()) => Recovered { reader: Some(reader), kept, bytes },
            Err(Stopped::Backend) if kept.is_some() => {
                // What is left is counted by the one who takes it.
                bytes = taken.get().saturating_sub(reader.buffer.len() as u64);
                Recovered { reader: Some(reader), kept, bytes }
            }
            Err(_) => Recovered { reader: None, kept: None, bytes: taken.get() },
        }
    }

    /// The client's reader, where all of the body went over. Otherwise nobody knows where the
    /// client's next request begins, and nothing may read on.
    pub(crate) fn into_reader(self) -> Option<Reader> {
        match self.state {
            State::Ended(Uploaded { reader, result: Ok(()), .. }) => Some(reader),
            State::Ended(_) | State::Going(_) => None,
        }
    }
}

async fn upload(
    route: Route,
    mut reader: Reader,
    outgoing: Outgoing,
    taken: Rc<Cell<u64>>,
    keeping: Option<Rc<Keeping>>,
) -> Uploaded {
    taken.set(reader.buffer.len() as u64);
    let result = upload_all(&route, &mut reader, outgoing, &taken, keeping.as_deref()).await;
    if result.is_ok() {
        // What is left is of the next request.
        taken.set(taken.get().saturating_sub(reader.buffer.len() as u64));
    }
    Uploaded { reader, result }
}

async fn upload_all(
    route: &Route,
    reader: &mut Reader,
    outgoing: Outgoing,
    taken: &Cell<u64>,
    keeping: Option<&Keeping>,
) -> Result<(), Stopped> {
    let Route { worker, client, backend, in_force, deadline, .. } = route;
    let listener = in_force.plan.listener(route.listener).timeouts;
    let write = in_force.plan.pool(route.pool).timeouts.write;
    let most = in_force.plan.limits.body_bytes_max;
    let pace = Pace::begin(worker, in_force);
    let write_by = || clock::earlier(*deadline, worker.clock.after(write));
    let mut bytes = 0;
    let mut trailers = Headers::default();
    loop {
        let piece = reader.body.next(&mut reader.buffer, &mut trailers).map_err(Stopped::Client)?;
        bytes += piece.body as u64;
        if most != 0 && bytes > most {
            return Err(Stopped::Client(Cause::BodyTooLarge.into()));
        }
        if let Some(keeping) = keeping {
            keeping.note(reader.buffer.bytes().get(..piece.body).unwrap_or(&[]));
        }
        let Framed { send, skip, end_apart } = outgoing.frame(&mut reader.buffer, piece, &trailers);
        if let Some(keeping) = keeping.filter(|_| !trailers.fields.is_empty()) {
            keeping.forget();
        }
        let out = reader.buffer.bytes().get(..send).unwrap_or(&[]);
        let sent = backend.send_all(out, end_apart, write_by).await;
        reader.buffer.consume(skip);
        sent.map_err(|_| Stopped::Backend)?;
        if end_apart {
            let mut end = Vec::new();
            chunks::write_trailers(&trailers, &mut end);
            backend.send_all(&end, false, write_by).await.map_err(|_| Stopped::Backend)?;
        }
        if piece.ended {
            return Ok(());
        }
        reader.buffer.rewind();
        let by = pace.by(bytes, worker.clock.after(listener.client_body));
        let read = client.recv(&mut reader.buffer, clock::earlier(*deadline, by));
        let read = match keeping {
            None => read.await,
            Some(keeping) => keeping.stop.or(read).await.ok_or(Stopped::Backend)?,
        };
        match read {
            Ok(count) if count > 0 => taken.set(taken.get() + count as u64),
            Ok(_) | Err(_) if worker.clock.is_over(*deadline) => {
                return Err(Stopped::Client(Cause::Deadline.into()));
            }
            Ok(_) | Err(_) => return Err(Stopped::Client(Client::read_fault(client))),
        }
    }
}

/// Sends a backend's answer: its head, which stands in the exchange's scratch as it goes out, and
/// its body. What arrived with the head leaves with the head, in one write.
pub(crate) async fn download(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    fetched: &mut Fetched,
    outgoing: Outgoing,
) -> Result<(), Fault> {
    let last = !exchange.keep_alive;
    let in_force = &exchange.in_force;
    let down = Download {
        worker,
        client,
        source: Rc::clone(&fetched.backend.stream),
        outgoing,
        deadline: exchange.deadline,
        read: in_force.plan.pool(exchange.pool).timeouts.body,
        write: in_force.plan.listener(client.peer.listener).timeouts.client_write,
        pace: Pace::begin(worker, in_force),
    };
    let Fetched { buffer: held, body, .. } = fetched;
    let Some(mut buffer) = held.take() else { return Err(Cause::Internal.into()) };
    let Scratch { out: head, trailers, record, .. } = &mut *exchange.scratch;
    let bytes = &mut record.response_bytes;
    if buffer.is_empty() && !body.has_ended() {
        // The body is often right behind its head: one more look saves a write.
        let _ = down.source.recv_now(&mut buffer);
    }
    let piece = body.next(&mut buffer, trailers)?;
    let Framed { send, skip, end_apart } = outgoing.frame(&mut buffer, piece, trailers);
    let before = head.len();
    let then = *bytes + (before + send) as u64;
    client.head_sent.set(true);
    if buffer.prepend(head) {
        let whole = before + send;
        // The end of a connection leaves with the end of its last answer, in one segment.
        let held_back = if last && body.has_ended() && !end_apart {
            client.hold_back(&buffer, whole)
        } else {
            0
        };
        buffer.consume(held_back);
        buffer = client.send_buffer(buffer, whole - held_back, || down.write_by(then)).await?;
        buffer.consume(before + skip - held_back);
    } else {
        Box::pin(client.send(head, send > 0, || down.write_by(then))).await?;
        buffer = client.send_buffer(buffer, send, || down.write_by(then)).await?;
        buffer.consume(skip);
    }
    *bytes = then;
    if end_apart || !body.has_ended() {
        buffer = Box::pin(down.all_the_rest(buffer, body, trailers, end_apart, record)).await?;
    }
    *held = Some(buffer);
    Ok(())
}

/// A body on its way to a client.
struct Download<'a> {
    worker: &'a Worker,
    client: &'a Client,
    source: Rc<Stream>,
    outgoing: Outgoing,
    deadline: u64,
    read: Duration,
    write: Duration,
    pace: Pace,
}

impl Download<'_> {
    fn read_by(&self) -> u64 {
        clock::earlier(self.deadline, self.worker.clock.after(self.read))
    }

    fn write_by(&self, bytes: u64) -> u64 {
        let by = self.pace.by(bytes, self.worker.clock.after(self.write));
        clock::earlier(self.deadline, by)
    }

    /// Sends what comes behind the first piece. A long body goes at the pace of the peers: for the
    /// record all of it is a wait.
    async fn all_the_rest(
        &self,
        buffer: Buffer,
        body: &mut Incoming,
        trailers: &mut Headers,
        end_apart: bool,
        record: &mut Record,
    ) -> Result<Buffer, Fault> {
        if !record.logged {
            return self.rest(buffer, body, trailers, end_apart, &mut record.response_bytes).await;
        }
        record.times.waited += self.client.stream.take_stalled();
        let since = clock::precise();
        let rest = self.rest(buffer, body, trailers, end_apart, &mut record.response_bytes).await;
        record.times.waited += clock::precise() - since;
        self.client.stream.take_stalled();
        rest
    }

    /// Sends what comes behind the first piece.
    async fn rest(
        &self,
        mut buffer: Buffer,
        body: &mut Incoming,
        trailers: &mut Headers,
        mut end_apart: bool,
        bytes: &mut u64,
    ) -> Result<Buffer, Fault> {
        let client = self.client;
        loop {
            if end_apart {
                let mut end = Vec::new();
                chunks::write_trailers(trailers, &mut end);
                client.send(&end, false, || self.write_by(*bytes)).await?;
                *bytes += end.len() as u64;
            }
            if body.has_ended() {
                return Ok(buffer);
            }
            if let Incoming::Fixed(left @ SPLICE_BYTES_MIN..) = *body
                && self.spliced(left, bytes).await?
            {
                body.passed(left);
                return Ok(buffer);
            }
            buffer.rewind();
            let piece = if self.more(&mut buffer).await? {
                body.next(&mut buffer, trailers)?
            } else {
                body.end_of_stream(Cause::ResponseIncomplete)?
            };
            let framed = self.outgoing.frame(&mut buffer, piece, trailers);
            let then = *bytes + framed.send as u64;
            buffer = client.send_buffer(buffer, framed.send, || self.write_by(then)).await?;
            *bytes = then;
            buffer.consume(framed.skip);
            end_apart = framed.end_apart;
        }
    }

    /// Reads more of the answer; false at the end of the connection.
    async fn more(&self, buffer: &mut Buffer) -> Result<bool, Fault> {
        give_way().await;
        match self.source.recv_for(buffer, self.read_by(), self.client.stream.raw()).await {
            Ok(count) if count > 0 => Ok(true),
            Ok(_) if self.source.ended() == Ended::No => Ok(false),
            Ok(_) | Err(_) => Err(cut(&self.source)),
        }
    }

    /// Lets the kernel move the rest; false where it has no pipe for us.
    async fn spliced(&self, left: u64, bytes: &mut u64) -> Result<bool, Fault> {
        let moved = Cell::new(*bytes);
        let by = (|| self.read_by(), || self.write_by(moved.get()));
        let (source, client) = (&*self.source, &*self.client.stream);
        let pipes = &self.worker.pipes;
        let relayed = pipes.relay(source, client, left, client.raw(), &moved, by).await;
        *bytes = moved.get();
        match relayed {
            Relayed::All => Ok(true),
            Relayed::NoPipe => Ok(false),
            Relayed::SourceEnded => Err(cut(source)),
            Relayed::SinkFailed => Err(self.client.write_fault()),
        }
    }
}

/// Why a backend's answer ended early.
fn cut(source: &Stream) -> Fault {
    match source.ended() {
        Ended::ClientLeft => Cause::ClientAbort.into(),
        Ended::No | Ended::Overdue | Ended::Closed => Cause::ResponseIncomplete.into(),
    }
}

/// The slowest pace that a body may have, as a deadline: the moment at which the bytes so far
/// would be too few.
struct Pace {
    began: u64,
    rate: u64,
}

impl Pace {
    fn begin(worker: &Worker, in_force: &InForce) -> Pace {
        Pace { began: worker.clock.now(), rate: in_force.plan.limits.body_rate_min }
    }

    /// The earlier of a deadline and the moment at which `bytes` would be too few.
    fn by(&self, bytes: u64, deadline: u64) -> u64 {
        if self.rate == 0 {
            return deadline;
        }
        let earned = bytes.saturating_mul(1000) / self.rate;
        clock::earlier(deadline, self.began.saturating_add(RATE_GRACE_MS).saturating_add(earned))
    }
}
