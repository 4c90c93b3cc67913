//! An HTTP/1 connection to a backend: the head of its answer, and whether it may be reused.
//!
//! The body after a request's head goes through a `Sink`, that of the answer comes from a `Source`.
//! Before the first byte of an answer a wait is for the posted receive, later for readiness.

use std::{cell::Cell, rc::Rc};

use super::{Incoming, Outgoing, To, compose};
use crate::base::moment::{Deadline, Micros};
use crate::http::{
    fault::{Cause, Fault},
    framing::BodyLength,
    head::ResponseHead,
    keep_alive::{self, KeepAlive},
    parse::{self, HeadLimits, Parse},
};
use crate::net::{
    buffer::Buffers,
    deadlines::{Ended, Unmet},
    io::is_want,
    leaving::ForClient,
    stream::Stream,
};
use crate::proto::{Arriving, Asking, Sink, Source, Waits};

/// A body up to this long is copied after its head, so that both leave by one send of the ring.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// A connection to a backend.
pub(crate) struct Backend {
    pub(crate) stream: Rc<Stream>,
    /// Which of its backend's addresses it goes to; the connection pool knows it by this number.
    pub(crate) address: u32,
    /// Requests sent on it, including the present one.
    pub(crate) requests: u32,
    /// How long the backend keeps an idle connection, in seconds (`Keep-Alive: timeout`).
    pub(crate) keeps_idle: Option<u32>,
    /// How many requests it takes on this connection in all (`Keep-Alive: max`).
    requests_max: u32,
    /// Whether the present answer allows reuse, and shows where it ends.
    keeps: bool,
    /// Whether the present request was not taken whole, not even its head.
    has_refused: Cell<bool>,
    /// Whether any byte of the present answer has come.
    has_begun: Cell<bool>,
    /// Whether an exchange is under way on it.
    is_busy: Cell<bool>,
    /// Whether the present request may do something at the backend.
    is_unsafe: bool,
}

impl Backend {
    pub(crate) fn new(stream: Stream, address: u32) -> Backend {
        Backend {
            stream: Rc::new(stream),
            address,
            requests: 0,
            keeps_idle: None,
            requests_max: u32::MAX,
            keeps: false,
            has_refused: Cell::new(false),
            has_begun: Cell::new(false),
            is_busy: Cell::new(false),
            is_unsafe: false,
        }
    }

    /// Whether it has carried a request before the present one.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        self.requests > 1
    }

    /// Whether it may be reused after the present answer. A backend that sends 408 is about to
    /// close, whatever else it says (RFC 9110 §15.5.9).
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        self.keeps && !self.has_refused() && self.requests < self.requests_max
    }

    /// Whether the backend has not taken the head of the present request.
    #[inline]
    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused.get()
    }

    /// Whether any byte of the present answer has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// A request is sent on it now; from now on the time is measured for which it waits, if that is
    /// wanted.
    #[inline]
    pub(crate) fn begin(&mut self, is_timed: bool) {
        self.requests += 1;
        self.keeps = false;
        self.has_refused.set(false);
        self.has_begun.set(false);
        self.is_busy.set(true);
        if std::mem::take(&mut self.is_unsafe) {
            self.stream.watched().entrusts(false);
        }
        if is_timed {
            self.stream.time_stalls();
        }
    }

    /// Sends the head of a request, with all of its body that is at hand; returns whether it was
    /// taken, or is on its way: a small request is not waited for, and `head` hears of it. A
    /// backend that does not take a request may have answered it all the same. After a cut head a
    /// body would be read as a request.
    ///
    /// # Errors
    /// If it takes nothing in time, or we ran out of something.
    pub(crate) async fn ask(
        &mut self,
        asking: &Asking<'_>,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<bool, Fault> {
        compose::request(asking, room);
        self.is_unsafe = !asking.head.method.is_safe();
        if self.is_unsafe && asking.held.is_some() {
            self.stream.watched().entrusts(true);
        }
        let sent = match asking.held {
            Some(body) if body.len() <= COPIED_BYTES_MAX => {
                room.extend_from_slice(body);
                match self.stream.post_send(std::mem::take(room)) {
                    Ok(()) => return Ok(true),
                    Err(bytes) => {
                        let (sent, back) = self.stream.send_vec(bytes, by).await;
                        *room = back;
                        sent
                    }
                }
            }
            Some(body) => Box::pin(self.stream.send_parts(room, body, false, by)).await,
            None => Box::pin(self.stream.send_all(room, asking.body_follows, by)).await,
        };
        self.heard(sent)?;
        Ok(!self.has_refused())
    }

    /// The end of a send.
    fn heard(&self, sent: Result<(), Unmet>) -> Result<(), Fault> {
        match sent {
            Ok(()) => {}
            Err(Unmet::Ended(Ended::Overdue)) => return Err(Cause::ResponseTimeout.into()),
            Err(Unmet::Broken(error)) if is_want(&error) => return Err(Cause::Overloaded.into()),
            Err(Unmet::Ended(_) | Unmet::NotNow | Unmet::Broken(_)) => self.has_refused.set(true),
        }
        Ok(())
    }

    /// Something has come, if only an end: the request that is on its way has been taken, or will
    /// not be.
    #[inline]
    fn hears_of_request(&self, room: &mut Vec<u8>) {
        if self.stream.is_sending() {
            match self.stream.has_sent() {
                Some(back) => *room = back,
                None => self.has_refused.set(true),
            }
        }
    }

    /// Nothing has come yet: looks after the request that is on its way.
    #[cold]
    async fn looks_after_request(
        &self,
        room: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let (sent, back) = self.stream.sent(deadline).await;
        *room = back;
        self.heard(sent)
    }

    /// The sink for the rest of the body that was announced with the head.
    pub(crate) fn body(&self, length: BodyLength) -> Sink {
        let stream = Rc::clone(&self.stream);
        Sink::H1(super::Sink::new(stream, Outgoing::of(length), To::Backend, Vec::new()))
    }

    /// Reads the next head of an answer into `head`; `room` is that of the request. The deadline
    /// and the client may be set while it waits.
    ///
    /// # Errors
    /// If none comes, or no valid one.
    pub(crate) async fn head(
        &self,
        arriving: &mut Arriving,
        (head, room): (&mut ResponseHead, &mut Vec<u8>),
        (limits, buffers): (&HeadLimits, &Buffers),
        (deadline, client): (&Cell<Deadline>, &Cell<ForClient>),
    ) -> Result<(), Fault> {
        arriving.at = None;
        if arriving.buffer.is_none() && !self.stream.is_receiving() {
            self.post_receive(buffers).map_err(|_| Cause::Overloaded)?;
        }
        loop {
            if arriving.buffer.as_ref().is_some_and(|buffer| !buffer.is_empty()) {
                arriving.note();
                self.has_begun.set(true);
            }
            if let Some(buffer) = arriving.buffer.as_mut().filter(|buffer| !buffer.is_empty())
                && let Parse::Done { used } = parse::response(buffer.bytes(), limits, head)?
            {
                buffer.consume(used);
                return Ok(());
            }
            let read = match &mut arriving.buffer {
                None => {
                    let (by, client) = (deadline.get(), Some(client.get()));
                    let Some((read, received)) = self.stream.received(by, client).await else {
                        Box::pin(self.looks_after_request(room, deadline.get())).await?;
                        continue;
                    };
                    self.hears_of_request(room);
                    arriving.buffer = Some(received);
                    read
                }
                Some(buffer) => {
                    if buffer.room_len() == 0 {
                        buffer.rewind();
                    }
                    self.stream.recv_for(buffer, deadline.get(), Some(client.get())).await
                }
            };
            if !matches!(read, Ok(count) if count > 0) {
                return Err(self.read_fault(arriving.is_seen));
            }
        }
    }

    /// The source of the body after the final head.
    #[inline]
    pub(crate) fn source(
        &mut self,
        arriving: Arriving,
        (head, length): (&ResponseHead, BodyLength),
        limits: HeadLimits,
    ) -> Option<Source> {
        let KeepAlive { timeout, max } = keep_alive::read(&head.headers);
        // Each answer states it anew, but a number of requests holds for the next too, as it only
        // falls.
        self.keeps_idle = timeout;
        if let Some(more) = max {
            self.requests_max = self.requests_max.min(self.requests.saturating_add(more));
        }
        self.keeps = head.keep_alive && head.status != 408 && length != BodyLength::UntilClose;
        let body = Incoming::of_response(length, limits);
        let (stream, buffer) = (Rc::clone(&self.stream), arriving.buffer?);
        Some(Source::H1(super::Source::of_backend(stream, buffer, body)))
    }

    /// The exchange is over: it is closed as one that is idle.
    #[inline]
    pub(crate) fn is_done(&self) {
        self.is_busy.set(false);
    }

    /// The source of all that comes, if nothing has come yet.
    pub(crate) fn all(&self, buffers: &Rc<Buffers>) -> super::Source {
        super::Source::all(Rc::clone(&self.stream), buffers)
    }

    /// The sink of a tunnel to the backend.
    pub(crate) fn tunnel(&self) -> Sink {
        // How it ends is the tunnel's affair.
        self.is_done();
        Sink::H1(super::Sink::tunnel(Rc::clone(&self.stream)))
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        Waits::H1(Rc::clone(&self.stream))
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        self.stream.take_stalled()
    }

    /// Whether, and why, we ended reading it.
    pub(crate) fn read_ended(&self) -> Option<Ended> {
        self.stream.read_ended()
    }

    /// Why the wait for its head ended without one.
    fn read_fault(&self, answer_begun: bool) -> Fault {
        match self.stream.read_ended() {
            Some(Ended::Overdue) => Cause::ResponseTimeout.into(),
            Some(Ended::ClientLeft) => Cause::ClientAbort.into(),
            Some(Ended::Moved) => Cause::BackendDown.into(),
            Some(Ended::Closed | Ended::GivenAway) => Cause::ShuttingDown.into(),
            // A cut head is no answer, but the sign of one.
            None if answer_begun => Cause::BackendProtocol.into(),
            None if self.is_reused() => Cause::BackendStale.into(),
            None => Cause::BackendReset.into(),
        }
    }

    /// Posts the receive that waits while it is idle and takes the next answer.
    ///
    /// # Errors
    /// If there is no memory for a buffer.
    pub(crate) fn post_receive(&self, buffers: &Buffers) -> std::io::Result<()> {
        self.stream.post_receive(buffers.take()?);
        Ok(())
    }
}

impl Drop for Backend {
    /// What is given up in the middle of an exchange is reset: nobody reads the rest of the answer,
    /// and a close would keep the local port for a minute. A backend that may carry the request out
    /// hears of it as it always did: a reset could overtake what it has not read.
    fn drop(&mut self) {
        if self.is_busy.get() && !self.stream.watched().is_entrusted() {
            self.stream.abort();
        }
    }
}
