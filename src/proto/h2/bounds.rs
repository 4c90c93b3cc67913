//! What the connection of a client may take of its core: a part of each turn, places for its
//! streams, and how much of what it begins is for nothing.
//!
//! `guard` bounds what it may do too often; this is for what each may do, and costs others.

use super::{
    conn::{Conn, Leaving, STREAMS_MAX},
    frame::{FrameHead, HEAD_BYTES, PAYLOAD_MAX, kind},
    places::Share,
};

/// What is taken of a client in one turn, a frame being one and a block of fields more: what takes
/// some hundred microseconds, whatever it is.
pub(super) const WORK_A_TURN: usize = 1_024;

/// What a block of fields costs besides one for each 32 bytes: two of them can have the 4 KiB of
/// the table copied. A turn has room for as many small ones as there may be streams.
const BLOCK_WORK: usize = 8;

/// Requests that wait to be begun before no more frames are taken: all that may run at once.
const NEW_MAX: usize = STREAMS_MAX;

/// What a frame costs of a turn.
#[inline]
pub(super) fn work(head: FrameHead) -> usize {
    match head.kind {
        kind::HEADERS | kind::CONTINUATION => BLOCK_WORK + head.len / 32,
        _ => 1,
    }
}

impl Conn {
    /// Whether these bytes begin with a whole frame: one turn could not have them all.
    pub(crate) fn has_frame(&self, bytes: &[u8]) -> bool {
        let head = FrameHead::read(bytes);
        head.is_some_and(|head| bytes.len() - HEAD_BYTES >= head.len || head.len > PAYLOAD_MAX)
    }

    pub(super) fn has_many_new(&self) -> bool {
        self.state.borrow().new.len() >= NEW_MAX
    }

    /// Whether there are requests that no task has.
    pub(crate) fn has_new(&self) -> bool {
        !self.state.borrow().new.is_empty()
    }

    /// One more stream runs, if there is a place for it.
    pub(super) fn runs(&self) -> bool {
        let running = self.running.get();
        let may = running < STREAMS_MAX && self.places.as_ref().is_none_or(Share::take);
        if may {
            self.running.set(running + 1);
        }
        may
    }

    /// So many run no more.
    pub(super) fn ran(&self, count: usize) {
        self.running.set(self.running.get().saturating_sub(count));
        self.places.iter().for_each(|places| places.give(count));
    }

    /// The peer has left: what it has begun was for nothing.
    pub(crate) fn has_left(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.leaving == Leaving::Over {
            return;
        }
        let wasted = state.streams.iter().filter(|stream| stream.is_waste()).count();
        state.wasted += wasted as u32;
    }

    /// How many requests more were begun for nothing than were answered.
    pub(crate) fn waste(&self) -> u32 {
        let state = self.state.borrow();
        state.wasted.saturating_sub(state.answered)
    }
}
