//! An answer's body on its way to the client, behind its head.
//!
//! Memory is one buffer; who reads waits for who writes, so a slow client slows its backend. A
//! piece that is being sent belongs to the ring: this is not dropped before it has ended, and it
//! ends by its deadlines.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{Exchange, Fetched, pace::Pace};
use crate::base::moment::{Deadline, Tick};
use crate::http::{
    chunks,
    fault::{Cause, Fault},
    headers::Headers,
};
use crate::net::{
    buffer::Buffer, clock::Clock, deadlines::Ended, leaving::ForClient, relay::Relayed,
    stream::Stream, turns::give_way,
};
use crate::observe::record::Record;
use crate::proto::h1::{Client, Framed, Incoming, Outgoing};
use crate::worker::{Scratch, Worker};

/// From this many bytes on a body of known length is spliced: below, the pipe costs more than the
/// copy.
const SPLICE_BYTES_MIN: u64 = 96 << 10;

/// Sends a backend's answer: its head, which stands in the exchange's scratch as it goes out, and
/// its body. What arrived with the head leaves with the head, in one write.
pub(super) async fn send(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    fetched: &mut Fetched,
    (outgoing, for_client): (Outgoing, &Cell<ForClient>),
) -> Result<(), Fault> {
    let last = !exchange.keep_alive;
    let in_force = &exchange.in_force;
    let down = Download {
        worker,
        client,
        source: Rc::clone(&fetched.backend.stream),
        outgoing,
        for_client,
        deadline: exchange.deadline,
        read: &in_force.plan.pool(exchange.pool).timeouts.body,
        write: &in_force.plan.listener(client.peer.listener).timeouts.client_write,
        pace: Pace::begin(&worker.clock, in_force.plan.limits.body_rate_min),
        pause: &fetched.pause,
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
        buffer = client.send_buffer(buffer, whole - held_back, || down.first_by()).await?;
        buffer.consume(before + skip - held_back);
    } else {
        Box::pin(client.send(head, send > 0, || down.first_by())).await?;
        buffer = client.send_buffer(buffer, send, || down.first_by()).await?;
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
    for_client: &'a Cell<ForClient>,
    deadline: Deadline,
    read: &'a Duration,
    write: &'a Duration,
    pace: Pace<'a>,
    pause: &'a Pause,
}

/// How long a client keeps an answer waiting.
#[derive(Default)]
pub(crate) struct Pause {
    /// Since when, if it does.
    since: Cell<Option<Tick>>,
    /// Whether it was long once.
    was_long: Cell<bool>,
}

/// A client that takes nothing for so long may cost its backend the patience:
/// few servers wait less for room to send. The coarse clock may be a round of the sweep behind.
const PAUSE_LONG: Duration = Duration::from_millis(500);

impl Pause {
    fn begins(&self, now: Tick) {
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    fn ends(&self, now: Tick) {
        if self.since.take().is_some_and(|since| now >= since + PAUSE_LONG) {
            self.was_long.set(true);
        }
    }

    /// Whether the client took nothing for long.
    pub(super) fn was_long(&self) -> bool {
        self.was_long.get()
    }
}

impl Download<'_> {
    /// Until when the backend is waited for, from now on.
    fn read_by(&self) -> Deadline {
        self.pace.rest();
        self.pause.ends(self.worker.clock.tick());
        self.deadline.earlier(self.worker.clock.after(*self.read))
    }

    /// Until when the client is waited for, from now on.
    fn write_by(&self, bytes: u64) -> Deadline {
        self.pace.wait(bytes, self.first_by())
    }

    /// Until when the client is waited for with the first of an answer.
    fn first_by(&self) -> Deadline {
        self.pause.begins(self.worker.clock.tick());
        self.deadline.earlier(self.worker.clock.after(*self.write))
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
        let since = Clock::moment();
        let rest = self.rest(buffer, body, trailers, end_apart, &mut record.response_bytes).await;
        record.times.waited += Clock::moment().since(since);
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
        match self.source.recv_for(buffer, self.read_by(), self.for_client.get()).await {
            Ok(count) if count > 0 => Ok(true),
            Ok(_) => Ok(false),
            Err(_) => Err(cut(&self.source)),
        }
    }

    /// Lets the kernel move the rest; false where it has no pipe for us.
    async fn spliced(&self, left: u64, bytes: &mut u64) -> Result<bool, Fault> {
        let moved = Cell::new(*bytes);
        let by = (|| self.read_by(), || self.write_by(moved.get()));
        let (source, client) = (&*self.source, &*self.client.stream);
        let pipes = &self.worker.pipes;
        let relayed = pipes.relay(source, client, left, self.for_client, &moved, by).await;
        *bytes = moved.get();
        match relayed {
            Relayed::All => Ok(true),
            Relayed::NoPipe => Ok(false),
            Relayed::NoDescriptor => {
                // This body is copied, or the rest of it.
                self.worker.frees_descriptors();
                Ok(false)
            }
            Relayed::SourceEnded => Err(cut(source)),
            Relayed::SinkFailed => Err(self.client.write_fault()),
        }
    }
}

/// Why a backend's answer ended early.
fn cut(source: &Stream) -> Fault {
    match source.read_ended() {
        Some(Ended::ClientLeft) => Cause::ClientAbort.into(),
        Some(Ended::Overdue | Ended::Closed) | None => Cause::ResponseIncomplete.into(),
    }
}
