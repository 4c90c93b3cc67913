//! HTTP/1 source of a body: the reading side of a connection, after the head that was read from it.
//!
//! Bytes after the end of a body stay in the buffer: they belong to the next message, or to a
//! tunnel. A source may be dropped at any wait without losing bytes; after that it is not known
//! where the next message begins.

use std::rc::Rc;

use super::{Incoming, Reader};
use crate::base::moment::Deadline;
use crate::http::{
    fault::{Cause, Fault},
    parse,
};
use crate::net::{
    buffer::{Buffer, Buffers},
    deadlines::{Ended, Unmet},
    leaving::ForClient,
    stream::{InVain, Stream},
    turns::give_way,
};
use crate::proto::body::{Part, Piece};

/// A body, or the incoming bytes of a tunnel.
pub(crate) struct Source {
    stream: Rc<Stream>,
    /// Absent while a piece has it, or while a tunnel waits.
    buffer: Option<Buffer>,
    /// What of the body is still to come.
    body: Incoming,
    from: From,
    /// Whether the buffered bytes have been parsed.
    is_looked_at: bool,
    /// Bytes that have come, including framing and what follows the body.
    received: u64,
}

/// The kind of peer, which decides how it is waited for and whose fault it is if nothing comes.
enum From {
    Client,
    Backend,
    /// Either, and all that comes: a buffer is taken once there is something to read.
    Tunnel(Rc<Buffers>),
}

impl Source {
    fn new(stream: Rc<Stream>, buffer: Option<Buffer>, body: Incoming, from: From) -> Source {
        let received = buffer.as_ref().map_or(0, Buffer::len) as u64;
        Source { stream, buffer, body, from, is_looked_at: false, received }
    }

    pub(super) fn of_client(stream: Rc<Stream>, reader: Reader) -> Source {
        let Reader { buffer, body } = reader;
        Source::new(stream, Some(buffer), body, From::Client)
    }

    #[inline]
    pub(super) fn of_backend(stream: Rc<Stream>, buffer: Buffer, body: Incoming) -> Source {
        Source::new(stream, Some(buffer), body, From::Backend)
    }

    /// All that comes from a connection of which nothing was read.
    pub(super) fn all(stream: Rc<Stream>, buffers: &Rc<Buffers>) -> Source {
        let from = From::Tunnel(Rc::clone(buffers));
        Source::new(stream, None, Incoming::UntilClose, from)
    }

    /// From now on all that comes belongs to a tunnel.
    pub(in crate::proto) fn into_tunnel(self, buffers: &Rc<Buffers>) -> Source {
        let from = From::Tunnel(Rc::clone(buffers));
        Source::new(self.stream, self.buffer, Incoming::UntilClose, from)
    }

    /// What has come already.
    pub(in crate::proto) fn into_buffer(self) -> Option<Buffer> {
        self.buffer
    }

    /// The reader of a client's next request.
    pub(super) fn into_reader(self) -> Option<Reader> {
        let Source { buffer, body, .. } = self;
        buffer.map(|buffer| Reader { buffer, body })
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(in crate::proto) fn received(&self) -> u64 {
        self.received
    }

    pub(in crate::proto) fn rest(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::len)
    }

    pub(in crate::proto) fn has_next(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| parse::has_head(buffer.bytes()))
    }

    /// See `proto::Source::first`. The body is often right after its head: one more read saves a
    /// write.
    #[inline]
    pub(in crate::proto) fn first(&mut self) -> Result<Piece, Fault> {
        let Some(mut buffer) = self.buffer.take() else { return Ok(Piece::default()) };
        if buffer.is_empty() && !self.body.has_ended() {
            let count = self.stream.recv_now(&mut buffer);
            self.received += count.unwrap_or(0) as u64;
        }
        self.is_looked_at = true;
        self.piece(buffer)
    }

    /// See `proto::Source::next`: what has come and was not parsed, otherwise what comes by one
    /// read.
    pub(in crate::proto) async fn next(
        &mut self,
        until: impl Fn() -> (Deadline, Option<ForClient>),
    ) -> Result<Piece, Fault> {
        if !std::mem::replace(&mut self.is_looked_at, true) && self.rest() > 0 {
            let buffer = self.buffer.take();
            return buffer.map_or(Ok(Piece::default()), |buffer| self.piece(buffer));
        }
        if let From::Tunnel(buffers) = &self.from {
            let buffers = Rc::clone(buffers);
            return self.next_of_tunnel(&buffers, until).await;
        }
        let Some(read_into) = &mut self.buffer else { return Err(Cause::Internal.into()) };
        read_into.rewind();
        let read = match self.from {
            From::Client => self.stream.recv(read_into, until().0).await,
            From::Backend | From::Tunnel(_) => {
                give_way().await;
                let (by, client) = until();
                self.stream.recv_for(read_into, by, client).await
            }
        };
        match read {
            Ok(count) if count > 0 => self.received += count as u64,
            Ok(_) if matches!(self.from, From::Backend) => return self.end_of_stream(),
            Ok(_) | Err(_) => return Err(self.read_fault()),
        }
        let buffer = self.buffer.take();
        buffer.map_or(Ok(Piece::default()), |buffer| self.piece(buffer))
    }

    /// What of a buffer is body.
    #[inline]
    fn piece(&mut self, mut buffer: Buffer) -> Result<Piece, Fault> {
        match self.body.next(&mut buffer) {
            Ok(part) => Ok(Piece { buffer: Some(buffer), part }),
            Err(fault) => {
                self.buffer = Some(buffer);
                Err(fault)
            }
        }
    }

    /// The connection has ended: is the body whole?
    fn end_of_stream(&mut self) -> Result<Piece, Fault> {
        let part = self.body.end_of_stream(Cause::ResponseIncomplete)?;
        Ok(Piece { buffer: self.buffer.take(), part })
    }

    /// What comes next through a tunnel; no buffer is held while waiting.
    async fn next_of_tunnel(
        &mut self,
        buffers: &Buffers,
        until: impl Fn() -> (Deadline, Option<ForClient>),
    ) -> Result<Piece, Fault> {
        let gone = |_: Unmet| Fault::new(Cause::ClientAbort);
        let mut in_vain = InVain::default();
        if let Some(buffer) = self.buffer.take() {
            buffers.give(buffer);
        }
        loop {
            self.stream.watched().read_by(until().0);
            self.stream.readable().await.map_err(gone)?;
            let mut buffer = buffers.take().map_err(|error| gone(Unmet::Broken(error)))?;
            match self.stream.recv_now(&mut buffer) {
                Ok(0) => {
                    buffers.give(buffer);
                    self.body = Incoming::Ended;
                    let part = Part { ended: true, ..Part::default() };
                    return Ok(Piece { buffer: None, part });
                }
                Ok(count) => {
                    self.received += count as u64;
                    return self.piece(buffer);
                }
                Err(Unmet::NotNow) => {
                    buffers.give(buffer);
                    in_vain.pause().await;
                }
                Err(unmet) => return Err(gone(unmet)),
            }
        }
    }

    /// See `proto::Source::done`.
    #[inline]
    pub(in crate::proto) fn done(&mut self, piece: Piece) {
        let Some(mut buffer) = piece.buffer else { return };
        buffer.consume(piece.part.consumed);
        if let From::Tunnel(buffers) = &self.from {
            buffers.give(buffer);
        } else {
            self.buffer = Some(buffer);
        }
    }

    /// See `proto::Source::end`.
    #[inline]
    pub(in crate::proto) fn end(&mut self, buffers: &Buffers) -> bool {
        let Some(buffer) = self.buffer.take() else { return false };
        let more = self.body.has_ended() && !buffer.is_empty();
        buffers.give(buffer);
        more
    }

    /// See `proto::Source::spliceable`.
    #[inline]
    pub(in crate::proto) fn spliceable(&self) -> u64 {
        match (&self.from, &self.body) {
            (From::Backend, Incoming::Fixed(left)) => *left,
            (From::Backend, Incoming::Chunked(_) | Incoming::UntilClose | Incoming::Ended)
            | (From::Client | From::Tunnel(_), _) => 0,
        }
    }

    /// This many bytes went another way.
    pub(super) fn passed(&mut self, count: u64) {
        self.body.passed(count);
    }

    /// Why a read found no more.
    pub(super) fn read_fault(&self) -> Fault {
        let ended = self.stream.read_ended();
        match (&self.from, ended) {
            (From::Client, Some(Ended::Overdue)) => Cause::RequestTimeout.into(),
            (From::Client, Some(Ended::Closed | Ended::GivenAway)) => Cause::ShuttingDown.into(),
            (From::Client, Some(Ended::ClientLeft | Ended::Moved) | None)
            | (From::Tunnel(_), _) => Cause::ClientAbort.into(),
            (From::Backend, Some(Ended::ClientLeft)) => Cause::ClientAbort.into(),
            (
                From::Backend,
                Some(Ended::Overdue | Ended::Moved | Ended::Closed | Ended::GivenAway) | None,
            ) => Cause::ResponseIncomplete.into(),
        }
    }
}
