//! HTTP/1 sink of a body: the writing side of a connection, with the frame that its peer was
//! promised.
//!
//! A composed head that has not been sent leaves with the first piece, in one write. To a client
//! pieces leave by the ring, in the batch of the turn; a piece that is being sent belongs to the
//! ring, so such a write is not dropped before it has ended. To a backend, and through a tunnel,
//! they leave by a call of their own: such a write may be dropped at any moment.

use std::{cell::Cell, rc::Rc};

use super::{Framed, Outgoing, Source};
use crate::base::moment::Deadline;
use crate::http::{
    chunks,
    fault::{Cause, Fault},
};
use crate::net::{
    buffer::Buffer,
    deadlines::Ended,
    leaving::ForClient,
    relay::{Pipes, Relayed},
    stream::Stream,
};
use crate::proto::body::{Cut, Piece, Spliced};

/// The sink of a body, or of a tunnel.
pub(crate) struct Sink {
    stream: Rc<Stream>,
    outgoing: Outgoing,
    to: To,
    /// A head that leaves with the first piece; empty afterwards.
    head: Vec<u8>,
    /// Bytes sent.
    sent: u64,
}

/// The kind of peer, which decides how it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Client {
        /// Whether the connection ends with this message.
        closes: bool,
    },
    Backend,
    Tunnel,
}

impl Sink {
    pub(super) fn new(stream: Rc<Stream>, outgoing: Outgoing, to: To, head: Vec<u8>) -> Sink {
        Sink { stream, outgoing, to, head, sent: 0 }
    }

    pub(super) fn tunnel(stream: Rc<Stream>) -> Sink {
        Sink::new(stream, Outgoing::Plain, To::Tunnel, Vec::new())
    }

    pub(in crate::proto) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(in crate::proto) fn sent(&self) -> u64 {
        self.sent
    }

    /// The buffer of the head.
    pub(in crate::proto) fn into_room(self) -> Vec<u8> {
        self.head
    }

    /// See `proto::Sink::write`. The bytes of a piece are used up even if a write by a call fails:
    /// its source may go on.
    #[inline]
    pub(in crate::proto) async fn write(
        &mut self,
        piece: &mut Piece,
        by: impl Fn(u64) -> Deadline,
    ) -> Result<(), Fault> {
        let Some(mut buffer) = piece.buffer.take() else { return Ok(()) };
        let Framed { mut send, skip, end_apart } = self.outgoing.frame(&mut buffer, &piece.part);
        piece.part.consumed = skip;
        let head = self.head.len();
        let then = self.sent + (head + send) as u64;
        if let To::Client { closes } = self.to {
            if head > 0 && buffer.prepend(&self.head) {
                // The end of a connection leaves with the end of its last answer, in one segment.
                let is_last = closes && piece.part.ended && !end_apart;
                let held_back = if is_last { self.hold_back(&buffer, head + send) } else { 0 };
                buffer.consume(held_back);
                send = head + send - held_back;
                piece.part.consumed = head + skip - held_back;
            } else if head > 0 {
                Box::pin(self.write_head(send > 0, || by(then))).await?;
            }
            self.head.clear();
            let sent = self.stream.send_buffer(buffer, send, || by(then)).await;
            piece.buffer = Some(sent.map_err(|_| self.fault())?);
        } else {
            let bytes = buffer.bytes().get(..send).unwrap_or(&[]);
            let sent = self.stream.send_all(bytes, end_apart, || by(then)).await;
            piece.buffer = Some(buffer);
            sent.map_err(|_| self.fault())?;
        }
        self.sent = then;
        if end_apart {
            Box::pin(self.write_trailers(piece, &by)).await?;
        }
        Ok(())
    }

    /// Sends the head separately.
    async fn write_head(&mut self, more: bool, by: impl Fn() -> Deadline) -> Result<(), Fault> {
        let sent = self.stream.send_all(&self.head, more, by).await;
        sent.map_err(|_| self.fault())
    }

    /// Sends the last chunk, with the trailers.
    async fn write_trailers(
        &mut self,
        piece: &Piece,
        by: &impl Fn(u64) -> Deadline,
    ) -> Result<(), Fault> {
        let mut end = Vec::new();
        match &piece.part.trailers {
            Some(trailers) => chunks::write_trailers(trailers, &mut end),
            None => end.extend_from_slice(chunks::LAST_CHUNK),
        }
        let sent = self.stream.send_all(&end, false, || by(self.sent)).await;
        sent.map_err(|_| self.fault())?;
        self.sent += end.len() as u64;
        Ok(())
    }

    /// Gives the kernel the first `count` bytes of a buffer, to be sent when more follows or the
    /// connection is closed, which is at once; returns how many it took.
    fn hold_back(&self, buffer: &Buffer, count: usize) -> usize {
        let bytes = buffer.bytes().get(..count).unwrap_or(&[]);
        self.stream.send_now(bytes, true).unwrap_or(0)
    }

    /// See `proto::Sink::splice`.
    pub(in crate::proto) async fn splice(
        &mut self,
        from: &mut Source,
        pipes: &Pipes,
        until: impl Fn() -> (Deadline, Option<ForClient>),
        by: impl Fn(u64) -> Deadline,
    ) -> Result<Spliced, Cut> {
        let (left, moved) = (from.spliceable(), Cell::new(self.sent));
        let bounds = (until, || by(moved.get()));
        let relayed = pipes.relay(from.stream(), &self.stream, left, &moved, bounds).await;
        from.passed(moved.get() - self.sent);
        self.sent = moved.get();
        match relayed {
            Relayed::All => Ok(Spliced::All),
            Relayed::NoPipe => Ok(Spliced::Not),
            Relayed::NoDescriptor => Ok(Spliced::NoDescriptor),
            Relayed::SourceEnded => Err(Cut::From(from.read_fault())),
            Relayed::SinkFailed => Err(Cut::To(self.fault())),
        }
    }

    /// Why a write failed.
    fn fault(&self) -> Fault {
        match (self.to, self.stream.write_ended()) {
            (To::Client { .. }, Some(Ended::Overdue)) => Cause::ClientTimeout.into(),
            (To::Client { .. }, Some(Ended::Closed | Ended::GivenAway)) => {
                Cause::ShuttingDown.into()
            }
            (To::Client { .. }, Some(Ended::ClientLeft | Ended::Moved) | None)
            | (To::Tunnel, _) => Cause::ClientAbort.into(),
            // In any case: a backend that takes no body may have answered, and that tells.
            (To::Backend, _) => Cause::BackendReset.into(),
        }
    }
}
