//! The client of one stream: its request, and the answer to it.
//!
//! A body that has come whole with its head is held, as one that was read together with a head of
//! HTTP/1 is: it can be sent again.

use std::rc::Rc;

use super::{Sink, Source, frame::Reason, request::NoHead, response, spare, stream::Stream};
use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::{Cause, Fault},
    framing::BodyLength,
    grammar,
    head::{RequestHead, ResponseHead},
    headers::Headers,
    names::Name,
};
use crate::net::{
    deadlines::{End, Ended},
    leaving::ForClient,
};
use crate::proto::peer::Peer;

/// The client of a stream.
pub(crate) struct Asking {
    pub(super) stream: Rc<Stream>,
    peer: Rc<Peer>,
    /// The whole body, until it is skipped; none if it did not come with the head.
    held: Option<Vec<u8>>,
    /// Whether a source has the body.
    is_taken: bool,
    has_answered: bool,
    /// Whether it asks for another protocol: what follows its head belongs to a tunnel.
    is_tunnel: bool,
}

impl Asking {
    pub(super) fn new(stream: Rc<Stream>, peer: Rc<Peer>) -> Asking {
        Asking { stream, peer, held: None, is_taken: false, has_answered: false, is_tunnel: false }
    }

    /// Takes the head of its request, with the line about the body that HTTP/1 needs; returns how
    /// many bytes it had.
    ///
    /// # Errors
    /// If it is refused.
    pub(crate) fn take_head(&mut self, head: &mut RequestHead) -> Result<u64, Fault> {
        let stream = &self.stream;
        let read = stream.head.take().unwrap_or(Err(NoHead::Malformed));
        let read = read.map_err(|no_head| match no_head {
            NoHead::Refused(fault) => fault,
            NoHead::Malformed | NoHead::Unreadable => Cause::BadRequest.into(),
        })?;
        spare::give_head(std::mem::replace(head, read));
        if head.upgrade {
            (self.is_tunnel, self.held) = (true, Some(Vec::new()));
            return Ok(stream.head_bytes);
        }
        let mut came = stream.came.borrow_mut();
        if stream.has_ended.get() && came.trailers.is_none() {
            let held = std::mem::take(&mut came.bytes);
            if !held.is_empty() && !head.headers.contains(Name::ContentLength) {
                head.headers.push_with(Name::ContentLength, b"content-length", |out| {
                    grammar::push_decimal(held.len() as u64, out);
                });
            }
            drop(came);
            stream.conn.took(stream, held.len());
            self.held = Some(held);
        } else if !head.headers.contains(Name::ContentLength) {
            head.headers.push(Name::TransferEncoding, b"transfer-encoding", b"chunked");
        }
        Ok(stream.head_bytes)
    }

    pub(crate) fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    pub(crate) fn began(&self) -> Option<Moment> {
        self.stream.began
    }

    pub(crate) fn body(&mut self) -> Option<Source> {
        if std::mem::replace(&mut self.is_taken, true) {
            return None;
        }
        Some(Source::new(Rc::clone(&self.stream)))
    }

    pub(crate) fn put_back(&mut self, is_known: bool) {
        self.stream.watched.read_by(Deadline::NEVER);
        self.is_taken = !is_known;
        let came = self.stream.came.borrow();
        if is_known
            && self.stream.has_ended.get()
            && came.rest().is_empty()
            && came.trailers.is_none()
        {
            // Nothing is left of it: what was sent can be sent again.
            self.held = Some(Vec::new());
        }
    }

    pub(crate) fn held_body(&self) -> Option<&[u8]> {
        self.held.as_deref()
    }

    pub(crate) fn has_some_body(&self) -> bool {
        self.held.is_none() && !self.stream.came.borrow().rest().is_empty()
    }

    pub(crate) fn has_whole_body(&self) -> bool {
        self.held.is_some() || (self.stream.has_ended.get() && !self.has_some_body())
    }

    pub(crate) fn skip_body(&mut self) -> (bool, u64) {
        if let Some(held) = &mut self.held {
            return (true, std::mem::take(held).len() as u64);
        }
        let bytes = {
            let mut came = self.stream.came.borrow_mut();
            let count = came.rest().len();
            came.bytes.clear();
            came.taken = 0;
            count
        };
        self.stream.conn.took(&self.stream, bytes);
        (self.stream.has_ended.get(), bytes as u64)
    }

    pub(crate) fn head_bytes(&self) -> u64 {
        self.stream.head_bytes
    }

    pub(crate) fn waiting(&self) -> ForClient {
        self.stream.waiting()
    }

    pub(crate) fn has_left(&self) -> bool {
        self.stream.is_over()
    }

    pub(crate) async fn stirs(&self) {
        self.stream.stirs().await;
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Composes the head of a final answer. It leaves with the first piece of its body.
    pub(crate) fn answer(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        mut room: Vec<u8>,
    ) -> Sink {
        self.has_answered = true;
        // To a client that asks for another protocol a 2xx says that it is spoken (RFC 8441 §4).
        let is_wrong = self.is_tunnel && matches!(head.status, 200..=299);
        let status = if is_wrong { 502 } else { head.status };
        response::head((status, &head.headers), length, &mut room);
        Sink::new(Rc::clone(&self.stream), room)
    }

    /// Sends an interim answer, which does not wait; returns how many bytes it had.
    ///
    /// # Errors
    /// If the stream is over.
    pub(crate) fn interim(&self, head: &ResponseHead, room: &mut Vec<u8>) -> Result<u64, Fault> {
        self.says((head.status, &head.headers), room)
    }

    /// Says that another protocol is spoken from now on (RFC 8441 §5).
    ///
    /// # Errors
    /// If the stream is over.
    pub(crate) fn switch(&mut self, head: &ResponseHead, room: &mut Vec<u8>) -> Result<u64, Fault> {
        self.has_answered = true;
        self.says((200, &head.headers), room)
    }

    fn says(&self, head: (u16, &Headers), room: &mut Vec<u8>) -> Result<u64, Fault> {
        response::head(head, BodyLength::None, room);
        if self.stream.is_over() {
            return Err(write_fault(self.stream.watched.ended(End::Writing)));
        }
        self.stream.conn.put_block(&self.stream, room, false);
        Ok(room.len() as u64)
    }

    pub(crate) fn time_stalls(&self) {
        self.stream.timed.set(true);
        self.stream.stalled.take();
    }

    pub(crate) fn take_stalled(&self) -> Micros {
        self.stream.stalled.take()
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        Sink::new(Rc::clone(&self.stream), Vec::new())
    }

    pub(crate) fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let otherwise = if self.has_answered { Reason::INTERNAL } else { Reason::CANCEL };
        self.stream.conn.done(&self.stream, otherwise);
    }
}

/// Why a write to a client failed.
pub(super) fn write_fault(ended: Option<Ended>) -> Fault {
    match ended {
        Some(Ended::Overdue) => Cause::ClientTimeout.into(),
        Some(Ended::Closed | Ended::GivenAway) => Cause::ShuttingDown.into(),
        Some(Ended::ClientLeft | Ended::Moved) | None => Cause::ClientAbort.into(),
    }
}
