//! The backend of one stream: a request to it, and its answers.
//!
//! The request takes its place on the wire when it is sent; until then the stream has none. The
//! body after its head goes through a `Sink`, that of the answer comes from a `Source`. Dropping it
//! ends the stream, if that has not ended, and never the connection.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{Sink, Source, answers::Answers, compose, frame::Reason, stream::Stream};
use crate::base::{
    base64url,
    moment::{Deadline, Micros},
    sha1,
};
use crate::http::{
    fault::{Cause, Fault, StreamReset},
    grammar,
    head::{Method, ResponseHead},
    headers::{Headers, Span},
    names::Name,
};
use crate::net::{
    deadlines::{End, Ended},
    leaving::ForClient,
};
use crate::proto::{self, Arriving, Waits};

/// The backend of a stream.
pub(crate) struct Backend {
    stream: Rc<Stream>,
    scheme: &'static [u8],
    /// The proof that a client of HTTP/1 wants of who switches to a WebSocket (RFC 6455 §4.2.2).
    accept: Vec<u8>,
}

impl Backend {
    /// With a stream that was reserved, in a connection of this scheme.
    pub(crate) fn new(stream: Rc<Stream>, scheme: &'static [u8]) -> Backend {
        Backend { stream, scheme, accept: Vec::new() }
    }

    fn answers(&self) -> Option<&Answers> {
        self.stream.answers.get()
    }

    pub(crate) fn begin(&mut self, is_timed: bool) {
        self.stream.timed.set(is_timed);
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.answers().is_some_and(|answers| answers.is_reused)
    }

    /// Whether the backend goes on with the present request.
    pub(crate) fn keeps(&self) -> bool {
        !self.stream.is_over()
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.answers().is_some_and(|answers| answers.has_begun.get())
    }

    /// See `proto::Backend::ask`.
    pub(crate) async fn ask(
        &mut self,
        asking: &proto::Asking<'_>,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<bool, Fault> {
        let Some(answers) = self.answers() else { return Err(Cause::Internal.into()) };
        let connects = compose::asks_for_websocket(asking) && self.stream.conn.takes_connect();
        compose::request(asking, (self.scheme, connects), room);
        answers.is_tunnel.set(connects);
        answers.is_to_head.set(asking.head.method == Method::Head);
        let before = asking.before.map_or(&[][..], |(bytes, _)| bytes);
        let is_all = asking.held.is_some() && !connects;
        let held = asking.held.unwrap_or_default();
        let ends = is_all && before.is_empty() && held.is_empty();
        if !self.stream.conn.opens((&self.stream, answers), room, ends) {
            return Err(Cause::BackendUnprocessed.into());
        }
        for (bytes, is_last) in [(before, held.is_empty()), (held, true)] {
            if !bytes.is_empty() {
                self.sends(answers, bytes, is_all && is_last, &by).await?;
            }
        }
        if connects {
            self.accept = accept(&asking.head.headers);
        }
        Ok(true)
    }

    /// Sends bytes of the body while the backend takes them and has not answered.
    async fn sends(
        &self,
        answers: &Answers,
        mut bytes: &[u8],
        ends: bool,
        by: impl Fn() -> Deadline,
    ) -> Result<(), Fault> {
        let stream = &self.stream;
        while !stream.is_over() && !answers.has_final.get() {
            let put = stream.conn.put(stream, bytes, ends);
            bytes = bytes.get(put.taken..).unwrap_or_default();
            if put.is_done {
                return Ok(());
            }
            let mut room = pin!(stream.writable(by()));
            let may = poll_fn(|cx| match room.as_mut().poll(cx) {
                Poll::Pending if answers.has_final.get() => Poll::Ready(Ok(())),
                may => may,
            });
            match may.await {
                Ok(()) => {}
                Err(Some(Ended::Overdue)) => return Err(Cause::ResponseTimeout.into()),
                // What has become of it the head tells.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    pub(crate) fn body(&self) -> Sink {
        Sink::new(Rc::clone(&self.stream), Vec::new())
    }

    /// Reads the next head of an answer into `head`.
    ///
    /// # Errors
    /// If none comes, or no valid one.
    pub(crate) async fn head(
        &self,
        arriving: &mut Arriving,
        head: &mut ResponseHead,
        (deadline, client): (&Cell<Deadline>, &Cell<ForClient>),
    ) -> Result<(), Fault> {
        let Some(answers) = self.answers() else { return Err(Cause::Internal.into()) };
        arriving.at = None;
        let came = self.stream.answered(answers, deadline.get(), client.get()).await;
        let came = came.map_err(|ended| self.fault(ended))?;
        arriving.note();
        let before = std::mem::replace(head, came);
        if let Some(asked) = &self.stream.conn.asked {
            asked.give_back(before);
        }
        match head.status {
            200..=299 if answers.is_tunnel.get() => self.switches(head),
            200.. => self.frame(head, answers),
            _ => {}
        }
        Ok(())
    }

    /// Makes of an answer the one by which HTTP/1 switches (RFC 8441 §5).
    fn switches(&self, head: &mut ResponseHead) {
        head.status = 101;
        let bytes = &mut head.headers.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(b"Switching Protocols");
        head.reason = Span::new(start, bytes.len());
        head.headers.push(Name::Connection, b"connection", b"upgrade");
        head.headers.push(Name::Upgrade, b"upgrade", b"websocket");
        head.headers.push(Name::Other, b"sec-websocket-accept", &self.accept);
    }

    /// Adds the line about the body that HTTP/1 needs.
    fn frame(&self, head: &mut ResponseHead, answers: &Answers) {
        let has_none = matches!(head.status, 204 | 304) || answers.is_to_head.get();
        if has_none || head.headers.contains(Name::ContentLength) {
            return;
        }
        let came = self.stream.came.borrow();
        if self.stream.has_ended.get() && came.trailers.is_none() {
            let length = came.rest().len() as u64;
            head.headers.push_with(Name::ContentLength, b"content-length", |out| {
                grammar::push_decimal(length, out);
            });
        } else {
            head.headers.push(Name::TransferEncoding, b"transfer-encoding", b"chunked");
        }
    }

    /// The source of the body after the final head.
    pub(crate) fn source(&self) -> Source {
        Source::new(Rc::clone(&self.stream))
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        self.body()
    }

    pub(crate) fn waits(&self) -> Waits {
        Waits::H2(Rc::clone(&self.stream))
    }

    pub(crate) fn take_stalled(&self) -> Micros {
        self.stream.stalled.take()
    }

    pub(crate) fn reset(&self) -> Option<StreamReset> {
        self.stream.reset()
    }

    pub(crate) fn read_ended(&self) -> Option<Ended> {
        self.stream.watched.ended(End::Reading)
    }

    /// Why the wait for its head ended without one.
    fn fault(&self, ended: Option<Ended>) -> Fault {
        match ended {
            Some(Ended::Overdue) => Cause::ResponseTimeout.into(),
            Some(Ended::ClientLeft) => Cause::ClientAbort.into(),
            Some(Ended::Moved) => Cause::BackendDown.into(),
            Some(Ended::Closed | Ended::GivenAway) => Cause::ShuttingDown.into(),
            None => self.lost().unwrap_or(Cause::BackendReset).into(),
        }
    }

    fn lost(&self) -> Option<Cause> {
        self.answers().and_then(|answers| answers.fault.get())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stream.conn.done(&self.stream, Reason::CANCEL);
    }
}

/// What a server says to this handshake: its key, with the number that all know, as a digest.
fn accept(headers: &Headers) -> Vec<u8> {
    let mut keyed = headers.named(b"sec-websocket-key").next().unwrap_or_default().to_vec();
    keyed.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut field = Vec::with_capacity(30);
    base64url::encode_for_field(&sha1::digest(&keyed), &mut field);
    field.retain(|letter| *letter != b':');
    field
}

/// Why the source of an answer's body found no more.
pub(super) fn cut(answers: &Answers, ended: Option<Ended>) -> Fault {
    match (ended, answers.fault.get()) {
        (Some(Ended::ClientLeft), _) => Cause::ClientAbort.into(),
        // One stream of its connection has said it of the backend.
        (None, Some(cause @ (Cause::BackendStale | Cause::ResponseRefused))) => cause.into(),
        (Some(_) | None, _) => Cause::ResponseIncomplete.into(),
    }
}
