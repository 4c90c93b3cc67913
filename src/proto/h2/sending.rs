//! What a connection sends: blocks of fields, and bodies as far as both windows and the turns of
//! the streams allow it.
//!
//! `out` keeps it until it is taken; whoever takes makes room for the next turn.

use std::{future::poll_fn, rc::Rc, task::Poll};

use super::{
    conn::{Conn, Leaving, State},
    frame::{FrameHead, flag, kind},
    guard::Abuse,
    stream::{Stream, Turn},
};
use crate::net::buffer::Buffer;

/// A frame that we send may be answered by so many that give room, for its stream and for all.
const ROOMS_A_FRAME: u32 = 4;

/// What became of bytes that were to be sent.
pub(super) struct Put {
    pub(super) taken: usize,
    /// Whether all of them were, and the end too, if it was to be sent.
    pub(super) is_done: bool,
}

impl Conn {
    /// Sends a head or trailers.
    pub(super) fn put_block(&self, stream: &Stream, block: &[u8], ends: bool) {
        let state = &mut *self.state.borrow_mut();
        if stream.is_over() || state.leaving == Leaving::Over {
            return;
        }
        stream.is_begun.set(true);
        state.out.push_block((stream.id.get(), ends), block, state.frame_max, &self.buffers);
        if ends {
            state.sent_end(stream);
        }
        state.wake_driver();
    }

    /// Sends bytes of a body, as far as there is room, and its end behind the last.
    pub(super) fn put(&self, stream: &Rc<Stream>, bytes: &[u8], ends: bool) -> Put {
        let state = &mut *self.state.borrow_mut();
        state.turns.is_used(stream);
        if state.leaving == Leaving::Over {
            // It is over, or will be given up.
            if !stream.is_over() {
                state.turns.wait(stream);
            }
            return Put { taken: 0, is_done: false };
        }
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() && !(ends && taken == 0 && bytes.is_empty()) {
                if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: true };
            }
            let turn = stream.turn.get();
            if turn != Turn::Its && !rest.is_empty() && state.turns.are_wanted() {
                state.turns.wait(stream);
                return Put { taken, is_done: false };
            }
            let windows = stream.send_window.get().min(state.send_window).max(0);
            let room = state.out.room().min(state.frame_max);
            let count = rest.len().min(room).min(usize::try_from(windows).unwrap_or_default());
            if count == 0 && !rest.is_empty() {
                if stream.send_window.get() > 0 {
                    state.turns.wait(stream);
                } else if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: false };
            }
            let (piece, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            let is_last = ends && behind.is_empty();
            let flags = if is_last { flag::END_STREAM } else { 0 };
            let head = FrameHead { len: piece.len(), kind: kind::DATA, flags, id: stream.id.get() };
            state.out.push([&head.bytes(), piece], &self.buffers);
            state.send_window -= count as i64;
            state.guard.excuses(Abuse::WindowUpdates, ROOMS_A_FRAME);
            stream.send_window.set(stream.send_window.get() - count as i64);
            taken += count;
            state.wake_driver();
            if is_last {
                state.sent_end(stream);
            }
            if behind.is_empty() {
                if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: true };
            }
            if state.turns.are_wanted() {
                // A turn is one frame.
                stream.turn.set(Turn::None);
                state.turns.wait(stream);
                give_turn(state);
                return Put { taken, is_done: false };
            }
        }
    }

    /// Waits for something to send; none when the last has been sent. Its buffer is the caller's.
    pub(crate) async fn output(&self) -> Option<Buffer> {
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            if let Some(buffer) = self.take_output(state) {
                return Poll::Ready(Some(buffer));
            }
            if state.leaving == Leaving::Over {
                return Poll::Ready(None);
            }
            if !state.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                state.driver = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Takes what is to be sent next, which makes room for more.
    fn take_output(&self, state: &mut State) -> Option<Buffer> {
        let buffer = state.out.take(&self.buffers)?;
        give_turn(state);
        Some(buffer)
    }

    /// What is to be sent now.
    #[cfg(test)]
    pub(super) fn output_now(&self) -> Option<Buffer> {
        self.take_output(&mut self.state.borrow_mut())
    }
}

/// Gives the next turn, if there is room for a frame.
pub(super) fn give_turn(state: &mut State) {
    if state.turns.are_wanted() && state.send_window > 0 && state.out.room() > 0 {
        state.turns.give();
    }
}
