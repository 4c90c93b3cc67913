//! Bodies and tunnels: pulled from a source one piece at a time, written to a sink.
//!
//! A piece is requested when the one before has been written, so memory is one piece for each
//! direction and reading waits for writing. Each protocol frames bodies on its own side; the code
//! between them (`exchange::pass`) sees the bytes of a body and its end.

use std::rc::Rc;

use crate::base::moment::{Deadline, Micros};
use crate::http::{
    fault::{Cause, Fault},
    headers::Headers,
};
use crate::net::{
    buffer::{Buffer, Buffers},
    leaving::ForClient,
    relay::Pipes,
};

use super::{h1, h2};

/// The source of a body.
pub(crate) enum Source {
    H1(h1::Source),
    H2(h2::Source),
    /// A body of our own, all of which is there; none while a piece has it.
    Own(Option<Buffer>),
}

/// The sink of a body.
pub(crate) enum Sink {
    H1(h1::Sink),
    H2(h2::Sink),
    /// Read and dropped.
    Nowhere,
}

/// A piece of a body on its way. It goes back to its source after it has been written, because the
/// bytes after it may belong to the next message.
#[derive(Default)]
pub(crate) struct Piece {
    /// The buffer that holds it; none after the last byte of a tunnel.
    pub(super) buffer: Option<Buffer>,
    pub(super) part: Part,
}

/// The contents of a buffer: `body` bytes of body, then used-up bytes until `consumed`, then bytes
/// that do not belong to the body.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) body: usize,
    pub(crate) consumed: usize,
    /// Whether the body ends with it.
    pub(crate) ended: bool,
    /// The trailers after the body, if any.
    pub(crate) trailers: Option<Box<Headers>>,
}

impl Piece {
    /// Its bytes of the body.
    pub(crate) fn bytes(&self) -> &[u8] {
        let bytes = self.buffer.as_ref().map_or(&[][..], Buffer::bytes);
        bytes.get(..self.part.body).unwrap_or(&[])
    }

    /// Whether the body ends with it.
    #[inline]
    pub(crate) fn ends(&self) -> bool {
        self.part.ended
    }

    /// The trailers that follow it, if there are any.
    pub(crate) fn trailers(&self) -> Option<&Headers> {
        self.part.trailers.as_deref()
    }

    /// Whether trailers follow it.
    pub(crate) fn has_trailers(&self) -> bool {
        self.part.trailers.is_some()
    }
}

impl Source {
    /// A body of our own, which is small.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn own(bytes: &[u8], buffers: &Buffers) -> Result<Source, Fault> {
        let mut buffer = buffers.take().map_err(|_| Cause::Overloaded)?;
        if !buffer.overwrite(0, bytes) {
            return Err(Cause::Internal.into());
        }
        Ok(Source::Own(Some(buffer)))
    }

    /// What has come already, without a wait: perhaps nothing.
    ///
    /// # Errors
    /// If the framing breaks the rules.
    #[inline]
    pub(crate) fn first(&mut self) -> Result<Piece, Fault> {
        match self {
            Source::H1(source) => source.first(),
            Source::H2(source) => source.first(),
            Source::Own(buffer) => {
                let len = buffer.as_ref().map_or(0, Buffer::len);
                let part = Part { body: len, consumed: len, ended: true, trailers: None };
                Ok(Piece { buffer: buffer.take(), part })
            }
        }
    }

    /// The next piece, which may be empty. `until` says until when it is waited for, and on behalf
    /// of which client.
    ///
    /// # Errors
    /// If none comes, or the framing breaks the rules. The fault says on which side.
    pub(crate) async fn next(
        &mut self,
        until: impl Fn() -> (Deadline, Option<ForClient>),
    ) -> Result<Piece, Fault> {
        match self {
            Source::H1(source) => source.next(until).await,
            Source::H2(source) => source.next(until).await,
            Source::Own(_) => self.first(),
        }
    }

    /// Takes a piece back, whether or not it could be written.
    #[inline]
    pub(crate) fn done(&mut self, piece: Piece) {
        match self {
            Source::H1(source) => source.done(piece),
            Source::H2(source) => source.done(piece),
            Source::Own(buffer) => *buffer = piece.buffer,
        }
    }

    /// Bytes that have come of it, including framing.
    #[inline]
    pub(crate) fn received(&self) -> u64 {
        match self {
            Source::H1(source) => source.received(),
            Source::H2(source) => source.received(),
            Source::Own(_) => 0,
        }
    }

    /// Of these, those that belong to the next message, or have not been parsed.
    pub(crate) fn rest(&self) -> usize {
        match self {
            Source::H1(source) => source.rest(),
            Source::H2(_) | Source::Own(_) => 0,
        }
    }

    /// Whether the head of another request has been read after the body, which has ended.
    pub(crate) fn has_next(&self) -> bool {
        match self {
            Source::H1(source) => source.has_next(),
            Source::H2(_) | Source::Own(_) => false,
        }
    }

    /// Everything after the body belongs to a tunnel from now on.
    pub(crate) fn into_tunnel(self, buffers: &Rc<Buffers>) -> Source {
        match self {
            Source::H1(source) => Source::H1(source.into_tunnel(buffers)),
            Source::H2(source) => Source::H2(source),
            Source::Own(buffer) => Source::Own(buffer),
        }
    }

    /// What has come already through a tunnel, if both of its ends are sockets.
    ///
    /// # Errors
    /// The source, if they are not.
    pub(crate) fn between_sockets(self, to: &Sink) -> Result<Option<Buffer>, Source> {
        match (self, to) {
            (Source::H1(source), Sink::H1(_)) => Ok(source.into_buffer()),
            (source, Sink::H1(_) | Sink::H2(_) | Sink::Nowhere) => Err(source),
        }
    }

    /// Gives the buffer back: no more is read. True if more has come than a whole message.
    #[inline]
    pub(crate) fn end(&mut self, buffers: &Buffers) -> bool {
        match self {
            Source::H1(source) => source.end(buffers),
            Source::H2(_) => false,
            Source::Own(buffer) => {
                buffer.take().into_iter().for_each(|buffer| buffers.give(buffer));
                false
            }
        }
    }

    /// How many bytes the kernel could move from here by itself: of a body of known length.
    #[inline]
    pub(crate) fn spliceable(&self) -> u64 {
        match self {
            Source::H1(source) => source.spliceable(),
            Source::H2(_) | Source::Own(_) => 0,
        }
    }
}

/// The result of letting the kernel move a body.
#[derive(Debug)]
pub(crate) enum Spliced {
    /// All of it was moved.
    All,
    /// Nothing was, or not all: it goes by pieces.
    Not,
    /// The same, for lack of a descriptor.
    NoDescriptor,
}

/// Which side of a pass ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    From(Fault),
    To(Fault),
}

impl Sink {
    /// Writes a piece, framed as its peer wants it. `by` gives, for the number of bytes that will
    /// have been sent with it, until when the peer may take none.
    ///
    /// # Errors
    /// If the peer takes no more.
    #[inline]
    pub(crate) async fn write(
        &mut self,
        piece: &mut Piece,
        by: impl Fn(u64) -> Deadline,
    ) -> Result<(), Fault> {
        match self {
            Sink::H1(sink) => sink.write(piece, by).await,
            Sink::H2(sink) => sink.write(piece, by).await,
            Sink::Nowhere => Ok(()),
        }
    }

    /// Lets the kernel move what `Source::spliceable` returns.
    ///
    /// # Errors
    /// If either side broke.
    pub(crate) async fn splice(
        &mut self,
        from: &mut Source,
        pipes: &Pipes,
        until: impl Fn() -> (Deadline, Option<ForClient>),
        by: impl Fn(u64) -> Deadline,
    ) -> Result<Spliced, Cut> {
        match (self, from) {
            (Sink::H1(sink), Source::H1(source)) => sink.splice(source, pipes, until, by).await,
            (Sink::H1(_) | Sink::H2(_) | Sink::Nowhere, _) => Ok(Spliced::Not),
        }
    }

    /// How long writes waited for the peer since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        match self {
            Sink::H1(sink) => sink.stream().take_stalled(),
            Sink::H2(sink) => sink.take_stalled(),
            Sink::Nowhere => Micros(0),
        }
    }

    /// The buffer of its head, empty.
    #[inline]
    pub(crate) fn into_room(self) -> Vec<u8> {
        match self {
            Sink::H1(sink) => sink.into_room(),
            Sink::H2(sink) => sink.into_room(),
            Sink::Nowhere => Vec::new(),
        }
    }

    /// Bytes sent so far, including a head and framing.
    #[inline]
    pub(crate) fn sent(&self) -> u64 {
        match self {
            Sink::H1(sink) => sink.sent(),
            Sink::H2(sink) => sink.sent(),
            Sink::Nowhere => 0,
        }
    }
}
