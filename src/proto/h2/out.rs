//! What a connection is to send: frames in order, in a buffer that is filled while the one before
//! is sent.
//!
//! Bodies wait until there is room in the buffer. Heads and small frames do not wait: what does not
//! fit comes behind, and while there is too much of that nothing more is read from the peer.

use super::frame::{FrameHead, HEAD_BYTES, flag, kind};
use super::hpack::NO_TABLE;
use crate::net::buffer::{Buffer, Buffers, READ_BYTES};

/// What is behind the buffer before the peer is no longer read: a peer that makes us answer has to
/// take the answers.
const BEHIND_MAX: usize = 32 << 10;

/// Frames that are to be sent.
#[derive(Default)]
pub(super) struct Out {
    front: Option<Buffer>,
    behind: Vec<u8>,
    /// Whether the peer's decoder knows that we use no table.
    is_without_table: bool,
}

impl Out {
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.front.is_none() && self.behind.is_empty()
    }

    /// Whether it has more than a peer should make it hold.
    pub(super) fn is_crowded(&self) -> bool {
        self.behind.len() > BEHIND_MAX
    }

    /// How much of a body has room now, in one frame.
    #[inline]
    pub(super) fn room(&self) -> usize {
        if !self.behind.is_empty() {
            return 0;
        }
        self.front.as_ref().map_or(READ_BYTES, Buffer::room_len).saturating_sub(HEAD_BYTES)
    }

    /// Appends bytes that must not be parted by others.
    pub(super) fn push(&mut self, parts: [&[u8]; 2], buffers: &Buffers) {
        let [first, second] = parts;
        if self.behind.is_empty() {
            if self.front.is_none() {
                self.front = buffers.take().ok();
            }
            if let Some(front) = &mut self.front
                && front.room_len() >= first.len() + second.len()
            {
                for part in parts {
                    if let Some(room) = front.room().get_mut(..part.len()) {
                        room.copy_from_slice(part);
                        front.filled(part.len());
                    }
                }
                return;
            }
        }
        self.behind.extend_from_slice(first);
        self.behind.extend_from_slice(second);
    }

    /// Appends a block of fields, in frames of at most this length.
    pub(super) fn push_block(
        &mut self,
        (id, ends): (u32, bool),
        block: &[u8],
        frame_max: usize,
        buffers: &Buffers,
    ) {
        let without_table: &[u8] = if self.is_without_table { &[] } else { &[NO_TABLE] };
        self.is_without_table = true;
        // One byte less, for the first frame.
        let mut pieces = block.chunks(frame_max - 1).peekable();
        let mut of = kind::HEADERS;
        let mut before = without_table;
        loop {
            let piece = pieces.next().unwrap_or_default();
            let is_last = pieces.peek().is_none();
            let mut flags = if is_last { flag::END_HEADERS } else { 0 };
            if ends && of == kind::HEADERS {
                flags |= flag::END_STREAM;
            }
            let head = FrameHead { len: before.len() + piece.len(), kind: of, flags, id }.bytes();
            let mut front = [0; HEAD_BYTES + 1];
            let front_len = HEAD_BYTES + before.len();
            if let Some((start, rest)) = front.split_first_chunk_mut::<HEAD_BYTES>() {
                *start = head;
                if let (Some(place), Some(byte)) = (rest.first_mut(), before.first()) {
                    *place = *byte;
                }
            }
            self.push([front.get(..front_len).unwrap_or_default(), piece], buffers);
            if is_last {
                return;
            }
            (of, before) = (kind::CONTINUATION, &[]);
        }
    }

    /// Takes what is to be sent next; none if there is nothing, or no memory for it.
    pub(super) fn take(&mut self, buffers: &Buffers) -> Option<Buffer> {
        let next = self.front.take();
        if next.is_some() || self.behind.is_empty() {
            return next;
        }
        let mut buffer = buffers.take().ok()?;
        let count = self.behind.len().min(buffer.room_len());
        if let (Some(room), Some(bytes)) =
            (buffer.room().get_mut(..count), self.behind.get(..count))
        {
            room.copy_from_slice(bytes);
        }
        buffer.filled(count);
        self.behind.drain(..count);
        if self.behind.is_empty() {
            self.behind = Vec::new();
        }
        Some(buffer)
    }

    /// Nothing is sent any more.
    pub(super) fn clear(&mut self, buffers: &Buffers) {
        self.behind = Vec::new();
        self.front.take().into_iter().for_each(|buffer| buffers.give(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(out: &mut Out, buffers: &Buffers) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some(buffer) = out.take(buffers) {
            sent.extend_from_slice(buffer.bytes());
            buffers.give(buffer);
        }
        assert!(out.is_empty());
        sent
    }

    #[test]
    fn everything_leaves_in_order_whether_or_not_it_fits() {
        let buffers = Buffers::new(2);
        let (mut out, mut expected) = (Out::default(), Vec::new());
        for length in [1, 60_000, 5_000, 600, 70_000, 3] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            out.push([&bytes[..1], &bytes[1..]], &buffers);
            expected.extend(bytes);
        }
        assert!(out.is_crowded() && out.room() == 0);
        assert!(sent(&mut out, &buffers) == expected);
        assert_eq!(out.room(), READ_BYTES - HEAD_BYTES);
    }

    #[test]
    fn a_block_is_parted_into_frames_and_the_first_says_that_no_table_is_used() {
        let buffers = Buffers::new(2);
        let mut out = Out::default();
        out.push_block((5, true), b"abcdefg", 4, &buffers);
        out.push_block((7, false), b"ab", 4, &buffers);
        let frames = [
            &[0, 0, 4, 1, 1, 0, 0, 0, 5, 0x20][..],
            b"abc",
            &[0, 0, 3, 9, 0, 0, 0, 0, 5],
            b"def",
            &[0, 0, 1, 9, 4, 0, 0, 0, 5],
            b"g",
            &[0, 0, 2, 1, 4, 0, 0, 0, 7],
            b"ab",
        ];
        assert_eq!(sent(&mut out, &buffers), frames.concat());
    }
}
