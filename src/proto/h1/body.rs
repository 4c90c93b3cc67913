//! HTTP/1 bodies, one piece at a time: which of the buffered bytes are body, and how it is framed
//! again.
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
use crate::proto::body::Part;

/// A body that is being read.
pub(crate) enum Incoming {
    /// This many bytes are still to come.
    Fixed(u64),
    Chunked(Box<Chunked>),
    /// All that comes until the end of the connection.
    UntilClose,
    Ended,
}

/// A chunked body, and its trailers as far as they have come.
pub(crate) struct Chunked {
    chunks: Chunks,
    trailers: Headers,
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
            BodyLength::Chunked => {
                let (chunks, trailers) = (chunks(), Headers::default());
                Incoming::Chunked(Box::new(Chunked { chunks, trailers }))
            }
            BodyLength::UntilClose => Incoming::UntilClose,
        }
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Incoming::Ended)
    }

    /// Bytes still to come, if that is known.
    #[inline]
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Incoming::Fixed(left) => Some(*left),
            Incoming::Ended => Some(0),
            Incoming::Chunked(_) | Incoming::UntilClose => None,
        }
    }

    /// Records that `count` bytes of a fixed length went another way (splice).
    pub(crate) fn passed(&mut self, count: u64) {
        if let Incoming::Fixed(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Incoming::Ended;
            }
        }
    }

    /// Which of the buffered bytes are body; moves it to the front.
    ///
    /// # Errors
    /// If the framing breaks the rules.
    #[inline]
    pub(crate) fn next(&mut self, buffer: &mut Buffer) -> Result<Part, Fault> {
        let there = buffer.len();
        let part = match self {
            Incoming::Fixed(left) => {
                let body = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
                *left -= body as u64;
                Part { body, consumed: body, ended: *left == 0, trailers: None }
            }
            Incoming::Chunked(chunked) => chunked.next(buffer)?,
            Incoming::UntilClose => {
                Part { body: there, consumed: there, ended: false, trailers: None }
            }
            Incoming::Ended => Part { ended: true, ..Part::default() },
        };
        if part.ended {
            *self = Incoming::Ended;
        }
        Ok(part)
    }

    /// The connection has ended: is the body whole?
    ///
    /// # Errors
    /// If it is cut.
    pub(crate) fn end_of_stream(&mut self, cut: Cause) -> Result<Part, Fault> {
        match self {
            Incoming::UntilClose | Incoming::Ended => {
                *self = Incoming::Ended;
                Ok(Part { ended: true, ..Part::default() })
            }
            Incoming::Fixed(_) | Incoming::Chunked(_) => Err(cut.into()),
        }
    }
}

impl Chunked {
    fn next(&mut self, buffer: &mut Buffer) -> Result<Part, Fault> {
        let Compacted { body, consumed, ended } =
            self.chunks.compact(buffer.bytes_mut(), &mut self.trailers)?;
        let before = if body.is_empty() { 0 } else { body.start };
        buffer.consume(before);
        let trailers = (ended && !self.trailers.fields.is_empty())
            .then(|| Box::new(std::mem::take(&mut self.trailers)));
        Ok(Part { body: body.len(), consumed: consumed - before, ended, trailers })
    }
}

/// How a body is framed for the peer it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// As it is: the head says its length, or it ends with the connection.
    Plain,
    Chunked,
}

/// How much of a buffer's front to send, and how much is then used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framed {
    pub(crate) send: usize,
    pub(crate) skip: usize,
    /// The last chunk did not fit and must be sent separately.
    pub(crate) end_apart: bool,
}

const END: &[u8] = b"\r\n0\r\n\r\n";

impl Outgoing {
    /// For a head with this length.
    #[inline]
    pub(crate) fn of(length: BodyLength) -> Outgoing {
        match length {
            BodyLength::Chunked => Outgoing::Chunked,
            BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose => Outgoing::Plain,
        }
    }

    /// Writes the frame around the body at the front of `buffer`.
    #[inline]
    pub(crate) fn frame(self, buffer: &mut Buffer, part: &Part) -> Framed {
        let Part { body, consumed, ended, .. } = *part;
        if self == Outgoing::Plain {
            return Framed { send: body, skip: consumed, end_apart: false };
        }
        self.frame_chunk(buffer, (body, consumed, ended), part.trailers.is_none())
    }

    fn frame_chunk(
        self,
        buffer: &mut Buffer,
        (body, consumed, ended): (usize, usize, bool),
        bare: bool,
    ) -> Framed {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::net::buffer::{Buffers, READ_BYTES};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 32 << 10, line_bytes_max: 16 << 10, fields_max: 100 };

    /// The next request of the pipeline: no byte of it may be touched.
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

    /// The result of relaying a message: what was sent, and what was left in the buffer.
    #[derive(Debug, PartialEq, Eq)]
    struct Relayed {
        sent: Vec<u8>,
        left: Vec<u8>,
    }

    /// Relays a message that comes in these reads, as uploads and downloads do.
    fn relay(length: BodyLength, outgoing: Outgoing, reads: &[&[u8]]) -> Result<Relayed, Fault> {
        let mut incoming = Incoming::of_request(length, LIMITS);
        let mut buffer = Buffers::new(1).take().unwrap();
        let mut sent = Vec::new();
        let mut reads = reads.iter();
        let mut ended = false;
        while !ended {
            let part = match reads.next() {
                Some(read) => {
                    buffer.rewind();
                    buffer.room()[..read.len()].copy_from_slice(read);
                    buffer.filled(read.len());
                    incoming.next(&mut buffer)?
                }
                None => incoming.end_of_stream(Cause::ResponseIncomplete)?,
            };
            ended = part.ended;
            assert_eq!(incoming.has_ended(), ended);
            let Framed { send, skip, end_apart } = outgoing.frame(&mut buffer, &part);
            sent.extend_from_slice(&buffer.bytes()[..send]);
            buffer.consume(skip);
            if end_apart {
                chunks::write_trailers(&part.trailers.unwrap_or_default(), &mut sent);
            }
        }
        let mut left = buffer.bytes().to_vec();
        reads.for_each(|read| left.extend_from_slice(read));
        Ok(Relayed { sent, left })
    }

    /// A chunked message read by the letter of RFC 9112 §7.1, without extensions: body, trailers.
    fn decoded(mut message: &[u8]) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let end = message.windows(2).position(|pair| pair == b"\r\n").expect("a size");
            let size = std::str::from_utf8(&message[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).expect(size);
            message = &message[end + 2..];
            if size == 0 {
                let trailers = message.strip_suffix(b"\r\n").expect("an end");
                return (body, String::from_utf8(trailers.to_vec()).unwrap());
            }
            body.extend_from_slice(&message[..size]);
            assert_eq!(&message[size..size + 2], b"\r\n", "a chunk ends");
            message = &message[size + 2..];
        }
    }

    /// Relays a message whole, in every two reads, in every three, and byte by byte.
    #[track_caller]
    fn check(length: BodyLength, outgoing: Outgoing, message: &[u8], expected: (&[u8], &str)) {
        let rest: &[u8] = if length == BodyLength::UntilClose { b"" } else { NEXT };
        let message = &[message, rest].concat()[..];
        let check = |reads: &[&[u8]]| {
            let Relayed { sent, left } = relay(length, outgoing, reads).unwrap();
            let (body, trailers) = match outgoing {
                Outgoing::Chunked => decoded(&sent),
                Outgoing::Plain => (sent, expected.1.to_owned()),
            };
            let cuts: Vec<usize> = reads.iter().map(|read| read.len()).collect();
            assert!(body == expected.0, "reads of {cuts:?}: {:?}", body.escape_ascii());
            assert_eq!(trailers, expected.1, "reads of {cuts:?}");
            assert_eq!(left, rest, "reads of {cuts:?}");
        };
        check(&[message]);
        for second in 1..message.len() {
            let (before, last) = message.split_at(second);
            check(&[before, last]);
            for first in 1..second {
                let (first, middle) = before.split_at(first);
                check(&[first, middle, last]);
            }
        }
        check(&message.chunks(1).collect::<Vec<_>>());
    }

    const CHUNKED: &[u8] = b"5\r\nhello\r\n1;name=\"value\"\r\n,\r\n007\r\n chunks\r\n0\r\n\r\n";
    const TRAILED: &[u8] = b"3\r\nabc\r\n2\r\nde\r\n0\r\nChecksum: 1\r\nStamp:  x y \r\n\r\n";

    #[test]
    fn chunks_are_framed_anew_wherever_they_are_cut() {
        check(BodyLength::Chunked, Outgoing::Chunked, CHUNKED, (b"hello, chunks", ""));
        check(BodyLength::Chunked, Outgoing::Plain, CHUNKED, (b"hello, chunks", ""));
        check(BodyLength::Chunked, Outgoing::Chunked, b"0\r\n\r\n", (b"", ""));
    }

    #[test]
    fn trailers_come_behind_the_last_chunk() {
        let trailers = "Checksum: 1\r\nStamp: x y\r\n";
        check(BodyLength::Chunked, Outgoing::Chunked, TRAILED, (b"abcde", trailers));
        let only = b"0\r\nA: b\r\n\r\n";
        check(BodyLength::Chunked, Outgoing::Chunked, only, (b"", "A: b\r\n"));
    }

    #[test]
    fn a_body_of_known_length_passes_as_it_is() {
        check(
            BodyLength::Fixed(11),
            Outgoing::Plain,
            b"hello\r\n0\r\n\r",
            (b"hello\r\n0\r\n\r", ""),
        );
        check(BodyLength::Fixed(1), Outgoing::Plain, b"x", (b"x", ""));
    }

    #[test]
    fn what_ends_with_its_connection_passes_or_gets_chunks() {
        let body = b"0\r\n\r\nis no end here";
        check(BodyLength::UntilClose, Outgoing::Plain, body, (body, ""));
        check(BodyLength::UntilClose, Outgoing::Chunked, body, (body, ""));
    }

    #[test]
    fn what_is_cut_is_never_whole() {
        let whole = [(BodyLength::Chunked, CHUNKED), (BodyLength::Fixed(5), b"hello")];
        for (length, message) in whole {
            for cut in 1..message.len() {
                let relayed = relay(length, Outgoing::Chunked, &[&message[..cut]]);
                assert_eq!(relayed, Err(Cause::ResponseIncomplete.into()), "cut at {cut}");
            }
        }
        let broken = relay(BodyLength::Chunked, Outgoing::Chunked, &[b"5\r\nhello0\r\n\r\n"]);
        assert_eq!(broken, Err(Cause::BadRequest.into()));
    }

    #[test]
    fn a_read_that_fills_its_buffer_leaves_room_for_its_frame() {
        let body = vec![b'x'; READ_BYTES];
        let mut message = format!("{:x}\r\n", body.len()).into_bytes();
        let head = message.len();
        message.extend_from_slice(&body);
        message.extend_from_slice(b"\r\n0\r\n\r\n");
        // The first read is as long as possible: all of it body, or the head and the first of it.
        for first in [head, 1] {
            let (start, rest) = message.split_at(first);
            let reads: Vec<&[u8]> = std::iter::once(start).chain(rest.chunks(READ_BYTES)).collect();
            let relayed = relay(BodyLength::Chunked, Outgoing::Chunked, &reads).unwrap();
            assert!(decoded(&relayed.sent) == (body.clone(), String::new()));
        }
        let reads: Vec<&[u8]> = body.chunks(READ_BYTES).collect();
        let relayed = relay(BodyLength::UntilClose, Outgoing::Chunked, &reads).unwrap();
        assert!(decoded(&relayed.sent).0 == body);
    }

    /// Random bodies of many chunks of any size, in reads of any size.
    #[test]
    fn bodies_survive_whatever_chunks_and_reads_they_come_in() {
        for seed in 0..64 {
            let mut rng = Rng::seeded(seed);
            let size = rng.below(150_000) as usize;
            let body: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
            let mut message = Vec::new();
            let mut rest = &body[..];
            while !rest.is_empty() {
                let most = [3, 300, 70_000][rng.below(3) as usize];
                let (chunk, behind) = rest.split_at(rest.len().min(1 + rng.below(most) as usize));
                message.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                message.extend_from_slice(chunk);
                message.extend_from_slice(b"\r\n");
                rest = behind;
            }
            message.extend_from_slice(b"0\r\n\r\n");
            message.extend_from_slice(NEXT);
            let (mut reads, mut rest) = (Vec::new(), &message[..]);
            while !rest.is_empty() {
                let most = [3, 300, READ_BYTES as u32][rng.below(3) as usize];
                let (read, behind) = rest.split_at(rest.len().min(1 + rng.below(most) as usize));
                reads.push(read);
                rest = behind;
            }
            let relayed = relay(BodyLength::Chunked, Outgoing::Chunked, &reads).unwrap();
            assert!(decoded(&relayed.sent).0 == body, "seed {seed}");
            assert_eq!(relayed.left, NEXT, "seed {seed}");
        }
    }

    #[test]
    fn what_went_another_way_counts_as_passed() {
        let mut incoming = Incoming::of_response(BodyLength::Fixed(10), LIMITS);
        assert_eq!(incoming.left(), Some(10));
        incoming.passed(4);
        assert_eq!((incoming.left(), incoming.has_ended()), (Some(6), false));
        incoming.passed(6);
        assert_eq!((incoming.left(), incoming.has_ended()), (Some(0), true));
        for (length, left) in [
            (BodyLength::None, Some(0)),
            (BodyLength::Fixed(0), Some(0)),
            (BodyLength::Chunked, None),
            (BodyLength::UntilClose, None),
        ] {
            assert_eq!(Incoming::of_response(length, LIMITS).left(), left, "{length:?}");
        }
    }
}
