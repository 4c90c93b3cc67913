//! Bodies, a piece at a time: what of the buffered bytes is body, and how it is framed again.
//!
//! Framing is never passed through. A chunked piece is decoded in place, its body moved together,
//! and leaves as one canonical chunk written around it in the same buffer, in one write.

use crate::http::{
    chunks::{self, Chunks, Compacted},
    fault::{Cause, Fault},
    framing::BodyLength,
    headers::Headers,
    parse::HeadLimits,
};
use crate::net::buffer::Buffer;

/// A body that is being read.
pub(crate) enum Incoming {
    /// So many bytes are still to come.
    Fixed(u64),
    Chunked(Box<Chunks>),
    /// All that comes until the end of the connection.
    UntilClose,
    Ended,
}

/// What lies at the front of a buffer: `body` bytes of body, then bytes of no more use up to
/// `consumed`, then what does not belong to the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) body: usize,
    pub(crate) consumed: usize,
    /// Whether the body ends with this piece.
    pub(crate) ended: bool,
}

impl Incoming {
    /// The body of a request.
    pub(crate) fn of_request(length: BodyLength, limits: HeadLimits) -> Incoming {
        Incoming::new(length, || Chunks::of_request(limits))
    }

    /// The body of a response.
    pub(crate) fn of_response(length: BodyLength, limits: HeadLimits) -> Incoming {
        Incoming::new(length, || Chunks::of_response(limits))
    }

    fn new(length: BodyLength, chunks: impl FnOnce() -> Chunks) -> Incoming {
        match length {
            BodyLength::None | BodyLength::Fixed(0) => Incoming::Ended,
            BodyLength::Fixed(count) => Incoming::Fixed(count),
            BodyLength::Chunked => Incoming::Chunked(Box::new(chunks())),
            BodyLength::UntilClose => Incoming::UntilClose,
        }
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Incoming::Ended)
    }

    /// Bytes still to come, where that is known.
    #[inline]
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Incoming::Fixed(left) => Some(*left),
            Incoming::Ended => Some(0),
            Incoming::Chunked(_) | Incoming::UntilClose => None,
        }
    }

    /// Notes that `count` bytes of a fixed length went another way (splice).
    pub(crate) fn passed(&mut self, count: u64) {
        if let Incoming::Fixed(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Incoming::Ended;
            }
        }
    }

    /// What of the buffered bytes is body; moves it to the front. `trailers` takes what follows
    /// a last chunk.
    ///
    /// # Errors
    /// Where the framing breaks the rules.
    pub(crate) fn next(
        &mut self,
        buffer: &mut Buffer,
        trailers: &mut Headers,
    ) -> Result<Piece, Fault> {
        let there = buffer.len();
        let piece = match self {
            Incoming::Fixed(left) => {
                let body = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
                *left -= body as u64;
                Piece { body, consumed: body, ended: *left == 0 }
            }
            Incoming::Chunked(chunks) => {
                let Compacted { body, consumed, ended } =
                    chunks.compact(buffer.bytes_mut(), trailers)?;
                if !body.is_empty() {
                    buffer.consume(body.start);
                }
                let before = if body.is_empty() { 0 } else { body.start };
                Piece { body: body.len(), consumed: consumed - before, ended }
            }
            Incoming::UntilClose => Piece { body: there, consumed: there, ended: false },
            Incoming::Ended => Piece { ended: true, ..Piece::default() },
        };
        if piece.ended {
            *self = Incoming::Ended;
        }
        Ok(piece)
    }

    /// The connection has ended: is the body whole?
    ///
    /// # Errors
    /// Where it is cut.
    pub(crate) fn end_of_stream(&mut self, cut: Cause) -> Result<Piece, Fault> {
        match self {
            Incoming::UntilClose | Incoming::Ended => {
                *self = Incoming::Ended;
                Ok(Piece { ended: true, ..Piece::default() })
            }
            Incoming::Fixed(_) | Incoming::Chunked(_) => Err(cut.into()),
        }
    }
}

/// How a body is framed for the peer it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// As it is: its length stands in the head, or the connection's end is its end.
    Plain,
    Chunked,
}

/// How much of a buffer's front is to be sent, and how much is done with then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framed {
    pub(crate) send: usize,
    pub(crate) skip: usize,
    /// The last chunk did not fit and is to be sent apart.
    pub(crate) end_apart: bool,
}

const END: &[u8] = b"\r\n0\r\n\r\n";

impl Outgoing {
    /// Writes the frame around a piece at the front of `buffer`.
    pub(crate) fn frame(self, buffer: &mut Buffer, piece: Piece, trailers: &Headers) -> Framed {
        let Piece { body, consumed, ended } = piece;
        if self == Outgoing::Plain {
            return Framed { send: body, skip: consumed, end_apart: false };
        }
        let bare = trailers.fields.is_empty();
        let tail: &[u8] = match (body > 0, ended && bare) {
            (true, true) => END,
            (true, false) => &END[..2],
            (false, true) => &END[2..],
            (false, false) => &[],
        };
        let rest = buffer.len() - consumed;
        let room = if rest == 0 { usize::MAX } else { consumed - body };
        let (tail, end_apart) = if tail.len() <= room {
            (tail, ended && !bare)
        } else if body > 0 {
            (&END[..2], ended)
        } else {
            (&END[..0], ended)
        };
        buffer.overwrite(body, tail);
        let skip = if rest == 0 { buffer.len() } else { consumed };
        if body == 0 {
            return Framed { send: tail.len(), skip, end_apart };
        }
        let mut head = [0_u8; 18];
        let head_len = chunks::chunk_head(body as u64, &mut head);
        buffer.prepend(head.get(..head_len).unwrap_or(&[]));
        Framed { send: head_len + body + tail.len(), skip: head_len + skip, end_apart }
    }
}
