//! Bodies on their way: two plain loops, one for each direction, each owning its half and ending
//! on its own.
//!
//! Memory is one buffer for each direction; who reads waits for who writes, so a slow peer slows
//! the other one. All waits here are readiness polls and may be dropped at will.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{Exchange, Fetched};
use crate::{
    base::ids::{ListenerId, PoolId},
    http::{
        chunks,
        fault::{Cause, Fault},
        headers::Headers,
    },
    net::{clock, deadlines::Ended, relay::Relayed, stream::Stream},
    proto::h1::{Client, Framed, Incoming, Outgoing, Reader},
    shared::counters::Counter,
    worker::{InForce, Worker},
};

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
    bytes: u64,
    result: Result<(), Stopped>,
}

/// Why an upload stopped before the body's end.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    /// The client's doing: the exchange ends.
    Client(Fault),
    /// The backend takes no more: it may have answered, or it is gone; its answer will tell.
    Backend,
}

type Uploading = Pin<Box<dyn Future<Output = Uploaded>>>;

/// A request body on its way to a backend.
pub(crate) struct Upload {
    backend: Rc<Stream>,
    state: State,
}

enum State {
    Going(Uploading),
    Ended(Uploaded),
}

impl Upload {
    /// Sends what `reader` holds and then what comes from the client.
    pub(crate) fn begin(route: Route, reader: Reader, outgoing: Outgoing) -> Upload {
        let backend = Rc::clone(&route.backend);
        Upload { backend, state: State::Going(Box::pin(upload(route, reader, outgoing))) }
    }

    /// Goes on with it; true when this ended it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Going(future) = &mut self.state else { return false };
        let Poll::Ready(ended) = future.as_mut().poll(cx) else { return false };
        if matches!(ended.result, Err(Stopped::Client(_))) {
            // Nobody needs the answer any more: whoever waits for it wakes up.
            self.backend.shut_down(crate::net::fd::Half::Both);
        }
        self.state = State::Ended(ended);
        true
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

    /// Bytes of body that went over, where it has ended.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.state {
            State::Ended(uploaded) => uploaded.bytes,
            State::Going(_) => 0,
        }
    }

    /// The client's reader, where it has ended.
    pub(crate) fn into_reader(self) -> Option<Reader> {
        match self.state {
            State::Ended(uploaded) => Some(uploaded.reader),
            State::Going(_) => None,
        }
    }
}

async fn upload(route: Route, mut reader: Reader, outgoing: Outgoing) -> Uploaded {
    let mut bytes = 0;
    let result = upload_all(&route, &mut reader, outgoing, &mut bytes).await;
    Uploaded { reader, bytes, result }
}

async fn upload_all(
    route: &Route,
    reader: &mut Reader,
    outgoing: Outgoing,
    bytes: &mut u64,
) -> Result<(), Stopped> {
    let Route { worker, client, backend, in_force, deadline, .. } = route;
    let listener = in_force.plan.listener(route.listener).timeouts;
    let write = in_force.plan.pool(route.pool).timeouts.write;
    let most = in_force.plan.limits.body_bytes_max;
    let pace = Pace::begin(worker, in_force);
    let write_by = || clock::earlier(*deadline, worker.clock.after(write));
    let mut trailers = Headers::default();
    loop {
        let piece = reader.body.next(&mut reader.buffer, &mut trailers).map_err(Stopped::Client)?;
        *bytes += piece.body as u64;
        if most != 0 && *bytes > most {
            return Err(Stopped::Client(Cause::BodyTooLarge.into()));
        }
        worker.counters.add(Counter::RequestBytes, piece.body as u64);
        let Framed { send, skip, end_apart } = outgoing.frame(&mut reader.buffer, piece, &trailers);
        let out = reader.buffer.bytes().get(..send).unwrap_or(&[]);
        backend.send_all(out, end_apart, write_by).await.map_err(|_| Stopped::Backend)?;
        reader.buffer.consume(skip);
        if end_apart {
            let mut end = Vec::new();
            chunks::write_trailers(&trailers, &mut end);
            backend.send_all(&end, false, write_by).await.map_err(|_| Stopped::Backend)?;
        }
        if piece.ended {
            return Ok(());
        }
        reader.buffer.rewind();
        let by = pace.by(*bytes, worker.clock.after(listener.client_body));
        let read = client.recv(&mut reader.buffer, clock::earlier(*deadline, by)).await;
        if !matches!(read, Ok(count) if count > 0) {
            return Err(Stopped::Client(Client::read_fault(client)));
        }
    }
}

/// Sends a backend's answer: its head, which stands in the exchange's scratch as it goes out, and
/// its body.
pub(crate) async fn download(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    fetched: &mut Fetched,
    outgoing: Outgoing,
) -> Result<(), Fault> {
    let in_force = Rc::clone(&exchange.in_force);
    let plan = in_force.plan.pool(exchange.pool).timeouts;
    let client_write = in_force.plan.listener(client.peer.listener).timeouts.client_write;
    let deadline = exchange.deadline;
    let pace = Pace::begin(worker, &in_force);
    let client_fd = client.stream.raw();
    let Fetched { backend, buffer: held, body, .. } = fetched;
    let Some(mut buffer) = held.take() else { return Err(Cause::Internal.into()) };
    let source = &*backend.stream;
    let read_by = || clock::earlier(deadline, worker.clock.after(plan.body));
    let scratch = &mut *exchange.scratch;
    let bytes = &mut exchange.record.response_bytes;
    let mut head: &[u8] = &scratch.out;
    if buffer.is_empty() && !body.has_ended() {
        // The body is often right behind its head: one more look saves a write.
        let _ = source.recv_now(&mut buffer);
    }
    loop {
        let piece = body.next(&mut buffer, &mut scratch.trailers)?;
        *bytes += piece.body as u64;
        let write_by = || pace.by(*bytes, worker.clock.after(client_write));
        let Framed { send, skip, end_apart } =
            outgoing.frame(&mut buffer, piece, &scratch.trailers);
        client.head_sent.set(true);
        let before = head.len();
        if before > 0 && buffer.prepend(head) {
            buffer = client.send_buffer(buffer, before + send, write_by).await?;
            buffer.consume(before + skip);
        } else if before == 0 {
            buffer = client.send_buffer(buffer, send, write_by).await?;
            buffer.consume(skip);
        } else {
            let out = buffer.bytes().get(..send).unwrap_or(&[]);
            let sent = client.stream.send_parts(head, out, end_apart, write_by).await;
            sent.map_err(|_| client.write_fault())?;
            buffer.consume(skip);
        }
        head = &[];
        if end_apart {
            let mut end = Vec::new();
            chunks::write_trailers(&scratch.trailers, &mut end);
            client.send(&end, false, write_by).await?;
        }
        if body.has_ended() {
            *held = Some(buffer);
            return Ok(());
        }
        if let Incoming::Fixed(left @ SPLICE_BYTES_MIN..) = *body {
            match worker
                .pipes
                .relay(source, &client.stream, left, client_fd, read_by, write_by)
                .await
            {
                Relayed::All => {
                    *bytes += left;
                    body.passed(left);
                    *held = Some(buffer);
                    return Ok(());
                }
                Relayed::SourceEnded(_) => return Err(cut(source)),
                Relayed::SinkFailed(..) => return Err(client.write_fault()),
                Relayed::NoPipe => {}
            }
        }
        buffer.rewind();
        match source.recv_for(&mut buffer, read_by(), client_fd).await {
            Ok(count) if count > 0 => {}
            Ok(_) if source.ended() == Ended::No => {
                let end = body.end_of_stream(Cause::ResponseIncomplete)?;
                let framed = outgoing.frame(&mut buffer, end, &scratch.trailers);
                let out = buffer.bytes().get(..framed.send).unwrap_or(&[]);
                client.send(out, false, || worker.clock.after(client_write)).await?;
                return Ok(());
            }
            Ok(_) | Err(_) => return Err(cut(source)),
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
