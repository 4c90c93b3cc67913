//! How a connection ends (RFC 9113 §6.8): the peer is told, streams under way end by themselves or
//! at once, and nothing is read any more.
//!
//! A backend begins no streams: to one, GOAWAY names none.

use super::{
    conn::{Conn, Leaving, State},
    frame::{FrameHead, Reason, WINDOW_MAX, kind},
    stream::Stream,
};

impl Conn {
    /// Tells the peer that the connection will end (RFC 9113 §6.8): it opens no more streams, and
    /// those that are on their way are still served. Its answer to a ping tells when they have
    /// come.
    pub(crate) fn warn(&self) {
        self.warn_in(&mut self.state.borrow_mut());
    }

    pub(super) fn warn_in(&self, state: &mut State) {
        if state.leaving != Leaving::No {
            return;
        }
        state.leaving = Leaving::Told;
        self.send_goaway(state, WINDOW_MAX as u32, Reason::NO_ERROR);
        let ping = FrameHead { len: 8, kind: kind::PING, flags: 0, id: 0 };
        self.send(state, [&ping.bytes(), b"ringway\0"]);
    }

    /// Ends the connection: the peer is told why as the last. Streams of a client are to be given
    /// up, those to a backend end at once.
    pub(crate) fn end(&self, reason: Reason) {
        let state = &mut *self.state.borrow_mut();
        let is_open = matches!(state.leaving, Leaving::No | Leaving::Told);
        if is_open || (reason != Reason::NO_ERROR && state.leaving == Leaving::Closed) {
            self.close(state, reason);
        }
        self.over(state);
    }

    /// The connection is broken: nothing can be sent any more, and all streams end.
    pub(crate) fn broke(&self) {
        {
            let state = &mut *self.state.borrow_mut();
            state.out.clear(&self.buffers);
            self.over(state);
        }
        while self.has_streams() {
            self.gives_up();
        }
    }

    /// Whether streams are open.
    pub(crate) fn has_streams(&self) -> bool {
        !self.state.borrow().streams.is_empty()
    }

    /// One of the streams ends, if there is one.
    pub(crate) fn gives_up(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Some(stream) = state.streams.pop() {
            self.lost(state, &stream);
        }
    }

    fn over(&self, state: &mut State) {
        state.leaving = Leaving::Over;
        // No task will have them.
        self.ran(state.new.len());
        state.new.clear();
        if self.asked.is_some() {
            for stream in std::mem::take(&mut state.streams) {
                self.lost(state, &stream);
            }
        }
        state.wake_driver();
        if let Some(asked) = &self.asked {
            asked.changed();
        }
    }

    /// A stream has lost its connection.
    fn lost(&self, state: &mut State, stream: &Stream) {
        state.turns.leave(stream);
        match &self.asked {
            Some(asked) => stream.fails(Reason::CANCEL, asked.lost(stream)),
            None => stream.ends(Reason::CANCEL),
        }
    }

    pub(super) fn close(&self, state: &mut State, reason: Reason) {
        state.leaving = Leaving::Closed;
        // A backend begins no streams.
        let last = if self.asked.is_some() { 0 } else { state.last };
        self.send_goaway(state, last, reason);
    }

    fn send_goaway(&self, state: &mut State, last: u32, reason: Reason) {
        let head = FrameHead { len: 8, kind: kind::GOAWAY, flags: 0, id: 0 };
        let [mut payload, code] = [last, reason.0].map(|number| number.to_be_bytes().to_vec());
        payload.extend(code);
        self.send(state, [&head.bytes(), &payload]);
    }
}
