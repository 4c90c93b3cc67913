//! An HTTP/1 client connection while it is served: reads heads and bodies, sends answers.
//!
//! Idle connections are elsewhere (`server/connection.rs`). Bytes are read once: what was parsed is
//! consumed, and the bytes after it belong to the next message.

use std::rc::Rc;

use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::{Cause, Fault},
    forward::{self, Reply},
    framing::BodyLength,
    head::{RequestHead, ResponseHead, Version},
    parse::{self, HeadLimits, Parse},
    write::{self, Connection},
};
use crate::net::{
    buffer::Buffer,
    deadlines::{Ended, Unmet},
    leaving::{ForClient, Leaves},
    stream::Stream,
};
use crate::proto::{Sink, Source, Waits, peer::Peer};

use super::{Incoming, Outgoing, To};

/// The buffer of requests, and what of the current body is still to come.
pub(super) struct Reader {
    pub(super) buffer: Buffer,
    pub(super) body: Incoming,
}

/// A client's connection while it is served.
pub(crate) struct Client {
    stream: Rc<Stream>,
    pub(crate) peer: Rc<Peer>,
    /// Absent while an upload has it.
    reader: Option<Reader>,
    /// Whether the head of the final answer has been sent, or is about to be.
    has_answered: bool,
    /// Whether the connection may be kept after the present request.
    keeps: bool,
    /// Whether the end of the connection is the end of the answer's body.
    ends_by_close: bool,
    /// When the present request began: the first one at accept; none if it is not logged and its
    /// head was there at once.
    pub(crate) began: Option<Moment>,
    /// Whether the head of the present request was read together with another request.
    is_behind: bool,
}

/// The result of parsing the buffered bytes.
pub(crate) enum HeadRead {
    /// A head of this many bytes; those after it are in the reader's buffer.
    Head(usize),
    /// It is incomplete.
    Partial,
    /// The bytes are no request.
    Refused(Fault),
}

impl Client {
    /// A client whose bytes come into `buffer`, and whose first request began then.
    pub(crate) fn new(
        stream: Rc<Stream>,
        peer: Rc<Peer>,
        buffer: Buffer,
        began: Option<Moment>,
    ) -> Client {
        Client {
            stream,
            peer,
            reader: Some(Reader { buffer, body: Incoming::Ended }),
            has_answered: false,
            keeps: false,
            ends_by_close: false,
            began,
            is_behind: false,
        }
    }

    /// One of which nothing more is read here.
    pub(crate) fn unread(stream: Rc<Stream>, peer: Rc<Peer>) -> Client {
        Client {
            stream,
            peer,
            reader: None,
            has_answered: true,
            keeps: false,
            ends_by_close: false,
            began: None,
            is_behind: false,
        }
    }

    /// Parses a head from the buffered bytes. `scanned` bytes of it are known to contain no end.
    pub(crate) fn take_head(
        &mut self,
        head: &mut RequestHead,
        limits: &HeadLimits,
        scanned: usize,
    ) -> HeadRead {
        let Some(reader) = &mut self.reader else { return HeadRead::Partial };
        let bytes = reader.buffer.bytes();
        // The first bytes are parsed as a head at once: garbage is refused promptly. A head that
        // comes in many small pieces is parsed again only when its end has come.
        let large = bytes.len() > limits.line_bytes_max.min(limits.head_bytes_max);
        if scanned > 0 && !large && parse::complete(bytes, scanned).is_none() {
            return HeadRead::Partial;
        }
        match parse::request(bytes, limits, head) {
            Ok(Parse::Done { used }) => {
                reader.buffer.consume(used);
                HeadRead::Head(used)
            }
            Ok(Parse::More) => HeadRead::Partial,
            Err(fault) => HeadRead::Refused(fault),
        }
    }

    /// Reads more of a head, until then; false if no more comes.
    pub(crate) async fn read_more(&mut self, by: Deadline) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        reader.buffer.rewind();
        matches!(self.stream.recv(&mut reader.buffer, by).await, Ok(1..))
    }

    /// How many bytes are buffered.
    pub(crate) fn buffered(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.buffer.len() as u64)
    }

    /// A request begins; its head has been taken. `keeps`: the connection may be kept after it.
    pub(crate) fn begin(&mut self, keeps: bool) {
        (self.has_answered, self.keeps, self.ends_by_close) = (false, keeps, false);
    }

    /// Sets the length of the body after the head just taken.
    pub(crate) fn expect_body(&mut self, length: BodyLength, limits: HeadLimits) {
        if let Some(reader) = &mut self.reader {
            reader.body = Incoming::of_request(length, limits);
        }
    }

    /// The source of the rest of the request's body; none if it has been taken already.
    pub(crate) fn body(&mut self) -> Option<Source> {
        let reader = self.reader.take()?;
        Some(Source::H1(super::Source::of_client(Rc::clone(&self.stream), reader)))
    }

    /// Takes it back, if it is known what comes next from it. Nothing is awaited from the client
    /// now.
    pub(crate) fn put_back(&mut self, source: Option<Source>) {
        self.stream.watched().read_by(Deadline::NEVER);
        self.reader = match source {
            Some(Source::H1(source)) => source.into_reader(),
            Some(Source::H2(_) | Source::Own(_)) | None => None,
        };
    }

    /// The body, if all of it is buffered and its length is known: it can be sent again.
    pub(crate) fn held_body(&self) -> Option<&[u8]> {
        let reader = self.reader.as_ref()?;
        let count = usize::try_from(reader.body.left()?).ok()?;
        reader.buffer.bytes().get(..count)
    }

    /// Whether bytes of it have come that nobody has taken.
    pub(crate) fn has_said(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.buffer.is_empty())
    }

    /// Whether some of the body is buffered, of a length that is known.
    pub(crate) fn has_some_body(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|it| !it.buffer.is_empty() && it.body.left().is_some())
    }

    /// Whether nothing more of the body comes from the client.
    pub(crate) fn has_whole_body(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.body.has_ended())
    }

    /// Whether the head of another request has been read together with the present request, after
    /// it (as far as is known before its end) or before it. An empty line or a part of a head does
    /// not count.
    pub(crate) fn is_pipelined(&self) -> bool {
        self.is_behind
            || self.reader.as_ref().is_some_and(|reader| {
                // Nothing is: that is so of most.
                !reader.buffer.is_empty() && {
                    let left = reader.body.left().map(usize::try_from);
                    let behind = left.and_then(|left| reader.buffer.bytes().get(left.ok()?..));
                    behind.is_some_and(parse::has_head)
                }
            })
    }

    /// The client as one on whose behalf a backend is waited for; `leaves` is the sign that it
    /// left.
    #[inline]
    pub(crate) fn waiting(&self, leaves: Leaves) -> ForClient {
        self.stream.watched().waits(self.stream.raw(), leaves)
    }

    /// Drops the rest of a small body that is buffered already, so that the connection can be kept;
    /// returns whether the whole request has been read now, and how many bytes were dropped.
    pub(crate) fn skip_body(&mut self) -> (bool, u64) {
        let Some(Reader { buffer, body }) = &mut self.reader else { return (false, 0) };
        let before = buffer.len();
        while !body.has_ended() {
            match body.next(buffer) {
                Ok(part) if part.consumed > 0 => buffer.consume(part.consumed),
                Ok(_) | Err(_) => break,
            }
        }
        (body.has_ended(), (before - buffer.len()) as u64)
    }

    /// Until there is something in its socket, or its end.
    pub(crate) fn stirs(&self) -> impl Future<Output = Result<(), Unmet>> {
        self.stream.readable()
    }

    /// Whether the connection may be kept after the present request.
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// It will not be kept.
    pub(crate) fn will_close(&mut self) {
        self.keeps = false;
    }

    /// Whether the head of the final answer has been sent: then no other can be given.
    #[inline]
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether the end of the connection is the end of the answer's body.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.ends_by_close
    }

    /// Composes the head of a final answer whose body has this length, for a client of this
    /// version. It leaves with the first piece of its body, which is written at once.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        version: Version,
        mut room: Vec<u8>,
    ) -> Sink {
        let Reply { body, keep_alive } = forward::reply(length, version, self.keeps);
        self.keeps = keep_alive;
        self.ends_by_close = body == BodyLength::UntilClose;
        self.has_answered = true;
        room.clear();
        write::response(head, body, Connection::of(Some((version, keep_alive))), &mut room);
        let to = To::Client { closes: !keep_alive };
        Sink::H1(super::Sink::new(Rc::clone(&self.stream), Outgoing::of(body), to, room))
    }

    /// Sends an interim answer; returns how many bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) async fn interim(
        &self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<u64, Fault> {
        room.clear();
        write::response(head, BodyLength::None, Connection::Unsaid, room);
        let sent = self.stream.send_all(room, false, by).await;
        sent.map_err(|_| self.write_fault())?;
        Ok(room.len() as u64)
    }

    /// Sends the answer that switches protocols, after which a tunnel begins; returns how many
    /// bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) async fn switch(
        &mut self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<u64, Fault> {
        self.has_answered = true;
        self.interim(head, room, by).await
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        Sink::H1(super::Sink::tunnel(Rc::clone(&self.stream)))
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        Waits::H1(Rc::clone(&self.stream))
    }

    /// From now on the time is measured for which writes wait for it.
    pub(crate) fn time_stalls(&self) {
        self.stream.time_stalls();
        self.stream.take_stalled();
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        self.stream.take_stalled()
    }

    /// The buffer, with its content; none if an upload has lost it.
    pub(crate) fn take_buffer(&mut self) -> Option<Buffer> {
        self.reader.take().map(|reader| reader.buffer)
    }

    /// Bytes come into this one from now on.
    pub(crate) fn put_buffer(&mut self, buffer: Buffer) {
        self.reader = Some(Reader { buffer, body: Incoming::Ended });
    }

    /// How many bytes lie behind the requests so far; none if that is not known.
    pub(crate) fn behind(&self) -> Option<usize> {
        self.reader.as_ref().map(|reader| reader.buffer.len())
    }

    /// Its connection.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// A request is over, at this moment if it is logged; anything else that is buffered is the
    /// next, which begins then.
    pub(crate) fn end(&mut self, ended: Option<Moment>) {
        let behind = self.reader.as_ref().filter(|reader| !reader.buffer.is_empty());
        self.is_behind = behind.is_some_and(|reader| parse::has_head(reader.buffer.bytes()));
        self.began = ended;
    }

    /// Why a write to it failed.
    pub(crate) fn write_fault(&self) -> Fault {
        match self.stream.write_ended() {
            Some(Ended::Overdue) => Cause::ClientTimeout.into(),
            Some(Ended::Closed | Ended::GivenAway) => Cause::ShuttingDown.into(),
            Some(Ended::ClientLeft | Ended::Moved) | None => Cause::ClientAbort.into(),
        }
    }
}
