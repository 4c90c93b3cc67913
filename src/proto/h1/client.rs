//! A client's connection while it is served: reading heads and bodies, sending answers.
//!
//! What is idle is not here (`server/connection.rs`). Bytes are read once: what was parsed is
//! consumed, and what lies behind it belongs to the next message.

use std::{cell::Cell, rc::Rc};

use crate::base::moment::{Deadline, Moment};
use crate::http::{
    fault::{Cause, Fault},
    framing::BodyLength,
    head::RequestHead,
    headers::Headers,
    parse::{self, HeadLimits, Parse},
};
use crate::net::{buffer::Buffer, deadlines::Ended, stream::Stream};
use crate::proto::peer::Peer;

use super::Incoming;

/// Where the bytes of requests are read, and what of the current body is still to come.
pub(crate) struct Reader {
    pub(crate) buffer: Buffer,
    pub(crate) body: Incoming,
}

/// A client's connection while it is served.
pub(crate) struct Client {
    pub(crate) stream: Rc<Stream>,
    pub(crate) peer: Rc<Peer>,
    /// Not here while an upload has it.
    pub(crate) reader: Option<Reader>,
    /// Whether the head of the final answer has gone out.
    pub(crate) head_sent: Cell<bool>,
    /// When the request at hand began; none where it is not logged.
    pub(crate) began: Option<Moment>,
    /// Whether the request at hand was read behind another.
    pub(crate) is_behind: bool,
}

/// What a look at the buffered bytes gave.
pub(crate) enum HeadRead {
    /// A head of so many bytes; those behind it are in the reader's buffer.
    Head(usize),
    /// Not all of it is there.
    Partial,
    /// What is there is no request.
    Refused(Fault),
}

impl Client {
    /// Parses a head from what is buffered. `scanned` bytes of it are known to hold no end.
    pub(crate) fn take_head(
        &mut self,
        head: &mut RequestHead,
        limits: &HeadLimits,
        scanned: usize,
    ) -> HeadRead {
        let Some(reader) = &mut self.reader else { return HeadRead::Partial };
        let bytes = reader.buffer.bytes();
        // What comes first is looked at as a head at once: garbage is refused promptly. A head
        // that comes in many small pieces is looked at again only when its end is there.
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

    /// How many bytes are buffered.
    pub(crate) fn buffered(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.buffer.len() as u64)
    }

    /// Says how long the body is that follows the head just taken.
    pub(crate) fn expect_body(&mut self, length: BodyLength, limits: HeadLimits) {
        if let Some(reader) = &mut self.reader {
            reader.body = Incoming::of_request(length, limits);
        }
    }

    /// The body, where all of it is buffered and its length is known: it can be sent again.
    pub(crate) fn held_body(&self) -> Option<&[u8]> {
        let reader = self.reader.as_ref()?;
        let count = usize::try_from(reader.body.left()?).ok()?;
        reader.buffer.bytes().get(..count)
    }

    /// Whether more is buffered than the request at hand, as far as that is known before its end.
    pub(crate) fn has_more(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| {
            let left = reader.body.left().unwrap_or(u64::MAX);
            reader.buffer.len() as u64 > left
        })
    }

    /// Takes the rest of a small body that is buffered already, so that the connection can be
    /// kept; whether the whole request has been read now.
    pub(crate) fn skip_buffered_body(&mut self) -> bool {
        let Some(Reader { buffer, body }) = &mut self.reader else { return false };
        let mut trailers = Headers::default();
        while !body.has_ended() {
            match body.next(buffer, &mut trailers) {
                Ok(piece) if piece.consumed > 0 => buffer.consume(piece.consumed),
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Sends bytes of an answer; each time the client takes none, it has until `deadline()`.
    ///
    /// # Errors
    /// The client's fault: it left, or stopped reading.
    #[inline]
    pub(crate) async fn send(
        &self,
        bytes: &[u8],
        more: bool,
        deadline: impl Fn() -> Deadline,
    ) -> Result<(), Fault> {
        self.stream.send_all(bytes, more, deadline).await.map_err(|_| self.write_fault())
    }

    /// As `send`, of the first `count` bytes of a buffer.
    ///
    /// # Errors
    /// As `send`.
    #[inline]
    pub(crate) async fn send_buffer(
        &self,
        buffer: Buffer,
        count: usize,
        deadline: impl Fn() -> Deadline,
    ) -> Result<Buffer, Fault> {
        let sent = self.stream.send_buffer(buffer, count, deadline).await;
        sent.map_err(|_| self.write_fault())
    }

    /// Hands over the first `count` bytes of a buffer that leave when more follows or the
    /// connection is closed, which whoever calls does at once; how many the kernel took.
    pub(crate) fn hold_back(&self, buffer: &Buffer, count: usize) -> usize {
        let bytes = buffer.bytes().get(..count).unwrap_or(&[]);
        self.stream.send_now(bytes, true).unwrap_or(0)
    }

    /// Why a write to it failed.
    pub(crate) fn write_fault(&self) -> Fault {
        match self.stream.write_ended() {
            Some(Ended::Overdue) => Cause::ClientTimeout.into(),
            Some(Ended::Closed) => Cause::ShuttingDown.into(),
            Some(Ended::ClientLeft) | None => Cause::ClientAbort.into(),
        }
    }

    /// Why a read of its body found an end.
    pub(crate) fn read_fault(stream: &Stream) -> Fault {
        match stream.read_ended() {
            Some(Ended::Overdue) => Cause::RequestTimeout.into(),
            Some(Ended::Closed) => Cause::ShuttingDown.into(),
            Some(Ended::ClientLeft) | None => Cause::ClientAbort.into(),
        }
    }
}
