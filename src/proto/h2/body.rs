//! Bodies on a stream: a source takes what has come, a sink sends while the peer takes.
//!
//! What a source has taken may come again: so the peer's window is what lies here and one piece,
//! and a slow reader holds its writer back. A sink waits for room in the windows of its stream and
//! of its connection, and for its turn.

use std::rc::Rc;

use super::{backend::cut, client::write_fault, response, stream::Stream};
use crate::base::moment::{Deadline, Micros};
use crate::http::fault::{Cause, Fault};
use crate::net::{deadlines::Ended, leaving::ForClient};
use crate::proto::body::{Part, Piece};

/// The source of a body.
pub(crate) struct Source {
    stream: Rc<Stream>,
    received: u64,
}

impl Source {
    pub(super) fn new(stream: Rc<Stream>) -> Source {
        Source { stream, received: 0 }
    }

    pub(in crate::proto) fn received(&self) -> u64 {
        self.received
    }

    /// See `proto::Source::first`: what has come already.
    pub(in crate::proto) fn first(&mut self) -> Result<Piece, Fault> {
        let stream = &self.stream;
        let mut buffer = stream.conn.buffers().take().map_err(|_| Cause::Overloaded)?;
        let mut came = stream.came.borrow_mut();
        let rest = came.rest();
        let count = rest.len().min(buffer.room_len());
        if let (Some(room), Some(bytes)) = (buffer.room().get_mut(..count), rest.get(..count)) {
            room.copy_from_slice(bytes);
        }
        buffer.filled(count);
        came.taken += count;
        if came.taken == came.bytes.len() {
            came.bytes.clear();
            came.taken = 0;
        }
        self.received += count as u64;
        stream.out.set(stream.out.get() + count as u32);
        let ended = stream.has_ended.get() && came.bytes.is_empty();
        let trailers = if ended { came.trailers.take() } else { None };
        let part = Part { body: count, consumed: count, ended, trailers };
        Ok(Piece { buffer: Some(buffer), part })
    }

    /// See `proto::Source::next`.
    pub(in crate::proto) async fn next(
        &mut self,
        until: impl Fn() -> (Deadline, Option<ForClient>),
    ) -> Result<Piece, Fault> {
        let (by, client) = until();
        let came = self.stream.readable(by, client).await;
        came.map_err(|ended| match (self.stream.answers.get(), ended) {
            (Some(answers), ended) => cut(answers, ended),
            (None, Some(Ended::Overdue)) => Fault::new(Cause::RequestTimeout),
            (None, Some(Ended::Closed | Ended::GivenAway)) => Cause::ShuttingDown.into(),
            (None, Some(Ended::ClientLeft | Ended::Moved) | None) => Cause::ClientAbort.into(),
        })?;
        self.first()
    }

    /// See `proto::Source::done`.
    pub(in crate::proto) fn done(&mut self, piece: Piece) {
        let conn = &self.stream.conn;
        piece.buffer.into_iter().for_each(|buffer| conn.buffers().give(buffer));
        let out = self.stream.out.get();
        self.stream.out.set(out.saturating_sub(piece.part.body as u32));
        conn.took(&self.stream, piece.part.body);
    }
}

/// The sink of an answer, or of a request's body.
pub(crate) struct Sink {
    stream: Rc<Stream>,
    /// The block of a head that leaves with the first piece; empty afterwards.
    head: Vec<u8>,
    sent: u64,
}

impl Sink {
    pub(super) fn new(stream: Rc<Stream>, head: Vec<u8>) -> Sink {
        Sink { stream, head, sent: 0 }
    }

    pub(in crate::proto) fn sent(&self) -> u64 {
        self.sent
    }

    pub(in crate::proto) fn into_room(self) -> Vec<u8> {
        self.head
    }

    pub(in crate::proto) fn take_stalled(&self) -> Micros {
        self.stream.stalled.take()
    }

    /// See `proto::Sink::write`.
    pub(in crate::proto) async fn write(
        &mut self,
        piece: &mut Piece,
        by: impl Fn(u64) -> Deadline,
    ) -> Result<(), Fault> {
        let (bytes, trailers) = (piece.bytes(), piece.part.trailers.as_deref());
        let mut ends = piece.ends() && trailers.is_none();
        if !self.head.is_empty() {
            let is_all = ends && bytes.is_empty();
            self.stream.conn.put_block(&self.stream, &self.head, is_all);
            self.sent += self.head.len() as u64;
            self.head.clear();
            // Its end has gone with it.
            ends = ends && !is_all;
        }
        let mut taken = 0;
        loop {
            if self.stream.is_over() {
                return Err(write_fault(None));
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            let put = self.stream.conn.put(&self.stream, rest, ends);
            taken += put.taken;
            self.sent += put.taken as u64;
            if put.is_done {
                break;
            }
            let may = self.stream.writable(by(self.sent)).await;
            may.map_err(write_fault)?;
        }
        if let Some(trailers) = trailers {
            response::fields(trailers, &mut self.head);
            self.stream.conn.put_block(&self.stream, &self.head, true);
            self.sent += self.head.len() as u64;
            self.head.clear();
        }
        Ok(())
    }
}
